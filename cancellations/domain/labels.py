"""When an outcome counts: the one rule for training, backtests, trials and realised figures.

A cancellation is known early, a stay only at its end. Whoever trains on "the label is known" learns
from bookings that cancelled quickly and forgets the stays still to come: on the public hotel file
that doubles the log loss. So a booking enters a cohort by its *maturity date*, which depends on
what was known at booking alone: arrival, or scheduled check-out, plus a few days to settle.

Bookings that have not matured tell something too. Cut into *steps* of its lead time, a booking enters
each step that lies behind us whole (discrete-time survival analysis); and one that still stands is
less likely to be cancelled than on the day it was made (partial evidence).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.reservation import Status

CANCELLED = (Status.CANCELED.value, Status.NO_SHOW.value)

# Ends of the steps that a lead time is cut into, as shares of it: a fifth of all cancellations come on the day
# of booking, and as many in the last third. The last step ends with the booking's maturity.
STEPS = (0.02, 0.15, 0.4, 0.7, 1.0)


# Hotels that record outcomes at check-out: nine of ten stays are over after so many days.
LATE_RECORD_DAYS = 7


class Matures(StrEnum):
    """The day from which a booking's outcome is waited for."""

    ARRIVAL = "arrival"  # no cancellation or no-show recorded when the guest should have come: kept
    CHECK_OUT = "check-out"  # for hotels that record late what became of a stay


@dataclass(frozen=True)
class Ending:
    """Bookings whose arrival, or scheduled check-out, lies later than a day, and not later than another."""

    after: date
    by: Matures = Matures.ARRIVAL
    until: date | None = None


@dataclass(frozen=True)
class LabelRule:
    """How labels mature and how fast they age.

    `settle_days`: days after arrival until a booking without a recorded cancellation counts as
    kept; hotels that record no-shows the next morning need 1. `half_life_days`: age at which a
    label weighs half in training; 180 earned its place on the public file. `matures`: whether the
    days to settle begin at arrival or at the scheduled check-out.
    """

    settle_days: int = 1
    half_life_days: float = 180.0
    matures: Matures = Matures.ARRIVAL

    def maturing(self, after: date, until: date | None = None) -> Ending:
        """The bookings that mature later than a day, and by another where one is given."""
        settled = timedelta(days=self.settle_days)
        return Ending(after - settled, self.matures, None if until is None else until - settled)

    @property
    def record_days(self) -> int:
        """Days after an arrival by which its outcome is on record, for counts that know no check-out."""
        return self.settle_days + (LATE_RECORD_DAYS if self.matures is Matures.CHECK_OUT else 0)


class Labels(StrEnum):
    """What a fit takes for the truth about bookings."""

    MATURED = "matured"  # bookings that have matured, as they ended
    HAZARD = "hazard"  # steps of lead time that have been lived through, by bookings matured or not
    MIX = "mix"  # a model of each, and the mean of their probabilities

    @property
    def stepwise(self) -> bool:
        """Whether bookings that have not matured are learnt from too."""
        return self is not Labels.MATURED


# What examples are made of beside the nights of a stay, as it was known on the day of the fit.
TOLD = ("reservation_id", "booked_on", "arrival_on", "status", "known_on")


# Columns of a booking by which it matures.
RULED_BY = ("booked_on", "arrival_on", "weekend_nights", "week_nights")


def maturity(reservations: pd.DataFrame, rule: LabelRule) -> pd.Series:
    """Maturity date of each booking (`datetime64`), a function of what was known at booking.

    By check-out it needs the columns `weekend_nights` and `week_nights` as well.
    """
    settled = reservations["arrival_on"] + pd.Timedelta(days=rule.settle_days)
    if rule.matures is Matures.ARRIVAL:
        return settled
    nights = reservations["weekend_nights"] + reservations["week_nights"]
    return settled + pd.to_timedelta(nights.astype("float64"), unit="D").astype("timedelta64[us]")


def matures_on(booking: Mapping[str, Any], rule: LabelRule) -> date:
    """Maturity date of one booking, whose values stand under the names of `RULED_BY`."""
    nights = 0 if rule.matures is Matures.ARRIVAL else int(booking["weekend_nights"] + booking["week_nights"])
    matured: date = booking["arrival_on"] + timedelta(days=rule.settle_days + nights)
    return matured


def recorded_cancelled(history: pd.DataFrame, as_of: date) -> np.ndarray:
    """Which bookings had a cancellation or no-show on record by the evening of a day, shape (rows,)."""
    recorded = history["known_on"] <= pd.Timestamp(as_of)
    return (recorded & history["status"].isin(CANCELLED)).to_numpy(dtype=bool)


def matured(history: pd.DataFrame, rule: LabelRule, as_of: date, after: date | None = None) -> pd.DataFrame:
    """The cohort whose outcomes are final by `as_of`.

    `history` holds reservations with `status` and `known_on` (missing when nothing is recorded).
    Returns the rows with `after < maturity date <= as_of`, with columns `matured_on` and `label`
    (1.0 cancelled or no-show, 0.0 kept), in order of maturity, then id. Outcomes recorded after
    `as_of` are not looked at.
    """
    matured_on = maturity(history, rule)
    chosen = matured_on <= pd.Timestamp(as_of)
    if after is not None:
        chosen &= matured_on > pd.Timestamp(after)
    cohort = history.loc[chosen].copy()
    cohort["matured_on"] = matured_on[chosen]
    cohort["label"] = recorded_cancelled(cohort, as_of).astype("float64")
    return cohort.sort_values(["matured_on", "reservation_id"], ignore_index=True)


def made_days_ago(bookings: pd.DataFrame, as_of: date, trained_as_of: date) -> np.ndarray:
    """Days from each booking to a day, shape (rows,); inf for those that a version found when it was trained.

    They had survived until then, so what becomes of them is not what becomes of bookings made at that age.
    """
    days = (pd.Timestamp(as_of) - bookings["booked_on"]).dt.days.to_numpy(dtype=float)
    return np.where(bookings["booked_on"] > pd.Timestamp(trained_as_of), days, np.inf)


def unseen(history: pd.DataFrame, rule: LabelRule, labels: Labels, trained_as_of: date) -> np.ndarray:
    """Which bookings a version can have learnt nothing of, shape (rows,): only they may test it.

    Those that mature after its training; and where steps of lead time were learnt from, only those that
    were made after it: of the others it has seen who cancelled early, and large groups are remembered.
    """
    later = (maturity(history, rule) > pd.Timestamp(trained_as_of)).to_numpy()
    if labels.stepwise:
        later = later & (history["booked_on"] > pd.Timestamp(trained_as_of)).to_numpy()
    return later


@dataclass(frozen=True)
class Examples:
    """Rows that one model is fitted on.

    `row`: positions in the history that the examples were made from; `label` 1.0 cancelled, 0.0 not;
    `weight`: of each example. `step`: which of `STEPS` an example tells of, None when each tells of a
    whole booking. All of one length.
    """

    row: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    step: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.row)

    def excluding(self, rows: np.ndarray) -> Examples:
        """These without what was made of some rows of the history, given as bools of shape (history rows,)."""
        kept = ~rows[self.row]
        step = None if self.step is None else self.step[kept]
        return Examples(self.row[kept], self.label[kept], self.weight[kept], step)


def whole(history: pd.DataFrame, rule: LabelRule, as_of: date, *, weighted: bool = True) -> Examples:
    """An example of each booking of `history` that matured by a day; `history` as `matured` takes it."""
    matured_on = maturity(history, rule)
    row = np.flatnonzero((matured_on <= pd.Timestamp(as_of)).to_numpy())
    label = recorded_cancelled(history, as_of)[row].astype("float64")
    return Examples(row, label, _weights(matured_on.iloc[row], rule, as_of, weighted=weighted))


def steps(history: pd.DataFrame, rule: LabelRule, as_of: date, *, weighted: bool = True) -> Examples:
    """An example of each booking and step of its lead time that was over by a day and entered uncancelled.

    Its label: cancelled within the step. Whether a step is over depends on booking date and lead alone,
    so bookings that cancelled early do not come in before those of the same age that stand. `history`
    as `matured` takes it.
    """
    lead = (history["arrival_on"] - history["booked_on"]).dt.days.to_numpy(dtype=float)
    days = (history["known_on"] - history["booked_on"]).dt.days.to_numpy(dtype=float)
    cancelled_after = np.where(recorded_cancelled(history, as_of), np.maximum(days, 0), np.inf)
    parts = []
    begun = np.full(len(history), -1.0)
    for number, share in enumerate(STEPS):
        last = number == len(STEPS) - 1
        # A hair, because a share of a lead may come out just below the day it stands for.
        ended = np.floor(lead * share + 1e-9)
        over_on = (
            maturity(history, rule) if last else history["booked_on"] + pd.to_timedelta(ended, unit="D").as_unit("us")
        )
        row = np.flatnonzero((over_on <= pd.Timestamp(as_of)).to_numpy() & (cancelled_after > begun))
        # What is recorded later than the arrival is a cancellation of the last step, as for whole bookings.
        until = np.full(len(row), np.inf) if last else ended[row] + 0.5
        label = (cancelled_after[row] < until).astype("float64")
        weight = _weights(over_on.iloc[row], rule, as_of, weighted=weighted)
        parts.append(Examples(row, label, weight, np.full(len(row), float(number))))
        begun = ended
    together = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("row", "label", "weight", "step")}
    return Examples(**together)


def examples(
    history: pd.DataFrame, labels: Labels, rule: LabelRule, as_of: date, *, weighted: bool = True
) -> tuple[Examples, ...]:
    """What the models of a label recipe are fitted on, one after the other."""
    made = []
    if labels in (Labels.MATURED, Labels.MIX):
        made.append(whole(history, rule, as_of, weighted=weighted))
    if labels in (Labels.HAZARD, Labels.MIX):
        made.append(steps(history, rule, as_of, weighted=weighted))
    return tuple(made)


def _weights(known_on: pd.Series, rule: LabelRule, as_of: date, *, weighted: bool) -> np.ndarray:
    """0.5 ** (age of what is known, in half-lives)."""
    age = (pd.Timestamp(as_of) - known_on).dt.days.to_numpy(dtype=float)
    return np.power(0.5, age / rule.half_life_days) if weighted else np.ones(len(age))


def remaining(probability: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """p(1−f) / (1−pf): a booking's probability of cancelling, given that it has survived so far.

    `probability` p is that at booking, `happened` f the share of cancellations that would have come by
    now, shapes (rows,). It is Bayes' rule on survival, no model of its own: of all such bookings p·f
    have gone, p·(1−f) are still to go, and 1−p·f stand. As right as p and f are.
    """
    stands = 1 - probability * happened
    return np.divide(probability * (1 - happened), stands, out=np.zeros_like(stands), where=stands > 0)


def expected_label(probability: np.ndarray, happened: np.ndarray, cancelled: np.ndarray) -> np.ndarray:
    """What a booking's label will be on average, seen from now: 1 once cancelled, else `remaining`.

    `cancelled`: which bookings have a cancellation on record, bool; shapes (rows,).
    """
    return np.where(cancelled, 1.0, remaining(probability, happened))


def residual(probability: np.ndarray, happened: np.ndarray, cancelled: np.ndarray) -> np.ndarray:
    """Expected label minus probability at booking: its mean is 0 when both probability and timing are right."""
    return expected_label(probability, happened, cancelled) - probability
