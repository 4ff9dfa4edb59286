"""SavedModel folders: what `saved_model.pb` holds, by walking its wire format.

Only TensorFlow has the message types, and it is not imported here; the few fields that are needed
are read by number. Field numbers: tensorflow/core/protobuf/{saved_model,meta_graph,
saved_object_graph}.proto and tensorflow/core/framework/{graph,function,node_def}.proto.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mobiledeploy.core import inputs, untrusted
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import ModelFile

SIGNATURE = "serving_default"

# TensorFlow runs a graph's initializers when it loads it: these are refused wherever they stand.
_RUNNING = re.compile(
    r"PyFunc|^(ReadFile|WriteFile|MatchingFiles|PrintV2|RecordInput|ImportEvent|RemoteCall)$"
    r"|Reader(V2)?$|Dataset|^Debug|^Write\w*Summary$|SummaryWriter|Summary(File|Db)Writer"
    r"|TextFile|^Gcs|FileSystem|RemoteFusedGraph|TRTEngineOp|LoadAndRemapMatrix|VocabRemapping"
)
# The checkpoint's own reader and writer; harm only where an answer to a picture would use them.
_CHECKPOINT = re.compile(r"^(Save|SaveV2|SaveSlices|Restore|RestoreV2|RestoreSlice|MergeV2\w+)$")


class _Node(NamedTuple):
    """A node of a graph or function: `inputs` are nodes' names, `named` functions' names."""

    name: str
    op: str
    inputs: tuple[str, ...]
    named: tuple[str, ...]


def detect(path: Path) -> ModelFile | None:
    """What the folder is; its sha256 is over the names and contents of all its files.

    Returns:
        None for anything but a folder with a `saved_model.pb`.

    Raises:
        InputError: broken, too large, or without the signature `serving_default`.
    """
    try:
        if path.name == "saved_model.pb" and path.is_file():
            raise InputError(f"{path} is part of a SavedModel", f"name the folder, {path.parent}")
        if not (path / "saved_model.pb").is_file():
            return None
        digest = untrusted.folder_sha256(path)
        graph = inputs.read(path / "saved_model.pb", inputs.FINISHED)
        metadata = path / "keras_metadata.pb"
        keras = inputs.read(metadata, inputs.FINISHED) if metadata.exists() else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    try:
        code = _code(memoryview(graph), path)
        for node in _all(memoryview(keras), 1):
            code += _layer_code(_all(node, 5), path)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is a broken SavedModel: {error}") from error
    return ModelFile(
        str(path), "saved_model", "saved_model", "model", digest, tuple(dict.fromkeys(code))
    )


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protobuf message that have a length; numbers are stepped over."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
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
    return [content for found, content in _fields(message) if found == number]


def _message(message: memoryview, number: int) -> memoryview:
    """The message in field `number`; one that comes in parts is merged, as protobuf does."""
    parts = _all(message, number)
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _text(message: memoryview, number: int) -> str:
    """The string in field `number`; the last one counts."""
    parts = _all(message, number)
    return _str(parts[-1]) if parts else ""


def _str(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "backslashreplace")


def _code(saved_model: memoryview, path: Path) -> list[str]:
    """What would run besides tensor operations."""
    graphs = [
        graph for graph in _all(saved_model, 2) if "serve" in map(_str, _all(_message(graph, 1), 4))
    ]
    if not graphs:
        raise InputError(f"{path} holds no graph with the tag serve")
    code: list[str] = []
    for graph in graphs:
        signatures = {_text(entry, 1): _message(entry, 2) for entry in _all(graph, 5)}
        if SIGNATURE not in signatures:
            named = ", ".join(sorted(signatures)) or "none at all"
            raise InputError(
                f"{path} has no signature {SIGNATURE} ({named})",
                "save it with signatures={'serving_default': ...}",
            )
        definition = _message(graph, 2)
        main = [_node(node) for node in _all(definition, 1)]
        functions: dict[str, list[_Node]] = {}
        for function in _all(_message(definition, 2), 1):
            body = functions.setdefault(_text(_message(function, 1), 1), [])
            body += [_node(node) for node in _all(function, 3)]
        for body in (main, *functions.values()):
            code += [f"operation {n.op} ({n.name})" for n in body if _RUNNING.search(n.op)]
        # TensorInfo.name is "node:0".
        answers = [
            _text(_message(entry, 2), 1).partition(":")[0]
            for entry in _all(signatures[SIGNATURE], 2)
        ]
        code += [
            f"operation {n.op} ({n.name})"
            for n in _reached(main, functions, answers)
            if _CHECKPOINT.search(n.op)
        ]
        for node in _all(_message(graph, 7), 1):
            code += _layer_code(_all(_message(node, 4), 3), path)
    return code


def _node(message: memoryview) -> _Node:
    named: list[str] = []
    for attribute in _all(message, 5):
        value = _message(attribute, 2)
        functions = (*_all(value, 10), *_all(_message(value, 1), 9))
        named += [_text(function, 1) for function in functions]
    inputs = [_str(value).removeprefix("^").partition(":")[0] for value in _all(message, 3)]
    return _Node(_text(message, 1), _text(message, 2), tuple(inputs), tuple(named))


def _reached(
    main: list[_Node], functions: dict[str, list[_Node]], answers: list[str]
) -> Iterator[_Node]:
    """The nodes that may run when the nodes named `answers` are asked for.

    A called function counts as a whole: its side effects run whatever its results are.
    """
    by_name: dict[str, list[_Node]] = {}
    for node in main:
        by_name.setdefault(node.name, []).append(node)
    waiting = [node for name in answers for node in by_name.pop(name, [])]
    called: set[str] = set()
    while waiting:
        node = waiting.pop()
        yield node
        for name in node.inputs:
            waiting += by_name.pop(name, [])
        for function in (node.op, *node.named):
            if function in functions and function not in called:
                called.add(function)
                # Their inputs are names within the function, all of which wait already.
                waiting += [inner._replace(inputs=()) for inner in functions[function]]


def _layer_code(metadata: list[memoryview], path: Path) -> list[str]:
    """Keras's notes on its layers, which are JSON; only those with bytecode of their own count.

    The graph is loaded by its signature, so that the classes named here are never looked up.
    """
    code: list[str] = []
    for text in map(bytes, metadata):
        if text.startswith(b"{"):
            code += untrusted.keras_bytecode(
                untrusted.parse_json(text, f"{path}: Keras's metadata")
            )
    return code
