"""Worlds at three points of their story, and a contest; made once in a run, and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from contest import candidate, enter
from once import Once, mlflow_migrations_read_once
from threadpoolctl import threadpool_limits
from world import FIRST, LATER, SECOND, START, Snapshot, World, begin, simulator

from cancellations.domain.promotion import Change
from cancellations.domain.retraining import RequestState
from cancellations.model import GradientBoosting
from cancellations.store import SqlStore, open_store
from monitoring.plots import ReportPictures


@dataclass(frozen=True)
class Story:
    """`loaded`: bookings and outcomes until SECOND. `trained`: version 1 is champion, trained as of
    FIRST by the full recipe. `challenged`: version 2, as of SECOND, is on trial beside the champion."""

    loaded: Snapshot
    trained: Snapshot
    challenged: Snapshot


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    # Fits of a few thousand rows: threads that spin on busy cores cost more than they bring.
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> Iterator[None]:
    with mlflow_migrations_read_once():
        yield


@pytest.fixture(scope="session")
def story(once: Once) -> Story:
    def tell(folder: Path) -> None:
        home, artifacts = folder / "home", folder / "artifacts"
        world = begin(home, artifacts, once)
        world.ingest(until=SECOND)
        Snapshot.of(home, artifacts, folder / "loaded")
        champion = world.retrain(world.request(FIRST), trainer=GradientBoosting(), pictures=ReportPictures())
        assert champion.state is RequestState.CANDIDATE
        Snapshot.of(home, artifacts, folder / "trained")
        assert world.retrain(world.request(SECOND)).state is RequestState.CANDIDATE
        Snapshot.of(home, artifacts, folder / "challenged")
        world.store.close()

    folder = once.folder("story", tell)
    return Story(*(Snapshot(folder / point, folder / "artifacts") for point in ("loaded", "trained", "challenged")))


@pytest.fixture
def loaded(story: Story, tmp_path: Path) -> Iterator[World]:
    """Bookings, and nobody who serves."""
    yield from _open(story.loaded, tmp_path)


@pytest.fixture
def trained(story: Story, tmp_path: Path) -> Iterator[World]:
    """Version 1 serves."""
    yield from _open(story.trained, tmp_path)


@pytest.fixture
def trained_again(story: Story, tmp_path: Path) -> Iterator[World]:
    """A second world from the same start."""
    yield from _open(story.trained, tmp_path / "again")


@pytest.fixture
def challenged(story: Story, tmp_path: Path) -> Iterator[World]:
    """Version 1 serves, version 2 is on trial beside it."""
    yield from _open(story.challenged, tmp_path)


@pytest.fixture(scope="session")
def promotion(story: Story, once: Once) -> Snapshot:
    """Version 2 has taken over from version 1 on SECOND; bookings come in since."""

    def tell(folder: Path) -> None:
        world = story.challenged.copy(folder / "world")
        world.ingest(until=LATER, source=simulator((LATER - START).days + 1))
        world.score(SECOND)
        world.promote("2", SECOND)
        world.store.close()
        Snapshot.of(folder / "world", story.challenged.artifacts, folder / "promoted")

    return Snapshot(once.folder("promotion", tell) / "promoted", story.challenged.artifacts)


@pytest.fixture
def promoted(promotion: Snapshot, tmp_path: Path) -> Iterator[World]:
    """Version 2 serves, on probation against version 1, and its first bookings wait to be scored."""
    yield from _open(promotion, tmp_path)


@pytest.fixture(scope="session")
def contested(once: Once) -> Snapshot:
    def hold(folder: Path) -> None:
        home, artifacts = folder / "home", folder / "artifacts"
        world = begin(home, artifacts, once)
        first, *_ = [world.registry.register(candidate(f"made-{n}", seed=n)) for n in (1, 2, 3)]
        enter(world, first)
        world.store.close()
        Snapshot.of(home, artifacts, folder / "contested")

    folder = once.folder("contest", hold)
    return Snapshot(folder / "contested", folder / "artifacts")


@pytest.fixture
def contest(contested: Snapshot, tmp_path: Path) -> Iterator[World]:
    """Version 1 serves bookings whose end is known (`contest.py`); 2 and 3 are in MLflow alone."""
    yield from _open(contested, tmp_path)


@pytest.fixture
def contest_again(contested: Snapshot, tmp_path: Path) -> Iterator[World]:
    """A second contest from the same start."""
    yield from _open(contested, tmp_path / "again")


@pytest.fixture
def contest_on_either(store: SqlStore, contest: World) -> World:
    """The same on a store of either database."""
    enter(World(store, contest.registry), contest.registry.record("1"))
    return World(store, contest.registry)


@pytest.fixture
def serving(store: SqlStore, trained: World) -> World:
    """Version 1 serves on an otherwise empty store, of either database."""
    return _serving(store, trained)


@pytest.fixture
def serving_too(migrated_file: Path, trained: World, tmp_path: Path) -> Iterator[World]:
    """The same on a store of its own, as another house has it."""
    copied = tmp_path / "too.db"
    shutil.copy(migrated_file, copied)
    opened = open_store(f"sqlite:///{copied}")
    yield _serving(opened, trained)
    opened.close()


def _serving(store: SqlStore, trained: World) -> World:
    with trained.store.begin() as work:
        record = work.version("1")
        standing = work.standing()
    assert record is not None
    with store.begin() as work:
        work.add_version(record, trained.clock())
        work.change_standing(
            work.standing(),
            champion=standing.champion,
            challenger=standing.challenger,
            change=Change.FIRST,
            reason="first champion",
            by="the gate",
            request_id=record.request_id,
            as_of=FIRST,
            now=trained.clock(),
        )
        work.commit()
    return World(store, trained.registry)


def _open(snapshot: Snapshot, folder: Path) -> Iterator[World]:
    folder.mkdir(exist_ok=True)
    world = snapshot.copy(folder / "world")
    yield world
    world.store.close()
