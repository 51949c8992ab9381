"""Sends what waits in the outbox."""

from __future__ import annotations

from prefect import flow, task

from cancellations.usecases.deliver import Delivered
from flows.application import application, named, tell


@task
def relay() -> Delivered:
    return application().deliver()


@flow(name="deliver", flow_run_name=named("deliver"))
def deliver() -> None:
    """Sends events and mails that are due; those that fail are tried again, ever more rarely."""
    tell(relay())
