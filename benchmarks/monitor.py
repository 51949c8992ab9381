"""How often the monitor is wrong: false alarms where nothing changed, and what it sees of planted changes, how late.

Days: checks of a day's bookings, learned from the year before and anew each month, on real and simulated bookings,
with planted breaks of the feed. Windows: the weekly looks at a champion, each signal and the decision, on markets
that go on as they were, on real bookings in their order and on each other's days, and on simulated markets with a
planted drift. Beside them Evidently's dataset-drift flag, by its own methods, on some of the same days and windows.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2

from benchmarks.figures import Figure, Options, Outcome, run
from benchmarks.looks import DECISION, DRIFTS, FLAG, LOOKS_AFTER, RULE, Course, courses, looks_at, market_of, shuffled
from cancellations import settings
from cancellations.bootstrap import locate
from cancellations.domain.checks import CheckPolicy, Past, check, learn
from cancellations.domain.features import build, past_of
from cancellations.domain.labels import LabelRule
from cancellations.domain.reservation import group_keys
from cancellations.errors import BadInput
from cancellations.replay.world import World, build_world
from cancellations.sources.simulator import simulate
from cancellations.usecases.walk_forward import Market
from monitoring.drift import dataset_share

POLICY = CheckPolicy()
LONGEST_LEAD = 180
RUN = pd.Timedelta(days=27)
# A year to learn from before the first day that is judged.
REAL = ("2016-01-04", "2017-02-26")
SIMULATED, SIMULATED_DAYS = date(2015, 1, 5), 730
EVERY = 3
EVIDENTLY_DAYS = 20
EVIDENTLY_REFERENCE = 91
REACH_SEEN, REACH_FALSE = 0.99, 1.0
# Champions of the real file, each looked at once a week; and of simulated markets.
FIRST_CHAMPION, LAST_CHAMPION, LOOKS = "2016-01-04", "2016-10-10", 16
SHUFFLED, SHUFFLED_CHAMPION = 6, date(2016, 6, 6)
MARKETS = 8
WATCHED = (
    "column drift",
    "domain classifier",
    "matured excess loss",
    "calibration bias",
    "in-flight cancellations",
    "prediction drift",
    "estimated loss",
    "volume",
)
WEEKS_A_MONTH = 365.25 / 12 / 7

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


def measure(options: Options) -> Outcome:
    own = settings.load(max_lead_days=LONGEST_LEAD)
    found = locate(options.data, own, lambda text: None)
    if found.first > date(2015, 10, 5):
        raise BadInput("the days are those of the public hotel file, which is not there; name it by --data")
    with tempfile.TemporaryDirectory() as folder:
        world = build_world(found.locator, own, Path(folder), say=lambda text: None)
    real_days = pd.date_range(*REAL)
    real = Stream(
        "real", world.built, world.history["booked_on"], group_keys(world.history),
        real_days[-60:] if options.quick else real_days, EVERY if options.quick else 1,
    )  # fmt: skip
    seeds = range(options.seed, options.seed + (1 if options.quick else 4))
    simulated = [_simulated(seed, quick=options.quick) for seed in seeds]
    figures = [*_figures("real", [real]), *_figures("simulated", simulated), *_evidently(real, options)]
    figures += _windows(world, options)
    return Outcome(
        tuple(figures),
        f"Evidently's dataset-drift flag against the {EVIDENTLY_REFERENCE} days before",
        f"{found.locator.rsplit('/', 1)[-1]}, {len(real.days)} days; {len(simulated)} simulated markets of"
        f" {len(simulated[0].days)} days; windows: {len(_starts(options))} champions of the file as it is,"
        f" {len(_seeds(options, SHUFFLED))} of its bookings on each other's days, {len(_seeds(options, MARKETS))}"
        " simulated markets with each drift",
        repetitions=1,
        intervals="95 %: exact Poisson for rates, Wilson for shares; delays: median, 10th to 90th percentile",
    )


def _simulated(seed: int, *, quick: bool) -> Stream:
    table = simulate(SIMULATED, SIMULATED_DAYS, seed).sort_values("booked_on", kind="stable", ignore_index=True)
    last = pd.Timestamp(SIMULATED) + pd.Timedelta(days=SIMULATED_DAYS - 1)
    days = pd.date_range(last - pd.Timedelta(days=59 if quick else 364), last)
    features = build(table, past_of(table), LabelRule())
    return Stream(f"simulated {seed}", features, table["booked_on"], group_keys(table), days, EVERY)


def _figures(kind: str, streams: list[Stream]) -> Iterator[Figure]:
    false, days = 0, 0
    seen: dict[str, list[bool]] = {name: [] for name in (*AT_ONCE, *IN_TIME)}
    delays: dict[str, list[int]] = {name: [] for name in IN_TIME}
    for stream in streams:
        for number, (day, past) in enumerate(stream.learned()):
            days += 1
            false += stream.failed(day, past)
            if number % stream.every == 0:
                for name, broken in {**AT_ONCE, **IN_TIME}.items():
                    seen[name].append(stream.failed(day, past, broken))
            if number % 21 == 0:
                for name, broken in IN_TIME.items():
                    within = (n for n in range(1, RUN.days + 1) if stream.failed(day, past, broken, since=n))
                    delays[name].append(next(within, RUN.days + 1))
    rate, low, high = (value * 365 / days for value in (false, *_poisson(false)))
    yield Figure(f"{kind}: false alarms", rate, low, high, "a year", f"<= {REACH_FALSE:g}", high <= REACH_FALSE)
    for name in AT_ONCE:
        share = _share(seen[name])
        yield Figure(f"{kind}: {name}", *share, "of days, same day", f">= {REACH_SEEN:g}", share[1] >= REACH_SEEN)
    for name in IN_TIME:
        yield Figure(f"{kind}: {name}", *_share(seen[name]), "of days, same day")
        ten, half, ninety = np.quantile(delays[name], (0.1, 0.5, 0.9), method="inverted_cdf")
        told = f"days; {RUN.days + 1} is later" if ninety > RUN.days else "days"
        yield Figure(f"{kind}: {name}, seen after", float(half), float(ten), float(ninety), told)


def _evidently(stream: Stream, options: Options) -> Iterator[Figure]:
    chosen = stream.days[:: max(1, len(stream.days) // (2 if options.quick else EVIDENTLY_DAYS))]
    changes: dict[str, Break] = {"an ordinary day": lambda f: f}
    changes |= {name: AT_ONCE[name] for name in ("price in cents", "lead time zeroed", "records of agents emptied")}
    for name, change in changes.items():
        fired = []
        for day in chosen:
            before = stream.features.iloc[
                stream.rows(day - pd.Timedelta(days=EVIDENTLY_REFERENCE), day - pd.Timedelta(days=1))
            ]
            share = dataset_share(before, change(stream.features.iloc[stream.rows(day, day)]), len(before))
            fired.append(share is not None and share >= 0.5)
        yield Figure(f"real: Evidently's flag, {name}", *_share(fired), f"of {len(chosen)} days")


def _starts(options: Options) -> list[date]:
    """Days on which champions of the real file are trained, four weeks apart."""
    days = pd.date_range(FIRST_CHAMPION, LAST_CHAMPION, freq="28D")
    return [day.date() for day in days[: 1 if options.quick else None]]


def _seeds(options: Options, count: int) -> range:
    return range(options.seed, options.seed + (1 if options.quick else count))


def _windows(world: World, options: Options) -> Iterator[Figure]:
    real = Market(world.history, world.built, RULE)
    as_it_was = [looks_at(f"real {day}", real, day, LOOKS, options.seed) for day in _starts(options)]
    yield from _false("real", as_it_was)
    of_no_day = []
    for seed in _seeds(options, SHUFFLED):
        mixed = market_of(shuffled(world.history, seed))
        of_no_day.append(looks_at(f"shuffled {seed}", mixed, SHUFFLED_CHAMPION, LOOKS, seed))
    yield from _false("shuffled", of_no_day)
    chosen = list(DRIFTS)[:2] if options.quick else list(DRIFTS)
    strengths = slice(2, 3) if options.quick else slice(0, 3)
    planted = [(kind, strength) for kind in chosen for strength in tuple(DRIFTS[kind])[strengths]]
    found = list(courses(_seeds(options, MARKETS), planted, workers=1 if options.quick else 2))
    yield from _false("simulated", [course for course in found if course.kind is None])
    # What is seen of a change is worth as much as it is more than what is seen of none, in the same weeks.
    for kind, strength in [(None, 1.0), *planted]:
        own = [course for course in found if (course.kind, course.strength) == (kind, strength)]
        change = "no change" if kind is None else f"{kind} x {strength:g}"
        for signal in (DECISION, *WATCHED):
            seen = [course.first(signal) for course in own]
            yield Figure(f"{change}: {signal}", *_share([day is not None for day in seen]), "of markets")
            in_time = [day for day in seen if day is not None]
            if len(in_time) > len(seen) / 2:
                days = [math.inf if day is None else day for day in seen]
                ten, half, ninety = np.quantile(days, (0.1, 0.5, 0.9), method="inverted_cdf")
                told = "days" if np.isfinite(ninety) else f"days; inf is after {LOOKS_AFTER * 7}"
                yield Figure(f"{change}: {signal}, seen after", half, ten, ninety, told)
        flagged = [course.flagged for course in own if course.flagged is not None]
        if flagged:
            yield Figure(f"{change}: {FLAG}", *_share(flagged), "of windows")


def _false(kind: str, found: list[Course]) -> Iterator[Figure]:
    """Alarms where nothing was planted, by the month: how often one begins, of the decision until its first."""
    for signal in (DECISION, *WATCHED):
        begun, weeks = 0, 0
        for course in found:
            told = course.told(signal)
            if signal == DECISION:
                # What follows a decision depends on it.
                told = told[: told.index(True) + 1] if True in told else told
            begun += sum(now and not before for before, now in pairwise([False, *told]))
            weeks += len(told)
        rate, low, high = (value * WEEKS_A_MONTH / weeks for value in (begun, *_poisson(begun)))
        yield Figure(f"{kind}: {signal}, nothing planted", rate, low, high, "a month")
    flagged = [course.flagged for course in found if course.flagged is not None]
    yield Figure(f"{kind}: {FLAG}, nothing planted", *_share(flagged), "of windows")


def _poisson(count: int) -> tuple[float, float]:
    """Exact 95 % bounds of what is expected, where so many were counted."""
    return (float(chi2.ppf(0.025, 2 * count) / 2) if count else 0.0), float(chi2.ppf(0.975, 2 * count + 2) / 2)


def _share(hits: list[bool]) -> tuple[float, float, float]:
    """A share with Wilson's interval."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, max(0.0, middle - half), min(1.0, middle + half)


if __name__ == "__main__":
    sys.exit(run("monitor", __doc__.partition("\n")[0], measure))
