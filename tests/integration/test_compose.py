"""docker-compose.yaml: what a person relies on before the first `up`. A Docker engine is not needed."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import prefect
import pytest
import yaml
from composed import COMPOSE, DOCKERFILE, ONCE, ROOT, SERVICES, entrypoint

from cancellations.settings import SECRETS as FROM_FILES
from deployments import secret_files

NETWORKS = {"postgres": {"database"}, "migrations": {"database"}, "pool": {"services"}, "mailpit": {"services"}}
JSON_LINES = "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER"
# Images that others made.
THEIRS = {"postgres", "mailpit"}
OURS = sorted(set(SERVICES) - THEIRS)


def test_every_part_of_the_stack_is_a_service() -> None:
    servers = {"postgres", "prefect-server", "mlflow", "mailpit", "worker", "api"}
    assert set(SERVICES) == servers | {"migrations", "pool", "deploy", "demo"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_and_started_again_or_runs_once(name: str) -> None:
    service = SERVICES[name]
    watched = "test" in service["healthcheck"]
    assert watched == (name not in ONCE)
    assert service["restart"] == ("unless-stopped" if watched else "no")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs_until_that_is_ready(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_completed_successfully" if needed in ONCE else "service_healthy"}
        # What starts in one profile finds what it waits for in the same.
        assert set(SERVICES[name]["profiles"]) <= set(SERVICES[needed]["profiles"])


def waits_for(name: str) -> set[str]:
    needed = set(SERVICES[name].get("depends_on", {}))
    return needed | {further for one in needed for further in waits_for(one)}


def test_the_order_leads_from_the_database_over_schemas_and_servers_to_what_works_on_them() -> None:
    assert waits_for("prefect-server") == waits_for("mlflow") == {"postgres", "migrations"}
    before = {"postgres", "migrations", "prefect-server", "mlflow", "pool"}
    assert waits_for("deploy") == before
    for last in ("worker", "api", "demo"):
        assert waits_for(last) == before | {"deploy"}


def test_production_is_the_demo_without_mailbox_and_invented_bookings() -> None:
    demo = {name for name, service in SERVICES.items() if "demo" in service["profiles"]}
    core = {name for name, service in SERVICES.items() if "core" in service["profiles"]}
    assert demo == set(SERVICES)
    assert demo - core == {"mailpit", "demo"}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


def test_the_database_is_reached_by_those_who_need_it_and_from_nowhere_else() -> None:
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert "ports" not in SERVICES["postgres"]
    for name, service in SERVICES.items():
        assert set(service["networks"]) == NETWORKS.get(name, {"database", "services"})


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    assert re.search(r":v?\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_no_place_to_write_and_a_limit_to_what_it_takes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] and all(re.search(r":size=\d+[mg],", place) for place in service["tmpfs"])
    assert {"mem_limit", "cpus", "pids_limit"} <= set(service)
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert int(str(service.get("stop_grace_period", "0s")).removesuffix("s")) >= (10 if name == "mailpit" else 30)


def test_no_service_runs_as_root() -> None:
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] not in ("root", "0")
    assert not any("user" in SERVICES[name] for name in OURS)
    assert all(int(SERVICES[name]["user"].partition(":")[0]) > 0 for name in THEIRS)


def test_what_runs_flows_logs_one_json_object_a_line() -> None:
    told = {name for name, one in SERVICES.items() if one.get("environment", {}).get(JSON_LINES) == "json"}
    assert told == {name for name, one in SERVICES.items() if "PREFECT_API_URL" in one.get("environment", {})}
    logging = yaml.safe_load((Path(prefect.__file__).parent / "logging" / "logging.yml").read_text())
    # The variable is a path into Prefect's own configuration: both ends of it must be there.
    assert "formatter" in logging["handlers"]["console"] and "json" in logging["formatters"]


def test_one_image_in_two_stages_serves_all_that_is_ours() -> None:
    assert len({SERVICES[name]["image"] for name in OURS}) == 1
    assert all(SERVICES[name]["build"]["dockerfile"] == "deployments/Dockerfile" for name in OURS)
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2 and all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
    assert re.search(r"^HEALTHCHECK .*\\\n +CMD \[", DOCKERFILE, re.MULTILINE)
    assert entrypoint() == ["python", "-m", "deployments.secret_files"]
    assert not any("entrypoint" in SERVICES[name] for name in OURS)


@pytest.mark.parametrize("name", SERVICES)
def test_what_outlives_a_container_lies_on_a_declared_volume(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert source.startswith((".", "$")) or source in COMPOSE["volumes"]


def test_every_file_that_is_mounted_is_there() -> None:
    mounted = [v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if v.startswith("./")]
    assert mounted and all((ROOT / path).is_file() for path in mounted)


# --- secrets --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    subprocess.run(["sh", ROOT / "deployments" / "secrets.sh", folder], check=True, capture_output=True)
    return folder


def test_the_script_makes_each_secret_that_compose_mounts_and_no_two_alike(secrets: Path) -> None:
    made = {path.name: path.read_text().strip() for path in secrets.iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"${{SECRETS:-./secrets}}/{name}"}
    random = [value for name, value in made.items() if name != "smtp_password"]
    assert all(re.fullmatch(r"(admin:|hotel )?[0-9a-f]{48}", value) for value in random)
    assert len({value[-48:] for value in random}) == len(random)


def test_secrets_are_readable_in_a_folder_that_is_their_owners_alone_and_never_made_anew(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    before = {path.name: (stat.S_IMODE(path.stat().st_mode), path.read_text()) for path in secrets.iterdir()}
    assert {mode for mode, _ in before.values()} == {0o444}
    again = subprocess.run(["sh", ROOT / "deployments" / "secrets.sh", secrets], check=True, capture_output=True)
    assert again.stdout.count(b"is there already") == len(before)
    assert {path.name: (stat.S_IMODE(path.stat().st_mode), path.read_text()) for path in secrets.iterdir()} == before


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gets_the_secrets_that_it_reads_and_no_other(name: str) -> None:
    service = SERVICES[name]
    said = yaml.safe_dump([service.get("environment", {}), service.get("command", [])])
    read = set(re.findall(r"/run/secrets/(\w+)", said)) | set(re.findall(r"\{secret:(\w+)\}", said))
    if name == "postgres":  # its script reads one for each database
        read |= {f"{database}_database" for database in ("cancellations", "prefect", "mlflow")}
    assert read == set(service.get("secrets", []))


def test_no_secret_stands_in_the_file_or_comes_from_the_environment() -> None:
    text = (ROOT / "docker-compose.yaml").read_text()
    assert not re.findall(r"\$\{\w*(?:PASSWORD|TOKEN|SECRET_KEY|LOGIN)\w*", text)
    assert not re.findall(r"://[^:/\s]+:[^@\s/]+@", text)
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|AUTH_STRING|SECRET", variable):
                assert re.fullmatch(r"\{secret:\w+\}|/run/secrets/\w+", value), variable
                if value.startswith("/") and variable.startswith("CANCELLATIONS_"):
                    setting = variable.removeprefix("CANCELLATIONS_").removesuffix("_FILE").lower()
                    assert setting in FROM_FILES or variable == "CANCELLATIONS_API__TOKENS_FILE"


def test_a_place_for_a_secret_is_filled_from_its_file_and_quoted_in_an_address(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("admin:a/b c\n")
    (tmp_path / "password").write_text("p@ss:/word\n")
    given = {
        "SECRETS_FOLDER": str(tmp_path),
        "AUTH": "{secret:login}",
        "URL": "db://me:{secret:password}@host/x",
        "N": "1",
    }
    environment = dict(given)
    secret_files.fill(environment)
    assert environment == given | {"AUTH": "admin:a/b c", "URL": "db://me:p%40ss%3A%2Fword@host/x"}


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["no file", "empty", "a line end"])
def test_a_command_whose_secret_is_missing_is_not_started(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "login").write_text(content)
    ended = subprocess.run(
        [*entrypoint(), "touch", tmp_path / "started"],
        env={"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(tmp_path), "AUTH": "{secret:login}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert f"AUTH wants the secret {tmp_path / 'login'}" in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "started").exists()


def test_a_variable_leads_to_no_file_beyond_the_folder(tmp_path: Path) -> None:
    environment = {"SECRETS_FOLDER": str(tmp_path / "secrets"), "A": "{secret:../login}", "B": "{secret:/etc/passwd}"}
    given = dict(environment)
    secret_files.fill(environment)
    assert environment == given


# --- as docker-compose reads it -------------------------------------------------------------------


def command() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return None


def config(*options: str) -> dict[str, Any]:
    compose = command()
    if compose is None:
        pytest.skip("neither docker-compose nor docker compose is installed")
    given = subprocess.run(
        [*compose, *options, "--file", "docker-compose.yaml", "config"], cwd=ROOT, capture_output=True, text=True
    )
    assert given.returncode == 0, given.stderr
    return dict(yaml.safe_load(given.stdout))


def test_compose_accepts_the_file_with_the_example_of_an_env_file() -> None:
    read = config("--env-file", ".env.example")
    assert set(read["services"]) == set(SERVICES)
    assert set(read["secrets"]) == set(COMPOSE["secrets"])
    worker = read["services"]["worker"]
    assert worker["depends_on"] == {"deploy": {"condition": "service_completed_successfully"}}
    assert worker["environment"]["PREFECT_API_AUTH_STRING"] == "{secret:prefect_login}"
