"""The messages to and from a runner (android_bench/PROTOCOL.md), and how they are read."""

from __future__ import annotations

import base64
import json
import queue
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mobiledeploy.core import errors, records
from mobiledeploy.core.deaths import death
from mobiledeploy.core.errors import DeviceError, InputError
from mobiledeploy.core.ports import Process
from mobiledeploy.core.types import DataRef, Failure, Layout, ModelInput, Tensor

PROTOCOL = 2
EVENT_VERSION = 2
"""The schema version of the lines that runners write.

It does not follow that of the records, since a C runner is not rebuilt for them. Version 1 had one
input and one output; recordings of that time are still read.
"""


@dataclass(frozen=True)
class Work:
    """The first message to a `predict` runner: which samples, and how they become the inputs.

    `inputs` and `outputs` are the artifact's own tensors, since an engine may not know their
    scales; `signature` says how each input is made. `pixels` is the folder of a
    `core.pixels.PixelCache`, empty for none.
    """

    data: DataRef
    signature: tuple[ModelInput, ...]
    layout: Layout
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    pixels: str = ""


@dataclass(frozen=True)
class Feed:
    """A message to a `layers` runner: a subgraph of a model, and its raw input tensors.

    `inputs` and `outputs` are .npz files, arrays named 0, 1, ... in the order of the subgraph's own
    inputs and outputs; the runner writes `outputs`.
    """

    model: str
    inputs: str
    outputs: str


@dataclass(frozen=True)
class Fed:
    """The output tensors of the subgraph are in the file."""

    outputs: str


@dataclass(frozen=True)
class Ready:
    """The model is loaded. Node counts are None where the engine does not tell them.

    `left_nodes` are the operators that the delegate left to the CPU, by their place in the file;
    None if they are not known. `left_reasons` is what the delegate said of them, `KIND: why` each.
    `adapter` is the GPU in the engine's words, "" for none.
    """

    protocol: int
    runtime: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    delegate: str
    delegated_nodes: int | None
    total_nodes: int | None
    threads: int
    cpu: str
    left_nodes: tuple[int, ...] | None = None
    left_reasons: tuple[str, ...] = ()
    adapter: str = ""


@dataclass(frozen=True)
class Loaded:
    """How long the steps before the first run took, if the runner was asked with `--cold`.

    They follow each other; None for a step that the engine does within the next one.
    """

    library_ns: int | None
    load_ns: int | None
    prepare_ns: int


@dataclass(frozen=True)
class Timed:
    """Some runs in the order of execution; none is left out."""

    samples_ns: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """A sample's answer: `rows` has a text for each output, base64 of little-endian float32."""

    index: int
    sample: str
    label: int
    rows: tuple[str, ...]


@dataclass(frozen=True)
class RawAnswer:
    """The outputs of a run: base64 of their bytes, one after the other, and the bytes' CRC-32."""

    index: int
    crc32: int
    raw: str


@dataclass(frozen=True)
class Skipped:
    """An image that cannot be read."""

    index: int
    sample: str
    why: str


@dataclass(frozen=True)
class Counts:
    """What an emulated program had executed at a mark, or when it read a clock.

    `at` is `mark` or `clock`, `argument` the number of the mark or of the clock. `counts` covers
    everything since the start of the program: instructions by class, and bytes loaded and stored.
    """

    at: Literal["mark", "clock"]
    argument: int
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Done:
    """The last event of a runner, after it was asked to end.

    `clocks` is the file of `--clocks` right before and right after the runs, `KHZ:TICKS ...` each;
    () without it.
    """

    peak_rss_bytes: int
    clocks: tuple[str, ...] = ()


_FORMER_FIELDS = {"input": "inputs", "output": "outputs", "row": "rows"}
Event = Ready | Loaded | Timed | Counts | Answer | RawAnswer | Skipped | Fed | Done | Failure
_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (Ready, Loaded, Timed, Counts, Answer, RawAnswer, Skipped, Fed, Done, Failure)
}


def line(event: Event) -> str:
    """An event as a runner writes it; `parse` reads it."""
    head = {"schema_version": EVENT_VERSION, "record": type(event).__name__}
    return json.dumps(head | records.encode(event), separators=(",", ":"))


def raw_inputs(index: int, content: bytes) -> str:
    """What an `answer` runner reads for a sample: its inputs' bytes, one after the other."""
    return f"{index} {zlib.crc32(content)} {base64.b64encode(content).decode()}"


def places(own: Sequence[Tensor], told: Sequence[Tensor]) -> list[int]:
    """The places of a record's tensors in a runner's list: by name where both name the same ones.

    An engine may list them in the order of a signature, which is another than the file's.
    """
    names = [tensor.name for tensor in told]
    if len(set(names)) == len(names) and sorted(names) == sorted(tensor.name for tensor in own):
        return [names.index(tensor.name) for tensor in own]
    return list(range(len(told)))


def raw_outputs(event: RawAnswer) -> bytes:
    """The bytes of an answer; DeviceError if they arrived damaged."""
    try:
        content = base64.b64decode(event.raw, validate=True)
    except ValueError:
        content = b""
    if zlib.crc32(content) != event.crc32:
        raise DeviceError(
            f"the runner's answer for image {event.index} arrived damaged",
            "try again, or another cable",
        )
    return content


def parse(line: str) -> Event:
    """The event in one line of a runner; DeviceError if it is not an event of this protocol."""
    try:
        data = json.loads(line)
        kind = _EVENTS[data.pop("record")]
        version = data.pop("schema_version")
        if version == 1:
            data = _of_version_1(data)
        elif version != EVENT_VERSION:
            raise ValueError("another schema version")
        event: Event = records.decode(kind, data, "event")
        if isinstance(event, Timed) and min(event.samples_ns, default=1) <= 0:
            raise ValueError("a run that took no time")
        if isinstance(event, Loaded) and not all(
            ns is None or ns >= 0 for ns in (event.library_ns, event.load_ns, event.prepare_ns)
        ):
            raise ValueError("a step that took less than no time")
        if isinstance(event, Ready) and event.threads < 1:
            raise ValueError("no thread")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
        excerpt = line.strip()[:80]
        raise DeviceError(
            f"the runner printed {excerpt!r}, which is not a line of its protocol",
            "another program prints on its standard output, or the runner is of another version",
        ) from error
    if isinstance(event, Ready) and event.protocol != PROTOCOL:
        raise DeviceError(f"the runner speaks protocol {event.protocol}, not {PROTOCOL}")
    return event


def _of_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """An event's fields with today's names."""
    # The one input or output, or its row, is the first of a list today.
    data = {
        _FORMER_FIELDS.get(key, key): [value] if key in _FORMER_FIELDS else value
        for key, value in data.items()
    }
    if data.get("protocol") == 1:
        data["protocol"] = PROTOCOL
    return data


def events(process: Process, model: str = "") -> Iterator[Event]:
    """The events of a runner of the file `model`, until it is done.

    Raises:
        DeployError: the runner reported an error; it is raised again here.
        DeviceError: the runner printed something else, or ended before it was done.
        InputError: the runner crashed on `model`.
    """
    for line in process.lines():
        event = parse(line)
        if isinstance(event, Failure):
            raise errors.of_code(event.exit_code, event.message, event.hint, DeviceError)
        yield event
        if isinstance(event, Done):
            return
    status, tail = process.wait()
    if status < 0:
        raise death("the runner", status, tail, model)
    last = next((text.strip() for text in reversed(tail.splitlines()) if text.strip()), "")
    raise DeviceError(f"the runner ended with status {status} before it was done", last)


class Listener:
    """The events of one or more runners, in the order of arrival.

    Reading blocks, so a thread for each runner reads its output; it ends with the runner.
    """

    def __init__(self, model: str, patience_s: float) -> None:
        self._model = model
        self._patience_s = patience_s
        self._queue: queue.SimpleQueue[tuple[int, Event | Exception]] = queue.SimpleQueue()

    def listen(self, number: int, process: Process) -> None:
        """Adds a runner, as `number`."""
        threading.Thread(target=self._read, args=(number, process), daemon=True).start()

    def next(self) -> tuple[int, Event]:
        """The number of a runner, and its next event.

        Raises:
            DeployError: as `events` does for one of them.
            DeviceError: no runner has printed anything for `patience_s` seconds.
            InputError: as `events` does.
        """
        try:
            number, event = self._queue.get(timeout=self._patience_s)
        except queue.Empty:
            raise DeviceError(
                f"the runner of {self._model} hangs: no output for {self._patience_s:g} s"
            ) from None
        if isinstance(event, Exception):
            raise event
        return number, event

    def _read(self, number: int, process: Process) -> None:
        try:
            for event in events(process, self._model):
                self._queue.put((number, event))
        except Exception as error:  # noqa: BLE001 - raised again by `next`, where it is waited for
            self._queue.put((number, error))


def listen(process: Process, model: str, patience_s: float, *kinds: type[Event]) -> Iterator[Event]:
    """The events of one runner of the file `model`: `kinds` in any order, and `Done` as the last.

    Errors as of `Listener.next`, and DeviceError for an event of another kind.
    """
    listener = Listener(model, patience_s)
    listener.listen(0, process)
    event: Event | None = None
    while not isinstance(event, Done):
        _, event = listener.next()
        if not isinstance(event, (*kinds, Done)):
            raise untimely(event)
        yield event


def untimely(event: Event) -> DeviceError:
    """The error for an event that no runner says at this point."""
    return DeviceError(f"the runner said {type(event).__name__} at the wrong time")
