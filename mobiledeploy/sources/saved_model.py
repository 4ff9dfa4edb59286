"""SavedModel folders by their signature `serving_default`, and checks of `saved_model.pb`.

TensorFlow's own loader does not use Keras: the metadata of Keras layers, such as Lambdas, is not
used. It does run functions of the file (creators, initializers and restorers of resources).
`detect` checks all of them in the wire format.

Only TensorFlow has the message types, and it is not imported here; the few fields that are needed
are read by number. Field numbers: tensorflow/core/protobuf/{saved_model,meta_graph,saver,
saved_object_graph}.proto and tensorflow/core/framework/{graph,function,node_def,attr_value,
op_def}.proto.

A SavedModel is a program, and TensorFlow runs parts of it during loading: initializers, creators of
resources, and restorers of variables. So every node of every graph and function, used or not, must
have an operator of `core/allowed/saved_model_operators.txt`. Only the checkpoint operators, which
every SavedModel has, are allowed where they cannot run, or where they only read the variables: see
`_Saver`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mobiledeploy.core import package, untrusted
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import OpenedModel
from mobiledeploy.core.types import Model, ModelFile, Source
from mobiledeploy.sources._inputs import may_take_images

NEEDS: tuple[str, ...] = ("tensorflow",)
SIGNATURE = "serving_default"
_GRAPH, _KERAS = "saved_model.pb", "keras_metadata.pb"

_SAVING = frozenset(
    {"MergeV2Checkpoints", "SaveV2", "ShardedFilename", "StaticRegexFullMatch", "StringJoin"}
)
_RESTORING = frozenset({"RestoreV2"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
# The form of an operator's name; TensorFlow's own functions are named "__inference_call_7".
_OPERATOR_NAME = re.compile(r"_*[A-Z][A-Za-z0-9>]*")


@dataclass(frozen=True)
class ServingSignature:
    """A loaded signature, called like a Keras model.

    `owner` holds its variables, which live as long as it does.
    """

    name: str
    owner: Any
    signature: Any

    def __call__(self, tensors: Any, training: bool = False) -> Any:
        """The answers of the signature to a tensor for each input; it is never trained."""
        names = self.input_names
        tensors = tensors if isinstance(tensors, list) else [tensors]
        answers = self.signature(**dict(zip(names, tensors, strict=True)))
        return [answers[name] for name in self.output_names]

    @property
    def input_names(self) -> list[str]:
        """The names of its inputs."""
        return list(self.signature.structured_input_signature[1])

    @property
    def output_names(self) -> list[str]:
        """The names of its outputs."""
        return list(self.signature.structured_outputs)

    @property
    def inputs(self) -> list[Any]:
        """Its inputs."""
        return list(self.signature.structured_input_signature[1].values())

    @property
    def outputs(self) -> list[Any]:
        """Its outputs."""
        return list(self.signature.structured_outputs.values())

    @property
    def variables(self) -> Any:
        """Its variables."""
        return self.signature.variables


class _Node(NamedTuple):
    """A node of a graph or function.

    `inputs` are as in the file: "node:0", "^node". `functions` are those that its attributes name.
    `odd` says that one of them is where TensorFlow does not look for functions.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    functions: tuple[str, ...]
    odd: bool


class _Function(NamedTuple):
    """A function of the library; `arguments` and `attributes` are names."""

    name: str
    arguments: tuple[str, ...]
    attributes: tuple[str, ...]
    nodes: tuple[_Node, ...]


def detect(path: Path) -> ModelFile | None:
    """What the folder is; its sha256 covers the names and contents of all its files.

    Returns:
        None for anything but a folder with a `saved_model.pb`.

    Raises:
        InputError: broken, too large, or without the signature `serving_default`.
    """
    try:
        if path.name == _GRAPH and path.is_file():
            raise InputError(f"{path} is part of a SavedModel", f"name the folder, {path.parent}")
        if not (path / _GRAPH).is_file():
            return None
        digest, contents = untrusted.read_folder(path, (_GRAPH, _KERAS))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    try:
        saved_model = memoryview(contents.get(_GRAPH, b""))
        code = _code(saved_model, path)
        images = may_take_images(_input_ranks(saved_model))
        for node in _all(memoryview(contents.get(_KERAS, b"")), 1):
            code += _layer_code(_all(node, 5), path)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is a broken SavedModel: {error}") from error
    return ModelFile(
        str(path),
        "saved_model",
        "saved_model",
        "model",
        digest,
        tuple(dict.fromkeys(code)),
        images=images,
    )


def open(source: Source) -> OpenedModel:
    """The signature of the folder."""
    from mobiledeploy.sources import _tensorflow

    assert source.file is not None
    return _tensorflow.open_model(load(source.file), source)


def load(file: ModelFile) -> Model:
    """The signature `serving_default`; InputError if TensorFlow cannot load it."""
    import tensorflow as tf

    from mobiledeploy.frameworks import loading

    with (
        loading.under_its_format(file, "") as path,
        loading.refusing(f"TensorFlow cannot load {file.path}", tf.errors.OpError),
    ):
        owner = tf.saved_model.load(str(path), tags=["serve"])
        signature = owner.signatures[SIGNATURE]
    variables = [(v.name, v.numpy()) for v in signature.variables]
    loading.require_finite(variables, file.path)
    return Model("saved_model", ServingSignature(file.path, owner, signature))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protobuf message that have a length; numbers are skipped."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        # Parsers treat further bits differently: they may see a field that we do not.
        if not number or key > 0xFFFF_FFFF:
            raise ValueError("it is not a protobuf message")
        if wire == 0:
            _, position = _varint(message, position)
        elif wire == 2:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("a protobuf message ends too early")
            yield number, message[position : position + length]
            position += length
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise ValueError("it is not a protobuf message")
    if position != len(message):
        raise ValueError("a protobuf message ends too early")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("a protobuf message ends too early")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is not a protobuf message")


def _all(message: memoryview, number: int) -> list[memoryview]:
    return [content for number_, content in _fields(message) if number_ == number]


def _message(message: memoryview, number: int) -> memoryview:
    """The message in field `number`; several parts are merged, as protobuf does."""
    parts = _all(message, number)
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _text(message: memoryview, number: int) -> str:
    """The string in field `number`; the last one counts."""
    parts = _all(message, number)
    return _str(parts[-1]) if parts else ""


def _str(value: memoryview) -> str:
    return str(value, "utf-8")


def _serving_graphs(saved_model: memoryview) -> list[memoryview]:
    graphs = _all(saved_model, 2)
    return [g for g in graphs if "serve" in map(_str, _all(_message(g, 1), 4))]


def _code(saved_model: memoryview, path: Path) -> list[str]:
    """Code besides the allowed operators, in any graph, whatever its tags."""
    graphs = _all(saved_model, 2)
    serving_graphs = _serving_graphs(saved_model)
    if not serving_graphs:
        raise InputError(f"{path} holds no graph with the tag serve")
    for graph in serving_graphs:
        signatures = {_text(entry, 1) for entry in _all(graph, 5)}
        if SIGNATURE not in signatures:
            signature_names = ", ".join(sorted(signatures)) or "none"
            raise InputError(
                f"{path} has no signature {SIGNATURE} ({signature_names})",
                "save it with signatures={'serving_default': ...}",
            )
    code: list[str] = []
    for graph in graphs:
        code += _operations(graph, saved_model)
        code += _assets(graph)
        for node in _all(_message(graph, 7), 1):
            code += _layer_code(_all(_message(node, 4), 3), path)
    return code


def _input_ranks(saved_model: memoryview) -> Iterator[Sequence[None] | None]:
    """A None for each axis of each input of the signature; None for one that may have any."""
    for graph in _serving_graphs(saved_model):
        for entry in _all(graph, 5):
            if _text(entry, 1) != SIGNATURE:
                continue
            for end in _all(_message(entry, 2), 1):
                shape = _message(_message(end, 2), 3)
                yield (None,) * len(_all(shape, 2)) or None


@functools.cache
def _allowed() -> frozenset[str]:
    path = package.PACKAGE / "core" / "allowed" / "saved_model_operators.txt"
    lines = path.read_text("utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _operations(graph: memoryview, saved_model: memoryview) -> Iterator[str]:
    """The operations of a MetaGraph that are not allowed at their place."""
    definition = _message(graph, 2)
    main = tuple(map(_node, _all(definition, 1)))
    functions = [_function(entry) for entry in _all(_message(definition, 2), 1)]
    function_names = {function.name for function in functions}
    for name in sorted(function_names):
        if _OPERATOR_NAME.fullmatch(name):
            yield f"function {name} that is named like an operation"
    saver = _Saver(graph, main, saved_model)
    bodies = [(main, saver.own_nodes()), *((f.nodes, saver.own_inside(f)) for f in functions)]
    for nodes, own in bodies:
        for node in nodes:
            if node.op not in function_names and node.op not in _allowed() and node not in own:
                yield f"operation {node.op} ({node.name})"
            if node.odd:
                yield f"function handed over to a function ({node.name})"
            for name in node.functions:
                if name not in function_names:
                    yield f"function {name} that is not in the file ({node.name})"


class _Saver:
    """The allowed places of the checkpoint operators: the saver of a MetaGraph.

    Save operators never run here: TensorFlow keeps them for callers that fetch `save_tensor_name`.
    So they may be in the main graph, or in a function that only one node of it calls. Restore
    operators do run, with the path of this folder's variables: they may read no other path.
    """

    def __init__(self, graph: memoryview, main: tuple[_Node, ...], saved_model: memoryview) -> None:
        saver = _message(graph, 3)
        self._main = main
        self._file = bytes(saved_model)
        self._path = _text(saver, 1)
        self._filename, self._save, self._restore = (
            _source(_text(saver, number)) for number in (1, 2, 3)
        )
        # Signatures, collections (such as initializers) and assets name nodes to run. Their bytes
        # are searched, not their fields, so that no encoding can hide a name. The collection of
        # savers only repeats `saver`.
        elsewhere = [entry for entry in _all(graph, 4) if _text(entry, 1) != "savers"]
        elsewhere += [*_all(graph, 5), *_all(graph, 6)]
        self._elsewhere = b"\0".join(map(bytes, elsewhere))

    def own_nodes(self) -> frozenset[_Node]:
        """The nodes of the main graph with such an operator, if they are allowed there."""
        saving = {node for node in self._main if node.op in _SAVING}
        restoring = {node for node in self._main if node.op in _RESTORING}
        own: set[_Node] = set()
        if self._only_for(self._save, (n.name for n in saving), {self._restore, self._filename}):
            own |= saving
        if self._only_for(self._restore, (n.name for n in restoring), {self._filename}):
            own |= {node for node in restoring if self._reads_the_variables(node)}
        return frozenset(own)

    def own_inside(self, function: _Function) -> frozenset[_Node]:
        """The allowed nodes of a function, if it is the saver's save or restore function."""
        saving = frozenset(node for node in function.nodes if node.op in _SAVING)
        if saving and self._call(self._save, function, {self._restore, self._filename}):
            return saving
        restoring = frozenset(node for node in function.nodes if node.op in _RESTORING)
        call = self._call(self._restore, function, {self._filename}) if restoring else None
        if call is None or not self._reads_the_variables(call):
            return frozenset()
        return frozenset(n for n in restoring if n.inputs[:1] == function.arguments[:1] != ())

    def _only_for(self, end: str, names: Iterable[str], others: set[str]) -> bool:
        """Whether the nodes of these names only run for the node `end`."""
        names = set(names)
        after = self._closure(names, _consumers(self._main))
        return (
            names <= self._closure({end}, _sources(self._main))
            and after.isdisjoint(others)
            and not any(name.encode() in self._elsewhere for name in after)
        )

    def _call(self, name: str, function: _Function, others: set[str]) -> _Node | None:
        """The node `name` of the main graph, if only it calls the function and nothing uses it.

        A function that is named elsewhere, by an attribute, a gradient or an object, may run
        there. So its name is searched in the bytes, which may have it twice: in the definition
        and in the call. A function with the mark `api_implements` may replace others, which do
        not name it.
        """
        candidates = [node for node in self._main if node.name == name]
        marks = [mark for mark in function.attributes if not mark.startswith("_")]
        if len(candidates) != 1 or marks or not function.name:
            return None
        (call,) = candidates
        calls = (
            call.functions == (function.name,) if call.op in _CALLS else call.op == function.name
        )
        is_used = any(name == _source(text) for node in self._main for text in node.inputs)
        if not calls or is_used or _times(function.name.encode(), self._file) != 2:
            return None
        return call if self._only_for(name, {name}, others) else None

    def _reads_the_variables(self, node: _Node) -> bool:
        """Whether its first input is the tensor that TensorFlow feeds with the path."""
        path_tensor = f"{self._filename}:0"
        return self._path == path_tensor and node.inputs[:1] in ((self._filename,), (path_tensor,))

    @staticmethod
    def _closure(names: set[str], steps: dict[str, set[str]]) -> set[str]:
        closure: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in closure:
                closure.add(name)
                waiting += steps.get(name, ())
        return closure


def _times(name: bytes, text: bytes) -> int:
    """How often `name` is in `text`; overlapping ones count."""
    times, position = 0, text.find(name)
    while position >= 0:
        times, position = times + 1, text.find(name, position + 1)
    return times


def _sources(nodes: tuple[_Node, ...]) -> dict[str, set[str]]:
    """Node -> the nodes that it depends on, by value or by control."""
    steps: dict[str, set[str]] = {}
    for node in nodes:
        steps.setdefault(node.name, set()).update(map(_source, node.inputs))
    return steps


def _consumers(nodes: tuple[_Node, ...]) -> dict[str, set[str]]:
    """Node -> the nodes that depend on it."""
    steps: dict[str, set[str]] = {}
    for node in nodes:
        for text in node.inputs:
            steps.setdefault(_source(text), set()).add(node.name)
    return steps


def _source(text: str) -> str:
    """The node's name in "node", "node:0" and "^node"."""
    return text.removeprefix("^").partition(":")[0]


def _node(message: memoryview) -> _Node:
    name = op = ""
    inputs: list[str] = []
    functions: list[str] = []
    odd = False
    # In one pass, since an EfficientNet has ten thousand nodes.
    for number, content in _fields(message):
        if number == 1:
            name = _str(content)
        elif number == 2:
            op = _str(content)
        elif number == 3:
            inputs.append(_str(content))
        elif number == 5:
            value = _message(content, 2)
            kinds = {number for number, _ in _fields(value)}
            # A placeholder is filled by the caller.
            odd = odd or 9 in kinds
            if kinds.isdisjoint({1, 10}):
                continue
            for function in _functions(value):
                functions.append(_text(function, 1))
                # TensorFlow renames the functions of a file, but not those named here.
                odd = odd or any(_functions(_message(entry, 2)) for entry in _all(function, 2))
    return _Node(name, op, tuple(inputs), tuple(functions), odd)


def _functions(value: memoryview) -> list[memoryview]:
    """The functions of an attribute, which may be a list."""
    return [*_all(value, 10), *_all(_message(value, 1), 9)]


def _function(message: memoryview) -> _Function:
    signature = _message(message, 1)
    return _Function(
        _text(signature, 1),
        tuple(_text(argument, 1) for argument in _all(signature, 2)),
        tuple(_text(attribute, 1) for attribute in _all(message, 5)),
        tuple(map(_node, _all(message, 3))),
    )


def _assets(graph: memoryview) -> Iterator[str]:
    """Assets whose path is outside of the folder; no allowed operator reads any asset."""
    for asset in _all(graph, 6):
        name = _text(asset, 2)
        where = PurePosixPath(name)
        if where.is_absolute() or ".." in where.parts:
            yield f"asset {name} outside of the folder"


def _layer_code(metadata: list[memoryview], path: Path) -> list[str]:
    """Keras's metadata of its layers, which is JSON; only bytecode in it counts.

    The graph is loaded by its signature, so the classes named here are never looked up.
    """
    code: list[str] = []
    for text in map(bytes, metadata):
        if text.startswith(b"{"):
            code += untrusted.keras_bytecode(
                untrusted.parse_json(text, f"{path}: Keras's metadata")
            )
    return code
