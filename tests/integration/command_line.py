"""Runs commands in this process, on homes of their own; a pytest plugin of the tests that do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from once import MLFLOW, Once, mlflow_migrations_read_once
from threadpoolctl import threadpool_limits

from cancellations import home as homes
from cancellations import settings
from cancellations.bootstrap import prepare
from deployments.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def sentence(self) -> str:
        """The one line of an error; no traceback, nothing on standard output."""
        assert self.out == ""
        [line] = self.err.splitlines()
        assert line.startswith("cancellations: ")
        return line


Run = Callable[..., Ended]


@pytest.fixture(scope="session")
def migrations_read_by_commands() -> Iterator[None]:
    with mlflow_migrations_read_once():
        yield


@pytest.fixture
def run(
    migrations_read_by_commands: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[Run]:
    """Runs a command in this process, in an empty folder, on the home `tmp_path/home`; no mail server answers."""
    for name in [n for n in os.environ if n.startswith(("CANCELLATIONS_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    # Wide, so that words which are looked for are not broken between lines.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("CANCELLATIONS_HOME", str(tmp_path / "home"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    # Threads that spin on busy cores cost more than they bring to fits of a few thousand rows.
    limits = threadpool_limits(1)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def command(*arguments: str) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["cancellations", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Ended(int(left.value.code or 0), said.out, said.err)

    with socket.socket() as silent:  # bound and not listening: whoever connects is refused
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CANCELLATIONS_MAIL__HOST", "127.0.0.1")
        monkeypatch.setenv("CANCELLATIONS_MAIL__PORT", str(silent.getsockname()[1]))
        yield command
    limits.restore_original_limits()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Path:
    """What `init` makes."""
    home = tmp_path_factory.mktemp("cli") / "home"
    homes.prepare(home)
    once.mlflow(home / MLFLOW)
    prepare(settings.load(home=home))
    return home


@pytest.fixture
def home(run: Run, empty_home: Path, tmp_path: Path) -> Path:
    """An empty home where the commands of `run` look for it."""
    return Path(shutil.copytree(empty_home, tmp_path / "home"))
