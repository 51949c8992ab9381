"""Which code the deployments were made of, and which code a run is made of."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from cancellations import __version__

# The folder with prefect.yaml, on a worker too: flows run from their source.
PROJECT = Path(__file__).resolve().parent.parent
SOURCES = ("cancellations", "monitoring", "flows")


@cache
def code_version() -> str:
    """The package's version with a digest of prefect.yaml and of the source that flow runs are made of.

    Changes with any line of them.
    """
    found = hashlib.sha256()
    files = [path for folder in SOURCES for path in (PROJECT / folder).rglob("*.py")]
    for path in sorted([PROJECT / "prefect.yaml", *files]):
        if path.is_file():
            found.update(path.relative_to(PROJECT).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{found.hexdigest()[:12]}"


def stamp() -> dict[str, str]:
    """The build step of prefect.yaml: gives each deployment the code's version."""
    return {"version": code_version()}
