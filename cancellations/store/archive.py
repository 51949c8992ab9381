"""The store in one file: written from any of its databases, read back into any other.

A zip with `manifest.json` (format, schema revision, tables with rows and SHA-256) and, for each table, an Arrow stream
of its rows: the same from SQLite and from PostgreSQL, exact to the last digit. It is never unpacked to any path.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
from sqlalchemy import JSON, URL, Boolean, Connection, Date, Double, Integer, NullPool, Table, inspect, select, text
from sqlalchemy.types import TypeEngine

from cancellations.errors import BadInput, Refused
from cancellations.store import schema
from cancellations.store.engine import connect, parse, translated
from cancellations.store.records import plain
from cancellations.store.tables import Instant, metadata

FORMAT = 1
MANIFEST = "manifest.json"
# Rows in memory at a time.
ROWS = 20_000
# Far beyond what a manifest of ours takes; a file that was made to harm is not read without end.
LARGEST_MANIFEST = 1_000_000


@dataclass(frozen=True)
class Archived:
    """What an archive holds: rows by table, in the order in which they are written back."""

    revision: str
    made_at: datetime
    rows: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def backup(url: str, path: Path) -> Archived:
    """Writes the store as it is at one moment, while others go on with it.

    Raises `Refused` where a file is already, `BadInput` when the schema is not this version's or the file cannot be
    written; there is a whole archive under that name afterwards, or none.
    """
    parsed = parse(url)
    if path.exists():
        raise Refused(f"{path} is there already; an archive never takes the place of another. Name a new file.")
    schema.require_current(parsed)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _private(part) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            made = _write(parsed, archive)
        part.rename(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return made


def restore(url: str, path: Path) -> Archived:
    """Brings an archive into a store that holds nothing, and its schema to this version's.

    All or nothing: it is read through, and held against its checksums, before the first row is written, and rows and
    schema come in one transaction. Raises `Refused` when the store holds rows, `BadInput` for a file that is no whole
    archive, or one of a newer version.
    """
    parsed = parse(url)
    with _opened(path) as (archive, manifest):
        _verify(archive, manifest, path)
        schema.prepare(parsed)
        with schema.migrating(parsed) as connection:
            _require_empty(connection, parsed)
            schema.rebuild(connection, manifest.revision)
            for name, rows in manifest.rows.items():
                _fill(connection, archive, name, rows, path)
            schema.finish(connection)
        return manifest


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """A new file that nobody else may read: it holds guests' bookings."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write(url: URL, archive: zipfile.ZipFile) -> Archived:
    entries = []
    counted: dict[str, int] = {}
    made = datetime.now(UTC)
    with translated(url), connect(url, NullPool).connect() as connection:
        # All tables as of one moment.
        begin = "BEGIN" if connection.dialect.name == "sqlite" else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        connection.exec_driver_sql(begin)
        for table in metadata.sorted_tables:
            # Whoever unpacks one by hand finds a name that says what it is.
            with archive.open(_entry(table.name), "w", force_zip64=True) as inner:
                sink = _Counted(inner)
                rows = _dump(connection, table, sink)
            counted[table.name] = rows
            entries.append({"table": table.name, "rows": rows, "sha256": sink.digest, "bytes": sink.size})
    told = {
        "format": FORMAT,
        "revision": schema.HEAD,
        "made_at": made.isoformat(),
        "tables": entries,
    }
    archive.writestr(MANIFEST, json.dumps(told, indent=1))
    return Archived(schema.HEAD, made, counted)


def _entry(table: str) -> str:
    return f"tables/{table}.arrows"


class _Counted(io.RawIOBase):
    """Passes on what is written, and knows how much it was and its SHA-256."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner = inner
        self._sum = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._sum.update(content)
        self.size += len(content)
        self._inner.write(content)
        return len(content)

    def tell(self) -> int:
        return self.size

    @property
    def digest(self) -> str:
        return self._sum.hexdigest()


def _dump(connection: Connection, table: Table, sink: _Counted) -> int:
    fields = pa.schema([(c.name, _arrow(c.type)) for c in table.columns])
    query = select(table).order_by(*table.primary_key.columns)
    found = connection.execution_options(stream_results=True, yield_per=ROWS).execute(query)
    rows = 0
    packed = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), fields, options=packed) as stream:
        for some in found.partitions(ROWS):
            cells = zip(*some, strict=True)
            arrays = [
                pa.array(_told(values, c.type), _arrow(c.type)) for c, values in zip(table.columns, cells, strict=True)
            ]
            stream.write_batch(pa.record_batch(arrays, schema=fields))
            rows += len(some)
    return rows


def _arrow(kind: TypeEngine[Any]) -> pa.DataType:
    if isinstance(kind, Date):
        return pa.date32()
    if isinstance(kind, Instant):
        return pa.timestamp("us", "UTC")
    if isinstance(kind, Boolean):
        return pa.bool_()
    if isinstance(kind, Integer):
        return pa.int64()
    return pa.float64() if isinstance(kind, Double) else pa.string()


def _told(values: Sequence[Any], kind: TypeEngine[Any]) -> Sequence[Any]:
    if isinstance(kind, JSON):
        return [json.dumps(plain(value), allow_nan=False) for value in values]
    return values


# --- reading --------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, Archived]]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive, _manifest(archive, path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} is not there; name an archive that `cancellations backup` has written") from error
    except (zipfile.BadZipFile, OSError, EOFError, pa.ArrowException) as error:
        raise BadInput(f"{path} is no whole archive of a store: {error}. Nothing was changed.") from error


def _manifest(archive: zipfile.ZipFile, path: Path) -> Archived:
    """What the archive says of itself, as far as it holds just what that names."""
    names = [entry.filename for entry in archive.infolist()]
    if MANIFEST not in names or archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
        raise BadInput(f"{path} has no {MANIFEST}: it is no archive of a store, or its writing was cut short")
    try:
        told = json.loads(archive.read(MANIFEST))
        if told["format"] != FORMAT:
            raise BadInput(f"{path} has the format {told['format']}; this version reads {FORMAT}")
        found = Archived(
            str(told["revision"]),
            datetime.fromisoformat(told["made_at"]),
            {str(t["table"]): int(t["rows"]) for t in told["tables"]},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: its {MANIFEST} cannot be read ({error!r})") from error
    if sorted(names) != sorted([MANIFEST, *map(_entry, found.rows)]):
        raise BadInput(f"{path} holds other files than its {MANIFEST} names; it is left alone")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise BadInput(f"{path} was packed by something else than `cancellations backup`; it is left alone")
    schema.require_known_revision(found.revision, str(path))
    return found


def _verify(archive: zipfile.ZipFile, manifest: Archived, path: Path) -> None:
    wanted = {t["table"]: t["sha256"] for t in json.loads(archive.read(MANIFEST))["tables"]}
    for name in manifest.rows:
        found = hashlib.sha256()
        with archive.open(_entry(name)) as entry:
            while block := entry.read(1 << 20):
                found.update(block)
        if found.hexdigest() != wanted[name]:
            raise BadInput(f"{path} is damaged: the rows of {name} are not those that were written. Use another copy.")


def _require_empty(connection: Connection, url: URL) -> None:
    there = set(inspect(connection).get_table_names()) - {"alembic_version"}
    foreign = sorted(there - set(metadata.tables))
    if foreign:
        raise Refused(
            f"the database at {url.render_as_string(hide_password=True)} holds {foreign[0]}, which is none of this"
            " version's tables; restore into an empty database"
        )
    for name in sorted(there):
        if connection.execute(select(text("1")).select_from(metadata.tables[name]).limit(1)).first() is not None:
            raise Refused(
                f"the store at {url.render_as_string(hide_password=True)} holds rows already ({name}); an archive goes"
                " into an empty store alone. Move this one away, or name another home or database."
            )


def _fill(connection: Connection, archive: zipfile.ZipFile, name: str, rows: int, path: Path) -> None:
    there = inspect(connection)
    if name == "alembic_version" or not there.has_table(name):
        raise BadInput(f"{path}: its schema's revision knows no table {name}; the archive was changed")
    with archive.open(_entry(name)) as entry, pa.ipc.open_stream(entry) as stream:
        # Only names that the database itself has reach a statement.
        if sorted(stream.schema.names) != sorted(c["name"] for c in there.get_columns(name)):
            raise BadInput(f"{path}: {name} has other columns than its schema's revision; the archive was changed")
        for batch in stream:
            _insert(connection, name, batch)
            rows -= batch.num_rows
    if rows:
        raise BadInput(f"{path}: {name} has {abs(rows):,} rows {'fewer' if rows > 0 else 'more'} than it says")
    if connection.dialect.name == "postgresql":
        _advance_sequences(connection, name)


def _insert(connection: Connection, name: str, batch: pa.RecordBatch) -> None:
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * batch.num_columns)
        names = ", ".join(f'"{column}"' for column in batch.schema.names)
        cells = zip(*(_sqlite(column) for column in batch.columns), strict=True)
        connection.exec_driver_sql(f'INSERT INTO "{name}" ({names}) VALUES ({places})', list(cells))
        return
    content = io.BytesIO()
    header = pyarrow.csv.WriteOptions(include_header=False)
    pyarrow.csv.write_csv(pa.Table.from_batches([batch]), content, header)
    names = ", ".join(f'"{column}"' for column in batch.schema.names)
    driver = cast(Any, connection.connection.driver_connection)
    with driver.cursor() as cursor, cursor.copy(f'COPY "{name}" ({names}) FROM STDIN (FORMAT CSV)') as copy:
        copy.write(content.getbuffer())


def _sqlite(values: pa.Array) -> list[Any]:
    """As SQLAlchemy keeps them there: days and instants as text, whether something is so as 0 or 1."""
    found = values.to_pylist()
    if pa.types.is_date(values.type):
        return [None if v is None else v.isoformat() for v in found]
    if pa.types.is_timestamp(values.type):
        return [None if v is None else v.replace(tzinfo=None).isoformat(" ", "microseconds") for v in found]
    if pa.types.is_boolean(values.type):
        return [None if v is None else int(v) for v in found]
    return list(found)


def _advance_sequences(connection: Connection, name: str) -> None:
    """Numbers that the server gives go on after the highest that was written."""
    for column in inspect(connection).get_columns(name):
        known = {"table": f'"{name}"', "column": column["name"]}
        sequence = connection.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), known).scalar()
        if sequence is not None:
            highest = connection.exec_driver_sql(f'SELECT max("{column["name"]}") FROM "{name}"').scalar()
            if highest is not None:
                connection.execute(
                    text("SELECT setval(:sequence, :highest)"), {"sequence": sequence, "highest": highest}
                )
