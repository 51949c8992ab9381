"""A reservation in a request passes exactly the rules that a loaded row passes, and is read the same."""

from __future__ import annotations

import json
import math
from datetime import date
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.reservation import COLUMNS, Column, coerce, violations
from deployments.api.problems import Problem
from deployments.api.reservations import EXAMPLE, Reader

TODAY = date(2016, 7, 1)
READER = Reader((), 10)


def asked(*rows: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"reservations": rows, **more}).encode()


def refused(body: bytes, reader: Reader = READER) -> Problem:
    with pytest.raises(Problem) as problem:
        reader.read(body, TODAY)
    assert problem.value.status == 422
    return problem.value


days = st.dates(date(2016, 5, 1), TODAY).map(str)
numbers = st.one_of(st.none(), st.integers(-2, 120), st.sampled_from([0, 1, 0.5, 200, 201, 500, 501, 5_000, 5_001.5]))
texts = st.one_of(
    st.none(), st.sampled_from(["", " ", "BB", " BB ", "x" * 1_001, "a\0b", "\u00e9", "\x1f", "' OR 1=1"])
)


def values(column: Column) -> st.SearchStrategy[Any]:
    if column.kind == "date":
        return days
    return numbers if column.kind in ("count", "number") else texts


rows = st.fixed_dictionaries({}, optional={c.name: values(c) for c in COLUMNS}).map(lambda row: {**EXAMPLE, **row})


@given(row=rows)
def test_a_reservation_is_taken_as_a_loaded_row_is_and_has_its_values(row: dict[str, Any]) -> None:
    row = {name: value for name, value in row.items() if value is not None or name not in EXAMPLE}
    frame = coerce(pd.DataFrame([row]))
    broken = set(violations(frame)["column"])
    try:
        [booking] = READER.read(asked(row), TODAY).bookings
    except Problem as problem:
        told = {detail.where.removeprefix("reservations[0].") for detail in problem.details}
        # Missing columns are told by the form, before the rules are looked at.
        assert told <= broken and broken
        return
    assert broken == set()
    for column in COLUMNS:
        value = frame[column.name].iloc[0]
        if column.kind == "date":
            assert booking[column.name] == value.date()
        elif column.kind in ("count", "number"):
            assert booking[column.name] == value or (math.isnan(booking[column.name]) and math.isnan(value))
        else:
            assert booking[column.name] == (None if pd.isna(value) else value)


@pytest.mark.parametrize(
    ("body", "where", "what"),
    [
        (b"", "body", "EOF"),
        (b"[", "body", "EOF"),
        (b"[]", "body", "object"),
        (b"{}", "reservations", "required"),
        (asked(), "reservations", "at least 1"),
        (asked(*[{**EXAMPLE, "reservation_id": str(n)} for n in range(11)]), "reservations", "at most 10"),
        (asked(EXAMPLE, EXAMPLE), "reservations[1].reservation_id", "appears again, after reservations[0]"),
        (asked({**EXAMPLE, "pric": 5}), "reservations[0].pric", "is no column of a reservation"),
        (asked({**EXAMPLE, "price": "104.5"}), "reservations[0].price", "valid number"),
        (asked({**EXAMPLE, "adults": True}), "reservations[0].adults", "valid number"),
        (asked({**EXAMPLE, "adults": 1.5}), "reservations[0].adults", "is not a whole number"),
        (asked({**EXAMPLE, "agent": 9}), "reservations[0].agent", "valid string"),
        (asked({**EXAMPLE, "booked_on": 1}), "reservations[0].booked_on", "date"),
        (asked({**EXAMPLE, "booked_on": "2016-07-01T10:00:00"}), "reservations[0].booked_on", "date"),
        (asked({**EXAMPLE, "booked_on": "2016-07-03"}), "reservations[0].booked_on", "lies after 2016-07-01"),
        (asked({**EXAMPLE, "arrival_on": "2016-06-30"}), "reservations[0].arrival_on", "lies before booked_on"),
        (asked({**EXAMPLE, "booked_on": "0001-01-01"}), "reservations[0].booked_on", "lies before 1970-01-01"),
        (asked({**EXAMPLE, "arrival_on": "9999-12-31"}), "reservations[0].arrival_on", "after 2199-12-31"),
        (asked({**EXAMPLE, "adults": 0}), "reservations[0].adults", "no guest at all"),
        (asked(EXAMPLE, reasons=11), "reasons", "less than or equal to 10"),
        (asked(EXAMPLE, reasons="1"), "reasons", "integer"),
        (asked(EXAMPLE, record="no"), "record", "boolean"),
        (b'{"reservations": [{"price": NaN}]}', "reservations[0].price", "finite"),
        (b'{"reservations": [{"price": 1e999}]}', "reservations[0].price", "finite"),
        (b'{"reservations": [{"hotel": "\\ud800"}]}', "body", "hex escape"),
        (b"[" * 100_000, "body", "recursion"),
        (b'{"reservations":' + b'{"a":' * 50_000, "body", "recursion"),
        (b"\xff\xfe", "body", ""),
    ],
)
def test_what_is_wrong_is_told_with_its_place(body: bytes, where: str, what: str) -> None:
    told = {detail.where: detail.what for detail in refused(body).details}
    assert where in told and what in told[where], told


def test_a_column_that_a_mapping_declares_is_read_and_others_are_not() -> None:
    row = {**EXAMPLE, "channel_fee": 2.5, "board": " half "}
    reader = Reader((Column("channel_fee", "number"), Column("board", "category")), 10)
    [booking] = reader.read(asked(row), TODAY).bookings
    assert (booking["channel_fee"], booking["board"]) == (2.5, "half")
    assert {detail.where for detail in refused(asked(row)).details} == {
        "reservations[0].channel_fee",
        "reservations[0].board",
    }


def test_a_wrong_value_is_not_echoed() -> None:
    problem = refused(asked({**EXAMPLE, "price": "s" * 1_000_000}))
    assert len(problem.response("id").body) < 2_000
