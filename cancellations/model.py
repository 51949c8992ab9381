"""The scikit-learn pipeline: one coercion, one encoder, one estimator, deterministic for a seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

# Beside another process two threads of one fit wait for each other: 23 s where one thread needs 3. Whoever has
# cores to spare says so in the environment.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from cancellations.domain.comparison import log_loss
from cancellations.domain.features import CORE, FeatureSet
from cancellations.domain.labels import STEPS, Examples
from cancellations.domain.recipes import Recipe
from cancellations.errors import BadInput
from cancellations.ports import Classifier
from cancellations.trees import FramePredictor

# scikit-learn costs more than a second to import; a run that neither fits nor loads a model does without.
if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

# Types in our pipeline that skops does not trust by itself. An artifact brings a list of its own;
# only this one, in our code, decides what is loaded.
TRUSTED_TYPES: tuple[str, ...] = (
    "cancellations.estimators.MeanClassifier",
    "cancellations.estimators.ShiftedClassifier",
    "cancellations.estimators.StepwiseClassifier",
    "functools.partial",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)


# Enough to rank features: the share of the tenth of them is then known to a point or so.
IMPORTANCE_ROWS = 2_000
# Rows on which the quick way is held against the pipeline, in every process that asks for as many; fewer need none.
PROVEN_ROWS = 1_000
# A text that no booking has: what was never seen in training must be the same for both, too.
UNSEEN = "\x1fnever seen"


def coerce(features: pd.DataFrame, wanted: FeatureSet = CORE) -> pd.DataFrame:
    """The wanted columns in order, numbers as float64, categories as str with NaN for missing.

    A declared column that is not there is missing for every booking, as where its source lacks it.
    """
    require(features, wanted)
    features = features.reindex(columns=wanted.names)
    out = {name: pd.to_numeric(features[name]).astype("float64") for name in wanted.numeric}
    categories = {n: features[n].astype(object).where(features[n].notna(), np.nan) for n in wanted.categorical}
    return pd.DataFrame(out | categories, index=features.index)[list(wanted.names)]


def require(features: pd.DataFrame, wanted: FeatureSet) -> None:
    """Raises `BadInput` when one of the core features lacks."""
    missing = [name for name in wanted.names if name not in features and name in CORE.names]
    if missing:
        raise BadInput(f"features {', '.join(missing)} are not there; build them with domain.features.build")


class Model:
    """A fitted pipeline that answers with the probability of a cancellation."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        # How the pipeline is asked for many rows: None as long as nobody has.
        self._ask: Callable[[pd.DataFrame], np.ndarray] | None = None

    @property
    def pipeline(self) -> Pipeline:
        return self._pipeline

    @property
    def features(self) -> FeatureSet:
        """What it was trained on; a column that was declared since is none of its business.

        A pipeline that was made elsewhere, and does not tell its columns, gets the core features.
        """
        step = getattr(self._pipeline, "named_steps", {}).get("columns")
        if step is None or not hasattr(step, "feature_names_in_"):
            return CORE
        chosen = {name: columns for name, _, columns in step.transformers_}
        categories = {*chosen.get("categories", ()), *CORE.categorical}
        names = [str(name) for name in step.feature_names_in_]
        return FeatureSet(tuple(n for n in names if n not in categories), tuple(n for n in names if n in categories))

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """float64, shape (rows,), in [0, 1]."""
        if features.empty:
            return np.empty(0)
        if self._ask is None:
            if len(features) < PROVEN_ROWS:
                return self._by_pipeline(features)
            self._ask = self._quickest(features.head(PROVEN_ROWS))
        require(features, self.features)
        return self._ask(features)

    def _quickest(self, some: pd.DataFrame) -> Callable[[pd.DataFrame], np.ndarray]:
        """A way that takes a fifth of the pipeline's time, where it gives the same for some rows and for extremes."""
        rows = pd.concat([coerce(some, self.features), _edges(self.features)], ignore_index=True)
        try:
            quick = FramePredictor(self._pipeline)
            same = np.array_equal(quick.predict(rows), self._by_pipeline(rows))
        except Exception:  # noqa: BLE001 (whatever a foreign pipeline is made of, the pipeline itself can answer)
            return self._by_pipeline
        return quick.predict if same else self._by_pipeline

    def _by_pipeline(self, features: pd.DataFrame) -> np.ndarray:
        rows = coerce(features, self.features)
        return self._pipeline.predict_proba(rows)[:, 1].astype("float64")


class GradientBoosting:
    """Histogram gradient boosting on booking-time features, by a recipe.

    More trees, early stopping or target encoding did not help on the public file; small leaves
    overfit booking groups. Categories that were rare or absent in training count as missing.
    """

    estimator = "hist-gradient-boosting/1"
    _settings: Mapping[str, Any] = {
        "max_iter": 100,
        "max_leaf_nodes": 15,
        "learning_rate": 0.08,
        "min_samples_leaf": 100,
        "l2_regularization": 5.0,
    }

    def parameters(self, recipe: Recipe) -> Mapping[str, Any]:
        return {"estimator": self.estimator, **self._of(recipe)}

    def _of(self, recipe: Recipe) -> dict[str, Any]:
        whole = {name: int(v) if name.startswith(("max_", "min_")) else v for name, v in recipe.estimator.items()}
        return {**self._settings, **whole}

    def fit(self, features: pd.DataFrame, examples: Sequence[Examples], recipe: Recipe, seed: int) -> Model:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.pipeline import Pipeline

        from cancellations.estimators import MeanClassifier, StepwiseClassifier

        wanted = recipe.features(FeatureSet.of(features))
        rows = coerce(features, wanted)
        used = np.unique(np.concatenate([e.row for e in examples]))
        columns = _columns(rows.iloc[used], wanted)
        matrix = np.empty((len(rows), len(columns.get_feature_names_out())))
        matrix[used] = columns.transform(rows.iloc[used])
        members = []
        for made in examples:
            classifier = HistGradientBoostingClassifier(
                categorical_features=list(range(len(wanted.categorical))),
                early_stopping=False,
                random_state=seed,
                **self._of(recipe),
            )
            if made.step is None:
                members.append(classifier.fit(matrix[made.row], made.label, sample_weight=made.weight))
            else:
                entered = np.column_stack([matrix[made.row], made.step])
                stepwise = StepwiseClassifier(classifier, len(STEPS))
                members.append(stepwise.fit(entered, made.label, sample_weight=made.weight))
        last = members[0] if len(members) == 1 else MeanClassifier(members)
        return Model(Pipeline([("columns", columns), ("estimator", last)]))

    def shifted(self, model: Classifier, shift: float) -> Model:
        """A model whose log odds are those of `model` and a number."""
        from sklearn.pipeline import Pipeline

        from cancellations.estimators import ShiftedClassifier

        *before, (name, last) = model.pipeline.steps
        if isinstance(last, ShiftedClassifier):
            last, shift = last.classifier, last.shift + shift
        return Model(Pipeline([*before, (name, ShiftedClassifier(last, shift))]))

    def importance(self, model: Classifier, features: pd.DataFrame, label: np.ndarray, seed: int) -> dict[str, float]:
        """Rise of the mean log loss when a column is shuffled, as shares that sum to 1."""
        from sklearn.inspection import permutation_importance

        columns, last = model.pipeline.steps[0][1], model.pipeline.steps[-1][1]
        # Encoded once: a shuffled column is the same shuffled before or after.
        matrix = columns.transform(coerce(features, model.features))

        def score(_: object, rows: np.ndarray, truth: np.ndarray) -> float:
            return -float(log_loss(truth, last.predict_proba(rows)[:, 1]).mean())

        some = np.sort(np.random.default_rng(seed).permutation(len(matrix))[:IMPORTANCE_ROWS])
        result = permutation_importance(last, matrix[some], label[some], scoring=score, n_repeats=3, random_state=seed)
        rise = np.clip(result.importances_mean, 0, None)
        shares = dict(zip(columns.get_feature_names_out(), rise / (rise.sum() or 1.0), strict=True))
        return {name: float(shares.get(name, 0.0)) for name in model.features.names}


def _edges(features: FeatureSet) -> pd.DataFrame:
    """Rows that a page may lack: nothing is known, everything is new, numbers at both ends."""
    texts = pd.Series([np.nan, UNSEEN, np.nan, UNSEEN], dtype=object)
    return pd.DataFrame(
        {name: [np.nan, 0.0, -1e9, 1e9] if name in features.numeric else texts for name in features.names}
    )


def _columns(rows: pd.DataFrame, wanted: FeatureSet) -> ColumnTransformer:
    """Categories as numbers, then numbers as they are; fitted on the rows that a model is made from."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    # Binning takes no number that is missing everywhere: one that was declared just now, or of a source
    # without agents. The model knows the column, and learns nothing of it.
    untold = [name for name in wanted.numeric if rows[name].isna().all()]
    told = [name for name in wanted.numeric if name not in untold]
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, max_categories=250
    )
    columns = ColumnTransformer(
        [
            ("categories", encoder, list(wanted.categorical)),
            ("numbers", "passthrough", told),
            ("untold", "drop", untold),
        ],
        verbose_feature_names_out=False,
    )
    return columns.fit(rows)
