"""Every query of a hot path is answered through an index, on both databases."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sqlalchemy import event
from test_store import NOW, a_trial, bookings, outcomes, promote, scores

from cancellations.domain.checks import HoldState
from cancellations.domain.comparison import Arm
from cancellations.domain.events import Channel
from cancellations.domain.labels import Ending, LabelRule
from cancellations.domain.promotion import TrialState
from cancellations.domain.retraining import RequestState
from cancellations.ports import LoadContent, MessageState, QuarantineState, UnitOfWork
from cancellations.store import SqlStore
from cancellations.store.bulk import BulkTransaction, frame
from cancellations.usecases.point_in_time import booking_time

DAY, LATER = date(2024, 1, 1), date(2024, 2, 1)
# Tables with a row for each booking, or several: nothing may read one from end to end.
OF_BOOKINGS = {
    *("reservations", "outcomes", "features", "predictions", "servings", "arms"),
    *("corrections", "outcome_corrections", "tallies", "actions", "hold_outs"),
}
# Tables that grow with time: the newest rows may be read along an index.
OF_TIME = {"decisions", "calibrations", "requests", "messages", "loads", "quarantine", "ledger"}


def act(work: UnitOfWork) -> None:
    """All that is done often, or on many rows."""
    ids = pd.Series(["a", "b"])
    rows = bookings("ab", booked_on="2024-01-02")
    work.upsert_reservations(rows)
    work.upsert_reservations(bookings("ab", booked_on="2024-01-02", agent="8"))
    work.booked(["a", "b"], DAY)
    work.record_outcomes(outcomes(a=("canceled", "2024-01-20")))
    work.record_outcomes(outcomes(a=("no_show", "2024-01-20")))
    work.add_features(booking_time(work, rows, LabelRule()).set_axis(rows["reservation_id"]), NOW)
    work.upsert_reservations(rows)
    work.add_predictions("1", scores("ab"), LATER, NOW)
    work.ruled_by(ids)
    work.tallies(["8", "9"], ["1"], LATER)
    work.tallies(["8", "9"], ["1"], LATER, since=DAY)
    work.tallies(["8", "9"], ["1"], LATER, since=DAY, earlier=False)
    work.books((DAY, LATER), DAY, LATER)
    work.books((DAY, LATER), DAY, LATER, earlier=False)
    work.unscored("1", DAY, LATER, (DAY, "a"), 10)
    work.unscored("1", None, LATER, None, 10, ending=Ending(DAY))
    work.unscored_features("1", DAY, LATER, (DAY, "a"), 10)
    work.unscored_features("1", None, LATER, None, 10, ending=Ending(DAY))
    work.unscored_days("1", DAY, LATER)
    work.unscored_days("1", None, LATER, ending=Ending(DAY))
    work.scored("1", DAY, LATER)
    work.predictions("1", ids)
    work.features(ids)
    work.calibration(LATER)
    work.holds(HoldState.HELD)
    work.past(DAY)
    work.guards("t")
    work.history(LATER, LATER)
    work.history(LATER, LATER, ending=Ending(DAY))
    work.outcomes_until(LATER)
    work.booked_span()
    work.add_arms("trial-2-1", {"a": Arm.RIVAL})
    work.unassigned("trial-2-1", DAY)
    work.dealt("trial-2-1")
    actions = pd.DataFrame({"reservation_id": ["a"], "action_taken": ["call"], "acted_on": [pd.Timestamp(LATER)]})
    work.record_actions(actions)
    work.first_action(LATER)
    work.acted(ids, LATER)
    work.undealt(DAY)
    work.deal(ids, np.array([True, False]), DAY)
    work.held_out(ids)
    work.has_hold_out(LATER)
    work.serve(DAY, NOW)
    work.served(DAY)
    work.standing()
    work.open_trial()
    work.trial("t")
    work.update_trial(a_trial(), TrialState.RUNNING, NOW)
    work.promotions_held()
    work.report_exists("1", DAY)
    work.decisions("1", 5)
    work.decisions(limit=5)
    work.request("r")
    work.requests(RequestState.WAITING)
    work.requests(RequestState.WAITING, RequestState.RUNNING)
    work.note_held("r", "a trial", NOW)
    work.held_until("r")
    work.due_messages(Channel.MAIL, NOW, 10)
    work.due_messages(None, NOW, 10)
    work.due_messages(Channel.MAIL, NOW, 10, ["a", "b"])
    work.messages(["a", "b"])
    work.mails_after(7)
    work.last_message("a")
    work.last_message("a", but=MessageState.DEAD)
    work.mark_told(["a", "b"])
    work.pending_messages()
    work.dead_messages()
    work.last_load("file")
    work.loads(20)
    work.begin_load(LoadContent("file", "f", "", None, LATER), 0, 0, NOW)
    work.quarantined(QuarantineState.WAITING)
    work.quarantined(numbers=[1, 2])
    work.quarantine_counts()
    work.settle_quarantined([1], QuarantineState.DROPPED, NOW)


@pytest.fixture(autouse=True)
def rows_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PostgreSQL would copy out comes by rows here: of a COPY there is no plan to be had."""
    monkeypatch.setattr(BulkTransaction, "_frame", lambda work, query, columns: frame(work._read(query), columns))


class Plans:
    """Notes how a database would run each statement, at the moment that it runs it."""

    def __init__(self, store: SqlStore) -> None:
        self.noted: list[tuple[str, list[str]]] = []
        event.listen(store._engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, _cursor: object, sql: str, parameters: Any, _context: object, many: bool) -> None:
        if many or not re.match(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b", sql) or "INTO staged VALUES" in sql:
            return
        driver = connection.connection.driver_connection
        if isinstance(driver, psycopg.Connection):
            # On tables without rows a sequential scan is the best there is; so it is only taken if there is no other.
            cursor = psycopg.ClientCursor(driver)
            cursor.execute("SET LOCAL enable_seqscan = off")
            plan = [row[0] for row in cursor.execute(f"EXPLAIN {sql}", parameters)]
        else:
            plan = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        self.noted.append((sql, plan))


def read_through(sql: str, plan: list[str]) -> list[str]:
    """Tables that a plan reads from end to end, on either database."""
    found = []
    for step in plan:
        if match := re.search(r"Seq Scan on (\w+)", step):
            found.append(match[1])
        elif match := re.match(r"SCAN (\w+)(?! VIRTUAL)", step.strip()):
            # The newest few along an index, or along the key, which SQLite does not name.
            newest = match[1] in OF_TIME and ("INDEX" in step or "LIMIT" in sql)
            # What an INSERT does not name SQLite would look through after a breach of a foreign key alone.
            named = match[1] in sql or not sql.startswith("INSERT")
            found += [match[1]] if named and not newest else []
    return [table for table in found if table in OF_BOOKINGS | OF_TIME]


def test_every_hot_query_uses_an_index(store: SqlStore) -> None:
    with store.begin() as work:
        promote(work, work.standing(), "1")
        work.add_trial(a_trial(), NOW)
        plans = Plans(store)
        act(work)
    assert len(plans.noted) > 60
    assert {table for sql, _ in plans.noted for table in OF_BOOKINGS | OF_TIME if table in sql} >= OF_BOOKINGS
    slow = {sql: plan for sql, plan in plans.noted if read_through(sql, plan)}
    assert not slow, "\n\n".join("\n".join([sql, *plan]) for sql, plan in slow.items())


def test_pages_come_in_order_from_the_index(store: SqlStore) -> None:
    """Nothing is sorted: a page of a million bookings costs what a page of ten thousand does."""
    with store.begin() as work:
        plans = Plans(store)
        work.unscored("1", DAY, LATER, (DAY, "a"), 10)
        work.unscored_features("1", DAY, LATER, (DAY, "a"), 10)
        work.unscored_days("1", DAY, LATER)
    for sql, plan in plans.noted:
        assert not any(re.search(r"TEMP B-TREE|\bSort\b", step) for step in plan), (sql, plan)


def test_a_query_without_an_index_is_found(store: SqlStore) -> None:
    with store.begin() as work:
        plans = Plans(store)
        work._connection.exec_driver_sql("SELECT price FROM reservations WHERE price > 5")  # type: ignore[attr-defined]
    [(sql, plan)] = plans.noted
    assert read_through(sql, plan) == ["reservations"]
