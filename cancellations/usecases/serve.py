"""Answers while somebody waits: who scores a booking now, by what is known of it now, and what is kept of it.

The same as a batch would score: versions and arms by the ledger, features as they were stored when a booking was
scored first, else as they can be known on its day; whoever scores first fixes them. An answer is given before it is
recorded; recording it twice, or after a batch was faster, changes nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd

from cancellations.domain.comparison import Arm, arm
from cancellations.domain.features import CORE, FeatureSet
from cancellations.domain.labels import LabelRule, matures_on
from cancellations.domain.lookup import Booking, Lookup
from cancellations.domain.promotion import Kind, LedgerRow, Standing, Trial
from cancellations.domain.reservation import COLUMNS, GROUP, GROUP_SIZE, Column
from cancellations.errors import BadInput, CancellationsError, Refused
from cancellations.ports import Booked, Load, Reason, RowClassifier, Store, UnitOfWork, VersionRecord
from cancellations.usecases.point_in_time import remember

# Bookings made so long before the oldest one that was asked for are looked up without reading the books anew.
MARGIN = timedelta(days=31)
# Loads whose progress tells that the past has changed.
LOADS = 20
# Agents, companies and months that a past is remembered of; beyond, whoever asks about invented ones fills memory.
MOST_KEYS = 20_000


# --- who answers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """A version that was loaded from its artifact and has scored its reference sample."""

    record: VersionRecord
    model: RowClassifier

    @property
    def version(self) -> str:
        return self.record.version


@dataclass(frozen=True)
class Serving:
    """Who answers: the champion of an epoch, and while a trial runs its rival for a share of the bookings.

    `problems`: what the ledger names and cannot be served, a sentence each.
    """

    epoch: int
    champion: Loaded
    trial: Trial | None = None
    rival: Loaded | None = None
    problems: tuple[str, ...] = ()

    def of(self, reservation_id: str) -> tuple[Loaded, Arm | None]:
        """Who answers for a booking, and its arm; as `usecases.score.serve` deals them."""
        if self.trial is None:
            return self.champion, None
        dealt = arm(self.trial.trial_id, reservation_id, self.trial.serve_share)
        if dealt is Arm.RIVAL and self.rival is not None:
            return self.rival, dealt
        return self.champion, Arm.CHAMPION

    @property
    def loaded(self) -> dict[str, Loaded]:
        return {one.version: one for one in (self.champion, self.rival) if one is not None}


# Loads a version from its artifact, fresh; raises a `CancellationsError` when it cannot serve.
Loader = Callable[[VersionRecord], RowClassifier]


def follow(store: Store, load: Loader, present: Serving | None) -> Serving:
    """Who should answer by the ledger: the present serving while nothing has changed, else a new one, loaded whole.

    A champion that cannot be loaded is refused, and the caller goes on with the one that it has; a rival that
    cannot be loaded leaves its bookings to the champion. Raises `Refused` without a champion, whatever `load`
    raises, and `ServiceDown`.
    """
    with store.begin() as work:
        standing, trial = work.standing(), _tried(work)
        named = [standing.champion, trial.rival if trial else None]
        records = {v: work.version(v) for v in named if v is not None}
    if standing.champion is None:
        raise Refused("there is no champion yet; train the first one: cancellations retrain")
    told = None if trial is None else trial.trial_id
    known = {} if present is None else present.loaded
    if present is not None and not present.problems and _pair(present) == (standing.epoch, told):
        return present

    def loaded(version: str) -> Loaded:
        record = records[version]
        if record is None:
            raise BadInput(f"the ledger does not know version {version}")
        return known.get(version) or Loaded(record, load(record))

    champion = loaded(standing.champion)
    if trial is None or trial.serve_share == 0:
        return Serving(standing.epoch, champion, trial)
    try:
        return Serving(standing.epoch, champion, trial, loaded(trial.rival))
    except CancellationsError as error:
        problem = (
            f"challenger {trial.rival} is not served, champion {champion.version} answers for its bookings: {error}"
        )
        return Serving(standing.epoch, champion, trial, None, (problem,))


def _pair(serving: Serving) -> tuple[int, str | None]:
    return serving.epoch, None if serving.trial is None else serving.trial.trial_id


def _tried(work: UnitOfWork) -> Trial | None:
    """The trial that deals arms; one of an earlier epoch compares a pair that is no more."""
    trial, standing = work.open_trial(), work.standing()
    return trial if trial is not None and trial.kind is Kind.TRIAL and trial.epoch == standing.epoch else None


@dataclass(frozen=True)
class Champion:
    """Who is champion and why: the row of the ledger that made it so, and the trial or probation that runs."""

    standing: Standing
    record: VersionRecord
    since: LedgerRow | None
    trial: Trial | None


def champion(store: Store) -> Champion:
    """Raises `Refused` when there is none."""
    with store.begin() as work:
        standing, ledger, trial = work.standing(), work.ledger(), work.open_trial()
        record = None if standing.champion is None else work.version(standing.champion)
    if record is None:
        raise Refused("there is no champion yet; train the first one: cancellations retrain")
    since = None
    for row, before in zip(ledger, [None, *ledger], strict=False):
        if row.champion == record.version and (before is None or before.champion != record.version):
            since = row
    return Champion(standing, record, since, trial)


# --- answers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """Bookings that somebody asks about together, each by its canonical and declared columns, as plain values.

    No id comes twice. Without `record` they are scored as they are told, whatever is stored of them, and nothing is
    kept. `reasons`: how many of each are wanted.
    """

    bookings: tuple[Booking, ...]
    record: bool = True
    reasons: int = 0


@dataclass(frozen=True)
class Answer:
    """`stored`: whether it rests on what the store has of the booking, and not on what was told of it now;
    `recorded`: whether it is recorded, or will be."""

    reservation_id: str
    probability: float
    version: str
    arm: Arm | None
    stored: bool
    recorded: bool
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Note:
    """An answer that is to be recorded. `booking`: where the store did not know it; `built`: whether its features
    were built for the answer, and are to be stored too."""

    reservation_id: str
    booking: Booking | None
    features: Mapping[str, Any]
    built: bool
    by: Loaded
    probability: float


@dataclass
class _Known:
    """Features of a booking that are stored, or will be, and the versions whose answers are."""

    features: Mapping[str, Any]
    versions: set[str] = field(default_factory=set)


class _Row(NamedTuple):
    """A booking that is answered for: what counts of it, and where that comes from."""

    booking: Booking
    features: Mapping[str, Any]
    stored: bool  # the store has the booking, or will have it
    built: bool  # the features are not stored


class Desk:
    """Answers, from the store and from what it remembers of it; `answer` is for one thread.

    It remembers the features of the last `remembered` bookings, which never change once they are stored, and the
    past of agents, companies and months that were asked for. `refresh` reads that anew when a load has moved on, and
    at the latest after `history_age`.
    """

    def __init__(
        self,
        store: Store,
        rule: LabelRule,
        *,
        clock: Callable[[], datetime],
        history_age: timedelta,
        remembered: int = 50_000,
    ) -> None:
        self._store, self._rule, self._clock = store, rule, clock
        self._history_age, self._remembered = history_age, remembered
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()  # of what is known: whoever records corrects it
        self._lookup: Lookup | None = None
        self._extras: tuple[Column, ...] = ()
        self._read_at = clock()
        self._seen: list[Load] = []

    def answer(self, serving: Serving, asked: Sequence[Asked]) -> tuple[list[list[Answer]], list[Note]]:
        """Answers for each group of bookings, and what of them is to be recorded; raises `ServiceDown`."""
        found = self._rows(asked)
        by = [serving.of(row.booking["reservation_id"]) for rows in found for row in rows]
        probability = iter(_predict([loaded for loaded, _ in by], [row.features for rows in found for row in rows]))
        dealt = iter(by)
        answers: list[list[Answer]] = []
        notes: list[Note] = []
        for one, rows in zip(asked, found, strict=True):
            told = []
            for row in rows:
                (loaded, its_arm), p = next(dealt), next(probability)
                reservation_id = row.booking["reservation_id"]
                # An older booking may be one that the version has learnt from: its score would prove nothing.
                counts = one.record and matures_on(row.booking, self._rule) > loaded.record.trained_as_of
                if counts and self._is_new(reservation_id, row.features, loaded.version):
                    new = None if row.stored else row.booking
                    notes.append(Note(reservation_id, new, row.features, row.built, loaded, p))
                reasons = loaded.model.reasons(row.features, one.reasons) if one.reasons else ()
                told.append(Answer(reservation_id, p, loaded.version, its_arm, row.stored, counts, reasons))
            answers.append(told)
        return answers, notes

    def _rows(self, asked: Sequence[Asked]) -> list[list[_Row]]:
        with self._lock:
            known = {i: k.features for i in _recorded_ids(asked) if (k := self._known.get(i)) is not None}
        unknown = [i for i in dict.fromkeys(_recorded_ids(asked)) if i not in known]
        drafts = [[_draft(booking, one, known) for booking in _sized(one.bookings)] for one in asked]
        if not unknown and all(features is not None for rows in drafts for _, features in rows):
            return [[_Row(booking, features or {}, True, False) for booking, features in rows] for rows in drafts]
        with self._store.begin() as work:
            stored = work.booked(unknown) if unknown else {}
            drafts = [
                [_as_stored(draft, one, stored) if draft[1] is None else draft for draft in rows]
                for one, rows in zip(asked, drafts, strict=True)
            ]
            bare = [booking for rows in drafts for booking, features in rows if features is None]
            lookup = self._past(work, bare) if bare else None
        return [
            [
                _Row(
                    booking,
                    lookup.features(booking, self._extras)
                    if features is None and lookup is not None
                    else features or {},
                    one.record and (booking["reservation_id"] in known or booking["reservation_id"] in stored),
                    features is None,
                )
                for booking, features in rows
            ]
            for one, rows in zip(asked, drafts, strict=True)
        ]

    def _past(self, work: UnitOfWork, bookings: Sequence[Booking]) -> Lookup:
        oldest = min(booking["booked_on"] for booking in bookings)
        if self._lookup is None or oldest < self._lookup.since or len(self._lookup) > MOST_KEYS:
            self._lookup, self._extras = Lookup(self._rule, oldest - MARGIN), work.extra_columns()
            self._read_at, self._seen = self._clock(), work.loads(LOADS)
        lacking = self._lookup.lacking(bookings)
        if lacking.size:
            remember(work, self._lookup, lacking)
        return self._lookup

    def _is_new(self, reservation_id: str, features: Mapping[str, Any], version: str) -> bool:
        """Whether a version's answer about a booking is to be recorded; from now on it is no more."""
        with self._lock:
            known = self._known.setdefault(reservation_id, _Known(features))
            self._known.move_to_end(reservation_id)
            if len(self._known) > self._remembered:
                self._known.popitem(last=False)
            new = version not in known.versions
            known.versions.add(version)
        return new

    def correct(self, features: Mapping[str, Mapping[str, Any]]) -> None:
        """Somebody else was faster with the features of these bookings, and what is stored is what counts."""
        with self._lock:
            for reservation_id in features.keys() & self._known.keys():
                self._known[reservation_id].features = features[reservation_id]

    def forget(self, notes: Iterable[Note]) -> None:
        """These were not recorded after all."""
        with self._lock:
            for note in notes:
                self._known.pop(note.reservation_id, None)

    def refresh(self) -> bool:
        """Reads the past anew that it remembers, if it may have changed; until it has, answers go by the old one."""
        present = self._lookup
        if present is None:
            return False
        with self._store.begin() as work:
            loads, read_at = work.loads(LOADS), self._clock()
            if loads == self._seen and read_at - self._read_at < self._history_age:
                return False
            fresh, extras = Lookup(self._rule, present.since), work.extra_columns()
            remember(work, fresh, present.held)
        self._lookup, self._extras, self._read_at, self._seen = fresh, extras, read_at, loads
        return True

    @property
    def history_read_at(self) -> datetime:
        """When the past that it remembers was read from the store."""
        return self._read_at


def _recorded_ids(asked: Sequence[Asked]) -> list[str]:
    return [booking["reservation_id"] for one in asked if one.record for booking in one.bookings]


def _sized(bookings: Sequence[Booking]) -> list[Booking]:
    """Bookings with the size of their group: of those that come together, as a load counts them."""
    groups = Counter(_group(booking) for booking in bookings)
    return [{**booking, GROUP_SIZE: float(groups[_group(booking)])} for booking in bookings]


def _group(booking: Booking) -> tuple[Any, ...]:
    return tuple(booking[name] for name in GROUP)


def _draft(
    booking: Booking, asked: Asked, known: Mapping[str, Mapping[str, Any]]
) -> tuple[Booking, Mapping[str, Any] | None]:
    return booking, known.get(booking["reservation_id"]) if asked.record else None


def _as_stored(
    draft: tuple[Booking, Mapping[str, Any] | None], asked: Asked, stored: Mapping[str, Booked]
) -> tuple[Booking, Mapping[str, Any] | None]:
    found = stored.get(draft[0]["reservation_id"]) if asked.record else None
    return draft if found is None else (found.reservation, found.features)


def _predict(by: Sequence[Loaded], features: Sequence[Mapping[str, Any]]) -> list[float]:
    """Each booking's probability by its version; all of a version at once."""
    probability = [0.0] * len(by)
    for version in {loaded.version for loaded in by}:
        places = [place for place, loaded in enumerate(by) if loaded.version == version]
        found = by[places[0]].model.predict([features[place] for place in places])
        for place, p in zip(places, found.tolist(), strict=True):
            probability[place] = p
    return probability


# --- what is kept of them --------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """Predictions that were new, and the features that count of bookings where somebody else was faster."""

    written: int
    overtaken: Mapping[str, Mapping[str, Any]]


def record(store: Store, notes: Sequence[Note], *, as_of: date, now: datetime) -> Recorded:
    """Writes answers as a batch would have: bookings that are new, features where none are stored, predictions.

    One transaction. What is there stays: to repeat it changes nothing. Raises `ServiceDown`, and `BadInput` for what
    the database does not take.
    """
    overtaken: dict[str, Mapping[str, Any]] = {}
    with store.begin() as work:
        extras = work.extra_columns()
        new = {note.reservation_id: note.booking for note in notes if note.booking is not None}
        if new:
            work.add_reservations(_reservations(list(new.values()), extras))
        built = {note.reservation_id: note.features for note in notes if note.built}
        if built and work.add_features(_features(built, extras), now) < len(built):
            stored = work.booked(list(built))
            overtaken = {
                i: kept.features
                for i, kept in stored.items()
                if kept.features is not None and not _equal(kept.features, built[i])
            }
        written = 0
        for version in sorted({note.by.version for note in notes}):
            own = {note.reservation_id: note for note in notes if note.by.version == version}
            rows = pd.DataFrame(
                {"reservation_id": list(own), "probability": [_counting(note, overtaken) for note in own.values()]}
            )
            written += work.add_predictions(version, rows, as_of, now)
        work.commit()
    return Recorded(written, overtaken)


def _counting(note: Note, overtaken: Mapping[str, Mapping[str, Any]]) -> float:
    """The probability by the features that are stored."""
    other = overtaken.get(note.reservation_id)
    return note.probability if other is None else float(note.by.model.predict([other])[0])


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def same(a: Any, b: Any) -> bool:
        return bool(a == b or (a != a and b != b))

    return all(same(one[name], other.get(name)) for name in CORE.names)


def _reservations(bookings: Sequence[Booking], extras: Sequence[Column]) -> pd.DataFrame:
    """Bookings as `domain.reservation.coerce` has them, with their group size."""
    columns: dict[str, pd.Series] = {}
    for column in (*COLUMNS, *extras):
        values = [booking.get(column.name) for booking in bookings]
        if column.kind == "date":
            columns[column.name] = pd.Series(pd.to_datetime(pd.Series(values)).astype("datetime64[us]"))
        elif column.kind in ("count", "number"):
            columns[column.name] = pd.Series(values, dtype="float64")
        else:
            columns[column.name] = pd.Series(values, dtype="str")
    columns[GROUP_SIZE] = pd.Series([booking[GROUP_SIZE] for booking in bookings], dtype="float64")
    return pd.DataFrame(columns)


def _features(built: Mapping[str, Mapping[str, Any]], extras: Sequence[Column]) -> pd.DataFrame:
    """Features as `domain.features.build` gives them, indexed by reservation_id."""
    names: FeatureSet = CORE.extended(extras)
    rows = list(built.values())
    columns = {name: pd.Series([row.get(name) for row in rows], dtype="float64") for name in names.numeric}
    texts = {name: pd.Series([row.get(name) for row in rows], dtype="str") for name in names.categorical}
    return pd.DataFrame(columns | texts).set_axis(pd.Index(list(built), name="reservation_id"))
