"""What a simulated reservation costs beside as many plain random numbers, and how like a real one it is.

The simulator as a source, batch by batch, in seconds of processor time; beside it numpy draws as many
uniform numbers as the reservations have columns, with no meaning and no table. With `--data`,
a real table, the figures of `cancellations simulate --compare` too: over several seeds, since groups make
each world wobble.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.figures import Figure, Options, Outcome, run
from cancellations import settings
from cancellations.bootstrap import compare_simulated
from cancellations.sources.simulator import Simulator

START = date(2015, 10, 5)
DAYS = 730
# Ten times two hotels; the two alone pay more for what each month costs, however few its bookings are.
SCALE, QUICK_SCALE = 10.0, 4.0
REPETITIONS, QUICK_REPETITIONS = 7, 6
WORLDS, QUICK_WORLDS = 5, 2
REACH_ROWS = 200_000
# A batch of the plain arm.
PLAIN_ROWS = 50_000


def measure(options: Options) -> Outcome:
    scale = QUICK_SCALE if options.quick else SCALE
    ours: list[float] = []
    small: list[float] = []
    plain: list[float] = []
    rows = 0
    with threadpool_limits(1):
        for repetition in range(QUICK_REPETITIONS if options.quick else REPETITIONS):
            seed = options.seed + repetition
            seconds, rows = _timed(partial(_drawn, seed, scale))
            ours.append(rows / seconds)
            seconds, few = _timed(partial(_drawn, seed, 1.0))
            small.append(few / seconds)
            seconds, count = _timed(partial(_plain, rows, seed))
            plain.append(count / seconds)
    figures = [
        Figure.of(f"simulator, {2 * scale:.0f} hotels", ours, "rows/s", at_least=REACH_ROWS),
        Figure.of("simulator, 2 hotels", small, "rows/s", at_least=REACH_ROWS),
        Figure.of("numpy, as many random columns", plain, "rows/s"),
        Figure.of("numpy / simulator", [p / o for p, o in zip(plain, ours, strict=True)], "ratio"),
    ]
    if options.data is not None:
        figures += _fidelity(options)
    return Outcome(
        tuple(figures),
        beside=f"{_columns()} uniform numbers a row by numpy, {PLAIN_ROWS:,} rows at a time, on the same core",
        input=f"{rows:,} reservations of {DAYS} days, as batches of a source"
        + ("" if options.data is None else f"; compared with {options.data.name}"),
        repetitions=len(ours),
    )


def _timed(arm: Callable[[], int]) -> tuple[float, int]:
    """Seconds of processor time, of all threads: what one core takes, also beside busy neighbours."""
    began = time.process_time()
    rows = arm()
    return time.process_time() - began, rows


def _drawn(seed: int, scale: float) -> int:
    return sum(len(batch.raw) for batch in Simulator(START, DAYS, seed, scale=scale).batches())


def _columns() -> int:
    batch = next(Simulator(START, 1, 0).batches())
    return batch.raw.shape[1]


def _plain(rows: int, seed: int) -> int:
    generator, columns = np.random.default_rng(seed), _columns()
    return sum(len(generator.random((min(PLAIN_ROWS, rows - first), columns))) for first in range(0, rows, PLAIN_ROWS))


def _fidelity(options: Options) -> list[Figure]:
    assert options.data is not None
    known = settings.load()
    worlds = range(QUICK_WORLDS if options.quick else WORLDS)
    found = [compare_simulated(options.data, known, seed=options.seed + w)[0] for w in worlds]
    first = {(line.section, line.figure): line.real for line in found[0].lines}
    figures = []
    for key in (("cancelled", "all"), ("groups", "design effect"), ("groups", "bookings in groups of 5 or more")):
        name = f"{key[0]}, {key[1]}"
        made = [line.simulated for each in found for line in each.lines if (line.section, line.figure) == key]
        figures += [Figure.of(f"{name}: real", [first[key]], ""), Figure.of(f"{name}: simulated", made, "")]
    for place, learned in enumerate(found[0].learned):
        name = f"trained on {learned.trained_on}, scored on {learned.scored_on}"
        figures.append(Figure.of(f"AUC, {name}", [each.learned[place].auc for each in found], ""))
        figures.append(Figure.of(f"log loss, {name}", [each.learned[place].log_loss for each in found], "nats"))
    return figures


if __name__ == "__main__":
    sys.exit(run("simulator", "Times the simulator beside numpy, and compares it with a real table.", measure))
