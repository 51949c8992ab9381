"""Runs one command and lets nothing of it outlive the process that asked for it.

    python keeper.py COMMAND…      # standard input: a pipe whose other end the parent holds

The end of standard input means that the parent closed it or is gone, by whatever signal; then, as
on SIGTERM, the command and all its descendants get SIGTERM, youngest first, and after
`GRACE_SECONDS` SIGKILL. On Linux descendants whose own parent has died are adopted by the keeper,
so those in other sessions are found too. Exits with the command's code, 128 + n for signal n.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil

GRACE_SECONDS = 8.0
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # The handlers above fall back to the defaults when the command is executed.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    code: int | None = None
    stop = False
    while code is None and not stop:
        ready, _, _ = select.select([sys.stdin.fileno(), wake], [], [])
        stop = sys.stdin.fileno() in ready
        if wake in ready:
            stop = bool({signal.SIGTERM, signal.SIGINT} & set(os.read(wake, 4096))) or stop
        code = _reap(process.pid)
    last = _stop_descendants(process.pid)
    code = last if code is None else code
    return 128 - code if code < 0 else code


def _reap(pid: int) -> int | None:
    """Collects every ended child, adopted ones too; the code of `pid` when it is among them."""
    found = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == pid:
            found = os.waitstatus_to_exitcode(status)


def _stop_descendants(pid: int) -> int:
    """Ends all descendants; returns the code of `pid`, 0 when it had ended before."""
    me = psutil.Process()
    code = 0
    asked: set[psutil.Process] = set()
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        found = _reap(pid)
        code = found if found is not None else code
        # Asked ones are kept apart because they can slip out of the tree where nobody adopts them.
        alive = {p: None for p in (*me.children(recursive=True), *asked) if p.is_running()}
        if not alive:
            return code
        for process in reversed(alive):
            if time.monotonic() > deadline:
                _send(process, signal.SIGKILL)
            elif process not in asked:
                _send(process, signal.SIGTERM)
                asked.add(process)
        time.sleep(0.02)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
