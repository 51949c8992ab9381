"""Bookings that are about to be scored are checked first; a day whose bookings fail is held back.

What is held has no score, and the last good scores of all other bookings stay served. It is let go when it passes,
delivered anew, when a person says so, or when nobody has done either for some days; nothing of it is lost, and its
features are those of its booking, whenever it is scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from cancellations.domain.checks import Check, CheckPolicy, Finding, Hold, HoldState, Past
from cancellations.domain.events import DataBroken
from cancellations.domain.labels import LabelRule, maturity
from cancellations.domain.reservation import group_keys
from cancellations.errors import BadInput, Refused
from cancellations.ports import Store, UnitOfWork
from cancellations.usecases.check import CATCH_UP, RUN_DAYS, of_day, past_before
from cancellations.usecases.point_in_time import as_scored, booking_time

# Who ends a hold, where no person does.
CHECKS, SETTING, TIME = "the checks", "the settings", "time"
NO_HOLD = "CANCELLATIONS_CHECKS__HOLD is false: bookings that fail are scored all the same"


@dataclass(frozen=True)
class HeldBack:
    """Days that are held now, those that began with this look, and those that it let go."""

    held: tuple[Hold, ...] = ()
    began: tuple[Hold, ...] = ()
    ended: tuple[Hold, ...] = ()


@dataclass(frozen=True)
class _Waiting:
    """A day's bookings, and which of them are to be scored for the first time (bool, shape (bookings,))."""

    day: date
    bookings: pd.DataFrame
    new: np.ndarray

    @property
    def content(self) -> str:
        """Another one when a booking that waits has changed, has come, or has gone."""
        waiting = self.bookings[self.new].drop(columns=["status", "known_on"])
        return f"{int(pd.util.hash_pandas_object(waiting, index=False).sum()):x}-{len(waiting)}"


def hold_back(
    store: Store, *, until: date, rule: LabelRule, policy: CheckPolicy, clock: Callable[[], datetime]
) -> HeldBack:
    """Checks the bookings that would be scored for the first time, each day's together, and holds a day that fails.

    A day is checked whole, and what is new of it by itself, also while it is still coming in: from as many groups of
    bookings on as say something. One that a person, or time, has let go stays so. Safe to repeat, and to run twice at
    once: a day is held once, and told once, unless the day before it failed in the same way and was told.
    """
    ended = _let_go(store, until, policy, clock())
    if not policy.hold:
        return HeldBack(ended=ended)
    with store.begin() as work:
        champion = work.standing().champion
        record = None if champion is None else work.version(champion)
        if record is None:
            return HeldBack(ended=ended)
        waiting = _waiting(work, record.version, record.trained_as_of, until, rule)
        held = {hold.day: hold for hold in work.holds(HoldState.HELD)}
        judged = {hold.day for hold in work.holds(since=until - timedelta(days=CATCH_UP)) if hold.state.judged}
        asked = [one for one in waiting if one.day not in judged]
        # A day that is mended may mend the features of those after it, and one that is released is learned from: then
        # all that is held is checked again.
        same = all(one.day in held and held[one.day].content == one.content for one in asked)
        if same and asked and work.past(asked[0].day) is not None:
            asked = []
    past = past_before(store, asked[0].day, rule, policy, clock) if asked else None
    began: list[Hold] = []
    if past is not None:
        with store.begin() as work:
            found = _check(work, asked, past, rule, policy)
        for one in asked:
            hold = Hold(one.day, until, int(one.new.sum()), found[one.day], one.content)
            if not hold.findings:
                if one.day in held and _end(store, hold.day, HoldState.PASSED, CHECKS, "they pass now", clock()):
                    ended = (*ended, replace(hold, state=HoldState.PASSED, by=CHECKS))
            elif _begin(store, hold, clock()):
                began.append(hold)
    with store.begin() as work:
        return HeldBack(tuple(work.holds(HoldState.HELD)), tuple(began), ended)


def release(store: Store, day: date, *, reason: str, by: str, clock: Callable[[], datetime]) -> Hold:
    """A person lets a day's bookings be scored as they are, on the record; returns what was held.

    Raises `Refused` when the day is not held.
    """
    if not reason.strip():
        raise BadInput("a reason is needed, for whoever asks later why these bookings were scored")
    with store.begin() as work:
        held = {hold.day: hold for hold in work.holds(HoldState.HELD)}
        if day not in held or not work.end_hold(day, HoldState.RELEASED, by, reason.strip(), clock()):
            days = ", ".join(map(str, sorted(held))) or "none is"
            raise Refused(f"bookings made on {day} are not held back; days that are held: {days}")
        # What a person calls right is what the data are now: days after it are held against it, too.
        work.forget_pasts()
        work.commit()
    return held[day]


def _waiting(work: UnitOfWork, champion: str, trained_as_of: date, until: date, rule: LabelRule) -> list[_Waiting]:
    """Days, in their order, with bookings that the champion would score and nobody has scored yet."""
    ending = rule.maturing(trained_as_of)
    lately = until - timedelta(days=CATCH_UP)
    days = [day.date() for day in work.unscored_days(champion, lately, until, ending, held=True).index]
    earlier = [hold.day for hold in work.holds(HoldState.HELD) if hold.day <= lately]
    waiting = []
    for day in [*sorted(earlier), *days]:
        bookings = work.history(booked_until=day, known_until=day, booked_after=day - timedelta(days=1))
        scored = bookings["reservation_id"].isin(work.features(bookings["reservation_id"]).index).to_numpy()
        ahead = (maturity(bookings, rule) > pd.Timestamp(trained_as_of)).to_numpy()
        if (~scored & ahead).any():
            waiting.append(_Waiting(day, bookings, ~scored & ahead))
    return waiting


def _check(
    work: UnitOfWork, waiting: list[_Waiting], past: Past, rule: LabelRule, policy: CheckPolicy
) -> dict[date, tuple[Finding, ...]]:
    """What is wrong with each day.

    Features of its bookings are made anew, also of those that have some: what a correction has mended is mended.
    """
    first, last = waiting[0].day, waiting[-1].day
    run = work.history(booked_until=last, known_until=last, booked_after=first - timedelta(days=RUN_DAYS))
    own = run["booked_on"].isin([pd.Timestamp(one.day) for one in waiting]).to_numpy()
    built = booking_time(work, run[own], rule)
    features = built if own.all() else pd.concat([as_scored(work, run[~own], rule), built]).loc[run.index]
    groups = group_keys(run)
    new = run["reservation_id"].isin(pd.concat([w.bookings.loc[w.new, "reservation_id"] for w in waiting])).to_numpy()
    found = {}
    for one in waiting:
        day = pd.Timestamp(one.day)
        found[one.day] = of_day(day, run, features, groups, past, policy)
        if not found[one.day] and not one.new.all():
            # A break that began in the course of the day may drown in what came before it.
            kept = new | (run["booked_on"] != day).to_numpy()
            found[one.day] = of_day(day, run[kept], features[kept], groups[kept], past, policy)
    return found


def _begin(store: Store, hold: Hold, now: datetime) -> bool:
    """False when it is held already; what is found of it now is noted then."""
    with store.begin() as work:
        began = work.add_hold(hold, now)
        if not began:
            work.note_hold(hold)
        elif hold.failed - _failed_before(work, hold.day):
            told = tuple(str(finding) for finding in hold.findings)
            work.add_messages(DataBroken(hold.day, hold.bookings, told, held=True).messages(), now)
        work.commit()
    return began


def _failed_before(work: UnitOfWork, day: date) -> frozenset[tuple[str, Check]]:
    """What the day before that failed, of which people were told: while a break lasts they are told once."""
    last = next(iter(work.checks(until=day - timedelta(days=1), limit=1)), None)
    # A day that passes now was mended, and what it failed has ended with it.
    holds = work.holds(since=day - timedelta(days=CATCH_UP))
    before = [hold for hold in holds if hold.day < day and hold.state is not HoldState.PASSED]
    lately = max(before, key=lambda hold: hold.day, default=None)
    if lately is not None and (last is None or lately.day >= last.day):
        return lately.failed
    return frozenset() if last is None else last.failed


def _let_go(store: Store, until: date, policy: CheckPolicy, now: datetime) -> tuple[Hold, ...]:
    """Ends what is not to be held any more, whatever checks say."""
    with store.begin() as work:
        open_holds = work.holds(HoldState.HELD)
    ended = []
    for hold in open_holds:
        if not policy.hold:
            state, by, why = HoldState.RELEASED, SETTING, NO_HOLD
        elif policy.hold_days and (until - hold.held_on).days >= policy.hold_days:
            state, by = HoldState.EXPIRED, TIME
            why = f"nobody mended or released them in {policy.hold_days} days (CANCELLATIONS_CHECKS__HOLD_DAYS)"
        else:
            continue
        if _end(store, hold.day, state, by, why, now):
            ended.append(replace(hold, state=state, by=by, reason=why))
    return tuple(ended)


def _end(store: Store, day: date, state: HoldState, by: str, reason: str, now: datetime) -> bool:
    with store.begin() as work:
        ended = work.end_hold(day, state, by, reason, now)
        work.commit()
    return ended
