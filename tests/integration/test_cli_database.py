"""`cancellations db`, and what `status` tells of messages that were given up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine
from test_store import a_message, bookings, outcomes, promote, scores

from cancellations.errors import BadInput
from cancellations.store import Database, SqlStore, open_store, upgrade
from cancellations.store.integrity import Integrity

if TYPE_CHECKING:
    from command_line import Run

pytest_plugins = ["command_line"]

NOW = datetime(2024, 5, 1, tzinfo=UTC)
UNDO = "undo what was changed by hand"


def execute(url: str, *statements: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def address(home: Path) -> str:
    return f"sqlite:///{home / 'cancellations.db'}"


@pytest.fixture
def filled(store: SqlStore, store_url: str) -> str:
    """Address of a store with bookings, outcomes, scores by version 1, and what is served."""
    with store.begin() as work:
        work.upsert_reservations(bookings("abc", agent=["9", None, "8"]))
        work.record_outcomes(outcomes(a=("canceled", "2024-01-20")))
        work.add_predictions("1", scores("abc"), date(2024, 1, 6), NOW)
        promote(work, work.standing(), "1")
        assert work.serve(date(2024, 1, 6), NOW) == 3
        work.commit()
    return store_url


def told(url: str) -> list[str]:
    return [f"{finding.what}; {finding.remedy}" for finding in Database(url).check()]


def test_a_database_as_it_was_written_gives_no_finding(filled: str) -> None:
    assert told(filled) == []
    assert Database(filled).recount() == 0


def test_a_recount_puts_tallies_right_that_somebody_changed(filled: str) -> None:
    execute(
        filled,
        "DELETE FROM tallies WHERE kind = 'all'",
        "UPDATE tallies SET bookings = 7 WHERE key = '9' AND lag = 0",
        "INSERT INTO tallies VALUES ('company', '40', '2024-02-01', -1, 1)",
    )
    [finding] = told(filled)
    assert "4 tallies" in finding and "cancellations db recount" in finding
    assert Database(filled).recount() == 4
    assert told(filled) == []
    assert Database(filled).recount() == 0
    store = open_store(filled)
    with store.begin() as work:
        assert work.tallies(["8", "9"], ["40"], date(2025, 1, 1))["bookings"].sum() == 5
    store.close()


def test_a_view_of_scores_that_tells_another_story_is_found(filled: str) -> None:
    execute(
        filled,
        "DROP VIEW scores",
        "CREATE VIEW scores AS SELECT reservation_id, 0.9 AS probability, model_version, arm, epoch, served_at"
        " FROM servings WHERE reservation_id <> 'b'",
    )
    [finding] = told(filled)
    assert finding.startswith("3 bookings show another score")


def test_a_view_of_scores_that_is_gone_is_found_and_told_by_whoever_needs_it(filled: str) -> None:
    execute(filled, "DROP VIEW scores")
    assert told(filled) == ["the schema differs from this version's: view scores is missing; " + UNDO]
    store = open_store(filled)
    with pytest.raises(BadInput, match=r"changed by hand.*scores.*cancellations db check"), store.begin() as work:
        work.served(date(2024, 1, 6))
    store.close()


def test_differences_of_the_schema_are_told_in_words(filled: str) -> None:
    execute(
        filled,
        "DROP TABLE switches",
        "DROP INDEX ix_outcomes_known_on",
        "ALTER TABLE standing ADD COLUMN mood TEXT",
        "ALTER TABLE leases DROP COLUMN owner",
    )
    assert sorted(told(filled)) == [
        f"the schema differs from this version's: {difference}; {UNDO}"
        for difference in (
            "column leases.owner is missing",
            "column standing.mood is not this version's",
            "index ix_outcomes_known_on is missing",
            "table switches is missing",
        )
    ]


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM predictions WHERE reservation_id = 'b'", "UPDATE predictions SET probability = probability / 2"],
    ids=["gone", "another"],
)
def test_a_served_score_that_no_prediction_tells_is_found(filled: str, change: str) -> None:
    execute(filled, change)
    [finding] = told(filled)
    assert "scores that were served" in finding and "cancellations score" in finding


def test_rows_whose_booking_is_gone_are_found(filled: str) -> None:
    if filled.startswith("postgresql"):
        execute(filled, "ALTER TABLE predictions DROP CONSTRAINT fk_predictions_reservation_id")
        execute(filled, "ALTER TABLE servings DROP CONSTRAINT fk_servings_reservation_id")
    execute(filled, "DELETE FROM reservations WHERE reservation_id = 'b'")
    with create_engine(filled, poolclass=NullPool).connect() as connection:
        found = [finding.what for finding in Integrity(connection).findings()]
    assert "1 rows of predictions belong to none of reservations" in found
    assert "1 rows of servings belong to none of reservations" in found


def test_damage_that_no_query_stumbles_over_is_found(tmp_path: Path) -> None:
    path = tmp_path / "cancellations.db"
    url = f"sqlite:///{path}"
    upgrade(url)
    store = open_store(url)
    with store.begin() as work:
        work.record_outcomes(outcomes(a=("canceled", "2024-01-20")))
        work.commit()
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [size] = connection.execute("PRAGMA page_size").fetchone()
        [page] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_outcomes_known_on'").fetchone()
    content = bytearray(path.read_bytes())
    place = content.index(b"2024-01-20", (page - 1) * size, page * size)
    content[place : place + 10] = b"2024-01-21"
    path.write_bytes(content)
    [finding] = told(url)
    assert finding.startswith("the file is damaged: ") and "ix_outcomes_known_on" in finding


def test_a_load_that_does_not_add_up_is_found(filled: str) -> None:
    if filled.startswith("postgresql"):
        execute(filled, "ALTER TABLE loads DROP CONSTRAINT ck_loads_nothing_lost")
    ignoring = ["PRAGMA ignore_check_constraints = ON"] if filled.startswith("sqlite") else []
    columns = 'number, source, content, fingerprint, state, applied, "left", read, outside, loaded, unchanged, updated'
    execute(
        filled,
        *ignoring,
        f"INSERT INTO loads ({columns}, quarantined, outcomes, began_at, recorded_at)"
        " VALUES (1, 'file', 'c', 'f', 'done', 9, 0, 9, 0, 5, 0, 0, 1, 0, '2024-05-01 12:00', '2024-05-01 12:00')",
    )
    assert [finding for finding in told(filled) if finding.startswith("1 loads")]


def test_db_tells_and_mends_on_a_home(run: Run, home: Path) -> None:
    url = address(home)
    store = open_store(url)
    with store.begin() as work:
        work.upsert_reservations(bookings("ab"))
        work.commit()
    store.close()
    ended = run("db", "check")
    assert (ended.code, ended.out.strip()) == (0, "schema, tallies, loads and served scores are as they should be")
    execute(url, "DELETE FROM tallies")
    ended = run("db", "check")
    assert ended.code == 1
    assert "2 tallies" in ended.out and "cancellations db recount" in ended.out
    assert [finding["remedy"] for finding in run("db", "check", "--json").json["findings"]] == [
        "run: cancellations db recount"
    ]
    assert "2 tallies were wrong" in run("db", "recount").out
    assert run("db", "recount", "--json").json == {"mended": 0}
    assert run("db", "check").code == 0


def test_db_upgrade_says_from_where_to_where(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "cancellations.db").unlink()
    monkeypatch.setenv("CANCELLATIONS_DATABASE_URL", address(home))
    command.upgrade(Config(toml_file=Path(__file__).parents[2] / "pyproject.toml"), "0001")
    ended = run("db", "check")
    assert ended.code == 1
    assert "revision 0001" in ended.out and "cancellations db upgrade" in ended.out
    assert "earlier version (0001)" in run("db", "recount").sentence()
    _, newest = Database(address(home)).revision()
    assert run("db", "revision", "--json").json == {"revision": "0001", "needed": newest}
    assert run("db", "upgrade").out.strip() == f"upgraded from 0001 to {newest}"
    assert run("db", "upgrade", "--json").json == {"from": newest, "to": newest}
    execute(address(home), "ALTER TABLE standing ADD COLUMN mood TEXT")
    ended = run("db", "check")
    assert ended.code == 1
    assert "mood" in ended.out


def test_a_message_that_was_given_up_is_shown_by_status(run: Run, home: Path) -> None:
    store = open_store(address(home))
    with store.begin() as work:
        work.add_messages([a_message("m1"), a_message("m2")], NOW)
        work.mark_failed("m1", "mailbox unavailable", None)
        work.commit()
    store.close()
    shown = run("status")
    assert shown.code == 0
    assert "1 messages wait, 1 given up" in shown.out
    assert "mailbox unavailable" in shown.out
    assert len(run("status", "--json").json["dead"]) == 1


# --- one file -------------------------------------------------------------------------------------


def test_a_store_goes_to_one_file_and_into_a_new_home(run: Run, home: Path, tmp_path: Path) -> None:
    store = open_store(address(home))
    with store.begin() as work:
        work.upsert_reservations(bookings("abc"))
        work.pause("price test", NOW)
        work.commit()
    store.close()
    made = run("backup", "store.zip", "--json")
    assert made.code == 0 and made.json["rows"]["reservations"] == 3
    again = run("backup", "store.zip")
    assert again.code == 1 and "is there already" in again.sentence()
    assert run("init", "--home", str(tmp_path / "new")).code == 0
    back = run("restore", "store.zip", "--home", str(tmp_path / "new"))
    assert back.code == 0 and "rows of" in back.out
    assert run("db", "check", "--home", str(tmp_path / "new")).code == 0
    with open_store(address(tmp_path / "new")).begin() as work:
        assert work.paused() == "price test"
    twice = run("restore", "store.zip", "--home", str(tmp_path / "new"))
    assert twice.code == 1 and "holds rows already" in twice.sentence()


def test_restore_says_what_is_no_archive(run: Run, home: Path) -> None:
    Path("notes.zip").write_text("no archive")
    ended = run("restore", "notes.zip")
    assert ended.code == 2 and "no whole archive" in ended.sentence()
    missing = run("restore", "nothing.zip")
    assert missing.code == 2 and "is not there" in missing.sentence()


def test_retain_keeps_everything_unless_settings_say_otherwise(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = run("retain", "--json")
    assert set(kept.json.values()) == {False, None}
    monkeypatch.setenv("CANCELLATIONS_RETENTION__MAIL_DAYS", "30")
    assert run("retain", "--dry-run", "--json").json["mails"] == 0
    monkeypatch.setenv("CANCELLATIONS_RETENTION__SCORE_DAYS", "7")
    refused = run("retain", "--dry-run")
    assert refused.code == 2 and "CANCELLATIONS_RETENTION__SCORE_DAYS" in refused.sentence()
