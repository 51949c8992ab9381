"""What a score costs beside moving the same rows without a model.

The score use case, from the reservations in the store to the predictions in it: history read,
features built, champion loaded and asked, rows written. Beside it a bare read of the same
reservations and a bare write of as many predictions, by the database driver alone, in chunks and
transactions of the same size. Without the checks before it, which look at the bookings of the last four weeks alone and
learn once a day. Every repetition of either starts on a fresh copy of one database.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from threadpoolctl import threadpool_limits

from benchmarks.figures import Figure, Options, Outcome, peak_memory, run
from cancellations import settings
from cancellations.bootstrap import App, clock, prepare
from cancellations.domain.checks import CheckPolicy
from cancellations.domain.retraining import RequestState
from cancellations.errors import NotEnoughData
from cancellations.ports import Source
from cancellations.settings import Settings
from cancellations.sources.mapped import open_table
from cancellations.sources.simulator import Simulator

START = date(2015, 10, 5)
DAYS, QUICK_DAYS = 1_200, 500
REPETITIONS, QUICK_REPETITIONS = 9, 5
# The champion learns from the first part of the days; what it scores was booked after.
TRAINING_SHARE = 0.4

# Whatever a model needs, moving the rows should stay within reach of it: beyond this something is
# done row by row.
REACH_RATIO = 12
# A month of the public file's bookings in a second.
REACH_ROWS = 5_000
# Beside a Prefect server, an MLflow server and a worker on a laptop of 8 GiB.
REACH_MEMORY = 1_500


@dataclass(frozen=True)
class Prepared:
    """A home with a champion and reservations that wait for their score."""

    home: Path
    trained_as_of: date
    last: date

    def settings(self, database: Path) -> Settings:
        return settings.load(
            home=self.home,
            database_url=f"sqlite:///{database}",
            mlflow_tracking_uri="",
            mlflow_artifacts="",
            checks=CheckPolicy(hold=False),
        )


def measure(options: Options) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="cancellations-scoring-") as folder:
        prepared, told = _prepare(Path(folder), options)
        ours: list[float] = []
        bare: list[float] = []
        rows = 0
        for repetition in range(QUICK_REPETITIONS if options.quick else REPETITIONS):
            arms = [(ours, _score), (bare, _bare)]
            counts = set()
            # Who goes first changes, so that neither always finds the warmer disk cache.
            for seconds, arm in arms if repetition % 2 else reversed(arms):
                taken, written = _timed(arm, prepared)
                seconds.append(taken)
                counts.add(written)
            if len(counts) != 1:
                raise NotEnoughData(f"the two sides wrote different numbers of rows: {sorted(counts)}")
            rows = counts.pop()
        peak = _peak(prepared)
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    figures = [
        Figure.of("score / bare read and write", ratios, "ratio", at_most=REACH_RATIO),
        Figure.of("score", [rows / s for s in ours], "rows/s", at_least=REACH_ROWS),
        Figure.of("bare read and write", [rows / s for s in bare], "rows/s"),
    ]
    if peak is not None:
        figures.append(Figure.of("peak memory of a process that scores, once", [peak], "MiB", at_most=REACH_MEMORY))
    return Outcome(
        tuple(figures),
        beside="a bare read and write of the same rows by the SQLite driver, same chunks, no model",
        input=f"{rows:,} reservations scored by {threads()} thread(s), {told}",
        repetitions=len(ours),
    )


def _prepare(home: Path, options: Options) -> tuple[Prepared, str]:
    source: Source
    if options.data is not None:
        source = open_table(options.data)
    else:
        source = Simulator(START, QUICK_DAYS if options.quick else DAYS, options.seed)
    known = settings.load(home=home, database_url="", mlflow_tracking_uri="", mlflow_artifacts="")
    prepare(known)
    app = App(known)
    app.ingest(source, until=date.max)
    with app.store.begin() as work:
        span = work.booked_span()
    if span is None:
        raise NotEnoughData(f"{source.name} holds no reservation that keeps the rules")
    trained_as_of = span[0] + timedelta(days=int((span[1] - span[0]).days * TRAINING_SHARE))
    request = app.retrain(app.request_training(trained_as_of, "benchmark").request_id)
    if request.state is not RequestState.CANDIDATE:
        raise NotEnoughData(f"no champion as of {trained_as_of}: {'; '.join(request.detail)}")
    app.store.close()
    return Prepared(home, trained_as_of, span[1]), f"champion trained as of {trained_as_of}, {source.name}"


def threads() -> int:
    """As many as the embedded stack gives each of its processes."""
    return max(1, (os.cpu_count() or 1) // 2)


def _timed(arm: Callable[[Prepared, Path], int], prepared: Prepared) -> tuple[float, int]:
    """Seconds that an arm takes on a fresh copy of the database, and the rows that it wrote."""
    copy = prepared.home / "copy.db"
    shutil.copy(prepared.home / "cancellations.db", copy)
    try:
        began = time.perf_counter()
        written = arm(prepared, copy)
        return time.perf_counter() - began, written
    finally:
        for path in prepared.home.glob("copy.db*"):
            path.unlink()


def _score(prepared: Prepared, database: Path) -> int:
    app = App(prepared.settings(database))
    with threadpool_limits(threads()):
        scored = app.score(after=prepared.trained_as_of, until=prepared.last)
    app.store.close()
    return scored.rows[scored.champion]


def _bare(prepared: Prepared, database: Path) -> int:
    chunk = prepared.settings(database).chunk_rows
    written = 0
    with closing(sqlite3.connect(database, isolation_level=None)) as connection, closing(connection.cursor()) as reader:
        reader.execute("SELECT * FROM reservations WHERE booked_on > ?", (prepared.trained_as_of.isoformat(),))
        place = [column[0] for column in reader.description].index("reservation_id")
        rows = reader.fetchall()
        for start in range(0, len(rows), chunk):
            now = clock().isoformat()
            day = prepared.last.isoformat()
            predictions = [(row[place], "bare", 0.5, day, now) for row in rows[start : start + chunk]]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO predictions (reservation_id, model_version, probability, scored_as_of, scored_at)"
                " VALUES (?, ?, ?, ?, ?)",
                predictions,
            )
            connection.execute("COMMIT")
            written += len(predictions)
    return written


def _peak(prepared: Prepared) -> float | None:
    """Peak memory of a process that only scores; this one has trained, too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_score_once, prepared).result()


def _score_once(prepared: Prepared) -> float | None:
    _timed(_score, prepared)
    return peak_memory()


if __name__ == "__main__":
    sys.exit(run("scoring", "Times the score use case beside a bare read and write of the same rows.", measure))
