"""Reservations in a request: the product's own columns as JSON, held to the rules by which rows are loaded.

The rules themselves stand in `domain.reservation.COLUMNS`; a test holds this reading and the frame's
(`coerce`, `violations`) together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model, with_config
from typing_extensions import TypedDict

from cancellations.domain.lookup import Booking
from cancellations.domain.reservation import COLUMNS, LONGEST_TEXT, MISSING_RULE, Column
from deployments.api.problems import Detail, Problem

MOST_REASONS = 10
# No booking is of a day before; and none is made for a day after.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2199, 12, 31)
# East of UTC a new day begins earlier.
ZONES = timedelta(days=1)

REQUIRED = frozenset(c.name for c in COLUMNS if c.required)

EXAMPLE: dict[str, Any] = {
    "reservation_id": "2016-07-01-0042",
    "hotel": "City Hotel",
    "booked_on": "2016-07-01",
    "arrival_on": "2016-09-14",
    "weekend_nights": 0,
    "week_nights": 3,
    "adults": 2,
    "children": 0,
    "meal": "BB",
    "market_segment": "Online TA",
    "distribution_channel": "TA/TO",
    "deposit_type": "No Deposit",
    "customer_type": "Transient",
    "agent": "9",
    "price": 104.5,
    "special_requests": 1,
}


class Reading(NamedTuple):
    """A request as it was read."""

    bookings: tuple[Booking, ...]
    record: bool
    reasons: int


class Reader:
    """Reads bodies of `/predict`; `extras` are the columns that mappings have declared as features."""

    def __init__(self, extras: Sequence[Column], most: int) -> None:
        self.extras = tuple(extras)
        self.columns = (*COLUMNS, *extras)
        self._numbers = [(c.name, c.kind == "count") for c in self.columns if c.kind in ("count", "number")]
        self._texts = [c.name for c in self.columns if c.kind in ("id", "category")]
        self._missing = {c.name: math.nan if c.kind in ("count", "number") else None for c in self.columns}
        # Dictionaries as they are read: an object of each reservation would be made to be taken apart again.
        fields = {column.name: _field(column) for column in self.columns}
        form = ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": [EXAMPLE]})
        made: Any = TypedDict  # for type checkers it has to be written out
        reservation: Any = with_config(form)(made("Reservation", fields))
        self.model: type[BaseModel] = create_model(
            "Asking",
            __config__=ConfigDict(
                strict=True, extra="forbid", json_schema_extra={"examples": [{"reservations": [EXAMPLE], "reasons": 3}]}
            ),
            reservations=(list[reservation], Field(min_length=1, max_length=most, description="one or many")),
            record=(bool, Field(True, description="true; false scores them as they are told, and keeps nothing")),
            reasons=(int, Field(0, ge=0, le=MOST_REASONS, description="0: how many reasons to give for each")),
        )

    def read(self, body: bytes, today: date) -> Reading:
        """Raises `Problem` that names everything that is wrong."""
        try:
            given: Any = self.model.model_validate_json(body)
        except ValidationError as error:
            raise _refusal([_detail(e) for e in error.errors(include_url=False, include_context=False)]) from None
        details: list[Detail] = []
        bookings: list[Booking] = []
        seen: dict[str, int] = {}
        for place, told in enumerate(given.reservations):
            booking = {**self._missing, **told}
            bookings.append(booking)
            broken = self._broken(booking, today)
            first = seen.setdefault(booking["reservation_id"] or "", place)
            if first != place:
                broken.append(("reservation_id", f"appears again, after reservations[{first}]"))
            details += [Detail(f"reservations[{place}].{column}", rule) for column, rule in broken]
        if details:
            raise _refusal(details)
        return Reading(tuple(bookings), given.record, given.reasons)

    def _broken(self, booking: dict[str, Any], today: date) -> list[tuple[str, str]]:
        """Rules that a booking breaks beyond those of single values, as `domain.reservation.violations` tells them;
        brings texts and missing numbers to the form in which they are stored."""
        broken = []
        for name in self._texts:
            text = booking[name]
            if text is not None:
                text = booking[name] = text.strip() or None
            if text is None:
                if name in REQUIRED:
                    broken.append((name, MISSING_RULE))
            elif len(text) > LONGEST_TEXT:
                broken.append((name, f"is longer than {LONGEST_TEXT:,} characters"))
            elif "\0" in text:
                broken.append((name, "contains a NUL character"))
        for name, is_count in self._numbers:
            number = booking[name]
            if number is None:
                booking[name] = math.nan
            elif is_count and not (number.is_integer() or number != number):
                broken.append((name, "is not a whole number"))
        booked_on, arrival_on = booking["booked_on"], booking["arrival_on"]
        for name, day in (("booked_on", booked_on), ("arrival_on", arrival_on)):
            if not FIRST_DAY <= day <= LAST_DAY:
                broken.append((name, f"lies before {FIRST_DAY} or after {LAST_DAY}"))
        if booked_on > today + ZONES:
            broken.append(("booked_on", f"lies after {today}, the day that counts as today"))
        if arrival_on < booked_on:
            broken.append(("arrival_on", "lies before booked_on"))
        if not (booking["adults"] > 0 or booking["children"] > 0 or booking["babies"] > 0):
            broken.append(("adults", "no guest at all: adults, children and babies are 0"))
        return broken


def _field(column: Column) -> Any:
    kind: Any
    if column.kind == "date":
        kind = date
    elif column.kind in ("id", "category"):
        shape = {"type": "string", "maxLength": LONGEST_TEXT} | ({"minLength": 1} if column.required else {})
        kind = Annotated[str, WithJsonSchema(shape)]
    else:
        shape = {"type": "integer" if column.kind == "count" else "number"}
        shape |= {k: v for k, v in (("minimum", column.low), ("maximum", column.high)) if v is not None}
        kind = Annotated[float, Field(ge=column.low, le=column.high, allow_inf_nan=False), WithJsonSchema(shape)]
    return kind if column.required else NotRequired[Annotated[kind | None, Field(description=column.without)]]


def _detail(error: Any) -> Detail:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    what = error["msg"]
    if error["type"] == "extra_forbidden":
        what = "is no column of a reservation, and no feature that a mapping declares"
    return Detail(where[:200] or "body", what[:200])


def _refusal(details: Sequence[Detail]) -> Problem:
    count = "one thing is" if len(details) == 1 else f"{len(details):,} things are"
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"the request cannot be used: {count} wrong",
        "correct what is named in problems; /openapi.json describes the form. Nothing was scored",
        details,
    )
