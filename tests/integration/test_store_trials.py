"""Trials, stored features and what is served of each booking, promise by promise, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text
from test_store import MINUTE, NOW, a_trial, at_once, bookings, built, contents, outcomes, scores

from cancellations.domain import features
from cancellations.domain.comparison import Arm
from cancellations.domain.features import CATEGORICAL, FEATURES, NUMERIC
from cancellations.domain.labels import Examples, LabelRule
from cancellations.domain.promotion import Change, Kind, Standing, TrialState
from cancellations.domain.recipes import Recipe
from cancellations.domain.reservation import COLUMNS, GROUP, sized
from cancellations.errors import BadInput, Refused, ServiceDown
from cancellations.model import GradientBoosting
from cancellations.ports import UnitOfWork
from cancellations.sources.simulator import Simulator
from cancellations.store import SqlStore, open_store

# All bookings of these tests are made on 2024-01-05 for 2024-02-01: open on this day.
OPEN = date(2024, 1, 20)


def stand(work: UnitOfWork, champion: str, challenger: str | None = None) -> Standing:
    """The standing becomes this one, whatever it was."""
    return work.change_standing(
        work.standing(),
        champion=champion,
        challenger=challenger,
        change=Change.PROMOTED,
        reason="a test",
        by="a test",
        as_of=OPEN,
        now=NOW,
    )


def scored(work: UnitOfWork, **probability: float) -> None:
    """Predictions for bookings a to d by the versions v1, v2 …"""
    for version, p in probability.items():
        work.add_predictions(version[1:], scores("abcd", p), OPEN, NOW)


def now_served(work: UnitOfWork, as_of: date = OPEN) -> dict[str, tuple[str, float, str | None, int]]:
    """Version, probability, arm and epoch by booking."""
    rows = work.served(as_of)
    values = rows[["reservation_id", "model_version", "probability", "arm", "epoch"]].astype(object)
    return {i: (v, p, a, n) for i, v, p, a, n in values.where(values.notna(), None).itertuples(index=False)}


def rows_of(store: SqlStore, query: str) -> list[tuple[Any, ...]]:
    with store._engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


@pytest.fixture
def world(store: SqlStore) -> SqlStore:
    """Champion 1 stands, and bookings a to d are open, each with a score of 0.1 by it."""
    with store.begin() as work:
        work.upsert_reservations(bookings("abcd"))
        scored(work, v1=0.1)
        stand(work, "1")
        work.commit()
    return store


@contextmanager
def tried(store: SqlStore, **arms: Arm) -> Iterator[UnitOfWork]:
    """Challenger 2 is on trial, with scores of 0.2 for all four and these arms."""
    with store.begin() as work:
        scored(work, v2=0.2)
        seen = stand(work, "1", "2")
        work.add_trial(a_trial(epoch=seen.epoch), NOW)
        work.add_arms("trial-2-1", arms)
        yield work


# --- trials ---------------------------------------------------------------------------------------


def test_a_trial_comes_back_as_it_was_written(store: SqlStore) -> None:
    ended = a_trial("t1", state=TrialState.EXPIRED, kind=Kind.PROBATION, request_id=None)
    bare = a_trial("t2", decided_on=None, reasons=(), evidence=(), asked_until=None, asked_by=None)
    with store.begin() as work:
        assert work.open_trial() is work.trial("t1") is None
        work.add_trial(ended, NOW)
        work.add_trial(bare, NOW)
        assert work.trials() == [ended, bare]
        assert work.open_trial() == work.trial("t2") == bare
        back = work.trial("t1")
    assert back == ended
    assert back is not None and back.asked_until is not None and back.asked_until.tzinfo is UTC


@pytest.mark.parametrize("state", [s for s in TrialState if not s.final])
@pytest.mark.parametrize("kind", Kind)
def test_a_second_trial_is_refused_while_one_has_not_ended(store: SqlStore, state: TrialState, kind: Kind) -> None:
    with store.begin() as work:
        work.add_trial(a_trial("t1", state=state), NOW)
        named = "the trial of challenger 2 against champion 1 has not ended, so the .* cannot begin"
        with pytest.raises(Refused, match=named):
            work.add_trial(a_trial("t2", kind=kind, champion="2", rival="1"), NOW)
        assert work.trials() == [a_trial("t1", state=state)]


@pytest.mark.parametrize("state", [s for s in TrialState if s.final])
def test_each_final_state_lets_another_trial_begin(store: SqlStore, state: TrialState) -> None:
    with store.begin() as work:
        work.add_trial(a_trial("t1", state=state), NOW)
        assert work.open_trial() is None
        work.add_trial(a_trial("t2"), NOW)
        assert work.open_trial() == a_trial("t2")


def test_the_id_of_a_trial_is_used_once(store: SqlStore) -> None:
    with store.begin() as work:
        work.add_trial(a_trial(state=TrialState.REJECTED), NOW)
        with pytest.raises(BadInput, match="refused"):
            work.add_trial(a_trial(), NOW)


def test_of_two_trials_opened_at_once_one_begins(store: SqlStore, store_url: str) -> None:
    def begin(trial_id: str) -> str:
        own = open_store(store_url)
        try:
            with own.begin() as work:
                assert work.open_trial() is None
                both_have_read.wait()
                work.add_trial(a_trial(trial_id), NOW)
                work.commit()
                return trial_id
        finally:
            own.close()

    both_have_read = threading.Barrier(2)
    results = at_once(lambda: begin("t1"), lambda: begin("t2"))
    won = [r for r in results if isinstance(r, str)]
    assert len(won) == 1 and sum(type(r) is Refused for r in results) == 1, results
    with store.begin() as work:
        assert [t.trial_id for t in work.trials()] == won


def test_a_trial_is_updated_from_the_state_it_was_read_in_only(store: SqlStore) -> None:
    running = a_trial(evidence=(), reasons=())
    asked = a_trial(state=TrialState.AWAITING)
    with store.begin() as work:
        work.add_trial(running, NOW)
        assert work.update_trial(replace(running, reasons=("14 days",)), TrialState.RUNNING, NOW)
        assert work.update_trial(asked, TrialState.RUNNING, NOW)
        assert work.open_trial() == asked
        assert not work.update_trial(a_trial(state=TrialState.EXPIRED), TrialState.RUNNING, NOW)
        assert not work.update_trial(a_trial("nobody"), TrialState.RUNNING, NOW)
        assert work.trials() == [asked]


def test_the_time_of_a_state_moves_with_the_state_only(store: SqlStore) -> None:
    with store.begin() as work:
        work.add_trial(a_trial(), NOW)
        work.update_trial(a_trial(reasons=("more",)), TrialState.RUNNING, NOW + MINUTE)
        work.commit()
        since = "SELECT state_since = recorded_at FROM trials"
        assert rows_of(store, since) == [(True,)]
        work.update_trial(a_trial(state=TrialState.EXPIRED), TrialState.RUNNING, NOW + MINUTE)
        work.commit()
    assert rows_of(store, since) == [(False,)]


def test_of_two_that_end_a_trial_at_once_one_does(store: SqlStore, store_url: str) -> None:
    with store.begin() as work:
        work.add_trial(a_trial(), NOW)
        work.commit()

    def end(state: TrialState) -> bool:
        own = open_store(store_url)
        try:
            with own.begin() as work:
                seen = work.open_trial()
                both_have_read.wait()
                done = work.update_trial(a_trial(state=state), seen.state if seen else state, NOW)
                work.commit()
                return done
        finally:
            own.close()

    both_have_read = threading.Barrier(2)
    results = at_once(lambda: end(TrialState.PROMOTED), lambda: end(TrialState.WITHDRAWN))
    assert sorted(results, key=str) == [False, True]


# --- features -------------------------------------------------------------------------------------


def test_a_model_predicts_the_same_from_built_and_from_stored_features(store: SqlStore) -> None:
    """The real pipeline on bookings of which every column lacks a value somewhere."""
    (batch,) = Simulator(date(2016, 5, 2), 8, seed=7).batches()
    rows = sized(batch.reservations.reset_index(drop=True))
    optional = [c.name for c in COLUMNS if not c.required]
    for place, name in enumerate(optional):
        rows.loc[rows.index % len(optional) == place, name] = np.nan
    history = rows.join(batch.outcomes.set_index("reservation_id"), on="reservation_id")
    made = features.build(rows, features.past_of(history), LabelRule()).set_axis(rows["reservation_id"])
    # What no booking lacks today those of a later source may lack.
    made.loc[made.index[::7], list(NUMERIC)] = np.nan
    made.loc[made.index[::5], list(CATEGORICAL)] = np.nan
    made.loc[made.index[::9], list(CATEGORICAL)] = None

    with store.begin() as work:
        work.upsert_reservations(rows)
        assert work.add_features(made, NOW) == len(made) > 500
        stored = work.features(rows["reservation_id"]).loc[rows["reservation_id"]]
    pd.testing.assert_frame_equal(stored, made.where(made.notna(), np.nan), check_exact=True)
    label = np.arange(len(made)) % 3 == 0
    examples = Examples(np.arange(len(made)), label.astype(float), np.ones(len(made)))
    model = GradientBoosting().fit(made, [examples], Recipe(), seed=1)
    assert len(set(model.predict(made))) > 100
    assert model.predict(stored).tolist() == model.predict(made).tolist()


def test_stored_features_have_the_types_that_built_ones_have(store: SqlStore) -> None:
    rows = bookings("ab")
    with store.begin() as work:
        work.upsert_reservations(rows)
        nothing = work.features(rows["reservation_id"])
        work.add_features(built(rows), NOW)
        stored = work.features(rows["reservation_id"])
    for found in (nothing, stored):
        assert list(found.columns) == list(FEATURES)
        assert found.dtypes.tolist() == built(rows).dtypes.tolist()
        assert found.index.name == "reservation_id"
    assert (len(nothing), len(stored)) == (0, 2)


def test_features_stay_as_they_were_first_stored(store: SqlStore) -> None:
    rows = bookings("abc")
    first, later = built(rows.head(2)), built(rows).assign(price=999.0)
    with store.begin() as work:
        work.upsert_reservations(rows)
        assert work.add_features(built(bookings("")), NOW) == 0
        assert work.add_features(first, NOW) == 2
        assert work.add_features(later, NOW) == 1
        stored = work.features(pd.Series(["c", "a", "nobody", "a", "b"]))
    assert stored["price"].to_dict() == {"a": 101.35, "b": 101.35, "c": 999.0}


def test_features_of_a_booking_that_is_not_there_are_refused(store: SqlStore) -> None:
    with pytest.raises(BadInput, match="refused"), store.begin() as work:
        work.add_features(built(bookings("a")), NOW)


# --- arms -----------------------------------------------------------------------------------------


def test_bookings_without_an_arm_are_open_ones_in_order_of_id(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(bookings("dbA"))
        work.upsert_reservations(bookings("e", "2024-01-21"))
        work.upsert_reservations(bookings("fgh", arrival_on=["2024-01-19", "2024-01-20", "2024-03-01"]))
        work.record_outcomes(outcomes(h=("canceled", "2024-01-20"), d=("canceled", "2024-01-21")))
        work.add_trial(a_trial(), NOW)
        # e is not made yet, f has arrived, h is cancelled; nobody knows yet that d will be.
        assert work.unassigned("trial-2-1", OPEN).tolist() == ["A", "b", "d", "g"]
        assert work.add_arms("trial-2-1", {"d": Arm.RIVAL, "b": Arm.CHAMPION}) == 2
        assert work.add_arms("trial-2-1", {"b": Arm.RIVAL, "A": Arm.RIVAL}) == 1
        assert work.add_arms("trial-2-1", {}) == 0
        assert work.unassigned("trial-2-1", OPEN).tolist() == ["g"]
        assert work.unassigned("another", OPEN).tolist() == ["A", "b", "d", "g"]
        work.commit()
    assert sorted(rows_of(store, "SELECT reservation_id, arm FROM arms")) == [
        ("A", "rival"),
        ("b", "champion"),
        ("d", "rival"),
    ]


def test_an_arm_of_no_trial_is_refused(world: SqlStore) -> None:
    with pytest.raises(BadInput, match="refused"), world.begin() as work:
        work.add_arms("nobody", {"a": Arm.RIVAL})
        work.commit()


# --- what is served -------------------------------------------------------------------------------


def test_without_a_champion_nothing_is_served(store: SqlStore) -> None:
    with store.begin() as work:
        work.upsert_reservations(bookings("abcd"))
        scored(work, v1=0.1)
        assert work.serve(OPEN, NOW) == 0
        served = work.served(OPEN)
    assert list(served.columns) == [
        "reservation_id",
        *GROUP,
        "deposit_type",
        "price",
        "probability",
        "model_version",
        "arm",
        "epoch",
        "served_at",
        "hold_out",
    ]
    assert served.empty
    assert served["epoch"].dtype == "int64"


def test_open_bookings_are_served_the_champion_s_score_once(world: SqlStore) -> None:
    with world.begin() as work:
        work.record_outcomes(outcomes(b=("canceled", "2024-01-20"), c=("canceled", "2024-01-21")))
        work.upsert_reservations(bookings("x"))  # open, and not scored
        assert work.serve(OPEN, NOW) == 3
        assert work.serve(OPEN, NOW + MINUTE) == 0
        served = work.served(OPEN)
        assert now_served(work) == dict.fromkeys("acd", ("1", 0.1, None, 1))
        assert list(now_served(work, date(2024, 1, 21))) == ["a", "d"]
        assert work.served(date(2024, 2, 2)).empty
    assert served["booked_on"].tolist() == [pd.Timestamp("2024-01-05")] * 3
    assert served["arrival_on"].dtype == "datetime64[us]"
    assert served["served_at"].tolist() == [pd.Timestamp(NOW)] * 3
    assert served["arm"].isna().all()


def test_a_booking_of_tomorrow_is_not_served_today(world: SqlStore) -> None:
    with world.begin() as work:
        assert work.serve(date(2024, 1, 4), NOW) == 0
        assert work.serve(date(2024, 2, 1), NOW) == 4


def test_while_a_trial_runs_each_arm_is_served_its_version(world: SqlStore) -> None:
    with tried(world, a=Arm.RIVAL, b=Arm.CHAMPION, c=Arm.RIVAL) as work:
        assert work.serve(OPEN, NOW) == 4
        assert work.serve(OPEN, NOW) == 0
        expected = {
            "a": ("2", 0.2, "rival", 2),
            "b": ("1", 0.1, "champion", 2),
            "c": ("2", 0.2, "rival", 2),
            "d": ("1", 0.1, None, 2),  # no arm yet
        }
        assert now_served(work) == expected
        asked = a_trial(epoch=2, state=TrialState.AWAITING)
        assert work.update_trial(asked, TrialState.RUNNING, NOW)
        assert work.serve(OPEN, NOW) == 0


def test_an_arm_that_comes_after_the_first_serving_of_the_epoch_counts(world: SqlStore) -> None:
    with tried(world) as work:
        assert work.serve(OPEN, NOW) == 4
        work.add_arms("trial-2-1", {"a": Arm.RIVAL})
        assert work.serve(OPEN, NOW) == 1
        assert now_served(work)["a"] == ("2", 0.2, "rival", 2)


def test_an_arm_without_a_score_by_the_rival_is_served_the_champion_s_until_there_is_one(world: SqlStore) -> None:
    with world.begin() as work:
        seen = stand(work, "1", "2")
        work.add_trial(a_trial(epoch=seen.epoch), NOW)
        work.add_arms("trial-2-1", {"a": Arm.RIVAL})
        work.serve(OPEN, NOW)
        assert now_served(work)["a"] == ("1", 0.1, "champion", 2)
        scored(work, v2=0.2)
        assert work.serve(OPEN, NOW) == 1
        assert now_served(work)["a"] == ("2", 0.2, "rival", 2)


def test_the_end_of_a_trial_brings_every_booking_back_to_the_champion(world: SqlStore) -> None:
    with tried(world, a=Arm.RIVAL, b=Arm.CHAMPION) as work:
        work.serve(OPEN, NOW)
        work.update_trial(a_trial(state=TrialState.REJECTED), TrialState.RUNNING, NOW)
        stand(work, "1")
        assert work.serve(OPEN, NOW) == 2
        served = now_served(work)
    assert (served["a"], served["b"]) == (("1", 0.1, None, 3),) * 2
    # Nothing changed for the others: they keep the row that they have.
    assert served["c"] == ("1", 0.1, None, 2)


@pytest.mark.parametrize("change", ["another epoch", "a probation"])
def test_arms_count_in_a_trial_of_the_present_pair_only(world: SqlStore, change: str) -> None:
    with world.begin() as work:
        scored(work, v2=0.2)
        seen = stand(work, "1", "2")
        kind = Kind.PROBATION if change == "a probation" else Kind.TRIAL
        work.add_trial(a_trial(kind=kind, epoch=seen.epoch), NOW)
        work.add_arms("trial-2-1", {"a": Arm.RIVAL})
        if change == "another epoch":
            stand(work, "1", "3")
        work.serve(OPEN, NOW)
        assert now_served(work)["a"][:3] == ("1", 0.1, None)


def test_a_promotion_moves_every_open_booking_in_its_own_transaction(world: SqlStore) -> None:
    with tried(world, a=Arm.RIVAL, b=Arm.CHAMPION) as work:
        work.serve(OPEN, NOW)
        work.commit()
    with world.begin() as work:
        work.update_trial(a_trial(state=TrialState.PROMOTED), TrialState.RUNNING, NOW)
        stand(work, "2")
        assert work.serve(OPEN, NOW) == 4
        assert {v[:2] for v in now_served(work).values()} == {("2", 0.2)}
        # Until it is committed everybody else sees what was served before.
        with world.begin() as reader:
            assert reader.standing().champion == "1"
            assert {v[0] for v in now_served(reader).values()} == {"1", "2"}
        work.commit()
    with world.begin() as reader:
        assert reader.standing().champion == "2"
        assert {v[0] for v in now_served(reader).values()} == {"2"}


def test_the_last_good_score_stays_until_the_new_champion_has_one(world: SqlStore) -> None:
    with world.begin() as work:
        work.serve(OPEN, NOW)
        work.add_predictions("2", scores("ab", 0.2), OPEN, NOW)
        stand(work, "2")
        assert work.serve(OPEN, NOW) == 2
        assert [v[0] for v in now_served(work).values()] == ["2", "2", "1", "1"]
        work.add_predictions("2", scores("c", 0.2), OPEN, NOW)
        assert work.serve(OPEN, NOW) == 1
        assert [v[0] for v in now_served(work).values()] == ["2", "2", "2", "1"]


def test_what_was_served_is_never_rewritten(world: SqlStore) -> None:
    history = "SELECT number, epoch, model_version, probability, arm, trial_id FROM servings WHERE reservation_id = 'a'"
    with world.begin() as work:
        work.serve(OPEN, NOW)
        work.commit()
    first = rows_of(world, "SELECT * FROM servings ORDER BY reservation_id")
    with tried(world, a=Arm.RIVAL) as work:
        work.serve(OPEN, NOW + MINUTE)
        work.update_trial(a_trial(state=TrialState.PROMOTED), TrialState.RUNNING, NOW)
        stand(work, "2")
        work.serve(OPEN, NOW + MINUTE)
        stand(work, "1")
        work.serve(OPEN, NOW + MINUTE)
        work.commit()
    assert rows_of(world, f"{history} ORDER BY number") == [
        (1, 1, "1", 0.1, None, None),
        (2, 2, "2", 0.2, "rival", "trial-2-1"),
        (3, 3, "2", 0.2, None, None),
        (4, 4, "1", 0.1, None, None),
    ]
    assert rows_of(world, "SELECT * FROM servings WHERE number = 1 ORDER BY reservation_id") == first


def test_other_systems_read_the_last_score_of_every_booking_from_a_view(world: SqlStore) -> None:
    with world.begin() as work:
        work.serve(OPEN, NOW)
        work.commit()
    with tried(world, a=Arm.RIVAL) as work:
        work.record_outcomes(outcomes(d=("canceled", "2024-01-20")))
        work.serve(OPEN, NOW)
        work.commit()
    seen = "SELECT reservation_id, probability, model_version, arm, epoch FROM scores ORDER BY reservation_id"
    assert rows_of(world, seen) == [
        ("a", 0.2, "2", "rival", 2),
        ("b", 0.1, "1", None, 1),
        ("c", 0.1, "1", None, 1),
        ("d", 0.1, "1", None, 1),  # its last one, although it has ended
    ]
    with world._engine.connect() as connection:
        columns = list(connection.execute(text("SELECT * FROM scores")).keys())
    assert columns == ["reservation_id", "probability", "model_version", "arm", "epoch", "served_at", "hold_out"]


def test_servers_at_once_write_each_serving_once(store: SqlStore, store_url: str) -> None:
    ids = [f"{i:05d}" for i in range(2_000)]
    with store.begin() as work:
        work.upsert_reservations(bookings("x" * len(ids), reservation_id=ids))
        work.add_predictions("1", pd.DataFrame({"reservation_id": ids, "probability": 0.5}), OPEN, NOW)
        stand(work, "1")
        work.commit()

    def serve() -> int:
        own = open_store(store_url)
        try:
            with own.begin() as work:
                new = work.serve(OPEN, NOW)
                work.commit()
                return new
        finally:
            own.close()

    assert sorted(at_once(serve, serve, serve), key=str) == [0, 0, len(ids)]
    assert contents(store)["servings"] == len(ids)


def test_a_promotion_and_servers_at_once_end_with_the_new_champion_s_scores(world: SqlStore, store_url: str) -> None:
    """Whoever comes first: a server that read the old standing has written before the promotion serves."""
    with world.begin() as work:
        scored(work, v2=0.2)
        work.commit()

    def act(change: Callable[[UnitOfWork], object]) -> None:
        own = open_store(store_url)
        try:
            with own.begin() as work:
                change(work)
                work.serve(OPEN, NOW)
                work.commit()
        finally:
            own.close()

    for champion in ("2", "1", "2", "1"):
        results = at_once(
            lambda: act(lambda work: None),
            lambda champion=champion: act(lambda work: stand(work, champion)),  # type: ignore[misc]
            lambda: act(lambda work: None),
        )
        assert results == [None] * 3
        with world.begin() as work:
            assert {v[0] for v in now_served(work).values()} == {champion}


def test_nobody_changes_the_standing_while_scores_are_served(world: SqlStore, store_url: str) -> None:
    changed = threading.Event()

    def promote() -> None:
        own = open_store(store_url)
        with own.begin() as work:
            stand(work, "2")
            work.commit()
        changed.set()
        own.close()

    with world.begin() as work:
        work.serve(OPEN, NOW)
        thread = threading.Thread(target=promote)
        thread.start()
        # Long enough for one that does not wait to be done; a late one can only make this pass.
        assert not changed.wait(0.5)
        work.commit()
    thread.join()
    assert changed.is_set()


def test_of_two_writers_that_wait_for_each_other_one_ends_with_a_sentence(world: SqlStore, store_url: str) -> None:
    if store_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    with world.begin() as work:
        work.add_trial(a_trial(), NOW)
        work.commit()
    each_holds_one = threading.Barrier(2)

    def change(*steps: Callable[[UnitOfWork], object]) -> None:
        own = open_store(store_url)
        try:
            with own.begin() as work:
                steps[0](work)
                each_holds_one.wait()
                steps[1](work)
                work.commit()
        finally:
            own.close()

    def end(work: UnitOfWork) -> None:
        work.update_trial(a_trial(), TrialState.RUNNING, NOW)

    def serve(work: UnitOfWork) -> None:
        work.serve(OPEN, NOW)

    results = at_once(lambda: change(end, serve), lambda: change(serve, end))
    (refused,) = [r for r in results if r is not None]
    assert isinstance(refused, ServiceDown)
    assert "waited for each other" in str(refused)
