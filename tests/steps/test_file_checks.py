from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import DataRef
from mobiledeploy.steps import file_checks


def test_samples_of_numbers_alone_can_be_golden(tmp_path) -> None:
    np.savez(tmp_path / "data.npz", facts=np.zeros((40, 5), np.float32))
    data = DataRef(str(tmp_path / "data.npz"), "validation", (0, 0))
    golden = file_checks.golden_samples(SimpleNamespace(data=data), SILENT)
    assert len(golden) == file_checks.GOLDEN_SAMPLES
