"""Figures of a replay: means and shares with block intervals, and luck beside chance."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from cancellations.replay.figures import BLOCK_DAYS, Blocks, Window, percentile

FIRST, DAYS, A_DAY = date(2016, 4, 4), 140, 30
BOOKED = pd.Series(np.repeat(pd.date_range(FIRST, periods=DAYS), A_DAY))
WINDOW = Window("all", FIRST, BOOKED.max().date())


def test_a_block_is_four_weeks_and_each_booking_is_in_one() -> None:
    blocks = Blocks.of(BOOKED, WINDOW, seed=1)
    assert blocks.chosen.all()
    assert np.bincount(blocks.block).tolist() == [BLOCK_DAYS * A_DAY] * 5
    assert (blocks.drawn.sum(axis=1) == 5).all()


def test_a_window_counts_its_own_days_alone() -> None:
    part = Window("part", date(2016, 5, 2), date(2016, 5, 29))
    blocks = Blocks.of(BOOKED, part, seed=1)
    value = BOOKED.between(pd.Timestamp(part.first), pd.Timestamp(part.last)).to_numpy(dtype=float)
    assert blocks.mean(value).value == 1.0
    assert blocks.chosen.sum() == 28 * A_DAY


def test_a_gain_is_all_of_itself_and_half_of_its_double() -> None:
    gain = np.random.default_rng(2).normal(0.1, 1, len(BOOKED))
    blocks = Blocks.of(BOOKED, WINDOW, seed=1)
    whole, half = blocks.share(gain, gain), blocks.share(gain, 2 * gain)
    assert (whole.value, whole.low, whole.high) == pytest.approx((1, 1, 1))
    assert half.value == pytest.approx(0.5)


def test_an_interval_of_blocks_is_wider_where_weeks_share_a_shock() -> None:
    draw = np.random.default_rng(3)
    own = draw.normal(0, 1, len(BOOKED))
    shock = np.repeat(draw.normal(0, 1, DAYS // 7), 7 * A_DAY)
    blocks = Blocks.of(BOOKED, WINDOW, seed=1)
    alone, shared = blocks.mean(own), blocks.mean(own + shock)
    assert shared.high - shared.low > 3 * (alone.high - alone.low)


def test_luck_is_the_share_of_random_timings_that_did_worse() -> None:
    assert percentile(0.4, [0.5, 0.6, 0.3, 0.4]) == pytest.approx(0.625)
    assert percentile(0.1, [0.5] * 10) == 1.0
    assert percentile(0.9, [0.5] * 10) == 0.0
