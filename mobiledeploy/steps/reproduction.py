"""Makes the artifacts of a bundle again and says how the new files differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobiledeploy.core import inputs, records
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Artifact
from mobiledeploy.steps import bundle_commands, bundle_environment, export_files
from mobiledeploy.steps.bundle_contents import BundleContents, BundledArtifact
from mobiledeploy.steps.bundle_environment import BundleEnvironment
from mobiledeploy.steps.export_plan import ExportConfig, ExportPlan, plan
from mobiledeploy.steps.file_checks import Collector

_MOST_VERSIONS = 8


@dataclass(frozen=True)
class ReproducedFile(Record):
    """A file of a bundle that was made again at `path`; `name` is the one in the bundle.

    `differences` says in words how it is not the same; it is empty for the same bytes.
    """

    name: str
    path: str
    sha256_in_bundle: str
    sha256: str
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether it is the same file, byte for byte."""
        return self.sha256 == self.sha256_in_bundle


def reproduce(
    contents: BundleContents,
    out: Path,
    *,
    data: Path | None,
    weights: Path | None,
    reporter: Reporter,
) -> tuple[ReproducedFile, ...]:
    """Makes the artifacts again below `out`, each by the arguments of its record.

    Nothing is evaluated or stored, for a figure changes no file.

    Args:
        contents: of a bundle that was checked.
        out: the folder for the models' folders.
        data: the user's own data, if the records name some.
        weights: the user's own weights or model file, if the records name some.
        reporter: is told of progress and warnings.

    Raises:
        UsageError: data or weights that no record needs, or that are needed and not given.
        InputError: other weights than those of the record; a record that does not say how its file
            was made; a file that cannot be made.
        MissingError: TensorFlow or another asset is missing.
    """
    _refuse_surplus(contents.bundled, data, weights)
    exports: dict[object, list[BundledArtifact]] = {}
    for one in contents.bundled:
        artifact = one.artifact
        export = _folder(one), artifact.arguments, artifact.spec.weights, artifact.key
        exports.setdefault(export, []).append(one)
    # All plans come first, so that what can be refused is refused before the work.
    folders = {_folder(one) for one in contents.bundled}
    plans = [
        # Files of one name in several folders stay apart.
        _plan(
            members,
            out / _folder(members[0]) if len(folders) > 1 else out,
            data,
            weights,
            reporter,
        )
        for members in exports.values()
    ]
    files: list[ReproducedFile] = []
    for (planned, config), members in zip(plans, exports.values(), strict=True):
        export_files.refuse_irregular(planned)
        collector = Collector(reporter)
        made = export_files.make(planned, config, collector)
        if collector.failed:
            raise InputError(collector.failed[0].message)
        new = {(a.recipe.name, a.format): (Path(path), a) for path, a in made.items()}
        for one in members:
            key = one.artifact.recipe.name, one.artifact.format
            if key not in new:
                raise InputError(f"{one.name} could not be made again: the export left it out")
            files.append(_compare(one, *new[key], contents.environment))
    return tuple(sorted(files, key=lambda file: file.name))


def _folder(one: BundledArtifact) -> str:
    return Path(one.name).parent.name


def _refuse_surplus(
    bundled: Sequence[BundledArtifact], data: Path | None, weights: Path | None
) -> None:
    needs = [
        bundle_commands.needs(one.artifact.arguments)
        for one in bundled
        if one.artifact.arguments is not None
    ]
    trained = any(bundle_commands.trained_on_own(one.artifact) for one in bundled)
    for option, value, takes in (
        ("--data", data, trained or any(own_data for own_data, _ in needs)),
        ("--weights", weights, any(own_weights for _, own_weights in needs)),
    ):
        if value is not None and not takes:
            raise UsageError(
                f"no file of this bundle was made with {option} of a user's own", "leave it out"
            )


def _plan(
    members: Sequence[BundledArtifact],
    out: Path,
    data: Path | None,
    weights: Path | None,
    reporter: Reporter,
) -> tuple[ExportPlan, ExportConfig]:
    """The plan of one export, for the files of the bundle only, and its arguments."""
    first = members[0].artifact
    config = bundle_commands.config(first, out, data=data, weights=weights)
    planned = plan(config, reporter)
    now, then = planned.source.spec.weights, first.spec.weights
    if now.sha256 != then.sha256:
        raise InputError(
            f"{weights or now.source} holds other weights than those that made {members[0].name}: "
            f"sha256 {now.sha256[:12]}, not {then.sha256[:12]}"
        )
    jobs = tuple(
        job
        for job in planned.jobs
        if job in {(one.artifact.recipe.name, one.artifact.format) for one in members}
    )
    if not jobs:
        raise InputError(
            f"the record of {members[0].name} says another recipe or format than its command"
        )
    return dataclasses.replace(planned, jobs=jobs, strict=True, evaluates=False), config


def _compare(
    one: BundledArtifact, path: Path, artifact: Artifact, environment: BundleEnvironment
) -> ReproducedFile:
    then = one.artifact
    same = artifact.sha256 == then.sha256
    return ReproducedFile(
        name=one.name,
        path=str(path),
        sha256_in_bundle=then.sha256,
        sha256=artifact.sha256,
        differences=() if same else tuple(_differences(one, path, artifact, environment)),
    )


def _differences(
    one: BundledArtifact, path: Path, now: Artifact, environment: BundleEnvironment
) -> Iterator[str]:
    """How a new file differs from that of the bundle, and what may be the cause."""
    then = one.artifact
    contents = [inputs.read(file, inputs.FINISHED) for file in (one.path, path)]
    if _same_model(then.format, *contents):
        yield "the model is the same, and only the metadata in the file differ"
    else:
        yield _bytes_apart(*contents)
    if now.golden.images == then.golden.images:
        rows = [np.asarray(a.golden.logits, np.float64) for a in (then, now)]
        if rows[0].shape == rows[1].shape:
            far = float(np.abs(rows[0] - rows[1]).max(initial=0.0))
            yield f"the answers to the golden samples differ by {far:.3g} at most"
    else:
        yield "the golden samples are others"
    for what, new, old in (
        ("the model's name", now.spec.name, then.spec.name),
        ("evaluation images", now.data.identity, then.data.identity),
        ("calibration images", now.calibration, then.calibration),
        ("training images", now.trained_on, then.trained_on),
        ("the machine's instruction set", now.golden.isa, then.golden.isa),
    ):
        if new != old:
            yield f"{what}: {_short(new)}, not {_short(old)}"
    yield from _versions(now, then, environment)


def _versions(now: Artifact, then: Artifact, environment: BundleEnvironment) -> Iterator[str]:
    here = bundle_environment.here()
    pairs = {"Python": (here.python, environment.python)}
    pairs |= {
        name: (now.tools.get(name, ""), then.tools.get(name, ""))
        for name in {*now.tools, *then.tools}
    }
    different = [
        f"{name} {new or 'none'}, not {old or 'none'}"
        for name, (new, old) in sorted(pairs.items())
        if new != old
    ]
    if different:
        more = len(different) - _MOST_VERSIONS
        yield "; ".join(different[:_MOST_VERSIONS]) + (f"; and {more} more" if more > 0 else "")


def _same_model(format_: str, one: bytes, other: bytes) -> bool:
    """Whether two files are the same but for their metadata."""
    shelf = FORMATS.load(format_)
    contract = shelf.contract(other)
    if contract is None:
        return False
    return shelf.write_metadata(one, contract) == shelf.write_metadata(other, contract)


def _bytes_apart(one: bytes, other: bytes) -> str:
    if len(one) != len(other):
        return f"{len(other)} bytes, not {len(one)}"
    places = np.flatnonzero(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8))
    return f"{len(places)} of {len(one)} bytes differ, the first at {places[0]}"


def _short(text: str) -> str:
    is_hash = len(text) == len(records.sha256(b""))
    return text[:12] if is_hash else text or "none"
