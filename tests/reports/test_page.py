"""The page in a real browser: what it draws and says."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import pytest

from mobiledeploy.analysis import choice as choice_
from mobiledeploy.analysis import pareto
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import (
    DrawnAnswer,
    DrawnBox,
    Failed,
    Flip,
    Report,
)
from tests.pages import (
    CHOICE,
    EVIL,
    PIXEL,
    PNG,
    cold,
    emulate,
    opened,
    photos,
    ready,
    result,
    sample,
    texts,
)

pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")

# A text for every way out of a text: an element, an attribute, an address, a template, a comment.
HOSTILE = (
    f"""{EVIL}"'><svg onload=alert(2)>{{{{ 7 * 7 }}}}{{% raw %}}<!--]]>javascript:alert(3)\0"""
)


def choose(browser: Any, name: str, value: str) -> int:
    browser.execute_script(
        "delete document.body.dataset.ready; const s = document.getElementById(arguments[0]);"
        "s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
        name,
        value,
    )
    return ready(browser)


def marks(browser: Any, name: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(`#view-${arguments[0]} .mark-symbol.role-mark path`)]"
        ".map((mark) => mark.getAttribute('aria-label'))",
        name,
    )


def hovered(browser: Any, name: str, place: int) -> str:
    """What is told of a point while the pointer is over it."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    points = browser.find_elements(By.CSS_SELECTOR, f"#view-{name} .mark-symbol.role-mark path")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[place])
    ActionChains(browser).move_to_element(points[place]).perform()
    time.sleep(0.3)
    return browser.execute_script(
        "return document.querySelector('#vg-tooltip-element.visible')?.textContent ?? ''"
    )


def test_it_opens_without_an_error_and_without_the_network(browser, tmp_path) -> None:
    opened(browser, sample(), tmp_path)
    assert browser.title == "Nets & <b>"
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    request = [e["message"] for e in browser.get_log("performance")]
    urls = [m for m in request if '"Network.requestWillBeSent"' in m]
    assert urls and all('"url":"file:' in m or '"url":"data:' in m for m in urls)
    # Each kind has its own plot, and the numbers of one only.
    assert len(marks(browser, "measured")) == 13
    assert len(marks(browser, "counted")) == len(marks(browser, "estimated")) == 12
    assert all("host" in label for label in marks(browser, "measured"))
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0


def replaced(record: Any, text: str) -> Any:
    """The record with `text` for each text in it that a user or a device can choose."""
    if isinstance(record, str):
        return record if record.startswith("data:image/") else text
    if isinstance(record, tuple):
        return tuple(replaced(item, text) for item in record)
    if isinstance(record, Mapping):
        return {replaced(key, text): replaced(item, text) for key, item in record.items()}
    if dataclasses.is_dataclass(record):
        chosen = {"kind", "task", "metric", "outcome", "on_inconclusive", "right", "samples"}
        fields = [f.name for f in dataclasses.fields(record) if f.init and f.name not in chosen]
        changes = {name: replaced(getattr(record, name), text) for name in fields}
        return dataclasses.replace(record, **changes)
    return record


def elements(browser: Any) -> dict[str, int]:
    """How many elements of each kind the page has, but for those of plots and of broken lines."""
    return browser.execute_script(
        "const n = {}; document.querySelectorAll('*').forEach((e) => {"
        "if (!e.closest('.view') && e.tagName !== 'WBR') n[e.tagName] = (n[e.tagName] ?? 0) + 1;"
        "}); return n"
    )


def test_no_text_becomes_markup(browser, tmp_path) -> None:
    drawn = DrawnAnswer("a", PIXEL, (DrawnBox((0.1, 0.1, 0.5, 0.5), "b", 0.9),), "", "", ())
    masked = DrawnAnswer("a", PIXEL, (), PNG, PNG, (("c", "d55e00"),), PNG, 0.25)
    plain = sample()
    details = tuple(
        dataclasses.replace(plain.details[0], drawn=one) for one in ((drawn,), (masked,))
    )
    plain = dataclasses.replace(
        plain, details=details, answers=CHOICE.answers, failed=(Failed("file", "why", 7),)
    )
    plain = replaced(plain, "plain")
    opened(browser, plain, tmp_path)
    before = elements(browser)
    opened(browser, replaced(plain, HOSTILE), tmp_path)
    assert elements(browser) == before
    assert "svg onload" in browser.title and "{{ 7 * 7 }}" in browser.title
    # An alert would have stopped the script here.
    strange = "[onerror], [onload], [src=x], [href^=javascript]"
    assert texts(browser, strange) == []
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


@pytest.mark.parametrize(
    "image", ["", f"{PIXEL}'", f"{PIXEL} onload=", "data:image/svg+xml;base64,AAAA", "javascript:1"]
)
def test_an_image_that_is_no_jpeg_is_left_out(image) -> None:
    plain = sample().details[0]
    detail = dataclasses.replace(plain, flips=(Flip("a.png", "b", "c", "d", image),))
    page = REPORTS.load("html").render(Report("x", details=(detail,)))
    assert "<img" not in page.partition("<script")[0]
    whole = REPORTS.load("html").render(Report("x", details=(plain,)))
    assert f'<img src="{PIXEL}"' in whole


def test_the_front_equals_that_of_the_analysis(browser, tmp_path) -> None:
    report = sample()
    opened(browser, report, tmp_path)
    mine = [r for r in report.results if r.kind == "measured"]
    best = pareto.front([(r.latency_ns or 0, r.value or 0) for r in mine])
    message = browser.execute_script(
        "return document.querySelector('#plot-measured figcaption').textContent"
    )
    assert f"13 points, {len(best)} on the front" in message


def within(browser: Any, limit: str) -> str:
    """The sentence about what is within a limit."""
    browser.execute_script(
        "const i = document.getElementById('within'); i.value = arguments[0];"
        "i.dispatchEvent(new Event('input'))",
        limit,
    )
    (sentence,) = texts(browser, "#sentence")
    return sentence


def test_the_best_file_within_a_latency_comes_first(browser, tmp_path) -> None:
    opened(browser, CHOICE, tmp_path)
    # Half of the files need 2.2 ms at most, with their intervals.
    assert texts(browser, "#sentence") == [
        "Within 5 ms, measured on host, net_0 recipe_b.tflite is the most accurate of 3 files."
    ]
    low, high = choice_.share_interval(0.67, 100)
    percent = f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    assert texts(browser, "#cards dd") == [
        *("67.0 %", percent),
        *("2.00 ms", "95 % interval 1.80 to 2.20 ms; litert 2.1, 1 thread, xnnpack"),
        *("1.00 MB", "recipe_b.tflite"),
    ]
    # One image more is a tie.
    assert texts(browser, "#ties") == ["A tie on these images: recipe_a.tflite."]
    # What may need more than the limit is not within it.
    assert "net_0 recipe_a.tflite is" in within(browser, "2")
    assert texts(browser, "#ties") == [""]
    assert within(browser, "0.5").endswith(
        "None of 3 files is within 0.5 ms, measured on host: net_0 recipe_a.tflite needs 1.00 ms."
    )
    assert "Whatever it costs" in within(browser, "")
    assert "net_0 recipe_c.tflite is" in texts(browser, "#sentence")[0]


def test_files_of_one_name_are_told_apart(browser, tmp_path) -> None:
    rows = [dataclasses.replace(r, recipe="int8_ptq") for r in CHOICE.results]
    opened(browser, dataclasses.replace(CHOICE, results=tuple(rows)), tmp_path)
    assert "net_0 int8_ptq.tflite (bbbbbbbb) is the most" in texts(browser, "#sentence")[0]
    assert ": int8_ptq.tflite (aaaaaaaa)." in texts(browser, "#ties")[0]
    notes = texts(browser, "#rows td.name small")
    assert notes == [f"int8_ptq.tflite ({sha * 8})" for sha in "abc"]


def test_a_page_without_accuracies_says_so(browser, tmp_path) -> None:
    unknown = {"top1": None, "value": None, "task": "", "metric": ""}
    rows = [result(n, **unknown) for n in range(3)]
    opened(browser, Report("no", results=tuple(rows)), tmp_path)
    assert texts(browser, "#sentence") == ["None of these files was evaluated on labelled images."]
    assert "Top-1 (%)" not in texts(browser, "#rows th")
    opened(browser, Report("nothing"), tmp_path)
    assert texts(browser, "#sentence") == ["There are no figures yet."]


def test_a_column_that_is_empty_or_the_same_is_left_out(browser, tmp_path) -> None:
    opened(browser, CHOICE, tmp_path)
    heads = ["file", "Top-1 (%)", "latency (ms)", "size (MB)", "mult-adds (millions)", "date (UTC)"]
    assert texts(browser, "#rows th") == heads
    assert texts(browser, "#rows caption") == [
        "Newest first. In every row: kind measured; device host; "
        "target litert 2.1, 1 thread, xnnpack; judged on photos 99999999"
    ]


def test_the_interval_of_each_point_of_the_front_is_drawn(browser, tmp_path) -> None:
    opened(browser, CHOICE, tmp_path)
    (low, high) = choice_.share_interval(0.9, 100)
    rules = browser.execute_script(
        "return [...document.querySelectorAll('#view-measured .mark-rule.role-mark line')]"
        ".map((line) => [Math.abs(line.x2.baseVal.value - line.x1.baseVal.value),"
        " Math.abs(line.y2.baseVal.value - line.y1.baseVal.value)])"
    )
    upright = [height for width, height in rules if not width and height]
    across = [width for width, height in rules if width and not height]
    # Two points are on the front, and the third is a tie with a rule of its own.
    assert (len(upright), len(across)) == (3, 2)
    assert all(length > 3 for length in upright + across)
    assert f"90 ({100 * low:.1f} to {100 * high:.1f})" in hovered(browser, "measured", 2)


def test_each_history_has_a_scale_of_its_own(browser, tmp_path) -> None:
    """Noise of one percent is small on it, and an outlier is not cut off."""
    days = [
        dataclasses.replace(photos(sha, 90, ms), made_at=f"2026-01-{day:02}T00:00:00.000+00:00")
        for sha, times in (("a", (1.0, 1.01, 1.0)), ("b", (10.0, 10.0, 20.0)))
        for day, ms in enumerate(times, 1)
    ]
    opened(browser, Report("history", results=tuple(reversed(days))), tmp_path)
    assert [text.split(",")[0] for text in texts(browser, "#histories h3")] == [
        "recipe_b.tflite",
        "recipe_a.tflite",
    ]
    heights = browser.execute_script(
        "return [...document.querySelectorAll('#histories figure')].map((figure) =>"
        "[...figure.querySelectorAll('.mark-symbol.role-mark path')].map((mark) =>"
        "mark.getBoundingClientRect().y))"
    )
    spread = [max(ys) - min(ys) for ys in heights]
    assert len(heights[0]) == len(heights[1]) == 3
    assert spread[1] < 20 < 40 < spread[0]


def test_each_metric_has_a_set_of_its_own(browser, tmp_path) -> None:
    """An error is better where it is lower, and its axis says so."""
    other = {"task": "regression", "metric": "mae", "top1": None, "data_source": "ages"}
    errors = [result(n, value=2.0 - (n % 7) / 10, **other) for n in range(105, 112)]
    opened(browser, Report("two", results=(*sample().results, *errors)), tmp_path)
    options = browser.execute_script(
        "return [...document.getElementById('images').options].map((o) => o.value)"
    )
    assert options == ["", "ages, MAE"]
    assert len(marks(browser, "measured")) == 13
    choose(browser, "images", "ages, MAE")
    labels = marks(browser, "measured")
    assert len(labels) == 7 and all("MAE: " in label for label in labels)
    message = browser.execute_script(
        "return document.querySelector('#plot-measured figcaption').textContent"
    )
    # The error falls with the latency: each point is on the front.
    assert "7 points, 7 on the front" in message
    assert texts(browser, "#rows th")[1] == "MAE"
    assert len(texts(browser, "#rows tbody tr")) == 7
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


def test_filters_and_hover(browser, tmp_path) -> None:
    opened(browser, sample(), tmp_path)
    assert choose(browser, "kind", "counted") == 12
    hidden = browser.execute_script(
        "return ['measured', 'counted', 'estimated'].map("
        "(k) => document.getElementById(`plot-${k}`).hidden)"
    )
    assert hidden == [True, False, True]
    choose(browser, "kind", "")
    assert choose(browser, "recipe", "int8_ptq") == 18
    assert len(marks(browser, "measured")) == 6
    rows = browser.execute_script("return document.querySelectorAll('#rows tbody tr').length")
    assert rows == 18
    tip = hovered(browser, "measured", 0)
    assert "net_" in tip and "int8_ptq" in tip


def test_phone_width_dark_mode_and_paper(browser, tmp_path) -> None:
    opened(browser, sample(), tmp_path)

    def colours() -> tuple[str, str]:
        return tuple(
            browser.execute_script(
                "return [getComputedStyle(document.body).backgroundColor, getComputedStyle("
                "document.querySelector('#view-measured svg text')).fill]"
            )
        )

    try:
        emulate(browser)
        light = colours()
        emulate(browser, scheme="dark")
        dark = colours()
        assert light == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
        assert dark == ("rgb(20, 23, 26)", "rgb(232, 234, 237)")
        emulate(browser, scheme="dark", media="print")
        assert colours() == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
        assert (
            browser.execute_script(
                "return getComputedStyle(document.getElementById('filters')).display"
            )
            == "none"
        )
        emulate(browser, width=360)
        time.sleep(0.5)
        wide = browser.execute_script(
            "return [document.documentElement.scrollWidth, innerWidth, "
            "document.querySelector('#view-measured svg').getBoundingClientRect().width]"
        )
        assert wide[1] == 360
        assert wide[0] <= 360
        assert 200 < wide[2] <= 360
    finally:
        emulate(browser)
    paper = base64.b64decode(browser.print_page())
    assert paper.startswith(b"%PDF") and paper.count(b"/Type /Page\n") + paper.count(b"/Page ") >= 1


def test_keyboard_and_labels(browser, tmp_path) -> None:
    opened(browser, sample(), tmp_path)
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(8):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(
            browser.execute_script(
                "return document.activeElement.id || document.activeElement.className"
            )
        )
    assert reached[:6] == ["skip", "within", "kind", "device", "recipe", "model"]
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = {(n.get("role", {}).get("value"), n.get("name", {}).get("value")) for n in tree}
    assert {("combobox", n) for n in ("Kind", "Device", "Recipe", "Model")} <= names
    assert any(role == "figure" and "Accuracy and measured latency" in name for role, name in names)
    assert all(name for role, name in names if role in ("combobox", "button", "img", "link"))
    assert all(label and "Top-1" in label for label in marks(browser, "measured"))


def test_cold_starts_are_a_table_with_their_intervals(browser, tmp_path) -> None:
    report = dataclasses.replace(
        CHOICE, cold_starts=(cold("b", 37_100_000), cold("d", 9_000_000, "adb:1"))
    )
    opened(browser, report, tmp_path)
    heads = texts(browser, "#cold th")
    # What no runner told has no column.
    assert heads == [
        *("file", "device", "all until the first answer", "peak memory", "first inference"),
        "date (UTC)",
    ]
    rows = [texts(browser, f"#cold tbody tr:nth-child({n}) td") for n in (1, 2)]
    assert rows[0][0].startswith("net_0 recipe_b")
    assert rows[0][1] == "hostlitert 2.1, native, 1 thread, 6 processes"
    assert rows[0][2] == "37.1 ms33.4 ms to 40.8 ms"
    assert rows[1][0] == f"file {'d' * 12}"
    opened(browser, CHOICE, tmp_path)
    assert texts(browser, "#cold") == []


def first_screen(browser: Any) -> float:
    """When all that is on the screen was drawn at first, in milliseconds after the start."""
    return browser.execute_script("return performance.getEntriesByName('shown')[0].startTime")


def test_plots_below_the_screen_are_drawn_later(browser, tmp_path) -> None:
    """Their place is kept, so that nothing moves then."""
    rows = tuple(result(n, kind) for n in range(30) for kind in ("measured", "counted"))
    path = tmp_path / "later.html"
    text = REPORTS.load("html").render(Report("later", results=rows))
    recorder = (
        "const mark = performance.mark.bind(performance); window.seen = [];"
        "performance.mark = (name) => { mark(name); window.seen.push("
        "[...document.querySelectorAll('.view')].map((v) => [v.getBoundingClientRect().top,"
        " v.childElementCount])); };"
    )
    place = text.index('<script type="module">')
    path.write_text(f"{text[:place]}<script>{recorder}</script>{text[place:]}", "utf-8")
    emulate(browser, width=1280)
    try:
        browser.get(path.as_uri())
        ready(browser)
        first, *_, last = browser.execute_script("return window.seen")
    finally:
        emulate(browser)
    on_screen = [drawn > 0 for top, drawn in first if 0 < top < 800]
    assert on_screen
    assert all(on_screen)
    assert not all(drawn for _, drawn in first)
    assert all(drawn for _, drawn in last)
    assert [top for top, _ in first] == pytest.approx([top for top, _ in last], abs=40)


@pytest.mark.slow
def test_a_hundred_thousand_figures(browser, tmp_path) -> None:
    kinds = ("measured", "counted", "estimated")
    rows = tuple(result(n, kinds[n % 3]) for n in range(100_000))
    start = time.perf_counter()
    opened(browser, Report("many", results=rows), tmp_path)
    complete = browser.execute_script("return performance.now()")
    shown = first_screen(browser)
    size = (tmp_path / "report.html").stat().st_size
    print(
        f"{size / 1e6:.1f} MB, the first screen {shown / 1000:.2f} s after its start, "
        f"all plots after {complete / 1000:.2f} s "
        f"({time.perf_counter() - start:.1f} s with writing it)"
    )
    assert size < 15e6
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
