"""Write docs/benchmarks.md from the results of the benchmarks that are kept.

`python tools/benchmark_page.py [NAME...]` first keeps build/benchmarks/NAME.json of each NAME in
benchmarks/results, and then writes the page. It shows the tables that the benchmark printed, so no
benchmark runs here. A result of another version is named as such, and so is a benchmark without
one. tests/test_docs.py holds the page against the folder.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record_docs import table

import mobiledeploy

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"
RESULTS = BENCHMARKS / "results"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
BUILT = Path("build/benchmarks")


def benchmarks() -> dict[str, str]:
    """Name -> what it measures: the first line of its docstring."""
    texts = {}
    for path in sorted(BENCHMARKS.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        texts[path.stem] = (text or "").partition("\n")[0]
    return texts


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Name -> the result that is kept."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*"))}


def keep(name: str) -> None:
    """Keep the result of the latest run in this folder."""
    path = BUILT / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"there is no {path}; run python benchmarks/{name}.py")
    RESULTS.mkdir(exist_ok=True)
    shutil.copy(path, RESULTS)


def run(result: dict[str, Any] | None) -> str:
    """When a benchmark was run: a cell of the first table."""
    if result is None:
        return "not run with this version"
    if result["version"] == mobiledeploy.__version__:
        return str(result["date"])
    return f"{result['date']}, with version {result['version']}: not run with this version"


def machine(result: dict[str, Any]) -> str:
    """The version, the commit, the date and the machine of a result."""
    place = result["machine"]
    commit = f" (commit {result['commit']})" if result["commit"] else ""
    libraries = ", ".join(f"{name} {version}" for name, version in place["libraries"].items())
    return (
        f"Version {result['version']}{commit}, {result['date']}. {place['processor']}, "
        f"{place['cores']} cores, {place['system']}, Python {place['python']}; {libraries}."
    )


def section(name: str, text: str, result: dict[str, Any]) -> Iterator[str]:
    """The parts of a benchmark's section."""
    yield f"## {name}"
    yield text
    yield f"```console\n$ {result['command']}\n```"
    yield wrapped(machine(result))
    if note := result.get("note"):
        yield wrapped(note)
    for one in result["tables"]:
        if one["title"]:
            yield wrapped(f"{one['title'][0].upper()}{one['title'][1:]}:")
        yield table(map(cell, one["columns"]), (map(cell, row) for row in one["rows"]))


def cell(text: str) -> str:
    """A cell of a Markdown table."""
    return " ".join(text.split()).replace("|", r"\|")


def wrapped(text: str) -> str:
    """A paragraph in lines of the pages' width."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def parts(kept: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The parts of the page."""
    yield "# Benchmarks"
    yield "<!-- python tools/benchmark_page.py writes this page. -->"
    yield wrapped(
        f"Results of version {mobiledeploy.__version__}. Each was printed by the command above it, "
        "and lies in `benchmarks/results` as JSON, with all figures that its tables are made of. "
        "The machine is that of the section: times say nothing about another one, ratios of runs "
        "in turns say more, and instructions of emulated cores, errors and losses are the same "
        "elsewhere if the libraries are. A bar is what we want; a missed one is shown too."
    )
    texts = benchmarks()
    yield table(
        ("benchmark", "what it measures", "run"),
        (
            (f"[{name}](#{name})" if name in kept else name, cell(text), run(kept.get(name)))
            for name, text in texts.items()
        ),
    )
    for name, result in kept.items():
        yield from section(name, texts[name], result)


def page(kept: dict[str, dict[str, Any]]) -> str:
    """The page of these results; KeyError for one of no benchmark."""
    return "\n\n".join(parts(kept)) + "\n"


if __name__ == "__main__":
    for chosen in sys.argv[1:]:
        keep(chosen)
    PAGE.write_text(page(results()), "utf-8")
