"""Records as people see them."""

from dataclasses import dataclass

from mobiledeploy.core.display import LONGEST_REPR, Record, Table
from mobiledeploy.core.types import (
    DataRef,
    Evaluation,
    NamedWarning,
    Prediction,
    Preprocessing,
    Target,
)

EVALUATION = Evaluation(
    artifact_sha256="1f" * 32,
    data=DataRef("demo", "validation", (160, 160), ("a", "b"), "2e" * 32),
    preprocessing=Preprocessing((-1.0, 1.0)),
    target=Target("host", "python", "litert", 1, "xnnpack"),
    runtime_version="2.1.0",
    images=1000,
    top1=0.931,
    top5=1.0,
    agreement=0.99,
    images_per_second=812.0,
    confusion=((1, 2, 3),) * 40,
    predictions=tuple(Prediction(f"p{i}", 1, (1, 2), (0.6, 0.4)) for i in range(1000)),
)


@dataclass(frozen=True)
class Times(Record):
    median_ns: float
    interval_ns: tuple[float, float]
    size_bytes: int
    top1: float | None
    name: str
    hidden: int = 3


def test_a_repr_is_short_and_names_what_it_leaves_out():
    text = repr(EVALUATION)
    assert len(text) <= LONGEST_REPR
    assert text.startswith("Evaluation(artifact_sha256='1f1f")
    assert "data=DataRef(source='demo', ...)" in text
    assert "confusion=<40 tuple>" in text
    assert "predictions=<1000 Prediction>" in text


def test_a_repr_that_fits_is_whole():
    text = repr(NamedWarning("rough", "times are rough"))
    assert text == "NamedWarning(name='rough', message='times are rough', advice='', file='')"


def test_a_repr_ends_where_there_is_no_more_room():
    text = repr(Preprocessing((0.0, 1.0), labels=tuple(f"class {i}" for i in range(1001))))
    assert "labels=<1001 str>" in text

    @dataclass(frozen=True)
    class Long(Record):
        a: str
        b: tuple[str, ...]
        c: tuple[str, ...]
        d: tuple[str, ...]

    three = ("x" * 58,) * 3
    text = repr(Long("a", three, three, three))
    assert len(text) <= LONGEST_REPR and text.endswith(", ...)") and "d=" not in text


def test_fields_have_their_units_in_html():
    html = Times(1.5e6, (1.4e6, 1.6e6), 2_500_000, 0.5, "<b>&")._repr_html_()
    for cell in ("1.5 ms", "1.4 ms to 1.6 ms", "2.50 MB", "50.0 %", "&lt;b&gt;&amp;"):
        assert f"<td>{cell}</td>" in html
    assert "<b>" not in html


def test_a_table_is_escaped_throughout():
    html = Table(("<h>",), (("<c>",),), "<t>").html()
    assert html.count("&lt;") == 3
    assert "<h>" not in html and "<c>" not in html and "<t>" not in html
