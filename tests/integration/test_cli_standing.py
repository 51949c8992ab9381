"""The commands about who is champion: trial, promotion, rollback, and what the record answers."""

from __future__ import annotations

import csv
import os
import re
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from cancellations import settings
from cancellations.bootstrap import App, open_source
from cancellations.domain.comparison import Arm
from cancellations.domain.labels import Ending
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
from cancellations.errors import ServiceDown
from cancellations.model import GradientBoosting
from cancellations.ports import StoredDecision
from cancellations.registry import MlflowRegistry

if TYPE_CHECKING:
    from command_line import Run

pytest_plugins = ["command_line"]

# Simulated days: a first champion, its challenger, some days of the trial, and enough of them.
FIRST, SECOND = date(2016, 1, 10), date(2016, 2, 7)
EARLY, ENOUGH = "2016-02-16", "2016-02-28"
WINDOW = Window(SECOND - timedelta(days=27), SECOND)


class Weak(GradientBoosting):
    """Learns a little."""

    _settings = GradientBoosting._settings | {"max_iter": 3}


class Quick(GradientBoosting):
    """Learns what matters."""

    _settings = GradientBoosting._settings | {"max_iter": 40}


@pytest.fixture(scope="session")
def tried_home(empty_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 serves; version 2, which the monitor asked for, is on trial since SECOND."""
    home = Path(shutil.copytree(empty_home, tmp_path_factory.mktemp("tried") / "home"))
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
            patch.delenv(name)
        for name, value in {"MIN_ROWS": "300", "BACKTEST_DAYS": "28", "MIN_SKILL": "0.02"}.items():
            patch.setenv(f"CANCELLATIONS_GATE__{name}", value)
        known = settings.load(home=home)
        weak, app = App(known, trainer=Weak()), App(known, trainer=Quick())
        app.ingest(open_source("simulator", known), until=SECOND)
        assert weak.retrain(weak.request_training(FIRST, "the first one").request_id).state is RequestState.CANDIDATE
        assert app.retrain(_drift(app)).state is RequestState.CANDIDATE
        app.score(until=SECOND)
        for each in (weak, app):
            each.store.close()
    return home


def _drift(app: App) -> str:
    """What the monitor writes when it confirms drift."""
    loss = Signal("matured excess loss", 0.033, 0.02, Verdict.ALARM, 2.0, 1_234)
    unknown = Signal("domain classifier", None, 0.9, Verdict.NOT_EVALUATED, 1.0, 0, why="too few rows")
    report = MonitorReport("1", WINDOW, 1_234, 5_000, (unknown, loss))
    decision = Decision(Action.RETRAIN_DRIFT, ("evidence 0.82 of 0.75 needed", "2 of the last 3 windows drifted"))
    request = RetrainRequest("2016-02-07-drift", SECOND, "drift confirmed", report_id="report", champion="1")
    now = datetime(2026, 5, 1, tzinfo=UTC)
    with app.store.begin() as work:
        work.add_decision(StoredDecision("report", report, decision, request.request_id, now))
        work.add_request(request, now)
        work.commit()
    return request.request_id


@pytest.fixture
def home(run: Run, tried_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `tried_home` where the commands of `run` look for it; Ann types them."""
    monkeypatch.setenv("LOGNAME", "ann")
    return Path(shutil.copytree(tried_home, tmp_path / "home"))


def application(home: Path) -> App:
    return App(settings.load(home=home))


def outcomes(run: Run, until: str) -> None:
    assert run("ingest", "simulator", "--after", str(SECOND), "--as-of", until).code == 0


# --- days that are held back ----------------------------------------------------------------------


def test_a_day_that_is_held_is_shown_and_released_on_the_record(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANCELLATIONS_CHECKS__MIN_DAYS", "28")
    broken, today = SECOND + timedelta(days=1), str(SECOND + timedelta(days=2))
    outcomes(run, today)
    app = application(home)
    with app.store.begin() as work:
        rows = work.history(booked_until=broken, known_until=broken, booked_after=SECOND)
        work.upsert_reservations(rows.drop(columns=["status", "known_on"]).assign(meal="with meals"))
        work.commit()
    app.store.close()
    what = f"{len(rows):,} bookings made {broken} held on {today}: meal: "
    assert f"held back: {what}" in run("score", "--as-of", today).out
    assert re.search(rf"held back +{what}", run("status", "--as-of", today).out)
    again = run("check", "--release", str(SECOND), "--reason", "right", "--as-of", today)
    assert (again.code, f"are not held back; days that are held: {broken}" in again.err) == (1, True)
    assert run("check", "--release", str(broken), "--as-of", today).code == 2
    released = run("check", "--release", str(broken), "--reason", "they cook now", "--as-of", today)
    assert released.code == 0 and "released by a person (ann): they cook now" in released.out
    scored = run("score", "--as-of", today, "--json").json
    assert (scored["rows"]["1"], scored["held"]) == (len(rows), [])


# --- thresholds -----------------------------------------------------------------------------------


def test_thresholds_are_learned_told_kept_and_given_up(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"EVERY_DAYS": "3", "WEEKS": "1", "MIN_CHAMPIONS": "3", "MAX_CHAMPIONS": "3", "HISTORY_DAYS": "20"}
    knobs = {f"CALIBRATION__{name}": value for name, value in short.items()}
    knobs |= {"GATE__MIN_ROWS": "200", "MONITOR__MIN_ROWS": "50", "MONITOR__VOLUME": "4"}
    # Champions of the past that learn a little.
    knobs |= {"RECIPES": '{"quick/1": {"estimator": {"max_iter": 10}}}', "RETRAIN__RECIPES": '["quick/1"]'}
    for name, value in knobs.items():
        monkeypatch.setenv(f"CANCELLATIONS_{name}", value)
    until = str(SECOND)
    seen = run("calibrate", "--dry-run", "--as-of", until)
    assert seen.code == 0, seen.err
    assert "nothing was kept" in seen.out and "past champions looked at" in seen.out
    assert re.search(r"column drift +[\d.]+ +[\d.]+ +0.5 +[\d.]+ +\d+ of \d+, then 0", seen.out)
    assert "matured excess loss stays: " in seen.out
    with application(home).store.begin() as work:
        assert work.calibration(SECOND) is None
    kept = run("calibrate", "--as-of", until, "--json")
    learned = {own["signal"]: own for own in kept.json["learned"]}
    with application(home).store.begin() as work:
        found = work.calibration(SECOND)
        assert found is not None
        assert {own.signal: own.threshold for own in found.learned} == {n: o["threshold"] for n, o in learned.items()}
        assert found.threshold("column drift") == learned["column drift"]["threshold"] != 0.5
    later = str(SECOND + timedelta(days=7))
    outcomes(run, later)
    assert run("score", "--as-of", later).code == 0
    assert run("monitor", "--after", until, "--as-of", later).code == 0
    told = run("explain", "1", "--decision", later).out
    assert f"of {learned['column drift']['threshold']:<5g}" in told and f"(threshold learned {SECOND})" in told
    assert "4      not evaluated (threshold set by hand)" in told
    assert "documented thresholds count again" in run("calibrate", "--documented", "--as-of", until).out
    with application(home).store.begin() as work:
        found = work.calibration(SECOND)
    assert found is not None and found.threshold("column drift") is None


# --- the recalibration ----------------------------------------------------------------------------


def test_a_recalibration_by_hand_waits_for_the_trial_and_is_told_with_its_figures(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = run("recalibrate", "--as-of", str(SECOND))
    assert waits.code == 1
    assert "the trial of challenger 2 against champion 1 has not ended" in waits.sentence()
    run("withdraw", "--reason", "a look at the level", "--as-of", str(SECOND))
    # Weeks have to mature before a shift can be looked back on; here any will do.
    for name, value in {"MIN_ROWS": "20", "TOLERANCE": "1.0", "MIN_SHIFT": "0.001"}.items():
        monkeypatch.setenv(f"CANCELLATIONS_RECALIBRATION__{name}", value)

    done = run("recalibrate", "--as-of", str(SECOND))
    assert done.code == 0, done.err
    assert "recalibrated version 3 is champion in place of 1" in done.out
    assert "passed: on " in done.out and "the daily schedule is off" in done.out
    again = run("recalibrate", "--as-of", str(SECOND), "--json")
    assert (again.code, again.json["takeover"], again.json["base"]) == (0, None, "1")
    assert "recalibrated already on 2016-02-07" in again.json["reasons"][-1]

    assert "recalibrated by " in run("status").out
    assert "recalibrated       3" in run("history").out
    told = run("explain")
    assert "by a recalibration of version 1, of what was known on 2016-02-07" in told.out
    assert "on the log odds of version 1" in told.out
    assert run("rollback", "--reason", "not today", "--as-of", str(SECOND)).code == 0
    assert "need a person" in run("recalibrate", "--as-of", str(SECOND)).sentence()


# --- the trial ------------------------------------------------------------------------------------


def test_a_trial_is_read_day_by_day_and_makes_the_better_challenger_champion(run: Run, home: Path) -> None:
    ingested = run("ingest", "simulator", "--after", str(SECOND), "--as-of", EARLY)
    assert "messages wait in the outbox" in ingested.out  # outcomes ring for the trial
    early = run("trial", "--as-of", EARLY)
    assert early.code == 0
    assert "trial        challenger 2 against champion 1, opened 2016-02-07" in early.out
    assert "state        running, ends by 2016-04-03" in early.out
    assert "bookings that matured on 9 days until 2016-02-16" in early.out
    assert "50% of open bookings get version 2's score" in early.out

    status = run("status", "--as-of", EARLY)
    assert "of 9 days until 2016-02-16, gain of version 2 +0." in status.out and "(no bounds yet)" in status.out
    assert "open bookings get version 1's score" in status.out and "open bookings get version 2's score" in status.out
    assert "promotions   by mode auto" in status.out

    outcomes(run, ENOUGH)
    promoted = run("trial", "--as-of", ENOUGH)
    assert promoted.code == 0
    assert "state        promoted by what matured until 2016-02-21" in promoted.out
    assert "challenger 2 is better" in promoted.out
    assert "promoted     version 2 is champion in place of 1" in promoted.out
    assert "alias champion names 2" in promoted.out
    assert "probation    against version 1 until 2016-04-10" in promoted.out
    found = run("status", "--as-of", ENOUGH, "--json").json
    assert (found["standing"]["champion"], found["disagreements"], list(found["served"])) == ("2", [], ["2"])
    assert f"verified     {found['served']['2']:,} open bookings are served version 2" in promoted.out
    assert "probation    champion 2 against its predecessor 1" in run("trial", "--as-of", ENOUGH).out


def test_a_look_gives_its_evidence_to_programs_and_tells_the_rest_on_standard_error(run: Run, home: Path) -> None:
    outcomes(run, ENOUGH)
    looked = run("trial", "--as-of", ENOUGH, "--json")
    assert looked.json["trial"]["state"] == "promoted"
    assert len(looked.json["trial"]["evidence"]) == 14
    assert looked.json["trial"]["evidence"][-1]["low"] > 0
    assert (looked.json["takeover"]["version"], looked.json["takeover"]["problems"]) == ("2", [])
    assert "not sent yet" in looked.err


def test_without_a_trial_there_is_nothing_to_look_at(run: Run, home: Path) -> None:
    assert run("withdraw", "--reason", "why", "--as-of", EARLY).code == 0
    looked = run("trial", "--as-of", EARLY)
    assert looked.code == 0 and "neither a trial nor a probation is running" in looked.out
    assert run("trial", "--as-of", EARLY, "--json").json == {
        "trial": None,
        "takeover": None,
        "guards": [],
        "problems": [],
    }
    assert "neither a trial nor a probation is running" in run("withdraw", "--reason", "again").sentence()


@pytest.mark.parametrize("says", ["yes", "no"])
def test_a_trial_that_awaits_approval_says_how_to_answer_and_takes_either(run: Run, home: Path, says: str) -> None:
    with application(home).store.begin() as work:
        work.hold_promotions("version 0 was rolled back", datetime(2026, 5, 1, tzinfo=UTC))
        work.commit()
    outcomes(run, ENOUGH)
    asked = run("trial", "--as-of", ENOUGH)
    assert "state        awaiting approval, which has time until " in asked.out
    assert "promotions need a person: version 0 was rolled back" in asked.out
    [line] = [each for each in asked.out.splitlines() if f"{says}:" in each]
    command = line.partition("cancellations ")[2].partition(";")[0].split()
    answered = run(*[word.replace('"…"', "the season is over") for word in command], "--as-of", ENOUGH)
    assert answered.code == 0
    [trial] = [t for t in run("history", "--json").json["trials"] if t["kind"] == "trial"]
    assert trial["state"] == {"yes": "promoted", "no": "withdrawn"}[says]
    assert "a person (ann): the season is over" in trial["reasons"][-1]
    assert run("status", "--json").json["standing"]["champion"] == {"yes": "2", "no": "1"}[says]


# --- a person decides -----------------------------------------------------------------------------


def test_promotion_and_rollback_by_a_person_are_verified_and_on_record(run: Run, home: Path) -> None:
    day = str(SECOND)
    promoted = run("promote", "2", "--reason", "it is spring", "--as-of", day)
    assert promoted.code == 0
    assert "probation    against version 1 until 2016-03-20" in promoted.out
    status = run("status", "--as-of", day, "--json").json
    assert (status["standing"], list(status["served"])) == ({"champion": "2", "challenger": None, "epoch": 3}, ["2"])
    assert f"verified     {status['served']['2']:,} open bookings are served version 2" in promoted.out
    row = run("history", "--json").json["ledger"][-1]
    assert (row["change"], row["by"], row["reason"]) == ("promoted", "a person (ann)", "it is spring")
    assert "version 2 is champion already" in run("promote", "2", "--reason", "again").sentence()

    back = run("rollback", "--reason", "it is winter", "--as-of", day)
    assert back.code == 0
    assert "rolled back  version 1 is champion in place of 2" in back.out
    assert f"verified     {status['served']['2']:,} open bookings are served version 1" in back.out
    assert "need a person's approval until `cancellations acknowledge`" in back.out
    held = f"version 2 was rolled back on {day}: it is winter"
    assert f"until `cancellations acknowledge`: {held}" in run("status", "--as-of", day).out
    again = run("rollback", "--reason", "further")
    assert again.code == 1 and "no earlier champion to go back to; champion 1 stays" in again.sentence()

    assert run("acknowledge", "--json").json == {"promotions_held": None, "was": held}
    assert "promotions did not need a person's approval" in run("acknowledge").out
    assert "promotions   by mode auto" in run("status", "--as-of", day).out

    forth = run("rollback", "--to", "2", "--reason", "spring after all", "--as-of", day, "--json").json
    assert (forth["takeover"]["version"], forth["takeover"]["alias"], forth["probation"]) == ("2", "2", None)


@pytest.mark.parametrize("command", [["promote", "2"], ["rollback"], ["withdraw"]], ids=" ".join)
def test_an_empty_reason_is_none(run: Run, home: Path, command: list[str]) -> None:
    ended = run(*command, "--reason", " ")
    assert ended.code == 2 and "a reason is needed" in ended.sentence()


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (["promote", "1"], 1, "version 1 is champion already"),
        (["promote", "9"], 2, "version=9) not found"),
        (["rollback", "--to", "2"], 1, "version 2 never was champion"),
        (["rollback", "--to", "1"], 1, "version 1 is champion already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_change_that_cannot_be_made_is_refused_and_changes_nothing(
    run: Run, home: Path, command: list[str], code: int, told: str
) -> None:
    ended = run(*command, "--reason", "why")
    assert ended.code == code
    assert told in ended.sentence()
    assert run("status", "--json").json["standing"] == {"champion": "1", "challenger": "2", "epoch": 2}


def test_a_change_whose_check_finds_a_problem_stands_tells_it_and_ends_with_3(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ServiceDown("MLflow has just stopped")

    with monkeypatch.context() as stopped:
        stopped.setattr(MlflowRegistry, "set_alias", gone)
        done = run("promote", "2", "--reason", "why", "--as-of", str(SECOND))
    assert done.code == 3
    assert "promoted     version 2 is champion in place of 1" in done.out
    assert "PROBLEM      MLflow's aliases are not moved yet, reconcile will: MLflow has just stopped" in done.out
    assert "alias champion names" not in done.out
    assert "aliases      DISAGREE: alias 'champion' is version 1" in run("status").out


def test_a_withdrawn_trial_leaves_the_champion(run: Run, home: Path) -> None:
    ended = run("withdraw", "--reason", "outcomes were broken", "--as-of", str(SECOND))
    assert ended.code == 0
    assert "withdrawn by a person (ann): outcomes were broken" in ended.out
    assert "champion     version 1 stays" in ended.out
    status = run("status", "--as-of", str(SECOND), "--json").json
    assert (status["trial"], status["challenger"], list(status["served"])) == (None, None, ["1"])


# --- what the record answers ----------------------------------------------------------------------


def test_history_shows_every_change_and_what_was_compared_between_within_100_columns(run: Run, home: Path) -> None:
    outcomes(run, ENOUGH)
    run("trial", "--as-of", ENOUGH)
    run("rollback", "--reason", "prices of groups are wrong " * 8, "--as-of", ENOUGH)
    told = run("history").out
    assert max(map(len, told.splitlines())) <= 100
    flat = " ".join(told.split())
    order = [
        "1 2016-01-10 first champion 1 – the gate the first one",
        "2 2016-02-07 challenger stands 1 2 the gate drift confirmed",
        "trial of challenger 2 against champion 1: promoted; ",
        "bookings of 14 days until 2016-02-21, gain of version 2 +0.",
        "3 2016-02-28 promoted 2 – the trial challenger 2 is better",
        "probation of champion 2 against its predecessor 1: rolled back",
        "4 2016-02-28 rolled back 1 – a person (ann) prices of groups are wrong",
    ]
    places = [flat.find(each) for each in order]
    assert -1 not in places and places == sorted(places)
    found = run("history", "--json").json
    assert [row["epoch"] for row in found["ledger"]] == [1, 2, 3, 4]
    assert [(t["kind"], t["state"]) for t in found["trials"]] == [("trial", "promoted"), ("probation", "rolled back")]


def test_a_version_is_explained_from_the_report_that_asked_for_it_to_what_it_is_now(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANCELLATIONS_MLFLOW_UI", "http://mlflow:5000")
    outcomes(run, ENOUGH)
    run("trial", "--as-of", ENOUGH)
    told = run("explain", "--as-of", ENOUGH).out
    found = run("explain", "2", "--as-of", ENOUGH, "--json").json
    flat, served = " ".join(told.split()), f"{found['served']:,} bookings that are open on {ENOUGH}"
    order = [
        "Version 2: champion, on probation",
        "Why it was asked for",
        f"1,234 bookings made {WINDOW} against the champion's training (champion 1): retrain: drift confirmed",
        "domain classifier – of 0.9 not evaluated",
        "matured excess loss 0.033 of 0.02 alarm",
        "2 of the last 3 windows drifted",
        "How it was made",
        "2016-02-07-drift: candidate after 1 attempt",
        f"{found['record']['metrics']['training_rows']:,.0f} bookings that had matured by 2016-02-07",
        found["record"]["data_digest"],
        found["record"]["run_id"],
        "http://mlflow:5000/#/models/cancellations/versions/2",
        "What the gate found",
        f"log loss {found['record']['metrics']['backtest_log_loss']:.4f} on",
        "passed: ",
        "How it was compared",
        "trial of challenger 2 against champion 1, opened 2016-02-07: promoted",
        "bounds +0.",
        "probation of champion 2 against its predecessor 1, opened 2016-02-28: running",
        "What was decided while it was champion nothing yet: the monitor looked at no window",
        "What became of it",
        "2016-02-07 became challenger (epoch 2, challenger stands, by the gate): drift confirmed",
        "2016-02-28 became champion (epoch 3, promoted, by the trial): challenger 2 is better",
        f"now it is champion, on probation; {served}",
    ]
    places = [flat.find(each) for each in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert max(map(len, told.splitlines())) <= 100
    assert found["report"]["report_id"] == "report" and found["served"] > 1_000
    assert "2016-02-28 gave way to version 2" in " ".join(run("explain", "1").out.split())


def looks(home: Path, count: int) -> list[str]:
    """Weekly decisions about champion 1 after the one of `tried_home`; returns the last days of their windows."""
    app, now = application(home), datetime(2026, 5, 1, tzinfo=UTC)
    calm = Signal("column drift", 0.1, 0.5, Verdict.OK, 1.0, 900)
    ends = [SECOND + timedelta(days=7 * (n + 1)) for n in range(count)]
    with app.store.begin() as work:
        for number, end in enumerate(ends):
            window = Window(end - timedelta(days=27), end)
            report = MonitorReport("1", window, 900, 5_000, (calm,))
            quiet = Decision(Action.NONE, ("evidence 0.00 of 0.75 needed: no alarm", "champion is 30 days old"))
            held = Decision(Action.HOLD, ("evidence 0.80 of 0.75 needed", f"held: {'a long wait ' * 20}"))
            decision = quiet if number % 2 else held
            work.add_decision(StoredDecision(f"report-{end}", report, decision, None, now))
        work.commit()
    return [str(end) for end in ends]


def test_every_decision_about_a_champion_is_told_in_a_line_also_that_nothing_is_to_do(run: Run, home: Path) -> None:
    ends = looks(home, 2)
    lines = run("explain", "1").out.splitlines()
    told = lines[lines.index("What was decided while it was champion") + 1 :]
    assert told[0] == "  2016-02-07  retrain: drift confirmed: evidence 0.82 of 0.75 needed"
    assert told[1].startswith(f"  {ends[0]}  hold: a long wait") and len(told[1]) == 100 and told[1].endswith("…")
    assert told[2] == f"  {ends[1]}  none: evidence 0.00 of 0.75 needed: no alarm"
    assert told[3] == f"  in full: cancellations explain 1 --decision {ends[1]}"
    found = run("explain", "1", "--json").json["decisions"]
    assert [(d["window"]["end"], d["action"]) for d in found] == [
        ("2016-02-07", "retrain: drift confirmed"),
        (ends[0], "hold"),
        (ends[1], "none"),
    ]
    assert found[0]["request_id"] == "2016-02-07-drift" and found[2]["request_id"] is None
    assert found[2]["reasons"] == ["evidence 0.00 of 0.75 needed: no alarm", "champion is 30 days old"]
    assert "What was decided while it was champion\n  nothing: it was never champion" in run("explain", "2").out


def test_of_many_decisions_the_last_are_told_and_all_when_asked(run: Run, home: Path) -> None:
    ends = looks(home, 20)
    last, every = run("explain", "1").out, run("explain", "1", "--all").out
    assert "  8 earlier: cancellations explain 1 --all" in last
    assert [end for end in ends if f"  {end}  " in last] == ends[-13:]
    assert [end for end in ends if f"  {end}  " in every] == ends
    assert "earlier: " not in every


@pytest.mark.parametrize("name", ["2016-02-07", "report"])
def test_a_decision_is_told_in_full_by_its_day_or_its_report(run: Run, home: Path, name: str) -> None:
    told = run("explain", "1", "--decision", name).out
    order = [
        "2016-02-07, champion 1: retrain: drift confirmed",
        f"1,234 bookings made {WINDOW}, against 5,000 of the champion's training",
        "matured excess loss 0.033 of 0.02 alarm",
        "evidence 0.82 of 0.75 needed",
        "2 of the last 3 windows drifted",
        "retrain request 2016-02-07-drift; report report, recorded 2026-05-01 00:00 UTC",
    ]
    places = [" ".join(told.split()).find(each) for each in order]
    assert -1 not in places and places == sorted(places)
    found = run("explain", "1", "--decision", name, "--json").json
    assert [signal["name"] for signal in found["report"]["signals"]] == ["domain classifier", "matured excess loss"]


def test_a_report_is_one_file_that_a_browser_shows(run: Run, home: Path, tmp_path: Path) -> None:
    kept = run("report")
    file = home / "reports" / "report-2016-02-07.html"
    assert str(file) in kept.out
    text = file.read_text()
    assert "<h1>Retrain: the drift is confirmed</h1>" in text and text.count("data:image/png;base64,") == 5
    named = tmp_path / "new" / "page.html"
    assert run("report", "--window", "2016-02-07", "--out", str(named)).code == 0
    assert "matured excess loss" in named.read_text()
    unknown = run("report", "--window", "2016-02-08")
    assert unknown.code == 2
    assert "no window that was looked at ends on 2016-02-08; the last ones end on 2016-02-07" in unknown.err
    blocked = run("report", "--out", str(named / "page.html"))
    assert blocked.code == 2 and "name another file with --out" in blocked.err


def test_a_decision_that_was_never_taken_is_bad_input_that_names_the_last_ones(run: Run, home: Path) -> None:
    asked = run("explain", "1", "--decision", "2016-02-08")
    assert asked.code == 2
    assert "window that ends on, '2016-02-08'; the last ones are of 2016-02-07." in " ".join(asked.err.split())
    assert "there is none." in " ".join(run("explain", "2", "--decision", "2016-02-07").err.split())


def test_a_version_that_was_registered_by_hand_is_explained_by_what_is_known(run: Run, home: Path) -> None:
    app = application(home)
    with app.store.begin() as work:
        record = work.version("2")
        work.add_version(
            replace(record, version="5", request_id="notebook", metrics={}), datetime(2026, 5, 1, tzinfo=UTC)
        )
        work.commit()
    told = run("explain", "5").out
    assert "Version 5: registered, never stood" in told
    assert "notebook, none of ours: the version was registered by hand" in told
    assert "what had matured by 2016-02-07" in told
    assert "it never stood" in told


def test_scores_are_shown_by_arrival_and_written_whole(run: Run, home: Path) -> None:
    found = run("scores", "--as-of", str(SECOND), "--json").json
    assert found["open"] == len(found["scores"]) > 1_000
    assert {row["version"] for row in found["scores"]} == {"1", "2"}
    assert {(row["version"], row["arm"]) for row in found["scores"]} <= {("1", Arm.CHAMPION), ("2", Arm.RIVAL)}
    arrivals = [row["arrival_on"] for row in found["scores"]]
    assert arrivals == sorted(arrivals) and arrivals[0] >= str(SECOND)

    told = run("scores", "--as-of", str(SECOND)).out.splitlines()
    assert len(told) == 22 and told[-1] == f"20 of {found['open']:,} bookings that are open on {SECOND}, by arrival"
    first = found["scores"][0]
    assert told[1].split() == [
        first["arrival_on"],
        f"{first['probability']:.4f}",
        first["version"],
        first["arm"],
        first["reservation_id"],
    ]

    Path("scores.csv").write_text("yesterday's")
    assert run("scores", "--as-of", str(SECOND), "--out", "scores.csv").code == 0
    with Path("scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["reservation_id"], float(r["probability"])) for r in rows] == [
        (r["reservation_id"], r["probability"]) for r in found["scores"]
    ]
    assert [path.name for path in Path().iterdir()] == ["scores.csv"]


def test_ids_cannot_steer_a_terminal_nor_run_in_a_spreadsheet(run: Run, home: Path) -> None:
    strange = '=HYPERLINK("x","y")', "0red\x1b[31m"
    app = application(home)
    with app.store.begin() as work:
        made = work.unscored("nobody", None, SECOND, None, 2, ending=Ending(SECOND))
        soon = made.assign(reservation_id=strange, booked_on=SECOND, arrival_on=SECOND)
        work.upsert_reservations(soon)
        work.commit()
    assert run("score", "--as-of", str(SECOND)).code == 0
    shown = run("scores", "--as-of", str(SECOND)).out
    assert strange[0] in shown and "0red [31m" in shown and "\x1b" not in shown
    run("scores", "--as-of", str(SECOND), "--out", "scores.csv")
    written = Path("scores.csv").read_text()
    assert '"\'=HYPERLINK(""x"",""y"")",' in written and '"0red\x1b[31m",' in written


def test_a_file_that_cannot_be_written_is_told_and_leaves_nothing_behind(run: Run, home: Path) -> None:
    for out in ("gone/scores.csv", "."):
        ended = run("scores", "--as-of", str(SECOND), "--out", out)
        assert ended.code == 2 and f"{out} " in ended.sentence()
    assert list(Path().iterdir()) == []


def test_where_nothing_is_served_that_is_said(run: Run, empty_home: Path, tmp_path: Path) -> None:
    shutil.copytree(empty_home, tmp_path / "home")
    assert "no booking that is open on 2016-02-07 is served a score" in run("scores", "--as-of", "2016-02-07").out
    assert "nobody has been champion yet" in run("history").out
    assert run("history", "--json").json == {"ledger": [], "trials": [], "alias_moves": [], "guards": {}}
    assert "serving      no open booking has a score" in run("status").out


# --- versions -------------------------------------------------------------------------------------


def test_a_version_is_made_again_from_what_it_left_in_mlflow(run: Run, home: Path) -> None:
    ended = run("reproduce", "1")
    assert ended.code == 0
    told = " ".join(ended.out.split())
    assert "Version 1, made by recipe matured/1" in told
    assert ": as registered" in told
    # It was fitted with fewer trees than the code has today.
    assert "max_iter 3 then, 100 now: fitted with what it was" in told
    assert "version 1 is reproduced" in told
    found = run("reproduce", "2", "--json").json
    assert (found["equal"], found["digest_matches"], found["largest_difference"]) == (True, True, 0)
    assert (found["version"], found["as_of"], found["packages"]) == ("2", str(SECOND), [])


def test_a_version_that_is_not_what_its_record_says_ends_with_1(run: Run, home: Path) -> None:
    run_id = application(home).registry.record("2").run_id
    path = Path("training.parquet")
    client = mlflow.MlflowClient()
    pd.read_parquet(client.download_artifacts(run_id, "data/training.parquet")).iloc[1:].to_parquet(path)
    client.log_artifact(run_id, str(path), "data")
    ended = run("reproduce", "2")
    assert ended.code == 1
    assert "version 2 cannot be made again: its training data have digest" in " ".join(ended.out.split())
    asked = run("reproduce", "2", "--json")
    assert asked.code == 1 and asked.json["equal"] is False and "was changed" in asked.json["verdict"]
    assert "version 9" in run("reproduce", "9").sentence()


def test_two_versions_stand_side_by_side(run: Run, home: Path) -> None:
    outcomes(run, ENOUGH)
    ended = run("compare", "1", "2", "--as-of", ENOUGH, "--picture", "both.png")
    assert ended.code == 0
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    found = run("compare", "1", "2", "--as-of", ENOUGH, "--json").json
    assert lines[0] == f"Versions 1 and 2 on {found['bookings']:,} bookings that neither can have learnt from"
    assert f"trained as of {FIRST} {SECOND}" in lines
    loss = [found[side]["evaluation"]["figures"]["log_loss"]["value"] for side in ("first", "second")]
    assert any(line.startswith(f"log loss {loss[0]:.4f} ") and f" {loss[1]:.4f} " in line for line in lines)
    assert any(line.startswith(f"version 2 saves {found['gain']['value']:+.4f} of log loss") for line in lines)
    assert {part["column"] for part in found["parts"]} == {"hotel", "market_segment"}
    most = found["disagreements"][0]
    assert lines[lines.index("Where they disagree most") + 2].endswith(most["reservation_id"])
    assert len(found["disagreements"]) == 20
    assert "picture: both.png" in lines and f"kept in MLflow with version 2: {found['kept']}" in lines


def test_what_cannot_be_compared_or_drawn_is_a_sentence(run: Run, home: Path) -> None:
    few = run("compare", "1", "2", "--as-of", str(SECOND))
    assert few.code == 1 and "100 are needed" in few.sentence()
    assert "name two" in run("compare", "2", "2").sentence()
    outcomes(run, ENOUGH)
    for out in ("both.jpg", "gone/both.png"):
        asked = run("compare", "1", "2", "--as-of", ENOUGH, "--picture", out)
        assert asked.code == 2 and f"--picture {out} " in asked.sentence()
