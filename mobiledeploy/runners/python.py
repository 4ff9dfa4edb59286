"""The Python runner: a process that loads one runtime, and no TensorFlow.

This file has two parts: how the runner is called (`files`, `bench`, `predict`, `layers`, for the
parent), and the runner itself (`python -P -m mobiledeploy.runners.python`). Both follow
android_bench/PROTOCOL.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np

from mobiledeploy.core import arrays, inputs, plugins, protocol, records
from mobiledeploy.core.errors import DeployError, InputError
from mobiledeploy.core.ports import Array, Engine, LoadedSubgraph, Process, Samples
from mobiledeploy.core.protocol import (
    PROTOCOL,
    Answer,
    Done,
    Event,
    Fed,
    Feed,
    Loaded,
    Ready,
    Skipped,
    Timed,
    Work,
)
from mobiledeploy.core.types import Failure, Target, Tensor
from mobiledeploy.runners import _samples

# -P: the current folder is the user's, and a numpy.py in it must not be imported.
INTERPRETER: tuple[str, ...] = (sys.executable, "-P")
# Times are reported in blocks, so that reporting does not interrupt the runs all the time.
BLOCK_NS = 100_000_000
NOISE_SEED = 20170417
_WIDEST_NOISE = 2
# The number of subgraphs that stay loaded, the most recently used ones.
MAX_LOADED_PARTS = 4


# --- the parent's side ---------------------------------------------------------------------


def runtimes() -> tuple[str, ...]:
    """Every runtime of the shelf."""
    return plugins.RUNTIMES.names()


def files(machine: str, runtime: str, delegate: str = "") -> Mapping[str, Path]:
    """No files: it runs where it is installed."""
    return {}


def bench(
    model: str, target: Target, sample: str | None, files: Mapping[str, str]
) -> tuple[str, ...]:
    """The argv that times `model` until its standard input closes."""
    return (*_argv("bench", model, target), *(() if sample is None else ("--sample", sample)))


def cold(
    model: str, target: Target, sample: str | None, files: Mapping[str, str]
) -> tuple[str, ...]:
    """The argv that loads `model`, tells how long that took, and runs it once."""
    return (*bench(model, target, sample, files), "--cold", "--max-runs", "1")


def predict(model: str, target: Target, files: Mapping[str, str]) -> tuple[str, ...]:
    """The argv that predicts the images named on standard input."""
    return _argv("predict", model, target)


def hear_answers(process: Process, model: str) -> Process:
    """The process itself: it prepares the images."""
    return process


def layers(target: Target) -> tuple[str, ...]:
    """The argv that runs the subgraphs named on standard input."""
    return _command("layers", target)


def hear(process: Process, target: Target) -> Process:
    """The process itself: it speaks the protocol."""
    return process


def _argv(what: str, model: str, target: Target) -> tuple[str, ...]:
    argv = (*_command(what, target), "--model", model)
    return (*argv, "--delegate", target.delegate) if target.delegate else argv


def _command(what: str, target: Target) -> tuple[str, ...]:
    return (
        *INTERPRETER,
        "-m",
        "mobiledeploy.runners.python",
        what,
        "--runtime",
        target.runtime,
        "--threads",
        str(target.threads),
    )


# --- the process of its own ----------------------------------------------------------------


class _Speaker:
    """Writes events to standard output, which nothing else can write to."""

    def __init__(self) -> None:
        # Libraries print there too: their output goes to standard error instead.
        self._stream: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, event: Event) -> None:
        self._stream.write(protocol.line(event) + "\n")

    def flush(self) -> None:
        self._stream.flush()


def _open(arguments: argparse.Namespace) -> tuple[Engine, Ready, Loaded]:
    runtime = plugins.RUNTIMES.load(arguments.runtime)
    delegate = arguments.delegate or runtime.DELEGATES[0]
    start = time.perf_counter_ns()
    engine = runtime.open(Path(arguments.model), threads=arguments.threads, delegate=delegate)
    loaded = _loaded(engine, time.perf_counter_ns() - start)
    ready = Ready(
        protocol=PROTOCOL,
        runtime=arguments.runtime,
        version=runtime.version(),
        inputs=engine.inputs,
        outputs=engine.outputs,
        delegate=engine.delegate,
        delegated_nodes=engine.delegated_nodes,
        total_nodes=engine.total_nodes,
        threads=arguments.threads,
        cpu=platform.machine(),
        # Engines of other packages may not tell.
        left_nodes=getattr(engine, "left_nodes", None),
    )
    return engine, ready, loaded


def _loaded(engine: Engine, opened_ns: int) -> Loaded:
    """The steps of `opened_ns`: what the engine does not tell is the import of its package."""
    # Engines of other packages may not tell.
    opening: tuple[int | None, int] | None = getattr(engine, "opening_ns", None)
    if opening is None:
        return Loaded(None, None, opened_ns)
    load_ns, prepare_ns = opening
    return Loaded(max(0, opened_ns - (load_ns or 0) - prepare_ns), load_ns, prepare_ns)


def _bench(arguments: argparse.Namespace, speaker: _Speaker) -> None:
    engine, ready, loaded = _open(arguments)
    engine.load(_sample(arguments.sample, engine.inputs))
    speaker.say(ready)
    if arguments.cold:
        speaker.say(loaded)
    speaker.flush()
    stop = threading.Event()
    threading.Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
    clock, invoke = time.perf_counter_ns, engine.invoke
    samples: list[int] = []
    remaining_runs = arguments.max_runs
    gc.collect()
    gc.disable()
    block = clock() + BLOCK_NS
    while remaining_runs != 0 and not stop.is_set():
        start = clock()
        invoke()
        end = clock()
        samples.append(end - start)
        remaining_runs -= 1
        if end >= block:
            speaker.say(Timed(tuple(samples)))
            speaker.flush()
            samples.clear()
            block = clock() + BLOCK_NS
    gc.enable()
    if samples:
        speaker.say(Timed(tuple(samples)))


def _wait_for_end(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


def _sample(path: str | None, tensors: Sequence[Tensor]) -> list[Array]:
    """The raw inputs in a file, one after the other; without a file noise (`_noise`)."""
    if path is None:
        generator = np.random.Generator(np.random.PCG64(NOISE_SEED))
        try:
            return [_noise(generator, tensor) for tensor in tensors]
        except MemoryError as error:
            ends = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in tensors)
            raise InputError(
                f"the model takes more than the memory holds: {ends}",
                "make the file again, with smaller inputs",
            ) from error
    data = inputs.read(Path(path), inputs.FINISHED)
    sizes = [np.dtype(t.dtype).itemsize * int(np.prod(t.shape)) for t in tensors]
    if len(data) != sum(sizes):
        ends = ", ".join(f"{t.dtype} {list(t.shape)}" for t in tensors)
        raise InputError(f"the sample has {len(data)} bytes, the input is {ends}")
    return arrays.raw(data, tensors)


def _noise(generator: np.random.Generator, tensor: Tensor) -> Array:
    """Numbers over the range of the dtype, -1 to 1 for a float.

    Zeros for a wider integer and for bool, which are indices and lengths more often than values.
    """
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return generator.uniform(-1, 1, tensor.shape).astype(dtype)
    if dtype.kind not in "iu" or dtype.itemsize > _WIDEST_NOISE:
        return np.zeros(tensor.shape, dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, tensor.shape, dtype, endpoint=True)


def _predict(arguments: argparse.Namespace, speaker: _Speaker) -> None:
    work = records.loads(Work, sys.stdin.readline(), "the work")
    engine, ready, _ = _open(arguments)
    _samples.need_same(arguments.model, work.inputs, engine.inputs)
    _samples.need_same(arguments.model, work.outputs, engine.outputs)
    samples = _samples.opened(work)
    speaker.say(replace(ready, inputs=work.inputs, outputs=work.outputs))
    speaker.flush()
    for line in sys.stdin:
        start, stop = map(int, line.split())
        for index in range(start, stop):
            speaker.say(_answer(engine, samples, index, work))
        speaker.flush()


def _answer(engine: Engine, samples: Samples, index: int, work: Work) -> Answer | Skipped:
    tensors = _samples.prepared(samples, index, work)
    if isinstance(tensors, Skipped):
        return tensors
    return _samples.answered(samples, index, engine.run(tensors), work)


def _layers(arguments: argparse.Namespace, speaker: _Speaker) -> None:
    runtime = plugins.RUNTIMES.load(arguments.runtime)
    parts: dict[str, LoadedSubgraph] = {}
    for line in sys.stdin:
        feed = records.loads(Feed, line, "the feed")
        part = parts.pop(feed.model, None)
        if part is None:
            if len(parts) == MAX_LOADED_PARTS:
                del parts[next(iter(parts))]
            part = runtime.part(Path(feed.model), threads=arguments.threads)
        parts[feed.model] = part
        with arrays.open_archive(Path(feed.inputs), inputs.ARRAYS) as archive:
            tensors = [archive[str(place)] for place in range(len(archive.files))]
        outputs = {str(place): tensor for place, tensor in enumerate(part.run(tensors))}
        np.savez(feed.outputs, **outputs)
        speaker.say(Fed(feed.outputs))
        speaker.flush()


_WORK = {"bench": _bench, "predict": _predict, "layers": _layers}


def _peak_rss_bytes() -> int:
    """The largest resident set size of this process so far.

    The kernel records it for this program only; on Linux the value of getrusage includes the size
    of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mobiledeploy.runners.python")
    parser.add_argument("what", choices=tuple(_WORK))
    parser.add_argument("--model", help="bench, predict: the model")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--delegate", help="default: the runtime's first")
    parser.add_argument("--sample", help="bench: the raw input; default: seeded noise")
    parser.add_argument("--cold", action="store_true", help="bench: tell the times of loading")
    parser.add_argument("--max-runs", type=int, default=-1, help="bench: end after so many")
    arguments = parser.parse_args(argv)
    if arguments.what != "layers" and arguments.model is None:
        parser.error("the following arguments are required: --model")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the runner; returns its exit status. An error is written as an event first."""
    arguments = _arguments(argv)
    # Otherwise ONNX Runtime sends telemetry from a thread beside the timed one.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    speaker = _Speaker()
    try:
        _WORK[arguments.what](arguments, speaker)
        speaker.say(Done(_peak_rss_bytes()))
        speaker.flush()
    except DeployError as error:
        speaker.say(Failure(error.exit_code, error.message, error.hint))
        speaker.flush()
        return error.exit_code
    except BrokenPipeError:
        # Nobody reads any more: the parent is gone.
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
