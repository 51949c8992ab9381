"""One request, one training, at most one version: by a lease, within its attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta

import pandas as pd

from cancellations.domain import labels
from cancellations.domain.events import (
    ChallengerRegistered,
    ChampionChanged,
    Fact,
    RetrainFailed,
    RetrainRejected,
    TrialEnded,
)
from cancellations.domain.promotion import Change, Trial, TrialState, open_trial, replacement
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import BadInput, CancellationsError, EpochMismatch, NotEnoughData, Refused
from cancellations.ports import Registry, Store, UnitOfWork, VersionRecord
from cancellations.usecases.aliases import project_aliases
from cancellations.usecases.point_in_time import as_scored
from cancellations.usecases.training import (
    Bookings,
    Tools,
    TrainingPolicy,
    competing,
    make_candidate,
    run_backtest,
)
from cancellations.usecases.untouched import untouched_of

LEASE = "retrain"


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
    tools: Tools,
    policy: TrainingPolicy,
    owner: str,
    clock: Callable[[], datetime],
    say: Callable[[str], None] = lambda text: None,
) -> RetrainRequest:
    """Works on a request until it ends; returns how it stands.

    A request that has ended is returned as it is, and one whose last worker died ends as failed. Raises `Refused`
    while another worker holds the lease, automatic retraining is paused, or a trial or probation has not ended; the
    request then keeps waiting. A person's request need not wait for a trial that a newer challenger may replace
    (`domain.promotion.replacement`). Too little data ends it as rejected. An error of the training counts as an
    attempt and is raised; the last attempt ends the request as failed.
    """
    request, token = _claim(request_id, store, policy, owner, clock())
    if token is None:
        say(f"request {request_id} has ended already: {request.state}")
        return request
    try:
        done = _train(request, token, store, registry, tools, policy, clock, say)
    except NotEnoughData as error:
        return _reject(request, (f"refused: {error}",), token, store, clock())
    except Exception as error:
        _give_up(request, token, error, store, policy, clock())
        raise
    if done.state is RequestState.CANDIDATE:
        project_aliases(store, registry, clock)
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
            _require_replaceable(work, running, request, policy)
        if token is None:
            holder = work.lease_holder(LEASE, now)
            raise Refused(f"another retrain runs ({holder}); request {request_id} waits for its end")
        request = without_its_worker(request)
        if request.attempts >= policy.max_attempts:
            failed = fail(work, request, now)
            work.release_lease(LEASE, token)
            work.commit()
            return failed, None
        claimed = replace(request, state=RequestState.RUNNING, attempts=request.attempts + 1)
        work.update_request(claimed, now)
        work.commit()
    return claimed, token


def _require_replaceable(work: UnitOfWork, running: Trial, request: RetrainRequest, policy: TrainingPolicy) -> str:
    """Why a running trial may be replaced by what a request trains; raises `Refused` where it may not."""
    if request.report_id is not None:
        raise Refused(f"{running} has not ended; request {request.request_id} waits for it")
    rival = work.version(running.rival)
    trained = request.as_of if rival is None else rival.trained_as_of
    found = replacement(running, trained, request.as_of, policy.trial.replace_after_days)
    if not found.allowed:
        raise Refused(
            f"{running} has not ended; request {request.request_id} waits for it: {found.reason}. To end it:"
            ' cancellations withdraw --reason "…"'
        )
    return found.reason


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


def without_its_worker(request: RetrainRequest) -> RetrainRequest:
    """A request of which nobody holds the lease: if it was running, its worker died, and that is written down."""
    if request.state is not RequestState.RUNNING:
        return request
    return replace(request, detail=(*request.detail, f"attempt {request.attempts}: its worker died"))


def fail(work: UnitOfWork, request: RetrainRequest, now: datetime) -> RetrainRequest:
    """Ends a request whose attempts are used up, and tells the owners."""
    failed = replace(request, state=RequestState.FAILED)
    work.update_request(failed, now)
    fact = RetrainFailed(request.request_id, request.champion, request.as_of, request.detail)
    work.add_messages(fact.messages(), now)
    return failed


def _train(
    request: RetrainRequest,
    token: int,
    store: Store,
    registry: Registry,
    tools: Tools,
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
        recipes = competing(policy, champion)
        if not any(recipe.labels.stepwise for recipe in recipes.values()):
            history = history[labels.maturity(history, rule) <= pd.Timestamp(request.as_of)].reset_index(drop=True)
        clean = untouched_of(work, history, rule, request.as_of)
        history = history[clean.rows].reset_index(drop=True)
        bookings = Bookings(history, as_scored(work, history, rule), rule)
    left_out = clean.told()
    if left_out is not None:
        say(left_out)
        request = replace(request, detail=(*request.detail, left_out))
    say(f"{int(bookings.matured_by(request.as_of).sum()):,} bookings had matured by {request.as_of}")

    try:
        backtest = run_backtest(bookings, recipes, champion, registry, tools, request.as_of, policy, still_ours)
    except NotEnoughData as error:
        if left_out is None:
            raise
        raise NotEnoughData(f"{error}; {left_out}") from error
    say("; ".join(backtest.result.reasons))
    still_ours()
    if not backtest.result.passed:
        registry.log_refusal(request.request_id, backtest.result.reasons, backtest.contest)
        return _reject(request, backtest.result.reasons, token, store, clock())

    candidate = make_candidate(request, bookings, backtest, recipes, tools, policy, still_ours)
    still_ours()
    record = registry.register(candidate)
    say(f"registered version {record.version}, by recipe {record.recipe}")
    return _stand(request, record, backtest.result.reasons, token, store, policy, clock())


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
        running = work.open_trial()
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
        if running is not None:
            # The standing before the trial, as every change of champion does: two of them wait for each other.
            _replace(work, running, request, record, policy, now)
        fact: Fact
        if first:
            why = "the first version to pass the gate"
            fact = ChampionChanged(
                record.version, None, after.epoch, request.as_of, Change.FIRST.value, why, by, reasons=reasons
            )
        else:
            champion = work.version(str(seen.champion))
            trained = {r.version: r.known_until for r in (record, champion) if r is not None}
            trial = open_trial(after, trained, request.as_of, request.request_id, policy.trial)
            work.add_trial(trial, now)
            fact = ChallengerRegistered(
                request.request_id, record.version, str(seen.champion), request.as_of, reasons, trial.trial_id
            )
        _close(work, done, fact, token, now)
        if running is not None:
            work.serve(request.as_of, now)
        work.commit()
    return done


def _replace(
    work: UnitOfWork,
    running: Trial,
    request: RetrainRequest,
    record: VersionRecord,
    policy: TrainingPolicy,
    now: datetime,
) -> None:
    """Ends a trial in the transaction in which a newer challenger begins its own; by what it has read by now."""
    why = f"challenger {record.version} takes its place: {_require_replaceable(work, running, request, policy)}"
    ended = replace(running, state=TrialState.WITHDRAWN, reasons=(*running.reasons, why))
    if not work.update_trial(ended, running.state, now):
        raise EpochMismatch(f"{running} was ended by somebody else meanwhile; nothing was written")
    fact = TrialEnded(
        trial_id=running.trial_id,
        kind=running.kind.value,
        state=ended.state.value,
        champion=running.champion,
        version=running.rival,
        as_of=request.as_of,
        reasons=ended.reasons,
    )
    work.add_messages(fact.messages(), now)


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
