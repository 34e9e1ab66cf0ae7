"""Envelopes: at each radius the best of several noise levels. They are kept apart from ranks, and are not results.

An entry smoothed with small noise wins at small radii and one with large noise at large ones. The upper envelope is
drawn in papers as if it were one method, but no classifier has it: which sigma to use is decided by the test images
themselves, radius by radius, so it is optimistic even as a promise to choose well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leaderboards.badges import leading
from leaderboards.board import Board, Line
from leaderboards.metrics import Share

#: What must stand beside every envelope.
CAUTION = (
    "Envelope: at each radius the largest certified accuracy over the noise levels. The noise level is chosen on the "
    "test images, so it is optimistic; no single classifier has it, and it is never ranked."
)


@dataclass(frozen=True)
class Envelope:
    """The best of some lines that differ in their noise level alone.

    Attributes:
        name: the names of ensemble, aggregation and certifier that they share.
        sigmas: noise levels of `lines`, ascending.
        lines: the entries.
        best: at each radius of the board, which of the lines is best; the smallest sigma of equals.
    """

    name: str
    sigmas: tuple[float, ...]
    lines: tuple[Line, ...]
    best: tuple[int, ...]

    @property
    def shares(self) -> tuple[Share, ...]:
        """The best certified accuracy at each radius."""
        return tuple(self._certified(number)[position] for position, number in enumerate(self.best))

    def _certified(self, number: int) -> tuple[Share, ...]:
        scores = self.lines[number].scores
        return scores.certified if scores else ()


def envelope(name: str, lines: Mapping[float, Line]) -> Envelope:
    """The envelope of lines by their noise levels.

    Raises:
        ValueError: fewer than two, or one without numbers.
    """
    ordered = sorted(lines.items())
    if len(ordered) < 2 or any(line.scores is None for _, line in ordered):
        raise ValueError(f"An envelope needs at least two entries with numbers, got {len(ordered)} under {name!r}.")
    counts = [[share.successes for share in line.scores.certified] for _, line in ordered if line.scores]
    best = tuple(max(range(len(counts)), key=lambda row: (counts[row][at], -row)) for at in range(len(counts[0])))
    return Envelope(name, tuple(sigma for sigma, _ in ordered), tuple(line for _, line in ordered), best)


def envelopes(board: Board) -> tuple[Envelope, ...]:
    """The envelopes over sigma of a board: lines whose certifier and training differ in `sigma` and nothing else.

    Where two lines of one sigma would meet, or a line was found unsound, there is no envelope; nor one of unverified
    lines where others are verified.
    """
    found: dict[str, list[tuple[float, Line]]] = {}
    for line in leading(board):
        details = line.entry.details
        sigma = details.get("certifier", {}).get("parameters", {}).get("sigma")
        if isinstance(sigma, int | float):
            found.setdefault(_without_sigma(line), []).append((float(sigma), line))
    groups = [group for group in found.values() if len(group) > 1 and len(dict(group)) == len(group)]
    return tuple(envelope(_name(group), dict(group)) for group in groups)


def _without_sigma(line: Line) -> str:
    details = line.entry.details
    parts = (details.get("certifier"), details.get("aggregation"), details.get("training"), details.get("precision"))
    return repr(_stripped(parts))


def _stripped(value: Any) -> Any:
    # A start is named by its digest, which depends on its own sigma; labels are names that people choose.
    if isinstance(value, Mapping):
        return {
            key: len(item) if key == "start" else _stripped(item)
            for key, item in sorted(value.items())
            if key not in ("sigma", "label")
        }
    return [_stripped(item) for item in value] if isinstance(value, list | tuple) else value


def _name(group: Sequence[tuple[float, Line]]) -> str:
    entry = group[0][1].entry
    ensembles = " / ".join(dict.fromkeys(line.entry.ensemble for _, line in group))
    labels = entry.details.get("labels", {})
    return f"{ensembles} · {labels.get('aggregation') or entry.aggregation} · {entry.certifier}"
