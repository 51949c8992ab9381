"""What a replay's losses say: means with intervals, shares of what weekly retraining gains, luck of the timing.

Bookings of neighbouring weeks share their season and their shocks, so intervals draw blocks of four weeks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

BLOCK_DAYS = 28
RESAMPLES = 2_000
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True)
class Window:
    """Bookings made on `first` .. `last` that figures are reported on; `use` says what else they were used for."""

    name: str
    first: date
    last: date
    use: str = ""


@dataclass(frozen=True)
class Blocks:
    """Rows of one window in blocks of four weeks by day of booking: how a replay's means are resampled.

    `chosen`: which rows lie in the window, bool; `block`: of each chosen row; `drawn`: how often each block
    counts in each resample, shape (resamples, blocks).
    """

    chosen: np.ndarray
    block: np.ndarray
    drawn: np.ndarray

    @classmethod
    def of(cls, booked_on: pd.Series, window: Window, seed: int) -> Blocks:
        chosen = booked_on.between(pd.Timestamp(window.first), pd.Timestamp(window.last)).to_numpy()
        days = (booked_on[chosen] - pd.Timestamp(window.first)).dt.days.to_numpy()
        _, block = np.unique(days // BLOCK_DAYS, return_inverse=True)
        count = int(block.max(initial=0)) + 1
        even = np.full(count, 1 / count)
        return cls(chosen, block, np.random.default_rng(seed).multinomial(count, even, RESAMPLES))

    @property
    def count(self) -> int:
        return self.drawn.shape[1]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of one value per row of the replay, by block."""
        return np.bincount(self.block, values[self.chosen], self.count)

    def mean(self, values: np.ndarray) -> Estimate:
        rows = np.bincount(self.block, minlength=self.count).astype(float)
        sums = self.sums(values)
        return _estimate(float(sums.sum() / rows.sum()), (self.drawn @ sums) / (self.drawn @ rows))

    def share(self, gain: np.ndarray, whole: np.ndarray) -> Estimate:
        """Sum of one gain over the sum of another, one value per row each."""
        own, all_ = self.sums(gain), self.sums(whole)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _estimate(float(own.sum() / all_.sum()), (self.drawn @ own) / (self.drawn @ all_))


def _estimate(value: float, resampled: np.ndarray) -> Estimate:
    low, high = np.nanpercentile(resampled, PERCENTILES)
    return Estimate(value, float(low), float(high))


def percentile(loss: float, others: Sequence[float]) -> float:
    """Share of random timings that did worse; .5 is as good as chance."""
    found = np.asarray(others)
    return float((found > loss).mean() + 0.5 * (found == loss).mean())
