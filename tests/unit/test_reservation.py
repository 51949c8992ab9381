"""A frame becomes canonical, or each broken rule is named with its row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cancellations.domain.reservation import DATES, NAMES, NUMBERS, coerce, violations


def good(**changes: Any) -> dict[str, Any]:
    row = {
        "reservation_id": "B1",
        "hotel": "City Hotel",
        "booked_on": "2016-01-05",
        "arrival_on": "2016-02-05",
        "weekend_nights": 1,
        "week_nights": 2,
        "adults": 2,
        "price": 80.5,
    }
    return row | changes


def problems(*rows: dict[str, Any]) -> list[tuple[Any, str, str]]:
    found = violations(coerce(pd.DataFrame(rows, index=range(1, len(rows) + 1))))
    return list(zip(found["row"], found["column"], found["rule"], strict=True))


def test_a_frame_gets_exactly_the_canonical_columns_and_types() -> None:
    frame = coerce(pd.DataFrame([good(unknown="x")], index=[7]))
    assert tuple(frame.columns) == NAMES
    assert list(frame.index) == [7]
    assert {str(frame[c].dtype) for c in NUMBERS} == {"float64"}
    assert {str(frame[c].dtype) for c in DATES} == {"datetime64[us]"}
    assert frame["agent"].isna().all()


def test_coercing_twice_changes_nothing() -> None:
    once = coerce(pd.DataFrame([good(agent=9.0, company=None), good(agent=None, children="2")]))
    pd.testing.assert_frame_equal(coerce(once), once)


@pytest.mark.parametrize(
    ("given", "expected"), [(9.0, "9"), (9, "9"), (" 9 ", "9"), ("", np.nan), ("  ", np.nan), (None, np.nan)]
)
def test_ids_have_one_spelling(given: object, expected: object) -> None:
    agent = coerce(pd.DataFrame([good(agent=given)]))["agent"].iloc[0]
    assert (pd.isna(agent) and pd.isna(expected)) or agent == expected


def test_what_cannot_be_read_becomes_missing() -> None:
    frame = coerce(pd.DataFrame([good(price="cheap", booked_on="soon", children=np.inf)]))
    assert frame[["price", "booked_on", "children"]].isna().all(axis=None)


def test_times_of_day_and_zones_are_cut_to_the_utc_day() -> None:
    frame = coerce(pd.DataFrame([good(booked_on="2016-01-05T23:30:00-02:00")]))
    assert frame["booked_on"].iloc[0] == pd.Timestamp("2016-01-06")


def test_a_good_row_breaks_no_rule() -> None:
    assert problems(good()) == []


@pytest.mark.parametrize(
    ("changes", "column", "rule"),
    [
        ({"hotel": None}, "hotel", "is missing or cannot be read"),
        ({"booked_on": "x"}, "booked_on", "is missing or cannot be read"),
        ({"reservation_id": " "}, "reservation_id", "is missing or cannot be read"),
        ({"price": 5400}, "price", "is above 5000"),
        ({"price": -6.38}, "price", "is below 0"),
        ({"week_nights": 1.5}, "week_nights", "is not a whole number"),
        ({"booked_on": "2016-02-06"}, "arrival_on", "lies before booked_on"),
        ({"adults": 0}, "adults", "no guest at all: adults, children and babies are 0"),
    ],
)
def test_each_broken_rule_is_named_with_its_row(changes: dict[str, Any], column: str, rule: str) -> None:
    assert problems(good(reservation_id="A"), good(**changes)) == [(2, column, rule)]


def test_children_alone_are_guests() -> None:
    assert problems(good(adults=0, children=2)) == []
