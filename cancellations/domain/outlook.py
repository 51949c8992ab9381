"""What cancellations will do to the coming nights: rooms and revenue on the books, and at risk.

Told in the morning of a day, from what was known the evening before. Bookings on the books are counted,
and those alone: nobody who has yet to book, and no guest who is in the house already, since he cancels
no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import NormalDist

import numpy as np
import pandas as pd

from cancellations.domain.reservation import group_keys
from cancellations.domain.timing import Timing

# Nights differ from what was expected by more than the chance of their groups, because probabilities err
# together: by season, event or price. So much more, as a variance; measured on the public file, with the
# coverage that follows from it (docs/outlook.md). Near nights are surer: what would be cancelled mostly is.
DISPERSION, DISPERSION_NEAR, NEAR_NIGHTS = 2.2, 1.2, 7
# A sum over nights adds up what errs together, the more so the longer it is: of a week, and of a fortnight,
# which is as far as this was measured.
DISPERSION_WEEK, DISPERSION_FORTNIGHT, WEEK_NIGHTS, LONGEST_SPAN = 2.2, 2.8, 7, 14

ROOMS = ("on_books", "expected", "expected_low", "expected_high")
REVENUE = ("revenue_on_books", "at_risk", "at_risk_low", "at_risk_high")
FIGURES = (*ROOMS, *REVENUE, "unpriced")


@dataclass(frozen=True)
class Outlook:
    """The outlook of a day.

    `bookings`: those that are open and have a score, one row each, as `stay` gives them. `nights`: one
    row for each hotel and night, as `by_night` gives them. `share`: how often an interval should hold
    what happens. `version`: whose scores these are, joined by + while a trial serves two. `unscored`:
    open bookings that are left out because they have no score yet; `day_use`: those that stay no night.
    `learned_from`: cancellations that the timing was learned from.
    """

    as_of: date
    horizon: int
    share: float
    version: str
    bookings: pd.DataFrame
    nights: pd.DataFrame
    unscored: int
    day_use: int
    learned_from: int

    def span(self, days: int) -> pd.DataFrame:
        """`over` of the next nights, by hotel."""
        return over(self.bookings, self.as_of, days, self.share)

    def total(self, days: int) -> pd.Series:
        """The figures of the next nights, of all hotels together."""
        table = over(self.bookings.assign(hotel="all"), self.as_of, days, self.share)
        return table.iloc[0] if len(table) else pd.Series({"hotel": "all", **dict.fromkeys(FIGURES, 0.0)})

    def riskiest(self, count: int) -> pd.DataFrame:
        """The bookings with the most value at risk, the first ones worth a call; those without a price, and those
        that are held out for nobody to act upon, are not among them."""
        known = self.bookings[(self.bookings["value_at_risk"] > 0) & ~self.bookings["hold_out"]]
        return known.sort_values(["value_at_risk", "reservation_id"], ascending=[False, True]).head(count)


def stay(served: pd.DataFrame, timing: Timing, as_of: date) -> pd.DataFrame:
    """Bookings as `ports.UnitOfWork.served` gives them, with what an outlook needs of each.

    Added: `nights`; `remaining`, the probability that it is still cancelled or not shown, given that it
    stood on the evening before `as_of`; `value` of the whole stay, price times nights, missing without a
    price; `value_at_risk`, remaining times value; `group`, the same for bookings that were made together,
    and `group_size`, how many of them stand.
    """
    out = served.reset_index(drop=True)
    evening = as_of - timedelta(days=1)
    out["nights"] = (out["weekend_nights"] + out["week_nights"]).astype("int64")
    out["remaining"] = timing.remaining(out, out["probability"].to_numpy(dtype=float), evening)
    out["value"] = out["price"] * out["nights"]
    out["value_at_risk"] = out["remaining"] * out["value"]
    out["group"] = group_keys(out)
    out["group_size"] = out.groupby("group")["group"].transform("size").astype("int64")
    return out


def by_night(bookings: pd.DataFrame, as_of: date, horizon: int, share: float) -> pd.DataFrame:
    """The next `horizon` nights of each hotel: a row each, also where nothing is on the books.

    A booking covers the nights from its arrival on, the one before it leaves being the last. Columns:
    `hotel`, `night`; `on_books`, bookings that cover the night; `expected` cancellations of them with
    `expected_low` and `expected_high`; the same of the night's revenue: `revenue_on_books`, `at_risk`,
    `at_risk_low`, `at_risk_high`, missing where no booking of the night has a price; `unpriced`, bookings
    without one, which count among the rooms alone.
    """
    first = (bookings["arrival_on"] - pd.Timestamp(as_of)).dt.days.to_numpy()
    count = np.clip(np.minimum(bookings["nights"].to_numpy(), horizon - first), 0, None)
    of = np.repeat(np.arange(len(bookings)), count)
    ahead = first[of] + np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    rows = bookings.iloc[of][["hotel", "group", "remaining", "price"]].assign(ahead=ahead, rooms=1.0)
    hotels = sorted(bookings["hotel"].unique())
    every = pd.MultiIndex.from_product([hotels, range(horizon)], names=["hotel", "ahead"])
    sums = _sums(rows, ["hotel", "ahead"]).reindex(every, fill_value=0.0).reset_index()
    wider = np.where(sums["ahead"] < NEAR_NIGHTS, DISPERSION_NEAR, DISPERSION)
    night = (pd.Timestamp(as_of) + pd.to_timedelta(sums["ahead"], unit="D")).astype("datetime64[us]")
    return _told(sums.assign(night=night), ("hotel", "night"), wider, share)


def over(bookings: pd.DataFrame, as_of: date, days: int, share: float) -> pd.DataFrame:
    """The next `days` nights of each hotel as one sum, columns as in `by_night` but for the night.

    In room nights: a booking that covers three of the nights counts three times, and comes or cancels
    with all three. `days` is at most `LONGEST_SPAN`.
    """
    assert days <= LONGEST_SPAN, "how sure longer sums are was not measured"
    first = (bookings["arrival_on"] - pd.Timestamp(as_of)).dt.days.to_numpy()
    count = np.clip(np.minimum(bookings["nights"].to_numpy(), days - first), 0, None)
    rows = bookings[["hotel", "group", "remaining", "price"]].assign(rooms=count.astype(float))
    sums = _sums(rows, ["hotel"]).reset_index()
    wider = DISPERSION_WEEK if days <= WEEK_NIGHTS else DISPERSION_FORTNIGHT
    return _told(sums, ("hotel",), np.full(len(sums), wider), share)


def _sums(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Sums and variances. Bookings of one group cancel together, groups each for themselves: within a
    group standard deviations add up, between groups variances."""
    priced = rows["price"].notna()
    money = rows["price"].fillna(0.0) * rows["rooms"]
    # A rounded probability may lie a hair beyond its limits.
    spread = np.sqrt(np.clip(rows["remaining"] * (1 - rows["remaining"]), 0, None))
    parts = rows[[*by, "group"]].assign(
        on_books=rows["rooms"],
        expected=rows["rooms"] * rows["remaining"],
        spread=rows["rooms"] * spread,
        revenue_on_books=money,
        at_risk=money * rows["remaining"],
        money_spread=money * spread,
        unpriced=rows["rooms"].where(~priced, 0.0),
    )
    groups = parts.groupby([*by, "group"], observed=True, sort=False).sum()
    groups["spread"] **= 2
    groups["money_spread"] **= 2
    return groups.groupby(level=list(by), observed=True).sum()


def _told(sums: pd.DataFrame, keys: Sequence[str], dispersion: np.ndarray, share: float) -> pd.DataFrame:
    """Sums with intervals that hold `share` of what happens, within nothing and all on the books."""
    quantile = NormalDist().inv_cdf((1 + share) / 2)
    for value, spread, most in (("expected", "spread", "on_books"), ("at_risk", "money_spread", "revenue_on_books")):
        half = quantile * np.sqrt(dispersion * sums[spread])
        sums[f"{value}_low"] = np.clip(sums[value] - half, 0, None)
        sums[f"{value}_high"] = np.minimum(sums[value] + half, sums[most])
    without = (sums["unpriced"] > 0) & (sums["unpriced"] == sums["on_books"])
    sums.loc[without, list(REVENUE)] = np.nan
    whole = {"on_books": "int64", "unpriced": "int64"}
    return sums[[*keys, *FIGURES]].astype(whole).reset_index(drop=True)
