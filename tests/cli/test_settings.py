"""Settings in files: what a stranger's file may say, what only the user's own, in which order."""

import datetime
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mobiledeploy.cli import _settings, export
from mobiledeploy.cli.main import cli
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.package import config_dir
from mobiledeploy.store.database import Store, path
from tests import warm

CONTEXT = click.Context(cli)
COMMANDS = {name: cli.get_command(CONTEXT, name) for name in cli.list_commands(CONTEXT)}
OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]
# Whoever writes a repository must not choose any of these, in whatever command they stand.
NEVER = {
    "adb",
    "benchmark_model",
    "clean",
    "emulator",
    "executor",
    "force",
    "pipeline",
    "ray_address",
    "strategy",
    "unsafe",
    "custom_objects",
    "update_baseline",
}
WRITES = {"baseline", "html", "junit", "markdown", "model_explorer", "out", "plot", "record"}
# What another command writes.
READS = {("bundle", "baseline")}
every_option = pytest.mark.parametrize(
    ("command", "option"), OPTIONS, ids=[f"{name}-{option.name}" for name, option in OPTIONS]
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user's folder of settings, with nothing in it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "mobiledeploy" / "mobiledeploy.toml"


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def said_by(folder, command, name, value, own=False):
    """What a file of `folder` makes of one value."""
    file = _settings.File(folder / "mobiledeploy.toml", "the file", own, {command: {name: value}})
    return _settings.defaults(file, command, COMMANDS[command], CONTEXT)


def run(*argv, cwd, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MOBILEDEPLOY_")}
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *argv],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def fitting(option):
    """A value of the option's type, as a file has it."""
    if option.is_flag:
        return True
    if option.count:
        return 1
    if isinstance(option.type, click.Choice):
        return str(option.type.choices[0])
    if isinstance(option.type, click.Path):
        return "there/it.json"
    if isinstance(option.type, click.types.IntRange | click.types.IntParamType):
        return 2
    if isinstance(option.type, click.FloatRange | click.types.FloatParamType):
        return 0.5
    if option.name in ("input_range", "mean", "std"):
        return [0.0, 1.0] if option.name == "input_range" else [1, 1, 1]
    return {
        "max_instructions": "2M",
        "max_mult_adds": "2M",
        "max_latency": "2ms",
        "max_memory": "2M",
        "max_size": "2M",
        "alpha": [0.5, 1],
        "groups": [2],
        "res": [96],
    }.get(option.name, "it")


# Who may say what


@every_option
def test_an_option_is_a_folder_s_to_set_or_a_named_error(command, option, repository, home):
    flag = max(option.opts, key=len)
    if isinstance(option, _settings.Option):
        assert option.name not in NEVER
        assert said_by(repository, command, option.name, fitting(option))
    else:
        with pytest.raises(UsageError) as refused:
            said_by(repository, command, option.name, fitting(option))
        assert f"the file sets {flag} of {command}, which" in refused.value.message
        assert f"give {flag} on the command line" in refused.value.hint
        assert f"under [{command}] in {home}" in refused.value.hint
    assert said_by(repository, command, option.name, fitting(option), own=True)


def test_an_option_is_called_the_same_in_every_place():
    """In files and in MOBILEDEPLOY_<COMMAND>_<OPTION>: by its flag."""
    for _, option in OPTIONS:
        assert f"--{option.name.replace('_', '-')}" in option.opts


def test_whatever_is_written_to_is_known_as_that():
    written = {option.name for _, option in OPTIONS if isinstance(option, _settings.Output)}
    assert written == WRITES
    for command, option in OPTIONS:
        if isinstance(option, _settings.Option) and (command, option.name) not in READS:
            assert isinstance(option, _settings.Output) == (option.name in WRITES)


def test_a_new_option_is_the_user_s_alone_until_it_is_marked(repository):
    @click.command()
    @click.option("--new")
    def command(new):
        """Does nothing."""

    file = _settings.File(repository / "a.toml", "the file", False, {"some": {"new": "x"}})
    with pytest.raises(UsageError, match="the file sets --new of some"):
        _settings.defaults(file, "some", command, CONTEXT)


PROGRAM = "import sys, pathlib; pathlib.Path(sys.argv[0]).with_name('ran').touch()\n"


@pytest.mark.parametrize("name", ["mobiledeploy.toml", "pyproject.toml"])
def test_a_program_that_a_repository_names_does_not_run(name, repository, home):
    program = repository / "program.py"
    program.write_text(PROGRAM)
    line = f'pipeline = "{sys.executable} {program}"\n'
    table = "[tool.mobiledeploy.verify]\n" if name == "pyproject.toml" else "[verify]\n"
    (repository / name).write_text(table + line)
    result = run("verify", "model.tflite", cwd=repository)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {name} sets --pipeline of verify, which a file of the current folder may not; "
        f"give --pipeline on the command line, or under [verify] in {home}\n"
    )
    assert not (repository / "ran").exists()
    # Another command is not held up by it.
    assert run("models", cwd=repository).returncode == 0


@pytest.mark.parametrize("command", ["bench", "evaluate", "check", "verify", "sweep"])
def test_a_repository_does_not_choose_a_machine_to_log_in_to(command, repository, home):
    values = ["host,ssh:nas" if command == "sweep" else "ssh:nas", "ssh: nas", "ssh"]
    for value in values:
        with pytest.raises(UsageError, match="may not choose another machine") as refused:
            said_by(repository, command, "device", value)
        assert "give --device on the command line" in refused.value.hint
        assert said_by(repository, command, "device", value, own=True) == {"device": value}
    for value in ("host", "pixel-3", "adb:123", "emulator:cortex-a76"):
        assert said_by(repository, command, "device", value) == {"device": value}


# Whose file goes first


def test_a_flag_the_environment_the_folder_and_the_user_in_this_order(repository, home):
    home.parent.mkdir(parents=True)
    home.write_text("[export]\nalpha = -0.5\nunsafe = true\n")
    assert "alpha -0.5" in run("export", cwd=repository).stderr
    (repository / "mobiledeploy.toml").write_text("[export]\nalpha = -1.5\n")
    assert "alpha -1.5" in run("export", cwd=repository).stderr
    environment = {"MOBILEDEPLOY_EXPORT_ALPHA": "-2.5"}
    assert "alpha -2.5" in run("export", cwd=repository, **environment).stderr
    result = run("export", "--alpha", "-3.5", cwd=repository, **environment)
    assert "alpha -3.5" in result.stderr


ADB = """
import os, sys
from mobiledeploy.cli.main import run
from tests import warm
sys.argv = ["mobiledeploy", "bench", "absent.tflite"]
assert run() == 7
print(os.environ["MOBILEDEPLOY_ADB"])
"""


def adb(cwd, **environment):
    """The program that a bench in that folder would call."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", ADB],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.stdout.strip()


def test_the_environment_says_what_a_folder_may_not(repository):
    assert adb(repository, MOBILEDEPLOY_BENCH_ADB="/my/adb") == "/my/adb"


def test_the_user_s_own_file_names_programs_wherever_it_is_read(repository, home):
    home.parent.mkdir(parents=True)
    home.write_text('[bench]\nadb = "/my/adb"\n')
    assert [adb(here) for here in (repository, home.parent)] == ["/my/adb"] * 2


def test_a_user_without_a_home_has_no_file(monkeypatch, repository):
    """And what a repository calls ~/.config is not theirs."""
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.chdir(repository)
    for there in (Path("~/.config/mobiledeploy"), Path(".config/mobiledeploy")):
        there.mkdir(parents=True)
        (there / "mobiledeploy.toml").write_text("[export]\nunsafe = true\n")
    monkeypatch.setenv("HOME", ".")
    assert _settings.files([repository]) == []

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert config_dir().is_absolute()
    assert _settings.files([repository]) == []


def test_the_user_s_file_is_named_by_its_path(repository, home):
    home.parent.mkdir(parents=True)
    home.write_text("[export]\nalfa = 1\n")
    result = run("export", cwd=repository)
    assert result.returncode == 2
    assert f"error: {home} sets 'alfa', which export does not have" in result.stderr


# Where a result may go


@pytest.mark.parametrize(
    ("command", "name", "value", "message"),
    [
        ("report", "out", "/etc/report.html", "outside of the current folder"),
        ("report", "out", "../report.html", "outside of the current folder"),
        ("report", "out", "linked/report.html", "outside of the current folder"),
        ("report", "out", "report.html", "outside of the current folder"),
        ("report", "out", "round/report.html", "whose links end nowhere"),
        ("report", "out", ".git/report.html", "in a hidden folder"),
        ("report", "out", "venv/bin/activate", "does not end as a result does"),
        ("check", "junit", "/etc/check.xml", "outside"),
        ("check", "markdown", "../a.md", "outside"),
        ("check", "baseline", "../a.json", "outside"),
        ("bench", "record", "../a.json", "outside"),
        ("analyze", "plot", "../a.svg", "outside"),
        ("analyze", "model_explorer", "../a.json", "outside"),
        ("diff", "html", "../a.html", "outside"),
        ("export", "out", "..", "outside"),
        ("sweep", "out", "..", "outside"),
        ("train", "out", ".git/hooks", "in a hidden folder"),
    ],
)
def test_a_folder_s_file_has_results_written_in_the_folder_only(
    command, name, value, message, repository, home
):
    (repository / "linked").symlink_to(repository.parent)
    (repository / "report.html").symlink_to(repository.parent / "precious.html")
    (repository / "round").symlink_to("round")
    with pytest.raises(UsageError) as refused:
        said_by(repository, command, name, value)
    assert message in refused.value.message
    flag = name.replace("_", "-")
    assert f"sets --{flag} of {command} to {value}, " in refused.value.message
    assert str(home) in refused.value.hint
    assert said_by(repository, command, name, value, own=True) == {name: value}


@pytest.mark.parametrize("value", ["a.html", "made/a.html", "./made/../a.html"])
def test_a_folder_s_file_names_results_within_it(value, repository, monkeypatch):
    monkeypatch.chdir(repository)
    assert said_by(repository, "report", "out", value) == {"out": value}


def test_a_file_out_of_the_folder_is_not_replaced(repository):
    (repository.parent / "precious.html").write_text("mine")
    (repository / "mobiledeploy.toml").write_text('[report]\nout = "../precious.html"\n')
    result = run("report", cwd=repository)
    assert result.returncode == 2
    assert "error: mobiledeploy.toml sets --out of report to ../precious.html, outside" in (
        result.stderr
    )
    assert (repository.parent / "precious.html").read_text() == "mine"


# What is no value


@every_option
def test_a_value_of_another_type_is_named(command, option, repository):
    named = f"the file: {max(option.opts, key=len)} of {command}: "
    for value in ({}, [[]], datetime.date(2026, 1, 31)):
        with pytest.raises(UsageError, match=named):
            said_by(repository, command, option.name, value, own=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alpha = true", "--alpha of export: true or false is neither text nor a number"),
        ("alpha = {}", "--alpha of export: a table is neither"),
        ("alpha = 2026-01-31", "--alpha of export: a date or time is neither"),
        ("alpha = [0.5]", "--alpha of export: a list is neither"),
        ('alpha = "text"', "--alpha of export: 'text' is not a valid float"),
        ("alpha = nan", "alpha nan"),
        ("alpha = inf", "alpha inf"),
        (f"alpha = {'9' * 400}", "alpha "),
        ("crop = nan", "crop nan"),
        ("crop = inf", "--crop of export: inf is "),
        ("res = 96.5", "--res of export: '96.5' is not a valid integer"),
        ("res = true", "--res of export: true or false is neither"),
        (f"res = {'9' * 400}", "resolution 999"),
        (f"res = {'9' * 5000}", "mobiledeploy.toml cannot be read"),
        (f"res = 0x{'f' * 5000}", "--res of export: the number is too large"),
        ("force = 1", "--force"),
        ("json = 1", "--json of export: a number is not true or false"),
        ("json = 'yes'", "--json of export: text is not true or false"),
        ("verbose = true", "--verbose of export: true or false is not a number"),
        ("verbose = -1", "--verbose of export: "),
        ("recipe = [[]]", "--recipe of export: a list is neither"),
        ("recipe = []", "--recipe of export: '' is not comma-separated names"),
        ("mean = [1, 2]", "--mean of export: '1,2' is not 3 comma-separated numbers"),
        ("mean = [1, 2, nan]", "--mean of export: '1,2,nan' is not 3 comma-separated numbers"),
        ('weights = "a\\u0000b"', "cannot be read: a text holds the character NUL"),
        ("model = 'x.h5'", "sets 'model', which export does not have"),
        (f"a = {'[' * 5000}", "mobiledeploy.toml cannot be read"),
    ],
)
def test_a_wrong_value_is_one_line_and_two(line, message, repository):
    (repository / "mobiledeploy.toml").write_text(f"[export]\n{line}\n")
    result = run("export", cwd=repository)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert os.listdir(repository) == ["mobiledeploy.toml"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "tool = 1\n"),
        ("pyproject.toml", "[tool]\nmobiledeploy = 1\n"),
        ("mobiledeploy.toml", "export = 1\n"),
        ("mobiledeploy.toml", "[[export]]\nalpha = 1\n"),
    ],
)
def test_something_else_than_tables_is_no_defect(name, text, repository):
    (repository / name).write_text(text)
    result = run("models", cwd=repository)
    assert result.returncode == (0 if text == "tool = 1\n" else 2), result.stderr


def test_lists_are_what_has_commas_on_the_command_line(repository):
    given = {"recipe": ["int8_ptq", "float32"], "keep_float": ["a,b", "c"], "mean": [1, 2.5, 3]}
    message = {
        name: said_by(repository, "export", name, value)[name] for name, value in given.items()
    }
    assert message == {
        "recipe": "int8_ptq,float32",
        "keep_float": ("a,b", "c"),
        "mean": "1,2.5,3",
    }
    with CONTEXT:
        ctx = export.command.make_context("export", [], default_map=message)
    assert ctx.params["keep_float"] == ("a,b", "c")
    assert ctx.params["recipe"] == ("int8_ptq", "float32")
    assert ctx.params["mean"] == (1.0, 2.5, 3.0)


def test_options_of_several_values_have_their_names_in_every_place(repository):
    (repository / "mobiledeploy.toml").write_text("[sweep]\nres = [7]\ndry-run = true\n")
    assert "resolution 7" in run("sweep", cwd=repository).stderr
    environment = {"MOBILEDEPLOY_SWEEP_RES": "8"}
    assert "resolution 8" in run("sweep", cwd=repository, **environment).stderr


@pytest.mark.parametrize(
    ("name", "argv", "flag"),
    [
        ("report.html", ["report"], "--out"),
        ("report.md", ["report", "--format", "markdown"], "--out"),
        ("mobiledeploy-baseline.json", ["check", "x.tflite", "--update-baseline"], "--baseline"),
    ],
)
def test_a_result_that_nobody_named_does_not_leave_the_folder(name, argv, flag, repository):
    """A stranger's folder brings it as a link to a file of the user's."""
    outside = repository.parent / "outside"
    outside.write_text("mine")
    (repository / name).symlink_to(outside)
    result = run(*argv, cwd=repository)
    assert result.returncode == 2
    assert f"{name} is a link to {outside}" in result.stderr
    assert f"say {flag} {name}" in result.stderr
    named = run(*argv, flag, name, cwd=repository)
    assert "is a link" not in named.stderr
    (repository / name).unlink()
    (repository / "kept").write_text("mine")
    (repository / name).symlink_to("kept")
    assert "is a link" not in run(*argv, cwd=repository).stderr
    assert outside.read_text() == "mine"


# From a folder below


def test_a_repository_s_file_holds_in_its_subfolders(repository, home):
    below = repository / "app" / "models"
    below.mkdir(parents=True)
    (repository / "mobiledeploy.toml").write_text("[models]\nunknown = 3\n")
    assert run("models", cwd=below).returncode == 0
    (repository / ".git").mkdir()
    refused = run("models", cwd=below)
    assert refused.returncode == 2
    assert "../../mobiledeploy.toml sets 'unknown'" in refused.stderr
    # The nearest one holds, alone.
    (below / "mobiledeploy.toml").write_text("")
    assert run("models", cwd=below).returncode == 0


def test_a_path_in_a_file_above_is_from_its_folder(repository, monkeypatch):
    below = repository / "app"
    below.mkdir()
    (repository / "photos").mkdir()
    monkeypatch.chdir(below)
    said = said_by(repository, "evaluate", "data", "photos")
    assert said == {"data": "../photos"}
    assert said_by(repository, "export", "data", "demo") == {"data": "demo"}
    assert said_by(repository, "export", "out", "build/all") == {"out": "../build/all"}
    assert said_by(repository, "export", "labels", "names.txt") == {"labels": "../names.txt"}
    assert said_by(repository, "export", "weights", "random") == {"weights": "random"}
    with pytest.raises(UsageError, match="outside of the current folder"):
        said_by(repository, "export", "out", "../build")


def test_the_store_of_a_repository_is_found_from_its_subfolders(repository, monkeypatch):
    below = repository / "app"
    below.mkdir()
    monkeypatch.delenv("MOBILEDEPLOY_STORE", raising=False)
    monkeypatch.chdir(repository)
    with Store.open():
        monkeypatch.chdir(below)
        assert path() == Path(".mobiledeploy/store.db")
        (repository / ".git").write_text("gitdir: elsewhere\n")
        assert path() == Path("../.mobiledeploy/store.db")
