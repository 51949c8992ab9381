"""`cancellations report`: one window in the history of its home, as a page to look at, keep or print."""

from __future__ import annotations

import webbrowser
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cancellations.errors import BadInput
from deployments.commands.application import application
from deployments.commands.options import DEFAULT_HOME, HomeOption, day
from deployments.console import Voice


def report(
    window: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The window's last day. Default: the last that was looked at."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: report-DAY.html in the home's `reports`.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write a window's signals, columns, scores and the history around it to one HTML file that needs nothing else.

    Example: cancellations report --window 2016-05-30 --open
    """
    voice, app = Voice(), application(home)
    with voice.working("drawing the report"):
        found, page = app.report(day(window))
    end = found.stored.report.window.end
    file = out if out is not None else app.settings.home / "reports" / f"report-{end}.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror}; name another file with --out") from error
    voice.say(f"{found.stored.report.window}: {found.stored.decision.action}; written to {file}")
    if show and not webbrowser.open(file.resolve().as_uri()):
        voice.say("no browser could be opened here")
