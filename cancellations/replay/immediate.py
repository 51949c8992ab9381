"""Policies that switch at once: what recipes and timing are worth, without a trial's delay.

Each booking is scored on its own day by the model that served then; its loss counts once its outcome is known,
however late that was. What had not matured when the bookings were written down counts nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.comparison import log_loss
from cancellations.domain.recalibration import daily_shifts
from cancellations.replay.competitors import Competitor
from cancellations.replay.composed import Composed
from cancellations.replay.figures import Blocks, Estimate, Window, percentile
from cancellations.replay.grid import Grid, Task
from cancellations.replay.policies import Calendar, Context, Deciding, Policy, Span, Watch
from cancellations.replay.world import World

RANDOM_TIMINGS = 600
YARDSTICK = "matured/1"  # retrained every week it is what shares of gain are told of; never retrained it is "static"
WEEKLY, STATIC = Calendar("weekly", 1), Calendar("static", 0)
MONTHLY = "monthly"


@dataclass(frozen=True)
class Entry:
    """A competitor under a policy; `recalibrated`: with the day's shift from partial evidence on top; `composed`:
    through gate, trial and probation, as the whole house does."""

    competitor: Competitor
    policy: Policy
    recalibrated: bool = False
    composed: bool = False

    @property
    def name(self) -> str:
        told = ", recalibrated daily" if self.recalibrated else ", whole loop" if self.composed else ""
        return f"{self.policy.name}, {self.competitor.name}{told}"


@dataclass(frozen=True)
class Played:
    """An entry's replay: the days of the trainings that served, and the loss of each booking of the span."""

    entry: Entry
    days: tuple[date, ...]
    loss: np.ndarray
    probability: np.ndarray
    house: Composed | None = None  # what a whole house did beside

    @property
    def retrains(self) -> int:
        return len(self.days) - 1


@dataclass(frozen=True)
class Row:
    """What is reported of an entry in a window.

    `loss` per booking; `gain` against static; `versus_weekly`: loss minus that of the yardstick retrained
    weekly; `versus_monthly`: minus that of the same competitor retrained monthly, None where that was not played;
    `share`: of what the yardstick gains by weekly retraining, None where that may be nothing; `luck`: share of random
    timings with as many retrains that did worse.
    """

    entry: str
    window: str
    retrains: int
    bookings: int
    loss: Estimate
    gain: Estimate
    versus_weekly: Estimate
    versus_monthly: Estimate | None
    share: Estimate | None
    luck: float | None
    days: tuple[date, ...] = field(default=(), repr=False)

    def plain(self) -> dict[str, Any]:
        """As numbers and texts, for JSON."""
        told: dict[str, Any] = {
            "entry": self.entry,
            "window": self.window,
            "retrains": self.retrains,
            "bookings": self.bookings,
            "luck": self.luck,
            "days": [str(day) for day in self.days],
        }
        for name in ("loss", "gain", "versus_weekly", "versus_monthly", "share"):
            found: Estimate | None = getattr(self, name)
            if found is not None:
                told |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        return told


def tasks(entries: Sequence[Entry], grid: Grid, span: Span, yardstick: Competitor) -> list[Task]:
    """Fits that entries may ask for: of each competitor one for every look, and more only where it is watched."""
    wanted = []
    named = {one.name: one for one in (*(e.competitor for e in entries if not e.composed), yardstick)}
    entries = [entry for entry in entries if not entry.composed]
    for competitor in named.values():
        sparse = [e.policy for e in entries if e.competitor.name == competitor.name]
        every = {day for policy in sparse for day in _may_ask(policy, span)}
        if competitor.name == yardstick.name:
            every |= {span.first, *span.looks}
        for day in sorted(every):
            watched = any(isinstance(policy, Deciding) for policy in sparse)
            wanted.append(grid.task(competitor, day, span.until, watched=watched))
    return wanted


def _may_ask(policy: Policy, span: Span) -> set[date]:
    weeks = getattr(policy, "weeks", 1)
    return {span.first, *(span.looks[weeks - 1 :: weeks] if weeks else ())}


def play(world: World, grid: Grid, span: Span, entry: Entry, watch: Watch | None, seed: int) -> Played:
    """An entry's losses over all bookings of the span, in order."""
    context = Context(world, grid, entry.competitor, span, seed, watch)
    days = entry.policy.days(context)
    probability = stitched(world, grid, span, entry.competitor, days)
    if entry.recalibrated:
        probability = recalibrated(world, span, days, probability)
    return Played(entry, days, log_loss(world.ended(span.first, span.until), probability), probability)


def stitched(world: World, grid: Grid, span: Span, competitor: Competitor, days: Sequence[date]) -> np.ndarray:
    """Each booking's probability by the last training before its day."""
    whole = world.rows(span.first, span.until)
    probability = np.empty(whole.stop - whole.start)
    for day, following in zip(days, [*days[1:], span.until], strict=True):
        rows = world.rows(day, following)
        fitted = grid.probabilities(grid.task(competitor, day, span.until))
        probability[rows.start - whole.start : rows.stop - whole.start] = fitted[: rows.stop - rows.start]
    return probability


def recalibrated(world: World, span: Span, days: Sequence[date], probability: np.ndarray) -> np.ndarray:
    """The same with the shift of log odds that partial evidence gave on the evening before each booking's day."""
    rows = world.rows(span.first, span.until)
    bookings = world.history.iloc[rows].assign(probability=probability)
    shift = daily_shifts(bookings, world.history, world.rule, days, span.until)
    odds = np.log(np.clip(probability, 1e-9, 1 - 1e-9) / np.clip(1 - probability, 1e-9, 1)) + shift
    return 1 / (1 + np.exp(-odds))


def report(
    world: World,
    grid: Grid,
    span: Span,
    played: Sequence[Played],
    yardstick: Competitor,
    windows: Sequence[Window],
    seed: int,
    random_timings: int = RANDOM_TIMINGS,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Figures of each entry in each window, and how its timing compares with chance."""
    booked_on = world.history["booked_on"].iloc[world.rows(span.first, span.until)].reset_index(drop=True)
    # Without its day a booking lies in no window.
    booked_on = booked_on.where(world.final(span.first, span.until))
    weekly = play(world, grid, span, Entry(yardstick, WEEKLY), None, seed).loss
    static = play(world, grid, span, Entry(yardstick, STATIC), None, seed).loss
    monthly = {
        one.entry.competitor.name: one.loss
        for one in played
        if one.entry.policy.name == MONTHLY and not one.entry.recalibrated and not one.entry.composed
    }
    rows = []
    for window in windows:
        blocks = Blocks.of(booked_on, window, seed)
        if not blocks.chosen.any():
            continue
        chance: dict[tuple[str, int], list[float]] = {}
        sure = blocks.mean(static - weekly).low > 0
        for one in played:
            key = (one.entry.competitor.name, one.retrains)
            timed = random_timings > 0 and 0 < one.retrains < len(span.looks) and not one.entry.composed
            if timed and key not in chance and _has_all(grid, span, one):
                chance[key] = by_chance(world, grid, span, one, blocks, random_timings, seed)
            row = Row(
                entry=one.entry.name,
                window=window.name,
                retrains=one.retrains,
                bookings=int(blocks.chosen.sum()),
                loss=blocks.mean(one.loss),
                gain=blocks.mean(static - one.loss),
                versus_weekly=blocks.mean(one.loss - weekly),
                versus_monthly=blocks.mean(one.loss - monthly[key[0]]) if key[0] in monthly else None,
                # Of a gain that may be none there are no shares.
                share=blocks.share(static - one.loss, static - weekly) if sure else None,
                luck=None
                if key not in chance or one.entry.recalibrated or one.entry.composed
                else percentile(float(one.loss[blocks.chosen].mean()), chance[key]),
                days=one.days,
            )
            rows.append(row)
            on_row(row)
    return rows


def _has_all(grid: Grid, span: Span, one: Played) -> bool:
    """Whether the competitor was fitted on every look: only then chance has the same choice."""
    return all(grid.has(grid.task(one.entry.competitor, day, span.until)) for day in span.looks)


def by_chance(
    world: World, grid: Grid, span: Span, one: Played, blocks: Blocks, timings: int, seed: int
) -> list[float]:
    """Mean losses of as many retrains on days drawn without replacement, by the same competitor."""
    # Losses week by week and fit by fit once; then a timing is a walk through the weeks.
    ends = (*span.looks, span.until)
    trained = (span.first, *span.looks)
    label = world.ended(span.first, span.until)
    whole = world.rows(span.first, span.until)
    sums = np.zeros((len(trained), len(trained)))
    for i, day in enumerate(trained):
        rows = world.rows(day, span.until)
        at = rows.start - whole.start
        probability = grid.probabilities(grid.task(one.entry.competitor, day, span.until))
        loss = np.where(blocks.chosen[at:], log_loss(label[at:], probability), 0.0)
        for j in range(i, len(trained)):
            week = world.rows(trained[j], ends[j])
            sums[i, j] = loss[week.start - rows.start : week.stop - rows.start].sum()
    draw = np.random.default_rng(seed)
    out = []
    for _ in range(timings):
        chosen = np.sort(draw.choice(np.arange(1, len(trained)), one.retrains, replace=False))
        serving = np.searchsorted(np.concatenate([[0], chosen]), np.arange(len(trained)), side="right") - 1
        fits = np.concatenate([[0], chosen])[serving]
        out.append(float(sums[fits, np.arange(len(trained))].sum() / blocks.chosen.sum()))
    return out


def weekly_losses(world: World, span: Span, played: Sequence[Played]) -> pd.DataFrame:
    """Mean loss of each entry by week of booking, for pictures; index: the week's Monday."""
    booked_on = world.history["booked_on"].iloc[world.rows(span.first, span.until)]
    week = (booked_on - pd.to_timedelta(booked_on.dt.dayofweek, unit="D")).to_numpy()
    losses: Mapping[str, np.ndarray] = {one.entry.name: one.loss for one in played}
    final = world.final(span.first, span.until)
    return pd.DataFrame(losses)[final].groupby(week[final]).mean()


def reliability(world: World, span: Span, played: Sequence[Played]) -> pd.DataFrame:
    """What became of bookings that were given much the same probability, by tenths of each entry's own.

    Columns `entry`, `bookings`, `said` (mean probability) and `cancelled` (share); ten rows an entry, and fewer where
    it says the same of many.
    """
    final = world.final(span.first, span.until)
    label = world.ended(span.first, span.until)[final]
    told = []
    for one in played:
        said = one.probability[final]
        tenth = pd.qcut(said, 10, labels=False, duplicates="drop")
        rows = pd.DataFrame({"said": said, "cancelled": label}).groupby(tenth)
        told.append(rows.mean().assign(entry=one.entry.name, bookings=rows.size()))
    return pd.concat(told, ignore_index=True)[["entry", "bookings", "said", "cancelled"]]
