"""Lossless early exit: members that can no longer change a vote are not asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from certifiers.sanitize import checked_scores
from certifiers.smoothing.ballots import Ballots
from certifiers.smoothing.finiteness import surely_finite
from ensembles.aggregation import WeightedAverage
from ensembles.architectures import Classifier
from ensembles.ensemble import Ensemble, members_of, shared_scores

#: Inputs up to this size are proved to have finite logits; a batch with a larger one is given to all members.
LARGEST_INPUT = 2.0**10

#: Above this share of a batch, taking out the samples that are still open costs more than evaluating all of it.
_WORTH_PARTING = 0.9

#: Parts of a batch have at least so many samples, some of them not open if need be: the libraries have other kernels,
#: which add in other orders, for a handful of samples; from 16 on our networks' logits were the same bits in all parts.
_FEWEST = 64


def is_decided(
    partial: Float[Tensor, "batch classes"], remaining: float, members: int
) -> tuple[Bool[Tensor, "batch"], Int64[Tensor, "batch"]]:
    """Where a weighted average of confidences is settled, and the top class so far.

    With weights that sum to 1 and confidences in [0, 1], the members still to come add at most `remaining`, the sum of
    their weights, to any class, and nothing below 0. So the top class wins in the end, alone, if

        partial_top - partial_runner_up > remaining + slack.

    The slack covers rounding. A weighted sum over the members, in any order, is off by less than `(members + 4) u` of
    the sum of its terms, which is 1 plus a few units, u half of epsilon; that happens to two classes in the partial and
    in the full sum. The slack is more than twice their total. NaN decides nothing.

    Args:
        partial: the weighted sum of the confidences of the members that were asked.
        remaining: the weight of those that were not.
        members: how many there are in all.
    """
    top = partial.topk(2, dim=1)
    slack = 4 * (members + 4) * torch.finfo(partial.dtype).eps
    return top.values[:, 0] - top.values[:, 1] > remaining + slack, top.indices[:, 0]


@dataclass(frozen=True, eq=False)
class EarlyExit:
    """Evaluates ensembles on a batch, member after member, and leaves out what cannot matter.

    A member is left out on a sample when every classifier that uses it is a `WeightedAverage` of confidences whose
    vote `is_decided`, and its logits there are proved to be finite (`surely_finite`): one that may return NaN is always
    asked, because one NaN makes a sample a vote for nobody. So the votes are those of evaluating everything, but for
    what the size of a batch does to the last bits of members that are asked about a part of it.

    Attributes:
        classifiers: what votes are wanted of.
        always: the members that are asked about every sample.
        sometimes: the others, in the order in which they are asked: largest weights first.
    """

    classifiers: tuple[nn.Module, ...]
    always: tuple[nn.Module, ...]
    sometimes: tuple[nn.Module, ...]

    @classmethod
    def of(cls, classifiers: Sequence[nn.Module]) -> "EarlyExit | None":
        """The evaluation of these classifiers, or None if no member could ever be left out.

        It hangs on the classifiers alone, never on a clock: the same run always has the same arithmetic.
        """
        averages = [each for each in classifiers if _is_average(each)]
        members = list(dict.fromkeys(member for each in classifiers for member in members_of(each)))
        widths = {member.head.out_features if type(member) is Classifier else None for member in members}
        if not averages or len(widths) != 1 or None in widths:
            return None
        needed = {member for each in classifiers if not _is_average(each) for member in members_of(each)}
        largest = {member: max(_shares(each).get(member, 0.0) for each in averages) for member in members}
        free = [member for member in members if member not in needed]
        free.sort(key=lambda member: -largest[member])
        # One member has to be asked before anything can be decided.
        candidates = free if needed else free[1:]
        # To look whether a vote is decided costs a fifth of an `mlp`, a twentieth of the smallest convolutional net.
        dear = [member for member in candidates if any(isinstance(layer, nn.Conv2d) for layer in member.modules())]
        sometimes = tuple(member for member in dear if surely_finite(member, LARGEST_INPUT))
        if not any(_may_be_decided(_shares(each), sometimes) for each in averages):
            return None
        return cls(tuple(classifiers), tuple(member for member in members if member not in sometimes), sometimes)

    def ballots(self, x: Float[Tensor, "batch *shape"]) -> tuple[list[Ballots], int]:
        """The ballots of each classifier, and how many samples members were asked about, summed over the members."""
        count = len(x)
        proved = bool(x.abs().amax() <= LARGEST_INPUT)
        known = {member: cast("Tensor", member(x)) for member in self.always}
        asked = count * len(known)
        example = checked_scores(known[self.always[0]], count)
        tallies = {place: _Tally(each, example) for place, each in enumerate(self.classifiers) if _is_average(each)}
        for member, logits in known.items():
            for tally in tallies.values():
                tally.add(member, logits, decide=proved)
        for member in self.sometimes:
            users = [tally for tally in tallies.values() if member in tally.shares]
            wanted = torch.stack([tally.open for tally in users]).any(0)
            part = int(wanted.sum())
            part = max(part, _FEWEST) if part else 0
            if part > _WORTH_PARTING * count:
                known[member] = cast("Tensor", member(x))
                asked += count
            else:
                # Zeros stand where it was not asked; what they are aggregated to is not looked at.
                known[member] = torch.zeros_like(example)
                if part:
                    rows = wanted.byte().argsort(descending=True, stable=True)[:part].sort().values
                    known[member][rows] = cast("Tensor", member(x[rows]))
                asked += part
            for tally in users:
                tally.add(member, known[member], decide=proved)
        found = [Ballots.of(scores, count) for scores in shared_scores(self.classifiers, x, known)]
        for place, tally in tallies.items():
            found[place] = found[place].settled(~tally.open, tally.top)
        return found, asked


class _Tally:
    """A weighted average while its members answer: the sum so far, and which samples are open."""

    def __init__(self, average: Ensemble, example: Float[Tensor, "batch classes"]) -> None:
        self.shares = _shares(average)
        self.open = torch.ones(len(example), dtype=torch.bool, device=example.device)
        self.top = torch.zeros(len(example), dtype=torch.int64, device=example.device)
        self._partial = torch.zeros_like(example)
        self._missing = dict(self.shares)

    def add(self, member: nn.Module, logits: Float[Tensor, "batch classes"], decide: bool) -> None:
        """Take in a member's logits, right for the samples that are open; `decide`: close those that it decides."""
        if member not in self._missing:
            return
        self._partial += self._missing.pop(member) * logits.softmax(-1)
        remaining = sum(self._missing.values())
        if decide and 0 < remaining < 0.5:
            decided, top = is_decided(self._partial, remaining, len(self.shares))
            self.top = torch.where(self.open & decided, top, self.top)
            self.open &= ~decided


def _is_average(classifier: nn.Module) -> TypeGuard[Ensemble]:
    """Whether it is a weighted average of the confidences of its members, and nothing else."""
    return (
        isinstance(classifier, Ensemble)
        and members_of(classifier) != [classifier]
        and type(classifier.aggregation) is WeightedAverage
        and classifier.aggregation.of == "confidence"
    )


def _may_be_decided(shares: dict[nn.Module, float], sometimes: Sequence[nn.Module]) -> bool:
    """Whether the lead of the others can exceed the weight of the one that is asked last."""
    last = [shares[member] for member in sometimes if member in shares][-1:]
    return any(0 < share < 0.5 for share in last)


def _shares(average: Ensemble) -> dict[nn.Module, float]:
    """The weights of the members, summing to 1."""
    given = average.aggregation.used_weights  # type: ignore[attr-defined]
    members = average.used_members()
    weights = given or (1.0,) * len(members)
    shares: dict[nn.Module, float] = {}
    for member, weight in zip(members, weights, strict=True):
        shares[member] = shares.get(member, 0.0) + weight / sum(weights)
    return shares
