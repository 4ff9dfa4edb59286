"""Every page at every width: nothing is cut off, and readers with disabilities can use it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import AcceptedDifference, Gain, Metric
from tests.oracles import environment
from tests.pages import emulate, everything, opened, ready, texts

pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")

WIDTHS = (360, 800, 1280, 1920)
# The others are looked at by the slow tests.
QUICK = ((360, "dark"),)
LOOKS = [
    pytest.param(width, scheme, marks=() if (width, scheme) in QUICK else pytest.mark.slow)
    for width in WIDTHS
    for scheme in ("light", "dark")
]
ACCEPTED = AcceptedDifference(
    *("net_0", "int8_ptq", "tflite", "1" * 64, "e" * 64, 1_000_000, 2_000_000),
    *(Metric("top1", "top-1", "share"), 0.66, 0.7, Gain(-0.04, -0.08, -0.01), None),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A page that stands alone, and the front page and one page of a model of a site."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "models").mkdir()
    shelf: Any = REPORTS.load("html")
    for name, text in shelf.pages(everything(), [ACCEPTED]):
        (folder / name).write_text(text, "utf-8")
    alone = folder / "alone.html"
    alone.write_text(shelf.render(everything()), "utf-8")
    (model,) = (folder / "models").glob("net-0-*")
    return [alone, folder / "index.html", model]


def beyond(browser: Any, width: int) -> list[str]:
    """Elements that are cut off at the right, but for those that scroll by themselves."""
    return browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter((e) => {"
        "const box = e.closest('.wide');"
        "const scrolls = box && getComputedStyle(box).overflowX === 'auto';"
        "return (!scrolls || e === box) && e.getBoundingClientRect().right > arguments[0] + 1;"
        "}).map((e) => e.outerHTML.slice(0, 99))",
        width,
    )


def errors(browser: Any) -> list[Any]:
    return [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_nothing_is_wider_than_the_screen_and_axe_finds_no_violation(
    browser, site, width, scheme
) -> None:
    script = environment.axe()
    emulate(browser, width=width, scheme=scheme)
    for path in site:
        browser.get(path.as_uri())
        ready(browser)
        browser.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
        assert errors(browser) == []
        assert beyond(browser, width) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        if script is None:
            continue
        browser.execute_script(script.read_text("utf-8"))
        found = browser.execute_async_script(
            "const done = arguments[0]; axe.run().then((r) => done(r.violations.map((v) => "
            "[v.id, v.help, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200))])))"
        )
        assert found == []
    if script is None:
        pytest.skip(f"no axe-core at {environment.axe_place()} (make oracle)")


def test_axe_finds_what_is_wrong(browser, tmp_path) -> None:
    """The judge judges: an image without a text, and text that nobody can read."""
    script = environment.axe()
    if script is None:
        pytest.skip(f"no axe-core at {environment.axe_place()} (make oracle)")
    opened(browser, everything(), tmp_path)
    browser.execute_script(
        "document.querySelector('main').insertAdjacentHTML('beforeend',"
        '\'<img src="data:,"><p style="color:#777;background:#888">text</p>\')'
    )
    browser.execute_script(script.read_text("utf-8"))
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run().then((r) => done(r.violations.map((v) => v.id)))"
    )
    assert {"image-alt", "color-contrast"} <= set(found)


def test_the_table_fits_a_page_of_1180_pixels(browser, tmp_path) -> None:
    emulate(browser, width=1180)
    opened(browser, everything(), tmp_path)
    heads = browser.execute_script(
        "return [...document.querySelectorAll('#rows th')].map((e) =>"
        " [e.textContent, e.getBoundingClientRect().right])"
    )
    names = [name for name, _ in heads]
    assert {"Top-1 (%)", "size (MB)", "date (UTC)"} <= set(names)
    assert max(right for _, right in heads) <= 1180


def test_the_best_file_stands_on_the_first_screen(browser, site) -> None:
    emulate(browser, width=1280)
    for path in site:
        browser.get(path.as_uri())
        ready(browser)
        (sentence,) = texts(browser, "#sentence")
        assert sentence.startswith("Within ")
        bottom = browser.execute_script(
            "return document.getElementById('best').getBoundingClientRect().bottom"
        )
        assert bottom < 800
        assert any("95 % interval" in text for text in texts(browser, "#cards dd"))


# The most lines of what stands first in a cell of numbers.
LINES = """
return Math.max(...[...document.querySelectorAll('td.n, #rows td:not([class])')].map((cell) => {
  const text = document.createRange();
  text.selectNodeContents(cell.firstChild ?? cell);
  return new Set([...text.getClientRects()].map((one) => one.top)).size;
}))
"""


# Words of names that begin in one line and end in another.
BROKEN = """
return [...document.querySelectorAll('td.name')].flatMap((cell) => {
  const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), broken = [];
  while (!cell.textContent.includes('<') && walk.nextNode())
    for (const word of walk.currentNode.data.matchAll(/[a-z]+/gi)) {
      const text = document.createRange();
      text.setStart(walk.currentNode, word.index);
      text.setEnd(walk.currentNode, word.index + word[0].length);
      if (new Set([...text.getClientRects()].map((one) => one.top)).size > 1) broken.push(word[0]);
    }
  return broken;
})
"""


# Where the widest cell of a verdict ends.
RIGHT = """
return Math.max(0, ...[...document.querySelectorAll('#verdicts td')].map(
  (cell) => cell.getBoundingClientRect().right))
"""


def test_names_break_between_their_words(browser, site) -> None:
    emulate(browser, width=360)
    for path in site:
        browser.get(path.as_uri())
        ready(browser)
        assert browser.execute_script(BROKEN) == []
        # What a gate says is read without scrolling.
        assert browser.execute_script(RIGHT) <= 360


def test_on_paper_nothing_is_cut_off(browser, site) -> None:
    # A4 with the margins of a printer.
    emulate(browser, width=720, media="print", scheme="dark")
    for path in site:
        browser.get(path.as_uri())
        ready(browser)
        assert beyond(browser, 720) == []
        # A figure keeps its unit, and a date stays whole.
        assert browser.execute_script(LINES) == 1
        styles = (
            "return [...document.querySelectorAll('h2')].map((e) => getComputedStyle(e).breakAfter)"
        )
        assert set(browser.execute_script(styles)) == {"avoid"}
        assert base64.b64decode(browser.print_page()).startswith(b"%PDF")


def test_the_keyboard_reaches_everything(browser, tmp_path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened(browser, everything(), tmp_path)
    active = "const e = document.activeElement; return "

    def press(key: str) -> str:
        ActionChains(browser).send_keys(key).perform()
        return browser.execute_script(f"{active} e.id || e.getAttribute('aria-label') || e.tagName")

    reached = [press(Keys.TAB) for _ in range(12)]
    assert reached == [
        *("A", "within", "kind", "device", "recipe", "model", "images"),
        *("Table of figures", "Table of cold starts", "Table of verdicts", "SUMMARY", "SUMMARY"),
    ]
    outline = browser.execute_script(f"{active} getComputedStyle(e).outlineStyle")
    assert outline == "solid"
    press(Keys.ENTER)
    assert browser.execute_script(f"{active} e.closest('details').open")
    browser.execute_script("document.querySelector('.skip').focus()")
    assert press(Keys.ENTER) == "table"
