"""Worlds at three points of their story, and a contest; made once and copied for each test that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from contest import candidate, enter
from threadpoolctl import threadpool_limits
from world import FIRST, SECOND, Snapshot, World, registry

from cancellations.domain.promotion import Change
from cancellations.domain.retraining import RequestState
from cancellations.model import GradientBoosting
from cancellations.store import SqlStore, open_store, upgrade


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


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    home, artifacts = folder / "home", folder / "artifacts"
    home.mkdir()
    url = f"sqlite:///{home / 'cancellations.db'}"
    upgrade(url)
    world = World(open_store(url), registry(f"sqlite:///{home / 'mlflow.db'}", artifacts))
    world.registry.prepare()

    world.ingest(until=SECOND)
    loaded = Snapshot.of(home, artifacts, folder / "loaded")
    assert world.retrain(world.request(FIRST), trainer=GradientBoosting()).state is RequestState.CANDIDATE
    trained = Snapshot.of(home, artifacts, folder / "trained")
    assert world.retrain(world.request(SECOND)).state is RequestState.CANDIDATE
    challenged = Snapshot.of(home, artifacts, folder / "challenged")
    world.store.close()
    return Story(loaded, trained, challenged)


@pytest.fixture
def loaded(story: Story, tmp_path: Path) -> Iterator[World]:
    """Bookings, and nobody who serves."""
    yield from _open(story.loaded, tmp_path)


@pytest.fixture
def trained(story: Story, tmp_path: Path) -> Iterator[World]:
    """Version 1 serves."""
    yield from _open(story.trained, tmp_path)


@pytest.fixture
def challenged(story: Story, tmp_path: Path) -> Iterator[World]:
    """Version 1 serves, version 2 is on trial beside it."""
    yield from _open(story.challenged, tmp_path)


@pytest.fixture(scope="session")
def contested(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("contest")
    home, artifacts = folder / "home", folder / "artifacts"
    home.mkdir()
    url = f"sqlite:///{home / 'cancellations.db'}"
    upgrade(url)
    world = World(open_store(url), registry(f"sqlite:///{home / 'mlflow.db'}", artifacts))
    world.registry.prepare()
    first, *_ = [world.registry.register(candidate(f"made-{n}", seed=n)) for n in (1, 2, 3)]
    enter(world, first)
    world.store.close()
    return Snapshot.of(home, artifacts, folder / "contested")


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
