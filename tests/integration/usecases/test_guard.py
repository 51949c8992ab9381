"""A new champion's first bookings are looked at once; what changed on the day of the promotion rolls it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import delete, update
from world import FIRST, LATER, SECOND, START, CutOff, PowerCut, World, simulator, together

from cancellations.domain.events import ChampionChanged, Channel
from cancellations.domain.guards import Guard, GuardPolicy, Outcome
from cancellations.domain.labels import Labels
from cancellations.domain.promotion import Change, Kind, TrialState
from cancellations.mail.wording import words
from cancellations.model import Model
from cancellations.registry import MlflowRegistry
from cancellations.store import SqlStore, tables
from cancellations.usecases.guard import Guarded, guard

DAY = timedelta(days=1)
POLICY = GuardPolicy()
Fault = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Faulty:
    """A registry behind which what reaches one version is broken."""

    registry: MlflowRegistry
    version: str
    fault: Fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self.registry, name)

    def load(self, version: str, fresh: bool = False) -> Any:
        model = self.registry.load(version, fresh=fresh)
        return _Misled(model, self.fault) if version == self.version else model


@dataclass(frozen=True)
class _Misled:
    model: Model
    fault: Fault

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return self.model.predict(self.fault(features))


def scrambled(features: pd.DataFrame) -> pd.DataFrame:
    """Scores are dealt to other bookings."""
    return features.sample(frac=1, random_state=1)


FAULTS: dict[str, Fault] = {
    "lead time zeroed": lambda f: f.assign(lead_days=0.0),
    "scores scrambled": scrambled,
}


@pytest.fixture
def promoted_on_either(store: SqlStore, challenged: World) -> World:
    """The same on a store of either database."""
    world = World(store, challenged.registry)
    records = [challenged.registry.record(version) for version in ("1", "2")]
    world.ingest(until=LATER, source=simulator((LATER - START).days + 1))
    with store.begin() as work:
        for record in records:
            work.add_version(record, world.clock())
        work.change_standing(
            work.standing(), champion="1", challenger=None, change=Change.FIRST, reason="first champion",
            by="the gate", request_id=records[0].request_id, as_of=FIRST, now=world.clock(),
        )  # fmt: skip
        work.commit()
    world.score(SECOND)
    world.promote("2", SECOND)
    return world


def guarded(world: World, until: Any = LATER, policy: GuardPolicy = POLICY, **instead: Any) -> Guarded:
    return guard(world.house(guards=policy, **instead), until=until)


def fired(found: Guarded) -> set[Guard]:
    return {finding.guard for finding in found.findings if finding.outcome is Outcome.FIRED}


def faulty(world: World, fault: Fault) -> World:
    return replace(world, registry=Faulty(world.registry, "2", fault))  # type: ignore[arg-type]


def test_a_healthy_champion_passes_once_and_stays(promoted: World) -> None:
    promoted.score(SECOND + DAY)
    waits = guarded(promoted, SECOND + DAY)
    assert waits.trial is not None and (waits.findings, waits.looked) == ((), False)
    promoted.score(LATER)
    found = guarded(promoted)
    assert [f.outcome for f in found.findings] == [Outcome.PASSED] * len(Guard) and found.looked
    of_record, *of_pair, of_labels = found.findings
    assert (of_record.guard, of_record.value, of_record.rows > 1_000) == (Guard.RECORD, 0.0, True)
    assert {(f.rows, f.samples >= 6) for f in of_pair} == {(200, True)}
    assert (of_labels.guard, abs(of_labels.value) < 0.001, of_labels.rows > 1_000) == (Guard.LABELS, True, True)
    again = guarded(promoted, LATER + DAY)
    assert (again.findings, again.looked, again.takeover) == (found.findings, False, None)
    assert promoted.standing().champion == "2"
    # It is on record, and told.
    probation = promoted.open_trial()
    assert probation is not None
    assert promoted.explain("2", LATER).guards == {probation.trial_id: found.findings} == promoted.history().guards
    assert promoted.status().guards == found.findings


@pytest.mark.parametrize("name", FAULTS)
def test_what_breaks_on_the_day_of_the_promotion_is_rolled_back_by_itself(promoted: World, name: str) -> None:
    broken = faulty(promoted, FAULTS[name])
    broken.score(LATER)
    found = guarded(broken)
    assert found.takeover is not None and found.takeover.change is Change.ROLLED_BACK
    assert {Guard.RECORD, Guard.RANKS} <= fired(found)
    row = promoted.ledger()[-1]
    assert (row.champion, row.change, row.by) == ("1", Change.ROLLED_BACK, "the guard")
    assert row.reason == str(found.findings[0])
    (probation,) = (trial for trial in promoted.trials() if trial.kind is Kind.PROBATION)
    assert (probation.state, row.trial_id) == (TrialState.ROLLED_BACK, probation.trial_id)
    assert promoted.held() is not None and promoted.registry.aliases()["champion"] == "1"
    assert set(promoted.serving(LATER)) == {"1"}
    assert promoted.explain("2", LATER).guards == {probation.trial_id: found.findings}
    # Which guard, its value and its limit stand in the mail.
    message = promoted.messages(ChampionChanged.topic)[-1]
    told = words(message.topic, message.payload, trial=probation)
    assert told.subject == "Rolled back by the guard of scores on record: v1 serves again in place of v2"
    which = [f for f in found.findings if f.outcome is Outcome.FIRED]
    assert all(any(str(f)[1:] in text for _, text in told.points) for f in which)
    assert guarded(broken) == Guarded()


def test_scores_that_a_worker_makes_otherwise_than_the_version_does_are_seen_by_who_asks_it_again(
    promoted: World,
) -> None:
    """What is shown to the version alone is wrong where it scores, and right where the guards look."""
    faulty(promoted, lambda f: f.assign(deposit_type="No Deposit")).score(LATER)
    found = guarded(promoted)
    record = found.findings[0]
    assert (record.guard, record.outcome) == (Guard.RECORD, Outcome.FIRED) and 0 < record.value < 0.05
    assert found.takeover is not None and promoted.ledger()[-1].reason == str(record)


def unsure(features: pd.DataFrame) -> pd.DataFrame:
    """Nothing is wrong with what it is shown."""
    return features


@dataclass(frozen=True)
class _Mistaught(_Misled):
    """Says what a fit says that learnt a tenth of its labels turned round."""

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return 0.1 + 0.8 * super().predict(features)


@dataclass(frozen=True)
class Mistaught(Faulty):
    def load(self, version: str, fresh: bool = False) -> Any:
        model = self.registry.load(version, fresh=fresh)
        return _Mistaught(model, self.fault) if version == self.version else model


def test_a_version_that_learnt_wrong_labels_is_rolled_back_before_any_outcome(promoted: World) -> None:
    """It said so before it took over as well, so that nothing has changed for the guards of the pair."""
    wrong = replace(promoted, registry=Mistaught(promoted.registry, "2", unsure))
    since_it_was_made(wrong)
    found = guarded(wrong)
    (labels,) = (f for f in found.findings if f.outcome is Outcome.FIRED)
    assert labels.guard is Guard.LABELS and 0.01 < labels.value < 0.1
    assert found.takeover is not None and promoted.standing().champion == "1"
    assert promoted.ledger()[-1].reason == str(labels)
    (mail,) = (
        m
        for m in promoted.messages(ChampionChanged.topic)
        if m.channel is Channel.MAIL and m.payload["by"] == "the guard"
    )
    told = words(mail.topic, mail.payload)
    assert told.subject == "Rolled back by the guard of labels: v1 serves again in place of v2"
    assert "v2 has learnt other labels than those on record" in told.verdict


def since_it_was_made(wrong: World) -> None:
    """Version 2 has scored everything as it scores now."""
    with wrong.store.begin() as work:
        work._write(delete(tables.predictions).where(tables.predictions.c.model_version == "2"))  # type: ignore[attr-defined]
        work.commit()
    wrong.score(LATER)


@pytest.mark.parametrize(
    "other", [{"half_life_days": None}, {"labels": Labels.HAZARD}, {"l2_regularization": "100.0"}, {"max_iter": "2"}]
)
def test_a_version_of_which_it_is_not_known_that_it_gives_back_a_mean_is_judged_by_the_others(
    promoted: World, other: dict[str, Any]
) -> None:
    class Other(Mistaught):
        def parameters(self, version: str) -> dict[str, str]:
            told = self.registry.parameters(version) | other
            return {name: value for name, value in told.items() if value is not None}

    if "labels" in other:
        with promoted.store.begin() as work:
            query = update(tables.versions).where(tables.versions.c.version == "2").values(labels=other["labels"].value)
            work._write(query)  # type: ignore[attr-defined]
            work.commit()
    strange = replace(promoted, registry=Other(promoted.registry, "2", unsure))
    since_it_was_made(strange)
    found = guarded(strange)
    last = found.findings[-1]
    assert (last.guard, last.outcome) == (Guard.LABELS, Outcome.NOT_EVALUATED)
    assert found.takeover is None


def test_a_look_at_the_probation_lets_them_look_too(promoted: World) -> None:
    broken = faulty(promoted, scrambled)
    looked = broken.look(LATER, guards=POLICY)
    assert looked.trial is not None and looked.trial.state is TrialState.ROLLED_BACK
    assert looked.takeover is not None and len(looked.guards) == len(Guard)


def test_turned_off_they_do_not_look(promoted: World) -> None:
    broken = faulty(promoted, scrambled)
    broken.score(LATER)
    assert guarded(broken, policy=GuardPolicy(enabled=False)) == Guarded()
    assert broken.look(LATER).takeover is None
    assert promoted.standing().champion == "2"


@pytest.mark.parametrize("method", ["add_guards", "change_standing", "update_trial", "add_messages"])
def test_after_a_death_at_any_point_the_next_run_does_what_is_left(promoted: World, method: str) -> None:
    broken = faulty(promoted, scrambled)
    broken.score(LATER)
    with pytest.raises(PowerCut):
        guarded(broken, store=CutOff(promoted.store, method))
    assert promoted.standing().champion == "2"
    probation = promoted.open_trial()
    assert probation is not None and probation.kind is Kind.PROBATION
    with promoted.store.begin() as work:
        kept = work.guards(probation.trial_id)
    assert (kept is None) == (method == "add_guards")
    # What was found stands: it is not looked at anew, whatever is scored meanwhile.
    found = guarded(broken)
    assert found.takeover is not None and kept in (None, found.findings)
    assert [row.change for row in promoted.ledger()].count(Change.ROLLED_BACK) == 1


def test_two_that_look_at_once_roll_back_once(promoted_on_either: World) -> None:
    promoted = promoted_on_either
    broken = faulty(promoted, scrambled)
    broken.score(LATER)
    found = together(*[lambda: guarded(broken)] * 2)
    assert all(isinstance(one, Guarded) for one in found), found
    assert [row.change for row in promoted.ledger()].count(Change.ROLLED_BACK) == 1
    assert sum(one.takeover is not None for one in found if isinstance(one, Guarded)) == 1
    assert len([m for m in promoted.messages(ChampionChanged.topic) if m.payload["by"] == "the guard"]) == 2


def test_a_predecessor_that_is_gone_cannot_take_over_and_that_is_told(promoted: World) -> None:
    broken = faulty(promoted, scrambled)
    broken.score(LATER)

    class Gone(Faulty):
        def load(self, version: str, fresh: bool = False) -> Any:
            if fresh:
                raise OSError("the artifact is gone")
            return super().load(version)

    found = guarded(broken, registry=Gone(promoted.registry, "2", scrambled))
    assert found.takeover is None and promoted.standing().champion == "2"
    (problem,) = found.problems
    assert "but version 1 cannot take over" in problem
    assert guarded(broken).takeover is not None
