"""The scikit-learn pipeline: one coercion, one encoder, one estimator, deterministic for a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from cancellations.domain.comparison import log_loss
from cancellations.domain.features import CATEGORICAL, FEATURES, NUMERIC
from cancellations.errors import BadInput
from cancellations.ports import Classifier

# Types in our pipeline that skops does not trust by itself. An artifact brings a list of its own;
# only this one, in our code, decides what is loaded.
TRUSTED_TYPES: tuple[str, ...] = (
    "functools.partial",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)


def coerce(features: pd.DataFrame) -> pd.DataFrame:
    """Columns in order, numbers as float64, categories as str with NaN for missing."""
    missing = [name for name in FEATURES if name not in features]
    if missing:
        raise BadInput(f"features {', '.join(missing)} are not there; build them with domain.features.build")
    out = {name: pd.to_numeric(features[name]).astype("float64") for name in NUMERIC}
    categories = {name: features[name].astype(object).where(features[name].notna(), np.nan) for name in CATEGORICAL}
    return pd.DataFrame(out | categories, index=features.index)[list(FEATURES)]


class Model:
    """A fitted pipeline that answers with the probability of a cancellation."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    @property
    def pipeline(self) -> Pipeline:
        return self._pipeline

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """float64, shape (rows,), in [0, 1]."""
        if features.empty:
            return np.empty(0)
        return self._pipeline.predict_proba(coerce(features))[:, 1].astype("float64")


class GradientBoosting:
    """Histogram gradient boosting on booking-time features.

    More trees, early stopping or target encoding did not help on the public file; small leaves
    overfit booking groups. Categories that were rare or absent in training count as missing.
    """

    recipe = "hist-gradient-boosting/1"
    _settings: Mapping[str, Any] = {
        "max_iter": 100,
        "max_leaf_nodes": 15,
        "learning_rate": 0.08,
        "min_samples_leaf": 100,
        "l2_regularization": 5.0,
    }

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"recipe": self.recipe, **self._settings}

    def fit(self, features: pd.DataFrame, label: np.ndarray, weight: np.ndarray, seed: int) -> Model:
        encoder = OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, max_categories=250
        )
        columns = ColumnTransformer(
            [("categories", encoder, list(CATEGORICAL)), ("numbers", "passthrough", list(NUMERIC))],
            verbose_feature_names_out=False,
        )
        estimator = HistGradientBoostingClassifier(
            categorical_features=list(range(len(CATEGORICAL))),
            early_stopping=False,
            random_state=seed,
            **self._settings,
        )
        pipeline = Pipeline([("columns", columns), ("estimator", estimator)])
        pipeline.fit(coerce(features), label, estimator__sample_weight=weight)
        return Model(pipeline)

    def importance(self, model: Classifier, features: pd.DataFrame, label: np.ndarray, seed: int) -> dict[str, float]:
        """Rise of the mean log loss when a column is shuffled, as shares that sum to 1."""

        def score(_: object, rows: pd.DataFrame, truth: np.ndarray) -> float:
            return -float(log_loss(truth, model.predict(rows)).mean())

        result = permutation_importance(
            model.pipeline, coerce(features), label, scoring=score, n_repeats=3, random_state=seed
        )
        rise = np.clip(result.importances_mean, 0, None)
        total = rise.sum() or 1.0
        return {name: float(value / total) for name, value in zip(FEATURES, rise, strict=True)}
