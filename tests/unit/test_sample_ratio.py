"""Arms of the size that was meant raise no alarm, however often one looks; others are found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest

from cancellations.domain.comparison import Arm, arm
from cancellations.domain.sample_ratio import ArmCount, log_evidence, mismatches

ALPHA = 0.01
DAYS, A_DAY = 70, 130
RNG = np.random.default_rng(7)


def ever_called_wrong(rival_by_day: np.ndarray, bookings_by_day: np.ndarray, share: float) -> bool:
    """Whether any daily look of a trial calls its arms wrong."""
    rival, bookings = rival_by_day.cumsum(), bookings_by_day.cumsum()
    return any(
        mismatches([ArmCount("dealt", int(n - k), int(k))], share, ALPHA) for k, n in zip(rival, bookings, strict=True)
    )


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_arms_dealt_as_meant_are_called_wrong_no_more_often_than_stated_under_daily_looks(share: float) -> None:
    trials = 1_000
    bookings = RNG.poisson(A_DAY, (trials, DAYS))
    alarms = sum(ever_called_wrong(RNG.binomial(b, share), b, share) for b in bookings)
    # The rate is at most ALPHA where the interval's lower end is.
    assert binomtest(alarms, trials).proportion_ci(0.99).low <= ALPHA
    # It is an anytime-valid test and no wish: a fixed-size one, looked at daily, would be far above.
    assert alarms <= 2 * ALPHA * trials


def test_real_arms_of_bookings_that_come_in_groups_are_no_mismatch() -> None:
    # The hash knows nothing of groups, so bookings of one are as independent as any.
    dealt = [arm("trial-7-12", f"group-{i // 40}-room-{i % 40}", 0.5) for i in range(8_000)]
    counts = [ArmCount("dealt", dealt[:n].count(Arm.CHAMPION), dealt[:n].count(Arm.RIVAL)) for n in (100, 1_000, 8_000)]
    assert mismatches(counts, 0.5, 0.001) == ()


@pytest.mark.parametrize(
    ("meant", "found", "days"),
    [(0.5, 0.45, 35), (0.5, 0.4, 12), (0.1, 0.05, 14), (0.1, 0.2, 7)],
)
def test_a_share_that_is_another_one_is_found_within_days(meant: float, found: float, days: int) -> None:
    seen = 0
    for _ in range(100):
        bookings = RNG.poisson(A_DAY, days)
        seen += ever_called_wrong(RNG.binomial(bookings, found), bookings, meant)
    assert seen >= 90


@pytest.mark.parametrize(("share", "counts"), [(0.0, (1_000, 1)), (1.0, (1, 1_000))])
def test_one_booking_in_an_arm_that_nobody_should_be_in_is_enough(share: float, counts: Sequence[int]) -> None:
    assert mismatches([ArmCount("served", *counts)], share, 1e-9)
    assert log_evidence(ArmCount("served", 1_000 * (share == 0), 1_000 * (share == 1)), share) == 0


def test_without_bookings_there_is_no_evidence() -> None:
    assert log_evidence(ArmCount("compared", 0, 0), 0.5) == 0
    assert mismatches([], 0.5, 0.05) == mismatches([ArmCount("compared", 0, 0)], 0.5, 0.05) == ()


def test_each_count_that_is_wrong_is_told_and_they_share_one_error_rate() -> None:
    wrong = ArmCount("compared", 300, 100)
    (told,) = mismatches([ArmCount("dealt", 500, 500), wrong], 0.5, 0.001)
    assert told == (
        "arms do not have their sizes: of 400 bookings compared 100 (25.0%) are in the challenger's, meant were 50.0%"
    )
    edge = math.exp(-log_evidence(wrong, 0.5))
    assert mismatches([wrong], 0.5, edge * 1.01) and not mismatches([wrong], 0.5, edge * 0.99)
    assert mismatches([wrong, wrong], 0.5, edge * 2.02) and not mismatches([wrong, wrong], 0.5, edge * 1.98)
