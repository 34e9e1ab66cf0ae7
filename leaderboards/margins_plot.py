"""Lower bounds on margins as a figure: a panel an entry, a point an image."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leaderboards.board import Board
from leaderboards.escaping import shortened, visible
from leaderboards.margins import Margins, margins
from leaderboards.marks import mark
from leaderboards.radii import format_radius
from leaderboards.theme import LIGHT, Theme, png_of, quiet, svg_of

_COLUMNS = 2


def margins_svg(board: Board, theme: Theme = LIGHT) -> str:
    """The figure as SVG; equal boards give equal bytes."""
    with quiet():
        return svg_of(_figure(board, theme))


def margins_png(board: Board, theme: Theme = LIGHT) -> bytes:
    """The figure as PNG."""
    with quiet():
        return png_of(_figure(board, theme))


def _figure(board: Board, theme: Theme) -> Figure:
    panels = margins(board)
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(9.0, 0.6 + 2.8 * rows), facecolor=theme.paper, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False, sharey=True)  # panels are there to be compared
    for axes, panel in zip(grid.flat, panels, strict=False):
        _panel(axes, panel, theme)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(
        f"image, of those that all members shown classify rightly (r = {format_radius(board.radii[0])}, {board.norm})",
        color=theme.ink,
        fontsize=10,
    )
    figure.supylabel("least lower bound on a margin", color=theme.ink, fontsize=10)
    return figure


def _panel(axes: Axes, panel: Margins, theme: Theme) -> None:
    number, value = np.arange(1, len(panel.values) + 1), panel.values
    positive = value > 0
    axes.set_facecolor(theme.paper)
    axes.axhline(0, color=theme.ink, linewidth=1)
    for chosen, color, marker in ((positive, theme.lines[0], "o"), (~positive, theme.lines[1], "x")):
        axes.scatter(number[chosen], value[chosen], s=12, color=color, marker=marker, linewidths=1)
    # Hopeless bounds are orders of magnitude below zero.
    axes.set_yscale("symlog", linthresh=1.0)
    title = f"{shortened(visible(panel.line.entry.name), 58)}\n{panel.above} of {len(value)} above 0"
    if found := mark(panel.line.entry):
        title += f" ({found})"
    axes.set_title(title, color=theme.ink, fontsize=9, parse_math=False)
    axes.grid(color=theme.rule, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink, labelsize=8, length=0, pad=4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.rule)
