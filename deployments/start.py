"""The first thing that the command runs, before anything is imported that takes its time."""

from __future__ import annotations

import signal


def main() -> None:
    """Runs a command; until its modules are loaded Ctrl-C ends the process without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deployments.cli import main as run

    run()


if __name__ == "__main__":
    main()
