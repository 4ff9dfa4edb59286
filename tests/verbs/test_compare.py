from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mobiledeploy.cli import results as results_command
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.steps import store_records
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import results
from mobiledeploy.verbs.compare import MOST_ROUNDS, compare

ROUNDS = 6


@pytest.fixture
def sides(exported) -> tuple[Path, Path]:
    return exported["int8_ptq", "tflite"], exported["float32", "tflite"]


@pytest.mark.parametrize("rounds", [-1, 5, MOST_ROUNDS + 1, 10**30])
def test_a_number_of_rounds_that_cannot_be_is_refused_before_any_work(rounds) -> None:
    """Before the artifacts are opened, which are not there."""
    with pytest.raises(UsageError, match=f"^{rounds} rounds "):
        compare(Path("a.tflite"), Path("b.tflite"), rounds=rounds)


def test_less_than_one_thread_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="^0 threads cannot work"):
        compare(Path("a.tflite"), Path("b.tflite"), threads=0)


def test_a_comparison_is_kept_with_its_blocks(sides, here, heard) -> None:
    made = compare(*sides, rounds=ROUNDS, seconds=0.02, reporter=heard)
    # From its start, so that the time left is known after one block.
    assert heard.steps == [("comparing", done, 4 * ROUNDS) for done in range(4 * ROUNDS + 1)]
    (kept,) = results.results_compared().comparisons
    assert (kept.a, kept.b, kept.device, kept.rounds) == (*map(str, sides), "host", ROUNDS)
    assert (kept.ratio, kept.interval, kept.changed) == (made.ratio, made.interval, made.changed)
    # It is of two artifacts, and no figure of either.
    assert results.results().results == ()
    with Store.open() as store:
        assert {Path(a.path).name for a in store.artifacts().values()} == {s.name for s in sides}
    # Elsewhere it is the same, blocks and raw samples included, and once.
    results.results_export(here / "all.jsonl")
    lines = (here / "all.jsonl").read_text().splitlines()
    (line,) = [line for line in lines if '"record":"LatencyComparison"' in line]
    assert len(json.loads(line)["kept"]["blocks"]) == 4 * ROUNDS
    with Store.open(here / "other.db") as other:
        for new in (3, 0):
            assert other.load(store_records.read(here / "all.jsonl")) == new
        assert other.comparisons() == (kept,)
        (read,) = [
            one.record for one in store_records.read(here / "all.jsonl") if one.record == made
        ]
        other.add_comparison(read)
        assert [one.ratio for one in other.comparisons()] == [made.ratio] * 2
    (here / "cut.jsonl").write_text(line.replace('"rounds":6', '"rounds":7'))
    with pytest.raises(InputError, match="line 1: rounds is not valid"):
        results.results_import(here / "cut.jsonl")
    output = CliRunner().invoke(results_command.command, ["compared"])
    assert output.exit_code == 0, output.output
    assert f"{made.ratio:.3f}" in output.stdout
    assert "B over A" in output.stdout
