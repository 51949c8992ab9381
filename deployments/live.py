"""The stack with the application prepared on it: what `up` and `demo` stand on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import psutil

from deployments.console import Voice
from deployments.stack import Stack

PROJECT = Path(__file__).resolve().parent.parent
# Addresses of the stack that runs on a home, for commands beside it.
RUNNING = "running.json"
PID = "pid"


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Starts a stack, prepares databases and registry on it, and leaves its addresses in the home."""
    with stack:
        os.environ.update(stack.environment)
        from cancellations import settings
        from cancellations.bootstrap import prepare

        prepare(settings.load())
        note = stack.home / RUNNING
        note.write_text(json.dumps({PID: str(os.getpid())} | stack.environment, indent=1))
        try:
            yield stack
        finally:
            note.unlink(missing_ok=True)


def addresses(home: Path) -> dict[str, str]:
    """Environment of the stack that runs on a home; empty when none does."""
    try:
        found: dict[str, str] = json.loads((home / RUNNING).read_text())
    except FileNotFoundError:
        return {}
    return found if psutil.pid_exists(int(found.pop(PID))) else {}


def run_live(
    home: Path,
    voice: Voice,
    *,
    watch: Path | None,
    as_of: date | None,
    prefect_port: int | None,
    mlflow_port: int | None,
) -> None:
    """Runs until Ctrl-C, with the deployments on their schedules.

    Mails leave by the SMTP server of the settings; where none is set, a mailbox in the home takes them.
    """
    from cancellations import settings

    mailbox = not settings.load(home=home.absolute()).mail.is_set
    if watch is not None:
        os.environ["CANCELLATIONS_WATCH"] = str(watch)
    if as_of is not None:
        os.environ["CANCELLATIONS_AS_OF"] = as_of.isoformat()
    stack = Stack(
        home,
        PROJECT,
        voice.say,
        schedules=True,
        mailbox=mailbox,
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
    )
    with running(stack):
        if watch is not None:
            voice.say(f"watching {watch}: CSV and Parquet files are ingested every five minutes, then scored")
        if mailbox:
            voice.say(f"mails: {stack.home / 'outbox'} (no SMTP server is set: CANCELLATIONS_MAIL__HOST)")
        wait(stack, voice)


def wait(stack: Stack, voice: Voice) -> None:
    """Until Ctrl-C; raises `ServiceDown` when a part of the stack ends by itself."""
    voice.say("running; Ctrl-C stops everything")
    try:
        while True:
            stack.check()
            time.sleep(1.0)
    except KeyboardInterrupt:
        voice.say("stopping …")
