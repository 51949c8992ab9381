"""Simulated reservations as a file: streamed, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from cancellations.domain.labels import CANCELLED
from cancellations.domain.reservation import COLUMNS, OUTCOME_NAMES, Column
from cancellations.errors import BadInput
from cancellations.sources.simulator import Simulator

ENDINGS = (".csv", ".csv.gz", ".parquet")
TRUTH = "true_probability"
_TYPES = {"date": pa.date32(), "count": pa.int32(), "number": pa.float64()}


@dataclass(frozen=True)
class Written:
    """What a file holds; `groups` counts bookings that have another of their group."""

    rows: int
    cancelled: int
    hotels: int
    grouped: int
    size_bytes: int


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...


def write(source: Simulator, path: Path, *, truth: bool, shown: Callable[[date, int], None]) -> Written:
    """Writes a simulated world in our own columns, which the packaged mapping `reservations` reads.

    CSV or Parquet by the file's name, in bounded memory; `shown` is told the day that it has come to and the
    rows so far. Raises `BadInput` when the file cannot be written; what stood there before then still does.
    """
    form = next((e for e in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(e)), None)
    if form is None:
        raise BadInput(f"{path} ends in none of {', '.join(ENDINGS)}; name the file so.")
    target = path.resolve()
    if not target.parent.is_dir() or (target.exists() and not target.is_file()):
        raise BadInput(f"{path} cannot be written; name a file, in a folder that exists.")
    schema = _schema(truth)
    rows = cancelled = grouped = 0
    hotels: set[str] = set()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _opened(part, form, schema) as writer:
            for table in source.tables():
                writer.write_table(_arrow(table, schema))
                rows += len(table)
                cancelled += int(table["status"].isin(CANCELLED).sum())
                grouped += int((table["group_size"] > 1).sum())
                hotels |= set(table["hotel"].unique())
                shown(table["booked_on"].iloc[-1].date(), rows)
        size = part.stat().st_size
        part.replace(target)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}. Name another file.") from error
    finally:
        part.unlink(missing_ok=True)
    return Written(rows, cancelled, len(hotels), grouped, size)


def _schema(truth: bool) -> pa.Schema:
    known = {name: pa.date32() if name == "known_on" else pa.string() for name in OUTCOME_NAMES}
    fields = [(c.name, _type(c)) for c in COLUMNS]
    fields += [(name, kind) for name, kind in known.items() if name not in {c.name for c in COLUMNS}]
    return pa.schema([*fields, *([(TRUTH, pa.float64())] if truth else [])])


def _type(column: Column) -> pa.DataType:
    return _TYPES.get(column.kind, pa.string())


def _arrow(table: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    columns = [pa.chunked_array(pa.array(table[field.name], from_pandas=True)) for field in schema]
    return pa.table([c.cast(field.type) for c, field in zip(columns, schema, strict=True)], schema=schema)


@contextmanager
def _opened(part: Path, form: str, schema: pa.Schema) -> Iterator[_Writer]:
    if form == ".parquet":
        with pa.parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            yield writer
        return
    options = pa.csv.WriteOptions(quoting_style="needed")
    with (
        pa.output_stream(str(part), compression="gzip" if form.endswith(".gz") else None) as stream,
        pa.csv.CSVWriter(stream, schema, write_options=options) as writer,
    ):
        yield writer
