"""Hostile Keras files: tiny, for a framework runs them before it looks for weights."""

from __future__ import annotations

import base64
import io
import json
import marshal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from tests.hostile.files import Hostile


def _no_weights() -> bytes:
    stream = io.BytesIO()
    h5py.File(stream, "w").close()
    return stream.getvalue()


NO_WEIGHTS = _no_weights()
Layers = Callable[[Path], list[dict[str, Any]]]


def layer(class_name: str, module: str | None = "keras.layers", /, **config: Any) -> dict[str, Any]:
    """A layer as .keras files hold it; without a module, as old HDF5 files do."""
    node = {"class_name": class_name, "config": {"name": class_name.lower()} | config}
    return node if module is None else node | {"module": module, "registered_name": None}


def bytecode(canary: Path) -> list[Any]:
    """A function of one argument that leaves the canary, as Keras stores lambdas."""
    source = f"lambda *x, **y: (open({str(canary)!r}, 'w').close(), x[0])[1]"
    code = eval(source).__code__
    return [base64.b64encode(marshal.dumps(code)).decode(), None, None]


def imported(canary: Path) -> str:
    """The name of a module beside the model that leaves the canary when it is imported."""
    name = f"module_of_{canary.parent.name}".replace("-", "_").replace("[", "_").replace("]", "_")
    canary.with_name(f"{name}.py").write_text(
        f"open({str(canary)!r}, 'w').close()\ndef act(x): return x\n"
    )
    return name


def functional(
    layers: list[dict[str, Any]], module: str | None, shape: str = "batch_input_shape"
) -> dict[str, Any]:
    """A chain of `layers` behind an input of 4 x 4 x 3, as Keras 2 writes a functional model."""
    entrance = layer("InputLayer", module, dtype="float32", **{shape: [None, 4, 4, 3]})
    chain, before = [entrance | {"name": "inputlayer", "inbound_nodes": []}], "inputlayer"
    for number, node in enumerate(layers):
        name = node["config"].get("name", f"layer{number}")
        chain.append({"inbound_nodes": [[[before, 0, 0, {}]]]} | node | {"name": name})
        before = name
    config = {
        "name": "m",
        "layers": chain,
        "input_layers": [["inputlayer", 0, 0]],
        "output_layers": [[before, 0, 0]],
    }
    if module is None:
        return {"class_name": "Functional", "config": config}
    where = f"{'keras.src.models' if shape == 'batch_shape' else 'keras.src.engine'}.functional"
    return {
        "class_name": "Functional",
        "config": config,
        "module": where,
        "registered_name": "Functional",
    }


def sequential(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "inner", "layers": layers}}


def h5(layers: Layers, version: str = "2.15.0") -> Callable[[Path, Path], Path]:
    def write(folder: Path, canary: Path) -> Path:
        path = folder / "model.h5"
        with h5py.File(path, "w") as file:
            config = functional(layers(canary), None)
            file.attrs["model_config"] = json.dumps(config)
            file.attrs["keras_version"] = version
            file.attrs["backend"] = "tensorflow"
            weights = file.create_group("model_weights")
            weights.attrs["layer_names"] = []
        return path

    return write


def whole(
    config: Callable[[Path], dict[str, Any]], version: str = "2.15.0"
) -> Callable[[Path, Path], Path]:
    """A .keras file whose model is this object."""

    def write(folder: Path, canary: Path) -> Path:
        path = folder / "model.keras"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("metadata.json", json.dumps({"keras_version": version}))
            file.writestr("config.json", json.dumps(config(canary)))
            file.writestr("model.weights.h5", NO_WEIGHTS)
        return path

    return write


def archive(layers: Layers, version: str = "2.15.0") -> Callable[[Path, Path], Path]:
    shape = "batch_shape" if version.startswith("3") else "batch_input_shape"
    return whole(lambda canary: functional(layers(canary), "keras.layers", shape), version)


def k3(layers: Layers) -> Callable[[Path, Path], Path]:
    return archive(layers, "3.15.1")


def residual(canary: Path, module: str | None = None) -> dict[str, Any]:
    """The wrapper of an RNN cell that brings bytecode of its own."""
    cell = layer("SimpleRNNCell", module, units=12)
    where = None if module is None else "keras.src.layers.rnn.cell_wrappers"
    return layer(
        "ResidualWrapper",
        where,
        cell=cell,
        residual_fn=bytecode(canary),
        residual_fn_type="lambda",
        residual_fn_module="builtins",
    )


def dropout(canary: Path) -> dict[str, Any]:
    return layer(
        "DropoutWrapper",
        None,
        cell=layer("LSTMCell", None, units=12),
        input_keep_prob=0.5,
        dropout_fn=bytecode(canary),
        dropout_fn_type="lambda",
        dropout_fn_module="builtins",
        variational_recurrent=False,
        state_keep_prob=0.5,
        output_keep_prob=1.0,
        seed=None,
    )


FLAT = {"target_shape": [4, 12]}


def recurrent(cell: dict[str, Any], module: str | None = None) -> list[dict[str, Any]]:
    return [layer("Reshape", module, **FLAT), layer("RNN", module, cell=cell)]


def lambda_layer(canary: Path, module: str | None = None, **disguise: Any) -> dict[str, Any]:
    node = layer(
        "Lambda",
        module,
        function=bytecode(canary),
        function_type="lambda",
        module="builtins",
        output_shape=[4, 4, 3],
        output_shape_type="raw",
        arguments={},
    )
    return node | disguise


def keras3_lambda(canary: Path, **disguise: Any) -> dict[str, Any]:
    code, defaults, closure = bytecode(canary)
    function = {
        "class_name": "__lambda__",
        "config": {"code": code, "defaults": defaults, "closure": closure},
    }
    return layer("Lambda", "keras.layers", function=function, arguments={}) | disguise


def debugged(canary: Path) -> dict[str, Any]:
    """A TensorFlow operator by its definition; this one copies its input into a file."""
    import tensorflow as tf

    node = tf.compat.v1.NodeDef(name="d", op="DebugIdentity", input=["x"])
    node.attr["T"].type = tf.float32.as_datatype_enum
    node.attr["tensor_name"].s = b"x:0"
    node.attr["debug_urls"].list.s.append(b"file://" + str(canary).encode())
    return layer("TensorFlowOpLayer", None, node_def=json_of(node), constants={})


def written(canary: Path) -> dict[str, Any]:
    import tensorflow as tf

    node = tf.compat.v1.NodeDef(name="w", op="ReadFile", input=["x"])
    return layer("TensorFlowOpLayer", None, node_def=json_of(node), constants={"0": str(canary)})


def json_of(node: Any) -> Any:
    from google.protobuf import json_format

    return json.loads(json_format.MessageToJson(node))


def called(function: str, **config: Any) -> Layers:
    return lambda canary: [layer("TFOpLambda", None, function=function, **config)]


def activation(value: Callable[[Path], Any]) -> Layers:
    return lambda canary: [layer("Activation", "keras.layers", activation=value(canary))]


def named_function(name: str, module: str | None) -> dict[str, Any]:
    return {"class_name": "function", "config": name, "module": module, "registered_name": name}


def of_a_module(canary: Path, class_name: str = "Act", **more: Any) -> dict[str, Any]:
    return {"class_name": class_name, "module": imported(canary), "config": {}} | more


def typespec(canary: Path) -> dict[str, Any]:
    return {
        "class_name": "__typespec__",
        "spec_name": "act",
        "module": imported(canary),
        "registered_name": None,
        "config": [],
    }


def encoded_constant(canary: Path) -> dict[str, Any]:
    """A constant beside the image, JSON in a string, which Keras 2 decodes: any type is in it."""
    spec = {"class_name": "TypeSpec", "type_spec": "tf.NoneTensorSpec", "serialized": []}
    items = [{"_TYPE": "COMPOSITE"}, json.dumps(spec)]
    constant = ["_CONSTANT_VALUE", -1, {"class_name": "__tuple__", "items": items}, {}]
    nodes = [[["inputlayer", 0, 0, {}], constant]]
    return layer("Rescaling", None, scale=1.0) | {"inbound_nodes": nodes}


def quantized(**attributes: Any) -> Layers:
    names = {"weight_attrs": [], "activation_attrs": [], "quantize_output": False} | attributes
    config = layer("Default8BitQuantizeConfig", None, **names)
    return lambda canary: [
        layer("QuantizeWrapperV2", None, layer=layer("ReLU", None), quantize_config=config)
    ]


FILES = (
    Hostile("lambda", h5(lambda c: [lambda_layer(c)]), "Lambda layer"),
    Hostile("lambda-archive", archive(lambda c: [lambda_layer(c, "keras.layers")]), "Lambda layer"),
    Hostile(
        "lambda-in-time-distributed",
        h5(lambda c: [layer("TimeDistributed", None, layer=lambda_layer(c))]),
        "Lambda layer",
    ),
    Hostile(
        "lambda-in-a-model-in-a-model",
        h5(lambda c: [sequential([lambda_layer(c)])]),
        "Lambda layer",
    ),
    Hostile(
        "lambda-by-dots",
        whole(lambda c: lambda_layer(c, "keras", class_name="layers.Lambda")),
        "layers.Lambda",
        runs=False,
    ),
    Hostile(
        "lambda-by-its-registered-name",
        archive(
            lambda c: [
                lambda_layer(
                    c,
                    "keras.src.layers.core.lambda_layer",
                    class_name="Conv2D",
                    registered_name="Lambda",
                )
            ]
        ),
        "Lambda",
        runs=False,
    ),
    Hostile("residual-wrapper", h5(lambda c: recurrent(residual(c))), "ResidualWrapper"),
    Hostile(
        "residual-wrapper-archive",
        archive(lambda c: recurrent(residual(c, "keras.layers"), "keras.layers")),
        "ResidualWrapper",
    ),
    Hostile(
        "residual-wrapper-both-ways",
        h5(
            lambda c: [
                layer("Reshape", None, **FLAT),
                layer("Bidirectional", None, layer=recurrent(residual(c))[1]),
            ]
        ),
        "ResidualWrapper",
    ),
    Hostile(
        "residual-wrapper-among-cells",
        h5(lambda c: recurrent(layer("StackedRNNCells", None, cells=[residual(c)]))),
        "StackedRNNCells",
    ),
    Hostile("dropout-wrapper", h5(lambda c: recurrent(dropout(c))), "DropoutWrapper", runs=False),
    Hostile("operator-that-writes", h5(lambda c: [debugged(c)]), "TensorFlowOpLayer"),
    Hostile("operator-that-reads", h5(lambda c: [written(c)]), "TensorFlowOpLayer", runs=False),
    Hostile("write-file", h5(called("io.write_file")), "tf.io.write_file", runs=False),
    Hostile("load-op-library", h5(called("load_op_library")), "load_op_library", runs=False),
    Hostile("load-library", h5(called("compat.v1.load_library")), "load_library", runs=False),
    Hostile("read-file", h5(called("io.read_file")), "tf.io.read_file", runs=False),
    Hostile(
        "vocabulary-sampler",
        h5(called("nn.fixed_unigram_candidate_sampler")),
        "fixed_unigram_candidate_sampler",
        runs=False,
    ),
    Hostile("py-function", h5(called("py_function")), "tf.py_function", runs=False),
    Hostile("while-loop", h5(called("while_loop")), "tf.while_loop", runs=False),
    Hostile("print", h5(called("print")), "tf.print", runs=False),
    Hostile(
        "class-method",
        h5(lambda c: [layer("ClassMethod", None, cls_symbol="io.gfile.GFile", method_name="x")]),
        "ClassMethod",
        runs=False,
    ),
    Hostile(
        "instance-method",
        h5(lambda c: [layer("InstanceMethod", None, attr_name="numpy")]),
        "InstanceMethod",
        runs=False,
    ),
    Hostile(
        "slicing-op-of-another-function",
        h5(lambda c: [layer("SlicingOpLambda", None, function="io.write_file")]),
        "tf.io.write_file",
        runs=False,
    ),
    Hostile(
        "activation-lambda",
        archive(
            activation(lambda c: {"class_name": "__lambda__", "config": {"value": bytecode(c)}})
        ),
        "lambda function",
        runs=False,
    ),
    Hostile(
        "activation-of-a-module",
        archive(activation(lambda c: named_function("act", imported(c)))),
        "function act",
        runs=False,
    ),
    Hostile(
        "activation-of-os",
        archive(activation(lambda c: named_function("system", "os"))),
        "function system",
        runs=False,
    ),
    Hostile(
        "activation-of-keras-that-loads",
        archive(activation(lambda c: named_function("load_model", "keras.models"))),
        "function load_model",
        runs=False,
    ),
    Hostile(
        "activation-by-a-name-of-its-module",
        h5(lambda c: [layer("Activation", None, activation="deserialize")]),
        "activation deserialize",
        runs=False,
    ),
    Hostile("class-of-a-module", whole(of_a_module), "class Act of module"),
    Hostile(
        "class-of-a-module-in-an-old-file",
        h5(lambda c: [of_a_module(c)]),
        "class Act of module",
        runs=False,
    ),
    Hostile(
        "class-of-a-module-as-initializer",
        archive(
            lambda c: [layer("Dense", "keras.layers", units=2, kernel_initializer=of_a_module(c))]
        ),
        "class Act of module",
        runs=False,
    ),
    Hostile(
        "known-class-of-a-module",
        whole(lambda c: of_a_module(c, "ReLU")),
        "class ReLU of module",
    ),
    Hostile(
        "known-class-registered-by-others",
        whole(lambda c: of_a_module(c, "ReLU", registered_name="mine>ReLU")),
        "mine>ReLU",
    ),
    Hostile(
        "type-of-a-module",
        archive(lambda c: [layer("InputLayer", "keras.layers", type_spec=typespec(c))]),
        "__typespec__",
        runs=False,
    ),
    Hostile(
        "quantize-config-by-name",
        h5(
            lambda c: [
                layer(
                    "QuantizeWrapperV2",
                    None,
                    quantize_config="deserialize_keras_object",
                    layer=layer("ReLU", None),
                )
            ]
        ),
        "quantize_config",
        runs=False,
    ),
    Hostile(
        "quantized-attribute",
        h5(quantized(weight_attrs=["__class__"])),
        "weight_attrs",
        runs=False,
    ),
    Hostile(
        "quantized-attribute-as-a-key",
        h5(quantized(weight_attrs={"__class__": 0})),
        "the key __class__ in weight_attrs",
        runs=False,
    ),
    Hostile("encoded-constant", h5(lambda c: [encoded_constant(c)]), "the key _TYPE", runs=False),
    Hostile(
        "keras-3-endless-expression",
        k3(
            lambda c: [
                layer(
                    "ReLU",
                    dtype=layer(
                        "DTypePolicyMap",
                        "keras.dtype_policies",
                        policy_map={"((a+)+)+b": layer("DTypePolicy", "keras")},
                    ),
                )
            ]
        ),
        "the key '((a+)+)+b' in policy_map",
        runs=False,
    ),
    Hostile(
        "vocabulary-file",
        archive(lambda c: [layer("TextVectorization", vocabulary="/etc/passwd")]),
        "TextVectorization",
        runs=False,
    ),
    Hostile(
        "lookup-file",
        archive(lambda c: [layer("StringLookup", vocabulary="/etc/passwd")]),
        "StringLookup",
        runs=False,
    ),
    Hostile("keras-3-lambda", k3(lambda c: [keras3_lambda(c)]), "Lambda layer"),
    Hostile(
        "keras-3-lambda-in-a-pipeline",
        k3(lambda c: [layer("Pipeline", layers=[keras3_lambda(c)])]),
        "Lambda layer",
    ),
    Hostile(
        "keras-3-function-for-a-word",
        h5(lambda c: [layer("Conv2D", None, filters=2, padding="deserialize")], "3.15.1"),
        "padding deserialize of Conv2D",
        runs=False,
    ),
    Hostile("keras-3-lambda-h5", h5(lambda c: [lambda_layer(c)], "3.15.1"), "Lambda layer"),
    Hostile(
        "keras-3-saved-model-layer",
        k3(lambda c: [layer("TFSMLayer", filepath=str(c.parent))]),
        "TFSMLayer",
        runs=False,
    ),
    Hostile(
        "keras-3-torch",
        k3(lambda c: [layer("TorchModuleWrapper", module=["gASV"])]),
        "TorchModuleWrapper",
        runs=False,
    ),
    Hostile("keras-3-jax", k3(lambda c: [layer("JaxLayer", call_fn="x")]), "JaxLayer", runs=False),
    Hostile(
        "keras-3-map",
        k3(lambda c: [layer("Map", "keras.src.ops.core")]),
        "class Map of module keras.src.ops.core",
        runs=False,
    ),
    Hostile(
        "keras-3-file-of-the-web",
        k3(activation(lambda c: named_function("get_file", "keras.utils"))),
        "function get_file",
        runs=False,
    ),
)
