"""Every convertible model converts: the float TFLite gives the framework's answers.

One of each kind in the ordinary run; all activations and all of Keras Applications are slow.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf_keras

from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import RECIPES, source_of
from mobiledeploy.core.types import ModelSpec, Preprocessing, Source, Weights
from mobiledeploy.frameworks.recurrent import MOST_STEPS
from mobiledeploy.graphs import ends as ends_
from mobiledeploy.graphs import execution, quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.steps import model_files
from tests.conftest import press_floats
from tests.networks import answers
from tests.variants import slow_but

LIBRARIES = {"keras2": tf_keras, "keras3": keras}
TOLERANCE = 1e-4
"""As a fraction of the largest answer."""


def source(path: Path, **changes) -> Source:
    file = model_files.detect(path, custom="custom_objects" in changes)
    spec = ModelSpec(
        "x",
        None,
        file.framework,
        {},
        (0, 0),
        0,
        Preprocessing((0.0, 1.0)),
        Weights(path.name, file.sha256, pinned=False),
    )
    return Source(spec, file=file, **changes)


def opened(path: Path, **changes):
    inputs = source(path, **changes)
    return source_of(inputs).open(inputs)


def images(resolution, scale=1.0):
    return np.random.default_rng(0).random((2, *resolution, 3), np.float32) * np.float32(scale)


def agrees(model, path, *, scale=1.0, tolerance=TOLERANCE, **changes):
    """Saves `model`, opens the file, and compares its float TFLite with the model itself."""
    if not path.exists():
        model.save(path)
    there = opened(path, **changes)
    inputs = images(there.inputs[0].shape[:2], scale)
    floats = there.floats("model")
    if model is not None:
        expected = np.asarray(model(inputs, training=False), np.float32)
        own = execution.run(floats, inputs)
        assert np.abs(own - expected).max() <= tolerance * np.abs(expected).max()
    reference = answers(there, inputs)
    logits = execution.logits(floats, inputs)
    assert np.abs(logits - reference).max() <= TOLERANCE * np.abs(reference).max()
    return there


def network(library, *between, last="softmax", size=(16, 16), classes=3):
    """A small classifier with `between`, fresh layers, behind its first convolution."""
    library.utils.set_random_seed(0)
    layers = library.layers
    stack = [layers.Input((*size, 3)), layers.Conv2D(8, 3, strides=2), layers.BatchNormalization()]
    stack += [*between, layers.GlobalAveragePooling2D(), layers.Dense(classes, activation=last)]
    return library.Sequential(stack)


ACTIVATIONS = [
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]
KERAS_3_ALONE = [
    "celu",
    "hard_shrink",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "soft_shrink",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "tanh_shrink",
]
LAYERS = ["PReLU", "LeakyReLU", "ELU", "ReLU", "Softmax"]
EVERY = [(version, name) for version in LIBRARIES for name in ACTIVATIONS + LAYERS]
EVERY += [("keras3", name) for name in KERAS_3_ALONE]
QUICK = {("keras2", "swish"), ("keras3", "swish"), ("keras2", "PReLU")}


def test_every_activation_is_tested():
    for version, library in LIBRARIES.items():
        names_ = {
            name
            for name, value in inspect.getmembers(library.activations)
            if inspect.isfunction(value) and name not in ("deserialize", "serialize", "get")
        }
        alias = {"silu": "swish", "hard_swish": "hard_silu"}
        tested = {name for v, name in EVERY if v == version}
        # Softmax is at every end; glu halves its channels, and Keras does not see it; threshold has
        # no defaults.
        rest = {alias.get(name, name) for name in names_} - tested
        assert rest <= {"softmax", "glu", "threshold"}, (version, rest)


@pytest.mark.parametrize(
    ("version", "name"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in EVERY],
)
def test_every_activation(version, name, tmp_path):
    library = LIBRARIES[version]
    layers = library.layers
    layer = getattr(layers, name)() if name in LAYERS else layers.Activation(name)
    agrees(network(library, layer), tmp_path / "model.keras")


# Keras Applications, untrained, at the smallest size that each takes.
SMALLEST = {
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "Xception": 71,
    "NASNetLarge": 331,
    "NASNetMobile": 224,
}
NETWORKS = sorted(
    (version, name)
    for version, library in LIBRARIES.items()
    for name, build in inspect.getmembers(library.applications)
    if callable(build) and name[0].isupper()
)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "name"), NETWORKS)
def test_every_network_of_keras_applications(version, name, tmp_path):
    library = LIBRARIES[version]
    size = SMALLEST.get(name, 32)
    library.utils.set_random_seed(0)
    build = getattr(library.applications, name)
    model = build(weights=None, input_shape=(size, size, 3), classes=5)
    path = tmp_path / f"model.{'h5' if version == 'keras2' else 'keras'}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model.save(path)
    except TypeError as error:
        pytest.skip(f"{version} does not save its own {name} as {path.suffix}: {error}")
    agrees(model, path, scale=255.0)


@pytest.mark.parametrize(
    ("last", "softmax"),
    [("softmax", True)]
    + [
        pytest.param(last, False, marks=pytest.mark.slow)
        for last in (None, "relu", "sigmoid", "tanh")
    ],
)
def test_a_file_ends_as_its_model_does(last, softmax, tmp_path):
    there = agrees(network(tf_keras, last=last), tmp_path / "model.h5")
    assert there.ends_in_softmax() == softmax
    inputs = images((16, 16))
    request = execution.run(there.floats("softmax"), inputs)
    np.testing.assert_allclose(request.sum(axis=1), 1, atol=1e-5)
    logits = execution.run(there.floats("logits"), inputs)
    np.testing.assert_allclose(logits, answers(there, inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("version", "suffix"),
    [("keras2", "h5"), pytest.param("keras3", "keras", marks=pytest.mark.slow)],
)
def test_mixed_precision_is_computed_in_float32(version, suffix, tmp_path):
    library = LIBRARIES[version]
    library.mixed_precision.set_global_policy("mixed_float16")
    try:
        layers = library.layers
        library.utils.set_random_seed(0)
        model = library.Sequential(
            [
                layers.Input((16, 16, 3)),
                layers.Conv2D(8, 3, strides=2),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.DepthwiseConv2D(3),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3),
                layers.Activation("softmax", dtype="float32"),
            ]
        )
    finally:
        library.mixed_precision.set_global_policy("float32")
    there = agrees(model, tmp_path / f"model.{suffix}", tolerance=2e-3)
    kinds = {t.dtype for t in _tensors(there.floats("model"))}
    assert "float16" not in kinds and "float32" in kinds
    assert b"CAST" not in there.floats("model")


def _tensors(content):
    from mobiledeploy.core.plugins import FORMATS

    facts = FORMATS.load("tflite").inspect(content)
    return [t for layer in facts.layers for t in (*layer.inputs, *layer.outputs)]


def test_a_mixed_precision_saved_model_is_computed_in_float32(tmp_path):
    kernel = tf.Variable(tf.random.stateless_normal((3, 3, 3, 4), [0, 1]))

    class Half(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, "image")])
        def __call__(self, image):
            half = tf.nn.conv2d(tf.cast(image, tf.float16), tf.cast(kernel, tf.float16), 2, "SAME")
            return {"scores": tf.cast(tf.reduce_mean(half, [1, 2]), tf.float32)}

    module = Half()
    module.kernel = kernel
    tf.saved_model.save(module, str(tmp_path / "half"), signatures=module.__call__)
    there = opened(tmp_path / "half")
    inputs = images((16, 16))
    expected = tf.reduce_mean(tf.nn.conv2d(inputs, kernel, 2, "SAME"), [1, 2]).numpy()
    np.testing.assert_allclose(execution.run(there.floats("model"), inputs), expected, atol=1e-5)
    np.testing.assert_allclose(answers(there, inputs), expected, atol=1e-5)


def of_several(library):
    """A photo, a gray image of uint8, numbers and channels first in; a row and a map out."""
    layers = library.layers
    photo = layers.Input((16, 12, 3), name="photo")
    gray = layers.Input((8, 8, 1), name="gray", dtype="uint8")
    facts = layers.Input((5,), name="facts")
    first = layers.Input((3, 10, 14), name="first")
    x = layers.Conv2D(4, 3, activation="relu")(photo)
    rows = [
        layers.GlobalAveragePooling2D()(x),
        layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(layers.Rescaling(1 / 255)(gray))),
        layers.Dense(4)(facts),
        layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(layers.Permute((2, 3, 1))(first))),
    ]
    classes = layers.Dense(3, activation="softmax", name="classes")(layers.Concatenate()(rows))
    pixels = layers.Conv2D(2, 1, activation="sigmoid", name="a_map")(x)
    return library.Model([photo, gray, facts, first], [classes, pixels])


@pytest.mark.parametrize("suffix", slow_but(["keras2.h5", "keras3.keras", "saved"], "keras3.keras"))
def test_several_inputs_and_outputs(suffix, tmp_path):
    library = keras if suffix.startswith("keras3") else tf_keras
    library.utils.set_random_seed(0)
    model, path = of_several(library), tmp_path / suffix
    model.save(path, save_format="tf") if suffix == "saved" else model.save(path)
    there = opened(path)
    random = np.random.default_rng(0)
    arrays = {
        "photo": random.random((2, 16, 12, 3), np.float32),
        "gray": random.integers(0, 256, (2, 8, 8, 1)).astype(np.uint8),
        "facts": random.random((2, 5), np.float32),
        # The model takes it with its channels first, the file with its channels last.
        "first": random.random((2, 10, 14, 3), np.float32),
    }
    ends = {end.name: end for end in there.inputs}
    assert {name: end.shape for name, end in ends.items()} == {
        name: array.shape[1:] for name, array in arrays.items()
    }
    assert [ends[name].kind for name in arrays] == ["image", "image", "tensor", "image"]
    own = [arrays["photo"], arrays["gray"], arrays["facts"], arrays["first"].transpose(0, 3, 1, 2)]
    expected = {x.shape: x for x in map(np.asarray, model(own, training=False))}
    samples = Batch(tuple(arrays[end.name].astype(np.float32) for end in there.inputs))
    content = there.floats("model")
    for answer in (*there.answers(samples), *execution.answers(content, samples)):
        np.testing.assert_allclose(answer, expected[answer.shape], atol=1e-5)
    graph = Graph(content)
    assert [graph.shape(i)[1:] for i in graph.inputs] == [end.shape for end in there.inputs]
    assert {graph.type_name(i) for i in (*graph.inputs, *graph.outputs)} == {"float32"}
    signature = ends_.signature(graph, there.inputs, there.output_names)
    activations = {end.name: end.activation for end in signature.outputs}
    assert sorted(activations.values()) == ["sigmoid", "softmax"]
    if suffix != "saved":
        assert activations == {"classes": "softmax", "a_map": "sigmoid"}


@pytest.mark.parametrize("shape", slow_but([(12,), (6, 4), (8, 8, 3)], (12,), (8, 8, 3)))
def test_a_file_shows_whether_its_model_takes_images(shape, tmp_path):
    for version, library in LIBRARIES.items():
        layers = library.layers
        last = layers.Dense(3, activation="softmax")
        row = library.Sequential([layers.Input(shape), layers.Flatten(), last])
        end = layers.Input(shape)
        named = library.Model(end, row(end))
        for name, model in (("row", row), ("named", named)):
            for suffix in ("h5", "keras"):
                path = tmp_path / f"{version}_{name}.{suffix}"
                model.save(path)
                assert model_files.detect(path).images == (len(shape) == 3), path
    tf.saved_model.save(row, str(tmp_path / "saved"))
    assert model_files.detect(tmp_path / "saved").images == (len(shape) == 3)
    (tmp_path / "float.tflite").write_bytes(opened(tmp_path / "saved").floats("model"))
    assert model_files.detect(tmp_path / "float.tflite").images == (len(shape) == 3)


@pytest.mark.parametrize("version", LIBRARIES)
def test_outputs_of_a_dictionary_have_its_keys(version, tmp_path):
    library = LIBRARIES[version]
    layers = library.layers
    library.utils.set_random_seed(0)
    photo, facts = layers.Input((8, 8, 3), name="z_photo"), layers.Input((4,), name="a_facts")
    both = layers.Concatenate()([layers.GlobalAveragePooling2D()(photo), facts])
    ends = {"z_kind": layers.Dense(3, name="first")(both), "a_size": layers.Dense(2)(both)}
    model = library.Model({"z_photo": photo, "a_facts": facts}, ends)
    path = tmp_path / "model.keras"
    model.save(path)
    there = opened(path)
    arrays = {"z_photo": images((8, 8)), "a_facts": np.float32([[1, 2, 3, 4], [4, 3, 2, 1]])}
    samples = Batch(tuple(arrays[end.name] for end in there.inputs))
    answers_ = execution.answers(there.floats("model"), samples)
    expected = model(arrays, training=False)
    for name, answer in zip(there.output_names, answers_, strict=True):
        np.testing.assert_allclose(answer, expected[name], atol=1e-5)


def test_every_recipe_takes_several_inputs_and_outputs(tmp_path):
    tf_keras.utils.set_random_seed(0)
    path = tmp_path / "model.h5"
    of_several(tf_keras).save(path)
    there = opened(path)
    content = there.floats("model")
    random = np.random.default_rng(0)
    samples = Batch(tuple(random.random((12, *end.shape), np.float32) for end in there.inputs))
    exact = execution.answers(content, samples)
    for name in RECIPES.names():
        if RECIPES.load(name).RECIPE.training:
            continue
        file = press_floats(content, name, "tflite", samples)
        for one, other in zip(exact, execution.answers(file, samples), strict=True):
            error = np.square(one - other).mean() / np.square(one - one.mean()).mean()
            assert error < (0.05 if "x4" in name else 0.01), name


def test_an_output_is_kept_in_float_by_its_name(tmp_path):
    """TFLite names the last operators after its own signature, not after their layers."""
    path = tmp_path / "model.h5"
    of_several(tf_keras).save(path)
    there = opened(path)
    content = there.floats("model")
    samples = Batch(tuple(np.ones((10, *end.shape), np.float32) for end in there.inputs))
    names = there.output_names
    recipe = RECIPES.load("int8_ptq").RECIPE
    # The name of an output need not be that of a layer.
    names = [f"the {name}" for name in names]
    with pytest.raises(UsageError, match="no layer named 'the a_map'"):
        quantized.start(content, recipe, "int8", samples, ["the a_map"])
    kept = quantized.start(content, recipe, "int8", samples, ["the a_map"], names)
    graph = Graph(quantized.finish(kept))
    makers = {int(index): graph.kind(op) for op in graph.ops for index in op.outputs}
    last = {name: makers[index] for name, index in zip(names, graph.outputs, strict=True)}
    assert last == {"the classes": "SOFTMAX", "the a_map": "QUANTIZE"}


def test_an_output_that_an_operator_reads_too_has_codes(tmp_path):
    """As in a signature of scores and the best label, which is computed from them in float."""
    image = tf_keras.layers.Input((16, 16, 3))
    inner = tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(image))

    class Served(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, "image")])
        def __call__(self, image):
            scores = tf.nn.softmax(inner(image) * 20.0)
            return {"scores": scores, "label": tf.argmax(scores, -1)}

    tf.saved_model.save(Served(), str(tmp_path / "served"), signatures=Served().__call__)
    there = opened(tmp_path / "served")
    content, samples = there.floats("model"), Batch((images((16, 16)),))
    file = press_floats(content, "int8_ptq", "tflite", samples)
    graph = Graph(file)
    assert sorted(graph.type_name(index) for index in graph.outputs) == ["int64", "int8"]
    exact, codes = execution.answers(content, samples), execution.answers(file, samples)
    for one, other in zip(exact, codes, strict=True):
        np.testing.assert_allclose(one, other, atol=0.1)


def test_a_layer_that_is_used_twice(tmp_path):
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((16, 16, 3))
    common = layers.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    x = layers.GlobalAveragePooling2D()(common(common(image)))
    agrees(tf_keras.Model(image, layers.Dense(3)(x)), tmp_path / "model.h5")


@pytest.mark.parametrize("version", LIBRARIES)
def test_preprocessing_and_augmentation_inside(version, tmp_path):
    """As in the guide to transfer learning: augmented, scaled, with the base as a layer."""
    library = LIBRARIES[version]
    layers = library.layers
    library.utils.set_random_seed(0)
    image = layers.Input((32, 32, 3))
    x = library.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])(image)
    x = library.applications.mobilenet_v2.preprocess_input(x)
    inner = library.Sequential([layers.Input((32, 32, 3)), layers.Conv2D(8, 3, strides=2)])
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(inner(x, training=False)))
    agrees(library.Model(image, layers.Dense(3)(x)), tmp_path / "model.keras", scale=255.0)


def recurrent(library, kind, steps=3):
    """The columns of an image, read by a recurrent layer."""
    library.utils.set_random_seed(0)
    layers = library.layers
    inner = layers.LSTM(6) if kind == "Bidirectional" else getattr(layers, kind)(6)
    return library.Sequential(
        [
            layers.Input((16, 2 * steps + 2, 3)),
            layers.Conv2D(4, 3, strides=2),
            layers.Permute((2, 1, 3)),
            layers.Reshape((steps, 28)),
            layers.Bidirectional(inner) if kind == "Bidirectional" else inner,
            layers.Dense(3, activation="softmax"),
        ]
    )


RECURRENT = [
    (version, kind)
    for version in LIBRARIES
    for kind in ("LSTM", "GRU", "SimpleRNN", "Bidirectional")
]


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        pytest.param(*case, marks=[] if case == ("keras2", "SimpleRNN") else pytest.mark.slow)
        for case in RECURRENT
    ],
)
def test_a_recurrent_tail_has_no_loop(version, kind, tmp_path):
    """Its first step reads one part less of each split: there is no state to forget yet."""
    model = recurrent(LIBRARIES[version], kind)
    there = agrees(model, tmp_path / "model.keras")
    floats, inputs = there.floats("model"), images(there.inputs[0].shape[:2])
    assert not {"WHILE", "CALL_ONCE"} & set(operators(floats))
    exact = execution.run(floats, inputs)
    integer_file = press_floats(floats, "int8_ptq", "tflite", inputs)
    assert abs(execution.run(integer_file, inputs) - exact).max() < 0.05
    for recipe in ("float32", "int8_ptq"):
        (answers_,) = onnx_answers(press_floats(floats, recipe, "onnx", inputs, io="float"), inputs)
        np.testing.assert_allclose(answers_, exact, atol=1e-5 if recipe == "float32" else 0.05)


def operators(content):
    graph = Graph(content)
    return [graph.kind(op) for op in graph.ops]


def onnx_answers(content, *inputs):
    """The outputs of an ONNX file for N samples, given channels last, one after another."""
    session = onnxruntime.InferenceSession(content)
    rows = []
    for sample in zip(*inputs, strict=True):
        feed = {}
        for end, values in zip(session.get_inputs(), sample, strict=True):
            first = values.transpose(2, 0, 1) if values.ndim == 3 else values
            feed[end.name] = first[None].astype(np.float32)
        rows.append([np.asarray(answer)[0] for answer in session.run(None, feed)])
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.slow
def test_a_longer_recurrent_tail_keeps_its_loop(tmp_path):
    model = recurrent(tf_keras, "LSTM", MOST_STEPS + 1)
    there = agrees(model, tmp_path / "model.keras")
    floats, inputs = there.floats("model"), images(there.inputs[0].shape[:2])
    assert "WHILE" in operators(floats)
    with pytest.raises(InputError, match="loop.*--recipe float32,float16 --format tflite"):
        press_floats(floats, "int8_ptq", "tflite", inputs)
    half = press_floats(floats, "float16", "tflite", inputs)
    np.testing.assert_allclose(execution.run(half, inputs), model(inputs), atol=2e-3)


def test_constants_that_keras_3_captures(tmp_path):
    """Keras 3 keeps the mean of a Normalization as a tensor, which is no input of the graph."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = layers.Input((16, 16, 3))
    x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(x))
    agrees(keras.Model(image, layers.Dense(3)(x)), tmp_path / "model.keras")


def test_a_unit_vector_is_returned_unchanged(tmp_path):
    layers = tf_keras.layers
    image = layers.Input((16, 16, 3))
    x = layers.Dense(8)(layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(image)))
    there = agrees(tf_keras.Model(image, layers.UnitNormalization()(x)), tmp_path / "model.h5")
    rows = execution.run(there.floats("model"), images((16, 16)))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", slow_but(["quantized", "pruned", "clustered"], "pruned"))
def test_models_of_the_optimization_toolkit_become_plain(kind, tmp_path):
    import tensorflow_model_optimization as tfmot

    layers = tf_keras.layers
    model = network(
        tf_keras,
        layers.ReLU(),
        layers.DepthwiseConv2D(3),
        layers.BatchNormalization(),
        layers.ReLU(6.0),
    )
    if kind == "quantized":
        wrapped_model = tfmot.quantization.keras.quantize_model(model)
        # Ranges of the activations, and weights that are no longer those of the plain model.
        wrapped_model.compile("sgd", "sparse_categorical_crossentropy")
        wrapped_model.fit(images((16, 16)), np.array([0, 1]), epochs=40, verbose=0)
        tolerance = 0.05
    elif kind == "pruned":
        sparsity = tfmot.sparsity.keras
        wrapped_model = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.5, 0))
        tolerance = TOLERANCE
    else:
        clustering = tfmot.clustering.keras
        wrapped_model = clustering.cluster_weights(
            model, 4, clustering.CentroidInitialization.LINEAR
        )
        tolerance = TOLERANCE
    wrapped_model.save(tmp_path / "model.h5")
    there = agrees(wrapped_model, tmp_path / "model.h5", tolerance=tolerance)
    names = {type(layer).__name__ for layer in there.network.handle.layers}
    assert not {name for name in names if "Quantize" in name or "Prune" in name or "Clust" in name}
    kinds = {layer for layer in names if layer != "Activation"}
    assert {"Conv2D", "DepthwiseConv2D", "ReLU", "Dense"} <= kinds


CUSTOM = """
import {library} as keras


@keras.saving.register_keras_serializable("mine")
class Scaled(keras.layers.Layer):
    def __init__(self, by=2.0, how="mul", **more):
        super().__init__(**more)
        self.by, self.how = by, how

    def call(self, x):
        return x * self.by if self.how == "mul" else x

    def get_config(self):
        return super().get_config() | {{"by": self.by, "how": self.how}}


@keras.saving.register_keras_serializable("mine")
def softer(x):
    return x / (1 + abs(x))
"""


@pytest.fixture(scope="module", params=LIBRARIES)
def custom(request, tmp_path_factory):
    """(library, the file of the layer, the module) of somebody's own layer and activation."""
    library = LIBRARIES[request.param]
    path = tmp_path_factory.mktemp("custom") / f"own_{request.param}.py"
    path.write_text(CUSTOM.format(library=library.__name__))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return library, path, module


@pytest.mark.parametrize("suffix", slow_but(["h5", "keras"], "keras"))
def test_layers_of_the_users_own(custom, suffix, tmp_path):
    library, file, module = custom
    layers = library.layers
    model = network(library, module.Scaled(3.0), layers.Activation(module.softer))
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    with pytest.raises(InputError, match="class .*Scaled.*--custom-objects FILE.py"):
        opened(path)
    agrees(model, path, custom_objects=str(file))


def test_a_file_of_custom_objects_allows_no_other_names(custom, model_files, tmp_path):
    library, file, module = custom
    path = tmp_path / "model.h5"
    network(library, module.Scaled(3.0)).save(path)
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="Scaled.*does not register it"):
        opened(path, custom_objects=str(tmp_path / "empty.py"))
    (tmp_path / "bad.py").write_text("import a_module_that_is_not_there\n")
    with pytest.raises(InputError, match=r"bad\.py cannot be run: ModuleNotFoundError"):
        opened(path, custom_objects=str(tmp_path / "bad.py"))
    name = "k2_lambda.h5" if library is tf_keras else "k3_lambda.keras"
    with pytest.raises(InputError, match="Lambda.*does not register it"):
        opened(model_files / name, custom_objects=str(file))


def test_active_dropout_is_reported(tmp_path):
    """In Keras 2; Keras 3 turns it off where the whole model is called for inference."""
    layers = tf_keras.layers
    image = layers.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 3)(image))
    x = layers.Dropout(0.5)(x, training=True)
    path = tmp_path / "model.keras"
    tf_keras.Model(image, layers.Dense(3)(x)).save(path)
    there = opened(path)
    with pytest.raises(InputError, match="different answers to the same image.*Dropout"):
        answers(there, images((16, 16)))


def test_a_saved_model_keeps_its_weights(tmp_path):
    """`from_saved_model` left them out silently for a folder of tf.saved_model.save of Keras 3."""
    model = network(keras, keras.layers.Conv2D(256, 3, activation="relu"))
    tf.saved_model.save(model, str(tmp_path / "saved"))
    there = opened(tmp_path / "saved")
    floats = there.floats("model")
    assert len(floats) > 4 * sum(np.prod(w.shape) for w in model.trainable_weights)
    inputs = images((16, 16))
    expected = np.asarray(model(inputs, training=False))
    np.testing.assert_allclose(execution.run(floats, inputs), expected, atol=1e-6)
    assert there.ends_in_softmax()
