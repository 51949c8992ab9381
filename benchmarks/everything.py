"""Every benchmark, one after the other, and the page of results from what they found.

Each runs as its own command and leaves its JSON in `benchmarks/results` when it has ended well, so what was stopped
goes on with those that are left by `--only`. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.found import RESULTS
from benchmarks.page import write
from benchmarks.parts import PARTS, Part
from cancellations import settings
from cancellations.bootstrap import locate
from cancellations.errors import BadInput, CancellationsError
from cancellations.sources.find import SIMULATOR

PROJECT = Path(__file__).resolve().parent.parent


def command(part: Part, data: str) -> list[str]:
    """What is typed to run a part alone."""
    given = ["--data", data] if part.real else []
    return ["python", "-m", f"benchmarks.{part.name}", "--json", *given, *part.arguments]


def measured(part: Part, data: str) -> bool:
    """Runs a part and keeps what it found; False, and what was kept before stays, where it fails."""
    began = time.perf_counter()
    sys.stderr.write(f"== {' '.join(command(part, Path(data).name))}\n")
    unfinished = RESULTS / f"{part.name}.json.part"
    with unfinished.open("w") as out:
        ended = subprocess.run([sys.executable, *command(part, data)[1:]], cwd=PROJECT, stdout=out, check=False)
    took = f"{(time.perf_counter() - began) / 60:.1f} min"
    if ended.returncode:
        unfinished.unlink()
        sys.stderr.write(f"== {part.name} failed with {ended.returncode} after {took}\n")
        return False
    unfinished.replace(RESULTS / f"{part.name}.json")
    sys.stderr.write(f"== {part.name}: {took}\n")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where a part failed; the page is written from what there is all the same."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.everything", description=(__doc__ or "").partition("\n")[0]
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page anew")
    parser.add_argument("--data", type=Path, help="the public file of hotel bookings; default: where the demo finds it")
    given = parser.parse_args(arguments)
    failed = []
    try:
        if not given.page:
            data = _data(given.data)
            failed = [part.name for part in PARTS if part.name in (given.only or names) and not measured(part, data)]
        for path in write():
            sys.stderr.write(f"wrote {path.relative_to(PROJECT)}\n")
    except CancellationsError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return error.exit_code
    return 1 if failed else 0


def _data(given: Path | None) -> str:
    found = locate(given, settings.load(max_lead_days=180), lambda text: None)
    if found.locator == SIMULATOR:
        raise BadInput(
            "the public file of hotel bookings is not there, which half of the figures are of; name it: --data"
        )
    return found.locator


if __name__ == "__main__":
    sys.exit(main())
