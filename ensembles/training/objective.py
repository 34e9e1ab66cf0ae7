"""The interface of a training objective: the loss of one batch, as named terms."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat, ParameterError, Parameters
from ensembles.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Objective(Parameters, ABC):
    """What an ensemble is trained to minimise. A subclass is a frozen dataclass with `name` and `terms`.

    Attributes:
        joint: whether the loss couples the members. Members of an objective that does not are trained one by
            one, each from a seed of its own, so that ensembles of different sizes share their members.
        pairwise: whether the loss compares members with each other, which takes at least two.
        sigma: standard deviation of the Gaussian noise of training, in input units; validation accuracy is
            measured under the same noise.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    joint: ClassVar[bool] = True
    pairwise: ClassVar[bool] = False
    sigma: NonNegativeFloat = 0.0

    @abstractmethod
    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss by name, with their signs and factors: the loss is their sum.

        Args:
            ensemble: in train mode; the weights' gradients flow from the terms.
            x: inputs in [0, 1].
            y: true classes.
            generator: the only source of randomness.
        """

    @final
    def loss(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """The objective of one batch: the sum of `terms`."""
        return torch.stack(list(self.terms(ensemble, x, y, generator).values())).sum()

    def at_epoch(self, epoch: int) -> "Objective":
        """The objective of an epoch, counted from 1, where it changes over the training (a warm-up)."""
        return self

    def noisy(self, x: Float[Tensor, "batch *shape"], generator: torch.Generator) -> Float[Tensor, "batch *shape"]:
        """`x + N(0, sigma^2 I)`, not clipped, drawn on the generator's device."""
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
        return x + self.sigma * noise.to(x.device)

    def noisy_copies(
        self, x: Float[Tensor, "batch *shape"], draws: int, generator: torch.Generator
    ) -> Float[Tensor, "copies *shape"]:
        """`draws` noisy versions of the batch, one batch after the other."""
        return self.noisy(x.expand(draws, *x.shape), generator).flatten(0, 1)

    def describe(self) -> dict[str, Any]:
        """Name and parameters: the form in specs, recipes and results."""
        return {"name": self.name, **self.identity()}


_registry: Registry[type[Objective]] = Registry("objective", "certbench.objectives", Objective)
register = _registry.register
names = _registry.names
get = _registry.get
origin = _registry.origin


def create(name: str, **parameters: Any) -> Objective:
    """The objective of that name with these hyper-parameters.

    Raises:
        UnknownNameError: no objective has that name.
        ParameterError: a hyper-parameter is unknown or not allowed.
    """
    return from_mapping({"name": name, **parameters})


def from_mapping(table: Mapping[str, Any]) -> Objective:
    """The objective of a table `{name = ..., parameters ...}` of a spec; raises as `create` does."""
    parameters = dict(table)
    if "name" not in parameters:
        raise ParameterError(f"An objective needs a name, got {parameters}. Available: {', '.join(names())}.")
    name = parameters.pop("name")
    return _registry.get(name).from_mapping(parameters, f"objective {name!r}")
