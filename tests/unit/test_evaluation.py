"""Figures of a version: scikit-learn's values, intervals that hold what they promise, and a seed that repeats them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from cancellations.domain.evaluation import (
    AUC,
    AVERAGE_PRECISION,
    BIAS,
    BRIER,
    CALIBRATION_ERROR,
    FIGURES,
    LOG_LOSS,
    Evaluation,
    Interval,
    equal_count_bins,
    means,
)
from cancellations.errors import BadInput, NotEnoughData
from cancellations.metrics import GroupBootstrap

# As the largest in the public file that still come by the dozen; most bookings are alone.
GROUP_ROWS, GROUPS = 8, 150


def evaluate(label: np.ndarray, probability: np.ndarray, groups: np.ndarray | None = None, seed: int = 1) -> Evaluation:
    return GroupBootstrap().evaluate(label, probability, np.arange(len(label)) if groups is None else groups, seed)


def figure(evaluation: Evaluation, name: str) -> Interval:
    found = evaluation.figures[name]
    assert found is not None
    return found


def grouped_bookings(rng: np.random.Generator, groups: int = GROUPS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, calibrated probability and group of bookings; a group comes or cancels as one."""
    chance = rng.beta(1.2, 2.0, groups)
    together = rng.random(groups) < chance
    key = np.repeat(np.arange(groups), rng.integers(1, GROUP_ROWS + 1, groups))
    return together[key].astype(float), chance[key], key


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=4, max_size=60))
def test_figures_are_those_of_scikit_learn_with_and_without_ties(rows: list[tuple[bool, int]]) -> None:
    label = np.array([float(cancelled) for cancelled, _ in rows])
    probability = np.array([0.05 + 0.09 * tenth for _, tenth in rows])
    found = evaluate(label, probability)
    if label.min() == label.max():
        assert found.figures[AUC] is None and found.figures[AVERAGE_PRECISION] is None
    else:
        assert figure(found, AUC).value == pytest.approx(roc_auc_score(label, probability))
        assert figure(found, AVERAGE_PRECISION).value == pytest.approx(average_precision_score(label, probability))
    assert figure(found, LOG_LOSS).value == pytest.approx(log_loss(label, probability, labels=[0, 1]))
    assert figure(found, BRIER).value == pytest.approx(brier_score_loss(label, probability, labels=[0, 1]))
    assert figure(found, BIAS).value == pytest.approx(probability.mean() - label.mean())


def test_a_resample_counts_its_rows_as_scikit_learn_counts_weights() -> None:
    label, probability, groups = grouped_bookings(np.random.default_rng(5), 12)
    # One group counted twice is the same as its rows written twice.
    twice = np.r_[np.arange(len(label)), np.flatnonzero(groups == 3)]
    weight = 1.0 + (groups == 3)
    found = evaluate(label[twice], probability[twice])
    assert figure(found, AUC).value == pytest.approx(roc_auc_score(label, probability, sample_weight=weight))
    expected = average_precision_score(label, probability, sample_weight=weight)
    assert figure(found, AVERAGE_PRECISION).value == pytest.approx(expected)


def test_the_calibration_error_is_the_mean_gap_of_ten_bins_of_as_many_rows() -> None:
    probability = np.linspace(0.005, 0.995, 100)
    label = (np.arange(100) % 10 < 5).astype(float)  # half of each bin was cancelled
    gaps = [abs(probability[10 * b : 10 * b + 10].mean() - 0.5) for b in range(10)]
    assert figure(evaluate(label, probability), CALIBRATION_ERROR).value == pytest.approx(np.mean(gaps))


def test_intervals_by_group_hold_the_truth_as_often_as_they_say_and_intervals_by_row_do_not() -> None:
    """Of 120 at 95 % fewer than 105 would be rarer than one in a thousand."""
    rng = np.random.default_rng(11)
    told = (AUC, LOG_LOSS, BRIER, BIAS)
    all_there_are = GroupBootstrap(resamples=2).evaluate(*grouped_bookings(rng, 60_000), seed=0)
    by_group, by_row = dict.fromkeys(told, 0), dict.fromkeys(told, 0)
    for look in range(120):
        label, probability, groups = grouped_bookings(rng)
        for hits, keys in ((by_group, groups), (by_row, np.arange(len(label)))):
            found = evaluate(label, probability, keys, look)
            for name in told:
                interval = figure(found, name)
                assert interval.low is not None and interval.high is not None
                hits[name] += interval.low <= figure(all_there_are, name).value <= interval.high
    assert min(by_group.values()) >= 105, by_group
    assert max(by_row.values()) < 100, by_row


def test_the_calibration_error_of_calibrated_scores_may_be_nothing_and_of_others_is_not() -> None:
    rng = np.random.default_rng(3)
    sound, broken = [], []
    for look in range(60):
        label, probability, groups = grouped_bookings(rng, 600)
        sound.append(figure(evaluate(label, probability, groups, look), CALIBRATION_ERROR).low)
        broken.append(figure(evaluate(label, probability**3, groups, look), CALIBRATION_ERROR).low)
    assert sum(low == 0 for low in sound) >= 57
    assert sum(low is not None and low > 0.05 for low in broken) >= 57


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    cohort = grouped_bookings(np.random.default_rng(2))
    assert evaluate(*cohort, seed=4) == evaluate(*cohort, seed=4)
    assert evaluate(*cohort, seed=4).figures != evaluate(*cohort, seed=5).figures


def test_the_order_of_rows_changes_no_figure() -> None:
    rng = np.random.default_rng(6)
    label, probability, groups = grouped_bookings(rng)
    probability = np.round(probability, 1)
    shuffled = rng.permutation(len(label))
    one, other = (
        evaluate(label, probability, groups),
        evaluate(label[shuffled], probability[shuffled], groups[shuffled]),
    )
    for name in FIGURES:
        assert figure(one, name).value == pytest.approx(figure(other, name).value)
        assert figure(one, name).low == pytest.approx(figure(other, name).low)


def test_metrics_are_flat_and_leave_out_what_cannot_be_told() -> None:
    label, probability, groups = grouped_bookings(np.random.default_rng(2))
    assert set(evaluate(label, probability, groups).figures) == set(FIGURES)
    told = evaluate(label, probability, groups).metrics("backtest_")
    names = {f"backtest_{name}{part}" for name in FIGURES for part in ("", "_low", "_high")}
    assert set(told) == names | {"backtest_rows", "backtest_groups"}
    assert told["backtest_groups"] == GROUPS and told["backtest_rows"] == len(label)
    for name in (AUC, AVERAGE_PRECISION, LOG_LOSS, BRIER, BIAS):
        assert told[f"backtest_{name}_low"] < told[f"backtest_{name}"] < told[f"backtest_{name}_high"]

    alone = evaluate(np.array([1.0, 1.0]), np.array([0.4, 0.6]), np.array([7, 7]))
    assert set(alone.metrics()) == {"rows", "groups", LOG_LOSS, BRIER, CALIBRATION_ERROR, BIAS}


@pytest.mark.parametrize(
    ("label", "probability", "groups", "error", "told"),
    [
        ([], [], [], NotEnoughData, "no booking with a final outcome"),
        ([0, 1], [0.5], [1, 2], BadInput, "2 labels, 1 probabilities and 2 groups"),
        ([0, 2, np.nan], [0.5] * 3, [1, 2, 3], BadInput, "2 labels are neither 0"),
        ([0, 1, 1], [0.5, np.nan, 1.5], [1, 2, 3], BadInput, "2 of 3 probabilities"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_what_was_found(
    label: list[float], probability: list[float], groups: list[int], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        GroupBootstrap().evaluate(np.array(label), np.array(probability), np.array(groups), 1)


@given(st.lists(st.integers(0, 12).map(lambda tenth: tenth / 12), min_size=1, max_size=80))
def test_bins_rise_with_the_probability_and_never_part_equal_ones(values: list[float]) -> None:
    probability = np.array(values)
    found = equal_count_bins(probability)
    assert set(found) == set(range(found.max() + 1)) and found.max() < 10
    order = np.argsort(probability, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert all(len(set(found[probability == value])) == 1 for value in values)


def test_means_by_cell_tell_no_bounds_for_one_group_and_nothing_for_an_empty_cell() -> None:
    values, cell, groups = np.array([1.0, 3.0, 5.0, 9.0]), np.array([0, 0, 2, 2]), np.array([1, 2, 3, 3])
    first, empty, alone = means(values, cell, groups, seed=1)
    assert first is not None and (first.value, first.low, first.high) == (2.0, 1.0, 3.0)
    assert empty is None
    assert alone == Interval(7.0, None, None)
