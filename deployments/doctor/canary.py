"""A canary: an event goes into Prefect, and a tiny run that an automation made has to say its token back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from cancellations.domain.health import Finding, Verdict
from deployments.doctor.expected import DEPLOY, version
from deployments.doctor.orchestrator import START_WORKER
from deployments.doctor.server import PrefectServer
from flows.canary import EVENT

FLOW = "canary"
POLL_SECONDS = 0.2


@dataclass
class Canary:
    """One canary on its way; `seconds` since it was sent, by what has happened to it."""

    server: PrefectServer
    token: str = field(default_factory=lambda: uuid4().hex)
    seconds: dict[str, float] = field(default_factory=dict)

    def fly(self, limit: float) -> list[Finding]:
        """Sends it and waits until it is back, at most `limit` seconds; raises `Unanswered`.

        It trains nothing: no automation but its own expects its event. What is late runs when a worker comes, and
        does no harm.
        """
        deployment = self.server.get(f"/deployments/name/{FLOW}/{FLOW}")
        if deployment is None:
            return [self._lost("its deployment is missing, so nothing could answer it", DEPLOY)]
        began, sent = time.monotonic(), datetime.now(UTC)
        self.server.post("/events", [self._event(sent)])
        run: dict[str, Any] | None = None
        while True:
            if "event kept" not in self.seconds and self._kept():
                self._note("event kept", began)
            run = self._run(str(deployment["id"])) if run is None else self.server.get(f"/flow_runs/{run['id']}")
            if run is not None:
                self._note("run made", began)
                if run["start_time"]:
                    self._note("run begun", began)
                if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                    self._note("back", began)
                    return [self._back(run)]
            if time.monotonic() - began > limit:
                return [self._late(run, limit)]
            time.sleep(POLL_SECONDS)

    def _event(self, sent: datetime) -> dict[str, Any]:
        return {
            "id": str(uuid4()),
            "occurred": sent.isoformat(),
            "event": EVENT,
            "resource": {
                "prefect.resource.id": f"cancellations.canary.{self.token}",
                "prefect.resource.name": f"canary {self.token}",
            },
            "payload": {"token": self.token},
        }

    def _note(self, what: str, began: float) -> None:
        self.seconds.setdefault(what, round(time.monotonic() - began, 2))

    def _kept(self) -> bool:
        wanted = {"event": {"name": [EVENT]}, "resource": {"id": [f"cancellations.canary.{self.token}"]}}
        answer = self.server.post("/events/filter", {"filter": wanted})
        return bool(answer and answer["events"])

    def _run(self, deployment_id: str) -> dict[str, Any] | None:
        """The run that carries our token, among the newest of the deployment."""
        query = {"deployments": {"id": {"any_": [deployment_id]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 20}
        runs = self.server.post("/flow_runs/filter", query) or []
        return next((run for run in runs if run["parameters"].get("token") == self.token), None)

    def _back(self, run: dict[str, Any]) -> Finding:
        state = run["state"]
        token, _, rest = str(state.get("message") or "").partition(" ")
        code, _, machine = rest.partition(" ")
        if run["state_type"] != "COMPLETED" or token != self.token:
            told = f"its run ended as {state['name']}: {state.get('message')}"
            return self._lost(told, f"prefect flow-run logs {run['id']}")
        times = ", ".join(f"{what} {after:.1f} s" for what, after in self.seconds.items())
        if code != version():
            what = f"the worker on {machine} runs code {code}, here is {version()} ({times})"
            return Finding(FLOW, machine, Verdict.WRONG, what, f"bring both to one version, then: {DEPLOY}")
        return Finding(FLOW, machine, Verdict.RIGHT, f"event, automation and worker are alive: {times}")

    def _late(self, run: dict[str, Any] | None, limit: float) -> Finding:
        """What it got stuck in."""
        waited = f"not back after {limit:g} s"
        if "event kept" not in self.seconds:
            told = f"{waited}: the server took its event and has not kept it; its event services stand still"
            return self._lost(told, "restart the Prefect server, with its services; look at its log")
        if run is None:
            told = f"{waited}: its event is there, and no automation has made a run of it"
            return self._lost(
                told, f"mend what the check of automations finds; else restart the server, then: {DEPLOY}"
            )
        told = f"{waited}: its run was made after {self.seconds['run made']:.1f} s and is {run['state_name']}"
        return self._lost(told, START_WORKER if not run["start_time"] else f"prefect flow-run logs {run['id']}")

    def _lost(self, what: str, remedy: str) -> Finding:
        return Finding(FLOW, self.server.address, Verdict.WRONG, what, remedy)
