"""Commands that give scores out: what is served of each booking, and what it means for the coming nights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cancellations.errors import BadInput
from deployments.commands.application import application, errors, send, today
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json
from deployments.console import Voice, one_line, print_json

if TYPE_CHECKING:
    import pandas as pd

    from cancellations.bootstrap import App
    from cancellations.domain.outlook import Outlook
    from cancellations.usecases.outlook import Published

# More is no table to read; `--out` and `--json` have all of them.
SHOWN = 20
NIGHTS_SHOWN = 14
RISKIEST_SHOWN = 5
EVERYTHING = "all"
TABLES = ("scores", "nights", "riskiest")

group = typer.Typer(
    name="scores",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path | None, typer.Option(help="Write all of them to this CSV file.")]


@group.callback()
def scores(
    context: typer.Context,
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show what is served of each open booking, export it, and look ahead; alone it is `scores show`.

    Example: cancellations scores --out scores.csv
    """
    if context.invoked_subcommand is None:
        show(home, as_of, out, as_json)
        return
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise BadInput(f"options belong behind the word: cancellations scores {context.invoked_subcommand} …")


def show(home: HomeOption = DEFAULT_HOME, as_of: AsOf = None, out: Out = None, as_json: Json = False) -> None:
    """Show what is served of each open booking, by arrival: its probability, the version it comes from, its arm.

    Example: cancellations scores show --out scores.csv
    """
    app = application(home)
    on = today(app, as_of)
    served = _by_arrival(app.scores(on))
    voice = Voice()
    if out is not None:
        app.exports.to_file(served, out)
    if as_json:
        rest = {"scores": _records(served)} if out is None else {"file": str(out)}
        print_json({"as_of": on, "open": len(served), **rest})
    elif out is not None:
        voice.say(f"{len(served):,} scores of bookings that are open on {on} written to {out}")
    elif served.empty:
        voice.say(f"no booking that is open on {on} is served a score")
    else:
        _tell_scores(served, voice)
        voice.say(f"{min(SHOWN, len(served))} of {len(served):,} bookings that are open on {on}, by arrival")


def export(
    what: Annotated[
        str | None, typer.Argument(help="scores, nights, riskiest or all. Default: all; of a single file: scores.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="A .csv or .parquet file, or a folder, in which the day gets one of its own.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="SQLAlchemy address of a database of yours.")] = None,
    url_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the address, so that nobody sees it.")
    ] = None,
    table: Annotated[
        str, typer.Option(help="Table of that database; of `all` what its tables' names begin with.")
    ] = "cancellations",
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Write scores, the coming nights and the riskiest bookings to files, or to tables of your database.

    Each export replaces the one before in its place, whole or not at all.

    Example: cancellations scores export --to exports
    """
    if [to, url, url_env].count(None) != 2:
        raise BadInput("say where to, in one way: --to FILE.csv, FILE.parquet or FOLDER, or --url, or --url-env")
    a_file = to is not None and to.suffix in (".csv", ".parquet")
    what = what or ("scores" if a_file else EVERYTHING)
    if what not in (*TABLES, EVERYTHING):
        raise BadInput(f"there is no export {what!r}; there are {', '.join(TABLES)} and {EVERYTHING}")
    if a_file and what == EVERYTHING:
        raise BadInput(f"{to} holds one table: name it (scores, nights or riskiest), or give a folder")
    address = _from_environment(url_env) if url_env is not None else url

    app, voice = application(home), Voice()
    seen = app.outlook(today(app, as_of))
    chosen = {n: t for n, t in app.outlook_tables(seen).items() if what in (n, EVERYTHING)}
    if address is not None:
        named = {table if what != EVERYTHING else f"{table}_{n}": t for n, t in chosen.items()}
        places = [f"table {n} of {app.exports.to_database(named, address)}" for n in list(named)[:1]]
        places += [f"table {n}" for n in list(named)[1:]]
    elif to is not None and a_file:
        app.exports.to_file(chosen[what], to)
        places = [str(to)]
    else:
        assert to is not None
        places = _to_folder(app, seen, chosen, to)
    if as_json:
        rows = {n: len(t) for n, t in chosen.items()}
        print_json(
            {"as_of": seen.as_of, "version": seen.version, "rows": rows, "unscored": seen.unscored, "to": places}
        )
        return
    told = ", ".join(f"{len(t):,} {'bookings' if n != 'nights' else 'nights'} as {n}" for n, t in chosen.items())
    voice.say(f"{seen.as_of}: {told}")
    for place in places:
        voice.say(f"  {place}")
    _tell_gaps(seen, voice)


def _to_folder(app: App, seen: Outlook, chosen: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    if folder.suffix and not folder.is_dir():
        raise BadInput(f"{folder} is neither a .csv nor a .parquet file nor a folder; name one of these")
    drawn = {} if seen.bookings.empty else {"outlook.png": app.draw_outlook(seen)}
    return [str(path) for path in app.exports.to_folder(chosen, drawn, folder / seen.as_of.isoformat())]


def _from_environment(name: str) -> str:
    address = os.environ.get(name, "")
    if not address:
        raise BadInput(f"the environment variable {name} of --url-env is empty; put the database's address into it")
    return address


def outlook(
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Also write the day's files to the home and mail the readers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the coming nights: rooms on the books, expected cancellations, revenue at risk, the riskiest bookings.

    Example: cancellations scores outlook --as-of 2016-07-18
    """
    app, voice = application(home), Voice()
    on = today(app, as_of)
    published = app.publish_outlook(on) if publish else None
    seen = published.outlook if published is not None else app.outlook(on)
    if as_json:
        print_json(_facts(app, seen, published))
    else:
        _tell_outlook(seen, app.settings.outlook.currency, voice)
        for path in published.files if published is not None else ():
            voice.say(f"  {path}")
    if published is not None and published.mailed:
        send(app, errors() if as_json else voice)


def _facts(app: App, seen: Outlook, published: Published | None) -> dict[str, Any]:
    tables = app.outlook_tables(seen)
    facts = {name: _records(tables[name]) for name in ("nights", "riskiest")}
    files = [str(path) for path in published.files] if published is not None else []
    told = {"as_of": seen.as_of, "version": seen.version, "open": len(seen.bookings), "unscored": seen.unscored}
    return {**told, "interval": seen.share, **facts, "files": files}


def _tell_outlook(seen: Outlook, currency: str, voice: Voice) -> None:
    if seen.bookings.empty:
        _tell_gaps(seen, voice)
        return

    from cancellations.usecases.outlook import largest

    def line(where: str, when: str, books: str, expected: str, risk: str) -> str:
        return f"{where:<24}  {when:<10}  {books:>8}  {expected:>20}  {risk:>24}"

    def told(where: str, when: str, row: Any) -> str:
        expected = f"{row.expected:,.1f} ({row.expected_low:,.0f}–{row.expected_high:,.0f})"
        risk = f"{row.at_risk:,.0f} ({row.at_risk_low:,.0f}–{row.at_risk_high:,.0f})"
        return line(
            one_line(where)[:24],
            when,
            f"{row.on_books:,}",
            expected,
            risk if row.at_risk == row.at_risk else "no price",
        )

    voice.say(line("hotel", "night", "on books", "expected to cancel", f"{currency} at risk"), "bold")
    hotels, of = largest(seen.nights), seen.nights["hotel"].nunique()
    soon = seen.nights[seen.nights["hotel"].isin(hotels)].sort_values(["hotel", "night"])
    for row in soon.groupby("hotel").head(NIGHTS_SHOWN).itertuples():
        voice.say(told(str(row.hotel), f"{row.night:%Y-%m-%d}", row))
    for days in (7, NIGHTS_SHOWN):
        span = seen.span(days)
        for row in span[span["hotel"].isin(hotels)].itertuples():
            voice.say(told(str(row.hotel), f"next {days}", row), "bold")
        if of > len(hotels):
            voice.say(told(f"all {of:,} hotels", f"next {days}", seen.total(days)), "bold")
    if of > len(hotels):
        voice.say(
            f"the {len(hotels)} hotels with the most on the books; `cancellations scores export` writes all", "dim"
        )
    risky = seen.riskiest(RISKIEST_SHOWN)
    if len(risky):
        voice.say("riskiest by value", "bold")
    for row in risky.itertuples():
        stay = "1 night" if row.nights == 1 else f"{row.nights} nights"
        together = "" if row.group_size == 1 else f", one of {row.group_size} booked together"
        told_of = (
            f"{row.value_at_risk:,.0f} of {row.value:,.0f} at {row.remaining:.0%}, {row.hotel}, arrives"
            f" {row.arrival_on:%Y-%m-%d}, {stay}{together}: {row.reservation_id}"
        )
        voice.say(f"  {one_line(told_of)}")
    _tell_gaps(seen, voice)


def _tell_gaps(seen: Outlook, voice: Voice) -> None:
    """What the figures leave out, where they do."""
    if seen.bookings.empty:
        voice.say(f"no booking that is open on {seen.as_of} is served a score", "yellow")
    if seen.unscored:
        who = "1 open booking has" if seen.unscored == 1 else f"{seen.unscored:,} open bookings have"
        voice.say(f"{who} no score yet: run `cancellations score`", "yellow")
    unpriced = int(seen.bookings["price"].isna().sum())
    if unpriced:
        who = "1 booking has" if unpriced == 1 else f"{unpriced:,} bookings have"
        voice.say(f"{who} no price, and no part in the revenue", "yellow")


def _by_arrival(served: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    inorder = served.sort_values(["arrival_on", "reservation_id"])
    return pd.DataFrame(
        {
            "reservation_id": inorder["reservation_id"].astype(str),
            "arrival_on": pd.to_datetime(inorder["arrival_on"]).dt.strftime("%Y-%m-%d"),
            "probability": inorder["probability"].astype(float),
            "version": inorder["model_version"].astype(str),
            "arm": inorder["arm"].astype(object).where(inorder["arm"].notna(), None),
            "hold_out": inorder["hold_out"].astype(bool),
        }
    ).reset_index(drop=True)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON: days as text, None where a cell is missing."""
    import pandas as pd

    days = {str(n): table[n].dt.strftime("%Y-%m-%d") for n in table if pd.api.types.is_datetime64_dtype(table[n])}
    plain = table.assign(**days).astype(object)
    return [{str(k): v for k, v in row.items()} for row in plain.where(plain.notna(), None).to_dict("records")]


def _tell_scores(served: pd.DataFrame, voice: Voice) -> None:
    def line(name: str, arrival: str, probability: str, version: str, arm: str) -> str:
        return f"{arrival:<10}  {probability:>11}  {version:<7}  {arm:<8}  {name}"

    voice.say(line("reservation", "arrival", "probability", "version", "arm"), "bold")
    for row in served.head(SHOWN).itertuples():
        name = f"{one_line(row.reservation_id)}{' (held out: leave it alone)' if row.hold_out else ''}"
        voice.say(line(name, row.arrival_on, f"{row.probability:.4f}", row.version, row.arm or "–"))


COMMANDS = (show, export, outlook)
