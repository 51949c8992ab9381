"""Where we put the registry's aliases, and who else moved them; actions upon bookings, and the hold-out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_IDENTIFIER = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "placements",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.Integer()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_placements")),
    )
    op.create_table(
        "alias_moves",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("found", sa.Text(), nullable=False),
        sa.Column("placed", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model", "epoch", "alias", "found", name=op.f("pk_alias_moves")),
    )
    op.create_table(
        "actions",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("action_taken", sa.Text(), nullable=False),
        sa.Column("acted_on", sa.Date()),
        sa.Column("load", sa.Integer()),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_actions")),
    )
    op.create_index(op.f("ix_actions_acted_on"), "actions", ["acted_on"])
    op.create_table(
        "hold_outs",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("dealt_on", sa.Date(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reservation_id"], ["reservations.reservation_id"], name=op.f("fk_hold_outs_reservation_id")
        ),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_hold_outs")),
    )
    op.create_index(op.f("ix_hold_outs_held_out_dealt_on"), "hold_outs", ["held_out", "dealt_on"])
    _make_scores(
        "EXISTS (SELECT 1 FROM hold_outs WHERE hold_outs.reservation_id = servings.reservation_id AND held_out)"
    )


def _make_scores(hold_out: str | None) -> None:
    """The view that the hotel's other systems read, with the column `hold_out` or without."""
    added = "" if hold_out is None else f", {hold_out} AS hold_out"
    # PostgreSQL adds a column to a view that others have built on, and keeps their rights; it takes none away.
    make = "CREATE OR REPLACE VIEW"
    if hold_out is None or op.get_bind().dialect.name == "sqlite":
        op.execute("DROP VIEW scores")
        make = "CREATE VIEW"
    op.execute(
        f"""
        {make} scores AS
        SELECT reservation_id, probability, model_version, arm, epoch, served_at{added}
        FROM servings
        WHERE number = (SELECT max(number) FROM servings AS newer WHERE newer.reservation_id = servings.reservation_id)
        """
    )


def downgrade() -> None:
    _make_scores(None)
    op.drop_table("hold_outs")
    op.drop_table("actions")
    op.drop_table("alias_moves")
    op.drop_table("placements")
