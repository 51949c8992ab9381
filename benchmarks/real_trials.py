"""Trials of the real file: versions trained week by week, compared on the bookings that matured afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from benchmarks.faults import Version
from benchmarks.simulated_trials import AGES, ByRule
from benchmarks.trials import RULES, Scored, Stream, spread_of_shocks
from cancellations.domain.reservation import group_keys
from cancellations.usecases.walk_forward import Market


@dataclass(frozen=True)
class Real:
    """A market, what versions say of it, and the days on which trials open; endings are known up to `until`."""

    market: Market
    scored: Scored
    starts: Sequence[date]
    until: date

    def stream(self, start: date, age: int, fault: str | None = None) -> Stream:
        """A version trained on a day against a sound one that is so many weeks older, on all that matured since."""
        old, new = Version(start - timedelta(weeks=age)), Version(start, fault)
        return self.scored.stream(old, new, start, self.until)

    def better(self, age: int) -> ByRule:
        """Fresh versions against champions of an age."""
        return _ruled([self.stream(start, age) for start in self.starts])

    def worse(self, fault: str) -> ByRule:
        """Versions with a fault, where they are worse on all that matured after, against champions of each age."""
        streams = (self.stream(start, age, fault) for age in AGES for start in self.starts)
        return _ruled([stream for stream in streams if stream.mean <= 0])

    def equals(self, count: int, days: int, seed: int) -> ByRule:
        """Trials between fresh versions and older ones, each run of so many days with a sign of its own."""
        streams = [self.stream(start, age) for start in self.starts for age in AGES]
        rng = np.random.default_rng([seed, days])
        return _ruled([streams[n % len(streams)].flipped(rng, days) for n in range(count)])

    def shocks(self) -> tuple[float, float]:
        """Spread of what the bookings of a day share, on the log odds, beside the versions of the week before: of the
        day alone, and of what lasts."""
        trained = sorted(version.trained for version in self.scored.probability if version.fault is None)
        parts = []
        for day in trained:
            rows = self.scored.cohort(day, day + timedelta(days=7))
            parts.append((rows, self.scored.probability[Version(day)][rows]))
        rows, probability = (np.concatenate(part) for part in zip(*parts, strict=True))
        number = self.scored.matured_on.iloc[rows].to_numpy().astype("datetime64[D]").astype(np.int64)
        groups = group_keys(self.market.history.iloc[rows])
        return spread_of_shocks(self.scored.label[rows] - probability, probability, number, groups)


def _ruled(streams: Sequence[Stream]) -> ByRule:
    return {name: [rule(stream) for stream in streams] for name, rule in RULES.items()}
