"""`cancellations replay`: what policies and recipes would have done with bookings of the past."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cancellations.errors import BadInput
from deployments.commands.options import DEFAULT_HOME, HomeOption, Json, day
from deployments.console import Voice, plain

if TYPE_CHECKING:
    from cancellations.replay.session import Replayed

POLICIES = ("static", "quarterly", "monthly", "weekly", "ours")
PUBLIC_LONGEST_LEAD = 180


def replay(
    source: Annotated[
        str | None, typer.Argument(help="A table of reservations and outcomes. Default: the public hotel file.")
    ] = None,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first champion is trained on it.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last bookings are made on it.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help=f"When to retrain; may be repeated. Default: {', '.join(POLICIES)}.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="What to fit, may be repeated: recipes, 'label known', 'article'. Default: the settings'."),
    ] = None,
    recalibrate: Annotated[bool, typer.Option("--recalibrate", help="Each also with a daily shift.")] = False,
    composed: Annotated[
        list[str] | None,
        typer.Option(
            "--composed",
            help="Play this policy by the whole house too: the settings' recipes, gate, trial and probation; minutes.",
        ),
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="What the columns mean. Default: as `ingest` finds it.")] = None,
    folder: Annotated[Path, typer.Option(help="Where fits are kept; a replay goes on there.")] = Path("replay"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that fit and measure.")] = 2,
    seed: Annotated[int, typer.Option(help="Of fits, samples and chance.")] = 20,
    random_timings: Annotated[int, typer.Option("--random", min=0, help="Random timings to compare with.")] = 600,
    home: HomeOption = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Replay the past: each policy retrains as it would have, each booking is scored by the model of its day.

    Switches at once, without trial and probation; --composed plays the whole house. Settings are the home's.
    Writes replay.json, replay.csv and replay.png to the folder.

    Example: cancellations replay bookings.csv --from 2016-04-04 --to 2017-02-26 --policy ours --policy monthly
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cancellations import settings as settings_module
    from cancellations.replay.session import PUBLIC_WINDOWS, Order, default_span, save
    from cancellations.replay.session import replay as run

    voice = Voice()
    settings = settings_module.load(home=home)
    require_days(first, until)
    if source is None and settings.max_lead_days is None:
        # Longer leads than these the public file cuts short at its ends.
        settings = settings.model_copy(update={"max_lead_days": PUBLIC_LONGEST_LEAD})
    say = voice.say if not as_json else (lambda text: None)
    locator, span = default_span(source, day(first), day(until), settings, mapping, folder, say)
    names = recipe or list(settings.retrain.recipes)
    entries = tuple((p, r) for r in names for p in (policy or POLICIES))
    windows = tuple(w for w in PUBLIC_WINDOWS if source is None and span.first <= w.first and w.last <= span.until)
    order = Order(span, entries, recalibrate, tuple(composed or ()), windows, seed, workers, random_timings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=voice.console, transient=True, disable=as_json) as progress:
        fits, played = progress.add_task("fits", total=None), progress.add_task("policies", total=None)
        found = run(
            locator,
            order,
            settings,
            folder,
            mapping,
            say=say,
            on_fit=lambda done, of: progress.update(fits, completed=done, total=of),
            on_entry=lambda one: progress.advance(played),
        )
    written = save(found, folder)
    if as_json:
        typer.echo(json.dumps(plain(found.plain()), indent=2))
        return
    tell(found, voice)
    for path in written:
        voice.fact("written", str(path))


def tell(found: Replayed, voice: Voice) -> None:
    """Tables of the windows, best entry first."""
    widest = max(len(row.entry) for row in found.rows)
    for window in dict.fromkeys(row.window for row in found.rows):
        rows = sorted((r for r in found.rows if r.window == window), key=lambda r: r.loss.value)
        voice.heading(f"Bookings made {window}: {rows[0].bookings:,}")
        head = f"{'retrains':>8}  {'log loss':>8}  {'against static':>26}  {'share of weekly':>20}  luck"
        voice.say(f"{'policy, recipe':<{widest}} {head}")
        for row in rows:
            static = f"{0 - row.gain.value:+.4f} [{0 - row.gain.high:+.4f}, {0 - row.gain.low:+.4f}]"
            share = "" if not row.share else f"{row.share.value:.2f} [{row.share.low:.2f}, {row.share.high:.2f}]"
            luck = "" if row.luck is None else f"{row.luck:.0%}"
            voice.say(
                f"{row.entry:<{widest}} {row.retrains:>8}  {row.loss.value:>8.4f}  {static:>26}  {share:>20}  {luck:>4}"
            )
    for name, house in found.houses.items():
        voice.heading(f"{name}: {house.requests} retrains asked for, {len(house.trials)} trials and probations")
        for change in house.promotions:
            voice.say(
                f"{change.on}  version {change.version} in place of {change.before} ({change.change}): saves"
                f" {change.gain:+.4f} on the {change.bookings:,} bookings made since"
            )
    voice.say("")
    if found.facts["not_final"]:
        voice.tell(
            f"{found.facts['not_final']:,} more bookings had not matured by {found.facts['known_until']}, the last day"
            " of which outcomes are known: they count nowhere."
        )
    voice.tell(
        f"share of weekly: of what {found.facts['yardstick']} gains over never retraining when it is retrained every"
        " week, where that is more than chance; luck: share of random timings with as many retrains that did worse"
        " (50 % is chance). Intervals: 95 %, blocks of four weeks drawn anew."
    )


def require_days(first: datetime | None, until: datetime | None) -> None:
    if (first is None) != (until is None):
        raise BadInput("a replay needs both of its ends; give --from and --to, or neither for the bookings' own")
