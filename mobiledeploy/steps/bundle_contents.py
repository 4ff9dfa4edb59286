"""What a bundle holds: gathered from artifacts and the store, and checked when it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mobiledeploy.core import artifacts, inputs, records, units, untrusted
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import Artifact, LatencyComparison, NamedWarning, Verdict
from mobiledeploy.steps import (
    baseline,
    bill_of_materials,
    bundle_archive,
    bundle_commands,
    bundle_environment,
    golden,
    golden_inputs,
    model_card,
    store_records,
)
from mobiledeploy.steps.baseline import Accepted, Baseline
from mobiledeploy.steps.bundle_archive import BundleManifest, FileToPack, plain
from mobiledeploy.steps.bundle_environment import BundleEnvironment
from mobiledeploy.steps.model_card import BundleCard, Licences
from mobiledeploy.store import database
from mobiledeploy.store.database import Store, StoredRecord

ARTIFACTS = "artifacts"
BASELINE = "baseline.json"
COMMANDS = "commands.txt"
ENVIRONMENT = "environment.json"
CARD = "MODEL_CARD.json"
CARD_TEXT = "MODEL_CARD.md"
FIGURES = "figures.jsonl"
MATERIALS = "bom.cdx.json"
LOCK = "requirements.lock"
LABELS = "labels.txt"
_ONE_OF_EACH = (CARD, CARD_TEXT, COMMANDS, ENVIRONMENT, FIGURES, LOCK, MATERIALS)
_UPDATE = "mobiledeploy check --update-baseline"
# Fields that name a file or a folder of the user's, and fields of text that may.
_PATHS = ("custom_objects", "data", "device", "model", "source", "weights")
_TEXTS = ("advice", "line", "message")
# USER@ of ssh:USER@HOST.
_USER = re.compile(r"[^\s:@/]+@")
# An absolute path in a text, its folders and its last part; not an address of the web.
_PATH_IN_TEXT = re.compile(r"(?<![\w.:/~])/(?:[^\s/:;,'\"]+/)+([^\s/:;,'\"]*)")


@dataclass(frozen=True)
class BundledArtifact:
    """An artifact of a bundle: its place there, its record, and the file to read."""

    name: str
    artifact: Artifact
    path: Path


@dataclass(frozen=True)
class BundleContents:
    """What a bundle says, besides the files themselves."""

    bundled: tuple[BundledArtifact, ...]
    environment: BundleEnvironment
    accepted: tuple[Accepted, ...]
    figures: tuple[StoredRecord, ...]


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle that was checked: its members lie in `folder` until it is closed."""

    folder: Path
    members: int
    sha256: str
    contents: BundleContents


@contextmanager
def opened(path: Path) -> Iterator[OpenedBundle]:
    """The bundle at `path`, every byte of it checked, in a temporary folder.

    Raises:
        InputError: it is no bundle, or a part of it is missing, surplus or was changed.
    """
    with artifacts.scratch() as scratch:
        folder = scratch / "content"
        folder.mkdir()
        manifest, sha256 = bundle_archive.extract(path, folder)
        contents = check(folder, manifest, inputs.printable(path))
        yield OpenedBundle(folder, len(manifest.members), sha256, contents)


def gather(
    paths: Sequence[Path], baseline_file: Path, licences: Licences, *, need_baseline: bool
) -> tuple[dict[str, bytes | FileToPack], BundleContents, tuple[NamedWarning, ...]]:
    """The members of a bundle of these artifacts by name, what they say, and warnings.

    Absolute paths in records lose their folders, which are of this machine only.

    Args:
        paths: artifacts, each with its record and golden files.
        baseline_file: a baseline; its entries of them become a part of the bundle.
        licences: of weights and data that do not come with mobiledeploy.
        need_baseline: whether it must be there and have some.

    Raises:
        UsageError: two of the files are the same.
        InputError: a file, a record or a golden file is missing, or is another than its record
            says; a file has no record; the baseline has no entry of these artifacts.
        MissingError: there is no such baseline, or the bundle extra is not installed.
    """
    loaded = [(path, _load(path)) for path in paths]
    first: dict[str, Path] = {}
    for path, artifact in loaded:
        other = first.setdefault(artifact.sha256, path)
        if other != path:
            raise UsageError(f"{path} is the same file as {other}", "name one of them")
    contents: dict[str, bytes | FileToPack] = {}
    bundled = []
    for folder, members in _by_folder(loaded).items():
        for path, artifact in members:
            name = f"{folder}/{plain(path.name)}"
            if name in contents:
                raise InputError(f"{path} has the name of another file in the bundle: {name}")
            record = inputs.read(artifacts.record_path(path), inputs.RECORD)
            text = _portable_record(artifact, record)
            contents[name] = FileToPack(path, artifact.sha256)
            contents[f"{name}.json"] = text
            for image in artifact.golden.images:
                content = golden_inputs.golden_content(path.parent, path.parent / image)
                contents[f"{folder}/{image}"] = content
            if artifact.spec.preprocessing.labels:
                contents[f"{name}.{LABELS}"] = _label_lines(artifact)
            stated = records.loads(Artifact, text, str(path))
            bundled.append(BundledArtifact(name, stated, path))
    bundled.sort(key=lambda one: one.name)
    hashes = {one.artifact.sha256 for one in bundled}
    accepted = _accepted(baseline_file, hashes) if need_baseline or baseline_file.exists() else ()
    if need_baseline and not accepted:
        raise InputError(
            f"{baseline_file} has no entry of these artifacts", f"accept them first: {_UPDATE}"
        )
    if accepted:
        contents[BASELINE] = records.dumps(Baseline(accepted)).encode()
    lines, unreadable = _figures(hashes)
    contents[FIGURES] = "".join(f"{line}\n" for line in lines).encode()
    contents[COMMANDS] = _command_lines([one.artifact for one in bundled])
    environment = bundle_environment.here()
    contents[ENVIRONMENT] = records.dumps(environment).encode()
    contents[LOCK] = bundle_environment.lock(environment).encode()
    figures = tuple(database.read_stored(line, FIGURES) for line in lines)
    named = [(one.name, one.artifact) for one in bundled]
    card = model_card.card(named, figures, licences)
    contents[CARD] = records.dumps(card).encode()
    contents[CARD_TEXT] = model_card.markdown(card).encode()
    contents[MATERIALS] = bill_of_materials.text(card, environment).encode()
    others = bundle_environment.other_versions([one.artifact for one in bundled])
    return (
        contents,
        BundleContents(tuple(bundled), environment, accepted, figures),
        (*unreadable, *others),
    )


def check(folder: Path, manifest: BundleManifest, where: str) -> BundleContents:
    """What the extracted bundle in `folder` says; every part of it fits the others.

    Args:
        folder: its members, each one that of `manifest`.
        manifest: their names.
        where: the bundle's name for messages.

    Raises:
        InputError: a member that does not belong to a bundle or is missing; a record that is not of
            its file; golden files, labels, a baseline or figures of something else.
    """
    names = {member.name for member in manifest.members}
    for name in _ONE_OF_EACH:
        if name not in names:
            raise InputError(f"{where}: member {name} is missing")
    bundled = []
    known = {*_ONE_OF_EACH, BASELINE}
    for name in sorted(names):
        if not name.startswith(f"{ARTIFACTS}/") or f"{name}.json" not in names:
            continue
        with _naming(where, folder):
            path = folder / name
            artifact = _load(path)
            if artifact.spec.preprocessing.labels:
                known.add(f"{name}.{LABELS}")
                if inputs.read(folder / f"{name}.{LABELS}", inputs.TABLE) != _label_lines(artifact):
                    raise InputError(f"{name}.{LABELS} has other labels than the record")
        parent = name.rpartition("/")[0]
        known |= {name, f"{name}.json", *(f"{parent}/{x}" for x in artifact.golden.images)}
        bundled.append(BundledArtifact(name, artifact, path))
    if not bundled:
        raise InputError(f"{where} holds no artifact with its record")
    surplus = sorted(names - known)
    if surplus:
        raise InputError(f"{where}: member {surplus[0]} belongs to no artifact of it")
    return _check_rest(folder, names, tuple(bundled), where)


def _check_rest(
    folder: Path, names: set[str], bundled: tuple[BundledArtifact, ...], where: str
) -> BundleContents:
    hashes = {one.artifact.sha256 for one in bundled}
    with _naming(where, folder):
        text = inputs.read(folder / ENVIRONMENT, inputs.RECORD)
        environment = records.loads(BundleEnvironment, text, ENVIRONMENT)
        if (
            inputs.read(folder / LOCK, inputs.TABLE)
            != bundle_environment.lock(environment).encode()
        ):
            raise InputError(f"{LOCK} has other versions than {ENVIRONMENT}")
        card = records.loads(
            BundleCard, inputs.read(folder / CARD, inputs.RECORD), str(folder / CARD)
        )
        if [(a.name, a.sha256) for a in card.artifacts] != [
            (one.name, one.artifact.sha256) for one in bundled
        ]:
            raise InputError(f"{CARD} is of other files")
        own = [one.artifact.sha256 for one in bundled]
        bill_of_materials.check(inputs.read(folder / MATERIALS, inputs.RECORD), own, MATERIALS)
        accepted: tuple[Accepted, ...] = ()
        if BASELINE in names:
            accepted = baseline.read(folder / BASELINE, _UPDATE).accepted
            if not {entry.artifact_sha256 for entry in accepted} <= hashes:
                raise InputError(f"{BASELINE} has an entry of another file")
        figures = tuple(store_records.read(folder / FIGURES))
        for one in figures:
            if not _subjects(one) <= hashes:
                raise InputError(f"{FIGURES} has a figure of another file")
    return BundleContents(bundled, environment, accepted, figures)


class _naming:  # noqa: N801 - reads as a statement: ``with _naming(where, folder):``
    """Names the bundle in a refusal, and takes the folder of this process out of it."""

    def __init__(self, where: str, folder: Path) -> None:
        self._where, self._folder = where, folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, InputError):
            message = error.message.replace(f"{self._folder}/", "")
            raise InputError(f"{self._where}: {message}", error.hint) from error


def _load(path: Path) -> Artifact:
    """The record of an artifact that is whole: its file, contract and golden files fit it."""
    artifact = artifacts.load(path)
    if not artifacts.record_path(path).exists():
        raise InputError(
            f"{path} has no record beside it",
            "a bundle takes what mobiledeploy export made, with its .json",
        )
    golden.has_contract(path, artifact)
    golden.images(path, artifact.golden)
    return artifact


def _by_folder(
    loaded: Sequence[tuple[Path, Artifact]],
) -> dict[str, list[tuple[Path, Artifact]]]:
    """The artifacts by their folder in the bundle, in the order of its name.

    Those of one folder stay together, since their golden files lie beside them. The name is that of
    the model; of two folders of one model each gets the start of a hash of its files.
    """
    places: dict[Path, list[tuple[Path, Artifact]]] = {}
    for path, artifact in sorted(loaded, key=lambda one: one[1].sha256):
        places.setdefault(path.parent.resolve(), []).append((path, artifact))
    names: dict[str, list[list[tuple[Path, Artifact]]]] = {}
    for members in places.values():
        names.setdefault(plain(members[0][1].spec.name), []).append(members)
    result = {}
    for name, several in names.items():
        for members in several:
            joined = "".join(artifact.sha256 for _, artifact in members)
            own = name if len(several) == 1 else f"{name}_{records.sha256(joined.encode())[:8]}"
            result[f"{ARTIFACTS}/{own}"] = members
    return dict(sorted(result.items()))


def _label_lines(artifact: Artifact) -> bytes:
    return "".join(f"{label}\n" for label in artifact.spec.preprocessing.labels).encode()


def _accepted(path: Path, hashes: set[str]) -> tuple[Accepted, ...]:
    """The entries of a baseline for these files."""
    portable_entries = []
    for entry in baseline.read(path, _UPDATE).accepted:
        if entry.artifact_sha256 not in hashes:
            continue
        data = records.encode(entry)
        changed = records.decode(Accepted, _portable(data), str(path))
        # The seal is of the entry as it is written.
        portable_entries.append(
            entry if changed == entry else replace(changed, seal=baseline.seal(changed))
        )
    return tuple(sorted(portable_entries, key=baseline.key))


def _figures(hashes: Iterable[str]) -> tuple[list[str], tuple[NamedWarning, ...]]:
    """The records of the store about these files, one a line, as `results export` writes them.

    Those that this version cannot read are left out, with a warning.
    """
    if not database.path().exists():
        return [], ()
    with Store.open() as store:
        lines = [_portable_line(line) for line in store.dump(of=set(hashes))]
    readable = []
    for line in lines:
        # Of a mobiledeploy with other fields: nobody could check it in the bundle.
        with suppress(InputError):
            database.read_stored(line, FIGURES)
            readable.append(line)
    lost = len(lines) - len(readable)
    warning = NamedWarning(
        "unreadable-figures",
        f"{units.several(lost, 'record')} of the store are of another mobiledeploy and left out",
    )
    return readable, (warning,) * bool(lost)


def _command_lines(artifacts_: Sequence[Artifact]) -> bytes:
    """The commands that made the artifacts, each once, sorted."""
    lines = {bundle_commands.line(artifact) for artifact in artifacts_} - {""}
    return "".join(f"{line}\n" for line in sorted(lines)).encode()


def _subjects(stored: StoredRecord) -> set[str]:
    """The sha256 of the files that a stored record is about."""
    record = stored.record
    if isinstance(record, Artifact):
        return {record.sha256}
    if stored.of:
        return {stored.of.partition(" ")[0]}
    if isinstance(record, LatencyComparison):
        return {block.artifact_sha256 for block in record.blocks}
    assert not isinstance(record, Verdict)
    return {record.artifact_sha256}


# Absolute paths


def _portable_record(artifact: Artifact, text: bytes) -> bytes:
    """The text of a record; written anew without the folders of absolute paths, if it has any."""
    data = records.encode(artifact)
    changed = _portable(data)
    if changed == data:
        return text
    return records.dumps(records.decode(Artifact, changed)).encode()


def _portable_line(line: str) -> str:
    data = untrusted.parse_json(line, FIGURES)
    changed = _portable(data)
    return line if changed == data else json.dumps(changed, separators=(",", ":"))


def _portable(value: Any, field: str = "") -> Any:
    """JSON without what is of one machine or user only.

    Absolute paths lose their folders: /home/me/photos -> photos, replay:/tmp/x.jsonl ->
    replay:x.jsonl. The address of a device loses its user: ssh:me@host -> ssh:host.
    """
    if isinstance(value, Mapping):
        return {key: _portable(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item, field) for item in value]
    if not isinstance(value, str):
        return value
    if field == "device":
        value = _USER.sub("", value)
    if field in _PATHS:
        kind, colon, path = value.partition(":/")
        if colon or value.startswith("/"):
            name = (path if colon else value).rstrip("/").rpartition("/")[2] or "folder"
            return f"{kind}:{name}" if colon else name
        return value
    return _PATH_IN_TEXT.sub(r"\1", value) if field in _TEXTS else value
