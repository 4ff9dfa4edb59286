"""The export that made an artifact, from its record: as a command line, and to be run again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from mobiledeploy.core import builtin_data
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import Artifact, ExportArguments
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.card_specs import DEMO
from mobiledeploy.steps.export_plan import ExportConfig

# Weights that `export` finds by itself.
_OWN_WEIGHTS = (None, DEMO, "imagenet", "random")


def line(artifact: Artifact) -> str:
    """The command that made an artifact; "" if its record does not say it."""
    if artifact.arguments is None:
        return ""
    return shlex.join(("mobiledeploy", "export", *_words(artifact.arguments)))


def _words(a: ExportArguments) -> Iterator[str]:
    if a.model is not None:
        yield a.model
    options = {
        "--arch": a.arch,
        "--alpha": a.alpha,
        "--groups": a.groups,
        "--res": a.res,
        "--weights": a.weights,
        "--data": a.data,
        "--task": a.task or None,
        "--recipe": ",".join(a.recipes) or None,
        "--format": ",".join(a.formats) or None,
        "--io": None if a.io == "int8" else a.io,
        "--output": None if a.output == "model" else a.output,
        "--custom-objects": a.custom_objects,
        "--input-range": a.input_range,
        "--mean": a.mean,
        "--std": a.std,
        "--channels": a.channels,
        "--resize": a.resize,
        "--crop": a.crop,
        "--for": a.core,
        "--labels": "labels.txt" if a.labels else None,
    }
    for option, value in options.items():
        if value is not None:
            # One word, since a list may begin with a minus.
            yield f"{option}={_text(value)}"
    for layer in a.keep_float:
        yield f"--keep-float={layer}"
    if not a.shrink:
        yield "--no-shrink"
    if a.unsafe:
        yield "--unsafe"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{number:.17g}" for number in value)
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def needs(a: ExportArguments) -> tuple[bool, bool]:
    """Whether an export used data of the user's own, and weights or a model of the user's own."""
    own_data = a.data is not None and a.data not in builtin_data.NAMES
    return own_data, a.model is not None or a.weights not in _OWN_WEIGHTS


def trained_on_own(artifact: Artifact) -> bool:
    """Whether its images are those that the folder of a training names."""
    a = artifact.arguments
    if a is None or a.model is None or a.data is not None:
        return False
    return artifact.data.source not in builtin_data.NAMES


def config(
    artifact: Artifact, out: Path, *, data: Path | None, weights: Path | None
) -> ExportConfig:
    """The export that made an artifact, into another folder.

    Args:
        artifact: from a bundle; nothing that its record names is opened.
        out: the folder for the model's folder.
        data: the user's own data, in place of what the record names.
        weights: the user's own weights or model file, in place of what the record names.

    Raises:
        InputError: the record does not say how the file was made, or it was made with code of the
            user's own.
        UsageError: the record needs data or weights that are not given.
    """
    a = artifact.arguments
    if a is None:
        raise InputError(
            f"the record of {artifact.path} does not say how the file was made",
            "an earlier version made it: export it again, with --force, and bundle it again",
        )
    if a.unsafe or a.custom_objects is not None:
        raise InputError(
            f"{artifact.path} was made with code of its own ({line(artifact)})",
            "if you trust that code, run this command yourself",
        )
    own_data, own_weights = needs(a)
    for option, value, needed, name in (
        ("--data", data, own_data, a.data),
        ("--weights", weights, own_weights, a.model or a.weights),
    ):
        if needed and value is None:
            raise UsageError(
                f"{artifact.path} was made with {name}, which no bundle holds",
                f"give {option} with yours",
            )
    pre = artifact.spec.preprocessing
    return ExportConfig(
        model=weights if a.model is not None else None,
        arch=a.arch,
        alpha=a.alpha,
        groups=a.groups,
        res=a.res,
        weights=str(weights) if own_weights and a.model is None else a.weights,
        data=str(data) if data and (own_data or trained_on_own(artifact)) else a.data,
        recipes=a.recipes or None,
        formats=a.formats or None,
        io=a.io,
        output=a.output,
        keep_float=a.keep_float,
        shrink=a.shrink,
        core=a.core,
        task=a.task,
        overrides=Overrides(
            a.input_range,
            a.mean,
            a.std,
            a.channels,
            a.resize,
            a.crop,
            pre.labels if a.labels else None,
        ),
        out=out,
    )
