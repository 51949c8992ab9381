"""Does a new champion score as it did before it took over? Asked of the first bookings made after, before any label.

What serves a new champion may fail on the day on which it takes over: features that reach it emptied or in another
unit, scores that are dealt to other bookings. Outcomes tell of it weeks later. Five figures tell of it within some 200
bookings: how far the new and the old champion rank them alike (Spearman), how far their scores are spread alike
(population stability index), how far their log odds are apart, on average and from booking to booking, and the loss
that the new champion's scores expect of themselves.

No fixed limit will do: a champion that is half a year old agrees less with any healthy successor than a young one
with a bad one. So each figure is held against *the same pair's* on as many bookings at a time from before the change,
sample by sample. Samples are bookings in a row, because bookings of a day are alike, and one of each booking group.

What was wrong with a version before it took over is in those samples too, and is not seen by them: that is the trial's
task, and the probation's. But for one thing, which a sixth figure tells. A fit of matured labels gives back their mean:
of the bookings that had matured when a version was trained, weighted as they were then, the mean probability and the
share that was cancelled are one. Where they are not it has learnt other labels than those on record: some turned round,
those of bookings that had not matured, or open bookings taken for kept.

A seventh asks whether a version still is what it was. Both champions are given the same stored features, and a version
is a fixed function of them: asked again, it says of each booking what is on record that it said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
import pandas as pd

# Who rolls back, as the ledger names it.
BY_GUARD = "the guard"
# Scores are compared by tenths of what both versions say together.
BINS = 10
# Ranks that agree better than this agree.
CLOSEST = 0.999
# A version says the same of the same features to the last digits; another machine may round those otherwise.
SAME = 1e-6


class Guard(StrEnum):
    """What is looked at."""

    RANKS = "agreement of ranks"  # lower is worse
    SPREAD = "stability of scores"  # population stability index: higher is worse
    LEVEL = "difference of levels"  # mean log odds of the new champion less the old one's
    SCATTER = "scatter of differences"  # standard deviation of that, from booking to booking
    LOSS = "estimated loss"
    LABELS = "labels that it learnt"  # mean probability less share cancelled, of the bookings that it was trained on
    RECORD = "scores on record"  # share of bookings of which it says something else than it did, from the same features


class Outcome(StrEnum):
    """What a guard says of the first bookings."""

    PASSED = "passed"
    FIRED = "fired"
    NOT_EVALUATED = "not evaluated"  # too few bookings from before the change to know what is usual


@dataclass(frozen=True)
class GuardPolicy:
    """Whether guards look, at how many bookings, and how often they may be wrong.

    `rows`: bookings made after the change, one of each booking group, that are looked at, once. `chance`: of a sample
    of the pair's usual bookings to lie beyond a limit, for each guard but the estimated loss, which has a fifth of it.
    `samples`: of so many bookings each from before the change, the last ones; with fewer than `least_samples` a guard
    says nothing. Five guards are wrong together in 2.1 % of healthy changes at most, where samples are as alike as
    thought; the rest of what may be held is left to others.
    `labels_apart`: how far the mean probability may lie from the share that was cancelled of what a version was trained
    on. Of sound ones it is .0002 at most, in simulated markets and on the public file.
    """

    enabled: bool = True
    rows: int = 200
    chance: float = 0.005
    samples: int = 20
    least_samples: int = 6
    labels_apart: float = 0.003

    def __post_init__(self) -> None:
        if not 0 < self.labels_apart < 1:
            raise ValueError(f"labels_apart is {self.labels_apart:g}; it must lie between 0 and 1")
        if self.rows < 50:
            raise ValueError(f"rows is {self.rows}; ranks of fewer than 50 bookings say nothing")
        if not 0 < self.chance < 0.1:
            raise ValueError(f"chance is {self.chance:g}; it must lie between 0 and 0.1")
        if not 6 <= self.least_samples <= self.samples:
            raise ValueError(f"least_samples is {self.least_samples}; it lies between 6 and samples, {self.samples}")


@dataclass(frozen=True)
class Pair:
    """Scores of the same bookings by both champions, in order of booking; shapes (bookings,)."""

    new: np.ndarray
    old: np.ndarray

    def __post_init__(self) -> None:
        if len(self.new) != len(self.old):
            raise ValueError(f"{len(self.new)} scores by the new champion, {len(self.old)} by the old one")
        lacking = int((~np.isfinite(self.new) | ~np.isfinite(self.old)).sum())
        if lacking:
            raise ValueError(f"{lacking} of {len(self.new)} bookings lack a score")

    def __len__(self) -> int:
        return len(self.new)

    def __getitem__(self, rows: slice) -> Pair:
        return Pair(self.new[rows], self.old[rows])


@dataclass(frozen=True)
class GuardFinding:
    """What one guard found: `value` of `rows` bookings, `usual` in the samples before, and the limits.

    `low` and `high` are None on a side that is not guarded, and where the guard was not evaluated, as `usual` is then.
    """

    guard: Guard
    outcome: Outcome
    value: float
    rows: int
    samples: int
    usual: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.guard is Guard.LABELS:
            return self._of_labels()
        if self.guard is Guard.RECORD:
            return self._of_record()
        told = f"{self.guard} on the first {self.rows:,} bookings: {self.outcome}"
        if self.usual is None:
            return f"{told}, {self.value:.3f}; {self.samples} samples from before the change are too few to compare"
        limits = [f"below {self.low:.3f}"] if self.low is not None else []
        limits += [f"above {self.high:.3f}"] if self.high is not None else []
        usually = f"usually {self.usual:.3f}, in {self.samples} samples of as many from before the change"
        return f"{told}, {self.value:.3f} ({usually}; fires {' or '.join(limits)})"

    def _of_labels(self) -> str:
        told = f"{self.guard}: {self.outcome}"
        if self.outcome is Outcome.NOT_EVALUATED:
            return f"{told}; it is no version of matured labels whose training is on record"
        limits = f"fires below {self.low:+.4f} or above {self.high:+.4f}"
        return f"{told}, mean probability {self.value:+.4f} from what became of {self.rows:,} bookings ({limits})"

    def _of_record(self) -> str:
        told = f"{self.guard}: {self.outcome}"
        if self.outcome is Outcome.NOT_EVALUATED:
            return f"{told}; of no booking that it has scored the features are stored"
        apart = round(self.value * self.rows)
        return f"{told}, {apart:,} of {self.rows:,} bookings get another score now from the same stored features"


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two scores of the same bookings, ties shared; 0 where one says the same of all."""
    a, b = (pd.Series(scores).rank().to_numpy() for scores in (one, other))
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def stability_index(one: np.ndarray, other: np.ndarray) -> float:
    """Population stability index of two scores of the same bookings, by tenths of both together; 0 where equal.

    It is the same either way round. A tenth that one of them leaves empty counts as if half a booking were in it.
    """
    edges = np.unique(np.quantile(np.concatenate([one, other]), np.arange(1, BINS) / BINS))
    shares = []
    for scores in (one, other):
        counts = np.bincount(np.searchsorted(edges, scores, side="left"), minlength=len(edges) + 1) + 0.5
        shares.append(counts / counts.sum())
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def expected_loss(scores: np.ndarray) -> float:
    """Mean log loss that calibrated scores expect of themselves, their entropy, in nats."""
    p = np.clip(np.asarray(scores, dtype=float), 1e-6, 1 - 1e-6)
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())


def _apart(pair: Pair) -> np.ndarray:
    """Log odds by the new champion less those by the old one; scores beyond 1 in 1,000 say no more than that."""
    new, old = (np.clip(scores, 1e-3, 1 - 1e-3) for scores in (pair.new, pair.old))
    return np.log(new / (1 - new)) - np.log(old / (1 - old))


@dataclass(frozen=True)
class _Figure:
    """How a guard's figure is made, and on which scale its samples are spread evenly.

    `least_spread`: standard deviation, on that scale, below which differences are of no consequence. `part`: of the
    policy's chance that it takes.
    """

    of: Callable[[Pair], float]
    scaled: Callable[[float], float]
    back: Callable[[float], float]
    least_spread: float
    guards_low: bool
    guards_high: bool
    part: float = 1.0


FIGURES = {
    Guard.RANKS: _Figure(
        lambda pair: rank_correlation(pair.new, pair.old),
        # Fisher's transformation.
        lambda value: math.atanh(min(max(value, -CLOSEST), CLOSEST)),
        math.tanh,
        least_spread=0.1,
        guards_low=True,
        guards_high=False,
    ),
    Guard.SPREAD: _Figure(
        lambda pair: stability_index(pair.new, pair.old),
        lambda value: math.log(value + 0.05),
        lambda scaled: math.exp(scaled) - 0.05,
        least_spread=0.2,
        guards_low=False,
        guards_high=True,
    ),
    Guard.LEVEL: _Figure(
        lambda pair: float(_apart(pair).mean()),
        lambda value: value,
        lambda scaled: scaled,
        least_spread=0.02,
        guards_low=True,
        guards_high=True,
    ),
    Guard.SCATTER: _Figure(
        lambda pair: float(_apart(pair).std()),
        lambda value: math.log(value + 0.1),
        lambda scaled: math.exp(scaled) - 0.1,
        least_spread=0.1,
        guards_low=False,
        guards_high=True,
    ),
    Guard.LOSS: _Figure(
        lambda pair: expected_loss(pair.new),
        lambda value: math.log(value + 1e-6),
        lambda scaled: math.exp(scaled) - 1e-6,
        least_spread=0.02,
        guards_low=True,
        guards_high=True,
        # The only one of a single version: it moves with who books, too. What it is there for lies far outside.
        part=0.2,
    ),
}


def look(first: Pair, before: Pair, policy: GuardPolicy) -> tuple[GuardFinding, ...]:
    """What each guard says of the first bookings after a change, by those from before it, both in order of booking.

    Of `before` the last ones count. Pure: the same scores, the same findings. A guard fires when its figure lies beyond
    all that the samples showed, and where one more sample of them would lie with its part of `chance` at most.
    """
    samples = [before[slice(end - policy.rows, end)] for end in range(len(before), policy.rows - 1, -policy.rows)]
    samples = samples[: policy.samples]
    return tuple(_judge(guard, first, samples, policy) for guard in FIGURES)


def learnt(probability: np.ndarray, label: np.ndarray, weight: np.ndarray, policy: GuardPolicy) -> GuardFinding:
    """Whether a version has learnt the labels of the bookings that it was trained on, by what it says of them.

    Each of shape (bookings,), `label` and `weight` as `domain.labels.whole` gives them. Without any it says nothing.
    """
    if not len(label):
        return GuardFinding(Guard.LABELS, Outcome.NOT_EVALUATED, 0.0, 0, 0)
    value = float(np.average(probability - label, weights=weight))
    apart = policy.labels_apart
    outcome = Outcome.FIRED if abs(value) > apart else Outcome.PASSED
    return GuardFinding(Guard.LABELS, outcome, value, len(label), 0, 0.0, -apart, apart)


def repeated(recorded: np.ndarray, again: np.ndarray) -> GuardFinding:
    """Whether a version says of bookings what it said when it scored them, from the same features.

    Probabilities on record, and as they come out now; shapes (bookings,). Without any it says nothing.
    """
    if not len(recorded):
        return GuardFinding(Guard.RECORD, Outcome.NOT_EVALUATED, 0.0, 0, 0)
    # A score that is no number is another one.
    value = float((~(np.abs(recorded - again) <= SAME)).mean())
    outcome = Outcome.FIRED if value > 0 else Outcome.PASSED
    return GuardFinding(Guard.RECORD, outcome, value, len(recorded), 0, usual=0.0, high=0.0)


def _judge(guard: Guard, first: Pair, samples: Sequence[Pair], policy: GuardPolicy) -> GuardFinding:
    figure = FIGURES[guard]
    value = figure.of(first)
    if len(samples) < policy.least_samples:
        return GuardFinding(guard, Outcome.NOT_EVALUATED, value, len(first), len(samples))
    shown = np.array([figure.scaled(figure.of(sample)) for sample in samples])
    # A guard of both sides shares its chance between them.
    tail = policy.chance * figure.part / (figure.guards_low + figure.guards_high)
    spread = max(float(shown.std(ddof=1)), figure.least_spread)
    # Of one more value of a normal distribution that these many are known of.
    reach = student_quantile(1 - tail, len(shown) - 1) * spread * math.sqrt(1 + 1 / len(shown))
    low = figure.back(min(shown.mean() - reach, shown.min())) if figure.guards_low else None
    high = figure.back(max(shown.mean() + reach, shown.max())) if figure.guards_high else None
    fired = (low is not None and value < low) or (high is not None and value > high)
    outcome = Outcome.FIRED if fired else Outcome.PASSED
    usual = figure.back(float(shown.mean()))
    return GuardFinding(guard, outcome, value, len(first), len(shown), usual, low, high)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's distribution, from 5 degrees of freedom on, to 2 % (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))
