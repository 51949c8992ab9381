"""Starts what a lost event left waiting, ends what cannot go on, mends the aliases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cancellations.domain.events import RetrainOverdue
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import CancellationsError
from cancellations.ports import Doorbell, Registry, Store, UnitOfWork
from cancellations.usecases.aliases import project_aliases
from cancellations.usecases.retrain import LEASE, fail, without_its_worker

# The lease is given back in the transaction that takes it; nobody ever sees this.
RECOVERY_TTL = timedelta(minutes=1)


@dataclass(frozen=True)
class Reconciled:
    """What was found out of place and done about it, a sentence each."""

    started: tuple[str, ...] = ()
    recovered: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    overdue: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def reconcile(
    store: Store,
    registry: Registry,
    *,
    doorbell: Doorbell | None,
    patience: timedelta,
    overdue: timedelta,
    max_attempts: int,
    clock: Callable[[], datetime],
    settle_aliases: Callable[[], list[str]] | None = None,
) -> Reconciled:
    """Looks at every request that has not ended, then at the aliases. Safe to run at any time.

    Aliases go to where the ledger has them, or are settled with it as `settle_aliases` does that.
    Owners are told once of a request that has not ended `overdue` after it was made. Time in which a trial that
    must end first, or a pause, kept it from starting does not count.

    A request that has waited longer than `patience` gets a run of its own, as does at once one
    whose attempt has failed, since no event is on its way for it. The automation may still make a
    run too; the lease and the request's state let only one of them train.
    """
    recovered, failed = _recover(store, max_attempts, clock())
    started, problems = _start(store, doorbell, patience, clock())
    late = _tell_overdue(store, overdue, max_attempts, clock())
    aliases = project_aliases(store, registry, clock) if settle_aliases is None else settle_aliases()
    return Reconciled(tuple(started), tuple(recovered), tuple(failed), tuple(late), tuple(aliases), tuple(problems))


def _recover(store: Store, max_attempts: int, now: datetime) -> tuple[list[str], list[str]]:
    """Running requests whose worker is dead wait again, or fail when their attempts are used up."""
    recovered: list[str] = []
    failed: list[str] = []
    with store.begin() as work:
        if not work.requests(RequestState.RUNNING):
            return recovered, failed
        # A worker's own lease, until the commit: whoever takes over at this moment does so before, or after it.
        token = work.acquire_lease(LEASE, "reconcile", now, RECOVERY_TTL)
        if token is None:
            return recovered, failed
        for request in work.requests(RequestState.RUNNING):
            request = without_its_worker(request)
            if request.attempts >= max_attempts:
                fail(work, request, now)
                failed.append(request.request_id)
            else:
                work.update_request(replace(request, state=RequestState.WAITING), now)
                recovered.append(request.request_id)
        work.release_lease(LEASE, token)
        work.commit()
    return recovered, failed


def _start(store: Store, doorbell: Doorbell | None, patience: timedelta, now: datetime) -> tuple[list[str], list[str]]:
    with store.begin() as work:
        if work.open_trial() is not None:
            return [], []  # they wait for its end
        paused = work.paused() is not None
        overdue = [
            request
            for request in work.requests(RequestState.WAITING)
            if (request.attempts > 0 or now - work.waiting_since(request.request_id) >= patience)
            and not (paused and request.report_id is not None)
        ]
    started, problems = [], []
    for request in overdue:
        if doorbell is None:
            problems.append(f"request {request.request_id} is overdue and there is no Prefect server to start it with")
            continue
        try:
            run = doorbell.start_retrain(request.request_id, request.attempts + 1)
        except CancellationsError as error:
            problems.append(f"request {request.request_id}: {error}")
        else:
            started.append(f"request {request.request_id} as run {run}")
    return started, problems


def _tell_overdue(store: Store, overdue: timedelta, max_attempts: int, now: datetime) -> list[str]:
    """Writes a mail for each request that has not ended in time; one that was told before is known by its id."""
    late: list[str] = []
    with store.begin() as work:
        trial, paused = work.open_trial(), work.paused()
        for request in work.requests(RequestState.WAITING, RequestState.RUNNING):
            keeps = _keeps(request, None if trial is None else str(trial), paused)
            if keeps and request.state is RequestState.WAITING:
                # Its time begins anew when it may start: until then nobody is late.
                work.note_held(request.request_id, "; ".join(keeps), now)
                continue
            made_at = work.made_at(request.request_id)
            waited = now - max(made_at, work.held_until(request.request_id) or made_at)
            if waited < overdue:
                continue
            reasons = _waits_for(work, request, keeps, max_attempts, now)
            fact = RetrainOverdue(
                request_id=request.request_id,
                champion=request.champion,
                as_of=request.as_of,
                made_at=made_at,
                minutes=int(waited / timedelta(minutes=1)),
                reasons=reasons,
            )
            work.add_messages(fact.messages(), now)
            late.append(f"request {request.request_id}: {reasons[0]}")
        work.commit()
    return late


def _keeps(request: RetrainRequest, trial: str | None, paused: str | None) -> tuple[str, ...]:
    """The rules that keep a request from starting, or from its next attempt."""
    found = [] if trial is None else [f"{trial} must end first"]
    if paused is not None and request.report_id is not None:
        found.append(f"automatic retraining is paused ({paused})")
    return tuple(found)


def _waits_for(
    work: UnitOfWork, request: RetrainRequest, keeps: tuple[str, ...], max_attempts: int, now: datetime
) -> tuple[str, ...]:
    """What an overdue request waits for, what its attempts came to, and what would keep the next one."""
    since = f"{work.waiting_since(request.request_id):%Y-%m-%d %H:%M} UTC"
    holder = work.lease_holder(LEASE, now)
    if request.state is RequestState.RUNNING:
        first = f"attempt {request.attempts} of {max_attempts} runs since {since}"
        at_work = f"its worker {holder} was heard of lately" if holder else "its worker was not heard of lately"
        return (first, at_work, *request.detail, *(f"before a next attempt {rule}" for rule in keeps))
    if holder is not None:
        return (f"another retrain runs ({holder})", f"it waits since {since}", *request.detail)
    if request.attempts:
        first = f"no worker has taken attempt {request.attempts + 1} of {max_attempts} since {since}"
    else:
        first = f"no worker has taken it since {since}"
    return (first, *request.detail)
