"""This machine: each worker is a thread that waits for the process that its job runs in."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

_Answer = tuple[int, str | BaseException]


def run(
    work: Callable[[str, int], str], jobs: Sequence[str], *, workers: int, address: str
) -> Iterator[tuple[int, str]]:
    """(number of a job, the result of `work` for it), as they finish; `address` is not used."""
    waiting: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    for numbered in enumerate(jobs):
        waiting.put(numbered)
    # Daemon threads: after an interrupt nothing waits for running jobs, which end with this
    # process.
    for worker in range(min(workers, len(jobs))):
        threading.Thread(target=_serve, args=(work, worker, waiting, answers), daemon=True).start()
    try:
        for _ in jobs:
            number, answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield number, answer
    finally:
        _empty(waiting)


def _serve(
    work: Callable[[str, int], str],
    worker: int,
    waiting: queue.SimpleQueue[tuple[int, str]],
    answers: queue.SimpleQueue[_Answer],
) -> None:
    while True:
        try:
            number, job = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            answers.put((number, work(job, worker)))
        except BaseException as error:  # noqa: BLE001 - raised again where the answers are read
            answers.put((number, error))


def _empty(waiting: queue.SimpleQueue[tuple[int, str]]) -> None:
    try:
        while True:
            waiting.get_nowait()
    except queue.Empty:
        return
