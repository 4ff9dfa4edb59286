"""Write the reference part of docs/json.md: every record that `--json` or a file holds.

`python tools/record_docs.py` takes the fields and their types from the dataclasses, and the text
from their docstrings. What stands above the marker in the page is written by hand.
tests/test_docs.py holds the page against this.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "mobiledeploy"
PAGE = REPOSITORY / "docs" / "json.md"
MARKER = "<!-- Below this line: python tools/record_docs.py -->\n"

# Command line -> the record that `--json` prints.
COMMANDS = {
    "analyze": "Analysis",
    "analyze --table": "TableComparison",
    "analyze --device": "InstructionFloors",
    "analyze --best": "BudgetChoices",
    "analyze --quantization": "QuantizationDiagnosis",
    "app": "WrittenApp",
    "bench": "BenchResult",
    "bench --cold": "ColdStartResult",
    "bench --compare": "LatencyComparison",
    "bundle": "BundleResult",
    "bundle --reproduce": "BundleReproduction",
    "bundle --verify": "BundleVerification",
    "check": "Report",
    "check --update-baseline": "BaselineUpdate",
    "choose": "ChoiceResult",
    "devices": "DeviceList",
    "devices calibrate": "DeviceCalibration",
    "diff": "Difference",
    "diff ID ID": "FigureDifference",
    "doctor": "Installation",
    "doctor --android": "AndroidLibraries",
    "doctor --clean": "CleanResult",
    "doctor --emulator": "Equipment",
    "doctor --phone": "FirstContact",
    "doctor --torch": "Environment",
    "evaluate": "EvaluateResult",
    "export": "ExportResult",
    "models": "ModelListings",
    "report": "WrittenReport",
    "results": "ResultList",
    "results calibration": "CalibrationList",
    "results cold": "ColdStartList",
    "results compared": "ComparisonList",
    "results evaluated": "EvaluationList",
    "results export": "RecordTransfer",
    "results import": "RecordTransfer",
    "results regress": "RegressionReport",
    "sweep": "SweepResult",
    "train": "TrainResult",
    "verify": "VerifyResult",
}
# File -> the record in it.
FILES = {
    "`NAME.tflite.json`, `NAME.onnx.json` beside a model file": "Artifact",
    "`mobiledeploy.json.gz` packed behind a `.tflite`; `metadata_props` of an `.onnx`": "Contract",
    "`run.json` in the folder of `train`": "Run",
    "`mobiledeploy-baseline.json` (`check --baseline`)": "Baseline",
    "`MANIFEST.json` in the file of `bundle`": "BundleManifest",
    "`MODEL_CARD.json` in the file of `bundle`": "BundleCard",
    "`environment.json` in the file of `bundle`": "BundleEnvironment",
    "`contract.json` in the folder of `app`": "AppContract",
    "the file of `bench --record`": "Recording",
    "the file of `report --format json`": "Report",
}
# A line of `results export` holds one of these, as `kept`.
KEPT = (
    "Artifact",
    "Evaluation",
    "Measured",
    "Counted",
    "Estimated",
    "LatencyComparison",
    "ColdStart",
    "Verdict",
)

FRACTION = "fraction"
# Units that end a field's name, longest first.
SUFFIXES = {
    "images_per_second": "images per second",
    "_seconds": "seconds",
    "seconds": "seconds",
    "sha256": "sha256, hexadecimal",
    "_bytes": "bytes",
    "made_at": "time, ISO 8601",
    "_at": "time, ISO 8601",
    "_ns": "nanoseconds",
    "_w": "watts",
    "_j": "joules",
    "_hz": "hertz",
    "_db": "decibels",
}
# Of numbers whose name does not end in their unit: by field, or by record and field.
UNITS = {
    "bias": FRACTION,
    "budget": FRACTION,
    "BudgetFile.cost": "instructions or bytes",
    "ColdFigure.samples": "nanoseconds or bytes",
    "ColdFigure.median": "nanoseconds or bytes",
    "ColdFigure.interval": "nanoseconds or bytes",
    "coverage": FRACTION,
    "Forecast.error": FRACTION,
    "level": FRACTION,
    "accepted_top1": FRACTION,
    "accuracy": FRACTION,
    "agreement": FRACTION,
    "differing": FRACTION,
    "alpha": "factor",
    "arguments": "",
    "bytes_loaded": "bytes",
    "bytes_moved": "bytes",
    "bytes_stored": "bytes",
    "clipped": FRACTION,
    "clock": "seconds",
    "coded": FRACTION,
    "codes_used": FRACTION,
    "cosine": "-1 to 1",
    "crop": FRACTION,
    "decay_epochs": "epochs",
    "decides": FRACTION,
    "divergence": "nats",
    "error": "grey levels",
    "floor": "instructions",
    "error_as_wanted": "grey levels",
    "golden_steps": "quantization steps",
    "cpu_steps": "quantization steps",
    "host_difference": "values, or steps of the code",
    "input_range": "pixel values",
    "instructions": "instructions",
    "intensity": "mult-adds per byte",
    "interval": "ratio",
    "label_smoothing": FRACTION,
    "logits": "",
    "mcnemar_p": "probability",
    "mean": "pixel values",
    "metric_accepted": "that of `metric`",
    "metric_before": "that of `metric`",
    "metric_now": "that of `metric`",
    "mult_adds": "mult-adds",
    "mult_adds_rmspe": FRACTION,
    "max_instructions": "instructions",
    "max_mult_adds": "mult-adds",
    "most_share": FRACTION,
    "multiplying": "instructions",
    "other_instructions": "instructions",
    "prune": FRACTION,
    "prune_channels": FRACTION,
    "range_ratio": "ratio",
    "ratio": "ratio",
    "resolution": "pixels",
    "rmspe": FRACTION,
    "scale": "real value of a step",
    "score": "",
    "scores": "",
    "share": FRACTION,
    "sparsity": FRACTION,
    "std": "pixel values",
    "terms": "nanoseconds for one unit",
    "top1": FRACTION,
    "top1_before": FRACTION,
    "top5": FRACTION,
    "weighted": FRACTION,
    "LayerFloor.width": "mult-adds of one instruction",
    "box": "fractions of width and height",
    "boxes": FRACTION,
    "metrics": "as the task's metrics",
    "values": "",
    "Accepted.metric": "that of the task's first metric",
    "CardMetric.interval": "as `value`",
    "CardMetric.value": "that of the metric, in its `unit`",
    "ChoiceFigure.high": "as `value`",
    "ChoiceFigure.low": "as `value`",
    "ChoiceFigure.value": "nanoseconds, bytes, instructions, or a fraction, as the field says",
    "RankedCandidate.over": FRACTION,
    "Check.flips": FRACTION,
    "AnchorLevel.sizes": FRACTION,
    "DemoFile.metric": FRACTION,
    "Anchors.scales": "",
    "Epoch.learning_rate": "",
    "Epoch.loss": "",
    "Epoch.validation_loss": "",
    "FigureDifference.values": "nanoseconds or instructions",
    "FileFigures.a": "nanoseconds or instructions",
    "FileFigures.b": "nanoseconds or instructions",
    "Gain.high": FRACTION,
    "Gain.low": FRACTION,
    "Gain.value": FRACTION,
    "PublishedShare.mult_adds": FRACTION,
    "PublishedShare.params": FRACTION,
    "RecipeAlternative.temperature": "",
    "Schedule.bn_momentum": "",
    "Schedule.decay": "factor",
    "Schedule.learning_rate": "",
    "Schedule.weight_decay": "",
    "Share.mult_adds": FRACTION,
    "Share.params": FRACTION,
    "ShareComparison.mult_adds": FRACTION,
    "ShareComparison.params": FRACTION,
    "Result.value": "fraction, dB, or a number, as its `metric`",
    "StoredEvaluation.value": "fraction, dB, or a number, as its `metric`",
    "Verdict.interval": "as `value`",
    "Verdict.margin": "as `value`",
    "Verdict.value": "fraction, or quantization steps",
}
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def record_types() -> dict[str, type]:
    """Name -> dataclass: the records of COMMANDS, FILES and KEPT, and all that they hold."""
    modules = {
        node.name: ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    found: dict[str, type] = {}
    for name in (*COMMANDS.values(), *FILES.values(), *KEPT):
        _collect(getattr(importlib.import_module(modules[name]), name), found)
    return found


def _collect(kind: Any, found: dict[str, type]) -> None:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ not in found:
            found[kind.__name__] = kind
            for hint in typing.get_type_hints(kind).values():
                _collect(hint, found)
    elif typing.get_origin(kind) is not typing.Literal:
        for argument in typing.get_args(kind):
            _collect(argument, found)


def json_type(kind: Any) -> str:
    """The JSON type of a Python one, as the page says it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if origin is typing.Literal:
        *most, last = (f'`"{value}"`' for value in arguments)
        return f"{', '.join(most)} or {last}" if most else last
    if origin in (typing.Union, types.UnionType):
        *most, last = map(json_type, arguments)
        return f"{', '.join(most)} or {last}"
    if origin is tuple:
        if arguments == ((),) or not arguments:
            return "empty array"
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"array of {_inner(arguments[0])}"
        if len(set(arguments)) == 1:
            return f"array of {len(arguments)} {_inner(arguments[0])}"
        return f"array: {', '.join(map(json_type, arguments))}"
    if origin is not None and issubclass(origin, Mapping):
        return f"object of {_inner(arguments[1])}"
    raise TypeError(f"no JSON type for {kind}")


def _inner(kind: Any) -> str:
    text = json_type(kind)
    if kind in PLAIN:
        return f"{text}s"
    return f"({text})" if " " in text else text


def unit(record: str, field: str, kind: str) -> str:
    """The unit of a field, "" for none; KeyError for a number that has none."""
    number = re.search(r"\b(number|integer)", kind)
    for name in (f"{record}.{field}", field):
        if number and name in UNITS:
            return UNITS[name]
    for suffix, text in SUFFIXES.items():
        if field.endswith(suffix) and (number or "string" in kind):
            return text
    if "number" in kind:
        raise KeyError(f"{record}.{field} is a number: name its unit in UNITS, or '' for none")
    return ""


def text_of(kind: type) -> str:
    """A docstring as Markdown: paragraphs, and the entries of `Attributes:` as a list."""
    about, _, attributes = (inspect.getdoc(kind) or "").partition("\n\nAttributes:\n")
    paragraphs = [" ".join(part.split()) for part in about.split("\n\n")]
    entries = re.split(r"\n(?=\S)", textwrap.dedent(attributes).strip()) if attributes else []
    items = [re.sub(r"^(\w+):", r"- `\1`:", " ".join(entry.split())) for entry in entries]
    wrapped = [_wrap(part) for part in paragraphs]
    if items:
        wrapped.append("\n".join(_wrap(item, "  ") for item in items))
    text = "\n\n".join(wrapped).replace("``", "`").replace("()", "[]")
    return re.sub(r"\bNone\b", "null", text)


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def section(kind: type) -> str:
    """One record: its text and its fields."""
    hints = typing.get_type_hints(kind)
    rows = []
    for field in dataclasses.fields(kind):
        text = json_type(hints[field.name])
        rows.append((f"`{field.name}`", text, unit(kind.__name__, field.name, text)))
    lines = [f"`{line}`" for line, name in COMMANDS.items() if name == kind.__name__]
    printed = f"Printed by {', '.join(lines)}.\n\n" if lines else ""
    fields = table(("field", "type", "unit"), rows)
    return f"### {kind.__name__}\n\n{printed}{text_of(kind)}\n\n{fields}"


def table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    heads = tuple(headers)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in lines)


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def reference() -> Iterator[str]:
    """The parts of the page below the marker."""
    known = record_types()
    yield "## What each command prints"
    yield table(
        ("command", "record"), ((f"`{line}`", _link(name)) for line, name in COMMANDS.items())
    )
    yield "## What each file holds"
    yield table(("file", "record"), ((file, _link(name)) for file, name in FILES.items()))
    yield _wrap(
        "A line of `results export` is an object with `made_at` (when the record was made, ISO "
        "8601, UTC), `of` (`SHA256 GATE` for a verdict, else empty), `recorded` (true for a "
        "figure that was played back, else absent) and "
        f"`kept`, one of {', '.join(map(_link, KEPT))}."
    )
    tops = dict.fromkeys((*COMMANDS.values(), *FILES.values(), *KEPT))
    yield "## Records"
    yield from (section(known[name]) for name in sorted(tops))
    yield "## Parts of records"
    yield "They have no `schema_version` and no `record` of their own."
    yield from (section(known[name]) for name in sorted(known.keys() - tops.keys()))


def page(before: str) -> str:
    """The whole page: what is written by hand in `before`, and the reference anew."""
    hand, marker, _ = before.partition(MARKER)
    if not marker:
        raise ValueError(f"{PAGE.name} has no line {MARKER.strip()}")
    return f"{hand}{MARKER}\n" + "\n\n".join(reference()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
