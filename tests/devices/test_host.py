from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from mobiledeploy.core.errors import DeviceError, UsageError
from mobiledeploy.core.plugins import DEVICES
from mobiledeploy.devices import _child, host

ECHO = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)\nprint('end')"


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_command_reads_and_writes(heard) -> None:
    with DEVICES.load("host").open("host", exclusive=False, reporter=heard) as session:
        process = session.run([sys.executable, "-c", ECHO])
        process.send("abc")
        lines = process.lines()
        assert next(lines) == "cba\n"
        process.stop()
        assert list(lines) == ["end\n"]
        assert process.wait() == (0, "")


def test_everything_ends_with_the_lease(heard) -> None:
    with host.open("host", exclusive=False, reporter=heard) as session:
        child = session.run(
            [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(99)"]
        )
        next(child.lines())
        assert alive(child.pid)
    assert not alive(child.pid)
    child.kill()


def test_sending_to_an_ended_process_is_harmless() -> None:
    child = _child.Child([sys.executable, "-c", "import sys; sys.exit('no ' * 9000)"])
    status, tail = child.wait()
    assert status == 1
    assert 1000 < len(tail) <= 4096
    for _ in range(3):
        child.send("x" * 100_000)
    child.stop()
    assert list(child.lines()) == []
    child.kill()


def test_a_child_that_closes_its_output_and_does_not_end_is_killed() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_child, "GRACE_SECONDS", 0.2)
        child = _child.Child([sys.executable, "-c", "import os, time; os.close(1); time.sleep(99)"])
        assert list(child.lines()) == []
        assert child.wait()[0] == -9
        child.kill()


def test_a_program_that_cannot_be_started_is_named(tmp_path) -> None:
    with pytest.raises(DeviceError, match="cannot be started: No such file"):
        _child.Child([str(tmp_path / "nothing")])


def test_the_machine_reports_its_facts(heard) -> None:
    with host.open("host", exclusive=False, reporter=heard) as session:
        facts = session.facts()
        begun = time.process_time()
        while time.process_time() - begun < 0.2:
            pass
        later = session.facts()
    assert facts["cores"] == str(os.cpu_count())
    assert facts["cpu"]
    assert facts["kernel"] == os.uname().release
    assert all(isinstance(value, str) and value for value in facts.values())
    if "busy_cpu_s" in facts:
        assert float(later["busy_cpu_s"]) - float(facts["busy_cpu_s"]) >= 0.15


def test_files_are_already_here(heard, tmp_path) -> None:
    (tmp_path / "a").write_text("model")
    with host.open("host", exclusive=False, reporter=heard) as session:
        there = session.push(tmp_path / "a")
        session.pull(there, tmp_path / "b")
    assert Path(there).is_absolute()
    assert (tmp_path / "b").read_text() == "model"


def test_the_host_has_no_parts(heard) -> None:
    with pytest.raises(UsageError, match="no parts"):
        host.open("host:1", exclusive=False, reporter=heard).__enter__()
