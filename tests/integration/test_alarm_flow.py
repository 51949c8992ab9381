"""The alarm flow on a Prefect server: who fails, or falls silent, is mailed once; who only seems to is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from once import Once
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Crashed, Failed, Running, State
from prefect_api import DATABASE, prefect_api, put_back

from cancellations import settings
from cancellations.domain.events import FlowFailed, FlowSilent
from cancellations.store import upgrade
from flows.alarm import alarm
from flows.application import application


@flow(name="ingest")
def feed() -> None:
    """Stands for a flow that is watched."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="module")
def prefect(folder: Path, once: Once) -> Iterator[SyncPrefectClient]:
    with prefect_api(folder, once) as client:
        yield client


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CANCELLATIONS_HOME", str(tmp_path / "home"))
    application.cache_clear()
    upgrade(settings.load().store_url)
    yield
    application().store.close()
    application.cache_clear()


def ended(prefect: SyncPrefectClient, state: State[Any]) -> FlowRun:
    """A run that has just ended so."""
    run = prefect.create_flow_run(feed, name="ingest of a morning")
    for each in (Running(), state):
        prefect.set_flow_run_state(run.id, each, force=True)
    return prefect.read_flow_run(run.id)


def mailed() -> list[dict[str, Any]]:
    with application().store.begin() as work:
        return [dict(entry.message.payload) for entry in work.pending_messages()]


@pytest.mark.parametrize("how", [Failed, Crashed])
def test_a_run_that_failed_is_mailed_once_with_its_error(prefect: SyncPrefectClient, how: Any) -> None:
    run = ended(prefect, how(message="BadInput: no column 'adr'"))
    for _ in range(2):
        told = alarm("ingest", str(run.id), return_state=True)
        assert told.message == "owners are told that run ingest of a morning failed"
    [payload] = mailed()
    assert FlowFailed.topic == "cancellations.flow.failed"
    assert (payload["flow"], payload["run_id"], payload["said"]) == (
        "ingest", str(run.id), "BadInput: no column 'adr'",
    )  # fmt: skip
    assert payload["state"] == how().name


def test_an_unanswered_question_a_run_that_went_on_and_one_that_is_gone_are_no_failures(
    prefect: SyncPrefectClient,
) -> None:
    unanswered = ended(prefect, Failed(message="The flow was paused and never resumed."))
    went_on = ended(prefect, Completed())
    for run_id in (unanswered.id, went_on.id, uuid4()):
        told = alarm("ingest", str(run_id), return_state=True)
        assert told.is_completed() and str(told.message).endswith("nothing to tell")
    assert mailed() == []


def test_a_flow_that_never_completed_one_or_not_for_hours_is_mailed_and_one_that_runs_again_is_not(
    prefect: SyncPrefectClient, folder: Path
) -> None:
    for run in prefect.read_flow_runs():
        prefect.delete_flow_run(UUID(str(run.id)))
    assert "has fallen silent" in str(alarm("ingest", return_state=True).message)
    assert [(m["flow"], m["since"], m["hours"]) for m in mailed()] == [("ingest", None, 2)]

    last = datetime.now(UTC) - timedelta(hours=5)
    put_back(folder / "prefect-api" / DATABASE, ended(prefect, Completed()).id, last)
    ended(prefect, Failed(message="no file"))
    for _ in range(2):
        alarm("ingest")
    never, silent = mailed()
    assert silent["hours"] == 5 and datetime.fromisoformat(silent["since"]) == last
    assert FlowSilent.topic == "cancellations.flow.silent"

    ended(prefect, Completed())
    assert str(alarm("ingest", return_state=True).message) == "ingest completes runs again: nothing to tell"
    assert mailed() == [never, silent]
