"""What can be measured on now: this machine, phones, emulated cores."""

from __future__ import annotations

import click

from mobiledeploy.cli import _frame
from mobiledeploy.verbs import devices as verb


@click.command(epilog="Example:  mobiledeploy devices", short_help=__doc__)
@_frame.common
def command(json: bool, quiet: bool, verbose: int) -> None:
    """List what `bench --device` takes here, and which kind of figure it gives.

    Kinds are never compared with each other: measured by a clock on real hardware, counted
    (instructions of an emulated core), estimated by a model of latency.
    """
    with _frame.Terminal(quiet, verbose):
        found = verb.devices()
    if json:
        _frame.emit_json(found)
        return
    _frame.table(
        ("device", "kind", "what it is", "state"),
        [(one.name, one.kind, one.about, one.mend or "ready") for one in found.seen],
    )
