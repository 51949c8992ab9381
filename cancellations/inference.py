"""A version's answers for single bookings: plain values in, a probability out, without frames.

The scikit-learn pipeline takes milliseconds for a row, whatever it holds. Here the row is encoded by look-up, and
treelite's interpreter walks the trees (Cho, Hyunsu; Li, Mu: Treelite, SysML 2018); a compiler is not needed. Both are
held against the pipeline on the version's reference sample whenever a version is loaded; where they differ, or where
a pipeline is made otherwise than ours, the pipeline itself answers, and `slow` says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.features import FeatureSet
from cancellations.ports import Classifier, Reason
from cancellations.trees import Layout, composed

# Farther apart the two are not the same model: treelite sums in another order, and nothing else differs.
TOLERANCE = 1e-9
# A text that no booking has: what was never seen in training must be the same for both sides, too.
UNSEEN = "\x1fnever seen"


class RowModel:
    """`ports.RowClassifier` of a loaded version; `sample` is its reference, without the label."""

    def __init__(self, classifier: Classifier, sample: pd.DataFrame) -> None:
        self._classifier = classifier
        self._features = classifier.features
        self._usual = _usual(sample, self._features)
        self._quick: _Quick | None = None
        self._slow: str | None = None
        rows = _edges(self._features) + _plain(sample, self._features)
        try:
            quick = _Quick(classifier.pipeline)
            found, wanted = quick.predict(rows), self._by_pipeline(rows)
        except Exception as error:  # noqa: BLE001 (whatever a foreign pipeline is made of, the pipeline itself can answer)
            self._slow = f"its pipeline is not read: {error}"
            return
        apart = float(np.max(np.abs(found - wanted), initial=0.0))
        if apart <= TOLERANCE:
            self._quick = quick
        else:
            self._slow = f"the quick way differs from the pipeline by up to {apart:.2g} on {len(rows):,} rows"

    @property
    def slow(self) -> str | None:
        return self._slow

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        if not rows:
            return np.empty(0)
        return self._by_pipeline(rows) if self._quick is None else self._quick.predict(rows)

    def reasons(self, row: Mapping[str, Any], count: int) -> tuple[Reason, ...]:
        others = [name for name, usual in self._usual.items() if not _same(row.get(name), usual)]
        probability = self.predict([row, *({**row, name: self._usual[name]} for name in others)])
        effects = probability[0] - probability[1:]
        strongest = sorted(zip(others, effects.tolist(), strict=True), key=lambda one: (-abs(one[1]), one[0]))
        return tuple(
            Reason(name, _told(row.get(name)), _told(self._usual[name]), effect)
            for name, effect in strongest[:count]
            if effect != 0
        )

    def _by_pipeline(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        columns = {name: [row.get(name, math.nan) for row in rows] for name in self._features.numeric}
        texts = {name: [row.get(name) for row in rows] for name in self._features.categorical}
        frame = pd.DataFrame(columns | {name: pd.Series(values, dtype=object) for name, values in texts.items()})
        return self._classifier.predict(frame)


class _Quick:
    """A pipeline as `trees.Layout` reads it; raises `BadInput` for any other."""

    def __init__(self, pipeline: Any) -> None:
        layout = Layout(pipeline)
        self._numbers, self._codes = layout.numbers, layout.codes
        self._texts_of, self._numbers_of = itemgetter(*self._codes), itemgetter(*self._numbers)
        self._estimator = composed(layout.estimator, _Trees)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        try:
            encoded = self._encoded(rows)
        except KeyError:
            # A column that was declared after a booking was scored is missing for it.
            bare = dict.fromkeys(self._codes) | dict.fromkeys(self._numbers, math.nan)
            encoded = self._encoded([{**bare, **row} for row in rows])
        probability: np.ndarray = self._estimator.predict_proba(np.array(encoded, dtype="float64"))[:, 1]
        return probability

    def _encoded(self, rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        codes, texts_of, numbers_of, nan = list(self._codes.values()), self._texts_of, self._numbers_of, math.nan
        return [
            [*(code.get(text, nan) for code, text in zip(codes, texts_of(row), strict=True)), *numbers_of(row)]
            for row in rows
        ]


class _Trees:
    """A fitted histogram boosting, its trees walked by treelite."""

    def __init__(self, booster: Any) -> None:
        import treelite

        self._trees = treelite.sklearn.import_model(booster)
        self._predict = treelite.gtil.predict

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """Shape (rows, features) -> shape (rows, 2)."""
        probability = self._predict(self._trees, rows, nthread=1).reshape(-1)
        return np.column_stack([1 - probability, probability])


def _plain(sample: pd.DataFrame, features: FeatureSet) -> list[dict[str, Any]]:
    """Rows of a frame of features as plain values."""
    columns: dict[str, list[Any]] = {}
    for name in features.numeric:
        columns[name] = sample[name].astype("float64").tolist() if name in sample else [math.nan] * len(sample)
    for name in features.categorical:
        texts = sample[name].astype(object) if name in sample else pd.Series([None] * len(sample), dtype=object)
        columns[name] = [None if gone else text for text, gone in zip(texts, texts.isna(), strict=True)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _edges(features: FeatureSet) -> list[dict[str, Any]]:
    """Rows that a sample may lack: nothing is known, everything is new, numbers at both ends."""
    return [
        dict.fromkeys(features.numeric, number) | dict.fromkeys(features.categorical, text)
        for number, text in ((math.nan, None), (0.0, UNSEEN), (-1e9, None), (1e9, UNSEEN))
    ]


def _usual(sample: pd.DataFrame, features: FeatureSet) -> dict[str, Any]:
    """The median of each number and the most frequent of each text; those that the sample never tells are left out."""
    known = [name for name in features.names if name in sample and sample[name].notna().any()]
    return {
        name: float(sample[name].median()) if name in features.numeric else str(sample[name].mode().iloc[0])
        for name in known
    }


def _same(value: Any, usual: Any) -> bool:
    return bool(value == usual)


def _told(value: Any) -> float | str | None:
    return None if value is None or value != value else value
