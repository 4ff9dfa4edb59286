from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import energy, power_rails
from tests import perfetto


def test_the_rails_of_a_trace_are_summed() -> None:
    moments = power_rails.readings(perfetto.trace([0.5, 1.25, 0.0], 4))
    assert [one.seconds for one in moments] == [5.0, 5.25, 5.5, 5.75]
    assert [one.joules for one in moments] == pytest.approx(
        [1.75 * s for s in (5, 5.25, 5.5, 5.75)]
    )
    taken = energy.rail_readings(perfetto.trace([0.5, 1.25, 0.0], 4))
    assert [one.watts for one in taken] == pytest.approx([1.75] * 3)
    assert {(one.source, one.charging) for one in taken} == {("rails", False)}
    assert [one.seconds for one in taken] == [5.25, 5.5, 5.75]


def test_a_packet_that_lacks_a_rail_is_left_out() -> None:
    whole, part = perfetto.trace([1.0, 2.0], 2), perfetto.trace([1.0], 1, start_ms=9000)
    assert len(power_rails.readings(whole + part)) == 2


def test_a_trace_without_rails_has_no_readings() -> None:
    assert power_rails.readings(b"") == ()
    assert power_rails.readings(perfetto.trace([], 3)) == ()


@pytest.mark.parametrize(
    "trace",
    [
        b"\x0a\x05abc",  # a field of five bytes, of which three are there
        b"\x0b",  # a group, which is of no kind that protobuf 3 has
        b"\xff" * 20,  # a number without an end
        b"\x09abc",  # eight bytes, of which three are there
    ],
)
def test_a_damaged_trace_is_refused(trace: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a (field|number)"):
        power_rails.readings(trace)
    assert energy.rail_readings(trace) == ()


@given(st.binary(max_size=200))
def test_any_bytes_are_readings_or_none(trace: bytes) -> None:
    assert all(one.source == "rails" for one in energy.rail_readings(trace))
