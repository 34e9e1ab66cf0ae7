"""Lower bounds on margins from Lipschitz constants: the value at the center, less the radius times the constant."""

import weakref
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from certifiers.certificate import Norm
from certifiers.exact.closed_form import DUAL_ORDER
from certifiers.lipschitz.gradients import Gradients, cuts
from certifiers.lipschitz.layer_norms import operator_norms, value_constants
from certifiers.networks import Add, Network, Shift
from certifiers.relaxation.affine import AFFINE, magnitude
from certifiers.relaxation.ball import ROUNDINGS, Ball
from certifiers.relaxation.relaxation import Bounds
from certifiers.relaxation.rounding import roundings, terms_of

_UNIT = float(torch.finfo(torch.float64).eps)


class LipschitzBounds(Bounds):
    """Bounds over balls, of functions s of the outputs of networks z, from constants L of these functions.

        sum_i s_i . z_i(x')  >=  sum_i s_i . z_i(x)  -  radius L(s)

    As a way to bound margins it serves single networks and all ensembles alike, as a relaxation does.

    Args:
        ball: the inputs; images outside the box [0, 1] are not excluded from it.
    """

    def __init__(self, ball: Ball) -> None:
        self.ball = ball
        self._centers: weakref.WeakKeyDictionary[Network, tuple[Tensor, Tensor]] = weakref.WeakKeyDictionary()

    @abstractmethod
    def constants(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float64[Tensor, "batch rows"]:
        """Lipschitz constants of `sum_i specifications[i] . networks[i]` over the balls, in their norm.

        Raises:
            Unsupported: a layer has no Lipschitz constant here.
        """

    def lower(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float64[Tensor, "batch rows"]:
        """The bounds, rounded down."""
        loss = self.ball.radius[:, None] * self.constants(networks, specifications)
        value = self.values(networks, specifications)
        return value - loss - 4 * _UNIT * (value.abs() + loss)

    def values(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float64[Tensor, "batch rows"]:
        """`sum_i specifications[i] . networks[i](x)` at the centers, less the errors of rounding."""
        total, size = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for network, specification in zip(networks, specifications, strict=True):
            output, error = self.center(network)
            rows = specification.double().cpu()
            dual = torch.linalg.vector_norm(rows, ord=DUAL_ORDER[self.ball.norm], dim=-1)
            total = total + torch.einsum("brc,bc->br", rows, output)
            size = size + torch.einsum("brc,bc->br", rows.abs(), output.abs())
            total = total - error[:, None] * dual * (1 + ROUNDINGS * _UNIT)
        return total - ROUNDINGS * _UNIT * size

    def center(self, network: Network) -> tuple[Float64[Tensor, "batch outputs"], Float64[Tensor, "batch"]]:
        """The outputs at the centers, and a bound on the norm of their error, computed once.

        A layer passes on what error it is given, times its operator norm, and adds its own rounding,
        `gamma_n (|W| |x| + |b|)` (see `rounding`).
        """
        if network not in self._centers:
            values = network.values(self.ball.center)
            order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: torch.inf}[self.ball.norm]
            errors = [torch.zeros(len(self.ball), dtype=torch.float64)]
            for number, (layer, sources, own) in enumerate(
                zip(network.layers, network.sources, operator_norms(network, self.ball.norm), strict=True)
            ):
                error = own * torch.stack([errors[source] for source in sources]).sum(0)
                out = values[number + 1]
                if isinstance(layer, AFFINE):
                    terms = out.abs() + magnitude(layer, values[sources[0]].abs())
                    terms = terms + layer.offset.abs() if isinstance(layer, Shift) else terms
                elif isinstance(layer, Add):
                    terms = sum((values[source].abs() for source in sources), out.abs())
                else:
                    terms = torch.zeros_like(out)
                own_error: Tensor = torch.linalg.vector_norm(terms.flatten(1), ord=order, dim=1)
                lost = roundings(max(terms_of(layer), out[0].numel())) * _UNIT  # the norm is a sum over the outputs
                errors.append(error * (1 + lost) + lost * own_error)
            self._centers[network] = values[-1], errors[-1]
        return self._centers[network]


def global_constants(
    network: Network, specification: Float[Tensor, "batch rows outputs"], norm: Norm
) -> Float64[Tensor, "batch rows"]:
    """Constants of functions of a network's outputs that hold on the whole space, in any dual pair of norms.

        |a . (z(x) - z(x'))|  <=  ||a A||_dual ||v(x) - v(x')||  <=  ||a A||_dual L(v) ||x - x'||

    for a value v that everything after depends on affinely, `z = A v + b`: the best of these.
    """
    reach = value_constants(network, norm)
    distinct, places = torch.unique(specification.double().cpu().flatten(0, 1), dim=0, return_inverse=True)
    found = torch.full((len(distinct),), torch.inf, dtype=torch.float64)
    for value, gradients in cuts(network, start(distinct[:, None])):
        found = torch.fmin(found, gradients.dual_norms(norm) * reach[value] * (1 + 4 * _UNIT))
    return found[places].reshape(specification.shape[:2])


def start(specification: Float[Tensor, "batch rows outputs"]) -> Gradients:
    """Specifications as gradients in the output, a row each."""
    batch, rows = specification.shape[:2]
    values = specification.double().cpu().flatten(0, 1)
    return Gradients(values, torch.zeros_like(values), torch.arange(batch).repeat_interleave(rows))
