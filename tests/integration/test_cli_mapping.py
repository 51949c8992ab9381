"""`cancellations mapping`: from a file that nobody has seen to one that loads; no home is needed."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from cancellations import settings
from cancellations.bootstrap import App, open_source

if TYPE_CHECKING:
    from command_line import Run

pytest_plugins = ["command_line"]

# Invented bookings. One arrives on a day that never was, one has the id of another, one is told twice.
TABLE = """\
Booking ID;Property;Arrival;Departure;Booked;Adults;Rate;Status
A1;Bay Inn;13.04.2024;15.04.2024;15.01.2024;2;89,50;Checked out
A2;Bay Inn;31.04.2024;02.05.2024;16.01.2024;2;79,00;Cancelled
A3;Bay Inn;21.06.2024;28.06.2024;17.02.2024;2;119,00;Confirmed
A3;Bay Inn;22.06.2024;28.06.2024;17.02.2024;2;119,00;Confirmed
A1;Bay Inn;13.04.2024;15.04.2024;15.01.2024;2;89,50;Checked out
A4;Bay Inn;11.04.2024;12.04.2024;18.01.2024;2;99,90;No show
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "bookings.csv"
    path.parent.mkdir()
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize("command", ["init", "check"])
def test_each_command_explains_itself(run: Run, command: str) -> None:
    shown = run("mapping", command, "--help")
    assert shown.code == 0
    assert f"Example: cancellations mapping {command}" in shown.out
    assert "Exit codes" in shown.out


def test_the_group_explains_itself(run: Run) -> None:
    shown = run("mapping", "--help")
    assert shown.code == 0
    assert "init" in shown.out and "check" in shown.out


def test_a_file_is_drafted_and_checked_without_a_home(run: Run, table: Path, tmp_path: Path) -> None:
    drafted = run("mapping", "init", str(table))
    assert (drafted.code, drafted.err) == (0, "")
    assert drafted.out.splitlines()[-1] == f"next: cancellations mapping check {table}"
    assert (table.parent / "mapping.toml").is_file()
    shown = run("mapping", "check", str(table))
    assert (shown.code, shown.err) == (0, "")
    assert "3 would load, 2 would go to quarantine, 1 repeat another row" in shown.out
    assert "Arrival = 31.04.2024" in shown.out
    assert "reservation_id is not unique" in shown.out
    assert "agent" in shown.out.partition("Fed by nothing")[2]
    assert not (tmp_path / "home").exists()
    assert sorted(p.name for p in table.parent.iterdir()) == ["bookings.csv", "mapping.toml"]
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_check_is_one_object_when_asked(run: Run, table: Path) -> None:
    run("mapping", "init", str(table))
    found = run("mapping", "check", str(table), "--json").json
    assert (found["rows"], found["loaded"], found["repeated"], found["quarantined"]) == (6, 3, 1, 2)
    assert found["arrivals"] == ["2024-04-11", "2024-06-22"]
    assert found["statuses"] == {"canceled": 1, "no_show": 1, "stayed": 2}
    assert {b["column"] for b in found["broken"]} == {"arrival_on", "reservation_id"}
    first = run("mapping", "check", str(table), "--rows", "1", "--json").json
    assert (first["rows"], first["whole"]) == (1, False)


def test_what_a_check_counts_is_what_a_load_does(run: Run, table: Path, home: Path) -> None:
    run("mapping", "init", str(table))
    found = run("mapping", "check", str(table), "--json").json
    known = settings.load(home=home)
    counts = App(known).ingest(open_source(str(table), known), until=date(2025, 1, 1)).counts
    assert (counts.loaded, counts.unchanged, counts.quarantined) == (
        found["loaded"],
        found["repeated"],
        found["quarantined"],
    )


def test_what_is_no_table_in_a_folder_is_named_and_left_alone(run: Run, table: Path) -> None:
    run("mapping", "init", str(table))
    run("init")
    table.rename(table.with_name("BOOKINGS.CSV"))
    (table.parent / "RESERVATIONS.TXT").write_text(TABLE)
    loaded = run("ingest", str(table.parent))
    assert "BOOKINGS.CSV: 6 read" in loaded.out
    assert "left alone: RESERVATIONS.TXT; tables of a folder end in .csv" in loaded.out


def test_a_file_that_changes_most_of_what_was_there_is_asked_about(run: Run, tmp_path: Path) -> None:
    run("init")
    head = "id,hotel,arrival,nights,booked,adults\n"
    for hotel, changed in (("Bay Inn", 0), ("Bay Inn", 5), ("Loft", 30)):
        rows = [
            f"{n},{hotel if n < 25 else 'Bay Inn'},2024-05-0{1 + (n < changed)},2,2024-01-02,2\n" for n in range(30)
        ]
        table = tmp_path / "bookings.csv"
        table.write_text(head + "".join(rows))
        run("mapping", "init", str(table), "--force")
        assert ("do their ids name other bookings" in run("ingest", str(table)).out) == (hotel == "Loft")


def test_a_load_that_would_be_stopped_fails_the_check(run: Run, table: Path) -> None:
    run("mapping", "init", str(table))
    table.write_text(
        TABLE + "".join(f"B{n};Bay Inn;31.04.2024;02.05.2024;16.01.2024;2;79;Cancelled\n" for n in range(9))
    )
    shown = run("mapping", "check", str(table))
    assert shown.code == 1
    assert "a load would be stopped" in shown.out
    assert json.loads(run("mapping", "check", str(table), "--json").out)["passes"] is False


def test_a_mapping_is_not_written_over_unless_it_must(run: Run, table: Path) -> None:
    mine = table.parent / "mapping.toml"
    mine.write_text("# mine\n")
    refused = run("mapping", "init", str(table))
    assert refused.code == 1
    assert "--force" in refused.sentence()
    assert mine.read_text() == "# mine\n"
    assert run("mapping", "init", str(table), "--force").code == 0
    assert "[reservation]" in mine.read_text()


def test_a_mapping_of_another_name_is_named_in_what_comes_next(run: Run, table: Path, tmp_path: Path) -> None:
    drafted = run("mapping", "init", str(table), "--out", "my own.toml")
    assert drafted.out.splitlines()[-1] == f"next: cancellations mapping check {table} --mapping 'my own.toml'"
    assert run("mapping", "check", str(table), "--mapping", "my own.toml").code == 0


def test_what_is_missing_is_named_and_the_draft_is_there_to_be_filled_in(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bookings.csv"
    path.write_text("id,nights\n1,2\n")
    drafted = run("mapping", "init", str(path))
    assert drafted.code == 1
    assert "a reservation needs it: arrival_on" in drafted.out
    assert '# arrival_on = "…"  # required' in (tmp_path / "mapping.toml").read_text()
    checked = run("mapping", "check", str(path))
    assert checked.code == 2
    assert "is missing" in checked.sentence()


def test_a_query_is_drafted_and_checked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'pms.db'}"
    frame = {"res_no": ["a", "b"], "arrival": "2024-05-01", "nights": [1, 2], "booked": "2024-01-01", "guests": 2}
    pd.DataFrame(frame).to_sql("stays", url, index=False)
    monkeypatch.setenv("PMS_URL", url)
    drafted = run("mapping", "init", "--url-env", "PMS_URL", "--query", "SELECT * FROM stays ORDER BY res_no")
    assert (drafted.code, drafted.out.splitlines()[-1]) == (0, "next: cancellations mapping check mapping.toml")
    assert run("mapping", "check", "mapping.toml", "--json").json["loaded"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["init"],
        ["init", "nowhere.csv"],
        ["init", "nowhere.csv", "--query", "SELECT 1"],
        ["init", "--query", "SELECT 1"],
        ["init", "--query", "SELECT 1", "--url", "postgresql://me:secret@host/name"],
        ["check", "nowhere.csv"],
        ["check", "nowhere.toml"],
        ["init", "."],
        ["check", "."],
    ],
)
def test_what_cannot_be_used_gets_a_sentence(run: Run, arguments: list[str]) -> None:
    left = run("mapping", *arguments)
    assert left.code == 2
    assert "secret" not in left.sentence()
