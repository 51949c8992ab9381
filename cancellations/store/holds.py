"""Days whose bookings are held back from scoring, and what their checks go by."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import delete, select, update

from cancellations.domain.checks import Hold, HoldState, Past
from cancellations.store import tables
from cancellations.store.records import from_findings, from_past, to_findings, to_past
from cancellations.store.transaction import Transaction

# Of so many days: those whose bookings may still come in, and be checked.
KEPT_PASTS = 30


class Holds(Transaction):
    """The part of `ports.UnitOfWork` that knows holds."""

    def add_hold(self, hold: Hold, now: datetime) -> bool:
        values = {
            "day": hold.day,
            "held_on": hold.held_on,
            "bookings": hold.bookings,
            "findings": from_findings(hold.findings),
            "content": hold.content,
            "state": HoldState.HELD.value,
            "recorded_at": now,
            "state_since": now,
        }
        new = self._insert(tables.holds).values(values)
        return self._write(new.on_conflict_do_nothing(index_elements=["day"], index_where=tables.HELD)) == 1

    def note_hold(self, hold: Hold) -> bool:
        told = {"bookings": hold.bookings, "findings": from_findings(hold.findings), "content": hold.content}
        held = update(tables.holds).where(tables.holds.c.day == hold.day, tables.HELD)
        return self._write(held.values(told)) == 1

    def end_hold(self, day: date, state: HoldState, by: str, reason: str, now: datetime) -> bool:
        held = update(tables.holds).where(tables.holds.c.day == day, tables.HELD)
        return self._write(held.values(state=state.value, by=by, reason=reason, state_since=now)) == 1

    def holds(self, *states: HoldState, since: date | None = None) -> list[Hold]:
        query = select(tables.holds).order_by(tables.holds.c.number)
        if states == (HoldState.HELD,):
            query = query.where(tables.HELD)
        elif states:
            query = query.where(tables.holds.c.state.in_([state.value for state in states]))
        if since is not None:
            query = query.where(tables.holds.c.day >= since)
        return [
            Hold(
                day=row.day,
                held_on=row.held_on,
                bookings=row.bookings,
                findings=to_findings(row.findings),
                content=row.content,
                state=HoldState(row.state),
                by=row.by,
                reason=row.reason,
                since=row.recorded_at,
            )
            for row in self._read(query)
        ]

    def keep_past(self, day: date, past: Past, now: datetime) -> None:
        values = {"learned": from_past(past), "recorded_at": now}
        kept = self._insert(tables.pasts).values(day=day, **values)
        self._write(kept.on_conflict_do_update(index_elements=["day"], set_=values))
        days = list(self._read(select(tables.pasts.c.day).order_by(tables.pasts.c.day.desc())).scalars())
        if len(days) > KEPT_PASTS:
            self._write(delete(tables.pasts).where(tables.pasts.c.day < days[KEPT_PASTS - 1]))

    def past(self, day: date) -> Past | None:
        found = self._read(select(tables.pasts.c.learned).where(tables.pasts.c.day == day)).scalar()
        return None if found is None else to_past(found)

    def forget_pasts(self) -> None:
        self._write(delete(tables.pasts))
