"""Commands that take one step of the loop by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from cancellations.errors import BadInput, Refused
from deployments.commands.application import application, errors, send, today
from deployments.commands.options import DEFAULT_HOME, After, AsOf, HomeOption, Json, day
from deployments.console import Voice, print_json


def ingest(
    source: Annotated[str, typer.Argument(help="A CSV or Parquet file, a folder of them, or `simulator`.")],
    home: HomeOption = DEFAULT_HOME,
    after: After = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Load reservations and outcomes known by --as-of; rows that break a rule go to quarantine.

    Example: cancellations ingest hotel_bookings.csv --as-of 2016-05-02
    """
    voice, app = Voice(), application(home)
    from cancellations.bootstrap import locators, open_source

    counts = []
    for locator in locators(source, app.settings):
        each = open_source(locator, app.settings)
        with voice.working(f"reading {each.name}"):
            counts.append(app.ingest(each, after=day(after), until=today(app, as_of)))
    if not counts:
        raise BadInput(f"{source} holds no .csv, .csv.gz or .parquet file")
    if as_json:
        print_json({"loads": counts})
    else:
        for c in counts:
            voice.say(
                f"{c.source}: {c.read:,} read = {c.loaded:,} loaded + {c.updated:,} updated + {c.unchanged:,} unchanged"
                f" + {c.outside:,} outside the span + {c.quarantined:,} quarantined; {c.outcomes:,} outcomes"
            )
    with app.store.begin() as work:
        reading = work.open_trial() is not None
    if reading and any(c.outcomes for c in counts):
        send(app, errors() if as_json else voice)


def score(home: HomeOption = DEFAULT_HOME, after: After = None, as_of: AsOf = None, as_json: Json = False) -> None:
    """Score open reservations with the champion, and with the version that it is compared with, if there is one.

    Example: cancellations score --as-of 2016-05-30
    """
    voice, app = Voice(), application(home)
    with voice.working("scoring"):
        scored = app.score(after=day(after), until=today(app, as_of))
    if as_json:
        print_json(scored)
        return
    for version, rows in scored.rows.items():
        voice.say(f"version {version}: {rows:,} reservations scored")
    voice.say(f"{scored.served:,} open bookings are served a new score")


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
