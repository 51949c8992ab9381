"""Prefect's test harness on a database that has been migrated already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from once import Once
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.testing.utilities import prefect_test_harness


@contextmanager
def prefect_api(folder: Path, once: Once) -> Iterator[SyncPrefectClient]:
    """A server of a test's own, to which flows of this process talk meanwhile."""
    home = folder / "prefect-api"
    home.mkdir()
    once.prefect(home / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        # The harness takes an empty folder for its database; a database that it finds there it keeps.
        patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(home))
        with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
            yield client
