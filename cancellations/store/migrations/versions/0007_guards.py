"""What guards found of a new champion; days whose bookings are held back from scoring; what checks have learned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "guards",
        sa.Column("trial_id", sa.Text(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.trial_id"], name=op.f("fk_guards_trial_id_trials")),
        sa.PrimaryKeyConstraint("trial_id", name=op.f("pk_guards")),
    )
    op.create_table(
        "holds",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("held_on", sa.Date(), nullable=False),
        sa.Column("bookings", sa.Integer(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_holds")),
    )
    held = sa.text("state = 'held'")
    op.create_index(op.f("ix_holds_day"), "holds", ["day"], unique=True, sqlite_where=held, postgresql_where=held)
    op.create_table(
        "pasts",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("learned", sa.JSON(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_pasts")),
    )


def downgrade() -> None:
    op.drop_table("pasts")
    op.drop_table("holds")
    op.drop_table("guards")
