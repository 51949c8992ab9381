"""Pictures of the page of results: losses by policy, reliability, error rates, ratios of speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.figures import Curve, Figure
from benchmarks.found import Found
from monitoring.ink import DRIFTED, GAIN, INK, QUIET, STEADY, frame, png
from monitoring.replay_plot import draw as draw_replay

WIDTH = 12.0
STATIC = "static, matured/1"
# What is told of in pictures of the replay: more lines tell nothing.
SHOWN = (
    "weekly, matured/1",
    "monthly, matured/1",
    "six-weekly, mix/1",
    "ours, matured/1",
    "ours, matured/1, whole loop",
)
LATER, EARLIER = "2016-04-04", "2015-10-05"
SIGNALS = (
    "decision",
    "some signal",
    "column drift",
    "domain classifier",
    "matured excess loss",
    "in-flight cancellations",
    "calibration bias",
    "prediction drift",
    "estimated loss",
    "volume",
    "CBPE alarm",
)
STRETCHES = ("simulated", "shuffled", "real")
MARKERS = ("o", "s", "^")
COLORS = (GAIN, "#6b8f3c", DRIFTED)


def losses(found: Mapping[str, Found], begins: str) -> bytes:
    """Loss by week of booking under each policy, what it saved against never retraining, and when it retrained."""
    curves = {curve.name: curve for curve in found["replay"].curves(f"loss, {begins}")}
    weekly = pd.DataFrame({name: _series(curves[name]) for name in (STATIC, *SHOWN)})
    days: dict[str, Sequence[date]] = {
        # The first training is everybody's.
        name: [date.fromisoformat(begins), *(date.fromisoformat(day) for day in curves[name].marks)]
        for name in SHOWN
    }
    return draw_replay(weekly, days, STATIC, {})


def _series(curve: Curve) -> pd.Series:
    return pd.Series(curve.y, index=pd.to_datetime(list(curve.x)))


def reliability(found: Mapping[str, Found]) -> bytes:
    """Of bookings that were given much the same probability, the share that was cancelled."""
    shown = (STATIC, "ours, matured/1, whole loop", "weekly, mix/1", "its own gate, article")
    canvas, panels = _panels(1, 2, 5.4, "Does 30 % mean 30 of 100?")
    for axes, begins, told in zip(panels, (EARLIER, LATER), ("2015-10 to 2016-03", "2016-04 to 2017-02"), strict=True):
        frame(axes, f"bookings of {told}, tenths of each")
        axes.plot([0, 1], [0, 1], color=STEADY, linewidth=1.4, linestyle=(0, (4, 2)))
        curves = {curve.name: curve for curve in found["replay"].curves(f"reliability, {begins}")}
        for name, color, marker in zip(shown, (QUIET, GAIN, "#6b8f3c", DRIFTED), ("s", "o", "D", "^"), strict=True):
            curve = curves[name]
            axes.plot(curve.x, curve.y, color=color, marker=marker, markersize=5, linewidth=1.4, label=name)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("mean probability that was said", color=INK)
        axes.set_ylabel("share that was cancelled", color=INK)
        axes.legend(frameon=False, fontsize=9.5, loc="upper left")
    return png(canvas)


@dataclass(frozen=True)
class Dot:
    """A figure in a row of a picture, with its marker and colour."""

    row: int
    figure: Figure
    marker: str
    color: str
    scale: float = 1.0


def alarms(found: Mapping[str, Found]) -> bytes:
    """Alarms a month where nothing was changed, by signal, with intervals."""
    monitor = found["monitor"]
    canvas, (axes,) = _panels(1, 1, 6.0, "How often the monitor alarms where nothing was changed")
    frame(axes, "alarms that begin, a month of looks; 95 %")
    dots = [
        Dot(row, monitor.figure(f"{kind}: {signal}, nothing planted, \\d+ champions"), marker, color)
        for kind, marker, color in zip(STRETCHES, MARKERS, COLORS, strict=True)
        for row, signal in enumerate(SIGNALS)
    ]
    _dots(axes, dots, SIGNALS, 3)
    names = ("simulated market", "real bookings, on each other's days", "real bookings, in their order (these change)")
    _key(axes, names)
    _line(axes, 1 / 3, "retrains by the calendar alone")
    axes.set_xlim(left=0)
    return png(canvas)


RULES = (
    "ours",
    "z-test by day, looked at daily",
    "z-test by booking, once after 28 days",
    "z-test by booking, looked at daily",
    "new metric > old metric, after 14 days",
)


def promotions(found: Mapping[str, Found]) -> bytes:
    """Wrong promotions by each rule, and how soon right ones come."""
    decisions = found["decisions"]
    canvas, (wrong, right) = _panels(1, 2, 4.8, "What each rule promotes")
    frame(wrong, "equals: promoted of 100; 95 %")
    kinds = ("equal, simulated, shocks by day of arrival", "equal, real, signs flipped by day")
    dots = []
    for kind, marker, color in zip(kinds, MARKERS, COLORS, strict=False):
        for row, rule in enumerate(RULES):
            figure = decisions.figure(f"{kind}: {rule}")
            trials = float(figure.unit.removeprefix("promoted of ").replace(",", ""))
            dots.append(Dot(row, figure, marker, color, 100 / trials))
    _dots(wrong, dots, RULES, 2)
    _line(wrong, 5, "5 of 100")
    wrong.set_xlim(left=0)
    _key(wrong, ("simulated market", "real file, signs by chance"))
    frame(right, "better than a champion: promoted of 100")
    ages = (26, 8, 4)
    _dots(
        right,
        [
            Dot(row, decisions.figure(f"better, champion of {age} weeks: {rule}, promoted"), marker, color, 100)
            for age, marker, color in zip(ages, MARKERS, COLORS, strict=True)
            for row, rule in enumerate(RULES)
        ],
        RULES,
        3,
    )
    right.set_xlim(50, 101)
    right.set_yticklabels([])
    _key(right, tuple(f"of {age} weeks" for age in ages))
    return png(canvas)


def speed(found: Mapping[str, Found]) -> bytes:
    """Each ratio over its reach: left of 1 is better than asked, whichever way round the reach is."""
    told = [
        (f"{name}: {figure.name}", figure)
        for name in ("monitor", "scoring", "ingesting", "serving", "latency", "story", "replay")
        if name in found
        for figure in found[name].figures
        if figure.reach is not None and _divisible(figure)
    ]
    canvas, (axes,) = _panels(1, 1, 1.9 + 0.32 * len(told), "Speed and memory against what was asked")
    frame(axes, "over what was asked (under it, where more is better): left of 1 is met")
    for row, (_, figure) in enumerate(told):
        value, low, high = _against_reach(figure)
        color = GAIN if figure.holds else DRIFTED
        axes.plot([low, high], [row, row], color=color, linewidth=2.0)
        axes.plot(value, row, marker="o" if figure.holds else "s", color=color, markersize=6)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color=INK, linewidth=1.2)
    axes.set_yticks(range(len(told)), [name for name, _ in told])
    axes.set_ylim(len(told) - 0.4, -0.6)
    return png(canvas)


def _divisible(figure: Figure) -> bool:
    """Whether its reach is a number to be divided by: those of counts and of errors are told in tables."""
    assert figure.reach is not None
    sign, _, asked = figure.reach.rpartition(" ")
    return sign in ("<=", ">=") and float(asked) > 0 and figure.value > 0 and figure.unit in SPEED_UNITS


SPEED_UNITS = ("ratio", "of DataDriftPreset's time", "MiB", "MiB beyond the data", "s", "rows/s", "x", "requests/s")


def _against_reach(figure: Figure) -> tuple[float, float, float]:
    assert figure.reach is not None
    sign, _, asked = figure.reach.rpartition(" ")
    of = (lambda value: value / float(asked)) if sign == "<=" else (lambda value: float(asked) / value)
    return of(figure.value), of(figure.low), of(figure.high)


def _panels(rows: int, columns: int, height: float, title: str) -> tuple[FigureCanvasAgg, list[Axes]]:
    figure = Canvas(figsize=(WIDTH, height), dpi=100, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.015, ha="left", size=16, weight="bold", color=INK)
    return canvas, list(np.atleast_1d(figure.subplots(rows, columns)).ravel())


def _dots(axes: Axes, dots: Sequence[Dot], names: Sequence[str], kinds: int) -> None:
    """Dots with intervals, a row for each name, kinds beneath each other within it."""
    seen = dict.fromkeys((dot.marker for dot in dots), 0)
    places = {marker: (n - (kinds - 1) / 2) * 0.22 for n, marker in enumerate(seen)}
    for dot in dots:
        y = dot.row + places[dot.marker]
        low, value, high = (dot.scale * end for end in (dot.figure.low, dot.figure.value, dot.figure.high))
        axes.plot([low, high], [y, y], color=dot.color, linewidth=1.6)
        axes.plot(value, y, marker=dot.marker, color=dot.color, markersize=5.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.9)


def _line(axes: Axes, x: float, told: str) -> None:
    axes.axvline(x, color=QUIET, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.annotate(told, (x, -0.75), xytext=(5, 0), textcoords="offset points", fontsize=9, color=QUIET)


def _key(axes: Axes, names: Sequence[str]) -> None:
    for name, marker, color in zip(names, MARKERS, COLORS, strict=False):
        axes.plot([], [], marker=marker, color=color, linestyle="none", label=name)
    # Beneath the panel: there are dots in every corner of it.
    axes.legend(
        frameon=False,
        fontsize=9.5,
        loc="upper left",
        bbox_to_anchor=(-0.01, -0.07),
        ncols=3,
        columnspacing=1.0,
        handletextpad=0.2,
    )


# By file: the benchmark without which there is none, and how it is drawn.
PICTURES: Mapping[str, tuple[str, Callable[[Mapping[str, Found]], bytes]]] = {
    "results-loss.png": ("replay", lambda found: losses(found, LATER)),
    "results-loss-earlier.png": ("replay", lambda found: losses(found, EARLIER)),
    "results-reliability.png": ("replay", reliability),
    "results-alarms.png": ("monitor", alarms),
    "results-promotions.png": ("decisions", promotions),
    "results-speed.png": ("monitor", speed),
}
