"""What model files from strangers hold that would run, and JSON and folders that mean harm.

A Keras configuration names the classes and functions that it is rebuilt from. Those of Keras are
known; a Lambda brings its own bytecode, and other entries make Keras import a module, call
whatever TensorFlow exports, or read a file.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError

LARGEST_JSON = 64 << 20
LARGEST_FOLDER = 2 << 30
"""Of all files of a folder, in bytes."""

_MOST_FILES = 10_000

# Layers that run, or load and run, what their configuration says.
_RUNNING = {
    "Lambda": "Lambda layer",
    "__lambda__": "lambda function",
    "ClassMethod": "call of a TensorFlow class method",
    "InstanceMethod": "call of a method by name",
    "TorchModuleWrapper": "pickled PyTorch module",
    "TFSMLayer": "layer that loads another SavedModel",
    "JaxLayer": "serialized JAX function",
    "FlaxLayer": "serialized Flax module",
}
_VOCABULARIES = {"StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization"}
_TENSOR_CALLS = {"TFOpLambda", "SlicingOpLambda"}
_KERAS = {"keras", "tf_keras"}
_KERAS_ROOMS = {
    "activations", "constraints", "dtype_policies", "engine", "initializers", "layers", "losses",
    "metrics", "mixed_precision", "models", "ops", "optimizers", "quantizers", "random",
    "regularizers",
}  # fmt: skip
_KERAS_FUNCTIONS = _KERAS_ROOMS - {"engine", "models"}
# TFOpLambda calls any symbol of TensorFlow, `load_op_library` and `io.write_file` among them.
_TENSOR_ROOMS = {"__operators__", "bitwise", "image", "linalg", "math", "nn", "signal"}
_TENSOR_FUNCTIONS = {
    "abs", "add", "add_n", "argmax", "argmin", "argsort", "broadcast_to", "cast", "clip_by_value",
    "concat", "constant", "convert_to_tensor", "cos", "cumsum", "divide", "einsum", "equal", "exp",
    "expand_dims", "eye", "fill", "floor", "gather", "gather_nd", "greater", "greater_equal",
    "identity", "less", "less_equal", "linspace", "logical_and", "logical_not", "logical_or",
    "matmul", "maximum", "minimum", "multiply", "negative", "norm", "not_equal", "one_hot", "ones",
    "ones_like", "pad", "pow", "range", "rank", "realdiv", "reduce_max", "reduce_mean",
    "reduce_min", "reduce_prod", "reduce_sum", "repeat", "reshape", "reverse", "roll", "round",
    "scatter_nd", "shape", "sigmoid", "sign", "sin", "size", "slice", "sort", "space_to_batch",
    "split", "sqrt", "square", "squeeze", "stack", "stop_gradient", "strided_slice", "subtract",
    "tanh", "tensordot", "tile", "transpose", "truediv", "unstack", "where", "zeros", "zeros_like",
}  # fmt: skip

OWN_CLASSES = {
    "GroupedConv2D": "grouped_convolution",
    "HardSigmoid": "hard_activations",
    "HardSwish": "hard_activations",
    "LocalResponseNormalization": "response_normalization",
}
"""The layers that our networks bring with them -> the module of frameworks/ that they are in."""


def parse_json(text: bytes | str, where: str) -> Any:
    """The value in `text`; InputError naming `where` if it is too long, too deep or no JSON."""
    if len(text) > LARGEST_JSON:
        raise InputError(f"{where} is larger than {LARGEST_JSON >> 20} MB of JSON")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{where} nests too deep") from error
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error})") from error


def folder_sha256(folder: Path) -> str:
    """Hex sha256 over the names and contents of all files below `folder`.

    InputError for links to folders, for what is no regular file, and for too much of it; OSError
    where it cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    digest = hashlib.sha256()
    count = total = 0
    for where, inside, files in os.walk(folder, onerror=refuse):
        inside.sort()
        for name in sorted(inside):
            if Path(where, name).is_symlink():
                raise InputError(f"{folder} holds a link to a folder ({name})")
        for name in sorted(files):
            path = Path(where, name)
            facts = path.stat()
            count, total = count + 1, total + facts.st_size
            if not stat.S_ISREG(facts.st_mode):
                raise InputError(f"{folder} holds {name}, which is not a regular file")
            if count > _MOST_FILES or total > LARGEST_FOLDER:
                raise InputError(f"{folder} is larger than a mobile network's SavedModel can be")
            shown = os.fsencode(path.relative_to(folder).as_posix())
            digest.update(shown + b"\0" + records.sha256(path).encode() + b"\0")
    return digest.hexdigest()


def keras_bytecode(config: Any) -> tuple[str, ...]:
    """Each thing in a Keras configuration that runs by itself, Lambda layers first of all."""
    found = (
        f"{_RUNNING[kind]} {_name(node)}".rstrip()
        for node in _classes(config)
        for kind in _kinds(node)
        if kind in _RUNNING
    )
    return tuple(dict.fromkeys(found))


def keras_code(config: Any) -> tuple[str, ...]:
    """Each thing in a Keras configuration that would run code or read files, in plain words.

    Besides `keras_bytecode`: classes and functions from outside Keras's own modules, functions
    called by name that are no tensor functions, and vocabularies that are file names.
    """
    found = list(keras_bytecode(config))
    for node in _classes(config):
        kinds, inner = _kinds(node), node.get("config")
        settings = inner if isinstance(inner, dict) else {}
        if node["class_name"] == "function":
            if not _known_function(node):
                found.append(f"function {_name(node)} of module {node.get('module')}")
        elif not _known_class(node):
            found.append(
                f"custom class {node.get('registered_name') or node['class_name']}{_of(node)}"
            )
        if not kinds.isdisjoint(_TENSOR_CALLS) and not _tensor_function(settings.get("function")):
            found.append(f"call of tf.{settings.get('function')}")
        words = settings.get("vocabulary")
        if isinstance(words, str):
            found += [f"{kind} layer that reads the file {words}" for kind in kinds & _VOCABULARIES]
    return tuple(dict.fromkeys(found))


def _classes(config: Any) -> Iterator[dict[str, Any]]:
    """Every object with a class name, at any depth."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _kinds(node: dict[str, Any]) -> set[str]:
    """The names that Keras may look the class of `node` up by, without packages and modules.

    Where `class_name` leads nowhere, Keras 2 takes `registered_name` as a name in the module.
    """
    names = (node["class_name"], node.get("registered_name"))
    return {re.split(r"[.>]", name)[-1] for name in names if isinstance(name, str)}


def _of(node: dict[str, Any]) -> str:
    return f" of module {node['module']}" if isinstance(node.get("module"), str) else ""


def _name(node: dict[str, Any]) -> str:
    inner = node.get("config")
    name = inner.get("name") if isinstance(inner, dict) else inner
    return repr(name) if isinstance(name, str) else ""


def _our_class(node: dict[str, Any]) -> bool:
    """Whether it is a layer of ours, by all the names that it is given."""
    name = node["class_name"].removeprefix("mobiledeploy>")
    return (
        name in OWN_CLASSES
        and node.get("registered_name") in (None, f"mobiledeploy>{name}")
        and node.get("module") in (None, f"mobiledeploy.frameworks.{OWN_CLASSES[name]}")
    )


def _known_class(node: dict[str, Any]) -> bool:
    if _our_class(node):
        return True
    names = [name for name in (node["class_name"], node.get("registered_name")) if name is not None]
    # "module.Name" is found in modules that are no rooms for classes; Keras writes no such name.
    if not all(isinstance(name, str) and "." not in name for name in names):
        return False
    if any(">" in name and not name.startswith("keras>") for name in names):
        return False
    # Whatever a class is registered as, its module is imported.
    return node.get("module") is None or _in_keras(node["module"], _KERAS_ROOMS)


def _known_function(node: dict[str, Any]) -> bool:
    name, module = node.get("config"), node.get("module")
    if not isinstance(name, str) or "." in name:
        return False
    if module == "builtins":
        # Keras's own functions say "builtins" too; those of Python must not be reached by it.
        return not hasattr(builtins, name)
    return module is not None and _in_keras(module, _KERAS_FUNCTIONS)


def _in_keras(module: Any, rooms: set[str]) -> bool:
    """Whether `module` is one of `rooms` of Keras, by its public or its private name."""
    if not isinstance(module, str):
        return False
    root, *rest = module.split(".")
    if rest[:1] in (["src"], ["api"]):
        rest = rest[1:]
    return root in _KERAS and (not rest or rest[0] in rooms)


def _tensor_function(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    parts = name.removeprefix("compat.v1.").removeprefix("compat.v2.").split(".")
    return parts[0] in (_TENSOR_ROOMS if len(parts) > 1 else _TENSOR_FUNCTIONS)
