"""Which bookings a window is held against."""

from __future__ import annotations

from datetime import date

from cancellations.domain.reference import Design, ReferencePolicy
from cancellations.domain.retraining import MonitorReport

START, END = date(2016, 5, 30), date(2016, 6, 26)


def test_the_weeks_before_end_on_the_day_before_the_window() -> None:
    assert ReferencePolicy(weeks=2).span(Design.WEEKS, START, END) == (date(2016, 5, 16), date(2016, 5, 29))


def test_last_years_weeks_begin_on_the_same_day_of_the_week() -> None:
    first, last = ReferencePolicy().span(Design.SEASON, START, END) or (START, END)
    assert (first, last) == (date(2015, 6, 1), date(2015, 6, 28))
    assert (first.weekday(), last.weekday()) == (START.weekday(), END.weekday())


def test_the_training_has_no_days_and_each_design_a_name_of_its_own() -> None:
    policy = ReferencePolicy()
    assert policy.span(Design.TRAINING, START, END) is None
    assert len({policy.named(design) for design in Design}) == len(Design)
    # What reports of earlier releases were held against.
    assert policy.named(Design.TRAINING) == MonitorReport.reference
