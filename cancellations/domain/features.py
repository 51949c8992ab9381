"""What the model may see: columns known at booking and history strictly before the booking's date.

One function serves training and scoring. Both give it the reservations and the same tally of what
became of earlier bookings, so a booking gets the same features whenever they are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def build(
    reservations: pd.DataFrame, tallied: pd.DataFrame, rule: LabelRule, extras: Sequence[Column] = ()
) -> pd.DataFrame:
    """Features of `reservations`, indexed like them, columns `FEATURES` and `extras` (float64 and str).

    `tallied` (columns `TALLY`) may count the reservations themselves and anything later: a booking made
    on day d uses outcomes that had matured before d. `reservations` bring `group_size` as it was fixed
    at ingest.
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

    matured = tallied.assign(
        matured_on=tallied["arrival_on"] + pd.Timedelta(days=rule.settle_days),
        cancelled=tallied["bookings"].where(tallied["lag"].between(0, rule.settle_days), 0),
    )
    agents = _record(reservations, matured, AGENT)
    companies = _record(reservations, matured, COMPANY)
    out["agent_cancel_rate"] = agents["rate"]
    out["agent_bookings"] = np.log1p(agents["bookings"])
    out["company_cancel_rate"] = companies["rate"]
    for name in CATEGORICAL:
        out[name] = reservations[name].astype(object)
    for column in extras:
        out[column.name] = reservations[column.name].astype(object if column.kind == "category" else "float64")
    return out[list(CORE.extended(extras).names)]


def _record(reservations: pd.DataFrame, matured: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Cancellation rate and count of matured bookings per agent or company, as of the day before each booking.

    Missing keys have no record: their rate is missing, their count 0.
    """
    asked = pd.DataFrame(
        {
            "order": np.arange(len(reservations)),
            "booked_on": reservations["booked_on"].to_numpy(),
            "key": reservations[kind].astype(object).to_numpy(),
            "everyone": "",
        }
    ).sort_values("booked_on", kind="stable")
    asked = _as_of(asked, _running(matured, ALL), "everyone", "all_")
    asked = _as_of(asked, _running(matured, kind), "key", "own_")
    prior = asked["all_cancelled"] / asked["all_bookings"].where(asked["all_bookings"] > 0)
    prior = prior.fillna(0.0)
    rate = (asked["own_cancelled"] + SHRINKAGE * prior) / (asked["own_bookings"] + SHRINKAGE)
    asked["rate"] = rate.where(asked["key"].notna())
    asked["bookings"] = asked["own_bookings"].where(asked["key"].notna(), 0.0)
    asked = asked.sort_values("order")
    return pd.DataFrame(
        {"rate": asked["rate"].to_numpy(), "bookings": asked["bookings"].to_numpy()},
        index=reservations.index,
    )


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
