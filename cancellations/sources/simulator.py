"""Invented reservations of two hotels, or of a chain, for machines without data and for drift that is known.

What it draws by are figures of the public hotel file (`cells`). Bookings come in groups, which share
dates, terms and mostly their fate; agents have rates of their own. A block of days, mostly a month, is
drawn whole, with a generator for each variable, and then cut: the past stays the same when the
simulation grows or when a later drift is added, and a world does not depend on where one looks.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cancellations.domain.reservation import (
    COLUMNS,
    GROUP_SIZE,
    NAMES,
    OUTCOME_NAMES,
    Column,
    Status,
    no_problems,
)
from cancellations.errors import BadInput
from cancellations.ports import SourceBatch, Undated
from cancellations.sources.cells import (
    BANDS,
    BOOKINGS_A_DAY,
    CELLS,
    CHANNELS,
    CORPORATE,
    CREATION_MONTH,
    DIRECT,
    FIGURES,
    GROUPS,
    HOTELS,
    LARGEST_GROUP,
    NEW_MARKET,
    ONLINE,
    PRICE_MONTH,
    PRICE_REACH,
    TAIL_SIZES,
    WEEKDAY,
    Cell,
    new_market,
)

__all__ = ["CELLS", "CHANNELS", "GROUPS", "HOTELS", "Drift", "DriftKind", "Simulator", "simulate"]

LONGEST_LEAD = 540
BATCH_ROWS = 50_000
# Up to this scale a block is a calendar month, above it a day: some 250,000 rows at most.
MONTHS_UP_TO = 20.0
LARGEST_SCALE = 1_000.0


class DriftKind(StrEnum):
    """What can change from a day on, and what its strength multiplies; of the last three, the share that it hits.

    Those three are breaks of a feed: they change what is recorded, never how bookings end.
    """

    LEAD_TIME_SHIFT = "lead_time_shift"  # lead times: people book earlier (> 1) or later
    CHANNEL_MIX = "channel_mix"  # the odds of a booking to come through online agencies
    PRICE_SHOCK = "price_shock"  # prices, while guests still compare with the old ones
    FREE_CANCELLATION = "free_cancellation"  # the odds that a refundable online booking is cancelled
    NEW_MARKET = "new_market"  # the number of bookings; those that come on top are of a market not seen before
    PRICE_IN_CENTS = "price_in_cents"  # prices are recorded times 100
    DEPOSIT_CONSTANT = "deposit_constant"  # every deposit type is recorded as "No Deposit"
    AGENT_MISSING = "agent_missing"  # no agent is recorded


BREAKS = frozenset({DriftKind.PRICE_IN_CENTS, DriftKind.DEPOSIT_CONSTANT, DriftKind.AGENT_MISSING})


@dataclass(frozen=True)
class Drift:
    """A lasting change of bookings made on `starts` or later; strengths of one kind multiply.

    Lead times, channels and the new market change who books, a price shock also what is known of them; only
    `FREE_CANCELLATION` changes how the same booking ends (concept drift). The strength of a break of the
    feed is the share of the bookings that it hits.
    """

    kind: DriftKind
    starts: date
    strength: float

    def __post_init__(self) -> None:
        told = f"drift {self.kind}: strength {self.strength} is not"
        if not (np.isfinite(self.strength) and self.strength > 0):
            raise BadInput(f"{told} a positive number{'' if self.kind in BREAKS else '; 1 changes nothing'}.")
        if self.kind in BREAKS and self.strength > 1:
            raise BadInput(f"{told} a share of the bookings; give a number up to 1, which is all of them.")
        if self.kind is DriftKind.NEW_MARKET and self.strength < 1:
            raise BadInput(f"{told} 1 or more: it multiplies the number of bookings; 1.25 brings a quarter on top.")

    @classmethod
    def parse(cls, text: str) -> Drift:
        """A drift as KIND:DATE:STRENGTH, like `price_shock:2016-05-30:1.5`."""
        kinds = ", ".join(DriftKind)
        parts = text.split(":")
        if len(parts) != 3:
            raise BadInput(f"drift {text!r} is not KIND:DATE:STRENGTH, as price_shock:2016-05-30:1.5; kinds: {kinds}.")
        if parts[0] not in list(DriftKind):
            raise BadInput(f"drift {text!r}: {parts[0]!r} is no kind of drift; kinds: {kinds}.")
        try:
            starts = date.fromisoformat(parts[1])
        except ValueError as error:
            raise BadInput(f"drift {text!r}: {parts[1]!r} is no date as YYYY-MM-DD.") from error
        try:
            strength = float(parts[2])
        except ValueError as error:
            raise BadInput(f"drift {text!r}: the strength {parts[2]!r} is no number.") from error
        return cls(DriftKind(parts[0]), starts, strength)

    def __str__(self) -> str:
        return f"{self.kind} x {self.strength:g} from {self.starts}"


def simulate(start: date, days: int, seed: int, drifts: Sequence[Drift] = (), *, scale: float = 1.0) -> pd.DataFrame:
    """Reservations booked on `days` days from `start`, in order of booking, with how each ends.

    Columns: `domain.reservation.NAMES`, typed as `coerce` gives them, `group_size`, `status` and `known_on`
    (every booking has an outcome, also one of the future), and `true_probability`, the odds that it was drawn
    by. Some 163 rows a day, times `scale`: above 1 there are more hotels, with as many bookings each.
    """
    return pd.concat(list(_blocks(start, days, seed, drifts, scale)), ignore_index=True)


class Simulator:
    """`simulate` as a source, without leads longer than `max_lead_days`; `raw` holds the canonical values."""

    def __init__(
        self,
        start: date,
        days: int,
        seed: int,
        drifts: Sequence[Drift] = (),
        *,
        scale: float = 1.0,
        max_lead_days: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.first, self.last = start, start + timedelta(days=days - 1)
        self._arguments = (start, days, seed, tuple(drifts), scale)
        self._longest_lead = np.inf if max_lead_days is None else max_lead_days
        self._batch_rows = batch_rows

    @property
    def name(self) -> str:
        _, _, seed, drifts, scale = self._arguments
        times = "" if scale == 1 else f", {scale:g} times the bookings"
        changes = "".join(f", {d}" for d in drifts)
        return f"simulator (seed {seed}, booked {self.first} to {self.last}{times}{changes})"

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

    def tables(self) -> Iterator[pd.DataFrame]:
        """The rows of `simulate`, `batch_rows` at a time and the rest, numbered from 1; in bounded memory."""
        waiting: list[pd.DataFrame] = []
        given = 0
        for block in _blocks(*self._arguments):
            if np.isfinite(self._longest_lead):
                block = block[(block["arrival_on"] - block["booked_on"]).dt.days <= self._longest_lead]
            waiting.append(block)
            if sum(map(len, waiting)) < self._batch_rows:
                continue
            rows = pd.concat(waiting, ignore_index=True)
            whole = len(rows) - len(rows) % self._batch_rows
            for first in range(0, whole, self._batch_rows):
                yield _numbered(rows.iloc[first : first + self._batch_rows], given + first)
            given, waiting = given + whole, [rows.iloc[whole:]]
        rest = pd.concat(waiting, ignore_index=True)
        if len(rest):
            yield _numbered(rest, given)

    def batches(self) -> Iterator[SourceBatch]:
        for rows in self.tables():
            raw, outcomes = rows[[*NAMES, "status", "known_on"]], rows[list(OUTCOME_NAMES)]
            yield SourceBatch(raw, rows[list(NAMES)], outcomes, no_problems())


def _numbered(rows: pd.DataFrame, before: int) -> pd.DataFrame:
    return rows.set_axis(pd.RangeIndex(before + 1, before + len(rows) + 1))


# Tables to draw from: a uniform number finds its value without a search. Finer steps than these would tell
# apart what the figures do not.
_LEVELS = 1 << 12
_MIDDLES = (np.arange(_LEVELS) + 0.5) / _LEVELS
_COUNT = len(BANDS)


@dataclass(frozen=True)
class _Inverse:
    """Inverse distribution functions, one in each row."""

    values: np.ndarray

    def __call__(self, row: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        return self.values.reshape(-1)[row * _LEVELS + (uniform * _LEVELS).astype(np.int64)]

    @classmethod
    def of_shares(cls, shares: Sequence[Sequence[float]], first: int = 0) -> _Inverse:
        rows = []
        for each in shares:
            cumulative = np.cumsum(each) / np.sum(each)
            rows.append(np.minimum(np.searchsorted(cumulative, _MIDDLES), len(each) - 1) + first)
        return cls(np.array(rows, dtype=np.int16))

    @classmethod
    def of_quantiles(cls, quantiles: Sequence[Sequence[float]]) -> _Inverse:
        return cls(np.array([np.interp(_MIDDLES, np.linspace(0, 1, len(q)), q) for q in quantiles]))


def _sizes(cell: Cell) -> np.ndarray:
    """Sizes of groups by quantile: between the measured sizes the tail is a straight line in logarithms."""
    known = [(1, 1.0), *((k, t) for k, t in zip(TAIL_SIZES, cell.sizes, strict=True) if t > 0), (LARGEST_GROUP, 1e-6)]
    size, tail = (np.log(np.array(column, dtype=float)) for column in zip(*known, strict=True))
    # A group has k bookings or more with probability tail(k): the largest k that a uniform number allows.
    found = np.exp(np.interp(-np.log(1 - _MIDDLES), -tail, size))
    return np.clip(np.floor(found + 1e-9), 1, LARGEST_GROUP).astype(np.int16)


def _market(known: int, first: Sequence[float]) -> np.ndarray:
    """Shares of so many agents: the first as told, the others as 1 / rank of what is left."""
    shares = np.zeros(max(known, 1))
    told = np.asarray(first[: len(shares)], float)
    shares[: len(told)] = told
    ranks = np.arange(len(told) + 1, len(shares) + 1)
    if len(ranks):
        shares[len(told) :] = (1 - told.sum()) / ranks / (1 / ranks).sum()
    return shares / shares.sum() if shares.sum() else np.full(len(shares), 1 / len(shares))


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 1e-4, 1 - 1e-4)
    return np.log(share / (1 - share))


class _Tables:
    """The figures as arrays over cells, and over cells and bands (row = cell x bands + band)."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        def each(name: str) -> np.ndarray:
            return np.array([getattr(c, name) for c in cells], dtype=float)

        def banded(name: str) -> np.ndarray:
            return np.array([getattr(c, name) for c in cells], dtype=float).reshape(len(cells) * _COUNT)

        def rows(name: str) -> list[Sequence[float]]:
            return [row for c in cells for row in getattr(c, name)]

        world = FIGURES.world
        self.cells = cells
        self.hotel = np.array([HOTELS.index(c.hotel) for c in cells])
        self.new = np.array([c.channel == NEW_MARKET for c in cells])
        self.online = np.array([c.channel == ONLINE for c in cells])
        self.share = each("share")
        self.size = _Inverse(np.array([_sizes(c) for c in cells]))
        self.per_group = self.size.values.mean(axis=1)
        self.lead_zero = banded("lead_zero")
        self.log_lead = _Inverse.of_quantiles(rows("log_lead"))
        self.nights = _Inverse.of_shares([c.nights for c in cells], first=1)
        self.non_refundable = _logit(banded("non_refundable"))
        self.usual_lead = self.log_lead.values.mean(axis=1)
        self.customer = _Inverse.of_shares([*rows("customer_type"), world.locked_customer])
        self.locked = len(cells) * _COUNT
        self.repeated, self.cancelled_before = banded("repeated"), banded("cancelled_before")
        self.special = _Inverse.of_shares([*rows("special"), world.locked_special])
        self.adults = _Inverse.of_shares(rows("adults"), first=1)
        self.children = _Inverse.of_shares([c.children for c in cells])
        self.meal = _Inverse.of_shares([c.meal for c in cells])
        self.room = _Inverse.of_shares([c.room_type for c in cells])
        hotel_price = np.array(world.hotel_price)[self.hotel]
        self.price = hotel_price * each("price")
        self.hotel_price = hotel_price
        self.price_month = np.array([PRICE_MONTH[HOTELS[h]] for h in self.hotel])
        self.room_price = np.array(world.room_price)
        self.price_noise = each("price_noise")
        self.alike = np.sqrt(each("same_price"))
        self.agent_known = each("agent_known")
        self.any_known = self.agent_known + each("company_known")
        self.odds = each("odds")
        self.spread = each("spread")
        self.agent_market = [_market(c.agents, c.agent_shares) for c in cells]
        self.company_market = [_market(c.companies, c.company_shares) for c in cells]
        self.agent, self.first_agent = _ranked(self.agent_market)
        self.company, self.first_company = _ranked(self.company_market)
        codes = [f"{c.hotel[0]}{c.channel[:2]}".upper() for c in cells]
        self.agents = _words(
            f"{code}{r + 1}" for code, m in zip(codes, self.agent_market, strict=True) for r in range(len(m))
        )
        self.companies = _words(
            f"{code[0]}{code[1:]}-C{r + 1}"
            for code, m in zip(codes, self.company_market, strict=True)
            for r in range(len(m))
        )
        self.segments = _words(c.channel for c in cells)
        self.routes = _words(_route(c.channel) for c in cells)


def _ranked(markets: Sequence[np.ndarray]) -> tuple[_Inverse, np.ndarray]:
    """Ranks to draw, and where each cell's names begin."""
    return _Inverse.of_shares([list(m) for m in markets]), np.cumsum([0, *map(len, markets)])[:-1]


def _route(channel: str) -> str:
    if channel == NEW_MARKET:
        return "App"
    return channel if channel in (CORPORATE, DIRECT) else "TA/TO"


def _words(values: Any) -> pa.Array:
    return pa.array(list(values), pa.large_string())


@cache
def _tables() -> _Tables:
    """Of the known cells and, for each hotel, one of the market that comes with a drift."""
    online = [c for c in CELLS if c.channel == ONLINE]
    return _Tables([*CELLS, *(new_market(c) for c in online)])


_MEALS, _ROOMS = _words(FIGURES.world.meals), _words(FIGURES.world.rooms)
_CUSTOMERS = _words(FIGURES.world.customers)
_DEPOSITS = _words(["No Deposit", "Non Refund"])
_STATUSES = _words([Status.STAYED.value, Status.CANCELED.value, Status.NO_SHOW.value])
_ELAPSED = _Inverse.of_quantiles([FIGURES.delays.short, FIGURES.delays.long, FIGURES.delays.non_refundable])
# Weekend nights (Saturday and Sunday) of a stay by weekday of arrival and number of nights.
_WEEKEND = np.array([np.cumsum([0] + [(w + n) % 7 >= 5 for n in range(60)]) for w in range(7)])
_TEXT = pd.StringDtype("pyarrow", na_value=np.nan)
_DIGITS = 6


def _taken(words: pa.Array, codes: np.ndarray, missing: np.ndarray | None = None) -> Any:
    """The words of codes as a pandas column of text."""
    return _TEXT.__from_arrow__(words.take(pa.array(codes, mask=missing)))


def _ids(days: Sequence[date], day: np.ndarray, number: np.ndarray) -> Any:
    """Texts as `S20160502-000001`, without a Python object for each."""
    width = len("S20160502-") + _DIGITS
    out = np.empty((len(day), width), dtype=np.uint8)
    heads = np.frombuffer("".join(f"S{d:%Y%m%d}-" for d in days).encode(), dtype=np.uint8).reshape(len(days), -1)
    out[:, :-_DIGITS] = heads[day]
    left = number.astype(np.int32)
    for place in range(1, _DIGITS + 1):
        out[:, -place] = left % 10 + ord("0")
        left = left // 10
    offsets = np.arange(len(day) + 1, dtype=np.int64) * width
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(out)]
    return _TEXT.__from_arrow__(pa.Array.from_buffers(pa.large_string(), len(day), buffers))


class _Draws:
    """A generator for each variable of a block: one that draws more does not move the others."""

    def __init__(self, seed: int, day: date) -> None:
        self._entropy = [seed, day.toordinal()]

    def of(self, variable: str) -> np.random.Generator:
        return np.random.default_rng([*self._entropy, zlib.crc32(variable.encode())])

    def uniform(self, variable: str, count: int) -> np.ndarray:
        return self.of(variable).random(count)


def _blocks(start: date, days: int, seed: int, drifts: Sequence[Drift], scale: float) -> Iterator[pd.DataFrame]:
    if days < 1:
        raise BadInput(f"simulate: {days} days; give 1 or more.")
    if seed < 0:
        raise BadInput(f"simulate: the seed {seed} is negative; give 0 or more.")
    if not 0 < scale <= LARGEST_SCALE:
        raise BadInput(f"simulate: scale {scale:g} is not above 0 and at most {LARGEST_SCALE:g}.")
    day, end = start, start + timedelta(days=days)
    while day < end:
        first = day.replace(day=1) if scale <= MONTHS_UP_TO else day
        after = (first + timedelta(days=31)).replace(day=1) if scale <= MONTHS_UP_TO else day + timedelta(days=1)
        block = _block([first + timedelta(days=i) for i in range((after - first).days)], seed, drifts, scale)
        if first < start or after > end:
            booked = block["booked_on"]
            block = block[(booked >= pd.Timestamp(start)) & (booked < pd.Timestamp(end))]
        yield block.reset_index(drop=True)
        day = after


def _effects(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What an agent, or a company, adds to the log-odds: drawn once for a world, 0 on average over bookings.

    One that brings most of a cell's bookings is what the cell's own figures tell.
    """
    tables = _tables()

    def drawn(markets: Sequence[np.ndarray], kind: str) -> np.ndarray:
        out = []
        for cell, (market, spread) in enumerate(zip(markets, tables.spread, strict=True)):
            effect = np.random.default_rng([seed, cell, zlib.crc32(kind.encode())]).normal(0, spread, len(market))
            effect[market > 0.5] = 0
            out.append(effect - np.average(effect, weights=market))
        return np.concatenate(out)

    return drawn(tables.agent_market, "agent"), drawn(tables.company_market, "company")


def _strengths(drifts: Sequence[Drift], kind: DriftKind, days: Sequence[date]) -> np.ndarray:
    return np.array([np.prod([d.strength for d in drifts if d.kind is kind and d.starts <= day]) for day in days])


def _hit(drifts: Sequence[Drift], kind: DriftKind, days: Sequence[date]) -> np.ndarray:
    """Share of each day's bookings that breaks of a kind reach."""
    return 1 - np.array(
        [np.prod([1 - d.strength for d in drifts if d.kind is kind and d.starts <= day]) for day in days]
    )


def _block(days: Sequence[date], seed: int, drifts: Sequence[Drift], scale: float) -> pd.DataFrame:
    """Bookings made on these days: groups first, then what differs within a group."""
    tables, draws, odds = _tables(), _Draws(seed, days[0]), FIGURES.odds
    pairs = int(np.ceil(scale))
    shape = (len(days), pairs, len(tables.cells))

    more_online = _strengths(drifts, DriftKind.CHANNEL_MIX, days)[:, None]
    weight = np.where(tables.new, 0, tables.share * np.where(tables.online, more_online, 1.0))
    weight = weight / weight.sum(axis=1, keepdims=True)
    new = tables.share * tables.new
    weight = weight + (_strengths(drifts, DriftKind.NEW_MARKET, days) - 1)[:, None] * new / new.sum()
    volume = [BOOKINGS_A_DAY * WEEKDAY[d.weekday()] * CREATION_MONTH[d.month - 1] * scale / pairs for d in days]
    rate = np.array(volume)[:, None] * weight / tables.per_group
    counts = draws.of("groups").poisson(np.broadcast_to(rate[:, None, :], shape))
    place = np.repeat(np.arange(counts.size), counts.ravel())
    day, pair, cell = np.unravel_index(place, shape)
    groups = len(place)

    size = tables.size(cell, draws.uniform("size", groups))
    band = np.searchsorted(BANDS, size, side="right") - 1
    kind = cell * _COUNT + band
    log_lead = tables.log_lead(kind, draws.uniform("lead", groups))
    longer = _strengths(drifts, DriftKind.LEAD_TIME_SHIFT, days)[day]
    lead = np.clip(np.rint(np.expm1(log_lead) * longer), 1, LONGEST_LEAD).astype(np.int64)
    lead[draws.uniform("lead zero", groups) < tables.lead_zero[kind]] = 0
    nights = tables.nights(cell, draws.uniform("nights", groups))
    locked = tables.non_refundable[kind] + FIGURES.world.non_refundable_lead * (log_lead - tables.usual_lead[kind])
    locked = draws.uniform("deposit", groups) < _chance(locked)
    # The last rows of these tables are of the non-refundable.
    customer = tables.customer(np.where(locked, tables.locked, kind), draws.uniform("customer", groups))
    repeated = draws.uniform("repeated", groups) < tables.repeated[kind]
    cancelled_before = draws.uniform("cancelled before", groups) < np.where(
        locked, FIGURES.world.locked_cancelled_before, tables.cancelled_before[kind]
    )
    stays = np.where(repeated, 1 + draws.of("stays").poisson(1.0, groups), 0)
    who = draws.uniform("who", groups)
    no_agent = who >= tables.agent_known[cell]
    no_company = ~no_agent | (who >= tables.any_known[cell])
    agent = tables.first_agent[cell] + tables.agent(cell, draws.uniform("agent", groups))
    company = tables.first_company[cell] + tables.company(cell, draws.uniform("company", groups))
    agent_effects, company_effects = _effects(seed)
    effect = np.where(no_agent, 0, agent_effects[agent]) + np.where(no_company, 0, company_effects[company])
    hotel = tables.hotel[cell] + len(HOTELS) * pair
    month_of_day = np.array([d.toordinal() for d in days]) - date(1970, 1, 1).toordinal()
    booked = month_of_day[day]
    arrival = booked + lead
    month = arrival.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    weekend = _WEEKEND[(arrival + 3) % 7, nights]  # 1970-01-01 was a Thursday
    meal = tables.meal(cell, draws.uniform("meal", groups))
    shock = np.log(_strengths(drifts, DriftKind.PRICE_SHOCK, days))[day]
    season_price = np.log(tables.price_month[cell, month])
    season = 2 * np.pi * (month + 1) / 12
    long = np.log1p(lead)
    online = tables.online[cell] | tables.new[cell]
    for_group = (
        tables.odds[cell]
        + np.array(odds.bands)[band]
        + (odds.lead + odds.lead_online * online) * long
        + odds.lead_squared * long**2
        + odds.same_day * (lead == 0)
        + odds.same_week * (lead <= 7)
        + odds.transient * (customer == 0)
        + odds.cancelled_before * cancelled_before
        + odds.repeated * repeated
        + odds.nights * np.log1p(nights)
        + odds.season_sin * np.sin(season)
        + odds.season_cos * np.cos(season)
        + effect
    )

    group = np.repeat(np.arange(groups), size)
    rows = len(group)
    row_cell, row_kind = cell[group], kind[group]
    alike = draws.uniform("alike", rows) < tables.alike[row_cell]

    def mostly_shared(variable: str) -> np.ndarray:
        """A uniform number that the bookings of a group have in common, but for those that differ."""
        shared = draws.uniform(f"{variable} of the group", groups)
        return np.where(alike, shared[group], draws.uniform(variable, rows))

    noise = draws.of("price of the group").normal(size=groups)[group]
    noise = np.where(alike, noise, draws.of("price").normal(size=rows)) * tables.price_noise[row_cell]
    room = tables.room(row_cell, mostly_shared("room"))
    log_price = np.log(tables.price)[row_cell] + season_price[group] + np.log(tables.room_price)[room] + noise
    price = np.exp(log_price + shock[group])
    special = tables.special(np.where(locked[group], tables.locked, row_kind), mostly_shared("special"))
    adults = tables.adults(row_kind, mostly_shared("adults"))
    children = tables.children(row_cell, mostly_shared("children")) * (adults > 1)
    compared = log_price + shock[group] - season_price[group] - np.log(tables.hotel_price)[row_cell]

    logit = (
        for_group[group]
        + odds.special_one * (special == 1)
        + odds.special_more * (special > 1)
        + odds.special_online * online[group] * np.minimum(special, 2)
        + odds.price * _compared(compared, shock[group])
        + odds.party * (adults + children > 2)
        + np.log(_strengths(drifts, DriftKind.FREE_CANCELLATION, days))[day[group]] * online[group]
    )
    refundable = ~locked[group]
    probability = np.where(refundable, _chance(logit), FIGURES.delays.non_refundable_cancels)
    joined = np.sqrt([1.0, *FIGURES.world.together])[band[group]]
    joins = draws.uniform("joins", rows) < joined
    cancelled = _joint(joins, draws, "fate", group, groups) < probability
    step = np.searchsorted(FIGURES.delays.lead_steps, lead)
    silent = np.where(locked, 0, np.array(FIGURES.delays.no_show)[step])[group]
    no_show = cancelled & (_joint(joins, draws, "no show", group, groups) < silent)
    curve = np.where(locked, 2, np.where(lead <= FIGURES.delays.lead_steps[1], 0, 1))[group]
    elapsed = _ELAPSED(curve, _joint(joins, draws, "time", group, groups))
    called = np.where(no_show, lead[group], np.floor(elapsed * lead[group] + 1e-9).astype(np.int64))
    last = np.where(cancelled, called, lead[group] + nights[group])

    row_day = day[group]
    untold = no_agent[group] | (
        draws.uniform("agent missing", rows) < _hit(drifts, DriftKind.AGENT_MISSING, days)[row_day]
    )
    cents = draws.uniform("price in cents", rows) < _hit(drifts, DriftKind.PRICE_IN_CENTS, days)[row_day]
    free = draws.uniform("deposit constant", rows) < _hit(drifts, DriftKind.DEPOSIT_CONSTANT, days)[row_day]
    # Groups as they are recorded: two that agree in all of `domain.reservation.GROUP` are one.
    key = (place * (LONGEST_LEAD + 1) + lead) * _WEEKEND.shape[1] + nights
    key = key * (len(tables.companies) + 1) + np.where(no_company, 0, company + 1)
    key = key[group] * (len(tables.agents) + 1) + np.where(untold, 0, agent[group] + 1)
    first_of_day = np.searchsorted(row_day, np.arange(len(days)))
    names = _words(f"{name} {p + 1}" if p else name for p in range(pairs) for name in HOTELS)
    booked_on = booked[group].astype("datetime64[D]").astype("datetime64[us]")
    columns: dict[str, Any] = {
        "reservation_id": _ids(days, row_day, np.arange(rows) - first_of_day[row_day] + 1),
        "hotel": _taken(names, hotel[group]),
        "booked_on": booked_on,
        "arrival_on": booked_on + lead[group].astype("timedelta64[D]"),
        "weekend_nights": weekend[group].astype(float),
        "week_nights": (nights - weekend)[group].astype(float),
        "adults": adults.astype(float),
        "children": children.astype(float),
        "babies": (draws.uniform("babies", rows) < FIGURES.world.babies).astype(float),
        "meal": _taken(_MEALS, meal[group]),
        "market_segment": _taken(tables.segments, row_cell),
        "distribution_channel": _taken(tables.routes, row_cell),
        "repeated_guest": repeated[group].astype(float),
        "previous_cancellations": cancelled_before[group].astype(float),
        "previous_stays": stays[group].astype(float),
        "room_type": _taken(_ROOMS, room),
        "deposit_type": _taken(_DEPOSITS, (~refundable & ~free).astype(np.int64)),
        "agent": _taken(tables.agents, agent[group], untold),
        "company": _taken(tables.companies, company[group], no_company[group]),
        "customer_type": _taken(_CUSTOMERS, customer[group]),
        "price": np.round(price, 2) * np.where(cents, 100.0, 1.0),
        "special_requests": special.astype(float),
        GROUP_SIZE: _counted(key),
        "status": _taken(_STATUSES, cancelled.astype(np.int64) + no_show),
        "known_on": booked_on + last.astype("timedelta64[D]"),
        "true_probability": probability,
    }
    return pd.DataFrame(columns)


def _chance(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


def _compared(log_price: np.ndarray, shock: np.ndarray) -> np.ndarray:
    """A price beside the hotel's others; beyond the reach of the figures only a shock adds to it."""
    return np.clip(log_price - shock, -PRICE_REACH, PRICE_REACH) + shock


def _joint(joins: np.ndarray, draws: _Draws, variable: str, group: np.ndarray, groups: int) -> np.ndarray:
    """A uniform number that those who stand or fall with their group have in common."""
    shared = draws.uniform(f"{variable} of the group", groups)
    return np.where(joins, shared[group], draws.uniform(variable, len(group)))


def _counted(key: np.ndarray) -> np.ndarray:
    """How many rows have each row's key."""
    _, number, counts = np.unique(key, return_inverse=True, return_counts=True)
    return counts[number].astype(float)
