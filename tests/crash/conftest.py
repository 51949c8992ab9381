"""Child processes, and acts that nobody disturbs on either database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import loading
import pytest
import succession
from act import Place
from children import Children
from databases import Databases, Files, Server
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


@pytest.fixture(scope="session")
def registered(children: Children, post: tuple[Post, Path], once: Once) -> Path:
    """What stands outside of the act of succession at its beginning: an MLflow with two versions."""
    servers, root = post
    outside = root / "beginning"
    outside.mkdir()
    once.mlflow(outside / MLFLOW)
    servers.found_at(outside)
    folder = root / "registering"
    folder.mkdir()
    place = Place(succession.__name__, folder, "", outside)
    assert children.run(succession.register, place).exitcode == 0, place.failure
    return outside


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def succession_undisturbed(
    request: pytest.FixtureRequest, children: Children, registered: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    """The act from decision to alias."""
    folder = tmp_path_factory.mktemp(f"succession-{request.param}")
    with _databases(request, folder) as databases:
        scenery = Scenery(succession.__name__, databases, folder, succession.move_in)
        place = scenery.begin(children, succession.prepare, registered)
        yield act_undisturbed(scenery, children, place, len(succession.STEPS))
