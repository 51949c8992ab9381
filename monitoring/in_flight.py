"""Do open bookings go the way that their scores foretold? The farthest of the slices, as a signal."""

from __future__ import annotations

from collections.abc import Sequence

from cancellations.domain.in_flight import Slice
from cancellations.domain.retraining import Signal, Verdict, judge

NAME = "in-flight cancellations"


def in_flight_signal(slices: Sequence[Slice], threshold: float, weight: float) -> Signal:
    """The largest distance from its forecast that any slice has, in standard errors by booking group, either way.

    `slices` as `domain.in_flight` gives them, the farthest first.
    """
    if not slices:
        why = "too few bookings have been scored since the champion was trained"
        return Signal(NAME, None, threshold, Verdict.NOT_EVALUATED, weight, 0, why=why, mailed=True)
    first = slices[0]
    value = abs(first.z)
    before = f"{first.name}: {first.predicted:.1%} predicted to be cancelled"
    after = f"{first.expected:.1%} expected by now, {'more' if first.z > 0 else 'fewer'} than foretold"
    return Signal(NAME, value, threshold, judge(value, threshold), weight, first.rows, before, after, mailed=True)
