"""A booking's features hold nothing that became known on its day or later."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancellations.domain.features import (
    CATEGORICAL,
    CORE,
    FEATURES,
    NUMERIC,
    PRICE_SHRINKAGE,
    SHRINKAGE,
    FeatureSet,
    Past,
    build,
    past_of,
)
from cancellations.domain.labels import LabelRule
from cancellations.domain.reservation import COLUMNS, GROUP_SIZE, Column, coerce, sized
from cancellations.sources.simulator import simulate

RULE = LabelRule()
START, DAYS = date(2016, 6, 1), 60
HISTORY = sized(simulate(START, DAYS, seed=3))
PAST = past_of(HISTORY)
BUILT = build(HISTORY, PAST, RULE)


@settings(max_examples=12)
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

    pd.testing.assert_frame_equal(build(booked, past_of(other), RULE), build(booked, PAST, RULE))


@settings(max_examples=12)
@given(days=st.integers(0, 60), ended=st.sampled_from(["canceled", "no_show", "stayed"]))
def test_outcomes_that_shift_to_any_later_day_leave_a_bookings_features_as_they_were(days: int, ended: str) -> None:
    last = pd.Timestamp(START) + pd.Timedelta(days=DAYS - 1)
    for day in (last, last - pd.Timedelta(days=20)):
        booked = HISTORY[HISTORY["booked_on"] == day]
        later = HISTORY["known_on"] >= day
        shifted = HISTORY.assign(
            status=HISTORY["status"].where(~later, ended),
            known_on=HISTORY["known_on"].where(~later, HISTORY["known_on"] + pd.Timedelta(days=days)),
        )
        pd.testing.assert_frame_equal(build(booked, past_of(shifted), RULE), build(booked, PAST, RULE))


def test_what_a_reservation_brings_of_its_own_end_is_not_looked_at() -> None:
    blind = HISTORY.drop(columns=["status", "known_on"])
    pd.testing.assert_frame_equal(build(blind, PAST, RULE), BUILT)


def test_what_became_known_before_the_day_does_change_something() -> None:
    booked = HISTORY[HISTORY["booked_on"] == HISTORY["booked_on"].max()]
    turned = past_of(HISTORY.assign(status="stayed"))
    assert (build(booked, turned, RULE)["agent_cancel_rate"] != build(booked, PAST, RULE)["agent_cancel_rate"]).any()


@settings(max_examples=12)
@given(rows=st.lists(st.integers(0, len(HISTORY) - 1), min_size=1, max_size=30, unique=True))
def test_few_rows_get_the_features_that_they_have_among_many(rows: list[int]) -> None:
    pd.testing.assert_frame_equal(build(HISTORY.iloc[rows], PAST, RULE), BUILT.iloc[rows])


def test_scoring_day_and_training_day_see_the_same_features() -> None:
    day = pd.Timestamp("2016-07-10")
    booked = HISTORY[HISTORY["booked_on"] == day]
    then = HISTORY[HISTORY["booked_on"] <= day].copy()
    then.loc[then["known_on"] > day, ["status", "known_on"]] = np.nan
    pd.testing.assert_frame_equal(build(booked, past_of(then), RULE), build(booked, PAST, RULE))


def test_the_size_of_a_group_is_the_one_that_was_fixed_whoever_is_scored_with_it() -> None:
    alone = HISTORY.iloc[[0]].assign(**{GROUP_SIZE: 17.0})
    assert build(alone, PAST, RULE)[GROUP_SIZE].tolist() == [17.0]


def test_the_past_in_parts_adds_up_to_all_of_it() -> None:
    parts = [past_of(HISTORY.iloc[::2]), past_of(HISTORY.iloc[1::2])]
    counted = Past(pd.concat([p.tallied for p in parts]), pd.concat([p.booked for p in parts]))
    keys = ["kind", "key", "arrival_on", "lag"]
    pd.testing.assert_frame_equal(
        counted.tallied.groupby(keys)["bookings"].sum().to_frame(),
        PAST.tallied.groupby(keys)["bookings"].sum().to_frame(),
    )
    pd.testing.assert_frame_equal(build(HISTORY, counted, RULE), BUILT)


def test_on_the_books_is_what_stood_for_that_hotel_and_day_on_the_evening_before() -> None:
    rows = HISTORY.iloc[::50]
    found = build(rows, PAST, RULE)["on_the_books"]
    for index, row in rows.iterrows():
        made = (HISTORY["hotel"] == row["hotel"]) & (HISTORY["arrival_on"] == row["arrival_on"])
        made &= HISTORY["booked_on"] < row["booked_on"]
        gone = HISTORY["status"].isin(["canceled", "no_show"]) & (HISTORY["known_on"] < row["booked_on"])
        assert found[index] == (made & ~gone).sum()
    assert found.nunique() > 5


def test_a_price_is_told_beside_what_the_room_cost_so_far_in_that_month() -> None:
    rows = HISTORY[HISTORY["booked_on"] > pd.Timestamp(START)].iloc[::100]
    found = build(rows, PAST, RULE)["relative_price"]
    for index, row in rows.iterrows():
        earlier = HISTORY[(HISTORY["hotel"] == row["hotel"]) & (HISTORY["booked_on"] < row["booked_on"])]
        earlier = earlier[earlier["arrival_on"].dt.to_period("M") == row["arrival_on"].to_period("M")]
        own = earlier[earlier["room_type"] == row["room_type"]]["price"]
        usual = (own.sum() + PRICE_SHRINKAGE * earlier["price"].mean()) / (len(own) + PRICE_SHRINKAGE)
        # Sums are of whole cents, and a price may have a binary fraction of one.
        assert found[index] == pytest.approx(np.log(row["price"] / usual), abs=2e-4, nan_ok=True)
    assert found.notna().mean() > 0.8


def test_a_price_that_is_missing_or_nothing_has_no_relation_to_others() -> None:
    rows = HISTORY.iloc[-3:].assign(price=[np.nan, 0.0, 80.0])
    assert build(rows, PAST, RULE)["relative_price"].isna().tolist() == [True, True, False]


def test_columns_types_and_index() -> None:
    some = HISTORY.iloc[[5, 3]]
    out = build(some, PAST, RULE)
    assert tuple(out.columns) == FEATURES
    assert list(out.index) == [5, 3]
    assert {str(out[c].dtype) for c in NUMERIC} == {"float64"}
    assert all(isinstance(v, str) for c in CATEGORICAL for v in out[c])


def bookings(*rows: tuple[str, str, str | None, str | None, str | None]) -> pd.DataFrame:
    """(booked, arrival, agent, status, known): everything else alike."""
    base = pd.DataFrame(rows, columns=["booked_on", "arrival_on", "agent", "status", "known_on"])
    base["reservation_id"] = [f"B{i}" for i in range(len(base))]
    return sized(coerce(base)).assign(
        status=base["status"].astype("str"), known_on=pd.to_datetime(base["known_on"]).astype("datetime64[us]")
    )


def test_an_agents_rate_is_shrunk_towards_everybodys() -> None:
    history = bookings(
        ("2016-01-01", "2016-01-10", "9", "canceled", "2016-01-05"),
        ("2016-01-01", "2016-01-10", "9", "canceled", "2016-01-05"),
        ("2016-01-01", "2016-01-10", "7", "stayed", "2016-01-12"),
        ("2016-01-01", "2016-01-10", "7", "stayed", "2016-01-12"),
    )
    out = build(bookings(("2016-02-01", "2016-03-01", "9", None, None)), past_of(history), RULE).iloc[0]
    assert out["agent_cancel_rate"] == pytest.approx((2 + SHRINKAGE * 0.5) / (2 + SHRINKAGE))
    assert out["agent_bookings"] == pytest.approx(np.log1p(2))


def test_a_booking_without_an_agent_has_no_agents_record() -> None:
    out = build(bookings(("2016-02-01", "2016-03-01", None, None, None)), PAST, RULE).iloc[0]
    assert np.isnan(out["agent_cancel_rate"])
    assert out["agent_bookings"] == 0.0


def test_outcomes_of_the_same_day_are_too_late() -> None:
    history = bookings(("2016-01-01", "2016-01-10", "9", "canceled", "2016-01-05"))
    matures = ("2016-01-11", "2016-03-01", "9", None, None)
    next_day = ("2016-01-12", "2016-03-01", "9", None, None)
    out = build(bookings(matures, next_day), past_of(history), RULE)
    assert out["agent_bookings"].tolist() == pytest.approx([0.0, np.log(2)])


def test_the_first_bookings_ever_have_features_too() -> None:
    first = bookings(("2016-01-01", "2016-01-10", "9", None, None))
    out = build(first, past_of(first), RULE)
    assert out["agent_cancel_rate"].tolist() == [0.0]
    assert out["lead_days"].tolist() == [9.0]
    pd.testing.assert_frame_equal(build(first, past_of(first.iloc[:0]), RULE), out)


# --- columns that a mapping declares --------------------------------------------------------------

EXTRAS = (Column("deposit_paid", "number"), Column("country", "category"), Column("rooms", "count"))


def test_declared_columns_stand_behind_the_core_ones_of_their_kind() -> None:
    declared = CORE.extended(EXTRAS)
    assert declared == FeatureSet((*NUMERIC, "deposit_paid", "rooms"), (*CATEGORICAL, "country"))
    assert declared.names == (*NUMERIC, "deposit_paid", "rooms", *CATEGORICAL, "country")


def test_declared_columns_come_as_the_reservation_has_them_and_change_no_other() -> None:
    rows = HISTORY.iloc[:4].assign(deposit_paid=[10.5, np.nan, 0.0, 3.0], country=["PRT", None, "7", "ESP"], rooms=1)
    out = build(rows, PAST, RULE, EXTRAS)
    assert tuple(out.columns) == CORE.extended(EXTRAS).names
    assert FeatureSet.of(out) == CORE.extended(EXTRAS)
    assert out["deposit_paid"].dropna().tolist() == [10.5, 0.0, 3.0]
    assert out["country"].dropna().tolist() == ["PRT", "7", "ESP"]
    pd.testing.assert_frame_equal(out[list(FEATURES)], build(rows, PAST, RULE))


def test_a_declared_column_that_is_missing_everywhere_keeps_its_kind() -> None:
    rows = coerce(HISTORY.iloc[:4], (*COLUMNS, *EXTRAS)).assign(**{GROUP_SIZE: 1.0})
    out = build(rows, PAST, RULE, EXTRAS)
    assert out[[c.name for c in EXTRAS]].isna().all(axis=None)
    assert FeatureSet.of(out) == CORE.extended(EXTRAS)
