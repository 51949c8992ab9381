"""One number a day: the shift of a model's log odds that what has happened so far to open bookings asks for.

A booking that has been cancelled, or has not been although most of its kind would have been by now, tells
something before its outcome is final (`labels.residual`). The shift is the one under which these residuals,
weighted by age, are 0 on average; a ridge holds it near 0 while there is little evidence. It is the penalised
maximum of the partial likelihood in which each booking has survived or not up to now.

A shift is believed when those of the last weeks, each as it was seen before the bookings that it is judged on,
have not done worse than no shift at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum

import numpy as np
import pandas as pd

from cancellations.domain.comparison import daily_gains, resampled_gain
from cancellations.domain.labels import LabelRule, matured, recorded_cancelled, residual
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


@dataclass(frozen=True)
class RecalibrationPolicy:
    """When the day's shift becomes a version.

    `min_shift`: change of log odds below which nothing is made; .05 moves a probability by little more than a point.
    `gate_days`: bookings that matured in so many days are looked back on. `min_rows`: of the evidence, and of the
    bookings that are looked back on. `tolerance`: log loss per booking by which the shifts of the past may
    have been worse than none; a shift that is wrong by .1 costs about as much. `told_shift`: change of log
    odds, since owners were told last, that is worth a mail. `resamples` of maturity days give an interval in
    which the gain lies with `confidence`.
    """

    shift: ShiftPolicy = field(default_factory=ShiftPolicy)
    min_shift: float = 0.05
    gate_days: int = 28
    min_rows: int = 300
    tolerance: float = 0.001
    told_shift: float = 0.25
    resamples: int = 1_000
    confidence: float = 0.95


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


def shifted(probability: np.ndarray, shift: float | np.ndarray) -> np.ndarray:
    """Probabilities whose log odds are moved by a number, or by one each; of 0 and 1 nothing else is made."""
    p = np.clip(np.asarray(probability, dtype=float), 1e-15, 1 - 1e-15)
    return 1 / (1 + np.exp(-(np.log(p) - np.log1p(-p) + shift)))


# From one evening to the next that is looked back on: a shift moves little in a week, and is learnt in a moment
# of which a year has too many.
EVENINGS = timedelta(days=7)


@dataclass(frozen=True)
class LookBack:
    """How the shifts of past evenings did: log loss saved per booking against no shift, with its interval (nats).

    On `bookings` that matured after the day `after`, until another, of those that were made after the training.
    """

    after: date
    until: date
    bookings: int
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0


def look_back(
    bookings: pd.DataFrame,
    history: pd.DataFrame,
    rule: LabelRule,
    trained_as_of: date,
    as_of: date,
    policy: RecalibrationPolicy,
    seed: int,
) -> LookBack:
    """Bookings that matured lately, each with the shift that was seen before it was made, against none.

    `bookings` and `history` as `shift_on` takes them. An evening is seen with what was known on it, and with no
    booking that came later; the record begins with the training. The window is one of maturity, for what was made
    in it and has matured already is of short leads alone, and says nothing of the others (measured on the public
    file: a gate on those was shut in half of the weeks, and the shift gained as much then as in the others).
    """
    after = as_of - timedelta(days=policy.gate_days)
    cohort = matured(bookings[bookings["booked_on"] > pd.Timestamp(trained_as_of)], rule, as_of, after)
    if cohort.empty:
        return LookBack(after, as_of, 0)
    passed = (cohort["booked_on"] - pd.Timestamp(trained_as_of)).dt.days.to_numpy() - 1
    evening = passed // EVENINGS.days
    seen = {
        n: shift_on(bookings, history, rule, trained_as_of + int(n) * EVENINGS, policy.shift)
        for n in np.unique(evening)
    }
    shift = np.array([seen[n] for n in evening])
    probability = cohort["probability"].to_numpy(dtype=float)
    gains = daily_gains(cohort["matured_on"], cohort["label"].to_numpy(), probability, shifted(probability, shift))
    return LookBack(after, as_of, len(cohort), *resampled_gain(gains, seed, policy.resamples, policy.confidence))


class Verdict(StrEnum):
    """What is done about a day's shift."""

    NOTHING = "nothing to correct"  # the champion's shift is near enough
    REFUSED = "refused"  # the evidence does not bear a shift, and none is served
    SHIFT = "shift"  # a version with the day's shift serves
    BASE = "base"  # the version without a shift serves again


@dataclass(frozen=True)
class Decided:
    """A verdict, with its reasons in the order in which they were weighed."""

    verdict: Verdict
    reasons: tuple[str, ...]


def decide_shift(
    wanted: float, present: float, evidence: int, looked: LookBack | None, policy: RecalibrationPolicy
) -> Decided:
    """What becomes of a day's shift. Pure: same input, same verdict.

    `wanted`: what `evidence` bookings ask for, `present`: the champion's, 0 without one; `looked` is None where
    it was not asked, which is enough where neither is anything.
    """
    told = f"{evidence:,} bookings ask for a shift of {wanted:+.3f} log odds; the champion has {present:+.3f}"
    if evidence < policy.min_rows:
        few = f"refused: the champion has scored {evidence:,} bookings that it has not learnt from"
        return Decided(Verdict.REFUSED, (f"{few}, {policy.min_rows:,} are needed",))
    if abs(wanted) > policy.shift.longest - 1e-3:
        return Decided(
            Verdict.REFUSED,
            (
                f"{told}",
                f"refused: the limit is {policy.shift.longest:g}, and beyond it something else is wrong. Do outcomes"
                " come in whole? Otherwise retrain",
            ),
        )
    small = abs(wanted - present) < policy.min_shift
    if looked is None or (small and present == 0):
        return Decided(Verdict.NOTHING, (told, f"less than {policy.min_shift:g} apart: nothing to correct"))
    if looked.bookings < policy.min_rows:
        return Decided(
            Verdict.REFUSED,
            (
                told,
                f"refused: {looked.bookings:,} bookings made since the training matured after {looked.after} until"
                f" {looked.until}, {policy.min_rows:,} are needed to look back on",
            ),
        )
    found = (
        f"on {looked.bookings:,} bookings that matured after {looked.after} the shifts seen before each was made saved"
        f" {looked.gain:+.4f} log loss per booking, {looked.low:+.4f} to {looked.high:+.4f} (tolerance"
        f" {policy.tolerance:g})"
    )
    if looked.gain < -policy.tolerance:
        verdict = Verdict.BASE if present else Verdict.REFUSED
        return Decided(verdict, (told, f"refused: {found}"))
    if small:
        return Decided(
            Verdict.NOTHING,
            (told, f"passed: {found}", f"less than {policy.min_shift:g} apart: nothing to correct"),
        )
    verdict = Verdict.BASE if abs(wanted) < policy.min_shift else Verdict.SHIFT
    return Decided(verdict, (told, f"passed: {found}"))


def worth_a_mail(shifts: Sequence[float], step: float) -> bool:
    """Whether owners are told of the last of the shifts that have served one after the other.

    They are told of the first that is a step away from 0, and then of each that is a step away from the one
    that they were told of last; not of every day.
    """
    told, tell = 0.0, False
    for shift in shifts:
        tell = abs(shift - told) >= step
        told = shift if tell else told
    return tell
