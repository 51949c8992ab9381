"""Many rows at once get what the pipeline gives, to the last bit; where they would not, the pipeline answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_inference import DAY, HISTORY, RARE, RULE, fitted

from cancellations import trees
from cancellations.domain.labels import Labels, examples
from cancellations.domain.recipes import recipe_from
from cancellations.errors import BadInput
from cancellations.model import GradientBoosting, Model
from cancellations.trees import FramePredictor

STRANGE = RARE.head(50).assign(room_type="never seen", meal=None, price=np.nan, agent_bookings=99.0, lead_days=-1e9)
MANY = pd.concat([RARE, STRANGE], ignore_index=True)


@pytest.mark.parametrize("labels", ["matured", "hazard", "mix"])
@pytest.mark.parametrize("shift", [0.0, 0.4], ids=["as trained", "recalibrated"])
def test_a_frame_gets_what_the_pipeline_gives(labels: str, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "BLOCK", 700)
    model = fitted(labels, shift)
    np.testing.assert_array_equal(FramePredictor(model.pipeline).predict(MANY), model._by_pipeline(MANY))


def test_one_row_gets_what_it_gets_among_many() -> None:
    predictor = FramePredictor(fitted("matured").pipeline)
    assert predictor.predict(MANY.iloc[[7]]) == predictor.predict(MANY)[7]


def test_trees_of_more_leaves_than_there_are_bits_are_refused_and_asked_of_the_pipeline() -> None:
    recipe = recipe_from("t/1", {"estimator": {"max_iter": 5, "max_leaf_nodes": 40, "min_samples_leaf": 20}})
    model = GradientBoosting().fit(RARE, examples(HISTORY, Labels.MATURED, RULE, DAY), recipe, seed=1)
    with pytest.raises(BadInput, match=r"a tree has [0-9]+ leaves"):
        FramePredictor(model.pipeline)
    np.testing.assert_array_equal(model.predict(MANY), model._by_pipeline(MANY))


def test_a_way_that_differs_on_the_first_rows_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    right = trees._codes

    def exchanged(encoder: Any, names: Any) -> dict[str, dict[Any, float]]:
        codes = right(encoder, names)
        codes["market_segment"] = {text: code + 1 for text, code in codes["market_segment"].items()}
        return codes

    monkeypatch.setattr(trees, "_codes", exchanged)
    model = Model(fitted("matured").pipeline)
    wrong = FramePredictor(model.pipeline).predict(MANY)
    assert (wrong != model._by_pipeline(MANY)).any()
    np.testing.assert_array_equal(model.predict(MANY), model._by_pipeline(MANY))
