"""The hold-out is dealt by groups and by nothing else; what counts beside it depends on dates and on the deal."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.comparison import arm
from cancellations.domain.hold_out import ActionPolicy, dealt_out, untouched
from cancellations.domain.reservation import coerce

SINCE = date(2016, 6, 15)


def bookings(groups: int, rooms: int = 1) -> pd.DataFrame:
    """`rooms` bookings of each group."""
    count = groups * rooms
    return coerce(
        pd.DataFrame(
            {
                "reservation_id": [f"b{i:05d}" for i in range(count)],
                "hotel": "City Hotel",
                "booked_on": "2016-05-01",
                "arrival_on": "2016-07-01",
                "weekend_nights": 1,
                "week_nights": 2,
                "adults": 2,
                "agent": [f"{i // rooms}" for i in range(count)],
            }
        )
    )


# --- the deal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_share_is_reached_but_for_chance(share: float) -> None:
    held = dealt_out(bookings(5_000), share)
    assert abs(held.mean() - share) < 4 * np.sqrt(share * (1 - share) / 5_000)


def test_nobody_and_everybody_can_be_held_out() -> None:
    assert not dealt_out(bookings(50), 0.0).any() and dealt_out(bookings(50), 1.0).all()
    assert dealt_out(bookings(0), 0.5).shape == (0,)


def test_bookings_of_a_group_are_held_out_together() -> None:
    held = dealt_out(bookings(300, rooms=7), 0.5).reshape(300, 7)
    assert (held.all(axis=1) | ~held.any(axis=1)).all() and 0.3 < held.mean() < 0.7


def test_the_deal_does_not_depend_on_who_is_dealt_beside() -> None:
    all_of_them = bookings(200)
    held = dealt_out(all_of_them, 0.3)
    assert (dealt_out(all_of_them.iloc[50:60], 0.3) == held[50:60]).all()
    assert (dealt_out(all_of_them.iloc[::-1], 0.3) == held[::-1]).all()


def test_the_hold_out_has_nothing_to_do_with_the_arms_of_a_trial() -> None:
    rows = bookings(4_000)
    held = dealt_out(rows, 0.5)
    rival = np.array([arm("trial-2-1", i, 0.5) == "rival" for i in rows["reservation_id"]])
    assert abs(np.corrcoef(held, rival)[0, 1]) < 4 / np.sqrt(len(rows))


# --- what counts ----------------------------------------------------------------------------------

ROWS = st.lists(
    st.tuples(st.integers(-20, 20), st.booleans(), st.booleans()),
    max_size=30,
)


def found(rows: list[tuple[int, bool, bool]], dealt: bool, since: date | None = SINCE) -> Any:
    matured = np.array([np.datetime64(SINCE) + n for n, _, _ in rows], dtype="datetime64[us]")
    acted, held = (np.array([row[i] for row in rows], dtype=bool) for i in (1, 2))
    return untouched(matured, since, acted, held, dealt)


@given(ROWS, st.booleans())
def test_without_an_action_on_record_all_count(rows: list[tuple[int, bool, bool]], dealt: bool) -> None:
    clean = found(rows, dealt, since=None)
    assert clean.rows.all() and clean.told() is None and clean.left_out == 0


@given(ROWS, st.booleans())
def test_what_matured_before_the_first_action_counts_and_nothing_that_was_acted_upon_later(
    rows: list[tuple[int, bool, bool]], dealt: bool
) -> None:
    clean = found(rows, dealt)
    for (n, acted, held), counts in zip(rows, clean.rows, strict=True):
        if n < 0:
            assert counts
        elif acted:
            assert not counts
        else:
            assert counts == (held or not dealt)
    assert clean.acted == sum(a for n, a, _ in rows if n >= 0)
    assert clean.broken == sum(a and h for n, a, h in rows if n >= 0)
    assert clean.later == sum(bool(c) for (n, _, _), c in zip(rows, clean.rows, strict=True) if n >= 0)


def test_it_is_told_in_a_sentence() -> None:
    rows = [(-1, False, False), (0, False, True), (1, False, False), (2, True, True)]
    assert found(rows, dealt=True).told() == (
        "left out: 2 bookings that were not held out, since actions upon scores are on record from 2016-06-15 on"
    )
    assert found(rows, dealt=False).told() == (
        "left out: 1 booking that was acted upon, since actions upon scores are on record from 2016-06-15 on"
    )


@pytest.mark.parametrize("wrong", [{"hold_out": 1.1}, {"hold_out": -0.1}, {"broken_share": 2.0}])
def test_a_share_is_from_0_to_1(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"is a share, from 0 to 1"):
        ActionPolicy(**wrong)


# --- why ------------------------------------------------------------------------------------------


def test_acting_on_the_served_score_makes_it_look_worse_and_the_hold_out_undoes_that() -> None:
    """Two versions, both right on average about what nobody acts upon; staff call whom the served one scores high."""
    rng = np.random.default_rng(3)
    n = 40_000
    served, other = rng.beta(1, 2, n), rng.beta(1, 2, n)
    truth = (served + other) / 2  # each knows half of it
    label = rng.random(n) < truth
    held = rng.random(n) < 0.3
    called = (served > 0.5) & ~held
    after = label & ~(called & (rng.random(n) < 0.6))  # six in ten whom they call come after all

    def gain(rows: np.ndarray, outcome: np.ndarray) -> float:
        """Mean log loss that the other version saves."""
        y, p, q = outcome[rows], served[rows], other[rows]
        return float(np.mean(np.where(y, np.log(q / p), np.log((1 - q) / (1 - p)))))

    assert abs(gain(np.ones(n, dtype=bool), label)) < 0.02  # neither is better
    assert gain(np.ones(n, dtype=bool), after) > 0.06  # it looks as if the other were, by far
    assert abs(gain(held, after)) < 0.04
