"""The accuracy gate as a fixture of pytest: ``def test_accuracy(mobiledeploy_check): ...``.

pytest imports this file in every run where mobiledeploy is installed: all else waits for its use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from mobiledeploy.core.types import Report

_UPDATE = "--mobiledeploy-update-baseline"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the one option."""
    group = parser.getgroup("mobiledeploy")
    group.addoption(
        _UPDATE,
        action="store_true",
        help="accept the artifacts: write the baselines, judge nothing",
    )


@pytest.fixture
def mobiledeploy_check(request: pytest.FixtureRequest) -> Callable[..., Report | None]:
    """Holds artifacts against a baseline, as `mobiledeploy check` does; fails as it would.

    Called with artifacts (a path or a pattern, or several) and `baseline`, and what the command has
    for options: `data`, `margin`, `float_margin`, `floor`, `max_flips` in percentage points,
    `labels=False`, `on_inconclusive="warn"`, `runtime`, `threads`. Paths are relative to where
    pytest runs. It answers the report, or None where the baseline was written instead.
    """
    update = bool(request.config.getoption(_UPDATE))

    def run(
        artifacts: str | Path | Sequence[str | Path],
        *,
        baseline: str | Path,
        data: str | Path | None = None,
        margin: float = 1.0,
        float_margin: float = 2.0,
        floor: float | None = None,
        max_flips: float | None = None,
        labels: bool = True,
        on_inconclusive: Literal["fail", "warn"] = "fail",
        runtime: str | None = None,
        threads: int | None = None,
    ) -> Report | None:
        __tracebackhide__ = True
        from mobiledeploy.core.errors import DeployError
        from mobiledeploy.core.ports import SILENT
        from mobiledeploy.verbs import check

        try:
            paths = _paths(artifacts)
            if update:
                check.update_baseline(
                    paths,
                    baseline=baseline,
                    data=data,
                    margin=margin,
                    max_flips=max_flips,
                    no_labels=not labels,
                    runtime=runtime,
                    threads=threads,
                    reporter=SILENT,
                )
                return None
            report = check.check(
                paths,
                baseline=baseline,
                data=data,
                margin=margin,
                float_margin=float_margin,
                floor=floor,
                max_flips=max_flips,
                no_labels=not labels,
                on_inconclusive=on_inconclusive,
                runtime=runtime,
                threads=threads,
                reporter=SILENT,
            )
        except DeployError as error:
            pytest.fail(f"error: {error}", pytrace=False)
        wrong = [f"error: {one.message}" for one in report.failed] + [
            f"{found.path}: {verdict.outcome}: {verdict.line}"
            for found in report.checks
            for verdict in found.verdicts
            if verdict.outcome == "fail"
            or (verdict.outcome == "inconclusive" and on_inconclusive == "fail")
        ]
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)
        return report

    return run


def _paths(artifacts: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """The files of paths and patterns; records, which lie beside them, are left out."""
    from mobiledeploy.core.artifacts import without_records

    asked = [artifacts] if isinstance(artifacts, str | Path) else artifacts
    found: list[Path] = []
    for pattern in map(Path, asked):
        if not set("*?[") & set(str(pattern)):
            found.append(pattern)
            continue
        base = Path(pattern.anchor)
        matched = sorted(base.glob(str(pattern.relative_to(base))))
        if not matched:
            pytest.fail(f"error: no file fits {pattern}", pytrace=False)
        found += matched
    return without_records(found)
