"""A table read by a mapping, as a source; and the mappings that come with the package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from cancellations.domain.reservation import Column
from cancellations.errors import BadInput
from cancellations.ports import SourceBatch, Undated
from cancellations.sources.evaluation import Evaluation
from cancellations.sources.mapping import Mapping, nearest, parse, read_mapping
from cancellations.sources.query import SqlTable
from cancellations.sources.tables import BATCH_ROWS, Table, open_file

# A mapping of this name applies to the files of its folder.
BESIDE = "mapping.toml"


class MappedTable:
    """Reservations and outcomes of one table, by one mapping.

    Raises `BadInput` when the table lacks a column that the mapping reads.
    """

    def __init__(self, table: Table, mapping: Mapping, *, name: str, batch_rows: int = BATCH_ROWS) -> None:
        self._table, self._mapping, self._batch_rows = table, mapping, batch_rows
        self.name = name
        lacking = [column for column in mapping.source_columns if column not in table.columns]
        if lacking:
            guess, near = _guess(table, mapping), nearest(lacking[0], table.columns)
            told = f" {guess}" if guess else f" {lacking[0]}: {near.strip()}" if near else ""
            raise BadInput(
                f"{table.place} lacks {_listed(lacking)}, which the mapping reads; it has {_listed(table.columns)}."
                f"{told} Correct the mapping, or name another file."
            )

    @property
    def place(self) -> str:
        """The path of the file, or of the mapping with the query."""
        return self._table.place

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._mapping.columns

    @property
    def mapping(self) -> str:
        return self._mapping.text

    @property
    def undated(self) -> Undated:
        return Undated.MATURITY if self._mapping.outcome is None else self._mapping.outcome.undated

    def fingerprint(self) -> str | None:
        return self._table.fingerprint()

    def batches(self) -> Iterator[SourceBatch]:
        evaluate = Evaluation(self._mapping, self._table.stem)
        for chunk in self._table.chunks(self._batch_rows):
            yield evaluate(chunk)


def open_table(path: Path, mapping: Path | None = None, *, batch_rows: int = BATCH_ROWS) -> MappedTable:
    """The source in a file, by the mapping given, else `mapping.toml` beside it, else one of the package's
    whose columns it has; a mapping with a query is a source of its own. Raises `BadInput`.
    """
    if path.suffix == ".toml":
        own = read_mapping(path)
        if not own.source.is_database:
            raise BadInput(f"{path} is a mapping without [source] url and query. Name the table that it is for.")
        table = SqlTable(own.source, str(path), own.name or path.stem)
        return MappedTable(table, own, name=own.name or path.name, batch_rows=batch_rows)
    beside = path.parent / BESIDE
    if mapping is None and beside.is_file():
        mapping = beside
    found = None if mapping is None else read_mapping(mapping)
    if found is not None and found.source.is_database:
        raise BadInput(f"{mapping} reads a database, not {path}. Name the mapping itself as the source.")
    if found is None:
        found = _packaged_for(path)
    return MappedTable(open_file(path, found.source), found, name=found.name or path.name, batch_rows=batch_rows)


def packaged() -> dict[str, Mapping]:
    """The mappings that come with the package, by their names."""
    folder = files("cancellations.sources") / "mappings"
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {
        f.name.removesuffix(".toml"): parse(f.read_text(encoding="utf-8"), where=f"the packaged {f.name}")
        for f in found
    }


def _packaged_for(path: Path) -> Mapping:
    # Of two that fit the one that reads more.
    known = sorted(packaged().values(), key=lambda m: -len(m.source_columns))
    for mapping in known:
        table = open_file(path, mapping.source)
        if set(mapping.source_columns) <= set(table.columns):
            return mapping
    nearest = min(known, key=lambda m: len(set(m.source_columns) - set(table.columns)))
    lacking = [column for column in nearest.source_columns if column not in table.columns]
    guess = _guess(table, nearest)
    raise BadInput(
        f"no mapping says what the columns of {path} mean: there is no {BESIDE} beside it, and it has no packaged"
        f" mapping's columns (the nearest lacks {_listed(lacking)}). {guess}{' ' * bool(guess)}Draft one with"
        f" `cancellations mapping init {path}`."
    )


def _guess(table: Table, mapping: Mapping) -> str:
    """A header of one name is mostly one of another delimiter."""
    if len(table.columns) == 1 and len(mapping.source_columns) > 1:
        for delimiter in ";\t|,":
            if delimiter in table.columns[0]:
                return f"Its header looks separated by {delimiter!r}: set [source] delimiter in a mapping."
    return ""


def _listed(names: list[str] | tuple[str, ...]) -> str:
    """At most eight of the names, so that a message stays one sentence."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(n if len(n) <= 60 else f"{n[:59]}…" for n in names[:8]) + more
