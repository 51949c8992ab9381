"""Commands for one's own files: a first mapping of their columns, and what it would load."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from cancellations.errors import BadInput, Refused
from deployments.commands.options import Json
from deployments.commands.words import TROUBLE
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.bootstrap import Check

# What a folder's mapping is called: it applies to the files beside it.
BESIDE = "mapping.toml"

group = typer.Typer(name="mapping", no_args_is_help=True, pretty_exceptions_enable=False)


@group.callback()
def mapping() -> None:
    """Say what the columns of your own file mean, and see what it would load; this needs no --home.

    Example: cancellations mapping init bookings.csv
    """


def init(
    file: Annotated[Path | None, typer.Argument(help="A CSV or Parquet file. None with --query.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the mapping here. Default: mapping.toml beside the file.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="SQLAlchemy URL of a database, without a password.")] = None,
    url_env: Annotated[str | None, typer.Option(help="Name of the variable that holds the database's URL.")] = None,
    query: Annotated[str | None, typer.Option(help="The SELECT that gives the table.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a mapping that is there.")] = False,
) -> None:
    """Draft a mapping by looking at a table: which column feeds what, how dates and statuses are written.

    Exits with 1 when something that a reservation needs was not found; the draft then says what.

    Example: cancellations mapping init bookings.csv
    """
    _check_source(file, url, url_env, query)
    target = out if out is not None else Path(BESIDE) if file is None else file.parent / BESIDE
    if target.exists() and not force:
        raise Refused(f"{target} is there already; name another file with --out, or write over it with --force")
    from cancellations.bootstrap import draft_mapping

    voice = Voice()
    with voice.working(f"looking at {file or 'the query'}"):
        draft = draft_mapping(file, query=query, url=url, url_env=url_env)
    _write(draft.text, target)
    voice.say(f"mapping: {target}")
    if draft.checks:
        guesses = "1 guess" if draft.checks == 1 else f"{draft.checks} guesses"
        voice.say(f'{guesses} for you to confirm: look for "check:" in it')
    for name in draft.missing:
        voice.say(f"not found, and a reservation needs it: {name}; fill it in", TROUBLE)
    if file is None:
        voice.say(f"next: cancellations mapping check {quote(str(target))}")
    else:
        beside = target.resolve() == (file.parent / BESIDE).resolve()
        named = "" if beside else f" --mapping {quote(str(target))}"
        voice.say(f"next: cancellations mapping check {quote(str(file))}{named}")
    if draft.missing:
        raise typer.Exit(Refused.exit_code)


def check(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file, or a mapping with a query.")],
    mapping: Annotated[
        Path | None, typer.Option(help="Its mapping. Default: mapping.toml beside it, or one of the package's.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Read only so many rows. Default: all.")] = None,
    as_json: Json = False,
) -> None:
    """Read a table by its mapping and show what it would load; nothing is written.

    Exits with 1 when a load would be stopped, because too many of its rows break a rule.

    Example: cancellations mapping check bookings.csv
    """
    from cancellations import settings
    from cancellations.bootstrap import check_mapping

    voice = Voice()
    with voice.working(f"reading {file}"):
        found = check_mapping(file, settings.load(), mapping, rows)
    if as_json:
        print_json(found)
    else:
        _tell(found, voice)
    if not found.passes:
        raise typer.Exit(Refused.exit_code)


COMMANDS = (init, check)


def _check_source(file: Path | None, url: str | None, url_env: str | None, query: str | None) -> None:
    if file is not None:
        if url or url_env or query:
            raise BadInput("a file and a query are two tables; name one of them")
        return
    if query is None or (url is None) == (url_env is None):
        raise BadInput("name a file, or give --query with either --url or --url-env")
    try:
        password = urlsplit(url or "").password
    except ValueError:
        password = None
    if password is not None:
        raise BadInput(
            "--url holds a password, which would stand in the mapping; put the URL into a variable and give its"
            " name with --url-env"
        )


def _write(text: str, target: Path) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise BadInput(
            f"{target} cannot be written: {error.strerror or error}. Name another file with --out."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _tell(found: Check, voice: Voice) -> None:
    voice.fact("rows", f"{found.rows:,} read" + ("" if found.whole else ", the first of more"))
    load = f"{found.loaded:,} would load, {found.quarantined:,} would go to quarantine"
    voice.fact("load", load + (f", {found.repeated:,} repeat another row" if found.repeated else ""))
    if not found.passes:
        voice.fact("", f"a load would be stopped: more than {found.limit:.0%} break a rule", style=TROUBLE)
    for broken in found.broken:
        where = f"{broken.column} {broken.rule}" if broken.column else broken.rule
        example = f" ({broken.example})" if broken.example else ""
        rows = "1 row" if broken.rows == 1 else f"{broken.rows:,} rows"
        voice.tell(f"{rows}, the first {broken.first_row:,}: {where}{example}", " " * 13)
    if found.booked is not None and found.arrivals is not None:
        voice.fact("booked", f"{found.booked[0]} to {found.booked[1]}")
        voice.fact("arrivals", f"{found.arrivals[0]} to {found.arrivals[1]}")
    told = ", ".join(f"{count:,} {status}" for status, count in found.statuses.items())
    rate = "" if found.cancel_rate is None else f"; {found.cancel_rate:.1%} of them cancelled"
    voice.fact("outcomes", f"{told or 'none'}{rate}", f"without an outcome yet: {found.open:,}")
    if found.actions:
        voice.fact("actions", ", ".join(f"{count:,} {action}" for action, count in found.actions.items()))
    if found.undated:
        counts = "when the booking matures (by default the day after arrival)"
        if found.undated_as == "load":
            counts += ", or on the day of the load if that is earlier"
        voice.fact("", f"{found.undated:,} without a day: they count as known {counts}")
    voice.heading("What feeds what")
    for fed in found.fields:
        missing = f", {fed.missing:.1%} missing" if fed.missing else ""
        voice.tell(f"{fed.name} ← {fed.fed_by}{missing}: {'; '.join(fed.examples)}", "  ")
    if found.without:
        voice.heading("Fed by nothing")
        for without in dict.fromkeys(found.without.values()):
            names = ", ".join(name for name, told in found.without.items() if told == without)
            voice.tell(f"{names}: {without}", "  ")
    if found.features:
        voice.heading("Features of your own")
        for feature in found.features:
            values = f"{feature.values:,} values"
            if feature.low is not None and feature.high is not None:
                values = f"{feature.low:g} to {feature.high:g}"
            missing = f", {feature.missing:.1%} missing" if feature.missing else ""
            voice.tell(f"{feature.name} ← {feature.fed_by}{missing}: a {feature.kind}, {values}", "  ")
    if found.warnings:
        voice.heading("Look at this")
        for warning in found.warnings:
            voice.tell(warning, "  ", TROUBLE)
