"""A booking's features hold nothing that became known on its day or later."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancellations.domain.features import CATEGORICAL, FEATURES, NUMERIC, SHRINKAGE, build
from cancellations.domain.labels import LabelRule
from cancellations.domain.reservation import coerce
from cancellations.sources.simulator import simulate

RULE = LabelRule()
START, DAYS = date(2016, 6, 1), 60
HISTORY = simulate(START, DAYS, seed=3)


@settings(max_examples=25, deadline=None)
@given(offset=st.integers(1, DAYS - 1), seed=st.integers(0, 1000))
def test_what_becomes_known_on_the_day_or_later_changes_nothing(offset: int, seed: int) -> None:
    day = pd.Timestamp(START) + pd.Timedelta(days=offset)
    booked = HISTORY[HISTORY["booked_on"] == day]
    draw = np.random.default_rng(seed)
    other = HISTORY.copy()

    later = (other["known_on"] >= day).to_numpy()
    other.loc[later, "status"] = draw.choice(["canceled", "no_show", "stayed"], later.sum())
    other.loc[later, "known_on"] += pd.to_timedelta(draw.integers(0, 40, later.sum()), unit="D")
    other.loc[later & (draw.random(len(other)) < 0.3), ["status", "known_on"]] = np.nan
    new = (other["booked_on"] >= day).to_numpy()
    other.loc[new, ["agent", "company"]] = draw.choice(["CON1", "somebody"], (new.sum(), 2))
    other = other[~(new & (draw.random(len(other)) < 0.3))]

    pd.testing.assert_frame_equal(build(booked, other, RULE), build(booked, HISTORY, RULE))


def test_what_became_known_before_the_day_does_change_something() -> None:
    booked = HISTORY[HISTORY["booked_on"] == HISTORY["booked_on"].max()]
    turned = HISTORY.assign(status="stayed")
    assert (build(booked, turned, RULE)["agent_cancel_rate"] != build(booked, HISTORY, RULE)["agent_cancel_rate"]).any()


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, len(HISTORY) - 1), min_size=1, max_size=30, unique=True))
def test_few_rows_get_the_features_that_they_have_among_many(rows: list[int]) -> None:
    many = build(HISTORY, HISTORY, RULE)
    pd.testing.assert_frame_equal(build(HISTORY.iloc[rows], HISTORY, RULE), many.iloc[rows])


def test_scoring_day_and_training_day_see_the_same_features() -> None:
    day = pd.Timestamp("2016-07-10")
    booked = HISTORY[HISTORY["booked_on"] == day]
    then = HISTORY[HISTORY["booked_on"] <= day].copy()
    then.loc[then["known_on"] > day, ["status", "known_on"]] = np.nan
    pd.testing.assert_frame_equal(build(booked, then, RULE), build(booked, HISTORY, RULE))


def test_columns_types_and_index() -> None:
    some = HISTORY.iloc[[5, 3]]
    out = build(some, HISTORY, RULE)
    assert tuple(out.columns) == FEATURES
    assert list(out.index) == [5, 3]
    assert {str(out[c].dtype) for c in NUMERIC} == {"float64"}
    assert all(isinstance(v, str) for c in CATEGORICAL for v in out[c])


def bookings(*rows: tuple[str, str, str | None, str | None, str | None]) -> pd.DataFrame:
    """(booked, arrival, agent, status, known): everything else alike."""
    base = pd.DataFrame(rows, columns=["booked_on", "arrival_on", "agent", "status", "known_on"])
    base["reservation_id"] = [f"B{i}" for i in range(len(base))]
    return coerce(base).assign(
        status=base["status"].astype("str"), known_on=pd.to_datetime(base["known_on"]).astype("datetime64[us]")
    )


def test_an_agents_rate_is_shrunk_towards_everybodys() -> None:
    history = bookings(
        ("2016-01-01", "2016-01-10", "9", "canceled", "2016-01-05"),
        ("2016-01-01", "2016-01-10", "9", "canceled", "2016-01-05"),
        ("2016-01-01", "2016-01-10", "7", "stayed", "2016-01-12"),
        ("2016-01-01", "2016-01-10", "7", "stayed", "2016-01-12"),
    )
    out = build(bookings(("2016-02-01", "2016-03-01", "9", None, None)), history, RULE).iloc[0]
    assert out["agent_cancel_rate"] == pytest.approx((2 + SHRINKAGE * 0.5) / (2 + SHRINKAGE))
    assert out["agent_bookings"] == pytest.approx(np.log1p(2))


def test_a_booking_without_an_agent_has_no_agents_record() -> None:
    out = build(bookings(("2016-02-01", "2016-03-01", None, None, None)), HISTORY, RULE).iloc[0]
    assert np.isnan(out["agent_cancel_rate"])
    assert out["agent_bookings"] == 0.0


def test_outcomes_of_the_same_day_are_too_late() -> None:
    history = bookings(("2016-01-01", "2016-01-10", "9", "canceled", "2016-01-05"))
    matures = ("2016-01-11", "2016-03-01", "9", None, None)
    next_day = ("2016-01-12", "2016-03-01", "9", None, None)
    out = build(bookings(matures, next_day), history, RULE)
    assert out["agent_bookings"].tolist() == pytest.approx([0.0, np.log(2)])


def test_the_first_bookings_ever_have_features_too() -> None:
    first = bookings(("2016-01-01", "2016-01-10", "9", None, None))
    out = build(first, first, RULE)
    assert out["agent_cancel_rate"].tolist() == [0.0]
    assert out["lead_days"].tolist() == [9.0]
    pd.testing.assert_frame_equal(build(first, first.iloc[:0], RULE), out)
