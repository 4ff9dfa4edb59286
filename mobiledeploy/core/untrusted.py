"""Checks untrusted model files: code that could run, and malicious JSON and folders.

A Keras configuration names the classes and functions that Keras builds the model from. Some contain
bytecode; others make Keras import a module, call any function that TensorFlow exports, or read a
file. So a file may name only what core/allowed/keras.toml lists; everything else is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.package import PACKAGE

LARGEST_JSON = 64 << 20
LARGEST_FOLDER = 2 << 30
"""The total size of all files of a folder in bytes."""

_MOST_FILES = 10_000
# Far above any network: a nested model adds four.
_DEEPEST_JSON = 150

# Keras uses keys of a dictionary as names of settings and layers, and in one place as regular
# expressions.
_PLAIN_KEY = re.compile(r"[\w /:.>-]*", re.ASCII)
# Keras 2 marks a constant with this key if it is JSON in a string, and decodes it again.
_ENCODED = "_TYPE"

# Keras 2's metadata in a SavedModel may hold these: they are reported, never loaded.
_BYTECODE = {"Lambda": "Lambda layer", "__lambda__": "lambda function"}


def parse_json(text: bytes | str, where: str) -> Any:
    """The value in `text`.

    InputError naming `where` if it is too long, nested too deeply or not JSON.
    """
    if len(text) > LARGEST_JSON:
        raise InputError(f"{where} is larger than {LARGEST_JSON >> 20} MB of JSON")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error})") from error
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _inner(outer)]:
        depth += 1
        if depth > _DEEPEST_JSON:
            raise InputError(f"{where} is nested too deeply")
    return value


def read_folder(folder: Path, names: Collection[str] = ()) -> tuple[str, dict[str, bytes]]:
    """A hash of all files below `folder`, and the content of some of them.

    Every file is read once: the hash is of the content that the caller gets, even if another
    process writes.

    Args:
        folder: for example a SavedModel.
        names: files directly in it, of `inputs.FINISHED` bytes at most; they may be absent.

    Returns:
        Hex sha256 over the names and contents of all files; content by name.

    Raises:
        InputError: the folder has links to folders, files that are not regular, too many or too
            large files, or a file that cannot be read.
        OSError: a folder cannot be read.
    """

    def raise_error(error: OSError) -> None:
        raise error

    digest = hashlib.sha256()
    contents: dict[str, bytes] = {}
    count = total = 0
    for where, subfolders, files in os.walk(folder, onerror=raise_error):
        subfolders.sort()
        for name in sorted(subfolders):
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
            relative = path.relative_to(folder).as_posix()
            if relative in names:
                contents[relative] = inputs.read(path, inputs.FINISHED)
                sha256 = records.sha256(contents[relative])
            else:
                sha256 = records.sha256(path)
            digest.update(os.fsencode(relative) + b"\0" + sha256.encode() + b"\0")
    return digest.hexdigest(), contents


def keras_bytecode(config: Any) -> tuple[str, ...]:
    """Each Lambda layer and lambda function in a Keras configuration, in plain words."""
    return tuple(
        dict.fromkeys(
            f"{_BYTECODE[node['class_name']]} {_name(node)}".rstrip()
            for node in _objects(config)
            if node["class_name"] in _BYTECODE
        )
    )


def without_compiling(config: Any) -> Any:
    """A Keras configuration without the losses, metrics and optimizers, which only training needs.

    A compiled model holds them at any depth, and Keras would load them with it.
    """
    if isinstance(config, dict):
        return {
            key: without_compiling(value)
            for key, value in config.items()
            if key not in ("compile_config", "training_config")
        }
    if isinstance(config, list):
        return [without_compiling(value) for value in config]
    return config


def keras_code(config: Any, own: Collection[str] = ()) -> tuple[str, ...]:
    """Everything in a Keras configuration that is not on the list of harmless names, in words.

    `own` are the names under which the user's own code has registered classes and functions.

    Classes, functions and strings that Keras looks up must be listed in core/allowed/keras.toml, a
    class with the module and the registered name that Keras writes for it. That holds at any depth,
    for files of Keras 2 and 3.
    """
    problems: list[str] = []
    waiting = [_Setting(config, "name", "the model", text=False)]
    while waiting:
        setting = waiting.pop()
        value = setting.value
        if isinstance(value, str):
            is_own = value in own and bool(_names(setting.key))
            if not setting.text and not is_own and not _harmless(setting.key, value):
                problems.append(f"{_short(setting.key)} {_short(value)} of {setting.owner}")
        elif isinstance(value, list):
            waiting += [setting._replace(value=inner) for inner in reversed(value)]
        elif isinstance(value, dict) and "class_name" in value:
            is_own = _is_own(value, own)
            problem = "" if is_own else _problem(value)
            if problem:
                problems.append(problem)
            else:
                waiting += reversed(_settings(value, setting, is_own))
        elif isinstance(value, dict):
            problems += [
                f"the key {_short(key)} in {_short(setting.key)} of {setting.owner}"
                for key in value
                if not _harmless_key(setting, key)
            ]
            waiting += [setting.below(key, inner) for key, inner in reversed(value.items())]
    return tuple(dict.fromkeys(problems))


class _Setting(NamedTuple):
    """A value of a configuration, its key, and the object that it belongs to.

    `text`: it is among the names of layers or the arguments of calls, where a string is only text.
    """

    value: Any
    key: str
    owner: str
    text: bool

    def below(self, key: str, value: Any) -> _Setting:
        return _Setting(value, key, self.owner, self.text or key in _allowed().graph)


def _is_own(node: dict[str, Any], own: Collection[str]) -> bool:
    """Whether Keras uses the user's own class or function for this object.

    That depends on the name that Keras looks up first; it may import what it does not find there.
    """
    name = node["class_name"]
    if name == "function":
        name = node.get("config")
    elif node.get("registered_name") is not None or node.get("module") is not None:
        name = node.get("registered_name")
    return isinstance(name, str) and name in own


def _settings(node: dict[str, Any], outer: _Setting, is_own: bool) -> list[_Setting]:
    """The settings that remain to be checked of an object whose class is allowed.

    The user's own code reads the settings of the user's own class.
    """
    class_name, inner = node["class_name"], node.get("config")
    inside = _Setting(inner, "config", f"{class_name} {_name(node)}".rstrip(), text=is_own)
    if class_name == "function":
        inside = inside._replace(value=None)
    elif class_name in _allowed().calls and isinstance(inner, dict):
        inside = inside._replace(value={**inner, "function": None})
    elif class_name in _allowed().values:
        # This is a tensor or a slice among the arguments of a call.
        inside = inside._replace(text=outer.text)
    return [
        inside,
        *(
            inside.below(key, value)
            for key, value in node.items()
            if key not in ("class_name", "module", "registered_name", "config")
        ),
    ]


def _harmless(key: str, text: str) -> bool:
    """Whether Keras does nothing with this string, or looks up an allowed name."""
    return key in _allowed().text or any(text in names for names in _names(key))


def _harmless_key(setting: _Setting, key: str) -> bool:
    """Whether this key is allowed in the dictionary at this setting.

    Where Keras expects a list of names, it takes the keys of a dictionary as names.
    """
    if setting.text:
        return key != _ENCODED
    if _names(setting.key):
        return _harmless(setting.key, key)
    return key != _ENCODED and _PLAIN_KEY.fullmatch(key) is not None


def _names(key: str) -> list[frozenset[str]]:
    """The names that Keras may look up with a setting's string; empty if it looks nothing up."""
    return [
        names
        for end, names in _allowed().looked_up.items()
        if key == end or key.endswith(f"_{end}")
    ]


def _problem(node: dict[str, Any]) -> str:
    """What is not allowed about an object: its class, or the function that it calls.

    "" for nothing.
    """
    class_name, inner = node["class_name"], node.get("config")
    if not isinstance(class_name, str):
        return f"class {_short(class_name)}"
    if class_name == "function":
        return "" if _known_function(node) else f"function {_short(inner)}{_of(node)}"
    if class_name in _allowed().values:
        has_name = node.get("module") is not None or node.get("registered_name") is not None
        return f"class {_short(class_name)}{_of(node)}" if has_name else ""
    if not _known_class(node):
        kind = _BYTECODE.get(class_name)
        if kind:
            return f"{kind} {_name(node)}".rstrip()
        name = node.get("registered_name")
        return f"class {_short(class_name if name is None else name)}{_of(node)}"
    if class_name in _allowed().calls:
        function = inner.get("function") if isinstance(inner, dict) else None
        if not isinstance(function, str) or (
            function.removeprefix("compat.v1.") not in _allowed().calls[class_name]
        ):
            return f"call of tf.{_plain(function)}"
    return ""


def _known_class(node: dict[str, Any]) -> bool:
    module, registered_name = node.get("module"), node.get("registered_name")
    return any(
        (module is None or module in form.modules)
        and registered_name in (None, node["class_name"], form.registered)
        for form in _allowed().classes.get(node["class_name"], ())
    )


def _known_function(node: dict[str, Any]) -> bool:
    name = node.get("config")
    return (
        isinstance(name, str)
        and name in _allowed().looked_up["activation"]
        and node.get("module") in _allowed().functions
        # Keras 3 registers a TensorFlow function, such as tf.nn.swish, as "function".
        and node.get("registered_name") in (None, name, "function")
    )


class _KerasClass(NamedTuple):
    """A class as Keras writes it: the allowed modules, and its registered name."""

    modules: tuple[str, ...]
    registered: str


@dataclass(frozen=True)
class _Allowed:
    """core/allowed/keras.toml.

    Attributes:
        classes: class name -> the forms in which Keras writes it.
        values: class names of tensors, slices and the like.
        functions: the modules of the functions that "class_name": "function" names.
        looked_up: end of a setting's key -> the names that its string may have.
        text: keys of settings whose string is only text.
        graph: keys below which every string is only text.
        calls: class name of a layer that calls TensorFlow -> the functions that it may call.
    """

    classes: dict[str, list[_KerasClass]]
    values: frozenset[str]
    functions: tuple[str, ...]
    looked_up: dict[str, frozenset[str]]
    text: frozenset[str]
    graph: frozenset[str]
    calls: dict[str, frozenset[str]]


def modules() -> frozenset[str]:
    """The modules of the classes that a Keras file may name, including those of our own layers."""
    ways = chain.from_iterable(_allowed().classes.values())
    return frozenset(chain.from_iterable(form.modules for form in ways))


@cache
def _allowed() -> _Allowed:
    data = tomllib.loads((PACKAGE / "core" / "allowed" / "keras.toml").read_text("utf-8"))
    classes: dict[str, list[_KerasClass]] = {}
    for entry in data["classes"]:
        for name in entry["names"]:
            form = _KerasClass(tuple(entry["modules"]), entry.get("registered", name))
            # Keras 2 writes the registered name as the class name into HDF5.
            for class_name in {name, form.registered}:
                classes.setdefault(class_name, []).append(form)
    return _Allowed(
        classes=classes,
        values=frozenset(data["values"]["names"]),
        functions=tuple(data["functions"]["modules"]),
        looked_up={end: frozenset(names) for end, names in data["looked_up"].items()},
        text=frozenset(data["text"]["keys"]),
        graph=frozenset(data["graph"]["keys"]),
        calls={
            "TFOpLambda": frozenset(data["tensor_functions"]["names"]),
            "SlicingOpLambda": frozenset(data["slicing_functions"]["names"]),
        },
    )


def _inner(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _objects(config: Any) -> Iterator[dict[str, Any]]:
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


def _of(node: dict[str, Any]) -> str:
    return "" if node.get("module") is None else f" of module {_plain(node['module'])}"


def _name(node: dict[str, Any]) -> str:
    inner = node.get("config")
    name = inner.get("name") if isinstance(inner, dict) else inner
    return repr(name) if isinstance(name, str) else ""


def _plain(value: Any) -> str:
    """A printable name unchanged, anything else as its repr; 60 characters at most."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _short(value: Any) -> str:
    return _plain(value) if isinstance(value, str) and value.isidentifier() else _plain(repr(value))
