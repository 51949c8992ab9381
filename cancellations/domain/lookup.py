"""Features of one booking at a time, by looking up what `features.build` sums for a frame of them.

To build the features of one booking as a frame takes tens of milliseconds, nearly all of it for the joins. Whoever
answers while somebody waits keeps the sums of the past ready instead, by key and day. The numbers are the same to the
last bit: a test holds both together.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.features import (
    AGENT,
    ALL,
    COMPANY,
    HISTORY_CAP,
    PRICE_SHRINKAGE,
    SHRINKAGE,
)
from cancellations.domain.labels import LabelRule
from cancellations.domain.reservation import GROUP_SIZE, Column

# A booking as plain values: dates, texts or None, numbers as float with NaN for missing; by column.
Booking = Mapping[str, Any]
# A month of arrival: its year and number.
Month = tuple[int, int]


class _Running:
    """Two sums by key that grow from day to day."""

    def __init__(self, rows: Iterable[tuple[Hashable, int, float, float]]) -> None:
        """`rows`: key, day (its ordinal) and what is added on it, in any order."""
        self._of: dict[Hashable, tuple[list[int], list[tuple[float, float]]]] = {}
        for key, day, first, second in sorted(rows, key=lambda row: row[1]):
            days, sums = self._of.setdefault(key, ([], []))
            before = sums[-1] if sums else (0.0, 0.0)
            days.append(day)
            sums.append((before[0] + first, before[1] + second))

    def before(self, key: Hashable, day: int) -> tuple[float, float]:
        """Both sums over the days before one."""
        days, sums = self._of.get(key, ((), ()))
        place = bisect_left(days, day)
        return sums[place - 1] if place else (0.0, 0.0)


_NOTHING = _Running([])


def month_of(day: date) -> Month:
    return day.year, day.month


@dataclass(frozen=True)
class Lacking:
    """What a look-up does not hold of the past of some bookings; `everyone`: the record of all bookings together."""

    everyone: bool = False
    agents: frozenset[str] = frozenset()
    companies: frozenset[str] = frozenset()
    months: frozenset[Month] = frozenset()

    @property
    def size(self) -> int:
        return self.everyone + len(self.agents) + len(self.companies) + len(self.months)


@dataclass
class Lookup:
    """The past of bookings that were made on `since` or later, as far as it was read.

    It grows by `remember_records` and `remember_books`: both take what a key has of all times, so that it answers
    for any day of booking from `since` on.
    """

    rule: LabelRule
    since: date
    _everyone: _Running | None = None
    _records: dict[tuple[str, str], _Running] = field(default_factory=dict)
    _books: dict[Month, tuple[_Running, _Running, _Running]] = field(default_factory=dict)

    def lacking(self, bookings: Iterable[Booking]) -> Lacking:
        """Keys of these bookings' past that are not held."""
        agents: set[str] = set()
        companies: set[str] = set()
        months: set[Month] = set()
        for booking in bookings:
            agent, company, month = booking[AGENT], booking[COMPANY], month_of(booking["arrival_on"])
            if agent is not None and (AGENT, agent) not in self._records:
                agents.add(agent)
            if company is not None and (COMPANY, company) not in self._records:
                companies.add(company)
            if month not in self._books:
                months.add(month)
        return Lacking(self._everyone is None, frozenset(agents), frozenset(companies), frozenset(months))

    def __len__(self) -> int:
        """How many keys it holds."""
        return len(self._records) + len(self._books)

    @property
    def held(self) -> Lacking:
        """All keys that it holds, in the form of what another one may lack."""
        # At once: another thread may be about to remember more.
        records, books = tuple(self._records), tuple(self._books)
        agents = frozenset(key for kind, key in records if kind == AGENT)
        companies = frozenset(key for kind, key in records if kind == COMPANY)
        return Lacking(self._everyone is not None, agents, companies, frozenset(books))

    def remember_records(self, tallied: pd.DataFrame, wanted: Lacking) -> None:
        """`tallied`: the tallies (`features.TALLY`) that there are of the keys in `wanted`."""
        days = self.rule.record_days
        keys = [(AGENT, agent) for agent in wanted.agents] + [(COMPANY, company) for company in wanted.companies]
        by_key: dict[tuple[str, str], list[tuple[Hashable, int, float, float]]] = {key: [] for key in keys}
        everyone: list[tuple[Hashable, int, float, float]] = []
        rows = zip(
            tallied["kind"].tolist(),
            tallied["key"].tolist(),
            _ordinals(tallied["arrival_on"]),
            tallied["lag"].tolist(),
            tallied["bookings"].tolist(),
            strict=True,
        )
        for kind, key, arrival, lag, count in rows:
            cancelled = count if 0 <= lag <= days else 0
            to = everyone if kind == ALL else by_key[kind, key]
            to.append(("", arrival + days, float(cancelled), float(count)))
        if wanted.everyone:
            self._everyone = _Running(everyone)
        self._records |= {key: _Running(own) for key, own in by_key.items()}

    def remember_books(self, month: Month, booked: pd.DataFrame) -> None:
        """`booked`: the moves (`features.BOOKS`) of all bookings that arrive in a month."""
        hotels, rooms = booked["hotel"].tolist(), _texts(booked["room_type"])
        arrivals, moved = _ordinals(booked["arrival_on"]), _ordinals(booked["moved_on"])
        counts, priced, cents = (booked[name].tolist() for name in ("bookings", "priced", "cents"))
        self._books[month] = (
            _Running(((h, a), m, float(n), 0.0) for h, a, m, n in zip(hotels, arrivals, moved, counts, strict=True)),
            _Running((h, m, float(p), float(c)) for h, m, p, c in zip(hotels, moved, priced, cents, strict=True)),
            _Running(
                ((h, r), m, float(p), float(c))
                for h, r, m, p, c in zip(hotels, rooms, moved, priced, cents, strict=True)
            ),
        )

    def features(self, booking: Booking, extras: Sequence[Column] = ()) -> dict[str, Any]:
        """What `features.build` gives for the booking, as plain values: float with NaN for missing, text or None.

        Everything that `lacking` names for it must have been remembered; it was booked on `since` or later.
        """
        day, arrival = booking["booked_on"].toordinal(), booking["arrival_on"].toordinal()
        hotel, room, price = booking["hotel"], booking["room_type"], booking["price"]
        cancellations, stays = booking["previous_cancellations"], booking["previous_stays"]

        assert self._everyone is not None, "remember_records comes first"
        cancelled, bookings = self._everyone.before("", day)
        usual = cancelled / bookings if bookings > 0 else 0.0
        agent_rate, own = self._rate(AGENT, booking[AGENT], day, usual)
        company_rate, _ = self._rate(COMPANY, booking[COMPANY], day, usual)

        standing, of_hotel, of_room = self._books[month_of(booking["arrival_on"])]
        on_the_books, _ = standing.before((hotel, arrival), day)
        relative = _relative(price, *of_hotel.before(hotel, day), *of_room.before((hotel, room), day))

        # One display: this runs for each booking while somebody waits.
        found: dict[str, Any] = {
            "lead_days": float(arrival - day),
            "weekend_nights": booking["weekend_nights"],
            "week_nights": booking["week_nights"],
            "adults": booking["adults"],
            "children": booking["children"],
            "babies": booking["babies"],
            "repeated_guest": booking["repeated_guest"],
            # What is missing is neither above the cap nor below it.
            "previous_cancellations": HISTORY_CAP if cancellations > HISTORY_CAP else cancellations,
            "previous_stays": HISTORY_CAP if stays > HISTORY_CAP else stays,
            "price": price,
            "special_requests": booking["special_requests"],
            "agent_cancel_rate": agent_rate,
            "agent_bookings": float(np.log1p(own)) if own else 0.0,
            "company_cancel_rate": company_rate,
            GROUP_SIZE: booking[GROUP_SIZE],
            "on_the_books": on_the_books,
            "relative_price": relative,
            "hotel": hotel,
            "meal": booking["meal"],
            "market_segment": booking["market_segment"],
            "distribution_channel": booking["distribution_channel"],
            "room_type": room,
            "deposit_type": booking["deposit_type"],
            "customer_type": booking["customer_type"],
        }
        for column in extras:
            found[column.name] = booking.get(column.name, None if column.kind == "category" else math.nan)
        return found

    def _rate(self, kind: str, key: str | None, day: int, usual: float) -> tuple[float, float]:
        """Cancellation rate and count of a key's matured bookings; missing and 0 without a key."""
        if key is None:
            return math.nan, 0.0
        cancelled, bookings = self._records.get((kind, key), _NOTHING).before("", day)
        return (cancelled + SHRINKAGE * usual) / (bookings + SHRINKAGE), bookings


def _relative(price: float, priced: float, cents: float, own_priced: float, own_cents: float) -> float:
    if not price > 0 or not priced > 0:
        return math.nan
    usual = (own_cents + PRICE_SHRINKAGE * (cents / priced)) / (own_priced + PRICE_SHRINKAGE)
    # Where every price was below a cent the quotient is infinite, as it is for numpy.
    return float(np.log(100 * price / usual)) if usual > 0 else math.inf


def _ordinals(days: pd.Series) -> list[int]:
    """Proleptic ordinals of a column of dates, as `date.toordinal` counts."""
    epoch = date(1970, 1, 1).toordinal()
    counted: list[int] = (days.to_numpy().astype("datetime64[D]").astype("int64") + epoch).tolist()
    return counted


def _texts(values: pd.Series) -> list[str | None]:
    missing = values.isna().to_numpy()
    return [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
