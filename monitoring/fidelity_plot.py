"""The picture of a simulated table beside the real one: four curves, rates of cancellation, what models learn."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cancellations.domain.fidelity import RATES, Curve, Fidelity, Learned
from monitoring.ink import DRIFTED, GAIN, INK, QUIET, frame, png

WIDTH, HEIGHT = 13.0, 10.5  # inches at 100 dots
# Beyond this quantile a few rows would stretch the axis.
SHOWN_TO = 0.98
LONGEST_NAME = 38


def draw(found: Fidelity) -> bytes:
    """PNG, 1300 x 1050 pixels."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, len(found.curves), left=0.045, right=0.985, top=0.855, bottom=0.655, wspace=0.3)
    figure.text(0.02, 0.955, "A simulated table beside the real one", size=19, weight="bold", color=INK)
    told = f"{found.rows[0]:,} and {found.rows[1]:,} bookings made {found.booked[0]} to {found.booked[1]}"
    figure.text(0.02, 0.927, told, size=11.5, color=QUIET)
    figure.legend(
        handles=[
            Line2D([], [], color=GAIN, linewidth=2.6, marker="o"),
            Line2D([], [], color=DRIFTED, linewidth=2.6, linestyle=(0, (4, 1.5)), marker="D"),
        ],
        labels=["real", "simulated"],
        loc="upper right",
        bbox_to_anchor=(0.985, 0.985),
        ncols=2,
        frameon=False,
        fontsize=12.5,
    )
    for place, curve in enumerate(found.curves):
        _curve(figure.add_subplot(grid[0, place]), curve)
    _rates(figure.add_axes((0.2, 0.055, 0.34, 0.5)), found)
    _learned(figure.add_axes((0.68, 0.13, 0.295, 0.425)), found.learned)
    return png(canvas)


def _curve(axes: Axes, curve: Curve) -> None:
    frame(axes, curve.name.removeprefix("cancellations: "))
    steps = np.linspace(0, 1, len(curve.real))
    for values, colour, style in ((curve.real, GAIN, "-"), (curve.simulated, DRIFTED, (0, (4, 1.5)))):
        axes.plot(values, steps, color=colour, linestyle=style, linewidth=2.2)
    top = max(float(np.interp(SHOWN_TO, steps, values)) for values in (curve.real, curve.simulated))
    axes.set_xlim(0, max(top, 1e-9))
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])


def _rates(axes: Axes, found: Fidelity) -> None:
    frame(axes, "cancelled, of bookings with …")
    lines = [line for line in found.lines if line.section == RATES]
    height = np.arange(len(lines))[::-1]
    for line, y in zip(lines, height, strict=True):
        if np.isfinite(line.real) and np.isfinite(line.simulated):
            axes.plot([line.real, line.simulated], [y, y], color=QUIET, linewidth=1.2, zorder=1)
    axes.scatter([line.real for line in lines], height, color=GAIN, s=42, zorder=3)
    axes.scatter([line.simulated for line in lines], height, color=DRIFTED, marker="D", s=34, zorder=2)
    axes.set_yticks(height, [_plain(line.figure) for line in lines])
    axes.tick_params(axis="y", labelsize=9)
    axes.set_xlim(0, 1.02)
    axes.set_xticks(np.arange(0, 1.01, 0.25), [f"{x:.0%}" for x in np.arange(0, 1.01, 0.25)])


def _learned(axes: Axes, learned: tuple[Learned, ...]) -> None:
    frame(axes, "AUC and log loss by where a model learned")
    names = [f"learned on {each.trained_on},\nscored on {each.scored_on}" for each in learned]
    places = np.arange(len(learned))[::-1]
    colours = [GAIN if each.trained_on == "real" else DRIFTED for each in learned]
    axes.barh(places, [each.auc for each in learned], color=colours, height=0.5)
    axes.set_yticks(places, names)
    axes.set_xlim(0.5, 1.0)
    axes.set_ylim(-0.6, len(learned) - 0.4)
    for place, each in zip(places, learned, strict=True):
        told = f"AUC {each.auc:.3f}   log loss {each.log_loss:.3f}"
        axes.text(0.51, place + 0.29, told, color=INK, size=10.5, va="bottom")


def _plain(name: str) -> str:
    """A label without what matplotlib would read as mathematics, on one line that fits."""
    text = " ".join(name.split()).replace("_", " ").replace("$", r"\$")
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
