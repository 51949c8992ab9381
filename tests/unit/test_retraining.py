"""When a champion is retrained: confirmation, calendar floor, and the rules that hold it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.retraining import (
    Action,
    Decision,
    MonitorReport,
    RetrainHistory,
    RetrainPolicy,
    Signal,
    Verdict,
    Window,
    decide_retrain,
    judge,
)
from cancellations.settings import MonitorSettings

POLICY = RetrainPolicy(
    evidence_needed=0.5,
    confirm_k=2,
    confirm_n=3,
    calendar_floor_days=91,
    cooldown_days=28,
    budget=2,
    budget_days=365,
    min_new_labels=400,
)
TODAY = date(2016, 9, 1)
YOUNG = TODAY - timedelta(days=30)
OLD = TODAY - timedelta(days=91)


def signal(verdict: Verdict, weight: float = 1.0, name: str = "column drift") -> Signal:
    value = {Verdict.ALARM: 0.9, Verdict.WATCH: 0.48, Verdict.OK: 0.1, Verdict.NOT_EVALUATED: None}[verdict]
    why = "too few rows" if value is None else ""
    return Signal(name, value, 0.5, verdict, weight, rows=500, why=why)


def at_threshold(alarm: Signal) -> Signal:
    return replace(alarm, value=alarm.threshold)


def judged(value: float | None, threshold: float) -> Verdict:
    return Verdict.NOT_EVALUATED if value is None else judge(value, threshold)


def report(*signals: Signal) -> MonitorReport:
    return MonitorReport("3", Window(TODAY - timedelta(days=27), TODAY), 500, 5_000, signals)


DRIFTED = report(signal(Verdict.ALARM))
CALM = report(signal(Verdict.OK))
UNKNOWN = report(signal(Verdict.NOT_EVALUATED))


def decide(
    now: MonitorReport, evidence: Sequence[float | None] = (), trained: date = YOUNG, **history: Any
) -> Decision:
    known = {"matured_since": POLICY.min_new_labels} | history
    return decide_retrain(now.signals, RetrainHistory(trained, tuple(evidence), **known), POLICY, TODAY)


@pytest.mark.parametrize(
    ("now", "earlier", "action"),
    [
        (DRIFTED, (), Action.NONE),  # one window confirms nothing
        (DRIFTED, (0.0, 0.0), Action.NONE),
        (DRIFTED, (1.0,), Action.RETRAIN_DRIFT),
        (DRIFTED, (1.0, 0.0), Action.RETRAIN_DRIFT),  # two of three, the last one among them
        (DRIFTED, (1.0, 0.0, 0.0), Action.NONE),  # the other one is too long ago
        (CALM, (1.0, 1.0), Action.NONE),  # two of three, but it has passed
        (DRIFTED, (0.5, 0.0), Action.RETRAIN_DRIFT),  # the threshold itself counts
        (DRIFTED, (0.49, 0.49), Action.NONE),
        (DRIFTED, (None, None), Action.NONE),  # not evaluated is no drift, and no calm either
        (DRIFTED, (1.0, None), Action.RETRAIN_DRIFT),
        (UNKNOWN, (1.0, 1.0), Action.NONE),
    ],
)
def test_drift_needs_k_of_the_last_n_windows_and_the_last_one(
    now: MonitorReport, earlier: Sequence[float | None], action: Action
) -> None:
    assert decide(now, earlier).action is action


def test_a_champion_past_its_calendar_floor_is_retrained_without_drift() -> None:
    assert decide(CALM, trained=OLD).action is Action.RETRAIN_CALENDAR
    assert decide(CALM, trained=OLD + timedelta(days=1)).action is Action.NONE


def test_the_calendar_floor_holds_when_nothing_could_be_evaluated() -> None:
    assert decide(UNKNOWN, trained=OLD).action is Action.RETRAIN_CALENDAR


def test_confirmed_drift_of_an_old_champion_is_called_drift() -> None:
    assert decide(DRIFTED, (1.0,), trained=OLD).action is Action.RETRAIN_DRIFT


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ({"paused": "stocktaking"}, "paused (stocktaking)"),
        ({"pending": "request 7"}, "request 7 has not ended"),
        ({"requested_on": (TODAY - timedelta(days=27),)}, "last request 2016-08-05, cooldown 28 days"),
        ({"rolled_back_on": TODAY - timedelta(days=27)}, "rolled back on 2016-08-05, cooldown 28 days"),
        (
            {"requested_on": (TODAY - timedelta(days=364), TODAY - timedelta(days=100))},
            "2 requests in 365 days, the budget is 2",
        ),
        ({"matured_since": 399}, "399 new outcomes are too few to learn from, of 400"),
    ],
)
@pytest.mark.parametrize(("now", "trained"), [(DRIFTED, YOUNG), (CALM, OLD)])
def test_a_rule_holds_back_what_would_be_retrained_and_says_so(
    now: MonitorReport, trained: date, history: dict[str, Any], told: str
) -> None:
    decision = decide(now, (1.0,), trained, **history)
    assert decision.action is Action.HOLD
    assert told in decision.reasons[-1]


@pytest.mark.parametrize(
    "history",
    [
        {"requested_on": (TODAY - timedelta(days=28),)},  # the cooldown has passed
        {"rolled_back_on": TODAY - timedelta(days=28)},
        {"requested_on": (TODAY - timedelta(days=365), TODAY - timedelta(days=100))},  # the budget's period has
        {"matured_since": 400},
        {"matured_since": None},  # nobody counted
    ],
)
def test_limits_end_where_they_say(history: dict[str, Any]) -> None:
    assert decide(DRIFTED, (1.0,), **history).action is Action.RETRAIN_DRIFT


def test_a_rollback_cools_down_from_its_own_day_however_long_ago_its_request_was() -> None:
    decision = decide(DRIFTED, (1.0,), requested_on=(TODAY - timedelta(days=60),), rolled_back_on=TODAY)
    assert decision.action is Action.HOLD
    assert decision.reasons[-1] == f"held: rolled back on {TODAY}, cooldown 28 days"


def test_there_is_nothing_to_hold_without_a_reason_to_retrain() -> None:
    assert decide(CALM, paused="stocktaking", pending="request 7").action is Action.NONE


def test_every_decision_tells_evidence_confirmation_age_and_what_is_new() -> None:
    evidence, confirmation, age, news = decide(DRIFTED, (1.0,), matured_since=1_234).reasons
    assert "column drift 0.900 >= 0.5" in evidence
    assert confirmation.startswith("2 of the last 2 windows drifted")
    assert age == "champion is 30 days old (calendar floor: 91)"
    assert news == "1,234 outcomes became final since it was trained (needed: 400)"
    assert decide(CALM, matured_since=3).reasons[-1].startswith("3 outcomes became final")
    assert decide(CALM, matured_since=None).reasons[-1].endswith("since it was trained is not known")


def test_an_unevaluated_window_tells_why() -> None:
    assert decide(UNKNOWN).reasons[0] == "no signal could be evaluated (column drift: too few rows)"


def test_evidence_is_the_weight_of_alarms_among_all_signals() -> None:
    alarm, calm = at_threshold(signal(Verdict.ALARM, 1.5, "loss")), signal(Verdict.WATCH, 1.0)
    assert report(alarm, calm).evidence() == pytest.approx(0.6)
    assert report(alarm, calm, signal(Verdict.NOT_EVALUATED, 0.5, "classifier")).evidence() == pytest.approx(0.5)
    assert UNKNOWN.evidence() is None
    assert report().evidence() is None


def test_an_alarm_counts_more_the_further_it_is_beyond_its_threshold_up_to_a_limit() -> None:
    strengths = [replace(DRIFTED.signals[0], value=value).strength for value in (0.5, 0.6, 0.75, 50.0)]
    assert strengths == pytest.approx([1.0, 1.2, 1.5, 1.5])
    assert [s.strength for s in (*CALM.signals, *UNKNOWN.signals, signal(Verdict.WATCH))] == [0, 0, 0]


@pytest.mark.parametrize(
    ("columns", "classifier", "loss", "drifted"),
    [
        (1.0, 1.0, 0.019, False),  # every column and the classifier, and no harm
        (0.0, 0.5, 0.020, False),  # a loss at its threshold alone
        (0.0, 0.5, 0.030, True),  # a loss well beyond it alone
        (0.5, 0.5, 0.020, True),  # a loss with one of the others
        (0.0, 0.9, 0.020, True),
        (1.0, 1.0, None, False),  # no loss to be told yet
    ],
)
def test_by_default_a_window_drifts_by_loss_and_another_or_by_much_loss(
    columns: float, classifier: float, loss: float | None, drifted: bool
) -> None:
    settings = MonitorSettings()
    thresholds = (settings.column_drift, settings.classifier_auc, settings.excess_loss)
    signals = [
        Signal(name, value, threshold, judged(value, threshold), settings.weights[name], 2_000)
        for name, value, threshold in zip(settings.weights, (columns, classifier, loss), thresholds, strict=True)
    ]
    evidence = report(*signals).evidence()
    assert evidence is not None
    assert (evidence >= RetrainPolicy().evidence_needed) is drifted


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.5, Verdict.ALARM), (0.6, Verdict.ALARM), (0.45, Verdict.WATCH), (0.44, Verdict.OK), (-1.0, Verdict.OK)],
)
def test_a_signal_watches_from_nine_tenths_and_alarms_from_its_threshold(value: float, verdict: Verdict) -> None:
    assert judge(value, 0.5) is verdict


@given(
    st.sampled_from([DRIFTED, CALM, UNKNOWN]),
    st.lists(st.none() | st.floats(0, 1), max_size=5),
    st.dates(TODAY - timedelta(days=200), TODAY),
    st.lists(st.dates(TODAY - timedelta(days=500), TODAY), max_size=4),
    st.none() | st.dates(TODAY - timedelta(days=60), TODAY),
    st.none() | st.just("request 7"),
    st.none() | st.just("stocktaking"),
    st.none() | st.integers(0, 800),
)
def test_nothing_is_retrained_while_paused_pending_cooling_over_budget_or_without_news(
    now: MonitorReport,
    evidence: list[float | None],
    trained: date,
    requested_on: list[date],
    rolled_back_on: date | None,
    pending: str | None,
    paused: str | None,
    matured_since: int | None,
) -> None:
    history = RetrainHistory(
        trained,
        tuple(evidence),
        tuple(requested_on),
        rolled_back_on=rolled_back_on,
        pending=pending,
        paused=paused,
        matured_since=matured_since,
    )
    decision = decide_retrain(now.signals, history, POLICY, TODAY)
    if decision.action.retrains:
        assert pending is None
        assert paused is None
        assert all((TODAY - d).days >= POLICY.cooldown_days for d in requested_on)
        assert rolled_back_on is None or (TODAY - rolled_back_on).days >= POLICY.cooldown_days
        assert sum((TODAY - d).days < POLICY.budget_days for d in requested_on) < POLICY.budget
        assert matured_since is None or matured_since >= POLICY.min_new_labels
    free = replace(history, requested_on=(), rolled_back_on=None, pending=None, paused=None, matured_since=None)
    held = decide_retrain(now.signals, free, POLICY, TODAY).action.retrains and not decision.action.retrains
    assert (decision.action is Action.HOLD) is held
