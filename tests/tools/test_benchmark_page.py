"""docs/benchmarks.md is what the kept results say, and says which of them are old."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import ModuleType

import pytest

import mobiledeploy
from tests.scripts import script

RESULT = {
    "benchmark": "help",
    "command": "python benchmarks/help.py",
    "version": mobiledeploy.__version__,
    "commit": "0123456789",
    "date": "2026-11-30",
    "machine": {
        "processor": "Fast",
        "cores": 2,
        "system": "Linux",
        "python": "3.11.2",
        "libraries": {"numpy": "1.26.4"},
    },
    "tables": [{"title": "times", "columns": ["what", "ratio"], "rows": [["a | b", "1.2"]]}],
    "result": {},
}


@pytest.fixture
def benchmark_page() -> Iterator[ModuleType]:
    with script("tools/benchmark_page.py") as module:
        yield module


def test_the_page_is_what_the_tool_writes_from_the_folder(benchmark_page) -> None:
    kept = benchmark_page.results()
    assert benchmark_page.page(kept) == benchmark_page.PAGE.read_text("utf-8"), (
        "python tools/benchmark_page.py writes it anew"
    )
    for name, result in kept.items():
        assert result.keys() - {"note"} == RESULT.keys(), name
        assert result["benchmark"] == name
        assert result["machine"].keys() == RESULT["machine"].keys(), name
        assert result["tables"], name


def test_a_result_stands_below_its_command(benchmark_page) -> None:
    page = benchmark_page.page({"help": RESULT | {"note": "On battery."}})
    section = page.partition("\n## help\n")[2]
    assert "```console\n$ python benchmarks/help.py\n```" in section
    assert f"Version {mobiledeploy.__version__} (commit 0123456789), 2026-11-30. Fast, 2" in section
    assert (
        "\n\nOn battery.\n\nTimes:\n\n| what | ratio |\n| --- | --- |\n| a \\| b | 1.2 |" in section
    )
    rows = {row.split(" |")[0]: row for row in page.splitlines() if row.startswith("| ")}
    assert rows["| [help](#help)"].endswith("| 2026-11-30 |")
    assert rows["| conversion"].endswith("| not run with this version |")


def test_a_result_of_another_version_is_named_as_such(benchmark_page) -> None:
    page = benchmark_page.page({"help": RESULT | {"version": "0.0.9", "commit": None}})
    assert "| 2026-11-30, with version 0.0.9: not run with this version |" in page
    assert "\nVersion 0.0.9, 2026-11-30. " in page


def test_a_result_of_no_benchmark_is_refused(benchmark_page) -> None:
    with pytest.raises(KeyError, match="gone"):
        benchmark_page.page({"gone": RESULT})


def test_a_run_is_kept(benchmark_page, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark_page, "RESULTS", tmp_path / "results")
    with pytest.raises(SystemExit, match=r"no build/benchmarks/help\.json; run python benchmarks/"):
        benchmark_page.keep("help")
    built = tmp_path / "build" / "benchmarks" / "help.json"
    built.parent.mkdir(parents=True)
    built.write_text(json.dumps(RESULT))
    benchmark_page.keep("help")
    assert benchmark_page.results(tmp_path / "results") == {"help": RESULT}
