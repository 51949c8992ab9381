"""Scores reservations with the versions in play, in this process or in several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import date

from prefect import flow
from prefect.client.schemas.objects import State

from cancellations.domain.checks import DayCheck
from cancellations.errors import Refused
from cancellations.usecases.score import Scored
from flows.application import application, named, publish, refused, table, tell
from flows.deliver import relay
from flows.partition import Ended, across, task_runner


@flow(name="score", flow_run_name=named("score"))
def score(after: date | None = None, until: date | None = None) -> State | None:
    """Gives each open booking made in (after, until] one score by the champion and one by its rival.

    The rival is the challenger on trial, or the predecessor of a champion on probation. Then each open
    booking is served the score that it should get. `CANCELLATIONS_SCORING__RUNNER` says what scores the
    parts of a large batch: this process, threads, processes, or a Dask cluster.

    Then the bookings of each day since the last time are checked against what their columns have shown
    before: a break of the feed is mailed, and holds automatic retrains.

    Args:
        after: Only bookings made after this day. Empty: all that are open.
        until: The day that counts as today. Empty: the calendar's.
    """
    app = application()
    ended: list[Ended] = []
    began = time.perf_counter()
    try:
        with task_runner(app.settings.scoring) or nullcontext() as runner:
            scored = app.score(after=after, until=until or app.settings.today, across=across(runner, ended))
            seconds = time.perf_counter() - began
    except Refused as error:
        return refused(error)
    publish(
        "scores",
        told(scored, ended, seconds, app.settings.scoring.runner),
        "New scores per version, and what is served",
    )
    checked = app.check(until=until or app.settings.today)
    if checked:
        publish("data-checks", of_days(checked), "Days of booking, each against what its columns had shown before")
        tell(relay())
    return None


def of_days(checked: Sequence[DayCheck]) -> str:
    """Markdown: what was found about each day."""
    rows: list[list[object]] = [
        [c.day, f"{c.bookings:,}", "**failed**" if c.findings else "passed", "; ".join(map(str, c.findings))]
        for c in checked
    ]
    return table(["booked on", "bookings", "checks", "found"], rows)


def told(scored: Scored, ended: list[Ended], seconds: float, runner: str) -> str:
    """Markdown: rows of each version and partition, where and how fast they were made."""
    rows: list[list[object]] = []
    for version, count in scored.rows.items():
        role = "champion" if version == scored.champion else "rival"
        rows.append([f"**{version}**", f"**{role}**", f"**{count:,}**", "", "", ""])
        for each in (e for e in ended if e.partition.version == version):
            since = f"after {each.partition.after}, " if each.partition.after else ""
            days = f"booked {since}until {each.partition.until}"
            speed = f"{each.rows / each.seconds:,.0f}" if each.seconds else ""
            rows.append(["", days, f"{each.rows:,}", each.process, f"{each.seconds:.1f}", speed])
    headings = ["version", "part", "bookings scored", "process", "seconds", "rows/s"]
    total = sum(scored.rows.values())
    speed = f", {total / seconds:,.0f} a second" if total else ""
    return (
        f"{table(headings, rows)}\n\n{total:,} scores in {seconds:.1f} s{speed}; runner: {runner}."
        f" {scored.served:,} bookings are served another score."
    )
