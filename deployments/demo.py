"""The story that `make demo` tells, through the deployed flows and the ledger alone.

Nothing here calls a use case: the demo starts deployed runs, waits for them and reads what they
wrote. The one run it never starts is the retrain after the drift; that is the automation's.
"""

from __future__ import annotations

import email
import email.policy
import os
import time
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cancellations.domain.events import DriftDetected
from cancellations.domain.retraining import Action, RequestState, RetrainRequest, Verdict
from deployments.console import Voice
from deployments.live import PROJECT, running, wait
from deployments.stack import Stack

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
# Longer leads are cut off by the public file's edges, which would look like drift.
MAX_LEAD_DAYS = 180


@dataclass(frozen=True)
class Check:
    """One thing that must be true for the story to be whole."""

    what: str
    holds: bool


@dataclass
class Told:
    """How the story went: facts by name, and the questions that were put to the ledger."""

    facts: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return bool(self.checks) and all(check.holds for check in self.checks)


def tell_story(home: Path, data: Path | None, keep: bool, voice: Voice) -> Told:
    """Starts the stack on an emptied home, tells the story, stops everything it started."""
    reservations = _find(data, voice)
    # Whatever store and registry this machine's settings name, the demo writes to its own.
    os.environ["CANCELLATIONS_DATABASE_URL"] = f"sqlite:///{home.absolute() / 'cancellations.db'}"
    os.environ["CANCELLATIONS_MLFLOW_TRACKING_URI"] = f"sqlite:///{home.absolute() / 'mlflow.db'}"
    with running(Stack(home, PROJECT, voice.say, fresh=True)) as stack:
        from cancellations import settings
        from cancellations.bootstrap import App
        from deployments.deployed import deployed

        began = time.monotonic()
        with deployed(stack.check) as server:
            told = _Story(reservations, App(settings.load()), server, voice).tell()
            told.facts["story took"] = f"{time.monotonic() - began:.0f} s, {server.finished} deployed runs"
        told.facts |= {
            "Prefect": stack.prefect_ui,
            "MLflow": stack.mlflow_ui,
            "ask it": f"cancellations status --home {home}",
        }
        _summary(told, voice, keep)
        if keep:
            wait(stack, voice)
    return told


def _find(data: Path | None, voice: Voice) -> Reservations:
    """Looks for reservations before anything is started; the flows get the same selection by environment."""
    os.environ["CANCELLATIONS_MAX_LEAD_DAYS"] = str(MAX_LEAD_DAYS)
    from cancellations import settings
    from cancellations.bootstrap import locate

    found = locate(data, settings.load(), voice.say)
    os.environ["CANCELLATIONS_BOOKED_FROM"] = found.first.isoformat()
    os.environ["CANCELLATIONS_BOOKED_UNTIL"] = found.last.isoformat()
    voice.say(f"      bookings made {found.first} to {found.last}: no edge of the data cuts their leads short")
    return found


@dataclass
class _Story:
    reservations: Reservations
    app: App
    server: Deployed
    voice: Voice
    told: Told = field(default_factory=Told)

    def tell(self) -> Told:
        start = self.reservations.first + HISTORY
        if not self._first_champion(start):
            self.told.checks.append(Check("a first champion passed the gate", False))
            return self.told
        acted = self._weeks(start)
        if acted is None or acted.request_id is None:
            self.told.checks.append(Check("the monitor asked for a retrain within these data", False))
            return self.told
        self.voice.heading("The event is out, and the automation starts the retrain")
        with self.voice.working("waiting for the automation"):
            run = self.server.await_request("retrain", acted.request_id)
        with self.voice.working(f"retrain {acted.request_id} …"):
            run = self.server.finish(run)
        request = self._request(acted.request_id)
        self._tell_request(request)
        self._verify(acted, request, run)
        return self.told

    def _run(self, name: str, **parameters: object) -> None:
        run = self.server.start(name, **parameters)
        with self.voice.working(f"{name} …"):
            self.server.finish(run)

    def _first_champion(self, start: date) -> bool:
        self.voice.heading(f"History until {start}, and a first champion")
        self._run("ingest", source=self.reservations.locator, until=start)
        self._tell_load()
        self._run("retrain", as_of=start, reason="first champion")
        with self.app.store.begin() as work:
            request = work.requests()[-1]
            champion = work.standing().champion
        self._tell_request(request)
        return champion is not None

    def _weeks(self, start: date) -> StoredDecision | None:
        """Rounds of weeks until the monitor acts, the data end, or the rounds do."""
        for number in range(ROUNDS):
            after, until = start + ROUND * number, start + ROUND * (number + 1)
            if until > self.reservations.last:
                break
            self.voice.heading(f"Weeks until {until}: bookings come in, are scored, are watched (! = alarm)")
            self._run("ingest", source=self.reservations.locator, after=after, until=until)
            self._tell_load()
            self._run("score", until=until)
            self._run("monitor", after=after, until=until)
            with self.app.store.begin() as work:
                looks = [d for d in reversed(work.decisions()) if d.report.window.end > after]
            for look in looks:
                self._tell_look(look)
            if looks and looks[-1].decision.action.retrains:
                return looks[-1]
        return None

    def _request(self, request_id: str) -> RetrainRequest:
        with self.app.store.begin() as work:
            request = work.request(request_id)
        assert request is not None, "the monitor wrote it with its decision"
        return request

    def _tell_load(self) -> None:
        with self.app.store.begin() as work:
            load = work.loads()[-1]
        self.voice.say(
            f"  ingest   {load.loaded:,} bookings loaded, {load.outcomes:,} outcomes,"
            f" {load.quarantined:,} in quarantine"
        )

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

    def _verify(self, acted: StoredDecision, request: RetrainRequest, run: FlowRun) -> None:
        """Puts the ledger, Prefect, MLflow and the mailbox to the question."""
        status = self.app.status()
        runs = self.server.with_request("retrain", request.request_id)
        maker = run.created_by.type if run.created_by else "nobody"
        mail = _mail(self.app.settings.home / "outbox", DriftDetected.topic)
        stands = request.version is not None and status.standing.challenger == request.version
        self.told.checks += [
            Check("the monitor confirmed drift", acted.decision.action is Action.RETRAIN_DRIFT),
            Check(
                "one retrain run carries the request, made by the automation", len(runs) == 1 and maker == "AUTOMATION"
            ),
            Check("the request ended with a registered version", request.state is RequestState.CANDIDATE),
            Check("it is the challenger, by ledger and by alias", stands and status.disagreements == ()),
            Check("the drift mail lies in the outbox folder, with its picture", mail is not None),
            Check("nothing waits in the outbox", not status.pending and not status.dead),
        ]
        self.told.facts |= {
            "champion": f"version {status.standing.champion}",
            "challenger": f"version {status.standing.challenger}",
            "request": request.request_id,
            "event": f"{self.server.event(DriftDetected.topic, request.request_id)}",
            "retrain run": f"{run.id}, created by {maker}",
            "mail": str(mail),
        }


def _mail(folder: Path, topic: str) -> Path | None:
    """The mail about a fact, if it came with a picture."""
    for path in sorted(folder.glob("*.eml")):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        parts = {part.get_content_type() for part in message.walk()}
        if message["X-Cancellations-Topic"] == topic and {"text/plain", "text/html", "image/png"} <= parts:
            return path
    return None


def _summary(told: Told, voice: Voice, keep: bool) -> None:
    voice.heading("What stands in the ledger")
    for check in told.checks:
        voice.say(f"  {'yes' if check.holds else 'NO '}  {check.what}", "" if check.holds else "bold red")
    voice.heading("Look at it" if keep else "Where it was (KEEP=1 leaves the UIs up)")
    for name, value in told.facts.items():
        voice.say(f"  {name:<12} {value}")
