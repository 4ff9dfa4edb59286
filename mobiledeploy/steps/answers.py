"""What a model file answers to samples, from a runner's process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import artifacts, inputs, leases, protocol
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.pixels import has_room
from mobiledeploy.core.plugins import DEVICES, FORMATS, RUNTIMES, dataset
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Artifact, DataRef, FileFacts, ModelInput, Target
from mobiledeploy.steps import runtimes
from mobiledeploy.steps.runner_pool import RunnerPool, answer_rows, image_ranges
from mobiledeploy.steps.runtimes import target


def probe(content: bytes, of: FileFacts | Artifact) -> bytes:
    """The file as its golden samples are compared: a single output ends before its softmax.

    `of` says what the file holds.
    """
    if len(of.outputs) > 1:
        return content
    return FORMATS.load(of.format).expose_tensor(content, of.logits)


def logits(
    path: Path,
    facts: FileFacts,
    signature: Sequence[ModelInput],
    data: DataRef,
    indices: Sequence[int],
    *,
    reporter: Reporter,
    runtime: str | None = None,
) -> tuple[str, NDArray[np.float32]]:
    """The outputs of a model file without a record, for some samples of `data`.

    Args:
        path: the model.
        facts: the result of its format's `inspect`: tensors with their scales, and the layout.
        signature: how samples become its inputs.
        data: the data set and the split that `indices` count in.
        indices: which samples; all must be readable.
        reporter: is told of a wait for the machine.
        runtime: the default is that of the format.

    Returns:
        The runtime's name and version, and float32 [len(indices), values], each row an
        `accuracy.golden_row`.
    """
    runtime = runtime or runtimes.of_format(facts.format)[0]
    target = Target("host", "python", runtime, 1, RUNTIMES.load(runtime).DELEGATES[0])
    with DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session:
        return rows(RunnerPool(session, path, target, work(facts, signature, data), 1), indices)


def work(facts: FileFacts, signature: Sequence[ModelInput], data: DataRef) -> protocol.Work:
    """What a runner must know to answer for samples of `data` with a file without a record."""
    return protocol.Work(data, tuple(signature), facts.layout, facts.inputs, facts.outputs)


def rows(pool: RunnerPool, indices: Sequence[int]) -> tuple[str, NDArray[np.float32]]:
    """The answers of a pool for some samples, in the form of `logits`."""
    by_index: dict[int, NDArray[np.float32]] = {}
    for event in pool.answers((index, index + 1) for index in indices):
        if isinstance(event, protocol.Skipped):
            raise InputError(f"image {event.why}")
        by_index[event.index] = accuracy.golden_row(answer_rows(event))
    return f"{pool.ready.runtime} {pool.ready.version}", np.stack([by_index[i] for i in indices])


def with_pixels(work: protocol.Work, folder: Path | None, count: int) -> protocol.Work:
    """The work with a folder of pixels, if there is one and it has room for so many samples."""
    if folder is None or not has_room(folder, count, work.signature):
        return work
    return replace(work, pixels=str(folder))


def every_answer(
    path: Path, artifact: Artifact, *, pixels: Path | None = None, reporter: Reporter
) -> Iterator[tuple[int, tuple[NDArray[np.float32], ...]]]:
    """(index, the values of each output) of each readable evaluation sample, in no order.

    A single output that ends in a softmax is taken before it. `pixels` is as for
    `evaluations.each`.
    """
    data = artifact.data
    samples = dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
    )
    count = len(samples)
    with (
        artifacts.scratch() as folder,
        DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session,
    ):
        copy = folder / f"probe-{path.name}"
        content = probe(inputs.read(path, inputs.FINISHED), artifact)
        copy.write_bytes(content)
        facts = FORMATS.load(artifact.format).inspect(content)
        signature = artifacts.signature(artifact).inputs
        work_ = with_pixels(work(facts, signature, data), pixels, count)
        pool = RunnerPool(session, copy, target(artifact), work_, min(leases.cores(), count))
        for count_done, event in enumerate(
            pool.answers(image_ranges(count, pool.workers)), start=1
        ):
            reporter.progress(f"answers of {path.name}", count_done, count)
            if isinstance(event, protocol.Answer):
                yield event.index, answer_rows(event)
