"""A diagnosis as an image: the SQNR of each layer, and its share of the answer's error."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from mobiledeploy.analysis.accuracy import LARGEST_SQNR_DB
from mobiledeploy.core import records, units
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import missing
from mobiledeploy.steps.diagnose import QuantizationDiagnosis

KINDS = (".svg", ".png")
# The colours of Okabe and Ito, which colour-blind people can tell apart.
_CAUSES = {
    "clipped": ("beyond the range", "#d55e00"),
    "coded": ("rounding to codes", "#0072b2"),
    "weighted": ("weights", "#999999"),
}
_SERIES = {"as delivered": "#000000", "its own, inputs exact": "#009e73"}
# The pixels of a layer's row, and of a plot's width.
_STEP, _WIDTH = 14, 420


def check(path: Path) -> None:
    """Refuses, before the work, what `draw` cannot do.

    UsageError for a name that does not end in .svg or .png, or a folder that does not exist;
    MissingError without vl-convert.
    """
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"--plot {path} is neither .svg nor .png", "name it so")
    records.need_folder(path)
    if importlib.util.find_spec("vl_convert") is None:
        raise missing("vl_convert")


def draw(diagnosis: QuantizationDiagnosis, path: Path) -> None:
    """Writes the image in the format of the name's suffix; the same record gives the same bytes.

    Left: the SQNR of each layer in dB, as delivered and its own. Right: each layer's share of the
    logits' error, by cause.
    """
    check(path)
    # The import takes a third of a second, which only this function should cost.
    import vl_convert

    svg = str(vl_convert.vegalite_to_svg(_spec(diagnosis)))
    content: str | bytes = svg
    if path.suffix.lower() == ".png":
        content = bytes(vl_convert.svg_to_png(svg, scale=2))
    records.write_atomic(path, content)


def _spec(diagnosis: QuantizationDiagnosis) -> dict[str, Any]:
    # Two layers may have one name, so a number before it tells them apart and is not shown.
    rows = [f"{n:06} {units.one_line(x.name)}" for n, x in enumerate(diagnosis.layers)]
    ratios = [
        {"layer": row, "value": value, "series": series}
        for row, layer in zip(rows, diagnosis.layers, strict=True)
        for series, value in zip(_SERIES, (layer.sqnr_db, layer.own_sqnr_db), strict=True)
        # Of a layer without any error the ratio has no end.
        if abs(value) < LARGEST_SQNR_DB
    ]
    shares = [
        {"layer": row, "value": 100 * layer.share * float(getattr(layer, part)), "cause": cause}
        for row, layer in zip(rows, diagnosis.layers, strict=True)
        for part, (cause, _) in _CAUSES.items()
    ]
    y = {"field": "layer", "type": "nominal", "sort": None, "scale": {"domain": rows}}
    labels = {"labelExpr": "substring(datum.label, 7)", "labelLimit": 420, "labelFontSize": 9}
    size = {"width": _WIDTH, "height": {"step": _STEP}}
    left = {
        **size,
        "data": {"values": ratios},
        "mark": {"type": "point", "filled": True, "opacity": 1, "size": 28},
        "encoding": {
            "y": {**y, "title": None, "axis": {**labels, "grid": True}},
            "x": _x("SQNR of the layer's values (dB)", zero=False),
            "color": _scale("series", _SERIES),
            "shape": _scale("series", dict(zip(_SERIES, ("circle", "diamond"), strict=True))),
        },
    }
    right = {
        **size,
        "data": {"values": shares},
        "mark": "bar",
        "encoding": {
            "y": {**y, "axis": None},
            "x": _x("share of the logits' error that enters here (%)", zero=True),
            "color": _scale("cause", dict(_CAUSES.values())),
        },
    }
    title = (
        f"{units.one_line(diagnosis.artifact)} beside float: logits {diagnosis.sqnr_db:.1f} dB, "
        f"{diagnosis.images} images"
    )
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {"text": title, "anchor": "middle", "fontSize": 12},
        "background": "white",
        "hconcat": [left, right],
        "resolve": {"scale": {"color": "independent", "shape": "independent"}},
    }


def _x(title: str, *, zero: bool) -> dict[str, Any]:
    scale = {"zero": zero}
    return {"field": "value", "type": "quantitative", "title": title, "scale": scale}


def _scale(field: str, looks: dict[str, str]) -> dict[str, Any]:
    """The colour or the shape of each value of a field, with a legend."""
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": list(looks), "range": list(looks.values())},
        "legend": {"orient": "top", "title": None},
    }
