"""What should become of the standing, told by plain rules beside the code: act by act, without a database.

`Life` is how everything stands, `Scene` what is known around it, and each act says before it is done
what it will change (`foresee`) and where it may stop when it is cut off half way (`stops`). Bookings
show their end in the price, and versions read it well, badly or not at all, so that a paired test of
two of them goes the way that their qualities say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cache, cached_property
from typing import Any, ClassVar, Protocol

import contest
import numpy as np
import pandas as pd
from contest import TRAINED
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from world import POLICY, GivenMonitor, World

from cancellations.domain.checks import Check, CheckPolicy, Hold, HoldState
from cancellations.domain.checks import Finding as Failed
from cancellations.domain.comparison import Finding, daily_gains, read
from cancellations.domain.events import identity
from cancellations.domain.features import FEATURES
from cancellations.domain.gate import GatePolicy
from cancellations.domain.guards import Guard, GuardFinding, GuardPolicy, Outcome
from cancellations.domain.labels import Examples
from cancellations.domain.promotion import Change, Kind, Mode, Standing, TrialPolicy, TrialState
from cancellations.domain.recipes import Recipe
from cancellations.domain.retraining import RequestState, RetrainPolicy
from cancellations.errors import BadInput, EpochMismatch, Refused
from cancellations.model import GradientBoosting, Model
from cancellations.ports import Candidate, Classifier, Observation, VersionRecord
from cancellations.usecases import hold as hold_
from cancellations.usecases.guard import guard
from cancellations.usecases.promote import take_over
from cancellations.usecases.trial import FEED_GRACE, answer

# --- bookings and versions ------------------------------------------------------------------------

# How a version scores bookings that will stay and that will be cancelled; "noise" looks at the guests
# instead, which say nothing of the end.
QUALITIES: Mapping[str, tuple[float, float]] = {
    "blind": (0.5, 0.5),
    "good": (0.2, 0.8),
    "bad": (0.65, 0.35),
    "noise": (0.45, 0.55),
}
HOPELESS = "hopeless"  # no gate lets it pass
CHEAP, DEAR = 80.0, 120.0
# The backtest looks at a fortnight. Whatever outcomes are missing there, each quality passes but the hopeless.
GATE = GatePolicy(max_bias=1.0, backtest_days=14, min_rows=4, min_skill=-1_000.0, tolerance=1.5)
TRAINING = replace(POLICY, gate=GATE, max_attempts=2)
# Each drifted window asks, unless a rule forbids it.
EAGER = RetrainPolicy(
    confirm_k=1, confirm_n=1, min_new_labels=0, cooldown_days=1, budget=1_000, calendar_floor_days=10_000
)


def bookings() -> pd.DataFrame:
    """One or two a day, made up to a month before arrival, until day 200."""
    once = contest.bookings()
    later = once[once["n"] > 0].assign(
        reservation_id=lambda rows: "later-" + rows["reservation_id"],
        arrival_on=lambda rows: rows["arrival_on"] + pd.Timedelta(days=contest.DAYS),
        known_on=lambda rows: rows["known_on"] + pd.Timedelta(days=contest.DAYS),
    )
    rows = pd.concat([once, later], ignore_index=True).iloc[::5].reset_index(drop=True)
    lead = pd.to_timedelta(3 + 7 * np.arange(len(rows)) % 28, unit="D")
    return rows.assign(
        booked_on=rows["arrival_on"] - lead,
        price=np.where(rows["status"] == "canceled", DEAR, CHEAP),
        adults=np.random.default_rng(3).integers(1, 3, len(rows)).astype(float),
    )


@cache
def model(quality: str) -> Model:
    """A fitted pipeline that scores as its quality says."""
    low, high = QUALITIES.get(quality, (0.9999, 0.0001))
    rows = pd.DataFrame({"price": [CHEAP, CHEAP, DEAR, DEAR], "adults": [1.0, 2.0, 1.0, 2.0]})
    by = rows["adults"] > 1 if quality == "noise" else rows["price"] > CHEAP
    score = np.where(by, high, low)
    label, weight = np.repeat([0.0, 1.0], len(rows)), np.concatenate([1 - score, score])
    columns = ColumnTransformer([("seen", "passthrough", ["price", "adults"])])
    pipeline = Pipeline([("columns", columns), ("estimator", LogisticRegression(C=1e9, max_iter=1_000))])
    return Model(pipeline.fit(pd.concat([rows, rows]), label, estimator__sample_weight=weight))


def candidate(quality: str) -> Candidate:
    made = contest.candidate(f"made-{quality}")
    reference = made.reference.assign(price=made.reference["price"].round(), adults=1.0)
    return replace(made, model=model(quality), reference=reference)


# Days are too few here for real checks to learn from: somebody else's word holds a day, and time lets it go.
CHECKS = CheckPolicy(min_days=10_000, hold_days=3)
GUARDS = GuardPolicy()


class Broken(Exception):
    """The training broke."""


@dataclass
class GivenTrainer(GradientBoosting):
    """Gives the model of a quality without looking at anything; without one it breaks."""

    quality: str | None

    def parameters(self, recipe: Recipe) -> Mapping[str, Any]:
        return {"quality": self.quality}

    def fit(self, features: pd.DataFrame, examples: Sequence[Examples], recipe: Recipe, seed: int) -> Model:
        if self.quality is None:
            raise Broken
        return model(self.quality)

    def importance(self, model: Classifier, features: pd.DataFrame, label: np.ndarray, seed: int) -> dict[str, float]:
        return dict.fromkeys(FEATURES, 1 / len(FEATURES))


class Alarms(GivenMonitor):
    """Sees drift in each window, and draws no page of it."""

    def measure(self, observation: Observation) -> Any:
        self.alarms = [observation.end]
        return replace(super().measure(observation), page=None)


# --- how everything stands ------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """The trial or probation that has not ended."""

    kind: Kind
    champion: str
    rival: str
    epoch: int
    cohort_after: date
    last_day: date
    state: TrialState = TrialState.RUNNING
    asked_until: datetime | None = None

    @property
    def trial_id(self) -> str:
        return f"{self.kind.value}-{self.rival if self.kind is Kind.TRIAL else self.champion}-{self.epoch}"


@dataclass(frozen=True)
class Wish:
    """A retrain request."""

    as_of: date
    automatic: bool
    state: RequestState = RequestState.WAITING
    attempts: int = 0
    version: str | None = None


@dataclass(frozen=True)
class Life:
    """Everything that the ledger, the trials, the requests and the switches say.

    `pile`: champions to go back to, the present one on top; `crowned`: all there ever were;
    `looked`: the windows that the monitor has decided on; `guarded`: probations whose first bookings guards have
    looked at, and whether one fired; `holds`: days that are or were held back, with the days on which they were.
    """

    champion: str
    challenger: str | None
    epoch: int
    running: Running | None = None
    held: bool = False
    paused: bool = False
    ended: tuple[tuple[str, TrialState], ...] = ()
    wishes: tuple[tuple[str, Wish], ...] = ()
    looked: frozenset[tuple[str, date]] = frozenset()
    guarded: tuple[tuple[str, bool], ...] = ()
    holds: tuple[tuple[date, date, HoldState], ...] = ()
    pile: tuple[str, ...] = field(default=(), compare=False)
    crowned: frozenset[str] = field(default=frozenset(), compare=False)
    rolled_back_on: date | None = field(default=None, compare=False)

    def wish(self, request_id: str) -> Wish | None:
        return dict(self.wishes).get(request_id)

    def wishing(self, request_id: str, wish: Wish) -> Life:
        return replace(self, wishes=tuple((dict(self.wishes) | {request_id: wish}).items()))

    def in_state(self, *states: RequestState) -> list[str]:
        return [name for name, wish in self.wishes if wish.state in states]

    def held_days(self) -> set[date]:
        return {day for day, _, state in self.holds if state is HoldState.HELD}

    def letting_go(self, day: date, state: HoldState) -> Life:
        """A day is not held any more."""
        holds = tuple((d, on, state if d == day else was) for d, on, was in self.holds)
        return replace(self, holds=holds)

    def end(self, state: TrialState) -> Life:
        """The running one ends and the champion stays; a challenger leaves."""
        assert self.running is not None
        ended = replace(self, running=None, ended=(*self.ended, (self.running.trial_id, state)))
        if self.running.kind is Kind.PROBATION:
            return ended
        return replace(ended, challenger=None, epoch=self.epoch + 1)


def told(world: World) -> Life:
    """How the store says that everything stands."""
    with world.store.begin() as work:
        standing, open_, trials = work.standing(), work.open_trial(), work.trials()
        requests, decisions = work.requests(), work.decisions()
        held, paused, holds = work.promotions_held(), work.paused(), work.holds()
        found = [(t.trial_id, work.guards(t.trial_id)) for t in trials]
    running = None
    if open_ is not None:
        running = Running(
            open_.kind,
            open_.champion,
            open_.rival,
            open_.epoch,
            open_.cohort_after,
            open_.last_day,
            open_.state,
            open_.asked_until,
        )
        assert running.trial_id == open_.trial_id
    return Life(
        champion=str(standing.champion),
        challenger=standing.challenger,
        epoch=standing.epoch,
        running=running,
        held=held is not None,
        paused=paused is not None,
        # In the order in which they began, which is that of their ends: one at most is open.
        ended=tuple((t.trial_id, t.state) for t in trials if t.state.final),
        wishes=tuple(
            (r.request_id, Wish(r.as_of, r.report_id is not None, r.state, r.attempts, r.version)) for r in requests
        ),
        looked=frozenset((d.report.champion, d.report.window.end) for d in decisions),
        guarded=tuple(
            (name, any(one.outcome is Outcome.FIRED for one in findings))
            for name, findings in found
            if findings is not None
        ),
        holds=tuple((hold.day, hold.held_on, hold.state) for hold in holds),
    )


@dataclass
class Scene:
    """What surrounds the ledger: the day, the rules, MLflow's versions, and the outcomes that were told."""

    policy: TrialPolicy
    rows: pd.DataFrame
    scores: Mapping[str, np.ndarray]  # by quality, of all rows
    now: Callable[[], datetime]
    today: date = TRAINED
    made: dict[str, str] = field(default_factory=dict)  # quality of each version that can take over
    trained: dict[str, date] = field(default_factory=dict)
    of_request: dict[str, str] = field(default_factory=dict)
    following: str = ""  # the number that MLflow gives the next version
    gone: set[str] = field(default_factory=set)  # versions whose artifact was deleted
    lost: set[str] = field(default_factory=set)  # bookings whose outcome nobody tells
    late: set[str] = field(default_factory=set)  # bookings whose outcome is told later

    @cached_property
    def matured_on(self) -> pd.Series:
        return self.rows["arrival_on"] + pd.Timedelta(days=1)

    def untold(self) -> pd.Series:
        return self.rows["reservation_id"].isin(self.lost | self.late)

    def fed(self) -> pd.Timestamp:
        """The last day, until today, of which outcomes were told."""
        known_on = self.rows["known_on"][~self.untold()]
        return known_on[known_on <= pd.Timestamp(self.today)].max()

    def over(self, running: Running) -> bool:
        """Whether its last day is over: its outcomes are in, or have been waited for long enough."""
        last = pd.Timestamp(running.last_day)
        return self.fed() >= last or pd.Timestamp(self.today) - last >= FEED_GRACE

    def made_on(self, days: set[date]) -> pd.Series:
        """Which bookings were made on these days."""
        return self.rows["booked_on"].isin([pd.Timestamp(day) for day in days])

    def finding(self, running: Running, held: set[date]) -> Finding:
        """What the paired test says of the pair by today, from the qualities and the outcomes told; bookings of days
        that are held have no score."""
        last = min(pd.Timestamp(running.last_day), self.fed())
        cohort = (self.matured_on > pd.Timestamp(running.cohort_after)) & (self.matured_on <= last)
        cohort &= ~self.made_on(held)
        seen = ~self.untold() & (self.rows["known_on"] <= last) & self.rows["status"].eq("canceled")
        days = daily_gains(
            self.matured_on[cohort],
            seen[cohort].to_numpy(dtype=float),
            self.scores[self.made[running.champion]][cohort.to_numpy()],
            self.scores[self.made[running.rival]][cohort.to_numpy()],
        )
        return read(days, self.policy.sequence).finding

    def tested(self, as_of: date, champion: str) -> int:
        """Bookings that a backtest as of a day may look at."""
        start = max(as_of - timedelta(days=GATE.backtest_days), self.trained[champion])
        return int(self.matured_on.between(pd.Timestamp(start), pd.Timestamp(as_of), inclusive="right").sum())


# --- acts -----------------------------------------------------------------------------------------

# How everything stands afterwards, and what is raised.
Foreseen = tuple[Life, type[Exception] | None]


class Act(Protocol):
    """Something that somebody does, by one use case.

    It makes some number of `calls` of the store, and somebody else may act before those of `moments`.
    """

    calls: ClassVar[int]
    moments: ClassVar[tuple[str, ...]]

    def foresee(self, life: Life, scene: Scene) -> Foreseen: ...

    def do(self, world: World, today: date) -> object: ...


def stops(act: Act, life: Life, scene: Scene) -> list[Life]:
    """Where an act may have come to when it is cut off: not begun, done, or half way where that is allowed."""
    half_way = act.stops(life, scene) if isinstance(act, Retrain | Score | GuardsLook) else []
    return [life, act.foresee(life, scene)[0], *half_way]


def crossings(first: Act, other: Act, life: Life, scene: Scene, *, refused: bool) -> list[Life]:
    """Where two may have come to when `other` acts in the midst of `first`: as if one had been after the
    other, or, when the first was `refused`, as if it had stopped."""
    then = stops(first, life, scene) if refused else [first.foresee(life, scene)[0]]
    if isinstance(first, Monitor):
        # It may look at the champion that was, and find that what the other has begun must end first.
        then.append(first.held(life, scene))
    if isinstance(first, GuardsLook):
        # What they found stands, and whoever changed the champion meanwhile is not undone.
        then += first.stops(life, scene)
    between = other.foresee(life, scene)[0]
    ends = [other.foresee(stop, scene)[0] for stop in then]
    return [*ends, first.foresee(between, scene)[0], *(stops(first, between, scene) if refused else [])]


def _takes_over(life: Life, scene: Scene, version: str, change: Change, ended: TrialState) -> Life:
    """`version` becomes champion; what was running ends as `ended`."""
    if life.running is not None:
        life = replace(life, ended=(*life.ended, (life.running.trial_id, ended)))
    previous, epoch, today = life.champion, life.epoch + 1, scene.today
    running = None
    if change is Change.PROMOTED:
        pile = tuple(v for v in life.pile if v != version)
        after = max(today, scene.trained[version], scene.trained[previous])
        last_day = today + timedelta(days=scene.policy.probation_days)
        running = Running(Kind.PROBATION, version, previous, epoch, after, last_day)
    else:
        pile = life.pile[: life.pile.index(version)] if version in life.pile else life.pile[:-1]
        life = replace(life, held=True, rolled_back_on=today)
    return replace(
        life,
        champion=version,
        challenger=None,
        epoch=epoch,
        running=running,
        pile=(*pile, version),
        crowned=life.crowned | {version},
    )


@dataclass(frozen=True)
class Look:
    calls: ClassVar[int] = 45
    moments: ClassVar[tuple[str, ...]] = ("standing", "unscored", "promotions_held", "update_trial", "change_standing")

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        running, policy = life.running, scene.policy
        if running is None:
            return life, None
        if running.state is TrialState.AWAITING:
            assert running.asked_until is not None
            return (life.end(TrialState.DECLINED) if scene.now() >= running.asked_until else life), None
        if running.champion in scene.gone:
            return life, BadInput
        if running.rival in scene.gone:
            return life.end(TrialState.WITHDRAWN), None
        if dict(life.guarded).get(running.trial_id):
            return _takes_over(life, scene, running.rival, Change.ROLLED_BACK, TrialState.ROLLED_BACK), None
        finding = scene.finding(running, life.held_days())
        trial = running.kind is Kind.TRIAL
        if finding is Finding.CHAMPION:
            return life.end(TrialState.REJECTED if trial else TrialState.CONFIRMED), None
        if finding is Finding.OPEN:
            return (life.end(TrialState.EXPIRED) if scene.over(running) else life), None
        if not trial:
            return _takes_over(life, scene, running.rival, Change.ROLLED_BACK, TrialState.ROLLED_BACK), None
        if policy.mode is Mode.SHADOW:
            return life.end(TrialState.WITHHELD), None
        if policy.mode is Mode.APPROVE or life.held:
            until = scene.now() + timedelta(hours=policy.approval_hours)
            return replace(life, running=replace(running, state=TrialState.AWAITING, asked_until=until)), None
        return _takes_over(life, scene, running.rival, Change.PROMOTED, TrialState.PROMOTED), None

    def do(self, world: World, today: date) -> object:
        return world.look(today, run="a-run", guards=GUARDS)


@dataclass(frozen=True)
class GuardsLook:
    """Guards look at a new champion's first bookings; what they find is given, since there are too few to see it."""

    calls: ClassVar[int] = 30
    moments: ClassVar[tuple[str, ...]] = ("add_guards", "version", "unscored", "change_standing")
    fires: bool

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        found = self._found(life)
        running = found.running
        if running is None or running.kind is not Kind.PROBATION or not dict(found.guarded)[running.trial_id]:
            return found, None
        if running.rival in scene.gone:
            return found, None
        return _takes_over(found, scene, running.rival, Change.ROLLED_BACK, TrialState.ROLLED_BACK), None

    def _found(self, life: Life) -> Life:
        """They look once at each new champion."""
        running = life.running
        if running is None or running.kind is not Kind.PROBATION or running.trial_id in dict(life.guarded):
            return life
        return replace(life, guarded=(*life.guarded, (running.trial_id, self.fires)))

    def stops(self, life: Life, scene: Scene) -> list[Life]:
        return [self._found(life)]

    def do(self, world: World, today: date) -> object:
        outcome = Outcome.FIRED if self.fires else Outcome.PASSED
        findings = [GuardFinding(one, outcome, 0.5, GUARDS.rows, GUARDS.samples, 0.9, 0.8, 1.0) for one in Guard]
        with world.store.begin() as work:
            trial = work.open_trial()
            if trial is not None and trial.kind is Kind.PROBATION and work.guards(trial.trial_id) is None:
                work.add_guards(trial.trial_id, findings, today, world.clock())
                work.commit()
        return guard(world.house(guards=GUARDS), until=today)


@dataclass(frozen=True)
class Answer:
    calls: ClassVar[int] = 25
    moments: ClassVar[tuple[str, ...]] = ("standing", "version", "change_standing")
    trial_id: str
    approve: bool

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        running = life.running
        if running is None or running.trial_id != self.trial_id:
            return life, Refused if self.trial_id in dict(life.ended) else BadInput
        if running.state is not TrialState.AWAITING:
            return life, Refused
        if not self.approve:
            return life.end(TrialState.DECLINED), None
        if running.rival in scene.gone:
            return life, Refused
        return _takes_over(life, scene, running.rival, Change.PROMOTED, TrialState.PROMOTED), None

    def do(self, world: World, today: date) -> object:
        house, said = world.house(), "seen the plot"
        return answer(house, self.trial_id, approve=self.approve, reason=said, by="ada", as_of=today)


@dataclass(frozen=True)
class Withdraw:
    calls: ClassVar[int] = 9
    moments: ClassVar[tuple[str, ...]] = ("open_trial", "update_trial", "change_standing")

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        return (life, Refused) if life.running is None else (life.end(TrialState.WITHDRAWN), None)

    def do(self, world: World, today: date) -> object:
        return world.withdraw(today)


@dataclass(frozen=True)
class Promote:
    calls: ClassVar[int] = 25
    moments: ClassVar[tuple[str, ...]] = ("open_trial", "unscored", "change_standing")
    version: str

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        if self.version == life.champion:
            return life, Refused
        if self.version not in scene.made:
            return life, BadInput
        if self.version in scene.gone:
            return life, Refused
        running = life.running
        tried = running is not None and running.kind is Kind.TRIAL and running.rival == self.version
        ended = TrialState.PROMOTED if tried else TrialState.WITHDRAWN
        return _takes_over(life, scene, self.version, Change.PROMOTED, ended), None

    def do(self, world: World, today: date) -> object:
        return world.promote(self.version, today)


@dataclass(frozen=True)
class RollBack:
    calls: ClassVar[int] = 25
    moments: ClassVar[tuple[str, ...]] = ("open_trial", "unscored", "change_standing")
    to: str | None

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        target = self.to or (life.pile[-2] if len(life.pile) > 1 else None)
        if target is None or target == life.champion or target not in life.crowned or target in scene.gone:
            return life, Refused
        running = life.running
        watched = running is not None and running.kind is Kind.PROBATION and running.rival == target
        ended = TrialState.ROLLED_BACK if watched else TrialState.WITHDRAWN
        return _takes_over(life, scene, target, Change.ROLLED_BACK, ended), None

    def do(self, world: World, today: date) -> object:
        return world.roll_back(today, to=self.to)


@dataclass(frozen=True)
class TakeOver:
    """Somebody who read the standing long ago, and acts on it now."""

    calls: ClassVar[int] = 20
    moments: ClassVar[tuple[str, ...]] = ("change_standing",)
    seen: Standing
    record: VersionRecord

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        assert self.seen.epoch < life.epoch
        return life, Refused if self.record.version in scene.gone else EpochMismatch

    def do(self, world: World, today: date) -> object:
        why = {"change": Change.PROMOTED, "reason": "asked for", "by": "ada"}
        return take_over(world.house(), self.seen, self.record, as_of=today, **why)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Score:
    calls: ClassVar[int] = 30
    moments: ClassVar[tuple[str, ...]] = ("end_hold", "unscored", "serve")

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        playing = {life.champion} | ({life.running.rival} if life.running else set())
        return [life, *self.stops(life, scene)][-1], BadInput if playing & scene.gone else None

    def stops(self, life: Life, scene: Scene) -> list[Life]:
        """Days that were held for long are let go first, one after the other."""
        lives = []
        for day, on, state in life.holds:
            if state is HoldState.HELD and (scene.today - on).days >= CHECKS.hold_days:
                life = life.letting_go(day, HoldState.EXPIRED)
                lives.append(life)
        return lives

    def do(self, world: World, today: date) -> object:
        return world.score(today, checks=CHECKS)


@dataclass(frozen=True)
class HoldBack:
    """The bookings of a day fail their checks."""

    calls: ClassVar[int] = 7
    moments: ClassVar[tuple[str, ...]] = ("add_hold",)
    day: date

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        if self.day in life.held_days():
            return life, None
        return replace(life, holds=(*life.holds, (self.day, scene.today, HoldState.HELD))), None

    def do(self, world: World, today: date) -> object:
        # Of each day something else, so that owners are told of each.
        failed = Failed(f"column {self.day}", Check.MISSING, 9, 9, 0.0, 0.0)
        return hold_._begin(world.store, Hold(self.day, today, 9, (failed,), "content"), world.clock())


@dataclass(frozen=True)
class Release:
    """A person lets a day's bookings be scored as they are."""

    calls: ClassVar[int] = 5
    moments: ClassVar[tuple[str, ...]] = ("end_hold",)
    day: date

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        if self.day not in life.held_days():
            return life, Refused
        return life.letting_go(self.day, HoldState.RELEASED), None

    def do(self, world: World, today: date) -> object:
        return hold_.release(world.store, self.day, reason="new prices", by="ada", clock=world.clock)


@dataclass(frozen=True)
class Ask:
    """A person asks for a version as of a day."""

    calls: ClassVar[int] = 5
    moments: ClassVar[tuple[str, ...]] = ("booked_span", "add_request")

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        name = f"{scene.today}-after-v{life.champion}"
        for again in range(1, 100):
            request_id = name if again == 1 else f"{name}-{again}"
            known = life.wish(request_id)
            if known is None:
                return life.wishing(request_id, Wish(scene.today, automatic=False)), None
            if known.state not in (RequestState.REJECTED, RequestState.FAILED):
                break
        return life, None

    def do(self, world: World, today: date) -> object:
        return world.request(today)


@dataclass(frozen=True)
class Monitor:
    """The monitor looks at the days until today, and sees drift."""

    calls: ClassVar[int] = 30
    moments: ClassVar[tuple[str, ...]] = ("report_exists", "hold_requests", "add_decision")

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        window = (life.champion, scene.today)
        if window in life.looked:
            return life, None
        if life.champion in scene.gone:
            return life, BadInput
        decided = self.held(life, scene)
        asked = [wish.as_of for _, wish in life.wishes if wish.automatic]
        pending = life.in_state(RequestState.WAITING, RequestState.RUNNING) or life.running
        if life.paused or pending or scene.today in (*asked, life.rolled_back_on):
            return decided, None
        name = f"{scene.today}-{identity('report', life.champion, scene.today)[:8]}"
        return decided.wishing(name, Wish(scene.today, automatic=True)), None

    def held(self, life: Life, scene: Scene) -> Life:
        return replace(life, looked=life.looked | {(life.champion, scene.today)})

    def do(self, world: World, today: date) -> object:
        return world.monitor(Alarms(), until=today, after=today - timedelta(days=7), policy=EAGER)


@dataclass(frozen=True)
class Retrain:
    """A worker takes a request; `quality` is what its training brings, None: it breaks."""

    calls: ClassVar[int] = 20
    moments: ClassVar[tuple[str, ...]] = ("request", "acquire_lease", "history", "check_lease", "change_standing")
    request_id: str
    quality: str | None
    worker: str = "worker"

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        wish = life.wish(self.request_id)
        if wish is None:
            return life, BadInput
        if wish.state.final:
            return life, None
        if (life.paused and wish.automatic) or life.running or life.in_state(RequestState.RUNNING):
            return life, Refused
        wish = replace(wish, attempts=wish.attempts + 1)
        if scene.tested(wish.as_of, life.champion) < GATE.min_rows:
            return life.wishing(self.request_id, replace(wish, state=RequestState.REJECTED)), None
        if self.quality is None:
            return self._attempted(life, wish), Broken
        if life.champion in scene.gone:
            return self._attempted(life, wish), BadInput
        if self.quality == HOPELESS:
            return life.wishing(self.request_id, replace(wish, state=RequestState.REJECTED)), None
        version = scene.of_request.get(self.request_id, scene.following)
        done = life.wishing(self.request_id, replace(wish, state=RequestState.CANDIDATE, version=version))
        after = max(scene.trained[life.champion], wish.as_of)
        last_day, epoch = wish.as_of + timedelta(days=scene.policy.max_days), life.epoch + 1
        running = Running(Kind.TRIAL, life.champion, version, epoch, after, last_day)
        return replace(done, challenger=version, epoch=epoch, running=running), None

    def stops(self, life: Life, scene: Scene) -> list[Life]:
        """A worker may die with the request in its hands, or give it back after an error."""
        wish = life.wish(self.request_id)
        if wish is None or self.foresee(life, scene)[0] == life:
            return []
        wish = replace(wish, attempts=wish.attempts + 1)
        return [
            life.wishing(self.request_id, replace(wish, state=RequestState.RUNNING)),
            self._attempted(life, wish),
        ]

    def _attempted(self, life: Life, wish: Wish) -> Life:
        last = wish.attempts >= TRAINING.max_attempts
        state = RequestState.FAILED if last else RequestState.WAITING
        return life.wishing(self.request_id, replace(wish, state=state))

    def do(self, world: World, today: date) -> object:
        with world.store.begin() as work:
            request = work.request(self.request_id)
        assert request is not None
        policy = replace(TRAINING, trial=world.trial_policy)
        return world.retrain(request, trainer=GivenTrainer(self.quality), policy=policy, owner=self.worker)


@dataclass(frozen=True)
class Reconcile:
    calls: ClassVar[int] = 20
    moments: ClassVar[tuple[str, ...]] = ("acquire_lease", "open_trial", "standing")

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        for name in life.in_state(RequestState.RUNNING):
            wish = life.wish(name)
            assert wish is not None
            last = wish.attempts >= TRAINING.max_attempts
            life = life.wishing(name, replace(wish, state=RequestState.FAILED if last else RequestState.WAITING))
        return life, None

    def do(self, world: World, today: date) -> object:
        return world.reconcile(max_attempts=TRAINING.max_attempts)


@dataclass(frozen=True)
class Acknowledge:
    calls: ClassVar[int] = 2
    moments: ClassVar[tuple[str, ...]] = ("commit",)

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        return replace(life, held=False), None

    def do(self, world: World, today: date) -> object:
        world.release()
        return None


@dataclass(frozen=True)
class Pause:
    """Automatic retraining is paused, or goes on."""

    calls: ClassVar[int] = 2
    moments: ClassVar[tuple[str, ...]] = ("commit",)
    paused: bool

    def foresee(self, life: Life, scene: Scene) -> Foreseen:
        return replace(life, paused=self.paused), None

    def do(self, world: World, today: date) -> object:
        with world.store.begin() as work:
            if self.paused:
                work.pause("price test", world.clock())
            else:
                work.resume()
            work.commit()
        return None
