"""The invented world is the same for a seed, looks like its figures, and drifts as told."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cancellations.domain.reservation import (
    COLUMNS,
    GROUP,
    GROUP_SIZE,
    NAMES,
    OUTCOME_NAMES,
    coerce,
    group_keys,
    sized,
    violations,
)
from cancellations.errors import BadInput
from cancellations.ports import Undated
from cancellations.sources.cells import CELLS, CITY, HOTELS, NEW_MARKET, RESORT
from cancellations.sources.simulator import BREAKS, Drift, DriftKind, Simulator, simulate
from cancellations.usecases.fidelity import design_effect

START = date(2015, 10, 1)
# Two years: the drifts of a test share them, so that only the drift differs.
WORLD = simulate(START, 730, seed=20)
SHORT = 120
# In the middle of a month: what is drawn at once must still keep its past.
TURN = START + timedelta(days=60 + 15)
SHIFTS = [kind for kind in DriftKind if kind not in BREAKS]
# Marginal figures of the public file by hotel and channel (`../shared/data/simulator_cells.csv`): share, cancelled,
# non-refundable, log1p(lead) mean and deviation, booked on the day of arrival, special requests, transient.
PUBLIC = {
    (CITY, "Corporate"): (0.029, 0.228, 0.115, 2.391, 1.449, 0.106, 0.238, 0.644),
    (CITY, "Direct"): (0.056, 0.171, 0.003, 2.831, 1.893, 0.178, 0.588, 0.892),
    (CITY, "Groups"): (0.075, 0.663, 0.563, 4.575, 0.954, 0.006, 0.129, 0.590),
    (CITY, "Offline TA/TO"): (0.136, 0.429, 0.307, 4.311, 1.278, 0.016, 0.210, 0.645),
    (CITY, "Online TA"): (0.368, 0.387, 0.001, 3.933, 1.352, 0.025, 0.848, 0.927),
    (RESORT, "Corporate"): (0.021, 0.126, 0.004, 1.855, 1.395, 0.200, 0.148, 0.690),
    (RESORT, "Direct"): (0.056, 0.126, 0.000, 2.355, 1.982, 0.276, 0.530, 0.903),
    (RESORT, "Groups"): (0.050, 0.376, 0.201, 4.450, 1.208, 0.004, 0.082, 0.212),
    (RESORT, "Offline TA/TO"): (0.061, 0.131, 0.007, 4.071, 1.528, 0.034, 0.400, 0.692),
    (RESORT, "Online TA"): (0.149, 0.358, 0.002, 3.678, 1.634, 0.054, 0.903, 0.908),
}
# Design effects of the cancellation in its bookings of 2015-10-05 to 2017-02-26 with leads up to 180 days.
PUBLIC_DESIGN = {"all": 10.84, (CITY, "Groups"): 27.4, (CITY, "Online TA"): 1.62, (RESORT, "Groups"): 15.9}


def drifted(kind: DriftKind, strength: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bookings from the drift's day on: without it, and with it."""
    plain, changed = simulate(START, SHORT, 5), simulate(START, SHORT, 5, [Drift(kind, TURN, strength)])
    before = changed["booked_on"] < pd.Timestamp(TURN)
    pd.testing.assert_frame_equal(changed[before], plain[before.reindex(plain.index, fill_value=False)])
    return plain[plain["booked_on"] >= pd.Timestamp(TURN)], changed[~before]


def test_a_seed_gives_one_world() -> None:
    pd.testing.assert_frame_equal(simulate(START, 20, 7), simulate(START, 20, 7))
    assert len(simulate(START, 20, 7)) != len(simulate(START, 20, 8))


def test_the_past_stays_when_more_days_are_asked_for() -> None:
    few, many = simulate(START, 20, 7), simulate(START, 40, 7)
    pd.testing.assert_frame_equal(many.iloc[: len(few)], few)


def test_the_world_does_not_depend_on_where_one_starts_to_look() -> None:
    later = simulate(START + timedelta(days=10), 10, 7)
    pd.testing.assert_frame_equal(simulate(START, 20, 7).iloc[-len(later) :].reset_index(drop=True), later)


@pytest.mark.parametrize("kind", list(DriftKind))
def test_the_past_stays_when_a_later_drift_is_added(kind: DriftKind) -> None:
    before, after = drifted(kind, 0.7 if kind in BREAKS else 1.7)
    assert not before.reset_index(drop=True).equals(after.reset_index(drop=True))


@pytest.mark.parametrize("kind", SHIFTS)
def test_a_drift_of_strength_one_changes_nothing(kind: DriftKind) -> None:
    before, after = drifted(kind, 1.0)
    pd.testing.assert_frame_equal(after, before)


@given(
    skip=st.integers(0, 80),
    days=st.integers(1, 60),
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([0.3, 1.0, 2.5, 21.0]),
)
@settings(max_examples=15, deadline=None)
def test_any_cut_of_a_world_is_that_part_of_it(skip: int, days: int, seed: int, scale: float) -> None:
    days = min(days, 3) if scale > 20 else days
    skip = min(skip, 2) if scale > 20 else skip
    whole = simulate(START, skip + days, seed, scale=scale)
    part = simulate(START + timedelta(days=skip), days, seed, scale=scale)
    pd.testing.assert_frame_equal(whole.iloc[len(whole) - len(part) :].reset_index(drop=True), part)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_table_is_as_coercion_would_leave_it_and_groups_are_counted_as_at_ingest(scale: float) -> None:
    world = simulate(START, 40, 7, [Drift(DriftKind.AGENT_MISSING, START, 0.4)], scale=scale)
    again = sized(coerce(world))
    pd.testing.assert_frame_equal(world[[*NAMES, GROUP_SIZE]], again)
    assert world["reservation_id"].is_unique


def test_every_booking_keeps_the_rules_and_has_an_outcome() -> None:
    assert violations(WORLD[list(NAMES)]).empty
    assert WORLD[list(OUTCOME_NAMES)].notna().all(axis=None)
    assert (WORLD["known_on"] >= WORLD["booked_on"]).all()
    departs = WORLD["arrival_on"] + pd.to_timedelta(WORLD["weekend_nights"] + WORLD["week_nights"], unit="D")
    stayed, no_show = WORLD["status"] == "stayed", WORLD["status"] == "no_show"
    assert (WORLD["known_on"] == departs)[stayed].all()
    assert (WORLD["known_on"] == WORLD["arrival_on"])[no_show].all()
    assert (WORLD["known_on"] <= WORLD["arrival_on"])[~stayed].all()


def test_the_cells_have_their_figures() -> None:
    world = WORLD.assign(
        log_lead=np.log1p((WORLD["arrival_on"] - WORLD["booked_on"]).dt.days),
        cancelled=WORLD["status"] != "stayed",
        non_refundable=WORLD["deposit_type"] == "Non Refund",
        transient=WORLD["customer_type"] == "Transient",
    )
    assert {(c.hotel, c.channel) for c in CELLS} == set(PUBLIC)
    cells = world.groupby(["hotel", "market_segment"])
    for place, (share, cancelled, non_refundable, lead, deviation, same_day, special, transient) in PUBLIC.items():
        rows = cells.get_group(place)
        # Groups of up to 180 bookings share dates and terms: their figures wobble.
        wobble = 1 if place[1] in ("Direct", "Online TA") else 4
        assert len(rows) / len(world) == pytest.approx(share, rel=0.08 * wobble), place
        assert rows["cancelled"].mean() == pytest.approx(cancelled, abs=0.04 * wobble), place
        assert rows["log_lead"].mean() == pytest.approx(lead, abs=0.12 * wobble), place
        assert rows["log_lead"].std() == pytest.approx(deviation, rel=0.08 * wobble), place
        assert (rows["log_lead"] == 0).mean() == pytest.approx(same_day, abs=0.07), place
        assert rows["non_refundable"].mean() == pytest.approx(non_refundable, abs=0.03 * wobble), place
        assert rows["transient"].mean() == pytest.approx(transient, abs=0.03 * wobble), place
        assert rows["special_requests"].mean() == pytest.approx(special, abs=0.09), place


def test_days_bring_as_many_bookings_as_the_hotels_get() -> None:
    daily = WORLD.groupby("booked_on").size()
    assert daily.mean() == pytest.approx(163, rel=0.05)
    weekday = daily.groupby(daily.index.dayofweek).mean()
    assert weekday[6] < 0.75 * weekday[0]
    month = daily.groupby(daily.index.month).mean()
    assert month[1] > 2 * month[6]


def test_bookings_come_in_groups() -> None:
    size = WORLD.groupby(list(GROUP), dropna=False).size()
    assert size.median() == 1
    assert 5 <= size.quantile(0.99) <= 20
    assert 100 < size.max() <= 200


def test_groups_stand_or_fall_together_as_much_as_in_the_real_file() -> None:
    lead = (WORLD["arrival_on"] - WORLD["booked_on"]).dt.days
    rows = WORLD[lead <= 180].assign(group=group_keys, cancelled=lambda w: (w["status"] != "stayed").astype(float))
    found = {"all": design_effect(rows["cancelled"], rows["group"])}
    for place, own in rows.groupby(["hotel", "market_segment"]):
        found[place] = design_effect(own["cancelled"], own["group"])
    for place, effect in PUBLIC_DESIGN.items():
        assert effect / 1.8 < found[place] < effect * 1.8, place


def test_a_larger_world_has_more_hotels_with_groups_of_the_same_sizes() -> None:
    large = simulate(START, 60, 5, scale=4.0)
    small = simulate(START, 60, 5)
    assert large["hotel"].nunique() == 4 * len(HOTELS)
    assert len(large) / len(small) == pytest.approx(4, rel=0.15)
    assert (large[GROUP_SIZE] == 1).mean() == pytest.approx((small[GROUP_SIZE] == 1).mean(), abs=0.05)


def test_agents_cancel_at_rates_of_their_own() -> None:
    large = simulate(START, 365, 5, scale=4.0)
    offline = large[(large["market_segment"] == "Offline TA/TO") & (large["deposit_type"] == "No Deposit")]
    offline = offline.drop_duplicates(list(GROUP))
    rates = offline.groupby("agent")["true_probability"].agg(["mean", "size"])
    rates = rates[rates["size"] > 200]["mean"]
    # Chance alone spreads the mean probability of so many bookings by less than a hundredth.
    assert len(rates) > 15
    assert rates.std() > 0.04


def test_the_odds_tell_cancellations_apart_as_well_as_in_the_real_file() -> None:
    cancelled = WORLD["status"] != "stayed"
    assert cancelled.mean() == pytest.approx(0.37, abs=0.02)
    assert cancelled.mean() == pytest.approx(WORLD["true_probability"].mean(), abs=0.01)
    assert roc_auc_score(cancelled, WORLD["true_probability"]) == pytest.approx(0.85, abs=0.015)


def test_lead_time_shift_multiplies_lead_times() -> None:
    before, after = (f["arrival_on"] - f["booked_on"] for f in drifted(DriftKind.LEAD_TIME_SHIFT, 2.0))
    assert after.median() / before.median() == pytest.approx(2, rel=0.05)


def test_channel_mix_multiplies_the_odds_of_online_bookings() -> None:
    before, after = ((f["market_segment"] == "Online TA").mean() for f in drifted(DriftKind.CHANNEL_MIX, 2.0))
    assert (after / (1 - after)) / (before / (1 - before)) == pytest.approx(2, rel=0.25)


def test_price_shock_multiplies_prices_and_raises_cancellations() -> None:
    before, after = drifted(DriftKind.PRICE_SHOCK, 1.5)
    np.testing.assert_allclose(after["price"], 1.5 * before["price"], atol=0.02)
    assert after["true_probability"].mean() > before["true_probability"].mean()


def test_free_cancellation_multiplies_the_odds_of_refundable_online_bookings_only() -> None:
    before, after = drifted(DriftKind.FREE_CANCELLATION, 2.5)
    hit = (before["market_segment"] == "Online TA") & (before["deposit_type"] == "No Deposit")
    ratio = (after["true_probability"] / (1 - after["true_probability"])) / (
        before["true_probability"] / (1 - before["true_probability"])
    )
    np.testing.assert_allclose(ratio[hit], 2.5, rtol=1e-6)
    np.testing.assert_allclose(ratio[~hit], 1.0, rtol=1e-6)
    booked = [c for c in NAMES if c != "reservation_id"]
    pd.testing.assert_frame_equal(after[booked], before[booked])  # only how they end has changed


def test_a_new_market_comes_on_top_with_rates_of_its_own() -> None:
    before, after = drifted(DriftKind.NEW_MARKET, 1.5)
    assert NEW_MARKET not in set(before["market_segment"])
    new = after["market_segment"] == NEW_MARKET
    assert new.sum() / (~new).sum() == pytest.approx(0.5, rel=0.2)
    assert (~new).sum() == pytest.approx(len(before), rel=0.1)
    assert set(after["hotel"][new]) == set(HOTELS)
    assert not set(after["agent"][new].dropna()) & set(before["agent"].dropna())
    online = after[after["market_segment"] == "Online TA"]
    assert after[new]["true_probability"].mean() > online["true_probability"].mean() + 0.03


@pytest.mark.parametrize(
    ("kind", "column", "hit"),
    [
        (DriftKind.PRICE_IN_CENTS, "price", lambda b, a: np.isclose(a["price"], 100 * b["price"])),
        (DriftKind.DEPOSIT_CONSTANT, "deposit_type", lambda b, a: a["deposit_type"] == "No Deposit"),
        (DriftKind.AGENT_MISSING, "agent", lambda b, a: a["agent"].isna()),
    ],
)
def test_a_break_changes_what_is_recorded_of_a_share_and_never_how_bookings_end(
    kind: DriftKind, column: str, hit: Callable[[pd.DataFrame, pd.DataFrame], pd.Series]
) -> None:
    before, whole = drifted(kind, 1.0)
    assert hit(before, whole).all()
    _, part = drifted(kind, 0.3)
    changed = part[column].fillna("") != before[column].fillna("")
    could = whole[column].fillna("") != before[column].fillna("")
    assert changed.sum() / could.sum() == pytest.approx(0.3, abs=0.04)
    assert hit(before[changed], part[changed]).all()
    others = [c for c in before if c not in (column, GROUP_SIZE)]
    for after in (whole, part):
        pd.testing.assert_frame_equal(after[others], before[others])


def test_drifts_of_one_kind_multiply_each_other() -> None:
    twice = [Drift(DriftKind.PRICE_SHOCK, START, 1.5), Drift(DriftKind.PRICE_SHOCK, START, 2.0)]
    once = [Drift(DriftKind.PRICE_SHOCK, START, 3.0)]
    pd.testing.assert_frame_equal(simulate(START, 5, 1, twice), simulate(START, 5, 1, once))


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", list(DriftKind))
def test_a_strength_that_means_nothing_is_refused(kind: DriftKind, strength: float) -> None:
    with pytest.raises(BadInput, match=f"{kind}: strength"):
        Drift(kind, START, strength)


@pytest.mark.parametrize(
    ("kind", "strength", "told"),
    [
        *((kind, 1.01, "up to 1, which is all of them") for kind in sorted(BREAKS)),
        (DriftKind.NEW_MARKET, 0.99, "1.25 brings a quarter on top"),
    ],
)
def test_a_strength_beyond_its_kind_is_refused(kind: DriftKind, strength: float, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Drift(kind, START, strength)


def test_a_drift_is_read_from_its_kind_day_and_strength() -> None:
    assert Drift.parse("price_shock:2016-05-30:1.5") == Drift(DriftKind.PRICE_SHOCK, date(2016, 5, 30), 1.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("price_shock", "is not KIND:DATE:STRENGTH"),
        ("price:2016-05-30:2", "'price' is no kind of drift; kinds: lead_time_shift, "),
        ("price_shock:30.05.2016:2", "'30.05.2016' is no date as YYYY-MM-DD"),
        ("price_shock:2016-05-30:much", "the strength 'much' is no number"),
    ],
)
def test_a_drift_that_cannot_be_read_is_refused(text: str, told: str) -> None:
    with pytest.raises(BadInput, match=re.escape(told)):
        Drift.parse(text)


def test_no_days_are_refused() -> None:
    with pytest.raises(BadInput, match="0 days"):
        simulate(START, 0, 1)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1_001.0])
def test_a_scale_that_means_nothing_is_refused(scale: float) -> None:
    with pytest.raises(BadInput, match="scale"):
        simulate(START, 1, 1, scale=scale)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(BadInput, match="seed -1"):
        simulate(START, 1, -1)


def test_the_source_gives_the_same_bookings_in_batches() -> None:
    table = simulate(START, 10, 3)
    source = Simulator(START, 10, 3, batch_rows=500)
    batches = list(source.batches())
    assert max(len(b.reservations) for b in batches) == 500
    together = pd.concat([b.reservations for b in batches])
    assert list(together.index) == list(range(1, len(table) + 1))
    pd.testing.assert_frame_equal(together.reset_index(drop=True), table[list(NAMES)])
    outcomes = pd.concat([b.outcomes for b in batches])
    pd.testing.assert_frame_equal(outcomes.reset_index(drop=True), table[list(OUTCOME_NAMES)])
    assert all(b.raw.index.equals(b.reservations.index) for b in batches)
    assert source.name == "simulator (seed 3, booked 2015-10-01 to 2015-10-10)"


def test_the_source_tells_what_it_delivers_and_when_it_is_another_one() -> None:
    source = Simulator(START, 10, 3)
    assert (source.columns, source.mapping, source.undated) == (COLUMNS, "", Undated.MATURITY)
    assert all(b.problems.empty for b in source.batches())
    others = [Simulator(START, 11, 3), Simulator(START, 10, 4), Simulator(START, 10, 3, max_lead_days=7)]
    others.append(Simulator(START, 10, 3, scale=2.0))
    assert source.fingerprint() == Simulator(START, 10, 3).fingerprint()
    assert source.fingerprint() not in {other.fingerprint() for other in others}
