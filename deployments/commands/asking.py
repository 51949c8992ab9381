"""Commands that answer from the record and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cancellations.errors import Refused, ServiceDown
from deployments.commands.application import application, kept_for_digest, today
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json
from deployments.commands.words import (
    LAST_DECISIONS,
    TROUBLE,
    alias_moved,
    course,
    decision_in_brief,
    figures,
    pair,
    tell_decision,
    tell_explanation,
    tell_history,
    tell_hold,
)
from deployments.console import LABEL, WIDTH, Voice, print_json, wrapped

if TYPE_CHECKING:
    from cancellations.settings import Settings
    from cancellations.usecases.status import Status


def status(home: HomeOption = DEFAULT_HOME, as_of: AsOf = None, as_json: Json = False) -> None:
    """Show who serves, what is tried and asked for, what waits, and whether ledger and aliases agree.

    Example: cancellations status --json
    """
    app = application(home)
    found = app.status(today(app, as_of))
    if as_json:
        print_json(found)
    else:
        _tell_status(found, app.settings, Voice())
    if found.registry_problem is not None:
        raise typer.Exit(ServiceDown.exit_code)


def history(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Show every change of champion or challenger, with the trials and probations between; the newest last.

    Example: cancellations history
    """
    found = application(home).history()
    if as_json:
        print_json(found)
    else:
        tell_history(found, Voice())


def explain(
    version: Annotated[str | None, typer.Argument(help="A version of `history`. Default: the champion.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every decision about it, not the last ones alone.")] = False,
    decision: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="One decision in full, by the last day of its window or its report's id."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Tell a version's story: why it was asked for, how it was made and compared, what was decided, what became of it.

    Example: cancellations explain 3 --decision 2016-06-20
    """
    app = application(home)
    if version is None:
        with app.store.begin() as work:
            version = work.standing().champion
    if version is None:
        raise Refused("there is no champion to explain; train the first one: cancellations retrain --as-of DAY")
    on = today(app, as_of)
    found = app.explain(version, on)
    if decision is not None:
        stored = found.decided(decision)
        if as_json:
            print_json(stored)
        else:
            tell_decision(stored, Voice())
        return
    address = app.registry.version_address(version)
    if as_json:
        decisions = [decision_in_brief(stored) for stored in found.decisions]
        print_json({**vars(found), "decisions": decisions, "address": address})
    else:
        tell_explanation(found, address, on, Voice(), shown=len(found.decisions) if every else LAST_DECISIONS)


def _tell_actions(found: Status, voice: Voice) -> None:
    acted = (
        "none on record" if found.acted_since is None else f"{found.acted_upon:,} on record since {found.acted_since}"
    )
    alone = f"{found.held_out:,} open bookings are held out" if found.held_out else "no open booking is held out"
    voice.fact("actions", f"{acted}; {alone}", style="" if found.held_out else TROUBLE)
    if not found.held_out:
        voice.fact("", "trials wait for a person; hold some out: CANCELLATIONS_ACTIONS__HOLD_OUT")


def _tell_status(found: Status, settings: Settings, voice: Voice) -> None:
    def role(name: str, record: Any) -> None:
        if record is None:
            voice.fact(name, "none")
            return
        loss = record.metrics.get("backtest_log_loss")
        told = f", backtest log loss {loss:.4f}" if loss is not None else ""
        if record.shift is not None:
            told = f", recalibrated by {record.shift:+.3f} log odds on {record.known_until}"
        voice.fact(name, f"version {record.version}, trained as of {record.trained_as_of}{told}", style="bold")

    role("champion", found.champion)
    role("challenger", found.challenger)
    if found.trial is None:
        voice.fact("trial", "none")
    else:
        told = f"{pair(found.trial)}, opened {found.trial.opened_on}"
        voice.fact(found.trial.kind, told, course(found.trial), figures(found.trial))
        for finding in found.guards:
            voice.fact("guard", str(finding))
    served = [f"{rows:,} open bookings get version {version}'s score" for version, rows in found.served.items()]
    voice.fact("serving", *(served or ["no open booking has a score"]))
    for hold in found.held:
        voice.fact("held back", tell_hold(hold), style=TROUBLE)
    if found.acted_since is not None or found.held_out:
        _tell_actions(found, voice)
    held = found.promotions_held
    approval = f"need a person's approval until `cancellations acknowledge`: {held}"
    voice.fact("promotions", f"by mode {settings.trial.mode}" if held is None else approval)
    if found.last is None:
        voice.fact("last look", "none")
    else:
        voice.fact(
            "last look", f"{found.last.report.window}: {found.last.decision.action}", *found.last.decision.reasons
        )
    for request in (*found.open_requests, *found.ended_requests[-3:]):
        voice.fact("request", f"{request.request_id}: {request.state}, {request.reason}")
    for load in found.unfinished_loads:
        part = f"{load.applied:,} of {load.counts.read:,} rows written"
        voice.fact("load", f"{load.counts.source}: {part}, not finished; ingest it again, and it goes on from there")
    if found.quarantined:
        waiting = sum(found.quarantined.values())
        of = ", ".join(f"{rows:,} of {source}" for source, rows in found.quarantined.items())
        rows = "1 row waits" if waiting == 1 else f"{waiting:,} rows wait"
        voice.fact("quarantine", f"{rows} ({of}): cancellations quarantine list")
    voice.fact("retraining", "automatic" if found.paused is None else f"paused: {found.paused}")
    kept = [entry for entry in found.pending if kept_for_digest(settings, entry)]
    leaving = [entry for entry in found.pending if entry not in kept]
    digest = f", {len(kept)} more for the weekly digest" if kept else ""
    voice.fact("outbox", f"{len(leaving)} messages wait{digest}, {len(found.dead)} given up")
    for entry in (*leaving, *found.dead):
        problem = f": {entry.last_error}" if entry.last_error else ""
        voice.fact("", f"{entry.message.channel} {entry.message.topic}, {entry.attempts} attempts{problem}")
    if found.disagreements is None:
        voice.fact("aliases", f"not known: {found.registry_problem}", style=TROUBLE)
    elif found.disagreements:
        for sentence in found.disagreements:
            voice.fact("aliases", f"DISAGREE: {sentence}", style=TROUBLE)
    else:
        voice.fact("aliases", f"agree with the ledger (epoch {found.standing.epoch})")
    for move in found.alias_moves:
        voice.fact("", *wrapped(alias_moved(move), width=WIDTH - LABEL))
