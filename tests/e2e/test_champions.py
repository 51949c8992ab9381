"""A better challenger is promoted and a worse champion rolled back, by themselves, on the real stack.

A weak first champion meets a sound challenger; then somebody promotes a weak version by hand. From
there on all that these tests start are two loads of bookings and that person's command: each look at
trial and probation is made by the automation, when outcomes have come in. How it came to the trial is
not this story, so it is done in this process.
"""

from __future__ import annotations

import email
import email.policy
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from email.message import EmailMessage

import pandas as pd
import pytest
from house import Open, challenge, crown_weak_champion, house
from once import Once
from prefect.client.schemas.objects import FlowRun
from stage import public_table

from cancellations.bootstrap import open_source
from cancellations.domain.events import ChallengerRegistered, ChampionChanged
from cancellations.domain.promotion import Change, Kind, LedgerRow, Trial, TrialState
from cancellations.sources.simulator import simulate
from deployments.live import PROJECT
from deployments.mistake import register_notebook_model

SEED, LONGEST_LEAD = 13, 60
HOTELS = 2
FIRST_BOOKING = date(2016, 5, 2)
CHAMPION_TRAINED = date(2016, 7, 10)
# As many days as each comparison may take; the versions are far apart, but groups come or cancel as one.
CHALLENGED = CHAMPION_TRAINED + timedelta(days=14)
PROMOTED = CHALLENGED + timedelta(days=28)
ROLLED_BACK = PROMOTED + timedelta(days=28)
SETTINGS = {
    # Fewer rows: faster, and no other promise.
    "CANCELLATIONS_GATE__BACKTEST_DAYS": "28",
    "CANCELLATIONS_GATE__MIN_ROWS": "300",
    "CANCELLATIONS_RETRAIN__REFERENCE_ROWS": "500",
    # Whatever a developer's .env says, nothing leaves the home.
    "CANCELLATIONS_DATABASE_URL": "",
    "CANCELLATIONS_MLFLOW_TRACKING_URI": "",
    "CANCELLATIONS_MLFLOW_ARTIFACTS": "",
}


@dataclass(frozen=True)
class Seen:
    """What stood at one moment: who serves by ledger, by alias, and by the scores that are read."""

    champion: str | None
    alias: str | None
    served: pd.Series  # version by reservation_id
    right: bool  # each served score is the one that its version gave

    @property
    def by_all(self) -> set[str | None]:
        """Whoever is champion for somebody; one version when all agree."""
        return {self.champion, self.alias, *self.served}


@dataclass(frozen=True)
class Life:
    """The story, told once; `looks` are the runs of `trial`, oldest first."""

    opened: Open
    weak: str
    good: str
    mistaken: str
    trial: Trial
    on_trial: Seen
    promoted: Seen
    command: str
    by_hand: Seen
    probation: Trial
    rolled_back: Seen
    looks: list[FlowRun]
    ledger: list[LedgerRow]
    mails: list[EmailMessage]


def seen(opened: Open, day: date) -> Seen:
    with opened.app.store.begin() as work:
        champion = work.standing().champion
        served = work.served(day)
        scores = {v: work.predictions(v, served["reservation_id"]) for v in served["model_version"].unique()}
    given = [scores[v].get(i) for i, v in zip(served["reservation_id"], served["model_version"], strict=True)]
    alias = opened.app.registry.aliases().get("champion")
    return Seen(
        champion, alias, served.set_index("reservation_id")["model_version"], served["probability"].tolist() == given
    )


def trials(opened: Open) -> list[Trial]:
    with opened.app.store.begin() as work:
        return work.trials()


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("promotion")
    file = folder / "bookings.parquet"
    made = simulate(FIRST_BOOKING, (ROLLED_BACK - FIRST_BOOKING).days + 1, SEED, scale=HOTELS)
    public_table(made[(made["arrival_on"] - made["booked_on"]).dt.days <= LONGEST_LEAD]).to_parquet(file, index=False)
    with house(folder, once, SETTINGS) as opened:
        app, server = opened.app, opened.server

        def load(after: date, until: date) -> None:
            server.run("ingest", source=str(file), after=after, until=until)

        app.ingest(open_source(str(file), app.settings), until=CHALLENGED)
        weak = crown_weak_champion(app, CHAMPION_TRAINED)
        app.score(until=CHALLENGED)
        challenge(app, CHALLENGED)
        on_trial = seen(opened, CHALLENGED)
        load(CHALLENGED, PROMOTED)
        looks = [server.finish(server.await_run("trial", until=PROMOTED))]
        promoted, (trial, _) = seen(opened, PROMOTED), trials(opened)

        mistaken = register_notebook_model(app, PROMOTED).version
        command = promote_by_hand(opened, mistaken)
        by_hand = seen(opened, PROMOTED)
        load(PROMOTED, ROLLED_BACK)
        looks.append(server.finish(server.await_run("trial", until=ROLLED_BACK)))
        with app.store.begin() as work:
            ledger = work.ledger()
        folder = app.settings.home / "outbox"
        yield Life(
            opened=opened,
            weak=weak,
            good=trial.rival,
            mistaken=mistaken,
            trial=trial,
            on_trial=on_trial,
            promoted=promoted,
            command=command,
            by_hand=by_hand,
            probation=trials(opened)[-1],
            rolled_back=seen(opened, ROLLED_BACK),
            looks=looks,
            ledger=ledger,
            mails=[
                email.message_from_bytes(p.read_bytes(), policy=email.policy.default)
                for p in sorted(folder.glob("*.eml"))
            ],
        )


def promote_by_hand(opened: Open, version: str) -> str:
    """The command as a person types it."""
    given = ["promote", version, "--reason", "looked better in my notebook", "--as-of", PROMOTED.isoformat()]
    home = ["--home", str(opened.app.settings.home)]
    answered = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *given, *home],
        cwd=PROJECT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answered.returncode == 0, answered.stderr
    return answered.stdout


def test_while_it_is_on_trial_a_challenger_serves_its_arm_and_the_champion_the_others(life: Life) -> None:
    assert life.on_trial.champion == life.on_trial.alias == life.weak
    served = life.on_trial.served.value_counts()
    assert set(served.index) == {life.weak, life.good}
    assert 0.4 < served[life.good] / served.sum() < 0.6
    assert life.on_trial.right


def test_a_better_challenger_is_promoted_by_itself_and_what_is_served_is_its_score(life: Life) -> None:
    assert (life.trial.kind, life.trial.state) == (Kind.TRIAL, TrialState.PROMOTED)
    assert life.trial.decided_on is not None
    assert CHALLENGED < life.trial.decided_on <= PROMOTED
    last = life.trial.evidence[-1]
    assert last.low is not None and last.low > 0
    assert life.promoted.by_all == {life.good}
    assert life.promoted.right and len(life.promoted.served) > 100


def test_a_person_may_promote_past_gate_and_trial_and_it_is_on_record(life: Life) -> None:
    assert life.by_hand.by_all == {life.mistaken}
    row = life.ledger[-2]
    assert (row.change, row.champion, row.reason) == (Change.PROMOTED, life.mistaken, "looked better in my notebook")
    assert row.by.startswith("a person")
    assert life.mistaken in life.command


def test_a_worse_champion_is_rolled_back_by_itself_and_what_is_served_is_the_old_ones_score(life: Life) -> None:
    assert (life.probation.kind, life.probation.state) == (Kind.PROBATION, TrialState.ROLLED_BACK)
    assert (life.probation.champion, life.probation.rival) == (life.mistaken, life.good)
    assert life.rolled_back.by_all == {life.good}
    assert life.rolled_back.right and len(life.rolled_back.served) > 100
    row = life.ledger[-1]
    assert (row.change, row.by, row.trial_id) == (Change.ROLLED_BACK, "the probation", life.probation.trial_id)
    with life.opened.app.store.begin() as work:
        assert life.mistaken in str(work.promotions_held())


def test_each_look_was_started_by_the_automation_when_outcomes_came_in(life: Life) -> None:
    assert [run.created_by.type if run.created_by else None for run in life.looks] == ["AUTOMATION", "AUTOMATION"]
    assert {run.id for run in life.opened.server.having("trial")} == {run.id for run in life.looks}


def test_the_ledger_tells_every_change_and_owners_get_a_mail_with_a_picture_for_each(life: Life) -> None:
    assert [(row.change, row.champion) for row in life.ledger] == [
        (Change.FIRST, life.weak),
        (Change.CHALLENGED, life.weak),
        (Change.PROMOTED, life.good),
        (Change.PROMOTED, life.mistaken),
        (Change.ROLLED_BACK, life.good),
    ]
    assert [row.epoch for row in life.ledger] == [1, 2, 3, 4, 5]
    topics = [str(mail["X-Cancellations-Topic"]) for mail in life.mails]
    assert topics == [ChallengerRegistered.topic, *3 * [ChampionChanged.topic]]
    with_picture = [any(part.get_content_type() == "image/png" for part in mail.walk()) for mail in life.mails]
    assert with_picture[1] and with_picture[3]


def test_an_alias_that_somebody_moves_by_hand_in_mlflow_is_told_and_put_back(life: Life) -> None:
    app = life.opened.app
    app.registry.set_alias("champion", life.mistaken)
    told = app.status().disagreements
    assert told is not None and any(f"version {life.mistaken}" in sentence for sentence in told)
    # What is served follows the ledger, whatever MLflow says.
    assert set(seen(life.opened, ROLLED_BACK).served) == {life.good}
    life.opened.here("reconcile")
    assert app.status().disagreements == ()
    assert app.registry.aliases()["champion"] == life.good
