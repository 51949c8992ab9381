"""One number a day: found where evidence is, believed where it has not done harm, told when it is large."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.comparison import log_loss
from cancellations.domain.labels import LabelRule, matured
from cancellations.domain.promotion import Change, LedgerRow, kin, predecessor, recalibrated_from
from cancellations.domain.recalibration import (
    LookBack,
    RecalibrationPolicy,
    ShiftPolicy,
    Verdict,
    best_shift,
    decide_shift,
    look_back,
    shift_on,
    shifted,
    worth_a_mail,
)

TODAY, RULE, POLICY = date(2016, 6, 1), LabelRule(), RecalibrationPolicy()
NO_RIDGE = ShiftPolicy(ridge=0.0)


def survivors(rows: int, planted: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability as told, share of cancellations that would have come, and which came, at all ages."""
    draw = np.random.default_rng(seed)
    told = draw.beta(2, 4, rows)
    happened = draw.choice([0.1, 0.3, 0.6, 0.9, 1.0], rows)
    ends_cancelled = draw.random(rows) < shifted(told, planted)
    return told, happened, ends_cancelled & (draw.random(rows) < happened)


@pytest.mark.parametrize("planted", [-0.8, -0.2, 0.0, 0.2, np.log(1.8)])
def test_a_planted_shift_is_found_from_survivors_and_cancellations_of_all_ages(planted: float) -> None:
    found = [
        best_shift(*survivors(4_000, planted, seed), np.ones(4_000), NO_RIDGE)  # type: ignore[misc]
        for seed in range(20)
    ]
    error = np.std(found)
    assert 0 < error < 0.1
    assert np.mean(found) == pytest.approx(planted, abs=4 * error / np.sqrt(len(found)))


def test_without_evidence_there_is_no_shift() -> None:
    none = np.empty(0)
    assert best_shift(none, none, none.astype(bool), none, ShiftPolicy()) == pytest.approx(0, abs=1e-6)
    told = np.full(500, 0.3)
    for weight, happened in ((0.0, 1.0), (1.0, 0.0)):
        gone = np.zeros(500, dtype=bool)
        found = best_shift(told, np.full(500, happened), gone, np.full(500, weight), ShiftPolicy())
        assert found == pytest.approx(0, abs=1e-6)


def test_a_ridge_holds_back_what_few_bookings_say_and_not_what_many_say() -> None:
    def found(rows: int, ridge: float) -> float:
        told, happened, gone = survivors(rows, 0.6, seed=3)
        return best_shift(told, happened, gone, np.ones(rows), ShiftPolicy(ridge=ridge))

    assert 0 < found(40, 20.0) < 0.5 * found(40, 0.0)
    assert 0.95 * found(20_000, 0.0) < found(20_000, 20.0) < found(20_000, 0.0)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(-3, 3))
def test_a_shift_is_undone_by_its_opposite(probability: float, shift: float) -> None:
    there = shifted(np.array([probability]), shift)
    assert shifted(there, -shift)[0] == pytest.approx(probability, rel=1e-6)


# --- looking back -----------------------------------------------------------------------------------


def world(days: int, turned: int, planted: float, seed: int = 1) -> pd.DataFrame:
    """Bookings of `days` days up to TODAY, their log odds moved by `planted` from day `turned` on; all outcomes."""
    draw = np.random.default_rng(seed)
    rows = 60 * days
    age = np.repeat(np.arange(days)[::-1], 60)
    booked = pd.Timestamp(TODAY) - pd.to_timedelta(age, unit="D")
    lead = draw.integers(1, 60, rows)
    told = draw.beta(2, 4, rows)
    ends_cancelled = draw.random(rows) < shifted(told, np.where(days - age > turned, planted, 0.0))
    days_until = np.where(ends_cancelled, np.floor(draw.random(rows) * (lead + 1)), lead + 1)
    return pd.DataFrame(
        {
            "reservation_id": [f"r{n:06d}" for n in range(rows)],
            "hotel": "H",
            "deposit_type": "No Deposit",
            "booked_on": booked,
            "arrival_on": booked + pd.to_timedelta(lead, unit="D"),
            "status": np.where(ends_cancelled, "canceled", "stayed"),
            "known_on": booked + pd.to_timedelta(days_until, unit="D"),
            "probability": told,
        }
    )


TRAINED = TODAY - timedelta(days=90)


def test_shifts_that_were_right_are_seen_to_have_saved() -> None:
    bookings = world(180, turned=90, planted=0.9)
    looked = look_back(bookings, bookings, RULE, TRAINED, TODAY, POLICY, seed=1)
    assert looked.bookings > 1_000
    assert 0 < looked.low < looked.gain


def test_shifts_that_came_too_late_are_seen_to_have_cost() -> None:
    bookings = world(180, turned=90, planted=0.9)
    turned_back = bookings["booked_on"] > pd.Timestamp(TODAY - timedelta(days=45))
    kept = turned_back & (np.random.default_rng(2).random(len(bookings)) < 0.9)
    bookings.loc[kept, "status"] = "stayed"
    bookings.loc[kept, "known_on"] = bookings.loc[kept, "arrival_on"] + pd.Timedelta(days=1)
    short = RecalibrationPolicy(gate_days=14)
    assert look_back(bookings, bookings, RULE, TRAINED, TODAY - timedelta(days=14), short, seed=1).gain < 0


def test_nothing_that_is_known_later_moves_a_look_back_or_a_shift() -> None:
    """Outcomes after the day, and bookings made after it, are as if they were not there."""
    bookings, day = world(180, turned=90, planted=0.9), TODAY - timedelta(days=30)
    later = bookings["known_on"] > pd.Timestamp(day)
    corrupted = bookings.assign(status=np.where(later, "canceled", bookings["status"]))
    corrupted["probability"] = np.where(corrupted["booked_on"] > pd.Timestamp(day), 0.99, corrupted["probability"])
    assert later.sum() > 1_000
    for found in (look_back, _shift):
        assert found(corrupted, corrupted, RULE, TRAINED, day, POLICY, 1) == found(
            bookings, bookings, RULE, TRAINED, day, POLICY, 1
        )


def test_each_booking_is_held_against_the_shift_of_a_world_that_ends_before_it() -> None:
    bookings = world(180, turned=90, planted=0.9)
    looked = look_back(bookings, bookings, RULE, TRAINED, TODAY, POLICY, seed=1)
    cohort = matured(bookings, RULE, TODAY, looked.after)
    cohort = cohort[cohort["booked_on"] > pd.Timestamp(TRAINED)]
    saved = 0.0
    for booked_on, rows in cohort.groupby("booked_on"):
        weeks = ((booked_on - pd.Timestamp(TRAINED)).days - 1) // 7
        evening = pd.Timestamp(TRAINED) + pd.Timedelta(days=7 * weeks)
        assert evening < booked_on <= evening + pd.Timedelta(days=7)
        ended = bookings[bookings["booked_on"] <= evening].copy()
        ended.loc[ended["known_on"] > evening, ["status", "known_on"]] = [None, pd.NaT]
        shift = shift_on(ended, ended, RULE, evening.date(), POLICY.shift)
        label, told = rows["label"].to_numpy(), rows["probability"].to_numpy()
        saved += (log_loss(label, told) - log_loss(label, shifted(told, shift))).sum()
    assert looked.bookings == len(cohort) > 1_000
    assert looked.gain == pytest.approx(saved / len(cohort))


def _shift(
    bookings: pd.DataFrame,
    history: pd.DataFrame,
    rule: LabelRule,
    trained: date,
    day: date,
    policy: RecalibrationPolicy,
    seed: int,
) -> float:
    return shift_on(bookings, history, rule, day, policy.shift)


def test_before_anything_has_matured_there_is_nothing_to_look_back_on() -> None:
    bookings = world(30, turned=0, planted=0.0)
    assert look_back(bookings, bookings, RULE, TODAY, TODAY, POLICY, seed=1).bookings == 0


# --- deciding ---------------------------------------------------------------------------------------


def looked(gain: float, bookings: int = 1_000) -> LookBack:
    return LookBack(TODAY - timedelta(days=28), TODAY, bookings, gain, gain - 0.001, gain + 0.001)


@pytest.mark.parametrize(
    ("wanted", "present", "gain", "verdict"),
    [
        (0.30, 0.00, 0.0100, Verdict.SHIFT),
        (0.30, 0.00, -0.0005, Verdict.SHIFT),
        (0.30, 0.00, -0.0100, Verdict.REFUSED),
        (0.30, 0.28, 0.0100, Verdict.NOTHING),
        (0.30, 0.20, 0.0100, Verdict.SHIFT),
        (0.30, 0.28, -0.0100, Verdict.BASE),
        (0.02, 0.30, 0.0100, Verdict.BASE),
        (0.02, 0.00, 0.0100, Verdict.NOTHING),
        (-0.3, 0.30, 0.0100, Verdict.SHIFT),
        (1.50, 0.00, 0.0100, Verdict.REFUSED),
        (-1.5, 0.30, 0.0100, Verdict.REFUSED),
    ],
)
def test_a_shift_serves_when_it_is_worth_it_and_has_done_no_harm(
    wanted: float, present: float, gain: float, verdict: Verdict
) -> None:
    decided = decide_shift(wanted, present, 5_000, looked(gain), POLICY)
    assert decided.verdict is verdict
    assert decided.reasons


@pytest.mark.parametrize(("evidence", "rows"), [(299, 1_000), (5_000, 299)])
def test_few_bookings_decide_nothing(evidence: int, rows: int) -> None:
    decided = decide_shift(0.4, 0.0, evidence, looked(0.01, rows), POLICY)
    assert decided.verdict is Verdict.REFUSED
    assert "299" in decided.reasons[-1] and "300 are needed" in decided.reasons[-1]


def test_a_shift_that_serves_stays_while_nothing_is_known_against_it() -> None:
    decided = decide_shift(0.3, 0.3, 5_000, looked(0.01, 10), POLICY)
    assert decided.verdict is Verdict.REFUSED


def test_owners_are_told_once_for_each_step() -> None:
    served = [0.1, 0.2, 0.3, 0.35, 0.4, 0.6, 0.5, 0.3, 0.0]
    told = [s for n, s in enumerate(served, start=1) if worth_a_mail(served[:n], 0.25)]
    assert told == [0.3, 0.6, 0.3, 0.0]


# --- the ledger -------------------------------------------------------------------------------------


def ledger(*changes: tuple[str, Change]) -> list[LedgerRow]:
    now = datetime(2024, 5, 1, tzinfo=UTC)
    return [
        LedgerRow(n, champion, None, change, "why", "who", None, None, TODAY, now)
        for n, (champion, change) in enumerate(changes, start=1)
    ]


def test_a_version_belongs_to_the_one_that_was_trained() -> None:
    rows = ledger(
        ("1", Change.FIRST),
        ("2", Change.RECALIBRATED),
        ("3", Change.RECALIBRATED),
        ("1", Change.RECALIBRATED),
        ("4", Change.RECALIBRATED),
        ("5", Change.PROMOTED),
        ("6", Change.RECALIBRATED),
        ("4", Change.ROLLED_BACK),
        ("7", Change.RECALIBRATED),
    )
    assert recalibrated_from(rows) == {"2": "1", "3": "1", "4": "1", "6": "5", "7": "1"}
    assert kin(rows, "4") == ("1", "2", "3", "4", "7")
    assert kin(rows, "5") == ("5", "6")
    assert kin(rows, "9") == ("9",)


def test_a_rollback_goes_back_by_one_recalibration() -> None:
    rows = ledger(("1", Change.FIRST), ("2", Change.RECALIBRATED), ("3", Change.RECALIBRATED))
    assert predecessor(rows) == "2"
    assert predecessor([*rows, *ledger(("2", Change.ROLLED_BACK))]) == "1"
    assert predecessor([*rows, *ledger(("1", Change.RECALIBRATED))]) == "3"
