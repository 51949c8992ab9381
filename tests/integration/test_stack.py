"""The embedded stack, for real: it comes up, says why when it does not, and leaves nothing behind."""

from __future__ import annotations

import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from once import Once

from cancellations.errors import BadInput, Refused, ServiceDown
from deployments import keeper
from deployments.stack import POOL, ROOT, Stack

PREFECT_YAML = """
name: tiny
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $CANCELLATIONS_PROJECT }}"
deployments:
  - name: tiny
    entrypoint: tiny.py:tiny
    work_pool: {name: cancellations}
    schedules:
      - {slug: nightly, cron: "0 3 * * *", timezone: UTC, active: "{{ $CANCELLATIONS_SCHEDULES }}"}
  - name: yearly
    entrypoint: tiny.py:tiny
    work_pool: {name: cancellations}
    schedules:
      - {slug: yearly, cron: "0 3 1 1 *", timezone: UTC, active: true, parameters: {started: nowhere}}
"""
TINY = """
import os
import time
from pathlib import Path

from prefect import flow


@flow
def tiny(started: str) -> None:
    Path(started).write_text(os.environ["CANCELLATIONS_HOME"])
    time.sleep(600)
"""
# Another process, because its killing is the test. It prints its stack's addresses when it is up.
HOLD = """
import json, signal, sys
from pathlib import Path
from deployments.stack import Stack

# A shell that started us with `&` made us ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
home, project = map(Path, sys.argv[1:])
with Stack(home, project, say=lambda line: print("#", line, flush=True)) as stack:
    print(stack.prefect_api, stack.prefect_ui, stack.mlflow_ui, stack.smtp_port, flush=True)
    signal.pause()
"""
PATIENCE = 60.0


def until(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "prefect.yaml").write_text(PREFECT_YAML)
    (folder / "tiny.py").write_text(TINY)
    return folder


@pytest.fixture
def holder(tmp_path: Path, project: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that starts a stack on `tmp_path/home` and holds it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "home"), str(project)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield process
        process.terminate()


def planned(api: str, deployment: str) -> list[object]:
    """Runs that a schedule has made for later."""
    wanted = {
        "deployments": {"name": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    found: list[object] = httpx.post(f"{api}/flow_runs/filter", json=wanted).raise_for_status().json()
    return found


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=keeper.GRACE_SECONDS + 5)
    assert alive == []


def test_everything_is_ready_one_stack_holds_a_home_and_a_kill_leaves_no_process(
    tmp_path: Path, project: Path, holder: subprocess.Popen[str]
) -> None:
    assert holder.stdout is not None
    addresses = next(line for line in holder.stdout if not line.startswith("#"))
    api, prefect_ui, mlflow_ui, smtp_port = addresses.split()
    home = tmp_path / "home"

    assert httpx.get(prefect_ui).is_success
    assert httpx.get(mlflow_ui).is_success
    with smtplib.SMTP("127.0.0.1", int(smtp_port)) as smtp:
        smtp.sendmail("a@localhost", ["b@localhost"], "Subject: hello\n\nyou")
    assert len(list((home / "outbox").glob("*.eml"))) == 1
    deployment = httpx.get(f"{api}/deployments/name/tiny/tiny").json()
    assert deployment["work_pool_name"] == POOL
    assert [s["active"] for s in deployment["schedules"]] == [False]
    # The server's scheduler has stopped working before with a library that nothing else minded.
    until(lambda: planned(api, "yearly"), "an active schedule made no run")
    assert not planned(api, "tiny")

    with pytest.raises(Refused, match=f"in use by process {holder.pid}"):
        Stack(home, project, say=print).start()

    # The worker runs what is asked of it, and its flow run is among the processes that must go.
    started = tmp_path / "started"
    parameters = {"started": str(started)}
    run = httpx.post(f"{api}/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters})
    assert run.is_success
    until(lambda: started.is_file() and started.read_text() == str(home), "the flow run did not start")

    left = descendants(holder)
    assert len(left) >= 4 * 2 + 1  # keepers and what they keep, and the flow run
    holder.kill()
    assert_gone(left)

    # The next stack of this home ends what nobody works on any more, or its slot would stay taken.
    with Stack(home, project, say=print) as stack:
        after = httpx.get(f"{stack.prefect_api}/flow_runs/{run.json()['id']}").json()
    assert after["state_type"] == "CRASHED"


@pytest.mark.parametrize("signals", [["SIGINT"], ["SIGTERM"], ["SIGINT", "SIGINT"]], ids="-".join)
def test_an_interrupted_start_leaves_no_process(
    tmp_path: Path, holder: subprocess.Popen[str], signals: list[str]
) -> None:
    until(lambda: (tmp_path / "home" / "logs" / "mlflow.log").is_file(), "MLflow was not started")
    left = descendants(holder)
    for name in signals:
        holder.send_signal(signal.Signals[name])
    assert holder.wait(PATIENCE) != 0
    assert_gone(left)


def test_a_child_that_cannot_start_is_named_with_its_log_and_the_others_end(
    tmp_path: Path, project: Path, once: Once
) -> None:
    home = once.home(tmp_path / "home")
    (home / "mlflow.db").write_text("not a database, and long enough for SQLite to see that")
    others = psutil.Process().children()  # of other tests' fixtures
    with pytest.raises(ServiceDown, match=r"mlflow ended with exit code \d+.*(?s:.*)logs/mlflow\.log") as caught:
        Stack(home, project, say=print).start()
    assert "file is not a database" in str(caught.value)
    assert psutil.Process().children() == others


def test_a_fixed_port_that_is_taken_is_refused_by_its_option(tmp_path: Path, project: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} for prefect-server is taken.*--prefect-port"):
            Stack(tmp_path / "home", project, say=print, prefect_port=port).start()
        with pytest.raises(BadInput, match=f"port {port} for mlflow is taken.*--mlflow-port"):
            Stack(tmp_path / "home", project, say=print, mlflow_port=port).start()


def keep(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", keeper.__file__, sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("sys.exit(0)", 0)])
def test_a_keeper_ends_with_its_command_and_tells_how_that_ended(end: str, code: int) -> None:
    with keep(f"import os, sys; {end}") as process:
        assert process.wait(PATIENCE) == code


# A daemon: its parent ends at once, and it has a session of its own.
DAEMON = """
import subprocess, sys, time
inner = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
inner += " start_new_session=True).pid, flush=True)"
subprocess.run([sys.executable, "-c", inner], check=True)
{then}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
@pytest.mark.parametrize("then", ["time.sleep(600)", "sys.exit(3)"], ids=["released", "command ended"])
def test_a_keeper_ends_orphans_in_other_sessions_too(then: str) -> None:
    with keep(DAEMON.format(then=then)) as process:
        assert process.stdout is not None and process.stdin is not None
        daemon = int(process.stdout.readline())
        process.stdin.close()
        process.wait(PATIENCE)
        assert not psutil.pid_exists(daemon)
