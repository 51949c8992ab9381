"""What benchmarks show the monitor: nothing of later days; and a shuffle gives bookings other days alone."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from benchmarks.looks import DECISION, RULE, STARTS, Course, market_of, shuffled, watched_by
from cancellations.domain.features import FeatureSet
from cancellations.domain.labels import matured
from cancellations.domain.reservation import group_keys
from cancellations.settings import MonitorSettings
from cancellations.sources.simulator import simulate
from cancellations.usecases.walk_forward import Market, PastChampion, Watched

BEGINS = date(2015, 1, 5)
TRAINED, END, UNTIL = (BEGINS + timedelta(days=n) for n in (90, 125, 139))


class Given:
    """A classifier that says what the price is."""

    features = FeatureSet((), ())

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return features["price"].to_numpy(dtype=float)


@pytest.fixture(scope="module")
def market() -> Market:
    return market_of(simulate(BEGINS, 140, 3))


@pytest.fixture(scope="module")
def watched(market: Market) -> Watched:
    reference = market.built.iloc[:300]
    champion = PastChampion(TRAINED, Given(), reference, np.zeros(300), {})  # type: ignore[arg-type]
    return watched_by(market, champion, UNTIL, MonitorSettings())


def test_a_look_shows_the_windows_bookings_and_outcomes_as_known_on_its_day(market: Market, watched: Watched) -> None:
    seen = watched.observe(END)
    assert (seen.start, seen.end) == (END - timedelta(days=27), END)
    made = market.history["booked_on"]
    window = (made >= pd.Timestamp(seen.start)) & (made <= pd.Timestamp(END))
    pd.testing.assert_frame_equal(seen.current, market.built[window])
    np.testing.assert_array_equal(seen.probability, market.built.loc[window, "price"])
    # Those too that were open on the day of the training.
    final = matured(market.history[made <= pd.Timestamp(END)], RULE, END, after=TRAINED)
    assert len(final) > (final["booked_on"] > pd.Timestamp(TRAINED)).sum() > 300
    assert len(seen.matured_label) == len(seen.matured_groups) == len(final)
    assert seen.matured_label.sum() == final["label"].sum()
    assert {one.rows for one in seen.in_flight if one.name == "all bookings"} == {
        ((made > pd.Timestamp(TRAINED)) & (made <= pd.Timestamp(END))).sum()
    }


def test_what_comes_later_changes_no_look(market: Market, watched: Watched) -> None:
    later = market.history["known_on"] > pd.Timestamp(END)
    turned = market.history["status"].where(~later, "canceled")
    other = Market(market.history.assign(status=turned), market.built, RULE)
    again = watched_by(other, watched.champion, UNTIL, MonitorSettings()).observe(END)
    assert (turned != market.history["status"]).sum() > 300
    seen = watched.observe(END)
    np.testing.assert_array_equal(again.matured_label, seen.matured_label)
    assert again.in_flight == seen.in_flight


def test_a_shuffle_gives_bookings_other_days_and_changes_nothing_else(market: Market) -> None:
    table = market.history
    moved = shuffled(table, 1)
    assert (moved["booked_on"] != table["booked_on"]).mean() > 0.9
    for name in ("arrival_on", "known_on"):
        pd.testing.assert_series_equal(moved[name] - moved["booked_on"], table[name] - table["booked_on"])
    same = [name for name in table.columns if name not in ("booked_on", "arrival_on", "known_on")]
    pd.testing.assert_frame_equal(moved[same], table[same])
    together = pd.Series(group_keys(table))
    assert moved.groupby(together)["booked_on"].nunique().max() == 1
    assert moved["booked_on"].min() == table["booked_on"].min()
    pd.testing.assert_frame_equal(shuffled(table, 1), moved)


def test_the_first_look_that_told_counts_from_the_change() -> None:
    ends = tuple(STARTS + timedelta(days=7 * n - 1) for n in (0, 1, 2))
    alarms = (frozenset({"volume"}), frozenset(), frozenset({"volume", "column drift"}))
    course = Course("m", None, 1.0, ends, alarms, (False, True, True), flagged=False)
    assert course.first("volume") == 14  # what alarmed before the change saw something else
    assert course.first(DECISION) == 7
    assert course.first("estimated loss") is None
