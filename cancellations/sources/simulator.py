"""Invented reservations of two hotels, for machines without data and for drift that is known.

Shares, leads, prices and the cancellation odds are figures of the public hotel file (Antonio et al.
2019), summed up by hotel and channel; the logit below was fitted to it and has an AUC of .84. Each
day draws from a generator of its own, seeded by the date: the past stays the same when the
simulation grows or when a later drift is added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import numpy as np
import pandas as pd

from cancellations.domain.reservation import COLUMNS, NAMES, OUTCOME_NAMES, Column, Status, coerce, no_problems, sized
from cancellations.errors import BadInput
from cancellations.ports import SourceBatch, Undated


@dataclass(frozen=True)
class Cell:
    """Bookings of one hotel by one channel: figures of the public file.

    `share` of all bookings; `log_lead`: mean and deviation of log1p(days), `lead_zero` the share
    booked on the day of arrival; `price` per night, its median, with the deviation of its log;
    `special_zero`, `special_mean`: special requests; `nights`: their mean; `group_tail`: a group
    has k or more bookings with probability k ** -group_tail.
    """

    hotel: str
    channel: str
    share: float
    non_refundable: float
    log_lead: tuple[float, float]
    lead_zero: float
    price: tuple[float, float]
    special_zero: float
    special_mean: float
    nights: float
    transient: float
    group_tail: float

    @property
    def bookings_per_group(self) -> float:
        return float((np.arange(1, LARGEST_GROUP + 1) ** -self.group_tail).sum())


CITY, RESORT = "City Hotel", "Resort Hotel"
CORPORATE, DIRECT, GROUPS, OFFLINE, ONLINE = "Corporate", "Direct", "Groups", "Offline TA/TO", "Online TA"
LARGEST_GROUP = 180
CELLS: tuple[Cell, ...] = (
    Cell(CITY, CORPORATE, 0.029, 0.115, (2.391, 1.449), 0.106, (80.00, 0.247), 0.792, 0.238, 2.029, 0.644, 2.05),
    Cell(CITY, DIRECT, 0.056, 0.003, (2.831, 1.893), 0.178, (101.15, 0.349), 0.606, 0.588, 2.850, 0.892, 2.6),
    Cell(CITY, GROUPS, 0.075, 0.563, (4.575, 0.954), 0.006, (95.00, 0.281), 0.881, 0.129, 2.578, 0.590, 0.8),
    Cell(CITY, OFFLINE, 0.136, 0.307, (4.311, 1.278), 0.016, (90.00, 0.264), 0.815, 0.210, 3.019, 0.645, 1.8),
    Cell(CITY, ONLINE, 0.368, 0.001, (3.933, 1.352), 0.025, (108.90, 0.290), 0.402, 0.848, 3.351, 0.927, 2.86),
    Cell(RESORT, CORPORATE, 0.021, 0.004, (1.855, 1.395), 0.200, (40.00, 0.321), 0.885, 0.148, 2.383, 0.690, 2.05),
    Cell(RESORT, DIRECT, 0.056, 0.000, (2.355, 1.982), 0.276, (74.70, 0.577), 0.635, 0.530, 3.272, 0.903, 2.6),
    Cell(RESORT, GROUPS, 0.050, 0.201, (4.450, 1.208), 0.004, (66.00, 0.345), 0.925, 0.082, 4.054, 0.212, 0.8),
    Cell(RESORT, OFFLINE, 0.061, 0.007, (4.071, 1.528), 0.034, (59.50, 0.511), 0.684, 0.400, 5.971, 0.692, 1.8),
    Cell(RESORT, ONLINE, 0.149, 0.002, (3.678, 1.634), 0.054, (80.10, 0.560), 0.358, 0.903, 4.228, 0.908, 2.86),
)
BOOKINGS_A_DAY = 163.0
# Monday first; and bookings a day by month of creation, January first: both have mean 1.
WEEKDAY = np.array([1.21, 1.10, 1.21, 1.08, 1.13, 0.67, 0.60])
CREATION_MONTH = np.array([1.62, 1.57, 1.14, 1.02, 0.86, 0.64, 0.69, 0.79, 0.95, 0.82, 0.93, 0.97])
# Price by month of arrival, relative to the hotel's median.
PRICE_MONTH = {
    CITY: np.array([0.80, 0.80, 0.88, 1.04, 1.20, 1.15, 1.10, 1.17, 1.20, 1.08, 0.89, 0.88]),
    RESORT: np.array([0.69, 0.76, 0.79, 1.05, 1.03, 1.42, 2.30, 2.77, 1.38, 0.89, 0.65, 0.83]),
}
PARTY_SIZES = np.array([0.197, 0.676, 0.092, 0.035])  # 1 to 4 guests
REPEAT_GUESTS, EARLIER_CANCELLATIONS = 0.031, 0.028
NON_REFUNDABLE_CANCELS = 0.99
LONGEST_LEAD = 540
# When a cancellation comes, as a share of the lead: probability and quantile. The last 4 % of the
# refundable ones never call: they are no-shows.
CANCEL_TIMES = ((0.0, 0.19, 0.25, 0.50, 0.75, 0.90, 0.96, 1.0), (0.0, 0.0, 0.04, 0.32, 0.75, 0.94, 1.0, 1.0))
NON_REFUNDABLE_TIMES = ((0.0, 0.25, 0.50, 0.75, 0.90, 1.0), (0.0, 0.0, 0.19, 0.38, 0.61, 0.99))
# Of a group's bookings this share stands or falls together; the others decide for themselves.
GROUP_TOGETHER = 0.8
# A few agents bring most bookings; ids are invented.
AGENTS, AGENT_TAIL = 40, 1.1
BATCH_ROWS = 50_000


class DriftKind(StrEnum):
    """What can change from a day on, and what its strength multiplies."""

    LEAD_TIME_SHIFT = "lead_time_shift"  # lead times: people book earlier (> 1) or later
    CHANNEL_MIX = "channel_mix"  # the odds of a booking to come through online agencies
    PRICE_SHOCK = "price_shock"  # prices, while guests still compare with the old ones
    FREE_CANCELLATION = "free_cancellation"  # the odds that a refundable online booking is cancelled


@dataclass(frozen=True)
class Drift:
    """A lasting change of bookings made on `starts` or later; strengths of one kind multiply.

    The first two kinds change who books, the third also what is known of them; only
    `FREE_CANCELLATION` changes how the same booking ends (concept drift).
    """

    kind: DriftKind
    starts: date
    strength: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.strength) and self.strength > 0):
            raise BadInput(f"drift {self.kind}: strength {self.strength} is not a positive number; 1 changes nothing.")

    def __str__(self) -> str:
        return f"{self.kind} x {self.strength:g} from {self.starts}"


def simulate(start: date, days: int, seed: int, drifts: Sequence[Drift] = ()) -> pd.DataFrame:
    """Reservations booked on `days` days from `start`, in order of booking, with how each ends.

    Columns: `domain.reservation.NAMES`, `group_size`, `status` and `known_on` (every booking has an outcome, also
    one of the future), and `true_probability`, the odds that it was drawn by. Some 163 rows a day.
    """
    if days < 1:
        raise BadInput(f"simulate: {days} days; give 1 or more.")
    drawn = [_day(start + timedelta(days=i), seed, drifts) for i in range(days)]
    table = pd.DataFrame({name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]})
    told = table[["status", "true_probability"]]
    known_on = table["known_on"].astype("datetime64[us]")
    reservations = sized(coerce(table))
    return reservations.assign(status=told["status"].astype("str"), known_on=known_on, **told[["true_probability"]])


class Simulator:
    """`simulate` as a source, without leads longer than `max_lead_days`; `raw` holds the canonical values."""

    def __init__(
        self,
        start: date,
        days: int,
        seed: int,
        drifts: Sequence[Drift] = (),
        *,
        max_lead_days: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.first, self.last = start, start + timedelta(days=days - 1)
        self._arguments = (start, days, seed, tuple(drifts))
        self._longest_lead = np.inf if max_lead_days is None else max_lead_days
        self._batch_rows = batch_rows

    @property
    def name(self) -> str:
        _, _, seed, drifts = self._arguments
        changes = "".join(f", {d}" for d in drifts)
        return f"simulator (seed {seed}, booked {self.first} to {self.last}{changes})"

    @property
    def columns(self) -> tuple[Column, ...]:
        return COLUMNS

    @property
    def mapping(self) -> str:
        return ""

    @property
    def undated(self) -> Undated:
        return Undated.MATURITY

    def fingerprint(self) -> str | None:
        """Of what it is drawn from: the same arguments give the same world."""
        return hashlib.sha256(repr((self._arguments, self._longest_lead)).encode()).hexdigest()

    def batches(self) -> Iterator[SourceBatch]:
        table = simulate(*self._arguments)
        lead = (table["arrival_on"] - table["booked_on"]).dt.days
        table = table[lead <= self._longest_lead]
        table.index = pd.RangeIndex(1, len(table) + 1)
        for first in range(0, len(table), self._batch_rows):
            rows = table.iloc[first : first + self._batch_rows]
            raw, outcomes = rows[[*NAMES, "status", "known_on"]], rows[list(OUTCOME_NAMES)]
            yield SourceBatch(raw, rows[list(NAMES)], outcomes, no_problems())


def _table(values: Sequence[float]) -> np.ndarray:
    return np.array(values, dtype=float)


_SHARE = _table([c.share for c in CELLS])
_PER_GROUP = _table([c.bookings_per_group for c in CELLS])
_ONLINE = np.array([c.channel == ONLINE for c in CELLS])
_PRICE_MONTH = np.array([PRICE_MONTH[c.hotel] for c in CELLS])


def _positive_lead(cell: Cell) -> tuple[float, float]:
    """Mean and deviation of log1p(lead) without the bookings of the same day."""
    mean, deviation = cell.log_lead
    some = 1 - cell.lead_zero
    inner = mean / some
    return inner, float(np.sqrt((deviation**2 + mean**2) / some - inner**2))


def _price_noise(cell: Cell) -> float:
    """Deviation of the log price within a month: the figure of the file includes the seasons."""
    return float(np.sqrt(max(cell.price[1] ** 2 - np.log(PRICE_MONTH[cell.hotel]).var(), 0.15**2)))


_LEAD = np.array([_positive_lead(c) for c in CELLS])
_PRICE_NOISE = _table([_price_noise(c) for c in CELLS])
# Weekend nights (Saturday and Sunday) of a stay by weekday of arrival and number of nights.
_WEEKEND = np.array([np.cumsum([0] + [(w + n) % 7 >= 5 for n in range(60)]) for w in range(7)])


def _of(cells: np.ndarray, name: str) -> np.ndarray:
    return np.array([getattr(c, name) for c in CELLS])[cells]


def _strength(drifts: Sequence[Drift], kind: DriftKind, day: date) -> float:
    return float(np.prod([d.strength for d in drifts if d.kind is kind and d.starts <= day]))


def _day(day: date, seed: int, drifts: Sequence[Drift]) -> dict[str, np.ndarray]:
    """Bookings made on one day: groups first, then what differs within a group."""
    draw = np.random.default_rng([seed, day.toordinal()])
    weight = _SHARE * np.where(_ONLINE, _strength(drifts, DriftKind.CHANNEL_MIX, day), 1.0)
    per_group = _PER_GROUP * weight.sum()
    rate = BOOKINGS_A_DAY * WEEKDAY[day.weekday()] * CREATION_MONTH[day.month - 1]
    cells = np.repeat(np.arange(len(CELLS)), draw.poisson(rate * weight / per_group))
    groups = len(cells)

    size = np.minimum(draw.random(groups) ** (-1 / _of(cells, "group_tail")), LARGEST_GROUP).astype(int)
    log_lead = draw.normal(_LEAD[cells, 0], _LEAD[cells, 1])
    longer = _strength(drifts, DriftKind.LEAD_TIME_SHIFT, day)
    lead = np.clip(np.rint(np.expm1(log_lead) * longer), 1, LONGEST_LEAD).astype(int)
    lead = np.where(draw.random(groups) < _of(cells, "lead_zero"), 0, lead)
    nights = np.minimum(1 + draw.poisson(_of(cells, "nights") - 1), 59)
    non_refundable = draw.random(groups) < _of(cells, "non_refundable")
    transient = draw.random(groups) < _of(cells, "transient")
    agent = np.minimum(draw.random(groups) ** (-1 / AGENT_TAIL), AGENTS).astype(int)
    together, group_mood = draw.random(groups), draw.normal(0, 0.35, groups)
    time = draw.random(groups)

    group = np.repeat(np.arange(groups), size)
    rows = len(group)
    cell = cells[group]
    hotel, channel = _of(cell, "hotel"), _of(cell, "channel")
    city, online = hotel == CITY, channel == ONLINE
    arrival = np.datetime64(day, "D") + lead[group]
    month = arrival.astype("datetime64[M]").astype(int) % 12
    weekday = (arrival.astype(int) + 3) % 7  # 1970-01-01 was a Thursday
    weekend = _WEEKEND[weekday, nights[group]]

    relative_price = np.exp(draw.normal(0, _PRICE_NOISE[cell])) * _strength(drifts, DriftKind.PRICE_SHOCK, day)
    price = np.array([c.price[0] for c in CELLS])[cell] * _PRICE_MONTH[cell, month] * relative_price
    some_special = draw.random(rows) >= _of(cell, "special_zero")
    asked = _of(cell, "special_mean") / (1 - _of(cell, "special_zero")) - 1
    special = np.where(some_special, np.minimum(1 + draw.poisson(np.maximum(asked, 0)), 5), 0)
    party = 1 + draw.choice(4, rows, p=PARTY_SIZES)
    children = np.where((party > 2) & (draw.random(rows) < 0.6), party - 2, 0)
    repeated = draw.random(rows) < REPEAT_GUESTS
    cancelled_before = draw.random(rows) < EARLIER_CANCELLATIONS

    long = np.log1p(lead[group])
    season = 2 * np.pi * (month + 1) / 12
    logit = (
        -2.559
        + 0.635 * long
        - 0.029 * long**2
        + 0.283 * city
        - 1.675 * (channel == OFFLINE)
        - 1.008 * (channel == GROUPS)
        - 1.324 * (channel == DIRECT)
        - 1.318 * (channel == CORPORATE)
        - 0.872 * np.minimum(special, 3)
        + 0.598 * transient[group]
        + 3.669 * cancelled_before
        - 1.884 * repeated
        + 0.409 * np.log(relative_price)
        + 0.105 * np.log1p(nights[group])
        + 0.057 * (party > 2)
        - 0.292 * (city & online)
        - 0.008 * np.sin(season)
        + 0.119 * np.cos(season)
        + group_mood[group]
        + np.log(_strength(drifts, DriftKind.FREE_CANCELLATION, day)) * online
    )
    refundable = ~non_refundable[group]
    probability = np.where(refundable, 1 / (1 + np.exp(-logit)), NON_REFUNDABLE_CANCELS)
    joins = draw.random(rows) < GROUP_TOGETHER
    cancelled = np.where(joins, together[group], draw.random(rows)) < probability

    elapsed = np.where(refundable, np.interp(time[group], *CANCEL_TIMES), np.interp(time[group], *NON_REFUNDABLE_TIMES))
    no_show = cancelled & (elapsed == 1)
    last = np.where(cancelled, np.floor(elapsed * lead[group]).astype(int), lead[group] + nights[group])
    return {
        "reservation_id": np.array([f"S{day:%Y%m%d}-{n:04d}" for n in range(1, rows + 1)], dtype=object),
        "hotel": hotel,
        "booked_on": np.full(rows, np.datetime64(day, "D")),
        "arrival_on": arrival,
        "weekend_nights": weekend,
        "week_nights": nights[group] - weekend,
        "adults": party - children,
        "children": children,
        "babies": (draw.random(rows) < 0.008).astype(int),
        "meal": draw.choice(["BB", "HB", "SC"], rows, p=[0.78, 0.12, 0.10]),
        "market_segment": channel,
        "distribution_channel": np.where(np.isin(channel, (CORPORATE, DIRECT)), channel, "TA/TO"),
        "repeated_guest": repeated.astype(int),
        "previous_cancellations": cancelled_before.astype(int),
        "previous_stays": np.where(repeated, 1 + draw.poisson(1.0, rows), 0),
        "room_type": draw.choice(["A", "D", "E", "F"], rows, p=[0.72, 0.17, 0.06, 0.05]),
        "deposit_type": np.where(refundable, "No Deposit", "Non Refund"),
        "agent": np.array(
            [
                None if c in (DIRECT, CORPORATE) else f"{h[0]}{c[:2]}{a}".upper()
                for h, c, a in zip(hotel, channel, agent[group], strict=True)
            ],
            dtype=object,
        ),
        "company": np.array(
            [f"{h[0]}{a}" if c == CORPORATE else None for h, c, a in zip(hotel, channel, agent[group], strict=True)],
            dtype=object,
        ),
        "customer_type": np.where(transient[group], "Transient", "Transient-Party"),
        "price": price.round(2),
        "special_requests": special,
        "status": np.where(no_show, Status.NO_SHOW, np.where(cancelled, Status.CANCELED, Status.STAYED)),
        "known_on": np.datetime64(day, "D") + last,
        "true_probability": probability,
    }
