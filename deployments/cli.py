"""The command line: the same use cases as the flows, in this process, on one home."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cancellations import __version__
from cancellations.errors import CancellationsError
from deployments.commands import (
    asking,
    calibrating,
    champion,
    database,
    doctoring,
    loop,
    mailing,
    mapping,
    quarantine,
    releasing,
    replaying,
    reporting,
    running,
    scores,
    serving,
    simulating,
    switches,
    versions,
)

EXIT_CODES = "Exit codes: 0 done, 1 refused by a rule, 2 usage or bad input, 3 a service is down, 130 Ctrl-C."
STOPPED = 130


class Commands(TyperGroup):
    """The commands; Ctrl-C ends each of them with a sentence and 130.

    Typer catches Ctrl-C before `main` could, and answers with 1 or with silence, as its version will.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("cancellations: stopped\n")
            raise typer.Exit(STOPPED) from None


app = typer.Typer(
    name="cancellations",
    cls=Commands,
    help="Keeps a reservation-cancellation model right by itself.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# What help shows, in this order; a function's name is its command's.
PANELS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "Begin and run": (running.init, running.up, serving.serve, running.demo, simulating.simulate),
    "The loop, step by step": (
        loop.ingest,
        loop.score,
        loop.check,
        loop.monitor,
        loop.retrain,
        champion.trial,
        releasing.release,
        loop.digest,
    ),
    "Look after it": (database.backup, database.restore, database.retain),
    "Look back": (reporting.report, replaying.replay),
    "Ask": (
        asking.status,
        doctoring.doctor,
        asking.history,
        asking.explain,
        versions.reproduce,
        versions.compare,
    ),
    "Decide": (
        calibrating.calibrate,
        champion.recalibrate,
        champion.promote,
        champion.rollback,
        champion.withdraw,
        switches.acknowledge,
        switches.pause,
        switches.resume,
    ),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(epilog=EXIT_CODES, rich_help_panel=panel)(command)
for command in scores.COMMANDS:
    scores.group.command(epilog=EXIT_CODES)(command)
app.add_typer(scores.group, epilog=EXIT_CODES, rich_help_panel="Ask")
for command in mapping.COMMANDS:
    mapping.group.command(epilog=EXIT_CODES)(command)
app.add_typer(mapping.group, epilog=EXIT_CODES, rich_help_panel="Begin and run")
for command in mailing.COMMANDS:
    mailing.group.command(epilog=EXIT_CODES)(command)
app.add_typer(mailing.group, epilog=EXIT_CODES, rich_help_panel="Begin and run")
for name, command in quarantine.COMMANDS.items():
    quarantine.group.command(name, epilog=EXIT_CODES)(command)
app.add_typer(quarantine.group, epilog=EXIT_CODES, rich_help_panel="Decide")
for command in database.COMMANDS:
    database.group.command(epilog=EXIT_CODES)(command)
app.add_typer(database.group, epilog=EXIT_CODES, rich_help_panel="Begin and run")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"cancellations {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Keeps a reservation-cancellation model right by itself."""


def main() -> None:
    """Runs a command; what goes wrong on purpose becomes a sentence and an exit code."""
    # A shell that starts us with `&` makes children ignore Ctrl-C; TERM should tidy up as Ctrl-C does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        app(prog_name="cancellations")
    except CancellationsError as error:
        sys.stderr.write(f"cancellations: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
