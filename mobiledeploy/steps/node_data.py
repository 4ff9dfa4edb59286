"""Node data: figures of a model's nodes, which Google's Model Explorer lays over its graph.

Model Explorer reads one figure of each node from a file (`GraphNodeData` of its
node_data_builder.py). A node's key is the name of an output tensor, as its reader of TFLite has it,
or the node's id, which its reader of ONNX takes from the node's name. Both are `Layer.name`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.analysis.accuracy import LARGEST_SQNR_DB
from mobiledeploy.analysis.cost import LayerCost
from mobiledeploy.analysis.quantization import LayerError
from mobiledeploy.core import records
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import Counted

SUFFIX = ".json"
# On both, Model Explorer's dark text can be read.
_PLAIN, _MARKED = "#ffffff", "#e69f00"


@dataclass(frozen=True)
class NodeFigure:
    """One figure of the nodes of a model.

    `name` is a part of the file's name, `title` what Model Explorer shows. `values` are by the name
    of the layer. The largest value is marked, the smallest one of a `ratio` in dB, which has no
    sum and no mean.
    """

    name: str
    title: str
    values: Mapping[str, float]
    ratio: bool = False


def check(path: Path) -> None:
    """Refuses, before the work, what `write` cannot do.

    UsageError for a name that does not end in .json, the name of an artifact's record, or a folder
    that does not exist.
    """
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"--model-explorer {path} is not a .json", "name it so")
    suffixes = [FORMATS.load(name).SUFFIX for name in FORMATS.names()]
    if Path(path.stem).suffix in suffixes:
        raise UsageError(
            f"--model-explorer {path} is the name of a model's record", "choose another name"
        )
    records.need_folder(path)


def of_costs(layers: Sequence[LayerCost], counted: Counted | None) -> tuple[NodeFigure, ...]:
    """The mult-adds and parameters of the layers that have them, and counted instructions."""
    figures = [
        NodeFigure("mult-adds", "mult-adds", {x.name: x.mult_adds for x in layers if x.mult_adds}),
        NodeFigure("params", "parameters", {x.name: x.params for x in layers if x.params}),
    ]
    if counted is not None:
        title = f"instructions on {counted.core}, {counted.target.runtime}"
        values = {x.name: x.instructions for x in counted.by_layer}
        figures.append(NodeFigure("instructions", title, values))
    return tuple(figures)


def of_errors(layers: Sequence[LayerError]) -> tuple[NodeFigure, ...]:
    """Each layer's share of the answer's error in percent, its SQNR and its own SQNR in dB."""
    shares = {x.node: _rounded(100 * x.share) for x in layers}
    return (
        NodeFigure("error", "share of the answer's error (%)", shares),
        NodeFigure("sqnr", "SQNR (dB)", _ratios((x.node, x.sqnr_db) for x in layers), ratio=True),
        NodeFigure(
            "own-sqnr",
            "SQNR of its own error (dB)",
            _ratios((x.node, x.own_sqnr_db) for x in layers),
            ratio=True,
        ),
    )


def _ratios(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Those that are ratios: without any error, or without a signal, there is none."""
    return {name: _rounded(value) for name, value in values if abs(value) < LARGEST_SQNR_DB}


def _rounded(value: float) -> float:
    """To four digits: Model Explorer shows every digit that it is given."""
    return float(f"{value:.4g}")


def write(path: Path, figures: Sequence[NodeFigure]) -> tuple[Path, ...]:
    """Writes the first figure to `path`, and each other one beside it, named after the figure.

    Returns:
        The files.
    """
    check(path)
    paths = []
    for number, figure in enumerate(figures):
        place = path.with_stem(f"{path.stem}.{figure.name}") if number else path
        records.write_atomic(place, _text(figure))
        paths.append(place)
    return tuple(paths)


def _text(figure: NodeFigure) -> str:
    colors = (_MARKED, _PLAIN) if figure.ratio else (_PLAIN, _MARKED)
    content = {
        "name": figure.title,
        "results": {name: {"value": value} for name, value in figure.values.items()},
        "gradient": [{"stop": n, "bgColor": color} for n, color in enumerate(colors)],
        "hideAggregatedStats": ["sum", "avg"] if figure.ratio else [],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
