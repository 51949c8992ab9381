"""Prefect as a doorbell, on a real server: what events say, and one run on its way for an attempt, never none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from once import Once
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Completed, Crashed, Running
from prefect_api import DATABASE, prefect_api, put_back

from cancellations.domain.events import ChampionChanged, Channel, DriftDetected, Message, OutcomesArrived
from cancellations.errors import ServiceDown
from flows.doorbell import PrefectDoorbell

DAY = date(2016, 7, 4)
FACTS = {
    "cancellations.request.2016-07-04-drift": DriftDetected("2016-07-04-drift", "r", "1", DAY, DAY, ("drift",)),
    "cancellations.champion.2": ChampionChanged("2", "1", 3, DAY, "promoted", "better", "the trial"),
    "cancellations.trial.trial-2-2": OutcomesArrived("trial-2-2", DAY, 7, datetime(2024, 5, 1, tzinfo=UTC)),
}
PATIENCE = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="module")
def prefect(folder: Path, once: Once) -> Iterator[SyncPrefectClient]:
    with prefect_api(folder, once) as client:
        yield client


def test_an_attempt_has_one_run_on_its_way_and_a_run_that_ended_without_a_claim_is_followed(
    prefect: SyncPrefectClient,
) -> None:
    bell = PrefectDoorbell()
    with pytest.raises(ServiceDown, match=r"no deployment 'retrain/retrain'; deploy with"):
        bell.start_retrain("r", 1)
    deployment = prefect.create_deployment(prefect.create_flow_from_name("retrain"), "retrain")

    first = bell.start_retrain("r", 1)
    assert bell.start_retrain("r", 1) == first
    runs = {first, bell.start_retrain("r", 2), bell.start_retrain("other", 1)}
    assert len(runs) == 3

    # Refused because another worker held the lease, then crashed before it could claim the request.
    for ended in (Completed(name="Refused"), Crashed()):
        last = bell.start_retrain("r", 1)
        prefect.set_flow_run_state(UUID(last), ended, force=True)
        following = bell.start_retrain("r", 1)
        assert following not in runs
        assert bell.start_retrain("r", 1) == following
        runs.add(following)
    found = {str(run.id): run for run in prefect.read_flow_runs()}
    assert set(found) == runs
    assert found[first].deployment_id == deployment
    assert found[first].parameters == {"request_id": "r"}


def test_what_is_left_of_a_dead_worker_is_ended_before_the_next_attempt_and_nothing_else(
    prefect: SyncPrefectClient, folder: Path
) -> None:
    bell = PrefectDoorbell()
    flow_id = prefect.create_flow_from_name("retrain")
    deployment = prefect.create_deployment(flow_id, "retrain", concurrency_limit=1)

    def running(request_id: str, minutes: float) -> UUID:
        made = prefect.create_flow_run_from_deployment(deployment, parameters={"request_id": request_id})
        prefect.set_flow_run_state(made.id, Running(), force=True)
        put_back(folder / "prefect-api" / DATABASE, made.id, datetime.now(UTC) - timedelta(minutes=minutes))
        return made.id

    dead, fresh, other = running("dead", 20), running("dead", 0), running("of another", 20)
    bell.start_retrain("dead", 1)  # by an event that was late: for all that is known the first run works
    assert prefect.read_flow_run(dead).state_name == "Running"
    following = UUID(bell.start_retrain("dead", 2))
    assert prefect.read_flow_run(dead).state_name == "Crashed"
    assert {prefect.read_flow_run(run).state_name for run in (fresh, other)} == {"Running"}
    assert not prefect.read_flow_run(following).state.is_final()  # type: ignore[union-attr]


def heard(prefect: SyncPrefectClient, resource: str) -> list[dict[str, Any]]:
    """Events about a resource; the server writes them down a moment after it has taken them."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = prefect.request("POST", "/events/filter", json={"filter": {"resource": {"id": [resource]}}})
        if found := answer.raise_for_status().json()["events"]:
            return list(found)
        assert time.monotonic() < deadline, f"no event about {resource}"
        time.sleep(0.1)


def event(fact: str) -> Message:
    return next(message for message in FACTS[fact].messages() if message.channel is Channel.EVENT)


@pytest.mark.parametrize("resource", FACTS)
def test_an_event_names_what_it_is_about_and_carries_the_fact(prefect: SyncPrefectClient, resource: str) -> None:
    message = event(resource)
    PrefectDoorbell().ring(message)
    [found] = heard(prefect, resource)
    assert (found["id"], found["event"], found["payload"]) == (message.id, message.topic, message.payload)
    _, kind, name = resource.split(".", 2)
    assert found["resource"]["prefect.resource.name"] == f"{kind} {name}"
