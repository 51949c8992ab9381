"""The API as a process: it starts, answers, follows a promotion, records all before it ends; MLflow's own server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from test_api import PATIENCE, TOKEN, told
from test_serve import TODAY
from world import SECOND, World

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


def test_a_server_answers_follows_a_promotion_and_records_all_before_it_ends(challenged: World, tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "serve.log"
    homes.prepare(home)
    shutil.copy(str(challenged.store._url.database), home / "cancellations.db")
    other = World(open_store(f"sqlite:///{home / 'cancellations.db'}"), challenged.registry)
    command = [sys.executable, "-m", "deployments.start", "serve", "--home", str(home), "--port", "0"]
    given = environment(
        CANCELLATIONS_AS_OF=str(TODAY),
        CANCELLATIONS_MLFLOW_TRACKING_URI=challenged.registry._uri,
        CANCELLATIONS_API__TOKEN=TOKEN,
    )
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "order-7"}
    with running(command, log, given) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split("serving on ")[1].split(" ")[0]
        until(lambda: (a := answer(f"{address}/ready")) and a.status_code == 200, "it was not ready")
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
        children = psutil.Process(process.pid).children(recursive=True)
        assert TOKEN not in " ".join(" ".join(p.cmdline()) for p in [psutil.Process(process.pid), *children])
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0 and "stopped" in process.stdout.read()
        gone, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert len(gone) >= 1 and alive == []
    recorded = other.predictions("2")
    for told_ in last.json()["predictions"]:
        assert recorded[told_["reservation_id"]] == told_["probability"]
    other.store.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"request", "serving"} <= {line["event"] for line in lines}
    own = [line for line in lines if line.get("request_id") == "order-7" and line["path"] == "/predict"]
    assert [(line["status"], line["reservations"], line["caller"]) for line in own] == [
        (200, n, "token") for n in (20, 30)
    ]
    assert TOKEN not in log.read_text()


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
    import socket

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
