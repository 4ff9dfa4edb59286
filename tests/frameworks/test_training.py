from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import tf_keras

from mobiledeploy.frameworks import training

CLASSES = 2


def _pool(resolution: int, count: int = 16) -> training.Pool:
    """Dark pictures of class 0 and light ones of class 1."""
    labels = np.arange(count, dtype=np.int64) % CLASSES
    images = np.random.default_rng(resolution).integers(
        0, 100, (count, resolution, resolution, 3), dtype=np.uint8
    )
    return images + (labels * 150).astype(np.uint8)[:, None, None, None], labels


def _build(resolution: tuple[int, int] = (32, 32)) -> tf_keras.Model:
    """A small network with every kind of layer that a MobileNet has; traced in a second."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((*resolution, 3), name="image")
    x = layers.Conv2D(4, 3, 2, padding="same", use_bias=False, name="conv1")(image)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.ReLU(6.0, name="conv1_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="conv_dw_1")(x)
    x = layers.BatchNormalization(name="conv_dw_1_bn")(x)
    x = layers.ReLU(6.0, name="conv_dw_1_relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = layers.Conv2D(CLASSES, 1, name="conv_preds")(x)
    x = layers.Reshape((CLASSES,), name="reshape")(x)
    return tf_keras.Model(image, layers.Activation("softmax", name="predictions")(x))


@pytest.fixture
def model() -> tf_keras.Model:
    return _build()


def _fit(
    model: tf_keras.Model,
    phases: Sequence[training.Phase],
    settings: training.Settings,
    every: int,
) -> list[tuple[int, float, float]]:
    seen: list[tuple[int, float, float]] = []
    training.fit(
        model, phases, settings, on_progress=lambda *facts: seen.append(facts), every=every
    )
    return seen


def test_two_steps_change_every_weight_and_stay_finite(model: tf_keras.Model) -> None:
    before = model.get_weights()
    phases = [training.Phase(2, [(_pool(32), 1.0)])]
    seen = _fit(model, phases, training.Settings(batch=8, peak_rate=1e-2), every=1)
    assert [done for done, _, _ in seen] == [1, 2]
    for weight, old, new in zip(model.weights, before, model.get_weights(), strict=True):
        assert np.isfinite(new).all(), weight.name
        assert not np.array_equal(old, new), weight.name


def test_frozen_statistics_stay_and_everything_else_is_trained(model: tf_keras.Model) -> None:
    before = model.get_weights()
    settings = training.Settings(batch=8, frozen_statistics=True)
    _fit(model, [training.Phase(2, [(_pool(32), 1.0)])], settings, every=2)
    for weight, old, new in zip(model.weights, before, model.get_weights(), strict=True):
        assert np.array_equal(old, new) == ("moving" in weight.name), weight.name


def test_loss_falls_and_the_set_is_learnt(model: tf_keras.Model) -> None:
    pool = _pool(32)
    settings = training.Settings(batch=16, peak_rate=3e-2, bn_momentum=0.7, jitter=0.0)
    seen = _fit(model, [training.Phase(60, [(pool, 1.0)])], settings, every=15)
    losses = [loss for _, loss, _ in seen]
    assert losses[-1] < 0.5 * losses[0]
    assert training.accuracy(model, pool) == 1.0


def test_phases_mix_resolutions_and_the_model_keeps_its_own(model: tf_keras.Model) -> None:
    phases = [
        training.Phase(2, [(_pool(32), 1.0)]),
        training.Phase(6, [(_pool(48), 0.5), (_pool(64), 0.5)]),
    ]
    seen = _fit(model, phases, training.Settings(batch=4), every=3)
    assert [done for done, _, _ in seen] == [3, 6, 8]
    assert model.input_shape == (None, 32, 32, 3)


def test_same_seed_same_weights() -> None:
    def trained(seed: int) -> list[np.ndarray]:
        model = _build()
        phases = [training.Phase(2, [(_pool(32), 1.0)])]
        _fit(model, phases, training.Settings(batch=4, seed=seed), every=2)
        return model.get_weights()

    first, second, other = trained(1), trained(1), trained(2)
    for one, same in zip(first, second, strict=True):
        np.testing.assert_allclose(one, same, rtol=1e-4, atol=1e-6)
    assert not all(np.allclose(one, two) for one, two in zip(first, other, strict=True))


def test_loss_that_is_not_finite_ends_the_training(model: tf_keras.Model) -> None:
    layer = model.get_layer("conv_preds")
    kernel, bias = layer.get_weights()
    layer.set_weights([np.full_like(kernel, np.nan), bias])
    with pytest.raises(FloatingPointError, match="after 1 steps"):
        _fit(model, [training.Phase(2, [(_pool(32), 1.0)])], training.Settings(batch=4), every=1)


def test_weights_load_by_name_and_hold_no_optimizer(model: tf_keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.h5"
    training.save_weights(model, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.h5"]
    with h5py.File(path) as file:
        assert "optimizer_weights" not in file
        assert "model_config" not in file.attrs
    other = _build((64, 96))
    other.load_weights(path, by_name=True)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_are_replaced_whole_or_not_at_all(
    model: tf_keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(b"the earlier ones")

    def interrupted(part: Path, **_: object) -> None:
        Path(part).write_bytes(b"half of")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.save_weights(model, path)
    assert path.read_bytes() == b"the earlier ones"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.h5"]
