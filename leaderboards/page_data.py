"""What the views of a page are drawn from, as one JSON document: every image of every entry, once.

The numbers that a view counts are decided here: thresholds are the float64 that a radius must reach, and the interval
of every possible count is `leaderboards.metrics.binomial_interval`. A view compares and adds up; it rounds nothing.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from leaderboards.band import band_half_width
from leaderboards.board import Board, Line
from leaderboards.escaping import visible
from leaderboards.marks import mark
from leaderboards.metrics import binomial_interval
from leaderboards.pictures import Pictures
from leaderboards.published import Log
from leaderboards.radii import ceil_float, format_radius
from leaderboards.records import VERDICTS

#: In a column of radii: no number.
NONE = -1

#: What is known of each image under an entry.
COLUMNS = ("verdict", "prediction", "clean", "radius", "attack", "reason")

#: In the column of attack radii: attacked, and no other answer was found.
NOTHING_FOUND = -2


def page_data(
    board: Board,
    logs: Sequence[Log] = (),
    trained: Mapping[str, Sequence[int]] | None = None,
    pictures: Pictures | None = None,
) -> dict[str, Any]:
    """The document, ready for `json_for_html`.

    Fields:
        images: ids in the order of the image set; labels, as many.
        radii: `{text, value}`, the radius as written and the least float64 that reaches it.
        low, high: ends of the exact 95 % interval of k of n images, k = 0 to n.
        band: half of the width of the 95 % band around a whole curve, a share.
        verdicts, reasons, lengths: what the columns of the entries count in; lengths are float64 radii.
        entries: as `board.lines`: name, mark, whether it has scores, whether it was computed here (`paired`: only
            then did it surely meet the noise of the others); for each of `COLUMNS` which of `columns` it is.
        columns: distinct columns, an image an item. Radii and attacks are numbers of `lengths`, or `NONE`,
            `NOTHING_FOUND`; where an image has no row its verdict is `NONE`.
        logs: label, and loss and validation accuracy by epoch.
        pictures: the sheet's columns, sizes and, by image, the number of its tile.
    """
    ids, labels = _images(board)
    lengths, reasons = _Numbered(), _Numbered()
    entries = [_entry(line, ids, lengths, reasons) for line in board.lines]
    columns = _Numbered()
    for line, entry in zip(board.lines, entries, strict=True):
        # Many columns are alike: entries share classifiers, and most were never attacked.
        entry |= {name: columns.of(tuple(entry[name])) for name in COLUMNS}
        entry["logs"] = list((trained or {}).get(line.entry.name, ()))
    ends = [binomial_interval(count, board.images) for count in range(board.images + 1)]
    return {
        "norm": visible(board.norm),
        "images": ids,
        "labels": labels,
        "radii": [{"text": format_radius(radius), "value": ceil_float(radius)} for radius in board.radii],
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
        "band": band_half_width(board.images),
        "verdicts": list(VERDICTS),
        "reasons": [visible(str(reason)) for reason in reasons.known],
        "lengths": list(lengths.known),
        "columns": list(columns.known),
        "entries": entries,
        "logs": [_log(log) for log in logs],
        "pictures": _tiles(pictures, ids),
    }


def json_for_html(document: Mapping[str, Any]) -> str:
    """JSON that may stand inside of a `<script>` of a page: nothing in it ends the element or begins a comment.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Numbered:
    """Distinct values by the order in which they came."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        return self.known.setdefault(value, len(self.known))


def _images(board: Board) -> tuple[list[int], list[int]]:
    """The images that any entry has rows of, in their order, with their labels."""
    labels: dict[int, int] = {}
    for line in sorted(board.lines, key=lambda line: -len(line.entry.rows)):
        rows = line.entry.rows
        for image, label in zip(rows["image_id"].tolist(), rows["label"].tolist(), strict=True):
            labels.setdefault(image, label)
    return list(labels), list(labels.values())


def _entry(line: Line, ids: Sequence[int], lengths: _Numbered, reasons: _Numbered) -> dict[str, Any]:
    entry = line.entry
    rows = entry.rows.set_index("image_id").reindex(pd.Index(ids, name="image_id"))
    there = rows["verdict"].notna().to_numpy()

    def whole(column: str) -> list[int]:
        return [int(value) if known else NONE for value, known in zip(rows[column], there, strict=True)]

    attacks = (entry.attack_radii.get(image) for image in ids)
    return {
        "name": visible(entry.name),
        "mark": mark(entry) if line.scores else entry.status,
        "scored": line.scores is not None,
        "paired": not entry.imported,
        "verdict": [VERDICTS.index(v) if known else NONE for v, known in zip(rows["verdict"], there, strict=True)],
        "prediction": whole("prediction"),
        "clean": whole("clean_prediction"),
        "radius": [lengths.of(float(r)) if known else NONE for r, known in zip(rows["radius"], there, strict=True)],
        "attack": [
            NONE if attack is None else NOTHING_FOUND if math.isinf(attack) else lengths.of(attack)
            for attack in attacks
        ],
        "reason": [
            reasons.of(reason) if known and reason else NONE
            for reason, known in zip(rows["reason"], there, strict=True)
        ],
    }


def _log(log: Log) -> dict[str, Any]:
    return {
        "label": visible(log.label),
        "loss": _finite(epoch.get("loss") for epoch in log.epochs),
        "validation": _finite(epoch.get("validation_accuracy") for epoch in log.epochs),
    }


def _finite(values: Iterable[Any]) -> list[float | None]:
    return [float(v) if isinstance(v, int | float) and np.isfinite(v) else None for v in values]


def _tiles(pictures: Pictures | None, ids: Sequence[int]) -> dict[str, Any] | None:
    if pictures is None:
        return None
    at = {image: number for number, image in enumerate(pictures.image_ids)}
    size = {"columns": pictures.columns, "width": pictures.width, "height": pictures.height}
    return size | {"rows": -(-len(at) // pictures.columns), "tiles": [at.get(image, NONE) for image in ids]}
