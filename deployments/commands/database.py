"""Commands for whoever looks after the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.commands.application import application, known_settings, today
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.bootstrap import Database

group = typer.Typer(name="db", no_args_is_help=True, pretty_exceptions_enable=False)


@group.callback()
def database() -> None:
    """Look after the database of the store: its schema, and whether what it holds fits together.

    Each of these takes --home.

    Example: cancellations db check
    """


def upgrade(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Bring the database to the schema of this version. Repeating it changes nothing.

    Example: cancellations db upgrade
    """
    before, after = _database(home).upgrade()
    if as_json:
        print_json({"from": before, "to": after})
    elif before == after:
        Voice().say(f"the database is at revision {after} already")
    else:
        Voice().say(f"upgraded from {before or 'nothing'} to {after}")


def revision(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Show the revision that the database's schema has, and the one that this version needs.

    Example: cancellations db revision
    """
    found, wanted = _database(home).revision()
    if as_json:
        print_json({"revision": found, "needed": wanted})
        return
    voice = Voice()
    voice.fact("revision", found or "none: there is no schema yet")
    voice.fact("needed", wanted if found == wanted else f"{wanted}; run: cancellations db upgrade")


def check(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Compare the schema with this version's, and the tallies, loads and served scores with what they come from.

    Looks, too, for rows whose booking is gone, and for damage of a SQLite file. Changes nothing. Exits with 1
    when something differs, and says what to do.

    Example: cancellations db check
    """
    voice = Voice()
    with voice.working("looking over the database"):
        found = _database(home).check()
    if as_json:
        print_json({"findings": [{"what": finding.what, "remedy": finding.remedy} for finding in found]})
    elif not found:
        voice.say("schema, tallies, loads and served scores are as they should be")
    for finding in () if as_json else found:
        voice.tell(finding.what)
        voice.tell(finding.remedy, indent="  ")
    if found:
        raise typer.Exit(1)


def recount(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Rebuild the tallies of agents, companies and days from the bookings. Repeating it changes nothing.

    Example: cancellations db recount
    """
    voice = Voice()
    with voice.working("counting"):
        mended = _database(home).recount()
    if as_json:
        print_json({"mended": mended})
    else:
        voice.say(f"{mended:,} tallies were wrong and are right now" if mended else "the tallies were right")


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; there must be no such file.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Write the whole store to one file, as it is at one moment, while everything goes on.

    Any database can be restored from it, SQLite or PostgreSQL. MLflow's and Prefect's are theirs: docs/deploying.md.

    Example: cancellations backup store-2016-05-02.zip --home my-hotel
    """
    voice = Voice()
    with voice.working("writing the store down"):
        made = _database(home).backup(file)
    if as_json:
        print_json({"file": str(file), "revision": made.revision, "made_at": made.made_at, "rows": made.rows})
    else:
        voice.say(f"{file}: {made.total:,} rows of {len(made.rows)} tables, schema {made.revision}")


def restore(
    file: Annotated[Path, typer.Argument(help="An archive that `backup` has written.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Bring an archive into a store that holds nothing yet, all or nothing; an older schema is brought up to date.

    Afterwards `status` says whether MLflow's aliases agree with the ledger that came back.

    Example: cancellations restore store-2016-05-02.zip --home my-new-hotel
    """
    voice = Voice()
    with voice.working("reading the store back"):
        found = _database(home).restore(file)
    if as_json:
        print_json({"file": str(file), "revision": found.revision, "made_at": found.made_at, "rows": found.rows})
        return
    voice.say(f"{found.total:,} rows of {len(found.rows)} tables are back, as of {found.made_at:%Y-%m-%d %H:%M} UTC")
    voice.say("next: cancellations db check, then cancellations status")


def retain(
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Take away scores, reports and mails that are older than the settings keep them; by default all are kept.

    Bookings, decisions, versions, trials and the ledger always stay, and so does what a running trial reads.

    Example: cancellations retain --dry-run
    """
    app = application(home)
    voice = Voice()
    with voice.working("looking for what is old"):
        found = app.retain(today(app, as_of), dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, **vars(found)})
        return
    done = "would go" if dry_run else "taken away"
    for what, count in vars(found).items():
        voice.fact(what.replace("_", " "), "kept for ever" if count is None else f"{count:,} {done}")


def _database(home: Path) -> Database:
    from cancellations.bootstrap import database_of

    return database_of(known_settings(home))


COMMANDS = (upgrade, revision, check, recount)
