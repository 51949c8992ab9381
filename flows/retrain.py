"""Works on one retrain request."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.client.schemas.objects import State

from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import Refused
from flows.application import application, named, publish, refused, tell
from flows.deliver import relay


@task
def ask(as_of: date, reason: str) -> str:
    return application().request_training(as_of, reason).request_id


@task
def train(request_id: str) -> RetrainRequest:
    return application().retrain(request_id, say=get_run_logger().info)


@flow(name="retrain", flow_run_name=named("retrain"))
def retrain(
    request_id: str | None = None, as_of: date | None = None, reason: str = "asked for by a person"
) -> State | None:
    """Trains on matured labels, backtests, passes the gate, registers one version per request.

    Args:
        request_id: A request in the store, as the drift automation sends it. Empty: a new one is written.
        as_of: The day on which a new request looks at the world. Empty: today.
        reason: Why a new request is made, for the record.
    """
    try:
        request = train(request_id or ask(as_of or application().settings.today, reason))
    except Refused as error:
        return refused(error)
    lines = [f"Request `{request.request_id}` ({request.reason}): **{request.state}**", ""]
    lines += [f"- {reason}" for reason in request.detail]
    publish("retrain", "\n".join(lines), "How the request ended, and why")
    if request.state is RequestState.CANDIDATE and request.version is not None:
        address = application().registry.version_address(request.version)
        if address is not None:
            create_link_artifact(link=address, link_text=f"version {request.version}", key="version")
    tell(relay())
    return None
