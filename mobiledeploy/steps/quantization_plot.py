"""A diagnosis as an image: the SQNR of each layer, and its share of the answer's error."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.analysis.accuracy import LARGEST_SQNR_DB
from mobiledeploy.core import records, units
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import missing
from mobiledeploy.steps.diagnose import QuantizationDiagnosis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".svg", ".png")
# The colours of Okabe and Ito, which colour-blind people can tell apart.
_CAUSES = (("clipped", "#d55e00"), ("coded", "#0072b2"), ("weighted", "#999999"))
_LEGEND = {"clipped": "beyond the range", "coded": "rounding to codes", "weighted": "weights"}
_DELIVERED, _OWN = "#000000", "#009e73"


def check(path: Path) -> None:
    """Refuses, before the work, what `draw` cannot do.

    UsageError for a name that does not end in .svg or .png, or a folder that does not exist;
    MissingError without matplotlib.
    """
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"--plot {path} is neither .svg nor .png", "name it so")
    records.need_folder(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise missing("matplotlib")


def draw(diagnosis: QuantizationDiagnosis, path: Path) -> None:
    """Writes the image in the format of the name's suffix; the same record gives the same bytes.

    Left: the SQNR of each layer in dB, as delivered and its own. Right: each layer's share of the
    logits' error, by cause.
    """
    check(path)
    # The import takes half a second, which only this function should cost.
    import matplotlib

    stream = io.BytesIO()
    kind = path.suffix.lower()[1:]
    # A matplotlibrc is ignored, because it may be in the current folder and run LaTeX. A name with
    # dollar signs is not a formula.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "mobiledeploy", "text.parse_math": False})
        undated = {"Date": None} if kind == "svg" else {"Software": None}
        _figure(diagnosis).savefig(stream, format=kind, dpi=150, metadata=undated)
    records.write_atomic(path, stream.getvalue())


def _figure(diagnosis: QuantizationDiagnosis) -> Figure:
    from matplotlib.figure import Figure

    layers = diagnosis.layers
    places = range(len(layers))
    figure = Figure(figsize=(11, 2 + 0.2 * len(layers)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, values, colour, marker in (
        ("as delivered", [x.sqnr_db for x in layers], _DELIVERED, "o"),
        ("its own, inputs exact", [x.own_sqnr_db for x in layers], _OWN, "D"),
    ):
        finite = [(v, y) for v, y in zip(values, places, strict=True) if abs(v) < LARGEST_SQNR_DB]
        left.plot(
            [v for v, _ in finite],
            [y for _, y in finite],
            marker,
            color=colour,
            label=name,
            markersize=4,
        )
    left.set_yticks(list(places), [units.one_line(layer.name) for layer in layers], fontsize=7)
    left.set_ylim(len(layers) - 0.5, -0.5)
    left.set_xlabel("SQNR of the layer's values (dB)")
    before = [0.0] * len(layers)
    for part, colour in _CAUSES:
        widths = [100 * layer.share * float(getattr(layer, part)) for layer in layers]
        right.barh(places, widths, left=before, color=colour, label=_LEGEND[part])
        before = [x + width for x, width in zip(before, widths, strict=True)]
    right.set_xlabel("share of the logits' error that enters here (%)")
    for axes in (left, right):
        axes.grid(axis="x", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.legend(fontsize=7)
    figure.suptitle(
        f"{units.one_line(diagnosis.artifact)} beside float: logits {diagnosis.sqnr_db:.1f} dB, "
        f"{diagnosis.images} images",
        fontsize=9,
    )
    return figure
