"""A model of two inputs and two outputs where it runs: a phone, a board, an emulated core."""

from __future__ import annotations

import base64
import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core import artifacts, protocol, records
from mobiledeploy.core.plugins import FORMATS, RECIPES, TASKS
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Signature, Tensor
from mobiledeploy.graphs import postprocess
from mobiledeploy.steps import golden
from mobiledeploy.verbs.bench import bench
from mobiledeploy.verbs.check import check, update_baseline
from mobiledeploy.verbs.evaluate import evaluate
from mobiledeploy.verbs.export import export
from mobiledeploy.verbs.verify import verify
from tests import handmade
from tests.layers import SIDE, Network, detector_that_chooses
from tests.variants import slow_but

# Of this machine's kind: the native runner is not emulated there.
PROPERTIES = "ro.product.model=Pixel 3\nro.product.cpu.abilist=x86_64\n"
SAMPLES = 60


def network() -> bytes:
    """Of an image and five numbers; it answers a vector, and a map of another scale."""
    net = Network()
    facts = net.lite.input((1, 5), name="facts")
    x = net.conv(net.image, 8, kernel=3)
    both = net.lite.op(
        "CONCATENATION",
        [net.flat(net.mean(x)), facts],
        (1, 13),
        options="ConcatenationOptions",
        axis=1,
    )
    return net.file(net.dense(both, 3), net.conv(x, 2, activation="NONE"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 file with two inputs and two outputs, its float file beside it."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "several.tflite").write_bytes(network())
    random = np.random.default_rng(0)
    np.savez(
        folder / "data.npz",
        image=random.integers(0, 256, (SAMPLES, SIDE, SIDE, 3), np.uint8),
        facts=random.normal(size=(SAMPLES, 5)).astype(np.float32),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(folder / "store"))
        done = export(
            folder / "several.tflite",
            data=folder / "data.npz",
            recipe=("float32", "int8_ptq"),
            format="tflite",
            out=folder,
            input_range=(0, 1),
            timed=False,
            reporter=SILENT,
        )
    return Path(done.path("int8_ptq"))


@pytest.fixture(scope="module")
def chosen(several: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that chooses its boxes itself, by the operator of LiteRT."""
    content, shelf = detector_that_chooses(), FORMATS.load("tflite")
    facts = shelf.inspect(content)
    path = tmp_path_factory.mktemp("chosen") / "float32.tflite"
    path.write_bytes(content)
    model = artifacts.load(several)
    images = np.random.default_rng(1).uniform(-1, 1, (3, SIDE, SIDE, 3))
    artifact = dataclasses.replace(
        model,
        path=path.name,
        sha256=records.sha256(content),
        recipe=RECIPES.load("float32").RECIPE,
        spec=dataclasses.replace(model.spec, task="detection"),
        output="detections",
        io="float",
        inputs=facts.inputs,
        outputs=facts.outputs,
        signature=Signature(artifacts.signature(model).inputs[:1], postprocess.outputs()),
        golden=handmade.image_files(path.parent, images, 1),
    )
    record = artifacts.record_path(path)
    now = golden.replay(path, artifact, SILENT)
    rows = tuple(tuple(map(float, row)) for row in now.logits)
    answers = dataclasses.replace(artifact.golden, logits=rows, runtime=now.runtime, isa=now.isa)
    records.write_atomic(record, records.dumps(dataclasses.replace(artifact, golden=answers)))
    return path


@pytest.fixture
def linux_phone(emulator, phone):
    (phone.root / "properties").write_text(PROPERTIES)
    return phone


@pytest.fixture(params=slow_but(["adb", "ssh:board", "emulator"], "adb"))
def device(request: pytest.FixtureRequest) -> str:
    """Its kind, as options name it."""
    needed = {"adb": "linux_phone", "ssh:board": "board"}.get(request.param, "emulator")
    request.getfixturevalue("emulator")
    request.getfixturevalue(needed)
    return request.param


def test_both_outputs_are_judged_where_they_are_made(several, device, here, heard) -> None:
    (own,) = evaluate([several], reporter=heard).evaluations
    (away,) = evaluate([several], device=device, reporter=heard).evaluations
    assert away.target.device.startswith(device)
    assert len(away.predictions[0].values) == 3 + SIDE * SIDE * 2
    assert away.predictions == own.predictions
    # Those of the float file, which another machine adds in another order.
    assert away.metrics == pytest.approx(own.metrics, rel=1e-5)
    accept = {"baseline": here / "accepted.json", "no_labels": True, "reporter": heard}
    update_baseline([several], **accept)
    (one,) = check([several], device=device, max_flips=40.0, **accept).checks
    assert (one.outcome, one.flips) == ("pass", 0)
    replayed = verify(several, device=device, reporter=heard)
    assert replayed.sound
    assert replayed.golden.value <= 1


def test_boxes_that_the_file_chose_are_judged_where_they_are_made(
    chosen, device, here, heard
) -> None:
    (own,) = evaluate([chosen], limit=8, reporter=heard).evaluations
    (away,) = evaluate([chosen], limit=8, device=device, reporter=heard).evaluations
    assert len(own.predictions[0].boxes) > 10
    for mine, theirs in zip(own.predictions, away.predictions, strict=True):
        assert TASKS.load("detection").agrees(mine, theirs)
    replayed = verify(chosen, device=device, reporter=heard)
    assert replayed.sound
    assert replayed.golden.value < 0.01


def test_a_phone_that_chooses_other_boxes_is_named(chosen, linux_phone, here, heard) -> None:
    settings = {"device": "adb", "runs": 6, "fixed_performance": False, "reporter": heard}
    (fine,) = bench([chosen], **settings).measurements
    assert max(fine.cpu_steps, fine.golden_steps) < 0.01
    linux_phone.plant("wrong", "--delegate none")
    (wrong,) = bench([chosen], **settings).measurements
    names = {warning.name: warning.message for warning in wrong.warnings}
    assert "% of the boxes' scores from that of the built-in" in names["differs-from-cpu"]
    assert "differs-from-host" in names


@pytest.mark.parametrize(("threads", "told"), [(1, False), (2, True)])
def test_a_timing_with_threads_that_lose_boxes_says_so(chosen, here, heard, threads, told) -> None:
    (timed,) = bench([chosen], threads=threads, runs=6, reporter=heard).measurements
    assert ("threads-lose-boxes" in {warning.name for warning in timed.warnings}) == told


def test_golden_boxes_of_another_delegate_may_differ_a_little(chosen) -> None:
    artifact = artifacts.load(chosen)
    now = dataclasses.replace(golden.replay(chosen, artifact, SILENT), delegate="none")
    verdict, _ = golden.judge(artifact, now)
    assert verdict.outcome == "pass"
    assert "with delegate none are equal to those of the export" in verdict.line
    boxes = 4 * postprocess.MOST
    now.logits[:, :boxes] = now.logits[:, :boxes][:, ::-1]
    verdict, _ = golden.judge(artifact, now)
    assert verdict.outcome == "fail"
    assert "(15 % of the boxes' scores are allowed)" in verdict.line


def test_a_timing_is_a_process_without_runners_beside_it(several, linux_phone, here, heard) -> None:
    # The runner gets the script's own number. Those before it must be dead.
    linux_phone.tool(
        "taskset",
        '#!/bin/sh\nfor p in $(cut -d" " -f1 "$PHONE/runs" 2>/dev/null); do\n'
        'kill -0 "$p" 2>/dev/null && echo "$p alive" >> "$PHONE/runs"; done\n'
        'echo "$$ $*" >> "$PHONE/runs"; shift; exec "$@"\n',
    )
    settings = {"device": "adb", "reporter": heard}
    evaluate([several], limit=8, **settings)
    assert linux_phone.files() == []
    (timing,) = bench([several], runs=6, fixed_performance=False, **settings).measurements
    assert timing.golden_steps <= 1
    # The evaluations of the file and of its float file, the timing, and the built-in kernels.
    runs = [line.split() for line in linux_phone.lines_of("runs")]
    assert [run[3] for run in runs] == ["answer", "answer", "bench", "bench"]
    assert len({run[0] for run in runs}) == 4
    assert linux_phone.files() == []


@pytest.mark.slow
def test_nothing_of_a_judgement_is_left_on_a_board(several, board, emulator, here, heard) -> None:
    settings = {"device": "ssh:board", "reporter": heard}
    evaluate([several], limit=8, **settings)
    assert board.files() == board.commands() == []
    (timing,) = bench([several], runs=6, **settings).measurements
    assert timing.golden_steps <= 1
    assert board.files() == board.commands() == []


@pytest.mark.slow
def test_a_count_does_not_depend_on_a_judgement_before_it(several, emulator, here, heard) -> None:
    """To the instruction and the byte: nothing of the answers that came before is left."""
    options = {"device": "emulator:cortex-a53", "reporter": heard}
    (before,) = bench([several], **options).measurements
    evaluate([several], limit=8, **options)
    (after,) = bench([several], **options).measurements
    assert after == before


def test_each_output_is_compared_in_its_own_steps(several) -> None:
    """The two outputs have steps of different size."""
    artifact = artifacts.load(several)
    classes, areas = artifact.outputs
    assert classes.scale[0] != pytest.approx(areas.scale[0], rel=0.1)
    row = np.float32(artifact.golden.logits[0])
    codes = [
        np.rint(values / tensor.scale[0] + tensor.zero_point[0]).astype(np.int8)
        for values, tensor in zip(np.split(row, [3]), artifact.outputs, strict=True)
    ]
    for place in (0, 1):
        moved = [part.copy() for part in codes]
        moved[place][0] += 3 if moved[place][0] < 100 else -3
        raw = b"".join(part.tobytes() for part in moved)
        event = protocol.RawAnswer(0, zlib.crc32(raw), base64.b64encode(raw).decode())
        ready = protocol.Ready(
            2, "litert", "2", artifact.inputs, artifact.outputs, "none", 0, 0, 1, "x86_64"
        )
        distance = golden.timed(artifact, ready, event)
        assert distance.steps == pytest.approx(3, rel=1e-4)


def test_a_float_output_that_never_changes_has_a_step_too() -> None:
    end = Tensor("count", (1, 1), "float32")
    ten = np.float32([[10]])
    assert golden._steps_apart(end, ten, ten + 0.01) == pytest.approx(255, rel=1e-3)


@pytest.mark.parametrize("bad", [0.0, 9.0, np.nan, np.inf])
def test_a_float_file_that_answers_one_value_for_all_is_far_from_its_golden_answers(bad) -> None:
    end = Tensor("scores", (1, 3), "float32")
    good = np.float32([[1, 2, 3], [3, 1, 2]])
    assert golden._steps_apart(end, good, good) == 0
    assert golden._steps_apart(end, good, np.full_like(good, bad)) > 100
