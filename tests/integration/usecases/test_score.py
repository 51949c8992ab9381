"""Scoring: one probability for each open booking and version, whatever is killed or run twice."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pandas as pd
import pytest
from world import FIRST, POLICY, SECOND, START, WEEK, World

from cancellations.domain.labels import maturity
from cancellations.errors import Refused
from cancellations.store.scores import Scores
from cancellations.store.tables import features, predictions


def at_once(act: Callable[[], object], times: int) -> list[object]:
    barrier = Barrier(times)

    def run(_: int) -> object:
        barrier.wait()
        return act()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(run, range(times)))


def open_ids(world: World) -> set[str]:
    """Bookings whose outcome was not final when version 1 was trained."""
    with world.store.begin() as work:
        history = work.history(booked_until=SECOND, known_until=SECOND)
    return set(history.loc[maturity(history, POLICY.labels) > pd.Timestamp(FIRST), "reservation_id"])


def test_each_open_booking_has_one_score_and_a_second_run_adds_none(trained: World) -> None:
    first = trained.score(until=FIRST)
    scores = trained.predictions("1")
    again = trained.score(until=FIRST)
    assert first.champion == "1"
    assert first.rows == {"1": len(scores)} and len(scores) > 1_000
    assert scores.index.is_unique and scores.between(0, 1).all()
    assert again.rows == {"1": 0}
    pd.testing.assert_series_equal(trained.predictions("1"), scores)


def test_what_had_matured_before_the_training_is_not_scored(trained: World) -> None:
    trained.score(until=SECOND)
    assert set(trained.predictions("1").index) == open_ids(trained)


def test_only_bookings_of_the_span_are_scored(trained: World) -> None:
    counts = [trained.score(until=FIRST - 2 * WEEK).rows["1"]]
    counts.append(trained.score(until=FIRST, after=FIRST - WEEK).rows["1"])
    with trained.store.begin() as work:
        gap = work.scored("1", FIRST - 2 * WEEK + timedelta(days=1), FIRST - WEEK)
    assert gap.empty and min(counts) > 0
    assert trained.score(until=FIRST).rows["1"] > 0


def test_chunks_give_the_same_probabilities_as_one_chunk(trained: World) -> None:
    heard: list[int] = []
    trained.score(until=FIRST, chunk_rows=700, on_chunk=lambda version, rows: heard.append(rows))
    in_chunks = trained.predictions("1")
    with trained.store.begin() as work:
        work._write(predictions.delete())  # type: ignore[attr-defined]
        work.commit()
    trained.score(until=FIRST)
    pd.testing.assert_series_equal(trained.predictions("1"), in_chunks)
    assert heard == [*range(700, len(in_chunks), 700), len(in_chunks)]


def test_two_runs_at_once_double_nothing(serving: World) -> None:
    serving.ingest(until=START + 5 * WEEK)
    runs = at_once(lambda: serving.score(until=START + 5 * WEEK, chunk_rows=300).rows["1"], times=2)
    scores = serving.predictions("1")
    assert scores.index.is_unique and len(scores) > 300
    assert sum(runs) == len(scores)  # type: ignore[arg-type]
    assert serving.score(until=START + 5 * WEEK).rows == {"1": 0}


def test_who_comes_second_to_a_booking_scores_it_from_the_features_that_the_first_one_stored(
    trained: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score() -> pd.Series:
        with trained.store.begin() as work:
            work._write(predictions.delete())  # type: ignore[attr-defined]
            work.commit()
        trained.score(until=FIRST)
        return trained.predictions("1")

    own = score()
    with trained.store.begin() as work:
        # The first one had seen another lead, because the booking has been corrected since.
        work._write(features.update().values(lead_days=features.c.lead_days + 100))  # type: ignore[attr-defined]
        work.commit()
    from_stored = score()
    assert (from_stored != own).any()

    read, late = Scores.features, iter([True])

    def before_the_first_has_written(work: Scores, reservation_ids: pd.Series) -> pd.DataFrame:
        found = read(work, reservation_ids)
        return found.iloc[:0] if next(late, False) else found

    monkeypatch.setattr(Scores, "features", before_the_first_has_written)
    pd.testing.assert_series_equal(score(), from_stored)


def test_a_run_that_dies_half_way_is_completed_by_the_next(serving: World) -> None:
    serving.ingest(until=START + 5 * WEEK)

    def cut(version: str, rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serving.score(until=START + 5 * WEEK, chunk_rows=300, on_chunk=cut)
    half = serving.predictions("1")
    rest = serving.score(until=START + 5 * WEEK, chunk_rows=300)
    whole = serving.predictions("1")
    assert len(half) == 300
    assert rest.rows == {"1": len(whole) - 300}
    pd.testing.assert_series_equal(whole[half.index], half)


def test_champion_and_challenger_score_the_same_new_bookings(challenged: World) -> None:
    scored = challenged.score(until=SECOND, after=FIRST)
    champion, challenger = challenged.predictions("1"), challenged.predictions("2")
    assert scored.champion == "1"
    assert scored.rows == {"1": len(champion), "2": len(challenger)}
    # The challenger saw two more weeks mature: it scores what the champion does, but for those.
    assert set(challenger.index) < set(champion.index)
    assert not champion[challenger.index].equals(challenger)


def test_without_a_champion_scoring_is_refused_with_the_way_out(loaded: World) -> None:
    with pytest.raises(Refused, match=r"no champion to score with.*cancellations retrain"):
        loaded.score(until=FIRST)
