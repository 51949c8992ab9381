"""A day's bookings against what their columns have shown: breaks are seen whole, ordinary days are left alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from cancellations.domain.checks import Check, CheckPolicy, Finding, Record, check, learn
from cancellations.domain.retraining import Action, RetrainHistory, RetrainPolicy, Signal, Verdict, decide_retrain
from cancellations.domain.volume import silence

POLICY = CheckPolicy()
FIRST = pd.Timestamp("2016-01-01")


World = tuple[pd.DataFrame, pd.Series, np.ndarray]


def year(seed: int, days: int = 200, a_day: int = 60) -> World:
    """Features, day of booking and group: days differ from one another, and a third of the bookings are copies."""
    draw = np.random.default_rng(seed)
    parts, booked = [], []
    for day in range(days):
        rows = int(draw.poisson(a_day)) + 20
        taste = draw.beta(40, 60)
        frame = pd.DataFrame(
            {
                "lead_days": np.floor(draw.exponential(40 * (0.8 + 0.4 * draw.random()), rows)),
                "price": draw.gamma(20, 5 * (1 + 0.2 * np.sin(day / 30)), rows),
                "babies": (draw.random(rows) < 0.02).astype(float),
                "agent_cancel_rate": np.where(draw.random(rows) < 0.1, np.nan, draw.beta(3, 6, rows)),
                "market_segment": np.where(draw.random(rows) < taste, "Online TA", "Groups"),
                "room_type": draw.choice(["A", "B", "C", "D"], rows, p=[0.7, 0.2, 0.08, 0.02]),
            }
        )
        copies = draw.integers(0, rows, rows // 2)
        frame.loc[rows - len(copies) :] = frame.loc[copies].to_numpy()
        group = np.concatenate([np.arange(rows - len(copies)), copies]) + 10_000 * day
        parts.append(frame.infer_objects().astype({"market_segment": object, "room_type": object}).assign(group=group))
        booked.append(pd.Series(FIRST + pd.Timedelta(days=day), index=range(rows)))
    whole = pd.concat(parts, ignore_index=True)
    features = whole.drop(columns="group").astype(dict.fromkeys(("lead_days", "price", "babies"), float))
    return features, pd.concat(booked, ignore_index=True), whole["group"].to_numpy()


@pytest.fixture(scope="module")
def world() -> World:
    return year(1)


def third(frame: pd.DataFrame) -> np.ndarray:
    return np.arange(len(frame)) % 3 == 0


def last_day(world: World, change: Callable[[pd.DataFrame], pd.DataFrame]) -> tuple[Finding, ...]:
    """What is found about the last day, changed, by what the days before have shown."""
    features, booked_on, groups = world
    today = (booked_on == booked_on.max()).to_numpy()
    past = learn(features[~today], booked_on[~today], groups[~today])
    changed = pd.concat([features[~today].tail(500), change(features[today].copy())])
    return check(changed, booked_on[changed.index], groups[changed.index], past, POLICY)


@pytest.mark.parametrize(
    ("gaps", "quiet", "unusual"),
    [
        ((), 1, False),  # a day is not yet two
        ((), 2, True),
        ((3,), 5, False),  # a small hotel has pauses of its own
        ((3,), 6, True),
        ((3, 9), 17, False),
    ],
)
def test_a_silence_is_measured_by_the_longest_pause_of_the_year(
    gaps: tuple[int, ...], quiet: int, unusual: bool
) -> None:
    days = pd.date_range("2015-01-05", periods=150)
    silent = {days[20 + 40 * n + m] for n, gap in enumerate(gaps) for m in range(gap)}
    daily = pd.Series({day: 0 if day in silent else 7 for day in days})
    found = silence(daily, (days[-1] + pd.Timedelta(days=quiet)).date())
    assert found is not None
    assert (found.since, found.days, found.longest) == (days[-1].date(), quiet, max(gaps, default=0))
    assert found.unusual(POLICY.silent_days) is unusual


def test_of_a_short_history_no_silence_is_told() -> None:
    days = pd.date_range("2015-01-05", periods=56)
    assert silence(pd.Series(3, index=days), date(2015, 6, 1)) is None
    assert silence(pd.Series(dtype="int64", index=pd.DatetimeIndex([])), date(2015, 6, 1)) is None


def test_ordinary_days_pass(world: World) -> None:
    features, booked_on, groups = world
    days = booked_on.unique()
    past = learn(*(part[(booked_on < days[100]).to_numpy()] for part in world))
    for day in days[100:]:
        run = booked_on.between(day - pd.Timedelta(days=6), day).to_numpy()
        assert check(features[run], booked_on[run], groups[run], past, POLICY) == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: f.assign(price=np.nan), {("price", Check.MISSING)}),
        (lambda f: f.assign(price=f["price"].where(np.arange(len(f)) % 2 == 0)), {("price", Check.MISSING)}),
        (lambda f: f.assign(price=f["price"] * 100), {("price", Check.RANGE)}),
        (lambda f: f.assign(price=f["price"] / 100), {("price", Check.RANGE)}),
        (lambda f: f.assign(price=np.inf), {("price", Check.RANGE), ("price", Check.CONSTANT)}),
        (lambda f: f.assign(lead_days=f["lead_days"] / 7), {("lead_days", Check.FRACTION)}),
        (lambda f: f.assign(lead_days=0.0), {("lead_days", Check.CONSTANT)}),
        (lambda f: f.assign(agent_cancel_rate=0.37), {("agent_cancel_rate", Check.CONSTANT)}),
        (lambda f: f.assign(market_segment="Groups"), {("market_segment", Check.CONSTANT)}),
        # A default in place of every third value: one that is common, one that is known and rare, a number.
        (lambda f: f.assign(room_type=f["room_type"].mask(third(f), "D")), {("room_type", Check.FREQUENT)}),
        (lambda f: f.assign(lead_days=f["lead_days"].mask(third(f), 0.0)), {("lead_days", Check.FREQUENT)}),
        (lambda f: f.assign(price=f["price"].mask(third(f), 100.0)), {("price", Check.FREQUENT)}),
        (lambda f: f.assign(room_type=f["room_type"].str.lower()), {("room_type", Check.UNSEEN)}),
        (lambda f: f.assign(room_type=np.nan), {("room_type", Check.MISSING)}),
        (lambda f: f.drop(columns="price"), {("price", Check.MISSING)}),
    ],
    ids=[
        "gone", "half gone", "other unit up", "other unit down", "infinite", "weeks for days", "zeroed",
        "emptied history", "one segment", "a third one room type", "a third zeroed", "a third one price",
        "other spelling", "no category", "column not delivered",
    ],
)  # fmt: skip
def test_a_break_is_found_in_its_column_and_nowhere_else(
    world: World,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    expected: set[tuple[str, Check]],
) -> None:
    found = last_day(world, change)
    assert expected <= {(f.column, f.check) for f in found}
    assert {f.column for f in found} == {column for column, _ in expected}
    assert all(f.odd <= f.rows and f.chance < 1e-4 for f in found)


def test_a_column_that_no_frame_has_any_more_is_absent(world: World) -> None:
    features, booked_on, groups = world
    past = learn(features, booked_on, groups)
    (found,) = check(features.drop(columns="price"), booked_on, groups, past, POLICY)
    assert (found.column, found.check) == ("price", Check.ABSENT)


def test_what_is_often_one_value_for_a_day_is_found_when_it_lasts(
    world: World,
) -> None:
    features, booked_on, groups = world
    first = booked_on.max() - pd.Timedelta(days=28)
    past = learn(*(part[(booked_on < first).to_numpy()] for part in world))
    run = (booked_on >= first).to_numpy()
    zeroed = features.assign(babies=0.0)
    rows = []
    for days in (1, 28):
        recent = run & (booked_on > booked_on.max() - pd.Timedelta(days=days)).to_numpy()
        found = check(zeroed[recent], booked_on[recent], groups[recent], past, POLICY)
        rows.append([(f.column, f.check) for f in found])
    assert rows == [[], [("babies", Check.CONSTANT)]]


def test_one_group_of_many_copies_is_one_booking(world: World) -> None:
    features, booked_on, groups = world
    today = np.flatnonzero((booked_on == booked_on.max()).to_numpy())
    past = learn(features.drop(today), booked_on.drop(today), np.delete(groups, today))
    odd = features.loc[today].copy()
    strange = np.r_[today, np.repeat(today[0], 40)]
    odd = odd.loc[strange].reset_index(drop=True)
    odd.loc[len(today) :, "room_type"] = "Cave"
    days = pd.Series([booked_on.max()] * len(odd))
    as_group = np.r_[groups[today], np.full(40, 999_999)]
    assert check(odd, days, as_group, past, POLICY) == ()
    each_for_itself = np.r_[groups[today], 999_999 + np.arange(40)]
    found = {(f.column, f.check) for f in check(odd, days, each_for_itself, past, POLICY)}
    assert ("room_type", Check.UNSEEN) in found
    assert {kind for _, kind in found} == {Check.UNSEEN, Check.FREQUENT}  # of a price, a lead time


def test_a_day_of_a_few_bookings_says_nothing(world: World) -> None:
    features, booked_on, groups = world
    past = learn(features, booked_on, groups)
    few = features.drop_duplicates().tail(9).assign(price=np.nan)
    assert check(few, booked_on[few.index], groups[few.index], past, POLICY) == ()


def test_what_the_past_had_on_some_day_is_nothing_new(world: World) -> None:
    features, booked_on, groups = world
    gone = (booked_on == booked_on.unique()[50]).to_numpy()
    with_a_break = (features.assign(price=features["price"].mask(gone)), booked_on, groups)
    assert last_day(world, lambda f: f.assign(price=np.nan)) != ()
    assert last_day(with_a_break, lambda f: f.assign(price=np.nan)) == ()


@given(odd=st.lists(st.integers(0, 30), min_size=2, max_size=60), more=st.integers(0, 30), rows=st.integers(31, 60))
def test_more_odd_rows_are_never_more_likely(odd: list[int], more: int, rows: int) -> None:
    record = Record.of(np.array(odd), np.full(len(odd), rows))
    assert 0 <= record.usual <= 1
    chances = [record.chance(n, rows) for n in (0, more, rows)]
    assert chances[0] == 1 and chances == sorted(chances, reverse=True)
    assert all(np.isfinite(chances))


@given(a=st.floats(1e-4, 1e4), b=st.floats(1e-2, 1e4), rows=st.integers(1, 500), share=st.floats(0, 1))
def test_a_chance_is_the_tail_of_a_beta_binomial_distribution(a: float, b: float, rows: int, share: float) -> None:
    odd = round(share * rows)
    expected = betabinom.sf(odd - 1, rows, a, b)
    # Where the tail is nearly everything scipy subtracts from 1 and loses figures.
    assert Record(a, b, 0.0).chance(odd, rows) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_chances_are_those_of_days_that_differ_as_the_past_ones_did() -> None:
    draw = np.random.default_rng(4)
    share = draw.beta(3, 27, 4_000)
    odd = draw.binomial(100, share)
    record = Record.of(odd, np.full(len(odd), 100))
    for limit in (15, 20, 30):
        assert record.chance(limit, 100) == pytest.approx((odd >= limit).mean(), rel=0.3, abs=0.002)


def test_a_retrain_is_held_while_the_data_are_broken() -> None:
    loss = Signal("matured excess loss", 0.05, 0.02, Verdict.ALARM, 2.0, 2_000)
    today = date(2016, 6, 1)
    policy = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)
    history = RetrainHistory(today - timedelta(days=30))
    assert decide_retrain([loss], history, policy, today).action is Action.RETRAIN_DRIFT
    broken = RetrainHistory(today - timedelta(days=30), broken="2016-05-31: price: missing")
    held = decide_retrain([loss], broken, policy, today)
    assert held.action is Action.HOLD
    assert held.reasons[-1] == "held: the data are broken (2016-05-31: price: missing)"
