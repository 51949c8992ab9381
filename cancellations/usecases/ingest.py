"""Reservations and outcomes into the store; rows that break a rule into quarantine."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime

import pandas as pd

from cancellations.domain.events import OutcomesArrived
from cancellations.domain.reservation import coerce, violations
from cancellations.ports import LoadCounts, QuarantinedRow, Source, SourceBatch, Store


def ingest(
    source: Source,
    store: Store,
    *,
    after: date | None,
    until: date,
    clock: Callable[[], datetime],
    on_batch: Callable[[int], None] = lambda rows: None,
) -> LoadCounts:
    """Loads bookings made in `(after, until]` and outcomes that became known by `until`.

    A row outside the span is left for a later load, unjudged. Loading the same span again changes
    nothing. New outcomes ring for a trial or probation that reads them. `on_batch` hears how many rows
    have been read so far.
    """
    total = {"read": 0, "outside": 0, "loaded": 0, "unchanged": 0, "updated": 0, "quarantined": 0, "outcomes": 0}
    for batch in source.batches():
        with store.begin() as work:
            reservations = coerce(batch.reservations)
            outside = _outside(reservations, after, until)
            problems = violations(reservations)
            broken = reservations.index.isin(problems["row"])
            good = reservations[~broken & ~outside]
            upserted = work.upsert_reservations(good)
            quarantined = _quarantined(source.name, batch, problems, reservations.index[broken & ~outside])
            work.add_quarantined(quarantined, clock())
            loadable = reservations.loc[~broken, "reservation_id"]
            outcomes = _due(batch.outcomes, loadable, after, until)
            total["outcomes"] += work.record_outcomes(outcomes)
            work.commit()
        total["read"] += len(reservations)
        total["outside"] += int(outside.sum())
        total["loaded"] += upserted.loaded
        total["unchanged"] += upserted.unchanged
        total["updated"] += upserted.updated
        total["quarantined"] += len(quarantined)
        on_batch(total["read"])
    counts = LoadCounts(source=source.name, **total)
    now = clock()
    with store.begin() as work:
        work.add_load(counts, (after, until), now)
        trial = work.open_trial()
        if trial is not None and counts.outcomes > 0:
            work.add_messages(OutcomesArrived(trial.trial_id, until, counts.outcomes, now).messages(), now)
        work.commit()
    return counts


def _outside(reservations: pd.DataFrame, after: date | None, until: date) -> pd.Series:
    outside = reservations["booked_on"] > pd.Timestamp(until)
    if after is not None:
        outside |= reservations["booked_on"] <= pd.Timestamp(after)
    return outside


def _due(outcomes: pd.DataFrame, loadable: pd.Series, after: date | None, until: date) -> pd.DataFrame:
    # By row, not by id: of two rows with one id the second is set aside, and its outcome with it.
    due = outcomes.index.isin(loadable.index) & (outcomes["known_on"] <= pd.Timestamp(until))
    if after is not None:
        due &= outcomes["known_on"] > pd.Timestamp(after)
    return outcomes[due].assign(reservation_id=loadable.reindex(outcomes.index[due]))


def _quarantined(name: str, batch: SourceBatch, problems: pd.DataFrame, rows: pd.Index) -> list[QuarantinedRow]:
    due = problems[problems["row"].isin(rows)]
    return [
        QuarantinedRow(
            source=name,
            row=int(row),
            problems=tuple(f"{p.column}: {p.rule}" for p in group.itertuples()),
            values=json.loads(batch.raw.loc[[row]].to_json(orient="records", date_format="iso"))[0],
        )
        for row, group in due.groupby("row")
    ]
