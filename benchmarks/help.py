"""CPU time of `mobiledeploy --help` against a bare click program's.

    python benchmarks/help.py

Writes build/benchmarks/help.json.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _side_by_side import compare, report

BARE = """\
import click
@click.group()
def cli():
    "A group."
@cli.command()
def one():
    "A command."
cli()
"""


def cpu_seconds(argv: list[str]) -> float:
    """User and system time of ten runs, divided by ten."""
    before = os.times()
    for _ in range(10):
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    spent = after.children_user - before.children_user
    return (spent + after.children_system - before.children_system) / 10


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        result = compare(
            "--help, CPU time",
            ("mobiledeploy", lambda: cpu_seconds([sys.executable, "-m", "mobiledeploy", "--help"])),
            ("bare click", lambda: cpu_seconds([sys.executable, str(bare), "--help"])),
            bar=1.5,
        )
    report([result], Path("build/benchmarks/help.json"))


if __name__ == "__main__":
    main()
