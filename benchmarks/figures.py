"""What every benchmark prints: figures with intervals, what they were measured beside, on what.

An interval is taken over the repetitions of one run on one machine. It says how well this run knows
its own median, and nothing of other machines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil

from cancellations.errors import BadInput, CancellationsError, Refused

PACKAGES = ("numpy", "pandas", "scikit-learn", "sqlalchemy", "mlflow", "prefect", "evidently")
# With fewer repetitions a bootstrap of the median gives back little but the smallest and largest.
BOOTSTRAP_FROM = 6
RESAMPLES = 2_000
# Bounds of the percentile bootstrap: a 95 % interval.
PERCENTILES = (2.5, 97.5)
SEED = 20


@dataclass(frozen=True)
class Figure:
    """A measured value with its interval and, where one is set, the reach that it should meet.

    `holds` is None without a reach; it is True only when the whole interval meets it.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    reach: str | None = None
    holds: bool | None = None

    def __post_init__(self) -> None:
        # Whatever numpy made of them: JSON knows Python's numbers alone, and is written when all is measured.
        for name in ("value", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "holds", None if self.holds is None else bool(self.holds))

    @classmethod
    def of(
        cls,
        name: str,
        samples: Sequence[float],
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> Self:
        """The median of repeated measurements; the interval is a bootstrap's, or min to max of a few."""
        if not samples or not np.isfinite(samples).all():
            raise BadInput(f"{name}: a figure needs finite measurements, got {list(samples)}")
        if at_most is not None and at_least is not None:
            raise BadInput(f"{name}: a reach has one side; give at_most or at_least")
        low, high = interval(samples)
        reach, holds = None, None
        if at_most is not None:
            reach, holds = f"<= {at_most:g}", high <= at_most
        elif at_least is not None:
            reach, holds = f">= {at_least:g}", low >= at_least
        return cls(name, float(np.median(samples)), low, high, unit, reach, holds)


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """95 % percentile bootstrap of the median; smallest and largest of fewer than `BOOTSTRAP_FROM`."""
    values = np.asarray(samples, dtype=float)
    if len(values) < BOOTSTRAP_FROM:
        return float(values.min()), float(values.max())
    drawn = np.random.default_rng(SEED).choice(values, size=(RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), PERCENTILES)
    return float(low), float(high)


@dataclass(frozen=True)
class Options:
    """How a benchmark was asked to run."""

    quick: bool
    seed: int
    data: Path | None


@dataclass(frozen=True)
class Table:
    """Counts that belong side by side: cells as they are printed, a row as long as the headings."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Curve:
    """Points of a line in a picture, in the JSON alone; `x` are numbers or days, `marks` those of them that are marked.

    `figure`: the picture that it belongs to; `low`, `high`: an interval of each point, or nothing.
    """

    figure: str
    name: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]
    marks: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found: figures, what they stand beside, and the input in a few words."""

    figures: tuple[Figure, ...]
    beside: str
    input: str
    repetitions: int
    intervals: str = ""  # what they are over, where not over repetitions
    tables: tuple[Table, ...] = ()
    curves: tuple[Curve, ...] = ()


def run(
    name: str, description: str, measure: Callable[[Options], Outcome], arguments: Sequence[str] | None = None
) -> int:
    """Measures and prints; returns the exit code: 1 when `--check` finds a reach that is not met."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="a version of about a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a reach is not met")
    parser.add_argument("--data", type=Path, help="a hotel-bookings table, CSV or Parquet; default: simulated bookings")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of whatever is drawn (default {SEED})")
    given = parser.parse_args(arguments)
    options = Options(given.quick, given.seed, given.data)
    began = time.perf_counter()
    try:
        outcome = measure(options)
    except CancellationsError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return error.exit_code
    seconds = time.perf_counter() - began
    sys.stdout.write(as_json(name, options, outcome, seconds) if given.json else as_table(name, options, outcome))
    missed = [figure.name for figure in outcome.figures if figure.holds is False]
    if given.check and missed:
        sys.stderr.write(f"{parser.prog}: reach not met: {', '.join(missed)}\n")
        return Refused.exit_code
    return 0


def as_table(name: str, options: Options, outcome: Outcome) -> str:
    """A Markdown table, ready to be copied into a page, and the lines that belong to it."""
    headings = ("figure", "value", "interval", "unit", "reach", "holds")
    rows = [
        (f.name, number(f.value), f"{number(f.low)} to {number(f.high)}", f.unit, f.reach or "", _holds(f.holds))
        for f in outcome.figures
    ]
    kind = "min to max" if outcome.repetitions < BOOTSTRAP_FROM else "95 % bootstrap of the median"
    over = f"median and {kind} of {outcome.repetitions} repetitions, interleaved"
    return "\n".join(
        [
            *_markdown(headings, rows),
            "",
            *(
                text
                for table in outcome.tables
                for text in (table.title, "", *_markdown(table.headings, table.rows), "")
            ),
            f"{name}{' --quick' if options.quick else ''}, {datetime.now(UTC).date()}, seed {options.seed};"
            f" {outcome.intervals or over}",
            f"input:    {outcome.input}",
            f"beside:   {outcome.beside}",
            f"machine:  {machine()}",
            f"versions: {', '.join(f'{package} {number}' for package, number in versions().items())}",
            "",
        ]
    )


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    lines = (headings, ["-" * width for width in widths], *rows)
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in lines
    ]


def as_json(name: str, options: Options, outcome: Outcome, seconds: float) -> str:
    """The same as one object, with the seconds that it took and the curves of its pictures."""
    found = {
        "benchmark": name,
        "quick": options.quick,
        "date": datetime.now(UTC).date().isoformat(),
        "seed": options.seed,
        "repetitions": outcome.repetitions,
        "intervals": outcome.intervals,
        "input": outcome.input,
        "beside": outcome.beside,
        "machine": machine(),
        "versions": versions(),
        "seconds": round(seconds),
        "figures": [asdict(figure) for figure in outcome.figures],
        "tables": [asdict(table) for table in outcome.tables],
        "curves": [asdict(curve) for curve in outcome.curves],
    }
    return _by_lines(found)


def _by_lines(found: dict[str, Any]) -> str:
    """JSON with a line for each figure, table or curve, so that two runs can be compared line by line."""
    told = []
    for name, value in found.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n ]"
        told.append(f' "{name}": {text}')
    return "{\n" + ",\n".join(told) + "\n}\n"


def number(value: float) -> str:
    """Three figures are all that such an interval supports."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _holds(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "NO"


def machine() -> str:
    """Processors, how busy they were, memory and system, without anything that names the machine."""
    memory = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[1]
    return (
        f"{os.cpu_count()} processors (load of the last five minutes {load:.1f}), {memory:.0f} GiB,"
        f" {platform.system()} {platform.machine()}"
    )


def versions() -> dict[str, str]:
    known = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    return known | {package: version(package) for package in PACKAGES}


def peak_memory() -> float | None:
    """Most memory that this process has held, in MiB; None where the system does not tell.

    Not `getrusage`: its maximum is inherited from the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)
