"""Feature columns, made fit for comparison, and put into words.

Evidently fails on a missing, empty or text-like column and takes the whole report with it, drops
missing values without a word, and lets one keying error fire a distance. So every column is
brought to one type first, and a column that cannot be compared says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cancellations.domain.features import CORE, FeatureSet

# Stands beside the features in a reference.
LABEL = "label"
# One seed for all samples of the monitor: the same window always gives the same report.
SEED = 20
# With a handful of values every distance is large: the noise of a normed Wasserstein distance is
# about 1/sqrt(values), .14 here, still well below its threshold.
MIN_VALUES = 50
MISSING = "(missing)"
# A missing share that moved by less than three points is not worth a word in a mail.
MISSING_TOLD = 0.03
# Values further than this many of the reference's standard deviations from its median are moved
# there: one price of 10^9 must not fire a column, a whole column times 100 still does.
OUTLIER_DEVIATIONS = 10.0


def sample(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """At most `rows` rows, seeded."""
    return frame if len(frame) <= rows else frame.sample(rows, random_state=SEED)


def watched(reference: pd.DataFrame, current: pd.DataFrame) -> FeatureSet:
    """The champion's features, as its reference has them, then those that the window alone has, by kind.

    The kind of a core feature is known; that of another one is read from its type, in the reference first.
    """
    held = FeatureSet.of(reference.drop(columns=LABEL, errors="ignore"))
    since = FeatureSet.of(current.drop(columns=list(held.names), errors="ignore"))
    numbers = {*held.numeric, *since.numeric, *CORE.numeric}.difference(CORE.categorical)
    names = held.names + since.names
    return FeatureSet(tuple(n for n in names if n in numbers), tuple(n for n in names if n not in numbers))


@dataclass(frozen=True)
class Sides:
    """The reference and the window in samples of at most so many rows, each column brought to one type.

    `features` are those of the champion, and what the window has beyond them: columns that were declared since.
    """

    features: FeatureSet
    before: pd.DataFrame
    after: pd.DataFrame

    @classmethod
    def of(cls, reference: pd.DataFrame, current: pd.DataFrame, rows: int) -> Sides:
        features = watched(reference, current)
        before, after = (clean(sample(side, rows), features) for side in (reference, current))
        return cls(features, before, after)

    def obstacle(self, column: str) -> str:
        """Why a column cannot be compared; empty when it can."""
        return obstacle(self.before, self.after, column)


def clean(frame: pd.DataFrame, features: FeatureSet = CORE) -> pd.DataFrame:
    """The features among the frame's columns: numbers `float64` without infinities, categories `object`.

    What is not a number becomes missing in a numeric column. Missing categories stay missing.
    """
    out: dict[str, pd.Series] = {}
    for name in features.numeric:
        if name in frame:
            numbers = pd.to_numeric(frame[name], errors="coerce").astype("float64")
            out[name] = numbers.where(np.isfinite(numbers))
    for name in features.categorical:
        if name in frame:
            values = frame[name].astype(object)
            out[name] = values.map(str).astype(object).where(values.notna(), np.nan)
    return pd.DataFrame(out, index=frame.index)


def is_number(column: pd.Series) -> bool:
    """Of a cleaned column."""
    return pd.api.types.is_numeric_dtype(column.dtype)


def obstacle(reference: pd.DataFrame, current: pd.DataFrame, column: str) -> str:
    """Why a column of cleaned frames cannot be compared; empty when it can."""
    for side, frame in (("reference", reference), ("window", current)):
        if column not in frame:
            return f"the column is missing in the {side}"
        present = int(frame[column].notna().sum())
        if present == 0:
            return f"all {len(frame):,} values are missing, or cannot be read, in the {side}"
        if present < MIN_VALUES:
            return f"only {present} of {len(frame):,} values are present in the {side}, {MIN_VALUES} are needed"
    return ""


def too_few_scores(reference: np.ndarray, current: np.ndarray, min_rows: int) -> str:
    """Why scores of two sides, shapes (rows,), cannot be compared; empty when they can."""
    for side, scores in (("reference", reference), ("window", current)):
        if len(scores) < min_rows:
            return f"{len(scores):,} scored bookings in the {side}, {min_rows:,} are needed"
    return ""


def comparable(reference: pd.Series, current: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Both sides of a cleaned column, ready to be measured.

    Numbers lose their outliers; in categories "missing" becomes a category, because its share is
    as telling as any other.
    """
    if not is_number(reference):
        return reference.fillna(MISSING), current.fillna(MISSING)
    deviation = float(reference.std(ddof=0))
    if deviation > 0:
        middle = float(reference.median())
        low, high = middle - OUTLIER_DEVIATIONS * deviation, middle + OUTLIER_DEVIATIONS * deviation
        return reference.clip(low, high), current.clip(low, high)
    return reference, current


def missing_moved(reference: pd.Series, current: pd.Series) -> float:
    """By how much the missing share changed, in either direction."""
    return abs(float(current.isna().mean()) - float(reference.isna().mean()))


def describe(reference: pd.Series, current: pd.Series) -> tuple[str, str]:
    """What a cleaned column looked like before and looks like now, in a few words each.

    Numbers: the median, or the mean when the medians are the same. Categories: the leading one with
    its share, and the one whose share moved most. The missing share, when it moved.
    """
    texts = _numbers(reference, current) if is_number(reference) else _categories(reference, current)
    if missing_moved(reference, current) >= MISSING_TOLD:
        shares = (reference.isna().mean(), current.isna().mean())
        texts = [f"{text}, {share:.0%} missing" for text, share in zip(texts, shares, strict=True)]
    return texts[0], texts[1]


def _numbers(reference: pd.Series, current: pd.Series) -> list[str]:
    medians = [_number(side.median()) for side in (reference, current)]
    if medians[0] != medians[1]:
        return [f"median {m}" for m in medians]
    return [f"mean {_number(side.mean())}" for side in (reference, current)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _categories(reference: pd.Series, current: pd.Series) -> list[str]:
    shares = [side.value_counts(normalize=True) for side in (reference, current)]
    before, after = (s.reindex(shares[0].index.union(shares[1].index), fill_value=0.0) for s in shares)
    mover = (after - before).abs().idxmax()
    texts = []
    for side in (before, after):
        named = dict.fromkeys([side.idxmax(), mover])
        texts.append(", ".join(f"{str(name)[:24]} {side[name]:.0%}" for name in named))
    return texts
