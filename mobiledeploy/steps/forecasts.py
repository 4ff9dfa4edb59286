"""Estimates of device cards beside the timings that came later: their errors, card by card."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from mobiledeploy.analysis import choice
from mobiledeploy.core import artifacts, device_cards, units
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    CardCalibration,
    Estimated,
    Forecast,
    ForecastPair,
    Measured,
    Measurement,
    Result,
)
from mobiledeploy.steps import estimate
from mobiledeploy.store import database as store
from mobiledeploy.store.database import Store


@dataclass(frozen=True)
class _Timing:
    """What an estimate must fit: a `Result` has it too."""

    artifact_sha256: str
    kind: str
    device: str
    threads: int
    delegate: str
    latency_ns: float | None


class Forecasts:
    """The stored estimates that were made for timings.

    An estimate is for a timing if it is of the same file, with as many threads and the same
    delegate (all CPU delegates are one), by a card of the device. It may be of another runtime or
    version, which `Forecast.series` names.

    Args:
        database: with the estimates.
        results: the timings that are asked about are among them.
    """

    def __init__(self, database: Store, results: Sequence[Result | _Timing]) -> None:
        shas = {r.artifact_sha256 for r in results if r.kind == "measured"}
        self._models: dict[str, str] = {}
        self._estimates: dict[str, list[Estimated]] = defaultdict(list)
        self._cards: dict[str, DeviceCard | None] = {}
        for one in database.estimates(shas) if shas else ():
            self._estimates[one.artifact_sha256].append(one)
        if self._estimates:
            self._models = database.device_models()

    def of(self, r: Result | _Timing) -> tuple[Forecast, ...]:
        """The estimates for a timing: of each series one, that of the newest card first.

        One of a network that was no point of the series comes before a newer one, which may have
        become a point by this timing.
        """
        if r.kind != "measured" or not r.latency_ns:
            return ()
        by_series: dict[tuple[str, str], Forecast] = {}
        for one in self._estimates.get(r.artifact_sha256, ()):
            if not self._is_for(one, r):
                continue
            forecast = _forecast(one, r.latency_ns)
            key = forecast.card, forecast.series
            if key not in by_series or (
                by_series[key].is_point is not False and forecast.is_point is False
            ):
                by_series[key] = forecast
        return tuple(by_series.values())

    def _is_for(self, one: Estimated, r: Result | _Timing) -> bool:
        delegates = [
            d if d not in estimate.ON_CPU else "" for d in (one.target.delegate, r.delegate)
        ]
        if one.target.threads != r.threads or len(set(delegates)) > 1:
            return False
        card = self._card(one.target.device)
        return card is not None and card.describes(r.device, self._models.get(r.device, ""))

    def _card(self, name: str) -> DeviceCard | None:
        if name not in self._cards:
            self._cards[name] = None
            # It may have been removed since.
            with suppress(DeployError):
                self._cards[name] = device_cards.load(name)
        return self._cards[name]


def _forecast(one: Estimated, latency_ns: float) -> Forecast:
    fit, target = one.fit, one.target
    low, high = one.interval_ns
    return Forecast(
        target.device,
        estimate.described(
            fit.runtime, fit.version or fit.year, target.delegate, fit.precision, target.threads
        ),
        one.latency_ns,
        one.interval_ns,
        one.latency_ns / latency_ns - 1,
        low <= latency_ns <= high,
        fit.is_point,
    )


def beside(database: Store, results: Sequence[Result]) -> tuple[Result, ...]:
    """The results, each timing with the estimate that was made for it."""
    forecasts = Forecasts(database, results)
    return tuple(replace(r, forecast=next(iter(forecasts.of(r)), None)) for r in results)


def of_figure(figure: Measurement) -> Forecast | None:
    """What a card estimated for a timing, from the store of this folder."""
    if not isinstance(figure, Measured) or not store.path().exists():
        return None
    t = figure.target
    sha256 = figure.artifact_sha256
    timing = _Timing(sha256, figure.kind, t.device, t.threads, t.delegate, figure.median_ns)
    with Store.open() as database:
        return next(iter(Forecasts(database, [timing]).of(timing)), None)


def calibrations(database: Store, results: Sequence[Result]) -> tuple[CardCalibration, ...]:
    """For each series of a card, its estimates beside timings; `results` are newest first."""
    forecasts = Forecasts(database, results)
    series: dict[tuple[str, str], dict[tuple[object, ...], ForecastPair]] = defaultdict(dict)
    for r in results:
        target = r.artifact_sha256, r.device, r.runner, r.runtime, r.delegate
        for forecast in forecasts.of(r):
            network = units.network(r.model, r.weights, r.weights_sha256)
            pair = ForecastPair(
                r.made_at,
                r.artifact_sha256,
                network,
                r.recipe,
                r.format,
                r.device,
                r.latency_ns or 0.0,
                forecast,
            )
            series[forecast.card, forecast.series].setdefault(target, pair)
    return tuple(
        _calibration(card, name, tuple(pairs.values()))
        for (card, name), pairs in sorted(series.items())
    )


def _calibration(card: str, series: str, pairs: tuple[ForecastPair, ...]) -> CardCalibration:
    # Files of one network have about one estimate and one time: more of them tell nothing new.
    networks: dict[str, Forecast] = {}
    for pair in pairs:
        # A record that does not say whether its network was a point may be of one.
        if pair.forecast.is_point is False:
            networks.setdefault(pair.model or pair.artifact_sha256, pair.forecast)
    others = tuple(networks.values())
    errors, within = [one.error for one in others], sum(one.within for one in others)
    return CardCalibration(
        card,
        series,
        len(others),
        within,
        choice.share_interval(within / len(others), len(others)) if others else None,
        math.sqrt(sum(error**2 for error in errors) / len(errors)) if errors else None,
        median(errors) if errors else None,
        tuple(sorted(pairs, key=lambda pair: pair.latency_ns)),
    )


def complete(database: Store, results: Sequence[Result], reporter: Reporter) -> Iterator[Estimated]:
    """Estimates that are missing beside timings, from files that are still where they were made.

    `reporter` is told of each that cannot be made.
    """
    files: dict[str, Path] = {}
    for place in database.places():
        with suppress(DeployError):
            files.setdefault(artifacts.load(Path(place)).sha256, Path(place))
    forecasts, models = Forecasts(database, results), database.device_models()
    done = set()
    for r in results:
        target = r.artifact_sha256, r.device, r.threads, r.delegate
        path = files.get(r.artifact_sha256)
        if r.kind != "measured" or path is None or target in done or forecasts.of(r):
            continue
        done.add(target)
        card = device_cards.of_device(r.device, models.get(r.device, ""))
        if card is None:
            continue
        try:
            yield from estimate.estimate(
                [path],
                device=card.name,
                threads=r.threads,
                delegate=None if r.delegate in estimate.ON_CPU else r.delegate,
            )
        except DeployError as error:
            reporter.say(f"no estimate of {path} for {r.device}: {error}")
