"""Trials of pairs of versions: on bookings of the past as they ended, and on endings drawn anew from a known truth.

What a trial reads, and how it is ruled on, is the product's own: cohorts by maturity day after both trainings, sums by
day, the sequence, the ruling. Beside it stand the rules that people use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Self

import numpy as np
import pandas as pd

from benchmarks.faults import Version
from cancellations.domain.comparison import Day, daily_gains, log_loss, read
from cancellations.domain.labels import CANCELLED, maturity
from cancellations.domain.promotion import (
    Standing,
    Trial,
    TrialPolicy,
    TrialState,
    open_probation,
    open_trial,
    rule_on,
)
from cancellations.domain.reservation import group_keys
from cancellations.sources.cells import BANDS, FIGURES
from cancellations.usecases.walk_forward import Market

POLICY = TrialPolicy()
OLD, NEW = "old", "new"
OURS = "ours"
# The rules beside ours: one-sided tests at the same level. Those that look once do so after so many days.
CRITICAL = 1.6449
FIXED_DAYS = 28
# Nodes of the integral over a normal shock; 24 are exact to 1e-9 for any shock that is used here.
NODES = 24


@dataclass(frozen=True)
class Usual:
    """What trials of the same bookings gain on average, where it is known by what their labels are drawn: by maturity
    day, and of each booking (nats)."""

    by_day: tuple[float, ...]
    single: np.ndarray

    @classmethod
    def of(cls, matured_on: pd.Series, expected: np.ndarray, old: np.ndarray, new: np.ndarray) -> Self:
        """`expected`: probabilities of a cancellation. Log loss is linear in the label, so one in its place gives the
        average."""
        days = daily_gains(matured_on, expected, old, new)
        return cls(tuple(day.gain for day in days), log_loss(expected, old) - log_loss(expected, new))


@dataclass(frozen=True)
class Stream:
    """What a trial is shown: gains by maturity day, and the sum of squared gains of single bookings on each.

    A gain is the log loss that the new version saves against the old one (nats).
    """

    after: date
    days: tuple[Day, ...]
    squares: tuple[float, ...]

    @classmethod
    def of(
        cls,
        after: date,
        matured_on: pd.Series,
        label: np.ndarray,
        old: np.ndarray,
        new: np.ndarray,
        usual: Usual | None = None,
    ) -> Self:
        """Of bookings that matured after a day; arguments of shape (bookings,). Less what is `usual` neither version
        is better."""
        days = daily_gains(matured_on, label, old, new)
        single = log_loss(label, old) - log_loss(label, new)
        if usual is not None:
            days = tuple(Day(d.day, d.bookings, d.gain - u) for d, u in zip(days, usual.by_day, strict=True))
            single = single - usual.single
        _, place = np.unique(matured_on.to_numpy(), return_inverse=True)
        squares = np.bincount(place, weights=single**2)
        return cls(after, days, tuple(float(s) for s in squares))

    def until(self, last: date) -> Stream:
        """Its days up to and with one."""
        kept = sum(day.day <= last for day in self.days)
        return Stream(self.after, self.days[:kept], self.squares[:kept])

    def since(self, after: date) -> Stream:
        """Its days after one."""
        left_out = sum(day.day <= after for day in self.days)
        return Stream(after, self.days[left_out:], self.squares[left_out:])

    def turned(self) -> Stream:
        """The same, asked the other way round."""
        return Stream(self.after, tuple(Day(d.day, d.bookings, -d.gain) for d in self.days), self.squares)

    def flipped(self, rng: np.random.Generator, days: int) -> Stream:
        """Each run of so many days with a sign of its own: between such versions neither is better."""
        runs = np.array([(day.day - self.after).days - 1 for day in self.days]) // days
        signs = rng.choice([-1.0, 1.0], size=runs.max() + 1)[runs]
        flipped = (Day(d.day, d.bookings, d.gain * s) for d, s in zip(self.days, signs, strict=True))
        return Stream(self.after, tuple(flipped), self.squares)

    @property
    def mean(self) -> float:
        """Gain per booking over all its days."""
        return sum(day.gain for day in self.days) / sum(day.bookings for day in self.days)


@dataclass(frozen=True)
class Ruled:
    """What became of a trial or probation, and after how many days."""

    state: TrialState
    days: int


def tried(stream: Stream, policy: TrialPolicy = POLICY) -> Ruled:
    """The trial of the new version, opened on the day after which the stream begins, and looked at every day."""
    trained = {OLD: stream.after, NEW: stream.after}
    return _ruled(open_trial(Standing(OLD, NEW, 1), trained, stream.after, None, policy), stream)


def on_probation(stream: Stream, policy: TrialPolicy = POLICY) -> Ruled:
    """The probation of the new version, promoted on the day after which the stream begins."""
    trained = {OLD: stream.after, NEW: stream.after}
    return _ruled(open_probation(Standing(NEW, None, 2), OLD, trained, stream.after, policy), stream.turned())


def _ruled(trial: Trial, stream: Stream) -> Ruled:
    reading = read(stream.until(trial.last_day).days, trial.sequence)
    ruling = rule_on(trial, reading, trial.last_day, None)
    decided = reading.last.day if reading.last and ruling.state is not TrialState.EXPIRED else trial.last_day
    return Ruled(ruling.state, (decided - stream.after).days)


def ours(stream: Stream) -> int | None:
    """Days until the new version is promoted; None: it is not."""
    ruled = tried(stream)
    return ruled.days if ruled.state is TrialState.PROMOTED else None


def by_day_looked_at_daily(stream: Stream) -> int | None:
    """A z-test on sums by day, meant for one look, looked at each day once there are as many as ours needs."""
    gains = np.array([day.gain for day in _within(stream).days])
    counts = np.arange(1, len(gains) + 1)
    mean = gains.cumsum() / counts
    variance = np.maximum((gains**2).cumsum() / counts - mean**2, 0) * counts / np.maximum(counts - 1, 1)
    return _first(stream, _z(mean, variance, counts) > CRITICAL, POLICY.sequence.burn_in_days)


def by_booking_looked_at_daily(stream: Stream) -> int | None:
    """A z-test on single bookings, looked at each day from as many on as ours needs."""
    return _first(stream, _by_booking(stream) > CRITICAL, POLICY.sequence.burn_in_days)


def by_booking_once(stream: Stream) -> int | None:
    """A z-test on single bookings, looked at once."""
    passed = _by_booking(stream) > CRITICAL
    return _first(stream, passed[:FIXED_DAYS], FIXED_DAYS)


def better_on_average(stream: Stream) -> int | None:
    """New metric above the old one, after as many days as ours needs."""
    burn_in = POLICY.sequence.burn_in_days
    gains = np.array([day.gain for day in stream.days])
    return _first(stream, gains.cumsum()[:burn_in] > 0, burn_in)


# What promotes, by name; each is given a stream and tells after how many days, or None.
RULES: Mapping[str, Callable[[Stream], int | None]] = {
    OURS: ours,
    "z-test by day, looked at daily": by_day_looked_at_daily,
    "z-test by booking, looked at daily": by_booking_looked_at_daily,
    f"z-test by booking, once after {FIXED_DAYS} days": by_booking_once,
    f"new metric > old metric, after {POLICY.sequence.burn_in_days} days": better_on_average,
}


def _within(stream: Stream) -> Stream:
    return stream.until(stream.after + timedelta(days=POLICY.max_days))


def _by_booking(stream: Stream) -> np.ndarray:
    within = _within(stream)
    gains, squares = np.array([day.gain for day in within.days]).cumsum(), np.cumsum(within.squares)
    counts = np.cumsum([day.bookings for day in within.days])
    mean = gains / counts
    return _z(mean, squares / counts - mean**2, counts)


def _z(mean: np.ndarray, variance: np.ndarray, counts: np.ndarray) -> np.ndarray:
    error = np.sqrt(variance / counts)
    return np.divide(mean, error, out=np.zeros(len(mean)), where=error > 0)


def _first(stream: Stream, passed: np.ndarray, burn_in: int) -> int | None:
    """Days until the first look, the burn-in over, that is passed."""
    found = np.flatnonzero(passed[burn_in - 1 :])
    return (stream.days[found[0] + burn_in - 1].day - stream.after).days if len(found) else None


@dataclass(frozen=True)
class Scored:
    """Bookings of a market with what versions say of them, as `faults.probabilities` tells it.

    Rows in the market's order; `matured_on` and `label` (as each ended) of shape (rows,).
    """

    matured_on: pd.Series
    label: np.ndarray
    probability: Mapping[Version, np.ndarray]

    @classmethod
    def of(cls, market: Market, probability: Mapping[Version, np.ndarray]) -> Self:
        ended = market.history["status"].isin(CANCELLED).to_numpy(dtype=float)
        return cls(maturity(market.history, market.rule), ended, probability)

    def cohort(self, after: date, until: date) -> np.ndarray:
        """Places of the bookings that mature in `(after, until]`."""
        chosen = (self.matured_on > pd.Timestamp(after)) & (self.matured_on <= pd.Timestamp(until))
        return np.flatnonzero(chosen.to_numpy())

    def stream(self, old: Version, new: Version, after: date, until: date) -> Stream:
        """Of the bookings that mature in `(after, until]`, as they ended; both were trained by `after`."""
        rows = self.cohort(after, until)
        return Stream.of(
            after,
            self.matured_on.iloc[rows],
            self.label[rows],
            self.probability[old][rows],
            self.probability[new][rows],
        )


@dataclass(frozen=True)
class Truth:
    """What endings of simulated bookings are drawn by, and what they share.

    `log_odds` of a cancellation; `group` and `shared`, numbers of a booking's group and of the days whose shock it
    has; `joins`, its chance to stand or fall with its group. Shapes (bookings,).
    """

    log_odds: np.ndarray
    group: np.ndarray
    joins: np.ndarray
    shared: np.ndarray

    @classmethod
    def of(cls, bookings: pd.DataFrame, shared: np.ndarray) -> Self:
        """Of bookings as `sources.simulator.simulate` gives them; `shared` tells those with one shock, any numbers."""
        probability = bookings["true_probability"].to_numpy()
        band = np.searchsorted(BANDS, bookings["group_size"].to_numpy(), side="right") - 1
        # As the simulator lets bookings of a group share their fate.
        joins = np.sqrt([1.0, *FIGURES.world.together])[band]
        _, group = np.unique(group_keys(bookings), return_inverse=True)
        _, days = np.unique(shared, return_inverse=True)
        return cls(np.log(probability / (1 - probability)), group, joins, days)

    def drawn(self, spread: float, rng: np.random.Generator) -> np.ndarray:
        """Labels, with normal shocks of so much spread on the log odds; float, shape (bookings,)."""
        shock = rng.normal(0, spread, self.shared.max() + 1)[self.shared]
        together = rng.random(len(self.log_odds)) < self.joins
        own, groups = rng.random(len(self.log_odds)), rng.random(self.group.max() + 1)
        luck = np.where(together, groups[self.group], own)
        return (luck < _chance(self.log_odds + shock)).astype(float)

    def expected(self, spread: float) -> np.ndarray:
        """Probabilities averaged over the shocks (Gauss-Hermite quadrature), shape (bookings,)."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        averaged: np.ndarray = _chance(self.log_odds[:, None] + spread * nodes) @ (weights / weights.sum())
        return averaged


def _chance(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


def spread_of_shocks(
    residual: np.ndarray, probability: np.ndarray, day: np.ndarray, group: np.ndarray
) -> tuple[float, float]:
    """How far the log odds of bookings of a day move together: spread of the day's own shock, and of one that
    lasts beyond it.

    By moments: products of residuals (label - probability) of bookings of one day but of different groups tell the
    variance of both; those of one day and of the next that of what lasts. Whole days as numbers; shapes (bookings,).
    """
    weight = probability * (1 - probability)
    first, days = day.min(), int(day.max() - day.min()) + 1
    sums, weights = (np.bincount(day - first, weights=w, minlength=days) for w in (residual, weight))
    _, groups = np.unique(np.column_stack([day, group]), axis=0, return_inverse=True)
    own, own_weight = (np.bincount(groups.ravel(), weights=w) for w in (residual, weight))
    same = ((sums**2).sum() - (own**2).sum()) / ((weights**2).sum() - (own_weight**2).sum())
    lasting = (sums[1:] * sums[:-1]).sum() / (weights[1:] * weights[:-1]).sum()
    return float(np.sqrt(max(same - lasting, 0.0))), float(np.sqrt(max(lasting, 0.0)))


def weekly(first: date, last: date) -> Sequence[date]:
    """Every seventh day."""
    return [first + timedelta(weeks=n) for n in range((last - first).days // 7 + 1)]
