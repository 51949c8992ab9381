"""Any table of any text, through any mapping: each row is a reservation or a problem, and nothing raises."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from cancellations.domain.reservation import OUTCOME_NAMES, violations
from cancellations.sources.mapped import MappedTable
from cancellations.sources.mapping import Mapping, parse
from cancellations.sources.tables import open_file

NAMES = tuple("abcdefgh")
# What tables hold, and what they should not.
USUAL = st.sampled_from(
    [
        *("", "NULL", "1", "2.5", "-3", "1e999", "inf", "nan", "nan(3)", "true", "C", "S", "=1+1", "€ 1.234,50"),
        *("2018-02-29", "2016-02-29", "31.12.2017", "March", "now", "0001-01-01", "2018-01-01T23:30:00-05:00"),
        *("9999-12-31T23:00-09:00", "0001-01-01T00:00+09:00"),
    ]
)
VALUE = USUAL | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COLUMN = st.sampled_from(NAMES)


def quoted(column: str) -> str:
    return f'"{column}"'


READ = st.builds(quoted, COLUMN)
TEXT = st.one_of(
    READ,
    st.builds("{{ concat = [{0}, {1}], separator = '-' }}".format, READ, READ),
    st.just('{ constant = "Sea" }'),
    st.builds(
        "{{ column = {0}, map = {{ C = 'Sea', S = '' }}, otherwise = '{1}' }}".format,
        READ,
        st.sampled_from(["keep", "missing", "quarantine"]),
    ),
)
NUMBER = st.one_of(
    READ,
    st.builds("{{ sum = [{0}, {1}] }}".format, READ, READ),
    st.builds("{{ column = {0}, map = {{ C = 2 }} }}".format, READ),
)
DAY = st.one_of(
    READ,
    st.builds(
        "{{ column = {0}, format = '{1}' }}".format, READ, st.sampled_from(["%d.%m.%Y", "%Y-%m-%dT%H:%M:%S%z", "%j"])
    ),
    st.builds("{{ year = {0}, month = {1}, day = {2} }}".format, READ | st.just("2018"), READ, READ | st.just("31")),
    st.just("{ constant = 2018-05-01 }"),
)


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    lead = draw(st.booleans())
    nights = draw(st.sampled_from(["nights", "departure_on", ""]))
    given = {
        "reservation_id": draw(TEXT | st.just("{ row_number = true }")),
        "hotel": draw(TEXT),
        "lead_days" if lead else "booked_on": draw(NUMBER if lead else DAY),
        "arrival_on": draw(DAY),
        "adults": draw(NUMBER),
        draw(st.sampled_from(["price", "total_price"])): draw(NUMBER),
    }
    given |= {nights: draw(DAY if nights == "departure_on" else NUMBER)} if nights else {}
    given |= {} if nights else {"weekend_nights": draw(NUMBER), "week_nights": draw(NUMBER)}
    lines = ["format = 1", "[source]"]
    if draw(st.booleans()):
        lines += ['decimal = ","', 'thousands = "."', 'timezone = "Asia/Tokyo"']
    lines += ["[reservation]", *(f"{name} = {told}" for name, told in given.items())]
    if draw(st.booleans()):
        lines += [
            "[outcome]",
            f"status = {{ column = {draw(READ)}, map = {{ C = 'canceled', S = 'stayed', O = '' }} }}",
        ]
        lines += [f"known_on = {draw(DAY)}"] if draw(st.booleans()) else []
    lines += ["[features]", f"points = {{ kind = 'number', column = {draw(READ)} }}"]
    return parse("\n".join(lines))


@settings(max_examples=30)
@given(mappings(), st.lists(st.lists(VALUE, min_size=1, max_size=10), min_size=1, max_size=8), st.integers(1, 4))
def test_each_row_of_any_table_is_accounted_for_once(mapping: Mapping, rows: list[list[str]], batch_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([NAMES, *rows])
        batches = list(MappedTable(open_file(path, mapping.source), mapping, name="t", batch_rows=batch_rows).batches())
    read = pd.concat([b.raw for b in batches]).index
    assert read.tolist() == list(range(1, len(rows) + 1))
    for batch, start in zip(batches, range(1, len(rows) + 1, batch_rows), strict=True):
        assert batch.reservations is not None
        whole = [
            row
            for row in batch.raw.index
            if len(rows[row - 1]) == len(NAMES) and tuple(v.strip() for v in rows[row - 1]) != NAMES
        ]
        assert batch.reservations.index.tolist() == whole
        assert set(batch.problems["row"]) <= set(batch.raw.index)
        assert set(batch.problems.loc[batch.problems["column"] == "", "row"]) == set(batch.raw.index) - set(whole)
        assert batch.raw.index[0] == start
        assert tuple(batch.reservations.columns) == tuple(c.name for c in mapping.columns)
        assert tuple(batch.outcomes.columns) == OUTCOME_NAMES
        assert set(batch.outcomes.index) <= set(whole)
        assert batch.outcomes["status"].isin(["canceled", "stayed"]).all()
        for name in ("booked_on", "arrival_on"):
            [day.date() for day in batch.reservations[name].dropna()]
        violations(batch.reservations, mapping.columns)


@settings(max_examples=30)
@given(
    st.lists(
        VALUE.filter(lambda v: v.strip() not in ("", "NULL", "NA", "N/A", "NaN", "nan", "null", "None")),
        min_size=1,
        max_size=6,
    )
)
def test_a_value_that_is_there_is_never_silently_missing(values: list[str]) -> None:
    mapping = parse(
        "format = 1\n[reservation]\n"
        'reservation_id = "a"\nhotel = "b"\nbooked_on = "a"\narrival_on = "a"\nweekend_nights = "a"\n'
        'week_nights = "a"\nadults = "a"\nprice = "a"\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *((v, "x") for v in values)])
        [batch] = MappedTable(open_file(path, mapping.source), mapping, name="t").batches()
    assert batch.reservations is not None
    told = set(zip(batch.problems["row"], batch.problems["column"], strict=True))
    for name in ("reservation_id", "booked_on", "arrival_on", "weekend_nights", "week_nights", "adults", "price"):
        for row in batch.reservations.index[batch.reservations[name].isna()]:
            assert (row, name) in told
