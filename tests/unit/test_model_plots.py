"""The pictures of versions can be drawn of any cohort, and every panel of them follows its figures."""

from __future__ import annotations

import struct
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cancellations.domain.evaluation import Cohort, Evaluation
from cancellations.metrics import GroupBootstrap
from monitoring.plots import ReportPictures

SIZE = (1200, 1020)
COLUMNS = {"lead_days": 0.6, "special_requests": 0.3, "price": 0.1, "meal": 0.0}


def cohort_of(rows: int, days: int = 42, segments: tuple[object, ...] = ("Online TA", "Groups", np.nan)) -> Cohort:
    rng = np.random.default_rng(8)
    days_after = pd.to_timedelta(rng.integers(0, days, rows), unit="D")
    return Cohort(
        label=(rng.random(rows) < 0.35).astype(float),
        matured_on=(pd.Timestamp("2016-08-15") + days_after).to_numpy(),
        groups=rng.integers(0, max(1, rows // 2), rows),
        segment=np.array(segments, dtype=object)[rng.integers(0, len(segments), rows)],
    )


COHORT = cohort_of(600)
SCORES = np.random.default_rng(9).random(600)


def size(picture: bytes) -> tuple[int, int]:
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def version(
    cohort: Cohort, probability: np.ndarray, name: str = "Version 7", base: float = 0.3, **instead: float
) -> bytes:
    evaluation = GroupBootstrap(resamples=20).evaluate(cohort.label, probability, cohort.groups, 1)
    return ReportPictures().version(name, cohort, probability, evaluation, base, COLUMNS | instead)


def comparison(cohort: Cohort, theirs: np.ndarray, ours: np.ndarray, first: str = "v5", second: str = "v7") -> bytes:
    return ReportPictures().comparison(first, second, cohort, theirs, ours)


@pytest.mark.parametrize(
    ("cohort", "probability"),
    [
        (COHORT, SCORES),
        (cohort_of(1), np.array([0.4])),
        (replace(COHORT, label=np.zeros(600)), SCORES),
        (COHORT, np.full(600, 0.3)),
        (COHORT, np.round(SCORES)),
        (replace(COHORT, groups=np.zeros(600)), SCORES),
        (cohort_of(600, days=800), SCORES),
        (cohort_of(600, segments=tuple(f"a $x^2 segment_{{{n}}} of a very long name" for n in range(30))), SCORES),
        (replace(COHORT, segment=np.full(600, np.nan)), SCORES),
    ],
    ids=["usual", "one", "all kept", "one score", "sure", "one group", "two years", "many segments", "no segment"],
)
def test_any_cohort_can_be_drawn_without_a_complaint(cohort: Cohort, probability: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size(version(cohort, probability)) == SIZE
        assert size(comparison(cohort, probability, probability**2)) == SIZE
        assert size(comparison(cohort, probability, probability)) == SIZE


def test_a_cohort_without_bookings_is_drawn_empty() -> None:
    empty = cohort_of(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size(ReportPictures().version("v1", empty, np.empty(0), Evaluation(0, 0, {}), 0.3, {})) == SIZE
        assert size(comparison(empty, np.empty(0), np.empty(0))) == SIZE


def test_names_of_any_length_with_signs_of_formulas_are_words() -> None:
    name = "the challenger of $x^2 that the night's retrain made_{of} what had matured by then " * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size(version(COHORT, SCORES, name)) == SIZE
        assert size(comparison(COHORT, SCORES, SCORES**2, name, name)) == SIZE


def test_the_same_figures_give_the_same_picture_and_each_figure_changes_it() -> None:
    shown = version(COHORT, SCORES)
    assert version(COHORT, SCORES) == shown
    changed = [
        version(replace(COHORT, label=1 - COHORT.label), SCORES),
        version(replace(COHORT, matured_on=COHORT.matured_on[::-1]), SCORES),
        version(COHORT, SCORES**2),
        version(COHORT, SCORES, base=0.5),
        version(COHORT, SCORES, price=0.2),
        version(COHORT, SCORES, "Version 8"),
    ]
    assert shown not in changed and len(set(changed)) == len(changed)


def test_a_comparison_tells_which_of_the_two_is_better_where() -> None:
    shown = comparison(COHORT, SCORES, SCORES**2)
    assert comparison(COHORT, SCORES, SCORES**2) == shown
    changed = [
        comparison(COHORT, SCORES**2, SCORES),
        comparison(replace(COHORT, matured_on=COHORT.matured_on[::-1]), SCORES, SCORES**2),
        comparison(replace(COHORT, segment=COHORT.segment[::-1]), SCORES, SCORES**2),
        comparison(COHORT, SCORES, SCORES**2, second="v8"),
    ]
    assert shown not in changed and len(set(changed)) == len(changed)


def test_a_cohort_whose_arrays_differ_in_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one value for each booking.*'groups': 3"):
        replace(COHORT, groups=np.arange(3))
