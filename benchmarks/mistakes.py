"""Versions promoted by force, sound and faulty ones, on the real file: which guard sees what, and what is rolled back.

A version takes over on a day from a sound one that is some weeks older. Its first bookings are looked at by the guards,
each day's features by the checks before scoring, and what matures by its probation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import numpy as np
import pandas as pd

from benchmarks.days import RUN
from benchmarks.days import Stream as Feed
from benchmarks.faults import SERVING, SERVING_FAULTS, TRAINING_FAULTS, Version
from benchmarks.real_trials import Real
from benchmarks.trials import Ruled, Stream, on_probation
from cancellations.domain.checks import Past, learn
from cancellations.domain.guards import Guard, GuardPolicy, Outcome, Pair, look
from cancellations.domain.promotion import TrialState
from cancellations.domain.reservation import group_keys

GUARDS = GuardPolicy()
# A feed that stays broken is looked at for so many days.
BROKEN_DAYS = RUN.days + 1
# The first 200 bookings are made within so many days.
HEALTHY_DAYS = 3


class Where(StrEnum):
    """Where a fault lies."""

    TRAINING = "in training"
    SCORING = "in the new version's scoring, since it was made"
    TAKEOVER = "in the new version's scoring, since it took over"
    FEED = "in the feed of both versions, since the takeover"


@dataclass(frozen=True)
class Mistake:
    """A version with a fault that takes over."""

    fault: str | None  # None: a sound one
    where: Where = Where.TRAINING


SOUND = Mistake(None)
MISTAKES: tuple[Mistake, ...] = (
    *(Mistake(fault) for fault in TRAINING_FAULTS),
    *(Mistake(fault, where) for where in (Where.SCORING, Where.TAKEOVER, Where.FEED) for fault in SERVING_FAULTS),
)


@dataclass(frozen=True)
class Aftermath:
    """What followed a takeover.

    `worse`: whether the new version loses on all that matured later. `probation` as it ended. `fired`: the guards that
    did, after `rows` bookings; None where there were too few bookings to compare with.
    """

    worse: bool
    probation: Ruled
    fired: frozenset[Guard] | None
    rows: int

    @property
    def rolled_back(self) -> int | None:
        """Days until the probation rolled back; None: it did not."""
        return self.probation.days if self.probation.state is TrialState.ROLLED_BACK else None


class Takeovers:
    """New champions on the real file, and what followed."""

    def __init__(self, real: Real) -> None:
        self._real = real
        self._booked_on = real.market.history["booked_on"]
        self._groups = group_keys(real.market.history)
        self._pasts: dict[date, Past] = {}

    def after(self, start: date, age: int, mistake: Mistake = SOUND, on: date | None = None) -> Aftermath:
        """A version trained at a start takes over from one that is so many weeks older, on that day or a later one."""
        takeover = on or start
        since = (self._booked_on > pd.Timestamp(takeover)).to_numpy()
        new = self._said(Version(start), mistake, since, own=True)
        old = self._said(Version(start - timedelta(weeks=age)), mistake, since, own=False)
        rows = self._real.scored.cohort(takeover, self._real.until)
        matured_on, label = self._real.scored.matured_on.iloc[rows], self._real.scored.label[rows]
        stream = Stream.of(takeover, matured_on, label, old[rows], new[rows])
        fired, count = self._guarded(new, old, since)
        return Aftermath(stream.mean <= 0, on_probation(stream), fired, count)

    def held(self, takeover: date, fault: str | None) -> int | None:
        """Bookings until the checks before scoring hold those of a day, under a feed that breaks with a takeover, or
        goes on as it was; None: not within the days of a probation that are looked at."""
        past = self._past(takeover)
        feed = Feed("real", self._real.market.built, self._booked_on, self._groups, pd.DatetimeIndex([]), 1)
        broken = None if fault is None else SERVING[fault]
        for days in range(1, (BROKEN_DAYS if fault else HEALTHY_DAYS) + 1):
            day = pd.Timestamp(takeover) + pd.Timedelta(days=days)
            if feed.failed(day, past, broken, since=days):
                rows = feed.rows(pd.Timestamp(takeover) + pd.Timedelta(days=1), day)
                return rows.stop - rows.start
        return None

    def _past(self, day: date) -> Past:
        if day not in self._pasts:
            before = (self._booked_on <= pd.Timestamp(day)).to_numpy()
            self._pasts[day] = learn(self._real.market.built[before], self._booked_on[before], self._groups[before])
        return self._pasts[day]

    def _said(self, version: Version, mistake: Mistake, since: np.ndarray, *, own: bool) -> np.ndarray:
        """What a version says of each booking; `own`: it is the one with the mistake."""
        said = self._real.scored.probability
        reached = own or mistake.where is Where.FEED
        if mistake.fault is None or not reached:
            return said[version]
        faulty = said[Version(version.trained, mistake.fault)]
        if mistake.where in (Where.TRAINING, Where.SCORING):
            return faulty
        return np.where(since, faulty, said[version])

    def _guarded(self, new: np.ndarray, old: np.ndarray, since: np.ndarray) -> tuple[frozenset[Guard] | None, int]:
        known = np.isfinite(new) & np.isfinite(old)
        first = self._one_of_each_group(known & since)[: GUARDS.rows]
        before = self._one_of_each_group(known & ~since)[-GUARDS.rows * GUARDS.samples :]
        found = look(Pair(new[first], old[first]), Pair(new[before], old[before]), GUARDS)
        count = int((known & since)[: first[-1] + 1].sum())
        if any(one.outcome is Outcome.NOT_EVALUATED for one in found):
            return None, count
        return frozenset(one.guard for one in found if one.outcome is Outcome.FIRED), count

    def _one_of_each_group(self, chosen: np.ndarray) -> np.ndarray:
        """Places of the first booking of each group, in order of booking."""
        places = np.flatnonzero(chosen)
        _, first = np.unique(self._groups[places], return_index=True)
        return places[np.sort(first)]
