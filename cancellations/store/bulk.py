"""Frames in and out of the database, many rows at a time.

Rows go through a temporary table, filled in the fastest way that each driver has; from there plain
SQL compares and moves them. On the way back each column is made at once, with its canonical type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Column, ColumnElement, CursorResult, Date, Double, Integer, MetaData, Table, Text, type_coerce
from sqlalchemy.types import TypeEngine

from cancellations.store.engine import translated
from cancellations.store.tables import Instant
from cancellations.store.transaction import Transaction

# Rows turned into Python objects at a time: bounds memory, costs no speed.
CHUNK = 50_000


class BulkTransaction(Transaction):
    """A transaction that can take a frame as a table."""

    @contextmanager
    def _staged(self, columns: Sequence[Column[Any]], frame: pd.DataFrame) -> Iterator[Table]:
        """A temporary table with the rows of `frame`, for as long as the block lasts."""
        self._lock()
        table = Table("staged", MetaData(), *(Column(c.name, c.type) for c in columns), prefixes=["TEMPORARY"])
        with translated(self._connection.engine.url):
            table.create(self._connection, checkfirst=False)
            for start in range(0, len(frame), CHUNK):
                part = frame.iloc[start : start + CHUNK]
                self._fill(table, list(zip(*(_cells(part[c.name], c.type) for c in columns), strict=True)))
        # After an error the rollback takes the table away.
        yield table
        with translated(self._connection.engine.url):
            table.drop(self._connection, checkfirst=False)

    def _fill(self, table: Table, rows: list[tuple[Any, ...]]) -> None:
        if self._sqlite:
            places = ", ".join("?" * len(table.columns))
            self._connection.exec_driver_sql(f"INSERT INTO {table.name} VALUES ({places})", rows)
            return
        driver: Any = self._connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def _cells(values: pd.Series, kind: TypeEngine[Any]) -> list[Any]:
    """A column as Python objects that both drivers take, None where it is missing."""
    missing = values.isna().to_numpy()
    if isinstance(kind, Date):
        cells = np.datetime_as_string(pd.to_datetime(values).to_numpy().astype("datetime64[D]")).astype(object)
    elif isinstance(kind, Integer):
        cells = values.astype("float64").fillna(0).to_numpy().astype("int64").astype(object)
    elif isinstance(kind, Double):
        cells = values.astype("float64").to_numpy().astype(object)
    else:
        cells = values.astype(object).to_numpy(copy=True)
    cells[missing] = None
    return cells.tolist()


def raw(columns: Sequence[Column[Any]]) -> list[ColumnElement[Any]]:
    """Columns for a SELECT whose rows go to `frame`: dates are left as the driver gives them,
    because numpy reads a whole column of them faster than SQLAlchemy each one."""
    return [type_coerce(c, Text).label(c.name) if isinstance(c.type, Date) else c for c in columns]


def frame(result: CursorResult[Any], columns: Sequence[Column[Any]]) -> pd.DataFrame:
    """All rows of a SELECT of `raw(columns)`: dates `datetime64[us]`, numbers `float64`, text `str`,
    instants `datetime64[us, UTC]`."""
    rows = result.all()
    cells = zip(*rows, strict=True) if rows else [()] * len(columns)
    return pd.DataFrame({c.name: _series(values, c.type) for c, values in zip(columns, cells, strict=True)})


def _series(values: Sequence[Any], kind: TypeEngine[Any]) -> pd.Series:
    if isinstance(kind, Date):
        return pd.Series(np.array(values, dtype="datetime64[D]").astype("datetime64[us]"))
    if isinstance(kind, Integer | Double):
        return pd.Series(np.array(values, dtype="float64"))
    if isinstance(kind, Instant):
        return pd.Series(pd.DatetimeIndex(values, dtype="datetime64[us, UTC]"))
    return pd.Series(values, dtype="str")
