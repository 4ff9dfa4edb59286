"""The newest files of a store beside those that a baseline accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from mobiledeploy.core import metric_columns, units
from mobiledeploy.core.display import Table
from mobiledeploy.core.types import AcceptedDifference, Artifact, Result
from mobiledeploy.steps import baseline
from mobiledeploy.store.database import Store

Layers = Callable[[Path, Path], Table]
"""The layers of two files that differ most: (accepted, now)."""


def differences(
    entries: Iterable[baseline.Accepted],
    results: Iterable[Result],
    store: Store,
    files: Mapping[str, Path],
    layers: Layers,
) -> Iterator[AcceptedDifference]:
    """One for each entry whose model, recipe and format the results have.

    Args:
        entries: what a baseline accepts.
        results: figures, newest first.
        store: has the artifacts and their evaluations.
        files: the existing files, by sha256.
        layers: asked where both files exist.
    """
    artifacts = store.artifacts()
    newest: dict[baseline.Key, Result] = {}
    for r in results:
        artifact = artifacts.get(r.artifact_sha256)
        if artifact is not None:
            newest.setdefault(baseline.key(artifact), r)
    for entry in entries:
        now = newest.get(baseline.key(entry))
        if now is not None:
            yield _difference(entry, now, artifacts, store, files, layers)


def _difference(
    entry: baseline.Accepted,
    now: Result,
    artifacts: Mapping[str, Artifact],
    store: Store,
    files: Mapping[str, Path],
    layers: Layers,
) -> AcceptedDifference:
    before, sha = entry.artifact_sha256, now.artifact_sha256
    evaluation = store.judgement(sha)
    both = [files[one] for one in (before, sha) if one in files]
    if entry.task is None:
        value = None if entry.right is None else entry.right / entry.images
    else:
        value = entry.metric
    return AcceptedDifference(
        model=units.network(now.model, now.weights, now.weights_sha256),
        recipe=now.recipe,
        format=units.format_name(now.format, now.io),
        artifact_sha256=sha,
        accepted_sha256=before,
        size_bytes=now.size_bytes,
        accepted_size_bytes=artifacts[before].size_bytes if before in artifacts else None,
        metric=metric_columns.of(now),
        value=now.value,
        accepted_value=value,
        gain=None if evaluation is None else baseline.gain(entry, evaluation),
        layers=layers(*both) if before != sha and len(both) == 2 else None,
    )
