"""Features of bookings as they could be known when the bookings were made, from the store."""

from __future__ import annotations

from datetime import date

import pandas as pd

from cancellations.domain.features import AGENT, COMPANY, Past, build
from cancellations.domain.labels import LabelRule
from cancellations.domain.lookup import Lacking, Lookup
from cancellations.ports import UnitOfWork


def booking_time(work: UnitOfWork, reservations: pd.DataFrame, rule: LabelRule) -> pd.DataFrame:
    """Features of reservations as they were when they were made, indexed like `reservations`.

    From the store's tally of earlier bookings, so it takes as long for the first booking as for the last.
    """
    extras = work.extra_columns()
    agents, companies = (reservations[name].dropna().unique().tolist() for name in (AGENT, COMPANY))
    last = date.min if reservations.empty else pd.Timestamp(reservations["booked_on"].max()).date()
    past = Past(work.tallies(agents, companies, before=last), work.books(reservations, before=last))
    return build(reservations, past, rule, extras)


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
        asked = {"arrival_on": [pd.Timestamp(year, month, 1)], "booked_on": [pd.Timestamp(lookup.since)]}
        lookup.remember_books((year, month), work.books(pd.DataFrame(asked), before=date.max))
