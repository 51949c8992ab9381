"""Quarantine: rows go out as they came, come back corrected, and each has one fate that is on record."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import NOW, Clock, CutOff, PowerCut, Table, simulator

from cancellations.errors import BadInput
from cancellations.ports import Load, LoadState, Quarantined, QuarantinedRow, QuarantineState, Store
from cancellations.sources.kept import reopen
from cancellations.sources.mapped import open_table
from cancellations.store import SqlStore
from cancellations.usecases.ingest import LoadPolicy, ingest
from cancellations.usecases.quarantine import Retried, corrections, drop, exported, kinds, retry

TODAY = date(2024, 5, 1)
MAPPING = """
format = 1
[reservation]
reservation_id = "id"
hotel = { constant = "Sea View" }
booked_on = "made"
arrival_on = "arrives"
week_nights = "nights"
weekend_nights = { constant = 0 }
adults = "guests"
price = "rate"
[outcome]
status = { column = "state", map = { X = "canceled", OK = "stayed" } }
known_on = "state_day"
"""
NUMBERED = MAPPING.replace('reservation_id = "id"', "reservation_id = { row_number = true }")
HEADER = "id,made,arrives,nights,guests,rate,state,state_day,source"
GOOD = "B1,2024-01-05,2024-02-01,2,2,80,OK,2024-02-03,web"
NEGATIVE = "B2,2024-01-05,2024-02-01,2,2,-80,OK,2024-02-03,web"
NO_DAY = "B3,2024-01-05,2024-02-31,2,2,80,OK,2024-02-03,=1+1"
SHORT = "B4,2024-01-05,2024-02-01,2,2,80"
TWICE = "B1,2024-01-05,2024-02-01,2,2,90,OK,2024-02-03,web"


def load(
    store: Store, folder: Path, *lines: str, mapping: str = MAPPING, name: str = "hotel.csv", until: date = TODAY
) -> Load:
    file, by = folder / name, folder / "by.toml"
    file.write_text("\n".join([HEADER, *lines, ""]))
    by.write_text(mapping)
    policy = LoadPolicy(quarantine_limit=1.0)
    return ingest(open_table(file, by), store, after=None, until=until, clock=Clock(), policy=policy)


def again(store: Store, **how: Any) -> Retried:
    return retry(store, reopen, until=how.pop("until", TODAY), clock=Clock(), policy=LoadPolicy(), **how)


def rows(store: SqlStore, *states: QuarantineState) -> dict[int, Quarantined]:
    with store.begin() as work:
        return {q.number: q for q in work.quarantined(*states)}


def number_of(store: SqlStore, row: int) -> int:
    [number] = [n for n, q in rows(store).items() if q.row.row == row]
    return number


def bookings(store: SqlStore) -> dict[str, float]:
    with store.begin() as work:
        found = work.history(TODAY, TODAY)
    return dict(zip(found["reservation_id"], found["price"], strict=True))


def file_of(store: SqlStore, changes: dict[int, dict[str, str]] | None = None) -> list[list[str]]:
    """Waiting rows exported, values changed by row number in their source, through a real CSV text."""
    lines = list(exported(list(rows(store, QuarantineState.WAITING).values())))
    for line in lines[1:]:
        for column, value in (changes or {}).get(int(line[2]), {}).items():
            line[lines[0].index(column, 4)] = value
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return list(csv.reader(io.StringIO(text.getvalue())))


def accounted(done: Retried) -> bool:
    return all(
        c.read == c.outside + c.loaded + c.updated + c.unchanged + c.quarantined for c in (d.counts for d in done.loads)
    )


# --- again ----------------------------------------------------------------------------------------


def test_a_corrected_file_brings_the_rows_that_it_corrects_and_the_others_wait(store: SqlStore, tmp_path: Path) -> None:
    load(store, tmp_path, GOOD, NEGATIVE, NO_DAY, SHORT)
    assert bookings(store) == {"B1": 80}
    done = again(store, lines=file_of(store, {2: {"rate": "85"}, 3: {"arrives": "2024-02-30"}}))
    counts = done.loads[0].counts
    assert (counts.source, counts.read, counts.loaded, counts.quarantined) == ("hotel.csv (quarantine)", 3, 1, 2)
    assert accounted(done)
    assert bookings(store) == {"B1": 80, "B2": 85}
    assert done.settled == (number_of(store, 2),)
    waits = rows(store, QuarantineState.WAITING)
    newest, unread = (waits[number_of(store, row)].row.problems for row in (3, 4))
    assert "2024-02-30" in newest[0] and unread == ("the row has 6 values, the header 9",)
    assert done.waiting == tuple(waits.values())
    assert waits[number_of(store, 3)].row.values["arrives"] == "2024-02-31"  # and the original value kept
    # The same file, corrected further, goes again; what was settled is passed over.
    fuller = again(store, lines=file_of(store, {3: {"arrives": "2024-02-28"}}))
    assert (len(fuller.settled), len(fuller.waiting)) == (1, 1)
    assert {*bookings(store)} == {"B1", "B2", "B3"}


def test_rows_go_again_by_a_better_mapping(store: SqlStore, tmp_path: Path) -> None:
    wrong = MAPPING.replace('OK = "stayed"', 'DONE = "stayed"')
    assert load(store, tmp_path, GOOD, NEGATIVE, mapping=wrong).counts.quarantined == 2
    assert again(store).settled == ()
    done = again(store, mapping=MAPPING)
    assert (len(done.settled), len(done.waiting)) == (1, 1)
    assert bookings(store) == {"B1": 80}


def test_named_rows_go_alone_and_so_do_those_of_a_source(store: SqlStore, tmp_path: Path) -> None:
    wrong = MAPPING.replace('OK = "stayed"', 'DONE = "stayed"')
    load(store, tmp_path, GOOD, GOOD.replace("B1", "B5"), mapping=wrong)
    load(store, tmp_path, GOOD.replace("B1", "B6"), mapping=wrong, name="other.csv")
    [first, *_] = rows(store)
    assert again(store, numbers=[first], mapping=MAPPING).settled == (first,)
    assert {*bookings(store)} == {"B1"}
    again(store, source="other.csv", mapping=MAPPING)
    assert {*bookings(store)} == {"B1", "B6"}
    with pytest.raises(BadInput, match=rf"{first} is loaded"):
        again(store, numbers=[first])
    with pytest.raises(BadInput, match="999 is not there"):
        again(store, numbers=[999])


def test_a_row_keeps_the_id_that_its_number_gave_it(store: SqlStore, tmp_path: Path) -> None:
    named = NUMBERED.replace("format = 1", 'format = 1\nname = "the system"')
    for mapping, name in ((NUMBERED, "plain.csv"), (named, "named.csv")):
        load(store, tmp_path, GOOD, NEGATIVE, SHORT, mapping=mapping, name=name)
    filled = {"nights": "2", "guests": "2", "rate": "70", "state": "OK", "state_day": "2024-02-03"}
    done = again(store, lines=file_of(store, {2: {"rate": "80"}, 3: filled}))
    # Of the short row of the named mapping nobody knows the file, so nobody knows the id.
    assert {*bookings(store)} == {"plain-000001", "plain-000002", "plain-000003", "named-000001", "named-000002"}
    [lost] = done.waiting
    assert lost.row.source == "the system" and "give it in a column reservation_id" in lost.row.problems[0]
    lines = file_of(store, {3: filled})
    lines = [[*lines[0], "reservation_id"], *([*line, "named-000003"] for line in lines[1:])]
    again(store, lines=lines)
    assert "named-000003" in bookings(store)


def test_a_row_that_shares_an_id_goes_only_when_somebody_says_which_is_right(store: SqlStore, tmp_path: Path) -> None:
    load(store, tmp_path, GOOD, TWICE)
    [disputed] = rows(store)
    done = again(store)
    assert (done.undecided, done.loads, bookings(store)) == ((disputed,), (), {"B1": 80})
    assert again(store, numbers=[disputed]).loads[0].counts.updated == 1
    assert bookings(store) == {"B1": 90}


def test_rows_of_the_same_number_from_files_of_the_same_name_go_each(store: SqlStore, tmp_path: Path) -> None:
    for name in ("B7", "B8"):
        load(store, tmp_path, NEGATIVE.replace("B2", name))
    lenient = MAPPING + "\n[limits]\nprice = { low = -100 }\n"
    done = again(store, mapping=lenient)
    assert len(done.loads) == len(done.settled) == 2 and accounted(done)
    assert bookings(store) == {"B7": -80, "B8": -80}


def test_a_row_booked_after_today_waits_on(store: SqlStore, tmp_path: Path) -> None:
    load(store, tmp_path, NEGATIVE)
    done = again(store, until=date(2024, 1, 1), lines=file_of(store, {1: {"rate": "80"}}))
    assert (done.loads[0].counts.outside, len(done.waiting), done.settled) == (1, 1, ())


def test_rows_that_no_mapping_read_are_told_and_can_go_by_one_that_is_given(store: SqlStore) -> None:
    broken = next(simulator(days=1).batches()).raw.head(2).assign(adults=-1)
    policy = LoadPolicy(quarantine_limit=1.0)
    ingest(Table(broken, name="simulator"), store, after=None, until=TODAY, clock=Clock(), policy=policy)
    done = again(store)
    assert done.unmapped == tuple(rows(store)) and done.loads == ()


def test_a_mapping_that_reads_other_columns_is_refused_before_anything_is_loaded(
    store: SqlStore, tmp_path: Path
) -> None:
    load(store, tmp_path, NEGATIVE)
    with pytest.raises(BadInput, match="lacks room_rate"):
        again(store, mapping=MAPPING.replace('"rate"', '"room_rate"'))
    assert len(rows(store, QuarantineState.WAITING)) == 1


def test_a_retry_killed_at_any_write_is_made_good_by_the_next(store: SqlStore, tmp_path: Path) -> None:
    load(store, tmp_path, NEGATIVE, NO_DAY)
    lines = file_of(store, {1: {"rate": "80"}})
    finished = False
    for nth in range(100):
        try:
            again(CutOff(store, None, nth), lines=lines)
            finished = True
        except PowerCut:
            pass
        settled = bool(rows(store, QuarantineState.LOADED))
        assert settled == ("B2" in bookings(store))  # loaded and settled, or neither
        if settled:
            break
    assert nth > 5 and not finished
    again(store, lines=lines)
    with store.begin() as work:
        assert work.unfinished_loads() == []
        done = [found for found in work.loads() if found.counts.source.endswith("(quarantine)")]
    assert sum(found.counts.loaded for found in done if found.state is LoadState.DONE) == 1


# --- dropped --------------------------------------------------------------------------------------


def test_a_dropped_row_stays_on_record_with_its_reason_and_does_not_come_back(store: SqlStore, tmp_path: Path) -> None:
    load(store, tmp_path, GOOD, NEGATIVE)
    [number] = rows(store)
    assert drop(store, [number], "a test booking", NOW) == 1
    load(store, tmp_path, GOOD, NEGATIVE)
    found = rows(store)[number]
    assert (found.state, found.reason, len(rows(store))) == (QuarantineState.DROPPED, "a test booking", 1)


def test_dropping_what_does_not_wait_or_without_a_reason_drops_nothing(store: SqlStore, tmp_path: Path) -> None:
    load(store, tmp_path, NEGATIVE)
    [number] = rows(store)
    with pytest.raises(BadInput, match="999 is not there"):
        drop(store, [number, 999], "why", NOW)
    with pytest.raises(BadInput, match="reason"):
        drop(store, [number], "  ", NOW)
    assert rows(store)[number].state is QuarantineState.WAITING


# --- out and back ---------------------------------------------------------------------------------


def kept(*values: dict[str, Any], problems: tuple[str, ...] = ("adults: is below 0",)) -> list[Quarantined]:
    when = datetime(2024, 5, 1, tzinfo=UTC)
    return [
        Quarantined(n, QuarantinedRow("file", n, problems, v), QuarantineState.WAITING, "", when, None)
        for n, v in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("-12,50 €", "'-12,50 €"),
        ("-12.50", "-12.50"),
        ("+3", "+3"),
        ("'=x", "''=x"),
        ("'t Hof", "'t Hof"),
        (-1.5, "-1.5"),
        (True, "true"),
        (None, ""),
    ],
)
def test_what_a_spreadsheet_would_take_for_a_formula_has_an_apostrophe_in_front(value: object, cell: str) -> None:
    _, line = exported(kept({"a": value}))
    assert line[4] == cell


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "source", "row"]), values | texts), min_size=1, max_size=4))
def test_a_file_that_nobody_touched_corrects_nothing(found: list[dict[str, Any]]) -> None:
    waiting = kept(*found)
    lines = through_csv(list(exported(waiting)))
    assert corrections(lines, {q.number: q for q in waiting}) == {q.number: {} for q in waiting}


@given(texts.filter(bool), st.sampled_from(["=", "+", "-", "@", "\t", "\r", "'", "'=", ""]))
def test_a_text_comes_back_as_it_was_written(text: str, start: str) -> None:
    written = start + text
    lines = through_csv(list(exported(kept({"a": written}))))
    [other] = kept({"a": f"{written} and more"})
    assert corrections(lines, {1: other}) == {1: {"a": written}}


def through_csv(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return list(csv.reader(io.StringIO(text.getvalue(), newline="")))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "no column quarantine_number"),
        ([["id", "a"], ["1", "x"]], "no column quarantine_number"),
        ([["quarantine_number", "a"], ["1"]], r"line 2 of the file has 1 of 2 values"),
        ([["quarantine_number", "a"], ["one", "x"]], r"line 2 of the file"),
        ([["quarantine_number", "a"], ["1", "x"], ["1", "y"]], r"line 3 of the file is the second about row 1"),
    ],
)
def test_a_corrected_file_of_another_shape_is_refused_with_its_line(lines: list[list[str]], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        corrections(lines, {q.number: q for q in kept({"a": "b"})})


def test_problems_are_counted_by_kind_whatever_was_found() -> None:
    unreadable = [kept({}, problems=(f"price: '{n} €' in column adr is no number",))[0] for n in range(3)]
    twice = [
        kept({}, problems=(f"reservation_id: appears again, with other values than in row {n}",))[0] for n in (7, 1_000)
    ]
    assert kinds([*unreadable, *twice]) == [
        ("price: '…' in column adr is no number", 3),
        ("reservation_id: appears again, with other values than in row …", 2),
    ]
