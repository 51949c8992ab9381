"""Sums the public hotel file up in the figures that the simulator draws by, as TOML on standard output.

    python -m benchmarks.anatomy ../shared/data/hotel_bookings.parquet > cancellations/sources/simulator.toml

Shares, quantiles and coefficients by hotel, channel and size of group; no booking and no id leaves the
file. A band of sizes with few groups is mixed with its neighbours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from cancellations.domain.labels import CANCELLED
from cancellations.domain.reservation import GROUP_SIZE, group_keys, sized
from cancellations.errors import BadInput
from cancellations.sources.cells import BANDS, CHANNELS, HOTELS, PRICE_MONTH, PRICE_REACH, TAIL_SIZES
from cancellations.sources.mapped import open_table

# Booked when no edge of the file cuts stays off (see ../shared/data/README.md).
FIRST, LAST = "2015-10-05", "2017-02-26"
LEVELS = np.linspace(0, 1, 17)
LONGEST_NIGHTS = 21
ROOMS, MEALS = ("A", "D", "E", "F", "G"), ("BB", "HB", "SC", "FB")
CUSTOMERS = ("Transient", "Transient-Party", "Contract", "Group")
# A figure of a band counts as if so many groups of its neighbours stood beside its own. Quantiles need some groups.
PSEUDO_GROUPS, FEW_GROUPS = 3, 25
# Leads up to these have no-shows and delays of their own.
LEAD_STEPS = (0, 7, 30)


def bookings(path: Path) -> pd.DataFrame:
    """The table's rows of the known channels, each with its group, label and the figures' columns."""
    read = [(b.reservations, b.outcomes) for b in open_table(path).batches()]
    rows = sized(pd.concat([r for r, _ in read if r is not None]))
    rows = rows.merge(pd.concat([o for _, o in read]), on="reservation_id")
    rows["key"] = group_keys(rows)
    rows = rows[rows["booked_on"].between(FIRST, LAST) & rows["market_segment"].isin(CHANNELS)]
    rows["lead"] = (rows["arrival_on"] - rows["booked_on"]).dt.days
    rows["nights"] = (rows["weekend_nights"] + rows["week_nights"]).clip(1, LONGEST_NIGHTS)
    rows["label"] = rows["status"].isin(CANCELLED).astype(float)
    rows["non_refundable"] = rows["deposit_type"] == "Non Refund"
    rows["band"] = np.searchsorted(BANDS, rows[GROUP_SIZE], side="right") - 1
    rows["month"] = rows["arrival_on"].dt.month
    return rows.assign(**_relative_price(rows))


def _relative_price(rows: pd.DataFrame) -> dict[str, pd.Series]:
    season = np.array([PRICE_MONTH[h][m - 1] for h, m in zip(rows["hotel"], rows["month"], strict=True)])
    plain = np.log(rows["price"].where(rows["price"] > 5) / season)
    base = plain[rows["room_type"] == "A"].groupby(rows["hotel"]).median()
    return {"log_price": plain - rows["hotel"].map(base), "base": np.exp(rows["hotel"].map(base))}


def _shares(values: pd.Series, known: tuple[Any, ...]) -> np.ndarray:
    counted = values.value_counts().reindex(list(known)).fillna(0).to_numpy(float)
    return counted / max(counted.sum(), 1)


def _beside(rows: pd.DataFrame, band: int) -> pd.DataFrame:
    """The bookings of a band, of larger groups, and of the next smaller: what few of its own are mixed with."""
    return rows[rows["band"] >= band - 1] if band else rows


def _by_band(rows: pd.DataFrame, figure: Callable[[pd.DataFrame], Any]) -> list[np.ndarray]:
    """A figure of each band's bookings, mixed with that of its neighbours by their numbers of groups."""
    out = []
    for band in range(len(BANDS)):
        own, beside = rows[rows["band"] == band], _beside(rows, band)
        around = np.asarray(figure(beside if len(beside) else rows), float)
        value = np.asarray(figure(own), float) if len(own) else around
        count = own["key"].nunique()
        out.append((count * value + PSEUDO_GROUPS * around) / (count + PSEUDO_GROUPS))
    return out


def _leads(rows: pd.DataFrame) -> list[np.ndarray]:
    positive = rows[rows["lead"] > 0]
    out = []
    for band in range(len(BANDS)):
        choices = (positive[positive["band"] == band], _beside(positive, band), positive)
        chosen = next((c for c in choices if c["key"].nunique() >= FEW_GROUPS), positive)
        out.append(np.log1p(chosen["lead"]).quantile(LEVELS).to_numpy())
    return out


def _agents(values: pd.Series) -> tuple[int, list[float]]:
    counts = values.value_counts()
    return max(len(counts), 1), (counts / max(counts.sum(), 1)).head(3).tolist()


def room_prices(rows: pd.DataFrame) -> pd.Series:
    """Log of the price of each type of room, relative to the first."""
    medians = rows.groupby("room_type")["log_price"].median().reindex(list(ROOMS))
    return medians - medians.iloc[0]


def cell(rows: pd.DataFrame, groups: pd.DataFrame, rooms: pd.Series, everything: int) -> dict[str, Any]:
    """Figures of one hotel and channel."""
    noise = rows["log_price"] - rows["room_type"].map(rooms)
    pairs = [rows[rows["band"] == b] for b in range(len(BANDS))]
    agents, companies = _agents(groups["agent"]), _agents(groups["company"])
    free = rows[~rows["non_refundable"]]
    return {
        "share": len(rows) / everything,
        "sizes": [(groups["size"] >= k).mean() for k in TAIL_SIZES],
        "lead_zero": _by_band(rows, lambda g: (g["lead"] == 0).mean()),
        "log_lead": _leads(rows),
        "nights": _shares(rows["nights"], tuple(range(1, LONGEST_NIGHTS + 1))),
        "non_refundable": _by_band(rows, lambda g: g["non_refundable"].mean()),
        "customer_type": _by_band(free, lambda g: _shares(g["customer_type"], CUSTOMERS)),
        "repeated": _by_band(rows, lambda g: (g["repeated_guest"] > 0).mean()),
        "cancelled_before": _by_band(free, lambda g: (g["previous_cancellations"] > 0).mean()),
        "special": _by_band(free, lambda g: _shares(g["special_requests"].clip(upper=4), (0, 1, 2, 3, 4))),
        "adults": _by_band(rows, lambda g: _shares(g["adults"].clip(1, 3), (1, 2, 3))),
        "children": _shares(rows["children"].fillna(0).clip(upper=2), (0, 1, 2)),
        "meal": _shares(rows["meal"], MEALS),
        "room_type": _shares(rows["room_type"], ROOMS),
        "price": float(np.exp(noise.median())),
        "price_noise": float((noise.quantile(0.9) - noise.quantile(0.1)) / 2.563),
        "same_price": _agreement(pairs, "price"),
        "agent_known": groups["agent"].notna().mean(),
        "agents": agents[0],
        "agent_shares": agents[1],
        "company_known": groups["company"].notna().mean(),
        "companies": companies[0],
        "company_shares": companies[1],
    }


def _agreement(bands: list[pd.DataFrame], column: str) -> float:
    """Share of the pairs within groups that agree."""
    same = pairs = 0.0
    for rows in bands:
        own = rows.groupby(["key", column]).size()
        whole = rows.groupby("key").size()
        same, pairs = same + (own * (own - 1)).sum(), pairs + (whole * (whole - 1)).sum()
    return float(same / max(pairs, 1))


def design(rows: pd.DataFrame, cells: list[tuple[str, str]]) -> dict[str, np.ndarray]:
    """What the log-odds of a refundable cancellation are made of; one array for each coefficient."""
    long = np.log1p(rows["lead"])
    season = 2 * np.pi * rows["month"] / 12
    online = (rows["market_segment"] == "Online TA").astype(float)
    party = rows[["adults", "children"]].fillna(0).sum(axis=1)
    columns = {f"{h}/{c}": ((rows["hotel"] == h) & (rows["market_segment"] == c)).astype(float) for h, c in cells} | {
        f"band_{b}": (rows["band"] == b).astype(float) for b in range(1, len(BANDS))
    }
    columns |= {
        "lead": long,
        "lead_squared": long**2,
        "lead_online": long * online,
        "same_day": (rows["lead"] == 0).astype(float),
        "same_week": (rows["lead"] <= 7).astype(float),
        "special_one": (rows["special_requests"] == 1).astype(float),
        "special_more": (rows["special_requests"] > 1).astype(float),
        "special_online": rows["special_requests"].clip(upper=2) * online,
        "transient": (rows["customer_type"] == "Transient").astype(float),
        "cancelled_before": (rows["previous_cancellations"] > 0).astype(float),
        "repeated": (rows["repeated_guest"] > 0).astype(float),
        "price": rows["log_price"].fillna(0).clip(-PRICE_REACH, PRICE_REACH),
        "nights": np.log1p(rows["nights"]),
        "party": (party > 2).astype(float),
        "season_sin": np.sin(season),
        "season_cos": np.cos(season),
    }
    return {name: np.asarray(values, float) for name, values in columns.items()}


def odds(rows: pd.DataFrame, cells: list[tuple[str, str]]) -> tuple[dict[str, float], pd.DataFrame]:
    """Coefficients by logistic regression, and the refundable rows with their probability."""
    free = rows[~rows["non_refundable"]].copy()
    table = design(free, cells)
    fitted = LogisticRegression(C=30.0, fit_intercept=False, max_iter=3_000)
    matrix = np.column_stack(list(table.values()))
    fitted.fit(matrix, free["label"], sample_weight=free[GROUP_SIZE] ** -0.5)
    free["probability"] = fitted.predict_proba(matrix)[:, 1]
    return dict(zip(table, fitted.coef_[0], strict=True)), free


def together(free: pd.DataFrame, band: int) -> float:
    """Correlation of the residual labels of two refundable bookings of one group."""
    rows = free[free["band"] == band]
    residual = rows["label"] - rows["probability"]
    scale = np.sqrt(rows["probability"] * (1 - rows["probability"]))
    sums = residual.groupby(rows["key"]).sum()
    squares = (residual**2).groupby(rows["key"]).sum()
    scales, scale_squares = scale.groupby(rows["key"]).sum(), (scale**2).groupby(rows["key"]).sum()
    return float((sums**2 - squares).sum() / (scales**2 - scale_squares).sum())


def agent_spread(free: pd.DataFrame, channel: str, column: str) -> float:
    """Deviation of the log-odds of agents (companies) of one channel, without what chance alone spreads.

    By moments over groups: of r = sum of residuals and i = sum of p (1 - p), E r^2 = i v + (i s)^2, where
    v >= 1 is how much more groups scatter than single draws.
    """
    rows = free[(free["market_segment"] == channel) & free[column].notna()]
    groups = rows.groupby(["hotel", column, "key"]).agg(label=("label", "mean"), p=("probability", "mean"))
    groups["residual"] = groups["label"] - groups["p"]
    groups["information"] = groups["p"] * (1 - groups["p"])
    dispersion = (groups["residual"] ** 2).sum() / groups["information"].sum()
    agents = groups.groupby(["hotel", column])[["residual", "information"]].sum()
    # One that brings most of a cell is the cell: its intercept has taken that agent's effect.
    agents = agents[agents["information"] < 0.3 * agents["information"].groupby("hotel").transform("sum")]
    r, i = agents["residual"], agents["information"]
    keep = i > 2
    if not keep.any():
        return 0.0
    return float(np.sqrt(max(((r**2 / i - dispersion)[keep]).sum() / i[keep].sum(), 0)))


def delays(rows: pd.DataFrame) -> dict[str, Any]:
    """No-shows by lead, and the share of the lead at which the others cancel."""
    gone = rows[(rows["label"] == 1)]
    free = gone[~gone["non_refundable"]]
    step = np.searchsorted(LEAD_STEPS, free["lead"])
    called = gone[(gone["status"] == "canceled") & (gone["lead"] > 0)]
    share = ((called["known_on"] - called["booked_on"]).dt.days / called["lead"]).clip(0, 1)
    short, locked = called["lead"] <= LEAD_STEPS[1], called["non_refundable"]
    levels = np.linspace(0, 1, 33)
    return {
        "lead_steps": list(LEAD_STEPS),
        "no_show": [(free["status"][step == s] == "no_show").mean() for s in range(len(LEAD_STEPS) + 1)],
        "short": share[short & ~locked].quantile(levels).to_numpy(),
        "long": share[~short & ~locked].quantile(levels).to_numpy(),
        "non_refundable": share[locked].quantile(levels).to_numpy(),
        "non_refundable_cancels": rows["label"][rows["non_refundable"]].mean(),
    }


def toml(name: str, table: dict[str, Any], *, several: bool = False) -> str:
    head = f"[[{name}]]" if several else f"[{name}]"
    return "\n".join([head, *(f"{key} = {_told(value)}" for key, value in table.items())]) + "\n"


def _told(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple | np.ndarray) and np.ndim(value) > 0:
        return "[" + ", ".join(_told(v) for v in value) + "]"
    if isinstance(value, int | np.integer):
        return str(int(value))
    return f"{float(value):.4g}" if float(value) % 1 else f"{float(value):.1f}"


def locked_by_lead(groups: pd.DataFrame) -> float:
    """Rise of the log-odds of a non-refundable group with log1p(lead), within cell and band."""
    groups = groups[groups["lead"] > 0]
    kind = groups["hotel"] + groups["market_segment"] + groups["band"].astype(str)
    groups = groups[groups["non_refundable"].groupby(kind).transform("mean").between(0.05, 0.95)]
    matrix = pd.get_dummies(kind.loc[groups.index], dtype=float).assign(lead=np.log1p(groups["lead"]))
    return float(LogisticRegression(C=30.0, max_iter=3_000).fit(matrix, groups["non_refundable"]).coef_[0][-1])


def main(path: Path) -> str:
    rows = bookings(path)
    if rows.empty:
        raise BadInput(f"{path} holds no booking of the channels {', '.join(CHANNELS)} from {FIRST} to {LAST}")
    groups = rows.drop_duplicates("key").assign(size=lambda g: g["key"].map(rows["key"].value_counts()))
    cells = [(h, c) for h in HOTELS for c in CHANNELS]
    coefficients, free = odds(rows, cells)
    rooms = room_prices(rows)
    locked = groups[groups["non_refundable"]]
    world = {
        "rooms": ROOMS,
        "room_price": np.exp(rooms).to_numpy(),
        "meals": MEALS,
        "customers": CUSTOMERS,
        "together": [together(free, band) for band in range(1, len(BANDS))],
        "hotel_price": [rows["base"][rows["hotel"] == hotel].iloc[0] for hotel in HOTELS],
        "babies": (rows["babies"] > 0).mean(),
        "non_refundable_lead": locked_by_lead(groups),
        "locked_customer": _shares(locked["customer_type"], CUSTOMERS),
        "locked_special": _shares(locked["special_requests"].clip(upper=4), (0, 1, 2, 3, 4)),
        "locked_cancelled_before": (locked["previous_cancellations"] > 0).mean(),
    }
    plain = {k: v for k, v in coefficients.items() if "/" not in k and not k.startswith("band")}
    bands = [0.0, *(coefficients[f"band_{band}"] for band in range(1, len(BANDS)))]
    parts = [
        f"# {len(rows):,} bookings of the public file, booked {FIRST} to {LAST}; written by benchmarks/anatomy.py.\n",
        toml("world", world),
        toml("delays", delays(rows)),
        toml("odds", plain | {"bands": bands}),
    ]
    for hotel, channel in cells:
        own = (rows["hotel"] == hotel) & (rows["market_segment"] == channel)
        mine = (groups["hotel"] == hotel) & (groups["market_segment"] == channel)
        figures = cell(rows[own], groups[mine], rooms, len(rows))
        figures["odds"] = coefficients[f"{hotel}/{channel}"]
        figures["spread"] = agent_spread(free, channel, "company" if channel == "Corporate" else "agent")
        parts.append(toml("cell", {"hotel": hotel, "channel": channel} | figures, several=True))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1])))
