"""Loads that can go on, corrections, tallies of agents and companies, features that mappings declare."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_IDENTIFIER = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_UNFINISHED = sa.text("state = 'running'")
_INSTANT = sa.DateTime(timezone=True)
_LOADS = ("content", "fingerprint", "state", "applied", "left", "began_at")


def upgrade() -> None:
    op.add_column("reservations", sa.Column("group_size", sa.Integer()))
    op.add_column("reservations", sa.Column("extras", sa.Text()))
    op.add_column("features", sa.Column("group_size", sa.Double()))
    op.add_column("features", sa.Column("extras", sa.Text()))
    _count_groups()
    _create_corrections()
    _create_tallies()
    op.create_table(
        "extra_columns",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("declared_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_extra_columns")),
    )
    op.create_table(
        "mappings",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("recorded_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_mappings")),
    )
    _extend_loads()
    _extend_quarantine()


def _count_groups() -> None:
    # Nobody knows any more in which load a booking came: all that the store holds of a group counts.
    op.execute(
        """
        UPDATE reservations SET group_size = counted.size
        FROM (
            SELECT reservation_id, count(*) OVER (
                PARTITION BY hotel, booked_on, arrival_on, agent, company, market_segment, weekend_nights, week_nights
            ) AS size
            FROM reservations
        ) AS counted
        WHERE counted.reservation_id = reservations.reservation_id
        """
    )
    op.execute(
        """
        UPDATE features SET group_size = reservations.group_size
        FROM reservations WHERE reservations.reservation_id = features.reservation_id
        """
    )


def _create_corrections() -> None:
    op.create_table(
        "corrections",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hotel", sa.Text()),
        sa.Column("booked_on", sa.Date()),
        sa.Column("arrival_on", sa.Date()),
        sa.Column("weekend_nights", sa.Integer()),
        sa.Column("week_nights", sa.Integer()),
        sa.Column("adults", sa.Integer()),
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
        sa.Column("extras", sa.Text()),
        sa.Column("load", sa.Integer()),
        sa.ForeignKeyConstraint(
            ["reservation_id"], ["reservations.reservation_id"], name=op.f("fk_corrections_reservation_id")
        ),
        sa.PrimaryKeyConstraint("reservation_id", "number", name=op.f("pk_corrections")),
    )
    op.create_table(
        "outcome_corrections",
        sa.Column("reservation_id", _IDENTIFIER, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("known_on", sa.Date(), nullable=False),
        sa.Column("load", sa.Integer()),
        sa.ForeignKeyConstraint(
            ["reservation_id"], ["outcomes.reservation_id"], name=op.f("fk_outcome_corrections_reservation_id")
        ),
        sa.PrimaryKeyConstraint("reservation_id", "number", name=op.f("pk_outcome_corrections")),
    )


def _create_tallies() -> None:
    op.create_table(
        "tallies",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("arrival_on", sa.Date(), nullable=False),
        sa.Column("lag", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bookings", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", "arrival_on", "lag", name=op.f("pk_tallies")),
    )
    days = "o.known_on - r.arrival_on"
    if op.get_bind().dialect.name == "sqlite":
        days = "CAST(julianday(o.known_on) - julianday(r.arrival_on) AS INTEGER)"
    for kind, key in (("all", "''"), ("agent", "r.agent"), ("company", "r.company")):
        op.execute(
            f"""
            INSERT INTO tallies (kind, key, arrival_on, lag, bookings)
            SELECT '{kind}', own.key, own.arrival_on, own.lag, count(*)
            FROM (
                SELECT {key} AS key, r.arrival_on,
                    CASE
                        WHEN o.status IN ('canceled', 'no_show') THEN CASE WHEN {days} > 0 THEN {days} ELSE 0 END
                        ELSE -1
                    END AS lag
                FROM reservations AS r LEFT JOIN outcomes AS o ON o.reservation_id = r.reservation_id
                WHERE {key} IS NOT NULL
            ) AS own
            GROUP BY own.key, own.arrival_on, own.lag
            """
        )


def _extend_loads() -> None:
    for name in ("content", "fingerprint", "state"):
        op.add_column("loads", sa.Column(name, sa.Text()))
    for name in ("applied", "left"):
        op.add_column("loads", sa.Column(name, sa.Integer()))
    op.add_column("loads", sa.Column("began_at", _INSTANT))
    op.add_column("loads", sa.Column("mapping", sa.Text()))
    op.add_column("loads", sa.Column("reason", sa.Text()))
    op.execute(
        """
        UPDATE loads SET
            content = 'before 0003', fingerprint = '', state = 'done', applied = read, "left" = outside,
            began_at = recorded_at
        """
    )
    with op.batch_alter_table("loads") as loads:
        for name in _LOADS:
            loads.alter_column(name, nullable=False)
        loads.create_check_constraint(
            op.f("ck_loads_nothing_lost"),
            "state <> 'done' OR read = outside + loaded + unchanged + updated + quarantined",
        )
    op.create_index(op.f("ix_loads_source_number"), "loads", ["source", "number"])
    op.create_index(
        op.f("ix_loads_content"),
        "loads",
        ["content"],
        unique=True,
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )


def _extend_quarantine() -> None:
    op.add_column("quarantine", sa.Column("mapping", sa.Text()))
    op.add_column("quarantine", sa.Column("state", sa.Text()))
    op.add_column("quarantine", sa.Column("settled_at", _INSTANT))
    op.add_column("quarantine", sa.Column("reservation_id", _IDENTIFIER))
    op.add_column("quarantine", sa.Column("reason", sa.Text()))
    op.execute("UPDATE quarantine SET state = 'waiting'")
    with op.batch_alter_table("quarantine") as quarantine:
        quarantine.alter_column("state", existing_type=sa.Text(), nullable=False)
    op.create_index(op.f("ix_quarantine_state_number"), "quarantine", ["state", "number"])


def downgrade() -> None:
    op.drop_index(op.f("ix_quarantine_state_number"), "quarantine")
    with op.batch_alter_table("quarantine") as quarantine:
        for name in ("reason", "reservation_id", "settled_at", "state", "mapping"):
            quarantine.drop_column(name)
    op.drop_index(op.f("ix_loads_content"), "loads")
    op.drop_index(op.f("ix_loads_source_number"), "loads")
    with op.batch_alter_table("loads") as loads:
        loads.drop_constraint(op.f("ck_loads_nothing_lost"), type_="check")
        for name in ("reason", "mapping", *reversed(_LOADS)):
            loads.drop_column(name)
    for table in ("mappings", "extra_columns", "tallies", "outcome_corrections", "corrections"):
        op.drop_table(table)
    for name in ("extras", "group_size"):
        op.drop_column("features", name)
        op.drop_column("reservations", name)
