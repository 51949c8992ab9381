"""The command that turns a change of code or recipe into a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cancellations.errors import ServiceDown
from deployments.commands.application import application, errors, person, send, today
from deployments.commands.loop import tell_loads
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json
from deployments.commands.words import tell_takeover
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.bootstrap import App
    from cancellations.usecases.release import Released


def release(
    home: HomeOption = DEFAULT_HOME,
    data: Annotated[
        str | None, typer.Option(help="Load this first: a file, a folder, or `simulator`. Default: what is stored.")
    ] = None,
    as_of: AsOf = None,
    approve: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Let the version take over, if the gate passes it: on the record."),
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Train although neither code nor recipe changed.")] = False,
    as_json: Json = False,
) -> None:
    """Make a version of the present code and recipes: train, pass the gate against the champion, register, try it.

    Does nothing where the champion was made by the same code and recipe. With --approve the version becomes champion,
    on probation, as by `promote`; without, its trial decides. docs/releasing.md

    Example: cancellations release --data bookings.csv --as-of 2016-05-02
    """
    voice, app = Voice(), application(home)
    told = errors() if as_json else voice
    day = today(app, as_of)
    if data is not None:
        from cancellations.bootstrap import locators, open_source

        with told.working(f"loading {data}"):
            sources = [open_source(locator, app.settings) for locator in locators(data, app.settings)]
            loads = [app.ingest(source, until=day) for source in sources]
        tell_loads(loads, told)
    done = app.release_version(
        as_of=day, approval=approve, anyway=anyway, by=person(), say=lambda text: told.say(f"  {text}")
    )
    send(app, told)
    if as_json:
        print_json(done)
    else:
        _tell(app, done, voice)
    if done.takeover is not None and done.takeover.problems:
        raise typer.Exit(ServiceDown.exit_code)


def _tell(app: App, done: Released, voice: Voice) -> None:
    if not done.changes:
        voice.say(f"version {done.version} was made by this code and recipe: there is nothing to release")
        return
    for change in done.changes:
        voice.say(f"changed: {change}")
    for line in () if done.request is None else done.request.detail:
        voice.say(f"  {line}")
    with app.store.begin() as work:
        serving, trial = work.standing().champion, work.open_trial()
    if done.takeover is not None:
        tell_takeover(done.takeover, trial, voice)
    elif serving == done.version:
        voice.say(f"version {done.version} is the first champion")
    else:
        voice.say(f'version {done.version} is on trial; to let it take over now: cancellations release --approve "…"')
