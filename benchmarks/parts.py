"""The benchmarks that make the page of results, in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A benchmark, and how it is run: `real` ones are given the public file of bookings."""

    name: str
    real: bool = False
    arguments: tuple[str, ...] = ()


# Those of the clock first, on a machine that is still cool; monitor's seed names markets that nothing was chosen on.
PARTS = (
    Part("story", real=True),
    Part("latency"),
    Part("serving"),
    Part("scoring"),
    Part("ingesting", real=True),
    Part("batch"),
    Part("simulator", real=True),
    Part("replay", real=True),
    Part("decisions", real=True),
    Part("monitor", real=True, arguments=("--seed", "30")),
)
