"""What a drift of the machine does to a comparison: A then B, against A B B A.

Blocks of two artifacts on a simulated machine that slows down by 10 % over the comparison; blocks
spread by 1 %. How often each way says that B changed, where it is as fast and where it is 5 %
slower. No device is timed. Writes build/benchmarks/drift.json.
"""

from __future__ import annotations

import _results
import numpy as np
from rich.console import Console
from rich.table import Table

from mobiledeploy.analysis.comparison import ORDER, interleaved, one_after_the_other

TRIALS, ROUNDS, NOISE, DRIFT = 1000, 8, 0.01, 0.1


def main() -> None:
    dice = np.random.Generator(np.random.PCG64(20180113))
    blocks = 4 * ROUNDS
    turns = np.array([side == "B" for side in ORDER * ROUNDS])
    halves = np.arange(blocks) >= blocks // 2
    rows = []
    for drift in (0.0, DRIFT):
        for slower in (0.0, 0.05):
            said = {"A then B": 0, ORDER: 0}
            for _ in range(TRIALS):
                machine = np.linspace(1, 1 + drift, blocks) * dice.lognormal(0, NOISE, blocks)
                times = machine * np.where(halves, 1 + slower, 1)
                usual = one_after_the_other(times[~halves], times[halves])
                said["A then B"] += usual.changed
                said[ORDER] += interleaved(machine * np.where(turns, 1 + slower, 1)).changed
            rows.append({"drift": drift, "slower": slower, **said})
    table = Table("machine slows by", "B is slower by", "A then B: change", "A B B A: change")
    for row in rows:
        shares = (f"{100 * row[key] / TRIALS:.1f} %" for key in ("A then B", ORDER))
        table.add_row(f"{100 * row['drift']:.0f} %", f"{100 * row['slower']:.0f} %", *shares)
    Console().print(table)
    _results.write("drift", {"trials": TRIALS, "rounds": ROUNDS, "rows": rows}, [table])


if __name__ == "__main__":
    main()
