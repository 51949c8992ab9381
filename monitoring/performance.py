"""Was the champion worse than it said? Realised loss of matured bookings against its own expectation."""

from __future__ import annotations

import numpy as np

from cancellations.domain.comparison import log_loss
from cancellations.domain.retraining import Signal, Verdict, judge

NAME = "matured excess loss"


def excess_loss(label: np.ndarray, probability: np.ndarray, min_rows: int, threshold: float, weight: float) -> Signal:
    """Mean log loss minus the entropy of the scores, in nats per matured booking.

    A calibrated model expects a log loss of exactly its scores' entropy, so the difference is near 0
    whatever the mix of easy and hard bookings, and grows only with realised harm. Both arrays hold
    one value per booking; pairs that are not finite are left out.
    """
    label, probability = np.asarray(label, dtype=float), np.asarray(probability, dtype=float)
    usable = np.isfinite(label) & np.isfinite(probability)
    label, probability = label[usable], probability[usable]
    rows = len(label)
    if rows < min_rows:
        why = f"{rows:,} bookings matured since the champion was trained, {min_rows:,} are needed"
        return Signal(NAME, None, threshold, Verdict.NOT_EVALUATED, weight, rows, why=why)
    realised = float(log_loss(label, probability).mean())
    # The entropy is the log loss that the model expects: over both outcomes, as likely as it says.
    cancelled, kept = log_loss(np.ones(rows), probability), log_loss(np.zeros(rows), probability)
    expected = float((probability * cancelled + (1 - probability) * kept).mean())
    value = realised - expected
    before = f"expected log loss {expected:.3f}, predicted cancellations {probability.mean():.1%}"
    after = f"realised log loss {realised:.3f}, realised cancellations {label.mean():.1%}"
    return Signal(NAME, value, threshold, judge(value, threshold), weight, rows, before, after)
