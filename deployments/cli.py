"""The command line: the same use cases as the flows, in this process, on one home."""

from __future__ import annotations

import os
import signal
import sys
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cancellations import __version__
from cancellations.errors import BadInput, CancellationsError, Refused
from deployments import home as homes
from deployments import live
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.bootstrap import App
    from cancellations.usecases.status import Status

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

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="CANCELLATIONS_HOME", help="Folder of databases, models, mails and logs.")
]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], help="The day that counts as today. Default: the calendar's."),
]
After = Annotated[
    datetime | None,
    typer.Option("--after", formats=["%Y-%m-%d"], help="Only what comes after this day. Default: all."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the facts as one JSON object.")]
DEFAULT_HOME = Path(".cancellations")


def _day(value: datetime | None) -> date | None:
    return None if value is None else value.date()


def _application(home: Path) -> App:
    """The application on a home that exists; with Prefect as doorbell where a server is known."""
    if not (home / homes.MARKER).is_file():
        raise BadInput(f"there is no home in {home}; make one with: cancellations init --home {home}")
    homes.prepare(home)
    for name, value in live.addresses(home).items():
        os.environ.setdefault(name, value)
    from cancellations import settings
    from cancellations.bootstrap import App

    known = settings.load(home=home.absolute())
    doorbell = None
    if os.environ.get("PREFECT_API_URL"):
        from flows.doorbell import PrefectDoorbell

        doorbell = PrefectDoorbell()
    return App(known, doorbell)


def _send(application: App, voice: Voice) -> None:
    """Sends what waits; what cannot leave now stays in the outbox, and is said."""
    from cancellations.usecases.deliver import Delivered

    delivered: Delivered = application.deliver()
    for problem in delivered.failed:
        voice.say(f"  not sent yet: {problem}", "yellow")
    with application.store.begin() as work:
        waiting = work.pending_messages()
    if waiting and (application.doorbell is None or application.mailer is None):
        wait = "message waits" if len(waiting) == 1 else "messages wait"
        voice.say(f"  {len(waiting)} {wait} in the outbox until `cancellations up` runs", "yellow")


def _stderr() -> Voice:
    from rich.console import Console

    return Voice(Console(stderr=True, soft_wrap=True, highlight=False))


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


@app.command(epilog=EXIT_CODES)
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


@app.command(epilog=EXIT_CODES)
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
        as_of=_day(as_of),
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
    )


@app.command(epilog=EXIT_CODES)
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
    voice, application = Voice(), _application(home)
    from cancellations.bootstrap import locators, open_source

    counts = []
    for locator in locators(source, application.settings):
        each = open_source(locator, application.settings)
        with voice.working(f"reading {each.name}"):
            counts.append(application.ingest(each, after=_day(after), until=_day(as_of) or application.settings.today))
    if not counts:
        raise BadInput(f"{source} holds no .csv, .csv.gz or .parquet file")
    if as_json:
        print_json({"loads": counts})
        return
    for c in counts:
        voice.say(
            f"{c.source}: {c.read:,} read = {c.loaded:,} loaded + {c.updated:,} updated + {c.unchanged:,} unchanged"
            f" + {c.outside:,} outside the span + {c.quarantined:,} quarantined; {c.outcomes:,} outcomes"
        )


@app.command(epilog=EXIT_CODES)
def score(home: HomeOption = DEFAULT_HOME, after: After = None, as_of: AsOf = None, as_json: Json = False) -> None:
    """Score open reservations with the champion, and with its challenger if there is one.

    Example: cancellations score --as-of 2016-05-30
    """
    voice, application = Voice(), _application(home)
    with voice.working("scoring"):
        scored = application.score(after=_day(after), until=_day(as_of) or application.settings.today)
    if as_json:
        print_json(scored)
        return
    for version, rows in scored.rows.items():
        voice.say(f"version {version}: {rows:,} reservations scored")


@app.command(epilog=EXIT_CODES)
def monitor(home: HomeOption = DEFAULT_HOME, after: After = None, as_of: AsOf = None, as_json: Json = False) -> None:
    """Look at the windows that end in the span and decide; a decision to act requests a retrain and tells owners.

    Example: cancellations monitor --after 2016-05-02 --as-of 2016-05-30
    """
    voice, application = Voice(), _application(home)
    with voice.working("looking for drift"):
        looked = application.monitor(after=_day(after), until=_day(as_of) or application.settings.today)
    if as_json:
        print_json(looked)
        _send(application, _stderr())
        return
    for stored in looked.decisions:
        voice.say(f"{stored.report.window} ({stored.report.rows:,} bookings): {stored.decision.action}", "bold")
        for reason in stored.decision.reasons:
            voice.say(f"  {reason}")
    if not looked.decisions:
        voice.say(f"nothing new to look at ({looked.known} windows have their decision)")
    _send(application, voice)


@app.command(epilog=EXIT_CODES)
def retrain(
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    request: Annotated[str | None, typer.Option(help="Work on this request of `status`. Default: a new one.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "asked for by a person",
    as_json: Json = False,
) -> None:
    """Train on matured labels, pass the gate, register a version: the first champion, or a challenger.

    Example: cancellations retrain --as-of 2016-05-02 --reason "new season"
    """
    voice, application = Voice(), _application(home)
    told = _stderr() if as_json else voice
    name = request or application.request_training(_day(as_of) or application.settings.today, reason).request_id
    with told.working(f"training for request {name}"):
        done = application.retrain(name, say=lambda text: told.say(f"  {text}"))
    _send(application, told)
    if as_json:
        print_json(done)
    else:
        voice.say(f"request {done.request_id}: {done.state}" + (f", version {done.version}" if done.version else ""))
        for detail in done.detail:
            voice.say(f"  {detail}")
    if done.state.final and done.version is None:
        raise typer.Exit(Refused.exit_code)


@app.command(epilog=EXIT_CODES)
def status(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Show champion, challenger, last decision, requests, messages, and whether ledger and aliases agree.

    Example: cancellations status --json
    """
    found = _application(home).status()
    if as_json:
        print_json(found)
    else:
        _tell_status(found, Voice())
    if found.registry_problem is not None:
        raise typer.Exit(3)


def _tell_status(found: Status, voice: Voice) -> None:
    def role(name: str, record: Any) -> None:
        if record is None:
            voice.say(f"{name:<12} none")
            return
        loss = record.metrics.get("backtest_log_loss")
        told = f", backtest log loss {loss:.4f}" if loss is not None else ""
        voice.say(f"{name:<12} version {record.version}, trained as of {record.trained_as_of}{told}", "bold")

    role("champion", found.champion)
    role("challenger", found.challenger)
    if found.last is None:
        voice.say("last look    none")
    else:
        voice.say(f"last look    {found.last.report.window}: {found.last.decision.action}")
        for reason in found.last.decision.reasons:
            voice.say(f"             {reason}")
    for request in (*found.open_requests, *found.ended_requests[-3:]):
        voice.say(f"request      {request.request_id}: {request.state}, {request.reason}")
    voice.say(f"retraining   {'automatic' if found.paused is None else f'paused: {found.paused}'}")
    voice.say(f"outbox       {len(found.pending)} messages wait, {len(found.dead)} given up")
    for entry in (*found.pending, *found.dead):
        problem = f": {entry.last_error}" if entry.last_error else ""
        voice.say(f"             {entry.message.channel} {entry.message.topic}, {entry.attempts} attempts{problem}")
    if found.disagreements is None:
        voice.say(f"aliases      not known: {found.registry_problem}", "red")
    elif found.disagreements:
        for sentence in found.disagreements:
            voice.say(f"aliases      DISAGREE: {sentence}", "red")
    else:
        voice.say(f"aliases      agree with the ledger (epoch {found.standing.epoch})")


@app.command(epilog=EXIT_CODES)
def pause(
    reason: Annotated[str, typer.Option(help="Why, for `status` and for whoever comes next.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Stop automatic retraining: drift is still watched and recorded, but starts nothing.

    Example: cancellations pause --reason "price test until Monday"
    """
    _application(home).pause(reason)
    if as_json:
        print_json({"paused": reason})
    else:
        Voice().say(f"automatic retraining is paused: {reason}. `cancellations resume` lets it go on")


@app.command(epilog=EXIT_CODES)
def resume(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Let automatic retraining go on after a pause.

    Example: cancellations resume
    """
    reason = _application(home).resume()
    if as_json:
        print_json({"paused": None, "was": reason})
    elif reason is None:
        Voice().say("automatic retraining was not paused")
    else:
        Voice().say(f"automatic retraining goes on (it was paused: {reason})")


@app.command(epilog=EXIT_CODES)
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

    told = tell_story(home, data, keep, _stderr() if as_json else Voice())
    if as_json:
        print_json(told)
    if not told.whole:
        raise typer.Exit(Refused.exit_code)


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
