"""Where reservations come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import pandas as pd

from cancellations.domain.reservation import Column


@dataclass(frozen=True)
class SourceBatch:
    """Some rows of a source: what was read, and what it means.

    All frames share one index, the row number in the source (the first data row is 1).
    `raw` holds the original values; `reservations` the source's `columns`, coerced
    (`domain.reservation.coerce`), or None where a source brings outcomes alone; `outcomes` the columns
    `reservation_id`, `status`, `known_on` of the rows that tell one, the day missing where it is not
    told; `actions` the columns `reservation_id`, `action_taken`, `acted_on` of the rows that tell one, or None where a
    source knows of none; `problems` what could not be read, as `domain.reservation.violations` gives it, with `column`
    empty where a row cannot be read at all.
    """

    raw: pd.DataFrame
    reservations: pd.DataFrame | None
    outcomes: pd.DataFrame
    problems: pd.DataFrame
    actions: pd.DataFrame | None = None


class Undated(StrEnum):
    """The day on which an outcome counts as known when its source does not tell one."""

    MATURITY = "maturity"  # the booking's maturity date: right for a history that is replayed
    LOAD = "load"  # the day of the load, if that is earlier: for live exports, where it is known by then


class Source(Protocol):
    """Reservations and outcomes, in batches.

    `name` identifies it in loads and quarantine; `columns` are those that it delivers: the canonical
    ones, with this source's limits, then its own features; `mapping` is the text of the mapping that it
    is read by, empty where there is none.
    """

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[Column, ...]: ...

    @property
    def mapping(self) -> str: ...

    @property
    def undated(self) -> Undated: ...

    def fingerprint(self) -> str | None:
        """Hex digits that change with the content; None where only reading it all could tell."""
        ...

    def batches(self) -> Iterator[SourceBatch]:
        """From the first row on, each time it is called; raises `BadInput` for what is no whole table."""
        ...
