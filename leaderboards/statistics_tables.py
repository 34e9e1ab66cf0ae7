"""The statistics of a board as Markdown: standings, training seeds, envelopes, the Pareto front."""

import math
from collections.abc import Sequence

from leaderboards import escaping, numerals
from leaderboards.band import band_half_width
from leaderboards.board import Board
from leaderboards.envelope import CAUTION, envelopes
from leaderboards.marks import marked_name
from leaderboards.pareto import front_of
from leaderboards.radii import format_radius
from leaderboards.standings import p_value, points, rank_range, reading_of_standings, standings
from leaderboards.training_seeds import families

#: A longer table of standings is cut here; `board.json` has all.
MOST_STANDINGS = 20


def statistics_blocks(board: Board) -> list[str]:
    """Blocks of Markdown; none for what a board does not have."""
    return [*_standings(board), *_families(board), *_front(board), *_envelopes(board)]


def reading_of_band(board: Board) -> str:
    """The width of the band around whole curves, in words."""
    width = numerals.percent(band_half_width(board.images))
    return (
        f"A whole curve of {board.images} images lies within {width} points of the truth at all radii at once, with "
        f"95 % "
        "confidence (Kolmogorov); the intervals in brackets are narrower and hold at one radius each."
    )


def _standings(board: Board) -> list[str]:
    text, found = escaping.markdown, standings(board)
    if len(found) < 2:
        return []
    rows = [
        ["#", "ranks", "entry", *(f"r = {format_radius(radius)}" for radius in board.radii), "radii: p"],
        ["--:", "--:", ":--", *["--:"] * len(board.radii), "--:"],
    ]
    for standing in found[:MOST_STANDINGS]:
        cells = [
            f"{points((at.gained - at.lost) / board.images)} (-{at.lost} +{at.gained})"
            + (r" \*" if at.told_apart else "")
            for at in standing.against
        ] or ["best"] * len(board.radii)
        name = text(marked_name(standing.line.entry))
        p = p_value(standing.wilcoxon) if standing.against else numerals.NOTHING
        rows.append([numerals.rank(standing.line.rank), rank_range(standing), name, *cells, text(p)])
    cut = f"The first {MOST_STANDINGS} of {len(found)}; board.json has all." if len(found) > MOST_STANDINGS else ""
    return ["## Ranks, and what tells entries from the best", _table(rows), cut, text(reading_of_standings())]


def _families(board: Board) -> list[str]:
    text, found = escaping.markdown, families(board)
    if not found:
        return []
    rows = [
        ["#", "ranks", "entry", "seeds", "mean", *(f"r = {format_radius(radius)}" for radius in board.radii)],
        ["--:", "--:", ":--", "--:", "--:", *["--:"] * len(board.radii)],
    ]
    for family in found:
        low, high = family.rank_interval
        cells = [_spread(value, spread) for value, spread in zip(family.certified, family.deviation, strict=True)]
        rows.append(
            [
                str(family.rank),
                str(low) if low == high else f"{low}–{high}",
                text(family.name),
                str(len(family.lines)),
                _spread(family.mean, family.mean_deviation),
                *cells,
            ]
        )
    told = (
        "Mean over training seeds of the certified accuracy (%), ± the standard deviation between seeds. Ranks: the "
        "middle 95 % over resamples of images and of seeds; an entry with one seed is taken as it is."
    )
    return ["## Training seeds", told, _table(rows)]


def _spread(value: float, deviation: float) -> str:
    shown = numerals.percent(float(value))
    return shown if math.isnan(deviation) else f"{shown} ± {100 * deviation:.1f}"


def _front(board: Board) -> list[str]:
    found = front_of(board)
    if len(found) < 2:
        return []
    items = [
        f"- {numerals.quantity(line.scores.seconds)} s: {escaping.markdown(marked_name(line.entry))}, "
        f"{numerals.percent(line.scores.mean_certified_accuracy)} %"
        for line in found
        if line.scores
    ]
    told = "Entries that no other beats in mean certified accuracy at the same or less time an image."
    return ["## Accuracy against time", told, "\n".join(items)]


def _envelopes(board: Board) -> list[str]:
    text, found = escaping.markdown, envelopes(board)
    if not found:
        return []
    rows = [
        ["best over sigma", *(f"r = {format_radius(radius)}" for radius in board.radii)],
        [":--", *["--:"] * len(board.radii)],
    ]
    for item in found:
        cells = [
            f"{numerals.percent(share.value)} ({item.sigmas[number]:g})"
            for share, number in zip(item.shares, item.best, strict=True)
        ]
        rows.append([text(item.name), *cells])
    return ["## Envelopes over sigma (not ranked)", f"{CAUTION} In brackets: the sigma chosen.", _table(rows)]


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
