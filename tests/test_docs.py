"""Every command of README and docs is run, page by page, as a reader would."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mobiledeploy.cli import main
from tests import warm
from tests.scripts import script
from tests.variants import slow_but

REPOSITORY = Path(__file__).resolve().parent.parent
SKILL = REPOSITORY / "SKILL.md"
PAGES = [REPOSITORY / "README.md", SKILL, *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a page tells to do in the checkout itself is what `make test` and CI do already.
ELSEWHERE = ("git clone", "make ", "pip install", "cd ", "python benchmarks/", ".venv/bin/python ")


def steps(page):
    """(kind, text): the console commands, and the files that a block's first line names."""
    for language, body in BLOCK.findall(page.read_text("utf-8")):
        if language == "console":
            for line in body.splitlines():
                if line.startswith("$ ") and not line[2:].startswith(ELSEWHERE):
                    yield "run", line[2:]
        elif named := re.match(r"# ([\w.]+\.(?:py|toml))\b", body):
            yield named[1], body


WITH_COMMANDS = [page for page in PAGES if any(kind == "run" for kind, _ in steps(page))]
# These take minutes of a core. Their commands are those of other pages and tests, and
# `make test-slow` runs them.
LONG = (
    "README.md",
    "SKILL.md",
    "app.md",
    "bundle.md",
    "choose.md",
    "detection.md",
    "guide.md",
    "other-runtimes.md",
    "quantization.md",
    "results.md",
)
IN_MAKE_TEST = [page for page in WITH_COMMANDS if page.name not in LONG]


@pytest.fixture(scope="module")
def warm_commands(tmp_path_factory):
    """A folder with a `mobiledeploy` that has its imports behind it."""
    folder = tmp_path_factory.mktemp("commands")
    program = folder / "mobiledeploy"
    program.write_text(f'#!/bin/sh\nexec {warm.program()} -m mobiledeploy "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", IN_MAKE_TEST, ids=lambda page: page.name)
def test_the_commands_of_a_page_work(page, warm_commands, tmp_path):
    follow(page, f"{warm_commands}:{Path(sys.executable).parent}", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_the_commands_of_a_page_work_with_the_programs_that_people_have(page, tmp_path):
    follow(page, Path(sys.executable).parent, tmp_path)


def follow(page, programs, folder):
    """Runs a page's commands in `folder`, one after the other, with `programs` on the PATH."""
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    for kind, text in steps(page):
        if kind != "run":
            (folder / kind).write_text(text)
            continue
        done = subprocess.run(
            text, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert done.stdout or ">" in text or not text.startswith("mobiledeploy"), text


@pytest.mark.slow
def test_the_code_of_the_page_on_python_runs(tmp_path):
    page = REPOSITORY / "docs" / "api.md"
    blocks = [
        body for language, body in BLOCK.findall(page.read_text("utf-8")) if language == "python"
    ]
    (tmp_path / "page.py").write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "build/tiny/float32.tflite" in said
    assert any(line.startswith("the weights are random") for line in said)
    assert "DeployWarning" in done.stderr


def test_every_function_is_on_the_page_on_python():
    import inspect

    import mobiledeploy as md

    page = (REPOSITORY / "docs" / "api.md").read_text("utf-8")
    for name in md.__all__:
        assert f"`{name}`" in page or not inspect.isfunction(getattr(md, name)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_command_is_in_the_guide():
    guide = (REPOSITORY / "docs" / "guide.md").read_text("utf-8")
    commands = {p.stem for p in (REPOSITORY / "mobiledeploy" / "cli").glob("[a-z]*.py")} - {"main"}
    for command in commands:
        assert f"$ mobiledeploy {command}" in guide, command


def test_every_exit_code_of_an_error_is_documented():
    from mobiledeploy.core import errors

    page = (REPOSITORY / "docs" / "exit-codes.md").read_text("utf-8")
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.DeployError):
            assert f"\n| {kind.exit_code} |" in page


# docs/json.md


@pytest.fixture(scope="module")
def record_docs():
    with script("tools/record_docs.py") as module:
        yield module


def test_the_page_of_records_is_what_the_tool_writes(record_docs):
    text = record_docs.PAGE.read_text("utf-8")
    assert record_docs.page(text) == text, "python tools/record_docs.py writes it anew"


def test_a_number_without_a_unit_is_noticed(record_docs):
    with pytest.raises(KeyError, match=r"Evaluation\.watts"):
        record_docs.unit("Evaluation", "watts", "number")


def commands_with_json(command: click.Command, name: str) -> Iterator[str]:
    """The command lines below `command` that take --json, without options."""
    context = click.Context(command)
    if name and any("--json" in param.opts for param in command.params):
        yield name
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            assert child is not None
            yield from commands_with_json(child, f"{name} {below}".strip())


def test_every_command_with_json_is_on_the_page(record_docs):
    named = {re.split(r" (?:--|ID)", line)[0] for line in record_docs.COMMANDS}
    assert named == set(commands_with_json(main.cli, ""))


def returned(path: Path) -> set[str]:
    """The types that a module's functions return, as they are written."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {ast.unparse(f.returns).rpartition(".")[2] for f in functions if f.returns}


@pytest.mark.parametrize("name", sorted(main.cli.list_commands(click.Context(main.cli))))
def test_a_command_prints_the_records_of_the_page(name, record_docs):
    """The page's records are what the functions return that a command's file imports."""
    package = REPOSITORY / "mobiledeploy"
    tree = ast.parse((package / "cli" / f"{name}.py").read_text("utf-8"))
    modules = [
        package / node.module.rpartition(".")[2] / f"{alias.name}.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module in ("mobiledeploy.verbs", "mobiledeploy.steps")
        for alias in node.names
    ]
    records = set().union(*map(returned, modules))
    named = {record for line, record in record_docs.COMMANDS.items() if line.split(" ")[0] == name}
    assert named <= records


# SKILL.md


def skill_fields(records):
    """(record, field) of each table of SKILL.md whose head names a file or a command.

    `records` maps a command to its record; of two commands the longer one is meant.
    """
    text = SKILL.read_text("utf-8")
    lines = re.findall(r"^\$ mobiledeploy (.+) --json > (\S+)$", text, re.MULTILINE)
    commands = {file: command for command, file in lines}
    for rows in re.findall(r"^(?:\|.*\n)+", text, re.MULTILINE):
        head, _, *cells = (row.split("|")[1] for row in rows.splitlines())
        if name := re.fullmatch(" `(.+)` ", head):
            words = set(commands.get(name[1], name[1]).split(" "))
            command = max((c for c in records if set(c.split(" ")) <= words), key=len)
            for field in re.findall("`(.+?)`", " ".join(cells)):
                yield records[command], field


def holds(kind, field):
    """Whether values of the type `kind`, or of one of its union, have the field `rows[].path`."""
    if not field:
        return True
    if typing.get_origin(kind) is tuple:
        return field.startswith("[]") and holds(typing.get_args(kind)[0], field[2:].lstrip("."))
    if not dataclasses.is_dataclass(kind):
        return any(holds(part, field) for part in typing.get_args(kind))
    name, rest = re.fullmatch(r"(\w*)(.*)", field).groups()
    hints = typing.get_type_hints(kind)
    return name in hints and holds(hints[name], rest)


def test_every_field_that_the_skill_names_is_in_its_record(record_docs):
    kinds = record_docs.record_types()
    fields = list(skill_fields(record_docs.COMMANDS))
    records = {"ExportResult", "QuantizationDiagnosis", "BenchResult", "LatencyComparison"}
    assert {record for record, _ in fields} == {*records, "BaselineUpdate", "Report"}
    for record, field in fields:
        assert holds(kinds[record], field), (record, field)


@pytest.mark.parametrize(
    "field",
    slow_but(
        ["rows[].watts", "rows.path", "rows[].path[]", "folder[]", "rows[].path.name"],
        "rows[].watts",
        "rows[].path.name",
    ),
)
def test_a_field_that_no_record_has_is_noticed(field, record_docs):
    kind = record_docs.record_types()["ExportResult"]
    assert holds(kind, "rows[].path")
    assert not holds(kind, field)


def test_the_skill_has_the_front_matter_that_agents_look_for():
    """Its name is that of its folder, the checkout: the rule of agentskills.io."""
    _, front, _ = SKILL.read_text("utf-8").split("---\n", 2)
    lines = dict(line.split(": ", 1) for line in front.splitlines())
    assert lines["name"] == "mobiledeploy"
    assert 0 < len(lines["description"]) <= 1024
    assert len(lines["compatibility"]) <= 500
    # Else it would not be plain YAML.
    assert not [text for text in lines.values() if ": " in text or " #" in text]


def test_the_skill_names_every_exit_code():
    pages = (SKILL, REPOSITORY / "docs" / "exit-codes.md")
    ours, all_ = (re.findall(r"^\| (\d+) \|", page.read_text("utf-8"), re.M) for page in pages)
    assert ours == all_


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_form_that_every_reader_of_markdown_takes_alike(page):
    """Blank lines around headings and before tables, lists and code; lines of one length."""
    is_code, before = False, ""
    generated = page.name in ("benchmarks.md", "json.md")
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        where = f"{page.name}:{number}: {line}"
        assert line == line.rstrip(), where
        if line.startswith("```"):
            is_code = not is_code
            assert not is_code or not before, where
        elif not is_code:
            assert not before or not re.match("#+ ", line), where
            assert not line or not re.match("#+ ", before), where
            assert not before or line[:1] != "|" or before[:1] == "|", where
            item = re.compile(r"( *)([-*]|\d+\.) ")
            assert not item.match(line) or not before or item.match(before) or before[0] == " ", (
                where
            )
            has_link = re.search(r"\]\(\S+\)|^\||^\w+: ", line)
            assert generated or len(line) <= 105 or has_link, where
        before = line
    assert not is_code, f"{page.name} does not end its last block of code"
