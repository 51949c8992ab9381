"""`cancellations calibrate`: thresholds of the monitor from the house's own past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cancellations.errors import BadInput
from deployments.commands.application import application, errors, today
from deployments.commands.options import DEFAULT_HOME, AsOf, HomeOption, Json
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from cancellations.domain.calibration import Calibration, Learned


def calibrate(
    home: HomeOption = DEFAULT_HOME,
    as_of: AsOf = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be learned, and keep nothing.")] = False,
    documented: Annotated[
        bool, typer.Option("--documented", help="Learn nothing: go back to the documented thresholds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Learn the monitor's thresholds from what its signals have shown of past champions; some two minutes.

    Example: cancellations calibrate --as-of 2016-10-03
    """
    if dry_run and documented:
        raise BadInput("--dry-run and --documented: give one of them")
    voice, app = Voice(), application(home)
    day = today(app, as_of)
    if documented:
        app.forget_calibration(as_of=day)
        (errors() if as_json else voice).say(f"from {day} on the documented thresholds count again")
        return
    spoken = errors() if as_json else voice

    def tell(done: int, of: int) -> None:
        if done % 4 == 0 or done == of:
            spoken.say(f"  {done} of {of} past champions looked at ({spoken.elapsed():.0f} s)")

    with spoken.working("training past champions and looking at their first weeks"):
        found = app.calibrate(as_of=day, on_champion=tell)
    if not dry_run:
        app.keep_calibration(found)
    if as_json:
        print_json(found)
    else:
        tell_calibration(found, app.thresholds_set, voice)
        kept = "nothing was kept" if dry_run else f"kept: looks at windows that end on {day} or later use them"
        voice.say(kept)


def tell_calibration(found: Calibration, by_hand: Sequence[str], voice: Voice) -> None:
    """A line for each signal: its threshold, and the past that it comes from."""
    voice.tell(
        f"Past champions trained {found.first} to {found.last}, each watched for {found.weeks} weeks: how high each"
        " signal went, and under how many of them it alarmed, at its threshold so far and at the learned one."
    )
    voice.say(f"  {'signal':<24}{'median':>8}{'highest':>9}{'documented':>12}{'learned':>9}   alarmed under", "bold")
    for own in found.learned:
        seen = "".join(f"{'–' if value is None else format(value, '.3g'):>{width}}" for value, width in _seen(own))
        learned = "stays" if own.why else f"{own.threshold:g}"
        alarmed = f"{own.alarmed_before} of {own.champions}" + ("" if own.why else f", then {own.alarmed}")
        note = "; set by hand, which counts" if own.signal in by_hand else ""
        voice.say(f"  {own.signal:<24}{seen}{own.documented:>12g}{learned:>9}   {alarmed}{note}")
    for own in found.learned:
        if own.why:
            voice.tell(f"{own.signal} stays: {own.why}", "  ")


def _seen(own: Learned) -> tuple[tuple[float | None, int], ...]:
    return (own.median, 8), (own.highest, 9)
