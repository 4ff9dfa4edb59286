"""Phones, through the user's adb binary: `adb`, or `adb:SERIAL` if several are connected."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mobiledeploy.core import elf, leases, native
from mobiledeploy.core.errors import DeviceError, MissingError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import DeviceInfo, Kind, NamedWarning
from mobiledeploy.devices import _android, _remote
from mobiledeploy.devices._child import Child
from mobiledeploy.devices._remote import RemoteProcess, ShellOutput

KIND: Kind = "measured"
RUNNER = "native"
REMOTE = True

FOLDER = "/data/local/tmp/mobiledeploy"
# How long a phone may take for its model: it is asked on the side.
_MODEL_SECONDS = 5.0
_FIXED_MODE = "cmd power set-fixed-performance-mode-enabled"

_FIXES = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "authorizing": "unlock it and allow USB debugging for this computer",
    "offline": "plug it in again, or adb reconnect offline",
    "connecting": "wait a moment, or plug it in again",
    "no permissions": "add udev rules for it (apt install android-sdk-platform-tools-common)",
    "recovery": "start Android on it",
    "sideload": "start Android on it",
    "bootloader": "start Android on it",
}
_CONNECT = "connect a phone with USB debugging turned on"


def available() -> tuple[DeviceInfo, ...]:
    """The phones that adb sees; `about` starts with the model and a comma."""
    try:
        phones = _phones()
    except MissingError as error:
        return (DeviceInfo("adb", KIND, "phones", error.hint),)
    except DeviceError as error:
        return (DeviceInfo("adb", KIND, "phones", error.message),)
    if not phones:
        return (DeviceInfo("adb", KIND, "phones", _CONNECT),)
    return tuple(
        DeviceInfo(
            f"adb:{phone.serial}",
            KIND,
            f"{_model(phone) or 'a phone'}, through adb",
            "" if phone.state == "device" else f"{phone.state}: {_fix(phone.state)}",
        )
        for phone in phones
    )


@contextmanager
def open(name: str, *, exclusive: bool, reporter: Reporter) -> Iterator[Phone]:
    """Leases a phone; `adb` is the one of ANDROID_SERIAL, otherwise the only one.

    A phone serves one job at a time, timing or not.

    Raises:
        MissingError: there is no adb.
        DeviceError: no such phone is ready, or another computer has leased it.
    """
    serial = _choose(name.partition(":")[2])
    with leases.hold(f"adb-{serial}", exclusive=True, reporter=reporter):
        phone = Phone(serial, reporter)
        try:
            phone.claim()
            yield phone
        finally:
            with _remote.undisturbed():
                phone.close()


class Phone(_remote.RemoteSession):
    """An open lease of a phone."""

    UNDO = f"[ -e {{folder}}/fixed ] && {_FIXED_MODE} false >/dev/null 2>&1"

    def __init__(self, serial: str, reporter: Reporter) -> None:
        super().__init__(f"phone {serial}", FOLDER, _remote.owner(), reporter)
        self._serial = serial
        self._abis: list[str] = []
        self._page_bytes = 0

    def facts(self) -> Mapping[str, str]:
        """What the phone is, and its present state.

        See `_android.facts`, `analysis/validity.py`.
        """
        output = self._shell(_android.FACTS)
        if "=end" not in output.out.splitlines():
            raise self._error(output.err, "it does not report its facts")
        facts_by_name = _android.facts(output.out)
        self._abis = facts_by_name.get("abis", "").split(",")
        self._page_bytes = int(facts_by_name.get("page_bytes", "0"))
        return facts_by_name

    def run(self, argv: Sequence[str]) -> RemoteProcess:
        """Starts a command in the job's folder; each argument arrives as it is."""
        return RemoteProcess(self._launch(f"cd {FOLDER} && exec {shlex.join(argv)}"), self)

    def pull(self, remote: str, path: Path) -> None:
        """Copies a file from the phone."""
        seconds = 4 * _remote.ANSWER_SECONDS
        output = self._adb("pull", remote, str(path.resolve()), seconds=seconds)
        if output.status:
            raise self._error(output.err or output.out, f"{remote} cannot be pulled")

    def hold_clocks(self, on: bool) -> bool:
        """Android's fixed-performance mode (since 11, without root).

        False if the phone has none.
        """
        command = f"touch {FOLDER}/fixed; {_FIXED_MODE} true" if on else f"{_FIXED_MODE} false"
        output = self._shell(f"{{ {command}; }} 2>&1 && echo done")
        # "Failed to set FIXED_PERFORMANCE mode", if the power HAL does not support it.
        return output.out.split()[-1:] == ["done"] and not re.search(
            r"failed|unknown|error", output.out, re.IGNORECASE
        )

    def absence(self) -> DeviceError | None:
        """The error for a phone that is no longer connected; None if it is."""
        state = next((phone.state for phone in _phones() if phone.serial == self._serial), None)
        if state == "device":
            return None
        if state is None:
            return DeviceError(f"{self._who} was lost", "look at its cable, and try again")
        return DeviceError(f"{self._who} is {state}", _fix(state))

    def _refuse_foreign(self, path: Path) -> bool:
        program = elf.read(path)
        if program is None:
            return False
        if not self._abis:
            self.facts()
        content_abi = _android.abi(program.machine)
        if any(self._abis) and content_abi not in self._abis:
            raise DeviceError(
                f"{path.name} is for {content_abi}, and {self._who} runs {', '.join(self._abis)}",
                "take the build for the phone's ABI",
            )
        self._check_pages(path.name, program)
        return True

    def _check_pages(self, name: str, program: elf.ElfFile) -> None:
        """DeviceError for pages that the phone has not; a warning for those of other phones."""
        pages = program.page_bytes
        if pages is None or program.machine != "aarch64" or pages >= elf.PAGE_BYTES:
            return
        linked = f"{name} is linked for pages of {pages} bytes"
        remedy = f"link it with {elf.LINKER_OPTION}, or take a build for 16 KB pages"
        if pages < self._page_bytes:
            raise DeviceError(f"{linked}, and {self._who} has pages of {self._page_bytes}", remedy)
        self._reporter.warn(
            NamedWarning("small-pages", f"{linked}: phones with 16 KB pages do not load it", remedy)
        )

    def _start(self, command: str) -> Child:
        return Child((*_command(self._serial), "shell", command))

    def _send(self, path: Path, remote: str, digest: str, seconds: float) -> None:
        output = self._adb("push", str(path.resolve()), remote, seconds=seconds)
        if output.status:
            raise self._error(output.err or output.out, f"{path.name} cannot be pushed")
        output = self._shell(f"sha256sum {shlex.quote(remote)}")
        remote_digest = (output.out.split() or [""])[0]
        if remote_digest != digest:
            raise self._damaged(path.name, digest, remote_digest, "try another cable")

    def _shell(self, script: str) -> ShellOutput:
        """Runs a short script; DeviceError if adb fails.

        The phone's shell ends with 0 whatever the status of `script`: another status is a failure
        of adb.
        """
        seconds = _remote.ANSWER_SECONDS
        output = self._adb("shell", f"{{ {script}\n}}; :", seconds=seconds)
        if output.status:
            raise self._error(output.err or output.out, f"`{script[:40]}` failed")
        return output

    def _adb(self, *arguments: str, seconds: float) -> ShellOutput:
        return _run((*_command(self._serial), *arguments), self._who, seconds)

    def _error(self, text: str, what: str) -> DeviceError:
        return super()._error(re.sub(r"(?m)^(adb: )?(error: )?", "", text), what)


def _run(command: Sequence[str], who: str, seconds: float) -> ShellOutput:
    """One adb command, to its end; DeviceError after `seconds`."""
    hangs = DeviceError(
        f"{who} hangs: no answer to adb {_verb(command)} for {seconds:.0f} s",
        "unplug it and plug it in again, or adb kill-server",
    )
    status, out, err = _remote.run(command, seconds, hangs)
    return ShellOutput(status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _verb(command: Sequence[str]) -> str:
    return next(word for word in command[1:] if word in ("shell", "push", "pull", "devices"))


def _command(serial: str) -> tuple[str, ...]:
    return (native.adb(), "-s", serial)


def _phones() -> list[_android.ListedPhone]:
    output = _run((native.adb(), "devices", "-l"), "adb", _remote.ANSWER_SECONDS)
    if output.status:
        lines = output.err.strip().splitlines() or ["adb devices failed"]
        raise DeviceError(f"adb cannot start its server: {lines[-1]}", "adb kill-server")
    return _android.parse_devices(output.out)


def _model(phone: _android.ListedPhone) -> str:
    """The model of a phone, also if its adbd's banner lacks it; "" if it cannot be asked."""
    if phone.model or phone.state != "device":
        return phone.model
    try:
        output = _run(
            (*_command(phone.serial), "shell", _android.MODEL),
            f"phone {phone.serial}",
            _MODEL_SECONDS,
        )
    except DeviceError:
        return ""
    return _android.facts(output.out).get("model", "")


def _choose(serial_: str) -> str:
    """The serial number of a phone that is ready."""
    phones = _phones()
    serial = serial_ or os.environ.get("ANDROID_SERIAL", "")
    ready = [phone.serial for phone in phones if phone.state == "device"]
    phone_list = _phone_list(phones)
    if serial:
        state = next((phone.state for phone in phones if phone.serial == serial), None)
        if state is None:
            raise DeviceError(f"no phone {serial} is connected", phone_list)
        if state != "device":
            raise DeviceError(f"phone {serial} is {state}", _fix(state))
        return serial
    if len(ready) == 1:
        return ready[0]
    if ready:
        raise DeviceError(
            f"{len(ready)} phones are connected", f"choose by --device adb:SERIAL: {phone_list}"
        )
    if len(phones) == 1:
        raise DeviceError(f"phone {phones[0].serial} is {phones[0].state}", _fix(phones[0].state))
    raise DeviceError("no phone is ready" if phones else "no phone is connected", phone_list)


def _phone_list(phones: Sequence[_android.ListedPhone]) -> str:
    each = [f"{phone.serial} ({_model(phone) or phone.state})" for phone in phones]
    return f"there are {', '.join(each)}" if each else _CONNECT


def _fix(state: str) -> str:
    return _FIXES.get(state, "look at its screen, and plug it in again")
