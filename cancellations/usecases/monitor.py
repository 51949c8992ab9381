"""Looks at windows of scored bookings; report, decision, request and messages in one transaction."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from cancellations.domain import labels
from cancellations.domain.events import DriftDetected, Fact, RetrainDue, SignalAlarmed, identity
from cancellations.domain.in_flight import LOOKED_AT, InFlightPolicy, Slice, in_flight
from cancellations.domain.promotion import Change, kin
from cancellations.domain.reference import Design, ReferencePolicy
from cancellations.domain.reservation import group_keys
from cancellations.domain.retraining import (
    Action,
    Decision,
    RequestState,
    RetrainHistory,
    RetrainPolicy,
    RetrainRequest,
    Verdict,
    decide_retrain,
)
from cancellations.domain.timing import MEMORY_DAYS
from cancellations.domain.volume import MEMORY_DAYS as VOLUME_DAYS
from cancellations.domain.volume import volume
from cancellations.errors import Refused
from cancellations.ports import (
    Measurement,
    Monitor,
    Observation,
    Registry,
    Store,
    StoredDecision,
    UnitOfWork,
    VersionRecord,
)
from cancellations.usecases.check import BREAK_DAYS
from cancellations.usecases.point_in_time import as_scored
from cancellations.usecases.untouched import untouched_of

# One seed for all samples: the same window is always held against the same bookings.
SEED = 20
DEFAULT_REFERENCE = ReferencePolicy()


@dataclass(frozen=True)
class Rhythm:
    """A look at the last `window_days` of bookings every `step_days`."""

    window_days: int
    step_days: int

    def ends(self, after: date | None, until: date) -> list[date]:
        """Last days of the windows that end in `(after, until]`, a step apart; without `after` one: `until`."""
        if after is None:
            return [until]
        looks = (until - after).days // self.step_days
        return [after + timedelta(days=self.step_days * (i + 1)) for i in range(looks)]


@dataclass(frozen=True)
class Monitored:
    """The decisions taken, oldest first, and how many windows had one already."""

    decisions: tuple[StoredDecision, ...]
    known: int

    @property
    def acted(self) -> StoredDecision | None:
        return next((d for d in self.decisions if d.decision.action.retrains), None)


def monitor(
    store: Store,
    registry: Registry,
    watch: Monitor,
    *,
    after: date | None,
    until: date,
    rhythm: Rhythm,
    rule: labels.LabelRule,
    policy: RetrainPolicy,
    open_bookings: InFlightPolicy,
    clock: Callable[[], datetime],
    against: ReferencePolicy = DEFAULT_REFERENCE,
    on_look: Callable[[StoredDecision], None] = lambda decision: None,
) -> Monitored:
    """Looks at each window that ends in `(after, until]`, as of its last day.

    Without `after` it goes on from the champion's last look, so a monitor that slept catches up.
    Stops after a decision to act: what follows depends on what the retrain brings. A window that
    has its decision is passed over, so a look is never counted twice.
    """
    taken: list[StoredDecision] = []
    known = 0
    if after is None:
        with store.begin() as work:
            last = _decisions(work, _champion(work))
        after = last[0].report.window.end if last else None
    for end in rhythm.ends(after, until):
        with store.begin() as work:
            champion = _champion(work)
            if any(work.report_exists(version, end) for version in kin(work.ledger(), champion.version)):
                known += 1
                continue
            observation, matured_since = observe(work, registry, champion, end, rhythm, rule, open_bookings, against)
        measurement = watch.measure(observation)
        stored = _decide(store, registry, champion, measurement, matured_since, policy, clock())
        if stored is None:
            known += 1
            continue
        taken.append(stored)
        on_look(stored)
        if stored.decision.action.retrains:
            break
    return Monitored(tuple(taken), known)


def _champion(work: UnitOfWork) -> VersionRecord:
    version = work.standing().champion
    record = work.version(version) if version is not None else None
    if record is None:
        raise Refused("there is no champion to watch; train the first one: cancellations retrain --as-of DAY")
    return record


def observe(
    work: UnitOfWork,
    registry: Registry,
    champion: VersionRecord,
    end: date,
    rhythm: Rhythm,
    rule: labels.LabelRule,
    open_bookings: InFlightPolicy,
    against: ReferencePolicy = DEFAULT_REFERENCE,
) -> tuple[Observation, int]:
    """What the monitor looks at; and how many outcomes became final since the champion was trained."""
    # Of bookings made before it was trained the champion has scored the open ones alone, those with
    # long leads; among the window's they would look like drift.
    start = max(end - timedelta(days=rhythm.window_days - 1), champion.trained_as_of + timedelta(days=1))
    # What curves of cancellations are learned from, and what the champion is judged on.
    remembered = min(champion.trained_as_of, end - timedelta(days=MEMORY_DAYS))
    history = work.history(booked_until=end, known_until=end, ending=rule.maturing(remembered), only=LOOKED_AT)
    # What became of bookings that somebody acted upon tells of the action too.
    history = history[untouched_of(work, history, rule, end).rows]
    unseen = history[champion.unseen(history, rule)]
    window = work.scored(champion.version, start, end)
    final = labels.matured(unseen, rule, as_of=end, after=champion.trained_as_of)
    matured_since = len(final)
    probability = work.predictions(champion.version, unseen["reservation_id"])
    final = final[final["reservation_id"].isin(probability.index)]
    reference = reference_of(work, registry, champion, against.design, start, end, rule, against)
    observation = Observation(
        champion=champion.version,
        start=start,
        end=end,
        reference=reference,
        current=as_scored(work, window, rule),
        probability=window["probability"].to_numpy(dtype=float),
        matured_label=final["label"].to_numpy(dtype=float),
        matured_probability=probability.reindex(final["reservation_id"]).to_numpy(dtype=float),
        matured_groups=group_keys(final),
        matured_made_days_ago=labels.made_days_ago(final, end, champion.trained_as_of),
        reference_probability=scores_of(registry, champion, reference),
        importance=registry.importance(champion.version),
        in_flight=_in_flight(work, champion, history, unseen, probability, end, rule, open_bookings),
        volume=volume(work.booked_days(end - timedelta(days=VOLUME_DAYS), end), end),
        calibration=work.calibration(end),
        against=against.named(against.design),
    )
    return observation, matured_since


def reference_of(
    work: UnitOfWork,
    registry: Registry,
    champion: VersionRecord,
    design: Design,
    start: date,
    end: date,
    rule: labels.LabelRule,
    policy: ReferencePolicy,
) -> pd.DataFrame:
    """Features of the reference of a window by a design; empty where no booking was made on its days."""
    span = policy.span(design, start, end)
    if span is None:
        return registry.reference(champion.version)
    made = work.history(span[1], span[1], booked_after=span[0] - timedelta(days=1))
    if len(made) > policy.rows:
        made = made.sample(policy.rows, random_state=SEED).sort_index()
    return as_scored(work, made, rule)


def scores_of(registry: Registry, champion: VersionRecord, features: pd.DataFrame) -> np.ndarray:
    """The champion's scores of a reference, shape (rows,)."""
    return registry.load(champion.version).predict(features) if len(features) else np.empty(0)


def _in_flight(
    work: UnitOfWork,
    champion: VersionRecord,
    history: pd.DataFrame,
    unseen: pd.DataFrame,
    probability: pd.Series,
    end: date,
    rule: labels.LabelRule,
    policy: InFlightPolicy,
) -> tuple[Slice, ...]:
    """Bookings made since the champion was trained, as far as outcomes have come in."""
    fed = work.outcomes_until(end)
    if fed is None:
        return ()
    # Of older bookings it has scored those alone that were still open, which had survived already.
    since = unseen[unseen["booked_on"] > pd.Timestamp(champion.trained_as_of)]
    since = since.assign(probability=since["reservation_id"].map(probability)).dropna(subset=["probability"])
    # Outcomes that have not come in yet would read as guests who stayed.
    return in_flight(since, history, rule, min(end, fed), policy)


def _decide(
    store: Store,
    registry: Registry,
    champion: VersionRecord,
    measurement: Measurement,
    matured_since: int,
    policy: RetrainPolicy,
    now: datetime,
) -> StoredDecision | None:
    """Decides and writes; None when another monitor was faster with this window."""
    report = measurement.report
    report_id = identity("report", champion.version, report.window.end)
    with store.begin() as work:
        history = _history(work, champion, report.window.end, matured_since)
        earlier = _decisions(work, champion)
    while True:
        decision = decide_retrain(report.signals, history, policy, now=report.window.end)
        asked = _request(decision, champion.version, report_id, report.window.end) if decision.action.retrains else None
        if asked is not None:
            # Kept before the decision counts: pages beside a decision that was never taken do no harm,
            # a decision without its page would.
            with tempfile.TemporaryDirectory() as folder:
                page = measurement.save_html(Path(folder) / "evidently.html")
                if page is not None:
                    registry.log_report(champion.version, report_id, [page])
        stored = StoredDecision(report_id, report, decision, asked.request_id if asked else None, now)
        with store.begin() as work:
            if asked is not None:
                # A look at another window may have asked meanwhile, and the budget is one for all of them.
                work.hold_requests()
                stands = _history(work, champion, report.window.end, matured_since)
                if stands != history:
                    history = stands
                    continue
            return stored if _write(work, stored, asked, _alarms(stored, earlier), now) else None


def _write(
    work: UnitOfWork, stored: StoredDecision, asked: RetrainRequest | None, alarms: Iterator[Fact], now: datetime
) -> bool:
    """The decision with all that follows from it; False when its window has one already."""
    if not work.add_decision(stored):
        return False
    for alarm in alarms:
        work.add_messages(alarm.messages(), now)
    if asked is not None:
        fact = DriftDetected if stored.decision.action is Action.RETRAIN_DRIFT else RetrainDue
        work.add_request(asked, now)
        work.add_messages(
            fact(
                request_id=asked.request_id,
                report_id=stored.report_id,
                champion=stored.report.champion,
                window_start=stored.report.window.start,
                window_end=stored.report.window.end,
                reasons=stored.decision.reasons,
            ).messages(),
            now,
        )
    work.commit()
    return True


def _alarms(stored: StoredDecision, earlier: list[StoredDecision]) -> Iterator[Fact]:
    """What people are told beside the decision: an alarm that was none in the window before."""
    report = stored.report
    before = next((d.report for d in earlier if d.report.window.end < report.window.end), None)
    told = {s.name for s in before.signals if s.verdict is Verdict.ALARM} if before else set()
    for signal in report.signals:
        if signal.mailed and signal.verdict is Verdict.ALARM and signal.name not in told:
            yield SignalAlarmed(
                report_id=stored.report_id,
                champion=report.champion,
                window_start=report.window.start,
                window_end=report.window.end,
                signal=signal.name,
                before=signal.before,
                after=signal.after,
                reasons=stored.decision.reasons,
            )


def _history(work: UnitOfWork, champion: VersionRecord, end: date, matured_since: int) -> RetrainHistory:
    earlier = [d for d in _decisions(work, champion) if d.report.window.end < end]
    requests = work.requests()
    waiting = next((r for r in requests if not r.state.final), None)
    standing, trial = work.standing(), work.open_trial()
    pending = None
    if waiting is not None:
        pending = f"request {waiting.request_id}"
    elif trial is not None:
        pending = str(trial)
    elif standing.challenger is not None:
        pending = f"challenger {standing.challenger}"
    rollbacks = [row.as_of for row in work.ledger() if row.change is Change.ROLLED_BACK]
    return RetrainHistory(
        champion_trained_as_of=champion.trained_as_of,
        evidence=tuple(d.report.evidence() for d in reversed(earlier)),
        requested_on=tuple(r.as_of for r in requests if r.report_id is not None),
        rolled_back_on=max(rollbacks, default=None),
        pending=pending,
        paused=work.paused(),
        broken=_broken(work, end),
        matured_since=matured_since,
    )


def _broken(work: UnitOfWork, end: date) -> str | None:
    """What the last check before the end of the window found; an old one says nothing of today."""
    last = next(iter(work.checks(until=end, limit=1)), None)
    if last is None or not last.findings or (end - last.day).days >= BREAK_DAYS:
        return None
    return f"{last.day}: {'; '.join(map(str, last.findings))}"


def _decisions(work: UnitOfWork, champion: VersionRecord) -> list[StoredDecision]:
    """What was decided about the champion, newest window first; a shift of its log odds makes nothing undone."""
    found = [stored for version in kin(work.ledger(), champion.version) for stored in work.decisions(version)]
    return sorted(found, key=lambda stored: stored.report.window.end, reverse=True)


def _request(decision: Decision, champion: str, report_id: str, end: date) -> RetrainRequest:
    return RetrainRequest(
        request_id=f"{end}-{report_id[:8]}",
        as_of=end,
        reason=decision.action.value.removeprefix("retrain: "),
        state=RequestState.WAITING,
        report_id=report_id,
        champion=champion,
    )
