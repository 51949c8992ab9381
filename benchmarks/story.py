"""What the demo takes: the whole story on a real stack, from its command to its last line, by the clock.

One run: it starts servers, deploys, tells the story through deployed flow runs, checks the ledger and stops. The
set-up of `.venv` is not in it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, Options, Outcome, run
from cancellations.errors import BadInput, ServiceDown

PROJECT = Path(__file__).resolve().parent.parent
# Somebody watches it.
REACH_SECONDS = 300
TOLD = re.compile(r"story took\s+(\d+) s, (\d+) deployed runs")


def measure(options: Options) -> Outcome:
    if options.quick:
        raise BadInput("--quick: a story is told to its end; leave it out")
    with tempfile.TemporaryDirectory(prefix="cancellations-story-") as folder:
        home = Path(folder) / "demo"
        command = [sys.executable, "-m", "deployments.start", "demo", "--home", str(home)]
        if options.data is not None:
            command += ["--data", str(options.data.resolve())]
        began = time.perf_counter()
        ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
    sys.stderr.write(ended.stdout + ended.stderr)
    told = TOLD.search(ended.stdout)
    if ended.returncode or told is None:
        raise ServiceDown(f"the demo ended with {ended.returncode}: {(ended.stderr or ended.stdout).strip()[-500:]}")
    story, runs = (float(value) for value in told.groups())
    # It says yes or no to each claim of the story, and ends with 0 only if each is yes.
    claims = len(re.findall(r"^  yes  ", ended.stdout, re.MULTILINE))
    return Outcome(
        (
            Figure.of("the demo, from command to end", [seconds], "s", at_most=REACH_SECONDS),
            Figure.of("of it, the story", [story], "s"),
            Figure.of("deployed runs in it", [runs], ""),
            Figure.of("a deployed run, on average", [story / runs], "s"),
            Figure.of("claims of the story that the ledger bears out", [claims], "all of them"),
        ),
        beside="nothing",
        input=next(line for line in ended.stdout.splitlines() if line.startswith("data:"))
        .removeprefix("data:")
        .strip()
        .rsplit("/", 1)[-1],
        repetitions=1,
        intervals="one run",
    )


if __name__ == "__main__":
    sys.exit(run("story", "Times the demo.", measure))
