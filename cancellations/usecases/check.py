"""Each day's bookings against what their columns have shown before: a feed that breaks is seen on its first day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from cancellations.domain.checks import (
    MEMORY_DAYS,
    Check,
    CheckPolicy,
    DayCheck,
    Finding,
    HoldState,
    Past,
    check,
    learn,
)
from cancellations.domain.events import DataBroken, SourceSilent
from cancellations.domain.labels import LabelRule
from cancellations.domain.reservation import group_keys
from cancellations.domain.volume import MEMORY_DAYS as VOLUME_DAYS
from cancellations.domain.volume import silence
from cancellations.ports import Store
from cancellations.usecases.point_in_time import as_scored

# Days that nobody checked are caught up with, but not for ever.
CATCH_UP = 28
# How far back a run of one value is followed.
RUN_DAYS = 28
# A break that has lasted so long is what the data are now: its days are learned from like others.
BREAK_DAYS = 14
# Bookings that ended longer ago are a history that somebody looks at, and no feed.
ABANDONED_DAYS = 60


def check_days(
    store: Store, *, until: date, rule: LabelRule, policy: CheckPolicy, clock: Callable[[], datetime]
) -> tuple[DayCheck, ...]:
    """Checks the days before `until` since the last one that was checked, in order; returns those that are new.

    `until` is the day that counts as today, on which bookings still come in. Where no day was ever checked the last
    one alone is. A day that was checked stays as it was found. People are told of a day that fails a check which
    the day before did not fail, and of a source that has fallen silent. Without history enough to learn from nothing
    is checked.
    """
    _listen(store, until, policy, clock)
    with store.begin() as work:
        earlier = work.checks(limit=BREAK_DAYS + 1)
        booked = work.booked_span()
    if booked is None:
        return ()
    last = min(until - timedelta(days=1), booked[1])
    first = max(earlier[0].day + timedelta(days=1), last - timedelta(days=CATCH_UP - 1)) if earlier else last
    if first > last:
        return ()
    past = past_before(store, first, rule, policy, clock)
    if past is None:
        return ()
    with store.begin() as work:
        bookings = work.history(booked_until=last, known_until=last, booked_after=first - timedelta(days=RUN_DAYS))
        features = as_scored(work, bookings, rule)
    groups = group_keys(bookings)
    checked = []
    for day in pd.date_range(first, last):
        today = int((bookings["booked_on"] == day).sum())
        if not today:
            continue
        found = DayCheck(day.date(), today, past.days, of_day(day, bookings, features, groups, past, policy))
        if _keep(store, found, earlier[0] if earlier else None, clock()):
            checked.append(found)
        earlier = [found, *earlier]
    return tuple(checked)


def of_day(
    day: pd.Timestamp,
    bookings: pd.DataFrame,
    features: pd.DataFrame,
    groups: np.ndarray,
    past: Past,
    policy: CheckPolicy,
) -> tuple[Finding, ...]:
    """What is wrong with the bookings of a day; `bookings`, `features` and `groups` hold the days before it, too."""
    run = bookings["booked_on"].between(day - pd.Timedelta(days=RUN_DAYS - 1), day).to_numpy()
    return check(features[run], bookings["booked_on"][run], groups[run], past, policy)


def past_before(
    store: Store, day: date, rule: LabelRule, policy: CheckPolicy, clock: Callable[[], datetime]
) -> Past | None:
    """What the year before a day has shown, without its broken days; None where it is too short to learn from.

    Learned once, and kept: to learn it anew for each booking that comes in would take longer than all the rest.
    """
    with store.begin() as work:
        known = work.past(day)
        if known is not None:
            return known
        lately = day - timedelta(days=BREAK_DAYS)
        broken = {c.day for c in work.checks(limit=BREAK_DAYS + 1) if c.findings}
        holds = work.holds(since=lately)
        broken |= {hold.day for hold in holds if hold.state is not HoldState.PASSED}
        # Of which a person says that they are right.
        broken -= {hold.day for hold in holds if hold.state is HoldState.RELEASED}
        until = day - timedelta(days=1)
        bookings = work.history(until, known_until=until, booked_after=day - timedelta(days=MEMORY_DAYS + 1))
        left_out = [pd.Timestamp(one) for one in broken if one >= lately]
        bookings = bookings[~bookings["booked_on"].isin(left_out)]
        past = learn(as_scored(work, bookings, rule), bookings["booked_on"], group_keys(bookings))
        if past.days < policy.min_days:
            return None
        work.keep_past(day, past, clock())
        work.commit()
    return past


def _listen(store: Store, until: date, policy: CheckPolicy, clock: Callable[[], datetime]) -> None:
    """Tells people, once, that no bookings come in any more."""
    last = until - timedelta(days=1)
    with store.begin() as work:
        booked = work.booked_span()
        if booked is None or not 0 < (last - booked[1]).days <= ABANDONED_DAYS:
            return
        quiet = silence(work.booked_days(booked[1] - timedelta(days=VOLUME_DAYS), last), last)
        if quiet is None or not quiet.unusual(policy.silent_days):
            return
        work.add_messages(SourceSilent(quiet.since, quiet.days, quiet.longest).messages(), clock())
        work.commit()


def _keep(store: Store, found: DayCheck, before: DayCheck | None, now: datetime) -> bool:
    with store.begin() as work:
        if not work.add_check(found, now):
            return False
        if found.findings:
            work.forget_pasts()
        # When they were held back, people were told.
        known = frozenset[tuple[str, Check]]().union(
            before.failed if before is not None else (),
            *(hold.failed for hold in work.holds(since=found.day) if hold.day == found.day),
        )
        if found.failed - known:
            told = tuple(str(finding) for finding in found.findings)
            work.add_messages(DataBroken(found.day, found.bookings, told).messages(), now)
        work.commit()
    return True
