"""The statistics of a board as plain data, unrounded, for `board.json`."""

import math
from typing import Any

from leaderboards.band import band_half_width
from leaderboards.board import Board
from leaderboards.envelope import CAUTION, envelopes
from leaderboards.pareto import front_of
from leaderboards.radii import format_radius
from leaderboards.standings import SIGNIFICANCE, standings
from leaderboards.training_seeds import families


def statistics_document(board: Board) -> dict[str, Any]:
    """Band, standings, training seeds, Pareto front and envelopes; a list is empty where a board has none."""
    radii = [format_radius(radius) for radius in board.radii]
    return {
        "simultaneous_band": {"half_width": band_half_width(board.images), "method": "Kolmogorov, exact"},
        "significance": SIGNIFICANCE,
        "standings": [
            {
                "name": standing.line.entry.name,
                "rank": standing.line.rank,
                "rank_interval": list(standing.rank_interval),
                "best": standing.best,
                "difference": standing.difference,
                "tied_with_best": standing.tied,
                "wilcoxon_p_bonferroni_all_pairs": standing.wilcoxon,
                "mcnemar": [
                    {
                        "radius": format_radius(at.radius),
                        "lost": at.lost,
                        "gained": at.gained,
                        "p_holm_all_pairs_and_radii": at.adjusted,
                    }
                    for at in standing.against
                ],
            }
            for standing in standings(board)
        ],
        "training_seeds": [
            {
                "name": family.name,
                "seeds": list(family.seeds),
                "entries": [line.entry.name for line in family.lines],
                "rank": family.rank,
                "rank_interval": list(family.rank_interval),
                "mean_certified_accuracy": family.mean,
                "between_seed_deviation": _known(family.mean_deviation),
                "certified_accuracy": [
                    {"radius": radius, "mean": float(mean), "between_seed_deviation": _known(float(spread))}
                    for radius, mean, spread in zip(radii, family.certified, family.deviation, strict=True)
                ],
            }
            for family in families(board)
        ],
        "pareto_front": [line.entry.name for line in front_of(board)],
        "envelopes": [
            {
                "name": item.name,
                "caution": CAUTION,
                "certified_accuracy": [
                    {
                        "radius": radius,
                        "value": share.value,
                        "sigma": item.sigmas[number],
                        "entry": item.lines[number].entry.name,
                    }
                    for radius, share, number in zip(radii, item.shares, item.best, strict=True)
                ],
            }
            for item in envelopes(board)
        ],
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
