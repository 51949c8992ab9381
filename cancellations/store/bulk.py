"""Frames in and out of the database, many rows at a time.

Rows go through a temporary table, filled in the fastest way that each driver has; from there plain
SQL compares and moves them. On the way back each column is made at once, with its canonical type.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd
import psycopg
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
    Select,
    Table,
    Text,
    func,
    literal,
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
                    cells = (_arrow_values(*one) for one in zip(zip(*rows, strict=True), kinds, strict=True))
                    self._copy(table, dict(zip(table.columns.keys(), cells, strict=True)))
            yield table

    def _add(self, table: Table, columns: Sequence[Column[Any]], rows: pd.DataFrame, fixed: Mapping[str, Any]) -> int:
        """Inserts rows with the `columns` of a frame, and the same `fixed` values in the others; what is there already
        stays. Returns how many were new."""
        self._lock()
        add = self._insert_new if self._sqlite else self._copy_new
        with translated(self._connection.engine.url):
            parts = (rows.iloc[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
            return sum(add(table, columns, part, fixed) for part in parts)

    def _insert_new(
        self, table: Table, columns: Sequence[Column[Any]], part: pd.DataFrame, fixed: Mapping[str, Any]
    ) -> int:
        names = ", ".join([*(c.name for c in columns), *fixed])
        places = ", ".join("?" * (len(columns) + len(fixed)))
        same = (repeat(self._bound(table.c[name], value), len(part)) for name, value in fixed.items())
        rows = list(zip(*(_cells(part[c.name], c.type) for c in columns), *same, strict=True))
        insert = f"INSERT INTO {table.name} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING"
        return self._connection.exec_driver_sql(insert, rows).rowcount

    def _copy_new(
        self, table: Table, columns: Sequence[Column[Any]], part: pd.DataFrame, fixed: Mapping[str, Any]
    ) -> int:
        # One order for everybody: two writers wait for each other instead of deadlocking.
        part, names = part.sort_values("reservation_id"), [*(c.name for c in columns), *fixed]
        try:
            with self._connection.begin_nested():
                same = (pa.repeat(str(self._bound(table.c[name], value)), len(part)) for name, value in fixed.items())
                cells = [_arrow(part[c.name], c.type) for c in columns]
                self._copy(table, dict(zip(names, [*cells, *same], strict=True)))
            return len(part)
        except psycopg.errors.UniqueViolation:
            # Somebody else was faster with some: only a table beside can tell which.
            with self._staged(columns, part) as staged:
                values = [*staged.columns, *(literal(value, table.c[name].type) for name, value in fixed.items())]
                new = select(*values).order_by(staged.c.reservation_id)
                return self._write(self._insert(table).from_select(names, new).on_conflict_do_nothing())

    def _bound(self, column: Column[Any], value: Any) -> Any:
        """A value as the driver takes it."""
        dialect = self._connection.dialect
        process = column.type.dialect_impl(dialect).bind_processor(dialect)
        return value if process is None else process(value)

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

    def _frame(self, query: Select[Any], columns: Sequence[ColumnElement[Any]]) -> pd.DataFrame:
        """What `frame` gives of a SELECT of `raw(columns)` with many rows: dates, numbers and texts.

        The rows come as lines of CSV, so that no value becomes an object before it is in its column: half the time.
        """
        if self._sqlite:
            # A fraction would lose its last bits on the way through a text.
            asked = list(zip(columns, query.selected_columns, strict=True))
            apart = [(c, value) for c, value in asked if isinstance(c.type, Double)]
            spelt = [(c, value) for c, value in asked if not isinstance(c.type, Double)]
            form = ",".join("%s" if isinstance(c.type, Date | Integer) else "%Q" for c, _ in spelt)
            line = func.printf(form, *(value for _, value in spelt))
            lines = query.with_only_columns(line, *(value for _, value in apart), maintain_column_froms=True)
            cursor = self._read(lines).cursor
            assert cursor is not None, "a SELECT has rows"
            text, *fractions = list(zip(*cursor.fetchall(), strict=True)) or [()] * (1 + len(apart))
            found = _parsed("\n".join(text).encode(), [c for c, _ in spelt], "'", ["", "NULL"])
            found |= {c.name: _told(pa.array(n, pa.float64())) for (c, _), n in zip(apart, fractions, strict=True)}
        else:
            compiled = query.compile(dialect=self._connection.dialect, compile_kwargs={"render_postcompile": True})
            driver: Any = self._connection.connection.driver_connection
            out = f"COPY ({compiled}) TO STDOUT (FORMAT CSV)"
            given = compiled.params
            with translated(self._connection.engine.url), driver.cursor() as cursor, cursor.copy(out, given) as copy:
                found = _parsed(b"".join(copy), columns, '"', [""])
        return pd.DataFrame({c.name: found[c.name] for c in columns})

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
        self._copy(table, {c.name: _arrow(part[c.name], c.type) if c.name in part else nothing for c in table.columns})

    def _copy(self, table: Table, cells: Mapping[str, pa.Array]) -> None:
        text = io.BytesIO()
        # Arrow quotes texts and leaves what is missing empty: PostgreSQL's CSV tells "" from NULL so, too.
        pyarrow.csv.write_csv(pa.table(dict(cells)), text, pyarrow.csv.WriteOptions(include_header=False))
        driver: Any = self._connection.connection.driver_connection
        into = f"COPY {table.name} ({', '.join(cells)}) FROM STDIN (FORMAT CSV)"
        with driver.cursor() as cursor, cursor.copy(into) as copy:
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
    """A column as SQLite's driver takes it: what is missing as None, or as NaN, which it stores as NULL."""
    if isinstance(kind, Date):
        missing = values.isna().to_numpy()
        cells = np.datetime_as_string(pd.to_datetime(values).to_numpy().astype("datetime64[D]")).astype(object)
        cells[missing] = None
        return cells.tolist()
    if isinstance(kind, Integer):
        numbers = values.to_numpy(dtype="float64")
        missing = np.isnan(numbers)
        cells = np.where(missing, 0, numbers).astype("int64").astype(object)
        cells[missing] = None
        return cells.tolist()
    if isinstance(kind, Double):
        return values.to_numpy(dtype="float64").tolist()
    return values.astype(object).tolist()


def raw(columns: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """Columns for a SELECT whose rows go to `frame`: dates are left as the driver gives them,
    because numpy reads a whole column of them faster than SQLAlchemy each one."""
    return [type_coerce(c, Text).label(c.name) if isinstance(c.type, Date) else c for c in columns]


def frame(result: CursorResult[Any], columns: Sequence[ColumnElement[Any]]) -> pd.DataFrame:
    """All rows of a SELECT of `columns`: dates `datetime64[us]`, numbers `float64`, text `str`,
    instants `datetime64[us, UTC]`."""
    cursor = result.cursor
    assert cursor is not None, "a SELECT has rows"
    # The driver's tuples as they are: SQLAlchemy would make an object of each row.
    rows = cursor.fetchall()
    cells = zip(*rows, strict=True) if rows else [()] * len(columns)
    return pd.DataFrame({c.name: _series(values, c.type) for c, values in zip(columns, cells, strict=True)})


def _parsed(
    lines: bytes, columns: Sequence[ColumnElement[Any]], quote: str, missing: Sequence[str]
) -> dict[str, pd.Series]:
    """Columns of lines of CSV; texts are only missing where they stand without quotes."""
    kinds = {c.name: _arrow_kind(c.type) for c in columns}
    if not lines:
        return {name: _told(pa.array([], kind)) for name, kind in kinds.items()}
    read = pyarrow.csv.read_csv(
        pa.BufferReader(lines),
        pyarrow.csv.ReadOptions(column_names=list(kinds), use_threads=False),
        pyarrow.csv.ParseOptions(quote_char=quote, newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            column_types=kinds, null_values=missing, strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    return {name: _told(read[name]) for name in kinds}


def _series(values: Sequence[Any], kind: TypeEngine[Any]) -> pd.Series:
    if isinstance(kind, Instant | DateTime):
        return pd.Series(pd.to_datetime(pd.Series(values, dtype=object), utc=True).astype("datetime64[us, UTC]"))
    if isinstance(kind, Date):
        # Text on SQLite, dates on PostgreSQL.
        return _told(pa.array(values).cast(pa.date32()))
    if isinstance(kind, Boolean):
        # 0 and 1 on SQLite.
        return pd.Series([bool(value) for value in values], dtype=bool)
    return _told(pa.array(values, _arrow_kind(kind)))


def _arrow_kind(kind: TypeEngine[Any]) -> pa.DataType:
    if isinstance(kind, Date):
        return pa.date32()
    return pa.float64() if isinstance(kind, Integer | Double) else pa.string()


def _told(values: pa.Array | pa.ChunkedArray) -> pd.Series:
    """A column as a frame of ours has it."""
    if pa.types.is_date(values.type):
        return values.cast(pa.timestamp("us")).to_pandas()
    if pa.types.is_floating(values.type):
        return pd.Series(values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy())
    return pd.Series(values.to_pandas(), dtype="str")
