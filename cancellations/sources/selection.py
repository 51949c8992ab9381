"""A source without the bookings that were not asked for, and what a file of arrivals holds whole.

Near its edges a table of arrivals holds only short, or only long, leads, which looks like drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd

from cancellations.domain.reservation import Column
from cancellations.errors import BadInput
from cancellations.ports import Source, SourceBatch, Undated

# Arrivals in the public table, and the bookings made on days that neither of its edges touches when
# those of more than 180 days of lead are set aside.
PUBLIC_ARRIVALS = date(2015, 7, 1), date(2017, 8, 31)
PUBLIC_UNBIASED = date(2015, 10, 5), date(2017, 2, 26)


@dataclass(frozen=True)
class Tally:
    """Rows of one pass: all that were read, and those set aside by what was asked for."""

    read: int = 0
    long_lead: int = 0
    outside_span: int = 0

    @property
    def set_aside(self) -> int:
        return self.long_lead + self.outside_span

    def __str__(self) -> str:
        return (
            f"{self.read:,} rows read, {self.set_aside:,} set aside"
            f" ({self.long_lead:,} booked too long ahead, {self.outside_span:,} booked outside the span)"
        )


class Selected:
    """Another source's bookings of at most `max_lead_days`, booked from one day until another (inclusive).

    Rows that fall out are counted in `tally`, complete once `batches()` is exhausted; rows whose dates
    cannot be read are kept, for quarantine, as are outcomes without reservations.
    """

    def __init__(
        self,
        source: Source,
        *,
        max_lead_days: int | None = None,
        booked_from: date | None = None,
        booked_until: date | None = None,
    ) -> None:
        self.source = source
        self.tally = Tally()
        self._longest_lead = np.inf if max_lead_days is None else max_lead_days
        self._first = pd.Timestamp.min if booked_from is None else pd.Timestamp(booked_from)
        self._last = pd.Timestamp.max if booked_until is None else pd.Timestamp(booked_until)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.source.columns

    @property
    def mapping(self) -> str:
        return self.source.mapping

    @property
    def undated(self) -> Undated:
        return self.source.undated

    def fingerprint(self) -> str | None:
        return self.source.fingerprint()

    def batches(self) -> Iterator[SourceBatch]:
        self.tally = Tally()
        for batch in self.source.batches():
            yield self._selected(batch)

    def _selected(self, batch: SourceBatch) -> SourceBatch:
        reservations = batch.reservations
        if reservations is None:
            self.tally = replace(self.tally, read=self.tally.read + len(batch.raw))
            return batch
        booked_on = reservations["booked_on"]
        long = (reservations["arrival_on"] - booked_on).dt.days > self._longest_lead
        outside = ~long & ((booked_on < self._first) | (booked_on > self._last))
        self.tally = Tally(
            self.tally.read + len(batch.raw),
            self.tally.long_lead + int(long.sum()),
            self.tally.outside_span + int(outside.sum()),
        )
        aside = reservations.index[long | outside]
        if aside.empty:
            return batch
        return SourceBatch(
            batch.raw[~batch.raw.index.isin(aside)],
            reservations[~reservations.index.isin(aside)],
            batch.outcomes[~batch.outcomes.index.isin(aside)],
            batch.problems[~batch.problems["row"].isin(aside)].reset_index(drop=True),
            None if batch.actions is None else batch.actions[~batch.actions.index.isin(aside)],
        )


def unbiased(source: Source, max_lead_days: int | None) -> tuple[date, date]:
    """First and last booking day whose bookings a table holds whole, whatever their lead.

    A table of arrivals between two days lacks what was booked early enough to arrive after it, or
    before it. For the public table the days are those of its description; for another one they follow
    from its arrivals. Reads the source once; raises `BadInput` when it has no arrival.
    """
    arrivals = [b.reservations["arrival_on"].dropna() for b in source.batches() if b.reservations is not None]
    told = [a for a in arrivals if len(a)]
    if not told:
        raise BadInput(f"{source.name} has no reservation with a date of arrival. Name a table of reservations.")
    first, last = min(a.min() for a in told).date(), max(a.max() for a in told).date()
    if (first, last) == PUBLIC_ARRIVALS:
        return PUBLIC_UNBIASED
    return first, last - timedelta(days=max_lead_days or 0)
