"""The accuracy gate as a pytest fixture: ``def test_accuracy(mobiledeploy_check): ...``.

pytest imports this file in every run if mobiledeploy is installed, so it imports the rest on use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from mobiledeploy.core.types import ChannelOrder, Report

_UPDATE = "--mobiledeploy-update-baseline"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option."""
    group = parser.getgroup("mobiledeploy")
    group.addoption(
        _UPDATE,
        action="store_true",
        help="accept the artifacts: write the baselines without a check",
    )


@pytest.fixture
def mobiledeploy_check(request: pytest.FixtureRequest) -> Callable[..., Report | None]:
    """Compares artifacts with a baseline, and fails the test as `mobiledeploy check` would.

    It is called with artifacts or bundles (a path or a pattern, or several), `baseline` (a file, or
    a bundle that holds one; the default is that of the command), and options of the command:
    `data`, `task`, `margin`, `float_margin`, `floor`, `max_flips` in percentage points,
    `labels=False`, `on_inconclusive="warn"`, `runtime`, `threads`; of files of other tools also
    `input_range`, `mean`, `std` and `channels`. Paths are relative to the folder
    of the pytest run. It returns the report, or None if it wrote the baseline.
    """
    update = bool(request.config.getoption(_UPDATE))

    def run(
        artifacts: str | Path | Sequence[str | Path],
        *,
        baseline: str | Path | None = None,
        data: str | Path | None = None,
        task: str | None = None,
        margin: float = 1.0,
        float_margin: float = 2.0,
        floor: float | None = None,
        max_flips: float | None = None,
        labels: bool = True,
        on_inconclusive: Literal["fail", "warn"] = "fail",
        runtime: str | None = None,
        threads: int | None = None,
        input_range: tuple[float, float] | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        channels: ChannelOrder | None = None,
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
                    task=task,
                    margin=margin,
                    max_flips=max_flips,
                    no_labels=not labels,
                    runtime=runtime,
                    threads=threads,
                    input_range=input_range,
                    mean=mean,
                    std=std,
                    channels=channels,
                    reporter=SILENT,
                )
                return None
            report = check.check(
                paths,
                baseline=baseline,
                data=data,
                task=task,
                margin=margin,
                float_margin=float_margin,
                floor=floor,
                max_flips=max_flips,
                no_labels=not labels,
                on_inconclusive=on_inconclusive,
                runtime=runtime,
                threads=threads,
                input_range=input_range,
                mean=mean,
                std=std,
                channels=channels,
                reporter=SILENT,
            )
        except DeployError as error:
            pytest.fail(f"error: {error}", pytrace=False)
        wrong = [f"error: {one.message}" for one in report.failed] + [
            f"{check_.path}: {verdict.outcome}: {verdict.line}"
            for check_ in report.checks
            for verdict in check_.verdicts
            if verdict.outcome == "fail"
            or (verdict.outcome == "inconclusive" and on_inconclusive == "fail")
        ]
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)
        return report

    return run


def _paths(artifacts: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """The files of paths and patterns, without the records beside them."""
    from mobiledeploy.core.artifacts import without_records

    patterns = [artifacts] if isinstance(artifacts, str | Path) else artifacts
    paths: list[Path] = []
    for pattern in map(Path, patterns):
        if not set("*?[") & set(str(pattern)):
            paths.append(pattern)
            continue
        base = Path(pattern.anchor)
        matches = sorted(base.glob(str(pattern.relative_to(base))))
        if not matches:
            pytest.fail(f"error: no file fits {pattern}", pytrace=False)
        paths += matches
    return without_records(paths)
