"""What benchmarks show the monitor: nothing of later days; and a shuffle gives bookings other days alone."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from benchmarks.looks import CBPE, DECISION, RULE, STARTS, Course, lost, market_of, shuffled, told_late, watched_by
from cancellations.domain.calibration import Calibration, Learned
from cancellations.domain.features import FeatureSet
from cancellations.domain.labels import CANCELLED, matured
from cancellations.domain.reservation import group_keys
from cancellations.domain.retraining import Signal, judge
from cancellations.settings import MonitorSettings
from cancellations.sources.simulator import simulate
from cancellations.usecases.walk_forward import Market, PastChampion, Watched
from monitoring.report import documented

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


def course(values: list[dict[str, float]], learned: Calibration | None = None) -> Course:
    ends = tuple(STARTS + timedelta(days=7 * n - 1) for n in range(len(values)))
    limits = documented()
    signals = tuple(
        tuple(
            Signal(name, v, limits[name], judge(v, limits[name]), MonitorSettings().weights.get(name, 0.0), 900)
            for name, v in look.items()
        )
        for look in values
    )
    many = (5_000,) * len(ends)
    return Course("m", None, 1.0, TRAINED, ends, signals, many, learned, flagged=False, estimated=(True,) * len(ends))


def test_the_first_look_that_told_counts_from_the_change() -> None:
    seen = course([{"volume": 4.0}, {"volume": 2.0}, {"volume": 3.0, "column drift": 0.1}])
    assert seen.first("volume") == 14  # what alarmed before the change saw something else
    assert seen.first("column drift") is None is seen.first("estimated loss")
    assert seen.first(CBPE) == 7


def test_a_decision_is_judged_by_documented_and_by_learned_thresholds() -> None:
    look = {"matured excess loss": 0.025, "domain classifier": 0.8, "column drift": 0.1}
    lower = Calibration(TRAINED, (Learned("domain classifier", 0.9, 0.75, 9, 72),))
    seen = course([look] * 4, lower)
    assert seen.told(DECISION) == [False] * 4
    # By the lower one the classifier alarms beside the loss; confirmed by the second look.
    assert seen.told(DECISION, learned=True) == [False, True, True, True]
    assert seen.told("domain classifier", learned=True) == [True] * 4 != seen.told("domain classifier")
    assert course([look] * 4).told(DECISION, learned=True) == [False] * 4


def test_feeds_that_are_late_or_lossy_leave_what_was_told_before_and_hide_what_they_say() -> None:
    table = market_of(simulate(STARTS - timedelta(days=60), 120, 3)).history
    cancelled = table["status"].isin(CANCELLED) & (table["known_on"] >= pd.Timestamp(STARTS))
    late, less = told_late(table, 30, 1), lost(table, 0.25, 1)
    assert ((late["known_on"] - table["known_on"]).dt.days == 30).equals(cancelled)
    gone = less["status"].isna() & table["status"].notna()
    assert gone[cancelled].mean() == pytest.approx(0.25, abs=0.03) and not gone[~cancelled].any()
    # Nothing told of them, they count as kept once they have matured.
    end = (table["arrival_on"].max() + pd.Timedelta(days=60)).date()
    ended = matured(less, RULE, end)
    assert not ended["label"][ended["reservation_id"].isin(table["reservation_id"][gone])].any()
