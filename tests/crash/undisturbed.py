"""An act in which nobody died, step by step, on either database: what a restart is held against."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from act import Act, Heard, Place, act_of, perform
from children import Children
from databases import Databases, Files, digests

# Copies what stands outside of a store into a new folder.
MoveIn = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Scenery:
    """Where an act is played: databases, and a folder for worlds; `move_in` where worlds share nothing."""

    act: str
    databases: Databases
    folder: Path
    move_in: MoveIn | None = None

    def begin(self, children: Children, prepare: Callable[[Place], None], outside: Path) -> Place:
        """A world with a new database, as `prepare` leaves it."""
        place = self._place(self.databases.new(), outside)
        assert children.run(prepare, place).exitcode == 0, place.failure
        return place

    def copy(self, place: Place) -> Place:
        """A world at rest once more, with a folder in which nothing has happened."""
        return self._place(self.databases.copy(place.url), place.outside)

    def _place(self, url: str, outside: Path) -> Place:
        own = self.folder / uuid.uuid4().hex
        own.mkdir()
        if self.move_in is not None:
            moved = outside.with_name(uuid.uuid4().hex)
            self.move_in(outside, moved)
            outside = moved
        return Place(self.act, own, url, outside)

    def drop(self, place: Place) -> None:
        self.databases.drop(place.url)
        if self.move_in is not None:
            shutil.rmtree(place.outside)


@dataclass(frozen=True)
class Undisturbed:
    """An act in which nobody died.

    `before`: worlds as each step found them; `end`: the one that the last step left. `after`: the digests of the
    tables that each left. `heard`: what each passed. `seconds`: how long each took, with the start of its process.
    """

    scenery: Scenery
    before: tuple[Place, ...]
    end: Place
    after: tuple[dict[str, str], ...]
    heard: tuple[Heard, ...]
    seconds: tuple[float, ...]

    @property
    def tells_changes(self) -> bool:
        return isinstance(self.scenery.databases, Files)

    @property
    def act(self) -> Act:
        return act_of(self.scenery.act)

    @property
    def steps(self) -> int:
        """How many were played."""
        return len(self.after)

    def step(self, name: str) -> int:
        """The number of a step of the act, of one that comes between, too."""
        return [step for step, _ in self.act.steps].index(name)

    def world(self, step: int = 0) -> Place:
        """A copy of the world as a step found it, for somebody to die in."""
        return self.scenery.copy(self.before[step])

    def fault(self, place: Place, step: int = -1) -> str | None:
        """Tables that are not as the undisturbed step left them: how they are, and how they should be; and
        promises that do not hold."""
        found = digests(place.url, self.act.told)
        wrong = [
            f"{name} has {found[name]} instead of {told}"
            for name, told in self.after[step].items()
            if found[name] != told
        ]
        return "; ".join([*wrong, *place.broken]) or None


def act_undisturbed(scenery: Scenery, children: Children, beginning: Place, steps: int) -> Undisturbed:
    """Plays the first steps of an act from its beginning, each in a process of its own."""
    before, after, heard, seconds = [], [], [], []
    place, act = beginning, act_of(scenery.act)
    for number in range(steps):
        before.append(scenery.copy(place))
        began = time.monotonic()
        assert children.run(perform, place, [number]).exitcode == 0, place.failure
        seconds.append(time.monotonic() - began)
        assert not place.broken, place.broken
        after.append(digests(place.url, act.told))
        heard.append(place.heard)
    return Undisturbed(scenery, tuple(before), place, tuple(after), tuple(heard), tuple(seconds))
