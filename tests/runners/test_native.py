from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from mobiledeploy.core import arrays, protocol
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.package import shipped
from mobiledeploy.core.plugins import RUNNERS, RUNTIMES
from mobiledeploy.core.types import Failure, Target
from mobiledeploy.runners import native
from tests.variants import slow_but

KEYS = [("int8_ptq", "tflite"), ("float32", "tflite"), ("int8_ptq", "onnx"), ("float32", "onnx")]


def target(path: Path, delegate: str = "") -> Target:
    runtime = "onnxruntime" if path.suffix == ".onnx" else "litert"
    return Target("host", "native", runtime, 1, delegate)


def argv(path: Path, sample: str | None = None, delegate: str = "") -> tuple[str, ...]:
    where = target(path, delegate)
    files_ = native.files(platform.machine(), where.runtime)
    return native.bench(str(path), where, sample, {k: str(v) for k, v in files_.items()})


def talk(*arguments: str) -> tuple[list[protocol.Event], int]:
    process = subprocess.run(
        arguments, capture_output=True, text=True, timeout=120, stdin=subprocess.PIPE
    )
    return [protocol.parse(line) for line in process.stdout.splitlines()], process.returncode


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_it_gives_the_events_of_the_python_runner(emulator, exported, tmp_path, key) -> None:
    same_as_python(exported[key], tmp_path)


def test_it_accepts_uint8_ends(emulator, unsigned, tmp_path) -> None:
    same_as_python(unsigned / "int8_ptq.tflite", tmp_path)


def same_as_python(path: Path, tmp_path: Path) -> None:
    engine = RUNTIMES.load(target(path).runtime).open(
        path, threads=1, delegate="xnnpack" if path.suffix == ".tflite" else "none"
    )
    (input_,), (scores,) = engine.inputs, engine.outputs
    dtype = np.dtype(input_.dtype)
    dice = np.random.default_rng(0)
    tensor = (
        dice.integers(-128, 128, input_.shape).astype(dtype)
        if dtype.kind in "iu"
        else dice.uniform(-1, 1, input_.shape).astype(dtype)
    )
    sample, output = tmp_path / "with space.bin", tmp_path / "out.bin"
    sample.write_bytes(tensor.tobytes())
    process = subprocess.Popen(
        [*argv(path, str(sample)), "--max-runs", "30", "--output", str(output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    message = [protocol.parse(line) for line in process.stdout]
    assert process.wait() == 0
    process.communicate()
    ready, *times, end = message
    assert isinstance(ready, protocol.Ready)
    assert isinstance(end, protocol.Done)
    assert sum(len(t.samples_ns) for t in times if isinstance(t, protocol.Timed)) == 30
    assert ready.version == RUNTIMES.load(target(path).runtime).version()
    assert [(t.name, t.shape) for t in ready.inputs] == [(input_.name, input_.shape)]
    assert ([t.dtype for t in ready.outputs], ready.threads) == ([scores.dtype], 1)
    answer = np.frombuffer(output.read_bytes(), scores.dtype).reshape(scores.shape)
    np.testing.assert_array_equal(answer, engine.run([tensor])[0])
    assert 1e6 < end.peak_rss_bytes < 500e6


@pytest.mark.parametrize("recipe", ["int8_ptq", "int16x8_ptq", "dynamic_int8", "float16"])
@pytest.mark.parametrize("delegate", ["xnnpack", "none"])
def test_it_counts_delegated_operators(emulator, exported, recipe: str, delegate: str) -> None:
    """All, most or none of them, as reported by the Python runner's engine."""
    path = exported[recipe, "tflite"]
    engine = RUNTIMES.load("litert").open(path, threads=1, delegate=delegate)
    (ready, *_), status = talk(*argv(path, delegate=delegate), "--max-runs", "1")
    assert status == 0
    assert isinstance(ready, protocol.Ready)
    nodes = (ready.delegated_nodes, ready.total_nodes)
    assert nodes == (engine.delegated_nodes, engine.total_nodes)
    assert ready.left_nodes == (None if delegate == "none" else engine.left_nodes)


@pytest.mark.parametrize("recipe", slow_but(["float32", "int8_ptq", "int16x8_ptq"], "int8_ptq"))
def test_a_gpu_runs_it_and_tells_what_it_leaves(
    emulator, exported, software_gpu, tmp_path, recipe: str
) -> None:
    """LiteRT's own accelerator, on a GPU that is a program."""
    path, answers = exported[recipe, "tflite"], {}
    for delegate in ("gpu", "none"):
        output = tmp_path / delegate
        # Its input stays open: its end would end it before its first run.
        with subprocess.Popen(
            [*argv(path, delegate=delegate), "--max-runs", "2", "--output", str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            ready, *_ = map(protocol.parse, process.stdout.read().splitlines())
        assert process.returncode == 0
        assert isinstance(ready, protocol.Ready)
        assert ready.delegate == delegate
        (tensor,) = ready.outputs
        answers[delegate] = np.frombuffer(output.read_bytes(), tensor.dtype).astype(np.float64)
        if delegate == "gpu":
            assert "SwiftShader" in ready.adapter
            assert ready.left_nodes is None
            if recipe == "int16x8_ptq":
                assert 0 < ready.delegated_nodes < ready.total_nodes
                assert any(text.startswith("SOFTMAX: ") for text in ready.left_reasons)
            else:
                assert ready.delegated_nodes == ready.total_nodes
                assert ready.left_reasons == ()
    assert np.any(answers["none"])
    apart = np.max(np.abs(answers["gpu"] - answers["none"]))
    assert apart < (1e-5 if recipe == "float32" else 2.5)


def test_a_machine_without_a_gpu_says_so(emulator, exported, monkeypatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent")
    (failure,), status = talk(*argv(exported["float32", "tflite"], delegate="gpu"))
    assert status == 5
    assert isinstance(failure, protocol.Failure)
    assert "on a GPU here" in failure.message
    assert "Vulkan" in failure.hint


def test_a_library_without_its_accelerator_says_so(emulator, exported, tmp_path) -> None:
    arguments = list(argv(exported["float32", "tflite"], delegate="gpu"))
    place = arguments.index("--library") + 1
    alone = tmp_path / "libLiteRt.so"
    alone.symlink_to(arguments[place])
    arguments[place] = str(alone)
    (failure,), status = talk(*arguments)
    assert status == 6
    assert isinstance(failure, protocol.Failure)
    assert "libLiteRtWebGpuAccelerator.so, which is not beside" in failure.message


def test_a_cold_start_tells_its_steps_and_loads_the_model_once(emulator, exported) -> None:
    for key, has_load in ((("int8_ptq", "tflite"), True), (("float32", "onnx"), False)):
        path = exported[key]
        where = target(path)
        files_ = native.files(platform.machine(), where.runtime)
        argv_ = native.cold(str(path), where, None, {k: str(v) for k, v in files_.items()})
        # Its input stays open, as that of a session does: its end would end it, at whatever step.
        with subprocess.Popen(
            argv_, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            ready, loaded, times, end = map(protocol.parse, process.stdout.read().splitlines())
        assert process.returncode == 0
        assert isinstance(ready, protocol.Ready)
        # Counting them would load the model before.
        assert ready.delegated_nodes is None
        assert isinstance(loaded, protocol.Loaded)
        assert loaded.library_ns
        assert loaded.prepare_ns > 0
        assert (loaded.load_ns is not None) == has_load
        assert isinstance(times, protocol.Timed)
        assert len(times.samples_ns) == 1
        assert isinstance(end, protocol.Done)


def test_it_reads_the_clocks_around_its_runs(emulator, exported, tmp_path) -> None:
    clocks = tmp_path / "time_in_state"
    clocks.write_text("300000 5\n2800000 80\n")
    arguments = (*argv(exported["float32", "tflite"]), "--max-runs", "1", "--clocks")
    *_, end = talk(*arguments, str(clocks))[0]
    assert isinstance(end, protocol.Done)
    assert end.clocks == ("300000:5 2800000:80 ",) * 2
    # A machine that does not tell them.
    *_, end = talk(*arguments, str(tmp_path / "absent"))[0]
    assert isinstance(end, protocol.Done)
    assert end.clocks == ()


def test_the_end_of_its_input_ends_it(emulator, exported) -> None:
    process = subprocess.run(
        argv(exported["int8_ptq", "tflite"]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    ready, *_, last = map(protocol.parse, process.stdout.splitlines())
    assert isinstance(ready, protocol.Ready)
    assert isinstance(last, protocol.Done)


def test_refusals_are_events_with_the_exit_code(emulator, exported, tmp_path) -> None:
    path = exported["int8_ptq", "tflite"]
    plain = argv(path)
    (tmp_path / "short.bin").write_bytes(b"1")
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for name, kind, sides in (
        ("open", onnx.TensorProto.FLOAT, [1, 3, "width"]),
        ("deep", onnx.TensorProto.FLOAT, [1] * 9),
        ("text", onnx.TensorProto.STRING, [1, 3]),
        ("huge", onnx.TensorProto.FLOAT, [1 << 40, 1 << 40]),
        ("sequence", onnx.TensorProto.FLOAT, [1, 3]),
    ):
        ends = [onnx.helper.make_tensor_value_info(end, kind, sides) for end in "xy"]
        operator = "SequenceConstruct" if name == "sequence" else "Identity"
        if name == "sequence":
            ends[1] = onnx.helper.make_tensor_sequence_value_info("y", kind, sides)
        same = onnx.helper.make_node(operator, ["x"], ["y"])
        graph = onnx.helper.make_graph([same], name, ends[:1], ends[1:])
        opset = onnx.helper.make_opsetid("", 17)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
        onnx.save(model, tmp_path / f"{name}.onnx")
    for arguments, code, words in (
        (argv(path, delegate="npu"), 2, "no delegate 'npu'"),
        (argv(exported["float32", "onnx"], delegate="xnnpack"), 2, "no delegate 'xnnpack'"),
        (argv(path, sample=str(tmp_path / "short.bin")), 7, "less than the 12288 bytes"),
        (argv(path, sample=str(tmp_path / "none.bin")), 7, "cannot be opened"),
        (argv(tmp_path / "broken.tflite"), 7, "litert cannot load broken.tflite"),
        (argv(tmp_path / "broken.onnx"), 7, "onnxruntime cannot load broken.onnx"),
        (argv(tmp_path / "open.onnx"), 7, "axis 2 of an input or output is open"),
        (argv(tmp_path / "deep.onnx"), 7, "9 axes, 8 are the most"),
        (argv(tmp_path / "text.onnx"), 7, "an input or output of element type 8"),
        (argv(tmp_path / "huge.onnx"), 7, "of more bytes than can be counted"),
        (argv(tmp_path / "sequence.onnx"), 7, "an input or output that is no tensor"),
        ((*plain, "--library", str(tmp_path / 'no"lib.so')), 6, 'no"lib.so'),
        ((*plain, "--threads", "0"), 2, "--threads 0 is no number from 1 to 64"),
        ((*plain, "--marks", "--threads", "2"), 2, "of one thread"),
        ((*plain, "--marks"), 2, "needs --max-runs"),
        ((*plain, "--marks", "--max-runs", "1", "--cold"), 2, "--cold is for times"),
        ((plain[0], "answer", *plain[2:], "--cold"), 2, "are for bench"),
        ((*plain, "--colour"), 2, "--colour needs a value"),
        ((*plain, "--colour", "red"), 2, "no option --colour"),
        ((plain[0], "predict"), 2, "can bench and answer only"),
        ((*plain, "--runtime", "tensorflow"), 2, "no runtime 'tensorflow'"),
    ):
        events, status = talk(*arguments)
        assert isinstance(events[-1], Failure), arguments
        assert (status, events[-1].exit_code) == (code, code)
        assert words in events[-1].message


def test_it_can_be_pinned_to_a_core(emulator, exported) -> None:
    plain = argv(exported["int8_ptq", "tflite"])
    message, status = talk(*plain, "--cpus", "0x1", "--max-runs", "2")
    assert (status, type(message[-1])) == (0, protocol.Done)
    message, status = talk(*plain, "--cpus", hex(1 << 62), "--max-runs", "2")
    assert status == 5
    assert isinstance(message[-1], Failure)


def test_it_is_on_the_shelf_and_runs_no_layers() -> None:
    assert RUNNERS.load("native").runtimes() == ("litert", "onnxruntime")
    with pytest.raises(UsageError, match="runs whole models only"):
        native.layers(Target("host", "native", "litert", 1, ""))


def answer_argv(path: Path) -> tuple[str, ...]:
    where = target(path)
    files_ = native.files(platform.machine(), where.runtime)
    return native.predict(str(path), where, {k: str(v) for k, v in files_.items()})


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_it_answers_raw_inputs(emulator, exported, key) -> None:
    path = exported[key]
    engine = RUNTIMES.load(target(path).runtime).open(
        path, threads=1, delegate="xnnpack" if path.suffix == ".tflite" else "none"
    )
    (input_,) = engine.inputs
    dice = np.random.default_rng(0)
    dtype = np.dtype(input_.dtype)
    tensors = [
        dice.integers(-128, 128, input_.shape).astype(dtype)
        if dtype.kind in "iu"
        else dice.uniform(-1, 1, input_.shape).astype(dtype)
        for _ in range(3)
    ]
    lines = [protocol.raw_inputs(7 * n, tensor.tobytes()) for n, tensor in enumerate(tensors)]
    process = subprocess.run(
        answer_argv(path), input="\n".join(lines), capture_output=True, text=True, timeout=120
    )
    ready, *answers, done = map(protocol.parse, process.stdout.splitlines())
    assert process.returncode == 0
    assert isinstance(ready, protocol.Ready)
    assert isinstance(done, protocol.Done)
    for number, (one, tensor) in enumerate(zip(answers, tensors, strict=True)):
        assert isinstance(one, protocol.RawAnswer)
        assert one.index == 7 * number
        (raw,) = arrays.raw(protocol.raw_outputs(one), ready.outputs)
        np.testing.assert_array_equal(raw, engine.run([tensor])[0])


DAMAGES = {
    "another checksum": lambda line: line.replace(" ", " 1", 1),
    "too short": lambda line: line[:-8],
    "too long": lambda line: line + "A" * 200,
    "no base64": lambda line: line[:200] + "*" + line[201:],
    "other text": lambda line: "hello",
    "nothing": lambda line: "",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_inputs_that_arrive_damaged_are_refused(emulator, exported, damage) -> None:
    path = exported["int8_ptq", "tflite"]
    line = DAMAGES[damage](protocol.raw_inputs(3, bytes(64 * 64 * 3))) + "\n"
    process = subprocess.run(
        answer_argv(path), input=line, capture_output=True, text=True, timeout=120
    )
    last = protocol.parse(process.stdout.splitlines()[-1])
    assert isinstance(last, Failure)
    assert (process.returncode, last.exit_code) == (5, 5)
    words = "arrived damaged" if damage == "another checksum" else "are not the 12288 bytes"
    assert words in last.message


@pytest.mark.slow
def test_it_builds_with_cmake(emulator, exported, tmp_path) -> None:
    if not (shutil.which("cmake") and shutil.which("cc")):
        pytest.skip("no cmake or no C compiler named cc (apt install cmake gcc)")
    for step in (
        ["-S", str(shipped("android_bench")), "-B", str(tmp_path)],
        ["--build", str(tmp_path)],
    ):
        subprocess.run(["cmake", *step], check=True, capture_output=True)
    plain = argv(exported["float32", "onnx"])
    message, status = talk(str(tmp_path / "runner"), *plain[1:], "--max-runs", "2")
    assert (status, type(message[-1])) == (0, protocol.Done)
    assert (tmp_path / "libcounter.so").is_file()
    assert sys.platform == "linux"
