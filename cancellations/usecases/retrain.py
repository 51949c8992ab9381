"""One request, one training, at most one version: by a lease, within its attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from cancellations.domain import labels
from cancellations.domain.events import ChallengerRegistered, ChampionChanged, Fact, RetrainFailed, RetrainRejected
from cancellations.domain.gate import GatePolicy, GateResult, backtest_start, gate
from cancellations.domain.promotion import Change, TrialPolicy, open_trial
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import BadInput, CancellationsError, NotEnoughData, Refused
from cancellations.ports import Candidate, Classifier, Registry, Store, Trainer, UnitOfWork, VersionRecord
from cancellations.usecases.aliases import project_aliases
from cancellations.usecases.point_in_time import as_scored

LEASE = "retrain"


@dataclass(frozen=True)
class TrainingPolicy:
    """How a request is worked on; seeds make a version the same for the same data."""

    labels: labels.LabelRule
    gate: GatePolicy
    trial: TrialPolicy
    seed: int
    reference_rows: int
    lease_ttl: timedelta
    max_attempts: int


def request_training(
    store: Store, *, as_of: date, reason: str, policy: TrainingPolicy, clock: Callable[[], datetime]
) -> RetrainRequest:
    """Writes down a person's wish for a version trained as of a day.

    The same wish again, for the same champion, is the same request, unless that one was rejected or
    failed: then it is a new one. Refused when the store is empty.
    """
    with store.begin() as work:
        champion = work.standing().champion
        span = work.booked_span()
        if span is None:
            raise NotEnoughData("the store holds no reservations; load some first: cancellations ingest FILE")
        name = f"{as_of}-" + (f"after-v{champion}" if champion else "first")
        request = RetrainRequest(name, as_of, reason, champion=champion)
        again = 1
        while (known := work.request(request.request_id)) is not None:
            if known.state not in (RequestState.REJECTED, RequestState.FAILED):
                return known
            again += 1
            request = replace(request, request_id=f"{name}-{again}")
        work.add_request(request, clock())
        work.commit()
    return request


def retrain(
    request_id: str,
    *,
    store: Store,
    registry: Registry,
    trainer: Trainer,
    policy: TrainingPolicy,
    owner: str,
    clock: Callable[[], datetime],
    say: Callable[[str], None] = lambda text: None,
) -> RetrainRequest:
    """Works on a request until it ends; returns how it stands.

    A request that has ended is returned as it is. Raises `Refused` while another worker holds the
    lease, automatic retraining is paused, or a trial or probation has not ended; the request then keeps
    waiting. Too little data ends it as rejected. An error of the training counts as an attempt and is
    raised; the last attempt ends the request as failed.
    """
    request, token = _claim(request_id, store, policy, owner, clock())
    if token is None:
        say(f"request {request_id} has ended already: {request.state}")
        return request
    try:
        done = _train(request, token, store, registry, trainer, policy, clock, say)
    except NotEnoughData as error:
        return _reject(request, (f"refused: {error}",), token, store, clock())
    except Exception as error:
        _give_up(request, token, error, store, policy, clock())
        raise
    if done.state is RequestState.CANDIDATE:
        project_aliases(store, registry)
    return done


def _claim(
    request_id: str, store: Store, policy: TrainingPolicy, owner: str, now: datetime
) -> tuple[RetrainRequest, int | None]:
    with store.begin() as work:
        # The lease first: it keeps others out until the commit, so that what is read behind it holds.
        token = work.acquire_lease(LEASE, owner, now, policy.lease_ttl)
        request = work.request(request_id)
        if request is None:
            raise BadInput(f"no retrain request {request_id!r} in the store; `cancellations status` lists them")
        if request.state.final:
            return request, None
        paused = work.paused()
        if paused is not None and request.report_id is not None:
            raise Refused(f"automatic retraining is paused ({paused}); `cancellations resume` lets {request_id} go on")
        running = work.open_trial()
        if running is not None:
            raise Refused(f"{running} has not ended; request {request_id} waits for it")
        if token is None:
            holder = work.lease_holder(LEASE, now)
            raise Refused(f"another retrain runs ({holder}); request {request_id} waits for its end")
        claimed = replace(request, state=RequestState.RUNNING, attempts=request.attempts + 1)
        work.update_request(claimed, now)
        work.commit()
    return claimed, token


def _give_up(
    request: RetrainRequest, token: int, error: Exception, store: Store, policy: TrainingPolicy, now: datetime
) -> None:
    """After an error: waiting again, or failed for good. A lease that was lost leaves it to its new owner."""
    text = f"attempt {request.attempts}: {error if isinstance(error, CancellationsError) else repr(error)}"
    with store.begin() as work:
        try:
            work.check_lease(LEASE, token, now, policy.lease_ttl)
        except Refused:
            return
        request = replace(request, detail=(*request.detail, text))
        if request.attempts >= policy.max_attempts:
            fail(work, request, now)
        else:
            work.update_request(replace(request, state=RequestState.WAITING), now)
        work.release_lease(LEASE, token)
        work.commit()


def fail(work: UnitOfWork, request: RetrainRequest, now: datetime) -> None:
    """Ends a request whose attempts are used up, and tells the owners."""
    work.update_request(replace(request, state=RequestState.FAILED), now)
    fact = RetrainFailed(request.request_id, request.champion, request.as_of, request.detail)
    work.add_messages(fact.messages(), now)


def _train(
    request: RetrainRequest,
    token: int,
    store: Store,
    registry: Registry,
    trainer: Trainer,
    policy: TrainingPolicy,
    clock: Callable[[], datetime],
    say: Callable[[str], None],
) -> RetrainRequest:
    def still_ours() -> None:
        with store.begin() as work:
            work.check_lease(LEASE, token, clock(), policy.lease_ttl)
            work.commit()

    rule = policy.labels
    with store.begin() as work:
        history = work.history(booked_until=request.as_of, known_until=request.as_of)
        standing = work.standing()
        champion = work.version(standing.champion) if standing.champion else None
        cohort = labels.matured(history, rule, as_of=request.as_of)
        built = as_scored(work, cohort, rule)
    say(f"{len(cohort):,} bookings had matured by {request.as_of}")

    backtest = _backtest(cohort, built, champion, registry, trainer, request.as_of, policy)
    say("; ".join(backtest.result.reasons))
    still_ours()
    if not backtest.result.passed:
        return _reject(request, backtest.result.reasons, token, store, clock())

    weight = labels.weights(cohort, rule, request.as_of)
    label = cohort["label"].to_numpy()
    model = trainer.fit(built, label, weight, policy.seed)
    still_ours()
    record = registry.register(
        Candidate(
            request_id=request.request_id,
            model=model,
            as_of=request.as_of,
            parameters={
                **trainer.parameters,
                "seed": policy.seed,
                "settle_days": rule.settle_days,
                "half_life_days": rule.half_life_days,
                "as_of": request.as_of.isoformat(),
                "backtest_from": backtest.start.isoformat(),
            },
            metrics={
                **backtest.result.metrics,
                "training_rows": float(len(cohort)),
                "training_cancel_rate": float(label.mean()),
            },
            reasons=backtest.result.reasons,
            training=built.assign(
                label=label,
                weight=weight,
                matured_on=cohort["matured_on"],
                reservation_id=cohort["reservation_id"],
            ),
            reference=_reference(built, label, policy),
            importance=backtest.importance,
            tags={"report_id": request.report_id or "", "replaces": request.champion or "", "reason": request.reason},
        )
    )
    say(f"registered version {record.version}")
    return _stand(request, record, backtest.result.reasons, token, store, policy, clock())


@dataclass(frozen=True)
class _Backtest:
    start: date
    result: GateResult
    importance: dict[str, float]


def _backtest(
    cohort: pd.DataFrame,
    built: pd.DataFrame,
    champion: VersionRecord | None,
    registry: Registry,
    trainer: Trainer,
    as_of: date,
    policy: TrainingPolicy,
) -> _Backtest:
    """Fits on what had matured by the backtest's start, compares on what matured since."""
    start = backtest_start(as_of, champion.trained_as_of if champion else None, policy.gate)
    past = (cohort["matured_on"] <= pd.Timestamp(start)).to_numpy()
    needed = policy.gate.min_rows
    if past.sum() < needed or (~past).sum() < needed:
        last = "none has matured" if cohort.empty else f"the last one matured on {cohort['matured_on'].max():%Y-%m-%d}"
        raise NotEnoughData(
            f"{past.sum():,} bookings had matured by {start} to train on and {(~past).sum():,} between then and"
            f" {as_of} to test on; {needed:,} of each are needed and {last}. Load more history and outcomes, or"
            " choose the day with --as-of; a small hotel needs a longer test (CANCELLATIONS_GATE__BACKTEST_DAYS) or"
            " fewer rows (CANCELLATIONS_GATE__MIN_ROWS)"
        )
    earlier = cohort[past]
    label = earlier["label"].to_numpy()
    if label.min() == label.max():
        raise NotEnoughData(f"all {len(label):,} bookings that matured by {start} ended alike; are outcomes loaded?")
    model = trainer.fit(built[past], label, labels.weights(earlier, policy.labels, start), policy.seed)
    test, truth = built[~past], cohort["label"].to_numpy()[~past]
    theirs: Classifier | None = registry.load(champion.version) if champion else None
    result = gate(
        truth,
        float(label.mean()),
        model.predict(test),
        theirs.predict(test) if theirs else None,
        policy.gate,
    )
    return _Backtest(start, result, trainer.importance(model, test, truth, policy.seed))


def _reference(built: pd.DataFrame, label: np.ndarray, policy: TrainingPolicy) -> pd.DataFrame:
    rows = min(policy.reference_rows, len(built))
    return built.assign(label=label).sample(rows, random_state=policy.seed).sort_index().reset_index(drop=True)


def _reject(
    request: RetrainRequest, reasons: tuple[str, ...], token: int, store: Store, now: datetime
) -> RetrainRequest:
    done = replace(request, state=RequestState.REJECTED, detail=(*request.detail, *reasons))
    _finish(done, RetrainRejected(request.request_id, request.champion, request.as_of, reasons), token, store, now)
    return done


def _stand(
    request: RetrainRequest,
    record: VersionRecord,
    reasons: tuple[str, ...],
    token: int,
    store: Store,
    policy: TrainingPolicy,
    now: datetime,
) -> RetrainRequest:
    """The new version takes its place: as the first champion, or as challenger, on trial from now on."""
    done = replace(request, state=RequestState.CANDIDATE, version=record.version, detail=(*request.detail, *reasons))
    by = "the gate"
    with store.begin() as work:
        seen = work.standing()
        first = seen.champion is None
        after = work.change_standing(
            seen,
            champion=record.version if first else seen.champion,
            challenger=None if first else record.version,
            change=Change.FIRST if first else Change.CHALLENGED,
            reason=request.reason,
            by=by,
            request_id=request.request_id,
            as_of=request.as_of,
            now=now,
        )
        work.add_version(record, now)
        fact: Fact
        if first:
            why = "the first version to pass the gate"
            fact = ChampionChanged(
                record.version, None, after.epoch, request.as_of, Change.FIRST.value, why, by, reasons=reasons
            )
        else:
            champion = work.version(str(seen.champion))
            trained = {r.version: r.trained_as_of for r in (record, champion) if r is not None}
            trial = open_trial(after, trained, request.as_of, request.request_id, policy.trial)
            work.add_trial(trial, now)
            fact = ChallengerRegistered(
                request.request_id, record.version, str(seen.champion), request.as_of, reasons, trial.trial_id
            )
        _close(work, done, fact, token, now)
        work.commit()
    return done


def _finish(request: RetrainRequest, fact: Fact, token: int, store: Store, now: datetime) -> None:
    with store.begin() as work:
        _close(work, request, fact, token, now)
        work.commit()


def _close(work: UnitOfWork, request: RetrainRequest, fact: Fact, token: int, now: datetime) -> None:
    """Ends the request in the caller's transaction; refused when the lease is another's by now."""
    work.check_lease(LEASE, token, now, timedelta(seconds=1))
    work.update_request(request, now)
    work.add_messages(fact.messages(), now)
    work.release_lease(LEASE, token)
