"""Counts the instructions of one inference of an artifact on an emulated core; not a latency.

The artifact runs three times: plain, for the figure; with the runtime's profiler, for the counts of
its operators; and on this host, for its answer.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mobiledeploy.analysis import layer_counts
from mobiledeploy.analysis.layer_counts import Counts, Executed
from mobiledeploy.core import arrays, artifacts, inputs, protocol
from mobiledeploy.core.errors import DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.plugins import DEVICES, FORMATS, RUNNERS, RUNTIMES
from mobiledeploy.core.ports import Array, Process, Reporter, Session
from mobiledeploy.core.types import (
    Artifact,
    Counted,
    LayerCount,
    NamedWarning,
    NativeLibrary,
    Target,
)
from mobiledeploy.steps import golden_inputs, instruction_sets

RUNS = 5
WARMUPS = 2
"""The first inferences, which allocate and pack, are not counted."""
# An inference of a large network takes a minute under emulation, without any output.
PATIENCE_S = 900.0
# Inferences of one process may differ, because a runtime does some work only now and then.
EVEN = 0.001
# Other machines add floats in another order.
FLOAT_TOLERANCE = 1e-5
# The host adds in float32 what the core adds in float16, whose numbers have 11 bits.
HALF_TOLERANCE = 1e-2
HALF_PRODUCTS = "fmla16"


def count(
    session: Session, path: Path, artifact: Artifact, target: Target, *, reporter: Reporter
) -> Counted:
    """Counts on an open device of kind `counted`.

    Raises:
        UsageError: more than one thread, or a runner that is not native.
        MissingError: the native parts are not installed.
        DeviceError: the runner died or hangs, or the counter wrote no counts.
    """
    if target.threads != 1:
        raise UsageError("instructions are counted for one thread only", "leave out --threads")
    if target.delegate == "gpu":
        raise UsageError("an emulated core has no delegate 'gpu'", "there are xnnpack, none")
    if target.runner != "native":
        raise UsageError(f"the runner {target.runner} cannot be emulated", "leave out --runner")
    with artifacts.scratch() as folder:
        job = _CountJob(path, artifact, target, folder)
        reporter.progress(f"counting {path.name}", 0, 3)
        plain = job.run(session, "plain")
        reporter.progress(f"counting {path.name}", 1, 3)
        profiled = job.run(session, "profiled", profile=True)
        reporter.progress(f"counting {path.name}", 2, 3)
        with DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as host:
            here = job.run(host, "host", marks=False)
        reporter.progress(f"counting {path.name}", 3, 3)
        figure = _record(job, session.facts(), plain, profiled, here)
    for warning in figure.warnings:
        reporter.warn(warning)
    return figure


def need_core(core: str) -> None:
    """UsageError if no emulated core has this name, MissingError if no emulator is set up."""
    cores = {one.name.partition(":")[2]: one for one in DEVICES.load("emulator").available()}
    if core not in cores:
        raise UsageError(f"no core named {core!r} can be emulated", f"there are {', '.join(cores)}")
    if cores[core].fix:
        raise MissingError(
            f"instructions on a {core} are counted on an emulated one, which is not set up",
            cores[core].fix,
        )


@dataclass(frozen=True)
class _Run:
    """What one process printed: the counts of its inferences, the outputs of the last."""

    ready: protocol.Ready
    inferences: tuple[tuple[Counts, ...], ...]
    outputs: tuple[Array, ...]
    profile: str


@dataclass(frozen=True)
class _CountJob:
    path: Path
    artifact: Artifact
    target: Target
    folder: Path

    def run(
        self, session: Session, name: str, *, profile: bool = False, marks: bool = True
    ) -> _Run:
        """A process of `RUNS` inferences of the artifact's golden image."""
        driver = RUNNERS.load(self.target.runner)
        parts = driver.files(session.facts()["machine"], self.target.runtime, self.target.delegate)
        files = {role: session.push(file) for role, file in parts.items()}
        sample = golden_inputs.sample(self.path, self.artifact, self.folder)
        remote = None if sample is None else session.push(sample)
        output, profiled = self.folder / f"{name}.output", self.folder / f"{name}.profile"
        argv = driver.bench(session.push(self._copy()), self.target, remote, files)
        argv += ("--max-runs", str(RUNS), "--output", str(output))
        argv += ("--marks",) if marks else ()
        argv += ("--profile", str(profiled)) if profile else ()
        process = session.run(argv)
        try:
            ready, counts = self._listen(process)
        finally:
            process.kill()
        answers = tuple(arrays.raw(inputs.read(output, inputs.RECORD), ready.outputs))
        return _Run(
            ready,
            tuple(_inferences(counts)),
            answers,
            profiled.read_text("utf-8", "replace") if profile else "",
        )

    def _copy(self) -> Path:
        """A copy with a path of constant length, because the length changes memory's layout."""
        copy = self.folder / f"model{self.path.suffix}"
        if not copy.exists():
            shutil.copyfile(self.path, copy)
        return copy

    def _listen(self, process: Process) -> tuple[protocol.Ready, list[protocol.Counts]]:
        kinds = protocol.Ready, protocol.Counts, protocol.Timed, protocol.RawAnswer
        events = list(protocol.listen(process, self.path.name, PATIENCE_S, *kinds))
        ready = next((event for event in events if isinstance(event, protocol.Ready)), None)
        if ready is None:
            raise protocol.untimely(events[-1])
        return ready, [event for event in events if isinstance(event, protocol.Counts)]


def _inferences(counts: Sequence[protocol.Counts]) -> Iterator[tuple[Counts, ...]]:
    """The counts of each inference: at the mark before it, at its clocks, at the mark after it.

    The runner marks the beginning of run N with 2 N and its end with 2 N + 1.
    """
    within: list[Counts] | None = None
    for event in counts:
        if event.at == "mark" and event.argument % 2 == 0:
            within = [event.counts]
        elif within is not None:
            within.append(event.counts)
            if event.at == "mark":
                yield tuple(within)
                within = None


def _record(
    job: _CountJob, facts: Mapping[str, str], plain: _Run, profiled: _Run, here: _Run
) -> Counted:
    if len(plain.inferences) != RUNS:
        raise DeviceError("the instruction counter said nothing", "mobiledeploy doctor --emulator")
    each = sorted(
        (layer_counts.between(run[0], run[-1]) for run in plain.inferences[WARMUPS:]),
        key=layer_counts.instructions,
    )
    figure = each[len(each) // 2]
    layers = _layers(job, profiled)
    differences = _differences(plain.outputs, here.outputs)
    warnings = _warnings(job, each, layers, differences, plain, here)
    ready = plain.ready
    return Counted(
        artifact_sha256=job.artifact.sha256,
        target=replace(job.target, runtime=ready.runtime, delegate=ready.delegate),
        runtime_version=ready.version,
        core=facts["core"],
        instructions=layer_counts.instructions(figure),
        by_class={k: n for k, n in figure.items() if n and not k.startswith("bytes_")},
        bytes_loaded=figure["bytes_loaded"],
        bytes_stored=figure["bytes_stored"],
        by_layer=layers if _library(ready.runtime).by_layer else (),
        kernels=tuple(dict.fromkeys(layer.kernel for layer in layers)),
        host_difference=max(differences),
        versions={
            name.removeprefix("version_"): version
            for name, version in facts.items()
            if name.startswith("version_")
        },
        warnings=tuple(warnings),
        isa=instruction_sets.of_runner(ready.cpu),
    )


def _library(runtime: str) -> NativeLibrary:
    library = RUNTIMES.load(runtime).NATIVE
    assert library is not None
    return library


def _layers(job: _CountJob, profiled: _Run) -> tuple[LayerCount, ...]:
    """The counts of each operator, by the file's own name where it is known which one it is."""
    if not profiled.inferences:
        return ()
    # Only the readings of the runtime, not the marks at both ends.
    readings = profiled.inferences[-1][1:-1]
    executed = _library(profiled.ready.runtime).layers(profiled.profile, readings)
    layers = (
        FORMATS.load(job.artifact.format).inspect(inputs.read(job.path, inputs.FINISHED)).layers
    )
    alone = {one.node for one in executed if one.node is not None}
    # Without a delegate nothing moves; ONNX Runtime names its operators.
    order = layer_counts.run_order(layers, alone) if alone else range(len(layers))
    layers = tuple(layers[i] for i in order)
    places = layer_counts.places([one.kernel for one in executed], [layer.op for layer in layers])
    return tuple(
        LayerCount(
            name=one.name or f"{_plain(one)} {i}" if place is None else layers[place].name,
            op=_plain(one) if place is None else layers[place].op,
            instructions=layer_counts.instructions(one.counts),
            kernel=one.kernel,
        )
        for i, (one, place) in enumerate(zip(executed, places, strict=True))
    )


def _plain(executed: Executed) -> str:
    return executed.kernel.partition(",")[0].partition(" (")[0]


def _differences(emulated: Sequence[Array], host: Sequence[Array]) -> tuple[float, ...]:
    """The largest difference of a value, for each output."""
    if [(x.shape, x.dtype) for x in emulated] != [(x.shape, x.dtype) for x in host]:
        raise InputError(
            "the emulated runtime's outputs are of other shapes or types than the host's"
        )
    return tuple(
        float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64)), initial=0))
        for one, other in zip(emulated, host, strict=True)
    )


def _warnings(
    job: _CountJob,
    each: Sequence[Counts],
    layers: Sequence[LayerCount],
    differences: Sequence[float],
    plain: _Run,
    here: _Run,
) -> Iterator[NamedWarning]:
    path = str(job.path)
    low, high = layer_counts.instructions(each[0]), layer_counts.instructions(each[-1])
    if high - low > EVEN * low:
        yield NamedWarning(
            "uneven-counts",
            f"inferences of one process differ, from {low:,} to {high:,} instructions",
            "the figure is the one in the middle",
            path,
        )
    if not layers:
        yield NamedWarning(
            "layers-unknown",
            f"what {plain.ready.runtime} {plain.ready.version} told of its operators "
            "does not fit what was counted",
            "the total stands, there are no kernels and no counts by layer",
            path,
        )
    tolerance = HALF_TOLERANCE if each[-1].get(HALF_PRODUCTS) else FLOAT_TOLERANCE
    for difference, output in zip(differences, here.outputs, strict=True):
        integers = output.dtype.kind in "iu"
        largest = float(np.max(np.abs(output.astype(np.float64)), initial=1.0))
        if difference > (0.0 if integers else tolerance * largest):
            unit = " steps" if integers else ""
            yield NamedWarning(
                "differs-from-host",
                f"an answer on {plain.ready.cpu} is {difference:g}{unit} from that of "
                f"{here.ready.runtime} {here.ready.version} on this host",
                "evaluate it where it will run",
                path,
            )
