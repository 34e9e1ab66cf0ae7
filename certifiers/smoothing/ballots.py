"""The votes of one classifier on one batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from certifiers.sanitize import checked_scores


@dataclass(frozen=True, eq=False)
class Ballots:
    """Which class each sample votes for; `classes`, one more than the last of them, is a vote for nobody."""

    choices: Int64[Tensor, "batch"]
    classes: int

    @classmethod
    def of(cls, scores: Tensor, count: int) -> "Ballots":
        """From scores [batch, classes]: the class of the largest, the lowest on ties; nobody where one is not finite.

        Raises:
            ValueError: scores are not of shape [count, classes] for at least two classes.
        """
        classes = checked_scores(scores, count).shape[1]
        return cls(scores.argmax(1).masked_fill_(~torch.isfinite(scores).all(1), classes), classes)

    def settled(self, where: Bool[Tensor, "batch"], choices: Int64[Tensor, "batch"]) -> "Ballots":
        """With these choices where they are settled."""
        return Ballots(torch.where(where, choices, self.choices), self.classes)

    def counted(self) -> Int64[Tensor, "classes_and_invalid"]:
        """How many votes each class has, and last how many are for nobody."""
        return torch.bincount(self.choices, minlength=self.classes + 1)
