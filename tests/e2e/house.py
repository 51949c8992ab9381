"""The real embedded stack on a home of its own, with the application in this process beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest
from once import Once

# Imported before the stack sets the environment: Prefect reads its own settings once, on import, and
# tests of other folders must not find this stack's in them.
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import _temporary_global_settings_context, get_settings_context
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from cancellations.bootstrap import App
from cancellations.domain.promotion import Change
from cancellations.domain.retraining import RequestState, RetrainRequest
from deployments.deployed import Deployed
from deployments.live import PROJECT, running
from deployments.mistake import register_notebook_model
from deployments.stack import Stack
from flows.application import application


@dataclass(frozen=True)
class Open:
    """A running stack; `app` works on the same home, with the stack's Prefect as doorbell."""

    stack: Stack
    app: App
    server: Deployed
    client: SyncPrefectClient

    def here(self, name: str, **parameters: Any) -> FlowRun:
        """A run of a flow in this process: the same but for the worker, whose part other runs show."""
        state = getattr(import_module(f"flows.{name}"), name)(**parameters, return_state=True)
        return self.client.read_flow_run(state.state_details.flow_run_id)


def crown_weak_champion(app: App, as_of: date) -> str:
    """Makes a version champion that lost half of the cancellations in training: each challenger is better."""
    weak = register_notebook_model(app, as_of)
    now = datetime.now(UTC)
    with app.store.begin() as work:
        work.add_version(weak, now)
        work.change_standing(
            work.standing(),
            champion=weak.version,
            challenger=None,
            change=Change.FIRST,
            reason="weak, so that every challenger is better",
            by="this test",
            as_of=as_of,
            now=now,
        )
        work.commit()
    return weak.version


def challenge(app: App, as_of: date) -> RetrainRequest:
    """All that a run of `retrain` does for a request of its own, in this process; a challenger is on trial after it."""
    done = app.retrain(app.request_training(as_of, "by this test").request_id)
    assert done.state is RequestState.CANDIDATE, done.detail
    app.deliver()
    app.score_challenger(done)
    return done


@contextmanager
def house(folder: Path, once: Once, given: Mapping[str, str]) -> Iterator[Open]:
    """Starts it with settings from `given` alone, and leaves no process behind.

    On databases that have been migrated: how a stack comes up in an empty home is told elsewhere.
    """
    before = psutil.Process().children(recursive=True)
    stack = Stack(once.home(folder / "home"), PROJECT, print)
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("CANCELLATIONS_", "PREFECT_", "MLFLOW_"))]:
            patch.delenv(name)
        # `running` writes the stack's names into the environment; set here first, they are put back.
        for name, value in (stack.environment | dict(given)).items():
            patch.setenv(name, value)
        with (
            running(stack),
            temporary_settings({PREFECT_API_URL: stack.prefect_api}),
            _temporary_global_settings_context(get_settings_context()),
            get_client(sync_client=True) as client,
        ):
            application.cache_clear()
            app = application()
            yield Open(stack, app, Deployed(client, stack.check), client)
            APILogWorker.instance().drain()
            EventsWorker.drain_all()
            app.store.close()
            application.cache_clear()
    left = set(psutil.Process().children(recursive=True)) - set(before)
    assert left == set()
