"""How often the monitor is wrong: false alarms where nothing changed, and what it sees of planted changes, how late.

Days: checks of a day's bookings, on real and simulated ones, with planted breaks of the feed. Windows: the weekly
looks at a champion, each signal and the decision, on markets that go on as they were, on real bookings in their order
and on each other's days, and on simulated markets with a planted change; by the documented thresholds, and by those
that each market's own past teaches. Beside them Evidently's dataset-drift flag and a CBPE alarm on the same windows.
Speed: all signals of a look beside Evidently's preset alone.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.days import days
from benchmarks.figures import Figure, Options, Outcome, run
from benchmarks.looks import (
    ANY,
    CBPE,
    CHANGES,
    DECISION,
    FEEDS,
    FLAG,
    LOOKS_AFTER,
    RULE,
    Course,
    calibrated,
    looks_at,
    looks_of,
    market_of,
    shuffled,
)
from benchmarks.monitor_speed import speed
from benchmarks.rates import poisson, share
from cancellations import settings
from cancellations.bootstrap import locate
from cancellations.errors import BadInput
from cancellations.replay.workers import workers
from cancellations.replay.world import World, build_world
from cancellations.usecases.walk_forward import Market

LONGEST_LEAD = 180
# Champions of the real file, each looked at once a week; and of simulated markets.
FIRST_CHAMPION, LAST_CHAMPION, LOOKS = "2016-01-04", "2016-10-10", 16
# Of the file thresholds are learned until a day, and judged on champions trained from it on.
LEARNED_UNTIL = date(2016, 6, 6)
SHUFFLED = 4
# Simulated markets; the weaker strengths of a change are planted into the first ones of them alone.
MARKETS, WEAKER = 8, 2
# Thresholds are learned from the past of so many of them, and of the shuffled file's: that costs more than all looks.
LEARNING, LEARNING_SHUFFLED = 3, 2
WORKERS = 2
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
REACH_STRONG = 0.9
WEEKS_A_MONTH = 365.25 / 12 / 7


def measure(options: Options) -> Outcome:
    own = settings.load(max_lead_days=LONGEST_LEAD)
    found = locate(options.data, own, lambda text: None)
    if found.first > date(2015, 10, 5):
        raise BadInput("the days are those of the public hotel file, which is not there; name it by --data")
    with tempfile.TemporaryDirectory() as folder:
        world = build_world(found.locator, own, Path(folder), say=lambda text: None)
    # Alone on the machine, before anything else is.
    figures = list(speed(options.seed, quick=options.quick))
    # A process for each processor: threads of one would wait for those of another, several times as long.
    with workers(WORKERS, threadpool_limits, 1) as pool:
        started = _start(world, options, pool)
        figures += days(world, options, pool)
        figures += _windows(options, *started)
    return Outcome(
        tuple(figures),
        "Evidently's dataset-drift flag, DataDriftPreset, and a CBPE alarm",
        f"{found.locator.rsplit('/', 1)[-1]}; windows: {len(_starts(options))} champions of the file as it is,"
        f" {len(_seeds(options, SHUFFLED))} of its bookings on each other's days, {len(_seeds(options, MARKETS))}"
        f" simulated markets with each change, weaker ones in {WEAKER} of them",
        repetitions=1,
        intervals="95 %: exact Poisson for rates, Wilson for shares; delays: median, 10th to 90th percentile",
    )


def _starts(options: Options) -> list[date]:
    """Days on which champions of the real file are trained, four weeks apart."""
    found = pd.date_range(FIRST_CHAMPION, LAST_CHAMPION, freq="28D")
    return [day.date() for day in found[: 1 if options.quick else None]]


def _seeds(options: Options, count: int) -> range:
    return range(options.seed, options.seed + (1 if options.quick else count))


def _planted(options: Options) -> list[tuple[str, float]]:
    chosen = list(CHANGES)[3:4] if options.quick else list(CHANGES)
    return [(kind, strength) for kind in chosen for strength in CHANGES[kind][2 if options.quick else 0 :]]


Started = tuple[list[Future[list[Course]]], list[Future[list[Course]]], list[Future[list[Course]]]]


def _start(world: World, options: Options, pool: Executor) -> Started:
    """The longest first: what is left at the end should be short, or one processor waits for the other."""
    market = Market(world.history, world.built, RULE)
    # What thresholds are learned from is walked through once, for all that are judged by them.
    earlier, later = (
        [day for day in _starts(options) if (day >= LEARNED_UNTIL) == learned] for learned in (False, True)
    )
    real = [pool.submit(_as_it_was, market, part, options.seed) for part in (later, earlier) if part]
    planted = _planted(options)
    strongest = [(kind, strength) for kind, strength in planted if strength == CHANGES[kind][-1]]
    simulated = [
        pool.submit(looks_of, seed, planted if number < WEAKER else strongest, learning=number < LEARNING)
        for number, seed in enumerate(_seeds(options, MARKETS))
    ]
    mixed = [
        pool.submit(_mixed, world.history, seed, learning=number < LEARNING_SHUFFLED)
        for number, seed in enumerate(_seeds(options, SHUFFLED))
    ]
    return simulated, real, mixed


def _as_it_was(real: Market, starts: Sequence[date], seed: int) -> list[Course]:
    """Champions of the file; those trained later are judged by thresholds that were learned before, too."""
    learned = calibrated(real, LEARNED_UNTIL, seed) if any(day >= LEARNED_UNTIL for day in starts) else None
    return [
        looks_at(f"real {day}", real, day, LOOKS, seed, learned if day >= LEARNED_UNTIL else None) for day in starts
    ]


def _mixed(history: pd.DataFrame, seed: int, *, learning: bool) -> list[Course]:
    market = market_of(shuffled(history, seed))
    learned = calibrated(market, LEARNED_UNTIL, seed) if learning else None
    return [looks_at(f"shuffled {seed}", market, LEARNED_UNTIL, LOOKS, seed, learned)]


def _windows(
    options: Options,
    simulated: list[Future[list[Course]]],
    real: list[Future[list[Course]]],
    mixed: list[Future[list[Course]]],
) -> Iterator[Figure]:
    on_real, on_mixed, found = (
        [course for one in part for course in one.result()] for part in (real, mixed, simulated)
    )
    yield from _false("real", on_real)
    yield from _false("shuffled", on_mixed)
    yield from _false("simulated", [course for course in found if course.change is None])
    # What is seen of a change is worth as much as it is more than what is seen of none, in the same weeks.
    for kind, strength in [(None, 1.0), *_planted(options)]:
        own = [course for course in found if (course.change, course.strength) == (kind, strength)]
        change = "no change" if kind is None else f"{kind} x {strength:g}"
        for learned in (False, True):
            judged = _judged(own, learned=learned)
            if not judged:
                continue
            for signal in (DECISION, ANY, *WATCHED, *(() if learned else (CBPE,))):
                yield from _seen(f"{change}: {_named(signal, learned=learned)}", judged, signal, learned=learned)
        flagged = [course.flagged for course in own if course.flagged is not None]
        if flagged:
            yield Figure(f"{change}: {FLAG}", *share(flagged), "of windows")
    yield from _strong(found)


def _strong(found: Sequence[Course]) -> Iterator[Figure]:
    """The strongest change of each kind that guests may bring about, together: what is seen of them in four weeks."""
    own = [c for c in found if c.change is not None and c.change not in FEEDS and c.strength == CHANGES[c.change][-1]]
    for learned in (False, True):
        judged = _judged(own, learned=learned)
        for signal in (DECISION, ANY) if judged else ():
            days = [course.first(signal, learned=learned) for course in judged]
            seen = share([day is not None and day <= 28 for day in days])
            name = f"all strong changes: {_named(signal, learned=learned)}, within four weeks"
            yield Figure(name, *seen, "of markets and changes", f">= {REACH_STRONG:g}", seen[1] >= REACH_STRONG)


def _judged(own: Sequence[Course], *, learned: bool) -> list[Course]:
    """Those that can be judged so: by learned thresholds where there are some."""
    return [course for course in own if course.learned is not None] if learned else list(own)


def _named(signal: str, *, learned: bool) -> str:
    return f"{signal}, learned threshold" if learned else signal


def _seen(name: str, own: Sequence[Course], signal: str, *, learned: bool) -> Iterator[Figure]:
    seen = [course.first(signal, learned=learned) for course in own]
    yield Figure(name, *share([day is not None for day in seen]), "of markets")
    yield Figure(f"{name}, within four weeks", *share([day is not None and day <= 28 for day in seen]), "of markets")
    if sum(day is not None for day in seen) > len(seen) / 2:
        after = [math.inf if day is None else day for day in seen]
        ten, half, ninety = np.quantile(after, (0.1, 0.5, 0.9), method="inverted_cdf")
        told = "days" if np.isfinite(ninety) else f"days; inf is after {LOOKS_AFTER * 7}"
        yield Figure(f"{name}, seen after", half, ten, ninety, told)


def _false(kind: str, found: Sequence[Course]) -> Iterator[Figure]:
    """Alarms where nothing was planted, by the month: how often one begins, of the decision until its first."""
    for learned in (False, True):
        own = _judged(found, learned=learned)
        if not own:
            continue
        for signal in (DECISION, ANY, *WATCHED, *(() if learned else (CBPE,))):
            name = f"{kind}: {_named(signal, learned=learned)}, nothing planted, {len(own)} champions"
            yield _monthly(name, signal, [course.told(signal, learned=learned) for course in own])
            if learned and len(own) < len(found):
                # The same champions by the documented thresholds: a fair comparison.
                name = f"{kind}: {signal}, nothing planted, the same {len(own)} champions"
                yield _monthly(name, signal, [course.told(signal) for course in own])
    flagged = [course.flagged for course in found if course.flagged is not None]
    yield Figure(f"{kind}: {FLAG}, nothing planted", *share(flagged), "of windows")


def _monthly(name: str, signal: str, courses: Sequence[list[bool]]) -> Figure:
    begun, weeks = 0, 0
    for course in courses:
        # What follows a decision depends on it.
        told = course[: course.index(True) + 1] if signal == DECISION and True in course else course
        begun += sum(now and not before for before, now in pairwise([False, *told]))
        weeks += len(told)
    rate, low, high = (value * WEEKS_A_MONTH / weeks for value in (begun, *poisson(begun)))
    return Figure(name, rate, low, high, "a month")


if __name__ == "__main__":
    sys.exit(run("monitor", __doc__.partition("\n")[0], measure))
