"""What recipes and timing are worth on two real years, beside the pipelines that people use, and what it takes.

Immediate switching first: each booking is scored on its day by the model of the last retrain, log loss against
static and as a share of what weekly retraining gains, in windows of which one was used to design. Then the whole
house day by day, timed: gate, trial, promotion and probation with all their delays.

Eight retrains at most from 2016-04 on is what a house is held to: quarterly, six-weekly and our own decision.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from benchmarks.figures import Curve, Figure, Options, Outcome, peak_memory, run
from cancellations import settings
from cancellations.bootstrap import App, locate
from cancellations.domain.promotion import Change, Kind, TrialState
from cancellations.errors import BadInput
from cancellations.replay.composed import Composed, compose
from cancellations.replay.figures import Estimate
from cancellations.replay.immediate import Row
from cancellations.replay.policies import Span
from cancellations.replay.session import PUBLIC_WINDOWS, Order, Replayed, replay
from cancellations.replay.workers import workers
from cancellations.replay.world import build_world
from cancellations.settings import Settings

SPANS = (Span(date(2016, 4, 4), date(2017, 2, 26)), Span(date(2015, 10, 5), date(2016, 4, 3)))
OURS, WHOLE = "ours", "whole loop"
CALENDARS = ("static", "quarterly", "six-weekly", "monthly", "weekly")
RECIPES = ("matured/1", "hazard/1", "mix/1")
# Of these a part is left out or told otherwise: what that is worth shows without a fit for each week.
ABLATIONS = ("matured-unweighted/1", "mix-without-deposit/1")
SELDOM = ("static", "quarterly", "six-weekly", "monthly")
WATCHING = (
    OURS,
    "column drift alone",
    "domain classifier alone",
    "realised loss alone",
    "Evidently's dataset flag",
)
OTHERS = (
    ("monthly", "label known"),
    ("monthly", "article"),
    ("monthly", "article, with foresight"),
)
LONGEST_LEAD = 180
# A year must be played while somebody waits for it.
REACH_SECONDS, REACH_MEMORY = 300, 2_048
REACH_RETRAIN = 20
# What at most eight retrains from 2016-04 on should have of weekly's gain, by window, and what monthly may be ahead.
FEW = ("ours, matured/1", "six-weekly, matured/1", "six-weekly, mix/1")
REACH_SHARE = {"2015-10 to 2016-03": 1.2, "2016-09 to 2017-02": 1.0}
REACH_MONTHLY = 0.006


@dataclass(frozen=True)
class House:
    """A span that the whole house played, and what it took: seconds, and MiB of its process."""

    span: Span
    played: Composed
    seconds: float
    memory: float | None


def entries(quick: bool) -> tuple[tuple[str, str], ...]:
    if quick:
        return tuple((policy, "matured/1") for policy in CALENDARS)
    by_calendar = tuple((policy, recipe) for recipe in RECIPES for policy in CALENDARS)
    ablated = tuple((policy, recipe) for recipe in ABLATIONS for policy in SELDOM)
    return (*by_calendar, *ablated, *((policy, "matured/1") for policy in WATCHING), *OTHERS)


def measure(options: Options) -> Outcome:
    own = settings.load(max_lead_days=LONGEST_LEAD)
    own = own.model_copy(update={"retrain": own.retrain.model_copy(update={"seed": options.seed})})
    found = locate(options.data, own, lambda text: None)
    if found.first > SPANS[1].first:
        raise BadInput("the windows are those of the public hotel file, which is not there; name it by --data")
    spans = (replace(SPANS[0], until=SPANS[0].first + timedelta(weeks=6)),) if options.quick else SPANS
    figures: list[Figure] = []
    curves: list[Curve] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_world(found.locator, own, folder, say=_say)
        # Each in a process of its own, so that its memory is its own; the figures below read what they left.
        with workers(len(spans)) as pool:
            houses = list(
                pool.map(_play, [found.locator] * len(spans), [own] * len(spans), [folder] * len(spans), spans)
            )
        for span in spans:
            windows = tuple(w for w in PUBLIC_WINDOWS if span.first <= w.first and w.last <= span.until)
            order = Order(span, entries(options.quick), not options.quick, (OURS,), windows, options.seed)
            told = replay(found.locator, order, own, folder, say=_say)
            figures += _told(told)
            curves += _curves(told)
        figures += _houses(houses)
        retrain = _retrain(own, folder, spans[0])
        figures.append(_timed("one retrain on all matured rows", retrain, "s", REACH_RETRAIN))
    return Outcome(
        tuple(figures),
        "never retraining (static) and retraining every week, by recipe matured/1, on the same bookings",
        f"{found.locator.rsplit('/', 1)[-1]}, leads of at most {LONGEST_LEAD} days",
        repetitions=1,
        intervals="95 % bootstrap of blocks of four weeks; times of one run",
        curves=tuple(curves),
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _told(found: Replayed) -> Iterator[Figure]:
    for row in found.rows:
        name = f"{row.window}: {row.entry} ({row.retrains} retrains)"
        few = row.entry in FEW and row.window in REACH_SHARE
        yield _estimate(f"{name}, loss", row.loss)
        yield _estimate(f"{name}, loss minus weekly", row.versus_weekly)
        yield _gain(name, row)
        if row.versus_monthly is not None:
            at_most = REACH_MONTHLY if few else None
            yield _estimate(f"{name}, loss minus monthly of its recipe", row.versus_monthly, at_most=at_most)
        if row.share is not None:
            at_least = REACH_SHARE.get(row.window) if few else None
            yield _estimate(f"{name}, share of weekly's gain", row.share, "", at_least=at_least)
        if row.luck is not None:
            yield Figure(f"{name}, did better than chance", row.luck, row.luck, row.luck, "share of 600")


def _gain(name: str, row: Row) -> Figure:
    """What it saves against static; of the whole loop it should be surely something."""
    reach, holds = ("low end > 0", row.gain.low > 0) if WHOLE in row.entry else (None, None)
    return Figure(f"{name}, gain on static", row.gain.value, row.gain.low, row.gain.high, "nats", reach, holds)


def _estimate(
    name: str, found: Estimate, unit: str = "nats", *, at_least: float | None = None, at_most: float | None = None
) -> Figure:
    """A reach is of the value where more is better, and of the upper end where less is."""
    reach, holds = None, None
    if at_least is not None:
        reach, holds = f">= {at_least:g}", found.value >= at_least
    elif at_most is not None:
        reach, holds = f"upper end <= {at_most:g}", found.high <= at_most
    return Figure(name, found.value, found.low, found.high, unit, reach, holds)


def _curves(found: Replayed) -> Iterator[Curve]:
    span = f"{found.facts['first']} to {found.facts['until']}"
    for name in found.weekly.columns:
        weeks = found.weekly[name].dropna()
        days = tuple(map(str, found.days.get(name, ())[1:]))
        yield Curve(f"loss, {span}", name, tuple(f"{week:%Y-%m-%d}" for week in weeks.index), tuple(weeks), days)
    for name, tenths in found.reliability.groupby("entry"):
        yield Curve(f"reliability, {span}", str(name), tuple(tenths["said"]), tuple(tenths["cancelled"]))


def _houses(houses: Sequence[House]) -> Iterator[Figure]:
    for house in houses:
        weeks = (house.span.until - house.span.first).days // 7
        name = f"the whole house, {house.span.first} to {house.span.until}"
        longest = house.span == SPANS[0]
        yield _timed(f"{name}: {weeks} weeks", house.seconds, "s", REACH_SECONDS if longest else None)
        if house.memory is not None:
            yield _timed(f"{name}: peak memory", house.memory, "MiB", REACH_MEMORY)
        trials = [trial for trial in house.played.trials if trial.kind is Kind.TRIAL]
        yield _timed(f"{name}: retrains asked for", house.played.requests, "", None)
        yield _timed(f"{name}: trials", len(trials), "", None)
        promoted = [trial for trial in trials if trial.state is TrialState.PROMOTED]
        yield _timed(f"{name}: of them won", len(promoted), "", None)
        if promoted:
            days = [float((trial.decided_on - trial.cohort_after).days) for trial in promoted if trial.decided_on]
            yield Figure.of(f"{name}: days of a won trial", days, "days")
        changes = house.played.promotions
        yield _timed(f"{name}: changes of champion", len(changes), "", None)
        worse = [change for change in changes if change.change is Change.PROMOTED and change.gain < 0]
        yield _timed(f"{name}: promotions that were worse on what came after", len(worse), "", 0)


def _timed(name: str, value: float, unit: str, reach: float | None) -> Figure:
    return Figure.of(name, [value], unit, at_most=reach)


def _play(locator: str, own: Settings, folder: Path, span: Span) -> House:
    world = build_world(locator, own, folder, say=_say)
    began = time.perf_counter()
    played = compose(world, span, OURS, own.retrain_policy, own, folder)
    return House(span, played, time.perf_counter() - began, peak_memory())


def _retrain(own: Settings, folder: Path, span: Span) -> float:
    """Seconds of one retrain beside nothing else, on a home that was played to its end, logging included."""
    home = next(path for path in (folder / "homes").iterdir() if f"-{span.first}-" in path.name)
    app = App(own.model_copy(update={"home": home}))
    with app.store.begin() as work:
        trial = work.open_trial()
    if trial is not None:
        app.withdraw(reason="a benchmark needs the place", by="benchmarks.replay", as_of=span.until)
    request = app.request_training(span.until, "timed")
    began = time.perf_counter()
    app.retrain(request.request_id)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(run("replay", __doc__.partition("\n")[0], measure))
