"""List the devices for figures: this machine, phones, boards, emulated cores."""

from __future__ import annotations

from pathlib import Path

import click

from mobiledeploy.cli import _frame, _settings


@click.group(
    invoke_without_command=True, epilog="Example:  mobiledeploy devices", short_help=__doc__
)
@_settings.option(
    "--all",
    is_flag=True,
    help="Also the runtimes of device cards, and cards with too few points to estimate.",
)
@_frame.common
@click.pass_context
def command(
    ctx: click.Context,
    all: bool,  # noqa: A002 - the option's name
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """List the values for `bench --device`, and the kind of figure of each.

    Kinds are never compared with each other: measured (by a clock on real hardware), counted
    (instructions of an emulated core), estimated (by a model of latency).
    """
    from mobiledeploy.verbs import devices as verb

    if ctx.invoked_subcommand:
        return
    with _frame.Terminal(quiet, verbose):
        result = verb.devices()
    if json:
        _frame.emit_json(result)
        return
    if all:
        _frame.show_tables(result.all_tables())
        return
    _frame.show(result)
    few = sum(bool(device.fix) for device in result.ours)
    _frame.sentence(f"--all shows the runtimes of the cards, and {few} with too few points")


@command.command(
    epilog="Example:  mobiledeploy devices calibrate my-phone --csv measured.csv --threads 4"
)
@click.argument("name")
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Latencies from elsewhere: columns file and latency_ms, with the models beside the table.",
)
@click.option(
    "--device", default="host", show_default=True, help="The device of the timings of ARTIFACTS."
)
@click.option("--runtime", default="tflite", show_default=True, help="The runtime of --csv.")
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="The threads of --csv.",
)
@click.option("--title", default="", help="Description of the device, for people.")
@click.option(
    "--add",
    is_flag=True,
    help="Add the points to the card NAME; one of the package is copied to your folder.",
)
@click.option("--force", is_flag=True, help="Replace your card of that name.")
@_frame.common
def calibrate(
    name: str,
    artifacts: tuple[Path, ...],
    csv: Path | None,
    device: str,
    runtime: str,
    threads: int,
    title: str,
    add: bool,
    force: bool,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Make the device card NAME from models that were measured on the device, or add points to it.

    ARTIFACTS were timed by `mobiledeploy bench` in this folder, or --csv holds their latencies.
    `bench --device NAME` then estimates the latencies of other models on this device.
    """
    from mobiledeploy.verbs import calibrate as calibrate_verb

    with _frame.Terminal(quiet, verbose) as terminal:
        result = calibrate_verb.calibrate(
            name,
            artifacts,
            csv=csv,
            device=device,
            runtime=runtime,
            threads=threads,
            title=title,
            add=add,
            force=force,
            reporter=terminal,
        )
        terminal.say(f"wrote {result.path}; mobiledeploy bench --device {name} estimates from it")
    if json:
        _frame.emit_json(result)
        return
    _frame.show(result)
