"""How good a version's probabilities are, and how sure that is: figures with intervals.

Bookings of one group come or cancel together, so a thousand rows hold the evidence of fewer. Every
interval here resamples whole booking groups; one that resampled rows would be too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

# Enough for the ends of a 95 % interval to stand still in the second figure.
RESAMPLES = 200
CONFIDENCE = 0.95
# Of 10,000 bookings a thousand each: a rate is then known to some two points.
BINS = 10

AUC, AVERAGE_PRECISION = "auc", "average_precision"
LOG_LOSS, BRIER = "log_loss", "brier"
CALIBRATION_ERROR, BIAS = "calibration_error", "bias"
# Figures by name, and how people call them.
FIGURES: Mapping[str, str] = {
    AUC: "AUC",
    AVERAGE_PRECISION: "average precision",
    LOG_LOSS: "log loss",
    BRIER: "Brier score",
    CALIBRATION_ERROR: "calibration error",
    BIAS: "bias",
}


@dataclass(frozen=True)
class Interval:
    """A figure with its bounds; they are None where fewer than two booking groups tell it."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.value:.4f}" + ("" if self.low is None else f" ({self.low:.4f} to {self.high:.4f})")


@dataclass(frozen=True)
class Evaluation:
    """Figures of one version on `rows` bookings of `groups` booking groups, by name.

    A figure is None where the bookings cannot tell it: no order of cancelled and kept among bookings
    that all ended alike.
    """

    rows: int
    groups: int
    figures: Mapping[str, Interval | None]

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Flat, for a tracking server: `auc`, `auc_low`, `auc_high`, …, and rows and groups; what cannot be
        told is left out."""
        flat: dict[str, float | None] = {f"{prefix}rows": float(self.rows), f"{prefix}groups": float(self.groups)}
        for name, figure in self.figures.items():
            if figure is not None:
                parts = {"": figure.value, "_low": figure.low, "_high": figure.high}
                flat |= {f"{prefix}{name}{part}": value for part, value in parts.items()}
        return {name: value for name, value in flat.items() if value is not None}


@dataclass(frozen=True)
class Cohort:
    """Bookings whose outcomes are final and that versions are judged on; one value for each in every array.

    `label`: 1.0 cancelled, 0.0 kept. `matured_on`: `datetime64`. `groups`: a key of the booking's group,
    as `domain.reservation.group_keys` gives it. `segment`: what gains are told by, a text with NaN for
    missing.
    """

    label: np.ndarray
    matured_on: np.ndarray
    groups: np.ndarray
    segment: np.ndarray

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("label", "matured_on", "groups", "segment")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"a cohort has one value for each booking in every array; found {lengths}")


def resampled(groups: np.ndarray, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each row counts (float64, shape (rows,)) when its groups are drawn anew, with replacement."""
    keys, of_row = np.unique(np.asarray(groups), return_inverse=True)
    draw = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = draw.integers(0, len(keys), len(keys))
        yield np.bincount(drawn, minlength=len(keys)).astype("float64")[of_row]


def bounds(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float] | tuple[None, None]:
    """The quantiles between which the given share of resampled figures lies.

    Resamples that could not tell the figure are NaN; where they are more than a tenth there are no bounds.
    """
    told = values[np.isfinite(values)]
    if len(told) == 0 or len(told) < 0.9 * len(values):
        return None, None
    low, high = np.quantile(told, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def means(values: np.ndarray, cell: np.ndarray, groups: np.ndarray, seed: int) -> list[Interval | None]:
    """Mean of `values` in each of the cells 0, 1, …, each with its interval; None for a cell without rows.

    A cell with fewer than two booking groups has no bounds: drawn anew it would always be the same.
    """
    values, groups, cell = np.asarray(values, dtype="float64"), np.asarray(groups), np.asarray(cell)
    if len(values) == 0:
        return []
    cells = int(cell.max()) + 1
    rows = np.bincount(cell, minlength=cells)
    drawn = np.array(
        [_ratio(np.bincount(cell, w * values, cells), np.bincount(cell, w, cells)) for w in resampled(groups, seed)]
    )
    found = _ratio(np.bincount(cell, values, cells), rows)
    out: list[Interval | None] = []
    for i in range(cells):
        alone = len(np.unique(groups[cell == i])) < 2
        out.append(
            None if rows[i] == 0 else Interval(float(found[i]), *((None, None) if alone else bounds(drawn[:, i])))
        )
    return out


def equal_count_bins(probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of each row, from 0: bins of as many rows each, from the lowest probabilities to the highest.

    Equal probabilities share a bin, so the order of rows changes nothing and there may be fewer bins.
    """
    probability = np.asarray(probability, dtype="float64")
    if len(probability) == 0:
        return np.empty(0, dtype="int64")
    edges = np.unique(np.quantile(probability, np.arange(1, bins) / bins))
    _, found = np.unique(np.searchsorted(edges, probability, side="left"), return_inverse=True)
    return found.astype("int64")


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
