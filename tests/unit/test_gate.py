"""The gate compares on the same rows, and no test row was seen by the champion."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.comparison import log_loss
from cancellations.domain.gate import GatePolicy, backtest_start, gate

POLICY = GatePolicy(backtest_days=42, min_rows=1_000, min_skill=0.10, tolerance=0.01)
DRAW = np.random.default_rng(1)
TRUTH = DRAW.uniform(0.02, 0.98, 4_000)
LABEL = (DRAW.random(4_000) < TRUTH).astype(float)
BASE = float(LABEL.mean())


def test_a_model_that_knows_the_odds_passes_beside_a_blind_champion() -> None:
    result = gate(LABEL, BASE, TRUTH, np.full(4_000, BASE), POLICY)
    assert result.passed
    assert len(result.reasons) == 2
    assert all(r.startswith("passed") for r in result.reasons)
    assert result.metrics["backtest_gain"] == pytest.approx(
        result.metrics["champion_backtest_log_loss"] - result.metrics["backtest_log_loss"]
    )


def test_the_first_model_has_only_the_floor_to_pass() -> None:
    result = gate(LABEL, BASE, TRUTH, None, POLICY)
    assert result.passed
    assert len(result.reasons) == 1
    assert "champion_backtest_log_loss" not in result.metrics


def test_the_base_rate_itself_does_not_reach_the_floor() -> None:
    result = gate(LABEL, BASE, np.full(4_000, BASE), None, POLICY)
    assert not result.passed
    assert result.reasons[0].startswith("refused")


@pytest.mark.parametrize(("worse_by", "passed"), [(0.005, True), (0.05, False)])
def test_worse_than_the_champion_passes_within_the_tolerance_only(worse_by: float, passed: bool) -> None:
    # Moving the odds towards the base rate costs a little more the further it goes.
    steps = [TRUTH * (1 - w) + BASE * w for w in np.linspace(0, 0.9, 181)]
    champion = log_loss(LABEL, TRUTH).mean()
    candidate = min(steps, key=lambda p: abs(log_loss(LABEL, p).mean() - champion - worse_by))
    assert gate(LABEL, BASE, candidate, TRUTH, POLICY).passed is passed


def test_too_few_rows_are_refused_whatever_they_say() -> None:
    result = gate(LABEL[:999], BASE, TRUTH[:999], None, POLICY)
    assert not result.passed
    assert "999" in result.reasons[0]


def test_a_certain_and_wrong_forecast_costs_much_but_not_endlessly() -> None:
    assert log_loss(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx([-np.log(1e-6)] * 2, rel=1e-6)


@given(st.dates(date(2015, 1, 1), date(2018, 1, 1)), st.integers(0, 400), st.integers(1, 120))
def test_the_backtest_never_starts_before_the_champions_training(as_of: date, age: int, days: int) -> None:
    trained = as_of - timedelta(days=age)
    start = backtest_start(as_of, trained, GatePolicy(backtest_days=days))
    assert start >= trained
    assert start >= as_of - timedelta(days=days)
    assert start in (trained, as_of - timedelta(days=days))


def test_without_a_champion_the_backtest_has_its_full_length() -> None:
    assert backtest_start(date(2016, 6, 12), None, POLICY) == date(2016, 5, 1)
