"""Priority dropout: members that learn to use features of different strength (PDD, PDD+DEG, LPD)."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble, stack_logits
from ensembles.parameters import NonNegativeFloat, ParameterError, PositiveFloat, PositiveInt, Probability
from ensembles.training.input_gradients import pairwise_cosines
from ensembles.training.objective import Objective, register

#: Bins that are told apart at most; activations beyond share the last. Reached only by networks that diverge.
_MOST_BINS = 1 << 14


@runtime_checkable
class HasFeatures(Protocol):
    """A member whose penultimate features can be dropped: `head(features(x))` are its logits."""

    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """The penultimate features [batch, features]."""
        ...


@dataclass(frozen=True, kw_only=True)
class PriorityDropout(Objective):
    """Cross-entropy under dropout of the penultimate features whose keep rates depend on all members.

    In training, unit u of member k is kept with probability `keep_probabilities(features)[k, b, u]`, drawn anew for
    each sample; evaluation uses all units. `inverted_scaling` divides kept features by their keep rate; the
    published code does not (then features are several times larger in evaluation than in training, confidences
    saturate and input gradients vanish).

    Attributes:
        statistics: whether activations are counted a sample at a time or over the batch; the papers leave it open.
        inverted_scaling: see above.
    """

    pairwise: ClassVar[bool] = True

    statistics: Literal["sample", "batch"] = "sample"
    inverted_scaling: bool = False

    @abstractmethod
    def keep_probabilities(self, features: Float[Tensor, "member batch units"]) -> Float[Tensor, "member batch units"]:
        """The probability with which each unit is kept."""

    def dropped_logits(
        self, ensemble: Ensemble, inputs: list[Tensor], generator: torch.Generator
    ) -> Float[Tensor, "member batch classes"]:
        """The members' logits, each at its own inputs, under dropout.

        Raises:
            ValueError: a member has no `features` and `head`.
        """
        for number, member in enumerate(ensemble.members):
            if not isinstance(member, HasFeatures):
                raise ValueError(
                    f"Objective {self.name!r} drops penultimate features, but member {number} "
                    f"({type(member).__name__}) has no features(x) and head. Use an "
                    "architecture of ensembles.architectures, or add them."
                )
        features = torch.stack(
            [member.features(x) for member, x in zip(ensemble.members, inputs, strict=True)]  # type: ignore[operator]
        )
        with torch.no_grad():
            keep = self.keep_probabilities(features.detach())
            drawn = torch.rand(keep.shape, generator=generator, dtype=keep.dtype, device=generator.device)
            mask = (drawn.to(keep.device) < keep).to(features.dtype)
            if self.inverted_scaling:
                mask = mask / keep.clamp(min=torch.finfo(keep.dtype).tiny)
        dropped = features * mask
        return stack_logits(
            [member.head(own) for member, own in zip(ensemble.members, dropped, strict=True)]  # type: ignore[operator]
        )

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """One term, `cross_entropy`: summed over members."""
        noisy = self.noisy(x, generator)
        logits = self.dropped_logits(ensemble, [noisy] * len(ensemble.members), generator)
        return {"cross_entropy": torch.stack([cross_entropy(own, y) for own in logits]).sum()}


@register("pdd")
@dataclass(frozen=True, kw_only=True)
class PDD(PriorityDropout):
    """Priority Diversity Dropout (Huang et al., AAAI 2021; Eq. 2 of Wu et al.).

    The features of all members are min-max normalised together and put into `bins` equal bins. With n_k(m) the units
    of member k in bin m and C_k all its units, member k (counted from 1) has priority for t_k, the k-th most populated
    bin of all members together:

        keep = high                        in bin t_k
               low (1 - n_k(m) / C_k)      in any other bin m

    Equally populated bins come in order of strength, weakest first.

    Attributes:
        bins: M.
        high: alpha of Eq. 2.
        low: beta of Eq. 2.
        active_only: count only units above 0, so that the idle ones of a ReLU do not fill the first bin.
    """

    name: ClassVar[str] = "pdd"

    bins: PositiveInt = 10
    high: Probability = 0.9
    low: Probability = 0.1
    active_only: bool = False

    def keep_probabilities(self, features: Float[Tensor, "member batch units"]) -> Float[Tensor, "member batch units"]:
        """As the class says."""
        across = (0, 2) if self.statistics == "sample" else (0, 1, 2)
        low, high = features.amin(across, keepdim=True), features.amax(across, keepdim=True)
        span = (high - low).clamp(min=torch.finfo(features.dtype).tiny)
        bin_of = ((features - low) / span * self.bins).long().clamp(0, self.bins - 1)
        counted = features > 0 if self.active_only else torch.ones_like(features, dtype=torch.bool)
        counts = _counts(bin_of, counted, self.bins, self.statistics)
        priority = _most_frequent(counts)
        density = counts / counts.sum(-1, keepdim=True).clamp(min=1)
        others = self.low * (1 - density.gather(-1, bin_of))
        return torch.where(bin_of == priority[..., None], torch.full_like(others, self.high), others)


@register("pdd+deg")
@dataclass(frozen=True, kw_only=True)
class PDDWithDEG(PDD):
    """PDD plus dispersed ensemble gradients: `+ deg sum_{i<j} mean_b cos(g_i, g_j)` (Huang et al., AAAI 2021).

    g_i is the input gradient of member i's cross-entropy under dropout.

    Attributes:
        deg: weight of the gradient term; .01.
    """

    name: ClassVar[str] = "pdd+deg"

    deg: NonNegativeFloat = 0.01

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_entropy` and `gradient_dispersion`."""
        noisy = self.noisy(x, generator)
        copies = [noisy.detach().clone().requires_grad_() for _ in ensemble.members]
        logits = self.dropped_logits(ensemble, copies, generator)
        losses = torch.stack([cross_entropy(own, y, reduction="none") for own in logits])
        gradients = torch.autograd.grad(losses.sum(), copies, create_graph=True)
        cosines = pairwise_cosines(torch.stack([gradient.flatten(1) for gradient in gradients]))
        return {
            "cross_entropy": losses.mean(1).sum(),
            "gradient_dispersion": self.deg * cosines.mean(1).sum(),
        }


@register("lpd")
@dataclass(frozen=True, kw_only=True)
class LPD(PriorityDropout):
    """Laplace Priority Dropout (Wu et al., Alg. 1 and Eq. 3 to 6).

    Active units (v > 0) are rounded to the middle of an interval of width s, `mu(v) = ceil(v / s) s - s / 2`. With
    n_k(mu) of member k's C_k active units at mu and N(mu) = sum_k n_k(mu), r_k is the k-th most frequent mu:

        z    = gamma (n_k(mu) / C_k) (r_k - mu)^2
        keep = a exp(-z / l) / (2 l) + b

    Eq. 4 keeps denser intervals *less*, although the text says more: Eq. 4 is implemented. Ties of N come in order
    of strength, weakest first; where fewer mu occur than there are members, the last one serves the rest. Idle
    units have keep rate 1, which nothing depends on.

    Attributes:
        interval: s.
        gamma: scale of z; the paper leaves it open.
        scale: l, lambda of Eq. 5.
        a: alpha of Eq. 6.
        b: beta of Eq. 6: the least keep rate; the largest is `a / (2 l) + b`, at most 1.
    """

    name: ClassVar[str] = "lpd"

    interval: PositiveFloat = 0.1
    gamma: PositiveFloat = 1.0
    scale: PositiveFloat = 0.5
    a: PositiveFloat = 0.85
    b: Probability = 0.127

    def __post_init__(self) -> None:
        """Refuse keep rates above 1."""
        super().__post_init__()
        most = self.a / (2 * self.scale) + self.b
        if most > 1:
            raise ParameterError(
                f"LPD: a / (2 scale) + b = {most:.3f} is a probability above 1. Lower a or b, or raise scale."
            )

    def keep_probabilities(self, features: Float[Tensor, "member batch units"]) -> Float[Tensor, "member batch units"]:
        """As the class says."""
        active = features > 0
        interval_of = (features / self.interval).ceil().clamp(max=_MOST_BINS).long().clamp(min=1) - 1
        counts = _counts(interval_of, active, int(interval_of.max()) + 1, self.statistics)
        priority = _most_frequent(counts)
        density = counts / counts.sum(-1, keepdim=True).clamp(min=1)
        # Both are middles of intervals, so their distance is a whole number of widths.
        distance = self.interval * (priority[..., None] - interval_of)
        z = self.gamma * density.gather(-1, interval_of) * distance.square()
        keep = self.a * torch.exp(-z / self.scale) / (2 * self.scale) + self.b
        return torch.where(active, keep, torch.ones_like(keep))


def _counts(
    bin_of: Int[Tensor, "member batch units"],
    counted: Tensor,
    bins: int,
    statistics: str,
) -> Float[Tensor, "member batch bins"]:
    """How many counted units of each member lie in each bin, a sample at a time or over the whole batch."""
    counts = torch.zeros(*bin_of.shape[:2], bins, device=bin_of.device)
    counts.scatter_add_(-1, bin_of, counted.to(counts.dtype))
    return counts if statistics == "sample" else counts.sum(1, keepdim=True).expand_as(counts)


def _most_frequent(counts: Float[Tensor, "member batch bins"]) -> Int[Tensor, "member batch"]:
    """For member k (from 0) the bin with the (k+1)-th largest total count; the last that occurs if there are fewer."""
    total = counts.sum(0)
    order = total.argsort(dim=-1, descending=True, stable=True)
    occurring = (total > 0).sum(-1).clamp(min=1)
    ranks = torch.arange(len(counts), device=counts.device)[:, None].minimum(occurring[None] - 1)
    return order.gather(-1, ranks.transpose(0, 1)).transpose(0, 1)
