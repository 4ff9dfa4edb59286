"""The page in a real browser: Debian's Chromium, headless, driven over chromedriver."""

from __future__ import annotations

import base64
import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobiledeploy.analysis import pareto
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import Detail, Flip, LayerFigure, Report, Result, StoredVerdict

pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium (mobiledeploy[dev])")

PIXEL = "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff").decode()
EVIL = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>"


def result(number: int, kind: str = "measured", **change: object) -> Result:
    output = Result(
        f"2026-01-{1 + number % 28:02}T00:00:00.000+00:00",
        f"{number:064x}",
        f"net_{number % 3}",
        ("float32", "int8_ptq")[number % 2],
        "tflite",
        1_000_000 + 1000 * number,
        kind,
        {"measured": "host", "counted": "emulator:cortex-a76", "estimated": "pixel", "": ""}[kind],
        "python",
        "litert",
        "2.1",
        1,
        "xnnpack",
        None if kind in ("counted", "") else 1e6 * (1 + number % 7),
        (1e6, 9e6) if kind in ("measured", "estimated") else None,
        10**8 + number if kind == "counted" else None,
        0.5 + (number % 40) / 100,
        0.9,
        10**7 + number,
        task="classification",
        metric="top1",
        value=0.5 + (number % 40) / 100,
    )
    return dataclasses.replace(output, **change)


def sample() -> Report:
    rows = [result(n, kind) for n in range(12) for kind in ("measured", "counted", "estimated")]
    rows.append(dataclasses.replace(rows[0], model=EVIL, artifact_sha256="f" * 64))
    detail = Detail(
        "0" * 64,
        "net_0",
        "int8_ptq",
        "tflite",
        (LayerFigure("conv", "Conv 3x3", 1000),),
        False,
        (("circle", 10, 9), (EVIL, 5, 0)),
        "float32.tflite",
        (Flip("a.png", "circle", "circle", EVIL, PIXEL),),
        3,
        {"cpu": EVIL},
    )
    verdict = StoredVerdict(
        "2026-01-02T00:00:00", "0" * 64, "regress", "latency", "fail", "grew by 9 %"
    )
    return Report("Nets & <b>", results=tuple(rows), details=(detail,), verdicts=(verdict,))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("no chromium and chromedriver (apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def opened(browser: Any, report: Report, folder: Path) -> Any:
    path = folder / "report.html"
    path.write_text(REPORTS.load("html").render(report), "utf-8")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(path.as_uri())
    ready(browser)
    return browser


def ready(browser: Any) -> int:
    for _ in range(300):
        outcome = browser.execute_script("return document.body?.dataset.ready")
        if outcome is not None:
            return int(outcome)
        time.sleep(0.1)
    raise AssertionError(browser.get_log("browser"))


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


def emulate(browser: Any, *, scheme: str = "light", media: str = "", width: int = 0) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    if width:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True},
        )
    else:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


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


def test_the_front_equals_that_of_the_analysis(browser, tmp_path) -> None:
    report = sample()
    opened(browser, report, tmp_path)
    mine = [r for r in report.results if r.kind == "measured"]
    best = pareto.front([(r.latency_ns or 0, r.value or 0) for r in mine])
    message = browser.execute_script(
        "return document.querySelector('#plot-measured figcaption').textContent"
    )
    assert f"13 points, {len(best)} on the front" in message


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
    assert "MAE 2" in browser.execute_script("return document.querySelector('#rows').textContent")
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
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    mark = browser.find_elements(By.CSS_SELECTOR, "#view-measured .mark-symbol.role-mark path")[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser).move_to_element(mark).perform()
    time.sleep(0.3)
    tip = browser.execute_script(
        "return document.querySelector('#vg-tooltip-element.visible')?.textContent ?? ''"
    )
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
    for _ in range(7):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(
            browser.execute_script(
                "return document.activeElement.id || document.activeElement.className"
            )
        )
    assert reached[:5] == ["skip", "kind", "device", "recipe", "model"]
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = {(n.get("role", {}).get("value"), n.get("name", {}).get("value")) for n in tree}
    assert {("combobox", n) for n in ("Kind", "Device", "Recipe", "Model")} <= names
    assert any(role == "figure" and "Accuracy and measured latency" in name for role, name in names)
    assert all(name for role, name in names if role in ("combobox", "button", "img", "link"))
    assert all(label and "Top-1" in label for label in marks(browser, "measured"))


@pytest.mark.slow
def test_a_hundred_thousand_figures(browser, tmp_path) -> None:
    kinds = ("measured", "counted", "estimated")
    rows = tuple(result(n, kinds[n % 3]) for n in range(100_000))
    start = time.perf_counter()
    opened(browser, Report("many", results=rows), tmp_path)
    chosen_items = browser.execute_script("return performance.now()")
    size = (tmp_path / "report.html").stat().st_size
    print(
        f"{size / 1e6:.1f} MB, ready {chosen_items / 1000:.2f} s after its start "
        f"({time.perf_counter() - start:.1f} s with writing it)"
    )
    assert size < 15e6
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
