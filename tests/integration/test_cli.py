"""The command line: its help, its story on one home, its exit codes, a sentence for whatever goes wrong."""

from __future__ import annotations

import email
import email.policy
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.main import get_command

from cancellations import __version__
from cancellations.domain.events import FACTS, Channel, OutlookPublished
from deployments.cli import app

if TYPE_CHECKING:
    from command_line import Run

pytest_plugins = ["command_line"]

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_an_example_and_its_exit_codes(run: Run, command: str) -> None:
    shown = run(command, "--help")
    assert shown.code == 0
    assert f"Example: cancellations {command}" in shown.out
    for code in ("0 done", "1 refused by a rule", "2 usage or bad input", "3 a service is down", "130 Ctrl-C"):
        assert code in shown.out
    assert "--home" in shown.out


def test_all_commands_are_there_and_listed(run: Run) -> None:
    shown = run("--help")
    wanted = {"init", "up", "ingest", "score", "monitor", "retrain", "status", "pause", "resume", "demo"}
    standing = {"trial", "promote", "rollback", "withdraw", "acknowledge", "history", "explain", "scores"}
    assert wanted | standing <= set(COMMANDS)
    assert all(f" {command} " in shown.out for command in COMMANDS)


def test_the_version_is_told(run: Run) -> None:
    told = run("--version")
    assert (told.code, told.out, told.err) == (0, f"cancellations {__version__}\n", "")


# --- the story ------------------------------------------------------------------------------------


def test_a_mail_of_each_kind_can_be_looked_at_before_the_first_one_comes(run: Run, home: Path, tmp_path: Path) -> None:
    shown = run("mail", "preview", str(tmp_path / "mails"), "--json").json
    kinds = {Path(name).stem for name in shown["files"]}
    assert {Path(name).suffix for name in shown["files"]} == {".eml", ".html", ".txt"}
    assert len(shown["files"]) == 3 * len(kinds)
    mailed = {fact.topic for fact in FACTS if Channel.MAIL in fact.channels}
    topics = set()
    for kind in kinds:
        mail = email.message_from_bytes((tmp_path / "mails" / f"{kind}.eml").read_bytes(), policy=email.policy.default)
        topics.add(mail["X-Cancellations-Topic"])
        assert mail["Subject"].strip().startswith("[test] ")
        page = (tmp_path / "mails" / f"{kind}.html").read_text()
        assert "cid:" not in page and ("data:image/png" in page) == any(
            part.get_content_maintype() == "image" for part in mail.walk()
        )
    # The outlook is drawn from real bookings, by `scores outlook`.
    assert topics == mailed - {OutlookPublished.topic}
    assert set(run("mail", "--json").json["kinds"]) == kinds
    (tmp_path / "file").write_text("")
    assert "mails cannot be written to" in run("mail", "preview", str(tmp_path / "file")).err


def test_a_mail_is_sent_to_try_the_server_and_a_server_that_is_not_there_is_told(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.delenv("CANCELLATIONS_MAIL__HOST", raising=False)
    unset = run("mail", "test")
    assert unset.code == 2 and "CANCELLATIONS_MAIL__HOST" in unset.err
    monkeypatch.setenv("CANCELLATIONS_MAIL__HOST", "127.0.0.1")
    monkeypatch.setenv("CANCELLATIONS_MAIL__PORT", str(port))
    down = run("mail", "test")
    assert down.code == 3 and f"127.0.0.1:{port}" in down.err
    assert "there is no mail 'news'; there are data-broken, " in run("mail", "test", "--kind", "news").err


def test_from_an_empty_folder_to_a_watched_champion(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = "2016-01-10"
    monkeypatch.setenv("CANCELLATIONS_GATE__MIN_ROWS", "300")
    monkeypatch.setenv("CANCELLATIONS_GATE__BACKTEST_DAYS", "28")
    monkeypatch.setenv("CANCELLATIONS_GATE__MIN_SKILL", "0.02")
    monkeypatch.setenv("CANCELLATIONS_MONITOR__SAMPLE_ROWS", "500")
    assert run("init").code == 0
    assert run("init").code == 0  # again changes nothing
    assert "settings:" in run("init").out and (tmp_path / "home" / ".env").is_file()

    [load] = run("ingest", "simulator", "--as-of", day, "--json").json["loads"]
    accounted = [load[k] for k in ("outside", "loaded", "unchanged", "updated", "quarantined")]
    assert load["read"] == sum(accounted) and load["loaded"] > 5_000

    trained = run("retrain", "--as-of", day, "--reason", "the first one", "--json")
    assert (trained.code, trained.json["state"], trained.json["version"]) == (0, "candidate", "1")
    assert "not sent yet: cancellations.champion.changed" in trained.err  # and the command went on

    scored = run("score", "--as-of", day, "--json").json
    assert scored["champion"] == "1" and scored["rows"]["1"] > 1_000
    assert "version 1: 0 reservations scored" in run("score", "--as-of", day).out

    [checked] = run("check", "--as-of", day, "--json").json["checked"]
    assert (checked["day"], checked["findings"]) == ("2016-01-09", [])
    assert re.search(r"2016-01-09 +\d+ bookings  passed", run("check", "--as-of", day).out)
    assert "no day has been checked" in run("check", "--as-of", "2015-12-01").out

    looked = run("monitor", "--as-of", day, "--json").json
    [stored] = looked["decisions"]
    assert stored["report"]["window"]["end"] == day
    assert stored["decision"]["action"] == "none"
    assert {s["name"] for s in stored["report"]["signals"]} >= {"column drift", "matured excess loss"}
    assert "nothing new to look at" in run("monitor", "--as-of", day).out

    status = run("status", "--as-of", day, "--json")
    assert status.code == 0
    assert status.json["champion"]["version"] == status.json["standing"]["champion"] == "1"
    assert status.json["challenger"] is None
    assert status.json["last"]["report_id"] == stored["report_id"]
    assert status.json["disagreements"] == []
    # Nobody rings Prefect here; the mail server was tried, on a slow machine more than once.
    tried = {m["message"]["channel"]: m["attempts"] > 0 for m in status.json["pending"]}
    assert tried == {"event": False, "mail": True}
    assert status.json["served"] == {"1": scored["served"]}

    monday = "2016-01-11"
    told = run("digest", "--as-of", monday, "--json")
    assert told.json["written"] and told.json["digest"]["looks"][0]["end"] == day
    assert "not sent yet: cancellations.digest.published" in told.err
    assert "told until 2016-01-10 already; the next digest is due on 2016-01-18" in run("digest", "--as-of", monday).out

    assert run("pause", "--reason", "price test", "--json").json == {"paused": "price test"}
    told = run("status").out
    assert "champion     version 1, trained as of 2016-01-10" in told
    assert "retraining   paused: price test" in told
    assert "aliases      agree with the ledger (epoch 1)" in told
    assert run("resume", "--json").json == {"paused": None, "was": "price test"}
    assert "was not paused" in run("resume").out
    assert "retraining   automatic" in run("status").out
    monkeypatch.setenv("CANCELLATIONS_MAIL__WEEKLY", '["champion.changed"]')
    assert "messages wait, 1 more for the weekly digest, 0 given up" in run("status").out
    monkeypatch.setenv("CANCELLATIONS_MAIL__DIGEST_DAY", "never")
    assert "for a digest that nobody gets" in run("status").sentence()


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["score"],
        ["monitor"],
        ["retrain"],
        ["ingest", "simulator"],
        ["resume"],
        ["trial"],
        ["recalibrate"],
        ["calibrate"],
        ["digest"],
        ["promote", "2", "--reason", "why"],
        ["rollback", "--reason", "why"],
        ["withdraw", "--reason", "why"],
        ["acknowledge"],
        ["history"],
        ["explain"],
        ["scores"],
    ],
    ids=" ".join,
)
def test_without_a_home_the_way_to_one_is_told(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert f"there is no home in {tmp_path / 'home'}; make one with: cancellations init" in ended.sentence()
    assert not (tmp_path / "home").exists()


def test_a_folder_that_is_not_ours_is_left_alone(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "home" / "holiday.jpg"
    mine.parent.mkdir()
    mine.touch()
    ended = run("init")
    assert ended.code == 2 and "is not a home of this project and stays untouched" in ended.sentence()
    assert [p.name for p in mine.parent.iterdir()] == [mine.name]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["ingest", "gone.csv"], 2, "there is no file gone.csv"),
        (["ingest", "other.csv"], 2, "Draft one with `cancellations mapping init other.csv`"),
        (["ingest"], 2, "no source was given and no folder is watched"),
        (["ingest", "empty"], 2, "empty holds no file that ends in .csv, .csv.gz, .tsv"),
        (["retrain"], 1, "holds no reservations; load some first: cancellations ingest"),
        (["score"], 1, "no champion to score with; train the first one: cancellations retrain"),
        (["monitor"], 1, "no champion to watch; train the first one: cancellations retrain"),
        (["retrain", "--request", "nobody"], 2, "no retrain request 'nobody' in the store"),
        (["promote", "1", "--reason", "why"], 1, "no champion yet; train the first one: cancellations retrain"),
        (["recalibrate"], 1, "no champion to recalibrate; train the first one: cancellations retrain"),
        (["calibrate"], 1, "some 54 weeks of bookings with outcomes"),
        (["calibrate", "--dry-run", "--documented"], 2, "give one of them"),
        (["rollback", "--reason", "why"], 1, "no earlier champion to go back to; there is no champion"),
        (["withdraw", "--reason", "why"], 1, "neither a trial nor a probation is running"),
        (["explain"], 1, "no champion to explain; train the first one: cancellations retrain"),
        (["explain", "7"], 2, "the ledger knows no version '7'; `cancellations history` lists"),
        (["up", "--watch", "gone"], 2, "--watch gone: there is no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(
    run: Run, home: Path, arguments: list[str], code: int, told: str
) -> None:
    Path("other.csv").write_text("id,price\n1,2\n")
    Path("empty").mkdir()
    ended = run(*arguments)
    assert ended.code == code
    assert told in ended.sentence()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fly"], "fly"),
        (["score", "--as-of", "2016-13-01"], "2016-13-01"),
        (["score", "--as-off", "2016-01-01"], "--as-off"),
        (["pause"], "--reason"),
        (["promote", "2"], "--reason"),
        (["rollback"], "--reason"),
        (["withdraw"], "--reason"),
        (["promote", "--reason", "why"], "version"),
    ],
    ids=" ".join,
)
def test_a_command_that_was_not_understood_ends_with_2_and_names_the_word(
    run: Run, arguments: list[str], word: str
) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage: cancellations" in ended.err
    assert word in ended.err.lower()


def test_a_wrong_setting_is_named(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANCELLATIONS_RETRAIN__SEED", "many")
    monkeypatch.setenv("CANCELLATIONS_CHUNK_ROWS", "0")
    ended = run("score")
    assert ended.code == 2
    assert "CANCELLATIONS_RETRAIN__SEED: " in ended.sentence()
    assert "CANCELLATIONS_CHUNK_ROWS: " in ended.sentence()


def test_a_registry_that_does_not_answer_is_told_within_seconds_and_the_rest_is_shown(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("pause", "--reason", "price test")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("CANCELLATIONS_MLFLOW_TRACKING_URI", address)
        began = time.monotonic()
        ended = run("status", "--json")
    assert time.monotonic() - began < 30
    assert ended.code == 3
    assert f"MLflow at {address} failed" in ended.json["registry_problem"]
    assert (ended.json["disagreements"], ended.json["paused"]) == (None, "price test")


def test_a_store_that_is_no_database_is_told(run: Run, home: Path) -> None:
    _wreck(home / "cancellations.db", 0)
    ended = run("status")
    assert ended.code == 2
    assert "cancellations.db is not a SQLite database" in ended.sentence()


def test_a_damaged_store_is_told(run: Run, home: Path) -> None:
    _wreck(home / "cancellations.db", 4096)
    ended = run("status")
    assert ended.code == 2
    assert "cancellations.db is damaged" in ended.sentence()


def test_a_registry_that_is_no_database_is_told(run: Run, home: Path) -> None:
    _wreck(home / "mlflow.db", 0)
    ended = run("status")
    assert ended.code == 3
    assert "mlflow.db cannot be used" in ended.out and "not a database" in ended.out


def _wreck(database: Path, start: int) -> None:
    content = bytearray(database.read_bytes())
    content[start:] = b"\xff" * (len(content) - start)
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()
    database.write_bytes(content)


@pytest.mark.parametrize("command", ["init", "status", "score"])
def test_a_home_that_cannot_be_written_is_told(run: Run, home: Path, command: str) -> None:
    home.chmod(0o500)
    try:
        if os.access(home, os.W_OK):
            pytest.skip("root may write everywhere")
        ended = run(command)
    finally:
        home.chmod(0o700)
    assert ended.code == 2
    assert f"{home} cannot be used as home: Permission denied" in ended.sentence()


# --- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_says_so_and_ends_with_130(home: Path, number: signal.Signals) -> None:
    pipe = home.parent / "never-ending.csv"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "deployments.cli", "ingest", str(pipe), "--home", str(home)]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        pipe.open("wb"),
    ):  # returns once the command reads from it
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "cancellations: stopped\n")
