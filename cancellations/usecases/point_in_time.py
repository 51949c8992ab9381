"""Features of bookings as they could be known when the bookings were made, from the store."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd

from cancellations.domain.features import AGENT, COMPANY, Memory
from cancellations.domain.labels import LabelRule
from cancellations.domain.lookup import Lacking, Lookup
from cancellations.ports import UnitOfWork


class BookingTime:
    """Features of reservations as they were when they were made: of one page, or of pages in the order of booking.

    From the store's counts of earlier bookings. They are read once and carried forward, so that the last page of a
    batch takes as long as the first: what is recorded meanwhile for days that lie behind is for the next batch.
    """

    def __init__(self, rule: LabelRule) -> None:
        self._rule = rule
        self._memory = Memory(rule)
        self._keys: dict[str, set[str]] = {AGENT: set(), COMPANY: set()}
        self._months: tuple[date, date] | None = None
        # What came before that day has been read, of the keys and months above.
        self._read: date | None = None

    def __call__(self, work: UnitOfWork, reservations: pd.DataFrame) -> pd.DataFrame:
        """Features, indexed like `reservations`, none of which was made before the last ones of an earlier page."""
        if not reservations.empty:
            self._remember(work, reservations)
        return self._memory.features(reservations, work.extra_columns())

    def _remember(self, work: UnitOfWork, reservations: pd.DataFrame) -> None:
        first, last = (day.date() for day in reservations["booked_on"].agg(["min", "max"]))
        self._memory.forget(first)
        self._remember_records(work, reservations, first, last)
        self._remember_books(work, reservations, first, last)
        self._read = last

    def _remember_records(self, work: UnitOfWork, reservations: pd.DataFrame, first: date, last: date) -> None:
        if self._read is not None and self._read < last:
            agents, companies = (sorted(self._keys[kind]) for kind in (AGENT, COMPANY))
            self._memory.add_tallied(work.tallies(agents, companies, last, since=self._read, earlier=False))
        new = {kind: set(reservations[kind].dropna().unique()) - keys for kind, keys in self._keys.items()}
        everyone = self._read is None
        if everyone or any(new.values()):
            # Whatever had matured before the first of these bookings was made may be counted together.
            since = first - timedelta(self._rule.record_days)
            agents, companies = (sorted(new[kind]) for kind in (AGENT, COMPANY))
            self._memory.add_tallied(work.tallies(agents, companies, last, everyone=everyone, since=since))
            self._keys = {kind: keys | new[kind] for kind, keys in self._keys.items()}

    def _remember_books(self, work: UnitOfWork, reservations: pd.DataFrame, first: date, last: date) -> None:
        begin, end = months(reservations["arrival_on"])
        if self._months is None or self._read is None:
            lacking = [(begin, end)]
        else:
            known_begin, known_end = self._months
            if self._read < last:
                self._memory.add_booked(work.books(self._months, self._read, last, earlier=False))
            lacking = [(begin, known_begin - timedelta(1)), (known_end + timedelta(1), end)]
            begin, end = min(begin, known_begin), max(end, known_end)
        for span in lacking:
            if span[0] <= span[1]:
                self._memory.add_booked(work.books(span, first, last))
        # Nobody who books from now on arrives earlier than in this month.
        self._months = (max(begin, first.replace(day=1)), end)


def booking_time(work: UnitOfWork, reservations: pd.DataFrame, rule: LabelRule) -> pd.DataFrame:
    """Features of reservations as they were when they were made, indexed like `reservations`."""
    return BookingTime(rule)(work, reservations)


def months(arrivals: pd.Series) -> tuple[date, date]:
    """First and last day of the months in which bookings arrive."""
    first, last = arrivals.min(), arrivals.max()
    return first.replace(day=1).date(), (last + pd.offsets.MonthEnd(0)).date()


def as_scored(work: UnitOfWork, reservations: pd.DataFrame, rule: LabelRule) -> pd.DataFrame:
    """Features of reservations, indexed like them, as a version got them that scored them.

    Those that were scored have them stored; a correction that came later is nothing that could have been
    known. The others' are built. A column that was declared after a booking was scored stays missing.
    """
    ids = reservations["reservation_id"]
    stored = work.features(ids)
    new = reservations[~ids.isin(stored.index)]
    if stored.empty:
        return booking_time(work, reservations, rule)
    if not new.empty:
        built = booking_time(work, new, rule).set_axis(new["reservation_id"])
        stored = pd.concat([stored, built])
    return stored.loc[ids].set_axis(reservations.index)


def remember(work: UnitOfWork, lookup: Lookup, wanted: Lacking) -> None:
    """Reads the past of some keys into a look-up, by the reads of `booking_time`."""
    if wanted.everyone or wanted.agents or wanted.companies:
        agents, companies = sorted(wanted.agents), sorted(wanted.companies)
        tallied = work.tallies(agents, companies, before=date.max, everyone=wanted.everyone)
        lookup.remember_records(tallied, wanted)
    for year, month in sorted(wanted.months):
        days = months(pd.Series([pd.Timestamp(year, month, 1)]))
        lookup.remember_books((year, month), work.books(days, lookup.since, date.max))
