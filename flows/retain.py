"""Takes away what the settings no longer keep."""

from __future__ import annotations

from datetime import date

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from cancellations.usecases.retain import Retained
from flows.application import application, named, publish, table


@task(cache_policy=NO_CACHE)
def clean_up(as_of: date, dry_run: bool) -> Retained:
    return application().retain(as_of, dry_run=dry_run)


@flow(name="retain", flow_run_name=named("retain"))
def retain(as_of: date | None = None, dry_run: bool = False) -> None:
    """Takes away scores, reports and mails that are older than the settings keep them; by default all are kept.

    Args:
        as_of: The day that counts as today. Empty: the calendar's.
        dry_run: Counts what would go, and changes nothing.
    """
    found = clean_up(as_of or application().settings.today, dry_run)
    rows: list[list[object]] = [
        [what.replace("_", " "), "kept for ever" if count is None else count] for what, count in vars(found).items()
    ]
    publish("retention", table(["what", "would go" if dry_run else "taken away"], rows), "What was too old to keep")
