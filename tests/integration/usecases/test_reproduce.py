"""A version is made again from its record: equal to the last digit, or it is said what is not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from world import FIRST, POLICY, NaiveTrainer, QuickTrainer, World

from cancellations import registry as registry_module
from cancellations.domain.labels import Examples, LabelRule, Matures
from cancellations.domain.recipes import Recipe
from cancellations.errors import BadInput, Refused
from cancellations.model import GradientBoosting, Model
from cancellations.ports import Trainer
from cancellations.usecases.reproduce import Differs, Reproduction, reproduce
from cancellations.usecases.training import TrainingPolicy

OPEN_GATE = replace(POLICY.gate, min_skill=-10.0, max_bias=1.0)


class OtherSeed(NaiveTrainer):
    """Shuffles in another order."""

    def fit(self, features: pd.DataFrame, examples: Sequence[Examples], recipe: Recipe, seed: int) -> Model:
        return super().fit(features, examples, recipe, seed + 1)


class Renamed(QuickTrainer):
    """Another estimator than the one that made the version."""

    estimator = "trees-of-another-kind/1"


def make(world: World, recipe: str, trainer: Trainer | None = None, policy: TrainingPolicy = POLICY) -> str:
    made = replace(policy, recipes=(recipe,), gate=OPEN_GATE)
    done = world.retrain(world.request(FIRST), policy=made, trainer=trainer)
    assert done.version is not None, done.detail
    return done.version


def again(world: World, version: str, trainer: Trainer | None = None) -> Reproduction:
    return reproduce(version, registry=world.registry, trainer=trainer or QuickTrainer())


def change(world: World, version: str, path: str, by: Callable[[Path], object]) -> None:
    """Puts a changed file in place of one of a version's run."""
    run_id = world.registry.record(version).run_id
    with tempfile.TemporaryDirectory() as folder:
        file = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=folder))
        by(file)
        mlflow.MlflowClient().log_artifact(run_id, str(file), str(Path(path).parent) if "/" in path else None)


def retold(**columns: Callable[[pd.DataFrame], pd.Series]) -> Callable[[Path], None]:
    """A Parquet file with other columns."""
    return lambda path: pd.read_parquet(path).assign(**columns).to_parquet(path, index=False)


@pytest.mark.parametrize("recipe", ["matured/1", "mix/1", "hazard/1"])
def test_a_version_is_fitted_again_to_the_same_probabilities(loaded: World, recipe: str) -> None:
    version = make(loaded, recipe)
    found = again(loaded, version)
    assert (found.recipe, found.as_of, found.seed) == (recipe, FIRST, POLICY.seed)
    assert found.rows == len(loaded.registry.training(version)) > 1_000
    assert found.compared == found.rows + POLICY.reference_rows
    assert found.largest_difference == 0
    assert found.digest_matches and found.equal
    assert (found.code, found.packages, found.settings) == (None, (), ())
    assert f"version {version} is reproduced" in found.verdict


def test_labels_that_mature_at_check_out_are_made_again_by_the_rule_of_then(loaded: World) -> None:
    late = replace(POLICY, labels=LabelRule(settle_days=2, half_life_days=60, matures=Matures.CHECK_OUT))
    assert again(loaded, make(loaded, "mix/1", policy=late)).equal


def test_defaults_that_changed_since_do_not_change_what_is_fitted_again(loaded: World) -> None:
    version = make(loaded, "matured/1")
    found = again(loaded, version, GradientBoosting())
    assert found.equal
    assert found.settings == (Differs("max_iter", "20", "100"),)


def test_another_seed_is_told_by_the_largest_difference(loaded: World) -> None:
    version = make(loaded, "matured/1", NaiveTrainer())
    assert again(loaded, version, NaiveTrainer()).equal
    other = again(loaded, version, OtherSeed())
    assert other.digest_matches and not other.equal
    assert 0.001 < other.largest_difference < 1
    assert f"differs by up to {other.largest_difference:.3g}" in other.verdict
    assert "code and packages are those that it was made with" in other.verdict


def test_training_data_that_were_changed_are_no_reproduction_even_where_the_fit_is_the_same(loaded: World) -> None:
    version = make(loaded, "matured/1")
    # The label is made from the outcome, so the fit does not look at this column.
    change(loaded, version, "data/training.parquet", retold(label=lambda rows: 1 - rows["label"]))
    found = again(loaded, version)
    assert found.largest_difference == 0
    assert not found.digest_matches and not found.equal
    assert found.registered_digest == loaded.registry.record(version).data_digest != found.digest
    assert found.digest in found.verdict and "training.parquet of its run was changed" in found.verdict


def test_outcomes_that_were_changed_give_another_model(loaded: World) -> None:
    version = make(loaded, "hazard/1")
    change(loaded, version, "data/training.parquet", retold(known_on=lambda rows: rows["arrival_on"]))
    found = again(loaded, version)
    assert not found.equal and found.largest_difference > 0.01


def test_code_and_packages_that_changed_since_are_named(loaded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = make(loaded, "matured/1", NaiveTrainer())
    then = registry_module.code_version()
    monkeypatch.setattr(registry_module, "code_version", lambda: "9.9.9+somewhere")

    def of_another_year(path: Path) -> None:
        lines = [line for line in path.read_text().splitlines() if not line.startswith(("numpy==", "scipy=="))]
        path.write_text("\n".join([*lines, "numpy==1.0", "gone==2.0"]) + "\n")

    change(loaded, version, "environment.txt", of_another_year)
    found = again(loaded, version, OtherSeed())
    assert found.code == Differs("code", then, "9.9.9+somewhere")
    assert [(each.name, each.then) for each in found.packages] == [("gone", "2.0"), ("numpy", "1.0"), ("scipy", None)]
    assert found.packages[0].now is None and found.packages[2].now is not None
    assert "the code and 3 packages changed since" in found.verdict


def test_a_version_of_another_estimator_is_refused_with_the_code_that_made_it(loaded: World) -> None:
    version = make(loaded, "matured/1")
    made_by = loaded.registry.parameters(version)["code_version"]
    with pytest.raises(
        Refused, match="hist-gradient-boosting/1, and this code fits trees-of-another-kind/1"
    ) as refused:
        again(loaded, version, Renamed())
    assert made_by in str(refused.value)


def test_a_version_that_no_recipe_made_is_refused_with_the_reason(contest: World) -> None:
    with pytest.raises(Refused, match="no parameter recipe_settings, so it was registered by hand or by an older"):
        again(contest, "2")


def test_a_version_that_is_not_there_is_bad_input(loaded: World) -> None:
    with pytest.raises(BadInput, match="version 9"):
        again(loaded, "9")


@dataclass(frozen=True)
class Told:
    """A registry that reads a run's parameters as somebody left them."""

    change: Callable[[dict[str, str]], dict[str, str]]
    world: World

    def __getattr__(self, name: str) -> object:
        return getattr(self.world.registry, name)

    def parameters(self, version: str) -> dict[str, str]:
        return self.change(self.world.registry.parameters(version))


def test_parameters_that_are_missing_or_unreadable_are_named(trained: World) -> None:
    def without(told: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in told.items() if name != "settle_days"}

    with pytest.raises(Refused, match="no parameter settle_days"):
        reproduce("1", registry=Told(without, trained), trainer=QuickTrainer())  # type: ignore[arg-type]
    for name, value in (("seed", "twenty"), ("recipe_settings", '{"labels": "guessed"}'), ("matures", "never")):
        with pytest.raises(BadInput, match="parameters of version 1's run cannot be read"):
            reproduce(
                "1",
                registry=Told(lambda told, n=name, v=value: told | {n: v}, trained),  # type: ignore[arg-type,misc]
                trainer=QuickTrainer(),
            )
