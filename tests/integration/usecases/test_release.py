"""A change of code or recipe becomes a version by the way of every retrain, and champion by the ledger's."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from world import POLICY, SECOND, NaiveTrainer, World

from cancellations import registry
from cancellations.domain.promotion import Change, Kind
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import Refused
from cancellations.usecases.release import Means, Released, release
from cancellations.usecases.training import TrainingPolicy


def released(world: World, *, policy: TrainingPolicy = POLICY, trainer: Any = None, **options: Any) -> Released:
    def train(reason: str, day: date) -> RetrainRequest:
        given = {} if trainer is None else {"trainer": trainer}
        return world.retrain(world.request(day, reason), **given)

    means = Means(
        store=world.store,
        registry=world.registry,
        policy=policy,
        train=train,
        promote=lambda version, reason, day: world.promote(version, day, reason),
    )
    return release(means, as_of=SECOND, **options)


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a line of the package had been changed since the champion was made."""
    monkeypatch.setattr(registry, "code_version", lambda: "0.1.0+changed")


def test_without_a_change_nothing_is_trained(trained: World) -> None:
    assert released(trained) == Released((), version="1")
    assert trained.versions() == ["1"]


@pytest.mark.usefixtures("changed")
def test_changed_code_becomes_a_challenger_whose_request_says_why(trained: World) -> None:
    done = released(trained)
    assert done.request is not None and done.request.state is RequestState.CANDIDATE
    assert "code 0.1.0+changed in place of 0.1.0+" in done.request.reason
    assert done.takeover is None
    standing, trial = trained.standing(), trained.open_trial()
    assert (standing.champion, standing.challenger) == ("1", done.version) == ("1", "2")
    assert trial is not None and (trial.kind, trial.rival) == (Kind.TRIAL, "2")


def test_another_recipe_is_a_change_too(trained: World) -> None:
    assert released(trained, policy=replace(POLICY, recipes=("hazard/1",))).changes == (
        "recipes hazard/1 in place of matured/1",
    )


def test_a_recipe_that_says_something_else_is_a_change(trained: World) -> None:
    calm = replace(POLICY.cookbook["matured/1"], estimator={"max_iter": 10})
    done = released(trained, policy=replace(POLICY, cookbook={**POLICY.cookbook, "matured/1": calm}))
    assert done.changes == ("the recipe matured/1 says something else",)


@pytest.mark.usefixtures("changed")
def test_approval_lets_the_version_take_over_by_the_ledger_and_a_probation_begins(trained: World) -> None:
    first = released(trained)
    done = released(trained, approval="figures agreed")
    assert done.request is None  # what is registered already is not trained again
    assert done.takeover is not None and (done.takeover.version, done.takeover.previous) == (first.version, "1")
    last = trained.ledger()[-1]
    assert (last.change, last.champion, last.reason) == (Change.PROMOTED, "2", "figures agreed")
    probation = trained.open_trial()
    assert probation is not None and probation.kind is Kind.PROBATION
    assert trained.registry.aliases()["champion"] == "2"
    assert released(trained) == Released((), version="2")


@pytest.mark.usefixtures("changed")
def test_approval_at_once_trains_gates_and_takes_over(trained: World) -> None:
    done = released(trained, approval="figures agreed")
    assert done.request is not None and done.takeover is not None
    assert trained.standing().champion == "2"


@pytest.mark.usefixtures("changed")
def test_approval_does_not_pass_the_gate(trained: World) -> None:
    with pytest.raises(Refused, match="ended as rejected: refused: log loss"):
        released(trained, trainer=NaiveTrainer(), approval="whatever it takes")
    assert trained.standing().champion == "1" and trained.standing().challenger is None
    assert [row.change for row in trained.ledger()] == [Change.FIRST]


def test_a_challenger_that_was_made_otherwise_is_in_the_way(challenged: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "code_version", lambda: "0.1.0+changed")
    with pytest.raises(Refused, match="challenger 2 is on trial, and was made otherwise"):
        released(challenged, approval="agreed")
    assert challenged.standing().champion == "1"


def test_the_first_version_serves_without_approval(loaded: World) -> None:
    done = released(loaded)
    assert (done.changes, done.version, done.takeover) == (("there is no champion yet",), "1", None)
    assert loaded.standing().champion == "1"


def test_anyway_trains_without_a_change(trained: World) -> None:
    assert released(trained, anyway=True).changes == ("asked for anyway",)
    assert trained.standing().challenger == "2"
