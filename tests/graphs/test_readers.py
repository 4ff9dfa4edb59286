"""Values that the readers of a tensor do not tell apart."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.graphs import readers
from mobiledeploy.graphs.graph import Graph
from tests.lite import Lite, answers

SHAPE = (1, 4, 4, 3)
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("HARD_SWISH", "RELU", "RELU6", "RELU_N1_TO_1"),
                *("ADD", "ADD", "MAX_POOL_2D", "MUL"),
            )
        ),
        st.integers(1, 3),
        st.floats(-4, 4, width=16),
        st.sampled_from(ACTIVATIONS),
    ),
    min_size=1,
    max_size=8,
)


def network(steps, ends=()):
    """A file of the steps, and its tensors; a tensor in `ends` is clipped for its readers.

    A step is an operator, how many tensors back it reads, the constant that ADD adds, and the
    activation that is fused into it.
    """
    net = Lite()
    ends = dict(ends)

    def clipped(index, place):
        for kind, end in zip(("MAXIMUM", "MINIMUM"), ends.get(place, ()), strict=False):
            limit = net.constant(np.full(1, end, np.float32))
            index = net.op(kind, [index, limit], SHAPE, options="MaximumMinimumOptions")
        return index

    made = [net.input(SHAPE)]
    seen = [clipped(made[0], 0)]
    for kind, back, number, activation in steps:
        source = seen[-min(back, len(seen))]
        fused = {"fusedActivationFunction": getattr(schema.ActivationFunctionType, activation)}
        if kind == "ADD":
            # Each channel has a constant of its own.
            three = net.constant(number + np.arange(3, dtype=np.float32))
            target = net.op(kind, [source, three], SHAPE, options="AddOptions", **fused)
        elif kind == "MUL":
            target = net.op(kind, [source, seen[-1]], SHAPE, options="MulOptions", **fused)
        elif kind == "MAX_POOL_2D":
            window = {"filterWidth": 2, "filterHeight": 2, "strideW": 1, "strideH": 1}
            target = net.op(
                kind, [source], SHAPE, options="Pool2DOptions", version=2, **window, **fused
            )
        else:
            target = net.op(kind, [source], SHAPE)
        made.append(target)
        seen.append(clipped(target, len(made) - 1))
    return net.file(made[-1], made[len(made) // 2]), made


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_clipping_what_no_reader_tells_apart_changes_no_answer(steps):
    content, made = network(steps)
    graph = Graph(content)
    told = readers.telling(graph)
    ends = [(n, told[graph.name(i)]) for n, i in enumerate(made) if graph.name(i) in told]
    image = np.random.default_rng(0).uniform(-9, 9, SHAPE).astype(np.float32)
    for one, other in zip(
        answers(content, image), answers(network(steps, ends)[0], image), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([("HARD_SWISH", 1, 0, "NONE")], (-3, np.inf)),
        ([("RELU6", 1, 0, "NONE")], (0, 6)),
        # The constants are 3, 4 and 5.
        ([("ADD", 1, 3, "RELU6")], (-5, 3)),
        ([("ADD", 1, 3, "NONE"), ("RELU6", 1, 0, "NONE")], (-5, 3)),
        ([("MAX_POOL_2D", 1, 0, "NONE"), ("HARD_SWISH", 1, 0, "NONE")], (-3, np.inf)),
        ([("HARD_SWISH", 1, 0, "NONE"), ("RELU6", 2, 0, "NONE")], (-3, np.inf)),
        ([("HARD_SWISH", 1, 0, "NONE"), ("MUL", 2, 0, "NONE")], None),
        ([("MAX_POOL_2D", 1, 0, "NONE")], None),
    ],
)
def test_a_tensor_needs_what_one_of_its_readers_tells_apart(steps, told):
    # A product of two tensors tells all values apart.
    content, (first, *_) = network([*steps, ("MUL", 1, 0, "NONE"), ("MUL", 1, 0, "NONE")])
    graph = Graph(content)
    assert readers.telling(graph).get(graph.name(first)) == told
