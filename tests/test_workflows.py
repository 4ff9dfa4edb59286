"""Our workflows and actions, and those of the docs: their form, and what a stranger could do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
ACTIONS = [REPOSITORY / "action.yml", *sorted((REPOSITORY / "tools").glob("*/action.yml"))]
if not WORKFLOWS:
    pytest.skip("no workflows here (a source archive has none)", allow_module_level=True)
PAGES = ("docs/check.md", "docs/bundle.md")
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


PROGRAMS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def run(name, *argv):
    program = shutil.which(name, path=PROGRAMS)
    if program is None:
        pytest.skip(f"{name} is not installed (pip install 'mobiledeploy[dev]')")
    done = subprocess.run([program, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def fits_schema(schema, *paths):
    run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *paths)


def audit(*paths):
    configuration = REPOSITORY / ".github" / "zizmor.yml"
    run("zizmor", "--offline", "--no-progress", "--config", configuration, *paths)


@pytest.fixture
def examples(tmp_path):
    """The workflows that the docs show, as a user would write them."""
    found = []
    for page in PAGES:
        for number, text in enumerate(BLOCK.findall((REPOSITORY / page).read_text("utf-8"))):
            if text.startswith("name:"):
                place = tmp_path / ".github" / "workflows" / f"{Path(page).stem}-{number}.yml"
                place.parent.mkdir(parents=True, exist_ok=True)
                text = text.replace("<owner>", "owner").replace("<version>", "1" * 40)
                place.write_text(text)
                found.append(place)
    assert len(found) >= 3
    return found


def test_workflows_and_actions_fit_their_schemas(examples):
    fits_schema("github-workflows", *WORKFLOWS, *examples)
    fits_schema("github-actions", *ACTIONS)


@pytest.mark.slow
def test_a_schema_refuses_a_wrong_workflow(tmp_path):
    text = (REPOSITORY / ".github" / "workflows" / "comment.yml").read_text()
    (tmp_path / "wrong.yml").write_text(text.replace("steps:", "step:"))
    with pytest.raises(AssertionError, match=r"wrong\.yml"):
        fits_schema("github-workflows", tmp_path / "wrong.yml")


def test_no_audit_finds_a_way_in():
    audit(REPOSITORY / ".github", *ACTIONS)


def test_an_audit_finds_a_name_that_would_run(tmp_path):
    text = (REPOSITORY / "tools" / "comment" / "action.yml").read_text()
    (tmp_path / "action.yml").write_text(
        text.replace("run: python3", "run: echo ${{ github.event.workflow_run.head_branch }}; x")
    )
    with pytest.raises(AssertionError, match="template-injection"):
        audit(tmp_path / "action.yml")


def test_the_comment_runs_nothing_of_the_pull_request():
    """Its checkout, if there is one, names no ref: on `workflow_run` that is the main branch."""
    for path in (REPOSITORY / ".github/workflows/comment.yml", *ACTIONS):
        assert "ref:" not in path.read_text()
    text = (REPOSITORY / ".github" / "workflows" / "comment.yml").read_text()
    assert "secrets" not in text
    assert text.count(": write") == 1
