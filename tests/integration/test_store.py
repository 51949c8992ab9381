"""The contract of `ports.UnitOfWork`, promise by promise, on SQLite and PostgreSQL.

Trials, and what is served of each booking, are in `test_store_trials.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import URL, Connection, NullPool, create_engine, func, select, text

from cancellations.domain import features, reservation
from cancellations.domain.aliases import AliasMove
from cancellations.domain.calibration import Calibration, Learned
from cancellations.domain.checks import Check, DayCheck, Finding, Hold, HoldState, Past, learn
from cancellations.domain.comparison import Arm, SequencePolicy, Step
from cancellations.domain.events import Channel, Message
from cancellations.domain.guards import Guard, GuardFinding, Outcome
from cancellations.domain.labels import RULED_BY, Ending, LabelRule
from cancellations.domain.promotion import Change, Kind, LedgerRow, Mode, Standing, Trial
from cancellations.domain.retraining import (
    Action,
    Decision,
    MonitorReport,
    RequestState,
    RetrainRequest,
    Signal,
    Verdict,
    Window,
)
from cancellations.errors import BadInput, EpochMismatch, LeaseLost, ServiceDown
from cancellations.ports import (
    LoadContent,
    LoadCounts,
    MessageState,
    QuarantinedRow,
    StoredDecision,
    UnitOfWork,
    Upserted,
    VersionRecord,
)
from cancellations.store import SqlStore, open_store
from cancellations.store.engine import translated
from cancellations.store.holds import KEPT_PASTS
from cancellations.store.tables import metadata

NOW = datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = date(2024, 5, 1)


def bookings(ids: str, booked_on: str = "2024-01-05", **columns: object) -> pd.DataFrame:
    """Canonical reservations, one for each letter; half of the optional columns are missing."""
    given = {
        "reservation_id": list(ids),
        "hotel": "city",
        "booked_on": booked_on,
        "arrival_on": "2024-02-01",
        "weekend_nights": 1,
        "week_nights": 2,
        "adults": 2,
        "children": 0,
        "meal": "BB",
        "agent": "9",
        "price": 101.35,
    }
    rows = reservation.coerce(pd.DataFrame({**given, **columns}, index=range(len(ids))))
    return rows.assign(group_size=1.0)


def outcomes(**status: tuple[str, str]) -> pd.DataFrame:
    rows = [(name, what, pd.Timestamp(day)) for name, (what, day) in status.items()]
    return pd.DataFrame(rows, columns=list(reservation.OUTCOME_NAMES))


def scores(ids: str, probability: float = 0.25) -> pd.DataFrame:
    return pd.DataFrame({"reservation_id": list(ids), "probability": probability})


def built(rows: pd.DataFrame) -> pd.DataFrame:
    """Features of bookings without any history, by reservation_id, as the use case stores them."""
    history = rows.assign(status=None, known_on=pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us]"))
    return features.build(rows, features.past_of(history), LabelRule()).set_axis(rows["reservation_id"])


def a_trial(trial_id: str = "trial-2-1", **changes: object) -> Trial:
    """A running trial of challenger 2 against champion 1; every field that a look may fill is filled."""
    steps = (
        Step(DAY, 7, 0.1 + 0.2, None, None),
        Step(DAY + timedelta(days=1), 20, -1e-7, -0.25, 0.1 + 0.7),
    )
    given = Trial(
        trial_id=trial_id,
        kind=Kind.TRIAL,
        champion="1",
        rival="2",
        epoch=1,
        opened_on=DAY,
        cohort_after=DAY - timedelta(days=3),
        last_day=DAY + timedelta(days=56),
        mode=Mode.APPROVE,
        serve_share=0.1 + 0.2,
        sequence=SequencePolicy(alpha=0.1 + 0.2, burn_in_days=21),
        request_id="r1",
        decided_on=DAY + timedelta(days=1),
        reasons=("20 bookings", "ü"),
        evidence=steps,
        asked_until=NOW + MINUTE,
        asked_by="run",
    )
    return replace(given, **changes)


def a_request(request_id: str = "r1", **changes: object) -> RetrainRequest:
    return RetrainRequest(**{"request_id": request_id, "as_of": DAY, "reason": "drift confirmed", **changes})  # type: ignore[arg-type]


def a_decision(report_id: str = "p1", champion: str = "1", end: date = DAY) -> StoredDecision:
    signals = (
        Signal("column drift", 0.1 + 0.2, 0.5, Verdict.OK, 1.0, 300),
        Signal("matured excess loss", None, 0.02, Verdict.NOT_EVALUATED, 1.5, 0, why="no outcome is final yet"),
    )
    report = MonitorReport(champion, Window(end - timedelta(days=27), end), 300, 5000, signals)
    return StoredDecision(report_id, report, Decision(Action.NONE, ("quiet", "very quiet")), None, NOW)


def a_past(days: int = 60) -> Past:
    """Learned from columns of each kind, with missing values."""
    draw = np.random.default_rng(1)
    count = 4 * days
    columns = {
        "price": draw.normal(100, 9, count).round(2),
        "lead_days": draw.integers(0, 3, count).astype(float),
        "meal": np.where(draw.random(count) < 0.1, None, draw.choice(["A", "B"], count)),
    }
    frame = pd.DataFrame(columns).astype({"meal": object})
    day = pd.Series(pd.Timestamp(DAY) + pd.to_timedelta(np.arange(count) // 4, unit="D"))
    return learn(frame, day, np.arange(count))


def a_message(message_id: str = "m1", channel: Channel = Channel.MAIL) -> Message:
    return Message(message_id, channel, "cancellations.drift.detected", {"request_id": "r1", "reasons": ["ü", 1.5]})


def a_version(version: str = "1", request_id: str = "r1") -> VersionRecord:
    return VersionRecord(version, request_id, "run", DAY, "digest", {"backtest_log_loss": 0.1 + 0.2})


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Runs each in a thread of its own, all starting together; results or errors in the same order."""
    start = threading.Barrier(len(acts))
    results: list[object] = [None] * len(acts)

    def run(place: int, act: Callable[[], object]) -> None:
        start.wait()
        try:
            results[place] = act()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# --- transactions ---------------------------------------------------------------------------------


def actions(reservation_id: str) -> pd.DataFrame:
    told = {"reservation_id": [reservation_id], "action_taken": ["call"], "acted_on": [pd.Timestamp("2024-01-18")]}
    return pd.DataFrame(told).astype({"acted_on": "datetime64[us]"})


def write_everything(work: UnitOfWork) -> None:
    work.declare_columns([reservation.Column("channel_fee", "number")], NOW)
    work.record_outcomes(outcomes(a=("canceled", "2024-01-20")))
    # An outcome that is there first, and no agent: the tally is one row.
    work.upsert_reservations(bookings("a", agent=None))
    work.add_quarantined([QuarantinedRow("file", 1, ("adults: no guest",), {"adults": "0"})], NOW, "a mapping")
    load = work.begin_load(LoadContent("file", "f", "a mapping", None, DAY), 2, 0, NOW)
    work.advance_load(load, LoadCounts("file", 2, 0, 1, 0, 0, 1, 1), 2, NOW)
    work.add_predictions("1", scores("a"), DAY, NOW)
    work.add_check(DayCheck(DAY, 1, 60), NOW)
    work.add_hold(Hold(DAY, DAY, 1, ()), NOW)
    work.keep_past(DAY, a_past(), NOW)
    work.add_calibration(Calibration(DAY), NOW)
    work.add_decision(a_decision())
    work.add_request(a_request(), NOW)
    work.update_request(a_request(state=RequestState.RUNNING), NOW)
    work.acquire_lease("retrain", "me", NOW, MINUTE)
    promote(work, work.standing(), "1")
    work.add_features(built(bookings("a")), NOW)
    work.upsert_reservations(bookings("a", agent=None, price=99.0))
    work.record_outcomes(outcomes(a=("canceled", "2024-01-21")))
    work.add_trial(a_trial(), NOW)
    work.add_guards("trial-2-1", (), DAY, NOW)
    work.add_arms("trial-2-1", {"a": Arm.RIVAL})
    work.record_actions(actions("a"))
    work.deal(pd.Series(["a"]), np.array([True]), DAY)
    work.serve(date(2024, 1, 19), NOW)
    work.begin_placement(1, NOW)
    work.add_alias_move(AliasMove("champion", "1", "2", 1, "put back", NOW))
    work.add_version(a_version(), NOW)
    work.add_messages([a_message()], NOW)
    work.mark_failed("m1", "no answer", None)
    work.pause("holidays", NOW)


def contents(store: SqlStore) -> dict[str, int]:
    """Rows of each table."""
    with store.begin() as work:
        return {
            t.name: work._connection.scalar(select(func.count()).select_from(t))  # type: ignore[attr-defined]
            for t in metadata.sorted_tables
        }


def test_everything_that_is_committed_stays(store: SqlStore) -> None:
    with store.begin() as work:
        write_everything(work)
        work.commit()
    assert {name: rows for name, rows in contents(store).items() if rows != 1} == {}


def test_work_without_commit_leaves_no_trace(store: SqlStore) -> None:
    with store.begin() as work:
        write_everything(work)
    assert set(contents(store).values()) == {0}


def test_work_ended_by_an_error_leaves_no_trace(store: SqlStore) -> None:
    with pytest.raises(KeyError), store.begin() as work:
        write_everything(work)
        raise KeyError
    assert set(contents(store).values()) == {0}


def test_work_after_a_commit_is_a_transaction_of_its_own(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(bookings("a"))
        work.commit()
        work.pause("holidays", NOW)
    assert (contents(store)["reservations"], contents(store)["switches"]) == (1, 0)


@pytest.mark.parametrize("empty", ["reservations", "switches"])
def test_each_kind_of_write_alone_is_undone(store: SqlStore, empty: str) -> None:
    with store.begin() as work:
        if empty == "reservations":
            work.upsert_reservations(bookings("abc"))
        else:
            work.pause("holidays", NOW)
    assert contents(store)[empty] == 0


def test_a_reader_does_not_wait_for_a_writer(store: SqlStore) -> None:
    with store.begin() as writer:
        writer.pause("holidays", NOW)
        with store.begin() as reader:
            assert reader.paused() is None
        writer.commit()
    with store.begin() as reader:
        assert reader.paused() == "holidays"


def test_a_server_that_went_away_is_told_in_our_words_wherever_that_is_noticed(postgres: URL) -> None:
    lost = SqlStore(postgres)
    end = text("SELECT pg_terminate_backend(:pid)")

    def gone(work: Connection) -> None:
        pid = work.execute(select(func.pg_backend_pid())).scalar_one()
        with create_engine(postgres, poolclass=NullPool).connect() as other:
            other.execute(end, {"pid": pid})

    # Noticed by nobody before the transaction is taken back.
    with pytest.raises(ServiceDown, match="try again"), lost.connection() as connection:
        gone(connection)
    # Noticed by the driver beneath SQLAlchemy, as COPY does.
    with pytest.raises(ServiceDown, match="try again"), lost.connection() as connection:
        gone(connection)
        driver: Any = connection.connection.driver_connection
        with translated(postgres):
            driver.execute("SELECT 1")
    with lost.connection() as connection:
        assert connection.execute(select(1)).scalar_one() == 1
    lost.close()


def test_a_closed_store_may_be_used_again(store: SqlStore) -> None:
    store.close()
    assert contents(store)["switches"] == 0


def test_naive_wall_time_is_refused(store: SqlStore) -> None:
    naive = datetime(2024, 5, 1)
    for act in (
        lambda work: work.pause("x", naive),
        lambda work: work.add_messages([a_message()], naive),
        lambda work: work.acquire_lease("retrain", "me", naive, MINUTE),
        lambda work: work.due_messages(None, naive, 1),
        lambda work: work.add_trial(a_trial(), naive),
        lambda work: work.add_trial(a_trial(asked_until=naive), NOW),
        lambda work: (promote(work, work.standing(), "1"), work.serve(DAY, naive)),
        lambda work: (work.upsert_reservations(bookings("a")), work.add_features(built(bookings("a")), naive)),
        lambda work: (work.upsert_reservations(bookings("a")), work.add_predictions("1", scores("a"), DAY, naive)),
    ):
        with pytest.raises(BadInput, match="no time zone"), store.begin() as work:
            act(work)


def test_wall_time_comes_back_as_the_same_instant_in_utc(store: SqlStore) -> None:
    with store.begin() as work:
        work.add_request(a_request(), NOW.astimezone(timezone(timedelta(hours=5, minutes=30))))
        since = work.waiting_since("r1")
    assert since == NOW
    assert since.utcoffset() == timedelta(0)


# --- reservations and outcomes --------------------------------------------------------------------


def test_rows_are_counted_as_loaded_unchanged_or_updated(store: SqlStore) -> None:
    with store.begin() as work:
        assert work.upsert_reservations(bookings("abc")) == Upserted(3, 0, 0)
        assert work.upsert_reservations(bookings("abc")) == Upserted(0, 3, 0)
        # b gains a value, c loses one: missing values compare as values.
        changed = bookings("abcd", babies=[np.nan, 1, np.nan, np.nan], meal=["BB", "BB", None, "BB"])
        assert work.upsert_reservations(changed) == Upserted(1, 1, 2)
        pd.testing.assert_frame_equal(work.history(DAY, DAY)[list(changed)], changed)


def test_reservations_come_back_with_canonical_types_and_values(store: SqlStore) -> None:
    price = [0.1 + 0.2, 1e-7]
    written = bookings("ab", price=price, hotel=["Grüße 'x', \\N\t", 'b\n"q"'], company=[None, " "])
    with store.begin() as work:
        work.upsert_reservations(written)
        pd.testing.assert_frame_equal(
            work.unscored("1", None, DAY, None, 10), written, check_exact=True, check_index_type="equiv"
        )


def test_any_text_comes_back_as_it_was_and_empty_text_is_not_missing(store: SqlStore) -> None:
    texts = [
        "",
        None,
        " ",
        "NULL",
        "\\N",
        "\\.",
        "x\n\\.\ny",
        '"',
        '""',
        "','",
        ",",
        "\r\n",
        "a\tb\\t",
        "nan",
        "=1+1",
        "é🏨",
    ]
    ids = [f"id {place} {other or ''}" for place, other in enumerate(texts)]
    written = bookings("x" * len(texts), reservation_id=[str(i) for i in range(len(texts))])
    written = written.assign(reservation_id=ids, meal=texts).astype({"reservation_id": "str", "meal": "str"})
    with store.begin() as work:
        assert work.upsert_reservations(written) == Upserted(len(texts), 0, 0)
        assert work.upsert_reservations(written) == Upserted(0, len(texts), 0)
        back = work.history(DAY, DAY).set_index("reservation_id").loc[ids]
        pd.testing.assert_series_equal(back["meal"].reset_index(drop=True), written["meal"])
        # An id is looked up as it is.
        work.add_predictions(
            "1", pd.DataFrame({"reservation_id": ids, "probability": np.arange(len(ids)) / 7}), DAY, NOW
        )
        assert work.predictions("1", written["reservation_id"]).loc[ids].tolist() == [n / 7 for n in range(len(ids))]


def test_numbers_come_back_exactly_or_missing(store: SqlStore) -> None:
    prices = [0.1 + 0.2, 1e-300, 5e-324, 1.7976931348623157e308, -0.0, np.nan, 123456789.123456789]
    written = bookings("abcdefg").assign(price=prices, babies=[0, 1, np.nan, 2_147_483_647, np.nan, 3, 4])
    with store.begin() as work:
        work.upsert_reservations(written)
        assert work.upsert_reservations(written) == Upserted(0, 7, 0)
        pd.testing.assert_frame_equal(work.unscored("1", None, DAY, None, 9), written, check_exact=True)


def test_empty_frames_keep_their_types(store: SqlStore) -> None:
    nothing = bookings("")
    with store.begin() as work:
        assert work.upsert_reservations(nothing) == Upserted(0, 0, 0)
        assert work.record_outcomes(outcomes()) == Upserted(0, 0, 0)
        assert work.add_predictions("1", scores(""), DAY, NOW) == 0
        pd.testing.assert_frame_equal(work.unscored("1", None, DAY, None, 10), nothing)
        assert work.history(DAY, DAY)["known_on"].dtype == "datetime64[us]"
        assert work.scored("1", DAY, DAY)["probability"].dtype == "float64"
        assert work.predictions("1", pd.Series([], dtype="str")).empty
        assert work.booked_span() is None


def test_one_batch_may_not_name_an_id_twice(store: SqlStore) -> None:
    with pytest.raises(BadInput, match=r"1 ids appear more than once.*'a'"), store.begin() as work:
        work.upsert_reservations(bookings("aab").iloc[[0, 1]])


def test_text_that_no_database_takes_is_refused_in_our_words(store: SqlStore, store_url: str) -> None:
    if store_url.startswith("sqlite"):
        pytest.skip("SQLite keeps NUL characters")
    with pytest.raises(BadInput, match=r"refused.*0x00"), store.begin() as work:
        work.upsert_reservations(bookings("a", hotel="a\0b"))


def test_outcomes_are_counted_when_new_or_different(store: SqlStore) -> None:
    first = outcomes(a=("canceled", "2024-01-20"), b=("stayed", "2024-02-04"))
    with store.begin() as work:
        assert work.record_outcomes(first) == Upserted(2, 0, 0)
        assert work.record_outcomes(first) == Upserted(0, 2, 0)
        changed = outcomes(a=("no_show", "2024-02-02"), b=("stayed", "2024-02-04"), c=("stayed", "2024-02-04"))
        assert work.record_outcomes(changed) == Upserted(1, 1, 1)


def test_history_tells_what_was_known_on_a_day(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(pd.concat([bookings("cb"), bookings("a", "2024-01-06"), bookings("z", "2024-03-01")]))
        work.record_outcomes(
            outcomes(a=("canceled", "2024-01-20"), b=("stayed", "2024-02-04"), unknown=("stayed", "2024-01-09"))
        )
        seen = work.history(date(2024, 2, 1), date(2024, 2, 3))
        assert work.booked_span() == (date(2024, 1, 5), date(2024, 3, 1))
    assert seen["reservation_id"].tolist() == ["b", "c", "a"]
    assert seen["status"].isna().tolist() == [True, True, False]
    assert seen["known_on"].tolist() == [pd.NaT, pd.NaT, pd.Timestamp("2024-01-20")]
    assert list(seen.columns) == [*reservation.NAMES, "group_size", "status", "known_on"]
    assert isinstance(seen.index, pd.RangeIndex)
    assert seen["known_on"].dtype == "datetime64[us]"


def test_history_can_leave_out_those_that_have_arrived(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(bookings("abc", arrival_on=["2024-02-03", "2024-02-02", "2024-02-01"]))
        work.record_outcomes(outcomes(a=("canceled", "2024-01-20")))
        seen = work.history(DAY, DAY, ending=Ending(date(2024, 2, 1)))
    assert seen["reservation_id"].tolist() == ["a", "b"]
    assert seen["status"].isna().tolist() == [False, True]


def test_the_feed_of_outcomes_has_come_to_the_last_day_that_was_known(store: SqlStore) -> None:
    with store.begin() as work:
        assert work.outcomes_until(DAY) is None
        work.record_outcomes(outcomes(a=("canceled", "2024-01-20"), b=("stayed", "2024-02-04")))
        assert work.outcomes_until(DAY) == work.outcomes_until(date(2024, 2, 4)) == date(2024, 2, 4)
        assert work.outcomes_until(date(2024, 2, 3)) == date(2024, 1, 20)
        assert work.outcomes_until(date(2024, 1, 19)) is None


def test_a_bad_row_is_kept_once_for_its_values(store: SqlStore) -> None:
    row = QuarantinedRow("file", 7, ("adults: is missing",), {"adults": None, "hotel": "a\0b", "price": float("inf")})
    other = QuarantinedRow("file", 7, ("adults: is missing",), {"adults": "", "hotel": "x"})
    with store.begin() as work:
        assert work.add_quarantined([row, other], NOW) == 2
        assert work.add_quarantined([row, other, QuarantinedRow("file", 8, row.problems, row.values)], NOW) == 1
        assert work.add_quarantined([], NOW) == 0


# --- predictions ----------------------------------------------------------------------------------


def test_pages_of_unscored_bookings_meet_every_one_once(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(
            pd.concat([bookings("dbA", "2024-01-05"), bookings("ca", "2024-01-06"), bookings("e", "2024-01-09")])
        )
        work.add_predictions("1", scores("b"), DAY, NOW)
        work.add_predictions("2", scores("d"), DAY, NOW)
        met: list[str] = []
        after = None
        while len(page := work.unscored("1", date(2024, 1, 4), date(2024, 1, 8), after, 2)):
            assert len(page) <= 2
            met += page["reservation_id"].tolist()
            after = (page["booked_on"].iloc[-1].date(), met[-1])
        assert met == ["A", "d", "a", "c"]
        assert work.unscored("1", date(2024, 1, 5), date(2024, 1, 9), None, 9)["reservation_id"].tolist() == list("ace")


def test_unscored_can_leave_out_those_that_have_arrived(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(bookings("abc", arrival_on=["2024-02-01", "2024-02-02", "2024-02-03"]))
        page = work.unscored("1", None, DAY, None, 9, ending=Ending(date(2024, 2, 2)))
    assert page["reservation_id"].tolist() == ["c"]


def test_a_prediction_stays_as_it_was_first_written(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(bookings("abc"))
        assert work.add_predictions("1", scores("ab", 0.1 + 0.2), DAY, NOW) == 2
        assert work.add_predictions("1", scores("bc", 0.75), DAY, NOW) == 1
        found = work.predictions("1", pd.Series(["c", "b", "nobody", "b"]))
        assert found.sort_index().to_dict() == {"b": 0.1 + 0.2, "c": 0.75}
        assert found.index.name == "reservation_id"
        assert work.predictions("2", pd.Series(["c"])).empty


def test_scored_bookings_carry_the_probability_of_one_version(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(pd.concat([bookings("ba", "2024-01-05"), bookings("c", "2024-01-07")]))
        work.add_predictions("1", scores("abc", 0.25), DAY, NOW)
        work.add_predictions("2", scores("a", 0.5), DAY, NOW)
        seen = work.scored("1", date(2024, 1, 5), date(2024, 1, 5))
        assert len(work.scored("1", date(2024, 1, 5), date(2024, 1, 7))) == 3
    assert list(seen.columns) == [*reservation.NAMES, "group_size", "probability"]
    assert seen[["reservation_id", "probability"]].to_numpy().tolist() == [["a", 0.25], ["b", 0.25]]


def test_two_batches_at_once_write_each_prediction_once(store: SqlStore, store_url: str) -> None:
    ids = [f"{i:05d}" for i in range(3_000)]
    many = bookings("x" * len(ids), reservation_id=ids)
    with store.begin() as work:
        work.upsert_reservations(many)
        work.commit()

    def score(order: int) -> int:
        own = open_store(store_url)
        with own.begin() as work:
            rows = pd.DataFrame({"reservation_id": ids[::order], "probability": 0.5})
            new = work.add_predictions("1", rows, DAY, NOW)
            work.commit()
        own.close()
        return new

    written = at_once(lambda: score(1), lambda: score(-1), lambda: score(1))
    assert sum(n for n in written if isinstance(n, int)) == len(ids), written
    assert contents(store)["predictions"] == len(ids)


def test_two_loads_at_once_count_each_new_row_once(store: SqlStore, store_url: str) -> None:
    ids = [f"{i:05d}" for i in range(3_000)]

    def load() -> Upserted:
        own = open_store(store_url)
        with own.begin() as work:
            done = work.upsert_reservations(bookings("x" * len(ids), reservation_id=ids))
            work.commit()
        own.close()
        return done

    done = at_once(load, load)
    assert sorted(done, key=str) == sorted([Upserted(3_000, 0, 0), Upserted(0, 3_000, 0)], key=str)


# --- monitor and requests -------------------------------------------------------------------------


def test_a_decision_is_recorded_once_for_a_champion_and_window(store: SqlStore) -> None:
    with store.begin() as work:
        assert not work.report_exists("1", DAY)
        assert work.add_decision(a_decision("p1"))
        assert not work.add_decision(a_decision("p2"))
        assert work.report_exists("1", DAY)
        assert work.decision("p1") == a_decision("p1")
        assert work.decision("p2") is None


def test_decisions_come_newest_window_first(store: SqlStore) -> None:
    week = timedelta(days=7)
    with store.begin() as work:
        for report_id, champion, end in (("p2", "1", DAY + week), ("p1", "1", DAY), ("p3", "2", DAY + 2 * week)):
            work.add_decision(a_decision(report_id, champion, end))
        assert [d.report_id for d in work.decisions()] == ["p3", "p2", "p1"]
        assert [d.report_id for d in work.decisions("1")] == ["p2", "p1"]
        assert [d.report_id for d in work.decisions("1", limit=1)] == ["p2"]


def test_an_outcome_that_is_corrected_later_is_what_was_known_on_each_day(store: SqlStore) -> None:
    first, second, third = (DAY + timedelta(days=n) for n in (3, 9, 20))
    with store.begin() as work:
        work.upsert_reservations(bookings("abc"))
        work.record_outcomes(outcomes(a=("canceled", str(first)), b=("stayed", str(first))))
        work.record_outcomes(outcomes(a=("stayed", str(second))))
        work.record_outcomes(outcomes(a=("no_show", str(third))))

        def known(day: date) -> dict[str, object]:
            whole = work.history(third, day)
            narrow = work.history(third, day, only=RULED_BY)
            pd.testing.assert_frame_equal(whole[["status", "known_on"]], narrow[["status", "known_on"]])
            told = whole.set_index("reservation_id")["status"].dropna()
            assert (whole["known_on"].dropna() <= pd.Timestamp(day)).all()
            return {str(k): v for k, v in told.items()}

        day = timedelta(days=1)
        assert known(first - day) == {}
        assert known(first) == known(second - day) == {"a": "canceled", "b": "stayed"}
        assert known(second) == known(third - day) == {"a": "stayed", "b": "stayed"}
        assert known(third) == {"a": "no_show", "b": "stayed"}


def test_a_day_is_checked_once_and_its_findings_come_back_as_they_were(store: SqlStore) -> None:
    findings = (
        Finding("price", Check.MISSING, 90, 91, 0.001, 1e-30),
        Finding("", Check.REPEATED, 45, 91, 0.2, 0.0, "A"),
    )
    broken, passed = DayCheck(DAY, 91, 200, findings), DayCheck(DAY + timedelta(days=1), 80, 201)
    with store.begin() as work:
        assert work.add_check(broken, NOW) and work.add_check(passed, NOW)
        assert not work.add_check(DayCheck(DAY, 1, 1), NOW)
        assert work.checks() == [passed, broken]
        assert work.checks(limit=1) == [passed]
        assert work.checks(until=DAY) == [broken]


def test_a_day_is_held_once_at_a_time_and_stays_on_record(store: SqlStore) -> None:
    findings = (Finding("price", Check.RANGE, 9, 12, 0.001, 1e-30, "9450"),)
    first, again = Hold(DAY, DAY, 12, findings, "a"), Hold(DAY, DAY + timedelta(days=1), 14, findings[:0], "b")
    with store.begin() as work:
        assert not work.end_hold(DAY, HoldState.PASSED, "the checks", "they pass", NOW)
        assert not work.note_hold(again)
        assert work.add_hold(first, NOW) and not work.add_hold(again, NOW)
        assert work.holds(HoldState.HELD) == [replace(first, since=NOW)]
        assert work.note_hold(again)
        assert work.holds() == [replace(first, bookings=14, findings=(), content="b", since=NOW)]
        assert work.end_hold(DAY, HoldState.RELEASED, "ada", "new prices", NOW)
        assert not work.end_hold(DAY, HoldState.PASSED, "the checks", "they pass", NOW)
        assert work.add_hold(again, NOW + MINUTE)
        assert [(h.state, h.by, h.since) for h in work.holds()] == [
            (HoldState.RELEASED, "ada", NOW),
            (HoldState.HELD, None, NOW + MINUTE),
        ]
        assert len(work.holds(HoldState.RELEASED, HoldState.EXPIRED)) == 1
        assert work.holds(since=DAY + timedelta(days=1)) == []


def test_of_a_day_that_is_held_what_has_no_features_is_not_scored(store: SqlStore) -> None:
    rows = bookings("abc", booked_on="2024-01-02")
    elsewhen = bookings("d", booked_on="2024-01-03")
    held = date(2024, 1, 2)
    with store.begin() as work:
        work.upsert_reservations(pd.concat([rows, elsewhen], ignore_index=True))
        work.add_features(built(bookings("a", booked_on="2024-01-02")), NOW)
        work.add_hold(Hold(held, held, 2, ()), NOW)
        waiting = work.unscored("1", None, date(2024, 2, 1), None, 10)
        assert waiting["reservation_id"].tolist() == ["a", "d"]
        assert work.unscored_days("1", None, date(2024, 2, 1)).tolist() == [1, 1]
        assert work.unscored_days("1", None, date(2024, 2, 1), held=True).tolist() == [3, 1]
        # Read along with the features, too: the one of the held day has some, one of another day has none.
        assert work.unscored_features("1", None, date(2024, 2, 1), None, 10) is None
        alone = work.unscored_features("1", date(2024, 1, 1), held, None, 10)
        assert alone is not None and alone["reservation_id"].tolist() == ["a"]
        work.end_hold(held, HoldState.RELEASED, "ada", "new prices", NOW)
        assert work.unscored_days("1", None, date(2024, 2, 1)).tolist() == [3, 1]


def test_what_checks_learned_comes_back_as_it_was_and_of_the_last_days_alone(store: SqlStore) -> None:
    past = a_past()
    with store.begin() as work:
        for n in range(KEPT_PASTS + 5):
            work.keep_past(DAY + timedelta(days=n), past, NOW)
        work.keep_past(DAY + timedelta(days=9), a_past(days=70), NOW)
        assert work.past(DAY + timedelta(days=5)) == past and work.past(DAY + timedelta(days=4)) is None
        again = work.past(DAY + timedelta(days=9))
        assert again is not None and again.days == 70
        work.forget_pasts()
        assert work.past(DAY + timedelta(days=9)) is None


def test_what_guards_found_is_written_once_and_comes_back_as_it_was(store: SqlStore) -> None:
    found = (
        GuardFinding(Guard.RANKS, Outcome.FIRED, 0.1 + 0.2, 200, 20, 0.97, 0.93),
        GuardFinding(Guard.LOSS, Outcome.NOT_EVALUATED, 0.5, 200, 3),
    )
    with store.begin() as work:
        work.add_trial(a_trial(), NOW)
        assert work.guards("trial-2-1") is None
        assert work.add_guards("trial-2-1", found, DAY, NOW) and not work.add_guards("trial-2-1", (), DAY, NOW)
        assert work.guards("trial-2-1") == found


def test_thresholds_count_from_their_day_on_and_come_back_as_they_were(store: SqlStore) -> None:
    learned = (
        Learned("column drift", 0.5, 0.922, 19, 152, 0.533, 0.967, 16, 1, 0.1),
        Learned("volume", 3.0, 3.0, 5, 40, why="evaluated under 5 past champions, 6 are needed"),
    )
    week = timedelta(days=7)
    first, later = Calibration(DAY, learned, DAY - 20 * week, DAY - 8 * week, 8), Calibration(DAY + week)
    with store.begin() as work:
        assert work.calibration(DAY) is None
        work.add_calibration(later, NOW)
        work.add_calibration(first, NOW)
        assert work.calibration(DAY - timedelta(days=1)) is None
        # The last one that was made, of those that say something of the day.
        assert work.calibration(DAY) == first == work.calibration(DAY + week)
        work.add_calibration(later, NOW)
        assert work.calibration(DAY + week) == later
        assert work.calibration(DAY) == first


def test_a_request_is_written_once_and_updated_by_id(store: SqlStore) -> None:
    first = a_request("r2", report_id="p1", champion="1")
    ended = a_request("r2", state=RequestState.CANDIDATE, attempts=2, version="2", detail=("passed: x", "y"))
    with store.begin() as work:
        assert work.request("r2") is None
        assert work.add_request(first, NOW)
        assert not work.add_request(ended, NOW)
        assert work.request("r2") == first
        work.add_request(a_request("r1"), NOW)
        assert [r.request_id for r in work.requests()] == ["r2", "r1"]
        work.update_request(ended, NOW)
        assert work.requests(RequestState.CANDIDATE) == [ended]
        assert work.requests(RequestState.WAITING, RequestState.CANDIDATE) == [ended, a_request("r1")]
        with pytest.raises(BadInput, match="no retrain request 'r9'"):
            work.update_request(a_request("r9"), NOW)
        with pytest.raises(BadInput, match="no retrain request 'r9'"):
            work.waiting_since("r9")


def test_waiting_since_moves_with_the_state_only(store: SqlStore) -> None:
    with store.begin() as work:
        work.add_request(a_request(), NOW)
        work.update_request(a_request(attempts=1), NOW + MINUTE)
        assert work.waiting_since("r1") == NOW
        work.update_request(a_request(state=RequestState.RUNNING), NOW + 2 * MINUTE)
        assert work.waiting_since("r1") == NOW + 2 * MINUTE


def test_what_keeps_a_request_from_starting_is_noted_for_each_beside_when_it_was_made(store: SqlStore) -> None:
    with store.begin() as work:
        for name in ("r1", "r2"):
            work.add_request(a_request(name), NOW)
        work.update_request(a_request(state=RequestState.RUNNING), NOW + MINUTE)
        assert work.made_at("r1") == NOW and work.held_until("r1") is None
        work.note_held("r1", "a trial must end first", NOW)
        work.note_held("r1", "paused", NOW + 2 * MINUTE)
        assert (work.held_until("r1"), work.held_until("r2")) == (NOW + 2 * MINUTE, None)
        assert (work.paused(), work.promotions_held()) == (None, None)
        with pytest.raises(BadInput, match="no retrain request 'r9'"):
            work.made_at("r9")


def test_the_pause_has_a_reason_until_it_ends(store: SqlStore) -> None:
    with store.begin() as work:
        assert work.paused() is None
        work.pause("holidays", NOW)
        work.pause("audit", NOW)
        assert work.paused() == "audit"
        work.resume()
        work.resume()
        assert work.paused() is None


def test_promotions_are_held_for_a_reason_until_somebody_releases_them(store: SqlStore) -> None:
    with store.begin() as work:
        assert work.promotions_held() is None
        work.hold_promotions("version 2 was rolled back", NOW)
        work.hold_promotions("version 3 was rolled back", NOW)
        work.pause("holidays", NOW)
        assert (work.promotions_held(), work.paused()) == ("version 3 was rolled back", "holidays")
        work.release_promotions()
        work.release_promotions()
        assert (work.promotions_held(), work.paused()) == (None, "holidays")


# --- leases ---------------------------------------------------------------------------------------


def test_a_lease_has_one_holder_and_a_growing_token(store: SqlStore) -> None:
    with store.begin() as work:
        assert work.lease_holder("retrain", NOW) is None
        first = work.acquire_lease("retrain", "one", NOW, MINUTE)
        assert first is not None
        assert work.acquire_lease("retrain", "two", NOW, MINUTE) is None
        assert work.lease_holder("retrain", NOW) == "one"
        work.release_lease("retrain", first)
        assert work.lease_holder("retrain", NOW) is None
        second = work.acquire_lease("retrain", "two", NOW, MINUTE)
        assert second is not None and second > first
        # The name of another job is another lease.
        assert work.acquire_lease("deliver", "one", NOW, MINUTE) is not None


def test_checking_a_lease_renews_it(store: SqlStore) -> None:
    with store.begin() as work:
        token = work.acquire_lease("retrain", "one", NOW, MINUTE)
        assert token is not None
        work.check_lease("retrain", token, NOW + 0.9 * MINUTE, MINUTE)
        work.check_lease("retrain", token, NOW + 1.8 * MINUTE, MINUTE)
        assert work.acquire_lease("retrain", "two", NOW + 2.7 * MINUTE, MINUTE) is None


def test_a_late_holder_is_refused(store: SqlStore) -> None:
    with store.begin() as work:
        old = work.acquire_lease("retrain", "one", NOW, MINUTE)
        assert old is not None
        with pytest.raises(LeaseLost, match="expired"):
            work.check_lease("retrain", old, NOW + MINUTE, MINUTE)
        new = work.acquire_lease("retrain", "two", NOW + MINUTE, MINUTE)
        assert new is not None
        with pytest.raises(LeaseLost, match="two holds it"):
            work.check_lease("retrain", old, NOW + MINUTE, MINUTE)
        work.release_lease("retrain", old)  # a late release takes nothing from the new holder
        work.check_lease("retrain", new, NOW + MINUTE, MINUTE)
        with pytest.raises(LeaseLost):
            work.check_lease("never taken", 1, NOW, MINUTE)


def test_a_restarted_owner_fences_off_its_former_self(store: SqlStore) -> None:
    with store.begin() as work:
        old = work.acquire_lease("retrain", "one", NOW, MINUTE)
        new = work.acquire_lease("retrain", "one", NOW, MINUTE)
        assert old is not None and new is not None and new > old
        with pytest.raises(LeaseLost):
            work.check_lease("retrain", old, NOW, MINUTE)


def test_of_workers_that_reach_for_a_lease_at_once_one_gets_it(store: SqlStore, store_url: str) -> None:
    def reach(owner: str) -> int | None:
        own = open_store(store_url)
        with own.begin() as work:
            token = work.acquire_lease("retrain", owner, NOW, MINUTE)
            work.commit()
        own.close()
        return token

    tokens = at_once(*(lambda owner=f"w{i}": reach(owner) for i in range(4)))  # type: ignore[misc]
    assert sorted(tokens, key=str) == [1, None, None, None]


def test_nothing_of_a_late_holder_s_work_is_written(store: SqlStore) -> None:
    with store.begin() as work:
        old = work.acquire_lease("retrain", "one", NOW, MINUTE)
        work.commit()
    with store.begin() as work:
        work.acquire_lease("retrain", "two", NOW + MINUTE, MINUTE)
        work.commit()
    assert old is not None
    with pytest.raises(LeaseLost), store.begin() as work:
        work.add_request(a_request(), NOW)
        work.check_lease("retrain", old, NOW + MINUTE, MINUTE)
        work.commit()
    with store.begin() as work:
        assert work.requests() == []


def test_nobody_takes_a_lease_between_its_check_and_the_commit(store: SqlStore, store_url: str) -> None:
    expiry = NOW + MINUTE
    with store.begin() as work:
        token = work.acquire_lease("retrain", "one", NOW, MINUTE)
        work.commit()
    assert token is not None

    def write() -> None:
        with store.begin() as work:
            work.check_lease("retrain", token, NOW + 0.9 * MINUTE, MINUTE)
            work.add_request(a_request(), NOW)
            checked.wait()
            work.commit()

    def take() -> int | None:
        own = open_store(store_url)
        try:
            with own.begin() as work:
                checked.wait()
                return work.acquire_lease("retrain", "two", expiry, MINUTE)
        finally:
            own.close()

    checked = threading.Barrier(2)
    assert at_once(write, take) == [None, None]
    with store.begin() as work:
        assert work.requests() == [a_request()]


# --- ledger ---------------------------------------------------------------------------------------


def promote(work: UnitOfWork, seen: Standing, champion: str) -> Standing:
    return work.change_standing(
        seen,
        champion=champion,
        challenger="9",
        change=Change.PROMOTED,
        reason="better",
        by="the trial",
        request_id="r1",
        trial_id="t1",
        as_of=DAY,
        now=NOW,
    )


def test_the_standing_starts_empty_and_each_change_is_a_ledger_row(store: SqlStore) -> None:
    with store.begin() as work:
        empty = work.standing()
        assert empty == Standing(None, None, 0)
        assert work.ledger() == []
        first = promote(work, empty, "1")
        second = promote(work, first, "2")
        assert work.standing() == second == Standing("2", "9", 2)
        assert [(row.epoch, row.champion) for row in work.ledger()] == [(1, "1"), (2, "2")]
        written = LedgerRow(1, "1", "9", Change.PROMOTED, "better", "the trial", "r1", "t1", DAY, NOW)
        assert work.ledger()[0] == written
        assert isinstance(work.ledger()[0].change, Change)


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_change_from_an_old_standing_is_refused(store: SqlStore, epoch: int) -> None:
    with store.begin() as work:
        promote(work, promote(work, work.standing(), "1"), "2")
        with pytest.raises(EpochMismatch, match=rf"epoch 2 \(champion 2\), not at epoch {epoch}"):
            promote(work, Standing("1", None, epoch), "3")
        assert work.standing() == Standing("2", "9", 2)
        assert len(work.ledger()) == 2


@pytest.mark.parametrize("changes", [0, 1])
def test_of_two_writers_for_one_epoch_exactly_one_wins(store: SqlStore, store_url: str, changes: int) -> None:
    with store.begin() as work:
        for _ in range(changes):
            promote(work, work.standing(), "0")
        work.commit()
        seen = work.standing()

    def change(champion: str) -> Standing:
        own = open_store(store_url)
        try:
            with own.begin() as work:
                assert work.standing() == seen
                both_have_read.wait()
                after = promote(work, seen, champion)
                work.commit()
                return after
        finally:
            own.close()

    both_have_read = threading.Barrier(2)
    results = at_once(lambda: change("1"), lambda: change("2"))
    won = [r for r in results if isinstance(r, Standing)]
    assert len(won) == 1 and sum(isinstance(r, EpochMismatch) for r in results) == 1, results
    with store.begin() as work:
        assert work.standing() == won[0]
        assert [row.champion for row in work.ledger()] == ["0"] * changes + [won[0].champion]


def test_a_version_is_recorded_once_and_a_request_has_one(store: SqlStore) -> None:
    with store.begin() as work:
        assert work.version("1") is None
        work.add_version(a_version(), NOW)
        work.add_version(a_version(), NOW)
        assert work.version("1") == a_version()
        work.commit()
        with pytest.raises(BadInput, match="refused"):
            work.add_version(a_version("2"), NOW)


# --- outbox ---------------------------------------------------------------------------------------


def test_messages_wait_until_they_are_sent(store: SqlStore) -> None:
    with store.begin() as work:
        work.add_messages([a_message("m2"), a_message("m1", Channel.EVENT)], NOW)
        work.add_messages([a_message("m2"), a_message("m3")], NOW + MINUTE)
        work.add_messages([], NOW)
        assert [e.message.id for e in work.due_messages(None, NOW, 9)] == ["m2", "m1"]
        assert [e.message.id for e in work.due_messages(None, NOW + MINUTE, 2)] == ["m2", "m1"]
        assert work.due_messages(Channel.EVENT, NOW, 9)[0].message == a_message("m1", Channel.EVENT)
        assert work.due_messages(Channel.EVENT, NOW, 9)[0].created_at == NOW
        work.mark_sent("m2", NOW)
        work.mark_sent("m2", NOW)
        assert [e.message.id for e in work.pending_messages()] == ["m1", "m3"]
        work.add_messages([a_message("m2")], NOW)
        assert [e.message.id for e in work.pending_messages()] == ["m1", "m3"]
        with pytest.raises(BadInput, match="'m9'"):
            work.mark_sent("m9", NOW)


def test_a_failed_message_is_tried_again_when_due_and_dies_in_the_end(store: SqlStore) -> None:
    with store.begin() as work:
        work.add_messages([a_message()], NOW)
        work.mark_failed("m1", "no answer", NOW + MINUTE)
        assert work.due_messages(None, NOW, 9) == []
        (entry,) = work.due_messages(None, NOW + MINUTE, 9)
        assert (entry.attempts, entry.last_error) == (1, "no answer")
        work.mark_failed("m1", "refused", None)
        assert work.due_messages(None, NOW + 9 * MINUTE, 9) == work.pending_messages() == []
        (dead,) = work.dead_messages()
        assert (dead.message, dead.attempts, dead.last_error) == (a_message(), 2, "refused")


def test_a_late_failure_does_not_bring_a_sent_message_back(store: SqlStore) -> None:
    with store.begin() as work:
        work.add_messages([a_message()], NOW)
        work.mark_sent("m1", NOW)
        work.mark_failed("m1", "no answer", NOW)
        work.mark_failed("m1", "no answer", None)
        assert work.pending_messages() == work.dead_messages() == []


def test_mails_of_kinds_that_wait_are_passed_over_until_they_are_told(store: SqlStore) -> None:
    kept, other = a_message("m1"), replace(a_message("m2"), topic="cancellations.trial.ended")
    with store.begin() as work:
        work.add_messages([kept, other, replace(kept, id="m3")], NOW)
        assert [e.message.id for e in work.due_messages(Channel.MAIL, NOW, 9, [kept.topic])] == ["m2"]
        assert [e.message.id for e in work.due_messages(Channel.MAIL, NOW, 1, [kept.topic])] == ["m2"]
        assert work.mark_told(["m1", "m9"]) == 1
        assert work.mark_told(["m1"]) == 0
        assert [e.message.id for e in work.due_messages(Channel.MAIL, NOW, 9)] == ["m2", "m3"]
        work.mark_failed("m1", "too late", NOW)
        work.mark_sent("m2", NOW)
        work.mark_failed("m3", "gone", None)
        assert work.mark_told(["m2", "m3"]) == 0 and work.pending_messages() == []
        found = work.messages(["m3", "m1", "m9", "m2"])
        assert [(e.message.id, e.state) for e in found] == [
            ("m1", MessageState.TOLD),
            ("m2", MessageState.SENT),
            ("m3", MessageState.DEAD),
        ]


def test_mails_are_found_by_their_place_and_the_last_of_a_topic(store: SqlStore) -> None:
    with store.begin() as work:
        work.add_messages([a_message("m1"), a_message("e1", Channel.EVENT), a_message("m2"), a_message("m3")], NOW)
        first, *_ = work.mails_after(0)
        assert [e.message.id for e in work.mails_after(0)] == ["m1", "m2", "m3"]
        assert [e.message.id for e in work.mails_after(first.number)] == ["m2", "m3"]
        assert work.last_message("nothing") is None
        work.mark_failed("m3", "gone", None)
        topic = first.message.topic
        last, alive = work.last_message(topic), work.last_message(topic, but=MessageState.DEAD)
        assert last is not None and alive is not None
        assert (last.message.id, alive.message.id) == ("m3", "m2")
