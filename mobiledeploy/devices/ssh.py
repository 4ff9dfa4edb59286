"""Linux boards and computers, through the user's OpenSSH client: `ssh:[USER@]HOST[:PORT]`.

What the client is configured for applies: ~/.ssh/config, keys, agent, jump hosts, known hosts. It
never asks for anything (BatchMode), so keys must be in place.

A session has one connection, which all commands share (ControlMaster). The connection's own command
is the keeper: it waits for the end of its input, and then removes the job's folder. That input ends
also if the connection breaks or this process is killed.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from mobiledeploy.core import elf, inputs, leases, native
from mobiledeploy.core.errors import DeviceError, MissingError, UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import DeviceInfo, Kind
from mobiledeploy.devices import _linux, _remote
from mobiledeploy.devices._child import Child
from mobiledeploy.devices._remote import RemoteProcess, RemoteSession, ShellOutput

KIND: Kind = "measured"
RUNNER = "native"
REMOTE = True

FORM = "--device ssh:[USER@]HOST[:PORT]"

CONNECT_SECONDS = 45.0
"""How long a connection may take, with all its jump hosts and logins."""

# No leading dash, nothing that a shell or ssh's own configuration would take for more than a name.
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?)\]"
    r"|(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
# These replace what the user's configuration may say for logins by hand. A board that is silent for
# 15 s is lost.
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
    "RequestTTY=no",
    "RemoteCommand=none",
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
)
# The path of a Unix socket has at most 108 bytes, and ssh appends 17 to it for a moment.
_LONGEST_FOLDER = 70
# Where jobs have their folder: the first of these that is writable and lets programs run.
_FOLDERS = ("/var/tmp", "/tmp")  # noqa: S108 - we make a folder of our own there
_GREETING = f"""
trap '' HUP INT TERM
echo =folders; for d in {" ".join(_FOLDERS)}; do [ -w $d ] && (cd -P $d && pwd -P); done
echo =mounts; cat /proc/mounts
echo =end
IFS= read -r script; cat > /dev/null
eval "$script" > /dev/null 2>&1
"""
# coreutils, busybox without its links, or neither of them.
_SHA256 = (
    'sum() { sha256sum "$1" || busybox sha256sum "$1" || openssl dgst -sha256 -r "$1"; } '
    "2>/dev/null"
)
# Programs for aarch64 start by it; a 32-bit system with a 64-bit kernel has none.
_LOADER = "/lib/ld-linux-aarch64.so.1"
_LIBRARIES = {Path(_LOADER).name, "libstdc++.so.6"}
_TREE = "/sys/firmware/devicetree/base"
_THROTTLES = " ".join(
    f"/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/{what}_throttle_count"
    for what in ("core", "package")
)
_FACTS = f"""
echo =machine; uname -m
echo =kernel; uname -r
echo =system; grep -m 1 ^PRETTY_NAME= /etc/os-release
echo =model; cat {_TREE}/model; echo
echo =compatible; cat {_TREE}/compatible; echo
echo =product; cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name; echo
echo =cpu; grep -m 1 '^model name' /proc/cpuinfo
echo =cores; grep -c ^processor /proc/cpuinfo
echo =libraries; ls {_LOADER} /usr/lib*/libstdc++.so.6 /usr/lib/*/libstdc++.so.6
echo =glibc; getconf GNU_LIBC_VERSION || {_LOADER} --version
echo =memory; grep ^Mem /proc/meminfo
echo =load; cat /proc/loadavg
echo =ticks; getconf CLK_TCK
echo =busy; grep '^cpu ' /proc/stat
echo =throttled; vcgencmd get_throttled || /opt/vc/bin/vcgencmd get_throttled
echo =throttles; cat {_THROTTLES}
echo =files; grep -H . {_linux.FILES}
echo =taskset; command -v taskset
echo =end
"""
# The runtimes' libraries for aarch64 need this glibc; with an older one we bring our own.
_GLIBC = (2, 35)

# The list of known hosts that ssh-keygen edits if none is named.
_KNOWN_HOSTS = Path("~/.ssh/known_hosts")

# What ssh says, in the order of its importance; {who} and {host} are the machine, {last} is ssh's
# last line, {forget} are the arguments of ssh-keygen that remove a host key.
_REFUSALS = (
    (
        "Session open refused|open failed",
        "{who} allows no more sessions on one connection",
        "fewer --threads, or a higher MaxSessions in its sshd_config",
    ),
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {who} has changed",
        "find out why; if it was installed anew: ssh-keygen {forget}",
    ),
    (
        "Host key verification failed|No .* host key is known",
        "the host key of {who} is not known",
        "connect once by hand and compare it: ssh {login}",
    ),
    (
        "Permission denied|Too many authentication failures",
        "{who} accepts no key of yours",
        "ssh-copy-id {login}, or ssh-add a key; mobiledeploy asks for no passwords",
    ),
    (
        "Could not resolve hostname",
        "no machine is called {host}",
        "look at its name, or at Host in ~/.ssh/config",
    ),
    (
        "Connection refused|No route to host|timed out|unreachable|Connection (closed|reset)",
        "{who} cannot be reached: {last}",
        "is it on, and does its sshd run? ssh {login}",
    ),
)


class BoardAddress(NamedTuple):
    """USER, HOST and PORT; "" for what ssh's configuration decides."""

    user: str
    host: str
    port: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@" * bool(self.user) + host + f":{self.port}" * bool(self.port)

    @property
    def login(self) -> tuple[str, ...]:
        """The arguments of ssh that name it."""
        user = ("-l", self.user) if self.user else ()
        port = ("-p", self.port) if self.port else ()
        return (*user, *port, "--", self.host)

    @property
    def by_hand(self) -> str:
        """What a user types after `ssh`."""
        user = f"{self.user}@" if self.user else ""
        return f"-p {self.port} " * bool(self.port) + user + self.host

    @property
    def known(self) -> str:
        """Its name in known_hosts, if ~/.ssh/config has no other for it."""
        return f"[{self.host}]:{self.port}" if self.port not in ("", "22") else self.host


def available() -> tuple[DeviceInfo, ...]:
    """One line for all: a board is known by its name only."""
    about = "a Linux board or computer, through ssh"
    try:
        native.ssh()
    except MissingError as error:
        return (DeviceInfo("ssh:HOST", KIND, about, error.hint),)
    return (DeviceInfo("ssh:HOST", KIND, about, f"name it: {FORM}"),)


@contextmanager
def open(name: str, *, exclusive: bool, reporter: Reporter) -> Iterator[Board]:
    """Connects to a board and leases it.

    A board serves one job at a time, timing or not.

    Raises:
        UsageError: no HOST, or not in the form that it must have.
        MissingError: there is no ssh.
        DeviceError: the board cannot be reached, or another computer has leased it.
    """
    address = _address(name.partition(":")[2])
    with leases.hold(f"ssh-{address}", exclusive=True, reporter=reporter):
        link = SharedConnection(address)
        board: Board | None = None
        try:
            board = Board(address, link, link.connect(), reporter)
            board.claim()
            yield board
        finally:
            with _remote.undisturbed():
                if board is not None:
                    board.close()
                link.close()


class Board(RemoteSession):
    """An open lease of a board."""

    def __init__(
        self, address: BoardAddress, link: SharedConnection, folder: str, reporter: Reporter
    ) -> None:
        # A machine may have several names: a lease of ours under another name is not dead.
        super().__init__(
            str(address), f"{folder}/mobiledeploy", f"{_remote.owner()}:{address}", reporter
        )
        self._link = link
        self._machine = ""
        self._closing = False
        lease = f"{self._folder}/lease"
        link.keep(f"grep -q {self._token} {lease} && {{ {self._removal()}; }}")

    def claim(self) -> None:
        """Takes the lease on the board, and removes the files of a dead job."""
        # A connection of one session only is refused before anything is made there.
        self._shell(":")
        super().claim()

    def facts(self) -> Mapping[str, str]:
        """What the board is, and its present state; facts that it does not give are absent.

        See `analysis/validity.py`.
        """
        output = self._shell(f"{{ {_FACTS}}} 2>/dev/null")
        if "=end" not in output.out.splitlines():
            raise self._error(output.err, "it does not report its facts")
        facts_by_name = {
            key: " ".join(value.split())
            for key, value in _facts(_linux.sections(output.out))
            if value
        }
        self._machine = facts_by_name.get("machine", "").rpartition("-")[2]
        return facts_by_name

    def run(self, argv: Sequence[str]) -> BoardProcess:
        """Starts a command in the job's folder; each argument arrives as it is."""
        child = self._launch(f"umask 077; cd {self._folder} && {shlex.join(argv)}")
        return BoardProcess(child, self)

    def pull(self, remote: str, path: Path) -> None:
        """Copies a file from the board."""
        status, out, err = self._ask(f"cat {shlex.quote(remote)}", 4 * _remote.ANSWER_SECONDS)
        if status:
            raise self._error(err, f"{remote} cannot be pulled")
        path.write_bytes(out)

    def hold_clocks(self, on: bool) -> bool:
        """False: only the board's owner can do that."""
        return False

    def close(self) -> None:
        """Ends the commands and removes the job's folder, connecting again if that was lost."""
        self._closing = True
        super().close()

    def absence(self) -> DeviceError | None:
        """The error for a lost connection; None if it is alive."""
        if self._link.alive:
            return None
        return DeviceError(
            f"the connection to {self._who} was lost", "look at its power and network, try again"
        )

    def ended(self, text: str) -> tuple[int, str]:
        """The status and the standard error of a command, from its standard error by ssh.

        DeviceError if the command has not told its status: not it ended, but the way to it.
        """
        status = self._link.status(text)
        if status is not None:
            return status
        # The connection ends a moment after its commands.
        _wait(lambda: not self._link.alive)
        raise (
            self.absence()
            or self._link.refusal(text)
            or DeviceError(f"{self._who}: a command's shell was ended there", "try again")
        )

    def started(self, lines: Iterator[str]) -> Iterator[str]:
        """The lines after those that the login shell of the board prints on its own."""
        for line in lines:
            if self._link.begins(line):
                break
        yield from lines

    def _refuse_foreign(self, path: Path) -> bool:
        program = elf.read(path)
        if program is None:
            return False
        if not self._machine:
            self.facts()
        if self._machine and program.machine != self._machine:
            raise DeviceError(
                f"{path.name} is for {program.machine}, and {self._who} is {self._machine}",
                "take the build for that machine",
            )
        return True

    def _start(self, command: str) -> Child:
        return Child(self._link.command(command))

    def _send(self, path: Path, remote: str, digest: str, seconds: float) -> None:
        # A comma is in no other name.
        part, whole = shlex.quote(f"{remote},part"), shlex.quote(remote)
        script = (
            f"umask 077; {_SHA256}; cat > {part} && {{ it=$(sum {part}); "
            f'echo "sum: ${{it%%[ *]*}}"; case "$it" in {digest}*) mv -f {part} {whole} && echo '
            "moved;; esac; }"
        )
        with inputs.open_file(path) as stream:
            _, out, err = self._ask(script, seconds, stream)
        told = re.search(r"^sum: ?(.*)$", out.decode("utf-8", "replace"), re.MULTILINE)
        if told is None or (told[1] == digest and b"moved" not in out.split()):
            raise self._error(err, f"{path.name} cannot be copied there")
        if not told[1]:
            raise DeviceError(
                f"{self._who} has nothing that computes a sha256",
                "install coreutils, busybox or openssl there",
            )
        if told[1] != digest:
            # A connection that breaks cuts the file off a moment before it is seen to be lost.
            _wait(lambda: not self._link.alive)
            raise self._damaged(path.name, digest, told[1], "look at its disk and memory")

    def _shell(self, script: str) -> ShellOutput:
        status, out, err = self._ask(
            f"export LC_ALL=C; umask 077; {script}", _remote.ANSWER_SECONDS
        )
        return ShellOutput(status, out.decode("utf-8", "replace"), err)

    def _ask(
        self, script: str, seconds: float, stdin: IO[bytes] | int = subprocess.DEVNULL
    ) -> tuple[int, bytes, str]:
        """Status, standard output and standard error of a script."""
        if self._closing and not self._link.alive:
            self._link.connect()
        hangs = DeviceError(
            f"{self._who} hangs: no answer for {seconds:.0f} s", f"ssh {self._link.by_hand}"
        )
        _, out, err = _remote.run(self._link.command(script), seconds, hangs, stdin)
        status, text = self.ended(err.decode("utf-8", "replace"))
        return status, self._link.after_start(out), text


class BoardProcess(RemoteProcess):
    """A command that runs on a board, through its own ssh process."""

    def __init__(self, child: Child, board: Board) -> None:
        super().__init__(child, board)
        self._board = board

    def lines(self) -> Iterator[str]:
        """Its standard output, line by line, until it ends."""
        return self._board.started(super().lines())

    def wait(self) -> tuple[int, str]:
        """Its exit status (negative: the signal that ended it) and the tail of its standard error.

        DeviceError where not the command ended, but the way to it.
        """
        _, tail = self._child.wait()
        status, text = self._board.ended(tail)
        return _remote.status_of_shell(status), text


class SharedConnection:
    """The connection that all commands of a session share, and the keeper at its other end.

    Each command prints a mark before its output and its exit status after its standard error: what
    a login shell prints on its own is not taken for output, and ssh's status 255 for no command's.
    """

    def __init__(self, address: BoardAddress) -> None:
        self._address = address
        self._ssh = native.ssh()
        self._mark = f"mobiledeploy-{secrets.token_hex(8)}"
        self._folder: Path | None = None
        self._keeper: Child | None = None
        self._last_wish = ""
        self.by_hand = address.by_hand

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._keeper is not None and self._keeper.running

    def connect(self) -> str:
        """Connects, also once more; returns the folder there for jobs.

        DeviceError if that is refused.
        """
        self.close()
        self._folder = _short_folder()
        self._keeper = keeper = Child(
            self._argv("ControlMaster=yes", wrapped(_GREETING, self._mark))
        )
        late = threading.Timer(CONNECT_SECONDS, _end, (keeper,))
        late.start()
        try:
            greeting = self._greeting(keeper)
        finally:
            late.cancel()
        if self._last_wish:
            keeper.send(self._last_wish)
        return _folder(str(self._address), greeting)

    def keep(self, script: str) -> None:
        """Leaves one line of script with the keeper, which runs it when this connection ends."""
        self._last_wish = script
        assert self._keeper is not None
        self._keeper.send(script)

    def close(self) -> None:
        """Ends the connection; may be called again."""
        if (keeper := self._keeper) is not None:
            keeper.stop()
            # Another command that hangs would keep it; the keeper's work goes on without it.
            _wait(lambda: not keeper.running)
            keeper.kill()
            self._keeper = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def command(self, script: str) -> tuple[str, ...]:
        """The argv that runs a script on it.

        Where it is lost, ssh would connect anew, alone; the proxy that fails forbids that.
        """
        return self._argv("ControlMaster=no", wrapped(script, self._mark), "ProxyCommand=false")

    def begins(self, line: str) -> bool:
        """Whether the output begins after this line."""
        return line.rstrip().endswith(self._mark)

    def after_start(self, out: bytes) -> bytes:
        """The output of a script without what the login shell printed."""
        return out.partition(f"{self._mark}\n".encode())[2]

    def status(self, text: str) -> tuple[int, str] | None:
        """The exit status of a command and its standard error; None if it has told none."""
        before, told, after = text.rpartition(f"\n{self._mark}:")
        match = re.match(r"(\d{1,3})\n", after)
        return (int(match[1]), before) if told and match else None

    def refusal(self, text: str) -> DeviceError | None:
        """The error for what ssh said; None for words that are not known."""
        address = self._address
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
        words = {
            "who": str(address),
            "host": address.host,
            "login": address.by_hand,
            "forget": _forget(text, address.known),
            "last": last.removeprefix("ssh: "),
        }
        for pattern, message, hint in _REFUSALS:
            if re.search(pattern, text):
                return DeviceError(message.format(**words), hint.format(**words))
        return None

    def _greeting(self, keeper: Child) -> list[str]:
        """The lines of the keeper's greeting."""
        lines: list[str] = []
        begun = False
        for line in keeper.lines():
            if begun and line == "=end\n":
                return lines
            if begun or not self.begins(line):
                lines.append(line)
            else:
                begun, lines = True, []
        status, text = keeper.wait()
        if status == -signal.SIGKILL:
            raise DeviceError(
                f"{self._address} does not let us in within {CONNECT_SECONDS:.0f} s",
                f"ssh {self.by_hand}",
            )
        words = [word.strip() for word in (*lines, *text.splitlines()) if word.strip()]
        if status != 255:
            said = f": {words[-1]}" if words else ""
            raise DeviceError(
                f"{self._address} has no shell for us{said}",
                f"this must work: ssh {self.by_hand} sh -c true",
            )
        raise self.refusal(text) or DeviceError(
            f"ssh to {self._address} failed: {words[-1] if words else 'it does not say why'}",
            f"ssh {self.by_hand}",
        )

    def _argv(self, master: str, command: str, *options: str) -> tuple[str, ...]:
        socket = f"ControlPath={self._folder}/s"
        words = [
            word for option in (master, socket, *options, *_OPTIONS) for word in ("-o", option)
        ]
        return (self._ssh, *words, *self._address.login, command)


def wrapped(script: str, mark: str) -> str:
    """A command for a login shell: `script` in sh, between `mark` and `mark` with its status."""
    told = f"printf '\\n%s:%s\\n' {mark} $? >&2"
    return f"sh -c {shlex.quote(f'echo {mark}; {{ {script}{chr(10)}}}; {told}')}"


def _forget(text: str, name: str) -> str:
    """The arguments of ssh-keygen that remove the host key that ssh reports as changed.

    ssh tells its name in the list of known hosts and the file, which ~/.ssh/config may set; it may
    also be the key of a jump host.
    """
    told = re.search(r"Host key for (\S+) has changed", text)
    listed = re.search(r"Offending .*key in (.+):\d+", text)
    file = ("-f", listed[1]) if listed and Path(listed[1]) != _KNOWN_HOSTS.expanduser() else ()
    return shlex.join((*file, "-R", told[1] if told else name))


def _address(text: str) -> BoardAddress:
    if not text:
        raise UsageError("--device ssh names no machine", FORM)
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is not [USER@]HOST[:PORT]",
            "an IPv6 address stands in brackets: ssh:[fe80::1%eth0]:22"
            if text.count(":") > 1
            else "letters, digits, dots, dashes and underscores; other settings: ~/.ssh/config",
        )
    user, ipv6, name, port = match.group("user", "ipv6", "name", "port")
    if ipv6:
        with suppress(ValueError):
            ipaddress.IPv6Address(ipv6)
            name = ipv6
        if not name:
            raise UsageError(f"[{ipv6}] is not an IPv6 address", FORM)
    if port and not 0 < int(port) < 65536:
        raise UsageError(f"{port} is not a port", "from 1 to 65535")
    return BoardAddress(user or "", name, port or "")


def _short_folder() -> Path:
    """A new folder for the socket of a connection, for this user only."""
    folders = [tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp makes one of its own in it
    # ssh replaces %, and splits at spaces and quotes.
    parent = next((f for f in folders if re.fullmatch(rf"[\w/.+-]{{1,{_LONGEST_FOLDER}}}", f)), "")
    try:
        return Path(tempfile.mkdtemp(prefix="mobiledeploy-", dir=parent or folders[-1]))
    except OSError as error:
        raise UsageError(
            f"no folder for ssh's socket can be made: {error.strerror}", "set TMPDIR"
        ) from error


def _wait(until: Callable[[], bool]) -> None:
    """Waits for the end of a connection, for a second at most."""
    start = time.monotonic()
    while not until() and time.monotonic() - start < 1.0:
        time.sleep(0.01)


def _end(keeper: Child) -> None:
    with suppress(ProcessLookupError):
        os.kill(keeper.pid, signal.SIGKILL)


def _folder(who: str, greeting: Sequence[str]) -> str:
    """The folder there for jobs, in the output of the greeting."""
    parts = _linux.sections("".join(greeting))
    # The device, the folder, the kind and the options.
    mounts = [line.split() for line in parts.get("mounts", [])]
    options = {words[1]: words[3].split(",") for words in mounts if len(words) > 3}
    for folder in parts.get("folders", []):
        if not re.fullmatch(r"[\w/.+-]+", folder):
            continue
        above = [folder, *map(str, Path(folder).parents)]
        if "noexec" not in next((options[f] for f in above if f in options), []):
            return folder
    raise DeviceError(
        f"{who} has no folder that is writable and lets programs run",
        f"one of {', '.join(_FOLDERS)} must be so",
    )


def _facts(parts: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    def first(name: str) -> str:
        return next((line for line in parts.get(name, []) if line), "").strip("\0")

    def value(name: str, separator: str) -> str:
        return first(name).partition(separator)[2].strip('" ')

    cpu = value("cpu", ":")
    yield "model", first("model") or " ".join(parts.get("product", [])) or "Linux machine"
    # The list goes from the board to the chip.
    yield "soc", first("compatible").rpartition("\0")[2] or cpu
    yield "cpu", cpu
    machine = first("machine")
    # "glibc 2.36", or "ld.so (Debian GLIBC 2.36-9) stable release version 2.36."
    glibc = re.search(r"(\d+)\.(\d+)", first("glibc").rpartition(")")[2])
    version = (int(glibc[1]), int(glibc[2])) if glibc else (0, 0)
    yield "glibc", ".".join(map(str, version)) if glibc else ""
    libraries = {Path(line).name for line in parts.get("libraries", [])}
    usual = libraries == _LIBRARIES and version >= _GLIBC
    yield "machine", machine if usual or machine != "aarch64" else f"bare-{machine}"
    yield "cores", first("cores")
    yield "kernel", first("kernel")
    yield "system", value("system", "=")
    for line in parts.get("memory", []):
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            kind = "memory_kb" if name == "MemTotal" else "memory_available_kb"
            yield kind, rest.split()[0] if rest.split() else ""
    yield "load", " ".join(first("load").split()[:3])
    yield from _busy(first("busy"), first("ticks"))
    throttled = re.fullmatch(r"throttled=(0x[0-9a-fA-F]{1,8})", first("throttled"))
    yield "throttled", throttled[1] if throttled else ""
    counts = [int(line) for line in parts.get("throttles", []) if line.isdigit()]
    yield "throttle_count", str(sum(counts)) if counts else ""
    state = dict(_linux.state(parts.get("files", [])))
    yield from state.items()
    yield "temperature_cpu_c", _celsius(state.get("temperatures_millicelsius", ""))
    yield "taskset", "yes" if first("taskset") else ""


def _busy(line: str, ticks: str) -> Iterator[tuple[str, str]]:
    """Seconds of CPU since the start, over all cores, as of `host`."""
    words = line.split()[1:]
    if len(words) < 8 or not all(word.isdigit() for word in words[:8]):
        return
    user, nice, system, _, _, irq, softirq, steal = map(int, words[:8])
    tick = int(ticks) if ticks.isdigit() and int(ticks) else 100
    yield "busy_cpu_s", f"{(user + nice + system + irq + softirq) / tick:.2f}"
    yield "stolen_cpu_s", f"{steal / tick:.2f}"


def _celsius(text: str) -> str:
    """The hottest sensor of the processor in 'cpu-thermal:51200 gpu-thermal:49000'; "" for none."""
    zones = re.findall(r"(\S+):(-?\d{1,6})(?:\s|$)", text)
    own = [int(t) for name, t in zones if re.search(r"cpu|core|soc|pkg", name, re.IGNORECASE)]
    return f"{max(own) / 1000:.1f}" if own else ""
