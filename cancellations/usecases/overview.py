"""One decided window in the history of its home, gathered for the report page and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.labels import LabelRule
from cancellations.errors import BadInput
from cancellations.ports import Overview, Pictures, Registry, Store, StoredDecision, UnitOfWork
from cancellations.usecases.monitor import Rhythm, observe


def overview(
    store: Store,
    registry: Registry,
    *,
    window: date | None,
    rhythm: Rhythm,
    rule: LabelRule,
    open_bookings: InFlightPolicy,
) -> Overview:
    """The window that ends on a day, or without one the last; raises `BadInput` where there is no decision about it.

    Bookings are read again, as known on the window's last day, with the scores and features that were stored.
    """
    with store.begin() as work:
        decisions = _decisions(work)
        stored = _chosen(decisions, window)
        champion = work.version(stored.report.champion)
        assert champion is not None, "a version is recorded before it is watched"
        ends, starts = stored.report.window.end, stored.report.window.start
        observation, _ = observe(work, registry, champion, ends, rhythm, rule, open_bookings)
        return Overview(
            stored,
            champion,
            observation,
            tuple(decisions),
            tuple(work.ledger()),
            tuple(work.trials()),
            tuple(work.requests()),
            tuple(day for day in work.checks(until=ends) if day.findings and day.day >= starts),
        )


def draw(found: Overview, pictures: Pictures) -> Mapping[str, bytes]:
    """The page's pictures (PNG) by their places on it."""
    stored, report = found.stored, found.stored.report
    return {
        "drift": pictures.drift(stored, found.decisions),
        "columns": pictures.columns(report, found.observation),
        "scores": pictures.scores(found.observation),
        "losses": pictures.losses(found.decisions, report.window),
        "time_line": pictures.time_line(found.decisions, found.ledger, found.trials, found.requests, report.window),
    }


def _decisions(work: UnitOfWork) -> list[StoredDecision]:
    """All decisions of the home, oldest window first."""
    versions = dict.fromkeys(row.champion for row in work.ledger() if row.champion is not None)
    found = [stored for version in versions for stored in work.decisions(version)]
    return sorted(found, key=lambda stored: (stored.report.window.end, stored.recorded_at))


def _chosen(decisions: list[StoredDecision], window: date | None) -> StoredDecision:
    if not decisions:
        raise BadInput("there is nothing to report: no window was looked at yet. `cancellations monitor` looks at one")
    if window is None:
        return decisions[-1]
    # Two champions may have been held against the same window; the later look counts.
    for stored in reversed(decisions):
        if stored.report.window.end == window:
            return stored
    known = ", ".join(str(stored.report.window.end) for stored in decisions[-6:])
    raise BadInput(f"no window that was looked at ends on {window}; the last ones end on {known}")
