"""The weekly digest: what the last days brought, and how things stand, as one mail.

It is gathered in one transaction that only reads, then written in another together with the end of the waiting of
every mail that it tells: a death in between leaves those mails waiting, and no digest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import chain

import pandas as pd

from cancellations.domain.digest import (
    WEEK,
    Asked,
    BrokenDay,
    Champion,
    Look,
    Mailed,
    Span,
    Taken,
    Tried,
    due,
    next_day,
)
from cancellations.domain.events import Channel, DigestPublished, OutlookPublished
from cancellations.domain.promotion import Change, LedgerRow, Trial
from cancellations.domain.retraining import RequestState
from cancellations.ports import MessageState, OutboxEntry, Store, UnitOfWork

LEASE = "digest"
# It is held within one transaction: nobody ever sees it expire.
LEASE_TTL = timedelta(minutes=5)
CHANGES = (Change.FIRST, Change.PROMOTED, Change.ROLLED_BACK, Change.RECALIBRATED)
# Looks a step of a day apart, and some that were taken late, of windows that an earlier digest had told.
LATE_LOOKS = 30


@dataclass(frozen=True)
class Digested:
    """The digest that was written, if one was; `why` says what was done, or why nothing was."""

    fact: DigestPublished | None
    why: str


def digest(
    store: Store,
    *,
    as_of: date,
    weekday: str | None,
    weekly: Collection[str],
    environment: str,
    owner: str,
    clock: Callable[[], datetime],
) -> Digested:
    """Writes the digest of the days since the last one, if a week is over on `as_of`. Safe to run at any time.

    `weekday`: the day on which a digest comes, None when none does; `weekly`: topics whose mails wait for it. There
    is one digest for a last day, however often it is asked for. The first one waits until there was a champion, or
    until a mail has waited for a week.
    """
    if weekday is None:
        return Digested(None, "the digest is turned off: CANCELLATIONS_MAIL__DIGEST_DAY is never")
    with store.begin() as work:
        last = work.last_message(DigestPublished.topic)
        until = None if last is None else _day(last, "until")
        span = due(as_of, weekday, until)
        if span is None:
            return Digested(None, f"told until {until} already; the next digest is due on {next_day(as_of, weekday)}")
        if last is None and not _something_to_tell(work, span, weekly, clock()):
            return Digested(None, f"nothing to tell yet: there was no champion by {span.until}")
        read = work.last_message(DigestPublished.topic, but=MessageState.DEAD)
        if last is not None and last != read:
            # Nobody got the last one: its days are told again.
            span = replace(span, since=_day(last, "since"))
        fact = _gather(work, span, read, environment)
    with store.begin() as work:
        # Until the commit nobody else writes a digest, so each waiting mail is in one.
        token = work.acquire_lease(LEASE, owner, clock(), LEASE_TTL)
        found = work.last_message(DigestPublished.topic)
        if token is None or (found and found.number) != (last and last.number):
            return Digested(None, f"another run has told the days {span} meanwhile")
        fact = _with_mails(work, fact, read, weekly, clock())
        work.add_messages(fact.messages(), clock())
        work.mark_told(fact.weekly)
        work.release_lease(LEASE, token)
        work.commit()
    kept = len(fact.weekly)
    mails = {0: "no mail waited for it", 1: "it tells the 1 mail that waited for it"}
    return Digested(fact, f"the digest of {span} is written; {mails.get(kept, f'it tells {kept} mails that waited')}")


def _something_to_tell(work: UnitOfWork, span: Span, weekly: Collection[str], now: datetime) -> bool:
    if any(row.as_of <= span.until for row in work.ledger()[:1]):
        return True
    return any(now - entry.created_at >= WEEK for entry in _waiting(work, weekly))


def _waiting(work: UnitOfWork, weekly: Collection[str]) -> list[OutboxEntry]:
    return [e for e in work.pending_messages() if e.message.channel is Channel.MAIL and e.message.topic in weekly]


def _with_mails(
    work: UnitOfWork, fact: DigestPublished, read: OutboxEntry | None, weekly: Collection[str], now: datetime
) -> DigestPublished:
    """The digest with the mails that waited for it, and those that were written since the last one and did not."""
    since = work.mails_after(0 if read is None else read.number)
    # Digests behind the last one that was read are those that nobody got: what they told is told again.
    unread = [e.message.payload["weekly"] for e in since if e.message.topic == DigestPublished.topic]
    kept = (entry.message.id for entry in _waiting(work, weekly))
    waiting = list(dict.fromkeys([*chain.from_iterable(unread), *kept]))
    others = [
        Mailed(entry.message.id, entry.state.value)
        for entry in since
        if entry.message.id not in waiting
        and entry.message.topic != OutlookPublished.topic
        # Before the first digest mails came at once for ever: those of a week are enough.
        and (read is not None or now - entry.created_at < WEEK)
    ]
    return replace(fact, weekly=tuple(waiting), at_once=tuple(others))


def _day(digest: OutboxEntry, name: str) -> date:
    return date.fromisoformat(digest.message.payload[name])


def _gather(work: UnitOfWork, span: Span, read: OutboxEntry | None, environment: str) -> DigestPublished:
    def told_now(day: date, recorded_at: datetime) -> bool:
        """Of these days; or of earlier ones, written after their digest was."""
        late = read is not None and recorded_at > read.created_at
        return span.since <= day <= span.until or (day < span.since and late)

    ledger = work.ledger()
    champion = _champion(work, ledger, span.until)
    decisions = [d for d in work.decisions(limit=span.days + LATE_LOOKS) if d.report.window.end <= span.until]
    looks = [
        Look(d.report.window.end, d.report.champion, d.report.evidence(), d.decision.action.value)
        for d in reversed(decisions)
        if told_now(d.report.window.end, d.recorded_at)
    ]
    changes = [
        Taken(row.as_of, row.change.value, row.champion, row.by)
        for row in ledger
        if row.change in CHANGES and row.champion is not None and told_now(row.as_of, row.recorded_at)
    ]
    booked = work.booked_days(span.since - timedelta(days=1), span.until)
    days = pd.date_range(span.since, span.until)
    unscored = 0
    if champion is not None:
        unscored = int(work.unscored_days(champion.version, span.since - timedelta(days=1), span.until).sum())
    trial, serving = work.open_trial(), work.standing().champion
    return DigestPublished(
        since=span.since,
        until=span.until,
        environment=environment,
        champion=champion,
        serving=serving if champion is not None and serving != champion.version else None,
        report_id=decisions[0].report_id if decisions else None,
        looks=tuple(looks),
        changes=tuple(changes),
        trial=None if trial is None else tried(trial),
        requests=_requests(work, span, read),
        broken=_broken(work, span),
        silent=tuple(day.date() for day in days.difference(booked.index)),
        booked=int(booked.sum()),
        scored=0 if champion is None else int(booked.sum()) - unscored,
        paused=work.paused(),
        held=work.promotions_held(),
    )


def _champion(work: UnitOfWork, ledger: Sequence[LedgerRow], until: date) -> Champion | None:
    """Who served at the end of a day, and since when without a break."""
    known = [row for row in ledger if row.as_of <= until]
    if not known or known[-1].champion is None:
        return None
    version, since = known[-1].champion, known[-1].as_of
    for row in reversed(known):
        if row.champion != version:
            break
        since = row.as_of
    record = work.version(version)
    return None if record is None else Champion(version, record.trained_as_of, since)


def tried(trial: Trial) -> Tried:
    """A trial as a digest tells it."""
    step = trial.evidence[-1] if trial.evidence else None
    return Tried(
        kind=trial.kind.value,
        state=trial.state.value,
        champion=trial.champion,
        rival=trial.rival,
        opened_on=trial.opened_on,
        last_day=trial.last_day,
        days=len(trial.evidence),
        bookings=0 if step is None else step.bookings,
        gain=None if step is None else _finite(step.gain),
        low=None if step is None else _finite(step.low),
        high=None if step is None else _finite(step.high),
        asked_until=trial.asked_until,
    )


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _requests(work: UnitOfWork, span: Span, read: OutboxEntry | None) -> tuple[Asked, ...]:
    """Those made on these days, those that have not ended, and those that had not when the last digest was written."""
    open_then: set[str] = set()
    if read is not None:
        told = read.message.payload["requests"]
        open_then = {asked["request_id"] for asked in told if not RequestState(asked["state"]).final}
    return tuple(
        Asked(r.request_id, r.as_of, r.state.value, r.version, r.reason)
        for r in work.requests()
        if span.since <= r.as_of <= span.until or not r.state.final or r.request_id in open_then
    )


def _broken(work: UnitOfWork, span: Span) -> tuple[BrokenDay, ...]:
    checked = work.checks(until=span.until, limit=span.days)
    return tuple(
        BrokenDay(c.day, c.bookings, len(c.findings), str(c.findings[0]))
        for c in reversed(checked)
        if c.findings and c.day >= span.since
    )
