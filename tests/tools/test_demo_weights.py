"""The course that makes the demo weights, cut down to what the package does not test already."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras
from PIL import Image

from mobiledeploy.datasets import shapes
from mobiledeploy.training.loop import save_weights
from tests.scripts import script

SCRIPT = Path(__file__).resolve().parent.parent.parent / "tools" / "demo_weights.py"
CLASSES = 2


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    with script("tools/demo_weights.py") as module:
        yield module


def pool(resolution: int, count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Dark images of class 0 and light ones of class 1."""
    labels = np.arange(count, dtype=np.int64) % CLASSES
    images = np.random.default_rng(resolution).integers(
        0, 100, (count, resolution, resolution, 3), dtype=np.uint8
    )
    return images + (labels * 150).astype(np.uint8)[:, None, None, None], labels


def build(resolution: tuple[int, int] = (32, 32)) -> tf_keras.Model:
    """A small network that is convolutional up to its pooling; traced in a second."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((*resolution, 3), name="image")
    x = layers.Conv2D(4, 3, 2, padding="same", use_bias=False, name="conv1")(image)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.ReLU(6.0, name="conv1_relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = layers.Conv2D(CLASSES, 1, name="conv_preds")(x)
    x = layers.Reshape((CLASSES,), name="reshape")(x)
    return tf_keras.Model(image, layers.Activation("softmax", name="predictions")(x))


def fitted(demo: ModuleType, model: Any, phases: Sequence[Any], every: int, **how: Any) -> list:
    seen: list[tuple[int, float, float]] = []
    settings = demo.Settings(**how)
    demo.fit(model, phases, settings, on_progress=lambda *x: seen.append(x), every=every)
    return seen


def test_loss_falls_and_the_set_is_learnt(demo: ModuleType) -> None:
    model = build()
    how = {"batch": 16, "peak_rate": 3e-2, "bn_momentum": 0.7, "jitter": 0.0}
    seen = fitted(demo, model, [demo.Phase(60, [(pool(32), 1.0)])], every=15, **how)
    losses = [loss for _, loss, _ in seen]
    assert losses[-1] < 0.5 * losses[0]
    assert demo.accuracy(model, pool(32)) == 1.0


@pytest.mark.slow
def test_phases_mix_resolutions_and_the_model_keeps_its_own(demo: ModuleType) -> None:
    model = build()
    phases = [
        demo.Phase(2, [(pool(32), 1.0)]),
        demo.Phase(6, [(pool(48), 0.5), (pool(64), 0.5)]),
    ]
    seen = fitted(demo, model, phases, every=3, batch=4)
    assert [done for done, _, _ in seen] == [3, 6, 8]
    assert model.input_shape == (None, 32, 32, 3)


def test_frozen_statistics_stay_and_everything_else_is_trained(demo: ModuleType) -> None:
    model = build()
    before = model.get_weights()
    phases = [demo.Phase(2, [(pool(32), 1.0)])]
    fitted(demo, model, phases, every=2, batch=8, frozen_statistics=True)
    for weight, old, new in zip(model.weights, before, model.get_weights(), strict=True):
        assert np.array_equal(old, new) == ("moving" in weight.name), weight.name


def test_weights_load_by_name_and_hold_no_optimizer(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "new" / "weights.h5"
    save_weights(model, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.h5"]
    with h5py.File(path) as file:
        assert "optimizer_weights" not in file
        assert "model_config" not in file.attrs
    other = build((64, 96))
    other.load_weights(path, by_name=True)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_are_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = build(), tmp_path / "weights.h5"
    path.write_bytes(b"the earlier ones")

    def interrupted(part: Path, **_: object) -> None:
        Path(part).write_bytes(b"half of")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_weights(model, path)
    assert path.read_bytes() == b"the earlier ones"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.h5"]


def test_the_contact_sheet_shows_every_class_and_level(tmp_path: Path, demo: ModuleType) -> None:
    demo.contact_sheet(tmp_path / "sheet.png", resolution=32)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (32 * shapes.LEVELS, 32 * len(shapes.CLASSES))


@pytest.mark.slow
def test_the_script_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "--alpha" in done.stdout
