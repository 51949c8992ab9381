"""A Prefect server for flows that run in the tests' own process; a pytest plugin of the tests that do.

One for all tests of a worker, which takes as long to start as a dozen of them to run. Whoever asks what is
on the server as a whole has one of its own (`prefect_api.py`).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from once import PREFECT, Once
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import _temporary_global_settings_context, get_settings_context
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    temporary_settings,
)

START_SECONDS = 120


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Iterator[str]:
    """The server's address; only who asks for `prefect` talks to it."""
    from prefect.server.api.server import SubprocessASGIServer  # a second, for one worker alone

    database = tmp_path_factory.mktemp("prefect") / PREFECT
    once.prefect(database)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = SubprocessASGIServer(port=probe.getsockname()[1])
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{database}"}):
        server.start(timeout=START_SECONDS)
    yield server.api_url
    server.stop()


@pytest.fixture
def prefect(prefect_server: str) -> Iterator[SyncPrefectClient]:
    """Flows of this process talk to the server, as in Prefect's own test harness."""
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        _temporary_global_settings_context(get_settings_context()),
        get_client(sync_client=True) as client,
    ):
        yield client
        # What is still on its way to the server arrives, and nothing of it comes to the next test.
        APILogWorker.instance().drain()
        EventsWorker.drain_all()
