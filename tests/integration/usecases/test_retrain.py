"""One request, one training, at most one version; every request ends, and says how."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import contest
import mlflow.artifacts
import mlflow.models
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from world import (
    FIRST,
    POLICY,
    SECOND,
    START,
    WEEK,
    BrokenTrainer,
    CutOff,
    NaiveTrainer,
    PowerCut,
    QuickTrainer,
    World,
    registry,
)

from cancellations.domain.events import ChallengerRegistered, ChampionChanged, RetrainFailed, RetrainRejected
from cancellations.domain.features import CORE, FEATURES
from cancellations.domain.labels import TOLD, Examples
from cancellations.domain.promotion import Standing
from cancellations.domain.recipes import Recipe
from cancellations.domain.retraining import RequestState
from cancellations.errors import BadInput, LeaseLost, NotEnoughData, Refused
from cancellations.model import TRUSTED_TYPES, Model
from cancellations.ports import Candidate, VersionRecord
from cancellations.registry import signature
from cancellations.store import SqlStore
from cancellations.store.tables import outcomes
from cancellations.usecases.retrain import LEASE


def standing(world: World) -> Standing:
    with world.store.begin() as work:
        return work.standing()


def training_table(world: World, version: str) -> pd.DataFrame:
    run_id = world.registry._client.get_model_version("cancellations", version).run_id
    return pd.read_parquet(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="data/training.parquet"))


# --- a request ends with a version ----------------------------------------------------------------


def test_the_first_version_to_pass_becomes_champion_by_ledger_and_alias(trained: World) -> None:
    with trained.store.begin() as work:
        [row] = work.ledger()
        record = work.version("1")
        [request] = work.requests()
    assert standing(trained) == Standing("1", None, 1)
    assert (row.epoch, row.champion, row.challenger, row.as_of) == (1, "1", None, FIRST)
    assert record is not None and (record.request_id, record.trained_as_of) == (request.request_id, FIRST)
    assert 0 < record.metrics["backtest_log_loss"] < 0.69
    assert (request.state, request.version, request.attempts) == (RequestState.CANDIDATE, "1", 1)
    assert trained.registry.aliases() == {"champion": "1"}
    assert trained.topics() == [("event", ChampionChanged.topic), ("mail", ChampionChanged.topic)]


def test_a_later_version_stands_beside_the_champion_and_changes_nothing_else(challenged: World) -> None:
    with challenged.store.begin() as work:
        ledger = work.ledger()
        request = work.requests()[-1]
    assert standing(challenged) == Standing("1", "2", 2)
    assert [(r.champion, r.challenger) for r in ledger] == [("1", None), ("1", "2")]
    assert ledger[-1].request_id == request.request_id
    assert challenged.registry.aliases() == {"champion": "1", "challenger": "2"}
    assert challenged.registry.tags("2")["request_id"] == request.request_id
    assert challenged.registry.tags("2")["replaces"] == "1"
    assert challenged.topics()[-1] == ("mail", ChallengerRegistered.topic)
    with challenged.store.begin() as work:
        assert work.lease_holder(LEASE, challenged.clock()) is None


def test_a_request_that_has_ended_is_returned_as_it_is(challenged: World) -> None:
    with challenged.store.begin() as work:
        request = work.requests()[-1]
        ledger = work.ledger()
    said: list[str] = []
    assert challenged.retrain(request, say=said.append) == request
    assert said == [f"request {request.request_id} has ended already: candidate"]
    assert challenged.versions() == ["1", "2"]
    with challenged.store.begin() as work:
        assert work.ledger() == ledger


def test_the_same_wish_is_the_same_request_until_it_was_rejected(trained: World) -> None:
    first = trained.request(SECOND)
    assert trained.request(SECOND) == first
    trained.update(first, state=RequestState.REJECTED)
    again = trained.request(SECOND)
    assert again.request_id == f"{first.request_id}-2" != first.request_id
    assert trained.request(SECOND) == again


def test_a_death_between_registration_and_our_commit_ends_with_the_same_one_version(trained: World) -> None:
    request = trained.request(SECOND)
    with pytest.raises(PowerCut):
        trained.retrain(request, store=CutOff(trained.store, "change_standing"))
    assert trained.versions() == ["1", "2"]  # in MLflow it stands, our ledger knows nothing of it
    assert standing(trained) == Standing("1", None, 1)
    assert trained.stored(request).state is RequestState.RUNNING

    trained.clock.advance(minutes=16)
    done = trained.retrain(request, owner="the next worker")
    assert (done.state, done.version, done.attempts) == (RequestState.CANDIDATE, "2", 2)
    assert trained.versions() == ["1", "2"]
    assert standing(trained) == Standing("1", "2", 2)


def test_a_death_after_the_last_write_leaves_nothing_half_written(trained: World) -> None:
    request = trained.request(SECOND)
    before = trained.topics()
    # The claim commits, the two looks at the lease commit, then the one transaction that ends the request.
    with pytest.raises(PowerCut):
        trained.retrain(request, store=CutOff(trained.store, "commit", nth=3))
    assert standing(trained) == Standing("1", None, 1)
    assert trained.topics() == before
    with trained.store.begin() as work:
        assert work.version("2") is None


# --- what a version is ----------------------------------------------------------------------------


def test_the_same_data_and_seed_give_identical_probabilities(trained: World) -> None:
    one = trained.retrain(trained.request(SECOND))
    trained.withdraw(SECOND)
    other = trained.retrain(trained.automatic(SECOND))
    assert one.version is not None and other.version is not None and one.version != other.version
    features = trained.registry.reference("1")
    probabilities = [trained.registry.load(v).predict(features) for v in (one.version, other.version)]
    assert np.array_equal(*probabilities)
    assert not np.array_equal(probabilities[0], trained.registry.load("1").predict(features))
    digests = [trained.registry.tags(v)["data_digest"] for v in ("1", one.version, other.version)]
    assert digests[1] == digests[2] != digests[0]


def test_no_label_that_matured_after_its_day_enters_a_training(challenged: World) -> None:
    # The store of this world knows outcomes until SECOND; version 1 was trained as of FIRST.
    for version, as_of in (("1", FIRST), ("2", SECOND)):
        table = training_table(challenged, version)
        assert table["matured_on"].max() == pd.Timestamp(as_of)
        assert table["reservation_id"].is_unique
        assert set(table["label"].unique()) == {0.0, 1.0}
        assert set(table.columns) == {*FEATURES, *TOLD, "label", "matured_on"}
    assert len(training_table(challenged, "2")) > len(training_table(challenged, "1"))


def test_a_version_carries_its_signature_and_a_reference_of_its_training(challenged: World) -> None:
    info = mlflow.models.get_model_info("models:/cancellations/2")
    assert info.signature == signature(CORE)
    assert set(info.signature.inputs.input_names()) == set(FEATURES)
    reference = challenged.registry.reference("2")
    assert len(reference) == POLICY.reference_rows
    assert set(reference.columns) == {*FEATURES, "label"}
    importance = challenged.registry.importance("1")
    assert set(importance) == set(FEATURES)
    assert sum(importance.values()) == pytest.approx(1)


def test_an_artifact_with_a_foreign_type_is_refused_whatever_list_it_brings(trained: World) -> None:
    foreign = "copy.copy"

    class Stranger(QuickTrainer):
        def fit(self, features: pd.DataFrame, examples: Sequence[Examples], recipe: Recipe, seed: int) -> Model:
            steps = super().fit(features, examples, recipe, seed).pipeline.steps
            return Model(Pipeline([("copy", FunctionTransformer(copy.copy)), *steps]))

    generous = registry(trained.registry._uri, trusted=(*TRUSTED_TYPES, foreign))
    done = trained.retrain(trained.request(SECOND), trainer=Stranger(), registry=generous)
    assert done.version is not None
    generous.load(done.version)
    with pytest.raises(BadInput, match=f"version {done.version} is not loaded.*{re.escape(foreign)}"):
        trained.registry.load(done.version)


def test_the_trusted_list_holds_what_a_version_needs_and_no_more(trained: World) -> None:
    ours = {name for name in TRUSTED_TYPES if name.startswith("cancellations.")}
    assert needed(trained, "1") == set(TRUSTED_TYPES) - ours
    mixed = trained.retrain(trained.request(SECOND), policy=replace(POLICY, recipes=("mix/1",)))
    assert mixed.version == "2"
    shifted = QuickTrainer().shifted(trained.registry.load("2"), 0.1)
    trained.registry.register(replace(contest.candidate("shifted"), model=shifted))
    assert needed(trained, "3") == set(TRUSTED_TYPES)


def needed(world: World, version: str) -> set[str]:
    """Types that must be trusted before a version is loaded."""
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/cancellations/{version}"))
    return set(skops.io.get_untrusted_types(file=folder / "model.skops"))


# --- a request ends without one -------------------------------------------------------------------


def test_a_model_that_knows_nothing_is_rejected_told_by_mail_and_not_registered(trained: World) -> None:
    request = trained.request(SECOND)
    done = trained.retrain(request, trainer=NaiveTrainer())
    assert done.state is RequestState.REJECTED
    assert trained.stored(request) == done
    assert done.detail[0].startswith("refused: log loss")
    assert trained.versions() == ["1"]
    assert standing(trained) == Standing("1", None, 1)
    assert trained.topics()[-1] == ("mail", RetrainRejected.topic)
    assert trained.retrain(request) == done  # and it stays so


def test_too_little_data_rejects_with_a_sentence_that_says_what_is_missing(loaded: World) -> None:
    done = loaded.retrain(loaded.request(START + 2 * WEEK))
    assert done.state is RequestState.REJECTED
    [sentence] = done.detail
    assert "300 of each are needed" in sentence and "Load more history" in sentence
    assert loaded.topics() == [("mail", RetrainRejected.topic)]
    assert loaded.versions() == []


def test_outcomes_that_were_never_loaded_are_noticed(loaded: World) -> None:
    with loaded.store.begin() as work:
        work._write(outcomes.delete())  # type: ignore[attr-defined]
        work.commit()
    done = loaded.retrain(loaded.request(FIRST))
    assert done.state is RequestState.REJECTED
    assert "ended alike; are outcomes loaded?" in done.detail[0]


def test_an_empty_store_takes_no_request(store: SqlStore, trained: World) -> None:
    with pytest.raises(NotEnoughData, match=r"holds no reservations.*cancellations ingest"):
        World(store, trained.registry).request(FIRST)


def test_an_unknown_request_is_bad_input(trained: World) -> None:
    with pytest.raises(BadInput, match=r"no retrain request 'nobody'.*cancellations status"):
        trained.retrain(replace(trained.request(SECOND), request_id="nobody"))


def test_each_error_counts_an_attempt_and_the_last_one_fails_with_a_mail(trained: World) -> None:
    def break_down() -> None:
        raise RuntimeError("disk full")

    request, trainer, before = trained.request(SECOND), BrokenTrainer(break_down), trained.topics()
    for attempt in range(1, POLICY.max_attempts + 1):
        assert trained.topics() == before
        with pytest.raises(RuntimeError, match="disk full"):
            trained.retrain(request, trainer=trainer)
        found = trained.stored(request)
        assert found.attempts == attempt
        assert found.detail[-1] == f"attempt {attempt}: RuntimeError('disk full')"
        with trained.store.begin() as work:
            assert work.lease_holder(LEASE, trained.clock()) is None
    assert found.state is RequestState.FAILED
    assert trained.topics() == [*before, ("mail", RetrainFailed.topic)]
    assert trained.retrain(request, trainer=trainer) == found
    assert trainer.fits == POLICY.max_attempts


def test_a_request_whose_last_worker_died_fails_when_it_is_asked_for_again(trained: World) -> None:
    asked = trained.request(SECOND)
    request = trained.update(asked, state=RequestState.RUNNING, attempts=POLICY.max_attempts, detail=("attempt 2: x",))
    before = trained.topics()
    ended = trained.retrain(request, trainer=BrokenTrainer(lambda: pytest.fail("it must not train")))
    assert (ended.state, ended.attempts) == (RequestState.FAILED, POLICY.max_attempts)
    assert ended.detail == ("attempt 2: x", "attempt 3: its worker died")
    assert trained.stored(request) == ended
    assert trained.topics() == [*before, ("mail", RetrainFailed.topic)]
    with trained.store.begin() as work:
        assert work.lease_holder(LEASE, trained.clock()) is None


# --- who may work ---------------------------------------------------------------------------------


def test_a_busy_lease_refuses_and_the_request_keeps_waiting(trained: World) -> None:
    request = trained.request(SECOND)
    trained.acquire(LEASE, "machine:7")
    with pytest.raises(Refused, match=r"another retrain runs \(machine:7\)"):
        trained.retrain(request, trainer=BrokenTrainer(lambda: pytest.fail("it must not train")))
    assert trained.stored(request) == request


def test_a_dead_workers_lease_expires_and_another_takes_over(trained: World) -> None:
    request = trained.update(trained.request(SECOND), state=RequestState.RUNNING, attempts=1)
    trained.acquire(LEASE, "dead")
    trained.clock.advance(minutes=16)
    done = trained.retrain(request)
    assert (done.state, done.attempts) == (RequestState.CANDIDATE, 2)
    assert done.detail[0] == "attempt 1: its worker died"


@pytest.mark.parametrize("fit", [1, 2], ids=["in the backtest", "in the final fit"])
def test_a_worker_that_lost_its_lease_writes_nothing(trained: World, fit: int) -> None:
    request = trained.request(SECOND)

    def sleep_through() -> None:
        if trainer.fits == fit:
            trained.clock.advance(minutes=16)
            trained.acquire(LEASE, "the next worker")

    trainer = BrokenTrainer(sleep_through)
    before = trained.topics()
    with pytest.raises(LeaseLost, match="the next worker holds it now"):
        trained.retrain(request, trainer=trainer)
    assert trained.versions() == ["1"]
    assert standing(trained) == Standing("1", None, 1)
    assert trained.topics() == before
    # The request is the next worker's now: the late one does not put it back into waiting.
    assert trained.stored(request).state is RequestState.RUNNING


def test_a_lease_lost_during_registration_keeps_the_standing(trained: World) -> None:
    request = trained.request(SECOND)

    class Slow:
        def __getattr__(self, name: str) -> object:
            return getattr(trained.registry, name)

        def register(self, candidate: object) -> object:
            record = trained.registry.register(candidate)  # type: ignore[arg-type]
            trained.clock.advance(minutes=16)
            return record

    with pytest.raises(LeaseLost, match="it has expired"):
        trained.retrain(request, registry=Slow())
    assert standing(trained) == Standing("1", None, 1)
    assert trained.registry.aliases() == {"champion": "1"}
    # Whoever comes next finds the version that the request has.
    done = trained.retrain(request, owner="the next worker")
    assert (done.version, trained.versions()) == ("2", ["1", "2"])


def test_a_worker_that_stood_still_while_it_registered_takes_its_version_back(trained: World) -> None:
    candidate, late = contest.candidate("asked-for-once"), copy.copy(trained.registry)
    register = late._register
    theirs: list[VersionRecord] = []

    def register_late(candidate: Candidate) -> Any:
        theirs.append(trained.registry.register(candidate))
        return register(candidate)

    late._register = register_late  # type: ignore[method-assign]
    assert late.register(candidate) == theirs[0]
    assert trained.versions() == ["1", theirs[0].version]


def test_a_pause_refuses_what_the_monitor_asked_for_and_not_what_a_person_asks(trained: World) -> None:
    automatic, asked = trained.automatic(SECOND), trained.request(SECOND)
    trained.pause("price test")
    with pytest.raises(Refused, match=r"paused \(price test\).*cancellations resume"):
        trained.retrain(automatic)
    assert trained.stored(automatic) == automatic
    assert trained.retrain(asked).state is RequestState.CANDIDATE
