"""A first mapping for a table, from the names of its columns and from what stands in them.

What is uncertain carries a comment that begins with "check:"; what a reservation needs and no column
seems to hold stands there as a comment that says what to fill in. The same table gives the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from zoneinfo import available_timezones

import numpy as np
import pandas as pd

from cancellations.domain.reservation import COLUMNS
from cancellations.errors import BadInput
from cancellations.sources import sniffing, vocabulary
from cancellations.sources.evaluation import Evaluation
from cancellations.sources.looks import GROWS, STAYS_ALIKE, Seen, growth, swapped
from cancellations.sources.mapping import FORMAT, MISSING, RESERVED, Mapping, Reading
from cancellations.sources.query import SqlTable
from cancellations.sources.tables import Table, open_file

# Of so many rows so many are looked at, evenly spread: exports are sorted, and open bookings come last.
READ_ROWS = 2_000_000
SEEN_ROWS = 20_000
MOST_STATUSES = 40
# Cancelled bookings, and stays, from which on a column that is empty for one of them is no chance.
TELLING_ROWS = 20
MOST_CATEGORIES = 200
# A price of a night beyond what is believed by default: another currency.
_HIGHEST_PRICE = next(c.high for c in COLUMNS if c.name == "price") or np.inf
_COUNTS = {c.name: c for c in COLUMNS if c.kind == "count"}
# In this order columns are given away, so that a name that fits several goes where it fits best.
_DATES = ("arrival_on", "departure_on", "booked_on")
_OPTIONAL = frozenset({"total_price"} | {c.name for c in COLUMNS if not c.required})
_ORDER = (
    "reservation_id",
    *_DATES,
    "known_on",
    "status",
    "lead_days",
    "weekend_nights",
    "week_nights",
    "nights",
    *(c.name for c in COLUMNS if c.name not in ("reservation_id", "weekend_nights", "week_nights", "price", *_DATES)),
    "price",
    "total_price",
)
_WANTED = {
    "booked_on": 'the column with the day of booking, or: lead_days = "the column with the days until arrival"',
    "arrival_on": 'the column with the day of arrival, or: { year = "…", month = "…", day = "…" }',
    "departure_on": 'the column with the day of departure, or: nights = "the column with the number of nights"',
    "reservation_id": "the column that names a booking; rows of a query have no number of their own",
}
# Columns that tell the same.
_ALIKE = (
    ("booked_on", "lead_days"),
    ("departure_on", "nights", "weekend_nights", "week_nights"),
    ("price", "total_price"),
)
_NEEDED_FOR = {
    "booked_on": ("booked_on", "lead_days"),
    "arrival_on": ("arrival_on",),
    "departure_on": ("departure_on", "nights", "weekend_nights"),
    "reservation_id": ("reservation_id",),
}


@dataclass(frozen=True)
class Draft:
    """The text of a mapping; it is one as it stands when nothing is `missing`.

    `missing` names what a reservation needs and was not found; `checks` counts what a person should look at.
    """

    text: str
    missing: tuple[str, ...]
    checks: int


def draft_file(path: Path) -> Draft:
    """A mapping for a CSV or Parquet file; raises `BadInput` when it is no whole table."""
    how = sniffing.written(path)
    if how is None:
        return _draft(open_file(path, Reading()), _Source(path.name))
    reading = Reading(header=how.header, delimiter=how.delimiter, encoding=how.encoding)
    lines = []
    if how.header > 1:
        lines += [
            "# check: the line that names the columns; what stands above it is not read",
            f"header = {how.header}",
        ]
    if how.delimiter != ",":
        lines.append(f"delimiter = {quoted(how.delimiter)}")
    if not how.sure:
        lines.append("# check: accents and umlauts in what `cancellations mapping check` shows")
    if how.encoding != "utf-8":
        lines.append(f"encoding = {quoted(how.encoding)}")
    return _draft(open_file(path, reading), _Source(path.name, tuple(lines)), reading)


def draft_query(query: str, *, url: str | None = None, url_env: str | None = None, name: str = "bookings") -> Draft:
    """A mapping for the answer to a query; raises `BadInput` or `ServiceDown` when there is none."""
    reading = Reading(url=url, url_env=url_env, query=query)
    address = f"url = {quoted(url)}" if url is not None else f"url_env = {quoted(url_env or '')}"
    source = _Source("a query", (address, f"query = {quoted(query)}"), f"name = {quoted(name)}")
    return _draft(SqlTable(reading, "the query", name), source, reading)


@dataclass(frozen=True)
class _Source:
    """What a draft says of where its table comes from."""

    called: str
    reading: tuple[str, ...] = ()
    name: str | None = None

    @property
    def is_query(self) -> bool:
        return self.name is not None


# --- what goes where --------------------------------------------------------------------------------


@dataclass
class _Plan:
    """Which column feeds what, and what a person should know of it."""

    columns: dict[str, Seen]
    given: dict[str, str] = field(default_factory=dict)  # ours -> expression
    of: dict[str, Seen] = field(default_factory=dict)  # ours -> column, where it is one
    checks: dict[str, list[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def feeds(self, ours: str) -> bool:
        """Whether one of ours is fed, by a column or by what it is made of."""
        alike = {name for group in _ALIKE if ours in group for name in group} | {ours}
        return not alike.isdisjoint(self.given)

    def free(self) -> list[Seen]:
        return [c for c in self.columns.values() if c.name not in self.used]

    def feed(self, ours: str, column: Seen, expression: str | None = None) -> None:
        self.of[ours] = column
        self.given[ours] = quoted(column.name) if expression is None else expression
        self.used.add(column.name)

    def _canceled(self) -> pd.Series | None:
        """Which rows of the sample were cancelled (1), and which kept (0); missing for the others.

        A source that never says "stayed" leaves stays as they were booked: there what is not cancelled was kept.
        """
        column = self.of.get("status")
        if column is None:
            return None
        ended = column.texts.map(_statuses(column))
        kept = {"stayed"} if (ended == "stayed").sum() >= TELLING_ROWS else {"stayed", ""}
        return ended.map({"canceled": 1.0, **dict.fromkeys(kept, 0.0)})

    def tells_outcome(self, column: Seen, *, zero: bool = False) -> bool:
        """Whether a column is missing (or, with `zero`, 0) in one half of cancelled bookings more than in kept ones."""
        nothing = column.texts.isna()
        if zero:
            nothing |= column.texts.index.isin(column.numbers.index[column.numbers == 0])
        return self._differs(nothing) > 0.5

    def telling(self, column: Seen) -> str | None:
        """The value that stands in one half of cancelled bookings more than in kept ones, or the other way round."""
        values = column.texts.fillna("")
        if column.is_number:
            values = values.mask(values.index.isin(column.numbers.index[column.numbers == 0]), "0")
        canceled = self._canceled()
        if canceled is None:
            return None
        # Such a value is the most frequent one of either.
        modes = [values[canceled == one].mode() for one in (1.0, 0.0)]
        return next((str(v) for mode in modes for v in mode.head(1) if self._differs(values == v) > 0.5), None)

    def _differs(self, chosen: pd.Series) -> float:
        """How much more often rows are chosen among the cancelled than among the kept, or less often; 0 for too few."""
        canceled = self._canceled()
        if canceled is None:
            return 0.0
        shares = chosen.groupby(canceled).agg(["mean", "size"])
        if len(shares) < 2 or shares["size"].min() < TELLING_ROWS:
            return 0.0
        return float(abs(shares["mean"].iloc[0] - shares["mean"].iloc[1]))

    def check(self, ours: str, sentence: str) -> None:
        self.checks.setdefault(ours, []).append(sentence)


def _draft(table: Table, source: _Source, reading: Reading | None = None) -> Draft:
    sample, rows = _sample(table)
    given = reading or Reading()
    first = Evaluation(_only_reading(given), "")
    texts = [first.texts(sample[name])[0] for name in sample]
    missing = sniffing.nothing(texts)
    plain = [t.where(~t.isin(missing)) for t, name in zip(texts, sample, strict=True) if _may_be_number(name, sample)]
    decimal, thousands = sniffing.signs(plain)
    given = Reading.model_validate(
        {**given.model_dump(), "missing": missing, "decimal": decimal, "thousands": thousands}
    )
    evaluation = Evaluation(_only_reading(given), "")
    columns = {name: Seen(name, sample[name], evaluation) for name in map(str, sample)}
    plan = _Plan(columns)
    _assign(plan, source)
    days = [column.name for ours, column in plan.of.items() if ours in _DATES]
    zoned = any(_has_zone(sample[name], columns[name]) for name in days)
    lines = [*source.reading]
    if missing != MISSING:
        lines.append(f"missing = [{', '.join(map(quoted, missing))}]")
    if decimal != ".":
        lines.append(f"decimal = {quoted(decimal)}")
    if thousands:
        lines.append(f"thousands = {quoted(thousands)}")
    if zoned:
        lines += [
            "# check: times carry a zone; a day is the hotel's own: UTC, Europe/Lisbon, …",
            f"timezone = {quoted(_zone(sample[days]))}",
        ]
    return _written(plan, source, lines, rows)


def _sample(table: Table) -> tuple[pd.DataFrame, int]:
    """At most `SEEN_ROWS` whole rows of the first `READ_ROWS`, evenly spread; and how many those are."""
    parts: list[pd.DataFrame] = []
    rows, whole, step = 0, 0, 1
    for chunk in table.chunks():
        found = chunk.raw.drop(index=list(chunk.broken))[list(table.columns)]
        # Each `step`-th whole row of the table, so that memory holds no more of them than are looked at.
        parts.append(found.iloc[-whole % step :: step])
        rows, whole = rows + len(chunk.raw), whole + len(found)
        while -(-whole // step) > SEEN_ROWS:
            joined = parts[0] if len(parts) == 1 else pd.concat(parts)
            parts, step = [joined.iloc[::2]], 2 * step
        if rows >= READ_ROWS:
            break
    if not whole:
        raise BadInput(f"{table.place} has no whole row to look at. Name a table of reservations.")
    return parts[0] if len(parts) == 1 else pd.concat(parts), rows


def _only_reading(reading: Reading) -> Mapping:
    return Mapping.model_validate(
        {"format": FORMAT, "source": reading, "outcome": {"reservation_id": "id", "status": "status"}}
    )


def _may_be_number(name: str, sample: pd.DataFrame) -> bool:
    """Texts that are not numbers of telephones and the like."""
    return not pd.api.types.is_numeric_dtype(sample[name].dtype) and not vocabulary.personal(vocabulary.plain(name))


def _has_zone(values: pd.Series, column: Seen) -> bool:
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return getattr(values.dt, "tz", None) is not None
    return bool(column.spellings.head(20).str.contains(r":[0-9]{2}.*(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})$").any())


def _zone(dates: pd.DataFrame) -> str:
    """The zone that the types of the columns tell, where it is one with a name; else UTC."""
    named = {str(getattr(dates[name].dtype, "tz", None)) for name in dates} & (available_timezones() - {"UTC"})
    return named.pop() if len(named) == 1 else "UTC"


def _assign(plan: _Plan, source: _Source) -> None:
    for ours in _ORDER:
        fits = _CONTENT.get(ours, _any)
        patterns = vocabulary.NAMES_OF.get(ours, ())
        named = [(place, c) for c in plan.free() if (place := vocabulary.fit(patterns, c.plain)) is not None]
        good = [(_leaks(plan, ours, c), place, c.missing, n, c) for n, (place, c) in enumerate(named) if fits(c, ours)]
        if good:
            _take(plan, ours, min(good, key=lambda g: g[:4])[4])
        elif named and ours in (*_DATES, "adults"):
            plan.check(ours, f"{quoted(named[0][1].name)} sounds like it, and its values do not look like it")
        if ours == "reservation_id" and ours not in plan.of:
            _identify(plan)
        if ours == "arrival_on" and ours not in plan.of:
            _from_parts(plan)
    _ordered_dates(plan)
    _recognised_status(plan)
    _one_of(plan, "booked_on", "lead_days")
    if "weekend_nights" in plan.given and "week_nights" in plan.given:
        for ours in ("departure_on", "nights"):
            _drop(plan, ours)
    else:
        for ours in ("weekend_nights", "week_nights"):
            _drop(plan, ours)
        _one_of(plan, "departure_on", "nights")
    _one_of(plan, "price", "total_price")
    _of_stay_or_night(plan)
    _settle_dates(plan)
    _fill(plan, source)


def _leaks(plan: _Plan, ours: str, column: Seen) -> bool:
    """Whether an optional field would tell the outcome by what it lacks."""
    return ours in _OPTIONAL and plan.tells_outcome(column, zero=ours in ("price", "total_price"))


def _take(plan: _Plan, ours: str, column: Seen) -> None:
    """Feeds a field from a column that fits it, with the doubts that its name or its values leave."""
    days = column.days if ours in (*_DATES, "known_on") else None
    if days is not None:
        plan.feed(ours, column, _dated(column, days.form))
        return
    if ours == "repeated_guest" and not column.is_number:
        told = {t: int(vocabulary.plain(t) in vocabulary.YES) for t in sorted(column.spellings)}
        named = ", ".join(f"{_key(t)} = {n}" for t, n in told.items())
        plan.feed(ours, column, f"{{ column = {quoted(column.name)}, map = {{ {named} }} }}")
        return
    plan.feed(ours, column)
    if ours == "reservation_id" and len(column.spellings) < len(column.told):
        plan.check(ours, "it names several rows; each booking needs an id of its own")
    if ours in ("price", "total_price"):
        if len(found := column.currencies) > 1:
            plan.check(ours, f"amounts in {', '.join(found)} stand side by side, and are taken for one currency")
        if ours == "price" and column.plain in ("price", "rate", "preis", "prix", "precio", "prezzo", "tarif"):
            plan.check(ours, "the price of a night? If it is that of the stay, feed total_price instead")
        if ours == "total_price":
            plan.check(ours, "the price of the whole stay, as agreed at booking? Amounts paid later tell the outcome")
    if ours == "adults" and vocabulary.fit(vocabulary.NAMES_OF[ours][:1], column.plain) is None:
        plan.check(ours, "it may count children too")
    if ours == "deposit_type" and "deposit" not in column.plain:
        plan.check(ours, "the terms as they were agreed at booking")


def _dated(column: Seen, form: str | None) -> str:
    if form is None:
        return quoted(column.name)
    return f"{{ column = {quoted(column.name)}, format = {quoted(form)} }}"


def _identify(plan: _Plan) -> None:
    """A column whose values are all there and all different, when no name says which one is the id."""
    for column in plan.free():
        whole = column.is_unique and len(column.told) > 1 and column.days is None
        tame = column.spellings.str.len().max() <= 40 and not column.spellings.str.contains(r"[\s@]").any()
        coded = not column.is_number or column.is_whole(0, np.inf)
        if whole and tame and coded and not vocabulary.personal(column.plain) and _unclaimed(column):
            plan.feed("reservation_id", column)
            plan.check("reservation_id", "guessed: each row has another value")
            return


def _unclaimed(column: Seen) -> bool:
    return all(vocabulary.fit(p, column.plain) is None for ours, p in vocabulary.NAMES_OF.items() if ours != "hotel")


def _from_parts(plan: _Plan) -> None:
    fits: dict[str, Callable[[Seen], bool]] = {
        "year": lambda c: c.is_whole(1990, 2100),
        "month": lambda c: c.is_month,
        "day": lambda c: c.is_whole(1, 31),
    }
    found: dict[str, Seen] = {}
    for part, patterns in vocabulary.PARTS_OF.items():
        named = [(p, c) for c in plan.free() if (p := vocabulary.fit(patterns, c.plain)) is not None and fits[part](c)]
        if named:
            found[part] = min(named, key=lambda n: n[0])[1]
    if len(found) == len(fits):
        told = ", ".join(f"{part} = {quoted(c.name)}" for part, c in found.items())
        plan.given["arrival_on"] = f"{{ {told} }}"
        plan.used |= {c.name for c in found.values()}
        plan.checks.pop("arrival_on", None)


def _ordered_dates(plan: _Plan) -> None:
    """Dates that no name tells, by their order: a booking comes before its arrival, that before the departure."""
    if "lead_days" in plan.of or ("arrival_on" in plan.given and "arrival_on" not in plan.of):
        return
    roles = ("booked_on", "arrival_on", "departure_on")
    lacking = [r for r in roles if r not in plan.of and not (r == "departure_on" and "nights" in plan.of)]
    dates = [
        c
        for c in plan.free()
        if c.days is not None and vocabulary.later(c.plain) is None and not vocabulary.personal(c.plain)
    ]
    if not lacking or len(dates) < len(lacking):
        return
    known = {r: plan.of[r] for r in roles if r in plan.of}
    for chosen in _choices(dates, len(lacking)):
        told = known | dict(zip(lacking, chosen, strict=True))
        inorder = [days.days for r in roles if r in told and (days := told[r].days) is not None]
        if len(inorder) > 1 and all((a <= b).mean() >= 0.95 for a, b in pairwise(inorder)):
            for ours, column in zip(lacking, chosen, strict=True):
                _take(plan, ours, column)
                plan.check(ours, "guessed by the order of the dates")
            return


def _choices(columns: Sequence[Seen], length: int) -> Iterator[tuple[Seen, ...]]:
    """All ways to take so many of the first few columns, in any order."""
    if length == 0:
        yield ()
        return
    for column in columns[:5]:
        for rest in _choices([c for c in columns if c is not column], length - 1):
            yield (column, *rest)


def _recognised_status(plan: _Plan) -> None:
    """A column whose words tell how bookings end, when the one with the right name is a flag, or there is none."""
    if "status" in plan.of and _known_statuses(plan.of["status"]):
        return
    for column in plan.free():
        known = _known_statuses(column)
        if len(known) >= 2 and "canceled" in known.values() and column.is_category(MOST_STATUSES):
            if (flagged := plan.of.get("status")) is not None:
                plan.used.discard(flagged.name)
            plan.feed("status", column)
            plan.checks["status"] = ["guessed by its words"]
            return


def _known_statuses(column: Seen) -> dict[str, str]:
    found = {text: vocabulary.status(text) for text in sorted(column.spellings.head(MOST_STATUSES))}
    return {text: known[0] for text, known in found.items() if known is not None}


def _one_of(plan: _Plan, better: str, other: str) -> None:
    if better in plan.given:
        _drop(plan, other)


def _drop(plan: _Plan, ours: str) -> None:
    if ours in plan.given:
        del plan.given[ours]
        if (column := plan.of.pop(ours, None)) is not None:
            plan.used.discard(column.name)
        plan.checks.pop(ours, None)


def _of_stay_or_night(plan: _Plan) -> None:
    """A price whose values say so is taken for that of the stay, or of a night, whatever its name."""
    nights = _nights(plan)
    for ours, other, of in (("price", "total_price", "the stay"), ("total_price", "price", "a night")):
        column = plan.of.get(ours)
        if column is None or nights is None:
            continue
        power = growth(column.numbers.reindex(nights.index), nights)
        if power is not None and (power > GROWS if other == "total_price" else power < STAYS_ALIKE):
            expression = plan.given[ours]
            _drop(plan, ours)
            plan.feed(other, column, expression)
            grows = "it grows" if other == "total_price" else "it does not grow"
            plan.check(other, f"{grows} with the nights, so it is taken for the price of {of}")
            return


def _nights(plan: _Plan) -> pd.Series | None:
    """The nights of each row of the sample, from what was found of them."""
    if "week_nights" in plan.of:
        return plan.of["weekend_nights"].numbers.add(plan.of["week_nights"].numbers)
    if "nights" in plan.of:
        return plan.of["nights"].numbers
    days = [plan.of[ours].days for ours in ("arrival_on", "departure_on") if ours in plan.of]
    if len(days) < 2 or days[0] is None or days[1] is None:
        return None
    return (days[1].days - days[0].days).dt.days.astype("float64")


def _settle_dates(plan: _Plan) -> None:
    """Day first or month first, where a column's own values do not tell: as the table's other dates."""
    dates = {ours: (c, c.days) for ours, c in plan.of.items() if ours in (*_DATES, "known_on") and c.days is not None}
    lean = 0
    for _, days in dates.values():
        if swapped(days.form) is not None:
            lean += (days.sides[0] - days.sides[1]) * (1 if (days.form or "").startswith("%d") else -1)
    for ours, (column, days) in dates.items():
        form = days.form
        if days.rival is not None and form is not None:
            day_first = lean >= 0
            if form.startswith("%d") != day_first:
                form = days.rival
            plan.given[ours] = _dated(column, form)
            first = "day" if day_first else "month"
            why = "as in the other dates" if lean else "nothing tells"
            plan.check(ours, f"its values fit day first and month first; {first} first is taken, {why}")
        elif days.sides[1]:
            plan.check(ours, f"{days.sides[1]:,} of its values fit {days.rival or swapped(form)} only")
        read = column.read(form)
        unread = int((column.texts.notna() & read.isna()).sum())
        if unread:
            example = column.texts[column.texts.notna() & read.isna()].iloc[0]
            told = f"{unread:,} of {len(column.told):,} values are no such date ({_short(example)})"
            plan.check(ours, f"{told}; their rows go to quarantine")


def _fill(plan: _Plan, source: _Source) -> None:
    """What stands in for columns that a reservation needs and the table lacks."""
    if "reservation_id" not in plan.given and not source.is_query:
        plan.given["reservation_id"] = "{ row_number = true }"
        patterns = vocabulary.NAMES_OF["reservation_id"]
        for column in plan.free():
            if vocabulary.fit(patterns, column.plain) is not None and _any(column, "reservation_id"):
                each = len(column.told) / len(column.spellings)
                told = f"{quoted(column.name)} sounds like it, and each of its values stands in {each:.1f} rows"
                plan.check("reservation_id", f"{told}: take it where a booking has a row for each night")
        plan.check("reservation_id", "no column is an id: rows are numbered, so a later export must keep their order")
    if "hotel" not in plan.given:
        plan.given["hotel"] = '{ constant = "hotel" }'
        plan.check("hotel", "no column names the hotel; write its name here")
    if "adults" not in plan.given:
        plan.given["adults"] = "{ constant = 2 }"
        plan.check("adults", "no column counts guests; 2 are assumed in each booking")


# --- does a column's content fit? -----------------------------------------------------------------------


def _any(column: Seen, ours: str) -> bool:
    del ours
    return not column.is_empty and column.days is None


def _is_id(column: Seen, ours: str) -> bool:
    """Bookings that appear again are met; a column that names groups of rows is no id."""
    return _any(column, ours) and column.missing < 0.05 and len(column.spellings) > 0.5 * len(column.told)


def _is_date(column: Seen, ours: str) -> bool:
    del ours
    return column.days is not None


def _is_count(column: Seen, ours: str) -> bool:
    limits = _COUNTS[ours]
    return column.is_whole(limits.low or 0, limits.high or np.inf)


def _is_flag(column: Seen, ours: str) -> bool:
    words = vocabulary.YES | vocabulary.NO
    return _is_count(column, ours) or bool(
        not column.is_empty and column.spellings.map(lambda t: vocabulary.plain(t) in words).all()
    )


def _is_days(column: Seen, ours: str) -> bool:
    del ours
    return column.is_whole(-5, 2_000)


def _is_price(column: Seen, ours: str) -> bool:
    del ours
    return column.is_number and column.days is None


def _is_status(column: Seen, ours: str) -> bool:
    del ours
    return not column.is_empty and len(column.spellings) <= MOST_STATUSES and column.days is None


def _is_category(column: Seen, ours: str) -> bool:
    """Not what differs in each row, and no long texts."""
    return _any(column, ours) and bool(
        column.spellings.str.len().median() <= 80
        and (len(column.told) < 30 or len(column.spellings) < 0.8 * len(column.told))
    )


def _is_terms(column: Seen, ours: str) -> bool:
    """Words: an amount that was deposited is paid after the booking."""
    return _is_category(column, ours) and not column.is_number


def _is_room_type(column: Seen, ours: str) -> bool:
    """A column "room" of numbers has the number on the door, which is given at arrival."""
    return _is_category(column, ours) and not (column.is_number and re.fullmatch("room|zimmer", column.plain))


_CONTENT: dict[str, Callable[[Seen, str], bool]] = {
    "reservation_id": _is_id,
    **dict.fromkeys((*_DATES, "known_on"), _is_date),
    **dict.fromkeys(_COUNTS, _is_count),
    **dict.fromkeys((c.name for c in COLUMNS if c.kind == "category"), _is_category),
    "repeated_guest": _is_flag,
    "deposit_type": _is_terms,
    "room_type": _is_room_type,
    "lead_days": _is_days,
    "nights": _is_days,
    "price": _is_price,
    "total_price": _is_price,
    "status": _is_status,
}


# --- writing ------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A text as TOML has it, on one line."""
    whole = text.encode("utf-8", "replace").decode()
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else quoted(text)


def _short(text: str) -> str:
    return quoted(text if len(text) <= 40 else f"{text[:39]}…")


def _written(plan: _Plan, source: _Source, reading: Sequence[str], rows: int) -> Draft:
    alone = _outcomes_alone(plan)
    needed = {} if alone else _NEEDED_FOR
    lacking = tuple(ours for ours, any_of in needed.items() if not any(name in plan.given for name in any_of))
    out = [
        f"# Drafted by `cancellations mapping init` from {_short(source.called)} after a look at {rows:,} rows.",
        '# A line "check:" is a guess, for you to confirm. Lines that begin with # are not read.',
        f"format = {FORMAT}",
    ]
    if source.name is not None:
        out.append(source.name)
    if reading:
        out += ["", "[source]", *reading]
    if alone:
        out += [
            "",
            "# check: no column has the day of arrival or of booking: these are outcomes of bookings known otherwise",
        ]
    else:
        out += ["", "[reservation]"]
    for ours in () if alone else _written_order(plan, lacking):
        out += [f"# check: {sentence}" for sentence in plan.checks.get(ours, ())]
        if ours in plan.of and _leaks(plan, ours, plan.of[ours]):
            nothing = "0 or missing" if ours in ("price", "total_price") else "missing"
            out.append(
                f"# {ours} = {plan.given[ours]}  # left out: {nothing} where bookings were cancelled, so it leaks"
            )
        elif ours in plan.given:
            out.append(f"{ours} = {plan.given[ours]}")
        else:
            out.append(f'# {ours} = "…"  # required: {_WANTED[ours]}')
    if alone:
        out += [*_outcome(plan)]
    else:
        out += ["", *_outcome(plan), *_limits(plan), *_features(plan)]
    return Draft("\n".join(out).rstrip() + "\n", lacking, sum("# check:" in line for line in out))


def _outcomes_alone(plan: _Plan) -> bool:
    """Whether a table tells how bookings ended, and neither when they were made nor when guests arrive."""
    days = {"booked_on", "lead_days", "arrival_on", "departure_on", "nights", "weekend_nights"}
    told = {"status", "reservation_id"} <= set(plan.of)
    return told and days.isdisjoint(plan.given) and days.isdisjoint(plan.checks)


def _written_order(plan: _Plan, lacking: Sequence[str]) -> list[str]:
    """As a reservation has its columns, inputs where that stands which is made of them."""
    inputs = {"lead_days": "booked_on", "departure_on": "arrival_on", "nights": "arrival_on", "total_price": "price"}
    place = {c.name: float(n) for n, c in enumerate(COLUMNS)}
    place |= {name: place[beside] + 0.5 for name, beside in inputs.items()}
    wanted = {*plan.given, *lacking} - {"status", "known_on"}
    return sorted(wanted, key=lambda name: place[name])


def _outcome(plan: _Plan) -> Iterator[str]:
    column = plan.of.get("status")
    if column is None:
        yield "# No column tells how a booking ended. Without outcomes nothing can be learned: add their column, or"
        yield "# load them from a file of their own (docs/mapping.md)."
        yield "# [outcome]"
        yield '# status = { column = "…", map = { Cancelled = "canceled", "No-show" = "no_show", Stayed = "stayed" } }'
        yield ""
        return
    lines, none_yet = _status_map(column)
    yield "[outcome]"
    if _outcomes_alone(plan):
        yield f"reservation_id = {plan.given['reservation_id']}"
    if "known_on" in plan.given:
        yield from (f"# check: {sentence}" for sentence in plan.checks.get("known_on", ()))
        yield f"known_on = {plan.given['known_on']}"
    if "known_on" not in plan.given or plan.of["known_on"].missing > 0.01:
        yield "# An outcome without a day counts as known on the booking's maturity date; with load on the day of the"
        yield "# load, if that is earlier: right for a live export that is loaded day by day."
        yield 'undated = "load"' if none_yet else '# undated = "load"'
    yield ""
    yield "[outcome.status]"
    yield from (f"# check: {sentence}" for sentence in plan.checks.get("status", ()))
    yield f"column = {quoted(column.name)}"
    yield ""
    yield "[outcome.status.map]"
    yield from lines
    yield ""


def _statuses(column: Seen) -> dict[str, str]:
    """Ours for each of their statuses that is known; a column of nothing but yes and no tells cancellations."""
    known = _known_statuses(column)
    flags = {text: flag for text in sorted(column.spellings) if (flag := vocabulary.flag(text)) is not None}
    return known if known or len(flags) < len(column.spellings) else flags


def _status_map(column: Seen) -> tuple[list[str], bool]:
    """A line for each status, and whether one of them tells no outcome yet."""
    counts = column.told.value_counts()
    statuses = _statuses(column)
    lines, none_yet = [], False
    for text in sorted(column.spellings):
        ours = statuses.get(text)
        told = vocabulary.status(text)
        doubt = ours == "stayed" if told is None else told[1]
        if ours is None:
            rows = "1 row" if counts[text] == 1 else f"{counts[text]:,} rows"
            lines.append(f'# check: {rows}; is it canceled, no_show, stayed, or "" for none yet?')
            lines.append(f'# {quoted(text)} = ""')
            continue
        if doubt:
            lines.append('# check: right if all of them have ended; else "" for none yet')
        none_yet |= ours == ""
        lines.append(f"{quoted(text)} = {quoted(ours)}" + ("  # none yet" if ours == "" else ""))
    return lines, none_yet


def _limits(plan: _Plan) -> Iterator[str]:
    price = plan.of.get("price")
    if price is None or (price.numbers > _HIGHEST_PRICE).mean() <= 0.05:
        return
    high = 10 ** np.ceil(np.log10(price.numbers.quantile(0.99) * 5))
    yield "[limits]"
    yield f"# check: many nights cost more than {_HIGHEST_PRICE:,.0f}, which is believed of none otherwise"
    yield f"price = {{ high = {high:.0f} }}"
    yield ""


def _features(plan: _Plan) -> Iterator[str]:
    offered: list[str] = []
    left: list[tuple[str, str]] = []
    taken: set[str] = set()
    for column in plan.free():
        why = _left_out(column, plan)
        if why is None and (value := plan.telling(column)) is not None:
            told = f"it is {_short(value)}" if value else "it is missing"
            why = f"{told} where bookings were cancelled, or stayed: it tells the outcome"
        if why is not None:
            left.append((column.name, why))
            continue
        name = _feature_name(column.plain, taken)
        taken.add(name)
        kind = "number" if column.is_number and not column.numbers.isin([0, 1]).all() else "category"
        offered.append(f'# {name} = {{ kind = "{kind}", column = {quoted(column.name)} }}')
    if offered:
        yield "# Further columns that the model may learn from. Take only those that are known when a booking is made,"
        yield "# and do not change afterwards: a column that changes until the stay tells the model the outcome."
        yield "[features]"
        yield from offered
        yield ""
    if left:
        yield "# Left out:"
        yield from (f"# {_short(name)}: {why}" for name, why in left)


def _left_out(column: Seen, plan: _Plan) -> str | None:
    """Why a column that feeds nothing is not offered as a feature, None when it is."""
    if column.is_empty:
        return "it is empty"
    if vocabulary.personal(column.plain) or column.spellings.str.contains(r"[^\s@]@[^\s@]").mean() > 0.5:
        return "it looks like personal data"
    why = vocabulary.later(column.plain)
    if why is not None:
        return why
    if column.days is not None:
        return "it is a date"
    if len(column.spellings) == 1:
        return "it has one value"
    if vocabulary.free_text(column.plain) or column.spellings.str.len().median() > 80:
        return "it is free text"
    for ours, patterns in vocabulary.NAMES_OF.items():
        if vocabulary.fit(patterns, column.plain) is not None:
            fed = ours in plan.of or (plan.feeds(ours) and ours != "reservation_id")
            told = "another column feeds" if fed else "its values do not look like"
            return f"it sounds like {ours}, and {told} that"
    if column.is_number:
        return (
            None
            if len(column.numbers) == len(column.told) and not _numbered(column)
            else "it looks like numbers of things"
        )
    if len(column.spellings) > MOST_CATEGORIES or (
        len(column.told) > 20 and len(column.spellings) > len(column.told) / 2
    ):
        return f"it has {len(column.spellings):,} different texts"
    return None


def _numbered(column: Seen) -> bool:
    """Whole numbers that differ in nearly each row are keys."""
    return len(column.told) > 20 and len(column.spellings) > 0.95 * len(column.told) and column.is_whole(0, np.inf)


def _feature_name(plain: str, taken: set[str]) -> str:
    name = "_".join(plain.split()) or "column"
    if not re.match("[a-z]", name):
        name = f"column_{name}"
    if name in RESERVED:
        name = f"source_{name}"
    whole, number = name, 2
    while whole in taken:
        whole, number = f"{name}_{number}", number + 1
    return whole
