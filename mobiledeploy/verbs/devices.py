"""What figures can be had of right now: this machine, phones, emulated cores."""

from __future__ import annotations

from dataclasses import dataclass

from mobiledeploy.core.plugins import DEVICES
from mobiledeploy.core.types import Seen


@dataclass(frozen=True)
class Devices:
    """The answer of the command: what each device of the shelf sees, in the shelf's order."""

    seen: tuple[Seen, ...]


def devices() -> Devices:
    """Asks every device what of its kind is here; nothing is started or changed."""
    return Devices(tuple(one for name in DEVICES.names() for one in DEVICES.load(name).seen()))
