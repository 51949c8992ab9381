"""An alias that one of us may have put where it stands is late; one that nobody of us has is moved by somebody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.aliases import ALIASES, Placement, expected, moved_by_somebody
from cancellations.domain.promotion import Change, LedgerRow

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


def ledger(*standing: tuple[str, str | None]) -> list[LedgerRow]:
    """A row for each (champion, challenger), from epoch 1 on."""
    return [
        LedgerRow(n, champion, challenger, Change.PROMOTED, "x", "y", None, None, date(2024, 5, 1), NOW)
        for n, (champion, challenger) in enumerate(standing, start=1)
    ]


LEDGER = ledger(("1", None), ("1", "2"), ("2", None))
DONE = Placement(3, 7)


@pytest.mark.parametrize(
    ("found", "placements", "moved"),
    [
        ({"champion": "2"}, [DONE], {}),
        ({"champion": "1"}, [DONE], {"champion": ("2", "1")}),
        ({}, [DONE], {"champion": ("2", None)}),
        ({"champion": "2", "challenger": "9"}, [DONE], {"challenger": (None, "9")}),
        ({"champion": "2", "of-somebody": "9"}, [DONE], {}),
        # The ledger has gone on, and we have not.
        ({"champion": "1", "challenger": "2"}, [Placement(2, 6)], {}),
        ({"champion": "1"}, [Placement(2, 6)], {}),  # the one that is wanted by now, before the other
        ({"champion": "9", "challenger": "2"}, [Placement(2, 6)], {"champion": ("1", "9")}),
        # Somebody of us was slow, or died: where they may have put it is no stranger's place.
        ({"champion": "1"}, [Placement(1, None), DONE], {}),
        ({"champion": "9"}, [Placement(1, None), DONE], {"champion": ("2", "9")}),
        # A slow one of us that was done last.
        ({"champion": "1"}, [DONE, Placement(1, 8)], {}),
        # Nothing was ever written down.
        ({"champion": "9"}, [], {}),
        # The first that ever did has died before it moved them, or after.
        ({"champion": "1"}, [Placement(3, None)], {}),
        ({}, [Placement(3, None)], {}),
    ],
)
def test_each_place_has_one_who_put_it_there(
    found: Mapping[str, str],
    placements: Sequence[Placement],
    moved: Mapping[str, tuple[str | None, str | None]],
) -> None:
    assert moved_by_somebody(found, LEDGER, placements) == moved


VERSION = st.sampled_from("123")
STANDING = st.tuples(VERSION, st.none() | VERSION)


@given(
    st.lists(STANDING, min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(ALIASES), VERSION),
    st.data(),
)
def test_whatever_one_of_us_may_have_put_there_blames_nobody(
    standing: list[tuple[str, str | None]], found: dict[str, str], data: st.DataObject
) -> None:
    rows = ledger(*standing)
    epoch = st.integers(1, len(rows))
    last = Placement(data.draw(epoch), 9)
    open_ones = [Placement(e, None) for e in data.draw(st.lists(epoch, max_size=3))]
    moved = moved_by_somebody(found, rows, [last, *open_ones])
    for alias in ALIASES:
        ours = [expected(rows[-1]), *(expected(rows[p.epoch - 1]) for p in (last, *open_ones))]
        put = any(found.get(alias) == place.get(alias) for place in ours)
        assert (alias in moved) is not put


def test_before_the_first_champion_nobody_is_blamed() -> None:
    assert moved_by_somebody({"champion": "1"}, [], [Placement(0, 1)]) == {}
    assert moved_by_somebody({"champion": "1"}, ledger(("1", None)), [Placement(0, 1)]) == {}
    assert moved_by_somebody({"champion": "9"}, ledger(("1", None)), [Placement(0, 1)]) == {"champion": (None, "9")}
