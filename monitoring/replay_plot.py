"""The picture of a replay: what each policy's bookings cost week by week, when it retrained, what signals said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from monitoring.ink import DRIFTED, GAIN, INK, QUIET, STEADY, frame, png

# One colour an entry, and none more: a picture of ten lines tells nothing.
COLORS = (GAIN, DRIFTED, "#6b8f3c", "#8a5fa8", "#c9962b", "#3d9c9c")
SMOOTH_WEEKS = 4
WIDTH = 12.0


def draw(
    weekly: pd.DataFrame,
    days: Mapping[str, Sequence[date]],
    baseline: str,
    signals: Mapping[date, Mapping[str, float]],
) -> bytes:
    """PNG, 1200 pixels wide.

    `weekly`: mean log loss of bookings, a column for each entry, index the week's Monday; `days`: trainings
    of each, `baseline` the column that the others are told against; `signals`: value over threshold by name,
    on each day that somebody looked.
    """
    shown = [name for name in weekly.columns if name != baseline][: len(COLORS)]
    ratios = (1.0, 1.5, 0.26 + 0.09 * len(shown), *((0.9,) if signals else ()))
    height = 3.2 * sum(ratios) + 1.7
    figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(ratios), 1, sharex=True, gridspec_kw={"height_ratios": ratios})
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 1.0 / height, bottom=1.05 / height, hspace=0.4)
    first, last = weekly.index.min(), weekly.index.max()
    figure.text(
        0.02,
        1 - 0.38 / height,
        f"Replay of bookings made in the weeks of {first:%Y-%m-%d} to {last:%Y-%m-%d}",
        size=17,
        weight="bold",
        color=INK,
    )
    _losses(panels[0], weekly, baseline, shown)
    _gains(panels[1], weekly, baseline, shown)
    _trainings(panels[2], days, shown)
    if signals:
        _signals(panels[3], signals)
    locator = AutoDateLocator(maxticks=9)
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return png(canvas)


def _losses(axes: Axes, weekly: pd.DataFrame, baseline: str, shown: Sequence[str]) -> None:
    frame(axes, f"log loss by week of booking (mean of {SMOOTH_WEEKS} weeks)")
    smooth = weekly.rolling(SMOOTH_WEEKS, min_periods=1).mean()
    axes.plot(smooth.index, smooth[baseline], color=QUIET, linewidth=2.2, linestyle=(0, (4, 2)), label=baseline)
    for name, color in zip(shown, COLORS, strict=False):
        axes.plot(smooth.index, smooth[name], color=color, linewidth=1.8)
    axes.legend(frameon=False, fontsize=10, loc="upper right")


def _gains(axes: Axes, weekly: pd.DataFrame, baseline: str, shown: Sequence[str]) -> None:
    frame(axes, f"saved against {baseline}, summed over the weeks")
    for name, color in zip(shown, COLORS, strict=False):
        saved = (weekly[baseline] - weekly[name]).fillna(0).cumsum()
        axes.plot(saved.index, saved, color=color, linewidth=2.0, label=name)
    axes.axhline(0, color=QUIET, linewidth=1.0)
    # Beneath the panel: lines run through every corner of it.
    axes.legend(frameon=False, fontsize=10, loc="upper left", bbox_to_anchor=(-0.01, -0.03), ncols=3)


def _trainings(axes: Axes, days: Mapping[str, Sequence[date]], shown: Sequence[str]) -> None:
    frame(axes, "trainings")
    for row, (name, color) in enumerate(zip(shown, COLORS, strict=False)):
        at = pd.to_datetime(list(days.get(name, ())))
        axes.plot(
            at, np.full(len(at), row), linestyle="none", marker="|", markersize=11, markeredgewidth=2.2, color=color
        )
    axes.set_yticks(range(len(shown)), [str(len(days.get(name, ())) - 1) for name in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_ylabel("retrains", color=QUIET, fontsize=9.5)
    axes.grid(axis="y", visible=False)


def _signals(axes: Axes, signals: Mapping[date, Mapping[str, float]]) -> None:
    frame(axes, "signals over their thresholds (1 and more is an alarm)")
    table = pd.DataFrame.from_dict({pd.Timestamp(day): dict(told) for day, told in signals.items()}, orient="index")
    table = table.sort_index()
    for name, color in zip(table.columns, COLORS[::-1], strict=False):
        axes.plot(
            table.index, table[name].clip(upper=3), color=color, linewidth=1.4, marker="o", markersize=3, label=name
        )
    axes.axhline(1, color=STEADY, linewidth=1.4)
    axes.set_ylim(0, 3.05)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(-0.01, -0.16), ncols=4)
