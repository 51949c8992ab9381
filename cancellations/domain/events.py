"""Facts, in the past tense. Each is written once, in the transaction that made it true.

A fact becomes messages in the outbox: a mail to the owners, and for those that ask for work a
Prefect event. `id` is derived from what happened, so the same fact told twice has one id.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from datetime import date
from enum import StrEnum
from typing import Any, ClassVar

# Any fixed value serves: it only separates our ids from everybody else's.
_NAMESPACE = uuid.UUID("6f0c5b1e-3f0a-5a5e-9a53-9d0b1b7c2e11")


def identity(*parts: object) -> str:
    """A UUID that is the same for the same parts, in any process, for ever."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(str(p) for p in parts)))


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
    """Base of the facts below; `topic` is the name of the event and of the mail."""

    topic: ClassVar[str]
    rings: ClassVar[bool] = False

    def messages(self) -> tuple[Message, ...]:
        """A mail for each fact; an event too for those that ask for work."""
        payload = json.loads(json.dumps(asdict(self), default=str))
        channels = (Channel.EVENT, Channel.MAIL) if self.rings else (Channel.MAIL,)
        return tuple(Message(identity(self.topic, c, payload), c, self.topic, payload) for c in channels)


@dataclass(frozen=True)
class RetrainRequested(Fact):
    """A look at a window ended with a request; what the two kinds of it have in common."""

    rings: ClassVar[bool] = True
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
class ChallengerRegistered(Fact):
    """A request ended with a new version, which now stands beside the champion."""

    topic: ClassVar[str] = "cancellations.challenger.registered"
    request_id: str
    version: str
    champion: str
    as_of: date
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class RetrainRejected(Fact):
    """A request ended at the gate: the candidate was not good enough; nothing changed."""

    topic: ClassVar[str] = "cancellations.retrain.rejected"
    request_id: str
    champion: str | None
    as_of: date
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class RetrainFailed(Fact):
    """A request used up its attempts; nothing changed, and a person is needed."""

    topic: ClassVar[str] = "cancellations.retrain.failed"
    request_id: str
    champion: str | None
    as_of: date
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ChampionChanged(Fact):
    """Another version serves from now on."""

    topic: ClassVar[str] = "cancellations.champion.changed"
    version: str
    previous: str | None
    epoch: int
    as_of: date
    reason: str


FACTS: tuple[type[Fact], ...] = (
    DriftDetected,
    RetrainDue,
    ChallengerRegistered,
    RetrainRejected,
    RetrainFailed,
    ChampionChanged,
)
