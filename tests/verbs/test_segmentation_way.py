"""A segmentation network from its training to its gate, as a user goes."""

import numpy as np
import pytest

import mobiledeploy as md
from mobiledeploy.analysis import masks
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import SILENT
from mobiledeploy.verbs.check import update_baseline

pytestmark = pytest.mark.slow
COUNT, SIZE = 80, 32


def scenes():
    samples = dataset("demo-masks").open("demo-masks", "train", resolution=(SIZE, SIZE), labels=())
    for index in range(COUNT):
        mask = samples.annotation(index).mask
        assert mask is not None
        yield samples.image(index), masks.decode(mask).astype(np.uint8)


def test_train_export_evaluate_and_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(tmp_path / "store"))
    images, tables = map(np.stack, zip(*scenes(), strict=True))
    classes = ("background", *(f"shape {number}" for number in range(12)))
    np.savez("scenes.npz", images=images, masks=tables, classes=np.array(classes))
    done = md.train(
        task="segmentation",
        arch="lraspp_mobilenet_v3_small",
        alpha=0.25,
        res=SIZE,
        data="scenes.npz",
        epochs=2,
        batch=16,
        out="run",
        reporter=SILENT,
    )
    assert done.run.top1 is None
    assert set(done.run.metrics) == {"miou", "pixel_accuracy"}
    assert [set(epoch.metrics) for epoch in done.run.history] == [set(done.run.metrics)] * 2
    files = md.export(
        "run", recipe=("float32", "int8_ptq"), timed=False, out="build", reporter=SILENT
    )
    assert files.spec.task == "segmentation"
    assert len(files.rows) == 4
    for row in files.rows:
        assert set(row.metrics) == {"miou", "pixel_accuracy"}
        # In nats of a pixel.
        assert row.recipe == "float32" or row.divergence < 0.05
    (judged,) = md.evaluate([files.path("float32")], reporter=SILENT).evaluations
    # The float file is the network that was trained, on the images that judged it.
    assert judged.metrics["miou"] == pytest.approx(done.run.metrics["miou"], abs=1e-3)
    int8 = files.path("int8_ptq")
    update_baseline([int8], reporter=SILENT)
    report = md.check([int8], reporter=SILENT)
    (one,) = report.checks
    # Sixteen images are too few to pass.
    assert {verdict.outcome for verdict in one.verdicts} <= {"pass", "inconclusive"}
    assert one.metric
    assert one.metric.name == "miou"
    assert md.bench([int8], seconds=0.5, reporter=SILENT).measurements
