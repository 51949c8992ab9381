"""Models: what fits and rates them, and where versions are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cancellations.domain.card import CardFacts
from cancellations.domain.evaluation import Evaluation
from cancellations.domain.features import FeatureSet
from cancellations.domain.labels import Examples
from cancellations.domain.recipes import Recipe
from cancellations.ports.store import VersionRecord


class Classifier(Protocol):
    """Gives each booking its probability of being cancelled."""

    @property
    def pipeline(self) -> Any:
        """The scikit-learn estimator behind it, as the registry keeps it."""
        ...

    @property
    def features(self) -> FeatureSet:
        """The columns that it looks at."""
        ...

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """`features` as `domain.features.build` makes them -> float64, shape (rows,), in [0, 1]."""
        ...


@dataclass(frozen=True)
class Reason:
    """Why a probability is what it is: one feature, its `usual` value in the version's reference sample, and by how
    much the probability is higher than it would be with that one."""

    feature: str
    value: float | str | None
    usual: float | str | None
    effect: float


class RowClassifier(Protocol):
    """A version for single bookings: features as plain values (`domain.lookup.Lookup.features`), by name."""

    @property
    def slow(self) -> str | None:
        """Why it asks the whole pipeline for each answer; None where it need not."""
        ...

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """float64, shape (rows,), in [0, 1]: what `Classifier.predict` says of the same bookings."""
        ...

    def reasons(self, row: Mapping[str, Any], count: int) -> tuple[Reason, ...]:
        """The features that move the booking's probability most, the strongest first."""
        ...


class Shifter(Protocol):
    """Moves the log odds of a fitted classifier by one number."""

    def shifted(self, model: Classifier, shift: float) -> Classifier: ...


class Trainer(Shifter, Protocol):
    """Fits a classifier by a recipe; `parameters` are recorded with each run."""

    def parameters(self, recipe: Recipe) -> Mapping[str, Any]: ...

    def fit(self, features: pd.DataFrame, examples: Sequence[Examples], recipe: Recipe, seed: int) -> Classifier:
        """`features` of a history's bookings, to whose rows the examples of each model point."""
        ...

    def importance(self, model: Classifier, features: pd.DataFrame, label: np.ndarray, seed: int) -> dict[str, float]:
        """Permutation importance by log loss, as shares that sum to 1 (never negative)."""
        ...


class Evaluator(Protocol):
    def evaluate(self, label: np.ndarray, probability: np.ndarray, groups: np.ndarray, seed: int) -> Evaluation:
        """Figures of the probabilities against final outcomes, with intervals that resample booking groups.

        One value per booking in each array: `label` 0 or 1, `groups` as `domain.reservation.group_keys`
        gives them. The same seed gives the same intervals. Raises `NotEnoughData` without a booking.
        """
        ...


@dataclass(frozen=True)
class Contestant:
    """A recipe in a backtest: how it was fitted, and how it did."""

    recipe: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Candidate:
    """Everything that becomes one registered version.

    `training`: every booking that the fit used, with its features and what was known of it then (columns
    `domain.labels.TOLD`); `recipe`, by its name, with the rule of labels makes the model of it again.
    """

    request_id: str
    model: Classifier
    as_of: date
    recipe: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    reasons: tuple[str, ...]
    training: pd.DataFrame
    reference: pd.DataFrame  # features of a seeded sample of the training bookings, with label
    importance: Mapping[str, float]
    tags: Mapping[str, str] = field(default_factory=dict)
    contest: tuple[Contestant, ...] = ()
    backtest: Classifier | None = None  # the model that the gate judged, fitted on what came before its test
    card: CardFacts | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """What a version is made with: the code by its digest (empty where nobody wrote it down), and packages."""

    code: str
    packages: Mapping[str, str]  # name -> version


class Registry(Protocol):
    """Versions of the one registered model, each with its reference sample."""

    def register(self, candidate: Candidate) -> VersionRecord:
        """One version per request: the same request again returns the version that it has."""
        ...

    def log_refusal(self, request_id: str, reasons: Sequence[str], contest: Sequence[Contestant]) -> None:
        """Keeps what a backtest found of recipes that became no version."""
        ...

    def training(self, version: str) -> pd.DataFrame:
        """What a version was made of, as its `Candidate` had it."""
        ...

    def parameters(self, version: str) -> dict[str, str]:
        """Parameters that a version was registered with, as text."""
        ...

    def environment(self, version: str | None = None) -> Environment:
        """What a version was made with; without one, what it would be made with now."""
        ...

    def digest(self, training: pd.DataFrame) -> str:
        """What a version of this training data has as `data_digest`."""
        ...

    def record(self, version: str) -> VersionRecord:
        """What the registry knows of a version, whoever registered it; raises `BadInput` when there is
        none, or when it does not say what it was trained on."""
        ...

    def load(self, version: str, *, fresh: bool = False) -> Classifier:
        """The version's model; `fresh` reads the artifact anew, whatever this process remembers."""
        ...

    def reference(self, version: str) -> pd.DataFrame: ...

    def importance(self, version: str) -> dict[str, float]: ...

    def aliases(self) -> dict[str, str]:
        """Alias -> version, as the registry has them now."""
        ...

    def set_alias(self, alias: str, version: str | None) -> None:
        """Points an alias at a version; None removes it."""
        ...

    def log_report(self, version: str, report_id: str, files: Sequence[Path]) -> None:
        """Keeps files beside the version under `reports/<report_id>/`."""
        ...

    def drop_report(self, version: str, report_id: str, *, dry_run: bool = False) -> bool:
        """Takes the files away that `log_report` kept, but for `dry_run`; whether there were any."""
        ...

    def log_comparison(self, version: str, name: str, files: Sequence[Path]) -> None:
        """Keeps files beside the version under `comparisons/<name>/`, in place of those of the same name."""
        ...

    def version_address(self, version: str) -> str | None:
        """Address of the version's page for people, when a UI is configured."""
        ...

    def report_address(self, version: str, report_id: str) -> str | None: ...

    def report_page(self, version: str, report_id: str) -> bytes | None:
        """Evidently's page of a report, as `log_report` kept it; None where there is none."""
        ...
