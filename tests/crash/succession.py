"""An act from decision to alias: drift, its event and mail, retrain, trial, promotion, probation, rollback.

Until TRAINED guests of one segment cancel what is dear, which is what version 1 has learned. From then on a new
segment cancels what is cheap; version 2, retrained on it, is better. After the promotion that segment turns, too,
so on probation version 1 is better again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import desk
import numpy as np
import pandas as pd
from act import Act, Mortal, Place, confessing
from desk import ATTEMPTS, RULE, SEED, deliver_all, every_second, load, look_twice, reconcile_all, without_time
from post import rung
from promises import Rules, broken, evidence
from versions import QuickTrainer

from cancellations.domain.gate import GatePolicy
from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.promotion import Change, TrialPolicy
from cancellations.domain.retraining import MonitorReport, RetrainPolicy, Signal, Window, judge
from cancellations.metrics import GroupBootstrap
from cancellations.model import Model
from cancellations.ports import Observation
from cancellations.store import open_store
from cancellations.usecases.monitor import Rhythm, monitor
from cancellations.usecases.promote import promote, roll_back
from cancellations.usecases.retrain import retrain
from cancellations.usecases.training import Tools, TrainingPolicy
from cancellations.usecases.trial import score_challenger

TRAINED = date(2016, 6, 1)
# Days after TRAINED: of the look that confirms drift, of the promotion, and of the rollback. Bookings mature on
# all days from EARLIEST to LAST; after TURN guests are as they were.
CONFIRMED, PROMOTED, TURN, BACK = 40, 56, 56, 73
EARLIEST, LAST, A_DAY = -40, 80, 6
TRAINING = TrainingPolicy(
    labels=RULE,
    gate=GatePolicy(backtest_days=20, min_rows=100, resamples=20),
    trial=TrialPolicy(),
    seed=SEED,
    reference_rows=200,
    lease_ttl=timedelta(minutes=15),
    max_attempts=ATTEMPTS,
)
WHEN = RetrainPolicy(min_new_labels=0)
CHAMPION, OTHER, MADE = "1", "2", "3"  # MADE by the retrain

# Methods of `ports.UnitOfWork` by which the steps write; a test holds the list against what they do.
WRITES = frozenset(
    {
        "add_arms",
        "add_decision",
        "add_features",
        "add_messages",
        "add_predictions",
        "add_request",
        "add_trial",
        "add_version",
        "acquire_lease",
        "begin_placement",
        "change_standing",
        "check_lease",
        "finish_placement",
        "hold_promotions",
        "mark_sent",
        "release_lease",
        "serve",
        "update_request",
        "update_trial",
    }
)
# Those by which a transaction waits for its turn, and leaves nothing.
LOCKS = frozenset({"hold_requests"})


def day(n: int) -> date:
    return TRAINED + timedelta(days=n)


def bookings() -> pd.DataFrame:
    """All bookings with their outcomes, in order of maturity; `n` is the day on which one matures."""
    matures = np.repeat(np.arange(EARLIEST, LAST + 1), A_DAY)
    new, cancelled = matures > 0, every_second(matures)
    arrival = pd.Timestamp(TRAINED) + pd.to_timedelta(matures - 1, unit="D")
    return desk.reservations(
        "b",
        booked=arrival - pd.to_timedelta(3 + np.arange(len(matures)) % 7, unit="D"),
        arrival=arrival,
        segment_is_new=new,
        dear=np.where(new & (matures <= TURN), ~cancelled, cancelled),
        noise=15,
        n=matures,
    )


# --- what a step works with -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Alarmed:
    """A measurement in which loss is beyond its threshold, as it is in this story's windows."""

    report: MonitorReport

    def save_html(self, path: Path) -> Path:
        path.write_text("<html>the page</html>")
        return path


class _Watch:
    """Stands in for Evidently, which takes seconds to import: what it says is told elsewhere."""

    def measure(self, observation: Observation) -> _Alarmed:
        signal = Signal("matured excess loss", 0.05, 0.02, judge(0.05, 0.02), 2.0, len(observation.current))
        rows = len(observation.current), len(observation.reference)
        window = Window(observation.start, observation.end)
        return _Alarmed(MonitorReport(observation.champion, window, *rows, signals=(signal,)))


@dataclass
class _Witness(QuickTrainer):
    """Writes down who begins a fit, so that one sees whether two worked at once, or too often."""

    fits: Path

    def fit(self, *given: Any) -> Model:
        with self.fits.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().fit(*given)


@dataclass(frozen=True)
class Hands(desk.Hands):
    """One who trains, too."""

    writes = WRITES | LOCKS

    @cached_property
    def tools(self) -> Tools:
        trainer: Any = Mortal(_Witness(self.place.outside / "fits"), self.fate, ("fit",))
        return Tools(trainer, GroupBootstrap(resamples=20), desk.Undrawn())


# --- the steps ------------------------------------------------------------------------------------


def _monitor(hands: Hands) -> None:
    """Two windows: the first is not enough, the second confirms."""
    monitor(
        hands.store,
        hands.registry,
        _Watch(),
        after=day(CONFIRMED - 14),
        until=day(CONFIRMED),
        rhythm=Rhythm(window_days=14, step_days=7),
        rule=RULE,
        policy=WHEN,
        open_bookings=InFlightPolicy(min_rows=30),
        clock=hands.clock,
    )
    deliver_all(hands)


def _retrain(hands: Hands) -> None:
    """What the automation does for each event, and a run that reconcile has started."""
    for request_id in rung(hands.place.outside):
        ended = retrain(
            request_id,
            store=hands.store,
            registry=hands.registry,
            tools=hands.tools,
            policy=TRAINING,
            owner=hands.owner,
            clock=hands.clock,
        )
        deliver_all(hands)
        score_challenger(hands.house, ended)


def _look(hands: Hands, after: int, until: int) -> None:
    """Days pass, and the schedule looks."""
    load(open_store(hands.place.url), bookings(), day(after), day(until))
    look_twice(hands, day(until))


def _promote_by_itself(hands: Hands) -> None:
    _look(hands, CONFIRMED, PROMOTED)


def _roll_back_by_itself(hands: Hands) -> None:
    _look(hands, PROMOTED, BACK)


def _roll_back(hands: Hands) -> None:
    """A person does, and then another promotes: what they do meets what the look of another process does."""
    roll_back(hands.house, to=None, reason="guests left", by="ada", as_of=day(BACK))


def _promote(hands: Hands) -> None:
    promote(hands.house, OTHER, reason="looked better", by="bo", as_of=day(BACK))


# As the flows are: each tells what it did before it ends.
STEPS: tuple[tuple[str, Callable[[Hands], None]], ...] = (
    ("monitor", _monitor),
    ("retrain", _retrain),
    ("promote", _promote_by_itself),
    ("roll back", _roll_back_by_itself),
    ("reconcile", reconcile_all),
)
# What comes between; it is not of the story.
BETWEEN: tuple[tuple[str, Callable[[Hands], None]], ...] = (
    ("a person rolls back", _roll_back),
    ("a person promotes", _promote),
    ("reconcile on time", reconcile_all),
)
STORY = tuple(name for name, _ in STEPS)
CHANGES = (
    (Change.FIRST, "the gate"),
    (Change.CHALLENGED, "the gate"),
    (Change.PROMOTED, "the trial"),
    (Change.ROLLED_BACK, "the probation"),
)


# --- what is held against an act in which nobody died ---------------------------------------------

WINDOWS = frozenset((CHAMPION, day(CONFIRMED - n)) for n in (0, 7))
RULES = Rules(ATTEMPTS, WHEN.budget, WINDOWS)
ENDED = replace(RULES, ended=True, changes=CHANGES)


def _examine(hands: Hands) -> list[str]:
    place = hands.place
    found = evidence(place, open_store(place.url), place.registry(), day(BACK))
    place.keep(found)
    return broken(found, ENDED if hands.fate.step == STORY[-1] else RULES)


ACT = Act((*STEPS, *BETWEEN), Hands, WRITES, reconcile_all, _examine, without_time, shared=False)


# --- before the first step ------------------------------------------------------------------------


def register(place: Place) -> None:
    """Makes two versions: the champion, and another that somebody may want."""
    desk.register(place, bookings(), (0, 0), TRAINED)


def prepare(place: Place) -> None:
    """A store on which version 1 serves, and has scored what came in until drift is looked for."""
    with confessing(place):
        desk.first_champion(place, bookings(), day(2 * EARLIEST), day(CONFIRMED), TRAINED)
