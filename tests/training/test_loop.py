from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.architectures import mobilenet_v1, xception
from mobiledeploy.core import preprocessing, runs
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.core.types import (
    Epoch,
    ModelSpec,
    Preprocessing,
    Source,
    TrainingSettings,
    Weights,
)
from mobiledeploy.steps.training_plan import SCHEDULES
from mobiledeploy.training import loop
from tests.conftest import Heard

SIZE = (32, 32)
NONE = Weights("random", "", pinned=True)
SETTINGS = TrainingSettings(
    SCHEDULES["finetune"],
    epochs=2,
    batch=8,
    seed=0,
    init=None,
    frozen=False,
    teacher=None,
    ema=False,
    label_smoothing=0.0,
    strategy="none",
)


def small(*, alpha: float, resolution: tuple[int, int], classes: int) -> tf_keras.Model:
    """A network with every kind of layer that a MobileNet has; traced in a second."""
    layers = tf_keras.layers
    image = layers.Input((*resolution, 3), name="image")
    x = layers.Conv2D(int(16 * alpha), 3, 2, padding="same", use_bias=False, name="conv1")(image)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.ReLU(6.0, name="conv1_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="conv_dw_1")(x)
    x = layers.BatchNormalization(name="conv_dw_1_bn")(x)
    x = layers.ReLU(6.0, name="conv_dw_1_relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    x = layers.Conv2D(classes, 1, name="conv_preds")(x)
    x = layers.Reshape((classes,), name="reshape")(x)
    return tf_keras.Model(image, layers.Activation("softmax", name="predictions")(x))


@pytest.fixture(autouse=True)
def _small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ARCHITECTURES, "load", lambda _: SimpleNamespace(build=small))


def spec(classes: int = 2, alpha: float = 0.5) -> ModelSpec:
    return ModelSpec(
        "small", "small", "small", {"alpha": alpha}, SIZE, classes, Preprocessing((-1.0, 1.0)), NONE
    )


def examples(count: int, seed: int = 0, classes: int = 2) -> loop.LabelledImages:
    """Dark images of class 0, lighter ones of the others."""
    labels = np.arange(count, dtype=np.int64) % classes
    noise = np.random.default_rng(seed).integers(0, 90, (count, *SIZE, 3), dtype=np.uint8)
    lift = (labels * (160 // max(1, classes - 1))).astype(np.uint8)
    return loop.LabelledImages(noise + lift[:, None, None, None], labels)


def task(folder: Path, changes: TrainingSettings = SETTINGS, **others: object) -> loop.TrainingTask:
    (folder / "state").mkdir(exist_ok=True, parents=True)
    plain = loop.TrainingTask(
        spec(),
        changes,
        examples(32),
        examples(12, seed=1),
        init=None,
        teacher=None,
        state=folder / "state",
        resume=folder / "state",
        tensorboard=folder / "tensorboard",
    )
    return dataclasses.replace(plain, **others)


def run(
    todo: loop.TrainingTask, history: tuple[Epoch, ...] = (), stop_after: int | None = None
) -> tuple[Epoch, ...]:
    """Trains and returns the history. `stop_after`: interrupts once that epoch is committed."""
    values = history

    def commit(now: tuple[Epoch, ...]) -> None:
        nonlocal values
        values = now
        if len(now) == stop_after:
            raise KeyboardInterrupt

    try:
        loop.train(todo, history, reporter=Heard(), commit=commit)
    except KeyboardInterrupt:
        assert stop_after
    return values


def kept(todo: loop.TrainingTask, history: tuple[Epoch, ...]) -> list[np.ndarray]:
    network = small(alpha=0.5, resolution=SIZE, classes=2)
    network.load_weights(
        todo.state / loop.best_name(runs.best(history, todo.settings).number), by_name=True
    )
    return list(network.get_weights())


def latest(todo: loop.TrainingTask, epochs: int) -> list[np.ndarray]:
    """Every array of the checkpoint, the optimizer's too, in the order of their names."""
    reader = tf.train.load_checkpoint(str(todo.state / loop.checkpoint_name(epochs)))
    names = sorted(n for n in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in n)
    return [np.asarray(reader.get_tensor(name)) for name in names]


def test_it_learns_and_leaves_one_checkpoint_and_the_best_weights(tmp_path: Path) -> None:
    todo = task(tmp_path, dataclasses.replace(SETTINGS, epochs=25))
    sharper = dataclasses.replace(SETTINGS.schedule, learning_rate=0.1)
    history = run(
        dataclasses.replace(todo, settings=dataclasses.replace(todo.settings, schedule=sharper))
    )
    assert [epoch.number for epoch in history] == list(range(1, 26))
    assert history[-1].loss < 0.5 * history[0].loss
    best = runs.best(history, todo.settings)
    assert best.top1 == max(epoch.top1 for epoch in history) == 1.0
    names = {path.name.split(".")[0] for path in todo.state.iterdir()}
    assert names == {"epoch-0025", f"best-{best.number:04}"}
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert len(kept(todo, history)) == len(small(alpha=0.5, resolution=SIZE, classes=2).weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "ema"),
    [("paper", True), ("finetune", False)],
)
def test_a_resumed_training_ends_like_an_uninterrupted_one(
    schedule: str, ema: bool, tmp_path: Path
) -> None:
    changes = dataclasses.replace(SETTINGS, schedule=SCHEDULES[schedule], ema=ema, epochs=3)
    whole, broken_task = task(tmp_path / "whole", changes), task(tmp_path / "broken", changes)
    unbroken = run(whole)
    half = run(broken_task, stop_after=2)
    assert half[0].loss == pytest.approx(unbroken[0].loss, rel=1e-4)
    resumed = run(broken_task, half)
    assert [epoch.number for epoch in resumed] == [1, 2, 3]
    assert resumed[2].loss == pytest.approx(unbroken[2].loss, rel=1e-4)
    for one, other in zip(latest(whole, 3), latest(broken_task, 3), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_finished_training_continues_with_more_epochs(tmp_path: Path) -> None:
    first = run(task(tmp_path))
    more = run(task(tmp_path, dataclasses.replace(SETTINGS, epochs=3)), first)
    assert more[:2] == first
    assert len(more) == 3


@pytest.mark.slow
def test_averaged_weights_are_kept_and_the_others_are_trained_further(tmp_path: Path) -> None:
    changes = dataclasses.replace(SETTINGS, epochs=1)
    plain, averaging = task(tmp_path / "a", changes), task(tmp_path / "b", changes)
    averaging = dataclasses.replace(averaging, settings=dataclasses.replace(changes, ema=True))
    history, other = run(plain), run(averaging)
    assert history[0].loss == pytest.approx(other[0].loss, rel=1e-5)
    assert not np.allclose(kept(plain, history)[0], kept(averaging, other)[0], atol=1e-5)
    reader = tf.train.load_checkpoint(str(averaging.state / loop.checkpoint_name(1)))
    raw = [
        reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith("network") and name.endswith("kernel/.ATTRIBUTES/VARIABLE_VALUE")
    ]
    assert any(np.allclose(a, kept(plain, history)[0], atol=1e-5) for a in raw if a.shape[-1] == 8)


@pytest.mark.slow
def test_freezing_changes_only_the_classifier(tmp_path: Path) -> None:
    tf_keras.utils.set_random_seed(5)
    first = small(alpha=0.5, resolution=SIZE, classes=2)
    first.get_layer("conv1_bn").set_weights([np.full(8, v, np.float32) for v in (1.1, 0.2, 0.3, 2)])
    loop.save_weights(first, tmp_path / "first.h5")
    todo = task(tmp_path, dataclasses.replace(SETTINGS, frozen=True), init=tmp_path / "first.h5")
    after = kept(todo, run(todo))
    for weight, old, new in zip(first.weights, first.get_weights(), after, strict=True):
        assert np.array_equal(old, new) == ("conv_preds" not in weight.name), weight.name


def test_weights_of_another_number_of_classes_start_with_a_new_classifier(
    tmp_path: Path,
) -> None:
    tf_keras.utils.set_random_seed(5)
    loop.save_weights(small(alpha=0.5, resolution=SIZE, classes=7), tmp_path / "seven.h5")
    network, heard = small(alpha=0.5, resolution=SIZE, classes=2), Heard()
    head = network.get_layer("conv_preds").get_weights()
    loop.load(network, spec(), tmp_path / "seven.h5", heard)
    assert heard.said == ["seven.h5 has 7 classes, the data 2: conv_preds starts from new weights"]
    np.testing.assert_array_equal(network.get_layer("conv_preds").get_weights()[0], head[0])
    seven = small(alpha=0.5, resolution=SIZE, classes=7)
    seven.load_weights(tmp_path / "seven.h5")
    np.testing.assert_array_equal(
        network.get_layer("conv1").get_weights()[0], seven.get_layer("conv1").get_weights()[0]
    )


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    loop.save_weights(small(alpha=1.0, resolution=SIZE, classes=7), tmp_path / "wide.h5")
    network = small(alpha=0.5, resolution=SIZE, classes=2)
    with pytest.raises(InputError, match="--alpha 1"):
        loop.load(network, spec(), tmp_path / "wide.h5", Heard())


@pytest.mark.slow
def test_a_teacher_is_approached(tmp_path: Path) -> None:
    tf_keras.utils.set_random_seed(9)
    teacher = small(alpha=1.0, resolution=SIZE, classes=2)
    head = teacher.get_layer("conv_preds")
    head.set_weights([head.get_weights()[0] * 8, np.array([2.0, -2.0], np.float32)])
    loop.save_weights(teacher, tmp_path / "teacher.h5")
    wide = dataclasses.replace(spec(alpha=1.0), name="teacher")
    held_back = examples(12, seed=1)
    batch = next(iter(loop.validation_batches(held_back, spec())))[0]

    quick = dataclasses.replace(SETTINGS.schedule, learning_rate=0.1)
    changes = dataclasses.replace(SETTINGS, epochs=6, schedule=quick)

    def apart(where: Path, **others: object) -> float:
        todo = task(where, changes, **others)
        run(todo)
        student = small(alpha=0.5, resolution=SIZE, classes=2)
        last = str(todo.state / loop.checkpoint_name(6))
        tf.train.Checkpoint(network=student).read(last).expect_partial()
        return float(loop.distance(teacher(batch), student(batch)))

    source = Source(wide, weights=str(tmp_path / "teacher.h5"))
    assert apart(tmp_path / "taught", teacher=source) < 0.5 * apart(tmp_path / "alone")
    with pytest.raises(InputError, match=r"teacher teacher has 3 classes, the data 2"):
        run(task(tmp_path / "n", teacher=Source(dataclasses.replace(wide, classes=3))))


def test_distance_is_the_divergence_of_softened_logits() -> None:
    logits = np.array([[3.0, 0.0, -2.0]], np.float32), np.array([[0.0, 1.0, 0.5]], np.float32)
    soft_q, soft_p = (tf.nn.softmax(x / loop.TEMPERATURE).numpy() for x in logits)
    expected = loop.TEMPERATURE**2 * np.sum(soft_q * np.log(soft_q / soft_p))
    actual = loop.distance(*(tf.nn.softmax(x) for x in logits))
    assert float(actual) == pytest.approx(expected, rel=1e-4)


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    schedule = dataclasses.replace(SCHEDULES["paper"], learning_rate=1e30)
    with pytest.raises(InputError, match="no longer finite in epoch 1"):
        run(task(tmp_path, dataclasses.replace(SETTINGS, schedule=schedule)))
    assert not list((tmp_path / "state").iterdir())


def test_the_learning_rate_follows_the_batch_and_the_epochs(tmp_path: Path) -> None:
    todo = task(tmp_path, dataclasses.replace(SETTINGS, schedule=SCHEDULES["paper"], epochs=3))
    first = 0.045 * 8 / 96
    assert [e.learning_rate for e in run(todo)] == pytest.approx([first, first, first * 0.94])


@pytest.mark.parametrize(
    ("momentum", "steps", "bound"),
    [
        (0.9997, 10**6, 0.9997),
        (0.9997, 20_000, 0.99),
        (0.99, 200, 0.9),
        (0.99, 40, 0.75),
        (0.8, 20_000, 0.8),
    ],
)
def test_moving_averages_forget_within_the_run(momentum: float, steps: int, bound: float) -> None:
    assert loop.bounded_momentum(momentum, steps) == pytest.approx(bound)


# Images


def taken(first: int, epochs: int, **others: object) -> list[tuple[np.ndarray, np.ndarray]]:
    changes = dataclasses.replace(SETTINGS, epochs=epochs, seed=3)
    data = loop.batches(examples(20), spec(), changes, first=first, **others)
    return [(images.numpy(), labels.numpy()) for images, labels in data]


def test_an_epoch_depends_on_the_seed_and_its_number_only() -> None:
    whole, second = taken(0, 2), taken(1, 2)
    assert (len(whole), len(second)) == (4, 2)
    for one, other in zip(whole[2:], second, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert not np.array_equal(whole[0][0], whole[2][0])


def test_workers_share_a_batch() -> None:
    """Labels of two workers, joined, are those of the whole batch."""
    whole = taken(0, 1)
    parts = [taken(0, 1, pipeline=(index, 2), replicas=2) for index in range(2)]
    for (_, labels), *halves in zip(whole, *parts, strict=True):
        combined = np.concatenate([half[1] for half in halves])
        np.testing.assert_array_equal(combined, labels)


def test_augmented_images_stay_in_range_and_differ() -> None:
    images, labels = taken(0, 1)[0]
    assert images.dtype == np.float32
    assert images.shape == (8, *SIZE, 3)
    assert images.min() >= -1
    assert images.max() <= 1
    # Still dark and light.
    means = images.mean(axis=(1, 2, 3))
    assert means[labels[:, 0] == 1].max() < means[labels[:, 1] == 1].min()


numbers = st.floats(-4, 4, allow_nan=False)
channels = st.tuples(*[st.floats(0.25, 4)] * 3)


@settings(max_examples=10)
@given(
    low=numbers, width=st.floats(0.5, 255), mean=st.tuples(numbers, numbers, numbers), std=channels
)
def test_pixels_are_scaled_as_in_use(
    low: float, width: float, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    message = Preprocessing((low, low + width), mean=mean, std=std)
    some = examples(3)
    ((images, _),) = loop.validation_batches(
        some, dataclasses.replace(spec(), preprocessing=message)
    )
    for image, pixels in zip(images.numpy(), some.images, strict=True):
        np.testing.assert_allclose(
            image, preprocessing.prepare(pixels, message, SIZE), rtol=1e-5, atol=1e-5 * (width + 8)
        )


# The start, the decay and the noise of a training


@pytest.mark.parametrize(
    ("paper", "arguments"),
    [(mobilenet_v1, {"alpha": 0.5}), pytest.param(xception, {}, marks=pytest.mark.slow)],
    ids=["v1", "xception"],
)
def test_kernels_before_a_normalisation_are_initialised_as_in_the_paper(
    paper: Any, arguments: dict[str, float]
) -> None:
    network = paper.build(resolution=(96, 96), classes=4, **arguments)
    loop._initialise(network, 1)
    samples = {
        weight.name: weight.numpy()
        for layer in network.layers
        if not getattr(layer, "use_bias", True)
        for weight in layer.weights
        if "kernel" in weight.name
    }
    assert any("depthwise" in name for name in samples)
    for kernel in samples.values():
        if kernel.size > 1_000:
            # A normal distribution cut off at two standard deviations keeps 0.88 of them.
            assert kernel.std() == pytest.approx(0.88 * loop.INIT_STDDEV, rel=0.1)
    firsts = [round(float(kernel.flat[0]), 9) for kernel in samples.values()]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.slow
def test_all_kernels_decay_but_depthwise_ones() -> None:
    network = xception.build(resolution=(96, 96), classes=4)
    decayed = {v.ref() for v in loop.decayed_kernels(network)}
    for weight in network.trainable_weights:
        depthwise = "depthwise" in weight.name
        assert (weight.ref() in decayed) == ("kernel" in weight.name and not depthwise), weight.name


def test_each_dropout_has_a_mask_of_its_own() -> None:
    optimizer = tf_keras.optimizers.SGD()
    optimizer.build([])
    one, other = (
        loop._SteadyDropout(SimpleNamespace(name=name, rate=0.5), 1, optimizer)
        for name in ("dropout1", "dropout2")
    )
    ones = tf.ones((4, 256))
    masks = [layer(ones, training=True).numpy() for layer in (one, other, one)]
    np.testing.assert_array_equal(masks[0], masks[2])
    assert 0.3 < np.mean(masks[0] == masks[1]) < 0.7


# Dead channels


def test_channels_with_constant_output_are_counted() -> None:
    tf_keras.utils.set_random_seed(2)
    network = small(alpha=0.5, resolution=SIZE, classes=2)
    look = examples(12), spec().preprocessing
    normal = network.get_layer("conv_dw_1_bn")
    gamma, beta, mean, variance = normal.get_weights()
    normal.set_weights([gamma, beta + 3, mean, variance])
    assert loop.dead_channels(network, *look) == {}
    layer = network.get_layer("conv_dw_1")
    (kernel,) = layer.get_weights()
    kernel[:, :, :2] = 0
    layer.set_weights([kernel])
    # And one whose activation never leaves zero.
    beta[5] = -100
    normal.set_weights([gamma, beta + 3, mean, variance])
    assert loop.dead_channels(network, *look) == {"conv_dw_1": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "zeros", "values"),
    [
        ({"prune": 0.5}, 0.5, 10_000),
        pytest.param({"cluster": 4}, None, 4, marks=pytest.mark.slow),
    ],
)
def test_a_compression_reaches_its_amount_and_can_be_resumed(
    tmp_path: Path, changes: dict[str, float], zeros: float | None, values: int
) -> None:
    settings_ = dataclasses.replace(SETTINGS, epochs=4, **changes)
    whole, broken_task = task(tmp_path / "whole", settings_), task(tmp_path / "broken", settings_)
    history = run(whole)
    again = run(broken_task, run(broken_task, stop_after=2))
    assert runs.best(history, settings_).number == 4
    for todo, lived in ((whole, history), (broken_task, again)):
        network = small(alpha=0.5, resolution=SIZE, classes=2)
        best = loop.best_name(runs.best(lived, settings_).number)
        network.load_weights(todo.state / best, by_name=True)
        kernel = network.get_layer("conv1").get_weights()[0]
        if zeros:
            assert np.mean(kernel == 0) == pytest.approx(zeros, abs=0.02)
        assert len(np.unique(kernel)) <= values
        assert np.all(network.get_layer("conv_dw_1").get_weights()[0])
    for one, other in zip(kept(whole, history), kept(broken_task, again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.slow
def test_channels_go_on_to_be_silenced_in_a_resumed_training(tmp_path: Path) -> None:
    settings_ = dataclasses.replace(SETTINGS, epochs=4, prune_channels=0.5)
    longer = dataclasses.replace(settings_, epochs=20)
    network = small(alpha=2, resolution=SIZE, classes=2)
    ends = []
    # Uninterrupted, resumed, and resumed for fewer epochs than it was begun for.
    for name, first in (("whole", None), ("broken", settings_), ("shortened", longer)):
        todo = task(tmp_path / name, settings_, spec=spec(alpha=2))
        begun = run(dataclasses.replace(todo, settings=first), stop_after=1) if first else ()
        history = run(todo, begun)
        network.load_weights(todo.state / loop.best_name(runs.best(history, settings_).number))
        ends.append(network.get_weights())
        for layer in ("conv1_bn", "conv_dw_1_bn"):
            gamma, beta, *_ = network.get_layer(layer).get_weights()
            assert np.sum((gamma == 0) & (beta == 0)) == 16, name
    for one, other in zip(ends[0], ends[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
