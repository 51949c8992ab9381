"""Loads reservations and outcomes."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task

from cancellations.bootstrap import locators, open_source
from cancellations.errors import BadInput
from cancellations.ports import LoadCounts
from flows.application import application, named, publish, table, tell
from flows.deliver import relay


@task
def load(locator: str, after: date | None, until: date) -> LoadCounts:
    app = application()
    return app.ingest(open_source(locator, app.settings), after=after, until=until)


@flow(name="ingest", flow_run_name=named("ingest"))
def ingest(source: str | None = None, after: date | None = None, until: date | None = None) -> None:
    """Loads bookings made in (after, until] and the outcomes that became known by then.

    Outcomes that a running trial or probation reads ring for it.

    Args:
        source: A CSV or Parquet file, a folder of them, or `simulator`. Empty: the watched folder.
        after: Only what was booked, or became known, after this day. Empty: everything.
        until: The day that counts as today. Empty: the calendar's.
    """
    settings = application().settings
    loads: list[LoadCounts] = []
    problems: list[str] = []
    for locator in locators(source, settings):
        try:
            loads.append(load(locator, after, until or settings.today))
        except BadInput as error:
            # The other files of the folder are not to wait for somebody to mend this one.
            problems.append(str(error))
    rows: list[list[object]] = [
        [c.source, c.read, c.loaded, c.updated, c.unchanged, c.outside, c.quarantined, c.outcomes] for c in loads
    ]
    headings = ["source", "read", "loaded", "updated", "unchanged", "outside the span", "quarantined", "outcomes"]
    publish("load", table(headings, rows), "What became of each row that was read")
    for c in loads:
        get_run_logger().info("%s: %d read, %d loaded, %d quarantined", c.source, c.read, c.loaded, c.quarantined)
    tell(relay())
    if problems:
        raise BadInput("; ".join(problems))
