"""A mapping says what it means, or gets a sentence that names the key, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cancellations.domain.reservation import COLUMNS, NAMES, Column
from cancellations.errors import BadInput
from cancellations.ports import Undated
from cancellations.sources.mapping import MISSING, Constant, DateParts, Read, Sum, parse, read_mapping

TEXT = """\
format = 1
name = "pms"
[source]
delimiter = ";"
[reservation]
reservation_id = "id"
hotel = { constant = "City" }
lead_days = "lead"
arrival_on = { year = "y", month = "m", day = 1 }
nights = "n"
adults = { sum = ["men", "women"] }
[outcome]
status = { column = "state", map = { C = "canceled", X = "" } }
[features]
loyalty = { kind = "number", column = "points", low = 0, high = 1e6 }
tier = { kind = "category", concat = ["club", "level"], separator = "-" }
[limits]
price = { low = 0, high = 500000 }
"""


def test_a_mapping_keeps_its_text_and_knows_what_it_reads_and_delivers() -> None:
    mapping = parse(TEXT)
    assert (mapping.text, mapping.name) == (TEXT, "pms")
    assert mapping.source.missing == MISSING
    assert mapping.source_columns == ("id", "lead", "y", "m", "n", "men", "women", "state", "points", "club", "level")
    assert mapping.fed == {
        *("reservation_id", "hotel", "booked_on", "arrival_on", "weekend_nights", "week_nights", "adults")
    }
    assert mapping.extras == (Column("loyalty", "number", low=0, high=1e6), Column("tier", "category"))
    assert tuple(c.name for c in mapping.columns) == (*NAMES, "loyalty", "tier")


def test_expressions_are_told_apart_by_their_keys() -> None:
    reservation = parse(TEXT).reservation
    assert reservation is not None
    assert reservation["reservation_id"] == Read(column="id")
    assert reservation["hotel"] == Constant(constant="City")
    assert reservation["arrival_on"] == DateParts(year="y", month="m", day=1)
    assert reservation["adults"] == Sum(sum=["men", "women"])


def test_limits_replace_the_canonical_ones_and_only_those_that_are_told() -> None:
    [price] = [c for c in parse(TEXT).columns if c.name == "price"]
    assert (price.low, price.high) == (0, 500_000)
    [price] = [c for c in parse(TEXT.replace("low = 0, high = 500000", "high = 9e9")).columns if c.name == "price"]
    assert (price.low, price.high) == (0, 9e9)
    plain = parse(TEXT.split("[limits]")[0])
    assert plain.columns[: len(COLUMNS)] == COLUMNS


def test_outcomes_may_come_alone_and_say_when_they_count_as_known() -> None:
    mapping = parse('format = 1\n[outcome]\nreservation_id = "id"\nstatus = "s"\nundated = "load"')
    assert mapping.outcome is not None
    assert mapping.outcome.undated is Undated.LOAD
    assert mapping.source_columns == ("id", "s")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("format = 1", "format = 2", "format is 2; this version reads format = 1"),
        ("format = 1\n", "", "format is missing"),
        ("[outcome]", "[outcom]", "there is no key 'outcom'; did you mean 'outcome'"),
        ("[reservation]", "[reservation", "is no TOML"),
        ("hotel =", "hotle =", "reservation: there is no column 'hotle'; did you mean 'hotel'"),
        ("{ constant =", "{ constnt =", "reservation.hotel: there is no key 'constnt'; did you mean 'constant'"),
        ('month = "m"', 'mont = "m"', "reservation.arrival_on: there is no key 'mont'; did you mean 'month'"),
        ('"lead"', "5", "reservation.lead_days: this is no column and no expression. Allowed: "),
        ('"lead"', '{ column = "lead", otherwise = "drop" }', "reservation.lead_days.otherwise: 'drop' cannot be used"),
        ('"lead"', '{ column = "lead", otherwise = "missing" }', "there is no map"),
        ('"lead"', "{ row_number = true }", "only reservation.reservation_id may be one"),
        ('"lead"', '{ year = "y", month = "m", day = "d" }', "make a date, and this is a number"),
        ('"id"', '{ column = "id", format = "%d" }', "a format is for dates, and this is a text"),
        ('"id"', '{ sum = ["a"] }', "a sum is a number, and this is a text"),
        ('{ sum = ["men", "women"] }', '{ constant = "two" }', "reservation.adults: the constant 'two' is no number"),
        ("{ year", '{ constant = "soon" } #', "the constant 'soon' is no date as YYYY-MM-DD"),
        ("adults =", "price =", "reservation.adults is missing: name its column"),
        ("lead_days =", "meal =", "booked_on is missing: name its column, or of lead_days, which it is made of"),
        ("nights =", "week_nights =", "reservation.weekend_nights is missing"),
        ("hotel =", 'booked_on = "b"\nhotel =', "reservation.booked_on and reservation.lead_days tell the same"),
        ("status =", "statuss =", "outcome: there is no key 'statuss'; did you mean 'status'"),
        ('"canceled"', '"cancelled"', "status.map.C is 'cancelled'; did you mean 'canceled'"),
        ("status =", 'reservation_id = "id"\nstatus =', "outcome.reservation_id is the reservation's"),
        ("status =", 'undated = "later"\nstatus =', "outcome.undated: 'later' cannot be used"),
        ("status =", 'action_taken = "a"\nstatus =', "action_taken and acted_on belong together"),
        (
            "status =",
            'action_taken = { column = "a", map = { x = "rang" } }\nacted_on = "d"\nstatus =',
            "action_taken.map.x is 'rang'; Allowed: call, deposit, offer, other, none, and \"\" for nothing told",
        ),
        (
            "status =",
            'action_taken = "a"\nacted_on = { sum = ["d"] }\nstatus =',
            "a sum is a number, and this is a date",
        ),
        ("loyalty =", "action_taken =", "'action_taken' is a name of our own"),
        ('kind = "number", column', 'knd = "number", column', "features.loyalty: there is no key 'knd'"),
        ('kind = "number"', 'kind = "numbr"', "features.loyalty.kind: 'numbr' cannot be used"),
        ('column = "points"', 'colum = "points"', "features.loyalty: there is no key 'colum'; did you mean 'column'"),
        ("low = 0, high = 1e6", "low = 5, high = 1", "features.loyalty: low = 5 lies above high = 1"),
        ("loyalty =", "Loyalty =", "'Loyalty' is no name of a feature"),
        ("loyalty =", "lead_days =", "'lead_days' is a name of our own"),
        ("loyalty =", "group_size =", "'group_size' is a name of our own"),
        ("loyalty =", "extras =", "'extras' is a name of our own"),
        ("price =", "prize =", "limits: there is no column of numbers 'prize'; did you mean 'price'"),
        ("price =", "hotel =", "limits: there is no column of numbers 'hotel'"),
        ('";"', '";;"', "source.delimiter: ';;' is not one sign"),
        ('";"', "'\"'", "delimiter and quote are both"),
        ('delimiter = ";"', 'encoding = "utf9"', "source.encoding: 'utf9' is no encoding"),
        ('delimiter = ";"', 'encoding = "base64"', "source.encoding: 'base64' is no encoding"),
        ('delimiter = ";"', 'timezone = "Mars"', "source.timezone: 'Mars' is no time zone"),
        ('delimiter = ";"', 'decimal = ","\nthousands = ","', "decimal and thousands are both"),
        ('delimiter = ";"', 'url = "sqlite://"', "url needs a query"),
        ('delimiter = ";"', 'query = "SELECT 1"', "a query needs url"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, told: str) -> None:
    assert TEXT.count(old) == 1 or old in ('"lead"', "hotel =", "price =", "nights =", "status =", '";"', '"id"')
    with pytest.raises(BadInput) as error:
        parse(TEXT.replace(old, new, 1), where="pms.toml")
    assert str(error.value).startswith("pms.toml")
    assert told in str(error.value)


def test_rows_of_a_query_have_no_numbers() -> None:
    text = TEXT.replace('delimiter = ";"', 'url_env = "PMS"\nquery = "SELECT 1"').replace(
        '"id"', "{ row_number = true }"
    )
    with pytest.raises(BadInput, match="rows of a query have no fixed order"):
        parse(text)


def test_a_mapping_that_feeds_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match=r"neither \[reservation\] nor \[outcome\]"):
        parse("format = 1")
    with pytest.raises(BadInput, match=r"outcome\.reservation_id is missing"):
        parse('format = 1\n[outcome]\nstatus = "s"')


def test_a_password_in_a_url_is_not_told() -> None:
    text = TEXT.replace('delimiter = ";"', 'url = "postgresql://me:secret@host/x"\nquery = "SELECT 1"\ntypo = 1')
    with pytest.raises(BadInput) as error:
        parse(text)
    assert "secret" not in str(error.value)


def test_a_mapping_is_read_from_a_file_that_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "pms.toml"
    path.write_text(TEXT, encoding="utf-8-sig")
    assert read_mapping(path).name == "pms"
    path.write_bytes(TEXT.replace("City", "Hôtel").encode("cp1252"))
    with pytest.raises(BadInput, match=r"pms\.toml is not written in UTF-8"):
        read_mapping(path)
    with pytest.raises(BadInput, match=r"there is no mapping .*nowhere\.toml"):
        read_mapping(tmp_path / "nowhere.toml")
