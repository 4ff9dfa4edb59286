from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import pytest

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import NamedWarning, Target
from mobiledeploy.steps.bench_figures import BenchResult
from mobiledeploy.steps.bench_tables import delegation
from mobiledeploy.steps.diff_figures import DifferentFact, FigureDifference, diff, is_figure
from mobiledeploy.verbs import results
from tests.figures import HOST, artifact, by_layer, command, counted, estimated, keep, measured

cli = partial(command, "diff")


def benched(path: Path, *figures: object) -> str:
    path.write_text(records.dumps(BenchResult(("a.tflite",) * len(figures), figures)))
    return path.name


def test_what_names_a_figure() -> None:
    assert all(map(is_figure, ("7", "bench.json", "all.jsonl")))
    assert not any(map(is_figure, ("a.tflite", "-7", "7.0", "7" * 19, "")))


def test_counts_are_told_by_layer_the_greatest_change_first(here: Path) -> None:
    before = by_layer(conv_1=300, dw_1=100, conv_2=500, pool_1=60)
    # As int8 has it: a layer more, other names, another kernel.
    after = by_layer(quantize_0=20, conv_a=90, dw_a=105, conv_b=450, pool_a=60)
    after = (*after[:1], dataclasses.replace(after[1], kernel="sdot"), *after[2:])
    keep(
        artifact(),
        artifact("b" * 64, recipe="int8_ptq"),
        counted(instructions=1000, by_layer=before),
        counted("b" * 64, instructions=800, by_layer=after, versions={"qemu": "9"}),
    )
    result = diff("1", "2")
    assert (result.kind, result.values, result.ratio, result.interval) == (
        "counted",
        (1000, 800),
        0.8,
        (0.8, 0.8),
    )
    assert result.models == ("net m.h5 float32.tflite", "net m.h5 int8_ptq.tflite")
    assert [(x.a and x.a.name, x.b and x.b.name, x.change) for x in result.layers] == [
        ("conv_1", "conv_a", -210),
        ("conv_2", "conv_b", -50),
        (None, "quantize_0", 20),
        ("dw_1", "dw_a", 5),
        ("pool_1", "pool_a", 0),
    ]
    assert result.between == (40, 75)
    assert result.facts == (
        DifferentFact("artifact", "a" * 12, "b" * 12),
        DifferentFact("qemu", "8", "9"),
    )
    message = cli("1", "2", "--most", "2")
    assert "1,000 instructions → 800 instructions, -20.0 %\n" in message
    assert "f32 → sdot" in message
    assert "3 more layers" in message


def test_a_count_without_layers_has_a_ratio_alone(here: Path) -> None:
    keep(counted(by_layer=by_layer(conv_1=1)), counted(instructions=110_000))
    result = diff("1", "2")
    assert (result.layers, result.between) == ((), None)
    assert result.ratio == pytest.approx(1.1)
    assert result.models == ("a" * 12,) * 2
    assert "does not report layers" in cli("1", "2")


def test_times_have_the_interval_of_regress_and_what_they_were_taken_with(here: Path) -> None:
    warning = NamedWarning("busy-machine", "other programs computed meanwhile")
    facts = {
        "cpu": "c",
        "governor": "powersave",
        "load": "0.1",
        "busy_cpu_s": "7",
        "temperatures_millicelsius": "31000",
        "fixed_performance": "on: with it 0.98 times",
    }
    new = measured(
        ns=1200,
        target=dataclasses.replace(HOST, threads=2),
        warnings=(warning,),
        delegated_nodes=0,
        facts_before=facts
        | {
            "governor": "performance",
            "load": "3.0",
            "busy_cpu_s": "9",
            "temperatures_millicelsius": "35000",
            "fixed_performance": "on: with it 0.97 times",
        },
    )
    keep(artifact(), measured(facts_before=facts), new)
    results.results_export(here / "one.jsonl")
    result = diff("1", "2")
    low, high = result.interval
    assert 1.15 < low < result.ratio == 1.2 < high < 1.25
    assert result.facts == (
        DifferentFact("threads", "1", "2"),
        DifferentFact("delegated", "1/1 xnnpack", "0/1 xnnpack"),
        DifferentFact("governor", "powersave", "performance"),
    )
    assert result.warnings == (warning,)
    assert result.layers == ()
    assert records.loads(FigureDifference, cli("1", "2", "--json")) == result
    assert "+20.0 % (+" in cli("1", "2")


def test_estimates_tell_what_they_were_fitted_to(here: Path) -> None:
    new = estimated(ns=6e6)
    keep(estimated(), dataclasses.replace(new, fit=dataclasses.replace(new.fit, points=12)))
    result = diff("1", "2")
    assert result.interval == (1.2, 1.2)
    assert result.facts == (
        DifferentFact("fit", "s, 9 points, litert 2024", "s, 12 points, litert 2024"),
    )


def test_estimates_stand_beside_timings(here: Path) -> None:
    phone = Target("adb:X", "native", "litert", 1, "xnnpack")
    card = Target("pixel-6", "none", "tflite", 1, "xnnpack")
    facts = {"model": "Pixel 6"}
    keep(
        *(artifact(n * 64, n) for n in "ab"),
        estimated("a" * 64, 2.2e6, target=card),
        estimated("b" * 64, 1.1e6, target=card),
        measured("a" * 64, 2_000_000, target=phone, facts_before=facts),
        measured("b" * 64, 1_000_000, target=phone, facts_before=facts),
        measured("b" * 64, 1_000_000),
    )
    found = diff("3", "4")
    errors = [f and round(f.error, 9) for f in found.forecasts]
    assert errors == [0.1, 0.1]
    (line,) = [line for line in cli("3", "4").splitlines() if line.startswith("estimated")]
    assert line == (
        "estimated, pixel-6, litert 2024 with xnnpack, int8, 1 thread: "
        "2.2 ms (+10.0 %) → 1.1 ms (+10.0 %), -50.0 % (their errors)"
    )
    # Of this machine there is none.
    assert diff("4", "5").forecasts[1] is None
    assert "– " in cli("4", "5")


def test_a_figure_is_taken_from_a_file_too(here: Path) -> None:
    made = benched(here / "b.json", measured(ns=2000))
    assert not (here / ".mobiledeploy").exists()
    assert diff(made, made).ratio == 1
    keep(artifact(), measured())
    results.results_export(here / "all.jsonl")
    assert diff("all.jsonl", made).values == (1000, 2000)
    assert diff("1", made).ratio == 2


def test_refusals(here: Path) -> None:
    made = benched(here / "b.json", measured())
    with pytest.raises(UsageError, match="nothing is kept"):
        diff("1", made)
    keep(measured(), counted())
    results.results_export(here / "all.jsonl")
    keep(measured(ns=0, spread=0))
    (here / "a.tflite.json").write_text(records.dumps(artifact()))
    (here / "odd.json").write_text("[" * 100_000)
    for a, kind, message in (
        ("2", UsageError, "2 is counted and 1 is measured"),
        ("99", UsageError, "store.db has no figure 99"),
        ("999999999999999999", UsageError, "has no figure"),
        ("3", InputError, "no ratio: the old figure is zero"),
        ("all.jsonl", UsageError, "all.jsonl holds 2 figures"),
        (benched(here / "none.json"), InputError, "none.json holds no figure"),
        (benched(here / "two.json", measured(), measured()), UsageError, "two.json holds 2"),
        ("gone.json", InputError, "gone.json cannot be read"),
        ("odd.json", InputError, "odd.json is not JSON"),
        ("a.tflite.json", InputError, "is the record of an artifact; name a.tflite itself"),
    ):
        with pytest.raises(kind, match=message):
            diff(a, "1")
    assert "1 is measured and 2 is counted" in cli("1", "2", code=2)
    assert "one is a figure, the other an artifact" in cli("a.tflite", "1", code=2)
    assert "figures have no activations" in cli("1", "1", "--activations", code=2)


def test_a_count_that_the_runner_did_not_learn_is_no_count() -> None:
    assert delegation(measured(delegated_nodes=20, total_nodes=31)) == "20/31 xnnpack"
    assert delegation(measured(delegated_nodes=None, total_nodes=31)) == "?/31 xnnpack"
    assert delegation(measured(delegated_nodes=None, total_nodes=None)) == ""
