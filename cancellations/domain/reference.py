"""What a window is held against: one design decides, the others are shown beside it.

Each asks another question. The training reference asks whether the world is still the one that the champion learned;
it is far away in season. The weeks before the window ask what changed lately, and grow used to slow changes. The same
weeks of last year ask for what a season cannot explain, and hold whatever a year brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

# A year of whole weeks: bookings have a weekly rhythm.
YEAR = timedelta(days=364)


class Design(StrEnum):
    """Which bookings are the reference."""

    TRAINING = "training"  # a sample of those that the champion was trained on
    WEEKS = "weeks"  # those made in the weeks before the window
    SEASON = "season"  # those made in the same weeks of last year


@dataclass(frozen=True)
class ReferencePolicy:
    """The design that decides; `weeks` is how many lie before the window in that design, `rows` at most compared."""

    design: Design = Design.TRAINING
    weeks: int = 13
    rows: int = 5_000

    def span(self, design: Design, start: date, end: date) -> tuple[date, date] | None:
        """First and last day of booking of the reference of a window; None of the training's, which has none."""
        if design is Design.TRAINING:
            return None
        if design is Design.SEASON:
            return start - YEAR, end - YEAR
        return start - timedelta(weeks=self.weeks), start - timedelta(days=1)

    def named(self, design: Design) -> str:
        """For people."""
        return {
            Design.TRAINING: "the champion's training",
            Design.WEEKS: f"the {self.weeks} weeks before",
            Design.SEASON: "the same weeks of last year",
        }[design]
