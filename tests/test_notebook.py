"""docs/notebook.ipynb is run, and answers what stands in it but for its figures.

``python -m tests.test_notebook`` runs it anew and writes its outputs.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
LARGEST_BYTES = 40_000


def run(folder: Path) -> nbformat.NotebookNode:
    """The notebook, run in `folder`, without what tells only when it was."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            # Warnings and bars come and go with the machine.
            cell.outputs = [o for o in cell.outputs if o.output_type == "execute_result"]
            for output in cell.outputs:
                output.metadata = {}
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


def structure(notebook: nbformat.NotebookNode) -> list[object]:
    """Of each answer its kinds, and of its tables the headers and the first column."""
    found: list[object] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            html = output.data.get("text/html", "")
            rows = re.findall(r"<tr><td>(.*?)</td>", html)
            found.append((sorted(output.data), re.findall(r"<th>(.*?)</th>", html), rows))
    return found


def test_its_outputs_are_small_and_name_no_place() -> None:
    text = NOTEBOOK.read_text("utf-8")
    assert len(text.encode()) < LARGEST_BYTES
    assert not re.search(r"/(home|root|tmp|work)/", text)


@pytest.mark.slow
def test_the_notebook_answers_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    assert structure(run(tmp_path)) == structure(nbformat.read(NOTEBOOK, as_version=4))


if __name__ == "__main__":
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(run(Path(folder)), NOTEBOOK)
