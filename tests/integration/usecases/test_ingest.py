"""Loading: every row is accounted for, nothing is loaded twice, nothing is known before its day."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import CUTS, NOW, START, WEEK, Clock, CutOff, PowerCut, Table, cuts

from cancellations.domain.labels import LabelRule, Matures
from cancellations.domain.reservation import COLUMNS, NAMES, Column
from cancellations.errors import BadInput, Refused
from cancellations.ports import (
    Load,
    LoadCounts,
    LoadState,
    QuarantineState,
    Source,
    SourceBatch,
    Store,
    Undated,
    UnitOfWork,
    Upserted,
)
from cancellations.sources.simulator import Simulator, simulate
from cancellations.store import SqlStore, tables
from cancellations.usecases.ingest import LONGEST_VALUE, LoadPolicy, ingest

LAST = date(2018, 1, 1)  # every outcome is known by then
# Rows whose number or load depends on what was tried before.
NUMBERED = ("loads", "quarantine", "messages")
BOTH = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(
    store: Store,
    source: Source,
    until: date = LAST,
    after: date | None = None,
    *,
    limit: float = 1.0,
    spared: int = 3,
    again: bool = True,
) -> Load:
    policy = LoadPolicy(quarantine_limit=limit, quarantine_spared=spared)
    return ingest(source, store, after=after, until=until, clock=Clock(), policy=policy, again=again)


def bookings(days: int = 2) -> pd.DataFrame:
    return simulate(START, days, seed=7).drop(columns=["true_probability", "group_size"])


def everything(store: SqlStore, until: date = LAST) -> pd.DataFrame:
    with store.begin() as work:
        return work.history(booked_until=until, known_until=until)


def booking(store: SqlStore, reservation_id: str) -> pd.Series:
    return everything(store).set_index("reservation_id").loc[reservation_id]


def waiting(store: SqlStore) -> list[tuple[int, tuple[str, ...]]]:
    with store.begin() as work:
        return [(q.row.row, q.row.problems) for q in work.quarantined(QuarantineState.WAITING)]


def rows_of(store: SqlStore, name: str) -> list[dict[str, Any]]:
    table = tables.metadata.tables[name]
    with store.begin() as work:
        found = work._read(table.select())  # type: ignore[attr-defined]
        return [dict(zip((c.name for c in table.columns), row, strict=True)) for row in found]


def contents(store: SqlStore, *without: str) -> dict[str, list[str]]:
    """All that stands in the tables, whatever the order of writing."""
    names = [name for name in tables.metadata.tables if name not in without]
    numbers = {name: ("number", "load") if name in NUMBERED else ("load",) for name in names}
    return {
        name: sorted(repr({k: v for k, v in row.items() if k not in numbers[name]}) for row in rows_of(store, name))
        for name in names
    }


def empty(store: SqlStore) -> None:
    with store.begin() as work:
        for table in reversed(tables.metadata.sorted_tables):
            work._write(table.delete())  # type: ignore[attr-defined]
        work.commit()


def total(counts: LoadCounts) -> int:
    return counts.outside + counts.loaded + counts.unchanged + counts.updated + counts.quarantined


# --- nothing lost ---------------------------------------------------------------------------------


def test_what_was_read_is_what_became_of_it_and_a_second_load_changes_nothing(store: SqlStore) -> None:
    rows = bookings(10)
    rows.loc[3, ["adults", "children", "babies"]] = 0
    until = START + WEEK
    first = load(store, Table(rows), until)
    before = contents(store, "loads")
    second = load(store, Table(rows), until)

    within = int((rows["booked_on"] <= pd.Timestamp(until)).sum())
    one, two = first.counts, second.counts
    assert (one.read, one.outside, one.quarantined) == (len(rows), len(rows) - within, 1)
    assert one.loaded == within - 1 == two.unchanged
    assert one.outcomes > 0
    assert (two.loaded, two.updated, two.outcomes, two.quarantined) == (0, 0, 0, 1)
    assert [total(c) for c in (one, two)] == [len(rows)] * 2
    assert contents(store, "loads") == before
    assert (first.state, first.applied, second.state) == (LoadState.DONE, len(rows), LoadState.DONE)
    with store.begin() as work:
        assert work.loads() == [first, second]


BROKEN = {
    "whole": {},
    "no guest": {"adults": 0.0, "children": 0.0, "babies": 0.0},
    "no arrival": {"arrival_on": pd.NaT},
    "no id": {"reservation_id": np.nan},
    "early": {"known_on": pd.Timestamp(START) - pd.Timedelta(days=30)},
}
rows_of_tables = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from("ABCDEF"),
            "day": st.integers(0, 6),
            "price": st.sampled_from([50.0, 60.0]),
            "status": st.sampled_from([None, "canceled", "stayed"]),
            "lag": st.sampled_from([0, 3, None]),
            "broken": st.sampled_from(["whole", "whole", "whole", *BROKEN]),
        }
    ),
    max_size=8,
)
spans = st.tuples(st.none() | st.integers(-1, 3), st.integers(2, 8))


def drawn(rows: list[dict[str, Any]]) -> pd.DataFrame:
    pattern = bookings(1).iloc[0]
    made = []
    for row in rows:
        day = pd.Timestamp(START) + pd.Timedelta(days=row["day"])
        known_on = pd.NaT if row["lag"] is None else day + pd.Timedelta(days=row["lag"])
        own = {"reservation_id": row["id"], "booked_on": day, "arrival_on": day + pd.Timedelta(days=5)}
        ending = {"price": row["price"], "status": row["status"], "known_on": known_on}
        made.append({**pattern, **own, **ending, **BROKEN[row["broken"]]})
    return pd.DataFrame(made, columns=pattern.index)


@given(rows_of_tables, spans, st.integers(1, 5), st.sampled_from(Undated))
@BOTH
def test_every_row_has_one_fate_in_batches_of_any_size_and_again_changes_nothing(
    store: SqlStore, rows: list[dict[str, Any]], span: tuple[int | None, int], batch_rows: int, undated: Undated
) -> None:
    empty(store)
    after = None if span[0] is None else START + timedelta(days=span[0])
    until = START + timedelta(days=span[1])
    source = Table(drawn(rows), batch_rows=batch_rows, content="c0ffee", undated=undated)
    first = load(store, source, until, after)
    assert first.counts.read == total(first.counts) == len(rows)
    assert first.counts.quarantined == len(waiting(store))
    assert first.counts.loaded == len(everything(store))
    before = contents(store, "loads")
    second = load(store, replace(source, batch_rows=100), until, after).counts
    assert second.read == total(second) == len(rows)
    assert (second.loaded, second.updated, second.outcomes) == (0, 0, 0)
    assert contents(store, "loads") == before

    empty(store)
    assert load(store, replace(source, batch_rows=100), until, after).counts == first.counts
    assert contents(store, "loads") == before


def test_an_empty_source_is_a_load_too(store: SqlStore) -> None:
    done = load(store, Table(bookings().iloc[:0]))
    assert (done.state, done.counts.read, total(done.counts)) == (LoadState.DONE, 0, 0)


# --- quarantine -----------------------------------------------------------------------------------


def test_a_bad_row_is_set_aside_once_with_its_original_values_and_the_rest_loads(store: SqlStore) -> None:
    rows = bookings().astype(object)
    rows.loc[4, "price"] = "-12,50 €"
    rows.loc[5, "arrival_on"] = "31/31/2016"
    rows.loc[6, ["adults", "week_nights"]] = [1.5, -1]
    for _ in range(2):
        counts = load(store, Table(rows)).counts
    # A price that is no number is a missing price, which a booking may have.
    assert counts.quarantined == 2
    assert len(everything(store)) == len(rows) - 2
    with store.begin() as work:
        one, two = work.quarantined()
    assert (one.row.row, two.row.row) == (6, 7)
    assert one.row.problems == ("arrival_on: is missing or cannot be read",)
    assert two.row.problems == ("week_nights: is below 0", "adults: is not a whole number")
    assert one.row.values["arrival_on"] == "31/31/2016"
    assert one.row.values["booked_on"] == rows.loc[5, "booked_on"].date().isoformat()
    assert one.row.reservation_id == one.row.values["reservation_id"] == rows.loc[5, "reservation_id"]
    assert two.row.values["adults"] == 1.5
    assert {*one.row.values} >= {*NAMES}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (float("inf"), "inf"),
        (float("nan"), None),
        (0.12345678901234567, 0.12345678901234567),
        (2**60 + 1, 2**60 + 1),
        ("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
        ("a\0b\ud800", "a\0b\ud800"),
        (pd.Timestamp("2016-05-02 13:00"), "2016-05-02T13:00:00"),
        (date(2016, 5, 2), "2016-05-02"),
        ([1, {"a": float("nan")}], [1, {"a": None}]),
        (b"\xff", "b'\\xff'"),
        ("x" * (LONGEST_VALUE + 1), f"{'x' * LONGEST_VALUE}… (cut: 100,001 characters)"),
    ],
)
def test_original_values_survive_in_quarantine(store: SqlStore, value: object, kept: object) -> None:
    rows = bookings().head(1).assign(adults=-1)
    rows["remark"] = pd.Series([value], dtype=object, index=rows.index)
    load(store, Table(rows))
    with store.begin() as work:
        [found] = work.quarantined()
    assert found.row.values["remark"] == kept


def test_an_outcome_known_before_its_booking_is_a_problem_of_the_row(store: SqlStore) -> None:
    rows = bookings()
    rows.loc[2, "known_on"] = rows.loc[2, "booked_on"] - pd.Timedelta(days=1)
    assert load(store, Table(rows)).counts.quarantined == 1
    assert waiting(store) == [(3, ("known_on: lies before booked_on",))]


@pytest.mark.parametrize("batch_rows", [11, 50_000])
def test_of_two_rows_with_one_id_the_same_is_unchanged_and_another_names_the_first(
    store: SqlStore, batch_rows: int
) -> None:
    rows = bookings().head(20)
    twin, other = rows.iloc[[0]], rows.iloc[[1]].assign(status="canceled", known_on=pd.Timestamp(LAST), price=1.0)
    table = pd.concat([rows, twin, other], ignore_index=True)
    counts = load(store, Table(table, batch_rows=batch_rows)).counts
    assert (counts.loaded, counts.unchanged, counts.quarantined) == (20, 1, 1)
    assert waiting(store) == [(22, ("reservation_id: appears again, with other values than in row 2",))]
    found = booking(store, rows.loc[1, "reservation_id"])
    assert (found["price"], found["status"]) == (rows.loc[1, "price"], rows.loc[1, "status"])
    # And it stays in dispute when the file comes again.
    load(store, Table(table, batch_rows=batch_rows))
    assert len(waiting(store)) == 1


def test_a_booking_that_comes_after_all_waits_no_more_and_its_neighbours_do(store: SqlStore) -> None:
    rows = bookings().head(10)
    broken = rows.copy()
    broken.loc[[2, 3], "adults"] = -1
    load(store, Table(broken))
    # The next file has another row in the place of each.
    moved = pd.concat([rows.drop(index=3), bookings().tail(5)], ignore_index=True)
    assert load(store, Table(moved)).counts.loaded == 1 + 5
    with store.begin() as work:
        states = {q.row.reservation_id: q.state for q in work.quarantined()}
    assert states == {
        rows.loc[2, "reservation_id"]: QuarantineState.LOADED,
        rows.loc[3, "reservation_id"]: QuarantineState.WAITING,
    }


# --- the limit ------------------------------------------------------------------------------------


def test_a_load_over_the_limit_writes_nothing_and_is_on_record_with_its_reason(store: SqlStore) -> None:
    rows = bookings()
    load(store, Table(rows.head(50)))
    before = contents(store, "loads")
    bad = rows.astype(object)
    bad.loc[10:60, "adults"] = -1
    bad["clerk"] = "new"
    source = Table(bad, columns=(*COLUMNS, Column("clerk", "category")), batch_rows=100)
    for _ in range(2):
        with pytest.raises(Refused, match=r"table: 51 of \d+ rows \(\d+%\) break a rule.*first 11: adults: is below 0"):
            load(store, source, limit=0.1)
    assert contents(store, "loads") == before
    with store.begin() as work:
        [_, stopped] = work.loads()
    assert (stopped.state, stopped.counts.read, stopped.counts.quarantined) == (LoadState.STOPPED, len(rows), 51)
    assert "51 of" in stopped.reason and "adults: is below 0" in stopped.reason
    assert load(store, source, limit=0.9).counts.loaded == len(rows) - 50 - 11


def test_different_values_of_one_kind_of_problem_are_counted_together(store: SqlStore) -> None:
    @dataclass(frozen=True)
    class Unreadable(Table):
        def batches(self) -> Iterator[SourceBatch]:
            for batch in super().batches():
                told = [f"'{row}x' in column adr is no number" for row in batch.raw.index]
                noted = pd.DataFrame({"row": batch.raw.index, "column": "price", "rule": told})
                yield replace(batch, problems=noted)

    with pytest.raises(Refused, match=r"20 rows, the first 1: price: '1x' in column adr is no number\. Nothing"):
        load(store, Unreadable(bookings().head(20)), limit=0.1)


def test_a_few_bad_rows_never_stop_a_load(store: SqlStore) -> None:
    rows = bookings().head(4)
    rows.loc[:2, "adults"] = -1
    counts = load(store, Table(rows), limit=0.0, spared=3).counts
    assert (counts.loaded, counts.quarantined) == (1, 3)


# --- corrections ----------------------------------------------------------------------------------


def test_a_corrected_row_is_updated_and_keeps_what_was_scored(store: SqlStore) -> None:
    rows = bookings()
    load(store, Table(rows))
    scored, unscored = rows.loc[2, "reservation_id"], rows.loc[4, "reservation_id"]
    with store.begin() as work:
        features = pd.DataFrame({"hotel": ["City Hotel"]}, index=pd.Index([scored], name="reservation_id"))
        work._write(  # type: ignore[attr-defined]
            tables.features.insert().values(reservation_id=scored, stored_at=NOW, hotel=features["hotel"].iloc[0])
        )
        work.commit()
    old = rows.loc[2, "price"]
    rows.loc[[2, 4], "price"] += 1
    done = load(store, Table(rows))
    assert (done.counts.loaded, done.counts.updated, done.counts.unchanged) == (0, 2, len(rows) - 2)
    assert booking(store, scored)["price"] == pytest.approx(old + 1)
    assert booking(store, unscored)["price"] == pytest.approx(rows.loc[4, "price"])
    [kept] = rows_of(store, "corrections")
    assert (kept["reservation_id"], kept["price"], kept["load"]) == (scored, pytest.approx(old), done.number)


def test_a_corrected_outcome_replaces_the_first_which_is_kept(store: SqlStore) -> None:
    rows = bookings()
    load(store, Table(rows))
    before = rows.loc[3].copy()
    rows.loc[3, "status"] = "no_show" if before["status"] == "canceled" else "canceled"
    done = load(store, Table(rows))
    assert (done.counts.updated, done.counts.unchanged, done.counts.outcomes) == (0, len(rows), 1)
    assert booking(store, before["reservation_id"])["status"] == rows.loc[3, "status"]
    [kept] = rows_of(store, "outcome_corrections")
    assert (kept["reservation_id"], kept["status"], kept["load"]) == (
        before["reservation_id"],
        before["status"],
        done.number,
    )


# --- outcomes -------------------------------------------------------------------------------------


def test_an_outcome_after_the_day_stays_unknown_until_a_later_load(store: SqlStore) -> None:
    rows = bookings()
    day = START + timedelta(days=30)
    load(store, Table(rows), day)
    known = everything(store).set_index("reservation_id")["known_on"]
    told = rows.set_index("reservation_id")["known_on"]
    early = told <= pd.Timestamp(day)
    assert 0 < early.sum() < len(rows)
    assert known[early.index].notna().tolist() == early.tolist()
    load(store, Table(rows), day + WEEK, after=day)
    later = everything(store).set_index("reservation_id")["known_on"]
    assert later[told.index].notna().tolist() == (told <= pd.Timestamp(day + WEEK)).tolist()


@pytest.mark.parametrize("order", ["before", "with", "after"])
def test_outcomes_come_before_with_or_after_their_reservations(store: SqlStore, order: str) -> None:
    rows = bookings()
    alone, endings = Table(rows.assign(status=None)), Table(rows, name="endings", endings=True)
    for source in {"before": [endings, alone], "with": [Table(rows)], "after": [alone, endings]}[order]:
        done = load(store, source)
        assert done.counts.read == total(done.counts) == done.counts.loaded == len(rows)
    found = everything(store).set_index("reservation_id")
    told = rows.set_index("reservation_id")
    pd.testing.assert_series_equal(found["status"].sort_index(), told["status"].sort_index(), check_dtype=False)


def test_a_source_of_outcomes_alone_tells_what_became_of_each_of_its_rows(store: SqlStore) -> None:
    rows = bookings().head(6)
    load(store, Table(rows.assign(status=None)))
    endings = rows.copy()
    endings.loc[0, "status"] = None  # has not ended
    endings.loc[1, "known_on"] = pd.Timestamp(LAST + WEEK)
    endings.loc[2, "reservation_id"] = np.nan
    twice = pd.concat([endings, endings.loc[[3]], endings.loc[[4]].assign(status="no_show")], ignore_index=True)
    done = load(store, Table(twice, endings=True))
    counts = done.counts
    assert (counts.read, counts.outside, counts.loaded, counts.unchanged, counts.quarantined) == (8, 2, 3, 1, 2)
    assert done.left == 1
    assert waiting(store) == [
        (3, ("reservation_id: is missing or cannot be read",)),
        (8, ("reservation_id: appears again, with other values than in row 5",)),
    ]


@pytest.mark.parametrize("alone", [False, True])
def test_an_outcome_without_a_day_becomes_known_when_it_matures(store: SqlStore, alone: bool) -> None:
    rows = bookings().head(8)
    if alone:
        load(store, Table(rows.assign(status=None)))
    load(store, Table(rows.assign(known_on=pd.NaT), name="undated", endings=alone))
    found = everything(store)
    assert (found["known_on"] == found["arrival_on"] + pd.Timedelta(days=1)).all()


@pytest.mark.parametrize("alone", [False, True])
def test_where_outcomes_are_recorded_at_check_out_one_without_a_day_waits_for_the_check_out(
    store: SqlStore, alone: bool
) -> None:
    rows = bookings().head(8)
    # Numbers that no calendar holds are broken rows, and nothing worse.
    rows.loc[[0, 1], "week_nights"] = 1e9, 1e300
    if alone:
        load(store, Table(rows.assign(status=None)))
    late = LoadPolicy(LabelRule(settle_days=2, matures=Matures.CHECK_OUT), quarantine_limit=1.0)
    source = Table(rows.assign(known_on=pd.NaT), name="undated", endings=alone)
    ingest(source, store, after=None, until=LAST, clock=Clock(), policy=late)
    found = everything(store)
    nights = pd.to_timedelta(found["weekend_nights"] + found["week_nights"], unit="D")
    assert len(found) == 6
    assert (found["known_on"] == found["arrival_on"] + nights + pd.Timedelta(days=2)).all()


@pytest.mark.parametrize("alone", [False, True])
def test_an_outcome_of_a_live_export_is_known_on_the_day_on_which_it_first_came(store: SqlStore, alone: bool) -> None:
    rows = bookings().head(8).assign(known_on=pd.NaT, status="canceled", arrival_on=pd.Timestamp(START + 4 * WEEK))
    if alone:
        load(store, Table(rows.assign(status=None)), START + WEEK)
    source = Table(rows, name="live", undated=Undated.LOAD, endings=alone)
    day = START + 2 * WEEK
    load(store, source, day)
    assert (everything(store)["known_on"] == pd.Timestamp(day)).all()
    later = load(store, source, day + WEEK)
    assert later.counts.outcomes == 0
    assert (everything(store)["known_on"] == pd.Timestamp(day)).all()
    assert rows_of(store, "outcome_corrections") == []
    other = load(store, replace(source, rows=rows.assign(status="no_show")), day + 20 * WEEK)
    assert other.counts.outcomes == 8
    assert (everything(store)["known_on"] == pd.Timestamp(START + 4 * WEEK) + pd.Timedelta(days=1)).all()


def test_an_undated_outcome_of_an_unknown_booking_waits_until_the_booking_is_known(store: SqlStore) -> None:
    rows = bookings().head(3)
    source = Table(rows.assign(known_on=pd.NaT), name="undated", endings=True, content="f00d")
    done = load(store, source)
    assert (done.counts.quarantined, done.counts.outcomes, done.left) == (3, 0, 3)
    assert "load the bookings first" in waiting(store)[0][1][0]
    load(store, Table(rows.assign(status=None)))
    # A file that has left something is read again.
    assert load(store, source, again=False).counts.outcomes == 3
    assert waiting(store) == []


# --- interrupted, repeated, at once ---------------------------------------------------------------


def test_weekly_loads_and_one_load_leave_the_same(store: SqlStore) -> None:
    source = Simulator(START, 21, seed=7, batch_rows=500)
    ends = [START + n * WEEK for n in (1, 2, 3)]
    weekly = [load(store, source, until, after) for after, until in zip([None, *ends], ends, strict=False)]
    stepwise = everything(store)
    once = load(store, source, ends[-1]).counts
    assert (once.loaded, once.updated, once.outcomes) == (0, 0, 0)
    assert sum(done.counts.loaded for done in weekly) == once.unchanged == len(stepwise)
    pd.testing.assert_frame_equal(everything(store), stepwise)


def interrupted() -> Table:
    """Three batches with all there is: good, bad, repeated, outside."""
    rows = bookings(1).head(40).astype({"adults": "float64"})
    rows.loc[[5, 20], "adults"] = -1
    rows.loc[7, "booked_on"] = pd.Timestamp(LAST + WEEK)
    rows.loc[7, "arrival_on"] = pd.Timestamp(LAST + 2 * WEEK)
    table = pd.concat([rows, rows.iloc[[0, 20]]], ignore_index=True)
    return Table(table, batch_rows=15, mapping="by this", content="c0ffee")


@CUTS
def test_a_load_killed_at_any_write_goes_on_where_it_was(store: SqlStore, every: int) -> None:
    source = replace(interrupted(), batch_rows=25)
    heard = CutOff(store, None, nth=10_000)
    undisturbed = load(heard, source)
    wanted = contents(store)
    for nth in cuts(heard.calls, every, store):
        empty(store)
        with pytest.raises(PowerCut):
            load(CutOff(store, None, nth), source)
        done = load(store, source)
        ended = nth == len(heard.calls) - 1  # all was written; what was killed only read how it stood
        if not ended:
            assert done.counts == undisturbed.counts, heard.calls[nth]
            assert contents(store) == wanted, heard.calls[nth]
        with store.begin() as work:
            assert len(work.loads()) == 1 + ended
            assert work.unfinished_loads() == []


def test_what_a_load_stages_has_no_name_that_a_kill_could_leave_behind(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lying_about: list[list[Path]] = []

    def look(rows: int) -> None:
        lying_about.append([path for path in tmp_path.iterdir() if path.name != "home"])

    source = replace(interrupted(), batch_rows=25)
    ingest(source, store, after=None, until=LAST, clock=Clock(), policy=LoadPolicy(), on_batch=look)
    assert len(lying_about) > 1
    assert not any(lying_about)


def test_without_room_to_stage_a_load_says_so_and_writes_nothing(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(BadInput, match=r"cannot be staged in .*gone: No such file.*TMPDIR"):
        load(store, interrupted())
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile.TemporaryFile", partial(Path("/dev/full").open, "r+b"))
    with pytest.raises(BadInput, match=r"cannot be staged in .*No space left"):
        load(store, interrupted())
    with store.begin() as work:
        assert work.loads() == []


def test_what_was_written_before_a_kill_stays_and_shows_as_unfinished(store: SqlStore) -> None:
    source = interrupted()
    with pytest.raises(PowerCut):
        load(CutOff(store, "upsert_reservations", 2), source)
    with store.begin() as work:
        [unfinished] = work.unfinished_loads()
    assert (unfinished.state, unfinished.applied, unfinished.counts.read) == (LoadState.RUNNING, 30, len(source.rows))
    assert len(everything(store)) == unfinished.counts.loaded
    # Batches of another size go on in the middle of one.
    done = load(store, replace(source, batch_rows=20))
    assert total(done.counts) == done.counts.read and done.number == unfinished.number
    assert done.counts.loaded == len(everything(store))


def test_an_interrupted_load_that_a_later_one_overtook_is_nothing_to_worry_about(store: SqlStore) -> None:
    source = interrupted()
    with pytest.raises(PowerCut):
        load(CutOff(store, "upsert_reservations", 2), source)
    load(store, Table(source.rows.head(30)))
    with store.begin() as work:
        assert work.unfinished_loads() == []


@dataclass
class Meeting:
    """A store on which two loads wait for each other before either writes its first row."""

    store: SqlStore
    barrier: threading.Barrier
    met: bool = False

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        with self.store.begin() as work:
            yield _Meeting(work, self)  # type: ignore[misc]


class _Meeting:
    def __init__(self, work: UnitOfWork, meeting: Meeting) -> None:
        self._work, self._meeting = work, meeting

    def __getattr__(self, name: str) -> Any:
        if name == "record_outcomes" and not self._meeting.met:
            self._meeting.met = True
            self._meeting.barrier.wait(30)
        return getattr(self._work, name)


def test_two_that_load_the_same_at_once_are_one_load(store: SqlStore) -> None:
    source = interrupted()
    undisturbed = load(store, source)
    wanted = contents(store)
    empty(store)
    barrier, done = threading.Barrier(2), list[Load]()
    workers = [
        threading.Thread(target=lambda: done.append(load(Meeting(store, barrier), source)))  # type: ignore[arg-type]
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [d.counts for d in done] == [undisturbed.counts] * 2
    assert contents(store) == wanted
    with store.begin() as work:
        assert len(work.loads()) == 1


def test_an_unchanged_file_is_skipped_only_if_it_may_be_and_nothing_of_it_is_left(store: SqlStore) -> None:
    @dataclass
    class Counting:
        reads: int = 0

    counting = Counting()

    @dataclass(frozen=True)
    class Watched(Table):
        def batches(self) -> Iterator[SourceBatch]:
            counting.reads += 1
            yield from super().batches()

    def reads(source: Table, until: date = LAST, *, again: bool = False) -> int:
        counting.reads = 0
        load(store, source, until, again=again)
        return counting.reads

    rows = bookings()
    file = Watched(rows, content="v1", mapping="by this")
    assert reads(file, START + timedelta(days=30)) == 1
    assert reads(file, START + timedelta(days=30)) == 1  # outcomes are still to come
    assert reads(file) == 1
    assert reads(file) == 0
    assert reads(file, LAST + WEEK) == 0
    assert reads(file, again=True) == 1
    assert reads(replace(file, content="v2")) == 1
    assert reads(file) == 1  # it has come back
    assert reads(replace(file, mapping="by that")) == 1
    assert reads(replace(file, content=None)) == 1


# --- what a load fixes ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_rows", [50, 50_000])
def test_the_size_of_a_group_is_that_of_its_load_whatever_the_batches_and_whatever_comes_later(
    store: SqlStore, batch_rows: int
) -> None:
    rows = bookings(1)
    size = simulate(START, 1, seed=7).set_index("reservation_id")["group_size"]
    load(store, Table(rows, batch_rows=batch_rows))
    found = everything(store).set_index("reservation_id")["group_size"]
    assert found.max() > 3
    pd.testing.assert_series_equal(found.sort_index(), size.sort_index())
    more = rows.iloc[[int(np.argmax(size))]].assign(reservation_id="LATE")
    load(store, Table(pd.concat([rows.assign(price=1.0), more], ignore_index=True)))
    later = everything(store).set_index("reservation_id")["group_size"]
    pd.testing.assert_series_equal(later.drop("LATE").sort_index(), size.sort_index())
    assert later["LATE"] == size.max() + 1


def test_columns_that_a_source_declares_come_back_as_they_were(store: SqlStore) -> None:
    extras = (Column("distance", "number", low=0), Column("clerk", "category"))
    rows = bookings().head(4).assign(distance=[1.5, np.nan, 0.0, -1.0], clerk=["Ana", "", "Zoë", "x"])
    counts = load(store, Table(rows, columns=(*COLUMNS, *extras))).counts
    assert (counts.loaded, counts.quarantined) == (3, 1)
    found = everything(store).set_index("reservation_id").loc[rows["reservation_id"].head(3)]
    assert found["distance"].tolist()[::2] == [1.5, 0.0] and found["distance"].isna().tolist() == [False, True, False]
    assert found["clerk"].tolist()[::2] == ["Ana", "Zoë"] and found["clerk"].isna().tolist() == [False, True, False]
    assert load(store, Table(rows, columns=(*COLUMNS, *extras))).counts.unchanged == 3


def test_a_column_of_another_kind_than_before_is_refused_and_nothing_is_loaded(store: SqlStore) -> None:
    rows = bookings().assign(distance=1.0)
    load(store, Table(rows.head(2), columns=(*COLUMNS, Column("distance", "number"))))
    before = contents(store)
    with pytest.raises(BadInput, match="'distance' is a number in this store"):
        load(store, Table(rows, columns=(*COLUMNS, Column("distance", "category"))))
    assert contents(store) == before


def test_memory_does_not_grow_with_the_source(store: SqlStore) -> None:
    """Of what a source brings, and of what is written of it, no more than two batches are held at a time."""
    read, written = list[weakref.ref[pd.DataFrame]](), list[weakref.ref[pd.DataFrame]]()
    most = dict.fromkeys(("read", "written"), 0)

    def met(what: str, held: list[weakref.ref[pd.DataFrame]], frame: pd.DataFrame) -> None:
        held.append(weakref.ref(frame))
        most[what] = max(most[what], sum(ref() is not None for ref in held))

    @dataclass(frozen=True)
    class Watched(Table):
        def batches(self) -> Iterator[SourceBatch]:
            for batch in super().batches():
                assert batch.reservations is not None
                met("read", read, batch.reservations)
                yield batch

    class Writing(CutOff):
        @contextmanager
        def begin(self) -> Iterator[UnitOfWork]:
            with self.store.begin() as work:
                upsert = work.upsert_reservations

                def upsert_reservations(reservations: pd.DataFrame, load: int | None = None) -> Upserted:
                    met("written", written, reservations)
                    return upsert(reservations, load)

                work.upsert_reservations = upsert_reservations  # type: ignore[method-assign]
                yield work

    rows = bookings(1).head(120)
    load(Writing(store, None), Watched(rows, batch_rows=10))
    assert len(read) == len(written) == 12
    assert 1 <= most["read"] <= 2 and 1 <= most["written"] <= 2
