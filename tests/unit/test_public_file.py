"""The public table is read alike from each format, and a broken file gets a sentence."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cancellations.domain.reservation import NAMES, OUTCOME_NAMES, violations
from cancellations.errors import BadInput
from cancellations.ports import Source, SourceBatch
from cancellations.sources.mapped import open_table, packaged
from cancellations.sources.selection import Selected, unbiased

SCHEMA: tuple[str, ...] = (
    *("hotel", "is_canceled", "lead_time", "arrival_date_year", "arrival_date_month", "arrival_date_week_number"),
    *("arrival_date_day_of_month", "stays_in_weekend_nights", "stays_in_week_nights", "adults", "children", "babies"),
    *("meal", "country", "market_segment", "distribution_channel", "is_repeated_guest", "previous_cancellations"),
    *("previous_bookings_not_canceled", "reserved_room_type", "assigned_room_type", "booking_changes"),
    *("deposit_type", "agent", "company", "days_in_waiting_list", "customer_type", "adr"),
    *("required_car_parking_spaces", "total_of_special_requests", "reservation_status", "reservation_status_date"),
)

# Invented bookings in the public schema.
TABLE = """\
City Hotel,0,10,2016,March,11,11,2,1,2,0,0,BB,FRA,Online TA,TA/TO,0,0,0,A,D,0,No Deposit,9,NULL,0,Transient,101.5,0,1,Check-Out,2016-03-14
City Hotel,1,200,2016,May,20,15,0,2,2,NA,0,SC,NULL,Groups,TA/TO,0,1,0,A,A,0,Non Refund,12,NULL,0,Transient,75,0,0,Canceled,2015-12-01
Resort Hotel,1,0,2016,February,9,29,1,3,1,1,0,HB,ITA,Direct,Direct,1,0,3,C,C,1,No Deposit,NULL,331,0,Contract,60.25,1,2,No-Show,2016-02-29
Resort Hotel,0,30,2017,January,1,1,0,1,0,0,0,BB,ESP,Corporate,Corporate,0,0,0,A,A,0,No Deposit,NULL,NULL,0,Transient-Party,40,0,0,Check-Out,2017-01-02
"""  # noqa: E501
CSV = ",".join(SCHEMA) + "\n" + TABLE
NUMERIC = {
    "lead_time": "int64",
    "arrival_date_year": "int64",
    "arrival_date_day_of_month": "int64",
    "is_canceled": "int64",
    "children": "float64",
    "agent": "float64",
    "company": "float64",
    "adr": "float64",
}


def csv(folder: Path, text: str = CSV, name: str = "bookings.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def gz(folder: Path) -> Path:
    path = folder / "bookings.csv.gz"
    path.write_bytes(gzip.compress(CSV.encode()))
    return path


def parquet(folder: Path) -> Path:
    """As the public Parquet is typed: numbers as numbers, ids with gaps as floats."""
    path = folder / "bookings.parquet"
    table = pd.read_csv(io.StringIO(CSV), na_values=["NULL", "NA"], keep_default_na=False)
    table.astype(NUMERIC).to_parquet(path, index=False, row_group_size=3)
    return path


def read(source: Source) -> SourceBatch:
    batches = list(source.batches())
    return SourceBatch(
        pd.concat([b.raw for b in batches]),
        pd.concat([b.reservations for b in batches]),
        pd.concat([b.outcomes for b in batches]),
        pd.concat([b.problems for b in batches]),
    )


def test_a_booking_gets_its_dates_id_and_outcome(tmp_path: Path) -> None:
    batch = read(open_table(csv(tmp_path)))
    assert tuple(batch.reservations.columns) == NAMES
    assert tuple(batch.outcomes.columns) == OUTCOME_NAMES
    assert batch.reservations["reservation_id"].tolist() == [f"bookings-00000{row}" for row in (1, 2, 3, 4)]
    assert list(batch.raw.index) == list(batch.reservations.index) == list(batch.outcomes.index) == [1, 2, 3, 4]
    first = batch.reservations.loc[1]
    assert (first["booked_on"], first["arrival_on"]) == (pd.Timestamp("2016-03-01"), pd.Timestamp("2016-03-11"))
    assert (first["agent"], first["price"], first["special_requests"]) == ("9", 101.5, 1.0)
    assert batch.reservations.loc[2, ["children", "company"]].isna().all()
    assert batch.reservations.loc[3, "company"] == "331"
    assert batch.outcomes["status"].tolist() == ["stayed", "canceled", "no_show", "stayed"]
    assert batch.outcomes["known_on"].loc[3] == pd.Timestamp("2016-02-29")


def test_nothing_that_the_file_knows_later_is_taken(tmp_path: Path) -> None:
    reservations = read(open_table(csv(tmp_path))).reservations
    assert reservations.loc[1, "room_type"] == "A"  # reserved; assigned was D
    assert not {"country", "booking_changes", "is_canceled", "reservation_status"} & set(reservations.columns)


@pytest.mark.parametrize("other", [gz, parquet])
@pytest.mark.parametrize("rows", [2, 50_000])
def test_each_format_gives_the_same_frames(tmp_path: Path, other: Callable[[Path], Path], rows: int) -> None:
    plain, same = read(open_table(csv(tmp_path))), read(open_table(other(tmp_path), batch_rows=rows))
    pd.testing.assert_frame_equal(same.reservations, plain.reservations)
    pd.testing.assert_frame_equal(same.outcomes, plain.outcomes)


def test_ids_saved_with_a_decimal_point_are_the_same_ids(tmp_path: Path) -> None:
    text = CSV.replace(",9,NULL,0,Tr", ",9.0,NULL,0,Tr").replace(",331,", ",331.0,")
    rewritten = read(open_table(csv(tmp_path, text))).reservations
    pd.testing.assert_frame_equal(rewritten, read(open_table(csv(tmp_path))).reservations)


def test_raw_keeps_the_original_spelling(tmp_path: Path) -> None:
    raw = read(open_table(csv(tmp_path))).raw
    assert tuple(raw.columns) == SCHEMA
    assert raw.loc[2, ["country", "children", "company"]].tolist() == ["NULL", "NA", "NULL"]


def test_rows_that_break_rules_are_passed_on_for_quarantine(tmp_path: Path) -> None:
    table = open_table(csv(tmp_path, CSV.replace("2016,May", "2016,Mai")))
    source = Selected(table, max_lead_days=500, booked_from=date(2016, 1, 1))
    batch = read(source)
    broken = violations(batch.reservations)
    assert set(zip(broken["row"], broken["column"], strict=True)) == {
        (2, "booked_on"),
        (2, "arrival_on"),
        (4, "adults"),
    }
    assert batch.problems["row"].tolist() == [2]
    assert "'2016 Mai 15' in columns arrival_date_year" in batch.problems["rule"].iloc[0]
    assert source.tally.set_aside == 0


def test_a_selection_counts_what_it_sets_aside(tmp_path: Path) -> None:
    source = Selected(
        open_table(csv(tmp_path), batch_rows=3),
        max_lead_days=180,
        booked_from=date(2016, 2, 29),
        booked_until=date(2016, 3, 1),
    )
    for _ in range(2):  # a second pass counts anew
        batch = read(source)
        assert batch.reservations["reservation_id"].tolist() == ["bookings-000001", "bookings-000003"]
        assert batch.outcomes["reservation_id"].tolist() == ["bookings-000001", "bookings-000003"]
        assert list(batch.raw.index) == [1, 3]
        assert (source.tally.read, source.tally.long_lead, source.tally.outside_span) == (4, 1, 1)
        assert str(source.tally).startswith("4 rows read, 2 set aside")


def test_a_booking_without_an_outcome_is_read(tmp_path: Path) -> None:
    batch = read(open_table(csv(tmp_path, CSV.replace("Check-Out,2016-03-14", "NULL,NULL"))))
    assert len(batch.reservations) == 4
    assert batch.outcomes["reservation_id"].tolist() == ["bookings-000002", "bookings-000003", "bookings-000004"]


@pytest.mark.parametrize("make", [gz, parquet])
def test_a_compressed_file_cut_in_the_middle_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(BadInput, match=path.name):
        read(open_table(path))


def test_a_csv_cut_before_its_last_value_is_refused(tmp_path: Path) -> None:
    last = TABLE.splitlines()[-1]
    for left in range(1, last.rindex(",") + 1):
        path = csv(tmp_path, CSV[: -1 - len(last)] + last[:left])
        with pytest.raises(BadInput, match=r"bookings\.csv is cut off: row 4, its last"):
            read(open_table(path))


def test_a_csv_cut_inside_its_last_day_loses_no_booking(tmp_path: Path) -> None:
    for left in range(1, len("2017-01-02")):
        batch = read(open_table(csv(tmp_path, CSV[: -1 - left])))
        assert len(batch.reservations) == 4
        assert batch.problems[["row", "column"]].to_numpy().tolist() == [[4, "known_on"]]


def test_a_row_with_a_value_too_many_is_set_aside_with_all_its_values(tmp_path: Path) -> None:
    batch = read(open_table(csv(tmp_path, CSV.replace("Groups,", "Groups,and more,"))))
    assert batch.reservations.index.tolist() == [1, 3, 4]
    assert batch.problems.to_dict("records") == [
        {"row": 2, "column": "", "rule": "the row has 33 values, the header 32"}
    ]
    assert "and more" in batch.raw.loc[2].tolist()
    assert batch.raw.loc[2, "extra values"] == "2015-12-01"


def test_a_last_line_without_its_end_is_whole(tmp_path: Path) -> None:
    assert len(read(open_table(csv(tmp_path, CSV.rstrip("\n")))).reservations) == 4


@pytest.mark.parametrize(
    ("change", "row", "column", "told"),
    [
        (("Check-Out,2016-03-14", "Gone,2016-03-14"), 1, "status", "'Gone' in column reservation_status is none of"),
        (("2015-12-01", "01.12.2015"), 2, "known_on", "'01.12.2015' in column reservation_status_date is no date"),
        (("2015-12-01", "2015-02-31"), 2, "known_on", "'2015-02-31'"),
        (("No-Show,2016-02-29", ",2016-02-29"), 3, "status", "is missing, and its day is told"),
    ],
)
def test_an_outcome_that_cannot_be_read_is_a_problem_of_its_row(
    tmp_path: Path, change: tuple[str, str], row: int, column: str, told: str
) -> None:
    batch = read(open_table(csv(tmp_path, CSV.replace(*change))))
    assert batch.problems[["row", "column"]].to_numpy().tolist() == [[row, column]]
    assert told in batch.problems["rule"].iloc[0]


def test_another_schema_is_refused_with_what_is_missing_and_how_to_begin(tmp_path: Path) -> None:
    text = CSV.replace("lead_time", "days_ahead").replace("adr,", "price,")
    with pytest.raises(BadInput, match=r"lacks lead_time, adr\)\. .*`cancellations mapping init .*bookings\.csv`"):
        open_table(csv(tmp_path, text))


def test_a_table_separated_by_semicolons_is_refused_with_a_guess(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"separated by ';'"):
        open_table(csv(tmp_path, CSV.replace(",", ";")))


@pytest.mark.parametrize(
    "content", [b"", ",".join(SCHEMA).encode(), b"\x89PNG\r\n\x1a\n\xff\xfe", b"PAR1", b"\x1f\x8b"]
)
def test_an_empty_or_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bookings.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"bookings\.csv"):
        read(open_table(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no file .*nowhere\.csv"):
        open_table(tmp_path / "nowhere.csv")
    with pytest.raises(BadInput, match="is a folder"):
        open_table(tmp_path)


def test_numbers_are_numbers_and_missing_is_missing(tmp_path: Path) -> None:
    frame = read(open_table(csv(tmp_path))).reservations
    assert frame["children"].dtype == np.float64
    assert not frame.isin(["NULL", "NA"]).any(axis=None)


def test_bookings_of_two_files_are_never_taken_for_each_other(tmp_path: Path) -> None:
    january, february = (read(open_table(csv(tmp_path, name=f"{month}.csv"))) for month in ("january", "february"))
    assert not set(january.reservations["reservation_id"]) & set(february.reservations["reservation_id"])


def test_ids_that_the_file_brings_are_kept(tmp_path: Path) -> None:
    head, *rows = CSV.strip().splitlines()
    text = "\n".join([f"reservation_id,{head}", *(f"hotel-7/{i},{row}" for i, row in enumerate(rows))])
    batch = read(open_table(csv(tmp_path, text)))
    assert batch.reservations["reservation_id"].tolist() == ["hotel-7/0", "hotel-7/1", "hotel-7/2", "hotel-7/3"]
    assert batch.outcomes["reservation_id"].tolist() == batch.reservations["reservation_id"].tolist()


def test_the_span_without_cut_leads_follows_from_the_arrivals(tmp_path: Path) -> None:
    arrivals = read(open_table(csv(tmp_path))).reservations["arrival_on"]
    first, last = unbiased(open_table(csv(tmp_path)), max_lead_days=30)
    assert pd.Timestamp(first) == arrivals.min()
    assert pd.Timestamp(last) == arrivals.max() - pd.Timedelta(days=30)


def test_the_mapping_comes_with_the_package_and_names_columns_of_the_table() -> None:
    assert set(packaged()["hotel_bookings"].source_columns) <= set(SCHEMA)
