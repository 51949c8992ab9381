"""Writes the morning's outlook on the coming nights."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from cancellations.domain.outlook import Outlook
from cancellations.errors import Refused
from cancellations.usecases.outlook import SPANS, Published
from flows.application import application, named, picture, publish, refused, table, tell
from flows.deliver import relay


# A morning's repetition writes what is known by then.
@task(cache_policy=NO_CACHE)
def look_ahead(as_of: date) -> Published:
    return application().publish_outlook(as_of)


@flow(name="outlook", flow_run_name=named("outlook"))
def outlook(as_of: date | None = None) -> State | None:
    """Writes expected cancellations and revenue at risk of the coming nights, and the riskiest bookings.

    As files to the home's `outlook` folder, as a picture, and as one mail a day to the readers of the
    settings, if there are any.

    Args:
        as_of: The day that counts as today. Empty: the calendar's.
    """
    try:
        published = look_ahead(as_of or application().settings.today)
    except Refused as error:
        return refused(error)
    seen = published.outlook
    publish("outlook", _told(seen), f"The coming nights, seen on {seen.as_of}")
    if published.picture is not None:
        picture("outlook-picture", published.picture, f"The coming nights, seen on {seen.as_of}")
    else:
        get_run_logger().warning("no booking that is open on %s is served a score: nothing to tell", seen.as_of)
    get_run_logger().info("written: %s", ", ".join(str(path) for path in published.files))
    tell(relay())
    return None


def _told(seen: Outlook) -> str:
    rows: list[list[object]] = []
    for days in SPANS:
        for _, row in seen.span(days).iterrows():
            priced = row["at_risk"] == row["at_risk"]
            rows.append(
                [
                    row["hotel"],
                    f"next {days}",
                    f"{row['on_books']:,}",
                    f"{row['expected']:,.1f} ({row['expected_low']:,.0f} to {row['expected_high']:,.0f})",
                    f"{row['at_risk']:,.0f} ({row['at_risk_low']:,.0f} to {row['at_risk_high']:,.0f})"
                    if priced
                    else "no price",
                ]
            )
    headings = ["hotel", "nights", "room nights on the books", "expected to cancel", "revenue at risk"]
    who = "1 open booking has" if seen.unscored == 1 else f"{seen.unscored:,} open bookings have"
    left = f"\n\n{who} no score yet." if seen.unscored else ""
    return f"{table(headings, rows)}{left}" if rows else f"No booking is open and scored.{left}"
