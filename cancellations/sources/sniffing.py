"""How a table is written: its encoding, its delimiter, its decimal sign, its spellings of nothing."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, cast

import pandas as pd

from cancellations.errors import BadInput
from cancellations.sources.evaluation import bare
from cancellations.sources.mapping import MISSING
from cancellations.sources.tables import LONGEST_LINE, MARKS, check_kind

# As much of a file is looked at; a sign of another encoding further behind is met when it is loaded.
SEEN_BYTES = 64_000_000
BLOCK_BYTES = 1_000_000
SEEN_RECORDS = 300
# Lines above a table; more are a table of another form.
MOST_TITLES = 30
DELIMITERS = ",;\t|"
# Spellings of nothing beyond those that are always known.
NOTHING: tuple[str, ...] = ("-", "--", "—", "?", "#N/A", "n/a", "N.A.", "n.a.", "k.A.", r"\N", "(null)", "none", "NIL")


@dataclass(frozen=True)
class Written:
    """How a CSV file is written; `sure` is False where its encoding is a guess among several.

    `header` is the line that names its columns, 1 but where titles stand above it.
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    sure: bool = True
    header: int = 1


def written(path: Path) -> Written | None:
    """How a CSV file is written, None for Parquet; raises `BadInput` for a file that cannot be read."""
    try:
        with path.open("rb") as plain:
            magic = plain.read(4)
            plain.seek(0)
            if magic == b"PAR1":
                return None
            check_kind(path, magic)
            zipped = magic[:2] == b"\x1f\x8b"
            file = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if zipped else plain
            blocks: list[bytes] = []
            while len(blocks) * BLOCK_BYTES < SEEN_BYTES and (block := file.read(BLOCK_BYTES)):
                blocks.append(block)
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}. Give the path of a table of reservations.") from error
    except IsADirectoryError as error:
        raise BadInput(
            f"{path} is a folder. Name one of its files; a mapping.toml in it is for all of them."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path} is cut off or damaged: {error}. Get the file again, or name another.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}. Name a file.") from error
    encoding, sure = _encoding(blocks)
    start = codecs.getincrementaldecoder(encoding)(errors="replace").decode(b"".join(blocks[:1]))
    start = start.removeprefix("\ufeff")
    delimiter = _delimiter(start)
    header = _header(start)
    if header == 1:
        return Written(delimiter, encoding, sure)
    # Titles tell nothing of the delimiter.
    below = "".join(start.splitlines(keepends=True)[header - 1 :])
    return Written(_delimiter(below), encoding, sure, header)


def _encoding(blocks: Sequence[bytes]) -> tuple[str, bool]:
    start = blocks[0] if blocks else b""
    for mark, name in MARKS:
        if start.startswith(mark):
            return name.removesuffix("-sig"), True
    # Of Latin text every second byte is 0 in UTF-16.
    head = start[:4_000]
    if head.count(0) > len(head) // 4:
        return ("utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"), False
    if _decodes("utf-8", blocks):
        return "utf-8", True
    return ("cp1252" if _decodes("cp1252", blocks) else "iso-8859-1"), False


def _decodes(encoding: str, blocks: Iterable[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in blocks:
            decoder.decode(block)
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(start: str) -> str:
    """The sign that splits the most rows into as many values as the header has."""
    csv.field_size_limit(LONGEST_LINE)

    def split(delimiter: str) -> tuple[float, int]:
        try:
            records = [
                r for r in islice(csv.reader(io.StringIO(start, newline=""), delimiter=delimiter), SEEN_RECORDS) if r
            ]
        except csv.Error:
            return 0.0, 0
        if not records or len(records[0]) < 2:
            return 0.0, 0
        width = len(records[0])
        return round(sum(len(r) == width for r in records) / len(records), 1), width

    return max(DELIMITERS, key=split)


def _header(start: str) -> int:
    """The line on which the names of the columns stand: the first one that is as wide as most, without a gap.

    1 where the first line is half as wide, or that line holds values: a column may lack its name.
    """
    best, found = (0.5, 1), 1
    for sign in DELIMITERS:
        records = _records(start, sign)
        width, wide = max(Counter(len(r) for _, r in records if len(r) > 1).items(), key=lambda w: w[1], default=(1, 0))
        if (rank := (round(wide / max(len(records), 1), 1), width)) > best:
            whole = ((line, r) for line, r in records if len(r) == width == len({v.strip() for v in r} - {""}))
            line, names = next(whole, (1, []))
            titled = 2 * sum(bool(value.strip()) for value in records[0][1]) <= width
            best, found = rank, line if titled and not any(name.strip()[0].isdecimal() for name in names) else 1
    return found if found <= MOST_TITLES else 1


def _records(start: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """The first records with the lines on which they begin; none where they cannot be split so."""
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)
    records, line = [], 1
    try:
        for record in islice(reader, SEEN_RECORDS):
            if record:
                records.append((line, record))
            line = reader.line_num + 1
    except csv.Error:
        return []
    return records


_NUMBERLIKE = re.compile(r"[+-]?[0-9][0-9.,' ’\u00a0\u202f_]*")
_COMMA = re.compile(r"[+-]?(?:[0-9]{1,3}(?:[.' ’\u00a0\u202f][0-9]{3})+,[0-9]+|[0-9]+,(?:[0-9]{1,2}|[0-9]{4,}))")
_DOT = re.compile(r"[+-]?(?:[0-9]{1,3}(?:[,' ’\u00a0\u202f][0-9]{3})+\.[0-9]+|[0-9]+\.(?:[0-9]{1,2}|[0-9]{4,}))")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:([.,' ’\u00a0\u202f_])[0-9]{3})(?:\1[0-9]{3})*(?:[.,][0-9]*)?")
_AROUND = re.compile(r"^[^\w.,+-]+|[^\w.,]+$")


def signs(columns: Iterable[pd.Series]) -> tuple[str, str]:
    """The decimal sign and the sign between thousands ("" for none), from texts of the columns that hold numbers."""
    comma = dot = 0
    grouped: dict[str, int] = {}
    for texts in columns:
        found = [_AROUND.sub("", bare(text)) for text in texts.dropna().unique()[:2_000]]
        numbers = [text for text in found if _NUMBERLIKE.fullmatch(text)]
        if len(numbers) < 0.8 * len(found):
            continue
        comma += sum(_COMMA.fullmatch(n) is not None for n in numbers)
        dot += sum(_DOT.fullmatch(n) is not None for n in numbers)
        for match in filter(None, map(_GROUPED.fullmatch, numbers)):
            grouped[match[1]] = grouped.get(match[1], 0) + 1
    decimal = "," if comma > dot else "."
    grouped.pop(decimal, None)
    if decimal == "." and not dot and not comma and set(grouped) == {"."}:
        return ".", ""
    thousands = max(grouped, key=lambda sign: grouped[sign], default="")
    # Narrow and fixed blanks are read as a blank.
    return decimal, " " if thousands in ("\u00a0", "\u202f") else thousands


def nothing(columns: Iterable[pd.Series]) -> tuple[str, ...]:
    """All spellings of nothing that are met or always known."""
    met = {text for texts in columns for text in NOTHING if (texts == text).any()}
    return MISSING + tuple(text for text in NOTHING if text in met)
