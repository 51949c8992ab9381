"""How fast a table is loaded: read, judged row by row, staged, and written with its outcomes and tallies.

Beside the load, interleaved, the file read by pandas and the same reservations and outcomes put into the same tables by
the driver's `executemany`: nothing is mapped or checked there, frames of them are ready before the clock starts. Two
tables: one as large as the public file (with `--data` that file), and a Parquet of a million rows. Every load is one
into an empty store on SQLite.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.figures import Figure, Options, Outcome, run
from cancellations import settings
from cancellations.bootstrap import App, prepare
from cancellations.domain.reservation import GROUP_SIZE, NAMES, OUTCOME_NAMES, sized
from cancellations.ports import Source
from cancellations.sources.mapped import open_table
from cancellations.sources.simulator import Simulator

START = date(2015, 10, 5)
# Some 163 bookings a day, and times eight.
PUBLIC_DAYS, MANY_DAYS, SCALE = 733, 767, 8.0
QUICK_PUBLIC_DAYS, QUICK_MANY_DAYS = 120, 60
REPETITIONS, MANY_REPETITIONS, QUICK_REPETITIONS = 6, 3, 2
REACH_RATIO = 2


@dataclass(frozen=True)
class Ready:
    """A file, and what its rows mean."""

    name: str
    path: Path
    rows: int
    reservations: pd.DataFrame
    outcomes: pd.DataFrame


def measure(options: Options) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="cancellations-ingesting-") as name:
        folder = Path(name)
        repetitions, many = (QUICK_REPETITIONS,) * 2 if options.quick else (REPETITIONS, MANY_REPETITIONS)
        known = settings.load(home=folder / "empty", database_url="", mlflow_tracking_uri="", mlflow_artifacts="")
        prepare(known)
        empty = folder / "empty" / "cancellations.db"
        figures, told = [], []
        for ready, times in (
            (_public(folder, options), repetitions),
            (_many(folder, options), many),
        ):
            figures += _compare(ready, empty, times)
            told.append(f"{ready.name}: {ready.rows:,} rows")
    return Outcome(
        tuple(figures),
        beside="pandas reads the file, the driver writes the same reservations and outcomes by executemany",
        input="; ".join(told),
        repetitions=min(repetitions, many),
    )


def _public(folder: Path, options: Options) -> Ready:
    if options.data is not None:
        return _ready("public file", options.data)
    days = QUICK_PUBLIC_DAYS if options.quick else PUBLIC_DAYS
    path = folder / "hotel.csv"
    pd.concat(list(Simulator(START, days, options.seed).tables())).to_csv(path, index=False, date_format="%Y-%m-%d")
    return _ready("CSV", path)


def _many(folder: Path, options: Options) -> Ready:
    days = QUICK_MANY_DAYS if options.quick else MANY_DAYS
    path = folder / "chain.parquet"
    writer = None
    for rows in Simulator(START, days, options.seed, scale=SCALE).tables():
        table = pa.Table.from_pandas(rows, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None, "a simulator draws something"
    writer.close()
    return _ready("Parquet", path)


def _ready(name: str, path: Path) -> Ready:
    batches = list(open_table(path).batches())
    kept = [batch for batch in batches if batch.reservations is not None]
    broken = set().union(*(batch.problems["row"] for batch in kept))
    whole = pd.concat([batch.reservations for batch in kept if batch.reservations is not None])
    whole = whole[~whole.index.isin(broken)]
    outcomes = pd.concat([batch.outcomes for batch in kept])
    outcomes = outcomes[~outcomes.index.isin(broken) & outcomes["known_on"].notna()]
    return Ready(
        name,
        path,
        sum(len(batch.raw) for batch in batches),
        sized(whole)[[*NAMES, GROUP_SIZE]],
        outcomes[list(OUTCOME_NAMES)],
    )


def _tuples(frame: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    dated = frame.select_dtypes("datetime").apply(lambda days: days.dt.strftime("%Y-%m-%d"))
    # What is missing is NaN, which SQLite stores as NULL.
    return zip(*(dated.get(name, frame[name]).tolist() for name in frame), strict=True)


def _compare(ready: Ready, empty: Path, repetitions: int) -> list[Figure]:
    ours: list[float] = []
    bare: list[float] = []
    source = open_table(ready.path)
    for repetition in range(repetitions):
        arms = [(ours, _load), (bare, _bare)]
        # Who goes first changes, so that neither always finds the warmer disk cache.
        for seconds, arm in arms if repetition % 2 else reversed(arms):
            seconds.append(_timed(arm, source, ready, empty))
            sys.stderr.write(f"{ready.name}: {arm.__name__} {seconds[-1]:.1f} s\n")
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return [
        Figure.of(f"load of the {ready.name} / pandas read and bulk insert", ratios, "ratio", at_most=REACH_RATIO),
        Figure.of(f"load of the {ready.name}", [ready.rows / s for s in ours], "rows/s"),
        Figure.of(f"pandas read and bulk insert of the {ready.name}", [ready.rows / s for s in bare], "rows/s"),
    ]


def _timed(arm: Any, source: Source, ready: Ready, empty: Path) -> float:
    """Seconds that an arm takes to fill a copy of an empty store."""
    with tempfile.TemporaryDirectory(dir=empty.parent) as folder:
        database = Path(folder) / "copy.db"
        shutil.copy(empty, database)
        began = time.perf_counter()
        arm(source, ready, database)
        return time.perf_counter() - began


def _load(source: Source, ready: Ready, database: Path) -> None:
    app = App(
        settings.load(
            home=database.parent, database_url=f"sqlite:///{database}", mlflow_tracking_uri="", mlflow_artifacts=""
        )
    )
    app.ingest(source, until=date.max)
    app.store.close()


def _bare(source: Source, ready: Ready, database: Path) -> None:
    read = pd.read_csv if ready.path.suffix == ".csv" else pd.read_parquet
    read(ready.path)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, rows in (("reservations", ready.reservations), ("outcomes", ready.outcomes)):
            places = ", ".join("?" * rows.shape[1])
            connection.executemany(f"INSERT INTO {table} ({', '.join(rows)}) VALUES ({places})", _tuples(rows))
        connection.execute("COMMIT")


if __name__ == "__main__":
    sys.exit(run("ingesting", "Times a load beside a bare read and bulk insert of the same rows.", measure))
