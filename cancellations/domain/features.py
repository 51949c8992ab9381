"""What the model may see: columns known at booking and history strictly before the booking's date.

One function serves training and scoring. Both give it the reservations and the same tally of what
became of earlier bookings, so a booking gets the same features whenever they are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.labels import CANCELLED, LabelRule
from cancellations.domain.reservation import GROUP_SIZE, Column
from cancellations.domain.running import days_of, numbers_of, sums_before

# Arrival year, month and week are left out: in a window that ends at as_of, "arrives later" reads
# as "cancelled" to a model that sees the season.
NUMERIC: tuple[str, ...] = (
    "lead_days",
    "weekend_nights",
    "week_nights",
    "adults",
    "children",
    "babies",
    "repeated_guest",
    "previous_cancellations",
    "previous_stays",
    "price",
    "special_requests",
    "agent_cancel_rate",
    "agent_bookings",
    "company_cancel_rate",
    GROUP_SIZE,
    "on_the_books",
    "relative_price",
)
CATEGORICAL: tuple[str, ...] = (
    "hotel",
    "meal",
    "market_segment",
    "distribution_channel",
    "room_type",
    "deposit_type",
    "customer_type",
)
FEATURES: tuple[str, ...] = NUMERIC + CATEGORICAL


@dataclass(frozen=True)
class FeatureSet:
    """Names of a model's features by kind: float64 with NaN for missing, and text with NaN for missing."""

    numeric: tuple[str, ...] = NUMERIC
    categorical: tuple[str, ...] = CATEGORICAL

    @property
    def names(self) -> tuple[str, ...]:
        return self.numeric + self.categorical

    @classmethod
    def of(cls, frame: pd.DataFrame) -> FeatureSet:
        """The features that a frame of them holds, by the types of its columns."""
        numeric = tuple(str(c) for c in frame if pd.api.types.is_numeric_dtype(frame[c].dtype))
        return cls(numeric, tuple(str(c) for c in frame if c not in numeric))

    def excluding(self, names: Sequence[str]) -> FeatureSet:
        """These without the named ones."""
        return FeatureSet(
            tuple(n for n in self.numeric if n not in names), tuple(n for n in self.categorical if n not in names)
        )

    def extended(self, extras: Sequence[Column]) -> FeatureSet:
        """These and the columns that a mapping declares as features of its own."""
        return FeatureSet(
            self.numeric + tuple(c.name for c in extras if c.kind != "category"),
            self.categorical + tuple(c.name for c in extras if c.kind == "category"),
        )


CORE = FeatureSet()

# Histories are capped: one company's record of 26 earlier cancellations is no ten times worse than 3.
HISTORY_CAP = 3.0
# A rate over few bookings is shrunk towards the overall rate as if this many bookings had it.
SHRINKAGE = 20.0


# Prices of one booking or two of a room say little: its hotel's average of the month counts as so many.
PRICE_SHRINKAGE = 5.0

# What a hotel has on its books, as moves: `bookings` made (or cancelled, less than none) on `moved_on` for an
# arrival, and of those made how many were `priced` and the sum of
# these prices: whole cents, so that a sum is the same in whatever order and place it is made.
BOOKS: tuple[str, ...] = ("hotel", "room_type", "arrival_on", "moved_on", "bookings", "priced", "cents")

# A tally counts bookings by whose they are, arrival and outcome. `lag` is the number of days from the
# arrival until the cancellation was known, 0 for those known earlier; KEPT stands for no cancellation.
# So it holds for any rule of maturity, and grows with agents and days, not with bookings.
TALLY: tuple[str, ...] = ("kind", "key", "arrival_on", "lag", "bookings")
ALL, AGENT, COMPANY = KINDS = "all", "agent", "company"
KEPT = -1


def tally(history: pd.DataFrame) -> pd.DataFrame:
    """Bookings of `history` (with `status` and `known_on`) counted, columns `TALLY`.

    The store keeps the same counts as outcomes come in; this is what they must equal.
    """
    late = (history["known_on"] - history["arrival_on"]).dt.days.clip(lower=0)
    counted = pd.DataFrame(
        {
            ALL: "",
            AGENT: history["agent"].astype(object),
            COMPANY: history["company"].astype(object),
            "arrival_on": history["arrival_on"],
            "lag": late.where(history["status"].isin(CANCELLED)).fillna(KEPT).astype("int64"),
        }
    )
    parts = [
        counted.dropna(subset=[kind])
        .groupby([kind, "arrival_on", "lag"], as_index=False)
        .size()
        .set_axis(["key", "arrival_on", "lag", "bookings"], axis=1)
        .assign(kind=kind)
        for kind in (ALL, AGENT, COMPANY)
    ]
    return pd.concat(parts, ignore_index=True)[list(TALLY)]


def books(history: pd.DataFrame) -> pd.DataFrame:
    """Moves on the books by all bookings of `history` (with `status` and `known_on`), columns `BOOKS`.

    The store counts the same from its rows; this is what that must equal.
    """
    price = history["price"].where(history["price"] > 0)
    made = history[["hotel", "room_type", "arrival_on"]].assign(
        moved_on=history["booked_on"], bookings=1, priced=price.notna(), cents=np.trunc(price * 100).fillna(0)
    )
    gone = made.assign(moved_on=history["known_on"], bookings=-1, priced=0, cents=0)
    gone = gone[history["status"].isin(CANCELLED) & history["known_on"].notna()]
    moves = pd.concat([made, gone]).astype(dict.fromkeys(BOOKS[4:], "int64"))
    return moves.groupby(list(BOOKS[:4]), as_index=False, dropna=False)[list(BOOKS[4:])].sum()


@dataclass(frozen=True)
class Past:
    """What there was before bookings were made: outcomes, columns `TALLY`, and moves on the books, columns `BOOKS`."""

    tallied: pd.DataFrame
    booked: pd.DataFrame


def past_of(history: pd.DataFrame) -> Past:
    """Everything that bookings with `status` and `known_on` tell of the past."""
    return Past(tally(history), books(history))


class Memory:
    """The past, summed up so that features of many bookings are built from it at once; it may grow day by day."""

    def __init__(self, rule: LabelRule) -> None:
        self._rule = rule
        self._texts: dict[str, dict[str, int]] = {name: {} for name in (AGENT, COMPANY, "hotel", "room_type")}
        nothing = np.empty(0, dtype="int64")
        self._records = {kind: dict.fromkeys(("key", "day", "cancelled", "bookings"), nothing) for kind in KINDS}
        self._books = dict.fromkeys((*BOOKS, "month"), nothing)

    def add_tallied(self, tallied: pd.DataFrame) -> None:
        """`tallied`: columns `TALLY`."""
        days = self._rule.record_days
        kind = tallied["kind"].to_numpy(dtype=object)
        matured = days_of(tallied["arrival_on"]) + days
        count = tallied["bookings"].to_numpy(dtype="int64")
        cancelled = np.where(tallied["lag"].between(0, days), count, 0)
        for name, records in self._records.items():
            own = kind == name
            key = self._number(name, tallied["key"][own]) if name != ALL else np.zeros(own.sum(), dtype="int64")
            _extend(records, key=key, day=matured[own], cancelled=cancelled[own], bookings=count[own])

    def add_booked(self, booked: pd.DataFrame) -> None:
        """`booked`: columns `BOOKS`."""
        moves = {name: self._number(name, booked[name]) for name in BOOKS[:2]}
        moves |= {name: days_of(booked[name]) for name in BOOKS[2:4]}
        moves |= {name: booked[name].to_numpy(dtype="int64") for name in BOOKS[4:]}
        _extend(self._books, **moves, month=_months(moves["arrival_on"]))

    def forget(self, first: date) -> None:
        """Keeps no more than what bookings made on a day or later ask for, which are all that come from now on."""
        day = np.datetime64(first, "D").astype("int64")
        kept = self._books["month"] >= _months(day)
        self._books = {name: values[kept] for name, values in self._books.items()}
        for kind, records in self._records.items():
            old = records["day"] < day
            key, place = np.unique(records["key"][old], return_inverse=True)
            sums = {n: np.bincount(place, records[n][old], len(key)) for n in ("cancelled", "bookings")}
            summed = {"key": key, "day": np.full(len(key), day - 1)} | {n: s.astype("int64") for n, s in sums.items()}
            self._records[kind] = {n: np.concatenate([summed[n], records[n][~old]]) for n in records}

    def features(self, reservations: pd.DataFrame, extras: Sequence[Column] = ()) -> pd.DataFrame:
        """As `build` gives them."""
        booked, arrival = days_of(reservations["booked_on"]), days_of(reservations["arrival_on"])
        out: dict[str, Any] = {"lead_days": (arrival - booked).astype("float64")}
        for name in ("weekend_nights", "week_nights", "adults", "children", "babies", "repeated_guest", GROUP_SIZE):
            out[name] = reservations[name].to_numpy(dtype="float64")
        for name in ("previous_cancellations", "previous_stays"):
            out[name] = np.minimum(reservations[name].to_numpy(dtype="float64"), HISTORY_CAP)
        for name in ("price", "special_requests"):
            out[name] = reservations[name].to_numpy(dtype="float64")

        cancelled, bookings = self._record(ALL, np.zeros(len(booked), dtype="int64"), booked)
        usual = np.divide(cancelled, bookings, out=np.zeros(len(booked)), where=bookings > 0)
        for kind in (AGENT, COMPANY):
            key = self._number(kind, reservations[kind])
            cancelled, bookings = self._record(kind, key, booked)
            rate = (cancelled + SHRINKAGE * usual) / (bookings + SHRINKAGE)
            out[f"{kind}_cancel_rate"] = np.where(key > 0, rate, np.nan)
            if kind == AGENT:
                out["agent_bookings"] = np.log1p(np.where(key > 0, bookings, 0.0))
        hotel, room = (self._number(name, reservations[name]) for name in ("hotel", "room_type"))
        (out["on_the_books"],) = self._moved(["hotel", "arrival_on"], [hotel, arrival], ["bookings"], booked)
        out["relative_price"] = self._relative_price(hotel, room, arrival, booked, out["price"])
        for name in CATEGORICAL:
            out[name] = reservations[name].astype(object)
        for column in extras:
            out[column.name] = reservations[column.name].astype(object if column.kind == "category" else "float64")
        return pd.DataFrame(out, index=reservations.index, columns=list(CORE.extended(extras).names))

    def _number(self, name: str, texts: pd.Series) -> np.ndarray:
        return numbers_of(texts, self._texts[name])

    def _record(self, kind: str, key: np.ndarray, booked: np.ndarray) -> list[np.ndarray]:
        """Cancelled and all bookings of agents or companies that had matured before each day of booking."""
        own = self._records[kind]
        return sums_before([own["key"]], own["day"], [own["cancelled"], own["bookings"]], [key], booked)

    def _moved(
        self, keys: Sequence[str], asked: Sequence[np.ndarray], sums: Sequence[str], booked: np.ndarray
    ) -> list[np.ndarray]:
        own = self._books
        return sums_before([own[k] for k in keys], own["moved_on"], [own[s] for s in sums], asked, booked)

    def _relative_price(
        self, hotel: np.ndarray, room: np.ndarray, arrival: np.ndarray, booked: np.ndarray, price: np.ndarray
    ) -> np.ndarray:
        """Log of a booking's price over what the hotel had asked on average for the room in the month of arrival.

        By bookings made before it; missing without a price, or where the month has no earlier one.
        """
        month, sums = _months(arrival), ["priced", "cents"]
        priced, cents = self._moved(["hotel", "month"], [hotel, month], sums, booked)
        priced_room, cents_room = self._moved(["hotel", "room_type", "month"], [hotel, room, month], sums, booked)
        with np.errstate(divide="ignore", invalid="ignore"):
            everywhere = np.where(priced > 0, cents / priced, np.nan)
            usual = (cents_room + PRICE_SHRINKAGE * everywhere) / (priced_room + PRICE_SHRINKAGE)
            return np.where(price > 0, np.log(100 * price / usual), np.nan)


def build(reservations: pd.DataFrame, past: Past, rule: LabelRule, extras: Sequence[Column] = ()) -> pd.DataFrame:
    """Features of `reservations`, indexed like them, columns `FEATURES` and `extras` (float64 and str).

    `past` may count the reservations themselves and anything later: a booking made on day d uses outcomes
    that had matured before d, and what was on the books on the evening before. `reservations` bring
    `group_size` as it was fixed at ingest.
    """
    memory = Memory(rule)
    memory.add_tallied(past.tallied)
    memory.add_booked(past.booked)
    return memory.features(reservations, extras)


def _extend(kept: dict[str, np.ndarray], **more: np.ndarray) -> None:
    for name, values in more.items():
        kept[name] = np.concatenate([kept[name], values])


def _months(days: np.ndarray) -> np.ndarray:
    return days.astype("datetime64[D]").astype("datetime64[M]").astype("int64")
