"""Trials and probations: one at most that has not ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, Select, select, update

from cancellations.domain.guards import GuardFinding
from cancellations.domain.promotion import Kind, Mode, Trial, TrialState
from cancellations.errors import Refused
from cancellations.settings import MODEL
from cancellations.store import tables
from cancellations.store.records import (
    from_evidence,
    from_guards,
    from_sequence,
    to_evidence,
    to_guards,
    to_sequence,
)
from cancellations.store.transaction import Transaction


class Trials(Transaction):
    """The part of `ports.UnitOfWork` that knows trials and probations."""

    def add_trial(self, trial: Trial, now: datetime) -> None:
        values = _values(trial)
        new = self._insert(tables.trials).values(model=MODEL, **values, recorded_at=now, state_since=now)
        # Only the index of what has not ended is asked; a trial_id that exists is refused by its own.
        if not self._write(new.on_conflict_do_nothing(index_elements=["model"], index_where=tables.NOT_ENDED)):
            raise Refused(
                f"{self.open_trial() or 'another one'} has not ended, so {trial} cannot begin."
                " Wait for its end, or end it: cancellations withdraw"
            )

    def open_trial(self) -> Trial | None:
        row = self._read(_trials().where(tables.NOT_ENDED)).first()
        return None if row is None else _trial(row)

    def trial(self, trial_id: str) -> Trial | None:
        row = self._read(_trials().where(tables.trials.c.trial_id == trial_id)).first()
        return None if row is None else _trial(row)

    def trials(self) -> list[Trial]:
        return [_trial(row) for row in self._read(_trials().order_by(tables.trials.c.number))]

    def update_trial(self, trial: Trial, seen: TrialState, now: datetime) -> bool:
        since = now if trial.state is not seen else tables.trials.c.state_since
        # The database compares and sets in one statement: of two writers one finds no row to change.
        changed = (
            update(tables.trials)
            .where(tables.trials.c.trial_id == trial.trial_id, tables.trials.c.state == seen.value)
            .values(**_values(trial), state_since=since)
        )
        return self._write(changed) == 1

    def add_guards(self, trial_id: str, findings: Sequence[GuardFinding], as_of: date, now: datetime) -> bool:
        values = {"trial_id": trial_id, "as_of": as_of, "findings": from_guards(findings), "recorded_at": now}
        return self._write(self._insert(tables.guards).values(values).on_conflict_do_nothing()) == 1

    def guards(self, trial_id: str) -> tuple[GuardFinding, ...] | None:
        found = self._read(select(tables.guards.c.findings).where(tables.guards.c.trial_id == trial_id)).scalar()
        return None if found is None else to_guards(found)


def _trials() -> Select[tuple[Any, ...]]:
    return select(tables.trials).where(tables.trials.c.model == MODEL)


def _values(trial: Trial) -> dict[str, Any]:
    return asdict(trial) | {
        "kind": trial.kind.value,
        "mode": trial.mode.value,
        "state": trial.state.value,
        "sequence": from_sequence(trial.sequence),
        "evidence": from_evidence(trial.evidence),
    }


def _trial(row: Row[Any]) -> Trial:
    return Trial(
        trial_id=row.trial_id,
        kind=Kind(row.kind),
        champion=row.champion,
        rival=row.rival,
        epoch=row.epoch,
        opened_on=row.opened_on,
        cohort_after=row.cohort_after,
        last_day=row.last_day,
        mode=Mode(row.mode),
        serve_share=row.serve_share,
        sequence=to_sequence(row.sequence),
        request_id=row.request_id,
        state=TrialState(row.state),
        decided_on=row.decided_on,
        reasons=tuple(row.reasons),
        evidence=to_evidence(row.evidence),
        asked_until=row.asked_until,
        asked_by=row.asked_by,
    )
