"""Pages in a browser, for the tests of reports."""

from __future__ import annotations

import base64
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import (
    Answers,
    ColdFigure,
    ColdStart,
    Detail,
    DrawnAnswer,
    DrawnBox,
    Flip,
    LayerFigure,
    Report,
    Result,
    StoredColdStart,
    StoredVerdict,
    Target,
)

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
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


def photos(sha: str, right: int, ms: float, **change: object) -> Result:
    """A file that classifies `right` of 100 images correctly, in 90 to 110 % of its time."""
    return result(
        0,
        artifact_sha256=sha * 64,
        recipe=f"recipe_{sha}",
        latency_ns=1e6 * ms,
        latency_interval_ns=(0.9e6 * ms, 1.1e6 * ms),
        top1=right / 100,
        value=right / 100,
        images=100,
        data_source="my/photos",
        data_identity="9" * 64,
        **change,
    )


def answers(sha: str, right: int) -> Answers:
    bits = np.packbits([n < right for n in range(100)]).tobytes()
    return Answers(sha * 64, "s", 100, base64.b64encode(bits).decode())


def cold(sha: str, first_answer_ns: int, device: str = "host", **change: object) -> StoredColdStart:
    """Six processes; the C runner tells no step but the last."""
    values = {"first_inference_ns": first_answer_ns // 10, "first_answer_ns": first_answer_ns}
    figures = [
        ColdFigure(name, (value,) * 6, value, (0.9 * value, 1.1 * value))
        for name, value in (*values.items(), ("peak_rss_bytes", 58_000_000))
    ]
    start = ColdStart(
        sha * 64,
        Target(device, "native", "litert", 1, "xnnpack"),
        *("2.1", tuple(figures), 1000, None, {}, {}, ()),
    )
    stored = StoredColdStart("2026-01-05T00:00:00.000+00:00", "net", "int8_ptq", "tflite", start)
    return dataclasses.replace(stored, **change)


FILES = {"a": (66, 1.0), "b": (67, 2.0), "c": (90, 5.0)}
CHOICE = Report(
    "choice",
    results=tuple(photos(sha, *figures) for sha, figures in FILES.items()),
    answers=tuple(answers(sha, right) for sha, (right, _) in FILES.items()),
)


def everything() -> Report:
    """A report with something in each of its parts, and a name that is too long for any column."""
    few = sample()
    drawn = DrawnAnswer("a", PIXEL, (DrawnBox((0.1, 0.1, 0.5, 0.5), "b", 0.9),), "", "", ())
    masked = DrawnAnswer("a", PIXEL, (), PNG, PNG, (("c", "d55e00"),), PNG, 0.25)
    long = "mobilenet_v3_large_minimalistic_1.0_224_distilled_from_a_larger_one"
    rows = [dataclasses.replace(r, model=long) for r in CHOICE.results]
    again = [dataclasses.replace(r, made_at="2026-01-09T00:00:00.000+00:00") for r in rows]
    layer = LayerFigure("a_layer_name/" * 20, "Conv 3x3", 1000)
    details = [
        dataclasses.replace(few.details[0], drawn=one, profile=(layer,))
        for one in ((drawn,), (masked,))
    ]
    line = "a sentence of a gate that needs more than one line of a narrow screen"
    verdicts = [
        StoredVerdict(f"2026-01-0{n}T00:00:00", r.artifact_sha256, "check", "golden", outcome, line)
        for n, r in enumerate(rows, 1)
        for outcome in (("pass", "fail", "inconclusive")[n - 1],)
    ]
    return dataclasses.replace(
        few,
        results=(*again, *rows, *few.results),
        details=tuple(details),
        verdicts=tuple(verdicts),
        answers=CHOICE.answers,
        cold_starts=(cold("a", 26_300_000), cold("b", 37_100_000)),
    )


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


def texts(browser: Any, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)",
        selector,
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
