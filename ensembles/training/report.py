"""What one epoch of training ended with."""

import math
from collections import Counter
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


def chance_level(classes: int, labels: Sequence[int]) -> float:
    """The accuracy that guessing stays below in all but about a thousandth of cases: p + 3.1 standard errors.

    p is 1 over the number of classes, or the share of the largest class among the labels, which who always answers it
    reaches, if that is more.
    """
    largest = max(Counter(labels).values(), default=0) / max(len(labels), 1)
    chance = max(1 / classes, largest)
    return chance + 3.1 * math.sqrt(chance * (1 - chance) / max(len(labels), 1))


def collapsed_members(
    accuracies: Sequence[float], earlier: Sequence[EpochReport], chance: float, *, last: bool
) -> tuple[int, ...]:
    """The members at chance now that were above it before, or that still are at the last epoch."""
    return tuple(
        number
        for number, accuracy in enumerate(accuracies)
        if accuracy <= chance and (last or any(report.member_accuracies[number] > chance for report in earlier))
    )
