"""The commands on quarantine: what is wrong is shown, goes out, comes back corrected, or is let go of."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command_line import Run

pytest_plugins = ["command_line"]

MAPPING = """
format = 1
[reservation]
reservation_id = "id"
hotel = { constant = "Sea View" }
booked_on = "made"
arrival_on = "arrives"
week_nights = "nights"
weekend_nights = { constant = 0 }
adults = "guests"
price = "rate"
"""
ROWS = ("B1,2024-01-05,2024-02-01,2,2,80", "=B2,2024-01-05,2024-02-01,2,2,-80", "B3,2024-01-05,2024-01-01,2,2,70")


@pytest.fixture
def loaded(run: Run, home: Path) -> Path:
    """A home into which three rows were loaded, of which two are in quarantine; the folder of their file."""
    folder = home.parent / "cwd"
    (folder / "mapping.toml").write_text(MAPPING)
    (folder / "hotel.csv").write_text("\n".join(["id,made,arrives,nights,guests,rate", *ROWS, ""]))
    done = run("ingest", "hotel.csv", "--as-of", "2024-05-01")
    assert done.code == 0
    assert "hotel.csv: 3 read = 1 loaded + 0 updated + 0 unchanged + 0 outside the span + 2 quarantined" in done.out
    assert "cancellations quarantine list" in done.out
    return folder


def test_rows_are_shown_exported_corrected_loaded_and_dropped(run: Run, loaded: Path) -> None:
    shown = run("quarantine", "list").out
    assert "1  price: is below 0" in shown and "hotel.csv, row 3" in shown
    assert run("quarantine").out == shown
    assert "quarantine   2 rows wait (2 of hotel.csv)" in run("status").out

    assert run("quarantine", "export", "broken.csv").code == 0
    file = loaded / "broken.csv"
    header, two, three = csv.reader(file.read_text().splitlines())
    assert two[header.index("id")] == "'=B2"
    two[header.index("rate")] = "85"
    file.write_text("\n".join(";".join(line) for line in (header, two, three)))  # as some spreadsheets save it

    done = run("quarantine", "retry", "--file", "broken.csv", "--as-of", "2024-05-01", "--json").json
    [load] = done["loads"]
    assert (load["read"], load["loaded"], load["quarantined"], done["settled"]) == (2, 1, 1, [1])
    assert done["waiting"][0]["problems"] == ["arrival_on: lies before booked_on"]
    assert "1 row dropped: keyed in twice" in run("quarantine", "drop", "2", "--reason", "keyed in twice").out
    assert "no row waits" in run("quarantine", "list").out
    states = {row["number"]: row["state"] for row in run("quarantine", "list", "--all", "--json").json["rows"]}
    assert states == {1: "loaded", 2: "dropped"}


def test_too_many_bad_rows_are_refused_unless_the_limit_is_raised(run: Run, loaded: Path) -> None:
    bad = [f"C{n},2024-01-05,2024-02-01,2,2,-80" for n in range(9)]
    (loaded / "bad.csv").write_text("\n".join(["id,made,arrives,nights,guests,rate", *bad, ""]))
    stopped = run("ingest", "bad.csv", "--as-of", "2024-05-01")
    assert stopped.code == 1
    assert "9 of 9 rows (100%) break a rule" in stopped.sentence()
    raised = run("ingest", "bad.csv", "--as-of", "2024-05-01", "--quarantine-limit", "1", "--json")
    [load] = raised.json["loads"]
    assert (raised.code, load["quarantined"], load["state"]) == (0, 9, "done")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["drop", "99", "--reason", "why"], "99 is not there"),
        (["retry", "99"], "99 is not there"),
        (["retry", "--file", "hotel.csv"], "no column quarantine_number"),
        (["retry", "--file", "nowhere.csv"], "cannot be read"),
        (["export", "."], "is no file"),
        (["export", "nowhere/broken.csv"], "cannot be written"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(run: Run, loaded: Path, arguments: list[str], told: str) -> None:
    ended = run("quarantine", *arguments)
    assert (ended.code, told in ended.sentence()) == (2, True)


def test_the_other_files_of_a_folder_do_not_wait_for_a_bad_one(run: Run, loaded: Path) -> None:
    (loaded / "apart.csv").write_text("no,table\n1\n")
    done = run("ingest", ".", "--as-of", "2024-05-01")
    assert done.code == 2 and "apart.csv" in done.err
    assert "hotel.csv: 3 read" in done.out
