"""Thresholds are learned from what could be known on a day, and count from it on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from world import POLICY, SECOND, WEEK, GivenMonitor, World

from cancellations.domain.calibration import Calibration, CalibrationPolicy
from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.recipes import Recipe
from cancellations.domain.reference import ReferencePolicy
from cancellations.errors import NotEnoughData
from cancellations.settings import MonitorSettings
from cancellations.usecases.calibrate import Making, calibrate, keep
from cancellations.usecases.monitor import Rhythm
from monitoring.distances import distance
from monitoring.report import EvidentlyMonitor, documented

SHORT = CalibrationPolicy(every_days=7, weeks=2, chance=0.3, min_champions=3, history_days=42)
MAKING = Making(Recipe(estimator={"max_iter": 20}), seed=20, reference_rows=400, min_rows=300)


def learned(world: World, policy: CalibrationPolicy = SHORT, told: list[tuple[int, int]] | None = None) -> Calibration:
    return calibrate(
        world.store,
        world.trainer,
        EvidentlyMonitor(MonitorSettings(sample_rows=400, min_matured_rows=100), distance),
        as_of=SECOND,
        documented=documented(),
        policy=policy,
        making=MAKING,
        rhythm=Rhythm(14, 7),
        rule=POLICY.labels,
        open_bookings=InFlightPolicy(days=28, min_rows=50),
        against=ReferencePolicy(),
        on_champion=lambda done, of: None if told is None else told.append((done, of)),
    )


def test_what_comes_later_changes_no_threshold_and_every_champion_is_told(loaded: World) -> None:
    told: list[tuple[int, int]] = []
    before = learned(loaded, told=told)
    assert told == [(n, len(told)) for n in range(1, len(told) + 1)] and len(told) >= 4
    assert before.last == SECOND - 2 * WEEK and before.as_of == SECOND
    own = {one.signal: one for one in before.learned}
    assert own["column drift"].champions == len(told) and own["column drift"].looks == 2 * len(told)
    assert own["in-flight cancellations"].highest and own["prediction drift"].highest
    loaded.ingest(until=SECOND + 3 * WEEK, after=SECOND)
    assert learned(loaded) == before


def test_looks_from_its_day_on_are_held_to_it_and_earlier_ones_are_not(trained: World) -> None:
    found = learned(trained)
    keep(trained.store, found, trained.clock)
    trained.score(until=SECOND + WEEK)
    watch = GivenMonitor()
    trained.monitor(watch, until=SECOND + WEEK, after=SECOND - 2 * WEEK)
    ends = [seen.end for seen in watch.seen]
    assert ends == [SECOND - WEEK, SECOND, SECOND + WEEK]
    assert [seen.calibration for seen in watch.seen] == [None, found, found]


def test_a_short_past_teaches_nothing_and_says_how_much_is_needed(loaded: World) -> None:
    with pytest.raises(NotEnoughData, match=r"some 54 weeks of bookings with outcomes.*there are 0"):
        learned(loaded, CalibrationPolicy())
    # Days enough, but too few outcomes that a champion could learn from.
    with pytest.raises(NotEnoughData, match="The documented thresholds stay"):
        learned(loaded, CalibrationPolicy(every_days=1, weeks=1, min_champions=60, history_days=1))
    with loaded.store.begin() as work:
        assert work.calibration(SECOND + timedelta(days=365)) is None
