"""From signals to a decision, with reasons: when a champion is retrained.

Feature drift alone is an always-on alarm on hotel bookings: some column drifts every month, and the
usual "share of drifted columns" hardly tells harm. So the first rule weighs three kinds of evidence
over one window (columns that matter to the champion, a classifier that tells the window from the
training reference, loss realised on bookings whose outcome is final), asks for confirmation in k of
the last n windows, and keeps a calendar floor: a model older than that is retrained anyway. Neither
counts before there is something new to learn from: outcomes that became final since.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum

# An alarm at one and a half times its threshold says all that a single signal can say.
STRONGEST = 1.5


class Verdict(StrEnum):
    """What one signal says of one window."""

    OK = "ok"
    WATCH = "watch"  # beyond nine tenths of its threshold
    ALARM = "alarm"
    NOT_EVALUATED = "not evaluated"  # never the same as "no drift"; `why` tells the reason


@dataclass(frozen=True)
class ColumnDrift:
    """Drift of one column: Evidently's score by a pinned method, and what the column looked like.

    `weight` is the champion's permutation importance of the column, as a share of all columns'.
    `before` and `after` are short texts: the median of a number, the leading category with its share.
    """

    column: str
    method: str
    score: float | None
    threshold: float
    drifted: bool
    weight: float
    before: str
    after: str
    why: str = ""


@dataclass(frozen=True)
class Signal:
    """One piece of evidence about a window; it alarms when `value >= threshold`.

    `low` to `high`: 95 % interval of the value, where it has one. `mailed`: people are told when it begins to
    alarm, whatever is decided. `basis`: where the threshold comes from, empty where it is the documented one.
    """

    name: str
    value: float | None
    threshold: float
    verdict: Verdict
    weight: float
    rows: int
    before: str = ""
    after: str = ""
    why: str = ""
    low: float | None = None
    high: float | None = None
    mailed: bool = False
    basis: str = ""

    @property
    def strength(self) -> float:
        """How much an alarm counts: once at its threshold, more beyond it, never more than `STRONGEST`."""
        if self.verdict is not Verdict.ALARM or self.value is None:
            return 0.0
        return min(self.value / self.threshold, STRONGEST)


def evidence_of(signals: Sequence[Signal]) -> float | None:
    """Weighted strength of the alarms over the weight of all signals; None when none with a weight was evaluated.

    A signal that could not be evaluated brings no evidence, for or against.
    """
    if all(s.verdict is Verdict.NOT_EVALUATED for s in signals if s.weight > 0):
        return None
    return sum(s.weight * s.strength for s in signals) / sum(s.weight for s in signals)


def beside_the_evidence(signals: Sequence[Signal]) -> list[Signal]:
    """Signals that alarm and have no weight: people look at what they tell, no retrain follows from it."""
    return [s for s in signals if s.verdict is Verdict.ALARM and s.weight == 0]


def judge(value: float, threshold: float) -> Verdict:
    """Verdict of a signal that alarms from `threshold` up."""
    if value >= threshold:
        return Verdict.ALARM
    return Verdict.WATCH if value >= 0.9 * threshold else Verdict.OK


@dataclass(frozen=True)
class Window:
    """Bookings made on `start` .. `end`, both included; outcomes as known on `end`."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start} to {self.end}"


@dataclass(frozen=True)
class MonitorReport:
    """What the monitor measured of one window against its reference; `reference` says which that was."""

    champion: str
    window: Window
    rows: int
    reference_rows: int
    signals: tuple[Signal, ...]
    columns: tuple[ColumnDrift, ...] = ()
    reference: str = "the champion's training"

    def evidence(self) -> float | None:
        return evidence_of(self.signals)

    def signal(self, name: str) -> Signal | None:
        return next((s for s in self.signals if s.name == name), None)


@dataclass(frozen=True)
class RetrainPolicy:
    """When to retrain. Days are calendar days of event time.

    A window counts as drifted when its evidence, alarms by weight and strength, reaches
    `evidence_needed`: with the default weights (columns 1, classifier 1, realised loss 2) the loss and
    one of the two others, or a loss of one and a half times its threshold alone. Columns drift with
    every season and prove no harm, so without the loss they never suffice. `confirm_k` of the last
    `confirm_n` windows must be drifted, the last one among them. `calendar_floor_days` retrains an
    aging champion without any drift. After a request, or a rollback, the next one waits `cooldown_days`, and no more
    than `budget` requests are made within `budget_days`, whatever the signals say. A retrain waits until
    `min_new_labels` outcomes became final since the champion was trained: the log loss of 500 bookings has a
    standard error of some .02, which is what the loss signal alarms at, so fewer could not show what they
    taught; 0 never waits.
    """

    evidence_needed: float = 0.75
    confirm_k: int = 2
    confirm_n: int = 3
    calendar_floor_days: int = 91
    cooldown_days: int = 28
    budget: int = 8
    budget_days: int = 365
    min_new_labels: int = 500


class Action(StrEnum):
    """What a decision asks for."""

    NONE = "none"
    RETRAIN_DRIFT = "retrain: drift confirmed"
    RETRAIN_CALENDAR = "retrain: champion past its calendar floor"
    HOLD = "hold"  # there is a reason to retrain, and a rule that forbids it now

    @property
    def retrains(self) -> bool:
        return self in (Action.RETRAIN_DRIFT, Action.RETRAIN_CALENDAR)


@dataclass(frozen=True)
class Decision:
    """An action with every reason that led to it, in the order in which they were weighed."""

    action: Action
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class RetrainHistory:
    """What happened before: older reports of this champion, and requests of any.

    `evidence` holds one entry per earlier window of the present champion, oldest first (None = could
    not be evaluated); `requested_on` the event dates of earlier requests, the first training among
    them not; `rolled_back_on` the event date of the last rollback; `pending` names a request, a trial
    or a probation that has not ended; `broken` tells what is wrong with the last day's bookings.
    """

    champion_trained_as_of: date
    evidence: tuple[float | None, ...] = ()
    requested_on: tuple[date, ...] = ()
    rolled_back_on: date | None = None
    pending: str | None = None
    paused: str | None = None
    broken: str | None = None
    matured_since: int | None = None


def decide_retrain(signals: Sequence[Signal], history: RetrainHistory, policy: RetrainPolicy, now: date) -> Decision:
    """Weighs the signals of the window that ends `now`, a day of event time. Pure: same input, same decision."""
    reasons: list[str] = [_describe(signals, policy), *(_beside(s) for s in beside_the_evidence(signals))]

    recent: Sequence[float | None] = (*history.evidence, evidence_of(signals))[-policy.confirm_n :]
    drifted = [e is not None and e >= policy.evidence_needed for e in recent]
    confirmed = drifted[-1] and sum(drifted) >= policy.confirm_k
    reasons.append(
        f"{sum(drifted)} of the last {len(drifted)} windows drifted"
        f" (needed: {policy.confirm_k} of {policy.confirm_n}, the last one among them)"
    )
    age = (now - history.champion_trained_as_of).days
    stale = age >= policy.calendar_floor_days
    reasons.append(f"champion is {age} days old (calendar floor: {policy.calendar_floor_days})")
    reasons.append(_news(history, policy))

    if not (confirmed or stale):
        return Decision(Action.NONE, tuple(reasons))
    if held := _held(now, history, policy):
        return Decision(Action.HOLD, (*reasons, held))
    return Decision(Action.RETRAIN_DRIFT if confirmed else Action.RETRAIN_CALENDAR, tuple(reasons))


def _describe(signals: Sequence[Signal], policy: RetrainPolicy) -> str:
    evidence = evidence_of(signals)
    if evidence is None:
        why = "; ".join(f"{s.name}: {s.why}" for s in signals if s.why)
        return f"no signal could be evaluated ({why})"
    alarms = [_exceeds(s) for s in signals if s.verdict is Verdict.ALARM and s.weight > 0]
    told = ", ".join(alarms) if alarms else "no alarm"
    # Rounded down: evidence that just misses should not read as if it had not.
    return f"evidence {math.floor(evidence * 100) / 100:.2f} of {policy.evidence_needed:g} needed: {told}"


def _exceeds(signal: Signal) -> str:
    return f"{signal.name} {signal.value:.3f} >= {signal.threshold:g}"


def _beside(signal: Signal) -> str:
    return f"beside the evidence: {_exceeds(signal)}; {signal.before}, {signal.after}"


def _news(history: RetrainHistory, policy: RetrainPolicy) -> str:
    if history.matured_since is None:
        return "how many outcomes became final since it was trained is not known"
    return f"{history.matured_since:,} outcomes became final since it was trained (needed: {policy.min_new_labels:,})"


def _held(today: date, history: RetrainHistory, policy: RetrainPolicy) -> str | None:
    if history.paused is not None:
        return f"held: automatic retraining is paused ({history.paused})"
    if history.broken is not None:
        return f"held: the data are broken ({history.broken})"
    if history.pending is not None:
        return f"held: {history.pending} has not ended"
    last = max(history.requested_on, default=None)
    if last is not None and (today - last).days < policy.cooldown_days:
        return f"held: last request {last}, cooldown {policy.cooldown_days} days"
    back = history.rolled_back_on
    if back is not None and (today - back).days < policy.cooldown_days:
        return f"held: rolled back on {back}, cooldown {policy.cooldown_days} days"
    since = today - timedelta(days=policy.budget_days)
    spent = sum(d > since for d in history.requested_on)
    if spent >= policy.budget:
        return f"held: {spent} requests in {policy.budget_days} days, the budget is {policy.budget}"
    if history.matured_since is not None and history.matured_since < policy.min_new_labels:
        return f"held: {history.matured_since:,} new outcomes are too few to learn from, of {policy.min_new_labels:,}"
    return None


class RequestState(StrEnum):
    """Where a retrain request stands; the last three are final."""

    WAITING = "waiting"  # written, not claimed by a worker yet, or its worker died
    RUNNING = "running"  # a worker holds it, by lease
    CANDIDATE = "candidate"  # a version was registered
    REJECTED = "rejected"  # the gate refused, with reasons
    FAILED = "failed"  # its attempts are used up

    @property
    def final(self) -> bool:
        return self in (RequestState.CANDIDATE, RequestState.REJECTED, RequestState.FAILED)


@dataclass(frozen=True)
class RetrainRequest:
    """One wish for a new version, durable until it ends.

    `as_of` is the event date on which training looks at the world; `reason` a line for people.
    `report_id` is None for a request by a person or for the first champion.
    """

    request_id: str
    as_of: date
    reason: str
    state: RequestState = RequestState.WAITING
    attempts: int = 0
    report_id: str | None = None
    champion: str | None = None
    version: str | None = None
    detail: tuple[str, ...] = field(default=())
