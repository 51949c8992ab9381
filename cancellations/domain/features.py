"""What the model may see: columns known at booking and history strictly before the booking's date.

One function serves training and scoring. Both give it the reservations and the same tally of what
became of earlier bookings, so a booking gets the same features whenever they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    out = pd.DataFrame(index=reservations.index)
    lead = (reservations["arrival_on"] - reservations["booked_on"]).dt.days
    out["lead_days"] = lead.astype("float64")
    for name in ("weekend_nights", "week_nights", "adults", "children", "babies", "repeated_guest", GROUP_SIZE):
        out[name] = reservations[name].astype("float64")
    for name in ("previous_cancellations", "previous_stays"):
        out[name] = reservations[name].astype("float64").clip(upper=HISTORY_CAP)
    for name in ("price", "special_requests"):
        out[name] = reservations[name].astype("float64")

    tallied = past.tallied
    matured = tallied.assign(
        matured_on=tallied["arrival_on"] + pd.Timedelta(days=rule.record_days),
        cancelled=tallied["bookings"].where(tallied["lag"].between(0, rule.record_days), 0),
    )
    agents, companies = _records(reservations, matured, (AGENT, COMPANY))
    out["agent_cancel_rate"] = agents["rate"]
    out["agent_bookings"] = np.log1p(agents["bookings"])
    out["company_cancel_rate"] = companies["rate"]
    out["on_the_books"] = _on_the_books(reservations, past.booked)
    out["relative_price"] = _relative_price(reservations, past.booked)
    for name in CATEGORICAL:
        out[name] = reservations[name].astype(object)
    for column in extras:
        out[column.name] = reservations[column.name].astype(object if column.kind == "category" else "float64")
    return out[list(CORE.extended(extras).names)]


def _records(reservations: pd.DataFrame, matured: pd.DataFrame, kinds: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Cancellation rate and count of matured bookings per agent or company, as of the day before each booking.

    Missing keys have no record: their rate is missing, their count 0.
    """
    keys = {kind: reservations[kind].astype(object).to_numpy() for kind in kinds}
    days = {"order": np.arange(len(reservations)), "booked_on": reservations["booked_on"].to_numpy(), "everyone": ""}
    all_of_them = pd.DataFrame(days | keys).sort_values("booked_on", kind="stable")
    all_of_them = _as_of(all_of_them, _running(matured, ALL), "everyone", "all_")
    prior = all_of_them["all_cancelled"] / all_of_them["all_bookings"].where(all_of_them["all_bookings"] > 0)
    prior = prior.fillna(0.0)
    for kind in kinds:
        asked = _as_of(all_of_them[["order", "booked_on", kind]], _running(matured, kind), kind, "own_")
        rate = (asked["own_cancelled"] + SHRINKAGE * prior) / (asked["own_bookings"] + SHRINKAGE)
        asked["rate"] = rate.where(asked[kind].notna())
        asked["bookings"] = asked["own_bookings"].where(asked[kind].notna(), 0.0)
        yield asked.sort_values("order")[["rate", "bookings"]].set_axis(reservations.index)


def _on_the_books(reservations: pd.DataFrame, booked: pd.DataFrame) -> np.ndarray:
    """Bookings that stood for the same hotel and day of arrival on the evening before a booking was made."""
    keys = ["hotel", "arrival_on"]
    return _until(reservations, booked, keys, ["bookings"])["bookings"]


def _relative_price(reservations: pd.DataFrame, booked: pd.DataFrame) -> np.ndarray:
    """Log of a booking's price over what the hotel had asked on average for the room in the month of arrival.

    By bookings made before it; missing without a price, or where the month has no earlier one.
    """
    ours = reservations.assign(month=reservations["arrival_on"].dt.to_period("M").astype("int64"))
    theirs = booked.assign(month=booked["arrival_on"].dt.to_period("M").astype("int64"))
    sums = ["priced", "cents"]
    hotel = _until(ours, theirs, ["hotel", "month"], sums)
    room = _until(ours, theirs, ["hotel", "room_type", "month"], sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        month = np.where(hotel["priced"] > 0, hotel["cents"] / hotel["priced"], np.nan)
        usual = (room["cents"] + PRICE_SHRINKAGE * month) / (room["priced"] + PRICE_SHRINKAGE)
        price = reservations["price"].to_numpy(dtype=float)
        return np.where(price > 0, np.log(100 * price / usual), np.nan)


def _until(reservations: pd.DataFrame, moves: pd.DataFrame, keys: list[str], sums: list[str]) -> dict[str, np.ndarray]:
    """Sums over the moves of the same keys before each reservation's day of booking, in its order; 0 where none."""
    together = pd.concat([moves[keys], reservations[keys]], ignore_index=True)
    # Missing keys (a room of no type) are a key of their own, which merge_asof would not join.
    code = together.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    daily = moves[sums].assign(code=code[: len(moves)], day=moves["moved_on"].to_numpy())
    daily = daily.groupby(["code", "day"], as_index=False)[sums].sum().sort_values("day", kind="stable")
    daily[sums] = daily.groupby("code")[sums].cumsum()
    asked = pd.DataFrame({"code": code[len(moves) :], "day": reservations["booked_on"].to_numpy()})
    asked = asked.reset_index(names="order").sort_values("day", kind="stable")
    daily["day"] = daily["day"].astype(asked["day"].dtype)
    found = pd.merge_asof(asked, daily, on="day", by="code", allow_exact_matches=False)
    found = found.sort_values("order").fillna(dict.fromkeys(sums, 0.0))
    return {name: found[name].to_numpy(dtype=float) for name in sums}


def _running(matured: pd.DataFrame, kind: str) -> pd.DataFrame:
    own = matured[matured["kind"] == kind]
    daily = own.groupby(["key", "matured_on"], as_index=False)[["cancelled", "bookings"]].sum()
    daily = daily.sort_values("matured_on", kind="stable")
    daily[["cancelled", "bookings"]] = daily.groupby("key")[["cancelled", "bookings"]].cumsum()
    return daily.astype({"bookings": "float64", "cancelled": "float64"})


def _as_of(asked: pd.DataFrame, running: pd.DataFrame, by: str, prefix: str) -> pd.DataFrame:
    right = running.rename(columns={"key": by, "cancelled": f"{prefix}cancelled", "bookings": f"{prefix}bookings"})
    right[by] = right[by].astype(asked[by].dtype)
    joined = pd.merge_asof(
        asked,
        right,
        left_on="booked_on",
        right_on="matured_on",
        by=by,
        allow_exact_matches=False,
    ).drop(columns="matured_on")
    filled = {f"{prefix}cancelled": 0.0, f"{prefix}bookings": 0.0}
    return joined.fillna(filled)
