"""First schema: bookings, predictions, decisions, requests, leases, ledger, outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_IDENTIFIER = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.Text(), nullable=False),
        sa.Column("champion", _IDENTIFIER, nullable=False),
        sa.Column("window_end", sa.Date(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("decision", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_decisions")),
        sa.UniqueConstraint("champion", "window_end", name=op.f("uq_decisions_champion_window_end")),
        sa.UniqueConstraint("report_id", name=op.f("uq_decisions_report_id")),
    )
    op.create_index(op.f("ix_decisions_window_end"), "decisions", ["window_end"])

    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "ledger",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("champion", sa.Text()),
        sa.Column("challenger", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "epoch", name=op.f("pk_ledger")),
    )
    op.create_table(
        "loads",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("span_from", sa.Date()),
        sa.Column("span_until", sa.Date()),
        sa.Column("read", sa.Integer(), nullable=False),
        sa.Column("outside", sa.Integer(), nullable=False),
        sa.Column("loaded", sa.Integer(), nullable=False),
        sa.Column("unchanged", sa.Integer(), nullable=False),
        sa.Column("updated", sa.Integer(), nullable=False),
        sa.Column("quarantined", sa.Integer(), nullable=False),
        sa.Column("outcomes", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_loads")),
    )
    op.create_table(
        "messages",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_messages")),
        sa.UniqueConstraint("id", name=op.f("uq_messages_id")),
    )
    op.create_index(op.f("ix_messages_state_number"), "messages", ["state", "number"])

    op.create_table(
        "outcomes",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("known_on", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_outcomes")),
    )
    op.create_table(
        "quarantine",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_quarantine")),
        sa.UniqueConstraint("source", "row", "digest", name=op.f("uq_quarantine_source_row_digest")),
    )
    op.create_table(
        "requests",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.Text()),
        sa.Column("champion", sa.Text()),
        sa.Column("version", sa.Text()),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_requests")),
        sa.UniqueConstraint("request_id", name=op.f("uq_requests_request_id")),
    )
    op.create_index(op.f("ix_requests_state_number"), "requests", ["state", "number"])

    op.create_table(
        "reservations",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("hotel", sa.Text(), nullable=False),
        sa.Column("booked_on", sa.Date(), nullable=False),
        sa.Column("arrival_on", sa.Date(), nullable=False),
        sa.Column("weekend_nights", sa.Integer(), nullable=False),
        sa.Column("week_nights", sa.Integer(), nullable=False),
        sa.Column("adults", sa.Integer(), nullable=False),
        sa.Column("children", sa.Integer()),
        sa.Column("babies", sa.Integer()),
        sa.Column("meal", sa.Text()),
        sa.Column("market_segment", sa.Text()),
        sa.Column("distribution_channel", sa.Text()),
        sa.Column("repeated_guest", sa.Integer()),
        sa.Column("previous_cancellations", sa.Integer()),
        sa.Column("previous_stays", sa.Integer()),
        sa.Column("room_type", sa.Text()),
        sa.Column("deposit_type", sa.Text()),
        sa.Column("agent", sa.Text()),
        sa.Column("company", sa.Text()),
        sa.Column("customer_type", sa.Text()),
        sa.Column("price", sa.Double()),
        sa.Column("special_requests", sa.Integer()),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_reservations")),
    )
    op.create_index(op.f("ix_reservations_booked_on_reservation_id"), "reservations", ["booked_on", "reservation_id"])

    op.create_table(
        "standing",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("champion", sa.Text()),
        sa.Column("challenger", sa.Text()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_standing")),
    )
    op.create_table(
        "switches",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_switches")),
    )
    op.create_table(
        "versions",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("trained_as_of", sa.Date(), nullable=False),
        sa.Column("data_digest", sa.Text(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_versions")),
        sa.UniqueConstraint("request_id", name=op.f("uq_versions_request_id")),
    )
    op.create_table(
        "predictions",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("model_version", _IDENTIFIER, nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("scored_as_of", sa.Date(), nullable=False),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["reservation_id"], ["reservations.reservation_id"], name=op.f("fk_predictions_reservation_id")
        ),
        sa.PrimaryKeyConstraint("reservation_id", "model_version", name=op.f("pk_predictions")),
    )


def downgrade() -> None:
    op.drop_table("predictions")
    op.drop_table("versions")
    op.drop_table("switches")
    op.drop_table("standing")
    op.drop_table("reservations")
    op.drop_table("requests")
    op.drop_table("quarantine")
    op.drop_table("outcomes")
    op.drop_table("messages")
    op.drop_table("loads")
    op.drop_table("ledger")
    op.drop_table("leases")
    op.drop_table("decisions")
