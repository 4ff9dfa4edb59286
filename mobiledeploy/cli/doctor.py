"""Show what is installed, what is missing, and the line that fixes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core.errors import InputError, MissingError, UsageError, of_code
from mobiledeploy.core.units import size

if TYPE_CHECKING:
    from mobiledeploy.core import apart
    from mobiledeploy.core.native import Equipment
    from mobiledeploy.steps.android_libraries import AndroidLibraries
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
@click.option(
    "--phone",
    is_flag=True,
    help="Take the steps of the first contact with a phone, and say what each still needs.",
)
@_settings.output(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of --phone, which can be sent as an issue.  [default: first-contact.json]",
)
@click.option(
    "--android",
    type=click.Path(path_type=Path),
    metavar="APP",
    help="Check whether phones with pages of 16 KB load the native libraries of APP: an .apk, .aab "
    "or .aar, a folder, or one library.",
)
@click.option("--clean", is_flag=True, help="Remove our caches; print what and how much.")
@_frame.common
def command(
    clean: bool,
    emulator: bool,
    torch: bool,
    phone: bool,
    record: Path | None,
    android: Path | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Show what is installed, what is missing, and the line that fixes it.

    The exit code is 6 if a part that every command needs is missing or unfit; other parts are only
    listed.
    """
    from mobiledeploy.verbs import doctor

    works = {"--clean": clean, "--emulator": emulator, "--torch": torch, "--phone": phone}
    works["--android"] = android is not None
    if len(several := [name for name, asked in works.items() if asked]) > 1:
        raise UsageError(f"{several[0]} does not go with {several[1]}", "run one after the other")
    if record is not None and not phone:
        raise UsageError("--record is for --phone", "leave it out")
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
        if phone:
            _show_contact(record, reporter, json)
            return
        if android is not None:
            _show_libraries(doctor.doctor_android(android), json)
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
        _frame.sentence(
            "A float .tflite or a .pt2 is exported without TensorFlow; all other models need it."
        )
    free = f"{size(diagnosis.free_disk_bytes)} on this disk"
    _frame.sentence(f"free: {free}{'' if memory is None else f', {size(memory)} of memory'}")


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
    _frame.sentence(f"the emulator is {equipment.qemu}; next: mobiledeploy bench --device emulator")


def _show_contact(record: Path | None, reporter: _frame.Terminal, json: bool) -> None:
    from mobiledeploy.verbs import doctor

    default = Path("first-contact.json")
    if record is None:
        _settings.refuse_link_out(default, "--record")
    path = record or default
    contact = doctor.doctor_phone(record=path, reporter=reporter)
    if json:
        _frame.emit_json(contact)
    else:
        _frame.show(contact)
        click.echo()
        if any(step.name == "system" and step.state != "skipped" for step in contact.steps):
            click.echo(
                f"{path} holds this, the phone's facts, and no serial number; read it, and send"
            )
            click.echo("it to us as an issue: no physical phone has been seen yet.")
        else:
            click.echo(f"No phone was reached: {path} holds these steps only.")
    if step := contact.failed:
        raise of_code(contact.exit_code, f"{step.name}: {step.about}", step.advice)
    reporter.say("next: mobiledeploy bench --device adb")


def _show_libraries(result: AndroidLibraries, json: bool) -> None:
    if json:
        _frame.emit_json(result)
    elif result.libraries:
        _frame.show(result)
    else:
        click.echo("no native libraries: nothing depends on the size of pages")
    if result.unfit:
        one = result.unfit[0]
        several = f"{len(result.unfit)} of {len(result.libraries)} libraries"
        raise InputError(f"{several} do not load on all phones, {one.name}: {one.state}", one.fix)


def _show_environment(environment: apart.Environment, json: bool) -> None:
    if json:
        _frame.emit_json(environment)
        return
    names = ("litert-torch", "torch", "ai-edge-litert")
    _frame.table(("part", "version"), [(name, environment.versions[name]) for name in names])
    _frame.sentence(f"it is in {environment.path}; next: mobiledeploy export FILE.pt2 --data DIR")
