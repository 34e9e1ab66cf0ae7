"""Certified accuracy against the radius, drawn without any global state of matplotlib."""

from itertools import cycle

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leaderboards.board import Board, Line
from leaderboards.escaping import shortened, visible
from leaderboards.marks import mark
from leaderboards.metrics import certified_curve
from leaderboards.theme import LIGHT, Theme, png_of, quiet, svg_of

# With six colours: no two of thirty lines look alike.
_STYLES: tuple[object, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (4, 1, 1, 1, 1, 1)))
#: Finer steps than a pixel or two only make pages larger.
_MOST_STEPS = 200
#: More lines cannot be told apart.
MOST_CURVES = 12
_NORMS = {"l1": "l1", "l2": "l2", "linf": "l∞"}


def drawn_lines(board: Board) -> tuple[Line, ...]:
    """The lines that get a curve: all ranked ones, or where those are too many the best of each ensemble.

    Of more than `MOST_CURVES` the first are drawn, in the order of the ranks.
    """
    lines = board.ranked
    if len(lines) > MOST_CURVES:
        best: dict[str, Line] = {}
        for line in lines:
            best.setdefault(line.entry.ensemble, line)
        lines = tuple(best.values())
    return lines[:MOST_CURVES]


def curves_svg(board: Board, theme: Theme = LIGHT) -> str:
    """The curves of `drawn_lines` as SVG; equal boards give equal bytes.

    A step curve an entry with its 95 % interval as a band, in the order of the ranks. The legend marks entries that
    are unsound or unverified. Text stays text.
    """
    with quiet():
        return svg_of(_figure(board, theme))


def curves_png(board: Board, theme: Theme = LIGHT) -> bytes:
    """`curves_svg` as PNG at two pixels a point of a common screen (192 dpi)."""
    with quiet():
        return png_of(_figure(board, theme))


def _figure(board: Board, theme: Theme) -> Figure:
    lines = drawn_lines(board)
    names = [_legend(line) for line in lines]
    columns = 2 if len(names) > 3 and max(map(len, names)) <= 40 else 1
    legend_rows = -(-len(names) // columns)
    figure = Figure(figsize=(8.0, 4.4 + 0.21 * legend_rows), facecolor=theme.paper, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _dress(axes, board, theme)
    looks = zip(cycle(theme.lines), cycle(_STYLES), strict=False)
    curves = [(line.entry.rows, line.scores.curve.radius) for line in lines if line.scores]
    end = 1.03 * max(float(board.radii[-1]), *(float(radii[-1]) for _, radii in curves), 0.0) or 1.0
    handles = []
    for (rows, radii), (color, style) in zip(curves, looks, strict=False):
        curve = certified_curve(rows, [*_thinned(radii), end])
        value, low, high = (100 * share for share in curve[1:])
        # The function is continuous from the left, which is what a "pre" step draws.
        handles += axes.step(curve.radius, value, where="pre", color=color, linestyle=style, linewidth=1.8)
        axes.fill_between(curve.radius, low, high, step="pre", color=color, alpha=0.13, linewidth=0)
    axes.set_xlim(0, end)
    if handles:
        # Labels set afterwards: a legend drops a label that starts with an underscore.
        legend = figure.legend(
            handles,
            [str(n) for n in range(len(handles))],
            loc="outside lower center",
            ncols=columns,
            frameon=False,
        )
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_parse_math(False)
            text.set_text(name)
            text.set(color=theme.ink, fontsize=9)
    else:
        axes.text(0.5, 0.5, "No entry is complete.", transform=axes.transAxes, ha="center", color=theme.ink)
    return figure


def _legend(line: Line) -> str:
    """The name, shortened, and its mark, which no name is long enough to push out."""
    name, found = shortened(visible(line.entry.name), 72), mark(line.entry)
    return f"{name} ({found})" if found else name


def _dress(axes: Axes, board: Board, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    norm = _NORMS.get(board.norm, visible(board.norm))
    for label in (
        axes.set_xlabel(f"certified radius ({norm}, input units)"),
        axes.set_ylabel(f"certified accuracy (% of {board.images} images)"),
    ):
        label.set(parse_math=False, color=theme.ink, fontsize=10)
    axes.set_ylim(0, 101)
    axes.grid(color=theme.rule, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0, pad=6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.rule)


def _thinned(radii: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if radii.size <= _MOST_STEPS:
        return radii
    return np.take(radii, np.linspace(0, radii.size - 1, _MOST_STEPS).astype(int))
