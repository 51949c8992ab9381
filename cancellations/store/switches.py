"""Switches that people, or a rollback, turn against what would happen by itself."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select

from cancellations.store import tables
from cancellations.store.transaction import Transaction

RETRAINING, PROMOTIONS = "retraining", "promotions"
# Of one request: when a rule was last seen to keep it from starting.
REQUEST = "request"


class Switches(Transaction):
    """The part of `ports.UnitOfWork` that knows what is held, and why."""

    def pause(self, reason: str, now: datetime) -> None:
        self._hold(RETRAINING, reason, now)

    def resume(self) -> None:
        self._release(RETRAINING)

    def paused(self) -> str | None:
        return self._held(RETRAINING)

    def hold_promotions(self, reason: str, now: datetime) -> None:
        self._hold(PROMOTIONS, reason, now)

    def release_promotions(self) -> None:
        self._release(PROMOTIONS)

    def promotions_held(self) -> str | None:
        return self._held(PROMOTIONS)

    def note_held(self, request_id: str, reason: str, now: datetime) -> None:
        self._hold(f"{REQUEST} {request_id}", reason, now)

    def held_until(self, request_id: str) -> datetime | None:
        name = f"{REQUEST} {request_id}"
        return self._read(select(tables.switches.c.since).where(tables.switches.c.name == name)).scalar()

    def _hold(self, name: str, reason: str, now: datetime) -> None:
        values = {"reason": reason, "since": now}
        held = self._insert(tables.switches).values(name=name, **values)
        self._write(held.on_conflict_do_update(index_elements=["name"], set_=values))

    def _release(self, name: str) -> None:
        self._write(delete(tables.switches).where(tables.switches.c.name == name))

    def _held(self, name: str) -> str | None:
        return self._read(select(tables.switches.c.reason).where(tables.switches.c.name == name)).scalar()
