"""What editors see of `mobiledeploy`: read by mypy, never run."""

from pathlib import Path
from typing import assert_type

import mobiledeploy as md


def answers(model: md.KerasModel, reporter: md.Reporter) -> None:
    """Each verb with arguments of several kinds, and the type of its answer."""
    assert_type(md.analyze("model.tflite"), md.Analysis)
    assert_type(md.analyze_best(max_mult_adds=10**8, min_top1=60), md.BudgetChoices)
    assert_type(md.analyze_instructions("a.tflite"), md.InstructionFloors)
    assert_type(md.analyze_quantization(Path("a.tflite")), md.QuantizationDiagnosis)
    assert_type(md.analyze_table("mobilenet_v1"), md.TableComparison)
    assert_type(md.bench(), md.BenchResult)
    assert_type(md.bench(["a.tflite", Path("b.tflite")]).measurements[0], md.Measurement)
    assert_type(md.calibrate("board", csv="a.csv"), md.DeviceCalibration)
    assert_type(md.check("a.tflite", margin=0.5), md.Report)
    assert_type(md.compare("a.tflite", Path("b.tflite")), md.LatencyComparison)
    assert_type(md.cold_start("a.tflite", device="adb"), md.ColdStartResult)
    assert_type(md.devices(), md.DeviceList)
    assert_type(md.diff("a.tflite", "b.tflite"), md.Difference)
    assert_type(md.diff_figures(1, "b.json"), md.FigureDifference)
    assert_type(md.doctor(), md.Installation)
    assert_type(md.evaluate(Path("a.tflite")).evaluations[0].top1, float | None)
    assert_type(
        md.export(alpha=0.5, res=160, recipe="int8_best", reporter=reporter), md.ExportResult
    )
    assert_type(md.export(model, input_range=(0, 1), format=["tflite"]).path("int8_best"), Path)
    assert_type(md.models(), md.ModelListings)
    assert_type(md.report(out=Path("a.html")), md.WrittenReport)
    assert_type(md.results(newest=True).results[0].latency_ns, float | None)
    assert_type(md.results_regress("a.jsonl", margin=5), md.RegressionReport)
    assert_type(md.sweep(alpha=[0.25, 0.5], res=160, device=()), md.SweepResult)
    assert_type(md.train(data=Path("photos")).run, md.Run)
    assert_type(md.update_baseline(["a.tflite"]), md.BaselineUpdate)
    assert_type(md.verify("a.tflite").sound, bool)
    assert_type(md.InputError("a").exit_code, int)
