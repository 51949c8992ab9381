"""Prefect as a doorbell, on a real server: one run on its way for an attempt, and never none."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Completed, Crashed
from prefect.testing.utilities import prefect_test_harness

from cancellations.errors import ServiceDown
from flows.doorbell import PrefectDoorbell


@pytest.fixture(scope="module")
def prefect() -> Iterator[SyncPrefectClient]:
    with prefect_test_harness(), get_client(sync_client=True) as client:
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
