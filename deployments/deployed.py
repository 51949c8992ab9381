"""Deployments of a Prefect server, as somebody outside sees them: started, awaited, counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort, LogSort

from cancellations.errors import ServiceDown

RUN_SECONDS = 180.0
POLL_SECONDS = 0.2
LOG_LINES = 15


class Deployed:
    """`check` is called while waiting and raises when the stack behind has gone."""

    def __init__(self, client: SyncPrefectClient, check: Callable[[], None]) -> None:
        self._client = client
        self._check = check
        self.finished = 0

    def start(self, name: str, **parameters: Any) -> FlowRun:
        """Starts a deployment of a flow of the same name; None stands for the flow's default."""
        given = _parameters(parameters)
        deployment = self._client.read_deployment_by_name(f"{name}/{name}")
        return self._client.create_flow_run_from_deployment(deployment.id, parameters=given)

    def finish(self, run: FlowRun) -> FlowRun:
        """Waits for a run's end; raises `ServiceDown`, with its last log lines, when it did not complete."""
        began = time.monotonic()
        while run.state is None or not run.state.is_final():
            self._wait(began, f"flow run {run.name} did not end within {RUN_SECONDS:.0f} s{self._log(run)}")
            run = self._client.read_flow_run(run.id)
        self.finished += 1
        if run.state.name != "Completed":
            raise ServiceDown(f"flow run {run.name}: {run.state.name}, {run.state.message}{self._log(run)}")
        return run

    def taken(self, run: FlowRun) -> datetime:
        """When a worker took a run to start a process for it, UTC."""
        states = self._client.read_flow_run_states(run.id)
        return min(state.timestamp for state in states if state.type is StateType.PENDING)

    def run(self, name: str, **parameters: Any) -> FlowRun:
        return self.finish(self.start(name, **parameters))

    def having(self, name: str, **parameters: Any) -> list[FlowRun]:
        """Runs of a deployment that carry these parameters, whoever made them; newest last."""
        given = _parameters(parameters)
        named = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
        runs = self._client.read_flow_runs(deployment_filter=named, limit=200, sort=FlowRunSort.EXPECTED_START_TIME_ASC)
        return [run for run in runs if given.items() <= run.parameters.items()]

    def await_run(self, name: str, **parameters: Any) -> FlowRun:
        """The run that an automation makes with these parameters; raises `ServiceDown` when none comes."""
        began = time.monotonic()
        while not (runs := self.having(name, **parameters)):
            told = ", ".join(f"{k} {v}" for k, v in parameters.items())
            self._wait(began, f"nothing started {name!r} with {told} within {RUN_SECONDS:.0f} s")
        return runs[0]

    def event(self, topic: str, request_id: str) -> str | None:
        """Id of the event that rang for a request, as Prefect has it."""
        wanted = {"event": {"name": [topic]}, "resource": {"id": [f"cancellations.request.{request_id}"]}}
        answer = self._client.request("POST", "/events/filter", json={"filter": wanted})
        events = answer.raise_for_status().json()["events"]
        return str(events[0]["id"]) if events else None

    def _wait(self, began: float, too_late: str) -> None:
        self._check()
        if time.monotonic() - began > RUN_SECONDS:
            raise ServiceDown(too_late)
        time.sleep(POLL_SECONDS)

    def _log(self, run: FlowRun) -> str:
        of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        lines = self._client.read_logs(of_run, limit=200, sort=LogSort.TIMESTAMP_ASC)
        return "".join(f"\n    {line.message}" for line in lines[-LOG_LINES:])


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """As Prefect keeps them: dates as text, what is None left out."""
    return {k: v.isoformat() if isinstance(v, date) else v for k, v in given.items() if v is not None}


@contextmanager
def deployed(check: Callable[[], None]) -> Iterator[Deployed]:
    """The deployments of the server that PREFECT_API_URL names."""
    try:
        with get_client(sync_client=True) as client:
            yield Deployed(client, check)
    except httpx.HTTPError as error:
        raise ServiceDown(f"the Prefect server does not answer: {error!r}") from error
