"""A store at each step of an act that nobody disturbs, on either database: what a restart is held against."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from act import STEPS, Heard, Place, perform, prepare
from children import Children
from databases import Databases, Files, Server, digests


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    started = Children()
    yield started
    started.close()


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an MLflow that holds both versions once the first store has been prepared."""
    return tmp_path_factory.mktemp("versions")


@dataclass(frozen=True)
class Undisturbed:
    """An act in which nobody died.

    `before`: addresses of the stores as each step found them. `after`: the digests of the tables that
    each left. `heard`: what each passed. `seconds`: how long the whole took in one process.
    """

    databases: Databases
    folder: Path
    versions: Path
    before: tuple[str, ...]
    after: tuple[dict[str, str], ...]
    heard: tuple[Heard, ...]
    seconds: float

    @property
    def tells_changes(self) -> bool:
        return isinstance(self.databases, Files)

    def world(self, step: int = 0) -> Place:
        """A copy of the store as a step found it, for somebody to die in."""
        return _place(self.databases.copy(self.before[step]), self.folder, self.versions)

    def fault(self, place: Place, step: int = len(STEPS) - 1) -> str | None:
        """Tables that are not as the undisturbed step left them: how they are, and how they should be."""
        found = digests(place.url)
        wrong = [
            f"{name} has {found[name]} instead of {told}"
            for name, told in self.after[step].items()
            if found[name] != told
        ]
        return "; ".join(wrong) or None


def _place(url: str, folder: Path, versions: Path) -> Place:
    own = folder / uuid.uuid4().hex
    own.mkdir()
    return Place(own, url, versions)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def undisturbed(
    request: pytest.FixtureRequest, children: Children, versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    folder = tmp_path_factory.mktemp(request.param)
    databases: Databases = (
        Files(folder / "stores") if request.param == "sqlite" else Server(request.getfixturevalue("postgres"))
    )
    try:
        yield _undisturbed(databases, children, folder, versions)
    finally:
        databases.close()


def _undisturbed(databases: Databases, children: Children, folder: Path, versions: Path) -> Undisturbed:
    place = _place(databases.new(), folder, versions)
    assert children.run(prepare, place).exitcode == 0, place.failure
    before, after, heard = [], [], []
    for number in range(len(STEPS)):
        before.append(databases.copy(place.url))
        assert children.run(perform, place, [number]).exitcode == 0, place.failure
        after.append(digests(place.url))
        heard.append(place.heard)

    whole = _place(databases.copy(before[0]), folder, versions)
    began = time.monotonic()
    assert children.run(perform, whole, range(len(STEPS))).exitcode == 0, whole.failure
    seconds = time.monotonic() - began
    story = Undisturbed(databases, folder, versions, tuple(before), tuple(after), tuple(heard), seconds)
    assert (fault := story.fault(whole)) is None, fault
    return story
