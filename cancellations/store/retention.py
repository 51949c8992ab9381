"""What may be taken away after a time, counted and taken in parts."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime

from sqlalchemy import ColumnElement, delete, func, select, tuple_

from cancellations.domain.events import Channel, DigestPublished
from cancellations.domain.labels import Ending
from cancellations.ports import MessageState
from cancellations.store import tables
from cancellations.store.bulk import BulkTransaction, frame
from cancellations.store.outbox import Outbox

_KEY = [tables.predictions.c.reservation_id, tables.predictions.c.model_version]


class Retention(BulkTransaction, Outbox):
    """The part of `ports.UnitOfWork` that forgets."""

    def retired_scores(self, serving: Collection[str], ending: Ending) -> int:
        query = select(func.count()).select_from(_SCORED).where(*self._retired(serving, ending))
        return int(self._read(query).scalar_one())

    def drop_scores(self, serving: Collection[str], ending: Ending, limit: int) -> int:
        found = select(*_KEY).select_from(_SCORED).where(*self._retired(serving, ending)).limit(limit)
        keys = frame(self._read(found), _KEY)
        if keys.empty:
            return 0
        with self._staged(_KEY, keys) as staged:
            gone = select(*staged.columns)
            serving_key = tuple_(tables.servings.c.reservation_id, tables.servings.c.model_version)
            self._write(delete(tables.servings).where(serving_key.in_(gone)))
            return self._write(delete(tables.predictions).where(tuple_(*_KEY).in_(gone)))

    def old_mails(self, before: datetime) -> int:
        query = select(func.count()).select_from(tables.messages).where(*self._left(before))
        return int(self._read(query).scalar_one())

    def drop_mails(self, before: datetime) -> int:
        self._lock()
        return self._write(delete(tables.messages).where(*self._left(before)))

    def reports_until(self, window_end: date) -> list[tuple[str, str]]:
        decision = tables.decisions.c
        query = select(decision.champion, decision.report_id).where(decision.window_end <= window_end)
        return [(row.champion, row.report_id) for row in self._read(query.order_by(decision.number))]

    def _retired(self, serving: Collection[str], ending: Ending) -> list[ColumnElement[bool]]:
        return [tables.predictions.c.model_version.not_in(sorted(serving)), self._ending(ending)]

    def _left(self, before: datetime) -> list[ColumnElement[bool]]:
        """Mails of which nothing is to come: the next digest goes on from the last one that somebody got."""
        message = tables.messages.c
        wanted = [
            message.channel == Channel.MAIL.value,
            message.state != MessageState.PENDING.value,
            message.created_at < before,
        ]
        last = (self.last_message(DigestPublished.topic), self.last_message(DigestPublished.topic, MessageState.DEAD))
        needed = [found.number for found in last if found is not None]
        return [*wanted, message.number < min(needed)] if needed else wanted


_SCORED = tables.predictions.join(
    tables.reservations, tables.reservations.c.reservation_id == tables.predictions.c.reservation_id
)
