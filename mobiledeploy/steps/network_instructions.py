"""The instructions of a live network's int8 TFLite on an emulated core, whatever its weights are.

What is executed depends on shapes alone. So the network is quantized by ranges of drawn images, and
no data is needed.
"""

from __future__ import annotations

import numpy as np

from mobiledeploy.core import artifacts, preprocessing, records
from mobiledeploy.core.batches import Batch
from mobiledeploy.core.plugins import DEVICES, FORMATS, RECIPES, source_of
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Model, ModelSpec, Source
from mobiledeploy.steps import conversion_process, count, timings

RECIPE = "int8_ptq"
IMAGES = 2


def of(model: Model, spec: ModelSpec, core: str, reporter: Reporter) -> int:
    """The instructions of one inference by the int8 TFLite of `model`, a network of `spec`.

    Channels that no answer depends on are left out, as `export` does.

    Raises:
        MissingError: no emulator is set up.
        DeviceError: the runner died or hangs.
    """
    with artifacts.scratch() as folder:
        weights = folder / "weights.h5"
        model.handle.save_weights(weights)
        source = Source(spec, weights=str(weights))
        floats = source_of(source).open(source).floats("model")
        path = folder / f"{RECIPE}{FORMATS.load('tflite').SUFFIX}"
        records.write_atomic(path, _integers(floats, spec))
        artifact = artifacts.load(path)
        device = f"emulator:{core}"
        target = timings.target(artifact, device=device, runner="native")
        with DEVICES.load("emulator").open(device, exclusive=False, reporter=SILENT) as session:
            figure = count.count(session, path, artifact, target, reporter=SILENT)
    reporter.say(f"a network to choose from takes {figure.instructions:,} instructions on {core}")
    return figure.instructions


def _integers(floats: bytes, spec: ModelSpec) -> bytes:
    """The int8 TFLite of a float one, calibrated by drawn images."""
    from mobiledeploy.graphs import quantized

    extent = preprocessing.extent(spec.preprocessing)
    floats, _ = conversion_process.simplified(floats, (extent,))
    images = np.random.default_rng(0).uniform(*extent, (IMAGES, *spec.resolution, 3))
    recipe = RECIPES.load(RECIPE).RECIPE
    graph = quantized.start(floats, recipe, "int8", Batch((images.astype(np.float32),)))
    return quantized.finish(graph)
