"""Rollbacks as they happen: twice, by two people at once, in a trial, to what is gone, while MLflow is down."""

from __future__ import annotations

import socket
from functools import partial

import mlflow
import pytest
from contest import BAD, BLIND, BURN_IN, GOOD, candidate, day, even, foretell, policy
from test_promote import at_once, everything, proving_together
from world import World, registry

from cancellations.domain.events import ChampionChanged
from cancellations.domain.promotion import Change, Standing, TrialState
from cancellations.errors import EpochMismatch, Refused, ServiceDown
from cancellations.store import open_store
from cancellations.usecases.promote import Takeover
from cancellations.usecases.trial import Looked


@pytest.fixture
def thrice(contest_on_either: World) -> World:
    """Versions 1, 2 and 3 were champion, one after the other, on either database."""
    world = contest_on_either
    foretell(world, v1=BLIND, v2=even, v3=BAD)
    world.trial_policy = policy()
    world.promote("2", day(0))
    world.promote("3", day(1))
    return world


def test_twice_goes_back_two_champions_and_a_third_time_is_refused(thrice: World) -> None:
    assert [thrice.roll_back(day(n)).version for n in (2, 3)] == ["2", "1"]
    before = everything(thrice, day(4)), thrice.registry.aliases()
    with pytest.raises(Refused, match="no earlier champion to go back to; champion 1 stays"):
        thrice.roll_back(day(4))
    assert (everything(thrice, day(4)), thrice.registry.aliases()) == before
    assert before[1] == {"champion": "1"} and set(thrice.serving(day(4))) == {"1"}
    assert [row.change for row in thrice.ledger()][-2:] == [Change.ROLLED_BACK] * 2
    assert thrice.held() is not None and "version 2 was rolled back" in str(thrice.held())


def test_in_a_trial_it_withdraws_the_trial_and_the_challenger_leaves_with_it(thrice: World) -> None:
    thrice.withdraw(day(1))
    own = thrice.registry.register(candidate("its-own", seed=9)).version
    foretell(thrice, **{f"v{own}": GOOD})
    trial = thrice.challenge(own, on=day(2))
    thrice.look(day(3))
    assert set(thrice.serving(day(3))) == {"3", own}
    thrice.roll_back(day(4))
    assert thrice.standing() == Standing("2", None, 5)
    assert thrice.trials()[-1].trial_id == trial.trial_id and thrice.trials()[-1].state is TrialState.WITHDRAWN
    assert set(thrice.serving(day(4))) == {"2"} and thrice.registry.aliases() == {"champion": "2"}


def test_to_a_version_that_was_deleted_in_mlflow_is_refused_and_another_one_may_serve(thrice: World) -> None:
    own = thrice.registry.register(candidate("its-own", seed=9)).version
    foretell(thrice, **{f"v{own}": even})
    thrice.promote(own, day(2))
    thrice.promote("3", day(3))
    thrice.registry._client.delete_model_version("cancellations", own)
    before = everything(thrice, day(4)), thrice.registry.aliases()
    with pytest.raises(Refused, match=rf"version {own} cannot take over: .*Champion 3 stays"):
        thrice.roll_back(day(4))
    assert (everything(thrice, day(4)), thrice.registry.aliases()) == before
    assert thrice.roll_back(day(4), to="1").version == "1"
    assert thrice.registry.aliases() == {"champion": "1"}


def test_with_mlflow_down_nothing_moves_and_once_it_is_back_it_does(
    thrice: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = everything(thrice, day(2))
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        gone = registry(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ServiceDown):
            thrice.roll_back(day(2), registry=gone)
    mlflow.set_tracking_uri(thrice.registry._uri)
    assert everything(thrice, day(2)) == before
    assert thrice.roll_back(day(2)).problems == ()


@pytest.mark.parametrize("other", ["rolls back too", "promotes", "the probation rolls back"])
def test_of_two_at_once_one_goes_back_one_step_and_the_other_is_told(thrice: World, store_url: str, other: str) -> None:
    on = day(BURN_IN + 1)
    if other == "the probation rolls back":
        thrice.look(day(BURN_IN))  # one day more, and it knows that version 3 is worse
    stores = [open_store(store_url) for _ in range(2)]
    together = proving_together(thrice, 2)
    mine = partial(thrice.roll_back, on, store=stores[0], registry=together)
    theirs = {
        "rolls back too": partial(thrice.roll_back, on, store=stores[1], registry=together),
        "promotes": partial(thrice.promote, "1", on, store=stores[1], registry=together),
        "the probation rolls back": partial(thrice.look, on, store=stores[1], registry=together),
    }[other]
    before, told = thrice.ledger(), len(thrice.messages(ChampionChanged.topic))
    try:
        results = at_once([mine, theirs])
    finally:
        for store in stores:
            store.close()
    [won] = [r for r in results if isinstance(r, Takeover | Looked)]
    [lost] = [r for r in results if not isinstance(r, Takeover | Looked)]
    assert isinstance(lost, EpochMismatch), lost
    takeover = won.takeover if isinstance(won, Looked) else won
    assert takeover is not None and takeover.version == ("1" if takeover.change is Change.PROMOTED else "2")
    assert thrice.ledger()[:-1] == before
    assert thrice.standing().champion == takeover.version
    assert set(thrice.serving(on)) == {takeover.version}
    assert len(thrice.messages(ChampionChanged.topic)) == told + 2
    assert thrice.registry.aliases() == {"champion": takeover.version}
    assert thrice.reconcile().aliases == () and thrice.history().alias_moves == ()
