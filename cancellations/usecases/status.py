"""Where everything stands, in one answer."""

from __future__ import annotations

from dataclasses import dataclass

from cancellations.domain.promotion import LedgerRow, Standing
from cancellations.domain.retraining import RetrainRequest
from cancellations.errors import CancellationsError
from cancellations.ports import OutboxEntry, Registry, Store, StoredDecision, VersionRecord
from cancellations.usecases.aliases import disagreements


@dataclass(frozen=True)
class Status:
    """`disagreements` is empty when ledger and aliases agree, None when MLflow could not be asked."""

    standing: Standing
    champion: VersionRecord | None
    challenger: VersionRecord | None
    last: StoredDecision | None
    open_requests: tuple[RetrainRequest, ...]
    ended_requests: tuple[RetrainRequest, ...]
    pending: tuple[OutboxEntry, ...]
    dead: tuple[OutboxEntry, ...]
    paused: str | None
    ledger: tuple[LedgerRow, ...]
    disagreements: tuple[str, ...] | None
    registry_problem: str | None = None


def status(store: Store, registry: Registry) -> Status:
    """Reads store and registry; changes nothing."""
    with store.begin() as work:
        standing = work.standing()
        requests = work.requests()
        decisions = work.decisions(limit=1)
        found = Status(
            standing=standing,
            champion=work.version(standing.champion) if standing.champion else None,
            challenger=work.version(standing.challenger) if standing.challenger else None,
            last=decisions[0] if decisions else None,
            open_requests=tuple(r for r in requests if not r.state.final),
            ended_requests=tuple(r for r in requests if r.state.final),
            pending=tuple(work.pending_messages()),
            dead=tuple(work.dead_messages()),
            paused=work.paused(),
            ledger=tuple(work.ledger()),
            disagreements=None,
        )
    try:
        aliases = registry.aliases()
    except CancellationsError as error:
        return Status(**{**vars(found), "registry_problem": str(error)})
    return Status(**{**vars(found), "disagreements": tuple(disagreements(standing, aliases))})
