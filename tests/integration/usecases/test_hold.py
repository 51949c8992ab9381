"""A day whose bookings fail their checks is not scored, told once, and let go when it is mended or somebody says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pandas as pd
import pytest
from world import FIRST, SECOND, CutOff, PowerCut, World, together

from cancellations.domain.checks import Check, CheckPolicy, Hold, HoldState
from cancellations.domain.events import DataBroken, Message
from cancellations.errors import BadInput, Refused
from cancellations.ports import Store
from cancellations.usecases import check as check_
from cancellations.usecases.check import check_days
from cancellations.usecases.hold import HeldBack, hold_back, release

DAY = timedelta(days=1)
POLICY = CheckPolicy(min_days=28)
BROKEN = FIRST + 2 * DAY
TODAY = BROKEN + DAY


def hold(world: World, until: date = TODAY, policy: CheckPolicy = POLICY, store: Store | None = None) -> HeldBack:
    return hold_back(store or world.store, until=until, rule=world.house().rule, policy=policy, clock=world.clock)


def made_on(world: World, day: date) -> pd.DataFrame:
    with world.store.begin() as work:
        rows = work.history(booked_until=day, known_until=day, booked_after=day - DAY)
    return rows.drop(columns=["status", "known_on"])


def deliver(world: World, rows: pd.DataFrame) -> None:
    with world.store.begin() as work:
        work.upsert_reservations(rows)
        work.commit()


def renamed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(meal="with meals")


def in_cents(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(price=rows["price"] * 100)


def broken(world: World, day: date = BROKEN, by: Callable[[pd.DataFrame], pd.DataFrame] = renamed) -> pd.DataFrame:
    """Breaks a day's bookings; returns them as they should be."""
    rows = made_on(world, day)
    deliver(world, by(rows))
    return rows


def scored(world: World, day: date, version: str = "1") -> int:
    with world.store.begin() as work:
        return len(work.scored(version, day, day))


def holds(world: World, *states: HoldState) -> list[Hold]:
    with world.store.begin() as work:
        return work.holds(*states)


def told(world: World) -> list[Message]:
    return world.messages(DataBroken.topic)


@pytest.fixture
def feed(trained: World) -> World:
    """All that was made until the day before the break has its scores."""
    trained.score(BROKEN - DAY)
    return trained


@pytest.fixture
def feed_of_either(serving: World) -> World:
    """The same on a store of either database."""
    serving.ingest(until=SECOND)
    serving.score(BROKEN - DAY)
    return serving


def test_a_day_that_fails_is_not_scored_and_all_the_others_are(feed_of_either: World) -> None:
    world = feed_of_either
    before = world.served(BROKEN - DAY)
    mended = broken(world)
    first = world.score(TODAY, checks=POLICY)
    (held,) = first.held
    assert (held.day, held.held_on, held.bookings, held.state) == (BROKEN, TODAY, len(mended), HoldState.HELD)
    assert held.failed >= {("meal", Check.UNSEEN)}
    assert scored(world, BROKEN) == 0 and scored(world, TODAY) > 50
    (message,) = told(world)
    assert (message.payload["day"], message.payload["held"]) == (str(BROKEN), True)
    assert any(reason.startswith("meal: unseen category in ") for reason in message.payload["reasons"])
    # Last good scores stay, and what stands is found again, without another word.
    after = world.served(BROKEN - DAY)
    pd.testing.assert_frame_equal(
        after.loc[before.index.intersection(after.index)], before.loc[before.index.intersection(after.index)]
    )
    again = world.score(TODAY, checks=POLICY)
    assert (again.held, again.rows, len(told(world))) == (first.held, {"1": 0}, 1)
    assert world.status().held == first.held


def test_what_is_delivered_anew_and_passes_is_scored_from_what_was_known_at_booking(
    feed: World, trained_again: World
) -> None:
    """And what it spoiled beside it: wrong prices stand in the month's average, by which the next day's are judged."""
    world, trained = feed, trained_again
    mended = broken(world, by=in_cents)
    assert [hold.day for hold in world.score(TODAY, checks=POLICY).held] == [BROKEN, TODAY]
    deliver(world, mended)
    assert world.score(TODAY, checks=POLICY).held == ()
    after = world.score(TODAY + 5 * DAY, checks=POLICY)
    assert after.held == () and scored(world, BROKEN) > 0
    assert {(ended.day, ended.state, ended.by) for ended in holds(world)} == {
        (BROKEN, HoldState.PASSED, "the checks"),
        (TODAY, HoldState.PASSED, "the checks"),
    }
    # As in a world in which nothing was ever held.
    trained.score(TODAY + 5 * DAY)
    with world.store.begin() as ours, trained.store.begin() as theirs:
        late = ours.scored("1", BROKEN, TODAY).set_index("reservation_id")["probability"]
        timely = theirs.scored("1", BROKEN, TODAY).set_index("reservation_id")["probability"]
    pd.testing.assert_series_equal(late, timely)


def test_a_break_that_comes_again_after_it_was_mended_is_told_again(feed: World) -> None:
    world, again = feed, TODAY + DAY
    mended = broken(world)
    assert [hold.day for hold in world.score(TODAY, checks=POLICY).held] == [BROKEN]
    deliver(world, mended)
    broken(world, again)
    assert [hold.day for hold in world.score(again + DAY, checks=POLICY).held] == [again]
    assert [message.payload["day"] for message in told(world)] == [str(BROKEN), str(again)]


def test_a_person_lets_a_day_go_on_the_record_and_for_good(feed: World) -> None:
    world = feed
    broken(world)
    world.score(TODAY, checks=POLICY)
    with pytest.raises(BadInput, match="a reason is needed"):
        release(world.store, BROKEN, reason=" ", by="ada", clock=world.clock)
    with pytest.raises(Refused, match=f"not held back; days that are held: {BROKEN}"):
        release(world.store, TODAY, reason="new prices", by="ada", clock=world.clock)
    assert release(world.store, BROKEN, reason="new prices", by="ada", clock=world.clock).day == BROKEN
    assert world.score(TODAY, checks=POLICY).rows == {"1": len(made_on(world, BROKEN))}
    (ended,) = holds(world)
    assert (ended.state, ended.by, ended.reason) == (HoldState.RELEASED, "ada", "new prices")
    # What comes in later for the day is scored too.
    late = made_on(world, BROKEN).head(30)
    deliver(world, late.assign(reservation_id="late " + late["reservation_id"]))
    assert world.score(TODAY, checks=POLICY).rows == {"1": 30}
    with pytest.raises(Refused, match="none is"):
        release(world.store, BROKEN, reason="again", by="ada", clock=world.clock)
    # What is right is what the data are now.
    broken(world, TODAY + DAY)
    assert world.score(TODAY + DAY, checks=POLICY).held == ()


def test_time_or_the_setting_lets_it_go(feed: World) -> None:
    broken(feed)
    feed.score(TODAY, checks=POLICY)
    assert feed.score(TODAY + 2 * DAY, checks=POLICY).held != ()
    assert scored(feed, BROKEN) == 0
    assert feed.score(TODAY + 3 * DAY, checks=POLICY).held == () and scored(feed, BROKEN) > 0
    (ended,) = holds(feed)
    assert (ended.state, ended.by) == (HoldState.EXPIRED, "time")
    broken(feed, TODAY + 4 * DAY)
    later = TODAY + 5 * DAY
    feed.score(later, checks=CheckPolicy(min_days=28, hold_days=0))
    assert feed.score(later + 30 * DAY, checks=CheckPolicy(min_days=28, hold_days=0)).held != ()
    feed.score(later + 30 * DAY, checks=CheckPolicy(min_days=28, hold=False))
    assert [h.state for h in holds(feed)] == [HoldState.EXPIRED, HoldState.RELEASED]
    assert scored(feed, TODAY + 4 * DAY) > 0


def test_without_holding_a_day_is_scored_all_the_same_and_mailed_when_it_is_over(feed: World) -> None:
    broken(feed)
    scored_all = CheckPolicy(min_days=28, hold=False)
    assert feed.score(TODAY, checks=scored_all).held == () and scored(feed, BROKEN) > 0
    check_days(feed.store, until=TODAY, rule=feed.house().rule, policy=scored_all, clock=feed.clock)
    assert [m.payload["held"] for m in told(feed)] == [False]


def test_a_break_in_the_course_of_the_day_holds_what_is_new(feed: World) -> None:
    """And what came before it keeps its score, also where some of that was broken, and too little to be seen."""
    rows = made_on(feed, BROKEN)
    morning, noon = rows.iloc[:40], rows.iloc[40:]
    with feed.store.begin() as work:
        work._connection.exec_driver_sql(  # type: ignore[attr-defined]
            f"UPDATE reservations SET booked_on = '{SECOND + 60 * DAY}' WHERE booked_on = '{BROKEN}'"
        )
        work.commit()
    deliver(feed, morning.assign(meal=morning["meal"].where(morning.index != morning.index[0], "with meals")))
    assert feed.score(BROKEN, checks=POLICY).rows == {"1": 40}
    deliver(feed, renamed(noon))
    (held,) = feed.score(BROKEN, checks=POLICY).held
    assert (held.day, held.bookings, scored(feed, BROKEN)) == (BROKEN, len(noon), 40)
    # The day is checked when it is over, too, and told no more.
    check_days(feed.store, until=TODAY, rule=feed.house().rule, policy=POLICY, clock=feed.clock)
    assert len(told(feed)) == 1
    deliver(feed, rows)
    assert feed.score(BROKEN, checks=POLICY).held == () and scored(feed, BROKEN) == len(rows)


def test_a_break_that_lasts_is_held_each_day_and_told_once(feed: World) -> None:
    for n in range(3):
        broken(feed, BROKEN + n * DAY)
        feed.score(BROKEN + n * DAY, checks=POLICY)
        check_days(feed.store, until=BROKEN + n * DAY, rule=feed.house().rule, policy=POLICY, clock=feed.clock)
    assert [h.day for h in holds(feed, HoldState.HELD)] == [BROKEN + n * DAY for n in range(3)]
    assert len(told(feed)) == 1


def test_a_takeover_scores_all_but_what_is_held(challenged: World) -> None:
    challenged.score(BROKEN - DAY)
    broken(challenged)
    challenged.promote("2", TODAY, checks=POLICY)
    assert scored(challenged, BROKEN, "2") == 0 and scored(challenged, TODAY, "2") > 50
    assert set(challenged.serving(TODAY)) == {"2"}
    release(challenged.store, BROKEN, reason="new prices", by="ada", clock=challenged.clock)
    challenged.score(TODAY, checks=POLICY)
    assert scored(challenged, BROKEN, "2") > 50


def test_a_year_is_learned_from_once_a_day_and_nothing_new_is_not_checked(
    feed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []
    learn = check_.learn

    def counted(*rows: object) -> object:
        learned.append(1)
        return learn(*rows)  # type: ignore[arg-type]

    monkeypatch.setattr(check_, "learn", counted)
    broken(feed)
    for _ in range(2):
        feed.score(BROKEN, checks=POLICY)
    late = made_on(feed, BROKEN - DAY).head(12)
    deliver(feed, made_on(feed, BROKEN).head(3).assign(reservation_id=["x", "y", "z"]))
    feed.score(BROKEN, checks=POLICY)
    assert learned == [1]
    deliver(feed, late.assign(reservation_id="late " + late["reservation_id"]))
    for _ in range(2):
        feed.score(BROKEN, checks=POLICY)
    assert learned == [1, 1]


@pytest.mark.parametrize("method", ["keep_past", "add_hold", "add_messages", "commit"])
def test_a_death_while_a_day_is_held_changes_nothing_that_the_next_run_does_not_mend(feed: World, method: str) -> None:
    mended = broken(feed)
    with pytest.raises(PowerCut):
        hold(feed, store=CutOff(feed.store, method))
    assert holds(feed) == [] and told(feed) == []
    assert [h.day for h in hold(feed).began] == [BROKEN]
    assert len(told(feed)) == 1
    deliver(feed, mended)
    with pytest.raises(PowerCut):
        hold(feed, store=CutOff(feed.store, "end_hold"))
    assert [h.state for h in holds(feed)] == [HoldState.HELD]
    assert [h.state for h in hold(feed).ended] == [HoldState.PASSED]


def test_two_that_check_at_once_hold_a_day_once(feed_of_either: World) -> None:
    broken(feed_of_either)
    found = together(*[lambda: hold(feed_of_either)] * 2)
    assert all(isinstance(one, HeldBack) and [h.day for h in one.held] == [BROKEN] for one in found), found
    assert sum(len(one.began) for one in found if isinstance(one, HeldBack)) == 1
    assert [h.day for h in holds(feed_of_either)] == [BROKEN] and len(told(feed_of_either)) == 1
    together(*[lambda: feed_of_either.score(TODAY, checks=POLICY)] * 2)
    assert scored(feed_of_either, BROKEN) == 0
