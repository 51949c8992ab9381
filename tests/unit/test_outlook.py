"""The coming nights: sums that are what counting by hand gives, within intervals that know of groups."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.outlook import (
    DISPERSION,
    DISPERSION_FORTNIGHT,
    DISPERSION_NEAR,
    DISPERSION_WEEK,
    FIGURES,
    NEAR_NIGHTS,
    Outlook,
    by_night,
    over,
    stay,
)
from cancellations.domain.timing import PSEUDO_COUNTS, Curve, Timing
from cancellations.settings import Settings

TODAY = date(2016, 6, 1)
SHARE = 0.8
Z = NormalDist().inv_cdf(0.9)
FAR = 20


def booked(
    probability: float = 0.2,
    ahead: int = 0,
    nights: int = 1,
    price: float | None = 100.0,
    hotel: str = "H",
    group: int = 0,
    name: str = "",
    held: bool = False,
) -> dict[str, object]:
    return {
        "reservation_id": name or f"{hotel}-{group}-{ahead}-{probability}",
        "hotel": hotel,
        "arrival_on": pd.Timestamp(TODAY + timedelta(days=ahead)),
        "nights": nights,
        "remaining": probability,
        "price": np.nan if price is None else price,
        "group": group,
        "value": np.nan if price is None else price * nights,
        "value_at_risk": np.nan if price is None else probability * price * nights,
        "hold_out": held,
    }


def frame(*rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(list(rows) or [booked()]).iloc[: len(rows)]


bookings = st.lists(
    st.builds(
        booked,
        probability=st.floats(0, 1),
        ahead=st.integers(0, 12),
        nights=st.integers(0, 9),
        price=st.none() | st.floats(0, 500),
        hotel=st.sampled_from(["A", "B"]),
        group=st.integers(0, 4),
    ),
    min_size=1,
    max_size=12,
).map(lambda rows: frame(*rows))


@given(bookings)
def test_the_nights_are_what_counting_by_hand_gives(found: pd.DataFrame) -> None:
    told = by_night(found, TODAY, 10, SHARE).set_index(["hotel", "night"])
    assert len(told) == 10 * found["hotel"].nunique() and told.index.is_unique
    for (hotel, night), row in told.iterrows():
        ahead = (night - pd.Timestamp(TODAY)).days
        books, expected, revenue, risk = 0, 0.0, 0.0, 0.0
        spread: dict[int, float] = {}
        for b in found.itertuples():
            first = (b.arrival_on - pd.Timestamp(TODAY)).days
            if b.hotel == hotel and first <= ahead < first + b.nights:
                books += 1
                expected += b.remaining
                spread[b.group] = spread.get(b.group, 0.0) + (b.remaining * (1 - b.remaining)) ** 0.5
                if b.price == b.price:
                    revenue += b.price
                    risk += b.remaining * b.price
        half = Z * ((DISPERSION_NEAR if ahead < 7 else DISPERSION) * sum(s**2 for s in spread.values())) ** 0.5
        assert row["on_books"] == books
        assert row["expected"] == pytest.approx(expected)
        assert row["expected_low"] == pytest.approx(max(0, expected - half))
        assert row["expected_high"] == pytest.approx(min(books, expected + half))
        if row["unpriced"] < books or books == 0:
            assert row["revenue_on_books"] == pytest.approx(revenue) and row["at_risk"] == pytest.approx(risk)


@given(bookings)
def test_intervals_hold_what_is_expected_and_stay_on_the_books(found: pd.DataFrame) -> None:
    for told in (by_night(found, TODAY, 25, SHARE), over(found, TODAY, 14, SHARE)):
        priced = told[told["at_risk"].notna()]
        for rows, low, value, high, most in (
            (told, "expected_low", "expected", "expected_high", "on_books"),
            (priced, "at_risk_low", "at_risk", "at_risk_high", "revenue_on_books"),
        ):
            order = [np.zeros(len(rows)), *(rows[n].to_numpy(dtype=float) for n in (low, value, high, most))]
            assert all((a <= b + 1e-6).all() for a, b in pairwise(order))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_stays_of_one_night_sum_up_to_their_probabilities(found: list[float]) -> None:
    made = frame(*(booked(p, ahead=n % 9, group=n) for n, p in enumerate(found)))
    told = by_night(made, TODAY, 10, SHARE)
    assert told["expected"].sum() == pytest.approx(sum(found)) and told["on_books"].sum() == len(found)
    assert over(made, TODAY, 14, SHARE)["expected"].sum() == pytest.approx(sum(found))


def test_a_group_that_comes_or_cancels_as_one_is_less_sure_than_as_many_guests() -> None:
    alone = by_night(frame(*(booked(0.5, FAR, group=n) for n in range(16))), TODAY, 30, SHARE).iloc[FAR]
    together = by_night(frame(*(booked(0.5, FAR) for _ in range(16))), TODAY, 30, SHARE).iloc[FAR]
    assert alone["expected"] == together["expected"] == 8
    assert alone["expected_high"] - 8 == pytest.approx(Z * (DISPERSION * 16 * 0.25) ** 0.5)
    assert (together["expected_low"], together["expected_high"]) == (0, 16)


def test_over_several_nights_a_stay_cancels_with_all_of_them() -> None:
    told = over(frame(booked(0.5, 5, nights=4)), TODAY, 7, SHARE).iloc[0]
    assert (told["on_books"], told["expected"], told["revenue_on_books"]) == (2, 1.0, 200.0)
    assert told["expected_high"] == pytest.approx(min(2, 1 + Z * DISPERSION_WEEK**0.5 * 2 * 0.5))


def test_bookings_without_a_price_count_as_rooms_and_are_told_apart() -> None:
    told = by_night(frame(booked(0.5, price=None), booked(0.5, group=1)), TODAY, 2, SHARE).iloc[0]
    assert (told["on_books"], told["unpriced"], told["revenue_on_books"], told["at_risk"]) == (2, 1, 100.0, 50.0)
    told = by_night(frame(booked(0.5, price=None)), TODAY, 2, SHARE)
    assert told.iloc[0][["revenue_on_books", "at_risk", "at_risk_low", "at_risk_high"]].isna().all()
    assert told.iloc[1]["at_risk"] == 0  # nothing on the books is nothing at risk


def test_a_guest_who_stays_no_night_and_one_who_comes_later_cover_none() -> None:
    told = by_night(frame(booked(ahead=0, nights=0), booked(ahead=10), booked(ahead=3, nights=200)), TODAY, 10, SHARE)
    assert told["on_books"].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


def test_without_a_booking_the_tables_are_empty_and_whole() -> None:
    nothing = frame()
    assert list(by_night(nothing, TODAY, 10, SHARE).columns) == ["hotel", "night", *FIGURES]
    assert by_night(nothing, TODAY, 10, SHARE).empty and over(nothing, TODAY, 7, SHARE).empty
    empty = Outlook(TODAY, 10, SHARE, "", nothing, by_night(nothing, TODAY, 10, SHARE), 0, 0, 0)
    assert empty.total(7)["on_books"] == 0 and empty.riskiest(5).empty


def test_the_riskiest_are_those_with_the_most_value_at_risk() -> None:
    found = frame(
        booked(0.9, price=10.0, name="cheap"),
        booked(0.5, nights=5, name="long"),
        booked(0.2, price=900.0, name="dear"),
        booked(0.99, price=None, name="unpriced"),
        booked(0.0, price=900.0, name="safe"),
        booked(0.9, price=9_000.0, name="held out", held=True),
    )
    seen = Outlook(TODAY, 10, SHARE, "1", found, by_night(found, TODAY, 10, SHARE), 0, 0, 0)
    assert seen.riskiest(2)["reservation_id"].tolist() == ["long", "dear"]
    assert seen.riskiest(9)["reservation_id"].tolist() == ["long", "dear", "cheap"]


def test_hotels_together_count_what_each_counts() -> None:
    found = frame(booked(0.5, hotel="A"), booked(0.25, hotel="B", group=1))
    seen = Outlook(TODAY, 10, SHARE, "1", found, by_night(found, TODAY, 10, SHARE), 0, 0, 0)
    assert seen.total(7)["expected"] == seen.span(7)["expected"].sum() == 0.75


def test_a_stay_is_told_with_what_still_remains_and_with_whom_it_was_booked() -> None:
    served = pd.DataFrame(
        {
            "reservation_id": ["a", "b", "c"],
            "hotel": "H",
            "booked_on": pd.Timestamp(TODAY - timedelta(days=11)),
            "arrival_on": pd.Timestamp(TODAY + timedelta(days=9)),
            "agent": ["9", "9", None],
            "company": None,
            "market_segment": "Groups",
            "weekend_nights": 1.0,
            "week_nights": 2.0,
            "deposit_type": "No Deposit",
            "price": [100.0, np.nan, 50.0],
            "probability": 0.4,
        }
    )
    timing = Timing(Curve(np.array([0.25, 0.25, 0.5, 0.9])), {})
    found = stay(served, timing, TODAY)
    # Ten of twenty days had gone by the evening before: three of four cancellations.
    assert found["remaining"].tolist() == pytest.approx([10 / 70] * 3)
    assert found["nights"].tolist() == [3, 3, 3] and found["group_size"].tolist() == [2, 2, 1]
    assert found["value_at_risk"].iloc[0] == pytest.approx(300 * 10 / 70) and np.isnan(found["value"].iloc[1])


def test_the_page_tells_the_factors_as_they_are() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "outlook.md").read_text(encoding="utf-8").split())
    assert f"by {DISPERSION_NEAR} for the next {NEAR_NIGHTS} nights and {DISPERSION} for later ones" in page
    assert f"over a week by {DISPERSION_WEEK}, over a fortnight by {DISPERSION_FORTNIGHT}" in page
    assert f"with {PSEUDO_COUNTS} pseudo-counts" in page
    assert f"next {Settings.model_fields['outlook'].default.nights} nights" in page
