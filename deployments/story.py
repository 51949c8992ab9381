"""The story that `make demo` tells: drift, retrain, trial, promotion; a mistake, and how it undoes itself.

Everything runs through deployed flows, the command line and the ledger: the story loads bookings,
starts runs, waits for them and reads what they wrote. What the system does by itself it never
starts: the retrain after the drift and each look at a trial are made by automations.
"""

from __future__ import annotations

import email
import email.policy
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

from cancellations.domain.events import (
    ChallengerRegistered,
    ChampionChanged,
    DriftDetected,
)
from cancellations.domain.promotion import Change, Kind, Trial, TrialState
from cancellations.domain.retraining import Action, RequestState, RetrainRequest, Verdict
from cancellations.errors import ServiceDown
from deployments.console import Voice
from deployments.live import PROJECT

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from cancellations.bootstrap import App, Reservations
    from cancellations.ports import StoredDecision
    from deployments.deployed import Deployed

# Thirty weeks of bookings before the first champion: some 20,000 of the public file's have matured by then.
HISTORY = timedelta(weeks=30)
ROUND = timedelta(weeks=4)
# Behind the calendar floor of 13 weeks a retrain is due without drift: more rounds would tell nothing new.
ROUNDS = 4
WEEK = timedelta(weeks=1)
MISTAKE = "looked better in my notebook"


@dataclass(frozen=True)
class Check:
    """One thing that must be true for the story to be whole."""

    what: str
    holds: bool


@dataclass
class Told:
    """How the story went: facts by name, the questions that were put to the ledger, who was promoted."""

    facts: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    promoted: str | None = None

    @property
    def whole(self) -> bool:
        return bool(self.checks) and all(check.holds for check in self.checks)

    def check(self, what: str, holds: bool) -> bool:
        self.checks.append(Check(what, holds))
        return holds


@dataclass
class Story:
    """One telling. `today` is the day of event time that the house has come to."""

    reservations: Reservations
    app: App
    server: Deployed
    voice: Voice
    told: Told = field(default_factory=Told)
    today: date = date.min
    looks: list[FlowRun] = field(default_factory=list)  # at trials, each made by an automation

    def tell(self) -> Told:
        start = self.reservations.first + HISTORY
        if not self.told.check("a first champion passed the gate", self._first_champion(start)):
            return self.told
        acted = self._weeks(start)
        if not self.told.check("the monitor asked for a retrain", acted is not None) or acted is None:
            return self.told
        if not self._retrain(acted):
            return self.told
        if not self._trial():
            return self.told
        self._mistake()
        self._mails()
        return self.told

    # --- acts -------------------------------------------------------------------------------------

    def _first_champion(self, start: date) -> bool:
        self.voice.heading(f"History until {start}, and a first champion")
        self._load(None, start)
        self._run("retrain", as_of=start, reason="first champion")
        with self.app.store.begin() as work:
            request = work.requests()[-1]
            champion = work.standing().champion
        self._tell_request(request)
        return champion is not None

    def _weeks(self, start: date) -> StoredDecision | None:
        """Rounds of weeks until the monitor acts, the data end, or the rounds do."""
        for _ in range(ROUNDS):
            after, until = self.today, self.today + ROUND
            if until > self.reservations.last:
                break
            self.voice.heading(f"Weeks until {until}: bookings come in, are scored, are watched (! = alarm)")
            self._load(after, until)
            self._run("score", until=until)
            self._run("monitor", after=after, until=until)
            with self.app.store.begin() as work:
                looks = [d for d in reversed(work.decisions()) if d.report.window.end > after]
            for look in looks:
                self._tell_look(look)
            if looks and looks[-1].decision.action.retrains:
                return looks[-1]
        return None

    def _retrain(self, acted: StoredDecision) -> bool:
        assert acted.request_id is not None, "a decision to act has its request"
        self.voice.heading("The event is out, and the automation starts the retrain")
        with self.voice.working("waiting for the automation"):
            run = self.server.await_run("retrain", request_id=acted.request_id)
        with self.voice.working(f"retrain {acted.request_id} …"):
            run = self.server.finish(run)
        with self.app.store.begin() as work:
            request = work.request(acted.request_id)
        assert request is not None, "the monitor wrote it with its decision"
        self._tell_request(request)
        self.told.check("it had confirmed drift", acted.decision.action is Action.RETRAIN_DRIFT)
        self.told.check(
            "one retrain run carries the request, made by the automation",
            len(self.server.having("retrain", request_id=acted.request_id)) == 1 and _maker(run) == "AUTOMATION",
        )
        event = self.server.event(DriftDetected.topic, acted.request_id)
        self.told.facts |= {
            "drift event": str(event),
            "retrain run": f"{run.id}, created by {_maker(run)}",
        }
        return self.told.check(
            "the request ended with a registered version, which is the challenger by ledger and by alias",
            request.state is RequestState.CANDIDATE
            and self.app.registry.aliases().get("challenger") == request.version,
        )

    def _trial(self) -> bool:
        trial = self._open_trial(Kind.TRIAL)
        self.voice.heading(
            f"Challenger {trial.rival} is on trial: it scores the same bookings, and half of them are served its score"
        )
        served = self._served()
        self._tell_served(served)
        both = set(served) == {trial.champion, trial.rival}
        self.told.check("during the trial open bookings are served by either arm's version", both)
        trial = self._weeks_of(trial)
        promoted = self._promoted(trial)
        self.told.promoted = trial.rival if promoted else None
        return promoted

    def _promoted(self, trial: Trial) -> bool:
        served = self._served()
        if trial.state is TrialState.PROMOTED:
            self._tell_served(served)
        return self.told.check(
            f"the trial promoted version {trial.rival}, and every open booking is served its score",
            trial.state is TrialState.PROMOTED and set(served) == {trial.rival} and self._champion() == trial.rival,
        )

    def _mistake(self) -> None:
        """A person promotes a bad model by hand; nobody tells the house that it is one."""
        self.voice.heading("An operator's mistake: a notebook's model, whose export had lost half of the cancellations")
        from deployments.mistake import register_notebook_model

        good = self._champion()
        with self.voice.working("training it as the notebook did"):
            bad = register_notebook_model(self.app, self.today).version
        self.voice.say(f"  MLflow   version {bad} registered by hand, past the gate")
        self._command("promote", bad, "--reason", MISTAKE, "--as-of", self.today.isoformat())
        self.told.check(
            f"a person made version {bad} champion, on the record, and it is served",
            self._champion() == bad and set(self._served()) == {bad},
        )
        probation = self._open_trial(Kind.PROBATION)
        self.voice.heading(f"Version {bad} is on probation: version {good} keeps scoring in shadow")
        probation = self._weeks_of(probation)
        if probation.state is TrialState.ROLLED_BACK:
            self._tell_served(self._served())
        status = self.app.status()
        self.told.check(
            f"the probation rolled back to version {good} by itself, and every open booking is served its score",
            probation.state is TrialState.ROLLED_BACK and set(self._served()) == {good} and self._champion() == good,
        )
        self.told.check("promotions need a person until one acknowledges", status.promotions_held is not None)
        self.told.check("ledger and aliases agree", status.disagreements == ())
        self.told.check(
            "each look at trial and probation was started by outcomes that arrived",
            bool(self.looks) and all(_maker(run) == "AUTOMATION" for run in self.looks),
        )

    def _mails(self) -> None:
        """A mail for each thing that happened, in the owners' outbox folder."""
        self._run("deliver")
        folder = self.app.settings.home / "outbox"
        mails = _mails(folder)
        self.voice.heading("Mails to the owners")
        for mail in mails:
            self.voice.say(f"  {str(mail['Subject']).strip()}")
        topics = [str(mail["X-Cancellations-Topic"]) for mail in mails]
        with self.app.store.begin() as work:
            changes = sum(row.change not in (Change.CHALLENGED, Change.LEFT) for row in work.ledger())
        self.told.check(
            "a mail for the drift, the challenger and each change of champion, with pictures",
            DriftDetected.topic in topics
            and ChallengerRegistered.topic in topics
            and topics.count(ChampionChanged.topic) == changes
            and sum(_has_picture(mail) for mail in mails) >= 3,
        )
        status = self.app.status()
        self.told.check("nothing waits in the outbox", not status.pending and not status.dead)
        self.told.facts |= {"mails": f"{len(mails)} in {folder}"}

    # --- what the acts are made of ----------------------------------------------------------------

    def _weeks_of(self, trial: Trial) -> Trial:
        """Weeks of bookings and outcomes until a trial has its answer; an automation looks at each."""
        while not trial.state.final and self.today + WEEK <= self.reservations.last:
            self._load(self.today, self.today + WEEK, quietly=True)
            with self.voice.working("waiting for the automation that looks at the trial"):
                run = self.server.await_run("trial", until=self.today)
                self.looks.append(self.server.finish(run))
            with self.app.store.begin() as work:
                known = work.trial(trial.trial_id)
            assert known is not None
            trial = known
            self._tell_trial(trial)
        return trial

    def _load(self, after: date | None, until: date, quietly: bool = False) -> None:
        self.today = until
        # The stack's flows and whoever asks this home: today is a day of the story.
        (self.app.settings.home / ".env").write_text(f"CANCELLATIONS_AS_OF={until}\n")
        self._run("ingest", source=self.reservations.locator, after=after, until=until)
        if quietly:
            return
        with self.app.store.begin() as work:
            load = work.loads()[-1]
        self.voice.say(
            f"  ingest   {load.counts.loaded:,} bookings loaded, {load.counts.outcomes:,} outcomes,"
            f" {load.counts.quarantined:,} in quarantine"
        )

    def _run(self, name: str, **parameters: object) -> None:
        run = self.server.start(name, **parameters)
        with self.voice.working(f"{name} …"):
            self.server.finish(run)

    def _command(self, *arguments: str) -> None:
        """Runs a command as a person would, and shows it with its answer."""
        typed = ["cancellations", *(f'"{a}"' if " " in a else a for a in arguments)]
        self.voice.say(f"  $ {' '.join(typed)}", "bold")
        home = ["--home", str(self.app.settings.home)]
        with self.voice.working(" ".join(typed)):
            answered = subprocess.run(
                [sys.executable, "-m", "deployments.cli", *arguments, *home],
                cwd=PROJECT,
                capture_output=True,
                text=True,
                check=False,
            )
        for line in answered.stdout.splitlines():
            self.voice.say(f"    {line}")
        if answered.returncode != 0:
            raise ServiceDown(f"`{' '.join(typed)}` ended with {answered.returncode}: {answered.stderr.strip()}")

    def _champion(self) -> str | None:
        with self.app.store.begin() as work:
            return work.standing().champion

    def _served(self) -> dict[str, int]:
        counts = self.app.scores(self.today)["model_version"].value_counts()
        return {str(version): int(count) for version, count in counts.items()}

    def _open_trial(self, kind: Kind) -> Trial:
        with self.app.store.begin() as work:
            trial = work.open_trial()
        assert trial is not None and trial.kind is kind, f"a {kind} was opened with the change"
        return trial

    # --- telling ----------------------------------------------------------------------------------

    def _tell_request(self, request: RetrainRequest) -> None:
        version = f" as version {request.version}" if request.version else ""
        self.voice.say(f"  retrain  {request.request_id}: {request.state}{version}", "bold")
        for line in request.detail:
            self.voice.say(f"           {line}")

    def _tell_look(self, look: StoredDecision) -> None:
        signals = []
        for signal in look.report.signals:
            value = "–" if signal.value is None else f"{signal.value:.3f}"
            signals.append(f"{signal.name} {value:>6}{'!' if signal.verdict is Verdict.ALARM else ' '}")
        action = look.decision.action
        line = "   ".join([f"  {look.report.window.end}", *signals, "" if action is Action.NONE else str(action)])
        self.voice.say(line.rstrip(), "" if action is Action.NONE else "bold")

    def _tell_trial(self, trial: Trial) -> None:
        step = trial.evidence[-1] if trial.evidence else None
        state = str(trial.state) if trial.state.final else ""
        if step is None:
            told = "no outcome yet"
        else:
            days = len(trial.evidence)
            bounds = "" if step.low is None else f" (bounds {step.low:+.4f} to {step.high:+.4f})"
            told = (
                f"{days:>2} days, {step.bookings:,} outcomes: {trial.rival} saves {step.gain:+.4f} log loss"
                f" a booking{bounds}"
            )
        self.voice.say(f"  {self.today}   {told}   {state}".rstrip(), "bold" if state else "")

    def _tell_served(self, served: dict[str, int]) -> None:
        told = ", ".join(f"{count:,} by version {version}" for version, count in sorted(served.items()))
        self.voice.say(f"  served   open bookings: {told}")


def _maker(run: FlowRun) -> str:
    return str(run.created_by.type) if run.created_by else "nobody"


def _mails(folder: Path) -> list[EmailMessage]:
    """Mails in the order in which they came."""
    return [email.message_from_bytes(p.read_bytes(), policy=email.policy.default) for p in sorted(folder.glob("*.eml"))]


def _has_picture(mail: EmailMessage) -> bool:
    return any(part.get_content_type() == "image/png" for part in mail.walk())
