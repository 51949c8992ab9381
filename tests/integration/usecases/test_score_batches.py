"""A batch in parts, twice at once, cut off anywhere, overtaken by a promotion or a correction: each score once.

Two versions score on a store of either database. What a version answers is reckoned from the features,
so that a wrong feature shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache, partial
from threading import Barrier
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from world import CUTS, FIRST, NOW, POLICY, SECOND, START, CutOff, PowerCut, World, cuts

from cancellations.domain.features import FEATURES, FeatureSet
from cancellations.domain.promotion import Change
from cancellations.errors import BadInput
from cancellations.ports import Registry, Store, UnitOfWork, VersionRecord
from cancellations.registry import MlflowRegistry
from cancellations.sources.simulator import simulate
from cancellations.store import SqlStore
from cancellations.store.tables import corrections, features, predictions, reservations, servings, tallies
from cancellations.usecases.point_in_time import booking_time
from cancellations.usecases.score import Cut, Partition, plan, score_partition

TODAY = SECOND
# Long leads: all of them are open when either version is trained.
ARRIVAL = SECOND + timedelta(days=30)


@dataclass(frozen=True)
class Reckoned:
    """A version's answer: higher with the price, and different from every other version's."""

    version: str
    features: FeatureSet = field(default_factory=FeatureSet)
    pipeline: object = None

    def predict(self, given: pd.DataFrame) -> np.ndarray:
        return given["price"].to_numpy() / (1_000.0 + int(self.version))


@dataclass
class Versions:
    """A registry whose versions need no training."""

    loaded: list[str] = field(default_factory=list)

    def load(self, version: str) -> Reckoned:
        self.loaded.append(version)
        return Reckoned(version)


@cache
def template() -> pd.DataFrame:
    made = simulate(START, 10, seed=3).drop(columns=["status", "known_on"])
    return made.assign(group_size=1.0, arrival_on=pd.Timestamp(ARRIVAL)).astype({"arrival_on": "datetime64[us]"})


def booked(counts: Sequence[int], first: date = START, name: str = "b") -> pd.DataFrame:
    """So many bookings on each of consecutive days."""
    total = sum(counts)
    days = np.repeat(pd.date_range(first, periods=len(counts), unit="us").to_numpy(), counts)
    rows = template().sample(total, replace=True, random_state=1).reset_index(drop=True)
    ids = [f"{name}-{n:04d}" for n in np.random.default_rng(2).permutation(total)]
    return rows.assign(reservation_id=ids, booked_on=days.astype("datetime64[us]"))


def put(store: Store, rows: pd.DataFrame) -> None:
    with store.begin() as work:
        work.upsert_reservations(rows)
        work.commit()


def wipe(store: SqlStore) -> None:
    """Away with bookings and all that was made of them."""
    with store.begin() as work:
        for table in (servings, predictions, features, tallies, corrections, reservations):
            work._write(table.delete())  # type: ignore[attr-defined]
        work.commit()


def digest(store: SqlStore) -> list[list[tuple[Any, ...]]]:
    """Every row that scoring writes."""
    with store.begin() as work:
        found = [work._read(t.select()).all() for t in (features, predictions, servings)]  # type: ignore[attr-defined]
    return [sorted(map(tuple, rows), key=repr) for rows in found]


@pytest.fixture
def pair(store: SqlStore) -> World:
    """Version 1 serves, version 2 is its challenger."""
    with store.begin() as work:
        for version, day in (("1", FIRST), ("2", SECOND)):
            work.add_version(VersionRecord(version, f"request-{version}", "run", day, "digest", {}), NOW)
        for champion, challenger, change in (("1", None, Change.FIRST), ("1", "2", Change.CHALLENGED)):
            work.change_standing(
                work.standing(),
                champion=champion,
                challenger=challenger,
                change=change,
                reason="for this test",
                by="this test",
                as_of=FIRST,
                now=NOW,
            )
        work.commit()
    return World(store, cast(MlflowRegistry, Versions()))


def scored(world: World, version: str) -> dict[str, float]:
    """Probabilities by id, straight from the table: a row twice would show."""
    query = predictions.select().where(predictions.c.model_version == version)
    with world.store.begin() as work:
        rows = work._read(query).all()  # type: ignore[attr-defined]
    assert len({row.reservation_id for row in rows}) == len(rows)
    return {row.reservation_id: row.probability for row in rows}


def expected(rows: pd.DataFrame, version: str) -> dict[str, float]:
    prices = zip(rows["reservation_id"], rows["price"], strict=True)
    return {str(i): price / (1_000.0 + int(version)) for i, price in prices}


def in_threads(world: World, partitions: Sequence[Partition], chunk_rows: int) -> list[int]:
    one = partial(score_partition, world.store, world.registry, chunk_rows=chunk_rows, clock=world.clock)
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, partitions))


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(0, 6) | st.just(0) | st.just(25), min_size=1, max_size=6),
    partitions=st.integers(1, 30),
    chunk_rows=st.integers(8, 60),
    elsewhere=st.booleans(),
)
@example(counts=[3, 0, 0, 4], partitions=30, chunk_rows=3, elsewhere=True)  # more parts than days
@example(counts=[1, 25, 0], partitions=4, chunk_rows=9, elsewhere=True)  # one huge day
@example(counts=[0], partitions=4, chunk_rows=7, elsewhere=True)
def test_each_open_booking_has_one_score_of_each_version_however_the_batch_is_cut(
    pair: World, counts: list[int], partitions: int, chunk_rows: int, elsewhere: bool
) -> None:
    wipe(pair.store)
    rows = booked(counts)
    put(pair.store, rows)
    across = partial(in_threads, pair, chunk_rows=chunk_rows) if elsewhere else None
    done = pair.score(TODAY, chunk_rows=chunk_rows, cut=Cut(partitions), across=across)
    assert done.champion == "1"
    assert done.rows == {"1": len(rows), "2": len(rows)}
    for version in ("1", "2"):
        assert scored(pair, version) == pytest.approx(expected(rows, version), rel=1e-12)


def test_two_batches_at_once_in_parts_double_nothing_and_skip_nothing(pair: World) -> None:
    rows = booked([15] * 8)
    put(pair.store, rows)
    barrier = Barrier(2)

    def run(partitions: int) -> dict[str, int]:
        barrier.wait()
        return pair.score(
            TODAY, cut=Cut(partitions), across=partial(in_threads, pair, chunk_rows=30), chunk_rows=30
        ).rows

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(run, (3, 4)))
    for version in ("1", "2"):
        assert scored(pair, version) == pytest.approx(expected(rows, version))
        assert sum(each[version] for each in both) == len(rows)


@CUTS
def test_a_batch_that_is_cut_off_at_any_call_and_repeated_equals_one_that_was_not(pair: World, every: int) -> None:
    rows = booked([1, 0, 1])

    def batch(store: Store) -> None:
        pair.score(TODAY, chunk_rows=1, cut=Cut(2), store=store)

    put(pair.store, rows)
    heard = CutOff(pair.store, method="never")
    batch(heard)
    undisturbed = digest(pair.store)
    assert len(heard.calls) > 30 and all(undisturbed)

    for nth in cuts(heard.calls, every, pair.store):
        wipe(pair.store)
        put(pair.store, rows)
        with pytest.raises(PowerCut):
            batch(CutOff(pair.store, None, nth))
        batch(pair.store)
        assert digest(pair.store) == undisturbed, f"cut off at call {nth}, {heard.calls[nth]}"


def test_a_part_that_fails_leaves_what_the_others_wrote_and_the_next_batch_completes_it(pair: World) -> None:
    rows = booked([30, 30])
    put(pair.store, rows)

    def half(partitions: Sequence[Partition]) -> list[int]:
        in_threads(pair, partitions[1:], chunk_rows=10)
        raise BadInput("the first part's worker is gone")

    with pytest.raises(BadInput, match="worker is gone"):
        pair.score(TODAY, cut=Cut(2), across=half)
    assert len(scored(pair, "1")) == 30 and scored(pair, "2") == {}
    assert pair.score(TODAY, cut=Cut(2)).rows == {"1": 30, "2": 60}
    assert scored(pair, "1") == pytest.approx(expected(rows, "1"))


def test_a_batch_ends_with_the_champion_that_it_began_with_and_the_new_one_is_served(challenged: World) -> None:
    open_before = len(challenged.served(SECOND))
    heard: list[str] = []

    def overtaken(version: str, rows: int) -> None:
        heard.append(version)
        if len(heard) == 1:
            challenged.promote("2", as_of=SECOND)

    done = challenged.score(until=SECOND, chunk_rows=1_000, cut=Cut(3), on_chunk=overtaken)
    assert done.champion == "1" and set(heard) == {"1"}
    assert done.rows["1"] == len(challenged.predictions("1"))
    assert challenged.standing().champion == "2"
    served = challenged.serving(SECOND)
    assert set(served) == {"2"} and served["2"] > open_before == 0
    follows = challenged.score(until=SECOND)
    assert follows.champion == "2" and follows.rows == {"2": 0, "1": 0} and follows.served == 0


def test_a_booking_corrected_after_its_score_keeps_it_and_one_corrected_before_is_scored_as_corrected(
    pair: World,
) -> None:
    rows = booked([2])
    put(pair.store, rows)
    first, second = rows["reservation_id"].sort_values()
    with pair.store.begin() as work:
        champion, _ = plan(pair.store, after=None, until=TODAY, rule=POLICY.labels, cut=Cut()).turns
        page = work.unscored("1", None, TODAY, None, 1)
    assert page["reservation_id"].tolist() == [first]
    with pytest.raises(PowerCut):  # after the first booking's chunk
        score_partition(
            CutOff(pair.store, "unscored", nth=1),
            cast(Registry, Versions()),
            champion.partitions[0],
            chunk_rows=1,
            clock=pair.clock,
        )

    put(pair.store, rows.assign(price=rows["price"] + 500.0))
    pair.score(TODAY)
    before, after = expected(rows, "1"), expected(rows.assign(price=rows["price"] + 500.0), "1")
    assert scored(pair, "1") == pytest.approx({first: before[first], second: after[second]})
    # The challenger sees what the champion saw of the same booking.
    assert scored(pair, "2")[first] == pytest.approx(expected(rows, "2")[first])
    with pair.store.begin() as work:
        seen = work.features(pd.Series([first]))
        known = work._read(reservations.select().where(reservations.c.reservation_id == first)).one()  # type: ignore[attr-defined]
    assert known.price == pytest.approx(seen["price"].item() + 500.0)


@pytest.mark.parametrize("stored", [{6}, {4, 5, 6, 7}, {0, 1, 2, 3, 9}], ids=str)
def test_features_that_are_stored_count_whatever_the_page_before_was_like(pair: World, stored: set[int]) -> None:
    rows = booked([3, 4, 5])
    put(pair.store, rows)
    with pair.store.begin() as work:
        page = work.unscored("1", None, TODAY, None, 12).iloc[sorted(stored)]
        made = booking_time(work, page, POLICY.labels).set_axis(page["reservation_id"])
        work.add_features(made.assign(price=7_777.0), NOW)
        work.commit()
    pair.score(TODAY, chunk_rows=4)
    for version in ("1", "2"):
        seen = rows.assign(price=rows["price"].mask(rows["reservation_id"].isin(page["reservation_id"]), 7_777.0))
        assert scored(pair, version) == pytest.approx(expected(seen, version))


def test_a_booking_that_arrives_behind_a_batch_is_scored_by_the_next(pair: World) -> None:
    early = booked([10, 10])
    late = booked([5], name="late")
    put(pair.store, early)

    def arrives(version: str, rows: int) -> None:
        if (version, rows) == ("1", 20):
            put(pair.store, late)

    done = pair.score(TODAY, chunk_rows=10, cut=Cut(2), on_chunk=arrives)
    assert done.rows["1"] == 20
    assert set(scored(pair, "1")) == set(early["reservation_id"])
    again = pair.score(TODAY)
    assert again.rows["1"] == 5
    everything = pd.concat([early, late])
    for version in ("1", "2"):
        assert scored(pair, version) == pytest.approx(expected(everything, version))


@dataclass
class Weighed:
    """A store that notes how many rows each call brought in."""

    store: Store
    rows: list[tuple[str, int]] = field(default_factory=list)

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        with self.store.begin() as work:
            yield cast(UnitOfWork, _Weighed(work, self.rows))


class _Weighed:
    def __init__(self, work: UnitOfWork, rows: list[tuple[str, int]]) -> None:
        self._work, self._rows = work, rows

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            found = getattr(self._work, name)(*given, **named)
            if isinstance(found, pd.DataFrame):
                self._rows.append((name, len(found)))
            return found

        return call


def test_bookings_come_in_bounded_pages_and_features_from_the_tally_never_from_the_whole_history(pair: World) -> None:
    put(pair.store, booked([60, 60, 60]))
    weighed = Weighed(pair.store)
    pair.score(TODAY, chunk_rows=25, store=weighed)
    assert "history" not in {name for name, _ in weighed.rows}
    assert {name for name, _ in weighed.rows} >= {"unscored", "tallies", "features"}
    assert max(rows for name, rows in weighed.rows if name in ("unscored", "features")) == 25


def test_a_batch_without_anything_to_score_loads_no_model(pair: World) -> None:
    put(pair.store, booked([5]))
    assert pair.score(TODAY).rows == {"1": 5, "2": 5}
    versions = Versions()
    world = World(pair.store, cast(MlflowRegistry, versions))
    assert world.score(TODAY, cut=Cut(3)).rows == {"1": 0, "2": 0}
    assert versions.loaded == []


@pytest.mark.parametrize("changes", [{"version": "9"}, {"trained_as_of": START}])
def test_a_part_planned_on_another_store_is_refused_before_anything_is_written(
    pair: World, changes: dict[str, Any]
) -> None:
    put(pair.store, booked([5]))
    given = {"version": "1", "trained_as_of": FIRST} | changes
    foreign = Partition(**given, rule=POLICY.labels, as_of=TODAY, after=None, until=TODAY, rows=5)
    with pytest.raises(BadInput, match=r"another store than that of the run.*CANCELLATIONS_DATABASE_URL"):
        score_partition(pair.store, pair.registry, foreign, chunk_rows=5, clock=pair.clock)
    assert digest(pair.store) == [[], [], []]


def test_the_features_of_a_batch_in_parts_are_those_of_one_piece(serving: World) -> None:
    until = START + timedelta(days=21)
    serving.ingest(until=until)
    serving.score(until=until, chunk_rows=177, cut=Cut(5))
    probabilities = serving.predictions("1")
    ids = pd.Series(probabilities.index)
    with serving.store.begin() as work:
        in_parts = work.features(ids)
        for table in (predictions, features):
            work._write(table.delete())  # type: ignore[attr-defined]
        work.commit()
    assert serving.score(until=until).rows == {"1": len(ids)}
    with serving.store.begin() as work:
        whole = work.features(ids)
    assert list(in_parts) == list(FEATURES)
    pd.testing.assert_frame_equal(in_parts.sort_index(), whole.sort_index())
    pd.testing.assert_series_equal(serving.predictions("1"), probabilities)
