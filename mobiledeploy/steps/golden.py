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
    Tensor,
    Verdict,
)
from mobiledeploy.steps import (
    answer_steps,
    answers,
    golden_inputs,
    instruction_sets,
    predictors,
    runtimes,
)

TOLERATED_STEPS = 1.0
"""The same runtime, delegate and instruction set must reproduce golden outputs within this limit.

`answer_steps` has the limits of others."""
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


def _apart(
    artifact: Artifact,
    outputs: Sequence[Tensor],
    one: NDArray[np.float32],
    other: NDArray[np.float32],
) -> list[float]:
    """The largest distance of golden rows [N, values], in steps: for each output, or of boxes.

    `outputs` are the tensors of the values. Boxes that the file chose are one number, if the rows
    hold all of them.
    """
    counts = [math.prod(tensor.shape) for tensor in outputs]
    ends = artifacts.signature(artifact).outputs
    if answer_steps.chooses_boxes(artifact.spec.task, ends):
        of_boxes = answer_steps.rows_of_boxes_apart(one, other, ends)
        if of_boxes is not None:
            return [of_boxes]
    edges = np.cumsum([min(count, accuracy.GOLDEN_VALUES) for count in counts])[:-1]
    parts = zip(outputs, np.split(one, edges, 1), np.split(other, edges, 1), strict=True)
    return [_steps_apart(tensor, mine, theirs) for tensor, mine, theirs in parts]


def _steps_apart(tensor: Tensor, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest distance of golden values [N, values] of an output, in its steps.

    The step of a float output is a 255th of its range over both, for answers of one value alone
    would have none. The range is a thousandth of the largest value at least: rounding alone moves a
    value that never changes. NaN and infinity are infinitely far.
    """
    both = np.concatenate([one, other])
    if not np.isfinite(both).all():
        return math.inf
    largest = max(np.ptp(both), _LEAST_RANGE * np.max(np.abs(both)))
    step = tensor.scale[0] if tensor.scale else float(largest) / answer_steps.LEVELS
    apart = float(np.max(np.abs(one - other).astype(np.float64)))
    return apart / step if step else 0.0


def timed(
    artifact: Artifact, ready: protocol.Ready, event: protocol.RawAnswer | None
) -> answer_steps.AnswerDistance | None:
    """How far the answer of a timing's last run is from that of the export.

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
    apart = _apart(artifact, artifact.outputs, row[np.newaxis], expected[np.newaxis])
    same = ready.delegate == runtimes.target(artifact).delegate
    return answer_steps.farthest(apart, ends, same_delegate=same)


def judge(artifact: Artifact, now: Replay) -> tuple[Verdict | None, NamedWarning | None]:
    """Whether the golden outputs are reproduced.

    Another runtime or instruction set of this host gives a warning only. Of another device, and of
    another delegate than that of the export, there is always a verdict, by the limits of
    `answer_steps`.
    """
    golden = artifact.golden
    golden_logits = np.asarray(golden.logits, np.float32)
    if golden_logits.shape != now.logits.shape:
        raise InputError(
            f"{artifact.path} answers with {now.logits.shape[1]} classes, its record has "
            f"{golden_logits.shape[1]}",
            "export it again, with --force",
        )
    apart = _apart(artifact, now.outputs, golden_logits, now.logits)
    ends = accuracy.before_softmax(artifacts.signature(artifact).outputs)
    origin = f"{golden.runtime} on {golden.isa or 'an unknown machine'}"
    away = now.device != predictors.HOST
    same = now.delegate == runtimes.target(artifact).delegate
    if away or not same:
        place = f" on {now.device} ({now.isa})" if away else ""
        place += "" if same else f" with delegate {now.delegate}"
        distance = answer_steps.farthest(apart, ends, same_delegate=same)
        line = f"its golden answers of {now.runtime}{place} {_compared(distance)} ({origin})"
        if not distance.within:
            line += f": it computes otherwise there ({distance.limit} are allowed)"
        return _verdict(golden, distance, line), None
    distance = answer_steps.farthest(apart, ends, tolerated=TOLERATED_STEPS)
    message = f"its golden answers {_compared(distance)}"
    if (golden.runtime, golden.isa) != (now.runtime, now.isa):
        message = f"{message}, which ran on {origin}; this is {now.runtime} on {now.isa}"
        return None, NamedWarning("golden-elsewhere", message, "other kernels round otherwise")
    if not distance.within:
        message += ": the file is not what was exported, or its kernels changed"
    return _verdict(golden, distance, message), None


def _compared(distance: answer_steps.AnswerDistance) -> str:
    """What golden answers do beside those of the export, in words."""
    if distance.steps == 0:
        return "are equal to those of the export"
    return f"differ by at most {distance.text} from those of the export"


def _verdict(golden: Golden, distance: answer_steps.AnswerDistance, line: str) -> Verdict:
    return Verdict(
        "golden",
        "",
        "pass" if distance.within else "fail",
        distance.steps,
        None,
        distance.tolerated,
        len(golden.images),
        None,
        line,
    )
