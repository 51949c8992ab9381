"""Commands that answer from the record and change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cancellations.errors import BadInput, Refused, ServiceDown
from deployments.commands.application import application, today
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json
from deployments.commands.words import TROUBLE, course, figures, pair, tell_explanation, tell_history
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    import pandas as pd

    from cancellations.usecases.status import Status

# More is no table to read; `--out` and `--json` have all of them.
SHOWN = 20


def status(home: HomeOption = DEFAULT_HOME, as_of: AsOf = None, as_json: Json = False) -> None:
    """Show who serves, what is tried and asked for, what waits, and whether ledger and aliases agree.

    Example: cancellations status --json
    """
    app = application(home)
    found = app.status(today(app, as_of))
    if as_json:
        print_json(found)
    else:
        _tell_status(found, app.settings.trial.mode, Voice())
    if found.registry_problem is not None:
        raise typer.Exit(ServiceDown.exit_code)


def history(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Show every change of champion or challenger, with the trials and probations between; the newest last.

    Example: cancellations history
    """
    found = application(home).history()
    if as_json:
        print_json(found)
    else:
        tell_history(found, Voice())


def explain(
    version: Annotated[str | None, typer.Argument(help="A version of `history`. Default: the champion.")] = None,
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Tell a version's story: why it was asked for, how it was made and compared, what became of it.

    Example: cancellations explain 3
    """
    app = application(home)
    if version is None:
        with app.store.begin() as work:
            version = work.standing().champion
    if version is None:
        raise Refused("there is no champion to explain; train the first one: cancellations retrain --as-of DAY")
    on = today(app, as_of)
    found = app.explain(version, on)
    address = app.registry.version_address(version)
    if as_json:
        print_json({**vars(found), "address": address})
    else:
        tell_explanation(found, address, on, Voice())


def scores(
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    out: Annotated[Path | None, typer.Option(help="Write all of them to this CSV file.")] = None,
    as_json: Json = False,
) -> None:
    """Show what is served of each open booking, by arrival: its probability, the version it comes from, its arm.

    Example: cancellations scores --out scores.csv
    """
    app = application(home)
    on = today(app, as_of)
    served = _by_arrival(app.scores(on))
    voice = Voice()
    if out is not None:
        _write(served, out)
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
        }
    ).reset_index(drop=True)


def _records(served: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in served.to_dict("records")]


def _tell_scores(served: pd.DataFrame, voice: Voice) -> None:
    def line(name: str, arrival: str, probability: str, version: str, arm: str) -> str:
        return f"{arrival:<10}  {probability:>11}  {version:<7}  {arm:<8}  {name}"

    voice.say(line("reservation", "arrival", "probability", "version", "arm"), "bold")
    for row in served.head(SHOWN).itertuples():
        voice.say(line(row.reservation_id, row.arrival_on, f"{row.probability:.4f}", row.version, row.arm or "–"))


def _write(served: pd.DataFrame, path: Path) -> None:
    """All or nothing: whoever reads the file meanwhile sees the old one, or the new one whole.

    Texts are quoted and left as they are: an id is an id, also when it begins like a formula.
    """
    import csv
    import os

    target = path.resolve()
    if target.exists() and not target.is_file():
        raise BadInput(f"--out {path} is no file; name one, in a folder that exists")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        served.to_csv(part, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        part.replace(target)
    except OSError as error:
        raise BadInput(f"--out {path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _tell_status(found: Status, mode: str, voice: Voice) -> None:
    def role(name: str, record: Any) -> None:
        if record is None:
            voice.fact(name, "none")
            return
        loss = record.metrics.get("backtest_log_loss")
        told = f", backtest log loss {loss:.4f}" if loss is not None else ""
        voice.fact(name, f"version {record.version}, trained as of {record.trained_as_of}{told}", style="bold")

    role("champion", found.champion)
    role("challenger", found.challenger)
    if found.trial is None:
        voice.fact("trial", "none")
    else:
        told = f"{pair(found.trial)}, opened {found.trial.opened_on}"
        voice.fact(found.trial.kind, told, course(found.trial), figures(found.trial))
    served = [f"{rows:,} open bookings get version {version}'s score" for version, rows in found.served.items()]
    voice.fact("serving", *(served or ["no open booking has a score"]))
    held = found.promotions_held
    approval = f"need a person's approval until `cancellations acknowledge`: {held}"
    voice.fact("promotions", f"by mode {mode}" if held is None else approval)
    if found.last is None:
        voice.fact("last look", "none")
    else:
        voice.fact(
            "last look", f"{found.last.report.window}: {found.last.decision.action}", *found.last.decision.reasons
        )
    for request in (*found.open_requests, *found.ended_requests[-3:]):
        voice.fact("request", f"{request.request_id}: {request.state}, {request.reason}")
    voice.fact("retraining", "automatic" if found.paused is None else f"paused: {found.paused}")
    voice.fact("outbox", f"{len(found.pending)} messages wait, {len(found.dead)} given up")
    for entry in (*found.pending, *found.dead):
        problem = f": {entry.last_error}" if entry.last_error else ""
        voice.fact("", f"{entry.message.channel} {entry.message.topic}, {entry.attempts} attempts{problem}")
    if found.disagreements is None:
        voice.fact("aliases", f"not known: {found.registry_problem}", style=TROUBLE)
    elif found.disagreements:
        for sentence in found.disagreements:
            voice.fact("aliases", f"DISAGREE: {sentence}", style=TROUBLE)
    else:
        voice.fact("aliases", f"agree with the ledger (epoch {found.standing.epoch})")
