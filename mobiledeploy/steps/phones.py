"""What timing on a phone takes besides: it is valid, or tried again, or there is no figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from mobiledeploy.analysis import validity
from mobiledeploy.core import recording
from mobiledeploy.core.errors import VoidError
from mobiledeploy.core.ports import Reporter, Session
from mobiledeploy.core.types import Measured

TRIES = 3
"""How often an artifact is timed at most."""

COOL_SECONDS = 120.0
"""How long a phone is given to cool down before the next try, at most."""


class Measure(Protocol):
    """How an artifact is timed: as it was asked, or shorter."""

    def __call__(self, *, seconds: float | None = None) -> Measured:
        """One measurement."""
        ...


_LOOK_SECONDS = 5.0
_SHORT_SECONDS = 0.5
# Off, on, on, off: the warming of the phone counts for both.
_STATES = (False, True, True, False)


class Guard:
    """Sees to it that what is timed in a session is valid; where it is no phone, it lets it be."""

    def __init__(
        self, session: Session, asked: recording.BenchRequest, recorded: bool, reporter: Reporter
    ) -> None:
        self._session = session
        self._asked = asked
        self._reporter = reporter
        self._sleep: Callable[[float], None] = _no_sleep if recorded else time.sleep
        self._clocks: str | None = None

    def timed(self, name: str, measure: Measure) -> Measured:
        """A measurement by `measure`; VoidError where no try was valid."""
        if not self._asked.device.startswith("adb"):
            return measure()
        if self._clocks is None and self._asked.fixed_performance:
            self._clocks = hold_clocks(
                self._session, partial(measure, seconds=_SHORT_SECONDS), self._reporter
            )
        made = valid(
            measure,
            self._session,
            name,
            self._reporter,
            fixed_runs=self._asked.runs is not None,
            sleep=self._sleep,
        )
        facts = {**made.facts_before, "fixed_performance": self._clocks or "not tried"}
        return replace(made, facts_before=facts)


def valid(
    measure: Callable[[], Measured],
    session: Session,
    name: str,
    reporter: Reporter,
    *,
    fixed_runs: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> Measured:
    """The first valid measurement of TRIES; a cool-down lies between two.

    Raises:
        VoidError: none was valid, or the delegate did not take the graph.
    """
    start = session.facts()
    for attempt in range(1, TRIES + 1):
        measured = measure()
        if reason := validity.unused_delegate(measured):
            raise VoidError(
                f"void: {name}: {reason}",
                "the figure would be another's: choose another --delegate, or none",
            )
        reasons = validity.disturbances(measured, fixed_runs=fixed_runs)
        if not reasons:
            return measured
        said = "; ".join(reasons)
        if attempt < TRIES:
            reporter.say(f"{name}: void, {said}; cooling down, then try {attempt + 1} of {TRIES}")
            _cool_down(session, start, sleep)
    raise VoidError(
        f"void: {name} in {TRIES} tries: {said}",
        "let the phone cool down, leave it alone meanwhile, and measure again",
    )


def hold_clocks(session: Session, block: Callable[[], Measured], reporter: Reporter) -> str:
    """Tries the fixed-performance mode, and keeps it if times spread less with it.

    `block` is a short timing. Returns what to keep in the facts: whether it is on and what it did.
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


def _no_sleep(seconds: float) -> None:
    """What is played back waits for nothing."""


def _cool_down(session: Session, start: Mapping[str, str], sleep: Callable[[float], None]) -> None:
    begun = session.clock()
    while session.clock() - begun < COOL_SECONDS:
        sleep(_LOOK_SECONDS)
        if validity.cool(start, session.facts()):
            return
