"""Trials and probations, stored features, what is served; the ledger says what changed and by whom."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_IDENTIFIER = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NOT_ENDED = sa.text("state IN ('running', 'awaiting approval')")


def upgrade() -> None:
    op.create_index(op.f("ix_reservations_arrival_on"), "reservations", ["arrival_on"])
    op.create_index(op.f("ix_outcomes_known_on"), "outcomes", ["known_on"])

    for name in ("change", "by", "trial_id"):
        op.add_column("ledger", sa.Column(name, sa.Text()))
    # Until now a version became the first champion, or stood as challenger; nobody could do either by hand.
    op.execute(
        """
        UPDATE ledger SET
            change = CASE
                WHEN challenger IS NOT NULL THEN 'challenger stands'
                WHEN epoch = 1 THEN 'first champion'
                ELSE 'challenger left'
            END,
            "by" = 'automatic'
        """
    )
    with op.batch_alter_table("ledger") as ledger:
        ledger.alter_column("change", existing_type=sa.Text(), nullable=False)
        ledger.alter_column("by", existing_type=sa.Text(), nullable=False)

    op.create_table(
        "features",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lead_days", sa.Double()),
        sa.Column("weekend_nights", sa.Double()),
        sa.Column("week_nights", sa.Double()),
        sa.Column("adults", sa.Double()),
        sa.Column("children", sa.Double()),
        sa.Column("babies", sa.Double()),
        sa.Column("repeated_guest", sa.Double()),
        sa.Column("previous_cancellations", sa.Double()),
        sa.Column("previous_stays", sa.Double()),
        sa.Column("price", sa.Double()),
        sa.Column("special_requests", sa.Double()),
        sa.Column("agent_cancel_rate", sa.Double()),
        sa.Column("agent_bookings", sa.Double()),
        sa.Column("company_cancel_rate", sa.Double()),
        sa.Column("hotel", sa.Text()),
        sa.Column("meal", sa.Text()),
        sa.Column("market_segment", sa.Text()),
        sa.Column("distribution_channel", sa.Text()),
        sa.Column("room_type", sa.Text()),
        sa.Column("deposit_type", sa.Text()),
        sa.Column("customer_type", sa.Text()),
        sa.ForeignKeyConstraint(
            ["reservation_id"], ["reservations.reservation_id"], name=op.f("fk_features_reservation_id")
        ),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_features")),
    )
    op.create_table(
        "trials",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("trial_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("champion", sa.Text(), nullable=False),
        sa.Column("rival", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("opened_on", sa.Date(), nullable=False),
        sa.Column("cohort_after", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("serve_share", sa.Double(), nullable=False),
        sa.Column("sequence", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided_on", sa.Date()),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("asked_until", sa.DateTime(timezone=True)),
        sa.Column("asked_by", sa.Text()),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_trials")),
        sa.UniqueConstraint("trial_id", name=op.f("uq_trials_trial_id")),
    )
    op.create_index(
        op.f("ix_trials_model"),
        "trials",
        ["model"],
        unique=True,
        sqlite_where=_NOT_ENDED,
        postgresql_where=_NOT_ENDED,
    )
    op.create_table(
        "arms",
        sa.Column("trial_id", sa.Text(), nullable=False),
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.trial_id"], name=op.f("fk_arms_trial_id")),
        sa.ForeignKeyConstraint(
            ["reservation_id"], ["reservations.reservation_id"], name=op.f("fk_arms_reservation_id")
        ),
        sa.PrimaryKeyConstraint("trial_id", "reservation_id", name=op.f("pk_arms")),
    )
    op.create_table(
        "servings",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("model_version", _IDENTIFIER, nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("arm", sa.Text()),
        sa.Column("trial_id", sa.Text()),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["reservation_id"], ["reservations.reservation_id"], name=op.f("fk_servings_reservation_id")
        ),
        sa.PrimaryKeyConstraint("reservation_id", "number", name=op.f("pk_servings")),
    )
    op.execute(
        """
        CREATE VIEW scores AS
        SELECT reservation_id, probability, model_version, arm, epoch, served_at
        FROM servings
        WHERE number = (SELECT max(number) FROM servings AS newer WHERE newer.reservation_id = servings.reservation_id)
        """
    )


def downgrade() -> None:
    op.execute("DROP VIEW scores")
    op.drop_table("servings")
    op.drop_table("arms")
    op.drop_table("trials")
    op.drop_table("features")
    with op.batch_alter_table("ledger") as ledger:
        for name in ("trial_id", "by", "change"):
            ledger.drop_column(name)
    op.drop_index(op.f("ix_outcomes_known_on"), "outcomes")
    op.drop_index(op.f("ix_reservations_arrival_on"), "reservations")
