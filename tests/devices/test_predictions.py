"""evaluate, check and verify where a file runs: a simulated phone, and emulated cores."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mobiledeploy.cli.check import command
from mobiledeploy.core import records
from mobiledeploy.core.errors import DeviceError, InputError, UsageError, VoidError
from mobiledeploy.devices import _remote
from mobiledeploy.store.database import Store
from mobiledeploy.verbs.bench import bench
from mobiledeploy.verbs.check import check, update_baseline
from mobiledeploy.verbs.evaluate import evaluate
from mobiledeploy.verbs.results import results, results_evaluated
from mobiledeploy.verbs.verify import verify

# A Linux phone of this machine's kind: the native runner is not emulated there.
PROPERTIES = "ro.product.model=Pixel 3\nro.product.cpu.abilist=x86_64\n"


@pytest.fixture(autouse=True)
def _soon_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 1.0)


@pytest.fixture
def path(unsigned: Path) -> Path:
    return unsigned / "int8_ptq.tflite"


@pytest.fixture
def linux_phone(emulator, phone):
    (phone.root / "properties").write_text(PROPERTIES)
    return phone


def test_a_phone_predicts_as_the_host(linux_phone, path, here, heard) -> None:
    (away,) = evaluate([path], device="pixel", reporter=heard).evaluations
    assert linux_phone.files() == []
    (own,) = evaluate([path], reporter=heard).evaluations
    assert away.predictions == own.predictions
    assert away.metrics == own.metrics
    assert away.agreement == own.agreement
    assert away.target == dataclasses.replace(
        own.target, device=f"adb:{linux_phone.serial}", runner="native"
    )
    assert away.isa == "x86_64"
    assert own.isa.startswith("x86_64")
    # One runner, pinned as a timing is, and no image stays in a file there.
    assert set(linux_phone.lines_of("masks")) == {"80"}


@pytest.mark.slow
def test_figures_of_devices_are_not_pooled(linux_phone, path, here, heard) -> None:
    linux_phone.plant("wrong")
    evaluate([path], device="adb", reporter=heard)
    sha = records.sha256(path)
    with Store.open() as store:
        assert store.judgement(sha) is store.evaluation_of(sha) is None
    linux_phone.heal("wrong")
    (own,) = evaluate([path], reporter=heard).evaluations
    linux_phone.plant("wrong")
    (away,) = evaluate([path], device="adb", reporter=heard).evaluations
    assert away.top1 != own.top1
    bench([path], runs=6, reporter=heard)
    assert {r.top1 for r in results().results} == {own.top1}
    with Store.open() as store:
        assert store.judgement(sha).predictions == own.predictions
    listed = [e for e in results_evaluated().evaluations if e.artifact_sha256 == sha]
    assert [(e.device, e.value) for e in listed] == [
        (f"adb:{linux_phone.serial}", away.top1),
        ("host", own.top1),
        (f"adb:{linux_phone.serial}", away.top1),
    ]
    assert [table.title.split(":")[0] for table in results_evaluated().tables()] == [
        "on adb",
        "on host",
    ]


def test_a_check_names_the_device_that_answers_wrongly(linux_phone, path, here, heard) -> None:
    accept = {"baseline": here / "accepted.json", "no_labels": True}
    update_baseline([path], reporter=heard, **accept)
    report = check([path], device="adb", max_flips=40.0, reporter=heard, **accept)
    (one,) = report.checks
    name = f"adb:{linux_phone.serial}"
    assert (one.outcome, one.flips) == ("pass", 0)
    assert (one.target.device, one.target.delegate, one.isa) == (name, "xnnpack", "x86_64")
    assert "other-machine" in {warning.name for warning in one.warnings}
    linux_phone.plant("wrong")
    junit = here / "check.xml"
    done = CliRunner().invoke(
        command,
        [
            str(path),
            *("--baseline", str(accept["baseline"]), "--no-labels"),
            *("--device", "adb", "--junit", str(junit)),
        ],
    )
    assert done.exit_code == 1
    assert f"fail: on {name}: " in done.stdout
    assert re.search(
        rf"its golden answers .*on {name} \(x86_64\) (differ by|are equal)", done.stdout
    )
    assert f"on {name}: " in junit.read_text()
    assert linux_phone.files() == []


def test_verify_compares_golden_answers_in_steps(linux_phone, path, here, heard) -> None:
    result = verify(path, device="adb", reporter=heard)
    assert result.sound
    assert result.golden.value <= 1
    assert (result.device, result.isa) == (f"adb:{linux_phone.serial}", "x86_64")
    assert result.delegate == "xnnpack"
    linux_phone.plant("wrong")
    result = verify(path, device="adb", reporter=heard)
    assert not result.sound
    assert "it computes otherwise there" in result.golden.line


@pytest.mark.slow
def test_a_clock_that_moves_during_the_runs_voids_them(linux_phone, path, here, heard) -> None:
    """The runner reads it itself, right before and right after its runs."""
    file = '"$PHONE/sys/devices/system/cpu/cpu7/cpufreq/stats/time_in_state"'
    step = f'printf "1800000 $((5*i))\\n2800000 $((9*i))\\n" > {file}.new; mv {file}.new {file}'
    # As long as the runner, which gets the script's own number.
    loop = f"(i=1; while kill -0 $$; do {step}; sleep 0.1; i=$((i+1)); done) >/dev/null 2>&1 &"
    linux_phone.tool("taskset", f'#!/bin/sh\n{loop}\nshift; exec "$@"\n')
    settings = {"device": "adb", "fixed_performance": False, "reporter": heard}
    with pytest.raises(VoidError, match="the clock moved between 2800000 and 1800000 kHz"):
        bench([path], seconds=1.0, **settings)
    assert linux_phone.files() == []


def test_a_timing_compares_the_delegate_with_the_cpu(linux_phone, path, here, heard) -> None:
    settings = {"device": "adb", "runs": 6, "fixed_performance": False, "reporter": heard}
    (fine,) = bench([path], **settings).measurements
    assert fine.cpu_steps <= 1
    assert "differs-from-cpu" not in {warning.name for warning in fine.warnings}
    # Right without the delegate.
    linux_phone.plant("wrong", "--delegate none")
    (wrong,) = bench([path], record=here / "timing.json", **settings).measurements
    assert wrong.cpu_steps > 2
    (warning,) = (w for w in wrong.warnings if w.name == "differs-from-cpu")
    assert "with xnnpack the answer is" in warning.text
    assert linux_phone.files() == []
    (again,) = bench([path], device=f"replay:{here / 'timing.json'}").measurements
    assert again == wrong
    (plain,) = bench([path], delegate="none", **settings).measurements
    assert (plain.cpu_steps, plain.left_operators) == (None, ())


@pytest.mark.slow
def test_a_timing_stands_without_the_answer_of_the_cpu(linux_phone, path, here, heard) -> None:
    dies = 'case "$*" in *"--delegate none"*) exit 1;; esac'
    linux_phone.tool("taskset", f'#!/bin/sh\n{dies}\nshift; exec "$@"\n')
    settings = {"device": "adb", "runs": 6, "fixed_performance": False, "reporter": heard}
    (timing,) = bench([path], **settings).measurements
    assert timing.cpu_steps is None
    (line,) = (line for line in heard.said if "built-in kernels" in line)
    assert line.startswith(f"{path.name}: its answer is not compared with that of the built-in")
    assert linux_phone.files() == []


@pytest.mark.slow
def test_strict_takes_no_answers_of_a_split_graph(linux_phone, exported, here, heard) -> None:
    path = exported["float32", "tflite"]
    (own,) = evaluate([path], device="adb", strict=True, limit=8, reporter=heard).evaluations
    assert own.images == 8
    split = exported["int8x4_ptq", "tflite"]
    for run in (
        lambda: evaluate([split], device="adb", strict=True, limit=8, reporter=heard),
        lambda: verify(split, strict=True, reporter=heard),
        lambda: verify(split, device="adb", strict=True, reporter=heard),
    ):
        with pytest.raises(VoidError, match=r"xnnpack took \d+ of 21 operators only; on the CPU"):
            run()
    done = CliRunner().invoke(
        command, [str(split), "--strict", "--baseline", str(here / "b.json"), "--update-baseline"]
    )
    assert isinstance(done.exception, VoidError)
    assert linux_phone.files() == []
    with pytest.raises(UsageError, match="--strict is about what a delegate takes"):
        verify(path, delegate="none", strict=True, reporter=heard)


def test_a_timing_compares_the_golden_answer(linux_phone, path, here, heard) -> None:
    settings = {"device": "adb", "runs": 6, "fixed_performance": False, "reporter": heard}
    (fine,) = bench([path], **settings).measurements
    assert fine.golden_steps <= 1
    assert "differs-from-host" not in {warning.name for warning in fine.warnings}
    linux_phone.plant("wrong")
    (wrong,) = bench([path], record=here / "timing.json", **settings).measurements
    assert wrong.golden_steps > 2
    assert "differs-from-host" in {warning.name for warning in wrong.warnings}
    (again,) = bench([path], device=f"replay:{here / 'timing.json'}").measurements
    assert again == wrong


@pytest.mark.parametrize(
    ("fault", "content", "message"),
    [
        pytest.param("garble", "", "image 0 arrived damaged", marks=pytest.mark.slow),
        ("unplug-run", '"index":3,', "was lost|is offline"),
        pytest.param("hang", "runner answer", "hangs: no output for 2 s", marks=pytest.mark.slow),
    ],
)
def test_faults_end_in_one_line(
    linux_phone, path, here, heard, monkeypatch, fault, content, message
) -> None:
    monkeypatch.setattr("mobiledeploy.steps.predictors.PHONE_PATIENCE_S", 2.0)
    linux_phone.plant(fault, content)
    with pytest.raises(DeviceError, match=message) as refused:
        evaluate([path], device="adb", record=here / "session.json", reporter=heard)
    assert refused.value.exit_code == 5
    assert "\n" not in str(refused.value)
    assert not (here / "session.json").exists()
    linux_phone.heal(fault)
    if fault == "unplug-run":
        linux_phone.heal("refuse")
        linux_phone.connect()
        evaluate([path], device="adb", reporter=heard)
    assert linux_phone.files() == []


def test_an_interruption_leaves_nothing(linux_phone, path, here) -> None:
    linux_phone.plant("hang", "runner answer")
    process = subprocess.Popen(
        [sys.executable, "-m", "mobiledeploy", "evaluate", str(path), "--device", "adb"],
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    until = time.monotonic() + 60
    while not any(name.startswith("libLiteRt") for name in linux_phone.files()):
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert linux_phone.files() == []


def test_a_session_is_played_back(linux_phone, path, here, heard) -> None:
    for name, run in (
        ("evaluate", evaluate),
        ("verify", lambda paths, **options: verify(*paths, **options)),
    ):
        record = here / f"{name}.json"
        then = run([path], device="adb", record=record, reporter=heard)
        again = run([path], device=f"replay:{record}", reporter=heard)
        assert again == then
    with Store.open() as store:
        # The file and its float one; a replay of what the store has adds nothing.
        assert {e.device for e in store.evaluations()} == {f"adb:{linux_phone.serial}"}
        assert sorted(e.recorded for e in store.evaluations()) == [False] * 2
    message = "is a recording of evaluate, not of check; mobiledeploy evaluate --device replay"
    with pytest.raises(InputError, match=message):
        check(
            [path],
            baseline=here / "none.json",
            device=f"replay:{here / 'evaluate.json'}",
            reporter=heard,
        )
    with pytest.raises(InputError, match="is a recording of evaluate, not of bench"):
        bench([path], device=f"replay:{here / 'evaluate.json'}", reporter=heard)
    with pytest.raises(UsageError, match="a recording has one runner"):
        evaluate([path], record=here / "more.json", threads=2, reporter=heard)


def test_a_baseline_is_of_one_device(linux_phone, path, here, heard) -> None:
    options = {"baseline": here / "accepted.json", "no_labels": True, "reporter": heard}
    update_baseline([path], **options)
    before = options["baseline"].read_text()
    with pytest.raises(UsageError, match="has the answers of host for .*another --baseline"):
        update_baseline([path], device="adb", **options)
    assert options["baseline"].read_text() == before
    update_baseline([path], device="adb", **(options | {"baseline": here / "phone.json"}))
    (one,) = check([path], device="adb", **(options | {"baseline": here / "phone.json"})).checks
    assert one.outcome == "pass"
    assert "other-machine" not in {warning.name for warning in one.warnings}


def test_a_runner_that_cannot_predict_is_refused(here, path, heard) -> None:
    with pytest.raises(UsageError, match="has no runtime 'tflite_runtime'"):
        evaluate([path], device="emulator", runtime="tflite_runtime", reporter=heard)
    with pytest.raises(UsageError, match="0 threads"):
        evaluate([path], device="emulator", threads=0, reporter=heard)
    with pytest.raises(DeviceError, match="no .*Pixel 3.* is connected, .*--device emulator:"):
        evaluate([path], device="pixel-3", reporter=heard)


def test_an_emulated_core_predicts_as_the_host(emulator, path, here, heard) -> None:
    (away,) = evaluate([path], device="emulator", limit=8, reporter=heard).evaluations
    (own,) = evaluate([path], limit=8, reporter=heard).evaluations
    assert away.predictions == own.predictions
    assert away.images == 8
    assert away.target.device == "emulator:cortex-a76"
    assert away.isa == "aarch64 asimd asimdhp asimddp"
    assert any("says nothing of a device's speed" in line for line in heard.said)
    with Store.open() as store:
        assert {e.device for e in store.evaluations()} == {"emulator:cortex-a76", "host"}


@pytest.mark.slow
def test_a_part_of_the_images_is_compared_with_the_whole(emulator, path, here, heard) -> None:
    options = {"baseline": here / "accepted.json", "no_labels": True, "reporter": heard}
    update_baseline([path], **options)
    (one,) = check([path], limit=5, **options).checks
    assert (one.images, one.flips) == (5, 0)
    assert "too-few-images" in {warning.name for warning in heard.warnings}
    (other,) = check([path], limit=5, device="emulator:cortex-a53", **options).checks
    assert (other.images, other.flips) == (5, 0)
    # An evaluation of a part is not taken for one of the whole.
    with Store.open() as store:
        assert len({e.data_identity for e in store.evaluations()}) == 2
    # One of a part is only for the same part.
    update_baseline([path], limit=4, **options)
    with pytest.raises(InputError, match="images: 5 of .*, not 4 of .*; --limit 4, or if that is"):
        check([path], limit=5, **options)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["int8_ptq", "float16_full"])
def test_the_demo_on_an_emulated_core(emulator, here, heard, recipe) -> None:
    from mobiledeploy.verbs.export import export

    done = export(
        arch="mobilenet_v1",
        alpha=0.25,
        res=96,
        recipe=["float32", recipe],
        format="tflite",
        out=here / "build",
        reporter=heard,
    )
    path = done.path(recipe)
    baseline = here / "accepted.json"
    update_baseline([path], baseline=baseline, reporter=heard)
    limit = None if recipe == "int8_ptq" else 400
    (one,) = check(
        [path], device="emulator:cortex-a76", baseline=baseline, limit=limit, reporter=heard
    ).checks
    assert one.outcome == "pass"
    assert one.flips == 0 if recipe == "int8_ptq" else one.flips < 0.02
    assert {v.metric for v in one.verdicts} >= {"accuracy", "float", "golden"}
