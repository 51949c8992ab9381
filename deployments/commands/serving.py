"""`cancellations serve`: the HTTP API."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from deployments.commands.application import application
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, day
from deployments.console import Voice


def serve(
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: the settings'.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; 0 is a free one. Default: the settings'.")] = None,
    as_of: AsOf = None,
) -> None:
    """Answer over HTTP until Ctrl-C: scores of reservations while somebody waits, by the ledger's champion.

    Example: cancellations serve --home my-hotel --port 8000
    """
    if (fixed := day(as_of)) is not None:
        os.environ["CANCELLATIONS_AS_OF"] = fixed.isoformat()
    app = application(home)
    from deployments.api.server import serve as run

    knobs = app.settings.api
    run(app, host=host or knobs.host, port=knobs.port if port is None else port, say=Voice().say)
