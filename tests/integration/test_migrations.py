"""Promises of the schema's history, on both databases."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, event, inspect, make_url, text
from test_store import a_trial

from cancellations.domain import reservation
from cancellations.domain.events import Channel
from cancellations.domain.promotion import Change, Standing, TrialState
from cancellations.domain.retraining import RequestState
from cancellations.errors import BadInput, ServiceDown
from cancellations.store import SqlStore, check, open_store, revision, upgrade

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
PROJECT = Path(__file__).parents[2]


def a_booking() -> pd.DataFrame:
    return reservation.coerce(
        pd.DataFrame(
            {
                "reservation_id": ["a"],
                "hotel": ["city"],
                "booked_on": ["2024-01-05"],
                "arrival_on": ["2024-02-01"],
                "weekend_nights": [1],
                "week_nights": [2],
                "adults": [2],
            }
        )
    )


def of_the_first_schema(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Makes a database as the first version did; returns what Alembic's commands on it need."""
    url = make_url(store_url)
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True)
    monkeypatch.setenv("CANCELLATIONS_DATABASE_URL", store_url)
    config = Config(toml_file=PROJECT / "pyproject.toml")
    command.upgrade(config, "0001")
    return config


def shape(store_url: str) -> dict[str, tuple[object, ...]]:
    """Columns, key and indexes of each table and view."""
    seen = inspect(create_engine(store_url, poolclass=NullPool))
    return {
        name: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in seen.get_columns(name)],
            seen.get_pk_constraint(name)["name"] if name in seen.get_table_names() else None,
            sorted(str(i["name"]) for i in seen.get_indexes(name)) if name in seen.get_table_names() else None,
        )
        for name in [*seen.get_table_names(), *seen.get_view_names()]
    }


def test_an_empty_database_comes_to_the_present_schema_once(store_url: str) -> None:
    assert revision(store_url) is None
    before, after = upgrade(store_url)
    assert before is None
    assert upgrade(store_url) == (after, after)
    assert revision(store_url) == after


def test_upgrading_again_keeps_the_data(store: SqlStore, store_url: str) -> None:
    with store.begin() as work:
        work.upsert_reservations(a_booking())
        work.commit()
    upgrade(store_url)
    with store.begin() as work:
        assert work.booked_span() == (date(2024, 1, 5), date(2024, 1, 5))


def test_tables_and_migrations_tell_the_same(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(store_url)
    assert check(store_url) == []
    # The same through pyproject.toml, as the `alembic check` command does it; it raises on a difference.
    monkeypatch.setenv("CANCELLATIONS_DATABASE_URL", store_url)
    command.check(Config(toml_file=PROJECT / "pyproject.toml"))


def test_a_table_that_was_changed_by_hand_is_found(store_url: str) -> None:
    upgrade(store_url)
    with create_engine(store_url).begin() as connection:
        connection.execute(text("ALTER TABLE standing ADD COLUMN mood TEXT"))
    assert any("mood" in difference for difference in check(store_url))


def test_the_schema_can_be_taken_back_step_by_step(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = of_the_first_schema(store_url, monkeypatch)
    first = shape(store_url)
    upgrade(store_url)
    command.downgrade(config, "0001")
    assert shape(store_url) == first
    assert upgrade(store_url)[0] == "0001"
    command.downgrade(config, "base")
    assert revision(store_url) is None
    assert set(shape(store_url)) == {"alembic_version"}
    assert upgrade(store_url)[0] is None


# Rows as the first schema's own code wrote them, in every table that a later one changes or refers to.
FIRST_SCHEMA_S_ROWS = """
    INSERT INTO reservations (reservation_id, hotel, booked_on, arrival_on, weekend_nights, week_nights, adults)
        VALUES ('a', 'city', '2024-01-05', '2024-02-01', 1, 2, 2);
    INSERT INTO outcomes VALUES ('a', 'canceled', '2024-01-20');
    INSERT INTO predictions VALUES ('a', '1', 0.25, '2024-01-06', '2024-05-01 12:00:00+00:00');
    INSERT INTO switches VALUES ('retraining', 'holidays', '2024-05-01 12:00:00+00:00');
    INSERT INTO standing VALUES ('cancellations', '1', '3', 4);
    INSERT INTO ledger VALUES ('cancellations', 1, '1', NULL, 'first', 'r1', '2024-01-06', '2024-05-01 12:00:00+00:00');
    INSERT INTO ledger VALUES ('cancellations', 2, '1', '2', 'drift', 'r2', '2024-02-06', '2024-05-02 12:00:00+00:00');
    INSERT INTO ledger VALUES ('cancellations', 3, '1', NULL, 'gone', NULL, '2024-02-07', '2024-05-03 12:00:00+00:00');
    INSERT INTO ledger VALUES ('cancellations', 4, '1', '3', 'drift', 'r3', '2024-03-06', '2024-05-04 12:00:00+00:00');
"""


def test_a_database_of_the_first_schema_keeps_its_rows(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = of_the_first_schema(store_url, monkeypatch)
    with create_engine(store_url).begin() as connection:
        for statement in FIRST_SCHEMA_S_ROWS.split(";")[:-1]:
            connection.execute(text(statement))
    assert upgrade(store_url)[0] == "0001"
    assert check(store_url) == []
    store = open_store(store_url)
    with store.begin() as work:
        ledger = work.ledger()
        assert [(row.epoch, row.change, row.by, row.trial_id) for row in ledger] == [
            (1, Change.FIRST, "automatic", None),
            (2, Change.CHALLENGED, "automatic", None),
            (3, Change.LEFT, "automatic", None),
            (4, Change.CHALLENGED, "automatic", None),
        ]
        assert [(row.champion, row.challenger, row.reason, row.request_id) for row in ledger] == [
            ("1", None, "first", "r1"),
            ("1", "2", "drift", "r2"),
            ("1", None, "gone", None),
            ("1", "3", "drift", "r3"),
        ]
        assert (ledger[0].as_of, ledger[0].recorded_at) == (date(2024, 1, 6), NOW)
        assert work.standing() == Standing("1", "3", 4)
        assert work.paused() == "holidays"
        assert work.promotions_held() is None
        assert work.history(date(2024, 1, 5), date(2024, 1, 20))["status"].tolist() == ["canceled"]
        # What was scored before can be served from now on.
        assert work.serve(date(2024, 1, 19), NOW) == 1
        assert work.served(date(2024, 1, 19))["probability"].tolist() == [0.25]
        work.commit()
    store.close()
    command.downgrade(config, "0001")
    with create_engine(store_url).connect() as connection:
        kept = connection.execute(text("SELECT epoch, reason FROM ledger ORDER BY epoch")).all()
    assert [tuple(row) for row in kept] == [(1, "first"), (2, "drift"), (3, "gone"), (4, "drift")]


def test_two_upgrades_at_once_both_end_well(store_url: str) -> None:
    start = threading.Barrier(4)
    outcomes: list[object] = []

    def run() -> None:
        start.wait()
        try:
            outcomes.append(upgrade(store_url))
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    head = revision(store_url)
    assert sorted(outcomes, key=str) == sorted([(None, head)] + [(head, head)] * 3, key=str)


def test_two_processes_may_upgrade_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cancellations.db'}"
    script = "import sys; from cancellations.store import upgrade; print(upgrade(sys.argv[1])[0])"
    runs = [
        subprocess.Popen([sys.executable, "-c", script, url], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted(run.communicate(timeout=60)[0].strip() for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert said == sorted(["None", str(revision(url))])


@pytest.mark.parametrize(
    ("found", "sentence"),
    [("9999_of_the_future", "newer version"), (None, "has no schema yet.*cancellations init")],
)
def test_another_schema_is_refused_with_a_sentence(store_url: str, found: str | None, sentence: str) -> None:
    if found:
        upgrade(store_url)
        with create_engine(store_url).begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})
        with pytest.raises(BadInput, match=sentence):
            upgrade(store_url)
    with pytest.raises(BadInput, match=sentence):
        open_store(store_url)


def test_an_older_schema_is_sent_to_init(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_first_schema(store_url, monkeypatch)
    with pytest.raises(BadInput, match=r"earlier version \(0001\).*cancellations init"):
        open_store(store_url)


def test_opening_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cancellations init"):
        open_store(f"sqlite:///{tmp_path / 'none' / 'cancellations.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "cancellations.db").write_text("a letter, not a database " * 100)
    for use in (upgrade, open_store):
        with pytest.raises(BadInput, match=r"cancellations\.db is not a SQLite database"):
            use(f"sqlite:///{tmp_path / 'cancellations.db'}")


def test_a_home_that_cannot_be_made_or_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file.* cannot be made"):
        upgrade(f"sqlite:///{tmp_path / 'file' / 'home' / 'cancellations.db'}")
    with pytest.raises(BadInput, match="is a folder"):
        upgrade(f"sqlite:///{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cancellations.db'}"
    upgrade(url)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BadInput, match="cannot be written"):
            open_store(url)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("url", ["mysql://host/db", "no address", "sqlite://", "sqlite:///:memory:"])
def test_an_address_of_no_use_is_refused(url: str) -> None:
    with pytest.raises(BadInput):
        open_store(url)


def test_a_postgresql_that_is_not_there_is_a_service_down() -> None:
    # Port 1 of the loopback is reserved; nobody listens. The password must not show.
    with pytest.raises(ServiceDown, match="cannot be used") as caught:
        open_store("postgresql+psycopg://someone:secret@127.0.0.1:1/cancellations")
    assert "secret" not in str(caught.value)


def test_sqlite_is_in_wal_mode_and_checks_foreign_keys(tmp_path: Path) -> None:
    path = tmp_path / "cancellations.db"
    upgrade(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    store = open_store(f"sqlite:///{path}")
    with pytest.raises(BadInput, match="FOREIGN KEY"), store.begin() as work:
        unknown = pd.DataFrame({"reservation_id": ["nobody"], "probability": [0.5]})
        work.add_predictions("1", unknown, date(2024, 1, 1), NOW)
    store.close()


def test_every_hot_query_uses_an_index(tmp_path: Path) -> None:
    """SQLite's plan of what each method really runs: no table is read from end to end, nothing sorted
    but the bookings that are open on a day, which are few."""
    url = f"sqlite:///{tmp_path / 'cancellations.db'}"
    upgrade(url)
    store = open_store(url)
    ran: list[tuple[str, Any]] = []
    day, later = date(2024, 1, 1), date(2024, 2, 1)
    with store.begin() as work:
        standing = {"champion": "1", "challenger": "2", "change": Change.CHALLENGED, "reason": "drift", "by": "a test"}
        work.change_standing(work.standing(), **standing, as_of=day, now=NOW)
        work.add_trial(a_trial(), NOW)
        engine = store._engine

        @event.listens_for(engine, "before_cursor_execute")
        def note(_connection: object, _cursor: object, sql: str, parameters: object, *_rest: object) -> None:
            ran.append((sql, parameters))

        work.unscored("1", day, later, (day, "a"), 10)
        work.unscored("1", None, later, None, 10, arriving_after=day)
        work.scored("1", day, later)
        work.predictions("1", pd.Series(["a", "b"]))
        work.history(later, later)
        work.history(later, later, arriving_after=day)
        work.outcomes_until(later)
        work.features(pd.Series(["a", "b"]))
        work.unassigned("t", day)
        work.serve(day, NOW)  # reads the standing and the trial, then writes
        work.served(day)
        work.standing()
        work.open_trial()
        work.trial("t")
        work.update_trial(a_trial(), TrialState.RUNNING, NOW)
        work.promotions_held()
        work.booked_span()
        work.report_exists("1", day)
        work.decisions("1", 5)
        work.decisions(limit=5)
        work.request("r")
        work.requests(RequestState.WAITING)
        work.due_messages(Channel.MAIL, NOW, 10)
        work.due_messages(None, NOW, 10)
        work.pending_messages()
        event.remove(engine, "before_cursor_execute", note)
    store.close()
    assert len(ran) == 27
    with sqlite3.connect(tmp_path / "cancellations.db") as connection:
        for sql, parameters in ran:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            tables = [step for step in plan if re.match(r"(SCAN|SEARCH) (?!CONSTANT)", step)]
            assert tables, (sql, plan)
            assert all("INDEX" in step for step in tables), (sql, plan)
            open_only = any("ix_reservations_arrival_on" in step for step in plan)
            assert open_only or not any("TEMP B-TREE" in step for step in plan), (sql, plan)
    connection.close()
