"""Bookings whose labels tell what would have become of them had nobody acted upon their scores."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd

from cancellations.domain.hold_out import Untouched, untouched
from cancellations.domain.labels import LabelRule, maturity
from cancellations.errors import Refused
from cancellations.ports import UnitOfWork


def untouched_of(work: UnitOfWork, bookings: pd.DataFrame, rule: LabelRule, known_until: date) -> Untouched:
    """Which rows of a history count, by what was on record of actions on a day; all while there was none."""
    since = work.first_action(known_until)
    if since is None:
        return Untouched(np.ones(len(bookings), dtype=bool))
    ids = bookings["reservation_id"]
    return untouched(
        maturity(bookings, rule).to_numpy(),
        since,
        acted=work.acted(ids, known_until),
        held_out=work.held_out(ids),
        dealt=work.has_hold_out(known_until),
    )


def require_hold_out(work: UnitOfWork, known_until: date) -> None:
    """Raises `Refused` where actions are on record and no booking is held out from them."""
    since = work.first_action(known_until)
    if since is not None and not work.has_hold_out(known_until):
        raise Refused(
            f"actions upon scores are on record since {since} and no booking is held out from them, so outcomes tell of"
            " the actions too: nothing is changed by itself. Hold some out (CANCELLATIONS_ACTIONS__HOLD_OUT)"
        )
