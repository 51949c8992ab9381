"""Real processes that cost a fork each, and jobs that run them side by side."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Result = TypeVar("Result")

# What a child would spend five seconds on; installed modules alone, since the server knows no test's folder.
PRELOADED = (
    "alembic.command",
    "cancellations.estimators",
    "cancellations.mail.smtp",
    "cancellations.metrics",
    "cancellations.model",
    "cancellations.registry",
    "cancellations.sources.simulator",
    "cancellations.store",
    "cancellations.usecases.deliver",
    "cancellations.usecases.ingest",
    "cancellations.usecases.monitor",
    "cancellations.usecases.reconcile",
    "cancellations.usecases.status",
    "cancellations.usecases.trial",
    "flows.doorbell",
    "mlflow.sklearn",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.artifact.models_artifact_repo",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.tracing.processor.base_mlflow",
    "monitoring.plots",
    "narwhals._pandas_like.dataframe",
    "narwhals._pandas_like.namespace",
    "narwhals._pandas_like.series",
    "narwhals.stable.v2._namespace",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.inspection",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "skops.io",
    "threadpoolctl",
)
AT_ONCE = min(os.cpu_count() or 1, 4)
# A step takes a second or two; whoever needs this long waits for a lock that nobody gives back.
PATIENCE = 120.0


class Children:
    """Starts processes, forked from one that has imported everything; none outlives `close`."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        self._started: list[BaseProcess] = []

    def start(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = self._context.Process(target=target, args=arguments)
        process.start()
        self._started = [p for p in self._started if p.is_alive()] + [process]
        return process

    def run(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        """Starts a process and waits for its end."""
        process = self.start(target, *arguments)
        process.join(PATIENCE)
        assert not process.is_alive(), f"{target.__name__}{arguments} has not ended within {PATIENCE:.0f} s"
        return process

    def pipe(self) -> tuple[Connection, Connection]:
        """Two ends, one to be handed to a child."""
        return self._context.Pipe()

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.join()
        # The server would end by itself when this process does; what a test starts ends with the tests.
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


def side_by_side(jobs: Iterable[Generator[BaseProcess, None, Result]]) -> list[Result]:
    """What jobs return, as they end. A job yields each process that it has started, and goes on at its end."""
    waiting, results = iter(jobs), []
    running: dict[Any, tuple[BaseProcess, Generator[BaseProcess, None, Result]]] = {}

    def advance(ready: Sequence[Generator[BaseProcess, None, Result]]) -> None:
        for job in ready:
            try:
                process = next(job)
            except StopIteration as end:
                results.append(end.value)
            else:
                running[process.sentinel] = process, job

    advance(list(islice(waiting, AT_ONCE)))
    while running:
        ended = wait(list(running), PATIENCE)
        assert ended, f"none of {len(running)} processes has ended within {PATIENCE:.0f} s"
        for sentinel in ended:
            process, job = running.pop(sentinel)
            process.join()
            advance([job])
            advance(list(islice(waiting, AT_ONCE - len(running))))
    return results


def in_lockstep(meetings: Sequence[Connection]) -> None:
    """Lets children go on together from one meeting to the next, until all have ended.

    Each says on its pipe that it has come, and goes on when it hears that all who still live have.
    """
    living = list(meetings)
    while living:
        come = []
        for meeting in living:
            assert meeting.poll(PATIENCE), f"a child has not come to its meeting within {PATIENCE:.0f} s"
            try:
                meeting.recv()
            except (EOFError, ConnectionResetError):
                meeting.close()
            else:
                come.append(meeting)
        for meeting in come:
            meeting.send("go on")
        living = come
