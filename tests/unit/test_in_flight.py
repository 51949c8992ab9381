"""Open bookings against what their scores foretold: still in a world that stands still, loud where it does not."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from cancellations.domain.in_flight import InFlightPolicy, Slice, in_flight
from cancellations.domain.labels import CANCELLED, LabelRule
from cancellations.domain.recalibration import shifted
from cancellations.domain.retraining import (
    RetrainHistory,
    RetrainPolicy,
    Signal,
    Verdict,
    beside_the_evidence,
    decide_retrain,
    evidence_of,
)
from monitoring.in_flight import in_flight_signal

RULE, POLICY = LabelRule(), InFlightPolicy()
FIRST, TODAY = date(2015, 1, 1), date(2016, 6, 1)
# From here on a world may change; the days before are what curves are learned from.
TURN = TODAY - timedelta(days=POLICY.days)
REPEATS = 40


def world(seed: int, *, planted: float = 0.0, copies: int = 1, a_day: float = 20.0) -> pd.DataFrame:
    """Bookings of two hotels, cancelled as their probabilities say; online ones made after `TURN` with other log odds.

    Each booking stands `copies` times, as a group whose members share their fate.
    """
    draw = np.random.default_rng(seed)
    days = (TODAY - FIRST).days + 1
    rows = int(days * a_day / copies)
    booked = draw.integers(0, days, rows)
    lead = 1 + draw.integers(0, 120, rows)
    online = draw.random(rows) < 0.5
    told = draw.beta(2, 4, rows)
    truth = np.where(online & (booked >= (TURN - FIRST).days), shifted(told, planted), told)
    gone = draw.random(rows) < truth
    # More of them early, and never on the day of arrival itself.
    when = np.floor(lead * draw.random(rows) ** 1.5)
    start = pd.Timestamp(FIRST)
    frame = pd.DataFrame(
        {
            "hotel": draw.choice(["Sea", "Town"], rows),
            "booked_on": start + pd.to_timedelta(booked, unit="D"),
            "arrival_on": start + pd.to_timedelta(booked + lead, unit="D"),
            "market_segment": np.where(online, "Online TA", "Groups"),
            "deposit_type": "No Deposit",
            "agent": np.arange(rows).astype(str),
            "company": np.nan,
            "weekend_nights": 1.0,
            "week_nights": 2.0,
            "probability": told,
            "status": np.where(gone, "canceled", "stayed"),
            "known_on": start + pd.to_timedelta(booked + np.where(gone, when, lead), unit="D"),
        }
    )
    frame = frame.loc[frame.index.repeat(copies)].reset_index(drop=True)
    return frame.assign(reservation_id=[f"r{n}" for n in range(len(frame))])


def seen(bookings: pd.DataFrame) -> pd.DataFrame:
    """As a house knows them today."""
    known = bookings["known_on"] <= pd.Timestamp(TODAY)
    return bookings.assign(status=bookings["status"].where(known), known_on=bookings["known_on"].where(known))


def look(bookings: pd.DataFrame) -> dict[str, Slice]:
    known = seen(bookings)
    return {one.name: one for one in in_flight(known[known["booked_on"] > "2016-01-01"], known, RULE, TODAY, POLICY)}


def test_slices_are_all_online_or_not_and_each_hotel_the_farthest_first() -> None:
    known = seen(world(1, planted=1.0))
    found = in_flight(known, known, RULE, TODAY, POLICY)
    assert {one.name for one in found} == {"all bookings", "online", "not online", "Sea", "Town"}
    assert [abs(one.z) for one in found] == sorted((abs(one.z) for one in found), reverse=True)
    told = {one.name: one for one in found}
    recent = known[known["booked_on"] > pd.Timestamp(TURN)]
    assert told["all bookings"].rows == len(recent) == told["Sea"].rows + told["Town"].rows
    assert told["all bookings"].predicted == pytest.approx(recent["probability"].mean())


@pytest.mark.parametrize("copies", [1, 8])
def test_in_a_world_that_stands_still_the_distance_is_that_of_chance_in_groups_too(copies: int) -> None:
    z = np.array([look(world(seed, copies=copies))["all bookings"].z for seed in range(REPEATS)])
    # Of 40 standard normal numbers: the mean within 3.2 of its errors, the deviation within 3.5 of its own.
    assert abs(z.mean()) < 3.2 / np.sqrt(REPEATS)
    assert 0.6 < z.std(ddof=1) < 1.4
    assert np.abs(z).max() < 5


def test_guests_who_cancel_more_are_seen_where_they_are_before_most_outcomes_are_final() -> None:
    found = look(world(3, planted=np.log(1.8)))
    assert found["online"].z > 5 > abs(found["not online"].z)
    assert found["online"].expected > found["online"].predicted + 0.02


def test_cancellations_that_are_not_recorded_look_like_guests_who_stay() -> None:
    bookings = world(4)
    lost = (bookings["booked_on"] > pd.Timestamp(TURN)) & bookings["status"].isin(CANCELLED) & (bookings.index % 2 == 0)
    found = look(bookings.assign(status=bookings["status"].mask(lost), known_on=bookings["known_on"].mask(lost)))
    assert found["all bookings"].z < -5


def test_too_few_bookings_tell_nothing_and_a_small_hotel_is_left_out() -> None:
    known = seen(world(5))
    assert in_flight(known.tail(0), known, RULE, TODAY, POLICY) == ()
    recent = known[known["booked_on"] > pd.Timestamp(TURN)]
    assert in_flight(recent.head(299), known, RULE, TODAY, POLICY) == ()
    small = recent.assign(hotel=np.where(np.arange(len(recent)) < 200, "Sea", "Town"))
    assert {one.name for one in in_flight(small, known, RULE, TODAY, POLICY)} == {
        "all bookings", "online", "not online", "Town",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("z", "verdict", "way"), [(5.2, "alarm", "more"), (-5.2, "alarm", "fewer"), (-4.6, "watch", "fewer")]
)
def test_the_signal_is_the_farthest_slice_whichever_way_it_went(z: float, verdict: str, way: str) -> None:
    signal = in_flight_signal(
        [Slice("online", 900, 800, 0.35, 0.35 + z / 100, z), Slice("Sea", 400, 90, 0.3, 0.3, 0.1)], 5.0, 0.0
    )
    assert (signal.value, signal.verdict.value, signal.rows) == (abs(z), verdict, 900)
    assert signal.before == "online: 35.0% predicted to be cancelled"
    assert signal.after.endswith(f"{way} than foretold")
    assert in_flight_signal((), 5.0, 0.0).verdict is Verdict.NOT_EVALUATED


def test_an_alarm_without_weight_is_told_beside_the_evidence_and_retrains_nothing() -> None:
    flying = in_flight_signal([Slice("online", 900, 800, 0.35, 0.45, 9.0)], 5.0, 0.0)
    quiet = Signal("matured excess loss", 0.001, 0.02, Verdict.OK, 2.0, 2_000)
    assert beside_the_evidence([flying, quiet]) == [flying]
    assert evidence_of([flying, quiet]) == 0
    assert evidence_of([flying]) is None
    policy = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)
    decision = decide_retrain([flying, quiet], RetrainHistory(TODAY), policy, TODAY)
    assert not decision.action.retrains
    assert decision.reasons[0].startswith("evidence 0.00") and "in-flight" not in decision.reasons[0]
    assert decision.reasons[1].startswith("beside the evidence: in-flight cancellations 9.000 >= 5; online: 35.0%")
