"""Reservations and outcomes into the store; rows that break a rule into quarantine.

A load has two halves. First the whole source is read, judged and staged on disk: a file that turns out
to be cut off, or too full of errors, has touched nothing by then. Then what was staged is written, batch
by batch, each in a transaction that also says how far the load has come: one that is killed goes on
where it was, and ends as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, time
from typing import IO, Any, Protocol

import numpy as np
import pandas as pd

from cancellations.domain.events import OutcomesArrived
from cancellations.domain.labels import RULED_BY, LabelRule, maturity
from cancellations.domain.reservation import (
    COLUMNS,
    GROUP_SIZE,
    LONGEST_STAY,
    early,
    early_actions,
    group_keys,
    nameless,
    no_problems,
    told_once,
    violations,
)
from cancellations.errors import BadInput, Refused
from cancellations.ports import (
    Load,
    LoadContent,
    LoadCounts,
    LoadState,
    QuarantinedRow,
    Source,
    SourceBatch,
    Store,
    Undated,
    UnitOfWork,
    Upserted,
)

# Longer values are cut in quarantine; the source still has them.
LONGEST_VALUE = 100_000
# How the second of two rows with one id is told, before the number of the first.
APPEARS_AGAIN = "appears again, with other values than in row"
# What differs between problems of one kind: the value that was found, the row that came first.
_FOUND = re.compile(r"""(['"]).*?(?:\1|…)(?= in column| is no|$)""", re.DOTALL)
_ROW = re.compile(rf"(?<={APPEARS_AGAIN}) [0-9,]+")


@dataclass(frozen=True)
class LoadPolicy:
    """When a load is not to be believed.

    It stops when more than `quarantine_limit` of its rows broke a rule, unless they are no more than
    `quarantine_spared`: a feed of few rows must not hang on one. `labels` gives the maturity date to
    outcomes without a day.
    """

    labels: LabelRule = field(default_factory=LabelRule)
    quarantine_limit: float = 0.1
    quarantine_spared: int = 3


@dataclass(frozen=True)
class Judged:
    """Rows of a source, by their numbers, in order: what is to be written of them, and what was set aside.

    Each of `rows` is `outside` the span, `repeated` word for word, quarantined, or brings what is written.
    """

    rows: np.ndarray
    outside: np.ndarray
    repeated: np.ndarray
    reservations: pd.DataFrame | None
    outcomes: pd.DataFrame
    quarantined: list[QuarantinedRow]
    actions: pd.DataFrame | None = None

    @property
    def taken(self) -> pd.Series:
        """Ids of the bookings that are written, by row; of the outcomes where nothing else comes."""
        if self.reservations is not None:
            return self.reservations["reservation_id"]
        brought = [self.outcomes] if self.actions is None else [self.outcomes, self.actions]
        ids = pd.concat([part["reservation_id"] for part in brought])
        return ids[~ids.index.duplicated()]

    def without_first(self, count: int) -> Judged:
        """The rows behind the first ones."""
        rows = self.rows[count:]
        rest = None if self.reservations is None else self.reservations[self.reservations.index.isin(rows)]
        return Judged(
            rows,
            self.outside[np.isin(self.outside, rows)],
            self.repeated[np.isin(self.repeated, rows)],
            rest,
            self.outcomes[self.outcomes.index.isin(rows)],
            [row for row in self.quarantined if row.row in set(rows.tolist())],
            None if self.actions is None else self.actions[self.actions.index.isin(rows)],
        )


class Fate(Protocol):
    """What becomes, in the transaction of a batch, of rows that were set aside earlier or are now."""

    def __call__(self, work: UnitOfWork, batch: Judged, now: datetime) -> None: ...


def ingest(
    source: Source,
    store: Store,
    *,
    after: date | None,
    until: date,
    clock: Callable[[], datetime],
    policy: LoadPolicy,
    again: bool = True,
    fate: Fate | None = None,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Load:
    """Loads bookings made in `(after, until]` and outcomes that became known by `until`.

    A row outside the span is left for a later load, unjudged. Loading the same span again changes
    nothing; without `again`, a file whose last load left nothing is not even read. New outcomes ring for
    a trial or probation that reads them. Rows that break a rule go to quarantine, and those that waited
    there for a booking which comes now wait no more, unless `fate` says otherwise. `on_batch` hears how
    many rows have been read so far.

    Raises `BadInput` when the source is no whole table, and `Refused` when too many of its rows break a
    rule; nothing of the load is written then.
    """
    fingerprint = source.fingerprint()
    if fingerprint is not None and not again:
        done = _done(store, LoadContent(source.name, fingerprint, source.mapping, after, until))
        if done is not None:
            return done
    with _unnamed(source) as file:
        staged = _stage(source, store, after, until, policy, file, on_batch)
        content = LoadContent(source.name, fingerprint or staged.digest, source.mapping, after, until)
        _stop_if_unbelievable(content, staged, store, policy, clock)
        return _write(source, content, staged, fate or _Quarantine(content, staged), store, clock)


def kind_of(problem: str) -> str:
    """A problem without what was found: the same for all rows that break the same rule."""
    return _ROW.sub(" …", _FOUND.sub("'…'", problem))


def _done(store: Store, content: LoadContent) -> Load | None:
    with store.begin() as work:
        last = work.last_load(content.source)
    if last is None:
        return None
    earlier, load = last
    same = replace(earlier, after=content.after, until=content.until) == content
    return load if same and earlier.after is None and earlier.until <= content.until and load.left == 0 else None


# --- reading and judging --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Staged:
    """All batches of a source, in `file` from each of `starts` on; `groups` and `sizes`: bookings of each group
    in this load.

    `problems` and `examples`: how often each kind was found, and first in which row; `set_aside`: ids.
    """

    file: IO[bytes]
    starts: list[int]
    digest: str
    read: int
    outside: int
    left: int
    quarantined: int
    problems: Counter[str]
    examples: dict[str, tuple[int, str]]
    set_aside: frozenset[str]
    groups: np.ndarray
    sizes: np.ndarray

    def batches(self) -> Iterator[Judged]:
        for start in self.starts:
            self.file.seek(start)
            batch: Judged = pickle.load(self.file)
            if batch.reservations is not None:
                place = np.searchsorted(self.groups, group_keys(batch.reservations))
                sized = batch.reservations.assign(**{GROUP_SIZE: self.sizes[place].astype("float64")})
                batch = replace(batch, reservations=sized)
            yield batch


class _Seen:
    """Ids and contents that a load has met, as 64-bit hashes: so a load of any size stays in memory.

    Two ids share a hash once in ten million loads of a million rows; the second would then be set
    aside, with that reason.
    """

    def __init__(self) -> None:
        self._ids = np.empty(0, dtype="uint64")
        self._contents = np.empty(0, dtype="uint64")
        self._rows = np.empty(0, dtype="int64")

    def sort(
        self, ids: np.ndarray, contents: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which rows come first with their id, which repeat the first one's content, and each one's first row."""
        first = ~self._known(ids) & ~pd.Series(ids).duplicated().to_numpy()
        place = np.searchsorted(self._ids, ids[first])
        order = np.argsort(ids[first], kind="stable")
        self._ids, self._contents, self._rows = (
            np.insert(kept, place[order], new[first][order])
            for kept, new in ((self._ids, ids), (self._contents, contents), (self._rows, rows))
        )
        at = np.searchsorted(self._ids, ids)
        return first, ~first & (self._contents[at] == contents), self._rows[at]

    def _known(self, ids: np.ndarray) -> np.ndarray:
        if not len(self._ids):
            return np.zeros(len(ids), dtype=bool)
        at = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        return self._ids[at] == ids


@contextmanager
def _unnamed(source: Source) -> Iterator[IO[bytes]]:
    """A file without a name: however this process ends, nothing of what guests booked is left lying about."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (what goes wrong here is told otherwise than in the body)
    except OSError as error:
        raise _no_room(source, error) from error
    try:
        yield file
    finally:
        # What a full disk did not take is of no use any more.
        with suppress(OSError):
            file.close()


def _no_room(source: Source, error: OSError) -> BadInput:
    place = tempfile.tempdir or "a folder for temporary files"
    return BadInput(
        f"{source.name} cannot be staged in {place}: {error.strerror or error}."
        " Make room there, or name another folder in TMPDIR."
    )


def _stage(
    source: Source,
    store: Store,
    after: date | None,
    until: date,
    policy: LoadPolicy,
    file: IO[bytes],
    on_batch: Callable[[int], None],
) -> _Staged:
    judge = _Judge(source, store, after, until, policy)
    starts: list[int] = []
    read = 0
    for batch in source.batches():
        judged = judge(batch)
        starts.append(file.tell())
        try:
            pickle.dump(judged, file, protocol=pickle.HIGHEST_PROTOCOL)
            file.flush()
        except OSError as error:
            raise _no_room(source, error) from error
        read += len(judged.rows)
        on_batch(read)
    groups, sizes = np.unique(np.concatenate([np.empty(0, "uint64"), *judge.groups]), return_counts=True)
    return _Staged(
        file,
        starts,
        judge.digest.hexdigest(),
        read,
        judge.outside,
        judge.left,
        judge.quarantined,
        judge.problems,
        judge.examples,
        frozenset(judge.set_aside),
        groups,
        sizes,
    )


class _Judge:
    """Sorts the rows of one load, batch by batch: to write, to leave for later, to set aside."""

    def __init__(self, source: Source, store: Store, after: date | None, until: date, policy: LoadPolicy) -> None:
        self._source, self._store, self._policy = source, store, policy
        self._after, self._until = after, until
        self._seen = _Seen()
        self.digest = hashlib.sha256()
        self.groups: list[np.ndarray] = []
        self.outside = self.left = self.quarantined = 0
        self.problems: Counter[str] = Counter()
        self.examples: dict[str, tuple[int, str]] = {}
        self.set_aside: set[str] = set()

    def __call__(self, batch: SourceBatch) -> Judged:
        index = batch.raw.index
        rows = None if batch.reservations is None else batch.reservations.reindex(index)
        outside = np.zeros(len(index), dtype=bool) if rows is None else self._outside(rows["booked_on"])
        told, undated = self._dated(batch.outcomes, rows)
        problems = [batch.problems, undated]
        done = batch.actions
        if rows is None:
            problems.append(nameless(told))
            if done is not None:
                problems.append(nameless(done))
        else:
            problems += [violations(rows, self._source.columns), early(told, rows)]
            if done is not None:
                problems.append(early_actions(done, rows))
        found = told_once(pd.concat(problems, ignore_index=True))
        broken = index.isin(found["row"])

        content = _content(told, rows, done)
        # Rows outside the span take part: whatever the spans, the same one of two rows with an id is the first.
        content = content.loc[content.index.intersection(index[~broken])]
        inside = ~content.index.isin(index[outside])
        hashes = pd.util.hash_pandas_object(content, index=False).to_numpy()
        first, same, earlier = self._seen.sort(
            pd.util.hash_array(content["reservation_id"].to_numpy(dtype=object)),
            hashes,
            content.index.to_numpy(dtype="int64"),
        )
        other = inside & ~first & ~same
        if other.any():
            rules = [f"{APPEARS_AGAIN} {row:,}" for row in earlier[other]]
            twice = pd.DataFrame({"row": content.index[other], "column": "reservation_id", "rule": rules})
            found = pd.concat([found, twice], ignore_index=True)

        # Of a booking outside the span the outcome may be due; broken and repeated rows bring none.
        brought = told[told.index.isin(content.index[first])]
        due = brought["known_on"] <= pd.Timestamp(self._until)
        self.left += int((~due).sum())
        if self._after is not None:
            due &= brought["known_on"] > pd.Timestamp(self._after)
        outcomes = brought[due]
        actions = None if done is None else self._due(done[done.index.isin(content.index[first])])
        reservations = None
        if rows is None:
            # Rows that tell no outcome, or one that is not due, are left for a later load; so, in a way,
            # are those whose day depends on a booking that is still to come.
            outside = ~broken & ~index.isin(outcomes.index) & ~index.isin(content.index[~first])
            if actions is not None:
                outside &= ~index.isin(actions.index)
            self.left += len(undated)
        else:
            self.left += int(outside.sum())
            reservations = rows.loc[content.index[first & inside]]
            self.groups.append(group_keys(reservations))
        names = _content(batch.outcomes, rows, done)["reservation_id"]
        set_aside = _set_aside(self._source.name, batch.raw, names, found, outside)
        self.outside += int(outside.sum())
        numbers = index.to_numpy(dtype="int64")
        self._count(hashes, numbers[outside], outcomes, set_aside)
        if actions is not None:
            self.digest.update(pd.util.hash_pandas_object(actions, index=False).to_numpy().tobytes())
        repeated = content.index[same & inside].to_numpy(dtype="int64")
        return Judged(numbers, numbers[outside], repeated, reservations, outcomes, set_aside, actions)

    def _due(self, actions: pd.DataFrame) -> pd.DataFrame:
        """Those of the load's days; that nothing was done has no day."""
        acted_on = actions["acted_on"]
        due = acted_on <= pd.Timestamp(self._until)
        self.left += int((~due & acted_on.notna()).sum())
        if self._after is not None:
            due &= acted_on > pd.Timestamp(self._after)
        return actions[due | acted_on.isna()]

    def _count(
        self, hashes: np.ndarray, outside: np.ndarray, outcomes: pd.DataFrame, set_aside: list[QuarantinedRow]
    ) -> None:
        self.digest.update(hashes.tobytes())
        self.digest.update(outside.tobytes())
        self.digest.update(pd.util.hash_pandas_object(outcomes, index=False).to_numpy().tobytes())
        self.digest.update(json.dumps([asdict(row) for row in set_aside]).encode())
        self.quarantined += len(set_aside)
        self.set_aside.update(row.reservation_id for row in set_aside if row.reservation_id is not None)
        for row in set_aside:
            for problem in row.problems:
                self.problems[kind_of(problem)] += 1
                self.examples.setdefault(kind_of(problem), (row.row, problem))

    def _outside(self, booked_on: pd.Series) -> np.ndarray:
        outside = booked_on > pd.Timestamp(self._until)
        if self._after is not None:
            outside |= booked_on <= pd.Timestamp(self._after)
        return outside.to_numpy()

    def _dated(self, outcomes: pd.DataFrame, reservations: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Outcomes with a day each; problems of those for which there is none."""
        missing = outcomes["known_on"].isna()
        if not missing.any():
            return outcomes, no_problems()
        undated = outcomes[missing]
        day = maturity(self._ruled(undated, reservations), self._policy.labels)
        if self._source.undated is Undated.LOAD:
            day = self._first_told(undated, day.clip(upper=pd.Timestamp(self._until)))
        dated = outcomes.assign(known_on=outcomes["known_on"].where(~missing, day.reindex(outcomes.index)))
        lost = dated.index[dated["known_on"].isna()]
        dated = dated.drop(lost)
        if reservations is not None:  # a booking without an arrival or nights is broken as it is
            return dated, no_problems()
        told = "is not told, and the booking is not known yet, from whose arrival it follows: load the bookings first"
        # Of a row without an id, which is a problem of its own, nothing else can be known.
        named = lost[outcomes.loc[lost, "reservation_id"].notna()]
        return dated, pd.concat(
            [pd.DataFrame({"row": named, "column": "known_on", "rule": told}), nameless(outcomes.loc[lost])],
            ignore_index=True,
        )

    def _ruled(self, undated: pd.DataFrame, reservations: pd.DataFrame | None) -> pd.DataFrame:
        """What the bookings of undated outcomes mature by, row by row; missing where that is not known."""
        if reservations is not None:
            ruled = reservations.loc[undated.index, list(RULED_BY)]
        else:
            with self._store.begin() as work:
                known = work.ruled_by(undated["reservation_id"])
            ruled = known.reindex(undated["reservation_id"]).set_axis(undated.index)
        # Numbers that nobody believes break a rule of their own; as days they may leave the calendar.
        nights = ruled[["weekend_nights", "week_nights"]].astype("float64")
        ruled[nights.columns] = nights.where(nights.abs() <= LONGEST_STAY)
        return ruled.astype(dict.fromkeys(("booked_on", "arrival_on"), "datetime64[us]"))

    def _first_told(self, undated: pd.DataFrame, day: pd.Series) -> pd.Series:
        """The day on which an earlier load told the same, where one did: it was known from then on."""
        with self._store.begin() as work:
            recorded = work.recorded_outcomes(undated["reservation_id"])
        same = _of(undated["reservation_id"], recorded["status"]) == undated["status"]
        return day.where(~same, _of(undated["reservation_id"], recorded["known_on"]))


def _content(outcomes: pd.DataFrame, reservations: pd.DataFrame | None, actions: pd.DataFrame | None) -> pd.DataFrame:
    """All that the rows of a batch tell; those of a table without reservations that tell anything."""
    if reservations is not None:
        parts = [reservations, outcomes[["status", "known_on"]]]
        return reservations.join([*parts[1:], *([] if actions is None else [actions[["action_taken", "acted_on"]]])])
    if actions is None:
        return outcomes
    ids = pd.concat([outcomes["reservation_id"], actions["reservation_id"]])
    told = ids[~ids.index.duplicated()].sort_index().to_frame()
    return told.join([outcomes[["status", "known_on"]], actions[["action_taken", "acted_on"]]])


def _of(reservation_ids: pd.Series, known: pd.Series) -> pd.Series:
    """What is known of each, by id; missing where nothing is."""
    return known.reindex(reservation_ids).set_axis(reservation_ids.index)


def _set_aside(
    name: str, raw: pd.DataFrame, reservation_ids: pd.Series, problems: pd.DataFrame, outside: np.ndarray
) -> list[QuarantinedRow]:
    due = problems[~problems["row"].isin(raw.index[outside])]
    if due.empty:
        return []
    told = due.assign(problem=[f"{c}: {r}" if c else str(r) for c, r in zip(due["column"], due["rule"], strict=True)])
    by_row = told.groupby("row")["problem"].agg(tuple)
    originals = raw.loc[by_row.index]
    columns = [[plain_value(v) for v in originals[column].tolist()] for column in originals]
    ids = reservation_ids.reindex(by_row.index).astype(object).tolist()
    return [
        QuarantinedRow(
            name,
            int(row),
            found,
            dict(zip(map(str, originals.columns), values, strict=True)),
            None if pd.isna(reservation_id) else str(reservation_id),
        )
        for (row, found), values, reservation_id in zip(by_row.items(), zip(*columns, strict=True), ids, strict=True)
    ]


def plain_value(value: Any) -> Any:
    """An original value as JSON can hold it; a mapping reads it as it would have read the original."""
    if isinstance(value, str):
        if len(value) > LONGEST_VALUE:
            return f"{value[:LONGEST_VALUE]}… (cut: {len(value):,} characters)"
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain_value(part) for part in value]
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime) and value.tzinfo is None and value.time() == time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, date | time) else plain_value(str(value))


def _stop_if_unbelievable(
    content: LoadContent, staged: _Staged, store: Store, policy: LoadPolicy, clock: Callable[[], datetime]
) -> None:
    judged = staged.read - staged.outside
    share = staged.quarantined / judged if judged else 0.0
    if staged.quarantined <= policy.quarantine_spared or share <= policy.quarantine_limit:
        return
    worst = "; ".join(
        f"{count:,} rows, the first {staged.examples[kind][0]:,}: {staged.examples[kind][1]}"
        for kind, count in staged.problems.most_common(5)
    )
    reason = (
        f"{staged.quarantined:,} of {judged:,} rows ({share:.0%}) break a rule, more than the"
        f" {policy.quarantine_limit:.0%} that a load may: {worst}"
    )
    counts = LoadCounts(content.source, staged.read, staged.outside, 0, 0, 0, staged.quarantined, 0)
    with store.begin() as work:
        work.add_stopped_load(content, counts, clock(), reason)
        work.commit()
    raise Refused(
        f"{content.source}: {reason}. Nothing of it was written. Correct the file or its mapping (cancellations mapping"
        " check), or raise the limit for this load (--quarantine-limit)."
    )


# --- writing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Quarantine:
    """Rows set aside go to quarantine, by the source's name; those of bookings that come now are settled."""

    content: LoadContent
    staged: _Staged

    def __call__(self, work: UnitOfWork, batch: Judged, now: datetime) -> None:
        if self.content.source in work.quarantine_counts():
            # A booking that this load both takes and sets aside is in dispute, and its rows wait on.
            agreed = batch.taken[~batch.taken.isin(self.staged.set_aside)]
            work.settle_bookings(self.content.source, agreed, now)
        work.add_quarantined(batch.quarantined, now, self.content.mapping)


def _write(
    source: Source,
    content: LoadContent,
    staged: _Staged,
    fate: Fate,
    store: Store,
    clock: Callable[[], datetime],
) -> Load:
    with store.begin() as work:
        work.declare_columns(source.columns[len(COLUMNS) :], clock())
        load = work.begin_load(content, staged.read, staged.left, clock())
        work.commit()
    start = 0
    for batch in staged.batches():
        end = start + len(batch.rows)
        # Rows that are applied were so before an interruption, or by somebody who loads the same at once.
        while load.state is LoadState.RUNNING and load.applied < end:
            rest = batch.without_first(load.applied - start) if load.applied > start else batch
            load = _apply(rest, end, load, content, fate, store, clock())
        start = end
    while load.state is LoadState.RUNNING:
        load = _finish(load, content, store, clock())
    return load


def _apply(batch: Judged, end: int, load: Load, content: LoadContent, fate: Fate, store: Store, now: datetime) -> Load:
    """Writes a batch, if it is its turn, and with the last one the end; returns how the load stands then."""
    counts = load.counts
    with store.begin() as work:
        outcomes = work.record_outcomes(batch.outcomes, load.number)
        done = outcomes
        if batch.reservations is not None:
            done = work.upsert_reservations(batch.reservations, load.number)
        # Behind both, for everybody: two loads wait for each other instead of deadlocking.
        acted = _act(work, batch, load.number)
        if batch.reservations is None:
            done = _together(outcomes, acted)
        fate(work, batch, now)
        counts = replace(
            counts,
            outside=counts.outside + len(batch.outside),
            loaded=counts.loaded + done.loaded,
            unchanged=counts.unchanged + done.unchanged + len(batch.repeated),
            updated=counts.updated + done.updated,
            quarantined=counts.quarantined + len(batch.quarantined),
            outcomes=counts.outcomes + outcomes.loaded + outcomes.updated,
        )
        if work.advance_load(load, counts, end, now):
            if end == counts.read:
                _end(work, replace(load, counts=counts, applied=end), content, now)
            work.commit()
    with store.begin() as work:
        return work.load(load.number)


def _act(work: UnitOfWork, batch: Judged, load: int) -> Upserted:
    """Writes actions; returns what that did to the rows that tell no outcome beside, since a row counts once."""
    if batch.actions is None:
        return Upserted(0, 0, 0)
    beside = batch.actions.index.isin(batch.outcomes.index)
    work.record_actions(batch.actions[beside], load)
    return work.record_actions(batch.actions[~beside], load)


def _together(one: Upserted, other: Upserted) -> Upserted:
    return Upserted(one.loaded + other.loaded, one.unchanged + other.unchanged, one.updated + other.updated)


def _finish(load: Load, content: LoadContent, store: Store, now: datetime) -> Load:
    """Ends a load without rows."""
    with store.begin() as work:
        _end(work, load, content, now)
        work.commit()
    with store.begin() as work:
        return work.load(load.number)


def _end(work: UnitOfWork, load: Load, content: LoadContent, now: datetime) -> None:
    if not work.finish_load(load, now):
        return
    trial = work.open_trial()
    if trial is not None and load.counts.outcomes > 0:
        fact = OutcomesArrived(trial.trial_id, content.until, load.counts.outcomes, now)
        work.add_messages(fact.messages(), now)
