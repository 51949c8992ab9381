"""Looking: one decision a window, written whole with all that follows from it, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from threading import Barrier

import mlflow.artifacts
import numpy as np
import pandas as pd
import pytest
from world import FIRST, POLICY, SECOND, START, WEEK, CutOff, Given, GivenMonitor, PowerCut, World

from cancellations.domain.events import DriftDetected, Message, RetrainDue, SignalAlarmed
from cancellations.domain.features import FEATURES
from cancellations.domain.labels import maturity
from cancellations.domain.promotion import Change
from cancellations.domain.retraining import Action, RequestState, RetrainPolicy, RetrainRequest
from cancellations.errors import Refused
from cancellations.ports import Observation, StoredDecision

W1, W2, W3, W4 = (FIRST + n * WEEK for n in (1, 2, 3, 4))  # last days of windows
AT_ONCE = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)


def decisions(world: World) -> list[StoredDecision]:
    with world.store.begin() as work:
        return work.decisions()


def requests(world: World) -> list[RetrainRequest]:
    with world.store.begin() as work:
        return work.requests()


def messages(world: World) -> list[Message]:
    with world.store.begin() as work:
        return [entry.message for entry in work.pending_messages()]


# --- what a decision writes -----------------------------------------------------------------------


def test_a_confirmed_drift_writes_decision_request_event_and_mail_that_name_each_other(serving: World) -> None:
    looked = serving.monitor(GivenMonitor([W1, W2]), until=W2, after=FIRST)
    quiet, acted = looked.decisions
    assert (quiet.decision.action, quiet.request_id) == (Action.NONE, None)
    assert acted.decision.action is Action.RETRAIN_DRIFT
    assert looked.acted == acted
    assert decisions(serving) == [acted, quiet]
    [request] = requests(serving)
    assert request == RetrainRequest(
        str(acted.request_id), W2, "drift confirmed", report_id=acted.report_id, champion="1"
    )
    told = messages(serving)
    assert [(m.channel.value, m.topic) for m in told] == [(c, DriftDetected.topic) for c in ("event", "mail")]
    for message in told:
        assert message.payload["request_id"] == request.request_id
        assert message.payload["report_id"] == acted.report_id
        assert message.payload["reasons"] == list(acted.decision.reasons)


def test_evidentlys_page_of_a_decision_to_act_is_kept_with_the_champion_and_of_others_not(trained: World) -> None:
    end = W2 + timedelta(days=3)  # worlds share their artifacts: no other test looks at these days
    looked = trained.monitor(GivenMonitor([end]), until=end, after=end - 2 * WEEK, policy=AT_ONCE)
    quiet, acted = (f"reports/{d.report_id}" for d in looked.decisions)
    run_id = trained.registry._client.get_model_version("cancellations", "1").run_id
    reports = [f.path for f in trained.registry._client.list_artifacts(run_id, "reports")]
    assert acted in reports and quiet not in reports
    page = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=f"{acted}/evidently.html")
    assert Path(page).read_text() == "<html>the page</html>"


def test_an_old_champion_is_retrained_on_the_calendar_and_the_event_says_so(serving: World) -> None:
    looked = serving.monitor(
        GivenMonitor(), until=W3, after=FIRST, policy=RetrainPolicy(calendar_floor_days=14, min_new_labels=0)
    )
    assert [d.decision.action for d in looked.decisions] == [Action.NONE, Action.RETRAIN_CALENDAR]
    assert serving.topics() == [("event", RetrainDue.topic), ("mail", RetrainDue.topic)]
    assert requests(serving)[0].as_of == W2


def test_an_alarm_beside_the_evidence_is_mailed_when_it_begins_and_retrains_nothing(serving: World) -> None:
    looked = serving.monitor(GivenMonitor(flying=[W1, W2, W4]), until=W4, after=FIRST)
    assert [d.decision.action for d in looked.decisions] == [Action.NONE] * 4
    assert requests(serving) == []
    told = messages(serving)
    assert [(m.channel.value, m.topic) for m in told] == [("mail", SignalAlarmed.topic)] * 2
    assert [m.payload["report_id"] for m in told] == [looked.decisions[n].report_id for n in (0, 3)]
    assert told[0].payload["after"] == "40.0% expected by now, more than foretold"
    # A look that is taken again tells nothing again.
    serving.monitor(GivenMonitor(flying=[W1, W2, W4]), until=W4, after=FIRST)
    assert len(messages(serving)) == 2


def test_bookings_in_flight_are_those_made_and_scored_since_the_training_as_far_as_outcomes_are_in(
    trained: World,
) -> None:
    trained.score(until=W2)
    watch = GivenMonitor()
    trained.monitor(watch, until=W2, after=FIRST)
    for observation in watch.seen:
        with trained.store.begin() as work:
            history = work.history(booked_until=observation.end, known_until=observation.end)
            made = history[history["booked_on"] > pd.Timestamp(FIRST)]
            scored = work.predictions("1", made["reservation_id"])
        (everything,) = (one for one in observation.in_flight if one.name == "all bookings")
        assert everything.rows == len(scored) == len(made) >= 30
        assert everything.predicted == pytest.approx(scored.mean())


@pytest.mark.parametrize(("method", "nth"), [("add_request", 0), ("add_messages", 0), ("commit", 0)])
def test_a_death_while_deciding_leaves_nothing_and_the_next_look_writes_all(
    serving: World, method: str, nth: int
) -> None:
    with pytest.raises(PowerCut):
        serving.monitor(
            GivenMonitor([W1]), until=W1, after=FIRST, policy=AT_ONCE, store=CutOff(serving.store, method, nth)
        )
    assert (decisions(serving), requests(serving), messages(serving)) == ([], [], [])

    looked = serving.monitor(GivenMonitor([W1]), until=W1, after=FIRST, policy=AT_ONCE)
    assert decisions(serving) == list(looked.decisions)
    assert len(decisions(serving)) == len(requests(serving)) == 1
    assert len(messages(serving)) == 2


# --- which windows --------------------------------------------------------------------------------


def test_two_monitors_at_once_decide_a_window_once(serving: World) -> None:
    barrier = Barrier(2)

    @dataclass
    class Together(GivenMonitor):
        def measure(self, observation: Observation) -> Given:
            barrier.wait()  # both have seen that the window has no decision
            return super().measure(observation)

    def look(_: int) -> int:
        return len(serving.monitor(Together([W1]), until=W1, after=FIRST, policy=AT_ONCE).decisions)

    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(look, range(2)))
    assert sorted(taken) == [0, 1]
    assert len(decisions(serving)) == len(requests(serving)) == 1
    assert len(messages(serving)) == 2


@dataclass(frozen=True)
class Slow(Given):
    """Its page takes a while, in which something else happens."""

    meanwhile: Callable[[], object] = int

    def save_html(self, path: Path) -> Path | None:
        self.meanwhile()
        return super().save_html(path)


@dataclass
class SlowMonitor(GivenMonitor):
    meanwhile: Callable[[], object] = int

    def measure(self, observation: Observation) -> Given:
        return Slow(super().measure(observation).report, meanwhile=self.meanwhile)


def test_of_two_monitors_that_confirm_drift_in_different_windows_one_asks_for_a_retrain(serving: World) -> None:
    def another_looks() -> None:
        if not requests(serving):
            serving.monitor(GivenMonitor([W1]), until=W1, after=FIRST, policy=AT_ONCE)

    late = serving.monitor(SlowMonitor([W2], meanwhile=another_looks), until=W2, after=W1, policy=AT_ONCE)
    [request] = requests(serving)
    assert request.as_of == W1
    # It weighs anew what it knows now.
    [held] = late.decisions
    assert held.decision.action is Action.HOLD
    assert held.decision.reasons[-1] == f"held: request {request.request_id} has not ended"
    assert [m.payload["request_id"] for m in messages(serving)] == [request.request_id] * 2


def test_monitors_of_many_windows_at_once_ask_for_one_retrain(serving: World) -> None:
    ends = [W1, W2, W3, W4]
    barrier = Barrier(len(ends))

    def look(end: date) -> Action:
        # All have read what was asked for before, and decided to act.
        first = [True]

        def come() -> None:
            if first.pop():
                barrier.wait()
            first.append(False)

        watch = SlowMonitor([end], meanwhile=come)
        return serving.monitor(watch, until=end, after=end - WEEK, policy=AT_ONCE).decisions[0].decision.action

    with ThreadPoolExecutor(len(ends)) as pool:
        actions = list(pool.map(look, ends))
    assert sorted(actions) == [*[Action.HOLD] * 3, Action.RETRAIN_DRIFT]
    assert len(requests(serving)) == 1
    assert len(messages(serving)) == 2


def test_a_window_that_has_its_decision_is_passed_over(serving: World) -> None:
    serving.monitor(GivenMonitor(), until=W2, after=FIRST)
    before = decisions(serving)
    watch = GivenMonitor([W1, W2])
    again = serving.monitor(watch, until=W2, after=FIRST)
    assert (again.decisions, again.known) == ((), 2)
    assert watch.seen == []
    assert decisions(serving) == before


def test_it_stops_after_a_decision_to_act(serving: World) -> None:
    watch = GivenMonitor([W1, W2, W3, W4])
    looked = serving.monitor(watch, until=W4, after=FIRST)
    assert [d.report.window.end for d in looked.decisions] == [W1, W2]
    assert [o.end for o in watch.seen] == [W1, W2]


def test_without_a_start_the_first_look_is_one_and_later_ones_go_on_from_the_last(serving: World) -> None:
    first = serving.monitor(GivenMonitor(), until=W1)
    assert [d.report.window.end for d in first.decisions] == [W1]
    nothing = serving.monitor(GivenMonitor(), until=W2 - timedelta(days=1))
    assert (nothing.decisions, nothing.known) == ((), 0)
    caught_up = serving.monitor(GivenMonitor(), until=W4 + timedelta(days=3))
    assert [d.report.window.end for d in caught_up.decisions] == [W2, W3, W4]


def test_a_new_champion_is_not_blamed_for_the_windows_of_the_old_one(challenged: World) -> None:
    challenged.monitor(GivenMonitor([W1]), until=W1, after=FIRST)
    challenged.withdraw(W1)
    with challenged.store.begin() as work:
        work.change_standing(
            work.standing(),
            champion="2",
            challenger=None,
            change=Change.PROMOTED,
            reason="asked for",
            by="ada",
            request_id=None,
            as_of=W1,
            now=challenged.clock(),
        )
        work.commit()
    looked = challenged.monitor(GivenMonitor([W2, W3]), until=W3, after=W1)
    assert [d.report.champion for d in looked.decisions] == ["2", "2"]
    assert [d.decision.action for d in looked.decisions] == [Action.NONE, Action.RETRAIN_DRIFT]


# --- what holds it back ---------------------------------------------------------------------------


def assert_held(world: World, why: str, last: date = W1) -> None:
    before = world.topics(), requests(world)
    looked = world.monitor(GivenMonitor([last]), until=last, after=last - WEEK, policy=AT_ONCE)
    [held] = looked.decisions
    assert held.decision.action is Action.HOLD
    assert held.decision.reasons[-1] == why
    assert held.request_id is None and looked.acted is None
    assert (world.topics(), requests(world)) == before


def test_it_holds_while_a_request_is_pending(serving: World) -> None:
    request = serving.automatic(FIRST)
    assert_held(serving, f"held: request {request.request_id} has not ended")
    serving.update(request, state=RequestState.RUNNING)
    assert_held(serving, f"held: request {request.request_id} has not ended", W2)


def test_it_holds_while_a_challenger_is_undecided(challenged: World) -> None:
    assert_held(challenged, "held: the trial of challenger 2 against champion 1 has not ended")


def test_it_holds_while_paused_and_goes_on_after(serving: World) -> None:
    serving.pause("price test")
    assert_held(serving, "held: automatic retraining is paused (price test)")
    with serving.store.begin() as work:
        work.resume()
        work.commit()
    looked = serving.monitor(GivenMonitor([W2]), until=W2, policy=AT_ONCE)
    assert looked.acted is not None


def test_without_a_champion_looking_is_refused_with_the_way_out(loaded: World) -> None:
    with pytest.raises(Refused, match=r"no champion to watch.*cancellations retrain"):
        loaded.monitor(GivenMonitor(), until=FIRST)


def test_it_holds_until_enough_outcomes_became_final_since_the_training(trained: World) -> None:
    with trained.store.begin() as work:
        final = maturity(work.history(booked_until=W2, known_until=W2), POLICY.labels)
    new = [((final > pd.Timestamp(FIRST)) & (final <= pd.Timestamp(end))).sum() for end in (W1, W2)]
    assert 0 < new[0] < new[1]
    watch, policy = GivenMonitor([W1, W2]), replace(AT_ONCE, min_new_labels=int(new[1]))
    held, acted = trained.monitor(watch, until=W2, after=FIRST, policy=policy).decisions
    assert held.decision.action is Action.HOLD
    assert held.decision.reasons[-1] == f"held: {new[0]:,} new outcomes are too few to learn from, of {new[1]:,}"
    assert acted.decision.action is Action.RETRAIN_DRIFT
    assert f"{new[1]:,} outcomes became final since it was trained (needed: {new[1]:,})" in acted.decision.reasons


# --- what it looks at -----------------------------------------------------------------------------


def test_it_sees_the_windows_scored_bookings_and_the_labels_final_since_the_training(trained: World) -> None:
    trained.score(until=SECOND)
    watch = GivenMonitor()
    trained.monitor(watch, until=SECOND, after=FIRST)
    seen = watch.seen[-1]
    assert (seen.champion, seen.start, seen.end) == ("1", SECOND - timedelta(days=13), SECOND)
    with trained.store.begin() as work:
        window = work.scored("1", seen.start, seen.end)
        history = work.history(booked_until=SECOND, known_until=SECOND)
    assert list(seen.current.columns) == list(FEATURES)
    assert len(seen.current) == len(window) > 500
    assert np.array_equal(seen.probability, window["probability"])
    final = maturity(history, POLICY.labels)
    since = (final > pd.Timestamp(FIRST)) & (final <= pd.Timestamp(SECOND))
    assert len(seen.matured_label) == len(seen.matured_probability) == since.sum() > 300
    assert set(seen.matured_label) == {0.0, 1.0}
    assert len(seen.reference) == POLICY.reference_rows
    # The model knows something: bookings that ended as cancelled had the higher scores.
    cancelled = seen.matured_label == 1
    assert seen.matured_probability[cancelled].mean() > seen.matured_probability[~cancelled].mean() + 0.1


def test_bookings_made_before_the_training_are_in_no_window(trained: World) -> None:
    """Only the open ones of them are scored, and their long leads would look like drift."""
    trained.score(until=SECOND)
    watch = GivenMonitor()
    trained.monitor(watch, until=W1, after=FIRST)
    assert (watch.seen[0].start, watch.seen[0].end) == (FIRST + timedelta(days=1), W1)
    with trained.store.begin() as work:
        made = work.history(booked_until=W1, known_until=W1)["booked_on"]
    assert len(watch.seen[0].current) == (made > pd.Timestamp(FIRST)).sum() > 200


def test_a_window_without_bookings_is_measured_as_empty(serving: World) -> None:
    watch = GivenMonitor()
    serving.monitor(watch, until=START, after=START - WEEK)
    assert len(watch.seen[0].current) == len(watch.seen[0].probability) == len(watch.seen[0].matured_label) == 0
