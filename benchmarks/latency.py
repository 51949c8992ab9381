"""How long after a drift event the retrain flow begins, through the real embedded stack.

From just before the event is sent until the engine enters the flow, whose first line is next: the
event is stored, the automation matches it and creates a run, the worker finds the run, a process
starts and imports what the flow needs. Beside it, interleaved in the same run:

- the same on a second stack whose worker polls as often as Prefect's defaults say;
- a run that a client creates on the first stack, without event and automation.

The requests have ended before the event is sent, so the flow finds nothing to train.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.figures import Figure, Options, Outcome, run
from cancellations.domain.events import Channel, DriftDetected, Message
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import BadInput, ServiceDown
from cancellations.store import SqlStore, open_store
from deployments.live import PROJECT
from deployments.stack import Stack

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from deployments.deployed import Deployed
    from flows.doorbell import PrefectDoorbell

REPETITIONS, QUICK_REPETITIONS = 20, 3
# Whoever watches the demo should not think that it hangs.
REACH_SECONDS = 15
# Of what the same takes with a worker as Prefect sets it up.
REACH_SHARE = 0.5
# A server on SQLite may keep somebody waiting for longer than the doorbell has patience.
KNOCKS = 3
POLLING = "PREFECT_WORKER_QUERY_SECONDS"
DAY = date(2016, 6, 20)


class DefaultPolling(Stack):
    """The embedded stack with a worker that polls as often as Prefect's defaults say."""

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in super().environment.items() if name != POLLING}


@dataclass(frozen=True)
class Bench:
    """A running stack, and what is needed to ring it and to watch what comes of it."""

    store: SqlStore
    server: Deployed
    doorbell: PrefectDoorbell
    poll_seconds: float

    def warm_up(self) -> None:
        """A first run reads from a cold disk, and nobody waits for it here."""
        self.server.run("retrain", request_id=self.request("warm-up"))

    def request(self, name: str) -> str:
        """A request that has ended, so that its run begins and ends and trains nothing."""
        ended = RetrainRequest(name, DAY, "latency benchmark", state=RequestState.REJECTED)
        with self.store.begin() as work:
            work.add_request(ended, datetime.now(UTC))
            work.commit()
        return name


@dataclass(frozen=True)
class Latency:
    """Seconds from the knock to the run's creation, until a worker took it, and to the flow's first line."""

    created: float
    taken: float
    begun: float


def _latency(bench: Bench, sent: datetime, run: FlowRun) -> Latency:
    assert run.created is not None and run.start_time is not None, "a finished run has both"
    taken = bench.server.taken(run)
    return Latency(*((moment - sent).total_seconds() for moment in (run.created, taken, run.start_time)))


def by_event(bench: Bench, name: str) -> Latency:
    request = bench.request(name)
    fact = DriftDetected(request, f"report of {request}", "1", DAY, DAY, ("latency benchmark",))
    message = next(m for m in fact.messages() if m.channel is Channel.EVENT)
    sent = datetime.now(UTC)
    _ring(bench, message)
    return _latency(bench, sent, bench.server.finish(bench.server.await_run("retrain", request_id=request)))


def _ring(bench: Bench, message: Message) -> None:
    """As the outbox does: again where the server did not answer, under the same id; what that takes is measured too."""
    for _ in range(KNOCKS - 1):
        try:
            return bench.doorbell.ring(message)
        except ServiceDown as error:
            _progress(f"again: {error}")
    return bench.doorbell.ring(message)


def by_client(bench: Bench, name: str) -> Latency:
    request = bench.request(name)
    sent = datetime.now(UTC)
    started = bench.server.start("retrain", request_id=request)
    return _latency(bench, sent, bench.server.finish(started))


def measure(options: Options) -> Outcome:
    if options.data is not None:
        raise BadInput("--data: this benchmark reads no bookings; leave it out")
    repetitions = QUICK_REPETITIONS if options.quick else REPETITIONS
    draw = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(prefix="cancellations-latency-") as folder, ExitStack() as exits:
        ours = exits.enter_context(Stack(Path(folder) / "embedded", PROJECT, _progress))
        theirs = exits.enter_context(DefaultPolling(Path(folder) / "defaults", PROJECT, _progress))
        embedded, defaults = (_bench(stack, exits) for stack in (ours, theirs))
        for bench in (embedded, defaults):
            bench.warm_up()
        arms: dict[str, tuple[Callable[[Bench, str], Latency], Bench]] = {
            "embedded": (by_event, embedded),
            "defaults": (by_event, defaults),
            "client": (by_client, embedded),
        }
        found: dict[str, list[Latency]] = {name: [] for name in arms}
        for repetition in range(repetitions):
            for name in np.roll(list(arms), repetition):
                knock, bench = arms[name]
                # A run that ends just after a poll would always ring at the same distance from the next.
                time.sleep(draw.uniform(0, bench.poll_seconds))
                found[name].append(knock(bench, f"{name}-{repetition}"))
                _progress(f"{name}: {found[name][-1].begun:.1f} s")
    begun = {name: [latency.begun for latency in latencies] for name, latencies in found.items()}
    pairs = zip(begun["embedded"], begun["defaults"], strict=True)
    figures = (
        Figure.of("event to first line of retrain", begun["embedded"], "s", at_most=REACH_SECONDS),
        *_spent("embedded", found["embedded"]),
        Figure.of(f"the same, worker polls every {defaults.poll_seconds:g} s", begun["defaults"], "s"),
        *_spent("polling by default", found["defaults"]),
        Figure.of("run made by a client to first line", begun["client"], "s"),
        Figure.of("embedded / polling by default", [a / b for a, b in pairs], "ratio", at_most=REACH_SHARE),
    )
    return Outcome(
        figures,
        beside=f"Prefect's default polling ({defaults.poll_seconds:g} s, embedded {embedded.poll_seconds:g} s) on a"
        " second stack, and runs that a client makes",
        input="requests that have ended, one for each run",
        repetitions=repetitions,
    )


def _spent(name: str, found: Sequence[Latency]) -> Iterator[Figure]:
    """Where the time goes."""
    yield Figure.of(f"{name}: until the automation made the run", [x.created for x in found], "s")
    yield Figure.of(f"{name}: until a worker took it", [x.taken - x.created for x in found], "s")
    yield Figure.of(f"{name}: until its process had imported the flow", [x.begun - x.taken for x in found], "s")


def _bench(stack: Stack, exits: ExitStack) -> Bench:
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    from cancellations import settings
    from cancellations.bootstrap import prepare
    from deployments.deployed import deployed
    from flows.doorbell import PrefectDoorbell

    known = settings.load(home=stack.home, database_url="", mlflow_tracking_uri="", mlflow_artifacts="")
    prepare(known)
    store = open_store(known.store_url)
    exits.callback(store.close)
    with temporary_settings({PREFECT_API_URL: stack.prefect_api}):
        server = exits.enter_context(deployed(stack.check))
        doorbell = PrefectDoorbell()
    polling = stack.environment.get(POLLING, get_current_settings().worker.query_seconds)
    return Bench(store, server, doorbell, float(polling))


def _progress(line: str) -> None:
    """Minutes pass here: what happens goes to standard error, the figures to standard output."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(run("latency", "Times the way from a drift event to the retrain flow's first line.", measure))
