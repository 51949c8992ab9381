"""A probability for each open reservation from each version in play, exactly once; and what is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from cancellations.domain import features
from cancellations.domain.comparison import arm
from cancellations.domain.labels import LabelRule
from cancellations.domain.promotion import Kind
from cancellations.errors import BadInput, Refused
from cancellations.ports import Registry, Store, UnitOfWork


@dataclass(frozen=True)
class Scored:
    """Rows written per version, champion first, and how many bookings are served another score now."""

    champion: str
    rows: dict[str, int]
    served: int = 0


def score(
    store: Store,
    registry: Registry,
    *,
    after: date | None,
    until: date,
    rule: LabelRule,
    chunk_rows: int,
    clock: Callable[[], datetime],
    on_chunk: Callable[[str, int], None] = lambda version, rows: None,
) -> Scored:
    """Scores bookings made in `(after, until]` that a version in play has not scored yet.

    In play are the champion and the version that it is compared with, challenger or predecessor. A
    version scores what was still open when it was trained: bookings that mature after its training
    date. Versions are pinned at the start; each chunk is a transaction of its own, and a row that
    exists stays, so a run that is killed, repeated or doubled changes nothing. The champion comes
    first and its scores are served before the other version begins: what is wrong with that one
    delays nobody.
    """
    with store.begin() as work:
        standing = work.standing()
        if standing.champion is None:
            raise Refused("there is no champion to score with; train the first one: cancellations retrain --as-of DAY")
        versions = _in_play(work)
    served = 0
    written: dict[str, int] = {}
    booked = _Booked(store, registry, after, until, rule, chunk_rows, clock)
    for version, trained_as_of in versions.items():
        written[version] = booked.score(version, trained_as_of, on_chunk)
        served += serve(store, until, clock())
    return Scored(standing.champion, written, served)


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
    booked = _Booked(store, registry, None, as_of, rule, chunk_rows, clock)
    return booked.score(version, as_of, lambda version, rows: None)


def serve(store: Store, as_of: date, now: datetime) -> int:
    """Deals arms to open bookings while a trial runs, then serves each booking what it should get."""
    with store.begin() as work:
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


@dataclass
class _Booked:
    """Bookings of a span, page by page, with the features that they had when they were made."""

    store: Store
    registry: Registry
    after: date | None
    until: date
    rule: LabelRule
    chunk_rows: int
    clock: Callable[[], datetime]
    _history: pd.DataFrame | None = None

    def score(self, version: str, open_on: date, on_chunk: Callable[[str, int], None]) -> int:
        """Scores bookings that had not matured on `open_on`; returns how many rows were new."""
        model = self.registry.load(version)
        arriving_after = open_on - timedelta(days=self.rule.settle_days)
        written = 0
        key: tuple[date, str] | None = None
        while True:
            with self.store.begin() as work:
                page = work.unscored(
                    version, self.after, self.until, key, self.chunk_rows, arriving_after=arriving_after
                )
                if page.empty:
                    return written
                probability = model.predict(self._features(work, page))
                if not np.isfinite(probability).all():
                    strange = page.loc[~np.isfinite(probability), "reservation_id"]
                    raise BadInput(
                        f"version {version} gives {len(strange):,} bookings no probability, {strange.iloc[0]!r} among"
                        " them; roll back, or promote another version"
                    )
                rows = page[["reservation_id"]].assign(probability=probability)
                written += work.add_predictions(version, rows, self.until, self.clock())
                work.commit()
            last = page.iloc[-1]
            key = (pd.Timestamp(last["booked_on"]).date(), str(last["reservation_id"]))
            on_chunk(version, written)

    def _features(self, work: UnitOfWork, page: pd.DataFrame) -> pd.DataFrame:
        """Features as stored, in the order of `page`; built and stored for bookings without.

        Whoever scores a booking first fixes them: outcomes and corrections that come later would give
        a later version a better view of the same booking than the champion had.
        """
        ids = page["reservation_id"]
        stored = work.features(ids)
        new = page[~ids.isin(stored.index)]
        if not new.empty:
            if self._history is None:
                self._history = work.history(booked_until=self.until, known_until=self.until)
            built = features.build(new, self._history, self.rule).set_axis(new["reservation_id"])
            if work.add_features(built, self.clock()) == len(built):
                stored = built if stored.empty else pd.concat([stored, built])
            else:  # somebody else was faster with some of them
                stored = work.features(ids)
        return stored.loc[ids]
