"""Looks at the trial or probation that has not ended, and asks a person where promotion needs one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

from prefect import flow, get_run_logger, runtime, suspend_flow_run, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import Field

from cancellations.domain.promotion import Kind, Trial, TrialState
from cancellations.errors import Refused
from cancellations.usecases.trial import Looked
from flows.application import application, link, named, picture, publish, refused, table, tell
from flows.deliver import relay
from flows.takeover import concluded, verified

# Rows of the sequence that are shown; each holds all days before it, so the last ones tell most.
SHOWN = 20


class Approval(RunInput):
    """A person's answer, as Prefect's form asks for it."""

    approve: bool = Field(False, description="Yes makes the challenger champion, no lets it go.")
    reason: str = Field("", description="Why, for the ledger.")
    by: str = Field("", description="Your name, for the ledger.")


# Never from a cache: a run goes through its tasks again when it goes on after an answer.
@task(cache_policy=NO_CACHE)
def look(until: date, run: str) -> Looked:
    return application().trial(until=until, run=run)


@task(cache_policy=NO_CACHE)
def answer(trial_id: str, given: Approval, until: date) -> Looked:
    return application().answer(
        trial_id,
        approve=given.approve,
        reason=given.reason.strip() or "no reason was given",
        by=f"{given.by.strip() or 'a person'}, in Prefect",
        as_of=until,
    )


@flow(name="trial", flow_run_name=named("trial"))
def trial(until: date | None = None) -> State | None:
    """Compares both versions on bookings that matured by a day, and acts on what they say.

    A challenger that proves better is promoted; a champion on probation that proves worse than its
    predecessor is rolled back. Where promotion needs a person, the run suspends itself and asks; who
    resumes it answers, and no answer in time means no.

    Args:
        until: The day that counts as today. Empty: the calendar's.
    """
    day, run = until or application().settings.today, str(runtime.flow_run.id)
    try:
        asked = _asked_by(run)
        if asked is not None and asked.state.final:
            return Completed(name="Too late", message=f"{asked} had ended: {asked.state}; {asked.reasons[-1]}")
        # An answer that was given in time counts, also when this run comes late to take it.
        looked = look(day, run) if asked is None else Looked(asked)
        if looked.trial is None:
            return Completed(message="neither a trial nor a probation is running")
        if looked.trial.state is TrialState.AWAITING:
            if not _ours_to_ask(looked.trial, run):
                return Completed(message=_waits(looked.trial))
            looked = _ask(looked, day)
    except Refused as error:
        return refused(error)
    _show(looked)
    tell(relay())
    if looked.takeover is not None:
        return concluded(looked.takeover.version, looked.takeover.problems)
    assert looked.trial is not None, "who answers, answers about a trial"
    return concluded(looked.trial.champion, looked.problems)


def _asked_by(run: str) -> Trial | None:
    """The trial that this run has asked a person about, when it goes on after the wait."""
    with application().store.begin() as work:
        return next((trial for trial in work.trials() if trial.asked_by == run), None)


def _ours_to_ask(trial: Trial, run: str) -> bool:
    """One run asks. When that one is over, or gone from Prefect, its form has gone too, and this run asks."""
    if trial.asked_by == run:
        return True
    if trial.asked_by is not None and _lives(trial.asked_by):
        return False
    application().ask(trial.trial_id, run)
    return True


def _lives(run: str) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run)).state
    except (ObjectNotFound, ValueError):  # deleted, or never a run of Prefect
        return False
    return state is None or not state.is_final()


def _ask(looked: Looked, day: date) -> Looked:
    """Suspends this run until a person answers; it starts anew then, and comes past here with the answer."""
    trial = looked.trial
    assert trial is not None and trial.asked_until is not None, "whoever began to ask said until when"
    _show(looked)
    # The mail that asks has to be out before the wait.
    tell(relay())
    given = suspend_flow_run(
        wait_for_input=Approval.with_initial_data(description=_question(trial)),
        timeout=max(1, int((trial.asked_until - datetime.now(UTC)).total_seconds())),
        key=trial.trial_id,
    )
    return answer(trial.trial_id, given, day)


def _waits(trial: Trial) -> str:
    return f"{trial} awaits an answer until {trial.asked_until:%Y-%m-%d %H:%M} UTC; flow run {trial.asked_by} asks"


def _question(trial: Trial) -> str:
    """What the form says above its fields."""
    new, old = trial.rival, trial.champion
    return "\n".join(
        [
            f"## Promote version {new}, in place of champion {old}?",
            "",
            *(f"- {reason}" for reason in trial.reasons),
            "",
            f"**Yes**: version {new} becomes champion at once, all open bookings are served its scores, and version"
            f" {old} keeps scoring beside it, to take over again if that was a mistake.",
            "",
            f"**No**, or no answer by {trial.asked_until:%Y-%m-%d %H:%M} UTC: version {new} leaves, champion {old}"
            " stays.",
            "",
            _sequence(trial),
        ]
    )


def _sequence(trial: Trial) -> str:
    """The last rows of the evidence."""
    rows: list[list[object]] = [
        [s.day, f"{s.bookings:,}", f"{s.gain:+.4f}", *("–" if b is None else f"{b:+.4f}" for b in (s.low, s.high))]
        for s in trial.evidence[-SHOWN:]
    ]
    headings = ["matured until", "bookings", f"saved by version {trial.rival} (log loss per booking)", "low", "high"]
    return table(headings, rows)


def _show(looked: Looked) -> None:
    """The evidence so far and what it came to, its picture, links to both versions; and a change, if it made one."""
    trial, app = looked.trial, application()
    assert trial is not None, "there is something to show"
    get_run_logger().info("%s: %s; %s", trial, trial.state, "; ".join(trial.reasons))
    told = "\n".join(f"- {reason}" for reason in trial.reasons)
    heading = f"**{str(trial).capitalize()}: {trial.state}**"
    publish("trial", f"{heading}\n\n{told}\n\n{_sequence(trial)}", "What matured bookings say of both versions")
    picture("trial-picture", app.pictures.trial(trial), f"{trial}: {trial.state}")
    if looked.guards:
        found = "\n".join(f"- {finding}" for finding in looked.guards)
        publish("guards", found, "The first bookings of a new champion, by what was usual before")
    if looked.takeover is not None:
        publish("takeover", verified(looked.takeover), "Who is champion now, and what was checked")
        return
    rival = "challenger" if trial.kind is Kind.TRIAL else "predecessor"
    for key, version in (("champion", trial.champion), (rival, trial.rival)):
        link(key, app.registry.version_address(version), f"{key} {version}")
