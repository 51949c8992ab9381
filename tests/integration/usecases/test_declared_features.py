"""A column that a mapping declares: into training, scoring and monitoring, and what came before it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import mlflow
import mlflow.artifacts
import numpy as np
import pandas as pd
import pytest
from once import Once
from world import DAYS, FIRST, POLICY, SECOND, START, WEEK, Snapshot, World, begin

from cancellations.domain.features import CORE, FEATURES
from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.labels import CANCELLED, matured
from cancellations.domain.reservation import COLUMNS, GROUP_SIZE, Column, no_problems
from cancellations.domain.retraining import MonitorReport, RequestState, RetrainPolicy
from cancellations.errors import BadInput
from cancellations.model import GradientBoosting
from cancellations.ports import SourceBatch, Undated
from cancellations.registry import signature
from cancellations.settings import MonitorSettings
from cancellations.sources.simulator import simulate
from cancellations.usecases.monitor import Rhythm, monitor
from cancellations.usecases.point_in_time import as_scored, booking_time
from monitoring.report import EvidentlyMonitor

PAID, COUNTRY = Column("deposit_paid", "number"), Column("country", "category")
DECLARED = (COUNTRY, PAID)
WITH = CORE.extended(DECLARED)
# What a training sees is looked at here, not how good it is.
LENIENT = replace(POLICY, gate=replace(POLICY.gate, min_skill=-10.0, tolerance=10.0, max_bias=1.0))


def bookings() -> pd.DataFrame:
    """The simulator's, with what their guests paid beforehand and where they come from.

    Both tell of the end; after FIRST another currency and another spelling come in.
    """
    rows = simulate(START, DAYS, seed=24)
    chance = np.random.default_rng(11)
    cancelled = rows["status"].isin(CANCELLED).to_numpy()
    country = np.where(chance.random(len(rows)) < 0.3 + 0.4 * cancelled, "PRT", "ESP").astype(object)
    later = (rows["booked_on"] > pd.Timestamp(FIRST)).to_numpy()
    paid = chance.normal(50 - 10 * cancelled, 10)
    country = np.where(later & (country == "PRT"), "351", country).astype(object)
    return rows.assign(deposit_paid=np.where(later, paid + 40, paid), country=country)


@dataclass(frozen=True)
class Declaring:
    """A source whose mapping declares two columns."""

    rows: pd.DataFrame
    name: str = "declaring"
    columns: tuple[Column, ...] = (*COLUMNS, *DECLARED)
    mapping: str = "[features]"
    undated: Undated = Undated.MATURITY

    def fingerprint(self) -> str | None:
        return None

    def batches(self) -> Iterator[SourceBatch]:
        rows = self.rows.set_axis(pd.RangeIndex(1, len(self.rows) + 1))
        outcomes = rows[["reservation_id", "status", "known_on"]].dropna()
        yield SourceBatch(rows, rows[[c.name for c in self.columns]], outcomes, no_problems())


def look(world: World, until: date) -> MonitorReport:
    """The last window's report, by the real monitor."""
    looked = monitor(
        world.store,
        world.registry,
        EvidentlyMonitor(MonitorSettings(min_rows=200)),
        after=until - WEEK,
        until=until,
        rhythm=Rhythm(window_days=14, step_days=7),
        rule=POLICY.labels,
        policy=RetrainPolicy(),
        open_bookings=InFlightPolicy(),
        clock=world.clock,
    )
    return looked.decisions[-1].report


def training_table(world: World, version: str) -> pd.DataFrame:
    run_id = world.registry._client.get_model_version("cancellations", version).run_id
    return pd.read_parquet(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="data/training.parquet"))


def open_bookings(world: World) -> pd.DataFrame:
    """Bookings that had not matured on FIRST: those that its champion scores."""
    with world.store.begin() as work:
        history = work.history(booked_until=SECOND, known_until=SECOND)
    return history[history["arrival_on"] > pd.Timestamp(FIRST - timedelta(days=POLICY.labels.settle_days))].reset_index(
        drop=True
    )


@pytest.fixture(scope="module")
def declared_home(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Snapshot:
    folder = tmp_path_factory.mktemp("declared")
    home, artifacts = folder / "home", folder / "artifacts"
    world = begin(home, artifacts, once)
    world.ingest(until=SECOND, source=Declaring(bookings()))
    assert world.retrain(world.request(FIRST), trainer=GradientBoosting()).state is RequestState.CANDIDATE
    world.store.close()
    return Snapshot.of(home, artifacts, folder / "snapshot")


@pytest.fixture
def declared(declared_home: Snapshot, tmp_path: Path) -> Iterator[World]:
    """Version 1, trained on the declared columns, serves."""
    world = declared_home.copy(tmp_path / "declared")
    yield world
    world.store.close()


# --- declared from the first day on ---------------------------------------------------------------


def test_a_declared_column_reaches_signature_reference_and_importance(declared: World) -> None:
    assert declared.registry.load("1").features == WITH
    assert mlflow.models.get_model_info("models:/cancellations/1").signature == signature(WITH)
    assert set(declared.registry.reference("1")) == {*WITH.names, "label"}
    importance = declared.registry.importance("1")
    assert set(importance) == set(WITH.names)
    assert importance["deposit_paid"] > 0 and importance["country"] > 0


def test_it_is_stored_with_the_features_that_a_version_scored(declared: World) -> None:
    declared.score(until=SECOND)
    scored = open_bookings(declared)["reservation_id"]
    with declared.store.begin() as work:
        stored = work.features(scored).sort_index()
    assert list(stored.columns) == list(WITH.names)
    given = bookings().set_index("reservation_id").loc[stored.index]
    assert np.array_equal(stored["deposit_paid"], given["deposit_paid"])
    assert stored["country"].tolist() == given["country"].tolist()
    model = declared.registry.load("1")
    predicted = declared.predictions("1")
    assert np.array_equal(model.predict(stored.loc[predicted.index]), predicted)


def test_its_drift_is_seen_and_told(declared: World) -> None:
    declared.score(until=SECOND)
    found = {c.column: c for c in look(declared, SECOND).columns}
    assert found["deposit_paid"].drifted and found["deposit_paid"].weight > 0
    assert found["country"].drifted and "351" in found["country"].after


# --- declared later -------------------------------------------------------------------------------


def test_a_champion_without_it_goes_on_and_a_challenger_with_it_scores_what_was_stored_before(trained: World) -> None:
    day = SECOND - timedelta(days=7)
    trained.score(until=day)
    before = trained.predictions("1")
    again = trained.ingest(until=SECOND, source=Declaring(bookings()))
    assert again.updated == again.read - again.outside

    done = trained.retrain(trained.request(SECOND), policy=LENIENT)
    assert done.version == "2"
    champion, challenger = trained.registry.load("1").features, trained.registry.load("2").features
    assert (champion, challenger) == (CORE, WITH)
    trained.score(until=SECOND)
    pd.testing.assert_series_equal(trained.predictions("1").loc[before.index], before)
    with trained.store.begin() as work:
        stored = work.features(pd.Series(trained.predictions("2").index))
    without = stored.index.isin(before.index)
    assert 0 < without.sum() < len(stored)
    assert stored.loc[without, "deposit_paid"].isna().all() and stored.loc[~without, "deposit_paid"].notna().all()
    assert trained.predictions("2").between(0, 1).all()

    # What the challenger was trained on is what would have been seen: nothing where nothing was stored.
    table = training_table(trained, "2").set_index("reservation_id")
    seen = table.index.isin(before.index)
    assert 0 < seen.sum() < len(table)
    assert table.loc[seen, "country"].isna().all() and table.loc[~seen, "country"].notna().all()

    report = look(trained, SECOND)
    assert report.champion == "1"
    told = {c.column: (c.score, c.why) for c in report.columns}
    assert told["country"] == told["deposit_paid"] == (None, "the column is missing in the reference")
    assert all(told[name][0] is not None for name in ("price", GROUP_SIZE, "hotel"))


def test_a_column_that_was_declared_just_now_is_missing_in_all_bookings_and_breaks_nothing(loaded: World) -> None:
    with loaded.store.begin() as work:
        work.declare_columns(DECLARED, loaded.clock())
        work.commit()
    assert loaded.retrain(loaded.request(FIRST), trainer=GradientBoosting()).state is RequestState.CANDIDATE
    assert loaded.registry.load("1").features == WITH
    importance = loaded.registry.importance("1")
    assert importance["deposit_paid"] == importance["country"] == 0
    reference = loaded.registry.reference("1")
    assert reference[["deposit_paid", "country"]].isna().all(axis=None)
    loaded.ingest(until=SECOND, source=Declaring(bookings()))
    scored = loaded.score(until=SECOND)
    assert scored.rows["1"] > 500
    why = {c.column: c.why for c in look(loaded, SECOND).columns}
    for name in ("deposit_paid", "country"):
        assert "values are missing, or cannot be read, in the reference" in why[name]


def test_a_category_that_training_never_saw_gets_a_score(declared: World) -> None:
    sample = declared.registry.reference("1").assign(country="ATA", hotel="a third one")
    missing = sample.assign(country=None, hotel=None)
    model = declared.registry.load("1")
    assert np.array_equal(model.predict(sample), model.predict(missing))


def test_a_model_takes_a_declared_column_that_is_not_there_as_missing_but_no_core_one(declared: World) -> None:
    model, sample = declared.registry.load("1"), declared.registry.reference("1")
    blind = sample.assign(deposit_paid=np.nan, country=None)
    assert np.array_equal(model.predict(sample[list(FEATURES)]), model.predict(blind))
    with pytest.raises(BadInput, match="price are not there"):
        model.predict(sample.drop(columns="price"))


# --- training sees what scoring saw ---------------------------------------------------------------


def features_of(world: World, reservations: pd.DataFrame) -> pd.DataFrame:
    with world.store.begin() as work:
        return as_scored(work, reservations, POLICY.labels)


def test_training_and_scoring_give_a_booking_the_same_features_before_and_after_it_was_scored(declared: World) -> None:
    rows = open_bookings(declared)
    before = features_of(declared, rows)
    declared.score(until=SECOND - timedelta(days=7), chunk_rows=491)
    half = features_of(declared, rows)
    declared.score(until=SECOND, chunk_rows=491)
    after = features_of(declared, rows)
    pd.testing.assert_frame_equal(half, before)
    pd.testing.assert_frame_equal(after, before)
    with declared.store.begin() as work:
        stored = work.features(rows["reservation_id"])
    assert len(stored) == len(rows)
    pd.testing.assert_frame_equal(before.set_axis(rows["reservation_id"]), stored.loc[rows["reservation_id"]])


def test_a_correction_after_the_score_changes_no_feature_that_training_uses(declared: World) -> None:
    declared.score(until=SECOND)
    rows = open_bookings(declared)
    before = features_of(declared, rows)
    corrected = bookings().assign(price=1.0, deposit_paid=0.0, country="ITA", agent="somebody else")
    assert declared.ingest(until=SECOND, source=Declaring(corrected)).updated > len(rows)
    with declared.store.begin() as work:
        now = booking_time(work, open_bookings(declared), POLICY.labels)
    assert set(now["price"]) == {1.0} and set(now["country"]) == {"ITA"}
    pd.testing.assert_frame_equal(features_of(declared, open_bookings(declared)), before)

    declared.retrain(declared.request(SECOND), policy=LENIENT)
    table = training_table(declared, "2").set_index("reservation_id")
    with declared.store.begin() as work:
        cohort = matured(work.history(booked_until=SECOND, known_until=SECOND), POLICY.labels, as_of=SECOND)
    assert set(table.index) == set(cohort["reservation_id"])
    seen = before.set_axis(rows["reservation_id"])
    common = table.index.intersection(seen.index)
    assert 0 < len(common) < len(table)
    for name in ("price", "deposit_paid", "country", "agent_bookings", GROUP_SIZE):
        assert table.loc[common, name].tolist() == seen.loc[common, name].tolist(), name
    assert set(table.drop(index=common)["price"]) == {1.0}


def test_the_size_of_a_group_is_the_one_of_its_load_however_few_are_scored_or_come_later(declared: World) -> None:
    rows = open_bookings(declared)
    sizes = rows.set_index("reservation_id")[GROUP_SIZE]
    declared.score(until=SECOND, chunk_rows=1_000)
    extended = pd.concat([bookings(), bookings().assign(reservation_id=lambda f: "twin-" + f["reservation_id"])])
    declared.ingest(until=SECOND, source=Declaring(extended))
    again = open_bookings(declared).set_index("reservation_id")
    pd.testing.assert_series_equal(again.loc[sizes.index, GROUP_SIZE], sizes)
    twins = "twin-" + sizes.index
    assert again.loc[twins, GROUP_SIZE].tolist() == (2 * sizes).tolist()
    with declared.store.begin() as work:
        stored = work.features(rows["reservation_id"])
    assert stored.loc[sizes.index, GROUP_SIZE].tolist() == sizes.tolist()
