"""A probability for each open reservation from each version in play, exactly once; and what is served.

A batch is planned first: versions are pinned, and what each has not scored is cut into partitions by
day of booking. A partition is scored by itself, by this process or another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum

import numpy as np
import pandas as pd

from cancellations.domain.checks import CheckPolicy, Hold
from cancellations.domain.comparison import arm
from cancellations.domain.hold_out import dealt_out
from cancellations.domain.labels import LabelRule
from cancellations.domain.promotion import Kind
from cancellations.errors import BadInput, Refused
from cancellations.ports import Registry, Store, UnitOfWork
from cancellations.usecases.hold import hold_back
from cancellations.usecases.point_in_time import BookingTime


@dataclass(frozen=True)
class Partition:
    """What can be scored by itself: open bookings made in `(after, until]`, by one version.

    Everything that the scores depend on beside the store and the registry: the version with the day of
    its training, the rule, and `as_of`, the day that counts as today. `rows` is how many bookings waited
    when the batch was planned.
    """

    version: str
    trained_as_of: date
    rule: LabelRule
    as_of: date
    after: date | None
    until: date
    rows: int


@dataclass(frozen=True)
class Turn:
    """One version's part of a batch."""

    version: str
    partitions: tuple[Partition, ...]


@dataclass(frozen=True)
class Plan:
    """A batch: versions in the order of their turns, the champion first. Nothing that happens later changes it."""

    champion: str
    as_of: date
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Cut:
    """Into how many partitions a version's bookings are cut, at most, and from how many rows on each pays."""

    partitions: int = 1
    least_rows: int = 1


@dataclass(frozen=True)
class Scored:
    """Rows written per version, champion first, how many bookings are served another score now, and what is held.

    `held`: days of which bookings fail their checks and were not scored.
    """

    champion: str
    rows: dict[str, int]
    served: int = 0
    held: tuple[Hold, ...] = ()


class Stored(Enum):
    """Of which bookings of a page features were stored; the next page is expected to be like it."""

    ALL = "all"
    NONE = "none"


# Scores partitions of one version and returns the rows that each has written.
Across = Callable[[Sequence[Partition]], Sequence[int]]


def plan(store: Store, *, after: date | None, until: date, rule: LabelRule, cut: Cut) -> Plan:
    """The batch of bookings made in `(after, until]` that a version in play has not scored yet.

    In play are the champion and the version that it is compared with, challenger or predecessor. A
    version scores what was still open when it was trained: bookings that mature after its training
    date. Raises `Refused` when there is no champion.
    """
    with store.begin() as work:
        champion = work.standing().champion
        if champion is None:
            raise Refused("there is no champion to score with; train the first one: cancellations retrain --as-of DAY")
        turns = []
        for version, trained_as_of in _in_play(work).items():
            days = work.unscored_days(version, after, until, ending=rule.maturing(trained_as_of))
            # From the first day with something to score: what lies behind it need not be searched again.
            partitions, start = [], after if days.empty else days.index[0].date() - timedelta(days=1)
            for last, rows in spread(days, cut):
                partitions.append(Partition(version, trained_as_of, rule, until, start, last, rows))
                start = last
            turns.append(Turn(version, tuple(partitions)))
    return Plan(champion, until, tuple(turns))


def spread(days: pd.Series, cut: Cut) -> list[tuple[date, int]]:
    """Days of booking in consecutive spans of about equal rows: the last day and the rows of each.

    `days` is what `ports.UnitOfWork.unscored_days` gives. A day is never split, so there may be fewer
    spans than asked for, and one is larger than an equal share by no more than the largest day.
    """
    total = int(days.sum())
    if total == 0:
        return []
    pieces = max(1, min(cut.partitions, total // cut.least_rows))
    # Each day belongs where the middle of its rows falls.
    place = (2 * days.cumsum() - days) * pieces // (2 * total)
    spans = days.groupby(place.to_numpy())
    return [(span.index[-1].date(), int(span.sum())) for _, span in spans]


def score(
    store: Store,
    registry: Registry,
    *,
    after: date | None,
    until: date,
    rule: LabelRule,
    chunk_rows: int,
    clock: Callable[[], datetime],
    cut: Cut | None = None,
    across: Across | None = None,
    on_chunk: Callable[[str, int], None] = lambda version, rows: None,
    checks: CheckPolicy | None = None,
    hold_out: float = 0.0,
) -> Scored:
    """Scores bookings made in `(after, until]` that a version in play has not scored yet.

    Versions are pinned at the start; each chunk is a transaction of its own, and a row that exists
    stays, so a run that is killed, repeated or doubled changes nothing. The champion comes first and its
    scores are served before the other version begins: what is wrong with that one delays nobody.
    `across` scores partitions elsewhere, and returns when all have ended; without it they are scored
    here, one after the other. With `checks` bookings that fail them are held back. `hold_out`: share of bookings
    that are marked for nobody to act upon.
    """
    held = () if checks is None else hold_back(store, until=until, rule=rule, policy=checks, clock=clock).held
    planned = plan(store, after=after, until=until, rule=rule, cut=cut or Cut())

    def one(partition: Partition, before: int) -> int:
        def heard(rows: int) -> None:
            on_chunk(partition.version, before + rows)

        return _score(store, registry, partition, chunk_rows=chunk_rows, clock=clock, on_chunk=heard)

    def here(partitions: Sequence[Partition]) -> list[int]:
        rows: list[int] = []
        for partition in partitions:
            rows.append(one(partition, before=sum(rows)))
        return rows

    served = 0
    written: dict[str, int] = {}
    for turn in planned.turns:
        written[turn.version] = sum((across or here)(turn.partitions))
        served += serve(store, until, clock(), hold_out)
    return Scored(planned.champion, written, served, held)


def score_partition(
    store: Store, registry: Registry, partition: Partition, *, chunk_rows: int, clock: Callable[[], datetime]
) -> int:
    """Scores one partition of a batch that was planned somewhere else; returns how many rows were new.

    Raises `BadInput` when this store is not the one that it was planned on.
    """
    with store.begin() as work:
        record = work.version(partition.version)
    if record is None or record.trained_as_of != partition.trained_as_of:
        raise BadInput(
            f"this process's store does not know version {partition.version}, trained as of {partition.trained_as_of},"
            " that it should score with: it is another store than that of the run. Give each worker the same"
            " CANCELLATIONS_DATABASE_URL and CANCELLATIONS_MLFLOW_TRACKING_URI"
        )
    return _score(store, registry, partition, chunk_rows=chunk_rows, clock=clock)


def score_open(
    store: Store,
    registry: Registry,
    version: str,
    *,
    as_of: date,
    rule: LabelRule,
    chunk_rows: int,
    clock: Callable[[], datetime],
) -> int:
    """Scores, with a version that is about to serve, the bookings that are still open."""
    everything = Partition(version, as_of, rule, as_of, after=None, until=as_of, rows=0)
    return _score(store, registry, everything, chunk_rows=chunk_rows, clock=clock)


def serve(store: Store, as_of: date, now: datetime, hold_out: float = 0.0) -> int:
    """Deals the hold-out, and arms while a trial runs, to open bookings; then serves each what it should get."""
    with store.begin() as work:
        if hold_out > 0:
            undealt = work.undealt(as_of)
            # Who was acted upon before is not left alone any more.
            held = dealt_out(undealt, hold_out) & ~work.acted(undealt["reservation_id"], as_of)
            work.deal(undealt["reservation_id"], held, as_of)
        trial = work.open_trial()
        if trial is not None and trial.kind is Kind.TRIAL:
            ids = work.unassigned(trial.trial_id, as_of)
            work.add_arms(trial.trial_id, {str(i): arm(trial.trial_id, str(i), trial.serve_share) for i in ids})
        served = work.serve(as_of, now)
        work.commit()
    return served


def _in_play(work: UnitOfWork) -> dict[str, date]:
    """Versions that score, with the days of their training; the champion first."""
    standing, trial = work.standing(), work.open_trial()
    named = [standing.champion, standing.challenger, trial.rival if trial else None]
    known = [record for v in dict.fromkeys(named) if v is not None and (record := work.version(v)) is not None]
    return {record.version: record.trained_as_of for record in known}


def _score(
    store: Store,
    registry: Registry,
    partition: Partition,
    *,
    chunk_rows: int,
    clock: Callable[[], datetime],
    on_chunk: Callable[[int], None] = lambda rows: None,
) -> int:
    """Scores page by page, a transaction each; returns how many rows were new."""
    version, rule = partition.version, partition.rule
    model, booking_time = registry.load(version), BookingTime(rule)
    ending = rule.maturing(partition.trained_as_of)
    written = 0
    key: tuple[date, str] | None = None
    stored: Stored | None = None
    while True:
        wanted = (version, partition.after, partition.until, key, chunk_rows, ending)
        with store.begin() as work:
            # Where another version has scored them before, its features are all that need be read.
            page = work.unscored_features(*wanted) if stored is Stored.ALL else None
            if page is None:
                page = work.unscored(*wanted)
                features, new = _features(work, page, booking_time, sought=stored is not Stored.NONE)
            else:
                features = page.set_index("reservation_id").drop(columns="booked_on")
                new = features.iloc[:0]
            if page.empty:
                return written
            stored = Stored.ALL if new.empty else Stored.NONE if len(new) == len(page) else None
            probability = model.predict(features)
            # The first write: from here on a store with one writer lets nobody else write.
            if not new.empty and work.add_features(new, clock()) < len(new):
                # Somebody else was faster with some of them, and what is stored is what counts.
                stored = None
                probability = model.predict(work.features(page["reservation_id"]).loc[page["reservation_id"]])
            if not np.isfinite(probability).all():
                strange = page.loc[~np.isfinite(probability), "reservation_id"]
                raise BadInput(
                    f"version {version} gives {len(strange):,} bookings no probability, {strange.iloc[0]!r} among"
                    " them; roll back, or promote another version"
                )
            rows = page[["reservation_id"]].assign(probability=probability)
            written += work.add_predictions(version, rows, partition.as_of, clock())
            work.commit()
        last = page.iloc[-1]
        key = (pd.Timestamp(last["booked_on"]).date(), str(last["reservation_id"]))
        on_chunk(written)
        if len(page) < chunk_rows:
            return written


def _features(
    work: UnitOfWork, page: pd.DataFrame, booking_time: BookingTime, *, sought: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features as stored, or built for bookings without, in the order of `page`; and those that were built.

    Whoever scores a booking first fixes them: outcomes and corrections that come later would give
    a later version a better view of the same booking than the champion had. Those that are stored need not be
    `sought` where none are expected: to write them again tells that they were there.
    """
    ids = page["reservation_id"]
    if not sought:
        built = booking_time(work, page).set_axis(ids)
        return built, built
    stored = work.features(ids)
    new = page[~ids.isin(stored.index)]
    if new.empty:
        return stored.loc[ids], stored.iloc[:0]
    built = booking_time(work, new).set_axis(new["reservation_id"])
    return (built if stored.empty else pd.concat([stored, built])).loc[ids], built
