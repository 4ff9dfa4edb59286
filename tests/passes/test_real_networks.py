"""int8_best compared with int8_ptq on published networks and photographs, on several splits."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tf_keras
from PIL import Image

from mobiledeploy.analysis import accuracy
from mobiledeploy.architectures import mobilenet_v1
from mobiledeploy.core import preprocessing
from mobiledeploy.core.plugins import PASSES, RECIPES
from mobiledeploy.core.types import Model, Preprocessing
from mobiledeploy.frameworks import tf_keras as framework
from mobiledeploy.graphs import execution, quantized
from tests.conftest import press

BEST = RECIPES.load("int8_best").RECIPE
CALIBRATION = 100


def photographs(real_data):
    lines = (real_data / "imagenet" / "labels.txt").read_text().splitlines()
    labels = [line.split()[0] for line in lines]
    plain = Preprocessing((-1.0, 1.0), crop=0.875)
    paths = sorted((real_data / "imagenet" / "images").glob("*/*"))
    images = [
        preprocessing.prepare(np.asarray(Image.open(path).convert("RGB")), plain, (224, 224))
        for path in paths
    ]
    return np.stack(images), np.array([labels.index(path.parent.name) for path in paths])


def v1(real_data):
    model = mobilenet_v1.build(alpha=0.75, resolution=(224, 224), classes=1000)
    framework.load_weights(model, real_data / "imagenet" / "mobilenet_7_5_224_tf.h5")
    return model, *photographs(real_data)


def vww(real_data):
    with np.load(real_data / "vww" / "images.npz") as archive:
        images, labels = archive["images"].astype(np.float32) / 255, archive["labels"]
    path = real_data / "vww" / "vww_96.h5"
    assert h5py.is_hdf5(path)
    return tf_keras.models.load_model(path, compile=False), images, labels


@pytest.mark.slow
@pytest.mark.parametrize(("network", "share"), [(v1, 0.25), (vww, 0.6)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_passes_lose_a_fraction_of_the_plain_quantizers_loss(
    real_data, network, share, seed
):
    model, images, _ = network(real_data)
    order = np.random.default_rng(seed).permutation(len(images))
    calibration, fresh = images[order[:CALIBRATION]], images[order[CALIBRATION:]]
    floats = press(Model("tf_keras", model), "float32", "tflite", calibration, output="softmax")
    start = quantized.start(floats, BEST, "int8", calibration)
    reference = execution.logits(floats, fresh)
    after = start
    for name in ("global_pool", "equalize", "headroom", "adaround"):
        after = PASSES.load(name).apply(after, calibration)
    plain, best = (
        accuracy.divergence(reference, execution.logits(quantized.integers(quantized_graph), fresh))
        for quantized_graph in (start, after)
    )
    assert best < share * plain
