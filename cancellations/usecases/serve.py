"""Answers while somebody waits: who scores a booking now, by what is known of it now, and what is kept of it.

The same as a batch would score: versions and arms by the ledger, features as they were stored when a booking was
scored first, else as they can be known on its day; whoever scores first fixes them. An answer is given before it is
recorded; recording it twice, or after a batch was faster, changes nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cancellations.domain.checks import HoldState
from cancellations.domain.comparison import Arm, arm
from cancellations.domain.features import CORE
from cancellations.domain.hold_out import dealt_out
from cancellations.domain.labels import LabelRule, matures_on
from cancellations.domain.lookup import Booking, Lacking, Lookup
from cancellations.domain.promotion import Kind, LedgerRow, Standing, Trial
from cancellations.domain.reservation import COLUMNS, GROUP, GROUP_SIZE, Column
from cancellations.errors import BadInput, CancellationsError, Refused
from cancellations.ports import Booked, Load, Reason, RowClassifier, Store, UnitOfWork, VersionRecord
from cancellations.usecases.point_in_time import remember

# Bookings made so long before the oldest one that was asked for are looked up without reading the books anew.
MARGIN = timedelta(days=31)
# Bookings are made a year ahead at most, but for few.
MONTHS_AHEAD = 12
# Loads whose progress tells that the past has changed.
LOADS = 20
# Agents, companies and months that a past is remembered of; beyond, whoever asks about invented ones fills memory.
MOST_KEYS = 20_000
# Answers of so many versions may wait to be recorded; the ledger does not move on while nothing can be written.
MOST_VERSIONS = 8


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

    `held`: days whose bookings fail their checks, and are not recorded unless they were scored before, as in a
    batch. `problems`: what the ledger names and cannot be served, a sentence each.
    """

    epoch: int
    champion: Loaded
    trial: Trial | None = None
    rival: Loaded | None = None
    held: frozenset[date] = frozenset()
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

    Of a champion that cannot be loaded the present one takes the place, alone once its trial is over; a rival that
    cannot be loaded leaves its bookings to the champion. `problems` tells both, and the next call tries again. Raises
    `Refused` without a champion, what `load` raises where nobody serves yet, and `ServiceDown`.
    """
    with store.begin() as work:
        standing, trial = work.standing(), _tried(work)
        named = [standing.champion, trial.rival if trial else None]
        records = {v: work.version(v) for v in named if v is not None}
        held = frozenset(hold.day for hold in work.holds(HoldState.HELD))
    if standing.champion is None:
        raise Refused("there is no champion yet; train the first one: cancellations retrain")
    told = None if trial is None else trial.trial_id
    known = {} if present is None else present.loaded
    if present is not None and not present.problems and _pair(present) == (standing.epoch, told):
        return present if present.held == held else replace(present, held=held)

    def loaded(version: str) -> Loaded:
        record = records[version]
        if record is None:
            raise BadInput(f"the ledger does not know version {version}")
        return known.get(version) or Loaded(record, load(record))

    made = _made(standing.epoch, standing.champion, trial, held, loaded, present)
    return present if present is not None and made == present else made


def _made(
    epoch: int,
    named: str,
    trial: Trial | None,
    held: frozenset[date],
    loaded: Callable[[str], Loaded],
    present: Serving | None,
) -> Serving:
    try:
        champion = loaded(named)
    except CancellationsError as error:
        if present is None:
            raise
        problem = f"champion {named} is not served, {present.champion.version} stays: {error}"
        over = present.trial is not None and (trial is None or trial.trial_id != present.trial.trial_id)
        stays = replace(present, trial=None, rival=None) if over else present
        return replace(stays, held=held, problems=(problem,))
    if trial is None or trial.serve_share == 0:
        return Serving(epoch, champion, trial, held=held)
    try:
        return Serving(epoch, champion, trial, loaded(trial.rival), held)
    except CancellationsError as error:
        problem = (
            f"challenger {trial.rival} is not served, champion {champion.version} answers for its bookings: {error}"
        )
        return Serving(epoch, champion, trial, None, held, (problem,))


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


class Answer(NamedTuple):
    """`hold_out`: nobody is to act upon the booking; `stored`: whether it rests on what the store has of the booking,
    and not on what was told of it now; `recorded`: whether it is recorded, or will be."""

    reservation_id: str
    probability: float
    version: str
    arm: Arm | None
    hold_out: bool
    stored: bool
    recorded: bool
    reasons: tuple[Reason, ...] = ()


class Note(NamedTuple):
    """An answer that is to be recorded. `booking`: where the store did not know it; `built`: whether its features
    were built for the answer, and are to be stored too; `hold_out`: what it was dealt with the answer, None where it
    was not dealt."""

    reservation_id: str
    booking: Booking | None
    features: Mapping[str, Any]
    built: bool
    version: str
    probability: float
    hold_out: bool | None


@dataclass(slots=True)
class _Known:
    """Features of a booking that are stored, or will be, whether it is held out, and the versions whose answers are."""

    features: Mapping[str, Any]
    hold_out: bool
    versions: tuple[str, ...] = ()


class _Row(NamedTuple):
    """A booking that is answered for: what counts of it, and where that comes from."""

    booking: Booking
    features: Mapping[str, Any]
    stored: bool  # the store has the booking, or will have it
    built: bool  # the features are not stored
    record: bool
    deal: _Deal


class _Deal(NamedTuple):
    hold_out: bool
    new: bool  # and to be written with the answer


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
        today: Callable[[], date],
        history_age: timedelta,
        hold_out: float = 0.0,
        remembered: int = 50_000,
    ) -> None:
        self._store, self._rule, self._clock, self._today = store, rule, clock, today
        self._history_age, self._hold_out, self._remembered = history_age, hold_out, remembered
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()  # of what is known: whoever records corrects it
        self._answering: OrderedDict[str, Loaded] = OrderedDict()  # whose notes may still have to be corrected
        self._lookup: Lookup | None = None
        self._extras: tuple[Column, ...] = ()
        self._read_at = clock()
        self._seen: list[Load] = []

    def answer(self, serving: Serving, asked: Sequence[Asked]) -> tuple[list[list[Answer]], list[Note]]:
        """Answers for each group of bookings, and what of them is to be recorded; raises `ServiceDown`."""
        for version, loaded in serving.loaded.items():
            self._answering[version] = loaded
            self._answering.move_to_end(version)
        while len(self._answering) > MOST_VERSIONS:
            self._answering.popitem(last=False)
        rows = self._rows([(booking, one.record) for one in asked for booking in _sized(one.bookings)])
        by = [serving.of(row.booking["reservation_id"]) for row in rows]
        # An older booking may be one that the version has learnt from: its score would prove nothing.
        counts = [
            row.record
            and matures_on(row.booking, self._rule) > loaded.record.trained_as_of
            and not (row.built and row.booking["booked_on"] in serving.held)
            for row, (loaded, _) in zip(rows, by, strict=True)
        ]
        rows = _agreeing(rows, counts)
        probability = _predict([loaded for loaded, _ in by], [row.features for row in rows])
        notes = self._new(rows, [loaded.version for loaded, _ in by], probability, counts)
        wanted = [one.reasons for one in asked for _ in one.bookings]
        told = iter(
            [
                Answer(
                    row.booking["reservation_id"],
                    p,
                    loaded.version,
                    its_arm,
                    row.deal.hold_out,
                    row.stored,
                    recorded,
                    loaded.model.reasons(row.features, reasons) if reasons else (),
                )
                for row, (loaded, its_arm), p, recorded, reasons in zip(
                    rows, by, probability, counts, wanted, strict=True
                )
            ]
        )
        return [list(islice(told, len(one.bookings))) for one in asked], notes

    def _rows(self, bookings: Sequence[tuple[Booking, bool]]) -> list[_Row]:
        """What counts of each booking, which is to be recorded or not."""
        known = self._known
        features = [known.get(b["reservation_id"]) if record else None for b, record in bookings]
        rows = [
            None if kept is None else _Row(booking, kept.features, True, False, record, _Deal(kept.hold_out, False))
            for (booking, record), kept in zip(bookings, features, strict=True)
        ]
        bare = [place for place, row in enumerate(rows) if row is None]
        if bare:
            today = self._today()
            with self._store.begin() as work:
                stored = work.booked([bookings[place][0]["reservation_id"] for place in bare], today)
                deals = self._deals([bookings[place][0] for place in bare], stored, today)
                building = []
                for place, deal in zip(bare, deals, strict=True):
                    booking, record = bookings[place]
                    kept = stored.get(booking["reservation_id"]) if record else None
                    if kept is not None and kept.features is not None:
                        rows[place] = _Row(kept.reservation, kept.features, True, False, record, deal)
                    else:
                        building.append((place, booking if kept is None else kept.reservation, kept is not None, deal))
                lookup = self._past(work, [booking for _, booking, _, _ in building]) if building else None
            for place, booking, there, deal in building:
                assert lookup is not None
                record = bookings[place][1]
                rows[place] = _Row(booking, lookup.features(booking, self._extras), there, True, record, deal)
        return [row for row in rows if row is not None]

    def _deals(self, bookings: Sequence[Booking], stored: Mapping[str, Booked], today: date) -> list[_Deal]:
        """Which bookings are held out: as they were dealt, else as `usecases.score.serve` would deal them."""
        deals = []
        for booking in bookings:
            kept = stored.get(booking["reservation_id"])
            if kept is None:
                free = booking["booked_on"] <= today <= booking["arrival_on"]
            else:
                free = kept.untouched and kept.hold_out is None
            deals.append(_Deal(kept is not None and bool(kept.hold_out), free and self._hold_out > 0))
        if any(deal.new for deal in deals):
            known = (stored.get(booking["reservation_id"]) for booking in bookings)
            told = [b if kept is None else kept.reservation for b, kept in zip(bookings, known, strict=True)]
            coins = dealt_out(_frame(told, _GROUP), self._hold_out).tolist()
            deals = [_Deal(coin, True) if deal.new else deal for deal, coin in zip(deals, coins, strict=True)]
        return deals

    def _new(
        self, rows: Sequence[_Row], versions: Sequence[str], probability: Sequence[float], counts: Sequence[bool]
    ) -> list[Note]:
        """Notes of the answers that are to be recorded; from now on they are no more."""
        notes = []
        with self._lock:
            for row, version, p, counted in zip(rows, versions, probability, counts, strict=True):
                if not counted:
                    continue
                reservation_id = row.booking["reservation_id"]
                known = self._known.get(reservation_id)
                if known is None:
                    known = self._known[reservation_id] = _Known(row.features, row.deal.hold_out)
                else:
                    self._known.move_to_end(reservation_id)
                if version not in known.versions:
                    known.versions += (version,)
                    new = None if row.stored else row.booking
                    dealt = row.deal.hold_out if row.deal.new else None
                    notes.append(Note(reservation_id, new, row.features, row.built, version, p, dealt))
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)
        return notes

    def _past(self, work: UnitOfWork, bookings: Sequence[Booking]) -> Lookup:
        oldest = min(booking["booked_on"] for booking in bookings)
        # This one to the end: `refresh` may put another in its place meanwhile, which lacks what is read here.
        lookup = self._lookup
        if lookup is None or oldest < lookup.since or len(lookup) > MOST_KEYS:
            lookup, self._extras = Lookup(self._rule, oldest - MARGIN), work.extra_columns()
            self._lookup, self._read_at, self._seen = lookup, self._clock(), work.loads(LOADS)
        lacking = lookup.lacking(bookings)
        if lacking.size:
            remember(work, lookup, lacking)
        return lookup

    def prepare(self) -> None:
        """Reads what nearly every booking of today needs, before somebody waits for it: the record of all bookings
        together, and the books of the months in which bookings arrive."""
        today = self._today()
        first = 12 * today.year + today.month - 1
        months = frozenset((n // 12, n % 12 + 1) for n in range(first, first + MONTHS_AHEAD + 1))
        with self._store.begin() as work:
            lookup, self._extras = Lookup(self._rule, today - MARGIN), work.extra_columns()
            self._read_at, self._seen = self._clock(), work.loads(LOADS)
            remember(work, lookup, Lacking(everyone=True, months=months))
        self._lookup = lookup

    def correct(self, notes: Iterable[Note], features: Mapping[str, Mapping[str, Any]]) -> list[Note]:
        """Somebody else was faster with the features of these bookings, and what is stored is what counts: the notes
        that they change, as they are to be recorded."""
        with self._lock:
            for reservation_id in features.keys() & self._known.keys():
                self._known[reservation_id].features = features[reservation_id]
        corrected = []
        for note in notes:
            if (stored := features.get(note.reservation_id)) is not None:
                probability = float(self._answering[note.version].model.predict([stored])[0])
                corrected.append(note._replace(booking=None, features=stored, built=False, probability=probability))
        return corrected

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


_group = itemgetter(*GROUP)
_GROUP = tuple(column for column in COLUMNS if column.name in GROUP)


def _sized(bookings: Sequence[Booking]) -> list[Booking]:
    """Bookings with the size of their group: of those that come together, as a load counts them."""
    groups = [_group(booking) for booking in bookings]
    sizes = Counter(groups)
    return [{**booking, GROUP_SIZE: float(sizes[own])} for booking, own in zip(bookings, groups, strict=True)]


def _agreeing(rows: list[_Row], counts: Sequence[bool]) -> list[_Row]:
    """The rows, with what the first one says of a booking in the place of what others say that ask about it at the
    same time, where it is recorded."""
    if len({row.booking["reservation_id"] for row in rows}) == len(rows):
        return rows
    first: dict[str, _Row] = {}
    agreeing = []
    for row, counted in zip(rows, counts, strict=True):
        told = first.setdefault(row.booking["reservation_id"], row) if counted else row
        agreeing.append(row if told is row else told._replace(stored=True))
    return agreeing


def _predict(by: Sequence[Loaded], features: Sequence[Mapping[str, Any]]) -> list[float]:
    """Each booking's probability by its version; all of a version at once."""
    probability = np.empty(len(by))
    versions = {loaded.version: loaded for loaded in by}
    for version, loaded in versions.items():
        if len(versions) == 1:
            probability = loaded.model.predict(features)
        else:
            places = [place for place, one in enumerate(by) if one.version == version]
            probability[places] = loaded.model.predict([features[place] for place in places])
    if not np.isfinite(probability).all():
        raise BadInput(f"version {' or '.join(versions)} gives a booking no probability; roll back, or promote another")
    found: list[float] = probability.tolist()
    return found


# --- what is kept of them --------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """Predictions that were new; and of bookings where somebody else was faster the features that count, whose
    predictions are not written: they are to be made anew, `Desk.correct`."""

    written: int
    overtaken: Mapping[str, Mapping[str, Any]]


def record(store: Store, notes: Sequence[Note], *, as_of: date, now: datetime) -> Recorded:
    """Writes answers as a batch would have: bookings that are new, features where none are stored, predictions, and
    who is held out.

    One transaction. What is there stays: to repeat it changes nothing. Raises `ServiceDown`, and `BadInput` for what
    the database does not take.
    """
    overtaken: dict[str, Mapping[str, Any]] = {}
    with store.begin() as work:
        new = {note.reservation_id: note.booking for note in notes if note.booking is not None}
        if new:
            work.add_booked(list(new.values()))
        built = {note.reservation_id: note.features for note in notes if note.built}
        if built and work.add_built(built, now) < len(built):
            stored = work.booked(list(built), as_of)
            overtaken = {
                i: kept.features
                for i, kept in stored.items()
                if kept.features is not None and not _equal(kept.features, built[i])
            }
        written = 0
        for version in sorted({note.version for note in notes}):
            own = {
                note.reservation_id: note.probability
                for note in notes
                if note.version == version and note.reservation_id not in overtaken
            }
            rows = pd.DataFrame({"reservation_id": list(own), "probability": list(own.values())})
            written += work.add_predictions(version, rows, as_of, now)
        dealt = {note.reservation_id: note.hold_out for note in notes if note.hold_out is not None}
        if dealt:
            work.deal(pd.Series(list(dealt)), np.array(list(dealt.values())), as_of)
        work.commit()
    return Recorded(written, overtaken)


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def same(a: Any, b: Any) -> bool:
        return bool(a == b or (a != a and b != b))

    return all(same(one[name], other.get(name)) for name in CORE.names)


def _frame(bookings: Sequence[Booking], wanted: Sequence[Column]) -> pd.DataFrame:
    """Columns of bookings as `domain.reservation.coerce` has them."""
    columns: dict[str, pd.Series] = {}
    for column in wanted:
        values = [booking.get(column.name) for booking in bookings]
        if column.kind == "date":
            columns[column.name] = pd.Series(np.array(values, dtype="datetime64[D]").astype("datetime64[us]"))
        elif column.kind in ("count", "number"):
            columns[column.name] = pd.Series(values, dtype="float64")
        else:
            columns[column.name] = pd.Series(values, dtype="str")
    return pd.DataFrame(columns)
