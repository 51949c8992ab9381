"""Who is champion, and how that changes: trials, probations, the ledger.

A challenger becomes champion through a *trial*: it scores the same bookings as the champion, and a
paired test decides. A new champion is on *probation*: the one before it keeps scoring in shadow,
and the same test, asked the other way round, rolls back. At most one of the two runs at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum

from cancellations.domain.comparison import Finding, Reading, SequencePolicy, Step, radius


@dataclass(frozen=True)
class Standing:
    """The ledger's word on who serves: `epoch` counts the changes and guards each of them.

    Whoever changes the standing names the epoch it has read; the change is refused when somebody
    else was faster.
    """

    champion: str | None
    challenger: str | None
    epoch: int


class Change(StrEnum):
    """What a row of the ledger records."""

    FIRST = "first champion"
    CHALLENGED = "challenger stands"
    LEFT = "challenger left"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    RECALIBRATED = "recalibrated"


@dataclass(frozen=True)
class LedgerRow:
    """One change of champion or challenger: who stood after it, why, by whom, from which trial."""

    epoch: int
    champion: str | None
    challenger: str | None
    change: Change
    reason: str
    by: str
    request_id: str | None
    trial_id: str | None
    as_of: date
    recorded_at: datetime


def predecessor(ledger: Sequence[LedgerRow]) -> str | None:
    """The champion to go back to: the one before the present one, leaving out what was rolled back.

    A promotion goes on top of a pile, in which a version lies once; a rollback takes off what lies
    above its target, or the top when its target was taken off before.
    """
    pile: list[str] = []
    for row in ledger:
        if row.champion is None or row.change in (Change.CHALLENGED, Change.LEFT):
            continue
        if row.change is Change.ROLLED_BACK:
            del pile[pile.index(row.champion) if row.champion in pile else -1 :]
        pile = [*(version for version in pile if version != row.champion), row.champion]
    return pile[-2] if len(pile) > 1 else None


def recalibrated_from(ledger: Sequence[LedgerRow]) -> dict[str, str]:
    """For each version that stood first by a recalibration, the trained version that it shifts."""
    bases: dict[str, str] = {}
    stood: set[str] = set()
    before: str | None = None
    for row in ledger:
        if row.champion is None:
            continue
        if row.change is Change.RECALIBRATED and row.champion not in stood and before is not None:
            bases[row.champion] = bases.get(before, before)
        stood.add(row.champion)
        before = row.champion
    return bases


def kin(ledger: Sequence[LedgerRow], version: str) -> tuple[str, ...]:
    """A version with all that differ from it by a shift alone: the trained one, then its recalibrations in order."""
    bases = recalibrated_from(ledger)
    base = bases.get(version, version)
    return (base, *(one for one, of in bases.items() if of == base))


class Mode(StrEnum):
    """What happens when a trial finds the challenger better."""

    AUTO = "auto"  # it is promoted
    APPROVE = "approve"  # a person is asked first; no answer means no
    SHADOW = "shadow"  # nobody is served its scores, and nothing is promoted; the finding is on record


@dataclass(frozen=True)
class TrialPolicy:
    """How challengers are tried, and champions watched after a promotion. Days are event time.

    `serve_share` of bookings are served the challenger's score while it is tried; 0 is a shadow
    trial. `max_days` after its opening a trial without an answer ends without promotion: outcomes
    that mature later tell of another season. `probation_days`: how long the previous champion keeps
    scoring beside a new one; the test needs 14 days at least, and most faults show within 22.
    `approval_hours`: how long a person may take to answer. `arms_alpha`: chance, for arms that are as
    they should be, that their sizes are ever called wrong; a mismatch is always a fault, so one false
    alarm in a thousand trials is enough. `replace_after_days`: so many days more of outcomes must a newer
    challenger have been trained on to take the place of one that cannot win any more; 0: never.
    """

    mode: Mode = Mode.AUTO
    serve_share: float = 0.5
    max_days: int = 56
    probation_days: int = 42
    approval_hours: float = 72.0
    arms_alpha: float = 0.001
    replace_after_days: int = 28
    sequence: SequencePolicy = field(default_factory=SequencePolicy)

    def __post_init__(self) -> None:
        if not 0 <= self.serve_share <= 1:
            raise ValueError(f"serve_share is {self.serve_share:g}; it is a share, from 0 to 1")
        for name in ("max_days", "probation_days"):
            days = getattr(self, name)
            if days < self.sequence.burn_in_days:
                raise ValueError(f"{name} is {days}; the test says nothing before {self.sequence.burn_in_days} days")
        if not 0 < self.approval_hours < math.inf:
            raise ValueError(f"approval_hours is {self.approval_hours:g}; somebody needs time to answer")
        if self.replace_after_days < 0:
            raise ValueError(f"replace_after_days is {self.replace_after_days}; days are counted from 0 on")
        if not 0 < self.arms_alpha < 0.5:
            raise ValueError(f"arms_alpha is {self.arms_alpha:g}; it must lie between 0 and 0.5")

    @property
    def share(self) -> float:
        """Share of bookings that are served the challenger's score, by mode."""
        return 0.0 if self.mode is Mode.SHADOW else self.serve_share


class Kind(StrEnum):
    """Which way round the comparison is meant."""

    TRIAL = "trial"  # the rival is a challenger that wants to be champion
    PROBATION = "probation"  # the rival is the previous champion, and the present one must not be worse


class TrialState(StrEnum):
    """Where a trial or a probation stands; all but the first two are final."""

    RUNNING = "running"
    AWAITING = "awaiting approval"  # the challenger is better; a person has been asked
    PROMOTED = "promoted"  # trial: the challenger is champion now
    REJECTED = "rejected"  # trial: the champion is better
    DECLINED = "declined"  # trial: a person said no, or nobody answered in time
    WITHHELD = "withheld"  # trial in shadow mode: the challenger is better, promotion is left to a person
    ROLLED_BACK = "rolled back"  # probation: the previous champion is better and serves again
    CONFIRMED = "confirmed"  # probation: the new champion is better
    EXPIRED = "expired"  # no answer by its last day; the champion stays
    WITHDRAWN = "withdrawn"  # a person ended it, or changed the champion meanwhile

    @property
    def final(self) -> bool:
        return self not in (TrialState.RUNNING, TrialState.AWAITING)


TRANSITIONS: Mapping[Kind, Mapping[TrialState, frozenset[TrialState]]] = {
    Kind.TRIAL: {
        TrialState.RUNNING: frozenset(
            {
                TrialState.AWAITING,
                TrialState.PROMOTED,
                TrialState.REJECTED,
                TrialState.WITHHELD,
                TrialState.EXPIRED,
                TrialState.WITHDRAWN,
            }
        ),
        TrialState.AWAITING: frozenset({TrialState.PROMOTED, TrialState.DECLINED, TrialState.WITHDRAWN}),
    },
    Kind.PROBATION: {
        TrialState.RUNNING: frozenset(
            {TrialState.ROLLED_BACK, TrialState.CONFIRMED, TrialState.EXPIRED, TrialState.WITHDRAWN}
        ),
    },
}


@dataclass(frozen=True)
class Trial:
    """A comparison of two versions on bookings that mature on the days after `cohort_after`.

    `champion` is the one that serves while it runs, `rival` the challenger or, on probation, the
    previous champion. Mode, share and test are those of the day on which it was opened. `epoch` is
    the standing's at that moment: the pair is this one until the epoch changes. `decided_on` is the
    maturity day that brought the answer, `evidence` what had been read at the last look.
    `asked_until` (UTC) is the end of a person's time to answer, `asked_by` the run that asks, so that
    one form is open and not one for each look.
    """

    trial_id: str
    kind: Kind
    champion: str
    rival: str
    epoch: int
    opened_on: date
    cohort_after: date
    last_day: date
    mode: Mode
    serve_share: float
    sequence: SequencePolicy
    request_id: str | None = None
    state: TrialState = TrialState.RUNNING
    decided_on: date | None = None
    reasons: tuple[str, ...] = ()
    evidence: tuple[Step, ...] = ()
    asked_until: datetime | None = None
    asked_by: str | None = None

    def __str__(self) -> str:
        if self.kind is Kind.TRIAL:
            return f"the trial of challenger {self.rival} against champion {self.champion}"
        return f"the probation of champion {self.champion} against its predecessor {self.rival}"


def open_trial(
    standing: Standing,
    trained: Mapping[str, date],
    opened_on: date,
    request_id: str | None,
    policy: TrialPolicy,
) -> Trial:
    """The trial of the standing's challenger. `trained`: as_of of both versions' training.

    No booking of the cohort was known to either version when it was trained, whatever day it is.
    """
    champion, challenger = standing.champion, standing.challenger
    if champion is None or challenger is None:
        raise ValueError(f"a trial needs a champion and a challenger, not {standing}")
    return Trial(
        trial_id=f"trial-{challenger}-{standing.epoch}",
        kind=Kind.TRIAL,
        champion=champion,
        rival=challenger,
        epoch=standing.epoch,
        opened_on=opened_on,
        cohort_after=max(trained[champion], trained[challenger]),
        last_day=opened_on + timedelta(days=policy.max_days),
        mode=policy.mode,
        serve_share=policy.share,
        sequence=policy.sequence,
        request_id=request_id,
    )


def open_probation(
    standing: Standing, previous: str, trained: Mapping[str, date], opened_on: date, policy: TrialPolicy
) -> Trial:
    """The probation of the standing's champion, which has just taken over from `previous`.

    Its cohort matures after the promotion: days that spoke for the promotion must not speak for it
    again.
    """
    champion = standing.champion
    if champion is None or champion == previous:
        raise ValueError(f"a probation needs a champion and another one before it, not {standing} after {previous}")
    return Trial(
        trial_id=f"probation-{champion}-{standing.epoch}",
        kind=Kind.PROBATION,
        champion=champion,
        rival=previous,
        epoch=standing.epoch,
        opened_on=opened_on,
        cohort_after=max(opened_on, trained[champion], trained[previous]),
        last_day=opened_on + timedelta(days=policy.probation_days),
        mode=policy.mode,
        serve_share=0.0,
        sequence=policy.sequence,
    )


class Doubt(StrEnum):
    """Why what a trial reads must not promote by itself: something is wrong with its bookings, not with a version."""

    ARMS = "arms"  # they are not as large, or not dealt, as they were meant to be
    NO_HOLD_OUT = "no hold-out"  # somebody acts upon scores, and no booking is left alone
    BROKEN = "broken hold-out"  # bookings that were to be left alone were acted upon


@dataclass(frozen=True)
class Doubted:
    """A doubt, and the sentence that tells what was found; `blocks` promotions, or is told alone."""

    doubt: Doubt
    found: str
    blocks: bool = True


@dataclass(frozen=True)
class Ruling:
    """The state that a trial comes to, with the reasons."""

    state: TrialState
    reasons: tuple[str, ...]


def rule_on(trial: Trial, reading: Reading, today: date, held: str | None, doubts: Sequence[Doubted] = ()) -> Ruling:
    """What a reading means for a running trial. Pure: same input, same ruling.

    `held`: why promotions need a person for now (after a rollback), None when they don't; with `doubts` that
    block they need one too. Rolling back never does.
    """
    told = (_told(trial, reading), *(doubted.found for doubted in doubts))
    if held is None:
        held = next((doubted.found for doubted in doubts if doubted.blocks), None)
    if reading.finding is Finding.RIVAL:
        if trial.kind is Kind.PROBATION:
            return Ruling(TrialState.ROLLED_BACK, (*told, f"its predecessor {trial.rival} is better"))
        better = f"challenger {trial.rival} is better"
        if trial.mode is Mode.SHADOW:
            return Ruling(TrialState.WITHHELD, (*told, better, "mode shadow: promotion is left to a person"))
        if trial.mode is Mode.APPROVE:
            return Ruling(TrialState.AWAITING, (*told, better, "mode approve: a person is asked"))
        if held is not None:
            return Ruling(TrialState.AWAITING, (*told, better, f"promotions need a person: {held}"))
        return Ruling(TrialState.PROMOTED, (*told, better))
    if reading.finding is Finding.CHAMPION:
        state = TrialState.REJECTED if trial.kind is Kind.TRIAL else TrialState.CONFIRMED
        return Ruling(state, (*told, f"champion {trial.champion} is better"))
    if today >= trial.last_day:
        return Ruling(TrialState.EXPIRED, (*told, f"no answer by {trial.last_day}; champion {trial.champion} stays"))
    return Ruling(TrialState.RUNNING, told)


@dataclass(frozen=True)
class Replacement:
    """Whether a newer challenger may take the place of one that is on trial, and the reason."""

    allowed: bool
    reason: str


def replacement(trial: Trial, rival_trained: date, newer_trained: date, replace_after_days: int) -> Replacement:
    """The rule by which a newer challenger replaces an undecided one. Pure: same input, same answer.

    `rival_trained` and `newer_trained`: as_of of both trainings. A trial that might still be won goes on: whoever
    replaces challengers until one is lucky promotes by chance. One that cannot be won stands in the way: its burn-in
    is over, and even if each day to come gains what the upper bound of today allows, its lower bound will not leave
    0 by the last day. A probation is not replaced, nor a trial that has its answer.
    """
    if trial.kind is not Kind.TRIAL:
        return Replacement(False, f"{trial} is there to take a promotion back, and is not replaced")
    if trial.state is not TrialState.RUNNING:
        return Replacement(False, f"{trial} has its answer: it is {trial.state}")
    if replace_after_days == 0:
        return Replacement(False, "a challenger on trial is never replaced, by the settings")
    newer = (newer_trained - rival_trained).days
    by = f"{newer} {'day' if newer == 1 else 'days'} newer"
    if newer < replace_after_days:
        return Replacement(
            False,
            f"a challenger trained as of {newer_trained} is {by} than challenger {trial.rival}, and"
            f" {replace_after_days} are needed",
        )
    best = best_case(trial)
    if best is None:
        return Replacement(False, f"{trial} is in its burn-in: nothing is known yet")
    if best > 0:
        return Replacement(False, f"{trial} may still be won by {trial.last_day}")
    return Replacement(
        True,
        f"challenger {trial.rival} cannot win by {trial.last_day} any more, and a challenger trained as of"
        f" {newer_trained} is {by}",
    )


def best_case(trial: Trial) -> float | None:
    """Lower bound of the sum of gains on the last day, if each day to come gains what today's upper bound allows.

    In nats, of all bookings together; with as many bookings, and days as unlike each other, as so far. None while the
    burn-in lasts.
    """
    step = trial.evidence[-1] if trial.evidence else None
    if step is None or step.high is None:
        return None
    totals = [seen.gain * seen.bookings for seen in trial.evidence]
    gains = [total - before for total, before in zip(totals, [0.0, *totals], strict=False)]
    days, left = len(gains), max((trial.last_day - step.day).days, 0)
    mean = totals[-1] / days
    variance = sum((gain - mean) ** 2 for gain in gains) / days
    total = totals[-1] + left * step.high * step.bookings / days
    return total - radius(variance, days + left, trial.sequence)


def _told(trial: Trial, reading: Reading) -> str:
    step = reading.last
    if step is None:
        return f"no booking has matured after {trial.cohort_after}"
    days = len(reading.steps)
    read = f"{step.bookings:,} bookings that matured on {days} {'day' if days == 1 else 'days'} until {step.day}"
    gain = f"version {trial.rival} saves {step.gain:+.4f} log loss per booking against {trial.champion}"
    if step.low is None or step.high is None:
        return f"{read}: {gain} (no bounds before {trial.sequence.burn_in_days} days)"
    return f"{read}: {gain}, bounds {step.low:+.4f} to {step.high:+.4f} (alpha {trial.sequence.alpha:g})"
