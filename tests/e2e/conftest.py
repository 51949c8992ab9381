"""The real embedded stack, started once for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

# Imported before the stack sets the environment: Prefect reads its own settings once, on import, and
# tests of other folders must not find this stack's in them.
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from stage import SETTINGS, Story, bookings, tell

from cancellations import settings
from cancellations.bootstrap import App
from deployments.live import PROJECT, running
from deployments.stack import Stack
from flows.doorbell import PrefectDoorbell


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("e2e")
    before = psutil.Process().children(recursive=True)
    stack = Stack(folder / "home", PROJECT, print)
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("CANCELLATIONS_", "PREFECT_", "MLFLOW_"))]:
            patch.delenv(name)
        # `running` writes the stack's names into the environment; set here first, they are put back.
        for name, value in (stack.environment | SETTINGS).items():
            patch.setenv(name, value)
        with (
            running(stack),
            temporary_settings({PREFECT_API_URL: stack.prefect_api}),
            get_client(sync_client=True) as client,
        ):
            file = folder / "bookings.parquet"
            bookings().to_parquet(file, index=False)
            app = App(settings.load(), PrefectDoorbell())
            yield tell(stack, app, client, file)
            app.store.close()
    left = set(psutil.Process().children(recursive=True)) - set(before)
    assert left == set()
