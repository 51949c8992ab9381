"""Looks for drift and decides; a decision to act leaves the house before the run ends."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State

from cancellations.bootstrap import REPORT_FILE
from cancellations.errors import Refused
from cancellations.ports import StoredDecision
from cancellations.usecases.monitor import Monitored
from flows.application import application, link, named, picture, publish, refused, table, tell
from flows.deliver import relay


@task
def look(after: date | None, until: date) -> Monitored:
    log = get_run_logger()

    def told(stored: StoredDecision) -> None:
        log.info("%s: %s; %s", stored.report.window, stored.decision.action, "; ".join(stored.decision.reasons))

    return application().monitor(after=after, until=until, on_look=told)


@flow(name="monitor", flow_run_name=named("monitor"))
def monitor(after: date | None = None, until: date | None = None) -> State | None:
    """Compares each window that ends in (after, until] with the champion's training reference.

    A decision to act writes a retrain request, rings the event that starts it, and mails the owners.

    Args:
        after: Looks at windows that end after this day, a week apart. Empty: goes on from the last look.
        until: The day that counts as today. Empty: the calendar's.
    """
    try:
        looked = look(after, until or application().settings.today)
    except Refused as error:
        return refused(error)
    if looked.decisions:
        publish("drift", _windows(looked.decisions), "Signals of each window, and what was decided")
    # What was decided leaves first: pictures and pages keep nobody waiting.
    tell(relay())
    if looked.decisions:
        _show(looked.decisions[-1])
    return None


def _windows(decisions: tuple[StoredDecision, ...]) -> str:
    rows: list[list[object]] = []
    for stored in decisions:
        told = [
            f"{'–' if s.value is None else format(s.value, '.3f')} / {s.threshold:g} ({s.verdict})"
            for s in stored.report.signals
        ]
        rows.append([stored.report.window, stored.report.rows, *told, stored.decision.action])
    names = [s.name for s in decisions[-1].report.signals]
    return table(["window", "bookings", *(f"{n}: value / threshold" for n in names), "decision"], rows)


def _show(stored: StoredDecision) -> None:
    """Columns, picture and links of the last window."""
    app = application()
    columns = sorted(stored.report.columns, key=lambda c: (-c.drifted, -c.weight))
    rows: list[list[object]] = [
        [
            c.column,
            f"{c.weight:.0%}",
            "–" if c.score is None else f"{c.score:.3f} / {c.threshold:g}",
            c.why or ("drifted" if c.drifted else "ok"),
            c.before,
            c.after,
        ]
        for c in columns
    ]
    headings = ["column", "weight", "score / threshold", "verdict", stored.report.reference, "this window"]
    reasons = "\n".join(f"- {reason}" for reason in stored.decision.reasons)
    publish(
        "drift-columns",
        f"**{stored.decision.action}** — {stored.report.window}\n\n{reasons}\n\n{table(headings, rows)}",
        f"Columns of the last window against {stored.report.reference}",
    )
    with app.store.begin() as work:
        history = work.decisions(stored.report.champion)
    earlier = [d for d in reversed(history) if d.report.window.end < stored.report.window.end]
    picture("drift-picture", app.pictures.drift(stored, earlier), str(stored.report.window))
    champion = stored.report.champion
    link("champion", app.registry.version_address(champion), f"champion {champion}")
    if stored.request_id is not None:
        address = app.keep_report(stored)
        link("evidently-report", address, "Evidently's report")
        link("report", address and f"{address}/{REPORT_FILE}", "the window's report")
