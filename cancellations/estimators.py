"""Classifiers of ours that a version's pipeline may end in.

They need numpy and scikit-learn alone, for a copy of this file travels with each version that uses one:
whoever loads it (MLflow's own server, say) needs nothing else of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class StepwiseClassifier(ClassifierMixin, BaseEstimator):
    """P(cancelled) from the hazards of the steps of a lead time: 1 − Π(1 − h).

    `hazard`: a classifier on the features of a booking with the number of a step behind them; it tells
    how likely a booking that entered the step is cancelled in it. `steps`: how many there are.
    """

    def __init__(self, hazard: Any, steps: int) -> None:
        self.hazard = hazard
        self.steps = steps

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> Self:
        """`X`: features and the step's number in the last column, shape (examples, features + 1)."""
        self.hazard.fit(X, y, sample_weight=sample_weight)
        self.classes_ = np.array([0.0, 1.0])
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`X`: features of whole bookings, shape (rows, features) -> shape (rows, 2)."""
        X = np.asarray(X, dtype=float)
        stands = np.ones(len(X))
        for step in range(self.steps):
            entered = np.column_stack([X, np.full(len(X), float(step))])
            stands *= 1 - self.hazard.predict_proba(entered)[:, 1]
        return np.column_stack([stands, 1 - stands])

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class MeanClassifier(ClassifierMixin, BaseEstimator):
    """The mean of the probabilities of classifiers that were fitted elsewhere."""

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = members
        self.classes_ = np.array([0.0, 1.0])

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Nothing is left to fit."""
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Shape (rows, features) -> shape (rows, 2)."""
        return np.mean([member.predict_proba(X) for member in self.members], axis=0)

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class ShiftedClassifier(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose log odds are shifted by one number."""

    def __init__(self, classifier: Any, shift: float) -> None:
        self.classifier = classifier
        self.shift = shift
        self.classes_ = np.array([0.0, 1.0])

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Nothing is left to fit."""
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Shape (rows, features) -> shape (rows, 2)."""
        # Of 0 and 1 no shift makes anything else; they have no log odds.
        probability = np.clip(self.classifier.predict_proba(X)[:, 1], 1e-15, 1 - 1e-15)
        odds = np.log(probability) - np.log1p(-probability) + self.shift
        shifted = 1 / (1 + np.exp(-odds))
        return np.column_stack([1 - shifted, shifted])

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
