"""Cancellations in flight: do bookings that have not matured go the way that their scores foretold?

Half of all cancellations come long before arrival, so a change shows among open bookings weeks before
outcomes are final. Each booking has a residual, its expected label as of now less its probability
(`labels.residual`), whose mean is 0 as long as probabilities, timing of cancellations and the feed of outcomes
are what they were. Bookings of a group share their fate, so the noise is counted by group.

It tells that something is wrong, not what: guests who cancel more look like cancellations that are told late
for guests who cancel less. So it is no reason to retrain; the feed of outcomes is looked at first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from cancellations.domain.labels import LabelRule, recorded_cancelled, residual
from cancellations.domain.reservation import GROUP, group_keys
from cancellations.domain.timing import learn_timing

EVERYTHING = "all bookings"
ONLINE = "online"
# Columns of a booking that are looked at here, and by the curves of cancellations.
LOOKED_AT = (*GROUP, "deposit_type")


@dataclass(frozen=True)
class InFlightPolicy:
    """Bookings of the last `days` are looked at, a slice of them from `min_rows` on."""

    days: int = 56
    min_rows: int = 300


@dataclass(frozen=True)
class Slice:
    """Some bookings, and what has become of them so far.

    `predicted`: share that their probabilities at booking foretold to be cancelled; `expected`: share expected
    now, after what has happened. `z`: the sum of residuals in standard errors that count a group of bookings
    once; near standard normal when all is as it was.
    """

    name: str
    rows: int
    groups: int
    predicted: float
    expected: float
    z: float


def in_flight(
    bookings: pd.DataFrame, history: pd.DataFrame, rule: LabelRule, as_of: date, policy: InFlightPolicy
) -> tuple[Slice, ...]:
    """All bookings of the last days, online and other ones, each hotel's: the farthest from its forecast first.

    `bookings`: those that a model has scored without having learnt from them, with `probability`; `history`: all
    bookings, from which the curves of cancellations are learned; both with `status` and `known_on`. Empty where
    there are too few bookings.
    """
    age = (pd.Timestamp(as_of) - bookings["booked_on"]).dt.days
    recent = bookings[(age >= 0) & (age < policy.days)]
    if len(recent) < policy.min_rows:
        return ()
    happened = learn_timing(history, rule, as_of).happened(recent, as_of)
    probability = recent["probability"].to_numpy(dtype=float)
    off = residual(probability, happened, recorded_cancelled(recent, as_of))
    groups = group_keys(recent)
    found = [
        _slice(name, probability[rows], off[rows], groups[rows])
        for name, rows in _slices(recent)
        if len(rows) >= policy.min_rows
    ]
    return tuple(sorted(found, key=lambda one: -abs(one.z)))


def _slices(bookings: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Names of slices, and the places of their bookings."""
    yield EVERYTHING, np.arange(len(bookings))
    online = bookings["market_segment"].astype("str").str.casefold().str.contains(ONLINE, na=False).to_numpy(dtype=bool)
    if online.any() and not online.all():
        yield ONLINE, np.flatnonzero(online)
        yield f"not {ONLINE}", np.flatnonzero(~online)
    hotel, names = pd.factorize(bookings["hotel"])
    if len(names) > 1:
        # In one pass: a chain has hundreds.
        order = np.argsort(hotel, kind="stable")
        bounds = np.searchsorted(hotel[order], np.arange(len(names) + 1))
        for number, name in enumerate(names):
            yield str(name), order[bounds[number] : bounds[number + 1]]


def _slice(name: str, probability: np.ndarray, off: np.ndarray, groups: np.ndarray) -> Slice:
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, weights=off)
    error = float(np.sqrt((sums**2).sum()))
    z = float(off.sum()) / error if error > 0 else 0.0
    predicted = float(probability.mean())
    return Slice(name, len(off), len(sums), predicted, predicted + float(off.mean()), z)
