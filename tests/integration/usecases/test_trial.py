"""A trial: both versions score the same bookings, days are read in order, and each trial ends once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import mlflow.artifacts
import numpy as np
import pandas as pd
import pytest
from contest import (
    BAD,
    BLIND,
    BURN_IN,
    GOOD,
    TRAINED,
    Skill,
    bookings,
    candidate,
    day,
    even,
    foretell,
    late_bloomer,
    maturing,
    policy,
)
from world import FIRST, NOW, POLICY, SECOND, BrokenTrainer, CutOff, GivenMonitor, PowerCut, Table, World

from cancellations.domain import features
from cancellations.domain.comparison import Arm, Day, arm, read
from cancellations.domain.events import (
    ApprovalNeeded,
    ChallengerRegistered,
    ChampionChanged,
    DriftDetected,
    OutcomesArrived,
    TrialDoubted,
    TrialEnded,
)
from cancellations.domain.labels import maturity
from cancellations.domain.promotion import Change, Kind, Mode, Standing, Trial, TrialPolicy, TrialState
from cancellations.domain.retraining import Action, RequestState, RetrainPolicy
from cancellations.errors import BadInput, Refused, ServiceDown
from cancellations.store.tables import arms, outcomes, predictions
from cancellations.usecases.trial import ask, compare, score_challenger

AT_ONCE = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)


def the_trial(world: World, trial: Trial) -> Trial:
    with world.store.begin() as work:
        found = work.trial(trial.trial_id)
    assert found is not None
    return found


def stored_features(world: World, version: str) -> pd.DataFrame:
    """Features of all bookings that a version has scored, in order of id."""
    with world.store.begin() as work:
        return work.features(pd.Series(world.predictions(version).index)).sort_index()


def everything(world: World) -> tuple[object, ...]:
    """What a look may change, to be compared."""
    return world.standing(), world.ledger(), world.trials(), world.messages(), world.held(), world.registry.aliases()


# --- opening --------------------------------------------------------------------------------------


def test_a_retrain_ends_with_a_trial_of_its_challenger_that_begins_after_both_trainings(challenged: World) -> None:
    trial = challenged.open_trial()
    assert trial is not None and challenged.trials() == [trial]
    assert (trial.kind, trial.state, trial.champion, trial.rival) == (Kind.TRIAL, TrialState.RUNNING, "1", "2")
    assert (trial.opened_on, trial.cohort_after) == (SECOND, SECOND)
    assert trial.last_day == SECOND + timedelta(days=POLICY.trial.max_days)
    row = challenged.ledger()[-1]
    assert (row.change, row.by, row.epoch) == (Change.CHALLENGED, "the gate", trial.epoch)
    assert row.request_id == trial.request_id is not None


@pytest.mark.parametrize("method", ["add_trial", "release_lease"])
def test_a_death_while_the_trial_is_opened_leaves_neither_challenger_nor_trial(trained: World, method: str) -> None:
    request, before = trained.request(SECOND), everything(trained)
    with pytest.raises(PowerCut):
        trained.retrain(request, store=CutOff(trained.store, method))
    assert everything(trained) == before
    with trained.store.begin() as work:
        assert work.version("2") is None


def test_no_retrain_begins_while_a_trial_is_open_and_its_request_waits(challenged: World) -> None:
    asked, automatic = challenged.request(SECOND + timedelta(days=1)), challenged.automatic(SECOND)
    for request in (asked, automatic):
        told = f"the trial of challenger 2 against champion 1 has not ended; request {request.request_id} waits"
        with pytest.raises(Refused, match=told):
            challenged.retrain(request)
        assert challenged.stored(request) == request
    challenged.clock.advance(days=1)
    assert challenged.reconcile().started == ()
    challenged.withdraw(SECOND)
    assert len(challenged.reconcile().started) == 2
    assert challenged.retrain(asked).state is RequestState.CANDIDATE


# --- a newer challenger ---------------------------------------------------------------------------

SOON = replace(POLICY, trial=TrialPolicy(replace_after_days=1))
NEWER = SECOND + timedelta(days=1)


@pytest.fixture
def lost(challenged: World) -> World:
    """Challenger 2 cannot win any more, but has not lost yet; outcomes of a day more are there."""
    challenged.ingest(until=NEWER, after=SECOND)
    trial = challenged.open_trial()
    assert trial is not None
    days = [Day(trial.cohort_after + timedelta(days=n + 1), 100, -1.5 + 3.0 * (-1) ** n) for n in range(20)]
    with challenged.store.begin() as work:
        work.update_trial(replace(trial, evidence=read(days, trial.sequence).steps), trial.state, NOW)
        work.commit()
    challenged.score(until=SECOND)
    return challenged


def test_a_person_s_newer_challenger_takes_the_place_of_one_that_cannot_win_any_more(lost: World) -> None:
    assert set(lost.serving(SECOND)) == {"1", "2"}
    done = lost.retrain(lost.request(NEWER), policy=SOON)
    assert (done.state, done.version) == (RequestState.CANDIDATE, "3")
    old, new = lost.trials()
    assert old.state is TrialState.WITHDRAWN
    assert old.reasons[-1] == (
        f"challenger 3 takes its place: challenger 2 cannot win by {old.last_day} any more, and a challenger trained as"
        f" of {NEWER} is 1 day newer"
    )
    assert (new.champion, new.rival, new.epoch, new.state) == ("1", "3", 3, TrialState.RUNNING)
    assert lost.standing() == Standing("1", "3", 3)
    assert [row.change for row in lost.ledger()][1:] == [Change.CHALLENGED] * 2
    assert lost.registry.aliases() == {"champion": "1", "challenger": "3"}
    assert set(lost.serving(NEWER)) == {"1"}  # until the new one has scored, nobody is served the old one
    [mail] = lost.messages(TrialEnded.topic)
    assert (mail.payload["state"], mail.payload["version"]) == ("withdrawn", "2")


def test_by_the_defaults_it_must_be_four_weeks_newer_and_an_automatic_one_always_waits(lost: World) -> None:
    before = everything(lost)
    with pytest.raises(Refused, match=r"is 1 day newer than challenger 2, and 28 are needed\. To end it: .*withdraw"):
        lost.retrain(lost.request(NEWER))
    with pytest.raises(Refused, match=r"the trial of challenger 2 against champion 1 has not ended.* waits for it$"):
        lost.retrain(lost.automatic(NEWER), policy=SOON)
    assert everything(lost) == before


def test_a_trial_that_ends_while_the_newer_one_is_trained_is_not_replaced(lost: World) -> None:
    request = lost.request(NEWER)
    trainer = BrokenTrainer(lambda: lost.standing().champion == "2" or lost.promote("2", NEWER))
    with pytest.raises(Refused, match=r"the probation of champion 2 .* is there to take a promotion back"):
        lost.retrain(request, policy=SOON, trainer=trainer)
    assert lost.standing() == Standing("2", None, 3)
    assert [t.state for t in lost.trials()] == [TrialState.PROMOTED, TrialState.RUNNING]
    assert lost.stored(request).state is RequestState.WAITING


def test_a_new_challenger_scores_every_open_booking_at_once_and_its_arm_is_served_its_score(trained: World) -> None:
    trained.score(until=SECOND)
    done = trained.retrain(trained.request(SECOND))
    assert trained.predictions("2").empty
    scored = score_challenger(trained.house(), done)
    assert scored is not None and scored.rows["2"] == len(trained.predictions("2"))
    assert set(trained.serving(SECOND)) == {"1", "2"}
    with trained.store.begin() as work:
        open_ones = work.served(SECOND)["reservation_id"]
    assert set(open_ones) <= set(trained.predictions("2").index)
    trained.withdraw(SECOND)
    assert score_challenger(trained.house(), done) is None


def test_a_challenger_that_has_no_trial_gets_it_at_the_next_look(challenged: World) -> None:
    """As in a home that was made before there were trials."""
    opened = challenged.open_trial()
    assert opened is not None
    with challenged.store.begin() as work:
        work._connection.exec_driver_sql("DELETE FROM trials")  # type: ignore[attr-defined]
        work.commit()
    looked = challenged.look(SECOND)
    assert looked.trial is not None
    assert replace(looked.trial, reasons=()) == opened


# --- the same bookings, by the same features ------------------------------------------------------


def test_the_challenger_sees_bookings_as_the_champion_saw_them_whatever_became_known_since(trained: World) -> None:
    trained.score(until=SECOND)
    seen = stored_features(trained, "1")
    assert trained.retrain(trained.request(SECOND)).version == "2"
    with trained.store.begin() as work:
        history = work.history(booked_until=SECOND, known_until=SECOND)
        arrived = history[maturity(history, POLICY.labels) <= pd.Timestamp(FIRST)]
        # A hotel finds out late that half of its agents' guests had never come.
        late = arrived[["reservation_id"]].assign(status="canceled", known_on=arrived["arrival_on"]).iloc[::2]
        work.record_outcomes(late)
        work.commit()
    with trained.store.begin() as work:
        history = work.history(booked_until=SECOND, known_until=SECOND)
    now = (
        features.build(history, features.past_of(history), POLICY.labels)
        .set_axis(history["reservation_id"])
        .loc[seen.index]
    )
    assert not np.allclose(now["agent_cancel_rate"], seen["agent_cancel_rate"], equal_nan=True)

    assert trained.score(until=SECOND).rows == {"1": 0, "2": len(trained.predictions("2"))}
    scored = trained.predictions("2")
    assert 1_000 < len(scored) < len(seen)
    pd.testing.assert_frame_equal(stored_features(trained, "1"), seen)
    model = trained.registry.load("2")
    assert np.array_equal(scored, model.predict(seen.loc[scored.index]))
    assert not np.array_equal(scored, model.predict(now.loc[scored.index]))


def test_the_first_look_lets_the_challenger_score_what_is_open_and_later_ones_what_comes(contest: World) -> None:
    foretell(contest, v1=BLIND)
    contest.challenge("2", on=TRAINED)
    assert contest.predictions("2").empty
    contest.look(day(1))
    assert set(contest.predictions("2").index) == set(contest.predictions("1").index)
    new = bookings().iloc[-8:]
    new = new.assign(
        reservation_id="late-" + new["reservation_id"],
        booked_on=pd.Timestamp(day(2)),
        arrival_on=pd.Timestamp(day(60)),
        known_on=pd.Timestamp(day(61)),
    )
    contest.ingest(until=day(2), source=Table(new))
    contest.look(day(2))
    for version in ("1", "2"):
        assert set(new["reservation_id"]) <= set(contest.predictions(version).index)
    assert set(new["reservation_id"]) <= set(contest.served(day(2)).index)


def test_bookings_that_mature_after_both_trainings_are_read_and_no_others(contest: World) -> None:
    record = contest.registry.register(candidate("made-later", trained=day(5)))
    foretell(contest, v1=BLIND, **{f"v{record.version}": GOOD})
    trial = contest.challenge(record.version, on=day(6))
    assert trial.cohort_after == day(5)
    looked = contest.look(day(12)).trial
    assert looked is not None
    assert [step.day for step in looked.evidence] == [day(n) for n in range(6, 13)]
    assert looked.evidence[-1].bookings == maturing(6, 12)


def test_a_booking_that_one_version_has_not_scored_is_not_read(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    trial = contest.challenge("2", on=TRAINED)
    unscored = bookings()[lambda rows: rows["n"].eq(3)]["reservation_id"]
    with contest.store.begin() as work:
        work._write(  # type: ignore[attr-defined]
            predictions.delete().where(
                predictions.c.model_version == "2", predictions.c.reservation_id.in_(unscored.tolist())
            )
        )
        reading = compare(work, trial, POLICY.labels, day(5)).reading
    assert [step.day for step in reading.steps] == [day(n) for n in (1, 2, 4, 5)]
    assert reading.steps[-1].bookings == maturing(1, 5) - len(unscored)


# --- reading --------------------------------------------------------------------------------------


def test_a_day_is_not_read_before_outcomes_have_come_that_far(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    contest.challenge("2", on=TRAINED)
    rows = bookings()
    with contest.store.begin() as work:  # the feed of outcomes stopped on day 4
        work._write(outcomes.delete().where(outcomes.c.known_on > day(4)))  # type: ignore[attr-defined]
        work.commit()
    looked = contest.look(day(20)).trial
    assert looked is not None and looked.state is TrialState.RUNNING
    assert [step.day for step in looked.evidence] == [day(n) for n in range(1, 5)]

    contest.ingest(until=day(20), after=day(4), source=Table(rows))
    decided = contest.look(day(20)).trial
    assert decided is not None and (decided.state, decided.decided_on) == (TrialState.PROMOTED, day(BURN_IN))


def test_before_any_outcome_nothing_is_read(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    contest.challenge("2", on=TRAINED)
    looked = contest.look(TRAINED).trial
    assert looked is not None
    assert (looked.state, looked.evidence) == (TrialState.RUNNING, ())
    assert looked.reasons == (f"no booking has matured after {TRAINED}",)


@pytest.mark.parametrize("skill", [late_bloomer, BAD], ids=["better", "worse"])
def test_a_late_look_decides_what_daily_looks_decide(contest: World, contest_again: World, skill: Skill) -> None:
    for world in (contest, contest_again):
        foretell(world, v1=BLIND, v2=skill)
        world.challenge("2", on=TRAINED)
    daily = contest.look_daily(TRAINED, day(35)).trial
    late = contest_again.look(day(35)).trial
    assert daily is not None and daily.state.final and BURN_IN <= len(daily.evidence) < 30
    assert daily.decided_on == daily.evidence[-1].day
    assert late == daily


def test_looking_twice_changes_nothing(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=even)
    contest.challenge("2", on=TRAINED)
    looked = contest.look(day(5))
    before = everything(contest), contest.served(day(5))
    assert contest.look(day(5)) == looked
    assert everything(contest) == before[0]
    pd.testing.assert_frame_equal(contest.served(day(5)), before[1])


# --- how a trial ends -----------------------------------------------------------------------------


def test_a_better_challenger_is_promoted_on_the_day_that_decides(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    trial = contest.challenge("2", on=TRAINED)
    contest.look(day(BURN_IN - 1))
    assert contest.standing() == Standing("1", "2", 2)
    looked = contest.look(day(BURN_IN))
    assert looked.takeover is not None and looked.takeover.problems == ()
    ended = the_trial(contest, trial)
    assert looked.trial == ended
    assert (ended.state, ended.decided_on, ended.evidence[-1].bookings) == (
        TrialState.PROMOTED,
        day(BURN_IN),
        maturing(1, BURN_IN),
    )
    assert ended.reasons[-1] == "challenger 2 is better"
    assert contest.standing() == Standing("2", None, 3)
    assert contest.messages(TrialEnded.topic) == []
    assert [m.channel.value for m in contest.messages(ChampionChanged.topic)] == ["event", "mail"]


@pytest.mark.parametrize(
    ("skill", "until", "state", "why"),
    [
        (BAD, BURN_IN, TrialState.REJECTED, "champion 1 is better"),
        (even, 40, TrialState.EXPIRED, f"no answer by {day(40)}; champion 1 stays"),
    ],
    ids=["rejected", "expired"],
)
def test_a_challenger_that_is_not_better_leaves_and_the_owners_hear_once(
    contest: World, skill: Skill, until: int, state: TrialState, why: str
) -> None:
    foretell(contest, v1=BLIND, v2=skill)
    contest.challenge("2", on=TRAINED, policy=policy())
    assert contest.registry.aliases() == {"champion": "1", "challenger": "2"}
    early = contest.look(day(until - 1))
    assert early.trial is not None and early.trial.state is TrialState.RUNNING
    ended = contest.look(day(until)).trial
    assert ended is not None
    assert (ended.state, ended.reasons[-1], ended.decided_on) == (state, why, day(until))
    assert contest.standing() == Standing("1", None, 3)
    row = contest.ledger()[-1]
    assert (row.change, row.by, row.trial_id) == (Change.LEFT, "the trial", ended.trial_id)
    assert row.reason == f"{state}: {why}"
    assert contest.registry.aliases() == {"champion": "1"}
    [mail] = contest.messages(TrialEnded.topic)
    assert (mail.channel.value, mail.payload["state"], mail.payload["version"]) == ("mail", state.value, "2")
    assert mail.payload["reasons"] == list(ended.reasons)
    assert contest.look(day(until)).trial is None
    assert contest.messages(TrialEnded.topic) == [mail]


def test_days_behind_the_last_one_do_not_decide_a_trial_that_had_none(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=lambda n: 1.0 if n > 20 else even(n))
    contest.challenge("2", on=TRAINED, policy=policy(max_days=20))
    ended = contest.look(day(80)).trial
    assert ended is not None and ended.state is TrialState.EXPIRED
    assert ended.evidence[-1].day == day(20)


def test_two_versions_that_are_one_never_decide(contest: World) -> None:
    foretell(contest, v1=GOOD, v2=GOOD)
    contest.challenge("2", on=TRAINED, policy=policy())
    looked = contest.look(day(30)).trial
    assert looked is not None and looked.state is TrialState.RUNNING and len(looked.evidence) == 30


def test_a_person_withdraws_a_trial_with_a_reason(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    trial = contest.challenge("2", on=TRAINED)
    with pytest.raises(BadInput, match="a reason is needed"):
        contest.withdraw(day(3), reason="  ")
    ended = contest.withdraw(day(3))
    assert the_trial(contest, trial) == ended
    assert (ended.state, ended.reasons) == (TrialState.WITHDRAWN, ("withdrawn by ada: wrong prices",))
    assert contest.standing() == Standing("1", None, 3)
    assert contest.registry.aliases() == {"champion": "1"}
    assert contest.look(day(20)).trial is None
    with pytest.raises(Refused, match="neither a trial nor a probation is running"):
        contest.withdraw(day(3))


def test_a_trial_that_ends_while_mlflow_is_gone_has_ended_and_reconcile_moves_the_alias(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=BAD)
    contest.challenge("2", on=TRAINED)

    class Gone:
        def __getattr__(self, name: str) -> object:
            return getattr(contest.registry, name)

        def aliases(self) -> dict[str, str]:
            raise ServiceDown("MLflow is gone")

    looked = contest.look(day(BURN_IN), registry=Gone())
    assert looked.problems == ("MLflow's aliases are not moved yet, reconcile will: MLflow is gone",)
    assert contest.standing() == Standing("1", None, 3)
    assert [t.state for t in contest.trials()] == [TrialState.REJECTED]
    assert len(contest.messages(TrialEnded.topic)) == 1
    assert contest.reconcile().aliases == ("alias 'challenger' is version 2, the ledger says nobody",)
    assert contest.look(day(BURN_IN)).trial is None


@pytest.fixture
def doomed(contest: World) -> World:
    """Challenger `own`'s files are of this test alone; champion 1 is as it was."""
    foretell(contest, v1=BLIND)
    contest.challenge(contest.registry.register(candidate("its-own", seed=9)).version, on=TRAINED)
    return contest


def artifact(world: World, version: str) -> Path:
    """The folder in which a version's model lies."""
    return Path(mlflow.artifacts.download_artifacts(f"models:/cancellations/{version}"))


def test_a_challenger_whose_artifact_is_gone_leaves_and_blocks_nothing(doomed: World) -> None:
    own = str(doomed.standing().challenger)
    shutil.rmtree(artifact(doomed, own))
    ended = doomed.look(day(1)).trial
    assert ended is not None and ended.state is TrialState.WITHDRAWN
    assert f"version {own} cannot be loaded any more" in ended.reasons[-1]
    assert doomed.standing() == Standing("1", None, 3)
    assert len(doomed.messages(TrialEnded.topic)) == 1
    assert doomed.look(day(1)).trial is None


def test_where_no_version_can_be_loaded_the_place_is_gone_and_the_trial_waits(doomed: World) -> None:
    before = doomed.standing()

    class Unmounted:
        def __getattr__(self, name: str) -> object:
            return getattr(doomed.registry, name)

        def load(self, version: str, fresh: bool = False) -> object:
            raise BadInput(f"there are no files of version {version}")

    with pytest.raises(BadInput, match="no files of version 1"):
        doomed.look(day(1), registry=Unmounted())
    assert doomed.standing() == before
    assert [t.state for t in doomed.trials()] == [TrialState.RUNNING]


# --- drift during a trial -------------------------------------------------------------------------


def test_a_drift_during_a_trial_waits_and_may_act_after_it(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=BAD)
    contest.challenge("2", on=TRAINED)
    first, later = day(7), day(BURN_IN + 7)
    held = contest.monitor(GivenMonitor([first]), until=first, after=TRAINED, policy=AT_ONCE)
    assert [d.decision.action for d in held.decisions] == [Action.HOLD]
    assert held.decisions[0].decision.reasons[-1] == "held: the trial of challenger 2 against champion 1 has not ended"
    contest.look(day(BURN_IN))
    looked = contest.monitor(GivenMonitor([later]), until=later, after=day(BURN_IN), policy=AT_ONCE)
    assert looked.acted is not None
    assert len(contest.messages(DriftDetected.topic)) == 2


def test_outcomes_that_are_loaded_during_a_trial_ring_for_it(contest: World) -> None:
    source = Table(bookings())
    assert contest.ingest(until=day(2), source=source).outcomes == 0
    with contest.store.begin() as work:
        work._write(outcomes.delete().where(outcomes.c.known_on > day(2)))  # type: ignore[attr-defined]
        work.commit()
    contest.ingest(until=day(3), source=source)
    assert contest.messages(OutcomesArrived.topic) == []  # nobody reads them
    trial = contest.challenge("2", on=day(3))
    told = contest.ingest(until=day(4), source=source)
    contest.ingest(until=day(4), source=source)  # brings nothing new
    [event] = contest.messages(OutcomesArrived.topic)
    assert (event.channel.value, event.payload["trial_id"]) == ("event", trial.trial_id)
    assert event.payload["outcomes"] == told.outcomes > 0


# --- what is served -------------------------------------------------------------------------------


def test_each_open_booking_is_served_its_arms_score_and_both_scores_are_kept(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    trial = contest.challenge("2", on=TRAINED, policy=policy(serve_share=0.5))
    contest.look(day(3))
    served, arms = contest.served(day(3)), contest.arms(trial)
    assert set(served.index) == set(arms) and len(arms) > 500
    assert {i: str(a) for i, a in served["arm"].items()} == {i: arm.value for i, arm in arms.items()}
    assert arms == {i: arm(trial.trial_id, i, 0.5) for i in arms}
    assert 0.4 < sum(a is Arm.RIVAL for a in arms.values()) / len(arms) < 0.6
    scores = {Arm.CHAMPION: contest.predictions("1"), Arm.RIVAL: contest.predictions("2")}
    for i, row in served.iterrows():
        side = arms[str(i)]
        assert row["probability"] == scores[side][i]
        assert row["model_version"] == {Arm.CHAMPION: "1", Arm.RIVAL: "2"}[side]
    contest.look(day(4))
    assert {i: a for i, a in contest.arms(trial).items() if i in arms} == arms  # an arm is for ever


def delete_arms(world: World, trial: Trial, which: Arm, until: int) -> None:
    """As a clean-up by hand would: the arms of bookings that matured by a day, of one arm alone."""
    over = bookings()[lambda rows: rows["n"].between(1, until)]["reservation_id"]
    with world.store.begin() as work:
        work._write(  # type: ignore[attr-defined]
            arms.delete().where(
                arms.c.trial_id == trial.trial_id,
                arms.c.arm == which.value,
                arms.c.reservation_id.in_(over.tolist()),
            )
        )
        work.commit()


def deal_anew(world: World, trial: Trial, reservation_id: str, given: Arm) -> None:
    with world.store.begin() as work:
        work._write(  # type: ignore[attr-defined]
            arms.update()
            .where(arms.c.trial_id == trial.trial_id, arms.c.reservation_id == reservation_id)
            .values(arm=given.value)
        )
        work.commit()


@pytest.mark.parametrize("lost", Arm)
def test_a_trial_whose_arms_were_lost_on_the_way_tells_it_once_and_promotes_nothing_by_itself(
    contest_on_either: World, lost: Arm
) -> None:
    world = contest_on_either
    foretell(world, v1=BLIND, v2=GOOD)
    trial = world.challenge("2", on=TRAINED, policy=policy())
    world.look(day(1))  # deals what is open
    world.look(day(BURN_IN - 2))
    assert world.messages(TrialDoubted.topic) == []
    delete_arms(world, trial, lost, until=BURN_IN - 2)

    looked = world.look(day(BURN_IN - 1)).trial
    assert looked is not None and looked.state is TrialState.RUNNING
    found = looked.reasons[1]
    assert found.startswith("arms do not have their sizes: of ") and "bookings compared" in found
    world.look(day(BURN_IN - 1))
    [mail] = world.messages(TrialDoubted.topic)
    assert (mail.payload["doubt"], mail.payload["reasons"]) == ("arms", [found])

    # Later bookings, dealt as they should be, do not make it undone.
    asked = world.look(day(BURN_IN)).trial
    assert asked is not None and asked.state is TrialState.AWAITING
    assert asked.reasons[-1].startswith("promotions need a person: arms do not have their sizes")
    assert world.standing().champion == "1"
    # It is told where people look, and a person may still say yes.
    assert asked.reasons == world.status().trial.reasons == world.explain("2", day(BURN_IN)).trials[0].reasons  # type: ignore[union-attr]
    assert world.answer(asked, approve=True, as_of=day(BURN_IN)).takeover is not None
    assert len(world.messages(TrialDoubted.topic)) == 1


def test_a_booking_in_another_arm_than_its_ids_is_found_by_itself(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    trial = contest.challenge("2", on=TRAINED, policy=policy())
    contest.look(day(2))
    one, dealt = next(iter(contest.arms(trial).items()))
    deal_anew(contest, trial, one, next(a for a in Arm if a is not dealt))
    looked = contest.look(day(3)).trial
    assert looked is not None
    assert looked.reasons[1] == f"1 of {len(contest.arms(trial)):,} bookings are in another arm than their ids'"
    assert contest.messages(TrialDoubted.topic)[0].payload["doubt"] == "arms"


def test_a_share_of_nothing_is_a_shadow_trial_that_may_promote(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    trial = contest.challenge("2", on=TRAINED, policy=policy(serve_share=0.0))
    contest.look(day(3))
    assert set(contest.serving(day(3))) == {"1"}
    assert set(contest.arms(trial).values()) == {Arm.CHAMPION}
    assert len(contest.predictions("2")) == len(contest.predictions("1"))
    ended = contest.look(day(BURN_IN)).trial
    assert ended is not None and ended.state is TrialState.PROMOTED


def test_mode_shadow_serves_nobody_and_leaves_a_better_challenger_to_a_person(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    contest.challenge("2", on=TRAINED, policy=policy(mode=Mode.SHADOW, serve_share=0.5))
    contest.look(day(3))
    assert set(contest.serving(day(3))) == {"1"}
    ended = contest.look(day(BURN_IN)).trial
    assert ended is not None
    assert (ended.state, ended.reasons[-1]) == (
        TrialState.WITHHELD,
        "mode shadow: promotion is left to a person",
    )
    assert contest.standing() == Standing("1", None, 3)
    assert [m.payload["state"] for m in contest.messages(TrialEnded.topic)] == ["withheld"]
    assert contest.promote("2", day(BURN_IN)).version == "2"  # that person


@pytest.mark.parametrize("how", ["rejected", "withdrawn"])
def test_after_the_end_every_open_booking_is_served_the_champions_score(contest: World, how: str) -> None:
    foretell(contest, v1=BLIND, v2=BAD)
    contest.challenge("2", on=TRAINED, policy=policy(serve_share=0.5))
    contest.look(day(BURN_IN - 1))
    assert set(contest.serving(day(BURN_IN - 1))) == {"1", "2"}
    if how == "rejected":
        contest.look(day(BURN_IN))
    else:
        contest.withdraw(day(BURN_IN))
    served = contest.served(day(BURN_IN))
    assert set(served["model_version"]) == {"1"} and served["arm"].isna().all()
    assert (served["probability"] == contest.predictions("1")[served.index]).all()


# --- asking a person ------------------------------------------------------------------------------


@pytest.fixture
def awaiting(contest: World) -> World:
    """Challenger 2 is better, and a person is asked."""
    foretell(contest, v1=BLIND, v2=GOOD)
    contest.trial_policy = policy(mode=Mode.APPROVE, approval_hours=48)
    contest.challenge("2", on=TRAINED)
    contest.look(day(BURN_IN), run="run-1")
    return contest


def asked(world: World) -> Trial:
    trial = world.open_trial()
    assert trial is not None and trial.state is TrialState.AWAITING
    return trial


def test_in_mode_approve_a_person_is_asked_once_with_a_deadline(awaiting: World) -> None:
    trial, until = asked(awaiting), NOW + timedelta(hours=48)
    assert (trial.asked_until, trial.asked_by, trial.decided_on) == (until, "run-1", day(BURN_IN))
    assert awaiting.standing() == Standing("1", "2", 2)
    [mail] = awaiting.messages(ApprovalNeeded.topic)
    assert (mail.channel.value, mail.payload["until"]) == ("mail", str(until))
    before = everything(awaiting)
    awaiting.clock.advance(hours=47)
    for n, run in ((BURN_IN, "run-2"), (BURN_IN + 9, None)):
        assert awaiting.look(day(n), run=run).trial == trial
    assert everything(awaiting) == before


def test_a_yes_promotes_in_the_name_of_whoever_said_it(awaiting: World) -> None:
    trial = asked(awaiting)
    looked = awaiting.answer(trial, approve=True, as_of=day(16))
    assert looked.takeover is not None and looked.takeover.problems == ()
    row = awaiting.ledger()[-1]
    assert (row.change, row.champion, row.by, row.trial_id) == (Change.PROMOTED, "2", "ada", trial.trial_id)
    ended = the_trial(awaiting, trial)
    assert (ended.state, ended.reasons[-1]) == (TrialState.PROMOTED, "approved by ada: seen the plot")
    assert ended.evidence == trial.evidence and ended.decided_on == trial.decided_on
    probation = awaiting.open_trial()
    assert probation is not None and (probation.kind, probation.cohort_after) == (Kind.PROBATION, day(16))


def test_a_no_declines_and_the_challenger_leaves(awaiting: World) -> None:
    trial = asked(awaiting)
    awaiting.answer(trial, approve=False, as_of=day(16))
    ended = the_trial(awaiting, trial)
    assert (ended.state, ended.reasons[-1]) == (TrialState.DECLINED, "declined by ada: seen the plot")
    assert awaiting.standing() == Standing("1", None, 3)
    assert awaiting.registry.aliases() == {"champion": "1"}
    assert [m.payload["state"] for m in awaiting.messages(TrialEnded.topic)] == ["declined"]


def test_no_answer_in_time_means_no(awaiting: World) -> None:
    trial = asked(awaiting)
    awaiting.clock.advance(hours=48)
    awaiting.look(day(16))
    ended = the_trial(awaiting, trial)
    assert ended.state is TrialState.DECLINED
    assert ended.reasons[-1] == "nobody answered by 2024-05-03 12:00 UTC, which means no"
    assert (awaiting.ledger()[-1].by, awaiting.standing().challenger) == ("the trial", None)


def test_an_answer_after_the_end_is_refused_and_changes_nothing(awaiting: World) -> None:
    trial = asked(awaiting)
    awaiting.answer(trial, approve=False, as_of=day(16))
    before = everything(awaiting)
    for approve in (True, False):
        with pytest.raises(Refused, match="does not await an answer: it is declined"):
            awaiting.answer(trial, approve=approve, as_of=day(17))
    with pytest.raises(BadInput, match=r"no trial 'trial-9'.*cancellations history"):
        awaiting.answer(replace(trial, trial_id="trial-9"), approve=True, as_of=day(17))
    assert everything(awaiting) == before


def test_an_answer_before_the_question_is_refused(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    trial = contest.challenge("2", on=TRAINED)
    with pytest.raises(Refused, match="does not await an answer: it is running"):
        contest.answer(trial, approve=True, as_of=day(3))
    assert contest.standing() == Standing("1", "2", 2)


def test_whoever_is_asked_by_a_run_that_is_gone_can_be_asked_by_another(awaiting: World) -> None:
    ask(awaiting.house(), asked(awaiting).trial_id, "run-7")
    assert asked(awaiting).asked_by == "run-7"
    assert len(awaiting.messages(ApprovalNeeded.topic)) == 1


def test_a_person_may_promote_the_challenger_that_awaits_an_answer(awaiting: World) -> None:
    trial = asked(awaiting)
    takeover = awaiting.promote("2", day(16), reason="no time for the form")
    assert takeover.problems == ()
    ended = the_trial(awaiting, trial)
    assert (ended.state, ended.reasons[-1]) == (TrialState.PROMOTED, "ada: no time for the form")
    assert awaiting.ledger()[-1].trial_id == trial.trial_id


def test_a_trial_that_awaits_an_answer_can_be_withdrawn(awaiting: World) -> None:
    assert awaiting.withdraw(day(16)).state is TrialState.WITHDRAWN
    assert awaiting.standing() == Standing("1", None, 3)


def test_while_promotions_are_held_mode_auto_asks_and_after_the_release_it_does_not(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD, v3=GOOD)
    with contest.store.begin() as work:
        work.hold_promotions("version 9 was rolled back", NOW)
        work.commit()
    contest.challenge("2", on=TRAINED)
    trial = contest.look(day(BURN_IN)).trial
    assert trial is not None and trial.state is TrialState.AWAITING
    assert trial.reasons[-1] == "promotions need a person: version 9 was rolled back"
    assert len(contest.messages(ApprovalNeeded.topic)) == 1
    contest.answer(trial, approve=False, as_of=day(BURN_IN))
    contest.release()
    contest.challenge("3", on=day(BURN_IN))
    ended = contest.look(day(BURN_IN)).trial
    assert ended is not None and ended.state is TrialState.PROMOTED
    assert len(contest.messages(ChallengerRegistered.topic)) == 0
