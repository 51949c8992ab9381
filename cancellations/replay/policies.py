"""When to retrain: by the calendar, by chance, by one signal, by Evidently's flag, or by our decision.

A policy sees what a house would see on the day, and answers on which days it retrains. What a retrain gives
is the grid's business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np

from cancellations.domain import labels
from cancellations.domain.reservation import group_keys
from cancellations.domain.retraining import (
    RetrainHistory,
    RetrainPolicy,
    Signal,
    Verdict,
    decide_retrain,
    evidence_of,
)
from cancellations.ports import Monitor, Observation
from cancellations.replay.competitors import Competitor
from cancellations.replay.grid import Grid
from cancellations.replay.world import World
from cancellations.settings import MonitorSettings

WEEK = timedelta(days=7)
DATASET_FLAG = "Evidently's dataset flag"


@dataclass(frozen=True)
class Span:
    """A replay's days: the first champion is trained on `first`, the last booking is made on `until`."""

    first: date
    until: date

    @property
    def looks(self) -> tuple[date, ...]:
        """The days on which a monitor looks and a retrain may happen, the first one not among them."""
        weeks = (self.until - self.first).days // WEEK.days
        return tuple(self.first + WEEK * (i + 1) for i in range(weeks) if self.first + WEEK * (i + 1) < self.until)


@dataclass(frozen=True)
class Context:
    """What a policy may ask: the world, fits of its competitor, and what a monitor measures."""

    world: World
    grid: Grid
    competitor: Competitor
    span: Span
    seed: int
    watch: Watch | None = None


class Policy(Protocol):
    @property
    def name(self) -> str: ...

    def days(self, context: Context) -> tuple[date, ...]:
        """Days of the trainings that served, the first champion's among them, in order."""
        ...


@dataclass(frozen=True)
class Calendar:
    """A retrain every so many weeks; 0 is never."""

    name: str
    weeks: int

    def days(self, context: Context) -> tuple[date, ...]:
        looks = context.span.looks
        return (context.span.first, *(looks[self.weeks - 1 :: self.weeks] if self.weeks else ()))


@dataclass(frozen=True)
class OwnGate:
    """A retrain every so many weeks that serves when its own figure beats the serving one's by a share."""

    name: str
    weeks: int
    share: float

    def days(self, context: Context) -> tuple[date, ...]:
        served = [context.span.first]

        def figure(day: date) -> float:
            found = context.grid.own_figure(context.grid.task(context.competitor, day, context.span.until))
            assert found is not None, "only a competitor with a gate of its own is asked"
            return found

        for day in context.span.looks[self.weeks - 1 :: self.weeks]:
            if figure(day) > figure(served[-1]) * (1 + self.share):
                served.append(day)
        return tuple(served)


@dataclass(frozen=True)
class Deciding:
    """Our decision, on all signals or on one alone."""

    name: str
    policy: RetrainPolicy
    signal: str | None = None

    def days(self, context: Context) -> tuple[date, ...]:
        assert context.watch is not None, "a policy that watches needs a monitor"
        served = [context.span.first]
        evidence: list[float | None] = []
        for day in context.span.looks:
            signals = context.watch.signals(context, served[-1], day)
            if self.signal is not None:
                signals = tuple(replace(s, weight=1.0) for s in signals if s.name == self.signal)
            history = RetrainHistory(
                champion_trained_as_of=served[-1], evidence=tuple(evidence), requested_on=tuple(served[1:])
            )
            decision = decide_retrain(signals, history, self.policy, day)
            evidence.append(evidence_of(signals))
            if decision.action.retrains:
                served.append(day)
                evidence.clear()
        return tuple(served)


def signals_in(folder: Path, settings: MonitorSettings) -> Path:
    """Where a replay keeps signals that were measured by such settings: by others they say something else."""
    return folder / "signals" / hashlib.sha256(repr(settings).encode()).hexdigest()[:12]


class Watch:
    """Signals of a champion on a day, as production's monitor measures them; measured once and kept."""

    def __init__(
        self, monitor: Monitor, flag: Callable[[Observation], float | None], folder: Path, settings: MonitorSettings
    ) -> None:
        self.folder = folder
        self._monitor, self._flag, self._window_days = monitor, flag, settings.window_days
        self._signals = signals_in(folder, settings)

    def signals(self, context: Context, trained: date, day: date) -> tuple[Signal, ...]:
        kind = context.competitor.name.replace("/", "-")
        place = self._signals / f"{kind}-{trained}-{day}-seed{context.seed}.json"
        if not place.exists():
            observation = observe(context, trained, day, self._window_days)
            report = self._monitor.measure(observation).report
            share = self._flag(observation)
            flag = Signal(
                name=DATASET_FLAG,
                value=share,
                threshold=0.5,
                verdict=Verdict.NOT_EVALUATED if share is None else Verdict.ALARM if share >= 0.5 else Verdict.OK,
                weight=0.0,
                rows=len(observation.current),
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_suffix(".part")
            part.write_text(json.dumps([asdict(s) for s in (*report.signals, flag)]))
            part.replace(place)
        told = json.loads(place.read_text())
        return tuple(Signal(**{**s, "verdict": Verdict(s["verdict"])}) for s in told)


def observe(context: Context, trained: date, day: date, window_days: int) -> Observation:
    """What production's monitor would be shown on a day of a champion that was trained on another."""
    world, rule = context.world, context.world.rule
    scored = world.rows(trained, day)
    window = world.rows(max(trained, day - timedelta(days=window_days)), day)
    task = context.grid.task(context.competitor, trained, context.span.until, watched=True)
    probability = context.grid.probabilities(task)
    known = world.history.iloc[scored]
    ripe = (labels.maturity(known, rule) <= np.datetime64(day)).to_numpy()
    label = labels.recorded_cancelled(known, day)[ripe].astype(float)
    past = np.flatnonzero((labels.maturity(world.history, rule) <= np.datetime64(trained)).to_numpy())
    drawn = np.sort(np.random.default_rng(context.seed).permutation(past)[:REFERENCE_ROWS])
    return Observation(
        champion=str(trained),
        start=max(trained, day - timedelta(days=window_days)) + timedelta(days=1),
        end=day,
        reference=world.built.iloc[drawn],
        current=world.built.iloc[window],
        probability=probability[window.start - scored.start : window.stop - scored.start],
        matured_label=label,
        matured_probability=probability[: scored.stop - scored.start][ripe],
        matured_groups=group_keys(known[ripe]),
        matured_made_days_ago=labels.made_days_ago(known[ripe], day, trained),
        importance=context.grid.importance(task),
    )


# As many as production keeps with a version.
REFERENCE_ROWS = 5_000
