"""Each day's bookings are checked once, a break is told once, and retrains wait for its end."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pytest
from world import FIRST, START, WEEK, CutOff, GivenMonitor, PowerCut, World

from cancellations.domain.checks import Check, CheckPolicy, DayCheck, Finding
from cancellations.domain.events import DataBroken, Fact, Message, SourceSilent
from cancellations.domain.retraining import Action, RetrainPolicy
from cancellations.ports import Store
from cancellations.usecases.check import BREAK_DAYS, check_days

DAY = timedelta(days=1)
POLICY = CheckPolicy(min_days=28)


def checked(world: World, until: date, store: Store | None = None, policy: CheckPolicy = POLICY) -> list[DayCheck]:
    rule = world.house().rule
    return list(check_days(store or world.store, until=until, rule=rule, policy=policy, clock=world.clock))


def break_prices(world: World, first: date, days: int = 1, factor: float = 100.0) -> None:
    """The feed delivers prices in another unit on some days."""
    with world.store.begin() as work:
        rows = work.history(booked_until=first + (days - 1) * DAY, known_until=first)
        rows = rows[rows["booked_on"] >= pd.Timestamp(first)].drop(columns=["status", "known_on"])
        work.upsert_reservations(rows.assign(price=rows["price"] * factor))
        work.commit()


def prices_gone(bookings: int) -> tuple[Finding, ...]:
    return (Finding("price", Check.MISSING, bookings, bookings, 0.001, 1e-30),)


def told(world: World, fact: type[Fact] = DataBroken) -> list[Message]:
    with world.store.begin() as work:
        return [e.message for e in work.pending_messages() if e.message.topic == fact.topic]


def test_a_source_that_falls_silent_is_told_once_and_an_old_history_is_no_source(loaded: World) -> None:
    with loaded.store.begin() as work:
        (last,) = {span[1] for span in [work.booked_span()] if span is not None}
    longest = last + 3 * DAY
    for day in (last + 90 * DAY, longest - DAY):
        checked(loaded, day)
        assert told(loaded, SourceSilent) == []
    for day in (longest, longest + DAY, longest + WEEK):
        checked(loaded, day)
    (message,) = told(loaded, SourceSilent)
    assert message.payload == {"since": str(last), "days": 2, "longest": 0}


def test_days_are_checked_in_their_order_and_once(loaded: World) -> None:
    (first,) = checked(loaded, FIRST)
    assert (first.day, first.findings) == (FIRST - DAY, ())
    assert first.bookings > 50 and first.learned_from == (FIRST - DAY - START).days
    assert checked(loaded, FIRST) == []
    later = checked(loaded, FIRST + WEEK)
    assert [c.day for c in later] == [FIRST + n * DAY for n in range(7)]
    assert not any(c.findings for c in later)
    with loaded.store.begin() as work:
        assert work.checks() == [*reversed(later), first]
    assert told(loaded) == []


def test_a_break_is_told_on_its_first_day_alone_and_stays_on_record(loaded: World) -> None:
    broken = FIRST + 2 * DAY
    break_prices(loaded, broken, days=2)
    found = checked(loaded, broken)
    assert not any(c.findings for c in found) and told(loaded) == []
    (first,) = checked(loaded, broken + DAY)
    assert {(f.column, f.check) for f in first.findings} >= {("price", Check.RANGE)}
    (message,) = told(loaded)
    assert message.payload["day"] == str(broken)
    assert any(reason.startswith("price: out of range in ") for reason in message.payload["reasons"])
    (second,) = checked(loaded, broken + 2 * DAY)
    assert second.findings and len(told(loaded)) == 1
    # Prices of the month are what a price is held against: until they are delivered anew, the next day is off too.
    break_prices(loaded, broken, days=2, factor=0.01)
    (mended,) = checked(loaded, broken + 3 * DAY)
    assert mended.findings == ()
    with loaded.store.begin() as work:
        assert work.checks(until=broken, limit=1) == [first]


def test_what_is_wrong_beside_it_is_told_too(loaded: World) -> None:
    broken = FIRST + 2 * DAY
    break_prices(loaded, broken, days=2)
    checked(loaded, broken + DAY)
    with loaded.store.begin() as work:
        rows = work.history(booked_until=broken + DAY, known_until=FIRST)
        rows = rows[rows["booked_on"] > pd.Timestamp(broken)].drop(columns=["status", "known_on"])
        work.upsert_reservations(rows.assign(meal="Half board, renamed"))
        work.commit()
    checked(loaded, broken + 2 * DAY)
    assert [m.payload["day"] for m in told(loaded)] == [str(broken), str(broken + DAY)]


def test_retrains_wait_while_the_last_day_is_broken(trained: World) -> None:
    trained.score(until=FIRST + WEEK)
    end = FIRST + WEEK
    at_once = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)
    with trained.store.begin() as work:
        work.add_check(DayCheck(end, 90, 70, prices_gone(90)), trained.clock())
        work.commit()
    looked = trained.monitor(GivenMonitor([end]), until=end, after=FIRST, policy=at_once)
    assert looked.decisions[0].decision.action is Action.HOLD
    assert looked.decisions[0].decision.reasons[-1].startswith(f"held: the data are broken ({end}: price: missing")


def test_without_history_to_learn_from_nothing_is_checked(loaded: World) -> None:
    assert checked(loaded, START + 20 * DAY) == []
    assert checked(loaded, FIRST, policy=CheckPolicy(min_days=300)) == []
    assert [c.day for c in checked(loaded, FIRST)] == [FIRST - DAY]


def test_what_lasts_is_what_the_data_are_now(loaded: World) -> None:
    """A unit that has changed for good is learned after two weeks, and no earlier."""
    first = FIRST - (BREAK_DAYS + 6) * DAY
    break_prices(loaded, first, days=BREAK_DAYS + 7)
    failed = {}
    for n in (1, BREAK_DAYS, *range(BREAK_DAYS + 1, BREAK_DAYS + 7)):
        for one in checked(loaded, first + n * DAY):
            failed[one.day] = bool(one.findings)
    assert all(failed[first + n * DAY] for n in range(BREAK_DAYS))
    assert not failed[first + (BREAK_DAYS + 5) * DAY]
    assert len(told(loaded)) == 1


@pytest.mark.parametrize("method", ["add_check", "add_messages", "commit"])
def test_a_death_while_a_break_is_written_leaves_nothing_and_the_next_run_writes_all(
    loaded: World, method: str
) -> None:
    broken = FIRST
    break_prices(loaded, broken)
    with pytest.raises(PowerCut):
        checked(loaded, broken + DAY, CutOff(loaded.store, method))
    with loaded.store.begin() as work:
        assert work.checks() == []
    assert told(loaded) == []
    assert [bool(c.findings) for c in checked(loaded, broken + DAY)] == [True]
    assert len(told(loaded)) == 1
