"""Partitions of a batch as Prefect tasks, and what runs them.

A module of its own, imported by name: Prefect runs a deployed flow's file as a script, and another
process would not find a task that is defined there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.logging import get_run_logger
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from cancellations.bootstrap import owner
from cancellations.settings import Scoring
from cancellations.usecases.score import Across, Partition
from flows.application import application


@dataclass(frozen=True)
class Ended:
    """A partition that has been scored: new rows, seconds that it took, host and process that did it."""

    partition: Partition
    rows: int
    seconds: float
    process: str


@task(task_run_name="version {partition.version}, booked until {partition.until}")
def score_partition(partition: Partition) -> Ended:
    """Scores in whichever process it runs, with that process's own application."""
    began = time.perf_counter()
    rows = application().score_partition(partition)
    return Ended(partition, rows, time.perf_counter() - began, owner())


def task_runner(knobs: Scoring) -> TaskRunner[Any] | None:
    """What runs partitions; None for this process. Threads and processes start when the first one is submitted."""
    if knobs.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=knobs.workers)
    if knobs.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=knobs.workers)
    if knobs.runner == "dask":
        # Costs a second to import, which those who score here need not wait for.
        from prefect_dask.task_runners import DaskTaskRunner

        if knobs.dask_address:
            return DaskTaskRunner(address=knobs.dask_address)
        return DaskTaskRunner(cluster_kwargs=local_cluster(knobs.workers))
    return None


def local_cluster(workers: int) -> dict[str, Any]:
    """Arguments of a Dask cluster that only this machine can reach."""
    return {
        "n_workers": workers,
        "threads_per_worker": 1,
        "processes": True,
        "host": "127.0.0.1",
        # No dashboard; and for the status that the scheduler serves nevertheless any port of loopback,
        # where by default it wants one port that another cluster may have.
        "dashboard_address": None,
        "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }


def across(runner: TaskRunner[Any] | None, ended: list[Ended]) -> Across:
    """Scores partitions as tasks on a runner that has been entered, and puts each that ends into `ended`.

    It returns when all have ended, and raises the first one's failure; what the others wrote stays. A
    single partition is scored in this process: no other one could do it sooner.
    """

    def run(partitions: Sequence[Partition]) -> list[int]:
        if runner is None or len(partitions) == 1:
            done = [score_partition(partition) for partition in partitions]
        else:
            futures = [runner.submit(score_partition, {"partition": p}) for p in partitions]
            for future in futures:
                future.wait()
            for partition, future in zip(partitions, futures, strict=True):
                if not future.state.is_completed():
                    get_run_logger().error(
                        "bookings until %s were not scored by version %s: %s",
                        partition.until,
                        partition.version,
                        future.state.message or future.state.name,
                    )
            done = [future.result() for future in futures]
        ended.extend(done)
        return [each.rows for each in done]

    return run
