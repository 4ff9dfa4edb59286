"""The machine that predicts for a command: host, phone, board, emulated core, or a recording."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal

from mobiledeploy.core import leases, protocol, recording, records
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import DEVICES, RUNNERS, RUNTIMES
from mobiledeploy.core.ports import SILENT, Reporter, Session
from mobiledeploy.core.types import Artifact, Target
from mobiledeploy.steps import arguments, delegates, instruction_sets, resolve, runtimes
from mobiledeploy.steps.runner_pool import RunnerPool

HOST = "host"
# A phone that prints nothing for so long hangs, as in a timing.
PHONE_PATIENCE_S = 60.0
Command = Literal["evaluate", "check", "verify"]


@dataclass(frozen=True)
class PredictionOptions:
    """Where and how predictions are made.

    `threads` is how many runners work at once, with one thread each: None for one per core of this
    computer, and one on a phone or board. `record` is a file for the recording of the session.
    `strict`: the delegate must take all operators.
    """

    device: str = HOST
    runtime: str | None = None
    delegate: str | None = None
    threads: int | None = None
    record: Path | None = None
    strict: bool = False


def _place(device: str) -> resolve.ResolvedDevice:
    """The device; for a model that is not connected, the hint names the core that is like it."""
    card = resolve.stand_in(device)
    if card is None:
        return resolve.resolve(device)
    try:
        core, like = resolve.emulated_core(card)
        hint = f"--device {core.name} predicts on {like}"
    except DeployError as error:
        hint = error.hint or error.message
    raise DeviceError(f"no {card.title} is connected, and nothing predicts without it", hint)


class Predictor:
    """A machine that answers for samples; a context manager that gives it back.

    It is leased when the first answers are needed.

    Args:
        options: the options of the command.
        command: the command; a recording plays back only in the one that made it.
        reporter: is told of a wait for the machine.

    Raises:
        UsageError: an impossible option, or a device that does not exist.
        DeviceError: the phone is not connected.
        InputError: a recording of another command.
    """

    def __init__(
        self,
        options: PredictionOptions | None = None,
        command: Command = "evaluate",
        reporter: Reporter = SILENT,
    ) -> None:
        options = options or PredictionOptions()
        arguments.need_threads(options.threads)
        self._place = _place(options.device)
        self._reporter = reporter
        self._record = options.record
        self._command = command
        self._stack = ExitStack()
        self._session: Session | None = None
        self._recorder: recording.Recorder | None = None
        if options.record is not None:
            if self._place.is_recording:
                raise UsageError("a recording is not recorded again", "leave out --record")
            if options.threads not in (None, 1):
                raise UsageError("a recording has one runner", "leave out --threads")
            records.need_folder(options.record)
        self._request = self._requested(options)
        runner = RUNNERS.load(self._request.runner)
        if self._request.runtime is not None:
            RUNTIMES.load(self._request.runtime)
        if self._request.runtime not in (None, *runner.runtimes()):
            raise UsageError(
                f"the runner {self._request.runner} has no runtime {self._request.runtime!r}",
                f"there are {', '.join(runner.runtimes())}",
            )

    def _requested(self, options: PredictionOptions) -> recording.BenchRequest:
        place = self._place
        if place.is_recording:
            then = recording.read(place.file).asked
            if then.command != self._command:
                raise InputError(
                    f"{place.file} is a recording of {then.command}, not of {self._command}",
                    f"mobiledeploy {then.command} --device {place.name}",
                )
            return replace(then, strict=then.strict or options.strict)
        one_runner = place.phone or options.record is not None
        return recording.BenchRequest(
            device=place.name,
            runner=place.runner(None),
            runtime=options.runtime,
            threads=options.threads or (1 if one_runner else leases.cores()),
            delegate=options.delegate,
            runs=None,
            seconds=1.0,
            fixed_performance=False,
            command=self._command,
            strict=options.strict,
        )

    @property
    def device(self) -> str:
        """The name of the device, as records hold it; of a recording, that of its device."""
        name = self._request.device
        if self.emulated and ":" not in name:
            # Records name the core.
            name = f"{name}:{self.session.facts()['core']}"
        return name

    @property
    def is_host(self) -> bool:
        """Whether it is this machine."""
        return self._request.device == HOST

    @property
    def recorded_at(self) -> str:
        """When the recording was made that is played back, else ""."""
        return self._place.recorded_at

    @property
    def emulated(self) -> bool:
        """Whether times of it mean nothing."""
        return DEVICES.load(self._request.device.partition(":")[0]).KIND == "counted"

    @property
    def is_recorded(self) -> bool:
        """Whether the session is recorded: that of a lost device cannot be played back."""
        return self._record is not None

    @property
    def session(self) -> Session:
        """The open session."""
        if self._session is None:
            opened = DEVICES.load(self._place.plugin).open(
                self._place.name, exclusive=False, reporter=self._reporter
            )
            self._session = self._stack.enter_context(opened)
            if self._record is not None:
                self._session = self._recorder = recording.Recorder(self._session)
        return self._session

    def target(self, artifact: Artifact, *, default_runtime: bool = False) -> Target:
        """The target of an artifact, if asked without a choice of runtime.

        Errors as of `runtimes.target`.
        """
        plain = runtimes.target(artifact, None if default_runtime else self._request.runtime)
        return replace(
            plain,
            device=self.device,
            runner=self._request.runner,
            delegate=self._request.delegate or plain.delegate,
        )

    def pool(self, path: Path, target: Target, work: protocol.Work, count: int = 1) -> RunnerPool:
        """Runners that answer for `count` samples.

        Their answers raise VoidError if `strict` was asked for, and the delegate left an operator
        to the CPU.
        """
        return RunnerPool(
            self.session,
            path,
            target,
            work,
            min(self._request.threads, count),
            is_recording=self._place.is_recording,
            patience_s=PHONE_PATIENCE_S if self._place.phone else None,
            on_ready=partial(delegates.need_whole, path) if self._request.strict else None,
        )

    def isa(self, ready: protocol.Ready) -> str:
        """The instruction set as kernels depend on it."""
        return instruction_sets.here() if self.is_host else instruction_sets.of_runner(ready.cpu)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is None and self._recorder is not None and self._record is not None:
                request = replace(self._request, device=self.device)
                records.write_atomic(self._record, records.dumps(self._recorder.recording(request)))
