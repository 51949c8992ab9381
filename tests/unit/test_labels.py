"""Only final outcomes count, and only what was known by the day on which one looks."""

from __future__ import annotations

import math
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.labels import (
    Examples,
    LabelRule,
    Labels,
    Matures,
    examples,
    expected_label,
    made_days_ago,
    matured,
    maturity,
    residual,
    steps,
    unseen,
    whole,
)

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
    history = frame([(date(2016, 1, 1), None), (date(2016, 1, 11), None)])
    np.testing.assert_allclose(whole(history, rule, date(2016, 1, 11)).weight, [0.5, 1.0])
    np.testing.assert_allclose(whole(history, rule, date(2016, 1, 11), weighted=False).weight, [1.0, 1.0])


def stays(bookings: list[tuple[str, str, int, str | None]]) -> pd.DataFrame:
    """History of bookings: made on, arrival, nights, and the day of a cancellation."""
    made, arrival, nights, gone = (list(column) for column in zip(*bookings, strict=True))
    days = {"booked_on": made, "arrival_on": arrival, "known_on": gone}
    return pd.DataFrame(
        {
            "reservation_id": [f"B{i}" for i in range(len(made))],
            **{name: pd.to_datetime(pd.Series(d, dtype="str")).astype("datetime64[us]") for name, d in days.items()},
            "weekend_nights": 0.0,
            "week_nights": [float(n) for n in nights],
            "status": pd.Series([None if g is None else "canceled" for g in gone], dtype="str"),
        }
    )


@st.composite
def histories(draw: st.DrawFn) -> pd.DataFrame:
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        made = draw(DAYS)
        lead = draw(st.integers(0, 60))
        gone = draw(st.none() | st.integers(0, lead + 5))
        known_on = None if gone is None else str(made + timedelta(days=gone))
        rows.append((str(made), str(made + timedelta(days=lead)), draw(st.integers(0, 9)), known_on))
    return stays(rows)


EVERY_RULE = st.builds(
    LabelRule, settle_days=st.integers(0, 5), matures=st.sampled_from(Matures), half_life_days=st.just(90.0)
)


def test_by_check_out_an_outcome_is_waited_for_until_the_stay_is_over() -> None:
    history = stays([("2016-01-01", "2016-01-10", 4, None)])
    assert maturity(history, LabelRule(matures=Matures.CHECK_OUT)).tolist() == [pd.Timestamp("2016-01-15")]
    assert matured(history, LabelRule(matures=Matures.CHECK_OUT), date(2016, 1, 14)).empty


@given(histories(), DAYS, EVERY_RULE)
def test_no_booking_enters_as_a_whole_before_its_maturity(history: pd.DataFrame, as_of: date, rule: LabelRule) -> None:
    made = whole(history, rule, as_of)
    ripe = (maturity(history, rule) <= pd.Timestamp(as_of)).to_numpy()
    assert made.row.tolist() == np.flatnonzero(ripe).tolist()
    cohort = matured(history, rule, as_of)
    labels = dict(zip(cohort["reservation_id"], cohort["label"], strict=True))
    assert made.label.tolist() == [labels[i] for i in history["reservation_id"].iloc[made.row]]


def entered(made: Examples) -> dict[tuple[int, int], float]:
    """Label of each booking and step."""
    assert made.step is not None
    return {(int(r), int(s)): float(y) for r, s, y in zip(made.row, made.step, made.label, strict=True)}


@given(histories(), DAYS, EVERY_RULE)
def test_whether_a_step_is_over_depends_on_nothing_that_happened_in_it(
    history: pd.DataFrame, as_of: date, rule: LabelRule
) -> None:
    """Bookings that cancel enter the steps that they would have entered, up to the one in which they do."""
    standing = entered(steps(history.assign(status=np.nan, known_on=pd.NaT), rule, as_of))
    made = entered(steps(history, rule, as_of))
    assert not any(standing.values())
    assert set(made) <= set(standing)
    for row, step in set(standing) - set(made):
        assert history["known_on"].iloc[row] <= pd.Timestamp(as_of)
        assert all(earlier < step for (r, earlier) in made if r == row)
    for row, step in made:
        assert all(made[row, earlier] == 0 for earlier in range(step))


@given(histories(), DAYS, EVERY_RULE)
def test_over_a_whole_lead_time_steps_and_whole_bookings_tell_the_same(
    history: pd.DataFrame, as_of: date, rule: LabelRule
) -> None:
    one, many = whole(history, rule, as_of), steps(history, rule, as_of)
    told = pd.Series(many.label).groupby(many.row).max()
    assert told.reindex(one.row).tolist() == one.label.tolist()


@given(histories(), DAYS, EVERY_RULE, st.integers(1, 60))
def test_what_is_recorded_after_the_day_changes_no_example(
    history: pd.DataFrame, as_of: date, rule: LabelRule, days: int
) -> None:
    later = history["known_on"] > pd.Timestamp(as_of)
    moved = history.assign(known_on=history["known_on"].mask(later, history["known_on"] + pd.Timedelta(days=days)))
    forgotten = history.assign(status=history["status"].mask(later), known_on=history["known_on"].mask(later))
    for other in (moved, forgotten):
        for ours, theirs in zip(
            examples(history, Labels.MIX, rule, as_of), examples(other, Labels.MIX, rule, as_of), strict=True
        ):
            np.testing.assert_array_equal(ours.row, theirs.row)
            np.testing.assert_array_equal(ours.label, theirs.label)


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        ("2016-01-01", []),
        ("2016-01-03", [(0, 0.0)]),
        ("2016-01-16", [(0, 0.0), (1, 0.0)]),
        ("2016-02-09", [(0, 0.0), (1, 0.0)]),
        ("2016-02-10", [(0, 0.0), (1, 0.0), (2, 1.0)]),
        ("2016-06-30", [(0, 0.0), (1, 0.0), (2, 1.0)]),
    ],
)
def test_a_booking_of_a_hundred_days_that_cancels_on_the_thirtieth(
    as_of: str, expected: list[tuple[int, float]]
) -> None:
    history = stays([("2016-01-01", "2016-04-10", 2, "2016-01-31")])
    made = entered(steps(history, LabelRule(), date.fromisoformat(as_of)))
    assert [(step, label) for (_, step), label in made.items()] == expected


@given(histories(), DAYS, EVERY_RULE, st.sampled_from(Labels))
def test_what_a_version_may_be_tested_on_it_has_not_learnt_from(
    history: pd.DataFrame, as_of: date, rule: LabelRule, labels: Labels
) -> None:
    used = np.concatenate([made.row for made in examples(history, labels, rule, as_of)])
    assert not unseen(history, rule, labels, as_of)[used].any()


def test_the_expected_label_is_right_on_average_as_time_passes() -> None:
    draw = np.random.default_rng(4)
    p = draw.uniform(0.05, 0.9, 200_000)
    cancels, when = draw.random(len(p)) < p, draw.random(len(p))
    for happened in (0.0, 0.3, 0.8, 1.0):
        left = residual(p, np.full(len(p), happened), cancels & (when < happened))
        assert abs(left.mean()) < 4 * left.std() / np.sqrt(len(p)) + 1e-12
    assert expected_label(np.array([0.4]), np.array([1.0]), np.array([False])).tolist() == [0.0]


def test_bookings_that_a_version_found_when_it_was_trained_are_of_no_age() -> None:
    made = pd.DataFrame({"booked_on": pd.to_datetime(["2016-05-01", "2016-05-02", "2016-05-03", "2016-05-10"])})
    ages = made_days_ago(made, date(2016, 5, 10), trained_as_of=date(2016, 5, 2))
    assert ages.tolist() == [math.inf, math.inf, 7.0, 0.0]
