"""How far finished files are from their float model, over their evaluation images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mobiledeploy.analysis.accuracy import Distance
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact, Fidelity
from mobiledeploy.steps import answers, evaluations


def fidelities(
    artifacts: Mapping[Path, Artifact], *, reporter: Reporter = SILENT
) -> dict[Path, Fidelity]:
    """Compares the logits of each artifact with those of its float32 file, which is among them.

    A float32 file has no fidelity, and neither has a file without a float32 file. All use the same
    images, the readable ones of the export's data.

    Raises:
        InputError: NaN in an answer.
        DeviceError: a runner died or hangs.
    """
    by_reference: dict[Path, list[Path]] = {}
    for path, artifact in artifacts.items():
        sibling = evaluations.float_sibling(path, artifact, dict(artifacts), reporter)
        if sibling is not None:
            by_reference.setdefault(sibling[0], []).append(path)
    result = {}
    for reference, paths in by_reference.items():
        exact = dict(answers.every_logits(reference, artifacts[reference], reporter=reporter))
        for path in paths:
            distance = Distance()
            for index, row in answers.every_logits(path, artifacts[path], reporter=reporter):
                if index in exact:
                    distance.add(exact[index], row)
            result[path] = Fidelity(
                distance.sqnr_db, distance.divergence, distance.images, artifacts[reference].sha256
            )
    return result
