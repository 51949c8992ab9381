"""An act of holds and guards: a broken day is held back, mended or released; a guard rolls a new champion back.

Version 1 has learned that guests cancel what is dear; version 2, which a person has promoted on TAKEN_OVER, knows of
a segment too that cancels what is cheap. That segment hardly came until then, and is nearly all that comes after: the
two do not agree any more as they did, and nobody waits for outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, ClassVar

import desk
import numpy as np
import pandas as pd
import succession
from act import Act, Place, confessing
from desk import ATTEMPTS, CHUNK_ROWS, NOW, RULE, deliver_all, every_second, load, look_twice, reconcile_all
from promises import Rules, broken, evidence
from sqlalchemy import NullPool, Table, create_engine, text

from cancellations.domain.checks import CheckPolicy, HoldState
from cancellations.domain.guards import BY_GUARD, GuardPolicy
from cancellations.domain.promotion import Change, TrialPolicy
from cancellations.store import open_store
from cancellations.usecases.hold import release
from cancellations.usecases.promote import House, promote
from cancellations.usecases.score import score

TAKEN_OVER = date(2016, 9, 1)
# Days from TAKEN_OVER: when versions were trained, the first and last ones of booking, those that come broken, and
# when guards have enough to look at.
TRAINED, FIRST, HOLIDAY, MENDED, RELEASED, GUARDED = -50, -45, -44, 1, 3, 6
A_DAY = 12
CHECKS = CheckPolicy(min_days=28, hold_days=0)
GUARDS = GuardPolicy(rows=50, samples=8)
NEW = "2"
WRITES = frozenset(
    {
        "add_features",
        "add_guards",
        "add_hold",
        "add_messages",
        "add_predictions",
        "acquire_lease",
        "begin_placement",
        "change_standing",
        "check_lease",
        "end_hold",
        "finish_placement",
        "forget_pasts",
        "hold_promotions",
        "keep_past",
        "mark_sent",
        "release_lease",
        "serve",
        "update_trial",
    }
)


def day(n: int) -> date:
    return TAKEN_OVER + timedelta(days=n)


def bookings() -> pd.DataFrame:
    """All bookings with their outcomes; `n` is the day on which one is made."""
    made = np.repeat(np.arange(FIRST, GUARDED + 1), A_DAY)
    of_day, cancelled = np.arange(len(made)) % A_DAY, every_second(made)
    booked = pd.Timestamp(TAKEN_OVER) + pd.to_timedelta(made, unit="D")
    # One day like those to come: that a segment is nearly all there is, is seldom and not new.
    new = np.where((made > 0) | (made == HOLIDAY), of_day >= 2, of_day == 5)
    return desk.reservations(
        "w",
        booked=booked,
        arrival=booked + pd.to_timedelta(3 + of_day, unit="D"),
        segment_is_new=new,
        dear=np.where(new, ~cancelled, cancelled),
        noise=5,
        n=made,
    )


# --- the steps ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hands(desk.Hands):
    """Checks hold and guards look."""

    writes = WRITES
    rules: ClassVar[Mapping[str, Any]] = {"checks": CHECKS, "guards": GUARDS}


def _load(hands: Hands, after: int, until: int, *, broken_day: int | None = None) -> None:
    """Days pass; meals of a broken one are renamed."""
    rows = bookings()
    rows["meal"] = rows["meal"].mask(rows["n"] == broken_day, "half board")
    load(open_store(hands.place.url), rows, day(after), day(until))


def _score(hands: Hands, until: int) -> None:
    score(
        hands.store,
        hands.registry,
        after=None,
        until=day(until),
        rule=RULE,
        chunk_rows=CHUNK_ROWS,
        clock=hands.clock,
        checks=CHECKS,
    )
    deliver_all(hands)


def _hold(hands: Hands) -> None:
    _load(hands, 0, MENDED, broken_day=MENDED)
    _score(hands, MENDED)


def _mend(hands: Hands) -> None:
    """The day is delivered anew as it should be; a later one comes broken."""
    _load(hands, 0, RELEASED, broken_day=RELEASED)
    _score(hands, RELEASED)


def _release(hands: Hands) -> None:
    with hands.store.begin() as work:
        held = [hold.day for hold in work.holds(HoldState.HELD)]
    if held:
        release(hands.store, day(RELEASED), reason="so they call it now", by="ada", clock=hands.clock)
    _score(hands, RELEASED)


def _guard(hands: Hands) -> None:
    _load(hands, RELEASED, GUARDED)
    look_twice(hands, day(GUARDED))


STEPS: tuple[tuple[str, Callable[[Hands], None]], ...] = (
    ("hold", _hold),
    ("mend", _mend),
    ("release", _release),
    ("guard", _guard),
    ("reconcile", reconcile_all),
)
STORY = tuple(name for name, _ in STEPS)


# --- what must hold -------------------------------------------------------------------------------

RULES = Rules(ATTEMPTS, budget=0)
ENDED = Rules(
    ATTEMPTS,
    budget=0,
    ended=True,
    changes=((Change.FIRST, "the gate"), (Change.PROMOTED, "ada"), (Change.ROLLED_BACK, BY_GUARD)),
)
# Each finds what must not be.
NEVER = {
    "P2: a day that is held is scored": """
        SELECT r.reservation_id FROM predictions p JOIN reservations r USING (reservation_id)
        JOIN holds h ON h.day = r.booked_on AND h.state = 'held'""",
    "P2: a day was held, and no mail says so": """
        SELECT day FROM holds WHERE (SELECT count(*) FROM messages WHERE topic = 'cancellations.data.broken')
        <> (SELECT count(*) FROM holds)""",
    "P7: a guard has rolled back twice, or without a finding": f"""
        SELECT trial_id FROM ledger l WHERE "by" = '{BY_GUARD}' AND (
            (SELECT count(*) FROM ledger o WHERE o.trial_id = l.trial_id AND o."by" = l."by") > 1
            OR NOT EXISTS (SELECT 1 FROM guards g WHERE g.trial_id = l.trial_id))""",
    "P12: a booking that was served is served no more": f"""
        SELECT reservation_id FROM reservations r WHERE booked_on <= '{TAKEN_OVER}' AND arrival_on >= '{day(GUARDED)}'
        AND NOT EXISTS (SELECT 1 FROM servings s WHERE s.reservation_id = r.reservation_id)
        AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.reservation_id = r.reservation_id)""",
}


def wrong(url: str) -> Iterator[str]:
    """What must not be, and is."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        for fault, query in NEVER.items():
            if found := connection.execute(text(query)).scalars().all():
                yield f"{fault}: {found}"


def spoil(url: str, statement: str) -> None:
    """Somebody's hand in the database."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(statement))


def _examine(hands: Hands) -> list[str]:
    place = hands.place
    found = evidence(place, open_store(place.url), place.registry(), day(GUARDED))
    place.keep(found)
    rules = ENDED if hands.fate.step == STORY[-1] else RULES
    return [*wrong(place.url), *broken(found, rules)]


def _told(table: Table, row: dict[str, Any]) -> dict[str, Any] | None:
    """Without what days are held against: after a restart it is learned from a day that has passed meanwhile, too."""
    if table.name == "pasts":
        return None
    told = desk.without_time(table, row)
    if told is None or table.name != "holds":
        return told
    failed = sorted((finding["column"], finding["check"]) for finding in told["findings"]["findings"])
    return {name: value for name, value in told.items() if name != "number"} | {"findings": failed}


ACT = Act(STEPS, Hands, WRITES, reconcile_all, _examine, _told, shared=False)


# --- before the first step ------------------------------------------------------------------------


def register(place: Place) -> None:
    """Makes both versions: of guests of the one segment, and of both."""
    desk.register(place, succession.bookings(), (0, succession.TURN), day(TRAINED))


def prepare(place: Place) -> None:
    """A store on which version 1 has scored what came in, and version 2 has just taken over."""
    with confessing(place):
        store, registry = desk.first_champion(place, bookings(), day(FIRST - 1), TAKEN_OVER, day(TRAINED))
        house = House(store, registry, TrialPolicy(), RULE, CHUNK_ROWS, lambda: NOW)
        promote(house, NEW, reason="looked better", by="ada", as_of=TAKEN_OVER)
