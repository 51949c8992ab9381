"""The API as a process: it starts, answers, follows a promotion, records all before it ends; MLflow's own server."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from test_api import PATIENCE, TOKEN, told
from test_serve import TODAY
from world import SECOND, World

from benchmarks.load import UNASKED, closed, open_loop
from cancellations import home as homes
from cancellations.store import open_store

PROJECT = Path(__file__).parents[3]


def environment(**given: str) -> dict[str, str]:
    ours = ("CANCELLATIONS_", "MLFLOW_", "PREFECT_")
    plain = {n: v for n, v in os.environ.items() if not n.startswith(ours)}
    path = os.pathsep.join([str(Path(sys.executable).parent), plain.get("PATH", "")])
    return plain | {"PATH": path, "OMP_NUM_THREADS": "1"} | given


@contextmanager
def running(command: list[str], log: Path, given: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process whose first words are read by the test; whatever it started has ended after the block."""
    with log.open("w") as err:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=dict(given), stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True
        )
    children: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        psutil.wait_procs(children, timeout=PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


def until(holds: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def answer(address: str, **knobs: Any) -> httpx.Response | None:
    try:
        return httpx.get(address, trust_env=False, timeout=5, **knobs)
    except httpx.HTTPError:
        return None


@dataclass(frozen=True)
class Server:
    address: str
    process: subprocess.Popen[str]
    world: World  # on the store that the server has
    log: Path

    @property
    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def post(self, told: dict[str, Any], **headers: str) -> httpx.Response:
        return httpx.post(f"{self.address}/predict", json=told, headers=headers, trust_env=False)

    def measure(self, name: str) -> float:
        told = httpx.get(f"{self.address}/metrics", trust_env=False).text
        return sum(map(float, re.findall(rf"^cancellations_{name}(?:{{.*}})? (\S+)$", told, re.MULTILINE)))

    def stop(self) -> None:
        """As a container is stopped; all that it had started has ended with it."""
        assert self.process.stdout is not None
        children = self.children
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0 and "stopped" in self.process.stdout.read()
        gone, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert len(gone) >= 1 and alive == []


@contextmanager
def serving_process(world: World, folder: Path, **given: str) -> Iterator[Server]:
    """`cancellations serve` on a copy of a world, as soon as it is ready."""
    home, log = folder / "home", folder / "serve.log"
    homes.prepare(home)
    shutil.copy(str(world.store._url.database), home / "cancellations.db")
    command = [sys.executable, "-m", "deployments.start", "serve", "--home", str(home), "--port", "0"]
    known = {"CANCELLATIONS_AS_OF": str(TODAY), "CANCELLATIONS_MLFLOW_TRACKING_URI": world.registry._uri}
    with running(command, log, environment(**known, **given)) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split("serving on ")[1].split(" ")[0]
        until(lambda: (a := answer(f"{address}/ready")) and a.status_code == 200, "it was not ready")
        own = World(open_store(f"sqlite:///{home / 'cancellations.db'}"), world.registry)
        yield Server(address, process, own, log)
        own.store.close()


def test_a_server_answers_follows_a_promotion_and_records_all_before_it_ends(challenged: World, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "order-7"}
    with serving_process(challenged, tmp_path, CANCELLATIONS_API__TOKEN=TOKEN) as server:
        address, process, other, log = server.address, server.process, server.world, server.log
        first = httpx.post(f"{address}/predict", json=told(20), headers=headers, trust_env=False)
        assert {p["version"] for p in first.json()["predictions"]} == {"1", "2"}
        other.promote("2", SECOND)
        ready = f"{address}/ready"
        until(
            lambda: (a := answer(ready, headers=headers)) and a.json()["champion"] == "2",
            "the promotion was not followed",
        )
        last = httpx.post(f"{address}/predict", json=told(30), headers=headers, trust_env=False)
        assert {p["version"] for p in last.json()["predictions"]} == {"2"}
        everybody = [psutil.Process(process.pid), *server.children]
        assert TOKEN not in " ".join(" ".join(p.cmdline()) for p in everybody)
        server.stop()
        recorded = other.predictions("2")
    for told_ in last.json()["predictions"]:
        assert recorded[told_["reservation_id"]] == told_["probability"]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"request", "serving"} <= {line["event"] for line in lines}
    own = [line for line in lines if line.get("request_id") == "order-7" and line["path"] == "/predict"]
    assert [(line["status"], line["reservations"], line["caller"]) for line in own] == [
        (200, n, "token") for n in (20, 30)
    ]
    assert TOKEN not in log.read_text()


def test_a_recorder_that_dies_is_replaced_and_nothing_is_recorded_twice_or_lost(trained: World, tmp_path: Path) -> None:
    with serving_process(trained, tmp_path) as server:
        server.post(told(10))
        until(lambda: server.measure("recorded_total") == 10, "the first were not recorded")
        for child in server.children:
            child.kill()
        answers = server.post(told(30)).json()["predictions"]
        until(lambda: server.measure("recorded_total") == 30, "those after the kill were not recorded")
        assert server.measure("unrecorded") == 0 and server.measure("dropped_total") == 0
        server.stop()
        recorded = server.world.predictions("1")
    assert {a["reservation_id"]: a["probability"] for a in answers} == recorded.to_dict()


# --- more than it can bear --------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_at_twice_its_capacity_it_answers_or_refuses_and_is_well_afterwards(
    trained: World, tmp_path: Path, seconds: float
) -> None:
    [row], numbers = told(1)["reservations"], itertools.count()

    def bodies(count: float) -> list[bytes]:
        named = ({**row, "reservation_id": f"asked-{next(numbers)}"} for _ in range(int(count)))
        return [json.dumps({"reservations": [booking]}).encode() for booking in named]

    with serving_process(trained, tmp_path, CANCELLATIONS_API__REQUESTS_PER_SECOND="1000000") as server:
        predict = f"{server.address}/predict"
        before = closed(predict, bodies(20_000), 8, 2.0)
        assert set(before.counts) == {200}
        rate = 2 * before.rate
        under = open_loop(predict, bodies(rate * seconds), rate, seconds)
        # All connections wait for once where the machine gives the server nothing for a second; none is cut.
        assert {200, 503} <= set(under.counts) <= {200, 503, UNASKED} and under.without_patience == 0, under.counts
        assert under.counts.get(UNASKED, 0) < 0.05 * len(under.statuses), under.counts
        after = closed(predict, bodies(20_000), 8, 2.0)
        assert set(after.counts) == {200}
        assert httpx.get(f"{server.address}/ready", trust_env=False).json()["ready"]
        given = sum(len(answers.answered) for answers in (before, under, after))
        assert server.measure("predictions_total") == given
        server.stop()
        # Each that was answered is recorded, and none that was not.
        assert len(server.world.predictions("1")) == given


def test_connections_that_ask_nothing_are_closed_and_too_many_are_refused_with_the_time_to_wait(
    trained: World, tmp_path: Path
) -> None:
    limits = {"CANCELLATIONS_API__CONNECTIONS": "4", "CANCELLATIONS_API__TIMEOUT_SECONDS": "3"}
    with serving_process(trained, tmp_path, **limits) as server:
        place = urlsplit(server.address)
        idle = [socket.create_connection((place.hostname, place.port), PATIENCE) for _ in range(4)]
        for late in idle[:2]:
            late.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        refused = server.post(told(1))
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"] == "4 connections are open" and refused.headers["connection"] == "close"
        # The server hangs up, on those that began and did not end, too.
        assert [late.recv(1_000) for late in idle] == [b""] * 4
        for late in idle:
            late.close()
        assert server.post(told(1)).status_code == 200


@pytest.mark.long
def test_mlflows_own_server_gives_the_same_answers(trained: World, tmp_path: Path) -> None:
    trained.registry.set_alias("champion", "1")
    rows = trained.registry.reference("1").drop(columns="label").head(20)
    records = json.loads(rows.to_json(orient="records"))
    port = _free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/cancellations@champion"),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    address = f"http://127.0.0.1:{port}"
    with running(command, tmp_path / "mlflow.log", environment(MLFLOW_TRACKING_URI=trained.registry._uri)):
        until(lambda: (a := answer(f"{address}/ping")) and a.status_code == 200, (tmp_path / "mlflow.log").read_text())
        found = httpx.post(f"{address}/invocations", json={"dataframe_records": records}, trust_env=False).json()
    probability = np.array(found["predictions"])
    expected = trained.registry.load("1").predict(rows)
    np.testing.assert_allclose(probability[:, 1] if probability.ndim == 2 else probability, expected, atol=1e-12)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_server_that_others_could_reach_is_not_started_without_a_token(tmp_path: Path) -> None:
    home = tmp_path / "home"
    homes.prepare(home)
    command = [
        sys.executable,
        "-m",
        "deployments.start",
        "serve",
        "--home",
        str(home),
        "--host",
        "0.0.0.0",
        "--port",
        "0",
    ]
    refused = subprocess.run(
        command, cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith("cancellations: 0.0.0.0 can be reached by others") and "CANCELLATIONS_API__TOKEN" in line
