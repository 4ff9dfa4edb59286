from mobiledeploy.frameworks import drafts
from mobiledeploy.frameworks.flat import Flat
from mobiledeploy.passes import global_pool
from tests.passes.conftest import draft, images


def kinds(content):
    flat = Flat(content)
    return [flat.kind(op) for op in flat.ops]


def test_a_pool_over_all_becomes_a_mean_with_a_scale_of_its_own():
    before = draft("relu6")
    assert "AVERAGE_POOL_2D" in kinds(before.floats)
    after = global_pool.apply(before, images())
    assert "AVERAGE_POOL_2D" not in kinds(after.floats)
    flat = Flat(drafts.integers(after))
    (mean,) = [op for op in flat.ops if flat.kind(op) == "MEAN"]
    read, made = flat.scale(int(mean.inputs[0]))[0], flat.scale(int(mean.outputs[0]))[0]
    assert made[0] < read[0]


def test_a_network_without_one_is_left_alone():
    before = draft("various")
    assert global_pool.apply(before, images()) is before
