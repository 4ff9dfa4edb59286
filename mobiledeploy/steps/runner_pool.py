"""Runner processes that answer for images, one for each core; each gets ranges of images."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import cores
from mobiledeploy.core import protocol, records
from mobiledeploy.core.errors import DeviceError
from mobiledeploy.core.plugins import RUNNERS
from mobiledeploy.core.ports import Process, Session
from mobiledeploy.core.types import ModelOutput, Target

# A runner that is silent for so long hangs. An emulated inference of a large network takes minutes.
PATIENCE_S = 900.0
# The longest range of images. Ranges get shorter towards the end, so that all cores finish
# together.
_LONGEST_RANGE = 32
_RANGES_LEFT = 4


def answer_rows(answer: protocol.Answer) -> tuple[NDArray[np.float32], ...]:
    """The values of each output, float32 [values]; DeviceError if they are none."""
    try:
        return tuple(np.frombuffer(base64.b64decode(r, validate=True), "<f4") for r in answer.rows)
    except ValueError as error:
        raise DeviceError(
            f"the runner's answer for {answer.sample} is not a row of numbers"
        ) from error


def answer_outputs(
    answer: protocol.Answer, ends: Sequence[ModelOutput]
) -> tuple[NDArray[np.float32], ...]:
    """The outputs, each float32 of the shape of its end; DeviceError for another size."""
    rows = answer_rows(answer)
    try:
        return tuple(row.reshape(end.shape) for row, end in zip(rows, ends, strict=True))
    except ValueError as error:
        raise DeviceError(
            f"the runner's answer for {answer.sample} does not fit the outputs of its model"
        ) from error


def image_ranges(count: int, workers: int) -> Iterator[tuple[int, int]]:
    """Splits 0..count into ranges that get shorter towards the end."""
    start = 0
    while start < count:
        length = max(1, min(_LONGEST_RANGE, (count - start) // (_RANGES_LEFT * workers)))
        yield start, start + length
        start += length


class RunnerPool:
    """Runner processes that answer for ranges of images; each has its next range in advance."""

    def __init__(
        self,
        session: Session,
        path: Path,
        target: Target,
        work: protocol.Work,
        workers: int,
        *,
        is_recording: bool = False,
        patience_s: float | None = None,
        on_ready: Callable[[protocol.Ready], None] | None = None,
    ) -> None:
        self.ready: protocol.Ready
        self.workers = workers
        self.runner = target.runner
        self._session = session
        self._driver = driver = RUNNERS.load(target.runner)
        self._model = path.name
        facts = session.facts()
        # A recording that is played back needs no runner, so its files may be missing.
        parts = (
            {}
            if is_recording
            else driver.files(facts.get("machine", ""), target.runtime, target.delegate)
        )
        files = {role: session.push(file) for role, file in parts.items()}
        model = session.push(path)
        argv = () if is_recording else driver.predict(model, target, files)
        self._argv = cores.placed(argv, facts, workers)
        self._work = work
        self._listener = protocol.Listener(path.name, patience_s or PATIENCE_S)
        self._on_ready = on_ready
        self._start = self._end = 0.0

    def seconds(self) -> float:
        """The time from the readiness of all runners to the last answer."""
        return max(self._end - self._start, 1e-9)

    def answers(
        self, ranges: Iterator[tuple[int, int]]
    ) -> Iterator[protocol.Answer | protocol.Skipped]:
        """Every answer, in no order; the runners are killed when this ends, also after an error."""
        processes: list[Process] = []
        try:
            for number in range(self.workers):
                process = self._session.run(self._argv)
                processes.append(self._driver.hear_answers(process, self._model))
                processes[-1].send(records.line(self._work))
                self._listener.listen(number, processes[-1])
            self._wait_until_ready()
            yield from self._share(processes, ranges)
            self._end = self._session.clock()
        finally:
            for process in processes:
                process.kill()

    def _wait_until_ready(self) -> None:
        for _ in range(self.workers):
            _, event = self._listener.next()
            if not isinstance(event, protocol.Ready):
                raise DeviceError(f"the runner said {type(event).__name__} before it was ready")
            self.ready = event
            if self._on_ready:
                self._on_ready(event)
        self._start = self._end = self._session.clock()

    def _share(
        self, processes: Sequence[Process], ranges: Iterator[tuple[int, int]]
    ) -> Iterator[protocol.Answer | protocol.Skipped]:
        # The requests to each runner without an answer: the range that it works on, and one more,
        # so that it never waits for us.
        waiting: list[list[tuple[int, int]]] = [[] for _ in processes]

        def refill(number: int) -> None:
            while len(waiting[number]) < 2 and (next_range := next(ranges, None)):
                waiting[number].append(next_range)
                processes[number].send(f"{next_range[0]} {next_range[1]}")

        for number in range(len(processes)):
            refill(number)
        while any(waiting):
            number, event = self._listener.next()
            if not isinstance(event, protocol.Answer | protocol.Skipped) or not waiting[number]:
                raise DeviceError(f"the runner said {type(event).__name__}, which was not asked")
            start, stop = waiting[number][0]
            if event.index != start:
                raise DeviceError(f"the runner answered for image {event.index}, not {start}")
            waiting[number][0] = (start + 1, stop)
            if start + 1 == stop:
                del waiting[number][0]
                refill(number)
            yield event
