"""The environment of a bundle: Python, and the packages that mobiledeploy stands on."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mobiledeploy import __version__
from mobiledeploy.core.display import Record
from mobiledeploy.core.types import Artifact, NamedWarning
from mobiledeploy.steps.export_plan import tools

_OURS = "mobiledeploy"
# Extras for work on mobiledeploy itself.
_NOT_IN_USE = ("dev", "docs")


@dataclass(frozen=True)
class BundleEnvironment(Record):
    """environment.json of a bundle: the machine that wrote it, and the versions of its packages.

    `packages` are those that mobiledeploy requires, directly or not, as far as they are installed.
    """

    python: str
    implementation: str
    system: str
    machine: str
    packages: Mapping[str, str]


def here() -> BundleEnvironment:
    """The environment of this process."""
    return BundleEnvironment(
        platform.python_version(),
        platform.python_implementation(),
        platform.system(),
        platform.machine(),
        {_OURS: __version__} | dict(sorted(_installed())),
    )


def lock(environment: BundleEnvironment) -> str:
    """The packages as pip takes them: one `name==version` a line."""
    return "".join(f"{name}=={version}\n" for name, version in environment.packages.items())


def other_versions(artifacts: Sequence[Artifact]) -> tuple[NamedWarning, ...]:
    """A warning if the artifacts were made with other versions than those of this environment."""
    now = tools()
    different = {
        f"{name} {version or 'none'}, not {now[name] or 'none'}"
        for artifact in artifacts
        for name, version in artifact.tools.items()
        if name in now and version != now[name]
    }
    if not different:
        return ()
    return (
        NamedWarning(
            "other-environment",
            f"the files were made with {', '.join(sorted(different))}",
            "the lock of the bundle names what is installed now: bundle where you export",
        ),
    )


def _installed() -> Iterator[tuple[str, str]]:
    waiting = [(_OURS, frozenset(_extras()))]
    done = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if name != _OURS:
            yield name, distribution.version
        for requirement in map(Requirement, distribution.requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in (extras or {""})):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))


def _extras() -> list[str]:
    try:
        known = metadata.metadata(_OURS).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []
    return [extra for extra in known if extra not in _NOT_IN_USE]
