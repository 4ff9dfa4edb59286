"""Python processes that have their imports behind them: forked from one that imports once.

Importing TensorFlow takes three seconds of a core, the command line half a second, a runtime a
third, and the tests start some hundred of each. A warm process is a process all the same: it has
its own memory, its own signals and exit code, and the standard streams, environment, folder and
limits of whoever asked for it. Only what it imports is there already.

`program()` is an executable that takes the place of `sys.executable`: for the modules of
`IMPORTS` it asks a server for a fork, passes signals on and ends as the fork ends; for anything
else it becomes the real interpreter. A test about the process itself (its death, its memory, what
it imports) starts `sys.executable`.

Two things differ on purpose: an export of a warm process times each file for a tenth of the time,
and a conversion does not open a model that another one has opened (tests/opened.py).

This file is all three: what the tests import, the server, and the program's template.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import importlib.util
import inspect
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

# Variables that a process reads while it starts or imports: another value needs a real start.
EARLY = ("PYTHON", "LD_", "OMP_", "KERAS_BACKEND", "COVERAGE_", "MALLOC_")
COMMAND_LINE = "mobiledeploy"
JOB = "mobiledeploy.verbs.sweep"
RUNNER = "mobiledeploy.runners.python"
STEPS = "mobiledeploy.steps"
CHILDREN = tuple(f"{STEPS}.{name}_process" for name in ("conversion", "training", "tracing"))
# The limit of an export's timing of a file, in seconds: it is the subject of no test.
BENCH_SECONDS = 0.2
# module -> the server that it is forked from.
SERVERS = dict.fromkeys((COMMAND_LINE, JOB), "commands") | dict.fromkeys(CHILDREN, "tensorflow")
SERVERS |= {RUNNER: "runners"}


def early(environment):  # The program has this text too: it needs no import.
    """The variables of EARLY, but for what our own modules set when they are imported."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(EARLY) and (name, value) != ("KERAS_BACKEND", "tensorflow")
    }


PROGRAM = '''#!{python} -IS
"""Asks a server of tests/warm.py for a process, or becomes the real interpreter."""
import array, json, os, resource, signal, socket, sys

EARLY = {variables!r}

{early}
def real():
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])

words = sys.argv[1:]
safe = words[:1] == ["-P"]
words = words[safe:]
servers = {servers!r}
if words[:1] != ["-m"] or len(words) < 2 or words[1] not in servers:
    real()
path, started_with = servers[words[1]]
if early(os.environ) != started_with or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    real()
limits = [n for n in dir(resource) if n.startswith("RLIMIT_")]
request = {{
    "module": words[1],
    "arguments": words[2:],
    "safe": safe,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "umask": os.umask(0o077),
    "cores": sorted(os.sched_getaffinity(0)),
    "limits": {{n: resource.getrlimit(getattr(resource, n)) for n in limits}},
}}
os.umask(request["umask"])
server = socket.socket(socket.AF_UNIX)
try:
    server.connect(path)
except OSError:
    real()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: server.sendall(bytes([number])))
text = json.dumps(request).encode()
streams = array.array("i", [0, 1, 2])
header = len(text).to_bytes(4, "big")
server.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
server.sendall(text)
for number in (0, 1, 2):
    os.close(number)
status = int(server.recv(16) or b"9")
if status < 0x80 and status:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if status not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(status, signal.SIG_DFL)
    os.kill(os.getpid(), status)
os._exit(os.waitstatus_to_exitcode(status))
'''


_program = sys.executable


def program() -> str:
    """The executable: within a session the warm one, else the real interpreter."""
    return _program


@contextmanager
def session(opened: Path) -> Iterator[None]:
    """The servers, and `program()`, which asks them; at the end all that they forked is ended.

    Their conversions keep in the folder `opened` what they opened (tests/opened.py).
    """
    global _program
    # Not in pytest's folders: the path of a socket has a hundred bytes at most.
    with tempfile.TemporaryDirectory(prefix="warm-") as folder, ExitStack() as stack:
        _program = _started(Path(folder), opened, stack)
        try:
            yield
        finally:
            _program = sys.executable


def _started(folder: Path, opened: Path, stack: ExitStack) -> str:
    path = folder / "python"
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
    known: dict[str, tuple[str, dict[str, str]]] = {}
    for name in dict.fromkeys(SERVERS.values()):
        # Of the verbs' children: each walks a set in the same order.
        environment = inherited | ({"PYTHONHASHSEED": "0"} if name == "tensorflow" else {})
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / name))
        listener.listen(64)
        log = stack.enter_context((folder / f"{name}.log").open("wb"))
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listener.fileno()), name, str(path), str(opened)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            env=environment | {"KERAS_HOME": str(folder), "MPLCONFIGDIR": str(folder)},
            start_new_session=True,
        )
        stack.callback(_stop, server)
        known |= {
            module: (str(folder / name), early(environment))
            for module, of in SERVERS.items()
            if of == name
        }
    path.write_text(
        PROGRAM.format(
            python=sys.executable,
            variables=EARLY,
            early=inspect.getsource(early),
            servers=known,
        )
    )
    path.chmod(0o755)
    return str(path)


def _stop(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin
    server.stdin.close()
    server.wait(60)


def _import(name: str, program: str, opened: str) -> None:
    """What each fork needs first."""
    folder = Path(importlib.import_module("mobiledeploy").__file__ or "").parent
    if name == "commands":
        for room in ("cli", "verbs", "steps"):
            for path in sorted((folder / room).glob("[a-z]*.py")):
                importlib.import_module(f"mobiledeploy.{room}.{path.stem}")
        importlib.import_module(f"{STEPS}.child_process").INTERPRETER = (program, "-P")
        importlib.import_module(RUNNER).INTERPRETER = (program, "-P")
        importlib.import_module("mobiledeploy.verbs.export").BENCH_SECONDS = BENCH_SECONDS
        # It is run, as __main__.
        del sys.modules[JOB]
        return
    if name == "runners":
        importlib.import_module(RUNNER)
        shelf = importlib.import_module("mobiledeploy.core.plugins").DATASETS
        for plugin in shelf.names():
            shelf.load(plugin)
        importlib.import_module("ai_edge_litert.interpreter")
        importlib.import_module("onnxruntime")
        del sys.modules[RUNNER]
        return
    for module in (
        *CHILDREN,
        "mobiledeploy.frameworks",
        "mobiledeploy.sources._tensorflow",
        "mobiledeploy.frameworks.tf_keras",
        "mobiledeploy.graphs.quantized",
    ):
        importlib.import_module(module)
    path = Path(__file__).with_name("opened.py")
    spec = importlib.util.spec_from_file_location("opened", path)
    assert spec and spec.loader
    opened_models = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(opened_models)
    opened_models.remember(Path(opened))
    # Each fork starts TensorFlow's threads itself: of those that stand, it would have none.
    context = importlib.import_module("tensorflow.python.eager.context")
    assert context._context is None or not context._context._initialized
    for module in CHILDREN:
        # It is run, as __main__.
        del sys.modules[module]


class _Server:
    """Forks a process for whoever asks, and says how it ended."""

    def __init__(self, listener: socket.socket, *what: str) -> None:
        self._listener, self._what = listener, what
        self._loop = selectors.DefaultSelector()
        self._clients: dict[int, socket.socket] = {}
        self._imported = False

    def serve(self) -> dict[str, Any]:
        """Ends with the tests, whose pipe is the standard input; returns in a fork, its request."""
        self._loop.register(0, selectors.EVENT_READ, self._stop)
        self._loop.register(self._listener, selectors.EVENT_READ, self._accept)
        while True:
            for key, _ in self._loop.select():
                # An earlier event of the same moment may have ended it.
                if self._loop.get_map().get(key.fd) == key:
                    request = key.data()
                    if request is not None:
                        return request

    def _stop(self) -> None:
        for pid in self._clients:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    def _accept(self) -> dict[str, Any] | None:
        connection, _ = self._listener.accept()
        if not self._imported:
            _import(*self._what)
            # So that no fork copies the pages of what it does not change.
            gc.collect()
            gc.freeze()
            self._imported = True
        header, ancillary, *_ = connection.recvmsg(4, socket.CMSG_SPACE(12))
        if not ancillary:
            connection.close()
            return None
        streams = array.array("i")
        streams.frombytes(ancillary[0][2])
        length = int.from_bytes(header, "big")
        text = b""
        while len(text) < length:
            text += connection.recv(length - len(text))
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            self._clients[pid] = connection
            end = os.pidfd_open(pid)
            self._loop.register(end, selectors.EVENT_READ, partial(self._end, pid, end))
            self._loop.register(connection, selectors.EVENT_READ, partial(self._signal, pid))
            return None
        for other in (connection, self._listener, *self._clients.values()):
            other.close()
        self._loop.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        request: dict[str, Any] = json.loads(text)
        return request

    def _end(self, pid: int, end: int) -> None:
        _, status = os.waitpid(pid, 0)
        self._loop.unregister(end)
        os.close(end)
        connection = self._clients.pop(pid)
        if connection in self._loop.get_map():
            self._loop.unregister(connection)
        with suppress(OSError):
            connection.sendall(str(status).encode())
        connection.close()

    def _signal(self, pid: int) -> None:
        """What the client was sent; where it was killed, the fork is."""
        connection = self._clients[pid]
        numbers = connection.recv(16)
        if not numbers:
            self._loop.unregister(connection)
        for number in numbers or [signal.SIGKILL]:
            os.kill(pid, number)


def _become(request: dict[str, Any]) -> None:
    """The process that was asked for, up to its first line."""
    os.setsid()
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.sched_setaffinity(0, request["cores"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for name, (soft, hard) in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    # It is found out once, and was by what is imported.
    tempfile.tempdir = None
    sys.argv = [request["module"], *request["arguments"]]
    if not request["safe"]:
        sys.path.insert(0, str(Path.cwd()))
    open_ = partial(open, encoding="utf-8", closefd=False)
    sys.stdin = open_(0)
    sys.stdout = open_(1, "w")
    sys.stderr = open_(2, "w", 1, errors="backslashreplace")


def _run(module: str) -> int:
    """What `python -m` does; the exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, int | None):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """As an interpreter ends, but that it frees no memory: of a fork, that is all to be copied."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    os._exit(code)


if __name__ == "__main__":
    wanted = _Server(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:]).serve()
    _become(wanted)
    _end(_run(str(wanted["module"])))
