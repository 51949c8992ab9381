"""Markets, each with a champion and the monitor's weekly looks at it: what alarms, and when.

A champion is trained on what a market has shown. Then the monitor looks once a week, as in production: the market
goes on as it was, or changes from a day on. A later change leaves the simulator's past as it was, so all changes of
one simulated market share its champion and the looks before. Looks are judged twice, by the documented thresholds
and by those that the market's own past teaches, where it was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd

from cancellations.bootstrap import trainer
from cancellations.domain.calibration import Calibration, CalibrationPolicy
from cancellations.domain.features import build, past_of
from cancellations.domain.gate import GatePolicy
from cancellations.domain.labels import CANCELLED, LabelRule
from cancellations.domain.recipes import Recipe
from cancellations.domain.reservation import group_keys
from cancellations.domain.retraining import (
    Action,
    RetrainHistory,
    RetrainPolicy,
    Signal,
    Verdict,
    decide_retrain,
    evidence_of,
    judge,
)
from cancellations.errors import NotEnoughData
from cancellations.settings import MonitorSettings
from cancellations.sources.simulator import Drift, DriftKind, simulate
from cancellations.usecases.calibrate import Making, walk
from cancellations.usecases.monitor import Rhythm
from cancellations.usecases.walk_forward import Market, PastChampion, Watched
from monitoring.distances import distance
from monitoring.drift import dataset_share
from monitoring.performance import entropy
from monitoring.report import EvidentlyMonitor, documented

RULE = LabelRule()
BEGINS = date(2015, 1, 5)
# A year and a half of bookings: as much as thresholds need to be learned from.
TRAINED = BEGINS + timedelta(weeks=78)
WEEK = timedelta(days=7)
LOOKS_BEFORE, LOOKS_AFTER = 4, 12
STARTS = TRAINED + LOOKS_BEFORE * WEEK + timedelta(days=1)
UNTIL = TRAINED + (LOOKS_BEFORE + LOOKS_AFTER) * WEEK
REFERENCE_ROWS = 5_000
# By the calendar alone a champion is retrained in any world; asked here is what drift brings about.
POLICY = replace(RetrainPolicy(), calendar_floor_days=10_000)
DECISION, ANY, FLAG, CBPE = "decision", "some signal", "Evidently's dataset flag", "CBPE alarm"
# Named changes, at three strengths. Of the last two: days by which cancellations are told late, and the share of
# them that is told never.
LATE, LOST = "cancellations told late", "cancellations lost"
CHANGES: Mapping[str, tuple[float, float, float]] = {
    DriftKind.LEAD_TIME_SHIFT: (1.15, 1.5, 2.5),
    DriftKind.CHANNEL_MIX: (1.25, 2.0, 4.0),
    DriftKind.PRICE_SHOCK: (1.1, 1.3, 1.8),
    DriftKind.FREE_CANCELLATION: (1.25, 1.75, 3.0),
    DriftKind.NEW_MARKET: (1.1, 1.3, 2.0),
    LATE: (7, 14, 30),
    LOST: (0.1, 0.25, 0.5),
}
# Evidently's own report costs more than all of our signals: it is asked of the fourth look after the change, of
# undisturbed markets and of the strongest changes.
FLAGGED = 4
# A peer's rule (NannyML's CBPE): estimated performance beyond the mean of so many windows before the champion's
# training by three of their standard deviations.
CBPE_WINDOWS, CBPE_DEVIATIONS = 6, 3.0


@dataclass(frozen=True)
class Course:
    """The looks at one champion: what each measured, and how many outcomes had become final since its training.

    `market` is what it was a look at, `change` and `strength` what began at `STARTS`, None of a market that goes on
    as it was. `learned`: thresholds of the market's own past, None where it is too short. `flagged`: Evidently's
    dataset flag at one look, None where it was not asked; `estimated`: a peer's alarm at each look.
    """

    market: str
    change: str | None
    strength: float
    trained: date
    ends: tuple[date, ...]
    signals: tuple[tuple[Signal, ...], ...]
    matured: tuple[int, ...]
    learned: Calibration | None
    flagged: bool | None
    estimated: tuple[bool, ...]

    def told(self, name: str, *, learned: bool = False) -> list[bool]:
        """At each look, whether a signal alarmed, any of them did, or the decision found a drift confirmed."""
        if name == CBPE:
            return list(self.estimated)
        judged = [self._judged(signals) if learned else signals for signals in self.signals]
        if name != DECISION:
            return [any(name in (ANY, s.name) and s.verdict is Verdict.ALARM for s in signals) for signals in judged]
        evidence: list[float | None] = []
        decided = []
        for end, signals, matured in zip(self.ends, judged, self.matured, strict=True):
            history = RetrainHistory(self.trained, evidence=tuple(evidence), matured_since=matured)
            decided.append(decide_retrain(signals, history, POLICY, end).action is Action.RETRAIN_DRIFT)
            evidence.append(evidence_of(signals))
        return decided

    def _judged(self, signals: Sequence[Signal]) -> tuple[Signal, ...]:
        """By the learned thresholds; the documented ones stay where nothing was learned."""
        limits = {s.name: (self.learned.threshold(s.name) if self.learned else None) or s.threshold for s in signals}
        return tuple(
            replace(s, threshold=limits[s.name], verdict=judge(s.value, limits[s.name])) if s.value is not None else s
            for s in signals
        )

    def first(self, name: str, *, learned: bool = False) -> int | None:
        """Days from the change to the first look that told of it, by a signal or the decision; None: not in time."""
        told = zip(self.ends, self.told(name, learned=learned), strict=True)
        days = ((end - STARTS).days + 1 for end, alarm in told if alarm)
        return next((day for day in days if day > 0), None)


def market_of(table: pd.DataFrame) -> Market:
    table = table.sort_values("booked_on", kind="stable", ignore_index=True)
    return Market(table, build(table, past_of(table), RULE), RULE)


def champion_of(market: Market, trained: date, seed: int) -> PastChampion:
    return PastChampion.of(market, trained, trainer(), Recipe(), seed, REFERENCE_ROWS)


def watched_by(market: Market, champion: PastChampion, until: date, settings: MonitorSettings) -> Watched:
    return Watched(market, champion, until, settings.window_days, settings.open_bookings, settings.against)


def looks_of(seed: int, changes: Sequence[tuple[str, float]], *, learning: bool) -> list[Course]:
    """A simulated market of a seed as it is, then with each change; thresholds of its past where it is `learning`."""
    settings = MonitorSettings()
    days = (UNTIL - BEGINS).days + 1
    quiet = market_of(simulate(BEGINS, days, seed))
    champion = champion_of(quiet, TRAINED, seed)
    ends = Rhythm(settings.window_days, WEEK.days).ends(TRAINED, UNTIL)
    learned = calibrated(quiet, TRAINED, seed) if learning else None
    course = Courses(f"simulated {seed}", champion, learned, settings)
    watched = watched_by(quiet, champion, UNTIL, settings)
    signals = course.measured(watched, ends)
    found = [course.of(watched, ends, signals)]
    for name, strength in changes:
        told_only = name in (LATE, LOST)
        market = (
            Market(FEEDS[name](quiet.history, strength, seed), quiet.built, RULE)
            if told_only
            else market_of(simulate(BEGINS, days, seed, [Drift(DriftKind(name), STARTS, strength)]))
        )
        watched = watched_by(market, champion, UNTIL, settings)
        after = [end for end in ends if end >= STARTS]
        measured = signals | course.measured(watched, after, of_bookings=signals if told_only else None)
        found.append(course.of(watched, ends, measured, name, strength))
    return found


def looks_at(name: str, market: Market, trained: date, looks: int, seed: int, learned: Calibration | None) -> Course:
    """A champion of a market that was trained on a day, with so many looks after it."""
    settings, until = MonitorSettings(), trained + looks * WEEK
    champion = champion_of(market, trained, seed)
    watched = watched_by(market, champion, until, settings)
    ends = Rhythm(settings.window_days, WEEK.days).ends(trained, until)
    course = Courses(name, champion, learned, settings)
    return course.of(watched, ends, course.measured(watched, ends))


def calibrated(market: Market, as_of: date, seed: int) -> Calibration | None:
    """Thresholds of a market's own past; None where it is too short to teach any."""
    settings = MonitorSettings()
    booked = market.rows(date.min, as_of)
    past = Watched.known(market.history.iloc[booked], as_of)
    making = Making(Recipe(), seed, REFERENCE_ROWS, GatePolicy().min_rows)
    try:
        return walk(
            Market(past, market.built.iloc[booked], RULE),
            trainer(),
            EvidentlyMonitor(settings, distance, telling=False),
            as_of,
            documented(),
            CalibrationPolicy(),
            making,
            Rhythm(settings.window_days, settings.step_days),
            settings.open_bookings,
            settings.against,
        )
    except NotEnoughData:
        return None


def shuffled(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same bookings on each other's days: nothing changes with time any more, seasons and trends included.

    Bookings of a group keep together, and each keeps its lead time and how it ended how long before arrival.
    """
    groups, first = np.unique(group_keys(table), return_index=True)
    days = table["booked_on"].to_numpy()[first]
    place = np.searchsorted(groups, group_keys(table))
    drawn = np.random.default_rng(seed).permutation(days)[place]
    moved = pd.Series(drawn - table["booked_on"].to_numpy(), index=table.index)
    return table.assign(**{name: table[name] + moved for name in ("booked_on", "arrival_on", "known_on")})


def told_late(table: pd.DataFrame, days: float, seed: int) -> pd.DataFrame:
    """Cancellations of `STARTS` and later become known so many days after."""
    hit = (table["status"].isin(CANCELLED) & (table["known_on"] >= pd.Timestamp(STARTS))).to_numpy()
    return table.assign(known_on=table["known_on"].mask(hit, table["known_on"] + pd.Timedelta(days=days)))


def lost(table: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Of a share of the cancellations of `STARTS` and later nothing is ever told: the bookings read as kept."""
    hit = (table["status"].isin(CANCELLED) & (table["known_on"] >= pd.Timestamp(STARTS))).to_numpy()
    drawn = np.random.default_rng(seed).random(len(table))
    hit = hit & (drawn < share)
    return table.assign(status=table["status"].mask(hit), known_on=table["known_on"].mask(hit))


FEEDS: Mapping[str, Callable[[pd.DataFrame, float, int], pd.DataFrame]] = {LATE: told_late, LOST: lost}


@dataclass(frozen=True)
class Courses:
    """Looks at one champion, in the market's different futures."""

    market: str
    champion: PastChampion
    learned: Calibration | None
    settings: MonitorSettings

    def measured(
        self,
        watched: Watched,
        ends: Sequence[date],
        of_bookings: Mapping[date, tuple[Signal, ...]] | None = None,
    ) -> dict[date, tuple[Signal, ...]]:
        """Signals of each look. `of_bookings`: measured already, where only what is told of outcomes is another."""
        monitor = EvidentlyMonitor(self.settings, distance, telling=False)
        if of_bookings is None:
            return {end: monitor.measure(watched.observe(end)).report.signals for end in ends}
        found = {}
        for end in ends:
            seen = watched.observe(end)
            # An empty window: its columns and scores have been measured.
            told = monitor.measure(replace(seen, current=seen.current[:0], probability=seen.probability[:0])).report
            found[end] = tuple((told.signal(s.name) if s.name in OF_OUTCOMES else None) or s for s in of_bookings[end])
        return found

    def of(
        self,
        watched: Watched,
        ends: Sequence[date],
        signals: Mapping[date, tuple[Signal, ...]],
        change: str | None = None,
        strength: float = 1.0,
    ) -> Course:
        flagged: bool | None = None
        if change is None or (change not in FEEDS and strength == CHANGES[change][-1]):
            seen = watched.observe(ends[min(len(ends), LOOKS_BEFORE + FLAGGED) - 1])
            share = dataset_share(seen.reference, seen.current, self.settings.sample_rows)
            flagged = share is not None and share >= 0.5
        low, high = self._estimated(watched)
        now = [float(entropy(watched.scores(end)).mean()) for end in ends]
        return Course(
            self.market,
            change,
            strength,
            self.champion.trained,
            tuple(ends),
            tuple(signals[end] for end in ends),
            tuple(watched.matured_since(end) for end in ends),
            self.learned,
            flagged,
            tuple(not low <= value <= high for value in now),
        )

    def _estimated(self, watched: Watched) -> tuple[float, float]:
        """Bounds of the log loss that the champion's scores expect, from windows before its training."""
        step, trained = timedelta(days=self.settings.window_days), self.champion.trained
        windows = [(trained - (n + 1) * step, trained - n * step) for n in range(CBPE_WINDOWS)]
        past = [float(entropy(watched.scores_between(*days)).mean()) for days in windows]
        reach = CBPE_DEVIATIONS * float(np.std(past, ddof=1))
        return float(np.mean(past)) - reach, float(np.mean(past)) + reach


# Signals that read what is told of bookings' ends.
OF_OUTCOMES = ("matured excess loss", "calibration bias", "in-flight cancellations")
