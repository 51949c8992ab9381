"""Sums over what came before, by keys and day, for many rows at once: what joins with running totals would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def days_of(dates: pd.Series) -> np.ndarray:
    """Days since 1970, int64."""
    return dates.to_numpy().astype("datetime64[D]").astype("int64")


def numbers_of(texts: pd.Series, known: dict[str, int]) -> np.ndarray:
    """A number for each text, int64: 0 where it is missing, else its own in `known`, which learns those it lacks."""
    place, met = pd.factorize(texts)
    own = [known.setdefault(text, len(known) + 1) for text in met.tolist()]
    # What is missing has the place -1, the last.
    return np.array([*own, 0], dtype="int64")[place]


def sums_before(
    rows: Sequence[np.ndarray],
    days: np.ndarray,
    values: Sequence[np.ndarray],
    asked: Sequence[np.ndarray],
    asked_days: np.ndarray,
) -> list[np.ndarray]:
    """For each one asked, the sums of whole numbers over the rows with its keys on days before its own, float64.

    `rows` and `asked`: one array of whole numbers for each key. Exact, whatever the order of the rows.
    """
    if not len(days):
        return [np.zeros(len(asked_days)) for _ in values]
    at, wanted = np.zeros(len(days), dtype="int64"), np.zeros(len(asked_days), dtype="int64")
    for of_rows, of_asked in zip([*rows, days], [*asked, asked_days], strict=True):
        low = min(of_rows.min(), of_asked.min(initial=of_rows[0]))
        span = max(of_rows.max(), of_asked.max(initial=of_rows[0])) - low + 1
        # All keys and the day as one number: rows of one key stand together, in the order of their days.
        at = at * span + (of_rows - low)
        wanted, first = wanted * span + (of_asked - low), wanted * span
    order = np.argsort(at)
    at = at[order]
    begin, end = np.searchsorted(at, first), np.searchsorted(at, wanted)
    found = []
    for each in values:
        running = np.concatenate([[0], np.cumsum(each[order])])
        found.append((running[end] - running[begin]).astype("float64"))
    return found
