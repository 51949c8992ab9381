"""Reservations, their outcomes, what was read and what was set aside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import date, datetime

import pandas as pd
from sqlalchemy import ColumnElement, Table, and_, func, insert, not_, or_, select, update

from cancellations.domain.reservation import OUTCOME_NAMES
from cancellations.errors import BadInput
from cancellations.ports import LoadCounts, QuarantinedRow, Upserted
from cancellations.store import tables
from cancellations.store.bulk import BulkTransaction, frame, raw
from cancellations.store.records import plain

BOOKING_ORDER: tuple[ColumnElement[object], ...] = (
    tables.reservations.c.booked_on,
    tables.reservations.c.reservation_id,
)


def open_on(day: date) -> ColumnElement[bool]:
    """Of reservations: made by that day, the arrival not past, and no outcome known by then."""
    ended = select(1).where(
        tables.outcomes.c.reservation_id == tables.reservations.c.reservation_id, tables.outcomes.c.known_on <= day
    )
    return and_(tables.reservations.c.arrival_on >= day, tables.reservations.c.booked_on <= day, not_(ended.exists()))


class Bookings(BulkTransaction):
    """The part of `ports.UnitOfWork` that knows bookings."""

    def upsert_reservations(self, reservations: pd.DataFrame) -> Upserted:
        return self._upsert(tables.reservations, reservations)

    def record_outcomes(self, outcomes: pd.DataFrame) -> int:
        done = self._upsert(tables.outcomes, outcomes[list(OUTCOME_NAMES)])
        return done.loaded + done.updated

    def _upsert(self, table: Table, rows: pd.DataFrame) -> Upserted:
        """Writes new and different rows; the counts are what the database did."""
        twice = rows["reservation_id"].duplicated()
        if twice.any():
            raise BadInput(
                f"{table.name}: {int(twice.sum())} ids appear more than once in one batch, the first"
                f" {rows.loc[twice, 'reservation_id'].iloc[0]!r}. Each may have one row; set the others aside."
            )
        if rows.empty:
            return Upserted(0, 0, 0)
        columns = list(table.columns)
        values = columns[1:]
        self._lock_table(table)
        with self._staged(columns, rows) as staged:
            changed = (
                update(table)
                .where(table.c.reservation_id == staged.c.reservation_id)
                .where(or_(*(c.is_distinct_from(staged.c[c.name]) for c in values)))
                .values({c.name: staged.c[c.name] for c in values})
            )
            updated = self._write(changed)
            rest = select(staged).order_by(staged.c.reservation_id)
            new = self._insert(table).from_select([c.name for c in columns], rest).on_conflict_do_nothing()
            loaded = self._write(new)
        return Upserted(loaded=loaded, unchanged=len(rows) - loaded - updated, updated=updated)

    def add_quarantined(self, rows: Sequence[QuarantinedRow], now: datetime) -> int:
        records = [
            {
                "source": r.source,
                "row": int(r.row),
                "digest": hashlib.sha256(json.dumps(plain(r.values), sort_keys=True).encode()).hexdigest(),
                "problems": r.problems,
                "values": r.values,
                "recorded_at": now,
            }
            for r in rows
        ]
        return self._write(self._insert(tables.quarantine).on_conflict_do_nothing(), records) if records else 0

    def add_load(self, counts: LoadCounts, span: tuple[date | None, date | None], now: datetime) -> None:
        values = {**asdict(counts), "span_from": span[0], "span_until": span[1], "recorded_at": now}
        self._write(insert(tables.loads).values(values))

    def loads(self, limit: int = 20) -> list[LoadCounts]:
        names = [field.name for field in fields(LoadCounts)]
        newest = select(*(tables.loads.c[name] for name in names)).order_by(tables.loads.c.number.desc()).limit(limit)
        return [LoadCounts(**row._mapping) for row in reversed(self._read(newest).all())]

    def history(self, booked_until: date, known_until: date, arriving_after: date | None = None) -> pd.DataFrame:
        columns = [*tables.reservations.columns, tables.outcomes.c.status, tables.outcomes.c.known_on]
        known = (tables.outcomes.c.reservation_id == tables.reservations.c.reservation_id) & (
            tables.outcomes.c.known_on <= known_until
        )
        query = (
            select(*raw(columns))
            .select_from(tables.reservations.outerjoin(tables.outcomes, known))
            .where(tables.reservations.c.booked_on <= booked_until)
            .order_by(*BOOKING_ORDER)
        )
        if arriving_after is not None:
            query = query.where(tables.reservations.c.arrival_on > arriving_after)
        return frame(self._read(query), columns)

    def outcomes_until(self, known_until: date) -> date | None:
        known_on = tables.outcomes.c.known_on
        return self._read(select(func.max(known_on)).where(known_on <= known_until)).scalar()

    def booked_span(self) -> tuple[date, date] | None:
        # Two subqueries, each the end of an index; min and max in one SELECT would read all of it.
        first = select(func.min(tables.reservations.c.booked_on)).scalar_subquery()
        last = select(func.max(tables.reservations.c.booked_on)).scalar_subquery()
        earliest, latest = tuple(self._read(select(first, last)).one())
        return None if earliest is None else (earliest, latest)
