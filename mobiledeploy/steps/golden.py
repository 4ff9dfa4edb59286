"""Golden samples: runs the images beside an artifact again and compares with its record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import arrays, artifacts, inputs, preprocessing, protocol
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Golden,
    NamedWarning,
    Outcome,
    Tensor,
    Verdict,
)
from mobiledeploy.steps import answers, golden_inputs, instruction_sets, predictors, runtimes

TOLERATED_STEPS = 1.0
"""The same runtime and instruction set must reproduce golden outputs within this limit."""
TOLERATED_ELSEWHERE = 2.0
"""Of another device. Built-in kernels in place of XNNPACK's already make one step."""
# Steps are quotients of rounded numbers.
_ROUNDING = 1e-3
_LEVELS = 255
_LEAST_RANGE = 1e-3


@dataclass(frozen=True)
class Replay:
    """The current answers of an artifact to its golden samples: real-valued logits [N, values].

    `outputs` are the tensors of these values. `device` is where they were made.
    """

    logits: NDArray[np.float32]
    outputs: tuple[Tensor, ...]
    runtime: str
    isa: str
    device: str
    delegate: str


def images(path: Path, golden: Golden) -> tuple[Path, ...]:
    """The golden images of the artifact at `path`.

    Raises:
        InputError: there are none, one is absent or was changed, or the record names a file
            elsewhere.
    """
    paths = tuple(path.parent / name for name in golden.images)
    for image in paths:
        golden_inputs.golden_content(path.parent, image)
    if not paths or len(paths) != len(golden.logits):
        raise InputError(
            f"{path} has no golden samples",
            "they come with files of mobiledeploy export; if it is one, export it again with "
            "--force",
        )
    return paths


def has_contract(path: Path, artifact: Artifact) -> bool:
    """Whether the file at `path` carries its contract; InputError if its record has another."""
    contract = FORMATS.load(artifact.format).contract(inputs.read(path, inputs.FINISHED))
    if contract is None:
        return False
    spec = artifact.spec
    pairs = {
        "preprocessing": (contract.preprocessing, spec.preprocessing),
        "resolution": (contract.resolution, spec.resolution),
        "layout": (contract.layout, artifact.layout),
        "signature": (contract.signature, artifact.signature),
        "golden samples": (contract.golden, artifact.golden),
    }
    for name, (inside, beside) in pairs.items():
        if inside != beside:
            raise InputError(
                f"{path} says itself another {name} than its record does",
                "export it again, with --force",
            )
    return True


def replay(
    path: Path,
    artifact: Artifact,
    reporter: Reporter,
    predictor: predictors.Predictor | None = None,
) -> Replay:
    """Runs the golden images again, by `predictor`, or by default on this host.

    The default is the default runtime of the artifact's format, and its delegate.

    Raises:
        InputError: see `images`; or NaN among the answers.
    """
    paths = images(path, artifact.golden)
    shelf = FORMATS.load(artifact.format)
    with artifacts.scratch() as scratch:
        probe = Path(scratch, f"probe-{path.name}")
        content = answers.probe(inputs.read(path, inputs.FINISHED), artifact)
        probe.write_bytes(content)
        facts = shelf.inspect(content)
        source = golden_inputs.data_set(path.parent, artifact.golden.images, scratch)
        data = DataRef(source, "all", artifact.spec.resolution)
        signature, count = artifacts.signature(artifact).inputs, len(paths)
        if predictor is None:
            runtime, logits = answers.logits(
                probe, facts, signature, data, range(count), reporter=reporter
            )
            isa, device = instruction_sets.here(), predictors.HOST
            delegate = runtimes.target(artifact).delegate
        else:
            work = answers.work(facts, signature, data)
            pool = predictor.pool(probe, predictor.target(artifact), work)
            runtime, logits = answers.rows(pool, range(count))
            isa, device = predictor.isa(pool.ready), predictor.device
            delegate = pool.ready.delegate
    return Replay(logits, facts.outputs, runtime, isa, device, delegate)


def _steps(outputs: Sequence[Tensor], answers: NDArray[np.float32]) -> NDArray[np.float64]:
    """The quantization step of each value of golden rows, float32 [N, values], of these outputs.

    The step of a float output is a 255th of its range, which is a thousandth of its largest value
    at least: rounding alone moves a value that never changes. It is 0 where all values are.
    """
    counts = [min(math.prod(tensor.shape), accuracy.GOLDEN_VALUES) for tensor in outputs]
    parts = np.split(answers, np.cumsum(counts)[:-1], axis=1)
    return np.concatenate(
        [
            np.full(part.shape[1], tensor.scale[0] if tensor.scale else _float_step(part))
            for tensor, part in zip(outputs, parts, strict=True)
        ]
    )


def _float_step(values: NDArray[np.float32]) -> float:
    return float(max(np.ptp(values), _LEAST_RANGE * np.max(np.abs(values)))) / _LEVELS


def _steps_apart(
    outputs: Sequence[Tensor], one: NDArray[np.float32], other: NDArray[np.float32]
) -> float:
    """The largest distance of golden rows [N, values] of these outputs, in steps.

    The range of a float output is that of both: answers of one value alone would have none. NaN and
    infinity are infinitely far.
    """
    both = np.concatenate([one, other])
    if not np.isfinite(both).all():
        return math.inf
    apart = np.abs(one - other).astype(np.float64)
    steps = _steps(outputs, both)
    return float(np.max(np.divide(apart, steps, out=np.zeros_like(apart), where=steps > 0)))


def timed_steps(
    artifact: Artifact, ready: protocol.Ready, event: protocol.RawAnswer | None
) -> float | None:
    """How far the answer of a timing's last run is from that of the export, in quantization steps.

    Its input was the first golden sample. None without one, without an answer, and where the export
    kept the values before a softmax over more values than it keeps.

    Raises:
        DeviceError: the answer arrived damaged.
    """
    if event is None or not artifact.golden.logits:
        return None
    raw = arrays.raw(protocol.raw_outputs(event), ready.outputs)
    values = [
        preprocessing.from_output(raw[place], tensor, artifact.layout)
        for place, tensor in zip(
            protocol.places(artifact.outputs, ready.outputs), artifact.outputs, strict=True
        )
    ]
    expected = np.asarray(artifact.golden.logits[0], np.float32)
    ends = artifacts.signature(artifact).outputs
    row = accuracy.golden_row(values)
    if accuracy.before_softmax(ends) != ends:
        if values[0].shape != expected.shape:
            return None
        expected = softmax(expected)
        tensor = artifact.outputs[0]
        if tensor.scale:
            # The largest code of a softmax is less than 1.
            codes = np.iinfo(tensor.dtype)
            low, high = (
                tensor.scale[0] * (code - tensor.zero_point[0]) for code in (codes.min, codes.max)
            )
            expected = np.clip(expected, low, high)
    if row.shape != expected.shape:
        return None
    return _steps_apart(artifact.outputs, row[np.newaxis], expected[np.newaxis])


def judge(artifact: Artifact, now: Replay) -> tuple[Verdict | None, NamedWarning | None]:
    """Whether the golden outputs are reproduced.

    Another runtime or machine gives a warning only. Of a device that is not this host there is
    always a verdict: its answers are compared with those of the export, in quantization steps.
    """
    golden = artifact.golden
    golden_logits = np.asarray(golden.logits, np.float32)
    if golden_logits.shape != now.logits.shape:
        raise InputError(
            f"{artifact.path} answers with {now.logits.shape[1]} classes, its record has "
            f"{golden_logits.shape[1]}",
            "export it again, with --force",
        )
    steps = _steps_apart(now.outputs, golden_logits, now.logits)
    count = len(golden.images)
    message = f"golden outputs differ by {steps:.3g} steps at most from those of the export"
    origin = f"{golden.runtime} on {golden.isa or 'an unknown machine'}"
    if now.device != predictors.HOST:
        within = steps <= TOLERATED_ELSEWHERE + _ROUNDING
        line = (
            f"golden outputs of {now.runtime} on {now.device} ({now.isa}) differ by {steps:.3g} "
            f"steps at most from those of the export ({origin})"
        )
        if not within:
            line += f": it computes otherwise there ({TOLERATED_ELSEWHERE:g} are allowed)"
        outcome: Outcome = "pass" if within else "fail"
        verdict = Verdict(
            "golden", "", outcome, steps, None, TOLERATED_ELSEWHERE, count, None, line
        )
        return verdict, None
    if (golden.runtime, golden.isa) != (now.runtime, now.isa):
        message = f"{message}, which ran on {origin}; this is {now.runtime} on {now.isa}"
        return None, NamedWarning("golden-elsewhere", message, "other kernels round otherwise")
    within = steps <= TOLERATED_STEPS + _ROUNDING
    line = (
        message
        if within
        else f"{message}: the file is not what was exported, or its kernels changed"
    )
    kind: Outcome = "pass" if within else "fail"
    return Verdict("golden", "", kind, steps, None, TOLERATED_STEPS, count, None, line), None
