"""Messages on their way: written with the fact that caused them, kept until they have left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, select, update

from cancellations.domain.events import Channel, Message
from cancellations.errors import BadInput
from cancellations.ports import MessageState, OutboxEntry
from cancellations.store import tables
from cancellations.store.transaction import Transaction

PENDING, SENT, DEAD, TOLD = (state.value for state in MessageState)


class Outbox(Transaction):
    """The part of `ports.UnitOfWork` that knows messages."""

    def add_messages(self, messages: Sequence[Message], now: datetime) -> None:
        rows = [
            {
                "id": m.id,
                "channel": m.channel.value,
                "topic": m.topic,
                "payload": m.payload,
                "state": PENDING,
                "attempts": 0,
                "next_attempt_at": now,
                "created_at": now,
            }
            for m in messages
        ]
        if rows:
            self._write(self._insert(tables.messages).on_conflict_do_nothing(), rows)

    def due_messages(
        self, channel: Channel | None, now: datetime, limit: int, besides: Sequence[str] = ()
    ) -> list[OutboxEntry]:
        due = _entries(PENDING).where(tables.messages.c.next_attempt_at <= now).limit(limit)
        if besides:
            due = due.where(tables.messages.c.topic.not_in(besides))
        return self._messages(due if channel is None else due.where(tables.messages.c.channel == channel.value))

    def pending_messages(self) -> list[OutboxEntry]:
        return self._messages(_entries(PENDING))

    def dead_messages(self) -> list[OutboxEntry]:
        return self._messages(_entries(DEAD))

    def messages(self, ids: Sequence[str]) -> list[OutboxEntry]:
        by_id = select(tables.messages).where(self._among(tables.messages.c.id, ids)).order_by(tables.messages.c.number)
        return self._messages(by_id)

    def mails_after(self, number: int) -> list[OutboxEntry]:
        newer = tables.messages.c.number > number, tables.messages.c.channel == Channel.MAIL.value
        return self._messages(select(tables.messages).where(*newer).order_by(tables.messages.c.number))

    def last_message(self, topic: str, but: MessageState | None = None) -> OutboxEntry | None:
        of_topic = select(tables.messages).where(tables.messages.c.topic == topic)
        if but is not None:
            of_topic = of_topic.where(tables.messages.c.state != but.value)
        # No index of topics: from the newest backwards the last one is met soon.
        found = self._messages(of_topic.order_by(tables.messages.c.number.desc()).limit(1))
        return found[0] if found else None

    def _messages(self, query: Select[tuple[object, ...]]) -> list[OutboxEntry]:
        return [
            OutboxEntry(
                message=Message(row.id, Channel(row.channel), row.topic, row.payload),
                attempts=row.attempts,
                created_at=row.created_at,
                last_error=row.last_error,
                state=MessageState(row.state),
                number=row.number,
            )
            for row in self._read(query)
        ]

    def mark_sent(self, message_id: str, now: datetime) -> None:
        sent = update(tables.messages).where(tables.messages.c.id == message_id).values(state=SENT, sent_at=now)
        if not self._write(sent):
            raise BadInput(f"There is no message {message_id!r} to mark as sent.")

    def mark_told(self, ids: Sequence[str]) -> int:
        waiting = tables.messages.c.state == PENDING, self._among(tables.messages.c.id, ids)
        return self._write(update(tables.messages).where(*waiting).values(state=TOLD))

    def mark_failed(self, message_id: str, error: str, retry_at: datetime | None) -> None:
        failed = {"attempts": tables.messages.c.attempts + 1, "last_error": error}
        outcome = {"state": DEAD} if retry_at is None else {"next_attempt_at": retry_at}
        # Only a pending one: what another worker has sent meanwhile stays sent.
        still = update(tables.messages).where(tables.messages.c.id == message_id, tables.messages.c.state == PENDING)
        self._write(still.values({**failed, **outcome}))


def _entries(state: str) -> Select[tuple[object, ...]]:
    return select(tables.messages).where(tables.messages.c.state == state).order_by(tables.messages.c.number)
