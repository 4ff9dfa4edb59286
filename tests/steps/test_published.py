"""Published tables: read strictly, and each of them held against what is built here."""

import csv
import functools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import cards
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.steps import published
from mobiledeploy.verbs import analyze

GRID = """\
source,model,card,alpha,groups,resolution,mult_adds_M,params_M,top1,variant,url,note
Table 1,Tiny,tiny,0.5,,160,76,1.32,60.2,float,https://example.org,
Table 1,Tiny,tiny,,3,224,59.2,,,int8,https://example.org,"a slip, says the author"
"""
LAYERS = "source,card,type,stride,filter,size,note\nTable 1,tiny,Conv,2,3x3x3x32,224x224x3,\n"
SHARES = "source,card,kind,mult_adds_percent,params_percent,note\nTable 2,tiny,Conv 1x1,94.86,1,\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's own folder of tables."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = tmp_path / "mobiledeploy" / "models" / "tables"
    place.mkdir(parents=True)
    (place / "mine.csv").write_text(GRID)
    return place


def test_a_grid_is_read_whole(folder):
    first, second = published.load("mine")
    assert first == published.Published(
        "Table 1",
        "Tiny",
        "tiny",
        0.5,
        None,
        160,
        76_000_000,
        500_000,
        1_320_000,
        5_000,
        pytest.approx(0.602),
        "float",
        "https://example.org",
        "",
    )
    assert (second.alpha, second.groups, second.params, second.top1) == (None, 3, None, None)
    assert (second.mult_adds, second.mult_adds_rounding) == (59_200_000, 50_000)
    assert second.note == "a slip, says the author"
    assert set(published.load("mine")) <= set(published.grids())


def test_the_other_kinds_are_told_by_their_columns(folder):
    (folder / "mine.csv").write_text(LAYERS)
    layer = published.PublishedLayer("Table 1", "tiny", "Conv", 2, "3x3x3x32", "224x224x3", "")
    assert published.load("mine") == (layer,)
    (folder / "mine.csv").write_text(SHARES)
    (share,) = published.load("mine")
    assert (share.kind, share.mult_adds, share.params) == ("Conv 1x1", pytest.approx(0.9486), 0.01)


def test_the_users_tables_come_first(folder):
    assert "mine" in published.names()
    assert "howard2017-6" in published.names()
    (folder / "howard2017-6.csv").write_text(GRID)
    assert published.load("howard2017-6")[0].model == "Tiny"


def test_an_unknown_table_gets_a_suggestion():
    with pytest.raises(UsageError, match=r"'howard2017-66'; did you mean howard2017-6"):
        published.load("howard2017-66")
    with pytest.raises(UsageError, match="there are howard2017-1, howard2017-2"):
        published.load("../../etc/passwd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GRID.replace("params_M", "params"), "columns"),
        (GRID.replace("0.5,,160", "half,,160"), "line 2: could not convert"),
        (GRID.replace(",float,https://example.org,\n", "\n"), "line 2: not as many fields"),
        (GRID.replace("1.32", "1.32,1"), "line 2: not as many fields"),
        (GRID.replace("76", "inf"), "line 2"),
        (GRID.replace(",160,", ",,"), "line 2"),
        ('source,"\n', "cannot be read"),
        ("", "columns"),
        (LAYERS.replace("Conv,2", "Conv,two"), "line 2"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(folder, text, message):
    (folder / "mine.csv").write_text(text)
    with pytest.raises(InputError, match=rf"mine\.csv.*{message}"):
        published.load("mine")


def test_what_is_no_text_is_refused(folder):
    (folder / "mine.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"mine\.csv cannot be read"):
        published.load("mine")


@given(st.integers(0, 10**6), st.integers(0, 3))
def test_a_print_is_within_half_its_last_digit(units, digits):
    """Whatever rounds to the print is within the rounding; half a unit more is not."""
    text = f"{units / 10**digits:.{digits}f}"
    printed, rounding = published._millions(text), published._rounding(text)
    assert printed == units * 10 ** (6 - digits)
    assert rounding == 5 * 10 ** (5 - digits)


# The tables that are shipped.


def pinned(table, row):
    """All that a reason is given for, as text: another print or another count needs another."""
    p = row.published
    given = (
        p.model,
        p.alpha,
        p.groups,
        p.resolution,
        p.variant,
        p.mult_adds,
        row.mult_adds,
        p.params,
        row.params,
    )
    return (table, *("" if value is None else str(value) for value in given))


PINNED = {name: set() for name in published.names()}
with Path(__file__).with_name("differing_counts.csv").open(encoding="utf-8") as stream:
    for line in list(csv.reader(stream))[1:]:
        PINNED[line[0]].add(tuple(line))


@functools.cache
def compared(name):
    return analyze.analyze_table(name)


@pytest.mark.parametrize("name", published.names())
def test_a_shipped_table_speaks_of_cards_and_says_where_it_is_from(name):
    rows = published.load(name)
    assert rows
    for row in rows:
        card = cards.load(row.card)
        assert row.source
        assert row.note == row.note.strip()
        if isinstance(row, published.Published):
            assert row.url.startswith("https://")
            assert row.variant in ("float", "int8", "modern recipe")
            assert row.top1 is None or 0.3 < row.top1 < 0.9
            assert row.mult_adds is None or row.params is None or row.mult_adds > row.params
            assert (row.alpha is None) == (card.default_alpha is None)
            assert (row.groups is None) == ("groups" not in card.arguments)


def test_no_row_stands_twice():
    rows = [
        (r.source, r.card, r.alpha, r.groups, r.resolution, r.variant) for r in published.grids()
    ]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    "name",
    [
        name if name == "howard2017-1" else pytest.param(name, marks=pytest.mark.slow)
        for name in published.names()
    ],
)
def test_print_and_count_differ_only_where_the_table_says_why(name):
    found = compared(name)
    rows = (*found.rows, *found.layers, *found.shares)
    assert [row.published for row in rows] == list(published.load(name))
    silent = [row for row in rows if row.differs and not row.why]
    assert silent == []
    assert {pinned(name, row) for row in found.rows if row.differs} == PINNED[name]
    # No excuse for a row that is as printed.
    assert [row.published for row in rows if row.published.note and not row.differs] == []


def test_the_slips_of_howards_first_tables_are_found():
    layers = [row for row in compared("howard2017-1").layers if row.differs]
    (slip,) = layers
    assert (slip.published.type, slip.published.filter) == ("Conv dw", "3x3x1024")
    assert (slip.published.stride, slip.stride) == (2, 1)
    shares = compared("howard2017-2").shares
    (slip,) = [row for row in shares if row.differs]
    assert slip.published.kind == "Conv 3x3"
    assert round(100 * slip.mult_adds, 2) == 1.91
    assert round(100 * sum(row.mult_adds for row in shares), 6) == 100
    assert round(100 * sum(row.params for row in shares), 6) == 100
