"""Processes that work for another one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from cancellations.replay.workers import workers

PATIENCE = 60.0
PARENT = """
import sys, time
from cancellations.replay.workers import workers

if __name__ == "__main__":
    with workers(2) as pool:
        pool.submit(time.sleep, 600)
        list(pool._processes)
        print("begun", flush=True)
        time.sleep(600)
"""


def test_work_is_done_in_processes_that_were_prepared() -> None:
    with workers(1, sys.setrecursionlimit, 1234) as pool:
        assert pool.submit(sys.getrecursionlimit).result(PATIENCE) == 1234


def test_whoever_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "begun\n"
    at_work = _children(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, left = psutil.wait_procs(at_work, timeout=PATIENCE)
    assert left == []


def _children(pid: int) -> list[psutil.Process]:
    """Those of a pool, as soon as one is at work: it sleeps in the call that it was given."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]
        if found and any(child.num_threads() >= 2 for child in found):
            return found
        assert time.monotonic() < deadline, "no process was begun"
        time.sleep(0.02)
