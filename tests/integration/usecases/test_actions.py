"""What somebody did because of a score comes in, is kept apart, and keeps its bookings out of what labels prove."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from contest import BLIND, BURN_IN, GOOD, TRAINED, bookings, day, foretell, maturing, policy
from world import FIRST, POLICY, SECOND, Clock, World

from cancellations.domain.events import TrialDoubted
from cancellations.domain.hold_out import ActionPolicy, dealt_out
from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.promotion import TrialState
from cancellations.domain.recalibration import RecalibrationPolicy, ShiftPolicy
from cancellations.domain.retraining import RequestState
from cancellations.errors import Refused
from cancellations.model import GradientBoosting
from cancellations.ports import Observation
from cancellations.sources.mapped import open_table
from cancellations.store import SqlStore
from cancellations.usecases.ingest import LoadPolicy, ingest
from cancellations.usecases.monitor import Rhythm, observe
from cancellations.usecases.recalibrate import recalibrate

ROWS = """\
reservation_id,hotel,booked_on,arrival_on,weekend_nights,week_nights,adults,children,babies,meal,market_segment,\
distribution_channel,repeated_guest,previous_cancellations,previous_stays,room_type,deposit_type,agent,company,\
customer_type,price,special_requests,status,known_on,action_taken,acted_on
"""
STAY = ",City,2016-05-01,2016-06-10,0,2,2,0,0,BB,A,A,0,0,0,A,A,9,,A,90,0,"


def table(folder: Path, **told: str) -> Path:
    """Bookings by id in the product's own columns: `status,known_on,action_taken,acted_on` of each."""
    path = folder / "bookings.csv"
    path.write_text(ROWS + "".join(f"{name}{STAY}{rest}\n" for name, rest in told.items()))
    return path


def load(store: SqlStore, path: Path, until: date = date(2016, 6, 12), after: date | None = None) -> None:
    policy_ = LoadPolicy(labels=POLICY.labels, quarantine_limit=1.0)
    ingest(open_table(path), store, after=after, until=until, clock=Clock(), policy=policy_)


def act_upon(world: World, ids: Collection[str], on: date) -> None:
    with world.store.begin() as work:
        rows = pd.DataFrame({"reservation_id": list(ids), "action_taken": "call", "acted_on": pd.Timestamp(on)})
        work.record_actions(rows)
        work.commit()


def held_out(world: World, ids: pd.Series) -> np.ndarray:
    with world.store.begin() as work:
        return work.held_out(ids)


# A day may have no booking that is held out, and the test waits for days with some.
LATER = BURN_IN + 3

# --- they come in ---------------------------------------------------------------------------------


def test_actions_come_in_with_bookings_and_are_replaced_by_what_is_told_later(store: SqlStore, tmp_path: Path) -> None:
    load(
        store,
        table(tmp_path, a="canceled,2016-06-01,call,2016-05-20", b=",,deposit,2016-05-25", c="stayed,2016-06-11,,"),
    )
    ids = pd.Series(["a", "b", "c", "x"])
    with store.begin() as work:
        assert work.first_action(date(2016, 6, 12)) == date(2016, 5, 20)
        assert work.first_action(date(2016, 5, 19)) is None
        assert work.acted(ids, date(2016, 6, 12)).tolist() == [True, True, False, False]
        assert work.acted(ids, date(2016, 5, 24)).tolist() == [True, False, False, False]
        assert work.actions_on_record(date(2016, 6, 12)) == 2
    # A mapping that took nothing for something is put right by a later load; what is not told again stays.
    load(store, table(tmp_path, a="canceled,2016-06-01,none,", c="stayed,2016-06-11,offer,2016-05-30"))
    with store.begin() as work:
        assert work.acted(ids, date(2016, 6, 12)).tolist() == [False, True, True, False]
        assert work.first_action(date(2016, 6, 12)) == date(2016, 5, 25)


def test_an_action_that_cannot_be_read_sets_its_row_aside_with_the_reason(store: SqlStore, tmp_path: Path) -> None:
    load(
        store,
        table(
            tmp_path,
            a=",,shouted,2016-05-20",
            b=",,call,",
            c=",,call,soon",
            d=",,,2016-05-20",
            e=",,call,2016-04-30",
            f=",,call,2016-05-01",
        ),
    )
    with store.begin() as work:
        told = {row.row.reservation_id: row.row.problems for row in work.quarantined()}
        assert work.acted(pd.Series(list("abcdef")), date(2016, 6, 12)).tolist() == [False] * 5 + [True]
    assert told == {
        "a": (
            "action_taken: 'shouted' in column action_taken is none of the actions call, deposit, offer, other, none",
        ),
        "b": ("acted_on: is missing or cannot be read, and an action is told",),
        "c": ("acted_on: 'soon' in column acted_on is no date of the form YYYY-MM-DD",),
        "d": ("action_taken: is missing, and its day is told",),
        "e": ("acted_on: lies before booked_on",),
    }


def test_an_action_of_tomorrow_is_left_for_tomorrow_s_load(store: SqlStore, tmp_path: Path) -> None:
    path = table(tmp_path, a=",,call,2016-05-20", b=",,call,2016-05-21")
    load(store, path, until=date(2016, 5, 20))
    with store.begin() as work:
        assert work.acted(pd.Series(["a", "b"]), date(2016, 6, 1)).tolist() == [True, False]
    load(store, path, until=date(2016, 5, 21), after=date(2016, 5, 20))
    with store.begin() as work:
        assert work.acted(pd.Series(["a", "b"]), date(2016, 6, 1)).tolist() == [True, True]


def test_a_table_of_outcomes_may_bring_actions_also_of_bookings_that_have_not_ended(
    store: SqlStore, tmp_path: Path
) -> None:
    load(store, table(tmp_path, a=",,,", b=",,,", c=",,,"))
    (tmp_path / "calls").mkdir()
    calls = tmp_path / "calls" / "calls.csv"
    calls.write_text(
        "no,what,when,end,day\na,Phoned,2016-05-20,,\nb,-,,out,2016-06-11\nc,-,,,\nd,Hummed,2016-05-20,,\n"
    )
    (tmp_path / "calls" / "mapping.toml").write_text(
        'format = 1\n[outcome]\nreservation_id = "no"\nstatus = { column = "end", map = { out = "stayed" } }\n'
        'known_on = "day"\naction_taken = { column = "what", map = { Phoned = "call", "-" = "" } }\nacted_on = "when"\n'
    )
    load(store, calls)
    with store.begin() as work:
        assert work.acted(pd.Series(list("abc")), date(2016, 6, 12)).tolist() == [True, False, False]
        assert work.recorded_outcomes(pd.Series(list("abc")))["status"].to_dict() == {"b": "stayed"}
        [row] = work.quarantined()
        assert row.row.problems == ("action_taken: 'Hummed' in column what is none of the actions Phoned, -",)
        assert work.loads()[-1].counts.outside == 1  # c tells nothing


# --- the hold-out ---------------------------------------------------------------------------------


def test_served_bookings_are_dealt_once_and_marked_where_scores_are_read(contest_on_either: World) -> None:
    world = contest_on_either
    foretell(world, v1=BLIND)
    acted = set(bookings()[lambda rows: rows["n"] > 60]["reservation_id"].iloc[:40])
    act_upon(world, acted, day(-1))
    world.actions = ActionPolicy(hold_out=0.3)
    world.score(until=TRAINED)
    served = world.served(TRAINED)
    marked = set(served.index[served["hold_out"]])
    rows = bookings()[lambda rows: rows["reservation_id"].isin(served.index)]
    dealt = set(rows["reservation_id"][dealt_out(rows, 0.3)])
    assert marked == dealt - acted and 0.2 < len(marked) / len(served) < 0.4 and dealt & acted
    # Another share is for those who come; what staff were told stays.
    world.actions = ActionPolicy(hold_out=0.9)
    world.score(until=day(3))
    again = world.served(day(3))
    assert set(again.index[again["hold_out"]]) == marked & set(again.index)
    assert world.status(as_of=day(3)).held_out == again["hold_out"].sum() > 0


def test_without_a_share_nobody_is_held_out(contest: World) -> None:
    foretell(contest, v1=BLIND)
    contest.score(until=TRAINED)
    assert not contest.served(TRAINED)["hold_out"].any()
    with contest.store.begin() as work:
        assert not work.has_hold_out(day(50)) and len(work.undealt(TRAINED)) > 500


# --- trials and probations ------------------------------------------------------------------------


@pytest.fixture
def acting(contest: World) -> World:
    """Challenger 2 is better than champion 1; staff act upon scores from day 3 on."""
    foretell(contest, v1=BLIND, v2=GOOD)
    return contest


def upon(n: int, every: int = 2) -> list[str]:
    """Ids of every second, or so, of the bookings that mature from a day on."""
    return bookings()[lambda rows: rows["n"] >= n]["reservation_id"].iloc[::every].tolist()


def test_without_a_hold_out_a_better_challenger_waits_for_a_person_who_is_told_why(acting: World) -> None:
    acting.challenge("2", on=TRAINED, policy=policy())
    acting.look(day(2))
    act_upon(acting, upon(3), on=day(3))
    looked = acting.look(day(5)).trial
    assert looked is not None and looked.evidence[-1].bookings == maturing(1, 2) + (
        maturing(3, 5) - len(set(upon(3)) & set(bookings()[lambda r: r["n"].between(3, 5)]["reservation_id"]))
    )
    assert looked.reasons[1].startswith(
        f"actions upon scores are on record since {day(3)}, and no booking is held out from them: "
    )
    asked = acting.look(day(BURN_IN)).trial
    assert asked is not None and asked.state is TrialState.AWAITING
    assert asked.reasons[-1].startswith("promotions need a person: actions upon scores are on record since")
    [mail] = acting.messages(TrialDoubted.topic)
    assert mail.payload["doubt"] == "no hold-out"
    status = acting.status(as_of=day(BURN_IN))
    assert (status.acted_since, status.held_out) == (day(3), 0) and status.acted_upon == len(upon(3))
    # A person may still say yes; the probation is told of it as well, and rolls back by itself as ever.
    acting.answer(asked, approve=True, as_of=day(BURN_IN))
    acting.look(day(BURN_IN + 2))
    assert {m.payload["kind"] for m in acting.messages(TrialDoubted.topic)} == {"trial", "probation"}


def test_with_a_hold_out_it_alone_is_read_from_the_first_action_on_and_promotes(acting: World) -> None:
    acting.actions = ActionPolicy(hold_out=0.5)
    acting.challenge("2", on=TRAINED, policy=policy())
    acting.look(TRAINED)
    rows = bookings()[lambda r: r["n"] > 0]
    held = set(rows["reservation_id"][held_out(acting, rows["reservation_id"])])
    act_upon(acting, set(upon(3, every=1)) - held, on=day(3))
    looked = acting.look(day(6)).trial
    later = rows[rows["n"].between(3, 6) & rows["reservation_id"].isin(held)]
    # What matured on days 1 and 2 did so before anybody acted.
    assert looked is not None and looked.evidence[-1].bookings == maturing(1, 2) + len(later)
    assert len(looked.reasons) == 1
    ended = acting.look(day(BURN_IN)).trial
    assert ended is not None and ended.state is TrialState.PROMOTED
    assert acting.messages(TrialDoubted.topic) == []


@pytest.mark.parametrize(("broken_share", "state"), [(0.5, TrialState.PROMOTED), (0.01, TrialState.AWAITING)])
def test_a_held_out_booking_that_was_acted_upon_is_told_and_left_out_and_too_many_are_none(
    acting: World, broken_share: float, state: TrialState
) -> None:
    acting.actions = ActionPolicy(hold_out=0.5, broken_share=broken_share)
    acting.challenge("2", on=TRAINED, policy=policy())
    acting.look(TRAINED)
    rows = bookings()[lambda r: r["n"].between(3, LATER)]
    held = rows[held_out(acting, rows["reservation_id"])]
    broken = held["reservation_id"].iloc[:3].tolist()
    act_upon(acting, broken, on=day(3))
    ended = acting.look(day(LATER)).trial
    assert ended is not None and ended.state is state
    assert ended.evidence[-1].bookings <= maturing(1, 2) + len(held) - 3
    told = f"3 of {len(held)} bookings that were held out were acted upon all the same: left out"
    assert ended.reasons[1] == told
    [mail] = acting.messages(TrialDoubted.topic)
    assert (mail.payload["doubt"], mail.payload["reasons"]) == ("broken hold-out", [told])


# --- training, gate, monitor, recalibration -------------------------------------------------------


def some(world: World, after: date, every: int = 3) -> list[str]:
    """Ids of every third, or so, of the bookings that arrive from a day on."""
    with world.store.begin() as work:
        history = work.history(SECOND, SECOND)
    return history[history["arrival_on"] >= pd.Timestamp(after)]["reservation_id"].iloc[::every].tolist()


def test_a_retrain_learns_from_and_is_judged_on_bookings_that_nobody_acted_upon(trained: World) -> None:
    since = FIRST - timedelta(days=20)
    acted = some(trained, since)
    act_upon(trained, acted, on=since)
    done = trained.retrain(trained.request(SECOND))
    assert done.state is RequestState.CANDIDATE and done.version is not None
    told = next(line for line in done.detail if line.startswith("left out: "))
    assert "that were acted upon" in told and told.endswith(f"from {since} on")
    ids = trained.registry.training(done.version)["reservation_id"]
    assert len(ids) > 500 and not set(ids) & set(acted)
    with trained.store.begin() as work:
        history = work.history(SECOND, SECOND)
    ripe = history[history["arrival_on"] < pd.Timestamp(SECOND)]
    assert len(ids) == len(ripe) - ripe["reservation_id"].isin(acted).sum()


def test_with_a_hold_out_a_retrain_takes_it_alone_from_the_first_action_on(loaded: World) -> None:
    since = FIRST - timedelta(days=10)
    with loaded.store.begin() as work:
        history = work.history(SECOND, SECOND)
        work.deal(history["reservation_id"], dealt_out(history, 0.5), since)
        work.commit()
    act_upon(loaded, history["reservation_id"].iloc[:1], on=since)
    done = loaded.retrain(loaded.request(FIRST))
    assert done.state is RequestState.CANDIDATE and done.version is not None
    ids = set(loaded.registry.training(done.version)["reservation_id"])
    ripe = history[history["arrival_on"] < pd.Timestamp(FIRST)]
    matured_on = ripe["arrival_on"] + pd.Timedelta(days=1)
    counts = (matured_on < pd.Timestamp(since)) | held_out(loaded, ripe["reservation_id"])
    first_acted = set(history["reservation_id"].iloc[:1]) if (matured_on.iloc[0] >= pd.Timestamp(since)) else set()
    assert ids == set(ripe["reservation_id"][counts]) - first_acted


def observed(world: World) -> Observation:
    with world.store.begin() as work:
        champion = work.version("1")
        assert champion is not None
        rhythm, open_ones = Rhythm(window_days=14, step_days=7), InFlightPolicy(min_rows=30)
        return observe(work, world.registry, champion, SECOND, rhythm, POLICY.labels, open_ones)[0]


def test_the_monitor_judges_a_champion_on_bookings_that_nobody_acted_upon(trained: World) -> None:
    trained.score(until=SECOND)
    whole = observed(trained)
    act_upon(trained, some(trained, FIRST), on=FIRST)
    clean = observed(trained)
    assert len(clean.current) == len(whole.current)  # drift of features reads all bookings
    assert 0.5 < len(clean.matured_label) / len(whole.matured_label) < 0.8
    assert 0 < sum(part.rows for part in clean.in_flight) < sum(part.rows for part in whole.in_flight)


def test_a_recalibration_by_itself_is_refused_without_a_hold_out(trained: World) -> None:
    trained.score(until=SECOND)
    act_upon(trained, some(trained, FIRST), on=FIRST)
    before = trained.standing()
    with pytest.raises(Refused, match=rf"actions upon scores are on record since {FIRST} and no booking is held out"):
        recalibrate(
            trained.house(),
            GradientBoosting(),
            RecalibrationPolicy(ShiftPolicy(28.0, 20.0)),
            as_of=SECOND,
            by="a test",
            owner="a test",
            lease_ttl=timedelta(minutes=1),
            seed=1,
        )
    assert trained.standing() == before
