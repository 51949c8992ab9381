"""One decided window in the history of its home, gathered for the report page and its pictures."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.labels import LabelRule
from cancellations.domain.reference import Design, ReferencePolicy
from cancellations.domain.retraining import MonitorReport
from cancellations.errors import BadInput
from cancellations.ports import (
    Monitor,
    Observation,
    Overview,
    Registry,
    Store,
    StoredDecision,
    UnitOfWork,
    VersionRecord,
)
from cancellations.usecases.monitor import Rhythm, observe, reference_of, scores_of

# Signals that hold a window against a reference; the others look at what bookings became.
OF_REFERENCE = ("column drift", "domain classifier", "prediction drift", "estimated loss")


def overview(
    store: Store,
    registry: Registry,
    watch: Monitor,
    *,
    window: date | None,
    rule: LabelRule,
    open_bookings: InFlightPolicy,
    against: ReferencePolicy,
) -> Overview:
    """The window that ends on a day, or without one the last; raises `BadInput` where there is no decision about it.

    Bookings are read again, as known on the window's last day, with the scores and features that were stored; the
    window is as long as it was then, and held against what it was held against, whatever the settings say today.
    """
    with store.begin() as work:
        decisions = sorted(work.decisions(), key=lambda each: (each.report.window.end, each.recorded_at))
        stored = _chosen(decisions, window)
        champion = work.version(stored.report.champion)
        assert champion is not None, "a version is recorded before it is watched"
        ends, starts = stored.report.window.end, stored.report.window.start
        rhythm = Rhythm((ends - starts).days + 1, step_days=1)
        decided = next((d for d in Design if against.named(d) == stored.report.reference), Design.TRAINING)
        against = replace(against, design=decided)
        observation, _ = observe(work, registry, champion, ends, rhythm, rule, open_bookings, against)
        return Overview(
            stored,
            champion,
            observation,
            tuple(decisions),
            tuple(work.ledger()),
            tuple(work.trials()),
            tuple(work.requests()),
            tuple(day for day in work.checks(until=ends) if day.findings and day.day >= starts),
            tuple(
                _beside(work, registry, watch, champion, observation, design, rule, against)
                for design in Design
                if design is not decided
            ),
        )


def _beside(
    work: UnitOfWork,
    registry: Registry,
    watch: Monitor,
    champion: VersionRecord,
    observation: Observation,
    design: Design,
    rule: LabelRule,
    against: ReferencePolicy,
) -> MonitorReport:
    """The window against another reference, by documented thresholds: what was learned is the deciding one's."""
    reference = reference_of(work, registry, champion, design, observation.start, observation.end, rule, against)
    other = replace(
        observation,
        reference=reference,
        reference_probability=scores_of(registry, champion, reference),
        calibration=None,
        against=against.named(design),
    )
    report = watch.measure(other).report
    return replace(report, signals=tuple(s for s in report.signals if s.name in OF_REFERENCE))


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
