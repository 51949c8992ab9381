"""When cancellations happen: curves that only grow, and a survivor that is safer than it was at booking."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.labels import LabelRule, remaining
from cancellations.domain.timing import MEMORY_DAYS, PSEUDO_COUNTS, Curve, Timing, learn_timing

TODAY, RULE = date(2016, 6, 1), LabelRule()
shares = st.lists(st.floats(0, 1), max_size=60).map(lambda found: np.sort(np.array(found, dtype=float)))
probabilities = st.floats(0, 1)


def history(*rows: tuple[date, int, int | None], hotel: str = "H", deposit: str = "No Deposit") -> pd.DataFrame:
    """Bookings of (arrival, lead days, days from booking to cancellation or None for a stay)."""
    made = []
    for arrival, lead, gone in rows:
        booked = arrival - timedelta(days=lead)
        ended = arrival + timedelta(days=2) if gone is None else booked + timedelta(days=gone)
        made.append((booked, arrival, "stayed" if gone is None else "canceled", ended))
    frame = pd.DataFrame(made, columns=["booked_on", "arrival_on", "status", "known_on"])
    days = {name: pd.to_datetime(frame[name]) for name in ("booked_on", "arrival_on", "known_on")}
    ids = [f"{hotel}{deposit}{n}" for n in range(len(frame))]
    return frame.assign(reservation_id=ids, hotel=hotel, deposit_type=deposit, **days)


def booking(lead: int, booked: date = TODAY, **cells: str) -> pd.DataFrame:
    return history((booked + timedelta(days=lead), lead, None), **cells)


@given(shares, shares, st.lists(st.floats(-0.5, 1.5), min_size=2, max_size=20))
def test_a_curve_never_falls_stays_within_its_limits_and_ends_with_arrival(
    own: np.ndarray, above: np.ndarray, elapsed: list[float]
) -> None:
    curve = Curve(own, Curve(above))
    found = curve(np.sort(np.array(elapsed)))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert curve(np.array([1.0, 7.0])).tolist() == [1.0, 1.0] and curve(np.array([-0.01])).tolist() == [0.0]


def test_a_curve_with_few_cancellations_of_its_own_leans_on_the_one_above() -> None:
    above = Curve(np.array([0.2] * 10 + [0.9] * 10))
    own = Curve(np.array([0.1] * PSEUDO_COUNTS), above)
    assert own(np.array([0.5])).tolist() == [0.75]  # half its own 1, half the other's 0.5
    assert Curve(np.array([]), above)(np.array([0.5])).tolist() == [0.5]


@given(probabilities, st.floats(0, 1), st.floats(0, 1))
def test_a_survivor_is_never_riskier_than_it_was_and_the_later_the_safer(p: float, one: float, other: float) -> None:
    early, late = sorted((one, other))
    left = remaining(np.array([p, p, p, p]), np.array([0.0, early, late, 1.0]))
    assert left[0] == p and left[3] == 0.0
    assert p + 1e-12 >= left[1] >= left[2] - 1e-12 >= -1e-12


def test_what_remains_is_the_share_of_survivors_that_still_cancel() -> None:
    # Of 100 bookings 40 cancel, 30 of them by now: 10 of the 70 that stand are still to go.
    assert remaining(np.array([0.4]), np.array([0.75]))[0] == pytest.approx(10 / 70)


def test_curves_are_learned_by_lead_and_hotel_and_apart_for_bookings_that_are_paid_anyway() -> None:
    arrival = TODAY - timedelta(days=30)
    known = pd.concat(
        [
            history(*[(arrival, 100, 90)] * 2_000),
            history(*[(arrival, 100, 10)] * 2_000, hotel="Other"),
            history(*[(arrival, 20, 10)] * 2_000),
            history(*[(arrival, 100, 5)] * 2_000, deposit="Non Refund"),
        ]
    )
    timing = learn_timing(known, RULE, TODAY)
    half = TODAY + timedelta(days=50)
    asked = pd.concat([booking(100), booking(100, hotel="Other"), booking(100, deposit="Non Refund")])
    late, early, paid = timing.happened(asked, half)
    assert late < 0.05 and early > 0.95 and paid > 0.95
    assert timing.happened(booking(20), TODAY + timedelta(days=9))[0] < 0.05
    assert timing.happened(booking(20), TODAY + timedelta(days=10))[0] > 0.95
    assert timing.cancellations == 8_000


def test_a_hotel_that_was_never_seen_follows_the_others() -> None:
    known = history(*[(TODAY - timedelta(days=9), 100, 90)] * 500)
    timing = learn_timing(known, RULE, TODAY)
    assert timing.happened(booking(100, hotel="New"), TODAY + timedelta(days=95)).tolist() == [1.0]
    assert timing.happened(booking(100, hotel="New"), TODAY + timedelta(days=50)).tolist() == [0.0]


def test_only_cancellations_that_matured_in_the_last_year_and_were_known_by_then_are_learned_from() -> None:
    old, young = TODAY - timedelta(days=MEMORY_DAYS + 5), TODAY + timedelta(days=5)
    assert learn_timing(history((old, 50, 10)), RULE, TODAY).cancellations == 0
    assert learn_timing(history((young, 50, 10)), RULE, TODAY).cancellations == 0  # its maturity is to come
    assert learn_timing(history((TODAY - timedelta(days=5), 50, 10)), RULE, TODAY).cancellations == 1
    learned_late = history((TODAY - timedelta(days=5), 50, 60))  # told after today
    assert learn_timing(learned_late, RULE, TODAY).cancellations == 0
    assert learn_timing(history((TODAY - timedelta(days=5), 50, None)), RULE, TODAY).cancellations == 0


def test_without_any_cancellation_everything_is_still_to_come_until_arrival() -> None:
    timing = learn_timing(history(), RULE, TODAY)
    asked, p = booking(10), np.array([0.3])
    assert timing.remaining(asked, p, TODAY + timedelta(days=9)).tolist() == [0.3]
    assert timing.remaining(asked, p, TODAY + timedelta(days=10)).tolist() == [0.0]


def test_who_books_for_the_same_day_is_at_risk_until_that_evening() -> None:
    timing = Timing(Curve(np.array([0.5])), {})
    assert timing.happened(booking(0), TODAY - timedelta(days=1)).tolist() == [0.0]
    assert timing.happened(booking(0), TODAY).tolist() == [1.0]
