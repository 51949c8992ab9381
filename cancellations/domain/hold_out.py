"""Bookings that nobody acts upon, because acting on a score changes its label.

Staff who call the guests with the highest scores keep some of them. The call's label then reads "kept":
a model that was right looks wrong, one that is trained on it learns that such guests come, and of two
versions the one whose scores are served looks worse than the other. So a share of all bookings is held
out: their scores are served and marked, and they are left alone. Once actions are on record, labels
count where nobody can have acted: of bookings that matured before the first action, and of the hold-out.

The hold-out is dealt by whole booking groups: who calls an agent about one room of a group has acted
upon all of them. A booking is dealt once, with the first score that it is served, and keeps what it was
dealt: that is what staff were told.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from cancellations.domain.reservation import group_keys

SALT = "hold-out"


@dataclass(frozen=True)
class ActionPolicy:
    """How much is held out, and when a hold-out is none any more.

    `hold_out`: share of bookings that nobody acts upon. `broken_share`: share of the hold-out's compared
    bookings that were acted upon all the same, beyond which it is not believed: these are left out, and
    where they are one in twenty the mean gain of the others may be off by as much as a good challenger saves.
    """

    hold_out: float = 0.0
    broken_share: float = 0.05

    def __post_init__(self) -> None:
        for name in ("hold_out", "broken_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}; it is a share, from 0 to 1")


def dealt_out(bookings: pd.DataFrame, share: float) -> np.ndarray:
    """Which bookings of a coerced frame are held out, bool, shape (rows,): a coin for each group, by its hash."""
    keys, place = np.unique(group_keys(bookings), return_inverse=True)
    coins = [int.from_bytes(hashlib.sha256(f"{SALT}\x1f{key}".encode()).digest()[:8], "big") for key in keys.tolist()]
    return np.array([coin < share * 2**64 for coin in coins], dtype=bool)[place]


@dataclass(frozen=True)
class Untouched:
    """Which rows of a history tell what would have become of them anyway.

    `rows`: bool, one for each. `since`: day of the first action on record, None where there is none and all rows
    count. `held_out`: bookings of the hold-out are among those that matured from then on; without any, the others
    count that no action is on record of, and are a selection. `acted`: rows left out because somebody acted upon
    them, `broken` those of them that were held out; `later` rows count that matured from then on.
    """

    rows: np.ndarray
    since: date | None = None
    held_out: bool = False
    acted: int = 0
    broken: int = 0
    later: int = 0

    @property
    def left_out(self) -> int:
        return int((~self.rows).sum())

    def told(self) -> str | None:
        """A sentence about what was left out; None where nothing was acted upon."""
        if self.since is None:
            return None
        which = "not held out" if self.held_out else "acted upon"
        bookings = "1 booking that was" if self.left_out == 1 else f"{self.left_out:,} bookings that were"
        return f"left out: {bookings} {which}, since actions upon scores are on record from {self.since} on"


def untouched(
    matured_on: np.ndarray, since: date | None, acted: np.ndarray, held_out: np.ndarray, dealt: bool
) -> Untouched:
    """Rows whose labels nobody can have changed; arrays of shape (rows,), `matured_on` datetime64.

    `since`: day of the first action; `acted`: an action is on record; `held_out`: dealt so; `dealt`: there is a
    hold-out at all. What counts follows from booking-time facts and the deal alone, but for rows that were acted
    upon: a selection that looked at outcomes would be biased by itself.
    """
    everything = np.ones(len(matured_on), dtype=bool)
    if since is None:
        return Untouched(everything)
    before = matured_on < np.datetime64(since)
    rows = before | (~acted & (held_out if dealt else everything))
    later = acted & ~before
    return Untouched(
        rows, since, dealt, int(later.sum()), int((later & held_out).sum()), later=int((rows & ~before).sum())
    )
