"""How fast reservations are scored, and in how much memory, on SQLite and on PostgreSQL.

The product's side is the score use case as the flow runs it, with all that is in it: bookings read, features built from
the past, champion loaded and asked, features and predictions written, scores served. Beside it, interleaved, the same
bookings read and as many rows of the same width written back by the database's driver alone, and the way that one takes
in a notebook; that one is measured on fewer bookings, told by the second, for each takes it as long. Without the checks
before scoring, which look at the bookings of the last four weeks alone and learn once a day. Every measurement starts
on a fresh copy of one database.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import mlflow
from threadpoolctl import threadpool_limits

from benchmarks import moving
from benchmarks.figures import Figure, Options, Outcome, Table, peak_memory, run
from benchmarks.homes import Home, challenge, copied, furnished, postgres
from benchmarks.shares import Shares
from cancellations.bootstrap import App, clock
from cancellations.errors import BadInput, NotEnoughData
from cancellations.replay.workers import workers
from cancellations.settings import MODEL
from cancellations.sources.simulator import Simulator
from cancellations.usecases.score import score

START = date(2015, 10, 5)
# A chain of sixteen hotels with some 1,300 bookings a day; the champion learns from the first months.
SCALE, TRAINING_DAYS, QUICK_TRAINING_DAYS = 8.0, 120, 60
BOOKINGS_A_DAY = 1_300

# Whatever a model needs: moving the rows should remain most of the work.
REACH_MOVED = 0.7
REACH_NOTEBOOK = 2
# Features are built once, the second version asks for them.
REACH_BOTH = 1.7
# In pages: a batch of any size takes the memory of a page.
REACH_GROWTH = 1.1
# Beside a Prefect server, an MLflow server and a worker on a laptop of 8 GiB.
REACH_MEMORY = 1_024


@dataclass(frozen=True)
class Sizes:
    """How many bookings are scored, in a notebook and for the two measurements of memory; how often."""

    scored: int
    notebook: int
    few: int
    many: int
    training_days: int
    repetitions: int

    @property
    def days(self) -> int:
        """So many that enough bookings wait."""
        return self.training_days + int(self.scored / BOOKINGS_A_DAY * 1.2) + 10


FULL = Sizes(1_000_000, 200_000, 500_000, 2_000_000, TRAINING_DAYS, 3)
QUICK = Sizes(60_000, 10_000, 50_000, 100_000, QUICK_TRAINING_DAYS, 2)

# Scores or moves the bookings that wait up to a day, and returns how many.
Arm = Callable[[Home, date], int]


def measure(options: Options) -> Outcome:
    if options.data is not None:
        raise BadInput("--data: this benchmark needs more bookings than there are; they are simulated, leave it out")
    sizes = QUICK if options.quick else FULL
    figures: list[Figure] = []
    tables: list[Table] = []
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="cancellations-scoring-")))
        source = Simulator(START, sizes.days, options.seed, scale=SCALE)
        home = furnished(folder / "sqlite", source, sizes.training_days)
        scored = _compare("SQLite", home, sizes, figures, tables)
        url = exits.enter_context(postgres())
        if url is not None:
            served = furnished(folder / "postgresql", source, sizes.training_days, url)
            _compare("PostgreSQL", served, sizes, figures, tables)
        figures += _memory(home, sizes, options)
    return Outcome(
        tuple(figures),
        beside="the same bookings read and rows of the same width written by the driver alone (fetchmany and"
        " executemany, COPY out and in), and read_sql, features, mlflow.pyfunc, to_sql",
        input=f"{scored:,} reservations scored by {threads()} thread(s), champion trained as of {home.trained_as_of},"
        f" {source.name}",
        repetitions=sizes.repetitions,
        tables=tuple(tables),
    )


def _compare(name: str, home: Home, sizes: Sizes, figures: list[Figure], tables: list[Table]) -> int:
    """Measures all arms on one database, a repetition after the other; returns how many bookings were scored."""
    until, count = home.day_of(sizes.scored)
    notebook_until, notebook_count = home.day_of(sizes.notebook)
    # Whatever a process does once, imports and the model's first answers, is done before.
    _timed(_score, home, home.day_of(2_000)[0])
    _timed(_notebook, home, home.day_of(2_000)[0])
    seconds: dict[Arm, list[float]] = defaultdict(list)
    arms: list[Arm] = [_score, _both, _copy if home.url else _driver, _notebook]
    for repetition in range(sizes.repetitions):
        # Who goes first changes, so that none always finds the warmer disk cache.
        for arm in arms[repetition:] + arms[:repetition]:
            last, expected = (notebook_until, notebook_count) if arm is _notebook else (until, count)
            taken, rows = _timed(arm, home, last)
            if rows != expected:
                raise NotEnoughData(f"{arm.__name__} on {name} moved {rows:,} bookings in place of {expected:,}")
            seconds[arm].append(taken)
            sys.stderr.write(f"{name}: {arm.__name__} {taken:.1f} s\n")
    ours, both, bare, notebook = (seconds[arm] for arm in arms)
    each = [(count / a) / (notebook_count / b) for a, b in zip(ours, notebook, strict=True)]
    moved = "COPY out and in" if home.url else "bare read and bulk write"
    figures += [
        Figure.of(f"{name}: rows/s of scoring / of {moved}", _ratios(bare, ours), "ratio", at_least=REACH_MOVED),
        Figure.of(f"{name}: rows/s of scoring / of read_sql, pyfunc, to_sql", each, "ratio", at_least=REACH_NOTEBOOK),
        Figure.of(
            f"{name}: champion and challenger / champion alone", _ratios(both, ours), "ratio", at_most=REACH_BOTH
        ),
        Figure.of(f"{name}: scoring", [count / s for s in ours], "rows/s"),
        Figure.of(f"{name}: {moved}", [count / s for s in bare], "rows/s"),
        Figure.of(f"{name}: read_sql, pyfunc, to_sql", [notebook_count / s for s in notebook], "rows/s"),
    ]
    tables.append(_shares(name, home, until))
    return count


def _ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def threads() -> int:
    """As many as the embedded stack gives each of its processes."""
    return max(1, (os.cpu_count() or 1) // 2)


def _timed(arm: Arm, home: Home, until: date) -> tuple[float, int]:
    """Seconds that an arm takes on a fresh copy of the database, and the bookings that it moved."""
    with copied(home) as copy, threadpool_limits(threads()):
        if arm is _both:
            challenge(copy)
        began = time.perf_counter()
        rows = arm(copy, until)
        return time.perf_counter() - began, rows


def _score(home: Home, until: date) -> int:
    app = App(home.settings)
    scored = app.score(after=home.trained_as_of, until=until)
    app.store.close()
    return scored.rows[scored.champion]


def _both(home: Home, until: date) -> int:
    app = App(home.settings)
    scored = app.score(after=home.trained_as_of, until=until)
    app.store.close()
    counts = set(scored.rows.values())
    return counts.pop() if len(counts) == 1 and len(scored.rows) == 2 else -1


def _driver(home: Home, until: date) -> int:
    return moving.by_sqlite(home.database, home.trained_as_of, until, home.settings.chunk_rows)


def _copy(home: Home, until: date) -> int:
    return moving.by_copy(home.driver_url, home.trained_as_of, until)


def _notebook(home: Home, until: date) -> int:
    known = home.settings
    mlflow.set_tracking_uri(known.tracking_uri)
    # The first version of a new registry.
    return moving.as_in_a_notebook(known.store_url, f"models:/{MODEL}/1", home.trained_as_of, until, known.labels)


def _shares(name: str, home: Home, until: date) -> Table:
    """One more run, each call of store and model timed."""
    with copied(home) as copy, threadpool_limits(threads()):
        app = App(copy.settings)
        shares = Shares(app.store, app.registry)
        began = time.perf_counter()
        score(
            shares.store,
            shares.registry,
            after=home.trained_as_of,
            until=until,
            rule=copy.settings.labels,
            chunk_rows=copy.settings.chunk_rows,
            clock=clock,
        )
        total = time.perf_counter() - began
        app.store.close()
    rows = tuple((part, f"{share:.0%}") for part, share in shares.of(total).items())
    return Table(f"{name}: where the {total:.1f} s of a batch go", ("part", "share"), rows)


def _memory(home: Home, sizes: Sizes, options: Options) -> list[Figure]:
    """Peaks of two processes that only score; this one has trained, too."""
    days = sizes.days + int((sizes.many - sizes.scored) / BOOKINGS_A_DAY * 1.2)
    app = App(home.settings)
    app.ingest(Simulator(START, days, options.seed, scale=SCALE), until=date.max)
    app.store.close()
    grown = Home(home.folder, home.trained_as_of, date.max)
    peaks = []
    for wanted in (sizes.few, sizes.many):
        until, _ = grown.day_of(wanted)
        with workers(1) as pool:
            peak = pool.submit(_score_once, grown, until).result()
        if peak is None:
            return []
        peaks.append(peak)
    few, many = peaks
    return [
        Figure.of(
            f"peak memory at {sizes.many:,} reservations / at {sizes.few:,}",
            [many / few],
            "ratio",
            at_most=REACH_GROWTH,
        ),
        Figure.of(f"peak memory at {sizes.many:,} reservations", [many], "MiB", at_most=REACH_MEMORY),
    ]


def _score_once(home: Home, until: date) -> float | None:
    _timed(_score, home, until)
    return peak_memory()


if __name__ == "__main__":
    sys.exit(run("scoring", "Times the score use case beside moving the same rows without a model.", measure))
