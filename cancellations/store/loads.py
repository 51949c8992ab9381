"""Loads, as far as they have come, and the rows that they set aside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import pandas as pd
from sqlalchemy import Row, func, select, update

from cancellations.ports import (
    Load,
    LoadContent,
    LoadCounts,
    LoadState,
    Quarantined,
    QuarantinedRow,
    QuarantineState,
)
from cancellations.store import tables
from cancellations.store.records import plain
from cancellations.store.transaction import Transaction, in_parts

_COUNTS = [field.name for field in fields(LoadCounts)]


class Loads(Transaction):
    """The part of `ports.UnitOfWork` that knows loads and quarantine."""

    def begin_load(self, content: LoadContent, read: int, left: int, now: datetime) -> Load:
        empty = LoadCounts(content.source, read, 0, 0, 0, 0, 0, 0)
        values = self._load_values(content, empty, LoadState.RUNNING, now) | {"left": left}
        unfinished = select(tables.loads).where(tables.loads.c.content == _digest(content), tables.UNFINISHED)
        while True:
            # The unique index lets one unfinished load of a content stand, whoever begins it at once.
            self._write(self._insert(tables.loads).values(values).on_conflict_do_nothing())
            row = self._read(unfinished).one_or_none()
            if row is not None:  # or it was another's, which has ended just now
                return _load(row)

    def load(self, number: int) -> Load:
        return _load(self._read(select(tables.loads).where(tables.loads.c.number == number)).one())

    def add_stopped_load(self, content: LoadContent, counts: LoadCounts, now: datetime, reason: str = "") -> None:
        values = self._load_values(content, counts, LoadState.STOPPED, now) | {"reason": reason}
        of_source = tables.loads.c.source == content.source
        last = select(func.max(tables.loads.c.number)).where(of_source).scalar_subquery()
        # A folder that is looked at every few minutes would fill the table with one bad file.
        again = (
            update(tables.loads)
            .where(tables.loads.c.number == last, tables.loads.c.content == values["content"])
            .where(tables.loads.c.state == LoadState.STOPPED.value)
        )
        if not self._write(again.values(**asdict(counts), reason=reason, recorded_at=now)):
            self._write(tables.loads.insert().values(values))

    def _load_values(self, content: LoadContent, counts: LoadCounts, state: LoadState, now: datetime) -> dict[str, Any]:
        return {
            **asdict(counts),
            "content": _digest(content),
            "fingerprint": content.fingerprint,
            "mapping": self._mapping(content.mapping, now),
            "span_from": content.after,
            "span_until": content.until,
            "state": state.value,
            "applied": 0,
            "left": 0,
            "began_at": now,
            "recorded_at": now,
        }

    def advance_load(self, load: Load, counts: LoadCounts, applied: int, now: datetime) -> bool:
        return self._move(load, **asdict(counts), applied=applied, recorded_at=now)

    def finish_load(self, load: Load, now: datetime) -> bool:
        return self._move(load, state=LoadState.DONE.value, recorded_at=now)

    def _move(self, load: Load, **values: object) -> bool:
        as_seen = (
            update(tables.loads)
            .where(tables.loads.c.number == load.number, tables.loads.c.applied == load.applied)
            .where(tables.loads.c.state == LoadState.RUNNING.value)
        )
        return self._write(as_seen.values(values)) == 1

    def last_load(self, source: str) -> tuple[LoadContent, Load] | None:
        done = (
            select(tables.loads, tables.mappings.c.text)
            .outerjoin(tables.mappings, tables.mappings.c.digest == tables.loads.c.mapping)
            .where(tables.loads.c.source == source, tables.loads.c.state == LoadState.DONE.value)
            .order_by(tables.loads.c.number.desc())
            .limit(1)
        )
        row = self._read(done).one_or_none()
        if row is None:
            return None
        return LoadContent(source, row.fingerprint, row.text or "", row.span_from, row.span_until), _load(row)

    def loads(self, limit: int = 20) -> list[Load]:
        newest = select(tables.loads).order_by(tables.loads.c.number.desc()).limit(limit)
        return [_load(row) for row in reversed(self._read(newest).all())]

    def unfinished_loads(self) -> list[Load]:
        later = tables.loads.alias("later")
        overtaken = select(1).where(
            later.c.source == tables.loads.c.source,
            later.c.number > tables.loads.c.number,
            later.c.state == LoadState.DONE.value,
        )
        running = select(tables.loads).where(tables.UNFINISHED, ~overtaken.exists()).order_by(tables.loads.c.number)
        return [_load(row) for row in self._read(running)]

    def _mapping(self, text: str, now: datetime) -> str | None:
        if not text:
            return None
        digest = hashlib.sha256(text.encode()).hexdigest()
        row = {"digest": digest, "text": text, "recorded_at": now}
        self._write(self._insert(tables.mappings).on_conflict_do_nothing(), [row])
        return digest

    def add_quarantined(self, rows: Sequence[QuarantinedRow], now: datetime, mapping: str = "") -> int:
        if not rows:
            return 0
        digest = self._mapping(mapping, now)
        records = [
            {
                "source": r.source,
                "row": int(r.row),
                "digest": hashlib.sha256(json.dumps(plain(r.values), sort_keys=True).encode()).hexdigest(),
                "reservation_id": r.reservation_id,
                "problems": r.problems,
                "values": r.values,
                "mapping": digest,
                "state": QuarantineState.WAITING.value,
                "recorded_at": now,
            }
            for r in rows
        ]
        return self._write(self._insert(tables.quarantine).on_conflict_do_nothing(), records)

    def quarantined(
        self,
        *states: QuarantineState,
        source: str | None = None,
        numbers: Sequence[int] | None = None,
        limit: int | None = None,
    ) -> list[Quarantined]:
        row = tables.quarantine.c
        query = (
            select(tables.quarantine, tables.mappings.c.text)
            .outerjoin(tables.mappings, tables.mappings.c.digest == row.mapping)
            .order_by(row.number)
            .limit(limit)
        )
        if states:
            query = query.where(row.state.in_([s.value for s in states]))
        if source is not None:
            query = query.where(row.source == source)
        parts = [query] if numbers is None else [query.where(row.number.in_(some)) for some in in_parts(list(numbers))]
        return [_quarantined(found) for part in parts for found in self._read(part)]

    def quarantine_counts(self) -> dict[str, int]:
        source = tables.quarantine.c.source
        waiting = (
            select(source, func.count())
            .where(tables.quarantine.c.state == QuarantineState.WAITING.value)
            .group_by(source)
            .order_by(source)
        )
        return dict(self._read(waiting).tuples().all())

    def settle_quarantined(
        self, numbers: Sequence[int], state: QuarantineState, now: datetime, reason: str = ""
    ) -> int:
        settled = {"state": state.value, "settled_at": now, "reason": reason or None}
        return sum(
            self._write(_waiting_rows().where(tables.quarantine.c.number.in_(some)).values(settled))
            for some in in_parts(list(numbers))
        )

    def settle_bookings(self, source: str, reservation_ids: pd.Series, now: datetime) -> int:
        of_source = _waiting_rows().where(tables.quarantine.c.source == source)
        loaded = {"state": QuarantineState.LOADED.value, "settled_at": now}
        ids = self._among(tables.quarantine.c.reservation_id, reservation_ids.astype(object).tolist())
        return self._write(of_source.where(ids).values(loaded))

    def tell_quarantined(self, problems: Mapping[int, Sequence[str]]) -> None:
        for number, told in problems.items():
            row = update(tables.quarantine).where(tables.quarantine.c.number == number)
            self._write(row.values(problems=list(told)))


def _waiting_rows() -> Any:
    return update(tables.quarantine).where(tables.quarantine.c.state == QuarantineState.WAITING.value)


def _digest(content: LoadContent) -> str:
    return hashlib.sha256(json.dumps(plain(asdict(content)), sort_keys=True).encode()).hexdigest()


def _load(row: Row[Any]) -> Load:
    return Load(
        number=row.number,
        state=LoadState(row.state),
        counts=LoadCounts(**{name: row._mapping[tables.loads.c[name]] for name in _COUNTS}),
        applied=row.applied,
        left=row.left,
        began_at=row.began_at,
        recorded_at=row.recorded_at,
        reason=row.reason or "",
    )


def _quarantined(row: Row[Any]) -> Quarantined:
    return Quarantined(
        number=row.number,
        row=QuarantinedRow(
            row.source,
            row.row,
            tuple(row.problems),
            row._mapping[tables.quarantine.c["values"]],
            row.reservation_id,
        ),
        state=QuarantineState(row.state),
        mapping=row.text or "",
        recorded_at=row.recorded_at,
        settled_at=row.settled_at,
        reason=row.reason or "",
    )
