"""Predictions, exactly one for each reservation and model version, and the features they are made from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import pandas as pd
from sqlalchemy import Column, ColumnElement, literal, select, tuple_

from cancellations.domain.features import CATEGORICAL, FEATURES
from cancellations.store import tables
from cancellations.store.bookings import BOOKING_ORDER
from cancellations.store.bulk import BulkTransaction, frame, raw

# SQLite takes at most 32,766 parameters in one statement.
IDS_AT_ONCE = 10_000

_FEATURES = [tables.features.c[name] for name in FEATURES]


class Scores(BulkTransaction):
    """The part of `ports.UnitOfWork` that knows features and predictions."""

    def features(self, reservation_ids: pd.Series) -> pd.DataFrame:
        found = self._by_id([tables.features.c.reservation_id, *_FEATURES], reservation_ids)
        # What `domain.features.build` gives, so that a model cannot tell the two apart.
        return found.astype(dict.fromkeys(CATEGORICAL, object))

    def add_features(self, features: pd.DataFrame, now: datetime) -> int:
        if features.empty:
            return 0
        given = [tables.features.c.reservation_id, *_FEATURES]
        with self._staged(given, features.rename_axis("reservation_id").reset_index()) as staged:
            # One order for everybody: two writers wait for each other instead of deadlocking.
            rows = select(*staged.columns, literal(now, tables.Instant)).order_by(staged.c.reservation_id)
            names = [*(c.name for c in given), "stored_at"]
            return self._write(self._insert(tables.features).from_select(names, rows).on_conflict_do_nothing())

    def unscored(
        self,
        version: str,
        booked_after: date | None,
        booked_until: date,
        after: tuple[date, str] | None,
        limit: int,
        arriving_after: date | None = None,
    ) -> pd.DataFrame:
        done = select(1).where(
            tables.predictions.c.model_version == version,
            tables.predictions.c.reservation_id == tables.reservations.c.reservation_id,
        )
        query = select(*raw(list(tables.reservations.columns))).where(tables.reservations.c.booked_on <= booked_until)
        if booked_after is not None:
            query = query.where(tables.reservations.c.booked_on > booked_after)
        if after is not None:
            query = query.where(tuple_(*BOOKING_ORDER) > tuple_(*(literal(k) for k in after)))
        if arriving_after is not None:
            query = query.where(tables.reservations.c.arrival_on > arriving_after)
        query = query.where(~done.exists()).order_by(*BOOKING_ORDER).limit(limit)
        return frame(self._read(query), list(tables.reservations.columns))

    def add_predictions(self, version: str, predictions: pd.DataFrame, scored_as_of: date, now: datetime) -> int:
        if predictions.empty:
            return 0
        given = [tables.predictions.c.reservation_id, tables.predictions.c.probability]
        with self._staged(given, predictions) as staged:
            # One order for everybody: two writers wait for each other instead of deadlocking.
            rows = select(
                staged.c.reservation_id,
                literal(version),
                staged.c.probability,
                literal(scored_as_of),
                literal(now, tables.Instant),
            ).order_by(staged.c.reservation_id)
            names = [c.name for c in tables.predictions.columns]
            return self._write(self._insert(tables.predictions).from_select(names, rows).on_conflict_do_nothing())

    def scored(self, version: str, booked_from: date, booked_until: date) -> pd.DataFrame:
        columns = [*tables.reservations.columns, tables.predictions.c.probability]
        query = (
            select(*raw(columns))
            .join(tables.predictions, tables.predictions.c.reservation_id == tables.reservations.c.reservation_id)
            .where(tables.predictions.c.model_version == version)
            .where(tables.reservations.c.booked_on.between(booked_from, booked_until))
            .order_by(*BOOKING_ORDER)
        )
        return frame(self._read(query), columns)

    def predictions(self, version: str, reservation_ids: pd.Series) -> pd.Series:
        columns = [tables.predictions.c.reservation_id, tables.predictions.c.probability]
        return self._by_id(columns, reservation_ids, tables.predictions.c.model_version == version)["probability"]

    def _by_id(
        self, columns: Sequence[Column[Any]], reservation_ids: pd.Series, *conditions: ColumnElement[bool]
    ) -> pd.DataFrame:
        """Rows of the given bookings, indexed by the first of `columns`, the reservation_id."""
        ids = reservation_ids.dropna().astype(object).drop_duplicates().tolist()
        query = select(*columns).where(*conditions)
        parts = [
            frame(self._read(query.where(columns[0].in_(ids[i : i + IDS_AT_ONCE]))), columns)
            for i in range(0, max(len(ids), 1), IDS_AT_ONCE)
        ]
        return pd.concat(parts, ignore_index=True).set_index("reservation_id")
