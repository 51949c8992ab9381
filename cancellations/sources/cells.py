"""What the simulator draws by: figures of the public hotel file, summed up by hotel, channel and size of group.

`simulator.toml` holds them; `python -m benchmarks.anatomy` measures them again. The file is Antonio et al.
2019 (see the packaged mapping); neither a booking nor an id of it is here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import Any, Self

import numpy as np

CITY, RESORT = "City Hotel", "Resort Hotel"
HOTELS = (CITY, RESORT)
CORPORATE, DIRECT, GROUPS, OFFLINE, ONLINE = "Corporate", "Direct", "Groups", "Offline TA/TO", "Online TA"
CHANNELS = (CORPORATE, DIRECT, GROUPS, OFFLINE, ONLINE)
# A market that no hotel has yet; it comes with the drift of that name.
NEW_MARKET = "Mobile App"

# Smallest group of each band of sizes; and the sizes at which the tail of a cell was measured.
BANDS = (1, 2, 5, 15, 50)
TAIL_SIZES = (2, 3, 4, 5, 8, 12, 18, 25, 35, 50, 80, 120, 180)
LARGEST_GROUP = 180

BOOKINGS_A_DAY = 163.0
# Monday first; and bookings a day by month of creation, January first: both have mean 1.
WEEKDAY = np.array([1.21, 1.10, 1.21, 1.08, 1.13, 0.67, 0.60])
CREATION_MONTH = np.array([1.62, 1.57, 1.14, 1.02, 0.86, 0.64, 0.69, 0.79, 0.95, 0.82, 0.93, 0.97])
# Price by month of arrival, relative to the hotel's median.
PRICE_MONTH = {
    CITY: np.array([0.80, 0.80, 0.88, 1.04, 1.20, 1.15, 1.10, 1.17, 1.20, 1.08, 0.89, 0.88]),
    RESORT: np.array([0.69, 0.76, 0.79, 1.05, 1.03, 1.42, 2.30, 2.77, 1.38, 0.89, 0.65, 0.83]),
}
# Guests compare prices up to a factor of exp(this) with those of the hotel and month.
PRICE_REACH = 1.5


@dataclass(frozen=True)
class Cell:
    """Bookings of one hotel by one channel.

    `share` of all bookings. Of groups: `sizes`, the share with at least as many bookings as in `TAIL_SIZES`;
    `nights`, shares of 1, 2, …; `agent_known` and `company_known`, with how many there are and the shares of
    the first three. One value (or list of shares) for each of `BANDS`: `lead_zero`, booked on the day of
    arrival; `log_lead`, quantiles of log1p(days) of the others; `non_refundable`; `customer_type`; `repeated`;
    `cancelled_before`; `special`, of 0 to 4 requests; `adults`, of 1 to 3. `price` relative to the hotel's,
    `price_noise` the deviation of its log, `same_price` the share of pairs within a group that pay the same.
    `odds`: log-odds of a refundable booking's cancellation; `spread`: their deviation between agents (of a
    corporate cell: companies), shrunk.
    """

    hotel: str
    channel: str
    share: float
    sizes: Sequence[float]
    lead_zero: Sequence[float]
    log_lead: Sequence[Sequence[float]]
    nights: Sequence[float]
    non_refundable: Sequence[float]
    customer_type: Sequence[Sequence[float]]
    repeated: Sequence[float]
    cancelled_before: Sequence[float]
    special: Sequence[Sequence[float]]
    adults: Sequence[Sequence[float]]
    children: Sequence[float]
    meal: Sequence[float]
    room_type: Sequence[float]
    price: float
    price_noise: float
    same_price: float
    agent_known: float
    agents: int
    agent_shares: Sequence[float]
    company_known: float
    companies: int
    company_shares: Sequence[float]
    odds: float
    spread: float


@dataclass(frozen=True)
class Rest:
    """What the cells have in common.

    `together`: correlation of the labels of two bookings of one group beyond what their columns explain, for
    each band but the first. `non_refundable_lead`: rise of the log-odds of a non-refundable booking with
    log1p(lead). `locked_customer`, `locked_special`, `locked_cancelled_before`: of the non-refundable groups,
    what the cells tell of the others.
    """

    rooms: Sequence[str]
    room_price: Sequence[float]
    meals: Sequence[str]
    customers: Sequence[str]
    together: Sequence[float]
    hotel_price: Sequence[float]
    babies: float
    non_refundable_lead: float
    locked_customer: Sequence[float]
    locked_special: Sequence[float]
    locked_cancelled_before: float


@dataclass(frozen=True)
class Delays:
    """When a cancellation comes.

    `no_show`: share that never calls, by lead (up to each of `lead_steps`, and above); the others' quantiles
    of elapsed days over lead, for leads up to the second step (`short`), above (`long`), and non-refundable.
    """

    lead_steps: Sequence[int]
    no_show: Sequence[float]
    short: Sequence[float]
    long: Sequence[float]
    non_refundable: Sequence[float]
    non_refundable_cancels: float


@dataclass(frozen=True)
class Odds:
    """Coefficients of the log-odds that a refundable booking is cancelled, by logistic regression."""

    lead: float
    lead_squared: float
    lead_online: float
    same_day: float
    same_week: float
    special_one: float
    special_more: float
    special_online: float
    transient: float
    cancelled_before: float
    repeated: float
    price: float
    nights: float
    party: float
    season_sin: float
    season_cos: float
    bands: Sequence[float]


@dataclass(frozen=True)
class Figures:
    cells: tuple[Cell, ...]
    world: Rest
    delays: Delays
    odds: Odds

    @classmethod
    def packaged(cls) -> Self:
        text = (files("cancellations.sources") / "simulator.toml").read_text(encoding="utf-8")
        found = tomllib.loads(text)
        cells = tuple(Cell(**{f.name: each[f.name] for f in fields(Cell)}) for each in found["cell"])
        return cls(cells, Rest(**found["world"]), Delays(**found["delays"]), Odds(**found["odds"]))


FIGURES = Figures.packaged()
CELLS = FIGURES.cells


def new_market(cell: Cell) -> Cell:
    """Bookings of the market that comes with its drift, in place of a hotel's online ones.

    Its guests book later, stay shorter, ask for nothing and cancel twice as easily; a dozen agents bring them.
    """
    shares: dict[str, Any] = {
        "log_lead": [[level * 0.8 for level in band] for band in cell.log_lead],
        "special": [[0.9, 0.1, 0.0, 0.0, 0.0]] * len(BANDS),
        "nights": [0.5, 0.3, 0.15, 0.05],
        "agents": 12,
        "agent_shares": [0.3, 0.2, 0.1],
        "company_known": 0.0,
    }
    return replace(cell, channel=NEW_MARKET, odds=cell.odds + float(np.log(2)), spread=0.5, price=0.85, **shares)
