from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.types import ModelInput
from mobiledeploy.steps import golden_inputs


@pytest.mark.parametrize("name", ["file", "allow_pickle", "args", "a/b", "é", "x.npy"])
def test_an_input_may_have_any_name(name, tmp_path) -> None:
    ends = [ModelInput(name, "tensor", (2,)), ModelInput("other", "tensor", (3,))]
    golden = tmp_path / "golden"
    golden.mkdir()

    class Both:
        def array(self, index, end):
            return np.arange(2.0) if end.name == name else np.arange(3.0)

    content, suffix = golden_inputs.encode(Both(), 0, ends)
    assert (content, suffix) == golden_inputs.encode(Both(), 0, ends)
    (golden / f"0{suffix}").write_bytes(content)
    source = f"golden:{golden}"
    samples = dataset(source).open(source, "all", resolution=(0, 0))
    assert samples.array(0, ends[0]).tolist() == [0, 1]
    assert samples.array(0, ends[1]).tolist() == [0, 1, 2]


def test_the_only_array_of_numbers_may_be_named_images(tmp_path) -> None:
    """docs/data.md says so; the golden file has the input's own name."""
    np.savez(tmp_path / "data.npz", images=np.arange(12.0).reshape(6, 2))
    source = str(tmp_path / "data.npz")
    samples = dataset(source).open(source, "all", resolution=(0, 0))
    content, suffix = golden_inputs.encode(samples, 2, [ModelInput("readings", "tensor", (2,))])
    (tmp_path / f"golden{suffix}").write_bytes(content)
    with np.load(tmp_path / f"golden{suffix}") as golden:
        assert golden["readings"].tolist() == [4, 5]
