"""Scores reservations with the versions in play."""

from __future__ import annotations

from datetime import date

from prefect import flow, task
from prefect.client.schemas.objects import State

from cancellations.errors import Refused
from cancellations.usecases.score import Scored
from flows.application import application, named, publish, refused, table


@task
def predict(after: date | None, until: date) -> Scored:
    return application().score(after=after, until=until)


@flow(name="score", flow_run_name=named("score"))
def score(after: date | None = None, until: date | None = None) -> State | None:
    """Gives each open booking made in (after, until] one score by the champion and one by its rival.

    The rival is the challenger on trial, or the predecessor of a champion on probation. Then each open
    booking is served the score that it should get.

    Args:
        after: Only bookings made after this day. Empty: all that are open.
        until: The day that counts as today. Empty: the calendar's.
    """
    try:
        scored = predict(after, until or application().settings.today)
    except Refused as error:
        return refused(error)
    rows: list[list[object]] = [
        [version, "champion" if version == scored.champion else "rival", f"{count:,}"]
        for version, count in scored.rows.items()
    ]
    told = (
        f"{table(['version', 'role', 'bookings scored'], rows)}\n\n{scored.served:,} bookings are served another score."
    )
    publish("scores", told, "New scores per version, and what is served")
    return None
