"""Commands about who is champion: the trial that decides it, and a person who does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cancellations.errors import Refused, ServiceDown
from deployments.commands.application import application, errors, person, send, today
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json, Reason
from deployments.commands.words import tell_problems, tell_recalibration, tell_takeover, tell_trial
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.bootstrap import App
    from cancellations.domain.promotion import Trial
    from cancellations.usecases.promote import Takeover


def trial(home: HomeOption = DEFAULT_HOME, as_of: AsOf = None, as_json: Json = False) -> None:
    """Look at the running trial or probation now: score, read what has matured, and act on what it says.

    Example: cancellations trial --as-of 2016-07-18
    """
    voice, app = Voice(), application(home)
    with voice.working("reading the days that matured"):
        looked = app.trial(until=today(app, as_of))
    probation = None if looked.takeover is None else _probation(app)
    if as_json:
        print_json(looked)
    elif looked.trial is None:
        voice.say("neither a trial nor a probation is running")
    else:
        tell_trial(looked.trial, voice)
        tell_problems(looked.problems, voice)
        if looked.takeover is not None:
            tell_takeover(looked.takeover, probation, voice)
    send(app, errors() if as_json else voice)
    _end_with_problems(looked.problems if looked.takeover is None else looked.takeover.problems)


def recalibrate(home: HomeOption = DEFAULT_HOME, as_of: AsOf = None, as_json: Json = False) -> None:
    """Move the champion's log odds by one number, if what has happened to open bookings so far asks for it.

    Works whether the daily schedule is on or off. Example: cancellations recalibrate --as-of 2016-07-18
    """
    voice, app = Voice(), application(home)
    told = errors() if as_json else voice
    with told.working("reading what has happened to the bookings that the champion has scored"):
        found = app.recalibrate(as_of=today(app, as_of), by=person())
    if as_json:
        print_json(found)
    else:
        tell_recalibration(found, voice)
    if not app.settings.recalibration.enabled:
        told.say("  the daily schedule is off; CANCELLATIONS_RECALIBRATION__ENABLED=true turns it on")
    send(app, told)
    if found.takeover is not None:
        _end_with_problems(found.takeover.problems)
    elif found.verdict == "refused":
        raise typer.Exit(Refused.exit_code)


def promote(
    version: Annotated[str, typer.Argument(help="A version of `history`, or one that was registered in MLflow.")],
    reason: Reason,
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Make a version champion, past gate and trial, on the record; it is on probation then. Also says yes to a trial.

    Example: cancellations promote 3 --reason "approved by revenue management"
    """
    app = application(home)
    with Voice().working(f"proving that version {version} loads and scores"):
        done = app.promote(version, reason=reason, by=person(), as_of=today(app, as_of))
    _tell_change(app, done, as_json)


def rollback(
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="An earlier champion. Default: the one before the present.")] = None,
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Let an earlier champion serve again. Promotions then need a person until `cancellations acknowledge`.

    Example: cancellations rollback --reason "version 3 prices groups wrongly"
    """
    app = application(home)
    with Voice().working("proving that the earlier champion loads and scores"):
        done = app.roll_back(to=to, reason=reason, by=person(), as_of=today(app, as_of))
    _tell_change(app, done, as_json)


def withdraw(reason: Reason, home: HomeOption = DEFAULT_HOME, as_of: AsOf = None, as_json: Json = False) -> None:
    """End the running trial or probation without an answer; the champion stays. Also says no to a trial.

    Example: cancellations withdraw --reason "the feed of outcomes was broken"
    """
    voice, app = Voice(), application(home)
    ended = app.withdraw(reason=reason, by=person(), as_of=today(app, as_of))
    assert ended.trial is not None, "somebody's trial was withdrawn"
    if as_json:
        print_json(ended)
    else:
        tell_trial(ended.trial, voice)
        voice.fact("champion", f"version {ended.trial.champion} stays")
        tell_problems(ended.problems, voice)
    send(app, errors() if as_json else voice)
    _end_with_problems(ended.problems)


def _tell_change(app: App, done: Takeover, as_json: bool) -> None:
    voice, probation = Voice(), _probation(app)
    if as_json:
        print_json({"takeover": done, "probation": probation})
    else:
        tell_takeover(done, probation, voice)
    send(app, errors() if as_json else voice)
    _end_with_problems(done.problems)


def _probation(app: App) -> Trial | None:
    """The probation that a promotion has opened; None after a rollback."""
    with app.store.begin() as work:
        return work.open_trial()


def _end_with_problems(problems: tuple[str, ...]) -> None:
    if problems:
        raise typer.Exit(ServiceDown.exit_code)
