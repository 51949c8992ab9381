"""A person decides, on the real stack: yes, no, too late; and rolls back and promotes from Prefect.

Before that the stack itself is looked over, by `doctor` and its canary.
A weak first champion, trained on labels of which half of the cancellations were lost, so that each
challenger proves better in its trial after the fewest days that the test allows. Every test leaves
that champion in its place, and no trial behind.
"""

from __future__ import annotations

import email
import email.policy
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import pytest
from house import Open, crown_weak_champion, house
from once import Once
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import PrefectHTTPStatusError

from cancellations.domain.events import ApprovalNeeded, ChampionChanged, OutcomesArrived, TrialEnded
from cancellations.domain.promotion import Change, LedgerRow, Trial, TrialState
from cancellations.domain.retraining import RequestState
from cancellations.sources.simulator import Simulator
from deployments.doctor.expected import declared, triggers, version
from deployments.live import PROJECT

FIRST_BOOKING, DAYS, LONGEST_LEAD, SEED = date(2016, 5, 2), 112, 60, 13
CHAMPION_TRAINED = date(2016, 7, 10)
# Two weeks later, so that the gate has something to test on; the next challenger a day later each time.
CHALLENGERS_FROM = date(2016, 7, 24)
TODAY = FIRST_BOOKING + timedelta(days=DAYS - 1)
SETTINGS = {
    "CANCELLATIONS_TRIAL__MODE": "approve",
    "CANCELLATIONS_AS_OF": TODAY.isoformat(),
    # Fewer rows: faster, and no other promise.
    "CANCELLATIONS_GATE__BACKTEST_DAYS": "28",
    "CANCELLATIONS_GATE__MIN_ROWS": "300",
    "CANCELLATIONS_RETRAIN__REFERENCE_ROWS": "500",
    "CANCELLATIONS_DOCTOR__LEAST_FREE_GIB": "0",
    # Whatever a developer's .env says, nothing leaves the home.
    "CANCELLATIONS_DATABASE_URL": "",
    "CANCELLATIONS_MLFLOW_TRACKING_URI": "",
    "CANCELLATIONS_MLFLOW_ARTIFACTS": "",
}
PATIENCE_SECONDS = 60.0
# Less than a flow run takes to start and ask would be no time to answer.
SHORT = timedelta(seconds=30)

T = TypeVar("T")


@dataclass(frozen=True)
class Hotel:
    """The stack with its bookings and its weak champion."""

    open: Open
    weak: str
    days: Iterator[date]

    def until(self, found: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (result := found()):
            self.open.stack.check()
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS:.0f} s"
            time.sleep(0.1)
        return result

    # --- what is done -----------------------------------------------------------------------------

    def challenge(self) -> Trial:
        """A new challenger, registered by the real retrain; the trial that it is on."""
        app = self.open.app
        done = app.retrain(app.request_training(next(self.days), "by this test").request_id)
        assert done.state is RequestState.CANDIDATE, done.detail
        return self.trial()

    def suspended(self, run: FlowRun, trial: Trial) -> FlowRun:
        """The run, once its form can be answered."""

        def asks() -> FlowRun | None:
            now = self.open.client.read_flow_run(run.id)
            assert now.state is not None and not now.state.is_final(), now.state
            # The form is kept in parts, after the state; this one comes last.
            return now if now.state_name == "Suspended" and self.form(run, trial, "description") else None

        return self.until(asks, f"{run.name} asks a person")

    def ask(self) -> tuple[Trial, FlowRun]:
        """A new challenger that has proved better, and the run that asks about it."""
        trial = self.challenge()
        run = self.suspended(self.open.server.start("trial", until=TODAY), trial)
        return self.trial(), run

    def ended(self, run: FlowRun) -> FlowRun:
        """The run, once it has ended, however it did."""

        def over() -> FlowRun | None:
            now = self.open.client.read_flow_run(run.id)
            return now if now.state is not None and now.state.is_final() else None

        return self.until(over, f"{run.name} ends")

    def resume(self, run: FlowRun, **given: Any) -> SetStateStatus:
        return self.open.client.resume_flow_run(run.id, run_input=given).status

    # --- what is found ----------------------------------------------------------------------------

    def trial(self, trial_id: str | None = None) -> Trial:
        with self.open.app.store.begin() as work:
            found = work.open_trial() if trial_id is None else work.trial(trial_id)
        assert found is not None
        return found

    def ledger(self) -> list[LedgerRow]:
        with self.open.app.store.begin() as work:
            return work.ledger()

    def served(self) -> set[str]:
        """Versions whose scores open bookings are served."""
        return set(self.open.app.scores(TODAY)["model_version"])

    def champion(self) -> str | None:
        """The one that the ledger and MLflow's alias agree upon."""
        status = self.open.app.status()
        assert status.disagreements == ()
        return status.standing.champion

    def shown(self, run: FlowRun) -> dict[str | None, str]:
        """Prefect's artifacts of a run, by key."""
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        return {a.key: str(a.data) for a in self.open.client.read_artifacts(artifact_filter=of_run)}

    def form(self, run: FlowRun, trial: Trial, part: str) -> str | None:
        """A part of the form that Prefect shows to whoever presses Resume."""
        try:
            answer = self.open.client.request(
                "GET",
                "/flow_runs/{id}/input/{key}",
                path_params={"id": run.id, "key": f"suspended-{trial.trial_id}-{part}"},
            )
        except PrefectHTTPStatusError as error:
            assert error.response.status_code == 404
            return None
        return answer.text

    def mails(self, topic: str) -> list[str]:
        """Subjects of mails about a fact, oldest first."""
        folder = self.open.app.settings.home / "outbox"
        read = [
            email.message_from_bytes(p.read_bytes(), policy=email.policy.default) for p in sorted(folder.glob("*.eml"))
        ]
        return [str(m["Subject"]) for m in read if m["X-Cancellations-Topic"] == topic]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Iterator[Open]:
    with house(tmp_path_factory.mktemp("approval"), once, SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def hotel(opened: Open) -> Hotel:
    app = opened.app
    app.ingest(Simulator(FIRST_BOOKING, DAYS, SEED, max_lead_days=LONGEST_LEAD), until=TODAY)
    weak = crown_weak_champion(app, CHAMPION_TRAINED)
    days = (CHALLENGERS_FROM + timedelta(days=n) for n in itertools.count())
    return Hotel(opened, weak, days)


@pytest.fixture(autouse=True)
def tidied(request: pytest.FixtureRequest) -> Iterator[None]:
    """What one test leaves behind when it fails is no other test's trouble."""
    yield
    if "hotel" not in request.fixturenames:
        return
    hotel: Hotel = request.getfixturevalue("hotel")
    app = hotel.open.app
    with app.store.begin() as work:
        champion, running = work.standing().champion, work.open_trial()
    if champion != hotel.weak:
        app.roll_back(to=hotel.weak, reason="end of this test", by="this test", as_of=TODAY)
        app.acknowledge()
    elif running is not None:
        app.withdraw(reason="end of this test", by="this test", as_of=TODAY)


# --- the stack itself, before anybody is asked ------------------------------------------------------


def test_a_live_stack_is_healthy_and_a_canary_flies_through_all_of_it_and_starts_no_retrain(opened: Open) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "doctor", "--canary", "--json"],
        cwd=PROJECT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    told = json.loads(ended.stdout)
    by = {finding["check"]: finding for finding in told["findings"]}
    assert ended.returncode == 0, told
    assert told["healthy"] is True
    notices = {finding["check"] for finding in told["findings"] if finding["verdict"] == "notice"}
    assert notices == {"schedules", "champion"}
    assert by["deployments"]["what"] == f"all {len(declared())} of prefect.yaml are there, of version {version()}"
    assert by["automations"]["what"].startswith(f"all {len(list(triggers(declared())))} are there")
    assert by["smtp"]["what"] == "answers, not encrypted; no mail was sent"
    assert list((opened.stack.home / "outbox").iterdir()) == []

    # Events are kept a batch at a time, maybe after the run was made of one.
    assert told["canary"].pop("event kept") > 0
    assert list(told["canary"]) == ["run made", "run begun", "back"]
    assert list(told["canary"].values()) == sorted(told["canary"].values())
    assert "event, automation and worker are alive" in by["canary"]["what"]
    [run] = opened.server.having("canary")
    assert (run.created_by and run.created_by.type) == "AUTOMATION"
    assert opened.server.having("retrain") == [] and opened.server.having("reconcile") == []


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("promote", {"version": "two", "reason": "why"}),
        ("rollback", {"reason": ""}),
        ("reconcile", {"patience_seconds": -1}),
    ],
)
def test_the_server_makes_no_run_of_parameters_that_mean_nothing(
    opened: Open, name: str, given: dict[str, Any]
) -> None:
    with pytest.raises(PrefectHTTPStatusError, match="409 Conflict"):
        opened.server.start(name, **given)
    assert opened.server.having(name) == []


# --- what is asked, and answered --------------------------------------------------------------------


def test_a_yes_promotes_and_an_order_to_roll_back_brings_the_old_champion_back(hotel: Hotel) -> None:
    app = hotel.open.app
    trial, run = hotel.ask()
    assert (trial.state, trial.asked_by) == (TrialState.AWAITING, str(run.id))
    assert run.name == f"trial {TODAY}"
    # Before the wait: the mail, what the form shows, the evidence with its picture.
    assert any(trial.rival in subject for subject in hotel.mails(ApprovalNeeded.topic))
    question = str(hotel.form(run, trial, "description"))
    assert trial.reasons[0] in question and f"{trial.asked_until:%Y-%m-%d %H:%M} UTC" in question
    shown = hotel.shown(run)
    assert {"trial", "trial-picture", "champion", "challenger"} <= set(shown)
    assert str(trial.evidence[-1].day) in shown["trial"] and TrialState.AWAITING in shown["trial"]
    assert hotel.served() == {hotel.weak, trial.rival}

    another = hotel.open.here("trial", until=TODAY)
    assert another.state is not None and str(run.id) in str(another.state.message)

    assert hotel.resume(run, approve="certainly") is SetStateStatus.REJECT
    assert hotel.resume(run, approve=True, reason="the season turns", by="Ada") is SetStateStatus.ACCEPT
    run = hotel.open.server.finish(run)
    assert hotel.champion() == trial.rival
    assert hotel.served() == {trial.rival}
    row = hotel.ledger()[-1]
    assert (row.change, row.by, row.trial_id) == (Change.PROMOTED, "Ada, in Prefect", trial.trial_id)
    assert "the season turns" in row.reason
    assert f"Version {trial.rival} is champion" in hotel.shown(run)["takeover"]
    assert hotel.trial(trial.trial_id).state is TrialState.PROMOTED
    assert len(hotel.mails(ChampionChanged.topic)) == 1
    assert hotel.resume(run, approve=False) is SetStateStatus.ABORT

    back = hotel.open.server.run("rollback", reason="a test of it", to=hotel.weak)
    assert back.name == f"rollback to {hotel.weak}"
    assert (hotel.champion(), hotel.served()) == (hotel.weak, {hotel.weak})
    row = hotel.ledger()[-1]
    assert (row.change, row.by, row.reason) == (Change.ROLLED_BACK, "a person, in Prefect", "a test of it")
    assert (
        f"- open bookings are served: {len(app.scores(TODAY)):,} by version {hotel.weak}"
        in hotel.shown(back)["rollback"]
    )
    assert len(hotel.mails(ChampionChanged.topic)) == 2
    assert app.acknowledge() is not None


def test_an_order_that_is_refused_shows_why_and_changes_nothing(hotel: Hotel) -> None:
    before, opened = hotel.ledger(), hotel.open
    for ended in (
        opened.here("rollback", reason="a test of it", to=hotel.weak),
        opened.here("promote", reason="a test of it", version=hotel.weak),
    ):
        assert ended.state is not None and ended.state_name == "Refused"
        assert f"version {hotel.weak} is champion already" in str(ended.state.message)
        assert any("Refused, nothing was changed" in text for text in hotel.shown(ended).values())
    assert hotel.ledger() == before


@pytest.mark.long
def test_outcomes_start_a_look_and_a_run_that_asked_and_is_gone_is_replaced_and_a_no_lets_the_challenger_go(
    hotel: Hotel,
) -> None:
    trial = hotel.challenge()
    arrived = OutcomesArrived(trial.trial_id, TODAY - timedelta(days=1), 5, datetime.now(UTC))
    doorbell = hotel.open.app.doorbell
    assert doorbell is not None
    doorbell.ring(arrived.messages()[0])
    first = hotel.suspended(hotel.open.server.await_run("trial", until=arrived.until), trial)
    assert first.created_by is not None and first.created_by.type == "AUTOMATION"
    hotel.open.client.delete_flow_run(first.id)

    second = hotel.suspended(hotel.open.server.start("trial", until=TODAY), trial)
    assert hotel.trial().asked_by == str(second.id)
    assert hotel.resume(second, approve=False, reason="not before the fair") is SetStateStatus.ACCEPT
    hotel.open.server.finish(second)
    ended = hotel.trial(trial.trial_id)
    assert ended.state is TrialState.DECLINED
    assert ended.reasons[-1] == "declined by a person, in Prefect: not before the fair"
    assert (hotel.champion(), hotel.served()) == (hotel.weak, {hotel.weak})
    assert hotel.open.app.status().standing.challenger is None


@pytest.mark.long
def test_no_answer_in_time_means_no_and_calls_nobody_else(hotel: Hotel) -> None:
    trial = hotel.challenge()
    app = hotel.open.app
    policy = replace(app.settings.trial, approval_hours=SHORT / timedelta(hours=1))
    hasty = replace(app, settings=app.settings.model_copy(update={"trial": policy}))
    assert hasty.trial(until=TODAY).trial == hotel.trial()
    assert hotel.trial().asked_by is None

    run = hotel.suspended(hotel.open.server.start("trial", until=TODAY), trial)
    run = hotel.ended(run)
    assert run.state is not None and run.state.is_failed()
    assert hotel.resume(run, approve=True) is SetStateStatus.ABORT
    assert hotel.trial().state is TrialState.AWAITING

    hotel.open.server.run("trial", until=TODAY)
    ended = hotel.trial(trial.trial_id)
    assert ended.state is TrialState.DECLINED
    assert "nobody answered by" in ended.reasons[-1]
    assert (hotel.champion(), hotel.served()) == (hotel.weak, {hotel.weak})
    assert any(trial.rival in subject for subject in hotel.mails(TrialEnded.topic))
    # That a run of `trial` failed is no business of the automation that watches retrains.
    assert hotel.open.server.having("reconcile") == []
    # The one that watches all others has looked, and owners hear of no failure.
    alarm = hotel.ended(hotel.open.server.await_run("alarm", run=str(run.id)))
    assert alarm.state is not None and str(alarm.state.message).endswith("which means no: nothing to tell")


def test_an_answer_to_a_trial_that_ended_meanwhile_says_so_and_changes_nothing(hotel: Hotel) -> None:
    trial, run = hotel.ask()
    hotel.open.app.withdraw(reason="a better one is coming", by="Grace", as_of=TODAY)
    before = hotel.ledger()
    assert hotel.resume(run, approve=True) is SetStateStatus.ACCEPT
    run = hotel.ended(run)
    assert run.state is not None and (run.state_name, run.state.is_completed()) == ("Too late", True)
    assert "withdrawn by Grace: a better one is coming" in str(run.state.message)
    assert hotel.ledger() == before
    assert hotel.served() == {hotel.weak}
    assert trial.rival not in {row.champion for row in before}


def test_a_deployed_retrain_ends_with_open_bookings_scored_and_served_by_arm_and_an_order_ends_the_trial(
    hotel: Hotel,
) -> None:
    idle = hotel.open.here("trial", until=TODAY)
    assert idle.state is not None and idle.state.message == "neither a trial nor a probation is running"

    day = next(hotel.days)
    run = hotel.open.server.run("retrain", as_of=day, reason="by this test")
    trial = hotel.trial()
    assert f"trial opened: version {trial.rival} against champion {hotel.weak}" in hotel.shown(run)["retrain"]
    served = hotel.open.app.scores(TODAY)
    assert set(served["model_version"]) == {hotel.weak, trial.rival}
    with hotel.open.app.store.begin() as work:
        scored = work.predictions(trial.rival, served["reservation_id"])
    assert len(scored) == len(served)

    installed = hotel.open.server.run("promote", version=trial.rival, reason="no time for a trial", until=day)
    assert installed.name == f"promote {trial.rival} {day}"
    assert hotel.champion() == trial.rival
    assert hotel.ledger()[-1].by == "a person, in Prefect"
    assert hotel.trial(trial.trial_id).state is TrialState.PROMOTED
