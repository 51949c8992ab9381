"""The public hotel-bookings table as a source: CSV, gzipped CSV or Parquet, read in batches.

N. Antonio, A. de Almeida, L. Nunes, "Hotel booking demand datasets", Data in Brief 22 (2019),
doi 10.1016/j.dib.2018.11.126, CC BY 4.0: 119,390 bookings of two hotels, 32 columns.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cancellations.domain.reservation import OUTCOME_NAMES, Status, coerce
from cancellations.errors import BadInput
from cancellations.ports import SourceBatch

# A column that the public table lacks and another file in its form may bring.
ID = "reservation_id"
SCHEMA: tuple[str, ...] = (
    "hotel",
    "is_canceled",
    "lead_time",
    "arrival_date_year",
    "arrival_date_month",
    "arrival_date_week_number",
    "arrival_date_day_of_month",
    "stays_in_weekend_nights",
    "stays_in_week_nights",
    "adults",
    "children",
    "babies",
    "meal",
    "country",
    "market_segment",
    "distribution_channel",
    "is_repeated_guest",
    "previous_cancellations",
    "previous_bookings_not_canceled",
    "reserved_room_type",
    "assigned_room_type",
    "booking_changes",
    "deposit_type",
    "agent",
    "company",
    "days_in_waiting_list",
    "customer_type",
    "adr",
    "required_car_parking_spaces",
    "total_of_special_requests",
    "reservation_status",
    "reservation_status_date",
)
# Our column <- theirs, where the values mean the same. What the file knows only later (country,
# assigned room, changes, parking, waiting list) is not taken.
RENAMED: dict[str, str] = {
    "hotel": "hotel",
    "weekend_nights": "stays_in_weekend_nights",
    "week_nights": "stays_in_week_nights",
    "adults": "adults",
    "children": "children",
    "babies": "babies",
    "meal": "meal",
    "market_segment": "market_segment",
    "distribution_channel": "distribution_channel",
    "repeated_guest": "is_repeated_guest",
    "previous_cancellations": "previous_cancellations",
    "previous_stays": "previous_bookings_not_canceled",
    "room_type": "reserved_room_type",
    "deposit_type": "deposit_type",
    "agent": "agent",
    "company": "company",
    "customer_type": "customer_type",
    "price": "adr",
    "special_requests": "total_of_special_requests",
}
STATUSES: dict[str, str] = {
    "Canceled": Status.CANCELED.value,
    "No-Show": Status.NO_SHOW.value,
    "Check-Out": Status.STAYED.value,
}
MISSING = ("", "NULL", "NA", "N/A", "NaN", "nan", "null", "None")
# Not calendar.month_name: that one speaks the language of the machine.
MONTHS = {
    "January": 1,
    "February": 2,
    "March": 3,
    "April": 4,
    "May": 5,
    "June": 6,
    "July": 7,
    "August": 8,
    "September": 9,
    "October": 10,
    "November": 11,
    "December": 12,
}
# Arrivals in the public table, and the bookings made on days that neither of its edges touches when
# those of more than 180 days of lead are set aside.
PUBLIC_ARRIVALS = date(2015, 7, 1), date(2017, 8, 31)
PUBLIC_UNBIASED = date(2015, 10, 5), date(2017, 2, 26)
# Some 60 MB of text while a batch is read.
BATCH_ROWS = 50_000
AGAIN = "Get the file again, or name another."


@dataclass(frozen=True)
class Tally:
    """Rows of one pass: all that were read, and those set aside by what was asked for."""

    read: int = 0
    long_lead: int = 0
    outside_span: int = 0

    @property
    def set_aside(self) -> int:
        return self.long_lead + self.outside_span

    def __str__(self) -> str:
        return (
            f"{self.read:,} rows read, {self.set_aside:,} set aside"
            f" ({self.long_lead:,} booked too long ahead, {self.outside_span:,} booked outside the span)"
        )


class PublicFile:
    """Reads the public table; the format is told by its first bytes, not by its name.

    `max_lead_days`, `booked_from` and `booked_until` (inclusive) select what is read: near its
    edges the file holds only short, or only long, leads, which looks like drift. The span without
    that bias is 2015-10-05 to 2017-02-26 with at most 180 days. Rows that fall out are counted in
    `tally`, complete once `batches()` is exhausted; rows whose dates cannot be read are kept, for
    quarantine. The table has no ids: a booking's is the file's name and its row, `hotels-000001`,
    unless the file brings a column `reservation_id` of its own.

    Raises `BadInput` for a file that is missing, unreadable, of another schema or cut off.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_lead_days: int | None = None,
        booked_from: date | None = None,
        booked_until: date | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.path = path
        self.tally = Tally()
        self._longest_lead = np.inf if max_lead_days is None else max_lead_days
        self._first = pd.Timestamp.min if booked_from is None else pd.Timestamp(booked_from)
        self._last = pd.Timestamp.max if booked_until is None else pd.Timestamp(booked_until)
        self._batch_rows = batch_rows
        self._check_columns(next(self._read(rows=1), None))

    @property
    def name(self) -> str:
        return self.path.name

    def batches(self) -> Iterator[SourceBatch]:
        self.tally = Tally()
        for raw in self._read(self._batch_rows):
            yield self._batch(raw)

    def unbiased(self, max_lead_days: int | None) -> tuple[date, date]:
        """First and last booking day whose bookings the file holds whole, whatever their lead.

        A table of arrivals between two days lacks what was booked early enough to arrive after it,
        or before it. For the public table itself the days are those of its description; for another
        one they follow from its arrivals. Reads the file once.
        """
        arrivals = [b.reservations["arrival_on"] for b in PublicFile(self.path).batches()]
        first = min(a.min() for a in arrivals).date()
        last = max(a.max() for a in arrivals).date()
        if (first, last) == PUBLIC_ARRIVALS:
            return PUBLIC_UNBIASED
        return first, last - timedelta(days=max_lead_days or 0)

    def _read(self, rows: int) -> Iterator[pd.DataFrame]:
        """Frames of original values, indexed by row number; what goes wrong becomes `BadInput`."""
        start = 1
        try:
            with self.path.open("rb") as file:
                magic = file.read(4)
            for raw in self._parquet(rows) if magic == b"PAR1" else self._csv(rows, magic[:2] == b"\x1f\x8b"):
                raw.index = pd.RangeIndex(start, start + len(raw))
                start += len(raw)
                yield raw
        except FileNotFoundError as error:
            raise BadInput(f"there is no file {self.path}. Give the path of the hotel-bookings table.") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadInput(f"{self.path} is cut off or damaged behind row {start - 1:,}: {error}. {AGAIN}") from error
        except OSError as error:
            raise BadInput(f"{self.path} cannot be read: {error.strerror or error}. {AGAIN}") from error
        except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
            raise BadInput(
                f"{self.path} is no whole CSV or Parquet table (behind row {start - 1:,}): {error}. {AGAIN}"
            ) from error

    def _parquet(self, rows: int) -> Iterator[pd.DataFrame]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=rows):
                yield batch.to_pandas()

    def _csv(self, rows: int, zipped: bool) -> Iterator[pd.DataFrame]:
        """Every value as text: the original spelling is what quarantine keeps.

        Not by pandas, which fills up a line that was cut off with values that look missing.
        """
        with (gzip.open if zipped else open)(self.path, "rt", encoding="utf-8-sig", newline="") as file:
            lines = filter(None, csv.reader(file, strict=True))
            columns = next(lines, [])
            whole = self._whole_lines(lines, len(columns))
            batch = list(islice(whole, rows))
            yield pd.DataFrame(batch, columns=columns, dtype=str)
            while batch := list(islice(whole, rows)):
                yield pd.DataFrame(batch, columns=columns, dtype=str)

    def _whole_lines(self, lines: Iterator[list[str]], width: int) -> Iterator[list[str]]:
        for row, line in enumerate(lines, start=1):
            if len(line) != width:
                raise BadInput(
                    f"{self.path} is cut off or damaged: row {row:,} has {len(line)} of {width} values. {AGAIN}"
                )
            yield line

    def _check_columns(self, head: pd.DataFrame | None) -> None:
        if head is None:
            raise BadInput(f"{self.path} holds no bookings. {AGAIN}")
        missing = [c for c in SCHEMA if c not in head]
        if missing:
            found = [str(c)[:60] for c in head.columns]
            raise BadInput(
                f"{self.path} is not the public hotel-bookings table: it lacks {_listed(missing)}"
                f" and has {_listed(found)}. The 32 columns are those of Antonio et al. 2019,"
                " separated by commas."
            )
        if head.empty:
            raise BadInput(f"{self.path} holds no bookings. {AGAIN}")

    def _batch(self, raw: pd.DataFrame) -> SourceBatch:
        values = pd.DataFrame({name: _text(raw[name]) for name in SCHEMA}, index=raw.index)
        reservations = _reservations(values).assign(reservation_id=self._ids(raw))
        outcomes = self._outcomes(values, reservations["reservation_id"])

        long = pd.to_numeric(values["lead_time"], errors="coerce") > self._longest_lead
        booked_on = reservations["booked_on"]
        outside = ~long & ((booked_on < self._first) | (booked_on > self._last))
        self.tally = Tally(
            self.tally.read + len(raw),
            self.tally.long_lead + int(long.sum()),
            self.tally.outside_span + int(outside.sum()),
        )
        kept = ~(long | outside)
        return SourceBatch(raw[kept], reservations[kept], outcomes[kept.loc[outcomes.index]])

    def _ids(self, raw: pd.DataFrame) -> pd.Series:
        if ID in raw:
            return _text(raw[ID])
        # With the name in front, bookings of two files are never taken for each other.
        stem = self.path.name.split(".")[0]
        return pd.Series([f"{stem}-{row:06d}" for row in raw.index], index=raw.index, dtype="str")

    def _outcomes(self, values: pd.DataFrame, reservation_id: pd.Series) -> pd.DataFrame:
        told, day = values["reservation_status"], values["reservation_status_date"]
        status = told.map(STATUSES)
        # The full form only: a last line that is cut inside its date would read as another day.
        known_on = pd.to_datetime(day.where(day.str.fullmatch(r"\d{4}-\d\d-\d\d")), errors="coerce")
        broken = (told.notna() | day.notna()) & (status.isna() | known_on.isna())
        if broken.any():
            row = values.index[broken][0]
            raise BadInput(
                f"{self.path}, row {row:,}: reservation_status {told[row]!r} on {day[row]!r};"
                f" expected {_listed(STATUSES)} with a day as YYYY-MM-DD. The file was edited or cut off. {AGAIN}"
            )
        outcomes = pd.DataFrame(
            {"reservation_id": reservation_id, "status": status, "known_on": known_on.astype("datetime64[us]")}
        )
        return outcomes[list(OUTCOME_NAMES)].dropna()


def _text(values: pd.Series) -> pd.Series:
    """Values as the CSV writes them, whatever the format; each spelling of nothing is missing."""
    if pd.api.types.is_float_dtype(values.dtype):
        # A column of ids or counts with gaps is stored as float: 9.0 means 9.
        whole = values.dropna()
        if (whole == np.floor(whole)).all():
            values = values.astype("Int64")
    elif pd.api.types.is_datetime64_any_dtype(values.dtype):
        values = values.dt.strftime("%Y-%m-%d")
    text = values.astype("str").str.strip()
    return text.where(values.notna() & ~text.isin(MISSING), np.nan)


def _reservations(values: pd.DataFrame) -> pd.DataFrame:
    arrival = pd.to_datetime(
        pd.DataFrame(
            {
                "year": pd.to_numeric(values["arrival_date_year"], errors="coerce"),
                "month": values["arrival_date_month"].map(MONTHS),
                "day": pd.to_numeric(values["arrival_date_day_of_month"], errors="coerce"),
            }
        ),
        errors="coerce",
    )
    lead = pd.to_timedelta(pd.to_numeric(values["lead_time"], errors="coerce"), unit="D", errors="coerce")
    ours = pd.DataFrame({name: values[theirs] for name, theirs in RENAMED.items()})
    for name in ("agent", "company"):
        # Written as 9.0 by whoever saved the table with gaps in this column.
        ours[name] = ours[name].str.removesuffix(".0")
    ours["arrival_on"] = arrival
    ours["booked_on"] = arrival - lead
    return coerce(ours)


def _listed(names: Iterable[str]) -> str:
    """At most eight of the names, so that a message stays one sentence."""
    names = list(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
