"""One invented letter of each kind, to look at before the first real one comes, and to try a server with.

The morning's outlook is left out: `cancellations scores outlook` makes the real one at any time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from cancellations.domain.comparison import SequencePolicy, Step
from cancellations.domain.digest import Asked, BrokenDay, Champion, Look, Mailed, Tried
from cancellations.domain.events import (
    AliasMoved,
    ApprovalNeeded,
    ChallengerRegistered,
    ChampionChanged,
    Channel,
    DataBroken,
    DigestPublished,
    DriftDetected,
    Fact,
    FlowFailed,
    FlowSilent,
    Message,
    RetrainDue,
    RetrainFailed,
    RetrainOverdue,
    RetrainRejected,
    SignalAlarmed,
    SourceSilent,
    TrialDoubted,
    TrialEnded,
)
from cancellations.domain.guards import BY_GUARD, Guard, GuardFinding, Outcome
from cancellations.domain.promotion import Change, Doubt, Kind, Mode, Trial, TrialState
from cancellations.domain.retraining import (
    ColumnDrift,
    MonitorReport,
    RetrainHistory,
    RetrainPolicy,
    Signal,
    Window,
    decide_retrain,
    judge,
)
from cancellations.ports import Letter, Pictures, StoredDecision

Story = tuple[Fact, StoredDecision | None, Trial | None]
START, END, ENDED = date(2030, 6, 3), date(2030, 6, 30), date(2030, 7, 24)
SAID_AT, ASKED_UNTIL = datetime(2030, 7, 1, 5, 0, tzinfo=UTC), datetime(2030, 7, 28, 5, 0, tzinfo=UTC)
DIGEST = "digest"
WRONG_ARMS = (
    "arms do not have their sizes: of 2,214 bookings dealt 571 (25.8%) are in the challenger's, meant were 30.0%"
)
REQUEST, REPORT, TRIAL = "2030-06-30-sample", "sample-report", "trial-4-9"


def sample_letters(pictures: Pictures, kinds: Collection[str] = ()) -> Mapping[str, Letter]:
    """Letters by a name fit for a file, in the order in which a story would bring them; all, or those of `kinds`."""
    stories, earlier = _stories(), [_decision(calm=0.35 * weeks, weeks_ago=weeks) for weeks in (3, 2, 1)]
    letters = {name: _letter(*stories[name], earlier, pictures) for name in stories if not kinds or name in kinds}
    if not kinds or DIGEST in kinds:
        letters[DIGEST] = _digest(stories, earlier, pictures)
    return letters


def _digest(stories: Mapping[str, Story], earlier: list[StoredDecision], pictures: Pictures) -> Letter:
    """The week of the drift: two mails were kept for it, two came at once."""
    told = {name: _mail(stories[name][0]) for name in ("retrain-overdue", "challenger-registered")}
    others = {name: _mail(stories[name][0]) for name in ("data-broken", "drift-detected")}
    decision, trial = _decision(), _trial(TrialState.RUNNING)
    evidence = decision.report.evidence()
    fact = DigestPublished(
        since=END - timedelta(days=6),
        until=END,
        environment="",
        champion=Champion("3", END - timedelta(days=56), END - timedelta(days=31)),
        report_id=REPORT,
        looks=(Look(END, "3", evidence, decision.decision.action.value),),
        trial=Tried("trial", "running", "3", "4", trial.opened_on, trial.last_day, 0, 0, None, None, None, None),
        requests=(Asked(REQUEST, END, "candidate", "4", decision.decision.action.value),),
        broken=(BrokenDay(END, 214, 1, "price: out of range in 198 of 201 bookings (usually 0.1%)"),),
        silent=(END - timedelta(days=2),),
        booked=742,
        scored=742,
        weekly=tuple(message.id for message in told.values()),
        at_once=tuple(Mailed(message.id, "sent") for message in others.values()),
    )
    letters = tuple(Letter(message) for message in (*told.values(), *others.values()))
    return replace(_letter(fact, decision, None, earlier, pictures), told=letters)


def _mail(fact: Fact) -> Message:
    (message,) = (message for message in fact.messages() if message.channel is Channel.MAIL)
    return message


def _stories() -> Mapping[str, Story]:
    drifted, due, quiet = _decision(), _decision(calm=1.0, age_days=92), _decision(calm=1.0, open_off=True)
    running, asking = _trial(TrialState.RUNNING, days=9), _trial(TrialState.AWAITING)
    won, left = _trial(TrialState.PROMOTED), _trial(TrialState.EXPIRED, days=56, gain=0.004)
    (found,) = won.reasons
    probation = replace(
        won, kind=Kind.PROBATION, champion="4", rival="3", state=TrialState.ROLLED_BACK, serve_share=0.0, epoch=10,
        reasons=(found.replace("challenger 4", "predecessor 3"),),
    )  # fmt: skip
    guarded = GuardFinding(Guard.LEVEL, Outcome.FIRED, -0.412, 200, 20, 0.012, -0.081, 0.105)
    flying = quiet.report.signals[-1]
    return {
        "data-broken": (
            DataBroken(
                END, 214, ("price: out of range in 198 of 201 bookings (usually 0.1%), for example 9450",), held=True
            ),
            None,
            None,
        ),
        "source-silent": (SourceSilent(END - timedelta(days=4), 4, 1), None, None),
        "signal-alarmed": (
            SignalAlarmed(REPORT, "3", START, END, flying.name, flying.before, flying.after, quiet.decision.reasons),
            quiet,
            None,
        ),
        "drift-detected": (DriftDetected(REQUEST, REPORT, "3", START, END, drifted.decision.reasons), drifted, None),
        "retrain-due": (RetrainDue(REQUEST, REPORT, "3", START, END, due.decision.reasons), due, None),
        "retrain-rejected": (
            RetrainRejected(REQUEST, "3", END, ("refused: not better than champion 3 on 2,310 bookings",)),
            None,
            None,
        ),
        "retrain-failed": (
            RetrainFailed(REQUEST, "3", END, ("attempt 3 of 3: MLflow does not answer at http://mlflow:5000",)),
            None,
            None,
        ),
        "retrain-overdue": (
            RetrainOverdue(REQUEST, "3", END, SAID_AT, 64, ("no worker has taken it since 2030-07-01 05:00 UTC",)),
            None,
            None,
        ),
        "flow-failed": (
            FlowFailed(
                "ingest",
                "0f8fad5b-d9cb-469f-a165-70867728950e",
                "ingest 2030-07-01",
                "Failed",
                "BadInput: bookings.csv has no column 'adr'",
                SAID_AT,
            ),
            None,
            None,
        ),
        "flow-silent": (FlowSilent("score", SAID_AT - timedelta(hours=3), 3), None, None),
        "challenger-registered": (
            ChallengerRegistered(REQUEST, "4", "3", END, ("passed: better than champion 3 by .0171 a booking",), TRIAL),
            None,
            running,
        ),
        "approval-needed": (
            ApprovalNeeded(TRIAL, "3", "4", ENDED, ASKED_UNTIL, asking.reasons),
            None,
            replace(asking, asked_until=ASKED_UNTIL),
        ),
        "trial-doubted": (
            TrialDoubted(TRIAL, "trial", Doubt.ARMS.value, "3", "4", ENDED, (WRONG_ARMS,)),
            None,
            running,
        ),
        "trial-ended": (
            TrialEnded(TRIAL, "trial", left.state.value, "3", "4", left.last_day, left.reasons),
            None,
            left,
        ),
        "promoted": (
            ChampionChanged("4", "3", 10, ENDED, Change.PROMOTED.value, found, "the trial", TRIAL, won.reasons),
            None,
            won,
        ),
        "rolled-back": (
            ChampionChanged(
                "3",
                "4",
                11,
                ENDED,
                Change.ROLLED_BACK.value,
                "predecessor 3 is better",
                "the probation",
                TRIAL,
                probation.reasons,
            ),
            None,
            probation,
        ),
        "rolled-back-by-guard": (
            ChampionChanged(
                "3", "4", 11, ENDED, Change.ROLLED_BACK.value, str(guarded), BY_GUARD, TRIAL, (str(guarded),)
            ),
            None,
            replace(probation, evidence=(), decided_on=None, reasons=(str(guarded),)),
        ),
        "alias-moved": (
            AliasMoved(
                "champion",
                "3",
                "5",
                11,
                SAID_AT,
                (
                    "alias 'champion' was moved from version 3 to version 5 in MLflow",
                    "put back: the ledger says who serves",
                ),
            ),
            None,
            None,
        ),
        "promoted-by-hand": (
            ChampionChanged("4", "3", 10, ENDED, Change.PROMOTED.value, "a new price list", "Ada"),
            None,
            None,
        ),
    }


def _letter(
    fact: Fact, decision: StoredDecision | None, trial: Trial | None, earlier: list[StoredDecision], pictures: Pictures
) -> Letter:
    message = _mail(fact)
    picture = None
    if decision is not None:
        picture = pictures.drift(decision, earlier)
    elif trial is not None and trial.evidence:
        picture = pictures.trial(trial)
    return Letter(message, decision, trial, picture)


def _decision(*, calm: float = 0.0, weeks_ago: int = 0, age_days: int = 56, open_off: bool = False) -> StoredDecision:
    """A look, as the monitor's own rule decides on it; the calmer, the less has changed."""
    columns = tuple(
        ColumnDrift(name, method, score / (1 + calm), threshold, score / (1 + calm) >= threshold, weight, before, after)
        for name, method, score, threshold, weight, before, after in (
            ("lead_days", "wasserstein", 0.62, 0.3, 0.31, "median 41", "median 74"),
            ("deposit_type", "jensenshannon", 0.13, 0.1, 0.37, "No Deposit 88%", "No Deposit 97%"),
            ("price", "wasserstein", 0.48, 0.3, 0.04, "median 92", "median 118"),
            ("market_segment", "jensenshannon", 0.08, 0.1, 0.12, "Online TA 51%", "Online TA 60%"),
        )
    )
    drifted = sum(c.weight for c in columns if c.drifted) / sum(c.weight for c in columns)
    loss = 0.031 / (1 + 3 * calm)
    z = 6.2 if open_off else 2.1
    signals = (
        _signal("column drift", drifted, 0.5, 1.0, 2_940),
        _signal("domain classifier", 0.91 - 0.04 * calm, 0.9, 1.0, 2_940),
        _signal("matured excess loss", loss, 0.02, 2.0, 4_120),
        replace(
            _signal("in-flight cancellations", z, 5.0, 0.0, 1_480),
            before="online: 27.3% predicted to be cancelled",
            after=f"{0.273 + z / 140:.1%} expected by now, more than foretold",
            mailed=True,
        ),
    )
    back = timedelta(weeks=weeks_ago)
    history = RetrainHistory(END - timedelta(days=age_days), evidence=(0.0, 1.0), matured_since=4_120)
    decision = decide_retrain(signals, history, RetrainPolicy(), END - back)
    report = MonitorReport("3", Window(START - back, END - back), 2_940, 5_000, signals, columns)
    return StoredDecision(f"{REPORT}-{weeks_ago}", report, decision, REQUEST, SAID_AT - back)


def _signal(name: str, value: float, threshold: float, weight: float, rows: int) -> Signal:
    return Signal(name, value, threshold, judge(value, threshold), weight, rows)


def _trial(state: TrialState, *, days: int = 24, gain: float = 0.0214) -> Trial:
    """Version 4 against champion 3: bounds that close in, from the end of burn-in on."""
    policy = SequencePolicy()
    steps = []
    for n in range(1, days + 1):
        width = 0.1 / math.sqrt(n) if n >= policy.burn_in_days else None
        seen = gain + 0.03 * math.cos(n) / n
        low, high = (None, None) if width is None else (seen - width, seen + width)
        steps.append(Step(END + timedelta(days=n), 184 * n, seen, low, high))
    last = steps[-1]
    bounds = "" if last.low is None or last.high is None else f", {last.low:+.4f} to {last.high:+.4f}"
    better = "neither is better yet" if last.low is None or last.low <= 0 else "challenger 4 is better"
    told = f"{better}: {last.gain:+.4f} a booking{bounds}, on {last.bookings:,} bookings of {days} days"
    return Trial(
        TRIAL, Kind.TRIAL, "3", "4", 9, END, END, END + timedelta(days=56), Mode.AUTO, 0.3, policy, REQUEST, state,
        decided_on=None if state is TrialState.RUNNING else last.day, reasons=(told,), evidence=tuple(steps),
    )  # fmt: skip
