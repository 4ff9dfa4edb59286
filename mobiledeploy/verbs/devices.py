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

_KINDS = ("measured", "counted", "estimated")


@dataclass(frozen=True)
class DeviceList(Record):
    """The answer of `devices`: what each device of the shelf finds, then the device cards."""

    devices: tuple[DeviceInfo, ...]

    def tables(self) -> tuple[Table, ...]:
        """Machines and cards of the user's: the ready ones, then what each of the others needs.

        Then a short row for each card of ours that is good for an estimate.
        """
        headers = ("device", "what it is", "files")
        cards = tuple((d.name, d.about, _types(d)) for d in self.ours if not d.fix)
        title = "device cards: latency is estimated, not measured"
        return (
            *self._machine_tables(),
            Table(headers, cards, title, names=("what it is",)),
        )

    def all_tables(self) -> tuple[Table, ...]:
        """The same, with all cards and the runtimes that they are good for."""
        title = self.tables()[-1].title
        headers = ("device", "what it is", "estimates of", "state")
        cards = [d for d in self.devices if d.kind == "estimated"]
        rows = tuple(
            (d.name, d.about, "; ".join(d.estimates) or "–", d.fix or "ready")
            for d in sorted(cards, key=lambda one: not one.own)
        )
        return (*self._machine_tables(), Table(headers, rows, title))

    @property
    def ours(self) -> tuple[DeviceInfo, ...]:
        """The device cards that come with the package."""
        return tuple(d for d in self.devices if d.kind == "estimated" and not d.own)

    def _machine_tables(self) -> tuple[Table, ...]:
        others = [d for d in self.devices if d.kind != "estimated" or d.own]
        others.sort(key=lambda one: _KINDS.index(one.kind))
        ready = tuple((d.name, d.kind, d.about) for d in others if not d.fix)
        needs = tuple((d.name, d.kind, d.fix) for d in others if d.fix)
        return (
            Table(("device", "kind", "what it is"), ready, "ready"),
            *([Table(("device", "kind", "what it needs"), needs, "not ready")] if needs else []),
        )


def _types(device: DeviceInfo) -> str:
    """The types of files that a card is good for."""
    return ", ".join(sorted({one.rsplit(", ", 1)[1] for one in device.estimates}))


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
    # Some are called by their processor.
    chip = card.soc.partition(" (")[0]
    about = card.title if not chip or chip in card.title else f"{card.title}, {card.soc}"
    own = card.folder == str(device_cards.user_folder())
    if ready:
        estimates = tuple(sorted(ready))
        return DeviceInfo(card.name, "estimated", about, own=own, estimates=estimates)
    few = f"its {card.points} points are too few of a kind: mobiledeploy devices calibrate"
    return DeviceInfo(card.name, "estimated", about, few, own)
