"""Certifiers side by side: what each of them proves of the same classifier, and at what price."""

from collections import Counter
from dataclasses import dataclass

from leaderboards.board import Board, Line
from leaderboards.marks import marked_name

#: The column of evidence that says which stage of a cascade settled an image.
STAGE = "evidence_stage"


@dataclass(frozen=True)
class SideBySide:
    """One row a classifier (ensemble and aggregation), one group of columns a certifier.

    `lines` has for each classifier its line under each certifier, None where the board has none.
    """

    certifiers: tuple[str, ...]
    lines: dict[tuple[str, str], tuple[Line | None, ...]]


def side_by_side(board: Board) -> SideBySide | None:
    """The classifiers of a board that meet more than one certifier; None where there is none.

    Classifiers and certifiers come in the order of the ranks, certifiers by their names in the spec, since two of them
    may differ in parameters alone. Lines without numbers come last.
    """
    found: dict[tuple[str, str], dict[str, Line]] = {}
    for line in board.lines:
        labels = line.entry.details.get("labels", {})
        aggregation = labels.get("aggregation") or line.entry.aggregation
        # Networks in another number format are other classifiers.
        precision = line.entry.details.get("precision")
        classifier = (line.entry.ensemble, f"{aggregation}, {precision}" if precision else aggregation)
        found.setdefault(classifier, {})[labels.get("certifier") or line.entry.certifier] = line
    found = {classifier: row for classifier, row in found.items() if len(row) > 1}
    if not found:
        return None
    certifiers = tuple(dict.fromkeys(name for row in found.values() for name in row))
    return SideBySide(
        certifiers, {classifier: tuple(row.get(name) for name in certifiers) for classifier, row in found.items()}
    )


def stages(board: Board) -> dict[str, dict[str, int]]:
    """For each entry of a cascade, by its marked name, how many images each stage settled, the most first."""
    return {
        marked_name(line.entry): dict(Counter(line.entry.rows[STAGE]).most_common())
        for line in board.ranked
        if STAGE in line.entry.rows
    }
