"""The whole house replayed day by day: the same use cases, store and registry as in production, in one process.

Each day bookings and outcomes come in, are scored and served; a trial or probation is looked at; once a week
the monitor decides, and what it asks for is trained at once. The state is a home like any other, so a replay
that was stopped goes on where it was, and its ledger, reports and versions can be looked at afterwards.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from cancellations import home as homes
from cancellations.bootstrap import App, prepare
from cancellations.domain.comparison import Arm, arm, log_loss
from cancellations.domain.promotion import Change, Kind, LedgerRow, Trial
from cancellations.domain.reservation import NAMES, OUTCOME_NAMES, Column, no_problems
from cancellations.domain.retraining import RequestState, RetrainPolicy
from cancellations.errors import BadInput, Refused
from cancellations.ports import SourceBatch, Undated
from cancellations.replay.policies import Span
from cancellations.replay.world import World
from cancellations.settings import Settings

DAY = timedelta(days=1)
WEEKDAY_OF_LOOKS = 7


@dataclass(frozen=True)
class Feed:
    """What reaches a house on some days: bookings made on them, and outcomes that became known."""

    world: World
    after: date | None
    until: date

    @property
    def name(self) -> str:
        return f"replay, until {self.until}"

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.world.columns

    @property
    def mapping(self) -> str:
        return ""

    @property
    def undated(self) -> Undated:
        return Undated.MATURITY

    def fingerprint(self) -> str | None:
        return None

    def batches(self) -> Iterator[SourceBatch]:
        history = self.world.history
        names = list(dict.fromkeys([*NAMES, *(column.name for column in self.columns)]))
        wanted = np.zeros(len(history), dtype=bool)
        wanted[self.world.rows(self.after or date.min, self.until)] = True
        if self.after is not None:
            # Of bookings made before, that are there already, what became known now.
            known = history["known_on"]
            wanted |= ((known > pd.Timestamp(self.after)) & (known <= pd.Timestamp(self.until))).to_numpy()
        rows = history[wanted]
        if not rows.empty:
            yield SourceBatch(rows, rows[names], rows[list(OUTCOME_NAMES)].dropna(), no_problems())


@dataclass(frozen=True)
class Promotion:
    """A change of champion: what the new one saved per booking made after it, against the one before (nats)."""

    on: date
    change: Change
    version: str
    before: str
    gain: float
    bookings: int


@dataclass(frozen=True)
class Composed:
    """What a house did: which version each booking was served, at what loss, and every change of champion."""

    policy: str
    loss: np.ndarray
    probability: np.ndarray
    ledger: tuple[LedgerRow, ...]
    trials: tuple[Trial, ...]
    promotions: tuple[Promotion, ...]
    requests: int


def compose(
    world: World,
    span: Span,
    name: str,
    policy: RetrainPolicy,
    settings: Settings,
    folder: Path,
    on_day: Callable[[date], None] = lambda day: None,
) -> Composed:
    """Plays a policy from the span's first day to its last, or from where its home stands; then reads it."""
    made = re.sub("[^a-z0-9]+", "-", " ".join([name, *settings.retrain.recipes]))
    home = folder / "homes" / f"{made}-{span.first}-seed{settings.retrain.seed}"
    own = settings.model_copy(
        update={
            "home": home,
            "database_url": "",
            "mlflow_tracking_uri": "",
            "mlflow_artifacts": "",
            "watch": None,
            "retrain_policy": policy,
            "max_lead_days": None,
            # Nobody mends a feed of the past: a day that fails is scored as it is, as when its time has run out.
            "checks": replace(settings.checks, hold=False),
        }
    )
    homes.prepare(home)
    _require_same_rules(own)
    prepare(own)
    app = App(own)
    begun = _first_champion(app, world, span)
    day = begun
    while day < span.until:
        day += DAY
        _day(app, world, day, look=(day - span.first).days % WEEKDAY_OF_LOOKS == 0)
        on_day(day)
    return _read(app, world, span, name)


# What a house does follows from these.
RULES = (
    "labels",
    "retrain",
    "retrain_policy",
    "recipes",
    "gate",
    "trial",
    "monitor",
    "checks",
    "guards",
    "recalibration",
)


def _require_same_rules(settings: Settings) -> None:
    """A house that was begun goes on by the rules that it was begun with, or not at all."""
    kept = settings.home / "rules.json"
    rules = {name: repr(getattr(settings, name)) for name in RULES}
    if not kept.exists():
        kept.write_text(json.dumps(rules, indent=1))
        return
    before = json.loads(kept.read_text())
    changed = [name for name in RULES if rules[name] != before.get(name)]
    if changed:
        raise BadInput(
            f"the house in {settings.home} was played with other settings of {', '.join(changed)} (they are in"
            f" {kept}); delete it to play it anew, or name another folder with --folder"
        )


def _first_champion(app: App, world: World, span: Span) -> date:
    """Loads what there was before the first day, and trains; returns the day up to which bookings are in."""
    with app.store.begin() as work:
        booked, champion = work.booked_span(), work.standing().champion
    if booked is not None and booked[1] > span.until:
        raise BadInput(
            f"the house in {app.settings.home} was played until {booked[1]}, beyond {span.until}; replay until then or"
            " longer (--to), delete it, or name another folder with --folder"
        )
    if booked is None:
        app.ingest(Feed(world, None, span.first), until=span.first)
    if champion is None:
        request = app.retrain(app.request_training(span.first, "first champion").request_id)
        if request.state is not RequestState.CANDIDATE:
            raise BadInput(f"no first champion as of {span.first}: {'; '.join(request.detail)}; begin later")
    # The last day may have been cut short: it is played again, which changes nothing that it did.
    return span.first if booked is None else max(span.first, booked[1] - DAY)


def _day(app: App, world: World, day: date, *, look: bool) -> None:
    app.ingest(Feed(world, day - DAY, day), after=day - DAY, until=day)
    with app.store.begin() as work:
        running = work.open_trial()
    if running is None:
        app.score(until=day)
    else:
        # It scores what is new before it reads.
        app.trial(until=day)
    if look:
        app.monitor(after=day - WEEKDAY_OF_LOOKS * DAY, until=day)
    with app.store.begin() as work:
        waiting = work.requests(RequestState.WAITING, RequestState.RUNNING)
    for request in waiting:
        try:
            app.score_challenger(app.retrain(request.request_id))
        except Refused as refused:
            # A trial or probation has not ended: the request waits for it, as in production.
            logging.getLogger(__name__).info("%s", refused)


def _read(app: App, world: World, span: Span, name: str) -> Composed:
    whole = world.rows(span.first, span.until)
    bookings = world.history.iloc[whole]
    with app.store.begin() as work:
        ledger, trials, requests = work.ledger(), work.trials(), work.requests()
        versions = sorted({row.champion for row in ledger} | {row.challenger for row in ledger} - {None}, key=str)
        scores = pd.DataFrame(
            {v: work.predictions(v, bookings["reservation_id"]) for v in versions if v is not None}
        ).reindex(bookings["reservation_id"])
    served = served_versions(bookings, ledger, trials)
    column = scores.columns.get_indexer(served)
    probability = scores.to_numpy()[np.arange(len(scores)), column]
    if np.isnan(probability).any():
        raise BadInput(
            f"{int(np.isnan(probability).sum())} bookings of the replay have no score; delete {app.settings.home}"
        )
    loss = log_loss(world.ended(span.first, span.until), probability)
    promotions = tuple(_promotions(app, world, span, ledger))
    return Composed(name, loss, probability, tuple(ledger), tuple(trials), promotions, len(requests))


def served_versions(bookings: pd.DataFrame, ledger: list[LedgerRow], trials: list[Trial]) -> np.ndarray:
    """The version whose score each booking was served on its own day, shape (rows,).

    A house scores a day's bookings before it looks at trials and decides: what changes on a day serves from
    the next one on.
    """
    by_id = {trial.trial_id: trial for trial in trials}
    booked_on = bookings["booked_on"].dt.date.to_numpy()
    ids = bookings["reservation_id"].to_numpy()
    out = np.empty(len(bookings), dtype=object)
    for row, following in zip(ledger, [*ledger[1:], None], strict=True):
        days = booked_on > row.as_of
        if following is not None:
            days &= booked_on <= following.as_of
        out[days] = row.champion
        opened = next(
            (t for t in by_id.values() if t.kind is Kind.TRIAL and t.rival == row.challenger and row.challenger), None
        )
        if opened is not None:
            theirs = [i for i in np.flatnonzero(days) if arm(opened.trial_id, ids[i], opened.serve_share) is Arm.RIVAL]
            out[theirs] = row.challenger
    return out


def _promotions(app: App, world: World, span: Span, ledger: list[LedgerRow]) -> Iterator[Promotion]:
    """What each change of champion was worth on all bookings that came after it, whoever was served what."""
    end = world.history["booked_on"].searchsorted(pd.Timestamp(span.until), side="right")
    for before, row in pairwise(ledger):
        if before.champion is None or row.champion is None or before.champion == row.champion:
            continue
        first = world.history["booked_on"].searchsorted(pd.Timestamp(row.as_of), side="right")
        later = slice(int(first), int(end))
        final = world.final(row.as_of, span.until)
        built, label = world.built.iloc[later][final], world.ended(row.as_of, span.until)[final]
        if not final.any():
            yield Promotion(row.as_of, row.change, row.champion, before.champion, 0.0, 0)
            continue
        losses = [log_loss(label, app.registry.load(v).predict(built)) for v in (before.champion, row.champion)]
        gain = float((losses[0] - losses[1]).mean())
        yield Promotion(row.as_of, row.change, row.champion, before.champion, gain, len(label))
