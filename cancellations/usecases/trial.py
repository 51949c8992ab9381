"""One look at the trial, or the probation, that has not ended: read the matured days, rule, act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd

from cancellations.domain import labels
from cancellations.domain.comparison import Arm, Reading, arm, daily_gains, read
from cancellations.domain.events import ApprovalNeeded, TrialDoubted, TrialEnded
from cancellations.domain.guards import GuardFinding
from cancellations.domain.hold_out import Untouched
from cancellations.domain.promotion import (
    Change,
    Doubt,
    Doubted,
    Kind,
    Ruling,
    Standing,
    Trial,
    TrialState,
    open_trial,
    rule_on,
)
from cancellations.domain.retraining import RetrainRequest
from cancellations.domain.sample_ratio import ArmCount, mismatches
from cancellations.errors import BadInput, CancellationsError, EpochMismatch, Refused
from cancellations.ports import UnitOfWork
from cancellations.usecases.aliases import project_aliases
from cancellations.usecases.guard import guard
from cancellations.usecases.promote import House, Takeover, take_over
from cancellations.usecases.score import Scored, score
from cancellations.usecases.untouched import untouched_of

# Outcomes of a trial's last day are waited for as long as this; then it ends without them.
FEED_GRACE = timedelta(days=7)
AUTOMATIC = {Kind.TRIAL: "the trial", Kind.PROBATION: "the probation"}


@dataclass(frozen=True)
class Looked:
    """What a look found: the trial as it stands now (None: there is none), and the change it made.

    `problems`: what is not yet as it should be after a trial's end, a sentence each; the end stands. `guards`: what
    they found, when this look was theirs.
    """

    trial: Trial | None
    takeover: Takeover | None = None
    problems: tuple[str, ...] = ()
    guards: tuple[GuardFinding, ...] = ()


def score_challenger(house: House, request: RetrainRequest) -> Scored | None:
    """Scores all open bookings with the version that a request has put on trial, and serves its arm.

    As of the day up to which bookings have come in: the request may have looked at an earlier one. None
    when the request put nothing on trial, or that trial has ended.
    """
    with house.store.begin() as work:
        trial, span = work.open_trial(), work.booked_span()
    if trial is None or trial.kind is not Kind.TRIAL or trial.rival != request.version:
        return None
    return _score(house, request.as_of if span is None else max(request.as_of, span[1]))


def look(house: House, *, until: date, run: str | None = None) -> Looked:
    """Scores what either version lacks, lets the guards look, reads the days that matured by `until`, and acts.

    Safe to repeat, and to run twice at once: what a look decides is decided by the days in their
    order, and written once. `run` names whoever can ask a person for approval (a flow run).
    """
    _ensure_opened(house, until)
    with house.store.begin() as work:
        seen, trial = work.standing(), work.open_trial()
    if trial is None:
        return Looked(None)
    if trial.state is TrialState.AWAITING:
        return _await(house, trial, until, run)
    lost = _lost(house, trial)
    if lost is not None:
        return _end(house, seen, trial, TrialState.WITHDRAWN, (lost,), AUTOMATIC[trial.kind], until)
    _score(house, until)
    guarded = guard(house, until=until)
    if guarded.takeover is not None:
        return Looked(guarded.trial, guarded.takeover, guards=guarded.findings)
    with house.store.begin() as work:
        compared = compare(work, trial, house.rule, until)
        doubts = doubts_of(work, trial, compared, house, until)
        fed, held = work.outcomes_until(until), work.promotions_held()
    _tell_doubts(house, trial, doubts, until)
    # The last day is over when its outcomes are in, unless the feed has stopped.
    over = until if fed is None or until - trial.last_day >= FEED_GRACE else fed
    ruling = rule_on(trial, compared.reading, over, held, doubts)
    return _act(house, seen, trial, compared.reading, ruling, until, run)


@dataclass(frozen=True)
class Compared:
    """What was read of a trial's cohort, the ids of the bookings that it was read from, and which were left out."""

    reading: Reading
    bookings: pd.Series
    untouched: Untouched


def compare(work: UnitOfWork, trial: Trial, rule: labels.LabelRule, until: date) -> Compared:
    """Reads the trial's cohort: bookings that both versions scored and that matured by `until`.

    A day is read once outcomes known on it, or later, have come in: before, everybody would seem to
    have stayed. Days behind the trial's last are not read, so a late look finds what a timely one did,
    but for outcomes that were recorded after their booking had matured: they count once known.
    """
    fed = work.outcomes_until(until)
    last = min(until, trial.last_day, fed) if fed is not None else trial.cohort_after
    if last <= trial.cohort_after:
        return Compared(read((), trial.sequence), pd.Series(dtype="str"), Untouched(np.ones(0, dtype=bool)))
    ending = rule.maturing(trial.cohort_after, last)
    history = work.history(booked_until=last, known_until=until, ending=ending, only=labels.RULED_BY)
    for version in (trial.champion, trial.rival):
        record = work.version(version)
        assert record is not None, "a version is recorded before it is compared"
        history = history[record.unseen(history, rule)]
    cohort = labels.matured(history, rule, as_of=last, after=trial.cohort_after)
    ours = work.predictions(trial.champion, cohort["reservation_id"])
    theirs = work.predictions(trial.rival, cohort["reservation_id"])
    both = cohort[cohort["reservation_id"].isin(ours.index.intersection(theirs.index))]
    clean = untouched_of(work, both, rule, until)
    both = both[clean.rows]
    ids = both["reservation_id"]
    days = daily_gains(
        both["matured_on"],
        both["label"].to_numpy(),
        ours.reindex(ids).to_numpy(),
        theirs.reindex(ids).to_numpy(),
    )
    return Compared(read(days, trial.sequence), ids, clean)


def doubts_of(work: UnitOfWork, trial: Trial, compared: Compared, house: House, until: date) -> tuple[Doubted, ...]:
    """Why what has been read must not promote by itself, each kind once."""
    acted = _of_actions(compared.untouched, house.actions.broken_share)
    if trial.kind is not Kind.TRIAL:
        return acted
    wrong = _wrong_arms(work, trial, compared, house.policy.arms_alpha)
    if wrong:
        return (Doubted(Doubt.ARMS, wrong[0]), *acted)
    # What was found once was found: bookings that come later, dealt as they should be, only thin it out.
    told = work.messages([message.id for message in _fact(trial, Doubt.ARMS, "", until).messages()])
    return (*(Doubted(Doubt.ARMS, str(entry.message.payload["reasons"][0])) for entry in told), *acted)


def _of_actions(clean: Untouched, broken_share: float) -> tuple[Doubted, ...]:
    """What actions upon scores have done to the cohort."""
    if clean.since is None or not clean.acted + clean.later + clean.left_out:
        return ()
    if not clean.held_out:
        found = (
            f"actions upon scores are on record since {clean.since}, and no booking is held out from them:"
            f" {clean.acted:,} that were acted upon are left out, and what is left of {clean.acted + clean.later:,} is"
            " a selection"
        )
        return (Doubted(Doubt.NO_HOLD_OUT, found),)
    if clean.broken:
        whole = clean.broken + clean.later
        found = f"{clean.broken:,} of {whole:,} bookings that were held out were acted upon all the same: left out"
        return (Doubted(Doubt.BROKEN, found, blocks=clean.broken > broken_share * whole),)
    return ()


def _wrong_arms(work: UnitOfWork, trial: Trial, compared: Compared, alpha: float) -> tuple[str, ...]:
    """What is wrong with the arms: with any of them, by its id's hash; and with their sizes, on the way to the end."""
    dealt = work.dealt(trial.trial_id)
    meant = [arm(trial.trial_id, str(i), trial.serve_share).value for i in dealt.index]
    others = int((dealt["arm"] != meant).sum())
    read = dealt.loc[dealt.index.isin(compared.bookings)]
    counts = [
        _counted("dealt", dealt["arm"]),
        _counted("served", dealt["served"]),
        _counted("compared", read["arm"]),
    ]
    swapped = (f"{others:,} of {len(dealt):,} bookings are in another arm than their ids'",) if others else ()
    return (*swapped, *mismatches(counts, trial.serve_share, alpha))


def _counted(stage: str, arms: pd.Series) -> ArmCount:
    return ArmCount(stage, int((arms == Arm.CHAMPION).sum()), int((arms == Arm.RIVAL).sum()))


def _tell_doubts(house: House, trial: Trial, doubts: Sequence[Doubted], as_of: date) -> None:
    """A mail for each kind of doubt; one that was told before is known by its id."""
    if not doubts:
        return
    with house.store.begin() as work:
        for doubted in doubts:
            fact = _fact(trial, doubted.doubt, doubted.found, as_of)
            work.add_messages(fact.messages(), house.clock())
        work.commit()


def _fact(trial: Trial, doubt: Doubt, found: str, as_of: date) -> TrialDoubted:
    return TrialDoubted(
        trial_id=trial.trial_id,
        kind=trial.kind.value,
        doubt=doubt.value,
        champion=trial.champion,
        version=trial.rival,
        as_of=as_of,
        reasons=(found,),
    )


def answer(house: House, trial_id: str, *, approve: bool, reason: str, by: str, as_of: date) -> Looked:
    """A person's yes or no to a trial that awaits approval; raises `Refused` when it doesn't."""
    with house.store.begin() as work:
        seen, trial = work.standing(), work.trial(trial_id)
    if trial is None:
        raise BadInput(f"there is no trial {trial_id!r}; `cancellations history` lists them")
    if trial.state is not TrialState.AWAITING:
        raise Refused(f"{trial} does not await an answer: it is {trial.state}")
    if approve:
        return _take_over(house, seen, trial, TrialState.PROMOTED, (f"approved by {by}: {reason}",), by, as_of)
    return _end(house, seen, trial, TrialState.DECLINED, (f"declined by {by}: {reason}",), by, as_of)


def withdraw(house: House, *, reason: str, by: str, as_of: date) -> Looked:
    """A person ends the trial or probation that has not ended; the champion stays."""
    if not reason.strip():
        raise BadInput("a reason is needed, for whoever asks the ledger later")
    with house.store.begin() as work:
        seen, trial = work.standing(), work.open_trial()
    if trial is None:
        raise Refused("neither a trial nor a probation is running")
    return _end(house, seen, trial, TrialState.WITHDRAWN, (f"withdrawn by {by}: {reason.strip()}",), by, as_of)


def ask(house: House, trial_id: str, run: str) -> None:
    """`run` asks the person from now on: the run that did so before is gone."""
    with house.store.begin() as work:
        trial = work.trial(trial_id)
        if trial is not None and trial.state is TrialState.AWAITING:
            work.update_trial(replace(trial, asked_by=run), TrialState.AWAITING, house.clock())
            work.commit()


def _score(house: House, until: date) -> Scored:
    return score(
        house.store,
        house.registry,
        after=None,
        until=until,
        rule=house.rule,
        chunk_rows=house.chunk_rows,
        clock=house.clock,
        checks=house.checks,
        hold_out=house.actions.hold_out,
    )


def _ensure_opened(house: House, until: date) -> None:
    """A challenger without a trial, of a home that an older version made, gets its trial."""
    with house.store.begin() as work:
        standing = work.standing()
        if standing.champion is None or standing.challenger is None or work.open_trial() is not None:
            return
        records = [work.version(standing.champion), work.version(standing.challenger)]
        trained = {r.version: r.known_until for r in records if r is not None}
        challenger = work.version(standing.challenger)
        request_id = None if challenger is None else challenger.request_id
        work.add_trial(open_trial(standing, trained, until, request_id, house.policy), house.clock())
        work.commit()


def _lost(house: House, trial: Trial) -> str | None:
    """Why there is nothing left to compare: the rival's artifact is gone, while the champion's is there.

    Where neither can be loaded it is the place that is gone, not a version; that is an error.
    """
    house.registry.load(trial.champion)
    try:
        house.registry.load(trial.rival)
    except BadInput as error:
        return f"version {trial.rival} cannot be loaded any more: {error}"
    return None


def _await(house: House, trial: Trial, until: date, run: str | None) -> Looked:
    now = house.clock()
    with house.store.begin() as work:
        seen = work.standing()
        if trial.asked_by is None and run is not None:
            trial = replace(trial, asked_by=run)
            work.update_trial(trial, TrialState.AWAITING, now)
            work.commit()
    if trial.asked_until is not None and now >= trial.asked_until:
        why = f"nobody answered by {trial.asked_until:%Y-%m-%d %H:%M} UTC, which means no"
        return _end(house, seen, trial, TrialState.DECLINED, (why,), AUTOMATIC[trial.kind], until)
    return Looked(trial)


def _act(
    house: House, seen: Standing, trial: Trial, reading: Reading, ruling: Ruling, until: date, run: str | None
) -> Looked:
    decided_on = reading.last.day if reading.last and ruling.state is not TrialState.RUNNING else None
    read_now = replace(trial, evidence=reading.steps, decided_on=decided_on)
    if ruling.state is TrialState.RUNNING:
        return Looked(_keep(house, replace(read_now, reasons=ruling.reasons)))
    if ruling.state is TrialState.AWAITING:
        return Looked(_ask(house, replace(read_now, reasons=ruling.reasons), until, run))
    by = AUTOMATIC[trial.kind]
    if ruling.state in (TrialState.PROMOTED, TrialState.ROLLED_BACK):
        return _take_over(house, seen, replace(read_now, reasons=()), ruling.state, ruling.reasons, by, until)
    return _end(house, seen, replace(read_now, reasons=()), ruling.state, ruling.reasons, by, until)


def _keep(house: House, trial: Trial) -> Trial:
    with house.store.begin() as work:
        work.update_trial(trial, TrialState.RUNNING, house.clock())
        work.commit()
    return trial


def _ask(house: House, trial: Trial, until: date, run: str | None) -> Trial:
    now = house.clock()
    asked_until = now + timedelta(hours=house.policy.approval_hours)
    asking = replace(trial, state=TrialState.AWAITING, asked_until=asked_until, asked_by=run)
    fact = ApprovalNeeded(trial.trial_id, trial.champion, trial.rival, until, asked_until, trial.reasons)
    with house.store.begin() as work:
        if work.update_trial(asking, trial.state, now):
            work.add_messages(fact.messages(), now)
            work.commit()
            return asking
        known = work.trial(trial.trial_id)
    return known or asking


def _take_over(
    house: House, seen: Standing, trial: Trial, state: TrialState, reasons: tuple[str, ...], by: str, as_of: date
) -> Looked:
    """The rival becomes champion, by promotion or by rollback."""
    _require_pair(seen, trial)
    with house.store.begin() as work:
        record = work.version(trial.rival)
    assert record is not None, "a version is recorded before it is compared"
    ended = replace(trial, state=state, reasons=(*trial.reasons, *reasons))
    takeover = take_over(
        house,
        seen,
        record,
        change=Change.PROMOTED if state is TrialState.PROMOTED else Change.ROLLED_BACK,
        reason=reasons[-1],
        by=by,
        as_of=as_of,
        decided=ended,
        seen_state=trial.state,
        evidence=ended.reasons,
    )
    return Looked(ended, takeover)


def _end(
    house: House, seen: Standing, trial: Trial, state: TrialState, reasons: tuple[str, ...], by: str, as_of: date
) -> Looked:
    """The champion stays; a challenger leaves."""
    _require_pair(seen, trial)
    ended = replace(trial, state=state, reasons=(*trial.reasons, *reasons))
    now = house.clock()
    with house.store.begin() as work:
        # The standing before the trial, as every change of champion does: two of them wait for each other.
        if trial.kind is Kind.TRIAL:
            work.change_standing(
                seen,
                champion=seen.champion,
                challenger=None,
                change=Change.LEFT,
                reason=f"{state}: {reasons[-1]}",
                by=by,
                request_id=trial.request_id,
                trial_id=trial.trial_id,
                as_of=as_of,
                now=now,
            )
        if not work.update_trial(ended, trial.state, now):
            raise EpochMismatch(f"{trial} was ended by somebody else meanwhile; nothing was written")
        if trial.kind is Kind.TRIAL:
            work.serve(as_of, now)
        fact = TrialEnded(
            trial_id=trial.trial_id,
            kind=trial.kind.value,
            state=state.value,
            champion=trial.champion,
            version=trial.rival,
            as_of=as_of,
            reasons=ended.reasons,
        )
        work.add_messages(fact.messages(), now)
        work.commit()
    if trial.kind is Kind.TRIAL:
        try:
            project_aliases(house.store, house.registry, house.clock)
        except CancellationsError as error:
            return Looked(ended, problems=(f"MLflow's aliases are not moved yet, reconcile will: {error}",))
    return Looked(ended)


def _require_pair(seen: Standing, trial: Trial) -> None:
    if seen.epoch != trial.epoch:
        raise EpochMismatch(
            f"{trial} began at epoch {trial.epoch} and the ledger is at epoch {seen.epoch}; nothing was written"
        )
