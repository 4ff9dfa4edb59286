"""Tiny models whose outputs are the numbers of their input, as artifacts with golden images."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mobiledeploy.core import artifacts, native, records
from mobiledeploy.core.plugins import APPS, FORMATS, RECIPES
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Golden,
    ModelInput,
    ModelOutput,
    ModelSpec,
    Preprocessing,
    Signature,
    Weights,
)
from tests import shared
from tests.lite import Lite
from tests.oracles import environment

SIZE = (12, 10)
PLAIN = Preprocessing((-1.0, 1.0), crop=0.875, labels=tuple("abcdefg"))
SCORES = (ModelOutput("scores", (7,)),)
# The grids of an input: a step and a zero point. Steps are no whole grey levels.
INT8 = ("int8", (0.0081, 3))
UINT8 = ("uint8", (2 / 255, 127))

BROKEN_PPM = [
    (b"P5 2 2 255\n" + bytes(4), "is not a binary PPM of 8 bits"),
    (b"P6 2 2 65535\n" + bytes(24), "is not a binary PPM of 8 bits"),
    (b"P6 99999 99999 255\n", "is not a binary PPM of 8 bits"),
    (b"P6 -2 2 255\n" + bytes(12), "is not a binary PPM of 8 bits"),
    (b"P6 2 2 255\n" + bytes(11), "is cut short"),
    (b"P6 2 2 255", "is cut short"),
    (b"P6 2 2 255\n", "is cut short"),
    (b"", "is not a binary PPM of 8 bits"),
]


def photos(count: int = 3, seed: int = 5) -> list[np.ndarray]:
    """Images of different sizes, larger and smaller than `SIZE`, with edges and colours."""
    dice = np.random.default_rng(seed)
    made = []
    for number in range(count):
        height, width = (int(side) for side in dice.integers(9, 60, 2))
        small = Image.fromarray(dice.integers(0, 256, (7, 6 + number, 3), np.uint8))
        made.append(np.array(small.resize((width, height), Image.Resampling.BICUBIC)))
    return made


def network(
    ends: Sequence[ModelOutput],
    channels: int = 3,
    kind: tuple[str, tuple[float, int]] | None = None,
    names: Sequence[str] = (),
) -> bytes:
    """A TFLite whose outputs are the first numbers of its input, one output after the other."""
    lite = Lite()
    dtype, grid = kind or ("float32", None)
    more = {"dtype": getattr(np, dtype), "grid": grid}
    image = lite.input((1, *SIZE, channels), name="image", **more)

    def shaped(source: int, shape: Sequence[int], name: str | None = None) -> int:
        sides = lite.constant(np.array(shape, np.int32))
        made = lite.tensor(shape, name=name, **more)
        lite.op("RESHAPE", [source, sides], made, options="ReshapeOptions", newShape=list(shape))
        return made

    count = math.prod(SIZE) * channels
    flat, start, outputs = shaped(image, (1, count)), 0, []
    for place, end in enumerate(ends):
        size = math.prod(end.shape)
        part = lite.tensor((1, size), **more)
        limits = [lite.constant(np.array(x, np.int32)) for x in ((0, start), (1, size))]
        lite.op("SLICE", [flat, *limits], part, options="SliceOptions")
        name = names[place] if names else end.name
        outputs.append(shaped(part, (1, *end.shape), name))
        start += size
    assert start <= count
    return lite.file(*outputs)


def onnx_network(
    ends: Sequence[ModelOutput],
    channels: int = 3,
    kind: tuple[str, tuple[float, int]] | None = None,
    names: Sequence[str] = (),
) -> bytes:
    """The same as an ONNX file."""
    dtype = getattr(TensorProto, kind[0].upper()) if kind else TensorProto.FLOAT
    shape = [1, *SIZE, channels]
    names = names or [end.name for end in ends]
    grid, first = ["scale", "zero"], "image"
    nodes, constants = [], []
    if kind:
        constants = [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [kind[1][0]]),
            helper.make_tensor("zero", dtype, [], [kind[1][1]]),
        ]
        first = "real"
        nodes.append(helper.make_node("DequantizeLinear", ["image", *grid], [first]))
    nodes.append(helper.make_node("Flatten", [first], ["flat"]))
    start, numbers = 0, {"axis": [1]}
    for place, end in enumerate(ends):
        size = math.prod(end.shape)
        numbers |= {f"from{place}": [start], f"until{place}": [start + size]}
        numbers[f"sides{place}"] = [1, *end.shape]
        limits = [f"from{place}", f"until{place}", "axis"]
        last = f"real{place}" if kind else names[place]
        nodes += [
            helper.make_node("Slice", ["flat", *limits], [f"part{place}"]),
            helper.make_node("Reshape", [f"part{place}", f"sides{place}"], [last]),
        ]
        if kind:
            nodes.append(helper.make_node("QuantizeLinear", [last, *grid], [names[place]]))
        start += size
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [
            helper.make_tensor_value_info(name, dtype, [1, *end.shape])
            for name, end in zip(names, ends, strict=True)
        ],
        [
            *constants,
            *(
                helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
                for name, values in numbers.items()
            ),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def model(language: str, *arguments: Any, **more: Any) -> tuple[str, bytes]:
    """A format that the language's runtime runs, and `network` in it."""
    if "tflite" in APPS.load(language).FORMATS:
        return "tflite", network(*arguments, **more)
    return "onnx", onnx_network(*arguments, **more)


def artifact(
    folder: Path,
    content: bytes,
    how: Preprocessing = PLAIN,
    task: str = "classification",
    ends: Sequence[ModelOutput] = SCORES,
    images: Sequence[np.ndarray] = (),
    inputs: Sequence[ModelInput] = (),
    kind: str = "tflite",
) -> Path:
    """A model file, its record and its golden images, as an export leaves them.

    Its golden outputs are said to be of another runtime, so that they need not be computed.
    """
    (folder / "golden").mkdir(parents=True)
    names = []
    for pixels in images or photos():
        part = folder / "golden" / "part.png"
        Image.fromarray(pixels).save(part)
        names.append(f"golden/{records.sha256(part)[:16]}.png")
        part.rename(folder / names[-1])
    path = folder / f"model.{kind}"
    path.write_bytes(content)
    facts = FORMATS.load(kind).inspect(content)
    channels = 1 if how.channels == "gray" else 3
    inputs = tuple(inputs) or (ModelInput("image", "image", (*SIZE, channels), how),)
    row = (0.0,) * sum(min(math.prod(end.shape), 1024) for end in ends)
    record = Artifact(
        path=path.name,
        sha256=records.sha256(content),
        size_bytes=len(content),
        gzip_bytes=len(content),
        sparsity=0.0,
        format=kind,
        spec=ModelSpec(
            "tiny",
            None,
            "",
            {},
            SIZE,
            max(ends[0].shape[-1], 2),
            how,
            Weights("", "", False),
            task=task,
        ),
        recipe=RECIPES.load("int8_ptq").RECIPE,
        output="model",
        io="int8",
        layout=facts.layout,
        inputs=facts.inputs,
        outputs=facts.outputs,
        logits=facts.logits,
        golden=Golden(tuple(names), tuple(names), (row,) * len(names), "another 1"),
        sqnr_db=30.0,
        data=DataRef("", "all", SIZE),
        calibration="",
        calibration_images=1,
        key="",
        convert_seconds=1.0,
        tools={},
        signature=Signature(inputs, tuple(ends)),
    )
    records.write_atomic(artifacts.record_path(path), records.dumps(record))
    return path


# How the golden test of each language is run in a finished app


@dataclass(frozen=True)
class Bench:
    """How an app of one language is built and run in the tests.

    `plants` are mistakes: their name -> the file, the right code and the wrong one.
    """

    program: Callable[[Path, str], list[str]]
    plants: dict[str, tuple[str, str, str]]


def run(argv: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """A program of an app, without this package on its path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, argv)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


PYTHON = Bench(
    lambda app, name: [sys.executable, str(app / f"{name}.py")],
    {
        "channels": (
            "preprocess.py",
            'how["channels"] == "bgr"',
            'how["channels"] == "rgb"',
        ),
        "range": ("preprocess.py", "values = low + ", "values = 0 * low + "),
        "rounding": ("preprocess.py", "np.rint(steps)", "np.trunc(steps)"),
        "rounding of uint8": ("preprocess.py", "np.float32(0.501)", "np.float32(0)"),
        "resize": ("preprocess.py", 'FILTERS[how["resize"]]', "Image.Resampling.NEAREST"),
        "answer": ("decode.py", "np.argsort(-scores.as", "np.argsort(scores.as"),
        "axes": ("preprocess.py", '== "NCHW"', '== "NHWC"'),
        "outputs": ("decode.py", '- tensor["zero_point"][0]', "- 0"),
    },
)
CPP = Bench(
    lambda app, name: [str(app / "build" / name)],
    {
        "channels": ("preprocess.cpp", 'contract.channels == "bgr"', 'contract.channels == "rgb"'),
        "range": ("preprocess.cpp", "= contract.low + ", "= 0 * contract.low + "),
        "rounding": ("preprocess.cpp", "std::nearbyint(steps)", "std::trunc(steps)"),
        "rounding of uint8": ("preprocess.cpp", "steps + 0.501f", "steps"),
        "resize": ("preprocess.cpp", "return x < 1 ? 1 - x : 0;", "return x < 0.5;"),
        "answer": ("decode.cpp", "scores[a] > scores[b]", "scores[a] < scores[b]"),
        "axes": ("preprocess.cpp", "contract.channels_first ?", "!contract.channels_first ?"),
        "outputs": ("decode.cpp", "(code - tensor.zero_point)", "(code)"),
    },
)
JAVASCRIPT = Bench(
    lambda app, name: [sys.executable, str(Path(__file__).parent / "browser.py"), str(app), name],
    {
        "channels": ("preprocess.js", 'how.channels === "bgr"', 'how.channels === "rgb"'),
        "range": ("preprocess.js", "const value = low + ", "const value = 0 * low + "),
        "rounding": ("preprocess.js", ": nearest(steps)", ": Math.trunc(steps)"),
        "rounding of uint8": ("preprocess.js", "steps + Math.fround(0.501)", "steps"),
        "resize": (
            "preprocess.js",
            "return Math.max(1 - Math.abs(x), 0)",
            "return Number(Math.abs(x) < 0.5)",
        ),
        "answer": ("decode.js", "scores[b] - scores[a]", "scores[a] - scores[b]"),
        "axes": ("preprocess.js", 'layout === "NCHW"', 'layout === "NHWC"'),
        "outputs": ("decode.js", "(x - zero[0])", "x"),
    },
)
ANDROID = Bench(
    lambda app, name: [
        "java",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        f"{app}/changed:{app}/app.jar",
        "answering.JvmKt",
        *(["--golden-test"] if name == "golden_test" else []),
    ],
    {
        "channels": ("Preprocess.kt", 'contract.channels == "bgr"', 'contract.channels == "rgb"'),
        "range": ("Preprocess.kt", "= contract.low + ", "= 0 * contract.low + "),
        "rounding": ("Preprocess.kt", "else round(steps)", "else steps.toInt().toFloat()"),
        "rounding of uint8": ("Preprocess.kt", "steps + 0.501f", "steps"),
        "resize": ("Preprocess.kt", "max(1 - abs(it), 0.0)", "if (abs(it) < 0.5) 1.0 else 0.0"),
        "answer": ("Decode.kt", "sortedByDescending", "sortedBy"),
        "axes": ("Preprocess.kt", "if (contract.channelsFirst)", "if (!contract.channelsFirst)"),
        "outputs": ("Decode.kt", "(code - tensor.zeroPoint)", "(code)"),
    },
)
LIBRARY = "ai_edge_litert/libLiteRt.so"
OBJECT = "CMakeFiles/golden_test.dir/golden_test.cpp.o"
BENCHES = {"android": ANDROID, "cpp": CPP, "javascript": JAVASCRIPT, "python": PYTHON}


@pytest.fixture(scope="session")
def objects(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build folder of an app in C++, whose programs fit every contract."""
    if not (shutil.which("cmake") and shutil.which("g++")):
        pytest.skip("no compiler for C++ (apt install cmake g++)")

    def build(folder: Path) -> None:
        source = tmp_path_factory.mktemp("cpp") / "app"
        shutil.copytree(Path(APPS.load("cpp").__file__).parent / "cpp-app", source)
        library = native.library(platform.machine(), "ai-edge-litert", LIBRARY)
        for argv in (
            ["cmake", "-B", "build", "-DCMAKE_BUILD_TYPE=Debug", f"-DLITERT_LIBRARY={library}"],
            ["cmake", "--build", "build"],
        ):
            done = run(argv, source)
            assert done.returncode == 0, done.stdout + done.stderr
        for name in ("app", "golden_test", "libanswering.a", OBJECT):
            shutil.copy(source / "build" / name, folder)

    return shared.once(shared_folder / "cpp-app", build)


def kotlinc(arguments: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Kotlin's compiler, from its package of npm."""
    program = environment.package("kotlin")
    if program is None:
        place = environment.package_place("kotlin")
        pytest.skip(f"no compiler for Kotlin at {place} (make oracle)")
    if not shutil.which("java"):
        pytest.skip("no java (apt install default-jre-headless)")
    # It runs once: a better compiled compiler is not worth its time.
    options = "JAVA_OPTS=-Xmx512M -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    return run(["env", options, "bash", program, "-Werror", *arguments], folder)


@pytest.fixture(scope="session")
def jar(shared_folder: Path) -> Path:
    """The program of an app in Kotlin, compiled once by its own command; it fits every contract."""

    def build(folder: Path) -> None:
        _, *arguments = APPS.load("android").COMMANDS[0].split()
        sources = Path(APPS.load("android").__file__).parent / "android-app"
        done = kotlinc([*arguments[:-1], folder / arguments[-1]], sources)
        assert done.returncode == 0, done.stderr

    return shared.once(shared_folder / "android-app", build) / "app.jar"


@pytest.fixture(scope="session")
def modules(shared_folder: Path) -> Path:
    """The folder with the locked packages of an app in JavaScript."""
    for program, package in (("npm", "npm"), ("chromedriver", "chromium-driver")):
        if not shutil.which(program):
            pytest.skip(f"no {program} (apt install {package})")
    pytest.importorskip("selenium", reason="no selenium (mobiledeploy[dev])")

    def install(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(
                Path(APPS.load("javascript").__file__).parent / "javascript-app" / name, folder
            )
        done = run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
        if done.returncode:
            pytest.skip("no packages of npm (npm ci needs a network)")

    return shared.once(shared_folder / "javascript-app", install)


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Callable[[str, Path], None]:
    """Makes an app ready to run: build(language, folder), again after its code was changed."""

    def cpp(app: Path) -> None:
        objects = request.getfixturevalue("objects")
        shutil.copytree(objects, app / "build", dirs_exist_ok=True)
        original = Path(APPS.load("cpp").__file__).parent / "cpp-app"
        changed = [
            name
            for name in ("preprocess.cpp", "decode.cpp")
            if (app / name).read_bytes() != (original / name).read_bytes()
        ]
        if changed:
            library = native.library(platform.machine(), "ai-edge-litert", LIBRARY)
            flags = ["-std=c++17", "-ffp-contract=off", "-o", "build/golden_test"]
            sources = [f"build/{Path(OBJECT).name}", *changed, "build/libanswering.a", library]
            done = run(["g++", *flags, *sources, f"-Wl,-rpath,{library.parent}"], app)
            assert done.returncode == 0, done.stderr

    def android(app: Path) -> None:
        jar = request.getfixturevalue("jar")
        shutil.copy(jar, app)
        original = Path(APPS.load("android").__file__).parent / "android-app"
        changed = [
            name
            for name in ("Preprocess.kt", "Decode.kt")
            if (app / name).read_bytes() != (original / name).read_bytes()
        ]
        if changed:
            done = kotlinc([*changed, "-cp", "app.jar", "-d", "changed"], app)
            assert done.returncode == 0, done.stderr

    def javascript(app: Path) -> None:
        modules = request.getfixturevalue("modules")
        (app / "node_modules").unlink(missing_ok=True)
        (app / "node_modules").symlink_to(modules / "node_modules")
        done = run(["npm", "run", "build"], app)
        assert done.returncode == 0, done.stdout + done.stderr

    def ready(language: str, app: Path) -> None:
        if language == "android":
            android(app)
        if language == "cpp":
            cpp(app)
        if language == "javascript":
            javascript(app)

    return ready
