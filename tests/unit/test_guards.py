"""What guards say of a new champion's first bookings, by the same pair's usual agreement."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancellations.domain.guards import (
    FIGURES,
    Guard,
    GuardFinding,
    GuardPolicy,
    Outcome,
    Pair,
    expected_loss,
    learnt,
    look,
    rank_correlation,
    repeated,
    stability_index,
    student_quantile,
)

POLICY = GuardPolicy()
scores = st.lists(st.floats(0.001, 0.999), min_size=5, max_size=60).map(np.array)
pairs = st.integers(5, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(0.001, 0.999), min_size=n, max_size=n).map(np.array)] * 2)
)


def of_logits(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def logits(scores: np.ndarray) -> np.ndarray:
    return np.log(scores / (1 - scores))


def drawn(seed: int, bookings: int, apart: float) -> Pair:
    """Two versions whose log odds differ by noise of a deviation `apart`; days differ in their level."""
    draw = np.random.default_rng(seed)
    level = np.repeat(draw.normal(0, 0.2, bookings // 100 + 1), 100)[:bookings]
    old = draw.normal(-0.6, 1.4, bookings) + level
    return Pair(of_logits(old + draw.normal(0, apart, bookings)), of_logits(old))


def fired(findings: tuple[GuardFinding, ...]) -> set[Guard]:
    return {finding.guard for finding in findings if finding.outcome is Outcome.FIRED}


@given(pairs)
def test_two_champions_agree_with_each_other_alike(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    assert rank_correlation(one, other) == pytest.approx(rank_correlation(other, one))
    assert stability_index(one, other) == pytest.approx(stability_index(other, one))
    assert -1 - 1e-9 <= rank_correlation(one, other) <= 1 + 1e-9 and stability_index(one, other) >= 0


@given(scores, st.randoms(use_true_random=False))
def test_whoever_says_the_same_agrees_and_the_order_of_bookings_is_nothing(of: np.ndarray, shuffle: object) -> None:
    order = np.random.default_rng(shuffle.randrange(1000)).permutation(len(of))  # type: ignore[attr-defined]
    other = of[::-1] ** 2
    assert stability_index(of, of) == 0
    assert rank_correlation(of, of) == pytest.approx(1.0 if len(np.unique(of)) > 1 else 0.0)
    assert rank_correlation(of, other) == pytest.approx(rank_correlation(of[order], other[order]))
    assert stability_index(of, other) == pytest.approx(stability_index(of[order], other[order]))
    assert expected_loss(of) == pytest.approx(expected_loss(1 - of))


def test_ranks_are_those_of_spearman() -> None:
    draw = np.random.default_rng(3)
    one, other = draw.integers(0, 9, (2, 40)).astype(float)
    assert rank_correlation(one, other) == pytest.approx(pd.Series(one).corr(pd.Series(other), method="spearman"))
    assert rank_correlation(one, np.full(40, 0.3)) == 0.0


def test_scores_expect_their_entropy() -> None:
    assert expected_loss(np.array([0.5, 0.5])) == pytest.approx(math.log(2))
    assert expected_loss(np.array([0.0, 1.0])) < 1e-4


@pytest.mark.parametrize("apart", [0.1, 0.5, 1.5])
def test_a_healthy_successor_passes_however_old_the_champion(apart: float) -> None:
    """A champion of half a year agrees little with its successor, before the change as well as after it."""
    whole = [look((pair := drawn(seed, 4_200, apart))[4_000:], pair[:4_000], POLICY) for seed in range(60)]
    assert sum(bool(fired(findings)) for findings in whole) <= 4
    assert {f.outcome for findings in whole[:1] for f in findings} == {Outcome.PASSED}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5]))
def test_what_fails_on_the_day_of_the_change_is_seen(seed: int, apart: float) -> None:
    pair = drawn(seed, 4_200, apart)
    first, before = pair[4_000:], pair[:4_000]
    scrambled = Pair(np.random.default_rng(seed).permutation(first.new), first.old)
    assert Guard.RANKS in fired(look(scrambled, before, POLICY))
    assert Guard.RANKS in fired(look(Pair(np.full(200, 0.4), first.old), before, POLICY))
    swollen = Pair(of_logits(logits(first.new) + 2.5), first.old)
    assert Guard.SPREAD in fired(look(swollen, before, POLICY))
    for factor in (4, 0.25):
        surer = Pair(of_logits(factor * logits(first.new)), of_logits(factor * logits(first.old)))
        assert Guard.LOSS in fired(look(surer, before, POLICY))
    higher = Pair(of_logits(logits(first.new) + 0.3 * (1 + apart)), first.old)
    assert Guard.LEVEL in fired(look(higher, before, POLICY))
    wider = Pair(of_logits(logits(first.old) + 4 * (logits(first.new) - logits(first.old))), first.old)
    assert Guard.SCATTER in fired(look(wider, before, POLICY))


def test_samples_are_the_last_bookings_before_the_change() -> None:
    strange, usual, first = drawn(1, 4_000, 3.0), drawn(2, 2_000, 0.3), drawn(3, 200, 0.3)
    before = Pair(np.concatenate([strange.new, usual.new]), np.concatenate([strange.old, usual.old]))
    ten = GuardPolicy(samples=10)
    assert look(first, before, ten) == look(first, usual, ten)
    assert {finding.samples for finding in look(first, before, POLICY)} == {20}


def test_too_few_bookings_before_the_change_say_nothing() -> None:
    first = drawn(3, 200, 0.3)
    findings = look(Pair(first.new[::-1], first.old), drawn(2, 1_199, 0.3), POLICY)
    assert [f.outcome for f in findings] == [Outcome.NOT_EVALUATED] * len(FIGURES)
    assert "5 samples from before the change are too few" in str(findings[0])
    assert fired(look(Pair(first.new[::-1], first.old), drawn(2, 1_200, 0.3), POLICY))


def test_the_estimated_loss_takes_a_fifth_of_the_chance_of_the_others() -> None:
    """It moves with who books, too; the others compare two versions on the same bookings."""
    before = drawn(2, 4_000, 0.3)
    found = {finding.guard: finding for finding in look(drawn(3, 200, 0.3), before, POLICY)}
    losses = np.log([expected_loss(before.new[n : n + 200]) for n in range(0, 4_000, 200)])
    spread = max(losses.std(ddof=1), 0.02) * math.sqrt(1 + 1 / 20)
    assert found[Guard.LOSS].high == pytest.approx(
        math.exp(losses.mean() + student_quantile(1 - 0.005 / 5 / 2, 19) * spread), rel=1e-4
    )
    levels = [
        float((logits(p.new) - logits(p.old)).mean()) for p in (before[n : n + 200] for n in range(0, 4_000, 200))
    ]
    spread = max(np.std(levels, ddof=1), 0.02) * math.sqrt(1 + 1 / 20)
    assert found[Guard.LEVEL].high == pytest.approx(
        np.mean(levels) + student_quantile(1 - 0.005 / 2, 19) * spread, rel=1e-2
    )


def test_versions_that_are_nearly_one_are_not_told_apart_by_a_hair() -> None:
    """A spread of nothing among the samples must not make a limit of nothing."""
    old = drawn(1, 4_200, 0.3).old
    new = old.copy()
    new[4_000:4_010] *= 1.02
    assert not fired(look(Pair(new, old)[4_000:], Pair(old, old)[:4_000], POLICY))


def test_a_version_that_has_learnt_other_labels_is_told_by_its_mean() -> None:
    label = np.repeat([1.0, 0.0], [300, 700])
    weight = np.where(label > 0, 0.5, 1.0)
    share = 150 / 850
    sound = learnt(np.full(1_000, share + 0.0029), label, weight, POLICY)
    assert (sound.guard, sound.outcome, sound.rows) == (Guard.LABELS, Outcome.PASSED, 1_000)
    assert sound.value == pytest.approx(0.0029)
    for apart in (-0.0031, 0.0031):
        assert learnt(np.full(1_000, share + apart), label, weight, POLICY).outcome is Outcome.FIRED
    # A tenth of the labels turned round, and learnt as they were.
    turned = 0.9 * share + 0.1 * (1 - share)
    assert str(learnt(np.full(1_000, turned), label, weight, POLICY)) == (
        "labels that it learnt: fired, mean probability +0.0647 from what became of 1,000 bookings (fires below -0.0030"
        " or above +0.0030)"
    )


def test_a_version_whose_training_is_not_on_record_is_not_judged_by_it() -> None:
    nothing = learnt(np.empty(0), np.empty(0), np.empty(0), POLICY)
    assert nothing.outcome is Outcome.NOT_EVALUATED
    assert "no version of matured labels whose training is on record" in str(nothing)


def test_a_version_that_says_something_else_of_a_booking_than_it_did_is_told() -> None:
    recorded = drawn(3, 400, 0.3).new
    same = repeated(recorded, recorded + 1e-9)
    assert (same.guard, same.outcome, same.rows) == (Guard.RECORD, Outcome.PASSED, 400)
    for other in (recorded[7] + 2e-6, recorded[7] - 2e-6, math.nan):
        again = recorded.copy()
        again[7] = other
        found = repeated(recorded, again)
        assert found.outcome is Outcome.FIRED
        assert (
            str(found)
            == "scores on record: fired, 1 of 400 bookings get another score now from the same stored features"
        )
    nothing = repeated(np.empty(0), np.empty(0))
    assert nothing.outcome is Outcome.NOT_EVALUATED
    assert "of no booking that it has scored the features are stored" in str(nothing)


def test_a_finding_tells_value_limit_and_rows() -> None:
    findings = look(drawn(3, 200, 0.3), drawn(2, 4_000, 0.3), POLICY)
    ranks, spread, _, _, loss = findings
    assert (ranks.high, spread.low) == (None, None) and ranks.low is not None and loss.low is not None
    assert ranks.low < ranks.value
    assert str(ranks) == (
        f"agreement of ranks on the first 200 bookings: passed, {ranks.value:.3f} (usually {ranks.usual:.3f}, in 20"
        f" samples of as many from before the change; fires below {ranks.low:.3f})"
    )
    assert f"fires below {loss.low:.3f} or above {loss.high:.3f}" in str(loss)


def test_quantiles_are_student_s() -> None:
    """Tables of the distribution, to 2 %."""
    for freedom, exact in ((5, 5.893), (10, 4.144), (19, 3.579), (100, 3.174)):
        assert student_quantile(0.999, freedom) == pytest.approx(exact, rel=0.02)
    assert student_quantile(0.975, 30) == pytest.approx(2.042, rel=0.001)


def test_scores_that_are_missing_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 bookings lack a score"):
        Pair(np.array([0.1, np.nan]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="2 scores by the new champion, 1 by the old one"):
        Pair(np.array([0.1, 0.2]), np.array([0.1]))


@pytest.mark.parametrize(
    "wrong", [{"rows": 20}, {"chance": 0.0}, {"chance": 0.2}, {"least_samples": 3}, {"samples": 5}]
)
def test_a_policy_without_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GuardPolicy(**wrong)  # type: ignore[arg-type]
