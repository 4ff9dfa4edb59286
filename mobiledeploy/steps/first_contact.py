"""The first contact with a phone, one step after the other: what is there, what is missing.

What it tells goes into a file that a user may send to strangers. So facts and lines of the phone's
tools are allowed by list, and serial numbers, names of computers and home folders are replaced.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mobiledeploy import __version__
from mobiledeploy.core import elf, errors, native, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, MissingError
from mobiledeploy.core.plugins import DEVICES, RUNNERS
from mobiledeploy.core.types import Target
from mobiledeploy.steps import shell_output

if TYPE_CHECKING:
    from mobiledeploy.core.ports import Reporter, Session

StepState = Literal["ok", "warning", "failed", "skipped"]

STEPS = (
    *("adb", "phone", "permission", "lease", "system", "abi", "storage", "runner"),
    *("heat", "battery", "screen", "clocks", "energy"),
)
"""The steps in their order. Without one of the first five, the others are skipped."""

FACTS = (
    *("model", "manufacturer", "soc", "android", "sdk", "abis", "machine", "kernel"),
    *("page_bytes", "free_bytes", "taskset", "core_capacity", "governor", "frequency_khz"),
    *("frequency_cap_khz", "time_in_state", "temperatures_millicelsius", "temperature_cpu_c"),
    *("battery_percent", "battery_c", "charger", "thermal_status", "screen"),
)
"""The facts that the record keeps; the build's fingerprint may name who built it."""

PATIENCE_S = 60.0
LITTLE_SPACE_BYTES = 200 * 10**6
WARM_BATTERY_C = 38.0
LOW_BATTERY_PERCENT = 30

_DEVELOPER = (
    "Settings, About phone: tap Build number seven times; then System, Developer options, USB "
    "debugging; and take a cable that carries data"
)
# What a tool may tell: its command, and how lines begin that say nothing of the owner.
_TOOLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "battery": (
        ("dumpsys", "battery"),
        (
            *("AC powered: ", "USB powered: ", "Wireless powered: ", "Dock powered: "),
            *("Max charging current: ", "Max charging voltage: ", "Charge counter: "),
            *("status: ", "health: ", "present: ", "level: ", "scale: ", "voltage: "),
            *("temperature: ", "technology: ", "current now: "),
        ),
    ),
    "thermal": (
        ("dumpsys", "thermalservice"),
        (
            *("IsStatusOverride: ", "Thermal Status: ", "HAL Ready: ", "Cached ", "Current "),
            *("Temperature{", "CoolingDevice{"),
        ),
    ),
}
# The battery of a mouse or headset has the address of that in its name, with colons.
_POWER_LINE = re.compile(
    r"=reading [\d.]+|/sys/class/power_supply/[\w-]{1,40}/\w+:[\w -]*"
    r"|(Charge counter|voltage|status): -?\d+|\w+ powered: true"
)
# A shorter name is a part of other words.
_SHORTEST_PRIVATE = 4
_LONGEST_ANSWER = 2000


@dataclass(frozen=True)
class ContactStep(Record):
    """A step of the first contact: what is there, and the advice for what is not as it should be.

    `skipped` is a step whose conditions are not met; `warning` does not prevent measurements.
    """

    name: str
    state: StepState
    about: str = ""
    advice: str = ""


@dataclass(frozen=True)
class FirstContact(Record):
    """The answer of `doctor --phone`; the same is in its file, which can be sent as an issue.

    It holds the version of mobiledeploy, the kind of this computer (Linux x86_64), the steps, the
    phone's model, system, chip, clocks, temperatures and battery (`facts`), and what its tools
    print of the battery and of temperatures (`answers`, by tool). It holds no serial number, no
    name of a person, computer or network, no build number, and no list of apps. `exit_code` is that
    of the first failed step, 0 if there is none.
    """

    version: str
    platform: str
    made_at: str
    steps: tuple[ContactStep, ...]
    facts: Mapping[str, str]
    answers: Mapping[str, tuple[str, ...]]
    exit_code: int

    @property
    def failed(self) -> ContactStep | None:
        """The first failed step."""
        return next((step for step in self.steps if step.state == "failed"), None)

    def tables(self) -> tuple[Table, ...]:
        """A row for each step."""
        rows = tuple(
            (step.name, step.state, *map(units.one_line, (step.about, step.advice or "–")))
            for step in self.steps
        )
        return (Table(("step", "state", "what is there", "what to do"), rows),)


def walk(reporter: Reporter) -> FirstContact:
    """All steps with the phone of ANDROID_SERIAL, otherwise the only one."""
    contact = _Contact(reporter)
    with ExitStack() as stack:
        contact.all(stack)
    return contact.record()


class _Contact:
    """The walk so far."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._steps: dict[str, ContactStep] = {}
        self._facts: Mapping[str, str] = {}
        self._answers: dict[str, tuple[str, ...]] = {}
        self._exit_code = 0
        self._private = {socket.gethostname(): "this computer", str(Path.home()): "~"}

    def record(self) -> FirstContact:
        """All that it may tell."""
        steps = (self._steps.get(name, ContactStep(name, "skipped")) for name in STEPS)
        return FirstContact(
            version=__version__,
            platform=f"{platform.system()} {platform.machine()}",
            made_at=records.timestamp(datetime.now(UTC)),
            steps=tuple(
                ContactStep(s.name, s.state, self._public(s.about), self._public(s.advice))
                for s in steps
            ),
            facts={name: self._public(self._facts[name]) for name in FACTS if name in self._facts},
            answers={
                tool: tuple(map(self._public, lines)) for tool, lines in self._answers.items()
            },
            exit_code=self._exit_code,
        )

    def all(self, stack: ExitStack) -> None:
        """One step after the other; `stack` ends the lease of the phone."""
        if not (self._step("adb", _adb) and self._step("phone", self._phone)):
            return
        if not self._step("permission", _permission):
            return
        sessions: list[Session] = []

        def lease() -> tuple[str, str]:
            opened = DEVICES.load("adb").open("adb", exclusive=True, reporter=self._reporter)
            sessions.append(stack.enter_context(opened))
            return "this computer has it", ""

        if not self._step("lease", lease):
            return
        (session,) = sessions
        if not self._step("system", lambda: self._system(session)):
            return
        self._step("abi", partial(_abi, self._facts))
        self._step("storage", partial(_storage, self._facts))
        self._step("runner", partial(_runner, session, self._facts))
        self._step("heat", partial(_heat, self._facts))
        self._step("battery", partial(_battery, self._facts))
        self._step("screen", partial(_screen, self._facts))
        self._step("clocks", partial(_clocks, self._facts))
        self._step("energy", partial(self._energy, session))

    def _step(self, name: str, look: Callable[[], tuple[str, str]]) -> bool:
        """Takes a step: what is there, and advice if that is not as it should be."""
        try:
            about, advice = look()
            state: StepState = "warning" if advice else "ok"
        except DeployError as error:
            state, about, advice = "failed", error.message, error.hint
            self._exit_code = self._exit_code or error.exit_code
        self._steps[name] = ContactStep(name, state, about, advice)
        number = f"{STEPS.index(name) + 1} of {len(STEPS)}"
        then = f"; {advice}" if advice else ""
        self._reporter.say(f"{number}, {name}: {state}: {about}{then}")
        return state != "failed"

    def _phone(self) -> tuple[str, str]:
        phones = _phones()
        for name, _ in phones:
            self._private[name.partition(":")[2]] = "SERIAL"
        if not phones:
            raise DeviceError("adb lists no phone", _DEVELOPER)
        return units.several(len(phones), "phone"), ""

    def _system(self, session: Session) -> tuple[str, str]:
        self._facts = facts = session.facts()
        for tool, (argv, begins) in _TOOLS.items():
            lines = shell_output.lines(session, argv)
            self._answers[tool] = tuple(line for line in lines if line.startswith(begins))
        about = f"{facts.get('model', 'a phone')}, {facts.get('soc', 'unknown chip')}"
        if "android" not in facts:
            return f"{about}, no Android", "Linux behind adb: bench it, it is no phone"
        return f"{about}, Android {facts['android']}", ""

    def _energy(self, session: Session) -> tuple[str, str]:
        # Not at the top, as in `_runner`.
        from mobiledeploy.steps import energy

        lines = shell_output.lines(session, energy.sampler(1, 0.0))
        self._answers["energy"] = tuple(line for line in lines if _POWER_LINE.fullmatch(line))
        try:
            source = energy.need_source(session)
        except DeviceError as error:
            return error.message, error.hint
        return f"it tells its power ({source}): bench --energy", ""

    def _public(self, text: str) -> str:
        for word, other in self._private.items():
            if len(word) >= _SHORTEST_PRIVATE:
                text = text.replace(word, other)
        # Whose lease it is names a computer.
        text = re.sub(r"(leased to) \S+", r"\1 another computer", text)
        return text[:_LONGEST_ANSWER]


def _adb() -> tuple[str, str]:
    program = native.adb()
    outputs = []
    for command in ("version", "start-server"):
        try:
            done = subprocess.run(
                [program, command],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MissingError(
                f"adb {command} does not answer: {errors.first_line(error)}", "apt install adb"
            ) from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it does not say why"]
            raise DeviceError(
                f"adb cannot start its server: {lines[-1]}",
                "adb kill-server, then once more; another adb may hold its port 5037",
            )
        outputs.append(done.stdout)
    versions = re.findall(r"(?im)\bversion (\S+)", outputs[0])
    return f"version {versions[-1]}" if versions else "of an unknown version", ""


def _phones() -> list[tuple[str, str]]:
    """The name and the state of each phone that adb lists; the state of a ready one is ""."""
    return [(one.name, one.fix) for one in DEVICES.load("adb").available() if one.name != "adb"]


def _permission() -> tuple[str, str]:
    phones = dict(_phones())
    serial = os.environ.get("ANDROID_SERIAL")
    chosen = [name for name in phones if not serial or name == f"adb:{serial}"]
    if not chosen:
        raise DeviceError("the phone of ANDROID_SERIAL is not connected", "adb devices lists them")
    if ready := [name for name in chosen if not phones[name]]:
        chosen = ready
    if len(chosen) > 1:
        raise DeviceError(
            f"{len(chosen)} phones are connected",
            "choose one of adb devices: export ANDROID_SERIAL=SERIAL",
        )
    if fix := phones[chosen[0]]:
        state, _, advice = fix.partition(": ")
        raise DeviceError(f"its state is: {state}", advice)
    return "it lets this computer in", ""


def _abi(facts: Mapping[str, str]) -> tuple[str, str]:
    abis, pages = facts.get("abis", ""), facts.get("page_bytes", "")
    about = f"{abis or 'unknown'}, pages of {f'{pages} bytes' if pages else 'unknown size'}"
    if facts.get("machine", "").rpartition("-")[2] not in ("aarch64", "x86_64"):
        raise DeviceError(
            f"{about}: no runner of ours", "--runner benchmark_model, with Google's build for it"
        )
    return about, ""


def _storage(facts: Mapping[str, str]) -> tuple[str, str]:
    if "free_bytes" not in facts:
        return "not told", "each file's space is checked before it is pushed"
    free = int(facts["free_bytes"])
    advice = "free some space on it" if free < LITTLE_SPACE_BYTES else ""
    return f"{units.size(free)} are free", advice


def _runner(session: Session, facts: Mapping[str, str]) -> tuple[str, str]:
    """Whether the runner starts there and opens its runtime; it has no model to run."""
    # Not at the top: the other steps work without numpy.
    from mobiledeploy.core import protocol

    driver = RUNNERS.load("native")
    runtime = driver.runtimes()[0]
    files = driver.files(facts.get("machine", ""), runtime)
    brought = {path.name for path in files.values()}
    android = facts.get("machine", "").startswith("android-")
    for path in files.values():
        file = elf.read(path)
        if android and file is not None and (lacking := file.lacking(brought)):
            raise InputError(
                f"{path.name} needs {', '.join(lacking)}, which Android has not",
                native.FIX,
            )
    remote = {role: session.push(path) for role, path in files.items()}
    argv = driver.bench("no-model", Target("", "native", runtime, 1, ""), None, remote)
    process = session.run(argv)
    try:
        listener = protocol.Listener("", PATIENCE_S)
        listener.listen(0, process)
        listener.next()
    except InputError:
        # It has come so far that only the model is missing.
        return f"it starts, and opens {runtime}", ""
    except DeployError as error:
        raise DeviceError(
            f"the runner does not start there: {error}",
            "send us the record of this contact",
        ) from error
    finally:
        process.kill()
    raise DeviceError("the runner ran no model, and did not say so", native.FIX)


def _heat(facts: Mapping[str, str]) -> tuple[str, str]:
    status, hottest = facts.get("thermal_status"), facts.get("temperature_cpu_c", "unknown")
    if status is None:
        return "no thermal status", "it cannot tell that it throttles: look at the spread of runs"
    about = f"thermal status {status}, CPU {hottest} °C"
    return about, "" if status == "0" else "it throttles: let it cool down, without its case"


def _battery(facts: Mapping[str, str]) -> tuple[str, str]:
    percent, celsius = facts.get("battery_percent", ""), facts.get("battery_c", "")
    if not percent and not celsius:
        return "no battery is told", "look at it yourself: keep it above half, and cool"
    about = f"{percent or '?'} %, {celsius or '?'} °C, charger {facts.get('charger', 'unknown')}"
    if percent.isdecimal() and int(percent) < LOW_BATTERY_PERCENT:
        return about, "charge it: many phones slow down when the battery is low"
    if celsius and float(celsius) > WARM_BATTERY_C:
        return about, "let it cool down"
    return about, ""


def _screen(facts: Mapping[str, str]) -> tuple[str, str]:
    screen = facts.get("screen", "unknown")
    return screen, "" if screen == "on" else "keep it on: Developer options, Stay awake"


def _clocks(facts: Mapping[str, str]) -> tuple[str, str]:
    missing = [
        name
        for name in ("core_capacity", "governor", "frequency_cap_khz", "time_in_state", "taskset")
        if name not in facts
    ]
    governors = " ".join(sorted(set(re.findall(r":(\S+)", facts.get("governor", "")))))
    if missing:
        known = f"governor {governors}; " if governors else ""
        about = f"{known}it does not tell {', '.join(missing)}"
        return about, "a change of these is not noticed, and proves nothing"
    return f"governor {governors}", ""
