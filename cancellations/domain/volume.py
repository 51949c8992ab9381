"""How many bookings come in, against how many usually do: a source that falls silent, or delivers twice.

The week's bookings against the mean of the eight weeks before. What that ratio does by itself, seasons and groups
included, is learned from the same ratio of earlier weeks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

WEEK = 7
# Weeks that the last one is held against, and that are looked back on.
BASE_WEEKS = 8
MEMORY_WEEKS = 52
# Fewer earlier ratios than these say little of how far one may go.
LEAST_WEEKS = 12
MEMORY_DAYS = WEEK * (BASE_WEEKS + MEMORY_WEEKS + 1)


@dataclass(frozen=True)
class Volume:
    """Bookings of the last week, and what the weeks before let expect.

    `z`: how far the log of their ratio is from its median of earlier weeks, in their spread. `silent_days`: days
    at the end without a booking.
    """

    bookings: int
    expected: float
    z: float
    silent_days: int


@dataclass(frozen=True)
class Silence:
    """Days without a booking, up to and with a day, and the longest such pause of the year before."""

    since: date
    days: int
    longest: int

    def unusual(self, least_days: int) -> bool:
        """Whether a source that is this quiet is likely to have stopped: twice as long as ever, and some days."""
        return self.days >= max(least_days, 2 * self.longest, 1)


def silence(daily: pd.Series, end: date) -> Silence | None:
    """Of bookings by day, as `volume` takes them; None where there are less than eight weeks to learn from.

    `since` is the last day with a booking.
    """
    days = daily.index[(daily.to_numpy() > 0) & (daily.index <= pd.Timestamp(end))]
    if len(days) == 0 or (days[-1] - days[0]).days < BASE_WEEKS * WEEK:
        return None
    lately = days[days > days[-1] - pd.Timedelta(days=WEEK * MEMORY_WEEKS)]
    pauses = np.diff(lately.to_numpy()).astype("timedelta64[D]").astype(int) - 1
    return Silence(days[-1].date(), (pd.Timestamp(end) - days[-1]).days, int(pauses.max(initial=0)))


def volume(daily: pd.Series, end: date) -> Volume | None:
    """Of bookings by day (index `datetime64`, days without one may be missing); None where history is too short."""
    if daily.empty:
        return None
    days = pd.date_range(min(daily.index[0], pd.Timestamp(end)), pd.Timestamp(end))
    counts = daily.reindex(days, fill_value=0).to_numpy(dtype=float)
    whole = len(counts) // WEEK
    weeks = counts[len(counts) - whole * WEEK :].reshape(whole, WEEK).sum(axis=1)[-(BASE_WEEKS + MEMORY_WEEKS + 1) :]
    if len(weeks) < BASE_WEEKS + LEAST_WEEKS + 1:
        return None
    base = np.convolve(weeks[:-1], np.full(BASE_WEEKS, 1 / BASE_WEEKS), "valid")
    ratio = np.log((weeks[BASE_WEEKS:] + 1) / (base + 1))
    usual = float(np.median(ratio[:-1]))
    # The spread that a normal distribution of this median deviation has, and never less than counting alone brings.
    spread = max(1.4826 * float(np.median(np.abs(ratio[:-1] - usual))), 1 / np.sqrt(base[-1] + 1))
    silent = int(np.argmax(counts[::-1] > 0)) if counts.any() else len(counts)
    return Volume(int(weeks[-1]), float(base[-1] * np.exp(usual)), float((ratio[-1] - usual) / spread), silent)
