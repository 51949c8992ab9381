"""Prefect seen from the business: an event endpoint that is rung, a deployment that is started."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.states import Crashed

from cancellations.domain.events import Message, subject
from cancellations.errors import ServiceDown

RETRAIN = "retrain/retrain"
TIMEOUT_SECONDS = 15.0
# An attempt that has failed tells Prefect so within seconds; what still "runs" then has lost its process.
ENDING = timedelta(seconds=10)


class PrefectDoorbell:
    """`ports.Doorbell` on a Prefect server's API.

    Events go by the API with our own id and not by `emit_event`, which returns before anything has
    arrived and loses the event, with a line in a log, when the server is down.
    """

    def __init__(self) -> None:
        settings = get_current_settings()
        self._api = settings.api.url
        secret = settings.api.auth_string
        self._headers = {}
        if secret is not None:
            token = base64.b64encode(secret.get_secret_value().encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"

    def _address(self) -> str:
        if not self._api:
            raise ServiceDown("no Prefect server is configured (PREFECT_API_URL); start one with `cancellations up`")
        return self._api.rstrip("/")

    def ring(self, message: Message) -> None:
        """The server drops an event whose id it has seen, so ringing twice is ringing once."""
        address = self._address()
        kind, name = subject(message)
        event = {
            "id": message.id,
            "occurred": datetime.now(UTC).isoformat(),
            "event": message.topic,
            "resource": {
                "prefect.resource.id": f"cancellations.{kind}.{name}",
                "prefect.resource.name": f"{kind} {name}",
            },
            "payload": message.payload,
        }
        try:
            answer = httpx.post(f"{address}/events", json=[event], headers=self._headers, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ServiceDown(f"Prefect at {address} did not take the event {message.topic}: {error!r}") from error

    def start_retrain(self, request_id: str, attempt: int) -> str:
        """Runs of earlier attempts that Prefect takes for running are ended as crashed: their slot is needed."""
        address = self._address()
        try:
            with get_client(sync_client=True) as client:
                deployment = client.read_deployment_by_name(RETRAIN)
                key = f"{request_id}:{attempt}"
                while True:
                    run = client.create_flow_run_from_deployment(
                        deployment.id,
                        parameters={"request_id": request_id},
                        idempotency_key=key,
                        name=f"retrain {request_id} (attempt {attempt}, by reconcile)",
                    )
                    if run.state is None or not run.state.is_final():
                        break
                    # That run ended without a claim on the request, refused or crashed: another one follows it.
                    key = f"{request_id}:{attempt}:{run.id}"
                if attempt > 1:
                    _bury(client, run, request_id)
        except ObjectNotFound as error:
            raise ServiceDown(
                f"Prefect at {address} has no deployment {RETRAIN!r}; deploy with `prefect deploy --all`"
            ) from error
        except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
            raise ServiceDown(f"Prefect at {address} did not start the retrain of {request_id}: {error!r}") from error
        return str(run.id)


def _bury(client: SyncPrefectClient, run: FlowRun, request_id: str) -> None:
    """Ends runs of a request that are left of a dead worker; nobody else would for minutes, or ever."""
    running = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}})
    of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id] if run.deployment_id else []))
    begun = datetime.now(UTC) - ENDING
    for other in client.read_flow_runs(flow_run_filter=running, deployment_filter=of_deployment):
        dead = other.parameters.get("request_id") == request_id and other.id != run.id
        if dead and other.start_time is not None and other.start_time < begun:
            client.set_flow_run_state(other.id, Crashed(message="Its worker died; another attempt follows."))
