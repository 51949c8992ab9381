"""A mapping applied to rows of a table: what they mean, and what of them cannot be read.

A value that is there and cannot be read is a problem of its row, never silently missing.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from cancellations.domain.reservation import NAMES, ActionTaken, Status, coerce, no_problems
from cancellations.ports import SourceBatch
from cancellations.sources.mapping import (
    Concat,
    Constant,
    DateParts,
    Expression,
    Mapping,
    Read,
    RowNumber,
    Sum,
    Target,
    target_of,
)
from cancellations.sources.tables import Chunk

# A column that a table of numbered rows may bring after all.
ID = "reservation_id"
SHOWN = 60
# Not calendar.month_name: that one speaks the language of the machine.
MONTHS: tuple[str, ...] = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTH_NUMBERS = (
    {name: number for number, month in enumerate(MONTHS, start=1) for name in (month, month[:3], str(number))}
    | {f"{number:02d}": number for number in range(1, 10)}
    | {"sept": 9}
)
_BLANKS = "\u00a0\u202f\u2009"
# ISO 4217, currencies that are paid with.
_CODES = (
    "AED|AFN|ALL|AMD|ANG|AOA|ARS|AUD|AWG|AZN|BAM|BBD|BDT|BGN|BHD|BIF|BMD|BND|BOB|BRL|BSD|BTN|BWP|BYN|BZD|CAD|CDF"
    "|CHF|CLP|CNY|COP|CRC|CUP|CVE|CZK|DJF|DKK|DOP|DZD|EGP|ERN|ETB|EUR|FJD|FKP|GBP|GEL|GHS|GIP|GMD|GNF|GTQ|GYD|HKD"
    "|HNL|HTG|HUF|IDR|ILS|INR|IQD|IRR|ISK|JMD|JOD|JPY|KES|KGS|KHR|KMF|KPW|KRW|KWD|KYD|KZT|LAK|LBP|LKR|LRD|LSL|LYD"
    "|MAD|MDL|MGA|MKD|MMK|MNT|MOP|MRU|MUR|MVR|MWK|MXN|MYR|MZN|NAD|NGN|NIO|NOK|NPR|NZD|OMR|PAB|PEN|PGK|PHP|PKR|PLN"
    "|PYG|QAR|RON|RSD|RUB|RWF|SAR|SBD|SCR|SDG|SEK|SGD|SHP|SLE|SOS|SRD|SSP|STN|SVC|SYP|SZL|THB|TJS|TMT|TND|TOP|TRY"
    "|TTD|TWD|TZS|UAH|UGX|USD|UYU|UZS|VES|VND|VUV|WST|XAF|XCD|XOF|XPF|YER|ZAR|ZMW|ZWG"
)
_ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?\s?"
_LOCAL = re.compile(_ISO + r")?")
_ZONED = re.compile(_ISO + r"(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?))")
# Counts and weekdays are exact up to here; nobody books longer ahead, or stays so long.
_MOST_DAYS = 100_000


class _Problems:
    """What could not be read, as `domain.reservation.violations` gives it."""

    def __init__(self) -> None:
        self._found: list[pd.DataFrame] = []

    def note(self, broken: pd.Series, column: str, rule: Callable[[int], str] | str) -> None:
        rows = broken.index[broken.to_numpy(dtype=bool)]
        if len(rows):
            rules = [rule if isinstance(rule, str) else rule(row) for row in rows]
            self._found.append(pd.DataFrame({"row": rows, "column": column, "rule": rules}))

    def frame(self) -> pd.DataFrame:
        if not self._found:
            return no_problems()
        return pd.concat(self._found, ignore_index=True).sort_values("row", kind="stable", ignore_index=True)


def shown(value: Any) -> str:
    """What was found, on one line and not too long."""
    told = repr(value) if isinstance(value, str) else repr(str(value))
    return told if len(told) <= SHOWN else f"{told[: SHOWN - 1]}…"


@cache
def _signs() -> re.Pattern[str]:
    """A number between signs or codes of a currency; all of Unicode is looked through for them when one is met."""
    signs = re.escape("".join(s for s in map(chr, range(sys.maxunicode)) if unicodedata.category(s) == "Sc"))
    around = rf"(?:[\s{signs}]|(?<![A-Z])(?:{_CODES})(?![A-Z]))*"
    return re.compile(rf"^([+-]?){around}([+-]?)(.*?){around}$", re.DOTALL)


def bare(text: str) -> str:
    """A number's text without the sign or the code of a currency around it, and with plain blanks."""
    for blank in _BLANKS:
        text = text.replace(blank, " ")
    parts = _signs().match(text)
    return text if parts is None else parts[1] + parts[2] + parts[3]


class Evaluation:
    """Reads chunks of one table by one mapping; `stem` stands before the number of a row without an id."""

    def __init__(self, mapping: Mapping, stem: str) -> None:
        self._mapping, self._stem = mapping, stem
        self._missing = frozenset(mapping.source.missing) | {""}
        self._zone = ZoneInfo(mapping.source.timezone)
        decimal, thousands = re.escape(mapping.source.decimal), re.escape(mapping.source.thousands)
        whole = rf"(?:[0-9]+|[0-9]{{1,3}}(?:{thousands}[0-9]{{3}})+)" if thousands else "[0-9]+"
        self._number = re.compile(rf"[+-]?(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][+-]?[0-9]{{1,4}})?")

    def __call__(self, chunk: Chunk) -> SourceBatch:
        problems = _Problems()
        rows = chunk.raw.index.isin(list(chunk.broken))
        problems.note(pd.Series(rows, index=chunk.raw.index), "", chunk.broken.__getitem__)
        reading = _Reading(self, chunk.raw[~rows] if rows.any() else chunk.raw, problems)
        reservations = None if self._mapping.reservation is None else reading.reservations()
        outcomes = reading.outcomes(reservations)
        actions = reading.actions(reservations)
        return SourceBatch(chunk.raw, reservations, outcomes, problems.frame(), actions)

    # --- values of one column, as texts, numbers or days; what cannot be read is missing and noted ---

    def texts(self, values: pd.Series) -> tuple[pd.Series, pd.Series]:
        """Texts without surrounding blanks, missing where the source says nothing; and what is no value at all."""
        nested = pd.Series(False, index=values.index)
        kind = values.dtype
        if isinstance(kind, pd.CategoricalDtype):
            values = values.astype(object)
            kind = values.dtype
        if pd.api.types.is_float_dtype(kind):
            texts = _float_texts(values)
        elif pd.api.types.is_bool_dtype(kind) or pd.api.types.is_integer_dtype(kind):
            texts = values.astype("str").where(values.notna(), np.nan)
        elif isinstance(kind, pd.StringDtype):
            texts = values.astype("str")
        else:
            words = [_word(value) for value in values.astype(object)]
            nested = pd.Series([word is None for word in words], index=values.index)
            texts = pd.Series([word or "" for word in words], index=values.index, dtype="str")
        texts = texts.str.strip()
        return texts.where(texts.notna() & ~texts.isin(self._missing), np.nan), nested

    def numbers(self, texts: pd.Series) -> pd.Series:
        """float64, missing where a text is no finite number."""
        plain = pd.to_numeric(texts.where(texts.str.fullmatch(r"[+-]?[0-9]{1,15}", na=False)), errors="coerce")
        out = plain.astype("float64")
        rest = texts.notna() & out.isna()
        if rest.any():
            out[rest] = texts[rest].map(self._float).astype("float64")
        return out

    def _float(self, text: str) -> float:
        low = text.casefold()
        if low in ("true", "false"):
            return float(low == "true")
        if not self._number.fullmatch(text) and not self._number.fullmatch(text := bare(text)):
            return np.nan
        source = self._mapping.source
        if source.thousands:
            text = text.replace(source.thousands, "")
        number = float(text.replace(source.decimal, "."))
        return number if np.isfinite(number) else np.nan

    def days(self, values: pd.Series, texts: pd.Series, form: str | None) -> pd.Series:
        """Midnight of the local day, missing where a text is no date."""
        if pd.api.types.is_datetime64_any_dtype(values.dtype):
            if getattr(values.dt, "tz", None) is not None:
                values = values.dt.tz_convert(self._zone).dt.tz_localize(None)
            return _of_calendar(values.dt.normalize().astype("datetime64[us]"))
        out = pd.Series(pd.NaT, index=values.index, dtype="datetime64[us]")
        if form is not None:
            # Not "now", "today" and the like, which pandas knows.
            given = texts[texts.str.contains("[0-9]", na=False)]
            out[given.index] = self._parsed(given, form, zoned="%z" in form)
            return out
        zoned = texts.str.fullmatch(_ZONED, na=False)
        local = texts.str.fullmatch(_LOCAL, na=False)
        for mask, with_offset in ((local, False), (zoned, True)):
            if mask.any():
                out[mask] = self._parsed(texts[mask].str.replace(",", "."), "ISO8601", zoned=with_offset)
        return out

    def _parsed(self, texts: pd.Series, form: str, *, zoned: bool) -> pd.Series:
        # A day is told by many rows: each spelling is read once.
        spellings = pd.Series(texts.unique(), dtype="str")
        try:
            found = pd.to_datetime(spellings, format=form, errors="coerce", utc=zoned)
        except (ValueError, OverflowError, TypeError):
            # A format that no date fits.
            found = pd.Series(pd.NaT, index=spellings.index, dtype="datetime64[us]")
        if zoned:
            found = found.dt.tz_convert(self._zone).dt.tz_localize(None)
        if not pd.api.types.is_datetime64_dtype(found.dtype):
            found = pd.Series(pd.NaT, index=spellings.index, dtype="datetime64[us]")
        found = _of_calendar(found.dt.normalize().astype("datetime64[us]"))
        return texts.map(dict(zip(spellings, found, strict=True))).astype("datetime64[us]")


class _Reading:
    """One chunk on its way."""

    def __init__(self, evaluation: Evaluation, raw: pd.DataFrame, problems: _Problems) -> None:
        self._evaluation, self._raw, self._problems = evaluation, raw, problems
        self._mapping = evaluation._mapping
        self._texts: dict[str, tuple[pd.Series, pd.Series]] = {}

    def reservations(self) -> pd.DataFrame:
        given = self._mapping.reservation or {}
        values = {name: self._value(name, expression, target_of(name)) for name, expression in given.items()}
        frame = {name: found for name, found in values.items() if name in NAMES}
        if "lead_days" in values:
            frame["booked_on"] = self._booked(values["arrival_on"], values["lead_days"])
        if "departure_on" in values or "nights" in values:
            frame["weekend_nights"], frame["week_nights"] = self._nights(values)
        if "total_price" in values:
            nights = frame["weekend_nights"] + frame["week_nights"]
            self._problems.note(
                values["total_price"].notna() & ~(nights > 0), "price", "cannot be told: the total is for no night"
            )
            frame["price"] = (values["total_price"] / nights).where(nights > 0)
        for name, feature in self._mapping.features.items():
            frame[name] = self._value(name, feature.value, "number" if feature.kind == "number" else "text")
        return coerce(pd.DataFrame(frame, index=self._raw.index), self._mapping.columns)

    def outcomes(self, reservations: pd.DataFrame | None) -> pd.DataFrame:
        outcome = self._mapping.outcome
        empty = pd.DataFrame(
            {
                "reservation_id": pd.Series(dtype="str"),
                "status": pd.Series(dtype="str"),
                "known_on": pd.Series(dtype="datetime64[us]"),
            },
            index=self._raw.index[:0],
        )
        ids = self._ids(reservations)
        if outcome is None or ids is None:
            return empty
        status, told = self._named("status", outcome.status, list(Status), ("statuses", "status"))
        known_on = (
            pd.Series(pd.NaT, index=self._raw.index, dtype="datetime64[us]")
            if outcome.known_on is None
            else self._value("known_on", outcome.known_on, "date")
        )
        self._problems.note(known_on.notna() & ~told, "status", "is missing, and its day is told")
        outcomes = pd.DataFrame({"reservation_id": ids, "status": status, "known_on": known_on})
        return outcomes[status.notna()]

    def actions(self, reservations: pd.DataFrame | None) -> pd.DataFrame | None:
        """What was done about bookings; None where the mapping reads nothing of the kind."""
        outcome, ids = self._mapping.outcome, self._ids(reservations)
        if outcome is None or outcome.action_taken is None or outcome.acted_on is None or ids is None:
            return None
        taken, told = self._named("action_taken", outcome.action_taken, list(ActionTaken), ("actions", "action"))
        acted_on = self._value("acted_on", outcome.acted_on, "date")
        self._problems.note(acted_on.notna() & ~told, "action_taken", "is missing, and its day is told")
        lacking = taken.notna() & (taken != ActionTaken.NONE) & acted_on.isna()
        self._problems.note(lacking, "acted_on", "is missing or cannot be read, and an action is told")
        actions = pd.DataFrame({"reservation_id": ids, "action_taken": taken, "acted_on": acted_on})
        return actions[taken.notna() & ~lacking]

    def _ids(self, reservations: pd.DataFrame | None) -> pd.Series | None:
        """Whose outcomes and actions are told."""
        outcome = self._mapping.outcome
        if outcome is not None and outcome.reservation_id is not None:
            return self._value("reservation_id", outcome.reservation_id, "text")
        return None if reservations is None else reservations["reservation_id"]

    def _named(
        self, name: str, expression: Expression, known: Sequence[str], nouns: tuple[str, str]
    ) -> tuple[pd.Series, pd.Series]:
        """Our name of each, missing where there is none; and whether the source says anything."""
        several, one = nouns
        if isinstance(expression, Read):
            texts, told = self._column(name, expression.column), self._texts_of(expression.column)[0].notna()
            mapped = expression.map or {}
            ours = texts.map({theirs: str(value) for theirs, value in mapped.items()}).astype("str")
            other = texts.notna() & ~texts.isin(list(mapped))
            otherwise = expression.otherwise or ("quarantine" if mapped else "keep")
            if otherwise == "keep":
                ours = ours.where(~other, texts)
                other = ours.notna() & ~ours.isin([*known, ""])
            if otherwise != "missing":
                allowed = ", ".join(list(mapped)[:8]) if mapped else ", ".join(known)
                self._problems.note(
                    other,
                    name,
                    lambda row: f"{shown(texts[row])} in column {expression.column} is none of the {several} {allowed}",
                )
            ours = ours.where(~other, np.nan)
        else:
            ours = self._value(name, expression, "text")
            told = ours.notna()
            other = told & ~ours.isin(list(known))
            self._problems.note(other, name, lambda row: f"{shown(ours[row])} is no {one}")
            ours = ours.where(~other, np.nan)
        return ours.where(ours.notna() & (ours != ""), np.nan).astype("str"), told

    # --- columns made of others -----------------------------------------------------------------

    def _booked(self, arrival: pd.Series, lead: pd.Series) -> pd.Series:
        whole = (lead == np.floor(lead)) & (lead.abs() <= _MOST_DAYS)
        shift = pd.to_timedelta(lead.where(whole), unit="D").astype("timedelta64[us]")
        booked_on = _of_calendar(arrival - shift)
        self._problems.note(
            lead.notna() & (~whole | (arrival.notna() & booked_on.isna())),
            "booked_on",
            lambda row: f"a lead of {lead[row]:g} days leads to no date",
        )
        return booked_on

    def _nights(self, values: dict[str, pd.Series]) -> tuple[pd.Series, pd.Series]:
        """Nights of a Saturday or a Sunday, and the other ones."""
        arrival = values["arrival_on"]
        if "nights" in values:
            nights = values["nights"]
            whole = (nights == np.floor(nights)) & (nights.abs() <= _MOST_DAYS)
            self._problems.note(
                nights.notna() & ~whole, "week_nights", lambda row: f"{nights[row]:g} nights are no number of nights"
            )
            nights = nights.where(whole)
        else:
            departure = values["departure_on"]
            nights = (departure - arrival).dt.days.astype("float64")
        self._problems.note(nights < 0, "week_nights", lambda row: f"the stay has {nights[row]:g} nights")
        nights = nights.where(nights >= 0)
        days = arrival.dt.dayofweek.astype("float64")
        full, rest = nights // 7, nights % 7
        # Of the nights left over from full weeks, those of a Saturday (5) or a Sunday (6).
        weekend = 2 * full + ((days + rest).clip(upper=7) - days.clip(lower=5)).clip(lower=0)
        return weekend, nights - weekend

    # --- expressions ------------------------------------------------------------------------------

    def _value(self, name: str, expression: Expression, target: Target) -> pd.Series:
        """What an expression gives for a target: texts, float64 or days; missing where it cannot be read."""
        index = self._raw.index
        if isinstance(expression, Constant):
            return _constant(expression.constant, target, index)
        if isinstance(expression, RowNumber):
            if ID in self._raw:
                return _whole(self._column(name, ID))
            # With the name in front, bookings of two files are never taken for each other.
            return pd.Series([f"{self._evaluation._stem}-{row:06d}" for row in index], index=index, dtype="str")
        if isinstance(expression, Concat):
            joined = _whole(self._column(name, expression.concat[0]))
            for column in expression.concat[1:]:
                joined = joined + expression.separator + _whole(self._column(name, column))
            if target == "text":
                return joined
            return self._typed(name, joined, joined, target, " + ".join(expression.concat), None)
        if isinstance(expression, Sum):
            parts = [self._read_column(name, column, "number", None) for column in expression.sum]
            return pd.concat(parts, axis=1).sum(axis=1, min_count=1)
        if isinstance(expression, DateParts):
            return self._date(name, expression)
        return self._read(name, expression, target)

    def _read(self, name: str, expression: Read, target: Target) -> pd.Series:
        if expression.map is None:
            return self._read_column(name, expression.column, target, expression.format)
        texts = self._column(name, expression.column)
        renamed = texts.map({theirs: str(ours) for theirs, ours in expression.map.items()}).astype("str")
        other = texts.notna() & ~texts.isin(list(expression.map))
        if expression.otherwise == "quarantine":
            self._problems.note(
                other, name, lambda row: f"{shown(texts[row])} in column {expression.column} is not in the mapping"
            )
        elif expression.otherwise != "missing":
            renamed = renamed.where(~other, texts)
        renamed = renamed.where(renamed.notna() & (renamed != ""), np.nan).astype("str")
        return self._typed(name, renamed, renamed, target, expression.column, expression.format)

    def _read_column(self, name: str, column: str, target: Target, form: str | None) -> pd.Series:
        values = self._raw[column]
        if target == "number" and _is_plain_number(values.dtype):
            numbers = values.astype("float64")
            finite = np.isfinite(numbers)
            self._problems.note(
                numbers.notna() & ~finite, name, lambda row: f"{shown(values[row])} in column {column} is no number"
            )
            return numbers.where(finite)
        if target == "date" and pd.api.types.is_datetime64_any_dtype(values.dtype):
            days = self._evaluation.days(values, values, None)
            self._problems.note(
                values.notna() & days.isna(), name, lambda row: f"{shown(values[row])} in column {column} is no date"
            )
            return days
        return self._typed(name, values, self._column(name, column), target, column, form)

    def _typed(
        self, name: str, values: pd.Series, texts: pd.Series, target: Target, column: str, form: str | None
    ) -> pd.Series:
        if target == "text":
            return _whole(texts)
        if target == "number":
            out = self._evaluation.numbers(texts)
            what = "number"
        else:
            out = self._evaluation.days(texts, texts, form)
            what = f"date of the form {form or 'YYYY-MM-DD'}"
        self._problems.note(
            texts.notna() & out.isna(), name, lambda row: f"{shown(texts[row])} in column {column} is no {what}"
        )
        return out

    def _date(self, name: str, expression: DateParts) -> pd.Series:
        told = {
            part: pd.Series(str(source.constant), index=self._raw.index, dtype="str")
            if isinstance(source, Constant)
            else _whole(self._column(name, source))
            for part, source in expression.parts.items()
        }
        numbers = {
            part: texts.str.casefold().map(_MONTH_NUMBERS).astype("float64")
            if part == "month"
            else self._evaluation.numbers(texts.where(texts.str.fullmatch(r"[0-9]{1,4}", na=False)))
            for part, texts in told.items()
        }
        given = pd.concat(told, axis=1)
        parts = pd.concat(numbers, axis=1)
        whole = parts.notna().all(axis=1)
        out = pd.Series(pd.NaT, index=self._raw.index, dtype="datetime64[us]")
        if whole.any():
            # A day is told by many rows: each is spelt and read once.
            told_days, place = np.unique(parts[whole].to_numpy(dtype="int64"), axis=0, return_inverse=True)
            spelt = pd.Series(
                [f"{year:04d}-{month:02d}-{day:02d}" for year, month, day in told_days.tolist()], dtype="str"
            )
            out[whole] = self._evaluation.days(spelt, spelt, None).to_numpy()[place]
        columns = ", ".join(expression.columns) or "the mapping"
        # All parts missing is a date that is missing; some missing is a date that is broken.
        some = given[[p for p, s in expression.parts.items() if isinstance(s, str)]].notna().any(axis=1)
        self._problems.note(
            out.isna() & some,
            name,
            lambda row: (
                "year, month and day "
                + shown(" ".join("nothing" if pd.isna(part) else part for part in given.loc[row]))
                + f" in columns {columns} are no date"
            ),
        )
        return out

    def _column(self, name: str, column: str) -> pd.Series:
        """A column's texts; what is no value at all is noted as a problem of `name`."""
        texts, nested = self._texts_of(column)
        self._problems.note(
            nested,
            name,
            lambda row: f"{shown(self._raw.at[row, column])} in column {column} is no text, number or date",
        )
        return texts

    def _texts_of(self, column: str) -> tuple[pd.Series, pd.Series]:
        if column not in self._texts:
            self._texts[column] = self._evaluation.texts(self._raw[column])
        return self._texts[column]


def _is_plain_number(kind: Any) -> bool:
    return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind)


def _constant(value: str | float | bool | date, target: Target, index: pd.Index) -> pd.Series:
    if target == "number":
        # A mapping gives a number column no date, which mypy cannot know.
        return pd.Series(float(value), index=index, dtype="float64")  # type: ignore[arg-type]
    if target == "date":
        return pd.Series(pd.Timestamp(str(value)[:10]), index=index).astype("datetime64[us]")
    return pd.Series(str(value).strip(), index=index, dtype="str")


def _whole(texts: pd.Series) -> pd.Series:
    """Ids without the ".0" of whoever saved the column, with gaps in it, as floats."""
    return texts.str.replace(r"^(-?[0-9]+)\.0$", r"\1", regex=True)


def _float_texts(values: pd.Series) -> pd.Series:
    numbers = values.astype("float64")
    whole = (numbers == np.floor(numbers)) & (numbers.abs() < 2**53)
    texts = numbers.astype("str").astype(object)
    texts[whole] = numbers[whole].astype("int64").astype("str")
    return texts.where(numbers.notna(), np.nan).astype("str")


def _of_calendar(days: pd.Series) -> pd.Series:
    """Without days that only numpy knows: databases and `datetime.date` begin in the year 1 and end in 9999."""
    return days.where(days.dt.year.between(1, 9999))


def _word(value: Any) -> str | None:
    """A typed value as a CSV would have it, "" for nothing; None for what is no single value."""
    if isinstance(value, str):
        return value
    if value is None or value is pd.NaT or value is pd.NA:
        return ""
    if isinstance(value, bool | np.bool_ | int | np.integer | UUID):
        return str(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isnan(number):
            return ""
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else str(number)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime) and value.tzinfo is None and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return None
