"""What recipes and timing are worth on two real years, beside the pipelines that people use, and what it takes.

Immediate switching first: each booking is scored on its day by the model of the last retrain, log loss against
static and as a share of what weekly retraining gains, in windows of which one was used to design. Then the whole
house day by day, timed: gate, trial, promotion and probation with all their delays.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from benchmarks.figures import Figure, Options, Outcome, peak_memory, run
from cancellations import settings
from cancellations.bootstrap import App, locate
from cancellations.errors import BadInput
from cancellations.replay.composed import Composed, compose
from cancellations.replay.policies import Span
from cancellations.replay.session import PUBLIC_WINDOWS, Order, Replayed, replay
from cancellations.replay.world import build_world
from cancellations.settings import Settings

SPANS = (Span(date(2016, 4, 4), date(2017, 2, 26)), Span(date(2015, 10, 5), date(2016, 4, 3)))
CALENDARS = ("static", "quarterly", "six-weekly", "monthly", "weekly")
RECIPES = ("matured/1", "matured-unweighted/1", "hazard/1", "mix/1", "mix-without-deposit/1")
WATCHING = (
    "ours",
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


def entries(quick: bool) -> tuple[tuple[str, str], ...]:
    if quick:
        return tuple((policy, "matured/1") for policy in CALENDARS)
    by_calendar = tuple((policy, recipe) for recipe in RECIPES for policy in CALENDARS)
    return (*by_calendar, *((policy, "matured/1") for policy in WATCHING), *OTHERS)


def measure(options: Options) -> Outcome:
    own = settings.load(max_lead_days=LONGEST_LEAD)
    found = locate(options.data, own, lambda text: None)
    if found.first > SPANS[1].first:
        raise BadInput("the windows are those of the public hotel file, which is not there; name it by --data")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spans = SPANS[:1] if options.quick else SPANS
        for span in spans:
            windows = tuple(w for w in PUBLIC_WINDOWS if span.first <= w.first and w.last <= span.until)
            order = Order(span, entries(options.quick), not options.quick, (), windows, options.seed)
            figures += _told(replay(found.locator, order, own, folder, say=_say))
        weeks = 6 if options.quick else None
        figures += _house(found.locator, own, folder, weeks)
    return Outcome(
        tuple(figures),
        "never retraining (static) and retraining every week, by recipe matured/1, on the same bookings",
        f"{found.locator.rsplit('/', 1)[-1]}, leads of at most {LONGEST_LEAD} days",
        repetitions=1,
        intervals="95 % bootstrap of blocks of four weeks; times of one run",
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _told(found: Replayed) -> Iterator[Figure]:
    for row in found.rows:
        name = f"{row.window}: {row.entry} ({row.retrains} retrains)"
        yield Figure(f"{name}, loss", row.loss.value, row.loss.low, row.loss.high, "nats")
        versus = row.versus_weekly
        yield Figure(f"{name}, loss minus weekly", versus.value, versus.low, versus.high, "nats")
        if row.share is not None:
            yield Figure(f"{name}, share of weekly's gain", row.share.value, row.share.low, row.share.high, "")
        if row.luck is not None:
            yield Figure(f"{name}, did better than chance", row.luck, row.luck, row.luck, "share of 600")


def _house(locator: str, own: Settings, folder: Path, weeks: int | None) -> Iterator[Figure]:
    """The whole house in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        played, seconds, memory, retrain = pool.submit(_play, locator, own, folder, weeks).result()
    reach = REACH_SECONDS if weeks is None else None
    span = f"{weeks or 46} weeks"
    yield _timed(f"the whole house, {span}", seconds, "s", reach)
    if memory is not None:
        yield _timed(f"the whole house, {span}: peak memory", memory, "MiB", REACH_MEMORY)
    yield _timed("one retrain on all matured rows", retrain, "s", REACH_RETRAIN)
    worse = sum(p.gain < 0 for p in played.promotions)
    yield _timed(f"the whole house, {span}: changes of champion", len(played.promotions), "", None)
    yield _timed(f"the whole house, {span}: of them worse on what came after", worse, "", None)


def _timed(name: str, value: float, unit: str, reach: float | None) -> Figure:
    return Figure.of(name, [value], unit, at_most=reach)


def _play(locator: str, own: Settings, folder: Path, weeks: int | None) -> tuple[Composed, float, float | None, float]:
    world = build_world(locator, own, folder, say=_say)
    span = SPANS[0] if weeks is None else replace(SPANS[0], until=SPANS[0].first + timedelta(weeks=weeks))
    began = time.perf_counter()
    played = compose(world, span, "ours", own.retrain_policy, own, folder)
    seconds, memory = time.perf_counter() - began, peak_memory()
    return played, seconds, memory, _retrain(own, folder, span)


def _retrain(own: Settings, folder: Path, span: Span) -> float:
    """Seconds of one retrain beside nothing else, on the home that was just played, logging included."""
    home = next((folder / "homes").iterdir())
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
