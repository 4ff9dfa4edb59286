"""Models as people bring them, of every kind: each exports and answers as its framework does.

What is refused says a way, and the test follows that way.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import h5py
import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf_keras

from tests import lite, warm

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
"""As a fraction of the largest answer."""
HALF = 2e-3
"""Of a model that computes in half precision itself."""
SIDE, SAMPLES = 32, 40


def tail(library, x, units=3, last="softmax"):
    layers = library.layers
    return layers.Dense(units, activation=last)(layers.GlobalAveragePooling2D()(x))


def stem(library, x, filters=8, **options):
    return library.layers.Conv2D(filters, 3, strides=2, activation="relu", **options)(x)


def row(library, units=3, last="softmax", scale=None):
    """A small network that answers a row of numbers."""
    image = library.layers.Input((SIDE, SIDE, 3))
    x = image if scale is None else library.layers.Rescaling(scale)(image)
    return library.Model(image, tail(library, stem(library, stem(library, x)), units, last))


def augmented():
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((SIDE, SIDE, 3)),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def transfer(library, units, last):
    layers, nets = library.layers, library.applications
    base = nets.MobileNetV2((SIDE, SIDE, 3), alpha=0.35, include_top=False, weights=None)
    image = layers.Input((SIDE, SIDE, 3))
    x = base(nets.mobilenet_v2.preprocess_input(image), training=False)
    return library.Model(image, tail(library, x, units, last))


def embedding():
    layers = tf_keras.layers
    image = layers.Input((SIDE, SIDE, 3))
    vector = tail(tf_keras, stem(tf_keras, image), 16, None)
    return tf_keras.Model(image, layers.UnitNormalization()(vector))


def two_outputs():
    layers = tf_keras.layers
    image = layers.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(stem(tf_keras, image))
    kind = layers.Dense(3, activation="softmax", name="kind")(x)
    return tf_keras.Model(image, [kind, layers.Dense(4, name="box")(x)])


def two_inputs():
    layers = tf_keras.layers
    photo, facts = layers.Input((SIDE, SIDE, 3), name="photo"), layers.Input((5,), name="facts")
    x = layers.GlobalAveragePooling2D()(stem(tf_keras, photo))
    both = layers.Concatenate()([x, layers.Dense(8, activation="relu")(facts)])
    return tf_keras.Model([photo, facts], layers.Dense(3, activation="softmax")(both))


def wide():
    image = tf_keras.layers.Input((16, 48, 3))
    return tf_keras.Model(image, tail(tf_keras, stem(tf_keras, image)))


def any_size():
    image = tf_keras.layers.Input((None, None, 3))
    return tf_keras.Model(image, tail(tf_keras, stem(tf_keras, image)))


def unet():
    layers = tf_keras.layers
    image = layers.Input((SIDE, SIDE, 3))
    a = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    b = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(a))
    c = layers.Conv2DTranspose(8, 2, strides=2, activation="relu")(layers.MaxPooling2D()(b))
    d = layers.UpSampling2D(interpolation="bilinear")(layers.Concatenate()([c, b]))
    e = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Concatenate()([d, a]))
    return tf_keras.Model(image, layers.Conv2D(2, 1, activation="softmax")(e))


def mixed(library):
    library.mixed_precision.set_global_policy("mixed_float16")
    try:
        layers = library.layers
        image = layers.Input((SIDE, SIDE, 3))
        x = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(image))
        scores = tail(library, layers.ReLU()(x), 3, None)
        return library.Model(image, layers.Activation("softmax", dtype="float32")(scores))
    finally:
        library.mixed_precision.set_global_policy("float32")


def channels_first():
    layers, first = tf_keras.layers, {"data_format": "channels_first"}
    image = layers.Input((3, SIDE, SIDE))
    x = layers.BatchNormalization(axis=1)(stem(tf_keras, image, **first))
    x = layers.GlobalAveragePooling2D(**first)(stem(tf_keras, x, **first))
    return tf_keras.Model(image, layers.Dense(3, activation="softmax")(x))


def recurrent():
    layers = tf_keras.layers
    image = layers.Input((SIDE, SIDE, 3))
    x = layers.Permute((2, 1, 3))(stem(tf_keras, image, 4))
    x = layers.LSTM(8)(layers.Reshape((15, 60))(x))
    return tf_keras.Model(image, layers.Dense(3, activation="softmax")(x))


def activation(name):
    layers = tf_keras.layers
    own = {"prelu": layers.PReLU, "leaky": lambda: layers.LeakyReLU(0.1)}
    image = layers.Input((SIDE, SIDE, 3))
    x = image
    for filters in (8, 12):
        x = layers.BatchNormalization()(layers.Conv2D(filters, 3, strides=2)(x))
        x = own[name]()(x) if name in own else layers.Activation(name)(x)
    return tf_keras.Model(image, tail(tf_keras, x))


def application(name):
    return getattr(keras.applications, name)(weights=None, input_shape=(SIDE, SIDE, 3), classes=3)


def toolkit(kind):
    import tensorflow_model_optimization as tfmot

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((SIDE, SIDE, 3)),
            layers.Conv2D(8, 3, strides=2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    sparsity = tfmot.sparsity.keras
    if kind == "pruned":
        return sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.5, 0))
    model = tfmot.quantization.keras.quantize_model(model)
    # The ranges of its activations are trained.
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)
    model.fit(images, np.array([0, 1]), epochs=40, verbose=0)
    return model


def old_relu6():
    """Keras 2.1's MobileNet has an activation relu6, a function of its own."""
    layers = tf_keras.layers
    image = layers.Input((SIDE, SIDE, 3))
    x = layers.Activation("relu", name="conv1_relu")(layers.Conv2D(8, 3, strides=2)(image))
    return tf_keras.Model(image, tail(tf_keras, x))


def as_relu6(path):
    with h5py.File(path, "r+") as file:
        text = str(file.attrs["model_config"])
        config = json.loads(text)
        for layer in config["config"]["layers"]:
            if layer["config"]["name"] == "conv1_relu":
                layer["config"]["activation"] = "relu6"
        file.attrs["model_config"] = json.dumps(config)


def served(path):
    """A module of a serving team: pixels of uint8 in, two names out."""
    inner = row(tf_keras, scale=1 / 255)

    class Served(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8, "image")])
        def __call__(self, image):
            scores = inner(tf.cast(image, tf.float32))
            return {"scores": scores, "label": tf.argmax(scores, -1)}

    module = Served()
    module.inner = inner
    tf.saved_model.save(module, str(path), signatures=module.__call__)
    return lambda x: [module(tf.cast(x, tf.uint8))["scores"]]


def activations_of(*names):
    return {f"activation_{name}.h5": (lambda name=name: activation(name)) for name in names}


KINDS = {
    # file name -> what builds the model, the range of its pixels, what its data says
    "augmented.keras": (augmented, "0,255", "labels"),
    "binary_logit.keras": (lambda: transfer(keras, 1, None), "0,255", "two"),
    "nested.h5": (lambda: transfer(tf_keras, 3, "softmax"), "0,255", "labels"),
    "regression.h5": (lambda: row(tf_keras, 1, None), "0,1", "targets"),
    "embedding.h5": (embedding, "0,1", "labels"),
    "two_outputs.h5": (two_outputs, "0,1", "labels"),
    "two_inputs.h5": (two_inputs, "0,1", "facts"),
    "wide.h5": (wide, "0,1", "labels"),
    "any_size.h5": (any_size, "0,1", "labels"),
    "unet.h5": (unet, "0,1", "masks"),
    "mixed2.h5": (lambda: mixed(tf_keras), "0,1", "labels"),
    "mixed3.keras": (lambda: mixed(keras), "0,1", "labels"),
    "logits.h5": (lambda: row(tf_keras, last=None), "0,1", "labels"),
    "multilabel.h5": (lambda: row(tf_keras, last="sigmoid"), "0,1", "several"),
    "log_softmax.h5": (lambda: row(tf_keras, last=tf.nn.log_softmax), "0,1", "labels"),
    "tanh.h5": (lambda: row(tf_keras, last="tanh"), "0,1", "labels"),
    "channels_first.h5": (channels_first, "0,1", "labels"),
    "recurrent.h5": (recurrent, "0,1", "labels"),
    **{
        file: (build, "0,1", "labels")
        for file, build in activations_of(
            "prelu", "leaky", "swish", "gelu", "mish", "selu", "softplus", "hard_sigmoid"
        ).items()
    },
    "mobilenet_v3.keras": (lambda: application("MobileNetV3Small"), "0,255", "labels"),
    "efficientnet.keras": (lambda: application("EfficientNetB0"), "0,255", "labels"),
    "pruned.h5": (lambda: toolkit("pruned"), "0,1", "labels"),
    "quantized.h5": (lambda: toolkit("quantized"), "0,1", "labels"),
    "exported3": (lambda: row(keras, scale=1 / 255), "0,255", "labels"),
    "saved2": (lambda: row(tf_keras, scale=1 / 255), "0,255", "labels"),
    "served": (None, "0,255", "labels"),
    "relu6.h5": (old_relu6, "0,1", "labels"),
}
ROUGH = {"mixed2.h5": HALF, "mixed3.keras": HALF, "quantized.h5": 0.05}
"""Models that compute with fewer bits themselves, which their export undoes."""


def write_data(path, says, size):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (SAMPLES, *size, 3)).astype(np.uint8)
    labels = np.arange(SAMPLES) % (2 if says == "two" else 3)
    content = {
        "facts": {"facts": random.normal(size=(SAMPLES, 5)).astype(np.float32), "labels": labels},
        "masks": {"masks": (images.mean(-1) > 127).astype(np.uint8)},
        "several": {"labels": np.eye(3, dtype=int)[labels]},
        "targets": {"targets": images.mean((1, 2, 3))},
    }.get(says, {"labels": labels})
    np.savez(path, images=images, **content)


def export(*argv, cwd):
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", "export", *map(str, argv), "--json"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
    )


def made(name, folder):
    """Writes the model; what computes its answers [N, ...] for a list of inputs [N, ...]."""
    build = KINDS[name][0]
    keras.utils.set_random_seed(0)
    tf_keras.utils.set_random_seed(0)
    if name == "served":
        return served(folder / name)
    model = build()
    if name == "exported3":
        model.export(folder / name)
    elif name == "saved2":
        model.save(folder / name, save_format="tf")
    else:
        model.save(folder / name)
    if name == "relu6.h5":
        as_relu6(folder / name)
    return lambda *inputs: tf.nest.flatten(
        model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    )


def of_tflite(file, inputs):
    rows = [lite.answers(file.read_bytes(), *(x[None] for x in sample)) for sample in inputs]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def of_onnx(file, inputs):
    """As of the TFLite: channels last."""
    session = onnxruntime.InferenceSession(file)
    rows = []
    for sample in inputs:
        feed = {}
        for end, x in zip(session.get_inputs(), sample, strict=True):
            feed[end.name] = (x.transpose(2, 0, 1) if x.ndim == 3 else x)[None]
        answers = session.run(None, feed)
        rows.append([y.transpose(0, 2, 3, 1) if y.ndim == 4 else y for y in answers])
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def agrees(name, own, folder, out):
    """Compares both float files with the framework's answers, and prints the largest error."""
    ends = json.loads((out / "float32.tflite.json").read_text())["signature"]["inputs"]
    high = 255 if KINDS[name][1] == "0,255" else 1
    random = np.random.default_rng(1)
    columns = [
        (random.integers(0, 256, (4, *end["shape"])) * (high / 255)).astype(np.float32)
        if end["kind"] == "image"
        else random.normal(size=(4, *end["shape"])).astype(np.float32)
        for end in ends
    ]
    inputs = list(zip(*columns, strict=True))
    first = name == "channels_first.h5"
    expected = own(*(x.transpose(0, 3, 1, 2) if first else x for x in columns))
    for file, answer in (("float32.tflite", of_tflite), ("float32.onnx", of_onnx)):
        answers = {x.shape: x for x in answer(out / file, inputs)}
        for one in (np.asarray(x, np.float32) for x in expected):
            error = np.abs(one - answers[one.shape]).max() / np.abs(one).max()
            print(f"{name} {file}: {error:.1e} of the largest answer")
            assert error <= ROUGH.get(name, TOLERANCE), file


def exported(name, folder, *more, code=0):
    """The result of the export of this case, or of its refusal."""
    _, pixels, says = KINDS[name]
    write_data(folder / "data.npz", says, (16, 48) if name == "wide.h5" else (SIDE, SIDE))
    options = ("--data", "data.npz", "--input-range", pixels, "--recipe", "float32,int8_ptq")
    done = export(name, *options, *more, cwd=folder)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def way(refusal):
    """The options that a refusal names."""
    return shlex.split(re.search(r"--(res \S+|input-range [\d.,]*\d)", refusal)[0])


@pytest.mark.parametrize("name", [name for name in KINDS if name != "any_size.h5"])
def test_a_model_of_every_kind_exports_as_it_answers(name, tmp_path):
    own = made(name, tmp_path)
    result = exported(name, tmp_path)
    assert [Path(row["path"]).name for row in result["rows"]] == [
        "float32.tflite",
        "int8_ptq.tflite",
        "float32.onnx",
        "int8_ptq.onnx",
    ]
    agrees(name, own, tmp_path, tmp_path / result["folder"])
    for row in result["rows"]:
        if row["divergence"] is not None:
            print(f"{name} {Path(row['path']).name}: {row['divergence']:.2g}")
            # The best label of an untrained model changes with the last digit of its scores.
            assert 0 <= row["divergence"] < (1 if name == "served" else 0.1)


def test_a_size_is_chosen_where_the_model_takes_any(tmp_path):
    name = "any_size.h5"
    own = made(name, tmp_path)
    refusal = exported(name, tmp_path, code=2)
    assert way(refusal) == ["--res", "224"]
    result = exported(name, tmp_path, *way(refusal))
    agrees(name, own, tmp_path, tmp_path / result["folder"])


def test_uint8_pixels_keep_their_own_range(tmp_path):
    own = made("served", tmp_path)
    write_data(tmp_path / "data.npz", "labels", (SIDE, SIDE))
    refusal = export("served", "--data", "data.npz", "--input-range", "0,1", cwd=tmp_path)
    assert refusal.returncode == 7 and "pixels of uint8" in refusal.stderr
    assert way(refusal.stderr) == ["--input-range", "0,255"]
    result = exported("served", tmp_path)
    agrees("served", own, tmp_path, tmp_path / result["folder"])


SQUEEZE = """
import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable("mine")
class Squeeze(keras.layers.Layer):
    def build(self, shape):
        self.gate = keras.layers.Dense(shape[-1], activation="sigmoid")

    def call(self, x):
        return x * self.gate(tf.reduce_mean(x, [1, 2]))[:, None, None]
"""


@pytest.mark.parametrize("kind", ["custom", "lambda"])
def test_code_of_the_users_own_is_refused_with_a_way(kind, tmp_path):
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((SIDE, SIDE, 3))
    (tmp_path / "FILE.py").write_text(SQUEEZE)
    module = {}
    exec(SQUEEZE, module)
    own = module["Squeeze"]() if kind == "custom" else layers.Lambda(lambda x: x / 2 - 1)
    model = tf_keras.Model(image, tail(tf_keras, own(stem(tf_keras, image))))
    model.save(tmp_path / "relu6.h5")
    refusal = exported("relu6.h5", tmp_path, code=7)
    options = ["--custom-objects", "FILE.py"] if kind == "custom" else ["--unsafe"]
    assert shlex.join(options) in refusal
    result = exported("relu6.h5", tmp_path, *options)
    agrees("relu6.h5", lambda x: [model(x)], tmp_path, tmp_path / result["folder"])
