"""Makes the work pool, and deploys the project of the working folder.

    python -c "import runpy; runpy.run_path('…/deploying.py', run_name='__main__')" POOL

A process of its own, whose environment is Prefect's settings; one, because to import Prefect takes longer than either.
"""

from __future__ import annotations

import sys

from prefect.cli import app
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker


def make(pool: str) -> None:
    """A pool of processes; one from an earlier start stays as it is."""
    # With an empty template the worker would set it, beside a deploy that locks the same database.
    wanted = WorkPoolCreate(name=pool, type="process", base_job_template=ProcessWorker.get_default_base_job_template())
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(wanted)
        except ObjectAlreadyExists:
            return


if __name__ == "__main__":
    _, name = sys.argv
    make(name)
    sys.argv[1:] = ["--no-prompt", "deploy", "--all"]
    app()
