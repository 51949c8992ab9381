"""Trials in simulated markets, where the probability of each ending is known and can be drawn anew.

Bookings come in groups that share their fate, and days or weeks share a shock. Between equals the gains are centred
with the true probabilities, averaged over the shocks: what is left is luck, with its groups and shocks as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import pandas as pd

from benchmarks.faults import TRAINING_FAULTS, Version, probabilities
from benchmarks.looks import market_of
from benchmarks.trials import POLICY, RULES, Ruled, Scored, Stream, Truth, Usual, on_probation
from cancellations.sources.simulator import simulate
from cancellations.usecases.walk_forward import Market

BEGINS = date(2015, 1, 5)
# A year and a half of bookings before the trials.
OPENED = BEGINS + timedelta(weeks=78)
AGES = (26, 8, 4)  # weeks since the champion's training
LONGEST_LEAD = 180
# "Worse" is what is so on the cohort of half a year.
COHORT_DAYS = 182
# Spread of shocks on the log odds. The real file's days have .28 of their own, and what lasts beyond them .14.
DAY_SPREAD, WEEK_SPREAD = 0.3, 0.3
DAYS, BOOKED, WEEKS = "shocks by day of arrival", "shocks by day of booking", "shocks by week of arrival"
SHOCKS: Mapping[str, float] = {DAYS: DAY_SPREAD, BOOKED: DAY_SPREAD, WEEKS: WEEK_SPREAD}

# Days until a rule promotes, of each trial; None where it does not.
ByRule = dict[str, list[int | None]]


@dataclass(frozen=True)
class World:
    """What became of a market's trials, all drawn anew.

    `equal` by kind of shock; `probations` of versions as good as the champion before them; `worse` by pair of
    versions of which the new one is worse, in expectation, on the whole cohort.
    """

    equal: Mapping[str, ByRule]
    probations: list[Ruled]
    worse: Mapping[str, ByRule] = field(default_factory=dict)


def of_world(seed: int, equals: int, worse: int) -> World:
    """Trials of a world: so many between equals for each pair of versions and kind of shock, and of a worse version."""
    market = market_of(_bookings(seed))
    old = {age: Version(OPENED - timedelta(weeks=age)) for age in AGES}
    new = {fault: Version(OPENED, fault) for fault in (None, *TRAINING_FAULTS)}
    scored = Scored.of(market, probabilities(market, [*old.values(), *new.values()], seed))
    rng = np.random.default_rng([seed, 1])
    pairs = [*((one, new[None]) for one in old.values()), (old[8], new["labels flipped, 20 %"])]
    equal: dict[str, ByRule] = {kind: {rule: [] for rule in RULES} for kind in SHOCKS}
    probations = []
    for kind in SHOCKS:
        for pair in pairs:
            drawn = Redrawn.of(market, scored, *pair, POLICY.max_days, kind)
            for _ in range(equals):
                stream = drawn.equal(rng)
                _rule(stream, equal[kind])
                if kind == DAYS:
                    probations.append(on_probation(stream))
    found: dict[str, ByRule] = {}
    for age, champion in old.items():
        for fault in TRAINING_FAULTS:
            whole = Redrawn.of(market, scored, champion, new[fault], COHORT_DAYS, DAYS)
            if whole.gain > 0:
                continue
            drawn = Redrawn.of(market, scored, champion, new[fault], POLICY.max_days, DAYS)
            told = found.setdefault(f"{fault}, champion of {age} weeks", {rule: [] for rule in RULES})
            for _ in range(worse):
                _rule(drawn.as_drawn(rng), told)
    return World(equal, probations, found)


def _bookings(seed: int) -> pd.DataFrame:
    table = simulate(BEGINS, (OPENED - BEGINS).days + COHORT_DAYS, seed)
    return table[(table["arrival_on"] - table["booked_on"]).dt.days <= LONGEST_LEAD]


def _rule(stream: Stream, told: ByRule) -> None:
    for name, rule in RULES.items():
        told[name].append(rule(stream))


@dataclass(frozen=True)
class Redrawn:
    """A trial's bookings, what both versions say of them, and what their endings are drawn by."""

    matured_on: pd.Series
    old: np.ndarray
    new: np.ndarray
    truth: Truth
    spread: float
    usual: Usual

    @classmethod
    def of(cls, market: Market, scored: Scored, old: Version, new: Version, days: int, kind: str) -> Redrawn:
        rows = scored.cohort(OPENED, OPENED + timedelta(days=days))
        bookings, matured_on = market.history.iloc[rows], scored.matured_on.iloc[rows]
        day = bookings["booked_on"] if kind == BOOKED else matured_on
        number = day.to_numpy().astype("datetime64[D]").astype(np.int64)
        truth = Truth.of(bookings, number // 7 if kind == WEEKS else number)
        spread = SHOCKS[kind]
        both = scored.probability[old][rows], scored.probability[new][rows]
        return cls(matured_on, *both, truth, spread, Usual.of(matured_on, truth.expected(spread), *both))

    @property
    def gain(self) -> float:
        """What the new version saves per booking in truth (nats)."""
        return float(self.usual.single.mean())

    def as_drawn(self, rng: np.random.Generator) -> Stream:
        """A trial of the two."""
        label = self.truth.drawn(self.spread, rng)
        return Stream.of(OPENED, self.matured_on, label, self.old, self.new)

    def equal(self, rng: np.random.Generator) -> Stream:
        """A trial of two that are equally good."""
        label = self.truth.drawn(self.spread, rng)
        return Stream.of(OPENED, self.matured_on, label, self.old, self.new, self.usual)
