"""The statistics of a board as Markdown: standings, training seeds, envelopes, the Pareto front."""

from collections.abc import Sequence

from leaderboards import escaping, numerals, pareto, training_seeds
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
        cells = [
            numerals.with_spread(float(value), float(spread))
            for value, spread in zip(family.certified, family.deviation, strict=True)
        ]
        rows.append(
            [
                str(family.rank),
                numerals.span(family.rank_interval),
                text(family.name),
                str(len(family.lines)),
                numerals.with_spread(family.mean, family.mean_deviation),
                *cells,
            ]
        )
    return ["## Training seeds", training_seeds.READING, _table(rows)]


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
    return ["## Accuracy against time", pareto.READING, "\n".join(items)]


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
