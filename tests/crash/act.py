"""The frame of an act: what a child process does to a world, step by step, until it is told to die.

Nothing in the product knows of crash points. The child wraps what it works with: `MortalStore` ends the
process before a write, or right after a commit, `Mortal` before and after a call of any other adapter, with
no handler run and no buffer flushed.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from databases import Told, as_it_stands
from mlflow.store.db import utils
from threadpoolctl import threadpool_limits

from cancellations.errors import Refused, ServiceDown
from cancellations.model import TRUSTED_TYPES, Model
from cancellations.ports import Store, UnitOfWork
from cancellations.registry import MlflowRegistry
from cancellations.settings import MODEL

# Exit codes of a child; 0 is the end of all its steps.
DIED, FAILED, REFUSED, DOWN = 86, 87, 88, 89
# Who starts after a death comes later than any lease lasts.
LATER = timedelta(minutes=20)


# --- the end --------------------------------------------------------------------------------------


@dataclass
class Heard:
    """Crash points that a run passed, methods of the store that it called, and those that changed the database.

    Only SQLite's driver tells of changes.
    """

    points: list[str] = field(default_factory=list)
    called: set[str] = field(default_factory=set)
    changing: set[str] = field(default_factory=set)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps([self.points, sorted(self.called), sorted(self.changing)]))

    @classmethod
    def read(cls, path: Path) -> Heard:
        points, called, changing = json.loads(path.read_text())
        return cls(points, set(called), set(changing))


@dataclass
class Fate:
    """Ends its process at the first of some points, each with a name: `score again: after commit #3`.

    Moments are counted by step from the start of the process. With a `meeting` it says so before each, or
    before the first write of a transaction, when it has read what it will write by, and waits for a word back.
    """

    deaths: Collection[str]
    grave: Path
    meeting: Connection | None
    step: str = ""
    number: int = 0  # of the step, or of the one that comes after a restart
    heard: Heard = field(default_factory=Heard)
    _passed: Counter[str] = field(default_factory=Counter)

    def meet(self, moment: str) -> None:
        if self.meeting is not None:
            self.meeting.send(f"{self.step}: {moment}")
            self.meeting.recv()

    def reach(self, moment: str) -> None:
        kind = f"{self.step}: {moment}"
        self._passed[kind] += 1
        point = f"{kind} #{self._passed[kind]}"
        self.heard.points.append(point)
        if point in self.deaths:
            with self.grave.open("a") as grave:
                grave.write(f"{point}\n")
            os._exit(DIED)


@dataclass(frozen=True)
class MortalStore:
    """A store whose process may die at its `writes` and commits."""

    store: Store
    fate: Fate
    writes: frozenset[str]

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        with self.store.begin() as work:
            mortal: Any = _MortalWork(work, self)
            yield mortal


class _MortalWork:
    def __init__(self, work: UnitOfWork, mortal: MortalStore) -> None:
        self._work, self._fate, self._names = work, mortal.fate, mortal.writes
        self._writes = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._work, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            fate = self._fate
            fate.heard.called.add(name)
            if name in self._names and not self._writes:
                self._writes = True
                fate.meet(name)
            if name in self._names or name == "commit":
                fate.reach(name)
            before = self._changes()
            result = method(*args, **kwargs)
            if self._changes() != before:
                fate.heard.changing.add(name)
            if name == "commit":
                fate.reach("after commit")
            return result

        return call

    def _changes(self) -> int:
        connection: Any = self._work._connection  # type: ignore[attr-defined]
        return getattr(connection.connection.driver_connection, "total_changes", 0)


class Mortal:
    """Any other adapter, whose process may die before and after its `writes`; it meets before `reads` too."""

    def __init__(self, adapter: Any, fate: Fate, writes: Collection[str], reads: Collection[str] = ()) -> None:
        self._adapter, self._fate, self._writes, self._reads = adapter, fate, writes, reads

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._adapter, name)
        if name not in self._writes and name not in self._reads:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fate.meet(name)
            if name in self._reads:
                return found(*args, **kwargs)
            self._fate.reach(name)
            result = found(*args, **kwargs)
            self._fate.reach(f"after {name}")
            return result

        return call


# --- the child ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a child works: a folder of its own, a store, and what stands `outside`, MLflow first of all.

    `act` is the module that has an `ACT`.
    """

    act: str
    folder: Path
    url: str
    outside: Path

    @property
    def ended(self) -> int:
        """How many steps have ended; the orchestrator would know."""
        return len(lines(self.folder / "ended"))

    @property
    def died(self) -> list[str]:
        """Points at which processes have died here."""
        return lines(self.folder / "died")

    @property
    def heard(self) -> Heard:
        return Heard.read(self.folder / "heard.json")

    @property
    def failure(self) -> str:
        """What the last process here that failed had to say."""
        return "\n".join(lines(self.folder / "failure")) or "it left no word"

    @property
    def broken(self) -> list[str]:
        """Promises that did not hold when the last process here looked."""
        return lines(self.folder / "broken")

    @property
    def evidence(self) -> Any:
        """What it looked at."""
        return pickle.loads((self.folder / "evidence").read_bytes())

    def keep(self, evidence: object) -> None:
        (self.folder / "evidence").write_bytes(pickle.dumps(evidence))

    @property
    def cut_short(self) -> int:
        """How many processes began here and did not come to their end."""
        return len(lines(self.folder / "begun")) - len(lines(self.folder / "left"))

    def note(self, what: str, text: str = "-") -> None:
        with (self.folder / what).open("a") as file:
            file.write(f"{text}\n")

    def registry(self) -> MlflowRegistry:
        uri, artifacts = f"sqlite:///{self.outside / 'mlflow.db'}", str(self.outside / "artifacts")
        return MlflowRegistry(uri, name=MODEL, artifact_root=artifacts, ui="", restore=Model, trusted=TRUSTED_TYPES)


@dataclass(frozen=True)
class Act:
    """Steps by name, each a function of what `hands` gives a process to work with.

    `writes`: methods of `ports.UnitOfWork` by which they write. `restart` is done first by whoever comes after a
    death, `examine` at last; it says which promises do not hold. `told`: what of a row must be as if nobody had
    died. `shared`: whether all worlds read one `outside`, which then nobody changes.
    """

    steps: Sequence[tuple[str, Callable[[Any], None]]]
    hands: Callable[[Place, Fate, timedelta], Any]
    writes: frozenset[str]
    restart: Callable[[Any], None] = lambda hands: None
    examine: Callable[[Any], list[str]] = lambda hands: []
    told: Told = as_it_stands
    shared: bool = True


def act_of(name: str) -> Act:
    found: Act = import_module(name).ACT
    return found


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def perform(
    place: Place,
    steps: Sequence[int],
    deaths: Collection[str] = (),
    meeting: Connection | None = None,
    late: timedelta | None = None,
) -> None:
    """Runs steps by number, each noted when it has ended; dies at the first of some points that it comes to.

    It is `late` by that much, or by `LATER` for each process here that was cut short.
    """
    with confessing(place):
        act, cut_short = act_of(place.act), place.cut_short
        place.note("begun")
        fate = Fate(deaths, place.folder / "died", meeting, number=steps[0])
        hands = act.hands(place, fate, cut_short * LATER if late is None else late)
        if cut_short:
            fate.step = "restart"
            act.restart(hands)
        for fate.number in steps:
            fate.step, step = act.steps[fate.number]
            step(hands)
            place.note("ended", fate.step)
        fate.heard.write(place.folder / "heard.json")
        (place.folder / "broken").write_text("\n".join(act.examine(hands)))
        place.note("left")


@contextmanager
def confessing(place: Place) -> Iterator[None]:
    """Leaves what went wrong in the folder, and temporary files, too: a killed process tidies nothing up."""
    # What was imported before the fork is nothing to collect; looking through it takes longer than the work.
    gc.freeze()
    # Whoever opens MLflow's database reads all of its migrations, once for the runs and once for the versions.
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    place.folder.mkdir(exist_ok=True)
    tempfile.tempdir = str(place.folder)
    try:
        with threadpool_limits(1):
            yield
    except BaseException as error:
        (place.folder / "failure").write_text(traceback.format_exc())
        os._exit(REFUSED if isinstance(error, Refused) else DOWN if isinstance(error, ServiceDown) else FAILED)
