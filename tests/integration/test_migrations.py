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
from sqlalchemy import create_engine, event, text

from cancellations.domain import reservation
from cancellations.domain.events import Channel
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


def test_the_first_schema_can_be_taken_back(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(store_url)
    monkeypatch.setenv("CANCELLATIONS_DATABASE_URL", store_url)
    command.downgrade(Config(toml_file=PROJECT / "pyproject.toml"), "base")
    assert revision(store_url) is None
    assert upgrade(store_url)[0] is None


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
    upgrade(store_url)
    monkeypatch.setattr("cancellations.store.schema._head", lambda: "0002")
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
    """SQLite's plan of what each method really runs: no table is read from end to end, nothing sorted."""
    url = f"sqlite:///{tmp_path / 'cancellations.db'}"
    upgrade(url)
    store = open_store(url)
    ran: list[tuple[str, Any]] = []
    day, later = date(2024, 1, 1), date(2024, 2, 1)
    with store.begin() as work:
        engine = store._engine

        @event.listens_for(engine, "before_cursor_execute")
        def note(_connection: object, _cursor: object, sql: str, parameters: object, *_rest: object) -> None:
            ran.append((sql, parameters))

        work.unscored("1", day, later, (day, "a"), 10)
        work.unscored("1", None, later, None, 10, arriving_after=day)
        work.scored("1", day, later)
        work.predictions("1", pd.Series(["a", "b"]))
        work.history(later, later)
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
    assert len(ran) == 14
    with sqlite3.connect(tmp_path / "cancellations.db") as connection:
        for sql, parameters in ran:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            tables = [step for step in plan if re.match(r"(SCAN|SEARCH) (?!CONSTANT)", step)]
            assert tables, (sql, plan)
            assert all("INDEX" in step for step in tables), (sql, plan)
            assert not any("TEMP B-TREE" in step for step in plan), (sql, plan)
    connection.close()
