"""The picture of the coming nights: for each hotel what is on the books, and what will be cancelled of it.

In large letters, so that it can be read in a mail, and on a phone.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from monitoring.ink import BAND, DRIFTED, GAIN, INK, QUIET, STEADY, frame, png

WIDTH, PANEL, HEAD, FOOT = 12.0, 2.75, 1.55, 0.75  # inches at 100 dots
MONEY_BAND = "#f0d3cb"
SIZE = 16
WEEKS_BETWEEN = 2  # dates under a panel
WEEK = 7


def draw(as_of: date, nights: pd.DataFrame, currency: str) -> bytes:
    """PNG, 1200 pixels wide, two panels for each hotel: rooms, and revenue at risk; `nights` is not empty."""
    hotels = list(dict.fromkeys(nights["hotel"]))
    height = HEAD + FOOT + 2 * len(hotels) * PANEL
    figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(2 * len(hotels), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.115, right=0.985, top=1 - HEAD / height, bottom=FOOT / height, hspace=0.62)
    days = nights["night"].nunique()
    figure.text(0.02, 1 - 0.5 / height, f"The next {days} nights, seen on {as_of}", size=23, weight="bold", color=INK)
    figure.legend(
        handles=[
            Patch(facecolor=STEADY),
            Line2D([], [], color=GAIN, linewidth=3.0),
            Line2D([], [], color=DRIFTED, linewidth=3.0, linestyle=(0, (5, 1.5))),
            (Patch(facecolor=BAND, edgecolor=GAIN), Patch(facecolor=MONEY_BAND, edgecolor=DRIFTED)),
        ],
        labels=["on the books, to arrive", "expected to cancel", "revenue at risk", "intervals"],
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.1)},
        loc="upper left",
        bbox_to_anchor=(0.01, 1 - 0.62 / height),
        ncols=4,
        frameon=False,
        fontsize=SIZE,
        columnspacing=1.6,
        handlelength=1.9,
    )
    for hotel, rooms, money in zip(hotels, panels[::2], panels[1::2], strict=True):
        rows = nights[nights["hotel"] == hotel].sort_values("night")
        _rooms(rooms, rows, str(hotel))
        _money(money, rows, str(hotel), currency)
    return png(canvas)


def _rooms(axes: Axes, rows: pd.DataFrame, hotel: str) -> None:
    soon = rows.head(WEEK)
    told = f"next {len(soon)} nights: {soon['expected'].sum():,.0f} of {soon['on_books'].sum():,.0f}"
    days = _days(axes, rows, f"{_short(hotel)}: rooms", told)
    axes.bar(days, rows["on_books"], width=0.86, color=STEADY, linewidth=0, zorder=1)
    axes.fill_between(
        days, rows["expected_low"], rows["expected_high"], facecolor=BAND, edgecolor=GAIN, linewidth=0.8, zorder=2
    )
    axes.plot(days, rows["expected"], color=GAIN, linewidth=3.0, zorder=3)
    axes.set_ylim(0, max(1.0, 1.06 * float(rows["on_books"].max())))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _money(axes: Axes, rows: pd.DataFrame, hotel: str, currency: str) -> None:
    soon = rows.head(WEEK)
    told = f"next {len(soon)} nights: {currency} {soon['at_risk'].sum():,.0f}" if soon["at_risk"].notna().any() else ""
    days = _days(axes, rows, f"{_short(hotel)}: {currency} at risk", told)
    if not rows["at_risk"].fillna(0).any():
        axes.set_yticks([])
        told = "no booking has a price" if rows["unpriced"].any() else "nothing at risk"
        axes.text(0.5, 0.5, told, transform=axes.transAxes, ha="center", va="center", size=SIZE, color=QUIET)
        return
    axes.fill_between(
        days,
        rows["at_risk_low"],
        rows["at_risk_high"],
        facecolor=MONEY_BAND,
        edgecolor=DRIFTED,
        linewidth=0.8,
        zorder=2,
    )
    axes.plot(days, rows["at_risk"], color=DRIFTED, linewidth=3.0, linestyle=(0, (5, 1.5)), zorder=3)
    axes.set_ylim(0, max(1.0, 1.06 * float(np.nanmax(rows["at_risk_high"]))))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _days(axes: Axes, rows: pd.DataFrame, title: str, told: str) -> np.ndarray:
    """Frame, titles and dates of a panel; returns where its nights stand."""
    frame(axes, "")
    # A hotel's name and a currency are words: `$` begins no formula in them.
    axes.set_title(title, loc="left", size=18, weight="bold", color=INK, pad=8, parse_math=False)
    axes.set_title(told, loc="right", size=SIZE, color=INK, pad=8, parse_math=False)
    axes.grid(visible=False, axis="x")
    axes.tick_params(labelsize=SIZE)
    days = np.array([date2num(night) for night in rows["night"]])
    axes.set_xlim(days[0] - 0.7, days[-1] + 0.7)
    shown = rows["night"].iloc[:: 7 * WEEKS_BETWEEN if len(rows) > 28 else 7]
    axes.set_xticks([date2num(night) for night in shown], [f"{night.day} {night:%b}" for night in shown])
    return days


def _short(hotel: str) -> str:
    line = " ".join(hotel.split())
    return line if len(line) <= 32 else f"{line[:31]}…"
