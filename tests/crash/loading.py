"""An act in which reservations are loaded and scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
from act import Act, Fate, MortalStore, Place, confessing
from versions import candidate, crown

from cancellations.domain.features import build, past_of
from cancellations.domain.labels import CANCELLED, LabelRule
from cancellations.domain.promotion import Change, TrialPolicy, open_trial
from cancellations.domain.reservation import ACTION_NAMES, COLUMNS, OUTCOME_NAMES, Column, coerce, no_problems
from cancellations.errors import Refused
from cancellations.ports import Registry, SourceBatch, Store, Undated
from cancellations.sources.simulator import simulate
from cancellations.store import open_store, upgrade
from cancellations.usecases.ingest import LoadPolicy, ingest
from cancellations.usecases.score import Cut, score

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
RULE = LabelRule()
SEED = 7
# Two weeks of bookings: both versions learned from them, and agents have a record.
PAST, PAST_DAYS, TRAINED = date(2016, 4, 4), 14, date(2016, 5, 1)
FIRST, DAYS = date(2016, 5, 2), 5
BATCH_ROWS, CHUNK_ROWS = 200, 200
# Share of the bookings that nobody should act upon.
HOLD_OUT = 0.2


# --- what it loads --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """A file as a hotel sends it: canonical columns, columns of its own, outcomes; or outcomes alone."""

    name: str
    rows: pd.DataFrame
    own: tuple[Column, ...] = ()
    reservations: bool = True
    undated: Undated = Undated.LOAD

    @property
    def columns(self) -> tuple[Column, ...]:
        return COLUMNS + self.own

    @property
    def mapping(self) -> str:
        return f"# {self.name}: {', '.join(c.name for c in self.own)}"

    def fingerprint(self) -> str | None:
        return hashlib.sha256(pd.util.hash_pandas_object(self.rows).to_numpy().tobytes()).hexdigest()

    def batches(self) -> Iterator[SourceBatch]:
        for start in range(0, len(self.rows), BATCH_ROWS):
            rows = self.rows.iloc[start : start + BATCH_ROWS]
            told = rows.loc[rows["status"].notna(), list(OUTCOME_NAMES)]
            done = rows.loc[rows["action_taken"].notna(), list(ACTION_NAMES)] if "action_taken" in rows else None
            reservations = coerce(rows, self.columns) if self.reservations else None
            yield SourceBatch(rows, reservations, told, no_problems(), done)


LOYALTY, DISTANCE = Column("loyalty", "category"), Column("distance", "number")


def _booked(days: int) -> pd.DataFrame:
    """Bookings of the first days with columns of the hotel's own, numbered as rows of a file."""
    rows = simulate(FIRST, days, SEED).drop(columns=["group_size", "true_probability"])
    n = np.arange(len(rows))
    own = {"loyalty": np.where(n % 3 == 0, "gold", "none"), "distance": np.where(n % 5 == 0, np.nan, n * 1.5)}
    return rows.assign(**own).set_axis(pd.RangeIndex(1, len(rows) + 1))


def _told_by(rows: pd.DataFrame, day: date) -> pd.DataFrame:
    """The same with the outcomes alone that were known on a day."""
    unknown = rows["known_on"] > pd.Timestamp(day)
    return rows.assign(status=rows["status"].mask(unknown), known_on=rows["known_on"].mask(unknown))


def first_delivery() -> Delivery:
    """Three days of bookings; every fortieth has an impossible price."""
    rows = _told_by(_booked(3), FIRST + timedelta(days=2))
    rows.loc[rows.index % 40 == 0, "price"] = -1.0
    return Delivery("bookings.csv", rows, (LOYALTY,))


def outcomes_alone() -> Delivery:
    """Which of those bookings were called off since; a few without their day."""
    rows = _told_by(_booked(3), FIRST + timedelta(days=4)).dropna(subset=["status"])[list(OUTCOME_NAMES)]
    rows.loc[rows.index % 7 == 0, "known_on"] = pd.NaT
    return Delivery("outcomes.csv", rows.set_axis(pd.RangeIndex(1, len(rows) + 1)), reservations=False)


def second_delivery() -> Delivery:
    """Six days of bookings: the prices mended, bookings and outcomes corrected, actions, one column more."""
    rows = _told_by(_booked(DAYS), FIRST + timedelta(days=DAYS))
    rows.loc[rows.index % 30 == 1, "price"] += 5.0
    rows.loc[rows.index % 50 == 2, "loyalty"] = "silver"
    rows.loc[rows["status"].notna() & (rows.index % 11 == 0), "status"] = "no_show"
    rows.loc[rows.index % 101 == 100, "adults"] = 1_000.0
    # Upon every ninth booking somebody acted the day after.
    acted = pd.Series(rows.index % 9 == 4, index=rows.index)
    rows["action_taken"] = pd.Series("call", index=rows.index).where(acted)
    rows["acted_on"] = (rows["booked_on"] + pd.Timedelta(days=1)).where(acted)
    return Delivery("bookings.csv", rows, (LOYALTY, DISTANCE))


def unbelievable() -> Delivery:
    """A file whose dates slipped by a column: every arrival lies before its booking."""
    rows = _booked(1)
    slipped = rows.assign(booked_on=rows["arrival_on"] + pd.Timedelta(days=1), status=None, known_on=pd.NaT)
    return Delivery("slipped.csv", slipped[slipped["booked_on"] <= pd.Timestamp(FIRST + timedelta(days=DAYS))])


# --- the steps ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hands:
    """What a process works with."""

    store: Store
    registry: Registry


def _load(delivery: Callable[[], Delivery], days: int) -> Callable[[Hands], None]:
    def step(hands: Hands) -> None:
        until = FIRST + timedelta(days=days)
        # A file that is done is not read again: so do the flows with each file of a watched folder.
        ingest(
            delivery(),
            hands.store,
            after=None,
            until=until,
            clock=_clock(days),
            policy=LoadPolicy(labels=RULE),
            again=False,
        )

    return step


def _refuse(hands: Hands) -> None:
    try:
        _load(unbelievable, DAYS)(hands)
    except Refused:
        return
    raise AssertionError("a file of nothing but broken rows was loaded")


def _score(days: int) -> Callable[[Hands], None]:
    def step(hands: Hands) -> None:
        until = FIRST + timedelta(days=days)
        clock, cut = _clock(days), Cut(partitions=2)
        score(
            hands.store,
            hands.registry,
            after=TRAINED,
            until=until,
            rule=RULE,
            chunk_rows=CHUNK_ROWS,
            clock=clock,
            cut=cut,
            hold_out=HOLD_OUT,
        )

    return step


def _clock(days: int) -> Callable[[], datetime]:
    """Stands still within a day: what is written does not tell when it was."""
    return lambda: NOW + timedelta(days=days)


# A restart begins with the step that had not ended.
STEPS: tuple[tuple[str, Callable[[Hands], None]], ...] = (
    ("ingest a delivery", _load(first_delivery, 3)),
    ("score it", _score(3)),
    ("ingest outcomes alone", _load(outcomes_alone, 5)),
    ("ingest corrections", _load(second_delivery, DAYS)),
    ("ingest a slipped file", _refuse),
    ("score again", _score(DAYS)),
)


# Methods of `ports.UnitOfWork` by which ingest and score write; a test holds the list against what they do.
WRITES = frozenset(
    {
        "declare_columns",
        "begin_load",
        "record_outcomes",
        "record_actions",
        "upsert_reservations",
        "add_quarantined",
        "settle_bookings",
        "advance_load",
        "finish_load",
        "add_messages",
        "add_stopped_load",
        "add_features",
        "add_predictions",
        "add_arms",
        "deal",
        "serve",
    }
)


def _hands(place: Place, fate: Fate, late: timedelta) -> Hands:
    return Hands(MortalStore(open_store(place.url), fate, WRITES), place.registry())


ACT = Act(STEPS, _hands, WRITES)


# --- before the first step ------------------------------------------------------------------------


def prepare(place: Place) -> None:
    """Makes a store on which version 1 serves and version 2 is on trial; the versions too, if there are none."""
    with confessing(place):
        upgrade(place.url)
        past = simulate(PAST, PAST_DAYS, SEED)
        registry = place.registry()
        if not registry.aliases():
            registry.prepare()
            for seed in (1, 2):
                built, label = build(past, past_of(past), RULE), past["status"].isin(CANCELLED)
                registry.register(candidate(built, label.to_numpy(dtype=float), TRAINED, seed))
            registry.set_alias("champion", "1")
        champion, challenger = (registry.record(version) for version in ("1", "2"))
        with open_store(place.url).begin() as work:
            known = past[past["known_on"] <= pd.Timestamp(TRAINED)]
            work.upsert_reservations(past)
            work.record_outcomes(known)
            standing = crown(work, champion, TRAINED, NOW)
            work.add_version(challenger, NOW)
            standing = work.change_standing(
                standing,
                champion=champion.version,
                challenger=challenger.version,
                change=Change.CHALLENGED,
                reason="a test asks",
                by="the gate",
                as_of=TRAINED,
                now=NOW,
            )
            trained = {record.version: record.trained_as_of for record in (champion, challenger)}
            work.add_trial(open_trial(standing, trained, TRAINED, challenger.request_id, TrialPolicy()), NOW)
            work.commit()
