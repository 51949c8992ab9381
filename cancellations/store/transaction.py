"""One transaction on either database.

Reads see what is committed when they run, on both. The first write makes this the only writer on
SQLite (BEGIN IMMEDIATE, waiting for its turn), so a reader never waits and a writer never finds
that its snapshot went stale; on PostgreSQL rows are locked as they are written. Whatever must not
race is therefore decided by the write itself: a unique key, or a condition in its WHERE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

from cancellations.store.engine import translated


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

    def _read(self, statement: Executable) -> CursorResult[Any]:
        with translated(self._connection.engine.url):
            return self._connection.execute(statement)

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

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)
