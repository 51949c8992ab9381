"""Are the arms of a trial as large as they were meant to be? A count that may be looked at every day.

Each booking's arm is a coin of its own: a salted hash of its id, which knows nothing of the booking,
nor of the group that it belongs to. So the number of bookings in the rival's arm is binomial, though
their outcomes are not independent. A count that no such coin explains tells that bookings were lost,
or dealt twice, or left out on the way, and with them what the trial has read.

The evidence is a ratio of likelihoods: that of a beta mixture around the share over that of the
share itself. Under the share it is a martingale, so with a chance of `alpha` at most it ever reaches
1/alpha, whenever and however often one looks (sequential multinomial test, Lindon & Malek 2022,
arXiv 2011.03567).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Weight of the mixture, in bookings: an arm that is gone is seen within 25 of them, and a share that is off by a
# twelfth among 3,000; a heavier one hardly sees the latter sooner, and the former much later.
MIXTURE = 10.0


@dataclass(frozen=True)
class ArmCount:
    """Bookings in each arm at one point of their way: `dealt`, `served`, `compared`."""

    stage: str
    champion: int
    rival: int

    @property
    def bookings(self) -> int:
        return self.champion + self.rival


def log_evidence(count: ArmCount, share: float) -> float:
    """Log of the evidence against the rival's share; it grows with the bookings where the share is another one.

    >>> round(log_evidence(ArmCount("dealt", 500, 500), 0.5), 2)
    -2.33
    >>> log_evidence(ArmCount("dealt", 600, 400), 0.5) > math.log(1000)
    True
    """
    if share in (0.0, 1.0):
        # Nothing but a fault puts a booking into the other arm.
        return math.inf if (count.rival if share == 0 else count.champion) else 0.0
    a, b = MIXTURE * share, MIXTURE * (1 - share)
    mixed = _log_beta(a + count.rival, b + count.champion) - _log_beta(a, b)
    return mixed - count.rival * math.log(share) - count.champion * math.log1p(-share)


def mismatches(counts: Sequence[ArmCount], share: float, alpha: float) -> tuple[str, ...]:
    """A sentence for each count that the share does not explain.

    `alpha`: chance, for arms that are as they should be, that any of the counts is ever called wrong.
    """
    limit = math.log(len(counts) / alpha) if counts else math.inf
    return tuple(
        f"arms do not have their sizes: of {count.bookings:,} bookings {count.stage} {count.rival:,}"
        f" ({count.rival / count.bookings:.1%}) are in the challenger's, meant were {share:.1%}"
        for count in counts
        if log_evidence(count, share) >= limit
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
