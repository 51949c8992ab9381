"""The monitor: what it is shown, what it answers, and who draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from cancellations.domain.calibration import Calibration
from cancellations.domain.checks import DayCheck
from cancellations.domain.evaluation import Cohort, Evaluation
from cancellations.domain.in_flight import Slice
from cancellations.domain.promotion import LedgerRow, Trial
from cancellations.domain.retraining import MonitorReport, RetrainRequest
from cancellations.domain.volume import Volume
from cancellations.ports.store import StoredDecision, VersionRecord


@dataclass(frozen=True)
class Observation:
    """What the monitor looks at: one window and what it is held against.

    `reference` and `current`: features of the reference, which `against` names, and of the window's
    bookings; `probability`: the champion's scores of the window's bookings. `matured_label` and
    `matured_probability`: outcomes that became final since the champion was trained, with its
    scores of those bookings, `matured_groups` whose they are (`domain.reservation.group_keys`), and
    `matured_made_days_ago` when they were made, inf for those made before the champion was trained.
    `reference_probability`: its scores of the reference. `importance`: the champion's, by feature,
    summing to 1. `in_flight`: what has become so far of the bookings made since it was trained, empty
    where it is not known; `volume`: how many bookings came in. `calibration`: thresholds of the house's own,
    None while none were learned.
    """

    champion: str
    start: date
    end: date
    reference: pd.DataFrame
    current: pd.DataFrame
    probability: np.ndarray
    matured_label: np.ndarray
    matured_probability: np.ndarray
    importance: Mapping[str, float]
    in_flight: tuple[Slice, ...] = ()
    matured_groups: np.ndarray = field(default_factory=lambda: np.empty(0, dtype="uint64"))
    matured_made_days_ago: np.ndarray = field(default_factory=lambda: np.empty(0))
    reference_probability: np.ndarray = field(default_factory=lambda: np.empty(0))
    volume: Volume | None = None
    calibration: Calibration | None = None
    against: str = MonitorReport.reference


class Measurement(Protocol):
    """The report of an observation, and on demand the page that Evidently draws of it."""

    @property
    def report(self) -> MonitorReport: ...

    def save_html(self, path: Path) -> Path | None:
        """Writes Evidently's page; None when there was nothing that it could evaluate."""
        ...


class Monitor(Protocol):
    def measure(self, observation: Observation) -> Measurement: ...


class Pictures(Protocol):
    def drift(self, current: StoredDecision, earlier: Sequence[StoredDecision]) -> bytes:
        """PNG of a report: which columns drifted and how much they weigh, signals over windows."""
        ...

    def overview(self, found: Overview) -> Mapping[str, bytes]:
        """PNGs of the report page by their places on it: `drift`, `columns`, `scores`, `losses`, `time_line`."""
        ...

    def trial(self, trial: Trial) -> bytes:
        """PNG of a trial's evidence: the gain per booking over maturity days, between its bounds."""
        ...

    def outlook(self, as_of: date, nights: pd.DataFrame, currency: str) -> bytes:
        """PNG of the coming nights, by hotel, `nights` as `domain.outlook.by_night` gives them."""
        ...

    def version(
        self,
        name: str,
        cohort: Cohort,
        probability: np.ndarray,
        evaluation: Evaluation,
        base_rate: float,
        importance: Mapping[str, float],
    ) -> bytes:
        """PNG of what a version is worth on a cohort that it was not fitted on: reliability, scores by
        outcome, log loss by maturity week beside the base rate's, importance of its features. `name` is
        shown as it is; `base_rate`: cancelled share of the bookings that it was fitted on."""
        ...

    def comparison(self, first: str, second: str, cohort: Cohort, theirs: np.ndarray, ours: np.ndarray) -> bytes:
        """PNG of two versions on the same bookings, `theirs` the first one's probabilities, `ours` the
        second's: reliability, log loss saved by week and by segment, and where they disagree."""
        ...


@dataclass(frozen=True)
class Overview:
    """A decided window in the history of its home: what the report page shows.

    `stored` is the window's report and decision, `observation` what was looked at, read again as known on its
    last day. `decisions` are all of the home, whatever champion they are about, oldest window first; `ledger`,
    `trials`, `requests` likewise; `checks` those of the days that failed in the window. `beside`: the window held
    against the references that did not decide.
    """

    stored: StoredDecision
    champion: VersionRecord
    observation: Observation
    decisions: tuple[StoredDecision, ...]
    ledger: tuple[LedgerRow, ...]
    trials: tuple[Trial, ...]
    requests: tuple[RetrainRequest, ...]
    checks: tuple[DayCheck, ...] = ()
    beside: tuple[MonitorReport, ...] = ()
