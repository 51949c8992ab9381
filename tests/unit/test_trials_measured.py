"""What `benchmarks.decisions` measures by: equals that are equal, planted better and worse ones, faults as told."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from benchmarks.faults import SERVING_FAULTS, TRAINING, Version, probabilities
from benchmarks.looks import market_of
from benchmarks.mistakes import GUARDS, HEADINGS, Aftermath, Group, Means, Mistake, Seen, Takeovers, Where
from benchmarks.real_trials import Real
from benchmarks.trials import (
    OURS,
    RULES,
    Scored,
    Stream,
    Truth,
    Usual,
    by_booking_looked_at_daily,
    by_booking_once,
    by_day_looked_at_daily,
    on_probation,
    ours,
    spread_of_shocks,
    tried,
)
from cancellations.domain.comparison import Day, log_loss
from cancellations.domain.guards import Guard
from cancellations.domain.labels import CANCELLED, maturity
from cancellations.domain.promotion import TrialState
from cancellations.sources.simulator import simulate
from cancellations.usecases.walk_forward import Market

BEGINS = date(2015, 1, 5)
TRAINED = BEGINS + timedelta(days=100)
SPREAD = 1.0


@pytest.fixture(scope="module")
def market() -> Market:
    return market_of(simulate(BEGINS, 140, 3))


@pytest.fixture(scope="module")
def cohort(market: Market) -> pd.DataFrame:
    matured_on = maturity(market.history, market.rule)
    chosen = (matured_on > pd.Timestamp(TRAINED)) & (matured_on <= pd.Timestamp(TRAINED + timedelta(days=30)))
    return market.history[chosen].assign(matured_on=matured_on[chosen])


@pytest.fixture(scope="module")
def truth(cohort: pd.DataFrame) -> Truth:
    return Truth.of(cohort, cohort["matured_on"].to_numpy().astype("datetime64[D]").astype(np.int64))


@pytest.fixture(scope="module")
def versions(cohort: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """One that knows the truth, and one that is too sure of it."""
    p = cohort["true_probability"].to_numpy()
    return p, 1 / (1 + np.exp(-2 * np.log(p / (1 - p))))


def stream(gains: np.ndarray, bookings: int = 100, noise: float = 1.0) -> Stream:
    days = tuple(Day(TRAINED + timedelta(days=n), bookings, float(g)) for n, g in enumerate(gains, start=1))
    return Stream(TRAINED, days, tuple(noise for _ in gains))


def test_endings_are_drawn_by_the_truth_averaged_over_shocks(truth: Truth) -> None:
    rng = np.random.default_rng(1)
    expected, plain = truth.expected(SPREAD), truth.expected(0.0)
    np.testing.assert_allclose(plain, 1 / (1 + np.exp(-truth.log_odds)))
    totals = np.array([truth.drawn(SPREAD, rng).sum() for _ in range(500)])
    error = totals.std() / np.sqrt(len(totals))
    assert abs(totals.mean() - expected.sum()) < 4 * error
    # The shock moves the average itself; whoever leaves that out has a drift for a null.
    assert abs(totals.mean() - plain.sum()) > 8 * error


def test_between_equals_no_side_gains_on_average(
    cohort: pd.DataFrame, truth: Truth, versions: tuple[np.ndarray, np.ndarray]
) -> None:
    rng, (old, new), expected = np.random.default_rng(2), versions, truth.expected(SPREAD)
    usual = Usual.of(cohort["matured_on"], expected, old, new)
    drawn = [Stream.of(TRAINED, cohort["matured_on"], truth.drawn(SPREAD, rng), old, new, usual) for _ in range(300)]
    means = np.array([one.mean for one in drawn])
    error = means.std() / np.sqrt(len(means))
    assert abs(means.mean()) < 4 * error
    by_day = np.array([[day.gain for day in one.days] for one in drawn])
    z = by_day.mean(axis=0) / (by_day.std(axis=0) / np.sqrt(len(drawn)))
    assert np.abs(z).max() < 4.5
    # The two are not equal in truth, by far more than that.
    assert abs((log_loss(expected, old) - log_loss(expected, new)).mean()) > 20 * error


def test_bookings_of_a_group_and_of_a_day_share_their_luck(cohort: pd.DataFrame, truth: Truth) -> None:
    def variance(one: Truth, spread: float) -> float:
        rng = np.random.default_rng(3)
        return float(np.var([one.drawn(spread, rng).sum() for _ in range(300)]))

    alone = Truth(truth.log_odds, truth.group, np.zeros(len(truth.joins)), truth.shared)
    assert variance(truth, 0.0) > 2 * variance(alone, 0.0)
    assert variance(alone, SPREAD) > 2 * variance(alone, 0.0)


def test_spreads_of_shocks_are_found_again() -> None:
    rng = np.random.default_rng(4)
    day, group = np.repeat(np.arange(400), 100), np.arange(40_000)
    base = rng.normal(-1, 1, len(day))
    lasting = np.repeat(rng.normal(0, 0.3, 40), 10)
    for own, kept in ((0.5, 0.0), (0.0, 0.0), (0.4, 1.0)):
        shock = rng.normal(0, own, 400) + kept * lasting
        chance = 1 / (1 + np.exp(-(base + shock[day])))
        label, probability = (rng.random(len(day)) < chance).astype(float), 1 / (1 + np.exp(-base))
        found = spread_of_shocks(label - probability, probability, day, group)
        assert found == pytest.approx((own, 0.3 * kept), abs=0.12)


def test_copies_within_a_group_are_no_shock() -> None:
    rng = np.random.default_rng(5)
    day = np.repeat(np.arange(300), 100)
    group = np.arange(len(day)) // 10
    label = np.repeat(rng.random(len(day) // 10) < 0.4, 10).astype(float)
    day_shock, _ = spread_of_shocks(label - 0.4, np.full(len(day), 0.4), day, group)
    as_if_alone, _ = spread_of_shocks(label - 0.4, np.full(len(day), 0.4), day, np.arange(len(day)))
    assert day_shock < 0.15 < as_if_alone


def test_a_planted_better_version_is_promoted_and_a_worse_one_is_not() -> None:
    rng = np.random.default_rng(6)
    better = stream(rng.normal(2.0, 1.0, 56))
    assert tried(better).state is TrialState.PROMOTED
    assert ours(better) == tried(better).days < 25
    worse = better.turned()
    assert (ours(worse), tried(worse).state) == (None, TrialState.REJECTED)
    assert tried(stream(rng.normal(0, 1.0, 56))).state is TrialState.EXPIRED


def test_a_probation_asks_the_other_way_round_and_ends_earlier() -> None:
    rng = np.random.default_rng(7)
    worse = stream(rng.normal(-2.0, 1.0, 56))
    assert on_probation(worse).state is TrialState.ROLLED_BACK
    assert on_probation(worse.turned()).state is TrialState.CONFIRMED
    late = stream(np.concatenate([rng.normal(0, 1.0, 42), np.full(14, -9.0)]))
    assert (on_probation(late).state, on_probation(late).days) == (TrialState.EXPIRED, 42)
    assert tried(late.turned()).state is TrialState.PROMOTED


def test_whoever_peeks_at_a_z_test_promotes_equals_and_ours_does_not() -> None:
    rng = np.random.default_rng(8)
    streams = [stream(rng.normal(0, 1, 56)) for _ in range(300)]
    found = {name: np.mean([rule(one) is not None for one in streams]) for name, rule in RULES.items()}
    assert found[OURS] < 0.05 < 0.12 < found["z-test by day, looked at daily"]
    assert found["new metric > old metric, after 14 days"] == pytest.approx(0.5, abs=0.1)


def test_rules_look_when_they_say() -> None:
    # Bookings with a spread of 1 each; 100 of them a day, which gain 30 in all.
    steady = stream(np.full(56, 30.0) + np.resize([1.0, -1.0], 56), noise=100.0)
    assert by_booking_once(steady) == 28
    assert by_booking_looked_at_daily(steady) == by_day_looked_at_daily(steady) == 14
    early = stream(np.concatenate([np.full(20, 30.0), np.full(36, -30.0)]) + np.resize([1.0, -1.0], 56), noise=100.0)
    assert (by_booking_looked_at_daily(early), by_booking_once(early.until(TRAINED + timedelta(days=20)))) == (14, None)


def test_signs_are_flipped_by_whole_runs_and_nothing_else_changes() -> None:
    whole = stream(np.arange(1.0, 57.0))
    for days in (1, 7):
        flipped = whole.flipped(np.random.default_rng(9), days)
        gains = np.array([day.gain for day in flipped.days])
        np.testing.assert_array_equal(np.abs(gains), np.arange(1.0, 57.0))
        signs = np.sign(gains).reshape(-1, days)
        assert (signs == signs[:, :1]).all()
        assert len(set(signs[:, 0])) == 2
        assert flipped.squares == whole.squares


def test_wrong_labels_are_wrong_as_they_are_told(market: Market) -> None:
    sound = TRAINING[None](market, TRAINED, 1)
    turned = TRAINING["labels flipped, 20 %"](market, TRAINED, 1)
    assert (turned.label != sound.label).mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_array_equal(turned.row, sound.row)
    ended = market.history["status"].isin(CANCELLED).to_numpy()
    known = TRAINING["labels known so far"](market, TRAINED, 1)
    assert (market.history["known_on"].iloc[known.row] <= pd.Timestamp(TRAINED)).all()
    np.testing.assert_array_equal(known.label, ended[known.row])
    pending = TRAINING["pending as kept"](market, TRAINED, 1)
    booked = int((market.history["booked_on"] <= pd.Timestamp(TRAINED)).sum())
    assert len(pending) == booked > len(known) > len(sound)
    assert pending.label.sum() == known.label.sum() < ended[pending.row].sum()


def test_versions_are_asked_of_what_matured_later_and_faulty_ones_say_something_else(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.faults.LATELY_DAYS", 10)
    asked = [Version(TRAINED), *(Version(TRAINED, fault) for fault in SERVING_FAULTS)]
    found = probabilities(market, asked, 1)
    later = (maturity(market.history, market.rule) > pd.Timestamp(TRAINED)).to_numpy()
    lately = (market.history["booked_on"] > pd.Timestamp(TRAINED - timedelta(days=10))).to_numpy()
    taught = np.isin(np.arange(len(later)), TRAINING[None](market, TRAINED, 1).row)
    for probability in found.values():
        np.testing.assert_array_equal(np.isfinite(probability), later | lately | taught)
    sound = found[Version(TRAINED)][later]
    for fault in SERVING_FAULTS:
        assert np.abs(found[Version(TRAINED, fault)][later] - sound).mean() > 0.001, fault
    scored = Scored.of(market, found)
    trial = scored.stream(Version(TRAINED, "lead time 0"), Version(TRAINED), TRAINED, TRAINED + timedelta(days=30))
    assert [day.day for day in trial.days] == [TRAINED + timedelta(days=n) for n in range(1, 31)]
    assert trial.mean > 0


def test_what_breaks_with_a_takeover_is_seen_at_once_and_a_sound_one_is_left_alone(market: Market) -> None:
    fault, older = "lead time 0", TRAINED - timedelta(weeks=4)
    asked = [Version(day, what) for day in (TRAINED, older) for what in (None, fault)]
    scored = Scored.of(market, probabilities(market, asked, 1))
    takeovers = Takeovers(Real(market, scored, [TRAINED], BEGINS + timedelta(days=139)))
    sound = takeovers.after(TRAINED, 4)
    assert (sound.fired, sound.seen, sound.first) == (frozenset(), (), None)
    broken = takeovers.after(TRAINED, 4, Mistake(fault, Where.TAKEOVER))
    # What it scored is not what it says of the stored features, and guards of the pair see this one, too.
    assert broken.fired is not None and {Guard.RECORD} < broken.fired
    assert broken.first is not None
    assert broken.first.means is Means.GUARD
    assert GUARDS.rows <= broken.first.rows < 3 * GUARDS.rows
    # Of the bookings that were open on that day it says what a sound one says, so that their outcomes tell little.
    since_made = takeovers.after(TRAINED, 4, Mistake(fault, Where.SCORING))
    assert since_made.worse
    assert since_made.fired == {Guard.LABELS}
    assert since_made.by(Means.PROBATION) is not None
    # The checks see the first day of a broken feed whole, before a guard looks.
    rows = market.rows(TRAINED, TRAINED + timedelta(days=1))
    fed = takeovers.after(TRAINED, 4, Mistake(fault, Where.FEED))
    assert fed.by(Means.GUARD) is not None
    assert Guard.RECORD not in (fed.fired or ())
    assert fed.first == Seen(Means.HOLD, 1, rows.stop - rows.start)


def test_labels_that_were_not_on_record_are_seen_whatever_else_agrees(market: Market) -> None:
    older, wrong = TRAINED - timedelta(weeks=4), ["labels flipped, 10 %", "labels known so far", "pending as kept"]
    asked = [Version(older), *(Version(TRAINED, what) for what in (None, *wrong))]
    scored = Scored.of(market, probabilities(market, asked, 1))
    takeovers = Takeovers(Real(market, scored, [TRAINED], BEGINS + timedelta(days=139)))
    assert takeovers.after(TRAINED, 4).fired == frozenset()
    for fault in wrong:
        assert Guard.LABELS in (takeovers.after(TRAINED, 4, Mistake(fault)).fired or ()), fault


def test_a_row_of_the_table_counts_what_saw_each_takeover_first() -> None:
    guards = frozenset({Guard.RANKS, Guard.LOSS})
    held = Aftermath(
        True, guards, (Seen(Means.PROBATION, 14, 1_800), Seen(Means.GUARD, 1, 277), Seen(Means.HOLD, 1, 90))
    )
    by_guard = Aftermath(True, frozenset({Guard.RANKS}), (Seen(Means.PROBATION, 14, 1_800), Seen(Means.GUARD, 2, 301)))
    late = Aftermath(True, frozenset(), (Seen(Means.PROBATION, 33, 4_000),))
    unseen, sound = Aftermath(True, None, ()), Aftermath(False, frozenset(), ())
    found = [held, by_guard, late, unseen, sound]
    row = Group("lead time 0", Where.FEED, "8 weeks", found, [one for one in found if one.worse]).row()
    told = dict(zip(HEADINGS, row, strict=True))
    assert [told[name] for name in ("takeovers", "worse", "asked", "nothing", "within 28 days")] == list("54412")
    assert [told[means] for means in Means] == ["1", "1", "1"]
    assert told["guards that fire"] == f"{Guard.RANKS} 2, {Guard.LOSS} 1"
    assert told["bookings until seen"] == "301 (90 to 4,000)"
    assert told["days until seen"] == "2 (1 to 33)"
