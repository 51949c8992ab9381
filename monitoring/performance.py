"""Was the champion worse than it said? Realised figures of matured bookings, and what can be told before.

A calibrated model expects a log loss of exactly its scores' entropy. So the realised loss less that entropy is near
0 whatever the mix of easy and hard bookings, and grows only with realised harm; and the entropy itself is the loss
that may be expected of a window whose outcomes are still to come (confidence-based performance estimation), as long
as the model is calibrated there, which nothing but outcomes can show.
"""

from __future__ import annotations

import numpy as np

from cancellations.domain.comparison import log_loss
from cancellations.domain.retraining import Signal, Verdict, judge

EXCESS = "matured excess loss"
BIAS = "calibration bias"
ESTIMATED = "estimated loss"
TWO_SIDED = 1.96


def realised(
    label: np.ndarray,
    probability: np.ndarray,
    groups: np.ndarray,
    min_rows: int,
    thresholds: tuple[float, float],
    weights: tuple[float, float],
) -> tuple[Signal, Signal]:
    """Excess log loss (nats per booking) and calibration bias (points, either way), with intervals by group.

    One value per matured booking in each array; pairs that are not finite are left out. `groups`: whose a booking
    is, since those of a group are no independent evidence; without them each stands for itself.
    """
    label, probability = np.asarray(label, dtype=float), np.asarray(probability, dtype=float)
    groups = groups if len(groups) == len(label) else np.arange(len(label))
    usable = np.isfinite(label) & np.isfinite(probability)
    label, probability, groups = label[usable], probability[usable], groups[usable]
    rows = len(label)
    if rows < min_rows:
        why = f"{rows:,} bookings matured since the champion was trained, {min_rows:,} are needed"
        excess, bias = (
            Signal(name, None, threshold, Verdict.NOT_EVALUATED, weight, rows, why=why)
            for name, threshold, weight in zip((EXCESS, BIAS), thresholds, weights, strict=True)
        )
        return excess, bias
    loss, expected = log_loss(label, probability), entropy(probability)
    value, error = _mean(loss - expected, groups)
    shares = f"predicted cancellations {probability.mean():.1%}", f"realised cancellations {label.mean():.1%}"
    excess = Signal(
        EXCESS, value, thresholds[0], judge(value, thresholds[0]), weights[0], rows,
        f"expected log loss {expected.mean():.3f}, {shares[0]}", f"realised log loss {loss.mean():.3f}, {shares[1]}",
        low=value - TWO_SIDED * error, high=value + TWO_SIDED * error,
    )  # fmt: skip
    off, error = _mean(label - probability, groups)
    low, high = sorted((np.sign(off) * (off - TWO_SIDED * error), np.sign(off) * (off + TWO_SIDED * error)))
    bias = Signal(
        BIAS, abs(off), thresholds[1], judge(abs(off), thresholds[1]), weights[1], rows, *shares,
        low=float(low), high=float(high),
    )  # fmt: skip
    return excess, bias


def estimated_loss(
    reference: np.ndarray, current: np.ndarray, min_rows: int, threshold: float, weight: float
) -> Signal:
    """How far the loss that the window's scores expect is from that of the reference, as a share, either way.

    A trend, and no proof of health: a model that has lost its calibration is as sure of itself as before, and one
    whose features broke may look better than ever. `reference`, `current`: scores, shapes (rows,).
    """
    rows = len(current)
    if min(len(reference), rows) < min_rows:
        why = f"{rows:,} scored bookings in the window, {min_rows:,} are needed"
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
