"""An operator's mistake, for the demo: a model from a notebook whose export had lost cancellations.

It is what gates exist for, so it goes past ours: trained outside, registered in MLflow by hand, and
made champion by a person with `cancellations promote`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np

from cancellations.bootstrap import App
from cancellations.domain import labels
from cancellations.domain.recipes import DEFAULT_RECIPE
from cancellations.ports import Candidate, VersionRecord
from cancellations.usecases.point_in_time import as_scored

LOST = 0.5


def register_notebook_model(app: App, as_of: date) -> VersionRecord:
    """Trains as the house does, but on labels of which half of the cancellations were lost."""
    rule, seed, recipe = app.settings.labels, app.settings.retrain.seed, app.settings.cookbook[DEFAULT_RECIPE]
    with app.store.begin() as work:
        history = work.history(booked_until=as_of, known_until=as_of)
        cohort = labels.matured(history, rule, as_of=as_of)
        built = as_scored(work, cohort, rule)
    lost = np.random.default_rng(seed).random(len(cohort)) < LOST
    made = labels.whole(cohort, rule, as_of, weighted=recipe.weighted)
    label = np.where(lost, 0.0, made.label)
    model = app.trainer.fit(built, [replace(made, label=label)], recipe, seed)
    sample = built.assign(label=label).sample(min(app.settings.retrain.reference_rows, len(built)), random_state=seed)
    return app.registry.register(
        Candidate(
            request_id=f"notebook-{as_of}",
            model=model,
            as_of=as_of,
            recipe="",
            parameters={**app.trainer.parameters(recipe), "seed": seed},
            metrics={"training_rows": float(len(cohort)), "training_cancel_rate": float(label.mean())},
            reasons=("trained in a notebook; no backtest, no gate",),
            training=built.assign(
                label=label, matured_on=cohort["matured_on"], reservation_id=cohort["reservation_id"]
            ),
            reference=sample.sort_index().reset_index(drop=True),
            importance=dict.fromkeys(built, 1 / len(built.columns)),
            tags={"reason": "a notebook experiment"},
        )
    )
