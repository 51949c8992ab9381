"""Facts, in the past tense. Each is written once, in the transaction that made it true.

A fact becomes messages in the outbox: a mail to the owners, a Prefect event, or both. `id` is
derived from what happened, so the same fact told twice has one id.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar

from cancellations.domain.digest import Asked, BrokenDay, Champion, Look, Mailed, Taken, Tried

# Any fixed value serves: it only separates our ids from everybody else's.
_NAMESPACE = uuid.UUID("6f0c5b1e-3f0a-5a5e-9a53-9d0b1b7c2e11")


def identity(*parts: object) -> str:
    """A UUID that is the same for the same parts, in any process, for ever."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(str(p) for p in parts)))


# Of every topic.
PREFIX = "cancellations."


class Channel(StrEnum):
    """Where a message goes."""

    EVENT = "event"  # Prefect, as a doorbell
    MAIL = "mail"  # the owners


@dataclass(frozen=True)
class Message:
    """Something that must leave the house at least once, always with the same id."""

    id: str
    channel: Channel
    topic: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Fact:
    """Base of the facts below; `topic` is the name of the event and of the mail.

    `channels` are the ways by which it leaves the house; `about` the kind of thing that it tells of,
    and the field with that thing's id, so that whoever listens can follow one of them. `identified_by`
    names the fields that make the fact what it is, where not all of them do.
    """

    topic: ClassVar[str]
    channels: ClassVar[tuple[Channel, ...]] = (Channel.MAIL,)
    about: ClassVar[tuple[str, str]]
    identified_by: ClassVar[tuple[str, ...]] = ()

    def messages(self) -> tuple[Message, ...]:
        payload = json.loads(json.dumps(asdict(self), default=str))
        made_of = {name: payload[name] for name in self.identified_by} or payload
        return tuple(Message(identity(self.topic, c, made_of), c, self.topic, payload) for c in self.channels)


@dataclass(frozen=True)
class RetrainRequested(Fact):
    """A look at a window ended with a request; what the two kinds of it have in common."""

    channels: ClassVar[tuple[Channel, ...]] = (Channel.EVENT, Channel.MAIL)
    about: ClassVar[tuple[str, str]] = ("request", "request_id")
    request_id: str
    report_id: str
    champion: str
    window_start: date
    window_end: date
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class DriftDetected(RetrainRequested):
    """The monitor confirmed drift of the champion's world; a retrain is requested."""

    topic: ClassVar[str] = "cancellations.drift.detected"


@dataclass(frozen=True)
class RetrainDue(RetrainRequested):
    """The champion passed its calendar floor without drift; a retrain is requested."""

    topic: ClassVar[str] = "cancellations.retrain.due"


@dataclass(frozen=True)
class SignalAlarmed(Fact):
    """A signal that is no reason to retrain alarms, and did not in the window before: a person looks."""

    topic: ClassVar[str] = "cancellations.signal.alarmed"
    about: ClassVar[tuple[str, str]] = ("report", "report_id")
    report_id: str
    champion: str
    window_start: date
    window_end: date
    signal: str
    before: str
    after: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class DataBroken(Fact):
    """Bookings of a day fail a check that those of the day before did not fail; `reasons` names each.

    `held`: the bookings are those that wait to be scored, and are held back.
    """

    topic: ClassVar[str] = "cancellations.data.broken"
    about: ClassVar[tuple[str, str]] = ("day", "day")
    day: date
    bookings: int
    reasons: tuple[str, ...]
    held: bool = False


@dataclass(frozen=True)
class SourceSilent(Fact):
    """No booking has been made since `since`, for `days` days, where the longest pause of a year was `longest`.

    Told once for each silence, however long it lasts.
    """

    topic: ClassVar[str] = "cancellations.source.silent"
    about: ClassVar[tuple[str, str]] = ("day", "since")
    identified_by: ClassVar[tuple[str, ...]] = ("since",)
    since: date
    days: int
    longest: int


@dataclass(frozen=True)
class ChallengerRegistered(Fact):
    """A request ended with a new version, which now stands beside the champion."""

    topic: ClassVar[str] = "cancellations.challenger.registered"
    about: ClassVar[tuple[str, str]] = ("request", "request_id")
    request_id: str
    version: str
    champion: str
    as_of: date
    reasons: tuple[str, ...]
    trial_id: str | None = None


@dataclass(frozen=True)
class RetrainRejected(Fact):
    """A request ended at the gate: the candidate was not good enough; nothing changed."""

    topic: ClassVar[str] = "cancellations.retrain.rejected"
    about: ClassVar[tuple[str, str]] = ("request", "request_id")
    request_id: str
    champion: str | None
    as_of: date
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class RetrainFailed(Fact):
    """A request used up its attempts; nothing changed, and a person is needed."""

    topic: ClassVar[str] = "cancellations.retrain.failed"
    about: ClassVar[tuple[str, str]] = ("request", "request_id")
    request_id: str
    champion: str | None
    as_of: date
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class RetrainOverdue(Fact):
    """A request has not ended long after it could begin; told once for each request, whatever follows.

    `made_at` is when it was written, `minutes` for how long no rule has kept it from starting; `reasons` say what it
    waits for, the first one shortly.
    """

    topic: ClassVar[str] = "cancellations.retrain.overdue"
    about: ClassVar[tuple[str, str]] = ("request", "request_id")
    identified_by: ClassVar[tuple[str, ...]] = ("request_id",)
    request_id: str
    champion: str | None
    as_of: date
    made_at: datetime
    minutes: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class FlowFailed(Fact):
    """A run of a flow ended in an error at `at`; the orchestrator tells of the first one of a flow in a day.

    `state` is the run's state, `said` the error as the run ended with it.
    """

    topic: ClassVar[str] = "cancellations.flow.failed"
    about: ClassVar[tuple[str, str]] = ("flow", "flow")
    identified_by: ClassVar[tuple[str, ...]] = ("run_id",)
    flow: str
    run_id: str
    run: str
    state: str
    said: str
    at: datetime


@dataclass(frozen=True)
class FlowSilent(Fact):
    """A flow that should run every few minutes has completed no run since `since`, for `hours`; None is never.

    Told once for each silence.
    """

    topic: ClassVar[str] = "cancellations.flow.silent"
    about: ClassVar[tuple[str, str]] = ("flow", "flow")
    identified_by: ClassVar[tuple[str, ...]] = ("flow", "since")
    flow: str
    since: datetime | None
    hours: int


@dataclass(frozen=True)
class ChampionChanged(Fact):
    """Another version serves from now on: the first one, a promoted one, or one that is back.

    `change` is a value of `promotion.Change`, `by` who or what did it, `reasons` the evidence.
    """

    topic: ClassVar[str] = "cancellations.champion.changed"
    channels: ClassVar[tuple[Channel, ...]] = (Channel.EVENT, Channel.MAIL)
    about: ClassVar[tuple[str, str]] = ("champion", "version")
    version: str
    previous: str | None
    epoch: int
    as_of: date
    change: str
    reason: str
    by: str
    trial_id: str | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class AliasMoved(Fact):
    """Somebody has moved an alias in the registry, and it was put back; told once for each place in an epoch.

    From `placed`, where we had it, to `found`; None is nobody.
    """

    topic: ClassVar[str] = "cancellations.alias.moved"
    about: ClassVar[tuple[str, str]] = ("alias", "alias")
    identified_by: ClassVar[tuple[str, ...]] = ("alias", "found", "epoch")
    alias: str
    placed: str | None
    found: str | None
    epoch: int
    seen_at: datetime
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ApprovalNeeded(Fact):
    """A trial found its challenger better, and a person is asked; no answer by `until` means no."""

    topic: ClassVar[str] = "cancellations.approval.needed"
    about: ClassVar[tuple[str, str]] = ("trial", "trial_id")
    trial_id: str
    champion: str
    version: str
    as_of: date
    until: datetime
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class TrialDoubted(Fact):
    """A trial or probation reads bookings that it should not be believed on: it promotes nothing by itself.

    `doubt` is a value of `promotion.Doubt`; told once for each of them in a trial.
    """

    topic: ClassVar[str] = "cancellations.trial.doubted"
    about: ClassVar[tuple[str, str]] = ("trial", "trial_id")
    identified_by: ClassVar[tuple[str, ...]] = ("trial_id", "doubt")
    trial_id: str
    kind: str
    doubt: str
    champion: str
    version: str
    as_of: date
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class TrialEnded(Fact):
    """A trial or a probation ended, and the champion stays. `kind` and `state` as in `promotion`."""

    topic: ClassVar[str] = "cancellations.trial.ended"
    about: ClassVar[tuple[str, str]] = ("trial", "trial_id")
    trial_id: str
    kind: str
    state: str
    champion: str
    version: str
    as_of: date
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class OutcomesArrived(Fact):
    """A load brought outcomes while a trial or a probation reads them."""

    topic: ClassVar[str] = "cancellations.outcomes.arrived"
    channels: ClassVar[tuple[Channel, ...]] = (Channel.EVENT,)
    about: ClassVar[tuple[str, str]] = ("trial", "trial_id")
    trial_id: str
    until: date
    outcomes: int
    loaded_at: datetime


@dataclass(frozen=True)
class OutlookPublished(Fact):
    """The outlook of a morning was written; one mail a day, whatever is computed anew on it.

    `weeks`: the next 7 and 14 nights, rows of `domain.outlook.over` with `days`, all hotels together first, then
    the largest; `of` how many there are.
    `nights` and `riskiest` hold the columns of their tables as lists. `readers` are the addresses that it
    goes to, `environment` the deployment's name, since two of them may write to one reader.
    """

    topic: ClassVar[str] = "cancellations.outlook.published"
    about: ClassVar[tuple[str, str]] = ("outlook", "as_of")
    identified_by: ClassVar[tuple[str, ...]] = ("as_of", "environment")
    as_of: date
    version: str
    share: float
    currency: str
    environment: str
    readers: tuple[str, ...]
    unscored: int
    weeks: tuple[dict[str, Any], ...]
    riskiest: dict[str, list[Any]]
    nights: dict[str, list[Any]]


@dataclass(frozen=True)
class DigestPublished(Fact):
    """What happened on the days `since` .. `until` of event time, and how things stand; one mail for a last day.

    `report_id` names the last look that was taken by `until`; `serving` who serves now, where it is not the champion
    of then. `booked` bookings were made on these days, `scored` of them have the champion's score; on the days of
    `silent` there was none. `held` is why promotions need a person, `paused` why nothing is retrained by itself.
    `weekly` are ids of the mails that the digest tells in their place, `at_once` those that left by themselves.
    """

    topic: ClassVar[str] = "cancellations.digest.published"
    about: ClassVar[tuple[str, str]] = ("digest", "until")
    identified_by: ClassVar[tuple[str, ...]] = ("until", "environment")
    since: date
    until: date
    environment: str
    champion: Champion | None = None
    serving: str | None = None
    report_id: str | None = None
    looks: tuple[Look, ...] = ()
    changes: tuple[Taken, ...] = ()
    trial: Tried | None = None
    requests: tuple[Asked, ...] = ()
    broken: tuple[BrokenDay, ...] = ()
    silent: tuple[date, ...] = ()
    booked: int = 0
    scored: int = 0
    paused: str | None = None
    held: str | None = None
    weekly: tuple[str, ...] = ()
    at_once: tuple[Mailed, ...] = ()


FACTS: tuple[type[Fact], ...] = (
    DriftDetected,
    RetrainDue,
    SignalAlarmed,
    DataBroken,
    SourceSilent,
    ChallengerRegistered,
    RetrainRejected,
    RetrainFailed,
    RetrainOverdue,
    FlowFailed,
    FlowSilent,
    ChampionChanged,
    AliasMoved,
    ApprovalNeeded,
    TrialDoubted,
    TrialEnded,
    OutcomesArrived,
    OutlookPublished,
    DigestPublished,
)


# The readers of an outlook are named by its own setting.
OWNERS_MAILS: tuple[str, ...] = tuple(
    fact.topic.removeprefix(PREFIX) for fact in FACTS if Channel.MAIL in fact.channels and fact is not OutlookPublished
)
"""Kinds of mail that go to the owners, as settings name them."""
WEEKLY_MAILS: tuple[str, ...] = tuple(kind for kind in OWNERS_MAILS if PREFIX + kind != DigestPublished.topic)
"""Those of them that may wait for the digest."""


def subject(message: Message) -> tuple[str, str]:
    """What a message is about: the kind of thing, and its id."""
    kind, key = next(fact.about for fact in FACTS if fact.topic == message.topic)
    return kind, str(message.payload[key])
