"""Moving the rows that scoring moves, without a model: by the database's driver alone, and as one would in a notebook.

Each function scores or moves the bookings made in a span of days and returns how many. They write what the score use
case writes, a row of features and one of the prediction for each booking, into the same tables with their keys.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date
from operator import itemgetter
from pathlib import Path

import pandas as pd
import psycopg
from sqlalchemy import create_engine

from cancellations.bootstrap import clock
from cancellations.domain.features import CATEGORICAL, NUMERIC, build, past_of
from cancellations.domain.labels import LabelRule
from cancellations.domain.reservation import CATEGORIES, DATES, NUMBERS

VERSION = "bare"
# A feature is written for each: those that a booking does not bring are as wide as its price.
_VALUES = [name if name in (*NUMBERS, "group_size", *CATEGORIES) else "price" for name in (*NUMERIC, *CATEGORICAL)]
_GIVEN = ", ".join([*NUMERIC, *CATEGORICAL])
_PREDICTION = "reservation_id, model_version, probability, scored_as_of, scored_at"


def by_sqlite(database: Path, after: date, until: date, chunk: int) -> int:
    """Rows by `fetchall`, back by `executemany`, in transactions of `chunk` rows."""
    now, day, written = clock().isoformat(), until.isoformat(), 0
    with closing(sqlite3.connect(database, isolation_level=None)) as connection, closing(connection.cursor()) as reader:
        # As the product has it, and PostgreSQL always.
        connection.execute("PRAGMA foreign_keys = ON")
        reader.execute(
            "SELECT * FROM reservations WHERE booked_on > ? AND booked_on <= ? ORDER BY booked_on, reservation_id",
            (after.isoformat(), day),
        )
        names = [column[0] for column in reader.description]
        ids, values = itemgetter(names.index("reservation_id")), itemgetter(*map(names.index, _VALUES))
        features = (
            f"INSERT INTO features (reservation_id, stored_at, {_GIVEN}) VALUES (?, '{now}'{', ?' * len(_VALUES)})"
        )
        prediction = f"INSERT INTO predictions ({_PREDICTION}) VALUES (?, '{VERSION}', ?, '{day}', '{now}')"
        while rows := reader.fetchmany(chunk):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(features, [(ids(row), *values(row)) for row in rows])
            connection.executemany(prediction, [(ids(row), 0.5) for row in rows])
            connection.execute("COMMIT")
            written += len(rows)
    return written


def by_copy(url: str, after: date, until: date) -> int:
    """COPY out and COPY in, each in one go."""
    span = f"FROM reservations WHERE booked_on > '{after}' AND booked_on <= '{until}'"
    now = clock().isoformat()
    features = f"SELECT reservation_id, '{now}', {', '.join(_VALUES)} {span}"
    predictions = f"SELECT reservation_id, '{VERSION}', 0.5, '{until}', '{now}' {span}"
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for query, into in (
            (features, f"features (reservation_id, stored_at, {_GIVEN})"),
            (predictions, f"predictions ({_PREDICTION})"),
        ):
            with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT CSV)") as out:
                text = b"".join(out)
            with cursor.copy(f"COPY {into} FROM STDIN (FORMAT CSV)") as back:
                back.write(text)
        return cursor.rowcount


def as_in_a_notebook(url: str, model: str, after: date, until: date, rule: LabelRule) -> int:
    """`read_sql`, features by the product's own function, `mlflow.pyfunc`, `to_sql`; `model`: address of a version."""
    import mlflow

    engine = create_engine(url)
    with engine.begin() as connection:
        known = pd.read_sql(
            "SELECT r.*, o.status, o.known_on FROM reservations r LEFT JOIN outcomes o USING (reservation_id)"
            f" WHERE r.booked_on <= '{until}'",
            connection,
            parse_dates=[*DATES, "known_on"],
        )
        new = known[known["booked_on"] > pd.Timestamp(after)]
        features = build(new, past_of(known), rule)
        # MLflow takes no NaN for a text.
        told = {name: features[name].where(features[name].notna(), None) for name in CATEGORICAL}
        probability = mlflow.pyfunc.load_model(model).predict(features.assign(**told))[:, 1]
        stored = features.assign(reservation_id=new["reservation_id"], stored_at=clock())
        stored.to_sql("features", connection, if_exists="append", index=False)
        scored = pd.DataFrame({"reservation_id": new["reservation_id"], "model_version": VERSION})
        scored = scored.assign(probability=probability, scored_as_of=until, scored_at=clock())
        scored.to_sql("predictions", connection, if_exists="append", index=False)
    engine.dispose()
    return len(new)
