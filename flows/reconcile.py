"""Picks up what was lost on the way."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from prefect import flow, get_run_logger, task
from pydantic import Field

from cancellations.usecases.reconcile import Reconciled
from flows.application import application, named, publish, tell
from flows.deliver import relay


@task
def look(patience_seconds: float | None) -> Reconciled:
    return application().reconcile(None if patience_seconds is None else timedelta(seconds=patience_seconds))


@flow(name="reconcile", flow_run_name=named("reconcile"))
def reconcile(patience_seconds: Annotated[float, Field(ge=0)] | None = None) -> None:
    """Starts requests that a lost event left waiting, recovers those of dead workers, mends aliases.

    Args:
        patience_seconds: How long a request may wait for its event. Empty: the setting.
    """
    found = look(patience_seconds)
    sections = {
        "Started": found.started,
        "Recovered from a dead worker": found.recovered,
        "Failed for good": found.failed,
        "Overdue, which owners are told once": found.overdue,
        "Aliases out of place, now settled": found.aliases,
        "Problems": found.problems,
    }
    lines = [f"- {heading}: {text}" for heading, texts in sections.items() for text in texts]
    for line in lines:
        get_run_logger().info(line.removeprefix("- "))
    publish("reconcile", "\n".join(lines) or "Nothing was out of place.", "What reconcile found")
    tell(relay())
