"""Compare two artifacts layer by layer, or two figures; the largest change first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units
from mobiledeploy.core.errors import UsageError
from mobiledeploy.steps import defaults

if TYPE_CHECKING:
    from mobiledeploy.core.types import Forecast
    from mobiledeploy.steps import diff_figures
    from mobiledeploy.verbs import diff as verb


@click.command(
    epilog="Example:  mobiledeploy diff build/*/float32.tflite build/*/int8_best.tflite",
    short_help=__doc__,
)
@click.argument("a")
@click.argument("b")
@_settings.option(
    "--activations",
    is_flag=True,
    help="For int8 artifacts: also the own error of each layer on the golden images.",
)
@_settings.option(
    "--most",
    type=click.IntRange(min=1),
    default=defaults.DIFF_LAYERS,
    show_default=True,
    help="Number of layers to show.",
)
@_settings.output(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for a page that draws the graphs of two artifacts beside each other.",
)
@_frame.common
def command(
    a: str,
    b: str,
    activations: bool,
    most: int,
    html: Path | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Compare the artifacts A and B, or the figures A and B.

    For artifacts: types, shapes, errors, size and instructions of their layers, and figures in the
    store of both of one kind on one target.

    A figure is an id from `mobiledeploy results`, or a .json of `bench --json`. For figures: the
    ratio with its interval, instructions by layer, and different facts.
    """
    from mobiledeploy.steps import diff_figures
    from mobiledeploy.verbs import diff as verb

    figures = [diff_figures.is_figure(name) for name in (a, b)]
    if not any(figures):
        with _frame.Terminal(quiet, verbose) as terminal:
            difference = verb.diff(a, b, activations=activations, html=html, reporter=terminal)
        _frame.emit_json(difference) if json else _show(difference, activations, most)
        return
    if not all(figures):
        raise UsageError(
            f"{a} and {b} are not of one kind: one is a figure, the other an artifact",
            "name two figures or two artifacts",
        )
    if activations:
        raise UsageError("figures have no activations", "name two artifacts")
    if html is not None:
        raise UsageError("figures have no graphs for --html", "name two artifacts")
    difference_ = verb.diff_figures(a, b)
    terminal = _frame.Terminal(quiet, verbose)
    for warning in difference_.warnings:
        terminal.warn(warning)
    _frame.emit_json(difference_) if json else _show_figures(difference_, most)


def _show(difference: verb.Difference, activations: bool, most: int) -> None:
    table = difference.table(most)
    _frame.table(table.headers, table.rows, table.title, table.optional, table.names)
    _rest(len(difference.layers), most)
    if not activations and any("weights" in odd for pair in difference.layers for odd in pair.odd):
        _frame.sentence(
            "Equalization scales weights without changing the answer: --activations compares "
            "the outputs of layers."
        )
    for f in difference.figures:
        _frame.sentence(
            f"{f.kind} on {f.device}, {f.runtime}: "
            + _ratio(f.kind, (f.a, f.b), f.ratio, f.interval)
            + (f"; delegated {' → '.join(f.delegated)}" if any(f.delegated) else "")
        )
        _show_forecasts(f.forecasts)


def _show_figures(difference: diff_figures.FigureDifference, most: int) -> None:
    models = " → ".join(dict.fromkeys(units.one_line(model) for model in difference.models))
    text = _ratio(difference.kind, difference.values, difference.ratio, difference.interval)
    _frame.sentence(f"{difference.kind}, {models}: {text}")
    _show_forecasts(difference.forecasts)
    if difference.facts:
        _frame.table(
            ("differs", "A", "B"),
            [tuple(units.one_line(x) or "–" for x in (f.name, f.a, f.b)) for f in difference.facts],
        )
    if difference.between is None:
        if difference.kind == "counted":
            _frame.sentence("no layers: a runtime of these figures does not report layers")
        return
    _frame.table(
        ("layer", "operator", "kernel", "A", "B", "change"),
        [
            *(_layer_row(layers) for layers in difference.layers[:most]),
            ("between layers", "–", "–", *_counts(*difference.between)),
        ],
        names=("layer",),
    )
    _rest(len(difference.layers), most)


def _show_forecasts(forecasts: tuple[Forecast | None, Forecast | None]) -> None:
    """What cards estimated for two timings, and the errors; the change that they expected."""
    a, b = forecasts
    if a is None and b is None:
        return
    words = [
        "–" if f is None else f"{units.duration(f.latency_ns)} ({units.signed_percent(f.error)})"
        for f in forecasts
    ]
    change = ""
    if a is not None and b is not None:
        change = f", {units.signed_percent(b.latency_ns / a.latency_ns - 1)}"
    series = dict.fromkeys(f"{f.card}, {f.series}" for f in forecasts if f is not None)
    _frame.sentence(f"estimated, {'; '.join(series)}: {' → '.join(words)}{change} (their errors)")


def _rest(many: int, most: int) -> None:
    if many > most:
        click.echo(f"{many - most} more layers; --most shows them")


def _ratio(
    kind: str, values: tuple[float, float], ratio: float, interval: tuple[float, float]
) -> str:
    low, high = (100 * (end - 1) for end in interval)
    exact = "" if low == high else f" ({low:+.1f} to {high:+.1f} %)"
    words = (f"{x:,.0f} instructions" if kind == "counted" else units.duration(x) for x in values)
    return f"{' → '.join(words)}, {100 * (ratio - 1):+.1f} %{exact}"


def _layer_row(layers: diff_figures.LayerCountPair) -> tuple[str, ...]:
    from mobiledeploy.core.types import LayerCount
    from mobiledeploy.verbs import diff as verb

    sides: list[LayerCount] = [side for side in (layers.a, layers.b) if side]
    return (
        units.one_line(sides[0].name.partition(";")[0]),
        verb.change([units.one_line(side.op) for side in sides]),
        verb.change([units.one_line(side.kernel) or "–" for side in sides]),
        *_counts(*(side.instructions if side else None for side in (layers.a, layers.b))),
    )


def _counts(a: int | None, b: int | None) -> tuple[str, str, str]:
    before, after = ("–" if x is None else f"{x:,}" for x in (a, b))
    return before, after, f"{(b or 0) - (a or 0):+,}"
