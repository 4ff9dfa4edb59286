"""Logits of a model file over images, from a runner's process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import artifacts, inputs, leases, protocol
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import DEVICES, FORMATS, RUNTIMES, dataset
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Artifact, DataRef, FileFacts, Preprocessing, Target
from mobiledeploy.steps import runtimes
from mobiledeploy.steps.runner_pool import RunnerPool, answer_row, image_ranges
from mobiledeploy.steps.runtimes import target


def logits(
    path: Path,
    facts: FileFacts,
    pre: Preprocessing,
    data: DataRef,
    indices: Sequence[int],
    *,
    reporter: Reporter,
    runtime: str | None = None,
) -> tuple[str, NDArray[np.float32]]:
    """The output of a model file without a record, for some images of `data`.

    Args:
        path: the model.
        facts: the result of its format's `inspect`: tensors with their scales, and the layout.
        pre: how an image becomes its input; `data.resolution` is the input's.
        data: the data set and the split that `indices` count in.
        indices: which images; all must be readable.
        reporter: is told of a wait for the machine.
        runtime: the default is that of the format.

    Returns:
        The runtime's name and version, and float32 [len(indices), classes].
    """
    work = protocol.Work(
        data, pre, data.resolution, facts.layout, facts.inputs[0], facts.outputs[0]
    )
    runtime = runtime or runtimes.of_format(facts.format)[0]
    target = Target("host", "python", runtime, 1, RUNTIMES.load(runtime).DELEGATES[0])
    rows: dict[int, NDArray[np.float32]] = {}
    with DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session:
        pool = RunnerPool(session, path, target, work, 1)
        for event in pool.answers((index, index + 1) for index in indices):
            if isinstance(event, protocol.Skipped):
                raise InputError(f"image {event.why}")
            rows[event.index] = answer_row(event)
    return f"{pool.ready.runtime} {pool.ready.version}", np.stack([rows[i] for i in indices])


def every_logits(
    path: Path, artifact: Artifact, *, reporter: Reporter
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(index, logits [classes]) of each readable evaluation image of an artifact, in no order."""
    shelf, data = FORMATS.load(artifact.format), artifact.data
    samples = dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
    )
    count = len(samples)
    with (
        artifacts.scratch() as folder,
        DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session,
    ):
        probe = folder / f"probe-{path.name}"
        probe_content = shelf.expose_tensor(inputs.read(path, inputs.FINISHED), artifact.logits)
        probe.write_bytes(probe_content)
        facts = shelf.inspect(probe_content)
        work = protocol.Work(
            data,
            artifact.spec.preprocessing,
            data.resolution,
            facts.layout,
            facts.inputs[0],
            facts.outputs[0],
        )
        pool = RunnerPool(session, probe, target(artifact), work, min(leases.cores(), count))
        for count_done, event in enumerate(
            pool.answers(image_ranges(count, pool.workers)), start=1
        ):
            reporter.progress(f"logits of {path.name}", count_done, count)
            if isinstance(event, protocol.Answer):
                yield event.index, answer_row(event)
