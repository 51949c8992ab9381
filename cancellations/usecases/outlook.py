"""The morning's outlook: what cancellations will do to the coming nights, for people and for other systems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from cancellations.domain.events import OutlookPublished
from cancellations.domain.labels import LabelRule
from cancellations.domain.outlook import FIGURES, Outlook, by_night, stay
from cancellations.domain.timing import MEMORY_DAYS, learn_timing
from cancellations.errors import Refused
from cancellations.ports import Exports, Pictures, Store

TABLES = ("scores", "nights", "riskiest")
PICTURE = "outlook.png"
# Hotels in the picture and in the mail; more are no picture that anybody reads. Files have all of them.
HOTELS_SHOWN = 4
SPANS = (7, 14)
RISKIEST_MAILED = 10


@dataclass(frozen=True)
class Published:
    """What a morning left: the outlook, its files, its picture (None with nothing to draw), whether a mail
    is on its way or has been."""

    outlook: Outlook
    files: tuple[Path, ...]
    picture: bytes | None
    mailed: bool


def look_ahead(store: Store, *, as_of: date, horizon: int, share: float, rule: LabelRule) -> Outlook:
    """The outlook of a day, from what is served of the bookings that are open on it.

    Raises `Refused` without a champion. Without a booking that is open and scored its tables are empty.
    """
    evening = as_of - timedelta(days=1)
    with store.begin() as work:
        if work.standing().champion is None:
            raise Refused(
                "there is no champion yet, so no booking has a score; train the first one: cancellations retrain"
            )
        history = work.history(as_of, as_of, rule.maturing(evening - timedelta(days=MEMORY_DAYS + 1)))
        served = work.served(as_of)
    still_open = history[(history["arrival_on"] >= pd.Timestamp(as_of)) & history["known_on"].isna()]
    timing = learn_timing(history, rule, evening)
    bookings = stay(served, timing, as_of)
    return Outlook(
        as_of=as_of,
        horizon=horizon,
        share=share,
        version="+".join(sorted(bookings["model_version"].astype(str).unique(), key=lambda v: (len(v), v))),
        bookings=bookings,
        nights=by_night(bookings, as_of, horizon, share),
        unscored=int((~still_open["reservation_id"].isin(served["reservation_id"])).sum()),
        day_use=int((bookings["nights"] == 0).sum()),
        learned_from=timing.cancellations,
    )


def tables(outlook: Outlook, riskiest: int) -> dict[str, pd.DataFrame]:
    """The outlook as tables that stand by themselves: each row tells its day and version.

    `scores`: a row for each booking, by arrival; `probability` is that at booking, `remaining` that of
    today. `nights`: one for each hotel and night. `riskiest`: the bookings with the most value at risk.
    """
    known = outlook.bookings.assign(as_of=pd.Timestamp(outlook.as_of), version=outlook.bookings["model_version"])
    scores = known.sort_values(["arrival_on", "reservation_id"])
    first = outlook.riskiest(riskiest).index
    risky = known.loc[first].assign(rank=range(1, len(first) + 1))
    nights = outlook.nights.assign(as_of=pd.Timestamp(outlook.as_of), version=outlook.version, interval=outlook.share)
    booking = ["reservation_id", "hotel", "arrival_on", "nights"]
    chosen = {
        "scores": scores[["as_of", *booking, "probability", "remaining", "version", "arm", "hold_out"]],
        "nights": nights[["as_of", "hotel", "night", *FIGURES, "interval", "version"]],
        "riskiest": risky[
            ["as_of", "rank", *booking, "price", "value", "remaining", "value_at_risk", "group_size", "version"]
        ],
    }
    return {name: table.reset_index(drop=True) for name, table in chosen.items()}


def publish(
    outlook: Outlook,
    *,
    store: Store,
    exports: Exports,
    pictures: Pictures,
    folder: Path,
    riskiest: int,
    currency: str,
    environment: str,
    readers: Sequence[str],
    clock: Callable[[], datetime],
) -> Published:
    """Writes the day's tables and picture to `folder/DAY`, and a mail to the readers into the outbox.

    Repeating it writes the files anew and mails nothing more. There is no mail without readers, nor about
    nothing on the books.
    """
    empty = outlook.bookings.empty
    picture = None if empty else draw(outlook, pictures, currency)
    drawn = {} if picture is None else {PICTURE: picture}
    files = exports.to_folder(tables(outlook, riskiest), drawn, folder / outlook.as_of.isoformat())
    mailed = bool(readers) and not empty
    if mailed:
        fact = _fact(outlook, riskiest, currency, environment, readers)
        with store.begin() as work:
            work.add_messages(fact.messages(), clock())
            work.commit()
    return Published(outlook, files, picture, mailed)


def draw(outlook: Outlook, pictures: Pictures, currency: str) -> bytes:
    return pictures.outlook(outlook.as_of, shown(outlook.nights), currency)


def largest(nights: pd.DataFrame) -> list[str]:
    """The hotels that people are shown: those with the most on the books, the largest first."""
    size = nights.groupby("hotel")["on_books"].sum().sort_values(ascending=False, kind="stable")
    return [str(hotel) for hotel in size.index[:HOTELS_SHOWN]]


def shown(nights: pd.DataFrame) -> pd.DataFrame:
    """The nights of the hotels that people are shown."""
    return pd.concat([nights[nights["hotel"] == hotel] for hotel in largest(nights)] or [nights])


def _fact(outlook: Outlook, riskiest: int, currency: str, environment: str, readers: Sequence[str]) -> OutlookPublished:
    weeks: list[dict[str, Any]] = []
    of = outlook.nights["hotel"].nunique()
    for days in SPANS:
        by_hotel = outlook.span(days).set_index("hotel", drop=False)
        rows = [outlook.total(days), *(by_hotel.loc[hotel] for hotel in largest(outlook.nights))]
        weeks.extend({"days": days, "of": of, **{str(k): _plain(v) for k, v in row.items()}} for row in rows)
    risky = tables(outlook, min(riskiest, RISKIEST_MAILED))["riskiest"].drop(columns=["as_of", "version"])
    return OutlookPublished(
        as_of=outlook.as_of,
        version=outlook.version,
        share=outlook.share,
        currency=currency,
        environment=environment,
        readers=tuple(readers),
        unscored=outlook.unscored,
        weeks=tuple(weeks),
        riskiest=_lists(risky),
        nights=_lists(shown(outlook.nights)),
    )


def _lists(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): [_plain(v) for v in table[name]] for name in table.columns}


def _plain(value: Any) -> Any:
    """A cell as JSON knows it: days as text, figures rounded to what people read, None where missing."""
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.date().isoformat()
    if isinstance(value, str):
        return value
    return round(float(value), 4) if float(value) != int(value) else int(value)


def nights_of(told: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """The nights that a message carries, as `domain.outlook.by_night` gives them."""
    nights = pd.DataFrame(dict(told))
    figures = nights[list(FIGURES)].astype("float64")
    return nights.assign(night=pd.to_datetime(nights["night"]), **{str(k): v for k, v in figures.items()})
