"""CPU time of `mobiledeploy --help`, and of each command's, against a bare click program's.

    python benchmarks/help.py

Writes build/benchmarks/help.json.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import click
from _side_by_side import compare, report

from mobiledeploy.cli import main as door

PYTHON = (sys.executable, "-P")
# Of one sample: the system's clock counts hundredths of a second, and a process takes a few.
RUNS = 5
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
    """User and system time of a run in a folder without settings: the mean of `RUNS`."""
    # As users have it: what was compiled once is kept.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment)
    after = os.times()
    spent = after.children_user - before.children_user
    return (spent + after.children_system - before.children_system) / RUNS


# What the script that pip installs runs.
OURS = "from mobiledeploy.cli.main import main; main()"


def main() -> None:
    group = door.cli
    commands = group.list_commands(click.Context(group))
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        results = [
            compare(
                " ".join((*command, "--help")),
                ("mobiledeploy", partial(cpu_seconds, [*PYTHON, "-c", OURS, *command, "--help"])),
                ("bare click", partial(cpu_seconds, [*PYTHON, str(bare), "one", "--help"])),
                bar=1.3,
            )
            for command in [(), *((name,) for name in commands)]
        ]
    report(results, Path("build/benchmarks/help.json"))


if __name__ == "__main__":
    main()
