"""Predictions, exactly one for each reservation and model version, and the features they are made from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from operator import itemgetter
from typing import Any

import pandas as pd
from sqlalchemy import (
    Column,
    ColumnElement,
    Date,
    Double,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql

from cancellations.domain import reservation
from cancellations.domain.features import CORE, FEATURES
from cancellations.domain.labels import Ending
from cancellations.ports import Booked
from cancellations.store import tables
from cancellations.store.bookings import BOOKING_ORDER, Bookings, acted_by, open_on
from cancellations.store.bulk import raw
from cancellations.store.extras import EXTRAS, pack, packed, unpack

IDS, DAY = "ids", "day"
_BOOKING = list(tables.reservations.columns)
_FEATURES = [*(tables.features.c[name] for name in FEATURES), tables.features.c.extras]
_told = itemgetter(*FEATURES)
_KEPT = tables.features.c.reservation_id.label("kept")
_GIVEN = [tables.features.c.reservation_id, *_FEATURES]


@cache
def _booked(*, sqlite: bool) -> Select[Any]:
    """Made once: to make it takes many times what the database does for a few ids."""
    booking, kept, dealt = tables.reservations, tables.features, tables.hold_outs
    day = bindparam(DAY, type_=Date())
    acted = select(1).where(tables.actions.c.reservation_id == booking.c.reservation_id, acted_by(day))
    given: ColumnElement[bool]
    if sqlite:
        given = booking.c.reservation_id.in_(select(func.json_each(bindparam(IDS)).table_valued("value").c.value))
    else:
        given = booking.c.reservation_id == func.any(bindparam(IDS, type_=postgresql.ARRAY(Text)))
    return (
        select(
            dealt.c.held_out,
            and_(open_on(day), ~acted.exists()),
            *_BOOKING,
            kept.c.reservation_id.label("kept"),
            *_FEATURES,
        )
        .select_from(
            booking.outerjoin(kept, kept.c.reservation_id == booking.c.reservation_id).outerjoin(
                dealt, dealt.c.reservation_id == booking.c.reservation_id
            )
        )
        .where(given)
    )


def _plain(
    columns: Sequence[Column[Any]], values: Sequence[Any], extras: Sequence[reservation.Column]
) -> dict[str, Any]:
    """One row by names: numbers as float with NaN for missing, texts and dates or None; declared columns too."""
    numeric = (Double, Integer)
    found: dict[str, Any] = {
        c.name: v if not isinstance(c.type, numeric) else math.nan if v is None else float(v)
        for c, v in zip(columns, values, strict=True)
    }
    told = json.loads(found.pop(EXTRAS) or "{}")
    return found | {c.name: told.get(c.name, None if c.kind == "category" else math.nan) for c in extras}


class Scores(Bookings):
    """The part of `ports.UnitOfWork` that knows features and predictions."""

    def features(self, reservation_ids: pd.Series) -> pd.DataFrame:
        return self._as_built(self._by_id(_GIVEN, reservation_ids))

    def _as_built(self, found: pd.DataFrame) -> pd.DataFrame:
        """Stored features as `domain.features.build` gives them, so that a model cannot tell the two apart."""
        extras = self.extra_columns()
        names = CORE.extended(extras)
        return unpack(found, extras)[list(names.names)].astype(dict.fromkeys(names.categorical, object))

    def booked(self, reservation_ids: Sequence[str], as_of: date) -> dict[str, Booked]:
        ids = json.dumps(list(reservation_ids)) if self._sqlite else list(reservation_ids)
        rows = self._read(_booked(sqlite=self._sqlite), {IDS: ids, DAY: as_of}).all()
        extras = self.extra_columns() if rows else ()
        found = {}
        for held_out, untouched, *row in rows:
            own, features = row[: len(_BOOKING)], row[len(_BOOKING) :]
            built = None if features[0] is None else _plain(_FEATURES, features[1:], extras)
            found[own[0]] = Booked(_plain(_BOOKING, own, extras), built, held_out, bool(untouched))
        return found

    def add_features(self, features: pd.DataFrame, now: datetime) -> int:
        if features.empty:
            return 0
        rows = pack(features.rename_axis("reservation_id").reset_index(), self.extra_columns())
        return self._add(tables.features, _GIVEN, rows, {"stored_at": now})

    def add_built(self, features: Mapping[str, Mapping[str, Any]], now: datetime) -> int:
        if not features:
            return 0
        extras = self.extra_columns()
        rows = [(i, *_told(row), packed(row, extras)) for i, row in features.items()]
        with self._staged_values(_GIVEN, rows) as staged:
            # One order for everybody: two writers wait for each other instead of deadlocking.
            new = select(*staged.columns, literal(now, tables.Instant)).order_by(staged.c.reservation_id)
            names = [*(c.name for c in _GIVEN), "stored_at"]
            return self._write(self._insert(tables.features).from_select(names, new).on_conflict_do_nothing())

    def unscored_days(
        self,
        version: str,
        booked_after: date | None,
        booked_until: date,
        ending: Ending | None = None,
        *,
        held: bool = False,
    ) -> pd.Series:
        booked_on = tables.reservations.c.booked_on
        wanted = self._unscored(version, booked_after, booked_until, ending, held=held)
        counted = select(*raw([booked_on]), func.count()).where(*wanted)
        if ending is not None and booked_after is None:
            # By itself SQLite goes through all that was ever booked, in the order of the days asked for.
            counted = counted.with_hint(tables.reservations, "INDEXED BY ix_reservations_arrival_on", "sqlite")
        return self._by_day(counted)

    def unscored(
        self,
        version: str,
        booked_after: date | None,
        booked_until: date,
        after: tuple[date, str] | None,
        limit: int,
        ending: Ending | None = None,
    ) -> pd.DataFrame:
        columns = list(tables.reservations.columns)
        query = self._page(select(*raw(columns)), version, booked_after, booked_until, after, limit, ending)
        return self._bookings(query, columns)

    def unscored_features(
        self,
        version: str,
        booked_after: date | None,
        booked_until: date,
        after: tuple[date, str] | None,
        limit: int,
        ending: Ending | None = None,
    ) -> pd.DataFrame | None:
        columns = [*BOOKING_ORDER, _KEPT, *_FEATURES]
        kept = tables.features.c.reservation_id == tables.reservations.c.reservation_id
        every = select(*raw(columns)).select_from(tables.reservations.outerjoin(tables.features, kept))
        query = self._page(every, version, booked_after, booked_until, after, limit, ending)
        found = self._frame(query, columns)
        if found[_KEPT.name].isna().any():
            return None
        keys = [column.name for column in BOOKING_ORDER]
        return found[keys].join(self._as_built(found.drop(columns=[*keys, _KEPT.name])))

    def _page(
        self,
        query: Select[Any],
        version: str,
        booked_after: date | None,
        booked_until: date,
        after: tuple[date, str] | None,
        limit: int,
        ending: Ending | None,
    ) -> Select[Any]:
        query = query.where(*self._unscored(version, booked_after, booked_until, ending))
        if after is not None:
            query = query.where(tuple_(*BOOKING_ORDER) > tuple_(*(literal(k) for k in after)))
        return query.order_by(*BOOKING_ORDER).limit(limit)

    def add_predictions(self, version: str, predictions: pd.DataFrame, scored_as_of: date, now: datetime) -> int:
        if predictions.empty:
            return 0
        given = [tables.predictions.c.reservation_id, tables.predictions.c.probability]
        fixed = {"model_version": version, "scored_as_of": scored_as_of, "scored_at": now}
        return self._add(tables.predictions, given, predictions, fixed)

    def scored(self, version: str, booked_from: date, booked_until: date) -> pd.DataFrame:
        columns = [*tables.reservations.columns, tables.predictions.c.probability]
        query = (
            select(*raw(columns))
            .join(tables.predictions, tables.predictions.c.reservation_id == tables.reservations.c.reservation_id)
            .where(tables.predictions.c.model_version == version)
            .where(tables.reservations.c.booked_on.between(booked_from, booked_until))
            .order_by(*BOOKING_ORDER)
        )
        return self._bookings(query, columns)

    def predictions(self, version: str, reservation_ids: pd.Series) -> pd.Series:
        columns = [tables.predictions.c.reservation_id, tables.predictions.c.probability]
        return self._by_id(columns, reservation_ids, tables.predictions.c.model_version == version)["probability"]

    def _unscored(
        self, version: str, booked_after: date | None, booked_until: date, ending: Ending | None, *, held: bool = False
    ) -> list[ColumnElement[bool]]:
        booking, predicted = tables.reservations.c, tables.predictions.c
        done = select(1).where(predicted.model_version == version, predicted.reservation_id == booking.reservation_id)
        wanted = [booking.booked_on <= booked_until, ~done.exists()]
        if booked_after is not None:
            wanted.append(booking.booked_on > booked_after)
        if ending is not None:
            wanted.append(self._ending(ending))
        # Asked for first, so that nothing is to be looked up of each booking while no day is held.
        days = [] if held else list(self._read(select(tables.holds.c.day).where(tables.HELD)).scalars())
        if days:
            seen = select(1).where(tables.features.c.reservation_id == booking.reservation_id)
            # A row of its own, also within a query that reads features.
            seen = seen.correlate(tables.reservations)
            wanted.append(or_(booking.booked_on.not_in(days), seen.exists()))
        return wanted
