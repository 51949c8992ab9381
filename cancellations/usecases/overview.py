"""One decided window in the history of its home, gathered for the report page and its pictures."""

from __future__ import annotations

from datetime import date

from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.labels import LabelRule
from cancellations.errors import BadInput
from cancellations.ports import Overview, Registry, Store, StoredDecision
from cancellations.usecases.monitor import Rhythm, observe


def overview(
    store: Store,
    registry: Registry,
    *,
    window: date | None,
    rule: LabelRule,
    open_bookings: InFlightPolicy,
) -> Overview:
    """The window that ends on a day, or without one the last; raises `BadInput` where there is no decision about it.

    Bookings are read again, as known on the window's last day, with the scores and features that were stored; the
    window is as long as it was then, whatever the settings say today.
    """
    with store.begin() as work:
        decisions = sorted(work.decisions(), key=lambda each: (each.report.window.end, each.recorded_at))
        stored = _chosen(decisions, window)
        champion = work.version(stored.report.champion)
        assert champion is not None, "a version is recorded before it is watched"
        ends, starts = stored.report.window.end, stored.report.window.start
        rhythm = Rhythm((ends - starts).days + 1, step_days=1)
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
