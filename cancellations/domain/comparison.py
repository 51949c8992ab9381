"""Is the rival better than the champion? A paired test that may be looked at every day.

Both versions score the same bookings. For each day on which outcomes became final (the maturity
date) the differences of their log losses are summed; the sums are read in order of those days
through an asymptotic confidence sequence, which holds for all days at once, so that looking daily
costs nothing. Sums by day, because bookings of a group share their fate and all bookings of a day
its shocks: tests on single bookings promote falsely in 10 to 44 % of trials between equals.

Bound: normal mixture, one side (Howard et al. 2021, arXiv 1810.08240), with the variance estimated
as it goes (Waudby-Smith et al., arXiv 2103.06476).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

import numpy as np
import pandas as pd

LEAST_BURN_IN_DAYS = 14


def log_loss(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Log loss of each row in nats; probabilities are kept 1e-6 away from 0 and 1."""
    p = np.clip(np.asarray(probability, dtype=float), 1e-6, 1 - 1e-6)
    y = np.asarray(label, dtype=float)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


@dataclass(frozen=True)
class SequencePolicy:
    """How the sums are read.

    `alpha`: chance, for a rival as good as the champion, that it is ever called better; and the same
    for "worse". It holds for days that are independent and not strongly skewed; shocks that last for
    weeks, or rare days that outweigh many, raise it. `burn_in_days` are read before any answer: the
    bound is asymptotic, and a variance of fewer days is too often too small. The bound is
    tightest near seven times `tuning_days` (at an alpha of 0.05): with 8 on the last of a trial's 56 days, where the
    smallest gains are found. With 30 it would be so on day 210.
    """

    alpha: float = 0.05
    burn_in_days: int = LEAST_BURN_IN_DAYS
    tuning_days: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha:g}; it must lie between 0 and 0.5")
        if self.burn_in_days < LEAST_BURN_IN_DAYS:
            raise ValueError(f"burn_in_days is {self.burn_in_days}; the test holds from {LEAST_BURN_IN_DAYS} days on")
        if not 0 < self.tuning_days < math.inf:
            raise ValueError(f"tuning_days is {self.tuning_days:g}; it must be a number above 0")


@dataclass(frozen=True)
class Day:
    """One maturity day: how many bookings, and by how much the rival did better on all of them (nats)."""

    day: date
    bookings: int
    gain: float


def daily_gains(matured_on: pd.Series, label: np.ndarray, champion: np.ndarray, rival: np.ndarray) -> tuple[Day, ...]:
    """Sums of (champion's log loss - rival's) per maturity day, in order of days.

    One value per booking in each argument; `champion` and `rival` are their probabilities. Raises
    `ValueError` when one is missing: a sum that leaves it out would read as "no difference".
    """
    gain = pd.Series(log_loss(label, champion) - log_loss(label, rival))
    lacking = int((gain.isna().to_numpy() | pd.isna(matured_on).to_numpy()).sum())
    if lacking:
        raise ValueError(f"{lacking} of {len(gain)} bookings lack a label, a probability or a maturity date")
    days = gain.groupby(pd.to_datetime(matured_on).to_numpy()).agg(["size", "sum"]).sort_index()
    return tuple(Day(pd.Timestamp(d).date(), int(n), float(s)) for d, n, s in days.itertuples())


def resampled_gain(days: Sequence[Day], seed: int, resamples: int, confidence: float) -> tuple[float, float, float]:
    """Mean gain per booking with its percentile bootstrap interval, days drawn whole (nats): value, low, high.

    For one look at a fixed cohort; whoever looks every day needs `read`.
    """
    gain = np.array([day.gain for day in days])
    bookings = np.array([day.bookings for day in days], dtype=float)
    drawn = np.random.default_rng(seed).multinomial(len(days), np.full(len(days), 1 / len(days)), size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn @ gain) / (drawn @ bookings), [tail, 1 - tail])
    return float(gain.sum() / bookings.sum()), float(low), float(high)


class Finding(StrEnum):
    """What the days that were read say."""

    OPEN = "open"  # neither bound excludes 0 so far
    RIVAL = "the rival is better"
    CHAMPION = "the champion is better"


@dataclass(frozen=True)
class Step:
    """All days up to `day`, read together.

    `gain`: mean log loss that the rival saves per booking, in nats; `low` and `high`: its bounds at
    this day, each missed with a chance of alpha over all days together. None during burn-in.
    """

    day: date
    bookings: int
    gain: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Reading:
    """The sequence up to the day that decided it, or up to the last one."""

    finding: Finding
    steps: tuple[Step, ...] = ()

    @property
    def last(self) -> Step | None:
        return self.steps[-1] if self.steps else None


def radius(variance: float, days: int, policy: SequencePolicy) -> float:
    """Half width of the sequence on the sum of `days` daily sums with this variance (nats)."""
    ratio = (days + policy.tuning_days) / policy.tuning_days
    width = 2 * math.log(math.sqrt(ratio) / (2 * policy.alpha) + 1)
    return math.sqrt(variance * (days + policy.tuning_days) * width)


def read(days: Sequence[Day], policy: SequencePolicy) -> Reading:
    """Reads days in their order and stops at the first one that decides.

    So the answer does not depend on how often, or how late, somebody looks.

    >>> same = [Day(date(2016, 6, 1 + i), 100, (-1.0) ** i) for i in range(28)]
    >>> str(read(same, SequencePolicy()).finding)
    'open'
    >>> better = [Day(d.day, d.bookings, d.gain + 3.0) for d in same]
    >>> answer = read(better, SequencePolicy())
    >>> str(answer.finding), len(answer.steps)
    ('the rival is better', 14)
    """
    steps: list[Step] = []
    total, mean, squares, bookings = 0.0, 0.0, 0.0, 0
    for n, day in enumerate(days, start=1):
        total += day.gain
        bookings += day.bookings
        # Welford's update: a difference of squares sees variation in days that are all alike.
        off = day.gain - mean
        mean += off / n
        squares += off * (day.gain - mean)
        if n < policy.burn_in_days:
            steps.append(Step(day.day, bookings, total / bookings, None, None))
            continue
        variance = squares / n
        width = radius(variance, n, policy)
        low, high = (total - width) / bookings, (total + width) / bookings
        steps.append(Step(day.day, bookings, total / bookings, low, high))
        # Days without any variation come from two models that are one; they prove nothing.
        if variance > 0 and low > 0:
            return Reading(Finding.RIVAL, tuple(steps))
        if variance > 0 and high < 0:
            return Reading(Finding.CHAMPION, tuple(steps))
    return Reading(Finding.OPEN, tuple(steps))


class Arm(StrEnum):
    """Whose score a booking is served during a trial."""

    CHAMPION = "champion"
    RIVAL = "rival"


def arm(salt: str, reservation_id: str, share: float) -> Arm:
    """The arm of a booking: the same in any process, for ever; `share` of all bookings get the rival.

    By salted SHA-256, so that arms of two trials have nothing to do with each other, nor with
    anything about the booking.
    """
    digest = hashlib.sha256(f"{salt}\x1f{reservation_id}".encode()).digest()
    return Arm.RIVAL if int.from_bytes(digest[:8], "big") < share * 2**64 else Arm.CHAMPION
