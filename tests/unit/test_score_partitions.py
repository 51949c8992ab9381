"""How a batch is cut: every day in one part, the parts about equal, and all of it fit to be sent."""

from __future__ import annotations

import pickle
from datetime import date, timedelta

import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cancellations.domain.labels import LabelRule
from cancellations.usecases.score import Cut, Partition, Plan, Turn, spread

FIRST = date(2016, 5, 2)
MANY = 1_000_000


def by_day(counts: dict[int, int]) -> pd.Series:
    """Rows per day, as the store counts them: days without rows are not there."""
    told = {FIRST + timedelta(days=n): rows for n, rows in sorted(counts.items())}
    index = pd.DatetimeIndex(list(told), dtype="datetime64[us]")
    return pd.Series(list(told.values()), index=index, dtype="int64")


@given(
    st.dictionaries(st.integers(0, 400), st.integers(1, 50) | st.just(MANY), max_size=60),
    st.integers(1, 100),
    st.integers(1, 200),
)
@example({}, 4, 1)
@example({0: MANY}, 4, 1)
@example({0: 1, 1: MANY, 2: 1}, 3, 1)
@example({0: 1, 200: 1}, 100, 1)
@example(dict.fromkeys(range(3), 1), 100, 1)
def test_every_day_is_in_one_span_and_none_holds_more_than_its_share_and_a_day(
    counts: dict[int, int], partitions: int, least_rows: int
) -> None:
    days = by_day(counts)
    spans = spread(days, Cut(partitions, least_rows))
    total = sum(counts.values())
    pieces = max(1, min(partitions, total // least_rows))

    before = FIRST - timedelta(days=1)
    for last, rows in spans:
        inside = [n for day, n in days.items() if before < day.date() <= last]
        assert rows == sum(inside) > 0
        assert rows <= total / pieces + max(counts.values())
        before = last
    assert sum(rows for _, rows in spans) == total
    assert len(spans) <= min(pieces, len(counts))
    if spans:
        assert spans[-1][0] == days.index[-1].date()


def test_days_of_equal_rows_make_equal_spans() -> None:
    spans = spread(by_day(dict.fromkeys(range(100), 7)), Cut(4))
    assert [rows for _, rows in spans] == [175] * 4


def test_parts_are_not_cut_so_small_that_they_do_not_pay() -> None:
    days = by_day(dict.fromkeys(range(100), 100))
    assert len(spread(days, Cut(8, least_rows=5_000))) == 2
    assert len(spread(days, Cut(8, least_rows=20_000))) == 1


def test_a_plan_can_be_sent_as_bytes_and_as_json() -> None:
    partition = Partition("3", FIRST, LabelRule(), FIRST, None, FIRST, 7)
    plan = Plan("3", FIRST, (Turn("3", (partition,)), Turn("4", ())))
    wire = TypeAdapter(Plan)
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert wire.validate_json(wire.dump_json(plan)) == plan
