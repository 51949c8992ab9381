"""A probability for each open reservation from each version in play, exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pandas as pd

from cancellations.domain import features
from cancellations.domain.labels import LabelRule
from cancellations.errors import Refused
from cancellations.ports import Registry, Store


@dataclass(frozen=True)
class Scored:
    """Rows written per version; champion first."""

    champion: str
    rows: dict[str, int]


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
    """Scores bookings made in `(after, until]` that champion or challenger have not scored yet.

    A version scores what was still open when it was trained: bookings that mature after its
    training date. Versions are pinned at the start; each chunk is a transaction of its own, and a
    row that exists stays, so a run that is killed, repeated or doubled changes nothing.
    """
    with store.begin() as work:
        standing = work.standing()
        if standing.champion is None:
            raise Refused("there is no champion to score with; train the first one: cancellations retrain --as-of DAY")
        versions = [v for v in (standing.champion, standing.challenger) if v is not None]
        trained = {v: record.trained_as_of for v in versions if (record := work.version(v)) is not None}
        history = work.history(booked_until=until, known_until=until)
    written: dict[str, int] = {}
    for version in versions:
        model = registry.load(version)
        open_since = trained[version] - timedelta(days=rule.settle_days)
        written[version] = 0
        key: tuple[date, str] | None = None
        while True:
            with store.begin() as work:
                page = work.unscored(version, after, until, key, chunk_rows, arriving_after=open_since)
                if page.empty:
                    break
                rows = page[["reservation_id"]].assign(probability=model.predict(features.build(page, history, rule)))
                written[version] += work.add_predictions(version, rows, until, clock())
                work.commit()
            last = page.iloc[-1]
            key = (pd.Timestamp(last["booked_on"]).date(), str(last["reservation_id"]))
            on_chunk(version, written[version])
    return Scored(standing.champion, written)
