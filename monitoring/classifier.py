"""Can a classifier tell the window's bookings from the training reference?

One number for drift in all columns together, interactions included (Rabanser, Günnemann, Lipton
2019, arXiv 1810.11953): .5 means that nothing tells them apart.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier

from cancellations.domain.retraining import Signal, Verdict, judge
from monitoring.columns import MISSING, SEED, Sides, describe, is_number, sample

NAME = "domain classifier"
FOLDS = 4
# Running records of agents and companies grow with the calendar: they date a booking, and with them
# the classifier tells time (.94 to .98 in every window of the public file), not a changed world.
LEFT_OUT = ("agent_cancel_rate", "agent_bookings", "company_cancel_rate")
# The model takes at most 255 categories in a column; rarer ones are put together.
MAX_CATEGORIES = 200
TOLD = 2
# Which columns tell is asked of this many bookings: each is scored once for every column.
ASKED = 2_000


def domain_classifier(sides: Sides, bookings: int, threshold: float, weight: float, *, telling: bool = True) -> Signal:
    """Out-of-fold AUC on samples of equal size, and the columns that tell most, before and after.

    Identical rows share a fold, because a group's bookings are copies of one another. `bookings`: of the whole
    window. Which columns tell is not asked where `telling` is False: it takes a quarter of the time.
    """
    features, before, after = sides.features, sides.before, sides.after
    columns = [c for c in features.names if c not in LEFT_OUT and not sides.obstacle(c)]
    if not columns:
        why = "no feature can be compared"
        return Signal(NAME, None, threshold, Verdict.NOT_EVALUATED, weight, bookings, why=why)
    rows = min(len(before), len(after))
    pooled = pd.concat([sample(side, rows)[columns] for side in (before, after)], ignore_index=True)
    origin = np.repeat([0, 1], rows)
    matrix, folds = _encode(pooled), _folds(pooled)
    score = np.full(2 * rows, np.nan)
    shuffled = np.full((len(columns), 2 * rows), np.nan)
    shuffle = np.random.default_rng(SEED)
    asked = np.zeros(2 * rows, dtype=bool)
    asked[shuffle.permutation(2 * rows)[: ASKED if telling else 0]] = True
    for fold in range(FOLDS):
        held = folds == fold
        if not held.any() or len(set(origin[~held])) < 2:
            continue
        model = _model([c in features.categorical for c in columns]).fit(matrix[~held], origin[~held])
        score[held] = model.predict_proba(matrix[held])[:, 1]
        some = held & asked
        if some.any():
            # All columns' turns in one call: each call of the model costs more than its rows.
            permuted = np.repeat(matrix[some][None], len(columns), axis=0)
            for j in range(len(columns)):
                permuted[j, :, j] = shuffle.permutation(permuted[j, :, j])
            told = model.predict_proba(permuted.reshape(-1, len(columns)))[:, 1]
            shuffled[:, some] = told.reshape(len(columns), -1)
    scored = np.isfinite(score)
    if len(set(origin[scored])) < 2:
        why = f"the {2 * rows:,} bookings are too much alike to be divided into folds"
        return Signal(NAME, None, threshold, Verdict.NOT_EVALUATED, weight, rows, why=why)
    auc = _auc(origin[scored], score[scored])
    lost = _lost(origin, score, shuffled, scored & asked)
    tellers = [columns[j] for j in np.argsort(lost)[::-1][:TOLD] if lost[j] > 0]
    texts = {c: describe(before[c], after[c]) for c in tellers}
    was, is_now = ("; ".join(f"{c} {pair[side]}" for c, pair in texts.items()) for side in (0, 1))
    return Signal(NAME, auc, threshold, judge(auc, threshold), weight, rows, was, is_now)


def _lost(origin: np.ndarray, score: np.ndarray, shuffled: np.ndarray, asked: np.ndarray) -> list[float]:
    """What the AUC on the asked rows loses with each column shuffled; nothing where they are of one side."""
    if len(set(origin[asked])) < 2:
        return [0.0] * len(shuffled)
    auc = _auc(origin[asked], score[asked])
    return [auc - _auc(origin[asked], column[asked]) for column in shuffled]


def _auc(origin: np.ndarray, score: np.ndarray) -> float:
    """Chance that a booking of the window scores higher than one of the reference (Mann-Whitney)."""
    ranks = rankdata(score)
    ours = int(origin.sum())
    return float((ranks[origin == 1].sum() - ours * (ours + 1) / 2) / (ours * (len(origin) - ours)))


def _encode(frame: pd.DataFrame) -> np.ndarray:
    encoded = {c: frame[c] if is_number(frame[c]) else _codes(frame[c].fillna(MISSING)) for c in frame}
    return pd.DataFrame(encoded, index=frame.index).to_numpy(dtype=float)


def _codes(values: pd.Series) -> np.ndarray:
    """Categories as numbers from 0, the most frequent first; those beyond `MAX_CATEGORIES` share one."""
    codes, names = pd.factorize(values, sort=True)
    rank = np.empty(len(names), dtype=int)
    rank[np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")] = np.arange(len(names))
    return np.minimum(rank[codes], MAX_CATEGORIES - 1)


def _folds(frame: pd.DataFrame) -> np.ndarray:
    return (pd.util.hash_pandas_object(frame, index=False) % FOLDS).to_numpy()


def _model(categorical: list[bool]) -> HistGradientBoostingClassifier:
    # Small on purpose: drift worth a retrain shows in a few splits, and the monitor runs every week.
    return HistGradientBoostingClassifier(
        max_iter=40,
        max_leaf_nodes=8,
        min_samples_leaf=30,
        categorical_features=categorical,
        early_stopping=False,
        random_state=SEED,
    )
