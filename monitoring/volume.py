"""Do as many bookings come in as usually do?"""

from __future__ import annotations

from cancellations.domain.retraining import Signal, Verdict, judge
from cancellations.domain.volume import Volume

NAME = "volume"


def volume_signal(found: Volume | None, threshold: float, weight: float) -> Signal:
    """How far the week's bookings are from what the weeks before let expect, either way."""
    if found is None:
        why = "too few weeks of bookings to know how many usually come"
        return Signal(NAME, None, threshold, Verdict.NOT_EVALUATED, weight, 0, why=why, mailed=True)
    value = abs(found.z)
    silent = f", none in the last {found.silent_days} days" if found.silent_days > 1 else ""
    before, after = f"{found.expected:,.0f} bookings a week expected", f"{found.bookings:,} came{silent}"
    return Signal(NAME, value, threshold, judge(value, threshold), weight, found.bookings, before, after, mailed=True)
