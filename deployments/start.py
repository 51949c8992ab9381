"""The first thing that the command runs, before anything is imported that takes its time."""

from __future__ import annotations

import os
import signal
import sys

from deployments import secret_files


def main() -> None:
    """Runs a command; until its modules are loaded Ctrl-C ends the process without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # In a container that is up already: `docker compose exec` goes past the image's entry point.
    try:
        secret_files.fill(os.environ)
    except secret_files.Missing as error:
        sys.stderr.write(f"cancellations: {error}\n")
        sys.exit(2)
    from deployments.cli import main as run

    run()


if __name__ == "__main__":
    main()
