"""What a load of a table would bring, told without loading it.

Rows are judged as `usecases.ingest` judges them, with nothing outside the span: what could not be read,
rules of a reservation, ids that appear again. A load counts as stopped by the same limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd

from cancellations.domain.labels import CANCELLED
from cancellations.domain.reservation import (
    COLUMNS,
    MISSING_RULE,
    Column,
    early,
    early_actions,
    nameless,
    no_problems,
    told_once,
    violations,
)
from cancellations.errors import BadInput
from cancellations.ports import SourceBatch
from cancellations.settings import Quarantine
from cancellations.sources.looks import GROWS, STAYS_ALIKE, growth
from cancellations.sources.mapped import MappedTable
from cancellations.sources.mapping import (
    INPUTS,
    Concat,
    Constant,
    DateParts,
    Expression,
    Read,
    RowNumber,
    Sum,
    parse,
)
from cancellations.sources.mapping import Mapping as Meaning

EXAMPLES = 3
LONGEST = 40
# As `domain.reservation.violations` says it.
# Values kept to tell the median of prices.
KEPT_PRICES = 200_000
# A night costs between these at the median; a hundredth of, or tens of times, that is a sign slipped or a total.
USUAL_PRICE = (5.0, 1_000.0)
# Values of a category counted; more are told as "at least".
MOST_VALUES = 1_000
# Bookings of each kind from which on a price that is told for one of them only is no chance.
TELLING_ROWS = 20


@dataclass(frozen=True)
class Broken:
    """One rule: how many rows break it, the first of them, and what stands there."""

    column: str
    rule: str
    rows: int
    first_row: int
    example: str


@dataclass(frozen=True)
class Field:
    """What feeds a column or an input, the share of rows in which it is missing, and some of its values."""

    name: str
    fed_by: str
    missing: float
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Declared:
    """A feature that the mapping adds: `low` and `high` of a number, `values` of a category."""

    name: str
    kind: str
    fed_by: str
    missing: float
    values: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Check:
    """A table as its mapping reads it. `passes` tells whether a load would be let through."""

    source: str
    rows: int
    whole: bool  # all rows of the table were read
    loaded: int
    repeated: int
    quarantined: int
    limit: float
    passes: bool
    broken: tuple[Broken, ...]
    booked: tuple[date, date] | None
    arrivals: tuple[date, date] | None
    statuses: Mapping[str, int]
    actions: Mapping[str, int]
    open: int
    cancel_rate: float | None  # of the bookings that have ended
    undated: int
    undated_as: str
    fields: tuple[Field, ...]
    without: Mapping[str, str]
    features: tuple[Declared, ...]
    warnings: tuple[str, ...]


def check(source: MappedTable, quarantine: Quarantine, today: date, rows: int | None = None) -> Check:
    """Reads a table, or its first `rows`, and writes nothing; raises `BadInput` for what is no whole table."""
    if rows is not None and rows < 1:
        raise BadInput(f"{rows} rows are none. Give a number from 1 on.")
    tally = _Tally(parse(source.mapping), source.columns, today)
    left, whole = rows, True
    for batch in source.batches():
        if left is not None and len(batch.raw) > left:
            batch, whole = _first(batch, left), False
        tally.add(batch)
        if not whole:
            break
        left = None if left is None else left - len(batch.raw)
    return tally.told(source, quarantine, whole=whole)


def _first(batch: SourceBatch, rows: int) -> SourceBatch:
    index = batch.raw.index[:rows]
    reservations = batch.reservations
    return SourceBatch(
        batch.raw.loc[index],
        None if reservations is None else reservations[reservations.index.isin(index)],
        batch.outcomes[batch.outcomes.index.isin(index)],
        batch.problems[batch.problems["row"].isin(index)].reset_index(drop=True),
        None if batch.actions is None else batch.actions[batch.actions.index.isin(index)],
    )


# --- counting -----------------------------------------------------------------------------------------


@dataclass
class _Rule:
    first_row: int
    example: str
    rows: int = 0


@dataclass
class _Filled:
    """How often a field is missing, and what its first values look like."""

    missing: int = 0
    examples: list[str] = field(default_factory=list)
    values: set[str] = field(default_factory=set)
    low: float = np.inf
    high: float = -np.inf


class _Tally:
    """What has been met so far; of a row it keeps two hashes, and of the first ones the price."""

    def __init__(self, meaning: Meaning, columns: tuple[Column, ...], today: date) -> None:
        self._meaning, self._columns, self._today = meaning, columns, pd.Timestamp(today)
        self._given: dict[str, Expression] = dict(meaning.reservation or {})
        self._rules: dict[tuple[str, str], _Rule] = {}
        self._fields = {name: _Filled() for name in self._given}
        self._extras = {name: _Filled() for name in meaning.features}
        self._statuses: dict[str, int] = {}
        self._actions: dict[str, int] = {}
        # Status, "" for none yet -> bookings; and those of which an optional column says nothing.
        self._ended: dict[str, int] = {"canceled": 0, "stayed": 0, "": 0}
        self._nothing: dict[tuple[str, str], int] = {}
        self._spans: dict[str, tuple[pd.Timestamp, pd.Timestamp]] = {}
        self._prices: list[pd.DataFrame] = []
        self._ids: list[np.ndarray] = []
        self._contents: list[np.ndarray] = []
        self._rows_of: list[np.ndarray] = []
        self.rows = self.bookings = self.quarantined = self.undated = 0
        self.open = self.awaited = self.before = self.future = self.outside = 0

    def add(self, batch: SourceBatch) -> None:
        reservations, outcomes = batch.reservations, batch.outcomes
        self.rows += len(batch.raw)
        if reservations is None:
            broken = nameless(outcomes)
        else:
            broken = pd.concat([violations(reservations, self._columns), early(outcomes, reservations)])
            if batch.actions is not None:
                broken = pd.concat([broken, early_actions(batch.actions, reservations)])
        problems = told_once(pd.concat([batch.problems, broken, no_problems()], ignore_index=True))
        self._note(self._causes(problems), batch.raw)
        bad = batch.raw.index.isin(problems["row"])
        self.quarantined += int(bad.sum())
        good = batch.raw.index[~bad]
        self._remember(reservations, outcomes, good)
        for status, count in outcomes["status"].value_counts().items():
            self._statuses[str(status)] = self._statuses.get(str(status), 0) + int(count)
        if batch.actions is not None:
            for action, count in batch.actions["action_taken"].value_counts().items():
                self._actions[str(action)] = self._actions.get(str(action), 0) + int(count)
        self.undated += int(outcomes["known_on"].isna().sum())
        if reservations is None:
            self.outside += int((~bad & ~batch.raw.index.isin(outcomes.index)).sum())
            return
        self.bookings += len(reservations)
        self.before += int((reservations["arrival_on"] < reservations["booked_on"]).sum())
        self.future += int((reservations["booked_on"] > self._today).sum())
        still = reservations.loc[good.difference(outcomes.index), "arrival_on"]
        self.open += len(still)
        self.awaited += int((still > self._today).sum())
        for name in ("booked_on", "arrival_on"):
            self._span(name, reservations.loc[good, name].dropna())
        if sum(map(len, self._prices)) < KEPT_PRICES:
            nights = reservations["weekend_nights"] + reservations["week_nights"]
            self._prices.append(pd.DataFrame({"price": reservations["price"], "nights": nights}).dropna())
        self._leak(reservations, outcomes["status"].reindex(reservations.index).fillna(""))
        for name, filled in self._fields.items():
            self._fill(filled, name, reservations, batch.raw)
        for name, filled in self._extras.items():
            _count(filled, reservations[name])

    def _causes(self, problems: pd.DataFrame) -> pd.DataFrame:
        """Without what is missing only because the column that it is made of cannot be read."""
        made = {ours for name in self._given for ours in INPUTS.get(name, ())}
        missing = problems["column"].isin(made) & (problems["rule"] == MISSING_RULE)
        roots = problems.loc[~missing & problems["column"].isin(made | {"arrival_on"}), "row"]
        return problems[~(missing & problems["row"].isin(roots))]

    def _note(self, problems: pd.DataFrame, raw: pd.DataFrame) -> None:
        for row, column, rule in zip(problems["row"], problems["column"], problems["rule"], strict=True):
            key = str(column), _general(str(rule))
            if key not in self._rules:
                self._rules[key] = _Rule(int(row), self._example(str(column), raw.loc[row]))
            self._rules[key].rows += 1

    def _example(self, ours: str, row: pd.Series) -> str:
        """What stands in the columns that feed one of ours."""
        outcome = self._meaning.outcome
        feeding: list[Expression | None] = [
            self._given.get(ours),
            *(self._given.get(name) for name, feeds in INPUTS.items() if ours in feeds),
        ]
        if outcome is not None and ours in ("status", "known_on", "action_taken", "acted_on"):
            feeding.append(getattr(outcome, ours))
        if outcome is not None and ours == "reservation_id":
            feeding.append(outcome.reservation_id)
        if ours in self._meaning.features:
            feeding.append(self._meaning.features[ours].value)
        names = dict.fromkeys(c for e in feeding if e is not None for c in e.columns)
        return ", ".join(f"{name} = {_shown(row[name])}" for name in names if name in row)

    def _remember(self, reservations: pd.DataFrame | None, outcomes: pd.DataFrame, good: pd.Index) -> None:
        content = outcomes if reservations is None else reservations.join(outcomes[["status", "known_on"]])
        content = content.loc[content.index.intersection(good)]
        self._ids.append(pd.util.hash_array(content["reservation_id"].to_numpy(dtype=object)))
        self._contents.append(pd.util.hash_pandas_object(content, index=False).to_numpy())
        self._rows_of.append(content.index.to_numpy(dtype="int64"))

    def _leak(self, reservations: pd.DataFrame, statuses: pd.Series) -> None:
        for status in self._ended:
            chosen = reservations[statuses == status]
            self._ended[status] += len(chosen)
            for column in self._columns:
                if not column.required:
                    values = chosen[column.name]
                    # A price of 0, or another amount, says nothing either.
                    nothing = values.isna() | (values == 0) if column.kind == "number" else values.isna()
                    key = column.name, status
                    self._nothing[key] = self._nothing.get(key, 0) + int(nothing.sum())

    def _span(self, name: str, days: pd.Series) -> None:
        if days.empty:
            return
        low, high = self._spans.get(name, (days.min(), days.max()))
        self._spans[name] = min(low, days.min()), max(high, days.max())

    def _fill(self, filled: _Filled, name: str, reservations: pd.DataFrame, raw: pd.DataFrame) -> None:
        read = _read(name, reservations)
        filled.missing += int(read.isna().sum())
        columns = list(self._given[name].columns)
        if len(filled.examples) >= EXAMPLES:
            return
        for row, value in read.dropna().drop_duplicates().head(EXAMPLES - len(filled.examples)).items():
            ours = _value(value)
            if name in ("departure_on", "nights"):
                ours = "1 night" if value == 1 else f"{ours} nights"
            theirs = " ".join(_shown(raw.at[row, column]) for column in columns)
            told = ours if theirs in ("", ours) else f"{theirs} → {ours}"
            if told not in filled.examples:
                filled.examples.append(told)

    # --- the end ---

    def told(self, source: MappedTable, quarantine: Quarantine, *, whole: bool) -> Check:
        repeated, other = self._again()
        quarantined = self.quarantined + other
        judged = self.rows - self.outside
        share = quarantined / judged if judged else 0.0
        rules = sorted(self._rules.items(), key=lambda item: (-item[1].rows, item[0]))
        ended = sum(self._statuses.values())
        canceled = sum(self._statuses.get(status, 0) for status in CANCELLED)
        fed = self._meaning.fed
        return Check(
            source=source.name,
            rows=self.rows,
            whole=whole,
            loaded=judged - quarantined - repeated,
            repeated=repeated,
            quarantined=quarantined,
            limit=quarantine.limit,
            passes=quarantined <= quarantine.spared or share <= quarantine.limit,
            broken=tuple(Broken(c, rule, r.rows, r.first_row, r.example) for (c, rule), r in rules),
            booked=self._days("booked_on"),
            arrivals=self._days("arrival_on"),
            statuses=dict(sorted(self._statuses.items())),
            actions=dict(sorted(self._actions.items())),
            open=self.open,
            cancel_rate=canceled / ended if ended else None,
            undated=self.undated,
            undated_as=source.undated.value,
            fields=tuple(
                Field(name, _expression(self._given[name]), self._share(filled), tuple(filled.examples))
                for name, filled in self._fields.items()
            ),
            without={c.name: c.without for c in COLUMNS if self._given and c.name not in fed},
            features=tuple(self._declared(name, filled) for name, filled in self._extras.items()),
            warnings=tuple(self._warnings(ended, canceled)),
        )

    def _again(self) -> tuple[int, int]:
        """Rows that repeat an earlier one, and rows that have its id with other values; the latter are noted."""
        if not self._ids:
            return 0, 0
        seen = pd.DataFrame(
            {
                "id": np.concatenate(self._ids),
                "content": np.concatenate(self._contents),
                "row": np.concatenate(self._rows_of),
            }
        )
        first = seen.groupby("id")["content"].transform("first")
        again = seen["id"].duplicated()
        other = seen.loc[again & (seen["content"] != first), "row"]
        if len(other):
            key = "reservation_id", "appears again, with other values"
            self._rules[key] = _Rule(int(other.iloc[0]), "", len(other))
        return int((again & (seen["content"] == first)).sum()), len(other)

    def _share(self, filled: _Filled) -> float:
        return filled.missing / self.bookings if self.bookings else 0.0

    def _days(self, name: str) -> tuple[date, date] | None:
        span = self._spans.get(name)
        return None if span is None else (span[0].date(), span[1].date())

    def _declared(self, name: str, filled: _Filled) -> Declared:
        feature = self._meaning.features[name]
        number = feature.kind == "number" and np.isfinite(filled.low)
        return Declared(
            name,
            feature.kind,
            _expression(feature.value),
            self._share(filled),
            len(filled.values),
            filled.low if number else None,
            filled.high if number else None,
        )

    def _warnings(self, ended: int, canceled: int) -> Iterator[str]:
        booked = self._days("booked_on")
        if booked is not None and booked[0] == booked[1] and self.bookings > 1:
            yield f"all bookings were made on one day, {booked[0]}: is booked_on the day of the export?"
        if self.before * 2 >= self.bookings > 0:
            yield (
                f"{self.before:,} bookings arrive before they were made: booked_on and arrival_on may be exchanged, or"
                " day and month"
            )
        unread = sum(r.rows for (c, rule), r in self._rules.items() if c.endswith("_on") and " is no date of " in rule)
        if unread * 5 >= self.rows > 0 or self.future * 50 >= self.bookings > 0:
            told = (
                f"{unread:,} dates cannot be read, {self.future:,} bookings are made after today ({self._today.date()})"
            )
            yield f"{told}: day and month may be exchanged in a format"
        if ended and canceled > 0.9 * ended:
            told = f"{canceled / ended:.0%} of the bookings that ended were cancelled"
            yield f"{told}: are stays missing, or statuses mixed up?"
        if ended and canceled == 0:
            yield "no booking was cancelled: nothing can be learned from that; look at the statuses"
        if self._given and self._meaning.outcome is None:
            yield "no [outcome] is read: bookings can be scored, and nothing can be learned from them"
        prices = pd.concat(self._prices) if self._prices else pd.DataFrame({"price": [], "nights": []})
        power = growth(prices["price"], prices["nights"])
        if power is not None and "price" in self._given and power > GROWS:
            yield "longer stays cost more by the night: the price seems to be that of the stay, which feeds total_price"
        if power is not None and "total_price" in self._given and power < STAYS_ALIKE - 1:
            yield "longer stays cost less by the night: total_price seems to be the price of a night, which feeds price"
        if len(prices) and not USUAL_PRICE[0] <= (median := float(prices["price"].median())) <= USUAL_PRICE[1]:
            yield (
                f"half of the nights cost {'more' if median > USUAL_PRICE[1] else 'less'} than {median:,.2f}: is that"
                " the price of a stay, or the decimal sign wrong? It is right in some currencies"
            )
        yield from self._leaks()
        again = self._rules.get(("reservation_id", "appears again, with other values"))
        if again is not None:
            yield f"{again.rows:,} rows have the id of another row: reservation_id is not unique in this table"
        if self._given and ended and self.open == 0:
            yield "every booking has its outcome: good to learn from; none is open, so there is nothing to score"
        if self.open and self._meaning.outcome is not None and self.awaited == 0 and self.open * 2 > self.bookings:
            yield (
                f"{self.open:,} bookings have no outcome, and all of them should have arrived: they count as kept; are"
                " their statuses mapped right?"
            )
        if self._given == {} and self.undated:
            yield f"{self.undated:,} outcomes tell no day: it follows from the arrival of their bookings, at the load"

    def _leaks(self) -> Iterator[str]:
        """Columns that are told for kept bookings and not for cancelled ones, or the other way round."""
        # A source that never says "stayed" leaves stays as they were booked.
        kept = "stayed" if self._ended["stayed"] >= TELLING_ROWS else ""
        if min(self._ended["canceled"], self._ended[kept]) < TELLING_ROWS:
            return
        for column in self._columns:
            if column.required or (column.name not in self._meaning.fed and column.name not in self._extras):
                continue
            shares = [self._nothing[column.name, status] / self._ended[status] for status in ("canceled", kept)]
            if abs(shares[0] - shares[1]) > 0.5:
                yield (
                    f"{column.name} is {'0 or ' if column.kind == 'number' else ''}missing for {shares[0]:.0%} of the"
                    f" cancelled and {shares[1]:.0%} of the kept bookings: the outcome changed it, and a model that"
                    " sees it learns nothing else. Leave it out"
                )


# What differs from row to row in a rule's sentence.
_FOUND = re.compile(
    r"^(?:'(?:[^'\\]|\\.)*'?…?|\"(?:[^\"\\]|\\.)*\"?…?)(?= in column | is no status)"
    r"|(?<=^a lead of )\S+|(?<=^the stay has )\S+|^\S+(?= nights are )|(?<=^the row has )\S+"
    r"|(?<=^year, month and day )(?:'.*?'|\".*?\")…?(?= in columns )"
)


def _general(rule: str) -> str:
    """A rule without the value that broke it, so that its rows can be counted."""
    return _FOUND.sub("…", rule)


# --- words --------------------------------------------------------------------------------------------


def _read(name: str, reservations: pd.DataFrame) -> pd.Series:
    """What a column, or what is made of an input, was read as."""
    if name in ("departure_on", "nights"):
        return reservations["weekend_nights"] + reservations["week_nights"]
    return reservations[{"lead_days": "booked_on", "total_price": "price"}.get(name, name)]


def _count(filled: _Filled, values: pd.Series) -> None:
    filled.missing += int(values.isna().sum())
    told = values.dropna()
    if len(filled.values) < MOST_VALUES:
        filled.values.update(list(dict.fromkeys(map(_value, told.unique())))[:MOST_VALUES])
    if len(told) and pd.api.types.is_numeric_dtype(told.dtype):
        filled.low, filled.high = min(filled.low, float(told.min())), max(filled.high, float(told.max()))


def _value(value: object) -> str:
    if isinstance(value, pd.Timestamp):
        return value.date().isoformat()
    return f"{value:.10g}" if isinstance(value, float) else _cut(str(value))


def _shown(value: object) -> str:
    if isinstance(value, str):
        return _cut(value.strip())
    return "nothing" if value is None or value is pd.NaT or value != value else _value(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _expression(expression: Expression) -> str:
    """Where values come from, in the words of the mapping."""
    if isinstance(expression, Read):
        return expression.column + (f" ({expression.format})" if expression.format else "")
    if isinstance(expression, Constant):
        return f"always {expression.constant}"
    if isinstance(expression, RowNumber):
        return "the row's number"
    joint = {Concat: " & ", Sum: " + ", DateParts: "-"}[type(expression)]
    return joint.join(expression.columns)
