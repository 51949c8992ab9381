"""The monitor's own arithmetic and its picture; nothing here may import Evidently."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from cancellations.domain.calibration import Calibration, Learned
from cancellations.domain.comparison import Day, SequencePolicy, read
from cancellations.domain.features import CATEGORICAL, FEATURES, NUMERIC, FeatureSet
from cancellations.domain.promotion import Kind, Mode, Trial, TrialState
from cancellations.domain.retraining import Action, ColumnDrift, Decision, MonitorReport, Signal, Verdict, Window
from cancellations.domain.volume import volume
from cancellations.ports import Observation, StoredDecision
from cancellations.settings import MonitorSettings
from monitoring import performance
from monitoring.classifier import domain_classifier
from monitoring.columns import Sides, clean, comparable, describe, obstacle, watched
from monitoring.distances import distance
from monitoring.drift import column_signal
from monitoring.performance import Cohorts, Matured, calibration_bias, estimated_loss
from monitoring.plots import ReportPictures
from monitoring.report import EvidentlyMonitor
from monitoring.report_plots import found
from monitoring.volume import volume_signal


def bookings(rows: int, seed: int) -> pd.DataFrame:
    """Features of bookings from one unchanging world."""
    chance = np.random.default_rng(seed)
    frame = pd.DataFrame({name: chance.gamma(2.0, 10.0, rows) for name in NUMERIC})
    for name in CATEGORICAL:
        frame[name] = chance.choice(["A", "B", "C"], rows, p=[0.6, 0.3, 0.1])
    return frame


def column(name: str, drifted: bool, weight: float, score: float | None = 0.2) -> ColumnDrift:
    return ColumnDrift(
        name, "wasserstein", score, 0.1, drifted, weight, "median 1", "median 2", "" if score else "gone"
    )


def test_importing_the_monitor_leaves_evidently_alone() -> None:
    code = "import sys, monitoring.report, monitoring.plots; sys.exit('evidently' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_column_drift_weighs_columns_by_importance() -> None:
    signal = column_signal([column("price", True, 0.6), column("meal", False, 0.2)], 500, 0.5, 1.0)
    assert signal.value == pytest.approx(0.75)
    assert signal.verdict is Verdict.ALARM
    assert (signal.before, signal.after) == ("price median 1", "price median 2")


def test_a_column_that_was_not_evaluated_does_not_dilute_the_share() -> None:
    columns = [column("price", True, 0.3), column("hotel", False, 0.3), column("meal", False, 0.4, score=None)]
    assert column_signal(columns, 500, 0.5, 1.0).value == pytest.approx(0.5)


def test_too_little_importance_left_is_not_evaluated_and_names_the_columns() -> None:
    signal = column_signal([column("price", False, 0.3), column("meal", False, 0.7, score=None)], 500, 0.5, 1.0)
    assert signal.verdict is Verdict.NOT_EVALUATED
    assert signal.value is None
    assert "70%" in signal.why and "meal: gone" in signal.why


def test_column_drift_without_importance_is_not_evaluated() -> None:
    assert column_signal([column("price", True, 0.0)], 500, 0.5, 1.0).verdict is Verdict.NOT_EVALUATED


FROM_300 = Cohorts(min_rows=300)


def excess_loss(label: np.ndarray, probability: np.ndarray) -> Signal:
    return performance.excess_loss(Matured.of(label, probability), FROM_300, 0.02, 2.0)


def test_excess_loss_of_a_calibrated_model_is_near_zero_and_of_a_wrong_one_is_its_divergence() -> None:
    chance = np.random.default_rng(1)
    truth = chance.uniform(0.05, 0.95, 60_000)
    label = (chance.random(60_000) < truth).astype(float)
    right = excess_loss(label, truth)
    assert right.value == pytest.approx(0.0, abs=0.006)
    assert right.verdict is Verdict.OK
    # Always .5 for outcomes that always cancel: log 2 realised and log 2 expected.
    assert excess_loss(np.ones(500), np.full(500, 0.5)).value == pytest.approx(0.0)
    sure = excess_loss(np.ones(500), np.full(500, 0.1))
    entropy = -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    assert sure.value == pytest.approx(-np.log(0.1) - entropy)
    assert sure.verdict is Verdict.ALARM
    assert "10.0%" in sure.before and "100.0%" in sure.after


def test_too_few_matured_bookings_are_not_evaluated() -> None:
    label = np.r_[np.ones(299), np.nan]
    signal = excess_loss(label, np.full(300, 0.2))
    assert signal.verdict is Verdict.NOT_EVALUATED
    assert signal.rows == 299
    assert "299" in signal.why


def test_probabilities_of_zero_and_one_stay_finite() -> None:
    value = excess_loss(np.tile([0.0, 1.0], 200), np.tile([0.0, 1.0], 200)).value
    assert value == pytest.approx(0.0, abs=1e-4)


def test_realised_figures_have_intervals_that_count_a_group_once() -> None:
    """Of 200 small worlds of groups of five, nearly as many intervals as they claim hold the truth, which is 0."""
    held = dict.fromkeys(("excess", "bias", "excess by row"), 0)
    for seed in range(200):
        chance = np.random.default_rng(seed)
        truth = np.repeat(chance.uniform(0.1, 0.9, 120), 5)
        label = np.repeat((chance.random(120) < truth[::5]).astype(float), 5)
        groups = np.repeat(np.arange(120), 5)
        matured = Matured.of(label, truth, groups)
        excess = performance.excess_loss(matured, FROM_300, 0.02, 2.0)
        bias = calibration_bias(matured, FROM_300, 0.05, 0.0)
        by_row = excess_loss(label, truth)
        for name, signal in (("excess", excess), ("bias", bias), ("excess by row", by_row)):
            assert signal.low is not None and signal.high is not None and signal.low < signal.high
            held[name] += signal.low <= 0 <= signal.high
    assert held["excess"] >= 180 and held["bias"] >= 180
    assert held["excess by row"] < 150


def changed_lately(rows: int, recent: int, odds: float) -> Matured:
    """Bookings of which the last ones, made within four weeks, cancel at other odds than their scores say."""
    chance = np.random.default_rng(6)
    probability = chance.uniform(0.05, 0.6, rows)
    lately = np.arange(rows) >= rows - recent
    truth = np.where(lately, odds * probability / (1 + (odds - 1) * probability), probability)
    label = (chance.random(rows) < truth).astype(float)
    return Matured.of(label, probability, None, np.where(lately, 20.0, 90.0))


def test_a_change_is_told_by_bookings_made_since_long_before_all_that_matured_tell_of_it() -> None:
    changed = changed_lately(9_000, 600, odds=3.0)
    everybody = performance.excess_loss(changed.only(np.ones(9_000, dtype=bool)), Cohorts(recent_days=1), 0.02, 2.0)
    assert everybody.verdict is Verdict.OK and everybody.rows == 9_000
    signal = performance.excess_loss(changed, Cohorts(), 0.02, 2.0)
    assert signal.verdict is Verdict.ALARM and signal.rows == 600
    assert signal.low is not None and signal.low > 0
    assert signal.before.endswith("made in the last 42 days")


def test_what_recent_bookings_say_counts_only_when_it_is_more_than_chance_and_there_are_enough() -> None:
    alike = changed_lately(9_000, 600, odds=1.0)
    lately = performance.excess_loss(alike.only(alike.made_days_ago < 42), FROM_300, 0.02, 2.0)
    assert lately.low is not None and lately.low <= 0
    assert performance.excess_loss(alike, Cohorts(), 0.02, 2.0).rows == 9_000
    # Alone, while too few have matured in all, they say nothing either.
    few = Matured(*(a[-700:] for a in (alike.label, alike.probability, alike.groups, alike.made_days_ago)))
    assert performance.excess_loss(few, Cohorts(), 0.02, 2.0).verdict is Verdict.NOT_EVALUATED
    changed = changed_lately(9_000, 250, odds=3.0)
    assert performance.excess_loss(changed, Cohorts(), 0.02, 2.0).rows == 9_000
    assert performance.excess_loss(changed, Cohorts(min_recent_rows=250), 0.02, 2.0).rows == 250


def test_recent_bookings_of_the_first_weeks_are_those_made_since_the_training_and_may_speak_alone() -> None:
    changed = changed_lately(700, 400, odds=3.0)
    signal = performance.excess_loss(changed, Cohorts(), 0.02, 2.0)
    assert signal.verdict is Verdict.ALARM and signal.rows == 400
    found_open = Matured(changed.label, changed.probability, changed.groups, np.full(700, np.inf))
    assert performance.excess_loss(found_open, Cohorts(), 0.02, 2.0).verdict is Verdict.NOT_EVALUATED


def test_calibration_bias_is_alarmed_either_way_and_says_which() -> None:
    for share in (0.2, 0.4):
        label = (np.arange(1_000) < 1_000 * share).astype(float)
        bias = calibration_bias(Matured.of(label, np.full(1_000, 0.3)), FROM_300, 0.05, 0.0)
        assert bias.value == pytest.approx(0.1)
        assert bias.verdict is Verdict.ALARM
        assert (bias.before, bias.after) == ("predicted cancellations 30.0%", f"realised cancellations {share:.1%}")
        assert bias.low is not None and bias.high is not None and 0.05 < bias.low < 0.1 < bias.high


def test_the_estimated_loss_is_what_the_scores_expect_and_tells_a_broken_feature_that_looks_better() -> None:
    before = np.random.default_rng(2).beta(2, 3, 4_000)
    same = estimated_loss(before, before, 300, 0.25, 0.0)
    assert same.value == 0 and same.verdict is Verdict.OK
    sure = estimated_loss(before, np.where(before > 0.5, 0.97, 0.03), 300, 0.25, 0.0)
    assert sure.verdict is Verdict.ALARM and "-" in sure.after
    unsure = estimated_loss(np.full(400, 0.1), np.full(400, 0.5), 300, 0.25, 0.0)
    assert unsure.value == pytest.approx(np.log(2) / -(0.1 * np.log(0.1) + 0.9 * np.log(0.9)) - 1)
    for few, side in ((estimated_loss(before, before[:299], 300, 0.25, 0.0), "window"),
                      (estimated_loss(before[:299], before, 300, 0.25, 0.0), "reference")):  # fmt: skip
        assert few.verdict is Verdict.NOT_EVALUATED
        assert few.why == f"299 scored bookings in the {side}, 300 are needed"


def weeks(*totals: int) -> pd.Series:
    """Bookings of a day each, as many a week."""
    days = pd.date_range("2015-01-05", periods=7 * len(totals))
    counts = np.concatenate([np.diff(np.round(np.linspace(0, total, 8))) for total in totals])
    return pd.Series(counts.astype(int), index=days)


def test_a_week_is_held_against_those_before_and_what_their_ratio_usually_does() -> None:
    draw = np.random.default_rng(3)
    season = (300 * np.exp(0.3 * np.sin(np.arange(60) / 8) + 0.08 * draw.standard_normal(60))).astype(int)
    end = date(2015, 1, 4) + timedelta(days=7 * 60)

    def signal(last: int) -> Signal:
        return volume_signal(volume(weeks(*season[:-1], last), end), 5.0, 0.0)

    assert signal(int(season[-1])).verdict is Verdict.OK
    doubled = signal(3 * int(season[-1]))
    assert doubled.verdict is Verdict.ALARM and doubled.after == f"{3 * int(season[-1]):,} came"
    silent = signal(0)
    assert silent.verdict is Verdict.ALARM and silent.after == "0 came, none in the last 7 days"
    assert volume_signal(volume(weeks(*season[:20]), date(2015, 1, 4) + timedelta(days=140)), 5.0, 0.0).value is None


def test_days_without_a_booking_count_and_a_feed_that_ended_before_is_silent() -> None:
    steady = weeks(*[210] * 30)
    thinned = steady[steady.index.dayofweek != 2]
    end = date(2015, 1, 4) + timedelta(days=210)
    found = volume(thinned, end)
    assert found is not None and found.bookings == 180 and abs(found.z) < 1
    late = volume(steady, end + timedelta(days=10))
    assert late is not None and (late.bookings, late.silent_days) == (0, 10) and late.z < -5
    assert volume(steady[:0], end) is None


def told(reference: pd.DataFrame, current: pd.DataFrame, rows: int = 5_000) -> Signal:
    return domain_classifier(Sides.of(reference, current, rows), len(current), 0.8, 1.0)


def test_classifier_tells_a_changed_world_and_names_the_column() -> None:
    reference, current = bookings(600, 3), bookings(600, 4)
    same = told(reference, current)
    assert same.value is not None and abs(same.value - 0.5) < 0.06
    changed = told(reference, current.assign(price=current["price"] * 3))
    assert changed.value is not None and changed.value > 0.75
    assert changed.after.startswith("price median")


def test_without_asking_which_columns_tell_the_figure_is_the_same() -> None:
    sides = Sides.of(bookings(600, 3), bookings(600, 4).assign(price=lambda f: f["price"] * 3), 5_000)
    asked, unasked = (domain_classifier(sides, 600, 0.8, 1.0, telling=telling) for telling in (True, False))
    assert asked.value == unasked.value and asked.after and not unasked.after


def test_classifier_is_the_same_for_the_same_window() -> None:
    reference, current = bookings(600, 1), bookings(400, 2)
    assert told(reference, current, 300) == told(reference, current, 300)


def test_copies_of_one_booking_do_not_look_like_a_changed_world() -> None:
    # Groups of 60 equal rows: with copies on both sides of a fold the classifier would learn them by heart.
    reference = bookings(15, 1).loc[lambda f: f.index.repeat(60)]
    current = bookings(15, 2).loc[lambda f: f.index.repeat(60)]
    signal = told(reference, current)
    assert signal.value is not None and signal.value < 0.8


def test_running_records_of_agents_cannot_date_a_booking() -> None:
    reference, current = bookings(600, 1), bookings(600, 2)
    later = current.assign(agent_bookings=current["agent_bookings"] + 1_000)
    assert told(reference, later) == told(reference, current)


def test_the_classifier_looks_at_declared_columns_that_both_sides_have() -> None:
    reference = bookings(600, 3).assign(stars=1.0, country="PRT", label=0.0)
    current = bookings(600, 4).assign(stars=1.0, country="PRT", pool=1.0)
    same = told(reference, current)
    assert same.value is not None and abs(same.value - 0.5) < 0.06
    changed = told(reference, current.assign(country="ESP"))
    assert changed.value == pytest.approx(1.0)
    assert changed.after.startswith("country ")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda f: f.drop(columns="price"), "missing in the window"),
        (lambda f: f.assign(price=np.nan), "all 400 values"),
        (lambda f: f.assign(price=np.inf), "all 400 values"),
        (lambda f: f.assign(price="dear"), "all 400 values"),
        (lambda f: f.assign(price=f["price"].where(f.index < 7)), "only 7 of 400"),
    ],
)
def test_a_column_that_cannot_be_compared_says_why(broken: object, told: str) -> None:
    current = clean(broken(bookings(400, 2)))  # type: ignore[operator]
    assert told in obstacle(clean(bookings(400, 1)), current, "price")


def test_a_threshold_set_by_hand_counts_before_a_learned_one_and_that_before_the_documented() -> None:
    learned = tuple(Learned(name, 1.0, 0.25, 9, 72) for name in ("column drift", "prediction drift"))
    seen = Observation(
        champion="1",
        start=date(2016, 5, 1),
        end=date(2016, 5, 28),
        reference=bookings(800, 1),
        current=bookings(800, 2).assign(price=lambda f: f["price"] * 3),
        probability=np.full(800, 0.3),
        matured_label=np.empty(0),
        matured_probability=np.empty(0),
        importance={"price": 0.3, "lead_days": 0.7},
        reference_probability=np.full(800, 0.3),
        calibration=Calibration(date(2016, 5, 2), learned),
    )
    report = EvidentlyMonitor(MonitorSettings(prediction_drift=0.4), distance).measure(seen).report
    told = {s.name: (s.threshold, s.basis) for s in report.signals}
    assert told["column drift"] == (0.25, "learned 2016-05-02")
    assert told["prediction drift"] == (0.4, "set by hand")
    assert told["domain classifier"] == (0.9, "")
    # The learned one decides: .3 of the importance has drifted.
    own = report.signal("column drift")
    assert own is not None and own.value == pytest.approx(0.3) and own.verdict is Verdict.ALARM


def test_cleaning_reads_numbers_from_text_and_nullable_types() -> None:
    frame = pd.DataFrame({"price": ["10", "11.5"], "adults": pd.array([2, None], dtype="Int64"), "meal": [1, None]})
    cleaned = clean(frame)
    assert cleaned["price"].tolist() == [10.0, 11.5]
    assert cleaned["adults"].dtype == "float64" and cleaned["adults"].isna().tolist() == [False, True]
    assert cleaned["meal"].isna().tolist() == [False, True]


def test_the_champions_features_are_those_of_its_reference_then_what_the_window_alone_has() -> None:
    reference = bookings(3, 1).drop(columns="group_size").assign(country="PRT", stars=4.0, label=1.0)
    current = bookings(3, 2).assign(country="PRT", stars=4.0, pool=1.0, floor="2")
    numeric = (*(n for n in NUMERIC if n != "group_size"), "stars", "group_size", "pool")
    assert watched(reference, current) == FeatureSet(numeric, (*CATEGORICAL, "country", "floor"))


def test_the_kind_of_a_core_feature_is_known_and_another_ones_is_that_of_the_reference() -> None:
    reference = bookings(3, 1).assign(code=["1", "2", "3"], price=["10", "11", "12"], meal=np.nan)
    current = bookings(3, 2).assign(code=[1, 2, 3])
    features = watched(reference, current)
    assert set(features.numeric) == set(NUMERIC)
    assert set(features.categorical) == {*CATEGORICAL, "code"}
    assert clean(current, features)["code"].tolist() == ["1", "2", "3"]


def test_one_keying_error_is_moved_to_the_edge_and_a_shifted_column_is_not_hidden() -> None:
    reference = pd.Series(np.random.default_rng(1).normal(100, 10, 1_000), name="price")
    _, one = comparable(reference, pd.concat([reference, pd.Series([1e9])]).rename("price"))
    assert one.max() == pytest.approx(200, abs=15)
    _, shifted = comparable(reference, reference * 100)
    assert shifted.median() > 190


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([1.0, 2.0, 3.0], [200.0, 1234.0, 5000.0], ("median 2", "median 1,234")),
        ([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 3.0], ("mean 0.25", "mean 0.75")),
        ([1.0, 1.0], [2.0, np.nan], ("median 1, 0% missing", "median 2, 50% missing")),
    ],
)
def test_numbers_in_words(before: list[float], after: list[float], told: tuple[str, str]) -> None:
    assert describe(pd.Series(before, name="price"), pd.Series(after, name="price")) == told


def test_categories_in_words_name_the_leader_and_the_one_that_moved_most() -> None:
    before = pd.Series(["Online"] * 5 + ["Groups"] * 3 + ["Direct"] * 2, name="market_segment")
    after = pd.Series(["Online"] * 6 + ["Direct"] * 4, name="market_segment")
    assert describe(before, after) == ("Online 50%, Groups 30%", "Online 60%, Groups 0%")


def observation(current: pd.DataFrame) -> Observation:
    nothing = np.array([])
    start, end = date(2016, 5, 1), date(2016, 5, 28)
    importance = dict.fromkeys(FEATURES, 1 / len(FEATURES))
    return Observation("1", start, end, bookings(400, 1), current, nothing, nothing, nothing, importance)


@pytest.mark.parametrize(
    ("current", "told"),
    [
        (bookings(0, 2), "0 bookings in the window, 300 are needed"),
        (bookings(1, 2), "1 bookings in the window"),
        (pd.DataFrame({"colour": ["red"] * 400}), "none of the champion's 24 features"),
    ],
)
def test_a_window_that_cannot_be_judged_is_reported_not_raised(current: pd.DataFrame, told: str) -> None:
    measurement = EvidentlyMonitor(MonitorSettings()).measure(observation(current))
    assert [s.name for s in measurement.report.signals] == [
        "column drift",
        "domain classifier",
        "matured excess loss",
        "calibration bias",
        "in-flight cancellations",
        "prediction drift",
        "estimated loss",
        "volume",
    ]
    assert all(s.verdict is Verdict.NOT_EVALUATED and s.why for s in measurement.report.signals)
    assert told in measurement.report.signals[0].why
    assert measurement.report.evidence() is None


def decision(week: int, champion: str = "3", columns: tuple[ColumnDrift, ...] = ()) -> StoredDecision:
    end = date(2016, 5, 2) + timedelta(days=7 * week)
    signals = (
        Signal("column drift", 0.1 * week, 0.5, Verdict.OK, 1.0, 900),
        Signal("domain classifier", 0.85, 0.9, Verdict.WATCH, 1.0, 900),
        Signal("matured excess loss", None, 0.02, Verdict.NOT_EVALUATED, 2.0, 10, why="too few"),
    )
    report = MonitorReport(champion, Window(end - timedelta(days=27), end), 900, 5_000, signals, columns)
    return StoredDecision(str(week), report, Decision(Action.NONE, ()), None, datetime(2026, 1, 1, tzinfo=UTC))


def test_picture_is_a_small_png_of_fixed_size() -> None:
    columns = tuple(column(name, i % 2 == 0, 0.05, score=0.02 * i) for i, name in enumerate(FEATURES, 1))
    picture = ReportPictures().drift(decision(9, columns=columns), [decision(w) for w in range(1, 9)])
    assert picture.startswith(b"\x89PNG")
    assert (int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")) == (1200, 520)
    assert len(picture) < 150_000


def test_picture_of_a_first_window_without_columns_is_drawn_too() -> None:
    assert ReportPictures().drift(decision(1), []).startswith(b"\x89PNG")


def test_picture_takes_earlier_windows_in_any_order_and_none_of_another_champion() -> None:
    pictures, earlier = ReportPictures(), [decision(w) for w in (1, 2, 3)]
    drawn = pictures.drift(decision(4), earlier)
    assert pictures.drift(decision(4), [*earlier[::-1], decision(3, champion="2"), decision(5)]) == drawn
    assert pictures.drift(decision(4), earlier[1:]) != drawn


def trial(days: int, gain: float = 0.0, kind: Kind = Kind.TRIAL, state: TrialState = TrialState.RUNNING) -> Trial:
    """A trial of so many days with 100 bookings each, on which the rival gained `gain` a booking."""
    start, policy = date(2016, 5, 30), SequencePolicy()
    given = [Day(start + timedelta(days=n), 100, 100 * gain + (-1.0) ** n) for n in range(days)]
    reading = read(given, policy)
    decided_on = reading.last.day if reading.last and state.final else None
    last = start + timedelta(days=56)
    return Trial(
        "t",
        kind,
        "1",
        "2",
        3,
        start,
        start,
        last,
        Mode.AUTO,
        0.5,
        policy,
        state=state,
        decided_on=decided_on,
        evidence=reading.steps,
    )


TRIALS = {
    "nothing read": trial(0),
    "one day": trial(1),
    "in burn-in": trial(9, 0.01),
    "running": trial(40),
    "decided on its first day with bounds": trial(40, 0.5, state=TrialState.PROMOTED),
    "rejected": trial(40, -0.02, state=TrialState.REJECTED),
    "without an answer": trial(56, state=TrialState.EXPIRED),
    "withdrawn in burn-in": trial(5, state=TrialState.WITHDRAWN),
    "rolled back": trial(40, 0.02, Kind.PROBATION, TrialState.ROLLED_BACK),
}


@pytest.mark.parametrize("shown", TRIALS.values(), ids=TRIALS)
def test_picture_of_a_trial_is_a_small_png_of_fixed_size_whatever_has_been_read(shown: Trial) -> None:
    picture = ReportPictures().trial(shown)
    assert picture.startswith(b"\x89PNG")
    assert (int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")) == (1200, 760)
    assert len(picture) < 150_000


def test_picture_of_a_trial_between_two_equal_versions_has_a_height_too() -> None:
    flat = tuple(replace(s, gain=0.0, low=0.0, high=0.0) for s in trial(20).evidence)
    assert ReportPictures().trial(replace(trial(20), evidence=flat)).startswith(b"\x89PNG")


def test_pictures_say_in_words_what_the_deciding_day_found() -> None:
    assert {name: found(shown) for name, shown in TRIALS.items() if shown.state.final} == {
        "decided on its first day with bounds": "challenger v2 better",
        "rejected": "champion v1 better",
        "without an answer": "no answer",
        "withdrawn in burn-in": "no answer",
        "rolled back": "predecessor v2 better",
    }


def test_picture_of_a_trial_marks_the_deciding_day() -> None:
    decided = TRIALS["rejected"]
    assert ReportPictures().trial(decided) != ReportPictures().trial(replace(decided, decided_on=None))
