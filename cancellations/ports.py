"""What the use cases need of the outside, as Protocols; adapters in other rooms satisfy them.

Two clocks run through these signatures. Event time is a `date` called `as_of` or named for its
meaning; it drives the business and can be any day of the past. Wall time is a timezone-aware UTC
`datetime` called `now`; it drives leases, retries and records, and is always passed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cancellations.domain.calibration import Calibration
from cancellations.domain.card import CardFacts
from cancellations.domain.checks import DayCheck
from cancellations.domain.comparison import Arm
from cancellations.domain.evaluation import Cohort, Evaluation
from cancellations.domain.events import Channel, Message
from cancellations.domain.features import FeatureSet
from cancellations.domain.in_flight import Slice
from cancellations.domain.labels import Ending, Examples, LabelRule, Labels, unseen
from cancellations.domain.promotion import Change, LedgerRow, Standing, Trial, TrialState
from cancellations.domain.recipes import Recipe
from cancellations.domain.reservation import Column
from cancellations.domain.retraining import Decision, MonitorReport, RequestState, RetrainRequest
from cancellations.domain.volume import Volume

# --- where reservations come from -----------------------------------------------------------------


@dataclass(frozen=True)
class SourceBatch:
    """Some rows of a source: what was read, and what it means.

    All frames share one index, the row number in the source (the first data row is 1).
    `raw` holds the original values; `reservations` the source's `columns`, coerced
    (`domain.reservation.coerce`), or None where a source brings outcomes alone; `outcomes` the columns
    `reservation_id`, `status`, `known_on` of the rows that tell one, the day missing where it is not
    told; `problems` what could not be read, as `domain.reservation.violations` gives it, with `column`
    empty where a row cannot be read at all.
    """

    raw: pd.DataFrame
    reservations: pd.DataFrame | None
    outcomes: pd.DataFrame
    problems: pd.DataFrame


class Undated(StrEnum):
    """The day on which an outcome counts as known when its source does not tell one."""

    MATURITY = "maturity"  # the booking's maturity date: right for a history that is replayed
    LOAD = "load"  # the day of the load, if that is earlier: for live exports, where it is known by then


class Source(Protocol):
    """Reservations and outcomes, in batches.

    `name` identifies it in loads and quarantine; `columns` are those that it delivers: the canonical
    ones, with this source's limits, then its own features; `mapping` is the text of the mapping that it
    is read by, empty where there is none.
    """

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[Column, ...]: ...

    @property
    def mapping(self) -> str: ...

    @property
    def undated(self) -> Undated: ...

    def fingerprint(self) -> str | None:
        """Hex digits that change with the content; None where only reading it all could tell."""
        ...

    def batches(self) -> Iterator[SourceBatch]:
        """From the first row on, each time it is called; raises `BadInput` for what is no whole table."""
        ...


# --- store ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Upserted:
    """What a write of reservations did to each row."""

    loaded: int
    unchanged: int
    updated: int


@dataclass(frozen=True)
class LoadCounts:
    """One load. `read = outside + loaded + unchanged + updated + quarantined`, always.

    `outside`: rows whose booking date lies outside the span that was asked for.
    `outcomes`: outcomes recorded or corrected, counted apart.
    """

    source: str
    read: int
    outside: int
    loaded: int
    unchanged: int
    updated: int
    quarantined: int
    outcomes: int


class LoadState(StrEnum):
    RUNNING = "running"  # being written, or interrupted while it was
    DONE = "done"
    STOPPED = "stopped"  # too many of its rows broke a rule: nothing of it was written


@dataclass(frozen=True)
class LoadContent:
    """What a load is of: the same content is the same load until that one is done.

    `fingerprint` changes with the source's content; `mapping` is the text it is read by.
    """

    source: str
    fingerprint: str
    mapping: str
    after: date | None
    until: date


@dataclass(frozen=True)
class Load:
    """A load as the store knows it.

    `applied`: rows, in their order, whose fate is written. `left`: rows and outcomes that a later load of
    the same source would still bring, because they lie outside the span or become known later. `reason`:
    why it was stopped.
    """

    number: int
    state: LoadState
    counts: LoadCounts
    applied: int
    left: int
    began_at: datetime
    recorded_at: datetime
    reason: str = ""


class QuarantineState(StrEnum):
    WAITING = "waiting"  # for somebody to mend it, or the mapping
    LOADED = "loaded"  # a later load, or a retry, took the row
    DROPPED = "dropped"  # a person said that it is not wanted


@dataclass(frozen=True)
class QuarantinedRow:
    """A row that broke rules, with its original values, so that nothing is lost."""

    source: str
    row: int
    problems: tuple[str, ...]  # "column: rule", or a rule alone where the row could not be read at all
    values: Mapping[str, Any]  # JSON-ready
    reservation_id: str | None = None  # where it could be read


@dataclass(frozen=True)
class Quarantined:
    """A row in quarantine, by its number; `mapping` is the text it was read by, `reason` why it was dropped."""

    number: int
    row: QuarantinedRow
    state: QuarantineState
    mapping: str
    recorded_at: datetime
    settled_at: datetime | None
    reason: str = ""


@dataclass(frozen=True)
class VersionRecord:
    """What our ledger knows of a registered version.

    `recipe` is empty where nobody wrote down how it was made; `labels` tells what it learnt from.
    """

    version: str
    request_id: str
    run_id: str
    trained_as_of: date
    data_digest: str
    metrics: Mapping[str, float]
    recipe: str = ""
    labels: Labels = Labels.MATURED

    def unseen(self, history: pd.DataFrame, rule: LabelRule) -> np.ndarray:
        """Which bookings the version can have learnt nothing of, as `domain.labels.unseen` tells."""
        return unseen(history, rule, self.labels, self.trained_as_of)

    @property
    def shift(self) -> float | None:
        """Log odds that a recalibrated version adds to what the version that it recalibrates says; else None."""
        return self.metrics.get("shift")

    @property
    def known_until(self) -> date:
        """The last day whose outcomes have gone into it: into its shift, where it has one, else into its training.

        A comparison with it begins later. `trained_as_of` stays the day of what it was fitted on.
        """
        return self.trained_as_of + timedelta(days=int(self.metrics.get("evidence_days", 0)))


@dataclass(frozen=True)
class StoredDecision:
    """A decision with the report it came from."""

    report_id: str
    report: MonitorReport
    decision: Decision
    request_id: str | None
    recorded_at: datetime


class MessageState(StrEnum):
    """What has become of a message; the last three are final."""

    PENDING = "pending"  # it waits, for its next attempt or for the digest
    SENT = "sent"
    DEAD = "dead"  # its attempts are used up
    TOLD = "told"  # a digest told it in its place


@dataclass(frozen=True)
class OutboxEntry:
    """A message with what has become of it; `number` is its place in the order of writing."""

    message: Message
    attempts: int
    created_at: datetime
    last_error: str | None = None
    state: MessageState = MessageState.PENDING
    number: int = 0


class UnitOfWork(Protocol):
    """One transaction. Left without `commit()`, also by an error, it leaves no trace."""

    def commit(self) -> None: ...

    # reservations and outcomes
    def declare_columns(self, columns: Sequence[Column], now: datetime) -> None:
        """Makes columns beyond the canonical ones known as features; idempotent. Raises `BadInput` for one
        that is known with another kind."""
        ...

    def extra_columns(self) -> tuple[Column, ...]:
        """Features beyond the canonical columns that were ever declared, by name."""
        ...

    def upsert_reservations(self, reservations: pd.DataFrame, load: int | None = None) -> Upserted:
        """Writes canonical rows, with `group_size` and declared columns, by `reservation_id`; equal rows
        count as unchanged.

        The group size of a booking that is there already stays. What a correction replaces is kept where
        the booking has been scored.
        """
        ...

    def record_outcomes(self, outcomes: pd.DataFrame, load: int | None = None) -> Upserted:
        """Writes outcomes by `reservation_id`; what a correction replaces is kept."""
        ...

    def ruled_by(self, reservation_ids: pd.Series) -> pd.DataFrame:
        """What bookings mature by (`labels.RULED_BY`), indexed by reservation_id; unknown ids are left out."""
        ...

    def recorded_outcomes(self, reservation_ids: pd.Series) -> pd.DataFrame:
        """`status` and `known_on`, indexed by reservation_id; ids without an outcome are left out."""
        ...

    def tallies(self, agents: Sequence[str], companies: Sequence[str], before: date) -> pd.DataFrame:
        """Bookings arriving before a day, counted as `domain.features.tally` does: all of them, and those
        of the agents and companies that are named."""
        ...

    # loads and quarantine
    def begin_load(self, content: LoadContent, read: int, left: int, now: datetime) -> Load:
        """The unfinished load of this content, if there is one; else a new one."""
        ...

    def load(self, number: int) -> Load: ...

    def advance_load(self, load: Load, counts: LoadCounts, applied: int, now: datetime) -> bool:
        """Writes how far a load has come; False, and nothing, when it has moved on from `load` meanwhile."""
        ...

    def finish_load(self, load: Load, now: datetime) -> bool:
        """False when it has ended already."""
        ...

    def add_stopped_load(self, content: LoadContent, counts: LoadCounts, now: datetime, reason: str = "") -> None:
        """The same content stopped again is not written again."""
        ...

    def last_load(self, source: str) -> tuple[LoadContent, Load] | None:
        """The last load of a source that is done."""
        ...

    def loads(self, limit: int = 20) -> list[Load]:
        """The last loads, oldest first."""
        ...

    def unfinished_loads(self) -> list[Load]:
        """Loads that were interrupted, or run now, and that no later load of their source has overtaken."""
        ...

    def add_quarantined(self, rows: Sequence[QuarantinedRow], now: datetime, mapping: str = "") -> int:
        """Stores rows once per (source, row, values), waiting; returns how many were new."""
        ...

    def quarantined(
        self,
        *states: QuarantineState,
        source: str | None = None,
        numbers: Sequence[int] | None = None,
        limit: int | None = None,
    ) -> list[Quarantined]:
        """In order of writing; all states, sources and numbers when none is named."""
        ...

    def quarantine_counts(self) -> dict[str, int]:
        """Rows that wait, by source."""
        ...

    def settle_quarantined(
        self, numbers: Sequence[int], state: QuarantineState, now: datetime, reason: str = ""
    ) -> int:
        """Ends the waiting of rows; returns how many did wait."""
        ...

    def settle_bookings(self, source: str, reservation_ids: pd.Series, now: datetime) -> int:
        """Waiting rows of a source, by their reservation ids, have been loaded now; returns how many."""
        ...

    def tell_quarantined(self, problems: Mapping[int, Sequence[str]]) -> None:
        """Rows by their numbers have other problems now."""
        ...

    def books(self, reservations: pd.DataFrame, before: date) -> pd.DataFrame:
        """`domain.features.books` of what was booked or cancelled before a day, for the months in which the
        given reservations arrive. Moves older than all of their bookings may stand on a common day."""
        ...

    def history(
        self,
        booked_until: date,
        known_until: date,
        ending: Ending | None = None,
        only: Sequence[str] = (),
        booked_after: date | None = None,
    ) -> pd.DataFrame:
        """All reservations booked up to a day, and after another where one is given, with `status` and
        `known_on` of outcomes known by a third (missing otherwise), in order of booking date and id. With
        `ending` only those that do so; with `only` these columns beside the id, which takes half the time."""
        ...

    def outcomes_until(self, known_until: date) -> date | None:
        """The last day, up to `known_until`, on which an outcome became known: how far the feed has come."""
        ...

    def booked_span(self) -> tuple[date, date] | None:
        """First and last booking date in the store."""
        ...

    def booked_days(self, after: date, until: date) -> pd.Series:
        """Bookings made in `(after, until]`, by day (index `datetime64`, ascending); days without one are left out."""
        ...

    # features, predictions, and what is served
    def features(self, reservation_ids: pd.Series) -> pd.DataFrame:
        """Booking-time features as they were stored, indexed by reservation_id; ids without are left out."""
        ...

    def add_features(self, features: pd.DataFrame, now: datetime) -> int:
        """Stores features, declared columns among them, by their index, the reservation_id; what is stored
        already stays. Returns how many were new."""
        ...

    def unscored_days(
        self, version: str, booked_after: date | None, booked_until: date, ending: Ending | None = None
    ) -> pd.Series:
        """How many reservations `unscored` would give, by day of booking (`datetime64`, ascending)."""
        ...

    def unscored(
        self,
        version: str,
        booked_after: date | None,
        booked_until: date,
        after: tuple[date, str] | None,
        limit: int,
        ending: Ending | None = None,
    ) -> pd.DataFrame:
        """Reservations in `(booked_after, booked_until]` without a prediction by `version`, in order
        of (booked_on, reservation_id), starting behind the key `after`: one bounded page. With
        `ending` only those that do so."""
        ...

    def add_predictions(self, version: str, predictions: pd.DataFrame, scored_as_of: date, now: datetime) -> int:
        """Writes `reservation_id`, `probability`; rows that exist stay. Returns how many were new."""
        ...

    def scored(self, version: str, booked_from: date, booked_until: date) -> pd.DataFrame:
        """Reservations booked on those days (inclusive) with `probability` by `version`."""
        ...

    def predictions(self, version: str, reservation_ids: pd.Series) -> pd.Series:
        """Probabilities by `version`, indexed by reservation_id; ids without one are left out."""
        ...

    def unassigned(self, trial_id: str, as_of: date) -> pd.Series:
        """Ids of bookings open on a day that have no arm of this trial yet, in order of id. Open: made by
        that day, its arrival not past, no outcome known by then."""
        ...

    def add_arms(self, trial_id: str, arms: Mapping[str, Arm]) -> int:
        """Writes an arm for each reservation id; arms that exist stay. Returns how many were new."""
        ...

    def serve(self, as_of: date, now: datetime) -> int:
        """Brings the served scores of bookings open on a day to what the standing wants, as a row of
        the present epoch each; returns how many were written.

        A booking is served the champion's score, or its arm's while a trial runs. Without a score by
        that version the last one served stays. Holds the standing still until the transaction ends.
        """
        ...

    def served(self, as_of: date) -> pd.DataFrame:
        """What is served of each booking open on a day: `reservation_id`, the columns of
        `domain.reservation.GROUP`, `deposit_type`, `price`, `probability`, `model_version`, `arm` (missing
        outside of trials), `epoch`, `served_at`."""
        ...

    # monitor
    def report_exists(self, champion: str, window_end: date) -> bool: ...

    def add_decision(self, stored: StoredDecision) -> bool:
        """Writes report and decision once per (champion, window end); False if they were there."""
        ...

    def decisions(self, champion: str | None = None, limit: int | None = None) -> list[StoredDecision]:
        """Newest window first."""
        ...

    def decision(self, report_id: str) -> StoredDecision | None: ...

    # checks of a day's bookings
    def add_check(self, found: DayCheck, now: datetime) -> bool:
        """False when the day was checked already; nothing is changed then."""
        ...

    def checks(self, until: date | None = None, limit: int | None = None) -> list[DayCheck]:
        """Newest day first, of days up to `until`."""
        ...

    # requests and leases
    def add_calibration(self, calibration: Calibration, now: datetime) -> None: ...

    def calibration(self, until: date) -> Calibration | None:
        """The last one that was added, of those as of a day or earlier."""
        ...

    def add_request(self, request: RetrainRequest, now: datetime) -> bool:
        """False when the id exists; nothing is changed then."""
        ...

    def request(self, request_id: str) -> RetrainRequest | None: ...

    def requests(self, *states: RequestState) -> list[RetrainRequest]:
        """In order of creation; all states when none is named."""
        ...

    def update_request(self, request: RetrainRequest, now: datetime) -> None: ...

    def waiting_since(self, request_id: str) -> datetime:
        """When the request last changed its state."""
        ...

    def made_at(self, request_id: str) -> datetime:
        """When the request was written."""
        ...

    def note_held(self, request_id: str, reason: str, now: datetime) -> None:
        """A rule keeps a request from starting at this moment."""
        ...

    def held_until(self, request_id: str) -> datetime | None:
        """The last moment at which a rule kept it from starting, as far as somebody looked."""
        ...

    def acquire_lease(self, name: str, owner: str, now: datetime, ttl: timedelta) -> int | None:
        """Fencing token (grows with each holder), or None while another's lease is alive."""
        ...

    def lease_holder(self, name: str, now: datetime) -> str | None:
        """Owner of a lease that is alive."""
        ...

    def check_lease(self, name: str, token: int, now: datetime, ttl: timedelta) -> None:
        """Renews the lease of `token`; raises `LeaseLost` when it is another's or has expired."""
        ...

    def release_lease(self, name: str, token: int) -> None: ...

    # ledger
    def standing(self) -> Standing: ...

    def change_standing(
        self,
        seen: Standing,
        *,
        champion: str | None,
        challenger: str | None,
        change: Change,
        reason: str,
        by: str,
        request_id: str | None = None,
        trial_id: str | None = None,
        as_of: date,
        now: datetime,
    ) -> Standing:
        """Writes the next epoch and its ledger row; raises `EpochMismatch` if `seen` is old."""
        ...

    def ledger(self) -> list[LedgerRow]:
        """Oldest first."""
        ...

    # trials and probations
    def add_trial(self, trial: Trial, now: datetime) -> None:
        """Raises `Refused` while another one has not ended."""
        ...

    def open_trial(self) -> Trial | None:
        """The trial or probation that has not ended; there is one at most."""
        ...

    def trial(self, trial_id: str) -> Trial | None: ...

    def trials(self) -> list[Trial]:
        """In order of opening."""
        ...

    def update_trial(self, trial: Trial, seen: TrialState, now: datetime) -> bool:
        """Writes a trial that was read in the state `seen`; False when somebody else changed it since."""
        ...

    def add_version(self, record: VersionRecord, now: datetime) -> None:
        """Idempotent by version."""
        ...

    def version(self, version: str) -> VersionRecord | None: ...

    # outbox
    def add_messages(self, messages: Sequence[Message], now: datetime) -> None:
        """Idempotent by message id."""
        ...

    def due_messages(
        self, channel: Channel | None, now: datetime, limit: int, besides: Sequence[str] = ()
    ) -> list[OutboxEntry]:
        """Pending, their next attempt due; oldest first. Those of the topics `besides` are passed over."""
        ...

    def pending_messages(self) -> list[OutboxEntry]: ...

    def dead_messages(self) -> list[OutboxEntry]: ...

    def messages(self, ids: Sequence[str]) -> list[OutboxEntry]:
        """Whatever became of them, in order of writing; unknown ids are left out."""
        ...

    def mails_after(self, number: int) -> list[OutboxEntry]:
        """Mails written behind a place in the order, whatever became of them."""
        ...

    def last_message(self, topic: str, but: MessageState | None = None) -> OutboxEntry | None:
        """The last one that was written; with `but` the last that has not come to this state."""
        ...

    def mark_sent(self, message_id: str, now: datetime) -> None: ...

    def mark_told(self, ids: Sequence[str]) -> int:
        """Ends the waiting of pending messages that a digest tells; returns how many did wait."""
        ...

    def mark_failed(self, message_id: str, error: str, retry_at: datetime | None) -> None:
        """Counts an attempt; `retry_at=None` declares the message dead."""
        ...

    # switches
    def hold_promotions(self, reason: str, now: datetime) -> None:
        """From now on every promotion needs a person's approval, until `release_promotions`."""
        ...

    def release_promotions(self) -> None: ...

    def promotions_held(self) -> str | None:
        """Why promotions need a person; None when they don't."""
        ...

    def pause(self, reason: str, now: datetime) -> None: ...

    def resume(self) -> None: ...

    def paused(self) -> str | None:
        """Reason why automatic retraining is paused; None when it is not."""
        ...


class Store(Protocol):
    def begin(self) -> AbstractContextManager[UnitOfWork]: ...


# --- model and registry ---------------------------------------------------------------------------


class Classifier(Protocol):
    """Gives each booking its probability of being cancelled."""

    @property
    def pipeline(self) -> Any:
        """The scikit-learn estimator behind it, as the registry keeps it."""
        ...

    @property
    def features(self) -> FeatureSet:
        """The columns that it looks at."""
        ...

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """`features` as `domain.features.build` makes them -> float64, shape (rows,), in [0, 1]."""
        ...


class Shifter(Protocol):
    """Moves the log odds of a fitted classifier by one number."""

    def shifted(self, model: Classifier, shift: float) -> Classifier: ...


class Trainer(Shifter, Protocol):
    """Fits a classifier by a recipe; `parameters` are recorded with each run."""

    def parameters(self, recipe: Recipe) -> Mapping[str, Any]: ...

    def fit(self, features: pd.DataFrame, examples: Sequence[Examples], recipe: Recipe, seed: int) -> Classifier:
        """`features` of a history's bookings, to whose rows the examples of each model point."""
        ...

    def importance(self, model: Classifier, features: pd.DataFrame, label: np.ndarray, seed: int) -> dict[str, float]:
        """Permutation importance by log loss, as shares that sum to 1 (never negative)."""
        ...


class Evaluator(Protocol):
    def evaluate(self, label: np.ndarray, probability: np.ndarray, groups: np.ndarray, seed: int) -> Evaluation:
        """Figures of the probabilities against final outcomes, with intervals that resample booking groups.

        One value per booking in each array: `label` 0 or 1, `groups` as `domain.reservation.group_keys`
        gives them. The same seed gives the same intervals. Raises `NotEnoughData` without a booking.
        """
        ...


@dataclass(frozen=True)
class Contestant:
    """A recipe in a backtest: how it was fitted, and how it did."""

    recipe: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Candidate:
    """Everything that becomes one registered version.

    `training`: every booking that the fit used, with its features and what was known of it then (columns
    `domain.labels.TOLD`); `recipe`, by its name, with the rule of labels makes the model of it again.
    """

    request_id: str
    model: Classifier
    as_of: date
    recipe: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    reasons: tuple[str, ...]
    training: pd.DataFrame
    reference: pd.DataFrame  # features of a seeded sample of the training bookings, with label
    importance: Mapping[str, float]
    tags: Mapping[str, str] = field(default_factory=dict)
    contest: tuple[Contestant, ...] = ()
    backtest: Classifier | None = None  # the model that the gate judged, fitted on what came before its test
    card: CardFacts | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """What a version is made with: the code by its digest (empty where nobody wrote it down), and packages."""

    code: str
    packages: Mapping[str, str]  # name -> version


class Registry(Protocol):
    """Versions of the one registered model, each with its reference sample."""

    def register(self, candidate: Candidate) -> VersionRecord:
        """One version per request: the same request again returns the version that it has."""
        ...

    def log_refusal(self, request_id: str, reasons: Sequence[str], contest: Sequence[Contestant]) -> None:
        """Keeps what a backtest found of recipes that became no version."""
        ...

    def training(self, version: str) -> pd.DataFrame:
        """What a version was made of, as its `Candidate` had it."""
        ...

    def parameters(self, version: str) -> dict[str, str]:
        """Parameters that a version was registered with, as text."""
        ...

    def environment(self, version: str | None = None) -> Environment:
        """What a version was made with; without one, what it would be made with now."""
        ...

    def digest(self, training: pd.DataFrame) -> str:
        """What a version of this training data has as `data_digest`."""
        ...

    def record(self, version: str) -> VersionRecord:
        """What the registry knows of a version, whoever registered it; raises `BadInput` when there is
        none, or when it does not say what it was trained on."""
        ...

    def load(self, version: str, *, fresh: bool = False) -> Classifier:
        """The version's model; `fresh` reads the artifact anew, whatever this process remembers."""
        ...

    def reference(self, version: str) -> pd.DataFrame: ...

    def importance(self, version: str) -> dict[str, float]: ...

    def aliases(self) -> dict[str, str]:
        """Alias -> version, as the registry has them now."""
        ...

    def set_alias(self, alias: str, version: str | None) -> None:
        """Points an alias at a version; None removes it."""
        ...

    def log_report(self, version: str, report_id: str, files: Sequence[Path]) -> None:
        """Keeps files beside the version under `reports/<report_id>/`."""
        ...

    def log_comparison(self, version: str, name: str, files: Sequence[Path]) -> None:
        """Keeps files beside the version under `comparisons/<name>/`, in place of those of the same name."""
        ...

    def version_address(self, version: str) -> str | None:
        """Address of the version's page for people, when a UI is configured."""
        ...

    def report_address(self, version: str, report_id: str) -> str | None: ...

    def report_page(self, version: str, report_id: str) -> bytes | None:
        """Evidently's page of a report, as `log_report` kept it; None where there is none."""
        ...


# --- monitor --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Observation:
    """What the monitor looks at: one window and what it is held against.

    `reference` and `current`: features of the reference, which `against` names, and of the window's
    bookings; `probability`: the champion's scores of the window's bookings. `matured_label` and
    `matured_probability`: outcomes that became final since the champion was trained, with its
    scores of those bookings, and `matured_groups` whose they are (`domain.reservation.group_keys`).
    `reference_probability`: its scores of the reference. `importance`: the champion's, by feature,
    summing to 1. `in_flight`: what has become so far of the bookings made since it was trained, empty
    where it is not known; `volume`: how many bookings came in. `calibration`: thresholds of the house's own,
    None while none were learned.
    """

    champion: str
    start: date
    end: date
    reference: pd.DataFrame
    current: pd.DataFrame
    probability: np.ndarray
    matured_label: np.ndarray
    matured_probability: np.ndarray
    importance: Mapping[str, float]
    in_flight: tuple[Slice, ...] = ()
    matured_groups: np.ndarray = field(default_factory=lambda: np.empty(0, dtype="uint64"))
    reference_probability: np.ndarray = field(default_factory=lambda: np.empty(0))
    volume: Volume | None = None
    calibration: Calibration | None = None
    against: str = MonitorReport.reference


class Measurement(Protocol):
    """The report of an observation, and on demand the page that Evidently draws of it."""

    @property
    def report(self) -> MonitorReport: ...

    def save_html(self, path: Path) -> Path | None:
        """Writes Evidently's page; None when there was nothing that it could evaluate."""
        ...


class Monitor(Protocol):
    def measure(self, observation: Observation) -> Measurement: ...


class Pictures(Protocol):
    def drift(self, current: StoredDecision, earlier: Sequence[StoredDecision]) -> bytes:
        """PNG of a report: which columns drifted and how much they weigh, signals over windows."""
        ...

    def overview(self, found: Overview) -> Mapping[str, bytes]:
        """PNGs of the report page by their places on it: `drift`, `columns`, `scores`, `losses`, `time_line`."""
        ...

    def trial(self, trial: Trial) -> bytes:
        """PNG of a trial's evidence: the gain per booking over maturity days, between its bounds."""
        ...

    def outlook(self, as_of: date, nights: pd.DataFrame, currency: str) -> bytes:
        """PNG of the coming nights, by hotel, `nights` as `domain.outlook.by_night` gives them."""
        ...

    def version(
        self,
        name: str,
        cohort: Cohort,
        probability: np.ndarray,
        evaluation: Evaluation,
        base_rate: float,
        importance: Mapping[str, float],
    ) -> bytes:
        """PNG of what a version is worth on a cohort that it was not fitted on: reliability, scores by
        outcome, log loss by maturity week beside the base rate's, importance of its features. `name` is
        shown as it is; `base_rate`: cancelled share of the bookings that it was fitted on."""
        ...

    def comparison(self, first: str, second: str, cohort: Cohort, theirs: np.ndarray, ours: np.ndarray) -> bytes:
        """PNG of two versions on the same bookings, `theirs` the first one's probabilities, `ours` the
        second's: reliability, log loss saved by week and by segment, and where they disagree."""
        ...


@dataclass(frozen=True)
class Overview:
    """A decided window in the history of its home: what the report page shows.

    `stored` is the window's report and decision, `observation` what was looked at, read again as known on its
    last day. `decisions` are all of the home, whatever champion they are about, oldest window first; `ledger`,
    `trials`, `requests` likewise; `checks` those of the days that failed in the window. `beside`: the window held
    against the references that did not decide.
    """

    stored: StoredDecision
    champion: VersionRecord
    observation: Observation
    decisions: tuple[StoredDecision, ...]
    ledger: tuple[LedgerRow, ...]
    trials: tuple[Trial, ...]
    requests: tuple[RetrainRequest, ...]
    checks: tuple[DayCheck, ...] = ()
    beside: tuple[MonitorReport, ...] = ()


# --- messages -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Letter:
    """A mail before it is written: a message, what it is about, its picture, addresses for links.

    `page` is Evidently's page of the decision (HTML), where it asked for a retrain. `told` are letters of the mails
    that a digest tells of, those kept for it and those that left by themselves.
    """

    message: Message
    decision: StoredDecision | None = None
    trial: Trial | None = None
    picture: bytes | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    page: bytes | None = None
    told: tuple[Letter, ...] = ()


class Mailer(Protocol):
    def send(self, letter: Letter) -> None:
        """Returns when the mail has been taken for every reader, at once where its kind has none.

        Raises `ServiceDown` when the server can't be reached or refuses for now."""
        ...


class Exports(Protocol):
    """Where tables go that others read. Each way replaces what it wrote before, whole or not at all."""

    def to_file(self, table: pd.DataFrame, path: Path) -> None:
        """Writes a `.csv` or `.parquet`; raises `BadInput` for any other name, or where it cannot."""
        ...

    def to_folder(
        self, tables: Mapping[str, pd.DataFrame], pictures: Mapping[str, bytes], folder: Path
    ) -> tuple[Path, ...]:
        """Makes a folder of one CSV for each table and the pictures, in place of the one that it made
        before; returns its files. Raises `BadInput` for a folder that holds anything else."""
        ...

    def to_database(self, tables: Mapping[str, pd.DataFrame], url: str) -> str:
        """Replaces the rows of tables of these names in one transaction, and makes those that are missing;
        returns the address without its password. Raises `BadInput` for a table of other columns or an
        address that cannot be used, `ServiceDown` for a database that does not answer."""
        ...


class Doorbell(Protocol):
    """The orchestrator, seen from here: it can be rung, and told to start a retrain."""

    def ring(self, message: Message) -> None:
        """Delivers an event with the message's id; raises `ServiceDown` when it can't."""
        ...

    def start_retrain(self, request_id: str, attempt: int) -> str:
        """Starts the retrain flow for a request, unless a run of this attempt is on its way already;
        returns the id of that one run."""
        ...
