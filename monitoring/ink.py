"""What all pictures share: colours, the frame of a panel, and how they become PNG."""

from __future__ import annotations

from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

INK, QUIET, GRID = "#1f2933", "#66727f", "#dde2e7"
DRIFTED, STEADY = "#c8553d", "#b9c4cf"
GAIN, BAND, SHADE = "#24557a", "#c4d6e6", "#eef0f2"


def png(canvas: FigureCanvasAgg) -> bytes:
    out = BytesIO()
    canvas.print_png(out)
    return out.getvalue()


def frame(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", size=11.5, weight="bold", color=INK, pad=14)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9.5)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
