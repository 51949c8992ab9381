"""Connections to the two databases, and their drivers' errors in words of ours."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, FromClause, Pool, create_engine, event, make_url
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.exc import ArgumentError, StatementError

from cancellations.errors import BadInput, CancellationsError, ServiceDown
from cancellations.store.records import plain

# The longest write (a chunk of some 50,000 rows) takes seconds; a lock held for longer is a hung process.
BUSY_SECONDS = 30
# Of a connection, at most. With the 2 MiB that are usual looking up a page of bookings among a million reads most of
# them from the file.
CACHE_KIB = 32 * 1024
# psycopg waits for ever by default.
CONNECT_SECONDS = 10


def parse(url: str) -> URL:
    """A database address that we can use; raises `BadInput` for any other."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        shown = re.sub(r"//[^/@]*@", "//…@", url)  # never a password
        raise BadInput(
            f"{shown!r} is no database address. Use sqlite:////absolute/path/cancellations.db"
            " or postgresql+psycopg://user:password@host/database in CANCELLATIONS_DATABASE_URL."
        ) from error
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        raise BadInput(
            f"The store runs on SQLite and on PostgreSQL (postgresql+psycopg://…), not on {parsed.drivername!r}."
            " Correct CANCELLATIONS_DATABASE_URL."
        )
    if parsed.database in (None, "", ":memory:"):
        raise BadInput(
            "A SQLite database in memory is gone with its connection: name a file, e.g. sqlite:///cancellations.db."
        )
    return parsed


def connect(url: URL, poolclass: type[Pool] | None = None) -> Engine:
    """An engine; nothing is opened yet."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=poolclass, json_serializer=_json, connect_args={"timeout": BUSY_SECONDS})
        engine.dialect.statement_compiler = _SqliteCompiler
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    return create_engine(
        url,
        poolclass=poolclass,
        json_serializer=_json,
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "cancellations"},
    )


class _SqliteCompiler(SQLiteCompiler):
    """One that writes hints down; SQLAlchemy's leaves them out."""

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:
        return text


def _json(value: object) -> str:
    return json.dumps(plain(value), allow_nan=False)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own idea of transactions begins them too late for a safe lock; we say BEGIN ourselves.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = {-CACHE_KIB}")


def sqlite_file(url: URL) -> Path | None:
    """Path of a SQLite database; None on PostgreSQL."""
    return Path(str(url.database)).absolute() if url.get_backend_name() == "sqlite" else None


def require_writable(path: Path) -> None:
    """SQLite writes two more files beside the database: both it and its folder must be writable."""
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise BadInput(f"{place} cannot be written. Give yourself the right to, or choose another home folder.")
    if path.is_dir() or not path.parent.is_dir():
        what = path if path.is_dir() else path.parent
        expected = "a folder, not a database file" if path.is_dir() else "not a folder"
        raise BadInput(f"{what} is {expected}. Correct CANCELLATIONS_HOME or CANCELLATIONS_DATABASE_URL.")


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Raises what the drivers raise inside as `BadInput` or `ServiceDown`, with the cause kept."""
    try:
        yield
    except (StatementError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, StatementError) else error
        if isinstance(cause, CancellationsError):
            raise cause from None
        explained = _explained(url, cause)
        if explained is None:
            raise
        raise explained from error


def _explained(url: URL, cause: BaseException | None) -> CancellationsError | None:
    """What a person can do about a driver's error; None when it can only be a mistake in our code."""
    where = url.render_as_string(hide_password=True)
    said = (str(cause).strip().splitlines() or ["no answer"])[0]
    if isinstance(cause, psycopg.errors.DeadlockDetected):
        return ServiceDown(
            f"Two writers of the store at {where} waited for each other, and PostgreSQL ended this one."
            " Nothing of it was written; try again."
        )
    if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return ServiceDown(
            f"PostgreSQL at {where} cannot be used: {said}."
            " Start it, or correct CANCELLATIONS_DATABASE_URL, and try again."
        )
    if isinstance(cause, sqlite3.OperationalError) and "locked" in said:
        return ServiceDown(
            f"{url.database} has been locked by another process for {BUSY_SECONDS} s."
            " Wait until it ends, or stop it, and try again."
        )
    if isinstance(cause, sqlite3.OperationalError) and ("readonly" in said or "unable to open" in said):
        return BadInput(f"{url.database} cannot be opened for writing ({said}). Check its folder and your rights.")
    if isinstance(cause, sqlite3.DatabaseError) and "not a database" in said:
        return BadInput(f"{url.database} is not a SQLite database. Move it away, then run `cancellations init`.")
    if isinstance(cause, sqlite3.DatabaseError) and "malformed" in said:
        return BadInput(f"{url.database} is damaged ({said}). Put a copy of yours in its place, or move it away.")
    if (isinstance(cause, sqlite3.OperationalError) and "no such" in said) or isinstance(
        cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn
    ):
        return BadInput(
            f"The schema of the store at {where} was changed by hand ({said}). `cancellations db check` tells what"
            " differs; undo it, or put a copy of yours in its place."
        )
    if isinstance(cause, sqlite3.OperationalError):
        return ServiceDown(f"{url.database} could not be used: {said}. Check the disk, then try again.")
    if isinstance(cause, sqlite3.IntegrityError | psycopg.IntegrityError | psycopg.DataError):
        return BadInput(f"The store at {where} refused what was to be written: {said}.")
    return None
