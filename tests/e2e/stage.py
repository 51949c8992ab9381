"""A small simulated world, and the story that the deployed flows tell of it.

Leads are at most 45 days, nobody books for a group, and one change has a day that is known.
Everything else is as `prefect.yaml` and the settings' defaults have it, but for `SETTINGS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

import pandas as pd
from house import Open
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from cancellations.bootstrap import App, open_source
from cancellations.domain.retraining import RequestState
from cancellations.ports import StoredDecision
from cancellations.sources.evaluation import MONTHS
from cancellations.sources.mapped import packaged
from cancellations.sources.mapping import Read
from cancellations.sources.simulator import GROUPS, Drift, DriftKind, simulate
from cancellations.usecases.status import Status
from deployments.deployed import Deployed
from deployments.stack import Stack

LOOK = timedelta(days=28)
LONGEST_LEAD = 45
# Backtest of six weeks, training on the twelve before: with eight the gate is passed or not by the seed.
FIRST_BOOKING = date(2016, 1, 8)
CHAMPION_TRAINED = date(2016, 5, 15)
QUIET = CHAMPION_TRAINED + LOOK
DRIFTED = QUIET + LOOK
LATER = DRIFTED + LOOK
SEED = 14
DRIFTS = (
    Drift(DriftKind.PRICE_SHOCK, QUIET + timedelta(days=1), 2.5),
    Drift(DriftKind.CHANNEL_MIX, QUIET + timedelta(days=1), 4.0),
    Drift(DriftKind.FREE_CANCELLATION, QUIET + timedelta(days=1), 10.0),
)
SETTINGS = {
    # One look at the drifted world is enough, and a second drift may follow the first at once.
    "CANCELLATIONS_MONITOR__STEP_DAYS": str(LOOK.days),
    "CANCELLATIONS_RETRAIN_POLICY__CONFIRM_K": "1",
    "CANCELLATIONS_RETRAIN_POLICY__COOLDOWN_DAYS": "0",
    # Fewer rows and attempts: faster, and no other promise.
    "CANCELLATIONS_MONITOR__SAMPLE_ROWS": "1000",
    "CANCELLATIONS_RETRAIN__REFERENCE_ROWS": "1000",
    "CANCELLATIONS_RETRAIN__MAX_ATTEMPTS": "2",
    # Whatever a developer's .env says, nothing leaves the home.
    "CANCELLATIONS_DATABASE_URL": "",
    "CANCELLATIONS_MLFLOW_TRACKING_URI": "",
    "CANCELLATIONS_MLFLOW_ARTIFACTS": "",
}
PATIENCE_SECONDS = 180.0

T = TypeVar("T")


@dataclass(frozen=True)
class Story:
    """The running stack and what had happened on it when the first retrain had ended.

    `app` is the application in this process, on the same home, with the stack's Prefect as doorbell.
    """

    stack: Stack
    app: App
    server: Deployed
    client: SyncPrefectClient
    looks: tuple[StoredDecision, ...]  # oldest first
    monitor: FlowRun
    retrains: tuple[FlowRun, ...]  # those with the request's id
    status: Status
    aliases: dict[str, str]

    @property
    def acted(self) -> StoredDecision:
        return self.looks[-1]

    @property
    def request_id(self) -> str:
        assert self.acted.request_id is not None
        return self.acted.request_id

    def until(self, found: Callable[[], T | None], what: str) -> T:
        """What `found` finds at last; fails, naming it, when the stack ends or time is up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (result := found()):
            self.stack.check()
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS:.0f} s"
            time.sleep(0.2)
        return result


def bookings() -> pd.DataFrame:
    """The world of this story, in the columns of the public hotel file."""
    made = simulate(FIRST_BOOKING, (LATER - FIRST_BOOKING).days + 1, SEED, DRIFTS)
    lead = (made["arrival_on"] - made["booked_on"]).dt.days
    return public_table(made[(lead <= LONGEST_LEAD) & (made["market_segment"] != GROUPS)])


def public_table(made: pd.DataFrame) -> pd.DataFrame:
    """Simulated reservations in the columns of the public hotel file."""
    arrival = made["arrival_on"]
    lead = (arrival - made["booked_on"]).dt.days
    mapping = packaged()["hotel_bookings"]
    assert mapping.reservation is not None
    assert mapping.outcome is not None
    assert isinstance(mapping.outcome.status, Read)
    told = {ours: theirs for theirs, ours in (mapping.outcome.status.map or {}).items()}
    names = {number: name.capitalize() for number, name in enumerate(MONTHS, start=1)}
    made = made.assign(lead_days=lead)
    renamed = {ours: read.column for ours, read in mapping.reservation.items() if isinstance(read, Read)}
    return made[["reservation_id"]].assign(
        arrival_date_year=arrival.dt.year,
        arrival_date_month=arrival.dt.month.map(names),
        arrival_date_day_of_month=arrival.dt.day,
        reservation_status=made["status"].map(told),
        reservation_status_date=made["known_on"].dt.strftime("%Y-%m-%d"),
        **{theirs: made[ours] for ours, theirs in renamed.items()},
    )


def tell(opened: Open, file: Path) -> Story:
    """From a file of bookings to the end of the retrain that nobody here starts."""
    stack, app, server, client = opened.stack, opened.app, opened.server, opened.client
    # How the world came to its first champion is not this story: done in this process.
    app.ingest(open_source(str(file), app.settings), until=LATER)
    first = app.retrain(app.request_training(CHAMPION_TRAINED, "first champion").request_id)
    assert first.state is RequestState.CANDIDATE, first.detail
    server.run("score", until=LATER)
    monitor = server.run("monitor", after=CHAMPION_TRAINED, until=DRIFTED)
    with app.store.begin() as work:
        looks = tuple(reversed(work.decisions()))
    request_id = looks[-1].request_id
    assert request_id is not None, f"no drift was found: {[look.decision for look in looks]}"
    server.finish(server.await_run("retrain", request_id=request_id))
    retrains = tuple(server.having("retrain", request_id=request_id))
    return Story(stack, app, server, client, looks, monitor, retrains, app.status(), app.registry.aliases())
