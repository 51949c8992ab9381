"""The report page's window: what was looked at is read again as it was, whatever came in since."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from world import FIRST, POLICY, SECOND, WEEK, GivenMonitor, World

from cancellations.domain.in_flight import InFlightPolicy
from cancellations.errors import BadInput
from cancellations.ports import Overview
from cancellations.usecases.overview import overview
from monitoring.plots import ReportPictures

W1, W2 = FIRST + WEEK, FIRST + 2 * WEEK


def overview_of(world: World, window: date | None = None) -> Overview:
    return overview(
        world.store,
        world.registry,
        window=window,
        rule=POLICY.labels,
        open_bookings=InFlightPolicy(min_rows=30),
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
