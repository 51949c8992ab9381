"""Loading: every row is accounted for, nothing is loaded twice, nothing is known before its day."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pytest
from world import START, WEEK, Clock, Table

from cancellations.domain.reservation import NAMES
from cancellations.ports import LoadCounts, Source
from cancellations.sources.simulator import Simulator, simulate
from cancellations.store import SqlStore
from cancellations.store.tables import quarantine
from cancellations.usecases.ingest import ingest

LAST = date(2018, 1, 1)  # every outcome is known by then


def load(store: SqlStore, source: Source, until: date = LAST, after: date | None = None) -> LoadCounts:
    return ingest(source, store, after=after, until=until, clock=Clock())


def bookings(days: int = 2) -> pd.DataFrame:
    return simulate(START, days, seed=7).drop(columns="true_probability")


def everything(store: SqlStore, until: date = LAST) -> pd.DataFrame:
    with store.begin() as work:
        return work.history(booked_until=until, known_until=until)


def set_aside(store: SqlStore) -> list[tuple[int, list[str], dict[str, object]]]:
    with store.begin() as work:
        rows = work._read(quarantine.select().order_by(quarantine.c.row))  # type: ignore[attr-defined]
        return [(r.row, list(r.problems), r._mapping["values"]) for r in rows]


def total(counts: LoadCounts) -> int:
    return counts.outside + counts.loaded + counts.unchanged + counts.updated + counts.quarantined


def test_what_was_read_is_what_became_of_it_and_a_second_load_changes_nothing(store: SqlStore) -> None:
    rows = bookings(10)
    rows.loc[3, "adults"], rows.loc[3, "children"], rows.loc[3, "babies"] = 0, 0, 0
    until = START + WEEK
    first = load(store, Table(rows), until)
    before = everything(store)
    second = load(store, Table(rows), until)

    within = int((rows["booked_on"] <= pd.Timestamp(until)).sum())
    assert (first.read, first.outside, first.quarantined) == (len(rows), len(rows) - within, 1)
    assert first.loaded == within - 1 == second.unchanged
    assert first.outcomes > 0
    assert (second.loaded, second.updated, second.outcomes, second.quarantined) == (0, 0, 0, 1)
    assert [total(c) for c in (first, second)] == [len(rows)] * 2
    pd.testing.assert_frame_equal(everything(store), before)
    with store.begin() as work:
        assert work.loads() == [first, second]


def test_a_bad_row_is_set_aside_once_with_its_original_values_and_the_rest_loads(store: SqlStore) -> None:
    rows = bookings().astype(object)
    rows.loc[4, "price"] = "-12,50 €"
    rows.loc[5, "arrival_on"] = "31/31/2016"
    rows.loc[6, ["adults", "week_nights"]] = [1.5, -1]
    for _ in range(2):
        counts = load(store, Table(rows))
    # A price that is no number is a missing price, which a booking may have.
    assert counts.quarantined == 2
    assert len(everything(store)) == len(rows) - 2
    (first, first_problems, first_values), (second, second_problems, second_values) = set_aside(store)
    assert (first, second) == (6, 7)
    assert first_problems == ["arrival_on: is missing or cannot be read"]
    assert second_problems == ["week_nights: is below 0", "adults: is not a whole number"]
    assert first_values["arrival_on"] == "31/31/2016"
    assert first_values["reservation_id"] == rows.loc[5, "reservation_id"]
    assert second_values["adults"] == 1.5
    assert {*first_values} >= {*NAMES}


def test_the_first_of_two_rows_with_one_id_is_loaded_and_the_second_set_aside(store: SqlStore) -> None:
    rows = bookings()
    twin = rows.iloc[[0]].assign(status="canceled", known_on=pd.Timestamp(LAST), price=1.0)
    counts = load(store, Table(pd.concat([rows, twin], ignore_index=True)))
    assert (counts.loaded, counts.quarantined) == (len(rows), 1)
    found = everything(store).set_index("reservation_id").loc[rows.loc[0, "reservation_id"]]
    assert (found["price"], found["status"]) == (rows.loc[0, "price"], rows.loc[0, "status"])
    [(row, problems, _)] = set_aside(store)
    assert (row, problems) == (len(rows) + 1, ["reservation_id: appears more than once in this load"])


def test_a_corrected_row_is_updated_and_leaves_the_others_alone(store: SqlStore) -> None:
    rows = bookings()
    load(store, Table(rows))
    rows.loc[2, "price"] += 1
    rows.loc[3, "status"] = "no_show"
    counts = load(store, Table(rows))
    assert (counts.loaded, counts.updated, counts.unchanged, counts.outcomes) == (0, 1, len(rows) - 1, 1)
    assert everything(store).set_index("reservation_id").loc[rows.loc[2, "reservation_id"], "price"] == pytest.approx(
        rows.loc[2, "price"]
    )


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


def test_weekly_loads_and_one_load_leave_the_same(store: SqlStore) -> None:
    source = Simulator(START, 21, seed=7, batch_rows=500)
    ends = [START + n * WEEK for n in (1, 2, 3)]
    weekly = [load(store, source, until, after) for after, until in zip([None, *ends], ends, strict=False)]
    stepwise = everything(store)
    once = load(store, source, ends[-1])
    assert (once.loaded, once.updated, once.outcomes) == (0, 0, 0)
    assert sum(c.loaded for c in weekly) == once.unchanged == len(stepwise)
    pd.testing.assert_frame_equal(everything(store), stepwise)


def test_a_load_that_dies_between_batches_is_completed_by_the_next(store: SqlStore) -> None:
    source = Simulator(START, 14, seed=7, batch_rows=300)

    def cut(rows: int) -> None:
        if rows >= 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(source, store, after=None, until=LAST, clock=Clock(), on_batch=cut)
    assert len(everything(store)) == 600
    rest = load(store, source)
    assert (rest.unchanged, rest.loaded) == (600, rest.read - 600)
    assert sorted(everything(store)["reservation_id"]) == sorted(simulate(START, 14, 7)["reservation_id"])
    with store.begin() as work:
        assert work.loads() == [rest]
