"""Features of single bookings by look-up are those that are built of frames, to the last bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancellations.domain.features import AGENT, ALL, COMPANY, CORE, Past, build, past_of
from cancellations.domain.labels import LabelRule, Matures, matures_on, maturity
from cancellations.domain.lookup import Lookup, month_of
from cancellations.domain.reservation import COLUMNS, GROUP_SIZE, Column, sized
from cancellations.sources.simulator import simulate

RULE = LabelRule()
START, DAYS = date(2016, 6, 1), 60
HISTORY = sized(simulate(START, DAYS, seed=3))
PAST = past_of(HISTORY)
NAMES = (*(c.name for c in COLUMNS), GROUP_SIZE)


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a frame as plain values."""
    booking: dict[str, Any] = {}
    for name in NAMES:
        value = row[name]
        kind = next((c.kind for c in COLUMNS if c.name == name), "count")
        if kind == "date":
            booking[name] = value.date()
        elif kind in ("count", "number"):
            booking[name] = float(value)
        else:
            booking[name] = None if pd.isna(value) else value
    return booking


def filled(since: date, bookings: list[dict[str, Any]], past: Past = PAST, rule: LabelRule = RULE) -> Lookup:
    """A look-up that holds what these bookings need, as the store gives it."""
    lookup = Lookup(rule, since)
    lacking = lookup.lacking(bookings)
    agents, companies = lacking.agents, lacking.companies
    tallied = past.tallied
    wanted = (
        (tallied["kind"] == ALL)
        | (tallied["kind"].eq(AGENT) & tallied["key"].isin(agents))
        | (tallied["kind"].eq(COMPANY) & tallied["key"].isin(companies))
    )
    lookup.remember_records(tallied[wanted], lacking)
    for month in lacking.months:
        arrivals = past.booked["arrival_on"]
        lookup.remember_books(month, past.booked[[month_of(day.date()) == month for day in arrivals]])
    assert lookup.lacking(bookings).size == 0
    return lookup


def assert_same(found: Mapping[str, Any], wanted: pd.Series) -> None:
    assert set(found) == set(wanted.index)
    for name, value in found.items():
        if name in CORE.categorical:
            assert value == (None if pd.isna(wanted[name]) else wanted[name])
        else:
            assert value == wanted[name] or (math.isnan(value) and math.isnan(wanted[name])), name


@settings(max_examples=15)
@given(
    rows=st.lists(st.integers(0, len(HISTORY) - 1), min_size=10, max_size=20, unique=True),
    settle=st.integers(0, 3),
    matures=st.sampled_from(list(Matures)),
    draw=st.integers(0, 1000),
)
def test_a_booking_looked_up_has_the_features_that_a_frame_has(
    rows: list[int], settle: int, matures: Matures, draw: int
) -> None:
    rule = LabelRule(settle_days=settle, matures=matures)
    asked = HISTORY.iloc[rows].reset_index(drop=True)
    # Whatever may be missing is, in some of them; and some agents were never seen.
    gone = np.random.default_rng(draw).random(asked.shape) < 0.15
    for place, column in enumerate(COLUMNS):
        if not column.required:
            asked[column.name] = asked[column.name].mask(gone[:, place])
    asked.loc[asked.index % 5 == 4, AGENT] = "nobody"
    bookings = [plain(row) for row in asked.to_dict("records")]
    built = build(asked, PAST, rule)
    lookup = filled(min(b["booked_on"] for b in bookings), bookings, rule=rule)
    for booking, (_, wanted) in zip(bookings, built.iterrows(), strict=True):
        assert_same(lookup.features(booking), wanted)


def test_moves_older_than_all_bookings_may_stand_on_a_common_day() -> None:
    since = START + timedelta(days=40)
    asked = HISTORY[HISTORY["booked_on"] >= pd.Timestamp(since)].head(50).reset_index(drop=True)
    oldest = pd.Timestamp(since - timedelta(days=1))
    booked = PAST.booked.assign(moved_on=PAST.booked["moved_on"].clip(lower=oldest))
    bookings = [plain(row) for row in asked.to_dict("records")]
    lookup = filled(since, bookings, Past(PAST.tallied, booked))
    for booking, (_, wanted) in zip(bookings, build(asked, PAST, RULE).iterrows(), strict=True):
        assert_same(lookup.features(booking), wanted)


@pytest.mark.parametrize("price", [0.001, 0.004])
def test_prices_below_a_cent_are_told_as_a_frame_tells_them(price: float) -> None:
    cheap = HISTORY.assign(price=price)
    past = past_of(cheap)
    asked = cheap[cheap["booked_on"] == cheap["booked_on"].max()].reset_index(drop=True)
    bookings = [plain(row) for row in asked.to_dict("records")]
    lookup = filled(START, bookings, past)
    for booking, (_, wanted) in zip(bookings, build(asked, past, RULE).iterrows(), strict=True):
        assert_same(lookup.features(booking), wanted)


def test_declared_columns_are_features_too() -> None:
    extras = (Column("channel_fee", "number"), Column("board", "category"))
    asked = HISTORY.tail(1).assign(channel_fee=2.5, board="half").reset_index(drop=True)
    booking = plain(asked.iloc[0]) | {"channel_fee": 2.5, "board": "half"}
    lookup = filled(START, [booking])
    [wanted] = [row for _, row in build(asked, PAST, RULE, extras).iterrows()]
    told = lookup.features(booking, extras)
    assert (told["channel_fee"], told["board"]) == (wanted["channel_fee"], wanted["board"]) == (2.5, "half")
    bare = lookup.features(plain(asked.iloc[0]), extras)
    assert bare["board"] is None and math.isnan(bare["channel_fee"])


@pytest.mark.parametrize("matures", list(Matures))
def test_one_booking_matures_on_the_day_that_a_frame_says(matures: Matures) -> None:
    rule = LabelRule(settle_days=2, matures=matures)
    some = HISTORY.head(30)
    wanted = [day.date() for day in maturity(some, rule)]
    assert [matures_on(plain(row), rule) for row in some.to_dict("records")] == wanted
