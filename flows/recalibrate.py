"""Moves the champion's log odds by the day's number, where the settings want it."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from cancellations.errors import Refused
from cancellations.usecases.recalibrate import Recalibration
from flows.application import application, named, publish, refused, tell
from flows.deliver import relay
from flows.takeover import concluded, verified

OFF = "the daily recalibration is off; CANCELLATIONS_RECALIBRATION__ENABLED=true turns it on"


# Never from a cache: what was nothing to correct in the morning may be something by noon.
@task(cache_policy=NO_CACHE)
def correct(as_of: date) -> Recalibration:
    return application().recalibrate(as_of=as_of)


@flow(name="recalibrate", flow_run_name=named("recalibrate"))
def recalibrate(as_of: date | None = None) -> State | None:
    """Learns from what has happened to open bookings so far whether the champion's log odds need a shift.

    A shift that has not done worse than none on bookings of the last weeks becomes a version and serves at once.
    Does nothing unless the settings turn it on.

    Args:
        as_of: The day that counts as today. Empty: the calendar's.
    """
    app = application()
    if not app.settings.recalibration.enabled:
        return Completed(message=OFF)
    try:
        found = correct(as_of or app.settings.today)
    except Refused as error:
        return refused(error)
    told = "\n".join(f"- {reason}" for reason in found.reasons)
    publish(
        "recalibration",
        f"**Champion {found.champion}, by what was known on {found.evidence_until}: {found.verdict}**\n\n{told}",
        "What open bookings say of the champion's level",
    )
    get_run_logger().info("%s: %s", found.verdict, "; ".join(found.reasons))
    if found.takeover is None:
        return Completed(message="; ".join((found.verdict, *found.reasons[-1:])))
    publish("takeover", verified(found.takeover), "Who is champion now, and what was checked")
    tell(relay())
    return concluded(found.takeover.version, found.takeover.problems)
