"""Who becomes champion: what a reading means, when a trial ends, and whom a rollback goes back to."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cancellations.domain.comparison import Day, Finding, Reading, SequencePolicy, Step, read
from cancellations.domain.promotion import (
    TRANSITIONS,
    Change,
    Doubt,
    Doubted,
    Kind,
    LedgerRow,
    Mode,
    Standing,
    Trial,
    TrialPolicy,
    TrialState,
    best_case,
    open_probation,
    open_trial,
    predecessor,
    replacement,
    rule_on,
)
from cancellations.errors import BadInput
from cancellations.settings import load

OPENED = date(2016, 6, 20)
TRAINED = {"1": date(2016, 5, 2), "2": date(2016, 6, 20)}
POLICY = TrialPolicy(max_days=56, probation_days=42)
CHALLENGED = Standing(champion="1", challenger="2", epoch=4)
HELD = "version 7 was rolled back on 2016-06-01"


def running(kind: Kind, mode: Mode = Mode.AUTO) -> Trial:
    """Version 1 serves; version 2 is the challenger, or the champion before it."""
    policy = TrialPolicy(mode=mode)
    if kind is Kind.TRIAL:
        return open_trial(CHALLENGED, TRAINED, OPENED, "request-7", policy)
    return open_probation(Standing("1", None, 5), "2", TRAINED, OPENED, policy)


def reading(finding: Finding, days: int = 14) -> Reading:
    middle = {Finding.RIVAL: 0.0213, Finding.CHAMPION: -0.0213, Finding.OPEN: 0.0001}[finding]
    steps = []
    for n in range(1, days + 1):
        low, high = (None, None) if n < 14 else (middle - 0.02, middle + 0.02)
        steps.append(Step(OPENED + timedelta(days=n), 99 * n, middle, low, high))
    return Reading(finding, tuple(steps))


# --- what a reading means -------------------------------------------------------------------------

# Every way in which a rival that is better can end; by kind, mode and whether promotions need a person.
BETTER: Mapping[tuple[Kind, Mode, bool], TrialState] = {
    (Kind.TRIAL, Mode.AUTO, False): TrialState.PROMOTED,
    (Kind.TRIAL, Mode.AUTO, True): TrialState.AWAITING,
    (Kind.TRIAL, Mode.APPROVE, False): TrialState.AWAITING,
    (Kind.TRIAL, Mode.APPROVE, True): TrialState.AWAITING,
    (Kind.TRIAL, Mode.SHADOW, False): TrialState.WITHHELD,
    (Kind.TRIAL, Mode.SHADOW, True): TrialState.WITHHELD,
    (Kind.PROBATION, Mode.AUTO, False): TrialState.ROLLED_BACK,
    (Kind.PROBATION, Mode.AUTO, True): TrialState.ROLLED_BACK,
    (Kind.PROBATION, Mode.APPROVE, False): TrialState.ROLLED_BACK,
    (Kind.PROBATION, Mode.APPROVE, True): TrialState.ROLLED_BACK,
    (Kind.PROBATION, Mode.SHADOW, False): TrialState.ROLLED_BACK,
    (Kind.PROBATION, Mode.SHADOW, True): TrialState.ROLLED_BACK,
}
WORSE = {Kind.TRIAL: TrialState.REJECTED, Kind.PROBATION: TrialState.CONFIRMED}


@pytest.mark.parametrize("held", [None, HELD], ids=["free", "held"])
@pytest.mark.parametrize("finding", Finding, ids=lambda f: f.name)
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("kind", Kind)
def test_each_reading_has_one_ruling_and_only_a_missing_answer_depends_on_the_day(
    kind: Kind, mode: Mode, finding: Finding, held: str | None
) -> None:
    trial = running(kind, mode)
    for late in (-40, -1, 0, 1, 30):
        today = trial.last_day + timedelta(days=late)
        missing = TrialState.RUNNING if late < 0 else TrialState.EXPIRED
        due = {
            Finding.RIVAL: BETTER[kind, mode, held is not None],
            Finding.CHAMPION: WORSE[kind],
            Finding.OPEN: missing,
        }
        ruling = rule_on(trial, reading(finding), today, held)
        assert ruling.state is due[finding]
        assert ruling.state in TRANSITIONS[kind][TrialState.RUNNING] | {TrialState.RUNNING}
        assert rule_on(trial, reading(finding), today, held) == ruling


@pytest.mark.parametrize(("kind", "days"), [(Kind.TRIAL, 56), (Kind.PROBATION, 42)])
def test_without_an_answer_it_expires_on_its_last_day_and_not_before(kind: Kind, days: int) -> None:
    trial = running(kind)
    for none in (Reading(Finding.OPEN), reading(Finding.OPEN, 3), reading(Finding.OPEN, 40)):
        assert rule_on(trial, none, OPENED + timedelta(days=days - 1), None).state is TrialState.RUNNING
        expired = rule_on(trial, none, OPENED + timedelta(days=days), None)
        assert expired.state is TrialState.EXPIRED
        assert expired.reasons[-1] == f"no answer by {OPENED + timedelta(days=days)}; champion 1 stays"


# --- a newer challenger ---------------------------------------------------------------------------


def read_so_far(gains: list[float], kind: Kind = Kind.TRIAL, **changes: Any) -> Trial:
    """A trial that has read these daily sums of gain, of 100 bookings each."""
    trial = running(kind)
    days = [Day(OPENED + timedelta(days=n + 1), 100, gain) for n, gain in enumerate(gains)]
    return replace(trial, evidence=read(days, trial.sequence).steps, **changes)


def alternating(mean: float, days: int, spread: float = 3.0) -> list[float]:
    return [mean + spread * (-1) ** n for n in range(days)]


NEWER = OPENED + timedelta(days=28)
LOST = alternating(-1.5, 20)


@pytest.mark.parametrize(
    ("trial", "newer", "days", "why"),
    [
        (read_so_far(LOST), NEWER, 28, None),
        (read_so_far(LOST), NEWER - timedelta(days=1), 28, "27 days newer than challenger 2, and 28 are needed"),
        (read_so_far(LOST), NEWER, 0, "never replaced, by the settings"),
        (read_so_far(LOST[:13]), NEWER, 28, "burn-in: nothing is known yet"),
        (read_so_far([]), NEWER, 28, "burn-in: nothing is known yet"),
        (read_so_far(alternating(0.0, 20)), NEWER, 28, "may still be won by 2016-08-15"),
        (read_so_far(LOST, state=TrialState.AWAITING), NEWER, 28, "has its answer: it is awaiting approval"),
        (read_so_far(LOST, Kind.PROBATION), NEWER, 28, "to take a promotion back, and is not replaced"),
    ],
)
def test_a_newer_challenger_replaces_one_that_cannot_win_any_more_and_no_other(
    trial: Trial, newer: date, days: int, why: str | None
) -> None:
    found = replacement(trial, OPENED, newer, days)
    assert found.allowed is (why is None)
    assert (why or "challenger 2 cannot win by 2016-08-15 any more") in found.reason


@given(st.floats(-4, 4), st.integers(14, 55), st.floats(0.1, 10))
def test_a_trial_that_is_given_up_would_not_be_won_by_gaining_all_that_its_upper_bound_allows(
    mean: float, days: int, spread: float
) -> None:
    trial = read_so_far(alternating(mean, days, spread))
    if len(trial.evidence) < days:  # it has been decided
        return
    last = trial.evidence[-1]
    best = best_case(trial)
    assert last.high is not None and best is not None
    left = (trial.last_day - last.day).days
    # As unlike each other as the days before, and never ahead of what is allowed.
    hoped = [last.high * 100 - gain for gain in alternating(0.0, left, spread)]
    gains = enumerate([*alternating(mean, days, spread), *hoped], start=1)
    if best <= 0:
        hopeful = [Day(OPENED + timedelta(days=n), 100, gain) for n, gain in gains]
        assert read(hopeful, trial.sequence).finding is not Finding.RIVAL
    if last.high <= 0:
        assert best < 0


ARMS = Doubted(Doubt.ARMS, "arms do not have their sizes: of 400 bookings dealt 100 are in the challenger's")


def test_a_doubt_is_told_at_once_and_keeps_every_finding_from_promoting_by_itself() -> None:
    for kind, mode, finding in product(Kind, Mode, Finding):
        plain = rule_on(running(kind, mode), reading(finding), OPENED, None)
        doubted = rule_on(running(kind, mode), reading(finding), OPENED, None, [ARMS])
        assert doubted.reasons[1] == ARMS.found
        if plain.state is TrialState.PROMOTED:
            assert doubted.state is TrialState.AWAITING
            assert doubted.reasons[-1] == f"promotions need a person: {ARMS.found}"
        else:
            assert doubted.state is plain.state and doubted.reasons == (
                plain.reasons[0],
                ARMS.found,
                *plain.reasons[1:],
            )


def test_a_rollback_needs_no_person_whatever_the_mode_and_whatever_is_held() -> None:
    for mode, held in product(Mode, (None, HELD)):
        assert rule_on(running(Kind.PROBATION, mode), reading(Finding.RIVAL), OPENED, held).state is (
            TrialState.ROLLED_BACK
        )


def test_nothing_is_promoted_without_a_person_while_promotions_are_held() -> None:
    for kind, mode, finding in product(Kind, Mode, Finding):
        assert rule_on(running(kind, mode), reading(finding), OPENED, HELD).state is not TrialState.PROMOTED


@pytest.mark.parametrize(
    ("kind", "mode", "finding", "held", "told"),
    [
        (Kind.TRIAL, Mode.AUTO, Finding.RIVAL, None, ("challenger 2 is better",)),
        (Kind.TRIAL, Mode.AUTO, Finding.RIVAL, HELD, ("challenger 2 is better", f"promotions need a person: {HELD}")),
        (Kind.TRIAL, Mode.APPROVE, Finding.RIVAL, None, ("challenger 2 is better", "mode approve: a person is asked")),
        (
            Kind.TRIAL,
            Mode.SHADOW,
            Finding.RIVAL,
            None,
            ("challenger 2 is better", "mode shadow: promotion is left to a person"),
        ),
        (Kind.TRIAL, Mode.AUTO, Finding.CHAMPION, None, ("champion 1 is better",)),
        (Kind.PROBATION, Mode.AUTO, Finding.RIVAL, None, ("its predecessor 2 is better",)),
        (Kind.PROBATION, Mode.AUTO, Finding.CHAMPION, None, ("champion 1 is better",)),
        (Kind.TRIAL, Mode.AUTO, Finding.OPEN, None, ()),
    ],
)
def test_reasons_tell_what_was_read_then_what_it_means(
    kind: Kind, mode: Mode, finding: Finding, held: str | None, told: tuple[str, ...]
) -> None:
    gain, bounds = {
        Finding.RIVAL: ("+0.0213", "+0.0013 to +0.0413"),
        Finding.CHAMPION: ("-0.0213", "-0.0413 to -0.0013"),
        Finding.OPEN: ("+0.0001", "-0.0199 to +0.0201"),
    }[finding]
    read = (
        "1,386 bookings that matured on 14 days until 2016-07-04:"
        f" version 2 saves {gain} log loss per booking against 1, bounds {bounds} (alpha 0.05)"
    )
    assert rule_on(running(kind, mode), reading(finding), OPENED, held).reasons == (read, *told)


def test_reasons_say_when_there_is_nothing_to_read_yet() -> None:
    trial = running(Kind.TRIAL)
    (nothing,) = rule_on(trial, Reading(Finding.OPEN), OPENED, None).reasons
    assert nothing == "no booking has matured after 2016-06-20"
    (early,) = rule_on(trial, reading(Finding.OPEN, 1), OPENED, None).reasons
    assert early == (
        "99 bookings that matured on 1 day until 2016-06-21: version 2 saves +0.0001 log loss per booking against 1"
        " (no bounds before 14 days)"
    )


def test_a_state_is_final_when_nothing_follows_it_and_every_state_can_be_reached() -> None:
    reached = {state for moves in TRANSITIONS.values() for after in moves.values() for state in after}
    assert reached == set(TrialState) - {TrialState.RUNNING}
    leaves = {state for moves in TRANSITIONS.values() for state in moves}
    assert {state for state in TrialState if state.final} == set(TrialState) - leaves


# --- what is opened -------------------------------------------------------------------------------

SPAN = st.dates(date(2015, 1, 1), date(2018, 1, 1))
POLICIES = st.builds(
    TrialPolicy,
    mode=st.sampled_from(Mode),
    serve_share=st.floats(0, 1),
    max_days=st.integers(28, 100),
    probation_days=st.integers(28, 100),
    sequence=st.builds(SequencePolicy, alpha=st.floats(0.001, 0.4), burn_in_days=st.integers(14, 28)),
)


@given(SPAN, SPAN, SPAN, POLICIES)
def test_a_trial_reads_days_after_both_trainings_by_the_rules_of_the_day_it_was_opened(
    one: date, other: date, opened: date, policy: TrialPolicy
) -> None:
    trial = open_trial(CHALLENGED, {"1": one, "2": other}, opened, "request-7", policy)
    assert trial.cohort_after == max(one, other)
    assert (trial.kind, trial.champion, trial.rival, trial.epoch) == (Kind.TRIAL, "1", "2", 4)
    assert (trial.opened_on, trial.last_day) == (opened, opened + timedelta(days=policy.max_days))
    assert (trial.mode, trial.sequence, trial.request_id) == (policy.mode, policy.sequence, "request-7")
    assert trial.serve_share == (0 if policy.mode is Mode.SHADOW else policy.serve_share)
    assert (trial.state, trial.evidence, trial.reasons) == (TrialState.RUNNING, (), ())


@given(SPAN, SPAN, SPAN, POLICIES)
def test_a_probation_reads_days_after_the_promotion_and_both_trainings_and_serves_the_champion_alone(
    one: date, other: date, opened: date, policy: TrialPolicy
) -> None:
    trial = open_probation(Standing("2", None, 5), "1", {"1": one, "2": other}, opened, policy)
    assert trial.cohort_after == max(opened, one, other)
    assert (trial.kind, trial.champion, trial.rival, trial.epoch) == (Kind.PROBATION, "2", "1", 5)
    assert (trial.opened_on, trial.last_day) == (opened, opened + timedelta(days=policy.probation_days))
    assert (trial.mode, trial.sequence, trial.serve_share) == (policy.mode, policy.sequence, 0)
    assert trial.state is TrialState.RUNNING


def test_a_pair_that_meets_again_gets_a_trial_of_its_own() -> None:
    again = Standing("1", "2", 9)
    ids = {open_trial(standing, TRAINED, OPENED, None, POLICY).trial_id for standing in (CHALLENGED, again)}
    ids |= {open_probation(standing, "2", TRAINED, OPENED, POLICY).trial_id for standing in (CHALLENGED, again)}
    assert len(ids) == 4


def test_a_trial_reads_as_the_pair_that_it_compares() -> None:
    assert str(running(Kind.TRIAL)) == "the trial of challenger 2 against champion 1"
    assert str(running(Kind.PROBATION)) == "the probation of champion 1 against its predecessor 2"


@pytest.mark.parametrize("standing", [Standing(None, None, 0), Standing("1", None, 1), Standing(None, "2", 1)])
def test_a_trial_without_one_of_the_pair_is_refused(standing: Standing) -> None:
    with pytest.raises(ValueError, match="a trial needs a champion and a challenger, not Standing"):
        open_trial(standing, TRAINED, OPENED, None, POLICY)


@pytest.mark.parametrize("standing", [Standing(None, None, 0), Standing("1", None, 3)])
def test_a_probation_without_another_version_before_is_refused(standing: Standing) -> None:
    with pytest.raises(ValueError, match="a probation needs a champion and another one before it, not Standing"):
        open_probation(standing, "1", TRAINED, OPENED, POLICY)


# --- whom a rollback goes back to -----------------------------------------------------------------


def row(change: Change, champion: str | None, challenger: str | None = None, epoch: int = 1) -> LedgerRow:
    recorded_at = datetime(2016, 6, 20, tzinfo=UTC)
    return LedgerRow(epoch, champion, challenger, change, "why", "who", None, None, OPENED, recorded_at)


class AnyLedger(RuleBasedStateMachine):
    """Versions come, go and come again, by trials and by people; the model knows ranks, and who is out.

    To go back to is the one promoted last among those that serve no longer and were not rolled back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger: list[LedgerRow] = []
        self.champion = ""
        self.rank: dict[str, int] = {}
        self.out: set[str] = set()

    def write(self, change: Change, champion: str, challenger: str | None = None) -> None:
        self.champion = champion
        self.ledger.append(row(change, champion, challenger, len(self.ledger) + 1))

    @initialize()
    def begin(self) -> None:
        self.write(Change.FIRST, "1")
        self.rank["1"] = 1

    @rule(version=st.sampled_from("123456"))
    def promote(self, version: str) -> None:
        if version != self.champion:
            self.write(Change.PROMOTED, version)
            self.rank[version] = len(self.ledger)
            self.out.discard(version)

    @precondition(lambda self: len(self.rank) > 1)
    @rule(data=st.data())
    def roll_back_to_any_earlier_champion(self, data: st.DataObject) -> None:
        self.roll_back(data.draw(st.sampled_from(sorted(self.rank.keys() - {self.champion}))))

    @precondition(lambda self: predecessor(self.ledger) is not None)
    @rule()
    def roll_back_to_the_one_before(self) -> None:
        self.roll_back(predecessor(self.ledger) or "")

    def roll_back(self, target: str) -> None:
        if target in self.out:
            self.out = (self.out | {self.champion}) - {target}
            self.rank[target] = len(self.ledger) + 1
        else:
            self.out |= {version for version, rank in self.rank.items() if rank > self.rank[target]}
        self.write(Change.ROLLED_BACK, target)

    @rule(challenger=st.sampled_from("789"))
    def a_challenger_comes(self, challenger: str) -> None:
        self.write(Change.CHALLENGED, self.champion, challenger)

    @rule()
    def a_challenger_leaves(self) -> None:
        self.write(Change.LEFT, self.champion)

    @invariant()
    def the_one_to_go_back_to_is_the_models(self) -> None:
        inside = self.rank.keys() - self.out - {self.champion}
        assert predecessor(self.ledger) == max(inside, key=self.rank.__getitem__, default=None)

    @invariant()
    def it_neither_serves_nor_was_rolled_back_since_it_was_promoted(self) -> None:
        assert predecessor(self.ledger) not in self.out | {self.champion}

    @invariant()
    def challengers_change_nothing(self) -> None:
        without = [r for r in self.ledger if r.change not in (Change.CHALLENGED, Change.LEFT)]
        assert predecessor(without) == predecessor(self.ledger)


AnyLedger.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestWhomARollbackGoesBackTo = AnyLedger.TestCase


@pytest.mark.parametrize(
    ("changes", "before"),
    [
        ("", None),
        ("first 1", None),
        ("first 1, promoted 2", "1"),
        ("first 1, promoted 2, promoted 3", "2"),
        ("first 1, promoted 2, rolled back 1", None),
        ("first 1, promoted 2, rolled back 1, promoted 3", "1"),
        ("first 1, promoted 2, promoted 3, rolled back 1", None),
        ("first 1, promoted 2, promoted 3, rolled back 2", "1"),
        ("first 1, promoted 2, rolled back 1, promoted 2", "1"),
        # Version 2 served before version 1 did, and was rolled back since.
        ("first 2, promoted 1, promoted 2, rolled back 1", None),
        # A person wants version 2 after all, because version 1 is worse.
        ("first 1, promoted 2, rolled back 1, rolled back 2", None),
        ("first 3, promoted 1, promoted 2, rolled back 1, rolled back 2", "3"),
    ],
)
def test_a_rollback_goes_back_to_the_champion_before_that_was_not_rolled_back(changes: str, before: str | None) -> None:
    named = {"first": Change.FIRST, "promoted": Change.PROMOTED, "rolled back": Change.ROLLED_BACK}
    told = [change.rpartition(" ") for change in changes.split(", ") if change]
    assert predecessor([row(named[change], version) for change, _, version in told]) == before


# --- policies that make no sense ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"serve_share": -0.1}, "serve_share is -0.1; it is a share, from 0 to 1"),
        ({"serve_share": 1.5}, "serve_share is 1.5;"),
        ({"serve_share": math.nan}, "serve_share is nan;"),
        ({"max_days": 13}, "max_days is 13; the test says nothing before 14 days"),
        ({"probation_days": 13}, "probation_days is 13; the test says nothing before 14 days"),
        ({"sequence": SequencePolicy(burn_in_days=43)}, "probation_days is 42; the test says nothing before 43 days"),
        ({"approval_hours": 0.0}, "approval_hours is 0; somebody needs time to answer"),
        ({"approval_hours": -1.0}, "approval_hours is -1;"),
        ({"approval_hours": math.nan}, "approval_hours is nan;"),
        ({"approval_hours": math.inf}, "approval_hours is inf;"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TrialPolicy(**wrong)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment, and a working folder, without settings."""
    for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TRIAL__SERVE_SHARE", "2", "CANCELLATIONS_TRIAL: .*serve_share is 2; it is a share"),
        ("TRIAL__MAX_DAYS", "7", "CANCELLATIONS_TRIAL: .*max_days is 7;"),
        ("TRIAL__PROBATION_DAYS", "7", "CANCELLATIONS_TRIAL: .*probation_days is 7;"),
        ("TRIAL__APPROVAL_HOURS", "nan", "CANCELLATIONS_TRIAL: .*approval_hours is nan;"),
        ("TRIAL__MODE", "often", "CANCELLATIONS_TRIAL__MODE: .*'auto', 'approve' or 'shadow'"),
        ("TRIAL__MAX_DAYS", "a week", "CANCELLATIONS_TRIAL__MAX_DAYS: .*valid integer"),
        ("TRIAL__SEQUENCE__ALPHA", "0.7", "CANCELLATIONS_TRIAL__SEQUENCE: .*alpha is 0.7;"),
        ("TRIAL__SEQUENCE__BURN_IN_DAYS", "7", "CANCELLATIONS_TRIAL__SEQUENCE: .*burn_in_days is 7;"),
        ("TRIAL__SEQUENCE__TUNING_DAYS", "inf", "CANCELLATIONS_TRIAL__SEQUENCE: .*tuning_days is inf;"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(bare: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    bare.setenv(f"CANCELLATIONS_{name}", value)
    with pytest.raises(BadInput, match=told):
        load()


def test_settings_reach_the_trial_and_its_test(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("CANCELLATIONS_TRIAL__MODE", "shadow")
    bare.setenv("CANCELLATIONS_TRIAL__MAX_DAYS", "70")
    bare.setenv("CANCELLATIONS_TRIAL__SEQUENCE__ALPHA", "0.01")
    policy = load().trial
    assert policy == TrialPolicy(mode=Mode.SHADOW, max_days=70, sequence=SequencePolicy(alpha=0.01))
    assert (policy.serve_share, policy.share) == (0.5, 0.0)
