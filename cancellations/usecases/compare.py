"""Two versions on the same bookings, of which neither can have learnt: figures, and where they disagree."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from cancellations.domain import labels
from cancellations.domain.comparison import LEAST_BURN_IN_DAYS, Day, daily_gains, log_loss, resampled_gain
from cancellations.domain.evaluation import CONFIDENCE, Cohort, Evaluation, Interval, means
from cancellations.domain.reservation import group_keys
from cancellations.errors import BadInput, NotEnoughData
from cancellations.ports import Evaluator, Pictures, Registry, Store, VersionRecord
from cancellations.usecases.point_in_time import as_scored
from cancellations.usecases.untouched import untouched_of

# A mean log loss of fewer moves by more than versions of one family differ.
LEAST_ROWS = 100
RESAMPLES = 1_000
SHOWN = 20
# By what the gain is told in parts.
PARTS = ("hotel", "market_segment")


@dataclass(frozen=True)
class Side:
    """One of the two: what it was made of, and its figures. `recipe` is empty where it is not on record."""

    version: str
    recipe: str
    labels: labels.Labels
    trained_as_of: date
    data_digest: str
    training_rows: int | None
    evaluation: Evaluation


@dataclass(frozen=True)
class Part:
    """Bookings of one hotel or market segment: mean log loss of each version, and what the second saves.

    `value` is None for bookings that tell none.
    """

    column: str
    value: str | None
    bookings: int
    cancel_rate: float
    first: float
    second: float
    gain: Interval


@dataclass(frozen=True)
class Disagreement:
    """A booking with both probabilities, and what became of it."""

    reservation_id: str
    hotel: str
    market_segment: str | None
    booked_on: date
    arrival_on: date
    first: float
    second: float
    cancelled: bool


@dataclass(frozen=True)
class SideBySide:
    """Two versions on the same `bookings`, of `groups` booking groups.

    They matured `matured_from` to `matured_until`; `left_out` more did in the days that were asked for, and one
    of the versions may have learnt from them, or somebody acted upon them. `gain`: log loss that the second
    saves per booking, maturity days resampled, without bounds where they are fewer than 14; `apart`: mean
    absolute difference of the probabilities. `parts` by number of bookings; `disagreements`: where the
    probabilities differ most.
    """

    first: Side
    second: Side
    matured_from: date
    matured_until: date
    bookings: int
    groups: int
    left_out: int
    cancel_rate: float
    gain: Interval
    apart: float
    parts: tuple[Part, ...]
    disagreements: tuple[Disagreement, ...]


@dataclass(frozen=True)
class Compared:
    """The comparison, its picture (PNG), and the folder beside the second version that keeps both."""

    found: SideBySide
    picture: bytes
    kept: str


def compare(
    first: str,
    second: str,
    *,
    store: Store,
    registry: Registry,
    evaluator: Evaluator,
    pictures: Pictures,
    rule: labels.LabelRule,
    seed: int,
    as_of: date,
    days: int,
) -> Compared:
    """Both versions on the bookings that matured in the last `days` until a day, with features as stored.

    Raises `BadInput` for a version that there is not, and for one and the same; `NotEnoughData` where too
    few bookings matured that neither can have learnt from.
    """
    if first == second:
        raise BadInput(f"version {first} is no other than version {second}; name two: cancellations history")
    records = [registry.record(version) for version in (first, second)]
    after = as_of - timedelta(days=days)
    with store.begin() as work:
        history = work.history(booked_until=as_of, known_until=as_of, ending=rule.maturing(after, as_of))
        matured = labels.matured(history, rule, as_of, after)
        unseen = np.logical_and(*(record.unseen(matured, rule) for record in records))
        # Nor may the shift of a recalibrated one have seen them.
        unseen &= (matured["matured_on"] > pd.Timestamp(max(r.known_until for r in records))).to_numpy()
        unseen &= untouched_of(work, matured, rule, as_of).rows
        rows = matured[unseen].reset_index(drop=True)
        _require_enough(rows, len(matured), records, as_of, days)
        features = as_scored(work, rows, rule)
    theirs, ours = (registry.load(version).predict(features) for version in (first, second))
    label = rows["label"].to_numpy()
    cohort = Cohort(
        label, rows["matured_on"].to_numpy(), group_keys(rows), rows["market_segment"].to_numpy(dtype=object)
    )
    sides = [
        _side(record, evaluator.evaluate(label, probability, cohort.groups, seed))
        for record, probability in zip(records, (theirs, ours), strict=True)
    ]
    days_read = daily_gains(rows["matured_on"], label, theirs, ours)
    found = SideBySide(
        first=sides[0],
        second=sides[1],
        matured_from=days_read[0].day,
        matured_until=days_read[-1].day,
        bookings=len(rows),
        groups=sides[0].evaluation.groups,
        left_out=len(matured) - len(rows),
        cancel_rate=float(label.mean()),
        gain=_gain(days_read, seed),
        apart=float(np.abs(ours - theirs).mean()),
        parts=_parts(rows, cohort, theirs, ours, seed),
        disagreements=_disagreements(rows, theirs, ours),
    )
    picture = pictures.comparison(f"version {first}", f"version {second}", cohort, theirs, ours)
    return Compared(found, picture, _keep(found, picture, registry))


def _require_enough(rows: pd.DataFrame, matured: int, records: Sequence[VersionRecord], as_of: date, days: int) -> None:
    if len(rows) >= LEAST_ROWS:
        return
    trained = " and ".join(f"version {record.version} as of {record.known_until}" for record in records)
    stepwise = [f"version {record.version}" for record in records if record.labels.stepwise]
    strict = ""
    if stepwise:
        strict = (
            f" {' and '.join(stepwise)} learnt from bookings before they matured, so only those that were made after"
            " its training can test it."
        )
    raise NotEnoughData(
        f"{matured:,} bookings matured in the {days} days until {as_of}, and of {len(rows):,} of them neither version"
        f" can have learnt; {LEAST_ROWS} are needed. They were trained: {trained}.{strict} Choose a later day (--as-of)"
        " or more of them (--days), and load outcomes until then"
    )


def _side(record: VersionRecord, evaluation: Evaluation) -> Side:
    rows = record.metrics.get("training_rows")
    return Side(
        version=record.version,
        recipe=record.recipe,
        labels=record.labels,
        trained_as_of=record.trained_as_of,
        data_digest=record.data_digest,
        training_rows=None if rows is None else int(rows),
        evaluation=evaluation,
    )


def _gain(days: Sequence[Day], seed: int) -> Interval:
    value, low, high = resampled_gain(days, seed, RESAMPLES, CONFIDENCE)
    # Two days drawn with replacement are the same two days: their interval is far too narrow.
    return Interval(value, low, high) if len(days) >= LEAST_BURN_IN_DAYS else Interval(value, None, None)


def _parts(rows: pd.DataFrame, cohort: Cohort, theirs: np.ndarray, ours: np.ndarray, seed: int) -> tuple[Part, ...]:
    losses = log_loss(cohort.label, theirs), log_loss(cohort.label, ours)
    parts = []
    for column in PARTS:
        cell, values = pd.factorize(rows[column].astype(object), use_na_sentinel=False)
        gains = means(losses[0] - losses[1], cell, cohort.groups, seed)
        of_column = []
        for number, (value, gain) in enumerate(zip(values, gains, strict=True)):
            if gain is None:
                continue
            inside = cell == number
            of_column.append(
                Part(
                    column=column,
                    value=None if pd.isna(value) else str(value),
                    bookings=int(inside.sum()),
                    cancel_rate=float(cohort.label[inside].mean()),
                    first=float(losses[0][inside].mean()),
                    second=float(losses[1][inside].mean()),
                    gain=gain,
                )
            )
        parts += sorted(of_column, key=lambda part: (-part.bookings, part.value or ""))
    return tuple(parts)


def _disagreements(rows: pd.DataFrame, theirs: np.ndarray, ours: np.ndarray) -> tuple[Disagreement, ...]:
    told = rows.assign(first=theirs, second=ours, apart=np.abs(ours - theirs))
    most = told.sort_values(["apart", "reservation_id"], ascending=[False, True]).head(SHOWN)
    return tuple(
        Disagreement(
            reservation_id=str(row.reservation_id),
            hotel=str(row.hotel),
            market_segment=None if pd.isna(row.market_segment) else str(row.market_segment),
            booked_on=row.booked_on.date(),
            arrival_on=row.arrival_on.date(),
            first=float(row.first),
            second=float(row.second),
            cancelled=bool(row.label),
        )
        for row in most.itertuples()
        if row.apart > 0
    )


def _keep(found: SideBySide, picture: bytes, registry: Registry) -> str:
    """Picture and figures beside the second version's run; the same question again replaces its answer."""
    name = f"with-version-{found.first.version}-until-{found.matured_until}"
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "comparison.png", Path(folder) / "comparison.json"
        files[0].write_bytes(picture)
        files[1].write_text(json.dumps(asdict(found), default=str, indent=2), encoding="utf-8")
        registry.log_comparison(found.second.version, name, files)
    return f"comparisons/{name}"
