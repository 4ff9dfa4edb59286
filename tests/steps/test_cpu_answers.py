from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobiledeploy.core.types import Artifact, Measured, ModelOutput, Signature, Target, Tensor
from mobiledeploy.graphs import postprocess
from mobiledeploy.steps import answer_steps, cpu_answers
from tests import figures

FLOAT = np.linspace(0, 255, 256, dtype=np.float32)
CODES = np.arange(-4, 4, dtype=np.int8)


def measured(delegate: str = "gpu", delegated: int | None = 31) -> Measured:
    plain = Measured(
        "0" * 64,
        Target("ssh:pi", "native", "litert", 1, delegate),
        "2.3.0",
        (1,),
        (),
        1.0,
        (1.0, 1.0),
        1,
        31,
        31,
        {},
        {},
    )
    return replace(plain, delegated_nodes=delegated)


def artifact(*ends: ModelOutput, task: str = "segmentation") -> Artifact:
    plain = figures.artifact()
    tensors = tuple(Tensor(end.name, (1, *end.shape), "float32") for end in ends)
    spec = replace(plain.spec, task=task)
    return replace(plain, spec=spec, signature=Signature((), ends), outputs=tensors)


MAP = ModelOutput("map", (256,))
BOTH = artifact(MAP, ModelOutput("scores", (8,), "softmax"))


def steps(one: np.ndarray, other: np.ndarray) -> float:
    return cpu_answers.apart(artifact(MAP), [one], [other]).steps


def test_the_distance_is_in_steps() -> None:
    assert steps(FLOAT, FLOAT) == 0
    assert steps(FLOAT + 1, FLOAT) == pytest.approx(1)
    assert steps(CODES + 3, CODES) == 3
    assert steps(CODES == 0, CODES == 1) == 1
    flat = np.zeros(3, np.float32)
    assert steps(flat + 1, flat) == np.inf
    broken = np.full_like(FLOAT, np.nan)
    assert steps(broken, FLOAT) == np.inf
    # The same bits are the same answer.
    assert steps(broken, broken) == 0


def test_each_output_has_its_own_limit() -> None:
    """The distance is that of the output that is farthest by its limit."""
    codes = CODES.astype(np.int16)
    for values, scores, expected in ((16, 25, True), (17, 0, False), (0, 26, False)):
        distance = cpu_answers.apart(BOTH, [codes + values, codes + scores], [codes, codes])
        assert distance.within is expected
    assert cpu_answers.apart(BOTH, [codes + 17, codes + 20], [codes, codes]).limit == "16 steps"
    assert cpu_answers.apart(BOTH, [codes, codes + 30], [codes, codes]).steps == 30


def test_boxes_may_change_places() -> None:
    chosen = artifact(*postprocess.outputs(), task="detection")
    dice = np.random.default_rng(0)
    corners = dice.uniform(0, 0.5, (1, 100, 2))
    boxes = np.concatenate([corners, corners + dice.uniform(0.2, 0.5, (1, 100, 2))], 2)
    scores = np.sort(dice.uniform(0, 1, (1, 100)))[:, ::-1]
    classes, count = dice.integers(0, 3, (1, 100)), np.full((1,), 100)
    answer = [x.astype(np.float32) for x in (boxes, classes, scores, count)]
    other = dice.permutation(100)
    moved = [*(x[:, other] for x in answer[:3]), answer[3]]
    distance = cpu_answers.apart(chosen, moved, answer)
    assert distance.within
    assert distance.steps == pytest.approx(0, abs=1e-4)
    for wrong in (
        [answer[0][:, ::-1], *answer[1:]],
        [*answer[:2], answer[2] * 0, answer[3]],
        [answer[0] * np.nan, *answer[1:]],
        [answer[0], answer[1] + 1, *answer[2:]],
    ):
        distance = cpu_answers.apart(chosen, wrong, answer)
        assert not distance.within
        assert "% of the boxes' scores" in distance.text


def test_what_is_told() -> None:
    def name(one: Measured, distance: float, output: np.ndarray) -> str:
        far = answer_steps.farthest([distance], [MAP])
        warning = cpu_answers.warning(one, far, [output])
        return warning.name if warning else ""

    assert name(measured(), 16.1, FLOAT) == "differs-from-cpu"
    assert name(measured(), 0.1, FLOAT) == ""
    assert name(measured(), 0.0, FLOAT) == "same-as-cpu"
    # Codes are often the same, and LiteRT itself counts what XNNPACK takes.
    assert name(measured(), 0.0, CODES) == ""
    assert name(measured("xnnpack"), 0.0, FLOAT) == ""
    assert name(measured("xnnpack", None), 0.0, FLOAT) == "same-as-cpu"
