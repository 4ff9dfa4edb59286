"""The artifacts that a command names, some of them in bundles, which are unpacked for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mobiledeploy.core import builtin_data, inputs
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import NamedWarning
from mobiledeploy.steps import bundle_contents
from mobiledeploy.steps.baseline import Baseline
from mobiledeploy.steps.bundle_contents import BundleContents
from mobiledeploy.steps.failures import Failures

T = TypeVar("T")


def is_bundle(path: Path) -> bool:
    """Whether a path is taken for a bundle: models and baselines have other endings."""
    return path.suffix.lower() == ".zip"


@dataclass(frozen=True)
class UnpackedArtifacts:
    """Model files that can be opened: those named themselves, and those of bundles.

    `bundles` are the opened bundles by their paths. `reporter` gets the messages on these files.
    """

    paths: tuple[Path, ...]
    bundles: Mapping[Path, BundleContents]
    reporter: Reporter
    _names: _BundleNames

    def named(self, record: T) -> T:
        """A record whose texts name each file by its bundle."""
        return self._names.in_record(record) if self.bundles else record


@contextmanager
def unpacked(
    paths: Sequence[Path], data: str | None, failures: Failures, reporter: Reporter
) -> Iterator[UnpackedArtifacts]:
    """The artifacts at `paths`; those of a bundle lie in a temporary folder until the end.

    A refusal of what is done with them names the bundle in place of that folder. A bundle that is
    not whole is one of `failures`. `data` are the images to judge them by, None for their own.

    Raises:
        UsageError: no paths; or no `data`, and an artifact of a bundle has images of the user's.
    """
    if not paths:
        raise UsageError("no artifact was named", "mobiledeploy check build/*/*.tflite")
    names = _BundleNames({})
    files: list[Path] = []
    bundles: dict[Path, BundleContents] = {}
    with ExitStack() as stack:
        for path in paths:
            if not is_bundle(path):
                files.append(path)
                continue
            with failures.of(path):
                bundle = stack.enter_context(bundle_contents.opened(path))
                names.shown[f"{bundle.folder}/"] = f"{inputs.printable(path)}/"
                bundles[path] = bundle.contents
                if data is None:
                    _need_known_images(path, bundle.contents)
                files += [one.path for one in bundle.contents.bundled]
        naming = _NamingReporter(reporter, names) if bundles else reporter
        try:
            yield UnpackedArtifacts(tuple(files), bundles, naming, names)
        except DeployError as error:
            error.message, error.hint = names.in_text(error.message), names.in_text(error.hint)
            raise


def baseline_of(path: Path) -> Baseline:
    """The baseline in the bundle at `path`.

    Raises:
        InputError: it is no bundle, was changed, or holds no baseline.
    """
    with bundle_contents.opened(path) as bundle:
        accepted = bundle.contents.accepted
    if not accepted:
        raise InputError(
            f"{inputs.printable(path)} holds no baseline",
            "name the file of one, or make the bundle again with bundle --baseline",
        )
    return Baseline(accepted)


def _need_known_images(path: Path, contents: BundleContents) -> None:
    """UsageError for images of the user's: what a record in a bundle names is never opened."""
    for one in contents.bundled:
        if one.artifact.data.source not in builtin_data.NAMES:
            raise UsageError(
                f"{path}/{one.name} was judged on images that are not in the bundle",
                "give --data DIR or FILE.npz",
            )


@dataclass(frozen=True)
class _BundleNames:
    """The names of temporary folders for people; both end in a slash."""

    shown: dict[str, str]

    def in_text(self, text: str) -> str:
        for folder, name in self.shown.items():
            text = text.replace(folder, name)
        return text

    def in_record(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.in_text(value)
        if isinstance(value, tuple):
            return tuple(map(self.in_record, value))
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return value
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        named = {name: self.in_record(field) for name, field in fields.items()}
        return dataclasses.replace(value, **named)


@dataclass(frozen=True)
class _NamingReporter:
    """A Reporter that names each file by its bundle."""

    reporter: Reporter
    names: _BundleNames

    def progress(self, what: str, count: int, total: int) -> None:
        self.reporter.progress(self.names.in_text(what), count, total)

    def warn(self, warning: NamedWarning) -> None:
        self.reporter.warn(self.names.in_record(warning))

    def say(self, line: str) -> None:
        self.reporter.say(self.names.in_text(line))
