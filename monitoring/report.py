"""One window, measured: its signals, every column's drift, and Evidently's page of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cancellations.domain.retraining import ColumnDrift, MonitorReport, Signal, Verdict, Window
from cancellations.ports import Observation
from cancellations.settings import MonitorSettings
from monitoring import classifier, drift, in_flight, performance, volume
from monitoring.columns import LABEL, Sides


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

    `distance` measures columns and scores: Evidently, or its twin in `monitoring.distances` for repetitions.
    """

    def __init__(self, settings: MonitorSettings, distance: drift.Distance = drift.evidently) -> None:
        self.settings = settings
        self.distance = distance

    def measure(self, observation: Observation) -> EvidentlyMeasurement:
        """Never raises because of what a window holds: what can't be evaluated is reported so."""
        rows = len(observation.current)
        obstacle = self._obstacle(observation)
        columns: tuple[ColumnDrift, ...] = ()
        compared = None
        if obstacle:
            signals = [
                self._not_evaluated(drift.NAME, self.settings.column_drift, rows, obstacle),
                self._not_evaluated(classifier.NAME, self.settings.classifier_auc, rows, obstacle),
            ]
        else:
            sides = Sides.of(observation.reference, observation.current, self.settings.sample_rows)
            columns, compared = drift.column_drift(sides, observation.importance, self.distance)
            signals = [
                drift.column_signal(columns, rows, self.settings.column_drift, self._weight(drift.NAME)),
                classifier.domain_classifier(sides, rows, self.settings.classifier_auc, self._weight(classifier.NAME)),
            ]
        signals += self._others(observation)
        report = MonitorReport(
            champion=observation.champion,
            window=Window(observation.start, observation.end),
            rows=rows,
            reference_rows=len(observation.reference),
            signals=tuple(signals),
            columns=columns,
        )
        return EvidentlyMeasurement(report, compared)

    def _others(self, observation: Observation) -> list[Signal]:
        """Signals that look at scores and outcomes, not at columns."""
        knobs = self.settings
        scores = (observation.reference_probability, observation.probability, knobs.min_rows)
        return [
            *performance.realised(
                observation.matured_label,
                observation.matured_probability,
                observation.matured_groups,
                knobs.min_matured_rows,
                (knobs.excess_loss, knobs.calibration_bias),
                (self._weight(performance.EXCESS), self._weight(performance.BIAS)),
            ),
            in_flight.in_flight_signal(observation.in_flight, knobs.in_flight, self._weight(in_flight.NAME)),
            drift.prediction_drift(
                *scores, knobs.prediction_drift, self._weight(drift.PREDICTIONS), distance=self.distance
            ),
            performance.estimated_loss(*scores, knobs.estimated_loss, self._weight(performance.ESTIMATED)),
            volume.volume_signal(observation.volume, knobs.volume, self._weight(volume.NAME)),
        ]

    def _obstacle(self, observation: Observation) -> str:
        """Why the window as a whole cannot be held against the reference; empty when it can."""
        for side, frame in (("window", observation.current), ("training reference", observation.reference)):
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
