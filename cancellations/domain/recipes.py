"""Recipes: named, versioned settings by which a version is made from bookings.

A recipe says what the model may see, what it takes for the truth, how fast that ages, and how it is fitted.
Several may compete in one retrain; each version records its own, so that it can be made again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from cancellations.domain.features import CORE, FeatureSet
from cancellations.domain.labels import Labels

# What a recipe may change about the estimator, with the limits of what makes sense.
ESTIMATOR: Mapping[str, tuple[float, float]] = {
    "max_iter": (1, 5_000),
    "max_leaf_nodes": (2, 1_000),
    "learning_rate": (0.001, 1.0),
    "min_samples_leaf": (1, 100_000),
    "l2_regularization": (0.0, 10_000.0),
}


@dataclass(frozen=True)
class Recipe:
    """How a version is made.

    `labels`: what counts as the truth; `weighted`: whether labels age by the rule's half-life;
    `without`: features that the model may not see; `estimator`: what differs from the defaults of the
    gradient boosting, by scikit-learn's names.
    """

    labels: Labels = Labels.MATURED
    weighted: bool = True
    without: tuple[str, ...] = ()
    estimator: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [name for name in self.estimator if name not in ESTIMATOR]
        if unknown:
            raise ValueError(f"a recipe cannot set {', '.join(unknown)}; it can set {', '.join(ESTIMATOR)}")
        for name, value in self.estimator.items():
            low, high = ESTIMATOR[name]
            if not low <= value <= high:
                raise ValueError(f"a recipe's {name} is {value:g}; it goes from {low:g} to {high:g}")

    def features(self, there: FeatureSet) -> FeatureSet:
        """What the model sees of the features that are there."""
        return there.excluding(self.without)

    def settings(self) -> dict[str, Any]:
        """This recipe in plain values, as `recipe_from` takes them."""
        return {
            "labels": self.labels.value,
            "weighted": self.weighted,
            "without": list(self.without),
            "estimator": dict(self.estimator),
        }


def recipe_from(name: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe that plain settings describe; raises `ValueError` that names what is wrong with them."""
    known = {f.name for f in fields(Recipe)}
    strange = sorted(set(settings) - known)
    if strange:
        raise ValueError(f"recipe {name!r} has no setting {', '.join(strange)}; it has {', '.join(sorted(known))}")
    given = dict(settings)
    try:
        labels = Labels(given.pop("labels", Labels.MATURED))
    except ValueError as error:
        raise ValueError(
            f"recipe {name!r}: labels are one of {', '.join(Labels)}, not {settings['labels']!r}"
        ) from error
    without = tuple(given.pop("without", ()))
    foreign = [feature for feature in without if feature not in CORE.names]
    if foreign:
        raise ValueError(
            f"recipe {name!r} leaves out {', '.join(foreign)}, no feature; they are {', '.join(CORE.names)}"
        )
    return Recipe(labels=labels, without=without, **given)


# A name never changes its meaning: what is changed gets the next number.
RECIPES: Mapping[str, Recipe] = {
    "matured/1": Recipe(),
    "matured-unweighted/1": Recipe(weighted=False),
    "hazard/1": Recipe(labels=Labels.HAZARD),
    "mix/1": Recipe(labels=Labels.MIX),
    # Whether a deposit is what it says is a question that each hotel answers for itself.
    "mix-without-deposit/1": Recipe(labels=Labels.MIX, without=("deposit_type",)),
}
DEFAULT_RECIPE = "matured/1"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*/[1-9][0-9]*")


def cookbook(own: Mapping[str, Mapping[str, Any]]) -> dict[str, Recipe]:
    """The package's recipes and those of a house, by name; raises `ValueError` for a name that is taken or no name."""
    book = dict(RECIPES)
    for name, settings in own.items():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a recipe is named like mine/1, in lower case with the number of its version; not {name!r}"
            )
        recipe = recipe_from(name, settings)
        if name in RECIPES and recipe != RECIPES[name]:
            raise ValueError(f"recipe {name!r} is there already and means something else; give yours another name")
        book[name] = recipe
    return book


def choose(names: Sequence[str], book: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """The recipes of these names, in their order; raises `ValueError` for one that nobody wrote."""
    unknown = [name for name in names if name not in book]
    if unknown:
        raise ValueError(f"there is no recipe {', '.join(unknown)}; there are {', '.join(book)}")
    if not names:
        raise ValueError(f"no recipe is named; name one or more of {', '.join(book)}")
    return {name: book[name] for name in dict.fromkeys(names)}
