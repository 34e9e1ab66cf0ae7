"""A board as one self-contained HTML page.

The tables and facts are plain HTML and complete without scripts. The DataTables bundle that itables ships makes tables
sortable and searchable; the scripts in `templates/` draw the images of an entry and compare two entries, from the data
of `leaderboards.page_data`. The page loads nothing: its content security policy forbids it, and admits by its digest
only the one script made of those files.
"""

import hashlib
import json
import math
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import itables.options
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboards import escaping, numerals, pareto, training_seeds
from leaderboards.audits import audit_texts
from leaderboards.badges import badge_text, groups
from leaderboards.board import Board
from leaderboards.envelope import CAUTION
from leaderboards.findings import findings_html
from leaderboards.margins import margins
from leaderboards.margins_plot import margins_svg
from leaderboards.marks import mark, marked_name
from leaderboards.page_data import json_for_html, page_data
from leaderboards.page_statistics import page_statistics, standing_order, standing_words
from leaderboards.plots import curves_svg, drawn_lines
from leaderboards.published import Published
from leaderboards.radii import format_radius
from leaderboards.rounding import reading_of_rounding, rounding_costs
from leaderboards.side_by_side import side_by_side, stages
from leaderboards.standings import p_value, points, reading_of_standings
from leaderboards.tables import reading_guide
from leaderboards.theme import DARK, LIGHT
from leaderboards.training import diagnostic_names, searches

_TEMPLATES = Path(__file__).parent / "templates"

#: The page's script, in this order: one module, so that one digest admits it.
SCRIPTS = ("tables.js", "drawing.js", "images.js", "entry.js", "paired.js", "compare.js", "views.js")


def html_page(board: Board, published: Published | None = None, home: str = "") -> str:
    """The board as HTML text: every name and text of the board escaped, nothing loaded from anywhere.

    Args:
        board: the board.
        published: the published run that it is of, for the logs of trainings, pictures of images and findings.
        home: the file name of an index to link to.
    """
    script = "".join(template_text(name) for name in SCRIPTS)
    known = (published.logs, published.trained, published.pictures) if published else ()
    pictures = published.pictures if published else None
    return (
        environment()
        .get_template("board.html")
        .render(
            board=board,
            home=home,
            radii=[format_radius(radius) for radius in board.radii],
            guide=reading_guide(board),
            style=template_text("board.css"),
            script=script,
            policy=policy(script),
            bundle=b64encode(Path(itables.options.dt_bundle).read_bytes()).decode(),
            data=json_for_html(page_data(board, *known)),
            sheet=b64encode(pictures.sheet).decode() if pictures else "",
            drawn=len(drawn_lines(board)),
            diagnostics=diagnostic_names(board),
            searches=searches(board),
            groups=groups(board),
            places={line.entry.name: number for number, line in enumerate(board.lines, start=1)},
            statistics=page_statistics(board),
            reading_of_standings=reading_of_standings(),
            reading_of_families=training_seeds.READING,
            reading_of_front=pareto.READING,
            caution=CAUTION,
            findings=findings_html(published.findings) if published else "",
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
    )


def environment() -> Environment:
    """Templates that escape everything they are given, and fail on names that are not there."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": numerals.percent,
        "interval": numerals.interval,
        "radius": numerals.radius,
        "quantity": numerals.quantity,
        "order": lambda value: -1 if math.isnan(value) else value,
        "format_radius": format_radius,
        "badge": badge_text,
        "mark": mark,
        "marked_name": marked_name,
        "rank": numerals.rank,
        "span": numerals.span,
        "with_spread": numerals.with_spread,
        "points": points,
        "p_value": p_value,
        "standing": standing_words,
        "standing_order": standing_order,
        "audit": audit_texts,
        "visible": escaping.visible,
        "lines": escaping.visible_lines,
        "pretty": _pretty,
    }
    return made


def template_text(name: str) -> str:
    """The text of a style or script, as it stands in a page."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def policy(script: str) -> str:
    """The content security policy of a page whose only script this is; empty: a page without scripts."""
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{digest}' blob:" if script else "script-src 'none'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {scripts}; base-uri 'none'; form-action 'none'"
    )


def _data_address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def _pretty(value: Any, *, inner: bool = False) -> str:
    """A value of a description for readers: `name: value, name: value`, a line an item where items have names."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return numerals.NOTHING
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}: {_pretty(item, inner=True)}" for name, item in value.items())
        return f"({text})" if inner else text
    if isinstance(value, list | tuple):
        named = any(isinstance(item, Mapping) for item in value)
        text = ("\n" if named and not inner else ", ").join(_pretty(item, inner=inner) for item in value)
        return f"[{text}]" if inner else text
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
