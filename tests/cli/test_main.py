"""The door: help, settings, and what each kind of failure says and ends in."""

import os
import signal
import subprocess
import sys
import time

import pytest
from click.shell_completion import BashComplete

from mobiledeploy.cli import main
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import results
from tests import warm
from tests.figures import artifact, keep, measured
from tests.variants import slow_but

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("MOBILEDEPLOY_")}


def run(*argv, cwd, **environment):
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *argv],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
    )


def test_help_lists_every_command_with_a_line(tmp_path):
    result = run("--help", cwd=tmp_path)
    assert result.returncode == 0
    for name in ("export", "evaluate", "bench", "models", "doctor"):
        assert f"  {name} " in result.stdout


def test_a_table_of_the_settings_that_is_no_command_s_is_refused(tmp_path):
    (tmp_path / "mobiledeploy.toml").write_text("[chek]\nmargin = 3\n")
    result = run("doctor", cwd=tmp_path)
    assert result.returncode == 2
    assert "a table for 'chek', which is not a command; there are analyze, " in result.stderr


def test_no_command_is_help_and_usage(tmp_path):
    result = run(cwd=tmp_path)
    assert result.returncode == 2
    assert "Usage:" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["exprt"], "exprt"),
        (["export", "--alfa", "1"], "--alfa"),
        (["export", "--alpha", "text"], "'text'"),
        (["export", "--alpha", "0"], "alpha 0"),
        (["export", "--alpha", "-1"], "alpha -1"),
        (["export", "--alpha", "nan"], "alpha nan"),
        (["export", "--alpha", "1e9"], "alpha 1e+09"),
        (["export", "--alpha", "0.5", "--res", "0"], "resolution 0"),
        (["export", "--res", "31"], "resolution 31"),
        (["export", "--res", "100000"], "resolution 100000"),
        (["export", "--arch", "mobilenet_v9"], "mobilenet_v9"),
        (["export", "--recipe", "int7"], "int7"),
        (["export", "--format", "coreml"], "coreml"),
        (["export", "--input-range", "1,-1"], "input range 1,-1"),
        (["export", "--input-range", "0,1,2"], "0,1,2"),
        (["export", "--std", "1,0,1"], "std"),
        (["export", "--labels", "absent.txt"], "absent.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_line_and_two(argv, message, tmp_path):
    result = run(*argv, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert os.listdir(tmp_path) == []


def test_vv_shows_where_an_error_came_from(tmp_path):
    assert "Traceback" not in run("export", "--alpha", "0", "-v", cwd=tmp_path).stderr
    assert "Traceback" in run("export", "--alpha", "0", "-vv", cwd=tmp_path).stderr


def test_settings_from_file_environment_and_flag(tmp_path):
    """flag > environment > file; each is seen in what is refused."""
    (tmp_path / "mobiledeploy.toml").write_text("[export]\nalpha = -1.5\n")
    assert "alpha -1.5" in run("export", cwd=tmp_path).stderr
    environment = {"MOBILEDEPLOY_EXPORT_ALPHA": "-2.5"}
    assert "alpha -2.5" in run("export", cwd=tmp_path, **environment).stderr
    result = run("export", "--alpha", "-3.5", cwd=tmp_path, **environment)
    assert "alpha -3.5" in result.stderr


def test_options_have_their_names_in_every_place(tmp_path):
    """`--format` is `format` in the file and MOBILEDEPLOY_EXPORT_FORMAT in the environment."""
    (tmp_path / "mobiledeploy.toml").write_text('[export]\nformat = ["coreml", "tflite"]\n')
    assert "no format named 'coreml'" in run("export", cwd=tmp_path).stderr
    environment = {"MOBILEDEPLOY_EXPORT_RECIPE": "int7", "MOBILEDEPLOY_EXPORT_FORMAT": "onnx"}
    assert "int7" in run("export", cwd=tmp_path, **environment).stderr


def test_settings_from_pyproject(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.mobiledeploy.export]\nalpha = -1.5\n")
    assert "alpha -1.5" in run("export", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[export]\nalfa = 1\n", "alfa"),
        ("alpha = 1\n", "table per command"),
        ("[export\n", "mobiledeploy.toml cannot be read"),
        ('[export]\nalpha = "text"\n', "text"),
    ],
)
def test_wrong_settings_are_named(text, message, tmp_path):
    (tmp_path / "mobiledeploy.toml").write_text(text)
    result = run("export", cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def shell(line, cwd, **environment):
    """A line of bash that calls `m`, our program; its exit code is the one of `m`."""
    program = f'm() {{ "{sys.executable}" -m mobiledeploy "$@"; }}; {line}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", program],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("m models --json | true", 0),
        ("m models | head -1", 0),
        ("m devices | true", 0),
        ("m --help | true", 0),
        ("m bench --help | true", 0),
        ("m --version | true", 0),
        ("m 2>&1 | true", 2),
        ("m exprt 2>&1 | true", 2),
        ("m doctor --clean -v 2>&1 >/dev/null | true", 0),
        ("_MOBILEDEPLOY_COMPLETE=bash_source m | true", 0),
        (
            "COMP_WORDS='mobiledeploy ' COMP_CWORD=1 _MOBILEDEPLOY_COMPLETE=bash_complete m | true",
            0,
        ),
    ],
)
def test_a_reader_that_leaves_changes_no_exit_code(line, code, tmp_path):
    result = shell(line, tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert result.returncode == code, result.stderr
    assert result.stderr == ""


def test_a_pipe_that_breaks_within_the_work_is_no_verdict(tmp_path):
    """A child's that died, say: click itself would end in 1."""
    program = (
        "import sys; from mobiledeploy.cli.main import run\n"
        "from mobiledeploy.verbs import models\n"
        "def broken(name): raise BrokenPipeError(32, 'Broken pipe')\n"
        "models.models = broken; sys.argv = ['mobiledeploy', 'models']; sys.exit(run())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 70
    assert result.stderr == "error: a pipe broke before the work was done\n"


@pytest.mark.parametrize("argv", slow_but(["models", "models --json", "--help"], "models --json"))
def test_a_closed_standard_output_is_no_internal_error(argv, tmp_path):
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        result = shell(f"m {argv} {closed}", tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
    result = shell(f"m {argv} > /dev/full", tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: cannot read or write the result: no space left on device\n"


@pytest.mark.parametrize("where", slow_but(["2>&-", "2>/dev/full"], "2>/dev/full"))
def test_an_error_that_nobody_can_hear_keeps_its_code(where, tmp_path):
    assert shell(f"m export --alpha 0 {where}", tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["models"], 0),
        pytest.param(["results", "regress", "slower.jsonl"], 1, marks=pytest.mark.slow),
        pytest.param(["export", "--alpha", "0"], 2, marks=pytest.mark.slow),
        (["results", "regress", "unknown.jsonl"], 3),
        pytest.param(["bench", "{artifact}", "--device", "pixel9"], 5, marks=pytest.mark.slow),
        pytest.param(["export", "--arch", "xception"], 6, marks=pytest.mark.slow),
        (["evaluate", "broken.tflite"], 7),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_process_as_users_start_it_ends_in_each_code(argv, code, exported, here, monkeypatch):
    """Most other tests fork theirs (tests/warm.py). 4, 70 and 130 have tests of their own."""
    (here / "broken.tflite").write_bytes(b"junk")
    keep(artifact(), measured(ns=1000))
    results.results_export(here / "slower.jsonl")
    keep(artifact("b" * 64), measured("b" * 64, ns=3000))
    monkeypatch.setenv("MOBILEDEPLOY_STORE", "other.db")
    keep(artifact("c" * 64, "other"), measured("c" * 64, ns=1000))
    results.results_export(here / "unknown.jsonl")
    monkeypatch.delenv("MOBILEDEPLOY_STORE")
    argv = [word.format(artifact=exported["float32", "tflite"]) for word in argv]
    result = subprocess.run(
        [sys.executable, "-m", "mobiledeploy", *argv], capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result.stderr
    assert (result.stderr.count("error: "), "Traceback" in result.stderr) == (
        code in (2, 5, 6, 7),
        False,
    )


@pytest.mark.parametrize("number", slow_but([signal.SIGINT, signal.SIGTERM], signal.SIGINT))
def test_an_interrupt_is_one_line_and_130(number, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "mobiledeploy", "export", "--alpha", "0.5", "--res", "96"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("build/.*.staging")):
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.02)
        time.sleep(1)
        child.send_signal(number)
        _, stderr = child.communicate(timeout=10)
    assert child.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted"
    assert os.listdir(tmp_path) == []


def test_shell_completion_knows_commands_and_options(tmp_path):
    result = run(
        cwd=tmp_path,
        _MOBILEDEPLOY_COMPLETE="bash_complete",
        COMP_WORDS="mobiledeploy exp",
        COMP_CWORD="1",
    )
    assert (result.returncode, result.stdout.strip()) == (0, "plain,export")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("bench --device emulator:cortex-a7", ["emulator:cortex-a72", "emulator:cortex-a76"]),
        ("choose --device pixel-", ["pixel-1", "pixel-3"]),
        ("analyze --arch squeeze", ["squeezenet_1_0", "squeezenet_1_1"]),
        ("export --recipe float32,int8_b", ["float32,int8_best"]),
        ("analyze --table howard2017", ["howard2017-4", "howard2017-8"]),
        ("evaluate --task seg", ["segmentation"]),
        ("export --weights im", ["imagenet"]),
        ("export --resize b", ["bilinear", "bicubic"]),
        ("export --app python,ja", ["python,javascript"]),
    ],
)
def test_shell_completion_knows_the_values_of_options(words, offered):
    shell = BashComplete(main.cli, {}, "mobiledeploy", "_MOBILEDEPLOY_COMPLETE")
    *before, incomplete = words.split()
    found = [
        item.value for item in shell.get_completions(before, incomplete) if item.type == "plain"
    ]
    assert set(offered) <= set(found)
    assert all(value.startswith(incomplete) for value in found)


def test_version_names_the_runtimes(tmp_path):
    result = run("--version", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("mobiledeploy 0.")
    for runtime in ("ai-edge-litert", "onnxruntime"):
        assert runtime in result.stdout


def test_a_name_that_is_no_text_is_printed(tmp_path):
    """The bytes that are no text are written out, whatever the terminal takes."""
    with Store.open(tmp_path / "store.db") as store:
        store.add_measurement(measured())
    result = subprocess.run(
        [sys.executable, "-m", "mobiledeploy", "results", "export", b"caf\xe9.jsonl"],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "utf-8:strict", "MOBILEDEPLOY_STORE": "store.db"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert rb"caf\udce9.jsonl" in result.stdout
    assert (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).exists()


@pytest.mark.parametrize(
    "setting",
    [
        '[export]\nlabels = "a\\u0000b"',
        f"[bench]\nthreads = {'9' * 5000}",
        "[bench]\nx = " + "[" * 9999,
    ],
    ids=["NUL", "digits", "depth"],
)
def test_settings_that_no_file_can_hold_are_one_line(tmp_path, setting):
    (tmp_path / "mobiledeploy.toml").write_text(setting)
    result = run("results", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "mobiledeploy.toml cannot be read" in result.stderr
    assert result.stderr.count("\n") == 1
