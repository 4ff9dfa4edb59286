"""Archives of torch.export, made by hand: one that is good, and what hostile ones do to it.

The good one has a convolution and a flatten; bare torch loads it too (`test_pt2_files.py`).
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.files import Hostile

Members = dict[str, bytes]
Change = Callable[[dict[str, Any], dict[str, Any], Members, Path], None]
FLOAT = 7


def meta(*sizes: int) -> dict[str, Any]:
    strides = [int(np.prod(sizes[place + 1 :])) for place in range(len(sizes))]
    return {
        "dtype": FLOAT,
        "sizes": [{"as_int": s} for s in sizes],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": s} for s in strides],
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def node(target: str, made: str, *given: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    inputs = [{"name": name, "arg": argument, "kind": 1} for name, argument in given]
    return {
        "target": target,
        "inputs": inputs,
        "outputs": [tensor(made)],
        "metadata": {},
        "is_hop_single_tensor_return": None,
        "name": made,
    }


def payload(name: str, *sizes: int, pickled: bool = False) -> dict[str, Any]:
    return {"path_name": name, "is_param": True, "use_pickle": pickled, "tensor_meta": meta(*sizes)}


def leaf(kind: str | None, context: str | None, *children: Any) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": list(children)}


def model() -> dict[str, Any]:
    """models/model.json: an image [1, 3, 4, 4] -> scores [1, 2]."""
    nothing = leaf(None, None)
    tree = leaf(
        "builtins.tuple",
        "null",
        leaf("builtins.tuple", "null", nothing),
        leaf("builtins.dict", "[]"),
    )
    graph = {
        "inputs": [tensor("p_w"), tensor("x")],
        "outputs": [tensor("flatten")],
        "nodes": [
            node(
                "torch.ops.aten.conv2d.default",
                "conv2d",
                ("input", tensor("x")),
                ("weight", tensor("p_w")),
            ),
            node(
                "torch.ops.aten.flatten.using_ints",
                "flatten",
                ("self", tensor("conv2d")),
                ("start_dim", {"as_int": 1}),
            ),
        ],
        "tensor_values": {
            "p_w": meta(2, 3, 4, 4),
            "x": meta(1, 3, 4, 4),
            "conv2d": meta(1, 2, 1, 1),
            "flatten": meta(1, 2),
        },
        "sym_int_values": {},
        "sym_bool_values": {},
        "sym_float_values": {},
        "custom_obj_values": {},
        "is_single_tensor_return": False,
    }
    signature = {
        "input_specs": [
            {"parameter": {"arg": {"name": "p_w"}, "parameter_name": "w"}},
            {"user_input": {"arg": tensor("x")}},
        ],
        "output_specs": [{"user_output": {"arg": tensor("flatten")}}],
    }
    calls = {
        "inputs": [],
        "outputs": [],
        "in_spec": json.dumps([1, tree]),
        "out_spec": json.dumps([1, nothing]),
        "forward_arg_names": ["x"],
    }
    return {
        "graph_module": {
            "graph": graph,
            "signature": signature,
            "module_call_graph": [{"fqn": "", "signature": calls}],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {"aten": 10},
        "range_constraints": {},
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["TRAINING"],
        "torch_version": "2.14.1",
        "guards_code": [],
    }


def archive(canary: Path, change: Change | None = None) -> bytes:
    """The good archive, changed: its model, its weights' entries, and its members."""
    program = copy.deepcopy(model())
    entries: dict[str, Any] = {"weights": {"w": payload("weight_0", 2, 3, 4, 4)}, "constants": {}}
    weight = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    members: Members = {
        "data/weights/weight_0": weight.tobytes(),
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"6\n",
        "data/sample_inputs/model.pt": b"",
    }
    if change:
        change(program, entries, members, canary)
    for kind, config in entries.items():
        text = json.dumps({"config": config}).encode()
        members.setdefault(f"data/{kind}/model_{kind}_config.json", text)
    members.setdefault("models/model.json", json.dumps(program).encode())
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(name if name.startswith("/") else f"model/{name}", content)
    return stream.getvalue()


class Leaves:
    """A pickle that leaves the canary when it is read."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._canary), "w")


def hostile(name: str, said: str, change: Change, *, runs: bool = False) -> Hostile:
    def write(folder: Path, canary: Path) -> Path:
        path = folder / "model.pt2"
        path.write_bytes(archive(canary, change))
        return path

    return Hostile(name, write, said, runs)


def pickled_inputs(_: Any, __: Any, members: Members, canary: Path) -> None:
    members["data/sample_inputs/model.pt"] = pickle.dumps(Leaves(canary))


def _pickled_weight(_: Any, entries: Any, members: Members, canary: Path) -> None:
    entries["weights"]["w"]["use_pickle"] = True
    members["data/weights/weight_0"] = pickle.dumps(Leaves(canary))


def _pickled_constant(_: Any, entries: Any, members: Members, canary: Path) -> None:
    entries["constants"]["c"] = payload("tensor_0", 1, pickled=True)
    members["data/constants/tensor_0"] = pickle.dumps(Leaves(canary))


def _object(prefix: str) -> Change:
    def change(_: Any, entries: Any, members: Members, canary: Path) -> None:
        entries["constants"]["c"] = payload(f"{prefix}_0") | {"use_pickle": True}
        members[f"data/constants/{prefix}_0"] = pickle.dumps(Leaves(canary))

    return change


def _object_elsewhere(_: Any, entries: Any, members: Members, canary: Path) -> None:
    """Its member has a plain name."""
    entries["constants"]["c"] = payload("../constants/tensor_0")
    members["data/constants/tensor_0"] = pickle.dumps(Leaves(canary))


def _code(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w')"


def _image_expression(program: Any, _: Any, __: Any, canary: Path) -> None:
    values = program["graph_module"]["graph"]["tensor_values"]
    values["x"]["sizes"][0] = {"as_expr": {"expr_str": _code(canary), "hint": {"as_int": 1}}}


def _inner_expression(program: Any, _: Any, __: Any, canary: Path) -> None:
    values = program["graph_module"]["graph"]["tensor_values"]
    text = f"__import__('os').system('touch {canary}')"
    values["conv2d"]["sizes"][0] = {"as_expr": {"expr_str": text, "hint": None}}


def _power(program: Any, _: Any, __: Any, ___: Path) -> None:
    program["graph_module"]["graph"]["sym_int_values"]["s"] = {
        "as_expr": {"expr_str": "9**9**9**9", "hint": None}
    }


def guards(program: Any, _: Any, __: Any, canary: Path) -> None:
    program["guards_code"] = [f"{_code(canary)} is not None"]


def _operator(target: Any) -> Change:
    def change(program: Any, _: Any, __: Any, ___: Path) -> None:
        program["graph_module"]["graph"]["nodes"][1]["target"] = target

    return change


def _argument(argument: dict[str, Any]) -> Change:
    def change(program: Any, _: Any, __: Any, ___: Path) -> None:
        program["graph_module"]["graph"]["nodes"][1]["inputs"][1]["arg"] = argument

    return change


def _custom_value(program: Any, _: Any, __: Any, ___: Path) -> None:
    values = program["graph_module"]["graph"]["custom_obj_values"]
    values["o"] = {"name": "o", "class_fqn": "os.system"}


def _custom_input(program: Any, _: Any, __: Any, ___: Path) -> None:
    specs = program["graph_module"]["signature"]["input_specs"]
    specs.append({"custom_obj": {"arg": {"name": "o", "class_fqn": "a"}, "custom_obj_name": "o"}})


def _member(name: str, content: bytes = b"") -> Change:
    def change(_: Any, __: Any, members: Members, ___: Path) -> None:
        members[name] = content

    return change


def _weight(**changes: Any) -> Change:
    def change(_: Any, entries: Any, __: Any, ___: Path) -> None:
        entries["weights"]["w"]["tensor_meta"] |= changes

    return change


def _deep(_: Any, __: Any, members: Members, ___: Path) -> None:
    members["models/model.json"] = b"[" * 5000 + b"]" * 5000


def _packed(folder: Path, canary: Path) -> Path:
    """Hundreds of megabytes of zeros in one packed member."""
    path = folder / "model.pt2"
    path.write_bytes(archive(canary))
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file,
        file.open("model/data/weights/weight_1", "w") as member,
    ):
        for _ in range(200):
            member.write(bytes(1 << 20))
    return path


def _overlapping(folder: Path, canary: Path) -> Path:
    """Many members of one and the same bytes."""
    path = folder / "model.pt2"
    path.write_bytes(archive(canary))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("model/data/weights/weight_1", bytes(1 << 20))
        first = file.getinfo("model/data/weights/weight_1")
        for number in range(2, 400):
            again = copy.copy(first)
            again.filename = f"model/data/weights/weight_{number}"
            file.filelist.append(again)
    return path


def _twice(folder: Path, canary: Path) -> Path:
    """Which one is read is up to the reader."""
    path = folder / "model.pt2"
    path.write_bytes(archive(canary))
    with zipfile.ZipFile(path, "a") as file:
        file.filelist.append(copy.copy(file.getinfo("model/models/model.json")))
        file._didModify = True  # type: ignore[attr-defined]
    return path


SYSTEM = "torch.ops.aten.from_file.default"
FILES = [
    hostile("pickled-weight", "as a pickle", _pickled_weight, runs=True),
    hostile("pickled-constant", "as a pickle", _pickled_constant, runs=True),
    hostile("opaque-object", "opaque_obj_0", _object("opaque_obj"), runs=True),
    hostile("custom-object", "custom_obj_0", _object("custom_obj")),
    hostile("object-of-a-plain-name", "custom object ../constants/tensor_0", _object_elsewhere),
    hostile("legacy-constants", "model.pt", _member("data/constants/model.pt")),
    hostile("expression-of-the-image", "expression open(", _image_expression, runs=True),
    hostile("expression-inside", "expression __import__", _inner_expression, runs=True),
    hostile("expression-without-end", "expression 9**9**9**9", _power),
    hostile("file-operator", f"operator {SYSTEM}", _operator(SYSTEM)),
    hostile("own-operator", "operator torch.ops.mine.op", _operator("torch.ops.mine.op.default")),
    hostile("python-function", "operator builtins.eval", _operator("builtins.eval")),
    hostile("attribute-of-torch", "operator torch.ops.aten", _operator("torch.ops.aten.__class__")),
    hostile("load-library", "load_library", _operator("torch.ops.load_library")),
    hostile("operator-of-no-text", "operator ['a']", _operator(["a"])),
    hostile("loop", "while_loop", _operator("torch.ops.higher_order.while_loop")),
    hostile("subgraph", "as_graph", _argument({"as_graph": {"name": "g", "graph": {}}})),
    hostile("operator-argument", "as_operator", _argument({"as_operator": "builtins.eval"})),
    hostile("object-argument", "as_custom_obj", _argument({"as_custom_obj": {"name": "o"}})),
    hostile("text-argument", "the argument", _argument({"as_string": "open('x')"})),
    hostile("huge-argument", "the argument", _argument({"as_int": 1 << 80})),
    hostile("unmade-value", "before it is computed", _argument(tensor("elsewhere"))),
    hostile("custom-value", "custom objects", _custom_value),
    hostile("custom-input", "takes a custom_obj", _custom_input),
    hostile("compiled-library", "aotinductor", _member("data/aotinductor/model/model.so")),
    hostile("unknown-member", "evil.py", _member("evil.py")),
    hostile("path-upwards", "../../evil", _member("extra/../../evil")),
    hostile("path-from-the-root", "more than one folder", _member("/etc/passwd")),
    hostile("two-models", "2 models", _member("models/other.json", b"{}")),
    hostile("before-2.8", "before 2.8", _member("serialized_exported_program.json")),
    hostile("weight-beyond-its-end", "truncated", _weight(storage_offset={"as_int": 1000})),
    hostile(
        "much-of-little",
        "truncated",
        _weight(sizes=[{"as_int": 1 << 30}] * 4, strides=[{"as_int": 0}] * 4),
    ),
    hostile("negative-stride", "the size -1", _weight(strides=[{"as_int": -1}] * 4)),
    hostile("half-of-a-shape", "broken shape", _weight(strides=[])),
    hostile("deep", "nested too deeply", _deep),
    Hostile("packed", _packed, "compressed", runs=False),
    Hostile("overlapping", _overlapping, "claims more bytes than it has", runs=False),
    Hostile("twice", _twice, "twice", runs=False),
]
# What torch would run, and what is never read here.
UNREAD = [
    hostile("sample-inputs", "", pickled_inputs, runs=True),
    hostile("guards", "", guards),
]
