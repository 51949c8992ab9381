"""One number a day: the shift of a model's log odds that what has happened so far to open bookings asks for.

A booking that has been cancelled, or has not been although most of its kind would have been by now, tells
something before its outcome is final (`labels.residual`). The shift is the one under which these residuals,
weighted by age, are 0 on average; a ridge holds it near 0 while there is little evidence. It is the penalised
maximum of the partial likelihood in which each booking has survived or not up to now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from cancellations.domain.labels import LabelRule, recorded_cancelled, residual
from cancellations.domain.timing import learn_timing


@dataclass(frozen=True)
class ShiftPolicy:
    """How a shift is found.

    `half_life_days`: age of a booking at which it weighs half; `ridge`: bookings' worth of evidence that
    there is nothing to shift; `longest`: limit of the shift in log odds, beyond which something else is wrong.
    """

    half_life_days: float = 28.0
    ridge: float = 20.0
    longest: float = 1.5


def best_shift(
    probability: np.ndarray, happened: np.ndarray, cancelled: np.ndarray, weight: np.ndarray, policy: ShiftPolicy
) -> float:
    """The shift of log odds at which the weighted residuals meet the ridge.

    `probability` at booking, `happened`: share of cancellations that would have come by now, `cancelled`:
    which have a cancellation on record, `weight`; shapes (rows,). Without evidence 0.
    """
    p = np.clip(np.asarray(probability, dtype=float), 1e-9, 1 - 1e-9)
    odds = np.log(p) - np.log1p(-p)

    def excess(shift: float) -> float:
        shifted = 1 / (1 + np.exp(-(odds + shift)))
        return float((weight * residual(shifted, happened, cancelled)).sum() - policy.ridge * shift)

    low, high = -policy.longest, policy.longest
    # The excess falls as the shift grows: halving finds where it crosses 0, or the limit.
    for _ in range(30):
        middle = (low + high) / 2
        if excess(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def shift_on(bookings: pd.DataFrame, history: pd.DataFrame, rule: LabelRule, as_of: date, policy: ShiftPolicy) -> float:
    """The shift that is seen on the evening of a day.

    `bookings`: those that the model has scored without having learnt from them, with `probability`; `history`
    all bookings, from which the curves of cancellations are learned; both with `status` and `known_on`.
    """
    made = bookings[bookings["booked_on"] <= pd.Timestamp(as_of)]
    if made.empty:
        return 0.0
    happened = learn_timing(history, rule, as_of).happened(made, as_of)
    age = (pd.Timestamp(as_of) - made["booked_on"]).dt.days.to_numpy(dtype=float)
    weight = np.power(0.5, age / policy.half_life_days)
    probability = made["probability"].to_numpy(dtype=float)
    return best_shift(probability, happened, recorded_cancelled(made, as_of), weight, policy)


def daily_shifts(
    bookings: pd.DataFrame,
    history: pd.DataFrame,
    rule: LabelRule,
    trained: Sequence[date],
    until: date,
    policy: ShiftPolicy | None = None,
) -> np.ndarray:
    """For each booking the shift of the evening before it was made, by its model's own record, shape (rows,).

    `bookings` as `shift_on` takes them, in order of booking, each scored by the model of the last day of
    `trained` before it; the record begins anew with each model.
    """
    booked_on = bookings["booked_on"]
    out = np.zeros(len(bookings))
    for first, last in zip(trained, [*trained[1:], until], strict=True):
        day = first + timedelta(days=1)
        while day < last:
            own = slice(
                int(booked_on.searchsorted(pd.Timestamp(first), side="right")),
                int(booked_on.searchsorted(pd.Timestamp(day), side="right")),
            )
            following = int(booked_on.searchsorted(pd.Timestamp(day + timedelta(days=1)), side="right"))
            out[own.stop : following] = shift_on(bookings.iloc[own], history, rule, day, policy or ShiftPolicy())
            day += timedelta(days=1)
    return out
