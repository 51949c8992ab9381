"""Scores reservations with the versions in play, in this process or in several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import date

from prefect import flow
from prefect.client.schemas.objects import State

from cancellations.domain.checks import DayCheck, Hold
from cancellations.errors import Refused
from cancellations.usecases.score import Scored
from flows.application import application, named, publish, refused, table, tell
from flows.deliver import relay
from flows.partition import Ended, across, task_runner
from flows.takeover import concluded, verified


@flow(name="score", flow_run_name=named("score"))
def score(after: date | None = None, until: date | None = None) -> State | None:
    """Gives each open booking made in (after, until] one score by the champion and one by its rival.

    The rival is the challenger on trial, or the predecessor of a champion on probation. Then each open
    booking is served the score that it should get. `CANCELLATIONS_SCORING__RUNNER` says what scores the
    parts of a large batch: this process, threads, processes, or a Dask cluster.

    Bookings that have no score yet are checked first against what their columns have shown before: a day that fails
    is held back, and mailed. After scoring each day that is over gets its verdict, which holds automatic retrains
    while it fails; and once a new champion has scored its first bookings its guards look, and roll back if they fire.

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
    if scored.held:
        publish("held", of_holds(scored.held), "Days whose bookings fail their checks and were not scored")
    checked = app.check(until=until or app.settings.today)
    if checked:
        publish("data-checks", of_days(checked), "Days of booking, each against what its columns had shown before")
    guarded = app.guard(until=until or app.settings.today)
    if guarded.looked:
        found = "\n".join(f"- {finding}" for finding in guarded.findings)
        publish("guards", found, "The first bookings of a new champion, by what was usual before")
    if guarded.takeover is not None:
        publish("takeover", verified(guarded.takeover), "Who is champion now, and what was checked")
    if checked or scored.held or guarded.takeover is not None:
        tell(relay())
    if guarded.trial is None:
        return None
    problems = guarded.problems if guarded.takeover is None else guarded.takeover.problems
    champion = guarded.trial.champion if guarded.takeover is None else guarded.takeover.version
    return concluded(champion, problems)


def of_holds(held: Sequence[Hold]) -> str:
    """Markdown: what each day that is held fails."""
    rows: list[list[object]] = [
        [hold.day, hold.held_on, f"{hold.bookings:,}", "; ".join(map(str, hold.findings))] for hold in held
    ]
    return table(["booked on", "held since", "bookings", "found"], rows)


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
