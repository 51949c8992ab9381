"""What may be fitted in a replay: our recipes, and the pipelines that people use today, under the same rules.

A competitor is fitted on what could be known by the evening of a day, and then gives every booking made
later its probability as of booking. None may look at how those bookings ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

import numpy as np
import pandas as pd

from cancellations.bootstrap import trainer
from cancellations.domain.labels import CANCELLED, Examples, examples
from cancellations.domain.recipes import RECIPES, Recipe
from cancellations.errors import BadInput, NotEnoughData
from cancellations.replay.world import World

LEAST_ROWS = 500
WATCHED_ROWS = 5_000


@dataclass(frozen=True)
class Fit:
    """Probabilities of bookings; the figure by which the competitor's own gate compares, if it has one; and the
    importance of features, where somebody watches them."""

    probability: np.ndarray
    own_figure: float | None = None
    importance: Mapping[str, float] = field(default_factory=dict)


class Competitor(Protocol):
    """`name` tells it from others in tables and files."""

    @property
    def name(self) -> str: ...

    def fit(self, world: World, as_of: date, rows: slice, seed: int, *, watched: bool = False) -> Fit:
        """Fitted on what was known by the evening of `as_of`; probabilities of `rows`, all made later."""
        ...


@dataclass(frozen=True)
class OfRecipe:
    """One of our recipes."""

    name: str
    recipe: Recipe

    def fit(self, world: World, as_of: date, rows: slice, seed: int, *, watched: bool = False) -> Fit:
        made = examples(world.history, self.recipe.labels, world.rule, as_of, weighted=self.recipe.weighted)
        _require(self.name, as_of, *made)
        model = trainer().fit(world.built, made, self.recipe, seed)
        importance = {}
        if watched:
            # Of the last of the bookings that it was fitted on: a rank is wanted, no figure of merit.
            told = made[0]
            last = np.argsort(world.history["arrival_on"].to_numpy()[told.row], kind="stable")[-WATCHED_ROWS:]
            rows_seen = world.built.iloc[told.row[last]]
            importance = trainer().importance(model, rows_seen, told.label[last], seed)
        return Fit(model.predict(world.built.iloc[rows]), importance=importance)


@dataclass(frozen=True)
class LabelKnown:
    """Our features and trees on every booking whose outcome is on record: the rule that most pipelines have.

    Cancellations are known early and stays late, so it learns that bookings cancel.
    """

    name: str = "label known"
    recipe: Recipe = field(default_factory=lambda: Recipe(weighted=False))

    def fit(self, world: World, as_of: date, rows: slice, seed: int, *, watched: bool = False) -> Fit:
        row, label = _known(world.history, as_of)
        made = Examples(row, label, np.ones(len(row)))
        _require(self.name, as_of, made)
        return Fit(trainer().fit(world.built, [made], self.recipe, seed).predict(world.built.iloc[rows]))


# The columns of the article's pipeline (J. Arancio, "Build Machine Learning Pipelines with Airflow and MLflow:
# Reservation Cancellation Forecasting", 2024; its repository is public), by their names in the public file.
_BASE = (
    "lead_time",
    "arrival_date_year",
    "arrival_date_week_number",
    "arrival_date_day_of_month",
    "stays_in_weekend_nights",
    "stays_in_week_nights",
    "adults",
    "children",
    "babies",
    "is_repeated_guest",
    "previous_cancellations",
    "previous_bookings_not_canceled",
    "days_in_waiting_list",
    "adr",
    "required_car_parking_spaces",
    "total_of_special_requests",
)
_ORDINAL = (
    "arrival_date_month",
    "meal",
    "market_segment",
    "distribution_channel",
    "reserved_room_type",
    "assigned_room_type",
    "customer_type",
)
_TARGET = ("country", "booking_changes", "agent", "company")
# What a reservation says on its own day in columns that are written later; a stay's end knows better.
_AT_BOOKING = {"days_in_waiting_list": "0", "required_car_parking_spaces": "0", "booking_changes": "0"}


@dataclass(frozen=True)
class Article:
    """The article's pipeline: scikit-learn's gradient boosting on a random fifth of what has an outcome.

    Columns, encoders, split and model are its own; its gate wants the AUC of hard predictions on the other
    four fifths 5 % above the registered model's. `foresight`: score with the columns as they stand after
    the stay, as its evaluation does, instead of as they stand at booking.
    """

    foresight: bool = False

    @property
    def name(self) -> str:
        return "article, with foresight" if self.foresight else "article"

    def fit(self, world: World, as_of: date, rows: slice, seed: int, *, watched: bool = False) -> Fit:
        from sklearn.ensemble import GradientBoostingClassifier
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold
        from sklearn.preprocessing import OrdinalEncoder, TargetEncoder

        lacking = [name for name in (*_BASE, *_ORDINAL, *_TARGET) if name not in world.raw]
        if lacking:
            raise BadInput(
                f"the article's pipeline needs the columns of the public hotel file; {lacking[0]} is not there"
            )
        row, label = _known(world.history, as_of)
        _require(self.name, as_of, Examples(row, label, np.ones(len(row))))
        ended = _filled(world.raw.iloc[row])
        train = np.random.default_rng(seed).random(len(row)) < 0.2
        ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        target = TargetEncoder(cv=StratifiedKFold(5, shuffle=True, random_state=seed))

        def matrix(frame: pd.DataFrame, codes: np.ndarray) -> np.ndarray:
            base = frame[list(_BASE)].apply(pd.to_numeric, errors="coerce").fillna(0).to_numpy(dtype=float)
            return np.column_stack([base, ordinal.transform(frame[list(_ORDINAL)]), codes])

        fitted = ended[train]
        ordinal.fit(fitted[list(_ORDINAL)])
        codes = target.fit_transform(fitted[list(_TARGET)], label[train])
        model = GradientBoostingClassifier(n_estimators=100, min_samples_split=2, min_samples_leaf=1, random_state=42)
        model.fit(matrix(fitted, codes), label[train])
        test = ended[~train]
        hard = model.predict(matrix(test, target.transform(test[list(_TARGET)])))
        later = world.raw.iloc[rows]
        if not self.foresight:
            later = later.assign(**_AT_BOOKING, assigned_room_type=later["reserved_room_type"], country=np.nan)
        asked = _filled(later)
        probability = model.predict_proba(matrix(asked, target.transform(asked[list(_TARGET)])))[:, 1]
        return Fit(probability, float(roc_auc_score(label[~train], hard)))


def competitors(cookbook: Mapping[str, Recipe] = RECIPES) -> dict[str, Competitor]:
    """All that there are, by name."""
    others: tuple[Competitor, ...] = (LabelKnown(), Article(), Article(foresight=True))
    return {name: OfRecipe(name, recipe) for name, recipe in cookbook.items()} | {c.name: c for c in others}


def _known(history: pd.DataFrame, as_of: date) -> tuple[np.ndarray, np.ndarray]:
    """Positions and labels of bookings with any outcome on record."""
    row = np.flatnonzero((history["known_on"] <= pd.Timestamp(as_of)).to_numpy())
    return row, history["status"].iloc[row].isin(CANCELLED).to_numpy(dtype=float)


def _filled(raw: pd.DataFrame) -> pd.DataFrame:
    gaps = {"children": "0", "country": "Unknown", "agent": "0", "company": "0"}
    return raw.fillna(gaps).fillna("Unknown")


def _require(name: str, as_of: date, *made: Examples) -> None:
    for one in made:
        if len(one) < LEAST_ROWS or one.label.min() == one.label.max():
            raise NotEnoughData(f"{name} cannot be fitted as of {as_of}: {len(one):,} examples; begin the replay later")
