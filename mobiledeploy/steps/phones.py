"""The rules for timings on phones and boards: one is valid, or repeated, or there is no figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from mobiledeploy.analysis import validity
from mobiledeploy.core import recording
from mobiledeploy.core.errors import VoidError
from mobiledeploy.core.ports import Reporter, Session
from mobiledeploy.core.types import Measured
from mobiledeploy.steps import resolve

T = TypeVar("T")

TRIES = 3
"""The most timings of one artifact."""

COOL_SECONDS = 120.0
"""The longest cool-down of a device before the next try."""


class Measure(Protocol):
    """Times an artifact, for the requested time or a shorter one."""

    def __call__(self, *, seconds: float | None = None) -> Measured:
        """One measurement."""
        ...


_LOOK_SECONDS = 5.0
_SHORT_SECONDS = 0.5
# Off, on, on, off: the phone's warming affects both states equally.
_STATES = (False, True, True, False)


class Guard:
    """Makes sure that the timings of a session are valid if the device is a phone or a board."""

    def __init__(
        self,
        session: Session,
        request: recording.BenchRequest,
        is_recording: bool,
        reporter: Reporter,
    ) -> None:
        self._session = session
        self._request = request
        self._reporter = reporter
        self._sleep: Callable[[float], None] = _no_sleep if is_recording else time.sleep
        self._clocks: str | None = None

    def measure(self, name: str, measure: Measure) -> Measured:
        """A valid measurement by `measure`; VoidError if no try was valid."""
        if not resolve.is_remote(self._request.device):
            measured = measure()
            if self._request.strict:
                _need_delegate(measured, name, strict=True)
            return measured
        if self._clocks is None and self._request.fixed_performance:
            self._clocks = hold_clocks(
                self._session, partial(measure, seconds=_SHORT_SECONDS), self._reporter
            )
        measured = valid(
            measure,
            self._session,
            name,
            self._reporter,
            fixed_runs=self._request.runs is not None,
            strict=self._request.strict,
            sleep=self._sleep,
        )
        facts = {**measured.facts_before, "fixed_performance": self._clocks or "not tried"}
        return replace(measured, facts_before=facts)


def valid(
    measure: Callable[[], Measured],
    session: Session,
    name: str,
    reporter: Reporter,
    *,
    fixed_runs: bool,
    strict: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Measured:
    """The first valid measurement of TRIES, with cool-downs between them.

    Raises:
        VoidError: no measurement was valid, or the delegate did not take the graph.
    """

    def reasons(measured: Measured) -> Sequence[str]:
        _need_delegate(measured, name, strict=strict)
        return validity.disturbances(measured, fixed_runs=fixed_runs)

    return undisturbed(measure, reasons, session, name, reporter, sleep=sleep)


def undisturbed(
    measure: Callable[[], T],
    reasons: Callable[[T], Sequence[str]],
    session: Session,
    name: str,
    reporter: Reporter,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The first of TRIES that no `reasons` speak against, with cool-downs between them.

    Raises:
        VoidError: there was a reason each time.
    """
    start = session.facts()
    for attempt in range(1, TRIES + 1):
        measured = measure()
        against = reasons(measured)
        if not against:
            return measured
        text = "; ".join(against)
        if attempt < TRIES:
            reporter.say(f"{name}: void, {text}; cooling down, then try {attempt + 1} of {TRIES}")
            _cool_down(session, start, sleep)
    raise VoidError(
        f"void: {name} in {TRIES} tries: {text}",
        "let it cool down, leave it alone meanwhile, and measure again",
    )


def hold_clocks(session: Session, block: Callable[[], Measured], reporter: Reporter) -> str:
    """Tries the fixed-performance mode, and keeps it on if times spread less with it.

    `block` is a short timing. Returns the text for the facts: whether it is on, and its effect.
    """
    if not session.hold_clocks(True):
        return "not there"
    medians: dict[bool, list[float]] = {False: [], True: []}
    spreads: dict[bool, list[float]] = {False: [], True: []}
    for state in _STATES:
        session.hold_clocks(state)
        samples = np.asarray(block().samples_ns, np.float64)
        medians[state].append(float(np.median(samples)))
        spreads[state].append(float(np.ptp(np.quantile(samples, (0.1, 0.9))) / np.median(samples)))
    off, on = (float(np.mean(spreads[state])) for state in (False, True))
    slower = float(np.exp(np.mean(np.log(medians[True])) - np.mean(np.log(medians[False]))))
    keep = session.hold_clocks(on < off) and on < off
    effect = (
        f"{'on' if keep else 'off'}: with it {slower:.2f} times the time, "
        f"spread {100 * on:.1f} % instead of {100 * off:.1f} %"
    )
    reporter.say(f"fixed-performance mode {effect}")
    return effect


def _need_delegate(measured: Measured, name: str, *, strict: bool) -> None:
    if reason := validity.unused_delegate(measured, strict=strict):
        raise VoidError(
            f"void: {name}: {reason}",
            "the figure would be another's: choose another --delegate, or none",
        )


def _no_sleep(seconds: float) -> None:
    """A recording that is played back needs no waiting."""


def _cool_down(session: Session, start: Mapping[str, str], sleep: Callable[[float], None]) -> None:
    start_s = session.clock()
    while session.clock() - start_s < COOL_SECONDS:
        sleep(_LOOK_SECONDS)
        if validity.cool(start, session.facts()):
            return
