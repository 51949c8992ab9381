"""Prefect, looked over: server, work pool, worker, runs, deployments, schedules, automations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib.metadata import version as installed
from typing import Any

from cancellations.domain.health import Finding, Verdict, of_versions
from deployments.doctor.checks import Check
from deployments.doctor.expected import DEPLOY, Deployment, declared, triggers, version
from deployments.doctor.server import START, PrefectServer, Unanswered
from deployments.stack import POOL

# A worker takes a run within its poll, some seconds; several runs of 300 MB wait for each other longer.
LATE = timedelta(minutes=15)
# The longest that we know is a calibration of some minutes. What "runs" longer has lost its process.
STUCK = timedelta(hours=6)
SHOWN = 3
CREATE_POOL = f"prefect work-pool create {POOL} --type process"
START_WORKER = f"cancellations up, or: prefect worker start --pool {POOL} --type process"
SCHEDULER = "wait a minute after a deploy; else the scheduler stands still: look at the server's log, and restart it"


@dataclass(frozen=True)
class Orchestrator:
    """The checks of a Prefect server; `server` is None where nobody names one."""

    server: PrefectServer | None

    def checks(self) -> list[Check]:
        where = self.server.address if self.server is not None else "PREFECT_API_URL"
        looks = {
            "prefect server": self._version,
            "work pool": self._pool,
            "worker": self._workers,
            "runs": self._runs,
            "deployments": self._deployments,
            "schedules": self._schedules,
            "automations": self._automations,
        }
        return [Check(name, where, _if_it_answers(name, where, look)) for name, look in looks.items()]

    @property
    def _api(self) -> PrefectServer:
        if self.server is None:
            raise Unanswered("no Prefect server is named", START)
        return self.server

    @cached_property
    def _declared(self) -> list[Deployment]:
        return declared()

    def _version(self) -> Iterator[Finding]:
        ours, theirs = installed("prefect"), str(self._api.get("/admin/version"))
        remedy = f"install the same release on both sides: pip install 'prefect=={theirs}', or upgrade the server"
        yield of_versions("prefect server", self._api.address, "Prefect", ours, theirs, remedy)

    def _pool(self) -> Iterator[Finding]:
        pool = self._api.get(f"/work_pools/{POOL}")
        if pool is None:
            yield Finding("work pool", POOL, Verdict.WRONG, "there is no such work pool", CREATE_POOL)
            return
        told = f"of type {pool['type']}"
        if pool["is_paused"]:
            yield Finding("work pool", POOL, Verdict.WRONG, f"{told}, paused", f"prefect work-pool resume {POOL}")
        elif pool["concurrency_limit"] == 0:
            clear = f"prefect work-pool clear-concurrency-limit {POOL}"
            yield Finding("work pool", POOL, Verdict.WRONG, f"{told}, with a limit of no run at all", clear)
        else:
            yield Finding("work pool", POOL, Verdict.RIGHT, told)

    def _workers(self) -> Iterator[Finding]:
        workers = self._api.post(f"/work_pools/{POOL}/workers/filter", {})
        if workers is None:
            yield Finding("worker", POOL, Verdict.UNKNOWN, "there is no work pool that workers could poll", CREATE_POOL)
            return
        heard = sorted(workers, key=lambda worker: str(worker["last_heartbeat_time"]), reverse=True)
        online = [worker["name"] for worker in heard if worker["status"] == "ONLINE"]
        if online:
            yield Finding("worker", POOL, Verdict.RIGHT, f"online: {', '.join(online)}")
        elif heard:
            last = f"{heard[0]['name']} was heard of last, {_moment(heard[0]['last_heartbeat_time'])}"
            yield Finding("worker", POOL, Verdict.WRONG, f"none is online; {last}", START_WORKER)
        else:
            yield Finding("worker", POOL, Verdict.WRONG, "none has ever polled it", START_WORKER)

    def _runs(self) -> Iterator[Finding]:
        now = self._api.clock().theirs
        late = self._runs_where({"state": {"name": {"any_": ["Late"]}}, "expected_start_time": _before(now - LATE)})
        stuck = self._runs_where(
            {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}, "start_time": _before(now - STUCK)}
        )
        if late:
            since = f"the first since {_moment(late[0]['expected_start_time'])}"
            what = f"{_many(late)} late, {since}: a worker is missing, too slow, or its limit is used up"
            yield Finding(
                "runs", POOL, Verdict.WRONG, what, f"{START_WORKER}; the slots: prefect work-pool slots {POOL}"
            )
        for run in stuck[:SHOWN]:
            what = f"in state {run['state_name']} since {_moment(run['start_time'])}, longer than any of ours takes"
            yield Finding("runs", run["name"], Verdict.WRONG, what, self._crash(run["id"]))
        if not late and not stuck:
            yield Finding("runs", POOL, Verdict.RIGHT, "none is late, none is stuck")

    def _crash(self, run_id: str) -> str:
        """Ends a run whose process is gone; to cancel it would wait for that process."""
        # Not by force, which would leave its slot taken.
        body = """-H 'Content-Type: application/json' -d '{"state": {"type": "CRASHED"}}'"""
        return f"curl -X POST {self._api.address}/flow_runs/{run_id}/set_state {body}"

    def _runs_where(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        """Runs of our pool, at most a page of them, the oldest first."""
        pool = {"name": {"any_": [POOL]}}
        query = {"flow_runs": wanted, "work_pools": pool, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        return list(self._api.post("/flow_runs/filter", query) or [])

    def _found(self, deployment: Deployment) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._api.get(f"/deployments/name/{deployment.name}/{deployment.name}")
        return found

    def _deployments(self) -> Iterator[Finding]:
        wanted, wrong = version(), 0
        for deployment in self._declared:
            found = self._found(deployment)
            if found is None:
                told, remedy = ["not deployed"], DEPLOY
            else:
                told, remedy = deployment.differences(found, wanted), DEPLOY
                if found["paused"] and not told:
                    told = ["paused"]
                    remedy = f"curl -X POST {self._api.address}/deployments/{found['id']}/resume_deployment"
            if told:
                wrong += 1
                yield Finding("deployments", deployment.name, Verdict.WRONG, "; ".join(told), remedy)
        if not wrong:
            told_all = f"all {len(self._declared)} of prefect.yaml are there, of version {wanted}"
            yield Finding("deployments", POOL, Verdict.RIGHT, told_all)
        known = {deployment.name for deployment in self._declared}
        others = self._api.post("/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}, "limit": 200})
        for other in others or []:
            if other["name"] not in known:
                what = "deployed to our pool, but not by prefect.yaml: of an earlier version?"
                delete = f"prefect deployment delete --id {other['id']}"
                yield Finding("deployments", other["name"], Verdict.NOTICE, what, delete)

    def _schedules(self) -> Iterator[Finding]:
        """Whether schedules are on as they should be, and whether the scheduler makes runs of them."""
        wanted = os.environ.get("CANCELLATIONS_SCHEDULES", "").lower()
        there = {d.name: found for d in self._declared if d.schedules and (found := self._found(d)) is not None}
        off = {name: [s for s in found["schedules"] if not s["active"]] for name, found in there.items()}
        if not there:
            yield Finding("schedules", POOL, Verdict.UNKNOWN, "nothing that has a schedule is deployed", DEPLOY)
            return
        if all(len(off[name]) == len(found["schedules"]) for name, found in there.items()):
            # Where nobody says that they are to run, somebody may start the runs by hand.
            verdict = Verdict.WRONG if wanted == "true" else Verdict.NOTICE
            what = "all are switched off: nothing is loaded, scored or watched by itself"
            yield Finding("schedules", POOL, verdict, what, f"CANCELLATIONS_SCHEDULES=true {DEPLOY}")
            return
        for name, schedules in off.items():
            for schedule in schedules:
                what = f"{schedule.get('slug')} is switched off, while others run"
                resume = f"prefect deployment schedule resume {name}/{name} {schedule['id']}"
                yield Finding("schedules", name, Verdict.WRONG, what, resume)
        idle = [name for name, found in there.items() if not off[name] and not self._planned(found["id"])]
        if idle:
            what = f"no run is planned of {', '.join(idle)}, though their schedules are on"
            yield Finding("schedules", POOL, Verdict.WRONG, what, SCHEDULER)
        elif not any(off.values()):
            yield Finding("schedules", POOL, Verdict.RIGHT, f"{len(there)} deployments have their next runs planned")

    def _planned(self, deployment_id: str) -> bool:
        query = {
            "deployments": {"id": {"any_": [deployment_id]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        return bool(self._api.post("/flow_runs/count", query))

    def _automations(self) -> Iterator[Finding]:
        wanted = list(triggers(self._declared))
        names = [trigger.name for _, trigger in wanted]
        query = {"automations": {"name": {"any_": names}}, "limit": 200}
        there: dict[str, list[dict[str, Any]]] = {}
        for automation in self._api.post("/automations/filter", query) or []:
            there.setdefault(automation["name"], []).append(automation)
        ids = {deployment.name: (self._found(deployment) or {}).get("id") for deployment, _ in wanted}
        wrong = 0
        for deployment, trigger in wanted:
            found, target = there.get(trigger.name, []), ids[deployment.name]
            if not found:
                told, remedy = "missing", DEPLOY
            elif len(found) > 1:
                told, remedy = _doubled(found, target)
            elif target is None:
                told, remedy = f"what it starts is gone: the deployment {deployment.name}", DEPLOY
            elif differs := trigger.differences(found[0], str(target)):
                told, remedy = f"not as prefect.yaml has it: {', '.join(differs)}", DEPLOY
            elif not found[0]["enabled"] and trigger.always:
                told, remedy = "paused", f'prefect automation resume "{trigger.name}"'
            else:
                continue
            wrong += 1
            yield Finding("automations", trigger.name, Verdict.WRONG, told, remedy)
        if not wrong:
            yield Finding(
                "automations", POOL, Verdict.RIGHT, f"all {len(wanted)} are there, and start what they should"
            )


def _doubled(found: list[dict[str, Any]], target: Any) -> tuple[str, str]:
    """What is told of several automations with one name: one outlives the deployment that it belonged to."""

    def strays(automation: dict[str, Any]) -> bool:
        return target not in [action.get("deployment_id") for action in automation["actions"]]

    extra = [automation for automation in found if strays(automation)]
    told = f"there {len(found)} times, {len(extra)} of them for another deployment, or one that is gone"
    if not extra:
        extra, told = found[1:], f"there {len(found)} times, so it acts as often"
    return told, " && ".join(f"prefect automation delete --id {automation['id']}" for automation in extra)


def _if_it_answers(name: str, where: str, look: Any) -> Any:
    """A look that says once, by the check of the server, that this does not answer; the others could not look."""

    def guarded() -> list[Finding]:
        try:
            return list(look())
        except Unanswered as error:
            if name == "prefect server":
                return [Finding(name, where, Verdict.WRONG, str(error), error.remedy)]
            return [Finding(name, where, Verdict.UNKNOWN, f"could not be looked at: {error}")]

    return guarded


def _before(moment: datetime) -> dict[str, str]:
    return {"before_": moment.isoformat()}


def _many(runs: list[dict[str, Any]]) -> str:
    return "one run is" if len(runs) == 1 else f"{len(runs)} runs are"


def _moment(told: str) -> str:
    return f"{datetime.fromisoformat(told).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
