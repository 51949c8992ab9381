"""An earlier champion serves again, by a person's order."""

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
def back(to: str | None, reason: str, by: str, as_of: date) -> Takeover:
    return application().roll_back(to=to, reason=reason, by=by, as_of=as_of)


@flow(name="rollback", flow_run_name=named("rollback"))
def rollback(reason: Said, to: Version | None = None, until: date | None = None) -> State | None:
    """Puts an earlier champion back: proves that it loads and scores, moves it in, checks what is served.

    Afterwards promotions need a person, until one runs `cancellations acknowledge`.

    Args:
        reason: Why, for the ledger and for the owners' mail.
        to: The version to go back to; it must have been champion. Empty: the one before the present one.
        until: The day that counts as today. Empty: the calendar's.
    """
    try:
        takeover = back(to, reason, asker(), until or application().settings.today)
    except Refused as error:
        publish("rollback", f"**Refused, nothing was changed**: {error}", "Why nothing was rolled back")
        return refused(error)
    publish("rollback", verified(takeover), "Who is champion now, and what was checked")
    tell(relay())
    return concluded(takeover.version, takeover.problems)
