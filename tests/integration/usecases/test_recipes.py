"""Recipes compete on the same rows; the one that is chosen is written down, and what it saw tests nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import mlflow
import mlflow.artifacts
import numpy as np
import pandas as pd
import pytest
import skops.io
from world import FIRST, POLICY, SECOND, WEEK, NaiveTrainer, World

from cancellations.domain.comparison import log_loss
from cancellations.domain.gate import GatePolicy
from cancellations.domain.labels import Labels, maturity, recorded_cancelled
from cancellations.domain.recipes import RECIPES, Recipe
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.model import TRUSTED_TYPES, Model
from cancellations.ports import VersionRecord

TRIED = ("matured/1", "mix/1", "hazard/1")
BOOK = {**RECIPES, "blind/1": Recipe(without=("deposit_type", "lead_days", "market_segment", "special_requests"))}
MIDDLE = FIRST + WEEK
CHALLENGE = replace(POLICY, recipes=("mix/1",))


def version(world: World, done: RetrainRequest) -> VersionRecord:
    assert done.version is not None, done.detail
    with world.store.begin() as work:
        record = work.version(done.version)
    assert record is not None
    return record


def runs(world: World, request_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The run of a request, and those nested under it."""
    found = mlflow.search_runs(experiment_names=["cancellations"])
    own = found[found["tags.request_id"] == request_id]
    assert len(own) == 1
    return own, found[found["tags.mlflow.parentRunId"] == own["run_id"].iloc[0]]


def test_recipes_stand_side_by_side_in_mlflow_and_the_chosen_one_is_on_record(trained: World) -> None:
    done = trained.retrain(trained.request(SECOND), policy=replace(POLICY, recipes=TRIED))
    record = version(trained, done)
    assert record.recipe in TRIED
    assert record.labels is RECIPES[record.recipe].labels
    own, nested = runs(trained, done.request_id)
    assert sorted(nested["tags.recipe"]) == sorted(TRIED)
    assert nested["metrics.log_loss"].between(0.05, 2).all()
    assert own["params.recipe"].iloc[0] == record.recipe
    assert own["params.recipes_tried"].iloc[0] == ", ".join(TRIED)
    assert any(reason.startswith(f"recipe {record.recipe}") for reason in done.detail)


def test_the_model_that_the_gate_judged_is_kept_beside_the_one_that_serves(trained: World) -> None:
    done = trained.retrain(trained.request(SECOND))
    record = version(trained, done)
    path = mlflow.artifacts.download_artifacts(run_id=record.run_id, artifact_path="backtest/backtest.skops")
    judged = Model(skops.io.load(path, trusted=list(TRUSTED_TYPES)))
    training = trained.registry.training(record.version)
    tested = training[training["matured_on"] > pd.Timestamp(FIRST)]
    loss = log_loss(tested["label"].to_numpy(), judged.predict(tested)).mean()
    assert loss == pytest.approx(record.metrics["backtest_log_loss"])
    assert not np.allclose(judged.predict(tested), trained.registry.load(record.version).predict(tested))


def test_the_champions_recipe_competes_whatever_the_settings_say_today(trained: World) -> None:
    policy = replace(
        POLICY, recipes=("blind/1",), cookbook=BOOK, gate=replace(POLICY.gate, min_skill=-1.0, tolerance=1.0)
    )
    done = trained.retrain(trained.request(SECOND), policy=policy)
    _, nested = runs(trained, done.request_id)
    assert sorted(nested["tags.recipe"]) == ["blind/1", "matured/1"]
    # Whoever names another recipe wants it: it gives way only to one that is better with certainty.
    chosen = version(trained, done).recipe
    certain = nested.set_index("tags.recipe")["metrics.low"]["matured/1"] > 0
    assert chosen == ("matured/1" if certain else "blind/1")


def test_a_recipe_that_sees_less_is_a_version_that_asks_for_less(loaded: World) -> None:
    policy = replace(POLICY, recipes=("blind/1",), cookbook=BOOK, gate=replace(POLICY.gate, min_skill=-1.0))
    record = version(loaded, loaded.retrain(loaded.request(FIRST), policy=policy))
    seen = loaded.registry.load(record.version).features.names
    assert "deposit_type" not in seen
    assert "price" in seen


def test_a_refused_retrain_leaves_its_backtest_in_mlflow_too(trained: World) -> None:
    request = trained.request(SECOND)
    done = trained.retrain(request, trainer=NaiveTrainer())
    assert done.state is RequestState.REJECTED
    own, nested = runs(trained, request.request_id)
    assert own["tags.outcome"].tolist() == ["refused"]
    assert nested["tags.recipe"].tolist() == ["matured/1"]


@pytest.fixture
def stepwise(trained: World) -> World:
    """A challenger that has learnt from bookings which had not matured when it was trained."""
    assert version(trained, trained.retrain(trained.request(MIDDLE), policy=CHALLENGE)).labels is Labels.MIX
    return trained


def test_what_a_challenger_saw_the_beginning_of_is_no_evidence_for_it(stepwise: World) -> None:
    stepwise.score(until=SECOND)
    stepwise.look(SECOND)
    with stepwise.store.begin() as work:
        trial = work.open_trial()
        history = work.history(booked_until=SECOND, known_until=SECOND)
    assert trial is not None
    ripe = maturity(history, POLICY.labels).between(*map(pd.Timestamp, (MIDDLE + timedelta(days=1), SECOND)))
    made_since = (history["booked_on"] > pd.Timestamp(MIDDLE)) & ripe
    assert 0 < made_since.sum() < 0.5 * ripe.sum()
    assert trial.evidence[-1].bookings == made_since.sum()


def test_it_has_learnt_from_bookings_that_had_not_matured(stepwise: World) -> None:
    training = stepwise.registry.training("2")
    immature = training["matured_on"] > pd.Timestamp(MIDDLE)
    assert immature.sum() > 1_000
    assert training.loc[immature, "label"].isna().all()
    assert not (training["known_on"] > pd.Timestamp(MIDDLE)).any()
    assert recorded_cancelled(training, MIDDLE)[immature].any()
    assert np.isfinite(stepwise.registry.load("2").predict(training)).all()


def test_a_gate_compares_recipes_on_rows_that_none_was_fitted_on(trained: World) -> None:
    """A test booking's early steps are kept from a model of steps: without them its fit is another."""
    seen: list[np.ndarray] = []

    class Spy(type(trained.trainer)):  # type: ignore[misc]
        def fit(self, features, examples, recipe, seed):  # type: ignore[no-untyped-def]
            seen.append(np.unique(np.concatenate([made.row for made in examples])))
            return super().fit(features, examples, recipe, seed)

    with trained.store.begin() as work:
        history = work.history(booked_until=SECOND, known_until=SECOND)
    policy = replace(CHALLENGE, gate=GatePolicy(backtest_days=14, min_rows=300))
    trained.retrain(trained.request(SECOND), policy=policy, trainer=Spy())
    ripe = maturity(history, POLICY.labels)
    test = np.flatnonzero(ripe.between(pd.Timestamp(FIRST) + pd.Timedelta(days=1), pd.Timestamp(SECOND)))
    *backtest, final = seen
    assert len(backtest) == 2
    assert not any(np.intersect1d(rows, test).size for rows in backtest)
    assert np.isin(test, final).all()
