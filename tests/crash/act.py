"""What a child process does to a store, step by step: it loads and scores, until it is told to die.

Nothing in the product knows of crash points. The child wraps its store in `Mortal`, which ends the
process before a write, or right after a commit, with no handler run and no buffer flushed.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cancellations.domain.features import FEATURES, build, past_of
from cancellations.domain.labels import CANCELLED, Examples, LabelRule
from cancellations.domain.promotion import Change, TrialPolicy, open_trial
from cancellations.domain.recipes import DEFAULT_RECIPE, RECIPES
from cancellations.domain.reservation import COLUMNS, OUTCOME_NAMES, Column, coerce, no_problems
from cancellations.errors import Refused
from cancellations.model import TRUSTED_TYPES, GradientBoosting, Model
from cancellations.ports import Candidate, Registry, SourceBatch, Store, Undated, UnitOfWork
from cancellations.registry import MlflowRegistry
from cancellations.sources.simulator import simulate
from cancellations.store import open_store, upgrade
from cancellations.usecases.ingest import LoadPolicy, ingest
from cancellations.usecases.score import Cut, score

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
RULE = LabelRule()
SEED = 7
# Two weeks of bookings: both versions learned from them, and agents have a record.
PAST, PAST_DAYS, TRAINED = date(2016, 4, 4), 14, date(2016, 5, 1)
FIRST, DAYS = date(2016, 5, 2), 5
BATCH_ROWS, CHUNK_ROWS = 200, 200

# Exit codes of a child; 0 is the end of all its steps.
DIED, FAILED = 86, 87


# --- what it loads --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """A file as a hotel sends it: canonical columns, columns of its own, outcomes; or outcomes alone."""

    name: str
    rows: pd.DataFrame
    own: tuple[Column, ...] = ()
    reservations: bool = True
    undated: Undated = Undated.LOAD

    @property
    def columns(self) -> tuple[Column, ...]:
        return COLUMNS + self.own

    @property
    def mapping(self) -> str:
        return f"# {self.name}: {', '.join(c.name for c in self.own)}"

    def fingerprint(self) -> str | None:
        return hashlib.sha256(pd.util.hash_pandas_object(self.rows).to_numpy().tobytes()).hexdigest()

    def batches(self) -> Iterator[SourceBatch]:
        for start in range(0, len(self.rows), BATCH_ROWS):
            rows = self.rows.iloc[start : start + BATCH_ROWS]
            told = rows.loc[rows["status"].notna(), list(OUTCOME_NAMES)]
            yield SourceBatch(rows, coerce(rows, self.columns) if self.reservations else None, told, no_problems())


LOYALTY, DISTANCE = Column("loyalty", "category"), Column("distance", "number")


def _booked(days: int) -> pd.DataFrame:
    """Bookings of the first days with columns of the hotel's own, numbered as rows of a file."""
    rows = simulate(FIRST, days, SEED).drop(columns=["group_size", "true_probability"])
    n = np.arange(len(rows))
    own = {"loyalty": np.where(n % 3 == 0, "gold", "none"), "distance": np.where(n % 5 == 0, np.nan, n * 1.5)}
    return rows.assign(**own).set_axis(pd.RangeIndex(1, len(rows) + 1))


def _told_by(rows: pd.DataFrame, day: date) -> pd.DataFrame:
    """The same with the outcomes alone that were known on a day."""
    unknown = rows["known_on"] > pd.Timestamp(day)
    return rows.assign(status=rows["status"].mask(unknown), known_on=rows["known_on"].mask(unknown))


def first_delivery() -> Delivery:
    """Three days of bookings; every fortieth has an impossible price."""
    rows = _told_by(_booked(3), FIRST + timedelta(days=2))
    rows.loc[rows.index % 40 == 0, "price"] = -1.0
    return Delivery("bookings.csv", rows, (LOYALTY,))


def outcomes_alone() -> Delivery:
    """Which of those bookings were called off since; a few without their day."""
    rows = _told_by(_booked(3), FIRST + timedelta(days=4)).dropna(subset=["status"])[list(OUTCOME_NAMES)]
    rows.loc[rows.index % 7 == 0, "known_on"] = pd.NaT
    return Delivery("outcomes.csv", rows.set_axis(pd.RangeIndex(1, len(rows) + 1)), reservations=False)


def second_delivery() -> Delivery:
    """Six days of bookings: the prices mended, bookings and outcomes corrected, one column more."""
    rows = _told_by(_booked(DAYS), FIRST + timedelta(days=DAYS))
    rows.loc[rows.index % 30 == 1, "price"] += 5.0
    rows.loc[rows.index % 50 == 2, "loyalty"] = "silver"
    rows.loc[rows["status"].notna() & (rows.index % 11 == 0), "status"] = "no_show"
    rows.loc[rows.index % 101 == 100, "adults"] = 1_000.0
    return Delivery("bookings.csv", rows, (LOYALTY, DISTANCE))


def unbelievable() -> Delivery:
    """A file whose dates slipped by a column: every arrival lies before its booking."""
    rows = _booked(1)
    slipped = rows.assign(booked_on=rows["arrival_on"] + pd.Timedelta(days=1), status=None, known_on=pd.NaT)
    return Delivery("slipped.csv", slipped[slipped["booked_on"] <= pd.Timestamp(FIRST + timedelta(days=DAYS))])


# --- the steps ------------------------------------------------------------------------------------


def _load(delivery: Callable[[], Delivery], days: int) -> Callable[[Store, Registry], None]:
    def step(store: Store, registry: Registry) -> None:
        until = FIRST + timedelta(days=days)
        # A file that is done is not read again: so do the flows with each file of a watched folder.
        ingest(
            delivery(), store, after=None, until=until, clock=_clock(days), policy=LoadPolicy(labels=RULE), again=False
        )

    return step


def _refuse(store: Store, registry: Registry) -> None:
    try:
        _load(unbelievable, DAYS)(store, registry)
    except Refused:
        return
    raise AssertionError("a file of nothing but broken rows was loaded")


def _score(days: int) -> Callable[[Store, Registry], None]:
    def step(store: Store, registry: Registry) -> None:
        until = FIRST + timedelta(days=days)
        clock, cut = _clock(days), Cut(partitions=2)
        score(store, registry, after=TRAINED, until=until, rule=RULE, chunk_rows=CHUNK_ROWS, clock=clock, cut=cut)

    return step


def _clock(days: int) -> Callable[[], datetime]:
    """Stands still within a day: what is written does not tell when it was."""
    return lambda: NOW + timedelta(days=days)


# A restart begins with the step that had not ended.
STEPS: tuple[tuple[str, Callable[[Store, Registry], None]], ...] = (
    ("ingest a delivery", _load(first_delivery, 3)),
    ("score it", _score(3)),
    ("ingest outcomes alone", _load(outcomes_alone, 5)),
    ("ingest corrections", _load(second_delivery, DAYS)),
    ("ingest a slipped file", _refuse),
    ("score again", _score(DAYS)),
)


# --- the end --------------------------------------------------------------------------------------

# Methods of `ports.UnitOfWork` by which ingest and score write; a test holds the list against what they do.
WRITES = frozenset(
    {
        "declare_columns",
        "begin_load",
        "record_outcomes",
        "upsert_reservations",
        "add_quarantined",
        "settle_bookings",
        "advance_load",
        "finish_load",
        "add_messages",
        "add_stopped_load",
        "add_features",
        "add_predictions",
        "add_arms",
        "serve",
    }
)


@dataclass
class Heard:
    """Crash points that a run passed, methods that it called, and those of them that changed the database.

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


class Mortal:
    """A store whose process dies at the first of some points, each with a name: `score again: after commit #3`.

    Calls of a method are counted from the start of the process. With a `meeting` it says so before the
    first write of each transaction, when it has read what it will write by, and waits for a word back.
    """

    def __init__(self, store: Store, deaths: Collection[str], grave: Path, meeting: Connection | None) -> None:
        self._store, self._deaths, self._grave, self._meeting = store, deaths, grave, meeting
        self._passed: Counter[str] = Counter()
        self.step = ""
        self.heard = Heard()

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        with self._store.begin() as work:
            mortal: Any = _MortalWork(work, self)
            yield mortal

    def meet(self, moment: str) -> None:
        if self._meeting is not None:
            self._meeting.send(f"{self.step}: {moment}")
            self._meeting.recv()

    def reach(self, moment: str) -> None:
        kind = f"{self.step}: {moment}"
        self._passed[kind] += 1
        point = f"{kind} #{self._passed[kind]}"
        self.heard.points.append(point)
        if point in self._deaths:
            with self._grave.open("a") as grave:
                grave.write(f"{point}\n")
            os._exit(DIED)


class _MortalWork:
    def __init__(self, work: UnitOfWork, mortal: Mortal) -> None:
        self._work, self._mortal = work, mortal
        self._writes = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._work, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            mortal = self._mortal
            mortal.heard.called.add(name)
            if name in WRITES and not self._writes:
                self._writes = True
                mortal.meet(name)
            if name in WRITES or name == "commit":
                mortal.reach(name)
            before = self._changes()
            result = method(*args, **kwargs)
            if self._changes() != before:
                mortal.heard.changing.add(name)
            if name == "commit":
                mortal.reach("after commit")
            return result

        return call

    def _changes(self) -> int:
        connection: Any = self._work._connection  # type: ignore[attr-defined]
        return getattr(connection.connection.driver_connection, "total_changes", 0)


# --- the child ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a child works: a folder of its own, a store, and the registry that all of them read."""

    folder: Path
    url: str
    registry: Path

    @property
    def ended(self) -> int:
        """How many steps have ended; the orchestrator would know."""
        return len(_lines(self.folder / "ended"))

    @property
    def died(self) -> list[str]:
        """Points at which processes have died here."""
        return _lines(self.folder / "died")

    @property
    def heard(self) -> Heard:
        return Heard.read(self.folder / "heard.json")

    @property
    def failure(self) -> str:
        """What the last process here that failed had to say."""
        return "\n".join(_lines(self.folder / "failure")) or "it left no word"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def perform(
    place: Place, steps: Sequence[int], deaths: Collection[str] = (), meeting: Connection | None = None
) -> None:
    """Runs steps by number, each noted when it has ended; dies at the first of some points that it comes to."""
    with _confessing(place):
        mortal = Mortal(open_store(place.url), deaths, place.folder / "died", meeting)
        registry = _registry(place)
        for number in steps:
            mortal.step, step = STEPS[number]
            step(mortal, registry)
            with (place.folder / "ended").open("a") as ended:
                ended.write(f"{mortal.step}\n")
        mortal.heard.write(place.folder / "heard.json")


def prepare(place: Place) -> None:
    """Makes a store on which version 1 serves and version 2 is on trial; the versions too, if there are none."""
    with _confessing(place):
        upgrade(place.url)
        past = simulate(PAST, PAST_DAYS, SEED)
        registry = _registry(place)
        if not registry.aliases():
            registry.prepare()
            for seed in (1, 2):
                registry.register(_candidate(past, seed))
            registry.set_alias("champion", "1")
        champion, challenger = records = [registry.record(version) for version in ("1", "2")]
        with open_store(place.url).begin() as work:
            known = past[past["known_on"] <= pd.Timestamp(TRAINED)]
            work.upsert_reservations(past)
            work.record_outcomes(known)
            for record in records:
                work.add_version(record, NOW)
            standing = work.standing()
            for change, version in ((Change.FIRST, None), (Change.CHALLENGED, challenger.version)):
                standing = work.change_standing(
                    standing,
                    champion=champion.version,
                    challenger=version,
                    change=change,
                    reason="a test asks",
                    by="the gate",
                    as_of=TRAINED,
                    now=NOW,
                )
            trained: Mapping[str, date] = {record.version: record.trained_as_of for record in records}
            work.add_trial(open_trial(standing, trained, TRAINED, challenger.request_id, TrialPolicy()), NOW)
            work.commit()


class _QuickTrainer(GradientBoosting):
    """The real pipeline with a tenth of its trees."""

    _settings: Mapping[str, Any] = {**GradientBoosting._settings, "max_iter": 10}


def _candidate(past: pd.DataFrame, seed: int) -> Candidate:
    built = build(past, past_of(past), RULE)
    label = past["status"].isin(CANCELLED).to_numpy(dtype=float)
    some = np.random.default_rng(seed).random(len(past)) < 0.8
    examples = Examples(np.flatnonzero(some), label[some], np.ones(int(some.sum())))
    return Candidate(
        request_id=f"made-{seed}",
        model=_QuickTrainer().fit(built, [examples], RECIPES[DEFAULT_RECIPE], seed),
        as_of=TRAINED,
        recipe=DEFAULT_RECIPE,
        parameters={"seed": seed},
        metrics={"backtest_log_loss": 0.5},
        reasons=("passed",),
        training=built.assign(label=label),
        reference=built.assign(label=label),
        importance=dict.fromkeys(FEATURES, 1 / len(FEATURES)),
    )


def _registry(place: Place) -> MlflowRegistry:
    uri, artifacts = f"sqlite:///{place.registry / 'mlflow.db'}", str(place.registry / "artifacts")
    return MlflowRegistry(
        uri, name="cancellations", artifact_root=artifacts, ui="", restore=Model, trusted=TRUSTED_TYPES
    )


@contextmanager
def _confessing(place: Place) -> Iterator[None]:
    """Leaves what went wrong in the folder, and temporary files, too: a killed process tidies nothing up."""
    # What was imported before the fork is nothing to collect; looking through it takes longer than the work.
    gc.freeze()
    place.folder.mkdir(exist_ok=True)
    tempfile.tempdir = str(place.folder)
    try:
        with threadpool_limits(1):
            yield
    except BaseException:
        (place.folder / "failure").write_text(traceback.format_exc())
        os._exit(FAILED)
