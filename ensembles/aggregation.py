"""Aggregations: how the outputs of the members become the scores of the ensemble.

Small value objects over the members' logits, so that one forward pass of each member serves all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ensembles.parameters import NonNegativeFloat, NonNegativeInt, ParameterError, Parameters
from ensembles.registry import Registry

#: What a member contributes: its softmax confidences, or its logits.
Output = Literal["confidence", "logit"]


@dataclass(frozen=True, kw_only=True)
class Aggregation(Parameters, ABC):
    """Maps the members' logits to scores; the ensemble answers with the class of the largest score.

    Equal scores are answered with the lowest class, which makes the ensemble a function; certifiers of the
    ensemble itself never certify such a tie.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    @abstractmethod
    def scores(self, logits: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """The scores of the ensemble. Rows follow `uses`, where an aggregation does not need all members."""

    def uses(self, members: int) -> tuple[int, ...]:
        """The indices of the members that are needed, of `members` in all.

        Raises:
            ParameterError: the aggregation does not fit that many members.
        """
        return tuple(range(members))

    def describe(self) -> dict[str, Any]:
        """Name and parameters: the form in specs, keys and results."""
        return {"name": self.name, **self.identity()}


_registry: Registry[type[Aggregation]] = Registry("aggregation", "certbench.aggregations", Aggregation)
register = _registry.register


def origin(name: str) -> str:
    """Where a name comes from: certbench, or the package that provides it."""
    return _registry.origin(name)


def names() -> list[str]:
    """The names `create` knows."""
    return _registry.names()


def get(name: str) -> type[Aggregation]:
    """The class of that name; raises `UnknownNameError` with the nearest right name."""
    return _registry.get(name)


def create(written: str | Mapping[str, Any]) -> Aggregation:
    """An aggregation from its name, or from a table `{name = ..., parameters ...}`.

    Raises:
        UnknownNameError: no aggregation has that name.
        ParameterError: a parameter is unknown or not allowed.
    """
    table: dict[str, Any] = {"name": written} if isinstance(written, str) else dict(written)
    if "name" not in table:
        raise ParameterError(f"An aggregation needs a name, got {table}. Available: {', '.join(names())}.")
    name = table.pop("name")
    return _registry.get(name).from_mapping(table, f"aggregation {name!r}")


@register("weighted-average")
@dataclass(frozen=True, kw_only=True)
class WeightedAverage(Aggregation):
    """Weighted ensemble (WE): `sum_i w_i s_i(x)`, with the weights scaled to sum to one.

    `s_i` is the softmax confidence (Yang et al., ICLR 2022, Def. 2) or the logit (Horvath et al., ICLR 2022).
    `weights = None` means equal weights: the average ensemble. A member of weight 0 takes no part: it is not evaluated,
    so that `weights = (1, 1, 0)` is the ensemble of the first two.
    """

    name: ClassVar[str] = "weighted-average"
    weights: tuple[NonNegativeFloat, ...] | None = None
    of: Output = "confidence"

    def __post_init__(self) -> None:
        """Refuse weights that are all zero."""
        super().__post_init__()
        if self.weights is not None and sum(self.weights) <= 0:
            raise ParameterError(f"WeightedAverage: weights = {self.weights} are all zero. Give one a positive weight.")

    def uses(self, members: int) -> tuple[int, ...]:
        """The members of positive weight; checks that there are as many members as weights."""
        if self.weights is not None and len(self.weights) != members:
            raise ParameterError(
                f"WeightedAverage: {len(self.weights)} weights for {members} members. Give one weight a member."
            )
        return tuple(number for number in super().uses(members) if self.weights is None or self.weights[number] > 0)

    @property
    def used_weights(self) -> tuple[float, ...] | None:
        """The weights of the members that are used, not scaled; None: all are equal."""
        return None if self.weights is None else tuple(weight for weight in self.weights if weight > 0)

    def scores(self, logits: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """The weighted mean of the confidences or logits, of all members or of those that are used."""
        return self.combined(logits.softmax(-1) if self.of == "confidence" else logits)

    def combined(self, outputs: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """`scores` from what `of` names: confidences or logits."""
        if self.weights is None:
            return outputs.mean(0)
        given = self.weights if len(outputs) == len(self.weights) else self.used_weights
        weights = torch.tensor(given, dtype=outputs.dtype, device=outputs.device)
        return torch.einsum("m,mbc->bc", weights / weights.sum(), outputs)


@register("max-margin")
@dataclass(frozen=True, kw_only=True)
class MaxMargin(Aggregation):
    """Max-margin ensemble (MME): the answer of the member with the largest gap between its two top outputs.

    Yang et al., ICLR 2022, Def. 3, with gaps of confidences; `of = "logit"` takes gaps of logits. Equal gaps
    are answered by the first such member.
    """

    name: ClassVar[str] = "max-margin"
    of: Output = "confidence"

    def scores(self, logits: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """The outputs of the chosen member, an image at a time."""
        return self.combined(logits.softmax(-1) if self.of == "confidence" else logits)

    def combined(self, outputs: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """`scores` from what `of` names: confidences or logits."""
        if self.of == "confidence":
            # 1 - gap is (all but the top) + (the runner-up). Summed from small numbers it stays exact where the
            # top confidence rounds to 1 and the gaps of all sure members would compare as equal.
            runner_up = outputs.topk(2, dim=-1)
            others = outputs.scatter(-1, runner_up.indices[..., :1], 0.0).sum(-1)
            chosen = (others + runner_up.values[..., 1]).argmin(0)
        else:
            top = outputs.topk(2, dim=-1).values
            chosen = (top[..., 0] - top[..., 1]).argmax(0)
        return outputs[chosen, torch.arange(outputs.shape[1], device=outputs.device)]


@register("single")
@dataclass(frozen=True, kw_only=True)
class Single(Aggregation):
    """One member alone: its logits. The other members are not evaluated."""

    name: ClassVar[str] = "single"
    member: NonNegativeInt = 0

    def uses(self, members: int) -> tuple[int, ...]:
        """The one member."""
        if self.member >= members:
            raise ParameterError(f"Single: member {self.member} of {members}; they are counted from 0.")
        return (self.member,)

    def scores(self, logits: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """The logits of the one member that was evaluated."""
        return logits[0]
