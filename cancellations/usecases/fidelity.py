"""How like a real table a simulated one is: margins, groups, delays, and what a model learns of either."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pandas as pd

from cancellations.domain.comparison import log_loss
from cancellations.domain.features import build, past_of
from cancellations.domain.fidelity import (
    DELAYS,
    GROUPS,
    MARGINS,
    RATES,
    SECTIONS,
    Curve,
    Fidelity,
    Learned,
    Line,
)
from cancellations.domain.labels import CANCELLED, Examples, LabelRule
from cancellations.domain.recipes import Recipe
from cancellations.domain.reservation import GROUP_SIZE, Status, group_keys, sized
from cancellations.errors import NotEnoughData
from cancellations.ports import Source, Trainer

# Of the days of booking the last part tests what was learned from the first.
TRAINING_SHARE = 0.7
# A category is shown when it holds so much of either table; a rate when it stands on so many bookings.
SMALLEST_SHARE, FEWEST = 0.01, 200
LEADS = (0, 7, 30, 90, 180)
GROUP_SIZES = (2, 5, 15, 50)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CATEGORIES = ("hotel", "market_segment", "deposit_type", "customer_type", "meal", "room_type")
# The share that the curves of a picture are drawn at.
STEPS = tuple(float(x) for x in np.linspace(0, 1, 101))


def compare(real: Source, simulated: Source, trainer: Trainer, rule: LabelRule, seed: int) -> Fidelity:
    """Both tables side by side; they should span the same days of booking and longest lead.

    Only bookings with an outcome count. The model is `trainer`'s, with no weights, on features as of each
    booking. Raises `NotEnoughData` when a table has too few bookings to train and test on.
    """
    tables = {"real": _read(real), "simulated": _read(simulated)}
    begins = max(t["booked_on"].min() for t in tables.values())
    ends = min(t["booked_on"].max() for t in tables.values())
    tables = {name: t[t["booked_on"].between(begins, ends)].reset_index(drop=True) for name, t in tables.items()}
    for name, (table, source) in zip(tables, zip(tables.values(), (real, simulated), strict=True), strict=True):
        if len(table) < 2 * FEWEST:
            raise NotEnoughData(
                f"{source.name}, the {name} table, holds {len(table):,} bookings with an outcome on days that both"
                f" tables span; {2 * FEWEST:,} are needed to compare."
            )
    figures = {name: dict(_figures(table)) for name, table in tables.items()}
    names = list(dict.fromkeys([*figures["real"], *figures["simulated"]]))
    lines = [
        Line(section, figure, *(each.get((section, figure), np.nan) for each in figures.values()))
        for section, figure in names
    ]
    return Fidelity(
        real=real.name,
        simulated=simulated.name,
        rows=(len(tables["real"]), len(tables["simulated"])),
        booked=(begins.date(), ends.date()),
        lines=tuple(sorted(lines, key=lambda line: SECTIONS.index(line.section))),
        learned=tuple(_learned(tables, trainer, rule, seed)),
        curves=tuple(_curves(tables)),
    )


def _read(source: Source) -> pd.DataFrame:
    read = [(b.reservations, b.outcomes) for b in source.batches()]
    reservations = [r for r, _ in read if r is not None]
    if not reservations:
        raise NotEnoughData(f"{source.name} holds no reservations to compare.")
    whole = sized(pd.concat(reservations, ignore_index=True))
    rows = whole.merge(pd.concat([o for _, o in read], ignore_index=True), on="reservation_id")
    rows = rows.dropna(subset=["booked_on", "arrival_on", "status", "known_on", "weekend_nights", "week_nights"])
    return rows.assign(
        lead=(rows["arrival_on"] - rows["booked_on"]).dt.days,
        nights=rows["weekend_nights"] + rows["week_nights"],
        label=rows["status"].isin(CANCELLED).astype(float),
        group=group_keys(rows),
    )


def design_effect(label: pd.Series, group: pd.Series) -> float:
    """How many times the variance of the mean label is that of as many single draws."""
    rate = float(label.mean())
    spread = len(label) * rate * (1 - rate)
    return float(((label - rate).groupby(group).sum() ** 2).sum() / spread) if spread else np.nan


def _figures(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], float]]:
    yield from _margins(rows)
    yield from _rates(rows)
    size = rows[GROUP_SIZE]
    for least in GROUP_SIZES:
        yield (GROUPS, f"bookings in groups of {least} or more"), float((size >= least).mean())
    yield (GROUPS, "largest group"), float(size.max())
    yield (GROUPS, "design effect"), design_effect(rows["label"], rows["group"])
    for (hotel, segment), own in rows.groupby(["hotel", "market_segment"], observed=True):
        if len(own) >= FEWEST:
            yield (GROUPS, f"design effect, {hotel}, {segment}"), design_effect(own["label"], own["group"])
    gone = rows[rows["label"] == 1]
    yield (DELAYS, "no-shows among the cancelled"), float((gone["status"] == Status.NO_SHOW.value).mean())
    called = gone[(gone["status"] == Status.CANCELED.value) & (gone["lead"] > 0)]
    elapsed = (called["known_on"] - called["booked_on"]).dt.days / called["lead"]
    for quantile in QUANTILES:
        yield (DELAYS, f"share of the lead elapsed, quantile {quantile:g}"), float(elapsed.quantile(quantile))
    kept = rows[rows["label"] == 0]
    late = (kept["known_on"] - kept["arrival_on"]).dt.days - kept["nights"]
    yield (DELAYS, "stays told on the day of check-out"), float((late == 0).mean())


def _margins(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], float]]:
    for name, told in _MEASURED.items():
        for quantile in QUANTILES:
            yield (MARGINS, f"{told}, quantile {quantile:g}"), float(rows[name].quantile(quantile))
    yield (MARGINS, "special requests, mean"), float(rows["special_requests"].mean())
    yield (MARGINS, "adults, mean"), float(rows["adults"].mean())
    yield (MARGINS, "with children"), float((rows["children"] > 0).mean())
    yield (MARGINS, "repeated guests"), float((rows["repeated_guest"] > 0).mean())
    yield (MARGINS, "cancelled before"), float((rows["previous_cancellations"] > 0).mean())
    for name in CATEGORIES:
        for value, share in rows[name].value_counts(normalize=True).items():
            if share >= SMALLEST_SHARE:
                yield (MARGINS, f"{name} {value}"), float(share)


_MEASURED = {"lead": "lead, days", "nights": "nights", "price": "price"}


def _rates(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], float]]:
    yield (RATES, "all"), float(rows["label"].mean())
    kinds = [
        ("lead", np.searchsorted(LEADS, rows["lead"]), [_span(i) for i in range(len(LEADS) + 1)]),
        ("special requests", rows["special_requests"].fillna(0).clip(upper=2), ["0", "1", "2 or more"]),
        ("group of", np.searchsorted(GROUP_SIZES, rows[GROUP_SIZE], side="right"), [_sizes(i) for i in range(5)]),
    ]
    for told, kind, names in kinds:
        for value, own in rows.groupby(np.asarray(kind)):
            if len(own) >= FEWEST:
                yield (RATES, f"{told} {names[int(value)]}"), float(own["label"].mean())
    for name in CATEGORIES[:4]:
        for value, own in rows.groupby(name, observed=True):
            if len(own) >= max(FEWEST, SMALLEST_SHARE * len(rows)):
                yield (RATES, f"{name} {value}"), float(own["label"].mean())


def _span(step: int) -> str:
    if step == 0:
        return "0 days"
    if step == len(LEADS):
        return f"above {LEADS[-1]} days"
    return f"{LEADS[step - 1] + 1} to {LEADS[step]} days"


def _sizes(step: int) -> str:
    if step == 0:
        return "1"
    return (
        f"{GROUP_SIZES[step - 1]} to {GROUP_SIZES[step] - 1}"
        if step < len(GROUP_SIZES)
        else f"{GROUP_SIZES[-1]} or more"
    )


def _learned(tables: dict[str, pd.DataFrame], trainer: Trainer, rule: LabelRule, seed: int) -> Iterator[Learned]:
    split = {name: _split(table, rule) for name, table in tables.items()}
    models = {
        name: trainer.fit(features, [_equally(earlier, label)], Recipe(), seed)
        for name, (features, label, earlier) in split.items()
    }
    for trained_on, scored_on in (("real", "real"), ("simulated", "real"), ("simulated", "simulated")):
        features, label, earlier = split[scored_on]
        answer = models[trained_on].predict(features[~earlier])
        truth = label[~earlier]
        yield Learned(
            trained_on,
            scored_on,
            int(split[trained_on][2].sum()),
            len(truth),
            area_under_curve(truth, answer),
            float(log_loss(truth, answer).mean()),
        )


def _split(table: pd.DataFrame, rule: LabelRule) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Features, labels, and which rows come before the split."""
    first, last = table["booked_on"].min(), table["booked_on"].max()
    until = first + timedelta(days=int((last - first).days * TRAINING_SHARE))
    earlier = (table["booked_on"] <= until).to_numpy()
    label = table["label"].to_numpy()
    for part in (earlier, ~earlier):
        if part.sum() < FEWEST or len(np.unique(label[part])) < 2:
            raise NotEnoughData(
                f"{int(part.sum()):,} bookings before or after {until.date()} are too few to train or test on."
            )
    return build(table, past_of(table), rule), label, earlier


def area_under_curve(label: np.ndarray, probability: np.ndarray) -> float:
    """Chance that a cancelled booking has the higher probability of the two; ties count half."""
    ranks = pd.Series(probability).rank().to_numpy()
    positive = label == 1
    count = int(positive.sum())
    others = len(label) - count
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def _curves(tables: dict[str, pd.DataFrame]) -> Iterator[Curve]:
    def both(name: str, column: str, chosen: str | None = None) -> Curve:
        values = [
            tuple(t[column][t[chosen] == 1].dropna().quantile(STEPS) if chosen else t[column].dropna().quantile(STEPS))
            for t in tables.values()
        ]
        return Curve(name, *values)

    for name, told in _MEASURED.items():
        yield both(told, name)
    for table in tables.values():
        table["elapsed"] = ((table["known_on"] - table["booked_on"]).dt.days / table["lead"].clip(lower=1)).clip(0, 1)
    yield both("cancellations: share of the lead elapsed", "elapsed", "label")


def _equally(rows: np.ndarray, label: np.ndarray) -> Examples:
    """Some bookings, each counting as much as any other."""
    at = np.flatnonzero(rows)
    return Examples(at, label[at], np.ones(len(at)))
