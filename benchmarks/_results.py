"""What a benchmark leaves: one form for all, with the tables that it printed.

A benchmark writes build/benchmarks/NAME.json: its command, the version, the commit, the date (UTC),
the machine, its tables as they stand on the terminal, and in `result` the figures that they are
made of. `python tools/benchmark_page.py NAME` keeps that file in benchmarks/results, and writes
docs/benchmarks.md from all that are kept.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

import mobiledeploy

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path("build/benchmarks")
# What makes, quantizes and runs files here, ours and the peers'.
LIBRARIES = (
    "ai-edge-litert",
    "ai-edge-quantizer",
    "click",
    "numpy",
    "onnx",
    "onnxruntime",
    "scipy",
    "tensorflow",
    "tf2onnx",
    "tf_keras",
)


def write(name: str, result: Any, tables: Sequence[Table], path: Path | None = None) -> None:
    """Write the result of the benchmark `name` to `path`, by default build/benchmarks/NAME.json.

    `result` is what JSON can hold.
    """
    content = {
        "benchmark": name,
        "command": command(),
        "version": mobiledeploy.__version__,
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "tables": [cells(table) for table in tables],
        "result": result,
    }
    path = path or FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def command() -> str:
    """The command line of this process; of a file or folder elsewhere, its name alone."""
    arguments = [re.sub(r"^(--[\w-]+=)?/.*/", r"\1", word) for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])


def commit() -> str | None:
    """The commit of the checkout, "-dirty" behind it if files were changed; None without git."""
    if shutil.which("git") is None:
        return None
    argv = ["git", "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty"]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def machine() -> dict[str, Any]:
    """The processor, its cores, the system, Python and the libraries that are installed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    installed = {one.name: one.version for one in importlib.metadata.distributions()}
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        # Without the suffix of a vendor's kernel.
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "libraries": {name: installed[name] for name in LIBRARIES if name in installed},
    }


def cells(table: Table) -> dict[str, Any]:
    """A table's title, columns and rows, as text."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return {
        "title": str(table.title or ""),
        "columns": [str(column.header) for column in table.columns],
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }
