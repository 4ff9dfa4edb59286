"""Filters that no answer depends on: what an export says of them, and what reads its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import ShrunkLayer
from mobiledeploy.steps import diagnose
from mobiledeploy.verbs.analyze import analyze
from mobiledeploy.verbs.diff import diff
from mobiledeploy.verbs.export import ExportResult, export
from tests.layers import SIDE, Network, silenced

RECIPES = ("float32", "int8_ptq")


def halved(count: int) -> bytes:
    """A network of `count` layers of 16 filters, 8 of which have no weights left."""
    net = Network()
    x = net.conv(net.image, 16, kernel=3, name="first")
    for number in range(count):
        x = net.depthwise(silenced(net, x, 0.0, name=f"pw{number}"))
    scores = net.dense(net.mean(net.conv(x, 8)))
    shape = net.lite.shape(scores)
    return net.file(net.lite.op("SOFTMAX", [scores], shape, options="SoftmaxOptions", beta=1.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`halved.tflite`, and `images.npz` beside it."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "halved.tflite").write_bytes(halved(4))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, SIDE, SIDE, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(60) % 5)
    return folder / "halved.tflite"


def exported(model: Path, name: str, **options: object) -> ExportResult:
    """Its files in a folder `name`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(model.parent / "store"))
        return export(
            model,
            data=model.parent / "images.npz",
            input_range=(-1, 1),
            recipe=RECIPES,
            format="tflite",
            out=model.parent / name,
            timed=False,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def small(model: Path) -> ExportResult:
    return exported(model, "small")


@pytest.fixture(scope="module")
def whole(model: Path) -> ExportResult:
    return exported(model, "whole", no_shrink=True)


@pytest.mark.slow
def test_every_file_is_of_the_smaller_network_and_its_record_says_so(small, whole):
    lost = tuple(ShrunkLayer(f"pw{number}", 16, 8) for number in range(4))
    assert (small.shrunk_layers, whole.shrunk_layers) == (lost, ())
    assert len(small.rows) == 2
    for row in small.rows:
        assert artifacts.load(Path(row.path)).shrunk_layers == lost
    for row in whole.rows:
        assert artifacts.load(Path(row.path)).shrunk_layers == ()
        assert small.path(row.recipe).stat().st_size < row.size_bytes
    shapes = []
    for recipe in RECIPES:
        content = small.path(recipe).read_bytes()
        layers = FORMATS.load("tflite").inspect(content).layers
        shapes.append([layer.outputs[0].shape for layer in layers])
    assert shapes[0] == shapes[1]


def test_it_is_told_in_a_table_of_the_largest_and_of_all(small, whole):
    _, table = small.tables()
    assert "--no-shrink keeps them" in table.title
    assert table.rows[0] == ("of pw0", "8 of 16")
    assert table.rows[-1] == ("of 4 layers together", "32 of 64")
    assert len(table.rows) == 4
    assert len(whole.tables()) == 1


def test_the_choice_is_a_part_of_the_key_and_told_again(model, small, whole):
    keys = {artifacts.load(one.path("float32")).key for one in (small, whole)}
    assert len(keys) == 2
    again = exported(model, "small")
    assert again.reused
    assert again.tables() == small.tables()


def test_diff_and_analyze_tell_it(small, whole):
    found = diff(whole.path("float32"), small.path("int8_ptq"))
    odd = {pair.a.name: pair.odd for pair in found.layers if pair.a and pair.odd}
    assert any("filters left out: 0 → 8" in one for one in odd["pw0"])
    answer = analyze(small.path("int8_ptq"))
    assert answer.shrunk_layers == small.shrunk_layers
    assert answer.mult_adds < analyze(whole.path("int8_ptq")).mult_adds
    assert analyze(whole.path("int8_ptq")).shrunk_layers == ()
    assert records.loads(type(answer), records.dumps(answer)) == answer


def test_the_diagnosis_compares_layers_of_equal_shapes(small, whole):
    found = diagnose.diagnose(small.path("int8_ptq"))
    assert found.not_told == ()
    assert len(found.layers) == 13
    with pytest.raises(InputError, match="has other filters left out than int8_ptq"):
        diagnose.diagnose(small.path("int8_ptq"), reference=whole.path("float32"))
