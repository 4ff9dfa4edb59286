from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import cold_columns, protocol
from mobiledeploy.steps import cold_starts

READY = protocol.Ready(2, "litert", "2", (), (), "xnnpack", None, None, 1, "x86_64")
TIMES = st.integers(0, 10**12)


@given(
    processes=st.lists(
        st.tuples(TIMES, TIMES, st.integers(1, 10**12), st.integers(1, 10**12)),
        min_size=6,
        max_size=30,
    ),
    has_load=st.booleans(),
)
def test_samples_keep_the_order_of_the_starts(processes, has_load: bool) -> None:
    starts = [
        cold_starts._Start(READY, protocol.Loaded(a, b if has_load else None, b), first, peak)
        for a, b, first, peak in processes
    ]
    figures = {figure.name: figure for figure in cold_starts._figures(starts)}
    assert list(figures) == [name for name in cold_columns.LABELS if has_load or name != "load_ns"]
    assert figures["library_ns"].samples == tuple(p[0] for p in processes)
    assert figures["first_inference_ns"].samples == tuple(p[2] for p in processes)
    assert figures["peak_rss_bytes"].samples == tuple(p[3] for p in processes)
    steps = [
        f.samples
        for name, f in figures.items()
        if name not in ("first_answer_ns", "peak_rss_bytes")
    ]
    assert figures["first_answer_ns"].samples == tuple(map(sum, zip(*steps, strict=True)))
    for figure in figures.values():
        low, high = figure.interval
        assert low <= figure.median <= high
        assert {low, high} <= set(figure.samples)
