from __future__ import annotations

from pathlib import Path

import pytest

from mobiledeploy.core.errors import DeviceError, InputError, UsageError, VoidError
from mobiledeploy.core.types import Failed
from mobiledeploy.steps.failures import Failures


def test_each_failure_is_kept_and_the_gravest_raised() -> None:
    failures = Failures()
    failures.check()
    for name, error in (("a", VoidError("void")), ("b", InputError("bad", "fix it"))):
        with failures.of(Path(name)):
            raise error
    assert Path("a") in failures
    assert Path("c") not in failures
    assert failures.records() == (Failed("a", "void", 4), Failed("b", "bad; fix it", 7))
    with pytest.raises(InputError, match="bad"):
        failures.check()
    failures.check(DeviceError)
    with pytest.raises(VoidError):
        failures.check(VoidError)


def test_failures_of_another_step_are_added_where_there_are_none() -> None:
    estimates, counts = Failures(), Failures()
    estimates.add(Path("a"), InputError("bad"))
    counts.add(Path("a"), VoidError("void"))
    counts.add(Path("b"), VoidError("void"))
    estimates.add_all(counts)
    assert {one.what: one.message for one in estimates.records()} == {"a": "bad", "b": "void"}


def test_what_is_asked_wrongly_of_all_passes_and_so_does_our_own_defect() -> None:
    failures = Failures()
    for error in (UsageError("no"), KeyError("ours")):
        with pytest.raises(type(error)), failures.of(Path("a")):
            raise error
    assert failures.records() == ()
