"""The services of docker-compose.yaml as processes: their own commands, environments and secrets.

What containers would give them is put in its place: names of hosts and ports become those of this machine, paths those
of a folder, PostgreSQL is the system's, with the passwords and the script that the image would read, and the project's
own mailbox stands for Mailpit, which is no Python program.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deployments" / "Dockerfile").read_text()
# A busy machine is no failure.
START_SECONDS, JOB_SECONDS = 300.0, 420.0
# Ports that services listen on in their containers.
PORTS = {"postgres": 5432, "prefect-server": 4200, "mlflow": 5000, "mailpit": 1025, "worker": 8080, "api": 8000}
ONCE = ("migrations", "pool", "deploy", "demo")
# Root and project are read-only, as in a container, but for the places that follow; no capability is left.
LOCKED = """
set -e
mount --bind "$PROJECT" "$PROJECT"
for place in $PLACES; do mount --bind "$place" "$place"; done
mount -o remount,bind,ro "$PROJECT"
mount -o remount,bind,ro /
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""


def entrypoint() -> list[str]:
    """What the image puts in front of each command."""
    [line] = re.findall(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)
    return list(yaml.safe_load(line))


def image_environment() -> dict[str, str]:
    """The image's own variables, but for those that name its folders."""
    [block] = re.findall(r"^ENV PATH=((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    pairs = (part.split("=", 1) for part in block.replace("\\\n", " ").split()[1:])
    return dict(pairs)


@cache
def may_lock() -> bool:
    """Whether this user may have a view of the file system of its own: root, where no sandbox forbids it."""
    tried = ["unshare", "--mount", "--propagation", "private", "setpriv", "--bounding-set=-all", "true"]
    return os.geteuid() == 0 and subprocess.run(tried, capture_output=True).returncode == 0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Composed:
    """The stack in a folder; `given` are variables that all of our own services get beside their own."""

    def __init__(self, folder: Path, given: Mapping[str, str], binaries: Path, database: Path) -> None:
        self.folder = folder
        self._binaries, self._postgres = binaries, database
        self.given = dict(given)
        self.ports = {name: free_port() for name in PORTS}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.secrets = folder / "secrets"
        for name in ("data", "artifacts", "incoming", "home", "tmp", "outbox", "logs"):
            (folder / name).mkdir()
        subprocess.run(["sh", str(ROOT / "deployments" / "secrets.sh"), str(self.secrets)], check=True)
        self._auth = folder / "mlflow-auth.ini"
        self._auth.write_text(self.here((ROOT / "deployments" / "mlflow-auth.ini").read_text()))

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    # --- from containers to this machine -----------------------------------------------------------

    def here(self, text: str) -> str:
        """A value of the compose file, with what it names where it is here."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")
        for name, port in PORTS.items():
            text = re.sub(rf"(?<![\w.-]){name}:{port}\b", f"127.0.0.1:{self.ports[name]}", text)
            text = re.sub(rf"(?<!\d)127\.0\.0\.1:{port}\b", f"127.0.0.1:{self.ports[name]}", text)
            text = re.sub(rf"^(--port=)?{port}$", rf"\g<1>{self.ports[name]}", text)
        text = text.replace("0.0.0.0", "127.0.0.1")
        text = text.replace("/app/deployments/mlflow-auth.ini", str(getattr(self, "_auth", "")))
        text = text.replace("/run/secrets", str(self.secrets)).replace("/home/app", str(self.folder / "home"))
        for place in ("data", "artifacts", "incoming"):
            text = re.sub(rf"(?<![\w.])/{place}(?![\w-])", str(self.folder / place), text)
        return "127.0.0.1" if text == "mailpit" else re.sub(r"(?<![\w.])/app(?![\w-])", str(ROOT), text)

    def command(self, name: str) -> list[str]:
        plain = [self.here(word) for word in (*entrypoint(), *SERVICES[name]["command"])]
        plain = [word.replace(str(self.secrets), str(self._mounted(name))) for word in plain]
        if not may_lock():
            return plain
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", LOCKED, "locked", *plain]

    def _places(self, name: str) -> list[str]:
        """Where a service may write: its volumes, and what compose keeps in memory for it."""
        mounted = [volume.split(":") for volume in SERVICES[name].get("volumes", [])]
        volumes = [parts[1] for parts in mounted if parts[-1] != "ro"]
        memory = [place.partition(":")[0] for place in SERVICES[name]["tmpfs"]]
        assert set(memory) == {"/tmp", "/home/app"}
        return [str(self.folder / "tmp"), *(self.here(place) for place in (*volumes, "/home/app"))]

    def _mounted(self, name: str) -> Path:
        """The secrets that a service may see: those that compose mounts for it, and no other."""
        seen = self.folder / "mounted" / name
        if not seen.exists():
            seen.mkdir(parents=True)
            for secret in SERVICES[name].get("secrets", []):
                (seen / secret).symlink_to(self.secrets / secret)
        return seen

    def environment(self, name: str) -> dict[str, str]:
        """What a container's environment would be: nothing of ours but what compose, image and system say."""
        seen = self._mounted(name)
        given = image_environment() | SERVICES[name].get("environment", {})
        own = {n: self.here(v).replace(str(self.secrets), str(seen)) for n, v in given.items()}
        ours = self.given if any(n.startswith("CANCELLATIONS_D") for n in own) else {}
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "SECRETS_FOLDER": str(seen),
            "PROJECT": str(ROOT),
            "PLACES": " ".join(self._places(name)),
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1",
            **own,
            **ours,
        }

    # --- processes ----------------------------------------------------------------------------------

    def run(self, name: str) -> str:
        """A one-shot job to its end; returns what it said."""
        log = self.folder / "logs" / f"{name}.log"
        self._begin(name)
        # As a process of the stack until it has ended: whatever goes wrong, `end` finds it.
        code = self.processes[name].wait(JOB_SECONDS)
        del self.processes[name]
        assert code == 0, f"{name}: {log.read_text()[-3000:]}"
        return log.read_text()

    def execute(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in a service that is up, past the image's entry point, as `docker compose exec` does it."""
        environment = self.environment(name)
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=JOB_SECONDS)

    def _begin(self, name: str) -> None:
        with (self.folder / "logs" / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                cwd=ROOT,
                env=self.environment(name),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def start(self, *names: str) -> None:
        """Starts services side by side, and returns when their own health checks say that they are well."""
        for name in names:
            self._begin(name)
        for name in names:
            self._until(name, lambda name=name: self.healthy(name))

    def healthy(self, name: str) -> bool:
        """What the health check of compose would say now."""
        kind, *test = (self.here(word) for word in SERVICES[name]["healthcheck"]["test"])
        assert kind == "CMD"
        asked = subprocess.run(test, cwd=ROOT, env=self.environment(name), capture_output=True, timeout=30)
        return asked.returncode == 0

    def _until(self, name: str, well: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not well():
            said = (self.folder / "logs" / f"{name}.log").read_text()[-3000:]
            assert self.processes[name].poll() is None, f"{name} has ended: {said}"
            assert time.monotonic() < deadline, f"{name} is not well after {START_SECONDS:.0f} s: {said}"
            time.sleep(0.3)

    def stop(self, name: str) -> float:
        """Sends a service its stop signal, as compose does, and returns how long it took to end."""
        process = self.processes.pop(name)
        grace = float(str(SERVICES[name].get("stop_grace_period", "10s")).removesuffix("s"))
        began = time.monotonic()
        process.send_signal(signal.Signals[SERVICES[name].get("stop_signal", "SIGTERM")])
        process.wait(grace)
        return time.monotonic() - began

    def end(self) -> None:
        """Ends whatever runs, with all that it has started."""
        for process in reversed(self.processes.values()):
            tree: list[psutil.Process] = []
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                tree = [root, *root.children(recursive=True)]
            for one in tree:
                with suppress(psutil.NoSuchProcess):
                    one.terminate()
            for one in psutil.wait_procs(tree, 15)[1]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()

    # --- what no command of the compose file starts --------------------------------------------------

    def start_postgres(self) -> None:
        """As the image's entry point does: a cluster with the superuser's password from its file, then our script."""
        user = "postgres" if os.geteuid() == 0 else None  # root is what PostgreSQL refuses to be
        service = SERVICES["postgres"]
        data, mounted = self._postgres / "data", self._postgres / "secrets"
        mounted.mkdir()
        for secret in service["secrets"]:
            shutil.copy(self.secrets / secret, mounted)
        if user is not None:
            for path in (self._postgres, mounted, *mounted.iterdir()):
                shutil.chown(path, user)
        arguments = service["environment"]["POSTGRES_INITDB_ARGS"]
        if user is None:
            # The image's socket knows whoever is the system's user postgres.
            arguments = arguments.replace("--auth-local=peer", "--auth-local=trust")
        superuser = service["environment"]["POSTGRES_USER"]
        first = [f"--username={superuser}", f"--pwfile={mounted / 'postgres_password'}", *arguments.split()]
        subprocess.run(
            [self._binaries / "initdb", "-D", data, *first],
            check=True,
            user=user,
            cwd=self._postgres,
            stdout=subprocess.DEVNULL,
        )
        port = self.ports["postgres"]
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self._postgres), "fsync": "off"}
        with (self.folder / "logs" / "postgres.log").open("ab") as out:
            self.processes["postgres"] = subprocess.Popen(
                [self._binaries / "postgres", "-D", data, "-p", str(port), *(f"--{n}={v}" for n, v in options.items())],
                user=user,
                cwd=self._postgres,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        path = os.pathsep.join([str(self._binaries), os.environ["PATH"]])
        test = [self.here(word) for word in service["healthcheck"]["test"][1:]]
        self._until(
            "postgres", lambda: subprocess.run(test, env={"PATH": path}, stdout=subprocess.DEVNULL).returncode == 0
        )
        environment = {
            "PATH": path,
            "PGHOST": str(self._postgres),
            "PGPORT": str(port),
            "POSTGRES_USER": superuser,
            "SECRETS_FOLDER": str(mounted),
        }
        script = (ROOT / "deployments" / "postgres-init.sh").read_text()
        subprocess.run(["sh"], input=script, text=True, check=True, user=user, cwd=self._postgres, env=environment)

    def dump(self, name: str) -> str:
        """All rows of a database, as SQL."""
        environment = {"PGPASSWORD": self.secret(f"{name}_database")}
        where = ["--host=127.0.0.1", f"--port={self.ports['postgres']}", f"--username={name}", name]
        command = [self._binaries / "pg_dump", "--inserts", "--data-only", *where]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def start_mailbox(self) -> None:
        where = ["--host", "127.0.0.1", "--port", str(self.ports["mailpit"]), "--folder", str(self.folder / "outbox")]
        with (self.folder / "logs" / "mailpit.log").open("ab") as out:
            self.processes["mailpit"] = subprocess.Popen(
                [sys.executable, "-m", "deployments.mailbox", *where], cwd=ROOT, stdout=out, stderr=out
            )

        def listens() -> bool:
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", self.ports["mailpit"])) == 0

        self._until("mailpit", listens)


def postgres_binaries() -> Path | None:
    """A PostgreSQL of the system with the extension that Prefect needs; the wheel of the other tests lacks it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    with_extension = [
        path.parent
        for path in found
        if Path(f"/usr/share/postgresql/{path.parts[-3]}/extension/pg_trgm.control").exists()
    ]
    return with_extension[-1] if with_extension else None


@contextmanager
def composed(folder: Path, given: Mapping[str, str] | None = None) -> Iterator[Composed]:
    """A stack that runs nothing yet; whatever runs at the end is ended."""
    binaries = postgres_binaries()
    if binaries is None:
        missing = "there is no PostgreSQL with its extensions here; on Debian: apt-get install postgresql"
        if os.environ.get("CANCELLATIONS_REQUIRE_POSTGRES") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    # Beside pytest's folders, which another user than ours cannot enter.
    database = Path(tempfile.mkdtemp(prefix="cancellations-compose-"))
    try:
        stack = Composed(folder, given or {}, binaries, database)
        try:
            yield stack
        finally:
            stack.end()
    finally:
        shutil.rmtree(database, ignore_errors=True)
