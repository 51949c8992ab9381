"""Another version becomes champion: proven first, then one transaction, then the alias, then checked.

Promotion, rollback and recalibration are one act. Nothing moves before the version has been
loaded from its artifact and has scored; ledger, trial, served scores and messages change together;
MLflow's alias follows as a projection that `reconcile` mends when this process dies in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime

import numpy as np

from cancellations.domain.checks import CheckPolicy
from cancellations.domain.events import ChampionChanged, Channel
from cancellations.domain.guards import GuardPolicy
from cancellations.domain.hold_out import ActionPolicy
from cancellations.domain.labels import LabelRule
from cancellations.domain.promotion import (
    Change,
    Kind,
    Standing,
    Trial,
    TrialPolicy,
    TrialState,
    open_probation,
    predecessor,
)
from cancellations.errors import BadInput, CancellationsError, EpochMismatch, Refused, ServiceDown
from cancellations.ports import Registry, Store, UnitOfWork, VersionRecord
from cancellations.usecases.aliases import project_aliases
from cancellations.usecases.hold import hold_back
from cancellations.usecases.score import score_open

# Rows that a version must score before it may serve.
SAMPLE = 200


@dataclass(frozen=True)
class House:
    """What a change of champion works on, and by which rules.

    Without `checks` bookings are scored as they come, without `guards` no guard looks at a new champion.
    """

    store: Store
    registry: Registry
    policy: TrialPolicy
    rule: LabelRule
    chunk_rows: int
    clock: Callable[[], datetime]
    checks: CheckPolicy | None = None
    guards: GuardPolicy | None = None
    actions: ActionPolicy = field(default_factory=ActionPolicy)


@dataclass(frozen=True)
class Takeover:
    """A change that was made, and what was found when it was checked.

    `served`: open bookings per version whose score they are served now. `alias`: the version that
    MLflow's alias names, None when it could not be asked. `problems`: what is not yet as it should
    be, a sentence each; the change stands nevertheless.
    """

    version: str
    previous: str
    change: Change
    epoch: int
    served: dict[str, int]
    alias: str | None
    problems: tuple[str, ...] = ()


def promote(house: House, version: str, *, reason: str, by: str, as_of: date) -> Takeover:
    """A person makes a version champion, past gate and trial, on the record.

    A version that somebody registered in MLflow without us is taken into the ledger, if it says what
    it was trained on. Raises `Refused` when it is champion already, or can't take over.
    """
    reason = _given(reason)
    with house.store.begin() as work:
        seen, running = work.standing(), work.open_trial()
        record = work.version(version)
    if seen.champion is None:
        raise Refused("there is no champion yet; train the first one: cancellations retrain --as-of DAY")
    if seen.champion == version:
        raise Refused(f"version {version} is champion already")
    tried = running if running is not None and running.kind is Kind.TRIAL and running.rival == version else None
    return take_over(
        house,
        seen,
        record or house.registry.record(version),
        change=Change.PROMOTED,
        reason=reason,
        by=by,
        as_of=as_of,
        decided=None if tried is None else _by_hand(tried, TrialState.PROMOTED, reason, by),
        seen_state=TrialState.RUNNING if tried is None else tried.state,
        evidence=() if tried is None else tried.reasons,
    )


def roll_back(house: House, *, to: str | None, reason: str, by: str, as_of: date) -> Takeover:
    """An earlier champion serves again: `to`, or the one before the present one.

    Afterwards promotions need a person, until one acknowledges. Raises `Refused` when there is no
    earlier champion, when `to` never was one, or when it can't take over; the present one then stays.
    """
    reason = _given(reason)
    with house.store.begin() as work:
        seen, running, ledger = work.standing(), work.open_trial(), work.ledger()
        target = to or predecessor(ledger)
        record = None if target is None else work.version(target)
    if target is None:
        raise Refused(f"there is no earlier champion to go back to; {_stays(seen)}")
    if target == seen.champion:
        raise Refused(f"version {target} is champion already")
    if record is None or target not in {row.champion for row in ledger}:
        raise Refused(
            f"version {target} never was champion, so there is nothing to go back to; {_stays(seen)}."
            f' To make it champion all the same: cancellations promote {target} --reason "…"'
        )
    watched = running if running is not None and running.kind is Kind.PROBATION and running.rival == target else None
    return take_over(
        house,
        seen,
        record,
        change=Change.ROLLED_BACK,
        reason=reason,
        by=by,
        as_of=as_of,
        decided=None if watched is None else _by_hand(watched, TrialState.ROLLED_BACK, reason, by),
        evidence=() if watched is None else watched.reasons,
    )


def take_over(
    house: House,
    seen: Standing,
    record: VersionRecord,
    *,
    change: Change,
    reason: str,
    by: str,
    as_of: date,
    decided: Trial | None = None,
    seen_state: TrialState = TrialState.RUNNING,
    evidence: tuple[str, ...] = (),
    mailed: bool = True,
) -> Takeover:
    """Makes a version champion in place of the one in `seen`; raises `EpochMismatch` if that is old.

    `decided` is the trial or probation that asks for it, in its final state, and `seen_state` the
    state that it was read in; any other one that has not ended is withdrawn with the pair it compared.
    Without `mailed` the ledger and the event alone tell of it.
    """
    version, previous = record.version, str(seen.champion)
    _prove(house, version, previous)
    with house.store.begin() as work:
        work.add_version(record, house.clock())
        work.commit()
    if house.checks is not None:
        hold_back(house.store, until=as_of, rule=house.rule, policy=house.checks, clock=house.clock)
    # Before anything moves, so that no open booking is without a score of the new champion.
    score_open(
        house.store,
        house.registry,
        version,
        as_of=as_of,
        rule=house.rule,
        chunk_rows=house.chunk_rows,
        clock=house.clock,
    )
    now = house.clock()
    with house.store.begin() as work:
        after = work.change_standing(
            seen,
            champion=version,
            challenger=None,
            change=change,
            reason=reason,
            by=by,
            request_id=record.request_id,
            trial_id=decided.trial_id if decided else None,
            as_of=as_of,
            now=now,
        )
        _end_trial(work, decided, seen_state, f"version {version} became champion, {by}: {reason}", now)
        if change is Change.PROMOTED:
            trained = {v.version: v.known_until for v in (record, work.version(previous)) if v is not None}
            work.add_trial(open_probation(after, previous, trained, as_of, house.policy), now)
        elif change is Change.ROLLED_BACK:
            work.hold_promotions(f"version {previous} was rolled back on {as_of}: {reason}", now)
        work.serve(as_of, now)
        fact = ChampionChanged(
            version=version,
            previous=previous,
            epoch=after.epoch,
            as_of=as_of,
            change=change.value,
            reason=reason,
            by=by,
            trial_id=decided.trial_id if decided else None,
            reasons=evidence,
        )
        work.add_messages([m for m in fact.messages() if mailed or m.channel is not Channel.MAIL], now)
        work.commit()
    return _check(house, version, previous, change, after, as_of)


def _given(reason: str) -> str:
    if not reason.strip():
        raise BadInput("a reason is needed, for whoever asks the ledger later")
    return reason.strip()


def _stays(seen: Standing) -> str:
    return "there is no champion" if seen.champion is None else f"champion {seen.champion} stays"


def _by_hand(trial: Trial, state: TrialState, reason: str, by: str) -> Trial:
    return replace(trial, state=state, reasons=(*trial.reasons, f"{by}: {reason}"))


def _prove(house: House, version: str, previous: str) -> None:
    """The artifact loads anew, and gives each booking of its reference sample a probability."""
    try:
        model = house.registry.load(version, fresh=True)
        sample = house.registry.reference(version).head(SAMPLE)
        probability = model.predict(sample.drop(columns="label", errors="ignore"))
    except ServiceDown:
        raise
    except Exception as error:
        why = error if isinstance(error, CancellationsError) else repr(error)
        raise Refused(f"version {version} cannot take over: {why}. Champion {previous} stays") from error
    if len(probability) == 0 or not np.all(np.isfinite(probability) & (probability >= 0) & (probability <= 1)):
        raise Refused(
            f"version {version} cannot take over: it does not give each of {len(sample)} sampled bookings a"
            f" probability. Champion {previous} stays"
        )


def _end_trial(work: UnitOfWork, decided: Trial | None, seen: TrialState, why: str, now: datetime) -> None:
    if decided is not None:
        if not work.update_trial(decided, seen, now):
            raise EpochMismatch(f"{decided} was ended by somebody else meanwhile; nothing was written")
        return
    running = work.open_trial()
    if running is not None:
        work.update_trial(
            replace(running, state=TrialState.WITHDRAWN, reasons=(*running.reasons, why)), running.state, now
        )


def _check(house: House, version: str, previous: str, change: Change, standing: Standing, as_of: date) -> Takeover:
    """Moves the alias, then reads back what is served and what MLflow says."""
    problems: list[str] = []
    alias = None
    try:
        project_aliases(house.store, house.registry, house.clock)
        alias = house.registry.aliases().get("champion")
    except CancellationsError as error:
        problems.append(f"MLflow's aliases are not moved yet, reconcile will: {error}")
    with house.store.begin() as work:
        now_serving = work.standing()
        counts = work.served(as_of)["model_version"].value_counts()
    served = {str(v): int(n) for v, n in counts.items()}
    if now_serving.epoch == standing.epoch:
        if alias is not None and alias != version:
            problems.append(f"MLflow's alias champion names version {alias}, the ledger version {version}")
        others = {v: n for v, n in served.items() if v != version}
        if others:
            told = ", ".join(f"{n:,} by version {v}" for v, n in others.items())
            problems.append(f"open bookings are still served other scores: {told}")
    return Takeover(version, previous, change, standing.epoch, served, alias, tuple(problems))
