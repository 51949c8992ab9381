"""Learns the monitor's thresholds from the house's own bookings: past champions, trained anew and looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pandas as pd

from cancellations.domain import labels
from cancellations.domain.calibration import Calibration, CalibrationPolicy, PastLook, learn, trainings
from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.recipes import Recipe
from cancellations.domain.reference import ReferencePolicy
from cancellations.errors import NotEnoughData
from cancellations.ports import Monitor, Store, Trainer
from cancellations.usecases.monitor import Rhythm
from cancellations.usecases.point_in_time import as_scored
from cancellations.usecases.untouched import untouched_of
from cancellations.usecases.walk_forward import Market, PastChampion, Watched


@dataclass(frozen=True)
class Making:
    """How past champions are made: as the house makes its own, from `min_rows` matured bookings on."""

    recipe: Recipe
    seed: int
    reference_rows: int
    min_rows: int


def calibrate(
    store: Store,
    trainer: Trainer,
    watch: Monitor,
    *,
    as_of: date,
    documented: Mapping[str, float],
    policy: CalibrationPolicy,
    making: Making,
    rhythm: Rhythm,
    rule: labels.LabelRule,
    open_bookings: InFlightPolicy,
    against: ReferencePolicy,
    on_champion: Callable[[int, int], None] = lambda done, of: None,
) -> Calibration:
    """Thresholds by what was known on a day; nothing is written.

    `documented`: each signal's threshold while nothing was learned. `on_champion` is told after each champion how
    many there are of how many. Raises `NotEnoughData` where too few champions can be looked back on.
    """
    with store.begin() as work:
        span = work.booked_span()
        first = as_of if span is None else span[0]
        days = trainings(first, as_of, policy)
        _require(len(days), first, as_of, policy)
        history = work.history(booked_until=as_of, known_until=as_of)
        history = history[untouched_of(work, history, rule, as_of).rows].reset_index(drop=True)
        market = Market(history, as_scored(work, history, rule), rule)
    return walk(market, trainer, watch, as_of, documented, policy, making, rhythm, open_bookings, against, on_champion)


def walk(
    market: Market,
    trainer: Trainer,
    watch: Monitor,
    as_of: date,
    documented: Mapping[str, float],
    policy: CalibrationPolicy,
    making: Making,
    rhythm: Rhythm,
    open_bookings: InFlightPolicy,
    against: ReferencePolicy,
    on_champion: Callable[[int, int], None] = lambda done, of: None,
) -> Calibration:
    """The same on bookings that are at hand."""
    first = market.history["booked_on"].min().date()
    matured_on = labels.maturity(market.history, market.rule)
    days = [
        day
        for day in trainings(first, as_of, policy)
        if _trainable(market.history[(matured_on <= pd.Timestamp(day)).to_numpy()], day, making)
    ]
    _require(len(days), first, as_of, policy)
    looks: list[PastLook] = []
    for number, day in enumerate(days, start=1):
        champion = PastChampion.of(market, day, trainer, making.recipe, making.seed, making.reference_rows)
        until = day + timedelta(weeks=policy.weeks)
        watched = Watched(market, champion, until, rhythm.window_days, open_bookings, against)
        looks += _looks(watched, watch, rhythm.ends(day, until))
        on_champion(number, len(days))
    return Calibration(as_of, learn(looks, documented, policy), days[0], days[-1], policy.weeks)


def keep(store: Store, calibration: Calibration, clock: Callable[[], datetime]) -> None:
    """From now on looks at windows that end on its day or later use its thresholds."""
    with store.begin() as work:
        work.add_calibration(calibration, clock())
        work.commit()


def _looks(watched: Watched, watch: Monitor, ends: list[date]) -> Iterator[PastLook]:
    for end in ends:
        signals = watch.measure(watched.observe(end)).report.signals
        yield PastLook(watched.champion.trained, end, {s.name: s.value for s in signals if s.value is not None})


def _trainable(matured: pd.DataFrame, day: date, making: Making) -> bool:
    if len(matured) < making.min_rows:
        return False
    label = labels.recorded_cancelled(matured, day)
    return bool(label.any() and not label.all())


def _require(champions: int, first: date, as_of: date, policy: CalibrationPolicy) -> None:
    if champions >= policy.min_champions:
        return
    weeks = (policy.history_days + (policy.min_champions - 1) * policy.every_days) // 7 + policy.weeks
    raise NotEnoughData(
        f"thresholds are learned from {policy.min_champions} past champions or more, each trained on"
        f" {policy.history_days} days of bookings and watched for {policy.weeks} weeks, {policy.every_days} days apart:"
        f" some {weeks} weeks of bookings with outcomes. Between {first} and {as_of} there are {champions}. The"
        " documented thresholds stay; load older bookings, or calibrate later"
    )
