"""Loads reservations and outcomes."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from prefect import flow, get_run_logger, task

from cancellations.bootstrap import locators, open_source
from cancellations.errors import BadInput, Refused
from cancellations.ports import Load
from flows.application import application, named, publish, table, tell
from flows.deliver import relay
from flows.parameters import Said


@task
def load(locator: str, mapping: str | None, after: date | None, until: date, again: bool) -> Load:
    app = application()
    source = open_source(locator, app.settings, Path(mapping) if mapping else None)
    return app.ingest(source, after=after, until=until, again=again)


@flow(name="ingest", flow_run_name=named("ingest"))
def ingest(
    source: Said | None = None, after: date | None = None, until: date | None = None, mapping: Said | None = None
) -> None:
    """Loads bookings made in (after, until] and the outcomes that became known by then.

    Outcomes that a running trial or probation reads ring for it. Files of the watched folder are read
    when they have changed, or when a later day makes more of them known.

    Args:
        source: A CSV or Parquet file, a folder of them, or `simulator`. Empty: the database that the
            mapping queries, else the watched folder.
        after: Only what was booked, or became known, after this day. Empty: everything.
        until: The day that counts as today. Empty: the calendar's.
        mapping: The file that says what the source's columns mean. Empty: the settings', or the one beside it.
    """
    settings = application().settings
    loads: list[Load] = []
    problems: list[str] = []
    for locator in locators(source, settings, Path(mapping) if mapping else None):
        try:
            loads.append(load(locator, mapping, after, until or settings.today, again=source is not None))
        except (BadInput, Refused) as error:
            # The other files of the folder are not to wait for somebody to mend this one.
            problems.append(str(error))
    counts = [done.counts for done in loads]
    rows: list[list[object]] = [
        [c.source, c.read, c.loaded, c.updated, c.unchanged, c.outside, c.quarantined, c.outcomes] for c in counts
    ]
    headings = ["source", "read", "loaded", "updated", "unchanged", "outside the span", "quarantined", "outcomes"]
    publish("load", table(headings, rows), "What became of each row that was read")
    for c in counts:
        get_run_logger().info("%s: %d read, %d loaded, %d quarantined", c.source, c.read, c.loaded, c.quarantined)
    tell(relay())
    if problems:
        raise BadInput("; ".join(problems))
