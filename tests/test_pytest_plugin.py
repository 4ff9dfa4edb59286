"""The fixture as users call it: pytest in pytest, with the plugin found by its entry point."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core import records
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Report
from mobiledeploy.steps.baseline import Baseline
from mobiledeploy.verbs.bundle import bundle
from mobiledeploy.verbs.check import update_baseline
from tests.figures import of_another_file
from tests.lite import Lite

pytest_plugins = ["pytester"]

FILE = """
def test_accuracy(mobiledeploy_check):
    report = mobiledeploy_check({artifact!r}, baseline="accuracy.json", data={data!r}{more})
    assert report is None or report.checks[0].outcome in ("pass", "inconclusive")
"""


@pytest.fixture
def suite(pytester, exported):
    """Writes a test file that checks an artifact of the tests' own, and runs it."""
    path = exported["int8_ptq", "tflite"]

    def run(*arguments, artifact=path, more="", process=False):
        pytester.makepyfile(
            FILE.format(artifact=str(artifact), data=str(path.parent / "photos"), more=more)
        )
        return (pytester.runpytest_subprocess if process else pytester.runpytest_inprocess)(
            *arguments
        )

    return run


def test_a_baseline_is_written_on_demand_and_then_judged_by(suite, pytester):
    result = suite(process=True)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["error: there is no baseline accuracy.json yet*"])
    suite("--mobiledeploy-update-baseline", process=True).assert_outcomes(passed=1)
    of_another_file(pytester.path / "accuracy.json")
    # Thirteen images decide nothing.
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*int8_ptq.tflite: inconclusive: *images like these would decide*"]
    )
    suite(more=', on_inconclusive="warn"').assert_outcomes(passed=1)


def test_a_regression_fails_with_its_line_and_no_traceback(suite, pytester):
    suite("--mobiledeploy-update-baseline").assert_outcomes(passed=1)
    result = suite(more=', on_inconclusive="warn", floor=99.9')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*int8_ptq.tflite: fail: top-1 is *below the floor of 99.9 %"])
    assert "Traceback" not in result.stdout.str()


def test_an_edited_baseline_is_an_error_of_one_line(suite, pytester):
    suite("--mobiledeploy-update-baseline").assert_outcomes(passed=1)
    path = pytester.path / "accuracy.json"
    known = records.loads(Baseline, path.read_text())
    edited = [dataclasses.replace(e, isa="another") for e in known.accepted]
    path.write_text(records.dumps(Baseline(tuple(edited))))
    result = suite()
    result.stdout.fnmatch_lines(["error: accuracy.json was edited*"])


def test_patterns_name_files_and_leave_records_out(suite, exported):
    folder = exported["int8_ptq", "tflite"].parent
    suite("--mobiledeploy-update-baseline", artifact=folder / "int8_ptq.*").assert_outcomes(
        passed=1
    )
    result = suite(artifact=folder / "nothing*.tflite")
    result.stdout.fnmatch_lines(["error: no file fits *nothing*"])


def test_a_run_without_the_fixture_imports_next_to_nothing(pytester):
    pytester.makepyfile(
        "import sys\n"
        "def test_it():\n"
        "    assert 'mobiledeploy.pytest_plugin' in sys.modules\n"
        "    assert not {'numpy', 'scipy', 'click', 'mobiledeploy.verbs'} & set(sys.modules)\n"
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.fixture
def release(exported, here):
    """A bundle of an artifact with a baseline, and images for it."""
    pytest.importorskip(
        "cyclonedx", reason="cyclonedx-python-lib is not there (pip install 'mobiledeploy[bundle]')"
    )
    path = exported["int8_ptq", "tflite"]
    photos = path.parent / "photos"
    update_baseline(path, baseline="accepted.json", data=photos, reporter=SILENT)
    bundle(path, out="release.zip", baseline="accepted.json", reporter=SILENT)
    return here / "release.zip", photos


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"TFL3") + 40] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_changed_bundle_fails_by_name(release, pytester):
    path, _ = release
    spoil(path)
    pytester.makepyfile(
        f"def test_release(mobiledeploy_check):\n    mobiledeploy_check({str(path)!r})\n"
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["error: *release.zip: member artifacts/*.tflite was changed*"])


# The step of the GitHub action


def action(here: Path, artifacts: str, **inputs: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).resolve().parent.parent / "tools" / "action.sh"
    bin_ = here / "bin"
    bin_.mkdir(exist_ok=True)
    environment = {f"CHECK_{name}": value for name, value in inputs.items()}
    (bin_ / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (bin_ / "python").chmod(0o755)
    return subprocess.run(
        ["bash", str(script)],
        capture_output=True,
        text=True,
        cwd=here,
        env=environment
        | {
            "CHECK_ARTIFACTS": artifacts,
            "PATH": f"{bin_}:/usr/bin:/bin",
            "PYTHONPATH": str(script.parent.parent),
            "GITHUB_OUTPUT": str(here / "output"),
            "GITHUB_STEP_SUMMARY": str(here / "summary.md"),
            "RUNNER_TEMP": str(here),
        },
    )


def test_the_action_annotates_and_tells_its_exit_code(exported, here):
    path = exported["int8_ptq", "tflite"]
    pattern = str(path.with_name("int8_ptq.tf*"))
    given = {"BASELINE": "accuracy.json", "DATA": str(path.parent / "photos"), "MARGIN": ""}
    done = action(here, pattern, **given)
    assert done.returncode == 6, done.stderr
    assert "::error title=mobiledeploy check::there is no baseline accuracy.json" in done.stderr
    subprocess.run(
        [
            sys.executable,
            "-m",
            "mobiledeploy",
            "check",
            path,
            "--baseline",
            "accuracy.json",
            "--data",
            given["DATA"],
            "--update-baseline",
        ],
        check=True,
        capture_output=True,
    )
    of_another_file(here / "accuracy.json")
    done = action(here, pattern, **given)
    assert done.returncode == 3, done.stderr
    assert "::warning title=" in done.stderr
    done = action(here, pattern, **given, ON_INCONCLUSIVE="warn", JUNIT="check.xml")
    assert done.returncode == 0, done.stderr
    assert (here / "check.xml").exists()
    assert (here / "output").read_text().split() == ["exit-code=6", "exit-code=3", "exit-code=0"]
    assert "❓ inconclusive" in (here / "summary.md").read_text()


def test_the_action_takes_files_of_other_tools(here):
    """Such a file has no record: what a person says of it reaches the command."""
    b = Lite()
    axes, image = b.constant([1, 2], np.int32), b.input((1, 8, 8, 3))
    means = b.op("MEAN", [image, axes], (1, 3), options="ReducerOptions")
    (here / "model.tflite").write_bytes(b.file(means))
    given = {"DATA": "photos", "BASELINE": "b.json", "TASK": "embedding"}
    done = action(here, "model.tflite", **given, INPUT_RANGE="-1,1", MEAN="-0.5,0,0")
    assert done.returncode == 6, done.stderr
    assert "--task embedding --input-range -1,1 --mean -0.5,0,0 --update-baseline" in done.stderr


@pytest.mark.slow
def test_the_action_judges_a_bundle_by_the_baseline_in_it(release, here):
    path, photos = release
    done = action(here, "rel*.zip", DATA=str(photos), COMMENT="true")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    kept = here / "mobiledeploy-check" / "report.json"
    (one,) = records.loads(Report, kept.read_text()).checks
    assert one.path.startswith("release.zip/artifacts/")
    assert "[own-baseline]" in done.stderr
    assert "| release.zip/artifacts/" in (here / "summary.md").read_text().replace("\\", "")
    spoil(path)
    done = action(here, "release.zip", DATA=str(photos), COMMENT="true")
    assert done.returncode == 7
    assert kept.read_text() == ""
    assert "::error title=mobiledeploy check::release.zip: member artifacts/" in done.stderr


def test_an_input_of_the_action_cannot_run_anything(here):
    done = action(here, "$(touch oops) `touch oops` x; touch oops", BASELINE="; touch oops")
    assert done.returncode == 7
    assert not (here / "oops").exists()


def test_the_action_takes_no_module_of_the_folder_that_it_checks(here):
    """`python -m` looks there first, and the folder may be a stranger's pull request."""
    for name in ("mobiledeploy", "pip", "click"):
        (here / f"{name}.py").write_text("open('ran', 'w')\n")
    assert action(here, "absent.tflite").returncode == 7
    assert not (here / "ran").exists()
    told = (Path(__file__).resolve().parent.parent / "action.yml").read_text()
    assert "python -P -m pip " in told


def test_every_input_of_the_action_reaches_its_script():
    root = Path(__file__).resolve().parent.parent
    told = (root / "action.yml").read_text()
    script = (root / "tools" / "action.sh").read_text()
    inputs = told.partition("inputs:\n")[2].partition("outputs:\n")[0]
    names = [line[2:-1] for line in inputs.splitlines() if line[2:3].strip() and line.endswith(":")]
    assert len(names) == 19
    for name in set(names) - {"install"}:
        variable = f"CHECK_{name.upper().replace('-', '_')}"
        assert f"{variable}: ${{{{ inputs.{name} }}}}" in told
        assert variable in script or f" {name}" in script
