"""A board as one self-contained HTML page.

The table is plain HTML and complete without scripts; the DataTables bundle that itables ships makes it
sortable and searchable. The page loads nothing: its content security policy forbids it, and admits by its
digest only the one script written here.
"""

import hashlib
import json
import math
from base64 import b64encode
from pathlib import Path
from typing import Any

import itables.options
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboards import escaping, numerals
from leaderboards.audits import audit_texts
from leaderboards.badges import badge_text, groups
from leaderboards.board import Board
from leaderboards.margins import margins
from leaderboards.margins_plot import margins_svg
from leaderboards.marks import mark, marked_name
from leaderboards.plots import curves_svg, drawn_lines
from leaderboards.radii import format_radius
from leaderboards.rounding import reading_of_rounding, rounding_costs
from leaderboards.side_by_side import side_by_side, stages
from leaderboards.tables import reading_guide
from leaderboards.theme import DARK, LIGHT
from leaderboards.training import diagnostic_names, searches

_TEMPLATES = Path(__file__).parent / "templates"


def html_page(board: Board) -> str:
    """The board as HTML text: every name and text of the board escaped, nothing loaded from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": numerals.percent,
        "interval": numerals.interval,
        "radius": numerals.radius,
        "quantity": numerals.quantity,
        "order": lambda value: -1 if math.isnan(value) else value,
        "badge": badge_text,
        "mark": mark,
        "marked_name": marked_name,
        "rank": numerals.rank,
        "audit": audit_texts,
        "visible": escaping.visible,
        "pretty": _pretty,
    }
    script = (_TEMPLATES / "board.js").read_text(encoding="utf-8")
    return environment.get_template("board.html").render(
        board=board,
        radii=[format_radius(radius) for radius in board.radii],
        guide=reading_guide(board),
        style=(_TEMPLATES / "board.css").read_text(encoding="utf-8"),
        script=script,
        script_digest=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        bundle=b64encode(Path(itables.options.dt_bundle).read_bytes()).decode(),
        drawn=len(drawn_lines(board)),
        diagnostics=diagnostic_names(board),
        searches=searches(board),
        groups=groups(board),
        side_by_side=side_by_side(board),
        stages=stages(board),
        rounding_costs=rounding_costs(board),
        reading_of_rounding=reading_of_rounding(),
        margins=margins(board),
        margins_light=_data_address(margins_svg(board, LIGHT)) if margins(board) else "",
        margins_dark=_data_address(margins_svg(board, DARK)) if margins(board) else "",
        curves_light=_data_address(curves_svg(board, LIGHT)),
        curves_dark=_data_address(curves_svg(board, DARK)),
        nothing=numerals.NOTHING,
    )


def _data_address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def _pretty(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return numerals.NOTHING
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
