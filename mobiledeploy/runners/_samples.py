"""What runners that predict share: a sample becomes inputs, and raw outputs become its answer.

`Answering` does this for a program that takes raw inputs only, in this process.
"""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mobiledeploy.core import arrays, preprocessing, protocol, records
from mobiledeploy.core.errors import BrokenImage, DeviceError, InputError
from mobiledeploy.core.pixels import PixelCache
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import Array, Process, Samples
from mobiledeploy.core.protocol import Answer, RawAnswer, Ready, Skipped, Work
from mobiledeploy.core.types import Tensor


def opened(work: Work) -> Samples:
    """The samples that the work names."""
    data = work.data
    return dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
    )


def need_same(model: str, own: Sequence[Tensor], actual: Sequence[Tensor]) -> None:
    """InputError if the tensors of a record are not those of its file."""
    name = Path(model).name
    if len(own) != len(actual):
        raise InputError(f"{name} has {len(actual)} tensors, its record says {len(own)}")
    for one, other in zip(own, actual, strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise InputError(
                f"{name} has {other.name} as {other.dtype} {list(other.shape)}, "
                f"its record says {one.dtype} {list(one.shape)}"
            )


def prepared(samples: Samples, index: int, work: Work) -> list[Array] | Skipped:
    """The raw inputs for a sample, in the order of the artifact's record."""
    cache = PixelCache(Path(work.pixels), work.data) if work.pixels else None
    try:
        tensors = preprocessing.sample_inputs(samples, index, work.signature, cache)
    except BrokenImage as error:
        return Skipped(index, samples.id(index), error.message)
    return [
        preprocessing.to_input(x, tensor, work.layout)
        for x, tensor in zip(tensors, work.inputs, strict=True)
    ]


def answered(samples: Samples, index: int, raw: Sequence[Array], work: Work) -> Answer:
    """The answer with the raw outputs in the order of the record; InputError for NaN in it."""
    name = samples.id(index)
    rows = []
    for output, tensor in zip(raw, work.outputs, strict=True):
        row = preprocessing.from_output(output, tensor, work.layout)
        if not np.isfinite(row).all():
            raise InputError(
                f"the model answers NaN or infinity for image {name}",
                "check its weights and its preprocessing",
            )
        rows.append(base64.b64encode(row.astype("<f4").tobytes()).decode())
    return Answer(index, name, samples.label(index), tuple(rows))


class Answering:
    """A running `answer` program that takes a `Work` and ranges, as a `predict` program does.

    A thread prepares and sends samples while others are answered, so that a slow link and a slow
    device work at the same time. Nothing waits on a device that takes no more: `lines` does.
    """

    def __init__(self, process: Process, model: str) -> None:
        self._process = process
        self._model = model
        self._work: Work | None = None
        self._samples: Samples | None = None
        self._ended = False
        # From the new ones to those that are on their way, each in its order.
        self._ranges: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._sent: queue.SimpleQueue[int | Skipped | Exception | None] = queue.SimpleQueue()

    def send(self, line: str) -> None:
        """The work first, then ranges."""
        if self._work is None:
            self._work = records.loads(Work, line, "the work")
            return
        start, stop = map(int, line.split())
        self._ranges.put((start, stop))

    def lines(self) -> Iterator[str]:
        """Its events, as those of a `predict` program."""
        work = self._work
        assert work is not None
        lines = self._process.lines()
        first = next(lines, None)
        if first is None:
            return
        ready = protocol.parse(first)
        if not isinstance(ready, Ready):
            yield first
            yield from lines
            return
        # Engines list tensors in the order of a signature, which may be another than the file's.
        order_in = protocol.places(work.inputs, ready.inputs)
        order_out = protocol.places(work.outputs, ready.outputs)
        need_same(self._model, work.inputs, [ready.inputs[i] for i in order_in])
        outputs = [ready.outputs[i] for i in order_out]
        need_same(self._model, work.outputs, outputs)
        yield protocol.line(replace(ready, inputs=work.inputs, outputs=work.outputs))
        self._samples = samples = opened(work)
        threading.Thread(
            target=self._feed, args=(work, samples, np.argsort(order_in)), daemon=True
        ).start()
        while (sent := self._sent.get()) is not None:
            if isinstance(sent, Exception):
                raise sent
            if isinstance(sent, Skipped):
                yield protocol.line(sent)
                continue
            text = next(lines, None)
            if text is None:
                return
            event = protocol.parse(text)
            if isinstance(event, RawAnswer):
                if event.index != sent:
                    raise DeviceError(f"the runner answered for image {event.index}, not {sent}")
                raw = arrays.raw(protocol.raw_outputs(event), ready.outputs)
                event = answered(samples, sent, [raw[i] for i in order_out], work)
            yield protocol.line(event)
        yield from lines

    def _feed(self, work: Work, samples: Samples, places: Sequence[int]) -> None:
        """Prepares and sends; `places` are the record's places of the program's inputs."""
        try:
            while (range_ := self._ranges.get()) is not None:
                for index in range(*range_):
                    if self._ended:
                        return
                    tensors = prepared(samples, index, work)
                    if isinstance(tensors, Skipped):
                        self._sent.put(tensors)
                        continue
                    self._sent.put(index)
                    content = b"".join(tensors[place].tobytes() for place in places)
                    self._process.send(protocol.raw_inputs(index, content))
            self._process.stop()
            self._sent.put(None)
        except Exception as error:  # noqa: BLE001 - raised again by `lines`
            self._sent.put(error)

    def stop(self) -> None:
        """Ends it after the last range."""
        self._ranges.put(None)

    def wait(self) -> tuple[int, str]:
        """The program's exit status and the tail of its standard error."""
        return self._process.wait()

    def kill(self) -> None:
        """Ends it at once."""
        self._ended = True
        self._ranges.put(None)
        self._sent.put(None)
        self._process.kill()
