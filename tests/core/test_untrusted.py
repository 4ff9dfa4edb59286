import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import untrusted
from mobiledeploy.core.errors import InputError

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def layer(class_name, module="keras.layers", registered_name=None, **config):
    return {
        "class_name": class_name,
        "module": module,
        "registered_name": registered_name,
        "config": config,
    }


def model(*layers):
    return {"a": [{"b": layer("Sequential", "keras", layers=list(layers))}]}


def activation(name, module="builtins", **more):
    entry = {"class_name": "function", "config": name, "module": module, "registered_name": name}
    return layer("Dense", activation=entry | more)


OP_LAYER = "tf_keras.src.layers.core.tf_op_layer"
TFMOT = "tensorflow_model_optimization.python.core"


@pytest.mark.parametrize(
    "config",
    [
        layer("Conv2D", kernel_initializer=layer("GlorotUniform", "keras.initializers")),
        layer("Conv2D", kernel_initializer="he_normal", bias_regularizer="l2", padding="same"),
        layer("Functional", "tf_keras.src.engine.functional", "Functional"),
        layer("Functional", "keras.src.models.functional", "Functional"),
        layer("Add", "keras.src.ops.numpy", "Add"),
        layer("Slice", "keras.src.ops.core", "Slice"),
        layer("TopK", "keras.src.ops.math", "TopK", k=2),
        layer("Norm", "keras.src.ops.linalg", "Norm", ord="fro"),
        layer("TFOpLambda", OP_LAYER, "TFOpLambda", function="math.multiply"),
        layer("TFOpLambda", None, function="quantization.fake_quant_with_min_max_vars"),
        layer("RandomFlip", mode="horizontal_and_vertical", data_format="channels_last"),
        # Keras 2.1: a list of layers, and an initializer with all its settings.
        {
            "class_name": "Sequential",
            "config": [
                {
                    "class_name": "Conv2D",
                    "config": {
                        "padding": "same",
                        "batch_input_shape": [None, 8, 8, 3],
                        "kernel_initializer": {
                            "class_name": "VarianceScaling",
                            "config": {"mode": "fan_avg", "distribution": "uniform", "scale": 1.0},
                        },
                    },
                }
            ],
        },
        layer("TFOpLambda", None, function="compat.v1.nn.relu"),
        layer("SlicingOpLambda", OP_LAYER, "SlicingOpLambda", function="__operators__.getitem"),
        {"class_name": "Dense", "config": {"activation": "relu"}},
        {"class_name": "Activation", "config": {"activation": "relu6", "name": "any text"}},
        layer("HardSwish", "mobiledeploy.frameworks.hard_activations", "mobiledeploy>HardSwish"),
        {"class_name": "mobiledeploy>GroupedConv2D", "config": {}},
        layer("Dense", dtype=layer("DTypePolicy", "keras", name="mixed_float16")),
        layer("Lambda", "keras.layers")["config"],
        activation("relu"),
        activation("softmax", "keras.activations"),
        activation("swish", registered_name="function"),
        {"build_config": {"input_shape": {"image": [None, 4], "a/b:0": [None, 4]}}},
        {"inbound_nodes": [{"kwargs": {"(any)": "key"}}]},
        {"inbound_nodes": [[["any", 0, 0, {"mode": "REFLECT", "name": "text"}]]]},
        {"inbound_nodes": [{"args": [{"class_name": "__slice__", "config": {"start": 1}}]}]},
        layer(
            "QuantizeWrapperV2",
            f"{TFMOT}.quantization.keras.quantize_wrapper",
            quantize_config={"class_name": "NoOpQuantizeConfig", "config": {}},
        ),
    ],
)
def test_everything_that_keras_writes_is_allowed(config):
    assert untrusted.keras_code(model(config)) == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (layer("Lambda", name="x"), "Lambda layer 'x'"),
        (layer("Dense", activation={"class_name": "__lambda__", "config": {}}), "lambda function"),
        (layer("Popen", "subprocess"), "class Popen of module subprocess"),
        (layer("Dense", "subprocess"), "class Dense of module subprocess"),
        (layer("Dense", "keras.src.layers.core.dense"), "class Dense of module keras.src"),
        (layer("Dense", "keras.layers", "mine>Dense"), "class 'mine>Dense'"),
        (layer("Add", "keras.src.ops.numpy", "mobiledeploy>Add"), "class 'mobiledeploy>Add'"),
        (layer("HardSwish", "keras.src.ops.nn"), "class HardSwish"),
        (layer("HardSigmoid", "keras.src.ops.nn", "mobiledeploy>HardSigmoid"), "HardSigmoid"),
        (layer("HardSwish", "subprocess", "mobiledeploy>HardSwish"), "of module subprocess"),
        (layer("mobiledeploy>Popen", "mobiledeploy.frameworks.hard_activations"), "Popen"),
        (layer("utils.Progbar", "keras"), "class 'utils.Progbar'"),
        (layer(["Dense"]), "class"),
        (layer("Dense", ["keras.layers"]), "class Dense"),
        (layer("Dense", "keras.layers", {"a": 1}), "class"),
        ({"class_name": None}, "class None"),
        (layer("__tensor__", "os"), "class __tensor__ of module os"),
        (activation("eval"), "function eval"),
        (activation("relu", "os"), "function relu of module os"),
        (activation("relu", None), "function relu"),
        (activation("relu", registered_name="system"), "function relu"),
        (activation(["relu"]), "function"),
        (layer("Dense", activation="deserialize"), "activation deserialize of Dense"),
        (layer("LSTM", recurrent_activation="backend"), "recurrent_activation backend"),
        (layer("Dense", kernel_initializer="mine"), "kernel_initializer mine"),
        (layer("Dense", kernel_regularizer=["mine"]), "kernel_regularizer mine"),
        (layer("Conv2D", padding="deserialize"), "padding deserialize of Conv2D"),
        (layer("RandomZoom", fill_mode="serialize"), "fill_mode serialize of RandomZoom"),
        (layer("Conv2D", pooling_type="AVG"), "pooling_type AVG of Conv2D"),
        (layer("RNN", cell="LSTMCell"), "cell LSTMCell"),
        (layer("Dense", a={"function_type": "lambda"}), "function_type lambda of Dense"),
        ({"class_name": "ReLU", "config": "relu"}, "config relu"),
        (
            layer("Dense", kernel_attrs=1, weight_attrs={"__dict__": 1}),
            "the key __dict__ in weight",
        ),
        (layer("Dense", activation={"system": None}), "the key system in activation"),
        (
            layer("DTypePolicyMap", "keras", policy_map={"(a+)+": 1}),
            "the key '(a+)+' in policy_map",
        ),
        ({"inbound_nodes": [[["a", 0, 0, {"x": [{"_TYPE": "COMPOSITE"}, "{}"]}]]]}, "key _TYPE"),
        (layer("Dense", **{"a\nb\x1b": 1}), r"the key 'a\nb\x1b' in config"),
        (layer("TFOpLambda", None, function="a\nb"), r"call of tf.'a\nb'"),
        (layer("TFOpLambda", None, function="io.write_file"), "call of tf.io.write_file"),
        (layer("TFOpLambda", None, function="compat.v1.load_library"), "load_library"),
        (layer("TFOpLambda", None, function="nn.fixed_unigram_candidate_sampler"), "unigram"),
        (layer("TFOpLambda", None, function="__operators__.getitem"), "getitem"),
        (layer("TFOpLambda", None, function=["math.add"]), "call of"),
        (layer("TFOpLambda", None), "call of tf.None"),
        ({"class_name": "TFOpLambda", "config": []}, "call of tf.None"),
        (layer("SlicingOpLambda", None, function="math.add"), "call of tf.math.add"),
        ({"inbound_nodes": [[["a", 0, 0, {"x": layer("Lambda")}]]]}, "Lambda layer"),
        ({"inbound_nodes": [[["a", 0, 0, {"x": layer("Dense", activation="m")}]]]}, "activation m"),
    ],
)
def test_what_could_run_is_named_at_any_depth(config, message):
    (problem,) = untrusted.keras_code(model(config))
    assert message in problem


def test_many_problems_are_named_each_once():
    lambdas = [layer("Lambda", name="x"), layer("Lambda", name="y"), layer("Lambda", name="x")]
    assert untrusted.keras_code(model(*lambdas)) == ("Lambda layer 'x'", "Lambda layer 'y'")


def test_settings_for_training_are_removed_at_any_depth():
    inner = layer("Functional", "keras.src.models.functional", "Functional")
    inner["compile_config"] = {"loss": layer("Evil", "evil")}
    whole = model(inner) | {"training_config": {"optimizer": layer("Evil", "evil")}}
    assert len(untrusted.keras_code(whole)) == 1
    assert untrusted.keras_code(untrusted.without_compiling(whole)) == ()
    assert "evil" not in json.dumps(untrusted.without_compiling(whole))


# Classes and functions that run, load or read their argument; the list must not hold them.
NEVER = {
    "AbstractRNNCell",
    "ClassMethod",
    "Cond",
    "DenseFeatures",
    "DeviceWrapper",
    "DropoutWrapper",
    "FlaxLayer",
    "ForiLoop",
    "InstanceMethod",
    "InstanceProperty",
    "IntegerLookup",
    "JaxLayer",
    "Lambda",
    "Layer",
    "Map",
    "ResidualWrapper",
    "Scan",
    "StackedRNNCells",
    "StringLookup",
    "TFSMLayer",
    "TensorFlowOpLayer",
    "TextVectorization",
    "TorchModuleWrapper",
    "VectorizedMap",
    "WhileLoop",
    "Wrapper",
    "__lambda__",
    "__typespec__",
    "CompositeTensor",
    "TypeSpec",
}


def test_no_list_allows_code_that_runs():
    allowed = untrusted._allowed()
    assert not NEVER & (set(allowed.classes) | allowed.values)
    for functions in allowed.calls.values():
        for name in functions:
            words = set(name.replace(".", "_").split("_"))
            assert not words & {
                "io",
                "load",
                "file",
                "py",
                "numpy",
                "function",
                "fn",
                "while",
                "cond",
                "map",
                "scan",
                "print",
                "debugging",
                "train",
                "summary",
                "saved",
                "sampler",
                "decode",
            }, name


@given(JSON)
def test_any_json_can_be_searched(value):
    config = untrusted.parse_json(json.dumps(value), "it")
    untrusted.keras_code(config)
    untrusted.without_compiling(config)


@given(st.text(), st.none() | st.text(), st.none() | st.text())
def test_a_class_is_allowed_only_as_keras_writes_it(class_name, module, registered_name):
    node = {"class_name": class_name, "module": module, "registered_name": registered_name}
    forms = untrusted._allowed().classes.get(class_name, ())
    is_form = any(
        module in (None, *one.modules) and registered_name in (None, class_name, one.registered)
        for one in forms
    )
    # Values of tensors and slices, and functions, have their own rules.
    assert is_form or class_name in untrusted._allowed().calls or untrusted.keras_code(node)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 200 + "]" * 200, '{"a":' * 100_000, "{", b"\xff", ""]
)
def test_invalid_json_is_reported_in_one_line(text):
    with pytest.raises(InputError, match=r"^it ") as excinfo:
        untrusted.parse_json(text, "it")
    assert "\n" not in str(excinfo.value)
