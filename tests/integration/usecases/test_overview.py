"""The report page's window: what was looked at is read again as it was, whatever came in since."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from world import FIRST, POLICY, SECOND, WEEK, GivenMonitor, World

from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.reference import Design, ReferencePolicy
from cancellations.errors import BadInput
from cancellations.ports import Overview
from cancellations.settings import MonitorSettings
from cancellations.usecases.overview import OF_REFERENCE, overview
from monitoring.distances import distance
from monitoring.plots import ReportPictures
from monitoring.report import EvidentlyMonitor

W1, W2 = FIRST + WEEK, FIRST + 2 * WEEK


def overview_of(world: World, window: date | None = None, weeks: int = 3) -> Overview:
    return overview(
        world.store,
        world.registry,
        EvidentlyMonitor(MonitorSettings(sample_rows=500), distance),
        window=window,
        rule=POLICY.labels,
        open_bookings=InFlightPolicy(min_rows=30),
        against=ReferencePolicy(weeks=weeks),
    )


def test_a_window_is_read_again_as_it_was_seen_though_outcomes_came_in_since(trained: World) -> None:
    trained.score(until=SECOND)
    watch = GivenMonitor([SECOND])
    trained.monitor(watch, until=SECOND, after=SECOND - 2 * WEEK)
    trained.ingest(until=SECOND + 4 * WEEK, after=SECOND)
    trained.score(until=SECOND + 4 * WEEK)
    for seen in watch.seen:
        again = overview_of(trained, seen.end).observation
        assert (again.champion, again.start, again.end) == (seen.champion, seen.start, seen.end)
        pd.testing.assert_frame_equal(again.current, seen.current)
        for name in ("probability", "matured_label", "matured_probability", "reference_probability"):
            np.testing.assert_array_equal(getattr(again, name), getattr(seen, name))
            assert len(getattr(again, name)) > 300


def test_it_shows_the_last_window_unless_another_is_named_and_all_of_the_history(challenged: World) -> None:
    challenged.monitor(GivenMonitor(), until=SECOND + WEEK, after=SECOND - WEEK)
    found = overview_of(challenged)
    assert found.stored.report.window.end == SECOND + WEEK
    assert [d.report.window.end for d in found.decisions] == [SECOND, SECOND + WEEK]
    assert overview_of(challenged, SECOND).stored.report.window.end == SECOND
    assert [row.change.value for row in found.ledger] == ["first champion", "challenger stands"]
    assert [trial.rival for trial in found.trials] == ["2"]
    assert {request.version for request in found.requests} == {"1", "2"}
    assert found.champion.version == "1"


def test_the_window_is_held_against_the_other_references_too(challenged: World) -> None:
    challenged.score(until=SECOND + WEEK)
    challenged.monitor(GivenMonitor(), until=SECOND + WEEK, after=SECOND)
    found = overview_of(challenged)
    assert found.stored.report.reference == found.observation.against == "the champion's training"
    weeks, season = found.beside
    assert (weeks.reference, season.reference) == ("the 3 weeks before", "the same weeks of last year")
    assert [s.name for s in weeks.signals] == list(OF_REFERENCE) == [s.name for s in season.signals]
    # Bookings made in the three weeks before, as many as a sample holds; a year ago there was no hotel.
    start = found.stored.report.window.start
    with challenged.store.begin() as work:
        made = work.booked_days(start - timedelta(days=22), start - timedelta(days=1))
    assert weeks.reference_rows == min(made.sum(), 5_000) > 1_000
    assert [(s.name, s.why) for s in weeks.signals if s.value is None] == []
    assert season.reference_rows == 0
    assert "0 bookings in the reference, 300 are needed" in season.signals[0].why


def test_another_reference_can_decide_and_is_read_again_though_the_settings_changed_since(challenged: World) -> None:
    watch = GivenMonitor()
    policy = ReferencePolicy(Design.WEEKS, weeks=2, rows=700)
    challenged.monitor(watch, until=SECOND + WEEK, after=SECOND, against=policy)
    (seen,) = watch.seen
    assert seen.against == "the 2 weeks before" and len(seen.reference) == len(seen.reference_probability) == 700
    with challenged.store.begin() as work:
        made = work.history(seen.start - timedelta(days=1), seen.start, booked_after=seen.start - timedelta(days=15))
    assert seen.reference.index.isin(made.index).all() and len(made) > 700
    found = overview_of(challenged, weeks=2)
    assert found.observation.against == "the 2 weeks before"
    assert [each.reference for each in found.beside] == ["the champion's training", "the same weeks of last year"]


def test_its_pictures_are_drawn_from_what_it_holds(challenged: World) -> None:
    challenged.monitor(GivenMonitor(), until=SECOND + WEEK, after=SECOND)
    drawn = ReportPictures().overview(overview_of(challenged))
    assert set(drawn) == {"drift", "columns", "scores", "losses", "time_line"}
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())


def test_a_window_that_was_never_looked_at_is_bad_input_that_names_the_last_ones(trained: World) -> None:
    with pytest.raises(BadInput, match="nothing to report: no window was looked at"):
        overview_of(trained)
    trained.score(until=W2)
    trained.monitor(GivenMonitor(), until=W2, after=FIRST)
    with pytest.raises(BadInput, match=f"ends on {W2 + timedelta(days=1)}; the last ones end on {W1}, {W2}"):
        overview_of(trained, W2 + timedelta(days=1))
