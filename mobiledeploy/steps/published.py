"""The published tables, `models/tables/<name>.csv`: figures with their source.

Their columns tell three kinds apart: a grid of networks, the layers of one network, and the shares
of its kinds of layers. A user's own folder comes before ours, as for model cards.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TypeVar, cast

from mobiledeploy.core import cards, inputs
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError, UsageError

R = TypeVar("R")


@dataclass(frozen=True)
class Published(Record):
    """The published figures of a network; networks without a model card are left out of a table.

    `mult_adds` and `params` are the printed numbers, and `*_rounding` is half a unit of their last
    digit; None if nothing is printed. `top1` is a fraction of ImageNet's validation set. `note`
    explains a difference between the printed number and our count.
    """

    source: str
    model: str
    card: str
    alpha: float | None
    groups: int | None
    resolution: int
    mult_adds: int | None
    mult_adds_rounding: int
    params: int | None
    params_rounding: int
    top1: float | None
    variant: str
    url: str
    note: str


@dataclass(frozen=True)
class PublishedLayer(Record):
    """A row of a table of layers: `filter` and `size` are as printed, numbers with x between."""

    source: str
    card: str
    type: str
    stride: int
    filter: str
    size: str
    note: str


@dataclass(frozen=True)
class PublishedShare(Record):
    """A row of a table of kinds of layers: shares of the whole, from 0 to 1, or None."""

    source: str
    card: str
    kind: str
    mult_adds: float
    params: float
    note: str


Rows = tuple[Published, ...] | tuple[PublishedLayer, ...] | tuple[PublishedShare, ...]


def names() -> tuple[str, ...]:
    """The names of all tables, sorted."""
    stems = (path.stem for folder in cards.folders() for path in folder.glob("tables/*.csv"))
    return tuple(sorted(set(stems)))


def load(name: str) -> Rows:
    """The rows of a table; UsageError for an unknown name, InputError for a broken file."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names())}"
        raise UsageError(f"no published table named {name!r}", hint)
    files = (folder / "tables" / f"{name}.csv" for folder in cards.folders())
    return read(next(path for path in files if path.is_file()))


def grids() -> tuple[Published, ...]:
    """The rows of all grids."""
    rows = (load(name) for name in names())
    return tuple(row for table in rows for row in table if isinstance(row, Published))


def network_options(row: Published) -> str:
    """The options of the command line that name a network."""
    parts = [f"--arch {row.card}"]
    if row.alpha is not None:
        parts.append(f"--alpha {row.alpha:g}")
    if row.groups is not None:
        parts.append(f"--groups {row.groups}")
    return " ".join((*parts, f"--res {row.resolution}"))


def command(row: Published, card: ModelCard) -> str:
    """The command that makes a network with weights: an export of published ones, or a training."""
    weights = card.weights.imagenet
    if weights and any(file.alpha == row.alpha for file in weights.files):
        return f"mobiledeploy export {network_options(row)} --weights imagenet --data DIR"
    return f"mobiledeploy train {network_options(row)} --data DIR"


def read(path: Path) -> Rows:
    """The rows of a file; InputError names the file and the line."""
    try:
        text = inputs.text(path, inputs.TABLE)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = tuple(reader.fieldnames or ())
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    for kind_columns, parse in _KINDS.items():
        if columns == kind_columns:
            rows = tuple(_parse_row(parse, row, f"{path}, line {line}") for line, row in lines)
            return cast(Rows, rows)
    raise InputError(f"{path}: the columns {','.join(columns)} are of no table that is known")


def _parse_row(parse: Callable[[Mapping[str, str]], R], row: dict[str, str], where: str) -> R:
    if None in row or None in row.values():
        raise InputError(f"{where}: not as many fields as columns")
    try:
        return parse(row)
    except (ValueError, OverflowError, InvalidOperation) as error:
        raise InputError(f"{where}: {error}") from error


def _published(row: Mapping[str, str]) -> Published:
    mult_adds, params = row["mult_adds_M"], row["params_M"]
    return Published(
        source=row["source"],
        model=row["model"],
        card=row["card"],
        alpha=float(row["alpha"]) if row["alpha"] else None,
        groups=int(row["groups"]) if row["groups"] else None,
        resolution=int(row["resolution"]),
        mult_adds=_millions(mult_adds),
        mult_adds_rounding=_rounding(mult_adds),
        params=_millions(params),
        params_rounding=_rounding(params),
        top1=float(row["top1"]) / 100 if row["top1"] else None,
        variant=row["variant"],
        url=row["url"],
        note=row["note"],
    )


def _millions(text: str) -> int | None:
    return round(float(text) * 1e6) if text else None


def _rounding(text: str) -> int:
    """Half a unit of the last printed digit, in units of one.

    The last digit of 3e2 is a hundred.
    """
    exponent = Decimal(text).as_tuple().exponent if text else 0
    return round(0.5e6 * 10.0 ** int(exponent))


def _layer(row: Mapping[str, str]) -> PublishedLayer:
    return PublishedLayer(
        row["source"],
        row["card"],
        row["type"],
        int(row["stride"]),
        row["filter"],
        row["size"],
        row["note"],
    )


def _share(row: Mapping[str, str]) -> PublishedShare:
    return PublishedShare(
        row["source"],
        row["card"],
        row["kind"],
        float(row["mult_adds_percent"]) / 100,
        float(row["params_percent"]) / 100,
        row["note"],
    )


_KINDS: dict[tuple[str, ...], Callable[[Mapping[str, str]], object]] = {
    (
        "source",
        "model",
        "card",
        "alpha",
        "groups",
        "resolution",
        "mult_adds_M",
        "params_M",
        "top1",
        "variant",
        "url",
        "note",
    ): _published,
    ("source", "card", "type", "stride", "filter", "size", "note"): _layer,
    ("source", "card", "kind", "mult_adds_percent", "params_percent", "note"): _share,
}
