"""Every benchmark leaves the same form."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.table import Table

import mobiledeploy
from tests.scripts import REPOSITORY, script


@pytest.fixture
def results() -> Iterator[ModuleType]:
    with script("benchmarks/_results.py") as module:
        yield module


def test_a_result_has_its_tables_as_printed_and_where_it_is_from(
    results, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    real, out = tmp_path / "real", tmp_path / "x y.json"
    monkeypatch.setattr(
        sys, "argv", [f"{tmp_path}/drift.py", "--real", f"{real}", f"--out={out}", "a/b"]
    )
    table = Table("what", "ratio", title="times")
    table.add_row("plain", "1.2")
    table.add_row("other", "")
    results.write("drift", {"rows": [1.25]}, [table, Table("empty")])
    (path,) = tmp_path.rglob("*.json")
    assert path.relative_to(tmp_path) == Path("build/benchmarks/drift.json")
    kept = json.loads(path.read_text())
    assert kept["benchmark"] == "drift"
    assert kept["command"] == "python benchmarks/drift.py --real real '--out=x y.json' a/b"
    assert kept["version"] == mobiledeploy.__version__
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", kept["date"])
    assert kept["machine"]["libraries"]["numpy"] == np.__version__
    assert kept["result"] == {"rows": [1.25]}
    assert kept["tables"] == [
        {
            "title": "times",
            "columns": ["what", "ratio"],
            "rows": [["plain", "1.2"], ["other", ""]],
        },
        {"title": "", "columns": ["empty"], "rows": []},
    ]


def test_the_commit_is_none_where_git_is_not(results, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(results, "REPOSITORY", tmp_path)
    assert results.commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert results.commit() is None


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "benchmarks").glob("[a-z]*.py")), ids=lambda path: path.stem
)
def test_every_benchmark_writes_it(path) -> None:
    name, text = path.stem, path.read_text("utf-8")
    reported = f'Path("build/benchmarks/{name}.json"))'
    assert f'_results.write("{name}", ' in text or reported in text
