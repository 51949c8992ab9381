"""Markets, each with a champion and the monitor's weekly looks at it: what alarms, and when.

A champion is trained on what a market has shown. Then the monitor looks once a week, as in production: the market
goes on as it was, or changes from a day on. A later drift leaves the simulator's past as it was, so all changes of
one simulated market share its champion and the looks before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from multiprocessing import get_context

import numpy as np
import pandas as pd

from cancellations.bootstrap import trainer
from cancellations.domain.features import build, past_of
from cancellations.domain.in_flight import InFlightPolicy, in_flight
from cancellations.domain.labels import LabelRule, examples, maturity, recorded_cancelled
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
)
from cancellations.domain.volume import volume
from cancellations.ports import Classifier, Observation
from cancellations.settings import MonitorSettings
from cancellations.sources.simulator import Drift, DriftKind, simulate
from monitoring.drift import dataset_share
from monitoring.report import EvidentlyMonitor

RULE = LabelRule()
BEGINS = date(2015, 1, 5)
TRAINED = BEGINS + timedelta(days=364)
WEEK = timedelta(days=7)
LOOKS_BEFORE, LOOKS_AFTER = 4, 12
STARTS = TRAINED + LOOKS_BEFORE * WEEK + timedelta(days=1)
UNTIL = TRAINED + (LOOKS_BEFORE + LOOKS_AFTER) * WEEK
REFERENCE_ROWS, WATCHED_ROWS = 5_000, 5_000
# By the calendar alone a champion is retrained in any world; asked here is what drift brings about.
POLICY = replace(RetrainPolicy(), calendar_floor_days=10_000)
DECISION, FLAG = "decision", "Evidently's dataset flag"
# Named drifts, at three strengths.
DRIFTS: Mapping[DriftKind, tuple[float, float, float]] = {
    DriftKind.LEAD_TIME_SHIFT: (1.15, 1.5, 2.5),
    DriftKind.CHANNEL_MIX: (1.25, 2.0, 4.0),
    DriftKind.PRICE_SHOCK: (1.1, 1.3, 1.8),
    DriftKind.FREE_CANCELLATION: (1.25, 1.75, 3.0),
    DriftKind.NEW_MARKET: (1.1, 1.3, 2.0),
}
# Evidently's own report costs more than all of our signals: it is asked of the fourth look after the change, of
# undisturbed markets and of the strongest changes.
FLAGGED = 4


@dataclass(frozen=True)
class Course:
    """The looks at one champion: for each look the signals that alarmed, and whether a drift was confirmed.

    `market` is what it was a look at, `kind` and `strength` those of the change that began at `STARTS`, None of a
    market that goes on as it was. `flagged`: Evidently's dataset flag at one look, None where it was not asked.
    """

    market: str
    kind: DriftKind | None
    strength: float
    ends: tuple[date, ...]
    alarms: tuple[frozenset[str], ...]
    decided: tuple[bool, ...]
    flagged: bool | None

    def told(self, name: str) -> list[bool]:
        """At each look, whether a signal alarmed, or the decision found a drift confirmed."""
        return list(self.decided) if name == DECISION else [name in alarms for alarms in self.alarms]

    def first(self, name: str) -> int | None:
        """Days from the change to the first look that told of it, by a signal or the decision; None: not in time."""
        days = ((end - STARTS).days + 1 for end, told in zip(self.ends, self.told(name), strict=True) if told)
        return next((day for day in days if day > 0), None)


@dataclass(frozen=True)
class Market:
    """Bookings in order of booking, how each ends, and what was known of each when it was made."""

    table: pd.DataFrame
    built: pd.DataFrame

    @classmethod
    def of(cls, table: pd.DataFrame) -> Market:
        table = table.sort_values("booked_on", kind="stable", ignore_index=True)
        return cls(table, build(table, past_of(table), RULE))

    def rows(self, after: date, until: date) -> slice:
        places = self.table["booked_on"].searchsorted([pd.Timestamp(after), pd.Timestamp(until)], side="right")
        return slice(int(places[0]), int(places[1]))


@dataclass(frozen=True)
class Champion:
    """Trained on what a market had shown by a day, with what a version keeps for the monitor."""

    trained: date
    model: Classifier
    reference: pd.DataFrame
    reference_probability: np.ndarray
    importance: Mapping[str, float]

    @classmethod
    def of(cls, market: Market, trained: date, seed: int) -> Champion:
        made = examples(market.table, Recipe().labels, RULE, trained, weighted=Recipe().weighted)
        model = trainer().fit(market.built, made, Recipe(), seed)
        told = made[0]
        last = np.argsort(market.table["arrival_on"].to_numpy()[told.row], kind="stable")[-WATCHED_ROWS:]
        drawn = np.sort(np.random.default_rng(seed).permutation(told.row)[:REFERENCE_ROWS])
        reference = market.built.iloc[drawn]
        importance = trainer().importance(model, market.built.iloc[told.row[last]], told.label[last], seed)
        return cls(trained, model, reference, model.predict(reference), importance)


class Watched:
    """A market under a champion: what the monitor is shown on a day."""

    def __init__(self, market: Market, champion: Champion, until: date, settings: MonitorSettings) -> None:
        self._market, self.champion, self._settings = market, champion, settings
        self._probability = champion.model.predict(market.built.iloc[market.rows(date.min, until)])
        self._maturity = maturity(market.table, RULE)
        self._daily = market.table.groupby("booked_on").size()

    def observe(self, end: date) -> Observation:
        trained = self.champion.trained
        after = max(trained, end - timedelta(days=self._settings.window_days))
        window, made = self._market.rows(after, end), self._market.rows(trained, end)
        known = self._known(self._market.table.iloc[: made.stop], end)
        known = known.assign(probability=self._probability[: made.stop])
        # Bookings that were open when it was trained have its scores too; of those in flight only later ones count.
        matured_on = self._maturity.iloc[: made.stop]
        final = known[((matured_on > pd.Timestamp(trained)) & (matured_on <= pd.Timestamp(end))).to_numpy()]
        policy = InFlightPolicy(self._settings.in_flight_days, self._settings.in_flight_rows)
        return Observation(
            champion="1",
            start=after + timedelta(days=1),
            end=end,
            reference=self.champion.reference,
            current=self._market.built.iloc[window],
            probability=self._probability[window],
            matured_label=recorded_cancelled(final, end).astype(float),
            matured_probability=final["probability"].to_numpy(),
            matured_groups=group_keys(final),
            importance=self.champion.importance,
            reference_probability=self.champion.reference_probability,
            in_flight=in_flight(known.iloc[made], known, RULE, end, policy),
            volume=volume(self._daily[: pd.Timestamp(end)], end),
        )

    def matured_since(self, end: date) -> int:
        """Outcomes that became final since the training: a retrain waits for enough of them."""
        after, until = pd.Timestamp(self.champion.trained), pd.Timestamp(end)
        return int(((self._maturity > after) & (self._maturity <= until)).sum())

    @staticmethod
    def _known(table: pd.DataFrame, end: date) -> pd.DataFrame:
        later = table["known_on"] > pd.Timestamp(end)
        return table.assign(status=table["status"].mask(later), known_on=table["known_on"].mask(later))


def looks_of(seed: int, settings: MonitorSettings, drifts: Sequence[tuple[DriftKind, float]]) -> list[Course]:
    """A simulated market of a seed as it is, then each change of it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    days = (UNTIL - BEGINS).days + 1
    quiet = Market.of(simulate(BEGINS, days, seed))
    champion = Champion.of(quiet, TRAINED, seed)
    ends = weekly(TRAINED, UNTIL)
    watched = Watched(quiet, champion, UNTIL, settings)
    signals = _signals(watched, ends, settings)
    name = f"simulated {seed}"
    found = [_course(name, None, 1.0, watched, ends, signals, settings)]
    for kind, strength in drifts:
        changed = Market.of(simulate(BEGINS, days, seed, [Drift(kind, STARTS, strength)]))
        watched = Watched(changed, champion, UNTIL, settings)
        measured = signals | _signals(watched, [end for end in ends if end >= STARTS], settings)
        found.append(_course(name, kind, strength, watched, ends, measured, settings))
    return found


def looks_at(name: str, market: Market, trained: date, looks: int, seed: int) -> Course:
    """A champion of a market that was trained on a day, with so many looks after it."""
    settings, until = MonitorSettings(), trained + looks * WEEK
    watched = Watched(market, Champion.of(market, trained, seed), until, settings)
    ends = weekly(trained, until)
    return _course(name, None, 1.0, watched, ends, _signals(watched, ends, settings), settings)


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


def weekly(after: date, until: date) -> list[date]:
    return [after + n * WEEK for n in range(1, (until - after) // WEEK + 1)]


def _signals(watched: Watched, ends: Sequence[date], settings: MonitorSettings) -> dict[date, tuple[Signal, ...]]:
    monitor = EvidentlyMonitor(settings)
    return {end: monitor.measure(watched.observe(end)).report.signals for end in ends}


def _course(
    market: str,
    kind: DriftKind | None,
    strength: float,
    watched: Watched,
    ends: Sequence[date],
    signals: Mapping[date, tuple[Signal, ...]],
    settings: MonitorSettings,
) -> Course:
    evidence: list[float | None] = []
    decided = []
    for end in ends:
        history = RetrainHistory(
            champion_trained_as_of=watched.champion.trained,
            evidence=tuple(evidence),
            matured_since=watched.matured_since(end),
        )
        decided.append(decide_retrain(signals[end], history, POLICY, end).action is Action.RETRAIN_DRIFT)
        evidence.append(evidence_of(signals[end]))
    flagged: bool | None = None
    if kind is None or strength == DRIFTS[kind][-1]:
        seen = watched.observe(ends[min(len(ends), LOOKS_BEFORE + FLAGGED) - 1])
        share = dataset_share(seen.reference, seen.current, settings.sample_rows)
        flagged = share is not None and share >= 0.5
    return Course(
        market,
        kind,
        strength,
        tuple(ends),
        tuple(frozenset(s.name for s in signals[end] if s.verdict is Verdict.ALARM) for end in ends),
        tuple(decided),
        flagged,
    )


def courses(seeds: Sequence[int], drifts: Sequence[tuple[DriftKind, float]], workers: int) -> Iterator[Course]:
    """Of every seed, in as many processes as given."""
    settings = MonitorSettings()
    if workers == 1:
        for seed in seeds:
            yield from looks_of(seed, settings, drifts)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for future in [pool.submit(looks_of, seed, settings, drifts) for seed in seeds]:
            yield from future.result()
