"""What the model may see: columns known at booking and history strictly before the booking's date.

One function serves training and scoring. Both give it the reservations and the same kind of
history, so a booking gets the same features whenever they are computed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cancellations.domain.labels import CANCELLED, LabelRule, maturity

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

# Histories are capped: one company's record of 26 earlier cancellations is no ten times worse than 3.
HISTORY_CAP = 3.0
# A rate over few bookings is shrunk towards the overall rate as if this many bookings had it.
SHRINKAGE = 20.0


def build(reservations: pd.DataFrame, history: pd.DataFrame, rule: LabelRule) -> pd.DataFrame:
    """Features of `reservations`, indexed like them, columns `FEATURES` (float64 and str).

    `history` holds bookings with `status` and `known_on`; it may contain the reservations
    themselves and anything later: a booking made on day d uses outcomes that had matured before d.
    """
    out = pd.DataFrame(index=reservations.index)
    lead = (reservations["arrival_on"] - reservations["booked_on"]).dt.days
    out["lead_days"] = lead.astype("float64")
    for name in ("weekend_nights", "week_nights", "adults", "children", "babies", "repeated_guest"):
        out[name] = reservations[name].astype("float64")
    for name in ("previous_cancellations", "previous_stays"):
        out[name] = reservations[name].astype("float64").clip(upper=HISTORY_CAP)
    for name in ("price", "special_requests"):
        out[name] = reservations[name].astype("float64")

    past = pd.DataFrame(
        {
            "agent": history["agent"].astype(object),
            "company": history["company"].astype(object),
            "matured_on": maturity(history, rule),
            "cancelled": (history["status"].isin(CANCELLED) & (history["known_on"] <= maturity(history, rule))).astype(
                "float64"
            ),
        }
    )
    agents = _record(reservations, past, "agent")
    companies = _record(reservations, past, "company")
    out["agent_cancel_rate"] = agents["rate"]
    out["agent_bookings"] = np.log1p(agents["bookings"])
    out["company_cancel_rate"] = companies["rate"]
    for name in CATEGORICAL:
        out[name] = reservations[name].astype(object)
    return out[list(FEATURES)]


def _record(reservations: pd.DataFrame, past: pd.DataFrame, key: str) -> pd.DataFrame:
    """Cancellation rate and count of matured bookings per `key`, as of the day before each booking.

    Missing keys have no record: their rate is missing, their count 0.
    """
    overall = _running(past.assign(everyone=""), ["everyone"])
    known = _running(past.dropna(subset=[key]), [key])
    asked = pd.DataFrame(
        {
            "order": np.arange(len(reservations)),
            "booked_on": reservations["booked_on"].to_numpy(),
            key: reservations[key].astype(object).to_numpy(),
            "everyone": "",
        }
    ).sort_values("booked_on", kind="stable")
    asked = _as_of(asked, overall, "everyone", "all_")
    asked = _as_of(asked, known, key, "own_")
    prior = asked["all_cancelled"] / asked["all_bookings"].where(asked["all_bookings"] > 0)
    prior = prior.fillna(0.0)
    rate = (asked["own_cancelled"] + SHRINKAGE * prior) / (asked["own_bookings"] + SHRINKAGE)
    asked["rate"] = rate.where(asked[key].notna())
    asked["bookings"] = asked["own_bookings"].where(asked[key].notna(), 0.0)
    asked = asked.sort_values("order")
    return pd.DataFrame(
        {"rate": asked["rate"].to_numpy(), "bookings": asked["bookings"].to_numpy()},
        index=reservations.index,
    )


def _running(past: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    daily = past.groupby([*by, "matured_on"], as_index=False, observed=True)["cancelled"].agg(
        cancelled="sum", bookings="count"
    )
    daily = daily.sort_values("matured_on", kind="stable")
    daily[["cancelled", "bookings"]] = daily.groupby(by, observed=True)[["cancelled", "bookings"]].cumsum()
    return daily.astype({"bookings": "float64"})


def _as_of(asked: pd.DataFrame, running: pd.DataFrame, key: str, prefix: str) -> pd.DataFrame:
    right = running.rename(columns={"cancelled": f"{prefix}cancelled", "bookings": f"{prefix}bookings"})
    right[key] = right[key].astype(asked[key].dtype)
    joined = pd.merge_asof(
        asked,
        right,
        left_on="booked_on",
        right_on="matured_on",
        by=key,
        allow_exact_matches=False,
    ).drop(columns="matured_on")
    filled = {f"{prefix}cancelled": 0.0, f"{prefix}bookings": 0.0}
    return joined.fillna(filled)
