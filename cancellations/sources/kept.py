"""Rows that quarantine kept, as the table that they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from cancellations.ports import Source
from cancellations.sources.evaluation import ID
from cancellations.sources.mapped import MappedTable
from cancellations.sources.mapping import RowNumber, parse
from cancellations.sources.tables import BATCH_ROWS, Chunk


class KeptRows:
    """Original values, indexed by the numbers that the rows have in their table; all in one chunk."""

    def __init__(self, raw: pd.DataFrame, broken: Mapping[int, str], source: str) -> None:
        self._chunk = Chunk(raw, dict(broken))
        self.place = f"{source} (quarantine)"
        self.stem = source.split(".")[0]
        self.columns = tuple(map(str, raw.columns))

    def fingerprint(self) -> str | None:
        return None

    def chunks(self, rows: int = BATCH_ROWS) -> Iterator[Chunk]:
        del rows
        yield self._chunk


def reopen(
    source: str, mapping: str, raw: pd.DataFrame, broken: Mapping[int, str], reservation_ids: Mapping[int, str]
) -> Source:
    """Rows of quarantine as a source, by the text of a mapping.

    `broken` tells what is wrong with rows that cannot be read at all. Rows that had their number for an id
    keep the id that they got then, as `reservation_ids` has it by row. Raises `BadInput` for a mapping that
    cannot be read, or that reads a column which the rows lack.
    """
    found = parse(mapping, f"the mapping of {source} in quarantine")
    if isinstance((found.reservation or {}).get(ID), RowNumber):
        ids = pd.Series(reservation_ids, dtype=object).reindex(raw.index)
        given = raw.get(ID, ids)
        given = given.where(given.notna(), ids)
        if found.name is None:  # the source is called by its file
            numbered = [f"{source.split('.')[0]}-{row:06d}" for row in raw.index]
            given = given.where(given.notna(), pd.Series(numbered, index=raw.index, dtype=object))
        told = f"its id was made of its file's name, which is not known; give it in a column {ID}"
        broken = {**dict.fromkeys(raw.index[given.isna()].tolist(), told), **broken}
        raw = raw.assign(**{ID: given})
    table = KeptRows(raw, broken, source)
    return MappedTable(table, found, name=table.place)
