"""The store's front door: it opens a database of this version, and begins units of work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection

from cancellations.ports import UnitOfWork
from cancellations.store.actions import Actions
from cancellations.store.aliases import Aliases
from cancellations.store.decisions import Decisions
from cancellations.store.engine import connect, parse, translated
from cancellations.store.holds import Holds
from cancellations.store.ledger import Leases
from cancellations.store.loads import Loads
from cancellations.store.outbox import Outbox
from cancellations.store.retention import Retention
from cancellations.store.schema import require_current
from cancellations.store.scores import Scores
from cancellations.store.servings import Servings
from cancellations.store.switches import Switches


class SqlUnitOfWork(Scores, Loads, Servings, Actions, Decisions, Holds, Aliases, Leases, Retention, Outbox, Switches):
    """`ports.UnitOfWork` on one connection; see `transaction` for what it may rely on."""


class SqlStore:
    """`ports.Store` on a database. Safe to share between threads; connections are opened on demand."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine = connect(url)

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        with self.connection() as connection:
            yield SqlUnitOfWork(connection)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in a transaction of its own."""
        with translated(self._url):
            connection = self._engine.connect()
        try:
            yield connection
        finally:
            # Closing rolls back whatever was not committed; a connection that was lost cannot even do that.
            with translated(self._url):
                connection.close()

    def close(self) -> None:
        """Closes all idle connections; the store may be used again."""
        self._engine.dispose()


def open_store(url: str) -> SqlStore:
    """The store at a database address, with a schema of exactly this version.

    Raises `BadInput` when the file cannot be written, or the schema is missing, older (run
    `cancellations init`) or newer than this version knows; `ServiceDown` when PostgreSQL does not
    answer.
    """
    parsed = parse(url)
    require_current(parsed)
    return SqlStore(parsed)
