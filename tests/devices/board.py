"""A board for the tests: a real sshd on a loopback port, and namespaces that it lets into."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SSH = shutil.which("ssh") or "ssh"
# Debian's place; it is not on the path of every user.
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
CONFIG = """Host board
  HostName 127.0.0.1
  Port {port}
  User root
Host *
  IdentityFile {folder}/key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  LocalForward 127.0.0.1:{port} 127.0.0.1:1
"""
SERVER = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
ForceCommand {login}
SetEnv HOME={folder}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PidFile none
MaxSessions {sessions}
"""


class Board:
    """A running board: its files, and its faults (board_login.sh)."""

    def __init__(self, folder: Path, root: str = "", qemu: str = "") -> None:
        self.folder, self.root = folder, root
        for name in ("var/tmp", "faults", "bin", "client", "sys/firmware/devicetree/base"):
            (folder / name).mkdir(parents=True)
        (folder / "sys/class/thermal").mkdir(parents=True)
        (folder / "sys/devices/system/cpu").mkdir(parents=True)
        for name in ("key", "host"):
            key = str(folder / name)
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = (folder / "host.pub").read_text().split()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {' '.join(words[:2])}\n")
        (folder / "config").write_text(CONFIG.format(port=self.port, folder=folder))
        # The user's own ssh, with a configuration of the tests' own.
        client = folder / "client" / "ssh"
        client.write_text(f'#!/bin/sh\nexec {SSH} -F {folder}/config "$@"\n')
        client.chmod(0o755)
        self._log = (folder / "log").open("wb")
        flags = "-Urmpf" if root else "-mpf"
        self._inside = subprocess.Popen(
            ["unshare", flags, "--kill-child", str(HERE / "board.sh"), str(folder)]
            + ([root, qemu] if root else []),
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._inside.stdout
        if self._inside.stdout.readline() != "ready\n":
            said = (folder / "log").read_text().strip()
            self.stop()
            pytest.skip(f"no namespaces for a board: {said} (docker run --privileged)")
        children = Path(f"/proc/{self._inside.pid}/task/{self._inside.pid}/children")
        (folder / "pid").write_text(children.read_text().split()[0])
        self._sshd: subprocess.Popen[bytes] | None = None
        self.plug()

    def plug(self, sessions: int = 10) -> None:
        """Starts its sshd; its login shells read nothing from the real home."""
        self.unplug()
        login = f"{HERE / 'board_login.sh'} {self.folder} {self.root}".strip()
        config = SERVER.format(port=self.port, folder=self.folder, login=login, sessions=sessions)
        (self.folder / "sshd_config").write_text(config)
        self._sshd = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=self._log
        )
        for _ in range(200):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text())

    @property
    def sshd(self) -> int:
        """The process id of its sshd."""
        assert self._sshd is not None
        return self._sshd.pid

    def unplug(self) -> None:
        """Ends its sshd: nobody is let in."""
        if self._sshd is not None:
            self._sshd.kill()
            self._sshd.wait()
            self._sshd = None

    def stop(self) -> None:
        """Ends all of it."""
        if hasattr(self, "_sshd"):
            self.unplug()
        self._inside.kill()
        self._inside.wait()
        assert self._inside.stdout
        self._inside.stdout.close()
        self._log.close()

    def reset(self) -> None:
        """As it was when it was new."""
        for name in ("var/tmp", "faults", "bin"):
            for path in (self.folder / name).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in ("masks", "lived"):
            (self.folder / name).unlink(missing_ok=True)
        base = self.folder / "sys/firmware/devicetree/base"
        (base / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
        (base / "compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
        zone = self.folder / "sys/class/thermal/thermal_zone0"
        zone.mkdir(exist_ok=True)
        (zone / "type").write_text("cpu-thermal\n")
        (zone / "temp").write_text("51200\n")
        self.throttled("0x0")
        self.tool("taskset", '#!/bin/sh\necho "$1" >> "$PHONE/masks"; shift; exec "$@"\n')
        self.pace()
        for core in range(4):
            self.core(core)

    def tool(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def throttled(self, flags: str) -> None:
        (self.folder / "throttled").write_text(f"throttled={flags}\n")
        self.tool("vcgencmd", '#!/bin/sh\ncat "$PHONE/throttled"\n')

    def core(self, number: int, cap: int = 2_400_000) -> None:
        folder = self.folder / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scaling_governor").write_text("ondemand\n")
        for name in ("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq"):
            (folder / name).write_text(f"{cap}\n")

    def pace(self, **settings: float) -> None:
        (self.folder / "pace").write_text(json.dumps(settings))

    def plant(self, fault: str, content: str = "") -> None:
        (self.folder / "faults" / fault).write_text(content)

    def heal(self, fault: str) -> None:
        (self.folder / "faults" / fault).unlink(missing_ok=True)

    def files(self) -> list[str]:
        """The files in the folder of jobs."""
        return sorted(p.name for p in (self.folder / "var/tmp").rglob("*"))

    def left(self) -> list[str]:
        """The files of jobs, once they are gone or 5 s later: a lost job is cleaned up there."""
        until = time.monotonic() + 5
        while self.files() and time.monotonic() < until:
            time.sleep(0.05)
        return self.files()

    def commands(self) -> list[str]:
        """What runs on the board; the dead have no command."""
        ours = Path(f"/proc/{(self.folder / 'pid').read_text()}/ns/pid").readlink()
        lines = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/pid").readlink() == ours:
                    lines.append((process / "cmdline").read_text().replace("\0", " ").strip())
            except OSError:
                continue
        return sorted(line for line in lines if line not in ("", "sleep 100000"))


def need() -> None:
    """Skips the test where no such board can be."""
    if os.geteuid():
        pytest.skip("an sshd of the tests' own needs root (run as root)")
    for tool, package in ((SSH, "openssh-client"), (SSHD, "openssh-server")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install {package})")
    if not Path("/run/sshd").is_dir():
        pytest.skip("sshd has no /run/sshd (mkdir /run/sshd)")
