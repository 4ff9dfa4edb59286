"""The page about two files: what it says, in a browser, with names that would break a page."""

from __future__ import annotations

import base64
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import FileFigures, Pair, Side
from tests.oracles import environment
from tests.pages import EVIL, emulate, texts
from tests.reports.test_looks import beyond, errors

pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")

FIGURES = (
    FileFigures(
        *("measured", "host", "litert", 1, 1.2e6, 1.0e6, 0.833, (0.8, 0.86)), delegated=("", "")
    ),
    FileFigures(
        *("counted", "emulator:cortex-a76", "litert", 1, 1e9, 5e8, 0.5, (0.5, 0.5)),
        delegated=("", ""),
    ),
)


def side(name: str, *reads: str, **change: Any) -> Side:
    plain = Side(name, "Conv 3x3", "int8", (1, 24, 24, 16), 1234, 10**6, None, None, 0, 0.02, -128)
    return dataclasses.replace(plain, reads=reads, **change)


def chain(count: int) -> list[Pair]:
    """Two equal files of so many layers, each of which reads the one above."""
    names = [f"net/layer_{n}/Relu6;net/fused" for n in range(count)]
    sides = [side(name, *names[:n][-1:]) for n, name in enumerate(names)]
    return [Pair(one, one, math.nan, (), n) for n, one in enumerate(sides)]


def changed(pair: Pair, *odd: str, sqnr_db: float | None = math.nan, **change: Any) -> Pair:
    """A pair with other fields of B."""
    assert pair.b
    b = dataclasses.replace(pair.b, **change)
    return dataclasses.replace(pair, b=b, odd=odd, sqnr_db=sqnr_db)


def large(count: int = 500) -> list[Pair]:
    """So many layers, a change of each kind, and a stranger's names in every place."""
    pairs = chain(count)
    pairs[3] = changed(pairs[3], scale=0.05, zero_point=3, sqnr_db=30.2)
    pairs[40] = changed(pairs[40], "int8 → float32, others int8 → int8", type="float32", scale=None)
    pairs[60] = changed(pairs[60], "shape", shape=(1, 12, 12, 16))
    pairs[80] = dataclasses.replace(pairs[80], a=None, odd=("only in B",))
    pairs[90] = dataclasses.replace(pairs[90], b=None, odd=("only in A",))
    last = count - 10
    evil = changed(pairs[last], f"Conv 3x3 → {EVIL}", name=EVIL, kind=EVIL, type=EVIL)
    assert evil.a
    reads = (*evil.a.reads, f"net/layer_{last - 10}/Relu6;net/fused")
    pairs[last] = dataclasses.replace(evil, a=dataclasses.replace(evil.a, name=EVIL, reads=reads))
    return pairs


def page(pairs: list[Pair], figures: tuple[FileFigures, ...] = ()) -> str:
    shelf: Any = REPORTS.load("html")
    return str(shelf.difference((f"build/{EVIL}", "b.tflite"), (2000, 1000), pairs, figures))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("difference") / "difference.html"
    path.write_text(page(large(), FIGURES), "utf-8")
    return path


@pytest.fixture
def shown(browser: Any, file: Path) -> Any:
    emulate(browser)
    browser.get_log("browser")
    browser.get(file.as_uri())
    return browser


@pytest.mark.parametrize(
    ("width", "scheme"), [pytest.param(360, "dark", marks=pytest.mark.slow), (1280, "light")]
)
def test_it_fits_every_screen_and_reader(browser, tmp_path, width, scheme) -> None:
    """Of 120 layers: axe looks at each element of what is opened."""
    shown, file = browser, tmp_path / "difference.html"
    file.write_text(page(large(120), FIGURES), "utf-8")
    emulate(shown, width=width, scheme=scheme)
    errors(shown)
    shown.get(file.as_uri())
    assert errors(shown) == []
    assert beyond(shown, width) == []
    shown.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert beyond(shown, width) == []
    assert shown.execute_script("return document.documentElement.scrollWidth") <= width
    script = environment.axe()
    if script is None:
        pytest.skip(f"no axe-core at {environment.axe_place()} (make oracle)")
    shown.execute_script(script.read_text("utf-8"))
    found = shown.execute_async_script(
        "const done = arguments[0]; axe.run().then((r) => done(r.violations.map((v) => "
        "[v.id, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200))])))"
    )
    assert found == []


def test_a_stranger_s_names_are_texts(shown, file) -> None:
    assert shown.title.startswith("build/</script>")
    assert shown.execute_script("return document.querySelectorAll('script, img').length") == 0
    assert any(EVIL in text for text in texts(shown, "#layers .odd span"))
    assert "://" not in file.read_text("utf-8")


def test_500_layers_are_few_lines_until_they_are_opened(shown) -> None:
    height = shown.execute_script("return document.documentElement.scrollHeight")
    assert height < 2500
    folded = texts(shown, "summary")
    assert folded[1] == "36 layers the same: net/layer_4/Relu6 to net/layer_39/Relu6"
    assert len(texts(shown, ".pairs > li")) == 500
    assert sum(int(text.split()[0]) for text in folded) == 494
    (sentence,) = texts(shown, "#sentence")
    assert sentence == (
        "1 layer only in A, 1 layer only in B, 3 layers unlike the others, 1 layer changed, "
        "494 layers the same."
    )


def test_what_changed_stands_in_its_row(shown) -> None:
    assert texts(shown, ".pairs .changed em") == [
        "scale 0.02 → 0.05; zero point -128 → 3; weights 30.2 dB"
    ]
    first, second, third = texts(shown, ".pairs .odd em")
    assert first == "int8 → float32, others int8 → int8"
    assert second == "shape 1×24×24×16 → 1×12×12×16"
    assert third.startswith("Conv 3x3 → </script>")
    assert texts(shown, ".gap") == ["not in A", "not in B"]


def test_layers_of_both_stand_side_by_side(shown) -> None:
    """A box and its partner begin at one height, and A is left of B."""
    assert shown.execute_script(
        "return [...document.querySelectorAll('.pairs > li')].filter((e) => e.offsetParent)"
        ".every((e) => { const [a, b] = [e.firstElementChild, e.lastElementChild]"
        ".map((x) => x.getBoundingClientRect()); return a.top === b.top && a.right < b.left; })"
    )


def test_a_link_opens_the_fold_that_its_layer_is_in(shown) -> None:
    """By keyboard: a skip link, the changes, what is folded, and the layers that a layer reads."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    active = "const e = document.activeElement; return "

    def press(key: str) -> str:
        ActionChains(shown).send_keys(key).perform()
        return shown.execute_script(f"{active} e.getAttribute('href') || e.tagName")

    reached = [press(Keys.TAB) for _ in range(9)]
    changes = ["#a3", "#a40", "#a60", "#b80", "#a90", "#a490"]
    assert reached == ["#layers", "DIV", *changes, "SUMMARY"]
    assert not shown.execute_script(f"{active} e.closest('details').open")
    press(Keys.ENTER)
    assert shown.execute_script(f"{active} e.closest('details').open")
    link = "#a490 a[href='#a480']"
    assert texts(shown, link) == ["net/layer_480/Relu6"]
    shown.execute_script(f'document.querySelector("{link}").click()')
    assert shown.execute_script(
        "const e = document.querySelector(':target'); return e.id === 'a480' && !!e.offsetParent"
    )


def test_on_paper_nothing_is_cut_off(shown) -> None:
    emulate(shown, width=720, media="print", scheme="dark")
    assert beyond(shown, 720) == []
    assert base64.b64decode(shown.print_page()).startswith(b"%PDF")


def test_a_change_of_most_layers_is_told_once() -> None:
    pairs = chain(20)
    pairs = [
        dataclasses.replace(p, a=dataclasses.replace(p.a, type="float32", scale=None), sqnr_db=41.0)
        for p in pairs
        if p.a
    ]
    # The order of the records is that of their change.
    text = page(pairs[::-1])
    assert "20 layers changed from float32 to int8 only." in text
    assert "20 layers changed from float32 to int8 only: net/layer_0/Relu6 to net/layer_19" in text
    assert "<em>" not in text
    assert text.count("41.0 dB") == 20
    other = changed(pairs[5], type="int16", sqnr_db=41.0)
    assert "<em>type float32 → int16</em>" in page([*pairs[:5], other, *pairs[6:]])


def test_a_layer_names_what_it_reads_unless_it_is_the_one_above() -> None:
    first, second, *_ = chain(3)
    assert first.a and second.a
    names = [first.a.name, second.a.name]
    plain = page([first, second])
    assert "reads" not in plain.partition("<ol")[2]
    assert "apart" not in plain.partition("<ol")[2]
    for reads, text, apart in (
        (names, f'reads <a href="#a0">{names[0].partition(";")[0]}</a>, <a href="#a1">', False),
        (names[:1], 'reads <a href="#a0">', True),
        ([], "reads the input", True),
        (["elsewhere"], "reads elsewhere", True),
    ):
        third = side("third", *reads)
        shown = page([first, second, Pair(third, third, None, (), 2)])
        assert text in shown
        assert ('class="box apart"' in shown) == apart


def test_channels_in_another_place_are_the_same_shape() -> None:
    pairs = chain(4)
    pairs[1] = changed(pairs[1], shape=(1, 16, 24, 24))
    assert "4 layers the same." in page(pairs)


def test_files_without_a_layer_have_a_page() -> None:
    assert "Neither file has a layer." in page([])
