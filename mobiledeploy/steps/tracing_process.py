"""Models -> their layers, in a child process (`child_process.py`), where TensorFlow runs."""

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
    """A float model's layers in execution order, and the number of its parameters.

    `trainable` counts those that training changes, `params` all of them, with moving statistics.
    """

    spec: ModelSpec
    layers: tuple[Layer, ...]
    trainable: int
    params: int


def trace(sources: Sequence[Source], reporter: Reporter) -> Iterator[TracedModel]:
    """The layers of each of `sources`, in their order; errors of the child are raised here."""
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
            for _, model in zip(sources, answers, strict=False):
                yield model


def _work(request: TraceRequest, speak: child_process.Speaker) -> None:
    speak.progress("loading TensorFlow", 0, 1)
    # Not at the top: the parent imports this file too, and must not import TensorFlow.
    from mobiledeploy.frameworks import tracing

    speak.progress("loading TensorFlow", 1, 1)
    for number, source in enumerate(request.sources):
        speak.progress("counting", number, len(request.sources))
        model = source_of(source).open(source)
        # A finished file is analyzed without TensorFlow and never comes here.
        assert model.network is not None
        parameters = tracing.parameters(model.network)
        layers = tracing.layers(model.network)
        image = next((end for end in model.inputs if end.kind == "image"), None)
        height, width = image.shape[:2] if image else (0, 0)
        ends = layers[-1].outputs[0].shape if layers else ()
        classes = source.spec.classes or (ends[-1] if ends else 1)
        spec = dataclasses.replace(source.spec, resolution=(height, width), classes=classes)
        speak.event(TracedModel(spec, layers, parameters.trainable, parameters.total))
    speak.progress("counting", len(request.sources), len(request.sources))


if __name__ == "__main__":
    child_process.serve(TraceRequest, _work, what="the analysis")
