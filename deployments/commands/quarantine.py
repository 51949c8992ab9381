"""Commands on rows that broke a rule: see them, correct them, load them after all, or let go of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cancellations.errors import BadInput
from deployments.commands.application import application, errors, send, today
from deployments.commands.loop import tell_loads
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json, Reason
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.bootstrap import App
    from cancellations.ports import Quarantined
    from cancellations.usecases.quarantine import Retried

# More is no table to read; `--json` and `quarantine export` have all of them.
SHOWN = 20
# Of a row's values so many are shown, each so long.
VALUES_SHOWN, VALUE_SHOWN = 6, 24
# Problems tell values, too; the rest of a longer one is in the exported file.
PROBLEM_SHOWN = 160

group = typer.Typer(name="quarantine", invoke_without_command=True, pretty_exceptions_enable=False)

Of = Annotated[str | None, typer.Option("--source", help="Only rows of this source, as `quarantine list` names it.")]
Everything = Annotated[bool, typer.Option("--all", help="Also rows that were loaded later, or dropped.")]


@group.callback()
def quarantine(
    context: typer.Context,
    home: HomeOption = DEFAULT_HOME,
    source: Of = None,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Show rows that broke a rule, export and correct them, load them after all; alone it is `quarantine list`.

    Example: cancellations quarantine list
    """
    if context.invoked_subcommand is None:
        show(home, source, everything, as_json)
        return
    for name in context.params:
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            raise BadInput(f"options belong behind the word: cancellations quarantine {context.invoked_subcommand} …")


def show(
    home: HomeOption = DEFAULT_HOME, source: Of = None, everything: Everything = False, as_json: Json = False
) -> None:
    """Show rows that wait in quarantine, with what is wrong with each; how many break which rule comes first.

    Example: cancellations quarantine list --source hotels.csv
    """
    rows = _rows(application(home), source, everything)
    from cancellations.usecases.quarantine import kinds

    if as_json:
        rules = [{"problem": kind, "rows": count} for kind, count in kinds(rows)]
        print_json({"rows": [_record(r) for r in rows], "rules": rules})
        return
    voice = Voice()
    if not rows:
        voice.say("no row waits in quarantine" if not everything else "no row has been in quarantine")
        return
    for kind, count in kinds(rows):
        voice.say(f"{count:>8,}  {_cut(kind, PROBLEM_SHOWN)}")
    voice.say("")
    for r in rows[:SHOWN]:
        state = "" if r.state == "waiting" else f", {r.state}" + (f": {r.reason}" if r.reason else "")
        voice.say(f"{r.number:>6}  {r.row.source}, row {r.row.row:,}{state}", "bold")
        for problem in r.row.problems:
            voice.say(f"        {_cut(problem, PROBLEM_SHOWN)}")
        voice.say(f"        {_some_values(r)}")
    voice.say(f"{min(SHOWN, len(rows)):,} of {len(rows):,} rows; all of them: cancellations quarantine export FILE.csv")


def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The CSV file to write.")],
    home: HomeOption = DEFAULT_HOME,
    source: Of = None,
    as_json: Json = False,
) -> None:
    """Write waiting rows with their original values to a CSV file, to be corrected there.

    Texts that a spreadsheet would take for formulas have an apostrophe in front; `retry --file` takes it off.

    Example: cancellations quarantine export broken.csv
    """
    rows = _rows(application(home), source, everything=False)
    from cancellations.usecases.quarantine import exported

    _write(exported(rows), out)
    if as_json:
        print_json({"rows": len(rows), "file": str(out)})
        return
    Voice().say(
        f"{len(rows):,} rows written to {out}; correct them there, then: cancellations quarantine retry --file {out}"
    )


def retry(
    numbers: Annotated[list[int] | None, typer.Argument(help="Rows by their numbers. Default: all that wait.")] = None,
    home: HomeOption = DEFAULT_HOME,
    file: Annotated[Path | None, typer.Option(help="An exported file with corrected values; its rows go.")] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="Read the rows by this mapping. Default: the one that they were read by.")
    ] = None,
    source: Of = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Read waiting rows again and load those that break no rule any more.

    Example: cancellations quarantine retry --file broken.csv
    """
    voice, app = Voice(), application(home)
    lines = None if file is None else _read(file)
    done = app.retry_quarantined(
        until=today(app, as_of), numbers=numbers or None, source=source, mapping=mapping, lines=lines
    )
    if as_json:
        _print(done)
    else:
        _tell(done, voice)
    with app.store.begin() as work:
        reading = work.open_trial() is not None
    if reading and any(load.counts.outcomes for load in done.loads):
        send(app, errors() if as_json else voice)


def drop(
    numbers: Annotated[list[int], typer.Argument(help="Rows by their numbers.")],
    reason: Reason,
    home: HomeOption = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Let go of rows that are not wanted; they stay on record, and wait no more.

    Example: cancellations quarantine drop 12 --reason "a test booking"
    """
    dropped = application(home).drop_quarantined(numbers, reason)
    if as_json:
        print_json({"dropped": dropped, "reason": reason})
    else:
        Voice().say(f"{dropped:,} {'row' if dropped == 1 else 'rows'} dropped: {reason}")


COMMANDS: dict[str, Callable[..., None]] = {"list": show, "export": export, "retry": retry, "drop": drop}


def _rows(app: App, source: str | None, everything: bool) -> list[Quarantined]:
    from cancellations.ports import QuarantineState

    return app.quarantined(source, *(() if everything else (QuarantineState.WAITING,)))


def _record(r: Quarantined) -> dict[str, Any]:
    own = {"number": r.number, "state": r.state, "recorded_at": r.recorded_at, "settled_at": r.settled_at}
    return {**own, "reason": r.reason, **vars(r.row)}


def _some_values(r: Quarantined) -> str:
    """The booking's id, where it is known, then the first values that say something."""
    told = [f"{name} {_cut(str(value), VALUE_SHOWN)}" for name, value in r.row.values.items() if value is not None]
    more = " …" if len(told) > VALUES_SHOWN else ""
    return (f"{r.row.reservation_id}: " if r.row.reservation_id else "") + ", ".join(told[:VALUES_SHOWN]) + more


def _cut(text: str, longest: int) -> str:
    text = " ".join(text[: longest + 1].split()) if text.strip() else repr(text[:longest])
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _tell(done: Retried, voice: Voice) -> None:
    tell_loads(done.loads, voice)
    voice.say(f"{len(done.settled):,} rows left quarantine, {len(done.waiting):,} wait on")
    for r in done.waiting[:SHOWN]:
        voice.say(f"{r.number:>6}  {r.row.source}, row {r.row.row:,}: {_cut('; '.join(r.row.problems), PROBLEM_SHOWN)}")
    if len(done.waiting) > SHOWN:
        voice.say(f"        … and {len(done.waiting) - SHOWN:,} more")
    if done.undecided:
        voice.say(
            f"{len(done.undecided):,} share the id of a row that was loaded ({_numbers(done.undecided)}):"
            " name those that are right, and drop the others"
        )
    if done.unmapped:
        voice.say(
            f"{len(done.unmapped):,} were read by no mapping, as the simulator's are ({_numbers(done.unmapped)}):"
            " nothing can read them again; give a --mapping, or drop them"
        )


def _numbers(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")


def _print(done: Retried) -> None:
    loads = [{**vars(load.counts), "number": load.number, "state": load.state} for load in done.loads]
    waiting = [_record(r) for r in done.waiting]
    rest = {"settled": done.settled, "unmapped": done.unmapped, "undecided": done.undecided}
    print_json({"loads": loads, "waiting": waiting, **rest})


def _read(path: Path) -> list[list[str]]:
    """The lines of a CSV file, separated as a spreadsheet of either custom saves it."""
    # As long as anything that quarantine keeps.
    csv.field_size_limit(64_000_000)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = ";" if header.count(";") > header.count(",") else ","
            return [line for line in csv.reader(file, delimiter=delimiter, strict=True) if line]
    except UnicodeDecodeError as error:
        raise BadInput(f"--file {path} is not written in UTF-8; save it as CSV UTF-8") from error
    except csv.Error as error:
        raise BadInput(f"--file {path} is no whole CSV file: {error}") from error
    except OSError as error:
        raise BadInput(f"--file {path} cannot be read: {error.strerror or error}") from error


def _write(lines: Iterable[list[str]], path: Path) -> None:
    """All or nothing: a corrected file is not overwritten by half of a new one."""
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise BadInput(f"{path} is no file; name one, in a folder that exists")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
        part.replace(target)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
