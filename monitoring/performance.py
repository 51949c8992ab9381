"""Was the champion worse than it said? Realised figures of matured bookings, and what can be told before.

A calibrated model expects a log loss of exactly its scores' entropy. So the realised loss less that entropy is near
0 whatever the mix of easy and hard bookings, and grows only with realised harm; and the entropy itself is the loss
that may be expected of a window whose outcomes are still to come (confidence-based performance estimation), as long
as the model is calibrated there, which nothing but outcomes can show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cancellations.domain.comparison import log_loss
from cancellations.domain.retraining import Signal, Verdict, judge
from monitoring.columns import too_few_scores

EXCESS = "matured excess loss"
BIAS = "calibration bias"
ESTIMATED = "estimated loss"
TWO_SIDED = 1.96


@dataclass(frozen=True)
class Matured:
    """Bookings whose outcome became final since the champion was trained; one value per booking in each array.

    `groups`: whose a booking is, since those of a group are no independent evidence. `made_days_ago`: days from the
    booking to the end of the window, inf for one that was made before the training.
    """

    label: np.ndarray
    probability: np.ndarray
    groups: np.ndarray
    made_days_ago: np.ndarray

    @classmethod
    def of(
        cls,
        label: np.ndarray,
        probability: np.ndarray,
        groups: np.ndarray | None = None,
        made_days_ago: np.ndarray | None = None,
    ) -> Matured:
        """Leaves out pairs that are not finite; without groups each booking stands for itself."""
        label, probability = np.asarray(label, dtype=float), np.asarray(probability, dtype=float)
        rows = len(label)
        groups = np.arange(rows) if groups is None or len(groups) != rows else groups
        ago = np.full(rows, np.inf) if made_days_ago is None or len(made_days_ago) != rows else made_days_ago
        return cls(label, probability, groups, ago).only(np.isfinite(label) & np.isfinite(probability))

    def only(self, rows: np.ndarray) -> Matured:
        """Those that are chosen, bool of shape (rows,)."""
        return Matured(self.label[rows], self.probability[rows], self.groups[rows], self.made_days_ago[rows])

    def __len__(self) -> int:
        return len(self.label)

    @property
    def shares(self) -> tuple[str, str]:
        return (
            f"predicted cancellations {self.probability.mean():.1%}",
            f"realised cancellations {self.label.mean():.1%}",
        )


@dataclass(frozen=True)
class Cohorts:
    """How many bookings realised figures need, and which of them tell of a change first.

    Among all that became final since the training, those made before a change outnumber those made after it for
    months; bookings made in the last `recent_days` do not. They are few, so they count from `min_recent_rows` on and
    only when what they say cannot be chance.
    """

    min_rows: int = 1_500
    recent_days: int = 42
    min_recent_rows: int = 300


def excess_loss(matured: Matured, cohorts: Cohorts, threshold: float, weight: float) -> Signal:
    """Realised log loss less the one that the scores expect, nats per booking, with an interval by group.

    Of all bookings, or of those made lately where it is more there and its interval is above 0.
    """
    found = []
    if len(matured) >= cohorts.min_rows:
        found.append(_excess(matured, threshold, weight))
    lately = matured.only(matured.made_days_ago < cohorts.recent_days)
    if len(lately) >= cohorts.min_recent_rows:
        signal = _excess(lately, threshold, weight, f", made in the last {cohorts.recent_days} days")
        if signal.low is not None and signal.low > 0:
            found.append(signal)
    if not found:
        return _too_few(EXCESS, len(matured), cohorts, threshold, weight)
    return max(found, key=lambda signal: signal.value or 0.0)


def calibration_bias(matured: Matured, cohorts: Cohorts, threshold: float, weight: float) -> Signal:
    """Points between the realised and the predicted share of cancellations, either way, with an interval by group."""
    if len(matured) < cohorts.min_rows:
        return _too_few(BIAS, len(matured), cohorts, threshold, weight)
    off, error = _mean(matured.label - matured.probability, matured.groups)
    low, high = sorted((np.sign(off) * (off - TWO_SIDED * error), np.sign(off) * (off + TWO_SIDED * error)))
    return Signal(
        BIAS, abs(off), threshold, judge(abs(off), threshold), weight, len(matured), *matured.shares,
        low=float(low), high=float(high),
    )  # fmt: skip


def _excess(matured: Matured, threshold: float, weight: float, made: str = "") -> Signal:
    loss, expected = log_loss(matured.label, matured.probability), entropy(matured.probability)
    value, error = _mean(loss - expected, matured.groups)
    predicted, realised = matured.shares
    return Signal(
        EXCESS, value, threshold, judge(value, threshold), weight, len(matured),
        f"expected log loss {expected.mean():.3f}, {predicted}{made}",
        f"realised log loss {loss.mean():.3f}, {realised}",
        low=value - TWO_SIDED * error, high=value + TWO_SIDED * error,
    )  # fmt: skip


def _too_few(name: str, rows: int, cohorts: Cohorts, threshold: float, weight: float) -> Signal:
    why = f"{rows:,} bookings matured since the champion was trained, {cohorts.min_rows:,} are needed"
    return Signal(name, None, threshold, Verdict.NOT_EVALUATED, weight, rows, why=why)


def estimated_loss(
    reference: np.ndarray, current: np.ndarray, min_rows: int, threshold: float, weight: float
) -> Signal:
    """How far the loss that the window's scores expect is from that of the reference, as a share, either way.

    A trend, and no proof of health: a model that has lost its calibration is as sure of itself as before, and one
    whose features broke may look better than ever. `reference`, `current`: scores, shapes (rows,).
    """
    rows = len(current)
    why = too_few_scores(reference, current, min_rows)
    if why:
        return Signal(ESTIMATED, None, threshold, Verdict.NOT_EVALUATED, weight, rows, why=why)
    before, after = float(entropy(reference).mean()), float(entropy(current).mean())
    value = abs(after / before - 1) if before > 0 else 0.0
    told = f"log loss {before:.3f} expected in training", f"{after:.3f} expected now, {after / before - 1:+.0%}"
    return Signal(ESTIMATED, value, threshold, judge(value, threshold), weight, rows, *told)


def entropy(probability: np.ndarray) -> np.ndarray:
    """The log loss that a model expects: over both outcomes, as likely as it says. Nats per booking."""
    cancelled, kept = (log_loss(np.full(len(probability), label), probability) for label in (1.0, 0.0))
    return np.asarray(probability * cancelled + (1 - probability) * kept)


def _mean(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Mean over rows, and its standard error when groups are drawn, not rows."""
    _, place = np.unique(groups, return_inverse=True)
    mean = float(values.mean())
    sums = np.bincount(place, weights=values - mean)
    return mean, float(np.sqrt((sums**2).sum()) / len(values))
