"""When an outcome counts: the one rule for training, backtests, trials and realised figures.

A cancellation is known early, a stay only at its end. Whoever trains on "the label is known" learns
from bookings that cancelled quickly and forgets the stays still to come: on the public hotel file
that doubles the log loss. So a booking enters a cohort by its *maturity date*, which depends on
what was known at booking alone: arrival plus a few days to settle.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from cancellations.domain.reservation import Status

CANCELLED = (Status.CANCELED.value, Status.NO_SHOW.value)


@dataclass(frozen=True)
class LabelRule:
    """How labels mature and how fast they age.

    `settle_days`: days after arrival until a booking without a recorded cancellation counts as
    kept; hotels that record no-shows the next morning need 1. `half_life_days`: age at which a
    label weighs half in training; 180 earned its place on the public file.
    """

    settle_days: int = 1
    half_life_days: float = 180.0


def maturity(reservations: pd.DataFrame, rule: LabelRule) -> pd.Series:
    """Maturity date of each booking (`datetime64`), a function of what was known at booking."""
    return reservations["arrival_on"] + pd.Timedelta(days=rule.settle_days)


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
    recorded = cohort["known_on"] <= pd.Timestamp(as_of)
    cohort["label"] = (recorded & cohort["status"].isin(CANCELLED)).astype("float64")
    return cohort.sort_values(["matured_on", "reservation_id"], ignore_index=True)


def weights(cohort: pd.DataFrame, rule: LabelRule, as_of: date) -> np.ndarray:
    """Training weights of a matured cohort: 0.5 ** (age of the label in half-lives)."""
    age = (pd.Timestamp(as_of) - cohort["matured_on"]).dt.days.to_numpy(dtype=float)
    return np.power(0.5, age / rule.half_life_days)
