"""Secrets from files, for programs that take them from the environment alone.

    python -m deployments.secret_files COMMAND …

Where a variable says `{secret:NAME}`, the command gets what the file NAME of `/run/secrets` holds (another folder:
`SECRETS_FOLDER`). So the secret stands in that process's own memory, and neither in the description of a container nor
on a command line. In an address it is quoted as addresses want it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import quote

FOLDER = "SECRETS_FOLDER"
DEFAULT_FOLDER = "/run/secrets"
# Names of files, never paths: what a variable says leads nowhere else.
_PLACE = re.compile(r"\{secret:([a-z0-9_]+)\}")


class Missing(Exception):
    """A secret's file is not there, cannot be read, or is empty."""


def fill(environment: MutableMapping[str, str]) -> None:
    """Puts secrets in their places; raises `Missing` for one that cannot be had."""
    folder = Path(environment.get(FOLDER, DEFAULT_FOLDER))
    for variable, value in list(environment.items()):
        for name in _PLACE.findall(value):
            secret = _read(folder / name, variable)
            value = value.replace(f"{{secret:{name}}}", quote(secret, safe="") if "://" in value else secret)
            environment[variable] = value


def _read(path: Path, variable: str) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Missing(f"{variable} wants the secret {path}, which cannot be read: {error}") from error
    if not secret:
        raise Missing(f"{variable} wants the secret {path}, which is empty")
    return secret


def main() -> None:
    """Becomes the command that follows; 2 when a secret is missing or there is no such command."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m deployments.secret_files COMMAND …")
    try:
        fill(os.environ)
        os.execvp(sys.argv[1], sys.argv[1:])
    except (Missing, OSError) as error:
        sys.stderr.write(f"{sys.argv[1]} is not started: {error}. deployments/secrets.sh makes secrets.\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
