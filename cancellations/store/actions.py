"""What was done about bookings because of their scores, and which of them are held out from that."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
from sqlalchemy import func, literal, select

from cancellations.domain.reservation import ACTION_NAMES, GROUP
from cancellations.ports import Upserted
from cancellations.store import tables
from cancellations.store.bookings import acted_by, open_on
from cancellations.store.bulk import BulkTransaction, frame, raw


class Actions(BulkTransaction):
    """The part of `ports.UnitOfWork` that knows actions and the hold-out."""

    def record_actions(self, actions: pd.DataFrame, load: int | None = None) -> Upserted:
        if actions.empty:
            return Upserted(0, 0, 0)
        own, given = tables.actions.c, [tables.actions.c[name] for name in ACTION_NAMES]
        # Nobody else writes between what is counted here and what is written.
        self._lock_table(tables.actions)
        known = self._by_id(given, actions["reservation_id"]).reindex(actions["reservation_id"])
        told = actions.set_index("reservation_id")
        there = known["action_taken"].notna()
        same = there & (known["action_taken"] == told["action_taken"])
        same &= (known["acted_on"] == told["acted_on"]) | (known["acted_on"].isna() & told["acted_on"].isna())
        with self._staged(given, actions[~same.to_numpy()]) as staged:
            rows = select(*staged.columns, literal(load, own.load.type)).order_by(staged.c.reservation_id)
            new = self._insert(tables.actions).from_select([*ACTION_NAMES, "load"], rows.where(literal(value=True)))
            set_ = {name: new.excluded[name] for name in (*ACTION_NAMES[1:], "load")}
            self._write(new.on_conflict_do_update(index_elements=["reservation_id"], set_=set_))
        return Upserted(int((~there).sum()), int(same.sum()), int((there & ~same).sum()))

    def first_action(self, known_until: date) -> date | None:
        acted_on = tables.actions.c.acted_on
        query = select(acted_on).where(acted_by(known_until)).order_by(acted_on).limit(1)
        return self._read(query).scalar()

    def acted(self, reservation_ids: pd.Series, known_until: date) -> np.ndarray:
        own = tables.actions.c
        found = self._by_id([own.reservation_id], reservation_ids, acted_by(known_until))
        return reservation_ids.isin(found.index).to_numpy(dtype=bool)

    def held_out(self, reservation_ids: pd.Series) -> np.ndarray:
        own = tables.hold_outs.c
        found = self._by_id([own.reservation_id], reservation_ids, own.held_out)
        return reservation_ids.isin(found.index).to_numpy(dtype=bool)

    def has_hold_out(self, until: date) -> bool:
        own = tables.hold_outs.c
        return self._read(select(own.dealt_on).where(own.held_out, own.dealt_on <= until).limit(1)).first() is not None

    def undealt(self, as_of: date) -> pd.DataFrame:
        booking, own = tables.reservations.c, tables.hold_outs.c
        columns = [booking.reservation_id, *(booking[name] for name in GROUP)]
        dealt = select(1).where(own.reservation_id == booking.reservation_id)
        return frame(self._read(select(*raw(columns)).where(open_on(as_of), ~dealt.exists())), columns)

    def deal(self, reservation_ids: pd.Series, held_out: np.ndarray, as_of: date) -> int:
        if reservation_ids.empty:
            return 0
        own = tables.hold_outs.c
        given = pd.DataFrame({"reservation_id": reservation_ids, "held_out": held_out.astype("int64")})
        with self._staged([own.reservation_id, tables.DEALT], given) as staged:
            held = staged.c.held_out == 1
            rows = select(staged.c.reservation_id, held, literal(as_of, own.dealt_on.type))
            names = ["reservation_id", "held_out", "dealt_on"]
            ordered = rows.order_by(staged.c.reservation_id)
            return self._write(self._insert(tables.hold_outs).from_select(names, ordered).on_conflict_do_nothing())

    def actions_on_record(self, known_until: date) -> int:
        counted = select(func.count()).where(acted_by(known_until)).select_from(tables.actions)
        return self._read(counted).scalar_one()
