"""When cancellations happen, and what it says about a booking that it has not been cancelled yet.

Half of all cancellations come long before arrival. A booking that has lived through most of its lead
time is therefore safer than its probability at booking says, and a forecast for next week that leaves
this out counts cancellations that have happened already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from cancellations.domain.labels import LabelRule, maturity, recorded_cancelled, remaining

# Upper ends of the lead buckets, days between booking and arrival; the last bucket is open.
LEADS = (7, 30, 90, 180)
# Cancellations that a bucket's curve is thought to have seen of the curve above it: with fewer of its
# own it follows that one, with many more its own.
PSEUDO_COUNTS = 50
# Cancellations of the last year are looked at: every season once, and no older habits.
MEMORY_DAYS = 365
# The `deposit_type` of guests who lose their money: they cancel early, or hardly ever.
NON_REFUNDABLE = "non refund"


@dataclass(frozen=True)
class Curve:
    """Share of eventual cancellations that have happened by a share of the lead time.

    `shares`: where in their lead time, in order, 0 at booking and 1 at arrival, cancellations
    happened. `parent` is the curve that few of them are shrunk to. Grows with the share elapsed, and
    is 1 once the guest should have arrived.
    """

    shares: np.ndarray
    parent: Curve | None = None

    def __call__(self, elapsed: np.ndarray) -> np.ndarray:
        """Shares elapsed -> shares happened, same shape, in [0, 1]; not a day elapsed is 0."""
        elapsed = np.asarray(elapsed, dtype=float)
        # A hair, because the same share may come out of two divisions.
        happened = np.searchsorted(self.shares, elapsed + 1e-9, side="right").astype(float)
        if self.parent is not None:
            happened = (happened + PSEUDO_COUNTS * self.parent(elapsed)) / (len(self.shares) + PSEUDO_COUNTS)
        elif len(self.shares):
            happened /= len(self.shares)
        return np.where(elapsed >= 1, 1.0, np.where(elapsed < 0, 0.0, happened))


@dataclass(frozen=True)
class Timing:
    """The curves of a day: of all cancellations, by refundability, by hotel, by lead bucket.

    Keys of `curves` are `(non_refundable,)`, `(non_refundable, hotel)` and `(non_refundable, hotel,
    bucket)`. Each is shrunk to the one before; a booking follows the last that there is.
    """

    everything: Curve
    curves: Mapping[tuple[object, ...], Curve]

    @property
    def cancellations(self) -> int:
        """How many cancellations the curves were learned from."""
        return len(self.everything.shares)

    def happened(self, bookings: pd.DataFrame, until: date) -> np.ndarray:
        """For each booking the share of eventual cancellations of its kind that have happened by the
        evening of a day, shape (rows,): 0 for one that is made later, 1 from its arrival on."""
        leads = lead_days(bookings)
        days = (pd.Timestamp(until) - bookings["booked_on"]).dt.days.to_numpy(dtype=float)
        # Who books for the same day has no lead time to elapse: that evening he should have arrived.
        elapsed = np.where(days < 0, -1.0, np.where(leads > 0, days / np.maximum(leads, 1), 1.0))
        out = np.empty(len(bookings))
        for kind, rows in _kinds(bookings).items():
            levels = (kind[:n] for n in range(len(kind), 0, -1))
            curve = next((self.curves[level] for level in levels if level in self.curves), self.everything)
            out[rows] = curve(elapsed[rows])
        return out

    def remaining(self, bookings: pd.DataFrame, probability: np.ndarray, until: date) -> np.ndarray:
        """The probability that bookings which stand on the evening of a day are still cancelled."""
        return remaining(probability, self.happened(bookings, until))


def learn_timing(history: pd.DataFrame, rule: LabelRule, as_of: date) -> Timing:
    """The curves of bookings that matured in the year up to `as_of`, by cancellations known by then.

    `history` as `ports.UnitOfWork.history` gives it. Taken by maturity, so that long leads of which only
    the early cancellations are known yet do not make curves look early. No-shows, and cancellations
    whose day the source does not tell, count on the day of arrival. Without a single cancellation
    everything is still to come until the day of arrival.
    """
    # Cancellations of `labels.matured`'s cohort; most of its rows are not wanted here, nor their order.
    age = pd.Timestamp(as_of) - maturity(history, rule)
    looked_at = (age >= pd.Timedelta(0)) & (age < pd.Timedelta(days=MEMORY_DAYS))
    cancelled = history[looked_at.to_numpy() & recorded_cancelled(history, as_of)]
    leads = lead_days(cancelled)
    days = (cancelled["known_on"] - cancelled["booked_on"]).dt.days.to_numpy(dtype=float)
    shares = np.clip(np.where(leads > 0, days / np.maximum(leads, 1), 1.0), 0.0, 1.0)
    everything = Curve(np.sort(shares))
    kinds = _kinds(cancelled)
    curves: dict[tuple[object, ...], Curve] = {}
    for depth in (1, 2, 3):
        members: dict[tuple[object, ...], list[np.ndarray]] = defaultdict(list)
        for kind, rows in kinds.items():
            members[kind[:depth]].append(rows)
        for level, parts in members.items():
            own = np.sort(shares[np.concatenate(parts)])
            curves[level] = Curve(own, curves.get(level[:-1], everything))
    return Timing(everything, curves)


def _kinds(bookings: pd.DataFrame) -> dict[tuple[object, ...], np.ndarray]:
    """Positions of the bookings of each kind: refundability, hotel, lead bucket."""
    buckets = np.searchsorted(np.array(LEADS, dtype=float), lead_days(bookings), side="left")
    keys = pd.DataFrame({"kind": non_refundable(bookings), "hotel": bookings["hotel"].to_numpy(), "bucket": buckets})
    found = keys.groupby(["kind", "hotel", "bucket"]).indices
    return {tuple(kind): rows for kind, rows in found.items()}


def lead_days(bookings: pd.DataFrame) -> np.ndarray:
    """Days between booking and arrival, shape (rows,)."""
    return (bookings["arrival_on"] - bookings["booked_on"]).dt.days.to_numpy(dtype=float)


def non_refundable(bookings: pd.DataFrame) -> np.ndarray:
    """Which bookings are paid for whether the guest comes or not, by their `deposit_type`."""
    return (bookings["deposit_type"].astype("str").str.strip().str.casefold() == NON_REFUNDABLE).to_numpy(dtype=bool)
