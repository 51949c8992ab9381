"""Commands that take one step of the loop by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cancellations.errors import BadInput, CancellationsError, Refused
from deployments.commands.application import application, errors, person, send, today
from deployments.commands.options import DEFAULT_HOME, After, AsOf, HomeOption, Json, Reason, day
from deployments.commands.words import TROUBLE, tell_hold, tell_problems, tell_takeover
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.ports import Load


# A file that changes more of the bookings that it holds than not, and so many, is hardly one of corrections.
MANY_UPDATES = 20


def ingest(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A CSV or Parquet file, a folder of them, or `simulator`."
            " Default: the database that --mapping queries, else the watched folder."
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    mapping: Annotated[
        Path | None,
        typer.Option(help="What the source's columns mean. Default: the settings', or mapping.toml beside the file."),
    ] = None,
    after: After = None,
    as_of: AsOf = None,
    quarantine_limit: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the rows that may break a rule. Default: the settings'."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Load reservations and outcomes known by --as-of; rows that break a rule go to quarantine.

    Example: cancellations ingest hotel_bookings.csv --as-of 2016-05-02
    """
    voice, app = Voice(), application(home)
    from cancellations.bootstrap import TABLES, left_alone, locators, open_source

    named = locators(source, app.settings, mapping)
    if not named:
        raise BadInput(f"{source or app.settings.watch} holds no file that ends in {', '.join(TABLES)}")
    loads: list[Load] = []
    problems: list[CancellationsError] = []
    for locator in named:
        try:
            each = open_source(locator, app.settings, mapping)
            with voice.working(f"reading {each.name}"):
                loads.append(
                    app.ingest(each, after=day(after), until=today(app, as_of), quarantine_limit=quarantine_limit)
                )
        except (BadInput, Refused) as problem:
            # The other files of a folder do not wait for this one.
            problems.append(problem)
    if as_json and loads:
        print_json({"loads": [{**vars(load.counts), "number": load.number, "state": load.state} for load in loads]})
    elif loads:
        tell_loads(loads, voice)
    if loads and (others := left_alone(source, app.settings)):
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        told = f"left alone: {', '.join(others[:5])}{more}; tables of a folder end in {', '.join(TABLES)}"
        (errors() if as_json else voice).say(told)
    with app.store.begin() as work:
        reading = work.open_trial() is not None
    if reading and any(load.counts.outcomes for load in loads):
        send(app, errors() if as_json else voice)
    if problems:
        raise type(problems[0])("; ".join(map(str, problems)))


def tell_loads(loads: Sequence[Load], voice: Voice) -> None:
    """A line for each load: what became of its rows."""
    for c in (load.counts for load in loads):
        voice.say(
            f"{c.source}: {c.read:,} read = {c.loaded:,} loaded + {c.updated:,} updated + {c.unchanged:,} unchanged"
            f" + {c.outside:,} outside the span + {c.quarantined:,} quarantined; {c.outcomes:,} outcomes"
        )
        if 2 * c.updated > c.read - c.outside and c.updated >= MANY_UPDATES:
            voice.say(
                "  most rows changed what was there: do their ids name other bookings, of another hotel or system?"
            )
    if any(load.counts.quarantined for load in loads):
        voice.say("  what was quarantined, and why: cancellations quarantine list")


def score(home: HomeOption = DEFAULT_HOME, after: After = None, as_of: AsOf = None, as_json: Json = False) -> None:
    """Score open reservations with the champion, and with the version that it is compared with, if there is one.

    Bookings that fail their checks are held back. A new champion's first bookings are looked at by its guards.

    Example: cancellations score --as-of 2016-05-30
    """
    voice, app = Voice(), application(home)
    with voice.working("scoring"):
        scored = app.score(after=day(after), until=today(app, as_of))
        guarded = app.guard(until=today(app, as_of))
    if as_json:
        print_json({**vars(scored), "guards": guarded})
        if scored.held or guarded.takeover is not None:
            send(app, errors())
        return
    for version, rows in scored.rows.items():
        voice.say(f"version {version}: {rows:,} reservations scored")
    voice.say(f"{scored.served:,} open bookings are served a new score")
    for hold in scored.held:
        voice.say(f"held back: {tell_hold(hold)}", TROUBLE)
    for finding in guarded.findings if guarded.looked else ():
        voice.tell(f"guard: {finding}")
    if guarded.takeover is not None:
        tell_takeover(guarded.takeover, None, voice)
    tell_problems(guarded.problems, voice)
    if scored.held or guarded.takeover is not None:
        send(app, voice)


def check(
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    days: Annotated[int, typer.Option(min=1, help="Show the last days that were checked.")] = 14,
    release: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="Let held bookings of this day be scored."),
    ] = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Check the bookings of each day before --as-of against what their columns have shown; a break is mailed.

    Shows the days that are held back from scoring, and lets one of them go.

    Example: cancellations check --release 2016-05-30 --reason "the new price list is right"
    """
    voice, app = Voice(), application(home)
    if release is not None:
        app.release(release.date(), reason=reason, by=person())
        told = f"bookings made on {release.date()} are scored as they are, from the next time on: cancellations score"
        (errors() if as_json else voice).say(told)
    with voice.working("checking days"):
        new = app.check(until=today(app, as_of))
        with app.store.begin() as work:
            known = work.checks(until=today(app, as_of), limit=days)
            held = work.holds(since=today(app, as_of) - timedelta(days=days))
    if as_json:
        print_json({"checked": new, "days": known, "held": held})
    else:
        for one in reversed(known):
            told = "passed" if not one.findings else "FAILED"
            voice.say(f"{one.day}  {one.bookings:>6,} bookings  {told}", "bold" if one.findings else "")
            for finding in one.findings:
                voice.say(f"  {finding}")
        if not known:
            least = app.settings.checks.min_days
            voice.say(f"no day has been checked: {least} days of bookings are needed to learn from")
        for hold in held:
            voice.say(f"{hold.day}  {tell_hold(hold)}", TROUBLE if hold.state == "held" else "")
    if new:
        send(app, errors() if as_json else voice)


def monitor(home: HomeOption = DEFAULT_HOME, after: After = None, as_of: AsOf = None, as_json: Json = False) -> None:
    """Look at the windows that end in the span and decide; a decision to act requests a retrain and tells owners.

    Example: cancellations monitor --after 2016-05-02 --as-of 2016-05-30
    """
    voice, app = Voice(), application(home)
    with voice.working("looking for drift"):
        looked = app.monitor(after=day(after), until=today(app, as_of))
    if as_json:
        print_json(looked)
        send(app, errors())
        return
    for stored in looked.decisions:
        voice.say(f"{stored.report.window} ({stored.report.rows:,} bookings): {stored.decision.action}", "bold")
        for reason in stored.decision.reasons:
            voice.say(f"  {reason}")
    if not looked.decisions:
        voice.say(f"nothing new to look at ({looked.known} windows have their decision)")
    send(app, voice)


def retrain(
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    request: Annotated[str | None, typer.Option(help="Work on this request of `status`. Default: a new one.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "asked for by a person",
    as_json: Json = False,
) -> None:
    """Train on matured labels, pass the gate, register a version: the first champion, or a challenger on trial.

    Example: cancellations retrain --as-of 2016-05-02 --reason "new season"
    """
    voice, app = Voice(), application(home)
    told = errors() if as_json else voice
    name = request or app.request_training(today(app, as_of), reason).request_id
    with told.working(f"training for request {name}"):
        done = app.retrain(name, say=lambda text: told.say(f"  {text}"))
        scored = app.score_challenger(done)
    send(app, told)
    if scored is not None:
        rows = scored.rows.get(str(done.version), 0)
        told.say(f"  version {done.version} is on trial: it has scored {rows:,} bookings that are not matured yet")
    if as_json:
        print_json(done)
    else:
        voice.say(f"request {done.request_id}: {done.state}" + (f", version {done.version}" if done.version else ""))
        for detail in done.detail:
            voice.say(f"  {detail}")
    if done.state.final and done.version is None:
        raise typer.Exit(Refused.exit_code)


def digest(home: HomeOption = DEFAULT_HOME, as_of: AsOf = None, as_json: Json = False) -> None:
    """Write the weekly digest to the owners, if a week is over on --as-of and has not been told.

    Example: cancellations digest --as-of 2016-06-27
    """
    voice, app = Voice(), application(home)
    with voice.working("summing up the week"):
        found = app.digest(today(app, as_of))
    if as_json:
        print_json({"written": found.fact is not None, "why": found.why, "digest": found.fact})
    else:
        voice.say(found.why)
    if found.fact is not None:
        send(app, errors() if as_json else voice)
