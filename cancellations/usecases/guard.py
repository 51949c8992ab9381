"""The guards of a new champion: the first bookings made after it took over, looked at once, before any outcome.

With them it is looked at what the version says of the bookings that it was trained on, and whether it says the same
again of those that it has scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd

from cancellations.domain.guards import BY_GUARD, GuardFinding, GuardPolicy, Outcome, Pair, learnt, look, repeated
from cancellations.domain.labels import LabelRule, Labels, Matures, maturity, whole
from cancellations.domain.promotion import Change, Kind, Trial, TrialState
from cancellations.domain.reservation import GROUP, group_keys
from cancellations.errors import EpochMismatch, Refused
from cancellations.ports import UnitOfWork
from cancellations.usecases.point_in_time import as_scored
from cancellations.usecases.promote import House, Takeover, take_over
from cancellations.usecases.untouched import untouched_of

# Bookings from before the change are looked for in so many days, and in twice as many while they are too few.
DAYS = 28
# With a heavier penalty, or fewer trees, a fit does not give back the mean of its labels: at a penalty of 100 it is
# .0013 away, with two trees .0024.
HEAVIEST_PENALTY, FEWEST_TREES = 20.0, 10
# What a version has to tell of its training.
TOLD = frozenset({"settle_days", "half_life_days", "matures", "weighted", "l2_regularization", "max_iter"})


@dataclass(frozen=True)
class Guarded:
    """What the guards say of the probation that runs; `findings` is empty while they have not looked.

    `looked`: they have, just now. `trial` as it stands now, None where there is no probation. `problems`: why a
    rollback that they ask for was not made, a sentence each.
    """

    trial: Trial | None = None
    findings: tuple[GuardFinding, ...] = ()
    looked: bool = False
    takeover: Takeover | None = None
    problems: tuple[str, ...] = ()


def guard(house: House, *, until: date) -> Guarded:
    """Looks at a new champion's first bookings as soon as they are enough, and rolls back if a guard fires.

    What is found is written before anything is done about it, once: whoever looks later, or at the same time, finds
    it and does what is left to do. Safe to repeat, and after a death at any point.
    """
    if house.guards is None or not house.guards.enabled:
        return Guarded()
    with house.store.begin() as work:
        seen, trial = work.standing(), work.open_trial()
        if trial is None or trial.kind is not Kind.PROBATION or trial.epoch != seen.epoch:
            return Guarded()
        findings = work.guards(trial.trial_id)
    looked = findings is None
    if findings is None:
        findings = _look(house, house.guards, trial, until)
        if findings is None:
            return Guarded(trial)
    fired = tuple(str(finding) for finding in findings if finding.outcome is Outcome.FIRED)
    if not fired:
        return Guarded(trial, findings, looked)
    with house.store.begin() as work:
        record = work.version(trial.rival)
    assert record is not None, "a version is recorded before it is compared"
    ended = replace(trial, state=TrialState.ROLLED_BACK, reasons=(*trial.reasons, *fired))
    try:
        takeover = take_over(
            house,
            seen,
            record,
            change=Change.ROLLED_BACK,
            reason=fired[0],
            by=BY_GUARD,
            as_of=until,
            decided=ended,
            seen_state=trial.state,
            evidence=fired,
        )
    except EpochMismatch:
        # Somebody else changed the champion meanwhile: another guard, or a person. What stands now is theirs.
        return Guarded(trial, findings, looked)
    except Refused as error:
        return Guarded(trial, findings, looked, problems=(f"{fired[0]}; but {error}",))
    return Guarded(ended, findings, looked, takeover)


def _look(house: House, policy: GuardPolicy, trial: Trial, until: date) -> tuple[GuardFinding, ...] | None:
    """What the guards find, as it is on record; None while there are too few bookings to look at."""
    with house.store.begin() as work:
        first = _first(work, trial, until, policy.rows)
        if first is None:
            return None
        before = _before(work, trial, policy.rows * policy.samples)
        now, usual = (_pair(work, house, trial, ids) for ids in (first, before))
        findings = (
            # First what explains the others, since the first that fires is told first.
            _repeated(work, house, trial.champion, pd.concat([before, first])),
            *look(now, usual, policy),
            _learnt(work, house, trial.champion, policy),
        )
        if not work.add_guards(trial.trial_id, findings, until, house.clock()):
            return work.guards(trial.trial_id)
        work.commit()
    return findings


def _learnt(work: UnitOfWork, house: House, version: str, policy: GuardPolicy) -> GuardFinding:
    """What the version says of the bookings that it was trained on, beside what was on record of them on that day.

    Nothing where it has learnt something else than matured labels, was recalibrated since, does not tell how, or where
    its settings keep a fit away from the mean.
    """
    nothing = np.empty(0)
    record = work.version(version)
    told = house.registry.parameters(version)
    plain = record is not None and record.labels is Labels.MATURED and record.shift is None
    if record is None or not plain or TOLD - told.keys() or not _fits(told):
        return learnt(nothing, nothing, nothing, policy)
    rule = LabelRule(int(told["settle_days"]), float(told["half_life_days"]), Matures(told["matures"]))
    as_of = record.trained_as_of
    history = work.history(booked_until=as_of, known_until=as_of)
    history = history[maturity(history, rule) <= pd.Timestamp(as_of)]
    history = history[untouched_of(work, history, rule, as_of).rows].reset_index(drop=True)
    made = whole(history, rule, as_of, weighted=told["weighted"] == str(True))
    if not len(made):
        return learnt(nothing, nothing, nothing, policy)
    probability = house.registry.load(version).predict(as_scored(work, history, rule).iloc[made.row])
    return learnt(probability, made.label, made.weight, policy)


def _fits(told: Mapping[str, str]) -> bool:
    """Whether it was fitted until its mean is that of its labels."""
    return float(told["l2_regularization"]) <= HEAVIEST_PENALTY and int(told["max_iter"]) >= FEWEST_TREES


def _repeated(work: UnitOfWork, house: House, version: str, ids: pd.Series) -> GuardFinding:
    """Whether the version says of bookings what it said before, from their stored features.

    What runs it may have changed since, here or where those were scored: a library, an encoder, its artifact.
    """
    recorded = work.predictions(version, ids)
    features = work.features(pd.Series(recorded.index))
    again = house.registry.load(version).predict(features)
    return repeated(recorded.loc[features.index].to_numpy(dtype=float), again)


def _first(work: UnitOfWork, trial: Trial, until: date, rows: int) -> pd.Series | None:
    """Ids of the first bookings made after the change that both champions have scored, one of each group."""
    made = work.scored(trial.champion, trial.opened_on + timedelta(days=1), until)
    old = work.predictions(trial.rival, made["reservation_id"])
    made = made[made["reservation_id"].isin(old.index)]
    first = _one_of_each_group(made).head(rows)
    return first if len(first) == rows else None


def _before(work: UnitOfWork, trial: Trial, rows: int) -> pd.Series:
    """Ids of the last bookings made until the change that are known as they were scored, one of each group."""
    booked = work.booked_span()
    days, found = DAYS, pd.Series([], dtype=object)
    while booked is not None:
        after = trial.opened_on - timedelta(days=days)
        made = work.history(trial.opened_on, known_until=trial.opened_on, booked_after=after, only=GROUP)
        features = work.features(made["reservation_id"])
        found = _one_of_each_group(made[made["reservation_id"].isin(features.index)]).tail(rows)
        if len(found) == rows or after < booked[0]:
            break
        days *= 2
    return found


def _one_of_each_group(made: pd.DataFrame) -> pd.Series:
    return made.loc[~pd.Series(group_keys(made), index=made.index).duplicated(), "reservation_id"]


def _pair(work: UnitOfWork, house: House, trial: Trial, ids: pd.Series) -> Pair:
    """What both say of bookings, from their stored features where they have not scored them yet: a version that a
    person made champion past its trial has scored none but those that were open."""
    return Pair(*(_scores(work, house, version, ids) for version in (trial.champion, trial.rival)))


def _scores(work: UnitOfWork, house: House, version: str, ids: pd.Series) -> np.ndarray:
    stored = work.predictions(version, ids)
    lacking: Sequence[str] = [i for i in ids if i not in stored.index]
    if lacking:
        made = house.registry.load(version).predict(work.features(pd.Series(lacking)).loc[lacking])
        stored = pd.concat([stored, pd.Series(made, index=lacking)])
    return stored.loc[ids].to_numpy(dtype=float)
