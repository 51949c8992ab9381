"""Commands that make a home, run on it, or tell a story."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cancellations import home as homes
from cancellations.errors import BadInput, Refused
from deployments import live
from deployments.commands.application import errors
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json, day
from deployments.console import Voice, print_json


def init(home: HomeOption = DEFAULT_HOME) -> None:
    """Make a home for your own data: folders, settings, databases. Repeating it brings an older home up to date.

    Example: cancellations init --home my-hotel
    """
    voice = Voice()
    homes.prepare(home)
    from cancellations import settings
    from cancellations.bootstrap import prepare

    dotenv = home / ".env"
    if not dotenv.exists():
        dotenv.write_text(
            "# Settings of this home; .env.example in the project lists all of them.\n"
            '# CANCELLATIONS_MAIL__OWNERS=["you@example.org"]\n'
            "# CANCELLATIONS_MAIL__HOST=smtp.example.org\n"
        )
    with voice.working("preparing the databases"):
        prepare(settings.load(home=home.absolute()))
    voice.say(f"home: {home.absolute()}")
    voice.say(f"settings: {dotenv}")
    voice.say(f"next: cancellations ingest FILE --home {home}, then: cancellations retrain --home {home}")


def up(
    home: HomeOption = DEFAULT_HOME,
    watch: Annotated[Path | None, typer.Option(help="Folder whose files are ingested, scored and monitored.")] = None,
    as_of: AsOf = None,
    prefect_port: Annotated[int | None, typer.Option(help="Port of the Prefect server. Default: a free one.")] = None,
    mlflow_port: Annotated[int | None, typer.Option(help="Port of the MLflow UI. Default: a free one.")] = None,
) -> None:
    """Run live until Ctrl-C: Prefect server and worker, MLflow UI, a mailbox; deployments on their schedules.

    Example: cancellations up --home my-hotel --watch incoming
    """
    if watch is not None and not watch.is_dir():
        raise BadInput(f"--watch {watch}: there is no such folder; make it, then drop CSV or Parquet files into it")
    live.run_live(
        home,
        Voice(),
        watch=watch.absolute() if watch else None,
        as_of=day(as_of),
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
    )


def demo(
    data: Annotated[Path | None, typer.Option(help="The public hotel-bookings table, CSV or Parquet.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack and its UIs up until Ctrl-C.")] = False,
    home: Annotated[Path, typer.Option("--home", help="Folder of the demo; emptied at its start.")] = Path("var/demo"),
    as_json: Json = False,
) -> None:
    """Watch real reservations drift and the system retrain by itself, through the deployed flows.

    Example: cancellations demo --keep
    """
    from deployments.demo import tell_story

    told = tell_story(home, data, keep, errors() if as_json else Voice())
    if as_json:
        print_json(told)
    if not told.whole:
        raise typer.Exit(Refused.exit_code)
