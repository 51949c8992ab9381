"""Thresholds from a house's own past: what signals have shown of champions that were new.

How far a signal wanders with nothing wrong depends on the house: its seasons, its agents, how many bookings it has.
So past champions are trained anew and looked at in their first weeks, as the monitor would have (walk-forward). Of m
champions that are alike but for chance, the next one's highest value is above the k-th smallest of theirs with a
chance of 1 − k / (m + 1), whatever its distribution (split conformal prediction; Vovk, Gammerman, Shafer 2005). The
threshold is the least such value whose chance is small enough, the highest of all where there are too few champions.

Two signals are harm in units of their own, nats and points. Their thresholds say how much harm is worth a retrain,
and what a house is used to has no say in that: they stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

# Below these a signal means nothing, however quiet a past was; from their own scales, of no data. In-flight: 5 % of
# ideal nulls reach 3.3 over five slices.
LEAST: Mapping[str, float] = {
    "column drift": 0.2,
    "domain classifier": 0.7,
    "in-flight cancellations": 3.3,
    "prediction drift": 0.1,
    "estimated loss": 0.05,
    "volume": 2.0,
}
HARM = ("matured excess loss", "calibration bias")


@dataclass(frozen=True)
class CalibrationPolicy:
    """How the past is walked through.

    A champion every `every_days`, watched for its first `weeks`: under an older one the world has changed. `chance`:
    of a new champion to see an alarm of one signal in as many weeks. Nothing is learned from fewer than
    `min_champions`, which could only tell a chance of one in seven, nor from more than the `max_champions` last
    ones, two years. Only those count that have `history_days` of bookings behind them.
    """

    every_days: int = 28
    weeks: int = 8
    chance: float = 0.1
    min_champions: int = 6
    max_champions: int = 26
    history_days: int = 182


@dataclass(frozen=True)
class PastLook:
    """A look at a past champion: each signal's value where it was evaluated."""

    trained: date
    end: date
    values: Mapping[str, float]


@dataclass(frozen=True)
class Learned:
    """What a signal's past says of its threshold; the documented one stays where there is a reason (`why`).

    `median` and `highest` of `looks` looks at `champions`; `alarmed_before` of them at the documented threshold, and
    `alarmed` at the learned one, at least once. `chance`: of the next champion to see one.
    """

    signal: str
    documented: float
    threshold: float
    champions: int
    looks: int
    median: float | None = None
    highest: float | None = None
    alarmed_before: int = 0
    alarmed: int = 0
    chance: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Calibration:
    """Thresholds as of a day, with the evidence that they come from; without any the documented ones are back.

    `first` to `last`: days of training of the champions that were walked through, `weeks` each was watched.
    """

    as_of: date
    learned: tuple[Learned, ...] = ()
    first: date | None = None
    last: date | None = None
    weeks: int = 0

    def threshold(self, signal: str) -> float | None:
        """None where the documented one stays."""
        return next((own.threshold for own in self.learned if own.signal == signal and not own.why), None)


def learn(looks: Sequence[PastLook], documented: Mapping[str, float], policy: CalibrationPolicy) -> tuple[Learned, ...]:
    """A threshold for each signal that has a documented one, in its order."""
    return tuple(_learn(signal, threshold, looks, policy) for signal, threshold in documented.items())


def trainings(first_booking: date, as_of: date, policy: CalibrationPolicy) -> tuple[date, ...]:
    """Days on which champions of the past are trained, oldest first, such that each can be watched until `as_of`."""
    ordinals = range(
        as_of.toordinal() - 7 * policy.weeks, first_booking.toordinal() + policy.history_days - 1, -policy.every_days
    )
    return tuple(date.fromordinal(day) for day in reversed(ordinals[: policy.max_champions]))


def _learn(signal: str, documented: float, looks: Sequence[PastLook], policy: CalibrationPolicy) -> Learned:
    told = [look for look in looks if signal in look.values]
    highest: dict[date, float] = {}
    for look in told:
        highest[look.trained] = max(highest.get(look.trained, -math.inf), look.values[signal])
    tops, champions = sorted(highest.values()), len(highest)
    why, threshold, chance = "", documented, None
    if champions < policy.min_champions:
        why = f"evaluated under {champions} past champions, {policy.min_champions} are needed"
    elif signal in HARM:
        why = "harm in units of its own: what is usual has no say in what is worth a retrain"
    else:
        place = min(math.ceil((champions + 1) * (1 - policy.chance)), champions)
        # Just beyond it: a signal alarms from its threshold up.
        threshold, chance = max(_up(tops[place - 1]), LEAST.get(signal, 0.0)), 1 - place / (champions + 1)
    return Learned(
        signal,
        documented,
        threshold,
        champions,
        len(told),
        median=float(np.median([look.values[signal] for look in told])) if told else None,
        highest=tops[-1] if tops else None,
        alarmed_before=sum(top >= documented for top in tops),
        alarmed=sum(top >= threshold for top in tops),
        chance=chance,
        why=why,
    )


def _up(value: float) -> float:
    """The next number above of three figures, which people can read."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    above = math.floor(value / step) + 1
    # A quotient may come out just below a whole number.
    return next(up for up in (round(n * step, 12) for n in (above, above + 1)) if up > value)
