"""What a reservation is, which of its columns is known when, and which rules a row must pass.

Two facts describe a booking. The *reservation* is everything known the moment it is booked; the
*outcome* (cancelled, no-show, stayed) arrives later, on its own date. Both travel as pandas frames
with the columns below, one row per booking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import pandas as pd

Kind = Literal["id", "date", "count", "number", "category"]


@dataclass(frozen=True)
class Column:
    """One column of a reservation, known at booking.

    `kind` fixes how it is stored and compared; `required` columns may not be missing;
    `low` and `high` are the inclusive limits of what is believed of a real booking; `without` tells
    what happens where a source lacks the column.
    """

    name: str
    kind: Kind
    required: bool = False
    low: float | None = None
    high: float | None = None
    without: str = "a missing value, as the model knows them"


COLUMNS: tuple[Column, ...] = (
    Column("reservation_id", "id", required=True),
    Column("hotel", "category", required=True),
    Column("booked_on", "date", required=True),
    Column("arrival_on", "date", required=True),
    Column("weekend_nights", "count", required=True, low=0, high=200),
    Column("week_nights", "count", required=True, low=0, high=500),
    Column("adults", "count", required=True, low=0, high=100),
    Column("children", "count", low=0, high=50, without="a missing value; counts as none when guests are summed"),
    Column("babies", "count", low=0, high=50, without="a missing value; counts as none when guests are summed"),
    Column("meal", "category"),
    Column("market_segment", "category"),
    Column("distribution_channel", "category"),
    Column("repeated_guest", "count", low=0, high=1),
    Column("previous_cancellations", "count", low=0, high=1000),
    Column("previous_stays", "count", low=0, high=1000),
    Column("room_type", "category"),
    Column("deposit_type", "category"),
    Column("agent", "category", without="no record of the agent: its cancellation rate is missing, its count 0"),
    Column("company", "category", without="no record of the company: its cancellation rate is missing"),
    Column("customer_type", "category"),
    # Price of a night in the hotel's currency. A file's 5,400 is a keying error, as is a negative one.
    Column("price", "number", low=0, high=5_000, without="a missing value; the outlook tells no revenue at risk"),
    Column("special_requests", "count", low=0, high=50),
)
NAMES: tuple[str, ...] = tuple(c.name for c in COLUMNS)
DATES = tuple(c.name for c in COLUMNS if c.kind == "date")
NUMBERS = tuple(c.name for c in COLUMNS if c.kind in ("count", "number"))
CATEGORIES = tuple(c.name for c in COLUMNS if c.kind == "category")
# Bookings that agree in all of these were made together: one group, which comes or cancels as one.
GROUP: tuple[str, ...] = (
    "hotel",
    "booked_on",
    "arrival_on",
    "agent",
    "company",
    "market_segment",
    "weekend_nights",
    "week_nights",
)
# How many bookings of its group a load brought; counted at ingest, and fixed from then on.
GROUP_SIZE = "group_size"

# Nights of the longest stay that is believed.
LONGEST_STAY = int(sum(c.high or 0 for c in COLUMNS if c.name in ("weekend_nights", "week_nights")))

# Names and codes are short; a longer text is a column that slipped, or a document.
LONGEST_TEXT = 1_000
MISSING_RULE = "is missing or cannot be read"

OUTCOME_NAMES: tuple[str, ...] = ("reservation_id", "status", "known_on")
ACTION_NAMES: tuple[str, ...] = ("reservation_id", "action_taken", "acted_on")


class Status(StrEnum):
    """How a booking ended. The first two are what the model calls a cancellation."""

    CANCELED = "canceled"
    NO_SHOW = "no_show"
    STAYED = "stayed"


class ActionTaken(StrEnum):
    """What somebody did about a booking because of its score; it may change how the booking ends."""

    CALL = "call"
    DEPOSIT = "deposit"  # one was asked for
    OFFER = "offer"  # another price, room or day
    OTHER = "other"
    NONE = "none"  # told to have been left alone: takes back what was told before


def coerce(frame: pd.DataFrame, columns: Sequence[Column] = COLUMNS) -> pd.DataFrame:
    """Brings a frame to the given columns and their types; what cannot be read becomes missing.

    Dates become midnight `datetime64[us]`, numbers `float64` (infinities missing), ids and
    categories `str` with surrounding space removed and empty text missing. Columns that the source
    lacks are added as missing; `violations` says which of them a row may not lack.
    """
    out: dict[str, pd.Series] = {}
    for column in columns:
        values = frame.get(column.name, pd.Series(np.nan, index=frame.index, dtype=object))
        if column.kind == "date":
            dates = pd.to_datetime(values, errors="coerce", utc=True).dt.tz_localize(None)
            out[column.name] = dates.dt.normalize().astype("datetime64[us]")
        elif column.kind in ("count", "number"):
            numbers = pd.to_numeric(values, errors="coerce").astype("float64")
            out[column.name] = numbers.where(np.isfinite(numbers))
        else:
            out[column.name] = _text(values)
    return pd.DataFrame(out, index=frame.index)


def _text(values: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(values.dtype):
        # A column of ids with gaps is read as float: 9.0 means the agent "9".
        whole = values.dropna()
        if (whole == np.floor(whole)).all():
            values = values.astype("Int64")
    text = values.astype("str").str.strip()
    return text.where(values.notna() & (text != ""), np.nan)


def group_keys(frame: pd.DataFrame) -> np.ndarray:
    """A number for each booking of a coerced frame, the same for bookings of one group (uint64)."""
    return pd.util.hash_pandas_object(frame[list(GROUP)], index=False).to_numpy()


def sized(frame: pd.DataFrame) -> pd.DataFrame:
    """The bookings with `group_size`: how many of them belong to the booking's group."""
    keys = pd.Series(group_keys(frame), index=frame.index)
    return frame.assign(**{GROUP_SIZE: keys.map(keys.value_counts()).astype("float64")})


def violations(frame: pd.DataFrame, columns: Sequence[Column] = COLUMNS) -> pd.DataFrame:
    """Rules that rows of a coerced frame break: columns `row` (index label), `column`, `rule`.

    Empty when every row can be loaded. One row may appear several times. Ids that appear twice are
    judged over a whole load (`usecases.ingest`), not here.
    """
    found: list[pd.DataFrame] = []

    def note(broken: pd.Series, column: str, rule: str) -> None:
        rows = frame.index[broken.to_numpy(dtype=bool)]
        if len(rows):
            found.append(pd.DataFrame({"row": rows, "column": column, "rule": rule}))

    for column in columns:
        values = frame[column.name]
        if column.required:
            note(values.isna(), column.name, MISSING_RULE)
        if column.low is not None:
            note(values < column.low, column.name, f"is below {column.low:g}")
        if column.high is not None:
            note(values > column.high, column.name, f"is above {column.high:g}")
        if column.kind == "count":
            note(values.notna() & (values != np.floor(values)), column.name, "is not a whole number")
        if column.kind in ("id", "category"):
            note(values.str.len() > LONGEST_TEXT, column.name, f"is longer than {LONGEST_TEXT:,} characters")
            note(values.str.contains("\0", regex=False, na=False), column.name, "contains a NUL character")
    note(frame["arrival_on"] < frame["booked_on"], "arrival_on", "lies before booked_on")
    guests = frame[["adults", "children", "babies"]].fillna(0).sum(axis=1)
    note(guests == 0, "adults", "no guest at all: adults, children and babies are 0")
    return pd.concat(found, ignore_index=True) if found else no_problems()


def early(outcomes: pd.DataFrame, reservations: pd.DataFrame) -> pd.DataFrame:
    """Outcomes of the rows of coerced reservations that were known before their booking; as `violations` gives them."""
    rows = outcomes.index[outcomes["known_on"] < reservations["booked_on"].reindex(outcomes.index)]
    return pd.DataFrame({"row": rows, "column": "known_on", "rule": "lies before booked_on"})


def early_actions(actions: pd.DataFrame, reservations: pd.DataFrame) -> pd.DataFrame:
    """Actions upon the rows of coerced reservations before their booking; as `violations` gives them."""
    rows = actions.index[actions["acted_on"] < reservations["booked_on"].reindex(actions.index)]
    return pd.DataFrame({"row": rows, "column": "acted_on", "rule": "lies before booked_on"})


def nameless(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Outcomes that tell no booking; as `violations` gives them."""
    rows = outcomes.index[outcomes["reservation_id"].isna()]
    return pd.DataFrame({"row": rows, "column": "reservation_id", "rule": MISSING_RULE})


def told_once(problems: pd.DataFrame) -> pd.DataFrame:
    """A row that could not be read at all has that problem alone; a column that could not, that one."""
    whole = problems.loc[problems["column"] == "", "row"]
    kept = problems[(problems["column"] == "") | ~problems["row"].isin(whole)]
    return kept.drop_duplicates(["row", "column"])


def no_problems() -> pd.DataFrame:
    """What `violations` gives when no rule is broken."""
    return pd.DataFrame({"row": [], "column": [], "rule": []})
