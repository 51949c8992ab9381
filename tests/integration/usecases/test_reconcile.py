"""Picking up: what was lost on the way goes on, what cannot go on ends, aliases follow the ledger."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from world import FIRST, OVERDUE, PATIENCE, POLICY, SECOND, Crossing, GivenMonitor, World, registry

from cancellations.domain.events import Message, RetrainFailed, RetrainOverdue
from cancellations.domain.promotion import Standing
from cancellations.domain.retraining import RequestState
from cancellations.errors import CancellationsError
from cancellations.usecases.reconcile import Reconciled
from cancellations.usecases.retrain import LEASE

NOTHING = Reconciled()


@pytest.fixture
def store_url(tmp_path: Path, migrated_file: Path) -> str:
    # On SQLite alone: what is promised here stands on transactions that test_store.py tries on both.
    return f"sqlite:///{shutil.copy(migrated_file, tmp_path / 'store.db')}"


# --- requests -------------------------------------------------------------------------------------


def test_a_request_whose_event_was_lost_is_started_once_its_patience_is_over(trained: World) -> None:
    request = trained.automatic(SECOND)
    trained.clock.now += PATIENCE - timedelta(milliseconds=1)
    assert trained.reconcile() == NOTHING
    trained.clock.advance(milliseconds=1)
    found = trained.reconcile()
    assert found == Reconciled(started=(f"request {request.request_id} as run run-of-{request.request_id}-1",))

    done = trained.retrain(request)  # what that run does
    assert done.state is RequestState.CANDIDATE
    trained.clock.advance(days=1)
    assert trained.reconcile() == NOTHING


def test_asking_again_asks_for_the_same_attempt(serving: World) -> None:
    request = serving.automatic(SECOND)
    for _ in range(3):
        serving.clock.now += PATIENCE
        serving.reconcile()
    assert set(serving.orchestrator.asked) == {(request.request_id, 1)}


def test_a_failed_attempt_gets_its_next_one_at_once(serving: World) -> None:
    request = serving.update(serving.automatic(SECOND), attempts=1)
    serving.reconcile()
    assert serving.orchestrator.asked == [(request.request_id, 2)]


def test_a_dead_workers_request_is_recovered_and_started_again(serving: World) -> None:
    request = serving.update(serving.automatic(SECOND), state=RequestState.RUNNING, attempts=1)
    serving.acquire(LEASE, "dead")
    assert serving.reconcile() == NOTHING  # for all that is known it works
    serving.clock.now += POLICY.lease_ttl
    found = serving.reconcile()
    assert found.recovered == (request.request_id,)
    assert serving.orchestrator.asked == [(request.request_id, 2)]
    stored = serving.stored(request)
    assert (stored.state, stored.detail) == (RequestState.WAITING, ("attempt 1: its worker died",))


def test_a_request_whose_worker_died_on_the_last_attempt_fails_with_a_mail(serving: World) -> None:
    request = serving.update(
        serving.automatic(SECOND), state=RequestState.RUNNING, attempts=POLICY.max_attempts, detail=("attempt 2: x",)
    )
    assert serving.reconcile() == Reconciled(failed=(request.request_id,))
    assert serving.stored(request).state is RequestState.FAILED
    assert serving.stored(request).detail == ("attempt 2: x", "attempt 3: its worker died")
    assert serving.topics() == [("mail", RetrainFailed.topic)]
    assert serving.reconcile() == NOTHING
    assert serving.orchestrator.asked == []


def test_a_worker_that_takes_over_while_reconcile_looks_keeps_its_attempt(serving: World) -> None:
    request = serving.update(serving.automatic(SECOND), state=RequestState.RUNNING, attempts=1)

    def takes_over() -> None:
        serving.acquire(LEASE, "the next worker")
        serving.update(request, attempts=2)

    crossed = replace(serving, store=Crossing(serving.store, "requests", takes_over))  # type: ignore[arg-type]
    assert crossed.reconcile() == NOTHING
    assert (serving.stored(request).state, serving.stored(request).attempts) == (RequestState.RUNNING, 2)


def test_a_pause_is_respected_and_a_persons_request_is_not_kept_by_it(serving: World) -> None:
    serving.ingest(until=FIRST)
    automatic, asked = serving.automatic(FIRST), serving.request(SECOND)
    serving.pause()
    serving.clock.now += PATIENCE
    serving.reconcile()
    assert serving.orchestrator.asked == [(asked.request_id, 1)]
    with serving.store.begin() as work:
        work.resume()
        work.commit()
    serving.reconcile()
    assert (automatic.request_id, 1) in serving.orchestrator.asked


def test_a_request_that_cannot_be_started_is_told_and_keeps_waiting(serving: World) -> None:
    request = serving.automatic(SECOND)
    serving.clock.now += PATIENCE
    alone = serving.reconcile(doorbell=False)
    assert alone.problems == (
        f"request {request.request_id} is overdue and there is no Prefect server to start it with",
    )
    serving.orchestrator.down = True
    assert serving.reconcile().problems == (f"request {request.request_id}: the orchestrator does not answer",)
    assert serving.stored(request) == request


def told_late(world: World) -> list[Message]:
    return world.messages(RetrainOverdue.topic)


def test_a_request_that_does_not_end_is_told_once_with_what_it_waits_for(serving: World) -> None:
    request = serving.automatic(SECOND)
    made = serving.clock()
    serving.clock.now += OVERDUE - timedelta(milliseconds=1)
    assert serving.reconcile().overdue == () and told_late(serving) == []
    serving.clock.advance(milliseconds=1)
    waits = "no worker has taken it since 2024-05-01 12:00 UTC"
    assert serving.reconcile().overdue == (f"request {request.request_id}: {waits}",)
    (message,) = told_late(serving)
    assert message.payload == {
        "request_id": request.request_id,
        "champion": "1",
        "as_of": str(SECOND),
        "made_at": str(made),
        "minutes": 60,
        "reasons": [waits],
    }
    serving.update(request, attempts=1, detail=("attempt 1: no room",))
    serving.clock.advance(days=1)
    assert serving.reconcile().overdue != ()  # it still is, and Prefect shows it
    assert told_late(serving) == [message]


@pytest.mark.parametrize(
    ("lease", "heard"),
    [("host:7", "its worker host:7 was heard of lately"), (None, "its worker died")],
    ids=["alive", "dead"],
)
def test_an_attempt_that_runs_and_runs_is_overdue_too(serving: World, lease: str | None, heard: str) -> None:
    request = serving.update(
        serving.automatic(SECOND), state=RequestState.RUNNING, attempts=2, detail=("attempt 1: x",)
    )
    serving.clock.now += OVERDUE
    if lease is not None:
        serving.acquire(LEASE, lease)
    serving.reconcile()
    (message,) = told_late(serving)
    first, *others = message.payload["reasons"]
    if lease is not None:
        assert first == "attempt 2 of 3 runs since 2024-05-01 12:00 UTC" and others == [heard, "attempt 1: x"]
    else:  # it has just been recovered
        assert first.startswith("no worker has taken attempt 3 of 3 since")
        assert others == ["attempt 1: x", f"attempt 2: {heard}"]
    assert serving.stored(request).request_id == request.request_id


def test_a_request_behind_another_retrain_says_so(serving: World) -> None:
    serving.automatic(SECOND)
    serving.clock.now += OVERDUE
    serving.acquire(LEASE, "host:7")
    assert serving.reconcile().overdue[0].endswith("another retrain runs (host:7)")


def test_waiting_for_a_pause_to_end_is_not_late_and_its_time_begins_when_it_ends(serving: World) -> None:
    serving.ingest(until=FIRST)
    serving.automatic(FIRST)
    serving.pause()
    for _ in range(3):
        serving.clock.now += OVERDUE
        assert serving.reconcile().overdue == ()
    with serving.store.begin() as work:
        work.resume()
        work.commit()
    serving.clock.now += OVERDUE - timedelta(milliseconds=1)
    assert serving.reconcile().overdue == () and told_late(serving) == []
    serving.clock.advance(milliseconds=1)
    serving.reconcile()
    assert [m.payload["minutes"] for m in told_late(serving)] == [60]


def test_a_pause_does_not_excuse_a_persons_request(serving: World) -> None:
    serving.ingest(until=FIRST)
    asked = serving.request(SECOND)
    serving.pause()
    serving.clock.now += OVERDUE
    serving.reconcile()
    assert [m.payload["request_id"] for m in told_late(serving)] == [asked.request_id]


def test_waiting_for_a_trial_to_end_is_not_late(challenged: World) -> None:
    challenged.automatic(SECOND)
    challenged.clock.advance(days=20)
    assert challenged.reconcile().overdue == ()
    challenged.withdraw(SECOND)
    challenged.clock.advance(minutes=30)
    assert challenged.reconcile().overdue == ()
    challenged.clock.now += OVERDUE
    assert len(challenged.reconcile().overdue) == len(told_late(challenged)) == 1


def test_a_running_attempt_tells_what_would_keep_the_next_one(serving: World) -> None:
    serving.update(serving.automatic(SECOND), state=RequestState.RUNNING, attempts=1)
    serving.pause("price test")
    serving.clock.now += OVERDUE
    serving.acquire(LEASE, "host:7")
    serving.reconcile()
    (message,) = told_late(serving)
    assert message.payload["reasons"][-1] == ("before a next attempt automatic retraining is paused (price test)")


# --- aliases --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moved", "told"),
    [
        ({"champion": "2"}, ["alias 'champion' is version 2, the ledger says version 1"]),
        ({"challenger": None}, ["alias 'challenger' is nobody, the ledger says version 2"]),
        (
            {"champion": None, "challenger": "1"},
            [
                "alias 'champion' is nobody, the ledger says version 1",
                "alias 'challenger' is version 1, the ledger says version 2",
            ],
        ),
    ],
)
def test_an_alias_moved_by_hand_is_told_by_status_and_put_back(
    challenged: World, moved: dict[str, str | None], told: list[str]
) -> None:
    assert challenged.status().disagreements == ()
    for alias, version in moved.items():
        challenged.registry.set_alias(alias, version)
    assert challenged.status().disagreements == tuple(told)
    assert challenged.reconcile().aliases == tuple(told)
    assert challenged.registry.aliases() == {"champion": "1", "challenger": "2"}
    assert challenged.reconcile() == NOTHING


def test_an_alias_of_a_place_that_nobody_holds_is_taken_away(trained: World) -> None:
    trained.registry.set_alias("challenger", "1")
    trained.registry.set_alias("of-somebody", "1")
    assert trained.reconcile().aliases == ("alias 'challenger' is version 1, the ledger says nobody",)
    assert trained.registry.aliases() == {"champion": "1", "of-somebody": "1"}


# --- status ---------------------------------------------------------------------------------------


def test_status_shows_who_stands_what_was_decided_and_what_waits(challenged: World) -> None:
    looked = challenged.monitor(GivenMonitor([SECOND]), until=SECOND)
    challenged.score(until=SECOND)
    challenged.pause("price test")
    waiting = challenged.automatic(SECOND)
    found = challenged.status()
    assert found.champion is not None and found.champion.version == "1"
    assert found.challenger is not None and found.challenger.version == "2"
    assert found.last == looked.decisions[-1]
    assert found.open_requests == (waiting,)
    assert [r.version for r in found.ended_requests] == ["1", "2"]
    assert [e.message.channel.value for e in found.pending] == ["event", "mail", "mail"]
    assert found.trial == challenged.open_trial() is not None
    assert found.served == challenged.serving(SECOND) and set(found.served) == {"1", "2"}
    assert (found.standing, found.promotions_held) == (Standing("1", "2", 2), None)
    assert (found.paused, len(found.ledger), found.registry_problem) == ("price test", 2, None)


def test_status_survives_a_registry_that_does_not_answer(trained: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        gone = registry(address)
        found = trained.status(gone)
        assert found.disagreements is None
        assert f"MLflow at {address} failed" in str(found.registry_problem)
        assert found.champion is not None and found.champion.version == "1"
        with pytest.raises(CancellationsError):
            trained.reconcile(registry=gone)
