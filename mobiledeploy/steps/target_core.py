"""The form of each file that takes the fewest instructions on one core: `export --for CORE`.

Some files have several forms that compute the same function: without all dead channels or with a
multiple of 8 left in each tensor (`passes/dead_channels.py`), and with the image read by pixels or
by pairs of them (`graphs/pixel_pairs.py`). Which is cheaper depends on the core's kernels. So each
form is made, judged as any file, and counted on the emulated core.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.display import Table
from mobiledeploy.core.plugins import DEVICES
from mobiledeploy.core.ports import SILENT, Reporter, Session
from mobiledeploy.core.types import Artifact, CoreChoice, Counted, FileForm
from mobiledeploy.steps import count, timings
from mobiledeploy.steps.conversion_process import ConvertedFile, file_name
from mobiledeploy.steps.file_checks import Exam
from mobiledeploy.store.database import Store


def fewest(
    files: Sequence[ConvertedFile], exam: Exam, core: str, reporter: Reporter
) -> list[tuple[ConvertedFile, Artifact]]:
    """The cheapest form of each file, in the folder of the exam, with its artifact.

    The forms of a file follow each other. A file with one form is not counted.
    """
    result = []
    device = f"emulator:{core}"
    with DEVICES.load("emulator").open(device, exclusive=False, reporter=reporter) as session:
        for (recipe, format_), group in groupby(files, lambda file: (file.recipe, file.format)):
            forms = list(group)
            place = exam.staging / file_name(recipe, format_)
            judged = []
            for number, form in enumerate(forms):
                reporter.progress(f"forms of {place.name}", number, len(forms))
                # One after the other in the same place: beside its golden samples, by its name.
                records.put(Path(form.path), place)
                form = dataclasses.replace(form, path=str(place))
                artifact = exam.artifact(form)
                instructions = 0
                if len(forms) > 1:
                    instructions = counted(session, place, artifact, reporter).instructions
                content = inputs.read(place, inputs.FINISHED)
                judged.append((instructions, form, artifact, content))
            reporter.progress(f"forms of {place.name}", len(forms), len(forms))
            chosen = min(range(len(judged)), key=lambda number: judged[number][0])
            _, form, artifact, content = judged[chosen]
            if len(forms) > 1:
                costs = tuple(
                    FileForm(one.multiple, one.pairs, instructions)
                    for instructions, one, _, _ in judged
                )
                choice = CoreChoice(core, costs, chosen)
                artifact = dataclasses.replace(artifact, core_choice=choice)
            records.write_atomic(place, content)
            result.append((form, artifact))
    return result


def counted(session: Session, path: Path, artifact: Artifact, reporter: Reporter) -> Counted:
    """The count of a file on an open emulated core, from the store if it has the same one."""
    facts = session.facts()
    target = timings.target(artifact, device=f"emulator:{facts['core']}", runner="native")
    versions = {
        name.removeprefix("version_"): version
        for name, version in facts.items()
        if name.startswith("version_")
    }
    with Store.keeping(reporter) as store:
        stored = store.measurement(artifact.sha256, target)
        if isinstance(stored, Counted) and stored.versions == versions:
            return stored
        # Its warnings are in the record: the forms that are not taken concern nobody.
        figure = count.count(session, path, artifact, target, reporter=SILENT)
        store.add_measurement(figure)
    return figure


def tables(choices: Mapping[str, CoreChoice]) -> tuple[Table, ...]:
    """A row for each file that had a choice, by its name; () without any."""
    if not choices:
        return ()
    core = next(iter(choices.values())).core
    rows = tuple((name, *_cells(choice)) for name, choice in choices.items())
    title = (
        f"For {core}: the form of the fewest instructions, counted on an emulated one, is taken "
        "(counts rank files; they are no times)"
    )
    return (Table(("file", "taken", "instructions", "not taken"), rows, title),)


def _cells(choice: CoreChoice) -> tuple[str, str, str]:
    others = (
        f"{form.name} {form.instructions:,}"
        for number, form in enumerate(choice.forms)
        if number != choice.chosen
    )
    taken = choice.forms[choice.chosen]
    return taken.name, f"{taken.instructions:,}", "; ".join(others)
