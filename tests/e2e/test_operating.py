"""What operators meet, on the real stack: `doctor` tells what is broken on purpose, and what it says to do helps;
and a retrain that everything happens to comes to one end.

That a stack on which nothing is broken is healthy stands in `test_approval.py`, whose stack it is.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import mlflow
import psutil
import pytest
from house import Open, house
from once import PREFECT, Once
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Running, Scheduled

from cancellations import settings
from cancellations.domain.events import DriftDetected
from cancellations.domain.health import Finding, Verdict, healthy
from cancellations.domain.promotion import Change
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.sources.simulator import Simulator
from cancellations.usecases.retrain import LEASE
from deployments import keeper
from deployments.doctor import examine
from deployments.doctor.canary import Canary
from deployments.doctor.expected import DEPLOY, declared
from deployments.doctor.orchestrator import Orchestrator
from deployments.doctor.server import PrefectServer
from deployments.live import PROJECT
from deployments.stack import POOL

PATIENCE_SECONDS = 120.0
SETTINGS = {
    # Whatever a developer's .env says, nothing leaves the home.
    "CANCELLATIONS_DATABASE_URL": "",
    "CANCELLATIONS_MLFLOW_TRACKING_URI": "",
    "CANCELLATIONS_MLFLOW_ARTIFACTS": "",
    "CANCELLATIONS_DOCTOR__LEAST_FREE_GIB": "0",
    # A dead worker's request is free again after 15 s, not minutes.
    "CANCELLATIONS_RETRAIN__LEASE_MINUTES": "0.25",
    # Fewer rows: faster, and no other promise.
    "CANCELLATIONS_GATE__BACKTEST_DAYS": "28",
    "CANCELLATIONS_GATE__MIN_ROWS": "300",
    "CANCELLATIONS_RETRAIN__REFERENCE_ROWS": "500",
}
pytestmark = pytest.mark.long
FIRST_BOOKING, TRAINED_ON, LONGEST_LEAD, SEED = date(2016, 5, 2), date(2016, 7, 24), 60, 13


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Iterator[Open]:
    with house(tmp_path_factory.mktemp("doctor"), once, SETTINGS) as running:
        yield running


@pytest.fixture(autouse=True)
def mended(opened: Open) -> Iterator[None]:
    """Whatever a test breaks it mends."""
    yield
    until(lambda: healthy(look(opened)), "all is well again")


def server(opened: Open) -> PrefectServer:
    return PrefectServer(opened.stack.prefect_api)


def look(opened: Open, *names: str) -> list[Finding]:
    """What the checks of Prefect find, those of these names or all."""
    checks = Orchestrator(server(opened)).checks()
    return examine([check for check in checks if not names or check.name in names], 60)


def wrong(opened: Open, name: str) -> dict[str, Finding]:
    """What one check finds that has to be mended, by where it is."""
    return {finding.where: finding for finding in look(opened, name) if finding.to_mend}


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (result := found()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.2)
    return result


def mend(remedy: str) -> None:
    """Types what a finding says, in the project's folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(remedy), cwd=PROJECT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def api(opened: Open, method: str, path: str, **body: Any) -> Any:
    def asked() -> httpx.Response | None:
        answer = httpx.request(method, f"{opened.stack.prefect_api}{path}", json=body or None, timeout=60)
        # While SQLite's lock is another's.
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer.raise_for_status()

    answer = until(asked, f"Prefect answers {path}")
    return answer.json() if answer.content else None


def automation(opened: Open, name: str) -> str:
    [found] = api(opened, "POST", "/automations/filter", automations={"name": {"any_": [name]}})
    return str(found["id"])


def time_passes(opened: Open, span: timedelta, table: str, column: str, which: str) -> None:
    """Something in Prefect's database happened that much earlier: its API takes the present alone."""
    then = (datetime.now(UTC) - span).strftime("%Y-%m-%d %H:%M:%S.%f")
    with closing(sqlite3.connect(opened.stack.home / "prefect" / PREFECT, timeout=60)) as database, database:
        done = database.execute(f"UPDATE {table} SET {column} = ? WHERE {which}", (then,))
        assert done.rowcount == 1


def deployment(opened: Open, name: str) -> dict[str, Any]:
    found: dict[str, Any] = api(opened, "GET", f"/deployments/name/{name}/{name}")
    return found


def test_automations_that_are_paused_missing_or_changed_are_told_and_a_canary_without_its_own_is_lost(
    opened: Open,
) -> None:
    api(opened, "PATCH", f"/automations/{automation(opened, 'answer the canary')}", enabled=False)
    paused = wrong(opened, "automations")["answer the canary"]
    assert (paused.what, paused.remedy) == ("paused", 'prefect automation resume "answer the canary"')
    lost = Canary(server(opened))
    [finding] = lost.fly(15)
    assert finding.verdict is Verdict.WRONG and "no automation has made a run of it" in finding.what
    assert set(lost.seconds) == {"event kept"}
    mend(paused.remedy)
    assert wrong(opened, "automations") == {}

    drift = automation(opened, "retrain on drift")
    kept = api(opened, "GET", f"/automations/{drift}")
    told = {key: kept[key] for key in ("name", "description", "enabled", "trigger", "actions")}
    told["trigger"] = {**kept["trigger"], "expect": ["cancellations.drift.detected"]}
    api(opened, "PUT", f"/automations/{drift}", **told)
    api(opened, "DELETE", f"/automations/{automation(opened, 'look at the trial after outcomes')}")
    by_hand = api(opened, "POST", "/automations/", **told | {"name": "reconcile after a failed action"})
    found = wrong(opened, "automations")
    assert found.keys() == {
        "look at the trial after outcomes", "retrain on drift", "reconcile after a failed action",
    }  # fmt: skip
    assert found["look at the trial after outcomes"].what == "missing"
    assert found["retrain on drift"].what == "not as prefect.yaml has it: expect"
    assert found["reconcile after a failed action"].what.startswith("there 2 times, 1 of them for another deployment")
    api(opened, "DELETE", f"/automations/{by_hand['id']}")
    mend(found["retrain on drift"].remedy)


def test_deployments_that_are_missing_changed_or_paused_are_told_and_a_deploy_mends_them(opened: Open) -> None:
    api(opened, "PATCH", f"/deployments/{deployment(opened, 'outlook')['id']}", entrypoint="flows/old.py:outlook")
    api(opened, "DELETE", f"/deployments/{deployment(opened, 'canary')['id']}")
    api(opened, "POST", f"/deployments/{deployment(opened, 'digest')['id']}/pause_deployment")
    found = wrong(opened, "deployments")
    assert found.keys() == {"outlook", "canary", "digest"}
    assert found["outlook"].what == "entrypoint 'flows/old.py:outlook', not 'flows/outlook.py:outlook'"
    assert (found["canary"].what, found["digest"].what) == ("not deployed", "paused")
    [finding] = Canary(server(opened)).fly(2)
    assert finding.verdict is Verdict.WRONG and "its deployment is missing" in finding.what
    gone = wrong(opened, "automations")["answer the canary"].what
    assert gone in ("missing", "what it starts is gone: the deployment canary")
    mend(found["digest"].remedy)
    mend(found["canary"].remedy)
    # Prefect keeps the automation of a deployment that was deleted.
    stray = wrong(opened, "automations")["answer the canary"]
    assert stray.what == "there 2 times, 1 of them for another deployment, or one that is gone"
    mend(stray.remedy)


def test_schedules_that_are_off_are_told_by_what_is_meant_and_the_scheduler_is_seen_to_plan(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANCELLATIONS_SCHEDULES", "true")
    [all_off] = look(opened, "schedules")
    assert all_off.verdict is Verdict.WRONG and "all are switched off" in all_off.what
    monkeypatch.setenv("CANCELLATIONS_SCHEDULES", "false")
    assert [finding.verdict for finding in look(opened, "schedules")] == [Verdict.NOTICE]

    digest = deployment(opened, "digest")
    [schedule] = digest["schedules"]
    path = f"/deployments/{digest['id']}/schedules/{schedule['id']}"
    api(opened, "PATCH", path, active=True)
    # Its run is of tomorrow morning: none is made of it here.
    found = until(lambda: (now := wrong(opened, "schedules")) and POOL not in now and now, "the scheduler plans a run")
    others = {d.name for d in declared() if d.schedules} - {"digest"}
    assert found.keys() == others
    assert found["score"].what == "every-five-minutes is switched off, while others run"
    [score] = deployment(opened, "score")["schedules"]
    assert found["score"].remedy == f"prefect deployment schedule resume score/score {score['id']}"
    api(opened, "PATCH", path, active=False)


def test_a_pool_that_is_paused_keeps_a_canary_and_lets_runs_grow_late(opened: Open) -> None:
    api(opened, "PATCH", f"/work_pools/{POOL}", is_paused=True)
    paused = wrong(opened, "work pool")[POOL]
    assert paused.what == "of type process, paused"
    stuck = Canary(server(opened))
    [finding] = stuck.fly(15)
    assert finding.verdict is Verdict.WRONG and "its run was made after" in finding.what
    assert "run begun" not in stuck.seconds

    ago = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(minutes=30))
    waits = opened.client.create_flow_run_from_deployment(
        UUID(deployment(opened, "canary")["id"]), parameters={"token": "late"}, state=ago
    )
    late = until(lambda: wrong(opened, "runs"), "a run is late")[POOL]
    assert late.what.startswith("one run is late, the first since")
    mend(paused.remedy)
    for run in (waits, *opened.server.having("canary", token=stuck.token)):
        assert finished(opened, run).state_type is StateType.COMPLETED


def finished(opened: Open, run: FlowRun) -> FlowRun:
    def ended() -> FlowRun | None:
        now = opened.client.read_flow_run(run.id)
        return now if now.state is not None and now.state.is_final() else None

    found: FlowRun = until(ended, f"{run.name} ends")
    return found


def test_a_run_whose_process_is_gone_is_told_and_the_remedy_ends_it(opened: Open) -> None:
    made = opened.client.create_flow_run_from_deployment(
        UUID(deployment(opened, "canary")["id"]),
        parameters={"token": "stuck"},
        state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1)),
        name="nobody works on it",
    )
    opened.client.set_flow_run_state(made.id, Running(), force=True)
    assert wrong(opened, "runs") == {}
    time_passes(opened, timedelta(hours=7), "flow_run", "start_time", f"id = '{made.id}'")
    stuck = wrong(opened, "runs")["nobody works on it"]
    assert stuck.what.startswith("in state Running since ")
    mend(stuck.remedy)
    assert opened.client.read_flow_run(made.id).state_type is StateType.CRASHED


def test_a_failed_run_is_mailed_the_first_time_and_silence_calls_the_alarm(opened: Open) -> None:
    silence = automation(opened, "tell of a silent flow")
    kept = api(opened, "GET", f"/automations/{silence}")
    # Its two hours are ten seconds here, and what it starts starts at once.
    told = {key: kept[key] for key in ("name", "description", "trigger")} | {"enabled": True}
    told["trigger"] = {**kept["trigger"], "within": 10}
    told["actions"] = [{**kept["actions"][0], "schedule_after": 0}]
    api(opened, "PUT", f"/automations/{silence}", **told)
    opened.server.run("deliver")

    failed = [finished(opened, opened.server.start("ingest", source="/no/such/file.csv")) for _ in range(2)]
    assert {run.state_name for run in failed} == {"Failed"}
    [mail] = until(lambda: list((opened.stack.home / "outbox").glob("*a-run-of-ingest-failed*")), "owners are told")
    assert str(failed[0].id) in mail.read_text()
    hushed = finished(opened, opened.server.await_run("alarm", flow_name="deliver"))
    assert (hushed.created_by and hushed.created_by.type) == "AUTOMATION"
    assert hushed.state is not None and hushed.state.message == "deliver completes runs again: nothing to tell"
    assert len(opened.server.having("alarm", flow_name="ingest")) == 1
    mend(DEPLOY)


def test_a_worker_that_was_killed_is_told_and_a_new_one_is_seen(opened: Open) -> None:
    assert [f.verdict for f in look(opened, "worker")] == [Verdict.RIGHT]
    for process in psutil.Process().children(recursive=True):
        if is_of_a_worker(process):
            process.kill()
    opened.stack.stop_worker()
    try:
        # Ninety seconds of silence are noticed by the server's next look at its workers.
        time_passes(opened, timedelta(seconds=91), "worker", "last_heartbeat_time", "TRUE")
        found = until(lambda: wrong(opened, "worker").get(POOL), "its silence is noticed")
    finally:
        opened.stack.start_worker()
    assert "none is online; embedded-" in found.what and "was heard of last" in found.what
    assert "prefect worker start --pool cancellations" in found.remedy


def test_without_its_server_prefect_is_told_once_and_the_rest_is_looked_at(opened: Open) -> None:
    opened.stack.stop_server()
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "deployments.cli", "doctor", "--canary"],
            cwd=PROJECT,
            env=dict(os.environ),
            capture_output=True,
            text=True,
        )
    finally:
        opened.stack.start_server()
    assert ended.returncode == 1
    by_verdict = {line.split()[0]: line for line in ended.stdout.splitlines() if "prefect server" in line}
    assert "does not answer" in by_verdict["wrong"]
    unknown = [line for line in ended.stdout.splitlines() if line.startswith("unknown")]
    assert len(unknown) == 8  # six checks of Prefect's, its clock, and the canary
    for check in ("database", "mlflow", "smtp", "disk", "packages"):
        assert any(line.startswith("right") and check in line for line in ended.stdout.splitlines()), check
    until(lambda: healthy(look(opened)), "all is well again")


# --- an episode in which everything happens ---------------------------------------------------------


@contextmanager
def second_worker(opened: Open) -> Iterator[None]:
    """Another process that takes runs from the same pool."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    log = (opened.stack.home / "logs" / "second-worker.log").open("wb")
    with (
        log,
        subprocess.Popen(
            [*command, "--name", "second", "--install-policy", "never"],
            cwd=PROJECT,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            until(lambda: "second" in look(opened, "worker")[0].what, "the second worker is online")
            yield
        finally:
            process.terminate()
            process.wait(30)


def kill_with_its_worker(run: FlowRun) -> bool:
    """The processes of a flow run, after the worker that started them: none says goodbye.

    True of the stack's own worker.
    """
    own = [p for p in psutil.Process().children(recursive=True) if works_on(p, run)]
    assert own, f"no process works on {run.name}"
    above = {parent for process in own for parent in process.parents() if is_of_a_worker(parent)}
    keepers = {parent for parent in above if keeper.__file__ in parent.cmdline()}
    assert len(above - keepers) == 1
    for process in (*(above - keepers), *own):
        process.kill()
    return bool(keepers)


def is_of_a_worker(process: psutil.Process) -> bool:
    """A worker of Prefect's, or its keeper."""
    try:
        return {"prefect", "worker", "start"} <= set(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def works_on(process: psutil.Process, run: FlowRun) -> bool:
    try:
        return process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id)
    except psutil.Error:  # it has just ended
        return False


def stored(opened: Open, request_id: str) -> RetrainRequest:
    with opened.app.store.begin() as work:
        found = work.request(request_id)
    assert found is not None
    return found


def test_a_retrain_whose_worker_is_killed_server_restarted_and_deployments_made_anew_ends_once(opened: Open) -> None:
    app, now = opened.app, datetime.now(UTC)
    days = (TRAINED_ON - FIRST_BOOKING).days + 1
    app.ingest(Simulator(FIRST_BOOKING, days, SEED, max_lead_days=LONGEST_LEAD), until=TRAINED_ON)
    request = RetrainRequest("disturbed", TRAINED_ON, "drift confirmed")
    with app.store.begin() as work:
        assert work.add_request(request, now)
        work.commit()
    fact = DriftDetected(request.request_id, "report", "1", FIRST_BOOKING, TRAINED_ON, ("by this test",))
    event, bell = fact.messages()[0], app.doorbell
    assert bell is not None

    with second_worker(opened):
        bell.ring(event)
        first = opened.server.await_run("retrain", request_id="disturbed")
        until(lambda: stored(opened, "disturbed").state is RequestState.RUNNING, "a worker takes it")
        embedded = kill_with_its_worker(first)
        if embedded:
            opened.stack.stop_worker()  # what is left of it
        killed = stored(opened, "disturbed")
        assert (killed.state, killed.attempts) == (RequestState.RUNNING, 1)

        opened.stack.stop_server()
        opened.stack.start_server()
        mend(DEPLOY)
        # Rung again, as the outbox does when it does not know: once as it was, once by automations made anew.
        bell.ring(event)
        bell.ring(replace(event, id=str(uuid4())))

        def over() -> bool:
            with app.store.begin() as work:
                return work.lease_holder(LEASE, datetime.now(UTC)) is None

        until(over, "the lease of the dead worker is over")
        opened.server.run("reconcile")
        until(lambda: stored(opened, "disturbed").state.final, "the request ends")
        runs = [finished(opened, run) for run in opened.server.having("retrain", request_id="disturbed")]
    if embedded:
        opened.stack.start_worker()

    done = stored(opened, "disturbed")
    assert (done.state, done.attempts) == (RequestState.CANDIDATE, 2)
    assert done.detail[0] == "attempt 1: its worker died"
    client = mlflow.MlflowClient(app.settings.tracking_uri)
    made = client.search_model_versions(f"name = '{settings.MODEL}' and tags.request_id = 'disturbed'")
    assert [str(version.version) for version in made] == [done.version]
    with app.store.begin() as work:
        assert [(row.change, row.champion) for row in work.ledger()] == [(Change.FIRST, done.version)]
    states = {run.id: run.state_name for run in runs}
    assert states.pop(first.id) == "Crashed"
    assert states and set(states.values()) <= {"Completed", "Refused"}
