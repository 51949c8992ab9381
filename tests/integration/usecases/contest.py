"""A contest of versions on bookings whose end is known: it goes as the test wants, day by day.

The days count from the one of the training: on day n a few bookings mature. Versions are real ones
in MLflow; their scores of these bookings are written beforehand, by how well they should do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import cache

import numpy as np
import pandas as pd
from world import NOW, QuickTrainer, World

from cancellations.domain import features
from cancellations.domain.comparison import SequencePolicy
from cancellations.domain.features import FEATURES
from cancellations.domain.labels import Examples, LabelRule
from cancellations.domain.promotion import Change, TrialPolicy
from cancellations.domain.recipes import DEFAULT_RECIPE, RECIPES
from cancellations.domain.reservation import coerce, sized
from cancellations.ports import Candidate, VersionRecord

TRAINED = date(2016, 6, 1)
DAYS = 100  # on which bookings mature
EARLIER = 40  # days of bookings that had matured before
BURN_IN = SequencePolicy().burn_in_days

# How a version scores the bookings that mature on day n: 0 knows nothing, 1 leans to the truth, -1 away.
Skill = Callable[[int], float]


def steady(skill: float) -> Skill:
    return lambda n: skill


def good_until(last: int) -> Skill:
    """Better than nothing until a day, and worse than that afterwards."""
    return lambda n: 1.0 if n <= last else -1.0


BLIND, GOOD, BAD = steady(0.0), steady(1.0), steady(-1.0)


def even(n: int) -> float:
    """As good as knowing nothing: right one day, as wrong the next."""
    return 0.05 if n % 2 else -0.05


def late_bloomer(n: int) -> float:
    return even(n) if n <= 12 else 1.0


def day(n: int) -> date:
    return TRAINED + timedelta(days=n)


def bookings() -> pd.DataFrame:
    """All bookings with their outcomes, in order of maturity; the price leans to the outcome.

    A cancellation is known on the day of arrival, a stay on the day after, on which both mature. All
    were made before day 0, so on day n those that arrive on it, or later, are open.
    """
    return _bookings().copy()


@cache
def _bookings() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    matures = np.repeat(np.arange(-EARLIER, DAYS + 1), [6 + n % 5 for n in range(EARLIER + DAYS + 1)])
    rows = pd.DataFrame({"n": matures})
    cancelled = (np.arange(len(rows)) % 2).astype(bool)
    arrival = pd.Timestamp(TRAINED) + pd.to_timedelta(rows["n"] - 1, unit="D")
    made_before = np.where(rows["n"] > 0, rows["n"] + 5, 10)
    rows = rows.assign(
        reservation_id=[f"b{i:05d}" for i in range(len(rows))],
        hotel="City Hotel",
        booked_on=arrival - pd.to_timedelta(made_before, unit="D"),
        arrival_on=arrival,
        weekend_nights=1,
        week_nights=2,
        **dict.fromkeys(("adults", "children", "babies", "repeated_guest"), 0) | {"adults": 2},
        **dict.fromkeys(("previous_cancellations", "previous_stays", "special_requests"), 0),
        **dict.fromkeys(("meal", "market_segment", "distribution_channel", "room_type"), "A"),
        **dict.fromkeys(("deposit_type", "customer_type"), "A"),
        agent=rng.choice(["9", "240", "7"], len(rows)),
        company=rng.choice(["40", "62"], len(rows)),
        price=100 + 20 * cancelled + rng.normal(0, 15, len(rows)),
        status=np.where(cancelled, "canceled", "stayed"),
        known_on=arrival + pd.to_timedelta(np.where(cancelled, 0, 1), unit="D"),
    )
    told = rows[["n", "status", "known_on"]]
    return pd.concat([sized(coerce(rows)), told], axis=1)


def candidate(name: str, trained: date = TRAINED, seed: int = 1) -> Candidate:
    """A real model of the bookings that had matured by day 0; another seed, another model."""
    rows = bookings()
    past = rows[rows["n"] <= 0]
    built = features.build(past, features.past_of(rows), LabelRule())
    label = (past["status"] == "canceled").to_numpy(dtype=float)
    picked = np.random.default_rng(seed).random(len(past)) < 0.9
    examples = Examples(np.flatnonzero(picked), label[picked], np.ones(int(picked.sum())))
    model = QuickTrainer().fit(built, [examples], RECIPES[DEFAULT_RECIPE], seed)
    return Candidate(
        request_id=name,
        model=model,
        as_of=trained,
        recipe=DEFAULT_RECIPE,
        parameters={"seed": seed},
        metrics={"backtest_log_loss": 0.5},
        reasons=("passed",),
        training=built.assign(label=label, reservation_id=past["reservation_id"]),
        reference=built.assign(label=label),
        importance=dict.fromkeys(FEATURES, 1 / len(FEATURES)),
        tags={"reason": "a test asks"},
    )


def enter(world: World, champion: VersionRecord) -> None:
    """Loads all bookings and outcomes and makes a registered version the first champion."""
    rows = bookings()
    with world.store.begin() as work:
        work.upsert_reservations(rows)
        work.record_outcomes(rows)
        work.add_version(champion, NOW)
        work.change_standing(
            work.standing(),
            champion=champion.version,
            challenger=None,
            change=Change.FIRST,
            reason="the first version to pass the gate",
            by="the gate",
            request_id=champion.request_id,
            as_of=TRAINED,
            now=NOW,
        )
        work.commit()
    world.registry.set_alias("champion", champion.version)


def foretell(world: World, **skills: Skill) -> None:
    """Writes the scores of versions (`v1=BLIND`) for all bookings that mature after day 0, and serves."""
    rows = bookings()
    rows = rows[rows["n"] > 0]
    for name, skill in skills.items():
        leaning = np.array([skill(int(n)) for n in rows["n"]])
        towards = np.where(rows["status"] == "canceled", 1, -1)
        scores = rows[["reservation_id"]].assign(probability=0.5 + 0.2 * leaning * towards)
        with world.store.begin() as work:
            record = world.registry.record(name.removeprefix("v"))
            work.add_version(record, NOW)
            work.add_predictions(record.version, scores, TRAINED, NOW)
            work.commit()


def maturing(first: int, last: int) -> int:
    """How many bookings mature on the days from `first` to `last`."""
    return int(bookings()["n"].between(first, last).sum())


def policy(**knobs: object) -> TrialPolicy:
    return TrialPolicy(**{"max_days": 40, "probation_days": 30, **knobs})  # type: ignore[arg-type]
