"""What `--device` and `--via` mean: which device of the shelf, by which name, driven by what."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mobiledeploy.analysis import stats
from mobiledeploy.core import device_cards, recording
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.errors import DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.plugins import DEVICES, RUNNERS
from mobiledeploy.core.types import DeviceInfo

Via = Literal["auto", "adb", "emulator"]


@dataclass(frozen=True)
class ResolvedDevice:
    """A device of the shelf, and what its `open` takes: the name that records bear."""

    plugin: str
    name: str

    @property
    def recorded(self) -> bool:
        """Whether nothing runs there: it is played back."""
        return DEVICES.load(self.plugin).KIND == "recorded"

    @property
    def recorded_at(self) -> str:
        """When what is played back was recorded, as the store writes it; "" for all else."""
        return recording.read(self.file).made_at if self.recorded else ""

    @property
    def file(self) -> Path:
        """The recording that is played back; UsageError where none is named."""
        name = self.name.partition(":")[2]
        if not name:
            raise UsageError("which recording?", f"--device {self.plugin}:FILE")
        return Path(name)

    @property
    def counted(self) -> bool:
        """Whether instructions are counted there instead of time."""
        return DEVICES.load(self.plugin).KIND == "counted"

    @property
    def phone(self) -> bool:
        """Whether the rules for phones hold: facts, cool-downs, void measurements."""
        return self.plugin == "adb"

    def timed(self, what: str) -> None:
        """UsageError where `what` needs time and there is none."""
        if self.counted:
            raise UsageError(
                f"{what} is for times, and {self.name} counts instructions",
                "bench both: counts are exact and can be compared as they are",
            )

    def runner(self, wanted: str | None) -> str:
        """The runner's name; by default native on a phone and python here.

        UsageError where it cannot run there.
        """
        usual = DEVICES.load(self.plugin).RUNNER
        chosen = wanted or usual
        if self.phone and chosen == "python":
            raise UsageError("no Python runs on a phone", f"--runner {usual}")
        if not self.phone and chosen == "benchmark_model":
            raise UsageError("benchmark_model is for phones", "--device adb")
        return chosen


def asked(place: ResolvedDevice, runner: str | None, **given: Any) -> recording.BenchRequest:
    """What a timing is asked for, with the defaults of its place; of a recording what it was then.

    `given`: the fields of `recording.BenchRequest` but for device and runner.

    Raises:
        UsageError: the runner does not run there, or has no such runtime.
        InputError: the recording is none.
    """
    if place.recorded:
        then = recording.read(place.file).asked
        refusal = InputError(f"{place.file} asks for what no bench does", "record it again")
        try:
            RUNNERS.load(then.runner)
        except UsageError as error:
            raise refusal from error
        if then.runs is not None and then.runs < stats.FEWEST:
            raise refusal
        return then
    chosen = place.runner(runner)
    known = RUNNERS.load(chosen).runtimes()
    if given["runtime"] not in (None, *known):
        raise UsageError(
            f"the runner {chosen} has no runtime {given['runtime']!r}",
            f"there are {', '.join(known)}",
        )
    return recording.BenchRequest(device=place.name, runner=chosen, **given)


def recorded_at(device: str) -> str:
    """When what `--device DEVICE` plays back was recorded; "" where it plays nothing back."""
    plugin = device.partition(":")[0]
    return ResolvedDevice(plugin, device).recorded_at if plugin in DEVICES.names() else ""


def resolve(device: str, via: Via = "auto") -> ResolvedDevice:
    """Where to go for `--device DEVICE --via VIA`.

    DEVICE is a device of the shelf (host, adb, replay), one of its machines (adb:SERIAL), or a
    phone's model as people write it (pixel, pixel-6). VIA "emulator" takes the emulated core that
    the card of such a model names, connected or not.

    Raises:
        UsageError: several phones are of that model, or the word is near to a device's name.
        DeviceError: no phone of that model is connected, what is connected is listed; or no
            emulated core is like its own.
        MissingError: the emulator is not here.
    """
    kind = device.partition(":")[0]
    if kind in DEVICES.names():
        return ResolvedDevice(kind, device if kind != "adb" or ":" in device else _the_phone())
    if via == "emulator":
        return emulated(device_cards.matching(device) or device_cards.load(device))[0]
    return _phone(device)


def emulated(card: DeviceCard) -> tuple[ResolvedDevice, str]:
    """The emulated core that stands for the fastest core of a card, and what it is to that.

    Raises:
        DeviceError: the card names none, or the emulator here has none of them.
        MissingError: the emulator is not here.
    """
    if not card.emulate:
        raise DeviceError(
            f"the card {card.name} names no emulated core that is like its own",
            "--device emulator:CORE counts on one of your choice",
        )
    own = card.cores[0].name if card.cores else "own"
    cores = {one.name: one for one in DEVICES.load("emulator").available()}
    for core in card.emulate:
        found = cores.get(f"emulator:{core}")
        if found and found.fix:
            raise MissingError("no emulated core is here yet", found.fix)
        if found:
            like = "its own core" if _fits(core, own) else f"in place of its {own}"
            return ResolvedDevice("emulator", found.name), f"an emulated {core}, {like}"
    raise DeviceError(
        f"the emulator here has no {' or '.join(card.emulate)}",
        f"it has {', '.join(name.partition(':')[2] for name in cores)}; a newer qemu-user has more",
    )


def stand_in(device: str, via: Via = "auto") -> DeviceCard | None:
    """The card that stands in where `--device DEVICE` names a phone that is not connected.

    None for a device of the shelf, for a phone that is connected, ready or not, and where no card
    has such a name: `resolve` then says where to go, or why not.
    """
    if via != "auto" or device.partition(":")[0] in DEVICES.names():
        return None
    card = device_cards.matching(device)
    if card is None or any(_fits(device, _model(one)) for one in _connected()):
        return None
    return card


def _phone(wanted: str) -> ResolvedDevice:
    """The connected phone whose model fits `wanted`."""
    phones = [one for one in _connected() if _fits(wanted, _model(one))]
    exact = [one for one in phones if _words(_model(one)) == _words(wanted)]
    ready = [one for one in exact or phones if not one.fix]
    if len(ready) == 1:
        return ResolvedDevice("adb", ready[0].name)
    if ready:
        raise UsageError(
            f"{len(ready)} phones are a {wanted}", f"choose one: --device {_list(ready)}"
        )
    if phones:
        raise DeviceError(f"the {wanted} is not ready", phones[0].fix)
    return _without(wanted)


def _without(wanted: str) -> ResolvedDevice:
    """What stands in for a phone that is not connected: nothing does."""
    connected = _connected()
    there = f"connected: {_list(connected)}" if connected else "no phone is connected"
    raise DeviceError(
        f"no phone {wanted} is connected",
        f"{there}; --device takes {', '.join(DEVICES.names())}, a phone's model, or a "
        "card that `mobiledeploy devices` lists",
    )


def _the_phone() -> str:
    """`adb:SERIAL` where one phone is meant; else `adb`, whose `open` says what is wrong."""
    if serial := os.environ.get("ANDROID_SERIAL"):
        return f"adb:{serial}"
    ready = [one.name for one in _connected() if not one.fix]
    return ready[0] if len(ready) == 1 else "adb"


def _connected() -> list[DeviceInfo]:
    return [one for one in DEVICES.load("adb").available() if one.name != "adb"]


def _model(phone: DeviceInfo) -> str:
    return phone.about.partition(",")[0]


def _fits(wanted: str, model: str) -> bool:
    """Whether `wanted` names this model: pixel and pixel-3 fit a Pixel 3 XL, pixel-3a does not."""
    words = _words(wanted)
    found = _words(model)
    return bool(words) and any(
        found[start : start + len(words)] == words for start in range(len(found))
    )


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def _list(phones: Sequence[DeviceInfo]) -> str:
    return ", ".join(f"{one.name} ({_model(one)})" for one in phones)
