"""Trained networks that were made hard on purpose; the diagnosis has to name the change.

Either channels are scaled so that their ranges change and the float function does not, or a
BatchNorm has a nearly zero variance, so that its folded weights are enormous.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tf_keras

from mobiledeploy.architectures import mobilenet_v1, mobilenet_v2
from mobiledeploy.core import preprocessing
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.types import Model, Preprocessing
from mobiledeploy.frameworks import tf_keras as framework
from mobiledeploy.graphs import execution
from mobiledeploy.steps import diagnose
from tests.conftest import REPOSITORY
from tests.handmade import made

V1_SIZE, V2_SIZE = (96, 96), (64, 64)
V1_BLOCKS = [(f"conv_dw_{n}_bn", f"conv_dw_{n}_relu", f"conv_pw_{n}") for n in range(1, 14)]
V2_BLOCKS = [
    (f"{b}_depthwise_BN", f"{b}_depthwise_relu", f"{b}_project")
    for b in ("expanded_conv", *(f"block_{n}" for n in range(1, 17)))
]
"""(BatchNorm, ReLU6 behind it, the 1x1 convolution that reads it)."""


def blobs_of(split, count):
    samples = dataset("demo").open("demo", split, resolution=V1_SIZE, labels=())
    plain = Preprocessing((-1.0, 1.0))
    return np.stack([preprocessing.prepare(samples.image(i), plain, V1_SIZE) for i in range(count)])


def coloured(count, seed):
    """Blobs with a tint; the class is the order of their channels, one of six."""
    random = np.random.default_rng(seed)
    coarse = 0.6 * random.uniform(-1, 1, (count, 8, 8, 3))
    coarse += 0.4 * random.uniform(-1, 1, (count, 1, 1, 3))
    fine = random.normal(0, 0.05, (count, *V2_SIZE, 3))
    images = np.clip(coarse.repeat(8, axis=1).repeat(8, axis=2) + fine, -1, 1).astype(np.float32)
    order = images.mean(axis=(1, 2)).argsort(axis=1)
    return images, 2 * order[:, 2] + (order[:, 1] > order[:, 0])


def v1():
    """The demo network with its weights: (model, blocks, calibration and fresh images)."""
    model = mobilenet_v1.build(alpha=0.5, resolution=V1_SIZE, classes=12)
    framework.load_weights(model, REPOSITORY / "models" / "weights" / "mobilenet_v1_0.5.h5")
    return model, V1_BLOCKS, blobs_of("calibration", 100), blobs_of("validation", 400)


@functools.cache
def trained_v2():
    """Weights trained to distinguish tints, since none are shipped. It takes under a minute."""
    images, labels = coloured(3000, seed=0)
    tf_keras.utils.set_random_seed(0)
    model = mobilenet_v2.build(alpha=0.35, resolution=V2_SIZE, classes=6)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            # Its statistics converge within some hundred steps.
            layer.momentum = 0.9
    schedule = tf_keras.optimizers.schedules.CosineDecay(3e-3, 6 * len(images) // 32)
    model.compile(tf_keras.optimizers.legacy.Adam(schedule), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=32, epochs=6, verbose=0)
    return model.get_weights()


def v2():
    """As v1."""
    model = mobilenet_v2.build(alpha=0.35, resolution=V2_SIZE, classes=6)
    model.set_weights(trained_v2())
    fresh, answers = coloured(400, seed=1)
    # One in six is chance.
    assert np.mean(model.predict(fresh, verbose=0).argmax(axis=1) == answers) > 0.7
    return model, V2_BLOCKS, coloured(3000, seed=0)[0][:100], fresh


def uneven(model, blocks, images):
    """Scales channels between depthwise and pointwise layers by up to a thousand and back.

    Only channels that ReLU6 never clips, and only down, so the function stays the same.
    """
    random = np.random.default_rng(0)
    count = 0
    for norm_name, relu_name, reader_name in blocks:
        norm, reader = model.get_layer(norm_name), model.get_layer(reader_name)
        behind = tf_keras.Model(model.input, model.get_layer(relu_name).output)
        highest = behind.predict(images, verbose=0).max(axis=(0, 1, 2))
        factor = np.where(highest < 5.9, 10 ** random.uniform(-3, 0, highest.shape), 1)
        gamma, beta, mean, variance = norm.get_weights()
        norm.set_weights([gamma * factor, beta * factor, mean, variance])
        (kernel,) = reader.get_weights()
        reader.set_weights([kernel / factor[:, None]])
        count += np.count_nonzero(factor < 1)
    return count


def loss_by_file(folder, fresh):
    """For each int8 file: the share of images whose best class differs from float."""
    answers = {
        path.stem: execution.logits(path.read_bytes(), fresh).argmax(axis=1)
        for path in folder.glob("*.tflite")
    }
    reference = answers.pop("float32")
    return {name: np.mean(classes != reference) for name, classes in answers.items()}


def layer_of(name):
    """conv_dw_6 of mobilenet_v1/conv_dw_6_relu/Relu6."""
    return name.split("/")[1].removesuffix("_relu").removesuffix("_BN").removesuffix("_bn")


@pytest.mark.slow
@pytest.mark.parametrize("network", [v1, v2])
def test_channels_of_thousandfold_ranges_come_back_whole(network, tmp_path):
    model, blocks, calibration, fresh = network()
    before = model.predict(fresh, verbose=0)
    assert uneven(model, blocks, np.concatenate([calibration, fresh])) > 500
    np.testing.assert_allclose(model.predict(fresh, verbose=0), before, atol=1e-4)
    folder = made(tmp_path / "hard", Model("tf_keras", model), calibration, fresh[:4])
    losses = loss_by_file(folder, fresh)
    assert losses["per_tensor"] > 0.3
    assert losses["int8_best"] < 0.1 * losses["per_tensor"]
    assert losses["int8_best"] <= losses["int8_ptq"]

    diagnosis = diagnose.diagnose(folder / "int8_ptq.tflite")
    layers_ = {norm.removesuffix("_bn").removesuffix("_BN") for norm, _, _ in blocks}
    readers = {reader for _, _, reader in blocks}
    ratios = {layer_of(x.name): x.range_ratio for x in diagnosis.layers}
    assert min(ratios[name] for name in layers_) > 10
    assert np.median([ratios[name] for name in layers_]) > 300
    assert layer_of(diagnosis.enters) in layers_ | readers
    (best,) = [remedy for remedy in diagnosis.remedies if remedy.name == "int8_best"]
    assert "equalization" in best.why
    assert {layer_of(name) for name in best.layers} <= layers_ | readers
    best_diagnosis = diagnose.diagnose(folder / "int8_best.tflite")
    assert best_diagnosis.sqnr_db > diagnosis.sqnr_db + 5


@pytest.mark.slow
@pytest.mark.parametrize(("network", "block"), [(v1, 5), (v2, 7)])
def test_of_all_blocks_the_one_that_was_made_hard_is_named(network, block, tmp_path):
    model, blocks, calibration, fresh = network()
    uneven(model, [blocks[block]], np.concatenate([calibration, fresh]))
    folder = made(tmp_path / "hard", Model("tf_keras", model), calibration, fresh[:4])
    norm, _, reader = blocks[block]
    layers_ = {norm.removesuffix("_bn").removesuffix("_BN"), reader}
    for file in ("int8_ptq.tflite", "per_tensor.tflite"):
        diagnosis = diagnose.diagnose(folder / file)
        assert layer_of(diagnosis.enters) in layers_
        assert sum(x.share for x in diagnosis.layers if layer_of(x.name) in layers_) > 0.5


@pytest.mark.slow
def test_batch_norms_of_a_variance_of_1e_9_come_back_whole(tmp_path):
    """Three channels that are always zero, with a nearly zero variance; in float they stay zero."""
    model, _, calibration, fresh = v1()
    hard = ("conv_dw_3", "conv_dw_6", "conv_dw_10")
    for name in hard:
        number = int(name.rpartition("_")[2])
        before = model.get_layer(f"conv_pw_{number - 1}_bn")
        behind = tf_keras.Model(model.input, model.get_layer(f"conv_pw_{number - 1}_relu").output)
        silent = behind.predict(calibration, verbose=0).mean(axis=(0, 1, 2)).argmin()
        gamma, beta, mean, variance = before.get_weights()
        beta[silent] = -50
        before.set_weights([gamma, beta, mean, variance])
        norm = model.get_layer(f"{name}_bn")
        gamma, beta, mean, variance = norm.get_weights()
        mean[silent], variance[silent], gamma[silent] = 0, 1e-9, 1
        norm.set_weights([gamma, beta, mean, variance])
        norm.epsilon = 1e-9
    folder = made(tmp_path / "hard", Model("tf_keras", model), calibration, fresh[:4])
    losses = loss_by_file(folder, fresh)
    assert losses["per_tensor"] > 0.3
    assert losses["int8_best"] < 0.1 * losses["per_tensor"]
    diagnosis = diagnose.diagnose(folder / "per_tensor.tflite")
    assert layer_of(diagnosis.enters) in hard
    layer_names = {layer_of(x.name) for x in diagnosis.layers if x.own_sqnr_db < 10}
    assert layer_names == set(hard)
    assert {x.cause for x in diagnosis.layers if layer_of(x.name) in hard} == {"weights"}
    assert diagnosis.remedies[0].name == "per-channel"
    assert {layer_of(name) for name in diagnosis.remedies[0].layers} <= set(hard)
