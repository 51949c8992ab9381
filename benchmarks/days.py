"""Days: checks of a day's bookings, learned from the year before and anew each month; with planted breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial

import numpy as np
import pandas as pd

from benchmarks.figures import Figure, Options
from benchmarks.rates import poisson, share
from cancellations.domain.checks import CheckPolicy, Past, check, learn
from cancellations.domain.features import build, past_of
from cancellations.domain.labels import LabelRule
from cancellations.domain.reservation import group_keys
from cancellations.replay.world import World
from cancellations.sources.simulator import simulate
from monitoring.drift import dataset_share

POLICY = CheckPolicy()
RUN = pd.Timedelta(days=27)
# A year to learn from before the first day that is judged.
REAL = ("2016-01-04", "2017-02-26")
SIMULATED, SIMULATED_DAYS, SIMULATED_MARKETS = date(2015, 1, 5), 730, 3
EVERY = 3
# Shares of a day's bookings that a break hits.
STRENGTHS = (0.25, 0.5, 1.0)
EVIDENTLY_DAYS = 20
EVIDENTLY_REFERENCE = 91
REACH_SEEN, REACH_FALSE = 0.99, 1.0

Break = Callable[[pd.DataFrame], pd.DataFrame]
# What a day's features look like when the feed breaks. The first ones can be seen on their first day; columns of
# the others have one value for all on many a day of normal life.
AT_ONCE: Mapping[str, Break] = {
    "price missing": lambda f: f.assign(price=np.nan),
    "every second lead time missing": lambda f: f.assign(lead_days=f["lead_days"].where(np.arange(len(f)) % 2 == 0)),
    "price in cents": lambda f: f.assign(price=f["price"] * 100),
    "price in hundreds": lambda f: f.assign(price=f["price"] / 100),
    "lead time in hours": lambda f: f.assign(lead_days=f["lead_days"] * 24),
    "lead time in weeks": lambda f: f.assign(lead_days=f["lead_days"] / 7),
    "lead time zeroed": lambda f: f.assign(lead_days=0.0),
    "special requests zeroed": lambda f: f.assign(special_requests=0.0),
    "segments missing": lambda f: f.assign(market_segment=np.nan),
    "segments renamed": lambda f: f.assign(market_segment=f["market_segment"].astype("str") + " (new)"),
    "records of agents emptied": lambda f: f.assign(agent_cancel_rate=0.37, agent_bookings=0.0),
    "books emptied": lambda f: f.assign(on_the_books=0.0),
}
IN_TIME: Mapping[str, Break] = {
    "one hotel for all": lambda f: f.assign(hotel=f["hotel"].iloc[0]),
    "one customer type for all": lambda f: f.assign(customer_type="Transient"),
    "children zeroed": lambda f: f.assign(children=0.0),
    "repeated guests zeroed": lambda f: f.assign(repeated_guest=0.0),
    "deposit type constant": lambda f: f.assign(deposit_type="No Deposit"),
}


@dataclass(frozen=True)
class Stream:
    """Bookings in order, with features as they are scored; breaks are planted into each `every`-th of the days."""

    name: str
    features: pd.DataFrame
    booked_on: pd.Series
    groups: np.ndarray
    days: pd.DatetimeIndex
    every: int

    def learned(self) -> Iterator[tuple[pd.Timestamp, Past]]:
        """Each day with what was learned on the first of its month."""
        past: Past | None = None
        for day in self.days:
            if past is None or day.day == 1:
                before = (self.booked_on < day).to_numpy()
                past = learn(self.features[before], self.booked_on[before], self.groups[before])
            yield day, past

    def rows(self, first: pd.Timestamp, last: pd.Timestamp) -> slice:
        low, high = self.booked_on.searchsorted([first, last + pd.Timedelta(days=1)])
        return slice(int(low), int(high))

    def failed(self, day: pd.Timestamp, past: Past, broken: Break | None = None, since: int = 1) -> bool:
        """Whether a day fails its checks, broken as given for so many days up to it."""
        run, own = self.rows(day - RUN, day), self.rows(day - pd.Timedelta(days=since - 1), day)
        features = self.features.iloc[run]
        if broken is not None:
            features = pd.concat([self.features.iloc[run.start : own.start], broken(self.features.iloc[own])])
        return bool(check(features, self.booked_on.iloc[run], self.groups[run], past, POLICY))


@dataclass(frozen=True)
class Judged:
    """What a stream's days showed: days and false alarms among them, breaks seen on their day, and after how many.

    `seen` by break and share of the day's bookings that it hit.
    """

    days: int
    false: int
    seen: Mapping[tuple[str, float], list[bool]] = field(default_factory=dict)
    delays: Mapping[str, list[int]] = field(default_factory=dict)


def days(world: World, options: Options, pool: Executor) -> Iterator[Figure]:
    """Checks of the days of the real file and of simulated markets, and Evidently's flag on some real ones."""
    real_days = pd.date_range(*REAL)
    real = Stream(
        "real", world.built, world.history["booked_on"], group_keys(world.history),
        real_days[-60:] if options.quick else real_days, EVERY,
    )  # fmt: skip
    # The false alarms of a real year are what is scarce: each of its days is judged, half a year by a process.
    parts = [replace(real, days=part) for part in np.array_split(real.days, 1 if options.quick else 2)]
    flagged = pool.submit(_evidently, real, options)
    on_real = [pool.submit(judged, part) for part in parts]
    on_simulated = [
        pool.submit(_on_simulated, seed, options.quick)
        for seed in range(options.seed, options.seed + (1 if options.quick else SIMULATED_MARKETS))
    ]
    yield from _figures("real", [found.result() for found in on_real])
    yield from _figures("simulated", [found.result() for found in on_simulated])
    yield from flagged.result()


def _on_simulated(seed: int, quick: bool) -> Judged:
    table = simulate(SIMULATED, SIMULATED_DAYS, seed).sort_values("booked_on", kind="stable", ignore_index=True)
    last = pd.Timestamp(SIMULATED) + pd.Timedelta(days=SIMULATED_DAYS - 1)
    days = pd.date_range(last - pd.Timedelta(days=59 if quick else 364), last)
    features = build(table, past_of(table), LabelRule())
    return judged(Stream(f"simulated {seed}", features, table["booked_on"], group_keys(table), days, EVERY))


def judged(stream: Stream) -> Judged:
    """Each day as it was, and every so many with each break."""
    false = 0
    seen: dict[tuple[str, float], list[bool]] = {}
    delays: dict[str, list[int]] = {name: [] for name in IN_TIME}
    for number, (day, past) in enumerate(stream.learned()):
        false += stream.failed(day, past)
        if number % stream.every == 0:
            for name, broken in {**AT_ONCE, **IN_TIME}.items():
                # Of one value for all there is no half; a whole break is what the reach is about.
                parts = STRENGTHS if name in AT_ONCE and number % (2 * stream.every) == 0 else STRENGTHS[-1:]
                for hit in parts:
                    planted = partial(_partly, broken, hit, number)
                    seen.setdefault((name, hit), []).append(stream.failed(day, past, planted))
        if number % 21 == 0:
            for name, broken in IN_TIME.items():
                within = (n for n in range(1, RUN.days + 1) if stream.failed(day, past, broken, since=n))
                delays[name].append(next(within, RUN.days + 1))
    return Judged(len(stream.days), false, seen, delays)


def _partly(broken: Break, hit: float, seed: int, features: pd.DataFrame) -> pd.DataFrame:
    """The break in a share of the bookings."""
    changed = broken(features)
    if hit == 1:
        return changed
    spared = np.random.default_rng(seed).random(len(features)) >= hit
    return changed.mask(pd.Series(spared, index=features.index), features)


def _figures(kind: str, found: Sequence[Judged]) -> Iterator[Figure]:
    false, days = sum(one.false for one in found), sum(one.days for one in found)
    rate, low, high = (value * 365 / days for value in (false, *poisson(false)))
    yield Figure(f"{kind}: false alarms", rate, low, high, "a year", f"<= {REACH_FALSE:g}", high <= REACH_FALSE)
    for name, hit in found[0].seen:
        told = share([day for one in found for day in one.seen[name, hit]])
        if name not in AT_ONCE:
            yield Figure(f"{kind}: {name}", *told, "of days, same day")
        elif hit < 1:
            yield Figure(f"{kind}: {name}, {hit:.0%} of bookings", *told, "of days, same day")
        else:
            reach = f">= {REACH_SEEN:g}"
            yield Figure(f"{kind}: {name}", *told, "of days, same day", reach, told[1] >= REACH_SEEN)
    for name in IN_TIME:
        delays = [days for one in found for days in one.delays[name]]
        ten, half, ninety = np.quantile(delays, (0.1, 0.5, 0.9), method="inverted_cdf")
        told_in = f"days; {RUN.days + 1} is later" if ninety > RUN.days else "days"
        yield Figure(f"{kind}: {name}, seen after", float(half), float(ten), float(ninety), told_in)


def _evidently(stream: Stream, options: Options) -> list[Figure]:
    chosen = stream.days[:: max(1, len(stream.days) // (2 if options.quick else EVIDENTLY_DAYS))]
    changes: dict[str, Break] = {"an ordinary day": lambda f: f}
    changes |= {name: AT_ONCE[name] for name in ("price in cents", "lead time zeroed", "records of agents emptied")}
    told = []
    for name, change in changes.items():
        fired = []
        for day in chosen:
            before = stream.features.iloc[
                stream.rows(day - pd.Timedelta(days=EVIDENTLY_REFERENCE), day - pd.Timedelta(days=1))
            ]
            found = dataset_share(before, change(stream.features.iloc[stream.rows(day, day)]), len(before))
            fired.append(found is not None and found >= 0.5)
        told.append(Figure(f"real: Evidently's flag, {name}", *share(fired), f"of {len(chosen)} days"))
    return told
