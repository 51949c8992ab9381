"""Versions as the acts begin with them, of a real pipeline with few trees."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.features import FEATURES
from cancellations.domain.labels import Examples
from cancellations.domain.promotion import Change, Standing
from cancellations.domain.recipes import DEFAULT_RECIPE, RECIPES
from cancellations.model import GradientBoosting
from cancellations.ports import Candidate, Classifier, UnitOfWork, VersionRecord


class QuickTrainer(GradientBoosting):
    """The real pipeline with a tenth of its trees, which small worlds suffice for; each column counts alike."""

    _settings: Mapping[str, Any] = {
        **GradientBoosting._settings,
        "max_iter": 10,
        "min_samples_leaf": 20,
        "learning_rate": 0.3,
    }

    def importance(self, model: Classifier, features: pd.DataFrame, label: np.ndarray, seed: int) -> dict[str, float]:
        return dict.fromkeys(FEATURES, 1 / len(FEATURES))


def candidate(built: pd.DataFrame, label: np.ndarray, as_of: date, seed: int) -> Candidate:
    """A version of four fifths of some bookings, for the request `made-SEED`."""
    picked = np.random.default_rng(seed).random(len(built)) < 0.8
    examples = Examples(np.flatnonzero(picked), label[picked], np.ones(int(picked.sum())))
    return Candidate(
        request_id=f"made-{seed}",
        model=QuickTrainer().fit(built, [examples], RECIPES[DEFAULT_RECIPE], seed),
        as_of=as_of,
        recipe=DEFAULT_RECIPE,
        parameters={"seed": seed},
        metrics={"backtest_log_loss": 0.5},
        reasons=("passed",),
        training=built.assign(label=label),
        reference=built.assign(label=label),
        importance=dict.fromkeys(FEATURES, 1 / len(FEATURES)),
    )


def crown(work: UnitOfWork, record: VersionRecord, as_of: date, now: datetime) -> Standing:
    """A registered version is the first champion."""
    work.add_version(record, now)
    return work.change_standing(
        work.standing(),
        champion=record.version,
        challenger=None,
        change=Change.FIRST,
        reason="the first version to pass the gate",
        by="the gate",
        request_id=record.request_id,
        as_of=as_of,
        now=now,
    )
