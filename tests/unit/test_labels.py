"""Only final outcomes count, and only what was known by the day on which one looks."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.labels import LabelRule, matured, maturity, weights

DAYS = st.dates(date(2016, 1, 1), date(2016, 3, 31))
STATUSES = st.sampled_from(["canceled", "no_show", "stayed"])
BOOKINGS = st.lists(st.tuples(DAYS, st.none() | st.tuples(STATUSES, DAYS)), min_size=1, max_size=12)
RULES = st.builds(LabelRule, settle_days=st.integers(0, 5))


def frame(bookings: list[tuple[date, tuple[str, date] | None]]) -> pd.DataFrame:
    """History as the store gives it: arrival and, where there is one, the recorded outcome."""
    return pd.DataFrame(
        {
            "reservation_id": [f"B{i}" for i in range(len(bookings))],
            "arrival_on": pd.to_datetime([a for a, _ in bookings]).astype("datetime64[us]"),
            "status": pd.Series([o[0] if o else None for _, o in bookings], dtype="str"),
            "known_on": pd.to_datetime([o[1] if o else None for _, o in bookings]).astype("datetime64[us]"),
        }
    )


@given(BOOKINGS, DAYS, RULES)
def test_no_booking_enters_before_its_maturity_and_none_is_left_out_after_it(
    bookings: list[tuple[date, tuple[str, date] | None]], as_of: date, rule: LabelRule
) -> None:
    cohort = matured(frame(bookings), rule, as_of)
    due = {f"B{i}" for i, (a, _) in enumerate(bookings) if a + timedelta(days=rule.settle_days) <= as_of}
    assert set(cohort["reservation_id"]) == due


@given(BOOKINGS, DAYS, RULES, st.data())
def test_outcomes_recorded_after_as_of_never_matter(
    bookings: list[tuple[date, tuple[str, date] | None]], as_of: date, rule: LabelRule, data: st.DataObject
) -> None:
    later = st.none() | st.tuples(STATUSES, st.dates(as_of + timedelta(days=1), date(2016, 12, 31)))
    rewritten = [
        (arrival, outcome if outcome and outcome[1] <= as_of else data.draw(later)) for arrival, outcome in bookings
    ]
    columns = ["reservation_id", "matured_on", "label"]
    pd.testing.assert_frame_equal(
        matured(frame(rewritten), rule, as_of)[columns], matured(frame(bookings), rule, as_of)[columns]
    )


@given(BOOKINGS, DAYS, DAYS)
def test_two_cohorts_that_meet_hold_each_booking_once(
    bookings: list[tuple[date, tuple[str, date] | None]], one: date, two: date
) -> None:
    first, last = min(one, two), max(one, two)
    history, rule = frame(bookings), LabelRule()
    parts = [*matured(history, rule, first)["reservation_id"], *matured(history, rule, last, first)["reservation_id"]]
    assert sorted(parts) == sorted(matured(history, rule, last)["reservation_id"])


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        (("canceled", date(2016, 1, 3)), 1.0),
        (("no_show", date(2016, 1, 11)), 1.0),
        (("stayed", date(2016, 1, 11)), 0.0),
        (None, 0.0),  # nothing recorded by maturity: kept
        (("canceled", date(2016, 1, 12)), 0.0),  # not known yet
    ],
)
def test_what_counts_as_a_cancellation(outcome: tuple[str, date] | None, label: float) -> None:
    cohort = matured(frame([(date(2016, 1, 10), outcome)]), LabelRule(settle_days=1), date(2016, 1, 11))
    assert cohort["label"].tolist() == [label]


def test_the_history_is_left_as_it_was() -> None:
    history = frame([(date(2016, 1, 10), None)])
    before = history.copy()
    matured(history, LabelRule(), date(2016, 2, 1))
    pd.testing.assert_frame_equal(history, before)


def test_maturity_needs_nothing_but_the_booking() -> None:
    history = frame([(date(2016, 1, 10), None)]).drop(columns=["status", "known_on"])
    assert maturity(history, LabelRule(settle_days=3)).tolist() == [pd.Timestamp("2016-01-13")]


def test_a_label_of_one_half_life_weighs_half() -> None:
    rule = LabelRule(settle_days=0, half_life_days=10)
    cohort = matured(frame([(date(2016, 1, 1), None), (date(2016, 1, 11), None)]), rule, date(2016, 1, 11))
    np.testing.assert_allclose(weights(cohort, rule, date(2016, 1, 11)), [0.5, 1.0])
