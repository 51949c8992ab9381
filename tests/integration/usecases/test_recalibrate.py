"""The daily recalibration: one number, from what has happened so far, as a version that can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from once import Once
from world import POLICY, SECOND, CutOff, GivenMonitor, PowerCut, QuickTrainer, Snapshot, World, begin

from cancellations.domain.comparison import log_loss
from cancellations.domain.events import Channel
from cancellations.domain.labels import CANCELLED
from cancellations.domain.promotion import Change, kin
from cancellations.domain.recalibration import RecalibrationPolicy, Verdict, shifted
from cancellations.domain.retraining import Action, RetrainPolicy
from cancellations.errors import NotEnoughData, Refused
from cancellations.model import GradientBoosting
from cancellations.sources.simulator import Drift, DriftKind, Simulator
from cancellations.usecases.recalibrate import Recalibration, recalibrate
from cancellations.usecases.reproduce import reproduce

# Terms change on the day after the training: more than before is cancelled. Six weeks later it shows.
BEGAN, TRAINED, TODAY = date(2015, 9, 1), date(2016, 3, 1), date(2016, 4, 12)
LEAD, MONTH = 120, timedelta(days=28)
CHANGED = "cancellations.champion.changed"


def simulator() -> Simulator:
    drift = Drift(DriftKind.FREE_CANCELLATION, TRAINED + timedelta(days=1), 2.5)
    return Simulator(BEGAN, 400, seed=24, drifts=[drift], max_lead_days=LEAD)


@pytest.fixture(scope="module")
def changed_terms(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Snapshot:
    folder = tmp_path_factory.mktemp("terms")
    home, artifacts = folder / "home", folder / "artifacts"
    world = begin(home, artifacts, once)
    world.ingest(until=TODAY, source=simulator())
    world.retrain(world.request(TRAINED), trainer=GradientBoosting())
    world.score(TODAY)
    world.store.close()
    return Snapshot.of(home, artifacts, folder / "changed")


@pytest.fixture
def changed(changed_terms: Snapshot, tmp_path: Path) -> Iterator[World]:
    """Version 1 serves; what it was trained on holds no longer."""
    world = changed_terms.copy(tmp_path / "world")
    yield world
    world.store.close()


def correct(
    world: World, as_of: date, policy: RecalibrationPolicy | None = None, owner: str = "worker", **instead: Any
) -> Recalibration:
    return recalibrate(
        world.house(**instead),
        QuickTrainer(),
        policy or RecalibrationPolicy(),
        as_of=as_of,
        by="the daily recalibration",
        owner=owner,
        lease_ttl=timedelta(minutes=15),
        seed=20,
    )


def go_on(world: World, until: date) -> None:
    world.ingest(until=until, after=TODAY, source=simulator())
    world.score(until)


def test_a_recalibrated_champion_loses_less_on_the_bookings_of_the_next_month(changed: World) -> None:
    done = correct(changed, TODAY)
    assert done.takeover is not None and done.verdict is Verdict.SHIFT
    assert done.wanted > 0.1
    assert set(changed.serving(TODAY)) == {"2"}
    assert changed.registry.aliases()["champion"] == "2"

    go_on(changed, TODAY + MONTH + timedelta(days=LEAD + 2))
    with changed.store.begin() as work:
        later = work.scored("2", TODAY + timedelta(days=1), TODAY + MONTH)
        ended = work.recorded_outcomes(later["reservation_id"])["status"].reindex(later["reservation_id"])
    label = ended.isin(CANCELLED).to_numpy(dtype=float)
    said = later["probability"].to_numpy()
    unshifted = shifted(said, -done.wanted)
    assert log_loss(label, said).mean() < log_loss(label, unshifted).mean()
    assert abs(said.mean() - label.mean()) < abs(unshifted.mean() - label.mean())


def test_the_version_is_its_base_with_a_number_and_says_so(changed: World) -> None:
    done = correct(changed, TODAY)
    base, made = changed.registry.record("1"), changed.registry.record("2")
    assert (made.request_id, made.recipe, made.labels) == (f"recalibrate-{TODAY}", base.recipe, base.labels)
    assert (made.trained_as_of, made.known_until) == (TRAINED, TODAY)
    assert made.data_digest == base.data_digest
    assert made.shift == done.wanted
    assert changed.registry.parameters("2")["recalibrates"] == "1"
    pd.testing.assert_frame_equal(changed.registry.reference("2"), changed.registry.reference("1"))
    rows = changed.registry.reference("1")
    told, moved = (changed.registry.load(v).predict(rows) for v in ("1", "2"))
    np.testing.assert_allclose(moved, shifted(told, done.wanted))


def test_it_can_be_made_again_base_and_shift(changed: World) -> None:
    correct(changed, TODAY)
    again = reproduce("2", registry=changed.registry, trainer=GradientBoosting())
    assert again.equal, again.verdict


def test_the_same_day_again_makes_no_second_version(changed: World) -> None:
    correct(changed, TODAY)
    before = changed.ledger()
    again = correct(changed, TODAY)
    assert again.takeover is None and again.verdict is Verdict.NOTHING
    assert (changed.versions(), changed.ledger()) == (["1", "2"], before)


def test_killed_before_it_serves_it_goes_on_with_the_version_that_it_has(changed: World) -> None:
    with pytest.raises(PowerCut):
        correct(changed, TODAY, store=CutOff(changed.store, "change_standing"))
    assert changed.standing().champion == "1"
    changed.clock.advance(minutes=16)
    done = correct(changed, TODAY)
    assert done.takeover is not None and done.takeover.version == "2"
    assert changed.versions() == ["1", "2"]


def test_shifts_never_stack(changed: World) -> None:
    correct(changed, TODAY)
    go_on(changed, TODAY + MONTH)
    second = correct(changed, TODAY + MONTH, RecalibrationPolicy(min_shift=1e-6))
    assert (second.champion, second.base) == ("2", "1")
    assert second.takeover is not None and second.takeover.version == "3"
    rows = changed.registry.reference("1")
    told, moved = (changed.registry.load(v).predict(rows) for v in ("1", "3"))
    np.testing.assert_allclose(moved, shifted(told, second.wanted))
    assert kin(changed.ledger(), "3") == ("1", "2", "3")


def test_what_a_shifted_champion_has_said_is_read_without_its_shift(changed: World) -> None:
    before = correct(changed, TODAY)
    after = correct(changed, TODAY)
    assert after.wanted == pytest.approx(before.wanted, abs=1e-6)
    assert (after.present, after.evidence) == (before.wanted, before.evidence)


def test_a_champion_near_enough_is_left_alone(changed: World) -> None:
    done = correct(changed, TODAY, RecalibrationPolicy(min_shift=1.0))
    assert (done.verdict, done.takeover) == (Verdict.NOTHING, None)
    assert "nothing to correct" in done.reasons[-1]
    assert changed.versions() == ["1"]


# Shifts that must have saved a nat a booking: none has.
STRICT = RecalibrationPolicy(tolerance=-1.0)


def test_a_shift_that_did_worse_than_none_is_refused_and_its_reasons_are_kept(changed: World) -> None:
    done = correct(changed, TODAY, STRICT)
    assert (done.verdict, done.takeover) == (Verdict.REFUSED, None)
    assert done.reasons[-1].startswith("refused: on ")
    assert (changed.standing().champion, changed.versions()) == ("1", ["1"])
    runs = changed.registry._client.search_runs(
        [changed.registry._experiment()], f"tags.request_id = 'recalibrate-{TODAY}' and tags.outcome = 'refused'"
    )
    assert len(runs) == 1


def test_a_shift_that_has_stopped_to_help_gives_way_to_its_base(changed: World) -> None:
    correct(changed, TODAY)
    go_on(changed, TODAY + timedelta(days=1))
    done = correct(changed, TODAY + timedelta(days=1), STRICT)
    assert done.verdict is Verdict.BASE and done.takeover is not None
    assert (changed.standing().champion, changed.versions()) == ("1", ["1", "2"])
    assert changed.ledger()[-1].change is Change.RECALIBRATED
    assert changed.held() is None


def test_outcomes_that_have_not_come_in_are_not_read_as_stays(changed: World) -> None:
    done = correct(changed, TODAY + timedelta(days=30), RecalibrationPolicy(min_shift=1.0))
    assert done.evidence_until == TODAY


def test_a_rollback_undoes_it_and_it_waits_until_somebody_acknowledges(changed: World) -> None:
    correct(changed, TODAY)
    back = changed.roll_back(TODAY)
    assert (back.version, set(changed.serving(TODAY))) == ("1", {"1"})
    tomorrow = TODAY + timedelta(days=1)
    go_on(changed, tomorrow)
    with pytest.raises(Refused, match="need a person: version 2 was rolled back"):
        correct(changed, tomorrow)
    changed.release()
    done = correct(changed, tomorrow)
    assert done.takeover is not None and done.takeover.version == "3"


def test_without_a_champion_it_is_told_how_to_get_one(loaded: World) -> None:
    with pytest.raises(Refused, match="no champion to recalibrate; train the first one"):
        correct(loaded, SECOND)


def test_neither_beside_a_trial_nor_in_a_pause_nor_while_somebody_works(
    challenged: World, changed_terms: Snapshot, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="the trial of challenger 2 against champion 1 has not ended"):
        correct(challenged, SECOND)
    assert challenged.versions() == ["1", "2"]
    changed = changed_terms.copy(tmp_path / "changed")
    changed.pause("price test")
    with pytest.raises(Refused, match="paused"):
        correct(changed, TODAY)
    with changed.store.begin() as work:
        work.resume()
        work.commit()
    changed.acquire("retrain")
    with pytest.raises(Refused, match="somebody else"):
        correct(changed, TODAY)
    assert changed.versions() == ["1"]
    changed.store.close()


def test_without_an_outcome_there_is_nothing_to_learn_from(serving: World) -> None:
    with pytest.raises(NotEnoughData, match="no outcome has come in"):
        correct(serving, SECOND)


def test_it_opens_no_probation_and_a_retrain_is_compared_with_it_on_what_its_shift_has_not_seen(
    changed: World,
) -> None:
    correct(changed, TODAY)
    assert changed.open_trial() is None
    done = changed.retrain(
        changed.request(TODAY - timedelta(days=7)), policy=replace(POLICY, gate=replace(POLICY.gate, tolerance=1.0))
    )
    trial = changed.open_trial()
    assert trial is not None, done.detail
    assert (trial.champion, trial.rival, trial.cohort_after) == ("2", "3", TODAY)


def test_owners_get_a_mail_for_a_large_shift_and_the_ledger_and_the_event_for_each(changed: World) -> None:
    def heard(channel: Channel) -> int:
        return sum(m.channel is channel and m.payload["version"] != "1" for m in changed.messages(CHANGED))

    correct(changed, TODAY)
    assert (heard(Channel.EVENT), heard(Channel.MAIL)) == (1, 0)
    go_on(changed, TODAY + MONTH)
    correct(changed, TODAY + MONTH, RecalibrationPolicy(min_shift=1e-6, told_shift=0.1))
    # By a step of .1 the first was worth a mail, and the second is near that.
    assert (heard(Channel.EVENT), heard(Channel.MAIL)) == (2, 0)


def test_a_large_first_shift_is_worth_a_mail(changed: World) -> None:
    correct(changed, TODAY, RecalibrationPolicy(told_shift=0.1))
    mails = [m for m in changed.messages(CHANGED) if m.channel is Channel.MAIL and m.payload["version"] == "2"]
    assert [m.payload["change"] for m in mails] == ["recalibrated"]


def test_drift_is_confirmed_across_a_recalibration(changed: World) -> None:
    looks = (TODAY, TODAY + timedelta(days=7))
    watch = GivenMonitor(alarms=looks)
    policy = RetrainPolicy(confirm_k=2, confirm_n=2, min_new_labels=0, cooldown_days=1)
    changed.monitor(watch, until=looks[0], policy=policy)
    correct(changed, TODAY)
    go_on(changed, looks[1])
    again = changed.monitor(watch, until=looks[0], after=looks[0] - timedelta(days=7), policy=policy)
    assert (again.known, again.decisions) == (1, ())
    looked = changed.monitor(watch, until=looks[1], policy=policy)
    assert [d.decision.action for d in looked.decisions] == [Action.RETRAIN_DRIFT]
    assert looked.decisions[0].report.champion == "2"


def test_the_record_tells_whose_log_odds_a_version_moves(changed: World) -> None:
    correct(changed, TODAY)
    told = changed.explain("2", TODAY)
    assert (told.recalibrates, told.role) == ("1", "champion")
    assert told.ledger[-1].reason.startswith("shift +0.")
    assert changed.explain("1", TODAY).recalibrates is None
    assert changed.status(as_of=TODAY).champion == changed.registry.record("2")
