"""One transaction on either database.

Reads see what is committed when they run, on both. The first write makes this the only writer on
SQLite (BEGIN IMMEDIATE, waiting for its turn), so a reader never waits and a writer never finds
that its snapshot went stale; on PostgreSQL rows are locked as they are written. Whatever must not
race is therefore decided by the write itself: a unique key, or a condition in its WHERE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    CursorResult,
    Date,
    Executable,
    Integer,
    Table,
    Text,
    and_,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite

from cancellations.domain.labels import Ending, Matures
from cancellations.domain.reservation import LONGEST_STAY
from cancellations.store import tables
from cancellations.store.engine import translated

Value = TypeVar("Value")

# SQLite takes at most 32,766 parameters in one statement.
AT_ONCE = 10_000


def in_parts(values: Sequence[Value]) -> list[Sequence[Value]]:
    """Values in parts that fit into one statement; none for none."""
    return [values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE)]


class Transaction:
    """What every part of the unit of work stands on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._writing = False

    def commit(self) -> None:
        with translated(self._connection.engine.url):
            self._connection.commit()
        self._writing = False

    def _read(self, statement: Executable, given: Mapping[str, Any] | None = None) -> CursorResult[Any]:
        with translated(self._connection.engine.url):
            return self._connection.execute(statement, given)

    def _write(self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None) -> int:
        """Runs a statement, once or for each of `rows`; returns how many rows it touched."""
        self._lock()
        with translated(self._connection.engine.url):
            # SQLAlchemy forgets how many rows an INSERT wrote unless it is asked to keep it.
            kept = {"preserve_rowcount": True}
            return self._connection.execute(statement, rows, execution_options=kept).rowcount

    def _lock(self) -> None:
        if self._sqlite and not self._writing:
            with translated(self._connection.engine.url):
                self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        self._writing = True

    def _lock_table(self, table: Table) -> None:
        """Lets one transaction at a time write to a table; others read it, and may refer to its rows."""
        self._lock()
        if not self._sqlite:
            with translated(self._connection.engine.url):
                self._connection.exec_driver_sql(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE")

    def _ending(self, ending: Ending) -> ColumnElement[bool]:
        """The reservations that do so."""
        booking, after, until = tables.reservations.c, ending.after, ending.until
        checks_out = ending.by is Matures.CHECK_OUT
        begins = [booking.arrival_on > after - timedelta(days=LONGEST_STAY if checks_out else 0)]
        if until is not None:
            begins.append(booking.arrival_on <= until)
        if not checks_out:
            return and_(*begins)
        nights = booking.weekend_nights + booking.week_nights
        ends = [nights > self._days(booking.arrival_on, literal(after, Date))]
        if until is not None:
            ends.append(nights <= self._days(booking.arrival_on, literal(until, Date)))
        return and_(*begins, *ends)

    def _days(self, start: ColumnElement[date], end: ColumnElement[date]) -> ColumnElement[int]:
        """Days from one date to another, NULL if either is."""
        if self._sqlite:
            return cast(func.julianday(end) - func.julianday(start), Integer)
        return type_coerce(end - start, Integer)

    def _whole(self, number: ColumnElement[float]) -> ColumnElement[int]:
        """A number without what stands behind its point."""
        # PostgreSQL rounds where SQLite cuts off, and SQLite may lack the function that cuts off.
        return cast(number if self._sqlite else func.trunc(number), BigInteger)

    def _among(self, column: ColumnElement[str], values: Sequence[str]) -> ColumnElement[bool]:
        """Whether a text is one of `values`: however many, they are one parameter."""
        if self._sqlite:
            return column.in_(select(func.json_each(json.dumps(list(values))).table_valued("value").c.value))
        return column == func.any(literal(list(values), postgresql.ARRAY(Text)))

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)
