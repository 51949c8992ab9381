"""Prefect's test harness on a database that has been migrated already."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from once import Once
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.testing.utilities import prefect_test_harness

DATABASE = "prefect-test.db"


def put_back(database: Path, run: UUID, to: datetime) -> None:
    """Lets a run have begun, and ended if it has, at a moment of the past: Prefect's API takes the present alone."""
    moment = to.strftime("%Y-%m-%d %H:%M:%S.%f")
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        ended = "CASE WHEN end_time IS NULL THEN NULL ELSE :moment END"
        done = connection.execute(
            f"UPDATE flow_run SET start_time = :moment, end_time = {ended} WHERE id = :run",
            {"moment": moment, "run": str(run)},
        )
        assert done.rowcount == 1


@contextmanager
def prefect_api(folder: Path, once: Once) -> Iterator[SyncPrefectClient]:
    """A server of a test's own, to which flows of this process talk meanwhile."""
    home = folder / "prefect-api"
    home.mkdir()
    once.prefect(home / DATABASE)
    with pytest.MonkeyPatch.context() as patch:
        # The harness takes an empty folder for its database; a database that it finds there it keeps.
        patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(home))
        with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
            yield client
