"""A Ray cluster: at an address, or started on this machine for the sweep.

Only the driver writes the store: a job returns its files and records as text.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence

import ray

from mobiledeploy.core.errors import DeviceError

_REACH_SECONDS = 5.0


def run(
    work: Callable[[str, int], str], jobs: Sequence[str], *, workers: int, address: str
) -> Iterator[tuple[int, str]]:
    """(number of a job, the result of `work` for it), as they finish."""
    _start(workers, address)
    try:
        remote = ray.remote(max_retries=0, num_cpus=1)(work)
        free, waiting = list(range(workers)), list(enumerate(jobs))
        running: dict[object, tuple[int, int]] = {}
        while waiting or running:
            while waiting and free:
                number, job = waiting.pop(0)
                worker = free.pop()
                running[remote.remote(job, worker)] = number, worker
            (finished_job,), _ = ray.wait(list(running), num_returns=1)
            number, worker = running.pop(finished_job)
            free.append(worker)
            try:
                answer = ray.get(finished_job)
            except ray.exceptions.RayTaskError as error:
                # A defect of ours is raised as it was there.
                raise error.cause from error
            except ray.exceptions.RayError as error:
                raise DeviceError(f"Ray lost a job: {str(error).splitlines()[0]}") from error
            yield number, answer
    finally:
        ray.shutdown()


def _start(workers: int, address: str) -> None:
    # Ray prints nothing during a sweep, and its environment variable turns its usage reports off.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    if not address:
        ray.init(address="local", num_cpus=workers, **quiet)
        return
    _reach(address)
    quiet.pop("include_dashboard")
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise DeviceError(
            f"no Ray cluster at {address}: {error}", "ray status shows the cluster"
        ) from error


def _reach(address: str) -> None:
    """Fails at once if the port is closed: Ray tries for a minute and then ends the process."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise DeviceError(
            f"no Ray cluster at {address}: {error}", "give HOST:PORT as `ray start` printed it"
        ) from error
