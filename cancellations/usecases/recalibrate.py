"""The day's recalibration: the champion's log odds moved by one number, as a version like any other.

What it learns from is partial evidence (`domain.labels.residual`), so it answers weeks before outcomes are final.
Two days belong to such a version. `trained_as_of` is that of the version that it recalibrates: it tells which
bookings the trees have learnt from, and so which the version scores, which the monitor judges it on, how old it
is. `VersionRecord.known_until` is the day of the evidence: comparisons with it read what matures after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from cancellations.domain.labels import LabelRule
from cancellations.domain.promotion import Change, LedgerRow, Standing, kin
from cancellations.domain.recalibration import (
    Decided,
    RecalibrationPolicy,
    Verdict,
    decide_shift,
    look_back,
    shift_on,
    shifted,
    worth_a_mail,
)
from cancellations.errors import NotEnoughData, Refused
from cancellations.ports import Candidate, Classifier, Shifter, UnitOfWork, VersionRecord
from cancellations.usecases.promote import House, Takeover, take_over
from cancellations.usecases.retrain import LEASE
from cancellations.usecases.score import score
from cancellations.usecases.untouched import require_hold_out, untouched_of

AUTOMATIC = "the daily recalibration"


@dataclass(frozen=True)
class Recalibration:
    """What a day's evidence asked for, and what was done.

    `base` is the trained version whose log odds are moved, `present` the champion's shift before, `wanted` the one
    that `evidence` bookings ask for by what was known on `evidence_until`. `takeover` is None where the champion
    stayed.
    """

    champion: str
    base: str
    evidence_until: date
    evidence: int
    present: float
    wanted: float
    verdict: Verdict
    reasons: tuple[str, ...]
    takeover: Takeover | None = None


@dataclass(frozen=True)
class _Family:
    """The champion with all versions that differ from it by a shift alone, the trained one first."""

    records: tuple[VersionRecord, ...]
    champion: VersionRecord
    ledger: tuple[LedgerRow, ...]

    @property
    def base(self) -> VersionRecord:
        return self.records[0]

    def shift(self, record: VersionRecord) -> float:
        """A version's, seen from the base, whatever that is itself."""
        return 0.0 if record is self.base else record.shift or 0.0

    @property
    def shifts(self) -> list[float]:
        """Those that have served, one after the other, since another family did."""
        by_version = {record.version: self.shift(record) for record in self.records}
        served: list[float] = []
        for row in self.ledger:
            if row.champion not in by_version:
                served = []
            elif row.change is Change.RECALIBRATED:
                served.append(by_version[row.champion])
        return served


def recalibrate(
    house: House,
    shifter: Shifter,
    policy: RecalibrationPolicy,
    *,
    as_of: date,
    by: str,
    owner: str,
    lease_ttl: timedelta,
    seed: int,
) -> Recalibration:
    """Learns the day's shift, looks back on the shifts of the last weeks, and serves what that allows.

    The same day again changes nothing. Raises `Refused`, and nothing is changed, without a champion, while a trial
    or probation has not ended, a retrain runs, promotions need a person or automatic retraining is paused, or
    actions are on record without a hold-out; `NotEnoughData` before any outcome has come in.
    """
    with house.store.begin() as work:
        # A retrain's: it compares with the champion that it has found, so none is changed meanwhile.
        token = work.acquire_lease(LEASE, owner, house.clock(), lease_ttl)
        if token is None:
            holder = work.lease_holder(LEASE, house.clock())
            raise Refused(f"a retrain runs, or another recalibration ({holder}); the champion stays as it is meanwhile")
        work.commit()
    try:
        return _recalibrate(house, shifter, policy, as_of, by, seed)
    finally:
        with house.store.begin() as work:
            work.release_lease(LEASE, token)
            work.commit()


def _recalibrate(
    house: House, shifter: Shifter, policy: RecalibrationPolicy, as_of: date, by: str, seed: int
) -> Recalibration:
    with house.store.begin() as work:
        seen = _ready(work)
        family = _family(work, seen)
        fed = work.outcomes_until(as_of)
        if fed is None:
            raise NotEnoughData(f"no outcome has come in by {as_of}; load some first: cancellations ingest FILE")
        # Outcomes that have not come in yet would read as guests who stayed.
        day = min(as_of, fed)
        require_hold_out(work, day)
        history = work.history(booked_until=day, known_until=day)
        history = history[untouched_of(work, history, house.rule, day).rows].reset_index(drop=True)
        bookings = _evidence(work, family, history, house.rule)
    present = family.shift(family.champion)
    wanted = shift_on(bookings, history, house.rule, day, policy.shift)
    decided = _decide(family, bookings, history, house.rule, day, wanted, policy, seed)
    found = Recalibration(
        champion=str(seen.champion),
        base=family.base.version,
        evidence_until=day,
        evidence=len(bookings),
        present=present,
        wanted=wanted,
        verdict=decided.verdict,
        reasons=decided.reasons,
    )
    if any(row.change is Change.RECALIBRATED and row.as_of == as_of for row in family.ledger):
        return _unchanged(found, f"recalibrated already on {as_of}: once a day is enough")
    if decided.verdict is Verdict.NOTHING:
        return found
    name = request_id(day)
    if decided.verdict is Verdict.REFUSED:
        house.registry.log_refusal(name, decided.reasons, ())
        return found
    record = family.base
    if decided.verdict is Verdict.SHIFT:
        record = house.registry.register(_candidate(house, shifter, family, found, name))
        base = house.registry.parameters(record.version).get("recalibrates")
        if base != family.base.version:
            return _unchanged(found, f"version {record.version} of request {name} recalibrates version {base} instead")
        if record.version == family.champion.version:
            return _unchanged(found, f"version {record.version} has the evidence of {day} already")
    shift = family.shift(record)
    done = take_over(
        house,
        seen,
        record,
        change=Change.RECALIBRATED,
        reason=f"shift {shift:+.3f} of version {family.base.version}, was {present:+.3f}: {'; '.join(decided.reasons)}",
        by=by,
        as_of=as_of,
        evidence=decided.reasons,
        mailed=worth_a_mail([*family.shifts, shift], policy.told_shift),
    )
    # What has matured since the training too: the monitor judges a champion on it.
    score(
        house.store,
        house.registry,
        after=None,
        until=as_of,
        rule=house.rule,
        chunk_rows=house.chunk_rows,
        clock=house.clock,
        hold_out=house.actions.hold_out,
    )
    return Recalibration(**{**vars(found), "takeover": done})


def request_id(day: date) -> str:
    """The request of a day's recalibration: one version at most is registered for it."""
    return f"recalibrate-{day}"


def _ready(work: UnitOfWork) -> Standing:
    """The standing, where nothing forbids that its champion changes."""
    standing, running, held, paused = work.standing(), work.open_trial(), work.promotions_held(), work.paused()
    if standing.champion is None:
        raise Refused("there is no champion to recalibrate; train the first one: cancellations retrain --as-of DAY")
    if running is not None:
        raise Refused(f"{running} has not ended; both versions stay what they are until then")
    if standing.challenger is not None:
        raise Refused(
            f"challenger {standing.challenger} stands beside the champion; both stay what they are until then"
        )
    if held is not None:
        raise Refused(f"changes of champion need a person: {held}; `cancellations acknowledge` lets this go on")
    if paused is not None:
        raise Refused(f"automatic retraining is paused ({paused}); `cancellations resume` lets this go on")
    return standing


def _family(work: UnitOfWork, standing: Standing) -> _Family:
    champion = str(standing.champion)
    ledger = tuple(work.ledger())
    found = [work.version(version) for version in kin(ledger, champion)]
    records = tuple(record for record in found if record is not None)
    return _Family(records, next(record for record in records if record.version == champion), ledger)


def _evidence(work: UnitOfWork, family: _Family, history: pd.DataFrame, rule: LabelRule) -> pd.DataFrame:
    """Bookings that the trees have not learnt from, with what they said at booking, before any shift."""
    bookings = history[family.base.unseen(history, rule)]
    said = pd.Series(np.nan, index=pd.Index(bookings["reservation_id"]))
    # The present one has scored most of them; earlier ones what it had no need to.
    for record in (family.champion, *reversed(family.records)):
        lacking = said.index[said.isna()]
        if lacking.empty:
            break
        found = work.predictions(record.version, pd.Series(lacking))
        said.loc[found.index] = shifted(found.to_numpy(dtype=float), -family.shift(record))
    probability = said.to_numpy()
    return bookings.assign(probability=probability)[np.isfinite(probability)].reset_index(drop=True)


def _decide(
    family: _Family,
    bookings: pd.DataFrame,
    history: pd.DataFrame,
    rule: LabelRule,
    day: date,
    wanted: float,
    policy: RecalibrationPolicy,
    seed: int,
) -> Decided:
    present = family.shift(family.champion)
    # A champion with a shift is looked back on each day: who has no probation has to keep passing the gate.
    asked = present != 0 or abs(wanted) >= policy.min_shift
    looked = look_back(bookings, history, rule, family.base.trained_as_of, day, policy, seed) if asked else None
    return decide_shift(wanted, present, len(bookings), looked, policy)


def _candidate(house: House, shifter: Shifter, family: _Family, found: Recalibration, name: str) -> Candidate:
    """The base with the shift. What the base was made from stays what the version is held against."""
    base, registry = family.base, house.registry
    days = (found.evidence_until - base.trained_as_of).days
    counted = {k: v for k, v in base.metrics.items() if k in ("training_rows", "matured_rows", "training_cancel_rate")}
    told: Mapping[str, object] = {
        **registry.parameters(base.version),
        "labels": base.labels.value,
        "recalibrates": base.version,
        "shift": repr(found.wanted),
        "evidence_until": found.evidence_until.isoformat(),
        "evidence_rows": found.evidence,
    }
    return Candidate(
        request_id=name,
        model=_moved(shifter, registry.load(base.version), found),
        as_of=base.trained_as_of,
        recipe=base.recipe,
        parameters=told,
        metrics={
            **counted,
            "shift": found.wanted,
            "evidence_rows": float(found.evidence),
            "evidence_days": float(days),
        },
        reasons=found.reasons,
        training=registry.training(base.version),
        reference=registry.reference(base.version),
        importance=registry.importance(base.version),
        tags={
            "recalibrates": base.version,
            "replaces": found.champion,
            "reason": f"shift {found.wanted:+.3f} of version {base.version}",
        },
    )


def _moved(shifter: Shifter, model: Classifier, found: Recalibration) -> Classifier:
    try:
        return shifter.shifted(model, found.wanted)
    except (AttributeError, TypeError, ValueError) as error:
        raise Refused(
            f"version {found.base} is no pipeline that ends in a classifier ({error!r}): it cannot be recalibrated"
        ) from error


def _unchanged(found: Recalibration, why: str) -> Recalibration:
    return Recalibration(**{**vars(found), "verdict": Verdict.NOTHING, "reasons": (*found.reasons, why)})
