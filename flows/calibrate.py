"""Learns the monitor's thresholds from the house's own past."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from cancellations.domain.calibration import Calibration
from cancellations.errors import NotEnoughData
from flows.application import application, named, publish, refused, table


@task(cache_policy=NO_CACHE)
def learn(as_of: date, keep: bool) -> Calibration:
    app, log = application(), get_run_logger()
    found = app.calibrate(
        as_of=as_of, on_champion=lambda done, of: log.info("%d of %d past champions looked at", done, of)
    )
    if keep:
        app.keep_calibration(found)
    return found


@flow(name="calibrate", flow_run_name=named("calibrate"))
def calibrate(as_of: date | None = None, keep: bool = True) -> State | None:
    """Trains champions of the past, looks at their first weeks, and sets thresholds by what their signals have shown.

    Args:
        as_of: The day that counts as today; looks at later windows use the thresholds. Empty: the calendar's.
        keep: Keep what was learned. Without it the run shows the table, and thresholds stay as they are.
    """
    try:
        found = learn(as_of or application().settings.today, keep)
    except NotEnoughData as error:
        return refused(error)
    publish("calibration", _told(found, application().thresholds_set), f"Thresholds learned as of {found.as_of}")
    return None


def _told(found: Calibration, by_hand: list[str]) -> str:
    rows: list[list[object]] = []
    for own in found.learned:
        note = own.why or ("set by hand, which counts" if own.signal in by_hand else "")
        shown = ["–" if value is None else f"{value:.3g}" for value in (own.median, own.highest)]
        alarmed = f"{own.alarmed_before}, then {own.alarmed} of {own.champions}"
        rows.append([own.signal, *shown, f"{own.documented:g}", f"{own.threshold:g}", alarmed, note])
    headings = ["signal", "median", "highest", "documented", "learned", "champions under which it alarmed", ""]
    walked = f"Past champions trained {found.first} to {found.last}, each watched for {found.weeks} weeks."
    return f"{walked}\n\n{table(headings, rows)}"
