"""Which columns drifted: Evidently's score of each, weighed by what the column means to the champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.features import FeatureSet
from cancellations.domain.retraining import ColumnDrift, Signal, Verdict, judge
from monitoring.columns import Sides, comparable, describe, missing_moved, too_few_scores

NAME = "column drift"
PREDICTIONS = "prediction drift"

# Distances, not p-values: a distance means the same for 300 rows and for 5,000, while a p-value
# calls any difference drift once there are rows enough. Evidently would choose by the size of the
# reference, so method and threshold are pinned.
#   wasserstein    mean shift in the reference's standard deviations, for numbers. At Evidently's
#                  default of .1 lead time and price, which have a season, are on in every window of
#                  the public file; .3 separates windows there.
#   jensenshannon  bounded distance of shares, for categories; of two categories of equal size, .1 is
#                  14 bookings in 100 changing from one to the other.
NUMBERS = ("wasserstein", 0.3)
CATEGORIES = ("jensenshannon", 0.1)
# Evidently drops missing values of numbers before it measures; a share that moved by this much is drift.
MISSING_DRIFT = 0.10
# Columns that could be evaluated must carry this share of the champion's importance: the rest of a
# broken window says nothing about it.
MIN_IMPORTANCE = 0.5

# Of a method, on values of the reference and of the window, none missing: their distance.
Distance = Callable[[str, pd.Series, pd.Series], float]


@dataclass(frozen=True)
class Compared:
    """Columns that could be compared, both sides as Evidently gets them: no missing categories, no outliers."""

    features: FeatureSet
    before: pd.DataFrame
    after: pd.DataFrame

    def report(self) -> Any:
        """Evidently's report of these columns, by the pinned methods, with its pictures drawn."""
        from evidently.metrics import ValueDrift

        pinned = {c: _method(c, self.features) for c in self.features.names}
        return _report(self, [ValueDrift(column=c, method=how, threshold=at) for c, (how, at) in pinned.items()])


def evidently(method: str, reference: pd.Series, current: pd.Series) -> float:
    """Evidently's own test, without a report around it.

    A report draws each column's picture as it measures it, which takes five times as long as the measuring.
    """
    from evidently.legacy.calculations.stattests.registry import get_registered_stattest
    from evidently.legacy.core import ColumnType

    kind = ColumnType.Numerical if method == NUMBERS[0] else ColumnType.Categorical
    # The threshold has no part in the distance.
    return float(get_registered_stattest(method, kind)(reference, current, kind, None).drift_score)


def column_drift(
    sides: Sides, importance: Mapping[str, float], distance: Distance = evidently
) -> tuple[tuple[ColumnDrift, ...], Compared]:
    """Every feature's drift, those that drifted first, then by weight; and what was compared.

    A column that could not be compared has no score, counts as not drifted *and* not evaluated, and says why.
    """
    features, before, after = sides.features, sides.before, sides.after
    obstacles = {name: sides.obstacle(name) for name in features.names}
    compared = _compared(sides, obstacles)
    columns = []
    for name in features.names:
        method, threshold = _method(name, features)
        texts, drifted, why = ("", ""), False, obstacles[name]
        score = None
        if not why:
            texts = describe(before[name], after[name])
            score = distance(method, compared.before[name].dropna(), compared.after[name].dropna())
            drifted = score >= threshold
            if name in features.numeric and not drifted and missing_moved(before[name], after[name]) >= MISSING_DRIFT:
                drifted, why = True, "its missing share moved"
        weight = float(importance.get(name, 0.0))
        columns.append(ColumnDrift(name, method, score, threshold, drifted, weight, *texts, why))
    return tuple(sorted(columns, key=lambda c: (not c.drifted, -c.weight, c.column))), compared


def column_signal(columns: Sequence[ColumnDrift], rows: int, threshold: float, weight: float) -> Signal:
    """Importance of the drifted columns as a share of all that could be evaluated."""
    total = sum(c.weight for c in columns)
    evaluated = sum(c.weight for c in columns if c.score is not None)
    if total <= 0:
        why = "the champion has no importance by column"
        return Signal(NAME, None, threshold, Verdict.NOT_EVALUATED, weight, rows, why=why)
    if evaluated < MIN_IMPORTANCE * total:
        reasons = "; ".join(f"{c.column}: {c.why}" for c in columns if c.score is None and c.weight > 0)
        why = f"columns with {1 - evaluated / total:.0%} of the importance could not be evaluated ({reasons})"
        return Signal(NAME, None, threshold, Verdict.NOT_EVALUATED, weight, rows, why=why)
    drifted = [c for c in columns if c.drifted]
    value = sum(c.weight for c in drifted) / evaluated
    before, after = ("; ".join(f"{c.column} {getattr(c, side)}" for c in drifted[:2]) for side in ("before", "after"))
    return Signal(NAME, value, threshold, judge(value, threshold), weight, rows, before, after)


def prediction_drift(
    reference: np.ndarray,
    current: np.ndarray,
    min_rows: int,
    threshold: float,
    weight: float,
    distance: Distance = evidently,
) -> Signal:
    """Distance of the window's scores from those of the reference, by Evidently's test for numbers.

    `reference`, `current`: the champion's scores, shapes (rows,).
    """
    rows = len(current)
    why = too_few_scores(reference, current, min_rows)
    if why:
        return Signal(PREDICTIONS, None, threshold, Verdict.NOT_EVALUATED, weight, rows, why=why)
    value = distance(NUMBERS[0], pd.Series(reference), pd.Series(current))
    before, after = (f"mean score {side.mean():.1%}" for side in (reference, current))
    return Signal(PREDICTIONS, value, threshold, judge(value, threshold), weight, rows, before, after)


def _method(column: str, features: FeatureSet) -> tuple[str, float]:
    return NUMBERS if column in features.numeric else CATEGORIES


def dataset_share(reference: pd.DataFrame, current: pd.DataFrame, sample_rows: int) -> float | None:
    """Share of columns that drifted by the methods and thresholds that Evidently chooses itself, as its preset
    counts them; None when no column could be compared."""
    from evidently.metrics import DriftedColumnsCount

    sides = Sides.of(reference, current, sample_rows)
    compared = _compared(sides, {name: sides.obstacle(name) for name in sides.features.names})
    if not compared.features.names:
        return None
    snapshot = _report(compared, [DriftedColumnsCount(columns=list(compared.features.names))])
    (result,) = (r for r in snapshot.metric_results.values() if hasattr(r, "share"))
    return float(result.share.value)


def _compared(sides: Sides, obstacles: Mapping[str, str]) -> Compared:
    kept = sides.features.excluding([name for name in sides.features.names if obstacles[name]])
    pairs = {name: comparable(sides.before[name], sides.after[name]) for name in kept.names}
    # A plain row number as index: Evidently draws numbers over it.
    ready = (pd.DataFrame({name: pair[side].reset_index(drop=True) for name, pair in pairs.items()}) for side in (0, 1))
    return Compared(kept, *ready)


def _report(compared: Compared, metrics: Sequence[Any]) -> Any:
    from evidently import DataDefinition, Dataset, Report

    features = compared.features
    definition = DataDefinition(
        numerical_columns=list(features.numeric), categorical_columns=list(features.categorical)
    )
    before, after = (
        Dataset.from_pandas(side, data_definition=definition) for side in (compared.before, compared.after)
    )
    return Report(list(metrics), include_tests=True).run(after, before)
