"""Databases that are copied as a whole, and what is in them, told by a digest of each table."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, NullPool, Table, create_engine, make_url, select, text

from cancellations.store.records import plain
from cancellations.store.tables import actions, corrections, loads, messages, metadata, outcome_corrections, quarantine

# The order of writing, which the databases number for themselves: PostgreSQL leaves gaps.
_NUMBERED = (loads, quarantine, messages)


class Databases(Protocol):
    def new(self) -> str:
        """Address of a database that does not exist, or is empty."""
        ...

    def copy(self, url: str) -> str:
        """Address of a copy; nobody may be connected to the original."""
        ...

    def drop(self, url: str) -> None: ...

    def close(self) -> None:
        """Drops what is left."""
        ...


@dataclass(frozen=True)
class Files:
    """SQLite databases in a folder."""

    folder: Path

    def new(self) -> str:
        home = self.folder / uuid.uuid4().hex
        home.mkdir(parents=True)
        return f"sqlite:///{home / 'cancellations.db'}"

    def copy(self, url: str) -> str:
        copied = self.new()
        # With its log beside it, if one was left: a database that was cut off is three files.
        shutil.copytree(_home(url), _home(copied), dirs_exist_ok=True)
        return copied

    def drop(self, url: str) -> None:
        shutil.rmtree(_home(url))

    def close(self) -> None:
        shutil.rmtree(self.folder)


def _home(url: str) -> Path:
    return Path(str(make_url(url).database)).parent


@dataclass(frozen=True)
class Server:
    """Databases of a PostgreSQL server."""

    address: URL
    left: set[str] = field(default_factory=set)

    def new(self) -> str:
        return self._create("")

    def copy(self, url: str) -> str:
        return self._create(f"TEMPLATE {make_url(url).database}")

    def drop(self, url: str) -> None:
        self._drop(str(make_url(url).database))

    def close(self) -> None:
        for name in list(self.left):
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")
        self.left.remove(name)

    def _create(self, like: str) -> str:
        name = f"crash_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name} {like}")
        self.left.add(name)
        return self.address.set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        # CREATE and DROP DATABASE refuse to run in a transaction.
        engine = create_engine(self.address, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))


Told = Callable[[Table, dict[str, Any]], dict[str, Any] | None]
"""What of a row counts; None: nothing."""


def as_it_stands(table: Table, row: dict[str, Any]) -> dict[str, Any] | None:
    return row


def digests(url: str, told: Told = as_it_stands) -> dict[str, str]:
    """Rows and digest of each table, as far as they are `told`, whatever order its rows lie in.

    The databases' own numbers are left out; where one points to a load, the load's place among the others
    stands for it. A load that repeats one and changed nothing is left out too: whoever reads a file while
    somebody else ends the same load writes such a one, and so does a second try with a file that is refused.
    """
    engine = create_engine(url, poolclass=NullPool)
    found = {}
    with engine.connect() as connection:
        by_table = {
            table: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in metadata.sorted_tables
        }
    by_table[loads] = kept = _without_repeats(by_table[loads])
    places = {load["number"]: place for place, load in enumerate(kept, 1)}
    for table in (actions, corrections, outcome_corrections):
        by_table[table] = [row | {"load": places.get(row["load"])} for row in by_table[table]]
    for table, rows in by_table.items():
        counted = [row for row in (told(table, _unnumbered(table, row)) for row in rows) if row is not None]
        lines = sorted(json.dumps(plain(row), sort_keys=True) for row in counted)
        found[table.name] = f"{len(lines)} rows, {hashlib.sha256(repr(lines).encode()).hexdigest()[:16]}"
    return found


def _without_repeats(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for load in sorted(rows, key=lambda row: row["number"]):
        known = any((load["content"], load["state"]) == (other["content"], other["state"]) for other in kept)
        if not known or load["loaded"] or load["updated"] or load["outcomes"]:
            kept.append(load)
    return kept


def _unnumbered(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not (table in _NUMBERED and name == "number")}
