"""Google's benchmark_model: the output of old and new builds as events of PROTOCOL.md."""

from __future__ import annotations

import pytest

from mobiledeploy.core import protocol
from mobiledeploy.core.errors import DeviceError, MissingError, UsageError
from mobiledeploy.core.types import Target
from mobiledeploy.runners import benchmark_model

SHA = "ab" * 32
# As TensorFlow 2.17 and LiteRT print it.
NEW = f"""{SHA}  ./benchmark_model
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [m.tflite]
INFO: Loaded model m.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Replacing 29 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions for subgraph 0.
INFO: The input model file size (MB): 0.98
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602
INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 median=1239807 p95=1247415
INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, Inference (avg): 1.24027e+06
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832
"""  # noqa: E501
# As TensorFlow 2.3 printed it: no prefix, no percentiles.
OLD = """STARTING!
Min num runs: [50]
Loaded model m.tflite
Applied XNNPACK delegate.
Initialized session in 1.579ms.
count=500 first=2217 curr=1003 min=997 max=2217 avg=1019.3 std=77

count=50 first=1012 curr=1004 min=998 max=1050 avg=1004.52 std=9

Inference timings in us: Init: 1579, First inference: 2217, Warmup (avg): 1019.3, Inference (avg): 1004.52
Peak memory footprint (MB): init=1.2 overall=2.5
"""  # noqa: E501
# As TensorFlow 1.14 printed it.
OLDEST = """count=10 curr=1003(all same)
Average inference timings in us: Warmup: 1019, Init: 1579, no stats: 1003
"""


class FinishedProcess:
    """A finished process that printed `text` and ended with `status`."""

    def __init__(self, text: str, status: int = 0) -> None:
        self.text, self.status, self.is_stopped = text, status, False

    def lines(self):
        yield from self.text.splitlines(keepends=True)

    def wait(self):
        return self.status, ""

    def stop(self) -> None:
        self.is_stopped = True

    def kill(self) -> None: ...

    def send(self, line: str) -> None: ...


def events(text: str, delegate: str = "xnnpack", status: int = 0):
    target = Target("adb:1", "benchmark_model", "litert", 2, delegate)
    translated_process = benchmark_model.hear(FinishedProcess(text, status), target)
    return list(protocol.events(translated_process))


def test_what_new_builds_print() -> None:
    ready, timed, again, end = events(NEW + NEW.replace("median=1239807", "median=1240000"))
    assert ready.version == f"benchmark_model {SHA[:12]} (medians of its starts)"
    # Only the lines up to the first figure of either start are about the model.
    assert (ready.delegated_nodes, ready.total_nodes) == (29, 31)
    assert (ready.runtime, ready.threads, ready.delegate) == ("litert", 2, "xnnpack")
    assert timed.samples_ns == (1_239_807_000,)
    assert again.samples_ns == (1_240_000_000,)
    assert end.peak_rss_bytes == round(109.832 * 1024 * 1024)


def test_what_old_builds_print() -> None:
    ready, timed, end = events(OLD)
    assert "(means of its starts)" in ready.version
    assert (ready.delegated_nodes, ready.total_nodes) == (None, None)
    assert timed.samples_ns == (1_004_520,)
    assert end.peak_rss_bytes == round(2.5 * 1024 * 1024)
    _, timed, _ = events(OLDEST)
    assert timed.samples_ns == (1_003_000,)


@pytest.mark.parametrize(
    ("line", "nodes"),
    [
        (
            "Replacing 31 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions.",
            (31, None),
        ),
        (
            "INFO: Replacing 20 out of 31 node(s) with delegate (TfLiteGpuDelegateV2) node, "
            "yielding",
            (20, 31),
        ),
        (
            "Though GPU delegate is explicitly applied, the model graph will not be executed by "
            "the delegate.",
            (0, None),
        ),
        ("Failed to apply GPU delegate.", (0, None)),
        ("", (0, None)),
    ],
)
def test_a_gpu_delegate_is_recognized_by_its_nodes(line: str, nodes) -> None:
    ready = events(f"{line}\n{OLD}", "gpu")[0]
    assert (ready.delegated_nodes, ready.total_nodes) == nodes


LEFT = """ERROR: Following operations are not supported by GPU delegate:
CAST: Not supported Cast case. Input type: INT64 and output type: INT32
CUSTOM TFLite_Detection_PostProcess: TFLite_Detection_PostProcess
62 operations will run on the GPU, and the remaining 2 operations will run on the CPU.
INFO: Replacing 62 out of 64 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions
"""


def test_what_a_gpu_leaves_is_read_with_its_reason() -> None:
    ready = events(LEFT + LEFT + NEW, "gpu")[0]
    assert ready.left_reasons == (
        "CAST: Not supported Cast case. Input type: INT64 and output type: INT32",
        "CUSTOM TFLite_Detection_PostProcess: TFLite_Detection_PostProcess",
    )
    assert events(NEW, "gpu")[0].left_reasons == ()
    without_end = "".join(line for line in LEFT.splitlines(True) if "will run on" not in line)
    assert events(without_end + NEW, "gpu")[0].left_reasons == ready.left_reasons


def test_nnapi_is_recognized_by_its_nodes() -> None:
    line = "INFO: Replacing 31 out of 31 node(s) with delegate (TfLiteNnapiDelegate) node, yielding"
    ready = events(f"{line} 1 partitions\n{OLD}", "nnapi")[0]
    assert (ready.delegate, ready.delegated_nodes, ready.total_nodes) == ("nnapi", 31, 31)
    assert events(OLD, "nnapi")[0].delegated_nodes == 0


def test_what_goes_wrong_is_named() -> None:
    with pytest.raises(DeviceError, match="made no run"):
        events(NEW.replace("count=50 ", "count=0 ").replace("median=", "mid="))
    with pytest.raises(DeviceError, match="ended with status 1 .*; Failed to load model"):
        events("INFO: STARTING!\nERROR: Failed to load model m.tflite\n", status=1)
    with pytest.raises(DeviceError, match="killed by signal 9"):
        events(NEW, status=-9)
    with pytest.raises(DeviceError, match="before it was done"):
        events("")
    with pytest.raises(DeviceError, match="instead of a number"):
        events(NEW.replace("median=1239807", "median=1-2e"))
    with pytest.raises(DeviceError, match="printed '1e999' instead of a number"):
        events(NEW.replace("median=1239807", "median=1e999"))
    assert events(NEW.replace("count=50 ", f"count={'9' * 5000} ")) == events(NEW)


def test_how_it_is_called(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MOBILEDEPLOY_BENCHMARK_MODEL", raising=False)
    with pytest.raises(MissingError, match="give --benchmark-model FILE"):
        benchmark_model.files("aarch64", "litert")
    monkeypatch.setenv("MOBILEDEPLOY_BENCHMARK_MODEL", str(tmp_path / "none"))
    with pytest.raises(MissingError, match="there is no file"):
        benchmark_model.files("aarch64", "litert")
    program = tmp_path / "benchmark_model"
    program.touch()
    monkeypatch.setenv("MOBILEDEPLOY_BENCHMARK_MODEL", str(program))
    assert benchmark_model.files("aarch64", "litert") == {"program": program}
    target = Target("adb:1", "benchmark_model", "litert", 4, "gpu")
    argv = benchmark_model.bench("/data/m.tflite", target, None, {"program": "/data/b"})
    assert argv[3:7] == ("sh", "/data/b", "--graph=/data/m.tflite", "--num_threads=4")
    assert argv[-2:] == ("--use_gpu=true", "--use_xnnpack=false")
    with pytest.raises(UsageError, match="no delegate 'npu'"):
        benchmark_model.bench("m", Target("adb:1", "b", "litert", 4, "npu"), None, {"program": "b"})
    with pytest.raises(UsageError, match="does not tell how a model is loaded"):
        benchmark_model.cold("m", Target("adb", "benchmark_model", "litert", 1, ""), None, {})
    with pytest.raises(UsageError, match="cannot evaluate"):
        benchmark_model.predict("m", target, {})
