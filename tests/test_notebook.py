"""docs/notebook.ipynb is run, and answers what stands in it but for its figures.

``python -m tests.test_notebook`` runs it anew and writes its outputs.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import nbformat

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
LARGEST_BYTES = 40_000


def read() -> nbformat.NotebookNode:
    """The notebook as it is committed."""
    # Compiles grammars of addresses for four seconds: not while tests are collected.
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


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
