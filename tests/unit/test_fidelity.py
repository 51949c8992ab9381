"""A simulated table and a real one are compared by figures that mean what they say."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cancellations.domain.fidelity import GROUPS, MARGINS, RATES, Curve, Fidelity, Learned, Line
from cancellations.domain.labels import LabelRule
from cancellations.errors import NotEnoughData
from cancellations.model import GradientBoosting
from cancellations.sources.simulator import Drift, DriftKind, Simulator
from cancellations.usecases.fidelity import area_under_curve, compare, design_effect
from monitoring.fidelity_plot import draw

START, DAYS = date(2016, 1, 1), 60


class Quick(GradientBoosting):
    """The real pipeline with a tenth of its trees."""

    _settings: Mapping[str, Any] = {**GradientBoosting._settings, "max_iter": 10}


def world(seed: int = 1, drifts: tuple[Drift, ...] = (), days: int = DAYS) -> Simulator:
    return Simulator(START, days, seed, drifts)


def figures(found: Fidelity, section: str) -> dict[str, tuple[float, float]]:
    return {line.figure: (line.real, line.simulated) for line in found.lines if line.section == section}


@given(
    label=st.lists(st.integers(0, 1), min_size=4, max_size=60).filter(lambda x: len(set(x)) == 2),
    seed=st.integers(0, 1000),
)
def test_the_area_is_that_of_everybody_else_with_ties_too(label: list[int], seed: int) -> None:
    truth = np.array(label, float)
    answer = np.random.default_rng(seed).integers(0, 5, len(truth)) / 4
    assert area_under_curve(truth, answer) == pytest.approx(roc_auc_score(truth, answer))


@pytest.mark.parametrize("size", [1, 2, 20])
def test_groups_that_end_as_one_have_a_design_effect_of_their_size(size: int) -> None:
    fate = np.tile([1.0, 0.0], 500)
    group = np.repeat(np.arange(1_000), size)
    assert design_effect(pd.Series(np.repeat(fate, size)), pd.Series(group)) == pytest.approx(size)


def test_a_table_beside_itself_is_the_same_in_every_figure() -> None:
    found = compare(world(), world(), Quick(), LabelRule(), seed=3)
    for line in found.lines:
        np.testing.assert_equal(line.simulated, line.real, err_msg=line.figure)
    assert len({(each.auc, each.log_loss) for each in found.learned}) == 1
    assert all(curve.real == curve.simulated for curve in found.curves)
    assert found.rows[0] == found.rows[1]
    assert {line.section for line in found.lines} == {"margins", "cancelled", "groups", "delays"}


def test_what_differs_is_seen_where_it_differs() -> None:
    drifts = (Drift(DriftKind.PRICE_SHOCK, START, 2.0), Drift(DriftKind.FREE_CANCELLATION, START, 4.0))
    found = compare(world(), world(drifts=drifts), Quick(), LabelRule(), seed=3)
    real, simulated = figures(found, MARGINS)["price, quantile 0.5"]
    assert simulated == pytest.approx(2 * real, rel=0.01)
    real, simulated = figures(found, MARGINS)["lead, days, quantile 0.5"]
    assert simulated == real
    real, simulated = figures(found, RATES)["market_segment Online TA"]
    assert simulated > real + 0.15
    real, simulated = figures(found, GROUPS)["largest group"]
    assert simulated == real


def test_only_days_that_both_tables_span_are_compared() -> None:
    later = Simulator(date(2016, 1, 20), DAYS, 1)
    found = compare(world(), later, Quick(), LabelRule(), seed=3)
    assert found.booked == (date(2016, 1, 20), date(2016, 2, 29))
    assert found.rows[0] == found.rows[1]


def test_tables_too_small_or_apart_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="too few to train or test on"):
        compare(world(days=1), world(days=1), Quick(), LabelRule(), seed=3)
    with pytest.raises(NotEnoughData, match="holds 0 bookings"):
        compare(world(days=20), Simulator(date(2017, 1, 1), 20, 1), Quick(), LabelRule(), seed=3)


def test_the_picture_can_be_drawn_of_any_names_and_of_what_is_not_known() -> None:
    found = Fidelity(
        real="a.csv",
        simulated="simulator",
        rows=(500, 600),
        booked=(START, START),
        lines=(
            Line(RATES, "hotel A $x^2 and a name that is longer than any label can be in a picture", 0.3, 0.4),
            Line(RATES, "only here", 0.2, float("nan")),
        ),
        learned=(Learned("real", "real", 10, 10, 0.8, 0.4), Learned("simulated", "real", 10, 10, 0.7, 0.5)),
        curves=(Curve("lead, days", (0.0, 1.0, 9.0), (0.0, 2.0, 9.0)), Curve("nights", (0.0, 0.0), (0.0, 0.0))),
    )
    png = draw(found)
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (1300, 1050)
    assert draw(found) == png
    assert draw(replace(found, learned=found.learned[:1])) != png
