"""A replay from beginning to end: bookings, fits, policies, figures; resumable, on as many cores as asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from cancellations.bootstrap import App, draw_replay, locate
from cancellations.domain.retraining import RetrainPolicy
from cancellations.errors import BadInput
from cancellations.replay.competitors import Article, Competitor, competitors
from cancellations.replay.composed import Composed, compose
from cancellations.replay.figures import Window
from cancellations.replay.grid import Grid
from cancellations.replay.immediate import (
    MONTHLY,
    STATIC,
    YARDSTICK,
    Entry,
    Played,
    Row,
    play,
    reliability,
    report,
    tasks,
    weekly_losses,
)
from cancellations.replay.policies import (
    DATASET_FLAG,
    Calendar,
    Deciding,
    OwnGate,
    Policy,
    Span,
    Watch,
    signals_in,
)
from cancellations.replay.workers import workers
from cancellations.replay.world import World, build_world, open_world
from cancellations.settings import Settings

# The fair windows of the public file, and what each was used for before: a figure is worth most where nothing
# was chosen by it.
PUBLIC_WINDOWS = (
    Window("2015-10 to 2016-03", date(2015, 10, 5), date(2016, 4, 3), "not used to choose features or recipes"),
    Window("2016-04 to 2016-08", date(2016, 4, 4), date(2016, 8, 31), "used to design features and recipes"),
    Window("2016-09 to 2017-02", date(2016, 9, 1), date(2017, 2, 26), "reported; MIX was named after it was seen"),
)
ARTICLE_WEEKS, ARTICLE_GATE = 4, 0.05


def policies(settings: Settings) -> dict[str, Policy]:
    """Those that a replay can be asked for, by name."""
    ours = settings.retrain_policy
    # Alone a signal has nothing to be confirmed by, and no calendar beside it.
    alone = replace(ours, evidence_needed=1.0, calendar_floor_days=10_000)
    watched: tuple[Policy, ...] = (
        Deciding("ours", ours),
        Deciding("column drift alone", alone, "column drift"),
        Deciding("domain classifier alone", alone, "domain classifier"),
        Deciding("realised loss alone", alone, "matured excess loss"),
        Deciding("Evidently's dataset flag", _at_once(alone), DATASET_FLAG),
    )
    calendars = (
        Calendar("static", 0),
        Calendar("weekly", 1),
        Calendar(MONTHLY, 4),
        Calendar("six-weekly", 6),
        Calendar("quarterly", 13),
    )
    return {policy.name: policy for policy in (*calendars, *watched)}


def _at_once(policy: RetrainPolicy) -> RetrainPolicy:
    """As such a flag is used: it fires, something is retrained."""
    return replace(policy, confirm_k=1, confirm_n=1, cooldown_days=7, budget=1_000)


@dataclass(frozen=True)
class Order:
    """What is asked of a replay: which policies on which recipes, over which days.

    `entries`: pairs of a policy's and a competitor's name; `recalibrated`: those entries with a daily shift too;
    `composed`: policies that are also played by the whole house, with the settings' recipes.
    """

    span: Span
    entries: tuple[tuple[str, str], ...]
    recalibrated: bool = False
    composed: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    seed: int = 20
    workers: int = 2
    random_timings: int = 600


@dataclass(frozen=True)
class Replayed:
    """What came of it: rows by entry and window, weekly losses and reliability for pictures, what it is of."""

    rows: tuple[Row, ...]
    weekly: pd.DataFrame
    reliability: pd.DataFrame
    days: Mapping[str, tuple[date, ...]]
    signals: Mapping[date, Mapping[str, float]]
    facts: Mapping[str, Any]
    baseline: str
    houses: Mapping[str, Composed]

    def plain(self) -> dict[str, Any]:
        """As numbers and texts, for JSON."""
        houses = {
            name: {
                "requests": house.requests,
                "trials": [{"version": t.rival, "kind": t.kind.value, "state": t.state.value} for t in house.trials],
                "changes": [{**asdict(p), "on": str(p.on), "change": p.change.value} for p in house.promotions],
            }
            for name, house in self.houses.items()
        }
        return {"facts": dict(self.facts), "rows": [row.plain() for row in self.rows], "houses": houses}


def replay(
    locator: str,
    order: Order,
    settings: Settings,
    folder: Path,
    mapping: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    on_fit: Callable[[int, int], None] = lambda done, of: None,
    on_entry: Callable[[Played], None] = lambda played: None,
) -> Replayed:
    """Replays an order; what was fitted or measured before is read from `folder`.

    Raises `BadInput` for names that are unknown, days that the bookings do not cover, or a folder of another
    replay.
    """
    world = build_world(locator, settings, folder, mapping, say)
    _require_covered(world, order.span)
    known = competitors(settings.cookbook)
    entries = [_entry(policy, competitor, policies(settings), known) for policy, competitor in order.entries]
    if order.recalibrated:
        entries += [replace(entry, recalibrated=True) for entry in entries if entry.policy.name != "weekly"]
    recipe = settings.retrain.recipes[0]
    entries += [replace(_entry(p, recipe, policies(settings), known), composed=True) for p in order.composed]
    grid = Grid(world, folder, order.seed, order.workers)
    yardstick = known[YARDSTICK]
    wanted = tasks(entries, grid, order.span, yardstick)
    say(f"{len(wanted):,} fits, on {order.workers} cores")
    grid.make(wanted, on_fit)
    played = _play_all(entries, order, settings, folder, on_entry)
    static = play(world, grid, order.span, Entry(yardstick, STATIC), None, order.seed)
    windows = order.windows or (Window(f"{order.span.first} to {order.span.until}", *_days(order.span)),)
    rows = report(world, grid, order.span, played, yardstick, windows, order.seed, order.random_timings)
    final = world.final(order.span.first, order.span.until)
    if not rows:
        raise BadInput(
            f"none of the {len(final):,} bookings made {order.span.first} to {order.span.until} had matured by"
            f" {world.known_until}, the last day of which outcomes are known; load outcomes, or end earlier (--to)"
        )
    return Replayed(
        rows=tuple(rows),
        weekly=weekly_losses(world, order.span, [static, *played]),
        reliability=reliability(world, order.span, [static, *played]),
        baseline=static.entry.name,
        houses={one.entry.name: one.house for one in played if one.house is not None},
        days={one.entry.name: one.days for one in played},
        signals=_signals(signals_in(folder, settings.monitor), played, order.seed),
        facts={
            "source": locator,
            "bookings": len(world.history),
            "digest": world.digest,
            "first": str(order.span.first),
            "until": str(order.span.until),
            "seed": order.seed,
            "known_until": str(world.known_until),
            "not_final": int((~final).sum()),
            "yardstick": YARDSTICK,
            "random_timings": order.random_timings,
        },
    )


def _entry(
    policy: str, competitor: str, by_policy: Mapping[str, Policy], by_competitor: Mapping[str, Competitor]
) -> Entry:
    if competitor not in by_competitor:
        raise BadInput(f"there is no recipe or pipeline {competitor!r}; there are {', '.join(by_competitor)}")
    found = by_competitor[competitor]
    if isinstance(found, Article):
        # Its own pipeline decides: a training every four weeks, registered when its gate says so.
        return Entry(found, OwnGate("its own gate", ARTICLE_WEEKS, ARTICLE_GATE))
    if policy not in by_policy:
        raise BadInput(f"there is no policy {policy!r}; there are {', '.join(by_policy)}")
    return Entry(found, by_policy[policy])


def _days(span: Span) -> tuple[date, date]:
    """First and last day of the bookings that are scored."""
    return span.first + timedelta(days=1), span.until


def _require_covered(world: World, span: Span) -> None:
    first, last = world.span
    if span.first >= span.until:
        raise BadInput(f"a replay goes forward: {span.first} is not before {span.until}")
    if not first < span.first or span.until > last:
        raise BadInput(
            f"bookings were made from {first} to {last}: too few for a replay of {span.first} to {span.until};"
            " begin after the first of these days and end by the last (--from, --to)"
        )


def _play_all(
    entries: Sequence[Entry], order: Order, settings: Settings, folder: Path, on_entry: Callable[[Played], None]
) -> list[Played]:
    """Each entry in a process of its own; those that look at signals take minutes."""
    out = []
    if order.workers == 1:
        _opened.clear()
        _settings.clear()
        _open(folder, settings)
        for entry in entries:
            out.append(_play(entry, order.span, order.seed))
            on_entry(out[-1])
        return out
    with workers(min(order.workers, len(entries)), _open, folder, settings) as pool:
        for future in [pool.submit(_play, entry, order.span, order.seed) for entry in entries]:
            out.append(future.result())
            on_entry(out[-1])
    return out


_opened: list[tuple[World, Grid, Watch]] = []
_settings: list[Settings] = []


def _open(folder: Path, settings: Settings) -> None:
    world = open_world(folder, settings.labels)
    app = App(settings)
    _settings.append(settings)
    watch = Watch(app.watch, app.dataset_share, folder, settings.monitor)
    _opened.append((world, Grid(world, folder, settings.retrain.seed, 1), watch))


def _play(entry: Entry, span: Span, seed: int) -> Played:
    world, _, watch = _opened[0]
    if entry.composed:
        settings = _settings[0]
        seeded = settings.retrain.model_copy(update={"seed": seed})
        return _compose(entry, world, span, settings.model_copy(update={"retrain": seeded}), watch.folder)
    grid = Grid(world, watch.folder, seed, 1)
    return play(world, grid, span, entry, watch, seed)


def _compose(entry: Entry, world: World, span: Span, settings: Settings, folder: Path) -> Played:
    """The whole house under an entry's policy; the days are those on which the champion changed."""
    policy = entry.policy
    if isinstance(policy, Deciding):
        rules = policy.policy
    elif isinstance(policy, Calendar) and policy.weeks:
        # No evidence suffices: the calendar alone asks, and nothing holds it.
        rules = RetrainPolicy(
            evidence_needed=1e9,
            calendar_floor_days=7 * policy.weeks,
            cooldown_days=0,
            budget=1_000,
            min_new_labels=0,
        )
    else:
        raise BadInput(f"a house has no policy {policy.name!r} to play; name ours or a calendar")
    played = compose(world, span, policy.name, rules, settings, folder)
    changes = tuple(promotion.on for promotion in played.promotions)
    return Played(entry, (span.first, *changes), played.loss, played.probability, played)


def _signals(folder: Path, played: Sequence[Played], seed: int) -> dict[date, dict[str, float]]:
    """Values of the signals over their thresholds, by day, as the first entry that watches saw them."""
    watching = next((one for one in played if isinstance(one.entry.policy, Deciding)), None)
    found: dict[date, dict[str, float]] = {}
    if watching is None:
        return found
    kind = watching.entry.competitor.name.replace("/", "-")
    for place in sorted(folder.glob(f"{kind}-*-seed{seed}.json")):
        trained, day = _dates(place.stem.removeprefix(f"{kind}-").removesuffix(f"-seed{seed}"))
        served = max((d for d in watching.days if d < day), default=None)
        if served == trained:
            told = json.loads(place.read_text())
            found[day] = {s["name"]: s["value"] / s["threshold"] for s in told if s["value"] is not None}
    return found


def _dates(text: str) -> tuple[date, date]:
    return date.fromisoformat(text[:10]), date.fromisoformat(text[11:])


# Weeks of bookings before the first champion, where nobody says when it is trained.
HISTORY_WEEKS = 26


def default_span(
    source: str | None,
    first: date | None,
    until: date | None,
    settings: Settings,
    mapping: Path | None,
    folder: Path,
    say: Callable[[str], None],
) -> tuple[str, Span]:
    """The source's locator, and the days that are replayed: those given, else all behind half a year of history."""
    if source is None:
        found = locate(None, settings, say)
        locator, begin, end = found.locator, found.first, found.last
    else:
        locator = source
        world = build_world(locator, settings, folder, mapping, say)
        begin, end = world.span
    begin += timedelta(weeks=HISTORY_WEEKS)
    begin -= timedelta(days=begin.weekday())
    if first is None and begin >= end:
        raise BadInput(
            f"bookings of {locator} end on {end}, before there were {HISTORY_WEEKS} weeks of them to learn from; give"
            " the days yourself (--from, --to), or a longer table"
        )
    return locator, Span(first or begin, until or end)


def save(found: Replayed, folder: Path) -> tuple[Path, ...]:
    """Writes what a replay found beside its fits: a table, the facts, and a picture."""
    table, facts, picture = (folder / f"replay.{kind}" for kind in ("csv", "json", "png"))
    rows = pd.DataFrame([row.plain() for row in found.rows])
    rows.assign(days=rows["days"].map(" ".join)).to_csv(table, index=False)
    facts.write_text(json.dumps(found.plain(), indent=1))
    picture.write_bytes(draw_replay(found.weekly, found.days, found.baseline, found.signals))
    return table, facts, picture
