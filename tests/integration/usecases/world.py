"""A small world for the use cases: real store, real registry, real model; time stands still until told.

What stands on the far side of a port and takes a server or seconds to start is written by hand here:
`Orchestrator` for the doorbell, `GivenMonitor` for Evidently, `QuickTrainer` for a full training.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from once import Once

from cancellations.domain.aliases import AliasPolicy
from cancellations.domain.checks import CheckPolicy
from cancellations.domain.comparison import Arm
from cancellations.domain.events import Message
from cancellations.domain.features import FEATURES
from cancellations.domain.gate import GatePolicy
from cancellations.domain.hold_out import ActionPolicy
from cancellations.domain.in_flight import InFlightPolicy, Slice
from cancellations.domain.labels import Examples, LabelRule
from cancellations.domain.promotion import Change, LedgerRow, Standing, Trial, TrialPolicy, open_trial
from cancellations.domain.recipes import Recipe
from cancellations.domain.reference import ReferencePolicy
from cancellations.domain.reservation import COLUMNS, OUTCOME_NAMES, Column, coerce, no_problems
from cancellations.domain.retraining import MonitorReport, RetrainPolicy, RetrainRequest, Signal, Window, judge
from cancellations.errors import ServiceDown
from cancellations.metrics import GroupBootstrap
from cancellations.model import TRUSTED_TYPES, GradientBoosting, Model
from cancellations.ports import (
    Classifier,
    LoadCounts,
    Mailer,
    Observation,
    Pictures,
    Registry,
    Source,
    SourceBatch,
    Store,
    Trainer,
    Undated,
    UnitOfWork,
)
from cancellations.registry import MlflowRegistry
from cancellations.sources.simulator import Simulator
from cancellations.store import SqlStore, open_store, upgrade
from cancellations.store.tables import arms
from cancellations.usecases.adopt import settle_aliases
from cancellations.usecases.aliases import project_aliases
from cancellations.usecases.deliver import Delivered, deliver
from cancellations.usecases.digest import Digested, digest
from cancellations.usecases.explain import Explanation, History, explain, history
from cancellations.usecases.ingest import LoadPolicy, ingest
from cancellations.usecases.monitor import DEFAULT_REFERENCE, Monitored, Rhythm, monitor
from cancellations.usecases.promote import House, Takeover, promote, roll_back
from cancellations.usecases.reconcile import Reconciled, reconcile
from cancellations.usecases.retrain import request_training, retrain
from cancellations.usecases.score import Across, Cut, Scored, score
from cancellations.usecases.status import Status, status
from cancellations.usecases.training import Tools, TrainingPolicy
from cancellations.usecases.trial import Looked, answer, look, withdraw
from monitoring.in_flight import in_flight_signal
from monitoring.plots import ReportPictures

# Some hundred bookings a day. By FIRST enough have matured for a champion, by SECOND for a challenger.
START, DAYS = date(2016, 5, 2), 84
FIRST, SECOND = date(2016, 7, 10), date(2016, 7, 24)
# Some days after SECOND, of which bookings come in where a test wants them.
LATER = SECOND + timedelta(days=4)
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
POLICY = TrainingPolicy(
    labels=LabelRule(),
    gate=GatePolicy(backtest_days=28, min_rows=300),
    trial=TrialPolicy(),
    seed=20,
    reference_rows=500,
    lease_ttl=timedelta(minutes=15),
    max_attempts=3,
)
# Few resamples: what the intervals are is told elsewhere.
EVALUATOR = GroupBootstrap(resamples=20)
PATIENCE = timedelta(minutes=3)
OVERDUE = timedelta(hours=1)


class Unseen(ReportPictures):
    """Of a retrain that nobody looks at: to draw what its version is worth takes longer than to fit it."""

    def version(self, *told: object) -> bytes:
        return b"nobody looks"


UNSEEN = Unseen()


def simulator(days: int = DAYS) -> Simulator:
    return Simulator(START, days, seed=24)


@dataclass
class Clock:
    """Wall time in the hand of the test."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass(frozen=True)
class Table:
    """A source that holds one frame, with whatever is wrong in it.

    What cannot be read is missing; `content` is its fingerprint; with `endings` alone it brings outcomes
    and no reservations.
    """

    rows: pd.DataFrame
    name: str = "table"
    columns: tuple[Column, ...] = COLUMNS
    undated: Undated = Undated.MATURITY
    mapping: str = ""
    batch_rows: int = 50_000
    content: str | None = None
    endings: bool = False

    def fingerprint(self) -> str | None:
        return self.content

    def batches(self) -> Iterator[SourceBatch]:
        table = self.rows.set_axis(pd.RangeIndex(1, len(self.rows) + 1))
        for first in range(0, len(table), self.batch_rows):
            rows = table.iloc[first : first + self.batch_rows]
            told = rows[list(OUTCOME_NAMES)].astype({"known_on": "datetime64[us]"})
            told = told[rows["status"].notna()]
            reservations = None if self.endings else coerce(rows, self.columns)
            yield SourceBatch(rows, reservations, told, no_problems())


class QuickTrainer(GradientBoosting):
    """The real pipeline with a fifth of its trees; each column counts as much as any other."""

    _settings: Mapping[str, Any] = {**GradientBoosting._settings, "max_iter": 20}

    def importance(self, model: Classifier, features: pd.DataFrame, label: np.ndarray, seed: int) -> dict[str, float]:
        return dict.fromkeys(FEATURES, 1 / len(FEATURES))


class NaiveTrainer(QuickTrainer):
    """Knows less than the base rate: its labels are shuffled. No gate may let it pass."""

    def fit(self, features: pd.DataFrame, examples: Sequence[Examples], recipe: Recipe, seed: int) -> Model:
        draw = np.random.default_rng(seed)
        shuffled = [replace(made, label=draw.permutation(made.label)) for made in examples]
        return super().fit(features, shuffled, recipe, seed)


@dataclass
class BrokenTrainer(QuickTrainer):
    """Calls `breaks` where a fit should be."""

    breaks: Callable[[], object]
    fits: int = 0

    def fit(self, features: pd.DataFrame, examples: Sequence[Examples], recipe: Recipe, seed: int) -> Model:
        self.fits += 1
        self.breaks()
        return super().fit(features, examples, recipe, seed)


@dataclass
class Orchestrator:
    """A doorbell that keeps what it hears, and like Prefect makes one run for each (request, attempt)."""

    rung: list[Message] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    down: bool = False

    def ring(self, message: Message) -> None:
        self._answer()
        self.rung.append(message)

    def start_retrain(self, request_id: str, attempt: int) -> str:
        self._answer()
        self.asked.append((request_id, attempt))
        return f"run-of-{request_id}-{attempt}"

    def _answer(self) -> None:
        if self.down:
            raise ServiceDown("the orchestrator does not answer")


@dataclass(frozen=True)
class Given:
    """A measurement that somebody has decided beforehand."""

    report: MonitorReport
    page: str | None = "<html>the page</html>"

    def save_html(self, path: Path) -> Path | None:
        if self.page is None:
            return None
        path.write_text(self.page)
        return path


@dataclass
class GivenMonitor:
    """Reports loss beyond its threshold in the windows that end on the days of `alarms`, and bookings far from
    their forecast in those of `flying`."""

    alarms: Sequence[date] = ()
    flying: Sequence[date] = ()
    seen: list[Observation] = field(default_factory=list)

    def measure(self, observation: Observation) -> Given:
        self.seen.append(observation)
        value = 0.05 if observation.end in self.alarms else 0.001
        signal = Signal("matured excess loss", value, 0.02, judge(value, 0.02), 2.0, len(observation.current))
        window = Window(observation.start, observation.end)
        rows = len(observation.current), len(observation.reference)
        off = Slice("online", 500, 400, 0.3, 0.4, 9.0 if observation.end in self.flying else 0.5)
        signals = (signal, in_flight_signal([off], 5.0, 0.0))
        told = MonitorReport(observation.champion, window, *rows, signals=signals, reference=observation.against)
        return Given(told)


def together(*acts: Callable[[], object]) -> list[object]:
    """What each act came to, all of them begun at one moment in threads of their own; errors are raised."""
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> object:
        start.wait()
        return act()

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


class PowerCut(BaseException):
    """The process dies here: no handler of ours gets to tidy up, as after a kill."""


@dataclass
class CutOff:
    """A store whose power fails in `method`, once, on the call with the number `nth` (0 is the first).

    What was called before in the same transaction was sent to the database; what comes after never is.
    Without a `method` calls of all methods count. `calls` are those that it heard.
    """

    store: Store
    method: str | None
    nth: int = 0
    calls: list[str] = field(default_factory=list)

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        with self.store.begin() as work:
            yield _CutOff(work, self)

    def call(self, method: str) -> None:
        self.calls.append(method)
        if self.method in (None, method):
            self.nth -= 1
            if self.nth == -1:
                raise PowerCut(method)


class _CutOff:
    def __init__(self, work: UnitOfWork, cut: CutOff) -> None:
        self._work, self._cut = work, cut

    def __getattr__(self, name: str) -> Any:
        self._cut.call(name)
        return getattr(self._work, name)


# A test that cuts off each of many calls; in the short run the two databases take turns with them.
CUTS = pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.long)])


def cuts(calls: Sequence[str], every: int, store: SqlStore) -> range:
    """Numbers of the calls at which to cut off."""
    return range(0 if store._url.get_backend_name() == "sqlite" else every - 1, len(calls), every)


@dataclass
class Crossing:
    """A store on which `other` acts before the first call of `method`, or as soon as nothing is locked."""

    store: Store
    method: str
    other: Callable[[], None]
    due: bool = False
    done: bool = False

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        with self.store.begin() as work:
            yield _Crossed(work, self)

    def call(self, method: str, locked: bool) -> None:
        self.due |= method == self.method
        if self.due and not locked and not self.done:
            self.done = True
            self.other()


class _Crossed:
    def __init__(self, work: UnitOfWork, crossing: Crossing) -> None:
        self._work, self._crossing = work, crossing

    def __getattr__(self, name: str) -> Any:
        self._crossing.call(name, self._work._writing)  # type: ignore[attr-defined]
        return getattr(self._work, name)


@dataclass
class World:
    """Every use case on one store and one registry, with the policy above."""

    store: SqlStore
    registry: MlflowRegistry
    clock: Clock = field(default_factory=Clock)
    trainer: Trainer = field(default_factory=QuickTrainer)
    orchestrator: Orchestrator = field(default_factory=Orchestrator)
    trial_policy: TrialPolicy = POLICY.trial
    actions: ActionPolicy = field(default_factory=ActionPolicy)

    def ingest(self, until: date, after: date | None = None, source: Source | None = None) -> LoadCounts:
        policy = LoadPolicy(labels=POLICY.labels)
        return ingest(
            source or simulator(), self.store, after=after, until=until, clock=self.clock, policy=policy
        ).counts

    def score(
        self,
        until: date,
        after: date | None = None,
        chunk_rows: int = 50_000,
        on_chunk: Callable[[str, int], None] = lambda version, rows: None,
        store: Store | None = None,
        cut: Cut | None = None,
        across: Across | None = None,
        checks: CheckPolicy | None = None,
    ) -> Scored:
        return score(
            store or self.store,
            self.registry,
            after=after,
            until=until,
            rule=POLICY.labels,
            chunk_rows=chunk_rows,
            clock=self.clock,
            on_chunk=on_chunk,
            cut=cut,
            across=across,
            checks=checks,
            hold_out=self.actions.hold_out,
        )

    def request(self, as_of: date, reason: str = "a person asks") -> RetrainRequest:
        return request_training(self.store, as_of=as_of, reason=reason, policy=POLICY, clock=self.clock)

    def automatic(self, as_of: date) -> RetrainRequest:
        """A request as the monitor writes it."""
        with self.store.begin() as work:
            champion = work.standing().champion
            request = RetrainRequest(f"{as_of}-drift", as_of, "drift confirmed", report_id="r", champion=champion)
            work.add_request(request, self.clock())
            work.commit()
        return request

    def retrain(
        self,
        request: RetrainRequest,
        *,
        trainer: Trainer | None = None,
        policy: TrainingPolicy = POLICY,
        owner: str = "worker",
        pictures: Pictures = UNSEEN,
        **instead: Any,
    ) -> RetrainRequest:
        adapters: dict[str, Any] = {"store": self.store, "registry": self.registry, "clock": self.clock}
        tools = Tools(trainer or self.trainer, EVALUATOR, pictures)
        return retrain(request.request_id, tools=tools, policy=policy, owner=owner, **(adapters | instead))

    def monitor(
        self,
        watch: GivenMonitor,
        until: date,
        after: date | None = None,
        policy: RetrainPolicy | None = None,
        store: Store | None = None,
        against: ReferencePolicy = DEFAULT_REFERENCE,
    ) -> Monitored:
        return monitor(
            store or self.store,
            self.registry,
            watch,
            after=after,
            until=until,
            rhythm=Rhythm(window_days=14, step_days=7),
            rule=POLICY.labels,
            policy=policy or RetrainPolicy(min_new_labels=0),
            open_bookings=InFlightPolicy(min_rows=30),
            clock=self.clock,
            against=against,
        )

    def deliver(
        self,
        mailer: Mailer | None,
        pictures: Pictures,
        *,
        doorbell: bool = True,
        max_attempts: int = 3,
        owner: str = "relay",
        store: Store | None = None,
        weekly: Sequence[str] = (),
    ) -> Delivered:
        return deliver(
            store or self.store,
            doorbell=self.orchestrator if doorbell else None,
            mailer=mailer,
            pictures=pictures,
            registry=self.registry,
            max_attempts=max_attempts,
            owner=owner,
            clock=self.clock,
            weekly=weekly,
        )

    def digest(
        self, as_of: date, *, weekly: Sequence[str] = (), weekday: str | None = "monday", store: Store | None = None
    ) -> Digested:
        return digest(
            store or self.store,
            as_of=as_of,
            weekday=weekday,
            weekly=weekly,
            environment="",
            owner="digester",
            clock=self.clock,
        )

    def reconcile(
        self,
        *,
        doorbell: bool = True,
        aliases: AliasPolicy = AliasPolicy.UNDO,
        max_attempts: int = POLICY.max_attempts,
        **instead: Any,
    ) -> Reconciled:
        return reconcile(
            instead.get("store", self.store),
            instead.get("registry", self.registry),
            doorbell=self.orchestrator if doorbell else None,
            patience=PATIENCE,
            overdue=OVERDUE,
            max_attempts=max_attempts,
            clock=self.clock,
            settle_aliases=lambda: settle_aliases(self.house(**instead), aliases),
        )

    def status(self, registry: Registry | None = None, as_of: date = SECOND) -> Status:
        return status(self.store, registry or self.registry, as_of)

    def house(self, **instead: Any) -> House:
        adapters: dict[str, Any] = {"store": self.store, "registry": self.registry, "clock": self.clock}
        adapters |= {"policy": self.trial_policy, "actions": self.actions}
        return House(rule=POLICY.labels, chunk_rows=50_000, **(adapters | instead))

    def look(self, until: date, run: str | None = None, **instead: Any) -> Looked:
        return look(self.house(**instead), until=until, run=run)

    def look_daily(self, after: date, until: date) -> Looked:
        """A look each day of `(after, until]`, until one ends the trial; the last look's result."""
        looked = Looked(None)
        for n in range((until - after).days):
            looked = self.look(after + timedelta(days=n + 1))
            if looked.trial is not None and looked.trial.state.final:
                break
        return looked

    def answer(self, trial: Trial, approve: bool, as_of: date, **instead: Any) -> Looked:
        return answer(
            self.house(**instead), trial.trial_id, approve=approve, reason="seen the plot", by="ada", as_of=as_of
        )

    def withdraw(self, as_of: date, reason: str = "wrong prices", **instead: Any) -> Trial:
        ended = withdraw(self.house(**instead), reason=reason, by="ada", as_of=as_of).trial
        assert ended is not None
        return ended

    def promote(self, version: str, as_of: date, reason: str = "asked for", **instead: Any) -> Takeover:
        return promote(self.house(**instead), version, reason=reason, by="ada", as_of=as_of)

    def roll_back(self, as_of: date, to: str | None = None, reason: str = "guests left", **instead: Any) -> Takeover:
        return roll_back(self.house(**instead), to=to, reason=reason, by="ada", as_of=as_of)

    def explain(self, version: str, as_of: date) -> Explanation:
        return explain(self.store, version, as_of)

    def history(self) -> History:
        return history(self.store)

    def challenge(self, version: str, on: date, policy: TrialPolicy | None = None) -> Trial:
        """A registered version stands as challenger, on trial from a day on, as a retrain leaves it."""
        now, record = self.clock(), self.registry.record(version)
        with self.store.begin() as work:
            seen = work.standing()
            champion = work.version(str(seen.champion))
            assert champion is not None
            work.add_version(record, now)
            after = work.change_standing(
                seen,
                champion=seen.champion,
                challenger=version,
                change=Change.CHALLENGED,
                reason="drift confirmed",
                by="the gate",
                request_id=record.request_id,
                as_of=on,
                now=now,
            )
            trained = {r.version: r.trained_as_of for r in (champion, record)}
            trial = open_trial(after, trained, on, record.request_id, policy or self.trial_policy)
            work.add_trial(trial, now)
            work.commit()
        project_aliases(self.store, self.registry, self.clock)
        return trial

    # --- what stands in the store -----------------------------------------------------------------

    def standing(self) -> Standing:
        with self.store.begin() as work:
            return work.standing()

    def ledger(self) -> list[LedgerRow]:
        with self.store.begin() as work:
            return work.ledger()

    def trials(self) -> list[Trial]:
        with self.store.begin() as work:
            return work.trials()

    def open_trial(self) -> Trial | None:
        with self.store.begin() as work:
            return work.open_trial()

    def held(self) -> str | None:
        """Why promotions need a person."""
        with self.store.begin() as work:
            return work.promotions_held()

    def release(self) -> None:
        """A person lets promotions happen by themselves again."""
        with self.store.begin() as work:
            work.release_promotions()
            work.commit()

    def served(self, as_of: date) -> pd.DataFrame:
        """What is served of each open booking, by its id."""
        with self.store.begin() as work:
            return work.served(as_of).set_index("reservation_id").sort_index()

    def serving(self, as_of: date) -> dict[str, int]:
        """Open bookings by the version whose score they are served."""
        return {str(v): int(n) for v, n in self.served(as_of)["model_version"].value_counts().items()}

    def arms(self, trial: Trial) -> Mapping[str, Arm]:
        query = arms.select().where(arms.c.trial_id == trial.trial_id)
        with self.store.begin() as work:
            return {row.reservation_id: Arm(row.arm) for row in work._read(query)}  # type: ignore[attr-defined]

    def messages(self, *topics: str) -> list[Message]:
        """Messages that wait, those of some topics or all."""
        with self.store.begin() as work:
            waiting = [entry.message for entry in work.pending_messages()]
        return [m for m in waiting if not topics or m.topic in topics]

    def stored(self, request: RetrainRequest) -> RetrainRequest:
        with self.store.begin() as work:
            found = work.request(request.request_id)
        assert found is not None
        return found

    def update(self, request: RetrainRequest, **changes: Any) -> RetrainRequest:
        changed = replace(request, **changes)
        with self.store.begin() as work:
            work.update_request(changed, self.clock())
            work.commit()
        return changed

    def pause(self, reason: str = "price test") -> None:
        with self.store.begin() as work:
            work.pause(reason, self.clock())
            work.commit()

    def acquire(self, lease: str, owner: str = "somebody else", ttl: timedelta = POLICY.lease_ttl) -> int:
        with self.store.begin() as work:
            token = work.acquire_lease(lease, owner, self.clock(), ttl)
            work.commit()
        assert token is not None
        return token

    def topics(self) -> list[tuple[str, str]]:
        """Channel and topic of the messages that wait."""
        with self.store.begin() as work:
            return [(e.message.channel.value, e.message.topic) for e in work.pending_messages()]

    def versions(self) -> list[str]:
        """Versions in MLflow, whoever knows of them."""
        found = self.registry._client.search_model_versions(f"name = '{self.registry._name}'")
        return sorted(str(v.version) for v in found)

    def predictions(self, version: str) -> pd.Series:
        """All probabilities by a version, in order of id."""
        with self.store.begin() as work:
            scored = work.scored(version, START, START + timedelta(days=DAYS))
        return scored.set_index("reservation_id")["probability"].sort_index()


def registry(uri: str, artifacts: Path | None = None, trusted: Sequence[str] = TRUSTED_TYPES) -> MlflowRegistry:
    root = None if artifacts is None else str(artifacts)
    mlflow.set_tracking_uri(uri)  # for tests that ask MLflow itself
    return MlflowRegistry(uri, name="cancellations", artifact_root=root, ui="", restore=Model, trusted=trusted)


def begin(home: Path, artifacts: Path, once: Once) -> World:
    """An empty world in a new folder."""
    home.mkdir()
    once.mlflow(home / "mlflow.db")
    url = f"sqlite:///{home / 'cancellations.db'}"
    upgrade(url)
    world = World(open_store(url), registry(f"sqlite:///{home / 'mlflow.db'}", artifacts))
    world.registry.prepare()
    return world


@dataclass(frozen=True)
class Snapshot:
    """A world at rest: its two databases, and the artifacts, which copies share since none changes."""

    folder: Path
    artifacts: Path

    @classmethod
    def of(cls, world: Path, artifacts: Path, folder: Path) -> Snapshot:
        folder.mkdir()
        for name in ("cancellations.db", "mlflow.db"):
            connection = sqlite3.connect(world / name)
            connection.execute("VACUUM INTO ?", (str(folder / name),))
            connection.close()
        return cls(folder, artifacts)

    def copy(self, folder: Path) -> World:
        folder.mkdir()
        for path in self.folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        store = open_store(f"sqlite:///{folder / 'cancellations.db'}")
        return World(store, registry(f"sqlite:///{folder / 'mlflow.db'}", self.artifacts))
