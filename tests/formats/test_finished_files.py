"""Properties of finished files in both formats, checked on files from the real converters."""

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnxruntime import InferenceSession

from mobiledeploy.analysis import cost
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS, RECIPES

RNG = np.random.default_rng(0)
# Of a shallow v1 0.25 at 64 with 12 classes: filters and side of the pointwise convolutions.
WIDTHS = (8, 16, 32, 32, 64, 64, 128, 256, 256)
SIDES = (32, 32, 16, 16, 8, 8, 4, 2, 2)
BLOCKS = tuple(zip(WIDTHS, WIDTHS[1:], SIDES[1:], strict=False))
MULT_ADDS = (
    32 * 32 * 27 * 8 + sum(side * side * (9 * a + a * b) for a, b, side in BLOCKS) + 256 * 12
)
# int8 ONNX computes two columns of the first convolution at once, in windows of 3 x 15 numbers.
WIDE_MULT_ADDS = 32 * 16 * 45 * 16 - 32 * 32 * 27 * 8
WIDE_KERNELS, WIDE_BIASES = 45 * 16 - 27 * 8, 8
KERNELS = 27 * 8 + sum(9 * a + a * b for a, b, _ in BLOCKS) + 256 * 12
BIASES = 8 + sum(a + b for a, b, _ in BLOCKS) + 12


def run(format_, data, image):
    if format_ == "onnx":
        session = InferenceSession(data)
        return session.run(None, {session.get_inputs()[0].name: image})[0]
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def an_image(facts):
    tensor = facts.inputs[0]
    if tensor.dtype == "int8":
        return RNG.integers(-128, 128, tensor.shape, np.int8)
    return RNG.uniform(-1, 1, tensor.shape).astype(np.float32)


def halved_tflite(data):
    """A copy with every second value of its largest kernel set to zero, and their share of all."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    kernels = [
        (np.prod(t.shape), t)
        for t in model.subgraphs[0].tensors
        if t.shape is not None and len(t.shape) >= 2 and model.buffers[t.buffer].data is not None
    ]
    size, largest = max(kernels, key=lambda kernel: kernel[0])
    buffer = model.buffers[largest.buffer]
    numbers = np.array(buffer.data, np.uint8).reshape(int(size), -1)
    numbers[::2] = 0
    buffer.data = numbers.ravel()
    builder = flatbuffers.Builder(len(data) + 2**16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output()), size / 2 / sum(size for size, _ in kernels)


def halved_onnx(data):
    model = onnx.load_model_from_string(data)
    kernels = [t for t in model.graph.initializer if len(t.dims) >= 2]
    largest = max(kernels, key=lambda t: np.prod(t.dims))
    numbers = onnx.numpy_helper.to_array(largest).copy()
    numbers.ravel()[::2] = 0
    largest.CopyFrom(onnx.numpy_helper.from_array(numbers, largest.name))
    share = numbers.size / 2 / sum(np.prod(t.dims) for t in kernels)
    return model.SerializeToString(), share


HALVERS = {"tflite": halved_tflite, "onnx": halved_onnx}


@pytest.fixture(params=["float32", "int8_ptq"])
def recipe(request):
    return request.param


@pytest.fixture(params=FORMATS.names())
def case(request, recipe, converted):
    """(format, its shelf, the file) of a shallow v1 0.25 at 64 with random weights."""
    return request.param, FORMATS.load(request.param), converted[recipe, request.param]


def test_tensors_are_named_and_shaped(case, recipe):
    format_, shelf, data = case
    facts = shelf.inspect(data)
    (image,), (scores,) = facts.inputs, facts.outputs
    assert (image.name, scores.name) == ("image", "scores")
    assert image.shape == {"NHWC": (1, 64, 64, 3), "NCHW": (1, 3, 64, 64)}[facts.layout]
    assert facts.layout == {"tflite": "NHWC", "onnx": "NCHW"}[format_]
    assert scores.shape == (1, 12)
    dtype = "int8" if recipe == "int8_ptq" else "float32"
    assert image.dtype == scores.dtype == dtype
    if dtype == "int8":
        # Pixels in [-1, 1] fill the codes: one step is 2/255.
        assert image.scale[0] == pytest.approx(2 / 255, rel=1e-3)
        assert image.zero_point[0] in (-1, 0)
        assert scores.scale[0] == pytest.approx(1 / 256, rel=0.01)


def test_layers_are_the_network(case, recipe):
    format_, shelf, data = case
    ops = [layer.op for layer in shelf.inspect(data).layers]
    convolutions = {"tflite": ("CONV_2D", "DEPTHWISE_CONV_2D"), "onnx": ("Conv",)}[format_]
    assert sum(op in convolutions for op in ops) == 18
    assert not {"PAD", "PADV2", "Pad", "TRANSPOSE", "BatchNormalization"} & set(ops)
    assert ops.count("Transpose") == (3 if wide_file(recipe, format_) else 0)


def wide_file(recipe, format_):
    return format_ == "onnx" and RECIPES.load(recipe).RECIPE.full_integer


def test_float_layers_are_found(case, recipe):
    _, shelf, data = case
    operators = shelf.float_layers(shelf.inspect(data))
    assert (operators == ()) == (recipe == "int8_ptq")


@pytest.mark.parametrize("format_", FORMATS.names())
def test_weights_are_per_channel(format_, converted):
    shelf, data = FORMATS.load(format_), converted["int8_ptq", format_]
    tensors = {
        t.name: t for layer in shelf.inspect(data).layers for t in layer.inputs if len(t.shape) == 4
    }
    weights = [t for t in tensors.values() if t.dtype == "int8" and t.axis is not None]
    assert len(weights) == 18
    for tensor in weights:
        depthwise = format_ == "tflite" and tensor.shape[0] == 1 and tensor.axis == 3
        assert depthwise or tensor.axis == 0
        assert len(tensor.scale) == tensor.shape[tensor.axis]
        assert set(tensor.zero_point) == {0}


def test_weights_are_constant_and_activations_are_not(case, recipe):
    format_, shelf, data = case
    layers = shelf.inspect(data).layers
    convolutions = [x for x in layers if x.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "Conv")]
    assert len(convolutions) == 18
    for layer in convolutions:
        assert [tensor.constant for tensor in layer.inputs[:2]] == [False, True]
        assert all(tensor.constant for tensor in layer.inputs[2:])
        assert not layer.outputs[0].constant
    more = WIDE_MULT_ADDS if wide_file(recipe, format_) else 0
    assert cost.cost(layers).mult_adds == MULT_ADDS + more
    assert cost.cost(layers).uncounted == ()


@pytest.mark.parametrize(
    ("recipe", "format_"),
    [
        pytest.param(name, format_, marks=[pytest.mark.slow] * bool(module.RECIPE.training))
        for name, module in RECIPES.each()
        for format_ in module.RECIPE.formats
    ],
)
def test_every_recipe_costs_the_mult_adds_of_the_network(recipe, format_, converted):
    costs = cost.cost(FORMATS.load(format_).inspect(converted[recipe, format_]).layers)
    wide = wide_file(recipe, format_)
    assert costs.mult_adds == MULT_ADDS + wide * WIDE_MULT_ADDS
    # Normalisation is folded into kernels and biases. These biases are all zero: a converter
    # stores equal ones once, or leaves them out.
    kernels, biases = KERNELS + wide * WIDE_KERNELS, BIASES + wide * WIDE_BIASES
    assert kernels <= costs.params <= kernels + biases
    kinds = {share.kind: share.layers for share in costs.shares}
    first = "Conv 3x15" if wide else "Conv 3x3"
    assert kinds == {"Conv 1x1": 8, "Conv DW 3x3": 8, first: 1, "Fully Connected": 1}


def test_sparsity_is_the_share_of_zeros_among_weights(case, recipe):
    format_, shelf, data = case
    assert shelf.sparsity(data) < (0.05 if recipe == "int8_ptq" else 1e-3)
    content, share = HALVERS[format_](data)
    assert shelf.sparsity(content) == pytest.approx(share, abs=0.02)


def test_an_exposed_tensor_gives_the_logits_before_the_softmax(case, recipe):
    format_, shelf, data = case
    facts = shelf.inspect(data)
    probe_content = shelf.expose_tensor(data, facts.logits)
    (tensor,) = shelf.inspect(probe_content).outputs
    assert tensor.name == facts.logits != "scores"
    image = an_image(facts)
    scores, logits = run(format_, data, image), run(format_, probe_content, image)
    if recipe == "float32":
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    else:
        # An int8 softmax rounds near scores to one value: the best logit is among the best.
        assert scores.ravel()[logits.argmax()] == scores.max()


def test_an_unknown_tensor_is_refused(case):
    _, shelf, data = case
    with pytest.raises(InputError, match="no tensor named nowhere"):
        shelf.expose_tensor(data, "nowhere")


def test_sealing_twice_changes_nothing_more(case):
    _, shelf, data = case
    assert shelf.inspect(shelf.seal(data, ["image"], ["scores"])) == shelf.inspect(data)


@pytest.mark.parametrize("keep", [0, 7, 100, 0.3, 0.9])
def test_truncated_files_are_refused(case, keep):
    format_, shelf, data = case
    length = keep if isinstance(keep, int) else int(len(data) * keep)
    try:
        facts = shelf.inspect(data[:length])
    except InputError:
        return
    # TFLite stores its weights first: a file that is truncated late may still list all its layers.
    assert format_ == "tflite"
    assert len(facts.layers) == 31


@pytest.mark.parametrize("format_", FORMATS.names())
@pytest.mark.parametrize("data", [b"", b"not a model at all, but long enough", bytes(4096)])
def test_other_files_are_refused(format_, data):
    with pytest.raises(InputError):
        FORMATS.load(format_).inspect(data)


def test_tflite_weights_are_aligned(converted):
    """XNNPACK reads weights in place: the schema asks for 16 bytes."""
    data = converted["float32", "tflite"]
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    model = schema.Model.GetRootAs(data, 0)
    starts = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            vector = buffer._tab.Vector(buffer._tab.Offset(4))
            starts.append(vector % 16)
    assert len(starts) >= 28
    assert set(starts) == {0}


def test_the_signature_is_named(converted):
    interpreter = Interpreter(model_content=converted["int8_ptq", "tflite"])
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["scores"]}
    }


def run_part(format_, data, tensors):
    """The outputs of a subgraph, in its order, for tensors by name."""
    shelf = FORMATS.load(format_)
    facts = shelf.inspect(data)
    inputs = [tensors[tensor.name] for tensor in facts.inputs]
    if format_ == "onnx":
        return InferenceSession(data).run(
            None, {t.name: value for t, value in zip(facts.inputs, inputs, strict=True)}
        )
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_subgraph_gives_inner_tensors(recipe, format_, converted):
    data = converted[recipe, format_]
    shelf = FORMATS.load(format_)
    facts = shelf.inspect(data)
    image = an_image(facts)
    names = [tensor.name for tensor in shelf.activations(facts)]
    assert len(names) >= 20
    if recipe == "int8_ptq":
        codes = [t for t in shelf.activations(facts) if t.dtype in ("int8", "uint8")]
        assert len(codes) >= 20
        assert all(len(t.scale) == 1 for t in codes)
        names = [tensor.name for tensor in codes]
    whole = shelf.extract_subgraph(data, [facts.inputs[0].name], names)
    within = run_part(format_, whole, {facts.inputs[0].name: image})
    assert len(within) == len(names)
    # From the middle on, given tensors instead of computed ones lead to the same output.
    middle, last = len(names) // 2, names[-1]
    rest = shelf.extract_subgraph(data, [facts.inputs[0].name, names[middle]], [last])
    assert [t.name for t in shelf.inspect(rest).inputs] == [names[middle]]
    assert len(rest) < len(whole)
    (end,) = run_part(format_, rest, {names[middle]: within[middle]})
    np.testing.assert_allclose(end, within[-1], atol=1e-5)
    # Separate operators; each gets the output of the one before it.
    apart = shelf.extract_subgraph(data, [facts.inputs[0].name, *names], names)
    tensors = {facts.inputs[0].name: image} | dict(zip(names, within, strict=True))
    for one, other in zip(run_part(format_, apart, tensors), within, strict=True):
        np.testing.assert_allclose(one.astype(float), other, atol=1e-4)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_subgraph_of_absent_tensors_is_refused(format_, converted):
    data = converted["float32", format_]
    with pytest.raises(InputError, match="no tensor named nothing"):
        FORMATS.load(format_).extract_subgraph(data, ["image"], ["nothing"])
