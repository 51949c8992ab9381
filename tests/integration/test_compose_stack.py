"""The services of docker-compose.yaml, started one by one as processes on a real PostgreSQL, play the loop once.

Authentication is on everywhere, with secrets as `deployments/secrets.sh` makes them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from composed import ONCE, SERVICES, Composed, composed

from cancellations.sources.simulator import Drift, DriftKind, Simulator
from cancellations.sources.writing import write

# The day on which the demo's bookings end and the first champion is trained; then four weeks of another market.
TODAY = date(2016, 5, 15)
LATER = TODAY + timedelta(days=28)
SETTINGS = {
    "CANCELLATIONS_AS_OF": TODAY.isoformat(),
    # One look at the new market is enough, and what it does to the columns; the gate is told elsewhere, too.
    "CANCELLATIONS_MONITOR__STEP_DAYS": "28",
    "CANCELLATIONS_RETRAIN_POLICY__EVIDENCE_NEEDED": "0.2",
    "CANCELLATIONS_RETRAIN_POLICY__CONFIRM_K": "1",
    "CANCELLATIONS_RETRAIN_POLICY__COOLDOWN_DAYS": "0",
    "CANCELLATIONS_RETRAIN_POLICY__MIN_NEW_LABELS": "100",
    "CANCELLATIONS_GATE__MIN_ROWS": "200",
    "CANCELLATIONS_GATE__MIN_SKILL": "0",
    "CANCELLATIONS_GATE__MAX_BIAS": "0.9",
    "CANCELLATIONS_MONITOR__SAMPLE_ROWS": "1000",
    "CANCELLATIONS_RETRAIN__REFERENCE_ROWS": "1000",
    # The new market is meant; that checks hold back a broken feed is told elsewhere.
    "CANCELLATIONS_CHECKS__MIN_DAYS": "100000",
    # Nothing runs but what is told here.
    "CANCELLATIONS_SCHEDULES": "false",
}
SECRETS = (
    *("postgres_password", "cancellations_database", "prefect_database", "mlflow_database"),
    *("prefect_login", "mlflow_password", "mlflow_key", "api_tokens", "smtp_password"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """PostgreSQL, the migrations, both servers, and the work pool: what the first jobs of `up` leave."""
    with composed(tmp_path_factory.mktemp("compose"), SETTINGS) as made:
        # As a mail server that wants a login has it written here by hand.
        smtp = made.secrets / "smtp_password"
        smtp.chmod(0o644)
        smtp.write_text("smtp-7c1b9d02f4\n")
        made.start_postgres()
        made.run("migrations")
        made.start("prefect-server", "mlflow")
        made.run("pool")
        yield made


def login(stack: Composed, name: str) -> tuple[str, str]:
    if name == "mlflow":
        return "admin", stack.secret("mlflow_password")
    user, _, password = stack.secret("prefect_login").partition(":")
    return user, password


EXPERIMENTS = "/api/2.0/mlflow/experiments/search"
ASKED = [("prefect-server", "/api/work_pools/filter", {}), ("mlflow", EXPERIMENTS, {"max_results": 5})]


@pytest.mark.parametrize(("name", "path", "body"), ASKED, ids=["prefect", "mlflow"])
def test_a_server_answers_to_its_login_and_to_no_other(
    stack: Composed, name: str, path: str, body: dict[str, Any]
) -> None:
    address = stack.address(name) + path
    user, password = login(stack, name)
    assert httpx.post(address, json=body, auth=(user, password)).status_code == 200
    for wrong in (None, (user, "wrong"), (user, ""), ("nobody", password)):
        assert httpx.post(address, json=body, auth=wrong).status_code == 401, wrong


def test_mlflow_answers_to_no_foreign_host(stack: Composed) -> None:
    headers = {"Host": "attacker.example"}
    asked = httpx.post(
        stack.address("mlflow") + EXPERIMENTS, json={"max_results": 5}, auth=login(stack, "mlflow"), headers=headers
    )
    assert asked.status_code == 403


def test_each_database_opens_to_its_owner_alone(stack: Composed) -> None:
    owners = ("cancellations", "prefect", "mlflow")
    for owner in owners:
        for database in owners:
            known = {"host": "127.0.0.1", "port": stack.ports["postgres"], "user": owner, "dbname": database}
            password = stack.secret(f"{owner}_database")
            if owner == database:
                psycopg.connect(**known, password=password).close()
                with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                    psycopg.connect(**known, password="wrong")
            else:
                with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                    psycopg.connect(**known, password=password)


# --- the loop -------------------------------------------------------------------------------------


@dataclass
class Seen:
    """Command lines of all processes of this machine, as `ps` shows them, while the loop was played."""

    lines: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self._over.wait(0.05):
            for process in psutil.process_iter(["cmdline"]):
                self.lines.add(" ".join(process.info["cmdline"] or ()))

    def end(self) -> None:
        self._over.set()


@dataclass(frozen=True)
class Played:
    """What one turn of the loop left behind."""

    stack: Composed
    retrain: dict[str, Any]
    seen: Seen
    answer: dict[str, Any]


class Prefect:
    """The server of the stack, as somebody with its login sees it."""

    def __init__(self, stack: Composed) -> None:
        self._stack = stack
        self._client = httpx.Client(
            base_url=stack.address("prefect-server") + "/api", auth=login(stack, "prefect-server")
        )

    def post(self, path: str, **body: Any) -> Any:
        return self._client.post(path, json=body).raise_for_status().json()

    def until(self, found: Any, what: str) -> Any:
        result = []
        self._stack._until("worker", lambda: bool(result.append(found()) or result[-1]))
        return result[-1]

    def ended(self, run: dict[str, Any]) -> dict[str, Any]:
        def over() -> Any:
            now = self._client.get(f"/flow_runs/{run['id']}").raise_for_status().json()
            return now if now["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        now = self.until(over, run["name"])
        assert now["state"]["name"] == "Completed", (now["name"], now["state"], self.logs(run))
        return dict(now)

    def logs(self, run: dict[str, Any]) -> list[str]:
        wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
        return [line["message"] for line in self.post("/logs/filter", **wanted)]

    def run(self, name: str, **parameters: Any) -> dict[str, Any]:
        deployment = self._client.get(f"/deployments/name/{name}/{name}").raise_for_status().json()
        return self.ended(self.post(f"/deployments/{deployment['id']}/create_flow_run", parameters=parameters))

    def of(self, name: str) -> list[dict[str, Any]]:
        return list(self.post("/flow_runs/filter", flows={"name": {"any_": [name]}}, sort="START_TIME_DESC"))


@pytest.fixture(scope="module")
def played(stack: Composed) -> Iterator[Played]:
    """From an empty stack to a challenger that nobody here has asked for, by each service's own command."""
    seen = Seen()
    watch = threading.Thread(target=seen.watch)
    watch.start()
    try:
        stack.start_mailbox()
        stack.run("deploy")
        stack.run("demo")
        stack.start("worker", "api")
        drifts = (Drift(DriftKind.PRICE_SHOCK, TODAY, 2.5), Drift(DriftKind.CHANNEL_MIX, TODAY, 4.0))
        market = Simulator(TODAY + timedelta(days=1), 28, 3, drifts, scale=0.25)
        write(market, stack.folder / "incoming" / "bookings.parquet", truth=False, shown=lambda day, rows: None)
        prefect = Prefect(stack)
        prefect.run("ingest", until=LATER.isoformat())
        prefect.run("score", until=LATER.isoformat())
        prefect.run("monitor", after=TODAY.isoformat(), until=LATER.isoformat())
        retrain = prefect.ended(prefect.until(lambda: prefect.of("retrain"), "the event starts a retrain")[0])
        prefect.run("deliver")
        prefect.run("reconcile")
        answer = httpx.post(
            stack.address("api") + "/predict",
            headers={"Authorization": f"Bearer {stack.secret('api_tokens').split()[1]}"},
            json={"reservations": [BOOKING]},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        yield Played(stack, retrain, seen, answer.json())
    finally:
        seen.end()
        watch.join()


BOOKING = {
    "reservation_id": "x1",
    "hotel": "City Hotel",
    "booked_on": "2016-05-10",
    "arrival_on": "2016-09-14",
    "weekend_nights": 0,
    "week_nights": 3,
    "adults": 2,
    "market_segment": "Online TA",
    "price": 104.5,
}


@pytest.mark.long
def test_every_service_was_run_by_its_command(played: Played) -> None:
    # PostgreSQL and Mailpit are no programs of ours: the first is real, a mailbox stands for the second.
    assert {*played.stack.processes, *ONCE} == set(SERVICES)
    assert all(played.stack.healthy(name) for name in ("prefect-server", "mlflow", "worker", "api"))


@pytest.mark.long
def test_a_drift_starts_a_retrain_whose_version_stands_as_challenger_and_owners_are_told(played: Played) -> None:
    assert played.retrain["created_by"]["type"] == "AUTOMATION"
    stack = played.stack
    found = httpx.get(
        stack.address("mlflow") + "/api/2.0/mlflow/registered-models/get",
        params={"name": "cancellations"},
        auth=login(stack, "mlflow"),
    ).json()["registered_model"]
    aliases = {alias["alias"]: alias["version"] for alias in found["aliases"]}
    assert aliases == {"champion": "1", "challenger": "2"}
    subjects = "\n".join(path.name for path in (stack.folder / "outbox").glob("*.eml"))
    assert "drift" in subjects and "challenger" in subjects
    assert played.answer["predictions"][0]["version"] in ("1", "2")


@pytest.mark.long
def test_the_api_wants_a_token(played: Played) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}):
        asked = httpx.post(
            played.stack.address("api") + "/predict", json={"reservations": [BOOKING]}, headers=headers, timeout=30
        )
        assert asked.status_code == 401


def dumped(stack: Composed) -> dict[str, str]:
    """All rows of the three databases: parameters, logs, artifacts, mails."""
    texts = {f"database {name}": stack.dump(name) for name in ("cancellations", "prefect", "mlflow")}
    assert all("INSERT INTO" in text for text in texts.values())
    return texts


@pytest.mark.long
def test_commands_in_the_workers_container_have_its_logins(played: Played) -> None:
    asked = played.stack.execute("worker", "cancellations", "doctor", "--canary", "--json")
    told = json.loads(asked.stdout)
    found = {(f["check"], f["verdict"]) for f in told["findings"]}
    # All could be asked, and a canary came back; that schedules are off is the only wrong of this test's making.
    assert not [f for f in told["findings"] if f["verdict"] == "unknown"], asked.stdout
    assert {("prefect server", "right"), ("mlflow", "right"), ("database", "right"), ("smtp", "right")} <= found, (
        asked.stdout
    )
    assert played.stack.execute("worker", "cancellations", "status", "--json").returncode == 0


@pytest.mark.long
def test_no_secret_reaches_logs_artifacts_mails_databases_or_command_lines(played: Played) -> None:
    stack = played.stack
    texts = {f"ps {number}": line for number, line in enumerate(sorted(played.seen.lines))}
    kept = [
        p for name in ("logs", "artifacts", "outbox", "data") for p in (stack.folder / name).rglob("*") if p.is_file()
    ]
    assert {"worker.log", "api.log", "migrations.log"} <= {path.name for path in kept}
    assert any("flow_engine" in line or "prefect.engine" in line or "flow-run" in line for line in played.seen.lines)
    texts |= {str(path.relative_to(stack.folder)): path.read_bytes().decode(errors="replace") for path in kept}
    texts |= dumped(stack)
    for name in SECRETS:
        # Of `USER:PASSWORD` and `NAME TOKEN` the second is the secret.
        secret = stack.secret(name).replace(":", " ").split()[-1]
        assert len(secret) > 10
        assert [where for where, text in texts.items() if secret in text] == [], name


@pytest.mark.long
def test_the_api_keeps_secrets_out_of_its_environment(played: Played) -> None:
    given = " ".join(psutil.Process(played.stack.processes["api"].pid).environ().values())
    assert not [name for name in SECRETS if played.stack.secret(name).replace(":", " ").split()[-1] in given]


@pytest.mark.long
def test_services_end_by_their_stop_signal_within_their_grace(played: Played) -> None:
    for name in ("api", "worker", "mlflow", "prefect-server", "postgres"):
        played.stack.stop(name)
