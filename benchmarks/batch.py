"""How long a batch of some thousand bookings takes as a deployed flow run, and where the time goes.

Through the real embedded stack: a client creates a run of the deployment `score`, the worker finds it, a process
starts, imports what it needs, loads the champion, scores and serves the bookings that came last, checks their day and
reports.
Beside each run the same use case on the next day's bookings in this process, which has all that loaded.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.figures import Figure, Options, Outcome, run
from benchmarks.homes import furnished
from cancellations.bootstrap import App
from cancellations.errors import BadInput, NotEnoughData
from cancellations.home import prepare
from cancellations.sources.simulator import Simulator
from cancellations.store import tables
from deployments.live import PROJECT
from deployments.stack import Stack

START, TRAINING_DAYS = date(2015, 10, 5), 120
# Some thousand bookings on an ordinary day.
SCALE = 6.0
REPETITIONS, QUICK_REPETITIONS = 5, 2


@dataclass(frozen=True)
class Run:
    """A run's bookings, and seconds: until its first line, until its scores are written, until they are served, and
    until its end."""

    bookings: int
    begun: float
    scored: float
    served: float
    ended: float


def measure(options: Options) -> Outcome:
    if options.data is not None:
        raise BadInput("--data: the bookings of this benchmark come day by day; they are simulated, leave it out")
    repetitions = QUICK_REPETITIONS if options.quick else REPETITIONS
    runs: list[Run] = []
    alone: list[float] = []
    with tempfile.TemporaryDirectory(prefix="cancellations-batch-") as folder, ExitStack() as exits:
        place = Path(folder) / "stack"
        prepare(place)
        home = furnished(place, _days(0, options), TRAINING_DAYS)
        app = App(home.settings)
        exits.callback(app.store.close)
        app.score(until=home.last)
        stack = exits.enter_context(Stack(home.folder, PROJECT, _progress))
        for day in range(2 * repetitions + 2):
            until = home.last + timedelta(day + 1)
            app.ingest(_days(day + 1, options), after=until - timedelta(1), until=until)
            if day % 2:
                began = time.perf_counter()
                app.score(until=until)
                alone.append(time.perf_counter() - began)
            else:
                runs.append(_deployed(stack, app, until))
                _progress(f"{runs[-1].bookings:,} bookings: {runs[-1].ended:.1f} s")
    # The first of each reads from a cold disk, and nobody waits for it.
    runs, alone = runs[1:], alone[1:]
    figures = (
        Figure.of("batch as a deployed flow run, from its creation to its end", [r.ended for r in runs], "s"),
        Figure.of("of it, until the flow's first line", [r.begun for r in runs], "s"),
        Figure.of("of it, until the scores are written", [r.scored - r.begun for r in runs], "s"),
        Figure.of("of it, until they are served", [r.served - r.scored for r in runs], "s"),
        Figure.of("of it, checks, guards and report", [r.ended - r.served for r in runs], "s"),
        Figure.of("the same use case in a process that has all loaded", alone, "s"),
    )
    counts = sorted(r.bookings for r in runs)
    return Outcome(
        figures,
        beside="the score use case on the next day's bookings, in a process that has scored before",
        input=f"{counts[0]:,} to {counts[-1]:,} bookings of a day, {_days(0, options).name}",
        repetitions=repetitions,
    )


def _days(more: int, options: Options) -> Simulator:
    return Simulator(START, TRAINING_DAYS + 30 + more, options.seed, scale=SCALE)


def _deployed(stack: Stack, app: App, until: date) -> Run:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments.deployed import deployed

    with temporary_settings({PREFECT_API_URL: stack.prefect_api}), deployed(stack.check) as server:
        done = server.run("score", until=until)
    assert done.created is not None and done.start_time is not None and done.end_time is not None, "it has ended"
    with app.store.connection() as connection:
        of_day = tables.reservations.c.booked_on == until
        scored = tables.predictions.join(tables.reservations).join(tables.servings)
        written, served, count = connection.execute(
            select(func.max(tables.predictions.c.scored_at), func.max(tables.servings.c.served_at), func.count())
            .select_from(scored)
            .where(of_day)
        ).one()
    if not count:
        raise NotEnoughData(f"the run {done.name} scored no booking of {until}")

    created = done.created
    assert created is not None, "a run that has ended was created"

    def after(moment: datetime) -> float:
        return moment.timestamp() - created.timestamp()

    return Run(count, after(done.start_time), after(written), after(served), after(done.end_time))


def _progress(line: str) -> None:
    """Minutes pass here: what happens goes to standard error, the figures to standard output."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(run("batch", "Times a batch of some thousand bookings as a deployed flow run.", measure))
