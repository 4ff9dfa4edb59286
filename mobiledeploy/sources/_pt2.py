"""What a .pt2 of torch.export holds, read without torch, and nothing of it believed.

torch.export.load trusts its file. In torch 2.14 (torch/export/pt2_archive/_package.py,
torch/_export/serde/serialize.py) it unpickles the sample inputs, every constant that is a custom
object, and every weight whose entry says `use_pickle`; it evaluates symbolic expressions as Python
(sympify), compiles guards, looks operators and classes up by names from the file, and loads
libraries from data/aotinductor. Its zip reader is not Python's either, so that a file could look
one way here and another way there.

So torch is never given the file. What is needed is read here: the graph's nodes, their arguments,
and the raw numbers of the weights. From that `_torch_process.py` computes, with torch's operators
alone. Here is looked at

- the zip: members by a list of names, none twice, none packed, together not larger than the file;
- the sizes of all JSON, and how deep it nests;
- operators, by core/allowed/torch_operators.txt;
- arguments: numbers, short words, and values that an earlier node has made; no graphs, no objects;
- weights: plain numbers, within their member, none of them pickled;
- symbolic expressions: symbols, integers, sums and products. None is evaluated; a file with others
  is refused for what it means to do.

Sample inputs, guards, stack traces and further files of the archive are never read.
"""

from __future__ import annotations

import functools
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import inputs, package, untrusted
from mobiledeploy.core.errors import InputError

SCHEMA_MAJOR = 8
"""Of torch/_export/serde/schema.py: torch 2.8 and later."""

# Below the folder that all members lie in.
_NAMES = re.compile(
    r"models/\w[\w.-]{0,99}\.json"
    r"|data/weights/(weight_\d{1,6}|\w[\w.-]{0,99}_weights_config\.json)"
    r"|data/constants/(tensor_\d{1,6}|\w[\w.-]{0,99}_constants_config\.json)"
    # Not read: sample inputs are a pickle, and what users add is theirs.
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
_BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_AGAIN = "save it again with torch.export.save of torch 2.8 or later"


@dataclass(frozen=True)
class Weight:
    """Numbers of a member: dtype as numpy has it; strides and offset count elements."""

    member: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Program:
    """A graph that only computes.

    Attributes:
        image: the value that takes the image.
        scores: the value that is the answer.
        resolution: (height, width) of the image [1, 3, H, W].
        classes: the width of the scores [1, classes].
        nodes: operator, arguments (kind, value), arguments by name, and the names of what it
            makes; see `_torch_process.py`.
        weights: value -> its numbers.
    """

    image: str
    scores: str
    resolution: tuple[int, int]
    classes: int
    nodes: tuple[dict[str, Any], ...]
    weights: dict[str, Weight]


def is_archive(content: bytes) -> bool:
    """Whether it is a zip with the marks of a .pt2, damaged or old ones among them."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
    except _BROKEN:
        return False
    return bool(names & {"archive_format", "serialized_exported_program.json"}) or any(
        name.startswith(("models/", "data/")) for name in names
    )


def read(content: bytes, where: str) -> Program:
    """The graph in `content`; InputError naming `where` for whatever is not known to be harmless.

    Weights are looked at and not read.
    """
    try:
        return _Reader(content, where).program()
    except _BROKEN as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(
            f"{where} is a broken .pt2: {reason}", "it may have been cut short: save it again"
        ) from error


def numbers(content: bytes, program: Program) -> dict[str, NDArray[Any]]:
    """The weights of a program that `read` has made of this content, by value."""
    found: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for value, weight in program.weights.items():
            flat = np.frombuffer(archive.read(weight.member), np.dtype(weight.dtype))
            step = flat.itemsize
            found[value] = np.ascontiguousarray(
                np.lib.stride_tricks.as_strided(
                    flat[weight.offset :], weight.shape, [s * step for s in weight.strides]
                )
            ).reshape(weight.shape)
    return found


class _Reader:
    def __init__(self, content: bytes, where: str) -> None:
        self._where = where
        self._archive = zipfile.ZipFile(io.BytesIO(content))
        self._members = self._checked(self._archive.infolist(), len(content))

    def program(self) -> Program:
        """See `read`."""
        version, order = (self._short(name) for name in ("archive_version", "byteorder"))
        if version not in ("", "0") or order not in ("", "little"):
            raise self._refusal(f"is of version {version} and byte order {order}", _AGAIN)
        models = [name for name in self._members if name.startswith("models/")]
        if len(models) != 1:
            raise self._refusal(f"holds {len(models)} models; one is needed")
        model = models[0].removeprefix("models/").removesuffix(".json")
        whole = self._json(models[0])
        major = whole["schema_version"]["major"]
        if major != SCHEMA_MAJOR:
            raise self._refusal(f"is of schema {major!r}, not {SCHEMA_MAJOR}", _AGAIN)
        self._check_expressions(whole)
        module = whole["graph_module"]
        graph, signature = module["graph"], module["signature"]
        if graph.get("custom_obj_values"):
            raise self._refusal("holds custom objects, which are pickled", "leave them away")
        weights, image = self._inputs(signature["input_specs"], model)
        scores = self._output(signature["output_specs"])
        nodes = tuple(self._nodes(graph["nodes"], {*weights, image}))
        if scores not in {image, *(name for node in nodes for name in node["makes"])}:
            raise self._refusal("answers with what no operator makes")
        resolution = self._image(graph["tensor_values"][image])
        return Program(
            image, scores, resolution, self._classes(graph["tensor_values"][scores]), nodes, weights
        )

    def _refusal(self, what: str, hint: str = "") -> InputError:
        return InputError(f"{self._where} {what}", hint)

    # The archive

    def _checked(self, members: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
        """Name without the archive's own folder -> the member."""
        found: dict[str, zipfile.ZipInfo] = {}
        if len(members) > _MOST_MEMBERS:
            raise self._refusal(f"holds {len(members)} members; {_MOST_MEMBERS} are the most")
        if any(_shown(m.filename).endswith("serialized_exported_program.json") for m in members):
            raise self._refusal("was saved by torch before 2.8, with pickled weights", _AGAIN)
        roots = {member.filename.partition("/")[0] for member in members}
        if len(roots) != 1:
            raise self._refusal("holds more than one folder")
        for member in members:
            name = member.filename.partition("/")[2]
            if not _NAMES.fullmatch(name):
                raise self._refusal(
                    f"holds {_shown(member.filename)}, which no exported program needs",
                    "custom objects and compiled libraries could run code of their own",
                )
            if name in found:
                raise self._refusal(f"holds {_shown(name)} twice")
            packed = member.compress_type != zipfile.ZIP_STORED
            if packed or member.file_size != member.compress_size:
                raise self._refusal(f"holds {_shown(name)} packed, which torch does not do")
            found[name] = member
        if sum(member.file_size for member in members) > size:
            raise self._refusal("promises more than it holds")
        return found

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

    def _check_expressions(self, whole: Any) -> None:
        waiting = [whole]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                text = value.get("expr_str", "")
                known = isinstance(text, str) and len(text) <= _LONGEST_EXPRESSION
                if not known or not _EXPRESSION.fullmatch(text):
                    raise self._refusal(
                        f"holds the expression {_shown(text)}, which is no plain size",
                        "export the model with a fixed size of its image",
                    )
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value

    # What goes in, and what comes out

    def _inputs(self, specs: list[Any], model: str) -> tuple[dict[str, Weight], str]:
        weights: dict[str, Weight] = {}
        images = []
        stored = {
            kind: self._json(f"data/{kind}/{model}_{kind}_config.json")["config"]
            for kind in ("weights", "constants")
        }
        for entry in (*stored["weights"].values(), *stored["constants"].values()):
            self._check_payload(entry)
        for spec in specs:
            ((kind, given),) = spec.items()
            if kind in ("parameter", "buffer"):
                lasts = kind == "parameter" or given["persistent"]
                place = "weights" if lasts else "constants"
                source, value = given[f"{kind}_name"], given["arg"]["name"]
            elif kind == "tensor_constant":
                place, source = "constants", given["tensor_constant_name"]
                value = given["arg"]["name"]
            elif kind == "user_input" and list(given["arg"]) == ["as_tensor"]:
                images.append(self._value(given["arg"]["as_tensor"]))
                continue
            else:
                raise self._refusal(f"takes a {_shown(kind)}; an image and weights are known")
            weights[self._name(value)] = self._weight(stored[place][source], place)
        if len(images) != 1:
            raise self._refusal(f"takes {len(images)} inputs; one image is needed")
        return weights, images[0]

    def _check_payload(self, entry: dict[str, Any]) -> None:
        name = entry["path_name"]
        if not isinstance(name, str) or not _RAW.fullmatch(name):
            raise self._refusal(
                f"holds the custom object {_shown(name)}", "it would be unpickled: leave it away"
            )
        if entry["use_pickle"] is not False:
            raise self._refusal(
                f"holds {name} as a pickle, which can run code of its own",
                "keep the weights as plain dense tensors",
            )

    def _weight(self, entry: dict[str, Any], place: str) -> Weight:
        meta = entry["tensor_meta"]
        member = f"data/{place}/{entry['path_name']}"
        if member not in self._members:
            raise self._refusal(f"holds no {member}")
        dtype = _DTYPES.get(meta["dtype"])
        if dtype is None:
            raise self._refusal(
                f"holds {member} of type {_shown(meta['dtype'])}; float32 is needed",
                "export it after model.float()",
            )
        shape = tuple(self._size(side) for side in meta["sizes"])
        strides = tuple(self._size(side) for side in meta["strides"])
        offset = self._size(meta["storage_offset"])
        if len(shape) > _MOST_RANK or len(strides) != len(shape):
            raise self._refusal(f"holds {member} with a broken shape")
        there = self._members[member].file_size // np.dtype(dtype).itemsize
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        # Strides of 0 would make much of little.
        if math.prod(shape) and (last >= there or math.prod(shape) > there):
            raise self._refusal(f"holds {member}, which is cut short")
        if 0 in shape:
            raise self._refusal(f"holds {member}, which is empty")
        return Weight(self._members[member].filename, dtype, shape, strides, offset)

    def _output(self, specs: list[Any]) -> str:
        kinds = [kind for spec in specs for kind in spec]
        if kinds != ["user_output"]:
            other = next((kind for kind in kinds if kind != "user_output"), "")
            if other.endswith("mutation"):
                raise self._refusal(
                    "was exported as it trains: it changes its own statistics",
                    "call model.eval() before torch.export.export",
                )
            raise self._refusal(f"gives {len(kinds)} outputs; one row of scores is needed")
        argument = specs[0]["user_output"]["arg"]
        if list(argument) != ["as_tensor"]:
            raise self._refusal("gives no tensor; one row of scores is needed")
        return self._value(argument["as_tensor"])

    def _image(self, meta: dict[str, Any]) -> tuple[int, int]:
        """(height, width); a batch of any size is a batch of 1."""
        sizes = meta["sizes"]
        fixed = [self._size(side) if "as_int" in side else None for side in sizes]
        if _DTYPES.get(meta["dtype"]) != "float32":
            raise self._refusal("takes no float32; an image of floats is needed")
        if len(fixed) != 4 or fixed[1] != 3:
            raise self._refusal(f"takes {_sides(fixed)}; an RGB image [1, 3, H, W] is needed")
        if fixed[0] not in (None, 1):
            raise self._refusal(f"has a fixed batch of {fixed[0]}; 1 is needed", "export it with 1")
        if fixed[2] is None or fixed[3] is None:
            raise self._refusal(
                "takes any height and width; a TFLite has one", "export it with a fixed size"
            )
        if not 1 <= fixed[2] <= 4096 or not 1 <= fixed[3] <= 4096:
            raise self._refusal(f"takes {_sides(fixed)}; sides of 1 to 4096 are known")
        return fixed[2], fixed[3]

    def _classes(self, meta: dict[str, Any]) -> int:
        sizes = meta["sizes"]
        fixed = [self._size(side) if "as_int" in side else None for side in sizes]
        if len(fixed) != 2 or fixed[0] not in (None, 1) or fixed[1] is None:
            raise self._refusal(f"gives {_sides(fixed)}; scores [1, classes] are needed")
        if fixed[1] < 2:
            raise self._refusal("gives one score; a classifier of two or more classes is needed")
        return fixed[1]

    def _size(self, side: dict[str, Any]) -> int:
        """A side, a stride or an offset."""
        value = side["as_int"]
        if type(value) is not int or not 0 <= value < 1 << 40:
            raise self._refusal(f"holds the size {_shown(value)}")
        return value

    # Nodes

    def _nodes(self, nodes: list[Any], known: set[str]) -> Iterator[dict[str, Any]]:
        if len(nodes) > _MOST_NODES:
            raise self._refusal(f"has {len(nodes)} operators; {_MOST_NODES} are the most")
        for node in nodes:
            target = node["target"]
            short = target.removeprefix("torch.ops.") if isinstance(target, str) else ""
            if short == target or short not in _allowed():
                raise self._refusal(
                    f"has the operator {_shown(target)}, which is not known to be harmless",
                    "operators of your own, loops and branches are not converted",
                )
            arguments: list[Any] = []
            named: dict[str, Any] = {}
            for given in node["inputs"]:
                value = self._argument(given["arg"], known, short)
                if given.get("kind", 1) == 2:
                    named[self._name(given["name"])] = value
                else:
                    arguments.append(value)
                self._refuse_training(short, given["name"], value)
            made = [self._made(output) for output in node["outputs"]]
            flat = [n for m in made for n in (m if isinstance(m, list) else [m])]
            known |= {name for name in flat if name is not None}
            yield {
                "operator": short,
                "arguments": arguments,
                "named": named,
                "makes": flat,
                "list": any(isinstance(m, list) for m in made),
            }

    def _refuse_training(self, operator: str, name: str, value: tuple[str, Any]) -> None:
        """Dropout and batch normalization as they are in training."""
        if name in ("train", "training", "use_input_stats") and value != ("plain", False):
            raise self._refusal(
                f"was exported as it trains ({operator})",
                "call model.eval() before torch.export.export",
            )

    def _argument(self, argument: dict[str, Any], known: set[str], where: str) -> tuple[str, Any]:
        """(kind, value) as `_torch_process.py` takes them."""
        ((kind, value),) = argument.items()
        if kind == "as_none":
            return "plain", None
        if kind in ("as_tensor", "as_sym_int"):
            return self._used(value, known)
        if kind in ("as_tensors", "as_sym_ints", "as_optional_tensors"):
            return "list", [self._used(item, known) for item in self._few(value)]
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
        raise self._refusal(f"gives {where} an argument {_shown(kind)}, which is not known")

    def _used(self, value: dict[str, Any], known: set[str]) -> tuple[str, Any]:
        """A value that stands before, or a number in the place of one."""
        if value.get("as_none"):
            return "plain", None
        if "as_int" in value:
            return "plain", self._plain(value["as_int"])
        name = self._value(value.get("as_tensor") or value)
        if name not in known:
            raise self._refusal(f"uses {_shown(name)} before it is made")
        return "value", name

    def _made(self, output: dict[str, Any]) -> str | list[str] | None:
        ((kind, value),) = output.items()
        if kind == "as_none":
            return None
        if kind in ("as_tensor", "as_sym_int"):
            return self._value(value)
        if kind == "as_tensors":
            return [self._value(item) for item in self._few(value)]
        raise self._refusal(f"has an operator that makes {_shown(kind)}, which is not known")

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str) and _WORD.fullmatch(value):
            # What JSON has no number for.
            return float(value) if value in ("Infinity", "-Infinity", "NaN") else value
        if isinstance(value, bool | float):
            return value
        if isinstance(value, int) and -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
            return value
        raise self._refusal(f"holds the argument {_shown(value)}, which is not known")

    def _few(self, values: Any) -> list[Any]:
        if not isinstance(values, list) or len(values) > _MOST_ITEMS:
            raise self._refusal("holds a list that is no list, or longer than any needs to be")
        return values

    def _value(self, value: dict[str, Any]) -> str:
        return self._name(value["name"] if "name" in value else value["as_name"])

    def _name(self, name: Any) -> str:
        if not isinstance(name, str) or not _VALUE.fullmatch(name):
            raise self._refusal(f"holds the name {_shown(name)}")
        return name


def _sides(sizes: Iterable[int | None]) -> str:
    return f"[{', '.join('any' if side is None else str(side) for side in sizes)}]"


def _shown(value: Any) -> str:
    """A few of its characters, all of them printable."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


@functools.cache
def _allowed() -> frozenset[str]:
    path = package.PACKAGE / "core" / "allowed" / "torch_operators.txt"
    lines = inputs.text(path, inputs.TABLE).splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))
