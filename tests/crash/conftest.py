"""Child processes, and an act that nobody disturbs on either database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Children
from databases import Databases, Files, Server
from undisturbed import Undisturbed, act_undisturbed


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    started = Children()
    yield started
    started.close()


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an MLflow that holds both versions once the first store has been prepared."""
    return tmp_path_factory.mktemp("versions")


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def undisturbed(
    request: pytest.FixtureRequest, children: Children, versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    folder = tmp_path_factory.mktemp(request.param)
    databases: Databases = (
        Files(folder / "stores") if request.param == "sqlite" else Server(request.getfixturevalue("postgres"))
    )
    try:
        yield act_undisturbed(databases, children, folder, versions)
    finally:
        databases.close()
