"""Writes the weekly digest, when a week is over."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from cancellations.usecases.digest import Digested
from flows.application import application, named, publish, table, tell
from flows.deliver import relay


# Never from a cache: a run of the same day may come before the week was over by another setting.
@task(cache_policy=NO_CACHE)
def sum_up(as_of: date) -> Digested:
    return application().digest(as_of)


@flow(name="digest", flow_run_name=named("digest"))
def digest(as_of: date | None = None) -> State | None:
    """Writes one mail about the days since the last digest, once the chosen weekday has come.

    Mails of the kinds that the settings keep for it are told in it. On all other days it does nothing.

    Args:
        as_of: The day that counts as today. Empty: the calendar's.
    """
    found = sum_up(as_of or application().settings.today)
    get_run_logger().info(found.why)
    if found.fact is None:
        return Completed(message=found.why)
    looks: list[list[object]] = [[look.end, look.champion, look.evidence, look.action] for look in found.fact.looks]
    looked = table(["bookings until", "champion", "evidence", "decision"], looks) if looks else "No look was taken."
    publish("digest", f"{found.why}\n\n{looked}", f"The weekly digest to {found.fact.until}")
    tell(relay())
    return None
