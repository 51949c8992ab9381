"""Versions promoted by force, sound and faulty ones, on the real file: which guard sees what, and what is rolled back.

A version takes over on a day from a sound one that is some weeks older. Its first bookings are looked at by the guards,
each day's features by the checks before scoring, and what matures by its probation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import numpy as np
import pandas as pd

from benchmarks.days import RUN
from benchmarks.days import Stream as Feed
from benchmarks.faults import FEED_FAULTS, SERVING, SERVING_FAULTS, TRAINING_FAULTS, Version, sound_examples
from benchmarks.figures import number
from benchmarks.real_trials import Real
from benchmarks.trials import Stream, on_probation
from cancellations.domain.checks import Past, learn
from cancellations.domain.guards import Guard, GuardPolicy, Outcome, Pair, learnt, look, repeated
from cancellations.domain.labels import Examples
from cancellations.domain.promotion import TrialState
from cancellations.domain.reservation import group_keys

GUARDS = GuardPolicy()
# A feed that stays broken is looked at for so many days.
BROKEN_DAYS = RUN.days + 1
# The first 200 bookings are made within so many days.
HEALTHY_DAYS = 3
# A mistake should be undone within so many days.
WITHIN = 28


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
    *(Mistake(fault, where) for where in (Where.SCORING, Where.TAKEOVER) for fault in SERVING_FAULTS),
    *(Mistake(fault, Where.FEED) for fault in FEED_FAULTS),
)


class Means(StrEnum):
    """What keeps bookings from a new champion, in the order in which it does on one day."""

    HOLD = "held before scoring"
    GUARD = "rolled back by a guard"
    PROBATION = "rolled back on probation"


@dataclass(frozen=True)
class Seen:
    """Something is wrong: by which means, how many days and bookings made after the takeover."""

    means: Means
    days: int
    rows: int


@dataclass(frozen=True)
class Aftermath:
    """What followed a takeover.

    `worse`: whether the new version loses on all that matured later. `fired`: the guards that did; None where there
    were too few bookings to compare with. `seen`: what saw something wrong, each by itself.
    """

    worse: bool
    fired: frozenset[Guard] | None
    seen: tuple[Seen, ...]

    @property
    def first(self) -> Seen | None:
        """What saw it first; None: nothing did."""
        order = list(Means)
        return min(self.seen, key=lambda one: (one.days, order.index(one.means)), default=None)

    def by(self, means: Means) -> Seen | None:
        """What one of them saw, whatever the others did."""
        return next((one for one in self.seen if one.means is means), None)


HEADINGS = (
    "fault",
    "where",
    "champion before it",
    "takeovers",
    "worse",
    "asked",
    *Means,
    "nothing",
    f"within {WITHIN} days",
    "guards that fire",
    "bookings until seen",
    "days until seen",
)


@dataclass(frozen=True)
class Group:
    """Takeovers of one kind, and how often something should see that they are bad: those that count are `asked`."""

    fault: str
    where: str
    before: str
    found: Sequence[Aftermath]
    asked: Sequence[Aftermath]

    @property
    def name(self) -> str:
        return f"{self.fault}, {self.where}, champion before it of {self.before}"

    def row(self) -> tuple[str, ...]:
        """As it stands in the table, by what saw each of those asked first."""
        first = [one.first for one in self.asked]
        seen = [one for one in first if one is not None]
        by = [sum(one.means is means for one in seen) for means in Means]
        guards = Counter(guard for one in self.asked for guard in one.fired or ())
        told = ", ".join(f"{guard} {guards[guard]}" for guard in Guard if guards[guard])
        soon = sum(one.days <= WITHIN for one in seen)
        counts = (
            len(self.found),
            sum(one.worse for one in self.found),
            len(self.asked),
            *by,
            len(first) - len(seen),
            soon,
        )
        spans = (_span([one.rows for one in seen]), _span([one.days for one in seen]))
        return (self.fault, self.where, self.before, *map(str, counts), told, *spans)


def _span(values: Sequence[int]) -> str:
    return f"{number(float(np.median(values)))} ({min(values):,} to {max(values):,})" if values else ""


class Takeovers:
    """New champions on the real file, and what followed."""

    def __init__(self, real: Real) -> None:
        self._real = real
        self._booked_on = real.market.history["booked_on"]
        self._groups = group_keys(real.market.history)
        self._group_number = pd.factorize(self._groups)[0]
        self._pasts: dict[date, Past] = {}
        self._examples: dict[date, Examples] = {}
        self._held: dict[tuple[date, str | None], Seen | None] = {}

    def after(self, start: date, age: int, mistake: Mistake = SOUND, on: date | None = None) -> Aftermath:
        """A version trained at a start takes over from one that is so many weeks older, on that day or a later one."""
        takeover = on or start
        since = (self._booked_on > pd.Timestamp(takeover)).to_numpy()
        new = self._said(Version(start), mistake, since, own=True)
        old = self._said(Version(start - timedelta(weeks=age)), mistake, since, own=False)
        rows = self._real.scored.cohort(takeover, self._real.until)
        matured_on, label = self._real.scored.matured_on.iloc[rows], self._real.scored.label[rows]
        stream = Stream.of(takeover, matured_on, label, old[rows], new[rows])
        # Both versions are given the features that are stored: what one alone gets wrong lies behind them, and who asks
        # it again finds it.
        again = self._said(Version(start), SOUND, since, own=True) if mistake.where is Where.TAKEOVER else new
        fired, looked = self._guarded(start, takeover, (new, old, again), since)
        # Checks look at the features that both versions are given.
        shared = mistake.where is Where.FEED or mistake.fault is None
        seen = (
            self._checked(takeover, mistake.fault) if shared else None,
            looked if fired else None,
            self._on_probation(takeover, stream),
        )
        return Aftermath(stream.mean <= 0, fired, tuple(one for one in seen if one is not None))

    def _on_probation(self, takeover: date, stream: Stream) -> Seen | None:
        ruled = on_probation(stream)
        if ruled.state is not TrialState.ROLLED_BACK:
            return None
        return self._seen(Means.PROBATION, takeover, ruled.days)

    def _checked(self, takeover: date, fault: str | None) -> Seen | None:
        """The first day that the checks before scoring hold, under a feed that breaks with the takeover or goes on as
        it was."""
        if (takeover, fault) not in self._held:
            self._held[takeover, fault] = self._hold(takeover, fault)
        return self._held[takeover, fault]

    def _hold(self, takeover: date, fault: str | None) -> Seen | None:
        past = self._past(takeover)
        feed = Feed("real", self._real.market.built, self._booked_on, self._groups, pd.DatetimeIndex([]), 1)
        broken = None if fault is None else SERVING[fault]
        for days in range(1, (BROKEN_DAYS if fault else HEALTHY_DAYS) + 1):
            if feed.failed(pd.Timestamp(takeover) + pd.Timedelta(days=days), past, broken, since=days):
                return self._seen(Means.HOLD, takeover, days)
        return None

    def _seen(self, means: Means, takeover: date, days: int) -> Seen:
        made = self._real.market.rows(takeover, takeover + timedelta(days=days))
        return Seen(means, days, made.stop - made.start)

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

    def _guarded(
        self, trained: date, takeover: date, said: tuple[np.ndarray, np.ndarray, np.ndarray], since: np.ndarray
    ) -> tuple[frozenset[Guard] | None, Seen]:
        """The guards that fire, and when they look; `said` by the new version, by the old one, by the new one again."""
        new, old, again = said
        known = np.isfinite(new) & np.isfinite(old)
        first = self._one_of_each_group(known & since)[: GUARDS.rows]
        before = self._one_of_each_group(known & ~since)[-GUARDS.rows * GUARDS.samples :]
        looked_at, seen = np.concatenate([before, first]), self._trained_on(trained)
        found = (
            *look(Pair(new[first], old[first]), Pair(new[before], old[before]), GUARDS),
            learnt(new[seen.row], seen.label, seen.weight, GUARDS),
            repeated(new[looked_at], again[looked_at]),
        )
        days = (self._booked_on.iloc[first[-1]].date() - takeover).days
        looked = Seen(Means.GUARD, days, int((known & since)[: first[-1] + 1].sum()))
        if any(one.outcome is Outcome.NOT_EVALUATED for one in found):
            return None, looked
        return frozenset(one.guard for one in found if one.outcome is Outcome.FIRED), looked

    def _trained_on(self, day: date) -> Examples:
        if day not in self._examples:
            self._examples[day] = sound_examples(self._real.market, day)
        return self._examples[day]

    def _one_of_each_group(self, chosen: np.ndarray) -> np.ndarray:
        """Places of the first booking of each group, in order of booking."""
        places = np.flatnonzero(chosen)
        _, first = np.unique(self._group_number[places], return_index=True)
        return places[np.sort(first)]
