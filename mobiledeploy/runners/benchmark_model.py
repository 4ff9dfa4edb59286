"""Google's benchmark_model, given by path (MOBILEDEPLOY_BENCHMARK_MODEL), as a runner.

It prints statistics only, not single runs. So it is started repeatedly until its caller has enough,
and one sample is one start: the median of its runs, or their mean if an old build prints no median.
Its flags and its output, old and new:
https://github.com/tensorflow/tensorflow/tree/master/tensorflow/lite/tools/benchmark
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mobiledeploy.core import protocol
from mobiledeploy.core.errors import DeviceError, MissingError, UsageError
from mobiledeploy.core.ports import Process
from mobiledeploy.core.protocol import PROTOCOL, Done, Ready, Timed
from mobiledeploy.core.types import Failure, Target

DELEGATES = {
    "xnnpack": ("--use_xnnpack=true",),
    "gpu": ("--use_gpu=true", "--use_xnnpack=false"),
    "nnapi": ("--use_nnapi=true", "--use_xnnpack=false"),
    "none": ("--use_xnnpack=false",),
}

# Delegates that say so if they take something.
_ACCELERATORS = ("gpu", "nnapi")

# One start is long enough for a median, and short enough that a timing has several.
_START = (
    "--num_runs=10",
    "--min_secs=0.3",
    "--max_secs=20",
    "--warmup_runs=1",
    "--warmup_min_secs=0.1",
    "--report_peak_memory_footprint=true",
)
# A reason begins with the kind of an operator. Where a build does not end its list, what comes next
# has another form.
_REASON = re.compile(r"[A-Z][A-Z0-9_]*(?: \w+)?: ")
# Starts it until standard input ends. A background command of a shell has no standard input (POSIX
# 2.9.3), so it gets it as descriptor 3.
_AGAIN = (
    'rm -f stop; sha256sum "$1"; exec 3<&0; '
    "{ cat <&3; : > stop; } >/dev/null 2>&1 & "
    'trap "kill $! 2>/dev/null" EXIT; '
    'while [ ! -e stop ]; do "$@" 2>&1 </dev/null 3<&- || exit $?; done'
)


def runtimes() -> tuple[str, ...]:
    """Only LiteRT, which it is built with."""
    return ("litert",)


def files(machine: str, runtime: str, delegate: str = "") -> Mapping[str, Path]:
    """The program; MissingError if none is set."""
    return {"program": _program()}


def bench(
    model: str, target: Target, sample: str | None, files: Mapping[str, str]
) -> tuple[str, ...]:
    """The argv that times `model` on its own noise: it accepts no raw input."""
    name = target.delegate or "xnnpack"
    if name not in DELEGATES:
        raise UsageError(
            f"benchmark_model has no delegate {name!r}", f"there are {', '.join(DELEGATES)}"
        )
    return (
        "sh",
        "-c",
        _AGAIN,
        "sh",
        files["program"],
        f"--graph={model}",
        f"--num_threads={target.threads}",
        *_START,
        *DELEGATES[name],
    )


def cold(
    model: str, target: Target, sample: str | None, files: Mapping[str, str]
) -> tuple[str, ...]:
    """UsageError: it prints means of many starts."""
    raise UsageError("benchmark_model does not tell how a model is loaded", "--runner native")


def predict(model: str, target: Target, files: Mapping[str, str]) -> tuple[str, ...]:
    """UsageError: it can only time."""
    raise UsageError("benchmark_model cannot evaluate", "--runner native")


def hear_answers(process: Process, model: str) -> Process:
    """The process itself, which answers nothing."""
    return process


def layers(target: Target) -> tuple[str, ...]:
    """UsageError: layers are run by the Python runner."""
    raise UsageError("benchmark_model cannot evaluate", "--runner python")


def hear(process: Process, target: Target) -> Process:
    """Its output as the events of PROTOCOL.md."""
    return _TranslatedProcess(process, target)


def _program() -> Path:
    setting = os.environ.get("MOBILEDEPLOY_BENCHMARK_MODEL")
    if not setting:
        raise MissingError(
            "no benchmark_model is named",
            "give --benchmark-model FILE, Google's build for the phone's ABI",
        )
    path = Path(setting)
    if not path.is_file():
        raise MissingError(f"there is no file {setting}", "give another --benchmark-model FILE")
    return path


class _TranslatedProcess:
    """A running benchmark_model that speaks PROTOCOL.md."""

    def __init__(self, process: Process, target: Target) -> None:
        self._process = process
        self._target = target
        self._output = _ParsedOutput()
        self._last = ""

    def lines(self) -> Iterator[str]:
        """Events, as lines of JSON."""
        ready = False
        for line in self._process.lines():
            text = re.sub(r"^(INFO|WARNING|ERROR): ", "", line.strip())
            self._last = text or self._last
            self._output.read(text)
            # Old builds begin the line with "Average".
            if not re.match(r"(Average i|I)nference timings in us:", text):
                continue
            if self._output.sample_us is None:
                yield protocol.line(Failure(5, "benchmark_model made no run", text))
                return
            if not ready:
                yield protocol.line(self._ready())
                ready = True
            yield protocol.line(Timed((round(self._output.sample_us * 1000),)))
        if ready and self._process.wait()[0] == 0:
            yield protocol.line(Done(self._output.peak_bytes))

    def send(self, line: str) -> None:
        """Does nothing: the program reads no input."""

    def stop(self) -> None:
        """It ends after the present start."""
        self._process.stop()

    def wait(self) -> tuple[int, str]:
        """Its exit status, and its last line."""
        status, tail = self._process.wait()
        return status, tail.strip() or self._last

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()

    def _ready(self) -> Ready:
        name = self._target.delegate or "xnnpack"
        delegated_nodes, total = self._output.nodes(name)
        kind = "medians" if self._output.has_median else "means"
        version = f"benchmark_model {self._output.program[:12]} ({kind} of its starts)"
        return Ready(
            protocol=PROTOCOL,
            runtime="litert",
            version=version,
            inputs=(),
            outputs=(),
            delegate=name,
            delegated_nodes=delegated_nodes,
            total_nodes=total,
            threads=self._target.threads,
            cpu="",
            left_reasons=tuple(self._output.reasons),
        )


class _ParsedOutput:
    """The parsed output of the program so far; `sample_us` is from the newest statistics."""

    def __init__(self) -> None:
        self.sample_us: float | None = None
        self.has_median = False
        self.peak_bytes = 0
        self.program = ""
        self.reasons: list[str] = []
        self._in_reasons = False
        self._delegated: dict[str, tuple[int, int | None]] = {}
        self._is_unused = False

    def read(self, text: str) -> None:
        """One line, without its prefix."""
        self._read_reason(text)
        # Old builds do not print the total.
        if match := re.match(
            r"Replacing (\d{1,9})(?: out of (\d{1,9}))? node\(s\) with delegate \((\w+)\)", text
        ):
            delegate = match[3].lower()
            name = next((n for n in _ACCELERATORS if n in delegate), "xnnpack")
            delegated_nodes, total = self._delegated.get(name, (0, 0))
            more = None if match[2] is None or total is None else total + int(match[2])
            self._delegated[name] = (delegated_nodes + int(match[1]), more)
        elif match := re.match(r"([0-9a-f]{64})\s", text):
            self.program = match[1]
        elif "will not be executed by the delegate" in text or re.match(
            r"Failed to (apply|create) .*delegate", text
        ):
            self._is_unused = True
        elif match := re.match(r"count=(\d+)(.*)", text):
            self._statistics(match[1].strip("0") != "", match[2])
        # Another form: "Memory footprint delta from the start of the tool (MB): ... overall=109.8"
        elif match := re.search(r"emory footprint.*\(MB\).*overall=([\d.e+-]+)", text):
            self.peak_bytes = max(self.peak_bytes, round(_number(match[1]) * 1024 * 1024))

    def nodes(self, delegate: str) -> tuple[int | None, int | None]:
        """(delegated nodes, all nodes); None if it did not print them."""
        if delegate == "none":
            return 0, None
        if delegate in self._delegated:
            return self._delegated[delegate]
        # A requested delegate that replaced nothing was not used; builds that apply XNNPACK before
        # they can log print nothing about it.
        return (0 if self._is_unused or delegate in _ACCELERATORS else None), None

    def _read_reason(self, text: str) -> None:
        """A line of the GPU delegate's list of operators that it leaves out: `KIND: why`."""
        # Old builds say "Next operations are not supported".
        if "operations are not supported by GPU delegate" in text:
            self._in_reasons = True
        elif "operations will run on the" in text.lower():
            self._in_reasons = False
        elif self._in_reasons and _REASON.match(text) and text not in self.reasons:
            self.reasons.append(text)

    def _statistics(self, any_: bool, rest: str) -> None:
        # The first such line is the warm-up, the last is the run; a single run has "curr=12(all
        # same)".
        values = {key: _number(n) for key, n in re.findall(r"(\w+)=([-\d.e+]+)", rest)}
        self.has_median = "median" in values or "(all same)" in rest
        sample = values.get("median", values.get("avg", values.get("curr")))
        self.sample_us = sample if any_ and sample and sample > 0 else None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DeviceError(
            f"benchmark_model printed {text[:80]!r} instead of a number",
            "this version is not supported",
        )
    return number
