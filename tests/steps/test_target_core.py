"""`export --for CORE`: each form of a file is counted, and the cheapest is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mobiledeploy as md
from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import MissingError, UsageError
from mobiledeploy.core.types import CoreChoice, FileForm
from mobiledeploy.devices import emulator as emulators
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.steps import bundle_commands, count, target_core
from mobiledeploy.store.database import Store
from mobiledeploy.verbs.analyze import analyze
from tests.layers import SIDE, Network, silenced

CORE = "cortex-a72"


def network() -> bytes:
    """16 filters of which 3 are dead, so that a multiple of 8 keeps all of them."""
    net = Network()
    x = net.conv(net.image, 16, kernel=3, stride=2, name="first")
    x = net.depthwise(silenced(net, x, 0.0, name="wide", count=32, dead=slice(16, 27)))
    scores = net.dense(net.mean(net.conv(x, 8)))
    shape = net.lite.shape(scores)
    return net.file(net.lite.op("SOFTMAX", [scores], shape, options="SoftmaxOptions", beta=1.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "net.tflite").write_bytes(network())
    images = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 5)
    return folder / "net.tflite"


def exported(model: Path, name: str, **options: object) -> md.ExportResult:
    return md.export(
        model,
        data=model.parent / "images.npz",
        input_range=(-1, 1),
        recipe="int8_ptq",
        format="tflite",
        out=model.parent / name,
        timed=False,
        **options,  # type: ignore[arg-type]
    )


def kinds(path: Path) -> list[str]:
    graph = Graph(path.read_bytes())
    return [graph.kind(op) for op in graph.ops]


@pytest.mark.slow
def test_the_form_of_fewest_instructions_is_written(emulator, model, here, monkeypatch) -> None:
    chosen = exported(model, "chosen", core=CORE)
    path = chosen.path("int8_ptq")
    artifact, choice = artifacts.load(path), chosen.rows[0].core_choice
    assert choice is not None
    assert artifact.core_choice == choice == analyze(path).core_choice
    forms = [(form.multiple, form.pairs) for form in choice.forms]
    assert forms == [(8, False), (8, True), (1, False), (1, True)]
    costs = [form.instructions for form in choice.forms]
    assert len(set(costs)) == len(costs)
    assert choice.chosen == np.argmin(costs)
    taken = choice.forms[choice.chosen]
    assert kinds(path)[0] == ("RESHAPE" if taken.pairs else "CONV_2D")
    (lost,) = artifact.shrunk_layers
    assert (lost.layer, lost.left_out) == ("wide", 8 if taken.multiple == 8 else 11)
    # The counts are those of the files, and the core answers as this host.
    with Store.open() as store:
        (figure,) = store.measurements_of(artifact.sha256)
    assert isinstance(figure, md.Counted)
    assert (figure.core, figure.instructions) == (CORE, costs[choice.chosen])
    assert figure.host_difference == 0
    table = chosen.tables()[1]
    assert f"For {CORE}" in table.title
    assert table.rows[0][:3] == ("int8_ptq.tflite", taken.name, f"{taken.instructions:,}")
    # The command in the record makes the same file again, from the counts in the store.
    assert f"--for={CORE}" in bundle_commands.line(artifact)
    monkeypatch.setattr(count, "count", None)
    again = exported(model, "chosen", core=CORE, force=True)
    assert again.rows[0].sha256 == artifact.sha256


@pytest.mark.slow
def test_a_plain_export_is_the_first_form_and_answers_alike(emulator, model, here) -> None:
    plain, chosen = exported(model, "plain"), exported(model, "chosen", core=CORE)
    (figure,) = md.bench([plain.path("int8_ptq")], device=f"emulator:{CORE}").measurements
    choice = chosen.rows[0].core_choice
    assert isinstance(figure, md.Counted)
    assert choice is not None
    assert figure.instructions == choice.forms[0].instructions
    if choice.forms[choice.chosen].pairs:
        odd = md.diff(plain.path("int8_ptq"), chosen.path("int8_ptq")).layers[0].odd
        assert odd == ("Conv 3x3 → Conv 3x2",)
    assert np.allclose(plain.rows[0].divergence, chosen.rows[0].divergence, rtol=0.05)


def test_files_of_one_form_are_not_counted(emulator, model, here, monkeypatch) -> None:
    monkeypatch.setattr(count, "count", None)
    done = md.export(
        model,
        data=model.parent / "images.npz",
        input_range=(-1, 1),
        recipe="float32",
        format="tflite",
        no_shrink=True,
        core=CORE,
        out=model.parent / "float",
        timed=False,
    )
    assert done.rows[0].core_choice is None
    assert len(done.tables()) == 1


def test_an_unknown_core_and_an_absent_emulator_are_told_before_any_work(model, monkeypatch):
    with pytest.raises(UsageError, match="no core named 'a72' .* there are .*cortex-a76"):
        exported(model, "refused", core="a72")

    def absent():
        raise MissingError("the native parts are not installed", "mobiledeploy doctor --emulator")

    monkeypatch.setattr(emulators, "_qemu", absent)
    with pytest.raises(MissingError, match="cortex-a72 .*mobiledeploy doctor --emulator") as told:
        exported(model, "refused", core=CORE)
    assert told.value.exit_code == 6
    assert not (model.parent / "refused").exists()


def test_the_table_has_what_was_taken_and_what_was_not():
    forms = (FileForm(8, False, 2000), FileForm(8, True, 1900), FileForm(1, True, 1950))
    (table,) = target_core.tables({"int8_ptq.tflite": CoreChoice(CORE, forms, 1)})
    assert table.rows == (
        (
            "int8_ptq.tflite",
            "two columns as one pixel",
            "1,900",
            "plain 2,000; every dead channel left out, two columns as one pixel 1,950",
        ),
    )
    assert target_core.tables({}) == ()
