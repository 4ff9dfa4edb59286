"""One command line in a process of its own, watched: how it ended, and what it left.

The process is forked from this one, which has imported the commands already, so that a thousand of
them take minutes. What it starts is new: runners always, TensorFlow's processes where they are
wanted.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from _bad_inputs import Case

from mobiledeploy.cli import main

KINDS = ("traceback", "exit 70", "hang", "over 1 GB", "files left", "other")
"""What can be wrong. Other: a crash, a code that does not stand for it, processes left."""
SECONDS, WHOLE_SECONDS = 40.0, 150.0
LARGEST_BYTES = 1 << 30
_ENDED_BYTES = 2 << 30
_SUBREAPER = 36
# docs/exit-codes.md; verdicts are for commands that judge or measure.
_JUDGES = ("check", "verify", "results")
_CODES = frozenset((0, 2, 5, 6, 7, 130))


@dataclass(frozen=True)
class DeviceInfo:
    """How it ended: exit code (negative: a signal), seconds, peak memory, what was wrong."""

    code: int
    seconds: float
    peak_bytes: int
    faults: dict[str, str]
    said: str


def prepare(python: Path) -> None:
    """Makes `python`: an interpreter that is killed as one of TensorFlow's processes begins."""
    adopt()
    python.write_text(
        '#!/bin/sh\ncase "$*" in *mobiledeploy.verbs.*) kill -9 $$;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)


def adopt() -> None:
    """Orphans of this process's children come to it from now on."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def environment(place: Path) -> dict[str, str]:
    """That of an ordinary user whose folders are in `place`, and who reaches no network."""
    nowhere = "http://127.0.0.1:9"
    kept = {key: os.environ[key] for key in ("PYTHONPATH", "LANG") if key in os.environ}
    return kept | {
        "HOME": str(place / "home"),
        "XDG_CACHE_HOME": str(place / "home" / "cache"),
        "XDG_CONFIG_HOME": str(place / "home" / "config"),
        "TMPDIR": str(place / "tmp"),
        "PATH": "/usr/bin:/bin",
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "PYTHONDONTWRITEBYTECODE": "1",
        "ANDROID_ADB_SERVER_PORT": str(_adb_port(place)),
    }


def _adb_port(place: Path) -> int:
    """A port of its own for the adb of a case: that of this machine may serve somebody's phone."""
    return 20_000 + zlib.crc32(os.fsencode(place)) % 10_000


def place_for(sound: Path, place: Path) -> Path:
    """Makes `place` with a folder of the sound files, a home and a folder for temporary files."""
    for name in ("home", "tmp"):
        (place / name).mkdir(parents=True)
    shutil.copytree(sound, place / "work", symlinks=True)
    return place / "work"


def remove(place: Path) -> None:
    """Removes `place`, folders that were sealed too."""
    waiting = [place]
    while waiting:
        folder = waiting.pop()
        folder.chmod(0o700)
        waiting += [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    shutil.rmtree(place)


def start(case: Case, place: Path, python: Path, said: int) -> int:
    """Forks the command line; the process id. What it says is written to the open file `said`."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        _become(case, place, python, said)
        code = main.run()
        for stream in (sys.stdout, sys.stderr):
            # As the interpreter does when it ends.
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


def _become(case: Case, place: Path, python: Path, said: int) -> None:
    os.setsid()
    os.chdir(place / "work")
    os.environ.clear()
    os.environ.update(environment(place))
    for key, value in case.env.items():
        os.environ.pop(key, None)
        if value is not None:
            os.environ[key] = value
    tempfile.tempdir = None
    if "TZ" in case.env:
        time.tzset()
    sys.argv = ["mobiledeploy", *case.argv]
    if not case.whole:
        sys.executable = str(python)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if case.most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (case.most_bytes, case.most_bytes))
    _streams(case, said)


def _streams(case: Case, said: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 2)
    match case.stdout:
        case "closed":
            os.close(1)
        case "left":
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, 1)
        case "/dev/full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        case _:
            os.dup2(said, 1)


def watch(case: Case, place: Path, python: Path) -> DeviceInfo:
    """Runs the case in `place`; what was wrong with it."""
    before = snapshot(place)
    readers = [
        subprocess.Popen(["cat", place / "work" / name], stdout=subprocess.DEVNULL)
        for name in case.reads
    ]
    began = time.monotonic()
    # Not a file: a limit on the size of files is not for what is said.
    read, write = os.pipe()
    pid = start(case, place, python, write)
    os.close(write)
    heard = bytearray()
    listener = threading.Thread(target=_listen, args=(read, heard))
    listener.start()
    limit = WHOLE_SECONDS if case.whole else SECONDS
    status, used, hung = _wait(pid, began + limit)
    seconds = time.monotonic() - began
    for reader in readers:
        reader.kill()
        reader.wait()
    _stop_adb(place)
    orphans = sweep()
    listener.join()
    said = heard.decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status)
    peak = used.ru_maxrss * 1024
    faults = {}
    if "Traceback (most recent call last)" in said:
        faults["traceback"] = said[-2000:]
    if code == 70:
        faults["exit 70"] = said[-2000:]
    if hung:
        faults["hang"] = f"{seconds:.0f} s: {said[-500:]}"
    if peak > LARGEST_BYTES:
        faults["over 1 GB"] = f"{peak >> 20} MB"
    left = _left(before, snapshot(place), case.makes)
    if left:
        faults["files left"] = ", ".join(left)
    wrong = "" if hung else _wrong(case, code, said)
    if orphans:
        wrong += f" processes left: {orphans}"
    if wrong:
        faults["other"] = wrong
    return DeviceInfo(code, seconds, peak, faults, said)


def _stop_adb(place: Path) -> None:
    """Ends the server that adb starts when it is asked anything: it is meant to stay, so adb."""
    try:
        socket.create_connection(("127.0.0.1", _adb_port(place)), timeout=1).close()
    except OSError:
        return
    # Where it does not answer it is found among the orphans.
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["adb", "kill-server"],
            env=environment(place),
            cwd=place,
            check=False,
            capture_output=True,
            timeout=10,
        )


def _listen(read: int, heard: bytearray) -> None:
    with os.fdopen(read, "rb", buffering=0) as stream:
        while part := stream.read(1 << 16):
            heard += part


def _wait(pid: int, until: float) -> tuple[int, resource.struct_rusage, bool]:
    """Waits for it, and kills it at the time `until`: status, what it used, whether it was late."""
    pause = 0.002
    while True:
        found, status, used = os.wait4(pid, os.WNOHANG)
        if found:
            return status, used, False
        late = time.monotonic() > until
        if late or _resident(pid) > _ENDED_BYTES:
            os.kill(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
            return status, used, late
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def sweep(patience: float = 3.0) -> list[str]:
    """Waits for orphans that came to this process; names and kills those that outstay it."""
    until = time.monotonic() + patience
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if found:
            continue
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    named = []
    for child in _children():
        with suppress(OSError):
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
            named.append(line.decode("utf-8", "replace")[:200])
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return named


def _children() -> list[int]:
    return [
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def _wrong(case: Case, code: int, said: str) -> str:
    if code < 0:
        return f"killed by signal {-code}: {said[-500:]}"
    command = case.argv[0] if case.argv else ""
    fits = (
        code in _CODES
        or (code in (1, 3) and any(word in _JUDGES for word in case.argv))
        or (code == 4 and "bench" in case.argv)
        or code == 70  # counted on its own
    )
    if not fits:
        return f"{command} ended in {code}: {said[-500:]}"
    # Without a command there is the help, and code 2.
    if code in (2, 5, 6, 7) and "error: " not in said and case.argv:
        return f"code {code} without a line of error: {said[-500:]}"
    return ""


# --- what lies where ------------------------------------------------------------------------


def snapshot(place: Path) -> dict[str, tuple[object, ...]]:
    """What lies in the folders of a case: path -> kind, number, size, and time of change."""
    found: dict[str, tuple[object, ...]] = {}
    for part in ("work", "home", "tmp"):
        for folder, folders, names in os.walk(place / part):
            for name in (*folders, *names):
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    facts = path.lstat()
                    kind = stat.S_IFMT(facts.st_mode)
                    now = (facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(kind) else ()
                    same = () if stat.S_ISDIR(kind) else (facts.st_ino,)
                    found[str(path.relative_to(place))] = (kind, *same, *now)
    return found


# What stays in our own cache: the lease of a machine, which several processes know by its name, and
# the list of fonts that matplotlib makes. Where the environment names no folder it is ~/.cache.
_KEPT = re.compile(r"home/\.?(cache|config)(/mobiledeploy(/(leases|matplotlib)(/.*)?)?)?")
# What adb's server leaves on its own: its key in the home, its port, and its log among temporary
# files, whichever folders the environment says these are.
_ADB = re.compile(r"(.+/)?(\.android(/(adbkey(\.pub)?|adb\.\d+))?|adb\.\d+\.log)")


def _left(
    before: dict[str, tuple[object, ...]],
    after: dict[str, tuple[object, ...]],
    makes: Sequence[str],
) -> list[str]:
    """Paths that are new, gone or changed, but for those that the command may make."""
    return sorted(
        ascii(path)
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path) and not _may(path, makes)
    )


def _may(path: str, makes: Sequence[str]) -> bool:
    parts = Path(path).parts
    if _KEPT.fullmatch(path) or _ADB.fullmatch(path):
        return True
    if parts[0] != "work" or len(parts) < 2:
        return False
    hidden = any(part.startswith(".") for part in parts[2:])
    return not hidden and any(fnmatchcase(parts[1], pattern) for pattern in makes)
