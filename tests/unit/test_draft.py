"""A drafted mapping reads tables as hotels and portals export them, without being edited by hand."""

from __future__ import annotations

import gzip
import os
import re
import tomllib
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cancellations.domain.reservation import COLUMNS, violations
from cancellations.errors import BadInput
from cancellations.settings import Quarantine
from cancellations.sources import draft
from cancellations.sources.check import Check, check
from cancellations.sources.draft import draft_file, draft_query
from cancellations.sources.mapped import MappedTable, packaged
from cancellations.sources.mapping import Reading, parse
from cancellations.sources.tables import Table, open_file

TODAY = date(2025, 6, 1)
PUBLIC = Path(__file__).parents[3] / "shared/data/hotel_bookings.parquet"

# Invented bookings, in the shape of tables that people have.
HOTEL_RESERVATIONS = """\
Booking_ID,no_of_adults,no_of_children,no_of_weekend_nights,no_of_week_nights,type_of_meal_plan,required_car_parking_space,room_type_reserved,lead_time,arrival_year,arrival_month,arrival_date,market_segment_type,repeated_guest,no_of_previous_cancellations,no_of_previous_bookings_not_canceled,avg_price_per_room,no_of_special_requests,booking_status
INN00001,2,0,1,2,Meal Plan 1,0,Room_Type 1,224,2017,10,2,Offline,0,0,0,65,0,Not_Canceled
INN00002,2,0,2,3,Not Selected,0,Room_Type 1,5,2018,11,6,Online,0,0,0,106.68,1,Not_Canceled
INN00003,1,0,2,1,Meal Plan 1,0,Room_Type 1,1,2018,2,28,Online,0,0,0,60,0,Canceled
INN00004,2,1,0,2,Meal Plan 1,1,Room_Type 4,211,2018,5,20,Online,0,0,0,100,0,Canceled
INN00005,2,0,1,1,Not Selected,0,Room_Type 1,48,2018,2,29,Online,1,1,3,94.5,0,Canceled
"""
PORTAL = """\
Confirmation code,Status,Guest name,Contact,# of adults,# of children,# of infants,Start date,End date,# of nights,Booked,Listing,Earnings
HMA1,Past guest,Ana Silva,+351 912 345 678,2,0,0,13/04/2024,17/04/2024,4,2024-01-15,Casa Azul,"€1.234,50"
HMA2,Canceled by guest,Bo Ek,+46 70 123 45 67,1,1,0,18/04/2024,20/04/2024,2,2024-02-01,Casa Azul,"€90,00"
HMA3,Confirmed,Cleo Roy,+33 6 12 34 56 78,4,0,1,05/08/2024,12/08/2024,7,2024-03-09,Loft,"€980,00"
HMA4,No show,Di Wu,+49 151 2345678,2,0,0,21/03/2024,22/03/2024,1,2024-03-01,Loft,"€110,20"
"""  # noqa: E501
GERMAN = """\
Reservierungsnr.;Hotel;Gast;Anreise;Abreise;Buchungsdatum;Erwachsene;Kinder;Zimmerkategorie;Rate;Status;Stornodatum
4711;Haus am See;Müller;03.04.2024;05.04.2024;15.01.2024;2;0;Doppel Süd;1.089,50;abgereist;
4712;Haus am See;Jäger;13.04.2024;14.04.2024;16.01.2024;1;;Einzel;79,00;storniert;20.02.2024
4713;Haus am See;Groß;21.06.2024;28.06.2024;17.02.2024;2;2;Doppel Süd;119,00;bestätigt;
4714;Haus am See;Schön;11.04.2024;12.04.2024;18.01.2024;2;1;Einzel;99,90;Nicht erschienen;11.04.2024
"""
AMERICAN = """\
Res #,Property,Arrival,Departure,Booked On,Adults,Room Type,Source,Nightly Rate,Res Status,Bed
1001,Bay Inn,04/03/2024,04/05/2024,01/15/2024 09:30 PM,2,King,Direct,"$1,089.50",Checked Out,soft
1002,Bay Inn,04/13/2024,04/14/2024,01/16/2024 12:05 AM,1,Queen,OTA,$79.00,Cancelled,hard
1003,Bay Inn,06/21/2024,06/28/2024,02/17/2024 08:00 AM,2,King,OTA,$119.00,Reserved,soft
1004,Bay Inn,04/11/2024,04/12/2024,01/18/2024 10:10 AM,2,Queen,Direct,$99.90,NO SHOW,soft
"""
FRENCH = """\
N° de réservation;Établissement;Date d'arrivée;Date de départ;Date de réservation;Adultes;Enfants;Statut;Montant total
77;Les Pins;02/05/2024;04/05/2024;25/01/2024;2;0;Annulé;200,00
78;Les Pins;12/05/2024;14/05/2024;26/01/2024;2;1;Confirmée;300,00
79;Les Pins;03/02/2024;04/02/2024;27/01/2024;2;0;Terminé;150,50
"""
SMALLEST = "arrival,nights,booked\n2024-05-01,2,2024-01-02\n2024-05-03,1,2024-01-05\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(content: str | bytes, name: str = "bookings.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def load(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Reservations with their outcomes joined, all problems, by a draft that nobody touched."""
    table = mapped(path)
    batches = list(table.batches())
    reservations = pd.concat([b.reservations for b in batches if b.reservations is not None])
    outcomes = pd.concat([b.outcomes for b in batches])
    problems = pd.concat([b.problems for b in batches])
    return reservations, outcomes, pd.concat([problems, violations(reservations, table.columns)])


def mapped(path: Path) -> MappedTable:
    draft = draft_file(path)
    assert draft.missing == ()
    mapping = parse(draft.text)
    return MappedTable(open_file(path, mapping.source), mapping, name=path.name)


def checked(path: Path, rows: int | None = None) -> Check:
    return check(mapped(path), Quarantine(), TODAY, rows)


# --- tables of many shapes --------------------------------------------------------------------------


def test_hotel_reservations_load_but_for_the_day_that_never_was(write: Callable[..., Path]) -> None:
    reservations, outcomes, problems = load(write(HOTEL_RESERVATIONS))
    first = reservations.loc[1]
    assert (first["reservation_id"], first["price"], first["market_segment"]) == ("INN00001", 65.0, "Offline")
    assert first["booked_on"] == pd.Timestamp(2017, 2, 20)
    assert reservations["previous_stays"].tolist() == [0, 0, 0, 0, 3]
    assert outcomes["status"].tolist() == ["stayed", "stayed", "canceled", "canceled", "canceled"]
    assert set(problems["row"]) == {5}
    assert "2018 2 29" in " ".join(problems["rule"])


def test_an_export_of_a_portal_loads(write: Callable[..., Path]) -> None:
    reservations, outcomes, problems = load(write(PORTAL))
    assert problems.empty
    first = reservations.loc[1]
    assert (first["hotel"], first["adults"], first["babies"]) == ("Casa Azul", 2.0, 0.0)
    assert (first["booked_on"], first["arrival_on"]) == (pd.Timestamp(2024, 1, 15), pd.Timestamp(2024, 4, 13))
    assert (first["weekend_nights"], first["week_nights"]) == (2.0, 2.0)
    assert first["price"] == pytest.approx(1234.5 / 4)
    assert outcomes["status"].to_dict() == {1: "stayed", 2: "canceled", 4: "no_show"}


def test_a_german_export_loads(write: Callable[..., Path]) -> None:
    reservations, outcomes, problems = load(write(GERMAN.encode("cp1252")))
    assert problems.empty
    assert reservations["room_type"].tolist() == ["Doppel Süd", "Einzel", "Doppel Süd", "Einzel"]
    assert reservations["price"].tolist() == [1089.5, 79.0, 119.0, 99.9]
    assert reservations["arrival_on"].iloc[0] == pd.Timestamp(2024, 4, 3)
    assert outcomes["status"].to_dict() == {1: "stayed", 2: "canceled", 4: "no_show"}
    assert outcomes["known_on"].to_dict() == {1: pd.NaT, 2: pd.Timestamp(2024, 2, 20), 4: pd.Timestamp(2024, 4, 11)}


def test_an_american_export_loads(write: Callable[..., Path]) -> None:
    path = write(AMERICAN)
    reservations, outcomes, problems = load(path)
    assert problems.empty
    assert reservations["arrival_on"].iloc[0] == pd.Timestamp(2024, 4, 3)
    assert reservations["booked_on"].iloc[0] == pd.Timestamp(2024, 1, 15)
    assert reservations["price"].tolist() == [1089.5, 79.0, 119.0, 99.9]
    assert outcomes["status"].to_dict() == {1: "stayed", 2: "canceled", 4: "no_show"}
    assert 'bed = { kind = "category", column = "Bed" }' in draft_file(path).text


def test_a_french_export_loads(write: Callable[..., Path]) -> None:
    reservations, outcomes, problems = load(write(FRENCH))
    assert problems.empty
    assert reservations["arrival_on"].iloc[0] == pd.Timestamp(2024, 5, 2)
    assert reservations["price"].tolist() == [100.0, 150.0, 150.5]
    assert outcomes["status"].to_dict() == {1: "canceled", 3: "stayed"}


def test_the_smallest_table_loads_and_what_was_assumed_is_said(write: Callable[..., Path]) -> None:
    path = write(SMALLEST)
    reservations, outcomes, problems = load(path)
    assert problems.empty and outcomes.empty
    assert reservations["adults"].tolist() == [2.0, 2.0]
    lines = draft_file(path).text.splitlines()
    for assumed in ("reservation_id = ", "hotel = ", "adults = "):
        [place] = [n for n, line in enumerate(lines) if line.startswith(assumed)]
        assert lines[place - 1].startswith("# check: ")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("zipped", [False, True])
def test_encodings_and_gzip_are_seen(write: Callable[..., Path], encoding: str, zipped: bool) -> None:
    content = GERMAN.encode(encoding)
    reservations, _, problems = load(write(gzip.compress(content) if zipped else content))
    assert problems.empty
    assert reservations["room_type"].iloc[0] == "Doppel Süd"


@pytest.mark.parametrize(
    "titles",
    [
        "Arrivals report; printed 01.06.2025, front desk\n\n",
        "\ufeffArrivals report;;;;;;;;;;;\n;;;;;;;;;;;\n",
        'Arrivals report\n"from 01.01.2024\nto 31.12.2024"\n',
    ],
)
def test_titles_above_a_table_are_seen(write: Callable[..., Path], titles: str) -> None:
    plain = load(write(GERMAN.replace("Süd", "Sued").replace("ä", "ae"), "plain.csv"))
    path = write(titles + GERMAN.replace("Süd", "Sued").replace("ä", "ae"))
    assert f"\nheader = {titles.count(chr(10)) + 1}\n" in draft_file(path).text
    for found, expected in zip(load(path), plain, strict=True):
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("table", [SMALLEST, ",arrival,nights\n0,2024-05-01,2\n", "id,,,\n1,x,y,z\n", "a\n1\n2\n"])
def test_a_table_without_titles_begins_with_its_header(write: Callable[..., Path], table: str) -> None:
    assert "header =" not in draft_file(write(table)).text


def test_spellings_of_nothing_are_seen(write: Callable[..., Path]) -> None:
    path = write("arrival,nights,booked,children,agent\n2024-05-01,2,2024-01-02,-,9\n2024-05-03,1,2024-01-05,1,k.A.\n")
    reservations, _, problems = load(path)
    assert problems.empty
    assert reservations["children"].isna().tolist() == [True, False]
    assert reservations["agent"].isna().tolist() == [False, True]


def test_typed_columns_of_parquet_load(tmp_path: Path) -> None:
    path = tmp_path / "bookings.parquet"
    pd.DataFrame(
        {
            "booking_id": [1, 2],
            "property": ["a", "b"],
            "check_in": pd.to_datetime(["2024-05-01", "2024-05-03"]),
            "check_out": pd.to_datetime(["2024-05-02", "2024-05-05"]),
            "created_at": pd.to_datetime(["2024-01-01T23:30Z", "2024-01-02T10:00Z"]),
            "guests": [2, 3],
            "is_canceled": [True, False],
        }
    ).to_parquet(path)
    reservations, outcomes, problems = load(path)
    assert problems.empty
    assert reservations["reservation_id"].tolist() == ["1", "2"]
    assert outcomes["status"].tolist() == ["canceled", "stayed"]
    assert 'timezone = "UTC"' in draft_file(path).text


@pytest.mark.parametrize(("zone", "drafted"), [("Asia/Tokyo", "Asia/Tokyo"), ("UTC", "UTC"), ("+09:00", "UTC")])
def test_the_zone_of_typed_times_is_the_hotels(tmp_path: Path, zone: str, drafted: str) -> None:
    booked = pd.Series(pd.date_range("2024-01-01 20:00", periods=9, tz="UTC")).dt.tz_convert(zone)
    path = tmp_path / "bookings.parquet"
    pd.DataFrame({"id": range(9), "arrival": "2024-05-01", "nights": 1, "booked": booked}).to_parquet(path)
    assert f'\ntimezone = "{drafted}"' in draft_file(path).text
    assert load(path)[0]["booked_on"].iloc[0] == pd.Timestamp(2024, 1, 2 if zone == "Asia/Tokyo" else 1)


@pytest.mark.skipif(not PUBLIC.is_file(), reason="the public table is not beside the project")
def test_the_public_table_is_drafted_as_it_is_packaged() -> None:
    drafted, known = parse(draft_file(PUBLIC).text), packaged()["hotel_bookings"]
    assert drafted.reservation == known.reservation
    assert drafted.outcome == known.outcome
    assert drafted.source == known.source


# --- what is uncertain --------------------------------------------------------------------------------


def days(*texts: str) -> str:
    return "id,arrival,nights,booked\n" + "".join(f"{n},{text},2,2023-01-0{n}\n" for n, text in enumerate(texts, 1))


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (("13/04/2024", "05/06/2024", "07/08/2024"), "%d/%m/%Y"),
        (("04/13/2024", "05/06/2024", "07/08/2024"), "%m/%d/%Y"),
        (("13-04-24", "05-06-24", "07-08-24"), "%d-%m-%y"),
        (("2024/04/13", "2024/05/06", "2024/08/07"), "%Y/%m/%d"),
        (("20240413", "20240506", "20240807"), "%Y%m%d"),
        (("13 Apr 2024", "5 Jun 2024", "7 Aug 2024"), "%d %b %Y"),
        (("April 13, 2024", "June 5, 2024", "August 7, 2024"), "%B %d, %Y"),
        (("13.04.2024 15:00", "05.06.2024 00:00", "07.08.2024 12:30"), "%d.%m.%Y %H:%M"),
    ],
)
def test_the_form_of_dates_is_told_by_their_values(
    write: Callable[..., Path], texts: tuple[str, ...], form: str
) -> None:
    path = write(days(*(f'"{text}"' for text in texts)))
    assert f'format = "{form}"' in draft_file(path).text
    assert load(path)[2].empty


@pytest.mark.parametrize("sign", "/.-")
def test_years_of_two_digits_that_come_first_are_told_from_days(write: Callable[..., Path], sign: str) -> None:
    booked = [date(2023, 11, 5) + timedelta(9 * n) for n in range(40)]
    rows = [
        f"{n},{day + timedelta(30):%y{sign}%m{sign}%d},2,{day:%y{sign}%m{sign}%d}\n" for n, day in enumerate(booked)
    ]
    reservations, _, problems = load(write("id,arrival,nights,booked\n" + "".join(rows)))
    assert problems.empty
    assert reservations["booked_on"].dt.date.tolist() == booked


def test_dates_that_fit_both_ways_are_read_day_first_and_asked_about(write: Callable[..., Path]) -> None:
    text = draft_file(write(days("03/04/2024", "05/06/2024", "07/08/2024"))).text
    assert re.search(r"# check: its values fit day first and month first; day first.*\narrival_on = .*%d/%m/%Y", text)


def test_the_other_dates_settle_what_one_column_leaves_open(write: Callable[..., Path]) -> None:
    table = "id,arrival,departure,booked\n1,04/03/2024,04/15/2024,01/02/2024\n2,05/06/2024,05/28/2024,01/03/2024\n"
    reservations, _, problems = load(write(table))
    assert problems.empty
    assert reservations["arrival_on"].tolist() == [pd.Timestamp(2024, 4, 3), pd.Timestamp(2024, 5, 6)]


def test_dates_without_a_telling_name_are_told_by_their_order(write: Callable[..., Path]) -> None:
    rows = "".join(f"k{n},2024-05-{n + 3:02d},2024-0{1 + n % 3}-07,2024-05-{n + 1:02d}\n" for n in range(1, 9))
    path = write("ref,d1,d2,d3\n" + rows)
    reservations, _, problems = load(path)
    assert problems.empty
    assert reservations["arrival_on"].iloc[0] == pd.Timestamp(2024, 5, 2)
    assert "guessed by the order of the dates" in draft_file(path).text


@pytest.mark.parametrize("name", ["Cancelled", "CancelledUtc", "Storniert", "cancellation"])
def test_a_column_of_dates_that_is_called_cancelled_tells_the_day(write: Callable[..., Path], name: str) -> None:
    head = f"id,arrival,nights,booked,{name},status\n"
    table = f"{head}1,2024-05-01,2,2024-01-02,2024-02-02,Canceled\n2,2024-05-03,1,2024-01-05,,Confirmed\n"
    assert load(write(table))[1]["known_on"].tolist() == [pd.Timestamp(2024, 2, 2)]


def test_statuses_at_the_end_of_a_long_table_are_seen(write: Callable[..., Path]) -> None:
    rows = [f"{n},2024-05-01,2,2024-01-02,{'Stayed' if n < 59_000 else 'Confirmed'}\n" for n in range(60_000)]
    path = write("id,arrival,nights,booked,status\n" + "".join(rows))
    assert '"Confirmed" = ""' in draft_file(path).text


@pytest.mark.parametrize("rows", [7, 8, 9, 20, 99])
def test_a_draft_looks_at_rows_evenly_spread_over_the_table(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(draft, "SEEN_ROWS", 8)
    table = open_file(write("id,note\n" + "".join(f"{n},x\n" for n in range(rows))), Reading())
    cut = SimpleNamespace(columns=table.columns, place=table.place, chunks=lambda: table.chunks(3))
    sample, read = draft._sample(cast(Table, cut))
    step = {7: 1, 8: 1, 9: 2, 20: 4, 99: 16}[rows]
    assert (sample["id"].tolist(), read) == ([str(n) for n in range(0, rows, step)], rows)


def test_codes_among_which_some_are_like_yes_and_no_are_left_for_a_person(write: Callable[..., Path]) -> None:
    rows = [f"{n},2024-05-01,2,2024-01-02,{code}\n" for n, code in enumerate("XNO")]
    text = draft_file(write("id,arrival,nights,booked,status\n" + "".join(rows))).text
    assert [line for line in text.splitlines() if line.startswith('# "')] == ['# "N" = ""', '# "O" = ""', '# "X" = ""']


def test_statuses_that_nobody_knows_are_left_for_a_person(write: Callable[..., Path]) -> None:
    table = "id,arrival,nights,booked,status\n1,2024-05-01,2,2024-01-02,Cancelled\n2,2024-05-03,1,2024-01-05,Zzyzx\n"
    text = draft_file(write(table)).text
    assert '# check: 1 row; is it canceled, no_show, stayed, or "" for none yet?\n# "Zzyzx" = ""' in text
    assert tomllib.loads(text)["outcome"]["status"]["map"] == {"Cancelled": "canceled"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Canceled", "canceled"),
        ("CANCELLED BY HOST", "canceled"),
        ("storniert", "canceled"),
        ("Annulée", "canceled"),
        ("Cancelada", "canceled"),
        ("Annullata", "canceled"),
        ("No-Show", "no_show"),
        ("NoShow", "no_show"),
        ("Nicht angereist", "no_show"),
        ("Check-Out", "stayed"),
        ("checked_out", "stayed"),
        ("Departed", "stayed"),
        ("C/O", "stayed"),
        ("C/I", ""),
        ("ausgecheckt", "stayed"),
        ("Not_Canceled", "stayed"),
        ("Confirmed", ""),
        ("In House", ""),
        ("Checked In", ""),
        ("Pending", ""),
        ("bestätigt", ""),
        ("Confirmada", ""),
    ],
)
def test_words_for_how_bookings_end_are_known(write: Callable[..., Path], theirs: str, ours: str) -> None:
    path = write(f"id,arrival,nights,booked,status\n1,2024-05-01,2,2024-01-02,{theirs}\n")
    assert tomllib.loads(draft_file(path).text)["outcome"]["status"]["map"] == {theirs: ours}


# --- what a model must not see ----------------------------------------------------------------------


WIDE = """\
id,arrival,nights,booked,breakfast,Device,guest_email,Guest phone,last name,assigned_room,checkout_time,cancel_reason,booking changes,days in waiting list,amount paid,who
1,2024-05-01,2,2024-01-02,yes,app,a@b.org,+351 1,Ek,12,10:00,ill,0,0,100,x@y.org
2,2024-05-03,1,2024-01-05,no,web,c@d.org,+351 2,Wu,14,11:00,,2,3,0,z@y.org
3,2024-05-04,1,2024-01-06,no,web,e@f.org,+351 3,Li,14,11:30,,1,0,50,q@y.org
"""  # noqa: E501


def test_only_what_is_known_at_booking_is_offered_and_the_rest_is_named_with_its_reason(
    write: Callable[..., Path],
) -> None:
    text = draft_file(write(WIDE)).text
    offered = set(re.findall(r'^# \w+ = \{ kind = .* column = "(.*)" \}$', text, re.MULTILINE))
    assert offered == {"breakfast", "Device"}
    for name, reason in {
        "guest_email": "personal",
        "Guest phone": "personal",
        "last name": "personal",
        "who": "personal",
        "assigned_room": "assigned later",
        "checkout_time": "at the stay",
        "cancel_reason": "tells the outcome",
        "booking changes": "grows",
        "days in waiting list": "once the waiting is over",
        "amount paid": "paid later",
    }.items():
        assert re.search(rf'^# "{name}": .*{reason}', text, re.MULTILINE), name


def test_a_column_that_feeds_nothing_in_the_end_is_named(write: Callable[..., Path]) -> None:
    text = draft_file(write(outcomes_told_by("adr,total_revenue", "9,18", "8,16"))).text
    assert '# "total_revenue": it sounds like total_price, and another column feeds that' in text


def test_whether_a_booking_is_refundable_is_known_when_it_is_made(write: Callable[..., Path]) -> None:
    head = "id,arrival,nights,booked,refundable,days_since_booking\n"
    text = draft_file(write(f"{head}1,2024-05-01,2,2024-01-02,true,90\n2,2024-05-03,1,2024-01-05,false,87\n")).text
    assert re.search('^# refundable = .* column = "refundable" }$', text, re.MULTILINE)
    assert '# "days_since_booking": it grows with the booking\'s age' in text


def test_offered_features_load_when_they_are_taken(write: Callable[..., Path]) -> None:
    path = write(WIDE)
    text = re.sub(r"^# (\w+ = \{ kind)", r"\1", draft_file(path).text, flags=re.MULTILINE)
    mapping = parse(text)
    [batch] = MappedTable(open_file(path, mapping.source), mapping, name="wide").batches()
    assert batch.reservations is not None
    assert batch.reservations["breakfast"].tolist() == ["yes", "no", "no"]


def test_a_column_that_sounds_like_another_one_is_not_offered_beside_it(write: Callable[..., Path]) -> None:
    head = "id,arrival,nights,booked,adults,persons,price\n"
    table = f"{head}1,2024-05-01,2,2024-01-02,2,3,dear\n2,2024-05-03,1,2024-01-05,1,1,cheap\n"
    text = draft_file(write(table)).text
    assert '# "persons": it sounds like adults, and another column feeds that' in text
    assert '# "price": it sounds like price, and its values do not look like that' in text
    assert "kind" not in text


def outcomes_told_by(column: str, canceled: str, stayed: str, kept: str = "Stayed") -> str:
    rows = [
        f"{n},{date(2024, 5, 1) + timedelta(n)},2,2024-01-02,{'Canceled' if n % 2 else kept},"
        f"{canceled if n % 2 else stayed}\n"
        for n in range(60)
    ]
    return f"id,arrival,nights,booked,status,{column}\n" + "".join(rows)


def test_a_price_that_cancelled_bookings_lack_is_left_out(write: Callable[..., Path]) -> None:
    path = write(outcomes_told_by("Earnings", "0", "120"))
    assert re.search('^# total_price = "Earnings" .*leaks$', draft_file(path).text, re.MULTILINE)
    assert '\ntotal_price = "Earnings"' in draft_file(write(outcomes_told_by("Earnings", "95", "120"))).text


def test_a_price_that_cancelled_bookings_lack_is_left_out_where_no_status_says_stayed(
    write: Callable[..., Path],
) -> None:
    path = write(outcomes_told_by("Total payout", "0", "120", kept="Confirmed"))
    assert re.search('^# total_price = "Total payout" .*leaks$', draft_file(path).text, re.MULTILINE)


def priced(name: str, *, by_stay: bool) -> str:
    rows = [
        f"{n},2024-05-{1 + n % 28:02d},{1 + n % 5},2024-01-{1 + n % 28:02d},"
        f"{(80 + n % 7) * (1 + n % 5 if by_stay else 1)},{'Canceled' if n % 3 else 'Stayed'}\n"
        for n in range(100)
    ]
    return f"id,arrival,nights,booked,{name},status\n" + "".join(rows)


def test_a_price_with_the_code_of_its_currency_is_a_price(write: Callable[..., Path]) -> None:
    path = write(outcomes_told_by("Price", '"1,095.50 EUR"', "120 EUR"))
    assert load(path)[0]["price"].unique().tolist() == [120, 1095.5]


def test_amounts_of_several_currencies_are_asked_about(write: Callable[..., Path]) -> None:
    text = draft_file(write(outcomes_told_by("Price", "95 USD", "€ 120"))).text
    assert "# check: amounts in USD, € stand side by side" in text
    assert "side by side" not in draft_file(write(outcomes_told_by("Price", "95 €", "€ 1"))).text


def test_an_id_that_stands_in_several_rows_is_asked_about(write: Callable[..., Path]) -> None:
    rows = [f"C{n // 3},2024-05-01,3,2024-01-02,2024-05-0{1 + n % 3}\n" for n in range(30)]
    text = draft_file(write("Confirmation No,arrival,nights,booked,stay date\n" + "".join(rows))).text
    assert '# check: "Confirmation No" sounds like it, and each of its values stands in 3.0 rows' in text
    assert '# "Confirmation No": it sounds like reservation_id, and its values do not look like that' in text


@pytest.mark.parametrize("name", ["Price", "Rate", "Total", "Amount"])
@pytest.mark.parametrize("by_stay", [True, False])
def test_a_price_of_the_stay_and_one_of_a_night_are_told_apart_by_how_they_grow(
    write: Callable[..., Path], name: str, by_stay: bool
) -> None:
    path = write(priced(name, by_stay=by_stay))
    text = draft_file(path).text
    right, wrong = ("total_price", "price") if by_stay else ("price", "total_price")
    assert f'\n{right} = "{name}"' in text
    assert load(path)[0]["price"].between(80, 87).all()

    mapping = parse(text.replace(f'\n{right} = "', f'\n{wrong} = "'))
    told = check(MappedTable(open_file(path, mapping.source), mapping, name="x"), Quarantine(), TODAY).warnings
    assert f"which feeds {right}" in " ".join(told)
    assert "by the night" not in " ".join(checked(path).warnings)


def test_of_two_prices_the_one_that_does_not_tell_the_outcome_is_taken(write: Callable[..., Path]) -> None:
    path = write(outcomes_told_by("Grand Total,Accommodation Total", "0,120", "132,120"))
    assert '\ntotal_price = "Accommodation Total"' in draft_file(path).text


def test_a_field_that_only_guests_who_came_have_is_left_out(write: Callable[..., Path]) -> None:
    text = draft_file(write(outcomes_told_by("ROOM", "", "117"))).text
    assert "room_type =" not in text and '# "ROOM": ' in text
    text = draft_file(write(outcomes_told_by("Room type", "", "Double"))).text
    assert re.search('^# room_type = "Room type" .*missing where bookings were cancelled.*leaks$', text, re.MULTILINE)


@pytest.mark.parametrize(
    ("canceled", "stayed", "told"),
    [("0", "35", '"0"'), ("a", "b", '"a"'), ("0.00", "41.5", '"0"'), ("no", "yes", '"no"')],
)
def test_a_column_that_has_one_value_where_bookings_were_cancelled_is_no_feature(
    write: Callable[..., Path], canceled: str, stayed: str, told: str
) -> None:
    text = draft_file(write(outcomes_told_by("door", canceled, stayed))).text
    assert f'# "door": it is {told} where bookings were cancelled, or stayed: it tells the outcome' in text
    assert "kind" not in text


def test_a_column_that_is_empty_where_bookings_were_cancelled_is_no_feature(write: Callable[..., Path]) -> None:
    rows = outcomes_told_by("door", "", "a").splitlines()
    text = draft_file(write("\n".join([*rows[:-2], f"{rows[-2].removesuffix('a')}b", rows[-1]]))).text
    assert '# "door": it is missing where bookings were cancelled, or stayed: it tells the outcome' in text


def test_a_column_whose_values_cancelled_bookings_share_is_offered(write: Callable[..., Path]) -> None:
    rows = outcomes_told_by("door", "a", "a").splitlines()
    text = "\n".join(row.removesuffix(",a") + (",b" if n % 3 == 0 else ",a") for n, row in enumerate(rows[1:]))
    assert '# door = { kind = "category"' in draft_file(write(f"{rows[0]}\n{text}\n")).text


def test_a_table_of_outcomes_alone_is_drafted_as_one(write: Callable[..., Path]) -> None:
    path = write("booking_ref,final_status,cancelled_on\n7,Cancelled,2024-02-03\n8,Stayed,\n9,No-show,2024-03-04\n")
    [batch] = mapped(path).batches()
    assert batch.reservations is None
    assert batch.outcomes["reservation_id"].tolist() == ["7", "8", "9"]
    assert batch.outcomes["status"].tolist() == ["canceled", "stayed", "no_show"]
    assert batch.outcomes["known_on"].tolist() == [pd.Timestamp(2024, 2, 3), pd.NaT, pd.Timestamp(2024, 3, 4)]


# --- what is missing, and what is no table ------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "missing"),
    [
        ("id,nights,booked\n1,2,2024-01-02\n", {"arrival_on"}),
        ("id,arrival,nights\n1,2024-05-01,2\n", {"booked_on"}),
        ("id,arrival,booked\n1,2024-05-01,2024-01-02\n", {"departure_on"}),
        ("colour\nred\n", {"arrival_on", "booked_on", "departure_on"}),
    ],
)
def test_what_a_reservation_needs_and_nothing_feeds_is_named(
    write: Callable[..., Path], table: str, missing: set[str]
) -> None:
    draft = draft_file(write(table))
    assert set(draft.missing) == missing
    assert set(re.findall(r'^# (\w+) = "…"  # required: ', draft.text, re.MULTILINE)) == missing
    with pytest.raises(BadInput, match=r"is missing"):
        parse(draft.text)


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n", b"a,a\n1,2\n", b"PAR1", b"\x1f\x8b\x08", b"\x00\x01\x02\x03", b"PK\3\4"]
)
def test_what_is_no_table_gets_a_sentence(write: Callable[..., Path], content: bytes) -> None:
    with pytest.raises(BadInput):
        draft_file(write(content))


names = st.sampled_from(
    ["arrival", "Anreise", "booked", "nights", "adults", "status", "id", "price", "Datum"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.sampled_from(
    [
        "2024-05-01",
        "03/04/2024",
        "13.04.24",
        "2",
        "0",
        "1.234,50",
        "canceled",
        "no",
        "-",
        "\x7f",
        "\u2028",
        "NaN",
        "inf",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_table_gives_a_mapping_or_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    header = data.draw(st.lists(names, min_size=1, max_size=7))
    rows = data.draw(st.lists(st.lists(values, min_size=len(header), max_size=len(header)), min_size=1, max_size=5))
    path = tmp_path / "any.csv"
    pd.DataFrame([header, *rows]).to_csv(path, index=False, header=False)
    try:
        draft = draft_file(path)
    except BadInput:
        return
    tomllib.loads(draft.text)
    assert draft_file(path) == draft
    if draft.missing:
        with pytest.raises(BadInput):
            parse(draft.text)
    else:
        parse(draft.text)


def test_a_query_is_drafted_with_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'pms.db'}"
    frame = pd.DataFrame(
        {"res_no": ["a", "b"], "arrival": ["2024-05-01"] * 2, "nights": [1, 2], "booked": ["2024-01-01"] * 2}
    )
    frame.to_sql("stays", url, index=False)
    draft = draft_query('SELECT * FROM "stays" ORDER BY 1', url=url)
    assert draft.missing == ()
    assert parse(draft.text).source.query == 'SELECT * FROM "stays" ORDER BY 1'
    monkeypatch.setitem(os.environ, "PMS_URL", url)
    assert 'url_env = "PMS_URL"' in draft_query("SELECT * FROM stays", url_env="PMS_URL").text
    assert draft_query("SELECT arrival, nights, booked FROM stays", url=url).missing == ("reservation_id",)


# --- what a check sees ----------------------------------------------------------------------------------


def test_a_check_counts_rows_rules_and_outcomes(write: Callable[..., Path]) -> None:
    found = checked(write(HOTEL_RESERVATIONS))
    assert len(found.broken) == 1
    assert (found.rows, found.loaded, found.quarantined, found.passes) == (5, 4, 1, True)
    [broken] = [b for b in found.broken if "year, month and day" in b.rule]
    assert (broken.column, broken.rows, broken.first_row) == ("arrival_on", 1, 5)
    assert broken.example == "arrival_year = 2018, arrival_month = 2, arrival_date = 29"
    assert found.statuses == {"canceled": 3, "stayed": 2}
    assert found.cancel_rate == pytest.approx(0.6)
    assert found.undated == 5
    assert {"babies", "agent", "company"} <= set(found.without)
    [lead] = [f for f in found.fields if f.name == "lead_days"]
    assert lead.examples[0] == "224 → 2017-02-20"


def test_a_check_of_the_first_rows_says_that_there_are_more(write: Callable[..., Path]) -> None:
    path = write(HOTEL_RESERVATIONS)
    assert (checked(path, rows=2).rows, checked(path, rows=2).whole) == (2, False)
    assert (checked(path, rows=5).rows, checked(path, rows=5).whole) == (5, True)
    with pytest.raises(BadInput):
        checked(path, rows=0)


def many(booked: str = "2024-01-02", arrival: str = "2024-05-01", extra: str = "Stayed,100", rows: int = 40) -> str:
    head = "id,arrival,nights,booked,adults,status,adr\n"
    return head + "".join(f"{n},{arrival},2,{booked},2,{extra}\n" for n in range(rows))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (many(), "on one day"),
        (many(booked="2024-06-02"), "arrive before they were made"),
        (many(booked="2030-06-02", arrival="2030-07-01"), "after today"),
        (many(extra="Canceled,100"), "were cancelled"),
        (many(extra="Stayed,4000"), "cost more than"),
        (many(extra="Stayed,100"), "none is open"),
        (many(extra="Confirmed,100"), "should have arrived"),
        (outcomes_told_by("adr", "0", "90"), "price is 0 or missing for 100% of the cancelled and 0% of the kept"),
        (outcomes_told_by("adr", "0", "90", kept="Confirmed"), "the outcome changed it"),
        (outcomes_told_by("Room type", "", "Double"), "room_type is missing for 100% of the cancelled"),
        (outcomes_told_by("spa", "0", "7"), "spa is 0 or missing for 100% of the cancelled"),
    ],
)
def test_a_check_warns_of_what_is_probably_wrong(write: Callable[..., Path], table: str, told: str) -> None:
    path = write(table)
    text = draft_file(path).text
    for left_out in ('price = "adr"', 'room_type = "Room type"'):
        text = text.replace(f"# {left_out}", left_out)
    if '"spa"' in text:
        text += '[features]\nspa = { kind = "number", column = "spa" }\n'
    mapping = parse(text)
    found = check(MappedTable(open_file(path, mapping.source), mapping, name="x"), Quarantine(), TODAY)
    assert told in " ".join(found.warnings)


def test_a_sound_table_gives_no_warning(write: Callable[..., Path]) -> None:
    rows = [
        f"{n},2025-0{5 + n % 3}-1{n % 10},2,2025-01-{1 + n % 28:02d},2,"
        f"{'Canceled' if n % 3 == 0 else 'Stayed' if n % 3 == 1 else 'Confirmed'},100\n"
        for n in range(60)
    ]
    found = checked(write("id,arrival,nights,booked,adults,status,adr\n" + "".join(rows)))
    assert (found.warnings, found.quarantined) == ((), 0)


def test_rows_with_the_id_of_another_one_go_to_quarantine_and_repeated_ones_do_not(write: Callable[..., Path]) -> None:
    lines = many(rows=5).splitlines()
    again = [*lines, lines[1], lines[2].replace("Stayed", "Canceled")]
    found = checked(write("\n".join(again) + "\n"))
    assert (found.loaded, found.repeated, found.quarantined) == (5, 1, 1)
    assert "not unique" in " ".join(found.warnings)


def test_an_outcome_before_its_booking_goes_to_quarantine_in_a_check_as_in_a_load(write: Callable[..., Path]) -> None:
    found = checked(write(GERMAN.replace("20.02.2024", "20.02.2023").encode("cp1252")))
    [broken] = found.broken
    assert (broken.column, broken.rule, broken.first_row) == ("known_on", "lies before booked_on", 2)
    assert (found.loaded, found.quarantined) == (3, 1)


def test_many_unreadable_rows_would_stop_a_load(write: Callable[..., Path]) -> None:
    good = many(rows=30)
    path = write(good)
    mapping = parse(draft_file(path).text)
    write(good + "".join(f"x{n},2024-13-01,2,2024-01-02,2,Stayed,100\n" for n in range(10)))
    found = check(MappedTable(open_file(path, mapping.source), mapping, name="x"), Quarantine(), TODAY)
    assert (found.quarantined, found.passes) == (10, False)
    assert [(b.column, b.rows, b.first_row) for b in found.broken] == [("arrival_on", 10, 31)]
    assert found.broken[0].example == "arrival = 2024-13-01"


# --- the page -------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/mapping.md").read_text()


def test_the_example_of_the_page_is_what_a_draft_gives(write: Callable[..., Path]) -> None:
    table, told = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0] for kind in ("csv", "toml"))
    drafted = draft_file(write(table)).text
    assert [line for line in told.splitlines() if line and line not in drafted.splitlines()] == []
    assert tomllib.loads(told) == tomllib.loads(drafted)
    assert checked(write(table)).quarantined == 1


@pytest.mark.parametrize(
    "expression", re.findall(r"^\| `(.*?)` \| ", PAGE.partition("## What a table")[0], re.MULTILINE)
)
def test_every_expression_of_the_page_is_one(expression: str) -> None:
    field = "reservation_id" if "row_number" in expression else "arrival_on" if "year" in expression else "meal"
    field = "adults" if "sum" in expression else "arrival_on" if "format" in expression else field
    given = {
        "reservation_id": '"id"',
        "hotel": '"h"',
        "booked_on": '"b"',
        "arrival_on": '"a"',
        "nights": '"n"',
        "adults": '"g"',
        field: expression,
    }
    lines = "\n".join(f"{name} = {value}" for name, value in given.items())
    assert field in parse(f"format = 1\n[reservation]\n{lines}\n").fed


def test_the_fallbacks_of_the_page_are_those_of_the_columns() -> None:
    section = PAGE.partition("## What a table may lack")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", section, re.MULTILINE)
    told = {name: becomes for names, becomes in rows for name in re.findall(r"`(\w+)`", names)}
    assert told == {c.name: c.without for c in COLUMNS if not c.required}
    needed = section.partition("Needed are")[2].partition("The rest")[0]
    assert all(f"`{c.name}`" in needed or c.name.endswith("_nights") for c in COLUMNS if c.required)
