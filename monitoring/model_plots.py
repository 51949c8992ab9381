"""The pictures of versions: what one is worth on bookings that it was not fitted on, and two side by side.

Markers, hatches and line styles carry the meaning; colour only repeats it. Intervals are those of
`domain.evaluation`: 95 %, by booking group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cancellations.domain.comparison import log_loss
from cancellations.domain.evaluation import (
    AUC,
    BIAS,
    CALIBRATION_ERROR,
    FIGURES,
    LOG_LOSS,
    Cohort,
    Evaluation,
    Interval,
    equal_count_bins,
    means,
)
from monitoring.ink import BAND, DRIFTED, GAIN, INK, QUIET, STEADY, frame, png

SIZE, SMALL = 12.5, 11.0
SCORE_BINS = 25
BARS = 10
SEGMENTS = 8
WEEKS = 16  # of a longer cohort the last ones
TICKS = 6
NAME = 20  # letters of a version's name that panels have room for
# The share of bookings on which two versions differ most that is marked, and how many at most.
APART, MARKED = 0.02, 150
# Intervals need no seed of the caller's: the same bookings give the same picture.
SEED = 0

# Of the panels: left edge, lower edge, and what stays free at the right, in shares of the picture.
PLACES = ((0.075, 0.56, 0.5), (0.575, 0.56, 0.0), (0.075, 0.12, 0.5), (0.68, 0.12, 0.0))

DASHES = (0, (4, 2))
LOSS = "#f0d3cb"
STEPS = (1, 2, 2.5, 5, 10)  # between the numbers under an axis
HUE = LinearSegmentedColormap.from_list("bookings", ["#edf2f7", BAND, GAIN, "#12304a"])


def draw_version(
    name: str,
    cohort: Cohort,
    probability: np.ndarray,
    evaluation: Evaluation,
    base_rate: float,
    importance: Mapping[str, float],
) -> bytes:
    """PNG, 1200 x 1020 pixels; `base_rate` is the cancelled share of the bookings that it was fitted on."""
    canvas, panels = _canvas(f"{_short(name, 32)} on bookings that it was not fitted on", _told(cohort, evaluation))
    reliability, scores, weeks, columns = panels
    frame(reliability, "Reliability: does 30 % mean 30 of 100?")
    _reliability(reliability, cohort, probability, "o", GAIN, "cancelled share of a tenth of the bookings")
    _key(reliability)
    _scores(scores, cohort, probability)
    _weekly_loss(weeks, cohort, probability, base_rate)
    _importance(columns, importance)
    return png(canvas)


def draw_comparison(first: str, second: str, cohort: Cohort, theirs: np.ndarray, ours: np.ndarray) -> bytes:
    """PNG, 1200 x 1020 pixels; `theirs` are the probabilities of `first`, `ours` of `second`."""
    gain = log_loss(cohort.label, theirs) - log_loss(cohort.label, ours)
    whole = means(gain, np.zeros(len(gain), dtype="int64"), cohort.groups, SEED)
    first, second = _short(first, NAME), _short(second, NAME)
    told = f"log loss saved by {second}, per booking: {_signed(whole[0] if whole else None)}"
    canvas, panels = _canvas(f"{first} and {second} on the same bookings", (_cohort(cohort), told))
    reliability, weeks, bookings, segments = panels
    frame(reliability, "Reliability: does 30 % mean 30 of 100?")
    _reliability(reliability, cohort, theirs, "s", DRIFTED, first)
    _reliability(reliability, cohort, ours, "o", GAIN, second)
    _key(reliability)
    _weekly_gain(weeks, cohort, gain, first, second)
    _apart(bookings, cohort, theirs, ours, first, second)
    _segments(segments, cohort, gain, first, second)
    return png(canvas)


def _canvas(title: str, told: Sequence[str]) -> tuple[FigureCanvasAgg, tuple[Axes, Axes, Axes, Axes]]:
    """Title and two lines above four panels, row by row; the last one has room for names at its left."""
    figure = Figure(figsize=(12, 10.2), dpi=100, facecolor="white")
    panels = tuple(figure.add_axes((left, low, 0.98 - left - gap, 0.275)) for left, low, gap in PLACES)
    figure.text(0.02, 0.955, title[:1].upper() + title[1:], size=20, weight="bold", color=INK, parse_math=False)
    for line, text in enumerate(told):
        figure.text(0.02, 0.925 - 0.026 * line, text, size=SIZE, color=QUIET, parse_math=False)
    first, second, third, fourth = panels
    return FigureCanvasAgg(figure), (first, second, third, fourth)


def _cohort(cohort: Cohort) -> str:
    if len(cohort.label) == 0:
        return "no booking has matured"
    first, last = (pd.Timestamp(day) for day in (cohort.matured_on.min(), cohort.matured_on.max()))
    groups = len(np.unique(cohort.groups))
    return (
        f"{len(cohort.label):,} bookings of {groups:,} groups, final {first:%Y-%m-%d} to {last:%Y-%m-%d},"
        f" {cohort.label.mean():.1%} cancelled"
    )


def _told(cohort: Cohort, evaluation: Evaluation) -> tuple[str, str]:
    shown = (AUC, LOG_LOSS, CALIBRATION_ERROR, BIAS)
    figures = [f"{FIGURES[name]} {_bounded(evaluation.figures.get(name))}" for name in shown]
    return _cohort(cohort), "  ·  ".join(figures)


def _reliability(axes: Axes, cohort: Cohort, probability: np.ndarray, marker: str, color: str, name: str) -> None:
    draw_reliability(axes, cohort.label, probability, cohort.groups, marker, color, name)
    _named(axes, "mean probability", "cancelled")


def draw_reliability(
    axes: Axes, label: np.ndarray, probability: np.ndarray, groups: np.ndarray, marker: str, color: str, name: str
) -> None:
    """What became of bookings, in bins of as many of them, by the probability that they were given."""
    bins = equal_count_bins(probability)
    rates = means(label, bins, groups, SEED)
    told = [(float(probability[bins == i].mean()), rate) for i, rate in enumerate(rates) if rate is not None]
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.4, linestyle=DASHES, zorder=1.5)
    _points(axes, [at for at, _ in told], [rate for _, rate in told], marker, color, name)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _key(axes: Axes) -> None:
    drawn, _ = axes.get_legend_handles_labels()
    perfect = Line2D([], [], color=INK, linewidth=1.4, linestyle=DASHES, label="perfect")
    _legend(axes, [*drawn, perfect])


def _points(axes: Axes, at: Sequence[float], intervals: Sequence[Interval], marker: str, color: str, name: str) -> None:
    value = np.array([i.value for i in intervals])
    reach = [
        [0.0 if i.low is None or i.high is None else max(0.0, end) for i, end in zip(intervals, ends, strict=True)]
        for ends in (
            [i.value - (i.value if i.low is None else i.low) for i in intervals],
            [(i.value if i.high is None else i.high) - i.value for i in intervals],
        )
    ]
    axes.errorbar(
        at,
        value,
        yerr=reach,
        marker=marker,
        color=color,
        markersize=6.5,
        markerfacecolor="white",
        markeredgewidth=1.8,
        linewidth=1.6,
        elinewidth=1.6,
        capsize=3.5,
        label=name,
        zorder=3,
    )


def _scores(axes: Axes, cohort: Cohort, probability: np.ndarray) -> None:
    frame(axes, "Which scores were given")
    edges = [float(edge) for edge in np.linspace(0, 1, SCORE_BINS + 1)]
    styles: tuple[tuple[float, dict[str, Any]], ...] = (
        (0.0, {"facecolor": STEADY, "edgecolor": QUIET, "label": "kept"}),
        (1.0, {"facecolor": "none", "edgecolor": DRIFTED, "hatch": "////", "label": "cancelled or no-show"}),
    )
    for outcome, style in styles:
        axes.hist(probability[cohort.label == outcome], edges, histtype="stepfilled", linewidth=1.4, **style)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _named(axes, "probability of a cancellation", "bookings")
    _legend(axes, axes.get_legend_handles_labels()[0])


def _weekly_loss(axes: Axes, cohort: Cohort, probability: np.ndarray, base_rate: float) -> None:
    frame(axes, "Log loss by week of maturity")
    week, firsts = _weeks(cohort)
    base = log_loss(cohort.label, np.full(len(cohort.label), base_rate))
    for values, marker, color, name in (
        (base, "s", QUIET, f"always {base_rate:.0%}, the base rate"),
        (log_loss(cohort.label, probability), "o", GAIN, "the version"),
    ):
        _weekly(axes, values, week, cohort, marker, color, name)
    _dates(axes, firsts)
    _named(axes, "outcomes final in the week from", "nats per booking")
    _legend(axes, axes.get_legend_handles_labels()[0][::-1])


def _weekly_gain(axes: Axes, cohort: Cohort, gain: np.ndarray, first: str, second: str) -> None:
    frame(axes, "Log loss saved by week of maturity")
    week, firsts = _weeks(cohort)
    axes.axhline(0.0, color=INK, linewidth=1.4, linestyle=DASHES, zorder=1.5)
    _weekly(axes, gain, week, cohort, "o", GAIN, f"{second} saves, per booking")
    _dates(axes, firsts)
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    for place, side, meaning in ((0.97, "top", f"▲ {second} better"), (0.03, "bottom", f"▼ {first} better")):
        _word(axes, 0.015, place, meaning, va=side)
    _named(axes, "outcomes final in the week from", "nats per booking")
    _legend(axes, axes.get_legend_handles_labels()[0])


def _weeks(cohort: Cohort) -> tuple[np.ndarray, list[pd.Timestamp]]:
    """The week of each row, counted from 0, and the Mondays of those that are shown; -1 for rows before them."""
    mondays = pd.DatetimeIndex(cohort.matured_on).to_period("W-SUN").start_time
    shown = sorted(set(mondays))[-WEEKS:]
    return pd.Index(shown).get_indexer(mondays) if shown else np.empty(0, dtype="int64"), shown


def _weekly(
    axes: Axes, values: np.ndarray, week: np.ndarray, cohort: Cohort, marker: str, color: str, name: str
) -> None:
    shown = week >= 0
    found = means(values[shown], week[shown], cohort.groups[shown], SEED)
    told = [(float(i), interval) for i, interval in enumerate(found) if interval is not None]
    _points(axes, [at for at, _ in told], [interval for _, interval in told], marker, color, name)


def _dates(axes: Axes, firsts: Sequence[pd.Timestamp]) -> None:
    step = -(-len(firsts) // TICKS) or 1
    axes.set_xticks(range(0, len(firsts), step), [f"{day.day} {day:%b}" for day in firsts[::step]])
    axes.set_xlim(-0.5, max(len(firsts), 1) - 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))


def _importance(axes: Axes, importance: Mapping[str, float]) -> None:
    frame(axes, "What it looks at")
    top = sorted(((share, name) for name, share in importance.items() if share > 0), reverse=True)[:BARS][::-1]
    if not top:
        _empty(axes, "no column matters to it")
        return
    shares = [share for share, _ in top]
    axes.barh(range(len(top)), shares, height=0.66, color=BAND, edgecolor=GAIN, linewidth=0.8)
    for row, share in enumerate(shares):
        _word(
            axes,
            share + 0.015 * max(shares),
            row,
            f"{share:.1%}",
            transform=axes.transData,
            va="center",
            weight="normal",
        )
    axes.set_xlim(0, 1.16 * max(shares))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    _rows(axes, [_short(name.replace("_", " "), 26) for _, name in top])
    _named(axes, "permutation importance, by log loss", "")


def _apart(axes: Axes, cohort: Cohort, theirs: np.ndarray, ours: np.ndarray, first: str, second: str) -> None:
    frame(axes, "Where they disagree")
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.4, linestyle=DASHES, zorder=1.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _named(axes, f"probability by {first}", f"by {second}")
    rows = len(theirs)
    if rows == 0:
        return
    drawn = axes.hexbin(theirs, ours, gridsize=34, extent=(0, 1, 0, 1), mincnt=1, cmap=HUE, linewidths=0.2)
    # One booking in a cell is the lightest; a scale of one colour cannot be logarithmic.
    drawn.set_norm(LogNorm(1, max(2.0, float(np.max(np.asarray(drawn.get_array()))))))
    marked = max(1, min(MARKED, round(APART * rows)))
    far = np.argsort(-np.abs(theirs - ours), kind="stable")[:marked]
    for outcome, marker, color, name in ((1.0, "x", DRIFTED, "cancelled"), (0.0, "o", INK, "kept")):
        those = far[cohort.label[far] == outcome]
        axes.plot(
            theirs[those],
            ours[those],
            linestyle="",
            marker=marker,
            color=color,
            markersize=5.5,
            markerfacecolor="none",
            markeredgewidth=1.3,
            label=name,
            zorder=3,
        )
    nearer = np.abs(ours - cohort.label)[far] < np.abs(theirs - cohort.label)[far]
    _legend(
        axes,
        [*axes.get_legend_handles_labels()[0], Patch(facecolor=HUE(0.75), label="all, darker = more")],
        title=f"the {marked} furthest apart, {second} nearer in {nearer.mean():.0%} of them:",
    )


def _segments(axes: Axes, cohort: Cohort, gain: np.ndarray, first: str, second: str) -> None:
    frame(axes, "Log loss saved by segment")
    names = pd.Series(cohort.segment, dtype=object).fillna("(missing)").astype(str)
    counts = names.value_counts()
    if counts.empty:
        _empty(axes, "no booking to tell it by")
        return
    most = list(counts.index[: SEGMENTS if len(counts) <= SEGMENTS else SEGMENTS - 1])
    told = names.where(names.isin(most), "others")
    # From the bottom up, the largest on top.
    shown = [*([] if len(counts) <= SEGMENTS else ["others"]), *most[::-1]]
    cell = told.map({name: i for i, name in enumerate(shown)}).to_numpy(dtype="int64")
    found = means(gain, cell, cohort.groups, SEED)
    axes.axvline(0.0, color=INK, linewidth=1.4, linestyle=DASHES, zorder=2)
    for row, interval in enumerate(found):
        if interval is None:
            continue
        value = interval.value
        better = value >= 0
        axes.barh(
            row,
            value,
            height=0.6,
            facecolor=BAND if better else LOSS,
            edgecolor=GAIN if better else DRIFTED,
            hatch=None if better else "///",
            linewidth=0.8,
        )
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [row, row], color=INK, linewidth=1.8, marker="|", markersize=9)
    rows = told.value_counts()
    _rows(axes, [f"{_short(name, 18)} ({rows[name]:,})" for name in shown])
    low, high = axes.get_xlim()
    reach = 0.04 * (high - low)
    axes.set_xlim(min(low, 0.0) - reach, max(high, 0.0) + reach)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    _named(axes, "nats per booking, with 95 % intervals", "")
    _legend(
        axes,
        [
            Patch(facecolor=BAND, edgecolor=GAIN, label=f"{_short(second, 14)} better"),
            Patch(facecolor=LOSS, edgecolor=DRIFTED, hatch="///", label=f"{_short(first, 14)} better"),
        ],
        middle=0.35,
    )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_ylim(-0.6, max(len(names), 4) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _named(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=QUIET, size=SMALL, labelpad=5, parse_math=False)
    axes.set_ylabel(y, color=QUIET, size=SMALL, parse_math=False)
    axes.tick_params(labelsize=SMALL)
    axes.title.set_fontsize(14)


def _word(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    shown: dict[str, Any] = {
        "transform": axes.transAxes,
        "size": SMALL,
        "weight": "bold",
        "color": INK,
        "parse_math": False,
    }
    axes.text(x, y, text, **(shown | style))


def _legend(axes: Axes, handles: Sequence[Any], title: str | None = None, middle: float = 0.5) -> None:
    drawn = axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(middle, -0.17),
        ncols=3,
        frameon=False,
        fontsize=SMALL,
        handlelength=2.2,
        columnspacing=1.4,
        title=title,
        title_fontsize=SMALL,
    )
    for text in (*drawn.get_texts(), drawn.get_title()):
        text.set_parse_math(False)


def _empty(axes: Axes, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size=SIZE, color=QUIET)


def _bounded(interval: Interval | None) -> str:
    if interval is None:
        return "not told"
    bounds = "" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})"
    return f"{interval.value:.3f}{bounds}"


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return "not told"
    bounds = "" if interval.low is None else f" ({interval.low:+.4f} to {interval.high:+.4f})"
    return f"{interval.value:+.4f}{bounds}"


def _short(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
