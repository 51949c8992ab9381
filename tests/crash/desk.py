"""What acts work with that have an MLflow and a post of their own, and the steps that they share."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from act import Fate, Mortal, MortalStore, Place, confessing
from post import doorbell, mailer
from sqlalchemy import Table
from versions import candidate, crown

from cancellations.domain.features import build, past_of
from cancellations.domain.labels import CANCELLED, LabelRule
from cancellations.domain.promotion import TrialPolicy
from cancellations.domain.reservation import coerce, sized
from cancellations.errors import Refused, ServiceDown
from cancellations.ports import Registry, Store
from cancellations.store import engine, open_store, upgrade
from cancellations.store.tables import Instant
from cancellations.usecases.deliver import deliver
from cancellations.usecases.promote import House
from cancellations.usecases.reconcile import reconcile
from cancellations.usecases.score import score
from cancellations.usecases.trial import look
from monitoring.plots import ReportPictures

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
SEED, RULE, CHUNK_ROWS, ATTEMPTS = 20, LabelRule(), 100, 3
# A file outside of the store: whoever waits for a lock gives up soon, and MLflow keeps no connection.
HURRIED, HURRIED_SECONDS = "hurried", 0.5
# Steps lie a day apart: no request of an act is overdue.
NEVER_OVERDUE = timedelta(days=10)
# Where MLflow's database holds the addresses of artifacts.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


# --- its guests -----------------------------------------------------------------------------------


def reservations(
    prefix: str,
    booked: pd.DatetimeIndex,
    arrival: pd.DatetimeIndex,
    segment_is_new: np.ndarray,
    dear: np.ndarray,
    noise: float,
    n: np.ndarray,
) -> pd.DataFrame:
    """Bookings with their outcomes, of which every second is cancelled; `n` is the number of a day of each.

    What is dear costs 40 more than what is cheap, and `noise` is the deviation of prices beside that.
    """
    place, draw = np.arange(len(n)), np.random.default_rng(SEED)
    cancelled = every_second(n)
    rows = pd.DataFrame(
        {
            "reservation_id": [f"{prefix}{i:05d}" for i in place],
            "hotel": "City Hotel",
            "booked_on": booked,
            "arrival_on": arrival,
            **dict.fromkeys(("weekend_nights", "children", "babies", "repeated_guest"), 0),
            **dict.fromkeys(("previous_cancellations", "previous_stays", "special_requests"), 0),
            **dict.fromkeys(("week_nights", "adults"), 2),
            **dict.fromkeys(("meal", "distribution_channel", "room_type", "deposit_type", "customer_type"), "A"),
            "market_segment": np.where(segment_is_new, "new", "old"),
            "price": 100 + np.where(dear, 20, -20) + draw.normal(0, noise, len(place)),
            "status": np.where(cancelled, "canceled", "stayed"),
            "known_on": arrival + pd.to_timedelta(np.where(cancelled, 0, 1), unit="D"),
        }
    )
    return pd.concat([sized(coerce(rows)), rows[["status", "known_on"]].assign(n=n)], axis=1)


def every_second(of: np.ndarray) -> np.ndarray:
    return np.arange(len(of)) % 2 == 0


def load(store: Store, rows: pd.DataFrame, after: date, until: date) -> None:
    """What was booked, and what became known, on the days of `(after, until]`; a crash in it is of another act."""
    span = pd.Timestamp(after), pd.Timestamp(until)
    with store.begin() as work:
        work.upsert_reservations(rows[rows["booked_on"].between(*span, inclusive="right")])
        work.record_outcomes(rows[rows["known_on"].between(*span, inclusive="right")])
        work.commit()


# --- what a step works with -----------------------------------------------------------------------


class Undrawn(ReportPictures):
    """Nobody looks at these pictures; to draw one takes as long as a step."""

    def drift(self, *told: object) -> bytes:
        return b"drift"

    def trial(self, *told: object) -> bytes:
        return b"trial"

    def version(self, *told: object) -> bytes:
        return b"version"


@dataclass(frozen=True)
class Hands:
    """What a process works with; it may die at any write of it.

    `writes`: methods of `ports.UnitOfWork` by which the steps write or wait. `rules`: of its house, beside the usual.
    """

    place: Place
    fate: Fate
    late: timedelta
    writes: ClassVar[frozenset[str]]
    rules: ClassVar[Mapping[str, Any]] = {}

    @cached_property
    def store(self) -> Any:
        if self.hurried:
            engine.BUSY_SECONDS = HURRIED_SECONDS
        return MortalStore(open_store(self.place.url), self.fate, self.writes)

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

    @property
    def hurried(self) -> bool:
        return (self.place.outside / HURRIED).exists()

    @property
    def owner(self) -> str:
        return f"{self.place.folder.name}:{os.getpid()}"

    @property
    def house(self) -> House:
        return House(self.store, self.registry, TrialPolicy(), RULE, CHUNK_ROWS, self.clock, **self.rules)

    def clock(self) -> datetime:
        """Each step has a day of its own; within it time stands still."""
        return NOW + timedelta(days=self.fate.number) + self.late


# --- steps ----------------------------------------------------------------------------------------


def deliver_all(hands: Hands) -> None:
    left = deliver(
        hands.store,
        doorbell=hands.doorbell,
        mailer=hands.mailer,
        pictures=Undrawn(),
        registry=hands.registry,
        max_attempts=ATTEMPTS,
        owner=hands.owner,
        clock=hands.clock,
    )
    if left.busy:
        raise Refused("another relay is at work")
    if left.failed:
        raise ServiceDown("; ".join(left.failed))


def look_twice(hands: Hands, until: date) -> None:
    """As the schedule does, again and again, so that one finds what another has begun."""
    for _ in range(2):
        looked = look(hands.house, until=until)
        problems = (*looked.problems, *(looked.takeover.problems if looked.takeover else ()))
        if problems:
            raise ServiceDown("; ".join(problems))
    deliver_all(hands)


def reconcile_all(hands: Hands) -> None:
    found = reconcile(
        hands.store,
        hands.registry,
        doorbell=hands.doorbell,
        patience=timedelta(minutes=3),
        overdue=NEVER_OVERDUE,
        max_attempts=ATTEMPTS,
        clock=hands.clock,
    )
    if found.problems:
        raise ServiceDown("; ".join(found.problems))
    deliver_all(hands)


# --- what is held against an act in which nobody died ---------------------------------------------

# What a death may change: the databases' own numbers, how often something was tried, and who did it.
_ITS_OWN: Mapping[str, frozenset[str]] = {
    "decisions": frozenset({"number"}),
    "requests": frozenset({"number", "attempts", "detail"}),
    "versions": frozenset({"run_id"}),
    "trials": frozenset({"number"}),
    "messages": frozenset({"state", "attempts", "last_error"}),
}


def without_time(table: Table, row: dict[str, Any]) -> dict[str, Any] | None:
    """Without wall time, and without what comes and goes: leases, and our own hands on the aliases."""
    if table.name in ("leases", "placements"):
        return None
    own = _ITS_OWN.get(table.name, frozenset())
    return {k: v for k, v in row.items() if k not in own and not isinstance(table.c[k].type, Instant)}


# --- before the first step ------------------------------------------------------------------------


def register(place: Place, rows: pd.DataFrame, lasts: Sequence[int], as_of: date) -> None:
    """Makes a version of the bookings of days up to each of `lasts`, in an MLflow that knows none; the first of them
    is champion."""
    with confessing(place):
        registry = place.registry()
        registry.prepare()
        for seed, last in enumerate(lasts, start=1):
            past = rows[rows["n"] <= last]
            built, label = build(past, past_of(rows), RULE), past["status"].isin(CANCELLED).to_numpy(dtype=float)
            registry.register(candidate(built, label, as_of, seed))
        registry.set_alias("champion", "1")


def first_champion(place: Place, rows: pd.DataFrame, after: date, until: date, trained: date) -> tuple[Store, Registry]:
    """A store on which version 1 serves, and has scored what came in on the days of `(after, until]`."""
    upgrade(place.url)
    registry, store = place.registry(), open_store(place.url)
    load(store, rows, after, until)
    with store.begin() as work:
        crown(work, registry.record("1"), trained, NOW)
        work.commit()
    score(store, registry, after=None, until=until, rule=RULE, chunk_rows=10_000, clock=lambda: NOW)
    return store, registry


def move_in(source: Path, target: Path) -> None:
    """Copies what stands outside of a store at rest; MLflow keeps the whole address of each artifact."""
    shutil.copytree(source, target)
    with sqlite3.connect(target / "mlflow.db") as mlflow:
        for table, column in ADDRESSES:
            moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            mlflow.execute(moved, (str(source), str(target)))
    mlflow.close()
