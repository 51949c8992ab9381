"""Arms of a trial, and which score of which version is served of each booking."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

import pandas as pd
from sqlalchemy import ColumnElement, FromClause, Text, and_, case, func, literal, null, or_, select

from cancellations.domain.comparison import Arm
from cancellations.domain.promotion import Kind
from cancellations.domain.reservation import GROUP
from cancellations.store import tables
from cancellations.store.bookings import open_on
from cancellations.store.bulk import BulkTransaction, frame, raw
from cancellations.store.ledger import Ledger
from cancellations.store.trials import Trials


class Servings(BulkTransaction, Ledger, Trials):
    """The part of `ports.UnitOfWork` that serves; it reads the standing and the trial."""

    def unassigned(self, trial_id: str, as_of: date) -> pd.Series:
        reservation_id = tables.reservations.c.reservation_id
        assigned = select(1).where(tables.arms.c.trial_id == trial_id, tables.arms.c.reservation_id == reservation_id)
        query = select(reservation_id).where(open_on(as_of), ~assigned.exists())
        # Sorted here: for ORDER BY SQLite would go through all bookings along their key.
        return frame(self._read(query), [reservation_id])["reservation_id"].sort_values(ignore_index=True)

    def add_arms(self, trial_id: str, arms: Mapping[str, Arm]) -> int:
        if not arms:
            return 0
        given = pd.DataFrame({"reservation_id": list(arms), "arm": [arm.value for arm in arms.values()]})
        with self._staged([tables.arms.c.reservation_id, tables.arms.c.arm], given) as staged:
            # One order for everybody: two writers wait for each other instead of deadlocking.
            rows = select(literal(trial_id), staged.c.reservation_id, staged.c.arm).order_by(staged.c.reservation_id)
            names = [c.name for c in tables.arms.columns]
            return self._write(self._insert(tables.arms).from_select(names, rows).on_conflict_do_nothing())

    def dealt(self, trial_id: str) -> pd.DataFrame:
        arms, last, newer = tables.arms, tables.servings.alias("last"), tables.servings.alias("newer")
        highest = select(func.max(newer.c.number)).where(
            newer.c.reservation_id == arms.c.reservation_id, newer.c.trial_id == trial_id
        )
        served = and_(last.c.reservation_id == arms.c.reservation_id, last.c.number == highest.scalar_subquery())
        columns = [arms.c.reservation_id, arms.c.arm, last.c.arm.label("served")]
        query = select(*columns).select_from(arms.outerjoin(last, served)).where(arms.c.trial_id == trial_id)
        rows = self._read(query).all()
        return pd.DataFrame(rows, columns=["reservation_id", "arm", "served"]).set_index("reservation_id")

    def serve(self, as_of: date, now: datetime) -> int:
        standing = self._standing(hold=True)
        if standing.champion is None:
            return 0
        trial = self.open_trial()
        # A trial of an earlier epoch compares a pair that is no more.
        tried = trial is not None and trial.kind is Kind.TRIAL and trial.epoch == standing.epoch
        trial_id, rival_version = (trial.trial_id, trial.rival) if trial is not None and tried else (None, None)

        booking, arms, last = tables.reservations.c, tables.arms, tables.servings.alias("last")
        champion, rival = tables.predictions.alias("champion"), tables.predictions.alias("rival")
        newer = tables.servings.alias("newer")
        highest = select(func.max(newer.c.number)).where(newer.c.reservation_id == booking.reservation_id)

        def of_booking(table: FromClause, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
            return and_(table.c.reservation_id == booking.reservation_id, *conditions)

        joined = (
            tables.reservations.outerjoin(arms, of_booking(arms, arms.c.trial_id == literal(trial_id, Text)))
            .outerjoin(champion, of_booking(champion, champion.c.model_version == standing.champion))
            .outerjoin(
                rival,
                of_booking(rival, rival.c.model_version == literal(rival_version, Text), arms.c.arm == Arm.RIVAL.value),
            )
            .outerjoin(last, of_booking(last, last.c.number == highest.scalar_subquery()))
        )
        # The rival's arm without a score by the rival is served the champion's, and recorded as such.
        has_rival = rival.c.probability.is_not(None)
        version = case((has_rival, literal(rival_version, Text)), else_=literal(standing.champion, Text))
        arm = case((arms.c.arm.is_(None), null()), (has_rival, Arm.RIVAL.value), else_=Arm.CHAMPION.value)
        wanted = {
            "reservation_id": booking.reservation_id,
            "number": func.coalesce(last.c.number, 0) + 1,
            "epoch": literal(standing.epoch),
            "model_version": version,
            "probability": func.coalesce(rival.c.probability, champion.c.probability),
            "arm": arm,
            "trial_id": arms.c.trial_id,
            "served_at": literal(now, tables.Instant),
        }
        rows = (
            select(*wanted.values())
            .select_from(joined)
            .where(open_on(as_of), wanted["probability"].is_not(None))
            # What would be served again as it is served now needs no row.
            .where(or_(*(last.c[n].is_distinct_from(wanted[n]) for n in ("model_version", "arm", "trial_id"))))
        )
        return self._write(self._insert(tables.servings).from_select(list(wanted), rows))

    def served(self, as_of: date) -> pd.DataFrame:
        booking, score = tables.reservations.c, tables.scores.c
        columns = [
            booking.reservation_id,
            *(booking[name] for name in GROUP),
            booking.deposit_type,
            booking.price,
            score.probability,
            score.model_version,
            score.arm,
            score.epoch,
            score.served_at,
            score.hold_out,
        ]
        query = (
            select(*raw(columns))
            .select_from(tables.reservations)
            .join(tables.scores, score.reservation_id == booking.reservation_id)
            .where(open_on(as_of))
        )
        open_now = frame(self._read(query), columns).astype({"epoch": "int64"})
        return open_now.sort_values("reservation_id", ignore_index=True)
