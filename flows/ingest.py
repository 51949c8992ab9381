"""Loads reservations and outcomes."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State

from cancellations.bootstrap import sources
from cancellations.ports import LoadCounts
from flows.application import application, named, publish, table


@task
def load(source: str | None, after: date | None, until: date) -> list[LoadCounts]:
    app = application()
    return [app.ingest(s, after=after, until=until) for s in sources(source, app.settings)]


@flow(name="ingest", flow_run_name=named("ingest"))
def ingest(source: str | None = None, after: date | None = None, until: date | None = None) -> State | None:
    """Loads bookings made in (after, until] and the outcomes that became known by then.

    Args:
        source: A CSV or Parquet file, a folder of them, or `simulator`. Empty: the watched folder.
        after: Only what was booked, or became known, after this day. Empty: everything.
        until: The day that counts as today. Empty: the calendar's.
    """
    loads = load(source, after, until or application().settings.today)
    rows: list[list[object]] = [
        [
            c.source,
            *(f"{n:,}" for n in (c.read, c.loaded, c.updated, c.unchanged, c.outside, c.quarantined, c.outcomes)),
        ]
        for c in loads
    ]
    headings = ["source", "read", "loaded", "updated", "unchanged", "outside the span", "quarantined", "outcomes"]
    publish("load", table(headings, rows), "What became of each row that was read")
    for c in loads:
        get_run_logger().info("%s: %d read, %d loaded, %d quarantined", c.source, c.read, c.loaded, c.quarantined)
    return None
