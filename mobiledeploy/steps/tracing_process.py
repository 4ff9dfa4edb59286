"""Models -> their layers, in a process of its own (`child_process.py`), where TensorFlow runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from mobiledeploy.core import artifacts
from mobiledeploy.core.plugins import source_of
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Layer, ModelSpec, Source
from mobiledeploy.steps import child_process


@dataclass(frozen=True)
class TraceRequest:
    """The models to trace, one after the other."""

    sources: tuple[Source, ...]


@dataclass(frozen=True)
class TracedModel:
    """A model's layers in execution order, in float, and how many numbers it holds.

    `trainable` are those that training changes, `params` all, moving statistics too.
    """

    spec: ModelSpec
    layers: tuple[Layer, ...]
    trainable: int
    params: int


def trace(sources: Sequence[Source], reporter: Reporter) -> Iterator[TracedModel]:
    """The layers of each of `sources`, in their order; errors are raised as they were there."""
    with artifacts.scratch() as folder:
        answers = child_process.events(
            "tracing_process",
            TraceRequest(tuple(sources)),
            (TracedModel,),
            what="the analysis",
            log=folder / "log",
            temporary=folder / "tmp",
            reporter=reporter,
            files=[name for source in sources for name in child_process.read_by(source) or [""]],
        )
        with closing(answers):
            for _, traced in zip(sources, answers, strict=False):
                yield traced


def _work(request: TraceRequest, speak: child_process.Speaker) -> None:
    speak.progress("loading TensorFlow", 0, 1)
    # Not at the top: the parent imports this file too, and stays without TensorFlow.
    from mobiledeploy.frameworks import tracing

    speak.progress("loading TensorFlow", 1, 1)
    for done, wanted in enumerate(request.sources):
        speak.progress("counting", done, len(request.sources))
        opened = source_of(wanted).open(wanted)
        # A finished file is analyzed as it is, and never comes here.
        assert opened.network is not None
        found = tracing.parameters(opened.network)
        layers = tracing.layers(opened.network, opened.resolution)
        spec = dataclasses.replace(
            wanted.spec, resolution=opened.resolution, classes=opened.classes
        )
        speak.event(TracedModel(spec, layers, found.trainable, found.total))
    speak.progress("counting", len(request.sources), len(request.sources))


if __name__ == "__main__":
    child_process.serve(TraceRequest, _work, what="the analysis")
