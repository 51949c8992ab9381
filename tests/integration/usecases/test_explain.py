"""Asking the ledger why: from the report that asked for a version to what became of it."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import mlflow.artifacts
import pandas as pd
import pytest
from contest import BLIND, BURN_IN, TRAINED, day, foretell, good_until, steady
from rich.console import Console
from world import FIRST, POLICY, SECOND, GivenMonitor, World

from cancellations.domain.aliases import AliasPolicy
from cancellations.domain.gate import GatePolicy
from cancellations.domain.promotion import Change, Kind, TrialState
from cancellations.domain.retraining import Action, RequestState, RetrainPolicy
from cancellations.errors import BadInput
from cancellations.registry import digest
from deployments.commands.words import tell_history
from deployments.console import Voice

# A contest's bookings are few.
SMALL = replace(POLICY, gate=GatePolicy(backtest_days=28, min_rows=100))


def test_a_version_is_explained_from_the_drift_that_asked_for_it_to_its_rollback(contest: World) -> None:
    foretell(contest, v1=BLIND)
    drifted = day(20)
    knobs = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)
    report = contest.monitor(GivenMonitor([drifted]), until=drifted, after=day(13), policy=knobs).acted
    assert report is not None
    with contest.store.begin() as work:
        [request] = work.requests()
    done = contest.retrain(request, policy=SMALL)
    assert done.state is RequestState.CANDIDATE, done.detail
    version = str(done.version)
    roles = [contest.explain(version, drifted).role]
    foretell(contest, **{f"v{version}": good_until(20 + BURN_IN)})
    promoted = contest.look_daily(drifted, day(60)).trial
    roles.append(contest.explain(version, day(40)).role)
    served = contest.explain(version, day(40)).served
    assert served == len(contest.served(day(40))) > 300
    rolled_back = contest.look_daily(day(34), day(70)).trial
    assert promoted is not None and rolled_back is not None

    found = contest.explain(version, day(60))
    assert (*roles, found.role) == ("challenger, on trial", "champion, on probation", "earlier champion")
    assert found.report == report and found.report.decision.action is Action.RETRAIN_DRIFT
    assert found.request == done and done.report_id == report.report_id
    assert (found.record.version, found.record.request_id) == (version, done.request_id)
    # The run and the data that it was made of are those in MLflow.
    path = mlflow.artifacts.download_artifacts(run_id=found.record.run_id, artifact_path="data/training.parquet")
    assert digest(pd.read_parquet(path)) == found.record.data_digest
    assert found.trials == (promoted, rolled_back)
    assert [(t.kind, t.state) for t in found.trials] == [
        (Kind.TRIAL, TrialState.PROMOTED),
        (Kind.PROBATION, TrialState.ROLLED_BACK),
    ]
    assert [(row.change, row.by, row.trial_id) for row in found.ledger] == [
        (Change.CHALLENGED, "the gate", None),
        (Change.PROMOTED, "the trial", promoted.trial_id),
        (Change.ROLLED_BACK, "the probation", rolled_back.trial_id),
    ]
    assert {row.request_id for row in found.ledger[:2]} == {done.request_id} == {promoted.request_id}
    assert found.served == 0

    other = contest.explain("1", day(60))
    assert found.decisions == () and other.decisions == (report,)
    assert other.decided(report.report_id) == other.decided(str(drifted)) == report
    assert (other.role, other.report, other.request) == ("champion", None, None)
    assert other.served == len(contest.served(day(60)))
    assert [row.change for row in other.ledger] == [Change.FIRST, Change.PROMOTED, Change.ROLLED_BACK]
    assert other.trials == found.trials

    history = contest.history()
    assert history.trials == found.trials
    assert [(row.epoch, row.champion, row.challenger) for row in history.ledger] == [
        (1, "1", None),
        (2, "1", version),
        (3, version, None),
        (4, "1", None),
    ]


def test_why_a_version_is_champion_is_answered_after_whatever_has_happened(contest: World) -> None:
    """Promoted by its trial, taken back by its probation, another one adopted from MLflow, and that taken back."""
    foretell(contest, v1=BLIND, v2=good_until(BURN_IN))
    contest.reconcile()
    contest.challenge("2", on=TRAINED)
    contest.look_daily(TRAINED, day(20))
    contest.look(day(2 * BURN_IN))
    contest.release()
    contest.registry.set_alias("champion", "3")
    contest.reconcile(aliases=AliasPolicy.ADOPT)
    adopted = contest.explain("3", day(30))
    contest.registry.set_alias("champion", "2")
    contest.reconcile()
    contest.roll_back(day(31), reason="nobody knew of it")

    assert adopted.why == (
        f"it is champion since {day(2 * BURN_IN)} in place of version 1, promoted by somebody in MLflow (epoch 5):"
        " alias champion was moved from version 1 to version 3 in MLflow, seen at 2024-05-01 12:00 UTC"
    )
    first, second, third = (contest.explain(version, day(31)) for version in ("1", "2", "3"))
    assert first.why == (
        f"it is champion since {day(31)} in place of version 3, rolled back by ada (epoch 6): nobody knew of it"
    )
    assert second.why == third.why == f"version 1 {first.why.removeprefix('it ')}"
    assert [(row.epoch, row.change, row.by) for row in first.ledger] == [
        (1, Change.FIRST, "the gate"),
        (3, Change.PROMOTED, "the trial"),
        (4, Change.ROLLED_BACK, "the probation"),
        (5, Change.PROMOTED, "somebody in MLflow"),
        (6, Change.ROLLED_BACK, "ada"),
    ]
    # The move that was undone stands with both versions that it was about, and in the history where it happened.
    assert [m.found for m in second.alias_moves] == ["2"] and third.alias_moves == second.alias_moves
    told = StringIO()
    tell_history(contest.history(), Voice(Console(file=told, width=100)))
    flat = " ".join(told.getvalue().split())
    order = [
        "3 2016-06-15 promoted 2 – the trial challenger 2 is better",
        "4 2016-06-29 rolled back 1 – the probation its predecessor 1 is better",
        "5 2016-06-29 promoted 3 – somebody in MLflow",
        "alias 'champion' was moved from version 3 to version 2 in MLflow, by whom it does not say",
        "put back: the ledger says who serves",
        "6 2016-07-02 rolled back 1 – ada nobody knew of it",
    ]
    places = [flat.find(each) for each in order]
    assert -1 not in places and places == sorted(places), flat


def test_a_version_that_a_person_asked_for_has_a_request_and_no_report(challenged: World) -> None:
    first, second = challenged.explain("1", SECOND), challenged.explain("2", SECOND)
    assert first.request is not None and second.request is not None
    assert (first.report, second.report) == (None, None)
    assert (first.request.as_of, second.request.as_of) == (FIRST, SECOND)
    assert (first.role, second.role) == ("champion", "challenger, on trial")


@pytest.mark.parametrize("served", [True, False], ids=["in shadow", "gone"])
def test_the_predecessor_is_in_shadow_until_the_probation_ends(contest: World, served: bool) -> None:
    foretell(contest, v1=BLIND, v2=steady(0.5), v3=BLIND)
    contest.promote("2", TRAINED)
    if not served:
        contest.withdraw(TRAINED)
    told = "previous champion, in shadow while its successor is on probation" if served else "earlier champion"
    assert contest.explain("1", TRAINED).role == told
    assert contest.explain("3", TRAINED).role == "registered, never stood"


def test_a_challenger_that_left_is_remembered(contest: World) -> None:
    foretell(contest, v1=BLIND)
    contest.challenge("2", on=TRAINED)
    contest.withdraw(TRAINED)
    found = contest.explain("2", TRAINED)
    assert found.role == "earlier challenger"
    assert [row.change for row in found.ledger] == [Change.CHALLENGED, Change.LEFT]


def test_a_version_that_the_ledger_does_not_know_is_bad_input_with_the_way_out(contest: World) -> None:
    with pytest.raises(BadInput, match=r"no version '3'.*cancellations history.*cancellations promote"):
        contest.explain("3", TRAINED)
