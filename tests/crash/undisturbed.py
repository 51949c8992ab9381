"""An act in which nobody died, step by step, on either database: what a restart is held against."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from act import STEPS, Heard, Place, perform, prepare
from children import Children
from databases import Databases, Files, digests


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


def act_undisturbed(databases: Databases, children: Children, folder: Path, versions: Path) -> Undisturbed:
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
