"""The bookings of a replay, loaded by the rules of a real load, with features as of each booking's own day."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from cancellations.bootstrap import App, database_of, open_source
from cancellations.domain.labels import CANCELLED, LabelRule, maturity
from cancellations.domain.reservation import COLUMNS, Column, Status
from cancellations.errors import BadInput
from cancellations.settings import Settings
from cancellations.usecases.point_in_time import as_scored

HISTORY, BUILT, RAW = "history.parquet", "features.parquet", "raw.parquet"
EXTRAS, MADE = "extras.json", "world.json"


@dataclass(frozen=True)
class World:
    """Bookings in order of booking, and how they ended; `built` their features, `raw` what the source said.

    All three have one row for each booking and one order. A booking's features hold what could be known when
    it was made, so they are the same on whatever day of the replay they are asked for.
    """

    history: pd.DataFrame
    built: pd.DataFrame
    raw: pd.DataFrame
    rule: LabelRule
    digest: str
    extras: tuple[Column, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """What a booking brings: the canonical columns, and those that its mapping declares."""
        return (*COLUMNS, *self.extras)

    @property
    def span(self) -> tuple[date, date]:
        booked_on = self.history["booked_on"]
        return booked_on.min().date(), booked_on.max().date()

    def rows(self, after: date, until: date) -> slice:
        """Positions of the bookings made in `(after, until]`."""
        booked_on = self.history["booked_on"]
        first, last = booked_on.searchsorted([pd.Timestamp(after), pd.Timestamp(until)], side="right")
        return slice(int(first), int(last))

    @property
    def known_until(self) -> date:
        """The last day of which outcomes are known: what matures later may still be cancelled.

        By stays, which no table tells ahead. A cancellation without a day counts from its booking's maturity
        on, which may lie beyond the day on which the table was written; it is asked where nobody stayed.
        """
        stayed = self.history[self.history["status"] == Status.STAYED.value]
        days = [stayed["known_on"], maturity(stayed, self.rule)] if len(stayed) else [self.history["known_on"]]
        return pd.concat(days).max().date()

    def final(self, after: date, until: date) -> np.ndarray:
        """Which of the bookings made in `(after, until]` have matured by the last day of known outcomes, bool.

        By maturity and not by whether an outcome is there: of bookings that lie ahead only the cancelled have one.
        """
        matured_on = maturity(self.history.iloc[self.rows(after, until)], self.rule)
        return (matured_on <= pd.Timestamp(self.known_until)).to_numpy()

    def ended(self, after: date, until: date) -> np.ndarray:
        """How the bookings made in `(after, until]` ended, as far as known: 1.0 cancelled or no-show, 0.0 kept.

        Of those that are not `final` it says nothing.
        """
        return self.history["status"].iloc[self.rows(after, until)].isin(CANCELLED).to_numpy(dtype=float)


def build_world(
    locator: str, settings: Settings, folder: Path, mapping: Path | None = None, say: Callable[[str], None] = print
) -> World:
    """Loads a source into a store of its own in `folder`; the same source again is read from there.

    Raises `BadInput` where the folder holds another source's bookings, or the same by other rules.
    """
    source = open_source(locator, settings, mapping)
    # Whatever makes other bookings of the same file.
    limits = {name: str(getattr(settings, name)) for name in ("max_lead_days", "booked_from", "booked_until")}
    read = {"source": source.name, "fingerprint": source.fingerprint(), "mapping": source.mapping}
    made = {**read, "rule": repr(settings.labels), **limits}
    if (folder / MADE).exists():
        if json.loads((folder / MADE).read_text()) != made:
            raise BadInput(
                f"{folder} holds a replay of other bookings, or of these by another mapping, label rule or selection"
                f" (what it was made from: {folder / MADE}); name another one with --folder, or delete it"
            )
        return open_world(folder, settings.labels)
    folder.mkdir(parents=True, exist_ok=True)
    # Nothing that a house's settings say of its databases concerns this one.
    own = settings.model_copy(update={"home": folder, "database_url": "", "watch": None})
    database_of(own).upgrade()
    app = App(own)
    say(f"loading {source.name}")
    counted = app.ingest(source, until=date.max)
    say(f"{counted.counts.loaded:,} bookings; {counted.counts.quarantined:,} rows in quarantine")
    with app.store.begin() as work:
        history = work.history(booked_until=date.max, known_until=date.max)
        built = as_scored(work, history, settings.labels)
        extras = work.extra_columns()
    told = [
        batch.raw.assign(reservation_id=batch.reservations["reservation_id"])
        for batch in source.batches()
        if batch.reservations is not None
    ]
    raw = pd.concat(told).drop_duplicates("reservation_id", keep="last").set_index("reservation_id")
    raw = raw.reindex(history["reservation_id"]).reset_index(drop=True)
    history.to_parquet(folder / HISTORY)
    built.to_parquet(folder / BUILT)
    raw.astype(object).where(raw.notna(), None).astype("str").to_parquet(folder / RAW)
    # Last: it says that the others are whole.
    (folder / EXTRAS).write_text(json.dumps([asdict(column) for column in extras]))
    (folder / MADE).write_text(json.dumps(made, indent=1))
    return open_world(folder, settings.labels)


def open_world(folder: Path, rule: LabelRule) -> World:
    """The world that `build_world` left in a folder."""
    history, built, raw = (pd.read_parquet(folder / name) for name in (HISTORY, BUILT, RAW))
    for name in built.columns:
        if not pd.api.types.is_numeric_dtype(built[name]):
            built[name] = built[name].astype(object)
    extras = tuple(Column(**column) for column in json.loads((folder / EXTRAS).read_text()))
    digest = pd.util.hash_pandas_object(history, index=False).sum()
    return World(history, built, raw, rule, f"{int(digest) & 0xFFFFFFFFFFFF:012x}", extras)
