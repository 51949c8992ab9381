"""Markets, each with a champion and the monitor's weekly looks at it: what alarms, and when.

A champion is trained on what a market has shown. Then the monitor looks once a week, as in production: the market
goes on as it was, or changes from a day on. A later drift leaves the simulator's past as it was, so all changes of
one simulated market share its champion and the looks before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from multiprocessing import get_context

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cancellations.bootstrap import trainer
from cancellations.domain.features import build, past_of
from cancellations.domain.labels import LabelRule
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
from cancellations.settings import MonitorSettings
from cancellations.sources.simulator import Drift, DriftKind, simulate
from cancellations.usecases.walk_forward import Market, PastChampion, Watched
from cancellations.usecases.walk_forward import ends as ends_of
from monitoring.distances import distance
from monitoring.drift import dataset_share
from monitoring.report import EvidentlyMonitor

RULE = LabelRule()
BEGINS = date(2015, 1, 5)
TRAINED = BEGINS + timedelta(days=364)
WEEK = timedelta(days=7)
LOOKS_BEFORE, LOOKS_AFTER = 4, 12
STARTS = TRAINED + LOOKS_BEFORE * WEEK + timedelta(days=1)
UNTIL = TRAINED + (LOOKS_BEFORE + LOOKS_AFTER) * WEEK
REFERENCE_ROWS = 5_000
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


def market_of(table: pd.DataFrame) -> Market:
    table = table.sort_values("booked_on", kind="stable", ignore_index=True)
    return Market(table, build(table, past_of(table), RULE), RULE)


def champion_of(market: Market, trained: date, seed: int) -> PastChampion:
    return PastChampion.of(market, trained, trainer(), Recipe(), seed, REFERENCE_ROWS)


def watched_by(market: Market, champion: PastChampion, until: date, settings: MonitorSettings) -> Watched:
    return Watched(market, champion, until, settings.window_days, settings.open_bookings)


def looks_of(seed: int, settings: MonitorSettings, drifts: Sequence[tuple[DriftKind, float]]) -> list[Course]:
    """A simulated market of a seed as it is, then each change of it."""
    days = (UNTIL - BEGINS).days + 1
    quiet = market_of(simulate(BEGINS, days, seed))
    champion = champion_of(quiet, TRAINED, seed)
    ends = ends_of(TRAINED, UNTIL, WEEK.days)
    watched = watched_by(quiet, champion, UNTIL, settings)
    signals = _signals(watched, ends, settings)
    name = f"simulated {seed}"
    found = [_course(name, None, 1.0, watched, ends, signals, settings)]
    for kind, strength in drifts:
        changed = market_of(simulate(BEGINS, days, seed, [Drift(kind, STARTS, strength)]))
        watched = watched_by(changed, champion, UNTIL, settings)
        measured = signals | _signals(watched, [end for end in ends if end >= STARTS], settings)
        found.append(_course(name, kind, strength, watched, ends, measured, settings))
    return found


def looks_at(name: str, market: Market, trained: date, looks: int, seed: int) -> Course:
    """A champion of a market that was trained on a day, with so many looks after it."""
    settings, until = MonitorSettings(), trained + looks * WEEK
    watched = watched_by(market, champion_of(market, trained, seed), until, settings)
    ends = ends_of(trained, until, WEEK.days)
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


def _signals(watched: Watched, ends: Sequence[date], settings: MonitorSettings) -> dict[date, tuple[Signal, ...]]:
    monitor = EvidentlyMonitor(settings, distance)
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
    # A process for each processor: threads of one would wait for those of another, several times as long.
    with ProcessPoolExecutor(workers, get_context("spawn"), threadpool_limits, (1,)) as pool:
        for future in [pool.submit(looks_of, seed, settings, drifts) for seed in seeds]:
            yield from future.result()
