"""`simulate` writes worlds that `ingest` reads as they are, and puts one beside a real table."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from cancellations.domain.reservation import NAMES, OUTCOME_NAMES, coerce
from cancellations.sources.mapped import open_table
from cancellations.sources.simulator import Drift, DriftKind, simulate

if TYPE_CHECKING:
    from command_line import Run

pytest_plugins = ["command_line"]

FIRST, DAYS = date(2016, 2, 20), 20
SPAN = ("--from", str(FIRST), "--days", str(DAYS))


@pytest.mark.parametrize("name", ["bookings.csv", "bookings.csv.gz", "Bookings.PARQUET"])
def test_a_file_holds_the_world_and_is_read_without_a_mapping_written_by_hand(run: Run, name: str) -> None:
    ended = run("simulate", name, *SPAN, "--seed", "3", "--drift", "agent_missing:2016-03-01:0.5")
    assert ended.code == 0, ended.err
    assert "next: cancellations ingest" in ended.out
    world = simulate(FIRST, DAYS, 3, [Drift(DriftKind.AGENT_MISSING, date(2016, 3, 1), 0.5)])
    batches = list(open_table(Path(name)).batches())
    assert all(b.problems.empty for b in batches)
    read = pd.concat([b.reservations for b in batches], ignore_index=True)
    pd.testing.assert_frame_equal(read, coerce(world)[list(NAMES)])
    told = pd.concat([b.outcomes for b in batches], ignore_index=True)
    pd.testing.assert_frame_equal(told[list(OUTCOME_NAMES)], world[list(OUTCOME_NAMES)], check_dtype=False)
    assert not list(Path().glob(".*.part"))


def test_it_tells_what_it_made_and_keeps_the_truth_when_asked(run: Run) -> None:
    ended = run("simulate", "large.parquet", *SPAN, "--scale", "2", "--truth", "--json")
    world = simulate(FIRST, DAYS, 20, scale=2.0)
    told = ended.json["written"]
    assert (told["rows"], told["hotels"]) == (len(world), 4)
    assert told["cancelled"] == (world["status"] != "stayed").sum()
    assert told["size_bytes"] == Path("large.parquet").stat().st_size
    kept = pd.read_parquet("large.parquet")
    pd.testing.assert_series_equal(kept["true_probability"], world["true_probability"])
    assert run("simulate", "plain.parquet", *SPAN).code == 0
    assert "true_probability" not in pd.read_parquet("plain.parquet")


def test_a_file_that_is_there_stays_unless_told_and_stays_whole_when_writing_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("simulate", "world.csv", *SPAN).code == 0
    before = Path("world.csv").read_bytes()
    refused = run("simulate", "world.csv", *SPAN, "--seed", "4")
    assert refused.code == 1
    assert "is there already" in refused.sentence()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("cancellations.sources.writing._arrow", full)
        stopped = run("simulate", "world.csv", *SPAN, "--seed", "4", "--force")
    assert stopped.code == 2
    assert "No space left on device" in stopped.sentence()
    assert Path("world.csv").read_bytes() == before
    assert not list(Path().glob(".*.part"))
    assert run("simulate", "world.csv", *SPAN, "--seed", "4", "--force").code == 0
    assert Path("world.csv").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name the file to write, or a real table"),
        (("a.csv", "--compare", "b.csv"), "one of them"),
        (("a.xlsx",), "ends in none of .csv, .csv.gz, .parquet"),
        (("nowhere/a.csv",), "in a folder that exists"),
        (("a.csv", "--scale", "0"), "scale 0"),
        (("a.csv", "--drift", "flood:2016-03-01:2"), "'flood' is no kind of drift"),
        (("a.csv", "--picture", "a.png"), "belong to --compare"),
        (("--compare", "b.csv", "--scale", "2"), "--compare takes none of them"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(run: Run, arguments: tuple[str, ...], told: str) -> None:
    ended = run("simulate", *arguments)
    assert ended.code == 2
    assert told in ended.sentence()
    assert not list(Path().iterdir())


def test_a_table_is_compared_in_figures_and_a_picture(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The "real" table is a simulated one here: what is compared is alike but for the drift that is asked for."""
    monkeypatch.setenv("CANCELLATIONS_MAX_LEAD_DAYS", "60")
    assert run("simulate", "real.parquet", "--from", "2016-01-01", "--days", "240", "--seed", "5").code == 0
    monkeypatch.setenv("CANCELLATIONS_RETRAIN__SEED", "1")
    drift = "price_shock:2015-01-01:2"
    ended = run(
        "simulate", "--compare", "real.parquet", "--seed", "6", "--drift", drift, "--picture", "f.png", "--json"
    )
    assert ended.code == 0, ended.err
    found = ended.json
    figures = {line["figure"]: line for line in found["lines"] if line["section"] == "margins"}
    assert found["booked"][0] == "2016-01-01"
    assert figures["price, quantile 0.5"]["simulated"] > 1.7 * figures["price, quantile 0.5"]["real"]
    assert figures["hotel City Hotel"]["simulated"] == pytest.approx(figures["hotel City Hotel"]["real"], abs=0.05)
    assert {(each["trained_on"], each["scored_on"]) for each in found["learned"]} == {
        ("real", "real"),
        ("simulated", "real"),
        ("simulated", "simulated"),
    }
    assert all(0.6 < each["auc"] < 1 for each in found["learned"])
    assert Path("f.png").read_bytes().startswith(b"\x89PNG")
    told = run("simulate", "--compare", "real.parquet", "--seed", "6")
    assert "What a model learns" in told.out
    assert "design effect" in told.out


def test_a_table_too_short_to_compare_is_refused(run: Run) -> None:
    assert run("simulate", "real.parquet", "--from", "2016-01-01", "--days", "2").code == 0
    table = pd.read_parquet("real.parquet")
    table[table["arrival_on"].astype(str) < "2016-02-01"].to_parquet("short.parquet")
    assert "holds no day of booking whole" in run("simulate", "--compare", "short.parquet").sentence()


def test_the_written_columns_have_a_packaged_mapping_of_the_same_names(run: Run) -> None:
    assert run("simulate", "world.csv", *SPAN, "--truth").code == 0
    checked = run("mapping", "check", "world.csv", "--json")
    assert checked.code == 0, checked.err
    found = checked.json
    assert found["loaded"] == found["rows"] == len(pd.read_csv("world.csv"))
    assert not found["without"]
