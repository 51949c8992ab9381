"""What the model may see: columns known at booking and history strictly before the booking's date.

One function serves training and scoring. Both give it the reservations and the same tally of what
became of earlier bookings, so a booking gets the same features whenever they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.labels import CANCELLED, LabelRule
from cancellations.domain.reservation import GROUP_SIZE, Column

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
ALL, AGENT, COMPANY = "all", "agent", "company"
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


def build(reservations: pd.DataFrame, past: Past, rule: LabelRule, extras: Sequence[Column] = ()) -> pd.DataFrame:
    """Features of `reservations`, indexed like them, columns `FEATURES` and `extras` (float64 and str).

    `past` may count the reservations themselves and anything later: a booking made on day d uses outcomes
    that had matured before d, and what was on the books on the evening before. `reservations` bring
    `group_size` as it was fixed at ingest.
    """
    out: dict[str, Any] = {}
    lead = (reservations["arrival_on"] - reservations["booked_on"]).dt.days
    out["lead_days"] = lead.astype("float64")
    for name in ("weekend_nights", "week_nights", "adults", "children", "babies", "repeated_guest", GROUP_SIZE):
        out[name] = reservations[name].astype("float64")
    for name in ("previous_cancellations", "previous_stays"):
        out[name] = reservations[name].astype("float64").clip(upper=HISTORY_CAP)
    for name in ("price", "special_requests"):
        out[name] = reservations[name].astype("float64")

    agents, companies = _records(reservations, past.tallied, rule, (AGENT, COMPANY))
    out["agent_cancel_rate"] = agents.rate
    out["agent_bookings"] = np.log1p(agents.bookings)
    out["company_cancel_rate"] = companies.rate
    out["on_the_books"], out["relative_price"] = _by_the_books(reservations, past.booked)
    for name in CATEGORICAL:
        out[name] = reservations[name].astype(object)
    for column in extras:
        out[column.name] = reservations[column.name].astype(object if column.kind == "category" else "float64")
    return pd.DataFrame(out, index=reservations.index)[list(CORE.extended(extras).names)]


@dataclass(frozen=True)
class _Record:
    """Cancellation rate and count of matured bookings of whoever each booking came by."""

    rate: np.ndarray
    bookings: np.ndarray


def _records(
    reservations: pd.DataFrame, tallied: pd.DataFrame, rule: LabelRule, kinds: Sequence[str]
) -> Iterator[_Record]:
    """Records of agents or companies, as of the day before each booking.

    Missing keys have no record: their rate is missing, their count 0.
    """
    made_on = _days(reservations["booked_on"])
    counts = np.stack(
        [tallied["bookings"].where(tallied["lag"].between(0, rule.record_days), 0), tallied["bookings"]], axis=1
    )
    matured_on = _days(tallied["arrival_on"]) + rule.record_days
    kind_of = tallied["kind"].to_numpy(dtype=object)
    everyone = kind_of == ALL
    nobody = np.zeros(len(made_on), dtype="int64")
    cancelled, bookings = _before(
        nobody, made_on, np.zeros(int(everyone.sum()), dtype="int64"), matured_on[everyone], counts[everyone]
    ).T
    prior = np.divide(cancelled, bookings, out=np.zeros(len(made_on)), where=bookings > 0)
    for kind in kinds:
        own = kind_of == kind
        of, whose = _codes(tallied["key"][own], reservations[kind])
        cancelled, bookings = _before(whose, made_on, of, matured_on[own], counts[own]).T
        named = reservations[kind].notna().to_numpy()
        rate = (cancelled + SHRINKAGE * prior) / (bookings + SHRINKAGE)
        yield _Record(np.where(named, rate, np.nan), np.where(named, bookings, 0.0))


def _by_the_books(reservations: pd.DataFrame, booked: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Bookings that stood for the same hotel and day of arrival on the evening before a booking was made; and the log
    of its price over what the hotel had asked on average for the room in the month of arrival.

    By bookings made before it; the price is missing without one, or where the month has no earlier one.
    """
    made_on, moved_on = _days(reservations["booked_on"]), _days(booked["moved_on"])
    hotel = _codes(booked["hotel"], reservations["hotel"])
    room = _codes(booked["room_type"], reservations["room_type"])
    arrival = [rows["arrival_on"].to_numpy().astype("datetime64[D]") for rows in (booked, reservations)]
    day = [days.astype("int64") for days in arrival]
    month = [days.astype("datetime64[M]").astype("int64") for days in arrival]

    def until(sums: list[str], *keys: Sequence[np.ndarray]) -> np.ndarray:
        theirs, ours = _together(*keys)
        return _before(ours, made_on, theirs, moved_on, booked[sums].to_numpy()).T

    (on_the_books,) = until(["bookings"], hotel, day)
    priced, cents = until(["priced", "cents"], hotel, month)
    of_room, cents_of_room = until(["priced", "cents"], hotel, room, month)
    with np.errstate(divide="ignore", invalid="ignore"):
        average = np.where(priced > 0, cents / priced, np.nan)
        usual = (cents_of_room + PRICE_SHRINKAGE * average) / (of_room + PRICE_SHRINKAGE)
        price = reservations["price"].to_numpy(dtype=float)
        return on_the_books, np.where(price > 0, np.log(100 * price / usual), np.nan)


def _days(dates: pd.Series) -> np.ndarray:
    return dates.to_numpy().astype("datetime64[D]").astype("int64")


def _codes(theirs: pd.Series, ours: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """A number for each value of both; what is missing (a room of no type) is a value of its own."""
    codes, _ = pd.factorize(np.concatenate([theirs.to_numpy(dtype=object), ours.to_numpy(dtype=object)]))
    return codes[: len(theirs)] + 1, codes[len(theirs) :] + 1


def _together(*keys: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A number for each combination of numbers, of theirs and of ours."""
    both = np.concatenate([keys[0][0], keys[0][1]])
    for theirs, ours in keys[1:]:
        more = np.concatenate([theirs, ours])
        if len(more):
            more = more - more.min()
            both = both * (int(more.max()) + 1) + more
    return both[: len(keys[0][0])], both[len(keys[0][0]) :]


def _before(whose: np.ndarray, day: np.ndarray, of: np.ndarray, on: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of whole `counts` (shape (moves, sums)) of moves `of` the same key `on` days before; float64 (rows, sums).

    Keys and days are whole numbers; 0 where there was no such move.
    """
    if not len(of) or not len(whose):
        return np.zeros((len(whose), counts.shape[1]))
    first = min(on.min(), day.min())
    span = int(max(on.max(), day.max()) - first) + 1
    place = of * span + (on - first)
    order = np.argsort(place, kind="stable")
    place = place[order]
    running = np.zeros((len(of) + 1, counts.shape[1]), dtype="int64")
    np.cumsum(counts[order], axis=0, out=running[1:])
    begin = np.searchsorted(place, whose * span, side="left")
    end = np.searchsorted(place, whose * span + (day - first), side="left")
    return (running[end] - running[begin]).astype("float64")
