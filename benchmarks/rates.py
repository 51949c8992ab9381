"""Intervals of rates and shares, as benchmarks print them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2


def poisson(count: int) -> tuple[float, float]:
    """Exact 95 % bounds of what is expected, where so many were counted."""
    return (float(chi2.ppf(0.025, 2 * count) / 2) if count else 0.0), float(chi2.ppf(0.975, 2 * count + 2) / 2)


def share(hits: Sequence[bool]) -> tuple[float, float, float]:
    """A share with Wilson's interval, 95 %."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, max(0.0, middle - half), min(1.0, middle + half)
