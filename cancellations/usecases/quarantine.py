"""Rows in quarantine: shown, exported to be corrected, loaded after all, or dropped."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cancellations.errors import BadInput, Refused
from cancellations.ports import Load, Quarantined, QuarantineState, Source, Store, UnitOfWork
from cancellations.usecases.ingest import APPEARS_AGAIN, Judged, LoadPolicy, ingest, kind_of

# Rows that go again in one transaction.
AT_ONCE = 50_000
# The columns of an exported file that are ours; the original ones follow.
OWN = ("quarantine_number", "source", "row", "problems")
# A spreadsheet takes such a text for a formula; an apostrophe in front says that it is none.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?")
_OF_COLUMN = re.compile(r"[a-z][a-z0-9_]*: ")


class Reopen(Protocol):
    """Makes a source of original values again, by the text of a mapping (`sources.kept.reopen`)."""

    def __call__(
        self,
        source: str,
        mapping: str,
        raw: pd.DataFrame,
        broken: Mapping[int, str],
        reservation_ids: Mapping[int, str],
    ) -> Source: ...


@dataclass(frozen=True)
class Retried:
    """What became of rows that went again, by their numbers in quarantine.

    `settled` were loaded; `waiting` failed again, with their newest problems; `unmapped` were read by no
    mapping, so that nothing can read them again; `undecided` share an id with a row that was loaded, and
    go only when they are named or corrected.
    """

    loads: tuple[Load, ...]
    settled: tuple[int, ...]
    waiting: tuple[Quarantined, ...]
    unmapped: tuple[int, ...]
    undecided: tuple[int, ...]


def kinds(rows: Collection[Quarantined]) -> list[tuple[str, int]]:
    """How many rows have each kind of problem, the most frequent first."""
    return Counter(kind for r in rows for kind in {kind_of(p) for p in r.row.problems}).most_common()


def drop(store: Store, numbers: Collection[int], reason: str, now: datetime) -> int:
    """Ends the waiting of rows that nobody wants; raises `BadInput`, and drops none, if one does not wait."""
    if not reason.strip():
        raise BadInput("rows are dropped for a reason, and none was given; say it with --reason")
    with store.begin() as work:
        dropped = work.settle_quarantined(sorted(set(numbers)), QuarantineState.DROPPED, now, reason)
        if dropped != len(set(numbers)):
            raise BadInput(_not_waiting(work, numbers))
        work.commit()
    return dropped


def _not_waiting(work: UnitOfWork, numbers: Collection[int]) -> str:
    """Called inside the transaction that has settled those which waited."""
    known = {r.number: r.state for r in work.quarantined(numbers=sorted(set(numbers)))}
    told = [f"{n} is not there" for n in sorted(set(numbers)) if n not in known]
    told += [f"{n} is {known[n]}" for n in sorted(known)]
    return f"not all of these rows wait in quarantine ({', '.join(told[:8])}); `cancellations quarantine list` has them"


# --- out to a file, and back ----------------------------------------------------------------------


def exported(rows: Sequence[Quarantined]) -> Iterator[list[str]]:
    """The lines of a CSV file, its header first: `OWN`, then the original columns of all rows.

    Texts that a spreadsheet would take for formulas have an apostrophe in front, which `corrections`
    takes off again.
    """
    columns = list(dict.fromkeys(name for r in rows for name in r.row.values))
    yield [*OWN, *columns]
    for r in rows:
        own = [str(r.number), r.row.source, str(r.row.row), "; ".join(r.row.problems)]
        yield [_guarded(text) for text in own] + [_cell(r.row.values.get(name)) for name in columns]


def corrections(lines: Sequence[Sequence[str]], rows: Mapping[int, Quarantined]) -> dict[int, dict[str, Any]]:
    """Corrected values, by number and original column, of an exported file as somebody saved it.

    A cell that is as it was exported corrects nothing: the original value stays, also where the file
    could not tell it from another (nothing from an empty text, say). Lines about rows that are not among
    `rows` are passed over. Raises `BadInput` for a file of another shape.
    """
    if not lines or OWN[0] not in lines[0]:
        raise BadInput(f"the file has no column {OWN[0]}; make it with `cancellations quarantine export FILE.csv`")
    header = list(lines[0])
    at = header.index(OWN[0])
    # Ours come first: an original column may have the same name.
    own = {header.index(name) for name in OWN if name in header}
    found: dict[int, dict[str, Any]] = {}
    for place, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        if len(line) != len(header) or not line[at].strip().isdecimal():
            raise BadInput(
                f"line {place} of the file has {len(line)} of {len(header)} values, or no number of quarantine in"
                f" {OWN[0]}; save the exported file as CSV, with commas or semicolons"
            )
        number = int(line[at])
        if number in found:
            raise BadInput(f"line {place} of the file is the second about row {number}; leave one of them")
        if number in rows:
            original = rows[number].row.values
            cells = {header[i]: cell for i, cell in enumerate(line) if i not in own}
            found[number] = {
                name: _unguarded(cell) or None for name, cell in cells.items() if cell != _cell(original.get(name))
            }
    return found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return _guarded(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _guarded(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _unguarded(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


# --- again ----------------------------------------------------------------------------------------


def retry(
    store: Store,
    reopen: Reopen,
    *,
    until: date,
    clock: Callable[[], datetime],
    policy: LoadPolicy,
    numbers: Collection[int] | None = None,
    source: str | None = None,
    mapping: str | None = None,
    lines: Sequence[Sequence[str]] | None = None,
) -> Retried:
    """Loads waiting rows: those of `numbers`, else of the corrected file, else of `source`, else all.

    Each goes by the mapping that it was read by, or by the text `mapping`; with the values that `lines`, a
    corrected file, has for it. What passes is loaded and settled in one transaction; what fails again
    waits on. Raises `BadInput` when a number does not wait, and for a mapping or file that cannot be used;
    nothing is loaded then.
    """
    with store.begin() as work:
        known = None if numbers is None else sorted(set(numbers))
        waiting = {r.number: r for r in work.quarantined(QuarantineState.WAITING, source=source, numbers=known)}
        if known is not None and len(waiting) < len(known):
            raise BadInput(_not_waiting(work, set(known) - set(waiting)))
    corrected = {} if lines is None else corrections(lines, waiting)
    if lines is not None and numbers is None:
        waiting = {number: r for number, r in waiting.items() if number in corrected}
    unmapped = tuple(n for n, r in waiting.items() if mapping is None and not r.mapping)
    undecided = tuple(
        n for n, r in waiting.items() if numbers is None and not corrected.get(n) and _is_disputed(r.row.problems)
    )
    going = [r for n, r in waiting.items() if n not in {*unmapped, *undecided}]
    parts = [_part(part, corrected, mapping) for part in _parts(going, mapping)]
    # All of them, before the first is loaded: a mapping that cannot be used is found here.
    sources = [reopen(p.rows[0].row.source, p.mapping, p.raw, p.broken, p.reservation_ids) for p in parts]
    # So few rows cannot be told from a bad file; a person has looked at them.
    lenient = replace(policy, quarantine_limit=1.0)
    loads = tuple(
        ingest(s, store, after=None, until=until, clock=clock, policy=lenient, fate=_Settling(p.numbers))
        for s, p in zip(sources, parts, strict=True)
    )
    with store.begin() as work:
        after = work.quarantined(numbers=[r.number for r in going])
    return Retried(
        loads,
        tuple(r.number for r in after if r.state is QuarantineState.LOADED),
        tuple(r for r in after if r.state is QuarantineState.WAITING),
        unmapped,
        undecided,
    )


@dataclass(frozen=True)
class _Part:
    """Rows of one source that go together: their values, and those that cannot be read at all."""

    rows: tuple[Quarantined, ...]
    mapping: str
    raw: pd.DataFrame
    broken: dict[int, str]

    @property
    def numbers(self) -> dict[int, int]:
        """Row number -> number in quarantine."""
        return {r.row.row: r.number for r in self.rows}

    @property
    def reservation_ids(self) -> dict[int, str]:
        """Row number -> the id that was read then."""
        return {r.row.row: r.row.reservation_id for r in self.rows if r.row.reservation_id is not None}


def _parts(rows: Sequence[Quarantined], mapping: str | None) -> list[list[Quarantined]]:
    """Rows of one source and mapping, no row number twice: a file of the same name may come each day."""
    parts: dict[tuple[str, str, int, int], list[Quarantined]] = defaultdict(list)
    met: Counter[tuple[str, str, int]] = Counter()
    sizes: Counter[tuple[str, str, int]] = Counter()
    for r in rows:
        text = mapping or r.mapping
        version = met[r.row.source, text, r.row.row]
        met[r.row.source, text, r.row.row] += 1
        of = (r.row.source, text, version)
        parts[(*of, sizes[of] // AT_ONCE)].append(r)
        sizes[of] += 1
    return list(parts.values())


def _part(rows: list[Quarantined], corrected: Mapping[int, Mapping[str, Any]], mapping: str | None) -> _Part:
    values = [{**r.row.values, **corrected.get(r.number, {})} for r in rows]
    raw = pd.DataFrame(values, index=pd.Index([r.row.row for r in rows], dtype="int64"), dtype=object)
    # What could not be split into values stays so until somebody has put the values right.
    broken = {
        r.row.row: problem
        for r in rows
        for problem in r.row.problems
        if not _OF_COLUMN.match(problem) and not corrected.get(r.number)
    }
    return _Part(tuple(rows), mapping or rows[0].mapping, raw, broken)


def _is_disputed(problems: Sequence[str]) -> bool:
    return any(problem.startswith(f"reservation_id: {APPEARS_AGAIN}") for problem in problems)


@dataclass(frozen=True)
class _Settling:
    """Rows that pass are settled by their numbers, which `numbers` has by row; those that fail are told."""

    numbers: Mapping[int, int]

    def __call__(self, work: UnitOfWork, batch: Judged, now: datetime) -> None:
        failed = {self.numbers[row.row]: row.problems for row in batch.quarantined}
        passed = [self.numbers[int(row)] for row in np.setdiff1d(batch.rows, batch.outside)]
        passed = [number for number in passed if number not in failed]
        work.tell_quarantined(failed)
        if work.settle_quarantined(passed, QuarantineState.LOADED, now) != len(passed):
            raise Refused(
                "somebody else has settled some of these rows just now; look again: cancellations quarantine list"
            )
