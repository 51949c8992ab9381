"""Frames in and out of the database, many rows at a time.

Rows go through a temporary table, filled in the fastest way that each driver has; from there plain
SQL compares and moves them. On the way back each column is made at once, with its canonical type.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    CursorResult,
    Date,
    DateTime,
    Double,
    Integer,
    MetaData,
    Table,
    Text,
    select,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

from cancellations.store.engine import translated
from cancellations.store.tables import Instant
from cancellations.store.transaction import Transaction

# Rows on their way into the database at a time: bounds memory, costs no speed.
CHUNK = 50_000


class BulkTransaction(Transaction):
    """A transaction that can take a frame as a table."""

    @contextmanager
    def _staged(self, columns: Sequence[Column[Any]], frame: pd.DataFrame) -> Iterator[Table]:
        """A temporary table with the rows of `frame`, for as long as the block lasts."""
        with self._temporary("staged", columns) as table:
            fill = self._insert_rows if self._sqlite else self._copy_rows
            with translated(self._connection.engine.url):
                for start in range(0, len(frame), CHUNK):
                    fill(table, frame.iloc[start : start + CHUNK])
            yield table

    @contextmanager
    def _staged_values(self, columns: Sequence[Column[Any]], rows: Sequence[Sequence[Any]]) -> Iterator[Table]:
        """The same of rows of plain values: numbers with NaN for missing, texts and dates or None."""
        kinds = [c.type for c in columns]
        with self._temporary("staged", columns) as table:
            with translated(self._connection.engine.url):
                if self._sqlite:
                    self._insert_tuples(table, _known(rows, kinds))
                else:
                    self._copy(table, [_arrow_values(*one) for one in zip(zip(*rows, strict=True), kinds, strict=True)])
            yield table

    @contextmanager
    def _temporary(self, name: str, columns: Sequence[Column[Any]]) -> Iterator[Table]:
        """An empty table of this connection, for as long as the block lasts."""
        self._lock()
        table = _temporary(name, tuple((c.name, c.type) for c in columns))
        with translated(self._connection.engine.url):
            table.create(self._connection, checkfirst=False)
        # After an error the rollback takes the table away.
        yield table
        with translated(self._connection.engine.url):
            table.drop(self._connection, checkfirst=False)

    def _by_id(
        self, columns: Sequence[Column[Any]], reservation_ids: pd.Series, *conditions: ColumnElement[bool]
    ) -> pd.DataFrame:
        """Rows of the given bookings, indexed by the first of `columns`, the reservation_id."""
        ids = reservation_ids.dropna().astype(object).drop_duplicates().tolist()
        query = select(*raw(columns)).where(*conditions, self._among(columns[0], ids))
        return frame(self._read(query), columns).set_index("reservation_id")

    def _insert_rows(self, table: Table, part: pd.DataFrame) -> None:
        missing = pd.Series(np.nan, index=part.index)
        cells = (_cells(part.get(c.name, missing), c.type) for c in table.columns)
        self._insert_tuples(table, list(zip(*cells, strict=True)))

    def _insert_tuples(self, table: Table, rows: list[tuple[Any, ...]]) -> None:
        places = ", ".join("?" * len(table.columns))
        self._connection.exec_driver_sql(f"INSERT INTO {table.name} VALUES ({places})", rows)

    def _copy_rows(self, table: Table, part: pd.DataFrame) -> None:
        nothing = pa.nulls(len(part))
        self._copy(table, [_arrow(part[c.name], c.type) if c.name in part else nothing for c in table.columns])

    def _copy(self, table: Table, cells: Sequence[pa.Array]) -> None:
        text = io.BytesIO()
        # Arrow quotes texts and leaves what is missing empty: PostgreSQL's CSV tells "" from NULL so, too.
        pyarrow.csv.write_csv(
            pa.table(list(cells), names=[c.name for c in table.columns]),
            text,
            pyarrow.csv.WriteOptions(include_header=False),
        )
        driver: Any = self._connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} FROM STDIN (FORMAT CSV)") as copy:
            copy.write(text.getbuffer())


@cache
def _temporary(name: str, columns: tuple[tuple[str, TypeEngine[Any]], ...]) -> Table:
    # The same object each time: SQLAlchemy knows the statements that it has compiled by their tables.
    return Table(name, MetaData(), *(Column(*column) for column in columns), prefixes=["TEMPORARY"])


def _arrow(values: pd.Series, kind: TypeEngine[Any]) -> pa.Array:
    """A column as PostgreSQL reads it in CSV, null where it is missing."""
    if isinstance(kind, Date):
        return pa.array(pd.to_datetime(values), from_pandas=True).cast(pa.date32())
    if isinstance(kind, Integer):
        return pa.array(values.astype("float64"), from_pandas=True).cast(pa.int64(), safe=False)
    if isinstance(kind, Double):
        return pa.array(values.astype("float64"), from_pandas=True)
    return pa.array(values.astype("str"), pa.string(), from_pandas=True)


def _known(rows: Sequence[Sequence[Any]], kinds: Sequence[TypeEngine[Any]]) -> list[tuple[Any, ...]]:
    """Plain values as SQLite's driver takes them."""
    days = [place for place, kind in enumerate(kinds) if isinstance(kind, Date)]
    known = []
    # Row by row: their values lie apart from each other, and each is fetched once.
    for row in rows:
        told = [None if value != value else value for value in row]
        for place in days:
            if (day := told[place]) is not None:
                told[place] = day.isoformat()
        known.append(tuple(told))
    return known


def _arrow_values(values: Sequence[Any], kind: TypeEngine[Any]) -> pa.Array:
    """The same as PostgreSQL reads them in CSV."""
    if isinstance(kind, Date):
        return pa.array(values, pa.date32())
    if isinstance(kind, Integer):
        return pa.array(values, pa.float64(), from_pandas=True).cast(pa.int64(), safe=False)
    if isinstance(kind, Double):
        return pa.array(values, pa.float64(), from_pandas=True)
    return pa.array(values, pa.string())


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
    """All rows of a SELECT of `columns`: dates `datetime64[us]`, numbers `float64`, text `str`,
    instants `datetime64[us, UTC]`."""
    cursor = result.cursor
    assert cursor is not None, "a SELECT has rows"
    # The driver's tuples as they are: SQLAlchemy would make an object of each row.
    rows = cursor.fetchall()
    cells = zip(*rows, strict=True) if rows else [()] * len(columns)
    return pd.DataFrame({c.name: _series(values, c.type) for c, values in zip(columns, cells, strict=True)})


def _series(values: Sequence[Any], kind: TypeEngine[Any]) -> pd.Series:
    if isinstance(kind, Instant | DateTime):
        return pd.Series(pd.to_datetime(pd.Series(values, dtype=object), utc=True).astype("datetime64[us, UTC]"))
    if isinstance(kind, Date):
        # Text on SQLite, dates on PostgreSQL.
        days = pa.array(values).cast(pa.date32())
        return days.cast(pa.timestamp("us")).to_pandas()
    if isinstance(kind, Boolean):
        # 0 and 1 on SQLite.
        return pd.Series([bool(value) for value in values], dtype=bool)
    if isinstance(kind, Integer | Double):
        return pd.Series(pa.array(values, pa.float64()).to_numpy(zero_copy_only=False))
    return pd.Series(pa.array(values, pa.string()).to_pandas(), dtype="str")
