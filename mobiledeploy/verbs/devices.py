"""The devices for figures at the moment: this machine, phones, boards, emulated cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobiledeploy.core import device_cards
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.plugins import DEVICES
from mobiledeploy.core.types import DeviceInfo
from mobiledeploy.steps import estimate


@dataclass(frozen=True)
class DeviceList(Record):
    """The answer of `devices`: what each device of the shelf finds, then the device cards."""

    devices: tuple[DeviceInfo, ...]

    def tables(self) -> tuple[Table, ...]:
        """A row for each device, the ready ones first."""
        devices = sorted(self.devices, key=lambda one: bool(one.fix))
        rows = tuple((one.name, one.kind, one.about, one.fix or "ready") for one in devices)
        return (Table(("device", "kind", "what it is", "state"), rows),)


def devices() -> DeviceList:
    """Lists the values for `device` of `bench`, and the kind of figure of each.

    It starts and changes nothing.

    Example:
        >>> [one.name for one in md.devices().devices]

    Returns:
        This machine, phones and emulated cores, then device cards.
    """
    here = tuple(one for name in DEVICES.names() for one in DEVICES.load(name).available())
    cards = device_cards.all_()
    return DeviceList((*here, *(_card(card, cards) for card in cards)))


def _card(card: DeviceCard, cards: Sequence[DeviceCard]) -> DeviceInfo:
    choices = estimate.choices(card, cards)
    ready = {choice.what.rsplit(", ", 1)[0] for choice in choices if choice.enough}
    about = f"{card.title}, {card.soc}" if card.soc else card.title
    if ready:
        return DeviceInfo(card.name, "estimated", f"{about}: {'; '.join(sorted(ready))}")
    few = f"its {card.points} points are too few of a kind: mobiledeploy devices calibrate"
    return DeviceInfo(card.name, "estimated", about, few)
