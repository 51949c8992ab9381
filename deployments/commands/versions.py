"""Commands that look at versions: is one what its record says, and how do two do on the same bookings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cancellations.domain.evaluation import FIGURES, Interval
from cancellations.errors import BadInput, Refused
from deployments.commands.application import application, today
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json
from deployments.commands.words import TROUBLE
from deployments.console import Voice, one_line, print_json

if TYPE_CHECKING:
    from cancellations.usecases.compare import Compared, Part, Side, SideBySide
    from cancellations.usecases.reproduce import Differs, Reproduction

# Two months of outcomes: enough for weeks of all kinds, and of one season still.
DAYS = 56
# More differences of packages are no line to read; `--json` has all of them.
PACKAGES_SHOWN = 10


def reproduce(
    version: Annotated[str, typer.Argument(help="A version of `history`.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Fit a version again from its own data, recipe and seed, and compare probabilities; 1 when they are not equal.

    Example: cancellations reproduce 3
    """
    voice, app = Voice(), application(home)
    with voice.working(f"fitting version {version} again"):
        found = app.reproduce(version)
    if as_json:
        told = {"digest_matches": found.digest_matches, "equal": found.equal, "verdict": found.verdict}
        print_json({**vars(found), **told})
    else:
        _tell_reproduction(found, voice)
    if not found.equal:
        raise typer.Exit(Refused.exit_code)


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A version of `history`, the older one say.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one; gains are those of B.")],
    days: Annotated[int, typer.Option(min=1, help="Bookings whose outcomes became final in so many days.")] = DAYS,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also write the picture there, in place of what it holds.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Put two versions side by side on bookings that neither can have learnt from, and keep the picture in MLflow.

    Example: cancellations compare 1 2 --as-of 2016-09-05 --picture versions.png
    """
    if picture is not None and picture.suffix.lower() != ".png":
        raise BadInput(f"--picture {picture} is no name of a picture; it ends in .png")
    voice, app = Voice(), application(home)
    with voice.working(f"scoring with versions {first} and {second}"):
        compared = app.compare(first, second, as_of=today(app, as_of), days=days)
    if picture is not None:
        _write(compared.picture, picture)
    if as_json:
        files = {"kept": compared.kept, "picture": picture}
        print_json({**vars(compared.found), **files})
    else:
        _tell_comparison(compared, picture, voice)


def _write(drawn: bytes, path: Path) -> None:
    try:
        path.write_bytes(drawn)
    except OSError as error:
        raise BadInput(f"--picture {path} cannot be written: {error.strerror or error}") from error


def _tell_reproduction(found: Reproduction, voice: Voice) -> None:
    voice.say(f"Version {found.version}, made by recipe {found.recipe or 'without a name'}", "bold")
    state = "as registered" if found.digest_matches else f"registered as {found.registered_digest}"
    voice.fact("data", f"{found.rows:,} bookings, digest {found.digest}: {state}")
    voice.fact("fit", f"as of {found.as_of}, seed {found.seed}")
    voice.fact("code", "as it was" if found.code is None else _differs(found.code))
    packages = [f"{each.name} {_differs(each)}" for each in found.packages[:PACKAGES_SHOWN]]
    if more := len(found.packages) - len(packages):
        packages.append(f"and {more:,} more; --json has all of them")
    voice.fact("packages", *(packages or ["as they were"]))
    settings = [f"{each.name} {_differs(each)}: fitted with what it was" for each in found.settings]
    voice.fact("settings", *(settings or ["as they were"]))
    voice.fact("difference", f"{found.largest_difference:.3g} at most, on {found.compared:,} rows")
    voice.tell(found.verdict, style="" if found.equal else TROUBLE)


def _differs(each: Differs) -> str:
    return f"{each.then or 'absent'} then, {each.now or 'absent'} now"


def _tell_comparison(compared: Compared, picture: Path | None, voice: Voice) -> None:
    found = compared.found
    voice.say(
        f"Versions {found.first.version} and {found.second.version} on {found.bookings:,} bookings that neither can"
        " have learnt from",
        "bold",
    )
    voice.say(
        f"final {found.matured_from} to {found.matured_until}, {found.groups:,} booking groups,"
        f" {found.cancel_rate:.1%} cancelled"
    )
    if found.left_out:
        more = f"{found.left_out:,} more became final"
        voice.say(f"{more}, of which one of them may have learnt, or upon which somebody acted")
    _tell_sides(found, voice)
    voice.say("")
    voice.tell(_verdict(found), style="bold")
    _tell_parts(found, voice)
    _tell_disagreements(found, voice)
    voice.say(f"\nkept in MLflow with version {found.second.version}: {compared.kept}")
    if picture is not None:
        voice.say(f"picture: {picture}")


def _verdict(found: SideBySide) -> str:
    second = f"version {found.second.version}"
    saved = f"{second} saves {found.gain.value:+.4f} of log loss per booking"
    low, high = found.gain.low, found.gain.high
    if low is None or high is None:
        sure = "of too few maturity days to tell it from chance"
    else:
        chance = "which may be chance" if low <= 0 <= high else "which chance does not explain"
        sure = f"({low:+.4f} to {high:+.4f}, by maturity days), {chance}"
    return f"{saved} {sure}; probabilities are {found.apart:.1%} apart on average"


def _tell_sides(found: SideBySide, voice: Voice) -> None:
    def line(name: str, first: str, second: str) -> str:
        return f"{name:<20}  {first:<32}  {second}".rstrip()

    def made(side: Side) -> dict[str, str]:
        rows = "not on record" if side.training_rows is None else f"{side.training_rows:,} bookings"
        return {
            "trained as of": str(side.trained_as_of),
            "recipe": side.recipe or "not on record",
            "learnt from": rows,
            "digest": side.data_digest[:32],
        }

    sides = found.first, found.second
    voice.heading(line("", *_names(found)))
    first, second = (made(side) for side in sides)
    for name in first:
        voice.say(line(name, one_line(first[name]), one_line(second[name])))
    for name, title in FIGURES.items():
        voice.say(line(title, *(_bounded(side.evaluation.figures.get(name)) for side in sides)))


def _tell_parts(found: SideBySide, voice: Voice) -> None:
    def line(name: str, bookings: str, cancelled: str, first: str, second: str, saved: str) -> str:
        return f"{name:<22}  {bookings:>8}  {cancelled:>9}  {first:>11}  {second:>11}  {saved}"

    first, second = _names(found)
    voice.heading(line("log loss by", "bookings", "cancelled", first, second, f"saved by {second}"))
    for part in found.parts:
        voice.say(
            line(
                _named(part),
                f"{part.bookings:,}",
                f"{part.cancel_rate:.1%}",
                f"{part.first:.4f}",
                f"{part.second:.4f}",
                _signed(part.gain),
            )
        )


def _tell_disagreements(found: SideBySide, voice: Voice) -> None:
    def line(first: str, second: str, became: str, arrival: str, hotel: str, segment: str, name: str) -> str:
        return f"{first:>9}  {second:>9}  {became:<9}  {arrival:<10}  {hotel:<14}  {segment:<14}  {name}"

    if not found.disagreements:
        voice.say("\nthey give each booking the same probability")
        return
    first, second = _names(found)
    voice.heading("Where they disagree most")
    voice.say(line(first, second, "became", "arrival", "hotel", "segment", "reservation"), "bold")
    for one in found.disagreements:
        voice.say(
            line(
                f"{one.first:.3f}",
                f"{one.second:.3f}",
                "cancelled" if one.cancelled else "kept",
                str(one.arrival_on),
                one_line(one.hotel)[:14],
                one_line(one.market_segment or "not told")[:14],
                one_line(one.reservation_id),
            )
        )


def _names(found: SideBySide) -> tuple[str, str]:
    return f"version {found.first.version}", f"version {found.second.version}"


def _named(part: Part) -> str:
    return one_line("not told" if part.value is None else part.value)[:22]


def _bounded(interval: Interval | None) -> str:
    return "cannot be told" if interval is None else str(interval)


def _signed(interval: Interval) -> str:
    bounds = "" if interval.low is None else f" ({interval.low:+.4f} to {interval.high:+.4f})"
    return f"{interval.value:+.4f}{bounds}"
