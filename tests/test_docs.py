"""Every command of README and docs is run, page by page, as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
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


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_the_commands_of_a_page_work(page, tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for kind, text in steps(page):
        if kind != "run":
            (tmp_path / kind).write_text(text)
            continue
        done = subprocess.run(
            text, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert done.stdout or ">" in text or not text.startswith("mobiledeploy"), text


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
