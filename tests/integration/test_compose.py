"""docker-compose.yaml: what a person relies on before the first `up`. A Docker engine is not needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_every_part_of_the_stack_is_a_service() -> None:
    assert set(SERVICES) == {"postgres", "prefect-server", "mlflow", "mailpit", "init", "worker", "api"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_or_runs_once(name: str) -> None:
    service = SERVICES[name]
    once = service["restart"] == "no"
    assert once != ("healthcheck" in service)
    assert once or service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs_until_that_is_ready(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        once = SERVICES[needed]["restart"] == "no"
        assert how == {"condition": "service_completed_successfully" if once else "service_healthy"}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    assert re.search(r":v?\d+\.\d+", SERVICES[name]["image"])


def test_base_images_of_the_dockerfile_are_pinned_and_it_does_not_run_as_root() -> None:
    text = (ROOT / "deployments" / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases and all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] not in ("root", "0")
    assert "--require-hashes -r requirements.lock" in text


@pytest.mark.parametrize("name", SERVICES)
def test_what_outlives_a_container_lies_on_a_declared_volume(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert source.startswith((".", "$")) or source in COMPOSE["volumes"]


def test_no_password_is_committed() -> None:
    text = (ROOT / "docker-compose.yaml").read_text()
    for secret in ("PASSWORD", "TOKEN"):
        mentioned = re.findall(rf"\$\{{\w*{secret}[^}}]*\}}", text)
        assert mentioned and all(":?" in m for m in mentioned)
    assert not re.findall(r"://[^:/\s]+:(?!\$\{)[^@\s]+@", text)


def test_every_file_that_is_mounted_is_there() -> None:
    mounted = [v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if v.startswith("./")]
    assert mounted and all((ROOT / path).is_file() for path in mounted)


def command() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return None


def config(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    compose = command()
    if compose is None:
        pytest.skip("neither docker-compose nor docker compose is installed")
    inherited = {n: v for n, v in os.environ.items() if n not in ("POSTGRES_PASSWORD", "API_TOKEN")}
    # Away from a developer's own .env.
    empty = folder / "empty.env"
    empty.touch()
    return subprocess.run(
        [*compose, "--env-file", str(empty), "--file", "docker-compose.yaml", "config"],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )


def test_compose_accepts_the_file_with_a_password_and_asks_for_one_without(tmp_path: Path) -> None:
    given = config(tmp_path, POSTGRES_PASSWORD="x1", API_TOKEN="x2")
    assert given.returncode == 0, given.stderr
    assert set(yaml.safe_load(given.stdout)["services"]) == set(SERVICES)
    for one in ({"POSTGRES_PASSWORD": "x1"}, {"API_TOKEN": "x2"}):
        missing = config(tmp_path, **one)
        assert missing.returncode != 0
        assert ".env.example" in missing.stderr
