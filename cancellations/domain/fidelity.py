"""What a comparison of a simulated table with a real one finds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

MARGINS, RATES, GROUPS, DELAYS = "margins", "cancelled", "groups", "delays"
SECTIONS = (MARGINS, RATES, GROUPS, DELAYS)


@dataclass(frozen=True)
class Line:
    """One figure of both tables, of one of `SECTIONS`; not a number where a table holds too few bookings for it."""

    section: str
    figure: str
    real: float
    simulated: float


@dataclass(frozen=True)
class Learned:
    """A model trained on the earlier bookings of one table and scored on the later ones of the other, or the same."""

    trained_on: str
    scored_on: str
    trained: int
    scored: int
    auc: float
    log_loss: float


@dataclass(frozen=True)
class Curve:
    """Quantiles of one column in both tables, at even steps from 0 to 1."""

    name: str
    real: tuple[float, ...]
    simulated: tuple[float, ...]


@dataclass(frozen=True)
class Fidelity:
    """A simulated table beside a real one; pairs are real, simulated."""

    real: str
    simulated: str
    rows: tuple[int, int]
    booked: tuple[date, date]
    lines: tuple[Line, ...]
    learned: tuple[Learned, ...]
    curves: tuple[Curve, ...]
