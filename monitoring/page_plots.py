"""The pictures of the report page: what happened when, how columns and scores changed, what came true.

Markers, hatches and line styles carry the meaning; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cancellations.domain.promotion import Change, Kind, LedgerRow, Trial
from cancellations.domain.retraining import ColumnDrift, MonitorReport, RequestState, Signal
from cancellations.ports import Observation, Overview, StoredDecision
from monitoring.columns import clean, is_number, watched
from monitoring.ink import BAND, DRIFTED, GAIN, INK, QUIET, SHADE, STEADY, frame, png
from monitoring.model_plots import draw_reliability
from monitoring.performance import BIAS, ESTIMATED, EXCESS

PANELS, ACROSS = 8, 4
BINS, SCORE_BINS = 24, 25
CATEGORIES = 6
LETTERS = 16
DASHES = (0, (4, 2))
SMALL = 10.5
# Of the time line: where each lane stands.
CHAMPIONS, TRIALS, RETRAINS = 2.0, 1.0, 0.0
LANE = 0.52
# A bar that takes less of the line's width has no room for words.
NARROW = 0.07


def draw_time_line(found: Overview) -> bytes:
    """PNG, 1200 x 560 pixels: champions, trials and retrains in lanes, and below the evidence of every look."""
    decisions, ledger, trials, shown = found.decisions, found.ledger, found.trials, found.stored.report.window
    figure = Figure(figsize=(12, 5.6), dpi=100, facecolor="white")
    lanes, evidence = figure.subplots(2, 1, sharex=True, height_ratios=(1.35, 1.0))
    figure.subplots_adjust(left=0.1, right=0.985, top=0.93, bottom=0.17, hspace=0.3)
    first = min([row.as_of for row in ledger] + [d.report.window.end for d in decisions], default=shown.end)
    last = max([shown.end, *(d.report.window.end for d in decisions), *(row.as_of for row in ledger)])
    last = max([last, *(trial.evidence[-1].day for trial in trials if trial.evidence)])
    left, right = date2num(first), date2num(last)
    margin = max(2.0, 0.015 * (right - left))
    lanes.set_xlim(left - margin, right + margin)
    frame(lanes, "Who served, what was tried, what was trained")
    lanes.grid(visible=False, axis="y")
    lanes.set_yticks([CHAMPIONS, TRIALS, RETRAINS], ["champion", "trial", "retrain"])
    lanes.set_ylim(RETRAINS - 0.6, CHAMPIONS + 0.6)
    wide = right - left + 2 * margin
    _champions(lanes, ledger, right + margin, wide)
    for trial in trials:
        _trial(lanes, trial, right, wide)
    for request in found.requests:
        made = request.state is RequestState.CANDIDATE
        style: dict[str, Any] = {"marker": "^", "markerfacecolor": GAIN} if made else {"marker": "X"}
        lanes.plot(date2num(request.as_of), RETRAINS, color=GAIN if made else DRIFTED, markersize=9, **style)
    for row in ledger:
        if row.change is Change.ROLLED_BACK:
            lanes.plot(date2num(row.as_of), CHAMPIONS + 0.38, marker="v", color=DRIFTED, markersize=10)
    lanes.legend(
        handles=[
            Patch(facecolor=BAND, edgecolor=QUIET, label="trial"),
            Patch(facecolor="white", edgecolor=QUIET, hatch="////", label="probation"),
            Line2D([], [], linestyle="", marker="^", color=GAIN, label="version made"),
            Line2D([], [], linestyle="", marker="X", color=DRIFTED, label="refused or failed"),
            Line2D([], [], linestyle="", marker="v", color=DRIFTED, label="rolled back"),
        ],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=5,
        frameon=False,
        fontsize=SMALL - 1,
        handlelength=1.6,
        columnspacing=1.2,
    )
    _evidence(evidence, decisions)
    for axes in (lanes, evidence):
        axes.axvspan(date2num(shown.start), date2num(shown.end), color=SHADE, zorder=0, linewidth=0)
    evidence.legend(
        handles=[
            Line2D([], [], linestyle="", marker="o", mfc="white", color=GAIN, label="a look"),
            Line2D([], [], linestyle="", marker="o", color=DRIFTED, label="asked for a retrain"),
            Line2D([], [], linestyle="", marker="|", color=QUIET, label="not evaluated"),
            Patch(facecolor=SHADE, label=f"this window, {shown}"),
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=4,
        frameon=False,
        fontsize=SMALL - 1,
    )
    return png(FigureCanvasAgg(figure))


def draw_columns(report: MonitorReport, observation: Observation) -> bytes:
    """PNG, 1200 pixels wide: the columns that matter most, in the training reference and in the window."""
    features = watched(observation.reference, observation.current)
    before, after = (clean(side, features) for side in (observation.reference, observation.current))
    told = [c for c in _told(report) if c.column in before and c.column in after][:PANELS]
    rows = max(1, -(-len(told) // ACROSS))
    figure = Figure(figsize=(12, 0.75 + 2.95 * rows), dpi=100, facecolor="white")
    panels = figure.subplots(rows, ACROSS, squeeze=False)
    tall = 0.75 + 2.95 * rows
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.42 / tall, bottom=0.85 / tall, wspace=0.55, hspace=0.5)
    for axes, column in zip(panels.flat, told, strict=False):
        draw = _numbers if is_number(before[column.column]) else _categories
        _titled(axes, column)
        draw(axes, before[column.column], after[column.column])
    for axes in panels.flat[len(told) :]:
        axes.set_visible(False)
    if not told:
        figure.text(0.5, 0.5, "no column could be compared", ha="center", size=12, color=QUIET)
    figure.legend(
        handles=[
            Patch(facecolor=STEADY, edgecolor=QUIET, label=f"{observation.against}, {len(before):,} bookings"),
            Patch(facecolor="none", edgecolor=DRIFTED, hatch="////", label=f"this window, {len(after):,} bookings"),
        ],
        loc="lower center",
        ncols=2,
        frameon=False,
        fontsize=SMALL,
    )
    return png(FigureCanvasAgg(figure))


def draw_scores(observation: Observation) -> bytes:
    """PNG, 1200 x 460 pixels: which scores were given, then and now; and what became of those that are final."""
    figure = Figure(figsize=(12, 4.6), dpi=100, facecolor="white")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.9, bottom=0.245, wspace=0.2)
    frame(left, "Which scores were given")
    edges = [float(edge) for edge in np.linspace(0, 1, SCORE_BINS + 1)]
    sides: tuple[tuple[np.ndarray, dict[str, Any]], ...] = (
        (observation.reference_probability, {"facecolor": STEADY, "edgecolor": QUIET, "label": observation.against}),
        (
            observation.probability,
            {
                "facecolor": "none",
                "edgecolor": DRIFTED,
                "hatch": "////",
                "label": f"{observation.start} to {observation.end}",
            },
        ),
    )
    for values, style in sides:
        finite = values[np.isfinite(values)]
        if len(finite):
            weights = np.full(len(finite), 1 / len(finite))
            left.hist(finite, edges, weights=weights, histtype="stepfilled", linewidth=1.4, **style)
    left.set_xlim(-0.02, 1.02)
    left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _named(left, "probability of a cancellation", "share of bookings")
    _under(left)
    frame(right, "What became of those that are final")
    label, probability = observation.matured_label, observation.matured_probability
    usable = np.isfinite(label) & np.isfinite(probability)
    groups = observation.matured_groups if len(observation.matured_groups) == len(label) else np.arange(len(label))
    if usable.any():
        name = f"{int(usable.sum()):,} bookings, with 95 % intervals by group"
        draw_reliability(right, label[usable], probability[usable], groups[usable], "o", GAIN, name)
        _named(right, "mean probability", "cancelled or no-show")
        _under(right, Line2D([], [], color=INK, linewidth=1.4, linestyle=DASHES, label="as predicted"))
    else:
        _empty(right, "no booking has matured since the champion was trained")
    return png(FigureCanvasAgg(figure))


def draw_losses(found: Overview) -> bytes:
    """PNG, 1200 x 420 pixels: realised loss and bias of every look with their intervals, and the estimated loss."""
    decisions, shown = found.decisions, found.stored.report.window
    figure = Figure(figsize=(12, 4.2), dpi=100, facecolor="white")
    panels = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.065, right=0.985, top=0.88, bottom=0.2, wspace=0.27)
    named = (
        (EXCESS, "Realised loss beyond its own forecast", "nats per booking"),
        (BIAS, "Calibration bias, either way", "share of bookings"),
        (ESTIMATED, "Estimated loss: a trend, no proof", "distance from the reference's"),
    )
    for axes, (name, title, unit) in zip(panels, named, strict=True):
        frame(axes, title)
        told = [(d.report, s) for d in decisions if (s := d.report.signal(name)) is not None and s.value is not None]
        if not told:
            _empty(axes, "not evaluated in any window")
            continue
        _course(axes, told)
        axes.axvspan(date2num(shown.start), date2num(shown.end), color=SHADE, zorder=0, linewidth=0)
        _dated(axes)
        _named(axes, "last day of the window", unit)
    return png(FigureCanvasAgg(figure))


def _champions(axes: Axes, ledger: Sequence[LedgerRow], end: float, wide: float) -> None:
    stood: list[tuple[str, float]] = []
    for row in ledger:
        if row.champion is not None and (not stood or stood[-1][0] != row.champion):
            stood.append((row.champion, date2num(row.as_of)))
    ends = [*(start for _, start in stood[1:]), end]
    for number, ((version, start), until) in enumerate(zip(stood, ends, strict=False)):
        face = STEADY if number % 2 == 0 else "white"
        axes.barh(CHAMPIONS, until - start, LANE, left=start, color=face, edgecolor=QUIET, linewidth=0.8)
        _inside(axes, start, until, CHAMPIONS, f"v{version}", wide, least=0.012)


def _trial(axes: Axes, trial: Trial, end: float, wide: float) -> None:
    start = date2num(trial.opened_on)
    until = date2num(trial.evidence[-1].day if trial.evidence else trial.opened_on)
    if not trial.state.final:
        until = max(until, min(end, date2num(trial.last_day)))
    probation = trial.kind is Kind.PROBATION
    look: dict[str, Any] = {"color": "white", "hatch": "////"} if probation else {"color": BAND}
    # A probation follows its trial on the day; half a lane below they can be told apart.
    place = TRIALS - 0.32 if probation else TRIALS
    height = LANE * (0.4 if probation else 0.8)
    axes.barh(place, max(until - start, 0.5), height, left=start, edgecolor=QUIET, linewidth=0.8, **look)
    if not probation:
        _inside(axes, start, until, place, f"v{trial.rival} {trial.state.value}", wide)


def _inside(
    axes: Axes, start: float, until: float, place: float, text: str, wide: float, least: float = NARROW
) -> None:
    if (until - start) / wide >= least:
        axes.text((start + until) / 2, place, text, ha="center", va="center", size=SMALL - 1, color=INK, clip_on=True)


def _evidence(axes: Axes, decisions: Sequence[StoredDecision]) -> None:
    frame(axes, "Evidence of drift at each look")
    for stored in decisions:
        at, value = date2num(stored.report.window.end), stored.report.evidence()
        acted = stored.decision.action.retrains
        if value is None:
            axes.plot(at, 0.0, marker="|", color=QUIET, markersize=9)
            continue
        axes.plot([at, at], [0.0, value], color=DRIFTED if acted else GAIN, linewidth=1.4)
        axes.plot(at, value, marker="o", color=DRIFTED if acted else GAIN, mfc=DRIFTED if acted else "white", mew=1.4)
    axes.axhline(0.0, color=QUIET, linewidth=0.8)
    top = max([1.0, *(d.report.evidence() or 0.0 for d in decisions)])
    axes.set_ylim(-0.06 * top, 1.15 * top)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _dated(axes)
    axes.set_ylabel("evidence", color=QUIET, size=SMALL)


def _told(report: MonitorReport) -> list[ColumnDrift]:
    """Columns that could be measured, those first that drifted most and matter most."""
    measured = [c for c in report.columns if c.score is not None]
    return sorted(measured, key=lambda c: (-c.weight * min((c.score or 0.0) / c.threshold, 3.0), c.column))


def _titled(axes: Axes, column: ColumnDrift) -> None:
    name = column.column.replace("_", " ")
    frame(axes, "")
    axes.set_title(f"{name}\n", loc="left", size=11, weight="bold", color=INK, pad=2, parse_math=False)
    score = "–" if column.score is None else f"{column.score:.2f} of {column.threshold:g}"
    said = f"{'drifted' if column.drifted else 'ok'}, {score}, weight {column.weight:.0%}"
    axes.text(0.0, 1.025, said, transform=axes.transAxes, size=9, color=DRIFTED if column.drifted else QUIET)
    axes.tick_params(labelsize=9)


def _numbers(axes: Axes, before: pd.Series, after: pd.Series) -> None:
    pooled = pd.concat([before, after]).dropna()
    low, high = (float(value) for value in pooled.quantile([0.005, 0.995]))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = [float(edge) for edge in np.linspace(low, high, BINS + 1)]
    for values, style in _sides(before.dropna().clip(low, high), after.dropna().clip(low, high)):
        weights = np.full(len(values), 1 / max(len(values), 1))
        axes.hist(values, edges, weights=weights, histtype="stepfilled", linewidth=1.2, **style)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=bool((pooled % 1 == 0).all())))
    missing = [f"{side.isna().mean():.0%}" for side in (before, after)]
    axes.set_xlabel("" if missing == ["0%", "0%"] else f"missing {missing[0]} → {missing[1]}", color=QUIET, size=9)


def _categories(axes: Axes, before: pd.Series, after: pd.Series) -> None:
    shares = pd.DataFrame(
        {
            side: values.fillna("(missing)").value_counts(normalize=True)
            for side, values in (("b", before), ("a", after))
        }
    ).fillna(0.0)
    shares = shares.loc[shares.max(axis=1).sort_values(ascending=False).index[:CATEGORIES]][::-1]
    at = np.arange(len(shares))
    for (values, style), offset in zip(_sides(shares["b"], shares["a"]), (0.19, -0.19), strict=True):
        axes.barh(at + offset, values, height=0.36, linewidth=0.8, **style)
    names = [str(name) for name in shares.index]
    axes.set_yticks(at, [n if len(n) <= LETTERS else f"{n[: LETTERS - 1]}…" for n in names], parse_math=False)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _sides(before: pd.Series, after: pd.Series) -> tuple[tuple[pd.Series, dict[str, Any]], ...]:
    return (
        (before, {"facecolor": STEADY, "edgecolor": QUIET}),
        (after, {"facecolor": "none", "edgecolor": DRIFTED, "hatch": "////"}),
    )


def _course(axes: Axes, told: Sequence[tuple[MonitorReport, Signal]]) -> None:
    """A signal over windows: a line for each champion, since each is held against another reference."""
    days = [date2num(report.window.end) for report, _ in told]
    values = np.array([_value(signal) for _, signal in told])
    for number, version in enumerate(dict.fromkeys(report.champion for report, _ in told)):
        own = [i for i, (report, _) in enumerate(told) if report.champion == version]
        reach = np.array([_reach(told[i][1]) for i in own]).T
        axes.errorbar(
            [days[i] for i in own],
            values[own],
            yerr=reach if reach.any() else None,
            color=GAIN if number % 2 == 0 else INK,
            marker="os^D"[number % 4],
            markersize=4.5,
            mfc="white",
            linewidth=1.4,
            elinewidth=1.0,
            capsize=2,
            zorder=3,
        )
        axes.annotate(
            f"v{version}",
            (days[own[0]], values[own[0]]),
            xytext=(0, 9),
            textcoords="offset points",
            size=9.5,
            color=INK,
            ha="center",
        )
    thresholds = [signal.threshold for _, signal in told]
    axes.step(days, thresholds, where="mid", color=INK, linewidth=1.4, linestyle=DASHES)
    axes.annotate(
        "alarm", (days[-1], thresholds[-1]), xytext=(0, 4), textcoords="offset points", size=9.5, color=INK, ha="right"
    )
    axes.margins(y=0.15)
    if len(days) == 1:
        axes.set_xlim(days[0] - 14, days[0] + 14)


def _value(signal: Signal) -> float:
    return float("nan") if signal.value is None else signal.value


def _reach(signal: Signal) -> tuple[float, float]:
    value = _value(signal)
    if signal.low is None or signal.high is None:
        return 0.0, 0.0
    return max(0.0, value - signal.low), max(0.0, signal.high - value)


def _dated(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _named(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=QUIET, size=SMALL)
    axes.set_ylabel(y, color=QUIET, size=SMALL)


def _under(axes: Axes, *more: Line2D) -> None:
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(
        handles=[*handles, *more],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=2,
        frameon=False,
        fontsize=SMALL - 1,
    )


def _empty(axes: Axes, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size=11, color=QUIET)
