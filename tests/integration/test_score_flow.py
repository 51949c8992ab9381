"""The score flow on a real Prefect server, its parts here, in threads, in processes and on Dask workers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from once import Once
from prefect import Flow
from prefect.artifacts import Artifact
from prefect.client.orchestration import SyncPrefectClient
from prefect.flows import load_flow_from_entrypoint
from threadpoolctl import threadpool_limits

from cancellations import settings
from cancellations.bootstrap import App, clock, owner, prepare
from cancellations.domain.promotion import Change
from cancellations.errors import BadInput
from cancellations.model import GradientBoosting
from cancellations.ports import VersionRecord
from cancellations.settings import Settings
from cancellations.sources.simulator import Simulator
from cancellations.store import upgrade
from cancellations.usecases import score as score_
from deployments.live import PROJECT
from deployments.mistake import register_notebook_model
from flows.application import application
from flows.partition import local_cluster

pytest_plugins = ["prefect_server"]

START, TRAINED = date(2016, 5, 2), date(2016, 6, 10)
UNTIL = TRAINED + timedelta(days=10)
PARTS = 4


class Quick(GradientBoosting):
    """Enough of a model to tell bookings apart."""

    _settings = GradientBoosting._settings | {"max_iter": 5}


def bookings() -> Simulator:
    """Of short leads, so that few are open: parts and chunks are many, not large."""
    return Simulator(START, (UNTIL - START).days + 1, seed=7, max_lead_days=30)


@dataclass(frozen=True)
class Scene:
    """A home with a registered version, which `enthroned` makes champion of a database."""

    home: Path
    version: VersionRecord


def enthroned(known: Settings, version: VersionRecord) -> None:
    """Bookings up to UNTIL, and a champion."""
    upgrade(known.store_url)
    app = App(known)
    app.ingest(bookings(), until=UNTIL)
    with app.store.begin() as work:
        work.add_version(version, clock())
        work.change_standing(
            work.standing(),
            champion=version.version,
            challenger=None,
            change=Change.FIRST,
            reason="for this test",
            by="this test",
            as_of=TRAINED,
            now=clock(),
        )
        work.commit()
    app.store.close()


@contextmanager
def clean_environment() -> Iterator[pytest.MonkeyPatch]:
    """Settings from what a test sets alone, and an application of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
            patch.delenv(name)
        application.cache_clear()
        yield patch
        if application.cache_info().currsize:
            application().store.close()
        application.cache_clear()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Scene:
    home = once.home(tmp_path_factory.mktemp("scene") / "home")
    with clean_environment(), threadpool_limits(1):
        known = settings.load(home=home)
        prepare(known)
        app = App(known, trainer=Quick())
        app.ingest(bookings(), until=UNTIL)
        version = register_notebook_model(app, TRAINED)
        app.store.close()
        enthroned(known, version)
    return Scene(home, version)


@pytest.fixture
def environment(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment of a worker on a copy of the home."""
    home = shutil.copytree(scene.home, tmp_path / "home", ignore=shutil.ignore_patterns("artifacts"))
    with clean_environment() as patch:
        # A run's file is loaded as a script, which leaves traces in both.
        patch.setattr(sys, "path", list(sys.path))
        patch.delitem(sys.modules, "score", raising=False)
        patch.setenv("CANCELLATIONS_HOME", str(home))
        patch.setenv("CANCELLATIONS_SCORING__PARTITIONS", str(PARTS))
        patch.setenv("CANCELLATIONS_SCORING__LEAST_ROWS", "1")
        patch.setenv("CANCELLATIONS_CHUNK_ROWS", "200")
        yield patch


@pytest.fixture
def flow(prefect: SyncPrefectClient, environment: pytest.MonkeyPatch) -> Flow[..., Any]:
    """As a worker loads it: from its file."""
    return load_flow_from_entrypoint(f"{PROJECT / 'flows' / 'score.py'}:score")


@pytest.fixture(scope="module")
def undisturbed(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What one process writes in one go."""
    home = shutil.copytree(scene.home, tmp_path_factory.mktemp("here") / "home")
    with clean_environment():
        app = App(settings.load(home=home))
        app.score(until=UNTIL)
        written = everything(app)
        app.store.close()
    return written


def everything(app: App) -> pd.DataFrame:
    """Features and probability of each scored booking, and what is served of it."""
    with app.store.begin() as work:
        scored = work.scored("1", START, UNTIL).set_index("reservation_id")["probability"].sort_index()
        features = work.features(pd.Series(scored.index))
        served = work.served(UNTIL).set_index("reservation_id")["probability"].rename("served")
    assert scored.index.is_unique
    return features.join(scored).join(served).sort_index()


def artifact() -> str:
    found = Artifact.get("scores")
    assert found is not None
    return str(found.data)


def processes() -> list[str]:
    """Host and process of each part, as the artifact of the last run tells it."""
    rows = [line.split("|") for line in artifact().splitlines() if "| booked " in line]
    return [cells[4].strip() for cells in rows]


def children() -> set[psutil.Process]:
    """Processes below this one, but for the one that Python keeps for good where it has spawned any."""
    found = psutil.Process().children(recursive=True)
    return {child for child in found if "resource_tracker" not in " ".join(child.cmdline())}


def loopback_only(pids: set[int]) -> bool:
    """Whether every port that these processes listen at can be reached from this machine alone."""
    ports = [c for pid in pids for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"]
    return all(port.laddr.ip == "127.0.0.1" for port in ports)


def test_one_process_scores_by_default_in_one_part_and_starts_nothing(
    flow: Flow[..., Any], undisturbed: pd.DataFrame
) -> None:
    before = children()
    flow(until=UNTIL)
    assert children() == before
    assert processes() == [owner()]
    assert f"**{len(undisturbed):,}**" in artifact() and "runner: here" in artifact()
    pd.testing.assert_frame_equal(everything(application()), undisturbed)


@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_parts_that_are_scored_in_threads_or_processes_write_what_one_process_does(
    flow: Flow[..., Any], environment: pytest.MonkeyPatch, undisturbed: pd.DataFrame, runner: str
) -> None:
    environment.setenv("CANCELLATIONS_SCORING__RUNNER", runner)
    before = children()
    flow(until=UNTIL)
    assert children() == before
    assert len(processes()) == PARTS
    assert (set(processes()) == {owner()}) == (runner == "threads")
    pd.testing.assert_frame_equal(everything(application()), undisturbed)


def test_two_dask_workers_that_only_this_machine_can_reach_write_what_one_process_does(
    flow: Flow[..., Any],
    environment: pytest.MonkeyPatch,
    undisturbed: pd.DataFrame,
    recwarn: pytest.WarningsRecorder,
) -> None:
    environment.setenv("CANCELLATIONS_SCORING__RUNNER", "dask")
    before = children()
    flow(until=UNTIL)
    assert children() == before
    assert len(processes()) == PARTS
    assert len(set(processes()) - {owner()}) == 2
    assert "runner: dask" in artifact()
    pd.testing.assert_frame_equal(everything(application()), undisturbed)
    assert [w for w in recwarn if "distributed" in w.filename] == []


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_dask_cluster_that_is_there_scores_on_postgresql(
    flow: Flow[..., Any],
    scene: Scene,
    environment: pytest.MonkeyPatch,
    undisturbed: pd.DataFrame,
    store_url: str,
) -> None:
    from distributed import LocalCluster

    environment.setenv("CANCELLATIONS_DATABASE_URL", store_url)
    enthroned(settings.load(), scene.version)
    before = children()
    with LocalCluster(**local_cluster(1)) as cluster:
        assert loopback_only({child.pid for child in children() - before} | {os.getpid()})
        environment.setenv("CANCELLATIONS_SCORING__RUNNER", "dask")
        environment.setenv("CANCELLATIONS_SCORING__DASK_ADDRESS", cluster.scheduler_address)
        flow(until=UNTIL)
        assert len(cluster.scheduler_info["workers"]) == 1, "whoever started the cluster ends it"
    assert children() == before
    assert len(processes()) == PARTS and owner() not in processes()
    pd.testing.assert_frame_equal(everything(application()), undisturbed)


def test_a_part_that_fails_fails_the_run_with_its_reason_and_a_repeat_completes_it(
    flow: Flow[..., Any],
    environment: pytest.MonkeyPatch,
    undisturbed: pd.DataFrame,
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment.setenv("CANCELLATIONS_SCORING__RUNNER", "threads")
    whole = score_.score_partition

    def second_fails(store: Any, registry: Any, partition: score_.Partition, **given: Any) -> int:
        if partition.after is not None and partition.until < UNTIL and not failed:
            failed.append(partition)
            raise BadInput("version 1 gives 3 bookings no probability")
        return whole(store, registry, partition, **given)

    failed: list[score_.Partition] = []
    with environment.context() as patch:
        patch.setattr(score_, "score_partition", second_fails)
        with pytest.raises(BadInput, match="no probability"):
            flow(until=UNTIL)
    assert len(failed) == 1
    left = len(undisturbed) - len(everything(application()))
    assert left == failed[0].rows > 0
    assert (
        f"bookings until {failed[0].until} were not scored" in caplog.text
        and "3 bookings no probability" in caplog.text
    )

    flow(until=UNTIL)
    assert f"**{left:,}**" in artifact()
    pd.testing.assert_frame_equal(everything(application()), undisturbed)


def test_a_day_that_fails_is_held_back_checked_when_it_is_over_and_mailed_once(
    flow: Flow[..., Any], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("CANCELLATIONS_CHECKS__MIN_DAYS", "14")
    store = application().store
    with store.begin() as work:
        rows = work.history(booked_until=UNTIL, known_until=UNTIL)
        last = rows[rows["booked_on"] == pd.Timestamp(UNTIL - timedelta(days=1))]
        work.upsert_reservations(last.drop(columns=["status", "known_on"]).assign(price=last["price"] * 100))
        work.commit()
    flow(until=UNTIL)
    held = Artifact.get("held")
    assert held is not None
    assert f"| {UNTIL - timedelta(days=1)} | {UNTIL} | {len(last):,} | price: " in str(held.data)
    with store.begin() as work:
        assert work.predictions("1", last["reservation_id"]).empty
    found = Artifact.get("data-checks")
    assert found is not None
    assert f"| {UNTIL - timedelta(days=1)} | {len(last):,} | **failed** | " in str(found.data)
    assert "price: out of range in " in str(found.data)
    with store.begin() as work:
        topics = [entry.message.topic for entry in work.pending_messages()]
    assert topics.count("cancellations.data.broken") == 1


def test_without_a_champion_the_run_ends_as_refused(
    flow: Flow[..., Any], environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("CANCELLATIONS_HOME", str(tmp_path / "empty"))
    upgrade(settings.load().store_url)
    state = flow(until=UNTIL, return_state=True)
    assert state.is_completed() and state.name == "Refused"
    assert "no champion to score with" in str(state.message)


def test_a_worker_on_another_store_fails_the_run_and_says_what_to_set(
    flow: Flow[..., Any], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("CANCELLATIONS_SCORING__RUNNER", "threads")
    whole = score_.score_partition

    def elsewhere(store: Any, registry: Any, partition: score_.Partition, **given: Any) -> int:
        return whole(store, registry, replace(partition, version="7"), **given)

    environment.setattr(score_, "score_partition", elsewhere)
    with pytest.raises(BadInput, match=r"another store than that of the run.*CANCELLATIONS_DATABASE_URL"):
        flow(until=UNTIL)
