from __future__ import annotations

import os
import time

import pytest

from mobiledeploy.core.errors import DeviceError
from mobiledeploy.core.plugins import EXECUTORS


def work(job: str, worker: int) -> str:
    time.sleep(0.05)
    return f"{job} {worker} {os.getpid()}"


# Ray takes a while to start.
@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name == "ray" else [])
        for name in EXECUTORS.names()
    ]
)
def executor(request):
    if request.param == "ray":
        pytest.importorskip("ray", reason="no Ray (pip install 'mobiledeploy[ray]')")
    return EXECUTORS.load(request.param)


def test_every_job_is_answered_once_by_a_worker_of_the_number(executor) -> None:
    jobs = [f"job{n}" for n in range(12)]
    answers = list(executor.run(work, jobs, workers=3, address=""))
    assert sorted(number for number, _ in answers) == list(range(12))
    for number, text in answers:
        job, worker, _ = text.split()
        assert job == jobs[number]
        assert 0 <= int(worker) < 3


def test_no_job_is_no_answer(executor) -> None:
    assert list(executor.run(work, [], workers=2, address="")) == []


def test_a_defect_in_a_job_is_raised(executor) -> None:
    def fail(job: str, worker: int) -> str:
        raise ValueError(job)

    with pytest.raises(ValueError, match="a"):
        list(executor.run(fail, ["a"], workers=1, address=""))


def test_an_absent_cluster_is_noticed_at_once() -> None:
    pytest.importorskip("ray", reason="no Ray (pip install 'mobiledeploy[ray]')")
    ray = EXECUTORS.load("ray")
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "host:99999999"):
        with pytest.raises(DeviceError, match="no Ray cluster"):
            list(ray.run(work, ["a"], workers=1, address=address))
