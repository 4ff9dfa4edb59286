"""Which runtime runs a format, its delegate, and its installed version."""

from __future__ import annotations

from importlib import metadata

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import RUNTIMES
from mobiledeploy.core.types import Artifact, Target


def of_format(format_: str) -> tuple[str, ...]:
    """The runtimes of a format; the first is the default."""
    names = [(not r.PREFERRED, name) for name, r in RUNTIMES.each() if format_ in r.FORMATS]
    return tuple(name for _, name in sorted(names))


def published_as(format_: str) -> tuple[str, ...]:
    """The names of a format's runtimes in published latencies."""
    names = (n for _, r in RUNTIMES.each() if format_ in r.FORMATS for n in r.PUBLISHED_AS)
    return tuple(dict.fromkeys(names))


def target(artifact: Artifact, runtime: str | None = None) -> Target:
    """The target of an evaluation for its record.

    Raises:
        InputError: no runtime runs the artifact's format.
        UsageError: `runtime` runs other formats, or there is no such runtime.
    """
    name = runtime or default_runtime(artifact)
    plugin = RUNTIMES.load(name)
    if artifact.format not in plugin.FORMATS:
        raise UsageError(
            f"{name} runs .{plugin.FORMATS[0]} files, not {artifact.path}",
            f"--runtime {default_runtime(artifact)}, or none for the default of each file",
        )
    return Target("host", "python", name, 1, plugin.DELEGATES[0])


def runtime_version(runtime: str) -> str:
    """The installed version of a runtime; "" if it is not installed."""
    try:
        return metadata.version(RUNTIMES.load(runtime).PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


def default_runtime(artifact: Artifact) -> str:
    """The default runtime of an artifact; InputError for a format without a runtime."""
    names = of_format(artifact.format)
    if not names:
        formats = sorted({f for _, plugin in RUNTIMES.each() for f in plugin.FORMATS})
        raise InputError(
            f"{artifact.path} is a {artifact.format!r}, which nothing here runs",
            f"there are {', '.join(formats)}",
        )
    return names[0]
