"""What a table's columns mean: a mapping file (TOML) from a source's columns to a reservation and its outcome.

A mapping names, for each column of a reservation, the source's column or one of six expressions:
a column with its values renamed or its date's format, a constant, a concatenation, a sum, a date from
its parts, the row's number. Nothing in it is executed.
"""

from __future__ import annotations

import codecs
import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cancellations.domain.features import FEATURES
from cancellations.domain.reservation import ACTION_NAMES, COLUMNS, NAMES, OUTCOME_NAMES, ActionTaken, Column, Status
from cancellations.errors import BadInput
from cancellations.ports import Undated

FORMAT = 1
MISSING: tuple[str, ...] = ("", "NULL", "NA", "N/A", "NaN", "nan", "null", "None")
# What canonical columns are made of where a table does not hold them; name -> what it feeds.
INPUTS: dict[str, tuple[str, ...]] = {
    "lead_days": ("booked_on",),
    "departure_on": ("weekend_nights", "week_nights"),
    "nights": ("weekend_nights", "week_nights"),
    "total_price": ("price",),
}
_DATES = frozenset({"departure_on"} | {c.name for c in COLUMNS if c.kind == "date"})
_NUMBERS = frozenset(
    {"lead_days", "nights", "total_price"} | {c.name for c in COLUMNS if c.kind in ("count", "number")}
)
RESERVED: frozenset[str] = frozenset(
    {*NAMES, *INPUTS, *FEATURES, *OUTCOME_NAMES, *ACTION_NAMES}
    | {"label", "weight", "matured_on", "probability", "extras", "hold_out"}
)
FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]*")

Target = Literal["text", "number", "date"]


def target_of(name: str) -> Target:
    """What is read for a canonical column, an input or a part of an outcome."""
    if name in _DATES or name in ("known_on", "acted_on"):
        return "date"
    return "number" if name in _NUMBERS else "text"


def _wrong(message: str) -> PydanticCustomError:
    # A ValueError would have its text prefixed; braces in what was found are no placeholders.
    return PydanticCustomError("mapping", "{told}", {"told": message})


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A question that names the nearest of the allowed names, empty when none is near."""
    near = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}? " if near else ""


class _Table(BaseModel):
    """A table of the file that knows its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, found: Any) -> Any:
        found = cls._shaped(found)
        if isinstance(found, dict):
            _check_names(found, list(cls.model_fields), "key")
        return found

    @classmethod
    def _shaped(cls, found: Any) -> Any:
        """What stands in the file, as the fields have it."""
        return found


def _check_names(found: Iterable[str], allowed: Sequence[str], what: str) -> None:
    for name in found:
        if name not in allowed:
            raise _wrong(f"there is no {what} {name!r}; {nearest(name, allowed)}Allowed: {', '.join(allowed)}")


class Read(_Table):
    """A column, its values perhaps renamed by `map`, its dates perhaps read by `format`.

    What `map` does not name is kept, missing, or quarantined, as `otherwise` says; None is the default of
    the target: a status is quarantined, anything else kept. A value mapped to "" is missing.
    """

    kind: ClassVar[str] = "column"
    column: str
    map: dict[str, str | int | float | bool] | None = None
    otherwise: Literal["keep", "missing", "quarantine"] | None = None
    format: str | None = None

    @classmethod
    def _shaped(cls, found: Any) -> Any:
        return {"column": found} if isinstance(found, str) else found

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @model_validator(mode="after")
    def _fits(self) -> Read:
        if self.otherwise is not None and self.map is None:
            raise _wrong("otherwise says what happens to values that map does not name; there is no map")
        if self.format is not None and not re.search(r"%[A-Za-z]", self.format):
            raise _wrong(f"format {self.format!r} has no part of a date; one is '%d/%m/%Y'")
        return self


class Constant(_Table):
    """The same value in each row."""

    kind: ClassVar[str] = "constant"
    constant: str | int | float | bool | date
    columns: ClassVar[tuple[str, ...]] = ()


class Concat(_Table):
    """Texts of several columns in a row; missing when any of them is."""

    kind: ClassVar[str] = "concat"
    concat: list[str] = Field(min_length=1)
    separator: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.concat)


class Sum(_Table):
    """Numbers of several columns added; missing ones count 0 unless all are missing."""

    kind: ClassVar[str] = "sum"
    sum: list[str] = Field(min_length=1)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.sum)


class DateParts(_Table):
    """A date from its parts: columns, or constants (a number, or `{ constant = 1 }`).

    A month is a number, an English name or its first three letters.
    """

    kind: ClassVar[str] = "year"
    year: str | int | Constant
    month: str | int | Constant
    day: str | int | Constant

    @property
    def parts(self) -> dict[str, str | Constant]:
        """Year, month, day: a column's name or a constant."""
        given = {"year": self.year, "month": self.month, "day": self.day}
        return {name: Constant(constant=part) if isinstance(part, int) else part for name, part in given.items()}

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(part for part in self.parts.values() if isinstance(part, str))


class RowNumber(_Table):
    """The file's name and the row's number, "hotels-000001", for a table without ids.

    A table that brings a column `reservation_id` after all is taken at its word.
    """

    kind: ClassVar[str] = "row_number"
    row_number: Literal[True]
    columns: ClassVar[tuple[str, ...]] = ()


_KINDS: tuple[type[Read | Constant | Concat | Sum | DateParts | RowNumber], ...] = (
    Read,
    Constant,
    Concat,
    Sum,
    DateParts,
    RowNumber,
)
_EXAMPLES = (
    '"column", { column = "x", map = { A = "a" } }, { column = "x", format = "%d/%m/%Y" }, { constant = "x" },'
    ' { concat = ["a", "b"] }, { sum = ["a", "b"] }, { year = "y", month = "m", day = "d" }, { row_number = true }'
)


def _kind(found: Any) -> str | None:
    """Which expression is meant: by its key, or by the nearest to a misspelt one."""
    if isinstance(found, str):
        return "column"
    if isinstance(found, _Table):
        return getattr(found, "kind", None)
    if not isinstance(found, dict):
        return None
    told = [k.kind for k in _KINDS if k.kind in found]
    if told:
        return told[0]
    of_key = {name: k.kind for k in _KINDS for name in k.model_fields}
    for key in found:
        if near := difflib.get_close_matches(key, list(of_key), n=1, cutoff=0.7):
            return of_key[near[0]]
    return None


Expression = Annotated[
    Annotated[Read, Tag("column")]
    | Annotated[Constant, Tag("constant")]
    | Annotated[Concat, Tag("concat")]
    | Annotated[Sum, Tag("sum")]
    | Annotated[DateParts, Tag("year")]
    | Annotated[RowNumber, Tag("row_number")],
    Discriminator(
        _kind,
        custom_error_type="mapping",
        custom_error_message=f"this is no column and no expression. Allowed: {_EXAMPLES}",
    ),
]


class Limits(_Table):
    """What is believed of a number, inclusive."""

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        _check_limits(self.low, self.high)
        return self


def _check_limits(low: float | None, high: float | None) -> None:
    if any(limit is not None and math.isnan(limit) for limit in (low, high)):
        raise _wrong("nan is no limit")
    if low is not None and high is not None and low > high:
        raise _wrong(f"low = {low:g} lies above high = {high:g}")


class Feature(_Table):
    """An extra column that the model sees: its kind, its limits, and where it comes from."""

    kind: Literal["number", "category"]
    low: float | None = None
    high: float | None = None
    value: Expression

    @classmethod
    def _shaped(cls, found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        own = {k: v for k, v in found.items() if k in ("kind", "low", "high")}
        rest = {k: v for k, v in found.items() if k not in own}
        for key in rest:
            if key not in {n for k in _KINDS for n in k.model_fields} and "kind" not in own and nearest(key, ["kind"]):
                raise _wrong(f"there is no key {key!r}; did you mean 'kind'?")
        return {**own, "value": rest}

    @model_validator(mode="after")
    def _fits(self) -> Feature:
        _check_limits(self.low, self.high)
        if self.kind == "category" and (self.low is not None or self.high is not None):
            raise _wrong("a category has no limits; low and high are for numbers")
        return self


class Reading(_Table):
    """How a table is read: its delimiter, its spellings, or the query that gives it."""

    header: int = Field(1, ge=1, le=1_000)
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    missing: tuple[str, ...] = Field(MISSING, strict=False)
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'", "’", "_"] = ""
    timezone: str = "UTC"
    url: str | None = Field(None, repr=False)
    url_env: str | None = None
    query: str | None = None

    @field_validator("delimiter", "quote")
    @classmethod
    def _one_sign(cls, found: str) -> str:
        if len(found) != 1 or found in "\r\n\0":
            raise _wrong(f"{found!r} is not one sign")
        return found

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, found: str) -> str:
        try:
            text = codecs.lookup(found)._is_text_encoding
        except (LookupError, ValueError):
            text = False
        if not text:
            raise _wrong(f"{found!r} is no encoding; some are utf-8, cp1252, iso-8859-15, utf-16")
        return found

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, found: str) -> str:
        try:
            ZoneInfo(found)
        except (KeyError, ValueError, OSError):
            raise _wrong(f"{found!r} is no time zone; some are UTC, Europe/Lisbon, America/New_York") from None
        return found

    @model_validator(mode="after")
    def _fits(self) -> Reading:
        if self.delimiter == self.quote:
            raise _wrong(f"delimiter and quote are both {self.quote!r}")
        if self.thousands == self.decimal:
            raise _wrong(f"decimal and thousands are both {self.decimal!r}")
        if self.url is not None and self.url_env is not None:
            raise _wrong("url and url_env are both given; give one of them")
        if self.query is not None and not self.is_database:
            raise _wrong("a query needs url, or url_env, the name of a variable that holds it")
        if self.is_database and not (self.query or "").strip():
            raise _wrong("url needs a query: the SELECT that gives the table")
        return self

    @property
    def is_database(self) -> bool:
        return self.url is not None or self.url_env is not None


class Outcome(_Table):
    """How a booking ended, and the day on which that became known, where it is told.

    And what somebody did about it because of its score, with its day, where that comes back: both or neither.
    """

    reservation_id: Expression | None = None
    status: Expression
    known_on: Expression | None = None
    action_taken: Expression | None = None
    acted_on: Expression | None = None
    undated: Undated = Field(Undated.MATURITY, strict=False)

    @model_validator(mode="after")
    def _fits(self) -> Outcome:
        _check_map("status", self.status, list(Status), '"" for none yet')
        if (self.action_taken is None) != (self.acted_on is None):
            raise _wrong("action_taken and acted_on belong together: what was done about a booking, and on which day")
        if self.action_taken is not None:
            _check_map("action_taken", self.action_taken, list(ActionTaken), '"" for nothing told')
        for name in ("reservation_id", "status", "known_on", "action_taken", "acted_on"):
            if (expression := getattr(self, name)) is not None:
                _check_fit(name, expression, target_of(name), rows_numbered=False)
        return self


def _check_map(name: str, expression: Expression, known: Sequence[str], nothing: str) -> None:
    """Raises where values are renamed to what is none of ours."""
    if not isinstance(expression, Read):
        return
    allowed = ("", *(str(one) for one in known))
    for theirs, ours in (expression.map or {}).items():
        if ours not in allowed:
            raise _wrong(
                f"{name}.map.{theirs} is {ours!r}; {nearest(str(ours), allowed)}"
                f"Allowed: {', '.join(allowed[1:])}, and {nothing}"
            )


class Mapping(_Table):
    """A mapping file. `text` is the file as it was written."""

    format: Literal[1]
    name: str | None = Field(None, min_length=1, max_length=100)
    source: Reading = Reading()
    reservation: dict[str, Expression] | None = None
    outcome: Outcome | None = None
    features: dict[str, Feature] = {}
    limits: dict[str, Limits] = {}

    _text: str = ""

    @property
    def text(self) -> str:
        return self._text

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The canonical columns, with this mapping's limits, then its features."""
        limited = (self._limited(column) for column in COLUMNS)
        return (*limited, *self.extras)

    @cached_property
    def extras(self) -> tuple[Column, ...]:
        """The features that the mapping adds."""
        return tuple(Column(n, f.kind, low=f.low, high=f.high) for n, f in self.features.items())

    @cached_property
    def fed(self) -> frozenset[str]:
        """Canonical columns that the table fills, directly or from an input."""
        given = self.reservation or {}
        return frozenset(n for n in given if n in NAMES) | {ours for n in given for ours in INPUTS.get(n, ())}

    @cached_property
    def source_columns(self) -> tuple[str, ...]:
        """Columns of the table that the mapping reads, in the order of the file."""
        return tuple(dict.fromkeys(column for e in self._expressions() for column in e.columns))

    def _expressions(self) -> Iterator[Read | Constant | Concat | Sum | DateParts | RowNumber]:
        yield from (self.reservation or {}).values()
        if self.outcome is not None:
            told = self.outcome
            parts = (told.reservation_id, told.status, told.known_on, told.action_taken, told.acted_on)
            yield from (part for part in parts if part is not None)
        yield from (feature.value for feature in self.features.values())

    def _limited(self, column: Column) -> Column:
        own = self.limits.get(column.name)
        if own is None:
            return column
        told = own.model_fields_set
        return replace(
            column,
            low=own.low if "low" in told else column.low,
            high=own.high if "high" in told else column.high,
        )

    @field_validator("reservation", mode="before")
    @classmethod
    def _known_columns(cls, found: Any) -> Any:
        if isinstance(found, dict):
            _check_names(found, (*NAMES, *INPUTS), "column")
        return found

    @field_validator("limits", mode="before")
    @classmethod
    def _limited_columns(cls, found: Any) -> Any:
        if isinstance(found, dict):
            _check_names(found, [c.name for c in COLUMNS if c.kind in ("count", "number")], "column of numbers")
        return found

    @field_validator("features", mode="before")
    @classmethod
    def _free_names(cls, found: Any) -> Any:
        if isinstance(found, dict):
            for name in found:
                if not FEATURE_NAME.fullmatch(name):
                    raise _wrong(f"{name!r} is no name of a feature: small letters, digits and _, a letter first")
                if name in RESERVED:
                    raise _wrong(f"{name!r} is a name of our own; call the feature otherwise")
        return found

    @model_validator(mode="after")
    def _fits(self) -> Mapping:
        if self.reservation is None:
            if self.outcome is None:
                raise _wrong("there is neither [reservation] nor [outcome]; nothing would be read")
            if self.outcome.reservation_id is None:
                raise _wrong("outcome.reservation_id is missing: without [reservation] nothing else tells whose it is")
            if self.features or self.limits:
                raise _wrong("[features] and [limits] belong to reservations; there is no [reservation]")
            return self
        if self.outcome is not None and self.outcome.reservation_id is not None:
            raise _wrong("outcome.reservation_id is the reservation's; leave it out where [reservation] is given")
        if self.source.is_database and isinstance(self.reservation.get("reservation_id"), RowNumber):
            raise _wrong("reservation.reservation_id: rows of a query have no fixed order; name a column that is an id")
        self._check_reservation(self.reservation)
        for name, feature in self.features.items():
            _check_fit(
                f"features.{name}",
                feature.value,
                "number" if feature.kind == "number" else "text",
                rows_numbered=False,
            )
        return self

    def _check_reservation(self, given: dict[str, Expression]) -> None:
        for one, other in (
            ("booked_on", "lead_days"),
            ("departure_on", "nights"),
            ("price", "total_price"),
            ("weekend_nights", "nights"),
            ("weekend_nights", "departure_on"),
            ("week_nights", "nights"),
            ("week_nights", "departure_on"),
        ):
            if one in given and other in given:
                raise _wrong(f"reservation.{one} and reservation.{other} tell the same; give one of them")
        for column in COLUMNS:
            if column.required and column.name not in self.fed:
                inputs = [name for name, feeds in INPUTS.items() if column.name in feeds]
                or_from = f", or of {' or '.join(inputs)}, which it is made of" if inputs else ""
                raise _wrong(f"reservation.{column.name} is missing: name its column{or_from}")
        for name, expression in given.items():
            _check_fit(f"reservation.{name}", expression, target_of(name), rows_numbered=name == "reservation_id")


def _check_fit(
    where: str,
    expression: Read | Constant | Concat | Sum | DateParts | RowNumber,
    target: Target,
    *,
    rows_numbered: bool,
) -> None:
    """Raises where an expression cannot give what its target holds."""
    if isinstance(expression, RowNumber) and not rows_numbered:
        raise _wrong(f"{where}: a row number is an id; only reservation.reservation_id may be one")
    if isinstance(expression, Sum) and target != "number":
        raise _wrong(f"{where}: a sum is a number, and this is a {target}")
    if isinstance(expression, DateParts) and target != "date":
        raise _wrong(f"{where}: year, month and day make a date, and this is a {target}")
    if isinstance(expression, Read) and expression.format is not None and target != "date":
        raise _wrong(f"{where}: a format is for dates, and this is a {target}")
    if isinstance(expression, Constant):
        _check_constant(where, expression.constant, target)


def _check_constant(where: str, found: str | float | bool | date, target: Target) -> None:
    if target == "number" and not (isinstance(found, int | float) and math.isfinite(found)):
        raise _wrong(f"{where}: the constant {found!r} is no number")
    if target == "date" and not isinstance(found, date):
        try:
            date.fromisoformat(str(found))
        except ValueError:
            raise _wrong(f"{where}: the constant {found!r} is no date as YYYY-MM-DD") from None


def read_mapping(path: Path) -> Mapping:
    """The mapping in a file; raises `BadInput` that names file, key, what was found and what is allowed."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BadInput(f"there is no mapping {path}. `cancellations mapping init FILE` drafts one.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"the mapping {path} is not written in UTF-8: {error.reason}. Save it as UTF-8.") from error
    except OSError as error:
        raise BadInput(f"the mapping {path} cannot be read: {error.strerror or error}.") from error
    return parse(text, where=str(path))


def parse(text: str, where: str = "the mapping") -> Mapping:
    """The mapping that a text holds; raises `BadInput` as `read_mapping` does, with `where` for the file."""
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{where} is no TOML: {error}.") from error
    if found.get("format", FORMAT) != FORMAT:
        raise BadInput(f"{where}: format is {found['format']!r}; this version reads format = {FORMAT}.")
    try:
        mapping = Mapping.model_validate(found)
    except ValidationError as error:
        told = "; ".join(list(dict.fromkeys(_told(e) for e in error.errors()))[:8])
        raise BadInput(f"{where}: {told.rstrip('.?')}.") from error
    mapping._text = text
    return mapping


# Where a value may be of several types, each of them complains under its name.
_TYPES = frozenset({"str", "int", "float", "bool", "date", "Constant"})


def _told(error: Any) -> str:
    """One sentence: the path of the key, what was found, what is allowed."""
    path = _path(error["loc"])
    if error["type"] == "missing":
        return f"{path} is missing"
    if error["type"] == "mapping":
        return f"{path}: {error['msg']}" if path else str(error["msg"])
    allowed = "give a text or a number" if error["loc"][-1] in _TYPES else error["msg"]
    return f"{path}: {_cut(error['input'])} cannot be used: {allowed}"


def _path(loc: Sequence[Any]) -> str:
    """Keys as the file has them, without the tags that pydantic puts behind an expression."""
    keys = [str(key) for key in loc]
    expression = {"reservation": 2, "outcome": 2, "features": 3}.get(keys[0] if keys else "")
    if expression is not None and not (keys[0] == "outcome" and keys[1:2] == ["undated"]):
        del keys[expression : expression + 1]
    if keys[:1] == ["features"]:
        keys = [key for place, key in enumerate(keys) if not (place == 2 and key == "value")]
    if keys and keys[-1] in _TYPES:
        keys.pop()
    return ".".join(keys)


def _cut(found: Any) -> str:
    told = found.isoformat() if isinstance(found, date | datetime) else repr(found)
    return told if len(told) <= 60 else told[:59] + "…"
