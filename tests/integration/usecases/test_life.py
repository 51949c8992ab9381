"""Any order of acts, with deaths, outages and other people in between: the ledger stays one story.

A state machine does what flows, the CLI and people do, on a real store and a real registry, and
`foresight.py` says beforehand what each act should lead to. An act that is cut off half way has been
done or not; two that cross come out as if one had been after the other; one that is refused has
changed nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sqlite3
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from contest import TRAINED, day
from foresight import (
    HOPELESS,
    QUALITIES,
    TRAINING,
    Acknowledge,
    Act,
    Answer,
    Ask,
    Broken,
    GuardsLook,
    HoldBack,
    Life,
    Look,
    Monitor,
    Pause,
    Promote,
    Reconcile,
    Release,
    Retrain,
    RollBack,
    Scene,
    Score,
    TakeOver,
    Withdraw,
    bookings,
    candidate,
    crossings,
    model,
    stops,
    told,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from world import NOW, Clock, Crossing, CutOff, PowerCut, Snapshot, Table, World, registry

from cancellations.domain.checks import HoldState
from cancellations.domain.comparison import Arm, arm
from cancellations.domain.events import (
    ApprovalNeeded,
    ChallengerRegistered,
    ChampionChanged,
    DataBroken,
    DriftDetected,
    Fact,
    RetrainFailed,
    RetrainOverdue,
    RetrainRejected,
    TrialEnded,
)
from cancellations.domain.features import FEATURES
from cancellations.domain.guards import BY_GUARD
from cancellations.domain.promotion import (
    TRANSITIONS,
    Change,
    Kind,
    Mode,
    Standing,
    Trial,
    TrialPolicy,
    TrialState,
    predecessor,
)
from cancellations.domain.retraining import RequestState
from cancellations.errors import CancellationsError, ServiceDown
from cancellations.ports import Candidate, VersionRecord
from cancellations.registry import MlflowRegistry
from cancellations.store import open_store, upgrade

LAST = 195  # the last day to which the machine goes
# Of versions that somebody names, some are made later on, one has no tags, and one does not exist.
VERSIONS = st.sampled_from(["4", "5", "6", "7", "9", "10", "11", "12", "8", "99"])


# --- what stands around the use cases -------------------------------------------------------------


@dataclass
class Line:
    """The way to MLflow, which fails after `calls` calls. It registers versions that were made before."""

    mlflow: MlflowRegistry
    artifacts: dict[str, tuple[str, str]]  # source and run of each quality
    calls: int | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.mlflow, name)
        if not callable(found) or name.startswith("_"):
            return found

        def call(*args: Any, **knobs: Any) -> Any:
            self._answer()
            return found(*args, **knobs)

        return call

    def register(self, candidate: Candidate) -> VersionRecord:
        self._answer()
        known = self.mlflow._of_request(candidate.request_id)
        if known is not None:
            return self.mlflow._record(known)
        client, name = self.mlflow._client, self.mlflow._name
        source, run_id = self.artifacts[candidate.parameters["quality"]]
        tags = {"request_id": candidate.request_id, "as_of": candidate.as_of.isoformat(), "data_digest": "d"}
        return self.mlflow._record(client.create_model_version(name, source, run_id=run_id, tags=tags))

    def _answer(self) -> None:
        if self.calls is not None:
            self.calls -= 1
            if self.calls < 0:
                raise ServiceDown("MLflow is gone")


@dataclass(frozen=True)
class Killed:
    """The process dies at a call of the store, some way through the act."""

    through: float


@dataclass(frozen=True)
class Cut:
    """MLflow is gone after some calls, until the act has ended."""

    calls: int


@dataclass(frozen=True)
class Crossed:
    """Somebody else acts, at one of the act's moments."""

    moment: int
    other: Act


Trouble = Killed | Cut | Crossed
THROUGH = st.floats(0, 1, exclude_max=True)
MOMENTS = st.integers(0, 4)
OTHERS = st.one_of(
    st.builds(Promote, VERSIONS),
    st.builds(RollBack, st.none()),
    st.sampled_from([Look(), Withdraw(), Acknowledge(), Score(), GuardsLook(True)]),
)
TROUBLES = st.one_of(
    st.none(),
    st.builds(Killed, THROUGH),
    st.builds(Cut, st.integers(0, 6)),
    st.builds(Crossed, MOMENTS, OTHERS),
)


@dataclass
class Stage:
    """Databases that are brought back to their beginning for each story, and the artifacts."""

    folder: Path
    beginning: Snapshot
    rows: pd.DataFrame
    scores: dict[str, np.ndarray]
    artifacts: dict[str, tuple[str, str]]  # source and run of each quality
    reached: Counter[str] = field(default_factory=Counter)  # what the stories came to

    def world(self) -> World:
        for name in ("cancellations.db", "mlflow.db"):
            with sqlite3.connect(self.beginning.folder / name) as kept, sqlite3.connect(self.folder / name) as used:
                kept.backup(used)
            kept.close()
            used.close()
        line = Line(registry(f"sqlite:///{self.folder / 'mlflow.db'}", self.beginning.artifacts), self.artifacts)
        return World(open_store(f"sqlite:///{self.folder / 'cancellations.db'}"), line, Clock())  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def stage(contested: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A blind champion, a version of each other quality in MLflow, and one that nobody gave tags."""
    folder = tmp_path_factory.mktemp("life")
    home = folder / "home"
    home.mkdir()
    shutil.copy(contested.folder / "mlflow.db", home)
    url = f"sqlite:///{home / 'cancellations.db'}"
    upgrade(url)
    mlflow = registry(f"sqlite:///{home / 'mlflow.db'}", contested.artifacts)
    made = {quality: mlflow.register(candidate(quality)) for quality in QUALITIES}
    sources = {q: str(mlflow._client.get_model_version(mlflow._name, made[q].version).source) for q in made}
    artifacts = {quality: (sources[quality], record.run_id) for quality, record in made.items()}
    source, run_id = artifacts["good"]
    mlflow._client.create_model_version(mlflow._name, source, run_id=run_id)

    rows, champion = bookings(), made["blind"]
    store = open_store(url)
    with store.begin() as work:
        work.add_version(champion, NOW)
        work.change_standing(
            work.standing(),
            champion=champion.version,
            challenger=None,
            change=Change.FIRST,
            reason="the first version to pass the gate",
            by="the gate",
            request_id=champion.request_id,
            as_of=TRAINED,
            now=NOW,
        )
        work.commit()
    mlflow.set_alias("champion", champion.version)
    world = World(store, mlflow)
    world.ingest(until=TRAINED, source=Table(rows))
    world.score(TRAINED)
    store.close()
    seen = pd.DataFrame({name: rows.get(name, pd.Series("A", rows.index)) for name in ("price", "adults")})
    features = seen.reindex(columns=[*FEATURES])
    scores = {quality: model(quality).predict(features) for quality in QUALITIES}
    return Stage(home, Snapshot.of(home, contested.artifacts, folder / "beginning"), rows, scores, artifacts)


def read(path: Path, query: str, *values: object) -> list[sqlite3.Row]:
    """Rows of a database, past our own code."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


# --- the machine ----------------------------------------------------------------------------------


class Stories(RuleBasedStateMachine):
    """Each rule is something that happens; after each the store is read, and held against the foresight."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.store_path, self.mlflow_path = stage.folder / "cancellations.db", stage.folder / "mlflow.db"
        self.world = stage.world()
        champion = self.world.standing().champion
        assert champion is not None
        self.life = Life(champion, None, 1, pile=(champion,), crowned=frozenset({champion}))
        self.predictions: dict[tuple[str, str], float] = {}
        self.arms: dict[tuple[str, str], str] = {}
        self.aliases: dict[str, str] = {}
        self.trials: dict[str, Trial] = {}
        self.place = {str(name): n for n, name in enumerate(stage.rows["reservation_id"])}
        self.before: tuple[Standing, VersionRecord] | None = None
        self.acknowledged_at = 0  # epoch
        self.judged: dict[date, HoldState] = {}  # days that are held no more
        self.guarded: dict[str, bool] = {}

    def teardown(self) -> None:
        self.world.store.close()

    @initialize(
        mode=st.sampled_from([Mode.AUTO, Mode.APPROVE, Mode.AUTO, Mode.SHADOW]),
        share=st.sampled_from([0.5, 0.0, 1.0]),
        max_days=st.sampled_from([20, 30]),
    )
    def begin(self, mode: Mode, share: float, max_days: int) -> None:
        policy = TrialPolicy(mode=mode, serve_share=share, max_days=max_days, probation_days=max_days)
        self.world = replace(self.world, trial_policy=policy)
        self.scene = Scene(policy, self.stage.rows, self.stage.scores, self.world.clock)
        self._ask_mlflow()
        self._check()

    # --- time, and people's hands in MLflow ---

    @rule(
        days=st.sampled_from([1, 7, 15]),
        outcomes=st.sampled_from(["told", "late", "lost"]),
        fails=st.booleans(),
        trouble=TROUBLES,
    )
    def days_pass_and_bookings_are_scored(self, days: int, outcomes: str, fails: bool, trouble: Trouble | None) -> None:
        before = self.scene.today
        self._pass(days, outcomes)
        if fails:
            self._hold_the_last_day(before)
        self._act(Score(), trouble)

    @precondition(lambda self: self.life.running is not None)
    @rule(days=st.sampled_from([15, 21, 30]), outcomes=st.sampled_from(["told", "late", "lost"]), trouble=TROUBLES)
    def weeks_pass_before_a_look(self, days: int, outcomes: str, trouble: Trouble | None) -> None:
        self._pass(days, outcomes)
        self._act(Look(), trouble)

    @precondition(lambda self: self._awaiting())
    @rule(crossed=st.booleans(), moment=MOMENTS, approve=st.booleans(), trouble=TROUBLES)
    def the_time_to_answer_ends(self, crossed: bool, moment: int, approve: bool, trouble: Trouble | None) -> None:
        """And somebody answers at that very moment, or nobody does."""
        self.world.clock.advance(hours=self.scene.policy.approval_hours)
        self._act(Look(), Crossed(moment, Answer(self._awaiting(), approve)) if crossed else trouble)

    @rule(
        alias=st.sampled_from(["champion", "challenger"]),
        version=st.sampled_from([None, "5", "6"]),
        gone=st.sampled_from([None, "5", "9", "4", "10"]),
    )
    def somebody_tidies_up_in_mlflow(self, alias: str, version: str | None, gone: str | None) -> None:
        """Moves an alias, and after a while deletes an artifact."""
        self.world.registry.set_alias(alias, version)
        if gone in self.scene.made and self.scene.today > day(30) and not self.scene.gone:
            with sqlite3.connect(self.mlflow_path) as connection:
                nowhere = str(self.stage.folder / "nowhere")
                moved = "UPDATE model_versions SET source = ?, storage_location = ? WHERE version = ?"
                connection.execute(moved, (nowhere, nowhere, gone))
            connection.close()
            self.scene.gone.add(gone)
        self._check()

    # --- days that are held back ---

    @rule(days=st.sampled_from([1, 2, 7]), trouble=st.one_of(st.none(), st.builds(Killed, THROUGH)))
    def the_last_days_bookings_fail_their_checks(self, days: int, trouble: Trouble | None) -> None:
        before = self.scene.today
        self._pass(days, "told")
        self._hold_the_last_day(before, trouble)

    def _hold_the_last_day(self, after: date, trouble: Trouble | None = None) -> None:
        """Before anybody has scored its bookings."""
        made = self.stage.rows["booked_on"]
        made = made[(made > pd.Timestamp(after)) & (made <= pd.Timestamp(self.scene.today))]
        if len(made):
            self._act(HoldBack(made.max().date()), trouble)

    @precondition(lambda self: self.life.holds)
    @rule(which=st.integers(0, 3), trouble=TROUBLES)
    def a_person_releases_a_day(self, which: int, trouble: Trouble | None) -> None:
        days = sorted(self.life.held_days()) or [day for day, *_ in self.life.holds]
        self._act(Release(days[which % len(days)]), trouble)

    # --- requests ---

    @rule(automatic=st.booleans(), trouble=TROUBLES)
    def somebody_asks_for_a_version(self, automatic: bool, trouble: Trouble | None) -> None:
        self._act(Monitor() if automatic else Ask(), trouble)

    @precondition(lambda self: self.life.wishes)
    @rule(which=st.integers(0, 3), quality=st.sampled_from(["good", "noise", "bad", HOPELESS, None]), trouble=TROUBLES)
    def a_worker_takes_a_request(self, which: int, quality: str | None, trouble: Trouble | None) -> None:
        waiting = self.life.in_state(RequestState.WAITING) or [name for name, _ in self.life.wishes]
        self._act(Retrain(waiting[which % len(waiting)], quality), trouble)

    @precondition(lambda self: self.life.in_state(RequestState.WAITING))
    @rule(moment=MOMENTS, quality=st.sampled_from(["good", HOPELESS, None]))
    def two_workers_take_one_request(self, moment: int, quality: str | None) -> None:
        waiting = self.life.in_state(RequestState.WAITING)[0]
        self._act(Retrain(waiting, "good"), Crossed(moment, Retrain(waiting, quality, "another")))

    @precondition(lambda self: self.life.running is None and self.scene.today > day(7))
    @rule(quality=st.sampled_from(["good", "bad", "noise", "blind"]), trouble=TROUBLES)
    def a_challenger_is_made(self, quality: str, trouble: Trouble | None) -> None:
        self._act(Ask())
        self._act(Retrain(self.life.wishes[-1][0], quality), trouble)

    @precondition(lambda self: self.life.running is None)
    @rule(
        quality=st.sampled_from(["good", "good", "bad", "noise"]),
        days=st.sampled_from([15, 21, 30]),
        answer=st.sampled_from([None, True, False]),
        fires=st.sampled_from([None, True, False]),
        trouble=TROUBLES,
    )
    def a_challenger_is_tried(
        self, quality: str, days: int, answer: bool | None, fires: bool | None, trouble: Trouble | None
    ) -> None:
        self._pass(7, "told")
        self._act(Ask())
        self._act(Retrain(self.life.wishes[-1][0], quality))
        self._pass(days, "told")
        self._act(Look(), None if answer is not None else trouble)
        if answer is not None and self._awaiting():
            self._act(Answer(self._awaiting(), answer), trouble)
        if fires is not None and self.life.running is not None and self.life.running.kind is Kind.PROBATION:
            self._act(GuardsLook(fires), trouble)

    # --- trials and champions ---

    @precondition(lambda self: self.life.running is not None)
    @rule(trouble=TROUBLES)
    def somebody_looks(self, trouble: Trouble | None) -> None:
        self._act(Look(), trouble)

    @precondition(lambda self: self.life.running is not None and self.life.running.kind is Kind.PROBATION)
    @rule(fires=st.booleans(), trouble=TROUBLES)
    def guards_look_at_a_new_champion(self, fires: bool, trouble: Trouble | None) -> None:
        self._act(GuardsLook(fires), trouble)

    @precondition(lambda self: self._awaiting())
    @rule(approve=st.booleans(), trouble=TROUBLES)
    def the_person_who_was_asked_answers(self, approve: bool, trouble: Trouble | None) -> None:
        self._act(Answer(self._awaiting(), approve), trouble)

    @precondition(lambda self: self.life.running is not None)
    @rule(trouble=TROUBLES)
    def a_person_withdraws(self, trouble: Trouble | None) -> None:
        self._act(Withdraw(), trouble)

    @rule(version=VERSIONS, trouble=TROUBLES)
    def a_person_promotes(self, version: str, trouble: Trouble | None) -> None:
        self._act(Promote(version), trouble)

    @precondition(lambda self: self._in_sight())
    @rule(which=st.integers(0, 3), trouble=TROUBLES)
    def a_person_promotes_a_version_in_sight(self, which: int, trouble: Trouble | None) -> None:
        versions = self._in_sight()
        self._act(Promote(versions[which % len(versions)]), trouble)

    @precondition(lambda self: len(self.life.crowned) > 1)
    @rule(to=st.one_of(st.none(), VERSIONS), trouble=TROUBLES)
    def a_person_rolls_back(self, to: str | None, trouble: Trouble | None) -> None:
        self._act(RollBack(to), trouble)

    @precondition(lambda self: self.life.held)
    @rule()
    def a_person_acknowledges(self) -> None:
        self._act(Acknowledge())

    @precondition(lambda self: self.life.paused or self.life.in_state(RequestState.WAITING))
    @rule()
    def a_person_pauses_or_resumes(self) -> None:
        self._act(Pause(not self.life.paused))

    @rule(version=st.sampled_from(["5", "6", "7"]))
    def somebody_acts_on_what_stood_before(self, version: str) -> None:
        if self.before is not None and self.before[0].epoch < self.life.epoch:
            self._act(TakeOver(*self.before))
            trials = [*(name for name, _ in self.life.ended), "trial-that-never-was"]
            self._act(Answer(trials[-1 - len(trials) // 2], approve=True))
        self.before = self.world.standing(), self.world.registry.mlflow.record(version)  # type: ignore[attr-defined]

    # --- in the end ---

    @precondition(lambda self: not self._agree() or self.life.in_state(RequestState.WAITING))
    @rule(trouble=TROUBLES)
    def reconcile(self, trouble: Trouble | None) -> None:
        self._act(Reconcile(), trouble)

    @precondition(lambda self: self.life.in_state(RequestState.WAITING))
    @rule()
    def all_requests_come_to_an_end(self) -> None:
        """Whatever happened before: no request is stuck."""
        self._act(Reconcile())
        self._act(Pause(False))
        for request_id in self.life.in_state(RequestState.WAITING):
            if self.life.running is not None:
                self._act(Withdraw())
            self._act(Retrain(request_id, HOPELESS))
            if self.life.in_state(RequestState.WAITING)[:1] == [request_id]:
                self._act(Retrain(request_id, HOPELESS))
        assert not self.life.in_state(RequestState.WAITING, RequestState.RUNNING)

    # --- doing ---

    def _act(self, act: Act, trouble: Trouble | None = None) -> None:
        """Does it, and holds what it came to against what it may come to."""
        before, scene, unchanged = self.life, self._scene_as_it_is(), self._everything()
        foreseen, error = act.foresee(before, scene)
        raised, struck = self._do(act, trouble)
        self._ask_mlflow()
        came_to = told(self.world)
        if not struck:
            ways = [foreseen]
            assert type(raised) is (error or type(None)), f"{act} raised {raised!r}, foreseen was {error}"
        elif isinstance(trouble, Crossed):
            refused = raised is not None
            ways = crossings(act, trouble.other, before, self.scene, refused=refused)
            if isinstance(trouble.other, Promote) and trouble.other.version not in scene.made:
                # What the first has made came too late for the other.
                ways += stops(act, before, scene) if refused else [foreseen]
        else:
            ways = stops(act, before, scene) if raised is not None else [foreseen]
        found = next((way for way in ways if way == came_to), None)
        assert found is not None, (
            f"{act}, {trouble if struck else 'no trouble'}, raised {raised!r}\n"
            f"from     {before}\ncame to  {came_to}\n" + "\n".join(f"foreseen {way}" for way in ways)
        )
        # Whoever scores serves the champion's scores before he finds that the other version is gone.
        if not struck and error is not None and foreseen == before and not isinstance(act, Score | Look):
            assert self._everything() == unchanged, f"{act} was refused and has left something"
        self.life = found
        self._count(act, trouble if struck else None, raised, before)
        self._check()
        if not struck and error is None:
            self._check_done(act, before)
        if isinstance(raised, PowerCut):
            self.world.clock.now += TRAINING.lease_ttl
            self._act(Reconcile())

    def _do(self, act: Act, trouble: Trouble | None) -> tuple[BaseException | None, bool]:
        """What it raised, and whether the trouble came in time to strike it."""
        line: Line = self.world.registry  # type: ignore[assignment]
        # Each act is a process of its own, which remembers no model.
        line.mlflow._load_cached.cache_clear()
        cut, crossing = CutOff(self.world.store, None, -1), Crossing(self.world.store, "", lambda: None)
        world = self.world
        if isinstance(trouble, Killed):
            cut.nth = int(trouble.through * act.calls)
            world = replace(world, store=cut)  # type: ignore[arg-type]
        elif isinstance(trouble, Crossed):
            crossing.method = act.moments[trouble.moment % len(act.moments)]
            crossing.other = lambda: self._meanwhile(trouble.other)
            world = replace(world, store=crossing)  # type: ignore[arg-type]
        elif isinstance(trouble, Cut):
            line.calls = trouble.calls
        raised: BaseException | None = None
        try:
            act.do(world, self.scene.today)
        except (CancellationsError, Broken, PowerCut) as error:
            raised = error
        failed, line.calls = line.calls is not None and line.calls < 0, None
        crossed = isinstance(trouble, Crossed) and crossing.done
        return raised, crossed or failed or isinstance(raised, PowerCut)

    def _meanwhile(self, other: Act) -> None:
        with contextlib.suppress(CancellationsError):
            other.do(self.world, self.scene.today)

    def _awaiting(self) -> str:
        """The trial that awaits an answer."""
        running = self.life.running
        return running.trial_id if running is not None and running.state is TrialState.AWAITING else ""

    def _in_sight(self) -> list[str]:
        """Versions that a person may want now: on trial, in shadow, deleted, or left by a worker that died."""
        waiting = self.life.in_state(RequestState.WAITING)
        left = [self.scene.of_request[name] for name in waiting if name in self.scene.of_request]
        rival = [self.life.running.rival] if self.life.running is not None else []
        return [*rival, *left, *sorted(self.scene.gone)]

    def _pass(self, days: int, outcomes: str) -> None:
        """Bookings come in and mature; the hotel tells of their ends in time, late, or never of every other."""
        days = min(days, (day(LAST) - self.scene.today).days)
        today, until = pd.Timestamp(self.scene.today), pd.Timestamp(self.scene.today + timedelta(days=days))
        fresh = self.stage.rows[self.stage.rows["known_on"].between(today, until, inclusive="right")]
        if outcomes == "told":
            self.scene.late = set()
        elif outcomes == "late":
            self.scene.late |= set(fresh["reservation_id"])
        else:
            self.scene.lost |= set(fresh["reservation_id"].iloc[::2])
        self.scene.today += timedelta(days=days)
        self.world.clock.advance(days=days)
        self._load()
        self._check()

    def _load(self) -> None:
        rows = self.stage.rows.copy()
        rows.loc[self.scene.untold(), ["status", "known_on"]] = None
        self.world.ingest(until=self.scene.today, source=Table(rows))

    def _scene_as_it_is(self) -> Scene:
        scene = self.scene
        return replace(scene, made=dict(scene.made), trained=dict(scene.trained), of_request=dict(scene.of_request))

    def _ask_mlflow(self) -> None:
        """Versions that were registered since; those without tags cannot take over."""
        scene = self.scene
        qualities = {source: quality for quality, (source, _) in self.stage.artifacts.items()}
        found = read(self.mlflow_path, "SELECT version, source FROM model_versions ORDER BY version")
        tags: dict[str, dict[str, str]] = {}
        for row in read(self.mlflow_path, "SELECT version, key, value FROM model_version_tags"):
            tags.setdefault(str(row["version"]), {})[row["key"]] = row["value"]
        for row in found:
            version = str(row["version"])
            quality = qualities.get(row["source"])
            if "request_id" in tags.get(version, {}) and version not in scene.made and quality is not None:
                scene.made[version] = quality
                scene.trained[version] = date.fromisoformat(tags[version]["as_of"])
                scene.of_request[tags[version]["request_id"]] = version
        scene.following = str(max(row["version"] for row in found) + 1)
        requested = Counter(t["request_id"] for t in tags.values() if "request_id" in t)
        assert max(requested.values()) == 1, f"a request has two versions: {requested}"

    def _everything(self) -> list[list[tuple[Any, ...]]]:
        """All that an act may leave, but scores, versions taken into the ledger, and loads."""
        tables = (
            *("standing", "ledger", "trials", "requests", "switches", "messages", "arms", "servings", "decisions"),
            *("guards", "holds"),
        )
        return [[tuple(row) for row in read(self.store_path, f"SELECT * FROM {name}")] for name in tables]

    # --- checking ---

    def _check(self) -> None:
        """What holds at any time."""
        assert told(self.world) == self.life
        self._check_ledger()
        self._check_trials()
        self._check_scores()
        self._check_holds()
        self._check_guards()
        self._check_outbox()
        self._check_aliases()

    def _check_ledger(self) -> None:
        ledger, standing = self.world.ledger(), self.world.standing()
        assert [row.epoch for row in ledger] == list(range(1, len(ledger) + 1))
        assert (ledger[-1].champion, ledger[-1].challenger, ledger[-1].epoch) == (
            standing.champion,
            standing.challenger,
            standing.epoch,
        )
        champions = (Change.FIRST, Change.PROMOTED, Change.ROLLED_BACK)
        for earlier, later in itertools.pairwise(ledger):
            assert (earlier.champion != later.champion) == (later.change in champions)
        assert all(row.by and row.reason for row in ledger)
        assert predecessor(ledger) == (self.life.pile[-2] if len(self.life.pile) > 1 else None)
        last = max((row.epoch for row in ledger if row.change is Change.ROLLED_BACK), default=0)
        if last > self.acknowledged_at:
            assert self.life.held
            by_itself = [row for row in ledger if row.epoch > last and row.by == "the trial"]
            assert Change.PROMOTED not in {row.change for row in by_itself}

    def _check_trials(self) -> None:
        standing = self.world.standing()
        trials = {trial.trial_id: trial for trial in self.world.trials()}
        assert sum(not trial.state.final for trial in trials.values()) <= 1
        for trial in trials.values():
            if not trial.state.final:
                assert (trial.champion, trial.epoch) == (standing.champion, standing.epoch)
                assert standing.challenger == (trial.rival if trial.kind is Kind.TRIAL else None)
            assert trial.champion != trial.rival
            assert trial.reasons or not trial.state.final
            was = self.trials.get(trial.trial_id)
            if was is None:
                continue
            assert not was.state.final or was == trial, f"{was} had ended"
            assert was.state is trial.state or trial.state in _reachable(trial.kind, was.state)
            opened = (
                "kind",
                "champion",
                "rival",
                "epoch",
                "opened_on",
                "cohort_after",
                "last_day",
                "mode",
                "serve_share",
            )
            assert all(getattr(was, name) == getattr(trial, name) for name in opened)
        assert set(self.trials) <= set(trials)
        self.trials = trials

    def _check_scores(self) -> None:
        """Scores and arms stay as they were written, and are those of the version, and of the salt."""
        rows = read(self.store_path, "SELECT reservation_id, model_version, probability FROM predictions")
        found = {(row[0], row[1]): row[2] for row in rows}
        assert len(found) == len(rows)
        assert self.predictions.items() <= found.items()
        for reservation_id, version in found.keys() - self.predictions.keys():
            right = self.stage.scores[self.scene.made[version]][self.place[reservation_id]]
            assert found[reservation_id, version] == pytest.approx(right, abs=1e-9)
        self.predictions = found
        dealt = read(self.store_path, "SELECT trial_id, reservation_id, arm FROM arms")
        arms = {(row[0], row[1]): row[2] for row in dealt}
        assert self.arms.items() <= arms.items()
        for trial_id, reservation_id in arms.keys() - self.arms.keys():
            share = self.trials[trial_id].serve_share
            assert arms[trial_id, reservation_id] == arm(trial_id, reservation_id, share).value
        self.arms = arms

    def _check_holds(self) -> None:
        """Nothing made on a day that is held has a score; a day that was let go stays so."""
        held = self.life.held_days()
        assert len(held) == sum(state is HoldState.HELD for *_, state in self.life.holds)
        ids = set(self.stage.rows.loc[self.scene.made_on(held), "reservation_id"])
        scored = {reservation_id for reservation_id, _ in self.predictions}
        assert not ids & scored, f"{held} are held, and scored all the same"
        judged = {day: state for day, _, state in self.life.holds if state is not HoldState.HELD}
        assert self.judged.items() <= judged.items()
        self.judged = judged

    def _check_guards(self) -> None:
        """What guards found stands for ever, and one rollback at most comes of it."""
        by_guard = [row for row in self.world.ledger() if row.by == BY_GUARD]
        assert len({row.trial_id for row in by_guard}) == len(by_guard)
        fired = {trial_id for trial_id, fires in self.life.guarded if fires}
        for row in by_guard:
            assert row.change is Change.ROLLED_BACK and row.trial_id in fired
            assert self.trials[str(row.trial_id)].state is TrialState.ROLLED_BACK
        assert self.guarded.items() <= dict(self.life.guarded).items()
        self.guarded = dict(self.life.guarded)

    def _check_outbox(self) -> None:
        """A message for each fact and channel, and a fact for each message."""
        written: dict[str, list[dict[str, Any]]] = {}
        for row in read(self.store_path, "SELECT topic, channel, payload FROM messages ORDER BY number"):
            written.setdefault(f"{row['topic']} {row['channel']}", []).append(json.loads(row["payload"]))

        def told_of(fact: type[Fact], key: str) -> list[Any]:
            told = [[message[key] for message in written.get(f"{fact.topic} {c.value}", [])] for c in fact.channels]
            assert all(by == told[0] for by in told)
            return told[0]

        ledger = self.world.ledger()
        changes = [row for row in ledger if row.change in (Change.PROMOTED, Change.ROLLED_BACK)]
        for name in ("version", "epoch", "change", "reason", "by", "trial_id"):
            told = [getattr(row, "champion" if name == "version" else name) for row in changes]
            assert told_of(ChampionChanged, name) == told
        challenges = [row.request_id for row in ledger if row.change is Change.CHALLENGED]
        assert told_of(ChallengerRegistered, "request_id") == challenges
        for fact, state in ((RetrainRejected, RequestState.REJECTED), (RetrainFailed, RequestState.FAILED)):
            assert sorted(told_of(fact, "request_id")) == sorted(self.life.in_state(state))
        overdue = told_of(RetrainOverdue, "request_id")
        assert len(overdue) == len(set(overdue)) and set(overdue) <= {name for name, _ in self.life.wishes}
        automatic = [name for name, wish in self.life.wishes if wish.automatic]
        assert told_of(DriftDetected, "request_id") == automatic
        ended = [t for t in self.trials.values() if t.state.final and not _told_by_its_champion(t)]
        for name in ("trial_id", "kind", "state", "champion"):
            assert told_of(TrialEnded, name) == [getattr(trial, name) for trial in ended]
        assert told_of(DataBroken, "day") == [str(day) for day, *_ in self.life.holds]
        asked = [t.trial_id for t in self.trials.values() if t.asked_until is not None]
        assert told_of(ApprovalNeeded, "trial_id") == asked

    def _check_aliases(self) -> None:
        aliases = self._aliases()
        if not self._agree() and aliases != self.aliases:
            said = self.world.status(as_of=self.scene.today).disagreements
            assert said, "status does not say that the aliases are not the ledger's"
        self.aliases = aliases

    def _aliases(self) -> dict[str, str]:
        rows = read(self.mlflow_path, "SELECT alias, version FROM registered_model_aliases")
        return {row["alias"]: str(row["version"]) for row in rows}

    def _agree(self) -> bool:
        wanted = {"champion": self.life.champion, "challenger": self.life.challenger}
        return self._aliases() == {alias: version for alias, version in wanted.items() if version}

    def _check_done(self, act: Act, before: Life) -> None:
        """What holds after an act that nothing came between."""
        if isinstance(act, Reconcile) or before.epoch != self.life.epoch:
            assert self._agree()
            assert self.world.status(as_of=self.scene.today).disagreements == ()
        looked = isinstance(act, Look) and before.running is not None and before.running.state is TrialState.RUNNING
        if looked or isinstance(act, Score) or (before.epoch != self.life.epoch and not isinstance(act, Retrain)):
            self._check_served(before.champion != self.life.champion)

    def _check_served(self, changed: bool) -> None:
        """Each open booking is served the champion's score, or its arm's, as soon as there is one: also the bookings
        that had theirs before a day was held back."""
        rows, today, running = self.stage.rows, pd.Timestamp(self.scene.today), self.life.running
        ended = ~self.scene.untold() & (rows["known_on"] <= today)
        held = set(rows.loc[self.scene.made_on(self.life.held_days()), "reservation_id"])
        open_ = rows[(rows["booked_on"] <= today) & (rows["arrival_on"] >= today) & ~ended]["reservation_id"]
        wanted = {}
        for reservation_id in open_:
            version = self.life.champion
            if running is not None and running.kind is Kind.TRIAL:
                rival = self.arms.get((running.trial_id, reservation_id)) == Arm.RIVAL.value
                version = running.rival if rival and (reservation_id, running.rival) in self.predictions else version
            # A new champion has scored all of them before it took over, but those that nobody may.
            if (changed and reservation_id not in held) or (reservation_id, version) in self.predictions:
                wanted[reservation_id] = (version, self.predictions.get((reservation_id, version)))
        served = self.world.served(self.scene.today)
        found = {str(i): (r["model_version"], r["probability"]) for i, r in served.iterrows()}
        assert set(found) <= set(open_)
        assert {i: found.get(i) for i in wanted} == wanted

    def _count(self, act: Act, trouble: Trouble | None, raised: BaseException | None, before: Life) -> None:
        came = type(raised).__name__ if raised else "changed" if self.life != before else "stood"
        self.stage.reached[f"{type(act).__name__} {type(trouble).__name__ if trouble else 'alone'}: {came}"] += 1
        for trial_id, state in self.life.ended[len(before.ended) :]:
            self.stage.reached[f"{trial_id.split('-')[0]} {state.value}"] += 1
        if isinstance(act, Acknowledge) or (isinstance(trouble, Crossed) and isinstance(trouble.other, Acknowledge)):
            self.acknowledged_at = self.life.epoch


def _reachable(kind: Kind, state: TrialState) -> frozenset[TrialState]:
    """States that a trial may have come to since: a second step when somebody acted in between."""
    following = TRANSITIONS[kind].get(state, frozenset())
    return following.union(*(TRANSITIONS[kind].get(step, frozenset()) for step in following))


def _told_by_its_champion(trial: Trial) -> bool:
    """Its end was a change of champion, or came with one; the mail is that of the change."""
    changed = trial.state in (TrialState.PROMOTED, TrialState.ROLLED_BACK)
    return changed or (trial.state is TrialState.WITHDRAWN and "became champion" in trial.reasons[-1])


def test_the_ledger_stays_one_story_whatever_happens_in_any_order(stage: Stage) -> None:
    run_state_machine_as_test(
        lambda: Stories(stage),  # type: ignore[arg-type]
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
