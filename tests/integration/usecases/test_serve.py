"""Answers while somebody waits: the same as a batch's, recorded once, whoever is faster; by the ledger's champion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from world import FIRST, POLICY, SECOND, START, Table, World, simulator

from cancellations.domain.checks import Hold, HoldState
from cancellations.domain.comparison import Arm, arm
from cancellations.domain.features import CORE
from cancellations.domain.hold_out import ActionPolicy
from cancellations.domain.lookup import Lacking, Lookup
from cancellations.domain.promotion import Change, Standing
from cancellations.domain.reservation import COLUMNS, Column
from cancellations.errors import BadInput, Refused, ServiceDown
from cancellations.inference import RowModel
from cancellations.ports import RowClassifier, UnitOfWork, VersionRecord
from cancellations.usecases import serve
from cancellations.usecases.point_in_time import months, remember
from cancellations.usecases.serve import Answer, Asked, Desk, Serving, champion, follow, record

TODAY = SECOND + timedelta(days=1)


def loader(world: World) -> Callable[[VersionRecord], RowClassifier]:
    def load(version: VersionRecord) -> RowClassifier:
        model = world.registry.load(version.version, fresh=True)
        return RowModel(model, world.registry.reference(version.version).drop(columns="label"))

    return load


def desk_of(world: World, hold_out: float = 0.0) -> Desk:
    return Desk(
        world.store,
        POLICY.labels,
        clock=world.clock,
        today=lambda: TODAY,
        history_age=timedelta(minutes=1),
        hold_out=hold_out,
    )


def plain(frame: pd.DataFrame, columns: Sequence[Column] = COLUMNS) -> list[dict[str, Any]]:
    """Reservations as a request tells them."""
    told = []
    for row in frame.to_dict("records"):
        booking: dict[str, Any] = {}
        for column in columns:
            value = row[column.name]
            if column.kind == "date":
                booking[column.name] = value.date()
            elif column.kind in ("count", "number"):
                booking[column.name] = float(value)
            else:
                booking[column.name] = None if pd.isna(value) else value
        told.append(booking)
    return told


@cache
def simulated() -> pd.DataFrame:
    [batch] = simulator().batches()
    assert batch.reservations is not None
    return batch.reservations


def made_on(day: date) -> pd.DataFrame:
    """Reservations that the simulated hotels took on a day; those of the day after SECOND nobody has loaded."""
    made = simulated()[simulated()["booked_on"] == pd.Timestamp(min(day, SECOND))]
    if day <= SECOND:
        return made
    late = day - SECOND
    return made.assign(
        reservation_id="new-" + made["reservation_id"],
        booked_on=made["booked_on"] + late,
        arrival_on=made["arrival_on"] + late,
    )


def ask(
    world: World, desk: Desk, bookings: Sequence[dict[str, Any]], serving: Serving | None = None, **knobs: Any
) -> list[Answer]:
    """Answers, recorded when this returns."""
    serving = serving or follow(world.store, loader(world), None)
    [answers], notes = desk.answer(serving, [Asked(tuple(bookings), **knobs)])
    if notes:
        done = record(world.store, notes, as_of=TODAY, now=world.clock())
        assert not done.overtaken
    return answers


def stored_features(world: World, ids: Sequence[str]) -> pd.DataFrame:
    with world.store.begin() as work:
        return work.features(pd.Series(list(ids))).sort_index()


def fill(world: World) -> None:
    """Bookings of the last weeks until SECOND."""
    rows = simulated()[simulated()["booked_on"] > pd.Timestamp(FIRST)]
    world.ingest(until=SECOND, source=Table(rows.assign(status=None, known_on=pd.NaT)))


# --- the same as a batch ----------------------------------------------------------------------------


def test_an_unknown_reservation_gets_what_a_batch_would_have_given_and_leaves_the_same(
    serving: World, serving_too: World
) -> None:
    fill(serving)
    new = made_on(TODAY)
    answers = ask(serving, desk_of(serving), plain(new))
    assert {a.version for a in answers} == {"1"} and all(a.recorded and not a.stored for a in answers)

    # Another house with the same past loads the same reservations, and scores them in a batch.
    other = serving_too
    fill(other)
    other.ingest(until=TODAY, source=Table(new.assign(status=None, known_on=pd.NaT)))
    other.score(until=TODAY)
    batch = other.predictions("1")
    ids = new["reservation_id"]
    np.testing.assert_allclose([a.probability for a in answers], batch.loc[ids], rtol=0, atol=1e-12)
    pd.testing.assert_frame_equal(stored_features(serving, ids), stored_features(other, ids))
    recorded = serving.predictions("1")
    assert recorded.loc[ids].tolist() == [a.probability for a in answers]
    with serving.store.begin() as here, other.store.begin() as there:
        mine, theirs = here.booked(ids.tolist(), TODAY), there.booked(ids.tolist(), TODAY)
    assert {i: str(dict(b.reservation)) for i, b in mine.items()} == {
        i: str(dict(b.reservation)) for i, b in theirs.items()
    }


def test_a_batch_finds_nothing_left_to_score_and_a_load_nothing_new(trained: World) -> None:
    new = made_on(TODAY)
    answers = ask(trained, desk_of(trained), plain(new))
    features = stored_features(trained, new["reservation_id"])
    counts = trained.ingest(until=TODAY, source=Table(new.assign(status=None, known_on=pd.NaT)))
    assert (counts.loaded, counts.updated, counts.unchanged) == (0, 0, len(new))
    trained.score(until=TODAY)
    assert trained.predictions("1").loc[new["reservation_id"]].tolist() == [a.probability for a in answers]
    pd.testing.assert_frame_equal(stored_features(trained, new["reservation_id"]), features)
    # The next day's bookings find them on the books, as loaded ones.
    with trained.store.begin() as work:
        assert work.books(months(new["arrival_on"]), TODAY, date.max)["bookings"].sum() > len(new)


def test_what_a_batch_has_scored_is_answered_as_it_was_scored(trained: World) -> None:
    trained.score(until=SECOND)
    batch = trained.predictions("1")
    scored = made_on(SECOND)
    # Whatever a request says of it: a correction comes by a load, and changes no features.
    told = [{**booking, "price": 1.0} for booking in plain(scored)]
    answers = ask(trained, desk_of(trained), told)
    assert all(a.stored and a.recorded for a in answers)
    np.testing.assert_allclose(
        [a.probability for a in answers], batch.loc[scored["reservation_id"]], rtol=0, atol=1e-12
    )
    pd.testing.assert_series_equal(trained.predictions("1"), batch)


def test_what_is_loaded_and_not_scored_yet_counts_as_it_is_stored(serving: World) -> None:
    fill(serving)
    loaded = made_on(SECOND)
    answers = ask(serving, desk_of(serving), [{**booking, "price": 1.0} for booking in plain(loaded)])
    assert all(a.stored for a in answers)
    first = serving.predictions("1")
    assert first.loc[loaded["reservation_id"]].tolist() == [a.probability for a in answers]
    serving.score(until=SECOND)
    assert (
        serving.predictions("1").loc[loaded["reservation_id"]].tolist() == first.loc[loaded["reservation_id"]].tolist()
    )
    features = stored_features(serving, loaded["reservation_id"])
    assert sorted(features["price"].dropna()) == sorted(loaded["price"].dropna())


# --- once -------------------------------------------------------------------------------------------


def test_asking_again_records_nothing_twice_and_says_the_same(serving: World) -> None:
    fill(serving)
    new = plain(made_on(TODAY))[:5]
    desk, who = desk_of(serving), follow(serving.store, loader(serving), None)
    answers, notes = desk.answer(who, [Asked(tuple(new)), Asked(tuple(new))])
    assert answers[0] == [a._replace(stored=False) for a in answers[1]]
    assert sorted(n.reservation_id for n in notes) == sorted(b["reservation_id"] for b in new)
    assert record(serving.store, notes, as_of=TODAY, now=serving.clock()).written == 5
    # By this process, by another one, and by the same notes once more after a commit that nobody heard of.
    assert record(serving.store, notes, as_of=TODAY, now=serving.clock()).written == 0
    again, more = desk.answer(who, [Asked(tuple(new))])
    assert more == [] and [a.probability for a in again[0]] == [a.probability for a in answers[0]]
    afresh, once_more = desk_of(serving).answer(who, [Asked(tuple(new))])
    assert [a.probability for a in afresh[0]] == [a.probability for a in answers[0]]
    assert record(serving.store, once_more, as_of=TODAY, now=serving.clock()).written == 0


def test_of_two_who_say_otherwise_of_a_booking_at_the_same_time_the_first_counts(trained: World) -> None:
    [one] = plain(made_on(TODAY).head(1))
    dear = {**one, "price": 5 * one["price"], "deposit_type": "Non Refund"}
    desk, who = desk_of(trained), follow(trained.store, loader(trained), None)
    [[first], [second], [quote]], notes = desk.answer(
        who, [Asked((one,)), Asked((dear,)), Asked((dear,), record=False)]
    )
    assert second.probability == first.probability != quote.probability
    assert (first.stored, second.stored, quote.stored) == (False, True, False)
    assert record(trained.store, notes, as_of=TODAY, now=trained.clock()).written == 1


def test_a_batch_that_was_faster_fixes_the_features_and_the_recorded_score(serving: World) -> None:
    fill(serving)
    new = made_on(TODAY)
    bookings = plain(new)
    desk, who = desk_of(serving), follow(serving.store, loader(serving), None)
    [told], notes = desk.answer(who, [Asked(tuple({**b, "price": 3 * b["price"]} for b in bookings))])
    serving.ingest(until=TODAY, source=Table(new.assign(status=None, known_on=pd.NaT)))
    serving.score(until=TODAY)
    batch = serving.predictions("1")
    features = stored_features(serving, new["reservation_id"])

    done = record(serving.store, notes, as_of=TODAY, now=serving.clock())
    assert done.written == 0 and set(done.overtaken) >= set(new.loc[new["price"].notna(), "reservation_id"])
    again = desk.correct(notes, done.overtaken)
    assert {n.reservation_id for n in again} == set(done.overtaken) and not any(n.built for n in again)
    assert record(serving.store, again, as_of=TODAY, now=serving.clock()).written == 0
    pd.testing.assert_series_equal(serving.predictions("1"), batch)
    pd.testing.assert_frame_equal(stored_features(serving, new["reservation_id"]), features)
    [corrected], _ = desk.answer(who, [Asked(tuple(bookings))])
    assert [a.probability for a in corrected] != [a.probability for a in told]
    np.testing.assert_allclose([a.probability for a in corrected], batch.loc[new["reservation_id"]], atol=1e-12)
    with serving.store.begin() as work:
        kept = work.booked([bookings[0]["reservation_id"]], TODAY)
    assert kept[bookings[0]["reservation_id"]].reservation["price"] == bookings[0]["price"]


def test_what_is_asked_without_record_is_scored_as_told_and_leaves_nothing(trained: World) -> None:
    known, new = plain(made_on(SECOND))[:3], plain(made_on(TODAY))[:3]
    desk = desk_of(trained)
    kept = ask(trained, desk, known)
    dear = ask(
        trained, desk, [{**b, "price": 5 * b["price"], "deposit_type": "Non Refund"} for b in known], record=False
    )
    assert all(not a.recorded and not a.stored for a in dear)
    assert [a.probability for a in dear] != [a.probability for a in kept]
    ask(trained, desk, new, record=False)
    with trained.store.begin() as work:
        assert work.booked([b["reservation_id"] for b in new], TODAY) == {}


def test_a_booking_that_the_version_may_have_learnt_from_is_answered_and_not_recorded(trained: World) -> None:
    old = made_on(START)
    matured = old[old["arrival_on"] < pd.Timestamp(FIRST)]
    answers = ask(trained, desk_of(trained), plain(matured))
    assert answers and not any(a.recorded for a in answers)
    assert trained.predictions("1").empty


def test_a_booking_of_a_day_that_is_held_back_is_answered_and_recorded_when_it_is_let_go(trained: World) -> None:
    [scored, *new] = plain(made_on(TODAY))[:4]
    ask(trained, desk_of(trained), [scored])
    with trained.store.begin() as work:
        work.add_hold(Hold(TODAY, TODAY, 4, (), "content"), trained.clock())
        work.commit()
    free = follow(trained.store, loader(trained), None)
    assert free.held == {TODAY}
    assert [a.recorded for a in ask(trained, desk_of(trained), [scored, *new], free)] == [True, False, False, False]
    with trained.store.begin() as work:
        work.end_hold(TODAY, HoldState.RELEASED, "ada", "it is right", trained.clock())
        work.commit()
    after = follow(trained.store, loader(trained), free)
    assert after.held == frozenset() and after.champion is free.champion
    assert all(a.recorded for a in ask(trained, desk_of(trained), [scored, *new], after))


def test_bookings_that_come_together_are_a_group(trained: World) -> None:
    [one] = plain(made_on(TODAY).head(1))
    group = [{**one, "reservation_id": f"g{n}"} for n in range(4)]
    ask(trained, desk_of(trained), group)
    with trained.store.begin() as work:
        assert {b.reservation["group_size"] for b in work.booked(["g0", "g3"], TODAY).values()} == {4.0}
    assert set(stored_features(trained, ["g0", "g3"])["group_size"]) == {4.0}


# --- whom nobody acts upon --------------------------------------------------------------------------


def test_who_is_held_out_is_told_as_a_batch_would_deal_it_and_stays_so(serving: World, serving_too: World) -> None:
    fill(serving)
    new = made_on(TODAY)
    ids = new["reservation_id"]
    desk = desk_of(serving, hold_out=0.5)
    told = [a.hold_out for a in ask(serving, desk, plain(new))]
    assert 0.2 < np.mean(told) < 0.8
    with serving.store.begin() as work:
        assert work.held_out(ids).tolist() == told

    other = serving_too
    fill(other)
    other.actions = ActionPolicy(hold_out=0.5)
    other.ingest(until=TODAY, source=Table(new.assign(status=None, known_on=pd.NaT)))
    other.score(until=TODAY)
    assert other.served(TODAY).loc[ids, "hold_out"].tolist() == told

    # Staff have been told so: no other share changes it, whoever is asked.
    serving.actions = ActionPolicy(hold_out=1.0)
    serving.score(until=TODAY)
    assert serving.served(TODAY).loc[ids, "hold_out"].tolist() == told
    for asked in (desk, desk_of(serving), desk_of(serving, hold_out=1.0)):
        for record_ in (True, False):
            assert [a.hold_out for a in ask(serving, asked, plain(new), record=record_)] == told


def test_without_a_hold_out_nobody_is_dealt_and_whoever_was_stays_held_out(trained: World) -> None:
    first, second = plain(made_on(TODAY).head(2))
    assert not ask(trained, desk_of(trained), [first])[0].hold_out
    with trained.store.begin() as work:
        assert not work.has_hold_out(TODAY)
    assert ask(trained, desk_of(trained, hold_out=1.0), [second])[0].hold_out
    assert [a.hold_out for a in ask(trained, desk_of(trained), [first, second])] == [False, True]


def test_what_was_acted_upon_or_is_over_is_not_held_out(trained: World) -> None:
    loaded = plain(made_on(SECOND))
    acted, called_back, over, *_ = [b for b in loaded if b["arrival_on"] > TODAY]
    with trained.store.begin() as work:
        rows = pd.DataFrame(
            {
                "reservation_id": [acted["reservation_id"], called_back["reservation_id"]],
                "action_taken": ["call", "none"],
                "acted_on": pd.Timestamp(SECOND),
            }
        )
        work.record_actions(rows)
        known = pd.DataFrame({"reservation_id": [over["reservation_id"]], "status": "canceled"})
        work.record_outcomes(known.assign(known_on=pd.Timestamp(SECOND)))
        work.commit()
    past = {**plain(made_on(TODAY).head(1))[0], "arrival_on": TODAY - timedelta(days=1), "booked_on": SECOND}
    answers = ask(trained, desk_of(trained, hold_out=1.0), [acted, called_back, over, past])
    assert [a.hold_out for a in answers] == [False, True, False, False]
    trained.actions = ActionPolicy(hold_out=1.0)
    trained.score(until=TODAY)
    served = trained.served(TODAY)["hold_out"]
    assert not served[acted["reservation_id"]] and served[called_back["reservation_id"]]


# --- what is known of the past ----------------------------------------------------------------------


def test_the_past_is_read_anew_when_a_load_has_moved_on_or_when_it_is_old(trained: World) -> None:
    desk, new = desk_of(trained), plain(made_on(TODAY))[:20]
    before = ask(trained, desk, new, record=False)
    assert not desk.refresh()
    # Prices of the month before today double, by a correction: today's are cheap beside them.
    loaded = made_on(SECOND)
    trained.ingest(until=SECOND, source=Table(loaded.assign(price=loaded["price"] * 9, status=None, known_on=pd.NaT)))
    assert [a.probability for a in ask(trained, desk, new, record=False)] == [a.probability for a in before]
    assert desk.refresh()
    after = ask(trained, desk, new, record=False)
    assert [a.probability for a in after] != [a.probability for a in before]
    assert after == ask(trained, desk_of(trained), new, record=False)
    assert not desk.refresh()
    trained.clock.advance(seconds=61)
    assert desk.refresh()


def test_what_nearly_every_booking_of_today_needs_is_read_before_somebody_waits(
    trained: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = plain(made_on(TODAY))
    answers = ask(trained, desk_of(trained), new, record=False)
    desk, read = desk_of(trained), []
    desk.prepare()

    def noted(work: UnitOfWork, lookup: Lookup, wanted: Lacking) -> None:
        read.append(wanted)
        remember(work, lookup, wanted)

    monkeypatch.setattr(serve, "remember", noted)
    assert ask(trained, desk, new, record=False) == answers
    assert not any(wanted.everyone or wanted.months for wanted in read)


def test_a_booking_of_an_older_day_is_looked_up_as_of_its_day(trained: World) -> None:
    desk = desk_of(trained)
    for day in (TODAY, SECOND - timedelta(days=50), START + timedelta(days=5), SECOND):
        bookings = plain(made_on(day))[:5]
        assert ask(trained, desk, bookings, record=False) == ask(trained, desk_of(trained), bookings, record=False)


def test_a_past_that_is_exchanged_while_somebody_looks_into_it_changes_no_answer(
    trained: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = plain(made_on(TODAY))[:5]
    answers = ask(trained, desk_of(trained), new, record=False)
    desk = desk_of(trained)

    def exchanged(work: UnitOfWork, lookup: Lookup, wanted: Lacking) -> None:
        remember(work, lookup, wanted)
        desk._lookup = Lookup(POLICY.labels, lookup.since)

    monkeypatch.setattr(serve, "remember", exchanged)
    assert ask(trained, desk, new, record=False) == answers


def test_a_declared_column_is_kept_and_is_a_feature(serving: World) -> None:
    fill(serving)
    extras = (Column("board", "category"), Column("fee", "number"))
    with serving.store.begin() as work:
        work.declare_columns(extras, serving.clock())
        work.commit()
    [one, other] = plain(made_on(TODAY).head(2))
    ask(serving, desk_of(serving), [{**one, "board": "half", "fee": 2.5}, {**other, "board": None, "fee": math.nan}])
    features = stored_features(serving, [one["reservation_id"], other["reservation_id"]])
    assert features.loc[one["reservation_id"], ["board", "fee"]].tolist() == ["half", 2.5]
    assert features.loc[other["reservation_id"], ["board", "fee"]].isna().all()
    assert list(features.columns) == list(CORE.extended(extras).names)


# --- who answers ------------------------------------------------------------------------------------


def test_without_a_champion_nobody_answers(loaded: World) -> None:
    with pytest.raises(Refused, match="there is no champion yet"):
        follow(loaded.store, loader(loaded), None)
    with pytest.raises(Refused, match="there is no champion yet"):
        champion(loaded.store)


def test_during_a_trial_each_booking_gets_the_answer_of_its_arm_as_in_a_batch(challenged: World) -> None:
    who = follow(challenged.store, loader(challenged), None)
    assert who.trial is not None and who.rival is not None and who.rival.version == "2"
    new = made_on(TODAY)
    answers = {a.reservation_id: a for a in ask(challenged, desk_of(challenged), plain(new), who)}
    for reservation_id, answer in answers.items():
        dealt = arm(who.trial.trial_id, reservation_id, who.trial.serve_share)
        assert answer.arm is dealt and answer.version == ("2" if dealt is Arm.RIVAL else "1")
    assert {a.version for a in answers.values()} == {"1", "2"}

    challenged.score(until=TODAY)
    served = challenged.served(TODAY).loc[list(answers)]
    assert served["arm"].tolist() == [a.arm for a in answers.values()]
    assert served["probability"].tolist() == [a.probability for a in answers.values()]
    assert served["model_version"].tolist() == [a.version for a in answers.values()]
    # Beside the one that answered the other version has scored it too, from the same features.
    assert set(challenged.predictions("1").index) >= set(answers) <= set(challenged.predictions("2").index)


def test_a_promotion_and_a_rollback_are_followed_and_nothing_is_loaded_for_no_change(challenged: World) -> None:
    loads: list[str] = []

    def load(version: VersionRecord) -> RowClassifier:
        loads.append(version.version)
        return loader(challenged)(version)

    who = follow(challenged.store, load, None)
    assert loads == ["1", "2"]
    assert follow(challenged.store, load, who) is who
    challenged.promote("2", SECOND)
    promoted = follow(challenged.store, load, who)
    assert promoted.champion.version == "2" and promoted.trial is None
    assert loads == ["1", "2"]  # it was there already
    told = champion(challenged.store)
    assert told.since is not None and told.since.change is Change.PROMOTED and told.since.reason == "asked for"
    challenged.roll_back(SECOND)
    assert follow(challenged.store, load, promoted).champion.version == "1"
    assert loads == ["1", "2", "1"]


def test_a_rival_that_cannot_be_loaded_leaves_its_bookings_to_the_champion_until_it_can(challenged: World) -> None:
    broken = True

    def load(version: VersionRecord) -> RowClassifier:
        if broken and version.version == "2":
            raise BadInput("version 2 cannot be read")
        return loader(challenged)(version)

    who = follow(challenged.store, load, None)
    assert who.rival is None and "version 2 cannot be read" in who.problems[0]
    answers = ask(challenged, desk_of(challenged), plain(made_on(TODAY)), who)
    assert {(a.version, a.arm) for a in answers} == {("1", Arm.CHAMPION)}
    broken = False
    mended = follow(challenged.store, load, who)
    assert mended.rival is not None and mended.problems == () and mended.champion is who.champion


def test_a_champion_that_cannot_be_loaded_is_not_served_and_the_present_one_stays(challenged: World) -> None:
    who = follow(challenged.store, loader(challenged), None)
    assert who.trial is not None
    with challenged.store.begin() as work:
        seen, record_ = work.standing(), work.version("1")
        assert record_ is not None
        work.add_version(replace(record_, version="9", request_id="nine"), challenged.clock())
        work.change_standing(
            seen,
            champion="9",
            challenger=None,
            change=Change.PROMOTED,
            reason="by hand",
            by="ada",
            as_of=SECOND,
            now=challenged.clock(),
        )
        work.commit()
    assert challenged.standing() == Standing("9", None, seen.epoch + 1)
    with pytest.raises((BadInput, ServiceDown), match="9"):
        follow(challenged.store, loader(challenged), None)
    stays = follow(challenged.store, loader(challenged), who)
    # Its trial is over: who was tried answers no more.
    assert stays.champion is who.champion and stays.epoch == seen.epoch
    assert stays.trial is None and stays.rival is None and "champion 9 is not served, 1 stays" in stays.problems[0]
    assert follow(challenged.store, loader(challenged), stays) is stays
    # Days that are held back are followed all the same.
    with challenged.store.begin() as work:
        work.add_hold(Hold(TODAY, TODAY, 4, (), "content"), challenged.clock())
        work.commit()
    assert follow(challenged.store, loader(challenged), stays).held == {TODAY}
