"""How far finished files are from their float model, over the images that judge them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mobiledeploy.analysis.accuracy import Distance
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact, Fidelity
from mobiledeploy.steps import answers, evaluations


def fidelities(
    made: Mapping[Path, Artifact], *, reporter: Reporter = SILENT
) -> dict[Path, Fidelity]:
    """Each artifact's logits beside those of its float32 file, which is among them.

    A float32 file has none, and neither has a file without one. Both see the same images, those
    of the export's data that can be read.

    Raises:
        InputError: NaN in an answer.
        DeviceError: a runner died or hangs.
    """
    beside: dict[Path, list[Path]] = {}
    for path, artifact in made.items():
        sibling = evaluations.float_sibling(path, artifact, dict(made), reporter)
        if sibling is not None:
            beside.setdefault(sibling[0], []).append(path)
    found = {}
    for reference, paths in beside.items():
        exact = dict(answers.every_logits(reference, made[reference], reporter=reporter))
        for path in paths:
            distance = Distance()
            for index, row in answers.every_logits(path, made[path], reporter=reporter):
                if index in exact:
                    distance.add(exact[index], row)
            found[path] = Fidelity(
                distance.sqnr_db, distance.divergence, distance.images, made[reference].sha256
            )
    return found
