"""Bad inputs to every command, and kills at random moments: what breaks, hangs, or is left behind.

    python benchmarks/robustness.py --inputs 1000 --kills 100

Inputs come from a grammar (_bad_inputs.py) and are run as an ordinary user. After a kill the same
command must succeed, with the same result, and leave nothing else. Ends in 1 where anything was
wrong. Writes build/benchmarks/robustness.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import _bad_inputs
import _kills
import _results
import _sound_files
import _watched
from rich.console import Console
from rich.table import Table

from mobiledeploy.core import leases
from mobiledeploy.core.plugins import FORMATS, SOURCES

# What commands import when they run: once here, and not a thousand times.
LOADED = (
    "numpy",
    "PIL.Image",
    "onnx",
    "h5py",
    "sqlite3",
    "scipy.stats",
    "tomli_w",
    *(f"mobiledeploy.cli.{name.split()[0]}" for name in _bad_inputs.SOUND),
    *(f"mobiledeploy.formats.{name}" for name in FORMATS.names()),
    *(f"mobiledeploy.sources.{name}" for name in SOURCES.names()),
)
NOBODY = "65534"


@dataclass(frozen=True)
class Fault:
    """An input or a kill with what was wrong, and how to have it again: its number."""

    kind: str
    number: int
    argv: str
    what: dict[str, str]


@dataclass(frozen=True)
class Told:
    """One of them, done."""

    kind: str
    number: int
    argv: str
    code: int
    seconds: float
    peak_bytes: int
    what: dict[str, str]
    said: str


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, help="begin nothing new after so many")
    parser.add_argument("--only", type=int, help="one input by its number, and what it said")
    parser.add_argument("--json", type=Path, help="by default build/benchmarks/robustness.json")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    asked = _options()
    if asked.within:
        _work(asked, asked.within)
        return
    # As an ordinary user, who owns this folder and nothing else.
    with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
        place = Path(folder)
        argv = [sys.executable, __file__, *sys.argv[1:], "--within", folder]
        if os.geteuid() == 0:
            os.chown(folder, int(NOBODY), int(NOBODY))
            argv = [*_drop(), *argv]
        subprocess.run(argv, check=True)
        result = json.loads((place / "result.json").read_text())
    if asked.only is not None:
        sys.exit(bool(result["faults"]))
    _results.write("robustness", result, _show(result), asked.json)
    sys.exit(1 if result["faults"] else 0)


def _drop() -> list[str]:
    """The command that gives up root. Where others may not run this interpreter, reading stays."""
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    can = subprocess.run(
        [*drop, "sh", "-c", 'exec "$0" -c "import mobiledeploy"', sys.executable],
        check=False,
        capture_output=True,
    )
    if can.returncode == 0:
        return drop
    reading = "+dac_read_search"
    return [*drop, f"--inh-caps={reading}", f"--ambient-caps={reading}"]


def _work(asked: argparse.Namespace, place: Path) -> None:
    began = time.monotonic()
    home = place / "maker"
    for name in ("home", "tmp"):
        (home / name).mkdir(parents=True)
    sound = place / "sound"
    sound.mkdir()
    _sound_files.make(sound, _watched.environment(home))
    shutil.rmtree(home)
    for name in LOADED:
        import_module(name)
    python = place / "python"
    _watched.prepare(python)
    if asked.only is not None:
        told = _input(asked.seed, asked.only, place)
        print(f"{told.argv}\n{told.said}\nended in {told.code} after {told.seconds:.1f} s")
        print("\n".join(f"{kind}: {text}" for kind, text in told.what.items()))
        _keep(place, asked, [told], [], began)
        return
    ready = time.monotonic()
    ends = ready + asked.seconds if asked.seconds else None
    middle = ready + 0.5 * asked.seconds if asked.seconds else None
    inputs = _all(_input, asked.seed, asked.inputs, place, middle)
    kills: list[Told] = []
    if asked.kills:
        with _pool() as pool:
            names = list(_kills.COMMANDS)
            unbroken = pool.map(_kills.unbroken, names, repeat(place))
            whole = dict(zip(names, unbroken, strict=True))
        kills = _all(_kill, asked.seed, asked.kills, place, ends, whole)
    _keep(place, asked, inputs, kills, began)


def _pool() -> ProcessPoolExecutor:
    """A process for each core, forked, so that it has what is imported here."""
    return ProcessPoolExecutor(leases.cores(), get_context("fork"), _watched.adopt)


def _all(
    one: Any, seed: int, count: int, place: Path, until: float | None, *more: Any
) -> list[Told]:
    """Numbers 0 to `count` of one kind, on all cores; none is begun after `until`."""
    done: list[Told] = []
    with _pool() as pool:
        waiting = {pool.submit(_timely, until, one, seed, n, place, *more) for n in range(count)}
        for number, future in enumerate(as_completed(waiting), 1):
            told = future.result()
            if told is None:
                continue
            done.append(told)
            if told.what:
                print(f"{told.number} {told.argv}: {told.what}"[:600], file=sys.stderr)
            if number % 100 == 0:
                print(f"{number} of {count}", file=sys.stderr)
    return done


def _timely(until: float | None, one: Any, *arguments: Any) -> Told | None:
    if until is not None and time.monotonic() > until:
        return None
    told: Told = one(*arguments)
    return told


def _input(seed: int, number: int, place: Path) -> Told:
    own = place / f"input-{number}"
    folder = _watched.place_for(place / "sound", own)
    case = _bad_inputs.make(seed, number, folder)
    try:
        seen = _watched.watch(case, own, place / "python")
    finally:
        _watched.remove(own)
    return Told(
        case.kind,
        number,
        ascii(" ".join(case.argv))[:300],
        seen.code,
        seen.seconds,
        seen.peak_bytes,
        seen.faults,
        seen.said,
    )


def _kill(seed: int, number: int, place: Path, whole: dict[str, _kills.Whole]) -> Told:
    name, what, seconds = _kills.kill(seed, number, place, whole)
    return Told(name, number, name, 0, seconds, 0, {"not recovered": what} if what else {}, what)


def _keep(
    place: Path, asked: argparse.Namespace, inputs: list[Told], kills: list[Told], began: float
) -> None:
    rows = []
    for kind in sorted({told.kind for told in inputs}):
        of = [told for told in inputs if told.kind == kind]
        counts = Counter(fault for told in of for fault in told.what)
        codes = Counter(str(told.code) for told in of)
        rows.append(
            {
                "kind": kind,
                "inputs": len(of),
                **{k: counts[k] for k in _watched.KINDS},
                "slowest_s": max(told.seconds for told in of),
                "peak_bytes": max(told.peak_bytes for told in of),
                "codes": dict(codes),
            }
        )
    killed = [
        {
            "command": name,
            "kills": sum(told.kind == name for told in kills),
            "recovered": sum(told.kind == name and not told.what for told in kills),
        }
        for name in sorted({told.kind for told in kills})
    ]
    faults = [Fault(t.kind, t.number, t.argv, t.what) for t in (*inputs, *kills) if t.what]
    result = {
        "seed": asked.seed,
        "seconds": time.monotonic() - began,
        "inputs": rows,
        "kills": killed,
        "faults": [asdict(fault) for fault in faults],
    }
    (place / "result.json").write_text(json.dumps(result))


def _show(result: dict[str, Any]) -> list[Table]:
    console = Console(width=140)
    table = Table("bad input", "inputs", *_watched.KINDS, "slowest", "peak", "ended in")
    rows = result["inputs"]
    total = {key: sum(row[key] for row in rows) for key in ("inputs", *_watched.KINDS)} | {
        "kind": "all",
        "slowest_s": max((row["slowest_s"] for row in rows), default=0),
        "peak_bytes": max((row["peak_bytes"] for row in rows), default=0),
        "codes": {},
    }
    for row in (*rows, total):
        codes = sorted(row["codes"].items(), key=lambda pair: int(pair[0]))
        table.add_row(
            row["kind"],
            str(row["inputs"]),
            *(str(row[kind]) for kind in _watched.KINDS),
            f"{row['slowest_s']:.1f} s",
            f"{row['peak_bytes'] / 1e6:.0f} MB",
            ", ".join(f"{code}: {count}" for code, count in codes),
        )
    console.print(table)
    kills = Table("killed", "kills", "recovered")
    for row in result["kills"]:
        kills.add_row(row["command"], str(row["kills"]), str(row["recovered"]))
    tables = [table]
    if result["kills"]:
        tables.append(kills)
        sums = (sum(row[key] for row in result["kills"]) for key in ("kills", "recovered"))
        kills.add_row("all", *map(str, sums))
        console.print(kills)
    console.print(f"seed {result['seed']}, {result['seconds']:.0f} s")
    return tables


if __name__ == "__main__":
    main()
