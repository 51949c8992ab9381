"""The page on the model names what there is: recipes, features, and what a recipe may set."""

from __future__ import annotations

import re
from pathlib import Path

from cancellations.domain.features import CORE
from cancellations.domain.recipes import DEFAULT_RECIPE, ESTIMATOR, RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "model.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Cells of a section's table, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_recipe_is_told_with_what_it_leaves_out() -> None:
    told = rows("Recipes")
    assert [re.findall(r"`(.+)`", row[0])[0] for row in told] == list(RECIPES)
    for (_, labels, half_life, without), (name, recipe) in zip(told, RECIPES.items(), strict=True):
        assert re.findall(r"`(\w+)`", without) == list(recipe.without)
        assert (half_life == "180 days") is recipe.weighted
        assert ("the default" in labels) is (name == DEFAULT_RECIPE)
    assert all(f"`{name}`" in PAGE for name in ESTIMATOR)


def test_every_feature_is_told_once_and_none_that_does_not_exist() -> None:
    told = [name for row in rows("Features") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(CORE.names)
