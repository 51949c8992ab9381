"""The store: records as they are kept, and one transaction's worth of work on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cancellations.domain.aliases import AliasMove, Placement
from cancellations.domain.calibration import Calibration
from cancellations.domain.checks import DayCheck, Hold, HoldState, Past
from cancellations.domain.comparison import Arm
from cancellations.domain.events import Channel, Message
from cancellations.domain.guards import GuardFinding
from cancellations.domain.labels import Ending, LabelRule, Labels, unseen
from cancellations.domain.promotion import Change, LedgerRow, Standing, Trial, TrialState
from cancellations.domain.reservation import Column
from cancellations.domain.retraining import Decision, MonitorReport, RequestState, RetrainRequest


@dataclass(frozen=True)
class Upserted:
    """What a write of reservations did to each row."""

    loaded: int
    unchanged: int
    updated: int


@dataclass(frozen=True)
class Booked:
    """One booking as the store has it, as plain values: numbers as float with NaN for missing, texts and dates or None.

    `reservation`: its columns, with `group_size` and declared ones; `features`: those of its booking time as they
    were stored when it was scored first, None before. `hold_out`: whether it is held out from actions, as it was
    dealt, None before; `untouched`: it is open on the day that was asked for, and nobody has acted upon it by then.
    """

    reservation: Mapping[str, Any]
    features: Mapping[str, Any] | None
    hold_out: bool | None
    untouched: bool


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

    def add_booked(self, bookings: Sequence[Mapping[str, Any]]) -> int:
        """Writes bookings in the form of `Booked.reservation` whose id is new and comes once; what is there stays as
        it is. Returns how many were new."""
        ...

    def booked(self, reservation_ids: Sequence[str], as_of: date) -> dict[str, Booked]:
        """Bookings by their ids, as of a day; unknown ones are left out. For few of them: each is an object of its
        own."""
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

    def tallies(
        self,
        agents: Sequence[str],
        companies: Sequence[str],
        before: date,
        *,
        everyone: bool = True,
        since: date | None = None,
        earlier: bool = True,
    ) -> pd.DataFrame:
        """Bookings arriving before a day, counted as `domain.features.tally` does: all of them (of `everyone`), and
        those of the agents and companies that are named. What arrived before `since` stands on the day before it, or
        is left out unless `earlier`."""
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

    def books(self, arriving: tuple[date, date], since: date, before: date, *, earlier: bool = True) -> pd.DataFrame:
        """`domain.features.books` of bookings that arrive on the first to the last day of `arriving`: what was booked
        or cancelled before a day. Moves before `since` stand on the day before it, or are left out unless `earlier`."""
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

    def add_built(self, features: Mapping[str, Mapping[str, Any]], now: datetime) -> int:
        """The same of features in the form of `Booked.features`, by reservation_id."""
        ...

    def unscored_days(
        self,
        version: str,
        booked_after: date | None,
        booked_until: date,
        ending: Ending | None = None,
        *,
        held: bool = False,
    ) -> pd.Series:
        """How many reservations `unscored` would give, by day of booking (`datetime64`, ascending); with `held`
        those too that are held back."""
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
        `ending` only those that do so. Those without features of a day that is held are left out."""
        ...

    def unscored_features(
        self,
        version: str,
        booked_after: date | None,
        booked_until: date,
        after: tuple[date, str] | None,
        limit: int,
        ending: Ending | None = None,
    ) -> pd.DataFrame | None:
        """The page that `unscored` gives, with `reservation_id`, `booked_on` and the features that are stored of
        each; None when one of them has none."""
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

    def dealt(self, trial_id: str) -> pd.DataFrame:
        """Bookings of a trial, indexed by reservation_id: the `arm` that each was dealt, and `served`, the arm whose
        score it was served last in that trial (missing: none)."""
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
        outside of trials), `epoch`, `served_at`, `hold_out` (bool: nobody acts upon it)."""
        ...

    # actions, and the bookings that are held out from them
    def record_actions(self, actions: pd.DataFrame, load: int | None = None) -> Upserted:
        """Writes `reservation_id`, `action_taken`, `acted_on`, in place of what was told of a booking before."""
        ...

    def first_action(self, known_until: date) -> date | None:
        """The first day on which somebody acted upon a booking, of those up to `known_until`."""
        ...

    def actions_on_record(self, known_until: date) -> int:
        """Bookings that somebody had acted upon by a day."""
        ...

    def acted(self, reservation_ids: pd.Series, known_until: date) -> np.ndarray:
        """Which of the bookings somebody had acted upon by a day, bool, one for each id."""
        ...

    def held_out(self, reservation_ids: pd.Series) -> np.ndarray:
        """Which of the bookings were dealt into the hold-out, bool, one for each id."""
        ...

    def has_hold_out(self, until: date) -> bool:
        """Whether any booking had been dealt into it by a day."""
        ...

    def undealt(self, as_of: date) -> pd.DataFrame:
        """Bookings open on a day that were not dealt yet, in or out: `reservation_id` and the columns of
        `domain.reservation.GROUP`."""
        ...

    def deal(self, reservation_ids: pd.Series, held_out: np.ndarray, as_of: date) -> int:
        """Writes which bookings are held out (bool, one for each id); those that were dealt before stay as they are.
        Returns how many were new."""
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

    # days held back from scoring
    def add_hold(self, hold: Hold, now: datetime) -> bool:
        """From now on no booking of the day without features is scored; False when the day is held already."""
        ...

    def note_hold(self, hold: Hold) -> bool:
        """Writes what was found of a day that is held when it was checked again; False when it is not held."""
        ...

    def end_hold(self, day: date, state: HoldState, by: str, reason: str, now: datetime) -> bool:
        """False when the day is not held."""
        ...

    def holds(self, *states: HoldState, since: date | None = None) -> list[Hold]:
        """In order of writing, of days from `since` on; all states when none is named."""
        ...

    def keep_past(self, day: date, past: Past, now: datetime) -> None:
        """Keeps what the checks of a day go by; that of the last few days alone stays."""
        ...

    def past(self, day: date) -> Past | None: ...

    def forget_pasts(self) -> None:
        """What was learned is learned anew: the days that it was learned from look otherwise now."""
        ...

    # requests and leases
    def add_calibration(self, calibration: Calibration, now: datetime) -> None: ...

    def calibration(self, until: date) -> Calibration | None:
        """The last one that was added, of those as of a day or earlier."""
        ...

    def hold_requests(self) -> None:
        """Until this transaction ends nobody else writes a request; what is read from now on stays true."""
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

    # the registry's aliases
    def placements(self) -> list[Placement]:
        """The placement of aliases that was finished last, and those that were not."""
        ...

    def begin_placement(self, epoch: int, now: datetime) -> int:
        """Its number."""
        ...

    def finish_placement(self, number: int, now: datetime) -> None:
        """Aliases are where the placement's epoch has them. Older ones are forgotten; of those that were not
        finished the ones that nobody can be at any more."""
        ...

    def drop_placement(self, number: int) -> None:
        """It has moved nothing, and will not."""
        ...

    def add_alias_move(self, move: AliasMove) -> None:
        """The same move again in the same epoch is counted."""
        ...

    def alias_moves(self) -> list[AliasMove]:
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

    def add_guards(self, trial_id: str, findings: Sequence[GuardFinding], as_of: date, now: datetime) -> bool:
        """Writes what the guards of a probation found, once; False when it is there, and nothing is changed then."""
        ...

    def guards(self, trial_id: str) -> tuple[GuardFinding, ...] | None:
        """None while they have not looked."""
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

    # retention
    def retired_scores(self, serving: Collection[str], ending: Ending) -> int:
        """Predictions by versions other than these of the bookings that end so."""
        ...

    def drop_scores(self, serving: Collection[str], ending: Ending, limit: int) -> int:
        """Takes away so many of them at most, and what was served of them; returns how many."""
        ...

    def old_mails(self, before: datetime) -> int:
        """Mails that were written before, wait for nothing, and that no digest to come looks at."""
        ...

    def drop_mails(self, before: datetime) -> int:
        """Takes them away; returns how many."""
        ...

    def reports_until(self, window_end: date) -> list[tuple[str, str]]:
        """Champion and report id of the windows that ended by then, oldest first."""
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
