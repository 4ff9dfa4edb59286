"""How tables and plots show the metric of a result: top-1 of a classifier, mAP of a detector."""

from __future__ import annotations

from collections.abc import Iterable

from mobiledeploy.core import plugins, units
from mobiledeploy.core.types import Metric, Result, StoredEvaluation

SEVERAL = "metric"
TOP1 = Metric("top1", "top-1", "share")


def of(result: Result | StoredEvaluation) -> Metric:
    """The metric of a result; top-1 if it was not evaluated."""
    if result.metric in ("", TOP1.name):
        return TOP1
    return plugins.metric(result.task, result.metric)


def header(results: Iterable[Result]) -> str:
    """The heading of a column: the metric's title, or `metric` if the results have several."""
    titles = {of(r).title for r in results if r.metric}
    return SEVERAL if len(titles) > 1 else next(iter(titles), TOP1.title)


def cell(result: Result | StoredEvaluation, heading: str = SEVERAL) -> str:
    """The value in a column of this heading; it names its metric where the heading does not."""
    metric = of(result)
    value = units.metric(result.value, metric.unit)
    return f"{metric.title} {value}" if heading == SEVERAL and result.metric else value


def judged_on(result: Result) -> str:
    """What a value can be compared on: its images, and its metric unless that is top-1."""
    images = units.images(result.data_source, result.data_split, result.data_identity)
    metric = of(result)
    return images if metric == TOP1 else f"{images}, {metric.title}"


def height(result: Result) -> float | None:
    """The value as plots draw it: shares in percent; None if it was not evaluated."""
    if result.value is None:
        return None
    return 100 * result.value if of(result).unit == "share" else result.value


def axis(metric: Metric) -> str:
    """The title of an axis of this metric, with its unit."""
    unit = "%" if metric.unit == "share" else metric.unit
    # mAP stays as it is.
    first = metric.title[:1] if metric.title[1:2].isupper() else metric.title[:1].upper()
    title = first + metric.title[1:]
    return f"{title} ({unit})" if unit else title
