"""The pictures of mails: which columns drifted and how the signals came here; what a trial has read.

Drawn without pyplot, which keeps figures in a global list, so that flows may draw in any thread.
Hatches, markers and line styles carry the meaning; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator

from cancellations.domain.comparison import Step
from cancellations.domain.promotion import Kind, Trial
from cancellations.domain.retraining import ColumnDrift, MonitorReport, Signal
from cancellations.ports import StoredDecision
from monitoring.ink import BAND, DRIFTED, GAIN, GRID, INK, QUIET, SHADE, STEADY, frame, png

BARS = 8
WINDOWS = 26  # half a year of weeks; older ones do not explain a decision of today
TICKS = 7  # dates under the signals, as many as can be read side by side
LONGEST = 5.0  # times the threshold; longer bars are cut, and say so by their number
SPAN = (-0.5, 3.0)  # of the signals, in times the threshold; beyond it a line runs along the edge

DATES = 5  # under a trial, whose letters are larger
NARROW = 0.3  # of the width; a burn-in that takes less has room for its name only

STYLES: tuple[tuple[str, Any, str], ...] = (
    ("o", "-", "#24557a"),
    ("s", "--", "#b07d12"),
    ("^", "-.", "#c8553d"),
    ("D", ":", "#5b5f97"),
)


def draw_drift(current: StoredDecision, earlier: Sequence[StoredDecision]) -> bytes:
    """PNG, 1200 x 520 pixels: columns of the current window, signals of all windows of its champion.

    `earlier` may come in any order; windows of other champions, which had another reference,
    and windows after the current one are left out.
    """
    report = current.report
    before = {
        d.report.window.end: d.report
        for d in earlier
        if d.report.champion == report.champion and d.report.window.end < report.window.end
    }
    windows = [*(before[end] for end in sorted(before)), report][-WINDOWS:]

    figure = Figure(figsize=(12, 5.2), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.05))
    figure.subplots_adjust(left=0.15, right=0.985, top=0.80, bottom=0.25, wspace=0.17)
    figure.text(0.015, 0.93, "What changed, and how much it matters", size=15, weight="bold", color=INK)
    figure.text(
        0.985,
        0.935,
        f"bookings of {report.window}  ·  {report.rows:,} rows against {report.reference_rows:,}"
        f" of training  ·  champion v{report.champion}",
        size=9.5,
        color=QUIET,
        ha="right",
    )
    _columns(left, report)
    _signals(right, windows)
    return png(canvas)


def draw_trial(trial: Trial) -> bytes:
    """PNG, 1200 x 760 pixels: what the rival gains per booking, over maturity days, with its bounds.

    One panel in large letters, which can be read on a phone too.
    """
    figure = Figure(figsize=(12, 7.6), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.125, right=0.975, top=0.775, bottom=0.225)
    figure.text(0.02, 0.925, _headline(trial), size=23, weight="bold", color=INK)
    figure.text(0.02, 0.865, _progress(trial), size=17, color=QUIET)
    _sequence(axes, trial)
    return png(canvas)


def _columns(axes: Axes, report: MonitorReport) -> None:
    frame(axes, "Drift of the columns that matter most")
    measured = [(c, c.score / c.threshold) for c in report.columns if c.score is not None]
    told = sorted(measured, key=lambda pair: pair[0].weight * min(pair[1], LONGEST), reverse=True)[:BARS]
    told.sort(key=lambda pair: pair[1])
    if not told:
        _empty(axes, "no column could be evaluated")
        return
    for row, (column, ratio) in enumerate(told):
        axes.barh(
            row,
            min(ratio, LONGEST),
            height=0.62,
            color=DRIFTED if column.drifted else STEADY,
            edgecolor="white" if column.drifted else QUIET,
            hatch="///" if column.drifted else None,
            linewidth=0.6,
        )
        axes.annotate(
            _value(ratio),
            (min(ratio, LONGEST), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=9.5,
            color=INK,
            bbox=_PAPER,
            zorder=4,
        )
        axes.text(1.0, row, f"{column.weight:.0%}", transform=axes.get_yaxis_transform(), **_RIGHT)
    axes.text(1.0, len(told) - 0.35, "importance", transform=axes.get_yaxis_transform(), **_RIGHT)
    axes.axvline(1.0, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    axes.set_yticks(range(len(told)), [_name(column) for column, _ in told])
    axes.set_ylim(-0.6, max(len(told), 4) - 0.1)
    longest = max(1.6, min(LONGEST, max(ratio for _, ratio in told)))
    axes.set_xlim(0, longest * 1.35)
    axes.set_xticks(np.arange(0, longest + 0.01, 1.0 if longest > 2.5 else 0.5))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("score, in times its threshold", color=QUIET, size=9.5)
    axes.tick_params(axis="y", labelsize=10, length=0)
    axes.legend(
        handles=[
            Patch(facecolor=DRIFTED, edgecolor="white", hatch="///", label="drifted"),
            Patch(facecolor=STEADY, edgecolor=QUIET, label="within its threshold"),
            Line2D([], [], color=INK, linestyle=(0, (4, 2)), label="threshold"),
        ],
        **_LEGEND,
    )


def _signals(axes: Axes, windows: Sequence[MonitorReport]) -> None:
    frame(axes, "Signals over the windows so far")
    days = np.array([date2num(r.window.end) for r in windows])
    margin = max(3.5, 0.04 * float(days[-1] - days[0]))
    handles = []
    values: list[float] = []
    for signal, (marker, line, color) in zip(_drawn(windows[-1]), STYLES, strict=False):
        ratios = np.clip([_ratio(report, signal.name) for report in windows], *SPAN)
        values.extend(ratios[np.isfinite(ratios)])
        axes.plot(
            days,
            ratios,
            marker=marker,
            linestyle=line,
            color=color,
            linewidth=1.8,
            markersize=5.5,
            markerfacecolor="white",
            markeredgewidth=1.4,
        )
        alarming = ratios >= 1
        axes.plot(days[alarming], ratios[alarming], marker=marker, linestyle="", color=color, markersize=7)
        face = color if alarming[-1] else "white"
        axes.plot(days[-1], ratios[-1], marker=marker, color=color, markerfacecolor=face, markersize=9.5, mew=1.8)
        now = "not evaluated" if signal.value is None else f"{signal.value:.3f}: {signal.verdict}"
        label = f"{signal.name} {now} (threshold {signal.threshold:g})"
        handles.append(Line2D([], [], marker=marker, linestyle=line, color=color, linewidth=1.8, label=label))
    axes.axhline(1.0, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    axes.axvspan(days[-1] - margin / 2, days[-1] + margin / 2, color=GRID, alpha=0.8, zorder=0, linewidth=0)
    axes.text(1.0, 1.02, "this window", transform=axes.transAxes, size=9.5, weight="bold", color=INK, ha="right")
    axes.set_xlim(days[0] - (margin if len(days) > 1 else 10 * margin), days[-1] + margin)
    axes.set_ylim(min([-0.1, *values]) - 0.1, max([1.5, *values]) + 0.1)
    axes.yaxis.set_major_locator(MultipleLocator(0.5))
    step = -(-len(windows) // TICKS)
    shown = windows[::-step]
    axes.set_xticks([date2num(r.window.end) for r in shown], [f"{r.window.end:%d %b}" for r in shown])
    axes.set_xlabel(f"last day of the window ({windows[-1].window.end:%Y})", color=QUIET, size=9.5)
    axes.set_ylabel("value, in times its threshold", color=QUIET, size=9.5)
    axes.legend(handles=handles, **(_LEGEND | {"ncols": 1, "loc": "upper left", "bbox_to_anchor": (0.0, -0.15)}))


def _drawn(report: MonitorReport) -> list[Signal]:
    """Signals that decide something, or are mailed: more lines than styles nobody could tell apart."""
    return [signal for signal in report.signals if signal.weight > 0 or signal.mailed]


def _sequence(axes: Axes, trial: Trial) -> None:
    evidence = trial.evidence
    first = evidence[0].day if evidence else trial.cohort_after + timedelta(days=1)
    answers = _first_answer(trial, first)
    last = max(evidence[-1].day if evidence else answers, answers + timedelta(days=1))
    days, margin = np.array([date2num(step.day) for step in evidence]), 0.03 * (last - first).days
    left, right = date2num(first) - margin, date2num(last) + margin
    low, high = _height(evidence)
    # Words stand above and below everything that is drawn; a height of nothing cannot be drawn.
    room = 0.16 * (high - low) or 0.01

    frame(axes, "")
    axes.set_xlim(left, right)
    axes.set_ylim(low - room, high + room)
    axes.set_xlabel("day on which outcomes became final", color=QUIET, size=16, labelpad=6)
    axes.set_ylabel("log loss saved per booking", color=QUIET, size=16)
    axes.tick_params(labelsize=16)
    axes.locator_params(axis="y", nbins=6)
    shown = [first + (last - first) * n / (DATES - 1) for n in range(DATES)]
    axes.set_xticks([date2num(day) for day in shown], [_day(day) for day in shown])
    if not evidence:
        axes.set_yticks([0.0])

    burn_in = date2num(answers) - 0.5
    axes.axvspan(left, burn_in, color=SHADE, zorder=0, linewidth=0)
    wide = (burn_in - left) / (right - left) >= NARROW
    named = f"burn-in: no answer before day {trial.sequence.burn_in_days}" if wide else "burn-in"
    axes.text(0.0, 1.03, named, transform=axes.transAxes, va="bottom", size=16, color=QUIET, style="italic")
    axes.axhline(0.0, color=INK, linewidth=2.0, linestyle=(0, (4, 2)), zorder=2)
    for place, side, meaning in (
        (0.97, "top", f"▲ {_rival(trial)} better"),
        (0.03, "bottom", f"▼ {_champion(trial)} better"),
    ):
        axes.text(0.012, place, meaning, transform=axes.transAxes, va=side, size=17, weight="bold", color=INK)

    bounds = [(step.low, step.high) for step in evidence if step.low is not None and step.high is not None]
    if bounds:
        lows, highs = np.array(bounds).T
        axes.fill_between(days[-len(bounds) :], lows, highs, facecolor=BAND, edgecolor=GAIN, linewidth=1.0, zorder=1.5)
        axes.plot([days[-1]] * 2, bounds[-1], color=GAIN, linewidth=4.0, marker="_", markersize=20, mew=4.0, zorder=2.7)
    gains = np.clip([step.gain for step in evidence], low, high)
    axes.plot(days, gains, color=GAIN, linewidth=3.0, marker="o", markersize=6, zorder=3)
    if trial.decided_on is not None:
        _decision(axes, trial, trial.decided_on)
    axes.legend(
        handles=[
            Line2D([], [], color=GAIN, linewidth=3.0, marker="o", markersize=6, label="so far"),
            Patch(
                facecolor=BAND, edgecolor=GAIN, label=f"bounds, each {1 - trial.sequence.alpha:.0%} sure over all days"
            ),
            Line2D([], [], color=INK, linewidth=2.0, linestyle=(0, (4, 2)), label="no difference"),
        ],
        **(_LEGEND | {"fontsize": 16, "bbox_to_anchor": (0.46, -0.19), "columnspacing": 1.8}),
    )


def _decision(axes: Axes, trial: Trial, day: date) -> None:
    """Marks the day that ended the reading, and says above the panel what it decided."""
    for step in trial.evidence:
        if step.day == day:
            axes.plot(date2num(day), step.gain, marker="D", markersize=15, color=INK, mec="white", mew=2, zorder=4)
    axes.axvline(date2num(day), color=INK, linewidth=1.6, linestyle=":", zorder=2.5)
    told = f"{_day(day)}: {found(trial)}"
    axes.text(1.0, 1.03, told, transform=axes.transAxes, ha="right", va="bottom", size=18, weight="bold", color=INK)


def found(trial: Trial) -> str:
    """What the bounds of the last day that was read say, in plain words."""
    step = trial.evidence[-1] if trial.evidence else None
    if step is not None and step.low is not None and step.low > 0:
        return f"{_rival(trial)} better"
    if step is not None and step.high is not None and step.high < 0:
        return f"{_champion(trial)} better"
    return "no answer"


def _first_answer(trial: Trial, first: date) -> date:
    """The day on which burn-in ends; while it has not, the one on which it can at the earliest."""
    read, needed = len(trial.evidence), trial.sequence.burn_in_days
    if read >= needed:
        return trial.evidence[needed - 1].day
    return trial.evidence[-1].day + timedelta(days=needed - read) if read else first + timedelta(days=needed - 1)


def _height(evidence: Sequence[Step]) -> tuple[float, float]:
    """From the lowest to the highest of all bounds and gains, 0 included.

    Once there are bounds the first days, whose few bookings may say anything, have no say: they are
    drawn along the edge.
    """
    bounds = [bound for step in evidence for bound in (step.low, step.high) if bound is not None]
    gains = [step.gain for step in (evidence[3:] if bounds else evidence)]
    return min([0.0, *bounds, *gains]), max([0.0, *bounds, *gains])


def _headline(trial: Trial) -> str:
    if trial.kind is Kind.TRIAL:
        return f"Trial of v{trial.rival} against champion v{trial.champion}: {trial.state.value}"
    return f"Probation of v{trial.champion} against its predecessor v{trial.rival}: {trial.state.value}"


def _progress(trial: Trial) -> str:
    if not trial.evidence:
        return f"no booking read yet; opened on {_day(trial.opened_on)} {trial.opened_on:%Y}"
    step, days = trial.evidence[-1], len(trial.evidence)
    bookings = "1 booking" if step.bookings == 1 else f"{step.bookings:,} bookings"
    return f"{bookings} read, of {days} {'day' if days == 1 else 'days'} until {_day(step.day)} {step.day:%Y}"


def _rival(trial: Trial) -> str:
    return f"{'challenger' if trial.kind is Kind.TRIAL else 'predecessor'} v{trial.rival}"


def _champion(trial: Trial) -> str:
    return f"champion v{trial.champion}"


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"


_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
_RIGHT: dict[str, Any] = {"ha": "right", "va": "center", "size": 9.5, "color": QUIET, "bbox": _PAPER}
_LEGEND: dict[str, Any] = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.15),
    "ncols": 3,
    "frameon": False,
    "fontsize": 9,
    "handlelength": 2.6,
    "columnspacing": 1.4,
}


def _empty(axes: Axes, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size=12, color=QUIET)


def _ratio(report: MonitorReport, name: str) -> float:
    signal = report.signal(name)
    if signal is None or signal.value is None or signal.threshold <= 0:
        return float("nan")
    return signal.value / signal.threshold


def _value(ratio: float) -> str:
    return f"{ratio:.1f}×" if ratio <= LONGEST else f"› {ratio:.1f}×"


def _name(column: ColumnDrift) -> str:
    return column.column.replace("_", " ")
