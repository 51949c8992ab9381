"""A home: the one folder that holds everything that an embedded stack, or the replay of one, writes.

home.json        marker with a format number; a folder without it is never ours to touch
lock             held by the processes of a running stack, with the number of the first
*.db             our store, MLflow's
artifacts/       MLflow's files
prefect/         Prefect's database and profile
outbox/          mails, one `.eml` each
logs/            one file per process
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from cancellations.errors import BadInput, Refused

FORMAT = 1
MARKER = "home.json"
LOCK = "lock"
FOLDERS = ("artifacts", "prefect", "outbox", "logs")

# The processes of a killed stack hold its lock until they have ended, which takes them a few seconds.
STOPPING_SECONDS = 20.0


def prepare(home: Path) -> None:
    """Makes the folder, its marker and its subfolders; does nothing when they are there.

    Raises `BadInput` when the folder cannot be written, holds something that is not ours, or was
    made by another version of this project.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        if any(home.iterdir()):
            check(home)
            with tempfile.TemporaryFile(dir=home):
                pass
        else:
            (home / MARKER).write_text(json.dumps({"format": FORMAT}) + "\n")
        for folder in FOLDERS:
            (home / folder).mkdir(exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"{home} cannot be used as home: {error.strerror}. Choose a folder that you can write with --home."
        ) from error


def fresh(home: Path) -> None:
    """Empties a home, so that a story can begin anew; hold its `lock` meanwhile.

    Marker and lock stay, so an interrupted call can be repeated. Raises `BadInput` for any folder
    that is not a home of this version.
    """
    check(home)
    for entry in home.iterdir():
        if entry.name in (MARKER, LOCK):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    prepare(home)


@contextmanager
def lock(home: Path) -> Iterator[int]:
    """Holds a prepared home for one stack; yields the file descriptor that carries the lock.

    The lock ends when this process and all that inherited the descriptor have closed it or ended,
    however they ended. Raises `Refused` while a living process holds it.
    """
    with (home / LOCK).open("a+") as file:
        until = time.monotonic() + STOPPING_SECONDS
        while not _locked(file.fileno()):
            file.seek(0)
            holder = file.read().strip()
            orphaned = holder.isdecimal() and not psutil.pid_exists(int(holder))
            if not orphaned or time.monotonic() > until:
                raise Refused(f"{home} is in use by process {holder}; wait for it or use --home OTHER.")
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check(home: Path) -> None:
    """Raises `BadInput` for any folder that is not a home of this version; changes nothing."""
    marker = home / MARKER
    if not marker.is_file():
        raise BadInput(
            f"{home} is not empty and has no {MARKER}, so it is not a home of this project and stays untouched."
            " Choose an empty or new folder with --home."
        )
    found = _format(marker)
    if not isinstance(found, int):
        raise BadInput(f"{marker} cannot be read. Choose another folder with --home, or remove this one.")
    if found != FORMAT:
        age = "a newer" if found > FORMAT else "an earlier"
        raise BadInput(
            f"{home} was made by {age} version of this project (format {found}, this one reads {FORMAT})."
            " Use that version, or choose another folder with --home."
        )


def _format(marker: Path) -> Any:
    try:
        return json.loads(marker.read_text())["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
