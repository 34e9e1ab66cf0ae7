"""The ensemble: members and an aggregation, one classifier."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ensembles.aggregation import Aggregation, MaxMargin, WeightedAverage


class Ensemble(nn.Module):
    """Members and an aggregation.

    Args:
        members: modules that map inputs [batch, *shape] in [0, 1] to logits [batch, classes]; normalisation
            belongs inside them, so that radii are in input units.
        aggregation: how their outputs become one score a class.

    Raises:
        ValueError: no members.
        ParameterError: the aggregation does not fit the number of members.
    """

    def __init__(self, members: Sequence[nn.Module], aggregation: Aggregation | None = None) -> None:
        super().__init__()
        if not members:
            raise ValueError("An ensemble needs at least one member, got none.")
        self.aggregation = WeightedAverage() if aggregation is None else aggregation
        self.used = self.aggregation.uses(len(members))
        self.members = nn.ModuleList(members)

    def with_aggregation(self, aggregation: Aggregation) -> "Ensemble":
        """The same members (shared, not copied) under another aggregation."""
        return Ensemble(list(self.members), aggregation)

    def used_members(self) -> list[nn.Module]:
        """The members that the aggregation needs, in its order."""
        return [self.members[index] for index in self.used]

    def logits(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "member batch classes"]:
        """The logits of all members."""
        return stack_logits([member(x) for member in self.members])

    def confidences(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "member batch classes"]:
        """The softmax confidences of all members."""
        return self.logits(x).softmax(-1)

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch classes"]:
        """The scores of the ensemble; only the members that the aggregation needs are evaluated."""
        return self.aggregation.scores(stack_logits([member(x) for member in self.used_members()]))


def stack_logits(outputs: Sequence[Tensor]) -> Float[Tensor, "member batch classes"]:
    """The members' logits as one tensor.

    Raises:
        ValueError: a member did not return [batch, classes], or members disagree on it.
    """
    shapes = [tuple(output.shape) for output in outputs]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"Members must return logits of one shape [batch, classes], got {shapes}.")
    return torch.stack(list(outputs))


def shared_scores(
    classifiers: Sequence[nn.Module],
    x: Float[Tensor, "batch *shape"],
    known: Mapping[nn.Module, Float[Tensor, "batch classes"]] | None = None,
) -> list[Tensor]:
    """The scores [batch, classes] of several classifiers at once, each member evaluated once.

    Ensembles are opened into their members; a member that several of them share (the same object) runs once.
    A subclass with a `forward` of its own is a module like any other. Each result equals `classifier(x)` bit
    for bit. `known` are outputs at x that need not be computed again.
    """
    shared = _Shared(x, dict(known or {}))
    return [shared.scores(classifier) for classifier in classifiers]


class _Shared:
    """What several classifiers have in common at one batch, each computed when it is first needed."""

    def __init__(self, x: Float[Tensor, "batch *shape"], outputs: dict[nn.Module, Tensor]) -> None:
        self._x, self._outputs = x, outputs
        self._confidences: dict[nn.Module, Tensor] = {}

    def scores(self, classifier: nn.Module) -> Tensor:
        """Those of one classifier."""
        if not _is_plain_ensemble(classifier):
            return self._output(classifier)
        how, members = classifier.aggregation, classifier.used_members()
        # Not of a subclass, which may compute its scores in a way of its own.
        if type(how) in (WeightedAverage, MaxMargin) and how.of == "confidence":  # type: ignore[attr-defined]
            return how.combined(stack_logits([self._confidence(member) for member in members]))  # type: ignore[attr-defined,no-any-return]
        return how.scores(stack_logits([self._output(member) for member in members]))

    def _output(self, module: nn.Module) -> Tensor:
        if module not in self._outputs:
            self._outputs[module] = cast("Tensor", module(self._x))
        return self._outputs[module]

    def _confidence(self, module: nn.Module) -> Tensor:
        # A softmax of ten classes takes as long as all the rest of an aggregation: once a member, not once for each.
        if module not in self._confidences:
            self._confidences[module] = self._output(module).softmax(-1)
        return self._confidences[module]


def members_of(classifier: nn.Module) -> list[nn.Module]:
    """What one evaluation of a classifier runs: the members an ensemble needs, or the classifier itself."""
    return classifier.used_members() if _is_plain_ensemble(classifier) else [classifier]


def _is_plain_ensemble(classifier: nn.Module) -> TypeGuard[Ensemble]:
    """Whether its answer is the aggregation of its members, and nothing else: no `forward` or hook of its own."""
    return (
        isinstance(classifier, Ensemble)
        and type(classifier).forward is Ensemble.forward
        and "forward" not in vars(classifier)
        and not classifier._forward_hooks
        and not classifier._forward_pre_hooks
    )
