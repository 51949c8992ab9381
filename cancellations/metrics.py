"""The figures of a version on final outcomes, each with a bootstrap interval by booking group.

The definitions are those of scikit-learn, which takes weights too but sorts all rows anew for each
resample; here they are sorted once. Calibration error is the expected absolute one: over ten bins of
as many rows each, the mean of |mean probability - cancelled share| (Naeini et al. 2015, with bins of
equal count).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cancellations.domain.comparison import log_loss
from cancellations.domain.evaluation import (
    AUC,
    AVERAGE_PRECISION,
    BIAS,
    BRIER,
    CALIBRATION_ERROR,
    CONFIDENCE,
    LOG_LOSS,
    RESAMPLES,
    Evaluation,
    Interval,
    bounds,
    equal_count_bins,
    resampled,
)
from cancellations.errors import BadInput, NotEnoughData


@dataclass(frozen=True)
class GroupBootstrap:
    """Adapter of `ports.Evaluator`.

    Intervals are percentiles of the resampled figures. Noise makes a calibration error larger and never
    smaller, so percentiles would miss the truth; its interval is the value plus and minus what noise alone
    makes of the gaps in 95 % of resamples. By the triangle inequality it holds at least as often as it says,
    and 0 lies in it where the scores may be calibrated.
    """

    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE

    def evaluate(self, label: np.ndarray, probability: np.ndarray, groups: np.ndarray, seed: int) -> Evaluation:
        """Raises `NotEnoughData` without a row, `BadInput` for what is no label or no probability.

        Where all rows ended alike, AUC and average precision are None; with one booking group no figure
        has bounds.
        """
        label, probability, groups = (
            np.asarray(label, "float64"),
            np.asarray(probability, "float64"),
            np.asarray(groups),
        )
        _check(label, probability, groups)
        figures = _Figures(label, probability)
        found, gaps = figures.of(np.ones(len(label)))
        count = len(np.unique(groups))
        drawn = [figures.of(weight) for weight in resampled(groups, seed, self.resamples)] if count > 1 else []
        intervals = {
            name: None
            if np.isnan(value)
            else Interval(value, *bounds(np.array([other[name] for other, _ in drawn]), self.confidence))
            for name, value in found.items()
        }
        error, noise = np.abs(gaps).sum(), [np.abs(other - gaps).sum() for _, other in drawn]
        margin = np.quantile(noise, self.confidence) if noise else None
        intervals[CALIBRATION_ERROR] = (
            Interval(float(error), None, None)
            if margin is None
            else Interval(float(error), float(max(0.0, error - margin)), float(error + margin))
        )
        return Evaluation(len(label), count, intervals)


def _check(label: np.ndarray, probability: np.ndarray, groups: np.ndarray) -> None:
    if not len(label) == len(probability) == len(groups):
        raise BadInput(
            f"{len(label):,} labels, {len(probability):,} probabilities and {len(groups):,} groups were given;"
            " each booking needs one of each"
        )
    if len(label) == 0:
        raise NotEnoughData("there is no booking with a final outcome to evaluate on; choose a longer or later span")
    if not np.isin(label, (0.0, 1.0)).all():
        raise BadInput(f"{(~np.isin(label, (0.0, 1.0))).sum():,} labels are neither 0 (kept) nor 1 (cancelled)")
    outside = ~((probability >= 0) & (probability <= 1))
    if outside.any():
        raise BadInput(f"{outside.sum():,} of {len(label):,} probabilities are missing or not between 0 and 1")


class _Figures:
    """All figures of the same rows under changing weights; what the weights leave alone is computed once."""

    def __init__(self, label: np.ndarray, probability: np.ndarray) -> None:
        self._order = np.argsort(-probability, kind="stable")
        falling = probability[self._order]
        # Rows of equal probability are one step: none of them ranks before another.
        self._steps = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]])
        self._cancelled = label[self._order]
        self._bin = equal_count_bins(probability)
        self._error = probability - label
        self._loss = log_loss(label, probability)
        self._square = self._error**2

    def of(self, weight: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Figures by name, NaN where there is but one outcome; and each bin's part of the bias."""
        total = weight.sum()
        ranked = weight[self._order]
        cancelled = np.add.reduceat(ranked * self._cancelled, self._steps)
        kept = np.add.reduceat(ranked, self._steps) - cancelled
        figures = {
            AUC: _auc(cancelled, kept),
            AVERAGE_PRECISION: _average_precision(cancelled, kept),
            LOG_LOSS: float(weight @ self._loss / total),
            BRIER: float(weight @ self._square / total),
            BIAS: float(weight @ self._error / total),
        }
        return figures, np.bincount(self._bin, weight * self._error) / total


def _auc(cancelled: np.ndarray, kept: np.ndarray) -> float:
    """Share of pairs of a cancelled and a kept booking in the right order; arrays by falling probability."""
    pairs = cancelled.sum() * kept.sum()
    below = kept.sum() - np.cumsum(kept)
    return float(cancelled @ (below + kept / 2) / pairs) if pairs > 0 else float("nan")


def _average_precision(cancelled: np.ndarray, kept: np.ndarray) -> float:
    """Precision at each step, weighted by the recall that it adds; arrays by falling probability."""
    if cancelled.sum() == 0 or kept.sum() == 0:
        return float("nan")
    found = np.cumsum(cancelled)
    looked_at = found + np.cumsum(kept)
    precision = np.divide(found, looked_at, out=np.zeros(len(found)), where=looked_at > 0)
    return float(cancelled @ precision / cancelled.sum())
