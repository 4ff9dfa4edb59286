"""Packs artifacts with all that is said of them into one file, checks it, makes them again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import NamedWarning
from mobiledeploy.steps import (
    arguments,
    bundle_archive,
    bundle_contents,
    bundle_signature,
    defaults,
    reproduction,
)
from mobiledeploy.steps.arguments import AnyPath, AnyPaths
from mobiledeploy.steps.bundle_archive import MANIFEST, BundleMember
from mobiledeploy.steps.bundle_contents import BundleContents
from mobiledeploy.steps.bundle_signature import Signer
from mobiledeploy.steps.model_card import UNKNOWN, Licences
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.reproduction import ReproducedFile


@dataclass(frozen=True)
class BundleResult(Record):
    """The answer of `bundle`: the file, its members besides the manifest, and its artifacts there.

    `accepted` is the number of entries of a baseline, `figures` that of records of the store.
    `signature` is the file with the signature, None without one.
    """

    path: str
    sha256: str
    size_bytes: int
    artifacts: tuple[str, ...]
    members: tuple[BundleMember, ...]
    accepted: int
    figures: int
    warnings: tuple[NamedWarning, ...] = ()
    signature: str | None = None

    def tables(self) -> tuple[Table, ...]:
        """A row for each member."""
        rows = tuple((m.name, units.size(m.size_bytes), m.sha256[:12]) for m in self.members)
        title = f"{self.path}: {units.size(self.size_bytes)}, sha256 {self.sha256}"
        return (Table(("member", "size", "sha256"), rows, title, names=("member",)),)


@dataclass(frozen=True)
class BundleVerification(Record):
    """The answer of `bundle --verify`: the bundle is whole, and its parts fit each other.

    `artifacts` are the model files in it, `accepted` and `figures` as in `BundleResult`. `key` is
    the public key by which its signature was checked, None if that was not asked for.
    """

    path: str
    sha256: str
    size_bytes: int
    artifacts: tuple[str, ...]
    members: int
    accepted: int
    figures: int
    key: str | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The result in words."""
        counts = f"{self.members} members, {units.several(len(self.artifacts), 'artifact')}"
        return (
            f"{self.path} is whole: {counts}, each as {MANIFEST} says",
            f"sha256 {self.sha256}",
            f"signed by the private key of {self.key}"
            if self.key
            else "no signature was checked: --key checks who made it",
        )

    def tables(self) -> tuple[Table, ...]:
        """A row for each line."""
        return (Table(("verify",), tuple((line,) for line in self.lines)),)


@dataclass(frozen=True)
class BundleReproduction(Record):
    """The answer of `bundle --reproduce`: each file of the bundle, made again below `folder`."""

    path: str
    folder: str
    files: tuple[ReproducedFile, ...]

    @property
    def same(self) -> bool:
        """Whether every file came out the same, byte for byte."""
        return all(file.same for file in self.files)

    @property
    def lines(self) -> tuple[str, ...]:
        """The result in words."""
        lines = []
        for file in self.files:
            words = "the same bytes" if file.same else "differs"
            lines.append(f"{file.name}: {words}, sha256 {file.sha256}")
            lines += [f"{file.name}: {difference}" for difference in file.differences]
        return tuple(lines)

    def tables(self) -> tuple[Table, ...]:
        """A row for each line."""
        return (Table(("reproduce",), tuple((line,) for line in self.lines)),)


def bundle(
    artifacts: AnyPaths,
    *,
    out: AnyPath,
    baseline: AnyPath | None = None,
    weights_license: str | None = None,
    data_license: str | None = None,
    sign: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> BundleResult:
    """Packs artifacts into one zip file: the same artifacts and figures give the same bytes.

    The file holds the models with their records, golden samples and labels, the entries of a
    baseline, the figures of the store, the command that made them, the versions of all packages, a
    model card, and a bill of materials (CycloneDX 1.6). It holds no absolute paths.

    Example:
        >>> md.bundle("build/int8_best.tflite", out="release.zip").sha256

    Args:
        artifacts: one or several files of `export`, each with its record beside it.
        out: the zip file to write.
        baseline: a file of accepted artifacts that has entries of these; by default
            `mobiledeploy-baseline.json` if it is there and has some.
        weights_license: of your weights: an SPDX identifier such as Apache-2.0, or another name;
            the default is unknown. Those of mobiledeploy have its own.
        data_license: of your images, as `weights_license`.
        sign: a private key (PEM, elliptic) that signs the file: the signature is <out>.sig.
        reporter: is told of warnings; the default is a `PythonReporter`.

    Returns:
        The file's hash and its members.

    Raises:
        InputError: an artifact, its record or a golden file is missing or was changed; the key
            cannot sign.
        UsageError: no artifact, or a place that cannot be written.
        MissingError: there is no such baseline; the extra `bundle` or, for a key, `sign`
            is not installed.
    """
    reporter = reporter or PythonReporter()
    paths, place = arguments.paths(artifacts), Path(out)
    if not paths:
        raise UsageError("there is nothing to bundle", "name the model files")
    records.need_folder(place)
    signer = None if sign is None else Signer(Path(sign))
    accepted = Path(defaults.BASELINE) if baseline is None else Path(baseline)
    members, contents, warnings = bundle_contents.gather(
        paths,
        accepted,
        Licences(weights_license or UNKNOWN, data_license or UNKNOWN),
        need_baseline=baseline is not None,
    )
    manifest = bundle_archive.write(place, members)
    signature = None
    if signer is not None:
        with artifacts_.scratch() as scratch:
            signature = str(signer.sign(place, scratch))
    elif bundle_signature.path_beside(place).exists():
        warnings = (*warnings, _old_signature(place))
    for warning in warnings:
        reporter.warn(warning)
    return BundleResult(
        path=str(place),
        sha256=records.sha256(place),
        size_bytes=place.stat().st_size,
        artifacts=_names(contents),
        members=manifest.members,
        accepted=len(contents.accepted),
        figures=len(contents.figures),
        warnings=warnings,
        signature=signature,
    )


def bundle_verify(verify: AnyPath, *, key: AnyPath | None = None) -> BundleVerification:
    """Checks a bundle: every byte of it, and that its parts are of the same files.

    Example:
        >>> md.bundle_verify("release.zip").sha256

    Args:
        verify: the zip file of `bundle`.
        key: the public key of whoever signed it; its signature is <verify>.sig.

    Returns:
        What it holds.

    Raises:
        InputError: it is no bundle, or a part of it is missing, surplus or was changed; its
            signature is of another key or another file.
        MissingError: there is no signature; the extra `sign` is not installed.
    """
    path = Path(verify)
    if key is not None:
        bundle_signature.verify(path, Path(key))
    with bundle_contents.opened(path) as opened:
        contents = opened.contents
    return BundleVerification(
        path=str(path),
        sha256=opened.sha256,
        size_bytes=path.stat().st_size,
        artifacts=_names(contents),
        members=opened.members,
        accepted=len(contents.accepted),
        figures=len(contents.figures),
        key=arguments.text(key),
    )


def bundle_reproduce(
    reproduce: AnyPath,
    *,
    out: AnyPath,
    data: AnyPath | None = None,
    weights: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> BundleReproduction:
    """Makes the artifacts of a bundle again, by the arguments in their records, and compares them.

    Nothing that a record names is opened: your own images and weights are those that you give.

    Example:
        >>> md.bundle_reproduce("release.zip", out="again").same

    Args:
        reproduce: the zip file of `bundle`; it is checked first.
        out: the folder for the models' folders.
        data: your images, if the artifacts were made with images of yours.
        weights: your weights or model file, if the artifacts were made with one of yours.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        Each file, whether its bytes are the same, and otherwise how it differs.

    Raises:
        InputError: it is no bundle or was changed; the weights are others than those of the record;
            a file cannot be made, or its record does not say how.
        UsageError: data or weights are missing, or no record needs them.
        MissingError: TensorFlow or another asset is missing.
    """
    reporter, path, folder = reporter or PythonReporter(), Path(reproduce), Path(out)
    with bundle_contents.opened(path) as opened:
        files = reproduction.reproduce(
            opened.contents,
            folder,
            data=arguments.path(data),
            weights=arguments.path(weights),
            reporter=reporter,
        )
    return BundleReproduction(str(path), str(folder), files)


def _names(contents: BundleContents) -> tuple[str, ...]:
    return tuple(one.name for one in contents.bundled)


def _old_signature(bundle_: Path) -> NamedWarning:
    return NamedWarning(
        "old-signature",
        f"{bundle_signature.path_beside(bundle_)} was there before, and may be of another bundle",
        "remove it, or sign this one: --sign",
    )
