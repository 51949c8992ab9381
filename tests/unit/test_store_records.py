"""Reports, decisions and a trial's evidence survive JSON exactly."""

from __future__ import annotations

import dataclasses
import json
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.comparison import SequencePolicy, Step
from cancellations.domain.retraining import Action, ColumnDrift, Decision, MonitorReport, Signal, Verdict, Window
from cancellations.errors import BadInput
from cancellations.store.records import (
    from_decision,
    from_evidence,
    from_report,
    from_sequence,
    to_decision,
    to_evidence,
    to_report,
    to_sequence,
)

numbers = st.floats(allow_nan=False)
signals = st.builds(Signal, value=st.none() | numbers, threshold=numbers, weight=numbers)
columns = st.builds(ColumnDrift, score=st.none() | numbers, threshold=numbers, weight=numbers)
reports = st.builds(
    MonitorReport,
    window=st.builds(Window, st.dates(), st.dates()),
    signals=st.lists(signals, max_size=3).map(tuple),
    columns=st.lists(columns, max_size=3).map(tuple),
)
decisions = st.builds(Decision, st.sampled_from(Action), st.lists(st.text()).map(tuple))

steps = st.builds(Step, gain=numbers, low=st.none() | numbers, high=st.none() | numbers)
policies = st.builds(
    SequencePolicy,
    alpha=st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    burn_in_days=st.integers(14, 400),
    tuning_days=st.floats(0, 1e6, exclude_min=True),
)


def strict(data: object) -> dict[str, object]:
    """Through text that any JSON reader takes: no NaN, no Infinity."""
    return json.loads(json.dumps(data, allow_nan=False))


@given(reports)
def test_a_report_comes_back_as_it_was(report: MonitorReport) -> None:
    assert to_report(strict(from_report(report))) == report


@given(decisions)
def test_a_decision_comes_back_as_it_was(decision: Decision) -> None:
    assert to_decision(strict(from_decision(decision))) == decision


@given(st.lists(steps, max_size=4).map(tuple))
def test_a_trial_s_evidence_comes_back_as_it_was(evidence: tuple[Step, ...]) -> None:
    assert to_evidence(strict(from_evidence(evidence))) == evidence


@given(policies)
def test_the_test_of_a_trial_comes_back_as_it_was(policy: SequencePolicy) -> None:
    assert to_sequence(strict(from_sequence(policy))) == policy


def test_numbers_of_numpy_come_back_as_plain_ones() -> None:
    signal = Signal("drift", np.float64(0.1), 0.5, Verdict.OK, 1.0, np.int64(3))  # type: ignore[arg-type]
    report = MonitorReport("1", Window(date(2024, 1, 1), date(2024, 1, 28)), 3, 3, (signal,))
    (back,) = to_report(strict(from_report(report))).signals
    assert (type(back.value), type(back.rows)) == (float, int)
    assert dataclasses.astuple(back) == dataclasses.astuple(signal)


def test_a_value_that_is_no_number_stays_one() -> None:
    report = MonitorReport(
        "1",
        Window(date(2024, 1, 1), date(2024, 1, 28)),
        0,
        0,
        (Signal("drift", float("nan"), 0.5, Verdict.NOT_EVALUATED, 1.0, 0),),
    )
    value = to_report(strict(from_report(report))).signals[0].value
    assert value is not None and np.isnan(value)


def test_a_form_of_the_future_is_refused() -> None:
    with pytest.raises(BadInput, match="form 99"):
        to_decision({"schema": 99})
    with pytest.raises(BadInput, match="trial's evidence has the form 99"):
        to_evidence({"schema": 99})
    with pytest.raises(BadInput, match="test policy has the form 99"):
        to_sequence({"schema": 99})
