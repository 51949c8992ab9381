"""One window, measured: its signals, every column's drift, and Evidently's page of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cancellations.domain.retraining import ColumnDrift, MonitorReport, Signal, Verdict, Window
from cancellations.ports import Observation
from cancellations.settings import MonitorSettings
from monitoring import classifier, drift, in_flight, performance, volume
from monitoring.columns import LABEL, Sides

# The setting of each signal's threshold.
KNOBS: Mapping[str, str] = {
    drift.NAME: "column_drift",
    classifier.NAME: "classifier_auc",
    performance.EXCESS: "excess_loss",
    performance.BIAS: "calibration_bias",
    in_flight.NAME: "in_flight",
    drift.PREDICTIONS: "prediction_drift",
    performance.ESTIMATED: "estimated_loss",
    volume.NAME: "volume",
}


def documented() -> dict[str, float]:
    """Each signal's threshold where nobody set one and nothing was learned."""
    return {name: float(MonitorSettings.model_fields[knob].default) for name, knob in KNOBS.items()}


def set_by_hand(settings: MonitorSettings) -> list[str]:
    """Signals whose threshold somebody set."""
    return [name for name, knob in KNOBS.items() if knob in settings.model_fields_set]


@dataclass(frozen=True)
class EvidentlyMeasurement:
    """Adapter of `ports.Measurement`; keeps what was compared until Evidently's page of it is wanted."""

    report: MonitorReport
    compared: drift.Compared | None = field(default=None, repr=False, compare=False)

    def save_html(self, path: Path) -> Path | None:
        """Writes Evidently's page (some 4 MB, works offline); None when no column could be evaluated."""
        if self.compared is None or not self.compared.features.names:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        self.compared.report().save_html(str(path))  # a Path would be ignored without a word
        return path


class EvidentlyMonitor:
    """Adapter of `ports.Monitor`. A signal that `settings.weights` does not name weighs nothing.

    For repetitions: `distance` measures columns and scores, by Evidently or by its twin in `monitoring.distances`;
    without `telling` nobody asks which columns tell a window from its reference.
    """

    def __init__(
        self, settings: MonitorSettings, distance: drift.Distance = drift.evidently, *, telling: bool = True
    ) -> None:
        self.settings = settings
        self.distance = distance
        self.telling = telling

    def measure(self, observation: Observation) -> EvidentlyMeasurement:
        """Never raises because of what a window holds: what can't be evaluated is reported so."""
        rows = len(observation.current)
        limits, learned = self._limits(observation)
        obstacle = self._obstacle(observation)
        columns: tuple[ColumnDrift, ...] = ()
        compared = None
        if obstacle:
            signals = [
                self._not_evaluated(drift.NAME, limits[drift.NAME], rows, obstacle),
                self._not_evaluated(classifier.NAME, limits[classifier.NAME], rows, obstacle),
            ]
        else:
            sides = Sides.of(observation.reference, observation.current, self.settings.sample_rows)
            columns, compared = drift.column_drift(sides, observation.importance, self.distance)
            weights = {name: self._weight(name) for name in (drift.NAME, classifier.NAME)}
            signals = [
                drift.column_signal(columns, rows, limits[drift.NAME], weights[drift.NAME]),
                classifier.domain_classifier(
                    sides, rows, limits[classifier.NAME], weights[classifier.NAME], telling=self.telling
                ),
            ]
        signals += self._others(observation, limits)
        by_hand = set_by_hand(self.settings)
        basis = {**learned, **dict.fromkeys(by_hand, "set by hand")}
        report = MonitorReport(
            champion=observation.champion,
            window=Window(observation.start, observation.end),
            rows=rows,
            reference_rows=len(observation.reference),
            signals=tuple(replace(s, basis=basis.get(s.name, "")) for s in signals),
            columns=columns,
            reference=observation.against,
        )
        return EvidentlyMeasurement(report, compared)

    def _limits(self, observation: Observation) -> tuple[dict[str, float], dict[str, str]]:
        """Thresholds by signal: set by hand, learned from the house's past, or documented; and which were learned."""
        limits = {name: float(getattr(self.settings, knob)) for name, knob in KNOBS.items()}
        learned: dict[str, str] = {}
        found, by_hand = observation.calibration, set_by_hand(self.settings)
        for name in KNOBS:
            own = None if found is None or name in by_hand else found.threshold(name)
            if own is not None and found is not None:
                limits[name], learned[name] = own, f"learned {found.as_of}"
        return limits, learned

    def _others(self, observation: Observation, limits: Mapping[str, float]) -> list[Signal]:
        """Signals that look at scores and outcomes, not at columns."""
        knobs = self.settings
        scores = (observation.reference_probability, observation.probability, knobs.min_rows)
        matured = performance.Matured.of(
            observation.matured_label,
            observation.matured_probability,
            observation.matured_groups,
            observation.matured_made_days_ago,
        )
        cohorts = performance.Cohorts(knobs.min_matured_rows, knobs.recent_days, knobs.min_recent_rows)
        return [
            performance.excess_loss(matured, cohorts, limits[performance.EXCESS], self._weight(performance.EXCESS)),
            performance.calibration_bias(matured, cohorts, limits[performance.BIAS], self._weight(performance.BIAS)),
            in_flight.in_flight_signal(observation.in_flight, limits[in_flight.NAME], self._weight(in_flight.NAME)),
            drift.prediction_drift(
                *scores, limits[drift.PREDICTIONS], self._weight(drift.PREDICTIONS), distance=self.distance
            ),
            performance.estimated_loss(*scores, limits[performance.ESTIMATED], self._weight(performance.ESTIMATED)),
            volume.volume_signal(observation.volume, limits[volume.NAME], self._weight(volume.NAME)),
        ]

    def _obstacle(self, observation: Observation) -> str:
        """Why the window as a whole cannot be held against the reference; empty when it can."""
        for side, frame in (("window", observation.current), ("reference", observation.reference)):
            if len(frame) < self.settings.min_rows:
                return f"{len(frame):,} bookings in the {side}, {self.settings.min_rows:,} are needed"
        names = set(observation.reference.columns) - {LABEL}
        if not names & set(observation.current.columns):
            return f"none of the champion's {len(names)} features is among the columns of the window"
        return ""

    def _weight(self, name: str) -> float:
        return self.settings.weights.get(name, 0.0)

    def _not_evaluated(self, name: str, threshold: float, rows: int, why: str) -> Signal:
        return Signal(name, None, threshold, Verdict.NOT_EVALUATED, self._weight(name), rows, why=why)
