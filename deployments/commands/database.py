"""Commands for whoever looks after the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deployments.commands.application import known_settings
from deployments.commands.options import DEFAULT_HOME, HomeOption, Json
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


def _database(home: Path) -> Database:
    from cancellations.bootstrap import database_of

    return database_of(known_settings(home))


COMMANDS = (upgrade, revision, check, recount)
