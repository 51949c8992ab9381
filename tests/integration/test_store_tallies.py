"""What the store keeps beside bookings, on both databases: tallies, corrections, columns of mappings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from test_store import DAY, NOW, at_once, bookings, built, outcomes, scores

from cancellations.domain import features
from cancellations.domain.features import TALLY
from cancellations.domain.labels import RULED_BY, Ending, LabelRule, Matures, maturity
from cancellations.domain.reservation import Column, sized
from cancellations.errors import BadInput
from cancellations.ports import UnitOfWork, Upserted
from cancellations.sources.simulator import Simulator
from cancellations.store import Database, SqlStore, open_store
from cancellations.usecases.point_in_time import BookingTime, booking_time

ARRIVAL = date(2024, 2, 1)
LATER = date(2100, 1, 1)


def rows_of(work: UnitOfWork, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in work._connection.execute(text(query))]  # type: ignore[attr-defined]


def assert_tallies_right(work: UnitOfWork) -> None:
    """What the store tells of all agents and companies is `features.tally` of all bookings."""
    history = work.history(LATER, LATER)
    agents, companies = (history[name].dropna().unique().tolist() for name in ("agent", "company"))
    order = list(TALLY[:-1])
    kept = work.tallies(agents, companies, LATER).sort_values(order, ignore_index=True)
    counted = features.tally(history).sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(kept[list(TALLY)], counted, check_dtype=False)


# --- tallies --------------------------------------------------------------------------------------

Names = st.sampled_from([None, "9", "10", "é\t\\N"])
Days = st.integers(-3, 4)
Bookings_ = st.dictionaries(st.sampled_from("abcd"), st.tuples(Names, Names, Days), min_size=1)
Outcomes_ = st.dictionaries(
    st.sampled_from("abcde"), st.tuples(st.sampled_from(["canceled", "no_show", "stayed"]), Days), min_size=1
)


@given(st.lists(st.one_of(Bookings_, Outcomes_), min_size=1, max_size=5))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tallies_are_a_count_of_the_bookings_after_any_writes(
    store: SqlStore, steps: list[Mapping[str, tuple[Any, ...]]]
) -> None:
    """Bookings that are new, or change agent, company or arrival; outcomes before, after and corrected."""
    with store.begin() as work:  # each example is rolled back
        for step in steps:
            values = list(step.values())
            if len(values[0]) == 3:
                agents, companies, days = zip(*values, strict=True)
                arrivals = [str(ARRIVAL + timedelta(days=n)) for n in days]
                work.upsert_reservations(
                    bookings(
                        "".join(step), agent=agents, company=companies, arrival_on=arrivals, booked_on="2024-01-02"
                    )
                )
            else:
                told = {i: (status, str(ARRIVAL + timedelta(days=n))) for i, (status, n) in step.items()}
                work.record_outcomes(outcomes(**told))
            assert_tallies_right(work)


def test_a_tally_of_a_day_leaves_out_who_arrives_later(store: SqlStore) -> None:
    with store.begin() as work:
        arrivals = ["2024-02-01", "2024-02-02", "2024-02-01"]
        work.upsert_reservations(bookings("abc", agent=["9", "9", "8"], arrival_on=arrivals))
        told = work.tallies(["9"], [], date(2024, 2, 2))
    assert told.to_numpy().tolist() == [
        ["all", "", pd.Timestamp("2024-02-01"), -1, 2],
        ["agent", "9", pd.Timestamp("2024-02-01"), -1, 1],
    ]


@pytest.mark.parametrize("settle_days", [0, 1, 5])
def test_features_from_the_store_are_those_from_the_whole_history_whatever_the_page(
    store: SqlStore, settle_days: int
) -> None:
    (batch,) = Simulator(date(2016, 5, 2), 120, seed=7).batches()
    rule = LabelRule(settle_days=settle_days)
    with store.begin() as work:
        work.upsert_reservations(sized(batch.reservations))
        work.record_outcomes(batch.outcomes)
        history = work.history(LATER, LATER)
        whole = features.build(history, features.past_of(history), rule)
        assert whole["agent_cancel_rate"].nunique() > 20
        carried, start = BookingTime(rule), 0
        for size in (1, 7, 300, 0, 5_000, 40, len(history)):
            page = history.iloc[start : start + size]
            if not page.empty:
                pd.testing.assert_frame_equal(booking_time(work, page, rule), whole.loc[page.index], check_exact=True)
            pd.testing.assert_frame_equal(carried(work, page), whole.loc[page.index], check_exact=True)
            start += size
        assert start > len(history)


def test_pages_of_a_batch_read_no_more_than_what_came_since_the_page_before(store: SqlStore) -> None:
    (batch,) = Simulator(date(2016, 5, 2), 120, seed=7).batches()
    read: list[int] = []

    class Heard:
        """Hands on, and counts the rows."""

        def __init__(self, work: UnitOfWork) -> None:
            self._work = work

        def __getattr__(self, name: str) -> Any:
            def call(*given: Any, **named: Any) -> Any:
                found = getattr(self._work, name)(*given, **named)
                read.append(len(found) if name in ("tallies", "books") else 0)
                return found

            return call

    with store.begin() as work:
        work.upsert_reservations(sized(batch.reservations))
        work.record_outcomes(batch.outcomes)
        history = work.history(LATER, LATER)
        carried, of_page = BookingTime(LabelRule()), []
        pages = [history.iloc[rows] for rows in np.array_split(np.arange(len(history)), 20)]
        for page in pages:
            before = sum(read)
            carried(cast(UnitOfWork, Heard(work)), page)
            of_page.append(sum(read) - before)
        alone = sum(read)
        booking_time(cast(UnitOfWork, Heard(work)), pages[-1], LabelRule())
        assert max(of_page[10:]) < (sum(read) - alone) / 2


def test_reservations_and_their_outcomes_written_at_once_leave_right_tallies(store: SqlStore, store_url: str) -> None:
    ids = [f"{i:04d}" for i in range(1_200)]
    parts = [ids[start : start + 200] for start in range(0, len(ids), 200)]

    def write(kind: str) -> int:
        own = open_store(store_url)
        new = 0
        for part in parts if kind == "reservations" else reversed(parts):
            with own.begin() as work:
                if kind == "reservations":
                    agents = [str(int(i) % 3) for i in part]
                    done = work.upsert_reservations(bookings("x" * len(part), reservation_id=part, agent=agents))
                else:
                    done = work.record_outcomes(outcomes(**dict.fromkeys(part, ("canceled", "2024-01-20"))))
                work.commit()
                new += done.loaded
        own.close()
        return new

    assert at_once(lambda: write("reservations"), lambda: write("outcomes")) == [1_200, 1_200]
    with store.begin() as work:
        assert_tallies_right(work)
    assert Database(store_url).check() == []


# --- corrections ----------------------------------------------------------------------------------


def test_what_a_correction_replaces_is_kept_where_a_score_was_made_from_it(store: SqlStore) -> None:
    kept = "SELECT reservation_id, number, price, agent, load FROM corrections ORDER BY reservation_id, number"
    with store.begin() as work:
        work.upsert_reservations(bookings("ab"))
        work.add_features(built(bookings("a")), NOW)
        assert work.upsert_reservations(bookings("ab", price=1.5), load=7) == Upserted(0, 0, 2)
        assert work.upsert_reservations(bookings("ab", price=1.5), load=8) == Upserted(0, 2, 0)
        assert work.upsert_reservations(bookings("ab", agent=None), load=9) == Upserted(0, 0, 2)
        assert rows_of(work, kept) == [("a", 1, 101.35, "9", 7), ("a", 2, 1.5, "9", 9)]
        assert work.features(pd.Series(["a"]))["price"].tolist() == [101.35]


def test_a_correction_leaves_the_size_of_the_group_as_it_was(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(bookings("ab").assign(group_size=2.0))
        assert work.upsert_reservations(bookings("ab").assign(group_size=1.0)) == Upserted(0, 2, 0)
        work.upsert_reservations(bookings("ab", price=1.5).assign(group_size=1.0))
        assert work.history(DAY, DAY)["group_size"].tolist() == [2.0, 2.0]


def test_what_a_corrected_outcome_replaces_is_kept(store: SqlStore) -> None:
    with store.begin() as work:
        work.record_outcomes(outcomes(a=("stayed", "2024-02-04"), b=("stayed", "2024-02-04")), load=1)
        work.record_outcomes(outcomes(a=("no_show", "2024-02-04"), b=("stayed", "2024-02-04")), load=2)
        work.record_outcomes(outcomes(a=("no_show", "2024-02-05")), load=3)
        kept = rows_of(work, "SELECT reservation_id, number, status, load FROM outcome_corrections ORDER BY number")
        assert kept == [("a", 1, "stayed", 2), ("a", 2, "no_show", 3)]
        work.upsert_reservations(bookings("ab"))
        assert work.history(DAY, DAY)["status"].tolist() == ["no_show", "stayed"]


# --- columns that mappings declare ----------------------------------------------------------------

EXTRAS = (Column("nights_ratio", "number"), Column("country", "category"), Column("cars", "count"))


def extended(ids: str, **columns: object) -> pd.DataFrame:
    given = {"nights_ratio": 0.1 + 0.2, "country": "PRT", "cars": 1.0, **columns}
    rows = bookings(ids).assign(**given)
    return rows.astype({"nights_ratio": "float64", "country": "str", "cars": "float64"})


def test_declared_columns_come_back_exactly_through_reservations_and_features(store: SqlStore) -> None:
    written = extended(
        "abcd",
        nights_ratio=[1e-300, -0.1 - 0.2, np.nan, 1.7976931348623157e308],
        country=["Österreich 'x' \"y\", \\N\t\n", None, None, "🏨{}[]"],
        cars=[2.0, 0.0, np.nan, np.nan],
    )
    with store.begin() as work:
        work.declare_columns(EXTRAS, NOW)
        assert [c.name for c in work.extra_columns()] == ["cars", "country", "nights_ratio"]
        assert work.upsert_reservations(written) == Upserted(4, 0, 0)
        assert work.upsert_reservations(written) == Upserted(0, 4, 0)
        back = work.unscored("1", None, DAY, None, 9)
        pd.testing.assert_frame_equal(back[list(written)], written, check_exact=True)
        assert rows_of(work, "SELECT extras FROM reservations WHERE reservation_id = 'c'") == [(None,)]
        made = booking_time(work, back, LabelRule()).set_axis(back["reservation_id"])
        work.add_features(made, NOW)
        pd.testing.assert_frame_equal(work.features(back["reservation_id"]), made, check_exact=True)


def test_a_change_of_a_declared_column_is_a_correction(store: SqlStore) -> None:
    with store.begin() as work:
        work.declare_columns(EXTRAS, NOW)
        work.upsert_reservations(extended("ab"))
        assert work.upsert_reservations(extended("ab", country=["PRT", None])) == Upserted(0, 1, 1)
        assert work.history(DAY, DAY)["country"].isna().tolist() == [False, True]


def test_a_column_declared_later_is_missing_of_earlier_bookings(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(bookings("a"))
        work.add_features(built(bookings("a")), NOW)
        work.declare_columns(EXTRAS, NOW)
        work.declare_columns(EXTRAS, NOW)
        for found in (work.history(DAY, DAY), work.features(pd.Series(["a"]))):
            assert found[[c.name for c in EXTRAS]].isna().all(axis=None)


def test_a_column_keeps_the_kind_that_it_was_declared_with(store: SqlStore) -> None:
    with store.begin() as work:
        work.declare_columns(EXTRAS, NOW)
        with pytest.raises(BadInput, match="'country' is a category in this store, and a number in the mapping"):
            work.declare_columns([Column("country", "number")], NOW)


# --- the days of what is unscored -----------------------------------------------------------------


def test_days_of_unscored_bookings_count_what_the_pages_give(store: SqlStore) -> None:
    days = ["2024-01-03", "2024-01-05", "2024-01-05", "2024-01-04", "2024-01-09"]
    with store.begin() as work:
        work.upsert_reservations(bookings("abcde", booked_on=days, arrival_on=["2024-02-01"] * 3 + ["2024-03-01"] * 2))  # type: ignore[arg-type]
        work.add_predictions("1", scores("b"), DAY, NOW)
        for version in ("1", "2"):
            for after in (None, date(2024, 1, 3)):
                for ending in (None, Ending(date(2024, 2, 15)), Ending(date(2024, 2, 15), Matures.CHECK_OUT)):
                    asked = (version, after, date(2024, 1, 5))
                    page = work.unscored(*asked, None, 9, ending=ending)
                    counted = work.unscored_days(*asked, ending=ending)
                    assert counted.to_dict() == page["booked_on"].value_counts().to_dict()
                    assert counted.index.is_monotonic_increasing
        assert work.unscored_days("1", DAY, DAY).empty


@pytest.mark.parametrize("matures", list(Matures))
@pytest.mark.parametrize("settle_days", [0, 1, 9])
def test_bookings_that_mature_later_are_those_of_which_the_rule_says_so(
    store: SqlStore, matures: Matures, settle_days: int
) -> None:
    (batch,) = Simulator(date(2016, 5, 2), 40, seed=7).batches()
    rule, day = LabelRule(settle_days=settle_days, matures=matures), date(2016, 6, 20)
    with store.begin() as work:
        work.upsert_reservations(sized(batch.reservations))
        every = work.history(LATER, LATER)
        later = work.history(LATER, LATER, ending=rule.maturing(day))
        unscored = work.unscored("nobody", None, LATER, None, 10_000, ending=rule.maturing(day))
        since = work.history(LATER, LATER, booked_after=date(2016, 5, 20))
        between = work.history(LATER, LATER, ending=rule.maturing(day, day + timedelta(days=5)))
        narrow = work.history(LATER, LATER, ending=rule.maturing(day), only=RULED_BY)
    pd.testing.assert_frame_equal(narrow, later[["reservation_id", *RULED_BY, "status", "known_on"]])
    expected = every[maturity(every, rule) > pd.Timestamp(day)]["reservation_id"].tolist()
    assert 100 < len(expected) < len(every) - 100
    assert later["reservation_id"].tolist() == expected
    assert unscored["reservation_id"].tolist() == expected
    pd.testing.assert_frame_equal(since, every[every["booked_on"] > "2016-05-20"].reset_index(drop=True))
    by_then = maturity(every, rule) <= pd.Timestamp(day + timedelta(days=5))
    assert between["reservation_id"].tolist() == [i for i in every[by_then]["reservation_id"] if i in set(expected)]
    assert 30 < len(between) < len(later)
