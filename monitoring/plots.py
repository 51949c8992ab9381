"""Our pictures by what they show.

matplotlib costs half a second to import, and most runs draw nothing: whatever draws is imported by the
first picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd

from cancellations.domain.evaluation import Cohort, Evaluation
from cancellations.domain.promotion import LedgerRow, Trial
from cancellations.domain.retraining import MonitorReport, RetrainRequest, Window
from cancellations.ports import Observation, StoredDecision


class ReportPictures:
    """Adapter of `ports.Pictures`."""

    def drift(self, current: StoredDecision, earlier: Sequence[StoredDecision]) -> bytes:
        from monitoring.report_plots import draw_drift

        return draw_drift(current, earlier)

    def time_line(
        self,
        decisions: Sequence[StoredDecision],
        ledger: Sequence[LedgerRow],
        trials: Sequence[Trial],
        requests: Sequence[RetrainRequest],
        shown: Window,
    ) -> bytes:
        from monitoring.page_plots import draw_time_line

        return draw_time_line(decisions, ledger, trials, requests, shown)

    def columns(self, report: MonitorReport, observation: Observation) -> bytes:
        from monitoring.page_plots import draw_columns

        return draw_columns(report, observation)

    def scores(self, observation: Observation) -> bytes:
        from monitoring.page_plots import draw_scores

        return draw_scores(observation)

    def losses(self, decisions: Sequence[StoredDecision], shown: Window) -> bytes:
        from monitoring.page_plots import draw_losses

        return draw_losses(decisions, shown)

    def trial(self, trial: Trial) -> bytes:
        from monitoring.report_plots import draw_trial

        return draw_trial(trial)

    def outlook(self, as_of: date, nights: pd.DataFrame, currency: str) -> bytes:
        from monitoring.outlook_plot import draw

        return draw(as_of, nights, currency)

    def version(
        self,
        name: str,
        cohort: Cohort,
        probability: np.ndarray,
        evaluation: Evaluation,
        base_rate: float,
        importance: Mapping[str, float],
    ) -> bytes:
        from monitoring.model_plots import draw_version

        return draw_version(name, cohort, probability, evaluation, base_rate, importance)

    def comparison(self, first: str, second: str, cohort: Cohort, theirs: np.ndarray, ours: np.ndarray) -> bytes:
        from monitoring.model_plots import draw_comparison

        return draw_comparison(first, second, cohort, theirs, ours)
