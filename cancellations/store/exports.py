"""Tables for others: CSV, Parquet, a folder of a day, tables of a database that is not ours.

Whoever reads one meanwhile sees the old table or the new one, never half of either.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import (
    URL,
    Boolean,
    Column,
    Date,
    Double,
    Engine,
    Integer,
    MetaData,
    NullPool,
    Table,
    Text,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.types import TypeEngine

from cancellations.errors import BadInput, CancellationsError, ServiceDown

# What makes a spreadsheet read a cell as a formula; a plain number may begin so, and stays one.
_FORMULA = re.compile(r"^(?![+-]?\d+(?:\.\d+)?$)[=+\-@\t\r]")
NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
CONNECT_SECONDS = 10
ROWS_AT_ONCE = 5_000
# Any fixed number serves: it only tells our exports from other users of the server's advisory locks.
_EXPORT_LOCK = 5_124_908


class TableExports:
    """Adapter of `ports.Exports`."""

    def to_file(self, table: pd.DataFrame, path: Path) -> None:
        if path.suffix not in (".csv", ".parquet"):
            raise BadInput(f"{path} is neither a .csv nor a .parquet file nor a folder; name one of these")
        target = path.resolve()
        if not target.parent.is_dir() or (target.exists() and not target.is_file()):
            raise BadInput(f"{path} cannot be written; name a file, in a folder that exists")
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        with _written(path):
            try:
                _write(table, part, target.suffix)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)

    def to_folder(
        self, tables: Mapping[str, pd.DataFrame], pictures: Mapping[str, bytes], folder: Path
    ) -> tuple[Path, ...]:
        target = folder.resolve()
        part, old = (target.with_name(f".{target.name}.{what}") for what in ("part", "old"))
        with _written(folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            # A run that was killed between the two renames below left its predecessor here.
            if old.exists() and not target.exists():
                old.rename(target)
            for left in (part, old):
                shutil.rmtree(left, ignore_errors=True)
            names = [*(f"{name}.csv" for name in tables), *pictures]
            _require_ours(target, folder, names)
            try:
                part.mkdir()
                for name, table in tables.items():
                    _write(table, part / f"{name}.csv", ".csv")
                for name, content in pictures.items():
                    (part / name).write_bytes(content)
                if target.exists():
                    target.rename(old)
                part.rename(target)
            finally:
                # On a full disk the half that fitted would take the room that is missing.
                shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
        return tuple(folder / name for name in names)

    def to_database(self, tables: Mapping[str, pd.DataFrame], url: str) -> str:
        for name in tables:
            if not NAME.match(name):
                raise BadInput(f"{name!r} is no name for a table; take letters, digits and _, at most 63 of them")
        parsed = _address(url)
        where = parsed.render_as_string(hide_password=True)
        with _answered(where):
            engine = _engine(parsed)
            try:
                _replace(engine, tables, where)
            finally:
                engine.dispose()
        return where


def _require_ours(target: Path, folder: Path, names: list[str]) -> None:
    """Replacing a folder takes away all that is in it."""
    if target.exists() and not target.is_dir():
        raise BadInput(f"{folder} is no folder; name another one")
    known = {*names, "scores.csv", "nights.csv", "riskiest.csv", "outlook.png"}
    foreign = sorted({path.name for path in target.iterdir()} - known) if target.exists() else []
    if foreign:
        raise BadInput(f"{folder} would be replaced, but holds {foreign[0]}, which is no export; move it away")


def _write(table: pd.DataFrame, path: Path, form: str) -> None:
    days = {str(n): table[n].dt.date for n in table.columns if pd.api.types.is_datetime64_dtype(table[n])}
    written = table.assign(**days)
    if form == ".parquet":
        written.to_parquet(path, index=False)
        return
    texts = {str(n): _harmless(table[n]) for n in table.columns if _is_text(table[n]) and str(n) not in days}
    # Quoted, because an unquoted carriage return in a text would begin a row.
    quoted = csv.QUOTE_NONNUMERIC
    written.assign(**texts).to_csv(path, index=False, lineterminator="\n", encoding="utf-8", quoting=quoted)


def _harmless(texts: pd.Series) -> pd.Series:
    """Texts that a spreadsheet shows and never runs."""
    values = texts.astype(object)
    return values.map(lambda text: f"'{text}" if isinstance(text, str) and _FORMULA.match(text) else text)


def _is_text(values: pd.Series) -> bool:
    return bool(pd.api.types.is_object_dtype(values.dtype) or pd.api.types.is_string_dtype(values.dtype))


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error


# --- databases ------------------------------------------------------------------------------------


def _address(url: str) -> URL:
    """Never repeats what it was given: an address holds a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise BadInput(
            "the database's address cannot be read; write it like sqlite:////absolute/path/hotel.db"
            " or postgresql+psycopg://user:password@host/database"
        ) from None
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadInput("a SQLite database in memory is gone with its connection: name a file")
    return parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        arguments = {"connect_timeout": CONNECT_SECONDS} if url.get_backend_name() == "postgresql" else {}
        return create_engine(url, poolclass=NullPool, connect_args=arguments)
    engine = create_engine(url, poolclass=NullPool)

    # The driver begins transactions by itself, and too late for one that makes tables.
    @event.listens_for(engine, "connect")
    def _manual(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _replace(engine: Engine, tables: Mapping[str, pd.DataFrame], where: str) -> None:
    """Rows are replaced, tables are kept: so are rights and views that others have put on them."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Of two exports at once each would take away the rows from before, and none the other's.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_EXPORT_LOCK})")
        for name, frame in tables.items():
            columns = [Column(str(c), _type(frame[c])) for c in frame.columns]
            table = Table(name, MetaData(), *columns)
            if inspect(connection).has_table(name):
                _require_columns(inspect(connection).get_columns(name), table, where)
            else:
                table.create(connection)
            connection.execute(delete(table))
            for start in range(0, len(frame), ROWS_AT_ONCE):
                connection.execute(insert(table), _rows(frame.iloc[start : start + ROWS_AT_ONCE]))


def _require_columns(found: Any, table: Table, where: str) -> None:
    there, wanted = {str(c["name"]) for c in found}, {c.name for c in table.columns}
    if there != wanted:
        different = sorted(there ^ wanted)
        raise BadInput(
            f"the table {table.name} of {where} has other columns than this export ({different[0]} and"
            f" {len(different) - 1} more differ); it is left as it is. Choose another name, or drop it yourself."
        )


def _type(values: pd.Series) -> TypeEngine[Any]:
    if pd.api.types.is_datetime64_dtype(values.dtype):
        return Date()
    if pd.api.types.is_bool_dtype(values.dtype):
        return Boolean()
    if pd.api.types.is_integer_dtype(values.dtype):
        return Integer()
    return Double() if pd.api.types.is_float_dtype(values.dtype) else Text()


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    cells: dict[str, list[Any]] = {}
    for name in frame.columns:
        values = frame[name].dt.date if isinstance(_type(frame[name]), Date) else frame[name]
        whole = values.astype(object)
        cells[str(name)] = whole.where(frame[name].notna(), None).tolist()
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


@contextmanager
def _answered(where: str) -> Iterator[None]:
    """What goes wrong beyond our tables, without the address as it was given."""
    try:
        yield
    except CancellationsError:
        raise
    except (NoSuchModuleError, ImportError) as error:
        raise BadInput(
            f"there is no driver for {where} here: {_said(error)}. Install it beside cancellations."
        ) from error
    except OperationalError as error:
        said = _said(error.orig)
        # SQLite calls a folder that is missing operational too; only a lock goes away by itself.
        mendable = where.startswith("sqlite") and "locked" not in said
        kind = BadInput if mendable else ServiceDown
        raise kind(f"the database at {where} cannot be used: {said}. Nothing was changed.") from error
    except (DBAPIError, SQLAlchemyError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise BadInput(f"the database at {where} refused the export: {_said(cause)}. Nothing was changed.") from error


def _said(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or ["no answer"])[0].rstrip(".")
