"""Smoothed classifiers that attacks know: who votes, under which noise."""

from jaxtyping import Float
from torch import Tensor, nn

from certifiers.randomness import KeyedRandomness
from certifiers.smoothing.ensemble_after_smoothing import SmoothedMembers
from certifiers.smoothing.integer_smoothing import SmoothedOnGrid
from certifiers.smoothing.l1_smoothing import SmoothedBy
from certifiers.smoothing.neyman_pearson import Smoothed
from certifiers.smoothing.noise import GaussianNoise, Noise
from ensembles.ensemble import Ensemble

#: Smoothed classifiers that can be attacked. Each answers `argmax_c max_i P[voter i says c]` under some noise.
Attackable = Smoothed | SmoothedBy | SmoothedOnGrid | SmoothedMembers


class Rounding(nn.Module):
    """`network(R(x))`, R rounding every input to the nearest multiple of 1 / levels.

    Its gradient is that of the network at the rounded input: the slope of rounding itself is 0 almost everywhere, and
    tells an attack nothing.
    """

    def __init__(self, network: nn.Module, levels: int) -> None:
        super().__init__()
        self.network, self.levels = network, levels

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Tensor:
        """The network's scores."""
        rounded = (x.detach() * self.levels).round() / self.levels
        scores: Tensor = self.network(rounded + (x - x.detach()))
        return scores


def voters_of(target: Attackable) -> list[nn.Module]:
    """The classifiers whose votes decide, each to be asked about `x + noise` of `noise_of`."""
    if isinstance(target, SmoothedMembers):
        return list(target.members)
    if isinstance(target, SmoothedOnGrid):
        # Smoothing on a grid is smoothing by Gaussian noise of what rounds first: at all inputs, not only on the grid.
        whole = target.classifier
        if isinstance(whole, Ensemble):
            return [Ensemble([Rounding(member, target.levels) for member in whole.members], whole.aggregation)]
        return [Rounding(whole, target.levels)]
    return [target.classifier]


def noise_of(target: Attackable, rng: KeyedRandomness) -> Noise:
    """The noise that is added to an input before a voter is asked, keyed."""
    return target.noise(rng) if isinstance(target, SmoothedBy) else GaussianNoise(target.sigma, rng)
