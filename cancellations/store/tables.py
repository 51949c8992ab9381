"""The tables. Their history is in `migrations/`; a test holds the two together.

Event time is DATE; wall time is an instant in UTC. Every query of a hot path has its index here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Date,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from cancellations.domain.reservation import COLUMNS, Kind
from cancellations.errors import BadInput


class Instant(TypeDecorator[datetime]):
    """A moment of wall time: timezone-aware outside, UTC inside. A naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise BadInput(f"{value!r} has no time zone: pass wall time as an aware datetime, e.g. datetime.now(UTC).")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # SQLite keeps no zone: what comes back without one was written above, as UTC.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# PostgreSQL would sort text by the server's language; pages and tests want one order everywhere.
Identifier: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")

_TYPES: dict[Kind, TypeEngine[Any]] = {
    "id": Identifier,
    "date": Date(),
    "count": Integer(),
    "number": Double(),
    "category": Text(),
}

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _number() -> Column[int]:
    """Order of writing, where wall time may tie."""
    return Column("number", Integer, primary_key=True)


# --- bookings -------------------------------------------------------------------------------------

reservations = Table(
    "reservations",
    metadata,
    *(Column(c.name, _TYPES[c.kind], primary_key=c.kind == "id", nullable=not c.required) for c in COLUMNS),
    Index(None, "booked_on", "reservation_id"),
)

# No foreign key: an outcome may arrive before its reservation, or for one in quarantine.
outcomes = Table(
    "outcomes",
    metadata,
    Column("reservation_id", Identifier, primary_key=True),
    Column("status", Text, nullable=False),
    Column("known_on", Date, nullable=False),
)

# The reservation leads the key: a window is read by its bookings, not by all that a version ever scored.
predictions = Table(
    "predictions",
    metadata,
    Column("reservation_id", Identifier, ForeignKey("reservations.reservation_id"), primary_key=True),
    Column("model_version", Identifier, primary_key=True),
    Column("probability", Double, nullable=False),
    Column("scored_as_of", Date, nullable=False),
    Column("scored_at", Instant, nullable=False),
)

# `digest` of the original values: the same bad row read again is stored once.
quarantine = Table(
    "quarantine",
    metadata,
    _number(),
    Column("source", Text, nullable=False),
    Column("row", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("problems", JSON, nullable=False),
    Column("values", JSON, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    UniqueConstraint("source", "row", "digest"),
)

loads = Table(
    "loads",
    metadata,
    _number(),
    Column("source", Text, nullable=False),
    Column("span_from", Date),
    Column("span_until", Date),
    Column("read", Integer, nullable=False),
    Column("outside", Integer, nullable=False),
    Column("loaded", Integer, nullable=False),
    Column("unchanged", Integer, nullable=False),
    Column("updated", Integer, nullable=False),
    Column("quarantined", Integer, nullable=False),
    Column("outcomes", Integer, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

# --- monitor and retraining -----------------------------------------------------------------------

decisions = Table(
    "decisions",
    metadata,
    _number(),
    Column("report_id", Text, nullable=False, unique=True),
    Column("champion", Identifier, nullable=False),
    Column("window_end", Date, nullable=False),
    Column("action", Text, nullable=False),
    Column("report", JSON, nullable=False),
    Column("decision", JSON, nullable=False),
    Column("request_id", Text),
    Column("recorded_at", Instant, nullable=False),
    UniqueConstraint("champion", "window_end"),
    Index(None, "window_end"),
)

requests = Table(
    "requests",
    metadata,
    _number(),
    Column("request_id", Text, nullable=False, unique=True),
    Column("as_of", Date, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("report_id", Text),
    Column("champion", Text),
    Column("version", Text),
    Column("detail", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("state_since", Instant, nullable=False),
    Index(None, "state", "number"),
)

# A released lease keeps its row, without an expiry, so that its token only ever grows.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("token", Integer, nullable=False),
    Column("expires_at", Instant),
)

switches = Table(
    "switches",
    metadata,
    Column("name", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("since", Instant, nullable=False),
)

# --- ledger ---------------------------------------------------------------------------------------

versions = Table(
    "versions",
    metadata,
    Column("version", Text, primary_key=True),
    Column("request_id", Text, nullable=False, unique=True),
    Column("run_id", Text, nullable=False),
    Column("trained_as_of", Date, nullable=False),
    Column("data_digest", Text, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

standing = Table(
    "standing",
    metadata,
    Column("model", Text, primary_key=True),
    Column("champion", Text),
    Column("challenger", Text),
    Column("epoch", Integer, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("model", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("champion", Text),
    Column("challenger", Text),
    Column("reason", Text, nullable=False),
    Column("request_id", Text),
    Column("as_of", Date, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

# --- outbox ---------------------------------------------------------------------------------------

messages = Table(
    "messages",
    metadata,
    _number(),
    Column("id", Text, nullable=False, unique=True),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Instant, nullable=False),
    Column("last_error", Text),
    Column("created_at", Instant, nullable=False),
    Column("sent_at", Instant),
    Index(None, "state", "number"),
)
