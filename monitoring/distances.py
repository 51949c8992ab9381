"""Evidently's pinned distances in numpy, for whoever repeats them by the hundred.

A contract test holds them equal to Evidently's own, to the last digits. Production asks Evidently: what an owner
reads as its score is its score.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

# Evidently's own floor under the deviation of a column that hardly varies.
LEAST_DEVIATION = 0.001


def distance(method: str, reference: pd.Series, current: pd.Series) -> float:
    """Of values of the reference and of a window, none missing; raises `KeyError` for another method."""
    return {"wasserstein": wasserstein, "jensenshannon": jensen_shannon}[method](reference, current)


def wasserstein(reference: pd.Series, current: pd.Series) -> float:
    """Mean distance of quantiles, in standard deviations of the reference."""
    before, after = (np.sort(side.to_numpy(dtype=float)) for side in (reference, current))
    values = np.sort(np.concatenate([before, after]), kind="stable")
    below = (np.searchsorted(side, values[:-1], side="right") / len(side) for side in (before, after))
    apart = np.abs(next(below) - next(below))
    return float((apart * np.diff(values)).sum() / max(float(before.std()), LEAST_DEVIATION))


def jensen_shannon(reference: pd.Series, current: pd.Series) -> float:
    """Root of the mean divergence of both sides' shares from their mean (Lin 1991), natural logarithm: 0 to .83."""
    codes, names = pd.factorize(pd.concat([reference, current], ignore_index=True))
    sides = np.split(codes, [len(reference)])
    shares = [np.bincount(side, minlength=len(names)) / len(side) for side in sides]
    middle = (shares[0] + shares[1]) / 2
    apart = sum(float((p[p > 0] * np.log(p[p > 0] / middle[p > 0])).sum()) for p in shares)
    return float(np.sqrt(max(apart, 0.0) / 2))
