"""Bad inputs by a grammar: each is a command line, and the files and settings that it meets.

`make` draws one. It depends on its dice alone, so that a number and a seed bring it back.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import flatbuffers
import h5py
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.cli._settings import Output
from mobiledeploy.cli.main import cli
from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.steps.baseline import Accepted, seal

# Where the sound files lie in the folder that a command runs in (see _sound_files.py).
NET = "net/int8_ptq.tflite"
FLOAT = "net/float32.tflite"
ONNX = "net/int8_ptq.onnx"
OWN = ("--input-range", "-1,1", "--data", "photos")
SMALL = ("--arch", "mobilenet_v1", "--alpha", "0.25", "--res", "32")
TRAIN = ("train", *SMALL, "--data", "photos", "--epochs", "1", "--out", "made")
EXPORT = ("export", "own.h5", *OWN, "--recipe", "float32", "--format", "tflite", "--out", "made")
GRID = ("--weights", "random", "--data", "photos", "--recipe", "float32", "--format", "tflite")
SWEEP = ("sweep", *SMALL, *GRID, "--device", "", "--jobs", "1", "--out", "made")

SOUND: dict[str, tuple[str, ...]] = {
    "app": ("app", NET, "--language", "python", "--out", "made"),
    "choose": ("choose", "--device", "pixel-3", "--max-latency", "10ms"),
    "models": ("models", "mobilenet_v1"),
    "analyze": ("analyze", NET),
    "train": TRAIN,
    "export": EXPORT,
    "evaluate": ("evaluate", NET, "--data", "photos"),
    "verify": ("verify", NET),
    "check": ("check", NET, "--baseline", "baseline.json"),
    "bench": ("bench", NET, "--runs", "6"),
    "bundle": ("bundle", NET, "--out", "made.zip"),
    "devices": ("devices",),
    "devices calibrate": ("devices", "calibrate", "card", "--csv", "measured.csv"),
    "diff": ("diff", NET, ONNX),
    "sweep": SWEEP,
    "results": ("results",),
    "results calibration": ("results", "calibration"),
    "results compared": ("results", "compared"),
    "results cold": ("results", "cold"),
    "results evaluated": ("results", "evaluated"),
    "results export": ("results", "export", "made.jsonl"),
    "results import": ("results", "import", "results.jsonl"),
    "results regress": ("results", "regress", "results.jsonl"),
    "report": ("report", "--out", "made.html"),
    "doctor": ("doctor",),
}
"""A sound command line of each command, beside the sound files."""

MAKES = ("made*", ".mobiledeploy")
"""What sound command lines leave."""


@dataclass
class Case:
    """One bad input.

    Attributes:
        kind: what is bad about it, a row of the table.
        argv: the command line, without the program.
        makes: names below the folder that it may leave or change, as patterns of a first part.
        env: variables that are set, or taken away (None).
        whole: whether TensorFlow's processes run; else they are killed as they start.
        reads: pipes that somebody reads.
        stdout: where standard output goes: "file", "/dev/full", "closed", or "left" by its reader.
        most_bytes: that a file may grow to; then the disk is full, so to say.
    """

    kind: str
    argv: list[str]
    makes: tuple[str, ...] = MAKES
    env: dict[str, str | None] = field(default_factory=dict)
    whole: bool = False
    reads: tuple[str, ...] = ()
    stdout: str = "file"
    most_bytes: int | None = None


# --- values ---------------------------------------------------------------------------------

HOSTILE_JSON = (
    "1" + "0" * 400,
    "1" * 5000,
    "1e999",
    "-1e999",
    "NaN",
    "-Infinity",
    str(2**70),
    str(2**63),
    str(-(2**63)),
    "-1",
    "0",
    "0.5",
    "1e308",
    "-0.0",
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    '""',
    '"\\ud800"',
    '"\\udc80"',
    '"\\u0000"',
    '"a\\nb"',
    '"\\u001b[31m"',
    '"' + "x" * 100_000 + '"',
    '"9999-12-31T23:59:59.999999+00:00"',
    '"0001-01-01T00:00:00.000+14:00"',
    '"0001-01-01"',
    '"9999-12-31T23:59:59-14:00"',
    '"../../../../etc/passwd"',
    '"/dev/zero"',
    '"/etc"',
    '"."',
    "[" * 500 + "]" * 500,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
    "[1e999]",
    '[""]',
    "[null]",
    '{"a":1,"a":2}',
    "[" + "0," * 50_000 + "0]",
    '"1e999"',
)

HOSTILE_TOML = (
    "1" + "0" * 400,
    "0x" + "f" * 9000,
    "1e999",
    "nan",
    "-inf",
    str(2**70),
    "-1",
    "0",
    "0.5",
    "true",
    "[]",
    "{}",
    '""',
    '"\\u0000"',
    '"a\\nb"',
    '"\\u001b[31m"',
    '"\ud800"',
    "9" * 5000,
    '"' + "x" * 100_000 + '"',
    "9999-12-31T23:59:59Z",
    "0001-01-01",
    "00:00:00",
    "[[[]]]",
    "[" * 5000 + "]" * 5000,
    "[" * 100_000 + "]" * 100_000,
    "{a = {b = {c = 1}}}",
    '"/dev/zero"',
    '"../../.."',
    "[1, 'a', 0.5]",
    "['']",
    "[nan]",
    '"0.5"',
    '"all"',
    "1979-05-27T07:32:00",
)

HOSTILE_TEXT = (
    "",
    " ",
    "-",
    "--",
    "-1",
    "0",
    "1",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "1e999",
    "1e308",
    "1e-320",
    "9" * 400,
    "9" * 5000,
    str(2**31),
    str(2**63),
    str(2**70),
    "0x10",
    "1_0",
    "٣",
    "½",
    "0.1.2",
    ",",
    ",,",
    "1,",
    "1,2",
    "1,2,3",
    "0,0",
    "nan,nan",
    "1e999,1",
    "0,0,0",
    "1," * 5000,
    "all",
    "none",
    "demo",
    "random",
    "host",
    "a\nb",
    "\x1b[31m",
    "\x7f",
    "é",
    "日本",
    "🙂",
    "\udcff",
    "\udced\udca0\udc80",
    "a" * 5000,
    "%s%n",
    "{0}",
    "$(id)",
    "../..",
    "/",
    ".",
    "~",
    "host:",
    "replay:",
    "replay:/",
    "adb:-h",
    "pixel-3",
    "emulator:",
    "emulator:no",
    "9999-12-31T23:59:59+00:00",
    "0001-01-01T00:00+14:00",
    "2026-02-30",
    "None",
    "True",
    "litert",
    "tflite",
    "1e5000",
    "1M",
    "-5MB",
    "1e999M",
    "nanM",
    "float32,float32",
    "mobilenet_v1",
    "vgg16",
)
# Sound where they are one, and then an honest order that takes hours.
LONG = {
    "--epochs",
    "--runs",
    "--rounds",
    "--threads",
    "--jobs",
    "--batch",
    "--emulator",
    "--executor",
}


def _bits(dice: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 3, 30)) if changed else 0):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _numbers(dice: random.Random, content: bytes) -> bytes:
    """Extreme 32-bit numbers where the file has some number."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 2, 8)) if len(changed) > 8 else 0):
        at = dice.randrange(len(changed) // 4 - 1) * 4
        changed[at : at + 4] = dice.choice(
            (b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0" * 4, b"\1\0\0\0")
        )
    return bytes(changed)


def _moved(dice: random.Random, content: bytes) -> bytes:
    """A slice of it once more, elsewhere."""
    if not content:
        return b"\0"
    start, at = dice.randrange(len(content)), dice.randrange(len(content))
    piece = content[start : start + dice.randrange(1, 2000)]
    if dice.random() < 0.5:
        return content[:at] + piece + content[at:]
    return content[:at] + piece + content[at + len(piece) :]


DAMAGE: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    lambda dice, content: content[: dice.randrange(len(content) + 1)],
    lambda dice, content: content[: -dice.randrange(1, 64)],
    lambda dice, content: content + dice.randbytes(dice.randrange(1, 4096)),
    lambda dice, content: content + content,
    lambda dice, content: dice.choice((b"", b"\0", b"\n", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"{}")),
    lambda dice, content: dice.randbytes(dice.randrange(1, 4096)),
    lambda dice, content: content[dice.randrange(1, 64) :],
    _bits,
    _bits,
    _bits,
    _numbers,
    _numbers,
    _numbers,
    _moved,
    _moved,
)


def _damage(dice: random.Random, path: Path) -> None:
    """Bytes of the file become others; or those of a file of another kind."""
    if dice.random() < 0.1:
        others = [p for p in sorted(path.parent.iterdir()) if p.is_file() and p != path]
        path.write_bytes(dice.choice(others).read_bytes() if others else b"")
        return
    path.write_bytes(dice.choice(DAMAGE)(dice, path.read_bytes()))


def _members(dice: random.Random, path: Path) -> None:
    """A member of a zip archive is damaged, and the archive is sound."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = dice.randrange(len(members))
    with zipfile.ZipFile(path, "w", dice.choice((0, 8, 12, 14))) as archive:
        for number, (name, content) in enumerate(members):
            if number != at:
                archive.writestr(name, content)
                continue
            for _ in range(dice.choice((0, 1, 1, 1))):
                changed = dice.choice(DAMAGE)(dice, content)
                archive.writestr(dice.choice((name, name, name, "../out", "x.txt")), changed)


# --- JSON -----------------------------------------------------------------------------------


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of parsed JSON, also of JSON that a string of it holds (`_Text`)."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        # Of a thousand samples, a few.
        items = node.items() if isinstance(node, dict) else enumerate(node[:4])
        for key, value in list(items):
            if isinstance(value, str) and value[:1] == "{":
                with suppress(ValueError):
                    value = node[key] = _Text(json.loads(value))
            yield node, key
            waiting += [value] if isinstance(value, dict | list) else []


class _Text(dict[str, Any]):
    """JSON that stands in a string."""


def _dumps(tree: Any) -> str:
    """JSON; a string `@number@` becomes that hostile value."""

    def plain(node: Any) -> Any:
        if isinstance(node, _Text):
            return _dumps(dict(node))
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items()}
        return [plain(value) for value in node] if isinstance(node, list) else node

    text = json.dumps(plain(tree))
    return re.sub(r'\\*"@(\d+)@\\*"', lambda found: HOSTILE_JSON[int(found[1])], text)


def _json(dice: random.Random, text: str) -> str:
    """JSON with one to three hostile values in it."""
    if dice.random() < 0.05:
        return dice.choice(HOSTILE_JSON)
    tree = json.loads(text)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        node, key = dice.choice(places)
        match dice.choice(("value",) * 6 + ("gone", "new", "other", "none", "long")):
            case "value":
                node[key] = f"@{dice.randrange(len(HOSTILE_JSON))}@"
            case "gone":
                del node[key]
            case "new" if isinstance(node, dict):
                node[dice.choice(("x", "", "\ud800", "a\nb", "record"))] = "@0@"
            case "other":
                node[key] = dice.choice(places)[0]
                if _deep(tree):
                    node[key] = 0
            case "none" if isinstance(node[key], list | dict):
                node[key] = type(node[key])()
            case "long" if isinstance(node[key], list):
                node[key] = node[key] * dice.choice((2, 1000))
    written = _dumps(tree)
    if dice.random() < 0.1 and (names := re.findall(r'"\w+":', written)):
        name = dice.choice(names)
        written = written.replace(name, f"{name} {dice.choice(HOSTILE_JSON)}, {name}", 1)
    return written


def _deep(tree: Any) -> bool:
    try:
        json.dumps(tree)
    except (ValueError, RecursionError):  # a circle
        return True
    return False


def _write(path: Path, text: str) -> None:
    # A half of a surrogate pair, as UTF-8 must not have it; or a byte that is none.
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _change_json(dice: random.Random, path: Path) -> None:
    if dice.random() < 0.15:
        _damage(dice, path)
    else:
        _write(path, _json(dice, path.read_text("utf-8")))


def _change_lines(dice: random.Random, path: Path) -> None:
    """A line of JSON is changed, comes twice, or is another's."""
    lines = path.read_text("utf-8").splitlines()
    at = dice.randrange(len(lines))
    match dice.choice(("json",) * 8 + ("twice", "order", "blank", "bytes", "bom")):
        case "json":
            lines[at] = _json(dice, lines[at])
        case "twice":
            lines += [lines[at], _json(dice, lines[at])]
        case "order":
            dice.shuffle(lines)
            lines[at] = _json(dice, lines[at])
        case "blank":
            lines[at] = dice.choice(("", " ", "\0", "[]", "{}", "null", '"x"'))
        case "bom":
            lines[0] = "\ufeff" + lines[0]
        case "bytes":
            return _damage(dice, path)
    return _write(path, "\n".join(lines) + dice.choice(("", "\n", "\n\n")))


def _fit_record(path: Path) -> None:
    """The record speaks of the file as it is now, so that the file is opened."""
    record = path.with_name(path.name + ".json")
    tree = json.loads(record.read_text("utf-8"))
    tree["sha256"] = records.sha256(path.read_bytes())
    tree["size_bytes"] = path.stat().st_size
    _write(record, json.dumps(tree))


def _fit_seals(path: Path) -> None:
    """The entries of a baseline have fitting seals, where they are entries still."""
    try:
        tree = json.loads(path.read_text("utf-8"))
        for entry in tree["entries"]:
            sealed = records.decode(Accepted, entry)
            entry["seal"] = seal(dataclasses.replace(sealed, seal=""))
    except (ValueError, TypeError, KeyError, RecursionError, InputError):
        return
    _write(path, json.dumps(tree))


# --- models, with other values where they have fields ---------------------------------------

HOSTILE_NUMBERS = (-1, 0, 1, 3, 99, 255, 2**15, -(2**31), 2**31 - 1, 2**32 - 1, 2**63 - 1)
HOSTILE_FLOATS = (0.0, -1.0, 1e-38, 1e38, float("inf"), float("nan"))
HOSTILE_NAMES = ("", "a\nb", "\x1b[31m", "x" * 5000, "../out", "é", "image", "scores")


def _other(dice: random.Random, value: Any) -> Any:
    """A hostile value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return dice.choice((*HOSTILE_NUMBERS, value + 1, value * 2))
    if isinstance(value, float):
        return dice.choice(HOSTILE_FLOATS)
    name = dice.choice(HOSTILE_NAMES)
    return name.encode() if isinstance(value, bytes) else name


def _change_list(dice: random.Random, values: Any) -> None:
    at = dice.randrange(len(values))
    match dice.choice(("value", "value", "gone", "twice")):
        case "gone":
            del values[at]
        case "twice":
            values.append(values[at])
        case _ if isinstance(values[at], bool | int | float | str | bytes):
            values[at] = _other(dice, values[at])


def _change_onnx(dice: random.Random, path: Path) -> None:
    model = onnx.load_model_from_string(path.read_bytes())
    for _ in range(dice.choice((1, 1, 2, 4))):
        found, waiting = [], [model]
        while waiting:
            message = waiting.pop()
            for field_, value in message.ListFields():
                found.append((message, field_, value))
                if field_.message_type:
                    waiting += value if field_.is_repeated else [value]
        message, field_, value = dice.choice(found)
        # Some numbers do not go into the field; then it is as it was.
        with suppress(TypeError, ValueError, OverflowError):
            if field_.is_repeated:
                _change_list(dice, value)
            elif field_.message_type or dice.random() < 0.2:
                message.ClearField(field_.name)
            else:
                setattr(message, field_.name, _other(dice, value))
    path.write_bytes(model.SerializeToString())


def _change_tflite(dice: random.Random, path: Path) -> None:
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content)
    for _ in range(dice.choice((1, 1, 2, 4))):
        found, waiting = [], [model]
        while waiting:
            table = waiting.pop()
            for name, value in vars(table).items():
                if isinstance(value, np.ndarray):
                    value = value.tolist()
                    setattr(table, name, value)
                found.append((table, name, value))
                several = value if isinstance(value, list) else [value]
                waiting += [inner for inner in several if hasattr(inner, "__dict__")]
        table, name, value = dice.choice(found)
        if isinstance(value, list) and value:
            _change_list(dice, value)
        elif isinstance(value, bool | int | float | bytes):
            setattr(table, name, _other(dice, value))
        elif dice.random() < 0.5:
            setattr(table, name, None)
    builder = flatbuffers.Builder()
    # What the format has no place for is not written; the file is then as it was.
    with suppress(TypeError, ValueError, AttributeError, struct.error, OverflowError):
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def _change_keras(dice: random.Random, path: Path) -> None:
    """The configuration of a model is other JSON."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            told = file.attrs["model_config"]
            file.attrs["model_config"] = _json(dice, told).encode("utf-8", "surrogatepass")[:60_000]
        return
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    told = _json(dice, members["config.json"].decode())
    members["config.json"] = told.encode("utf-8", "surrogatepass")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


# --- paths ----------------------------------------------------------------------------------


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe"


def _link(target: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / "link").symlink_to(target)
        return "link"

    return make


def _circle(folder: Path) -> str:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    return "one"


def _closed(folder: Path) -> str:
    shutil.copy(folder / NET, folder / "closed")
    (folder / "closed").chmod(0)
    return "closed"


def _socket(folder: Path) -> str:
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
    return "socket"


def _large(folder: Path) -> str:
    with (folder / "large").open("wb") as stream:
        stream.truncate(1 << 40)
    return "large"


def _named(name: str) -> Callable[[Path], str]:
    """A sound file under a name that is none's."""

    def make(folder: Path) -> str:
        shutil.copy(folder / NET, folder / name)
        return name

    return make


def _text(text: str) -> Callable[[Path], str]:
    return lambda folder: text


BAD_FILES: tuple[Callable[[Path], str], ...] = (
    _pipe,
    _link("/dev/zero"),
    _link("/dev/null"),
    _link("nowhere"),
    _link("photos"),
    _circle,
    _closed,
    _socket,
    _large,
    _named("a\nb"),
    _named("-x"),
    _named("\udcff\udc80"),
    _named("é\x1b"),
    _named("x" * 255),
    _text(""),
    _text("."),
    _text(".."),
    _text("/"),
    _text("photos"),
    _text("/dev/null"),
    _text("/dev/zero"),
    _text("/dev/full"),
    _text("/dev/stdin"),
    _text("/proc/self/mem"),
    _text("/proc/self/fd/0"),
    _text("/proc/self/environ"),
    _text("x" * 256),
    _text("x/" * 3000),
    _text("missing"),
    _text("missing/x"),
    _text("~"),
    _text(f"{NET}/x"),
    _text("labels.txt"),
    _text("own.h5"),
    _text("measured.csv"),
    _text("-"),
    _text("\udced\udca0\udc80"),
)

IN = "\0"  # stands for the hostile path
TAKES_FILE: tuple[tuple[str, ...], ...] = (
    ("analyze", IN),
    ("analyze", IN, "--quantization"),
    ("analyze", NET, "--labels", IN),
    ("analyze", NET, "--quantization", "--data", IN),
    ("analyze", "--arch", IN),
    ("export", IN, *OWN, "--out", "made"),
    (*EXPORT, "--labels", IN),
    (*EXPORT, "--data", IN),
    ("export", *SMALL, "--weights", IN, "--data", "photos", "--out", "made"),
    (*TRAIN, "--data", IN),
    (*TRAIN, "--init", IN),
    (*TRAIN, "--teacher", IN),
    (*TRAIN, "--labels", IN),
    ("evaluate", IN),
    ("evaluate", NET, "--data", IN),
    ("evaluate", NET, "--data", "photos", "--labels", IN),
    ("verify", IN),
    ("verify", NET, "--pipeline", IN),
    ("check", IN, "--baseline", "baseline.json"),
    ("check", NET, "--baseline", IN),
    ("check", NET, "--baseline", "baseline.json", "--data", IN),
    ("bundle", IN, "--out", "made.zip"),
    ("bundle", NET, "--out", "made.zip", "--baseline", IN),
    ("bundle", "--verify", IN),
    ("bundle", "--reproduce", IN, "--out", "made"),
    ("bench", IN, "--runs", "6"),
    ("bench", NET, IN, "--runs", "6", "--compare"),
    ("bench", NET, "--device", f"replay:{IN}"),
    ("bench", NET, "--device", "adb", "--adb", IN),
    ("bench", NET, "--device", IN),
    ("bench", NET, "--runner", "benchmark_model", "--benchmark-model", IN),
    ("devices", "calibrate", "card", "--csv", IN),
    ("devices", "calibrate", "card", IN),
    ("devices", "calibrate", IN, NET),
    ("diff", IN, NET),
    ("diff", "figure.json", IN),
    ("results", "import", IN),
    ("results", "regress", IN),
    (*SWEEP, "--data", IN),
    (*SWEEP, "--weights", IN),
    ("models", IN),
)


def _input_path(dice: random.Random, folder: Path) -> Case:
    line = dice.choice(TAKES_FILE)
    path = dice.choice(BAD_FILES)(folder)
    return Case("a path that is no file", [part.replace(IN, path) for part in line])


WRITES: tuple[tuple[str, ...], ...] = (
    ("report", "--out", IN),
    *(("report", "--format", f, "--out", IN) for f in ("svg", "markdown", "csv", "json", "png")),
    ("check", NET, "--baseline", "baseline.json", "--junit", IN),
    ("check", NET, "--baseline", "baseline.json", "--markdown", IN),
    ("check", NET, "--baseline", IN, "--update-baseline"),
    ("bundle", NET, "--out", IN),
    ("bench", NET, "--runs", "6", "--record", IN),
    ("results", "export", IN),
    ("results", "regress", "results.jsonl", "--junit", IN),
    ("analyze", NET, "--quantization", "--plot", IN),
    ("analyze", NET, "--model-explorer", IN),
    ("diff", FLOAT, NET, "--html", IN),
    (*EXPORT, "--out", IN),
    (*TRAIN, "--out", IN),
    (*SWEEP, "--out", IN),
)


def _folder_that_is_read_only(folder: Path) -> str:
    (folder / "sealed").mkdir()
    (folder / "sealed" / "made").write_text("before")
    (folder / "sealed").chmod(0o555)
    return "sealed/made"


def _folder_that_is_closed(folder: Path) -> str:
    (folder / "sealed").mkdir()
    (folder / "sealed").chmod(0)
    return "sealed/made"


def _file_with_a_link(folder: Path) -> str:
    (folder / "made-there").write_text("before")
    (folder / "link").symlink_to("made-there")
    return "link"


def _loose_link(folder: Path) -> str:
    (folder / "link").symlink_to("made-there")
    return "link"


BAD_PLACES: tuple[Callable[[Path], str], ...] = (
    _pipe,
    _circle,
    _socket,
    _folder_that_is_read_only,
    _folder_that_is_closed,
    _file_with_a_link,
    _loose_link,
    _link("/dev/full"),
    _link("/dev/null"),
    _link("missing/x"),
    _text(""),
    _text("."),
    _text("photos"),
    _text("/"),
    _text("/dev/null"),
    _text("/dev/full"),
    _text("/dev/stdout"),
    _text("/dev/stderr"),
    _text("/dev/fd/9"),
    _text("/proc/self/mem"),
    _text("/proc/x"),
    _text("missing/made"),
    _text("x" * 256),
    _text("x/" * 3000),
    _text(f"{NET}/x"),
    _text("-made"),
    _text("made\nx"),
    _text("made\udcff"),
    _text("\udced\udca0"),
    _text("/etc/made"),
    _text("made.\x1b"),
)


def _output_path(dice: random.Random, folder: Path) -> Case:
    line = dice.choice(WRITES)
    path = dice.choice(BAD_PLACES)(folder)
    reads = ("pipe",) if path == "pipe" else ()
    # A name that is odd, but one that a file can have.
    named = () if len(path) > 255 or "/" in path else (path,)
    return Case(
        "a place for a result",
        [part.replace(IN, path) for part in line],
        reads=reads,
        makes=(*MAKES, *named),
    )


def _no_room(dice: random.Random, folder: Path) -> Case:
    """A disk that is full, a standard output that takes nothing, or a folder of somebody else."""
    line = list(dice.choice((*SOUND.values(), *(w for w in WRITES if len(w) < 8))))
    case = Case("no room to write", [part.replace(IN, "made") for part in line])
    match dice.choice(("limit", "limit", "full", "left", "closed", "folder", "temporary")):
        case "limit":
            case.most_bytes = dice.choice((0, 1, 100, 4096, 20_000))
        case "folder":
            folder.chmod(0o555)
        case "temporary":
            case.env["TMPDIR"] = dice.choice(("missing", "/proc", "", "labels.txt", "x" * 300))
        case where:
            case.stdout = {"full": "/dev/full"}.get(where, where)
            case.argv += dice.choice(([], ["--json"]))
    return case


# --- options, settings, environment -----------------------------------------------------------


def _commands() -> dict[str, click.Command]:
    """Each command by its name, "results import" among them."""
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    waiting = [("", name, cli) for name in cli.list_commands(context)]
    while waiting:
        before, name, group = waiting.pop()
        command = group.get_command(context, name)
        assert command is not None
        full = f"{before} {name}".strip()
        found[full] = command
        if isinstance(command, click.Group):
            waiting += [(full, inner, command) for inner in command.commands]
    return dict(sorted(found.items()))


COMMANDS = _commands()


def _options(name: str) -> list[click.Option]:
    return [
        p for p in COMMANDS[name].params if isinstance(p, click.Option) and not LONG & set(p.opts)
    ]


def _option(dice: random.Random, folder: Path) -> Case:
    """A value that an option cannot mean."""
    name = dice.choice(list(COMMANDS))
    argv, makes = list(SOUND[name]), MAKES
    for option in dice.sample(options := _options(name), min(len(options), dice.choice((1, 1, 2)))):
        flag = dice.choice(option.opts)
        value = dice.choice(HOSTILE_TEXT)
        if option.is_flag:
            argv += [flag, flag]
        elif flag.startswith("--") and dice.random() < 0.5:
            argv.append(f"{flag}={value}")
        else:
            argv += [flag, value]
        # As a place for a result it may be a name that a file can have.
        makes += (value,) if isinstance(option, Output) and not option.is_flag else ()
    return Case("an option's value", argv, makes=makes)


def _words(dice: random.Random, folder: Path) -> Case:
    """A command line that is none: words too many, too few, in the wrong order."""
    line = list(SOUND[dice.choice(list(SOUND))])
    match dice.choice(("more", "less", "order", "option", "command", "twice")):
        case "more":
            line.insert(dice.randrange(len(line) + 1), dice.choice(HOSTILE_TEXT))
        case "less":
            del line[dice.randrange(len(line))]
        case "order":
            dice.shuffle(line)
        case "option":
            line.append(f"--{dice.choice(HOSTILE_TEXT)}")
        case "command":
            line[0] = dice.choice(HOSTILE_TEXT)
        case "twice":
            line += line[1:]
    # What is left out may leave an order that takes long.
    return Case("a command line", line, makes=(*MAKES, "build", "runs", "report.html"))


def _toml(dice: random.Random, name: str) -> str:
    tables = [f"[{name}]", f"[{name.split()[0]}]", "[nothing]", "[[export]]", "[a.b.c]"]
    lines = [dice.choice(tables[:2] * 5 + tables)]
    flags = [max(o.opts, key=len).lstrip("-") for o in _options(name)]
    for flag in dice.sample(flags, min(len(flags), dice.randrange(1, 4))):
        key = dice.choice((flag, flag, flag, flag.replace("-", "_"), f'"{flag}"', "unknown", '""'))
        lines.append(f"{key} = {dice.choice(HOSTILE_TOML)}")
    if dice.random() < 0.1:
        lines.append(dice.choice(lines))
    return "\n".join(lines) + "\n"


def _settings(dice: random.Random, folder: Path) -> Case:
    """A settings file: the folder's, the project's, or the user's own."""
    name = dice.choice(list(COMMANDS))
    own = folder.parent / "home" / "config" / "mobiledeploy"
    text = _toml(dice, name)
    match dice.choice(("folder", "project", "own")):
        case "folder":
            path = folder / "mobiledeploy.toml"
        case "project":
            path = folder / "pyproject.toml"
            text = re.sub(r"(?m)^\[(?!\[)([a-z. ]+)\]$", r"[tool.mobiledeploy.\1]", text)
        case _:
            own.mkdir(parents=True)
            path = own / "mobiledeploy.toml"
    if dice.random() < 0.2:
        target = dice.choice(BAD_FILES)(folder)
        if len(target) < 200:
            path.symlink_to(folder / target)
    else:
        _write(path, text)
        if dice.random() < 0.2:
            _damage(dice, path)
    argv = list(SOUND[name])
    return Case("a settings file", argv, makes=(*MAKES, "build", "runs"))


VARIABLES = (
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "MOBILEDEPLOY_STORE",
    "TMPDIR",
    "COLUMNS",
    "LINES",
    "TERM",
    "NO_COLOR",
    "FORCE_COLOR",
    "LANG",
    "LC_ALL",
    "PATH",
    "TZ",
    "ANDROID_HOME",
    "ANDROID_SERIAL",
    "GITHUB_STEP_SUMMARY",
    "GITHUB_ACTIONS",
    "TF_CONFIG",
    "SOURCE_DATE_EPOCH",
    "PYTHONIOENCODING",
    "PYTHONUTF8",
    "MOBILEDEPLOY_REAL_DATA",
    "USER",
    "OMP_NUM_THREADS",
    "MOBILEDEPLOY_NOTHING",
    "PYTHONWARNINGS",
    "http_proxy",
)


def _environment(dice: random.Random, folder: Path) -> Case:
    """Variables that say what cannot be."""
    name = dice.choice(list(COMMANDS))
    case = Case("the environment", list(SOUND[name]), makes=(*MAKES, "build", "runs"))
    if name == "check" and dice.random() < 0.5:
        case.argv.append("--github")
    for _ in range(dice.choice((1, 1, 2, 3))):
        variable = dice.choice(VARIABLES)
        if dice.random() < 0.3 and (flags := _options(name)):
            flag = max(dice.choice(flags).opts, key=len).lstrip("-").upper().replace("-", "_")
            variable = f"MOBILEDEPLOY_{name.upper().replace(' ', '_')}_{flag}"
        if dice.random() < 0.5:
            case.env[variable] = dice.choice(("", "relative", "/dev/null", "/", "-1", "1e999"))
            continue
        case.env[variable] = dice.choice((*HOSTILE_TEXT, dice.choice(BAD_FILES[15:])(folder)))
    return case


# --- files of each kind -------------------------------------------------------------------------

READ_MODEL: dict[str, tuple[tuple[str, ...], ...]] = {
    "tflite": (
        ("analyze", NET),
        ("analyze", NET, "--quantization"),
        SOUND["bench"],
        SOUND["evaluate"],
        SOUND["verify"],
        SOUND["check"],
        SOUND["diff"],
        ("diff", FLOAT, NET, "--activations"),
        ("bench", NET, "--device", "pixel-3"),
        ("bench", FLOAT, NET, "--runs", "6", "--compare"),
        SOUND["devices calibrate"],
    ),
    "onnx": (
        ("analyze", ONNX),
        ("analyze", ONNX, "--quantization"),
        ("bench", ONNX, "--runs", "6"),
        ("evaluate", ONNX, "--data", "photos"),
        ("verify", ONNX),
        ("check", ONNX, "--baseline", "baseline.json"),
        SOUND["diff"],
        ("bench", ONNX, "--device", "pixel-3"),
    ),
}


def _finished(format_: str) -> Callable[[random.Random, Path], Case]:
    def make(dice: random.Random, folder: Path) -> Case:
        path = folder / f"net/{dice.choice(('int8_ptq', 'int8_ptq', 'float32'))}.{format_}"
        change = _change_onnx if format_ == "onnx" else _change_tflite
        dice.choice((_damage, change, change))(dice, path)
        if dice.random() < 0.8:
            _fit_record(path)
        return Case(f"a damaged .{format_}", list(dice.choice(READ_MODEL[format_])))

    return make


def _model(name: str, whole: bool) -> Callable[[random.Random, Path], Case]:
    def make(dice: random.Random, folder: Path) -> Case:
        path = folder / name
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            path = dice.choice((path / "saved_model.pb", dice.choice(inside)))
        if name == "saved":
            _damage(dice, path)
        else:
            more = (_members,) if name.endswith(".keras") else ()
            dice.choice((_damage, _change_keras, _change_keras, *more))(dice, path)
        lines = (("analyze", name), ("export", name, *EXPORT[2:]))
        if name.endswith(".h5"):
            lines += (
                ("export", *SMALL, "--weights", name, "--data", "photos", "--out", "made"),
                (*TRAIN, "--init", name),
                (*TRAIN, "--teacher", name),
            )
        kind = f"a damaged {Path(name).suffix or 'SavedModel'}"
        return Case(
            kind + (", TensorFlow runs" if whole else ""), list(dice.choice(lines)), whole=whole
        )

    return make


def _archive(dice: random.Random, folder: Path) -> Case:
    path = folder / "images.npz"
    dice.choice((_damage, _members, _members))(dice, path)
    lines = (
        ("evaluate", NET, "--data", "images.npz"),
        ("verify", NET, "--pipeline", "images.npz"),
        ("check", NET, "--baseline", "baseline.json", "--data", "images.npz"),
        ("analyze", NET, "--quantization", "--data", "images.npz"),
        (*EXPORT, "--data", "images.npz"),
        (*TRAIN, "--data", "images.npz"),
    )
    return Case("a damaged .npz", list(dice.choice(lines)))


def _image(dice: random.Random, folder: Path) -> Case:
    golden = dice.random() < 0.4
    folders = (folder / "net" / "golden",) if golden else (folder / "photos" / c for c in "ab")
    images = sorted(p for place in folders for p in place.iterdir())
    for path in dice.sample(images, min(len(images), dice.choice((1, 2, 3, 30)))):
        if dice.random() < 0.2:
            target = dice.choice(BAD_FILES[:9])
            path.unlink()
            if not (folder / "bad").exists():
                (folder / "bad").mkdir()
                (folder / "bad" / "net").symlink_to("../net")
                made = target(folder / "bad")
                path.symlink_to(folder / "bad" / made)
        else:
            _damage(dice, path)
    lines = (
        (SOUND["verify"], ("analyze", NET, "--quantization"), ("diff", FLOAT, NET, "--activations"))
        if golden
        else (SOUND["evaluate"], SOUND["check"], EXPORT, TRAIN, SOUND["bench"])
    )
    return Case("a damaged image", list(dice.choice(lines)))


def _record(dice: random.Random, folder: Path) -> Case:
    format_ = dice.choice(("tflite", "onnx"))
    _change_json(dice, folder / f"net/int8_ptq.{format_}.json")
    return Case("a record", list(dice.choice((*READ_MODEL[format_], (*EXPORT, "--out", ".")))))


def _baseline(dice: random.Random, folder: Path) -> Case:
    path = folder / "baseline.json"
    _change_json(dice, path)
    if dice.random() < 0.8:
        _fit_seals(path)
    more = dice.choice(((), ("--update-baseline",), ("--no-labels",), ("--github",)))
    return Case("a baseline", [*SOUND["check"], *more], makes=(*MAKES, "baseline.json"))


def _recording(dice: random.Random, folder: Path) -> Case:
    _change_json(dice, folder / "recording.json")
    return Case("a recording", ["bench", NET, "--device", "replay:recording.json"])


def _results(dice: random.Random, folder: Path) -> Case:
    _change_lines(dice, folder / "results.jsonl")
    after = dice.choice((("results", "import"), ("results", "import"), ("results", "regress")))
    if dice.random() < 0.5:
        shutil.rmtree(folder / ".mobiledeploy")
    return Case("results", [*after, "results.jsonl"])


def _figure(dice: random.Random, folder: Path) -> Case:
    _change_json(dice, folder / "figure.json")
    pair = ["figure.json", "other.json"]
    dice.shuffle(pair)
    return Case("a figure", ["diff", *pair])


def _labels(dice: random.Random, folder: Path) -> Case:
    path = folder / "labels.txt"
    if dice.random() < 0.5:
        _damage(dice, path)
    else:
        names = [dice.choice((*HOSTILE_TEXT, "a", "b")) for _ in range(dice.choice((1, 2, 2, 9)))]
        _write(path, dice.choice(("\n", "\r\n", "\0", "\u2028")).join(names))
    lines = (
        (*SOUND["evaluate"], "--labels", "labels.txt"),
        (*EXPORT, "--labels", "labels.txt"),
        ("analyze", NET, "--labels", "labels.txt"),
        (*SOUND["check"], "--labels", "labels.txt"),
        (*TRAIN, "--labels", "labels.txt"),
    )
    return Case("labels", list(dice.choice(lines)))


def _table(dice: random.Random, folder: Path) -> Case:
    path = folder / "measured.csv"
    if dice.random() < 0.3:
        _damage(dice, path)
    else:
        rows = path.read_text().splitlines()
        cells = rows[at := dice.randrange(len(rows))].split(",")
        cells[dice.randrange(len(cells))] = dice.choice(
            (*HOSTILE_TEXT, '"', '"a\n', dice.choice(BAD_FILES[15:])(folder))
        )
        rows[at] = ",".join(cells)
        _write(path, "\n".join(rows))
    return Case("a table", list(SOUND["devices calibrate"]))


def _card(dice: random.Random, folder: Path) -> Case:
    """A card of the user's own, of a device or of a model."""
    kind = dice.choice(("devices", "models"))
    place = folder.parent / "home" / "config" / "mobiledeploy" / kind
    place.mkdir(parents=True)
    path = place / "mine.toml"
    shutil.copy(folder / f"{kind}.toml", path)
    if dice.random() < 0.3:
        _damage(dice, path)
    else:
        lines = path.read_text().splitlines()
        settings = [n for n, line in enumerate(lines) if re.match(r"\w+ = \S+$", line)]
        for at in dice.sample(settings, dice.choice((1, 1, 2))):
            lines[at] = f"{lines[at].split(' = ')[0]} = {dice.choice(HOSTILE_TOML)}"
        _write(path, "\n".join(lines))
    lines_ = (
        (("bench", NET, "--device", "mine"), ("devices",), ("bench", NET, "--device", "mine"))
        if kind == "devices"
        else (
            ("models",),
            ("models", "mine"),
            ("analyze", "--best", "--max-mult-adds", "1M"),
            ("analyze", "--arch", "mine"),
            (*EXPORT[:1], "--arch", "mine", *EXPORT[2:]),
            ("train", "--arch", "mine", *TRAIN[3:]),
            ("sweep", "--arch", "mine", *SWEEP[3:]),
        )
    )
    return Case("a card", list(dice.choice(lines_)))


def _store(dice: random.Random, folder: Path) -> Case:
    path = folder / ".mobiledeploy" / "store.db"
    makes = MAKES
    if dice.random() < 0.2:
        path.unlink()
        place = dice.choice(BAD_FILES[:9])(folder)
        path.symlink_to(folder / place)
        # The store is made where a link to it leads.
        makes = (*MAKES, "nowhere")
    else:
        _damage(dice, path)
    lines = (
        ("results",),
        ("results", "--json"),
        ("results", "compared"),
        SOUND["results export"],
        SOUND["results import"],
        SOUND["results regress"],
        SOUND["report"],
        SOUND["bench"],
        SOUND["check"],
        SOUND["evaluate"],
        SOUND["diff"],
        ("bench",),
        ("diff", "1", "2"),
        SOUND["devices calibrate"],
        SOUND["models"],
        SWEEP,
        EXPORT,
    )
    return Case("a store", list(dice.choice(lines)), makes=makes)


def _training(dice: random.Random, folder: Path) -> Case:
    """The folder that a training left."""
    path = dice.choice(sorted(p for p in (folder / "run").rglob("*") if p.is_file()))
    if path.suffix == ".json":
        _change_json(dice, path)
    else:
        _damage(dice, path)
    lines = (
        ("export", "run", "--data", "photos", "--out", "made"),
        (*TRAIN[:-1], "run"),
        (*TRAIN, "--init", "run"),
        (*TRAIN, "--teacher", "run"),
        ("analyze", "run"),
        (*TRAIN[:-3], "2", "--out", "run"),
    )
    return Case("a training's folder", list(dice.choice(lines)), makes=(*MAKES, "run"))


def _shadow(dice: random.Random, folder: Path) -> Case:
    """Modules and folders of the current folder that bear names of ours and of libraries."""
    name = dice.choice(("numpy", "json", "mobiledeploy", "site", "tensorflow", "PIL", "random"))
    if dice.random() < 0.5:
        (folder / f"{name}.py").write_text("open('canary', 'w')")
    else:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("open('canary', 'w')")
    lines = ("bench", "evaluate", "check", "verify", "analyze", "report", "devices", "results")
    return Case("names of modules", list(SOUND[dice.choice(lines)]))


KINDS: tuple[Callable[[random.Random, Path], Case], ...] = (
    _input_path,
    _output_path,
    _option,
    _words,
    _settings,
    _environment,
    _no_room,
    _record,
    _baseline,
    _recording,
    _results,
    _figure,
    _labels,
    _table,
    _card,
    _store,
    _training,
    _archive,
    _image,
    _finished("tflite"),
    _finished("onnx"),
    _shadow,
    _model("own.h5", False),
    _model("own.keras", False),
    _model("saved", False),
)
WHOLE: tuple[Callable[[random.Random, Path], Case], ...] = (
    _model("own.h5", True),
    _model("own.keras", True),
    _model("saved", True),
)
EVERY = 33
"""One input in so many has TensorFlow run."""


def make(seed: int, number: int, folder: Path) -> Case:
    """Input `number` of `seed`; its files are changed in `folder`, which holds the sound ones."""
    dice = random.Random(f"{seed}/{number}")
    if number % EVERY == EVERY - 1:
        return WHOLE[number // EVERY % len(WHOLE)](dice, folder)
    return KINDS[number % len(KINDS)](dice, folder)
