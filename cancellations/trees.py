"""A pipeline of ours taken to pieces: codes of its categories, and its trees walked for many rows at once.

scikit-learn follows each row through each tree, branches that no processor foresees. Here each comparison of a tree is
made for a whole column, and rules leaves out; the first that is left is a row's leaf (Lucchese et al.: QuickScorer,
SIGIR 2015). The same leaves are added in the same order, so the answers are the same to the last bit. What is read here
are parts of scikit-learn that may change: whoever uses them holds the answers against the pipeline's first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cancellations.errors import BadInput

# Leaves of a tree are the bits of one number, and what is left of them the place in a table.
MOST_LEAVES = 16
# Rows at a time: a column and the leaves that are left of it stay in a processor's cache.
BLOCK = 50_000


class Layout:
    """What a pipeline as `model.GradientBoosting` makes it feeds its estimator; raises `BadInput` for any other.

    `codes`: of each category's texts, in the order of the columns; `numbers`: the columns behind them.
    """

    def __init__(self, pipeline: Any) -> None:
        (_, columns), (_, self.estimator) = pipeline.steps
        parts = {name: (step, names) for name, step, names in columns.transformers_}
        encoder, categories = parts["categories"]
        passed, numbers = parts["numbers"]
        if passed != "passthrough" and type(passed).__name__ != "FunctionTransformer":
            raise BadInput(f"numbers go through {type(passed).__name__}")
        self.numbers = [str(name) for name in numbers]
        self.codes = _codes(encoder, [str(name) for name in categories])
        wide = [str(name) for name in columns.get_feature_names_out()]
        if wide != [*self.codes, *self.numbers]:
            raise BadInput(f"its columns are {', '.join(wide)}")


def _codes(encoder: Any, names: Sequence[str]) -> dict[str, dict[Any, float]]:
    """For each column the code of every category that the encoder knows, asked of itself."""
    codes: dict[str, dict[Any, float]] = {}
    for place, (name, known) in enumerate(zip(names, encoder.categories_, strict=True)):
        texts = [value for value in known if isinstance(value, str)]
        frame = pd.DataFrame({other: pd.Series([math.nan] * len(texts), dtype=object) for other in names})
        frame[name] = pd.Series(texts, dtype=object)
        coded = encoder.transform(frame)[:, place].tolist() if texts else []
        codes[name] = dict(zip(texts, coded, strict=True))
    return codes


def composed(estimator: Any, walked: Callable[[Any], Any]) -> Any:
    """The estimator with another in the place of each of its boostings; what they are put together by stays ours.

    Raises `BadInput` where it ends in something else.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    from cancellations.estimators import MeanClassifier, ShiftedClassifier, StepwiseClassifier

    match estimator:
        case HistGradientBoostingClassifier():
            return walked(estimator)
        case StepwiseClassifier():
            return StepwiseClassifier(composed(estimator.hazard, walked), estimator.steps)
        case MeanClassifier():
            return MeanClassifier([composed(member, walked) for member in estimator.members])
        case ShiftedClassifier():
            return ShiftedClassifier(composed(estimator.classifier, walked), estimator.shift)
    raise BadInput(f"it ends in {type(estimator).__name__}")


class FramePredictor:
    """The probabilities of a pipeline for a frame of its features; raises `BadInput` for one that it cannot read."""

    def __init__(self, pipeline: Any) -> None:
        self._layout = Layout(pipeline)
        self._estimator = composed(self._layout.estimator, ColumnTrees)

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """`features`: numbers as float64, categories as texts; a column that lacks is missing."""
        codes, numbers = self._layout.codes, self._layout.numbers
        matrix = np.full((len(features), len(codes) + len(numbers)), np.nan)
        for place, (name, known) in enumerate(codes.items()):
            if name in features:
                at, met = pd.factorize(features[name])
                # What is missing has the place -1, the last.
                matrix[:, place] = np.array([*(known.get(text, math.nan) for text in met), math.nan])[at]
        for place, name in enumerate(numbers, start=len(codes)):
            if name in features:
                matrix[:, place] = features[name].to_numpy(dtype="float64")
        probability: np.ndarray = self._estimator.predict_proba(matrix)[:, 1]
        return probability


class ColumnTrees:
    """A fitted histogram boosting of two classes, each comparison made for a whole column."""

    def __init__(self, booster: Any) -> None:
        self._encode, self._bins = booster._preprocessor, booster._bin_mapper
        self._start = float(booster._baseline_prediction[0, 0])
        self._trees = [_Tree(predictor, self._bins.missing_values_bin_idx_) for (predictor,) in booster._predictors]

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """Shape (rows, features) -> shape (rows, 2)."""
        from scipy.special import expit

        parts = [expit(self._raw(rows[start : start + BLOCK])) for start in range(0, len(rows), BLOCK)]
        probability = np.concatenate(parts) if parts else np.empty(0)
        return np.column_stack([1 - probability, probability])

    def _raw(self, rows: np.ndarray) -> np.ndarray:
        columns = self._bins.transform(rows if self._encode is None else self._encode.transform(rows)).T
        raw = np.full(len(rows), self._start)
        for tree in self._trees:
            raw += tree.values(columns)
        return raw


class _Tree:
    """Its comparisons, each with the leaves that a row does not reach for which it fails, and the value of what is
    left."""

    def __init__(self, predictor: Any, missing: int) -> None:
        self._missing = missing
        self._splits: list[tuple[int, Any, np.ndarray | None, bool, np.uint16]] = []
        nodes, bits = predictor.nodes, predictor.binned_left_cat_bitsets
        leaves: list[float] = []

        def walk(place: int) -> None:
            node = nodes[place]
            if node["is_leaf"]:
                leaves.append(float(node["value"]))
                return
            first = len(leaves)
            walk(node["left"])
            lost = np.uint16((1 << len(leaves)) - (1 << first) if len(leaves) <= MOST_LEAVES else 0)
            walk(node["right"])
            table = None
            if node["is_categorical"]:
                own = bits[node["bitset_idx"]]
                table = np.array([not int(own[code // 32]) >> (code % 32) & 1 for code in range(256)])
                table[missing] = not node["missing_go_to_left"]
            threshold = np.uint8(node["bin_threshold"])
            self._splits.append((int(node["feature_idx"]), threshold, table, bool(node["missing_go_to_left"]), lost))

        walk(0)
        if len(leaves) > MOST_LEAVES:
            raise BadInput(f"a tree has {len(leaves)} leaves")
        # The lowest bit that is not set names the leaf.
        left = ~np.arange(1 << len(leaves)) & ((1 << len(leaves)) - 1)
        left[left == 0] = 1
        self._values = np.array(leaves)[np.log2(left & -left).astype("int64")]

    def values(self, columns: np.ndarray) -> np.ndarray:
        """`columns`: bins, uint8, shape (features, rows) -> float64, shape (rows,)."""
        count = columns.shape[1]
        lost, more, right = np.zeros(count, "uint16"), np.empty(count, "uint16"), np.empty(count, bool)
        for feature, threshold, table, missing_left, leaves in self._splits:
            column = columns[feature]
            if table is not None:
                np.take(table, column, out=right, mode="clip")
            else:
                np.greater(column, threshold, out=right)
                if missing_left:
                    right &= column != self._missing
            np.multiply(right, leaves, out=more)
            np.bitwise_or(lost, more, out=lost)
        return self._values[lost]
