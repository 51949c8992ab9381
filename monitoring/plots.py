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
from cancellations.domain.promotion import Trial
from cancellations.ports import Overview, StoredDecision


class ReportPictures:
    """Adapter of `ports.Pictures`."""

    def drift(self, current: StoredDecision, earlier: Sequence[StoredDecision]) -> bytes:
        from monitoring.report_plots import draw_drift

        return draw_drift(current, earlier)

    def overview(self, found: Overview) -> Mapping[str, bytes]:
        from monitoring.page_plots import draw_columns, draw_losses, draw_scores, draw_time_line

        return {
            "drift": self.drift(found.stored, found.decisions),
            "columns": draw_columns(found.stored.report, found.observation),
            "scores": draw_scores(found.observation),
            "losses": draw_losses(found),
            "time_line": draw_time_line(found),
        }

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
