"""The notebooks are run. docs/notebook.ipynb answers what stands in it but for its figures.

``python -m tests.test_notebook`` runs it anew and writes its outputs.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    import nbformat

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
PHOTOS = REPOSITORY / "docs" / "own-photos.ipynb"
LARGEST_BYTES = 40_000


def read(path: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """A notebook as it is committed."""
    # Compiles grammars of addresses for four seconds: not while tests are collected.
    import nbformat

    return nbformat.read(path, as_version=4)


def run(folder: Path) -> nbformat.NotebookNode:
    """The notebook, run in `folder`, without what tells only when it was.

    What bars showed last is in its metadata, as `bars`.
    """
    from nbclient import NotebookClient

    notebook = read()
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    bars = []
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            shown = [o for o in cell.outputs if o.output_type == "display_data"]
            bars += [o.data["text/html"] for o in shown]
            # Warnings and bars come and go with the machine.
            cell.outputs = [o for o in cell.outputs if o.output_type == "execute_result"]
            for output in cell.outputs:
                output.metadata = {}
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "bars": bars}
    return notebook


def structure(notebook: nbformat.NotebookNode) -> list[object]:
    """Of each answer its kinds, and of its tables the headers and the first column.

    Which images have another answer depends on the machine's kernels.
    """
    found: list[object] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            html = output.data.get("text/html", "")
            html = re.sub(r"<table><caption>[^<]* are not float.*?</table>", "", html)
            rows = re.findall(r"<tr><td>(.*?)</td>", html)
            found.append((sorted(output.data), re.findall(r"<th>(.*?)</th>", html), rows))
    return found


def test_its_outputs_are_small_and_name_no_place() -> None:
    text = NOTEBOOK.read_text("utf-8")
    assert len(text.encode()) < LARGEST_BYTES
    assert not re.search(r"/(home|root|tmp|work)/", text)


def test_the_notebook_for_own_photos_calls_what_there_is() -> None:
    import mobiledeploy as md

    sources = [cell.source for cell in read(PHOTOS).cells if cell.cell_type == "code"]
    assert sources[0].splitlines()[-1].startswith("%pip install")
    assert "://" not in "".join(sources)
    assert not any(cell.get("outputs") for cell in read(PHOTOS).cells)
    names = []
    for node in ast.walk(ast.parse("\n".join(sources[1:]))):
        if isinstance(node, ast.Call) and re.match(r"md\.\w+$", ast.unparse(node.func)):
            name = ast.unparse(node.func).partition(".")[2]
            keywords = dict.fromkeys(str(word.arg) for word in node.keywords)
            inspect.signature(getattr(md, name)).bind(*node.args, **keywords)
            names.append(name)
    assert names == ["export", "evaluate", "update_baseline", "check", "report"]


@pytest.mark.slow
def test_the_notebook_for_own_photos_runs(
    model_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but its first cell, which installs from a checkout."""
    from nbclient import NotebookClient

    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    shutil.copy(model_files / "k2.h5", tmp_path / "model.h5")
    dice = np.random.default_rng(0)
    for number in range(60):
        photo = tmp_path / "photos" / "abcde"[number % 5] / f"{number}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (32, 32, 3), np.uint8)).save(photo)
    notebook = read(PHOTOS)
    notebook.cells = [c for c in notebook.cells if "install" not in c.metadata.get("tags", ())]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    (shown,) = [o for o in notebook.cells[-1].outputs if o.output_type == "execute_result"]
    assert "int8_ptq.tflite" in shown.data["text/html"]


@pytest.mark.slow
def test_the_notebook_answers_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    done = run(tmp_path)
    assert structure(done) == structure(read())
    # Each call that works for a while had a bar, which is gone at its end.
    assert len(done.metadata["bars"]) >= 3
    assert set(done.metadata["bars"]) == {""}


if __name__ == "__main__":
    import nbformat

    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder))
        del done.metadata["bars"]
        nbformat.write(done, NOTEBOOK)
