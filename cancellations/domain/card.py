"""The model card of a version: what it is, what it was made of, what it is worth, and what it cannot know.

After Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv 1810.03993), for readers of whom
one is a data scientist and the other a revenue manager.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd

from cancellations.domain.evaluation import AUC, BIAS, BINS, CALIBRATION_ERROR, FIGURES, Evaluation, Interval

TOP = 10
MONTHS = 12  # of a longer history the months before are one row


@dataclass(frozen=True)
class MaturedMonth:
    """Training bookings whose outcomes became final in one month."""

    month: str  # YYYY-MM
    bookings: int
    cancel_rate: float


def matured_months(matured_on: pd.Series, label: np.ndarray) -> tuple[MaturedMonth, ...]:
    """Maturity dates and labels of the training bookings, counted by month; oldest first."""
    month = pd.to_datetime(matured_on).dt.strftime("%Y-%m").to_numpy()
    counted = pd.DataFrame({"month": month, "label": label}).groupby("month")["label"].agg(["size", "mean"])
    return tuple(MaturedMonth(str(m), int(n), float(rate)) for m, n, rate in counted.sort_index().itertuples())


@dataclass(frozen=True)
class CardFacts:
    """What a card tells. `version` is None where the card is written before the version has its number.

    `as_of`: the day on which training looked at the world. `booked_from`, `booked_until`: booking dates of
    the training bookings; `sources`: where they were loaded from. `maturity`: when an outcome counts, as
    half a sentence. `backtest_from`, `backtest_until`: first and last maturity date of the bookings on which
    `evaluation`, and `champion_evaluation` for the champion that it was compared with, were made. `gain`:
    log loss that it saves against the champion, per booking of that cohort. `importance`: shares that sum
    to 1.
    """

    request_id: str
    reason: str
    as_of: date
    rows: int
    cancel_rate: float
    booked_from: date
    booked_until: date
    months: tuple[MaturedMonth, ...]
    maturity: str
    recipe: str
    parameters: Mapping[str, object]
    backtest_from: date
    backtest_until: date
    evaluation: Evaluation
    importance: Mapping[str, float]
    model: str = ""
    version: str | None = None
    data_digest: str = ""
    code_version: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    champion: str | None = None
    champion_evaluation: Evaluation | None = None
    gain: Interval | None = None
    gate: tuple[str, ...] = field(default=())


def model_card(facts: CardFacts) -> str:
    """Markdown; the same facts give the same text."""
    name = facts.model if facts.version is None else f"{facts.model}, version {facts.version}"
    parts = [
        f"# {name}",
        _what(facts),
        "## Use\n\n" + USE,
        "## Data\n\n" + _data(facts),
        "## Recipe\n\n" + _recipe(facts),
        "## Figures\n\n" + _figures(facts),
        "## Calibration\n\n" + _calibration(facts.evaluation),
        "## What it looks at\n\n" + _importance(facts.importance),
        "## Limits\n\n" + _limits(facts),
        "## Reproduce, compare, roll back\n\n" + _commands(facts),
        "## Made with\n\n" + _table(("package", "version"), [("code", facts.code_version), *facts.packages.items()]),
    ]
    return "\n\n".join(parts) + "\n"


USE = """\
- **For** the expected number of cancellations and the revenue at risk by night, for lists of the bookings that deserve
  a call, and as one of the inputs of overbooking. Read sums and ranks; a single booking's probability is a rate among
  bookings like it.
- **Not for** refusing, pricing or treating a guest by the score; for bookings of hotels that it was not trained on; for
  bookings that have arrived; or as the only reason of a decision that a guest cannot appeal."""


def _what(facts: CardFacts) -> str:
    return (
        "The probability that a reservation is cancelled or ends as a no-show, from what was known on the day it was"
        f" made. Trained as of {facts.as_of} for request `{facts.request_id}`: {facts.reason}."
    )


def _data(facts: CardFacts) -> str:
    told = [
        ("as of", str(facts.as_of)),
        ("bookings", f"{facts.rows:,}, all with a final outcome"),
        ("booked", f"{facts.booked_from} to {facts.booked_until}"),
        ("cancelled or no-show", f"{facts.cancel_rate:.1%}"),
        ("an outcome counts", facts.maturity),
        ("sources", ", ".join(facts.sources) if facts.sources else "not on record"),
        ("digest", f"`{facts.data_digest}`"),
    ]
    return f"{_table(('', ''), told)}\n\n{_months(facts.months)}"


def _months(months: tuple[MaturedMonth, ...]) -> str:
    earlier, shown = months[:-MONTHS], months[-MONTHS:]
    rows = [(m.month, f"{m.bookings:,}", f"{m.cancel_rate:.1%}") for m in shown]
    if earlier:
        bookings = sum(m.bookings for m in earlier)
        rate = sum(m.bookings * m.cancel_rate for m in earlier) / bookings
        span = dict.fromkeys((earlier[0].month, earlier[-1].month))
        rows.insert(0, (" to ".join(span), f"{bookings:,}", f"{rate:.1%}"))
    return _table(("outcomes final in", "bookings", "cancelled"), rows)


def _recipe(facts: CardFacts) -> str:
    others = {name: value for name, value in facts.parameters.items() if name != "recipe"}
    return f"`{facts.recipe}`\n\n{_table(('parameter', 'value'), others.items())}"


def _figures(facts: CardFacts) -> str:
    found, theirs = facts.evaluation, facts.champion_evaluation
    head = (
        f"On {found.rows:,} bookings of {found.groups:,} booking groups whose outcomes became final"
        f" {facts.backtest_from} to {facts.backtest_until}, by a model of this recipe that was fitted on what had"
        " matured before. In brackets the 95 % interval, by a bootstrap of whole booking groups."
    )
    columns = ["figure", "this version"]
    rows = [[title, _bounded(found.figures.get(name))] for name, title in FIGURES.items()]
    if facts.champion is None:
        against = "There was no champion to compare it with."
    elif theirs is None:
        against = f"Figures of champion {facts.champion} on these bookings are not on record."
    else:
        columns.append(f"champion {facts.champion}")
        for row, name in zip(rows, FIGURES, strict=True):
            row.append(_bounded(theirs.figures.get(name)))
        against = f"Against champion {facts.champion} on the same bookings {_gain(facts.gain)}."
    parts = [head, _table(columns, rows), against]
    if facts.gate:
        parts.append("The gate: " + "; ".join(facts.gate) + ".")
    return "\n\n".join(parts)


def _gain(gain: Interval | None) -> str:
    if gain is None:
        return "the gain is not on record"
    told = f"it saves {gain.value:+.4f} of log loss per booking"
    if gain.low is None or gain.high is None:
        return f"{told}, by too few groups for an interval"
    sure = "which may be chance" if gain.low <= 0 <= gain.high else "which chance does not explain"
    return f"{told} ({gain.low:+.4f} to {gain.high:+.4f}), {sure}"


def _calibration(evaluation: Evaluation) -> str:
    bias, error = evaluation.figures.get(BIAS), evaluation.figures.get(CALIBRATION_ERROR)
    if bias is None or error is None:
        return "Not measured."
    off = f"On average its probabilities are {_points(bias.value)} too {'high' if bias.value > 0 else 'low'}"
    if bias.low is not None and bias.high is not None and bias.low <= 0 <= bias.high:
        off += ", which may be chance"
    gaps = f"In {BINS} bins of as many bookings each the mean probability is {_points(error.value)} off on average"
    if error.low == 0:
        gaps += "; scores without any fault can look like that on so few bookings"
    return f"{off}. {gaps}."


def _importance(importance: Mapping[str, float]) -> str:
    top = sorted(importance.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP]
    rest = sum(importance.values()) - sum(share for _, share in top)
    table = _table(("feature", "share"), [(name, f"{share:.1%}") for name, share in top])
    return (
        "Permutation importance: by how much the log loss grows when a column is shuffled, as a share of all columns'."
        f" What it looks at is no cause.\n\n{table}\n\nAll others together: {max(rest, 0.0):.1%}."
    )


def _limits(facts: CardFacts) -> str:
    auc = facts.evaluation.figures.get(AUC)
    order = "" if auc is None else f" Of a cancelled and a kept booking it ranks {auc.value:.0%} of pairs rightly."
    return "\n".join(
        (
            f"- **What it cannot know.** It sees the day of booking and nothing after it: no change, payment or call,"
            f" no event in town, no price of a competitor.{order}",
            f"- **What a label means.** 1 is a cancellation or a no-show that was recorded in time; 0 is that none was:"
            f" {facts.maturity}. What is recorded later stays a kept booking here. Where staff act on scores the label"
            " tells of the act as well.",
            "- **Groups.** Bookings made together come or cancel together, so the rows hold less evidence than their"
            " number. The intervals resample groups; shocks that whole days share can make them too narrow still.",
            f"- **Delayed labels.** Bookings with long leads that were made shortly before {facts.as_of} had no final"
            f" outcome and are not in it. The figures tell of {facts.backtest_from} to {facts.backtest_until} and of no"
            " other season.",
            "- **Not itself tested.** The version was fitted again on all rows above after the backtest; its live"
            " figures come from the trial and the monitor.",
        )
    )


def _commands(facts: CardFacts) -> str:
    version = facts.version or "VERSION"
    other = facts.champion or "OTHER"
    return "\n".join(
        (
            "```sh",
            f"cancellations reproduce {version}  # fits it again from its own data, and compares probabilities",
            f"cancellations compare {other} {version}  # both on the same bookings",
            f"cancellations explain {version}  # why it was asked for, and what became of it",
            'cancellations rollback --reason "…"  # the champion before it serves again',
            "```",
        )
    )


def _points(share: float) -> str:
    return f"{abs(100 * share):.1f} points"


def _bounded(interval: Interval | None) -> str:
    return "cannot be told" if interval is None else str(interval)


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = [str(name) for name in columns]
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    """One line that ends no cell."""
    return " ".join(str(value).split()).replace("|", "\\|")
