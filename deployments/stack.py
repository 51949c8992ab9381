"""The embedded stack: Prefect server and worker, MLflow UI and a mailbox, as child processes.

    with Stack(home, project, say=print) as stack:
        ...  # stack.prefect_api, stack.environment

Each child runs under a keeper (`keeper.py`) in a session of its own, writes to `logs/` of the home
and ends with this process, also when that is killed. Everything listens on 127.0.0.1.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import httpx
import psutil

from cancellations import home as homes
from cancellations.errors import BadInput, ServiceDown
from deployments import keeper

HOST = "127.0.0.1"
POOL = "cancellations"
START_SECONDS = 60.0  # a slow disk and a first database take a fifth of it
PORT_ATTEMPTS = 3  # somebody else may take a free port between our choice and the child's bind
LOG_LINES = 15
RUNS_AT_ONCE = 4  # flow runs are processes of some 300 MB; late ones take their turn

# The folder that `python -m deployments.…` works from, installed or not.
ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Child:
    """One process of the stack. `port_option` is set when the user chose the port."""

    name: str
    command: Callable[[int], list[str]]
    ready: Callable[[Child], bool]
    folder: Path
    log: Path
    port: int = 0
    port_option: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, environment: Mapping[str, str], lock: int) -> None:
        """Starts the command. Its keeper holds the home's lock too, until everything has ended."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", keeper.__file__, *self.command(self.port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=dict(environment),
                pass_fds=(lock,),
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs or before it was started."""
        return None if self.process is None else self.process.poll()

    def release(self) -> None:
        """Tells the keeper to stop; returns at once."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()

    def wait(self) -> None:
        """Waits for the keeper, which ends last; kills the whole tree when even that one hangs."""
        if self.process is None:
            return
        try:
            self.process.wait(keeper.GRACE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            with suppress(psutil.NoSuchProcess):
                me = psutil.Process(self.process.pid)
                for process in (*me.children(recursive=True), me):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            self.process.wait()
        self.process = None

    def down(self, what: str) -> ServiceDown:
        """The error of a child that failed, with the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        told = "".join(f"\n    {line}" for line in lines) or "\n    (nothing)"
        return ServiceDown(f"{self.name} {what}. The last lines of its log {self.log}:{told}")


class Stack:
    """The embedded stack of one home; a context manager.

    `project` is the folder whose `prefect.yaml` is deployed and from which flows run; `say` gets a
    line of progress; `schedules` makes the deployments' schedules active; `fresh` empties the home
    first; without `mailbox` mails leave by the settings' own SMTP server. The ports of the two UIs may
    be fixed, the others are free ones.

    `start()` raises `BadInput` (home or port cannot be used), `Refused` (another stack holds the
    home) or `ServiceDown` (a child did not come up: which, its exit code, its log); nothing is left
    running then.
    """

    def __init__(
        self,
        home: Path,
        project: Path,
        say: Callable[[str], None],
        schedules: bool = False,
        *,
        fresh: bool = False,
        mailbox: bool = True,
        prefect_port: int | None = None,
        mlflow_port: int | None = None,
    ) -> None:
        self.home = home.absolute()
        self.project = project.absolute()
        self.say = say
        self.schedules = schedules
        self.fresh = fresh
        self._cleanup = ExitStack()
        self._lock = -1
        self._worker_name = f"embedded-{uuid.uuid4().hex[:8]}"
        self._server = self._child(
            "prefect-server", _prefect_server, _prefect_ready, fixed=prefect_port, option="--prefect-port"
        )
        self._mlflow = self._child(
            "mlflow", self._mlflow_server, _mlflow_ready, fixed=mlflow_port, option="--mlflow-port"
        )
        self._mailbox = self._child("mailbox", self._mailbox_server, _mailbox_ready, folder=ROOT)
        self._services = [self._server, self._mlflow, *([self._mailbox] if mailbox else [])]
        self._worker = self._child("prefect-worker", self._process_worker, self._worker_ready, folder=self.project)
        self._deploy = self._child("deploy", _deploy, _done, folder=self.project)

    @property
    def prefect_ui(self) -> str:
        return f"http://{HOST}:{self._server.port}"

    @property
    def prefect_api(self) -> str:
        return f"{self.prefect_ui}/api"

    @property
    def mlflow_ui(self) -> str:
        return f"http://{HOST}:{self._mlflow.port}"

    @property
    def smtp_port(self) -> int:
        return self._mailbox.port

    @property
    def environment(self) -> dict[str, str]:
        """What flow runs, and whoever talks to this stack, need in their environment."""
        direct = ",".join(filter(None, (os.environ.get("NO_PROXY", os.environ.get("no_proxy")), HOST, "localhost")))
        mail = {
            "CANCELLATIONS_MAIL__HOST": HOST,
            "CANCELLATIONS_MAIL__PORT": str(self.smtp_port),
            "CANCELLATIONS_MAIL__SECURITY": "none",
        }
        return {
            **(mail if self._mailbox in self._services else {}),
            "CANCELLATIONS_HOME": str(self.home),
            "CANCELLATIONS_PROJECT": str(self.project),
            "CANCELLATIONS_SCHEDULES": str(self.schedules).lower(),
            "CANCELLATIONS_PREFECT_UI": self.prefect_ui,
            "CANCELLATIONS_MLFLOW_UI": self.mlflow_ui,
            "PREFECT_API_URL": self.prefect_api,
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            # A run that waits for another of its deployment to end looks again after this, not after 30 s.
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
            "PREFECT_CLI_COLORS": "false",
            "PREFECT_CLI_WRAP_LINES": "false",
            "PREFECT_LOGGING_COLORS": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2))),
            # A proxy of the user's is not for the addresses above.
            "NO_PROXY": direct,
            "no_proxy": direct,
        }

    def start(self) -> None:
        """Starts everything, deploys the project and returns when a flow run could start."""
        began = time.monotonic()
        try:
            self._on_sigterm()
            homes.prepare(self.home)
            self._lock = self._cleanup.enter_context(homes.lock(self.home))
            if self.fresh:
                homes.fresh(self.home)
            for child in self._services:
                _choose_port(child)
            for log in (self.home / "logs").iterdir():
                log.unlink()
            self.say(f"starting {', '.join(child.name for child in self._services)} …")
            self._start(*self._services, movable=True)
            self._bury()
            self.say(f"deploying {self.project / 'prefect.yaml'} …")
            # One after the other: a worker that finds a pile of late runs would keep the server from deploying.
            self._start(self._deploy)
            self._deploy.wait()
            self._start(self._worker)
            self.check()
        except BaseException:
            self.stop()
            raise
        took = time.monotonic() - began
        self.say(f"stack ready after {took:.1f} s: Prefect {self.prefect_ui}, MLflow {self.mlflow_ui}")

    def stop(self) -> None:
        """Ends every process of the stack, flow runs and worker first; may be called again.

        An interruption meanwhile only skips the order: all keepers are told and waited for.
        """
        children = (self._deploy, self._worker, *self._services)
        running = any(child.process is not None for child in children)
        began = time.monotonic()
        try:
            for child in (self._deploy, self._worker):
                child.release()
                child.wait()
        finally:
            for child in children:
                child.release()
            for child in children:
                child.wait()
            self._cleanup.close()
        if running:
            self.say(f"stack stopped after {time.monotonic() - began:.1f} s")

    def stop_server(self) -> None:
        """Ends the Prefect server alone."""
        self._server.release()
        self._server.wait()

    def start_server(self) -> None:
        """Starts the Prefect server again, on its port; raises `ServiceDown`."""
        self._start(self._server)

    def stop_worker(self) -> None:
        """Ends the worker alone, with the flow runs that it has begun."""
        self._worker.release()
        self._worker.wait()

    def start_worker(self) -> None:
        """Starts the worker again; raises `ServiceDown`."""
        self._start(self._worker)

    def check(self) -> None:
        """Raises `ServiceDown` when a child that should run has ended."""
        for child in (*self._services, self._worker):
            if child.code is not None:
                raise child.down(f"has ended with exit code {child.code}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _child(
        self,
        name: str,
        command: Callable[[int], list[str]],
        ready: Callable[[Child], bool],
        *,
        folder: Path | None = None,
        fixed: int | None = None,
        option: str = "",
    ) -> Child:
        return Child(
            name,
            command,
            ready,
            folder=folder or self.home,
            log=self.home / "logs" / f"{name}.log",
            port=fixed or 0,
            port_option=option if fixed else "",
        )

    def _start(self, *children: Child, movable: bool = False) -> None:
        """Starts children side by side and returns when each is ready.

        A `movable` one whose port was lost to another program gets another.
        """
        environment = self._inherited() | self.environment
        for child in children:
            child.start(environment, self._lock)
        deadline = time.monotonic() + START_SECONDS
        attempts = dict.fromkeys((child.name for child in children), 1)
        waiting = list(children)
        while waiting:
            for child in list(waiting):
                if child.ready(child):
                    waiting.remove(child)
                elif child.code is not None:
                    lost = movable and child.port and not child.port_option and not _is_free(child.port)
                    if not lost or attempts[child.name] == PORT_ATTEMPTS:
                        raise child.down(f"ended with exit code {child.code} before it was ready")
                    attempts[child.name] += 1
                    child.port = 0
                    _choose_port(child)
                    child.start(environment, self._lock)
            if waiting and time.monotonic() > deadline:
                raise waiting[0].down(f"was not ready within {START_SECONDS:.0f} s")
            time.sleep(0.1)

    @staticmethod
    def _inherited() -> dict[str, str]:
        """This process's environment without what would make children slow or talk to other servers."""
        return {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PREFECT_") and name not in ("PYTHONDONTWRITEBYTECODE", "MLFLOW_TRACKING_URI")
        }

    def _bury(self) -> None:
        """Ends runs that an earlier stack of this home left unfinished, as crashed.

        Nobody works on them any more, since we hold the home's lock; unended they would hold their
        deployments' slots for ever. A crashed retrain calls `reconcile`, as any other crash does.
        """
        unfinished = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}
        crashed = {"state": {"type": "CRASHED", "message": "The stack that it ran on has ended."}}
        with httpx.Client(base_url=self.prefect_api, timeout=20, trust_env=False) as client:
            try:
                for run in client.post("/flow_runs/filter", json=unfinished).raise_for_status().json():
                    client.post(f"/flow_runs/{run['id']}/set_state", json=crashed).raise_for_status()
            except httpx.HTTPError as error:
                raise self._server.down(f"did not end the runs of an earlier stack ({error})") from error

    def _worker_ready(self, child: Child) -> bool:
        url = f"{self.prefect_api}/work_pools/{POOL}/workers/filter"
        online = _answer("POST", url, {"workers": {"status": {"any_": ["ONLINE"]}}})
        # A killed worker of an earlier start counts as online for a while; the name tells ours.
        return online is not None and any(w["name"] == self._worker_name for w in online.json())

    def _mlflow_server(self, port: int) -> list[str]:
        store = f"sqlite:///{self.home / 'mlflow.db'}"
        return [
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", store, "--default-artifact-root", str(self.home / "artifacts")),
            "--no-serve-artifacts",
        ]

    def _mailbox_server(self, port: int) -> list[str]:
        folder = str(self.home / "outbox")
        return [sys.executable, "-m", "deployments.mailbox", "--host", HOST, "--port", str(port), "--folder", folder]

    def _process_worker(self, port: int) -> list[str]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        return [*command, "--name", self._worker_name, "--install-policy", "never"]

    def _on_sigterm(self) -> None:
        """SIGTERM leaves the `with` block like an error, so that the children have gone when we go."""
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _exit)
            self._cleanup.callback(signal.signal, signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _prefect_server(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]


def _deploy(port: int) -> list[str]:
    # By its path, from the project's folder: the flows are there, and our own packages maybe not.
    code = f"import runpy; runpy.run_path({str(ROOT / 'deployments' / 'deploying.py')!r}, run_name='__main__')"
    return [sys.executable, "-c", code, POOL]


def _prefect_ready(child: Child) -> bool:
    return _answer("GET", f"http://{HOST}:{child.port}/api/ready") is not None


def _mlflow_ready(child: Child) -> bool:
    return _answer("GET", f"http://{HOST}:{child.port}/health") is not None


def _mailbox_ready(child: Child) -> bool:
    try:
        with socket.create_connection((HOST, child.port), timeout=2) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False


def _done(child: Child) -> bool:
    return child.code == 0


@cache
def _http() -> httpx.Client:
    """One client for all polls, because making one costs more than a poll; never through a proxy."""
    return httpx.Client(trust_env=False, timeout=5)


def _answer(method: str, url: str, json: object = None) -> httpx.Response | None:
    """The answer of a server of ours, None when there is none or an error."""
    try:
        answer = _http().request(method, url, json=json)
        return answer if answer.is_success else None
    except httpx.HTTPError:
        return None


def _choose_port(child: Child) -> None:
    if child.port_option:
        if not _is_free(child.port):
            raise BadInput(
                f"port {child.port} for {child.name} is taken by another program. Stop it, choose another port with"
                f" {child.port_option}, or leave the option out for a free one."
            )
    elif not child.port:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            child.port = probe.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do, so that connections of an ended server that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
