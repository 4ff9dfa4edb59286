from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import alignment

WORDS = st.text("abc", max_size=12)


@given(WORDS, WORDS)
def test_every_element_has_one_place_and_order_is_kept(a: str, b: str) -> None:
    result = list(alignment.pairs(a, b))
    assert [i for i, _ in result if i is not None] == list(range(len(a)))
    assert [j for _, j in result if j is not None] == list(range(len(b)))
    assert (None, None) not in result


@given(WORDS)
def test_the_same_sequence_is_paired_one_for_one(a: str) -> None:
    assert list(alignment.pairs(a, a)) == [(i, i) for i in range(len(a))]


def test_an_added_element_is_alone_and_a_replaced_one_is_a_change() -> None:
    assert list(alignment.pairs("cdcd", "qcdcd")) == [(None, 0), (0, 1), (1, 2), (2, 3), (3, 4)]
    assert list(alignment.pairs("abc", "axc")) == [(0, 0), (1, 1), (2, 2)]
    assert list(alignment.pairs("axxc", "ayc")) == [(0, 0), (1, 1), (2, None), (3, 2)]
