"""What `make demo` does: a stack on a fresh home, the story told on it, and everything stopped again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from deployments.console import Voice
from deployments.live import PROJECT, running, wait
from deployments.stack import Stack
from deployments.story import Story, Told

# Longer leads are cut off by the public file's edges, which would look like drift.
MAX_LEAD_DAYS = 180


def tell_story(home: Path, data: Path | None, keep: bool, voice: Voice) -> Told:
    """Starts the stack on an emptied home, tells the story, stops everything it started."""
    os.environ["CANCELLATIONS_MAX_LEAD_DAYS"] = str(MAX_LEAD_DAYS)
    from cancellations import settings
    from cancellations.bootstrap import App, locate

    # Before anything is started; the flows get the same selection by their environment.
    reservations = locate(data, settings.load(), voice.say)
    os.environ["CANCELLATIONS_BOOKED_FROM"] = reservations.first.isoformat()
    os.environ["CANCELLATIONS_BOOKED_UNTIL"] = reservations.last.isoformat()
    voice.say(
        f"      bookings made {reservations.first} to {reservations.last}: no edge of the data cuts their leads short"
    )
    # Whatever store and registry this machine's settings name, the demo writes to its own.
    os.environ["CANCELLATIONS_DATABASE_URL"] = f"sqlite:///{home.absolute() / 'cancellations.db'}"
    os.environ["CANCELLATIONS_MLFLOW_TRACKING_URI"] = f"sqlite:///{home.absolute() / 'mlflow.db'}"
    with running(Stack(home, PROJECT, voice.say, fresh=True)) as stack:
        from deployments.deployed import deployed

        began = time.monotonic()
        with deployed(stack.check) as server:
            told = Story(reservations, App(settings.load()), server, voice).tell()
            told.facts["story took"] = f"{time.monotonic() - began:.0f} s, {server.finished} deployed runs"
        told.facts |= {"Prefect": stack.prefect_ui, "MLflow": stack.mlflow_ui}
        _summary(told, home, voice, keep)
        if keep:
            wait(stack, voice)
    return told


def _summary(told: Told, home: Path, voice: Voice, keep: bool) -> None:
    voice.heading("What stands in the ledger")
    for check in told.checks:
        voice.say(f"  {'yes' if check.holds else 'NO '}  {check.what}", "" if check.holds else "bold red")
    voice.heading("Look at it" if keep else "Where it was (KEEP=1 leaves the UIs up)")
    for name, value in told.facts.items():
        voice.say(f"  {name:<14} {value}")
    voice.heading("Ask it")
    for command in ("status", "history", f"explain {told.promoted}" if told.promoted else "explain"):
        voice.say(f"  .venv/bin/cancellations {command} --home {home}")
