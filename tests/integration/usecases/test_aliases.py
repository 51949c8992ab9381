"""Aliases that somebody moves in MLflow are noticed, and undone or adopted; our own late ones are neither."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import mlflow.artifacts
import pytest
from contest import BLIND, BURN_IN, GOOD, TRAINED, candidate, day, foretell, policy
from world import PowerCut, World

from cancellations.domain.aliases import AliasPolicy
from cancellations.domain.events import AliasMoved, ChampionChanged
from cancellations.domain.promotion import Change, Kind, Standing, TrialState
from cancellations.errors import CancellationsError, ServiceDown
from cancellations.ports import Registry
from cancellations.store import open_store
from cancellations.usecases.aliases import PUT_BACK, project_aliases
from cancellations.usecases.reconcile import Reconciled

ADOPT = AliasPolicy.ADOPT
NOTHING = Reconciled()


@dataclass
class Instead:
    """A registry in which something else happens when one of its methods is called."""

    registry: Registry
    method: str
    act: Callable[..., Any]

    def __getattr__(self, name: str) -> Any:
        return self.act if name == self.method else getattr(self.registry, name)


def dies(*_: object, **__: object) -> None:
    raise PowerCut("here")


@pytest.fixture
def settled(contest: World) -> World:
    """Version 1 serves, 2 and 3 know little of these bookings; our aliases are where we put them."""
    foretell(contest, v1=BLIND)
    assert contest.reconcile() == NOTHING
    return contest


@pytest.fixture
def settled_on_either(contest_on_either: World) -> World:
    foretell(contest_on_either, v1=BLIND)
    assert contest_on_either.reconcile() == NOTHING
    return contest_on_either


# --- undone ---------------------------------------------------------------------------------------


def test_a_moved_alias_is_put_back_with_a_note_and_one_mail(settled_on_either: World) -> None:
    world = settled_on_either
    for times in (1, 2, 3):
        world.registry.set_alias("champion", "2")
        assert world.reconcile().aliases == ("alias 'champion' is version 2, the ledger says version 1",)
        assert world.registry.aliases() == {"champion": "1"}
        assert world.reconcile() == NOTHING
        [move] = world.history().alias_moves
        assert (move.alias, move.placed, move.found, move.epoch, move.times) == ("champion", "1", "2", 1, times)
        assert (move.reason, move.seen_at) == (PUT_BACK, world.clock())
    assert str(move) == ("alias 'champion' was moved from version 1 to version 2 in MLflow, by whom it does not say")
    assert world.status().alias_moves == (move,) == world.explain("1", day(1)).alias_moves
    [mail] = world.messages(AliasMoved.topic)
    assert (mail.payload["placed"], mail.payload["found"], mail.payload["epoch"]) == ("1", "2", 1)
    assert len(world.ledger()) == 1 and world.standing() == Standing("1", None, 1)

    # A move to another place, and one after the next change, are told anew; status tells those since then.
    world.registry.set_alias("champion", None)
    world.reconcile()
    world.promote("2", day(1))
    world.registry.set_alias("champion", "3")
    world.reconcile()
    assert [(m.payload["found"], m.payload["epoch"]) for m in world.messages(AliasMoved.topic)] == [
        ("2", 1),
        (None, 1),
        ("3", 2),
    ]
    assert [m.found for m in world.status().alias_moves] == ["3"]


@pytest.mark.parametrize("policy_", AliasPolicy)
def test_an_alias_challenger_is_always_put_back(settled: World, policy_: AliasPolicy) -> None:
    settled.registry.set_alias("challenger", "3")
    assert settled.reconcile(aliases=policy_).aliases == ("alias 'challenger' is version 3, the ledger says nobody",)
    assert settled.registry.aliases() == {"champion": "1"}
    [move] = settled.history().alias_moves
    assert (move.alias, move.placed, move.found) == ("challenger", None, "3")


def test_a_move_that_a_change_of_champion_overtakes_is_noticed_all_the_same(settled: World) -> None:
    settled.registry.set_alias("champion", "3")
    assert settled.promote("2", day(1)).problems == ()
    assert settled.registry.aliases() == {"champion": "2"}
    [move] = settled.history().alias_moves
    assert (move.placed, move.found, move.epoch) == ("1", "3", 2)


# --- adopted --------------------------------------------------------------------------------------


def test_an_adopted_version_is_champion_as_if_a_person_had_promoted_it(settled_on_either: World) -> None:
    world = settled_on_either
    world.registry.set_alias("champion", "2")
    found = world.reconcile(aliases=ADOPT)
    assert found.aliases == ("alias 'champion' is version 2: adopted, as champion",)
    assert world.standing() == Standing("2", None, 2)
    row = world.ledger()[-1]
    assert (row.champion, row.change, row.by) == ("2", Change.PROMOTED, "somebody in MLflow")
    assert row.reason == (
        "alias champion was moved from version 1 to version 2 in MLflow, seen at 2024-05-01 12:00 UTC"
    )
    served = world.served(row.as_of)
    assert len(served) > 0 and set(served["model_version"]) == {"2"}
    trial = world.open_trial()
    assert trial is not None and (trial.kind, trial.champion, trial.rival) == (Kind.PROBATION, "2", "1")
    assert [m.payload["by"] for m in world.messages(ChampionChanged.topic)] == ["somebody in MLflow"] * 2
    # Told once, by the mail of the change; and that is the end of it.
    assert world.messages(AliasMoved.topic) == [] and world.history().alias_moves == ()
    for policy_ in AliasPolicy:
        assert world.reconcile(aliases=policy_) == NOTHING
    assert len(world.ledger()) == 2 and world.registry.aliases() == {"champion": "2"}


def test_adopting_the_challenger_ends_its_trial_as_promoted(settled: World) -> None:
    foretell(settled, v2=GOOD)
    settled.challenge("2", on=TRAINED, policy=policy())
    settled.registry.set_alias("champion", "2")
    settled.reconcile(aliases=ADOPT)
    trial, probation = settled.trials()
    assert (trial.state, probation.champion) == (TrialState.PROMOTED, "2")
    assert settled.registry.aliases() == {"champion": "2"}
    assert settled.reconcile(aliases=ADOPT) == NOTHING and settled.history().alias_moves == ()


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_version_that_cannot_be_loaded_is_not_adopted_and_the_owners_hear_why(settled: World, harm: str) -> None:
    own = settled.registry.register(candidate("its-own", seed=9)).version
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/cancellations/{own}"))
    if harm == "gone":
        shutil.rmtree(folder)
    else:
        (folder / "model.skops").write_bytes((folder / "model.skops").read_bytes()[:1000])
    settled.registry.set_alias("champion", own)
    assert settled.reconcile(aliases=ADOPT).aliases == (
        f"alias 'champion' is version {own}, the ledger says version 1",
    )
    assert settled.standing() == Standing("1", None, 1) and settled.registry.aliases() == {"champion": "1"}
    [move] = settled.history().alias_moves
    assert move.reason.startswith(f"put back, because it cannot be adopted: version {own} cannot take over: ")
    [mail] = settled.messages(AliasMoved.topic)
    assert mail.payload["reasons"][-1] == move.reason
    assert settled.reconcile(aliases=ADOPT) == NOTHING


def test_whoever_moves_it_again_after_a_rollback_does_not_win_and_there_is_no_end_to_nothing(settled: World) -> None:
    settled.registry.set_alias("champion", "2")
    settled.reconcile(aliases=ADOPT)
    settled.roll_back(day(2))
    epoch = settled.standing().epoch
    for _ in range(3):
        settled.registry.set_alias("champion", "2")
        settled.reconcile(aliases=ADOPT)
        assert settled.registry.aliases() == {"champion": "1"}
    assert settled.standing() == Standing("1", None, epoch)
    [move] = settled.history().alias_moves
    assert move.times == 3 and "promotions need a person's word" in move.reason
    assert len(settled.messages(AliasMoved.topic)) == 1
    settled.release()
    settled.registry.set_alias("champion", "2")
    settled.reconcile(aliases=ADOPT)
    assert settled.standing().champion == "2"


def test_an_alias_that_was_taken_away_is_no_promotion(settled: World) -> None:
    settled.registry.set_alias("champion", None)
    assert settled.reconcile(aliases=ADOPT).aliases == ("alias 'champion' is nobody, the ledger says version 1",)
    assert settled.registry.aliases() == {"champion": "1"}


def test_before_any_champion_there_is_nobody_to_promote_in_place_of(loaded: World) -> None:
    assert loaded.reconcile(aliases=ADOPT) == NOTHING
    assert loaded.standing() == Standing(None, None, 0)


def test_with_mlflow_down_nothing_is_adopted_and_a_later_look_does(settled: World) -> None:
    settled.registry.set_alias("champion", "2")

    def down(*_: object, **__: object) -> None:
        raise ServiceDown("MLflow is gone")

    for method in ("aliases", "load"):
        with pytest.raises(ServiceDown):
            settled.reconcile(aliases=ADOPT, registry=Instead(settled.registry, method, down))
        assert settled.standing() == Standing("1", None, 1)
        assert settled.registry.aliases() == {"champion": "2"}
    settled.reconcile(aliases=ADOPT)
    assert settled.standing().champion == "2"


def test_of_two_who_adopt_at_once_one_does(settled_on_either: World, store_url: str) -> None:
    world = settled_on_either
    world.registry.set_alias("champion", "2")
    barrier = Barrier(2, timeout=60)

    def load(version: str, *, fresh: bool = False) -> Any:
        if fresh:  # to prove it: both have seen the moved alias by then
            barrier.wait()
        return world.registry.load(version, fresh=fresh)

    together = Instead(world.registry, "load", load)
    stores = [open_store(store_url) for _ in range(2)]
    try:
        with ThreadPoolExecutor(2) as pool:
            acts = [partial(world.reconcile, aliases=ADOPT, store=s, registry=together) for s in stores]
            for made in [pool.submit(act) for act in acts]:
                made.result()
    finally:
        for store in stores:
            store.close()
    assert [row.change for row in world.ledger()] == [Change.FIRST, Change.PROMOTED]
    assert world.registry.aliases() == {"champion": "2"}
    assert world.history().alias_moves == () and world.reconcile(aliases=ADOPT) == NOTHING


# --- our own late ones ----------------------------------------------------------------------------


def test_what_we_had_not_moved_yet_when_we_died_is_late_and_nobodys_doing(settled_on_either: World) -> None:
    world = settled_on_either
    # Before the alias moves, after it has, and before that was written down.
    for method, version in (("set_alias", "2"), ("aliases", "3")):
        before = len(world.ledger())
        with pytest.raises(PowerCut):
            world.promote(version, day(1), registry=Instead(world.registry, method, dies))
        assert len(world.ledger()) == before + 1
        found = world.reconcile(aliases=ADOPT)
        assert all("adopted" not in sentence for sentence in found.aliases)
        assert world.standing().champion == version == world.registry.aliases()["champion"]
        assert len(world.ledger()) == before + 1 and world.history().alias_moves == ()
        assert world.messages(AliasMoved.topic) == []


def test_an_alias_that_a_dead_one_of_us_left_two_changes_behind_is_late(settled: World) -> None:
    moved: list[str | None] = []

    def moves_and_dies(alias: str, version: str | None) -> None:
        settled.registry.set_alias(alias, version)
        moved.append(version)
        raise PowerCut("after the alias, before anybody wrote that it had moved")

    with pytest.raises(PowerCut):
        settled.promote("2", day(1), registry=Instead(settled.registry, "set_alias", moves_and_dies))
    assert moved == ["2"] and settled.registry.aliases() == {"champion": "2"}
    with pytest.raises(PowerCut):
        settled.roll_back(day(2), registry=Instead(settled.registry, "set_alias", dies))
    assert settled.registry.aliases() == {"champion": "2"} and settled.standing().champion == "1"
    settled.release()
    assert settled.reconcile(aliases=ADOPT).aliases == ("alias 'champion' is version 2, the ledger says version 1",)
    assert settled.standing().champion == "1" == settled.registry.aliases()["champion"]
    assert settled.history().alias_moves == ()


def test_a_slow_one_of_us_that_moves_an_alias_when_the_ledger_has_gone_on_is_late(settled: World) -> None:
    """It hangs before its move; others promote and roll back meanwhile; then it moves the alias to where it was."""

    def hangs(alias: str, version: str | None) -> None:
        settled.registry.set_alias(alias, "2")  # others' work: the promotion is projected
        settled.promote("3", day(1))
        assert settled.registry.aliases() == {"champion": "3"}
        settled.registry.set_alias(alias, version)

    settled.promote("2", day(1), registry=Instead(settled.registry, "set_alias", hangs))
    assert settled.registry.aliases() == {"champion": "2"} and settled.standing().champion == "3"
    assert settled.reconcile(aliases=ADOPT).aliases == ("alias 'champion' is version 2, the ledger says version 3",)
    assert settled.standing().champion == "3" == settled.registry.aliases()["champion"]
    assert settled.history().alias_moves == ()


def test_of_a_home_from_before_this_was_written_down_nobody_is_blamed(contest: World) -> None:
    contest.registry.set_alias("champion", "2")
    assert contest.reconcile(aliases=ADOPT).aliases == ("alias 'champion' is version 2, the ledger says version 1",)
    assert contest.registry.aliases() == {"champion": "1"} and contest.history().alias_moves == ()
    contest.registry.set_alias("champion", "2")
    contest.reconcile()
    assert len(contest.history().alias_moves) == 1


def test_a_change_between_two_looks_is_not_taken_for_somebody_elses(settled: World) -> None:
    """The aliases were read, then one of us promoted and moved them: what was read is old, and blames nobody."""
    looks: list[dict[str, str]] = []

    def reads_then_others_promote() -> dict[str, str]:
        looks.append(settled.registry.aliases())
        if len(looks) == 1:
            settled.promote("2", day(1))
        return looks[-1]

    slow = Instead(settled.registry, "aliases", reads_then_others_promote)
    project_aliases(settled.store, slow, settled.clock)
    assert settled.history().alias_moves == ()
    assert settled.registry.aliases() == {"champion": "2"}


def test_a_probation_that_takes_back_an_adopted_version_puts_the_alias_back_for_good(contest: World) -> None:
    foretell(contest, v1=GOOD, v2=BLIND)
    contest.trial_policy = policy()
    contest.reconcile()
    contest.registry.set_alias("champion", "2")
    contest.reconcile(aliases=ADOPT)
    probation = contest.open_trial()
    assert probation is not None
    start = (probation.cohort_after - TRAINED).days
    contest.look(day(start + BURN_IN))
    assert contest.standing().champion == "1" == contest.registry.aliases()["champion"]
    assert [row.by for row in contest.ledger()][1:] == ["somebody in MLflow", "the probation"]
    assert contest.reconcile(aliases=ADOPT) == NOTHING


def test_an_error_of_mlflow_while_it_is_put_back_leaves_the_note_and_the_next_look_puts_it_back(
    settled: World,
) -> None:
    settled.registry.set_alias("champion", "2")

    def down(*_: object, **__: object) -> None:
        raise ServiceDown("MLflow is gone")

    with pytest.raises(CancellationsError):
        settled.reconcile(registry=Instead(settled.registry, "set_alias", down))
    assert settled.registry.aliases() == {"champion": "2"}
    settled.reconcile()
    [move] = settled.history().alias_moves
    assert move.times == 2 and len(settled.messages(AliasMoved.topic)) == 1
    assert settled.registry.aliases() == {"champion": "1"}
