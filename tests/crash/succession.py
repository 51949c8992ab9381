"""An act from decision to alias: drift, its event and mail, retrain, trial, promotion, probation, rollback.

Until TRAINED guests of one segment cancel what is dear, which is what version 1 has learned. From then on a new
segment cancels what is cheap; version 2, retrained on it, is better. After the promotion that segment turns, too,
so on probation version 1 is better again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from act import Act, Fate, Mortal, MortalStore, Place, confessing
from post import doorbell, mailer, rung
from promises import Rules, broken, evidence
from sqlalchemy import Table
from versions import QuickTrainer, candidate, crown

from cancellations.domain.features import build, past_of
from cancellations.domain.gate import GatePolicy
from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.labels import CANCELLED, LabelRule
from cancellations.domain.promotion import Change, TrialPolicy
from cancellations.domain.reservation import coerce, sized
from cancellations.domain.retraining import MonitorReport, RetrainPolicy, Signal, Window, judge
from cancellations.errors import Refused, ServiceDown
from cancellations.metrics import GroupBootstrap
from cancellations.model import Model
from cancellations.ports import Observation, Store
from cancellations.store import engine, open_store, upgrade
from cancellations.store.tables import Instant
from cancellations.usecases.deliver import deliver
from cancellations.usecases.monitor import Rhythm, monitor
from cancellations.usecases.promote import House, promote, roll_back
from cancellations.usecases.reconcile import reconcile
from cancellations.usecases.retrain import retrain
from cancellations.usecases.score import score
from cancellations.usecases.training import Tools, TrainingPolicy
from cancellations.usecases.trial import look, score_challenger
from monitoring.plots import ReportPictures

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
TRAINED = date(2016, 6, 1)
# Days after TRAINED: of the look that confirms drift, of the promotion, and of the rollback. Bookings mature on
# all days from EARLIEST to LAST; after TURN guests are as they were.
CONFIRMED, PROMOTED, TURN, BACK = 40, 56, 56, 73
EARLIEST, LAST, A_DAY = -40, 80, 6
SEED, RULE, CHUNK_ROWS, ATTEMPTS = 20, LabelRule(), 100, 3
TRAINING = TrainingPolicy(
    labels=RULE,
    gate=GatePolicy(backtest_days=20, min_rows=100, resamples=20),
    trial=TrialPolicy(),
    seed=SEED,
    reference_rows=200,
    lease_ttl=timedelta(minutes=15),
    max_attempts=ATTEMPTS,
)
WHEN = RetrainPolicy(min_new_labels=0)
CHAMPION, OTHER, MADE = "1", "2", "3"  # MADE by the retrain
# A file outside of the store: whoever waits for a lock gives up soon, and MLflow keeps no connection.
HURRIED, HURRIED_SECONDS = "hurried", 0.5

# Methods of `ports.UnitOfWork` by which the steps write; a test holds the list against what they do.
WRITES = frozenset(
    {
        "add_arms",
        "add_decision",
        "add_features",
        "add_messages",
        "add_predictions",
        "add_request",
        "add_trial",
        "add_version",
        "acquire_lease",
        "begin_placement",
        "change_standing",
        "check_lease",
        "finish_placement",
        "hold_promotions",
        "mark_sent",
        "release_lease",
        "serve",
        "update_request",
        "update_trial",
    }
)
# Those by which a transaction waits for its turn, and leaves nothing.
LOCKS = frozenset({"hold_requests"})
# Where MLflow's database holds the addresses of artifacts.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def day(n: int) -> date:
    return TRAINED + timedelta(days=n)


def bookings() -> pd.DataFrame:
    """All bookings with their outcomes, in order of maturity; `n` is the day on which one matures."""
    matures = np.repeat(np.arange(EARLIEST, LAST + 1), A_DAY)
    place, draw = np.arange(len(matures)), np.random.default_rng(SEED)
    cancelled = place % 2 == 0
    new = matures > 0
    dear = np.where(new & (matures <= TURN), ~cancelled, cancelled)
    arrival = pd.Timestamp(TRAINED) + pd.to_timedelta(matures - 1, unit="D")
    rows = pd.DataFrame(
        {
            "reservation_id": [f"b{i:05d}" for i in place],
            "hotel": "City Hotel",
            "booked_on": arrival - pd.to_timedelta(3 + place % 7, unit="D"),
            "arrival_on": arrival,
            **dict.fromkeys(("weekend_nights", "children", "babies", "repeated_guest"), 0),
            **dict.fromkeys(("previous_cancellations", "previous_stays", "special_requests"), 0),
            **dict.fromkeys(("week_nights", "adults"), 2),
            **dict.fromkeys(("meal", "distribution_channel", "room_type", "deposit_type", "customer_type"), "A"),
            "market_segment": np.where(new, "new", "old"),
            "price": 100 + np.where(dear, 20, -20) + draw.normal(0, 15, len(place)),
            "status": np.where(cancelled, "canceled", "stayed"),
            "known_on": arrival + pd.to_timedelta(np.where(cancelled, 0, 1), unit="D"),
        }
    )
    return pd.concat([sized(coerce(rows)), rows[["status", "known_on"]].assign(n=matures)], axis=1)


# --- what a step works with -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Alarmed:
    """A measurement in which loss is beyond its threshold, as it is in this story's windows."""

    report: MonitorReport

    def save_html(self, path: Path) -> Path:
        path.write_text("<html>the page</html>")
        return path


class _Watch:
    """Stands in for Evidently, which takes seconds to import: what it says is told elsewhere."""

    def measure(self, observation: Observation) -> _Alarmed:
        signal = Signal("matured excess loss", 0.05, 0.02, judge(0.05, 0.02), 2.0, len(observation.current))
        rows = len(observation.current), len(observation.reference)
        window = Window(observation.start, observation.end)
        return _Alarmed(MonitorReport(observation.champion, window, *rows, signals=(signal,)))


class _Undrawn(ReportPictures):
    """Nobody looks at these pictures; to draw one takes as long as a step."""

    def drift(self, *told: object) -> bytes:
        return b"drift"

    def trial(self, *told: object) -> bytes:
        return b"trial"

    def version(self, *told: object) -> bytes:
        return b"version"


@dataclass
class _Witness(QuickTrainer):
    """Writes down who begins a fit, so that one sees whether two worked at once, or too often."""

    fits: Path

    def fit(self, *given: Any) -> Model:
        with self.fits.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().fit(*given)


@dataclass(frozen=True)
class Hands:
    """What a process works with; it may die at any write of it."""

    place: Place
    fate: Fate
    late: timedelta

    @cached_property
    def store(self) -> Any:
        return MortalStore(self._opened(), self.fate, WRITES | LOCKS)

    def _opened(self) -> Store:
        if self.hurried:
            engine.BUSY_SECONDS = HURRIED_SECONDS
        return open_store(self.place.url)

    @cached_property
    def registry(self) -> Any:
        registry = self.place.registry()
        if self.hurried:
            os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
            registry.aliases()  # a database that is gone before it was opened MLflow awaits for two minutes
        return Mortal(registry, self.fate, ("register", "set_alias", "log_report"), ("load", "aliases"))

    @cached_property
    def doorbell(self) -> Any:
        return Mortal(doorbell(self.place.outside), self.fate, ("ring", "start_retrain"))

    @cached_property
    def mailer(self) -> Any:
        return Mortal(mailer(self.place.outside), self.fate, ("send",))

    @cached_property
    def tools(self) -> Tools:
        trainer: Any = Mortal(_Witness(self.place.outside / "fits"), self.fate, ("fit",))
        return Tools(trainer, GroupBootstrap(resamples=20), _Undrawn())

    @property
    def hurried(self) -> bool:
        return (self.place.outside / HURRIED).exists()

    @property
    def owner(self) -> str:
        return f"{self.place.folder.name}:{os.getpid()}"

    @property
    def house(self) -> House:
        return House(self.store, self.registry, TrialPolicy(), RULE, CHUNK_ROWS, self.clock)

    def clock(self) -> datetime:
        """Each step has a day of its own; within it time stands still."""
        return NOW + timedelta(days=self.fate.number) + self.late


# --- the steps ------------------------------------------------------------------------------------


def _monitor(hands: Hands) -> None:
    """Two windows: the first is not enough, the second confirms."""
    monitor(
        hands.store,
        hands.registry,
        _Watch(),
        after=day(CONFIRMED - 14),
        until=day(CONFIRMED),
        rhythm=Rhythm(window_days=14, step_days=7),
        rule=RULE,
        policy=WHEN,
        open_bookings=InFlightPolicy(min_rows=30),
        clock=hands.clock,
    )
    _deliver(hands)


def _deliver(hands: Hands) -> None:
    left = deliver(
        hands.store,
        doorbell=hands.doorbell,
        mailer=hands.mailer,
        pictures=_Undrawn(),
        registry=hands.registry,
        max_attempts=ATTEMPTS,
        owner=hands.owner,
        clock=hands.clock,
    )
    if left.busy:
        raise Refused("another relay is at work")
    if left.failed:
        raise ServiceDown("; ".join(left.failed))


def _retrain(hands: Hands) -> None:
    """What the automation does for each event, and a run that reconcile has started."""
    for request_id in rung(hands.place.outside):
        ended = retrain(
            request_id,
            store=hands.store,
            registry=hands.registry,
            tools=hands.tools,
            policy=TRAINING,
            owner=hands.owner,
            clock=hands.clock,
        )
        _deliver(hands)
        score_challenger(hands.house, ended)


def _load(store: Store, after: date, until: date) -> None:
    """What was booked, and what became known, on the days of `(after, until]`; a crash in it is of another act."""
    rows, span = bookings(), (pd.Timestamp(after), pd.Timestamp(until))
    with store.begin() as work:
        work.upsert_reservations(rows[rows["booked_on"].between(*span, inclusive="right")])
        work.record_outcomes(rows[rows["known_on"].between(*span, inclusive="right")])
        work.commit()


def _look(hands: Hands, after: int, until: int) -> None:
    """Days pass; looks as the schedule does, again and again, so that one finds what another has begun."""
    _load(open_store(hands.place.url), day(after), day(until))
    for _ in range(2):
        looked = look(hands.house, until=day(until))
        problems = (*looked.problems, *(looked.takeover.problems if looked.takeover else ()))
        if problems:
            raise ServiceDown("; ".join(problems))
    _deliver(hands)


def _promote_by_itself(hands: Hands) -> None:
    _look(hands, CONFIRMED, PROMOTED)


def _roll_back_by_itself(hands: Hands) -> None:
    _look(hands, PROMOTED, BACK)


def _roll_back(hands: Hands) -> None:
    """A person does, and then another promotes: what they do meets what the look of another process does."""
    roll_back(hands.house, to=None, reason="guests left", by="ada", as_of=day(BACK))


def _promote(hands: Hands) -> None:
    promote(hands.house, OTHER, reason="looked better", by="bo", as_of=day(BACK))


def _reconcile(hands: Hands) -> None:
    found = reconcile(
        hands.store,
        hands.registry,
        doorbell=hands.doorbell,
        patience=timedelta(minutes=3),
        overdue=timedelta(days=2 * len(STEPS)),  # steps lie a day apart
        max_attempts=ATTEMPTS,
        clock=hands.clock,
    )
    if found.problems:
        raise ServiceDown("; ".join(found.problems))
    _deliver(hands)


# As the flows are: each tells what it did before it ends.
STEPS: tuple[tuple[str, Callable[[Hands], None]], ...] = (
    ("monitor", _monitor),
    ("retrain", _retrain),
    ("promote", _promote_by_itself),
    ("roll back", _roll_back_by_itself),
    ("reconcile", _reconcile),
)
# What comes between; it is not of the story.
BETWEEN: tuple[tuple[str, Callable[[Hands], None]], ...] = (
    ("a person rolls back", _roll_back),
    ("a person promotes", _promote),
    ("reconcile on time", _reconcile),
)
STORY = tuple(name for name, _ in STEPS)
CHANGES = (
    (Change.FIRST, "the gate"),
    (Change.CHALLENGED, "the gate"),
    (Change.PROMOTED, "the trial"),
    (Change.ROLLED_BACK, "the probation"),
)


# --- what is held against an act in which nobody died ---------------------------------------------

# What a death may change: the databases' own numbers, how often something was tried, and who did it.
_ITS_OWN: Mapping[str, frozenset[str]] = {
    "decisions": frozenset({"number"}),
    "requests": frozenset({"number", "attempts", "detail"}),
    "versions": frozenset({"run_id"}),
    "trials": frozenset({"number"}),
    "messages": frozenset({"state", "attempts", "last_error"}),
}


def _told(table: Table, row: dict[str, Any]) -> dict[str, Any] | None:
    """Without wall time, and without what comes and goes: leases, and our own hands on the aliases."""
    if table.name in ("leases", "placements"):
        return None
    own = _ITS_OWN.get(table.name, frozenset())
    return {k: v for k, v in row.items() if k not in own and not isinstance(table.c[k].type, Instant)}


WINDOWS = frozenset((CHAMPION, day(CONFIRMED - n)) for n in (0, 7))
RULES = Rules(ATTEMPTS, WHEN.budget, WINDOWS)
ENDED = replace(RULES, ended=True, changes=CHANGES)


def _examine(hands: Hands) -> list[str]:
    place = hands.place
    found = evidence(place, open_store(place.url), place.registry(), day(BACK))
    place.keep(found)
    return broken(found, ENDED if hands.fate.step == STORY[-1] else RULES)


ACT = Act((*STEPS, *BETWEEN), Hands, WRITES, _reconcile, _examine, _told, shared=False)


# --- before the first step ------------------------------------------------------------------------


def register(place: Place) -> None:
    """Makes two versions in an MLflow that knows none: the champion, and another that somebody may want."""
    with confessing(place):
        rows, registry = bookings(), place.registry()
        past = rows[rows["n"] <= 0]
        built, label = build(past, past_of(rows), RULE), past["status"].isin(CANCELLED).to_numpy(dtype=float)
        registry.prepare()
        for seed in (1, 2):
            registry.register(candidate(built, label, TRAINED, seed))
        registry.set_alias("champion", CHAMPION)


def prepare(place: Place) -> None:
    """A store on which version 1 serves, and has scored what came in until drift is looked for."""
    with confessing(place):
        upgrade(place.url)
        registry, store = place.registry(), open_store(place.url)
        _load(store, day(2 * EARLIEST), day(CONFIRMED))
        with store.begin() as work:
            crown(work, registry.record(CHAMPION), TRAINED, NOW)
            work.commit()
        score(store, registry, after=None, until=day(CONFIRMED), rule=RULE, chunk_rows=10_000, clock=lambda: NOW)


def move_in(source: Path, target: Path) -> None:
    """Copies what stands outside of a store at rest; MLflow keeps the whole address of each artifact."""
    shutil.copytree(source, target)
    with sqlite3.connect(target / "mlflow.db") as mlflow:
        for table, column in ADDRESSES:
            moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            mlflow.execute(moved, (str(source), str(target)))
    mlflow.close()
