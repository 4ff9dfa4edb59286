"""How far finished files are from their float model, over their evaluation images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.analysis.accuracy import Distance
from mobiledeploy.core import artifacts
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact, Fidelity
from mobiledeploy.steps import answers, evaluations

Rows = dict[int, tuple[NDArray[np.float32], ...]]
"""The values of each output, by sample."""


def fidelities(
    files: Mapping[Path, Artifact],
    *,
    pixels: Path | None = None,
    floats: dict[str, Rows] | None = None,
    reporter: Reporter = SILENT,
) -> dict[Path, Fidelity]:
    """Compares the logits of each artifact with those of its float32 file, which is among them.

    A float32 file has no fidelity, and neither has a file without a float32 file. All use the same
    images, the readable ones of the export's data. `pixels` is as for `evaluations.each`. `floats`
    are answers of float32 files by sha256: what it holds is not asked again, and what it lacks is
    added.

    Raises:
        InputError: NaN in an answer.
        DeviceError: a runner died or hangs.
    """
    floats = {} if floats is None else floats
    by_reference: dict[Path, list[Path]] = {}
    for path, artifact in files.items():
        sibling = evaluations.float_sibling(path, artifact, dict(files), reporter)
        if sibling is not None:
            by_reference.setdefault(sibling[0], []).append(path)
    result = {}
    for reference, paths in by_reference.items():
        sha256 = files[reference].sha256
        if sha256 not in floats:
            floats[sha256] = dict(
                answers.every_answer(reference, files[reference], pixels=pixels, reporter=reporter)
            )
        exact = floats[sha256]
        for path in paths:
            distance = Distance()
            ends = accuracy.before_softmax(artifacts.signature(files[path]).outputs)
            task = TASKS.load(files[path].spec.task)
            for index, rows in answers.every_answer(
                path, files[path], pixels=pixels, reporter=reporter
            ):
                if index in exact:
                    pairs = [
                        [row.reshape(1, *end.shape) for row, end in zip(answer, ends, strict=True)]
                        for answer in (exact[index], rows)
                    ]
                    nats = float(task.divergence(pairs[0], pairs[1], ends)[0])
                    distance.add(pairs[0], pairs[1], nats)
            result[path] = Fidelity(distance.sqnr_db, distance.divergence, distance.images, sha256)
    return result
