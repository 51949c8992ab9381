"""Starts what a lost event left waiting, ends what cannot go on, mends the aliases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cancellations.domain.retraining import RequestState
from cancellations.errors import CancellationsError
from cancellations.ports import Doorbell, Registry, Store
from cancellations.usecases.aliases import project_aliases
from cancellations.usecases.retrain import LEASE, fail


@dataclass(frozen=True)
class Reconciled:
    """What was found out of place and done about it, a sentence each."""

    started: tuple[str, ...] = ()
    recovered: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def reconcile(
    store: Store,
    registry: Registry,
    *,
    doorbell: Doorbell | None,
    patience: timedelta,
    max_attempts: int,
    clock: Callable[[], datetime],
) -> Reconciled:
    """Looks at every request that has not ended, then at the aliases. Safe to run at any time.

    A request that has waited longer than `patience` gets a run of its own, as does at once one
    whose attempt has failed, since no event is on its way for it. The automation may still make a
    run too; the lease and the request's state let only one of them train.
    """
    recovered, failed = _recover(store, max_attempts, clock())
    started, problems = _start(store, doorbell, patience, clock())
    aliases = project_aliases(store, registry)
    return Reconciled(tuple(started), tuple(recovered), tuple(failed), tuple(aliases), tuple(problems))


def _recover(store: Store, max_attempts: int, now: datetime) -> tuple[list[str], list[str]]:
    """Running requests whose worker is dead wait again, or fail when their attempts are used up."""
    recovered, failed = [], []
    with store.begin() as work:
        if work.lease_holder(LEASE, now) is None:
            for request in work.requests(RequestState.RUNNING):
                note = f"attempt {request.attempts}: its worker died"
                request = replace(request, detail=(*request.detail, note))
                if request.attempts >= max_attempts:
                    fail(work, request, now)
                    failed.append(request.request_id)
                else:
                    work.update_request(replace(request, state=RequestState.WAITING), now)
                    recovered.append(request.request_id)
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
