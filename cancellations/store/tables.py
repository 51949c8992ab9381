"""The tables. Their history is in `migrations/`; a test holds the two together.

Event time is DATE; wall time is an instant in UTC. Every query of a hot path has its index here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
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
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from cancellations.domain.checks import HoldState
from cancellations.domain.features import CATEGORICAL, NUMERIC
from cancellations.domain.promotion import TrialState
from cancellations.domain.reservation import COLUMNS, GROUP_SIZE, Kind
from cancellations.errors import BadInput
from cancellations.ports import LoadState


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
        "ck": "ck_%(table_name)s_%(constraint_name)s",
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
    Column(GROUP_SIZE, Integer),
    # Columns that a mapping declares, as JSON with sorted names; NULL where there are none.
    Column("extras", Text),
    Index(None, "booked_on", "reservation_id"),
    Index(None, "arrival_on"),
)

# No foreign key: an outcome may arrive before its reservation, or for one in quarantine.
outcomes = Table(
    "outcomes",
    metadata,
    Column("reservation_id", Identifier, primary_key=True),
    Column("status", Text, nullable=False),
    Column("known_on", Date, nullable=False),
    Index(None, "known_on"),
)

# What a correction replaced, where a score had been made from it; `number` counts a booking's own.
corrections = Table(
    "corrections",
    metadata,
    Column("reservation_id", Identifier, ForeignKey("reservations.reservation_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    *(Column(c.name, _TYPES[c.kind]) for c in COLUMNS if c.kind != "id"),
    Column("extras", Text),
    Column("load", Integer),
)

outcome_corrections = Table(
    "outcome_corrections",
    metadata,
    Column("reservation_id", Identifier, ForeignKey("outcomes.reservation_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False),
    Column("known_on", Date, nullable=False),
    Column("load", Integer),
)

# What somebody did about a booking because of its score; as its source tells it now.
actions = Table(
    "actions",
    metadata,
    Column("reservation_id", Identifier, primary_key=True),
    Column("action_taken", Text, nullable=False),
    Column("acted_on", Date),
    Column("load", Integer),
    Index(None, "acted_on"),
)

# Whether a booking is held out from actions, as it was dealt with the first score that it was served.
hold_outs = Table(
    "hold_outs",
    metadata,
    Column("reservation_id", Identifier, ForeignKey("reservations.reservation_id"), primary_key=True),
    Column("held_out", Boolean, nullable=False),
    Column("dealt_on", Date, nullable=False),
    Index(None, "held_out", "dealt_on"),
)
# The same on its way through a temporary table, which knows numbers and texts.
DEALT: Column[int] = Column("held_out", Integer)

# `domain.features.tally` of all bookings, kept up in the transaction that writes them.
tallies = Table(
    "tallies",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("arrival_on", Date, primary_key=True),
    Column("lag", Integer, primary_key=True, autoincrement=False),
    Column("bookings", Integer, nullable=False),
)

# Features beyond the canonical columns, as the first mapping that brought them declared them.
extra_columns = Table(
    "extra_columns",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("declared_at", Instant, nullable=False),
)

# As they were when a booking was first scored: every version sees the same.
features = Table(
    "features",
    metadata,
    Column("reservation_id", Identifier, ForeignKey("reservations.reservation_id"), primary_key=True),
    Column("stored_at", Instant, nullable=False),
    *(Column(name, Double) for name in NUMERIC),
    *(Column(name, Text) for name in CATEGORICAL),
    Column("extras", Text),
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
    # The booking's, where it could be read; by it a later load that brings the booking ends the waiting.
    Column("reservation_id", Identifier),
    Column("problems", JSON, nullable=False),
    Column("values", JSON, nullable=False),
    Column("mapping", Text),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("recorded_at", Instant, nullable=False),
    Column("settled_at", Instant),
    UniqueConstraint("source", "row", "digest"),
    Index(None, "state", "number"),
)

# Mappings by which something was loaded, by the digest of their text.
mappings = Table(
    "mappings",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

# As text, so that SQLite sees in a query that the index on it may be used.
UNFINISHED = text(f"state = '{LoadState.RUNNING.value}'")

# `content` is a digest of what is loaded, by which mapping, for which span. The unique index: a load that
# was interrupted is found, and gone on with, by whoever loads the same again.
loads = Table(
    "loads",
    metadata,
    _number(),
    Column("source", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("mapping", Text),
    Column("span_from", Date),
    Column("span_until", Date),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("applied", Integer, nullable=False),
    Column("left", Integer, nullable=False),
    Column("read", Integer, nullable=False),
    Column("outside", Integer, nullable=False),
    Column("loaded", Integer, nullable=False),
    Column("unchanged", Integer, nullable=False),
    Column("updated", Integer, nullable=False),
    Column("quarantined", Integer, nullable=False),
    Column("outcomes", Integer, nullable=False),
    Column("began_at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    CheckConstraint(
        f"state <> '{LoadState.DONE.value}' OR read = outside + loaded + unchanged + updated + quarantined",
        name="nothing_lost",
    ),
    Index(None, "source", "number"),
    Index(None, "content", unique=True, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED),
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

checks = Table(
    "checks",
    metadata,
    _number(),
    Column("day", Date, nullable=False, unique=True),
    Column("bookings", Integer, nullable=False),
    Column("learned_from", Integer, nullable=False),
    Column("findings", JSON, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

# As text, so that SQLite sees in a query that the index on it may be used.
HELD = text(f"state = '{HoldState.HELD.value}'")

# Days whose bookings are, or were, held back from scoring. The unique index: a day is held once at a time.
# `content` is a digest of the bookings that were checked: what has not changed is not checked again.
holds = Table(
    "holds",
    metadata,
    _number(),
    Column("day", Date, nullable=False),
    Column("held_on", Date, nullable=False),
    Column("bookings", Integer, nullable=False),
    Column("findings", JSON, nullable=False),
    Column("content", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("by", Text),
    Column("reason", Text),
    Column("recorded_at", Instant, nullable=False),
    Column("state_since", Instant, nullable=False),
    Index(None, "day", unique=True, sqlite_where=HELD, postgresql_where=HELD),
)

# What checks of a day's bookings go by, learned from the year before it; that of the last days alone is kept.
pasts = Table(
    "pasts",
    metadata,
    Column("day", Date, primary_key=True),
    Column("learned", JSON, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

# Those of a later day say nothing of earlier windows: `as_of` is event time.
calibrations = Table(
    "calibrations",
    metadata,
    _number(),
    Column("as_of", Date, nullable=False),
    Column("learned", JSON, nullable=False),
    Column("recorded_at", Instant, nullable=False),
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
    # How it was made, empty where nobody wrote it down, and what it learnt from.
    Column("recipe", Text, nullable=False),
    Column("labels", Text, nullable=False),
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
    Column("change", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("request_id", Text),
    Column("trial_id", Text),
    Column("as_of", Date, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

# Each time that we put the registry's aliases where an epoch has them: begun, and the how manieth that was finished.
placements = Table(
    "placements",
    metadata,
    _number(),
    Column("model", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("begun_at", Instant, nullable=False),
    Column("finished", Integer),
)

# Aliases that somebody else has moved, once for each place in an epoch; `found` is empty where one was taken away.
alias_moves = Table(
    "alias_moves",
    metadata,
    Column("model", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("alias", Text, primary_key=True),
    Column("found", Text, primary_key=True),
    Column("placed", Text),
    Column("reason", Text, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("times", Integer, nullable=False),
)

# --- trials, and what is served -------------------------------------------------------------------

# As text, so that SQLite sees in a query that the index on it may be used.
NOT_ENDED = text(f"state IN ({', '.join(repr(s.value) for s in TrialState if not s.final)})")

# The unique index: of trials that have not ended there is one at most, whoever writes at once.
trials = Table(
    "trials",
    metadata,
    _number(),
    Column("model", Text, nullable=False),
    Column("trial_id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("champion", Text, nullable=False),
    Column("rival", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("opened_on", Date, nullable=False),
    Column("cohort_after", Date, nullable=False),
    Column("last_day", Date, nullable=False),
    Column("mode", Text, nullable=False),
    Column("serve_share", Double, nullable=False),
    Column("sequence", JSON, nullable=False),
    Column("request_id", Text),
    Column("state", Text, nullable=False),
    Column("decided_on", Date),
    Column("reasons", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("asked_until", Instant),
    Column("asked_by", Text),
    Column("recorded_at", Instant, nullable=False),
    Column("state_since", Instant, nullable=False),
    Index(None, "model", unique=True, sqlite_where=NOT_ENDED, postgresql_where=NOT_ENDED),
)

# What the guards of a probation found, once: of two that look at once the first counts.
guards = Table(
    "guards",
    metadata,
    Column("trial_id", Text, ForeignKey("trials.trial_id"), primary_key=True),
    Column("as_of", Date, nullable=False),
    Column("findings", JSON, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

arms = Table(
    "arms",
    metadata,
    Column("trial_id", Text, ForeignKey("trials.trial_id"), primary_key=True),
    Column("reservation_id", Identifier, ForeignKey("reservations.reservation_id"), primary_key=True),
    Column("arm", Text, nullable=False),
)

# Rows stay as they are written: the history of what was served of each booking. `number` counts the
# booking's own; its highest is what is served now, and no two writers can both add the next.
servings = Table(
    "servings",
    metadata,
    Column("reservation_id", Identifier, ForeignKey("reservations.reservation_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("model_version", Identifier, nullable=False),
    Column("probability", Double, nullable=False),
    Column("arm", Text),
    Column("trial_id", Text),
    Column("served_at", Instant, nullable=False),
)

# The view that the hotel's other systems read: the last serving of each booking. Only migrations make it.
scores = Table(
    "scores",
    MetaData(),
    Column("reservation_id", Identifier),
    Column("probability", Double),
    Column("model_version", Identifier),
    Column("arm", Text),
    Column("epoch", Integer),
    Column("served_at", Instant),
    Column("hold_out", Boolean),
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
