"""The weekly digest: which days it covers, and what it says of them.

A digest covers whole weeks of event time that are over, up to the day before the chosen weekday; the next one goes on
where the last one ended, so that a week that nobody was awake for is told with the one after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

WEEK = timedelta(days=7)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True)
class Span:
    """Days `since` .. `until`, both included."""

    since: date
    until: date

    def __str__(self) -> str:
        return f"{self.since} to {self.until}"

    @property
    def days(self) -> int:
        return (self.until - self.since).days + 1


def due(today: date, weekday: str, told_until: date | None) -> Span | None:
    """The days that a digest of `today` tells; None when they are told. The first digest tells one week.

    >>> str(due(date(2016, 6, 29), "monday", None))
    '2016-06-20 to 2016-06-26'
    >>> str(due(date(2016, 6, 29), "monday", date(2016, 6, 5)))
    '2016-06-06 to 2016-06-26'
    """
    until = today - timedelta(days=1 + (today.weekday() - WEEKDAYS.index(weekday)) % 7)
    if told_until is None:
        return Span(until - WEEK + timedelta(days=1), until)
    return Span(told_until + timedelta(days=1), until) if told_until < until else None


def next_day(today: date, weekday: str) -> date:
    """The first day after `today` on which another week is over."""
    return today + timedelta(days=(WEEKDAYS.index(weekday) - today.weekday() - 1) % 7 + 1)


@dataclass(frozen=True)
class Champion:
    """Who served on the last day: trained as of a day, in service since another."""

    version: str
    trained_as_of: date
    serves_since: date


@dataclass(frozen=True)
class Look:
    """One look of the monitor; `action` is a value of `retraining.Action`."""

    end: date
    champion: str
    evidence: float | None
    action: str


@dataclass(frozen=True)
class Taken:
    """A change of champion; `change` is a value of `promotion.Change`."""

    as_of: date
    change: str
    champion: str
    by: str


@dataclass(frozen=True)
class Tried:
    """A trial or probation that has not ended, as it stood at its last look; `kind` and `state` as in `promotion`."""

    kind: str
    state: str
    champion: str
    rival: str
    opened_on: date
    last_day: date
    days: int
    bookings: int
    gain: float | None
    low: float | None
    high: float | None
    asked_until: datetime | None


@dataclass(frozen=True)
class Asked:
    """A retrain request, and how it ended or stands; `state` is a value of `retraining.RequestState`."""

    request_id: str
    as_of: date
    state: str
    version: str | None
    reason: str


@dataclass(frozen=True)
class BrokenDay:
    """A day whose bookings failed checks: how many findings, and the first."""

    day: date
    bookings: int
    findings: int
    first: str


@dataclass(frozen=True)
class Mailed:
    """A mail that was not kept for the digest; `state` is a value of `ports.MessageState`."""

    id: str
    state: str
