"""Turns `--device` and `--via` into a device of the shelf, its name, and a runner."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import stats
from mobiledeploy.core import device_cards, recording
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.errors import DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.plugins import DEVICES, RUNNERS
from mobiledeploy.core.types import DeviceInfo, NamedWarning

Via = Literal["auto", "adb", "emulator"]


@dataclass(frozen=True)
class ResolvedDevice:
    """A device of the shelf, and the name for its `open`, which records hold too."""

    plugin: str
    name: str

    @property
    def is_recording(self) -> bool:
        """Whether a recording is played back, and nothing runs."""
        return DEVICES.load(self.plugin).KIND == "recorded"

    @property
    def recorded_at(self) -> str:
        """When the recording was made, in the form of the store; "" for all other devices."""
        return recording.read(self.file).made_at if self.is_recording else ""

    @property
    def file(self) -> Path:
        """The file of the recording; UsageError if none is named."""
        name = self.name.partition(":")[2]
        if not name:
            raise UsageError("replay needs a recording", f"--device {self.plugin}:FILE")
        return Path(name)

    @property
    def counts_instructions(self) -> bool:
        """Whether the device counts instructions instead of time."""
        return DEVICES.load(self.plugin).KIND == "counted"

    @property
    def phone(self) -> bool:
        """Whether the rules for phones and boards apply: facts, cool-downs, void measurements."""
        return is_remote(self.name)

    def need_times(self, what: str) -> None:
        """UsageError if `what` needs times and the device counts instructions."""
        if self.counts_instructions:
            raise UsageError(
                f"{what} is for times, and {self.name} counts instructions",
                "bench both: counts are exact and can be compared as they are",
            )

    def runner(self, name: str | None) -> str:
        """The name of the runner; the default is native on a phone or board, python on this host.

        UsageError if it cannot run there.
        """
        usual = DEVICES.load(self.plugin).RUNNER
        runner = name or usual
        if self.phone and runner == "python":
            raise UsageError("no Python runs on a phone or board", f"--runner {usual}")
        if not self.phone and runner == "benchmark_model":
            raise UsageError("benchmark_model is for phones and boards", "--device adb")
        return runner


def is_remote(device: str) -> bool:
    """Whether `device` is a phone or a board (`adb:SERIAL`, `ssh:HOST`), not this computer.

    Plugins of other packages may not say so.
    """
    plugin = device.partition(":")[0]
    return plugin in DEVICES.names() and getattr(DEVICES.load(plugin), "REMOTE", False)


def bench_request(
    place: ResolvedDevice, settings: recording.BenchRequest
) -> recording.BenchRequest:
    """The request for a timing, with the defaults of its device; for a recording, its own request.

    A runner of "" in `settings` is the default; their device is that of `place`.

    Raises:
        UsageError: the runner does not run on the device, or has no such runtime.
        InputError: the file is not a recording.
    """
    if place.is_recording:
        then = recording.read(place.file).asked
        if then.command != "bench":
            raise InputError(
                f"{place.file} is a recording of {then.command}, not of bench",
                f"mobiledeploy {then.command} --device {place.name}",
            )
        # A block of a comparison is short, and nothing judged it.
        recorded, asked = (
            "bench" if one.rounds is None else "bench --compare" for one in (then, settings)
        )
        if recorded != asked:
            raise InputError(
                f"{place.file} is a recording of {recorded}, not of {asked}",
                f"mobiledeploy {recorded} --device {place.name}",
            )
        if settings.energy and not then.energy:
            raise InputError(f"{place.file} was recorded without --energy", "leave out --energy")
        refusal = InputError(f"{place.file} asks for what no bench does", "record it again")
        try:
            RUNNERS.load(then.runner)
        except UsageError as error:
            raise refusal from error
        if then.runs is not None and then.runs < stats.FEWEST:
            raise refusal
        return replace(then, strict=then.strict or settings.strict)
    name = place.runner(settings.runner or None)
    runtimes = RUNNERS.load(name).runtimes()
    if settings.runtime not in (None, *runtimes):
        raise UsageError(
            f"the runner {name} has no runtime {settings.runtime!r}",
            f"there are {', '.join(runtimes)}",
        )
    return replace(settings, device=place.name, runner=name)


def recorded_at(device: str) -> str:
    """When the recording of `--device DEVICE` was made; "" for devices that play nothing back."""
    plugin = device.partition(":")[0]
    return ResolvedDevice(plugin, device).recorded_at if plugin in DEVICES.names() else ""


def resolve(device: str, via: Via = "auto") -> ResolvedDevice:
    """The device that `--device DEVICE --via VIA` means.

    DEVICE is a device of the shelf (host, adb, replay), one of its machines (adb:SERIAL, ssh:HOST),
    or a phone's model (pixel, pixel-6). VIA "emulator" takes the emulated core of that model's
    card, even if the phone is connected.

    Raises:
        UsageError: several phones are of that model, or the word is similar to a device's name.
        DeviceError: no phone of that model is connected (the hint lists the connected ones), or no
            emulated core is like its own.
        MissingError: the emulator is not installed.
    """
    kind = device.partition(":")[0]
    if kind in DEVICES.names():
        return ResolvedDevice(kind, device if kind != "adb" or ":" in device else _the_phone())
    if via == "emulator":
        return emulated_core(device_cards.matching(device) or device_cards.load(device))[0]
    return _phone(device)


def emulated_core(card: DeviceCard) -> tuple[ResolvedDevice, str]:
    """The emulated core that stands for the fastest core of a card, and a description of it.

    Raises:
        DeviceError: the card names no core, or the emulator here has none of them.
        MissingError: the emulator is not installed.
    """
    if not card.emulate:
        raise DeviceError(
            f"the card {card.name} names no emulated core that is like its own",
            "--device emulator:CORE counts on one of your choice",
        )
    own = card.cores[0].name if card.cores else "own"
    cores = {one.name: one for one in DEVICES.load("emulator").available()}
    for core in card.emulate:
        info = cores.get(f"emulator:{core}")
        if info and info.fix:
            raise MissingError("no emulated core is here yet", info.fix)
        if info:
            like = "its own core" if _fits(core, own) else f"in place of its {own}"
            return ResolvedDevice("emulator", info.name), f"an emulated {core}, {like}"
    raise DeviceError(
        f"the emulator here has no {' or '.join(card.emulate)}",
        f"it has {', '.join(name.partition(':')[2] for name in cores)}; a newer qemu-user has more",
    )


def stand_in(device: str, via: Via = "auto") -> DeviceCard | None:
    """The card that stands in if `--device DEVICE` names a phone that is not connected.

    None for a device of the shelf, for a connected phone, ready or not, and if no card has such a
    name: `resolve` then finds the device or refuses.
    """
    if via != "auto" or device.partition(":")[0] in DEVICES.names():
        return None
    card = device_cards.matching(device)
    if card is None or any(_fits(device, _model(one)) for one in _connected()):
        return None
    return card


def unready_phones() -> list[NamedWarning]:
    """A warning for each connected phone that is not ready: it may be one that a card stands for.

    Such a phone does not tell its model.
    """
    warnings = []
    for one in _connected():
        if one.fix:
            state, _, advice = one.fix.partition(": ")
            message = f"{one.name} is connected, tells no model, and is not timed: it is {state}"
            warnings.append(NamedWarning("phone-not-ready", message, advice))
    return warnings


def card_of(place: ResolvedDevice) -> DeviceCard | None:
    """The card of a machine that is there: it names the machine, or a connected phone's model."""
    models = {one.name: _model(one) for one in _connected()} if place.plugin == "adb" else {}
    return device_cards.of_device(place.name, models.get(place.name, ""))


def _phone(name: str) -> ResolvedDevice:
    """The connected phone whose model fits `name`."""
    phones = [one for one in _connected() if _fits(name, _model(one))]
    exact = [one for one in phones if _words(_model(one)) == _words(name)]
    ready = [one for one in exact or phones if not one.fix]
    if len(ready) == 1:
        return ResolvedDevice("adb", ready[0].name)
    if ready:
        raise UsageError(
            f"{len(ready)} phones are a {name}", f"choose one: --device {_list(ready)}"
        )
    if phones:
        raise DeviceError(f"the {name} is not ready", phones[0].fix)
    return _refuse(name)


def _refuse(name: str) -> ResolvedDevice:
    """Raises DeviceError for a phone that is not connected."""
    phones = _connected()
    there = f"connected: {_list(phones)}" if phones else "no phone is connected"
    raise DeviceError(
        f"no phone {name} is connected",
        f"{there}; --device takes {', '.join(DEVICES.names())}, a phone's model, or a "
        "card that `mobiledeploy devices` lists",
    )


def _the_phone() -> str:
    """`adb:SERIAL` if one phone is meant; otherwise `adb`, whose `open` says what is wrong."""
    if serial := os.environ.get("ANDROID_SERIAL"):
        return f"adb:{serial}"
    ready = [one.name for one in _connected() if not one.fix]
    return ready[0] if len(ready) == 1 else "adb"


def _connected() -> list[DeviceInfo]:
    return [one for one in DEVICES.load("adb").available() if one.name != "adb"]


def _model(phone: DeviceInfo) -> str:
    return phone.about.partition(",")[0]


def _fits(name: str, model: str) -> bool:
    """Whether `name` means this model: pixel and pixel-3 fit a Pixel 3 XL, pixel-3a does not."""
    words = _words(name)
    model_words = _words(model)
    return bool(words) and any(
        model_words[start : start + len(words)] == words for start in range(len(model_words))
    )


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def _list(phones: Sequence[DeviceInfo]) -> str:
    return ", ".join(f"{one.name} ({one.fix or _model(one)})" for one in phones)
