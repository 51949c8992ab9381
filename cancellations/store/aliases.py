"""Where we put the registry's aliases, and who else moved them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, insert, or_, select, update

from cancellations.domain.aliases import SLOWEST, AliasMove, Placement
from cancellations.settings import MODEL
from cancellations.store import tables
from cancellations.store.transaction import Transaction

# Two places without a version are the same place, which NULL would not be.
NOBODY = ""


class Aliases(Transaction):
    """The part of `ports.UnitOfWork` that knows the registry's aliases."""

    def placements(self) -> list[Placement]:
        placed = tables.placements.c
        of_ours = placed.model == MODEL
        last = select(func.max(placed.finished)).where(of_ours).scalar_subquery()
        query = select(placed.epoch, placed.finished).where(
            of_ours, or_(placed.finished.is_(None), placed.finished == last)
        )
        return [Placement(row.epoch, row.finished) for row in self._read(query.order_by(placed.number))]

    def begin_placement(self, epoch: int, now: datetime) -> int:
        new = insert(tables.placements).values(model=MODEL, epoch=epoch, begun_at=now)
        self._lock()
        return int(self._read(new.returning(tables.placements.c.number)).scalar_one())

    def finish_placement(self, number: int, now: datetime) -> None:
        placed = tables.placements.c
        # One after the other: the order in which they were finished is what is asked for later.
        self._lock_table(tables.placements)
        following = select(func.coalesce(func.max(placed.finished), 0) + 1).scalar_subquery()
        self._write(update(tables.placements).where(placed.number == number).values(finished=following))
        old = or_(placed.finished.is_not(None), placed.begun_at < now - SLOWEST)
        self._write(delete(tables.placements).where(placed.model == MODEL, placed.number != number, old))

    def drop_placement(self, number: int) -> None:
        self._write(delete(tables.placements).where(tables.placements.c.number == number))

    def add_alias_move(self, move: AliasMove) -> None:
        new = self._insert(tables.alias_moves).values(
            model=MODEL,
            epoch=move.epoch,
            alias=move.alias,
            found=move.found or NOBODY,
            placed=move.placed,
            reason=move.reason,
            seen_at=move.seen_at,
            times=1,
        )
        again = {"times": tables.alias_moves.c.times + 1, "reason": move.reason}
        self._write(new.on_conflict_do_update(index_elements=["model", "epoch", "alias", "found"], set_=again))

    def alias_moves(self) -> list[AliasMove]:
        moved = tables.alias_moves.c
        query = select(tables.alias_moves).where(moved.model == MODEL).order_by(moved.epoch, moved.seen_at, moved.alias)
        return [
            AliasMove(row.alias, row.placed, row.found or None, row.epoch, row.reason, row.seen_at, row.times)
            for row in self._read(query)
        ]
