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


def function(name, module="builtins"):
    entry = {"class_name": "function", "config": name, "module": module, "registered_name": name}
    return layer("Dense", activation=entry)


@pytest.mark.parametrize(
    "config",
    [
        layer("Conv2D", kernel_initializer=layer("GlorotUniform", "keras.initializers")),
        layer("Functional", "tf_keras.src.engine.functional", "Functional"),
        layer("Functional", "keras.src.models.functional", "Functional"),
        layer("Add", "keras.src.ops.numpy", "Add"),
        layer("TFOpLambda", function="math.multiply"),
        layer("TFOpLambda", function="compat.v1.nn.relu"),
        layer("TFOpLambda", function="clip_by_value"),
        layer("SlicingOpLambda", function="__operators__.getitem"),
        layer("StringLookup", vocabulary=["a", "b"]),
        {"class_name": "Dense", "config": {"activation": "relu"}},
        layer("HardSwish", "mobiledeploy.frameworks.hard_activations", "mobiledeploy>HardSwish"),
        {"class_name": "mobiledeploy>GroupedConv2D", "config": {}},
        function("relu"),
        function("softmax", "keras.activations"),
    ],
)
def test_what_keras_itself_writes_is_known(config):
    assert untrusted.keras_code({"layers": [config]}) == ()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (layer("Lambda", name="x"), "Lambda layer 'x'"),
        (layer("Dense", activation={"class_name": "__lambda__", "config": {}}), "lambda"),
        (layer("Popen", "subprocess"), "custom class Popen"),
        (layer("Swish", "builtins", "mine>Swish"), "mine>Swish"),
        (layer("get_file", "keras.utils"), "custom class"),
        (layer("Evil", "evil", "keras>Evil"), "keras>Evil of module evil"),
        (layer("Evil", "evil", "Evil"), "Evil of module evil"),
        (layer("utils.Progbar", "keras"), "custom class utils.Progbar"),
        (layer("x>Relu", "keras.layers"), "custom class x>Relu"),
        (layer("mobiledeploy>Popen", "mobiledeploy.frameworks.hard_activations"), "Popen"),
        (layer("HardSwish", "subprocess", "mobiledeploy>HardSwish"), "HardSwish of module subp"),
        (layer("HardSwish", "mobiledeploy.frameworks.hard_activations", "x>HardSwish"), "x>Hard"),
        (function("utils.get_file", "keras"), "utils.get_file"),
        (function("eval"), "eval"),
        (function("exec", None), "exec"),
        (function("get_file", "keras.utils"), "get_file"),
        (function("system", "os"), "system"),
        (layer("TFOpLambda", function="io.write_file"), "tf.io.write_file"),
        (layer("TFOpLambda", function="load_op_library"), "tf.load_op_library"),
        (layer("TFOpLambda", function="py_function"), "tf.py_function"),
        (layer("TFOpLambda", function="compat.v1.load_library"), "load_library"),
        (layer("TFOpLambda", function=["math"]), "call of"),
        (layer("ClassMethod", cls_symbol="io.gfile.GFile"), "class method"),
        (layer("TorchModuleWrapper"), "PyTorch"),
        (layer("TFSMLayer", filepath="x"), "SavedModel"),
        (layer("TextVectorization", vocabulary="/etc/passwd"), "reads the file /etc/passwd"),
    ],
)
def test_what_would_run_is_named_at_any_depth(config, said):
    (found,) = untrusted.keras_code({"a": [{"b": layer("Sequential", layers=[config])}]})
    assert said in found


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (layer("layers.Lambda", "keras", name="x"), "Lambda layer 'x'"),
        (layer("Nope", "keras.layers", "Lambda", name="x"), "Lambda layer 'x'"),
        (layer("layers.TFOpLambda", "keras", function="io.write_file"), "tf.io.write_file"),
        (layer("Nope", "keras.layers", "SlicingOpLambda", function="load_op"), "tf.load_op"),
        (layer("layers.StringLookup", "keras", vocabulary="/etc/passwd"), "/etc/passwd"),
    ],
)
def test_a_name_that_leads_on_hides_nothing(config, said):
    assert any(said in found for found in untrusted.keras_code({"layers": [config]}))


@given(JSON)
def test_any_json_can_be_searched(value):
    untrusted.keras_code(untrusted.parse_json(json.dumps(value), "it"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", b"\xff", ""])
def test_json_that_cannot_be_is_one_line(text):
    with pytest.raises(InputError, match=r"^it ") as caught:
        untrusted.parse_json(text, "it")
    assert "\n" not in str(caught.value)
