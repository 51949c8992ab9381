"""Tables as hotels have them, read by a mapping: each value as it is meant, or a problem that names it."""

from __future__ import annotations

import datetime as dt
import gzip
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cancellations.domain.reservation import no_problems, violations
from cancellations.errors import BadInput
from cancellations.ports import SourceBatch, Undated
from cancellations.sources.mapped import MappedTable, open_table
from cancellations.sources.mapping import parse
from cancellations.sources.tables import open_file

RESERVATION = {
    "reservation_id": '"id"',
    "hotel": '"hotel"',
    "booked_on": '"booked"',
    "arrival_on": '"arrival"',
    "weekend_nights": '"weekend"',
    "week_nights": '"week"',
    "adults": '"adults"',
    "price": '"price"',
}
OUTCOME = 'status = { column = "state", map = { C = "canceled", S = "stayed", O = "" } }\nknown_on = "day"'
ROW = {
    "id": "R1",
    "hotel": "Sea",
    "booked": "2018-01-02",
    "arrival": "2018-02-03",
    "weekend": "2",
    "week": "1",
    "adults": "2",
    "price": "80.5",
    "state": "C",
    "day": "2018-01-05",
}
HEADER = ",".join(ROW) + "\n"
LINE = ",".join(ROW.values()) + "\n"


def mapping(source: str = "", outcome: str | None = OUTCOME, features: str = "", **reservation: str | None) -> str:
    given = {name: told for name, told in {**RESERVATION, **reservation}.items() if told is not None}
    fields = "\n".join(f"{name} = {told}" for name, told in given.items())
    ends = "" if outcome is None else f"[outcome]\n{outcome}\n"
    return f"format = 1\n[source]\n{source}\n[reservation]\n{fields}\n{ends}[features]\n{features}\n"


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return frames[0] if len(frames) == 1 else pd.concat(frames)


def read(path: Path, text: str, batch_rows: int = 50_000) -> SourceBatch:
    told = parse(text)
    table = MappedTable(open_file(path, told.source), told, name=path.name, batch_rows=batch_rows)
    batches = list(table.batches())
    return SourceBatch(
        joined([b.raw for b in batches]),
        joined([b.reservations for b in batches if b.reservations is not None]) if told.reservation else None,
        joined([b.outcomes for b in batches]),
        joined([b.problems for b in batches]),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def csv(file: Path, *changes: dict[str, str], text: str | None = None, source: str = "", **expressions: Any) -> Any:
    """Rows like `ROW`, each with its changes, read."""
    lines = [",".join({**ROW, **change}.values()) for change in changes]
    names = ",".join({**ROW, **changes[0]})
    file.write_text("\n".join([names, *lines]) + "\n")
    return read(file, text or mapping(source, **expressions))


def told(batch: SourceBatch) -> list[tuple[int, str, str]]:
    return list(batch.problems.itertuples(index=False, name=None))


# --- expressions ----------------------------------------------------------------------------------


def test_a_map_renames_and_keeps_drops_or_sets_aside_what_it_does_not_name(file: Path) -> None:
    rows = [{"hotel": "S"}, {"hotel": "Hill"}, {"hotel": ""}]
    for otherwise, second in (("", "Hill"), (', otherwise = "keep"', "Hill"), (', otherwise = "missing"', None)):
        batch = csv(file, *rows, hotel=f'{{ column = "hotel", map = {{ S = "Sea" }}{otherwise} }}')
        found = batch.reservations["hotel"]
        assert (found[1], found[2] if second else None) == ("Sea", second)
        assert pd.isna(found[3])
        assert told(batch) == []
    batch = csv(file, *rows, hotel='{ column = "hotel", map = { S = "Sea" }, otherwise = "quarantine" }')
    assert told(batch) == [(2, "hotel", "'Hill' in column hotel is not in the mapping")]


def test_a_map_to_numbers_feeds_numbers(file: Path) -> None:
    batch = csv(file, {"adults": "pair"}, {"adults": "3"}, adults='{ column = "adults", map = { pair = 2 } }')
    assert batch.reservations["adults"].tolist() == [2, 3]


def test_a_date_has_the_format_that_is_told(file: Path) -> None:
    rows = [{"booked": d} for d in ("02/01/2018", "31/02/2016", "2018-01-02", "29/02/2018", "now", "")]
    batch = csv(file, *rows, booked_on='{ column = "booked", format = "%d/%m/%Y" }')
    assert batch.reservations["booked_on"][1] == pd.Timestamp("2018-01-02")
    assert [(row, column) for row, column, _ in told(batch)] == [(row, "booked_on") for row in (2, 3, 4, 5)]
    assert told(batch)[0][2] == "'31/02/2016' in column booked is no date of the form %d/%m/%Y"


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2018-01-02", "2018-01-02"),
        ("2018-01-02 23:59", "2018-01-02"),
        ("2018-01-02T23:59:59.123456", "2018-01-02"),
        ("2018-01-02T23:30:00Z", "2018-01-03"),
        ("2018-01-02T23:30:00-05:00", "2018-01-03"),
        ("2018-01-03 00:30:00+0300", "2018-01-02"),
        ("2018-07-02T22:30:00+00:00", "2018-07-03"),
        ("2016-02-29", "2016-02-29"),
    ],
)
def test_a_timestamp_with_an_offset_is_a_day_of_the_hotels_zone(file: Path, written: str, day: str) -> None:
    batch = csv(file, {"booked": written, "arrival": "2018-09-01"}, source='timezone = "Europe/Paris"')
    assert batch.reservations["booked_on"][1] == pd.Timestamp(day)
    assert told(batch) == []


@pytest.mark.parametrize(
    "written",
    [
        "31.02.2016",
        "2018-02-29",
        "2018-13-01",
        "2018-1-2",
        "now",
        "today",
        "20180102",
        "2018-01-02 25:00",
        "soon",
        "0000-01-01",
        "9999-12-31T23:30-05:00",
    ],
)
def test_an_impossible_date_is_a_problem_and_not_missing(file: Path, written: str) -> None:
    batch = csv(file, {"arrival": written})
    assert told(batch) == [(1, "arrival_on", f"'{written}' in column arrival is no date of the form YYYY-MM-DD")]
    assert batch.reservations.loc[1, "arrival_on"] is pd.NaT


def test_a_date_is_put_together_from_parts_by_number_name_or_abbreviation(file: Path) -> None:
    rows = [{"booked": m, "day": ""} for m in ("March", "mar", "3", "03", "Mars", "")]
    parts = '{ year = 2018, month = "booked", day = { constant = 31 } }'
    batch = csv(file, *rows, arrival_on=parts, booked_on='"arrival"')
    assert batch.reservations["arrival_on"].tolist()[:4] == [pd.Timestamp("2018-03-31")] * 4
    assert [row for row, *_ in told(batch)] == [5]
    assert "'2018 Mars 31'" in told(batch)[0][2]
    batch = csv(file, {"booked": "2"}, arrival_on=parts, booked_on='"arrival"')
    assert "'2018 2 31' in columns booked are no date" in told(batch)[0][2]


def test_texts_are_joined_and_missing_when_one_of_them_is(file: Path) -> None:
    joint = '{ concat = ["hotel", "id"], separator = "-" }'
    batch = csv(file, {}, {"hotel": "NULL"}, reservation_id=joint, hotel='"state"')
    assert batch.reservations["reservation_id"][1] == "Sea-R1"
    assert pd.isna(batch.reservations["reservation_id"][2])


def test_a_sum_counts_missing_parts_as_none_unless_all_are(file: Path) -> None:
    rows = [{"weekend": "1"}, {"weekend": ""}, {"weekend": "", "adults": ""}, {"weekend": "many"}]
    batch = csv(file, *rows, adults='{ sum = ["adults", "weekend"] }', weekend_nights='"week"')
    assert batch.reservations["adults"].tolist()[:2] == [3, 2]
    assert np.isnan(batch.reservations["adults"][3])
    assert told(batch) == [(4, "adults", "'many' in column weekend is no number")]


def test_a_row_number_is_an_id_unless_the_table_brings_one(file: Path) -> None:
    numbered = mapping(reservation_id="{ row_number = true }")
    assert csv(file, {}, {}, text=numbered).reservations["reservation_id"].tolist() == ["table-000001", "table-000002"]
    batch = csv(file, {"reservation_id": "R9"}, text=numbered)
    assert batch.reservations["reservation_id"].tolist() == ["R9"]


def test_a_booking_date_follows_from_the_lead(file: Path) -> None:
    rows = [{"week": "32"}, {"week": "1.5"}, {"week": "1000000"}, {"week": "x"}]
    batch = csv(file, *rows, booked_on=None, lead_days='"week"', week_nights='"weekend"')
    assert batch.reservations["booked_on"][1] == pd.Timestamp("2018-01-02")
    assert [row for row, *_ in told(batch)] == [2, 3, 4]
    assert batch.reservations["booked_on"][2:].isna().all()


def test_nights_of_saturday_and_sunday_are_told_apart_from_the_others(file: Path) -> None:
    arrivals = pd.date_range("2018-01-01", periods=7)
    rows = [{"arrival": f"{a:%Y-%m-%d}", "week": str(n)} for a in arrivals for n in range(16)]
    batch = csv(file, *rows, weekend_nights=None, week_nights=None, nights='"week"')
    expected = [sum((a + pd.Timedelta(days=i)).dayofweek >= 5 for i in range(n)) for a in arrivals for n in range(16)]
    assert batch.reservations["weekend_nights"].tolist() == expected
    assert (batch.reservations["weekend_nights"] + batch.reservations["week_nights"]).tolist() == [*range(16)] * 7

    by_departure = [{"day": "2018-02-06"}, {"day": "2018-02-03"}, {"day": "2018-02-01"}]
    batch = csv(file, *by_departure, weekend_nights=None, week_nights=None, departure_on='"day"', outcome=None)
    assert batch.reservations["weekend_nights"].tolist()[:2] == [2, 0]  # from a Saturday
    assert told(batch) == [(3, "week_nights", "the stay has -2 nights")]


def test_a_price_of_a_night_follows_from_the_total(file: Path) -> None:
    batch = csv(file, {"price": "90"}, {"price": "90", "week": "0", "weekend": "0"}, price=None, total_price='"price"')
    assert batch.reservations["price"][1] == 30
    assert told(batch) == [(2, "price", "cannot be told: the total is for no night")]


def test_features_of_the_hotels_own_come_with_their_kind(file: Path) -> None:
    features = 'points = { kind = "number", column = "week", high = 9 }\nclub = { kind = "category", column = "state" }'
    batch = csv(file, {}, {"week": "10"}, {"week": "ten"}, features=features, week_nights='"weekend"')
    assert batch.reservations["points"].tolist()[:2] == [1, 10]
    assert batch.reservations["club"].tolist() == ["C", "C", "C"]
    assert told(batch) == [(3, "points", "'ten' in column week is no number")]
    columns = parse(mapping(features=features)).columns
    assert violations(batch.reservations, columns)[["row", "column"]].to_numpy().tolist() == [[2, "points"]]


# --- numbers, texts, missing values ---------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ["inf", "-Infinity", "1e999", "nan(7)", "=1+1", "1.2.3", "1,5", "12x", "€", "٣", "0x10", "EUR", "2 PAX", "1 EURO"],
)
def test_what_is_no_number_is_a_problem(file: Path, written: str) -> None:
    batch = csv(file, {"price": f'"{written}"'})
    assert told(batch) == [(1, "price", f"'{written}' in column price is no number")]
    assert np.isnan(batch.reservations.loc[1, "price"])


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("€ 1.234,50", 1234.5),
        ("-1.234.567", -1234567),
        ("12,5 €", 12.5),
        ("$7", 7),
        ("1.234", 1234),
        (",5", 0.5),
        ("£\u00a08", 8),
        ("1.234,50 EUR", 1234.5),
        ("CHF 80", 80),
        ("-12USD", -12),
    ],
)
def test_numbers_are_written_as_the_mapping_says(file: Path, written: str, number: float) -> None:
    batch = csv(file, {"price": f'"{written}"'}, source='decimal = ","\nthousands = "."')
    assert batch.reservations.loc[1, "price"] == number
    assert told(batch) == []


@pytest.mark.parametrize("written", ["1.5", "1.23,4", "1,2,3", "12.34"])
def test_a_point_between_thousands_stands_where_thousands_are(file: Path, written: str) -> None:
    assert len(told(csv(file, {"price": f'"{written}"'}, source='decimal = ","\nthousands = "."'))) == 1


def test_spellings_of_nothing_are_missing_and_can_be_chosen(file: Path) -> None:
    rows = [{"price": spelling} for spelling in ("", "NULL", "NA", "nan", "None", "  ")]
    batch = csv(file, *rows)
    assert batch.reservations["price"].isna().all()
    assert told(batch) == []
    batch = csv(file, {"price": "-", "hotel": "NA"}, {"price": "NaN"}, source='missing = ["-"]')
    assert batch.reservations.loc[1, "hotel"] == "NA"  # the region in Italy
    assert [row for row, *_ in told(batch)] == [2]


def test_texts_like_formulas_are_texts(file: Path) -> None:
    batch = csv(file, {"id": "=1+1", "hotel": "@SUM(A1)"})
    assert batch.reservations.loc[1, ["reservation_id", "hotel"]].tolist() == ["=1+1", "@SUM(A1)"]
    assert told(batch) == []


def test_what_was_found_is_cut(file: Path) -> None:
    [(_, _, rule)] = told(csv(file, {"price": "9" * 50 + "x" * 5_000}))
    assert len(rule) < 100


# --- outcomes -------------------------------------------------------------------------------------


def test_a_status_that_is_not_mapped_is_a_problem_unless_the_mapping_says_otherwise(file: Path) -> None:
    batch = csv(file, {"state": "C"}, {"state": "Gone"}, {"state": "O"}, {"state": "", "day": ""})
    assert told(batch) == [(2, "status", "'Gone' in column state is none of the statuses C, S, O")]
    assert batch.outcomes["status"].to_dict() == {1: "canceled"}
    lenient = OUTCOME.replace(" }\nknown", ', otherwise = "missing" }\nknown')
    assert told(csv(file, {"state": "Gone"}, outcome=lenient)) == []


def test_a_day_without_a_status_is_a_problem(file: Path) -> None:
    assert told(csv(file, {"state": ""})) == [(1, "status", "is missing, and its day is told")]


def test_a_status_without_a_day_has_none(file: Path) -> None:
    batch = csv(file, {"day": ""})
    assert batch.outcomes["known_on"].isna().tolist() == [True]
    assert told(batch) == []
    assert csv(file, {}, outcome=OUTCOME.split("\n")[0]).outcomes["known_on"].isna().all()


def test_outcomes_may_come_alone(file: Path) -> None:
    alone = 'format = 1\n[outcome]\nreservation_id = "id"\n' + OUTCOME + '\nundated = "load"'
    file.write_text(HEADER + LINE + LINE.replace("R1", "R2").replace(",C,", ",O,"))
    batch = read(file, alone)
    assert batch.reservations is None
    assert batch.outcomes[["reservation_id", "status"]].to_numpy().tolist() == [["R1", "canceled"]]
    found = parse(alone)
    assert MappedTable(open_file(file, found.source), found, name="x").undated is Undated.LOAD


# --- files ----------------------------------------------------------------------------------------


def test_a_row_in_the_middle_that_is_no_row_is_set_aside_and_the_others_are_read(file: Path) -> None:
    file.write_text(HEADER + LINE + "R2,Sea\n" + HEADER + 'R3,"Sea"x,\n\n' + LINE.rstrip("\n") + ",more,yet\n" + LINE)
    batch = read(file, mapping(), batch_rows=2)
    assert batch.raw.index.tolist() == [1, 2, 3, 4, 5, 6]
    assert batch.reservations is not None
    assert batch.reservations.index.tolist() == [1, 6]
    assert told(batch) == [
        (2, "", "the row has 2 values, the header 10"),
        (3, "", "the row repeats the header"),
        (4, "", "the row cannot be split into values: ',' expected after '\"'"),
        (5, "", "the row has 12 values, the header 10"),
    ]
    assert batch.raw.loc[2, ["id", "hotel"]].tolist() == ["R2", "Sea"]
    assert batch.raw.loc[2, "booked":"day"].isna().all()
    assert batch.raw.loc[4, "id"] == 'R3,"Sea"x,'
    assert batch.raw.loc[5, "extra values"] == "more,yet"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (HEADER.encode(), "has a header and no row below it"),
        (HEADER.replace("week,", "hotel,").encode() + LINE.encode(), "more than one column named 'hotel'"),
        ((HEADER + LINE + "R2,Sea,2018").encode(), "is cut off: row 2, its last, has 3 of 10 values and no line end"),
        ((HEADER + LINE + 'R2,"Sea\n' + LINE).encode(), "row 2, its last, ends inside a quote"),
        ((HEADER + LINE).encode("utf-16-le"), r'NUL characters in its header.*encoding = "utf-16-le"'),
        ((HEADER + LINE.replace("Sea", "Hôtel")).encode("cp1252"), r'row 1: the byte 0xf4 is no utf-8.*"cp1252"'),
        ((HEADER + LINE).encode("utf-16")[:-1], "cannot be decoded"),
        (gzip.compress((HEADER + LINE * 999).encode())[:-30], "is cut off or damaged"),
        (HEADER.replace(",", ";").encode() + LINE.encode(), r"lacks id, hotel.*separated by ';'"),
        (b"PAR1 and no more", r"is no whole CSV or Parquet table: .*[^.]\. Get the file again"),
        (b"PK\x03\x04" + b"\0\xff" * 99, "is an Excel workbook or a ZIP archive.*Save it as CSV"),
        (b"\0" * 4096, "NUL characters"),
        ((HEADER + LINE).encode() + b"\0" * 4096, "is cut off: row 2, its last, has 1 of 10 values"),
    ],
)
def test_a_file_that_is_no_whole_table_gets_a_sentence(file: Path, content: bytes, sentence: str) -> None:
    file.write_bytes(content)
    with pytest.raises(BadInput, match=sentence) as error:
        read(file, mapping())
    assert str(file) in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("zipped", [False, True])
def test_each_encoding_gives_the_same_text(file: Path, encoding: str, zipped: bool) -> None:
    content = (HEADER + LINE.replace("Sea", "Hôtel")).encode(encoding)
    file.write_bytes(gzip.compress(content) if zipped else content)
    source = 'encoding = "cp1252"' if encoding == "cp1252" else ""
    batch = read(file, mapping(source))
    assert batch.reservations is not None
    assert batch.reservations["hotel"].tolist() == ["Hôtel"]


def test_the_header_is_on_the_line_that_the_mapping_tells(file: Path) -> None:
    file.write_text(f'Report, "of\n2018\n\n{HEADER}{LINE}')
    assert read(file, mapping("header = 4")).reservations["hotel"].to_dict() == {1: "Sea"}
    with pytest.raises(BadInput, match="is empty"):
        read(file, mapping("header = 9"))


def test_delimiter_and_quote_are_the_mappings(file: Path) -> None:
    file.write_text((HEADER + LINE).replace(",", ";").replace("Sea", "'S;ea'"))
    batch = read(file, mapping('delimiter = ";"\nquote = "\'"'))
    assert batch.reservations is not None
    assert batch.reservations["hotel"].tolist() == ["S;ea"]


def test_ten_megabytes_in_one_field_are_read_and_judged_by_the_rules(file: Path) -> None:
    file.write_text(HEADER + LINE.replace("Sea", "S" * 10_000_000) + LINE)
    batch = read(file, mapping())
    assert batch.reservations is not None
    assert violations(batch.reservations)[["row", "column"]].to_numpy().tolist() == [[1, "hotel"]]


def test_batches_end_where_memory_would_grow(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cancellations.sources.tables.BATCH_CHARACTERS", 5 * len(LINE))
    file.write_text(HEADER + LINE * 23)
    told = parse(mapping())
    sizes = [len(b.raw) for b in MappedTable(open_file(file, told.source), told, name="x").batches()]
    assert sum(sizes) == 23
    assert max(sizes) <= 6


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cancellations.sources.tables.LONGEST_LINE", 1_000)
    for content in (HEADER + "x" * 5_000, HEADER + '"' + LINE * 50):
        file.write_text(content)
        with pytest.raises(BadInput, match=r"row 1 is longer than 1,000 characters"):
            read(file, mapping())


# --- typed tables ---------------------------------------------------------------------------------


def parquet(folder: Path, **values: Any) -> Path:
    given = {name: values.get(name, [value]) for name, value in ROW.items()}
    path = folder / "table.parquet"
    pq.write_table(pa.table(given), path)
    return path


def test_typed_values_of_parquet_mean_what_their_texts_mean(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        id=pa.array([2**53 + 1, None], pa.int64()),
        hotel=pa.array(["Sea", "Hill"]).dictionary_encode(),
        booked=pa.array([dt.datetime(2018, 1, 1, 23, 30)] * 2, pa.timestamp("ns", "UTC")),
        arrival=pa.array([dt.date(2018, 2, 3)] * 2),
        weekend=pa.array([2.0, None]),
        week=pa.array([True, False]),
        adults=pa.array([Decimal("2.00"), None]),
        price=pa.array([float("inf"), float("nan")]),
        state=pa.array(["C", "S"]),
        day=pa.array([dt.datetime(2018, 1, 5, 13)] * 2, pa.timestamp("ms")),
    )
    batch = read(path, mapping('timezone = "Europe/Paris"'))
    assert batch.reservations is not None
    first = batch.reservations.loc[1]
    assert first["reservation_id"] == "9007199254740993"
    assert (first["hotel"], first["booked_on"], first["arrival_on"]) == (
        "Sea",
        pd.Timestamp("2018-01-02"),
        pd.Timestamp("2018-02-03"),
    )
    assert first[["weekend_nights", "week_nights", "adults"]].tolist() == [2, 1, 2]
    assert batch.outcomes["known_on"].tolist() == [pd.Timestamp("2018-01-05")] * 2
    assert told(batch) == [(1, "price", "'inf' in column price is no number")]
    assert batch.reservations.loc[2, ["reservation_id", "weekend_nights", "adults", "price"]].isna().all()


def test_ids_with_gaps_that_were_saved_as_floats_are_the_same_ids(tmp_path: Path) -> None:
    batch = read(parquet(tmp_path, id=[9.0, None], **{n: [v] * 2 for n, v in ROW.items() if n != "id"}), mapping())
    assert batch.reservations is not None
    assert batch.reservations["reservation_id"].tolist()[0] == "9"


def test_a_nested_value_is_a_problem(tmp_path: Path) -> None:
    batch = read(parquet(tmp_path, hotel=[["Sea", "Hill"]], price=[{"amount": 3}]), mapping())
    assert [(row, column) for row, column, _ in told(batch)] == [(1, "hotel"), (1, "price")]
    assert "is no text, number or date" in told(batch)[0][2]


def test_a_parquet_without_rows_or_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in ROW}), path)
    with pytest.raises(BadInput, match="has columns and no row"):
        read(path, mapping())
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["id", "id"]), path)
    with pytest.raises(BadInput, match="more than one column named 'id'"):
        read(path, mapping())


def test_row_groups_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({name: [value] * 25 for name, value in ROW.items()}), path, row_group_size=10)
    found = parse(mapping())
    batches = list(MappedTable(open_file(path, found.source), found, name="x", batch_rows=7).batches())
    assert max(len(b.raw) for b in batches) <= 7
    assert [row for b in batches for row in b.raw.index] == list(range(1, 26))


# --- two well-known shapes, invented rows ---------------------------------------------------------

HOTEL_RESERVATIONS = """\
Booking_ID,no_of_adults,no_of_children,no_of_weekend_nights,no_of_week_nights,type_of_meal_plan,required_car_parking_space,room_type_reserved,lead_time,arrival_year,arrival_month,arrival_date,market_segment_type,repeated_guest,no_of_previous_cancellations,no_of_previous_bookings_not_canceled,avg_price_per_room,no_of_special_requests,booking_status
INN90001,2,0,1,2,Meal Plan 1,0,Room_Type 1,224,2017,10,2,Offline,0,0,0,65.0,0,Not_Canceled
INN90002,1,0,2,1,Meal Plan 1,0,Room_Type 1,1,2018,2,28,Online,0,0,0,60.0,0,Canceled
INN90003,2,0,0,3,Not Selected,0,Room_Type 1,5,2018,2,29,Online,0,0,0,106.68,1,Not_Canceled
"""
HOTEL_MAPPING = """\
format = 1
[reservation]
reservation_id = "Booking_ID"
hotel = { constant = "INN" }
lead_days = "lead_time"
arrival_on = { year = "arrival_year", month = "arrival_month", day = "arrival_date" }
weekend_nights = "no_of_weekend_nights"
week_nights = "no_of_week_nights"
adults = "no_of_adults"
children = "no_of_children"
meal = { column = "type_of_meal_plan", map = { "Not Selected" = "SC" } }
market_segment = "market_segment_type"
room_type = "room_type_reserved"
repeated_guest = "repeated_guest"
previous_cancellations = "no_of_previous_cancellations"
previous_stays = "no_of_previous_bookings_not_canceled"
price = "avg_price_per_room"
special_requests = "no_of_special_requests"
[outcome]
status = { column = "booking_status", map = { Canceled = "canceled", Not_Canceled = "stayed" } }
[features]
parking = { kind = "number", column = "required_car_parking_space", low = 0, high = 1 }
"""


def test_a_table_without_hotel_and_without_a_status_date_is_read(file: Path) -> None:
    file.write_text(HOTEL_RESERVATIONS)
    batch = read(file, HOTEL_MAPPING)
    assert batch.reservations is not None
    first = batch.reservations.loc[1]
    assert (first["booked_on"], first["arrival_on"]) == (pd.Timestamp("2017-02-20"), pd.Timestamp("2017-10-02"))
    assert batch.reservations["meal"].tolist() == ["Meal Plan 1", "Meal Plan 1", "SC"]
    assert batch.reservations["hotel"].tolist() == ["INN"] * 3
    assert batch.outcomes["status"].tolist() == ["stayed", "canceled", "stayed"]
    assert batch.outcomes["known_on"].isna().all()
    # The day that the real table has too.
    assert [(row, column) for row, column, _ in told(batch)] == [(3, "arrival_on")]
    assert violations(batch.reservations[:2], parse(HOTEL_MAPPING).columns).equals(no_problems())


STAYS = """\
Confirmation code,Status,Start date,End date,# of nights,Booked,Listing,# of adults,Earnings
HM1,Confirmed,10/06/2024,14/06/2024,4,2024-03-01,Casa Azul,2,"€ 1.234,50"
HM2,Canceled by guest,11/06/2024,12/06/2024,1,2024-03-02,Casa Azul,3,"€ 80,00"
HM3,Past guest,07/06/2024,10/06/2024,3,2024-03-03,Loft,1,"€ 300,00"
"""
STAYS_MAPPING = """\
format = 1
name = "stays"
[source]
decimal = ","
thousands = "."
[reservation]
reservation_id = "Confirmation code"
hotel = "Listing"
booked_on = "Booked"
arrival_on = { column = "Start date", format = "%d/%m/%Y" }
departure_on = { column = "End date", format = "%d/%m/%Y" }
adults = "# of adults"
total_price = "Earnings"
[outcome]
undated = "load"
[outcome.status]
column = "Status"
map = { "Canceled by guest" = "canceled", "Past guest" = "stayed", Confirmed = "" }
"""


def test_an_export_of_short_stays_is_read(file: Path) -> None:
    file.write_text(STAYS)
    batch = read(file, STAYS_MAPPING)
    assert batch.reservations is not None
    assert told(batch) == []
    assert batch.reservations["price"].tolist() == [308.625, 80, 100]
    assert batch.reservations["weekend_nights"].tolist() == [0, 0, 2]
    assert batch.reservations["week_nights"].tolist() == [4, 1, 1]
    assert batch.outcomes["status"].to_dict() == {2: "canceled", 3: "stayed"}
    assert violations(batch.reservations).empty


# --- which mapping applies ------------------------------------------------------------------------


def test_the_mapping_given_comes_before_the_one_beside_the_file(file: Path, tmp_path: Path) -> None:
    file.write_text(STAYS)
    with pytest.raises(BadInput, match=r"no mapping says what the columns of .*table\.csv mean"):
        open_table(file)
    (tmp_path / "mapping.toml").write_text(STAYS_MAPPING)
    assert open_table(file).name == "stays"
    given = tmp_path / "given.toml"
    given.write_text(STAYS_MAPPING.replace('"stays"', '"given"'))
    source = open_table(file, given)
    assert (source.name, source.mapping) == ("given", given.read_text())
    given.write_text(STAYS_MAPPING.replace('name = "stays"\n', ""))
    assert open_table(file, given).name == "table.csv"


def test_a_column_that_is_not_there_is_named(file: Path) -> None:
    file.write_text(STAYS.replace("Listing", "Listings"))
    with pytest.raises(BadInput, match=r"table\.csv lacks Listing, .*; it has Confirmation code, .*mean 'Listings'\?"):
        read(file, STAYS_MAPPING)


def test_a_fingerprint_changes_with_the_bytes(file: Path) -> None:
    found = parse(STAYS_MAPPING)
    prints = set()
    for content in (STAYS, STAYS, STAYS + "\n"):
        file.write_text(content)
        prints.add(MappedTable(open_file(file, found.source), found, name="x").fingerprint())
    assert len(prints) == 2


def test_a_mapping_without_a_query_is_no_source(tmp_path: Path) -> None:
    path = tmp_path / "stays.toml"
    path.write_text(STAYS_MAPPING)
    with pytest.raises(BadInput, match="without"):
        open_table(path)


def test_csv_and_parquet_of_one_table_are_read_alike(file: Path, tmp_path: Path) -> None:
    file.write_text(HOTEL_RESERVATIONS)
    typed = tmp_path / "table.parquet"
    pd.read_csv(io.StringIO(HOTEL_RESERVATIONS)).to_parquet(typed)
    plain, same = read(file, HOTEL_MAPPING), read(typed, HOTEL_MAPPING)
    assert plain.reservations is not None
    assert same.reservations is not None
    pd.testing.assert_frame_equal(plain.reservations, same.reservations)
    pd.testing.assert_frame_equal(plain.outcomes, same.outcomes)
    pd.testing.assert_frame_equal(plain.problems, same.problems)
