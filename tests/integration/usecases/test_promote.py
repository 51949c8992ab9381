"""A change of champion: proven first, whole or not at all, by one of many, and taken back when it was wrong."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import mlflow
import mlflow.artifacts
import numpy as np
import pandas as pd
import pytest
from contest import BAD, BLIND, BURN_IN, GOOD, TRAINED, Skill, candidate, day, even, foretell, good_until, policy
from world import CutOff, GivenMonitor, PowerCut, World, registry

from cancellations.domain.events import ApprovalNeeded, ChampionChanged, TrialEnded
from cancellations.domain.promotion import Change, Kind, Mode, Standing, Trial, TrialState
from cancellations.domain.retraining import Action, RetrainPolicy
from cancellations.errors import BadInput, EpochMismatch, Refused, ServiceDown
from cancellations.model import TRUSTED_TYPES
from cancellations.ports import Classifier, Registry
from cancellations.store import SqlStore, open_store
from cancellations.usecases.promote import Takeover
from cancellations.usecases.trial import Looked

AT_ONCE = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)


@dataclass
class Instead:
    """A registry in which something else happens when one of its methods is called."""

    registry: Registry
    method: str
    act: Callable[..., Any]

    def __getattr__(self, name: str) -> Any:
        return self.act if name == self.method else getattr(self.registry, name)


def fail(error: BaseException) -> Callable[..., Any]:
    def act(*_: object, **__: object) -> None:
        raise error

    return act


def everything(world: World, on: date) -> tuple[object, ...]:
    """All that a change of champion may change, to be compared."""
    served = world.served(on)[["model_version", "probability", "epoch"]].to_dict()
    return world.standing(), world.ledger(), world.trials(), world.messages(), world.held(), served


def open_probation(world: World) -> Trial:
    trial = world.open_trial()
    assert trial is not None and trial.kind is Kind.PROBATION
    return trial


def artifact(world: World, version: str) -> Path:
    """The folder in which a version's model lies."""
    return Path(mlflow.artifacts.download_artifacts(f"models:/cancellations/{version}"))


@pytest.fixture
def tried(contest: World) -> World:
    """Challenger 2 does better than champion 1 and its trial ends on the next look."""
    foretell(contest, v1=BLIND, v2=GOOD)
    contest.challenge("2", on=TRAINED, policy=policy())
    contest.look(day(BURN_IN - 1))
    return contest


@pytest.fixture
def promoted(contest: World) -> World:
    """Version 2 became champion on day 0, by hand; 1 was before it."""
    foretell(contest, v1=BLIND, v2=even)
    contest.trial_policy = policy()
    contest.promote("2", day(0))
    return contest


# --- a promotion ----------------------------------------------------------------------------------


def test_a_promotion_is_a_ledger_row_an_alias_what_is_served_and_a_message(tried: World) -> None:
    on = day(BURN_IN)
    assert set(tried.serving(day(BURN_IN - 1))) == {"1", "2"}
    looked = tried.look(on)
    row = tried.ledger()[-1]
    assert (row.epoch, row.champion, row.challenger, row.change) == (3, "2", None, Change.PROMOTED)
    assert (row.by, row.as_of, row.reason) == ("the trial", on, "challenger 2 is better")
    assert looked.trial is not None and row.trial_id == looked.trial.trial_id
    assert tried.registry.aliases() == {"champion": "2"}

    served = tried.served(on)
    assert len(served) > 500 and set(served["model_version"]) == {"2"} and served["arm"].isna().all()
    assert (served["probability"] == tried.predictions("2")[served.index]).all()
    assert looked.takeover == Takeover("2", "1", Change.PROMOTED, 3, {"2": len(served)}, "2")

    event, mail = tried.messages(ChampionChanged.topic)
    assert (event.channel.value, mail.channel.value) == ("event", "mail")
    assert event.payload == mail.payload
    told = {k: event.payload[k] for k in ("version", "previous", "epoch", "change", "by", "trial_id")}
    assert told == {
        "version": "2",
        "previous": "1",
        "epoch": 3,
        "change": "promoted",
        "by": "the trial",
        "trial_id": looked.trial.trial_id,
    }
    assert event.payload["reasons"] == list(looked.trial.reasons)


def test_the_predecessor_of_a_new_champion_watches_it_on_days_after_the_promotion(tried: World) -> None:
    on = day(BURN_IN + 3)
    tried.look(on)
    probation = open_probation(tried)
    assert (probation.champion, probation.rival, probation.epoch) == ("2", "1", 3)
    assert (probation.opened_on, probation.cohort_after, probation.serve_share) == (on, on, 0.0)
    assert probation.last_day == day(BURN_IN + 3 + tried.trial_policy.probation_days)
    tried.look(day(BURN_IN + 5))
    read = open_probation(tried).evidence
    assert [step.day for step in read] == [day(BURN_IN + 4), day(BURN_IN + 5)]


def test_every_open_booking_has_a_score_of_the_new_champion_before_it_serves(contest: World) -> None:
    foretell(contest, v1=BLIND)
    contest.score(until=TRAINED)
    assert contest.serving(day(30)) == {"1": len(contest.served(day(30)))}
    takeover = contest.promote("2", day(30))
    served = contest.served(day(30))
    assert takeover.served == {"2": len(served)} and len(served) > 400
    with contest.store.begin() as work:
        stored = work.features(pd.Series(served.index))
    assert np.array_equal(served["probability"], contest.registry.load("2").predict(stored.loc[served.index]))


def test_a_wrong_alias_after_a_change_is_told(contest: World) -> None:
    foretell(contest, v1=BLIND)
    deaf = Instead(contest.registry, "set_alias", lambda alias, version: None)
    takeover = contest.promote("2", day(0), registry=deaf)
    assert takeover.alias == "1"
    assert takeover.problems == ("MLflow's alias champion names version 1, the ledger version 2",)
    assert contest.status().disagreements == ("alias 'champion' is version 1, the ledger says version 2",)


def test_mlflow_going_away_in_the_middle_is_told_and_the_change_stands(tried: World) -> None:
    for method in ("set_alias", "aliases"):
        gone = Instead(tried.registry, method, fail(ServiceDown("MLflow is gone")))
        if method == "set_alias":
            takeover = tried.look(day(BURN_IN), registry=gone).takeover
        else:
            takeover = tried.roll_back(day(BURN_IN), registry=gone)
        assert takeover is not None
        assert takeover.problems == ("MLflow's aliases are not moved yet, reconcile will: MLflow is gone",)
        assert takeover.alias is None
        assert tried.standing().champion == takeover.version
        assert set(tried.serving(day(BURN_IN))) == {takeover.version}
        assert tried.reconcile().aliases[0].startswith("alias 'champion' is version")
        assert tried.registry.aliases() == {"champion": takeover.version}


# --- by a person ----------------------------------------------------------------------------------


def test_a_person_promotes_a_version_that_was_registered_by_hand_and_says_what_it_saw(contest: World) -> None:
    version = by_hand(contest, {"request_id": "notebook", "as_of": f"{day(-3)}", "data_digest": "unknown"})
    takeover = contest.promote(version, day(2), reason="  made for the fair ")
    assert takeover.problems == () and takeover.version == version == "4"
    with contest.store.begin() as work:
        record = work.version(version)
    assert record is not None and (record.request_id, record.trained_as_of) == ("notebook", day(-3))
    row = contest.ledger()[-1]
    assert (row.by, row.reason, row.trial_id, row.request_id) == ("ada", "made for the fair", None, "notebook")
    assert open_probation(contest).rival == "1"


def test_a_version_that_does_not_say_what_it_saw_is_refused_with_the_tags_to_set(contest: World) -> None:
    before = everything(contest, day(2))
    version = by_hand(contest, {})
    with pytest.raises(
        BadInput, match=rf"version {version} does not say.*set its tags.*request_id.*as_of.*data_digest"
    ):
        contest.promote(version, day(2))
    with pytest.raises(BadInput, match="99"):
        contest.promote("99", day(2))
    assert everything(contest, day(2)) == before


def test_a_version_registered_without_its_reference_sample_cannot_take_over(contest: World) -> None:
    tags = {"request_id": "notebook", "as_of": f"{TRAINED}", "data_digest": "unknown"}
    version = by_hand(contest, tags, extra_files=False)
    before = everything(contest, day(2))
    with pytest.raises(Refused, match=rf"version {version} cannot take over: .*Champion 1 stays"):
        contest.promote(version, day(2))
    assert everything(contest, day(2)) == before


def by_hand(world: World, tags: dict[str, str], extra_files: bool = True) -> str:
    """A version as a notebook makes it, with a reference beside it or without."""
    made = candidate("notebook", seed=8)
    files: list[str] = []
    folder = artifact(world, "1") / "extra_files"
    if extra_files:
        files = [str(folder / name) for name in ("reference.parquet", "importance.json")]
    with mlflow.start_run(experiment_id=world.registry._experiment()):
        info = mlflow.sklearn.log_model(
            made.model.pipeline,
            name="model",
            pip_requirements=[],
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
            extra_files=files,
            registered_model_name="cancellations",
        )
    version = str(info.registered_model_version)
    for key, value in tags.items():
        world.registry._client.set_model_version_tag("cancellations", version, key, value)
    return version


@pytest.mark.parametrize("reason", ["", "   "])
def test_without_a_reason_nothing_is_changed(promoted: World, reason: str) -> None:
    before = everything(promoted, day(1))
    with pytest.raises(BadInput, match="a reason is needed"):
        promoted.promote("1", day(1), reason=reason)
    with pytest.raises(BadInput, match="a reason is needed"):
        promoted.roll_back(day(1), reason=reason)
    assert everything(promoted, day(1)) == before


def test_what_is_champion_already_is_not_promoted(contest: World) -> None:
    with pytest.raises(Refused, match="version 1 is champion already"):
        contest.promote("1", day(1))


def test_without_a_champion_there_is_nothing_to_take_over_from(loaded: World) -> None:
    with pytest.raises(Refused, match=r"no champion yet.*cancellations retrain"):
        loaded.promote("1", day(1))
    with pytest.raises(Refused, match="no earlier champion to go back to; there is no champion"):
        loaded.roll_back(day(1))


def test_a_promotion_of_another_version_withdraws_the_trial_and_serves_that_one(tried: World) -> None:
    trial = tried.open_trial()
    takeover = tried.promote("3", day(BURN_IN - 1), reason="the fair")
    assert takeover.problems == () and set(tried.serving(day(BURN_IN - 1))) == {"3"}
    withdrawn, probation = tried.trials()
    assert trial is not None and withdrawn.trial_id == trial.trial_id
    assert withdrawn.state is TrialState.WITHDRAWN
    assert withdrawn.reasons[-1] == "version 3 became champion, ada: the fair"
    assert (probation.kind, probation.champion, probation.rival) == (Kind.PROBATION, "3", "1")
    assert tried.registry.aliases() == {"champion": "3"}


def test_a_promotion_of_the_challenger_ends_its_trial_as_promoted(tried: World) -> None:
    tried.promote("2", day(3), reason="the fair")
    [trial, _] = tried.trials()
    assert (trial.state, trial.reasons[-1]) == (TrialState.PROMOTED, "ada: the fair")
    assert tried.ledger()[-1].trial_id == trial.trial_id


# --- probation ------------------------------------------------------------------------------------


def test_a_worse_champion_is_rolled_back_by_itself_and_promotions_need_a_person(contest: World) -> None:
    """The whole way: it did better in its trial, then the world turned."""
    foretell(contest, v1=BLIND, v2=good_until(BURN_IN), v3=GOOD)
    contest.challenge("2", on=TRAINED)
    assert contest.look_daily(TRAINED, day(20)).takeover is not None
    contest.look(day(2 * BURN_IN - 1))
    assert contest.standing().champion == "2"
    on = day(2 * BURN_IN)
    looked = contest.look(on)
    assert looked.trial is not None and looked.takeover is not None
    assert (looked.trial.state, looked.trial.decided_on) == (TrialState.ROLLED_BACK, on)
    assert looked.trial.reasons[-1] == "its predecessor 1 is better"
    assert (looked.takeover.change, looked.takeover.problems) == (Change.ROLLED_BACK, ())
    row = contest.ledger()[-1]
    assert (row.champion, row.change, row.by) == ("1", Change.ROLLED_BACK, "the probation")
    assert row.trial_id == looked.trial.trial_id
    assert contest.registry.aliases() == {"champion": "1"}
    assert set(contest.serving(on)) == {"1"}
    assert [m.payload["change"] for m in contest.messages(ChampionChanged.topic)] == ["promoted"] * 2 + [
        "rolled back"
    ] * 2
    assert contest.open_trial() is None
    assert contest.held() == f"version 2 was rolled back on {on}: its predecessor 1 is better"

    # From now on a better challenger is asked about, until a person lets promotions go on.
    contest.challenge("3", on=on)
    trial = contest.look(day(3 * BURN_IN)).trial
    assert trial is not None and trial.mode is Mode.AUTO
    assert trial.state is TrialState.AWAITING
    contest.release()
    assert contest.look(day(3 * BURN_IN)).trial == trial  # asked is asked
    assert contest.answer(trial, approve=True, as_of=day(3 * BURN_IN)).takeover is not None


def test_after_a_rollback_drift_holds_for_its_cooldown(promoted: World) -> None:
    promoted.roll_back(day(3))
    soon, later = day(7), day(49)
    knobs = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0, cooldown_days=28)
    held = promoted.monitor(GivenMonitor([soon]), until=soon, after=TRAINED, policy=knobs)
    assert held.decisions[-1].decision.action is Action.HOLD
    assert f"{day(3)}" in held.decisions[-1].decision.reasons[-1]
    assert promoted.monitor(GivenMonitor([later]), until=later, after=day(42), policy=knobs).acted is not None


@pytest.mark.parametrize(
    ("old", "new", "until", "state", "why"),
    [
        (BLIND, GOOD, BURN_IN, TrialState.CONFIRMED, "champion 2 is better"),
        (BLIND, even, 30, TrialState.EXPIRED, f"no answer by {day(30)}; champion 2 stays"),
    ],
    ids=["confirmed", "expired"],
)
def test_a_champion_that_is_not_worse_stays_and_the_owners_hear_it(
    contest: World, old: Skill, new: Skill, until: int, state: TrialState, why: str
) -> None:
    foretell(contest, v1=old, v2=new)
    contest.trial_policy = policy()
    contest.promote("2", day(0))
    contest.look(day(until - 1))
    before = contest.ledger(), contest.serving(day(until))
    looked = contest.look(day(until)).trial
    assert looked is not None and (looked.state, looked.reasons[-1]) == (state, why)
    assert (contest.ledger(), contest.serving(day(until))) == before
    assert contest.standing() == Standing("2", None, 2)
    [mail] = contest.messages(TrialEnded.topic)
    assert (mail.payload["kind"], mail.payload["state"]) == ("probation", state.value)
    assert contest.held() is None
    assert contest.look(day(until)).trial is None


def test_on_probation_both_versions_score_and_the_champion_alone_is_served(promoted: World) -> None:
    scored = promoted.score(until=day(1))
    assert list(scored.rows) == ["2", "1"]
    assert set(promoted.serving(day(1))) == {"2"} and promoted.served(day(1))["arm"].isna().all()


def test_no_retrain_begins_while_a_champion_is_on_probation(promoted: World) -> None:
    request = promoted.request(day(5))
    with pytest.raises(Refused, match="the probation of champion 2 against its predecessor 1 has not ended"):
        promoted.retrain(request)
    looked = promoted.monitor(GivenMonitor([day(7)]), until=day(7), after=TRAINED, policy=AT_ONCE)
    assert looked.acted is None


def test_a_probation_that_a_person_ends_leaves_the_champion_and_the_ledger(promoted: World) -> None:
    before = promoted.ledger()
    assert promoted.withdraw(day(2)).state is TrialState.WITHDRAWN
    assert promoted.ledger() == before
    assert promoted.standing().champion == "2"


# --- rollback by a person -------------------------------------------------------------------------


def test_a_rollback_walks_the_ledger_back_one_champion_at_a_time(promoted: World) -> None:
    promoted.promote("3", day(1))
    assert [promoted.roll_back(day(n)).version for n in (2, 3)] == ["2", "1"]
    with pytest.raises(Refused, match="no earlier champion to go back to; champion 1 stays"):
        promoted.roll_back(day(4))
    changes = [row.change for row in promoted.ledger()]
    assert changes == [Change.FIRST, Change.PROMOTED, Change.PROMOTED, Change.ROLLED_BACK, Change.ROLLED_BACK]
    assert promoted.registry.aliases() == {"champion": "1"}
    assert set(promoted.serving(day(4))) == {"1"}


def test_a_rollback_by_a_person_ends_the_probation_and_holds_promotions(promoted: World) -> None:
    takeover = promoted.roll_back(day(2))
    assert (takeover.version, takeover.change, takeover.problems) == ("1", Change.ROLLED_BACK, ())
    [probation] = promoted.trials()
    assert (probation.state, probation.reasons[-1]) == (TrialState.ROLLED_BACK, "ada: guests left")
    row = promoted.ledger()[-1]
    assert (row.by, row.reason, row.trial_id) == ("ada", "guests left", probation.trial_id)
    assert promoted.held() == f"version 2 was rolled back on {day(2)}: guests left"


def test_a_rollback_to_a_named_champion_withdraws_the_probation_of_another_pair(promoted: World) -> None:
    promoted.promote("3", day(1))
    takeover = promoted.roll_back(day(2), to="1")
    assert takeover.problems == () and set(promoted.serving(day(2))) == {"1"}
    assert [t.state for t in promoted.trials()] == [TrialState.WITHDRAWN, TrialState.WITHDRAWN]
    with pytest.raises(Refused, match="no earlier champion"):
        promoted.roll_back(day(3))


def test_a_rollback_during_a_trial_withdraws_it_and_both_leave(promoted: World) -> None:
    promoted.withdraw(day(1))
    foretell(promoted, v3=GOOD)
    trial = promoted.challenge("3", on=day(2))
    promoted.look(day(3))
    promoted.roll_back(day(4))
    assert promoted.standing() == Standing("1", None, 4)
    assert promoted.registry.aliases() == {"champion": "1"}
    withdrawn = promoted.trials()[-1]
    assert (withdrawn.trial_id, withdrawn.state) == (trial.trial_id, TrialState.WITHDRAWN)
    assert set(promoted.serving(day(4))) == {"1"}


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("2", "version 2 is champion already"),
        ("3", r"version 3 never was champion.*champion 2 stays.*cancellations promote 3"),
        ("99", r"version 99 never was champion.*champion 2 stays"),
    ],
)
def test_a_rollback_to_what_never_served_is_refused_and_changes_nothing(promoted: World, to: str, why: str) -> None:
    foretell(promoted, v3=GOOD)  # the ledger knows it, as a version that was registered
    before = everything(promoted, day(2)), promoted.registry.aliases()
    with pytest.raises(Refused, match=why):
        promoted.roll_back(day(2), to=to)
    assert (everything(promoted, day(2)), promoted.registry.aliases()) == before


# --- proven first ---------------------------------------------------------------------------------


@pytest.fixture
def doomed(contest: World) -> tuple[World, str]:
    """A version whose files are of this test alone was champion, and 2 is now; and its number."""
    foretell(contest, v1=BLIND, v2=even)
    own = contest.registry.register(candidate("its-own", seed=9)).version
    contest.trial_policy = policy()
    contest.promote(own, day(0))
    contest.promote("2", day(1))
    contest.registry.load(own)  # this process has it in memory
    return contest, own


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder)


def remove_model(folder: Path) -> None:
    (folder / "model.skops").unlink()


def cut_short(folder: Path) -> None:
    path = folder / "model.skops"
    path.write_bytes(path.read_bytes()[:1000])


def remove_reference(folder: Path) -> None:
    (folder / "extra_files" / "reference.parquet").unlink()


@pytest.mark.parametrize("harm", [remove_all, remove_model, cut_short, remove_reference])
def test_a_version_whose_artifact_is_gone_cannot_take_over_and_the_champion_stays(
    doomed: tuple[World, str], harm: Callable[[Path], None]
) -> None:
    world, own = doomed
    before = everything(world, day(2)), world.registry.aliases()
    harm(artifact(world, own))
    with pytest.raises(Refused, match=rf"version {own} cannot take over: .*Champion 2 stays"):
        world.roll_back(day(2))
    with pytest.raises(Refused, match=rf"version {own} cannot take over: .*Champion 2 stays"):
        world.promote(own, day(2))
    assert (everything(world, day(2)), world.registry.aliases()) == before
    assert world.roll_back(day(2), to="1").version == "1"  # one that is whole


@pytest.mark.parametrize("answer", [float("nan"), 1.5, -0.1])
def test_a_model_that_gives_no_probabilities_cannot_take_over(contest: World, answer: float) -> None:
    class Confused:
        pipeline = None

        def predict(self, rows: pd.DataFrame) -> np.ndarray:
            return np.full(len(rows), answer)

    foretell(contest, v1=BLIND)
    before = everything(contest, day(2))
    confused = Instead(contest.registry, "load", lambda version, fresh=False: Confused())
    with pytest.raises(Refused, match=r"version 2 cannot take over: it does not give each of 200 sampled bookings"):
        contest.promote("2", day(2), registry=confused)
    assert everything(contest, day(2)) == before


def test_with_mlflow_down_nothing_moves(promoted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = everything(promoted, day(2))
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        gone = registry(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for change in (
            lambda: promoted.roll_back(day(2), registry=gone),
            lambda: promoted.promote("1", day(2), registry=gone),
            lambda: promoted.promote("3", day(2), registry=gone),
        ):
            with pytest.raises(ServiceDown):
                change()
    mlflow.set_tracking_uri(promoted.registry._uri)
    assert everything(promoted, day(2)) == before
    assert promoted.registry.aliases() == {"champion": "2"}


def test_a_probation_that_cannot_roll_back_for_want_of_mlflow_does_at_a_later_look(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=BAD)
    contest.trial_policy = policy()
    contest.promote("2", day(0))
    asked: list[bool] = []

    def load(version: str, *, fresh: bool = False) -> Classifier:
        asked.append(fresh)
        if fresh:
            raise ServiceDown("MLflow is gone")
        return contest.registry.load(version)

    with pytest.raises(ServiceDown):
        contest.look(day(BURN_IN), registry=Instead(contest.registry, "load", load))
    assert asked[-1] is True
    assert open_probation(contest).state is TrialState.RUNNING and contest.standing().champion == "2"
    assert contest.look(day(BURN_IN + 1)).takeover is not None
    assert contest.standing().champion == "1"


# --- two at once ----------------------------------------------------------------------------------


def at_once(acts: Sequence[Callable[[], object]]) -> list[object]:
    """Runs all in threads; returns what each returned, or the error that it raised."""

    def run(act: Callable[[], object]) -> object:
        try:
            return act()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def proving_together(world: World, parties: int) -> Registry:
    """A registry in which whoever proves a version waits for the others: all have read the standing by then."""
    barrier = Barrier(parties, timeout=60)

    def load(version: str, *, fresh: bool = False) -> Classifier:
        if fresh:
            barrier.wait()
        return world.registry.load(version, fresh=fresh)

    return Instead(world.registry, "load", load)


def test_of_two_promoters_at_once_one_wins_and_the_other_is_told(contest_on_either: World, store_url: str) -> None:
    world = contest_on_either
    foretell(world, v1=BLIND, v2=BLIND, v3=BLIND)
    stores = [open_store(store_url) for _ in range(2)]
    try:
        for round_number in range(10):
            champion = str(world.standing().champion)
            rivals = [v for v in ("1", "2", "3") if v != champion]
            together = proving_together(world, 2)
            before = world.ledger()
            results = at_once(
                [
                    partial(world.promote, version, day(1), store=store, registry=together)
                    for store, version in zip(stores, rivals, strict=True)
                ]
            )
            [won] = [r for r in results if isinstance(r, Takeover)]
            [lost] = [r for r in results if not isinstance(r, Takeover)]
            assert isinstance(lost, EpochMismatch), (round_number, lost)
            ledger = world.ledger()
            assert ledger[:-1] == before
            assert (ledger[-1].champion, world.standing().champion) == (won.version, won.version)
            assert set(world.serving(day(1))) == {won.version}
            assert len(world.messages(ChampionChanged.topic)) == 2 * (round_number + 1)
            assert open_probation(world).champion == won.version
            assert world.registry.aliases()["champion"] == won.version
    finally:
        for store in stores:
            store.close()


@pytest.mark.parametrize("end", ["promotion", "rejection", "confirmation"])
def test_of_two_looks_at_once_one_ends_the_trial(contest_on_either: World, store_url: str, end: str) -> None:
    world = contest_on_either
    foretell(world, v1=BLIND, v2=BAD if end == "rejection" else GOOD)
    if end == "confirmation":
        world.promote("2", TRAINED)
    else:
        world.challenge("2", on=TRAINED)
    before = world.messages()
    barrier = Barrier(2, timeout=60)

    def load(version: str, *, fresh: bool = False) -> Classifier:
        if version == "2" and not fresh:  # to score: by then both have read that the trial runs
            barrier.wait()
        return world.registry.load(version, fresh=fresh)

    together = Instead(world.registry, "load", load)
    stores: list[SqlStore] = [open_store(store_url) for _ in range(2)]
    try:
        results = at_once([partial(world.look, day(BURN_IN), store=s, registry=together) for s in stores])
    finally:
        for store in stores:
            store.close()
    [ended] = [r for r in results if isinstance(r, Looked)]
    [late] = [r for r in results if not isinstance(r, Looked)]
    assert isinstance(late, EpochMismatch), late
    first, *others = world.trials()
    assert first == ended.trial and [t.kind for t in others] == ([Kind.PROBATION] if end == "promotion" else [])
    assert world.standing().epoch == len(world.ledger()) == (2 if end == "confirmation" else 3)
    told = [(m.channel.value, m.topic) for m in world.messages() if m not in before]
    if end == "promotion":
        assert told == [("event", ChampionChanged.topic), ("mail", ChampionChanged.topic)]
    else:
        assert told == [("mail", TrialEnded.topic)]


# --- kills ----------------------------------------------------------------------------------------


@dataclass
class Fork:
    """Starts a world's store anew from where it stands now, as often as wanted; SQLite alone."""

    world: World
    folder: Path
    number: int = 0

    def __post_init__(self) -> None:
        self.url = str(self.world.store._url.database)
        self.aliases = self.world.registry.aliases()
        self.origin = self.folder / "origin.db"
        connection = sqlite3.connect(self.url)
        connection.execute("VACUUM INTO ?", (str(self.origin),))
        connection.close()

    def anew(self) -> World:
        self.number += 1
        path = self.folder / f"fork-{self.number}.db"
        shutil.copy(self.origin, path)
        self.world.store.close()
        self.world.store = open_store(f"sqlite:///{path}")
        for alias in ("champion", "challenger"):
            if self.world.registry.aliases().get(alias) != self.aliases.get(alias):
                self.world.registry.set_alias(alias, self.aliases.get(alias))
        return self.world


def killed_at_each_step(world: World, folder: Path, act: Callable[[CutOff], object], on: date) -> list[str]:
    """Kills `act` before each call that it makes of the store; the state is the old one or the new one.

    Returns the calls. After each kill a second, whole run of `act`, where it is still allowed, and
    reconcile lead to the new state.
    """
    fork = Fork(world, folder)
    before = everything(world, on)
    whole = CutOff(fork.anew().store, None, nth=10_000)
    act(whole)
    after, aliases = everything(world, on), world.registry.aliases()
    assert after != before
    states = []
    fork.anew()
    for n in range(len(whole.calls)):
        with pytest.raises(PowerCut):
            act(CutOff(world.store, None, nth=n))
        state = everything(world, on)
        assert state in (before, after), f"half of it stands after a death before call {n}, {whole.calls[n]}"
        states.append(state == after)
        if state == after:
            assert world.reconcile().aliases or world.registry.aliases() == aliases
            assert world.registry.aliases() == aliases
            assert world.status(as_of=on).disagreements == ()
            fork.anew()
    assert states == sorted(states) and states[0] is False and states[-1] is True
    # What was whole before the one commit is new after it, and nothing in between.
    turn = states.index(True)
    assert whole.calls[turn - 1] == "commit"
    return whole.calls


def test_a_death_at_any_step_of_a_promotion_leaves_nothing_or_all_of_it(tried: World, tmp_path: Path) -> None:
    calls = killed_at_each_step(tried, tmp_path, lambda s: tried.look(day(BURN_IN), store=s), day(BURN_IN))
    assert {"change_standing", "update_trial", "add_trial", "serve", "add_messages", "add_version"} <= set(calls)


def test_a_death_at_any_step_of_a_rollback_leaves_nothing_or_all_of_it(promoted: World, tmp_path: Path) -> None:
    calls = killed_at_each_step(promoted, tmp_path, lambda s: promoted.roll_back(day(2), store=s), day(2))
    assert {"change_standing", "update_trial", "hold_promotions", "serve", "add_messages"} <= set(calls)


def test_a_death_at_any_step_of_a_rejection_leaves_nothing_or_all_of_it(contest: World, tmp_path: Path) -> None:
    foretell(contest, v1=BLIND, v2=BAD)
    contest.challenge("2", on=TRAINED)
    contest.look(day(BURN_IN - 1))
    calls = killed_at_each_step(contest, tmp_path, lambda s: contest.look(day(BURN_IN), store=s), day(BURN_IN))
    assert {"change_standing", "update_trial", "serve", "add_messages"} <= set(calls)


def test_a_death_at_any_step_of_asking_a_person_leaves_nothing_of_it(contest: World) -> None:
    foretell(contest, v1=BLIND, v2=GOOD)
    contest.challenge("2", on=TRAINED, policy=policy(mode=Mode.APPROVE))
    on = day(BURN_IN)
    contest.look(day(BURN_IN - 1))
    before = everything(contest, on)
    whole = CutOff(contest.store, "add_messages")
    with pytest.raises(PowerCut):
        contest.look(on, store=whole)
    for n in range(len(whole.calls) + 1):  # the last one is the commit behind the messages
        with pytest.raises(PowerCut):
            contest.look(on, store=CutOff(contest.store, None, nth=n))
        assert everything(contest, on) == before
    assert contest.look(on).trial is not None
    assert [m.topic for m in contest.messages()] == [ApprovalNeeded.topic]


def test_a_death_between_the_ledger_and_the_alias_is_seen_by_status_and_mended_by_reconcile(tried: World) -> None:
    on = day(BURN_IN)
    killed = Instead(tried.registry, "set_alias", fail(PowerCut("set_alias")))
    with pytest.raises(PowerCut):
        tried.look(on, registry=killed)
    status = tried.status(as_of=on)
    assert status.standing.champion == "2"
    assert status.disagreements == (
        "alias 'champion' is version 1, the ledger says version 2",
        "alias 'challenger' is version 2, the ledger says nobody",
    )
    assert set(status.served) == {"2"}  # whoever reads scores has the new champion's already
    assert tried.reconcile().aliases == status.disagreements
    assert tried.registry.aliases() == {"champion": "2"}
    assert tried.status(as_of=on).disagreements == ()
