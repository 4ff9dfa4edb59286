"""What every runtime does, on every file that it takes; each in a process of its own, as in use."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS, RECIPES, RUNTIMES

NAMES = RUNTIMES.names()

REMEDY = "pip install 'mobiledeploy[all]'; tflite_runtime has wheels for Python 3.11 only"

# Opens a model, runs it on a ramp, says what there is to know as one JSON line.
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.plugins import RUNTIMES
name, model, threads, delegate = sys.argv[1:]
runtime = RUNTIMES.load(name)
try:
    engine = runtime.open(
        Path(model), threads=int(threads), delegate=delegate or runtime.DELEGATES[0]
    )
    (input_,), (output,) = engine.inputs, engine.outputs
    ramp = np.arange(np.prod(input_.shape)).reshape(input_.shape)
    dtype = np.dtype(input_.dtype)
    tensor = (ramp % 256 - 128).astype(dtype) if dtype.kind == "i" else np.sin(ramp).astype(dtype)
    (first,), (second,) = engine.run([tensor]), engine.run([tensor])
    engine.load([np.zeros_like(tensor)]); engine.invoke()
    result = dict(
        version=runtime.version(), formats=runtime.FORMATS, delegates=runtime.DELEGATES,
        input=[input_.shape, input_.dtype, input_.scale],
        output=[output.shape, output.dtype], delegate=engine.delegate,
        nodes=[engine.delegated_nodes, engine.total_nodes], answer=first.tolist(),
        same=bool((first == second).all()), dtype=first.dtype.name,
    )
    try:
        engine.load([tensor[:, 1:]])
    except DeployError as error:
        result["misfit"] = error.exit_code
except DeployError as error:
    result = dict(exit_code=error.exit_code, error=str(error))
print(json.dumps(result))
sys.exit("tensorflow" in sys.modules)
"""


def need(name: str) -> None:
    """Skips the test where the runtime's package is not installed."""
    package = RUNTIMES.load(name).PACKAGE
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed ({REMEDY})")


def runs(name: str, model: Path, threads: int = 1, delegate: str = "") -> tuple[dict, str]:
    need(name)
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(model), str(threads), delegate],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(process.stdout), process.stderr


@pytest.fixture(scope="session", params=NAMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def file(exported: Mapping[tuple[str, str], Path], runtime: str, recipe: str) -> Path:
    """The file of a recipe that a runtime takes."""
    (format_,) = RUNTIMES.load(runtime).FORMATS
    return exported[recipe, format_]


@pytest.mark.parametrize(
    "trained", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "trained"]
)
def test_it_runs_every_exported_file_of_its_formats(exported, runtime: str, trained) -> None:
    recipes = [
        recipe
        for recipe, format_ in exported
        if format_ in RUNTIMES.load(runtime).FORMATS
        and bool(RECIPES.load(recipe).RECIPE.training) == trained
    ]
    assert recipes
    for recipe in recipes:
        path = file(exported, runtime, recipe)
        result, stderr = runs(runtime, path)
        data = RECIPES.load(recipe).RECIPE
        bits = data.activation_bits if data.full_integer else 0
        assert sorted(result["input"][0]) == [1, 3, 64, 64]
        assert result["output"][0] == [1, 12]
        assert result["input"][1] == result["output"][1] == (f"int{bits}" if bits else "float32")
        assert result["same"]
        assert result["dtype"] == result["output"][1]
        assert result["misfit"] == 7
        # A softmax, whatever else: int8 has steps of 1/256 from -128, int16 of 1/32768 from 0.
        answer = np.asarray(result["answer"], np.float64)
        real = {8: (answer + 128) / 256, 16: answer / 32768, 0: answer}[bits]
        assert real.sum() == pytest.approx(1, abs=0.05)
        assert stderr == ""


def test_threads_do_not_change_the_answer(exported, runtime: str) -> None:
    path = file(exported, runtime, "int8_ptq")
    assert runs(runtime, path, threads=1)[0] == runs(runtime, path, threads=2)[0]


def test_every_requested_delegate_runs(exported, runtime: str) -> None:
    path = file(exported, runtime, "float32")
    answers = {}
    for delegate in runs(runtime, path)[0]["delegates"]:
        result, _ = runs(runtime, path, delegate=delegate)
        assert result["delegate"] == delegate
        answers[delegate] = np.asarray(result["answer"])
        delegated, total = result["nodes"]
        if total is not None:
            assert (delegated == total) if delegate == "xnnpack" else (delegated == 0)
    first, *others = answers.values()
    assert all(np.abs(first - other).max() < 1e-5 for other in others)


def test_delegated_operators_are_counted(exported) -> None:
    # XNNPACK has no kernels for convolutions with weights of 4 bits.
    result, _ = runs("litert", file(exported, "litert", "int8x4_ptq"))
    delegated, total = result["nodes"]
    assert 0 < delegated < total
    result, _ = runs("tflite_runtime", file(exported, "tflite_runtime", "int8_ptq"))
    assert result["nodes"][0] == 0 < result["nodes"][1]


def test_it_never_uses_another_delegate_instead(exported, runtime: str) -> None:
    result, _ = runs(runtime, file(exported, runtime, "float32"), delegate="gpu")
    assert result["exit_code"] == 2
    assert "no delegate 'gpu'; there " in result["error"]


def test_it_says_which_files_it_supports(exported, runtime: str) -> None:
    formats = RUNTIMES.load(runtime).FORMATS
    other = exported["float32", next(f for f in ("tflite", "onnx") if f not in formats)]
    result, _ = runs(runtime, other)
    assert result["exit_code"] == 2
    assert f"{runtime} runs ." in result["error"]


@pytest.mark.parametrize("damage", ["text", "truncated", "absent"])
def test_a_broken_model_is_named_in_one_line(exported, runtime, damage, tmp_path) -> None:
    whole = file(exported, runtime, "float32")
    path = tmp_path / whole.name
    if damage == "text":
        path.write_text("This is not a model.\n" * 50)
    elif damage == "truncated":
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    try:
        result, _ = runs(runtime, path)
    except subprocess.CalledProcessError as error:
        # The last tflite_runtime maps a file unverified, and may die of one that is cut off. No
        # artifact comes so far: its sha256 is compared first.
        if (runtime, damage, error.returncode) != ("tflite_runtime", "truncated", -signal.SIGSEGV):
            raise
        return
    assert result["exit_code"] == 7
    assert result["error"].startswith(f"{runtime} cannot load {path.name}: ")
    assert "\n" not in result["error"]


def test_tflite_runtime_refuses_numpy_2(exported) -> None:
    if int(np.__version__.partition(".")[0]) < 2:
        pytest.skip(f"numpy is {np.__version__} here, with which tflite_runtime works")
    result, _ = runs("tflite_runtime", exported["float32", "tflite"])
    assert result["exit_code"] == 6
    assert "numpy<2" in result["error"]


PART = """
import json, sys
from pathlib import Path
import numpy as np
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.plugins import RUNTIMES
name, model, count = sys.argv[1:]
try:
    part = RUNTIMES.load(name).part(Path(model), threads=1)
    given = np.load(Path(model).with_suffix(".npy"))
    result = [tensor.tolist() for tensor in part.run([given] * int(count))]
except DeployError as error:
    result = [error.exit_code, str(error)]
print(json.dumps(result))
"""


def test_a_subgraph_may_have_any_number_of_ends(exported, runtime: str, tmp_path: Path) -> None:
    need(runtime)
    source = file(exported, runtime, "float32")
    shelf = FORMATS.load(source.suffix[1:])
    facts = shelf.inspect(source.read_bytes())
    names = [tensor.name for tensor in shelf.activations(facts)][-3:]
    part = tmp_path / f"part{source.suffix}"
    part.write_bytes(shelf.extract_subgraph(source.read_bytes(), ["image"], names))
    np.save(part.with_suffix(".npy"), np.zeros(facts.inputs[0].shape, np.float32))

    def result(count: int) -> list:
        process = subprocess.run(
            [sys.executable, "-c", PART, runtime, str(part), str(count)],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return json.loads(process.stdout)

    answers = result(1)
    assert len(answers) == 3
    assert np.sum(answers[-1]) == pytest.approx(1, abs=1e-4)
    assert result(2)[0] == 7
    part.write_bytes(b"nothing")
    assert result(1)[0] == 7


def test_integers_do_not_saturate_on_any_cpu(tmp_path) -> None:
    """Two products of 255 x 127 are beyond 16 bits, in which AVX2's fast kernels add them."""
    channels, places = 16, 5
    weights = np.full((channels, channels, 1, 1), 127, np.int8)
    weights[::2, 1::2] = -127
    image = np.full((1, channels, places, places), 255, np.uint8)
    step = 8192
    constants = {
        "one": np.float32(1),
        "step": np.float32(step),
        "low": np.uint8(0),
        "middle": np.uint8(128),
        "none": np.int8(0),
        "nil": np.int32(0),
        "w": weights,
        "b": np.arange(channels, dtype=np.int32) * step,
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "one", "low"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "one", "none"], ["real"]),
        helper.make_node("DequantizeLinear", ["b", "one", "nil"], ["bias"]),
        helper.make_node("Conv", ["x", "real", "bias"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "step", "middle"], ["end"]),
    ]
    shape = [1, channels, places, places]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("end", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    path = tmp_path / "large.onnx"
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), path
    )
    exact = weights.reshape(channels, -1).astype(np.int64) @ np.full(channels, 255)
    codes = np.clip(np.rint(exact / step) + np.arange(channels) + 128, 0, 255)
    assert len(set(codes)) > 8
    engine = RUNTIMES.load("onnxruntime").open(path, threads=1, delegate="none")
    answer = engine.run([image])[0][0, :, 0, 0]
    np.testing.assert_array_equal(answer, codes)


def test_a_session_takes_a_scalar_and_a_tensor_that_is_two_outputs(tmp_path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y, y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "scalar.onnx")
    engine = RUNTIMES.load("onnxruntime").open(tmp_path / "scalar.onnx", threads=1, delegate="none")
    answers = engine.run([np.array(2, np.float32)])
    assert [answer.tolist() for answer in answers] == [-2, -2]


def test_a_session_names_a_type_that_is_no_number(tmp_path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "text.onnx")
    with pytest.raises(InputError, match="has string as its input x"):
        RUNTIMES.load("onnxruntime").open(tmp_path / "text.onnx", threads=1, delegate="none")
