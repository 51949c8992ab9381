"""Where everything stands, in one answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from cancellations.domain.aliases import AliasMove
from cancellations.domain.checks import Hold, HoldState
from cancellations.domain.guards import GuardFinding
from cancellations.domain.promotion import LedgerRow, Standing, Trial
from cancellations.domain.retraining import RetrainRequest
from cancellations.errors import CancellationsError
from cancellations.ports import Load, OutboxEntry, Registry, Store, StoredDecision, VersionRecord
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
    trial: Trial | None  # that has not ended: a trial or a probation
    promotions_held: str | None
    served: dict[str, int]  # open bookings per version whose score they are served
    ledger: tuple[LedgerRow, ...]
    unfinished_loads: tuple[Load, ...]
    quarantined: dict[str, int]  # rows that wait, by source
    guards: tuple[GuardFinding, ...]  # of the probation that runs; empty while they have not looked
    held: tuple[Hold, ...]  # days whose bookings are held back from scoring
    acted_since: date | None  # the first action upon a score that is on record
    acted_upon: int  # bookings with one
    held_out: int  # open bookings that nobody is to act upon
    alias_moves: tuple[AliasMove, ...]  # by somebody else, since the last change of champion or challenger
    disagreements: tuple[str, ...] | None
    registry_problem: str | None = None


def status(store: Store, registry: Registry, as_of: date) -> Status:
    """Reads store and registry; changes nothing. `as_of`: the day on which bookings count as open."""
    with store.begin() as work:
        standing = work.standing()
        requests = work.requests()
        decisions = work.decisions(limit=1)
        running = work.open_trial()
        served = work.served(as_of)
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
            trial=running,
            promotions_held=work.promotions_held(),
            served={str(v): int(n) for v, n in served["model_version"].value_counts().items()},
            ledger=tuple(work.ledger()),
            unfinished_loads=tuple(work.unfinished_loads()),
            quarantined=work.quarantine_counts(),
            guards=(work.guards(running.trial_id) or ()) if running is not None else (),
            held=tuple(work.holds(HoldState.HELD)),
            acted_since=work.first_action(as_of),
            acted_upon=work.actions_on_record(as_of),
            held_out=int(served["hold_out"].sum()),
            alias_moves=tuple(move for move in work.alias_moves() if move.epoch == standing.epoch),
            disagreements=None,
        )
    try:
        aliases = registry.aliases()
    except CancellationsError as error:
        return Status(**{**vars(found), "registry_problem": str(error)})
    return Status(**{**vars(found), "disagreements": tuple(disagreements(standing, aliases))})
