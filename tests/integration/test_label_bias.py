"""Why outcomes wait for maturity: what the naive rule, "the label is known", does to the real bookings."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from cancellations.bootstrap import trainer
from cancellations.domain.comparison import log_loss
from cancellations.domain.features import build, past_of
from cancellations.domain.labels import CANCELLED, Examples, LabelRule, Labels, examples
from cancellations.domain.recipes import Recipe
from cancellations.domain.reservation import sized
from cancellations.sources.find import NEARBY, PROJECT
from cancellations.sources.mapped import open_table
from cancellations.sources.selection import Selected
from cancellations.sources.simulator import simulate

RULE = LabelRule()
LONGEST_LEAD = 180


def simulated() -> pd.DataFrame:
    made = simulate(date(2015, 10, 5), 330, seed=20)
    return made[(made["arrival_on"] - made["booked_on"]).dt.days <= LONGEST_LEAD].reset_index(drop=True)


def real() -> pd.DataFrame:
    path = PROJECT / NEARBY
    if not path.exists():
        pytest.skip("the public hotel file is not beside the project")
    source = Selected(
        open_table(path, None), max_lead_days=LONGEST_LEAD, booked_from=None, booked_until=date(2016, 9, 30)
    )
    batches = list(source.batches())
    made = sized(pd.concat([b.reservations for b in batches if b.reservations is not None]))
    ended = pd.concat([b.outcomes for b in batches])
    return made.merge(ended, on="reservation_id").sort_values(["booked_on", "reservation_id"], ignore_index=True)


@pytest.fixture(scope="module", params=[simulated, real], ids=["simulated", "real"])
def history(request: pytest.FixtureRequest) -> pd.DataFrame:
    found: pd.DataFrame = request.param()
    return found


def cancelled(history: pd.DataFrame) -> pd.Series:
    return history["status"].isin(CANCELLED)


def test_of_recent_bookings_those_with_a_known_label_cancelled_far_more_often(history: pd.DataFrame) -> None:
    """On the real file: of the bookings of four weeks a third have a label, and half of these cancelled."""
    for as_of in pd.date_range("2016-03-07", "2016-08-01", freq="28D"):
        recent = history[history["booked_on"].between(as_of - pd.Timedelta(days=27), as_of)]
        known = recent[recent["known_on"] <= as_of]
        assert 0.15 < len(known) / len(recent) < 0.5
        assert cancelled(known).mean() > cancelled(recent).mean() + 0.04


def test_a_model_of_known_labels_sees_cancellations_everywhere_and_one_of_matured_labels_does_not(
    history: pd.DataFrame,
) -> None:
    as_of = date(2016, 5, 2)
    # Later bookings are neither learned from nor judged.
    history = history[history["booked_on"] <= pd.Timestamp(as_of) + pd.Timedelta(days=28)]
    later = history["booked_on"] > pd.Timestamp(as_of)
    built = build(history, past_of(history), RULE)
    truth = cancelled(history)[later].to_numpy(dtype=float)
    known = np.flatnonzero((history["known_on"] <= pd.Timestamp(as_of)).to_numpy())
    naive = Examples(known, cancelled(history).to_numpy(dtype=float)[known], np.ones(len(known)))
    fitted = {"naive": (naive,)} | {kind.value: examples(history, kind, RULE, as_of) for kind in Labels}
    loss, bias = {}, {}
    for name, made in fitted.items():
        predicted = trainer().fit(built, made, Recipe(), seed=20).predict(built[later])
        loss[name] = float(log_loss(truth, predicted).mean())
        bias[name] = float(predicted.mean() - truth.mean())
    # The longer the lead, the surer the naive model: whoever has a label already, so early, has cancelled.
    assert bias["naive"] > 0.1
    assert loss["naive"] > min(loss[kind] for kind in Labels) + 0.05
    assert all(abs(bias[kind]) < 0.07 for kind in Labels)
