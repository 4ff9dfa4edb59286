"""The work and size of networks that nobody built here: `models/counts.csv`.

`tools/model_counts.py` counts them in float32 TFLite files of 1000 classes, so that an estimate
needs no TensorFlow. A user's own folder comes before ours, as for model cards.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobiledeploy.analysis import cost as costs
from mobiledeploy.analysis import latency_model
from mobiledeploy.core import cards, inputs
from mobiledeploy.core.device_cards import Workload
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Layer, ModelSpec, Recipe

FILE = "counts.csv"
CLASSES = 1000
"""The classes that the networks of the table have."""
OVERHEAD = 20_000
"""Bytes of names, operators and metadata in a file, as measured in a few."""


@dataclass(frozen=True)
class NetworkCounts:
    """The counts of a network with `CLASSES` classes.

    `network` is its name (`ModelSpec.name`), `work` the work of one inference, whose family is its
    card. `biases` are one for each filter, because normalisation is folded into them.
    `peak_activations` are the numbers that inputs and results take at one moment, as in
    `costs.Cost`. `features` are the inputs of the last layer, 0 if that is not fully connected.
    """

    network: str
    work: Workload
    biases: int
    peak_activations: int
    features: int

    def with_classes(self, classes: int) -> NetworkCounts | None:
        """The counts with another number of classes; None if the last layer is not one to scale."""
        if classes == CLASSES:
            return self
        if not self.features:
            return None
        more = classes - CLASSES
        work = dataclasses.replace(
            self.work,
            mult_adds=self.work.mult_adds + self.features * more,
            dense=self.work.dense + self.features * more,
            activations=self.work.activations + more,
            classifier=self.work.classifier + self.features * more,
        )
        return dataclasses.replace(self, work=work, biases=self.biases + more)

    def size_bytes(self, recipe: Recipe) -> int:
        """About the size of its TFLite by a recipe.

        Weights have the recipe's bits, biases 32 bits, or 16 with float16. A scale and a zero point
        (12 bytes) belong to each filter of integers, and to its bias where that is an integer too.
        """
        bits = 16 if recipe.weight_bits == 16 else 32
        scales = (recipe.granularity == "per-channel") + recipe.full_integer
        weights = (self.work.kernels + self.work.classifier) * recipe.weight_bits // 8
        return weights + self.biases * (bits // 8 + 12 * scales) + OVERHEAD

    def memory_bytes(self, recipe: Recipe) -> int:
        """Its file, and the activations of one moment: what any runtime needs at least."""
        bits = min(32, recipe.activation_bits) if recipe.full_integer else 32
        return self.size_bytes(recipe) + self.peak_activations * bits // 8


WORK = tuple(field.name for field in dataclasses.fields(Workload))
OWN = tuple(f.name for f in dataclasses.fields(NetworkCounts) if f.name not in ("network", "work"))
COLUMNS = ("network", *WORK, *OWN)


def row(counts: NetworkCounts) -> dict[str, object]:
    """`counts` as a row of the table."""
    own = {name: getattr(counts, name) for name in OWN}
    return {"network": counts.network} | dataclasses.asdict(counts.work) | own


def count(layers: Sequence[Layer], spec: ModelSpec) -> NetworkCounts:
    """The counts of a float32 network of `spec` from its layers in order of execution."""
    work = latency_model.workload(layers, family=spec.card or spec.name)
    cost = costs.cost(layers)
    last = [row for row in cost.layers if row.mult_adds][-1]
    fully_connected = last.kind == costs.FULLY_CONNECTED
    return NetworkCounts(
        network=spec.name,
        work=work,
        # Not those in the file: random weights leave equal biases, which a converter stores once.
        biases=sum(row.output[-1] for row in cost.layers if row.mult_adds),
        peak_activations=cost.peak_activation_bytes // 4,
        features=last.kernel // spec.classes if fully_connected else 0,
    )


def load() -> Mapping[str, NetworkCounts]:
    """The counts of all networks, by name; InputError for a broken file."""
    by_name: dict[str, NetworkCounts] = {}
    for folder in reversed(cards.folders()):
        path = folder / FILE
        if not path.is_file():
            continue
        text = inputs.text(path, inputs.TABLE)
        try:
            for line in csv.DictReader(io.StringIO(text, newline=""), strict=True):
                numbers = {name: int(line[name]) for name in COLUMNS[2:]}
                if min(numbers.values()) < 0:
                    raise ValueError(f"{line['network']} has impossible counts")
                work = Workload(line["family"], **{name: numbers[name] for name in WORK[1:]})
                own = {name: numbers[name] for name in OWN}
                by_name[line["network"]] = NetworkCounts(line["network"], work, **own)
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
    return by_name
