"""Thresholds from the past: how often a next champion passes them, and when the documented ones stay."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest

from cancellations.domain.calibration import (
    HARM,
    LEAST,
    Calibration,
    CalibrationPolicy,
    PastLook,
    learn,
    trainings,
)
from monitoring.report import KNOBS, documented

POLICY = CalibrationPolicy()
FIRST = date(2016, 1, 4)


def looks(values: np.ndarray, signal: str = "column drift") -> list[PastLook]:
    """Of champions (rows) and their looks (columns); NaN was not evaluated."""
    return [
        PastLook(FIRST + timedelta(days=28 * i), FIRST + timedelta(days=28 * i + 7 * (j + 1)), _told(signal, value))
        for i, row in enumerate(values)
        for j, value in enumerate(row)
    ]


def _told(signal: str, value: float) -> dict[str, float]:
    return {} if np.isnan(value) else {signal: float(value)}


@pytest.mark.parametrize(("champions", "promised"), [(6, 1 / 7), (19, 2 / 20)])
def test_a_next_champion_alarms_as_rarely_as_promised_by_any_distribution(champions: int, promised: float) -> None:
    chance = np.random.default_rng(champions)
    alarms, repetitions = 0, 1_500
    for repetition in range(repetitions):
        # Looks of a champion have much in common.
        draws = chance.standard_t(2, (champions + 1, 1)) + chance.normal(size=(champions + 1, 8))
        values = 1 + np.exp(draws) if repetition % 2 else 1 + np.abs(draws)
        (own,) = learn(looks(values[:-1]), {"column drift": 0.5}, POLICY)
        assert own.chance == pytest.approx(promised)
        alarms += bool((values[-1] >= own.threshold).any())
    # Rounded up to three figures, so no more than promised; and no threshold that nothing ever reaches.
    error = np.sqrt(promised * (1 - promised) / repetitions)
    assert alarms / repetitions <= promised + 3 * error
    assert alarms / repetitions >= promised - 0.01 - 3 * error


def test_the_evidence_says_how_often_the_past_alarmed_before_and_would_now() -> None:
    values = np.array([[0.1, 0.3], [0.6, 0.2], [0.55, 0.7], [0.3, np.nan], [0.2, 0.2], [0.9, 0.4]])
    (own,) = learn(looks(values), {"column drift": 0.5}, POLICY)
    assert (own.champions, own.looks, own.highest) == (6, 11, 0.9)
    assert (own.alarmed_before, own.alarmed) == (3, 0)
    assert own.threshold == pytest.approx(0.901)
    assert own.median == 0.3


def test_a_quiet_past_makes_no_threshold_below_what_a_signal_can_mean() -> None:
    (own,) = learn(looks(np.full((9, 8), 0.01)), {"column drift": 0.5}, POLICY)
    assert own.threshold == LEAST["column drift"]


def test_too_few_champions_and_harm_leave_the_documented_threshold_and_say_why() -> None:
    (few,) = learn(looks(np.full((5, 8), 0.7)), {"column drift": 0.5}, POLICY)
    assert (few.threshold, few.alarmed_before) == (0.5, 5)
    assert "5 past champions, 6 are needed" in few.why
    (never,) = learn(looks(np.full((9, 8), np.nan)), {"column drift": 0.5}, POLICY)
    assert never.threshold == 0.5 and never.median is None and never.why
    for signal in HARM:
        (harm,) = learn(looks(np.full((9, 8), 0.7), signal), {signal: 0.02}, POLICY)
        assert harm.threshold == 0.02 and "harm" in harm.why and harm.alarmed_before == 9
    learned = learn(looks(np.full((9, 8), 0.7)), {"column drift": 0.5, "volume": 3.0}, POLICY)
    found = Calibration(FIRST, learned)
    assert found.threshold("column drift") == pytest.approx(0.701)
    assert found.threshold("volume") is None is found.threshold("another")


def test_champions_of_the_past_have_history_behind_them_and_weeks_before_them() -> None:
    as_of, begins = date(2017, 2, 20), date(2015, 7, 1)
    days = trainings(begins, as_of, POLICY)
    assert days[-1] == as_of - timedelta(weeks=8)
    assert begins + timedelta(days=182) <= days[0] < begins + timedelta(days=182 + 28)
    assert {(b - a).days for a, b in pairwise(days)} == {28}
    assert len(trainings(date(2010, 1, 1), as_of, POLICY)) == POLICY.max_champions
    assert trainings(date(2010, 1, 1), as_of, POLICY)[-1] == days[-1]
    assert trainings(as_of, as_of, POLICY) == ()
    assert trainings(begins, as_of, replace(POLICY, every_days=7))[-1] == days[-1]


def test_every_signal_of_the_monitor_has_a_documented_threshold_and_a_rule() -> None:
    assert set(documented()) == set(KNOBS) == set(LEAST) | set(HARM)
    assert all(LEAST[name] <= value for name, value in documented().items() if name in LEAST)
