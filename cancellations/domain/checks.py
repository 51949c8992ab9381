"""Is a day's batch to be believed? Each of its columns against what the column has shown day by day.

A feed that breaks is no drift. It breaks overnight and whole: a column that comes no more, another unit, a table
of earlier stays that was emptied, one value for everybody. So a check counts the rows of a batch that are odd in
one way, and asks how likely so many would have been on a day of the past. Days differ by more than chance, and
so the count is beta-binomial, with the spread that past days had. Bookings of a group count once: they are copies.

Measured on the public file in `benchmarks/monitor.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from itertools import islice

import numpy as np
import pandas as pd

# Values beyond what nearly all of the past had, by this factor more, are out of range: a season does not reach it,
# another unit does.
BEYOND = 1.5
TAIL = 0.001
# Values that at least this share of the past had keep a record of their own; a column of any other one value is new.
COMMON = 0.01
# What is learned from.
MEMORY_DAYS = 365
# Until so many days have been seen most categories are new.
WARM_UP_DAYS = 56
WEEK = 7
# Days are never as alike as coins: the least correlation of two rows of a day.
LEAST_SPREAD = 0.002


class Check(StrEnum):
    """In which way rows are odd."""

    ABSENT = "absent"  # the column is not there at all
    MISSING = "missing"
    UNSEEN = "unseen category"
    RANGE = "out of range"
    FRACTION = "fractions where numbers were whole"
    CONSTANT = "one value for all"
    FREQUENT = "one value for too many"
    REPEATED = "repeated rows"


@dataclass(frozen=True)
class CheckPolicy:
    """When a day's bookings are not to be believed.

    `chance`: of a day of the past to have as many odd bookings, below which they break a check; with 30 columns and
    three checks each that is once in 30 years where days are as thought. `constant_chance`: of a run of days to have
    one value for all; `frequent_chance`: of as many bookings to have one and the same value, rarer because companies
    book for many guests at once. A day of fewer than `min_rows` groups of bookings says nothing, and nothing is said
    before `min_days` days are there to learn from. A source may have stopped when no booking was made for
    `silent_days` days, and for twice as long as ever in a year.

    `hold`: whether bookings that fail are held back from scoring, or scored all the same. `hold_days` after a day was
    held its bookings are scored as they are, 0: never. Three let a weekend pass, and somebody come to work; most
    bookings are made longer before arrival than that.
    """

    chance: float = 1e-6
    constant_chance: float = 1e-4
    frequent_chance: float = 1e-10
    min_rows: int = 10
    min_days: int = 56
    silent_days: int = 2
    hold: bool = True
    hold_days: int = 3


@dataclass(frozen=True)
class Record:
    """How often rows were odd on days of the past: a beta distribution of a day's share, and its highest."""

    a: float
    b: float
    highest: float

    @property
    def usual(self) -> float:
        return self.a / (self.a + self.b)

    def chance(self, odd: int, rows: int) -> float:
        """Of a day with so many rows to have so many odd ones, or more."""
        if odd == 0:
            return 1.0
        # From all rows downwards, each count's chance from that of one row more.
        k = np.arange(rows, odd, -1, dtype=float)
        ratios = k * (rows - k + self.b) / ((rows - k + 1) * (k - 1 + self.a))
        all_odd = _log_beta(rows + self.a, self.b) - _log_beta(self.a, self.b)
        logs = all_odd + np.concatenate([[0.0], np.cumsum(np.log(ratios))])
        return min(1.0, float(np.exp(logs).sum()))

    @classmethod
    def of(cls, odd: np.ndarray, rows: np.ndarray) -> Record:
        """By moments, of counts of odd rows and of all rows on days, shapes (days,)."""
        odd, rows = odd[rows > 0].astype(float), rows[rows > 0].astype(float)
        total = rows.sum()
        share = (odd.sum() + 0.5) / (total + 1)
        spread = LEAST_SPREAD
        if len(rows) > 1 and total > len(rows):
            inflated = ((odd - rows * share) ** 2 / (rows * share * (1 - share))).sum() / (len(rows) - 1)
            spread = float(np.clip((inflated - 1) / (rows.mean() - 1 + 1e-9), LEAST_SPREAD, 0.9))
        concentration = 1 / spread - 1
        many = rows >= np.median(rows) if len(rows) else rows > 0
        highest = float((odd[many] / rows[many]).max()) if many.any() else 0.0
        return cls(float(share * concentration), float((1 - share) * concentration), highest)


@dataclass(frozen=True)
class ColumnPast:
    """What one column has shown: records by check, of its common values, and what it knows.

    `values`: how often all of a day's bookings have one; `other` likewise of a value that is not common, `top` of the
    most frequent one of those.
    """

    records: Mapping[Check, Record]
    values: Mapping[object, Record]
    other: Record
    top: Record
    seen: frozenset[str] = frozenset()
    low: float = -np.inf
    high: float = np.inf
    least: float = 0.0

    def beyond(self, numbers: np.ndarray) -> np.ndarray:
        """Which numbers are out of range, or nearer to 0 than any but 0 itself has been."""
        near = (numbers != 0) & (np.abs(numbers) < self.least)
        return ~np.isfinite(numbers) | (numbers < self.low) | (numbers > self.high) | near


@dataclass(frozen=True)
class Past:
    """What the columns of features have shown by day of booking; `days` that it was learned from."""

    columns: Mapping[str, ColumnPast]
    repeated: Record
    days: int
    numeric: frozenset[str] = field(default=frozenset())


@dataclass(frozen=True)
class Finding:
    """A check that a batch fails: `odd` of its `rows`, where `usual` is the share of the past and `chance` that of a
    day of the past to have as many; `example` is an odd value."""

    column: str
    check: Check
    odd: int
    rows: int
    usual: float
    chance: float
    example: str = ""

    def __str__(self) -> str:
        what = f"{self.column}: {self.check}" if self.column else str(self.check)
        example = f", for example {self.example}" if self.example else ""
        return f"{what} in {self.odd:,} of {self.rows:,} bookings (usually {self.usual:.1%}){example}"


@dataclass(frozen=True)
class DayCheck:
    """A day's bookings, checked against `learned_from` days before it."""

    day: date
    bookings: int
    learned_from: int
    findings: tuple[Finding, ...] = ()

    @property
    def failed(self) -> frozenset[tuple[str, Check]]:
        return frozenset((finding.column, finding.check) for finding in self.findings)


class HoldState(StrEnum):
    """What has become of a day whose bookings were held back from scoring; all but the first are final."""

    HELD = "held"
    PASSED = "passed"  # delivered anew, they pass the checks
    RELEASED = "released"  # a person, or the setting, says that they are scored as they are
    EXPIRED = "expired"  # nobody mended them or said anything in time: they are scored as they are

    @property
    def judged(self) -> bool:
        """Whether somebody, or time, has said that the day's bookings are scored whatever checks say."""
        return self in (HoldState.RELEASED, HoldState.EXPIRED)


@dataclass(frozen=True)
class Hold:
    """Bookings made on a day that were held back from scoring, `held_on` a day of event time.

    `bookings` of the day that had no score when it was checked last, with what they fail; `content` tells whether
    they have changed since. `by` and `reason` say who ended it, and why. `since` is an instant.
    """

    day: date
    held_on: date
    bookings: int
    findings: tuple[Finding, ...]
    content: str = ""
    state: HoldState = HoldState.HELD
    by: str | None = None
    reason: str | None = None
    since: datetime | None = None

    @property
    def failed(self) -> frozenset[tuple[str, Check]]:
        return frozenset((finding.column, finding.check) for finding in self.findings)


def learn(features: pd.DataFrame, booked_on: pd.Series, groups: np.ndarray) -> Past:
    """Records of the last year of `features`, as `domain.features.build` makes them, by day of booking.

    `groups` as `domain.reservation.group_keys` gives them; all of one length.
    """
    recent = (booked_on > booked_on.max() - pd.Timedelta(days=MEMORY_DAYS)).to_numpy()
    features, booked_on, groups = features[recent], booked_on[recent], groups[recent]
    _, day = np.unique(booked_on.to_numpy(), return_inverse=True)
    repeated = Record.of(*_by_day(features.assign(_day=day).duplicated().to_numpy(), day))
    first = _first_of_group(day, groups)
    features, day = features[first], day[first]
    columns = {}
    numeric = frozenset(str(c) for c in features if pd.api.types.is_numeric_dtype(features[c].dtype))
    for name in features.columns:
        learned = _learn_numbers if name in numeric else _learn_categories
        columns[str(name)] = learned(features[name], day)
    return Past(columns, repeated, int(day.max()) + 1 if len(day) else 0, numeric)


def check(
    features: pd.DataFrame, booked_on: pd.Series, groups: np.ndarray, past: Past, policy: CheckPolicy
) -> tuple[Finding, ...]:
    """What is wrong with the bookings of the last day, the least likely first; empty when nothing is, or when they
    are too few to tell.

    `features` of the bookings of that day and of some days before it, by which it is told for how long a column has
    had one value; `groups` as `learn` takes them.
    """
    first = _first_of_group(booked_on.to_numpy(), groups)
    today = (booked_on == booked_on.max()).to_numpy()
    if (first & today).sum() < policy.min_rows:
        return ()
    found = [_finding("", Check.REPEATED, features[today].duplicated().to_numpy(), past.repeated)]
    batch, days = features[first], _latest_first(booked_on[first].to_numpy())
    for name, column in past.columns.items():
        if name not in batch:
            rows = int(today.sum())
            found.append(Finding(name, Check.ABSENT, rows, rows, 0.0, 0.0))
            continue
        values = batch[name]
        own = values.iloc[days[0]]
        found.extend(_today(name, own, column, numeric=name in past.numeric))
        found.extend(_frequent(name, own, column))
        found.extend(_constant(name, values, days, column))
    limits = {Check.CONSTANT: policy.constant_chance, Check.FREQUENT: policy.frequent_chance}
    failed = [f for f in found if f.chance < limits.get(f.check, policy.chance)]
    # Said of a column of which nothing else is: what is missing, new or out of range is often one value, too.
    otherwise = {f.column for f in failed if f.check is not Check.FREQUENT}
    failed = [f for f in failed if f.check is not Check.FREQUENT or f.column not in otherwise]
    return tuple(sorted(failed, key=lambda f: (f.chance, f.column)))


def _today(name: str, values: pd.Series, past: ColumnPast, *, numeric: bool) -> Iterator[Finding]:
    missing = values.isna().to_numpy()
    yield _finding(name, Check.MISSING, missing, past.records[Check.MISSING])
    present = values[~missing]
    if present.empty:
        return
    if not numeric:
        unseen = ~present.astype("str").isin(past.seen).to_numpy()
        yield _finding(name, Check.UNSEEN, unseen, past.records[Check.UNSEEN], present)
        return
    numbers = pd.to_numeric(present, errors="coerce").to_numpy(dtype=float)
    yield _finding(name, Check.RANGE, past.beyond(numbers), past.records[Check.RANGE], present)
    if Check.FRACTION in past.records:
        yield _finding(name, Check.FRACTION, numbers != np.floor(numbers), past.records[Check.FRACTION], present)


def _frequent(name: str, values: pd.Series, past: ColumnPast) -> Iterator[Finding]:
    """A value that a part of the bookings were given in place of their own: a default, or nothing."""
    counts = values.value_counts()
    told = list(zip(counts.index.tolist(), counts.tolist(), strict=True))
    others = (one for one in told if one[0] not in past.values)
    for value, count in [*(one for one in told if one[0] in past.values), *islice(others, 1)]:
        record = past.values.get(value, past.top)
        chance = _chance(record, count, len(values))
        yield Finding(name, Check.FREQUENT, count, len(values), record.usual, chance, _text(value))


def _constant(name: str, values: pd.Series, days: Sequence[np.ndarray], past: ColumnPast) -> Iterator[Finding]:
    """One value for all, for as many days as it has been so. Days of a week are alike, so a week counts as one day.

    `days`: places of each day's values, the last day's first.
    """
    lengths: list[int] = []
    value = None
    for day in days:
        own = values.iloc[day]
        if own.isna().any() or own.nunique() != 1 or (lengths and own.iloc[0] != value):
            break
        value = own.iloc[0]
        lengths.append(len(own))
    if lengths:
        record = past.values.get(value, past.other)
        weeks = [sum(lengths[start : start + WEEK]) for start in range(0, len(lengths), WEEK)]
        chance = math.prod(record.chance(rows, rows) for rows in weeks)
        yield Finding(name, Check.CONSTANT, sum(lengths), sum(lengths), record.usual, chance, _text(value))


def _finding(name: str, kind: Check, odd: np.ndarray, record: Record, values: pd.Series | None = None) -> Finding:
    count, rows = int(odd.sum()), len(odd)
    chance = _chance(record, count, rows)
    example = _text(values[odd].iloc[0]) if values is not None and count else ""
    return Finding(name, kind, count, rows, record.usual, chance, example)


def _chance(record: Record, odd: int, rows: int) -> float:
    # What some day of the past had is nothing new, whatever the distribution says.
    return 1.0 if odd <= record.highest * rows else record.chance(odd, rows)


def _learn_numbers(values: pd.Series, day: np.ndarray) -> ColumnPast:
    numbers = values.to_numpy(dtype=float)
    present = np.isfinite(numbers)
    records = {Check.MISSING: Record.of(*_by_day(~present, day))}
    own = numbers[present]
    low, high = np.quantile(own, (TAIL, 1 - TAIL)) if len(own) else (-np.inf, np.inf)
    away = np.abs(own[own != 0])
    learned = ColumnPast(
        records,
        *_common(values, day),
        low=float(low * BEYOND if low < 0 else low / BEYOND),
        # A column of zeros has no width to go by.
        high=float(max(high * BEYOND, 1.0) if high >= 0 else high / BEYOND),
        least=float(np.quantile(away, TAIL)) / BEYOND if len(away) else 0.0,
    )
    records[Check.RANGE] = Record.of(*_by_day(learned.beyond(own), day[present]))
    fractions = own != np.floor(own)
    if not fractions.any():
        records[Check.FRACTION] = Record.of(*_by_day(fractions, day[present]))
    return learned


def _learn_categories(values: pd.Series, day: np.ndarray) -> ColumnPast:
    missing = values.isna().to_numpy()
    text, when = values[~missing].astype("str"), day[~missing]
    began = pd.Series(when, index=text.index).groupby(text).transform("min").to_numpy()
    warm = when >= WARM_UP_DAYS
    records = {
        Check.MISSING: Record.of(*_by_day(missing, day)),
        # New on the day on which it is seen first.
        Check.UNSEEN: Record.of(*_by_day((began == when)[warm], when[warm])),
    }
    return ColumnPast(records, *_common(values, day), seen=frozenset(text.unique()))


def _common(values: pd.Series, day: np.ndarray) -> tuple[dict[object, Record], Record, Record]:
    """The record of each common value, one of a value that is not, and one of the most frequent of those."""
    shares = values.value_counts(normalize=True, dropna=True)
    records = {
        value: Record.of(*_by_day((values == value).to_numpy(), day)) for value in shares.index[shares >= COMMON]
    }
    rare = np.zeros(len(values), dtype=bool)
    uncommon = ~values.isin(list(records)).to_numpy() & values.notna().to_numpy()
    each = pd.DataFrame({"day": day[uncommon], "value": values[uncommon].to_numpy()}).value_counts()
    days = int(day.max()) + 1 if len(day) else 0
    most = each.groupby("day").max().reindex(range(days), fill_value=0).to_numpy(dtype=float)
    return records, Record.of(*_by_day(rare, day)), Record.of(most, np.bincount(day, minlength=days))


def _latest_first(day: np.ndarray) -> list[np.ndarray]:
    """Places of the rows of each day, the last day's first, in their order."""
    _, number = np.unique(day, return_inverse=True)
    order = np.argsort(number, kind="stable")
    return np.split(order, np.cumsum(np.bincount(number))[:-1])[::-1]


def _first_of_group(day: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Which bookings are the first of their group on their day."""
    return ~pd.DataFrame({"day": day, "group": groups}).duplicated().to_numpy()


def _by_day(odd: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Odd rows, and all rows, of each day."""
    days = int(day.max()) + 1 if len(day) else 0
    return np.bincount(day, weights=odd, minlength=days), np.bincount(day, minlength=days)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)
