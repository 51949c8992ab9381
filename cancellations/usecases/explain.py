"""Why a version is what it is: its way from the report that asked for it to what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from cancellations.domain.aliases import AliasMove
from cancellations.domain.guards import GuardFinding
from cancellations.domain.promotion import Kind, LedgerRow, Standing, Trial, recalibrated_from
from cancellations.domain.retraining import RetrainRequest
from cancellations.errors import BadInput
from cancellations.ports import Store, StoredDecision, UnitOfWork, VersionRecord


@dataclass(frozen=True)
class Explanation:
    """Everything on record about one version, in the order in which it happened.

    `why` it is champion, or which version is in its place, in a sentence from the ledger.
    `report` asked for it (None: a person did, or it is the first one), `request` was worked on,
    `record` is what was registered: MLflow run, data, figures. `trials` are those that it was part
    of, `decisions` what the monitor decided about it while it was champion, also "none", oldest window
    first; `ledger` the rows with which it came or went, `served` the open bookings that are served its
    score now, `role` what it is today, in words. `recalibrates`: the trained version whose log odds it shifts.
    `guards`: what they found in its probations, by the probation's id.
    `alias_moves`: when somebody else moved one of the registry's aliases from it, or to it.
    """

    record: VersionRecord
    role: str
    why: str
    report: StoredDecision | None
    request: RetrainRequest | None
    trials: tuple[Trial, ...]
    decisions: tuple[StoredDecision, ...]
    ledger: tuple[LedgerRow, ...]
    served: int
    recalibrates: str | None = None
    guards: Mapping[str, tuple[GuardFinding, ...]] = field(default_factory=dict)
    alias_moves: tuple[AliasMove, ...] = ()

    def decided(self, name: str) -> StoredDecision:
        """The decision of a report id, or of a window by its last day (YYYY-MM-DD); raises `BadInput` for neither."""
        for stored in self.decisions:
            if name in (stored.report_id, str(stored.report.window.end)):
                return stored
        known = ", ".join(str(stored.report.window.end) for stored in self.decisions[-5:])
        last = f"the last ones are of {known}" if known else "there is none"
        raise BadInput(
            f"no decision about champion {self.record.version} is of a report, or a window that ends on, {name!r};"
            f" {last}. `cancellations explain {self.record.version} --all` lists them"
        )


def explain(store: Store, version: str, as_of: date) -> Explanation:
    """Raises `BadInput` for a version that the ledger does not know."""
    with store.begin() as work:
        record = work.version(version)
        if record is None:
            raise BadInput(
                f"the ledger knows no version {version!r}; `cancellations history` lists those that it knows. A"
                " version that was registered in MLflow by hand enters it with `cancellations promote`"
            )
        request = work.request(record.request_id)
        report = work.decision(request.report_id) if request is not None and request.report_id else None
        trials = tuple(t for t in work.trials() if version in (t.champion, t.rival))
        decisions = tuple(reversed(work.decisions(version)))
        ledger = work.ledger()
        moves = tuple(m for m in work.alias_moves() if version in (m.placed, m.found))
        served = int((work.served(as_of)["model_version"] == version).sum())
        standing, running = work.standing(), work.open_trial()
        guards = guards_of(work, trials)
    return Explanation(
        record=record,
        role=_role(version, standing, running, ledger),
        why=_why(version, ledger),
        report=report,
        request=request,
        trials=trials,
        decisions=decisions,
        ledger=_rows_of(version, ledger),
        served=served,
        recalibrates=recalibrated_from(ledger).get(version),
        guards=guards,
        alias_moves=moves,
    )


def guards_of(work: UnitOfWork, trials: Sequence[Trial]) -> dict[str, tuple[GuardFinding, ...]]:
    """What guards found, by the id of the probation; those that have not looked are left out."""
    found = {trial.trial_id: work.guards(trial.trial_id) for trial in trials if trial.kind is Kind.PROBATION}
    return {trial_id: findings for trial_id, findings in found.items() if findings is not None}


def _role(version: str, standing: Standing, running: Trial | None, ledger: list[LedgerRow]) -> str:
    if version == standing.champion:
        probation = running is not None and running.kind is Kind.PROBATION
        return "champion, on probation" if probation else "champion"
    if version == standing.challenger:
        return "challenger, on trial"
    if running is not None and version == running.rival:
        return "previous champion, in shadow while its successor is on probation"
    if version in {row.champion for row in ledger}:
        return "earlier champion"
    return "earlier challenger" if version in {row.challenger for row in ledger} else "registered, never stood"


def _why(version: str, ledger: list[LedgerRow]) -> str:
    """By which row the present champion came to be it, and in whose place."""
    serving = [row for row in ledger if row.champion is not None]
    if not serving:
        return "nobody is champion yet"
    champion = serving[-1].champion
    came = serving[-1]
    for row in reversed(serving):
        if row.champion != champion:
            break
        came = row
    before = [row.champion for row in serving if row.epoch < came.epoch]
    place = f" in place of version {before[-1]}" if before else ""
    subject = "it is champion" if champion == version else f"version {champion} is champion"
    return f"{subject} since {came.as_of}{place}, {came.change} by {came.by} (epoch {came.epoch}): {came.reason}"


def _rows_of(version: str, ledger: list[LedgerRow]) -> tuple[LedgerRow, ...]:
    """Rows in which the version's part changed."""
    rows, before = [], (False, False)
    for row in ledger:
        now = (row.champion == version, row.challenger == version)
        if now != before:
            rows.append(row)
        before = now
    return tuple(rows)


@dataclass(frozen=True)
class History:
    """Every change of champion or challenger, every trial and probation, and the aliases that somebody else has
    moved; oldest first. `guards`: what they found in a probation, by its id."""

    ledger: tuple[LedgerRow, ...]
    trials: tuple[Trial, ...]
    alias_moves: tuple[AliasMove, ...] = ()
    guards: Mapping[str, tuple[GuardFinding, ...]] = field(default_factory=dict)


def history(store: Store) -> History:
    with store.begin() as work:
        trials = tuple(work.trials())
        return History(tuple(work.ledger()), trials, tuple(work.alias_moves()), guards_of(work, trials))
