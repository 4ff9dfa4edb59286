"""Reads a .pt2 of torch.export without torch and without trusting it.

torch.export.load trusts the file. In torch 2.14 (torch/export/pt2_archive/_package.py,
torch/_export/serde/serialize.py) it unpickles the sample inputs, every constant that is a custom
object, and every weight whose entry says `use_pickle`; it evaluates symbolic expressions as Python
(sympify), compiles guards, looks operators and classes up by names from the file, and loads
libraries from data/aotinductor. Its zip reader is not Python's either, so a file could look
different to both.

So torch never opens the file. This module reads what is needed: the graph's nodes, their arguments,
and the raw numbers of the weights. `_torch_process.py` computes from that, with torch's own
operators only. These are checked:

- the zip: members by a list of names, none twice, none compressed, together not larger
  than the file;
- the sizes of all JSON, and the depth of its nesting;
- operators, by core/allowed/torch_operators.txt;
- arguments: numbers, short words, and values of earlier nodes; no graphs, no objects;
- weights: plain numbers inside their member, none of them pickled;
- symbolic expressions: symbols, integers, sums and products. None is evaluated; a file with others
  is refused, since torch would evaluate them.

Sample inputs, guards, stack traces and further files of the archive are never read.
"""

from __future__ import annotations

import functools
import io
import math
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import inputs, package, untrusted, zips
from mobiledeploy.core.errors import InputError

SCHEMA_MAJOR = 8
"""Of torch/_export/serde/schema.py: torch 2.8 and later."""

# Names below the folder of all members.
_NAMES = re.compile(
    r"models/\w[\w.-]{0,99}\.json"
    r"|data/weights/(weight_\d{1,6}|\w[\w.-]{0,99}_weights_config\.json)"
    r"|data/constants/(tensor_\d{1,6}|\w[\w.-]{0,99}_constants_config\.json)"
    # Not read: sample inputs are a pickle, and extra files are the user's.
    r"|data/sample_inputs/\w[\w.-]{0,99}\.pt|extra/\w[\w.-]{0,99}"
    r"|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)",
    re.ASCII,
)
_RAW = re.compile(r"(weight|tensor)_\d{1,6}", re.ASCII)
_MOST_MEMBERS, _MOST_NODES, _MOST_ITEMS, _MOST_RANK = 20_000, 20_000, 10_000, 8
_LARGEST_INTEGER = 1 << 63
_WORD = re.compile(r"[A-Za-z_,>. -]{0,60}")
_VALUE = re.compile(r"[A-Za-z_]\w{0,499}", re.ASCII)
# As sympy's srepr writes them: Mul(Integer(2), Symbol('s77', positive=True, integer=True)).
_EXPRESSION = re.compile(
    r"(?:(?:Symbol|Integer|Mul|Add)\(|\)|, |'[su]\d{1,9}'|(?:positive|integer|nonnegative)="
    r"(?:True|False)|-?\d{1,9}|[su]\d{1,9}|[+ ]|\*(?!\*))*",
    re.ASCII,
)
_LONGEST_EXPRESSION = 500
# ScalarType of torch/_export/serde/schema.py, and its MemoryFormat.
_DTYPES = {4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool"}
_MEMORY = {1: "contiguous_format", 2: "channels_last", 4: "preserve_format"}
_BROKEN = (*zips.BROKEN, ArithmeticError, AttributeError, TypeError)
_AGAIN = "save it again with torch.export.save of torch 2.8 or later"


@dataclass(frozen=True)
class Weight:
    """The numbers in a member: dtype as in numpy; strides and offset count elements."""

    member: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Program:
    """A graph of harmless operators.

    Attributes:
        image: the name of the input value.
        scores: the name of the output value.
        resolution: (height, width) of the image [1, 3, H, W].
        classes: the width of the scores [1, classes].
        nodes: operator, arguments (kind, value), keyword arguments, and the names of its results;
            see `_torch_process.py`.
        weights: value -> its numbers.
    """

    image: str
    scores: str
    resolution: tuple[int, int]
    classes: int
    nodes: tuple[dict[str, Any], ...]
    weights: dict[str, Weight]


def is_archive(content: bytes) -> bool:
    """Whether it is a zip with the marks of a .pt2; damaged and old ones count too."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
    except _BROKEN:
        return False
    return bool(names & {"archive_format", "serialized_exported_program.json"}) or any(
        name.startswith(("models/", "data/")) for name in names
    )


def read(content: bytes, where: str) -> Program:
    """The graph in `content`; InputError naming `where` for anything not known to be harmless.

    Weights are checked but not read.
    """
    try:
        return _ProgramReader(content, where).program()
    except _BROKEN as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(
            f"{where} is a broken .pt2: {reason}", "it may be truncated: save it again"
        ) from error


def numbers(content: bytes, program: Program) -> dict[str, NDArray[Any]]:
    """The weights, by value, of a program that `read` returned for this content."""
    arrays_by_name: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for value, weight in program.weights.items():
            flat = np.frombuffer(archive.read(weight.member), np.dtype(weight.dtype))
            step = flat.itemsize
            arrays_by_name[value] = np.ascontiguousarray(
                np.lib.stride_tricks.as_strided(
                    flat[weight.offset :], weight.shape, [s * step for s in weight.strides]
                )
            ).reshape(weight.shape)
    return arrays_by_name


class _ProgramReader:
    def __init__(self, content: bytes, where: str) -> None:
        self._where = where
        self._archive = zipfile.ZipFile(io.BytesIO(content))
        self._members = self._check_members(self._archive.infolist(), len(content))

    def program(self) -> Program:
        """See `read`."""
        version, order = (self._short(name) for name in ("archive_version", "byteorder"))
        if version not in ("", "0") or order not in ("", "little"):
            raise self._refusal(f"is of version {version} and byte order {order}", _AGAIN)
        models = [name for name in self._members if name.startswith("models/")]
        if len(models) != 1:
            raise self._refusal(f"holds {len(models)} models; one is needed")
        model = models[0].removeprefix("models/").removesuffix(".json")
        document = self._json(models[0])
        major = document["schema_version"]["major"]
        if major != SCHEMA_MAJOR:
            raise self._refusal(f"is of schema {major!r}, not {SCHEMA_MAJOR}", _AGAIN)
        self._check_expressions(document)
        module = document["graph_module"]
        graph, signature = module["graph"], module["signature"]
        if graph.get("custom_obj_values"):
            raise self._refusal("holds custom objects, which are pickled", "remove them")
        weights, image = self._inputs(signature["input_specs"], model)
        scores = self._output(signature["output_specs"])
        nodes = tuple(self._nodes(graph["nodes"], {*weights, image}))
        if scores not in {image, *(name for node in nodes for name in node["makes"])}:
            raise self._refusal("has an output that no operator computes")
        resolution = self._image(graph["tensor_values"][image])
        return Program(
            image, scores, resolution, self._classes(graph["tensor_values"][scores]), nodes, weights
        )

    def _refusal(self, what: str, hint: str = "") -> InputError:
        return InputError(f"{self._where} {what}", hint)

    # The archive

    def _check_members(
        self, members: list[zipfile.ZipInfo], size: int
    ) -> dict[str, zipfile.ZipInfo]:
        """Checks the members; name without the archive's folder -> member."""
        members_by_name: dict[str, zipfile.ZipInfo] = {}
        if len(members) > _MOST_MEMBERS:
            raise self._refusal(f"holds {len(members)} members; the limit is {_MOST_MEMBERS}")
        if any(
            _printable(m.filename).endswith("serialized_exported_program.json") for m in members
        ):
            raise self._refusal("was saved by torch before 2.8, with pickled weights", _AGAIN)
        roots = {member.filename.partition("/")[0] for member in members}
        if len(roots) != 1:
            raise self._refusal("holds more than one folder")
        for member in members:
            name = member.filename.partition("/")[2]
            if not _NAMES.fullmatch(name):
                raise self._refusal(
                    f"holds {_printable(member.filename)}, which no exported program needs",
                    "custom objects and compiled libraries could run code of their own",
                )
            if name in members_by_name:
                raise self._refusal(f"holds {_printable(name)} twice")
            is_compressed = member.compress_type != zipfile.ZIP_STORED
            if is_compressed or member.file_size != member.compress_size:
                raise self._refusal(f"holds {_printable(name)} compressed, which torch does not do")
            members_by_name[name] = member
        if sum(member.file_size for member in members) > size:
            raise self._refusal("claims more bytes than it has")
        return members_by_name

    def _json(self, name: str) -> Any:
        if name not in self._members:
            raise self._refusal(f"holds no {name}", _AGAIN)
        if self._members[name].file_size > untrusted.LARGEST_JSON:
            raise self._refusal(f"holds {name} of more than {untrusted.LARGEST_JSON >> 20} MB")
        return untrusted.parse_json(
            self._archive.read(self._members[name]), f"{self._where}: {name}"
        )

    def _short(self, name: str) -> str:
        member = self._members.get(name)
        if member is None or member.file_size > 100:
            return ""
        return self._archive.read(member).decode("ascii", "replace").strip()

    def _check_expressions(self, document: Any) -> None:
        waiting = [document]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                text = value.get("expr_str", "")
                is_short_text = isinstance(text, str) and len(text) <= _LONGEST_EXPRESSION
                if not is_short_text or not _EXPRESSION.fullmatch(text):
                    raise self._refusal(
                        f"holds the expression {_printable(text)}, which is not a plain size",
                        "export the model with a fixed size of its image",
                    )
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value

    # What goes in, and what comes out

    def _inputs(self, specs: list[Any], model: str) -> tuple[dict[str, Weight], str]:
        weights: dict[str, Weight] = {}
        images = []
        configs = {
            kind: self._json(f"data/{kind}/{model}_{kind}_config.json")["config"]
            for kind in ("weights", "constants")
        }
        for entry in (*configs["weights"].values(), *configs["constants"].values()):
            self._check_payload(entry)
        for spec in specs:
            ((kind, fields),) = spec.items()
            if kind in ("parameter", "buffer"):
                is_persistent = kind == "parameter" or fields["persistent"]
                folder = "weights" if is_persistent else "constants"
                source, value = fields[f"{kind}_name"], fields["arg"]["name"]
            elif kind == "tensor_constant":
                folder, source = "constants", fields["tensor_constant_name"]
                value = fields["arg"]["name"]
            elif kind == "user_input" and list(fields["arg"]) == ["as_tensor"]:
                images.append(self._value(fields["arg"]["as_tensor"]))
                continue
            else:
                raise self._refusal(
                    f"takes a {_printable(kind)}; only an image and weights are supported"
                )
            weights[self._name(value)] = self._weight(configs[folder][source], folder)
        if len(images) != 1:
            raise self._refusal(f"takes {len(images)} inputs; one image is needed")
        return weights, images[0]

    def _check_payload(self, entry: dict[str, Any]) -> None:
        name = entry["path_name"]
        if not isinstance(name, str) or not _RAW.fullmatch(name):
            raise self._refusal(
                f"holds the custom object {_printable(name)}", "torch would unpickle it: remove it"
            )
        if entry["use_pickle"] is not False:
            raise self._refusal(
                f"holds {name} as a pickle, which can run code of its own",
                "keep the weights as plain dense tensors",
            )

    def _weight(self, entry: dict[str, Any], folder: str) -> Weight:
        meta = entry["tensor_meta"]
        member = f"data/{folder}/{entry['path_name']}"
        if member not in self._members:
            raise self._refusal(f"holds no {member}")
        dtype = _DTYPES.get(meta["dtype"])
        if dtype is None:
            raise self._refusal(
                f"holds {member} of type {_printable(meta['dtype'])}; float32 is needed",
                "export it after model.float()",
            )
        shape = tuple(self._size(side) for side in meta["sizes"])
        strides = tuple(self._size(side) for side in meta["strides"])
        offset = self._size(meta["storage_offset"])
        if len(shape) > _MOST_RANK or len(strides) != len(shape):
            raise self._refusal(f"holds {member} with a broken shape")
        count = self._members[member].file_size // np.dtype(dtype).itemsize
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        # Strides of 0 would make a large tensor from few bytes.
        if math.prod(shape) and (last >= count or math.prod(shape) > count):
            raise self._refusal(f"holds {member}, which is truncated")
        if 0 in shape:
            raise self._refusal(f"holds {member}, which is empty")
        return Weight(self._members[member].filename, dtype, shape, strides, offset)

    def _output(self, specs: list[Any]) -> str:
        kinds = [kind for spec in specs for kind in spec]
        if kinds != ["user_output"]:
            other = next((kind for kind in kinds if kind != "user_output"), "")
            if other.endswith("mutation"):
                raise self._refusal(
                    "was exported in training mode: it changes its own statistics",
                    "call model.eval() before torch.export.export",
                )
            raise self._refusal(f"gives {len(kinds)} outputs; one row of scores is needed")
        argument = specs[0]["user_output"]["arg"]
        if list(argument) != ["as_tensor"]:
            raise self._refusal("does not give a tensor; one row of scores is needed")
        return self._value(argument["as_tensor"])

    def _image(self, meta: dict[str, Any]) -> tuple[int, int]:
        """(height, width); a batch of any size is a batch of 1."""
        sizes = meta["sizes"]
        sides = [self._size(side) if "as_int" in side else None for side in sizes]
        if _DTYPES.get(meta["dtype"]) != "float32":
            raise self._refusal("does not take float32; an image of floats is needed")
        if len(sides) != 4 or sides[1] != 3:
            raise self._refusal(f"takes {_sides(sides)}; an RGB image [1, 3, H, W] is needed")
        if sides[0] not in (None, 1):
            raise self._refusal(f"has a fixed batch of {sides[0]}; 1 is needed", "export it with 1")
        if sides[2] is None or sides[3] is None:
            raise self._refusal(
                "takes any height and width; a TFLite has a fixed one",
                "export it with a fixed size",
            )
        if not 1 <= sides[2] <= 4096 or not 1 <= sides[3] <= 4096:
            raise self._refusal(f"takes {_sides(sides)}; sides of 1 to 4096 are supported")
        return sides[2], sides[3]

    def _classes(self, meta: dict[str, Any]) -> int:
        sizes = meta["sizes"]
        sides = [self._size(side) if "as_int" in side else None for side in sizes]
        if len(sides) != 2 or sides[0] not in (None, 1) or sides[1] is None:
            raise self._refusal(f"gives {_sides(sides)}; scores [1, classes] are needed")
        if sides[1] < 2:
            raise self._refusal("gives one score; a classifier of two or more classes is needed")
        return sides[1]

    def _size(self, side: dict[str, Any]) -> int:
        """A side, a stride or an offset."""
        value = side["as_int"]
        if type(value) is not int or not 0 <= value < 1 << 40:
            raise self._refusal(f"holds the size {_printable(value)}")
        return value

    # Nodes

    def _nodes(self, nodes: list[Any], defined: set[str]) -> Iterator[dict[str, Any]]:
        if len(nodes) > _MOST_NODES:
            raise self._refusal(f"has {len(nodes)} operators; the limit is {_MOST_NODES}")
        for node in nodes:
            target = node["target"]
            short = target.removeprefix("torch.ops.") if isinstance(target, str) else ""
            if short == target or short not in _allowed():
                raise self._refusal(
                    f"has the operator {_printable(target)}, which is not known to be harmless",
                    "operators of your own, loops and branches are not converted",
                )
            arguments: list[Any] = []
            keywords: dict[str, Any] = {}
            for entry in node["inputs"]:
                value = self._argument(entry["arg"], defined, short)
                if entry.get("kind", 1) == 2:
                    keywords[self._name(entry["name"])] = value
                else:
                    arguments.append(value)
                self._refuse_training(short, entry["name"], value)
            results = [self._result_names(output) for output in node["outputs"]]
            flat = [n for m in results for n in (m if isinstance(m, list) else [m])]
            defined |= {name for name in flat if name is not None}
            yield {
                "operator": short,
                "arguments": arguments,
                "named": keywords,
                "makes": flat,
                "list": any(isinstance(m, list) for m in results),
            }

    def _refuse_training(self, operator: str, name: str, value: tuple[str, Any]) -> None:
        """InputError for dropout and batch normalization in training mode."""
        if name in ("train", "training", "use_input_stats") and value != ("plain", False):
            raise self._refusal(
                f"was exported in training mode ({operator})",
                "call model.eval() before torch.export.export",
            )

    def _argument(self, argument: dict[str, Any], defined: set[str], where: str) -> tuple[str, Any]:
        """(kind, value) as `_torch_process.py` expects them."""
        ((kind, value),) = argument.items()
        if kind == "as_none":
            return "plain", None
        if kind in ("as_tensor", "as_sym_int"):
            return self._operand(value, defined)
        if kind in ("as_tensors", "as_sym_ints", "as_optional_tensors"):
            return "list", [self._operand(item, defined) for item in self._few(value)]
        if kind in ("as_int", "as_float", "as_bool", "as_string"):
            return "plain", self._plain(value)
        if kind in ("as_ints", "as_floats", "as_bools"):
            return "plain", [self._plain(item) for item in self._few(value)]
        if kind == "as_scalar_type" and value in _DTYPES:
            return "dtype", _DTYPES[value]
        if kind == "as_memory_format" and value in _MEMORY:
            return "memory_format", _MEMORY[value]
        if kind == "as_layout":
            return "layout", "strided"
        if kind == "as_device":
            return "device", "cpu"
        raise self._refusal(f"gives {where} an argument {_printable(kind)}, which is not known")

    def _operand(self, value: dict[str, Any], defined: set[str]) -> tuple[str, Any]:
        """A value of an earlier node, or a number in its place."""
        if value.get("as_none"):
            return "plain", None
        if "as_int" in value:
            return "plain", self._plain(value["as_int"])
        name = self._value(value.get("as_tensor") or value)
        if name not in defined:
            raise self._refusal(f"uses {_printable(name)} before it is computed")
        return "value", name

    def _result_names(self, output: dict[str, Any]) -> str | list[str] | None:
        ((kind, value),) = output.items()
        if kind == "as_none":
            return None
        if kind in ("as_tensor", "as_sym_int"):
            return self._value(value)
        if kind == "as_tensors":
            return [self._value(item) for item in self._few(value)]
        raise self._refusal(f"has an operator that makes {_printable(kind)}, which is not known")

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str) and _WORD.fullmatch(value):
            # Numbers that JSON cannot express.
            return float(value) if value in ("Infinity", "-Infinity", "NaN") else value
        if isinstance(value, bool | float):
            return value
        if isinstance(value, int) and -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
            return value
        raise self._refusal(f"holds the argument {_printable(value)}, which is not known")

    def _few(self, values: Any) -> list[Any]:
        if not isinstance(values, list) or len(values) > _MOST_ITEMS:
            raise self._refusal("holds a value that is not a list, or a list that is too long")
        return values

    def _value(self, value: dict[str, Any]) -> str:
        return self._name(value["name"] if "name" in value else value["as_name"])

    def _name(self, name: Any) -> str:
        if not isinstance(name, str) or not _VALUE.fullmatch(name):
            raise self._refusal(f"holds the name {_printable(name)}")
        return name


def _sides(sizes: Iterable[int | None]) -> str:
    return f"[{', '.join('any' if side is None else str(side) for side in sizes)}]"


def _printable(value: Any) -> str:
    """Some of its characters, all of them printable."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


@functools.cache
def _allowed() -> frozenset[str]:
    path = package.PACKAGE / "core" / "allowed" / "torch_operators.txt"
    lines = inputs.text(path, inputs.TABLE).splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))
