"""The invented world is the same for a seed, looks like its figures, and drifts as told."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cancellations.domain.reservation import COLUMNS, NAMES, OUTCOME_NAMES, violations
from cancellations.errors import BadInput
from cancellations.ports import Undated
from cancellations.sources.simulator import CELLS, Drift, DriftKind, Simulator, simulate

START = date(2015, 10, 1)
# Two years: the drifts of a test share them, so that only the drift differs.
WORLD = simulate(START, 730, seed=20)
SHORT = 120
TURN = START + timedelta(days=60)


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
    before, after = drifted(kind, 1.7)
    assert not before.reset_index(drop=True).equals(after.reset_index(drop=True))


@pytest.mark.parametrize("kind", list(DriftKind))
def test_a_drift_of_strength_one_changes_nothing(kind: DriftKind) -> None:
    before, after = drifted(kind, 1.0)
    pd.testing.assert_frame_equal(after, before)


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
        non_refundable=WORLD["deposit_type"] == "Non Refund",
        transient=WORLD["customer_type"] == "Transient",
    )
    cells = world.groupby(["hotel", "market_segment"])
    for cell in CELLS:
        rows = cells.get_group((cell.hotel, cell.channel))
        # Groups of up to 180 bookings share dates and terms: their figures wobble.
        wobble = 0.08 if cell.channel == "Groups" else 0.03
        assert len(rows) / len(world) == pytest.approx(cell.share, rel=0.12)
        assert rows["log_lead"].mean() == pytest.approx(cell.log_lead[0], abs=3 * wobble)
        assert rows["log_lead"].std() == pytest.approx(cell.log_lead[1], rel=4 * wobble)
        assert rows["non_refundable"].mean() == pytest.approx(cell.non_refundable, abs=wobble)
        assert rows["transient"].mean() == pytest.approx(cell.transient, abs=wobble)
        assert rows["special_requests"].mean() == pytest.approx(cell.special_mean, rel=0.15)


def test_days_bring_as_many_bookings_as_the_hotels_get() -> None:
    daily = WORLD.groupby("booked_on").size()
    assert daily.mean() == pytest.approx(163, rel=0.05)
    weekday = daily.groupby(daily.index.dayofweek).mean()
    assert weekday[6] < 0.75 * weekday[0]
    month = daily.groupby(daily.index.month).mean()
    assert month[1] > 2 * month[6]


def test_bookings_come_in_groups() -> None:
    alike = ["hotel", "booked_on", "arrival_on", "agent", "company", "market_segment", "weekend_nights", "week_nights"]
    size = WORLD.groupby(alike, dropna=False).size()
    assert size.median() == 1
    assert 5 <= size.quantile(0.99) <= 20
    assert 50 < size.max() <= 200


def test_the_odds_tell_cancellations_apart_as_well_as_in_the_real_file() -> None:
    cancelled = WORLD["status"] != "stayed"
    assert cancelled.mean() == pytest.approx(0.37, abs=0.02)
    assert cancelled.mean() == pytest.approx(WORLD["true_probability"].mean(), abs=0.01)
    assert roc_auc_score(cancelled, WORLD["true_probability"]) == pytest.approx(0.84, abs=0.015)


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


def test_drifts_of_one_kind_multiply_each_other() -> None:
    twice = [Drift(DriftKind.PRICE_SHOCK, START, 1.5), Drift(DriftKind.PRICE_SHOCK, START, 2.0)]
    once = [Drift(DriftKind.PRICE_SHOCK, START, 3.0)]
    pd.testing.assert_frame_equal(simulate(START, 5, 1, twice), simulate(START, 5, 1, once))


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
def test_a_strength_that_means_nothing_is_refused(strength: float) -> None:
    with pytest.raises(BadInput, match="price_shock"):
        Drift(DriftKind.PRICE_SHOCK, START, strength)


def test_no_days_are_refused() -> None:
    with pytest.raises(BadInput, match="0 days"):
        simulate(START, 0, 1)


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
    assert source.fingerprint() == Simulator(START, 10, 3).fingerprint()
    assert source.fingerprint() not in {other.fingerprint() for other in others}
