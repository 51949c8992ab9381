"""Child processes, and acts that nobody disturbs on either database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import loading
import pytest
import succession
import watching
from act import Place
from children import Children
from databases import Databases, Files, Server
from desk import move_in
from once import MLFLOW, Once
from post import Post
from undisturbed import Scenery, Undisturbed, act_undisturbed


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    started = Children()
    yield started
    started.close()


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Path:
    """Folder of an MLflow that holds both versions once the first store has been prepared."""
    folder = tmp_path_factory.mktemp("versions")
    once.mlflow(folder / MLFLOW)
    return folder


@contextmanager
def _databases(request: pytest.FixtureRequest, folder: Path) -> Iterator[Databases]:
    databases: Databases = (
        Files(folder / "stores") if request.param == "sqlite" else Server(request.getfixturevalue("postgres"))
    )
    try:
        yield databases
    finally:
        databases.close()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def undisturbed(
    request: pytest.FixtureRequest, children: Children, versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    """The act of loading and scoring."""
    folder = tmp_path_factory.mktemp(request.param)
    with _databases(request, folder) as databases:
        scenery = Scenery(loading.__name__, databases, folder)
        place = scenery.begin(children, loading.prepare, versions)
        yield act_undisturbed(scenery, children, place, len(loading.STEPS))


@pytest.fixture(scope="session")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Post, Path]]:
    """The servers to which messages go, and the folder of the worlds that they know."""
    root = tmp_path_factory.mktemp("worlds")
    servers = Post(root)
    yield servers, root
    servers.close()


@dataclass(frozen=True)
class Stage:
    """Where an act stands that has an MLflow and a post of its own."""

    children: Children
    post: tuple[Post, Path]
    once: Once

    def beginning(self, act: ModuleType) -> Path:
        """What stands outside of the act at its beginning: an MLflow with two versions."""
        servers, root = self.post
        outside = root / f"beginning-{act.__name__}"
        outside.mkdir()
        self.once.mlflow(outside / MLFLOW)
        servers.found_at(outside)
        folder = root / f"registering-{act.__name__}"
        folder.mkdir()
        place = Place(act.__name__, folder, "", outside)
        assert self.children.run(act.register, place).exitcode == 0, place.failure
        return outside

    def undisturbed(self, act: ModuleType, databases: Databases, folder: Path, beginning: Path) -> Undisturbed:
        scenery = Scenery(act.__name__, databases, folder, move_in)
        place = scenery.begin(self.children, act.prepare, beginning)
        return act_undisturbed(scenery, self.children, place, len(act.STEPS))


@pytest.fixture(scope="session")
def stage(children: Children, post: tuple[Post, Path], once: Once) -> Stage:
    return Stage(children, post, once)


@pytest.fixture(scope="session")
def registered(stage: Stage) -> Path:
    return stage.beginning(succession)


@pytest.fixture(scope="session")
def watched(stage: Stage) -> Path:
    return stage.beginning(watching)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def succession_undisturbed(
    request: pytest.FixtureRequest, stage: Stage, registered: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    """The act from decision to alias."""
    folder = tmp_path_factory.mktemp(f"succession-{request.param}")
    with _databases(request, folder) as databases:
        yield stage.undisturbed(succession, databases, folder, registered)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def watching_undisturbed(
    request: pytest.FixtureRequest, stage: Stage, watched: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    """The act of holds and guards."""
    folder = tmp_path_factory.mktemp(f"watching-{request.param}")
    with _databases(request, folder) as databases:
        yield stage.undisturbed(watching, databases, folder, watched)
