"""The quick way to a probability is the pipeline's, for each kind of pipeline; where it is not, it is not taken."""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from cancellations import trees
from cancellations.domain.features import build, past_of
from cancellations.domain.labels import LabelRule, examples
from cancellations.domain.recipes import Recipe, recipe_from
from cancellations.domain.reservation import sized
from cancellations.inference import RowModel
from cancellations.model import GradientBoosting, Model
from cancellations.sources.simulator import simulate

RULE, DAY = LabelRule(), date(2016, 8, 1)
HISTORY = sized(simulate(date(2016, 6, 1), 60, seed=3))
# A feature that is missing everywhere is dropped by the pipeline; a rare category counts as unknown.
FEATURES = build(HISTORY, past_of(HISTORY), RULE).assign(company_cancel_rate=np.nan)
RARE = FEATURES.assign(room_type=[f"room {n}" if n < 600 else room for n, room in enumerate(FEATURES["room_type"])])


@cache
def fitted(labels: str, shift: float = 0.0) -> Model:
    recipe: Recipe = recipe_from("t/1", {"labels": labels, "estimator": {"max_iter": 10}})
    trainer = GradientBoosting()
    model = trainer.fit(RARE, examples(HISTORY, recipe.labels, RULE, DAY), recipe, seed=1)
    return trainer.shifted(model, shift) if shift else model


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    told = frame.astype(object)
    numeric = set(frame.select_dtypes("number"))
    return [
        {name: value if name in numeric or not pd.isna(value) else None for name, value in row.items()}
        for row in told.to_dict("records")
    ]


@pytest.mark.parametrize("labels", ["matured", "hazard", "mix"])
@pytest.mark.parametrize("shift", [0.0, 0.4], ids=["as trained", "recalibrated"])
def test_single_rows_get_what_the_pipeline_gives(labels: str, shift: float) -> None:
    model = fitted(labels, shift)
    quick = RowModel(model, RARE.head(500))
    assert quick.slow is None
    other = pd.concat([RARE.tail(800), RARE.head(50).assign(room_type="never seen", price=np.nan, agent_bookings=99.0)])
    np.testing.assert_allclose(quick.predict(rows(other)), model.predict(other), rtol=0, atol=1e-12)
    one = rows(other.head(1))
    assert quick.predict(one)[0] == quick.predict(rows(other.head(7)))[0]
    assert quick.predict([]).shape == (0,)


def test_a_quick_way_that_differs_is_not_taken_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    right = trees._codes

    def exchanged(encoder: Any, names: Any) -> dict[str, dict[Any, float]]:
        codes = right(encoder, names)
        codes["market_segment"] = {text: code + 1 for text, code in codes["market_segment"].items()}
        return codes

    monkeypatch.setattr(trees, "_codes", exchanged)
    model = fitted("matured")
    slow = RowModel(model, RARE.head(500))
    assert slow.slow is not None and "differs from the pipeline by up to" in slow.slow
    np.testing.assert_array_equal(slow.predict(rows(RARE.head(5))), model.predict(RARE.head(5)))


def test_a_pipeline_of_another_making_answers_itself() -> None:
    numbers = FunctionTransformer(lambda frame: frame[["lead_days", "adults"]].to_numpy())
    pipeline = make_pipeline(numbers, LogisticRegression())
    pipeline.fit(FEATURES, HISTORY["status"].isin(["canceled", "no_show"]))
    model = Model(pipeline)
    slow = RowModel(model, FEATURES.head(100))
    assert slow.slow is not None and "its pipeline is not read" in slow.slow
    np.testing.assert_array_equal(slow.predict(rows(FEATURES.head(9))), model.predict(FEATURES.head(9)))


def test_reasons_say_what_a_usual_value_would_change() -> None:
    model = fitted("matured")
    quick = RowModel(model, RARE)
    refundable = RARE[RARE["deposit_type"] != RARE["deposit_type"].mode()[0]].head(1)
    [row] = rows(refundable)
    first, second, *_ = quick.reasons(row, 3)
    assert abs(first.effect) >= abs(second.effect) > 0
    assert first.value == row[first.feature]
    changed = quick.predict([row, {**row, first.feature: first.usual}])
    assert first.effect == pytest.approx(changed[0] - changed[1], abs=1e-12)
    # What is usual in everything has no reasons.
    usual = {**row, **{r.feature: r.usual for r in quick.reasons(row, 99)}}
    assert all(abs(r.effect) <= abs(first.effect) for r in quick.reasons(usual, 99))
