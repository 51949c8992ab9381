"""The command that invents reservations, and says how like real ones they are."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cancellations.errors import BadInput, Refused
from deployments.commands.options import Json, day
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.domain.fidelity import Fidelity

DAYS, SEED = 730, 20
FIRST = date(2015, 10, 5)


def simulate(
    file: Annotated[
        Path | None, typer.Argument(help="Where to: a .csv, .csv.gz or .parquet file. None with --compare.")
    ] = None,
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help=f"The first day on which guests book. Default: {FIRST}."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days of booking; arrivals go on for up to 540 more.")] = DAYS,
    scale: Annotated[
        float, typer.Option(help="Times the 163 bookings a day of two hotels; above 1 there are more hotels.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same world.")] = SEED,
    drift: Annotated[
        list[str] | None,
        typer.Option(
            help="A lasting change, as price_shock:2016-03-01:1.5; may be repeated. docs/simulator.md lists the kinds."
        ),
    ] = None,
    truth: Annotated[
        bool, typer.Option("--truth", help="Keep true_probability, the odds that each ending was drawn by.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    compare: Annotated[
        Path | None,
        typer.Option(help="Instead of writing: compare with this real table, on the days that it holds whole."),
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="Mapping of the real table. Default: as `ingest` finds it.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the comparison to this PNG file.")] = None,
    as_json: Json = False,
) -> None:
    """Write invented reservations to a file that `ingest` reads, or compare them with a real table; needs no --home.

    Example: cancellations simulate bookings.parquet --days 365 --drift price_shock:2016-03-01:1.5
    """
    drifts = tuple(drift or ())
    if (file is None) == (compare is None):
        raise BadInput("name the file to write, or a real table to --compare with; one of them")
    if compare is not None:
        if scale != 1 or truth or force or first is not None or days != DAYS:
            raise BadInput("--from, --days, --scale, --truth and --force are for a file; --compare takes none of them")
        _compare(compare, mapping, seed, drifts, picture, as_json)
        return
    if mapping is not None or picture is not None:
        raise BadInput("--mapping and --picture belong to --compare")
    assert file is not None
    if file.exists() and not force:
        raise Refused(f"{file} is there already; name another file, or write over it with --force")
    from cancellations.bootstrap import Simulation, write_simulated

    voice = Voice()
    begins = day(first) or FIRST
    simulation = Simulation(begins, days, seed, scale, drifts)
    with _progress(voice, file, begins, days) as shown:
        written = write_simulated(simulation, file, truth=truth, shown=shown)
    if as_json:
        print_json({"file": str(file), "simulation": simulation, "written": written})
        return
    voice.say(
        f"{file}: {written.rows:,} bookings of {written.hotels} hotels, made on {days:,} days from {begins},"
        f" {written.size_bytes / 1e6:,.1f} MB"
    )
    voice.say(
        f"  {written.cancelled / written.rows:.1%} end cancelled, {written.grouped / written.rows:.0%} are booked in"
        " groups; every ending is told with its day"
    )
    for each in drifts:
        voice.say(f"  drift: {each}")
    if truth:
        voice.say("  true_probability is the answer: no feature of a model")
    voice.say(f"next: cancellations ingest {quote(str(file))} --as-of DAY tells what was known by that day")


@contextmanager
def _progress(voice: Voice, file: Path, first: date, days: int) -> Iterator[Callable[[date, int], None]]:
    """Shows the day that the world has come to; elsewhere than on a terminal nothing."""
    if not voice.console.is_terminal:
        yield lambda reached, rows: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    with Progress(*columns, console=voice.console, transient=True) as progress:
        task = progress.add_task(f"writing {file.name}", total=days, told="")
        yield lambda reached, rows: progress.update(
            task, completed=(reached - first).days + 1, told=f"{rows:,} bookings, {reached}"
        )


def _compare(
    real: Path, mapping: Path | None, seed: int, drifts: tuple[str, ...], picture: Path | None, as_json: bool
) -> None:
    from cancellations import settings
    from cancellations.bootstrap import compare_simulated

    voice = Voice()
    with voice.working(f"comparing with {real}"):
        found, drawn = compare_simulated(real, settings.load(), seed=seed, drifts=drifts, mapping=mapping)
    if picture is not None:
        _write(drawn, picture)
    if as_json:
        lines = [{**vars(line), "real": _known(line.real), "simulated": _known(line.simulated)} for line in found.lines]
        print_json({**vars(found), "lines": lines, "picture": picture})
        return
    _tell(found, voice)
    if picture is not None:
        voice.say(f"\npicture: {picture}")


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _tell(found: Fidelity, voice: Voice) -> None:
    voice.fact("real", f"{found.real}: {found.rows[0]:,} bookings")
    voice.fact("simulated", f"{found.simulated}: {found.rows[1]:,} bookings")
    voice.fact("booked", f"{found.booked[0]} to {found.booked[1]}")
    width = max(len(line.figure) for line in found.lines)
    section = ""
    for line in found.lines:
        if line.section != section:
            section = line.section
            voice.heading(f"{section.capitalize():<{width + 2}}{'real':>10}{'simulated':>12}")
        voice.say(f"  {line.figure:<{width}}{_number(line.real):>10}{_number(line.simulated):>12}")
    told = {
        f"trained on {each.trained_on} ({each.trained:,}), scored on {each.scored_on} ({each.scored:,})": each
        for each in found.learned
    }
    width = max(map(len, told))
    voice.heading(f"{'What a model learns':<{width + 2}}{'AUC':>10}{'log loss':>12}")
    for name, each in told.items():
        voice.say(f"  {name:<{width}}{each.auc:>10.3f}{each.log_loss:>12.3f}")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _write(drawn: bytes, target: Path) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(drawn)
        part.replace(target)
    except OSError as error:
        raise BadInput(
            f"{target} cannot be written: {error.strerror or error}. Name another file with --picture."
        ) from error
    finally:
        part.unlink(missing_ok=True)
