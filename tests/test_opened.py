"""What a conversion kept of a model is what the model gives, and of that model alone."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import SOURCES
from mobiledeploy.core.ports import OpenedModel
from mobiledeploy.core.types import ModelSpec, Preprocessing, Source, Weights
from mobiledeploy.steps.model_files import detect
from tests import opened

CARD = ModelSpec(
    *("a", "mobilenet_v1", "mobilenet_v1", {"alpha": 0.25}, (32, 32), 5),
    Preprocessing((-1.0, 1.0)),
    Weights("random", "", pinned=False),
)


def of_file(path: Path) -> Source:
    return Source(dataclasses.replace(CARD, card=None), file=detect(path))


@pytest.mark.slow
def test_it_gives_what_the_model_gives_and_opens_it_once(model_files: Path, tmp_path: Path) -> None:
    asked = []

    def really(source: Source) -> OpenedModel:
        asked.append(source)
        return SOURCES.load("tf_keras").open(source)

    model = SOURCES.load("tf_keras").open(of_file(model_files / "k2.h5"))
    images = Batch((np.random.default_rng(0).random((2, 32, 32, 3), np.float32),))
    # Another name of the same file, another process.
    shutil.copy(model_files / "k2.h5", tmp_path / "copy.h5")
    folder = tmp_path / "opened"
    folder.mkdir()
    for path in (model_files / "k2.h5", tmp_path / "copy.h5"):
        one = opened._open(folder, really, of_file(path))
        assert (one.inputs, one.output_names) == (model.inputs, model.output_names)
        assert one.ends_in_softmax() and model.ends_in_softmax()
        np.testing.assert_array_equal(one.answers(images), model.answers(images))
        pre = Preprocessing((-1.0, 1.0))
        assert one.likelier_range(pre, images) == model.likelier_range(pre, images)
        assert one.floats("logits") == model.floats("logits")
        assert len(asked) == 1
    # What was not asked yet, and what cannot be kept.
    assert one.floats("softmax") != model.floats("logits")
    assert one.network is not None
    assert len(asked) == 2


def test_a_model_is_what_it_is_built_from(model_files: Path, tmp_path: Path) -> None:
    keys = {opened._key(of_file(model_files / name)) for name in ("k2.h5", "k3.keras", "k2_saved")}
    assert len(keys) == 3
    assert opened._key(of_file(model_files / "k2.h5")) in keys
    plain = opened._key(Source(CARD))
    for change in ({"classes": 6}, {"resolution": (32, 48)}, {"arguments": {"alpha": 0.5}}):
        assert opened._key(Source(dataclasses.replace(CARD, **change))) != plain
    assert opened._key(Source(dataclasses.replace(CARD, name="b"))) == plain
    weights = tmp_path / "w.h5"
    trained = set()
    for content in (b"1", b"2"):
        weights.write_bytes(content)
        trained.add(opened._key(Source(CARD, weights=str(weights))))
    assert len(trained | {plain}) == 3


def test_an_error_is_the_model_s_own(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"no weights")
    source = Source(CARD, weights=str(tmp_path / "w.h5"))
    for _ in range(2):
        with pytest.raises(InputError, match="w.h5"):
            opened._open(tmp_path, SOURCES.load("tf_keras").open, source)
