"""`cancellations doctor` where things are wrong: real databases, mail servers and sockets, each seen to be told.

What needs a Prefect server, worker and deployments is in tests/e2e: `test_approval.py` and `test_operating.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from once import Once
from rich.console import Console
from sqlalchemy import URL, NullPool, create_engine, text

from cancellations import home as homes
from cancellations import settings
from cancellations.bootstrap import App, prepare
from cancellations.domain.health import Finding, Verdict
from cancellations.domain.promotion import Change
from cancellations.settings import Doctor, Mail, Settings
from cancellations.sources.simulator import Simulator
from cancellations.store.schema import HEAD
from deployments.console import Voice
from deployments.doctor import Check, examine
from deployments.doctor.expected import declared, triggers, version
from deployments.doctor.machine import Machine
from deployments.doctor.orchestrator import Orchestrator
from deployments.doctor.server import PrefectServer
from deployments.doctor.services import Services
from deployments.mistake import register_notebook_model

if TYPE_CHECKING:
    from command_line import Run

pytest_plugins = ["command_line"]

LIMIT = 30.0


def look(checks: list[Check], name: str, limit: float = LIMIT) -> list[Finding]:
    """What one check finds."""
    return examine([check for check in checks if check.name == name], limit)


def of(known: Settings, name: str, limit: float = LIMIT) -> list[Finding]:
    return look(Services(known, None).checks(), name, limit)


def only(findings: list[Finding]) -> Finding:
    [finding] = findings
    return finding


@pytest.fixture
def known(tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [n for n in os.environ if n.startswith(("CANCELLATIONS_", "PREFECT_", "MLFLOW_TRACKING"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return settings.load(home=Path(shutil.copytree(empty_home, tmp_path / "known")))


def changed(known: Settings, **changes: Any) -> Settings:
    return known.model_copy(update=changes)


# --- independence and time ------------------------------------------------------------------------


def test_a_check_that_breaks_or_hangs_is_told_and_hides_no_other() -> None:
    def breaks() -> list[Finding]:
        raise ZeroDivisionError("a mistake of ours")

    release = threading.Event()

    def hangs() -> list[Finding]:
        release.wait()
        return []

    right = Finding("third", "here", Verdict.RIGHT, "as it should be")
    began = time.monotonic()
    found = examine(
        [Check("first", "here", breaks), Check("second", "there", hangs), Check("third", "here", lambda: [right])], 0.5
    )
    release.set()
    assert time.monotonic() - began < 5
    assert [f.check for f in found] == ["first", "second", "third"]
    assert [f.verdict for f in found] == [Verdict.WRONG, Verdict.WRONG, Verdict.RIGHT]
    assert "a mistake of ours" in found[0].what
    assert found[1].what == "no answer within 0.5 s" and "DOCTOR__TIMEOUT_SECONDS" in found[1].remedy


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield int(listening.getsockname()[1])


def test_nothing_hangs_on_servers_that_never_answer(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as port:
        for name, value in {
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "CANCELLATIONS_DATABASE_URL": f"postgresql://ada:hunter2@127.0.0.1:{port}/hotel",
            "CANCELLATIONS_MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
            "CANCELLATIONS_MAIL__PORT": str(port),
        }.items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        ended = run("doctor", "--json", "--timeout", "3")
    assert time.monotonic() - began < 20
    assert ended.code == 1
    by = {f["check"]: f for f in ended.json["findings"]}
    assert ended.json["healthy"] is False
    for check in ("prefect server", "database", "mlflow", "champion", "smtp"):
        assert by[check]["verdict"] == "wrong", by[check]
    assert by["packages"]["verdict"] == by["folders"]["verdict"] == "right"
    assert "hunter2" not in ended.out + ended.err


# --- the command ----------------------------------------------------------------------------------


def everything(home: Path) -> dict[str, tuple[str, int]]:
    """Each file of a home by its content; SQLite's own files beside a database come and go."""
    return {
        str(path.relative_to(home)): (path.read_bytes().hex()[:4096], path.stat().st_size)
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def test_a_fresh_home_without_servers_is_told_line_by_line_and_nothing_is_changed(run: Run, home: Path) -> None:
    shutil.rmtree(home / "outbox")
    before = everything(home)
    ended = run("doctor")
    assert everything(home) == before and not (home / "outbox").exists()
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert any(line.startswith("wrong    prefect server") and "no Prefect server is named" in line for line in lines)
    assert any(line.startswith("unknown  worker") for line in lines)
    assert any(line.startswith("right    database") and f"revision {HEAD}, writable" in line for line in lines)
    assert any(line.startswith("notice   champion") and "nobody is champion yet" in line for line in lines)
    assert any(line.startswith("wrong    smtp") and "would not take a mail" in line for line in lines)
    assert "-> start it: cancellations up" in ended.out
    assert "need mending; docs/runbook.md says more of each" in lines[-1]


def test_a_folder_that_is_no_home_is_bad_input(run: Run, tmp_path: Path) -> None:
    ended = run("doctor", "--home", str(tmp_path / "nowhere"))
    assert ended.code == 2
    assert "make one with: cancellations init" in ended.sentence()
    assert not (tmp_path / "nowhere").exists()


def test_on_a_terminal_it_is_a_table_that_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from deployments.commands.doctoring import _tell

    findings = [
        Finding("disk", "/data", Verdict.RIGHT, "7.0 of 9.0 GiB are free"),
        Finding("automations", "a [red]\x1b[2Jname", Verdict.WRONG, "paused", 'prefect automation resume "…"'),
    ]
    console = Console(force_terminal=True, width=100, soft_wrap=True, highlight=False, color_system=None)
    with console.capture() as captured:
        _tell(findings, Voice(console))
    told = captured.get()
    assert "┃ check" in told and "│ disk" in told
    assert "a [red] [2Jname" in told  # as text: neither markup nor a steering character
    assert 'prefect automation resume "…"' in told
    assert all(len(line) <= 100 for line in told.splitlines())
    assert "1 of 2 findings need mending" in told


# --- the database ---------------------------------------------------------------------------------


def test_a_database_of_this_version_is_right_on_both(known: Settings, store_url: str, store: object) -> None:
    found = only(of(changed(known, database_url=store_url), "database"))
    assert (found.verdict, found.what) == (Verdict.RIGHT, f"revision {HEAD}, writable")


def test_an_older_revision_is_told_with_the_command_that_upgrades_and_that_does(run: Run, home: Path) -> None:
    file = home / "cancellations.db"
    file.unlink()
    missing = of(settings.load(home=home), "database")
    assert "there is no database" in only(missing).what
    assert run("db", "upgrade").code == 0
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    found = only(of(settings.load(home=home), "database"))
    assert (found.verdict, found.what) == (Verdict.WRONG, f"revision 0001, this version needs {HEAD}")
    assert found.remedy == "cancellations db upgrade"


def test_a_database_that_cannot_be_written_is_told(known: Settings, tmp_path: Path) -> None:
    file = known.home / "cancellations.db"
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        locked = only(of(known, "database"))
    other.close()
    assert locked.verdict is Verdict.WRONG and "locked by another process" in locked.what
    assert only(of(known, "database")).verdict is Verdict.RIGHT
    file.write_bytes(b"not a database, and long enough for SQLite to see that")
    assert "is not a SQLite database" in only(of(known, "database")).what


def test_on_postgresql_a_missing_right_a_standby_and_a_wrong_password_are_told(
    known: Settings, postgres: URL, migrated_database: str
) -> None:
    admin = postgres.set(database=migrated_database)
    engine = create_engine(admin, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE reader LOGIN PASSWORD 'reader'"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))

    def at(**changes: Any) -> Finding:
        url = admin.set(**changes).render_as_string(hide_password=False)
        return only(of(changed(known, database_url=url), "database"))

    try:
        assert at().verdict is Verdict.RIGHT
        reader = at(username="reader", password="reader")
        assert reader.verdict is Verdict.WRONG and "permission denied" in reader.what
        frozen = at(query={**dict(admin.query), "options": "-cdefault_transaction_read_only=on"})
        assert frozen.verdict is Verdict.WRONG and "read-only transaction" in frozen.what
        nobody = at(username="nobody-knows-me", password="hunter2")
        assert nobody.verdict is Verdict.WRONG and "nobody-knows-me" in nobody.what
        assert "hunter2" not in nobody.what + nobody.where
    finally:
        with engine.connect() as connection:
            connection.execute(text("DROP OWNED BY reader"))
            connection.execute(text("DROP ROLE reader"))


# --- mail -----------------------------------------------------------------------------------------


class Postmaster:
    """Counts what comes in."""

    def __init__(self) -> None:
        self.mails = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails += 1
        return "250 taken"


def one_user(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
    return AuthResult(success=(login.login, login.password) == (b"model", b"secret"), handled=False)


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_a_mail_server_is_greeted_and_logged_in_to_and_gets_no_mail(known: Settings) -> None:
    handler = Postmaster()
    options = {"authenticator": one_user, "auth_required": True, "auth_require_tls": False}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    controller = Controller(handler, hostname="127.0.0.1", port=port, ready_timeout=30, **options)
    controller.start()
    try:

        def at(**changes: Any) -> Finding:
            return only(of(changed(known, mail=Mail(host="127.0.0.1", port=port, **changes)), "smtp"))

        right = at(user="model", password="secret")
        assert (right.verdict, right.what) == (Verdict.RIGHT, "answers, not encrypted, logged in; no mail was sent")
        refused = at(user="model", password="not-this")
        assert refused.verdict is Verdict.WRONG and "refused the login: 535" in refused.what
        assert "not-this" not in refused.what
        plain = at(security="starttls")
        assert plain.verdict is Verdict.WRONG and "CANCELLATIONS_MAIL__SECURITY" in plain.what
    finally:
        controller.stop()
    assert handler.mails == 0
    gone = only(of(changed(known, mail=Mail(host="127.0.0.1", port=port)), "smtp"))
    assert gone.verdict is Verdict.WRONG and gone.remedy == "then: cancellations mail test"
    assert only(of(known, "smtp")).verdict is Verdict.NOTICE  # nobody has named one


# --- this machine ---------------------------------------------------------------------------------


def machine(known: Settings, name: str, project: Path | None = None) -> list[Finding]:
    given = Machine(known) if project is None else Machine(known, project)
    return look(given.checks(), name)


def test_a_disk_with_too_little_room_is_told_once_for_each_file_system(known: Settings) -> None:
    assert only(machine(known, "disk")).verdict is Verdict.RIGHT
    more = shutil.disk_usage(known.home).free / 1024**3 + 100
    full = only(machine(changed(known, doctor=Doctor(least_free_gib=more)), "disk"))
    assert full.verdict is Verdict.WRONG and "GiB are free, at least" in full.what


def test_a_folder_that_is_gone_or_no_folder_is_told(known: Settings, tmp_path: Path) -> None:
    assert {f.verdict for f in machine(known, "folders")} == {Verdict.RIGHT}
    file = tmp_path / "file"
    file.touch()
    found = machine(changed(known, mlflow_artifacts=str(file), watch=tmp_path / "incoming"), "folders")
    assert [(f.where, f.verdict) for f in found] == [
        (str(known.home), Verdict.RIGHT),
        (str(file), Verdict.WRONG),
        (str(tmp_path / "incoming"), Verdict.WRONG),
    ]
    assert "Not a directory" in found[1].what
    assert found[2].remedy.startswith(f"mkdir -p {tmp_path / 'incoming'}")


def test_packages_are_held_against_what_the_project_supports(known: Settings, tmp_path: Path) -> None:
    assert only(machine(known, "packages")).verdict is Verdict.RIGHT
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nrequires-python = ">=3.99"\ndependencies = ["pandas>=1,<2", "prefect>=3", "no-such-package>=1"]\n'
    )
    found = {f.where: f for f in machine(known, "packages", tmp_path)}
    assert set(found) == {"python", "pandas", "no-such-package"}
    assert found["pandas"].what.endswith("supported is <2,>=1")
    assert found["no-such-package"].what == "not installed, supported is >=1"
    assert all("requirements.lock" in f.remedy for f in found.values())


# --- clocks ---------------------------------------------------------------------------------------


@contextmanager
def http_server(
    off: timedelta = timedelta(0), status: int = 200, body: str = '"3.8.8"', busy: int = 0
) -> Iterator[str]:
    """A server whose clock is off, and which answers everything alike, 503 the first times; its address."""
    before = iter(range(busy))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if next(before, None) is None else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + off, usegmt=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_whose_clock_is_wrong_is_told_with_the_difference(known: Settings) -> None:
    hour = timedelta(hours=1)
    with http_server(hour) as prefect, http_server(-hour) as mlflow:
        asked = Services(changed(known, mlflow_tracking_uri=mlflow), PrefectServer(f"{prefect}/api"))
        by_prefect, by_mlflow, by_file = look(asked.checks(), "clock")
    assert by_prefect.verdict is Verdict.WRONG and "s ahead of this machine's" in by_prefect.what
    assert by_mlflow.verdict is Verdict.WRONG and "s behind this machine's" in by_mlflow.what
    assert by_file.verdict is Verdict.RIGHT
    with http_server() as right:
        asked = Services(changed(known, mlflow_tracking_uri=right), PrefectServer(f"{right}/api"))
        assert {f.verdict for f in look(asked.checks(), "clock")} == {Verdict.RIGHT}


def test_a_database_whose_clock_is_wrong_is_told(known: Settings, postgres: URL, migrated_database: str) -> None:
    admin = postgres.set(database=migrated_database)
    engine = create_engine(admin, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA odd"))
        connection.execute(
            text(
                "CREATE FUNCTION odd.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
                " AS $$ SELECT pg_catalog.clock_timestamp() + interval '10 minutes' $$"
            )
        )
    try:
        query = {**dict(admin.query), "options": "-csearch_path=odd,pg_catalog,public"}
        odd = admin.set(query=query).render_as_string(hide_password=False)
        assert only(of(changed(known, database_url=odd), "clock")).what.startswith("600 s ahead of")
        right = admin.render_as_string(hide_password=False)
        assert only(of(changed(known, database_url=right), "clock")).verdict is Verdict.RIGHT
    finally:
        with engine.connect() as connection:
            connection.execute(text("DROP SCHEMA odd CASCADE"))


# --- servers that are not what they should be -------------------------------------------------------


def test_a_server_that_refuses_us_or_is_of_another_release_is_told(known: Settings) -> None:
    with http_server(status=401, body="no") as closed:
        prefect = only(look(Orchestrator(PrefectServer(f"{closed}/api")).checks(), "prefect server"))
        assert prefect.verdict is Verdict.WRONG and "PREFECT_API_AUTH_STRING" in prefect.remedy
        mlflow = only(of(changed(known, mlflow_tracking_uri=closed), "mlflow"))
        assert mlflow.verdict is Verdict.WRONG and "CANCELLATIONS_MLFLOW_USER" in mlflow.what
    with http_server(body=f'"{installed("prefect")}"', busy=2) as moment:
        # SQLite's lock was another's for a moment: that is nothing to mend.
        prefect = only(look(Orchestrator(PrefectServer(f"{moment}/api")).checks(), "prefect server"))
        assert prefect.verdict is Verdict.RIGHT
    with http_server(body='"2.20.0"') as old:
        prefect = only(look(Orchestrator(PrefectServer(f"{old}/api")).checks(), "prefect server"))
        assert prefect.verdict is Verdict.WRONG and "Prefect 2.20.0, client 3." in prefect.what
        assert "pip install 'prefect==2.20.0'" in prefect.remedy
    with http_server(body="2.1.0") as old:
        assert only(of(changed(known, mlflow_tracking_uri=old), "mlflow")).verdict is Verdict.WRONG
    with http_server(body="<html>a shop</html>") as shop:
        prefect = only(look(Orchestrator(PrefectServer(f"{shop}/api")).checks(), "prefect server"))
        assert prefect.verdict is Verdict.WRONG and "is no Prefect API" in prefect.what


# --- the champion ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowned(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a champion of a few bookings."""
    # Not a copy: MLflow remembers where artifacts lie.
    home = tmp_path_factory.mktemp("crowned") / "home"
    homes.prepare(home)
    once.mlflow(home / "mlflow.db")
    day = date(2016, 1, 10)
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
            patch.delenv(name)
        prepare(settings.load(home=home))
        app = App(settings.load(home=home))
        app.ingest(Simulator(day - timedelta(days=59), 60, seed=13, max_lead_days=30), until=day)
        made = register_notebook_model(app, day)
        with app.store.begin() as work:
            work.add_version(made, datetime.now(UTC))
            work.change_standing(
                work.standing(), champion=made.version, challenger=None, change=Change.FIRST, reason="a test",
                by="a test", as_of=day, now=datetime.now(UTC),
            )  # fmt: skip
            work.commit()
        app.registry.set_alias("champion", made.version)
        app.store.close()
    return home


def test_a_champion_that_loads_and_that_the_ledger_names_is_right(known: Settings, crowned: Path) -> None:
    there = settings.load(home=crowned)
    assert [f.verdict for f in of(there, "champion")] == [Verdict.RIGHT, Verdict.RIGHT]
    app = App(there)
    app.registry.set_alias("champion", None)
    try:
        moved = only(of(there, "champion"))
        assert moved.verdict is Verdict.WRONG
        assert moved.what == "alias 'champion' is nobody, the ledger says version 1"
        assert moved.remedy == "prefect deployment run reconcile/reconcile"
    finally:
        app.registry.set_alias("champion", "1")
    # Without its database the ledger is not known, but the champion is looked at all the same.
    apart = of(changed(there, database_url="sqlite:////nowhere/store.db"), "champion")
    assert [f.verdict for f in apart] == [Verdict.RIGHT, Verdict.UNKNOWN]
    artifacts = crowned / "artifacts"
    away = artifacts.rename(crowned / "unmounted")
    try:
        assert only(of(there, "champion")).verdict is Verdict.WRONG
    finally:
        away.rename(artifacts)


# --- what prefect.yaml declares ---------------------------------------------------------------------


def test_a_deployment_is_compared_in_all_that_this_version_expects() -> None:
    ingest = next(d for d in declared() if d.name == "ingest")
    [schedule] = ingest.schedules
    found: dict[str, Any] = {
        "entrypoint": "flows/ingest.py:ingest",
        "work_pool_name": "cancellations",
        "version": version(),
        "global_concurrency_limit": {"limit": 1},
        "schedules": [{"slug": schedule["slug"], "schedule": {"cron": "*/5 * * * *", "timezone": "UTC"}}],
    }
    assert ingest.differences(found, version()) == []
    changes: dict[str, Any] = {
        "entrypoint": "flows/old.py:ingest",
        "work_pool_name": "another",
        "version": "0.0.1",
        "global_concurrency_limit": None,
        "schedules": [],
    }
    for field, value in changes.items():
        assert len(ingest.differences({**found, field: value}, version())) == 1, field
    found["schedules"][0]["schedule"]["cron"] = "0 * * * *"
    assert ingest.differences(found, version()) == ["schedule 'every-five-minutes' is '0 * * * *', not '*/5 * * * *'"]


def test_an_automation_is_compared_in_all_that_it_declares() -> None:
    deployment, trigger = next(pair for pair in triggers(declared()) if pair[1].name == "retrain on drift")
    found: dict[str, Any] = {
        "trigger": {
            "type": "event",
            "expect": ["cancellations.retrain.due", "cancellations.drift.detected"],
            "match": {"prefect.resource.id": "cancellations.request.*"},
            "for_each": ["prefect.resource.id"],
            "posture": "Reactive",
            "threshold": 1,
            "within": 86400.0,
        },
        "actions": [
            {
                "type": "run-deployment",
                "deployment_id": "7",
                "parameters": {"request_id": "{{ event.payload.request_id }}"},
            }
        ],
    }
    assert deployment.name == "retrain"
    assert trigger.differences(found, "7") == []
    assert trigger.differences(found, "8") == ["the deployment that it starts"]
    changes: dict[str, Callable[[], None]] = {
        "expect": lambda: found["trigger"].update(expect=["cancellations.drift.detected"]),
        "match": lambda: found["trigger"].update(match={"prefect.resource.id": "*"}),
        "within": lambda: found["trigger"].update(within=60),
        "parameters": lambda: found["actions"][0].update(parameters={}),
    }
    kept = json.dumps(found)
    for field, change in changes.items():
        change()
        assert trigger.differences(found, "7") == [field]
        found = json.loads(kept)


def test_the_doctor_runs_as_a_command_of_its_own(tmp_path: Path, empty_home: Path) -> None:
    """In a process: nothing that hangs keeps it from ending."""
    home = shutil.copytree(empty_home, tmp_path / "home")
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("CANCELLATIONS_", "PREFECT_"))}
    with silent() as port:
        ended = subprocess.run(
            [sys.executable, "-m", "deployments.cli", "doctor", "--home", str(home), "--timeout", "2"],
            env=clean | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "CANCELLATIONS_MAIL__HOST": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=90,
        )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr == ""
    assert "need mending" in ended.stdout
