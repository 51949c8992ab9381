"""How often champions change wrongly, how late rightly, and what undoes a mistake: trials, probations, guards.

Equals: trials in simulated markets with booking groups and shocks, gains centred with the true probabilities; and
trials of the real file, each day's sum with a sign of its own. Better: fresh versions against champions of 26, 8 and 4
weeks on the real file. Worse: versions trained on wrong labels, on the real file and on simulated endings. On the same
streams what other rules promote: z-tests looked at daily, tests on single bookings, a new metric above the old one.

A reach is of a count or a median, as it stands in the table: 80 of 2,000 is 5 % less what chance may add.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.faults import SERVING_FAULTS, TRAINING_FAULTS, Version, probabilities
from benchmarks.figures import Figure, Options, Outcome, Table, interval, run
from benchmarks.mistakes import HEADINGS, HEALTHY_DAYS, MISTAKES, SOUND, WITHIN, Group, Means, Seen, Takeovers, Where
from benchmarks.rates import share
from benchmarks.real_trials import Real
from benchmarks.simulated_trials import AGES, DAYS, LONGEST_LEAD, ByRule, World, of_world
from benchmarks.trials import OURS, POLICY, RULES, Scored, ours, weekly
from cancellations import settings
from cancellations.bootstrap import locate
from cancellations.domain.guards import FIGURES, Guard
from cancellations.domain.promotion import TrialState
from cancellations.domain.retraining import RetrainPolicy
from cancellations.errors import BadInput
from cancellations.replay.workers import workers
from cancellations.replay.world import build_world
from cancellations.usecases.walk_forward import Market

# Bookings of the real file whose leads no edge of it cuts short; a trial opens each week from half a year later on,
# and the last one has its 56 days.
BOOKED_FROM, BOOKED_UNTIL = date(2015, 10, 5), date(2017, 2, 26)
STARTS = weekly(date(2016, 7, 4), date(2016, 12, 26))
WORKERS = 2
WORLDS, EQUALS, EQUALS_QUICK, WORSE = 5, 2_000, 40, 400
# In each world: pairs of versions that are tried as equals, and drawings of each pair of which one is worse.
PAIRS, REDRAWN = 4, 8
REACH_EQUALS, REACH_WORSE = 80, 11
REACH_DAYS: Mapping[int, float] = {26: 15, 8: 18, 4: 25}
REACH_SHARE: Mapping[int, float] = {26: 0.95, 8: 0.95, 4: 0.75}
REACH_HEALTHY, REACH_ROLLED_BACK, REACH_SEEN, REACH_ROWS = 0.05, 0.8, 0.95, 300
# A promotion that a trial decides comes so many days after the training, in the median.
AFTER_TRIAL_DAYS = 16
WON, PAST_IT = "after its trial", "past a trial"
TITLE = (
    "Takeovers by force, by what saw each of those asked first. Asked are those that are worse on all that matured"
    " later, where the fault is as old as the version, and all of them where it comes with the takeover."
)
# What guards go by was chosen on promotions before that day: their figures are of later ones.
GUARDS_SET_UNTIL = date(2016, 8, 15)
# Retrains come 4 weeks apart at least and 13 at most: the middle is what reaches are held against.
MIDDLE_AGE = 8
# As many trials as the retrain budget lets begin in a year.
TRIALS_A_YEAR = RetrainPolicy().budget


def measure(options: Options) -> Outcome:
    own = settings.load(max_lead_days=LONGEST_LEAD, booked_from=BOOKED_FROM, booked_until=BOOKED_UNTIL)
    found = locate(options.data, own, lambda text: None)
    if found.first > BOOKED_FROM:
        raise BadInput("the days are those of the public hotel file, which is not there; name it by --data")
    with tempfile.TemporaryDirectory() as folder:
        world = build_world(found.locator, own, Path(folder), say=lambda text: None)
    market = Market(world.history, world.built, world.rule)
    starts = STARTS[::13] if options.quick else STARTS
    seeds = range(options.seed, options.seed + (1 if options.quick else WORLDS))
    equals = EQUALS_QUICK if options.quick else EQUALS
    # A process for each processor: threads of one would wait for those of another, several times as long.
    with workers(WORKERS, threadpool_limits, 1) as pool:
        made = _probabilities(market, starts, options.seed, pool)
        drawn = [pool.submit(of_world, seed, equals // len(seeds) // PAIRS, REDRAWN) for seed in seeds]
        scored = Scored.of(market, {version: p for part in made for version, p in part.result().items()})
        real = Real(market, scored, starts, BOOKED_UNTIL)
        figures = [*_equals(real, equals, options.seed), *_better(real), *_worse(real)]
        takeovers = Takeovers(real)
        bad, healthy = _mistakes(takeovers, starts), _healthy(real, takeovers)
        figures += [*_undone(bad), *_false_holds(healthy)]
        figures += _simulated([one.result() for one in drawn])
    return Outcome(
        tuple(figures),
        ", ".join(name for name in RULES if name != OURS),
        f"{found.locator.rsplit('/', 1)[-1]}, {len(market.history):,} bookings made {BOOKED_FROM} to {BOOKED_UNTIL} at"
        f" most {LONGEST_LEAD} days ahead, {len(starts)} trials opened {starts[0]} to {starts[-1]} against champions of"
        f" each age; {len(seeds)} simulated markets",
        repetitions=1,
        intervals="95 %: Wilson for counts and shares; days: median with a bootstrap of it. Trials of the file overlap,"
        " so that their intervals are too narrow",
        tables=(Table(TITLE, HEADINGS, tuple(kind.row() for kind in (*bad, *healthy))),),
    )


def _probabilities(
    market: Market, starts: Sequence[date], seed: int, pool: Executor
) -> list[Future[dict[Version, np.ndarray]]]:
    """What all versions say that are compared on the real file; those of one day's training in one part."""
    sound = {Version(start - timedelta(weeks=age)) for start in starts for age in (0, *AGES)}
    faulty = {Version(start, fault) for start in starts for fault in TRAINING_FAULTS}
    # A broken feed reaches the champion before, too.
    broken = {start - timedelta(weeks=age) for start in starts for age in (0, MIDDLE_AGE)}
    faulty |= {Version(day, fault) for day in broken for fault in SERVING_FAULTS}
    days = sorted({version.trained for version in sound | faulty})
    parts = [days[n :: 2 * WORKERS] for n in range(2 * WORKERS)]
    return [pool.submit(probabilities, market, [v for v in sound | faulty if v.trained in p], seed) for p in parts]


def _equals(real: Real, count: int, seed: int) -> Iterator[Figure]:
    day, lasting = real.shocks()
    yield Figure("real: what bookings of an arrival day share, spread on the log odds", day, day, day, "")
    yield Figure("real: what lasts beyond that day", lasting, lasting, lasting, "")
    for days, name in ((1, "by day"), (7, "by week")):
        yield from _false(f"equal, real, signs flipped {name}", real.equals(count, days, seed), reached=days == 1)


def _false(kind: str, told: ByRule, *, reached: bool) -> Iterator[Figure]:
    """Promotions where neither version is better, by rule; ours has to reach its goal."""
    for rule, days in told.items():
        reach = REACH_EQUALS * len(days) // EQUALS if rule == OURS and reached else None
        yield _count(f"{kind}: {rule}", days, reach)
    rate = share([day is not None for day in told[OURS]])
    yield Figure(f"{kind}: {OURS}, {TRIALS_A_YEAR} trials a year", *_times(TRIALS_A_YEAR, rate), "a year")


def _better(real: Real) -> Iterator[Figure]:
    later = POLICY.max_days + 1
    for age in AGES:
        for rule, days in real.better(age).items():
            name = f"better, champion of {age} weeks: {rule}"
            until = [later if day is None else day for day in days]
            median, reach = float(np.median(until)), REACH_DAYS[age]
            told = (f"<= {reach:g}", median <= reach) if rule == OURS else (None, None)
            yield Figure(f"{name}, days", median, *interval(until), f"days; {later} is later", *told)
            found = share([day is not None for day in days])
            told = (f">= {REACH_SHARE[age]:g}", found[0] >= REACH_SHARE[age]) if rule == OURS else (None, None)
            yield Figure(f"{name}, promoted", *found, f"of {len(days)} trials", *told)


def _worse(real: Real) -> Iterator[Figure]:
    for fault in TRAINING_FAULTS:
        for rule, days in real.worse(fault).items():
            if days:
                yield _count(f"worse, real, {fault}: {rule}", days)


def _mistakes(takeovers: Takeovers, starts: Sequence[date]) -> list[Group]:
    """Faulty versions that take over by force, from a champion of each age where the fault is as old as the version."""
    later = [start for start in starts if start >= GUARDS_SET_UNTIL]
    kinds = []
    for mistake in MISTAKES:
        lasting = mistake.where in (Where.TRAINING, Where.SCORING)
        for age in AGES if lasting else (MIDDLE_AGE,):
            for delay in (0,) if lasting else (0, AFTER_TRIAL_DAYS):
                found = [
                    takeovers.after(start, age, mistake, start + timedelta(days=delay))
                    for start in (starts if lasting else later)
                ]
                # What breaks after the takeover is to be seen by those who look, worse or not.
                asked = [one for one in found if one.worse] if lasting else found
                before = f"{age} weeks" + (f", {delay} days after training" if delay else "")
                kinds.append(Group(str(mistake.fault), mistake.where, before, found, asked))
    return kinds


def _undone(kinds: Sequence[Group]) -> Iterator[Figure]:
    """Whether mistakes are seen, and when."""
    for kind in kinds:
        yield Figure(
            f"{kind.name}: worse", *share([one.worse for one in kind.found]), f"of {len(kind.found)} takeovers"
        )
        if kind.asked:
            yield from _seen(kind)
    for fault in TRAINING_FAULTS:
        worse = [one for kind in kinds if (kind.fault, kind.where) == (fault, Where.TRAINING) for one in kind.asked]
        if worse:
            name = f"{fault}, {Where.TRAINING}, any champion before it: rolled back in {WITHIN} days"
            told = share([_within_time(one.first) for one in worse])
            reach = f">= {REACH_ROLLED_BACK:g}"
            yield Figure(name, *told, f"of {len(worse)} worse", reach, told[0] >= REACH_ROLLED_BACK)


def _seen(kind: Group) -> Iterator[Figure]:
    unit = f"of {len(kind.asked)} asked"
    first = [one.first for one in kind.asked]
    soon = share([_within_time(one) for one in first])
    yield Figure(f"{kind.name}: held or rolled back in {WITHIN} days", *soon, unit)
    later = POLICY.probation_days + 1
    until = [later if one is None else one.days for one in first]
    yield Figure(f"{kind.name}: seen after", np.median(until), *interval(until), f"days; {later} is never")
    for guard in Guard:
        yield Figure(f"{kind.name}: {guard} fires", *share([guard in (one.fired or ()) for one in kind.asked]), unit)
    of_pair = share([not FIGURES.keys().isdisjoint(one.fired or ()) for one in kind.asked])
    yield Figure(f"{kind.name}: any guard of the pair fires", *of_pair, unit)
    if kind.where in (Where.TAKEOVER, Where.FEED):
        # By the checks or by a guard, and not by what matures.
        early = [None if one is None or one.means is Means.PROBATION else one.rows for one in first]
        told = share([rows is not None for rows in early])
        yield Figure(f"{kind.name}: seen before outcomes", *told, unit, f">= {REACH_SEEN:g}", told[0] >= REACH_SEEN)
        rows = [one for one in early if one is not None]
        if rows:
            reach = (f"<= {REACH_ROWS}", bool(np.median(rows) <= REACH_ROWS))
            yield Figure(f"{kind.name}: rows until then", np.median(rows), min(rows), max(rows), "min to max", *reach)


def _within_time(seen: Seen | None) -> bool:
    return seen is not None and seen.days <= WITHIN


def _healthy(real: Real, takeovers: Takeovers) -> list[Group]:
    """Sound versions: from the day on which they won their trial, and promoted past it on the day of their training."""
    pairs = [(start, age) for age in AGES for start in real.starts]
    won = [
        (start, age, start + timedelta(days=days)) for start, age in pairs if (days := ours(real.stream(start, age)))
    ]
    after_trial = [one for one in won if one[-1] >= GUARDS_SET_UNTIL]
    past_it = [(start, age, start) for start, age in pairs if start >= GUARDS_SET_UNTIL]
    kinds = []
    for where, promoted in ((WON, after_trial), (PAST_IT, past_it)):
        found = [takeovers.after(start, age, SOUND, on) for start, age, on in promoted]
        kinds.append(Group("none: healthy", where, "4, 8 and 26 weeks", found, found))
    return kinds


def _false_holds(kinds: Sequence[Group]) -> Iterator[Figure]:
    """How often each of them is wrong about a healthy promotion, and all together."""
    for kind in kinds:
        name, unit = f"healthy, {kind.where}", f"of {len(kind.found)} promotions"
        for guard in Guard:
            yield Figure(f"{name}: {guard} fires", *share([guard in (one.fired or ()) for one in kind.found]), unit)
        told = {
            Means.HOLD: f"checks hold one of the first {HEALTHY_DAYS} days",
            Means.GUARD: "any guard fires",
            Means.PROBATION: "rolled back on probation",
        }
        for means, text in told.items():
            yield Figure(f"{name}: {text}", *share([one.by(means) is not None for one in kind.found]), unit)
        together = share([one.first is not None for one in kind.found])
        reach = (f"<= {REACH_HEALTHY:g}", together[0] <= REACH_HEALTHY) if kind.where == WON else (None, None)
        yield Figure(f"{name}: held or rolled back by any", *together, unit, *reach)


def _simulated(found: Sequence[World]) -> Iterator[Figure]:
    for kind in found[0].equal:
        told = {rule: [day for world in found for day in world.equal[kind][rule]] for rule in RULES}
        yield from _false(f"equal, simulated, {kind}", told, reached=kind == DAYS)
    probations = [one.state is TrialState.ROLLED_BACK for world in found for one in world.probations]
    back = share(probations)
    reach = (f"<= {REACH_HEALTHY:g}", back[0] <= REACH_HEALTHY)
    yield Figure("equal, simulated: rolled back on probation", *back, f"of {len(probations):,}", *reach)
    by_rule: ByRule = {rule: [] for rule in RULES}
    # Each pair in turn, so that all worlds and faults have their part of those that are counted.
    pairs = [told for world in found for told in world.worse.values()]
    for drawn in range(REDRAWN):
        for told in pairs:
            for rule in RULES:
                by_rule[rule].append(told[rule][drawn])
    for rule, days in by_rule.items():
        counted = days[:WORSE]
        at_most = REACH_WORSE * len(counted) // WORSE if rule == OURS else None
        yield _count(f"worse, simulated: {rule}", counted, at_most)


def _count(name: str, days: Sequence[int | None], at_most: int | None = None) -> Figure:
    """How many of them were promoted, with what Wilson's interval expects of as many."""
    promoted = [day is not None for day in days]
    reach = (f"<= {at_most}", sum(promoted) <= at_most) if at_most is not None else (None, None)
    return Figure(name, *_times(len(days), share(promoted)), f"promoted of {len(days):,}", *reach)


def _times(factor: int, told: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = told
    return factor * value, factor * low, factor * high


if __name__ == "__main__":
    sys.exit(run("decisions", __doc__.partition("\n")[0], measure))
