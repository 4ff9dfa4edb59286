"""What a shell offers for the value of an option: the names that it accepts."""

from __future__ import annotations

from collections.abc import Sequence

from click.shell_completion import CompletionItem

# Their values are paths too, so a shell offers its files as well.
_FILES = ("data", "weights")


def items(option: str, incomplete: str, several: bool) -> list[CompletionItem]:
    """The names that go on from `incomplete`; of `several`, separated by commas, the last one."""
    before, comma, begun = incomplete.rpartition(",") if several else ("", "", incomplete)
    offered = [
        CompletionItem(f"{before}{comma}{name}")
        for name in _names(option, several)
        if name.startswith(begun)
    ]
    return [*offered, CompletionItem(incomplete, type="file")] if option in _FILES else offered


def _names(option: str, several: bool) -> Sequence[str]:
    from mobiledeploy.core import cards, device_cards, plugins
    from mobiledeploy.steps import published

    match option:
        case "app":
            return plugins.APPS.names()
        case "arch":
            return cards.names()
        case "core":
            emulated = plugins.DEVICES.load("emulator").available()
            return tuple(one.name.partition(":")[2] for one in emulated)
        case "data":
            return ("demo",)
        case "device":
            cores = (core.name for core in plugins.DEVICES.load("emulator").available())
            return (*plugins.DEVICES.names(), *cores, *device_cards.names())
        case "format":
            return plugins.FORMATS.names()
        case "recipe":
            return (*plugins.RECIPES.names(), *(("all",) if several else ()))
        case "runtime":
            return plugins.RUNTIMES.names()
        case "table":
            return published.names()
        case "task":
            return plugins.TASKS.names()
        case "weights":
            return ("demo", "imagenet", "random")
    return ()
