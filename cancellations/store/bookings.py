"""Reservations and their outcomes, what corrections replaced, and the tally of agents and companies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import Any

import pandas as pd
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Date,
    Integer,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
)

from cancellations.domain import reservation
from cancellations.domain.features import AGENT, ALL, BOOKS, COMPANY, KEPT, TALLY
from cancellations.domain.labels import CANCELLED, RULED_BY, Ending
from cancellations.domain.reservation import GROUP_SIZE, OUTCOME_NAMES, ActionTaken
from cancellations.errors import BadInput
from cancellations.ports import Upserted
from cancellations.store import tables
from cancellations.store.bulk import BulkTransaction, frame, raw
from cancellations.store.extras import EXTRAS, pack, packed, unpack
from cancellations.store.tables import Identifier

BOOKING_ORDER: tuple[Column[Any], ...] = (
    tables.reservations.c.booked_on,
    tables.reservations.c.reservation_id,
)

# Of a booking, in the order of its table.
_told = itemgetter(*(c.name for c in tables.reservations.columns if c.name != EXTRAS))
_CHANGED: tuple[Column[Any], ...] = (Column("reservation_id", Identifier), Column("there", Boolean()))
_MOVED: tuple[Column[Any], ...] = (
    *(Column(name, Text()) for name in (AGENT, COMPANY)),
    *(tables.tallies.c[name] for name in TALLY[2:]),
)
_BOOKS: tuple[Column[Any], ...] = (
    *(Column(name, Text()) for name in BOOKS[:2]),
    *(Column(name, Date()) for name in BOOKS[2:4]),
    *(Column(name, Integer()) for name in BOOKS[4:]),
)


def acted_by(day: date | ColumnElement[date]) -> ColumnElement[bool]:
    """Of actions: something was done, on that day or before."""
    return and_(tables.actions.c.action_taken != ActionTaken.NONE.value, tables.actions.c.acted_on <= day)


def open_on(day: date | ColumnElement[date]) -> ColumnElement[bool]:
    """Of reservations: made by that day, the arrival not past, and no outcome known by then."""
    ended = select(1).where(
        tables.outcomes.c.reservation_id == tables.reservations.c.reservation_id, tables.outcomes.c.known_on <= day
    )
    return and_(tables.reservations.c.arrival_on >= day, tables.reservations.c.booked_on <= day, not_(ended.exists()))


class Bookings(BulkTransaction):
    """The part of `ports.UnitOfWork` that knows bookings."""

    def declare_columns(self, columns: Sequence[reservation.Column], now: datetime) -> None:
        if not columns:
            return
        rows = [{"name": c.name, "kind": c.kind, "declared_at": now} for c in columns]
        self._write(self._insert(tables.extra_columns).on_conflict_do_nothing(), rows)
        known = {c.name: c.kind for c in self.extra_columns()}
        for column in columns:
            if known[column.name] != column.kind:
                raise BadInput(
                    f"the feature {column.name!r} is a {known[column.name]} in this store, and a {column.kind} in the"
                    " mapping; give it its earlier kind, or another name"
                )

    def extra_columns(self) -> tuple[reservation.Column, ...]:
        query = select(tables.extra_columns.c.name, tables.extra_columns.c.kind).order_by(tables.extra_columns.c.name)
        return tuple(reservation.Column(row.name, row.kind) for row in self._read(query))

    def upsert_reservations(self, reservations: pd.DataFrame, load: int | None = None) -> Upserted:
        scored = select(1).where(tables.features.c.reservation_id == tables.reservations.c.reservation_id).exists()
        rows = pack(reservations, self.extra_columns())
        return self._upsert(tables.reservations, rows, tables.corrections, scored, load)

    def add_booked(self, bookings: Sequence[Mapping[str, Any]]) -> int:
        if not bookings:
            return 0
        table, extras = tables.reservations, self.extra_columns()
        rows = [(*_told(booking), packed(booking, extras)) for booking in bookings]
        self._lock_bookings()
        with self._staged_values(list(table.columns), rows) as staged:
            return self._written(table, staged)[0]

    def record_outcomes(self, outcomes: pd.DataFrame, load: int | None = None) -> Upserted:
        rows = outcomes[list(OUTCOME_NAMES)]
        return self._upsert(tables.outcomes, rows, tables.outcome_corrections, literal(value=True), load)

    def _upsert(
        self,
        table: Table,
        rows: pd.DataFrame,
        kept: Table,
        keep: ColumnElement[bool],
        load: int | None,
    ) -> Upserted:
        """Writes new and different rows, and what they replace into `kept` where `keep` holds; the counts
        are what the database did."""
        twice = rows["reservation_id"].duplicated()
        if twice.any():
            raise BadInput(
                f"{table.name}: {int(twice.sum())} ids appear more than once in one batch, the first"
                f" {rows.loc[twice, 'reservation_id'].iloc[0]!r}. Each may have one row; set the others aside."
            )
        if rows.empty:
            return Upserted(0, 0, 0)
        columns = list(table.columns)
        # The size of its group is what it was when the booking came.
        compared = [c.name for c in columns[1:] if c.name != GROUP_SIZE]
        self._lock_bookings()
        with self._staged(columns, rows) as staged:
            new, updated = self._written(
                table, staged, compared, lambda changed: self._keep(table, changed, kept, keep, load)
            )
        return Upserted(loaded=new, unchanged=len(rows) - new - updated, updated=updated)

    def _lock_bookings(self) -> None:
        # Whoever writes either holds both, so that no tally misses what another one just writes.
        self._lock_table(tables.reservations)
        self._lock_table(tables.outcomes)

    def _written(
        self,
        table: Table,
        staged: Table,
        compared: Sequence[str] = (),
        keep: Callable[[Table], None] = lambda changed: None,
    ) -> tuple[int, int]:
        """How many staged rows were new and written, and how many differed in a `compared` column from what was
        there, went to `keep`, and were put in its place."""
        with self._changed(table, staged, compared) as changed:
            new = self._read(select(func.count()).where(~changed.c.there)).scalar_one()
            updated = self._read(select(func.count()).where(changed.c.there)).scalar_one()
            if new or updated:
                with self._moving(table, changed):
                    if updated:
                        keep(changed)
                    wanted = (
                        select(*staged.columns)
                        .join(changed, changed.c.reservation_id == staged.c.reservation_id)
                        .order_by(staged.c.reservation_id)
                    )
                    names = [c.name for c in table.columns]
                    insert = self._insert(table).from_select(names, wanted.where(_always()))
                    if compared:
                        written = {name: insert.excluded[name] for name in compared}
                        insert = insert.on_conflict_do_update(index_elements=["reservation_id"], set_=written)
                    self._write(insert)
        return new, updated

    @contextmanager
    def _changed(self, table: Table, staged: Table, compared: Sequence[str]) -> Iterator[Table]:
        """The ids of staged rows that are new, or differ from what is `there`."""
        different = or_(false(), *(table.c[name].is_distinct_from(staged.c[name]) for name in compared))
        there = table.c.reservation_id.is_not(None)
        rows = (
            select(staged.c.reservation_id, there)
            .select_from(staged.outerjoin(table, table.c.reservation_id == staged.c.reservation_id))
            .where(or_(~there, different))
        )
        with self._temporary("changed", _CHANGED) as changed:
            self._write(changed.insert().from_select(["reservation_id", "there"], rows))
            yield changed

    def _keep(self, table: Table, changed: Table, kept: Table, keep: ColumnElement[bool], load: int | None) -> None:
        """Puts rows that are about to be replaced among the corrections, behind earlier ones of theirs."""
        earlier = kept.alias("earlier")
        number = select(func.count() + 1).where(earlier.c.reservation_id == table.c.reservation_id).scalar_subquery()
        values = [c.name for c in kept.columns if c.name in table.columns and c.name != "reservation_id"]
        rows = (
            select(table.c.reservation_id, number, *(table.c[name] for name in values), literal(load, Integer))
            .join(changed, changed.c.reservation_id == table.c.reservation_id)
            .where(changed.c.there, keep)
        )
        self._write(kept.insert().from_select(["reservation_id", "number", *values, "load"], rows))

    @contextmanager
    def _moving(self, table: Table, changed: Table) -> Iterator[None]:
        """Moves the changed bookings in the tallies from where they are before the block to where they are after."""
        with self._temporary("moved", _MOVED) as moved:
            # A new booking was nowhere; but one whose outcome is new has been there without.
            before = changed.c.there if table is tables.reservations else _always()
            self._place(moved, changed, -1, before)
            yield
            self._place(moved, changed, 1, _always())
            for kind, key in ((ALL, literal("")), (AGENT, moved.c[AGENT]), (COMPANY, moved.c[COMPANY])):
                own = select(key.label("key"), moved).where(key.is_not(None)).subquery()
                place = (own.c.key, own.c.arrival_on, own.c.lag)
                net = cast(func.sum(own.c.bookings), Integer)
                counted = select(literal(kind), *place, net).where(_always()).group_by(*place)
                self._add_to_tallies(counted.having(net != 0))

    def _add_to_tallies(self, rows: Select[tuple[object, ...]]) -> int:
        """Adds bookings, which may be less than none, to tallies; `rows` like them, with a WHERE."""
        insert = self._insert(tables.tallies).from_select(list(TALLY), rows)
        total = {"bookings": tables.tallies.c.bookings + insert.excluded.bookings}
        keys = [c.name for c in tables.tallies.primary_key]
        return self._write(insert.on_conflict_do_update(index_elements=keys, set_=total))

    def _place(self, moved: Table, changed: Table, sign: int, which: ColumnElement[bool]) -> None:
        """Notes where the tallies count changed bookings, as they are written now, with a sign."""
        places = self._places().join(changed, changed.c.reservation_id == tables.reservations.c.reservation_id)
        place = list(places.selected_columns)
        rows = places.add_columns(sign * func.count()).where(which).group_by(*place)
        self._write(moved.insert().from_select([c.name for c in moved.columns], rows))

    def _places(self) -> Select[tuple[object, ...]]:
        """Agent, company, arrival and lag of every booking."""
        booking, outcome = tables.reservations.c, tables.outcomes.c
        days = self._days(booking.arrival_on, outcome.known_on)
        lag = case((outcome.status.in_(CANCELLED), case((days > 0, days), else_=0)), else_=KEPT)
        return (
            select(booking.agent, booking.company, booking.arrival_on, lag.label("lag"))
            .select_from(tables.reservations)
            .outerjoin(tables.outcomes, outcome.reservation_id == booking.reservation_id)
        )

    def ruled_by(self, reservation_ids: pd.Series) -> pd.DataFrame:
        columns = [tables.reservations.c.reservation_id, *(tables.reservations.c[name] for name in RULED_BY)]
        return self._by_id(columns, reservation_ids)

    def recorded_outcomes(self, reservation_ids: pd.Series) -> pd.DataFrame:
        return self._by_id([tables.outcomes.c[name] for name in OUTCOME_NAMES], reservation_ids)

    def tallies(
        self,
        agents: Sequence[str],
        companies: Sequence[str],
        before: date,
        *,
        everyone: bool = True,
        since: date | None = None,
        earlier: bool = True,
    ) -> pd.DataFrame:
        counted = tables.tallies.c
        columns = [counted[name] for name in TALLY]
        query = select(*raw(columns)).where(counted.arrival_on < before, counted.bookings > 0)
        if since is not None and earlier:
            place = [counted.kind, counted.key, _not_before(since, counted.arrival_on), counted.lag]
            total = func.sum(counted.bookings).label("bookings")
            query = query.with_only_columns(*raw(place), total).group_by(*place)
        elif since is not None:
            query = query.where(counted.arrival_on >= since)
        parts = []
        for kind, keys in ((ALL, [""] if everyone else []), (AGENT, agents), (COMPANY, companies)):
            own = query.where(counted.kind == kind, self._among(counted.key, keys))
            parts.append(self._frame(own, columns))
        return pd.concat(parts, ignore_index=True).astype({"lag": "int64", "bookings": "int64"})

    def books(self, arriving: tuple[date, date], since: date, before: date, *, earlier: bool = True) -> pd.DataFrame:
        booking, outcome = tables.reservations.c, tables.outcomes.c

        def moves(moved_on: Column[date], *counts: ColumnElement[int]) -> Select[tuple[object, ...]]:
            place: list[ColumnElement[Any]] = [booking.hotel, booking.room_type, booking.arrival_on]
            made = select(*raw(place)).where(booking.arrival_on.between(*arriving), moved_on < before)
            named = list(zip(counts, BOOKS[4:], strict=True))
            if earlier:
                place.append(_not_before(since, moved_on))
                sums = (cast(func.sum(count), BigInteger).label(name) for count, name in named)
                return made.add_columns(*raw(place[3:]), *sums).group_by(*place)
            # Few of all that arrive then: found by the day on which they moved, and hardly two of them alike.
            index = next(i for i in moved_on.table.indexes if next(iter(i.columns)) is moved_on)
            made = made.where(moved_on >= since).with_hint(moved_on.table, f"INDEXED BY {index.name}", "sqlite")
            return made.add_columns(*raw([moved_on]), *(count.label(name) for count, name in named))

        priced = case((booking.price > 0, 1), else_=0)
        cents = case((booking.price > 0, self._whole(booking.price * 100)), else_=0)
        made = moves(booking.booked_on, literal(1), priced, cents)
        gone = moves(outcome.known_on, literal(-1), literal(0), literal(0))
        gone = gone.join(tables.outcomes, outcome.reservation_id == booking.reservation_id)
        gone = gone.where(outcome.status.in_(CANCELLED))
        found = pd.concat([self._frame(query, _BOOKS) for query in (made, gone)], ignore_index=True)
        return found.astype(dict.fromkeys(BOOKS[4:], "int64"))

    def history(
        self,
        booked_until: date,
        known_until: date,
        ending: Ending | None = None,
        only: Sequence[str] = (),
        booked_after: date | None = None,
    ) -> pd.DataFrame:
        booking = tables.reservations.c
        asked = [booking.reservation_id, *(booking[name] for name in only)] if only else booking
        columns = [*asked, tables.outcomes.c.status, tables.outcomes.c.known_on]
        known = (tables.outcomes.c.reservation_id == tables.reservations.c.reservation_id) & (
            tables.outcomes.c.known_on <= known_until
        )
        query = (
            select(*raw(columns))
            .select_from(tables.reservations.outerjoin(tables.outcomes, known))
            .where(tables.reservations.c.booked_on <= booked_until)
            .order_by(*BOOKING_ORDER)
        )
        if booked_after is not None:
            query = query.where(booking.booked_on > booked_after)
        if ending is not None:
            query = query.where(self._ending(ending))
        found = self._frame(query, columns) if only else self._bookings(query, columns)
        return self._as_known(found, known_until)

    def _as_known(self, history: pd.DataFrame, known_until: date) -> pd.DataFrame:
        """The history with outcomes that were known by a day, and were corrected after it, as they were then."""
        old, outcome = tables.outcome_corrections.c, tables.outcomes.c
        columns = [old.reservation_id, old.number, old.status, old.known_on]
        # Led by the outcomes that became known later, of which there are few; an order would turn the plan round.
        query = (
            select(*raw(columns))
            .select_from(tables.outcomes)
            .join(tables.outcome_corrections, outcome.reservation_id == old.reservation_id)
            .where(outcome.known_on > known_until, old.known_on <= known_until)
        )
        then = frame(self._read(query), columns).sort_values("number").drop_duplicates("reservation_id", keep="last")
        if then.empty:
            return history
        then = then.set_index("reservation_id").reindex(history["reservation_id"]).set_axis(history.index)
        known = then["status"].notna()
        return history.assign(**{name: history[name].mask(known, then[name]) for name in ("status", "known_on")})

    def _bookings(self, query: Select[tuple[object, ...]], columns: Sequence[Column[object]]) -> pd.DataFrame:
        """Rows of a SELECT of `raw(columns)` that holds reservations, the declared columns among them."""
        return unpack(self._frame(query, columns), self.extra_columns())

    def outcomes_until(self, known_until: date) -> date | None:
        known_on = tables.outcomes.c.known_on
        return self._read(select(func.max(known_on)).where(known_on <= known_until)).scalar()

    def booked_days(self, after: date, until: date) -> pd.Series:
        booked_on = tables.reservations.c.booked_on
        wanted = (booked_on > after, booked_on <= until)
        return self._by_day(select(*raw([booked_on]), func.count()).where(*wanted))

    def _by_day(self, counted: Select[tuple[object, ...]]) -> pd.Series:
        """What a SELECT of day of booking and a count gives, by day."""
        booked_on = tables.reservations.c.booked_on
        rows = self._read(counted.group_by(booked_on).order_by(booked_on)).all()
        days = pd.DatetimeIndex([row[0] for row in rows], dtype="datetime64[us]")
        return pd.Series([row[1] for row in rows], index=days, dtype="int64")

    def booked_span(self) -> tuple[date, date] | None:
        # Two subqueries, each the end of an index; min and max in one SELECT would read all of it.
        first = select(func.min(tables.reservations.c.booked_on)).scalar_subquery()
        last = select(func.max(tables.reservations.c.booked_on)).scalar_subquery()
        earliest, latest = tuple(self._read(select(first, last)).one())
        return None if earliest is None else (earliest, latest)


def _not_before(since: date, day: Column[date]) -> ColumnElement[date]:
    """A day, or the one before `since` where it is earlier than that."""
    return case((day >= since, day), else_=literal(since - timedelta(1), Date)).label(day.name)


def _always() -> ColumnElement[bool]:
    # SQLite takes the ON of ON CONFLICT for that of a join unless a WHERE stands between.
    return literal(value=True)
