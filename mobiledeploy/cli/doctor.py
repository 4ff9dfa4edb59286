"""Show what is installed, what is missing, and the line that fixes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mobiledeploy.cli import _frame
from mobiledeploy.core.errors import MissingError
from mobiledeploy.core.units import size

if TYPE_CHECKING:
    from mobiledeploy.core import apart
    from mobiledeploy.core.native import Equipment
    from mobiledeploy.verbs import doctor


@click.command(
    epilog="Example:  mobiledeploy doctor --emulator && mobiledeploy bench --device emulator",
    short_help=__doc__,
)
@click.option(
    "--emulator",
    is_flag=True,
    help="Fetch the emulated ARM cores and build their runner, in the user's cache.",
)
@click.option(
    "--torch",
    is_flag=True,
    help="Fetch the packages that open a .pt2 of torch.export, 5.3 GB, into the user's cache.",
)
@click.option("--clean", is_flag=True, help="Remove our caches; print what and how much.")
@_frame.common
def command(
    clean: bool, emulator: bool, torch: bool, json: bool, quiet: bool, verbose: int
) -> None:
    """Show what is installed, what is missing, and the line that fixes it.

    The exit code is 6 if a part that every command needs is missing or unfit; other parts are only
    listed.
    """
    from mobiledeploy.verbs import doctor

    with _frame.Terminal(quiet, verbose) as reporter:
        if clean:
            _show_removed(doctor.doctor_clean(), json)
            return
        if emulator:
            _show_equipment(doctor.doctor_emulator(reporter=reporter), json)
            return
        if torch:
            _show_environment(doctor.doctor_torch(reporter=reporter), json)
            return
        diagnosis = doctor.doctor()
        for warning in diagnosis.warnings:
            reporter.warn(warning)
        if json:
            _frame.emit_json(diagnosis)
        else:
            _show(diagnosis)
    if diagnosis.broken:
        first = diagnosis.broken[0]
        raise MissingError(f"{first.name} is {first.state}", first.fix)


def _show(diagnosis: doctor.Installation) -> None:
    memory = diagnosis.free_memory_bytes
    _frame.show(diagnosis)
    click.echo()
    if any(p.name == "tensorflow" and p.version is None for p in diagnosis.parts):
        click.echo(
            "A float .tflite or a .pt2 is exported without TensorFlow; all other models need it."
        )
    free = f"{size(diagnosis.free_disk_bytes)} on this disk"
    click.echo(f"free: {free}{'' if memory is None else f', {size(memory)} of memory'}")


def _show_removed(result: doctor.CleanResult, json: bool) -> None:
    if json:
        _frame.emit_json(result)
        return
    for place in result.removed:
        click.echo(f"removed {place.path} ({size(place.size_bytes or 0)})")
    total = sum(place.size_bytes or 0 for place in result.removed)
    click.echo(f"{size(total)} freed" if result.removed else "nothing to remove")


def _show_equipment(equipment: Equipment, json: bool) -> None:
    if json:
        _frame.emit_json(equipment)
        return
    _frame.table(("part", "version"), list(equipment.versions.items()))
    click.echo(f"the emulator is {equipment.qemu}; next: mobiledeploy bench --device emulator")


def _show_environment(environment: apart.Environment, json: bool) -> None:
    if json:
        _frame.emit_json(environment)
        return
    names = ("litert-torch", "torch", "ai-edge-litert")
    _frame.table(("part", "version"), [(name, environment.versions[name]) for name in names])
    click.echo(f"it is in {environment.path}; next: mobiledeploy export FILE.pt2 --data DIR")
