"""What all workers of a run share: made by the first that asks, while others wait, and only read after."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from cancellations import home as homes

PREFECT, MLFLOW = "prefect.db", "mlflow.db"
# Processes of their own: nothing of either is open when its file is copied.
MIGRATE_MLFLOW = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1])"


@dataclass(frozen=True)
class Once:
    """Folders of a run by name; what lies in one must never be changed."""

    root: Path

    def folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        made, done = self.root / name, self.root / f"{name}.done"
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(made, ignore_errors=True)  # left by one that failed
                made.mkdir()
                fill(made)
                done.touch()
        return made

    def home(self, folder: Path) -> Path:
        """A new home with the empty databases that Prefect and MLflow take ten seconds to migrate."""
        homes.prepare(folder)
        self.prefect(folder / "prefect" / PREFECT)
        self.mlflow(folder / MLFLOW)
        return folder

    def prefect(self, path: Path) -> None:
        """Copies an empty database of Prefect's server to a path."""
        shutil.copy(self.folder("prefect", _migrate_prefect) / PREFECT, path)

    def mlflow(self, path: Path) -> None:
        """Copies an empty MLflow database to a path."""
        shutil.copy(self.folder("mlflow", _migrate_mlflow) / MLFLOW, path)


@contextmanager
def mlflow_migrations_read_once() -> Iterator[None]:
    """MLflow reads all of its migrations whenever it opens a database, which takes longer than many a test."""
    from mlflow.store.db import utils  # whose import takes seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_get_latest_schema_revision", cache(utils._get_latest_schema_revision))
        yield


def _migrate_prefect(folder: Path) -> None:
    address = {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / PREFECT}"}
    upgrade = ("-m", "prefect", "server", "database", "upgrade", "--yes")
    _python(*upgrade, folder=folder, PREFECT_HOME=str(folder), **address)


def _migrate_mlflow(folder: Path) -> None:
    _python("-c", MIGRATE_MLFLOW, f"sqlite:///{folder / MLFLOW}", folder=folder)


def _python(*arguments: str, folder: Path, **given: str) -> None:
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("CANCELLATIONS_", "PREFECT_", "MLFLOW_"))}
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=plain | given, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
