from __future__ import annotations

import dataclasses
import signal
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import protocol
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, UsageError
from mobiledeploy.core.types import Failure, Tensor
from mobiledeploy.devices._child import Child

TENSOR = Tensor("image", (1, 8, 8, 3), "int8", (0.5,), (-1,))
READY = protocol.Ready(
    2, "litert", "2", (TENSOR,), (TENSOR, TENSOR), "xnnpack", 3, None, 1, "x86_64"
)


@pytest.mark.parametrize(
    "event",
    [
        READY,
        protocol.Loaded(3, None, 0),
        protocol.Timed((1, 2)),
        protocol.Answer(3, "a/b.png", -1, ("AAAA", "")),
        protocol.Skipped(3, "a", "broken"),
        protocol.Fed("a.npz"),
        protocol.Done(5),
        Failure(7, "no", ""),
    ],
)
def test_every_event_survives_the_round_trip(event: protocol.Event) -> None:
    assert protocol.parse(protocol.line(event)) == event


@given(st.text(max_size=60))
def test_anything_else_is_the_devices_fault(text: str) -> None:
    with pytest.raises(DeviceError, match="not a line of its protocol"):
        protocol.parse(text)


@pytest.mark.parametrize(
    "line",
    [
        "INFO: Created a delegate.",
        "[]",
        "null",
        '{"record":"Timed"}',
        '{"schema_version":3,"record":"Timed","samples_ns":[1]}',
        '{"schema_version":1,"record":"Timed","samples_ns":[1.5]}',
        '{"schema_version":1,"record":["Timed"],"samples_ns":[1]}',
        '{"schema_version":1,"record":"Artifact"}',
        "[" * 100_000,
        '{"schema_version":1,"record":"Timed","samples_ns":[1,0]}',
        '{"schema_version":1,"record":"Timed","samples_ns":[18446744073709551616]}',
        protocol.line(READY).replace('"threads":1', '"threads":0'),
        protocol.line(protocol.Loaded(None, None, -1)),
        protocol.line(protocol.Loaded(3, -1, 0)),
        protocol.line(protocol.Loaded(3, 1, 0)).replace("0}", "null}"),
        protocol.line(READY).replace("0.5", "1e999"),
    ],
)
def test_a_line_that_only_looks_like_an_event_is_refused(line: str) -> None:
    with pytest.raises(DeviceError, match="not a line of its protocol"):
        protocol.parse(line)


def test_another_version_is_refused() -> None:
    text = protocol.line(READY).replace('"protocol":2', '"protocol":3')
    with pytest.raises(DeviceError, match="protocol 3, not 2"):
        protocol.parse(text)


def test_a_line_of_version_1_is_read_as_one_of_today() -> None:
    """Recordings hold such lines, with one input, one output and one row."""
    tensor = (
        '{"name":"image","shape":[1,8,8,3],"dtype":"int8","scale":[0.5],"zero_point":[-1],'
        '"axis":null}'
    )
    head = '{"schema_version":1,"record":'
    ready = protocol.parse(
        f'{head}"Ready","protocol":1,"runtime":"litert","version":"2","input":{tensor},'
        f'"output":{tensor},"delegate":"xnnpack","delegated_nodes":3,"total_nodes":null,'
        '"threads":1,"cpu":"x86_64"}'
    )
    assert ready == dataclasses.replace(READY, outputs=(TENSOR,))
    answer = protocol.parse(f'{head}"Answer","index":3,"sample":"a","label":-1,"row":"AAAA"}}')
    assert answer == protocol.Answer(3, "a", -1, ("AAAA",))
    assert protocol.parse(f'{head}"Timed","samples_ns":[1]}}') == protocol.Timed((1,))
    assert protocol.parse(f'{head}"Fed","outputs":"a.npz"}}') == protocol.Fed("a.npz")


def events_of(script: str) -> list[protocol.Event]:
    child = Child([sys.executable, "-c", script])
    try:
        return list(protocol.events(child, "a.tflite"))
    finally:
        child.kill()


@pytest.mark.parametrize(("code", "kind"), [(2, UsageError), (7, InputError), (70, DeviceError)])
def test_a_refusal_is_raised_as_it_was(code: int, kind: type[DeployError]) -> None:
    line = protocol.line(Failure(code, "it cannot", "do that"))
    with pytest.raises(DeployError, match="it cannot; do that") as excinfo:
        events_of(f"print({line!r})")
    assert type(excinfo.value) is kind


def test_the_end_of_a_runner_is_reported_with_its_last_line() -> None:
    line = protocol.line(protocol.Timed((1,)))
    script = f"import sys; print({line!r}); print('first\\nout of memory\\n', file=sys.stderr)"
    with pytest.raises(DeviceError, match=r"ended with status 3 before .*; out of memory"):
        events_of(script + "; sys.exit(3)")


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (signal.SIGKILL, DeviceError, "the runner was killed by signal 9 (out of memory?); close"),
        (signal.SIGTERM, DeviceError, "the runner was killed by signal 15; try again"),
        (signal.SIGILL, DeviceError, "the runner was killed by signal 4; try again"),
        (signal.SIGSEGV, InputError, "the runner crashed on a.tflite (SIGSEGV); the file is dama"),
        (signal.SIGBUS, InputError, "the runner crashed on a.tflite (SIGBUS); the file is damaged"),
        (signal.SIGABRT, InputError, "the runner crashed on a.tflite (SIGABRT); the file is dama"),
        (signal.SIGFPE, InputError, "the runner crashed on a.tflite (SIGFPE); the file is damaged"),
    ],
)
def test_the_signal_decides_the_error(
    number: signal.Signals, kind: type[DeployError], message: str
) -> None:
    chatter = "print('INFO: Created TensorFlow Lite XNNPACK delegate', file=sys.stderr, flush=True)"
    with pytest.raises(DeployError) as excinfo:
        events_of(f"import os, sys; {chatter}; os.kill(os.getpid(), {int(number)})")
    assert type(excinfo.value) is kind
    assert str(excinfo.value).startswith(message)
    assert "INFO" not in str(excinfo.value)


def test_an_abort_for_lack_of_memory_is_not_blamed_on_the_file() -> None:
    words = "terminate called after throwing an instance of 'std::bad_alloc'"
    with pytest.raises(DeviceError, match="the runner ran out of memory"):
        events_of(f'import os, sys; print("{words}", file=sys.stderr, flush=True); os.abort()')


def test_chatter_between_events_ends_it() -> None:
    line = protocol.line(protocol.Timed((1,)))
    with pytest.raises(DeviceError, match="'INFO: a delegate', which is not a line"):
        events_of(f"print({line!r}); print('INFO: a delegate'); print({line!r})")


def test_a_listener_knows_each_runner_and_which_one_is_silent() -> None:
    line = protocol.line(protocol.Timed((1,)))
    one = Child([sys.executable, "-c", f"print({line!r}); print({line!r}); print('no')"])
    two = Child([sys.executable, "-c", f"print({line!r}, flush=True); input()"])
    listener = protocol.Listener("a.tflite", 30.0)
    try:
        listener.listen(1, one)
        message = [listener.next(), listener.next()]
        with pytest.raises(DeviceError, match="'no', which is not a line"):
            listener.next()
        listener = protocol.Listener("a.tflite", 0.5)
        listener.listen(2, two)
        with pytest.raises(DeviceError, match="of a.tflite hangs: no output for 0.5 s"):
            while True:
                message.append(listener.next())
    finally:
        one.kill()
        two.kill()
    assert message[:2] == [(1, protocol.Timed((1,)))] * 2
    assert set(message[2:]) <= {(2, protocol.Timed((1,)))}


def test_lines_after_done_are_not_read() -> None:
    line = protocol.line(protocol.Done(7))
    assert events_of(f"print({line!r}); print('bye')") == [protocol.Done(7)]


def test_an_error_while_reading_is_raised_at_once() -> None:
    class Broken:
        def lines(self):
            raise ZeroDivisionError("a slip")

    listener = protocol.Listener("a.tflite", 30.0)
    listener.listen(0, Broken())
    with pytest.raises(ZeroDivisionError, match="a slip"):
        listener.next()
