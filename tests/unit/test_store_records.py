"""Reports and decisions survive JSON exactly."""

from __future__ import annotations

import dataclasses
import json
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.retraining import Action, ColumnDrift, Decision, MonitorReport, Signal, Verdict, Window
from cancellations.errors import BadInput
from cancellations.store.records import from_decision, from_report, to_decision, to_report

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


def strict(data: object) -> dict[str, object]:
    """Through text that any JSON reader takes: no NaN, no Infinity."""
    return json.loads(json.dumps(data, allow_nan=False))


@given(reports)
def test_a_report_comes_back_as_it_was(report: MonitorReport) -> None:
    assert to_report(strict(from_report(report))) == report


@given(decisions)
def test_a_decision_comes_back_as_it_was(decision: Decision) -> None:
    assert to_decision(strict(from_decision(decision))) == decision


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
