"""What one epoch of training ended with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochReport:
    """One epoch: mean terms of the loss, accuracies on noisy validation images, time.

    `collapsed` holds the members (from 0) that answer at chance although they once did better, or still do at
    the last epoch.
    """

    epoch: int
    epochs: int
    loss: float
    terms: Mapping[str, float]
    validation_accuracy: float
    member_accuracies: tuple[float, ...]
    collapsed: tuple[int, ...]
    seconds: float
    seconds_left: float


def chance_level(classes: int, examples: int) -> float:
    """The accuracy that guessing stays below in all but about a thousandth of cases: 1/c + 3.1 standard errors."""
    chance = 1 / classes
    return chance + 3.1 * math.sqrt(chance * (1 - chance) / max(examples, 1))


def collapsed_members(
    accuracies: Sequence[float], earlier: Sequence[EpochReport], chance: float, *, last: bool
) -> tuple[int, ...]:
    """The members at chance now that were above it before, or that still are at the last epoch."""
    return tuple(
        number
        for number, accuracy in enumerate(accuracies)
        if accuracy <= chance and (last or any(report.member_accuracies[number] > chance for report in earlier))
    )
