"""Every fit that policies may ask for, once: competitor by competitor, day by day, kept in the replay's folder.

Policies differ in when they retrain, not in what a retrain on a day gives. So six hundred random timings cost
no more fits than one that retrains every week.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from cancellations.domain.labels import LabelRule
from cancellations.replay.competitors import Competitor
from cancellations.replay.workers import workers
from cancellations.replay.world import World, open_world


@dataclass(frozen=True)
class Task:
    """One fit: a competitor on a day, its probabilities wanted for bookings made in `(as_of, until]`."""

    competitor: Competitor
    as_of: date
    until: date
    seed: int
    watched: bool = False  # a monitor weighs its columns by their importance

    def place(self, folder: Path) -> Path:
        kind = re.sub("[^a-z0-9]+", "-", self.competitor.name)
        return folder / "fits" / f"{kind}-{self.as_of}-{self.until}-seed{self.seed}.npz"

    def importance(self, folder: Path) -> Path:
        """Where the importance of features is kept, of a task that is watched."""
        return self.place(folder).with_suffix(".json")

    def made(self, folder: Path) -> bool:
        return self.place(folder).exists() and (not self.watched or self.importance(folder).exists())


class Grid:
    """Fits of a replay, read from its folder; those that lack are made, in as many processes as asked for."""

    def __init__(self, world: World, folder: Path, seed: int, workers: int) -> None:
        self._world, self._folder, self._seed, self._workers = world, folder, seed, workers
        self._read: dict[Path, tuple[np.ndarray, float | None]] = {}

    def task(self, competitor: Competitor, as_of: date, until: date, *, watched: bool = False) -> Task:
        return Task(competitor, as_of, until, self._seed, watched)

    def has(self, task: Task) -> bool:
        return task.made(self._folder)

    def make(self, tasks: Sequence[Task], on_done: Callable[[int, int], None] = lambda done, of: None) -> None:
        """Makes what lacks. A run that was stopped goes on where it was: a fit is kept as soon as it is made."""
        lacking = [task for task in tasks if not task.made(self._folder)]
        done = len(tasks) - len(lacking)
        on_done(done, len(tasks))
        if not lacking:
            return
        (self._folder / "fits").mkdir(parents=True, exist_ok=True)
        if self._workers == 1:
            for task in lacking:
                make(task, self._world, self._folder)
                done += 1
                on_done(done, len(tasks))
            return
        # Threads of a fit and processes of the pool would fight for the same cores.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with workers(self._workers, _open, self._folder, self._world.rule) as pool:
            for future in as_completed([pool.submit(_make, task) for task in lacking]):
                future.result()
                done += 1
                on_done(done, len(tasks))

    def probabilities(self, task: Task) -> np.ndarray:
        """One for each booking made in the task's span, in order."""
        return self._load(task)[0]

    def importance(self, task: Task) -> dict[str, float]:
        """Of the features, where the task is watched."""
        told: dict[str, float] = json.loads(task.importance(self._folder).read_text())
        return told

    def own_figure(self, task: Task) -> float | None:
        return self._load(task)[1]

    def _load(self, task: Task) -> tuple[np.ndarray, float | None]:
        place = task.place(self._folder)
        if place not in self._read:
            with np.load(place) as kept:
                told = json.loads(str(kept["told"]))
                self._read[place] = (kept["probability"], told["own_figure"])
        return self._read[place]


_opened: list[tuple[World, Path]] = []


def _open(folder: Path, rule: LabelRule) -> None:
    _opened.append((open_world(folder, rule), folder))


def _make(task: Task) -> None:
    make(task, *_opened[0])


def make(task: Task, world: World, folder: Path) -> None:
    """Fits a task and keeps what came of it, whole or not at all."""
    rows = world.rows(task.as_of, task.until)
    fit = task.competitor.fit(world, task.as_of, rows, task.seed, watched=task.watched)
    place = task.place(folder)
    part = place.with_suffix(".part.npz")
    if task.watched:
        importance = task.importance(folder)
        importance.with_suffix(".part").write_text(json.dumps(dict(fit.importance)))
        importance.with_suffix(".part").replace(importance)
    np.savez(part, probability=fit.probability, told=json.dumps({"own_figure": fit.own_figure}))
    part.replace(place)
