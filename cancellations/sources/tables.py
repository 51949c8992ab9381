"""Tables as they are: CSV or Parquet, in batches of original values.

A file's format is told by its first bytes, not by its name. Memory holds one batch, whatever the size
of the table.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cancellations.errors import BadInput
from cancellations.sources.mapping import Reading

# Some 60 MB of text while a batch is read.
BATCH_ROWS = 50_000
BATCH_CHARACTERS = 64_000_000
# A longer value is a file without line ends, or a quote that was never closed.
LONGEST_LINE = 64_000_000
AGAIN = "Get the file again, or name another."
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Bytes that could not be decoded, as `surrogateescape` leaves them.
_UNDECODED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Chunk:
    """Rows of a table by their number (the first data row is 1), and those that are no rows of it.

    `broken` maps a row's number to what is wrong with it; its values are in `raw` as far as they go.
    """

    raw: pd.DataFrame
    broken: dict[int, str] = field(default_factory=dict)


class Table(Protocol):
    """A table with named columns."""

    @property
    def place(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def stem(self) -> str:
        """What stands before the row's number in an id that is made up."""
        ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    def chunks(self, rows: int = BATCH_ROWS) -> Iterator[Chunk]:
        """From the first row on; raises `BadInput` for what is no whole table."""
        ...

    def fingerprint(self) -> str | None: ...


def check_kind(path: Path, magic: bytes) -> None:
    """Raises `BadInput` for what begins as a workbook or an archive does: no encoding makes a table of it."""
    if magic in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise BadInput(f"{path} is an Excel workbook or a ZIP archive, and no table. Save it as CSV, or unpack it.")


def open_file(path: Path, reading: Reading) -> Table:
    """The table in a file; raises `BadInput` for a file that is missing, or is none."""
    with _told(str(path)):
        with path.open("rb") as file:
            magic = file.read(4)
        check_kind(path, magic)
        return ParquetTable(path) if magic == b"PAR1" else CsvTable(path, reading, zipped=magic[:2] == b"\x1f\x8b")


@contextmanager
def _told(place: str, row: list[int] | None = None) -> Iterator[None]:
    """What goes wrong with a file, as a sentence; `row` holds the number of the last row that was read."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {place}. Give the path of a table of reservations.") from error
    except IsADirectoryError as error:
        raise BadInput(
            f"{place} is a folder. Name one of its files; a mapping.toml in it is for all of them."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        behind = f" behind row {row[0]:,}" if row and row[0] else ""
        raise BadInput(f"{place} is cut off or damaged{behind}: {error}. {AGAIN}") from error
    except UnicodeError as error:
        behind = f" behind row {row[0]:,}" if row and row[0] else ""
        raise BadInput(
            f"{place} cannot be decoded{behind}: {error}. Give its encoding in the mapping: [source] encoding ="
            ' "cp1252", or another one.'
        ) from error
    except (pa.ArrowException, NotImplementedError) as error:
        behind = f" (behind row {row[0]:,})" if row else ""
        told = str(error).rstrip(".")
        raise BadInput(f"{place} is no whole CSV or Parquet table{behind}: {told}. {AGAIN}") from error
    except OSError as error:
        told = (error.strerror or str(error)).rstrip(".")
        raise BadInput(f"{place} cannot be read: {told}. {AGAIN}") from error


def check_names(names: Sequence[str], place: str) -> tuple[str, ...]:
    """The names of a table's columns; raises `BadInput` when one stands there twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(
            f"{place} has more than one column named {', '.join(map(repr, twice[:8]))}:"
            " nobody can tell which is meant. Rename or remove them."
        )
    return tuple(names)


class _File:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def place(self) -> str:
        return str(self.path)

    @property
    def stem(self) -> str:
        return self.path.name.split(".")[0]

    def fingerprint(self) -> str | None:
        """SHA-256 of the bytes."""
        with _told(self.place), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class CsvTable(_File):
    """A CSV file, plain or gzipped: every value as text, for the original spelling is what quarantine keeps.

    Not by pandas, which fills up a line that was cut off with values that look missing.
    """

    def __init__(self, path: Path, reading: Reading, *, zipped: bool) -> None:
        super().__init__(path)
        self._reading = reading
        self._zipped = zipped
        with _told(self.place), self._lines() as lines:
            self.columns = self._header(_records(lines, reading))

    def chunks(self, rows: int = BATCH_ROWS) -> Iterator[Chunk]:
        at = [0]
        with _told(self.place, at), self._lines() as lines:
            records = _records(lines, self._reading)
            names = list(self._header(records))
            batch = _Batch(self.columns, 1)
            for values, wrong in records:
                at[0] += 1
                if wrong is None and len(values) != len(self.columns):
                    wrong = f"the row has {len(values):,} values, the header {len(self.columns):,}"
                elif wrong is None and values[0].strip() == names[0] and [v.strip() for v in values] == names:
                    wrong = "the row repeats the header"
                batch.add(values, wrong)
                if len(batch) >= rows or lines.characters >= BATCH_CHARACTERS:
                    yield batch.chunk(self._reading.delimiter)
                    batch, lines.characters = _Batch(self.columns, at[0] + 1), 0
            if at[0] == 0:
                raise BadInput(f"{self.place} has a header and no row below it. {AGAIN}")
            if lines.unfinished and len(values) < len(self.columns):
                raise BadInput(
                    f"{self.place} is cut off: row {at[0]:,}, its last, has {len(values):,} of"
                    f" {len(self.columns):,} values and no line end. {AGAIN}"
                )
            if len(batch):
                yield batch.chunk(self._reading.delimiter)

    def _header(self, records: Iterator[tuple[list[str], str | None]]) -> tuple[str, ...]:
        names, wrong = next(records, ([], None))
        if not names and wrong is None:
            raise BadInput(f"{self.place} is empty. {AGAIN}")
        if wrong is not None:
            raise BadInput(f"{self.place} is no table: {wrong} in its header. {AGAIN}")
        if any("\0" in name for name in names):
            raise BadInput(
                f"{self.place} has NUL characters in its header: it is UTF-16 without a mark, or no text."
                ' Give its encoding in the mapping: [source] encoding = "utf-16-le", or another one.'
            )
        # A column without a name is called by its place.
        return check_names([n.strip() or f"column {place}" for place, n in enumerate(names, start=1)], self.place)

    @contextmanager
    def _lines(self) -> Iterator[_Lines]:
        with ExitStack() as stack:
            plain = stack.enter_context(self.path.open("rb"))
            file: IO[bytes] = plain
            if self._zipped:
                file = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=plain)))
            mark = file.read(4)
            file.seek(0)
            encoding = next((name for bom, name in MARKS if mark.startswith(bom)), self._reading.encoding)
            with io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="") as decoded:
                yield _Lines(decoded, self.place, encoding)


class _Lines:
    """Lines of a file with what is known of the last one; no longer than `LONGEST_LINE`."""

    def __init__(self, file: io.TextIOWrapper, place: str, encoding: str) -> None:
        self._file, self.place, self._encoding = file, place, encoding
        self.row = -1  # of the record that is read; the header's is 0
        self.characters = 0
        self.unfinished = False
        self.ended = False
        self.record: list[str] = []
        self._length = 0

    def begin(self) -> None:
        """A record begins with the next line."""
        self.record.clear()
        self._length = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_LINE)
        if not line:
            self.ended = True
            raise StopIteration
        if not line.isascii() and (bad := _UNDECODED.search(line)):
            raise BadInput(
                f"{self.place}, row {max(self.row + 1, 0):,}: the byte 0x{ord(bad[0]) - 0xDC00:02x} is no"
                f" {self._encoding}. Give the file's encoding in the mapping: [source] encoding ="
                f' "{"cp1252" if self._encoding.startswith("utf-8") else "utf-8"}", or another one.'
            )
        self.characters += len(line)
        self.unfinished = line[-1] not in "\r\n"
        self.record.append(line)
        self._length += len(line)
        if self._length >= LONGEST_LINE:
            raise BadInput(
                f"{self.place}, row {max(self.row + 1, 0):,} is longer than {LONGEST_LINE:,} characters: a quote is"
                f" not closed, or this is no CSV. {AGAIN}"
            )
        return line


def _records(lines: _Lines, reading: Reading) -> Iterator[tuple[list[str], str | None]]:
    """The header and the rows, each with what is wrong with it; blank lines are none."""
    # The limit is the process's: our own, which is by lines, is the one that holds.
    csv.field_size_limit(LONGEST_LINE)
    for _ in islice(lines, reading.header - 1):
        lines.begin()
    reader = csv.reader(lines, delimiter=reading.delimiter, quotechar=reading.quote, strict=True)
    while True:
        lines.begin()
        try:
            values = next(reader, None)
        except csv.Error as error:
            if lines.ended:
                raise BadInput(
                    f"{lines.place} is cut off: row {lines.row + 1:,}, its last, ends inside a quote. {AGAIN}"
                ) from error
            # A new record begins with the next line.
            lines.row += 1
            yield ["".join(lines.record).rstrip("\r\n")], f"the row cannot be split into values: {error}"
            continue
        if values is None:
            return
        if values:
            lines.row += 1
            yield values, None


class _Batch:
    """Rows on their way into a frame."""

    def __init__(self, columns: Sequence[str], first: int) -> None:
        self._columns, self._first = columns, first
        self._rows: list[list[str]] = []
        self._broken: dict[int, str] = {}
        self._extra: dict[int, list[str]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, values: list[str], wrong: str | None) -> None:
        row, width = self._first + len(self._rows), len(self._columns)
        if wrong is not None:
            self._broken[row] = wrong
            if len(values) > width:
                self._extra[row] = values[width:]
            # Gaps among texts, as pandas has them, though the list is one of texts.
            values = values[:width] + [np.nan] * (width - len(values))  # type: ignore[list-item]
        self._rows.append(values)

    def chunk(self, delimiter: str) -> Chunk:
        index = pd.RangeIndex(self._first, self._first + len(self._rows))
        raw = pd.DataFrame(self._rows, columns=list(self._columns), index=index, dtype="str")
        if self._extra:
            name = "extra values"
            while name in raw:
                name += " "
            raw[name] = pd.Series({row: delimiter.join(v) for row, v in self._extra.items()}, dtype="str")
        return Chunk(raw, self._broken)


class ParquetTable(_File):
    """A Parquet file, a part of a row group at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with _told(self.place), pq.ParquetFile(path) as file:
            self.columns = check_names(list(file.schema_arrow.names), self.place)
            rows = file.metadata.num_rows
        if rows == 0:
            raise BadInput(f"{self.place} has columns and no row. {AGAIN}")

    def chunks(self, rows: int = BATCH_ROWS) -> Iterator[Chunk]:
        at = [0]
        with _told(self.place, at), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=rows):
                # Whole numbers with gaps stay whole: as floats, ids beyond 2 ** 53 would run together. What
                # pandas made an index of when it saved the file is a column like the others.
                raw = batch.to_pandas(integer_object_nulls=True, ignore_metadata=True)
                raw.index = pd.RangeIndex(at[0] + 1, at[0] + 1 + len(raw))
                at[0] += len(raw)
                yield Chunk(raw)
