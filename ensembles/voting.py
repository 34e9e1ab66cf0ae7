"""Ensembles that vote: each member for one class, or a few members for all where they agree."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from ensembles.aggregation import Aggregation, Output, register
from ensembles.parameters import ParameterError


@register("majority-vote")
@dataclass(frozen=True, kw_only=True)
class MajorityVote(Aggregation):
    """Hard voting: the score of a class is the share of the members that answer it, `1/N sum_i [argmax f_i(x) = c]`.

    Each member votes for the lowest class of its largest logits, and equal numbers of votes are answered with the
    lowest class. Where a member's logits are not all finite, no score is a number. The scores are steps, so that
    bounds on logits say nothing of them: smooth it.
    """

    name: ClassVar[str] = "majority-vote"

    def scores(self, logits: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """The shares of votes."""
        votes = torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        valid = torch.isfinite(logits).all(-1).all(0)
        return votes.mean(0).masked_fill(~valid[:, None], torch.nan)


@register("k-consensus")
@dataclass(frozen=True, kw_only=True)
class KConsensus(Aggregation):
    """K-consensus: where the first K members answer alike they decide, and elsewhere all members do.

        mean of s_1 .. s_K    if argmax s_1 = ... = argmax s_K,    else    mean of s_1 .. s_N

    (Horvath et al., ICLR 2022, section 5.) It spares the other members where K agree, which may outvote them: it is
    another classifier than the average ensemble, with certificates of its own. Members past K are not asked for their
    opinion where K agree, not even whether it is finite.

    Attributes:
        k: how many members come first, in their order in the ensemble.
        of: what is averaged.
    """

    name: ClassVar[str] = "k-consensus"
    k: Annotated[int, pydantic.Field(ge=2)] = 2
    of: Output = "logit"

    def uses(self, members: int) -> tuple[int, ...]:
        """All members; checks that there are at least k."""
        if members < self.k:
            raise ParameterError(
                f"KConsensus: k = {self.k} of {members} members; k is at most how many there are. Take a smaller k, "
                "or more members."
            )
        return super().uses(members)

    def scores(self, logits: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """The mean outputs of the first k members, or of all."""
        outputs = logits.softmax(-1) if self.of == "confidence" else logits
        answers = outputs[: self.k].argmax(-1)
        agree = (answers == answers[:1]).all(0)
        return torch.where(agree[:, None], outputs[: self.k].mean(0), outputs.mean(0))
