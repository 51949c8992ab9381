"""A version becomes champion, by a person's order."""

from __future__ import annotations

from datetime import date

from prefect import flow, task
from prefect.client.schemas.objects import State

from cancellations.errors import Refused
from cancellations.usecases.promote import Takeover
from flows.application import application, named, publish, refused, tell
from flows.deliver import relay
from flows.parameters import Said, Version
from flows.takeover import asker, concluded, verified


@task
def install(version: str, reason: str, by: str, as_of: date) -> Takeover:
    return application().promote(version, reason=reason, by=by, as_of=as_of)


@flow(name="promote", flow_run_name=named("promote"))
def promote(version: Version, reason: Said, until: date | None = None) -> State | None:
    """Makes a version champion past gate and trial: proves that it loads and scores, checks what is served.

    The champion before it keeps scoring, and the probation that begins rolls back by itself.

    Args:
        version: The number of a version of the model in MLflow, also of one that was registered by hand.
        reason: Why, for the ledger and for the owners' mail.
        until: The day that counts as today. Empty: the calendar's.
    """
    try:
        takeover = install(version, reason, asker(), until or application().settings.today)
    except Refused as error:
        publish("promotion", f"**Refused, nothing was changed**: {error}", "Why nothing was promoted")
        return refused(error)
    publish("promotion", verified(takeover), "Who is champion now, and what was checked")
    tell(relay())
    return concluded(takeover.version, takeover.problems)
