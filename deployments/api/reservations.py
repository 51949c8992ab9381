"""Reservations in a request: the product's own columns as JSON, held to the rules by which rows are loaded.

The rules themselves stand in `domain.reservation.COLUMNS`; a test holds this reading and the frame's
(`coerce`, `violations`) together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model

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
        self._numbers = [c.name for c in self.columns if c.kind in ("count", "number")]
        self._counts = [c.name for c in self.columns if c.kind == "count"]
        self._texts = [c.name for c in self.columns if c.kind in ("id", "category")]
        reservation = create_model(
            "Reservation",
            __config__=ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": [EXAMPLE]}),
            **{column.name: _field(column) for column in self.columns},  # type: ignore[call-overload]
        )
        self.model: type[BaseModel] = create_model(
            "Asking",
            __config__=ConfigDict(
                strict=True, extra="forbid", json_schema_extra={"examples": [{"reservations": [EXAMPLE], "reasons": 3}]}
            ),
            reservations=(list[reservation], Field(min_length=1, max_length=most, description="one or many")),
            record=(bool, Field(True, description="false: score them as they are told, and keep nothing")),
            reasons=(int, Field(0, ge=0, le=MOST_REASONS, description="how many reasons to give for each")),
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
            booking = self._booking(vars(told))
            bookings.append(booking)
            first = seen.setdefault(booking["reservation_id"] or "", place)
            if first != place:
                again = f"appears again, after reservations[{first}]"
                details.append(Detail(f"reservations[{place}].reservation_id", again))
            details += [
                Detail(f"reservations[{place}].{column}", rule) for column, rule in self._broken(booking, today)
            ]
        if details:
            raise _refusal(details)
        return Reading(tuple(bookings), given.record, given.reasons)

    def _booking(self, told: dict[str, Any]) -> dict[str, Any]:
        booking = dict(told)
        for name in self._numbers:
            if booking[name] is None:
                booking[name] = math.nan
        for name in self._texts:
            text = booking[name]
            if text is not None:
                booking[name] = text.strip() or None
        return booking

    def _broken(self, booking: Booking, today: date) -> Iterator[tuple[str, str]]:
        """Rules that a booking breaks beyond those of single values, as `domain.reservation.violations` tells them."""
        for name in self._texts:
            text = booking[name]
            if text is None:
                if name in REQUIRED:
                    yield name, MISSING_RULE
            elif len(text) > LONGEST_TEXT:
                yield name, f"is longer than {LONGEST_TEXT:,} characters"
            elif "\0" in text:
                yield name, "contains a NUL character"
        for name in self._counts:
            number = booking[name]
            if not (number.is_integer() or number != number):
                yield name, "is not a whole number"
        for name in ("booked_on", "arrival_on"):
            if not FIRST_DAY <= booking[name] <= LAST_DAY:
                yield name, f"lies before {FIRST_DAY} or after {LAST_DAY}"
        if booking["booked_on"] > today + ZONES:
            yield "booked_on", f"lies after {today}, the day that counts as today"
        if booking["arrival_on"] < booking["booked_on"]:
            yield "arrival_on", "lies before booked_on"
        guests = [booking[name] for name in ("adults", "children", "babies")]
        if not any(number > 0 for number in guests):
            yield "adults", "no guest at all: adults, children and babies are 0"


def _field(column: Column) -> tuple[Any, Any]:
    described = Field(... if column.required else None)
    if column.kind == "date":
        return date, described
    if column.kind in ("id", "category"):
        shape = {"type": "string", "maxLength": LONGEST_TEXT} | ({"minLength": 1} if column.required else {})
        text = Annotated[str, WithJsonSchema(shape)]
        return (text if column.required else text | None), described
    shape = {"type": "integer" if column.kind == "count" else "number"}
    shape |= {k: v for k, v in (("minimum", column.low), ("maximum", column.high)) if v is not None}
    number = Annotated[float, Field(ge=column.low, le=column.high, allow_inf_nan=False), WithJsonSchema(shape)]
    return (number if column.required else number | None), described


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
