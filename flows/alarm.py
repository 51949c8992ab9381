"""Mails owners that runs of a flow fail, or that a flow has fallen silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from flows.application import application, tell
from flows.deliver import relay
from flows.parameters import Said

# As long as the automation of prefect.yaml waits.
SILENCE = timedelta(hours=2)
# How Prefect ends a run whose question nobody answered in time; no answer means no, and is no failure.
UNANSWERED = "never resumed"


@task(cache_policy=NO_CACHE)
def write_failed(flow_name: str, run_id: str, run_name: str, ended: str, said: str, at: datetime) -> None:
    application().tell_failed(flow=flow_name, run_id=run_id, run=run_name, state=ended, said=said, at=at)


@task(cache_policy=NO_CACHE)
def write_silent(flow_name: str, since: datetime | None, hours: int) -> None:
    application().tell_silent(flow=flow_name, since=since, hours=hours)


@flow(name="alarm", flow_run_name="alarm about {flow_name}")
def alarm(flow_name: Said, run: Said | None = None) -> State:
    """Mails owners about a run that failed; without one about a flow that has completed no run for two hours.

    A flow that runs again, and a run that nobody answered in time, are mailed to nobody.

    Args:
        flow_name: The flow that it is about.
        run: The id of its run that failed. Empty: the flow is silent.
    """
    told = _failed(flow_name, UUID(run)) if run else _silent(flow_name, datetime.now(UTC))
    get_run_logger().info(told)
    tell(relay())
    return Completed(message=told)


def _failed(flow_name: str, run_id: UUID) -> str:
    try:
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(run_id)
    except ObjectNotFound:
        return f"run {run_id} is gone: nothing to tell"
    if run.state is None or not (run.state.is_failed() or run.state.is_crashed()):
        return f"run {run.name} has not failed, or goes on: nothing to tell"
    if UNANSWERED in (run.state.message or ""):
        return f"nobody answered run {run.name} in time, which means no: nothing to tell"
    ended, said = run.state.name or str(run.state.type), run.state.message or "no reason was given"
    # Not the run itself: Prefect would take its state for something to wait for.
    write_failed(flow_name, str(run.id), run.name, ended, said, run.state.timestamp)
    return f"owners are told that run {run.name} failed"


def _silent(flow_name: str, now: datetime) -> str:
    last = _last_completed(flow_name)
    if last is not None and now - last < SILENCE:
        return f"{flow_name} completes runs again: nothing to tell"
    silence = SILENCE if last is None else now - last
    write_silent(flow_name, last, round(silence / timedelta(hours=1)))
    return f"owners are told that {flow_name} has fallen silent"


def _last_completed(flow_name: str) -> datetime | None:
    """When the flow's last completed run ended; None where there is none."""
    of_flow = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    completed = FlowRunFilter.model_validate({"state": {"type": {"any_": ["COMPLETED"]}}})
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=of_flow, flow_run_filter=completed, sort=FlowRunSort.END_TIME_DESC, limit=1
        )
    if not runs or runs[0].end_time is None:
        return None
    # Prefect's own kind of moment cannot be divided.
    return datetime.fromtimestamp(runs[0].end_time.timestamp(), UTC)
