"""Promises of the schema's history, on both databases."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

from cancellations.domain import reservation
from cancellations.domain.promotion import Change, Standing
from cancellations.errors import BadInput, ServiceDown
from cancellations.ports import LoadCounts, LoadState, QuarantineState
from cancellations.store import Database, SqlStore, check, open_store, revision, schema, upgrade

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
PROJECT = Path(__file__).parents[2]
LATER = date(2100, 1, 1)


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


def of_the_first_schema(store_url: str, monkeypatch: pytest.MonkeyPatch, wanted: str = "0001") -> Config:
    """Makes a database as the first version did, or a later one; returns what Alembic's commands on it need."""
    url = make_url(store_url)
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True)
    monkeypatch.setenv("CANCELLATIONS_DATABASE_URL", store_url)
    config = Config(toml_file=PROJECT / "pyproject.toml")
    command.upgrade(config, wanted)
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


def test_the_revision_that_is_written_down_is_the_last_migration() -> None:
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_current_head() == schema.HEAD


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
    with create_engine(store_url, poolclass=NullPool).begin() as connection:
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
    with create_engine(store_url, poolclass=NullPool).begin() as connection:
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
    with create_engine(store_url, poolclass=NullPool).connect() as connection:
        kept = connection.execute(text("SELECT epoch, reason FROM ledger ORDER BY epoch")).all()
    assert [tuple(row) for row in kept] == [(1, "first"), (2, "drift"), (3, "gone"), (4, "drift")]


# Bookings of a group of three and of two that stand alone, with outcomes: early, late, kept, none, without
# a booking; a load, and a row that it set aside.
BOOKINGS_BEFORE_0003 = """
    INSERT INTO reservations (reservation_id, hotel, booked_on, arrival_on, weekend_nights, week_nights, adults,
            agent, company, market_segment, price) VALUES
        ('a', 'city', '2024-01-05', '2024-02-01', 1, 2, 2, '9', NULL, 'Groups', 80),
        ('b', 'city', '2024-01-05', '2024-02-01', 1, 2, 2, '9', NULL, 'Groups', 81),
        ('c', 'city', '2024-01-05', '2024-02-01', 1, 2, 1, '9', NULL, 'Groups', 82),
        ('d', 'city', '2024-01-05', '2024-02-02', 1, 2, 2, '9', NULL, 'Groups', 80),
        ('e', 'city', '2024-01-05', '2024-02-01', 1, 2, 2, NULL, '40', 'Groups', 80);
    INSERT INTO outcomes VALUES ('a', 'canceled', '2024-01-20'), ('b', 'no_show', '2024-02-04'),
        ('c', 'stayed', '2024-02-04'), ('e', 'canceled', '2024-02-01'), ('gone', 'canceled', '2024-01-20');
    INSERT INTO loads (number, source, span_from, span_until, read, outside, loaded, unchanged, updated, quarantined,
            outcomes, recorded_at) VALUES
        (1, 'file', NULL, '2024-01-31', 7, 1, 5, 0, 0, 1, 5, '2024-05-01 12:00:00+00:00');
    INSERT INTO quarantine (number, source, "row", digest, problems, "values", recorded_at) VALUES
        (1, 'file', 6, 'd', '["adults: is missing"]', '{"adults": ""}', '2024-05-01 12:00:00+00:00');
"""
FEATURES_BEFORE_0003 = """
    INSERT INTO features (reservation_id, stored_at, lead_days, price) VALUES
        ('a', '2024-05-01 12:00:00+00:00', 27, 80), ('d', '2024-05-01 12:00:00+00:00', 28, 80);
"""


def execute(store_url: str, statements: str) -> None:
    with create_engine(store_url, poolclass=NullPool).begin() as connection:
        for statement in statements.split(";")[:-1]:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("earlier", ["0001", "0002"])
def test_bookings_of_an_earlier_schema_are_counted_and_their_loads_are_done(
    store_url: str, monkeypatch: pytest.MonkeyPatch, earlier: str
) -> None:
    config = of_the_first_schema(store_url, monkeypatch, earlier)
    execute(store_url, BOOKINGS_BEFORE_0003 + (FEATURES_BEFORE_0003 if earlier == "0002" else ""))
    before = shape(store_url)
    assert upgrade(store_url)[0] == earlier
    # Once more after a way back: what a downgrade leaves is what an upgrade takes.
    command.downgrade(config, earlier)
    assert shape(store_url) == before
    assert upgrade(store_url)[0] == earlier
    command.check(config)
    assert Database(store_url).check() == []
    store = open_store(store_url)
    with store.begin() as work:
        history = work.history(LATER, LATER)
        sizes = history.set_index("reservation_id")["group_size"]
        assert sizes.to_dict() == {"a": 3.0, "b": 3.0, "c": 3.0, "d": 1.0, "e": 1.0}
        told = work.tallies(["9"], ["40"], LATER).set_index(["kind", "key", "arrival_on", "lag"])["bookings"]
        first, second = pd.Timestamp("2024-02-01"), pd.Timestamp("2024-02-02")
        assert told.to_dict() == {
            ("all", "", first, 0): 2,
            ("all", "", first, 3): 1,
            ("all", "", first, -1): 1,
            ("all", "", second, -1): 1,
            ("agent", "9", first, 0): 1,
            ("agent", "9", first, 3): 1,
            ("agent", "9", first, -1): 1,
            ("agent", "9", second, -1): 1,
            ("company", "40", first, 0): 1,
        }
        stored = work.features(pd.Series(list("abcde")))
        assert stored["group_size"].to_dict() == ({"a": 3.0, "d": 1.0} if earlier == "0002" else {})
        [load] = work.loads()
        assert (load.state, load.applied, load.left, load.recorded_at) == (LoadState.DONE, 7, 1, NOW)
        assert load.counts == LoadCounts("file", 7, 1, 5, 0, 0, 1, 5)
        [row] = work.quarantined()
        assert (row.state, row.mapping, row.row.problems) == (QuarantineState.WAITING, "", ("adults: is missing",))
        assert row.row.values == {"adults": ""}
        # What is counted can go on being counted.
        work.record_outcomes(history[history["reservation_id"] == "a"].assign(status="stayed"))
        assert sorted(work.tallies([], [], date(2024, 2, 2))["bookings"]) == [1, 1, 2]
    store.close()


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
        with create_engine(store_url, poolclass=NullPool).begin() as connection:
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
