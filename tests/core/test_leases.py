from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from mobiledeploy.core import leases

HOLDER = """
import sys
from mobiledeploy.core import leases
class Quiet:
    def say(self, line): print(line, flush=True)
with leases.hold("host", exclusive=sys.argv[1] == "exclusive", reporter=Quiet()):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_work_shares_and_a_timing_does_not(heard) -> None:
    with leases.hold("host", exclusive=False, reporter=heard), holder("shared") as other:
        assert line(other) == "held"
        other.communicate()
    with leases.hold("host", exclusive=False, reporter=heard), holder("exclusive") as timing:
        assert line(timing) == "waiting: another mobiledeploy works on host"
        timing.kill()
    assert heard.said == []


def test_a_lease_of_another_process_is_waited_for(heard) -> None:
    with holder("exclusive") as other:
        assert line(other) == "held"
        threading.Timer(0.5, other.kill).start()
        start = time.monotonic()
        # The process is killed: that releases the lease too.
        with leases.hold("host", exclusive=True, reporter=heard):
            assert time.monotonic() - start > 0.3
    assert other.returncode == -signal.SIGKILL
    waiting = "waiting: another mobiledeploy works on host"
    assert heard.said == [waiting]
    assert heard.steps == [(waiting, 0, 1), (waiting, 1, 1)]


def test_machines_are_leased_apart(heard) -> None:
    with (
        leases.hold("host", exclusive=True, reporter=heard),
        leases.hold("adb:ABC/../1", exclusive=True, reporter=heard),
    ):
        assert heard.said == []


def test_a_wait_can_be_interrupted(heard) -> None:
    with leases.hold("host", exclusive=True, reporter=heard), holder("exclusive") as other:
        assert line(other).startswith("waiting")
        other.send_signal(signal.SIGINT)
        # Its standard input is open and we hold the lease: only the signal can end it.
        assert other.wait(10) != 0
