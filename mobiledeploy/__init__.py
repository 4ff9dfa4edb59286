"""From a Keras MobileNet to measured int8 TFLite and ONNX files, in Python.

```python
import mobiledeploy as md

done = md.export(alpha=0.5, res=160)
md.evaluate(done.path("int8_best"))
md.bench(done.path("int8_best"))
```

There is a function for each command, with the command's options as keywords. An option or a
subcommand with another result has its own function: `compare` is ``bench --compare``, `cold_start`
is ``bench --cold``, `calibrate` is ``devices calibrate``, `update_baseline` is
``check --update-baseline``, `results_export` is ``results export``. Functions return frozen records
and raise a `DeployError`.

Each name is imported on first use, so the version and the help stay quick.
"""

import functools
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobiledeploy.analysis.cost import (
        LayerCost as LayerCost,
        Share as Share,
    )
    from mobiledeploy.analysis.floors import (
        InstructionFloors as InstructionFloors,
        KindFloor as KindFloor,
        LayerFloor as LayerFloor,
    )
    from mobiledeploy.analysis.pipelines import (
        PipelineDiagnosis as PipelineDiagnosis,
    )
    from mobiledeploy.analysis.quantization import (
        LayerError as LayerError,
        Remedy as Remedy,
    )
    from mobiledeploy.core.apart import (
        Environment as Environment,
    )
    from mobiledeploy.core.cards import (
        CardDefaults as CardDefaults,
        DemoFile as DemoFile,
        DemoWeights as DemoWeights,
        ImagenetFile as ImagenetFile,
        ImagenetWeights as ImagenetWeights,
        ModelCard as ModelCard,
        ResolutionLimits as ResolutionLimits,
        WeightSets as WeightSets,
    )
    from mobiledeploy.core.device_cards import (
        DeviceCard as DeviceCard,
        EmulatedCore as EmulatedCore,
        Point as Point,
        Reference as Reference,
        Series as Series,
        Workload as Workload,
    )
    from mobiledeploy.core.display import (
        Record as Record,
        Table as Table,
    )
    from mobiledeploy.core.errors import (
        BrokenImage as BrokenImage,
        DeployError as DeployError,
        DeployWarning as DeployWarning,
        DeviceError as DeviceError,
        InputError as InputError,
        MissingError as MissingError,
        NoSplit as NoSplit,
        UsageError as UsageError,
        VoidError as VoidError,
    )
    from mobiledeploy.core.native import (
        Equipment as Equipment,
    )
    from mobiledeploy.core.ports import (
        SILENT as SILENT,
        Reporter as Reporter,
    )
    from mobiledeploy.core.types import (
        AcceptedDifference as AcceptedDifference,
        AnchorLevel as AnchorLevel,
        Anchors as Anchors,
        Answers as Answers,
        BudgetChain as BudgetChain,
        BudgetFile as BudgetFile,
        BudgetLink as BudgetLink,
        CardCalibration as CardCalibration,
        ChangedAnswer as ChangedAnswer,
        Check as Check,
        ColdFigure as ColdFigure,
        ColdStart as ColdStart,
        CoreChoice as CoreChoice,
        Counted as Counted,
        DataRef as DataRef,
        Detail as Detail,
        DeviceInfo as DeviceInfo,
        DrawnAnswer as DrawnAnswer,
        DrawnBox as DrawnBox,
        EnergyFigure as EnergyFigure,
        Epoch as Epoch,
        Estimated as Estimated,
        Evaluation as Evaluation,
        ExportArguments as ExportArguments,
        Failed as Failed,
        FileForm as FileForm,
        FileFigures as FileFigures,
        Fit as Fit,
        Flip as Flip,
        Forecast as Forecast,
        ForecastPair as ForecastPair,
        Gain as Gain,
        LatencyComparison as LatencyComparison,
        LayerCount as LayerCount,
        LayerFigure as LayerFigure,
        LeftOperator as LeftOperator,
        Mask as Mask,
        Measured as Measured,
        Measurement as Measurement,
        Metric as Metric,
        ModelInput as ModelInput,
        ModelOutput as ModelOutput,
        ModelSpec as ModelSpec,
        MovedAnswers as MovedAnswers,
        NamedWarning as NamedWarning,
        Pair as Pair,
        Prediction as Prediction,
        Preprocessing as Preprocessing,
        Regression as Regression,
        Report as Report,
        Result as Result,
        Run as Run,
        Schedule as Schedule,
        ShrunkLayer as ShrunkLayer,
        Side as Side,
        Signature as Signature,
        StoredColdStart as StoredColdStart,
        StoredComparison as StoredComparison,
        StoredEvaluation as StoredEvaluation,
        StoredVerdict as StoredVerdict,
        Target as Target,
        TrainingSettings as TrainingSettings,
        Verdict as Verdict,
        Weights as Weights,
    )
    from mobiledeploy.steps.android_libraries import (
        AndroidLibraries as AndroidLibraries,
        AndroidLibrary as AndroidLibrary,
    )
    from mobiledeploy.steps.bench_figures import (
        BenchResult as BenchResult,
    )
    from mobiledeploy.steps.bundle_archive import (
        BundleMember as BundleMember,
    )
    from mobiledeploy.steps.candidates import (
        Candidate as Candidate,
        ChoiceFigure as ChoiceFigure,
        LeftOut as LeftOut,
    )
    from mobiledeploy.steps.cold_starts import (
        ColdStartResult as ColdStartResult,
    )
    from mobiledeploy.steps.diagnose import (
        QuantizationDiagnosis as QuantizationDiagnosis,
    )
    from mobiledeploy.steps.diff_figures import (
        DifferentFact as DifferentFact,
        FigureDifference as FigureDifference,
        LayerCountPair as LayerCountPair,
    )
    from mobiledeploy.steps.first_contact import (
        ContactStep as ContactStep,
        FirstContact as FirstContact,
    )
    from mobiledeploy.steps.live_models import (
        KerasModel as KerasModel,
    )
    from mobiledeploy.steps.published import (
        Published as Published,
        PublishedLayer as PublishedLayer,
        PublishedShare as PublishedShare,
    )
    from mobiledeploy.steps.reporters import (
        PythonReporter as PythonReporter,
    )
    from mobiledeploy.steps.reproduction import (
        ReproducedFile as ReproducedFile,
    )
    from mobiledeploy.steps.sweep_limits import (
        DroppedCell as DroppedCell,
    )
    from mobiledeploy.verbs.analyze import (
        Analysis as Analysis,
        Budget as Budget,
        BudgetChoice as BudgetChoice,
        BudgetChoices as BudgetChoices,
        LayerComparison as LayerComparison,
        NetworkComparison as NetworkComparison,
        ShareComparison as ShareComparison,
        TableComparison as TableComparison,
        analyze as analyze,
        analyze_best as analyze_best,
        analyze_instructions as analyze_instructions,
        analyze_quantization as analyze_quantization,
        analyze_table as analyze_table,
    )
    from mobiledeploy.verbs.app import (
        WrittenApp as WrittenApp,
        app as app,
    )
    from mobiledeploy.verbs.bench import (
        bench as bench,
    )
    from mobiledeploy.verbs.bundle import (
        BundleReproduction as BundleReproduction,
        BundleResult as BundleResult,
        BundleVerification as BundleVerification,
        bundle as bundle,
        bundle_reproduce as bundle_reproduce,
        bundle_verify as bundle_verify,
    )
    from mobiledeploy.verbs.calibrate import (
        CalibratedSeries as CalibratedSeries,
        DeviceCalibration as DeviceCalibration,
        calibrate as calibrate,
    )
    from mobiledeploy.verbs.check import (
        BaselineChange as BaselineChange,
        BaselineUpdate as BaselineUpdate,
        check as check,
        update_baseline as update_baseline,
    )
    from mobiledeploy.verbs.choose import (
        ChoiceBudget as ChoiceBudget,
        ChoiceGroup as ChoiceGroup,
        ChoiceResult as ChoiceResult,
        NextMeasurement as NextMeasurement,
        RankedCandidate as RankedCandidate,
        choose as choose,
    )
    from mobiledeploy.verbs.cold_start import (
        cold_start as cold_start,
    )
    from mobiledeploy.verbs.compare import (
        compare as compare,
    )
    from mobiledeploy.verbs.devices import (
        DeviceList as DeviceList,
        devices as devices,
    )
    from mobiledeploy.verbs.diff import (
        Difference as Difference,
        diff as diff,
        diff_figures as diff_figures,
    )
    from mobiledeploy.verbs.doctor import (
        CleanedFolder as CleanedFolder,
        CleanResult as CleanResult,
        Installation as Installation,
        InstalledExtra as InstalledExtra,
        InstalledPart as InstalledPart,
        doctor as doctor,
        doctor_android as doctor_android,
        doctor_clean as doctor_clean,
        doctor_emulator as doctor_emulator,
        doctor_phone as doctor_phone,
        doctor_torch as doctor_torch,
    )
    from mobiledeploy.verbs.evaluate import (
        EvaluateResult as EvaluateResult,
        evaluate as evaluate,
    )
    from mobiledeploy.verbs.export import (
        ExportResult as ExportResult,
        ExportRow as ExportRow,
        export as export,
    )
    from mobiledeploy.verbs.models import (
        ModelListing as ModelListing,
        ModelListings as ModelListings,
        models as models,
    )
    from mobiledeploy.verbs.report import (
        WrittenReport as WrittenReport,
        report as report,
    )
    from mobiledeploy.verbs.results import (
        CalibrationList as CalibrationList,
        ColdStartList as ColdStartList,
        ComparisonList as ComparisonList,
        EvaluationList as EvaluationList,
        RecordTransfer as RecordTransfer,
        RegressionReport as RegressionReport,
        ResultList as ResultList,
        results as results,
        results_calibration as results_calibration,
        results_cold as results_cold,
        results_compared as results_compared,
        results_evaluated as results_evaluated,
        results_export as results_export,
        results_import as results_import,
        results_regress as results_regress,
    )
    from mobiledeploy.verbs.sweep import (
        ParetoFront as ParetoFront,
        PlannedJob as PlannedJob,
        SweepResult as SweepResult,
        sweep as sweep,
    )
    from mobiledeploy.verbs.train import (
        TrainResult as TrainResult,
        train as train,
    )
    from mobiledeploy.verbs.verify import (
        VerifyResult as VerifyResult,
        verify as verify,
    )

__version__ = "0.1.0"


@functools.cache
def _places() -> dict[str, str]:
    # This parses the imports above, so that each name is written once, for editors and for Python.
    import ast
    from pathlib import Path

    return {
        alias.name: node.module
        for node in ast.walk(ast.parse(Path(__file__).read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname == alias.name
    }


def __getattr__(name: str) -> object:
    places = _places()
    if name == "__all__":
        return sorted(places)
    if name not in places:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(places[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """This module, whose `devices` is the verb: a folder of the package has the same name."""

    @property
    def devices(self) -> object:
        """The verb, whether or not the folder was imported."""
        return importlib.import_module("mobiledeploy.verbs.devices").devices

    @devices.setter
    def devices(self, folder: object) -> None:
        """What Python does when it imports the folder; who imports it takes it from there."""


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *_places()})
